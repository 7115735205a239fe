"""Float accumulators at any scale: the codes are those of exact sums, to within the bound, wherever the numbers lie.

The sum is kept exactly, as powers of the base with rational weights (`lnsnum.reference`), and moved by the bound to
either side: the code that is found lies between those of both ends. Which scale "fit" finds is compared over all
operations, where it is out of reach above all.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import LNSFormat, LNSTensor, arithmetic, conversion, decode, encode, lns8f3, lns16f7, lns16f10, lns32f23
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.operations import float_sums
from lnsnum.reduction import dot, error_bound, matmul, mean, prod
from lnsnum.reduction import sum as lns_sum
from lnsnum.reference.rounding import round_sum
from lnsnum.reference.sums import sign_of

KINDS = ["float64", "float32"]
lns16f2, lns16f0, lns32f3 = LNSFormat(16, 2), LNSFormat(16, 0), LNSFormat(32, 3)
FORMATS = [
    *(lns8f3, lns16f2, lns16f0, lns32f3, lns16f7, lns32f23, LNSFormat(20, 1), LNSFormat(32, 0), LNSFormat(32, 30)),
    *(LNSFormat(12, 1, base=16.0), LNSFormat(16, 2, base=1.7), LNSFormat(14, 0, base=2.0**40)),
    *(LNSFormat(32, 0, base=1.0000001), LNSFormat(6, 0, base=1e300)),
]


def terms_of(codes, fmt, offsets):
    """[{exponent: weight}] of finite codes: each one power of the base, or nothing."""
    out = []
    for code, offset in zip(codes.tolist(), np.broadcast_to(offsets, codes.shape).tolist(), strict=True):
        m = code & fmt.max_magnitude
        sign = -1 if code >= fmt.sign_bit else 1
        out.append({Fraction(m - fmt.bias + offset, 1 << fmt.fraction_bits): Fraction(sign)} if m else {})
    return out


def times(x, y):
    return {p + q: v * w for p, v in x.items() for q, w in y.items()}


def ends(terms, bound, divisor=1):
    """The least and the greatest sum that the bound allows, as terms."""
    low, high = {}, {}
    bound = Fraction(bound)
    for exponent, weight in (item for term in terms for item in term.items()):
        low[exponent] = low.get(exponent, 0) + (weight - bound * abs(weight)) / divisor
        high[exponent] = high.get(exponent, 0) + (weight + bound * abs(weight)) / divisor
    return low, high


def place(code, fmt):
    assert code != fmt.nan_code
    return fmt.sign_bit - code if code > fmt.sign_bit else code


def check(found, offset, terms, bound, fmt, divisor=1, fitted=False):
    low, high = ends(terms, bound, divisor)
    codes = [round_sum(sum_, fmt, offset) for sum_ in (low, high)]
    assert place(codes[0], fmt) <= place(int(found), fmt) <= place(codes[1], fmt)
    if fitted and found != 0:
        if sign_of(low, Fraction(fmt.base)) == sign_of(high, Fraction(fmt.base)):
            assert any(round_sum(end, fmt, offset, overflow="nan") != fmt.nan_code for end in (low, high))
        if offset > -MAX_LOG_OFFSET:
            assert fmt.nan_code in [round_sum(end, fmt, offset - 1, overflow="nan") for end in (low, high)]


def fits_nowhere(terms, bound, fmt, divisor=1):
    """Whether the sum saturates at 2^30, for all that the bound says."""
    codes = [round_sum(end, fmt, MAX_LOG_OFFSET, overflow="nan") for end in ends(terms, bound, divisor)]
    return fmt.nan_code in codes


@st.composite
def numbers(draw, fmt, count, one_scale=False):
    """Codes and offsets: everywhere, in clusters, near the ends; cancelling pairs."""
    near = draw(st.integers(1, fmt.max_magnitude))
    m = st.one_of(
        st.integers(1, fmt.max_magnitude), st.sampled_from([1, fmt.bias, fmt.max_magnitude, near]), st.just(near)
    )
    code = st.one_of(st.builds(lambda m, s: m | s, m, st.sampled_from([0, fmt.sign_bit])), st.just(0))
    codes = np.array(draw(st.lists(code, min_size=count, max_size=count)), fmt.dtype)
    scale = st.one_of(st.integers(-MAX_LOG_OFFSET, MAX_LOG_OFFSET), st.sampled_from([0, 6000, -(1 << 30), 1 << 30]))
    if one_scale or draw(st.booleans()):
        return codes, draw(scale)
    first = draw(scale)
    around = st.integers(max(first - 5000, -MAX_LOG_OFFSET), min(first + 5000, MAX_LOG_OFFSET))
    each = st.one_of(scale, around, around)
    return codes, np.array(draw(st.lists(each, min_size=count, max_size=count)), np.int32)


def out_offset(draw, fmt, logs):
    """One at which something is seen, or "fit"."""
    top = max(logs, default=0)
    near = max(min(top, MAX_LOG_OFFSET), -MAX_LOG_OFFSET)
    return draw(st.sampled_from([near, max(min(top - fmt.max_log + 20, MAX_LOG_OFFSET), -MAX_LOG_OFFSET), "fit"]))


def attempt(function):
    """(codes, offset), or None where no scale up to 2^30 fits."""
    try:
        return function()
    except ValueError as error:
        if "finds no scale" not in str(error):
            raise
        return None


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), fmt=st.sampled_from(FORMATS))
@settings(max_examples=60)
def test_sums_and_means(kind, data, fmt):
    if kind == "float32" and fmt.base > 2.0**100:
        fmt = lns16f2  # one factor of the base is more than float32 holds
    count = data.draw(st.integers(1, 6))
    codes, offsets = data.draw(numbers(fmt, count))
    terms = terms_of(codes, fmt, offsets)
    logs = [int(q * (1 << fmt.fraction_bits)) for term in terms for q in term]
    out = out_offset(data.draw, fmt, logs)
    for function, divisor in ((lns_sum, 1), (mean, count)):
        how = {"accumulator": kind, "log_offset": offsets, "out_log_offset": out}
        result = attempt(lambda: function(codes, fmt, **how))  # noqa: B023
        if result is not None:
            bound = error_bound(count + 1, kind)
            check(*result, terms, bound, fmt, divisor, fitted=out == "fit")
        else:
            assert out == "fit"
            assert fits_nowhere(terms, error_bound(count + 1, kind), fmt, divisor)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), fmt=st.sampled_from(FORMATS))
@settings(max_examples=60)
def test_products_of_matrices(kind, data, fmt):
    """Every element by its own terms, although they share rows and columns."""
    if kind == "float32" and fmt.base > 2.0**100:
        fmt = lns16f2
    rows, inner, columns = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 2)))
    (a, i), (b, j) = data.draw(numbers(fmt, rows * inner)), data.draw(numbers(fmt, inner * columns))
    a, b = a.reshape(rows, inner), b.reshape(inner, columns)
    i, j = (x if isinstance(x, int) else x.reshape(y.shape) for x, y in ((i, a), (j, b)))
    x = [terms_of(a[r], fmt, np.broadcast_to(i, a.shape)[r]) for r in range(rows)]
    y = [terms_of(b[:, c], fmt, np.broadcast_to(j, b.shape)[:, c]) for c in range(columns)]
    sums = {(r, c): [times(p, q) for p, q in zip(x[r], y[c], strict=True)] for r in range(rows) for c in range(columns)}
    logs = [int(q * (1 << fmt.fraction_bits)) for terms in sums.values() for term in terms for q in term]
    out = out_offset(data.draw, fmt, logs)
    how = {"accumulator": kind, "a_log_offset": i, "b_log_offset": j, "out_log_offset": out}
    result = attempt(lambda: matmul(a, b, fmt, **how))
    if result is None:
        assert out == "fit"
        assert any(fits_nowhere(terms, error_bound(inner, kind), fmt) for terms in sums.values())
        return
    for at, terms in sums.items():
        check(result[0][at], result[1], terms, error_bound(inner, kind), fmt)


@given(data=st.data())
@settings(max_examples=60)
def test_products_of_two_formats(data):
    fmt, other = data.draw(
        st.sampled_from([(lns16f2, LNSFormat(32, 30)), (LNSFormat(32, 0), lns16f10), (lns32f3, lns8f3)])
    )
    if data.draw(st.booleans()):
        fmt, other = other, fmt
    (a, i), (b, j) = data.draw(numbers(fmt, 3)), data.draw(numbers(other, 3))
    terms = [times(p, q) for p, q in zip(terms_of(a, fmt, i), terms_of(b, other, j), strict=True)]
    for out in (fmt, other):
        logs = [math.floor(q * (1 << out.fraction_bits)) for term in terms for q in term]
        offset = max(min(max(logs, default=0), MAX_LOG_OFFSET), -MAX_LOG_OFFSET)
        how = {"b_format": other, "out_format": out, "a_log_offset": i, "b_log_offset": j, "out_log_offset": offset}
        check(*dot(a, b, fmt, **how), terms, error_bound(3, "float64"), out)


def test_ones_at_a_great_scale():
    """What z + z finds, sums find: 1 is 1500 octaves below the scale here."""
    z = LNSTensor.from_float(np.ones(2), lns16f2, log_offset=6000)
    assert (z + z).tolist() == [2.0, 2.0]
    assert [x.tolist() for x in (z.sum(), z.mean(), z @ z, z.dot(z))] == [2.0, 1.0, 2.0, 2.0]
    for kind in KINDS:
        assert z.sum(accumulator=kind).tolist() == 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_that_is_small_among_great_ones(kind):
    """The greatest of the row meets zero; what is left is 1, 4000 octaves below both operands' greatest."""
    fmt = lns16f2
    great, one = fmt.max_magnitude, fmt.bias
    a, b = np.array([[great, one]] * 2, fmt.dtype), np.array([[0, great], [one, 0]], fmt.dtype)
    found, offset = matmul(a, b, fmt, accumulator=kind)
    assert offset == 0
    assert found.tolist() == [[one, great]] * 2  # the other saturates
    stacked, _ = matmul(np.stack([a, a]), b[:, 0], fmt, accumulator=kind)
    assert stacked.tolist() == [[one, one]] * 2
    nan, _ = matmul(np.array([[great, fmt.nan_code], [one, one]], fmt.dtype), b, fmt, accumulator=kind)
    assert nan[0].tolist() == [fmt.nan_code] * 2
    assert nan[1, 0] == one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((4, 1, 2, 3), (2, 3, 5)),
                                    ((2, 0), (0, 3)), ((0, 3), (3, 2)), ((2, 2, 3), (3,))], ids=str)  # fmt: skip
