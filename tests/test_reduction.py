"""Sums, products and matrix products against a plain model: one code at a time, every addition by the oracle.

    total  =  ((t_0 + t_1) + t_2) + ...   or pairwise,     t_k = a_k b_k in the accumulator, by `reference.multiply`

and the result is `reference.convert` of the total. The fast kernels, the general way and any number of threads must
give the same bits; float accumulators must give decode, NumPy, encode.
"""

import itertools
import math
from fractions import Fraction
from functools import lru_cache, partial

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsnum import (
    GroupOffsets,
    LNSFormat,
    arithmetic,
    decode,
    encode,
    lns4f1,
    lns6f2,
    lns8f3,
    lns8f5,
    lns12f6,
    lns16f7,
    lns16f10,
    lns32f23,
    reference,
)
from lnsnum.encoding import fit_log_offset
from lnsnum.gaussian import Cotransformation, Exact, FromFunctions, LinearInterpolation, Mitchell
from lnsnum.operations import accumulate
from lnsnum.reduction import dot, error_bound, matmul, mean, prod
from lnsnum.reduction import sum as lns_sum

_mp = mpmath.MPContext()
_mp.prec = 300

MODES = ["nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"]
ORDERS = ["sequential", "pairwise"]
base_3_2, odd_base, base_4, base_9, base_16 = (partial(LNSFormat, base=base) for base in (1.5, 1.7, 4.0, 9.0, 16.0))
orders = pytest.mark.parametrize("order", ORDERS)

# ------------------------------------------------------------------------------------------------- the model


@lru_cache(maxsize=1 << 16)
def term(a, b, fmt, b_format, accumulator, a_offset, b_offset, overflow):
    return reference.multiply(
        a, b, fmt, b_format=b_format, out_format=accumulator, a_log_offset=a_offset, b_log_offset=b_offset,
        overflow=overflow,
    )  # fmt: skip


@lru_cache(maxsize=1 << 18)
def plus(x, y, accumulator, overflow):
    return reference.add(x, y, accumulator, overflow=overflow)


def approximate_plus(gaussian, x, y, accumulator, overflow):
    """By `arithmetic.add`, one pair at a time: tests/test_gaussian.py holds that against its own model."""
    one = (np.array([code], accumulator.dtype) for code in (x, y))
    return int(arithmetic.add(*one, accumulator, gaussian=gaussian, overflow=overflow)[0][0])


def total_of(terms, accumulator, order, overflow, add=plus):
    """The sum of codes in the order."""
    if not terms:
        return 0
    if order == "sequential":
        total = terms[0]
        for following in terms[1:]:
            total = add(total, following, accumulator, overflow)
        return total
    while len(terms) > 1:
        pairs = [add(*terms[i : i + 2], accumulator, overflow) for i in range(0, len(terms) - 1, 2)]
        terms = pairs + terms[2 * len(pairs) :]
    return terms[0]


def totals(a, b, fmt, b_format, accumulator, order, overflow="saturate", a_offset=0, b_offset=0, add=plus):
    """Codes of the accumulator of a matrix product, and the log_offset of its 1, in its steps."""
    x, y = (np.broadcast_to(offset, codes.shape) for codes, offset in ((a, a_offset), (b, b_offset)))
    top = [int(offset.max(initial=-(1 << 31))) if offset.size else 0 for offset in (x, y)]
    out = np.zeros((a.shape[0], b.shape[1]), accumulator.dtype)
    for i, j in np.ndindex(out.shape):
        offsets = [(int(x[i, k]) - top[0], int(y[k, j]) - top[1]) for k in range(a.shape[1])]
        terms = [
            term(int(a[i, k]), int(b[k, j]), fmt, b_format, accumulator, max(p, -(1 << 30)), q, overflow)
            for k, (p, q) in enumerate(offsets)
        ]
        out[i, j] = total_of(terms, accumulator, order, overflow, add)
    F = accumulator.fraction_bits
    return out, (top[0] << (F - fmt.fraction_bits)) + (top[1] << (F - b_format.fraction_bits))


def finished(codes, one, accumulator, fmt, offset, random_bits=0, **how):
    """Codes of the accumulator, whose 1 is at `one`, in the result's format."""
    convert = partial(reference.convert, fmt=accumulator, to=fmt, log_offset=one, out_log_offset=offset, **how)
    bits = np.broadcast_to(random_bits, codes.shape)
    flat = [convert(int(x), random_bits=int(r)) for x, r in zip(codes.reshape(-1), bits.reshape(-1), strict=True)]
    return np.array(flat, fmt.dtype).reshape(codes.shape)


def check_fit(found, offset, codes, one, accumulator, fmt, **how):
    """Nothing saturates at the offset, something does at one less, and the codes are those of the model."""
    np.testing.assert_array_equal(found, finished(codes, one, accumulator, fmt, offset, **how))
    numbers = codes[(codes & accumulator.max_magnitude) != 0]
    if numbers.size == 0:
        assert offset == 0
        return
    assert not np.any(finished(numbers, one, accumulator, fmt, offset, **{**how, "overflow": "nan"}) == fmt.nan_code)
    assert np.any(finished(numbers, one, accumulator, fmt, offset - 1, **{**how, "overflow": "nan"}) == fmt.nan_code)


# ---------------------------------------------------------------------------------- bit-true, against the model

PAIRS = [
    (lns4f1, lns4f1), (lns4f1, lns6f2), (lns4f1, lns8f3), (lns6f2, lns6f2), (lns6f2, lns16f10), (lns6f2, lns12f6),
    (LNSFormat(4, 0), LNSFormat(5, 0)), (LNSFormat(4, 2), LNSFormat(7, 5)), (lns4f1, LNSFormat(16, 1)),
    (base_4(4, 1), base_4(5, 1)), (base_4(5, 0), base_4(5, 0)),
    (base_4(4, 0), base_4(9, 4)), (odd_base(4, 1), odd_base(6, 2)),
    (base_3_2(5, 0), base_3_2(5, 0)), (base_16(5, 1), base_16(6, 1)),
    (lns4f1, LNSFormat(20, 12)), (lns4f1, lns32f23), (odd_base(4, 1), odd_base(32, 20)),
    (LNSFormat(3, 0), LNSFormat(3, 0)),
]  # fmt: skip
"""Operands and accumulators: the fast kernels and the general way, ties (base 4 and 16), and what never is one."""


@st.composite
def arrays(draw, fmt, shape, nan=True):
    """Codes that cancel and overflow: mostly one magnitude and its neighbours, both signs, the ends, zeros."""
    count = math.prod(shape)
    near = draw(st.integers(1, fmt.max_magnitude))
    m = st.one_of(
        st.just(near), st.integers(max(near - 2, 1), min(near + 2, fmt.max_magnitude)),
        st.sampled_from([1, 2, fmt.max_magnitude, fmt.bias]), st.integers(1, fmt.max_magnitude),
    )  # fmt: skip
    code = st.builds(lambda m, s: m | s, m, st.sampled_from([0, fmt.sign_bit]))
    special = [0, fmt.nan_code] if nan and draw(st.integers(0, 7)) == 0 else [0]
    code = st.one_of(code, code, code, st.sampled_from(special))
    return np.array(draw(st.lists(code, min_size=count, max_size=count)), fmt.dtype).reshape(shape)


@orders
@given(data=st.data(), pair=st.sampled_from(PAIRS), overflow=st.sampled_from(["saturate", "saturate", "nan"]))
@settings(max_examples=80)
def test_matrix_products(order, data, pair, overflow):
    fmt, accumulator = pair
    rows, inner, columns = data.draw(st.tuples(st.integers(1, 2), st.integers(0, 7), st.integers(1, 3)))
    a, b = data.draw(arrays(fmt, (rows, inner))), data.draw(arrays(fmt, (inner, columns)))
    expected, one = totals(a, b, fmt, fmt, accumulator, order, overflow)
    how = {"accumulator": accumulator, "order": order, "overflow": overflow}
    kept, offset = matmul(a, b, fmt, out_format=accumulator, **how)
    assert offset == 0
    np.testing.assert_array_equal(kept, expected)
    found, _ = matmul(a, b, fmt, **how)
    np.testing.assert_array_equal(found, finished(expected, one, accumulator, fmt, 0, overflow=overflow))
    assert found.dtype == fmt.dtype


