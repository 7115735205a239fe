"""A real number to the code it rounds to: the tables "Encode" and "Underflow" of docs/number_format.md.

    E = r rounded to an integer,      r = 2^F log_base |x|

The tables ask only on which side of a code, of a midpoint, or of a point between two codes |x| lies. So a number is
given as its `Side`, a function that answers exactly: from a radical in `round_radical`, from a sum in `round_sum`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple, TypedDict, Unpack

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.reference.codes import check, grid, place, term
from lnsnum.reference.radicals import FIRST_PRECISION, Radical, below, compare, log2, mp, radical, times
from lnsnum.reference.sums import Terms, approximate, plus, reduced, sign_of

Side = Callable[[Terms], int]
"""The sign of |x| - sum, exactly, for an x that is to be rounded."""


class Modes(TypedDict, total=False):
    """How an operation rounds, as in `encode`; `random_bits` is R, the fraction R / 2^32."""

    rounding: Rounding
    overflow: Overflow
    underflow: Underflow
    random_bits: int


class How(NamedTuple):
    """The same, and what they are where they are not given."""

    rounding: Rounding = "nearest"
    overflow: Overflow = "saturate"
    underflow: Underflow = "round"
    random_bits: int = 0

    def check(self, fmt: LNSFormat, log_offset: int) -> None:
        """Refuse what is no mode, no random bits or no offset."""
        modes = {"rounding": self.rounding, "overflow": self.overflow, "underflow": self.underflow}
        check(fmt, (), (log_offset,), self.random_bits, **modes)


def _side_of_radical(x: Radical, fmt: LNSFormat) -> Side:
    """Where x lies against one term, or against a point between two neighbours, whose weights sum to 1."""
    base = radical(Fraction(fmt.base))

    def side(terms: Terms) -> int:
        (exponent, weight), *other = sorted(terms.items())
        if other:
            share, step = other[0][1], times({}, base, other[0][0] - exponent)
            return 1 if below(share, step, times(x, base, -exponent)) else -1
        return compare(x, times(radical(weight), base, exponent))

    return side


def _round_up(side: Side, lo: int, negative: bool, fmt: LNSFormat, how: How) -> bool:
    """Whether E is lo + 1, not lo = floor(r): the table "Encode" of the specification."""
    rounding, share = how.rounding, Fraction(how.random_bits, 1 << 32)
    if rounding == "toward_zero" or side(term(fmt, lo)) == 0:
        return False
    if rounding == "nearest":
        half = side(term(fmt, lo + Fraction(1, 2)))
        return half > 0 or (half == 0 and lo % 2 == 1)
    if rounding == "up":
        return not negative
    if rounding == "down":
        return negative
    if rounding == "stochastic_log":
        return side(term(fmt, lo + share)) > 0
    return side(term(fmt, lo, 1 - share) | term(fmt, lo + 1, share)) > 0


def _up_from_zero(side: Side, smallest: int, negative: bool, fmt: LNSFormat, how: How) -> bool:
    """Whether x, which is below the smallest, becomes the smallest, not zero: the table "Underflow"."""
    rounding, random_bits = how.rounding, how.random_bits
    if rounding in ("nearest", "stochastic_log"):
        return side(term(fmt, smallest, Fraction(1, 2))) >= 0
    if rounding == "stochastic_value":
        return random_bits == 0 or side(term(fmt, smallest, Fraction(random_bits, 1 << 32))) > 0
    return rounding == ("down" if negative else "up")


def _round(
    side: Side, estimate: Callable[[], Fraction], negative: bool, fmt: LNSFormat, log_offset: int, how: How
) -> int:
    """The code of the number that `side` and the sign tell of; `estimate` is close to r, and need not be exact."""
    smallest = 1 - fmt.bias + log_offset
    if side(term(fmt, smallest)) < 0:
        if how.underflow == "saturate" or _up_from_zero(side, smallest, negative, fmt, how):
            return 1 | (fmt.sign_bit if negative else 0)
        return 0
    lo = math.floor(estimate())
    while side(term(fmt, lo)) < 0:
        lo -= 1
    while side(term(fmt, lo + 1)) >= 0:
        lo += 1
    log = lo + _round_up(side, lo, negative, fmt, how)
    return place(log, negative, fmt, log_offset, how.overflow)


def round_radical(x: Radical, negative: bool, fmt: LNSFormat, log_offset: int, how: How) -> int:
    """The code of a radical with a sign, rounded once."""

    def estimate() -> Fraction:
        return Fraction(log2(x, 256), log2(grid(fmt, 1), 256))

    side = _side_of_radical(x, fmt)
    return _round(side, estimate, negative, fmt, log_offset, how)


def round_sum(x: Terms | None, fmt: LNSFormat, log_offset: int, **modes: Unpack[Modes]) -> int:
    """The code of a sum, rounded once; None is NaN."""
    how = How(**modes)
    how.check(fmt, log_offset)
    if x is None:
        return fmt.nan_code
    base = Fraction(fmt.base)
    sign = sign_of(x, base)
    if sign == 0:
        return 0
    size = reduced(plus({}, x, sign), base)
    if list(size.values()) == [1]:
        log = next(iter(size)) * (1 << fmt.fraction_bits)
        if log.denominator == 1 and log >= 1 - fmt.bias + log_offset:  # on the grid: no mode moves it
            return place(int(log), sign < 0, fmt, log_offset, how.overflow)

    def side(terms: Terms) -> int:
        return sign_of(plus(size, terms, -1), base)

    def estimate() -> Fraction:
        step = Fraction(log2(grid(fmt, 1), 256), 1 << 256)
        wanted = 16 + math.ceil(1 / step).bit_length()
        precision = max(wanted, FIRST_PRECISION)
        while True:
            total, error = approximate(size, base, precision)
            if total > mp.ldexp(error, wanted):
                break
            precision *= 2
        with mp.workprec(wanted + 32):
            return Fraction(int(mp.floor(mp.ldexp(mp.log(total) / mp.ln2, wanted)))) / (1 << wanted) / step

    return _round(side, estimate, sign < 0, fmt, log_offset, how)
