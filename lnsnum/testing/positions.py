"""Where a float lies on the logarithmic axis of a format, exactly.

    floor(r - c),      r = 2^F log_base x,      c a rational number

is read off float64, whose error is bounded. Where an integer is nearer than that, x is compared with the point
base^((n + c) / 2^F) itself: a product of a few powers of the step, which mpmath gives to 320 bits. No kernel of the
library has a part in it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.testing.spans import FAR, Bounds, Ints, Mask, Rules, Spans, settled

Floats = NDArray[np.float64]

_BITS = 320
"""Of a point. A few million products lose 30 of them."""

_EQUAL = 200
"""A point that agrees with a float to so many bits is that float."""

PRECISIONS = {"float64": (53, -1022), "float32": (24, -126), "float16": (11, -14)}
"""Of a type of floats, its precision and the exponent of its least normal number."""


class Point(NamedTuple):
    """significand * 2^exponent, cut to `_BITS` bits."""

    significand: int
    exponent: int

    def times(self, other: Point) -> Point:
        """The product."""
        product = self.significand * other.significand
        cut = product.bit_length() - _BITS
        return Point(product >> cut, self.exponent + other.exponent + cut)

    def _split(self, precision: int, least_exponent: int) -> tuple[int, int, int]:
        """In units of the last place of a float: the whole ones, the rest as 2^-shift of them, and shift."""
        unit = max(self.significand.bit_length() + self.exponent, least_exponent + 1) - precision
        shift = unit - self.exponent
        return self.significand >> shift, unit, shift

    def ceil_float64(self) -> tuple[float, bool]:
        """The least float64 that is not less, and whether it is equal."""
        top = self.significand.bit_length() + self.exponent
        if not -1074 <= top <= 1024:
            return (math.inf if top > 0 else 5e-324), False
        whole, unit, shift = self._split(*PRECISIONS["float64"])
        rest, near = self.significand - (whole << shift), self.significand >> _EQUAL
        below, above = rest <= near, (1 << shift) - rest <= near
        return _ldexp(whole if below else whole + 1, unit), below or above

    def nearest(self, dtype: str) -> float:
        """The nearest float of a type, ties to even; inf beyond the greatest."""
        precision, least_exponent = PRECISIONS[dtype]
        top = self.significand.bit_length() + self.exponent
        if not least_exponent - precision < top <= 2 - least_exponent:
            return math.inf if top > 0 else 0.0
        whole, unit, shift = self._split(precision, least_exponent)
        over = 2 * (self.significand - (whole << shift)) - (1 << shift)
        tie = abs(over) <= self.significand >> _EQUAL
        whole += (whole & 1) if tie else over > 0
        beyond = whole.bit_length() + unit > 2 - least_exponent
        return math.inf if beyond else _ldexp(whole, unit)


def _ldexp(whole: int, unit: int) -> float:
    try:
        return math.ldexp(whole, unit)
    except OverflowError:
        return math.inf


class Axis:
    """The points of a format's axis, and where floats lie among them. It keeps the points that it was asked for."""

    def __init__(self, fmt: LNSFormat) -> None:
        import mpmath

        self.fmt = fmt
        self.mp: Any = mpmath.MPContext()  # our own: mpmath.mp keeps the precision that its user gave it
        self.mp.prec = _BITS + 64
        self.steps_to_two = float(np.log(2.0) / np.log(np.float64(fmt.base)) * 2.0**fmt.fraction_bits)
        self._powers: list[Point] = []
        self._known: dict[Fraction, tuple[Ints, Floats, Mask]] = {}
        self._tables: dict[str, Floats] = {}
        self._numbers: dict[int, Any] = {}

    def _power(self, exponent: Fraction) -> Point:
        """base^(exponent / 2^F), by mpmath."""
        mp = self.mp
        x = mp.mpf(exponent.numerator) / (exponent.denominator << self.fmt.fraction_bits)
        # the integer part of the binary logarithm keeps its bits apart, however great it is
        with mp.workprec(_BITS + 128):
            log2 = x * mp.log(mp.mpf(self.fmt.base)) / mp.ln2
            whole = int(mp.floor(log2))
            mantissa = int(mp.floor(mp.ldexp(mp.power(2, log2 - whole), _BITS + 32)))
        return Point(mantissa, whole - _BITS - 32).times(Point(1 << (_BITS - 1), 1 - _BITS))

    def _moved(self, point: Point, steps: int) -> Point:
        """`steps` steps further on."""
        while len(self._powers) < steps.bit_length():
            self._powers.append(self._power(Fraction(1 << len(self._powers))))
        for j in range(steps.bit_length()):
            if steps >> j & 1:
                point = point.times(self._powers[j])
        return point

    def points(self, logs: Ints, c: Fraction = Fraction(0)) -> list[Point]:
        """base^((n + c) / 2^F) for each n of a growing array."""
        points: list[Point] = []
        last = 0
        for n in logs.tolist():
            points.append(self._moved(points[-1], n - last) if points else self._power(n + c))
            last = n
        return points

    def thresholds(self, logs: Ints, c: Fraction) -> tuple[Floats, Mask]:
        """The least float64 not below base^((n + c) / 2^F), and whether it is equal, for 0 <= c < 1."""
        nothing = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_)
        known, at, equal = self._known.get(c, nothing)
        new = np.setdiff1d(logs, known)
        if new.size:
            ceils = [point.ceil_float64() for point in self.points(new, c)]
            order = np.argsort(np.concatenate([known, new]))
            known = np.concatenate([known, new])[order]
            at = np.concatenate([at, [x for x, _ in ceils]])[order]
            equal = np.concatenate([equal, np.array([same for _, same in ceils], np.bool_)])[order]
            self._known[c] = known, at, equal
        where = np.searchsorted(known, logs)
        return at[where], equal[where]

    def values(self, codes: Ints, dtype: str) -> NDArray[Any]:
        """The floats of a type nearest to the values of codes, 0 for zero and NaN; up to 16 bits from a table."""
        fmt = self.fmt
        m = codes & fmt.max_magnitude
        if fmt.bits <= 16:
            if dtype not in self._tables:
                self._tables[dtype] = self._sizes(np.arange(1 << (fmt.bits - 1)), dtype)
            sizes = self._tables[dtype][m]
        else:
            unique, which = np.unique(m, return_inverse=True)
            sizes = self._sizes(unique, dtype)[which]
        floats: NDArray[Any] = np.where((codes > fmt.sign_bit) & (sizes > 0), -sizes, sizes).astype(dtype)
        return floats

    def _sizes(self, magnitudes: Ints, dtype: str) -> Floats:
        numbers = magnitudes[magnitudes > 0]
        floats = [point.nearest(dtype) for point in self.points(numbers - self.fmt.bias)]
        return np.concatenate([np.zeros(magnitudes.size - numbers.size), floats])

    def logs(self, x: Floats) -> Floats:
        """r = 2^F log_base x to within 2^-46 of it, for finite x > 0."""
        significand, exponent = np.frexp(x)
        low = significand < math.sqrt(0.5)  # a significand near 1, so that the logarithm of x near 1 keeps its bits
        octaves = (exponent - low) + np.log2(np.where(low, 2 * significand, significand))
        r: Floats = octaves * self.steps_to_two
        return r

    def share(self, x: float, log: int | None, by_value: bool) -> float:
        """How far x > 0 is from the point of a log to the next, in the value or in r; from 0 to the smallest for None.

        This is the probability of the upper one in a stochastic rounding.
        """
        mp = self.mp
        with mp.workprec(_BITS + 64):
            size = mp.mpf(x)
            if log is None:
                return float(size / self._mpf(1 - self.fmt.bias))
            if by_value:
                low, high = self._mpf(log), self._mpf(log + 1)
                return float((size - low) / (high - low))
            steps = mp.ldexp(mp.log(size) / mp.log(mp.mpf(self.fmt.base)), self.fmt.fraction_bits)
            return float(steps - log)

    def _mpf(self, log: int) -> Any:
        if log not in self._numbers:
            point = self._power(Fraction(log))
            self._numbers[log] = self.mp.ldexp(self.mp.mpf(point.significand), point.exponent)
        return self._numbers[log]

    def floors(self, x: Floats, c: Fraction = Fraction(0)) -> tuple[Ints, Mask]:
        """floor(r - c), and whether r - c is an integer, for finite x > 0; clipped far beyond the range."""
        moved, c = math.floor(c), c - math.floor(c)
        r = self.logs(x)
        at = r - float(c)
        near = np.rint(at)
        beyond = 4.0 * (1 << self.fmt.bits)
        unsure = (np.abs(at - near) <= 2.0**-46 * np.abs(r) + 2.0**-50) & (np.abs(at) <= beyond)
        floor = np.floor(np.clip(at, -beyond, beyond)).astype(np.int64)
        equal = np.zeros(x.shape, np.bool_)
        where = np.flatnonzero(unsure)
        if where.size:
            logs = near[where].astype(np.int64)
            unique, which = np.unique(logs, return_inverse=True)
            threshold, is_equal = (part[which] for part in self.thresholds(unique, c))
            floor[where] = np.where(x[where] >= threshold, logs, logs - 1)
            equal[where] = is_equal & (x[where] == threshold)
        return floor - moved, equal

    def ceils(self, x: Floats, c: Fraction = Fraction(0)) -> Ints:
        """ceil(r - c)."""
        floor, equal = self.floors(x, c)
        return floor + ~equal

    def bounds(self, rules: Rules, x: Floats) -> Bounds:
        """Which codes may stand for floats; `exact` leaves out zeros and NaN."""
        infinite = np.isinf(x)
        number = np.isfinite(x) & (x != 0)
        size = np.where(number, np.abs(x), 1.0)
        more, half = rules.spare, Fraction(1, 2) + rules.spare
        low, high, tie = (np.zeros(x.shape, np.int64) for _ in range(3))
        floor_low, floor_high, ceil_low, ceil_high = low, low, low, low
        if rules.rounding == "nearest":
            floor, equal = self.floors(size, half)
            low = floor + ~equal
            high = self.floors(size, -half)[0] if more else floor + 1
            tie = (equal & (more == 0)).astype(np.int64)
        else:
            floor_low, floor_high = self.floors(size, more)[0], self.floors(size, -more)[0]
            ceil_low, ceil_high = self.ceils(size, more), self.ceils(size, -more)
        # x is below half of the smallest where 2 x is below the smallest; what would overflow is not below anything
        twice = np.where(size < 1, 2, 1) * size
        smallest = -self.fmt.max_log
        zero_below = np.where(self.floors(twice, more)[0] < smallest, FAR, -FAR)
        smallest_from = np.where(self.floors(twice, -more)[0] >= smallest, -FAR, FAR)
        columns = [self.floors(size)[0], low, high, tie, floor_low, floor_high, ceil_low, ceil_high]
        columns = [np.where(infinite, FAR, column) for column in columns]
        columns[3] = np.where(infinite, 0, tie)
        r = np.where(infinite, np.inf, self.logs(size))
        asked = Spans._make([r, *columns, zero_below, smallest_from])
        return settled(rules, number | infinite, np.zeros_like(low), asked, np.signbit(x))