@orders
@given(data=st.data(), pair=st.sampled_from(PAIRS))
@settings(max_examples=60)
def test_matrix_products_with_offsets(order, data, pair):
    """An offset for each row and column, or each element, or one for all; fitted, and at an offset."""
    fmt, accumulator = pair
    rows, inner, columns = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 2)))
    a, b = data.draw(arrays(fmt, (rows, inner))), data.draw(arrays(fmt, (inner, columns)))
    shapes = st.sampled_from(["one", "rows", "columns", "all"])
    offsets = []
    for codes in (a, b):
        kind = data.draw(shapes)
        shape = {"one": (), "rows": (codes.shape[0], 1), "columns": codes.shape[1:], "all": codes.shape}[kind]
        near = st.integers(-fmt.max_log, fmt.max_log)
        values = data.draw(st.lists(near, min_size=math.prod(shape), max_size=math.prod(shape)))
        offsets.append(np.array(values, np.int32).reshape(shape) if shape else values[0])
    how = {"accumulator": accumulator, "order": order, "a_log_offset": offsets[0], "b_log_offset": offsets[1]}
    expected, one = totals(a, b, fmt, fmt, accumulator, order, "saturate", *offsets)
    found, fitted = matmul(a, b, fmt, out_log_offset="fit", **how)
    check_fit(found, fitted, expected, one, accumulator, fmt)
    out = data.draw(st.integers(-fmt.max_log, fmt.max_log))
    rounding = data.draw(st.sampled_from(MODES))
    bits = data.draw(st.integers(0, (1 << 32) - 1))
    random = {"random_bits": np.full((rows, columns), bits, np.uint32)} if rounding.startswith("stoch") else {}
    modes = {"rounding": rounding, "underflow": data.draw(st.sampled_from(["round", "saturate"]))}
    found, offset = matmul(a, b, fmt, out_log_offset=out, **how, **modes, **random)
    assert offset == out
    bits = bits if random else 0
    np.testing.assert_array_equal(found, finished(expected, one, accumulator, fmt, out, random_bits=bits, **modes))


# ------------------------------------------------------------------------------------- of groups, against the model


def codes_near(rng, fmt, shape):
    """As `arrays`, of more elements: mostly one magnitude and its neighbours, both signs, zeros, the ends."""
    near = rng.integers(1, fmt.max_magnitude + 1)
    m = np.clip(near + rng.integers(-2, 3, shape), 1, fmt.max_magnitude)
    some = np.array([0, 1, fmt.bias, fmt.max_magnitude])
    m = np.where(rng.random(shape) < 0.25, rng.choice(some, shape), m)
    return np.where(m > 0, m | (fmt.sign_bit * rng.integers(0, 2, shape)), 0).astype(fmt.dtype)