def test_shapes_far_out_of_the_range(kind, shapes):
    """As one at a time."""
    random = np.random.default_rng(7)
    a, b = (random.integers(1, lns32f3.max_magnitude, shape).astype(np.uint32) for shape in shapes)
    found, _ = matmul(a, b, lns32f3, accumulator=kind)
    assert found.shape == np.matmul(np.ones(shapes[0]), np.ones(shapes[1])).shape
    x, y = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    stack = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = np.broadcast_to(x, (*stack, *x.shape[-2:])), np.broadcast_to(y, (*stack, *y.shape[-2:]))
    expected = np.zeros((*stack, x.shape[-2], y.shape[-1]), np.uint32)
    for at in np.ndindex(expected.shape):
        expected[at] = dot(x[at[:-1]], y[*at[:-2], :, at[-1]], lns32f3, accumulator=kind)[0]
    np.testing.assert_array_equal(found, expected.reshape(found.shape))
    for axis in (None, 0, -1, ()):
        for keepdims in (False, True):
            if a.size:
                total, _ = lns_sum(a, lns32f3, axis=axis, keepdims=keepdims, accumulator=kind)
                assert total.shape == np.sum(np.ones(a.shape), axis=axis, keepdims=keepdims).shape


def test_random_bits_belong_to_elements_whatever_their_factors():
    """Rows on far scales, rounded at random: each as alone, with its own bits."""
    random = np.random.default_rng(11)
    codes = np.stack([random.integers(c, c + 40, 6) for c in (100, 9000, 16384, 30000)]).astype(np.uint16)
    bits = random.integers(0, 1 << 32, 4, dtype=np.uint32)
    how = {"rounding": "stochastic_value", "out_format": LNSFormat(16, 1)}
    found, _ = lns_sum(codes, lns16f2, axis=1, random_bits=bits, **how)
    alone = [int(lns_sum(row, lns16f2, random_bits=bit, **how)[0]) for row, bit in zip(codes, bits, strict=True)]
    assert found.tolist() == alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, LNSFormat(10, 3, base=1.7)], ids=str)
