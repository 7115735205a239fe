"""What becomes of scales where numbers are moved: each number keeps its own, in the fewest offsets that say so.

    labels     an integer for each element, that of its offset in a table
    a move     puts labels where it puts codes
    regrouped  runs of one label along an axis are groups again, along all of it channels

No number is rounded by being moved. Runs of 16 to 256 elements, all of one length but the last, are groups; what is
left of groups in other runs is written out, one offset for each element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.array.reading import Array
from lnsnum.kernels.codes import LogOffset, of_elements, same_scale
from lnsnum.kernels.groups import GREATEST_GROUP, LEAST_GROUP, GroupOffsets


def compact(offsets: Array) -> LogOffset:
    """The offsets without the axes along which they stay the same; where there is one only, an integer.

    >>> compact(np.array([[3, 3], [5, 5]], np.int32))
    array([[3],
           [5]], dtype=int32)
    """
    offsets = _without_repeats(offsets)
    if offsets.size < 2:
        return int(offsets.reshape(-1)[0]) if offsets.size else 0
    return np.array(offsets, np.int32)


def _without_repeats(array: Array) -> Array:
    """The first element of each axis along which an array stays the same."""
    for axis, stride in enumerate(array.strides):
        first = array[(slice(None),) * axis + (slice(0, 1),)]
        if stride == 0 or np.array_equal(array, np.broadcast_to(first, array.shape)):
            array = first
    return array


def moved_scale(log_offset: LogOffset, shape: tuple[int, ...], move: Callable[[Array], Any]) -> LogOffset:
    """What a move of an array of this shape makes of its scale."""
    if isinstance(log_offset, int):
        return log_offset
    if not isinstance(log_offset, GroupOffsets):
        return compact(np.asarray(move(np.broadcast_to(log_offset, shape))))
    # the row of the table and the place along the axis: of views nothing is written out
    table, rows, places = _coordinates(log_offset, shape)
    row, place = np.asarray(move(rows)), np.asarray(move(places))
    if not row.size:
        return 0
    row, place = _without_repeats(row), _without_repeats(place)
    along = [axis for axis, length in enumerate(place.shape) if length > 1]
    apart = all(row.shape[axis] == 1 for axis in along)
    if not along:
        return compact(table[row, place // log_offset.group_size])
    if len(along) == 1 and apart:
        # the groups along an axis are the same for all rows
        group = place.reshape(-1) // log_offset.group_size
        starts = _starts(group[1:] != group[:-1])
        if starts is not None:
            shaped = group[starts].reshape([-1 if axis == along[0] else 1 for axis in range(place.ndim)])
            return _grouped(table[row, shaped], starts, along[0])
    labels = row * table.shape[1] + place // log_offset.group_size
    return regrouped(labels, table.reshape(-1))


def _coordinates(groups: GroupOffsets, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Offsets as a table of rows, and of each element of an array its row and its place along the axis."""
    axes, axis = len(shape), groups.place(len(shape))
    own = np.moveaxis(groups.padded(axes), axis, -1)
    rows = np.arange(math.prod(own.shape[:-1])).reshape(own.shape[:-1])  # an axis of no groups has rows too
    places = np.arange(shape[axis]).reshape([-1 if one == axis else 1 for one in range(axes)])
    table = own.reshape(rows.size, own.shape[-1])
    return table, np.broadcast_to(np.expand_dims(rows, axis), shape), np.broadcast_to(places, shape)


def _starts(changes: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Where runs begin that are groups, or one run; None where some are too short, too long, or of several lengths."""
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=changes.size + 1)
    if starts.size == 1:
        return starts
    fits = LEAST_GROUP <= lengths[0] <= GREATEST_GROUP and (lengths[:-1] == lengths[0]).all()
    return starts if fits and lengths[-1] <= lengths[0] else None


def _grouped(offsets: Array, starts: NDArray[np.int64], axis: int) -> LogOffset:
    """The scale with one offset along an axis for each run that begins there."""
    if starts.size == 1:
        return compact(offsets)
    return GroupOffsets._of(np.array(offsets, np.int32), int(starts[1]), axis - offsets.ndim)


def regrouped(labels: Array, table: Array) -> LogOffset:
    """The scale of an array whose elements have the offsets table[labels]."""
    if not labels.size:
        return 0
    labels = _without_repeats(labels)
    for axis in reversed(range(labels.ndim)):
        if labels.shape[axis] == 1:
            continue
        line = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        starts = _starts((line[1:] != line[:-1]).any(axis=1))
        if starts is not None:
            return _grouped(table[np.take(labels, starts, axis)], starts, axis)
    return compact(table[labels])


def joined_scale(
    log_offsets: Sequence[LogOffset], shapes: Sequence[tuple[int, ...]], join: Callable[[list[Array]], Any]
) -> LogOffset:
    """The scale of arrays that are joined, each number's own."""
    if not any(isinstance(offset, GroupOffsets) for offset in log_offsets):
        pairs = zip(log_offsets, shapes, strict=True)
        return compact(np.asarray(join([of_elements(offset, shape) for offset, shape in pairs])))
    labels: list[Array] = []
    tables: list[Array] = []
    for i, (offset, shape) in enumerate(zip(log_offsets, shapes, strict=True)):
        # one and the same scale has one set of labels, so that what is chosen of two arrays keeps its groups
        same = next((j for j in range(i) if shape == shapes[j] and same_scale(offset, log_offsets[j])), None)
        if same is not None:
            labels.append(labels[same])
            continue
        first = sum(table.size for table in tables)
        if isinstance(offset, GroupOffsets):
            table, rows, places = _coordinates(offset, shape)
            labels.append(first + rows * table.shape[1] + places // offset.group_size)
        else:
            table = np.asarray(offset)
            own = np.arange(first, first + table.size).reshape(table.shape)
            labels.append(np.broadcast_to(own, shape))
        tables.append(table.reshape(-1))
    return regrouped(np.asarray(join(labels)), np.concatenate(tables))
