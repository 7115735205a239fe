"""Sums of powers of one base with rational weights, and their sign.

    w_1 base^q_1 + w_2 base^q_2 + ...,      kept as {q: w}, the *terms*

A sum, a product or a power of numbers of one base is one. Its sign is decided as that of a radical's logarithm is: by
growing precision, once the parts that vanish are taken away. Which parts can vanish is a matter of linear independence
over the rationals: powers whose ratios are all irrational are independent.

Source: Besicovitch, J. London Math. Soc. 15 (1940).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from lnsnum.reference.radicals import FIRST_PRECISION, exp2, log2, mp, radical, times

Terms = dict[Fraction, Fraction]
"""{exponent: weight}: the sum of weight * base^exponent."""


@lru_cache(maxsize=256)
def root_of(base: Fraction) -> tuple[Fraction, int]:
    """(root, k) with base = root^k, root a fraction and k the greatest there is."""

    def integer_root(n: int, k: int) -> int:
        with mp.workprec(n.bit_length() + 16):
            return int(mp.nint(mp.root(n, k)))

    k = max(base.numerator.bit_length(), base.denominator.bit_length())
    while True:
        root = Fraction(integer_root(base.numerator, k), integer_root(base.denominator, k))
        if root**k == base:
            return root, k
        k -= 1


def _vanishes(weights: Sequence[tuple[int, Fraction]], root: Fraction) -> bool:
    """Whether the sum of w root^n is 0, for (n, w) with n falling.

    In the sum that is multiplied by root's denominator, every term but the lowest is a multiple of numerator^(the gap
    to the next): so is the lowest, if the sum is 0. It is then a multiple of the next power, and is added to it. No
    power is ever taken that is greater than the weights.
    """
    unit = math.lcm(*(w.denominator for _, w in weights))
    carry, at = 0, weights[-1][0]
    for n, w in reversed(weights):
        if carry:
            if (n - at) * (root.numerator.bit_length() - 1) > carry.bit_length():
                return False
            carry, rest = divmod(carry, root.numerator ** (n - at))
            if rest:
                return False
        carry, at = carry * root.denominator ** (n - at) + int(w * unit) if carry else int(w * unit), n
    return carry == 0


def reduced(terms: Terms, base: Fraction) -> Terms:
    """The same sum without the parts that vanish: 2^1 - 2 * 2^0, but the 2^-(2^30) beside them stays.

    With base = root^k, base^p / base^q is rational exactly if k (p - q) is an integer. Powers whose ratios are all
    irrational are linearly independent over the rationals (Besicovitch 1940), so a sum vanishes if each class of
    k q modulo 1 does. The greatest terms of a class that vanish by themselves are taken away as long as there are any.
    """
    root, k = root_of(base)
    classes: dict[Fraction, list[tuple[int, Fraction]]] = {}
    for exponent, weight in sorted(terms.items(), reverse=True):
        n = math.floor(exponent * k)
        pending = classes.setdefault(exponent * k - n, [])
        pending.append((n, weight))
        if _vanishes(pending, root):
            pending.clear()
    return {(part + n) / k: weight for part, pending in classes.items() for n, weight in pending}


@lru_cache(maxsize=1 << 16)
def base_power(base: Fraction, exponent: Fraction, precision: int) -> Any:
    """base^exponent as an mpf with a relative error below 2^(2 - precision)."""
    return exp2(log2(times({}, radical(base), exponent), precision), precision)


def approximate(terms: Terms, base: Fraction, precision: int) -> tuple[Any, Any]:
    """The sum as an mpf, and a bound of its error."""
    with mp.workprec(precision + 64):
        parts = [base_power(base, q, precision) * w.numerator / w.denominator for q, w in terms.items()]
        return mp.fsum(parts), mp.ldexp(mp.fsum(map(abs, parts)), 4 - precision)


def sign_of(terms: Terms, base: Fraction) -> int:
    """The sign of the sum, exactly: by growing precision, once the parts that vanish are taken away."""
    terms = {exponent: weight for exponent, weight in terms.items() if weight}
    precision = FIRST_PRECISION
    while terms:
        if all(weight > 0 for weight in terms.values()):
            return 1
        if all(weight < 0 for weight in terms.values()):
            return -1
        if len(terms) == 2 and not sum(terms.values()):
            return 1 if terms[max(terms)] > 0 else -1
        total, error = approximate(terms, base, precision)
        if abs(total) > error:
            return 1 if total > 0 else -1
        if precision == FIRST_PRECISION:
            terms = reduced(terms, base)
        precision *= 2
    return 0


def plus(a: Terms, b: Terms, factor: int = 1) -> Terms:
    """a + factor * b."""
    total = dict(a)
    for exponent, weight in b.items():
        total[exponent] = total.get(exponent, Fraction(0)) + factor * weight
    return {exponent: weight for exponent, weight in total.items() if weight}


def product(a: Terms, b: Terms) -> Terms:
    """a * b."""
    total: Terms = {}
    for p, v in a.items():
        for q, w in b.items():
            total = plus(total, {p + q: v * w})
    return total