def test_within_the_range_of_the_floats_they_are_decode_numpy_encode(kind, fmt, monkeypatch):
    """Nothing moves where nothing has to."""
    for name in ("_logs", "_floats", "_by_rows_and_columns"):
        monkeypatch.delattr(float_sums, name)
    codes = np.random.default_rng(3).integers(fmt.bias - 60, fmt.bias + 60, (5, 5)).astype(fmt.dtype)
    floats = decode(codes, fmt, kind)
    found, _ = lns_sum(codes, fmt, axis=0, accumulator=kind)
    np.testing.assert_array_equal(found, encode(floats.sum(axis=0, dtype=kind), fmt))
    found, _ = matmul(codes, codes, fmt, accumulator=kind)
    np.testing.assert_array_equal(found, encode(floats @ floats, fmt))


@pytest.mark.parametrize("kind", [*KINDS, "lns16f10"])
def test_integers_of_every_type_are_offsets(kind):
    """As Python's integer: a difference of narrow ones must not wrap, nor one of unsigned ones become a float."""
    fmt = lns8f3
    codes, other = np.array([64, 70, 100], np.uint8), np.array([90, 3, 200], np.uint8)
    for value in (100, 0, 120):
        expected = lns_sum(codes, fmt, log_offset=value, accumulator=kind)
        dotted = dot(codes, other, fmt, a_log_offset=value, b_log_offset=3, accumulator=kind)
        for dtype in (np.int8, np.uint8, np.uint32, np.int64, np.uint64):
            for offset in (dtype(value), np.array(value, dtype), np.full(3, value, dtype), np.full(1, value, dtype)):
                found = lns_sum(codes, fmt, log_offset=offset, accumulator=kind)
                assert (int(found[0]), found[1]) == (int(expected[0]), expected[1])
                found = dot(codes, other, fmt, a_log_offset=offset, b_log_offset=dtype(3), accumulator=kind)
                assert (int(found[0]), found[1]) == (int(dotted[0]), dotted[1])
    mixed = np.array([[120], [-120]], np.int8)
    pair = np.array([[64, 64], [64, 64]], np.uint8)
    expected = lns_sum(pair, fmt, axis=1, log_offset=mixed.astype(np.int32), out_log_offset=0, accumulator=kind)
    found = lns_sum(pair, fmt, axis=1, log_offset=mixed, out_log_offset=0, accumulator=kind)
    np.testing.assert_array_equal(found[0], expected[0])


