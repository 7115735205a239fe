"""Scales as runs, and every operation that takes them: each element as it is at its own scale alone.

What operations do at one scale is held against the oracle elsewhere; here it is the oracle, element by element of a
scale.
"""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lnsnum import (
    LNSFormat,
    arithmetic,
    decode,
    encode,
    lns8f3,
    lns8f5,
    lns16f10,
    lns32f23,
    random_bits,
)
from lnsnum.conversion import rescale
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.kernels.rounding import MODES
from lnsnum.kernels.scales import Scales, spread

FORMATS = [lns8f3, lns8f5, LNSFormat(8, 6), LNSFormat(5, 1), LNSFormat(8, 3, base=3.0), lns16f10, lns32f23]
WHERE = {"rows": (40, 1), "columns": (1, 70), "elements": (40, 70)}
"""Scales along an axis of (40, 70) numbers: more than vectors need, and no whole number of blocks."""

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def broadcast(log_offset, shape):
    """The scale of each element."""
    return np.broadcast_to(np.asarray(log_offset, np.int64), shape).reshape(-1)


@given(shapes, st.data())
def test_runs_are_the_scales_of_the_elements(shape, data):
    own = [data.draw(st.sampled_from([1, length])) for length in shape]
    own = own[data.draw(st.integers(0, len(own) - 1)) :]
    offsets = np.arange(np.prod(own), dtype=np.int32).reshape(own)
    scale, each = Scales.of(offsets, tuple(shape)), broadcast(offsets, shape)
    assert scale.ends == (each.min(), each.max())
    assert scale.single == (scale.values.size == 1)
    assert np.array_equal(scale.at(np.arange(each.size)), each)
    begin = data.draw(st.integers(0, each.size))
    end = data.draw(st.integers(begin, each.size))
    for part in (scale.each(begin, end), scale.part(begin, end).at(np.arange(end - begin))):
        assert np.array_equal(np.broadcast_to(part, end - begin), each[begin:end])
    out = np.empty(end - begin, np.int16)
    spread(scale.values, scale.walk, begin, out)
    assert np.array_equal(out, each[begin:end])


def test_an_array_of_nothing_has_a_scale():
    assert Scales.of(np.empty((0, 3), np.int32), (0, 3)) == Scales(np.array([0]))
    for shape, offsets in (((2, 0, 3), (2, 1, 3)), ((0, 3), (1, 3)), ((3, 0), (3, 1))):
        assert Scales.of(np.full(offsets, 7, np.int32), shape).ends == (7, 7)
        for fmt in (lns8f3, lns16f10, lns32f23):
            assert decode(np.empty(shape, fmt.dtype), fmt, log_offset=np.full(offsets, 7, np.int32)).shape == shape


def floats(rng, fmt):
    """Numbers across and beyond the range of a format, and special ones."""
    spread = (fmt.max_log + 40) / fmt.codes_per_octave
    with np.errstate(over="ignore"):
        x = rng.normal(size=(40, 70)) * np.exp2(rng.uniform(-spread, spread, (40, 70)).clip(-140, 120))
        x = x.astype(np.float32)
    x[0, :7] = 0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40
    return x


def some_offsets(rng, fmt, shape, far=False):
    """Near ones, which leave the numbers in the range, or any."""
    most = MAX_LOG_OFFSET if far else 3 * int(fmt.codes_per_octave) + 5
    # some tens of them, each of which is taken alone
    return rng.choice(rng.integers(-most, most + 1, 30), shape).astype(np.int32)


