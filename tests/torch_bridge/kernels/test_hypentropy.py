"""The hypentropy rule's kernel against the exact distribution of docs/training.md: every code, and the chance of it.

What a code becomes falls with the 24 bits that decide: below some number of them it is one code, from there on the next
below. Those numbers, found by bisection, over 2^24 are the probabilities with which the kernel chooses: counted, never
sampled. It is held against the page's in float64, which in turn is held against `madam_reference`, in 160 bits.
"""

import math
import re
from fractions import Fraction
from typing import NamedTuple

import madam_reference as reference
import mpmath
import numba
import numpy as np
import pytest

from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, lns16f10
from lnsnum.torch_bridge.kernels import grid, hypentropy
from lnsnum.torch_bridge.kernels.update import Grid, count_codes

F32 = np.float32
WORDS = 1 << 24
INF, NAN = math.inf, math.nan

jit = not numba.config.DISABLE_JIT

FORMATS = [lns8f5, lns8f4, lns6f2, lns4f1, LNSFormat.madam(8, 0.05)]
"""Those whose codes are exhausted."""

OTHERS = [lns8f3, LNSFormat(8, 6), LNSFormat(8, 1), LNSFormat(7, 0), LNSFormat(3, 0), LNSFormat(8, 3, base=math.e)]
"""The finest and coarsest of eight bits, the coarsest step of all, and a base that is greater."""

UNITS = [0.0, 0.3, 5.0, 40.0]


class Cases(NamedTuple):
    """What the kernel is given, element by element; `decay` and `keep` are those of all."""

    codes: np.ndarray
    drive: np.ndarray
    unit: np.ndarray
    decay: np.float32
    keep: bool


class Outcomes(NamedTuple):
    """Codes of each element, and the probability of each of them: (kinds, elements)."""

    codes: np.ndarray
    shares: np.ndarray


# ----------------------------------------------------------------------------------------------------------- the kernel


def run(fmt, cases, words):
    """The codes after a move by these random words, and the counts."""
    codes = cases.codes.copy()
    inverse = grid.inverses(fmt)[codes]
    words = np.broadcast_to(words, codes.shape).astype(np.int64).astype(np.uint32).view(np.int32)
    by, keep = Grid.of(fmt), 1 if cases.keep else None
    unit = np.minimum(cases.unit, F32(hypentropy.GREATEST_UNIT))
    counts = np.zeros(5, int)
    with np.errstate(all="ignore"):  # plain Python's operations are NumPy's, which warn
        hypentropy.move(codes, cases.drive, unit, inverse, cases.decay, words, by, keep)
        for i in range(0, codes.size, 1024):
            counts += count_codes(cases.codes[i : i + 1024], codes[i : i + 1024], by.greatest)
    return codes, tuple(counts.tolist())


def word_of(bits24, rest=0x5A):
    """A word whose u is (bits24 | 1) / 2^24: its upper 24 bits, as a signed number, are 2^23 less."""
    return (np.asarray(bits24, np.int64) - (WORDS >> 1)) % WORDS << 8 | rest


def outcomes(fmt, cases):
    """What each element becomes, and how many of the 2^24 words make it so: two codes, or where the sum that decides
    was rounded to a whole number a third between them."""
    first, last = run(fmt, cases, word_of(0))[0], run(fmt, cases, word_of(WORDS - 1))[0]

    def bits_until(is_before):  # the least at which a condition, true up to somewhere, no longer holds
        low, high = np.full(first.size, -1), np.full(first.size, WORDS)
        for _ in range(25):
            middle = (low + high) // 2
            before = is_before(run(fmt, cases, word_of(np.clip(middle, 0, WORDS - 1)))[0]) & (middle < WORDS)
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        return high

    firsts, lasts = bits_until(lambda code: code == first), bits_until(lambda code: code != last)
    lasts = np.where(first == last, WORDS, lasts)
    between = run(fmt, cases, word_of(np.minimum(firsts, WORDS - 1)))[0]
    check_between(fmt, cases, firsts, lasts, between)
    return Outcomes(np.stack([first, between, last]), np.stack([firsts, lasts - firsts, WORDS - lasts]) / WORDS)


