"""Arrays in another order than that of their memory: kernels take elements as they lie there.

Where all arrays of an operation lie alike, the operation takes them in that order (`common_order`), as NumPy's do.
Where they do not, those that are transposed are copied (`contiguous`) in squares of 8 by 8, so that each line of the
cache is read and written once; NumPy copies one element from each line. Of bytes a square is eight words, whose
bytes change places by shifts (Warren, Hacker's Delight, 7-3).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import in_chunks

_SIDE = 8
_LEAST = 1 << 12
"""Smaller arrays NumPy copies sooner than they are looked at."""


def common_order(arrays: Sequence[NDArray[Any]]) -> tuple[int, ...] | None:
    """The order of axes in which all arrays of one shape are contiguous, where that is another than their own.

    >>> common_order([np.zeros((2, 3)).T, np.ones((2, 3)).T])
    (1, 0)
    """
    if all(array.flags.c_contiguous for array in arrays):
        return None
    strides = arrays[0].strides
    order = tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))
    return order if all(array.transpose(order).flags.c_contiguous for array in arrays) else None


def put_back(array: NDArray[Any], order: tuple[int, ...] | None) -> NDArray[Any]:
    """The array with its axes where they were before they were put in this order."""
    return array if order is None else array.transpose(np.argsort(order))


def contiguous(array: NDArray[Any]) -> NDArray[Any]:
    """The array as it is, or a copy in the order of its elements."""
    if array.flags.c_contiguous:
        return array
    if array.size < _LEAST or array.dtype.kind not in "iuf" or not array.dtype.isnative:
        return np.ascontiguousarray(array)
    whole = array.reshape(_merged(array))
    # several matrices, each the other way round in memory
    if whole.ndim < 2 or min(whole.shape[-2:]) < _SIDE or not whole[(0,) * (whole.ndim - 2)].T.flags.c_contiguous:
        return np.ascontiguousarray(array)
    out = np.empty(whole.shape, array.dtype)
    for at in np.ndindex(whole.shape[:-2]):
        _transpose(whole[at].T, out[at])
    return out.reshape(array.shape)


def _merged(array: NDArray[Any]) -> tuple[int, ...]:
    """The shape without axes of length 1, and with axes joined that follow each other in memory as in the array: that
    takes no copy."""
    merged: list[tuple[int, int]] = []
    for length, stride in zip(array.shape, array.strides, strict=True):
        if length == 1:
            continue
        if merged and merged[-1][1] == length * stride:
            length *= merged.pop()[0]
        merged.append((length, stride))
    return tuple(length for length, _ in merged)


def _transpose(matrix: NDArray[Any], out: NDArray[Any]) -> None:
    """out = matrix.T, both contiguous."""
    rows, columns = matrix.shape
    words = matrix.itemsize == 1 and rows % _SIDE == 0 and columns % _SIDE == 0 and sys.byteorder == "little"
    words = words and all(x.ctypes.data % 8 == 0 for x in (matrix, out))
    whole, of = (x.view(np.uint64) if words else x for x in (matrix, out))
    kernel_of = _transpose_bytes if words else _transpose_squares
    in_chunks(
        lambda begin, end: kernel_of(whole, of, begin, end), columns, max(_PARALLEL, rows) // rows, alignment=_SIDE
    )


_PARALLEL = 1 << 20
"""Elements that are worth a thread of their own."""


@kernel
def _transpose_squares(matrix, out, begin, end):  # type: ignore[no-untyped-def]
    """Of the columns from `begin`, a multiple of 8, to `end`."""
    rows = matrix.shape[0]
    full_rows, full_end = rows - rows % 8, end - (end - begin) % 8
    for j in range(begin, full_end, 8):
        for i in range(0, full_rows, 8):
            for k in range(i, i + 8):
                row = matrix[k, j : j + 8]
                # written out: a loop of 8 would not be taken apart
                out[j, k], out[j + 1, k], out[j + 2, k], out[j + 3, k] = row[0], row[1], row[2], row[3]
                out[j + 4, k], out[j + 5, k], out[j + 6, k], out[j + 7, k] = row[4], row[5], row[6], row[7]
    for k in range(rows):
        for j in range(full_end if k < full_rows else begin, end):
            out[j, k] = matrix[k, j]


@kernel
def _swap(x, y, shift, mask):  # type: ignore[no-untyped-def]
    """The upper parts of x and the lower parts of y change places; the mask is of the lower ones."""
    differ = ((x >> shift) ^ y) & mask
    return x ^ (differ << shift), y ^ differ


_BY_4, _OF_4 = np.uint64(32), np.uint64(0x00000000FFFFFFFF)
_BY_2, _OF_2 = np.uint64(16), np.uint64(0x0000FFFF0000FFFF)
_BY_1, _OF_1 = np.uint64(8), np.uint64(0x00FF00FF00FF00FF)


_WORDS = 32
"""Words of a row at a time: their columns are 256 lines of the nearest cache, written eight bytes at a time."""


@kernel
def _transpose_bytes(matrix, out, begin, end):  # type: ignore[no-untyped-def]
    """Of words of eight bytes each, the first of which is the lowest; columns from `begin` to `end`, multiples of 8."""
    # one array, at fixed distances: with eight rows of each, LLVM would not know that none overlaps another
    rows = np.zeros(8 * _WORDS, np.uint64)
    for first in range(begin // 8, end // 8, _WORDS):
        count = min(_WORDS, end // 8 - first)
        for i in range(out.shape[1]):
            for k in range(8):
                row = matrix[8 * i + k, first : first + count]
                for j in range(count):
                    rows[_WORDS * k + j] = row[j]
            for j in range(_WORDS):
                a, b, c, d = rows[j], rows[_WORDS + j], rows[2 * _WORDS + j], rows[3 * _WORDS + j]
                e, f, g, h = rows[4 * _WORDS + j], rows[5 * _WORDS + j], rows[6 * _WORDS + j], rows[7 * _WORDS + j]
                a, e = _swap(a, e, _BY_4, _OF_4)
                b, f = _swap(b, f, _BY_4, _OF_4)
                c, g = _swap(c, g, _BY_4, _OF_4)
                d, h = _swap(d, h, _BY_4, _OF_4)
                a, c = _swap(a, c, _BY_2, _OF_2)
                b, d = _swap(b, d, _BY_2, _OF_2)
                e, g = _swap(e, g, _BY_2, _OF_2)
                f, h = _swap(f, h, _BY_2, _OF_2)
                a, b = _swap(a, b, _BY_1, _OF_1)
                c, d = _swap(c, d, _BY_1, _OF_1)
                e, f = _swap(e, f, _BY_1, _OF_1)
                g, h = _swap(g, h, _BY_1, _OF_1)
                rows[j], rows[_WORDS + j], rows[2 * _WORDS + j], rows[3 * _WORDS + j] = a, b, c, d
                rows[4 * _WORDS + j], rows[5 * _WORDS + j], rows[6 * _WORDS + j], rows[7 * _WORDS + j] = e, f, g, h
            for j in range(count):
                # a slice: in each of eight places an index that might be negative would be looked at
                column = out[8 * (first + j) : 8 * (first + j) + 8, i]
                column[0], column[1] = rows[j], rows[_WORDS + j]
                column[2], column[3] = rows[2 * _WORDS + j], rows[3 * _WORDS + j]
                column[4], column[5] = rows[4 * _WORDS + j], rows[5 * _WORDS + j]
                column[6], column[7] = rows[6 * _WORDS + j], rows[7 * _WORDS + j]