def one_by_one(function, offsets, *arrays):
    """function(offset, *elements of that scale) for each scale; the results in the places of the elements."""
    each = broadcast(offsets, arrays[0].shape).reshape(arrays[0].shape)
    out = None
    for offset in np.unique(each):
        found = function(int(offset), *(array[each == offset] for array in arrays))
        out = np.empty(each.shape, found.dtype) if out is None else out
        out[each == offset] = found
    return out


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_encode_in_every_mode(fmt, where, dtype):
    rng = np.random.default_rng(0)
    x = floats(rng, fmt).astype(dtype)
    bits = random_bits(x.shape, seed=3)
    bits[1], bits[2] = 0, 2**32 - 1
    for rounding in MODES:
        for overflow, underflow, far in (
            ("saturate", "round", False),
            ("nan", "saturate", False),
            ("nan", "round", True),
        ):
            offsets = some_offsets(rng, fmt, WHERE[where], far)
            if far:
                offsets.flat[::2] >>= 20
            modes = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
            stochastic = rounding.startswith("stochastic")
            given_bits = {"random_bits": bits} if stochastic else {}
            found = encode(x, fmt, log_offset=offsets, **given_bits, **modes)

            def alone(offset, x, bits, modes=modes, stochastic=stochastic):
                return encode(x, fmt, log_offset=offset, **({"random_bits": bits} if stochastic else {}), **modes)

            assert np.array_equal(found, one_by_one(alone, offsets, x, bits)), modes


@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, lns32f23], ids=str)
def test_a_seed_gives_the_words_of_the_whole_array(fmt):
    rng = np.random.default_rng(1)
    x, offsets = floats(rng, fmt), some_offsets(rng, fmt, (1, 70))
    for rounding in ("stochastic_log", "stochastic_value"):
        bits = random_bits(x.shape, seed=5, step=2)
        expected = encode(x, fmt, rounding=rounding, log_offset=offsets, random_bits=bits)
        assert np.array_equal(encode(x, fmt, rounding=rounding, log_offset=offsets, seed=5, step=2), expected)


def all_codes(rng, fmt):
    """All codes of a narrow format, or as many others, in any order."""
    some = rng.permutation(np.resize(np.arange(1 << min(fmt.bits, 11)), 2800)) << max(fmt.bits - 11, 0)
    codes = some.astype(fmt.dtype).reshape(40, 70)
    codes[3, :4] = 0, fmt.nan_code, fmt.max_magnitude, fmt.nan_code + 1
    return codes


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_decode(fmt, where):
    rng = np.random.default_rng(2)
    codes = all_codes(rng, fmt)
    for dtype in ("float64", "float32", "float16", "bfloat16"):
        for far in (False, True):
            offsets = some_offsets(rng, fmt, WHERE[where], far)
            found = decode(codes, fmt, dtype, log_offset=offsets)
            expected = one_by_one(lambda offset, c, d=dtype: decode(c, fmt, d, log_offset=offset), offsets, codes)
            assert np.array_equal(found.view(np.uint8), expected.view(np.uint8)), dtype


@pytest.mark.parametrize(
    "wheres", [("rows", None), (None, "columns"), ("rows", "rows"), ("rows", "columns"), ("elements", "rows")], ids=str
)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("name", ["multiply", pytest.param("divide", marks=pytest.mark.thorough), "add", "subtract"])
def test_arithmetic(fmt, wheres, name):
    """The scales of each pair, at a scale of the result and at the one that fits."""
    rng = np.random.default_rng(3)
    a, b, function = all_codes(rng, fmt), all_codes(rng, fmt), getattr(arithmetic, name)
    far = (MAX_LOG_OFFSET,) if name in ("multiply", "divide") else ()
    for most in (2 * int(fmt.codes_per_octave) + 3, 20_000, *far):
        offsets = [rng.integers(-most, most + 1, (1, 1) if w is None else WHERE[w]).astype(np.int32) for w in wheres]
        scales = {"a_log_offset": offsets[0], "b_log_offset": offsets[1]}
        for overflow, underflow in (("saturate", "round"), ("nan", "saturate")):
            modes = {"overflow": overflow, "underflow": underflow}
            found, _ = function(a, b, fmt, out_log_offset=3, **scales, **modes)
            expected = np.empty_like(found)
            wide = [np.broadcast_to(x, a.shape) for x in offsets]
            for i in range(0, 40, 7):
                for j in range(70):
                    own = {"a_log_offset": int(wide[0][i, j]), "b_log_offset": int(wide[1][i, j])}
                    expected[i, j] = function(a[i, j], b[i, j], fmt, out_log_offset=3, **own, **modes)[0]
            assert np.array_equal(found[::7], expected[::7]), (most, modes)