# ------------------------------------------------------------------------------------------------ what "fit" finds

LOW = -MAX_LOG_OFFSET
SOURCES = [
    lns8f3,
    lns16f10,
    lns32f23,
    LNSFormat(20, 3),
    LNSFormat(8, 3, base=1.7),
    LNSFormat(8, 3, base=4.0),
    LNSFormat(32, 0),
]


@pytest.mark.parametrize("fmt", SOURCES, ids=str)
@pytest.mark.parametrize("m", [1, "one", "greatest"])
def test_results_too_small_for_every_scale_fit_at_the_least(fmt, m):
    """-2^30, from every operation, whatever the result's format: the exact result is not zero."""
    code = {1: 1, "one": fmt.bias, "greatest": fmt.max_magnitude}[m]
    x, how = np.array([code, code], fmt.dtype), {"out_log_offset": "fit"}
    finest = LNSFormat(fmt.bits, fmt.bits - 2, base=fmt.base)
    both, same = {"a_log_offset": LOW, "b_log_offset": LOW}, {"log_offset": LOW}
    log = code - fmt.bias + LOW
    offsets = {}
    for name, out in (("same", fmt), ("finest", finest)):
        steps = 1 << (out.fraction_bits - fmt.fraction_bits)

        def expected(log, steps=steps, out=out):
            return max(log * steps - out.max_log, LOW)

        how = {"out_log_offset": "fit", "out_format": out}
        found = {
            "multiply": (arithmetic.multiply(x, x, fmt, **both, **how), expected(2 * log)),
            "up": (arithmetic.multiply(x, x, fmt, rounding="up", **both, **how), expected(2 * log)),
            "square": (arithmetic.square(x, fmt, **same, **how), expected(2 * log)),
            "power": (arithmetic.power(x, 3, fmt, **same, **how), expected(3 * log)),
            "prod": (prod(x, fmt, **same, **how), expected(2 * log)),
            "rescale": (conversion.rescale(x, fmt, **same, **how), expected(log)),
            "sum of one": (lns_sum(x[:1], fmt, **same, **how), expected(log)),
            "sum in codes": (lns_sum(x[:1], fmt, accumulator=fmt, **same, **how), expected(log)),
            "dot of one": (dot(x[:1], x[:1], fmt, **both, **how), expected(2 * log)),
            "float32": (dot(x[:1], x[:1], fmt, accumulator="float32", **both, **how), expected(2 * log)),
        }
        offsets |= {(name, operation): (result[1], wanted) for operation, (result, wanted) in found.items()}
    assert {key: value for key, value in offsets.items() if value[0] != value[1]} == {}


def test_a_sum_of_fitted_floats():
    """0.25 + 0.125 in a format so wide that its least scale does not fit them."""
    x = LNSTensor.from_float([0.25, 0.125], "lns32f23", log_offset="fit")
    assert x.log_offset == LOW
    total = x.sum()
    assert total.log_offset == LOW
    assert total.tolist() == pytest.approx(0.375, rel=2.0**-23)


@example(1 << 30, lns8f3)
@given(st.integers(-MAX_LOG_OFFSET, MAX_LOG_OFFSET), st.sampled_from([lns8f3, lns16f2, lns16f10, lns32f3]))
@settings(max_examples=60)
def test_sums_of_one_number_fit_as_the_number_does(offset, fmt):
    for code in (1, fmt.bias, fmt.max_magnitude, fmt.bias | fmt.sign_bit):
        x = np.array([code], fmt.dtype)
        expected = conversion.rescale(x, fmt, log_offset=offset, out_log_offset="fit")
        for kind in KINDS:
            found = lns_sum(x, fmt, log_offset=offset, out_log_offset="fit", accumulator=kind)
            assert (int(found[0]), found[1]) == (int(expected[0][0]), expected[1])
