"""The loops without branches against the general kernels that they spare: the same codes and floats, bit for bit.

The general kernels are held against the oracle elsewhere; here are the bounds of the loops against mpmath, every
distance of a narrow format, distances next to rounding boundaries of wide ones, the edges, and numbers of threads.
"""

from fractions import Fraction
from typing import get_args

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsnum import LNSFormat, decode, decoding, lns8f3, lns12f6, lns16f10, lns32f23, reference
from lnsnum.arithmetic import add, divide, multiply, subtract
from lnsnum.format import Rounding
from lnsnum.gaussian import Exact, tables
from lnsnum.kernels.codes import FLOAT_TYPES, NO_RANDOM_BITS
from lnsnum.kernels.elementary import (
    CELL_ERROR,
    CELL_RANGE,
    CELLS,
    PAIR_ERROR,
    power_of_half,
    power_of_half_as_pair,
)
from lnsnum.kernels.rounding import steps_in_two, target
from lnsnum.kernels.scales import Scales
from lnsnum.kernels.threads import get_num_threads, set_num_threads
from lnsnum.operations import narrow_sums, sums, wide_sums
from lnsnum.operations.linear import KEEP, combine, fitting, linear
from lnsnum.operations.operation import Operand, Result
from lnsnum.operations.wide_sums import POSITION_ERROR, log2_of_sum

MP = mpmath.MPContext()
MP.prec = 200

EDGES = [(overflow, underflow) for overflow in ("saturate", "nan") for underflow in ("round", "saturate")]

WIDE = [
    lns32f23,
    LNSFormat(32, 30),
    LNSFormat(24, 12),
    LNSFormat(17, 0),
    LNSFormat(32, 22, base=1.5),
    LNSFormat(20, 3, base=8.0),
    LNSFormat(17, 15, base=1.0001),
    LNSFormat(18, 1, base=1e6),
]


def operand(codes, fmt, offset=0):
    return Operand(np.asarray(codes, fmt.dtype), fmt, Scales(np.atleast_1d(np.asarray(offset, np.int64)) - fmt.bias))


def result_of(fmt, size, offset=0, overflow="saturate", underflow="round", rounding="nearest", random=None):
    return Result(fmt, (size,), offset, rounding, overflow, underflow, NO_RANDOM_BITS if random is None else random)


MODES = get_args(Rounding)


def in_every_mode(result):
    """The result in all modes, those at random with words of each element, the ends among them, and one for all."""
    words = np.random.default_rng(7).integers(0, 1 << 32, result.shape, dtype=np.uint32)
    words[::7], words[3::7] = 0, (1 << 32) - 1
    for rounding in MODES:
        for random in (words, words[5:6]) if rounding.startswith("stochastic") and words.size > 5 else (words,):
            bits = random if rounding.startswith("stochastic") else NO_RANDOM_BITS
            yield result._replace(rounding=rounding, random=bits)


def check_in_every_mode(a, c, result, served=None):
    for one in in_every_mode(result):
        check_sums(a, c, one, served)


def check_sums(a, c, result, served=None):
    """`sums.add` gives what the general kernel gives; `served` is the module that must not decline."""
    expected, _ = sums.fused(a, None, c, result)
    found, offset = sums.add(a, c, None, result)
    assert offset == result.log_offset
    wrong = np.flatnonzero(found != expected)
    assert wrong.size == 0, (result, [x.codes[wrong[:3]] for x in (a, c)], found[wrong[:3]], expected[wrong[:3]])
    if served is not None:
        out = np.empty(a.codes.shape, result.fmt.dtype)
        to = result.target(result.log_offset)
        extra = (result.fmt,) if served is narrow_sums else ()
        assert served.add(a, c, *extra, to, result.random, out) is not None


# ------------------------------------------------------------------------------------------------------------- bounds


