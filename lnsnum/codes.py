"""Floats and codes: float -> code, code -> float.

    encode:   E = round(2^F log_base |x|),   m = E + bias - log_offset        (docs/number_format.md)

Encoding counts exact thresholds (`lnsnum.thresholds`) on the bits of the float, so no logarithm is ever rounded and
subnormals are read even where the processor flushes them. Decoding is a table with one correctly rounded entry for each
code. The stochastic modes compare the random bits with a probability in double precision; where the two are closer than
its error bound (about one element in 2^40), integers decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_choice, check_log_offset
from lnsnum.kernel import kernel
from lnsnum.rounding import UInt32Array
from lnsnum.thresholds import Side, Thresholds, edges, locate, thresholds

Codes = NDArray[np.unsignedinteger[Any]]
LogOffset = int | NDArray[np.int32]

WIDEST_TABLE = 16
"""Formats up to this many bits convert by exact tables."""

RANDOM = 1 << 32


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


def _check_is_format(fmt: LNSFormat) -> None:
    if not isinstance(fmt, LNSFormat):
        raise TypeError(f"{fmt!r} is a {type(fmt).__name__}, not an LNSFormat: LNSFormat.parse reads a name")


def check_format(fmt: LNSFormat) -> None:
    """Raise TypeError where `fmt` is no format, NotImplementedError where it is too wide for the tables."""
    _check_is_format(fmt)
    if fmt.bits > WIDEST_TABLE:
        raise NotImplementedError(
            f"{fmt.name} is wider than {WIDEST_TABLE} bits: conversions of wider formats are not there yet"
        )


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
def pack(m, sign, sign_bit):  # type: ignore[no-untyped-def]
    """The code of a magnitude and a sign; m = -1 stands for NaN, and zero has no sign."""
    if m < 0:
        return sign_bit
    return m + sign * sign_bit if m > 0 else m


@kernel
def _encode(  # type: ignore[no-untyped-def]
    patterns, single, positive, negative, smallest, half, below, shift_log, max_magnitude, overflow, out
):
    """Deterministic rounding, with the tables of `locate` for either sign.

    `below` holds the magnitudes of an underflow (below half and from half on, for x > 0 and for x < 0), `overflow` that
    of an overflow.
    """
    infinity, smallest, half = np.uint64(0x7FF0000000000000), np.uint64(smallest), np.uint64(half)
    sign_bit = max_magnitude + 1
    for i in range(patterns.size):
        sign, a = _widen(np.uint64(patterns[i]), single)
        if a == 0:
            m = np.int64(0)
        elif a > infinity:
            m = np.int64(-1)
        elif a < smallest:
            m = below[2 * np.int64(sign) + np.int64(a >= half)]
        elif a == infinity:
            m = overflow
        else:
            table = negative if sign else positive
            m = locate(a, table[0], table[1], table[2], table[3]) + shift_log
            if m > max_magnitude:
                m = overflow
        out[i] = pack(m, np.int64(sign), sign_bit)


@kernel
def _encode_stochastic(  # type: ignore[no-untyped-def]
    patterns, single, random, value_axis, floor, grid, growth, smallest, half, smallest_value, saturate,
    shift_log, max_magnitude, overflow, out, hard,
):  # fmt: skip
    """Stochastic rounding; returns how many elements are left to integers, their indices in `hard`.

    With lo the grid point below x as a sum of two doubles, to 2^-63, and rho = (x - lo) / lo, the probability of going
    up is rho / (step - 1) on the value axis and log(1 + rho) / log(step) on the log axis. `growth` is step - 1. Its
    error is below 2^-49 + 2^-63 / growth, and so that of the 32-bit threshold below 2^-10 where growth is at least
    2^-20; random bits closer to it than 2^-8 are hard, and all are where growth is less.
    """
    infinity, smallest, half = np.uint64(0x7FF0000000000000), np.uint64(smallest), np.uint64(half)
    tiny = np.uint64(0x0600000000000000)
    sign_bit = max_magnitude + 1
    inverse = 1.0 / growth if value_axis else 1.0 / math.log1p(growth)
    coarse = growth >= 9.5367431640625e-07
    unresolved = 0
    for i in range(patterns.size):
        sign, a = _widen(np.uint64(patterns[i]), single)
        r = np.float64(random[i])
        threshold = 0.0
        m = np.int64(0)
        is_hard = False
        if a == 0:
            m = np.int64(0)
        elif a > infinity:
            m = np.int64(-1)
        elif a < smallest:
            if saturate:
                m = np.int64(1)
            elif not value_axis:
                m = np.int64(a >= half)
            else:
                x = np.uint64(a).view(np.float64)
                threshold = x / smallest_value * 4294967296.0
                is_hard = a < tiny or not abs(r - threshold) > 0.00390625
        elif a == infinity:
            m = overflow
        else:
            log = locate(a, floor[0], floor[1], floor[2], floor[3])
            m = log + shift_log
            if m > max_magnitude:
                m = overflow
            else:
                if floor[0] > 0:
                    exponent = log // floor[0]
                    j = log - exponent * floor[0]
                    exponent_bits = np.int64(a >> np.uint64(52))
                    if exponent_bits == 0:
                        is_hard = True
                    mantissa = a & np.uint64(0xFFFFFFFFFFFFF)
                    x = np.uint64(mantissa | np.uint64(0x3FF0000000000000)).view(np.float64)
                else:
                    j = m - 1
                    x = np.uint64(a).view(np.float64)
                    is_hard = a < tiny
                rho = ((x - grid[0, j]) - grid[1, j]) / grid[0, j]
                up = rho * inverse if value_axis else math.log1p(rho) * inverse
                threshold = up * 4294967296.0
                is_hard = is_hard or not (coarse and abs(r - threshold) > 0.00390625)
        if is_hard:
            hard[unresolved] = i
            unresolved += 1
        elif r < threshold:
            m += 1
            if m > max_magnitude:
                m = overflow
        out[i] = pack(m, np.int64(sign), sign_bit)
    return unresolved


SIDES: dict[Rounding, tuple[Side, Side]] = {
    "nearest": ("nearest", "nearest"),
    "toward_zero": ("floor", "floor"),
    "up": ("ceil", "floor"),
    "down": ("floor", "ceil"),
}
"""The side of a magnitude's rounding where x > 0 and where x < 0."""

