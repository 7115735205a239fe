"""Madam's default rule on codes, one number at a time: a second implementation, written from docs/training.md alone.

What is rational is a Fraction or an integer, what is not an mpmath number of PRECISION bits. It returns distributions,
{code: probability}, and draws nothing; the random words are a function of their own. Nothing of lnsnum is called but
the format's own numbers.
"""

from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from typing import Any

import mpmath

from lnsnum import LNSFormat

PRECISION = 160
"""Bits: sixteen-bit formats span 2^32, and probabilities are wanted to far more than the 2^-24 that words can tell."""

Distribution = dict[int, Any]

MASK = 0xFFFFFFFF


# ---------------------------------------------------------------------------------------------------------- the codes


def rung(fmt: LNSFormat, m: int) -> Any:
    """X[m] in units of the floor: 0 for m = 0, else base^((m - 1) / 2^F)."""
    with mpmath.workprec(PRECISION):
        if m == 0:
            return mpmath.mpf(0)
        return mpmath.power(mpmath.mpf(fmt.base), mpmath.mpf(m - 1) / (1 << fmt.fraction_bits))


def rung_below(fmt: LNSFormat, size: Any) -> int:
    """The k with X[k] <= size < X[k + 1], m_max where X[m_max] <= size; size >= 1. By bisection."""
    low, high = 1, fmt.max_magnitude + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rung(fmt, middle) <= size else (low, middle)
    return low


def code_at(fmt: LNSFormat, sign: int, m: int) -> int:
    """The code of a sign and a magnitude; zero has no sign."""
    return 0 if m == 0 else m + (fmt.sign_bit if sign < 0 else 0)


def change(fmt: LNSFormat, m: int, *, rate: float, g_hat: float, unit: float) -> Any:
    """h = lr kappa g_hat sqrt(X[m]^2 + (crossover r / floor)^2): `rate` is lr kappa, `unit` crossover r / floor."""
    with mpmath.workprec(PRECISION):
        return mpmath.mpf(rate) * mpmath.mpf(g_hat) * mpmath.sqrt(rung(fmt, m) ** 2 + mpmath.mpf(unit) ** 2)


def rounded(fmt: LNSFormat, y: Any, *, keep: bool = False) -> Distribution:
    """The codes that a real number, in units of the floor, becomes, and how often. `keep` is for what was no zero."""
    with mpmath.workprec(PRECISION):
        y = mpmath.mpf(y)
        sign, size = (-1 if y < 0 else 1), abs(y)
        if size < 1:
            if keep:
                return {code_at(fmt, 1, 1): (1 + y) / 2, code_at(fmt, -1, 1): (1 - y) / 2}
            return {code_at(fmt, sign, 1): size, 0: 1 - size}
        k = rung_below(fmt, size)
        if k == fmt.max_magnitude:
            return {code_at(fmt, sign, k): mpmath.mpf(1)}
        share = (size - rung(fmt, k)) / (rung(fmt, k + 1) - rung(fmt, k))
        return {code_at(fmt, sign, k): 1 - share, code_at(fmt, sign, k + 1): share}


def target(fmt: LNSFormat, code: int, *, h: Any, decay: float = 0.0) -> Any:
    """y = s X[m] (1 - decay) - h, `decay` being lr weight_decay."""
    with mpmath.workprec(PRECISION):
        sign = -1 if code & fmt.sign_bit else 1
        return sign * rung(fmt, code & fmt.max_magnitude) * (1 - mpmath.mpf(decay)) - mpmath.mpf(h)


def moved(fmt: LNSFormat, code: int, *, h: Any, decay: float = 0.0, keep: bool = False) -> Distribution:
    """Where a step takes a code. An h of None is a gradient that is not finite."""
    if h is None or code == fmt.nan_code or (keep and code == 0):
        return {code: mpmath.mpf(1)}
    return rounded(fmt, target(fmt, code, h=h, decay=decay), keep=keep)


def value(fmt: LNSFormat, code: int) -> Any:
    """A code's number in units of the floor, with its sign."""
    with mpmath.workprec(PRECISION):
        return (-1 if code & fmt.sign_bit else 1) * rung(fmt, code & fmt.max_magnitude)


def mean(fmt: LNSFormat, distribution: Distribution) -> Any:
    """The average number, in units of the floor."""
    with mpmath.workprec(PRECISION):
        return mpmath.fsum(probability * value(fmt, code) for code, probability in distribution.items())


# -------------------------------------------------------------------------------------------------------- the ceiling


def growth(fmt: LNSFormat) -> int:
    """G, the least whole number of code steps that doubles: 2^(2^F) <= base^G, in integers."""
    base, steps = Fraction(fmt.base), 1
    while base**steps < 2 ** (1 << fmt.fraction_bits):
        steps += 1
    return steps


