"""The scale of a weight: one log_offset, or one for each channel or group; and which scale fits given values.

    log_offset  =  the least at which the greatest magnitude is at or above p_scale * RMS(w)

What is the clip |w| <= p_scale * RMS(w0) in the Madam paper is then the saturation of the format itself. Zeros have no
RMS: they get the scale of the numbers that could stand there, of `std_of_zeros`.

Groups are of n elements along a dimension. Where n divides it, codes (N, K) with a log_offset for each group are codes
(N, K / n, n), a view, with one for each channel of two dimensions: `Scale.apart` makes that of them, and what is known
of channels does for groups. Where the last group has the rest, no view has a row for each: there it is one log_offset
for each element along the dimension, written out for as long as it is needed; what is measured of a group is measured
of two `pieces`, the whole groups and the rests.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from lnsnum import exact
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, check_log_offset
from lnsnum.kernels.granularity import Channels, check_granularity
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.kernels.scales import Scales

LogOffset = int | torch.Tensor
"""A scale in code steps: an integer, or an integer tensor that broadcasts to the codes."""


ZERO_STD = 0.1
"""The standard deviation that stands for that of zeros, of biases."""


class Fit(NamedTuple):
    """By which rule a scale is fitted to numbers; see `lnsnum.torch_bridge.kernels.fits`."""

    rule: Literal["rms", "max", "mse"] = "rms"
    p_scale: float = 3.0
    """The headroom of the rule "rms"."""

    @classmethod
    def checked(cls, given: Any) -> Fit:
        """That of a pickle; ValueError where it is none."""
        shaped = isinstance(given, tuple) and len(given) == 2 and type(given[1]) is float
        if not shaped or given[0] not in ("rms", "max", "mse") or not 0.0 < given[1] < math.inf:
            raise ValueError(f"{given!r:.60} is no rule of a scale: rms, max or mse, and a headroom greater than 0")
        return cls(*given)

    @classmethod
    def of_json(cls, told: Any) -> Fit:
        """That of a weight file, which has the fields by name; ValueError where it is none."""
        if not isinstance(told, dict) or told.keys() != {"rule", "p_scale"}:
            raise ValueError(f"{told!r:.60} is no rule of a scale: an object of rule and p_scale")
        rule, p_scale = told["rule"], told["p_scale"]
        if type(p_scale) is int and abs(p_scale) < 1 << 1000:  # JSON's numbers are of one kind: other writers give 3
            p_scale = float(p_scale)
        return cls.checked((rule, p_scale))

    def in_words(self) -> str:
        """What is said of a weight that has this rule, behind its format; of the default nothing."""
        headroom = f" with p_scale={self.p_scale}" if self.rule == "rms" else ""
        return "" if self == RMS else f" by the rule {self.rule!r}{headroom}"


RMS = Fit()
"""The rule where none is given."""


class Scale(NamedTuple):
    """Where a tensor's codes are on the logarithmic axis."""

    low: int
    """The least log_offset."""
    high: int
    """The greatest; `low`, where there is only one."""
    offsets: torch.Tensor | None = None
    """int32, of as many dimensions as the codes, to which it broadcasts: one log_offset for each channel; or, along
    the dimension `axis`, one for each group."""
    group_size: int = 0
    """Elements of a group; 0, where there are none."""
    axis: int = -1
    """Along which they lie, counted from the last."""
    rest: int = 0
    """Elements of the last group of a line, where these are fewer; 0, where the groups divide it."""

    @property
    def groups(self) -> tuple[int, int]:
        """Their size and dimension."""
        return self.group_size, self.axis

    def on(self, device: torch.device) -> Scale:
        """The same with its offsets on a device."""
        if self.offsets is None or self.offsets.device == device:
            return self
        return self._replace(offsets=self.offsets.to(device))

    @property
    def of_channels(self) -> Scale:
        """The scale of what `apart` gives."""
        if self.offsets is None or not self.group_size:
            return self
        return Scale(self.low, self.high, self.over_codes(self.offsets))

    def over_codes(self, values: torch.Tensor) -> torch.Tensor:
        """What has one for each group, as `offsets`, so that it broadcasts to what `apart` gives."""
        return self.spread(values) if self.rest else self.unmerged(values)

    def unmerged(self, values: torch.Tensor) -> torch.Tensor:
        """What has one for each group with a dimension more, of one element, for those of a group."""
        return values.unsqueeze(values.ndim + self.axis + 1) if self.group_size else values

    def merged(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `unmerged`."""
        return values.squeeze(values.ndim + self.axis) if self.group_size else values

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """What has one for each group, as one for each element along the dimension of the groups."""
        if not self.group_size:
            return values
        length = values.shape[self.axis] * self.group_size - (self.group_size - self.rest if self.rest else 0)
        return values.repeat_interleave(self.group_size, self.axis).narrow(self.axis, 0, length)

    def apart(self, x: torch.Tensor) -> torch.Tensor:
        """A view of a tensor in the shape of the codes, with a dimension of its own for the elements of a group; the
        tensor itself, where groups leave a rest."""
        if not self.group_size or self.rest:
            return x
        shape = (*x.shape[: self.axis], x.shape[self.axis] // self.group_size, self.group_size)
        return x.view(shape + x.shape[x.ndim + self.axis + 1 :])

    def together(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `apart`."""
        if not self.group_size or self.rest:
            return x
        last = x.ndim + self.axis
        return x.flatten(last - 1, last)

    def pieces(self, x: torch.Tensor) -> list[tuple[torch.Tensor, Scale]]:
        """Views of a tensor in the shape of the codes, each with the scale of channels that it has: of groups that
        leave a rest two, that of the whole groups and that of the rests."""
        if not self.rest:
            return [(self.apart(x), self.of_channels)]
        assert self.offsets is not None
        whole, groups = x.shape[self.axis] - self.rest, self.offsets.shape[self.axis] - 1
        found = []
        for size, begin, length, first, count in (
            (self.group_size, 0, whole, 0, groups), (self.rest, whole, self.rest, groups, 1),
        ):  # fmt: skip
            part = self.offsets.narrow(self.axis, first, count)
            own = Scale(self.low, self.high, part, size, self.axis)
            found.append((own.apart(x.narrow(self.axis, begin, length)), own.of_channels))
        return found

    def of_pieces(self, values: list[torch.Tensor]) -> torch.Tensor:
        """What has one for each channel of `pieces`, in the shape of the offsets."""
        return torch.cat([self.merged(each) for each in values], self.axis) if self.rest else self.merged(values[0])

    def numbers(self, shape: torch.Size) -> Scales:
        """Which of the log_offsets each element of the codes has, by its place among them, as the core's kernels take
        what belongs to elements."""
        if self.offsets is None:
            return Scales.of(0, ())
        each: Any = np.arange(self.offsets.numel()).reshape(self.offsets.shape)
        if 0 in shape:
            return Scales(each.reshape(-1))
        return Scales.of(GroupOffsets._of(each, *self.groups) if self.group_size else each, tuple(shape))

    @property
    def mT(self) -> Scale:  # noqa: N802  (torch's name)
        """That of the codes' last two dimensions, exchanged."""
        axis = {-1: -2, -2: -1}.get(self.axis, self.axis)
        return self if self.offsets is None else self._replace(offsets=self.offsets.mT, axis=axis)


class Span:
    """What all aliases of the same codes share: the least and the greatest log_offset, and how products are made.

    Its numbers are those of one list, which is what is pickled: what shared it shares it again where it is loaded, and
    a list of integers is known to every reader of pickles.

    Attributes:
        numbers: that list: low, high, changes, room.
        warned: whether a write that does not fit has been told of since the last change.
        fit: the rule by which floats that are written into all of them get their scale.
        weight_only: whether products with the codes are made of them, see `lnsnum.torch_bridge.weight_only`.
        is_shard: whether other processes hold the rest of the weight, which has the same scale.
        is_gathered: whether fully_shard has put it together of shards, and will add its gradients.
        whole: the log_offsets of all channels, where these codes are a shard and have some of them.
        rows: of a shard, how many each process sends, once they were gathered.
        tables: by float type, what decodes the codes at the scale that it names: kept from one use to the next.
    """

    def __init__(self, low: int, high: int, *, room: int = 0) -> None:
        self.numbers = [low, high, 0, room]
        self.warned = self.weight_only = self.is_shard = self.is_gathered = False
        self.whole: torch.Tensor | None = None
        self.rows: int | None = None
        self.tables: dict[torch.dtype, Any] = {}
        self.fit = RMS

    @classmethod
    def on(cls, numbers: Any) -> Span:
        """That of a pickle, on the very list that it holds.

        Raises:
            TypeError, ValueError: where it holds something else, or bounds that are none.
        """
        # by type, not isinstance: a bool is an int too
        if not isinstance(numbers, list) or len(numbers) != 4 or not all(type(number) is int for number in numbers):
            raise ValueError(
                f"the scale of a pickled LNSWeight is a list of four integers, not {numbers!r:.60}: it was written by "
                "another version, or is damaged"
            )
        low, high = (check_log_offset(number) for number in numbers[:2])
        if low > high or min(numbers[2:]) < 0:
            raise ValueError(
                f"{numbers} is no scale of a pickled LNSWeight: low to high, and changes and room of 0 or more"
            )
        span = cls(low, high)
        # the very list: who else was pickled with it has it too, and sees the next change
        span.numbers = numbers
        return span

    @property
    def low(self) -> int:
        """The least log_offset."""
        return self.numbers[0]

    @property
    def high(self) -> int:
        """The greatest."""
        return self.numbers[1]

    @property
    def changes(self) -> int:
        """How often they changed, which makes copies of the channels' offsets stale."""
        return self.numbers[2]

    @property
    def room(self) -> int:
        """How far above the greatest log_offset `high` was put, for graphs, whose tables must not change; or 0."""
        return self.numbers[3]

    def is_that_of(self, other: Span) -> bool:
        """Whether both are of the same codes, loaded or copied as they may be."""
        return self.numbers is other.numbers

    def set(self, low: int, high: int) -> None:
        """Another scale, of which nothing has been told yet; where graphs have room, bounds that hold stay."""
        # bounds are the graphs' tables: as long as the scale is within them, they need not be compiled again
        if self.room and self.low <= low and high <= self.high:
            low, high = self.low, self.high
        elif self.room:
            high = min(high + self.room, MAX_LOG_OFFSET)
        self._change(low, high, self.room)

    def make_room(self, low: int, high: int, room: int) -> None:
        """Bounds of a scale that a graph can raise by `room`."""
        self._change(low, min(high + room, MAX_LOG_OFFSET), room)

    def _change(self, low: int, high: int, room: int) -> None:
        # into the list, which all aliases share, and not another in its place
        self.numbers[:] = low, high, self.changes + 1, room
        self.warned = False


def check_offset(log_offset: object, shape: torch.Size, group_size: int = 0, axis: int = -1) -> Scale:
    """The scale of a tensor of this shape; with a group_size log_offset has one for each group along the axis.

    What has no elements has one log_offset, whatever is given.

    Raises:
        TypeError: where log_offset is no integer and no tensor of integers.
        ValueError: where one is larger than 2^30 in size, they do not broadcast to the shape, or are not one for each
            group.
    """
    if group_size:
        return _check_groups(log_offset, shape, group_size, axis)
    if not isinstance(log_offset, torch.Tensor):
        offset = check_log_offset(log_offset)  # type: ignore[arg-type]
        return Scale(offset, offset)
    if log_offset.dtype.is_floating_point or log_offset.dtype.is_complex or log_offset.dtype == torch.bool:
        raise TypeError(f"log_offset is a tensor of {log_offset.dtype}: give integers, whole code steps")
    # one number in a tensor is one for all, and kept as an integer
    if log_offset.ndim == 0:
        return check_offset(int(log_offset), shape)
    try:
        # to the codes' own shape: what would broaden the codes is refused
        fits = torch.broadcast_shapes(log_offset.shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"log_offset of shape {tuple(log_offset.shape)} does not broadcast to the codes' shape {tuple(shape)}"
        )
    if log_offset.numel() == 0:
        return Scale(0, 0)
    low, high = (check_log_offset(int(extreme)) for extreme in log_offset.aminmax())
    # as many dimensions as the codes, so that views of these can view their scales alike; a copy, as the caller's
    # tensor may change later
    padded = log_offset.detach().reshape((1,) * (len(shape) - log_offset.ndim) + log_offset.shape)
    return Scale(low, high, padded.to(torch.int32).clone(memory_format=torch.contiguous_format))


def _check_groups(log_offset: object, shape: torch.Size, group_size: int, axis: int) -> Scale:
    if not isinstance(log_offset, torch.Tensor):
        raise TypeError(
            f"log_offset={log_offset!r} is one for all, and group_size={group_size} asks for one for each group: give "
            "an integer tensor, or leave out group_size"
        )
    if len(shape) < -axis:
        raise ValueError(f"a weight of shape {tuple(shape)} has no dimension {axis} for groups: leave out group_size")
    wanted, rest = list(shape), shape[axis] % group_size
    wanted[axis] = -(-shape[axis] // group_size)
    if log_offset.ndim < -axis or log_offset.shape[axis] != wanted[axis]:
        raise ValueError(
            f"log_offset of shape {tuple(log_offset.shape)} has not one for each group of {group_size} of a weight of "
            f"shape {tuple(shape)}: give a tensor that broadcasts to {tuple(wanted)}"
        )
    scale = check_offset(log_offset, torch.Size(wanted))
    # one group along the dimension is a channel
    if wanted[axis] <= 1 or scale.offsets is None:
        return scale
    return scale._replace(group_size=group_size, axis=axis, rest=rest)


def each_of(channels: Channels, group_size: int | None, shape: torch.Size) -> Scale | None:
    """A scale of zeros with one log_offset for each channel or group that is asked for; None where all share one.

    Raises:
        TypeError, ValueError: as `lnsnum.fit_log_offset`.
    """
    each = check_granularity(channels, group_size, tuple(shape))
    if each is None:
        return None
    own = [1 if d in each.shared else length for d, length in enumerate(shape)]
    if each.group_size is not None:
        own[-1] = -(-own[-1] // each.group_size)
    zeros = torch.zeros(own, dtype=torch.int32)
    return Scale(0, 0, zeros) if each.group_size is None else check_offset(zeros, shape, each.group_size)


def blocks_within(values: torch.Tensor, shape: torch.Size) -> tuple[int, torch.Tensor]:
    """Values that broadcast to a shape, as (inner, runs): element i has runs[i // inner % len(runs)]."""
    varying = [d for d in range(values.ndim) if values.shape[d] > 1]
    if not varying:
        return math.prod(shape), values.reshape(-1)[:1]
    first, last = varying[0], varying[-1] + 1
    # what goes round before the first dimension, and stays after the last one, is not written out
    runs = values.expand(*values.shape[:first], *shape[first:last], *values.shape[last:])
    return math.prod(shape[last:]), runs.reshape(-1)


def std_of_zeros(shape: torch.Size, most: float = ZERO_STD) -> float:
    """The standard deviation of numbers in the place of nothing but zeros: at most `most`, and in a matrix
    1 / sqrt(fan_in), at which a layer's outputs are no larger than its inputs, however wide it is.

    >>> std_of_zeros(torch.Size([768])), std_of_zeros(torch.Size([768, 400])), std_of_zeros(torch.Size([8, 4, 5, 5]))
    (0.1, 0.05, 0.1)
    """
    fan_in = math.prod(shape[1:])
    return min(most, 1 / math.sqrt(fan_in)) if len(shape) > 1 and fan_in else most


def in_channels(x: torch.Tensor, of: torch.Tensor | None) -> torch.Tensor:
    """The elements as a matrix with a row for each channel, in the order of the offsets `of`; one row without them."""
    if of is None:
        return x.reshape(1, -1)
    varying = [d for d in range(x.ndim) if of.shape[d] != 1]
    rest = [d for d in range(x.ndim) if of.shape[d] == 1]
    # channels first, in the order of their offsets, whichever dimensions they are
    return x.permute(varying + rest).reshape(of.numel(), math.prod(x.shape[d] for d in rest))


def root_mean_square(x: torch.Tensor) -> float:
    """sqrt(mean(x^2)) of a float64 tensor, scaled so that no square leaves the range; 0 of an empty one."""
    # the greatest becomes 1, so the mean of the squares is from 1 / n to 1
    scale = float(x.abs().max()) if x.numel() else 0.0
    return scale * float((x / scale).square().mean().sqrt()) if scale else 0.0


def fit_to_rms(rms: float, fmt: LNSFormat, p_scale: float = 3.0) -> int:
    """The least log_offset at which the greatest magnitude is at or above p_scale * rms; 0 where that is 0.

    >>> from lnsnum import lns8f5
    >>> fit_to_rms(1.0, lns8f5)
    -12
    """
    top = p_scale * rms
    if top == 0.0:
        return 0
    # by exact comparison of integers: a logarithm near a whole step would be rounded to either side, by the library
    return check_log_offset(exact.ceil_log(*exact.split_float(top), fmt.base, fmt.fraction_bits) - fmt.max_log)
