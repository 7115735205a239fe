"""How every operation on codes runs: a kernel over all elements, integers for those it leaves open, and the scale.

    kernel  ->  codes, and the indices of the elements where the error bound leaves the rounding open
    decide  ->  their codes, exactly

The scale of a result is an argument; "fit" is found by running the kernel once with room for every magnitude.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Overflow, Rounding, Underflow, check_log_offset
from lnsnum.gaussian import GaussianLog
from lnsnum.kernels.codes import (
    NO_RANDOM_BITS,
    Codes,
    LogOffset,
    check_codes,
    check_format,
    check_modes,
    check_offsets,
    each_offset,
    least_offset,
)
from lnsnum.kernels.codes import check_random_bits as _check_random_bits
from lnsnum.kernels.decide import HardCase, resolve
from lnsnum.kernels.rounding import Target, UInt32Array, target, unbounded
from lnsnum.kernels.scales import Scales, in_order
from lnsnum.kernels.strides import common_order, contiguous, put_back

OutLogOffset = int | Literal["fit"] | None
"""The result's log_offset: an integer, "fit" (the least at which nothing saturates), or None: 0 where all operands
have 0, else "fit"."""


class Rounded(TypedDict, total=False):
    """Keyword arguments of every operation that may round.

    out_format: the result's format; needed where the operands' differ, else theirs.
    out_log_offset: the result's scale; see `OutLogOffset`.
    rounding, overflow, underflow, random_bits: as for `encode`; random_bits broadcast to the result.
    """

    out_format: LNSFormat | None
    out_log_offset: OutLogOffset
    rounding: Rounding
    overflow: Overflow
    underflow: Underflow
    random_bits: ArrayLike | None


class Wanted(NamedTuple):
    """The same keywords, and what they are where they are not given: they travel as one from the doors to `prepare`."""

    out_format: LNSFormat | None = None
    out_log_offset: OutLogOffset = None
    rounding: Rounding = "nearest"
    overflow: Overflow = "saturate"
    underflow: Underflow = "round"
    random_bits: ArrayLike | None = None


def check_out_log_offset(given: object) -> int | Literal["fit"]:
    """The scale that is asked for a result; TypeError or ValueError where it is none."""
    if not isinstance(given, str):
        return check_log_offset(cast(int, given), "out_log_offset")
    if given != "fit":
        raise ValueError(f'out_log_offset={given!r} is not known: an integer or "fit"')
    return "fit"


def check_names(options: Any, accepted: Any, what: str) -> None:
    """Raise TypeError where a keyword is none of those of the TypedDict `accepted`."""
    for name in options:
        if name not in accepted.__annotations__:
            raise TypeError(f"{name} is no argument of this {what}: {', '.join(accepted.__annotations__)}")


def of_part(values: NDArray[Any], begin: int, end: int) -> NDArray[Any]:
    """What belongs to the elements from `begin` to `end`: one value for each, or one for all."""
    return values if values.size == 1 else values[begin:end]


class Operand(NamedTuple):
    """Codes that have been looked at: contiguous, one-dimensional, of one format."""

    codes: Codes
    fmt: LNSFormat
    scale: Scales
    """log_offset - bias: E = m + that."""

    @property
    def shift(self) -> NDArray[np.int64]:
        """The scale of each element, written out, or one for all."""
        return self.scale.each(0, self.codes.size)

    def part(self, begin: int, end: int) -> Operand:
        """The elements from `begin` to `end`, not copied; where they have several scales, with that of each."""
        return Operand(self.codes[begin:end], self.fmt, self.scale.part(begin, end))

    def at(self, indices: NDArray[np.int64]) -> Operand:
        """The elements with these indices."""
        scale = self.scale if self.scale.single else Scales(self.scale.at(indices))
        return Operand(self.codes[indices], self.fmt, scale)

    def log(self, i: int) -> int:
        """E of element i."""
        return int(self.codes[i] & self.fmt.max_magnitude) + int(self.scale.at(i))

    def negative(self, i: int) -> bool:
        """Whether element i has a sign."""
        return bool(self.codes[i] & self.fmt.sign_bit)


class Result(NamedTuple):
    """What is wanted of an operation, checked at the door: `prepare` makes it."""

    fmt: LNSFormat
    shape: tuple[int, ...]
    log_offset: int | Literal["fit"]
    rounding: Rounding
    overflow: Overflow
    underflow: Underflow
    random: UInt32Array
    order: tuple[int, ...] | None = None
    """Of axes, in which the elements are taken; `shape` is in this order."""

    def put_back(self, codes: Codes) -> Codes:
        """The codes of the result with its axes in their own order."""
        return put_back(codes, self.order)

    def target(self, log_offset: int) -> Target:
        """The target at an offset."""
        return target(self.fmt, log_offset, rounding=self.rounding, overflow=self.overflow, underflow=self.underflow)


def flat(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The array broadcast to `shape`, contiguous and one-dimensional."""
    return contiguous(array if array.shape == shape else np.broadcast_to(array, shape)).reshape(-1)


