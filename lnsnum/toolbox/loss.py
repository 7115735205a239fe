"""What became of numbers that were stored otherwise: their signal-to-quantization-noise ratio and the worst of them.

    SQNR  =  10 log10( sum x^2 / sum (x - x')^2 )  dB

over the elements whose numbers before (x) and after (x') are finite; all in doubles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decibels import decibels

__all__ = ["Loss", "loss_between"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """How far numbers are from what they were.

    Args:
        elements: how many numbers were compared.
        finite: how many of them are finite before and after (and their difference); sums and errors are over these.
        changed: how many are not what they were; NaN and NaN are the same.
        signal: the sum of x^2, in units of 4^exponent.
        noise: the sum of (x - x')^2, in the same units.
        greatest_relative: the greatest |x - x'| / |x| where x and x' are nonzero: what became zero has its own count.
        greatest_absolute: the greatest |x - x'|.
        zeroed: nonzero numbers that became zero.
        unzeroed: zeros that became nonzero numbers.
        to_nan: numbers, infinite ones too, that became NaN.
        from_nan: NaNs that became numbers.
        exponent: 0, but where squares would leave the range of doubles.
    """

    elements: int = 0
    finite: int = 0
    changed: int = 0
    signal: float = 0.0
    noise: float = 0.0
    greatest_relative: float = 0.0
    greatest_absolute: float = 0.0
    zeroed: int = 0
    unzeroed: int = 0
    to_nan: int = 0
    from_nan: int = 0
    exponent: int = 0

    @property
    def sqnr_db(self) -> float:
        """The ratio in decibels: inf without noise, NaN where noise is beyond doubles."""
        return decibels(self.signal, self.noise)

    def __add__(self, other: Loss) -> Loss:
        """Of both together."""
        unit = max((loss.exponent for loss in (self, other) if loss.signal or loss.noise), default=0)
        return Loss(
            self.elements + other.elements,
            self.finite + other.finite,
            self.changed + other.changed,
            sum(math.ldexp(loss.signal, 2 * (loss.exponent - unit)) for loss in (self, other)),
            sum(math.ldexp(loss.noise, 2 * (loss.exponent - unit)) for loss in (self, other)),
            max(self.greatest_relative, other.greatest_relative),
            max(self.greatest_absolute, other.greatest_absolute),
            self.zeroed + other.zeroed,
            self.unzeroed + other.unzeroed,
            self.to_nan + other.to_nan,
            self.from_nan + other.from_nan,
            unit,
        )


def loss_between(before: Floats, after: Floats) -> Loss:
    """The loss of a block, two float64 arrays of one dimension and one size. Those of all blocks are added."""
    assert before.shape == after.shape
    assert before.dtype == after.dtype == np.float64
    sums, counts = np.zeros(4), np.zeros(6, np.int64)
    _compare(before, after, sums, counts)
    signal, noise, relative, absolute = sums.tolist()
    finite, changed, zeroed, unzeroed, to_nan, from_nan = counts.tolist()
    exponent = 0
    if not _SMALL < signal < math.inf or (absolute and not _SMALL < noise < math.inf):
        exponent, signal, noise = _sums_in_range(before, after)
    return Loss(
        before.size, finite, changed, signal, noise, relative, absolute, zeroed, unzeroed, to_nan, from_nan, exponent
    )  # fmt: skip


_SMALL = 2.0**-900
"""Sums of squares below may have lost squares that are no doubles, or not whole ones."""


def _sums_in_range(before: Floats, after: Floats) -> tuple[int, float, float]:
    """An exponent, and signal and noise in units of 4^exponent, by which the greatest number is about 1."""
    finite = np.isfinite(before) & np.isfinite(after)
    before, after = before[finite], after[finite]
    _, exponent = math.frexp(max(float(np.abs(side).max(initial=0.0)) for side in (before, after)))
    x, y = np.ldexp(before, -exponent), np.ldexp(after, -exponent)
    return exponent, float(np.square(x).sum()), float(np.square(x - y).sum())


@kernel
def _compare(before, after, sums, counts):  # type: ignore[no-untyped-def]
    """No branch but for infinities and NaN: which numbers differ cannot be foretold."""
    signal, noise, relative, absolute = 0.0, 0.0, 0.0, 0.0
    finite, changed, zeroed, unzeroed, to_nan, from_nan = 0, 0, 0, 0, 0, 0
    for i in range(before.size):
        x, y = before[i], after[i]
        difference = abs(x - y)
        if difference < np.inf:
            size = abs(x)
            ratio = difference / (size if (size > 0.0) & (y != 0.0) else np.inf)
            finite += 1
            signal += x * x
            noise += difference * difference
            absolute = difference if difference > absolute else absolute
            relative = ratio if ratio > relative else relative
            changed += difference > 0.0
            zeroed += (y == 0.0) & (size > 0.0)
            unzeroed += (x == 0.0) & (difference > 0.0)
        else:
            x_is_nan, y_is_nan = x != x, y != y
            changed += x != y and not (x_is_nan and y_is_nan)
            to_nan += y_is_nan and not x_is_nan
            from_nan += x_is_nan and not y_is_nan
            zeroed += y == 0.0 and not x_is_nan
            unzeroed += x == 0.0 and not y_is_nan
    sums[0], sums[1], sums[2], sums[3] = signal, noise, relative, absolute
    counts[0], counts[1], counts[2] = finite, changed, zeroed
    counts[3], counts[4], counts[5] = unzeroed, to_nan, from_nan
