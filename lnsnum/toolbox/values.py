"""What a block of a tensor is worth: its elements as float64, each with the scale of its channel or group.

    x  =  (-1)^s base^((m - bias + log_offset) / 2^F)

A block is a piece of the tensor in row-major order, so it can begin and end in the middle of a channel: `Scale` says
which log_offset each of its elements has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.decoding import decode
from lnsnum.files.layout import Description
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import WIDEST_TABLE, LogOffset, each_offset
from lnsnum.kernels.groups import GroupOffsets

__all__ = ["Runs", "Scale", "decoded", "distinct_of", "values_of"]

Floats = NDArray[np.float64]

_LONG_RUN = 4096
"""Elements of one scale in a row that are decoded by themselves, where that takes no larger table; shorter runs are
gathered by scale first."""


class Runs:
    """Elements in a row that share something, by number: of each `line` of them every `run`, and what is left.

    >>> Runs(32, 70).bounds(1, 3).tolist()  # two groups of a row of 70, and the first of the next
    [32, 64, 70, 102]
    """

    def __init__(self, run: int, line: int | None = None) -> None:
        self.run, self._line = max(run, 1), max(run if line is None else line, 1)
        self.per_line = -(-self._line // self.run)

    def number(self, element: int) -> int:
        """The run that has an element."""
        line, place = divmod(element, self._line)
        return line * self.per_line + place // self.run

    def bounds(self, first: int, last: int) -> NDArray[np.int64]:
        """Where the runs from `first` to `last` begin, and where that one ends."""
        line, place = np.divmod(np.arange(first, last + 2), self.per_line)
        bounds: NDArray[np.int64] = line * self._line + place * self.run
        return bounds

    def lengths(self, begin: int, count: int) -> tuple[int, NDArray[np.int64]]:
        """Of `count` elements from `begin` on: the first one's run, and how many each run has of them."""
        first, last = self.number(begin), self.number(begin + count - 1)
        bounds = self.bounds(first, last)
        bounds[0], bounds[-1] = begin, begin + count
        return first, np.diff(bounds)


class Scale:
    """The log_offset of every element of a tensor, without an array of them all.

    Args:
        log_offset: an integer, an array that broadcasts to the shape, or groups.
        shape: the tensor's.
    """

    def __init__(self, log_offset: LogOffset, shape: tuple[int, ...]) -> None:
        self.single: int | None = None
        offsets = each_offset(log_offset)
        if offsets.size == 1:
            self.single = int(offsets.reshape(-1)[0])
            return
        groups = log_offset if isinstance(log_offset, GroupOffsets) else None
        padded = offsets.reshape((1,) * (len(shape) - offsets.ndim) + offsets.shape)
        along = len(shape) if groups is None else groups.place(len(shape))
        last = max((d for d, size in enumerate(padded.shape) if size > 1), default=0)
        inner = math.prod(shape[last + 1 :])
        self._runs = Runs(inner)
        outer = padded.reshape(padded.shape[: last + 1])
        sizes = list(shape[: last + 1])
        self._group_of: tuple[int, int] | None = None
        if groups is not None and along == last:
            self._runs = Runs(groups.group_size * inner, shape[along] * inner)
            sizes[along] = outer.shape[along]
        elif groups is not None:  # they lie across what else has offsets of its own: each element looks for its group
            self._group_of = along, groups.group_size
            sizes = list(outer.shape)
        self._shape = shape[: last + 1]
        self._offsets = np.broadcast_to(outer, sizes)

    def _each(self, first: int, count: int) -> NDArray[np.int32]:
        """The offsets of runs."""
        if self._group_of is None:
            return np.asarray(self._offsets.flat[first : first + count], np.int32)
        along, size = self._group_of
        place = list(np.unravel_index(np.arange(first, first + count), self._shape))
        place[along] = place[along] // size
        own = (0 if length == 1 else at for at, length in zip(place, self._offsets.shape, strict=True))
        return np.asarray(self._offsets[tuple(own)], np.int32)

    def of(self, begin: int, count: int) -> int | NDArray[np.int32]:
        """The offset of all elements, or those of `count` elements from number `begin` on."""
        if self.single is not None:
            return self.single
        if count == 0:
            return np.empty(0, np.int32)
        first, lengths = self._runs.lengths(begin, count)
        each = self._each(first, lengths.size)
        return each if self._runs.run == 1 else np.repeat(each, lengths)

    def runs(self, begin: int, count: int) -> Iterator[tuple[int, int, int]]:
        """`(from, to, offset)`, counted from `begin` on, for all runs of elements that share an offset."""
        if self.single is not None:
            yield 0, count, self.single
            return
        if count == 0:
            return
        first, lengths = self._runs.lengths(begin, count)
        stops = np.cumsum(lengths)
        yield from zip(
            (stops - lengths).tolist(), stops.tolist(), self._each(first, lengths.size).tolist(), strict=True
        )

    @property
    def run(self) -> int:
        """How many elements in a row share an offset, where no dimension ends before; not to be asked of `single`."""
        return self._runs.run

    def has_long_runs(self, fmt: LNSFormat) -> bool:
        """Whether so many elements in a row share an offset that each run is worth a table of the format's codes."""
        least = max(_LONG_RUN, 1 << fmt.bits) if fmt.bits <= WIDEST_TABLE else _LONG_RUN
        return self.single is not None or self._runs.run >= least


