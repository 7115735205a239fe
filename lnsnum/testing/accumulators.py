"""What a stated accumulator makes of rows of terms, in a stated order: the very code that must come out.

    t_k = a_k b_k,  placed in the accumulator;      ((t_0 + t_1) + t_2) + ...  or neighbours first;      rounded once

An LNS accumulator adds as `lnsnum.testing.spans` says, correctly rounded, by whole numbers; a float one as NumPy's
floats do, one addition at a time. Where the order is not stated, and for adders that are allowed to be off, what may
come out is what the bound on the error leaves. No kernel of the library has a part in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.testing.exact_sums import Terms, powers
from lnsnum.testing.spans import Ints, Mask, Rules, bounds, log_step, spans
from lnsnum.testing.sum_rounding import Allowed, Order, Place, Stated, float_places, rounded


class Total(NamedTuple):
    """The total of each row in the accumulator, and where no addition rounded."""

    values: NDArray[Any]
    exact: Mask
    known: Mask


# --------------------------------------------------------------------------------------------------- LNS accumulators


def _zero_below(fmt: LNSFormat) -> int:
    """How many steps above the smallest a magnitude lies that becomes zero under nearest: all below this (negative)."""
    product = np.zeros(1, np.int64)
    return int(spans(fmt, Fraction(0), product, product).zero_below[0])


class LogAccumulator:
    """A sum that is kept as a code of a format."""

    def __init__(self, stated: Stated) -> None:
        assert isinstance(stated.accumulator, LNSFormat)
        self.stated, self.fmt = stated, stated.accumulator
        self.shift = self.fmt.fraction_bits - stated.fmt.fraction_bits
        self.rules = Rules(self.fmt, Fraction(0), "nearest", stated.overflow, "round")
        self.zero_below = _zero_below(self.fmt)

    def place(self, terms: Terms) -> Ints:
        """The terms as codes: saturated, or underflowed by nearest."""
        fmt, log = self.fmt, terms.log << self.shift
        small = np.where(log + fmt.max_log < self.zero_below, -fmt.bias, -fmt.max_log)
        log = np.where(log < -fmt.max_log, small, np.minimum(log, fmt.max_log + 1))
        return self._code(np.where(terms.zero, -fmt.bias, log), terms.negative)

    def _code(self, log: Ints, negative: Mask) -> Ints:
        fmt = self.fmt
        code = np.minimum(log, fmt.max_log) + fmt.bias
        code = np.where((code > 0) & negative, code + fmt.sign_bit, code)
        nan = (log > fmt.max_log) & (self.stated.overflow == "nan")
        return np.where(nan, fmt.nan_code, code)

    def add(self, x: Ints, y: Ints) -> Ints:
        """x + y of codes, correctly rounded."""
        fmt, shape = self.fmt, x.shape
        x, y = x.reshape(-1), y.reshape(-1)
        nan = (x == fmt.nan_code) | (y == fmt.nan_code)
        within = bounds(self.rules, "add", x, y, ~nan & (x != 0) & (y != 0))
        log = np.where(within.saturates, fmt.max_log + 1, within.low)
        log = np.where(within.zero, -fmt.bias, np.where(within.underflows, -fmt.max_log, log))
        out = np.where(within.exact, self._code(log, within.negative), 0)
        out = np.where(x == 0, y, np.where(y == 0, x, out))
        return np.where(nan, fmt.nan_code, out).reshape(shape)

    def is_exact(self, x: Ints, y: Ints, out: Ints) -> Mask:
        """Where x + y is rounded for certain by nothing: zeros, x - x, and at base 2 x + x and 2 x - x."""
        fmt = self.fmt
        e_x, e_y = ((code & fmt.max_magnitude) - fmt.bias for code in (x, y))
        opposite = (x ^ y) & fmt.sign_bit != 0
        gap = np.abs(e_x - e_y)
        exact: Mask = (x == 0) | (y == 0) | (opposite & (gap == 0))
        if fmt.base == 2.0:
            octave = 1 << fmt.fraction_bits
            doubled = ~opposite & (gap == 0) & (np.maximum(e_x, e_y) + octave <= fmt.max_log)
            halved = opposite & (gap == octave)
            exact = exact | ((doubled | halved) & (out != fmt.nan_code))
        return exact

    def total(self, terms: Terms) -> Total:
        """In the stated order."""
        codes = self.place(terms)
        log = terms.log << self.shift
        placed = terms.zero | (np.abs(log) <= self.fmt.max_log)
        exact = placed.all(axis=1)

        def plus(x: Ints, y: Ints, rows: Any) -> Ints:
            out = self.add(x, y)
            exact[rows] &= self.is_exact(x, y, out).reshape(x.shape).all(axis=tuple(range(1, x.ndim)))
            return out

        total = _in_order(codes, terms.length, self.stated.order, plus)
        return Total(np.where(terms.nan, self.fmt.nan_code, total), exact, np.ones(exact.shape, np.bool_))

    def finish(self, total: Total) -> Allowed:
        """The totals, rounded once to the result."""
        fmt, wide = self.stated.fmt, self.fmt
        codes = total.values
        nan, zero = codes == wide.nan_code, codes == 0
        log = (codes & wide.max_magnitude) - wide.bias
        negative = codes >= wide.sign_bit
        unit = 1 << self.shift
        whole = log >> self.shift
        rest = log - (whole << self.shift)
        lowest = -fmt.max_log << self.shift
        is_small = log - lowest < self.zero_below
        up = (2 * rest > unit) | ((2 * rest == unit) & (whole % 2 != 0))
        place = Place(whole, rest > 0, up, log < lowest, is_small)
        return rounded(self.stated, place, negative, zero, nan)

    def room(self) -> tuple[float, float]:
        """The greatest E in steps of the terms' format that is not too great, and the natural logarithm of the smallest
        number."""
        return self.fmt.max_log / (1 << self.shift), -self.fmt.max_log * log_step(self.fmt)


# ------------------------------------------------------------------------------------------------- float accumulators


class FloatAccumulator:
    """A sum of floats, each operation rounded to nearest: decode, multiply, add, and encode the total."""

    def __init__(self, stated: Stated) -> None:
        assert not isinstance(stated.accumulator, LNSFormat)
        self.stated, self.dtype = stated, np.dtype(stated.accumulator)
        self.info = np.finfo(self.dtype)
        self.octave = math.log(2.0) / log_step(stated.fmt)

    def decode(self, codes: Ints) -> NDArray[Any]:
        """The nearest floats; of numbers whose size is in range."""
        fmt = self.stated.fmt
        zero = codes & fmt.max_magnitude == 0
        log = np.where(zero, 0, (codes & fmt.max_magnitude) - fmt.bias)
        high, low = powers(fmt, np.where(np.abs(log) < self.limit() * self.octave, log, 0))
        near = high.astype(self.dtype)
        if self.dtype != np.float64:
            # rounded twice where the double is half-way between two floats: what it left out decides
            for way in (-np.inf, np.inf):
                other = np.nextafter(near, self.dtype.type(way))
                halfway = (near.astype(np.float64) + other) / 2 == high
                near = np.where(halfway & (np.sign(low) == np.sign(way)), other, near)
        return np.where(zero, 0, np.where(codes >= fmt.sign_bit, -near, near)).astype(self.dtype)

    def limit(self) -> float:
        """How many octaves from 1 are in range, in either direction."""
        return float(self.info.maxexp - 4)

    def total(self, a: Ints, b: Ints | None, terms: Terms) -> Total:
        """In the stated order; known where no number, product or sum leaves the range."""
        fmt = self.stated.fmt
        logs = [np.where(c & fmt.max_magnitude, (c & fmt.max_magnitude) - fmt.bias, 0) for c in (a, b) if c is not None]
        far = self.limit() * self.octave
        known = np.all([(np.abs(log) < far).all(axis=1) for log in [*logs, np.where(terms.zero, 0, terms.log)]], axis=0)
        x = self.decode(a)
        with np.errstate(all="ignore"):
            values = x if b is None else x * self.decode(b)
            total = _in_order(values, terms.length, self.stated.order, lambda x, y, _: x + y)
            size = np.abs(values).sum(axis=1, dtype=np.float64)
            least = np.min(np.where(values == 0, np.inf, np.abs(values)), axis=1, initial=np.inf)
            # all are multiples of the least, and so few times as great that no sum of some is rounded
            exact = (size / least < 2.0**self.info.nmant) | (size == 0)
        powers_of_two = np.zeros(exact.shape, np.bool_)
        if math.frexp(fmt.base)[0] == 0.5:
            powers_of_two = np.all([(log % (1 << fmt.fraction_bits) == 0).all(axis=1) for log in logs], axis=0)
        return Total(np.where(terms.nan, np.nan, total), exact & powers_of_two, known & np.isfinite(total))

    def finish(self, total: Total) -> Allowed:
        """The totals as codes."""
        place, negative, zero, nan = float_places(self.stated.fmt, total.values.astype(np.float64))
        return rounded(self.stated, place, negative, zero, nan)._replace(known=total.known | nan)

    def room(self) -> tuple[float, float]:
        """As of an LNS accumulator."""
        return self.limit() * self.octave, math.log(float(self.info.tiny)) - self.info.nmant * math.log(2.0)


# -------------------------------------------------------------------------------------------------------- both kinds


def _in_order(values: NDArray[Any], length: Ints, order: Order, plus: Callable[[Any, Any, Any], Any]) -> NDArray[Any]:
    """The total of each row; rows are filled up with zeros, which change no sum in either order."""
    if not values.shape[1]:
        return np.zeros(values.shape[0], values.dtype)
    if order != "pairwise":
        total = values[:, 0].copy()
        for k in range(1, values.shape[1]):
            rows = np.flatnonzero(length > k)
            total[rows] = plus(total[rows], values[rows, k], rows)
        return total
    while values.shape[1] > 1:
        if values.shape[1] % 2:
            values = np.concatenate([values, np.zeros((values.shape[0], 1), values.dtype)], axis=1)
        left, right = values[:, ::2], values[:, 1::2]
        values = plus(left, right, slice(None))
    return values[:, 0]


def every_order(values: list[Ints], plus: Callable[[Ints, Ints], Ints]) -> list[Ints]:
    """The totals of a few terms in each order there is: 1, 1, 3, 15 of them for one to four terms."""
    if len(values) == 1:
        return values
    totals = []
    first, *others = range(len(values))
    for chosen in range((1 << len(others)) - 1):  # what stands with the first; not all
        left = [values[i] for i in (first, *(k for at, k in enumerate(others) if chosen >> at & 1))]
        right = [values[k] for at, k in enumerate(others) if not chosen >> at & 1]
        totals += [plus(x, y) for x in every_order(left, plus) for y in every_order(right, plus)]
    return totals
