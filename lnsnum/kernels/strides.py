"""Arrays in another order than that of their memory: kernels take elements as they lie there.

Where all arrays of an operation lie alike, the operation takes them in that order (`common_order`), as NumPy's do.
Where they do not, those that are transposed are copied (`contiguous`) in squares, so that each line of the cache is
read and written once; NumPy copies one element from each line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import in_chunks
from lnsnum.kernels.tiles import LINE, transpose_tile

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
    if array.size < _LEAST or array.dtype.kind not in "iuf" or array.itemsize > 8 or not array.dtype.isnative:
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
    # the bits, whatever they are: a kernel for each width
    whole, of = (x.view(f"u{x.itemsize}") for x in (matrix, out))
    side = LINE // matrix.itemsize
    kernel_of = _transpose_tiles if min(rows, columns) >= side else _transpose_squares
    in_chunks(
        lambda begin, end: kernel_of(whole, of, begin, end), columns, max(_PARALLEL, rows) // rows, alignment=LINE
    )


_PARALLEL = 1 << 20
"""Elements that are worth a thread of their own."""


@kernel
def _transpose_tiles(matrix, out, begin, end):  # type: ignore[no-untyped-def]
    """Of the columns from `begin` to `end`, of as many rows as a tile has, or more."""
    side = LINE // matrix.itemsize
    if end - begin < side:
        _transpose_squares(matrix, out, begin, end)
        return
    # what is left makes a tile with what was transposed already
    for j in range(begin, end, side):
        for i in range(0, matrix.shape[0], side):
            transpose_tile(matrix, min(i, matrix.shape[0] - side), min(j, end - side), out)


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
