"""What a scan counts, and the positions of sums that it compares with, by NumPy in float64 and by mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mpmath
import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.rounding import steps_in_two

CHUNK = 1 << 20
"""Inputs at a time."""

WIDEST_RANGE = 16
"""Formats up to this many bits are scanned over all magnitudes, wider ones over one octave."""

mp: Any = mpmath.MPContext()
mp.prec = 400


class Finding(NamedTuple):
    """What the scan of one operation found."""

    operation: str
    inputs: int
    nearest_tie: float
    """Distance of the nearest rounding boundary that was met, in code steps (of decode, in units in the last place);
    inf where the operation is exact."""
    rechecked: int
    """Near ties decided by mpmath."""
    misroundings: int
    first_wrong: str = ""

    @property
    def tie(self) -> str:
        """The nearest tie in words: "exact" where nothing is rounded, "ties" where some are met and go to even."""
        if math.isinf(self.nearest_tie):
            return "exact"
        return "ties" if self.nearest_tie == 0.0 else f"{self.nearest_tie:.1e}"


class Scan:
    """Counts of one operation, gathered chunk by chunk."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.inputs = self.rechecked = self.wrong = 0
        self.nearest = math.inf
        self.first = ""

    def add(self, count: int, tie: float, wrong: NDArray[np.bool_], describe: Callable[[int], str]) -> None:
        """Count inputs, the nearest tie among them and which are wrong; `describe` names one of them."""
        self.inputs += count
        self.nearest = min(self.nearest, tie)
        self.wrong += int(np.count_nonzero(wrong))
        if wrong.any() and not self.first:
            self.first = describe(int(np.argmax(wrong)))

    def finding(self) -> Finding:
        """What has been counted."""
        return Finding(self.operation, self.inputs, self.nearest, self.rechecked, self.wrong, self.first)


def exact_position(z: int, fmt: LNSFormat, subtracted: bool) -> Any:
    """sb(z) or db(z) in code steps, by mpmath."""
    log_step = mp.log(mp.mpf(fmt.base)) / (1 << fmt.fraction_bits)
    ratio = mp.exp(-z * log_step)
    return mp.log(1 - ratio if subtracted else 1 + ratio) / log_step


def float_position(z: NDArray[np.int64], fmt: LNSFormat, subtracted: bool) -> NDArray[np.float64]:
    """The same in float64, by NumPy."""
    steps = steps_in_two(fmt)[0]
    u = -math.log(2.0) * (z / steps)
    with np.errstate(divide="ignore"):
        logs = np.log(-np.expm1(u)) if subtracted else np.log1p(np.exp(u))
    return np.asarray(logs * (steps / math.log(2.0)))


def chunks(stop: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
    """range(start, stop) in arrays of at most `CHUNK`."""
    for first in range(start, stop, CHUNK):
        yield np.arange(first, min(first + CHUNK, stop), dtype=np.int64)
