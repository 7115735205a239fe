"""rounding="stochastic_value": which share of the 2^24 random words rounds a step up, against mpmath.

A step by a fraction f of a code multiplies the weight by b^f, or by b^-f; b = base^(2^-F) is the factor of one code. It
is unbiased in the value where the share is (b^f - 1) / (b - 1) to grow, and (1 - b^-f) / (1 - b^-1) to shrink.
"""

import math

import numba
import numpy as np
import pytest
from mpmath import mp, mpf

from lnsnum import LNSFormat, lns4f1, lns8f3, lns8f5, lns16f10
from lnsnum.torch_bridge.kernels.grid import up_coefficients
from lnsnum.torch_bridge.kernels.paper import _round_by_value
from lnsnum.torch_bridge.kernels.update import madam_step

F32 = np.float32
WORDS = 1 << 24

jit = not numba.config.DISABLE_JIT

FORMATS = [lns8f5, lns8f3, lns4f1, lns16f10, LNSFormat(8, 0), LNSFormat(3, 0, base=1000.0), LNSFormat.madam(12, 0.001)]


def bound(fmt) -> int:
    """Words by which the share may differ: for steps of an octave or less, and for larger ones, which have more terms.

    One of them is for the words' being a whole number, the rest for the float32 polynomial.
    """
    return 2 if fmt.codes_per_octave >= 1 else 6


def rounds_up(size, words, fmt, *, shrinks):
    """By how many codes steps of these sizes (float32) move, for these 24-bit words."""
    size = np.broadcast_to(size, words.shape).astype(F32)
    steps = np.empty(words.size, np.int32)
    random = (words << 8 | 0xFF).astype(np.uint32).view(np.int32)
    drive = size if shrinks else -size
    codes = np.ones(words.size, fmt.dtype)
    p, greatest = np.empty(words.size, F32), np.int32(fmt.max_magnitude)
    _round_by_value(codes, drive, F32(0), greatest, up_coefficients(fmt), random, p, steps)
    assert ((steps >= 0) if shrinks else (steps <= 0)).all()
    return np.abs(steps)


def shares(fractions, fmt, *, shrinks):
    """How many of the 2^24 words round each fraction up, by bisection: it is the words below a threshold that do."""
    low, high = np.zeros(fractions.size, np.int64), np.full(fractions.size, WORDS)
    while (low < high).any():
        middle = (low + high) // 2
        up = rounds_up(fractions, np.minimum(middle, WORDS - 1), fmt, shrinks=shrinks) == 1
        low, high = np.where(up & (low < high), middle + 1, low), np.where(up, high, middle)
    return low


def exact_share(fraction, fmt, *, shrinks):
    with mp.workdps(60):
        log_step = mp.log(mpf(fmt.base)) / (1 << fmt.fraction_bits)
        sign = -1 if shrinks else 1
        return mp.expm1(sign * log_step * mpf(fraction)) / mp.expm1(sign * log_step)


def some_fractions():
    """The ends of [0, 1), the powers of two, and a grid between."""
    powers = 2.0 ** -np.arange(1.0, 30.0)
    grid = np.arange(1, 400 if jit else 7) / (400 if jit else 7)
    return np.unique(np.concatenate([powers, 1.0 - powers[:24], grid]).astype(F32))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("shrinks", [False, True])
def test_the_share_of_words_that_round_up_is_unbiased_in_the_value(fmt, shrinks):
    fractions = some_fractions()
    found = shares(fractions, fmt, shrinks=shrinks)
    exact = [exact_share(f, fmt, shrinks=shrinks) * WORDS for f in fractions.tolist()]
    worst = max(abs(mpf(int(n)) - x) for n, x in zip(found, exact, strict=True))
    assert worst <= bound(fmt)
    assert (np.diff(found) >= -bound(fmt)).all()


@pytest.mark.skipif(not jit, reason="every one of 2^24 words, by the compiled kernel")
@pytest.mark.parametrize("shrinks", [False, True])
def test_the_words_that_round_up_are_those_below_the_share(shrinks):
    words = np.arange(WORDS)
    for fraction in (F32(0.3), F32(1.0) - F32(2.0**-24)):
        share = shares(np.array([fraction]), lns8f3, shrinks=shrinks)[0]
        steps = rounds_up(fraction, words, lns8f3, shrinks=shrinks)
        np.testing.assert_array_equal(steps, words < share)
        whole_and_more = rounds_up(F32(3.25), words, lns8f3, shrinks=shrinks)
        quarter = shares(np.array([F32(0.25)]), lns8f3, shrinks=shrinks)[0]
        np.testing.assert_array_equal(whole_and_more, 3 + (words < quarter))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("shrinks", [False, True])
def test_whole_steps_are_never_rounded_up(fmt, shrinks):
    words = np.array([0, 1, WORDS // 2, WORDS - 1])
    for size in (0.0, 1.0, 2.0, 17.0, 2.0**24, 2.0**30):
        assert rounds_up(F32(size), words, fmt, shrinks=shrinks).tolist() == [int(size)] * 4


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_the_value_is_right_on_average_and_the_logarithm_is_not(fmt):
    """The mean of b^(+-steps) over all words is b^(+-f) within `bound` words of one step's change."""
    for shrinks in (False, True):
        factor = float(fmt.base) ** ((-1 if shrinks else 1) / (1 << fmt.fraction_bits))
        for fraction in (0.25, 0.5, 0.75):
            share = shares(np.array([fraction], F32), fmt, shrinks=shrinks)[0] / WORDS
            mean = 1.0 + share * (factor - 1.0)
            assert abs(mean - factor**fraction) <= bound(fmt) / WORDS * abs(factor - 1.0)
            assert (share > fraction) == shrinks


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_coefficients_are_those_of_the_series_to_a_float32_ulp(fmt):
    found = up_coefficients(fmt)
    with mp.workdps(60):
        log_step = mp.log(mpf(fmt.base)) / (1 << fmt.fraction_bits)
        exact = [log_step**k / mp.factorial(k) / mp.expm1(log_step) for k in range(1, found.size + 4)]
    for own, term in zip(found.tolist(), exact, strict=False):
        assert abs(mpf(own) - term) <= term * mpf(2) ** -24 + mpf(2) ** -149
    assert all(term < mpf(2) ** -29 for term in exact[found.size :])
    assert found.dtype == F32


def test_a_step_of_madam_moves_as_many_as_have_such_words():
    """By the public function, whose words are hashed: their share is that of the fraction, within 4 sigma."""
    n, size = 40_000 if jit else 1000, 0.4
    for gradient, shrinks in ((1.0, True), (-1.0, False)):
        codes = np.full(n, 64, np.uint8)
        arguments = {"lr": size * math.log(2) / 8, "step": 1, "beta": 0.0, "rounding": "stochastic_value"}
        arguments["rule"] = "paper"
        counts = madam_step(codes, np.full(n, gradient, F32), np.zeros(n, F32), lns8f3, **arguments)
        share = float(exact_share(size, lns8f3, shrinks=shrinks))
        assert set(codes.tolist()) == {64, 63 if shrinks else 65}
        assert abs(counts.moved / n - share) < 4 * math.sqrt(share * (1 - share) / n)
