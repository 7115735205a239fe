"""What is stated of sums, and how a total becomes a code: rounded once, by the mode, with the edges.

    r = 2^F log_base |total|      ->      floor(r), ceil(r), the nearest, zero, the greatest, NaN

A total lies somewhere on the grid of the result (`Place`); `rounded` says which codes it may become. Totals are codes
of an accumulator, whose place is a matter of integers, or floats (`float_places`).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.testing.spans import Ints, Mask, log_step

FloatName = Literal["float32", "float64"]
Order = Literal["sequential", "pairwise", "any"]

_HALF = Fraction(1, 2)

NOWHERE = 1 << 40
"""A rank that no code has."""


class Stated(NamedTuple):
    """What is said of the sums that are tried."""

    fmt: LNSFormat
    accumulator: LNSFormat | FloatName
    order: Order
    rounding: Rounding = "nearest"
    overflow: Overflow = "saturate"
    underflow: Underflow = "round"
    max_ulp: Fraction = _HALF

    @property
    def to_the_bit(self) -> bool:
        """Whether there is one total that is right."""
        return self.order != "any" and self.max_ulp == _HALF

    @property
    def by_chance(self) -> bool:
        """Whether one total can become two codes."""
        return self.rounding in ("stochastic_log", "stochastic_value")


class Allowed(NamedTuple):
    """What may come out of each row: the codes of these ranks, and NaN. `known` is where something is said at all."""

    low: Ints
    high: Ints
    nan: Mask
    known: Mask

    def holds(self, ranks: Ints, is_nan: Mask) -> Mask:
        """Whether what came out is allowed."""
        right: Mask = np.where(is_nan, self.nan, (self.low <= ranks) & (ranks <= self.high))
        return right


class Place(NamedTuple):
    """Where sizes lie on the grid of the result: the code below, whether beyond it, whether nearest goes up, whether
    below the smallest, and there whether below its half."""

    whole: Ints
    beyond: Mask
    up: Mask
    underflows: Mask
    is_small: Mask


def rounded(stated: Stated, place: Place, negative: Mask, zero: Mask, nan: Mask) -> Allowed:
    """The codes of numbers, by the modes; both neighbours where chance decides."""
    fmt, rounding = stated.fmt, stated.rounding
    away = negative if rounding == "down" else ~negative
    none, every = np.zeros_like(zero), np.ones_like(zero)
    up_low, up_high = {
        "nearest": (place.up, place.up),
        "toward_zero": (none, none),
        "up": (away & place.beyond, away & place.beyond),
        "down": (away & place.beyond, away & place.beyond),
    }.get(rounding, (none, place.beyond))
    low, high = place.whole + up_low, place.whole + up_high
    small_low, small_high = {
        "nearest": (~place.is_small, ~place.is_small),
        "stochastic_log": (~place.is_small, ~place.is_small),
        "toward_zero": (none, none),
        "stochastic_value": (none, every),
    }.get(rounding, (away, away))
    if stated.underflow == "saturate":
        small_low, small_high = every, every
    low, high = (
        np.where(place.underflows, np.where(small, -fmt.max_log, -fmt.bias), log)
        for log, small in ((low, small_low), (high, small_high))
    )
    over = high > fmt.max_log
    is_nan = nan | (over & (stated.overflow == "nan") & ~zero)
    m_low, m_high = (np.clip(log, -fmt.bias, fmt.max_log) + fmt.bias for log in (low, high))
    if stated.overflow == "nan":  # no number may come out where both neighbours overflow
        gone = low > fmt.max_log
        m_low, m_high = np.where(gone, NOWHERE, m_low), np.where(gone, -NOWHERE, m_high)
    m_low, m_high = (np.where(zero, 0, m) for m in (m_low, m_high))
    rank_low, rank_high = np.where(negative, -m_high, m_low), np.where(negative, -m_low, m_high)
    rank_low, rank_high = np.where(nan, NOWHERE, rank_low), np.where(nan, -NOWHERE, rank_high)
    return Allowed(rank_low, rank_high, is_nan, np.ones(zero.shape, np.bool_))


def float_places(fmt: LNSFormat, x: NDArray[np.float64]) -> tuple[Place, Mask, Mask, Mask]:
    """Where floats lie on the grid: by double logarithms, and by `lnsnum.reference` where these leave a doubt."""
    nan, zero = np.isnan(x), x == 0
    size = np.where(nan | zero | np.isinf(x), 1.0, np.abs(x))
    octave = math.log(2.0) / log_step(fmt)
    mantissa, exponent = np.frexp(size)
    r = (np.log2(mantissa) + exponent) * octave
    lowest, half = -float(fmt.max_log), -float(fmt.max_log) - octave
    unsure = np.zeros(x.shape, np.bool_)
    for edge in (np.rint(r), np.floor(r) + 0.5, np.full_like(r, half)):
        unsure |= np.abs(r - edge) <= 1e-9 + np.abs(r) * 2.0**-48
    whole = np.floor(r)
    place = Place(whole.astype(np.int64), np.ones(x.shape, np.bool_), np.rint(r) > whole, r < lowest, r < half)
    for i in np.flatnonzero(unsure & ~nan & ~zero):
        for column, right in zip(place, _exact_place(fmt, float(size[i])), strict=True):
            column[i] = right
    infinite = np.isinf(x)
    place = place._replace(
        whole=np.where(infinite, fmt.max_log + 2, place.whole), underflows=place.underflows & ~infinite
    )
    return place, x < 0, zero, nan


@lru_cache(maxsize=1 << 16)
def _exact_place(fmt: LNSFormat, size: float) -> tuple[int, bool, bool, bool, bool]:
    from lnsnum import reference

    def log(mode: Any, to: LNSFormat) -> int:
        code = reference.encode(size, to, rounding=mode, overflow="saturate", underflow="round")
        return code - to.bias

    # one octave and a step of room on either side, where the format has room for a bit more
    wide = LNSFormat(min(fmt.bits + 2, 32), fmt.fraction_bits, base=fmt.base)
    below, above, near = (log(mode, wide) for mode in ("toward_zero", "up", "nearest"))
    underflows = log("toward_zero", fmt) == -fmt.bias
    is_small = underflows and log("nearest", fmt) == -fmt.bias
    return below, above > below, near > below, underflows, is_small
