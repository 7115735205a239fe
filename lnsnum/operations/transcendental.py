"""Elementary functions of a number, as intervals of any precision: what decides a rounding that doubles leave open.

    sign of  2^t f(x) + sum_i c_i 2^t_i base^p_i,      x = +-base^p

f(x) is transcendental for every algebraic x but 0 (Lindemann and Weierstrass), so that it equals no sum of powers of
the base: intervals of growing precision come apart (Ziv). Where f(x) lies so near to a power of the base that this
would take too long, algebra compares the power first, and the side on which f(x) lies decides what is equal to it.

exp and ln are those of Python's `decimal`, which are correctly rounded at any precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation, Overflow
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from lnsnum.kernels.decide import Term, power_interval, sign_of_sum

Name = Literal["expm1", "log1p", "tanh", "sinh", "cosh"]

_FIRST_DIGITS = 40
_TINY_OCTAVES = 500
"""Below 2^-500 a function that begins with x, or 1 + x^2 / 2, is its beginning times 1 + d, |d| < 2^-499; two numbers
that are compared in a rounding are equal or further apart than that by far."""

_LARGE = 512
"""Beyond 512 tanh is 1 - d, and |expm1| of a negative number too, d < 2^-700."""


_FAR = Decimal(-(10**15))


class Range(NamedTuple):
    """low <= x <= high, with the contexts in which bounds are rounded away from x."""

    low: Decimal
    high: Decimal


@lru_cache(maxsize=64)
def _contexts(digits: int) -> tuple[Context, Context]:
    common = {"prec": digits, "Emax": MAX_EMAX, "Emin": MIN_EMIN, "traps": [InvalidOperation, Overflow]}
    return Context(rounding=ROUND_FLOOR, **common), Context(rounding=ROUND_CEILING, **common)  # type: ignore[arg-type]


def _times_power_of_two(low: int, high: int, twos: int, digits: int) -> Range:
    down, up = _contexts(digits)
    if abs(twos) <= 4096:
        exact = Decimal(1 << abs(twos))
        if twos < 0:
            return Range(down.divide(Decimal(low), exact), up.divide(Decimal(high), exact))
        return Range(down.multiply(Decimal(low), exact), up.multiply(Decimal(high), exact))
    # an integer power is within a unit in the last place
    power = down.power(Decimal(2), twos)
    least, most = down.next_minus(down.next_minus(power)), up.next_plus(up.next_plus(power))
    ends = ((low, least if low >= 0 else most, down), (high, most if high >= 0 else least, up))
    return Range(*(context.multiply(Decimal(end), scale) for end, scale, context in ends))


def _power(base: float, exponent: Fraction, twos: int, coefficient: int, digits: int) -> Range:
    """coefficient 2^twos base^exponent."""
    low, high, e = power_interval(base, exponent, math.ceil(digits * math.log2(10.0)) + 8)
    ends = sorted((coefficient * low, coefficient * high))
    return _times_power_of_two(ends[0], ends[1], e + twos, digits)


def _sum(ranges: list[Range], digits: int) -> Range:
    down, up = _contexts(digits)
    low = high = Decimal(0)
    for one in ranges:
        low, high = down.add(low, one.low), up.add(high, one.high)
    return Range(low, high)


def _exp(x: Range, digits: int) -> Range:
    down, up = _contexts(digits)
    # correctly rounded to nearest: the bound is a neighbour at most
    return Range(down.next_minus(down.exp(x.low)), up.next_plus(up.exp(x.high)))


def _ln(x: Range, digits: int) -> Range:
    down, up = _contexts(digits)
    return Range(down.next_minus(down.ln(x.low)), up.next_plus(up.ln(x.high)))


def _minus(x: Range) -> Range:
    return Range(x.high.copy_negate(), x.low.copy_negate())


_ONE = Range(Decimal(1), Decimal(1))


def _expm1(x: Range, digits: int) -> Range:
    return _sum([_exp(x, digits), _minus(_ONE)], digits)


def _log1p(x: Range, digits: int) -> Range:
    inside = _sum([_ONE, x], digits)
    # so near to -1 that these digits do not show it: more will
    return _ln(inside, digits) if inside.low > 0 else Range(Decimal("-Infinity"), Decimal("Infinity"))


def _tanh(x: Range, digits: int) -> Range:
    down, up = _contexts(digits)
    e = _exp(_sum([x, x], digits), digits)
    # 1 - 2 / (e^2x + 1)
    share = Range(
        down.divide(Decimal(2), up.add(e.high, Decimal(1))), up.divide(Decimal(2), down.add(e.low, Decimal(1)))
    )
    return _sum([_ONE, _minus(share)], digits)


def _half_sum(x: Range, digits: int, sign: int) -> Range:
    down, up = _contexts(digits)
    other = _exp(_minus(x), digits)
    both = _sum([_exp(x, digits), other if sign > 0 else _minus(other)], digits)
    return Range(down.divide(both.low, Decimal(2)), up.divide(both.high, Decimal(2)))


_FUNCTIONS: dict[Name, Callable[[Range, int], Range]] = {
    "expm1": _expm1,
    "log1p": _log1p,
    "tanh": _tanh,
    "sinh": lambda x, digits: _half_sum(x, digits, -1),
    "cosh": lambda x, digits: _half_sum(x, digits, 1),
}

_SIDE: dict[Name, int] = {"expm1": 1, "log1p": -1, "tanh": -1, "sinh": 1, "cosh": 1}
"""On which side of |x| (of 1) the size of f(x) lies where a positive x is tiny."""


@lru_cache(maxsize=4096)
def _size(name: Name, base: float, exponent: Fraction, negative: bool, digits: int) -> Range:
    """|f(x)|."""
    x = _power(base, exponent, 0, -1 if negative else 1, digits)
    value = _FUNCTIONS[name](x, digits)
    # odd, or of the sign of x, or even: what is negative comes from a negative x
    return _minus(value) if negative and name != "cosh" else value


def _octaves(base: float, exponent: Fraction) -> float:
    return float(exponent) * math.log2(base)


def _compare(size: Callable[[int], Range], digits: int, twos: int, base: float, weights: list[Term]) -> int:
    """The sign of 2^twos x + the weights, x in the range `size(digits)`, however many digits that takes."""
    while True:
        down, up = _contexts(digits)
        x, scale = size(digits), _times_power_of_two(1, 1, twos, digits)
        own = Range(
            down.multiply(x.low, scale.low if x.low >= 0 else scale.high),
            up.multiply(x.high, scale.high if x.high >= 0 else scale.low),
        )
        total = _sum([own, *(_power(base, p, t, c, digits) for c, t, p in weights if c)], digits)
        if total.low > 0:
            return 1
        if total.high < 0:
            return -1
        digits *= 2


def _beside(term: Term, side: int, twos: int, base: float, weights: list[Term]) -> int:
    """The sign of 2^twos x + the weights, x the term but for so little that only the side counts."""
    sign = sign_of_sum(base, [term._replace(twos=term.twos + twos), *weights])
    return sign or side


class Elementary(NamedTuple):
    """The size of a function of +-base^exponent, base that of the format it is rounded to."""

    name: Name
    base: float
    exponent: Fraction
    negative: bool

    def sign(self, twos: int, base: float, weights: list[Term]) -> int:
        """The sign of 2^twos x + the weights, never 0."""
        octaves = _octaves(self.base, self.exponent)
        side = _SIDE[self.name] * (-1 if self.negative and self.name in ("expm1", "log1p") else 1)
        if octaves < -_TINY_OCTAVES:
            term = Term(1, 0, Fraction(0) if self.name == "cosh" else self.exponent)
            return _beside(term, side, twos, base, weights)
        if octaves > math.log2(_LARGE) and (self.name == "tanh" or (self.name == "expm1" and self.negative)):
            return _beside(Term(1, 0, Fraction(0)), -1, twos, base, weights)
        # what cancels needs twice the digits of a small x, and those of e^-2x
        lost = 2.0 * abs(min(octaves, 0.0)) * 0.302 + (2.0**octaves if octaves < 10 else 0.0)
        digits = _FIRST_DIGITS + math.ceil(lost)
        name, exponent, negative = self.name, self.exponent, self.negative
        return _compare(lambda n: _size(name, self.base, exponent, negative, n), digits, twos, base, weights)


class LogOfSum(NamedTuple):
    """The size of ln(e^a + e^b), a and b the numbers sign base^exponent."""

    base: float
    a: tuple[int, Fraction]
    """Sign and exponent; sign 0 for zero."""
    b: tuple[int, Fraction]

    def _in_order(self) -> list[tuple[int, Fraction]]:
        """The greater, then the other."""
        return sorted((self.a, self.b), key=lambda x: (x[0], x[0] * x[1]), reverse=True)

    def _value(self, digits: int) -> Range:
        """a + ln(1 + e^(b - a)) for a >= b."""
        down, _ = _contexts(digits)
        zero = Range(Decimal(0), Decimal(0))
        a, b = (_power(self.base, p, 0, sign, digits) if sign else zero for sign, p in self._in_order())
        apart = _sum([b, _minus(a)], digits)
        # b is not the greater, whatever these digits say; and what is further down than any exponent is zero
        apart = Range(apart.low, min(apart.high, Decimal(0)))
        e = _exp(apart._replace(low=max(apart.low, _FAR)), digits)
        e = e if apart.low > _FAR else e._replace(low=Decimal(0))
        if apart.high > -_LARGE:
            rest = _ln(_sum([_ONE, e], digits), digits)
        else:
            # ln(1 + e) lies between e - e^2 and e, and so many digits would be lost on 1 + e
            rest = Range(down.multiply(e.low, down.subtract(Decimal(1), e.high)), e.high)
        return _sum([a, rest], digits)

    def negative(self) -> bool:
        """Whether the logarithm is below zero; it is never zero."""
        digits = _FIRST_DIGITS
        while True:
            low, high = self._value(digits)
            if low > 0 or high < 0:
                return high < 0
            digits *= 2

    def _size(self, digits: int) -> Range:
        value = self._value(digits)
        return value if value.low >= 0 else _minus(value) if value.high <= 0 else Range(Decimal(0), value.high)

    def sign(self, twos: int, base: float, weights: list[Term]) -> int:
        """The sign of 2^twos x + the weights, never 0."""
        sign, exponent = self._in_order()[0]
        if sign:
            octaves = _octaves(self.base, exponent)
            a, b = (s * 2.0 ** min(_octaves(self.base, p), 1000.0) for s, p in self._in_order())
            if octaves + (a - b) / math.log(2.0) > _TINY_OCTAVES:
                return _beside(Term(1, 0, exponent), sign, twos, base, weights)
        return _compare(self._size, _FIRST_DIGITS, twos, base, weights)