def hard_cells():
    """Positions in cells: both sides of many boundaries, ends, and random ones."""
    rng = np.random.default_rng(1)
    n = np.concatenate([np.arange(0, 3 * CELLS), CELLS * np.arange(4, 60)]).astype(np.float64)
    inside = rng.uniform(0.0, 40.0 * CELLS, 300)
    tiny = 2.0 ** -np.arange(1.0, 30.0)
    return np.concatenate([n, n + 2.0**-30, np.nextafter(n[1:], 0.0), inside, tiny, [1e4, CELL_RANGE]])


@pytest.mark.plain_python
def test_power_of_half_is_within_its_bound():
    for y in [*hard_cells()[::7], -1.0, -0.25, -1234.567, -CELL_RANGE]:
        h, q = power_of_half(float(y))
        exact = MP.power(2, MP.mpf(-float(y)) / CELLS)
        cell = MP.power(2, MP.mpf(-float(np.floor(y))) / CELLS)
        assert abs(h / cell - 1) < 2.0**-52
        true_q = 1 - exact / cell
        assert 0.0 <= q < 1.0 / CELLS
        assert abs(q - true_q) <= CELL_ERROR * true_q


@pytest.mark.plain_python
def test_power_of_half_as_pair_is_within_its_bound():
    unit = 2.0**-22
    for y in [*hard_cells()[::7], unit, 1.0 - unit, 255.0 + unit, -unit, -1.0, -0.25, -1234.567, -CELL_RANGE]:
        y = np.rint(y / unit) * unit
        top, rest, octaves = power_of_half_as_pair(float(y))
        exact = MP.power(2, MP.mpf(-float(y)) / CELLS + int(octaves))
        assert 0.5 <= top <= 1.0
        assert abs(rest) <= 2.0**-54
        assert abs(MP.mpf(float(top)) + MP.mpf(float(rest)) - exact) <= PAIR_ERROR
        if y % CELLS == 0.0:
            assert (top, rest) == (1.0, 0.0)


@pytest.mark.parametrize("offset", [0, 12345, -(1 << 29), 1 << 30])
@pytest.mark.parametrize(
    "fmt",
    [lns32f23, LNSFormat(32, 30), LNSFormat(24, 3), LNSFormat(32, 20, base=4.0), LNSFormat(17, 0), LNSFormat(17, 15)],
    ids=str,
)
def test_doubles_of_pairs_are_those_of_integers(fmt, offset):
    rng, top = np.random.default_rng(6), fmt.max_magnitude
    ends = np.array([0, 1, 2, top, top - 1, fmt.bias, fmt.bias + 1, fmt.bias - 1])
    codes = np.concatenate([ends, ends + fmt.sign_bit, rng.integers(0, 1 << fmt.bits, 20_000)]).astype(fmt.dtype)
    found = decode(codes, fmt, log_offset=offset).view(np.uint64)
    np.testing.assert_array_equal(found, decoding._decode_by_powers(codes, fmt, Scales.of(offset, ()), "float64"))


@pytest.mark.parametrize("opposed", [False, True])
def test_log2_of_sum_is_within_its_bound(opposed):
    worst = 0.0
    for y in hard_cells():
        if y == 0.0 and opposed:
            assert np.isfinite(log2_of_sum(0.0, True))
            continue
        power = MP.power(2, -MP.mpf(float(y)) / CELLS)
        exact = MP.log(1 - power if opposed else 1 + power, 2)
        worst = max(worst, float(abs(MP.mpf(float(log2_of_sum(float(y), opposed))) - exact)))
    assert 0.0 < worst < POSITION_ERROR


# --------------------------------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(
    "fmt",
    [
        pytest.param(LNSFormat(3, 0), marks=pytest.mark.plain_python),
        pytest.param(LNSFormat(4, 1), marks=pytest.mark.plain_python),
        LNSFormat(6, 4),
        LNSFormat(6, 0, base=4.0),
    ],
)
def test_all_pairs_of_small_formats(fmt, edges):
    codes = np.arange(1 << fmt.bits)
    a, c = np.repeat(codes, codes.size), np.tile(codes, codes.size)
    for a_offset, c_offset, offset in ((0, 0, 0), (3, -2, 5), (-9, 0, -30), (0, 1 << 12, 0), (0, 0, 21)):
        x, y = operand(a, fmt, a_offset), operand(c, fmt, c_offset)
        check_in_every_mode(x, y, result_of(fmt, a.size, offset, *edges))


