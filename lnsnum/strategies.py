"""Hypothesis strategies: formats, codes, tensors, floats, and the floats that are hard to round.

    boundary(n) = base^(n / 2^(F + 1)),      n even: a number of the format,      n odd: the midpoint of two

is where a rounding decision changes; `near_ties` draws the floats on either side of it, from the integers of
`lnsnum.exact`. Every strategy shrinks to what is simplest: base 2, few bits, the value 1, log_offset 0.

`check_arithmetic_laws` (`lnsnum.testing.checking`) tries the laws of the number system on arithmetic of your own. It
and the strategies need the extra `hypothesis`; docs/testing.md has examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from lnsnum.exact import float64_threshold
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, check_choice, check_log_offset
from lnsnum.kernels.codes import LogOffset
from lnsnum.tensor import LNSTensor
from lnsnum.testing.calling import ImplementationError
from lnsnum.testing.checking import check_arithmetic_laws
from lnsnum.testing.report import LawReport, LawViolation, Violation

__all__ = [
    "ImplementationError",
    "LawReport",
    "LawViolation",
    "Violation",
    "bases",
    "check_arithmetic_laws",
    "codes",
    "finite_floats",
    "formats",
    "near_ties",
    "tensors",
]

Strategy = st.SearchStrategy
FloatType = Literal["float64", "float32", "float16", "bfloat16"]
Shape = int | tuple[int, ...]

_FLOATS = {"float64": (64, 53, 1023), "float32": (32, 24, 127), "float16": (16, 11, 15), "bfloat16": (16, 8, 127)}
"""Width in bits, precision, greatest exponent."""

_NEIGHBOURS = 3
"""How many floats on either side of a boundary `near_ties` goes."""


# ------------------------------------------------------------------------------------------------ formats and codes


def bases() -> Strategy[float]:
    """Bases of logarithms: 2, then common ones, then any float64 > 1, close to 1 and huge ones among them.

    >>> from hypothesis import find, settings
    >>> find(bases(), lambda base: base < 3, settings=settings(database=None))
    2.0
    """
    common = [2.0, 4.0, 1.5, 10.0, math.e, 16.0, math.sqrt(2), math.nextafter(1.0, 2.0), 1.0 + 2.0**-20]
    close = st.integers(1, 52).map(lambda k: 1.0 + 2.0**-k)
    moderate = st.floats(1.0, 20.0, exclude_min=True)
    anything = st.floats(1.0, exclude_min=True, allow_infinity=False)
    return st.one_of(st.just(2.0), st.sampled_from(common), close, moderate, anything)


def formats(
    min_bits: int = 3, max_bits: int = 32, *, bases: float | Sequence[float] | Strategy[float] = 2.0
) -> Strategy[LNSFormat]:
    """Formats of `min_bits` to `max_bits` bits with any number of fraction bits.

    Args:
        min_bits, max_bits: 3 to 32.
        bases: a base, several, or a strategy: `formats(bases=bases())` draws them all.

    >>> from hypothesis import find, settings
    >>> find(formats(bases=[2.0, 10.0]), lambda fmt: fmt.bits > 4, settings=settings(database=None))
    LNSFormat(5, 0)
    """
    if not 3 <= min_bits <= max_bits <= 32:
        raise ValueError(f"min_bits={min_bits}, max_bits={max_bits} are out of range: 3 to 32, the lesser first")
    if not isinstance(bases, Strategy):
        bases = st.just(bases) if isinstance(bases, (int, float)) else st.sampled_from(bases)
    widths = st.integers(min_bits, max_bits).flatmap(lambda bits: st.tuples(st.just(bits), st.integers(0, bits - 2)))
    return st.tuples(widths, bases).map(lambda drawn: LNSFormat(*drawn[0], base=drawn[1]))


def codes(
    fmt: LNSFormat | str,
    *,
    shape: Shape | Strategy[Shape] | None = None,
    nan: bool = True,
    zero: bool = True,
    negative: bool = True,
) -> Strategy[Any]:
    """Codes of a format: Python integers, or arrays of fmt.dtype where a shape is given.

    Zero and NaN come up often, and so do the ends of the range. Shrinks to the code of 1, or to one near it.

    Args:
        fmt: the format, or its name.
        shape: of the arrays: an integer, a tuple, or a strategy such as `hypothesis.extra.numpy.array_shapes()`.
        nan, zero, negative: whether to draw these.

    >>> from hypothesis import find, settings
    >>> find(codes("lns8f5", shape=3), lambda codes: codes[0] > 64, settings=settings(database=None))
    array([65, 64, 64], dtype=uint8)
    """
    fmt = LNSFormat.of(fmt)
    if shape is not None:
        elements = codes(fmt, nan=nan, zero=zero, negative=negative)
        return st_numpy.arrays(fmt.dtype, cast(Any, shape), elements=elements)
    magnitudes = [st.integers(-fmt.max_log, fmt.max_log).map(lambda log: log + fmt.bias)]
    specials = [0] * zero + [-1] * nan
    if specials:
        magnitudes.append(st.sampled_from(specials))

    def code(drawn: tuple[int, int]) -> int:
        sign, m = drawn
        return fmt.nan_code if m < 0 else m + sign if m else 0

    return st.tuples(st.sampled_from([0, fmt.sign_bit] if negative else [0]), st.one_of(magnitudes)).map(code)


def _log_offsets(fmt: LNSFormat, shape: tuple[int, ...]) -> Strategy[LogOffset]:
    """0, small, any; and arrays of them that broadcast to the shape, one for each channel say."""
    near = st.integers(-2 * fmt.max_log, 2 * fmt.max_log).map(lambda n: max(min(n, MAX_LOG_OFFSET), -MAX_LOG_OFFSET))
    ends = st.sampled_from([MAX_LOG_OFFSET, -MAX_LOG_OFFSET])
    one = st.one_of(st.just(0), near, st.integers(-MAX_LOG_OFFSET, MAX_LOG_OFFSET), ends)
    if not shape:
        return one
    kept = st.integers(0, len(shape)).flatmap(
        lambda first: st.tuples(*(st.sampled_from(sorted({1, side})) for side in shape[first:]))
    )
    arrays = kept.filter(len).flatmap(lambda channels: st_numpy.arrays(np.int32, channels, elements=one))
    return st.one_of(one, arrays)


def tensors(
    fmt: LNSFormat | str | Strategy[LNSFormat] | None = None,
    shape: Shape | Strategy[Shape] | None = None,
    *,
    log_offset: LogOffset | Strategy[LogOffset] | None = None,
    scalars: bool = False,
    empty: bool = False,
    nan: bool = True,
    zero: bool = True,
    negative: bool = True,
) -> Strategy[LNSTensor]:
    """Tensors.

    Args:
        fmt: the format, its name, or a strategy; any format where it is left out.
        shape: an integer, a tuple, or a strategy; one to three dimensions where it is left out.
        log_offset: an integer, an array that broadcasts to the shape, or a strategy. Where it is left out: 0, small
            ones, any up to 2^30 in size, and arrays of those. At large ones the values are beyond every float.
        scalars, empty: whether to draw shapes without dimensions, and with dimensions of size 0, too.
        nan, zero, negative: as for `codes`.

    >>> from hypothesis import find, settings
    >>> find(tensors("lns8f3"), lambda x: x.ndim == 2, settings=settings(database=None))
    LNSTensor.from_float([[1.]], 'lns8f3')
    """
    if fmt is None:
        fmt = formats(bases=bases())
    elif not isinstance(fmt, Strategy):
        fmt = st.just(LNSFormat.of(fmt))
    if shape is None:
        shape = st_numpy.array_shapes(min_dims=0 if scalars else 1, min_side=0 if empty else 1, max_dims=3, max_side=6)

    @st.composite
    def tensor(draw: st.DrawFn) -> LNSTensor:
        drawn = draw(fmt)
        array = draw(codes(drawn, shape=shape, nan=nan, zero=zero, negative=negative))
        offset = _log_offsets(drawn, array.shape) if log_offset is None else log_offset
        return LNSTensor(array, drawn, log_offset=draw(offset) if isinstance(offset, Strategy) else offset)

    return tensor()


# -------------------------------------------------------------------------------------------------------------- floats


def _pattern_at_least(pattern: int, dtype: FloatType) -> int:
    """The bit pattern of the least positive float of `dtype` that is at least the float64 of this pattern."""
    if dtype == "float64":
        return pattern
    _, precision, top = _FLOATS[dtype]
    significand = (pattern & ((1 << 52) - 1)) | (pattern >= 1 << 52) << 52
    exponent = max(pattern >> 52, 1) - 1075  # the number is significand * 2^exponent
    unit = max(significand.bit_length() + exponent - precision, 2 - top - precision)
    shift = unit - exponent
    scaled = significand << -shift if shift < 0 else -(-significand >> shift)
    return scaled + ((unit + top + precision - 2) << (precision - 1))


def _infinity(dtype: FloatType) -> int:
    width, precision, _ = _FLOATS[dtype]
    return (1 << (width - 1)) - (1 << (precision - 1))


def _number(pattern: int, dtype: FloatType) -> float:
    """The positive float of a bit pattern."""
    _, precision, top = _FLOATS[dtype]
    biased, mantissa = pattern >> (precision - 1), pattern & ((1 << (precision - 1)) - 1)
    significand = mantissa | (biased > 0) << (precision - 1)
    return math.ldexp(significand, max(biased, 1) - top - precision + 1)


def _clipped(pattern: int, dtype: FloatType) -> float:
    """The float of a pattern, zero below the positive ones and the greatest finite one above."""
    return _number(min(max(pattern, 0), _infinity(dtype) - 1), dtype)


def _signed(magnitudes: Strategy[float]) -> Strategy[float]:
    return st.tuples(st.sampled_from([1.0, -1.0]), magnitudes).map(lambda drawn: math.copysign(drawn[1], drawn[0]))


def _boundary(fmt: LNSFormat, n: int, dtype: FloatType, *, halved: bool = False) -> int:
    """The pattern of the least float of `dtype` >= base^(n / 2^(F + 1)), or half of that."""
    return _pattern_at_least(float64_threshold(fmt.base, n, fmt.fraction_bits + 1, halved=halved), dtype)


def finite_floats(fmt: LNSFormat | str, *, log_offset: int = 0, dtype: FloatType = "float64") -> Strategy[float]:
    """Floats of both signs in the range of a format and a little (a factor of 16) beyond either end, and zeros.

    They are Python floats that `dtype` holds exactly, subnormals too where the range has them. Where the range lies
    outside the floats, the nearest floats are drawn.

    Args:
        fmt: the format, or its name.
        log_offset: the scale at which the range is taken.
        dtype: "float64", "float32", "float16" or "bfloat16".

    >>> from hypothesis import find, settings
    >>> find(finite_floats("lns8f5"), lambda x: x < -1, settings=settings(database=None))
    -2.0
    """
    fmt, log_offset = LNSFormat.of(fmt), check_log_offset(log_offset)
    check_choice("dtype", dtype, FloatType)
    smallest, greatest = (
        _clipped(_boundary(fmt, 2 * (log_offset + side * fmt.max_log), dtype), dtype) for side in (-1, 1)
    )
    pattern = _pattern_at_least(int(np.float64(smallest / 16).view(np.uint64)), dtype)
    low, high = _clipped(max(pattern, 1), dtype), min(greatest * 16, _clipped(_infinity(dtype), dtype))
    width: Literal[16, 32, 64] = {"float64": 64, "float16": 16}.get(dtype, 32)  # type: ignore[assignment]
    magnitudes = st.floats(low, high, width=width)
    if dtype == "bfloat16":
        magnitudes = magnitudes.map(lambda x: float((np.float32(x).view(np.uint32) & 0xFFFF0000).view(np.float32)))
    simplest = [st.just(1.0)] if low <= 1.0 <= high else []
    return _signed(st.one_of([*simplest, magnitudes, st.just(0.0)]))


def near_ties(fmt: LNSFormat | str, *, log_offset: int = 0, dtype: FloatType = "float64") -> Strategy[float]:
    """Floats at and next to a boundary of rounding: the hard cases of `lnsnum.encode`.

    Boundaries are the numbers of the format, the geometric midpoints between two of them, half the smallest, and the
    same beyond either end of the range; of each, the three floats on either side, of both signs. They are Python floats
    that `dtype` holds exactly. A boundary is a float itself where it is rational and short enough, else the floats
    around it are as close to a tie as floats can be. Boundaries outside the range of the floats give zeros and the
    greatest floats.

    Args:
        fmt: the format, or its name.
        log_offset: the scale.
        dtype: "float64", "float32", "float16" or "bfloat16".

    >>> from hypothesis import find, settings
    >>> find(near_ties("lns8f5"), lambda x: x > 1.001, settings=settings(database=None))  # rounds up, just
    1.0108892860517005
    """
    fmt, log_offset = LNSFormat.of(fmt), check_log_offset(log_offset)
    check_choice("dtype", dtype, FloatType)
    precision, top = _FLOATS[dtype][1:]
    half_steps = 2 * fmt.codes_per_octave  # in a factor of 2
    low, high = (2 * (log_offset + side * (fmt.max_log + 2)) for side in (-1, 1))
    floor, ceiling = math.floor((2 - top - precision) * half_steps) - 1, math.ceil((top + 1) * half_steps) + 1
    if low <= ceiling and floor <= high:
        low, high = max(low, floor), min(high, ceiling)
    else:  # the whole range lies outside the floats: one boundary tells it
        low = high = low if low > ceiling else high
    middle = max(min(0, high), low)
    smallest, greatest = 2 * (log_offset - fmt.max_log), 2 * (log_offset + fmt.max_log)
    anywhere = st.integers(low - middle, high - middle).map(lambda n: n + middle)
    ends = [smallest, greatest, smallest - 1, greatest + 1, smallest + 1, greatest - 1, greatest + 2]
    edges = st.sampled_from([(smallest, True), *((n, False) for n in ends)])
    boundaries = st.one_of(
        anywhere.map(lambda n: _boundary(fmt, n, dtype)),
        edges.map(lambda edge: _boundary(fmt, edge[0], dtype, halved=edge[1])),
    )
    away = st.integers(-_NEIGHBOURS, _NEIGHBOURS)
    return _signed(st.tuples(boundaries, away).map(lambda drawn: _clipped(sum(drawn), dtype)))
