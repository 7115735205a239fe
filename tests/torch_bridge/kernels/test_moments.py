"""Madam's moments in one byte: their tables, how they are rounded, and that a momentum is a tensor of lns8f2.

Which codes a whole step stores is compared with the oracle in test_update.py.
"""

from fractions import Fraction
from itertools import pairwise

import numba
import numpy as np
import pytest

from lnsnum import LNSFormat, decode, encode
from lnsnum.torch_bridge.kernels.moments import (
    EXPONENT_BOUND,
    INVERSE_GAPS,
    MANTISSAS,
    MOMENT_TABLE,
    MOMENTUM_TABLE,
    NO_EXPONENT,
    PER_SMALLEST,
    first_exponent,
    load_moment,
    load_momentum,
    store_moment,
    store_momentum,
)

F32 = np.float32
WORDS = 1 << 24
ONE = F32(1.0)
SIGNED = np.delete(np.arange(256), 128)

lns8f2 = LNSFormat(8, 2)

jit = not numba.config.DISABLE_JIT


def words(*of: int) -> np.ndarray:
    """Random bits of which the upper 24 are these."""
    return (np.array(of, np.int64) << 8 | 0xFF).astype(np.uint32)


def stored(values, random, *, finite=None, scale=ONE, old=0, signed=True) -> np.ndarray:
    """The codes of float32 values, for these random bits."""
    values = np.asarray(values, F32)
    gradient = np.zeros(values.size, F32) if finite is None else np.where(finite, F32(1), F32(np.nan))
    codes = np.full(values.size, old, np.uint8)
    random = np.broadcast_to(random, values.shape).astype(np.uint32)
    with np.errstate(all="ignore"):
        if signed:
            store_momentum(values, gradient, random, scale, codes)
        else:
            store_moment(values, gradient, random, codes)
    return codes


NEVER = words(WORDS - 1)
"""The greatest word, which rounds nothing up."""

TABLES = {False: MOMENT_TABLE, True: MOMENTUM_TABLE[:128]}


@pytest.mark.parametrize("exponent", [-EXPONENT_BOUND, -9, 0, 3, 17])
def test_a_momentum_is_a_tensor_of_lns8f2_whose_log_offset_is_four_exponents(exponent):
    codes = np.arange(256).astype(np.uint8)
    value = decode(codes, lns8f2, log_offset=4 * exponent)
    out = np.empty(256, F32)
    load_momentum(codes, F32(2.0**exponent), out)
    np.testing.assert_array_equal(out[SIGNED], value[SIGNED].astype(F32))
    assert np.isnan(value[128])