@pytest.mark.thorough
@pytest.mark.parametrize("fmt", [lns16f10, LNSFormat(16, 7), lns12f6, LNSFormat(16, 13), LNSFormat(14, 9, base=1.9)])
def test_every_distance_of_a_narrow_format(fmt):
    """From an even and an odd magnitude, of like and unlike signs, upwards and downwards."""
    m = np.arange(fmt.max_magnitude + 1)
    for other in (1, 2, fmt.bias, fmt.bias + 1, fmt.max_magnitude - 1, fmt.max_magnitude, 0):
        for sign_a, sign_c in ((0, 0), (0, 1), (1, 0), (1, 1)):
            a, c = m + sign_a * fmt.sign_bit, np.full(m.shape, other + sign_c * fmt.sign_bit)
            for edges in EDGES:
                result = result_of(fmt, m.size, 0, *edges)
                check_sums(operand(a, fmt), operand(c, fmt), result, narrow_sums)
            check_in_every_mode(operand(a, fmt), operand(c, fmt), result_of(fmt, m.size, -fmt.bias // 2), narrow_sums)


def test_half_of_the_smallest_in_a_narrow_format():
    """Sums that round to the half of the smallest number are decided by integers."""
    fmt = lns16f10
    k = int(steps_in_two(fmt)[0])
    a = np.repeat(np.arange(1, 200), 200)
    c = np.tile(np.arange(1, 200 + 1), 199) | fmt.sign_bit
    for offset in range(k - 30, k + 180, 21):
        check_sums(operand(a, fmt), operand(c, fmt), result_of(fmt, a.size, offset), narrow_sums)


def test_narrow_sums_decline_what_tables_cannot_give():
    fmt, codes = LNSFormat(16, 13), np.arange(1, 500)
    assert not tables(Exact(), fmt).complete
    out, near = np.empty(codes.shape, fmt.dtype), operand(codes, fmt)

    def add(a, c, to):
        return narrow_sums.add(a, c, fmt, to, NO_RANDOM_BITS, out)

    assert add(near, near, target(fmt, 0)) is not None
    reach = tables(Exact(), fmt).sb.size - fmt.max_magnitude  # to the last entry of the table
    assert add(near, operand(codes, fmt, -reach), target(fmt, 0)) is not None
    assert add(near, operand(codes, fmt, -reach - 1), target(fmt, 0)) is None
    ends = np.array([fmt.max_magnitude, 1, fmt.max_magnitude - 1])
    check_in_every_mode(operand(ends, fmt), operand(ends[::-1], fmt, -reach), result_of(fmt, 3, 0))
    for far in (operand(codes, fmt, 1 << 20), operand(codes, fmt, narrow_sums.FAR)):
        assert add(near, far, target(fmt, 0)) is None
        check_sums(near, far, result_of(fmt, codes.size))
    steep = LNSFormat(8, 6, base=1.0 + 2.0**-40)
    check_in_every_mode(operand(codes[:100], steep), operand(codes[99::-1], steep), result_of(steep, 100))
    # one step is a factor of 16: the series for its probability does not reach
    coarse = LNSFormat(17, 0, base=16.0)
    assert wide_sums.prepared(target(coarse, 0, rounding="stochastic_value")) is None
    check_in_every_mode(operand(codes, coarse), operand(codes[::-1], coarse), result_of(coarse, codes.size))


@given(st.data())
def test_narrow_sums_at_many_scales(data):
    fmt = data.draw(st.sampled_from([lns8f3, lns12f6, lns16f10, LNSFormat(9, 7), LNSFormat(10, 2, base=3.0)]))
    size = data.draw(st.integers(0, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 20)))
    spread = data.draw(st.sampled_from([1, 50, 5000, 1 << 22]))
    scales = [rng.integers(-spread, spread + 1, data.draw(st.sampled_from([1, size]))) for _ in range(2)]
    x, y = (operand(rng.integers(0, 1 << fmt.bits, size), fmt, scale) for scale in scales)
    edges = data.draw(st.sampled_from(EDGES))
    result = result_of(fmt, size, data.draw(st.integers(-spread, spread)), *edges)
    check_sums(x, y, data.draw(st.sampled_from(list(in_every_mode(result)))))


@pytest.mark.parametrize("rounding", ["stochastic_log", "stochastic_value"])
@pytest.mark.parametrize("fmt", [lns8f3, LNSFormat(10, 6, base=1.7), lns32f23, LNSFormat(20, 3)], ids=str)
def test_random_bits_next_to_their_threshold(fmt, rounding):
    """Distances of all sizes, and the eleven words about the probability as NumPy has it."""
    steps = steps_in_two(fmt)[0]
    z = np.unique(np.concatenate([np.arange(1, 12), (steps * np.geomspace(0.01, 34.0, 50)).astype(np.int64)]))
    z = np.repeat(z[(z > 0) & (z < fmt.max_magnitude - 1)], 11)
    a = np.full(z.size, fmt.max_magnitude - 1)
    for sign in (0, fmt.sign_bit):
        power = np.exp2(-z / steps)
        position = steps * (np.log1p(-power) if sign else np.log1p(power)) / np.log(2.0)
        share = position - np.floor(position)
        if rounding == "stochastic_value":
            share = np.expm1(share * np.log(2.0) / steps) / np.expm1(np.log(2.0) / steps)
        words = (np.rint(share * 2.0**32).astype(np.int64) + np.tile(np.arange(-5, 6), z.size // 11)) % (1 << 32)
        # an octave of room: what the greater operand is rounded up to does not saturate
        result = result_of(fmt, z.size, int(steps) + 1, rounding=rounding, random=words.astype(np.uint32))
        check_sums(operand(a, fmt), operand(a - z + sign, fmt), result, narrow_sums if fmt.bits <= 16 else wide_sums)


def near_ties(fmt, opposed, count):
    """Distances at which sb or db lies near a half, by NumPy."""
    steps = steps_in_two(fmt)[0]
    z = np.arange(1, min(1 << 21, fmt.max_magnitude - 1), dtype=np.int64)
    power = np.exp2(-(z / steps))
    position = steps * np.log2(-np.expm1(-np.log(2.0) * (z / steps)) if opposed else 1.0 + power)
    return z[np.argsort(np.abs(position - np.floor(position) - 0.5))[:count]]


@pytest.mark.parametrize("opposed", [False, True])
@pytest.mark.parametrize("fmt", WIDE, ids=str)
def test_wide_sums_next_to_ties(fmt, opposed):
    z = near_ties(fmt, opposed, 400)
    for hi in (fmt.max_magnitude - 1, fmt.max_magnitude - 2, min(fmt.max_magnitude - 1, int(z.max()) + 1)):
        fits = z < hi
        a, c = np.full(int(fits.sum()), hi), (hi - z[fits]) + (fmt.sign_bit if opposed else 0)
        result = result_of(fmt, a.size, int(steps_in_two(fmt)[0]) + 1)
        check_sums(operand(a, fmt), operand(c, fmt), result, wide_sums)
        check_sums(operand(c, fmt), operand(a, fmt), result, wide_sums)


@pytest.mark.thorough
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("fmt", WIDE, ids=str)
def test_wide_sums_of_all_sizes(fmt, edges):
    rng = np.random.default_rng(5)
    top, bottom = fmt.max_magnitude, fmt.sign_bit
    corners = np.array([0, bottom, 1, 2, 3, top, top - 1, bottom + 1, bottom + 2, bottom + top, fmt.bias, fmt.bias + 1])
    a, c = np.repeat(corners, corners.size), np.tile(corners, corners.size)
    near = rng.integers(1, top + 1, 3000)
    distance = (2.0 ** rng.uniform(0, fmt.bits - 1, near.size)).astype(np.int64)
    signs = rng.integers(0, 2, (2, near.size)) * bottom
    a = np.concatenate([a, near + signs[0]])
    c = np.concatenate([c, np.clip(near - distance, 0, top) + signs[1]])
    k = min(int(steps_in_two(fmt)[0]), 1 << 28)
    for a_offset, c_offset, offset in ((0, 0, 0), (0, 0, k), (0, 0, -fmt.bias), (-k, 5, 17), (0, 1 << 29, 1 << 29)):
        x, y = operand(a, fmt, a_offset), operand(c, fmt, c_offset)
        for result in in_every_mode(result_of(fmt, a.size, offset, *edges)):
            # one step is more than an octave: the series for its probability does not reach
            out_of_reach = result.rounding == "stochastic_value" and steps_in_two(fmt)[0] < 1.0
            check_sums(x, y, result, None if out_of_reach else wide_sums)


@pytest.mark.parametrize("fmt", WIDE, ids=str)
def test_wide_sums_about_half_of_the_smallest(fmt):
    """The greater operand is the half of the smallest result, or next to it: what little the other adds decides."""
    k = int(steps_in_two(fmt)[0])
    octaves = np.concatenate([np.arange(1, 100), np.arange(100, 1000, 50)])
    z = np.unique(np.clip(octaves * max(k, 1), 1, fmt.max_magnitude - 1))
    hi = fmt.max_magnitude
    lowest = hi - fmt.bias + k
    for scale in (0, -(1 << 29)):
        for sign in (0, fmt.sign_bit):
            a, c = np.full(z.size, hi), hi - z + sign
            for place in (-2, -1, 0, 1, 2):
                offset = lowest + scale + place + fmt.max_log
                if abs(offset) <= 1 << 30:
                    result = result_of(fmt, z.size, offset)
                    check_sums(operand(a, fmt, scale), operand(c, fmt, scale), result, wide_sums)


def test_wide_sums_agree_with_the_oracle():
    fmt = lns32f23
    z = np.concatenate([near_ties(fmt, True, 8), np.array([1, 2, 3, 1 << 23, (1 << 23) + 1, 27 << 23])])
    a = np.full(z.size, fmt.bias + (30 << 23))
    for c in (a - z, a - z + fmt.sign_bit):
        found, _ = add(a.astype(np.uint32), c.astype(np.uint32), fmt)
        assert found.tolist() == [reference.add(int(x), int(y), fmt) for x, y in zip(a, c, strict=True)]


@pytest.mark.parametrize("fmt", [lns16f10, lns32f23], ids=str)
def test_scales_of_each_element(fmt):
    rng = np.random.default_rng(11)
    a, c = rng.integers(0, 1 << fmt.bits, (2, 5000))
    scales = rng.integers(-(1 << 20), 1 << 20, (2, 5000))
    check_sums(operand(a, fmt, scales[0]), operand(c, fmt, scales[1]), result_of(fmt, 5000, 77))
    check_sums(operand(a, fmt, scales[0]), operand(c, fmt, 3), result_of(fmt, 5000, 77))


@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, *WIDE], ids=str)
def test_the_scale_that_fits(fmt):
    """Sums of all sizes, sums that all cancel or nearly, zeros and NaN alone, and scales at the ends."""
    rng, far = np.random.default_rng(13), 1 << 30
    top, bottom = fmt.max_magnitude, fmt.sign_bit
    some = rng.integers(0, 1 << fmt.bits, (2, 300))
    close = rng.integers(2, top, 300)
    pairs = [some, some % 50, (close, close - 1 + bottom), (close, close + bottom), ([0, bottom, 0], [0, 0, bottom])]
    pairs += [([top], [top]), ([1], [1]), ([2], [1 + bottom]), ([], [])]
    for a, c in pairs:
        for a_offset, c_offset in ((0, 0), (3, -4), (-far, -far), (far, 0), (-far, far), (far - 3, far - 7)):
            x, y = operand(a, fmt, a_offset), operand(c, fmt, c_offset)
            result = result_of(fmt, x.codes.size, "fit", underflow="saturate" if a_offset == 3 else "round")
            # another mode for each pair of scales
            result = list(in_every_mode(result))[abs(a_offset + c_offset) % 5]
            try:
                expected = sums.fused(x, None, y, result)
            except ValueError:
                with pytest.raises(ValueError, match="finds no scale"):
                    sums.add(x, y, None, result)
                continue
            found = sums.add(x, y, None, result)
            assert found[1] == expected[1]
            assert np.array_equal(found[0], expected[0])


# ----------------------------------------------------------------------------------------------- products and quotients


@pytest.mark.plain_python
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("fmt", [LNSFormat(4, 1), LNSFormat(5, 0, base=1e9), LNSFormat(5, 3, base=1.001)])
def test_products_of_all_pairs(fmt, edges):
    codes = np.arange(1 << fmt.bits)
    a, b = np.repeat(codes, codes.size), np.tile(codes, codes.size)
    for a_offset, b_offset, offset in ((0, 0, 0), (5, -3, 4), (0, 0, -20), (1 << 14, 0, 0), (1 << 30, 1 << 30, -7)):
        check_products(operand(a, fmt, a_offset), operand(b, fmt, b_offset), result_of(fmt, a.size, offset, *edges))


def check_products(a, b, result):
    for direction in (1, -1):
        rule = KEEP._replace(zero_b=-1) if direction < 0 else KEEP
        expected, _ = linear(a, b, Fraction(1), Fraction(direction), rule, result)
        found, _ = combine(a, b, direction, result)
        assert np.array_equal(found, expected), (result, direction)
        check_fitting(a, b, direction, result._replace(log_offset="fit"))


def check_fitting(a, b, direction, result):
    """The whole of the operands, and their last pair."""
    rule = KEEP._replace(zero_b=-1) if direction < 0 else KEEP
    pair = [x._replace(codes=x.codes[-1:]) for x in (a, b)]
    for x, y, wanted in ((a, b, result), (*pair, result._replace(shape=(1,)))):
        try:
            codes, offset = linear(x, y, Fraction(1), Fraction(direction), rule, wanted)
        except ValueError:
            with pytest.raises(ValueError, match="finds no scale"):
                fitting(x, y, direction, wanted)
            continue
        assert fitting(x, y, direction, wanted) == offset
        assert np.array_equal(combine(x, y, direction, wanted)[0], codes)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, *WIDE], ids=str)