def groups_of(rng, fmt, shape, axis):
    """A scale of groups along an axis, the last of which has a rest; and the offset of each element."""
    size = int(rng.integers(16, shape[axis]))
    own = list(shape)
    own[axis] = -(-shape[axis] // size)
    groups = GroupOffsets(rng.integers(-fmt.max_log, fmt.max_log + 1, own), size, axis=axis)
    return groups, np.take(groups.offsets, np.arange(shape[axis]) // size, axis)


@orders
@given(pair=st.sampled_from(PAIRS), axes=st.sampled_from([(-1, -2), (-1, -1), (-2, -2), (-2, -1)]), seed=st.integers(0))
@settings(max_examples=8)
def test_matrix_products_of_groups(order, pair, axes, seed):
    """Along the terms of a sum, or across; fitted, and rounded at an offset."""
    (fmt, accumulator), rng = pair, np.random.default_rng(seed)
    rows, columns = (1 if axis == inner else 18 for axis, inner in zip(axes, (-1, -2), strict=True))
    inner = int(rng.integers(17, 36)) if (axes[0] == -1 or axes[1] == -2) else 2
    a, b = codes_near(rng, fmt, (rows, inner)), codes_near(rng, fmt, (inner, columns))
    (x, each_x), (y, each_y) = groups_of(rng, fmt, a.shape, axes[0]), groups_of(rng, fmt, b.shape, axes[1])
    expected, one = totals(a, b, fmt, fmt, accumulator, order, "saturate", each_x, each_y)
    how = {"accumulator": accumulator, "order": order, "a_log_offset": x, "b_log_offset": y}
    check_fit(*matmul(a, b, fmt, out_log_offset="fit", **how), expected, one, accumulator, fmt)
    out = int(rng.integers(-fmt.max_log, fmt.max_log + 1))
    found, _ = matmul(a, b, fmt, out_log_offset=out, rounding="toward_zero", **how)
    np.testing.assert_array_equal(found, finished(expected, one, accumulator, fmt, out, rounding="toward_zero"))


@orders
@given(
    pair=st.sampled_from(PAIRS),
    along=st.sampled_from([-1, -2]),
    axis=st.sampled_from([None, 0, 1]),
    seed=st.integers(0),
)
@settings(max_examples=8)
def test_sums_of_groups(order, pair, along, axis, seed):
    (fmt, accumulator), rng = pair, np.random.default_rng(seed)
    codes = codes_near(rng, fmt, (2, 19) if along == -1 else (19, 2))
    groups, each = groups_of(rng, fmt, codes.shape, along)
    columns, own = (x.reshape(1, -1) if axis is None else np.moveaxis(x, axis, -1) for x in (codes, each))
    ones = np.full((columns.shape[1], 1), fmt.bias, fmt.dtype)
    expected, one = totals(columns, ones, fmt, fmt, accumulator, order, a_offset=own)
    expected = expected.reshape([n for i, n in enumerate(codes.shape) if axis is not None and i != axis])
    found, out = lns_sum(
        codes, fmt, axis=axis, log_offset=groups, out_log_offset="fit", accumulator=accumulator, order=order
    )
    check_fit(found, out, expected, one, accumulator, fmt)


def check_default_offset(function, accumulator, offsets):
    """As for every operation: 0 where all operands have 0, else "fit"."""
    codes, offset = np.array([40, 41], np.uint8), np.array(offsets, np.int32)
    how = {} if function is prod else {"accumulator": accumulator}
    if function is matmul:
        call = partial(matmul, codes, codes, lns8f3, a_log_offset=offset, **how)
    else:
        call = partial(function, codes, lns8f3, log_offset=offset, **how)
    found, fitted = call()
    assert fitted == call(out_log_offset="fit")[1] != 0
    assert found == lns8f3.max_magnitude


@pytest.mark.parametrize("function", [lns_sum, mean, prod, matmul])
@pytest.mark.parametrize("accumulator", ["float64", "lns16f10"])
@pytest.mark.parametrize("offsets", [[5, 0], [-3, -3]], ids=str)
def test_the_default_offset_is_fitted(function, accumulator, offsets):
    check_default_offset(function, accumulator, offsets)


@pytest.mark.parametrize("function", [lns_sum, mean, matmul])
def test_the_default_offset_is_fitted_where_the_greatest_is_zero(function):
    check_default_offset(function, "lns16f10", [0, -1])


@orders
def test_offsets_far_apart(order):
    """What is 2^31 steps below the rest is nothing, in the fast kernels and in the general way."""
    codes = np.array([[70, 64, 130, 64]], np.uint8)
    offsets = np.array([[1 << 30, -(1 << 30), -(1 << 30), (1 << 30) - 3]], np.int32)
    for accumulator in (lns8f3, lns16f10, lns32f23):
        expected, _ = totals(
            codes, np.array([[64]] * 4, np.uint8), lns8f3, lns8f3, accumulator, order, a_offset=offsets
        )
        found, _ = lns_sum(
            codes, lns8f3, log_offset=offsets, out_log_offset=1 << 30, accumulator=accumulator, order=order
        )
        assert found == finished(expected, 0, accumulator, lns8f3, 0)[0, 0]


@orders
@pytest.mark.parametrize(("fmt", "accumulator"), [(lns6f2, lns16f10), (odd_base(5, 1), odd_base(12, 4))])
def test_a_common_scale_changes_no_bit(order, fmt, accumulator):
    random = np.random.default_rng(5)
    a, b = (random.integers(0, 1 << fmt.bits, shape).astype(fmt.dtype) for shape in ((3, 9), (9, 2)))
    how = {"accumulator": accumulator, "order": order}
    plain, _ = matmul(a, b, fmt, **how)
    summed, _ = lns_sum(a, fmt, axis=1, **how)
    averaged, _ = mean(a, fmt, axis=1, **how)
    for i, j in ((1, 0), (-7, 3), (1 << 29, -(1 << 29)), (-(1 << 29), -(1 << 29)), (999, 1000)):
        scaled, _ = matmul(a, b, fmt, a_log_offset=i, b_log_offset=j, out_log_offset=i + j, **how)
        np.testing.assert_array_equal(scaled, plain)
        for one in (i, np.full(a.shape, i, np.int32), np.full((3, 1), i, np.int32)):
            np.testing.assert_array_equal(lns_sum(a, fmt, axis=1, log_offset=one, out_log_offset=i, **how)[0], summed)
            np.testing.assert_array_equal(mean(a, fmt, axis=1, log_offset=one, out_log_offset=i, **how)[0], averaged)


MIXED = [
    (lns4f1, lns6f2, lns8f3, lns6f2),
    (lns6f2, lns4f1, lns6f2, lns4f1),
    (lns4f1, LNSFormat(6, 3), lns16f10, lns8f5),
    (LNSFormat(5, 3), LNSFormat(6, 0), LNSFormat(20, 3), LNSFormat(4, 0)),
    (lns4f1, lns6f2, lns8f3, lns32f23),
    (base_4(4, 0), base_4(5, 2), base_4(9, 2), base_4(7, 3)),
]
"""Of a, of b, of the accumulator, of the result."""


@orders
@given(data=st.data())
@settings(max_examples=40)
def test_products_of_two_formats(order, data):
    fmt, b_format, accumulator, out = data.draw(st.sampled_from(MIXED))
    inner = data.draw(st.integers(1, 6))
    a, b = data.draw(arrays(fmt, (1, inner))), data.draw(arrays(b_format, (inner, 2)))
    i, j, k = data.draw(st.tuples(*[st.integers(-9, 9)] * 3))
    expected, one = totals(a, b, fmt, b_format, accumulator, order, "saturate", i, j)
    found, _ = matmul(
        a, b, fmt, b_format=b_format, out_format=out, accumulator=accumulator, order=order,
        a_log_offset=i, b_log_offset=j, out_log_offset=k,
    )  # fmt: skip
    np.testing.assert_array_equal(found, finished(expected, one, accumulator, out, k))


@orders
@given(data=st.data(), pair=st.sampled_from(PAIRS))
@settings(max_examples=60)
def test_sums(order, data, pair):
    fmt, accumulator = pair
    shape = data.draw(st.sampled_from([(7,), (2, 3), (2, 1, 3)]))
    codes = data.draw(arrays(fmt, shape))
    offset = data.draw(st.sampled_from([0, 0, 2, -3]))
    axis = data.draw(st.sampled_from([None, 0, -1, tuple(range(len(shape)))[::-1], ()]))
    axes = tuple(range(len(shape))) if axis is None else axis if isinstance(axis, tuple) else (axis % len(shape),)
    kept = [i for i in range(len(shape)) if i not in axes]
    columns = codes.transpose(*axes, *kept).reshape(math.prod(shape[i] for i in axes), -1).T
    ones = np.full((columns.shape[1], 1), fmt.bias, fmt.dtype)
    expected, one = totals(columns, ones, fmt, fmt, accumulator, order, a_offset=offset)
    expected = expected.reshape([shape[i] for i in kept])
    found, out = lns_sum(codes, fmt, axis=axis, log_offset=offset, accumulator=accumulator, order=order)
    if offset:
        check_fit(found, out, expected, one, accumulator, fmt)
    else:
        np.testing.assert_array_equal(found, finished(expected, 0, accumulator, fmt, 0))


@orders
@pytest.mark.parametrize(
    "gaussian",
    [
        Mitchell(),
        LinearInterpolation(4),
        Cotransformation(0),
        FromFunctions(lambda z, f: z == 1, lambda z, f: -50 // z),
    ],
    ids=lambda given: type(given).__name__,
)
@given(data=st.data())
@settings(max_examples=15)
def test_approximate_sums(order, gaussian, data):
    pairs = [(lns4f1, lns6f2), (lns4f1, lns16f10), (lns4f1, LNSFormat(20, 8)), (odd_base(4, 1),) * 2]
    fmt, accumulator = data.draw(st.sampled_from(pairs))
    inner = data.draw(st.integers(1, 7))
    a, b = data.draw(arrays(fmt, (1, inner))), data.draw(arrays(fmt, (inner, 2)))
    overflow = data.draw(st.sampled_from(["saturate", "nan"]))
    expected, _ = totals(a, b, fmt, fmt, accumulator, order, overflow, add=partial(approximate_plus, gaussian))
    found, _ = matmul(
        a, b, fmt, accumulator=accumulator, order=order, gaussian=gaussian, out_format=accumulator, overflow=overflow
    )
    np.testing.assert_array_equal(found, expected)


@orders
def test_a_difference_of_exactly_half_the_smallest(order):
    """At base 3/2: 3/2 - 1 = 1/2, of the smallest. Half the smallest becomes the smallest, less becomes zero."""
    fmt = base_3_2(5, 0)
    found, _ = lns_sum(np.array([2, 1 | 16], np.uint8), fmt, accumulator=fmt, order=order)
    assert found == reference.add(2, 1 | 16, fmt) == 1
    found, _ = lns_sum(np.array([2 | 16, 1], np.uint8), fmt, accumulator=fmt, order=order)
    assert found == reference.add(2 | 16, 1, fmt) == 1 | 16
    # a term of exactly half the smallest, and just below: base 2, on the fast path
    fmt = lns6f2
    for m, expected in ((fmt.bias - 4, 1), (fmt.bias - 5, 0)):
        product, _ = dot(np.array([1], np.uint8), np.array([m], np.uint8), fmt, accumulator=fmt, order=order)
        assert product == expected


def test_orders_differ_and_are_what_they_are_called():
    """Pairwise: ((t0 + t1) + (t2 + t3)) + t4; an odd one out moves up."""
    random = np.random.default_rng(3)
    differ = 0
    for n in range(1, 18):
        codes = random.integers(1, 32, n).astype(np.uint8) | (random.integers(0, 2, n) << 5).astype(np.uint8)
        results = []
        for order in ORDERS:
            results.append(int(lns_sum(codes, lns6f2, accumulator=lns6f2, order=order)[0]))
            assert results[-1] == total_of([int(x) for x in codes], lns6f2, order, "saturate")
        differ += results[0] != results[1]
    assert differ > 3


# ------------------------------------------------------------------------- fast kernels, general way, threads


@lru_cache(maxsize=8)
def random_formats(seed, count):
    random = np.random.default_rng(seed)
    out = []
    while len(out) < count:
        base = [2.0, 2.0, 2.0, 4.0, 16.0, 1.7, 2.0**8, 1.5][random.integers(8)]
        bits = int(random.integers(4, 17))
        accumulator = LNSFormat(bits, int(random.integers(0, bits - 1)), base=base)
        narrow = int(random.integers(3, min(bits, 9) + 1))
        fraction_bits = int(random.integers(0, min(narrow - 2, accumulator.fraction_bits) + 1))
        out.append((LNSFormat(narrow, fraction_bits, base=base), accumulator))
    return out


def random_codes(random, fmt, shape):
    """Uniform, or near one magnitude, with some zeros and now and then a NaN."""
    m = random.integers(1, fmt.max_magnitude + 1, shape)
    if random.integers(2):
        m = np.clip(random.integers(1, fmt.max_magnitude + 1) + random.integers(-3, 4, shape), 1, fmt.max_magnitude)
    codes = m | random.integers(0, 2, shape) * fmt.sign_bit
    codes[random.random(shape) < 0.1] = 0
    codes[random.random(shape) < (0.02 if random.integers(4) == 0 else 0.0)] = fmt.nan_code
    return codes.astype(fmt.dtype)


GAUSSIANS = [None, None, Exact(), Mitchell(), LinearInterpolation(6), Cotransformation()]


@orders
@pytest.mark.parametrize("seed", range(4))
def test_the_fast_kernels_give_the_codes_of_the_general_way(order, seed, monkeypatch):
    random = np.random.default_rng([seed, order == "pairwise"])
    fast = 0
    for case, (fmt, accumulator) in enumerate(random_formats(seed, 30)):
        rows, inner, columns = (int(n) for n in random.integers(1, [5, 40, 20]))
        a, b = random_codes(random, fmt, (rows, inner)), random_codes(random, fmt, (inner, columns))
        how = {"accumulator": accumulator, "order": order, "gaussian": GAUSSIANS[case % len(GAUSSIANS)]}
        if case % 3 == 0:
            how["a_log_offset"] = random.integers(-2 * fmt.max_log - 2, 2 * fmt.max_log + 2, (rows, 1)).astype(np.int32)
            how["b_log_offset"] = int(random.integers(-fmt.max_log - 1, fmt.max_log + 1))
        out = {"out_format": accumulator, "out_log_offset": 0}
        found, _ = matmul(a, b, fmt, **how, **out)
        fast += accumulate._fast_table(how["gaussian"] or Exact(), accumulator) is not None
        with monkeypatch.context() as patch:
            patch.setattr(accumulate, "_fast_table", lambda gaussian, fmt: None)
            general, _ = matmul(a, b, fmt, **how, **out)
        np.testing.assert_array_equal(found, general, f"{fmt} in {accumulator}, {how}")
    assert fast >= 8


@orders
def test_the_fast_kernels_at_the_edges(order, monkeypatch):
    """All that is near the smallest and the greatest, in columns of all codes of a small format."""
    for accumulator in (
        lns6f2,
        LNSFormat(7, 0),
        LNSFormat(6, 1),
        base_4(6, 2),
        base_16(7, 3),
    ):
        codes = np.arange(1 << accumulator.bits, dtype=accumulator.dtype)
        codes = codes[codes != accumulator.nan_code]
        b = np.stack([part.reshape(-1) for part in np.meshgrid(codes, codes, [1, accumulator.max_magnitude, 5])])
        a = np.array([[accumulator.bias] * 3, [2, accumulator.bias, accumulator.sign_bit | 3]], accumulator.dtype)
        assert accumulate._fast_table(Exact(), accumulator) is not None
        how = {"accumulator": accumulator, "order": order}
        found, _ = matmul(a, b.astype(accumulator.dtype), accumulator, **how)
        with monkeypatch.context() as patch:
            patch.setattr(accumulate, "_fast_table", lambda gaussian, fmt: None)
            general, _ = matmul(a, b.astype(accumulator.dtype), accumulator, **how)
        np.testing.assert_array_equal(found, general)


EXTREME = {
    "db of -2^30": FromFunctions(lambda z, f: 0, lambda z, f: -(1 << 30) if z == 1 else 0),
    "db below -2^30": FromFunctions(lambda z, f: 0, lambda z, f: -(1 << 30) - 9 if z == 1 else 0),
    "sb of 2^30": FromFunctions(lambda z, f: 1 << 30 if z == 1 else 0, lambda z, f: 0),
    "sb that comes back": FromFunctions(lambda z, f: int(z > 45), lambda z, f: 0),
}


@pytest.mark.parametrize("kind", EXTREME)
def test_extreme_functions_in_the_fast_kernels(kind, monkeypatch):
    fmt = lns8f3
    logs = np.arange(1, 128)
    b = np.array([logs, np.minimum(logs + 1, 127) | (0 if "sb" in kind else 128)], np.uint8)
    b = np.concatenate([b, [logs, np.roll(logs, 45)]], axis=1).astype(np.uint8)
    a = np.full((1, 2), fmt.bias, np.uint8)
    found, _ = matmul(a, b, fmt, accumulator=fmt, gaussian=EXTREME[kind])
    monkeypatch.setattr(accumulate, "_fast_table", lambda gaussian, fmt: None)
    general, _ = matmul(a, b, fmt, accumulator=fmt, gaussian=EXTREME[kind])
    np.testing.assert_array_equal(found, general)


@orders
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_number_of_threads_changes_nothing(order, threads, monkeypatch):
    random = np.random.default_rng(8)
    in_chunks, chunks = accumulate.in_chunks, []
    monkeypatch.setattr(
        accumulate, "in_chunks", lambda *a, **k: chunks.append(len(in_chunks(*a, **k, threads=threads)))
    )
    for rows in (1, 2, 5, 9):
        a, b = random_codes(random, lns8f3, (rows, 12)), random_codes(random, lns8f3, (12, 33))
        alone, _ = matmul(a, b, lns8f3, accumulator="lns16f10", order=order)
        assert not chunks  # of few rows none are made
        with monkeypatch.context() as patch:
            patch.setattr(accumulate, "_PARALLEL", 1)
            together, _ = matmul(a, b, lns8f3, accumulator="lns16f10", order=order)
        np.testing.assert_array_equal(together, alone)
        assert rows == 1 or chunks.pop() > 1 or threads == 1


@orders
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 511, 512, 513, 1025])
def test_blocks_of_columns_change_nothing(order, columns, monkeypatch):
    random = np.random.default_rng(columns)
    a, b = random_codes(random, lns8f3, (2, 7)), random_codes(random, lns8f3, (7, columns))
    how = {"accumulator": lns8f3, "order": order}
    found, _ = matmul(a, b, lns8f3, **how)
    monkeypatch.setattr(accumulate, "_COLUMNS", 32)
    np.testing.assert_array_equal(matmul(a, b, lns8f3, **how)[0], found)
    monkeypatch.setattr(accumulate, "_fast_table", lambda gaussian, fmt: None)
    np.testing.assert_array_equal(matmul(a, b, lns8f3, **how)[0], found)


@orders
@pytest.mark.parametrize("inner", range(1, 18))
def test_trees_of_every_size(order, inner, monkeypatch):
    random = np.random.default_rng(inner)
    a, b = random_codes(random, lns8f3, (2, inner)), random_codes(random, lns8f3, (inner, 40))
    found, _ = matmul(a, b, lns8f3, accumulator=lns8f3, order=order)
    monkeypatch.setattr(accumulate, "_fast_table", lambda gaussian, fmt: None)
    np.testing.assert_array_equal(matmul(a, b, lns8f3, accumulator=lns8f3, order=order)[0], found)


@pytest.mark.parametrize("fraction_bits", [0, 7, 11, 12, 13, 14])
def test_formats_of_16_bits_in_the_fast_kernels(fraction_bits, monkeypatch):
    """Numbers at all distances: the indices of the greatest are the last that 16 bits hold."""
    fmt = LNSFormat(16, fraction_bits)
    table = accumulate._fast_table(Exact(), fmt)
    assert int(table.furthest) + 2 == table.steps.size <= 1 << 16
    near, top = np.arange(1, 40), fmt.max_magnitude
    logs = np.concatenate([near, top + 1 - near, fmt.bias + near, [0]])
    b = np.stack([part.reshape(-1) for part in np.meshgrid(logs, logs)]).astype(fmt.dtype)
    a = np.array([[fmt.bias, fmt.bias], [fmt.bias, fmt.bias | fmt.sign_bit]], fmt.dtype)
    found, _ = matmul(a, b, fmt, accumulator=fmt)
    monkeypatch.setattr(accumulate, "_fast_table", lambda gaussian, fmt: None)
    np.testing.assert_array_equal(matmul(a, b, fmt, accumulator=fmt)[0], found)


# ----------------------------------------------------------------------------------------------------- shapes

MATMUL_SHAPES = [
    *(((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 2))),
    *(((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((1, 2, 3), (5, 3, 4))),
    *(((4, 1, 2, 3), (5, 3, 2)), ((2, 2, 1, 3), (2, 2, 3, 1)), ((1, 1), (1, 1)), ((1,), (1,)), ((1,), (1, 1))),
    *(((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 2)), ((0, 2, 3), (1, 3, 2))),
    *(((2, 0, 0), (0, 1)), ((0,), (0,))),
]


@pytest.mark.parametrize(("a", "b"), MATMUL_SHAPES, ids=str)
@pytest.mark.parametrize("accumulator", ["float64", "lns8f3", "lns16f10", "lns20f4"])
def test_shapes_of_matrix_products(a, b, accumulator):
    random = np.random.default_rng(1)
    x, y = (random.integers(0, 64, shape).astype(np.uint8) for shape in (a, b))
    x, y = (np.where(codes == 32, 0, codes).astype(np.uint8) for codes in (x, y))
    found, _ = matmul(x, y, lns6f2, accumulator=accumulator)
    assert found.shape == np.matmul(x, y).shape
    assert found.dtype == np.uint8
    if accumulator != "float64":  # each matrix of the stack is the product of two matrices
        rows, columns = (x[None] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)
        stack = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
        rows = np.broadcast_to(rows, stack + rows.shape[-2:])
        columns = np.broadcast_to(columns, stack + columns.shape[-2:])
        for at in np.ndindex(stack):
            one, _ = matmul(rows[at], columns[at], lns6f2, accumulator=accumulator)
            np.testing.assert_array_equal(found[at].reshape(one.shape), one)


MISMATCHES = [
    *(((2, 3), (2, 3)), ((3,), (4,)), ((2, 3), (4,)), ((2,), (3, 2)), ((), (3,)), ((3,), ()), ((), ())),
    *(((2, 2, 3), (3, 3, 2)), ((3, 1), (3, 1)), ((0,), (1,))),
]


@pytest.mark.parametrize(("a", "b"), MISMATCHES, ids=str)
@pytest.mark.parametrize("accumulator", ["float64", "lns8f3"])
def test_shapes_that_do_not_match(a, b, accumulator):
    message = rf"shapes {a} and {b} do not match for a matrix product".replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=message):
        matmul(np.zeros(a, np.uint8), np.zeros(b, np.uint8), lns8f3, accumulator=accumulator)


AXES = [None, 0, 1, 2, -1, -3, (0,), (0, 1), (2, 0), (-1, 1), (0, 1, 2), (), np.int64(1)]
SHAPES = [(2, 3, 4), (1, 1, 1), (0, 2, 3), (2, 0, 1)]


def count_of(shape, axis):
    """How many elements are added for each result."""
    axes = range(len(shape)) if axis is None else np.atleast_1d(axis).astype(int)
    return math.prod(shape[i] for i in axes)


def check_shapes(shape, axis, keepdims):
    """Ones add up to their number, in NumPy's shapes."""
    codes = np.full(shape, lns8f3.bias, np.uint8)
    expected = np.sum(np.ones(shape), axis=axis, keepdims=keepdims)
    where = {"axis": axis, "keepdims": keepdims}
    for accumulator in ("float64", "float32", "lns16f10", "lns20f12"):
        found, offset = lns_sum(codes, lns8f3, accumulator=accumulator, **where)
        assert (found.shape, found.dtype, offset) == (expected.shape, np.uint8, 0)
        np.testing.assert_array_equal(found, encode(expected, lns8f3))
        if count_of(shape, axis):
            found, _ = mean(codes, lns8f3, accumulator=accumulator, **where)
            assert found.shape == expected.shape
            assert np.all(found == lns8f3.bias)
        else:
            with pytest.raises(ValueError, match="the mean of no elements is not defined"):
                mean(codes, lns8f3, accumulator=accumulator, **where)
    found, _ = prod(codes, lns8f3, **where)
    assert found.shape == expected.shape
    assert np.all(found == lns8f3.bias)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [(s, a) for s in SHAPES for a in AXES if count_of(s, a)], ids=str)
def test_shapes_of_reductions(shape, axis, keepdims):
    check_shapes(shape, axis, keepdims)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [(s, a) for s in SHAPES for a in AXES if not count_of(s, a)], ids=str)
