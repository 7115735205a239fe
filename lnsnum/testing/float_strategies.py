"""Floats in the range of a format, and the floats that are hard to round.

    boundary(n) = base^(n / 2^(F + 1)),      n even: a number of the format,      n odd: the midpoint of two

is where a rounding decision changes; the floats on either side come from the integers of `lnsnum.exact`. Positive
floats are ordered as their bit patterns are, so all is done with patterns, and nothing here computes with a subnormal:
a machine that flushes them draws what others do.
"""

from __future__ import annotations

import math
import struct
from typing import Literal, NamedTuple

from hypothesis import strategies as st

from lnsnum.exact import float64_threshold
from lnsnum.format import LNSFormat, Rounding, check_choice, check_log_offset
from lnsnum.testing.ranks import Strategy

FloatType = Literal["float64", "float32", "float16", "bfloat16"]

_NEIGHBOURS = 3
"""How many floats on either side of a boundary `near_ties` goes."""


class Patterns(NamedTuple):
    """The bit patterns of a float type's positive numbers, from 0."""

    precision: int
    top: int
    """The greatest exponent."""
    width: int

    @property
    def infinity(self) -> int:
        """The pattern after the greatest finite one."""
        return (1 << (self.width - 1)) - self.least_normal

    @property
    def least_normal(self) -> int:
        """The pattern after the greatest subnormal."""
        return 1 << (self.precision - 1)

    def parts(self, pattern: int) -> tuple[int, int]:
        """(s, e) of the number s * 2^e."""
        biased, mantissa = pattern >> (self.precision - 1), pattern & (self.least_normal - 1)
        significand = mantissa | (self.least_normal if biased else 0)
        return significand, max(biased, 1) - self.top - self.precision + 1

    def at_least(self, significand: int, exponent: int) -> int:
        """The least number that is at least significand * 2^exponent; beyond the greatest, not a number's pattern."""
        if not significand:
            return 0
        unit = max(significand.bit_length() + exponent - self.precision, 2 - self.top - self.precision)
        shift = unit - exponent
        scaled = significand << -shift if shift < 0 else -(-significand >> shift)
        return scaled + ((unit + self.top + self.precision - 2) << (self.precision - 1))

    def number(self, pattern: int) -> float:
        """The number, as a Python float."""
        # by its pattern: ldexp is a multiplication, which would flush a subnormal
        wide = FLOATS["float64"].at_least(*self.parts(pattern))
        return float(struct.unpack("<d", struct.pack("<Q", wide))[0])

    def boundary(self, fmt: LNSFormat, n: int, *, halved: bool = False) -> int:
        """The least that is at least base^(n / 2^(F + 1)), or half of that."""
        pattern = float64_threshold(fmt.base, n, fmt.fraction_bits + 1, halved=halved)
        return self.at_least(*FLOATS["float64"].parts(pattern))


FLOATS = {
    "float64": Patterns(53, 1023, 64),
    "float32": Patterns(24, 127, 32),
    "float16": Patterns(11, 15, 16),
    "bfloat16": Patterns(8, 127, 16),
}


def _flushes() -> bool:
    """Whether this thread makes zeros of subnormals."""
    least_normal = 2.0**-1022
    return least_normal / 2 == 0.0


class _Finite(NamedTuple):
    """The finite floats of a type that may be drawn: zero, and those of patterns from `least` on."""

    kind: Patterns
    least: int

    def clipped(self, pattern: int) -> int:
        """The nearest pattern there is: zero for those below the positive floats."""
        return min(max(pattern, self.least), self.kind.infinity - 1) if pattern > 0 else 0


def _finite(dtype: FloatType, allow_subnormal: bool | None) -> _Finite:
    check_choice("dtype", dtype, FloatType)
    if allow_subnormal is not None and not isinstance(allow_subnormal, bool):
        raise TypeError(f"allow_subnormal={allow_subnormal!r} is no truth value: give True, False or None")
    kind = FLOATS[dtype]
    subnormals = not _flushes() if allow_subnormal is None else allow_subnormal
    return _Finite(kind, 1 if subnormals else kind.least_normal)


def _signed(magnitudes: Strategy[float]) -> Strategy[float]:
    return st.tuples(st.sampled_from([1.0, -1.0]), magnitudes).map(lambda drawn: math.copysign(drawn[1], drawn[0]))


