"""Hard cases, decided by integers: the sign of a sum of powers, and the rounding of such a sum.

    x  =  sum_i c_i 2^t_i base^p_i,      c_i, t_i integers, p_i rational

Every correctly rounded operation compares numbers of this kind. The sign is found by intervals at growing precision
(Ziv), and zero by algebra: with base = gamma^g, gamma rational and g as great as possible, base^p and base^q have a
rational quotient exactly if (p - q) g is an integer, and powers whose quotients are irrational are linearly
independent over the rationals (Besicovitch, J. London Math. Soc. 15, 1940). So the sum is zero exactly if each class
of p g modulo 1 sums to zero, and that is a sum of fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.exact import FIRST_PRECISION, Interval
from lnsnum.format import LNSFormat
from lnsnum.kernels.rounding import (
    AWAY_FROM_ZERO,
    DOWN,
    NEAREST,
    STOCHASTIC_LOG,
    STOCHASTIC_VALUE,
    TOWARD_ZERO,
    UP,
    Target,
    pack,
)

RANDOM = 1 << 32
"""Random bits R stand for the fraction R / RANDOM."""


class Term(NamedTuple):
    """coefficient * 2^twos * base^exponent."""

    coefficient: int
    twos: int
    exponent: Fraction


def _integer_root(n: int, q: int) -> int:
    """floor(n^(1/q)) by Newton's iteration from above: from a float root, one part in 2^30 too great."""
    # the top 64 bits give the root to within one part in 2^30; 2^22 / 2^52 more makes it one from above: from there
    # Newton's iteration of a convex function only falls, and ends at the floor
    drop = max(n.bit_length() - 64, 0)
    log = (math.log2(n >> drop) + drop) / q
    whole = math.floor(log)
    x = ((math.floor(math.exp2(log - whole) * (1 << 52)) + (1 << 22) << whole) >> 52) + 1
    while True:
        y = ((q - 1) * x + n // x ** (q - 1)) // q
        if y >= x:
            return x
        x = y


@lru_cache(maxsize=4096)
def power_interval(base: float, exponent: Fraction, precision: int) -> Interval:
    """base^exponent for any rational exponent, `precision` bits of it."""
    # the denominator is 2^k q, q odd: square roots are quick, so that only q is left to `_integer_root`
    k = (exponent.denominator & -exponent.denominator).bit_length() - 1
    q = exponent.denominator >> k
    if q == 1:
        return exact.power(base, exponent.numerator, k, precision)
    whole = math.floor(exponent)
    rest = exponent - whole
    # the root of the fractional part alone: its intervals stay narrow however great the exponent is
    lo, hi, e = exact.power(base, rest.numerator, k, precision + 8)
    # so many bits that the root has `precision` of them, and an exponent that q divides
    widen = max(q * (precision + 2) - lo.bit_length(), 0)
    widen += (e - widen) % q
    root = Interval(_integer_root(lo << widen, q), _integer_root(hi << widen, q) + 1, (e - widen) // q)
    return exact.multiply(root, exact.power(base, whole, 0, precision), precision)


@lru_cache(maxsize=1024)
def primitive(base: float) -> tuple[Fraction, int]:
    """`(gamma, g)` with base = gamma^g, gamma rational, g as great as possible."""
    odd, exponent = exact.split_float(base)
    if odd == 1:
        return Fraction(2), exponent
    root, i = exact.primitive_root(odd)
    g = math.gcd(i, exponent)
    return Fraction(root) ** (i // g) * Fraction(2) ** (exponent // g), g


def _is_zero(base: float, terms: list[Term]) -> bool:
    """Whether the sum is exactly zero; the terms are of like size.

    With gamma = odd * 2^b, a class is sum_i c_i 2^t_i odd^n_i, and zero only if odd^(n_1 - n_0) divides c_0, the
    coefficient of the least n_0: so no power is written out that is longer than a coefficient.
    """
    gamma, g = primitive(base)
    odd, b = _odd_and_twos(gamma)
    classes: dict[Fraction, dict[int, tuple[int, int]]] = {}
    for coefficient, twos, exponent in terms:
        position = exponent * g
        n = math.floor(position)
        powers = classes.setdefault(position - n, {})
        # with gamma a power of two all powers of a class differ by twos alone, and are one number
        key = 0 if odd == 1 else n
        powers[key] = _plus(powers.get(key, (0, 0)), (coefficient, twos + b * n))
    return not any(_class_differs_from_zero(odd, powers) for powers in classes.values())


def _odd_and_twos(x: Fraction) -> tuple[int, int]:
    """`(odd, b)` with x = odd * 2^b."""
    b = (x.numerator & -x.numerator).bit_length() - x.denominator.bit_length()
    return int(x / Fraction(2) ** b), b


def _plus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """The sum of two numbers c 2^t; equal exponents or nearly so, unless one is zero."""
    if not a[0] or not b[0]:
        return a if a[0] else b
    low = min(a[1], b[1])
    return (a[0] << (a[1] - low)) + (b[0] << (b[1] - low)), low


def _class_differs_from_zero(odd: int, powers: dict[int, tuple[int, int]]) -> bool:
    """Whether sum_n powers[n] odd^n, each c 2^t, is anything but zero."""
    carried, before = (0, 0), 0
    for n, number in sorted(powers.items()):
        # carried odd^before, on the way to odd^n: where a division has a remainder, the sum cannot vanish
        for _ in range(n - before if carried[0] else 0):
            quotient, remainder = divmod(carried[0], odd)
            if remainder:
                return True
            carried = quotient, carried[1]
        carried, before = _plus(carried, number), n
    return carried[0] != 0


def _parts(base: float, terms: list[Term], precision: int) -> list[tuple[int, Interval]]:
    """The terms as coefficient * interval."""
    powers = [power_interval(base, p, precision) for _, _, p in terms]
    return [(c, x._replace(exponent=x.exponent + t)) for (c, t, _), x in zip(terms, powers, strict=True)]


def sign_of_sum(base: float, terms: list[Term]) -> int:
    """The sign of the sum of the terms, exactly: -1, 0 or 1."""
    terms = [term for term in terms if term.coefficient]
    signs = {term.coefficient > 0 for term in terms}
    if len(signs) < 2:
        return (1 if signs.pop() else -1) if signs else 0
    precision = FIRST_PRECISION
    while True:
        parts = _parts(base, terms, precision)
        sign = _sign_of_intervals(parts, precision)
        if sign:
            return sign
        # what lies far below the greatest cannot cancel it: only what is near can sum to zero; then the rest decides
        tops = [_top(part) for part in parts]
        is_near = [top >= max(tops) - precision for top in tops]
        if _is_zero(base, [term for term, near in zip(terms, is_near, strict=True) if near]):
            return sign_of_sum(base, [term for term, near in zip(terms, is_near, strict=True) if not near])
        precision *= 2


def _top(part: tuple[int, Interval]) -> int:
    """The exponent of the power of two that the size of the part stays below."""
    coefficient, (_, hi, exponent) = part
    return (abs(coefficient) * hi).bit_length() + exponent


def _sign_of_intervals(parts: list[tuple[int, Interval]], precision: int) -> int:
    """The sign of the sum of coefficient * interval, 0 where the intervals do not tell."""
    # in units of 2^bottom. What lies below is between 0 and 1 of them: exponents can differ by 2^30, shifts must not
    bottom = max(map(_top, parts)) - 4 * precision
    low = high = 0
    for part in parts:
        coefficient, (lo, hi, exponent) = part
        lo, hi, shift = abs(coefficient) * lo, abs(coefficient) * hi, exponent - bottom
        if _top(part) < bottom:
            lo, hi = 0, 1
        elif shift >= 0:
            lo, hi = lo << shift, hi << shift
        else:
            lo, hi = lo >> -shift, -(-hi >> -shift)
        low, high = (low + lo, high + hi) if coefficient > 0 else (low - hi, high - lo)
    return (low > 0) - (high < 0)


def _bracket(above: Callable[[int], int], estimate: int, low: int, high: int) -> tuple[int, int]:
    """Integers from low to high with above(first) >= 0 > above(second), found in growing strides from an estimate."""
    # the estimate is off by a rounding error mostly: one or two comparisons do
    stride = 1
    if above(estimate) >= 0:
        while estimate + stride < high and above(estimate + stride) >= 0:
            estimate, stride = estimate + stride, 2 * stride
        return estimate, min(estimate + stride, high)
    while estimate - stride > low and above(estimate - stride) < 0:
        estimate, stride = estimate - stride, 2 * stride
    return max(estimate - stride, low), estimate


class Value(Protocol):
    """A positive real number that can be compared with powers of a base; hashable, so that it is decided once."""

    def sign(self, twos: int, base: float, weights: list[Term]) -> int:
        """The sign of 2^twos x + the weights, which are powers of `base`."""


class Sum(NamedTuple):
    """The number that is a sum of powers of the base of the format that it is rounded to."""

    terms: tuple[Term, ...]

    def sign(self, twos: int, base: float, weights: list[Term]) -> int:
        """The sign of 2^twos x + the weights."""
        return sign_of_sum(base, [*(Term(c, t + twos, p) for c, t, p in self.terms), *weights])


class Quotient(NamedTuple):
    """A sum of powers of the base of the format that it is rounded to, over an integer."""

    terms: tuple[Term, ...]
    divisor: int

    def sign(self, twos: int, base: float, weights: list[Term]) -> int:
        """The sign of 2^twos x + the weights."""
        return Sum(self.terms).sign(twos, base, [Term(c * self.divisor, t, p) for c, t, p in weights])


class Power(NamedTuple):
    """base^exponent, a power of another base than that of the format that it is rounded to."""

    base: float
    exponent: Fraction

    def sign(self, twos: int, base: float, weights: list[Term]) -> int:
        """The sign of 2^twos x + the weights; with two of them, what 1024 bits cannot tell from zero is zero."""
        weights = [weight for weight in weights if weight.coefficient]
        # equality of two powers is algebra; no precision would ever show it
        if len(weights) == 1 and weights[0].coefficient == -1:
            (_, t, p) = weights[0]
            if exact.equal_powers(self.base, self.exponent, twos - t, base, p):
                return 0
        precision = FIRST_PRECISION
        while precision <= _EQUAL_PRECISION or len(weights) == 1:
            x = power_interval(self.base, self.exponent, precision)
            parts = [(1, x._replace(exponent=x.exponent + twos)), *_parts(base, weights, precision)]
            sign = _sign_of_intervals(parts, precision)
            if sign:
                return sign
            precision *= 2
        return 0


class Root(NamedTuple):
    """The square root of a number."""

    square: Value

    def sign(self, twos: int, base: float, weights: list[Term]) -> int:
        """The sign of 2^twos x + the weights: with -w their sum, that of 4^twos x^2 - w^2 where w is positive."""
        if sign_of_sum(base, weights) >= 0:
            return 1
        products = [Term(-c * other, t + others, p + q) for c, t, p in weights for other, others, q in weights]
        return self.square.sign(2 * twos, base, products)


_EQUAL_PRECISION = 1024


def decide(value: Value, fmt: LNSFormat, to: Target, negative: bool, random: int, estimate: float) -> int:
    """What `lnsnum.kernels.rounding.settle` answers for a positive number: never DOUBT.

    docs/number_format.md, "Encode", decision by decision. `estimate` is near the position of the number.
    """
    steps = 1 << fmt.fraction_bits
    lowest, highest = to.lowest, to.lowest + to.max_magnitude - 1

    def above(log: int | Fraction, halved: bool = False) -> int:
        return value.sign(0, fmt.base, [Term(-1, -halved, Fraction(log) / steps)])

    # below the smallest the value counts, not the axis
    if above(lowest) < 0:
        return _decide_below(value, fmt, to, negative, random, above(lowest, halved=True) >= 0)
    # a step above the greatest every mode overflows; from there on E is found by halving
    if above(highest + 1) >= 0:
        return to.overflow
    log, end = _bracket(above, math.floor(min(max(estimate, lowest), highest)), lowest, highest + 1)
    while end - log > 1:
        middle = (log + end) // 2
        log, end = (middle, end) if above(middle) >= 0 else (log, middle)
    m = log - lowest + 1 + _goes_up(value, fmt, to, negative, random, log, above)
    return m if m <= to.max_magnitude else to.overflow


HardCase = Callable[[int], tuple[Value, bool, int, float]]
"""From the index of an element: its size, whether it is negative, its random bits, near which position."""


def resolve(
    hard: NDArray[np.int64],
    case: HardCase,
    fmt: LNSFormat,
    to: Target,
    out: NDArray[Any],
    offsets: NDArray[np.int64] | None = None,
) -> None:
    """Write the codes of the elements that a kernel left to integers; equal ones are decided once.

    `offsets` move the target, each that of its element.
    """
    decided: dict[tuple[Any, ...], int] = {}
    for i in hard:
        value, negative, random, estimate = case(int(i))
        own = to if offsets is None else to._replace(lowest=to.lowest + int(offsets[i % offsets.size]))
        # a tie or a boundary comes again and again in an array
        key = value, negative, random, own.lowest
        if key not in decided:
            decided[key] = int(pack(decide(value, fmt, own, negative, random, estimate), int(negative), to.sign_bit))
        out[i] = decided[key]


def _goes_up(
    value: Value, fmt: LNSFormat, to: Target, negative: bool, random: int, log: int, above: Callable[..., int]
) -> bool:
    """Whether the number, which is not below `log` and below `log + 1`, is rounded to the latter."""
    if above(log) == 0 or to.mode == TOWARD_ZERO:
        return False
    if to.mode in (UP, DOWN):
        return (to.mode == DOWN) == negative
    if to.mode == NEAREST:
        side = above(log + Fraction(1, 2))
        return side > 0 or (side == 0 and log % 2 == 1)
    if to.mode == STOCHASTIC_LOG:
        return above(log + Fraction(random, RANDOM)) > 0
    # up where R / 2^32 < (x - lo) / (hi - lo), that is 2^32 x - (2^32 - R) lo - R hi > 0: no division
    if to.mode == STOCHASTIC_VALUE:
        steps = 1 << fmt.fraction_bits
        weights = [Term(random - RANDOM, 0, Fraction(log, steps)), Term(-random, 0, Fraction(log + 1, steps))]
        return value.sign(32, fmt.base, weights) > 0
    return True


def _decide_below(value: Value, fmt: LNSFormat, to: Target, negative: bool, random: int, from_half: bool) -> int:
    """0 or 1: what a positive number below the smallest becomes."""
    if to.saturate or to.mode == AWAY_FROM_ZERO:
        return 1
    if to.mode in (NEAREST, STOCHASTIC_LOG):
        return int(from_half)
    if to.mode == STOCHASTIC_VALUE:
        smallest = Term(-random, 0, Fraction(to.lowest, 1 << fmt.fraction_bits))
        return int(value.sign(32, fmt.base, [smallest]) > 0)
    return int(to.mode == (DOWN if negative else UP))
