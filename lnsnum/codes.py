"""Floats and codes: float -> code, code -> float.

    encode:   E = round(2^F log_base |x|),   m = E + bias - log_offset        (docs/number_format.md)

At base 2 with few fraction bits, encoding counts exact thresholds (`lnsnum.thresholds`) on the bits of the float, so no
logarithm is ever rounded. Otherwise it takes a logarithm with a bound of its error (`lnsnum.elementary`), and integers
decide where the bound leaves the code open (a few elements in a million at the widest). Either way subnormals are
read as they are, even where the processor flushes them. Decoding is a table with one correctly rounded entry for each
code up to 16 bits, above that a product of three table entries, with integers behind it in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import exact
from lnsnum.decide import Sum, Term, Value, resolve
from lnsnum.elementary import LOG2_ERROR, log2_parts, significands
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Overflow, Rounding, Underflow, check_choice, check_log_offset
from lnsnum.kernel import kernel
from lnsnum.rounding import DOUBT, DOWN, NEAREST, UP, Target, UInt32Array, pack, settle, target
from lnsnum.thresholds import Side, locate, thresholds

Codes = NDArray[np.unsignedinteger[Any]]
LogOffset = int | NDArray[np.int32]

WIDEST_TABLE = 16
"""Formats up to this many bits decode by a table of all codes."""

MOST_THRESHOLDS = 10
"""Formats of base 2 up to this many fraction bits encode by a table of thresholds."""


class _FloatType(NamedTuple):
    """An IEEE binary format: its bit patterns are what encode reads and decode writes."""

    bits: int
    precision: int  # significand bits, the hidden one included
    max_exponent: int

    @property
    def mantissa_bits(self) -> int:
        return self.precision - 1

    @property
    def infinity(self) -> int:
        return (2 * self.max_exponent + 1) << self.mantissa_bits

    @property
    def nan(self) -> int:
        return self.infinity | 1 << (self.mantissa_bits - 1)

    def split(self, pattern: int) -> tuple[int, int]:
        """`(significand, exponent)` of a positive finite number: its value is significand * 2^exponent."""
        biased = pattern >> self.mantissa_bits
        hidden = (biased > 0) << self.mantissa_bits
        exponent = max(biased, 1) - self.max_exponent - self.mantissa_bits
        return (pattern & ((1 << self.mantissa_bits) - 1)) | hidden, exponent

    @property
    def pattern(self) -> np.dtype[Any]:
        return np.dtype(f"u{self.bits // 8}")


FLOAT_TYPES = {
    "float64": _FloatType(64, 53, 1023),
    "float32": _FloatType(32, 24, 127),
    "float16": _FloatType(16, 11, 15),
    "bfloat16": _FloatType(16, 8, 127),
}


def check_format(fmt: LNSFormat, what: str = "fmt") -> None:
    """Raise TypeError where `fmt` is no format."""
    if not isinstance(fmt, LNSFormat):
        raise TypeError(f"{what}={fmt!r} is a {type(fmt).__name__}, not an LNSFormat: LNSFormat.parse reads a name")


def check_codes(codes: ArrayLike, fmt: LNSFormat) -> Codes:
    """`codes` as an array of `fmt.dtype`.

    Raises:
        TypeError: where they are no integers.
        ValueError: where one of them lies outside the format; the message says which.
    """
    array = np.asarray(codes)
    if array.size == 0 and not isinstance(codes, np.ndarray):
        array = array.astype(fmt.dtype)
    if array.dtype.kind not in "ui":
        raise TypeError(f"codes are unsigned integers, not {array.dtype}: use encode to make them from floats")
    limit = 1 << fmt.bits
    if array.size and (array.dtype.kind == "i" or 8 * array.dtype.itemsize > fmt.bits):
        outside = (array < 0) | (array >= limit)
        if outside.any():
            where = np.unravel_index(int(outside.argmax()), array.shape)
            place = f" at index {tuple(int(i) for i in where)}" if array.ndim else ""
            raise ValueError(f"code {array[where]}{place} is outside {fmt.name}: its codes are 0 to {limit - 1}")
    return array.astype(fmt.dtype, copy=False)


def check_offsets(log_offset: object, shape: tuple[int, ...]) -> LogOffset:
    """A log_offset as a Python integer, or as an int32 array that broadcasts to `shape`."""
    if not isinstance(log_offset, np.ndarray) or log_offset.ndim == 0:
        return check_log_offset(cast(int, log_offset[()] if isinstance(log_offset, np.ndarray) else log_offset))
    if log_offset.dtype.kind not in "ui":
        raise TypeError(f"log_offset is an array of {log_offset.dtype}: give integers, whole code steps")
    for extreme in (log_offset.min(initial=0), log_offset.max(initial=0)):
        check_log_offset(int(extreme))
    try:
        fits = np.broadcast_shapes(log_offset.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"log_offset of shape {log_offset.shape} does not broadcast to the codes' shape {shape}")
    return log_offset.astype(np.int32)


def _by_offset(
    function: Callable[..., NDArray[Any]], log_offset: LogOffset, dtype: np.dtype[Any], *arrays: NDArray[Any]
) -> NDArray[Any]:
    """function(offset, *blocks) for the blocks of the arrays, flat and contiguous, that share a log_offset.

    The arrays have one shape, and so has the result, which is of `dtype`.
    """
    shape = arrays[0].shape
    if isinstance(log_offset, int):
        return function(log_offset, *(np.ascontiguousarray(array).reshape(-1) for array in arrays)).reshape(shape)
    out = np.empty(shape, dtype)
    padded = log_offset.reshape((1,) * (len(shape) - log_offset.ndim) + log_offset.shape)
    for at in np.ndindex(padded.shape):
        index = tuple(slice(None) if padded.shape[d] == 1 else slice(i, i + 1) for d, i in enumerate(at))
        blocks = (np.ascontiguousarray(array[index]).reshape(-1) for array in arrays)
        out[index] = function(int(padded[at]), *blocks).reshape(out[index].shape)
    return out


@kernel
def _widen(pattern, single):  # type: ignore[no-untyped-def]
    """Sign and magnitude of a float32 (`single`) or float64 bit pattern, the magnitude as that of a float64."""
    if not single:
        return pattern >> np.uint64(63), pattern & np.uint64(0x7FFFFFFFFFFFFFFF)
    sign = pattern >> np.uint64(31)
    exponent = (pattern >> np.uint64(23)) & np.uint64(0xFF)
    mantissa = pattern & np.uint64(0x7FFFFF)
    if exponent == np.uint64(0xFF):
        exponent = np.uint64(0x7FF)
    elif exponent != 0:
        exponent += np.uint64(896)
    elif mantissa != 0:
        exponent = np.uint64(897)
        while mantissa >> np.uint64(23) == 0:
            mantissa = mantissa << np.uint64(1)
            exponent -= np.uint64(1)
        mantissa = mantissa & np.uint64(0x7FFFFF)
    return sign, (exponent << np.uint64(52)) | (mantissa << np.uint64(29))


@kernel
def _encode_by_thresholds(patterns, single, positive, negative, smallest, half, to, out):  # type: ignore[no-untyped-def]
    """Deterministic rounding, with the tables of `locate` for either sign and the patterns of smallest and its half."""
    infinity, smallest, half = np.uint64(0x7FF0000000000000), np.uint64(smallest), np.uint64(half)
    for i in range(patterns.size):
        sign, a = _widen(np.uint64(patterns[i]), single)
        if a == 0:
            m = np.int64(0)
        elif a > infinity:
            m = np.int64(-1)
        elif a == infinity:
            m = to.overflow
        elif a < smallest:
            if to.mode == NEAREST:
                m = np.int64(to.saturate or a >= half)
            else:
                m = np.int64(to.saturate or to.mode == (DOWN if sign else UP))
        else:
            table = negative if sign else positive
            m = locate(a, table[0], table[1], table[2], table[3]) - to.lowest + 1
            if m > to.max_magnitude:
                m = to.overflow
        out[i] = pack(m, np.int64(sign), to.sign_bit)


@kernel
def _encode_by_logarithm(patterns, single, random, to, out, hard):  # type: ignore[no-untyped-def]
    """Any rounding; returns how many elements are left to integers, their indices in `hard`."""
    infinity = np.uint64(0x7FF0000000000000)
    stride = 0 if random.size == 1 else 1
    unresolved = 0
    for i in range(patterns.size):
        sign, a = _widen(np.uint64(patterns[i]), single)
        if a == 0:
            m = np.int64(0)
        elif a > infinity:
            m = np.int64(-1)
        elif a == infinity:
            m = to.overflow
        else:
            r, error = _position(np.uint64(a).view(np.float64), to.steps_in_two, to.steps_error)
            m = settle(np.int64(0), r, error, random[i * stride], sign != 0, to)
            if m == DOUBT:
                hard[unresolved] = i
                unresolved += 1
        out[i] = pack(m, np.int64(sign), to.sign_bit)
    return unresolved


@kernel
def _position(x, steps_in_two, steps_error):  # type: ignore[no-untyped-def]
    """2^F log_base x of a positive double, and a bound of its error."""
    exponent, log = log2_parts(x)
    r = steps_in_two * (exponent + log)
    if log == 0.0 and (exponent == 0 or steps_error == 0.0):
        return r, 0.0
    return r, steps_in_two * LOG2_ERROR + abs(r) * 2.0**-50


SIDES: dict[Rounding, tuple[Side, Side]] = {
    "nearest": ("nearest", "nearest"),
    "toward_zero": ("floor", "floor"),
    "up": ("ceil", "floor"),
    "down": ("floor", "ceil"),
}
"""The side of a magnitude's rounding where x > 0 and where x < 0."""