def test_reductions_of_nothing(shape, axis, keepdims):
    """An empty sum is 0, an empty product 1."""
    check_shapes(shape, axis, keepdims)


def test_a_product_and_a_sum_of_an_empty_list():
    assert int(prod([], lns8f3)[0]) == 64
    assert int(lns_sum([], lns8f3, accumulator="lns16f10")[0]) == 0


@pytest.mark.parametrize("function", [lns_sum, mean, prod])
def test_scalars_lists_and_nothing(function):
    assert function(np.uint8(70), lns8f3)[0].shape == ()
    assert int(function(70, lns8f3)[0]) == 70
    assert int(function([64, 64, 64, 64], lns8f3)[0]) == {lns_sum: 80, mean: 64, prod: 64}[function]
    if function is not mean:
        assert function(np.empty((3, 0), np.uint8), lns8f3, axis=0)[0].shape == (0,)


def test_strides_and_orders_of_memory_do_not_matter():
    random = np.random.default_rng(2)
    a, b = random_codes(random, lns8f3, (6, 10)), random_codes(random, lns8f3, (10, 4))
    plain, _ = matmul(a, b, lns8f3, accumulator="lns16f10")
    for x, y in ((np.asfortranarray(a), np.asfortranarray(b)), (np.repeat(a, 2, 1)[:, ::2], b[::-1][::-1])):
        np.testing.assert_array_equal(matmul(x, y, lns8f3, accumulator="lns16f10")[0], plain)
        np.testing.assert_array_equal(matmul(y.T, x.T, lns8f3, accumulator="lns16f10")[0], plain.T)
    before = a.copy(), b.copy()
    matmul(a, b, lns8f3, accumulator="lns8f3", order="pairwise")
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


