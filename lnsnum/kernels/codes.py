"""Codes as arrays: what they are in NumPy, which floats they meet, and the checks at every public door.

Here is what `lnsnum.encoding`, `lnsnum.decoding` and all operations on codes share: the dtypes and the scale
(`LogOffset`), the IEEE formats by their bit patterns, and the errors for what is no code, no offset, no mode.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Overflow, Rounding, Underflow, check_choice, check_log_offset
from lnsnum.kernels.groups import GroupOffsets, check_offset_array
from lnsnum.kernels.rounding import UInt32Array

Codes = NDArray[np.unsignedinteger[Any]]
LogOffset = int | NDArray[np.int32] | GroupOffsets
"""The scale: one for all elements, one for each channel (an array that broadcasts), one for each group."""
ChannelOffset = int | NDArray[np.int32]
"""A scale without groups: what weight files hold."""

WIDEST_TABLE = 16
"""Formats up to this many bits decode by a table of all codes."""


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
        # subnormal numbers have the exponent of the least normal one, and no hidden bit
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


def check_unmasked(x: object, what: str = "numbers") -> None:
    """Raise TypeError where `x` is an array of which some elements are masked: they would be taken as they are."""
    # A program that has not imported numpy.ma has no such array, and is not made to import it.
    ma = sys.modules.get("numpy.ma")
    if ma is not None and isinstance(x, ma.MaskedArray) and ma.is_masked(x):
        raise TypeError(f"some of the {what} are masked, and no mask is kept: fill them with x.filled(value)")


def check_codes(codes: ArrayLike, fmt: LNSFormat) -> Codes:
    """`codes` as an array of `fmt.dtype`.

    Raises:
        TypeError: where they are no integers, or `fmt` is no format.
        ValueError: where one of them lies outside the format; the message says which.
    """
    check_format(fmt)
    check_unmasked(codes, "codes")
    array = np.asarray(codes)
    # an empty list comes as floats: there is nothing wrong with it
    if array.size == 0 and not isinstance(codes, np.ndarray):
        array = array.astype(fmt.dtype)
    if array.dtype.kind not in "ui":
        raise TypeError(f"codes are unsigned integers, not {array.dtype}: use encode to make them from floats")
    limit = 1 << fmt.bits
    # a dtype that holds no more than the format's codes needs no look at each
    if array.size and (array.dtype.kind == "i" or 8 * array.dtype.itemsize > fmt.bits):
        outside = (array < 0) | (array >= limit)
        if outside.any():
            at = int(outside.argmax())
            raise ValueError(outside_of(fmt, array.reshape(-1)[at], at, array.shape))
    return array.astype(fmt.dtype, copy=False)


def outside_of(fmt: LNSFormat, code: int, at: int, shape: tuple[int, ...]) -> str:
    """The sentence about a code, element `at` of a tensor of this shape, that lies outside its format."""
    place = f" at index {tuple(int(i) for i in np.unravel_index(at, shape))}" if shape else ""
    return f"code {code}{place} is outside {fmt.name}: its codes are 0 to {(1 << fmt.bits) - 1}"


def check_offsets(log_offset: object, shape: tuple[int, ...]) -> LogOffset:
    """A log_offset as a Python integer, as an int32 array that broadcasts to `shape`, or as groups of such an array.

    Groups of which there is one along their axis are channels.
    """
    if isinstance(log_offset, GroupOffsets):
        if not log_offset.fits(shape):
            raise ValueError(_no_groups(log_offset, shape))
        # no elements have no scale: the array may then be of any shape
        return log_offset if log_offset.number(shape) > 1 or not log_offset.offsets.size else log_offset.offsets
    return check_channel_offsets(log_offset, shape)


def check_channel_offsets(log_offset: object, shape: tuple[int, ...]) -> ChannelOffset:
    """`check_offsets` of a scale that has no groups."""
    if not isinstance(log_offset, np.ndarray) or log_offset.ndim == 0:
        return check_log_offset(cast(int, log_offset[()] if isinstance(log_offset, np.ndarray) else log_offset))
    offsets = check_offset_array(log_offset)
    fits = offsets.ndim <= len(shape) and all(
        own in (1, size) for own, size in zip(offsets.shape[::-1], shape[::-1], strict=False)
    )  # np.broadcast_shapes takes 32 dimensions, and arrays have up to 64
    if not fits:
        raise ValueError(f"log_offset of shape {offsets.shape} does not broadcast to the codes' shape {shape}")
    return offsets


def _no_groups(groups: GroupOffsets, shape: tuple[int, ...]) -> str:
    """The sentence about groups that an array of this shape has not."""
    given = f"GroupOffsets of shape {groups.offsets.shape} with groups of {groups.group_size} along axis {groups.axis}"
    if groups.offsets.ndim > len(shape):
        return f"{given} do not fit the codes' shape {shape}: it has fewer axes"
    wanted = list(shape)
    wanted[groups.axis] = groups.number(shape)
    return f"{given} do not fit the codes' shape {shape}: give offsets that broadcast to {tuple(wanted)}"


def each_offset(log_offset: LogOffset) -> NDArray[Any]:
    """The offsets there are, in an array: to be asked for the least, or for others than 0."""
    return log_offset.offsets if isinstance(log_offset, GroupOffsets) else np.asarray(log_offset)


def of_elements(log_offset: LogOffset, shape: tuple[int, ...]) -> NDArray[Any]:
    """The offset of each element of an array of this shape; those of groups are written out."""
    if isinstance(log_offset, GroupOffsets):
        return log_offset.of_elements(shape)
    return np.broadcast_to(np.int32(log_offset) if isinstance(log_offset, int) else log_offset, shape)


def same_scale(a: LogOffset, b: LogOffset) -> bool:
    """Whether two are the same, as they are written."""
    if isinstance(a, GroupOffsets) or isinstance(b, GroupOffsets):
        # == of an array and groups would make an array of the groups, and say instead how to write them out
        return isinstance(a, GroupOffsets) and isinstance(b, GroupOffsets) and a == b
    return np.array_equal(a, b)


def least_offset(greatest_log: int, fmt: LNSFormat) -> int:
    """What "fit" is, everywhere: the least log_offset at which a number with this E does not saturate.

    Not below -2^30, where such a number underflows; beyond 2^30 it is no log_offset.
    """
    return max(greatest_log - fmt.max_log, -MAX_LOG_OFFSET)


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


NO_RANDOM_BITS = np.zeros(1, np.uint32)
"""What kernels take where no random bits are needed."""
