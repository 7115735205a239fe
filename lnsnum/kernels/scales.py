"""Scales of many elements, as kernels take them: a row of values, each of which a run of elements shares.

    the value of element i  =  values[(i // run) mod n],      elements counted as in memory

One scale is a row of one. A scale for each row of a matrix has a run of the row's length, one for each column a run of
1, and goes round with each row. Groups that divide the rows are runs too. Of groups that leave a rest, or that lie
along another axis than the last, `Walk` says how an element finds its own. Kernels take elements by the block, and
spread the values of a block in the nearest cache before they begin: a store and a load for a vector of elements,
whatever the scales are.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.codes import LogOffset
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.filling import fill_run, fill_runs
from lnsnum.kernels.groups import GroupOffsets


def in_order(log_offset: LogOffset, axes: int, order: tuple[int, ...]) -> LogOffset:
    """A log_offset of an array with so many axes, whose axes are put in this order."""
    if isinstance(log_offset, int):
        return log_offset
    if isinstance(log_offset, GroupOffsets):
        return log_offset.turned(axes, order)
    return log_offset.reshape((1,) * (axes - log_offset.ndim) + log_offset.shape).transpose(order)


class Walk(NamedTuple):
    """How elements find their values: an array (rows, length, across, run) has them as (rows, groups, across).

    The value of (i, k, j, any) is values[i, k // group, j], and those of all rows go round where they are fewer. Where
    `group` is 1 the values need not be told apart: that of an element is the one of its run.
    """

    run: int = 1
    group: int = 1
    length: int = 1
    across: int = 1


class Scales(NamedTuple):
    """Integers that belong to the elements of an array: `of` makes them of a log_offset."""

    values: NDArray[np.int64]
    walk: Walk = Walk()

    @classmethod
    def of(cls, log_offset: LogOffset, shape: tuple[int, ...]) -> Scales:
        """Of an array of this shape, in its order: an offset, an array of them that broadcasts to it, or groups.

        >>> Scales.of(np.array([[3], [5]]), (2, 1000)).walk.run
        1000
        >>> Scales.of(GroupOffsets([[3, 5]], 32), (2, 64)).walk.run, Scales.of(GroupOffsets([[3, 5]], 32), (2, 40)).walk
        (32, Walk(run=1, group=32, length=40, across=1))
        """
        if isinstance(log_offset, int):
            return _one(log_offset)
        groups = log_offset if isinstance(log_offset, GroupOffsets) and log_offset.number(shape) > 1 else None
        offsets = log_offset.offsets if isinstance(log_offset, GroupOffsets) else log_offset
        padded = offsets.reshape((1,) * (len(shape) - offsets.ndim) + offsets.shape)
        varied = [axis for axis, length in enumerate(padded.shape) if length != 1]
        # an array without elements has no scale that could matter, and kernels ask for the least and the greatest
        if not varied or 0 in shape:
            return cls(np.array(padded.reshape(-1)[:1] if padded.size else [0], np.int64))
        first, last = varied[0], varied[-1] + 1
        own = list(shape)
        if groups is not None:
            own[groups.axis] = padded.shape[groups.axis]
        # what goes round before the first axis, and stays after the last one, is not written out
        between = np.broadcast_to(padded, (*padded.shape[:first], *own[first:last], *padded.shape[last:]))
        walk = Walk(math.prod(shape[last:]))
        if groups is not None:
            size, along = groups.group_size, groups.place(len(shape))
            length, across = shape[along], math.prod(shape[along + 1 : last])
            whole = across == 1 and length % size == 0
            walk = Walk(walk.run * size) if whole else walk._replace(group=size, length=length, across=across)
        return cls(np.array(between, np.int64).reshape(-1), walk)

    @property
    def single(self) -> bool:
        """Whether all elements have one."""
        return self.values.size == 1

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the greatest."""
        return int(self.values.min()), int(self.values.max())

    def plus(self, constant: int, sign: int = 1) -> Scales:
        """sign * each + constant, the sign 1 or -1."""
        return self._replace(values=self.values + constant if sign == 1 else constant - self.values)

    def moved(self, constant: int, sign: int, dtype: Any) -> NDArray[Any]:
        """constant + sign * each, in integers that hold these."""
        out = np.empty(self.values.shape, dtype)
        _move(self.values, constant, sign, out)
        return out

    def clipped(self, constant: int, low: int, high: int, dtype: Any) -> NDArray[Any]:
        """The values plus a constant, from `low` to `high`, as integers that hold these."""
        out = np.empty(self.values.shape, dtype)
        _clip(self.values, constant, low, high, out)
        return out

    def at(self, i: Any) -> Any:
        """Of element i, or of each of an array of indices."""
        run, group, length, across = self.walk
        place = i // run
        if group > 1:
            row, k = place // across // length, place // across % length
            place = (row * -(-length // group) + k // group) * across + place % across
        return self.values[place % self.values.size]

    def each(self, begin: int, end: int) -> NDArray[np.int64]:
        """Of the elements from `begin` to `end`; still one where all have one."""
        if self.single:
            return self.values
        # all of them, written out already
        if self.walk.run == self.walk.group == 1 and end <= self.values.size:
            return self.values[begin:end]
        out = np.empty(end - begin, np.int64)
        spread(self.values, self.walk, begin, out)
        return out

    def part(self, begin: int, end: int) -> Scales:
        """Those of the elements from `begin` to `end`, counted from there."""
        return self if self.single else Scales(self.each(begin, end))


@lru_cache(maxsize=1024)
def _one(value: int) -> Scales:
    values = np.array([value], np.int64)
    values.flags.writeable = False  # it is shared
    return Scales(values)


@kernel
def _clip(values, constant, low, high, out):  # type: ignore[no-untyped-def]
    # one pass, and no array between: those of a scale for each element are large
    for i in range(out.size):
        out[i] = min(max(values[i] + constant, low), high)


@kernel
def _move(values, constant, sign, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = constant + sign * values[i]


@kernel
def _copy(values, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = values[i]


_SHORT = 256
"""Runs of so many elements at most are written some at a time."""


@kernel
def spread(values, walk, begin, out):  # type: ignore[no-untyped-def]
    """Write the values of elements `begin`, `begin + 1`, ... into `out`."""
    if walk[1] == 1:
        _spread_runs(values, walk[0], begin, out)
    elif walk[0] == walk[3] == 1:
        _spread_lines(values, walk[1], walk[2], begin, out)
    else:
        _spread_groups(values, walk, begin, out)


@kernel
def _spread_runs(values, run, begin, out):  # type: ignore[no-untyped-def]
    group = begin // run
    at, left, done = group % values.size, run - (begin - group * run), 0
    # in loops of their own, over slices: there LLVM sees that no index counts from the end, and makes vectors
    while done < out.size:
        some = fill_runs(out, done, run, values[at:]) if 1 < run <= _SHORT and left == run else 0
        if run == 1:
            count = min(values.size - at, out.size - done)
            _copy(values[at : at + count], out[done : done + count])
            at = 0
        elif some > 0:
            count = some * run
            at = at + some if at + some < values.size else 0
        else:
            count = min(left, out.size - done)
            fill_run(out, done, count, values[at])
            left, at = run, (at + 1 if at + 1 < values.size else 0)
        done += count


@kernel
def _spread_lines(values, group, length, begin, out):  # type: ignore[no-untyped-def]
    """Of groups along the last axis: with few divisions, which would take longer than the stores of a line."""
    groups = (length + group - 1) // group
    row = begin // length
    k = begin - row * length
    which = k // group
    at, done = row * groups + which, 0
    if at >= values.size:
        at %= values.size
    while done < out.size:
        some = 0
        if k == which * group:
            # to the end of the line, the rest too: what is written behind that is written anew with the next line
            some = fill_runs(out, done, group, values[at : at + groups - which])
        if some > 0:
            count = min(some * group, length - k)
        else:
            some, count = 1, min(min(which * group + group, length) - k, out.size - done)
            fill_run(out, done, count, values[at])
        k, which, at, done = k + count, which + some, at + some, done + count
        if k == length:
            k, which = 0, 0
        at = 0 if at == values.size else at


@kernel
def _spread_groups(values, walk, begin, out):  # type: ignore[no-untyped-def]
    run, group, length, across = walk
    groups = (length + group - 1) // group
    place = begin // run
    inside, j, line = begin - place * run, place % across, place // across
    row, k = line // length, line % length
    # of the first value of the group
    at, done = (row * groups + k // group) * across % values.size, 0
    stop = min(k - k % group + group, length)
    while done < out.size:
        left = out.size - done
        if across == 1:
            # all that is left of the group shares one
            count = min((stop - k) * run - inside, left)
            fill_run(out, done, count, values[at])
            k = stop
        else:
            if run == 1:
                count = min(across - j, left)
                _copy(values[at + j : at + j + count], out[done : done + count])
                j += count
            else:
                count = min(run - inside, left)
                fill_run(out, done, count, values[at + j])
                j += 1
            if j == across:
                j, k = 0, k + 1
        inside = 0
        done += count
        # a line of the next group begins, or a row
        if j == 0 and k == stop:
            at = at + across if at + across < values.size else 0
            k = 0 if k == length else k
            stop = min(k + group, length)