# ------------------------------------------------------------------------------------------ float accumulators


@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, odd_base(10, 3)], ids=str)
@pytest.mark.parametrize("scaled", [False, True])
def test_float_accumulators_are_decode_numpy_encode(kind, fmt, scaled):
    random = np.random.default_rng(4)
    m = random.integers(fmt.bias - 30, fmt.bias + 30, (2, 5, 6)) | random.integers(0, 2, (2, 5, 6)) * fmt.sign_bit
    a, b = np.where(random.random(m.shape) < 0.1, 0, m).astype(fmt.dtype)
    i = random.integers(-9, 9, (5, 1)).astype(np.int32) if scaled else 0
    j = 4 if scaled else 0
    x, y = decode(a, fmt, kind, log_offset=i), decode(b, fmt, kind, log_offset=j)
    bits = random.integers(0, 1 << 32, (5, 5), dtype=np.uint32)
    stochastic = {"rounding": "stochastic_value", "random_bits": bits}
    for how in ({}, {"rounding": "up"}, stochastic, {"out_format": LNSFormat(9, 2, base=fmt.base)}):
        found, offset = matmul(a, b.T, fmt, accumulator=kind, a_log_offset=i, b_log_offset=j, **how)
        out = how.get("out_format", fmt)
        product = x @ y.T
        modes = {name: value for name, value in how.items() if name != "out_format"}
        assert offset == (fit_log_offset(product, out, rounding=modes.get("rounding", "nearest")) if scaled else 0)
        np.testing.assert_array_equal(found, encode(product, out, log_offset=offset, **modes))
    for axis in (None, 0, 1, (0, 1)):
        total = np.sum(x, axis=axis, dtype=kind)
        for function, values in ((lns_sum, total), (mean, total / np.dtype(kind).type(x.size // total.size))):
            found, offset = function(a, fmt, axis=axis, accumulator=kind, log_offset=i, out_log_offset=-2)
            assert offset == -2
            np.testing.assert_array_equal(found, encode(np.asarray(values), fmt, log_offset=-2))
            found, offset = function(a, fmt, axis=axis, accumulator=kind, log_offset=i, out_log_offset="fit")
            assert offset == fit_log_offset(np.asarray(values), fmt)
            np.testing.assert_array_equal(found, encode(np.asarray(values), fmt, log_offset=offset))


def test_float64_is_the_default():
    codes = np.array([64, 70, 80, 90], np.uint8)
    assert lns_sum(codes, lns8f3) == lns_sum(codes, lns8f3, accumulator="float64")
    assert matmul(codes, codes, lns8f3) == matmul(codes, codes, lns8f3, accumulator="float64")


@pytest.mark.parametrize("function", [lns_sum, mean])
def test_what_floats_have_no_room_for_is_added_all_the_same(function):
    """Numbers beyond the range of floats: only the result's own range counts. Scales that all share change nothing."""
    big = np.array([lns16f7.max_magnitude] * 4, np.uint16)
    for kind, offset in (("float32", 0), ("float64", 1 << 20)):
        found, _ = function(big, lns16f7, accumulator=kind, log_offset=offset, out_log_offset=offset)
        assert found == lns16f7.max_magnitude
        found, _ = function(big, lns16f7, accumulator=kind, log_offset=offset, out_log_offset=offset, overflow="nan")
        assert found == (big[0] if function is mean else lns16f7.nan_code)
    mixed = big | np.array([0, 0, 1 << 15, 1 << 15], np.uint16)
    found, _ = function(mixed, lns16f7, accumulator="float64", log_offset=1 << 20, out_log_offset=0)
    assert found == 0  # a common scale takes nothing out of the range
    wide = np.array([LNSFormat(32, 8).max_magnitude] * 2, np.uint32) | np.array([0, 1 << 31], np.uint32)
    assert function(wide, LNSFormat(32, 8), accumulator="float64")[0] == 0


# ------------------------------------------------------------------------------------------------ error bounds


def value(code, fmt, offset=0):
    """The value of a code as an mpf."""
    if code & fmt.max_magnitude == 0:
        return _mp.mpf(0)
    size = _mp.power(
        _mp.mpf(fmt.base), _mp.mpf((code & fmt.max_magnitude) - fmt.bias + offset) / (1 << fmt.fraction_bits)
    )
    return -size if code > fmt.sign_bit else size


WELL_SCALED = [
    *((lns8f3, LNSFormat(16, 7)), (lns8f3, LNSFormat(20, 8)), (lns8f5, lns32f23), (lns8f3, LNSFormat(16, 3))),
    *((base_4(8, 1), base_4(18, 6)), (odd_base(8, 2), odd_base(20, 6))),
]


@orders
@given(data=st.data(), pair=st.sampled_from(WELL_SCALED), n=st.integers(0, 40))
@settings(max_examples=60)
def test_the_error_bound_holds(order, data, pair, n):
    """|sum - exact| <= bound * sum |t|, and with the rounding of the result."""
    fmt, accumulator = pair
    code = st.builds(lambda m, s: m | s, st.integers(fmt.bias - 25, fmt.bias + 25), st.sampled_from([0, fmt.sign_bit]))
    a, b = (np.array(data.draw(st.lists(code, min_size=n, max_size=n)), fmt.dtype) for _ in range(2))
    products = [value(int(x), fmt) * value(int(y), fmt) for x, y in zip(a, b, strict=True)]
    exact, size = _mp.fsum(products), _mp.fsum(map(abs, products))
    total, _ = dot(a, b, fmt, accumulator=accumulator, order=order, out_format=accumulator)
    bound = (_mp.mpf(error_bound(n, accumulator, order)) + _mp.mpf(2) ** -200) * size  # mpmath's own rounding
    smallest = value(1, accumulator)
    assert abs(value(int(total), accumulator) - exact) <= bound + smallest * n
    if n <= 2:
        assert int(total) == reference.exact_dot(a.tolist(), b.tolist(), fmt, out_format=accumulator)
    rounded, _ = dot(a, b, fmt, accumulator=accumulator, order=order, out_format=fmt)
    half = _mp.expm1(_mp.log(fmt.base) / (2 << fmt.fraction_bits))
    if 1 < int(rounded) & fmt.max_magnitude < fmt.max_magnitude:
        assert abs(value(int(rounded), fmt) - exact) <= bound + smallest * n + half * (abs(exact) + bound)


def test_the_error_bound_is_what_it_says():
    """((1 + u)^additions - 1), u half a code step."""
    for accumulator in ("lns16f10", lns8f3, odd_base(12, 3), lns32f23):
        fmt = LNSFormat.of(accumulator)
        u = _mp.log(_mp.mpf(fmt.base)) / (2 << fmt.fraction_bits)
        for n, additions in ((0, 0), (1, 0), (2, 1), (3, 2), (1000, 999)):
            exact = float(_mp.expm1(additions * u))
            assert error_bound(n, accumulator) == pytest.approx(exact, rel=1e-12)
        for n, additions in (
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (8, 3),
            (9, 4),
            (1 << 20, 20),
            ((1 << 20) + 1, 21),
        ):
            assert error_bound(n, accumulator, "pairwise") == pytest.approx(float(_mp.expm1(additions * u)), rel=1e-12)
    assert error_bound(10, "float64") == pytest.approx(12 * 2.0**-53)
    assert error_bound(10, "float32", "pairwise") == pytest.approx(12 * 2.0**-24, rel=1e-5)


def test_an_error_bound_beyond_all_floats_is_infinite():
    assert error_bound(10**6, lns8f3) == math.inf
    assert error_bound(10, LNSFormat(3, 0, base=1e300)) == math.inf


@given(st.lists(st.integers(1, 255), min_size=1, max_size=60), st.sampled_from(["float64", "float32"]))
@settings(max_examples=40)
def test_the_error_bound_of_floats_holds(codes, kind):
    a = np.array([code for code in codes if code != 128], np.uint8)
    b = a[::-1]
    products = [value(int(x), lns8f3) * value(int(y), lns8f3) for x, y in zip(a, b, strict=True)]
    check_bound(dot(a, b, lns8f3, accumulator=kind, out_format=FINE), products, error_bound(a.size, kind))
    check_bound(
        matmul(a[None], b[:, None], lns8f3, accumulator=kind, out_format=FINE), products, error_bound(a.size, kind)
    )
    terms = [value(int(x), lns8f3) for x in a]
    check_bound(lns_sum(a, lns8f3, accumulator=kind, out_format=FINE), terms, error_bound(a.size, kind))


FINE = LNSFormat(32, 21)
"""For results: 10 bits of range above and below, half a step of 2^-22 octaves."""


def check_bound(result, terms, factor):
    """The result is the exact sum of the terms to within factor * sum |terms|, and its last rounding."""
    computed, exact_total = value(int(np.ravel(result[0])[0]), FINE), _mp.fsum(terms)
    error = factor * _mp.fsum(map(abs, terms))
    last = (abs(exact_total) + error) * _mp.expm1(_mp.ln2 * _mp.mpf(2) ** -22)
    smallest = value(1, FINE)
    assert abs(computed - exact_total) <= error + last + smallest


@pytest.mark.parametrize(
    ("fmt", "accumulator", "great"),
    [(LNSFormat(14, 0), LNSFormat(32, 30), 6146), (LNSFormat(16, 3), LNSFormat(32, 30), 32767),
     (LNSFormat(32, 3), LNSFormat(32, 27), (1 << 31) - 1), (LNSFormat(16, 0), LNSFormat(16, 14), 32767)],
    ids=str,
)  # fmt: skip
def test_zero_times_anything_is_zero_in_every_accumulator(fmt, accumulator, great):
    """However far the accumulator's finer grid carries the other factor's logarithm."""
    zero, a = np.zeros(1, fmt.dtype), np.array([great], fmt.dtype)
    assert int(dot(zero, a, fmt, accumulator=accumulator)[0]) == 0
    assert int(dot(a, np.array([fmt.bias], fmt.dtype), fmt, accumulator=accumulator)[0]) != 0
    product = dot(a, np.array([fmt.bias - 1], fmt.dtype), fmt, accumulator=accumulator, out_format=accumulator)[0]
    assert int(product) == accumulator.max_magnitude  # beyond it, whatever int32 holds


def test_what_is_far_below_the_accumulator_at_a_base_near_one_is_its_smallest():
    base = 1.000000001
    fmt, accumulator = LNSFormat(16, 0, base=base), LNSFormat(32, 30, base=base)
    total = lns_sum([fmt.bias - 2000], fmt, accumulator=accumulator, out_format=accumulator)[0]
    assert int(total) == 1  # within a millionth of 1, and so not below half of the smallest


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_a_common_scale_takes_no_operand_out_of_the_range_of_the_floats(kind):
    for offset in (8800, -8800, 1 << 29):
        codes = np.array([64, 64], np.uint8)
        assert lns_sum(codes, lns8f3, accumulator=kind, log_offset=offset, out_log_offset=offset) == (72, offset)
        assert int(lns_sum([64, 192], lns8f3, accumulator=kind, log_offset=offset)[0]) == 0
        where = {"a_log_offset": offset // 2, "b_log_offset": offset // 2, "out_log_offset": offset}
        assert int(dot(codes, codes, lns8f3, accumulator=kind, **where)[0]) == 72
        fitted, scale = lns_sum(codes, lns8f3, accumulator=kind, log_offset=offset)
        assert (int(fitted), scale) == (127, offset + 72 - 127)


@orders
@given(st.lists(st.integers(1, 255), min_size=1, max_size=60))
@settings(max_examples=30)
def test_the_error_bound_of_sums_and_means_holds(order, codes):
    a = np.array([code for code in codes if code != 128] or [64], np.uint8)
    terms = [value(int(x), lns8f3) for x in a]
    for accumulator in (LNSFormat(20, 9), LNSFormat(32, 20)):
        how = {"accumulator": accumulator, "order": order, "out_format": FINE}
        factor = error_bound(a.size, accumulator, order)
        check_bound(lns_sum(a, lns8f3, **how), terms, factor)
        check_bound(mean(a, lns8f3, **how), [term / a.size for term in terms], factor)


@orders
@pytest.mark.parametrize("accumulator", [lns16f10, LNSFormat(16, 9), LNSFormat(20, 10), base_4(16, 9)], ids=str)
def test_two_thousand_ones(order, accumulator):
    fmt = LNSFormat(8, 3, base=accumulator.base)
    ones = np.full(2000, fmt.bias, np.uint8)
    total, _ = lns_sum(ones, fmt, accumulator=accumulator, order=order, out_format=accumulator)
    assert abs(value(int(total), accumulator) - 2000) <= 2000 * error_bound(2000, accumulator, order)
    counted, _ = mean(ones, fmt, accumulator=accumulator, order=order, out_format=accumulator)
    assert abs(value(int(counted), accumulator) - 1) <= error_bound(2001, accumulator, order)


# ------------------------------------------------------------------------------------------------------- mean


def quotient(log, negative, count, fmt, offset, rounding, overflow, underflow, bits):
    """The code of +-base^(log / 2^F) / count, F of the result: the table of docs/number_format.md, by mpmath."""
    sign, log_base = (fmt.sign_bit if negative else 0), _mp.log(_mp.mpf(fmt.base))
    octave = _mp.ln2 / log_base * (1 << fmt.fraction_bits)
    r = _mp.mpf(log.numerator) / log.denominator - _mp.log(count) / log_base * (1 << fmt.fraction_bits)
    if abs(2 * r - _mp.nint(2 * r)) < _mp.mpf(2) ** -200:
        r = _mp.nint(2 * r) / 2
    lowest, share = 1 - fmt.bias + offset, _mp.mpf(bits) / (1 << 32)
    away = rounding == ("down" if negative else "up")
    if r < lowest:
        if underflow == "saturate":
            return 1 | sign
        if rounding in ("nearest", "stochastic_log"):
            away = r - lowest + octave > -(_mp.mpf(2) ** -200)
        if rounding == "stochastic_value":
            away = share < _mp.exp((r - lowest) * log_base / (1 << fmt.fraction_bits))
        return 1 | sign if away else 0
    down = int(_mp.floor(r))
    rest = r - down
    if rounding == "nearest":
        away = rest > 0.5 or (rest == 0.5 and down % 2 == 1)
    elif rounding == "stochastic_log":
        away = share < rest
    elif rounding == "stochastic_value":
        step = log_base / (1 << fmt.fraction_bits)
        away = share < _mp.expm1(rest * step) / _mp.expm1(step)
    m = down + (away and rest > 0) - lowest + 1
    if m > fmt.max_magnitude:
        return fmt.nan_code if overflow == "nan" else fmt.max_magnitude | sign
    return m | sign


MEANS = [
    *((lns6f2, lns6f2, lns6f2), (lns6f2, lns16f10, lns6f2), (lns6f2, lns16f10, lns4f1), (lns4f1, lns32f23, lns32f23)),
    *((base_4(5, 0), base_4(8, 2), base_4(5, 0)), (odd_base(5, 1), odd_base(9, 3), odd_base(5, 2))),
    *((base_3_2(5, 0), base_3_2(12, 2), base_3_2(5, 0)), (base_9(5, 1), base_9(8, 1), base_9(5, 0))),
]
"""Formats of the codes, of the accumulator and of the result: with ties (base 4 halved, base 9 over 3) and without."""


@given(
    data=st.data(),
    case=st.sampled_from(MEANS),
    count=st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 16, 27]),
    rounding=st.sampled_from(MODES),
    overflow=st.sampled_from(["saturate", "nan"]),
    underflow=st.sampled_from(["round", "saturate"]),
)
@settings(max_examples=250)
def test_the_mean_is_the_quotient_rounded_once(data, case, count, rounding, overflow, underflow):
    fmt, accumulator, out = case
    codes = data.draw(arrays(fmt, (count,), nan=False))
    total, _ = lns_sum(codes, fmt, accumulator=accumulator, out_format=accumulator, overflow=overflow)
    offset, out_offset = data.draw(st.tuples(st.integers(-5, 5), st.integers(-5, 40)))
    bits = data.draw(st.sampled_from([0, 1, 1 << 31, (1 << 32) - 1, 123456789]))
    random = {"random_bits": np.uint32(bits)} if rounding.startswith("stoch") else {}
    found, _ = mean(
        codes, fmt, accumulator=accumulator, out_format=out, log_offset=offset, out_log_offset=out_offset,
        rounding=rounding, overflow=overflow, underflow=underflow, **random,
    )  # fmt: skip
    m = int(total) & accumulator.max_magnitude
    if m == 0:
        assert int(found) == (out.nan_code if total else 0)
        return
    log = Fraction(m - accumulator.bias, 1 << accumulator.fraction_bits) + Fraction(offset, 1 << fmt.fraction_bits)
    log *= 1 << out.fraction_bits
    negative = int(total) > accumulator.max_magnitude
    assert int(found) == quotient(log, negative, count, out, out_offset, rounding, overflow, underflow, bits)


def test_means_at_fitted_offsets():
    """The sum saturates where the mean would not: only "fit" of the result is the result's."""
    codes = np.array([[60, 62, 63], [70, 71, 1]], np.uint8)
    for offset in (5, -5):
        found, out = mean(codes, lns8f3, axis=1, accumulator="lns16f10", log_offset=offset)
        assert found.max() == lns8f3.max_magnitude
        again, _ = mean(codes, lns8f3, axis=1, accumulator="lns16f10", log_offset=offset, out_log_offset=out)
        np.testing.assert_array_equal(found, again)
        how = {"log_offset": offset, "out_log_offset": out - 1, "overflow": "nan"}
        less, _ = mean(codes, lns8f3, axis=1, accumulator="lns16f10", **how)
        assert lns8f3.nan_code in less


# ------------------------------------------------------------------------------------------------------- prod


PRODUCTS = [*itertools.product([lns6f2, lns8f3], [lns6f2, lns4f1, lns16f10]), (odd_base(5, 1), odd_base(6, 0)),
            (lns32f23, lns32f23)]  # fmt: skip


@given(data=st.data(), case=st.sampled_from(PRODUCTS), n=st.integers(1, 9), rounding=st.sampled_from(MODES))
@settings(max_examples=150)
def test_products_are_exact(data, case, n, rounding):
    fmt, out = case
    codes = data.draw(arrays(fmt, (n,)))
    offset = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n)), np.int32)
    if data.draw(st.booleans()):
        offset = int(offset[0])
    shift = data.draw(st.integers(-9, 9))
    logs = np.broadcast_to(offset, codes.shape)
    bits = data.draw(st.integers(0, (1 << 32) - 1))
    random = {"random_bits": np.uint32(bits)} if rounding.startswith("stoch") else {}
    how = {"rounding": rounding, "overflow": data.draw(st.sampled_from(["saturate", "nan"])),
           "underflow": data.draw(st.sampled_from(["round", "saturate"]))}  # fmt: skip
    found, _ = prod(codes, fmt, log_offset=offset, out_format=out, out_log_offset=shift, **how, **random)
    if fmt.nan_code in codes:
        expected = out.nan_code
    elif 0 in codes:
        expected = 0
    else:
        log = sum((int(x) & fmt.max_magnitude) - fmt.bias + int(o) for x, o in zip(codes, logs, strict=True))
        sign = fmt.sign_bit * (int(np.count_nonzero(codes > fmt.max_magnitude)) % 2)
        at = max(min(log, 1 << 30), -(1 << 30))
        one = (fmt.bias + max(min(log - at, fmt.max_log), -fmt.max_log)) | sign
        how["random_bits"] = bits if random else 0
        expected = reference.convert(one, fmt, out, log_offset=at, out_log_offset=shift, **how)
    assert int(found) == expected