def check_between(fmt, cases, firsts, lasts, between):
    """There is one code between the first and the last at most."""
    some = lasts > firsts
    ends = run(fmt, cases, word_of(np.where(some, lasts - 1, 0)))[0]
    np.testing.assert_array_equal(ends[some], between[some])


def made(fmt, codes, drive, unit, decay=0.0, keep=False):
    """Cases of arrays that broadcast."""
    codes, drive, unit = np.broadcast_arrays(codes, drive, unit)
    return Cases(codes.ravel().astype(fmt.dtype), drive.ravel().astype(F32), unit.ravel().astype(F32), F32(decay), keep)


# ------------------------------------------------------------------------------------------ the page, in float64 arrays


def rungs(fmt):
    """X."""
    return np.concatenate([[0.0], np.float64(fmt.base) ** (np.arange(fmt.max_magnitude) / (1 << fmt.fraction_bits))])


def change_and_target(fmt, cases):
    """h and y of each element, float64."""
    size = rungs(fmt)[cases.codes & fmt.max_magnitude]
    sign = np.where(cases.codes > fmt.max_magnitude, -1.0, 1.0)
    h = cases.drive.astype(np.float64) * np.hypot(size, cases.unit.astype(np.float64))
    return h, sign * size * (1.0 - float(cases.decay)) - h


def exact_outcomes(fmt, cases):
    """The page's distribution."""
    x, top = rungs(fmt), fmt.max_magnitude
    _, y = change_and_target(fmt, cases)
    size, negative = np.abs(y), np.where(y < 0, fmt.sign_bit, 0)
    k = np.minimum(np.searchsorted(x, size, side="right") - 1, top)
    above = np.minimum(k + 1, top)
    with np.errstate(all="ignore"):
        share = np.where(k == top, 0.0, (size - x[k]) / (x[above] - x[k]))
    first, second = np.where(above > 0, above + negative, 0), np.where(k > 0, k + negative, 0)
    if cases.keep:
        small = size < 1
        first, second = np.where(small, 1, first), np.where(small, fmt.sign_bit + 1, second)
        share = np.where(small, (1 + y) / 2, share)
    stays = (cases.codes == fmt.nan_code) | ~np.isfinite(cases.drive) | (cases.keep & (cases.codes == 0))
    own = cases.codes.astype(int)
    first, second, share = np.where(stays, own, first), np.where(stays, own, second), np.where(stays, 1.0, share)
    return Outcomes(np.stack([first, second]), np.stack([share, 1.0 - share]))


def probability(found, code):
    """Of these codes in a distribution."""
    return (found.shares * (found.codes == code)).sum(0)


def reach(fmt, cases):
    """(|h| + decay X[m]) / max(|y|, 1), see `probability_error`; 0 where nothing is finite."""
    h, y = change_and_target(fmt, cases)
    drop = float(cases.decay) * rungs(fmt)[cases.codes & fmt.max_magnitude]
    return np.where(np.isfinite(h), (np.abs(h) + drop) / np.maximum(np.abs(y), 1.0), 0.0)


def bounds(fmt, cases):
    """`probability_error` of each element: it is linear in the reach."""
    none, one = hypentropy.probability_error(fmt, reach=0.0), hypentropy.probability_error(fmt)
    return none + (one - none) * reach(fmt, cases)


def check(fmt, cases):
    """Every outcome's probability is within the bound, and so is the mean."""
    found, exact = outcomes(fmt, cases), exact_outcomes(fmt, cases)
    bound = bounds(fmt, cases)
    worst = 0.0
    for code in (*found.codes, *exact.codes):
        error = np.abs(probability(found, code) - probability(exact, code))
        at = int((error - bound).argmax())
        assert (error <= bound).all(), [cases.codes[at], cases.drive[at], cases.unit[at], error[at], bound[at]]
        worst = max(worst, float((error / bound).max()))
    check_mean(fmt, cases, found, bound)
    return worst


def check_mean(fmt, cases, found, bound):
    """The mean is y, but for the bound times the distance of the rungs around it, wherever y is below the ceiling."""
    x = rungs(fmt)
    values = np.concatenate([x, -x])
    _, y = change_and_target(fmt, cases)
    mean = (found.shares * values[found.codes]).sum(0)
    k = np.minimum(np.searchsorted(x, np.abs(y), side="right") - 1, fmt.max_magnitude - 1)
    gap = np.maximum(x[k + 1] - x[k], 1.0 if cases.keep else 0.0) * (2.0 if cases.keep else 1.0)
    factor = fmt.base ** (0.5**fmt.fraction_bits)
    unbiased = (np.abs(y) < x[-1]) & (cases.codes != fmt.nan_code) & ~(cases.keep & (cases.codes == 0))
    error = np.abs(mean - y)[unbiased]
    assert (error <= (bound * factor * gap)[unbiased]).all()
    assert unbiased.any()