def _float_patterns(x: ArrayLike, dtype: str | None) -> NDArray[Any]:
    """The bits of the floats `x` as uint32 (of float32) or uint64 (of float64); both steps of widening are exact."""
    array = np.asarray(x)
    name = array.dtype.name if dtype is None else dtype
    if name not in FLOAT_TYPES:
        raise TypeError(f"encode takes float64, float32, float16 or bfloat16, not {name}: convert the array first")
    if name == "bfloat16":
        if array.dtype.name not in ("bfloat16", "uint16"):
            raise TypeError(f"bfloat16 comes as an array of uint16 bit patterns, not of {array.dtype}")
        native = array if array.dtype.isnative else array.byteswap().view(array.dtype.newbyteorder("="))
        return np.asarray(native, order="C").view(np.uint16).astype(np.uint32) << np.uint32(16)
    if array.dtype.name != name:
        raise TypeError(f"dtype={name!r} was given for an array of {array.dtype}: leave it out, or convert the array")
    wide = np.float64 if name == "float64" else np.float32
    return np.asarray(array, dtype=wide, order="C").view(np.uint64 if wide is np.float64 else np.uint32)


def check_random_bits(random_bits: ArrayLike | None, rounding: Rounding, shape: tuple[int, ...]) -> UInt32Array | None:
    """The random bits that a mode needs, broadcast to `shape`; None where it needs none."""
    if not rounding.startswith("stochastic"):
        if random_bits is not None:
            raise ValueError(f"rounding={rounding!r} takes no random_bits: leave them out")
        return None
    if random_bits is None:
        raise ValueError(f"rounding={rounding!r} needs random_bits: lnsnum.random_bits(shape, seed=...) makes them")
    array = np.asarray(random_bits)
    if array.dtype != np.uint32:
        raise TypeError(f"random_bits are uint32, not {array.dtype}")
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"random_bits of shape {array.shape} do not broadcast to {shape}") from None