def test_products_of_all_sizes(fmt, edges):
    rng = np.random.default_rng(3)
    top, bottom, one = fmt.max_magnitude, fmt.sign_bit, fmt.bias
    corners = [0, bottom, 1, 2, top, top - 1, bottom + 1, bottom + top, one, one - 1, one + 1, bottom + one]
    some = np.concatenate([corners, rng.integers(0, 1 << fmt.bits, 40)])
    a, b = np.repeat(some, some.size), np.tile(some, some.size)
    far = 1 << 30
    scales = [
        (0, 0, 0),
        (1, -1, 3),
        (far, far, far),
        (-far, -far, far),
        (far, -far, -far),
        (-far, 0, -far),
        (0, 0, far),
    ]
    for a_offset, b_offset, offset in [*scales, (0, 0, one), (0, 0, -one), (one, 0, 0), (-one, 0, 1)]:
        check_products(operand(a, fmt, a_offset), operand(b, fmt, b_offset), result_of(fmt, a.size, offset, *edges))


# ------------------------------------------------------------------------------------------------------------- floats


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("fmt", WIDE, ids=str)
def test_decode_of_wide_formats(fmt, dtype):
    rng, to = np.random.default_rng(9), FLOAT_TYPES[dtype]
    k = steps_in_two(fmt)[0]
    borders = [0, 1 - to.max_exponent, -to.max_exponent - to.mantissa_bits - 1, to.max_exponent, to.max_exponent + 1]
    near = (np.rint(k * np.array(borders)[:, None]) + np.arange(-40, 41)).reshape(-1)
    m = np.clip(near + fmt.bias, 0, fmt.max_magnitude).astype(np.int64)
    codes = np.concatenate([m, m + fmt.sign_bit, rng.integers(0, 1 << fmt.bits, 3000), [0, fmt.nan_code]])
    for offset in (0, 1, -int(min(7 * k, 1 << 30)), 1 << 30, -(1 << 30)):
        found = decode(codes, fmt, dtype, log_offset=offset)
        expected = decoding._decode_by_powers(codes.astype(fmt.dtype), fmt, Scales.of(offset, ()), dtype)
        assert np.array_equal(found.view(to.pattern), expected)