def values_of(block: NDArray[Any], told: Description, scale: Scale, begin: int) -> Floats:
    """The elements of a block as float64: codes decoded, each rounded once, and plain elements converted.

    Args:
        block: elements of the tensor, of one dimension.
        told: what the tensor is.
        scale: its scale, `Scale(told.log_offset, told.shape)`.
        begin: the number of the block's first element in the tensor.
    """
    if told.fmt is None:
        with np.errstate(invalid="ignore"):  # a signaling NaN
            return block.astype(np.float64)
    return decoded(block, told.fmt, scale, begin)


def decoded(codes: NDArray[Any], fmt: LNSFormat, scale: Scale, begin: int, dtype: str = "float64") -> NDArray[Any]:
    """The numbers of the codes from number `begin` of a tensor on, each rounded once.

    Args:
        codes: of one dimension.
        fmt: their format.
        scale: the tensor's scale.
        begin: the number of the first code in the tensor.
        dtype: "float64", "float32", "float16" or "bfloat16" (by ml_dtypes).
    """
    out = np.empty(codes.shape, "uint16" if dtype == "bfloat16" else dtype)
    if scale.has_long_runs(fmt):
        for start, stop, offset in scale.runs(begin, codes.size):
            out[start:stop] = decode(codes[start:stop], fmt, dtype, log_offset=offset)
    else:
        _decode_by_scale(codes, fmt, np.asarray(scale.of(begin, codes.size)), dtype, out)
    return out.view("bfloat16") if dtype == "bfloat16" else out


def _decode_by_scale(
    codes: NDArray[Any], fmt: LNSFormat, offsets: NDArray[np.int32], dtype: str, out: NDArray[Any]
) -> None:
    """Codes whose scales change often: those of one scale put together, decoded, and put back."""
    distinct, which = np.unique(offsets, return_inverse=True)
    if distinct.size > _MANY_SCALES:
        out[...] = decode(codes, fmt, dtype, log_offset=offsets)
        return
    for where, offset in distinct_of(distinct, which):
        out[where] = decode(codes[where], fmt, dtype, log_offset=offset)


def distinct_of(distinct: NDArray[Any], which: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Which elements have each offset, and the offset, as `numpy.unique` found them."""
    few = np.min_scalar_type(distinct.size)  # small integers are sorted by counting
    order = np.argsort(which.astype(few), kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=distinct.size))[:-1]
    return zip(np.split(order, ends), distinct.tolist(), strict=True)


_MANY_SCALES = 100
"""From so many on `decode` takes each element by itself."""