# ----------------------------------------------------------------------------------------------------- what it is given


def all_codes(fmt):
    return np.arange(1 << fmt.bits)


def sizes_of_drives():
    """From 1e-9 to 1e9: tiny, the sizes of steps, and far beyond every range."""
    fine = np.geomspace(1e-4, 30.0, 80 if jit else 4)
    return np.concatenate([[0.0, 1e-9, 1e-8, 1e-7, 3e-7, 1e-6, 1e-5], fine, [1e2, 1e4, 1e9]])


def drives():
    sizes = sizes_of_drives()
    return np.concatenate([sizes, -sizes])


def aimed(fmt, codes, unit, decay):
    """(codes, drives) that lead each code to and beside zero, the floor, some rungs, the ceiling, of either sign."""
    x = rungs(fmt)
    some = x[np.unique(np.geomspace(2, fmt.max_magnitude, 12 if jit else 3).astype(int))]
    near = np.concatenate([[0.0, 1e-7, 1e-4, 0.3, 0.999], 1 + np.array([-1e-6, 0.0, 1e-6, 1e-3]), some, some * 1.004])
    near = np.concatenate([near, x[-1] * np.array([0.999, 1 - 1e-6, 1.0, 1 + 1e-6, 2.0])])
    targets = np.concatenate([near, -near])
    codes, targets = np.repeat(codes, targets.size), np.tile(targets, codes.size)
    size, sign = x[codes & fmt.max_magnitude], np.where(codes > fmt.max_magnitude, -1.0, 1.0)
    slope = np.hypot(size, unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        drive = (sign * size * (1.0 - decay) - targets) / slope
    possible = slope > 0
    return codes[possible], drive[possible]


def grids(fmt, codes, unit, decay, keep):
    """Codes with all drives, and aimed ones."""
    yield made(fmt, codes[:, None], drives()[None], unit, decay, keep)
    yield made(fmt, *aimed(fmt, codes, unit, decay), unit, decay, keep)


# ------------------------------------------------------------------------------------------------------------ the tests


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.03, 0.9])
def test_every_code_is_chosen_with_its_probability(fmt, keep, decay):
    codes = all_codes(fmt)[:: 1 if jit else 29]
    for unit in UNITS:
        for cases in grids(fmt, codes, unit, decay, keep):
            check(fmt, cases)


