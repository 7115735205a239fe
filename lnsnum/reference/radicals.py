"""A product of integers to rational powers, kept exactly: {integer: exponent}, a *radical*.

Every number that the specification compares is one,

    base^(n / 2^F) = numerator^(n / 2^F) * denominator^(-n / 2^F),      x = numerator^1 * denominator^-1,

and so is every quotient of two of them. Every decision is the sign of its logarithm: by mpmath at growing precision
until it is clear, and where it stays unclear by algebra. The product is 1 exactly if, once its integers are made
pairwise coprime, every exponent is 0.

Source of the independence that `below` rests on: Besicovitch, J. London Math. Soc. 15 (1940).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from typing import Any

import mpmath

Radical = dict[int, Fraction]

FIRST_PRECISION = 128

mp: Any = mpmath.MPContext()  # our own: mpmath.mp keeps the precision that its user gave it


def radical(x: Fraction | int) -> Radical:
    """A positive rational number; its twos are one factor, whose logarithm is exact."""
    result: Radical = {}
    for integer, exponent in ((x.numerator, 1), (x.denominator, -1)):
        twos = (integer & -integer).bit_length() - 1
        result = times(result, {2: Fraction(twos), integer >> twos: Fraction(1)}, exponent)
    return result


def times(a: Radical, b: Radical, power: Fraction | int = 1) -> Radical:
    """a * b^power."""
    product = dict(a)
    for integer, exponent in b.items():
        product[integer] = product.get(integer, Fraction(0)) + exponent * power
    return {integer: exponent for integer, exponent in product.items() if exponent and integer > 1}


@lru_cache(maxsize=1 << 16)
def _log2_integer(integer: int, precision: int) -> int:
    """2^precision log2(integer), to within 1."""
    if integer == 2:
        return 1 << precision
    with mp.workprec(precision + integer.bit_length().bit_length() + 16):
        return int(mp.floor(mp.ldexp(mp.log(integer) / mp.ln2, precision)))


def log2(x: Radical, precision: int) -> int:
    """2^precision times the logarithm of x to base 2, to within 2."""
    guard = math.ceil(sum(map(abs, x.values()))).bit_length()
    return math.floor(sum(e * _log2_integer(i, precision + guard) for i, e in x.items()) / (1 << guard))


def _is_one(x: Radical) -> bool:
    """Whether x = 1, exactly: a^p b^q = (a/g)^p (b/g)^q g^(p+q) until no two integers share a divisor g."""
    while True:
        pair = next(((a, b) for a, b in combinations(x, 2) if math.gcd(a, b) > 1), None)
        if pair is None:
            return not x
        (a, b), g = pair, math.gcd(*pair)
        p, q = x[a], x[b]
        x = {integer: exponent for integer, exponent in x.items() if integer not in pair}
        for integer, exponent in ((a // g, p), (b // g, q), (g, p + q)):
            x = times(x, {integer: exponent})


def compare(a: Radical, b: Radical) -> int:
    """The sign of a - b, exactly."""
    quotient = times(a, b, -1)
    precision = FIRST_PRECISION
    while True:
        log = log2(quotient, precision)
        if abs(log) > 2:
            return 1 if log > 0 else -1
        if precision == FIRST_PRECISION and _is_one(quotient):
            return 0
        precision *= 2


def exp2(log: int, precision: int) -> Any:
    """2^(log / 2^precision) as an mpf with a relative error below 2^(2 - precision), that of `log2` included."""
    with mp.workprec(precision + 32):
        fraction = mp.mpf(log & ((1 << precision) - 1))
        return mp.ldexp(mp.power(2, mp.ldexp(fraction, -precision)), log >> precision)


def floor(x: Radical, at: Callable[[int], Radical], estimate: int) -> int:
    """The greatest n with at(n) <= x, for an `at` that grows, from an estimate."""
    n = estimate
    while compare(x, at(n)) < 0:
        n -= 1
    while compare(x, at(n + 1)) >= 0:
        n += 1
    return n


def _rational(root: Radical) -> Fraction | None:
    """base^(1 / 2^F) as a fraction, or None where it is irrational: the integers are coprime, each is judged alone."""
    result = Fraction(1)
    for integer, exponent in root.items():
        while exponent.denominator > 1:
            square, integer, exponent = integer, math.isqrt(integer), exponent * 2
            if integer * integer != square:
                return None
        result *= Fraction(integer) ** exponent.numerator
    return result


def below(share: Fraction, step: Radical, y: Radical) -> bool:
    """Whether 1 + share * (step - 1) < y, for 0 < share < 1.

    With a rational step the left side is a radical too. With an irrational one the two are never equal: radicals whose
    ratios are irrational are linearly independent over the rationals (Besicovitch 1940), and of 1, the step and y at
    least one has an irrational ratio to both others.
    """
    rational = _rational(step)
    if rational is not None:
        return compare(radical(1 + share * (rational - 1)), y) < 0
    precision = FIRST_PRECISION
    while True:
        with mp.workprec(precision + 64):
            hi, value = exp2(log2(step, precision), precision), exp2(log2(y, precision), precision)
            left = 1 + mp.mpf(share.numerator) / share.denominator * (hi - 1)
            if abs(value - left) > mp.ldexp(value + hi, 3 - precision):
                return bool(left < value)
        precision *= 2