def check_modes(rounding: Rounding, overflow: Overflow, underflow: Underflow) -> None:
    """Raise ValueError where one of the three is not known."""
    check_choice("rounding", rounding, Rounding)
    check_choice("overflow", overflow, Overflow)
    check_choice("underflow", underflow, Underflow)


def encode(
    x: ArrayLike,
    fmt: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    log_offset: LogOffset = 0,
    random_bits: ArrayLike | None = None,
    dtype: str | None = None,
) -> Codes:
    """The codes of floats, correctly rounded in every mode.

    Args:
        x: float64, float32 or float16 of any shape, or uint16 with dtype="bfloat16".
        fmt: the format.
        rounding: "nearest" (ties to even) and "stochastic_log" round on the log axis, "stochastic_value" on the value
            axis; "toward_zero", "up", "down" are the same on both.
        overflow: "saturate" or "nan", for magnitudes that round above the greatest, and for infinities.
        underflow: "round" to zero or the smallest by the mode, or "saturate" at the smallest.
        log_offset: the scale in code steps, an integer or an int32 array that broadcasts to x.
        random_bits: uint32, broadcasts to x; for the stochastic modes, and only for them.
        dtype: what the elements of x are, where its own dtype does not say so ("bfloat16").

    Returns:
        An array of fmt.dtype in the shape of x.

    Raises:
        TypeError: where x is no array of floats, or random_bits are not uint32.
        ValueError: for an unknown mode, missing random_bits, shapes that do not broadcast, an offset beyond 2^30.

    >>> from lnsnum import lns8f3
    >>> encode([1.0, -2.0, 0.0, float("nan")], lns8f3)
    array([ 64, 200,   0, 128], dtype=uint8)
    """
    check_format(fmt)
    check_modes(rounding, overflow, underflow)
    patterns = _float_patterns(x, dtype)
    random = check_random_bits(random_bits, rounding, patterns.shape)
    offset = check_offsets(log_offset, patterns.shape)
    encode_block = partial(_encode_block, fmt=fmt, rounding=rounding, overflow=overflow, underflow=underflow)
    return _by_offset(encode_block, offset, fmt.dtype, *(patterns,) if random is None else (patterns, random))


