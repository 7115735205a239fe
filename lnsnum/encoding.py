"""Float -> code.

    E = round(2^F log_base |x|),   m = E + bias - log_offset        (docs/number_format.md, "Encode")

Arrays go through the loops of `lnsnum.kernels.vector_encoding` where an octave has a whole number of steps. What these
leave open, short arrays and all others are encoded one by one: at base 2 with few fraction bits by counting exact
thresholds (`lnsnum.kernels.thresholds`) on the bits of the float, so that no logarithm is ever rounded; otherwise by a
logarithm with a bound of its error (`lnsnum.kernels.elementary`), and by integers where the bound leaves the code open.
Subnormals are read as they are, even where the processor flushes them.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_choice, check_log_offset
from lnsnum.kernels import vector_encoding
from lnsnum.kernels.codes import (
    FLOAT_TYPES,
    NO_RANDOM_BITS,
    Codes,
    LogOffset,
    by_offset,
    check_format,
    check_modes,
    check_offsets,
    check_random_bits,
    check_unmasked,
    least_offset,
)
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import Sum, Term, Value, resolve
from lnsnum.kernels.elementary import LOG2_ERROR, log2_parts, significands
from lnsnum.kernels.rounding import (
    DOUBT,
    DOWN,
    MODES,
    NEAREST,
    UP,
    Target,
    UInt32Array,
    check_key,
    pack,
    settle,
    target,
)
from lnsnum.kernels.rounding import random_bits as draw_random_bits
from lnsnum.kernels.threads import Part, Team, in_parts
from lnsnum.kernels.thresholds import ONE, Side, locate, threshold, thresholds

MOST_THRESHOLDS = 10
"""Formats of base 2 up to this many fraction bits encode by a table of thresholds."""


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


def float_patterns(x: ArrayLike, dtype: str | None) -> NDArray[Any]:
    """The bits of the floats `x` as uint32 (of float32) or uint64 (of float64); both steps of widening are exact."""
    check_unmasked(x)
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


def encode(
    x: ArrayLike,
    fmt: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    log_offset: LogOffset = 0,
    random_bits: ArrayLike | None = None,
    seed: int | None = None,
    stream: int = 0,
    step: int = 0,
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
        seed, stream, step: instead of random_bits: those of `random_bits` by that name, drawn on the way, which is
            faster than an array of them. A mode that takes none draws none.
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
    modes: dict[str, Any] = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
    key = None if seed is None else (seed, stream, step)
    patterns, bits, key = read(x, dtype, random_bits, key, **modes)
    offset = check_offsets(log_offset, patterns.shape)
    if key is not None and not isinstance(offset, int):
        bits, key = (_draw(key, patterns.size).reshape(patterns.shape),), None
    block = partial(_encode_block, fmt=fmt, key=key, **modes)
    return by_offset(block, offset, fmt.dtype, patterns, *bits)


Key = tuple[int, int, int]
"""Seed, stream and step: what random bits are drawn by."""


def read(
    x: ArrayLike,
    dtype: str | None,
    random_bits: ArrayLike | None,
    key: Key | None,
    *,
    rounding: Rounding,
    overflow: Overflow,
    underflow: Underflow,
) -> tuple[NDArray[Any], tuple[UInt32Array, ...], Key | None]:
    """Check the arguments of `encode`: the patterns of x, and its random bits or their key where the mode takes any."""
    check_modes(rounding, overflow, underflow)
    patterns = float_patterns(x, dtype)
    if key is not None:
        key = check_key(*key)
        if random_bits is not None:
            raise ValueError("random_bits and a seed were given: leave out one of them")
        if rounding.startswith("stochastic"):
            return patterns, (), key
    random = check_random_bits(random_bits, rounding, patterns.shape)
    return patterns, () if random is None else (random,), None


def _encode_block(
    log_offset: int, patterns: NDArray[Any], *random: UInt32Array, fmt: LNSFormat, **options: Any
) -> Codes:
    out = np.empty(patterns.shape, fmt.dtype)
    encode_patterns(patterns, out, fmt, log_offset, *random, **options)
    return out


def encode_patterns(
    patterns: NDArray[Any],
    out: Codes,
    fmt: LNSFormat,
    log_offset: int,
    random: UInt32Array = NO_RANDOM_BITS,
    *,
    rounding: Rounding,
    overflow: Overflow,
    underflow: Underflow,
    key: Key | None = None,
    threads: int | Team | None = None,
) -> None:
    """Write the codes of patterns (uint32 of float32, uint64 of float64) at one scale; `out` is contiguous.

    In vectors where that is possible, then one by one what they leave open. A stochastic mode takes `random`, one word
    for each, or the words of a `key`.
    """
    patterns, random = (np.ascontiguousarray(array).reshape(-1) for array in (patterns, random))
    out = out.reshape(-1)
    to = target(fmt, log_offset, rounding=rounding, overflow=overflow, underflow=underflow)
    fill = _vector_fill(patterns, random, fmt, to, key, out)
    if fill is None:
        _encode_each(patterns, random if key is None else _draw(key, patterns.size), fmt, to, out)
        return
    left = in_parts(fill, patterns.size, _PARALLEL, threads=threads)
    if left.size:
        if key is None:
            part = random[left] if random.size > 1 else random
        elif left.size <= _FEW:
            part = np.concatenate([_draw(key, 1, start=i) for i in left])
        else:
            part = _draw(key, patterns.size)[left]
        rest = np.empty(left.shape, fmt.dtype)
        _encode_each(patterns[left], part, fmt, to, rest)
        out[left] = rest


def _draw(key: Key, n: int, start: int = 0) -> UInt32Array:
    return draw_random_bits(n, seed=key[0], stream=key[1], step=key[2], start=start)


_PARALLEL = 1 << 18


def _vector_fill(
    patterns: NDArray[Any],
    random: UInt32Array,
    fmt: LNSFormat,
    to: Target,
    key: Key | None,
    out: Codes,
) -> Part | None:
    """fill(begin, end, hard) writes those codes and says how many it leaves open; None where no vectors serve."""
    steps, single = to.steps_in_two, patterns.itemsize == 4
    signed = patterns.view(f"i{patterns.itemsize}")
    if to.steps_error != 0.0 or steps != int(steps) or patterns.size < vector_encoding.CHUNK:
        return None
    if single and fmt.bits <= 16 and steps <= vector_encoding.MOST_STEPS:
        by, terms = vector_encoding.lane(to), vector_encoding.terms(steps)
        if to.mode == NEAREST and fmt.base == 2.0 and steps <= vector_encoding.MOST_COUNTED and by.least == 0:
            counts = _counts(fmt, to.lowest + fmt.max_log)

            def fill_by_counting(begin: int, end: int, hard: NDArray[np.int64]) -> int:
                vector_encoding.nearest_by_counting(signed[begin:end], by, counts, out[begin:end])
                return 0

            return fill_by_counting
        drawn = (0, 0, 0) if key is None else key
        stochastic = random.size > 1

        def fill(begin: int, end: int, hard: NDArray[np.int64]) -> int:
            part = random[begin:end] if stochastic else random
            count: int = vector_encoding.encode_single(
                signed[begin:end], to.mode, by, terms, part, key is not None, drawn, begin, out[begin:end], hard
            )
            return count

        return fill
    if to.mode == NEAREST and steps <= 2.0**30:

        def fill_wide(begin: int, end: int, hard: NDArray[np.int64]) -> int:
            count: int = vector_encoding.encode_double(signed[begin:end], to, out[begin:end], hard)
            return count

        return fill_wide
    return None


@lru_cache(maxsize=256)
def _counts(fmt: LNSFormat, log_offset: int) -> vector_encoding.Counts:
    """The thresholds of an octave and that of half of the smallest, in float32."""
    steps = 1 << fmt.fraction_bits
    exact_ones = [threshold(fmt.fraction_bits, "nearest", log) - ONE for log in range(1, steps + 1)]
    least = [-(-mantissa >> 29) for mantissa in exact_ones]  # the least float32 mantissa that is not below
    never = 1 << 23
    padded = [min(mantissa, never) for mantissa in least] + [never] * (vector_encoding.MOST_COUNTED - steps)
    half = -(-(_edges(fmt, log_offset)[1] - (896 << 52)) >> 29)
    half = min(max(half, 0x00800000), FLOAT_TYPES["float32"].infinity)
    return vector_encoding.Counts(np.array(padded, np.int32), np.int32(half))


def _encode_each(patterns: NDArray[Any], random: UInt32Array, fmt: LNSFormat, to: Target, out: Codes) -> None:
    """The codes one by one, decided by integers where floating point leaves them open."""
    single, rounding = patterns.itemsize == 4, MODES[to.mode]
    if rounding in SIDES and fmt.base == 2.0 and fmt.fraction_bits <= MOST_THRESHOLDS:
        positive, negative = (thresholds(fmt.fraction_bits, side) for side in SIDES[rounding])
        edges = _edges(fmt, to.lowest + fmt.max_log)
        _encode_by_thresholds(patterns, single, positive, negative, *edges, to, out)
        return
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


_FEW = 100
"""So many elements integers decide sooner than the tables of `lnsnum.kernels.elementary` are made."""


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

    That is the exact comparison of `lnsnum.kernels.thresholds` with a threshold made for each float. Open are those at
    the ends of the range, subnormal floats, and floats so near to a position of 2^50 steps that the boundary itself is
    in doubt.
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
    greatest = greatest_log(float_patterns(x, dtype), fmt, rounding)
    return 0 if greatest is None else check_log_offset(least_offset(greatest, fmt))


def greatest_log(patterns: NDArray[Any], fmt: LNSFormat, rounding: Rounding) -> int | None:
    """The greatest E, rounded, of finite floats by their patterns; None where all are zero or not finite."""
    source = FLOAT_TYPES["float32" if patterns.itemsize == 4 else "float64"]
    magnitude = patterns & patterns.dtype.type((1 << (source.bits - 1)) - 1)
    is_negative = magnitude != patterns
    logs = []
    for negative in (False, True):
        eligible = (magnitude < source.infinity) & (is_negative == negative)
        greatest = int(np.max(magnitude, where=eligible, initial=0))
        if greatest:
            logs.append(_round_log(*source.split(greatest), negative, fmt, rounding))
    return max(logs, default=None)


def _round_log(significand: int, exponent: int, negative: bool, fmt: LNSFormat, rounding: Rounding) -> int:
    """E of significand * 2^exponent; the stochastic modes round up."""
    side = "ceil" if rounding.startswith("stochastic") else SIDES[rounding][negative]
    log = {"floor": exact.floor_log, "ceil": exact.ceil_log, "nearest": exact.nearest_log}[side]
    return log(significand, exponent, fmt.base, fmt.fraction_bits)