@pytest.mark.parametrize("fmt", [*OTHERS, lns16f10, LNSFormat(16, 9), LNSFormat(16, 14)], ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_codes_of_other_formats_too(fmt, keep):
    m = np.unique(np.concatenate([[0, 1, 2, 3], np.geomspace(4, fmt.max_magnitude, 40 if jit else 3).astype(int)]))
    m = m[m <= fmt.max_magnitude]
    codes = np.concatenate([m, m + fmt.sign_bit])
    for unit, decay in ((0.3, 0.0), (40.0, 0.01), (1e9, 0.0)):
        for cases in grids(fmt, codes, unit, decay, keep):
            check(fmt, cases)


@pytest.mark.parametrize("fmt", [lns8f5, lns16f10, LNSFormat.madam(8, 0.05)], ids=str)
def test_the_arrays_are_the_reference(fmt):
    """What the kernel is held against, against 160 bits: codes, drives and aims of every kind, to float64's errors."""
    random = np.random.default_rng(1)
    codes = all_codes(fmt)[:: 1 if fmt.bits <= 8 else 611]
    steep = (hypentropy.probability_error(fmt) - hypentropy.probability_error(fmt, 0.0)) / hypentropy.CHANGE_ERROR
    for unit in (0.0, 0.3, 40.0):
        for keep in (False, True):
            for cases in grids(fmt, codes, unit, 0.03, keep):
                exact, allowed = exact_outcomes(fmt, cases), 1e-9 + 2.0**-50 * steep * reach(fmt, cases)
                for i in random.integers(0, cases.codes.size, 40 if jit else 3).tolist():
                    code = int(cases.codes[i])
                    h = reference.change(
                        fmt, code & fmt.max_magnitude, rate=1.0, g_hat=float(cases.drive[i]), unit=float(cases.unit[i])
                    )
                    expected = reference.moved(fmt, code, h=h, decay=float(cases.decay), keep=keep)
                    one = Outcomes(*(part[:, i] for part in exact))
                    assert mpmath.fsum(expected.values()) == 1
                    for other in {*expected, *one.codes.tolist()}:
                        assert abs(expected.get(other, 0) - probability(one, other)) < allowed[i]
                    y = reference.target(fmt, code, h=h, decay=float(cases.decay))
                    if abs(y) <= reference.rung(fmt, fmt.max_magnitude) and code not in (0, fmt.nan_code):
                        assert abs(reference.mean(fmt, expected) - y) < mpmath.mpf(10) ** -30 * (1 + abs(y))


@pytest.mark.parametrize("fmt", [LNSFormat(bits, f) for bits in range(3, 9) for f in range(bits - 1)], ids=str)
def test_the_bound_is_two_to_the_minus_fourteen_in_formats_of_up_to_eight_bits(fmt):
    """Of base 2, where a step leaves a weight at least half of itself; half of that against a change that is off."""
    assert hypentropy.probability_error(fmt) < 2.0**-14
    assert hypentropy.probability_error(fmt, reach=0.0) < 2.0**-15


@pytest.mark.skipif(not jit, reason="every one of 2^24 words, by the compiled kernel")
@pytest.mark.parametrize("code", [0, 1, 77, 200])
@pytest.mark.parametrize("drive", [0.07, -0.4])
def test_what_a_code_becomes_is_one_step_of_the_deciding_bits(code, drive):
    """All of them: what the bisection takes for granted. The nine lower bits of a word never count."""
    words = word_of(np.arange(WORDS), 0)
    for keep in (False, True):
        one = made(lns8f5, code, drive, 0.8, 0.01, keep)
        many = Cases(*(np.repeat(array, WORDS) for array in one[:3]), *one[3:])
        codes, _ = run(lns8f5, many, words)
        assert (codes == run(lns8f5, many, words ^ 0x1FF)[0]).all()
        found = outcomes(lns8f5, one)
        counts = (found.shares[:, 0] * WORDS).astype(int)
        np.testing.assert_array_equal(codes, np.repeat(found.codes[:, 0], counts))


def changed(cases, **other):
    return cases._replace(**other)


@pytest.mark.parametrize("fmt", [*FORMATS, lns8f3], ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_a_mirrored_weight_takes_the_mirrored_step(fmt, keep):
    """Zero is its own mirror, and NaN its own."""
    codes = np.arange(1, fmt.max_magnitude + 1)[:: 1 if jit else 17]
    for unit in UNITS:
        cases = made(fmt, codes[:, None], drives()[None], unit, 0.02, keep)
        for word in (0, 1 << 31, 0xFFFFFFFF):
            own, counts = run(fmt, cases, word)
            mirrored = changed(cases, codes=cases.codes + fmt.dtype.type(fmt.sign_bit), drive=-cases.drive)
            other, same = run(fmt, mirrored, word)
            np.testing.assert_array_equal(other, np.where(own > 0, own ^ fmt.dtype.type(fmt.sign_bit), own))
            assert same == counts


@pytest.mark.parametrize("fmt", [*FORMATS, lns16f10], ids=str)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0**30])
def test_nan_stays_and_a_drive_of_nan_moves_nothing(fmt, keep, decay):
    """Not the weight decay either."""
    codes = all_codes(fmt)[:: 1 if jit else 31]
    for word in (0, 0xFFFFFFFF):
        cases = made(fmt, codes, NAN, 3.0, decay, keep)
        after, counts = run(fmt, cases, word)
        np.testing.assert_array_equal(after, cases.codes)
        assert (counts[0], counts[4]) == (0, 0)
        after, counts = run(fmt, made(fmt, fmt.nan_code, drives(), 3.0, decay, keep), word)
        assert (after == fmt.nan_code).all()
        assert counts == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_step_of_nothing_moves_nothing(fmt):
    """h = 0 and no decay: every code, every unit, whatever the words."""
    for unit in (*UNITS, 1e30, 3e38, INF):
        for drive in (0.0, -0.0):
            for keep in (False, True):
                cases = made(fmt, all_codes(fmt), drive, unit, 0.0, keep)
                for word in (0, 0x80000000, 0xFFFFFFFF):
                    after, counts = run(fmt, cases, word)
                    np.testing.assert_array_equal(after, cases.codes)
                    assert (counts[0], counts[4]) == (0, 0)


