"""One log_offset for each group of elements that follow each other along an axis.

    the log_offset of element (..., k)  =  offsets[..., k // group_size]

Of n elements along the axis ceil(n / group_size) groups are made; the last has the rest. Along the other axes the
offsets broadcast, as those of channels do. They are 4 bytes a group, and are never written out: kernels walk from group
to group (`lnsnum.kernels.scales`).
"""

from __future__ import annotations

import operator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.format import check_log_offset

LEAST_GROUP, GREATEST_GROUP = 16, 256
"""Elements of a group: with 16 its scale is two bits an element, and beyond 256 there is little left to save."""


def check_group_size(group_size: object) -> int:
    """The size of a group as a Python integer; TypeError or ValueError where it is none or out of range."""
    if isinstance(group_size, bool) or not isinstance(group_size, (int, np.integer)):
        raise TypeError(
            f"group_size={group_size!r} is a {type(group_size).__name__}: give an integer, "
            f"{LEAST_GROUP} to {GREATEST_GROUP}"
        )
    if not LEAST_GROUP <= group_size <= GREATEST_GROUP:
        raise ValueError(
            f"group_size={group_size} is out of range: a group has {LEAST_GROUP} to {GREATEST_GROUP} elements"
        )
    return int(group_size)


def check_offset_array(offsets: NDArray[Any], what: str = "log_offset") -> NDArray[np.int32]:
    """Offsets as a new int32 array; TypeError or ValueError where they are no integers, or one is beyond 2^30."""
    if offsets.dtype.kind not in "ui":
        raise TypeError(f"{what} is an array of {offsets.dtype}: give integers, whole code steps")
    for extreme in (offsets.min(initial=0), offsets.max(initial=0)):
        check_log_offset(int(extreme), what)
    return offsets.astype(np.int32)


class GroupOffsets:
    """A log_offset for each group of `group_size` elements along an axis: goes wherever a log_offset goes.

    Args:
        offsets: integers in code steps, each at most 2^30 in size, of as many axes as the codes or fewer. Along `axis`
            there is one for each group, along the others they broadcast.
        group_size: 16 to 256 elements; the last group of an axis has what is left.
        axis: the axis of the codes along which the groups lie, counted from the last, -1.

    Raises:
        TypeError: where offsets are no integers, or group_size or axis is none.
        ValueError: where an offset is beyond 2^30, group_size or axis out of range.

    >>> scale = GroupOffsets([[0, 8, -8]], 32)  # of rows of 65 to 96 numbers
    >>> scale
    GroupOffsets(array([[ 0,  8, -8]], dtype=int32), 32)
    >>> scale.of_elements((2, 70))[:, [0, 31, 32, 63, 64, 69]]
    array([[ 0,  0,  8,  8, -8, -8],
           [ 0,  0,  8,  8, -8, -8]], dtype=int32)
    """

    __slots__ = ("axis", "group_size", "offsets")
    __hash__ = None  # type: ignore[assignment]

    offsets: NDArray[np.int32]
    """One for each group, read-only."""
    group_size: int
    axis: int
    """Counted from the last axis, -1."""

    def __init__(self, offsets: ArrayLike, group_size: int, *, axis: int = -1) -> None:
        given = np.asarray(offsets)
        if given.ndim == 0:
            raise ValueError("offsets is one number: give an array with one for each group, or log_offset an integer")
        if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
            raise TypeError(f"axis={axis!r} is a {type(axis).__name__}: give an integer, -1 for the last axis")
        if not -given.ndim <= operator.index(axis) <= -1:
            raise ValueError(
                f"axis={axis} is out of range: offsets of shape {given.shape} have the axes -{given.ndim} to -1, "
                "counted from the last"
            )
        size = check_group_size(group_size)
        self._set(check_offset_array(given, "offsets"), size, operator.index(axis))

    def _set(self, offsets: NDArray[np.int32], group_size: int, axis: int) -> None:
        offsets.flags.writeable = False
        self.offsets, self.group_size, self.axis = offsets, group_size, axis

    @classmethod
    def _of(cls, offsets: NDArray[Any], group_size: int, axis: int) -> Self:
        """Without a look at the arguments: of results of our own, in which operations add to offsets too."""
        new = object.__new__(cls)
        new._set(offsets, group_size, axis)
        return new

    def __repr__(self) -> str:
        along = "" if self.axis == -1 else f", axis={self.axis}"
        return f"GroupOffsets({self.offsets!r}, {self.group_size}{along})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GroupOffsets):
            return NotImplemented
        same = (self.group_size, self.axis) == (other.group_size, other.axis)
        return same and np.array_equal(self.offsets, other.offsets)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.offsets, self.group_size, self.axis)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise TypeError(
            "GroupOffsets are no array, as each belongs to a group: offsets has one for each group, "
            "of_elements(shape) one for each element"
        )

    def __sub__(self, steps: int) -> GroupOffsets:
        return self._of(self.offsets - steps, self.group_size, self.axis)

    def place(self, axes: int) -> int:
        """The axis, counted from the first, of an array of so many axes."""
        return axes + self.axis

    def padded(self, axes: int) -> NDArray[np.int32]:
        """The offsets with so many axes, the new ones in front."""
        return self.offsets.reshape((1,) * (axes - self.offsets.ndim) + self.offsets.shape)

    def number(self, shape: tuple[int, ...]) -> int:
        """How many groups an array of this shape has along the axis."""
        return -(-shape[self.axis] // self.group_size)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape has these groups."""
        if self.offsets.ndim > len(shape):
            return False
        own = self.padded(len(shape)).shape
        along = self.place(len(shape))
        wanted = [self.number(shape) if axis == along else length for axis, length in enumerate(shape)]
        return own[along] == wanted[along] and all(x in (1, y) for x, y in zip(own, wanted, strict=True))

    def turned(self, axes: int, order: tuple[int, ...]) -> GroupOffsets:
        """Those of an array of so many axes, whose axes are put in this order."""
        along = order.index(self.place(axes))
        return self._of(self.padded(axes).transpose(order), self.group_size, along - axes)

    def spread(self, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Values in the shape of the offsets as one for each element of an array of this shape."""
        each = np.repeat(values, self.group_size, axis=self.axis)
        # the last group has the rest alone
        cut: Any = (..., slice(shape[self.axis]), *(slice(None),) * (-1 - self.axis))
        return np.broadcast_to(each[cut], shape)

    def of_elements(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """The log_offset of each element of an array of this shape, written out."""
        return self.spread(self.offsets, shape)


def _again(offsets: NDArray[np.int32], group_size: int, axis: int) -> GroupOffsets:
    """From a pickle."""
    return GroupOffsets(offsets, group_size, axis=axis)