def test_decode_of_powers_next_to_a_boundary():
    """Codes of lns32f23 whose powers lie next to the middle of two floats: the double leaves some of them open."""
    fmt = lns32f23
    m = np.arange(fmt.bias, fmt.bias + (1 << 22), dtype=np.int64)
    significand = np.ldexp(np.exp2((m - fmt.bias) / float(1 << 23)), 23)
    distance = np.abs(significand - np.floor(significand) - 0.5)
    hard = m[np.argsort(distance)[:200]]
    found = decode(hard, fmt, "float32")
    expected = decoding._decode_by_powers(hard.astype(fmt.dtype), fmt, Scales.of(0, ()), "float32")
    assert np.array_equal(found.view(np.uint32), expected)
    assert found[:10].view(np.uint32).tolist() == [reference.decode(int(code), fmt, "float32") for code in hard[:10]]
    left = np.empty(hard.shape, np.uint32)
    to = FLOAT_TYPES["float32"]
    count = decoding._decode_plainly(
        hard.astype(np.uint32),
        np.full(hard.shape, -float(fmt.bias)),
        fmt.max_magnitude,
        CELLS / 2.0**23,
        2.0**-45,
        23,
        127,
        to.nan,
        left,
    )
    assert count == np.count_nonzero(left == 1 << 31) > 0, "a wider bound leaves some open"
    assert np.array_equal(left[left != 1 << 31], expected[left != 1 << 31])