def test_long_products_neither_overflow_nor_lose_a_step():
    codes = np.concatenate([np.full(5000, 127), np.full(5000, 1), np.full(3, 65)]).astype(np.uint8)
    assert int(prod(codes, lns8f3)[0]) == 67
    assert int(prod(codes[:5000], lns8f3)[0]) == 127
    found, offset = prod(codes[:5000], lns8f3, out_log_offset="fit")
    assert (int(found), offset) == (127, 4999 * 63)
    found, offset = prod(codes[:1000], lns8f3, log_offset=1000)
    assert (int(found), offset) == (127, 1000 * 63 + 1000 * 1000 - 63)
    with pytest.raises(ValueError, match=r"2\^30"):
        prod(codes[:5000], lns8f3, log_offset=1 << 20)


# -------------------------------------------------------------------------------------------------- bad input

ONES = np.full((2, 2), 64, np.uint8)
BASE_3 = LNSFormat(16, 10, base=3.0)
NARROW = "of lns8f3: take one with at least 8 bits and 3 fraction bits"
OTHER_BASE = "the accumulator lns16f10b0x1.8.* and lns8f3 have different bases"
FLOATS = "order and gaussian are for LNS accumulators: {} adds as NumPy and BLAS do"
LNS = {"accumulator": "lns16f10"}
BAD = {
    "fewer bits": (
        {"accumulator": "lns6f3"},
        ValueError,
        f"the accumulator lns6f3 is narrower than its terms, {NARROW}",
    ),
    "fewer fraction bits": ({"accumulator": "lns12f2"}, ValueError, NARROW),
    "unknown": ({"accumulator": "float16"}, ValueError, "accumulator='float16' is not known: 'float64', 'float32', or"),
    "no accumulator": ({"accumulator": None}, ValueError, "accumulator=None is not known"),
    "a number": ({"accumulator": 16}, ValueError, "accumulator=16 is not known"),
    "a list": ({"accumulator": ["lns16f10"]}, ValueError, "is not known: 'float64'"),
    "a format that is none": ({"accumulator": "lns8f9"}, ValueError, "accumulator='lns8f9' is not known"),
    "another base": ({"accumulator": BASE_3}, TypeError, OTHER_BASE),
    "result of another base": ({"out_format": BASE_3}, TypeError, "different bases"),
    "unknown order": ({**LNS, "order": "x"}, ValueError, "order='x' is not known: one of sequential, pairwise"),
    "order of floats": ({"order": "pairwise"}, ValueError, FLOATS.format("float64")),
    "gaussian of floats": ({"accumulator": "float32", "gaussian": Mitchell()}, ValueError, FLOATS.format("float32")),
    "no gaussian": ({**LNS, "gaussian": "m"}, TypeError, "gaussian='m' has no methods sb and db"),
    "unknown keyword": (
        {"acumulator": "lns16f10"},
        TypeError,
        "acumulator is no argument of this reduction: out_format",
    ),
    "unknown rounding": ({"rounding": "nearst"}, ValueError, "rounding='nearst' is not known"),
    "unknown overflow": ({"overflow": "wrap"}, ValueError, "overflow='wrap' is not known"),
    "unknown underflow": ({"underflow": "flush"}, ValueError, "underflow='flush' is not known"),
    "no random bits": ({"rounding": "stochastic_log"}, ValueError, "random_bits"),
    "offset of the result": ({"out_log_offset": 1.5}, TypeError, "log_offset=1.5 is a float: give an integer"),
    "offset too large": ({"out_log_offset": 1 << 31}, ValueError, "too large"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("function", [lns_sum, mean, prod, matmul, dot])
def test_bad_arguments(function, kind):
    how, error, message = BAD[kind]
    if function is prod and {"accumulator", "order", "gaussian"} & set(how):
        error, message = TypeError, "is no argument of this reduction: out_format"
    operands = (ONES[0], ONES[0]) if function is dot else (ONES, ONES) if function is matmul else (ONES,)
    with pytest.raises(error, match=message):
        function(*operands, lns8f3, **how)
    if "accumulator" not in how and not {"order", "acumulator"} & set(how) and function is not prod:
        with pytest.raises(error, match=message):
            function(*operands, lns8f3, accumulator="lns16f10", **how)


@pytest.mark.parametrize("function", [lns_sum, mean, prod])
@pytest.mark.parametrize("accumulator", ["float64", "lns16f10"])
def test_bad_axes_and_codes(function, accumulator):
    how = {} if function is prod else {"accumulator": accumulator}
    for axis in (2, -3, (0, 2)):
        with pytest.raises(ValueError, match=r"axis .* is out of bounds for array of dimension 2"):
            function(ONES, lns8f3, axis=axis, **how)
    for axis in ((0, 0), (0, -2)):
        with pytest.raises(ValueError, match="axis"):
            function(ONES, lns8f3, axis=axis, **how)
    for axis in (1.0, "0", [0, 1]):
        with pytest.raises(TypeError):
            function(ONES, lns8f3, axis=axis, **how)
    with pytest.raises(TypeError, match="codes are unsigned integers, not float64"):
        function(np.ones(3), lns8f3, **how)
    with pytest.raises(ValueError, match=r"code 256 at index .* is outside lns8f3"):
        function(np.array([256]), lns8f3, **how)
    with pytest.raises(TypeError, match="not an LNSFormat"):
        function(ONES, "lns8f3", **how)
    with pytest.raises(ValueError, match=r"log_offset of shape \(3,\) does not broadcast"):
        function(ONES, lns8f3, log_offset=np.zeros(3, np.int32), **how)
    with pytest.raises(TypeError, match="log_offset"):
        function(ONES, lns8f3, log_offset=0.5, **how)


def test_bad_arguments_of_products():
    with pytest.raises(TypeError, match=r"operands of different formats \(lns8f3, lns6f2\) need out_format"):
        matmul(ONES, ONES // 2, lns8f3, b_format=lns6f2)
    with pytest.raises(ValueError, match="narrower than its terms, of lns12f6: take one with at least 12 bits"):
        matmul(ONES, ONES, lns8f3, b_format=lns12f6, out_format=lns8f3, accumulator=LNSFormat(10, 6))
    with pytest.raises(TypeError, match="different bases"):
        matmul(ONES, ONES, lns8f3, b_format=BASE_3, out_format=lns8f3)
    with pytest.raises(ValueError, match=r"code 64 at index .* is outside lns6f2"):
        matmul(ONES, ONES, lns8f3, b_format=lns6f2, out_format=lns8f3)
    with pytest.raises(ValueError, match="dot takes two vectors, not an array of 2 axes: matmul takes matrices"):
        dot(ONES, ONES[0], lns8f3)
    with pytest.raises(ValueError, match="dot takes two vectors, not an array of 0 axes"):
        dot(ONES[0], ONES[0, 0], lns8f3)
    with pytest.raises(ValueError, match=r"log_offset of shape \(3,\) does not broadcast"):
        matmul(ONES, ONES, lns8f3, b_log_offset=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="do not match for a matrix product"):
        dot(ONES[0], np.full(3, 64, np.uint8), lns8f3)
    for bad in ("order", "acc"):
        with pytest.raises(ValueError, match="is not known"):
            error_bound(3, *(("lns16f10", "x") if bad == "order" else ("lns99", "pairwise")))


@pytest.mark.parametrize("function", [lns_sum, mean, prod, dot])
def test_formats_given_by_name(function):
    """Only the accumulator may be a name."""
    operands = (ONES[0], ONES[0]) if function is dot else (ONES,)
    with pytest.raises(TypeError, match=r"'lns6f2' is a str, not an LNSFormat"):
        function(*operands, lns8f3, out_format="lns6f2")
    if function is dot:
        with pytest.raises(TypeError, match=r"'lns6f2' is a str, not an LNSFormat"):
            dot(*operands, lns8f3, b_format="lns6f2", out_format=lns8f3)