def grown(fmt: LNSFormat, code: int, *, keep: bool = False) -> Distribution:
    """The codes that a code becomes where its scale grows by G."""
    m, steps = code & fmt.max_magnitude, growth(fmt)
    if m == 0:
        return {code: mpmath.mpf(1)}
    if m > steps:
        return {code - steps: mpmath.mpf(1)}
    with mpmath.workprec(PRECISION):
        c = mpmath.power(mpmath.mpf(fmt.base), mpmath.mpf(steps) / (1 << fmt.fraction_bits))
        return rounded(fmt, value(fmt, code) / c, keep=keep)


def grows(fmt: LNSFormat, codes: Iterable[int]) -> bool:
    """Whether a scale of these codes grows, NaN among them counted as an element and as no size."""
    sizes = [code & fmt.max_magnitude for code in codes]
    at_ceiling = sum(m == fmt.max_magnitude for m in sizes)
    if at_ceiling < 2 or 50 * at_ceiling <= len(sizes):
        return False
    with mpmath.workprec(PRECISION):
        c = mpmath.power(mpmath.mpf(fmt.base), mpmath.mpf(growth(fmt)) / (1 << fmt.fraction_bits))
        return bool(mpmath.fsum(rung(fmt, m) ** 2 for m in sizes) >= len(sizes) * (2 * c) ** 2)


# -------------------------------------------------------------------------------------------------------- the moments


@cache
def moment_value(code: int, exponent: int = 0) -> Fraction:
    """2^(e - 32) (1 + j / 4) 4^exponent for the code 4 e + j, 0 for code 0."""
    e, j = divmod(code, 4)
    return Fraction(2) ** (e - 32 + 2 * exponent) * (1 + Fraction(j, 4)) if code else Fraction(0)


@cache
def momentum_value(code: int, exponent: int = 0) -> Fraction:
    """The sign in bit 7, and 2^(e - 16) (1 + j / 4) 2^exponent for the 7 bits 4 e + j below it, 0 for none of them."""
    e, j = divmod(code & 127, 4)
    size = Fraction(2) ** (e - 16 + exponent) * (1 + Fraction(j, 4)) if code & 127 else Fraction(0)
    return -size if code & 128 else size


def _between(size: Fraction, values: list[Fraction]) -> Distribution:
    """A nonnegative number between an increasing list's neighbours, right on average; its last at most."""
    low = max(place for place, value in enumerate(values) if value <= size)
    if low == len(values) - 1:
        return {low: Fraction(1)}
    share = (size - values[low]) / (values[low + 1] - values[low])
    return {low: 1 - share, low + 1: share}


def moment_codes(v: Fraction, exponent: int = 0) -> Distribution:
    """The codes that a second moment v becomes."""
    return _between(v, [moment_value(code, exponent) for code in range(256)])


def momentum_codes(u: Fraction, exponent: int = 0) -> Distribution:
    """The codes that a momentum u becomes; zero has no sign."""
    sizes = _between(abs(u), [momentum_value(code, exponent) for code in range(128)])
    return {(code | 128 if u < 0 and code else code): probability for code, probability in sizes.items()}


def exponent_of(greatest: Fraction) -> int:
    """The exponent that puts the greatest |g| / 2^exponent into [2^7, 2^8)."""
    exponent = 0
    while greatest / Fraction(2) ** exponent >= 2**8:
        exponent += 1
    while greatest / Fraction(2) ** exponent < 2**7:
        exponent -= 1
    return exponent


def raised_exponent(exponent: int, greatest: Fraction) -> int:
    """The exponent after a step whose greatest |g| is this."""
    return exponent_of(greatest) if greatest / Fraction(2) ** exponent >= 2**12 else exponent


def raised_moment(code: int, by: int) -> int:
    """The second moment's code where the exponent is raised: the same value, or the smallest above zero."""
    if code == 0:
        return 0
    same = [other for other in range(1, 256) if moment_value(other, by) == moment_value(code)]
    return same[0] if same else 1


def raised_momentum(code: int, by: int) -> int:
    """The momentum's code where the exponent is raised: the same value, or zero."""
    same = [other for other in range(256) if other != 128 and momentum_value(other, by) == momentum_value(code)]
    return same[0] if same else 0


# --------------------------------------------------------------------------------------------------- the random words


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox 4x32 of ten rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def keys(*, seed: int, stream: int, step: int) -> tuple[int, int, int, int]:
    """The block of Philox at 2^59: two keys for the words of a step, two for those of a scale that grows."""
    return philox((0, 1 << 27, step, stream), (seed & MASK, seed >> 32))


def word(index: int, key0: int, key1: int) -> int:
    """The random word of an element."""
    high, low = divmod(index, 1 << 32)
    x = low * 0x9E3779B9 + high * 0xBB67AE85 + key0 & MASK
    x ^= x >> 16
    x = (x * 0x7FEB352D & MASK) ^ key1
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


def bits24(random_word: int) -> int:
    """The 24 bits that decide: u is this over 2^24."""
    return random_word >> 8


FACTORS = {"code": 1, "moment": 0x9E3779B1, "momentum": 0x85EBCA77}
"""What the word is multiplied by, modulo 2^32, for each of its uses."""


def use(random_word: int, which: str) -> int:
    """The word of one use."""
    return random_word * FACTORS[which] & MASK