BELOW: dict[Rounding, tuple[int, int, int, int]] = {
    "nearest": (0, 1, 0, 1),
    "toward_zero": (0, 0, 0, 0),
    "up": (1, 1, 0, 0),
    "down": (0, 0, 1, 1),
}
"""The magnitude of an underflow: |x| < smallest / 2 and from there on where x > 0, then the same where x < 0."""


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
        fmt: the format, at most 16 bits wide.
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
        NotImplementedError: for formats wider than 16 bits.

    >>> from lnsnum import lns8f3
    >>> encode([1.0, -2.0, 0.0, float("nan")], lns8f3)
    array([ 64, 200,   0, 128], dtype=uint8)
    """
    check_format(fmt)
    check_modes(rounding, overflow, underflow)
    patterns = _float_patterns(x, dtype)
    random = check_random_bits(random_bits, rounding, patterns.shape)
    offset = check_offsets(log_offset, patterns.shape)
    modes: dict[str, Any] = {"fmt": fmt, "rounding": rounding, "overflow": overflow, "underflow": underflow}
    if random is None:
        return _by_offset(partial(_encode_block, **modes), offset, fmt.dtype, patterns)
    return _by_offset(partial(_encode_block_stochastic, **modes), offset, fmt.dtype, patterns, random)


def overflow_magnitude(fmt: LNSFormat, overflow: Overflow) -> int:
    """The m that an overflow becomes; -1 stands for NaN."""
    return fmt.max_magnitude if overflow == "saturate" else -1


def _encode_block(
    log_offset: int,
    patterns: NDArray[Any],
    *,
    fmt: LNSFormat,
    rounding: Rounding,
    overflow: Overflow,
    underflow: Underflow,
) -> Codes:
    positive, negative = (thresholds(fmt, side, log_offset) for side in SIDES[rounding])
    below = (1, 1, 1, 1) if underflow == "saturate" else BELOW[rounding]
    smallest, half = edges(fmt, log_offset)
    out = np.empty(patterns.shape, fmt.dtype)
    _encode(
        patterns, patterns.itemsize == 4, positive, negative, smallest, half, np.array(below), fmt.bias - log_offset,
        fmt.max_magnitude, overflow_magnitude(fmt, overflow), out,
    )  # fmt: skip
    return out


@lru_cache(maxsize=64)
def _grid(base: float, fraction_bits: int, lowest: int, count: int) -> NDArray[np.float64]:
    """The grid points from E = lowest, each as an unevaluated sum of two float64 (not for use far below 2^-900)."""
    out = np.empty((2, count))
    for j in range(count):
        significand, exponent = exact.significand64(base, lowest + j, fraction_bits)
        high = significand >> 11
        if -1000 < exponent < 1024:
            out[0, j] = math.ldexp(high, exponent - 52)
            out[1, j] = math.ldexp(significand & 0x7FF, exponent - 63)
        else:
            out[:, j] = math.nan
    return out


def _encode_block_stochastic(
    log_offset: int,
    patterns: NDArray[Any],
    random: UInt32Array,
    *,
    fmt: LNSFormat,
    rounding: Rounding,
    overflow: Overflow,
    underflow: Underflow,
) -> Codes:
    floor = thresholds(fmt, "floor", log_offset)
    if floor.octave_steps:
        grid = _grid(fmt.base, fmt.fraction_bits, 0, floor.octave_steps)
    else:
        grid = _grid(fmt.base, fmt.fraction_bits, log_offset - fmt.max_log, fmt.max_magnitude)
    smallest, half = edges(fmt, log_offset)
    smallest_value = _grid(fmt.base, fmt.fraction_bits, log_offset - fmt.max_log, 1)[0, 0]
    out = np.empty(patterns.shape, fmt.dtype)
    hard = np.empty(patterns.shape, np.int64)
    growth = exact.step_minus_one(fmt.base, fmt.fraction_bits)
    unresolved = _encode_stochastic(
        patterns, patterns.itemsize == 4, random, rounding == "stochastic_value", floor, grid, growth, smallest, half,
        smallest_value, underflow == "saturate", fmt.bias - log_offset, fmt.max_magnitude,
        overflow_magnitude(fmt, overflow), out, hard,
    )  # fmt: skip
    for i in hard[:unresolved]:
        sign, pattern = _widen(np.uint64(patterns[i]), patterns.itemsize == 4)
        m = _stochastic_magnitude(int(pattern), int(random[i]), fmt, rounding, log_offset, floor)
        if m > fmt.max_magnitude:
            m = overflow_magnitude(fmt, overflow)
        out[i] = pack(m, int(sign), fmt.sign_bit)
    return out


def _stochastic_magnitude(
    pattern: int, random: int, fmt: LNSFormat, rounding: Rounding, log_offset: int, floor: Thresholds
) -> int:
    """The magnitude that a positive finite float64 is rounded to, decided by integers."""
    k = fmt.fraction_bits
    significand, exponent = FLOAT_TYPES["float64"].split(pattern)
    lowest = log_offset - fmt.max_log
    if pattern < edges(fmt, log_offset).smallest:
        return int(exact.compare_sum(significand, exponent + 32, fmt.base, k, [(random, lowest)]) > 0)
    log = int(locate(np.uint64(pattern), *floor))
    if rounding == "stochastic_log":
        up = exact.compare(significand, exponent, fmt.base, (log << 32) + random, k + 32) > 0
    else:
        terms = [(RANDOM - random, log), (random, log + 1)]
        up = exact.compare_sum(significand, exponent + 32, fmt.base, k, terms) > 0
    return log + up + fmt.bias - log_offset


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
    _check_is_format(fmt)
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
    return check_log_offset(max(logs) - fmt.max_log) if logs else 0


def _round_log(significand: int, exponent: int, negative: bool, fmt: LNSFormat, rounding: Rounding) -> int:
    """E of significand * 2^exponent; the stochastic modes round up."""
    side = "ceil" if rounding.startswith("stochastic") else SIDES[rounding][negative]
    log = {"floor": exact.floor_log, "ceil": exact.ceil_log, "nearest": exact.nearest_log}[side]
    return log(significand, exponent, fmt.base, fmt.fraction_bits)


@lru_cache(maxsize=64)
def _significands(base: float, fraction_bits: int, lowest: int, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """`exact.significand64` of `count` grid points from E = lowest: two arrays, uint64 and int64."""
    pairs = [exact.significand64(base, lowest + j, fraction_bits) for j in range(count)]
    return np.array([p[0] for p in pairs], np.uint64), np.array([p[1] for p in pairs], np.int64)


def _round_significands(significand: NDArray[Any], exponent: NDArray[Any], to: _FloatType) -> NDArray[Any]:
    """Bit patterns of significand * 2^(exponent - 63), to nearest with ties to even, once."""
    least_exponent = 1 - to.max_exponent
    drop = (64 - to.precision) + np.clip(least_exponent - exponent, 0, 64)
    gone = drop > 64
    shift = np.minimum(drop, 63).astype(np.uint64)
    one = np.uint64(1)
    kept = np.where(drop == 64, np.uint64(0), significand >> shift)
    rest = np.where(drop == 64, significand, significand & ((one << shift) - one))
    half = one << np.minimum(drop - 1, 63).astype(np.uint64)
    up = (rest > half) | ((rest == half) & (kept & one == one))
    rounded = np.where(gone, np.uint64(0), kept + up)
    biased = np.clip(exponent + to.max_exponent - 1, 0, 2 * to.max_exponent + 1).astype(np.uint64)
    patterns = (biased << np.uint64(to.mantissa_bits)) + rounded
    infinite = (exponent > to.max_exponent) | (patterns > np.uint64(to.infinity))
    return np.where(infinite, np.uint64(to.infinity), patterns).astype(to.pattern)


def decode_table(fmt: LNSFormat, log_offset: int, dtype: str) -> NDArray[Any]:
    """The bit pattern in `dtype` of every code: 2^bits unsigned integers. The array is shared: do not write to it."""
    return (_small_table if fmt.bits <= 8 else _large_table)(fmt, log_offset, dtype)


def _make_decode_table(fmt: LNSFormat, log_offset: int, dtype: str) -> NDArray[Any]:
    to = FLOAT_TYPES[dtype]
    lowest = log_offset - fmt.max_log
    if fmt.base == 2.0:
        fraction, _ = _significands(2.0, fmt.fraction_bits, 0, 1 << fmt.fraction_bits)
        logs = np.arange(lowest, lowest + fmt.max_magnitude)
        significand = fraction[logs & ((1 << fmt.fraction_bits) - 1)]
        exponent = logs >> fmt.fraction_bits
    else:
        significand, exponent = _significands(fmt.base, fmt.fraction_bits, lowest, fmt.max_magnitude)
    table = np.zeros(1 << fmt.bits, to.pattern)
    table[1 : fmt.sign_bit] = _round_significands(significand, exponent, to)
    table[fmt.sign_bit + 1 :] = table[1 : fmt.sign_bit] | to.pattern.type(1 << (to.bits - 1))
    table[fmt.sign_bit + 1 :][table[1 : fmt.sign_bit] == 0] = 0
    table[fmt.nan_code] = to.nan
    return table


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
        fmt: their format, at most 16 bits wide.
        dtype: "float64", "float32", "float16", or "bfloat16" (given as uint16 bit patterns).
        log_offset: the scale in code steps, an integer or an int32 array that broadcasts to codes.

    Raises:
        TypeError: where codes are no integers.
        ValueError: where a code lies outside the format, or the dtype is not one of the four.
        NotImplementedError: for formats wider than 16 bits.

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
        patterns = np.empty(block.shape, FLOAT_TYPES[name].pattern)
        gather(block, decode_table(fmt, block_offset, name), patterns)
        return patterns

    out = _by_offset(decode_block, offset, FLOAT_TYPES[name].pattern, array)
    return out if name == "bfloat16" else out.view(name)