@pytest.mark.parametrize("fmt", [*FORMATS, lns8f3], ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_zero_never_becomes_the_nan_code_and_keep_makes_no_zeros(fmt, keep):
    for unit in UNITS:
        for decay in (0.0, 1.0, 1.5):
            cases = made(fmt, all_codes(fmt)[:, None], drives()[None], unit, decay, keep)
            for word in (0, 12345 << 8, 0xFFFFFFFF):
                after, _ = run(fmt, cases, word)
                np.testing.assert_array_equal(after == fmt.nan_code, cases.codes == fmt.nan_code)
                if keep:
                    np.testing.assert_array_equal(after == 0, cases.codes == 0)


@pytest.mark.parametrize("fmt", [*FORMATS, lns16f10], ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_counts(fmt, keep):
    """Of one element at a time they are what its codes say, of all their sum."""
    codes = all_codes(fmt)[:: 5 if fmt.bits <= 8 else 997]
    cases = made(fmt, codes[:, None], np.array([0.0, 1e-3, 0.3, -2.0, 40.0, NAN])[None], 0.7, 0.01, keep)
    after, counts = run(fmt, cases, 0x12345678)
    m, old = after & fmt.max_magnitude, cases.codes & fmt.max_magnitude
    crossed = (m > 0) & (old > 0) & ((after > fmt.max_magnitude) != (cases.codes > fmt.max_magnitude))
    expected = [after != cases.codes, m == fmt.max_magnitude, m == 1, after == 0, crossed]
    assert counts == tuple(int(which.sum()) for which in expected)
    for i in range(0, after.size, 7):
        one = Cases(*(array[i : i + 1] for array in cases[:3]), *cases[3:])
        assert run(fmt, one, 0x12345678)[1] == tuple(int(which[i]) for which in expected)


def test_what_a_gradient_does_to_zero_is_in_no_way_special():
    """A zero of a tensor with the unit 8 goes against its gradient as far as any small weight: 0.5 x 8 floors."""
    codes = np.zeros(2, np.uint8)
    after, counts = run(lns8f3, made(lns8f3, codes, np.array([0.5, -0.5]), 8.0), 0)
    assert after.tolist() == [128 + 17, 17]
    assert counts == (2, 0, 0, 0, 0)


# -------------------------------------------------------------------------------------------- what the bound is made of


def log2_of(z):
    """log2(1 + z) in float32, in the kernel's order, for a K of one."""
    s = z / (z + F32(2))
    ss = s * s
    return (grid.LOG[0] + ss * (grid.LOG[1] + grid.LOG[2] * ss)) * s


def log2_error(z):
    """Its relative error; log1p is good to an ulp of float64 through zero."""
    exact = np.log1p(z.astype(np.float64)) / math.log(2.0)
    return np.abs(log2_of(z).astype(np.float64) / exact - 1.0)


LOWEST = np.int32(hypentropy.SQRT_HALF)


def test_the_logarithm_is_within_its_bound_for_every_rounded_t():
    """All 2^23 numbers from 1/sqrt(2) to sqrt(2), for what is left of t beside a power of two."""
    assert np.array([LOWEST]).view(F32)[0] == F32(math.sqrt(0.5))
    z = np.arange(LOWEST, LOWEST + (1 << 23), 1 if jit else 997, dtype=np.int32).view(F32) - F32(1.0)
    worst = log2_error(z[z != 0]).max()
    assert hypentropy.LOG2_ERROR * 0.9 < worst <= hypentropy.LOG2_ERROR or not jit
    assert worst <= hypentropy.LOG2_ERROR


@pytest.mark.parametrize("sign", [1, -1])
def test_the_logarithm_is_within_its_bound_for_small_steps(sign):
    """d itself, from 2^-60 on: a fine grid of each octave, and from 1/8 on, where most of the error is, a finer one."""
    for octave in range(-60, -1):
        spacing = (5 if octave >= -3 else 4099) if jit else 99991
        first = np.int32((127 + octave) << 23)
        z = F32(sign) * np.arange(first, first + (1 << 23), spacing, dtype=np.int32).view(F32)
        z = z[(z >= F32(math.sqrt(0.5)) - F32(1)) & (z <= F32(math.sqrt(2.0)) - F32(1) + F32(2.0**-23))]
        if z.size:
            assert log2_error(z).max() <= hypentropy.LOG2_ERROR


def bent(fmt, v):
    """W in float32, in the kernel's order."""
    few, more = grid.bend_coefficients(fmt)
    w = few[0] + v * (few[1] + v * (few[2] + few[3] * v))
    if more is not None:
        vv = v * v
        pairs = (more[0] + more[1] * v) + (more[2] + more[3] * v) * vv
        w = w + (pairs + more[4] * (vv * vv)) * (vv * vv)
    return w


@pytest.mark.parametrize("fmt", [*FORMATS, *OTHERS, lns16f10, LNSFormat(16, 14), LNSFormat(16, 9)], ids=str)
def test_the_bent_random_number_is_within_its_bound(fmt):
    """W at all 2^23 values of u: within three roundings and what is cut of 1 - log_b(1 + u (b - 1)); and from 0 to 1,
    so that no step of 0 is one."""
    v = (np.arange(-(WORDS // 2) + 1, WORDS // 2, 2 if jit else 9998).astype(np.float64) / WORDS).astype(F32)
    log_step = math.log(fmt.base) / (1 << fmt.fraction_bits)
    exact = 1.0 - np.log1p((v.astype(np.float64) + 0.5) * math.expm1(log_step)) / log_step
    found = bent(fmt, v)
    assert found.dtype == F32
    assert np.abs(found - exact).max() <= 3 * 2.0**-24 + grid.bend_error(fmt)
    assert found.min() >= 0
    assert found.max() < 1


@pytest.mark.parametrize("fmt", [*FORMATS, *OTHERS, lns16f10], ids=str)
def test_the_change_is_within_its_bound(fmt):
    """A code whose h the kernel has as `drive c` in float32, against 2^-53: units from 2^-60 to 2^63 X."""
    m = np.arange(fmt.max_magnitude + 1)[:: 1 if fmt.bits <= 8 else 97]
    unit = np.concatenate([[0.0], np.geomspace(2.0**-60, 2.0**62, 500)]).astype(F32)
    m, unit = (array.ravel() for array in np.broadcast_arrays(m[:, None], unit[None]))
    one = (m > 0).astype(F32)
    ratio = unit * grid.inverses(fmt)[m]
    c = np.sqrt(one + ratio * ratio)
    x = np.maximum(rungs(fmt)[m], 1.0)
    exact = np.hypot(one, unit / x)
    some = exact > 0
    assert np.abs(c.astype(np.float64)[some] / exact[some] - 1.0).max() <= hypentropy.CHANGE_ERROR - 2 * 2.0**-24
    assert (ratio <= hypentropy.GREATEST_UNIT).all()


# ---------------------------------------------------------------------------------------------------------- the formats


@pytest.mark.parametrize(
    "fmt", [LNSFormat(8, 0, base=2.1), LNSFormat(3, 0, base=3.0), LNSFormat(8, 0), LNSFormat(16, 8), LNSFormat(12, 4)]
)
def test_formats_that_the_kernel_cannot_do_are_refused(fmt):
    message = r" has code steps of .* octaves and spans .*: rule='hypentropy' takes .*; or take rule='paper'$"
    with pytest.raises(ValueError, match="^" + re.escape(str(fmt)) + message):
        hypentropy.check_format(fmt)


@pytest.mark.parametrize("fmt", [*FORMATS, *OTHERS, LNSFormat(16, 9), LNSFormat(12, 5), LNSFormat(3, 0)], ids=str)
def test_formats_of_the_rule_are_those_whose_numbers_float32_can_square(fmt):
    hypentropy.check_format(fmt)
    assert Fraction(fmt.base) ** (fmt.max_magnitude - 1) < Fraction(2) ** (64 << fmt.fraction_bits)
    assert np.isfinite(F32(hypentropy.GREATEST_UNIT) ** 2)
