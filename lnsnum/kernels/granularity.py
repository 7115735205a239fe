"""Which elements of an array share a log_offset that is fitted to them: those of a channel, or of a group.

One scale for each index along some axes, or for each group of elements along the last:

channels = 0        x[i, ...]                  one for each index along the axis
channels = (0, 1)   x[i, j, ...]               one for each pair, as of a stack of experts
group_size = n      x[..., k n : (k + 1) n]    one for each n elements along the last axis, and for what is left
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.groups import GroupOffsets, check_group_size

Channels = int | tuple[int, ...] | None


class Granularity(NamedTuple):
    """The axes whose elements share a scale, or the size of the groups along the last one."""

    shared: tuple[int, ...]
    group_size: int | None

    def greatest(self, array: NDArray[Any]) -> NDArray[Any]:
        """The greatest element of each channel or group of unsigned integers, 0 of none."""
        if self.group_size is None:
            return np.asarray(np.max(array, axis=self.shared, keepdims=True, initial=0))
        if not array.shape[-1]:
            return array
        return np.maximum.reduceat(array, np.arange(0, array.shape[-1], self.group_size), axis=-1)

    def parts(self, array: NDArray[Any]) -> NDArray[Any]:
        """The elements of each channel or group, as an array of arrays in the shape of `greatest`."""
        starts = [[slice(None)] if axis in self.shared else [slice(i, i + 1) for i in range(length)]
                  for axis, length in enumerate(array.shape)]  # fmt: skip
        if self.group_size is not None:
            starts[-1] = [slice(i, i + self.group_size) for i in range(0, array.shape[-1], self.group_size)]
        out = np.empty([len(one) for one in starts], object)
        for at in np.ndindex(out.shape):
            out[at] = array[tuple(one[i] for one, i in zip(starts, at, strict=True))]
        return out

    def scale(self, offsets: NDArray[Any]) -> NDArray[np.int32] | GroupOffsets:
        """Offsets, one for each of those, as a log_offset of the array."""
        own = offsets.astype(np.int32)
        # one group in each row is a channel
        return own if self.group_size is None or own.shape[-1] == 1 else GroupOffsets(own, self.group_size)


def check_granularity(channels: object, group_size: object, shape: tuple[int, ...]) -> Granularity | None:
    """What is asked for an array of this shape; None where all of it shares one scale.

    Raises:
        TypeError: where channels is no axis, or group_size no integer.
        ValueError: where one is out of range, or both are given.
    """
    if channels is not None and group_size is not None:
        raise ValueError(
            "channels and group_size are both given, and a group's scale is its channel's own: leave out one"
        )
    if group_size is not None:
        size = check_group_size(group_size)
        if not shape:
            raise ValueError(f"group_size={group_size} is of elements along the last axis, and a number has none")
        return Granularity((), size)
    if channels is None:
        return None
    axes = channels if isinstance(channels, tuple) else (channels,)
    if not all(isinstance(axis, (int, np.integer)) and not isinstance(axis, bool) for axis in axes):
        raise TypeError(f"channels={channels!r} is no axis: give an integer, or a tuple of them")
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            has = f"axes 0 to {len(shape) - 1}" if shape else "no axes"
            raise ValueError(f"channels={channels!r} is out of range: an array of shape {shape} has {has}")
    kept = {int(axis) % len(shape) for axis in axes}
    if not axes or len(kept) < len(axes):
        names = "names an axis twice: give each once" if axes else "names no axis: give one or more"
        raise ValueError(f"channels={channels!r} {names}")
    return Granularity(tuple(axis for axis in range(len(shape)) if axis not in kept), None)
