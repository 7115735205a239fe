"""Madam's moments in one byte: their tables, how often each word rounds up, and how codes follow a raised exponent.

The expected values are `madam_reference`'s, Fractions from docs/training.md. Which codes a whole step stores is
compared in test_update.py.
"""

from fractions import Fraction
from itertools import pairwise

import madam_reference as reference
import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lnsnum.torch_bridge.kernels.moments import (
    EXPONENT_BOUND,
    MOMENT_TABLE,
    MOMENTUM_TABLE,
    NO_EXPONENT,
    PER_SMALLEST,
    first_exponent,
    greatest_gradient,
    load_moment,
    load_momentum,
    lower_moment,
    lower_momentum,
    octaves_to_raise,
    store_moment,
    store_momentum,
)

F32 = np.float32
WORDS, PARTS = 1 << 24, 1 << 21
ONE = F32(1.0)
SIGNED = np.delete(np.arange(256), 128)
INF, NAN = np.inf, np.nan

jit = not numba.config.DISABLE_JIT

KINDS = ["moment", "momentum"]
TABLES = {"moment": MOMENT_TABLE, "momentum": MOMENTUM_TABLE[:128]}
BELOW = 3
"""How many of the 2^24 words the chance below the smallest number may be off: two roundings and a cut."""


def random_words(of, which):
    """The words R of elements whose own words for this use, R times a factor, are these."""
    inverse = pow(reference.FACTORS[which], -1, 2**32)
    own = np.asarray(of).astype(np.uint64) * np.uint64(inverse) & np.uint64(0xFFFFFFFF)
    return own.astype(np.uint32).view(np.int32)


def stored(values, of, which, *, finite=None, scale=ONE, old=0):
    """The codes of float32 values where the words of this use are those of `of`."""
    values = np.atleast_1d(np.asarray(values, F32))
    gradient = np.zeros(values.size, F32) if finite is None else np.where(finite, ONE, F32(NAN))
    codes = np.full(values.size, old, np.uint8)
    words = np.broadcast_to(random_words(of, which), values.shape).copy()
    with np.errstate(all="ignore"):  # plain Python's operations are NumPy's, which warn
        if which == "moment":
            store_moment(values, gradient, words, codes)
        else:
            store_momentum(values, gradient, words, scale, codes)
    return codes


def ups(values, which):
    """How many of the 2^24 upper parts of a word make each value the greater of two codes, and that the others make it
    the smaller: a step of them, found by bisection. Up is where the part is small below the smallest number, and where
    it is great above."""
    ends = [stored(values, np.full(values.size, part << 8 | 0x80), which) for part in (0, WORDS - 1)]
    low, high = np.zeros(values.size, np.int64), np.full(values.size, WORDS - 1)
    for _ in range(24):
        middle = (low + high) // 2
        as_first = stored(values, middle << 8 | 0x80, which) == ends[0]
        low, high = np.where(as_first, middle, low), np.where(as_first, high, middle)
    greater = ends[0] > ends[1]
    count = np.where(ends[0] == ends[1], WORDS, np.where(greater, high, WORDS - high))
    return np.minimum(*ends), np.maximum(*ends), count


# --------------------------------------------------------------------------------------------------------- the tables


def test_the_tables_are_those_of_the_page():
    assert [Fraction(float(x)) for x in MOMENT_TABLE] == [reference.moment_value(code) for code in range(256)]
    assert [Fraction(float(x)) for x in MOMENTUM_TABLE] == [reference.momentum_value(code) for code in range(256)]
    assert MOMENT_TABLE.dtype == MOMENTUM_TABLE.dtype == F32
    assert MOMENT_TABLE[5] == 2 * MOMENT_TABLE[1]  # four codes an octave, but for zero
    for inverse, table in zip(PER_SMALLEST, (MOMENT_TABLE, MOMENTUM_TABLE), strict=True):
        assert inverse == F32(1.0 / float(table[1]))


@pytest.mark.parametrize("scale", [1.0, 2.0**-100, 2.0**20, 3.0])
def test_every_code_is_loaded_as_its_value_times_the_scale(scale):
    codes, out = np.arange(256).astype(np.uint8), np.empty(256, F32)
    load_momentum(codes, F32(scale), out)
    np.testing.assert_array_equal(out, MOMENTUM_TABLE * F32(scale))
    load_moment(codes, out)
    np.testing.assert_array_equal(out, MOMENT_TABLE)


