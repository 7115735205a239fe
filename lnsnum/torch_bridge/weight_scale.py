"""Where a weight's codes are on the logarithmic axis: a log_offset, or one for each channel or group; what moves it.

    read              `scale`, as the kernels take it; `log_offset`, as its owner does
    moved             `set_scale`: of all that have the codes; `rescale_`, codes and scale together; `grow_`, a ceiling
    may it move?      `owns_scale`: whoever has a part of the codes, or shares them with another process, may not

Aliases and views of a weight share the scale with it, as they share the codes.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.format import MAX_LOG_OFFSET, LNSFormat
from lnsnum.torch_bridge.float_doors import FloatDoors
from lnsnum.torch_bridge.kernels import ceiling_twin
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.ceiling import grow
from lnsnum.torch_bridge.kernels.codes_twin import is_real
from lnsnum.torch_bridge.kernels.fits import fit_each
from lnsnum.torch_bridge.kernels.grid import doubling
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part
from lnsnum.torch_bridge.kernels.scale import RMS, Fit, LogOffset, Scale, Span, check_offset

__all__ = ["WeightScale", "others_have"]


class WeightScale(FloatDoors):
    """The methods of `LNSWeight`, which inherits them, that have to do with its scale."""

    fmt: LNSFormat
    _span: Span  # shared by aliases of the same codes
    _offsets: torch.Tensor | None  # of channels or groups, and of what graphs can raise
    _groups: tuple[int, int]  # their size and the dimension along which they lie; (0, -1) of channels
    _taken_at: int | None  # for a view that has a copy of offsets: the count of changes when they were copied

    @property
    def scale(self) -> Scale:
        """Where the codes are on the logarithmic axis, as the kernels take it.

        Raises:
            RuntimeError: of a view that had to copy the offsets of channels, after the weight's were changed, and of
                one that was taken before `scale_for_graph_`.
        """
        low, high, changes, room = self._span.numbers
        if self._offsets is None and room:
            raise RuntimeError("this view was taken before the weight's log_offset became a tensor: take it anew")
        if self._taken_at is not None and self._taken_at != changes:
            raise RuntimeError("this view merged channels, and their log_offsets have been changed since: take it anew")
        if self._offsets is not None and is_real(self._offsets) and others_have(self._offsets):
            low, high = (int(extreme) for extreme in self._offsets.aminmax())  # another process may have changed them
        size, axis = self._groups
        return Scale(low, high, self._offsets, size, axis, self.codes.shape[axis] % size if size else 0)

    @property
    def group_size(self) -> int | None:
        """How many elements along a dimension share a log_offset, of which log_offset has one for each group; or None,
        where it broadcasts to the codes.
        """
        return self._groups[0] or None

    @property
    def log_offset(self) -> LogOffset:
        """The scale in code steps: an integer, or an int32 tensor that broadcasts to the codes, or to their groups."""
        scale = self.scale
        if scale.offsets is not None and scale.offsets.numel() == 1 and self._span.room:
            return int(scale.offsets)
        return scale.low if scale.offsets is None else scale.offsets

    @property
    def fit(self) -> Fit:
        """The rule by which floats that are written into the whole weight get their scale: that of its conversion."""
        return self._span.fit

    @fit.setter
    def fit(self, value: Fit) -> None:
        self._span.fit = value

    def take_scale(self, source: WeightScale) -> bool:
        """Take another weight's log_offset, and the rule by which it was fitted, where that is not the default; False
        where only a part of a weight is here, or codes of other processes that would not learn of it, and they differ.

        Raises:
            ValueError: where the other has one for each channel, and there is one here (or of another shape).
        """
        own, other = self.scale, source.scale
        if not self.is_whole() or self._is_kept_by_processes():
            if own.offsets is None or other.offsets is None:
                return own.offsets is other.offsets and own.low == other.low
            return own.groups == other.groups and torch.equal(own.offsets, other.offsets)
        if own.offsets is None:
            if other.offsets is not None and is_real(other.offsets) and other.offsets.numel() == 1:
                other = Scale(int(other.offsets), int(other.offsets))
            if other.low != other.high:
                each = f"group of {other.group_size}" if other.group_size else "channel"
                how = f"group_size={other.group_size}" if other.group_size else "per_channel=True"
                raise ValueError(
                    f"a weight with one log_offset cannot take codes with one for each {each}: convert the model with "
                    f"{how}"
                )
            if own.low != other.low:
                self._span.set(other.low, other.high)
            self._take_fit(source)
            return True
        offsets = torch.full_like(own.offsets, other.low) if other.offsets is None else other.offsets
        if own.offsets.shape != offsets.shape or (other.offsets is not None and own.groups != other.groups):
            raise ValueError(
                f"log_offsets of shape {tuple(offsets.shape)} cannot become those of a weight that has "
                f"{tuple(own.offsets.shape)}"
            )
        if not (is_real(own.offsets) and torch.equal(own.offsets, offsets)):
            self.set_scale(own._replace(low=other.low, high=other.high, offsets=offsets))
        self._take_fit(source)
        return True

    def _take_fit(self, source: WeightScale) -> None:
        # of a weight that nobody converted it is the default, and says nothing
        if source.fit != RMS:
            self.fit = source.fit

    def set_scale(self, scale: Scale) -> None:
        """Another scale for the same codes, which thereby stand for other numbers: of this weight and all its aliases.

        One that `owns_scale`, or whose codes are written next; `scale` has one log_offset, or as many as there are.
        """
        if self._offsets is not None:
            self._offsets.copy_(torch.as_tensor(scale.low if scale.offsets is None else scale.offsets))
        self._span.set(scale.low, scale.high)

    def rescale_(self, log_offset: LogOffset | None = None, *, p_scale: float = 3.0) -> Self:
        """Move the codes to another scale, in place; returns self.

            m  <-  clip(m + old log_offset - new log_offset, 1, m_max)        where m > 0

        An addition of integers: exact but for what saturates at either end. Beside this, a weight's scale changes when
        all of it is written anew (`copy_`, `normal_`, `fill_`) or multiplied by a number, and when Madam raises a
        ceiling.

        Args:
            log_offset: the new scale, an integer or as many as there are. By default the least at which the greatest
                magnitude is at or above p_scale times the RMS (of each channel where there are several).
            p_scale: see log_offset.

        Raises:
            TypeError, ValueError: for a log_offset of another kind or shape than the weight's.
            RuntimeError: of a view of a part of a weight, whose other elements have the same scale, and of codes in
                shared memory, whose other processes have it.
        """
        if not 0.0 < p_scale < math.inf:
            raise ValueError(f"p_scale={p_scale} is out of range: finite and greater than 0")
        if not self.is_whole():
            raise RuntimeError(
                "rescale_ of a part of a weight would leave the rest at another scale: rescale the whole"
            )
        if self._is_kept_by_processes():
            raise RuntimeError(
                "rescale_ of codes in shared memory would leave other processes at the old scale: rescale before "
                "share_memory_()"
            )
        old = self.scale
        if log_offset is None:
            log_offset = fit_each(self.to_float(torch.float64).nan_to_num(), self.fmt, Fit(p_scale=p_scale), old)
        new = check_offset(log_offset, self.shape, *(old.groups if isinstance(log_offset, torch.Tensor) else ()))
        if new.offsets is not None and (old.offsets is None or new.offsets.shape != old.offsets.shape):
            if old.offsets is None:
                raise ValueError("this weight has one log_offset: give one integer")
            shapes = tuple(new.offsets.shape), tuple(old.offsets.shape)
            raise ValueError(f"log_offsets of shape {shapes[0]} cannot become those of a weight that has {shapes[1]}")
        target = new.low if new.offsets is None else new.offsets.to(self.device)
        old_offsets = torch.tensor(old.low) if old.offsets is None else old.offsets
        with torch.no_grad():
            m = old.apart(self.codes).to(torch.int64) & self.fmt.max_magnitude
            shift = old.over_codes(old_offsets.to(torch.int64) - target)
            moved = torch.where(m > 0, (m + shift).clamp(1, self.fmt.max_magnitude), m)
            self.codes.add_(old.together(moved - m).to(self.codes.dtype))
            self.set_scale(new)
        torch.autograd.graph.increment_version(self)
        return self

    def scale_for_graph_(self, doublings: int = 16) -> None:
        """Hold the log_offset in a tensor, which a graph can raise, and leave room for ceilings to grow, in place.

        A graph decodes by a table of all log_offsets between two bounds, its constants. The upper one becomes
        `doublings` growths more than the greatest log_offset of now. One log_offset is still read as one integer.
        """
        if self._offsets is None:
            shape = (1,) * self.ndim
            self._offsets = torch.full(shape, self._span.low, dtype=torch.int32, device=self.codes.device)
        bounds = (self._span.low, self._span.high) if self.is_meta else self._offsets.aminmax()
        low, high = (int(bound) for bound in bounds)
        self._span.make_room(low, high, max(min(doublings * doubling(self.fmt), MAX_LOG_OFFSET - high), 1))

    def keep_shape_in_graphs_(self) -> None:
        """Let no graph take the number of log_offsets for one that changes, when another model is compiled after this.

        torch.compile would ask a parameter for them before the graph has it.
        """
        if self._offsets is not None:
            torch._dynamo.mark_static(self._offsets)

    def grow_(self, grows: NDArray[np.bool_], draw: Draw, *, keep: bool = False, part: Part = WHOLE) -> None:
        """Let scales grow by the least whole number of code steps that doubles, one for each of `grows`.

        Every number stays what it is, but for those below the new floor; see `lnsnum.torch_bridge.kernels.ceiling`.
        `part` is where a shard is within the whole. Nothing grows beyond a log_offset of 2^30.
        """
        by, scale = doubling(self.fmt), self.scale
        offsets = scale.offsets
        if offsets is None:
            steps, each = by * int(grows.any()), torch.from_numpy(grows).reshape((1,) * self.ndim)
            if self._span.high + steps > MAX_LOG_OFFSET:
                return
        else:
            each = torch.from_numpy(grows).reshape(offsets.shape) & (offsets.cpu() + by <= MAX_LOG_OFFSET)
            offsets.add_((each.to(torch.int32) * by).to(offsets.device))
        with torch.no_grad():
            if bridge.is_on_cpu(self.codes):
                codes = self.codes.contiguous()
                flags, numbers = each.reshape(-1).numpy(), scale.numbers(self.shape)
                grow(bridge.as_numpy(codes, self.fmt.dtype), self.fmt, flags, numbers, draw, keep=keep, part=part)
            else:
                here, apart = scale.over_codes(each).to(self.codes.device), scale.apart(self.codes)
                codes = scale.together(ceiling_twin.grow(apart, self.fmt, here, draw, keep=keep, part=part))
            if codes is not self.codes:
                self.codes.copy_(codes)
        low, high = (self._span.low + steps,) * 2 if offsets is None else (int(x) for x in offsets.aminmax())
        self._span.set(low, high)
        torch.autograd.graph.increment_version(self)

    def scale_mark(self) -> tuple[int | None, ...] | None:
        """What is another one after each change of the scale; None where a change might not show here: one by another
        process, or by a graph."""
        offsets, numbers = self._offsets, self._span.numbers
        if offsets is None:
            return (*numbers, None, None)
        if numbers[3] or self._taken_at is not None or others_have(offsets):
            return None
        return (*numbers, id(offsets), offsets._version)

    def is_whole(self) -> bool:
        """Whether all elements of the codes' memory are here, so that the scale is this weight's alone."""
        if self._span.is_shard:
            return False
        codes = self.codes
        covers = codes.untyped_storage().nbytes() == codes.numel() * codes.itemsize  # nbytes is no symbol in a graph
        return self._taken_at is None and covers and bridge.is_dense(codes)

    def owns_scale(self) -> bool:
        """Whether a write may choose the scale: the whole is written, here and now, not in a traced graph."""
        return self.is_whole() and self.may_set_scale_of_all()

    def may_set_scale_of_all(self) -> bool:
        """Whether the scale of all that shares the codes can be changed from here."""
        is_ours = self._taken_at is None and not self._span.is_shard
        return is_ours and is_real(self.codes) and not self._is_kept_by_processes()

    def _is_kept_by_processes(self) -> bool:
        """Whether several processes may have the codes, each with a log_offset of its own."""
        return self._offsets is None and self.codes.device.type == "cpu" and self.codes.is_shared()


def others_have(offsets: torch.Tensor) -> bool:
    """Whether another process may change them. (Torch says so of all memory of graphics cards; and to look there would
    be to wait for the card at each use of a weight.)"""
    return offsets.is_cpu and offsets.is_shared()