def finite_floats(
    fmt: LNSFormat | str, *, log_offset: int = 0, dtype: FloatType = "float64", allow_subnormal: bool | None = None
) -> Strategy[float]:
    """Floats of both signs in the range of a format and a little (a factor of 16) beyond either end, and zeros.

    They are Python floats that `dtype` holds exactly, subnormals too where the range has them. Where the range lies
    outside the floats, the nearest floats are drawn.

    Args:
        fmt: the format, or its name.
        log_offset: the scale at which the range is taken.
        dtype: "float64", "float32", "float16" or "bfloat16".
        allow_subnormal: whether to draw the subnormals of dtype; where it is left out, unless this thread flushes them
            to zero (`torch.set_flush_denormal`, -ffast-math) as the strategy is made.

    >>> from hypothesis import find, settings
    >>> find(finite_floats("lns8f5"), lambda x: x < -1, settings=settings(database=None))
    -2.0
    """
    fmt, log_offset = LNSFormat.of(fmt), check_log_offset(log_offset)
    finite = _finite(dtype, allow_subnormal)
    kind = finite.kind
    smallest, greatest = (
        max(finite.clipped(kind.boundary(fmt, 2 * (log_offset + side * fmt.max_log))), finite.least) for side in (-1, 1)
    )
    (low, low_exponent), (high, high_exponent) = kind.parts(smallest), kind.parts(greatest)
    least = finite.clipped(kind.at_least(low, low_exponent - 4))
    most = finite.clipped(kind.at_least(high, high_exponent + 4))
    magnitudes = [st.just(0.0)]
    if least < kind.least_normal:
        magnitudes.insert(0, st.integers(least, min(most, kind.least_normal - 1)).map(kind.number))
    if most >= kind.least_normal:
        least = max(least, kind.least_normal)
        magnitudes.insert(0, _normal(kind, least, most))
        if kind.number(least) <= 1.0 <= kind.number(most):
            magnitudes.insert(0, st.just(1.0))
    return _signed(st.one_of(magnitudes))


def _normal(kind: Patterns, least: int, most: int) -> Strategy[float]:
    """Of these patterns; Hypothesis' floats shrink to whole numbers, which integers between patterns would not."""
    low, high = kind.number(least), kind.number(most)
    if kind is not FLOATS["bfloat16"]:
        width: Literal[16, 32, 64] = kind.width  # type: ignore[assignment]
        return st.floats(low, high, width=width, allow_subnormal=False)

    def truncated(x: float) -> float:
        pattern = FLOATS["float32"].at_least(*FLOATS["float64"].parts(struct.unpack("<Q", struct.pack("<d", x))[0]))
        return kind.number(pattern >> 16)

    return st.floats(low, high, width=32, allow_subnormal=False).map(truncated)


def float_ties(
    fmt: LNSFormat,
    rounding: Rounding | None,
    *,
    log_offset: int,
    dtype: FloatType,
    allow_subnormal: bool | None,
) -> Strategy[float]:
    """`lnsnum.strategies.near_ties` of encode."""
    log_offset = check_log_offset(log_offset)
    finite = _finite(dtype, allow_subnormal)
    kind = finite.kind
    half_steps = 2 * fmt.codes_per_octave  # in a factor of 2
    low, high = (2 * (log_offset + side * (fmt.max_log + 2)) for side in (-1, 1))
    floor, ceiling = (
        math.floor((2 - kind.top - kind.precision) * half_steps) - 1,
        math.ceil((kind.top + 1) * half_steps) + 1,
    )
    if low <= ceiling and floor <= high:
        low, high = max(low, floor), min(high, ceiling)
    else:  # the whole range lies outside the floats: one boundary tells it
        low = high = low if low > ceiling else high
    smallest, greatest = 2 * (log_offset - fmt.max_log), 2 * (log_offset + fmt.max_log)
    ends = [smallest, greatest, smallest - 1, greatest + 1, smallest + 1, greatest - 1, greatest + 2]
    edges = st.sampled_from([(smallest, True), *((n, False) for n in ends)])
    away = st.integers(-_NEIGHBOURS, _NEIGHBOURS)
    boundaries = st.one_of(
        _of_mode(low, high, rounding).map(lambda n: kind.boundary(fmt, n)),
        edges.map(lambda edge: kind.boundary(fmt, edge[0], halved=edge[1])),
    )
    return _signed(st.tuples(boundaries, away).map(lambda drawn: kind.number(finite.clipped(sum(drawn)))))


def _of_mode(low: int, high: int, rounding: Rounding | None) -> Strategy[int]:
    """n from low to high: odd where the mode decides at midpoints, even where it decides at the numbers."""
    if rounding is None or low == high:
        return st.integers(low, high)
    odd = rounding == "nearest"
    return st.integers(-(-(low - odd) // 2), (high - odd) // 2).map(lambda half: 2 * half + odd)