def test_a_second_moment_has_sixty_four_octaves_of_four_codes():
    exact = [Fraction(0)] + [Fraction(2) ** ((c - 128) // 4) for c in range(4, 256, 4)]
    assert [Fraction(float(x)) for x in MOMENT_TABLE[::4]] == exact
    assert (MOMENT_TABLE[5:] == 2 * MOMENT_TABLE[1:-4]).all()
    assert MOMENT_TABLE.dtype == MOMENTUM_TABLE.dtype == MANTISSAS.dtype == F32
    np.testing.assert_array_equal(MANTISSAS, MOMENT_TABLE[128:133])


@pytest.mark.parametrize("signed", [False, True])
def test_each_code_is_stored_as_itself_by_all_random_bits(signed):
    """All but the greatest negative share: an exact value is never rounded."""
    table = MOMENTUM_TABLE[SIGNED] if signed else MOMENT_TABLE
    expected = SIGNED if signed else np.arange(256)
    for word in (0, 1, WORDS // 2, WORDS - 1):
        np.testing.assert_array_equal(stored(table, words(word), signed=signed), expected)


@pytest.mark.parametrize("signed", [False, True])
def test_as_many_words_round_up_as_the_value_is_above_the_code_below(signed):
    """Between each two codes: the words below floor(2^24 (x - low) (1 / (high - low))), in float32, and no others."""
    table = TABLES[signed]
    for code in range(0, table.size - 1, 1 if jit else 17):
        low, high = table[code], table[code + 1]
        for part in (0.0, 2.0**-20, 0.25, 0.7, 1 - 2.0**-10):
            x = min(F32(low + F32(part) * F32(high - low)), np.nextafter(high, F32(0)))
            share = F32(F32(x - low) * F32(F32(1) / F32(high - low)))
            threshold = int(float(share) * WORDS)
            near = np.clip(np.array([0, threshold - 1, threshold, threshold + 1, WORDS - 1]), 0, WORDS - 1)
            codes = stored(np.full(5, x), words(*near.tolist()), signed=signed)
            np.testing.assert_array_equal(codes, code + (near < threshold))
            if signed:
                negative = stored(np.full(5, -x), words(*near.tolist()))
                np.testing.assert_array_equal(negative, np.where(codes > 0, codes + 128, 0))


@pytest.mark.skipif(not jit, reason="every one of 2^24 words, by the compiled kernel")
@pytest.mark.parametrize("signed", [False, True])
def test_over_all_words_the_mean_is_the_value(signed):
    """Enumerated, to one word of 2^24: what float32 makes of the share."""
    table = TABLES[signed]
    every = (np.arange(WORDS) << 8).astype(np.uint32)
    x = F32(1.1)
    codes = stored(np.full(WORDS, x), every, signed=signed)
    low = int(codes.min())
    ups = int((codes == low + 1).sum())
    assert ups + int((codes == low).sum()) == WORDS
    span = Fraction(float(table[low + 1])) - Fraction(float(table[low]))
    mean = Fraction(float(table[low])) + span * ups / WORDS
    assert abs(mean - Fraction(float(x))) <= span * Fraction(2, WORDS)


def test_a_momentum_is_rounded_as_encode_rounds_lns8f2_to_the_value():
    """Where the exact share and the float32 one have the same 24 bits, which is checked by how far the word is off."""
    random = np.random.default_rng(0)
    x = (random.standard_normal(500) * 2.0 ** random.integers(-12, 12, 500)).astype(F32)
    low = np.searchsorted(TABLES[True], np.abs(x), side="right") - 1
    table = TABLES[True].astype(np.float64)
    share = (np.abs(x) - table[low]) / (table[low + 1] - table[low])
    word = random.integers(0, WORDS, 500)
    assert (np.abs(word - share * WORDS) > 50).all()
    bits = words(*word.tolist())
    np.testing.assert_array_equal(stored(x, bits), encode(x, lns8f2, rounding="stochastic_value", random_bits=bits))


def test_what_is_above_the_greatest_saturates_and_what_is_below_the_smallest_can_be_zero():
    huge = [3e38, np.inf, float(MOMENTUM_TABLE[127]) * 1.1]
    assert stored(huge, words(0)).tolist() == [127] * 3
    assert stored([-x for x in huge], words(0)).tolist() == [255] * 3
    assert stored(huge[:2], words(0), signed=False).tolist() == [255] * 2
    half = MOMENTUM_TABLE[1] / 2
    assert stored([half, half, -half, -half], np.tile(words(WORDS // 2 - 1, WORDS // 2), 2)).tolist() == [
        1, 0, 129, 0,
    ]  # fmt: skip
    assert stored([0.0, -0.0, 1e-45, -1e-45], NEVER).tolist() == [0] * 4
    assert stored([0.0, -0.0], words(0)).tolist() == [0] * 2


@pytest.mark.parametrize("signed", [False, True])
def test_where_the_gradient_is_not_finite_the_code_stays(signed):
    assert stored([4.0, 4.0], NEVER, finite=[True, False], old=77, signed=signed)[1] == 77


@pytest.mark.parametrize("exponent", [-120, -3, 5])
def test_the_scale_of_a_momentum_is_exact(exponent):
    x = F32(1.3) * F32(2.0**exponent) * np.array([1, -1, 2**-10], F32)
    scaled = stored(x, words(5_000_000), scale=F32(2.0**-exponent))
    np.testing.assert_array_equal(scaled, stored(F32(1.3) * np.array([1, -1, 2**-10], F32), words(5_000_000)))


def test_every_code_is_loaded_as_its_value_times_the_scale():
    codes, out = np.arange(256).astype(np.uint8), np.empty(256, F32)
    load_moment(codes, out)
    np.testing.assert_array_equal(out, MOMENT_TABLE)
    for scale in (1.0, 2.0**-100, 3.0):
        load_momentum(codes, F32(scale), out)
        np.testing.assert_array_equal(out, MOMENTUM_TABLE * F32(scale))


def test_the_inverse_gaps_are_rounded_once():
    gaps = [Fraction(float(high)) - Fraction(float(low)) for low, high in pairwise(MANTISSAS)]
    assert INVERSE_GAPS.tolist() == [float(F32(1) / F32(float(gap))) for gap in gaps]
    for inverse, table in zip(PER_SMALLEST, (MOMENT_TABLE, MOMENTUM_TABLE), strict=True):
        assert inverse == F32(1) / table[1]


def test_first_exponents_are_within_their_bound():
    assert first_exponent(np.array([3.4e38], F32)) == EXPONENT_BOUND
    assert first_exponent(np.array([1e-45], F32)) == -EXPONENT_BOUND
    assert NO_EXPONENT < -EXPONENT_BOUND