def prepare(
    operands: list[tuple[ArrayLike, LNSFormat, LogOffset]], wanted: Wanted, *, in_memory_order: bool = False
) -> tuple[list[Operand], Result]:
    """Check codes, formats, offsets and modes, and broadcast.

    `in_memory_order` takes the elements of arrays that are transposed alike as they lie in memory: who asks for it
    calls `Result.put_back`.

    Raises:
        TypeError: for arguments of a wrong type, operands of two formats without `out_format`, formats of two bases.
        ValueError: for codes outside their format, shapes that do not broadcast, unknown modes, bad offsets.
    """
    out_format, out_log_offset, rounding, overflow, underflow, random_bits = wanted
    formats = [fmt for _, fmt, _ in operands]
    if out_format is not None:
        check_format(out_format, "out_format")
    for fmt in [*formats, *([] if out_format is None else [out_format])]:
        check_format(fmt)
        if fmt.base != formats[0].base:
            raise TypeError(
                f"{formats[0].name} and {fmt.name} have different bases: bring both to one with lnsnum.convert"
            )
    if out_format is None:
        if any(fmt is not formats[0] and fmt != formats[0] for fmt in formats):
            names = ", ".join(dict.fromkeys(fmt.name for fmt in formats))
            raise TypeError(f"operands of different formats ({names}) need out_format, the format of the result")
        out_format = formats[0]
    check_modes(rounding, overflow, underflow)
    arrays = [check_codes(codes, fmt) for codes, fmt, _ in operands]
    offsets = [check_offsets(offset, array.shape) for array, (_, _, offset) in zip(arrays, operands, strict=True)]
    shape = arrays[0].shape
    try:
        # asked first: np.broadcast_shapes is slow beside a small operation
        if any(array.shape != shape for array in arrays):
            shape = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = " and ".join(str(array.shape) for array in arrays)
        raise ValueError(f"shapes {shapes} do not broadcast") from None
    random = _check_random_bits(random_bits, rounding, shape)
    if out_log_offset is None:
        scaled = any(offset if isinstance(offset, int) else each_offset(offset).any() for offset in offsets)
        out_log_offset = "fit" if scaled else 0
    out_log_offset = check_out_log_offset(out_log_offset)
    order = None
    if in_memory_order and all(array.shape == shape for array in arrays):
        order = common_order(arrays)
    if order is not None:
        arrays = [array.transpose(order) for array in arrays]
        offsets = [in_order(offset, len(shape), order) for offset in offsets]
        random = None if random is None else random.transpose(order)
        shape = arrays[0].shape
    checked = []
    for array, offset, fmt in zip(arrays, offsets, formats, strict=True):
        # int32 holds the difference; there it is int64, as offsets of 2^30 add up, and products multiply them
        checked.append(Operand(flat(array, shape), fmt, Scales.of(offset - fmt.bias, shape)))
    flat_random = NO_RANDOM_BITS if random is None else flat(random, shape)
    return checked, Result(out_format, shape, out_log_offset, rounding, overflow, underflow, flat_random, order)


def prepare_named(
    options: Any, accepted: Any, fmt: LNSFormat, *, in_memory_order: bool = False, **codes: ArrayLike
) -> tuple[list[Operand], Result, GaussianLog | None]:
    """`prepare` from the keywords of a call; the names of the arrays are those of their offsets and formats."""
    check_names(options, accepted, "operation")
    options = dict(options)
    gaussian = options.pop("gaussian", None)
    operands = []
    for name, array in codes.items():
        own = options.pop(f"{name}_format", None)
        if own is not None:
            check_format(own, f"{name}_format")
        offset = options.pop(f"{name}_log_offset" if len(codes) > 1 else "log_offset", 0)
        operands.append((array, fmt if own is None else own, offset))
    checked, result = prepare(operands, Wanted(**options), in_memory_order=in_memory_order)
    return checked, result, gaussian


def fitting_offset(greatest_log: int, fmt: LNSFormat) -> int:
    """The least log_offset at which a number with this E does not saturate.

    Raises:
        ValueError: where it would be beyond 2^30.
    """
    offset = least_offset(greatest_log, fmt)
    if offset > MAX_LOG_OFFSET:
        raise ValueError(
            'out_log_offset="fit" finds no scale: the greatest result saturates at each up to 2^30: give one'
        )
    return offset


Fill = Callable[[Target, UInt32Array, NDArray[Any]], NDArray[np.int64]]
"""A kernel with its operands bound: (target, random bits, codes to write) -> the indices that it leaves open."""


def run(fill: Fill, case: HardCase, result: Result) -> tuple[Codes, int]:
    """The codes of the result, correctly rounded, and their log_offset."""
    size = int(np.prod(result.shape, dtype=np.int64))

    def execute(to: Target, dtype: Any) -> NDArray[Any]:
        out = np.empty(size, dtype)
        # the kernel has written all codes; those it left open are written over
        resolve(fill(to, result.random, out), case, result.fmt, to, out)
        return out

    offset = result.log_offset
    if offset == "fit":
        # Of finer code steps E can leave even this room. A number below it must not become zero: it fits at -2^30.
        to = unbounded(result.target(0))._replace(saturate=True)
        # codes of this target need 64 bits; NaN is its sign bit alone, so that it counts as 0 here
        magnitudes = execute(to, np.int64) & (to.sign_bit - 1)
        greatest = int(magnitudes.max(initial=0))
        offset = fitting_offset(to.lowest + greatest - 1, result.fmt) if greatest else 0
    return execute(result.target(offset), result.fmt.dtype).reshape(result.shape), offset