NO_RANDOM_BITS = np.zeros(1, np.uint32)
"""What kernels take where no random bits are needed."""


def _encode_block(
    log_offset: int,
    patterns: NDArray[Any],
    random: UInt32Array = NO_RANDOM_BITS,
    *,
    fmt: LNSFormat,
    rounding: Rounding,
    overflow: Overflow,
    underflow: Underflow,
) -> Codes:
    to = target(fmt, log_offset, rounding=rounding, overflow=overflow, underflow=underflow)
    single = patterns.itemsize == 4
    out = np.empty(patterns.shape, fmt.dtype)
    if rounding in SIDES and fmt.base == 2.0 and fmt.fraction_bits <= MOST_THRESHOLDS:
        positive, negative = (thresholds(fmt.fraction_bits, side) for side in SIDES[rounding])
        _encode_by_thresholds(patterns, single, positive, negative, *_edges(fmt, log_offset), to, out)
        return out
    hard = np.empty(patterns.shape, np.int64)
    unresolved = _encode_by_logarithm(patterns, single, random, to, out, hard)

    def case(i: int) -> tuple[Value, bool, int, float]:
        sign, magnitude = _widen(np.uint64(patterns[i]), single)
        significand, exponent = FLOAT_TYPES["float64"].split(int(magnitude))
        position, _ = _position(np.uint64(magnitude).view(np.float64), to.steps_in_two, to.steps_error)
        return Sum((Term(significand, exponent, Fraction(0)),)), sign != 0, int(random[i % random.size]), position

    left = hard[:unresolved]
    if rounding in SIDES and unresolved > _FEW:
        left = left[_encode_by_powers(patterns[left], single, rounding, fmt, to, out, left)]
    resolve(left, case, fmt, to, out)
    return out


_FEW = 100
"""So many elements integers decide sooner than the tables of `lnsnum.elementary` are made. Of more scales none
gets a table."""