@pytest.mark.parametrize("fmt", [*FORMATS[:-1], LNSFormat(24, 12)], ids=str)
@pytest.mark.parametrize("name", ["multiply", "divide"])
def test_the_scale_that_fits_products_of_many_scales(fmt, name):
    """The greatest product is the greatest code there, and saturates one below."""
    rng = np.random.default_rng(4)
    function = getattr(arithmetic, name)
    codes = (all_codes(rng, fmt) & fmt.dtype.type(fmt.max_magnitude)) | fmt.dtype.type(1)
    for most in (100, 20_000, 1 << 25):
        for shapes in (((40, 1), (1, 70)), ((40, 1), (40, 1)), ((1, 70), (1, 1))):
            a, b = (rng.integers(-most, most + 1, shape).astype(np.int32) for shape in shapes)
            scales = {"a_log_offset": a, "b_log_offset": b}
            found, offset = function(codes, codes[::-1], fmt, **scales)
            assert found.max() == fmt.max_magnitude
            nan = function(codes, codes[::-1], fmt, **scales, out_log_offset=offset - 1, overflow="nan")[0]
            assert (nan == fmt.nan_code).any()
            assert not (
                function(codes, codes[::-1], fmt, **scales, out_log_offset=offset, overflow="nan")[0]
                > fmt.max_magnitude
            ).any()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@example(1, 1, 0)
def test_any_shape_of_channels(rows, columns, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns, 3)).astype(np.float32)
    offsets = rng.integers(-40, 40, (columns, 1)).astype(np.int32)
    codes = encode(x, lns8f5, log_offset=offsets)
    for j in range(columns):
        assert np.array_equal(codes[:, j], encode(x[:, j], lns8f5, log_offset=int(offsets[j, 0])))
        back = decode(codes, lns8f5, "float32", log_offset=offsets)[:, j]
        assert np.array_equal(back, decode(codes[:, j], lns8f5, "float32", log_offset=int(offsets[j, 0])))


@pytest.mark.plain_python
@pytest.mark.parametrize("fmt", [lns8f5, lns16f10, lns32f23], ids=str)
def test_a_few_rows_and_columns(fmt):
    """Enough numbers for vectors, and few enough for kernels as plain Python."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 300)).astype(np.float32)
    x[0, :5] = 0, -np.inf, np.nan, 1e-40, -3e4
    for shape in ((4, 1), (1, 300)):
        offsets = some_offsets(rng, fmt, shape)
        for rounding in ("nearest", "up", "stochastic_value"):
            bits = {"random_bits": random_bits(x.shape, seed=0)} if rounding == "stochastic_value" else {}
            codes = encode(x, fmt, rounding=rounding, log_offset=offsets, **bits)
            wide = encode(x.astype(np.float64), fmt, rounding=rounding, log_offset=offsets, **bits)
            assert np.array_equal(codes, wide)
        back = decode(codes, fmt, log_offset=offsets)
        assert np.array_equal(encode(back, fmt, log_offset=offsets)[x > 1e-3], codes[x > 1e-3])
        one = np.full(x.shape, fmt.bias, fmt.dtype)
        product, _ = arithmetic.multiply(codes, one, fmt, a_log_offset=offsets, out_log_offset=0)
        expected, _ = rescale(codes, fmt, log_offset=offsets, out_log_offset=0)
        assert np.array_equal(product, expected)
        zero = np.zeros_like(one)
        total, _ = arithmetic.add(codes, zero, fmt, a_log_offset=offsets, out_log_offset=0)
        assert np.array_equal(total, expected)
