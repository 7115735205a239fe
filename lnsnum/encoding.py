"""Float -> code.

    E = round(2^F log_base |x|),   m = E + bias - log_offset        (docs/number_format.md, "Encode")

Arrays go through the loops of `lnsnum.kernels.vector_encoding` where an octave has a whole number of steps. What these
leave open, short arrays and all others are encoded one by one (`lnsnum.kernels.scalar_encoding`). Subnormals are read
as they are, even where the processor flushes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import exact
from lnsnum.format import (
    MAX_LOG_OFFSET,
    LNSFormat,
    Modes,
    Overflow,
    Rounding,
    Underflow,
    check_choice,
    check_log_offset,
)
from lnsnum.kernels import row_encoding, vector_encoding
from lnsnum.kernels.codes import (
    FLOAT_TYPES,
    NO_RANDOM_BITS,
    Codes,
    LogOffset,
    check_format,
    check_modes,
    check_offsets,
    check_random_bits,
    check_unmasked,
    least_offset,
)
from lnsnum.kernels.float8 import FLOAT8_TYPES, values_of
from lnsnum.kernels.granularity import Channels, Granularity, check_granularity
from lnsnum.kernels.rounding import MODES, NEAREST, Target, UInt32Array, check_key, target
from lnsnum.kernels.rounding import random_bits as draw_random_bits
from lnsnum.kernels.scalar_encoding import Sides, encode_each
from lnsnum.kernels.scales import Scales, in_order
from lnsnum.kernels.strides import common_order, contiguous, put_back
from lnsnum.kernels.threads import Part, Team, in_chunks, in_parts

__all__ = ["encode", "fit_log_offset"]

SIDES: dict[Rounding, Sides] = {
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
    if name in FLOAT8_TYPES:
        if array.dtype.name not in (name, "uint8"):
            raise TypeError(f"{name} comes as an array of uint8 bit patterns, not of {array.dtype}")
        return np.asarray(values_of(name)[array.view(np.uint8)]).view(np.uint32)
    if name not in FLOAT_TYPES:
        raise TypeError(
            f"encode takes float64, float32, float16, bfloat16 or a float8 of ml_dtypes, not {name}: convert the array "
            "first"
        )
    if name == "bfloat16":
        if array.dtype.name not in ("bfloat16", "uint16"):
            raise TypeError(f"bfloat16 comes as an array of uint16 bit patterns, not of {array.dtype}")
        # bfloat16 is the upper half of a float32, as bits: a shift widens it
        native = array if array.dtype.isnative else array.byteswap().view(array.dtype.newbyteorder("="))
        return native.view(np.uint16).astype(np.uint32) << np.uint32(16)
    if array.dtype.name != name:
        raise TypeError(f"dtype={name!r} was given for an array of {array.dtype}: leave it out, or convert the array")
    # float16 goes by way of float32, exactly; only float64 needs 64 bits
    wide = np.float64 if name == "float64" else np.float32
    return np.asarray(array, dtype=wide).view(np.uint64 if wide is np.float64 else np.uint32)


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
        x: float64, float32 or float16 of any shape, ml_dtypes' bfloat16 and float8 types, or their bit patterns: uint16
            with dtype="bfloat16", uint8 with dtype="float8_e4m3fn" and its like.
        fmt: the format.
        rounding: "nearest" (ties to even) and "stochastic_log" round on the log axis, "stochastic_value" on the value
            axis; "toward_zero", "up", "down" are the same on both.
        overflow: "saturate" or "nan", for magnitudes that round above the greatest, and for infinities.
        underflow: "round" to zero or the smallest by the mode, or "saturate" at the smallest.
        log_offset: the scale in code steps: an integer, an int32 array that broadcasts to x, or `GroupOffsets`.
        random_bits: uint32, broadcasts to x; for the stochastic modes, and only for them.
        seed, stream, step: instead of random_bits: those of `random_bits` by that name, drawn on the way, which is
            faster than an array of them. A mode that takes none draws none.
        dtype: what the elements of x are, where its own dtype does not say so: that of bit patterns.

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
    modes: Modes = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
    key = None if seed is None else (seed, stream, step)
    patterns, bits, key = read(x, dtype, random_bits, key, **modes)
    offset = check_offsets(log_offset, patterns.shape)
    # the words of a key are those of the elements in the array's own order
    order = common_order([patterns]) if key is None else None
    if order is not None:
        offset, bits = in_order(offset, patterns.ndim, order), tuple(array.transpose(order) for array in bits)
        patterns = patterns.transpose(order)
    out = np.empty(patterns.shape, fmt.dtype)
    encode_patterns(patterns, out, fmt, Scales.of(offset, patterns.shape), *bits, key=key, **modes)
    return put_back(out, order)


Key = tuple[int, int, int]
"""Seed, stream and step: what random bits are drawn by."""


def read(
    x: ArrayLike,
    dtype: str | None,
    random_bits: ArrayLike | None,
    key: Key | None,
    **modes: Unpack[Modes],
) -> tuple[NDArray[Any], tuple[UInt32Array, ...], Key | None]:
    """Check the arguments of `encode`: the patterns of x, and its random bits or their key where the mode takes any."""
    rounding = modes.get("rounding", "nearest")
    check_modes(rounding, modes.get("overflow", "saturate"), modes.get("underflow", "round"))
    patterns = float_patterns(x, dtype)
    if key is not None:
        key = check_key(*key)
        if random_bits is not None:
            raise ValueError("random_bits and a seed were given: leave out one of them")
        if rounding.startswith("stochastic"):
            return patterns, (), key
    random = check_random_bits(random_bits, rounding, patterns.shape)
    return patterns, () if random is None else (random,), None


def encode_patterns(
    patterns: NDArray[Any],
    out: Codes,
    fmt: LNSFormat,
    scale: int | Scales,
    random: UInt32Array = NO_RANDOM_BITS,
    *,
    key: Key | None = None,
    threads: int | Team | None = None,
    **modes: Unpack[Modes],
) -> None:
    """Write the codes of patterns (uint32 of float32, uint64 of float64) at one scale or many; `out` is contiguous.

    In vectors where that is possible, then one by one what they leave open. A stochastic mode takes `random`, one word
    for each, or the words of a `key`.
    """
    patterns, random = (contiguous(array).reshape(-1) for array in (patterns, random))
    out = out.reshape(-1)
    scale = Scales.of(scale, ()) if isinstance(scale, int) else scale
    to = target(fmt, 0, **modes)
    sides = SIDES.get(MODES[to.mode])
    by_rows = _row_fill(patterns, fmt, to, scale, out)
    if by_rows is not None:
        in_chunks(by_rows, patterns.size, _PARALLEL, threads=threads)
        return
    fill = _vector_fill(patterns, random, fmt, to, scale, key, out)
    if fill is None:
        random = random if key is None else _draw(key, patterns.size)
        encode_each(patterns, random, fmt, to, sides, out, scale.each(0, patterns.size))
        return
    # each part has written its codes; what it is not sure of is written once more
    left = in_parts(fill, patterns.size, _PARALLEL, threads=threads)
    if left.size:
        if key is None:
            part = random[left] if random.size > 1 else random
        elif left.size <= _FEW:
            # the words that the vectors drew: each is a function of its element's index
            part = np.concatenate([_draw(key, 1, start=i) for i in left])
        else:
            part = _draw(key, patterns.size)[left]
        rest = np.empty(left.shape, fmt.dtype)
        encode_each(patterns[left], part, fmt, to, sides, rest, scale.values if scale.single else scale.at(left))
        out[left] = rest


def _draw(key: Key, n: int, start: int = 0) -> UInt32Array:
    return draw_random_bits(n, seed=key[0], stream=key[1], step=key[2], start=start)


_PARALLEL = 1 << 18

_FEW = 100
"""So many elements are drawn one by one sooner than all of them at once."""


def _row_fill(
    patterns: NDArray[Any], fmt: LNSFormat, to: Target, scale: Scales, out: Codes
) -> Callable[[int, int], None] | None:
    """fill(begin, end) writes those codes, where they are of 8 bits or fewer and to nearest; else None."""
    steps = to.steps_in_two
    few = fmt.bits <= 8 and steps <= row_encoding.MOST_STEPS and steps == int(steps) and to.steps_error == 0.0
    if not few or to.mode != NEAREST or patterns.itemsize != 4 or patterns.size < vector_encoding.CHUNK:
        return None
    if _is_deep(patterns, to, scale):
        return None
    fill = row_encoding.filler(to, scale, patterns.size)
    return lambda begin, end: fill(patterns[begin:end], begin, out[begin:end])


def _is_deep(patterns: NDArray[Any], to: Target, scale: Scales) -> bool:
    """Whether a subnormal number is anywhere above half of the smallest, or near to it."""
    source = FLOAT_TYPES["float32" if patterns.itemsize == 4 else "float64"]
    return to.lowest + scale.ends[0] - to.steps_in_two < (2 - source.max_exponent) * to.steps_in_two


def _vector_fill(
    patterns: NDArray[Any],
    random: UInt32Array,
    fmt: LNSFormat,
    to: Target,
    scale: Scales,
    key: Key | None,
    out: Codes,
) -> Part | None:
    """fill(begin, end, hard) writes those codes and says how many it leaves open; None where no vectors serve."""
    steps, single = to.steps_in_two, patterns.itemsize == 4
    # signed, so that the sign bit is a comparison with 0 and shifts copy it
    signed = patterns.view(f"i{patterns.itemsize}")
    # the loops need an integer K: positions of powers of two are then integers, and all others irrational
    if to.steps_error != 0.0 or steps != int(steps) or patterns.size < vector_encoding.CHUNK:
        return None
    deep = _is_deep(patterns, to, scale)
    # lanes of 32 bits: codes, E and half of the smallest fit int32, and positions a float32's accuracy
    if single and fmt.bits <= 16 and steps <= vector_encoding.MOST_STEPS:
        by, terms, moves = (
            vector_encoding.lane(to, deep),
            vector_encoding.terms(steps),
            vector_encoding.moves(to, scale),
        )
        drawn = (0, 0, 0) if key is None else key
        # one word for all is a stand-in where none is needed; cut into parts it would be empty
        stochastic = random.size > 1

        def fill(begin: int, end: int, hard: NDArray[np.int64]) -> int:
            part = random[begin:end] if stochastic else random
            count: int = vector_encoding.encode_single(
                signed[begin:end], to.mode, by, moves, terms, part, key is not None, drawn, begin, out[begin:end], hard
            )
            return count

        return fill
    # lanes of 64 bits are for the mode that is used: the others go one by one
    if to.mode == NEAREST and steps <= 2.0**30:
        wide_moves = vector_encoding.Moves(scale.values, np.zeros(1, np.float32), scale.walk)
        least = int(deep) << (23 if single else 52)

        def fill_wide(begin: int, end: int, hard: NDArray[np.int64]) -> int:
            count: int = vector_encoding.encode_double(
                signed[begin:end], to, least, wide_moves, begin, out[begin:end], hard
            )
            return count

        return fill_wide
    return None


Encoder = Callable[[NDArray[np.float32]], Codes]


@lru_cache(maxsize=4096)
def encoder(fmt: LNSFormat, log_offset: int) -> Encoder | None:
    """`encode` at one scale, to nearest, of contiguous float32 that are not many: all but these looked up beforehand.

    None for a format that has no vectors of 32 bits.
    """
    to, scale = target(fmt, 0), Scales.of(log_offset, ())
    steps, sides = to.steps_in_two, SIDES["nearest"]
    if to.steps_error != 0.0 or steps != int(steps) or fmt.bits > 16 or steps > vector_encoding.MOST_STEPS:
        return None
    deep, dtype, offsets = _is_deep(np.empty(0, np.uint32), to, scale), fmt.dtype, scale.values
    lane, moves = vector_encoding.lane(to, deep), vector_encoding.moves(to, scale)
    fixed = to.mode, lane, moves, vector_encoding.terms(steps), NO_RANDOM_BITS, False, (0, 0, 0), 0

    def run(x: NDArray[np.float32]) -> Codes:
        assert x.dtype == np.float32
        out = np.empty(x.shape, dtype)
        patterns, codes = x.reshape(-1).view(np.uint32), out.reshape(-1)
        if codes.size < _FEW:
            encode_each(patterns, NO_RANDOM_BITS, fmt, to, sides, codes, offsets)
            return out
        hard = np.empty(codes.size, np.int64)
        left = vector_encoding.encode_single(patterns.view(np.int32), *fixed, codes, hard)
        if left:
            rest = np.empty(left, dtype)
            encode_each(patterns[hard[:left]], NO_RANDOM_BITS, fmt, to, sides, rest, offsets)
            codes[hard[:left]] = rest
        return out

    return run


@overload
def fit_log_offset(
    x: ArrayLike,
    fmt: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    dtype: str | None = None,
    channels: None = None,
    group_size: None = None,
) -> int: ...


@overload
def fit_log_offset(
    x: ArrayLike,
    fmt: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    dtype: str | None = None,
    channels: Channels = None,
    group_size: int | None = None,
) -> LogOffset: ...


def fit_log_offset(
    x: ArrayLike,
    fmt: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    dtype: str | None = None,
    channels: Channels = None,
    group_size: int | None = None,
) -> LogOffset:
    """The least log_offset at which no finite element of x saturates; 0 where none is finite and nonzero.

    One for all elements; or one for each channel, or for each group, of which no element saturates.

    Args:
        x, fmt, rounding, dtype: as for `encode`; the stochastic modes are judged as rounding away from zero, so that no
            draw saturates.
        channels: the axis, or the axes, along which each index has a log_offset of its own: 0 for each row of a matrix,
            (0, 1) for each matrix (expert, channel) of a stack.
        group_size: so many elements along the last axis share a log_offset, 16 to 256; channels is then left out.

    Returns:
        An integer; for channels an int32 array that broadcasts to x; for groups `GroupOffsets`, or such an array where
        there is one group in a row.

    Raises:
        As `encode`, and ValueError where an offset would be beyond 2^30, an axis is out of range, or channels and
        group_size are both given.

    >>> from lnsnum import lns8f3
    >>> fit_log_offset([100.0, -300.0], lns8f3)
    3
    >>> fit_log_offset([[100.0, 300.0], [0.5, 0.25]], lns8f3, channels=0)
    array([[  3],
           [-71]], dtype=int32)
    >>> fit_log_offset([[1.0] * 32 + [4.0] * 8], lns8f3, group_size=32)
    GroupOffsets(array([[-63, -47]], dtype=int32), 32)
    """
    check_format(fmt)
    check_choice("rounding", rounding, Rounding)
    patterns = float_patterns(x, dtype)
    each = check_granularity(channels, group_size, patterns.shape)
    if each is None:
        greatest = greatest_log(patterns, fmt, rounding)
        return 0 if greatest is None else check_log_offset(least_offset(greatest, fmt))
    logs = _greatest_logs(patterns, each, fmt, rounding)
    offsets = np.where(logs == _NOTHING, 0, np.maximum(logs - fmt.max_log, -MAX_LOG_OFFSET))
    check_log_offset(int(offsets.max(initial=0)))
    return each.scale(offsets)


def greatest_log(patterns: NDArray[Any], fmt: LNSFormat, rounding: Rounding) -> int | None:
    """The greatest E, rounded, of finite floats by their patterns; None where all are zero or not finite."""
    source = FLOAT_TYPES["float32" if patterns.itemsize == 4 else "float64"]
    magnitude = patterns & patterns.dtype.type((1 << (source.bits - 1)) - 1)
    is_negative = magnitude != patterns
    logs = []
    for negative in (False, True):
        eligible = (magnitude < source.infinity) & (is_negative == negative)
        # the greatest pattern is the greatest float; the signs apart, as up and down round them to different sides
        greatest = int(np.max(magnitude, where=eligible, initial=0))
        if greatest:
            logs.append(_round_log(*source.split(greatest), negative, fmt, rounding))
    return max(logs, default=None)


_NOTHING = -(1 << 62)
"""The logarithm of no number: below all others."""

_MODE_OF: dict[str, Rounding] = {"floor": "toward_zero", "ceil": "up", "nearest": "nearest"}
"""The mode that rounds a positive number to this side."""


def _greatest_logs(patterns: NDArray[Any], each: Granularity, fmt: LNSFormat, rounding: Rounding) -> NDArray[np.int64]:
    """`greatest_log` of each channel or group, `_NOTHING` where there is none."""
    source = FLOAT_TYPES["float32" if patterns.itemsize == 4 else "float64"]
    magnitude = patterns & patterns.dtype.type((1 << (source.bits - 1)) - 1)
    finite = np.where(magnitude < source.infinity, magnitude, 0)
    sides = ("ceil", "ceil") if rounding.startswith("stochastic") else SIDES[rounding]
    if sides[0] == sides[1]:
        return _logs(each.greatest(finite), fmt, sides[0])
    is_negative = patterns != magnitude
    return np.maximum(*(
        _logs(each.greatest(np.where(is_negative == negative, finite, 0)), fmt, sides[negative])
        for negative in (False, True)
    ))  # fmt: skip


def _logs(magnitudes: NDArray[Any], fmt: LNSFormat, side: str) -> NDArray[np.int64]:
    """E of positive floats by their patterns, rounded to a side; `_NOTHING` of 0."""
    source = FLOAT_TYPES["float32" if magnitudes.itemsize == 4 else "float64"]
    if fmt.codes_per_octave * (source.max_exponent + source.precision) < MAX_LOG_OFFSET:
        # the widest format has a code for the E of every float
        wide = LNSFormat(32, fmt.fraction_bits, base=fmt.base)
        codes = encode(magnitudes.view(f"f{magnitudes.itemsize}"), wide, rounding=_MODE_OF[side])
        return np.where(codes == 0, _NOTHING, codes.astype(np.int64) - wide.bias)
    found = [
        _log_of[side](*source.split(int(one)), fmt.base, fmt.fraction_bits) if one else _NOTHING
        for one in magnitudes.reshape(-1)
    ]
    return np.array(found, np.int64).reshape(magnitudes.shape)


_log_of = {"floor": exact.floor_log, "ceil": exact.ceil_log, "nearest": exact.nearest_log}


def _round_log(significand: int, exponent: int, negative: bool, fmt: LNSFormat, rounding: Rounding) -> int:
    """E of significand * 2^exponent; the stochastic modes round up."""
    side = "ceil" if rounding.startswith("stochastic") else SIDES[rounding][negative]
    return _log_of[side](significand, exponent, fmt.base, fmt.fraction_bits)
