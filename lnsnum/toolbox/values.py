"""What a block of a tensor is worth: its elements as float64, each with the scale of its channel.

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
from lnsnum.kernels.codes import WIDEST_TABLE, ChannelOffset

__all__ = ["Scale", "decoded", "values_of"]

Floats = NDArray[np.float64]

_LONG_RUN = 4096
"""Elements of one scale in a row that are decoded by themselves, where that takes no larger table; shorter runs are
gathered by scale first."""


class Scale:
    """The log_offset of every element of a tensor, without an array of them all.

    Args:
        log_offset: an integer, or an array that broadcasts to the shape.
        shape: the tensor's.
    """

    def __init__(self, log_offset: ChannelOffset, shape: tuple[int, ...]) -> None:
        self.single: int | None = None
        if isinstance(log_offset, int) or log_offset.size == 1:
            self.single = int(np.asarray(log_offset).reshape(-1)[0])
            return
        padded = log_offset.reshape((1,) * (len(shape) - log_offset.ndim) + log_offset.shape)
        last = max((d for d, size in enumerate(padded.shape) if size > 1), default=0)
        self._run = math.prod(shape[last + 1 :])  # elements in a row that share an offset
        outer = padded.reshape(padded.shape[: last + 1])
        self._offsets = np.broadcast_to(outer, shape[: last + 1])

    def of(self, begin: int, count: int) -> int | NDArray[np.int32]:
        """The offset of all elements, or those of `count` elements from number `begin` on."""
        if self.single is not None:
            return self.single
        if count == 0:
            return np.empty(0, np.int32)
        first, last = begin // self._run, (begin + count - 1) // self._run
        each = np.asarray(self._offsets.flat[first : last + 1], np.int32)
        if self._run == 1:
            return each
        skip = begin - first * self._run
        return np.repeat(each, self._run)[skip : skip + count]

    def runs(self, begin: int, count: int) -> Iterator[tuple[int, int, int]]:
        """`(from, to, offset)`, counted from `begin` on, for all runs of elements that share an offset."""
        if self.single is not None:
            yield 0, count, self.single
            return
        end = begin + count
        while begin < end:
            number = begin // self._run
            stop = min(end, (number + 1) * self._run)
            yield count - (end - begin), count - (end - stop), int(self._offsets.flat[number])
            begin = stop

    def has_long_runs(self, fmt: LNSFormat) -> bool:
        """Whether so many elements in a row share an offset that each run is worth a table of the format's codes."""
        least = max(_LONG_RUN, 1 << fmt.bits) if fmt.bits <= WIDEST_TABLE else _LONG_RUN
        return self.single is not None or self._run >= least


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
    order = np.argsort(which.astype(np.uint8), kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=distinct.size))[:-1]
    for offset, where in zip(distinct.tolist(), np.split(order, ends), strict=True):
        out[where] = decode(codes[where], fmt, dtype, log_offset=offset)


_MANY_SCALES = 100
"""From so many on `decode` takes each element by itself."""