# ------------------------------------------------------------------------------------------------------------ threads


@pytest.fixture
def threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, lns32f23], ids=str)
@pytest.mark.parametrize("operation", [add, subtract, multiply, divide])
def test_threads_change_no_code(fmt, operation, threads):
    size = (1 << 19) + 12345
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 1 << fmt.bits, (2, size), dtype=np.uint64).astype(fmt.dtype)
    found = []
    for n in (1, 2, 5):
        set_num_threads(n)
        found.append(operation(a, b, fmt)[0])
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("fmt", [LNSFormat(16, 0, base=4.0), LNSFormat(20, 0, base=4.0)], ids=str)
def test_hard_cases_of_every_thread(fmt, threads, monkeypatch):
    """x + x is a tie where the base is 4: what a thread leaves to integers goes to its own place."""
    rng = np.random.default_rng(4)
    a, c = (operand(rng.integers(0, 12, 20_000), fmt) for _ in range(2))
    result = result_of(fmt, 20_000)
    set_num_threads(1)
    expected, _ = sums.fused(a, None, c, result)
    for module in (narrow_sums, wide_sums, sums):
        monkeypatch.setattr(module, "_LEAST", 4096)
    for n in (1, 3):
        set_num_threads(n)
        assert np.array_equal(sums.fused(a, None, c, result)[0], expected)
        assert np.array_equal(sums.add(a, c, None, result)[0], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_float(dtype, threads):
    codes = np.random.default_rng(6).integers(0, 1 << 32, 100_000, dtype=np.uint64).astype(np.uint32)
    found = []
    for n in (1, 2, 3):
        set_num_threads(n)
        found.append(decode(codes, lns32f23, dtype).view(FLOAT_TYPES[dtype].pattern))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