# --------------------------------------------------------------------------------------------------------- the rounding


@pytest.mark.parametrize("which", KINDS)
def test_each_code_is_stored_as_itself_by_all_words(which):
    """An exact value is never rounded."""
    codes = np.arange(256) if which == "moment" else SIGNED
    table = MOMENT_TABLE if which == "moment" else MOMENTUM_TABLE[SIGNED]
    for word in (0, 1, 1 << 11, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        np.testing.assert_array_equal(stored(table, np.full(table.size, word), which), codes)


@pytest.mark.parametrize("which", KINDS)
def test_between_neighbours_exactly_as_many_words_round_up_as_the_page_says(which):
    """Every cell, with values at its ends, in its middle and anywhere: the mean over all words is the value itself."""
    table = TABLES[which]
    random = np.random.default_rng(2)
    distribution = {"moment": reference.moment_codes, "momentum": reference.momentum_codes}[which]
    cells = list(pairwise(table[1:]))[:: 1 if jit else 17]
    values = [
        x
        for low, high in cells
        for x in (low, np.nextafter(low, INF), F32(low + (high - low) / 2), np.nextafter(high, F32(0)))
    ]
    values += [F32(low + F32(random.random()) * (high - low)) for low, high in cells]
    values = np.array(values, F32)
    low, high, count = ups(values, which)
    for x, small, great, up in zip(values.tolist(), low.tolist(), high.tolist(), count.tolist(), strict=True):
        expected = distribution(Fraction(x))
        found = {small: 1 - Fraction(up, WORDS), great: Fraction(up, WORDS)}
        assert {code: p for code, p in found.items() if p} == {code: p for code, p in expected.items() if p}
        exact = [Fraction(float(table[code])) * p for code, p in found.items()]
        assert sum(exact) == Fraction(x)


@pytest.mark.parametrize("which", KINDS)
def test_below_the_smallest_number_the_chance_is_the_quotient(which):
    smallest = float(TABLES[which][1])
    parts = np.array([0.0, 1e-9, 1e-7, 3e-4, 0.1, 0.5, 0.8, 0.9, 0.999, 1 - 2.0**-24])
    values = (smallest * parts).astype(F32)
    low, high, count = ups(values, which)
    assert (low == 0).all()
    for x, great, up in zip(values.tolist(), high.tolist(), count.tolist(), strict=True):
        chance = Fraction(up, WORDS) if great else Fraction(0)
        assert abs(chance - Fraction(x) / Fraction(smallest)) <= Fraction(BELOW, WORDS)


@pytest.mark.skipif(not jit, reason="every one of 2^24 words, by the compiled kernel")
@pytest.mark.parametrize("which", KINDS)
@pytest.mark.parametrize("part", [0.3, 0.77])
def test_what_a_value_becomes_is_one_step_of_the_upper_bits(which, part):
    """All of them, above the smallest number and below: what the bisection takes for granted."""
    every = np.arange(WORDS, dtype=np.int64) << 8
    smallest = TABLES[which][1]
    for x in (F32(5.0 + part), F32(smallest * F32(part))):
        codes = stored(np.full(WORDS, x), every, which)
        np.testing.assert_array_equal(codes, stored(np.full(WORDS, x), every | 0xFF, which))
        assert np.count_nonzero(np.diff(codes.astype(int))) == 1
        low, high, count = ups(np.array([x], F32), which)
        assert int((codes == high[0]).sum()) == count[0]
        assert int((codes == low[0]).sum()) == WORDS - count[0]


@pytest.mark.parametrize("which", KINDS)
def test_what_is_above_the_greatest_saturates(which):
    top = 255 if which == "moment" else 127
    greatest = float(TABLES[which][-1])
    huge = np.array([greatest, greatest * 1.01, greatest * 1.2, 1e20, 3.4e38, INF], F32)
    for word in (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert stored(huge, np.full(6, word), which).tolist() == [top] * 6
    if which == "momentum":
        assert stored(-huge, np.full(6, 0xFFFFFFFF), which).tolist() == [255] * 6


def test_a_negative_momentum_is_the_mirror_and_zero_has_no_sign():
    random = np.random.default_rng(3)
    x = (random.standard_normal(500) * 2.0 ** random.integers(-30, 20, 500)).astype(F32)
    words = random.integers(0, 2**32, 500)
    own, other = stored(x, words, "momentum"), stored(-x, words, "momentum")
    np.testing.assert_array_equal(own & 127, other & 127)
    np.testing.assert_array_equal(own[own > 0] ^ 128, other[own > 0])
    assert not ((own == 128) | (other == 128)).any()
    tiny = np.array([-0.0, 0.0, -1e-45, -1e-30], F32)
    assert stored(tiny, np.full(4, 0xFFFFFFFF), "momentum").tolist() == [0] * 4
    assert stored(tiny[:2], np.zeros(2, int), "momentum").tolist() == [0] * 2


@pytest.mark.parametrize("which", KINDS)
def test_where_the_gradient_is_not_finite_the_code_stays(which):
    codes = stored([4.0, 4.0, NAN], np.full(3, 0xFFFFFFFF), which, finite=[True, False, False], old=77)
    assert codes[0] != 77
    assert codes[1:].tolist() == [77, 77]


@pytest.mark.parametrize("exponent", [-120, -3, 5])
def test_the_scale_of_a_momentum_is_exact(exponent):
    parts = np.array([1, -1, 2**-10], F32) * F32(1.3)
    words = np.full(3, 5_000_000 << 8)
    scaled = stored(parts * F32(2.0**exponent), words, "momentum", scale=F32(2.0**-exponent))
    np.testing.assert_array_equal(scaled, stored(parts, words, "momentum"))


# --------------------------------------------------------------------------------------------------------- the exponent

FLOATS = st.floats(width=32)


def bits_of(x):
    return int(np.array([x], F32).view(np.int32)[0])


@given(st.lists(FLOATS, max_size=20))
@example([])
@example([-0.0, NAN, -NAN, INF, -INF])
@example([2.0**-149, -(2.0**-148)])
def test_the_greatest_gradient_is_the_greatest_finite_one(gradient):
    sizes = [abs(x) for x in gradient if np.isfinite(x)]
    assert int(greatest_gradient(np.array(gradient, F32))) == bits_of(max(sizes, default=0.0))


@given(st.lists(FLOATS, min_size=1, max_size=20))
@example([256.0])
@example([255.99998])
@example([2.0**-149])
def test_the_first_exponent_is_the_page_s_within_its_bounds(gradient):
    sizes = [abs(x) for x in gradient if np.isfinite(x) and x != 0]
    found = first_exponent(np.array(gradient, F32))
    if sizes:
        assert found == min(max(reference.exponent_of(Fraction(max(sizes))), -EXPONENT_BOUND), EXPONENT_BOUND)
    else:
        assert found == NO_EXPONENT < -EXPONENT_BOUND


def test_first_exponents_are_within_their_bound():
    assert first_exponent(np.array([3.4e38], F32)) == EXPONENT_BOUND
    assert first_exponent(np.array([1e-45], F32)) == -EXPONENT_BOUND


@given(st.floats(0, width=32, allow_nan=False, allow_infinity=False), st.integers(-EXPONENT_BOUND, EXPONENT_BOUND))
@example(2.0**12, 0)
@example(4095.9998, 0)
@example(3.4e38, EXPONENT_BOUND)
@example(3.4e38, 115)
@example(0.0, -EXPONENT_BOUND)
def test_an_exponent_is_raised_where_a_gradient_reaches_the_limit(greatest, exponent):
    expected = reference.raised_exponent(exponent, Fraction(greatest)) if greatest else exponent
    assert exponent + octaves_to_raise(bits_of(greatest), exponent) == min(expected, EXPONENT_BOUND)


@pytest.mark.parametrize("octaves", [0, 1, 2, 5, 15, 16, 31, 32, 33, 240])
def test_codes_follow_a_raised_exponent(octaves):
    """Every code: the same number, or what the page says of one that has become too small."""
    moment = np.arange(256).astype(np.uint8)
    momentum = SIGNED.astype(np.uint8)
    lower_moment(moment, octaves)
    lower_momentum(momentum, octaves)
    assert moment.tolist() == [reference.raised_moment(code, octaves) for code in range(256)]
    assert momentum.tolist() == [reference.raised_momentum(code, octaves) for code in SIGNED.tolist()]