@kernel
def _sides(patterns, single, steps_in_two, half, significand, exponent, positions, sides):  # type: ignore[no-untyped-def]
    """Fill in the positions where `sides` is empty; else the side of each float from significand 2^(exponent - 63)."""
    for i in range(patterns.size):
        _, a = _widen(np.uint64(patterns[i]), single)
        if sides.size == 0:
            r, _ = _position(np.uint64(a).view(np.float64), steps_in_two, 1.0)
            positions[i] = np.int64(math.floor(r) if half else math.floor(r + 0.5))
            continue
        e = np.int64(a >> np.uint64(52)) - 1023
        s = ((a & np.uint64(0xFFFFFFFFFFFFF)) | np.uint64(0x10000000000000)) << np.uint64(11)
        above = e > exponent[i] or (e == exponent[i] and s > significand[i])
        sides[i] = 0 if e == exponent[i] and s == significand[i] else (1 if above else -1)


def _encode_by_powers(
    patterns: NDArray[Any],
    single: bool,
    rounding: Rounding,
    fmt: LNSFormat,
    to: Target,
    out: Codes,
    at: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Decide floats next to a boundary by comparing them with it, a power of the base; returns which are still open.

    That is the exact comparison of `lnsnum.thresholds` with a threshold made for each float. Open are those at the ends
    of the range, subnormal floats, and floats so near to a position of 2^50 steps that the boundary itself is in doubt.
    """
    half = rounding == "nearest"
    n, sides = np.empty(patterns.shape, np.int64), np.empty(patterns.shape, np.int8)
    nothing = np.empty(0, np.uint64), np.empty(0, np.int64)
    _sides(patterns, single, to.steps_in_two, half, *nothing, n, sides[:0])
    inside: NDArray[np.bool_] = (n > to.lowest) & (n < to.lowest + to.max_magnitude - 2) & (to.steps_in_two < 2.0**40)
    normal = (patterns & _MAGNITUDE[single]) >= _LEAST_NORMAL[single]
    open_: NDArray[np.bool_] = ~(inside & normal)
    n, chosen, where = n[~open_], patterns[~open_], at[~open_]
    boundary = significands(fmt.base, fmt.fraction_bits + half, 2 * n + 1 if half else n)
    sides = np.empty(n.shape, np.int8)
    _sides(chosen, single, to.steps_in_two, half, *boundary, n, sides)
    negative = (chosen & ~_MAGNITUDE[single]) != 0
    if half:
        n += (sides > 0) | ((sides == 0) & (n & 1 == 1))
    else:
        upper, lower = (np.array([side == name for side in SIDES[rounding]]) for name in ("ceil", "floor"))
        sign = negative.astype(np.int64)
        n += ((sides > 0) & upper[sign]).astype(np.int64) - ((sides < 0) & lower[sign])
    out[where] = n - to.lowest + 1 + np.where(negative, to.sign_bit, 0)
    return open_


_MAGNITUDE: dict[bool, Any] = {True: np.uint32(0x7FFFFFFF), False: np.uint64(0x7FFFFFFFFFFFFFFF)}
_LEAST_NORMAL: dict[bool, Any] = {True: np.uint32(0x00800000), False: np.uint64(0x0010000000000000)}


@lru_cache(maxsize=4096)
def _edges(fmt: LNSFormat, log_offset: int) -> tuple[int, int]:
    """Patterns of the least float64 not below the smallest nonzero magnitude, and not below half of it."""
    log = log_offset - fmt.max_log
    return (
        exact.float64_threshold(fmt.base, log, fmt.fraction_bits),
        exact.float64_threshold(fmt.base, log, fmt.fraction_bits, halved=True),
    )


def fit_log_offset(x: ArrayLike, fmt: LNSFormat, *, rounding: Rounding = "nearest", dtype: str | None = None) -> int:
    """The least log_offset at which no finite element of x saturates; 0 where none is finite and nonzero.

    Args and errors as for `encode`; the stochastic modes are judged as rounding away from zero, so that no draw
    saturates.

    Raises:
        ValueError: where that offset would be beyond 2^30.

    >>> from lnsnum import lns8f3
    >>> fit_log_offset([100.0, -300.0], lns8f3)
    3
    """
    check_format(fmt)
    check_choice("rounding", rounding, Rounding)
    patterns = _float_patterns(x, dtype)
    source = FLOAT_TYPES["float32" if patterns.itemsize == 4 else "float64"]
    magnitude = patterns & patterns.dtype.type((1 << (source.bits - 1)) - 1)
    is_negative = magnitude != patterns
    logs = []
    for negative in (False, True):
        eligible = (magnitude < source.infinity) & (is_negative == negative)
        greatest = int(np.max(magnitude, where=eligible, initial=0))
        if greatest:
            logs.append(_round_log(*source.split(greatest), negative, fmt, rounding))
    return check_log_offset(max(max(logs) - fmt.max_log, -MAX_LOG_OFFSET)) if logs else 0


def _round_log(significand: int, exponent: int, negative: bool, fmt: LNSFormat, rounding: Rounding) -> int:
    """E of significand * 2^exponent; the stochastic modes round up."""
    side = "ceil" if rounding.startswith("stochastic") else SIDES[rounding][negative]
    log = {"floor": exact.floor_log, "ceil": exact.ceil_log, "nearest": exact.nearest_log}[side]
    return log(significand, exponent, fmt.base, fmt.fraction_bits)


@lru_cache(maxsize=64)
def _exact_significands(base: float, fraction_bits: int, lowest: int, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """`exact.significand64` of `count` grid points from E = lowest: two arrays, uint64 and int64."""
    pairs = [exact.significand64(base, lowest + j, fraction_bits) for j in range(count)]
    return np.array([p[0] for p in pairs], np.uint64), np.array([p[1] for p in pairs], np.int64)


@kernel
def _round_significand(s, exponent, mantissa_bits, max_exponent):  # type: ignore[no-untyped-def]
    """The bit pattern of s 2^(exponent - 63), s from 2^63 on, to nearest with ties to even, once."""
    if exponent > max_exponent:
        return np.uint64(2 * max_exponent + 1) << np.uint64(mantissa_bits)
    biased = exponent + max_exponent - 1
    drop = np.int64(63 - mantissa_bits)
    if biased < 0:
        drop, biased = drop - biased, np.int64(0)
    if drop > 64:
        return np.uint64(0)
    half = np.uint64(1) << np.uint64(drop - 1)
    kept = s >> np.uint64(drop) if drop < 64 else np.uint64(0)
    rest = s - (kept << np.uint64(drop)) if drop < 64 else s
    kept += np.uint64(rest > half or (rest == half and kept & np.uint64(1) == np.uint64(1)))
    pattern = (np.uint64(biased) << np.uint64(mantissa_bits)) + kept
    return min(pattern, np.uint64(2 * max_exponent + 1) << np.uint64(mantissa_bits))


@kernel
def _round_significands(s, exponent, negative, mantissa_bits, max_exponent, sign_bit, out):  # type: ignore[no-untyped-def]
    """The floats (-1)^negative s 2^(exponent - 63) as bit patterns; a zero has no sign."""
    for i in range(s.size):
        pattern = _round_significand(s[i], exponent[i], mantissa_bits, max_exponent)
        out[i] = pattern | (np.uint64(negative[i] and pattern != 0) << np.uint64(sign_bit))


_FEW_BITS = 10
"""Formats up to this many bits do without the tables of `lnsnum.elementary`: fewer entries to compute."""

_BLOCK = 1 << 14


def decode_table(fmt: LNSFormat, log_offset: int, dtype: str) -> NDArray[Any]:
    """The bit pattern in `dtype` of every code: 2^bits unsigned integers. The array is shared: do not write to it."""
    return (_small_table if fmt.bits <= 8 else _large_table)(fmt, log_offset, dtype)


def _make_decode_table(fmt: LNSFormat, log_offset: int, dtype: str) -> NDArray[Any]:
    to = FLOAT_TYPES[dtype]
    logs = np.arange(log_offset - fmt.max_log, log_offset + fmt.max_log + 1)
    if fmt.base == 2.0 and fmt.bits <= WIDEST_TABLE:
        fraction, _ = _exact_significands(2.0, fmt.fraction_bits, 0, 1 << fmt.fraction_bits)
        significand = fraction[logs & ((1 << fmt.fraction_bits) - 1)]
        exponent = logs >> fmt.fraction_bits
    elif fmt.bits <= _FEW_BITS:
        significand, exponent = _exact_significands(fmt.base, fmt.fraction_bits, int(logs[0]), logs.size)
    else:
        significand, exponent = significands(fmt.base, fmt.fraction_bits, logs)
    table = np.zeros(1 << fmt.bits, to.pattern)
    for sign, start in ((False, 1), (True, fmt.sign_bit + 1)):
        part = table[start : start + logs.size]
        _round_significands(
            significand,
            exponent,
            np.broadcast_to(sign, logs.shape),
            to.mantissa_bits,
            to.max_exponent,
            to.bits - 1,
            part,
        )
    table[fmt.nan_code] = to.nan
    return table


def _decode_by_powers(codes: Codes, fmt: LNSFormat, log_offset: Any, dtype: str) -> NDArray[Any]:
    """Bit patterns of one-dimensional codes: where a format is too wide for a table, or the scales are many."""
    to = FLOAT_TYPES[dtype]
    logs = (codes.astype(np.int64) & fmt.max_magnitude) + (log_offset - fmt.bias)
    out = np.empty(codes.shape, to.pattern)
    for start in range(0, codes.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        significand, exponent = significands(fmt.base, fmt.fraction_bits, logs[part])
        negative = codes[part] >= fmt.sign_bit
        _round_significands(significand, exponent, negative, to.mantissa_bits, to.max_exponent, to.bits - 1, out[part])
    out[codes == 0] = 0
    out[codes == fmt.nan_code] = to.nan
    return out


_small_table = lru_cache(maxsize=4096)(_make_decode_table)
_large_table = lru_cache(maxsize=64)(_make_decode_table)


@kernel
def gather(codes: NDArray[Any], table: NDArray[Any], out: NDArray[Any]) -> None:
    """out[i] = table[codes[i]], all contiguous and one-dimensional."""
    for i in range(codes.size):
        out[i] = table[codes[i]]


def decode(codes: ArrayLike, fmt: LNSFormat, dtype: str = "float64", *, log_offset: LogOffset = 0) -> NDArray[Any]:
    """The floats that codes stand for, each rounded once (to nearest, ties to even).

    Args:
        codes: unsigned integers of any shape.
        fmt: their format.
        dtype: "float64", "float32", "float16", or "bfloat16" (given as uint16 bit patterns).
        log_offset: the scale in code steps, an integer or an int32 array that broadcasts to codes.

    Raises:
        TypeError: where codes are no integers.
        ValueError: where a code lies outside the format, or the dtype is not one of the four.

    >>> from lnsnum import lns8f3
    >>> decode([64, 200, 0, 128], lns8f3)
    array([ 1., -2.,  0., nan])
    """
    check_format(fmt)
    name = np.dtype(dtype).name if not isinstance(dtype, str) else dtype
    if name not in FLOAT_TYPES:
        raise ValueError(f"dtype={name!r} is not known: one of {', '.join(FLOAT_TYPES)}")
    array = check_codes(codes, fmt)
    offset = check_offsets(log_offset, array.shape)

    def decode_block(block_offset: int, block: NDArray[Any]) -> NDArray[Any]:
        if fmt.bits > WIDEST_TABLE:
            return _decode_by_powers(block, fmt, np.int64(block_offset), name)
        patterns = np.empty(block.shape, FLOAT_TYPES[name].pattern)
        gather(block, decode_table(fmt, block_offset, name), patterns)
        return patterns

    if isinstance(offset, np.ndarray) and offset.size > _FEW and np.unique(offset).size > _FEW:
        each = np.broadcast_to(offset, array.shape).reshape(-1).astype(np.int64)
        out = _decode_by_powers(np.ascontiguousarray(array).reshape(-1), fmt, each, name).reshape(array.shape)
    else:
        out = _by_offset(decode_block, offset, FLOAT_TYPES[name].pattern, array)
    return out if name == "bfloat16" else out.view(name)
