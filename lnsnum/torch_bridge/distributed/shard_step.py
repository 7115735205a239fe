"""Madam's step of shards: what it takes from the whole tensor is reduced over them, as integers.

    unit r of the steps          first step      histogram of the codes: sums (of scales that lie in one shard each, the
                                                 RMS of each, at its place in a list of all; of groups one histogram for
                                                 each log_offset that there is)
    exponent of the moments      first gradient  bits of the greatest |gradient|: maximum
    gradients that outgrow it    every step      the same
    numbers that must agree      every step      a hash of them, and its negative: maxima, so greatest and least
    ceilings that follow         every 20th      codes at the ceiling, sum of square shares, number of codes: sums

Sums and maxima of integers are the same in any order, and random words go by an element's index in the whole: so codes
are those of one process, however the weight is cut. The steps are generators, which ask for each reduction and are sent
its result; `lnsnum.torch_bridge.distributed.dtensors` answers by all_reduce.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.torch_bridge.kernels import ceiling, ceiling_twin
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.moments import NO_EXPONENT, exponent_of, greatest_gradient
from lnsnum.torch_bridge.kernels.random_words import Draw, Part
from lnsnum.torch_bridge.launch import Slice, Table, asked, can_have_entry, can_launch, entry_of, is_plain
from lnsnum.torch_bridge.step import raise_exponent, step_shards
from lnsnum.torch_bridge.step_state import GROWN, MOST_UNCODED, State, advance_clock, ceiling_follows, choices_of
from lnsnum.torch_bridge.units import different_offsets, histogram_by, histograms_of, move_units, tallies_of, units_by
from lnsnum.torch_bridge.weight import LNSWeight

Numbers = NDArray[np.int64]
Reductions = Generator[tuple[Literal["sum", "max"], Numbers], Numbers, Any]
"""Asks for integers to be reduced over all shards, each element by itself, and is sent them."""


class Shard(NamedTuple):
    """A shard of an LNS weight, and what is known of the whole."""

    weight: LNSWeight
    gradient: torch.Tensor | None
    state: State
    """Of the whole, but for `second_moment` and `momentum`, which are the shard's."""
    group: dict[str, Any]
    """Of the optimizer."""
    shape: torch.Size
    """Of the whole."""
    cut: int
    """The dimension along which the whole is cut."""
    begin: int
    """Where the shard begins in it."""

    @property
    def part(self) -> Part:
        """Where its elements are within the whole."""
        strides = torch.empty(self.shape, device="meta").stride()
        first = self.begin * strides[self.cut]
        if self.cut == 0:
            return Part(first, 1, 1)
        return Part(first, self.weight.shape[self.cut] * strides[self.cut], strides[self.cut - 1])

    @property
    def offsets(self) -> torch.Tensor:
        """The log_offsets of the whole, shaped as units are: of groups with a dimension more."""
        whole, own = self.weight._span.whole, self.weight.scale
        if whole is not None:
            return own.unmerged(whole)
        return torch.tensor(own.low, dtype=torch.int32) if own.offsets is None else own.offsets

    @property
    def scales(self) -> tuple[slice, ...]:
        """Which of the log_offsets of the whole are those of this shard."""
        own = slice(self.begin, self.begin + self.weight.shape[self.cut])
        return (slice(None),) * self.cut + (own,) if self.is_cut_between_scales() else ()

    def is_cut_between_scales(self) -> bool:
        """Whether each scale lies in one shard: they differ along the dimension that is cut."""
        return self.offsets.ndim > self.cut and self.offsets.shape[self.cut] > 1

    def of_all_scales(self, numbers: Numbers) -> Numbers:
        """Numbers of this shard's scales, (scales, ...), among zeros for the other scales of the whole."""
        rest = numbers.shape[1:]
        whole = np.zeros((*self.offsets.shape, *rest), np.int64)
        if self.weight.numel():
            whole[self.scales] = numbers.reshape(*whole[self.scales].shape)
        return whole.reshape(-1, *rest)


def unit_states(shards: list[Shard]) -> Reductions:
    """The part of a state that holds the unit of the steps, of each shard's weight."""
    if not shards:
        return []
    asked = []
    for shard in shards:
        if shard.weight.group_size is not None:
            offsets, which = different_offsets(shard.offsets)
            own = which.reshape(shard.offsets.shape)[shard.scales].reshape(-1)
            asked.append(histogram_by(shard.weight, own, offsets.size))
            continue
        histogram = histograms_of(shard.weight)
        if shard.is_cut_between_scales():
            bits = ceiling.root_mean_squares(histogram, shard.weight.fmt).view(np.int64)
            asked.append(shard.of_all_scales(np.stack([bits, histogram.sum(1)], axis=1)))
        else:
            asked.append(shard.of_all_scales(histogram))
    states = []
    for shard, whole in zip(shards, (yield from _reduced("sum", asked)), strict=True):
        different = None if shard.weight.group_size is None else different_offsets(shard.offsets)[0]
        rms: NDArray[np.float64]
        sizes: Numbers
        if different is None and shard.is_cut_between_scales():
            rms, sizes = np.ascontiguousarray(whole[:, 0]).view(np.float64), whole[:, 1]
        else:
            rms, sizes = ceiling.root_mean_squares(whole, shard.weight.fmt), whole.sum(1)
        states.append(units_by(shard.weight.fmt, shard.offsets, shard.shape, rms, sizes, different))
    return states


class ShardLaunch:
    """The shards of one group of an optimizer that have a gradient, which one launch steps; see `launch.Table`.

    Args:
        shards: they; those that no kernel can step where they are have no place in it.

    Attributes:
        places: of those that have one, in `shards`.
    """

    def __init__(self, shards: list[Shard]) -> None:
        group = shards[0].group
        self._asked, self._streams = asked(group), [shard.state["stream"] for shard in shards]
        found = [
            entry_of(group, shard.state, shard.weight, k, Slice(shard.part, shard.scales))
            if can_have_entry(shard.weight)
            and shard.gradient is not None
            and is_plain(shard.gradient, shard.weight.numel())
            else None
            for k, shard in enumerate(shards)
        ]
        self._entries = [entry for entry in found if entry is not None]
        self.places = [entry.place for entry in self._entries]
        self._table = Table(group, self._entries)

    def ready(self, shards: list[Shard]) -> bool:
        """Take the gradients; False where these are others, or something is no longer as it was."""
        if self._asked != asked(shards[0].group) or self._streams != [shard.state["stream"] for shard in shards]:
            return False
        own = [shards[place] for place in self.places]
        if not all(e.p is s.weight and e.holds(s.state) for e, s in zip(self._entries, own, strict=True)):
            return False
        return self._table.take([shard.gradient for shard in own])

    def step(self, group: dict[str, Any]) -> list[int]:
        """The bits of the greatest gradient of each that has a place."""
        greatest: list[int] = self._table.step(group, follows=False)[0].tolist() if self._entries else []
        return greatest


Launches = dict[int, ShardLaunch]
"""Those of an optimizer, by the stream of the first of their shards: kept from one step to the next."""


def _move(shards: list[Shard], launches: Launches | None) -> list[int]:
    """What of a step of shards with gradients needs no other shard; of each the bits of the greatest gradient."""
    greatest = [0] * len(shards)
    groups: dict[int, list[int]] = {}
    for k, shard in enumerate(shards):
        groups.setdefault(id(shard.group), []).append(k)
    if not can_launch():
        launches = None
    for own in groups.values():
        members, launched = [shards[k] for k in own], []
        key = members[0].state["stream"]
        launch = None if launches is None else launches.get(key)
        if launches is not None and (launch is None or not launch.ready(members)):
            _refresh_units(members)
            launch = launches[key] = ShardLaunch(members)
            launch = launch if launch.ready(members) else None
        if launch is not None:
            launched = launch.places
            for place, bits in zip(launched, launch.step(members[0].group), strict=True):
                greatest[own[place]] = bits
        rest = [k for place, k in enumerate(own) if place not in set(launched)]
        _refresh_units([shards[k] for k in rest])
        stepped: list[Any] = []
        for k in rest:
            weight, gradient, state, group, *_ = shards[k]
            advance_clock(weight, torch.uint8, state, group)
            stepped.append((weight, gradient, {**state, "units": state["units"][shards[k].scales]}, shards[k].part))
        for k, bits in zip(rest, step_shards(stepped, members[0].group), strict=True):
            greatest[k] = bits
    return greatest


def _refresh_units(shards: list[Shard]) -> None:
    for shard in shards:
        state, offsets = shard.state, shard.offsets
        if not torch.equal(state["at"], offsets.to(state["at"].device, state["at"].dtype)):
            move_units(shard.weight.fmt, state, offsets)


def steps(shards: list[Shard], mark: int = 0, launches: Launches | None = None) -> Reductions:
    """One step of those that have a gradient; returns for each whether a scale should have grown, and could not.

    `mark` stands for the numbers of this step, at most 2^62 in size: where processes have others, all return None, as
    soon as they have heard of each other. Their codes have moved then. `launches` lets shards of a group step together.
    """
    moving = [k for k, shard in enumerate(shards) if shard.gradient is not None]
    yield from _first_exponents(shards)
    greatest = [0] * len(shards)
    for k, bits in zip(moving, _move([shards[k] for k in moving], launches), strict=True):
        greatest[k] = bits
    *greatest, high, low = (yield "max", np.array([*greatest, mark, -mark], np.int64)).tolist()
    if high != -low:
        return None
    for k in moving:
        state = shards[k].state
        raise_exponent([state[name] for name in ("second_moment", "momentum") if name in state], state, greatest[k])
    return (yield from _follow_ceilings(shards, moving))


def _first_exponents(shards: list[Shard]) -> Reductions:
    """The exponent of moments that have none yet."""

    def lacks(shard: Shard) -> bool:
        is_scaled = shard.state["second_moment"].dtype == torch.uint8 or shard.group["momentum"] > 0
        return is_scaled and int(shard.state["exponent"]) == NO_EXPONENT

    lacking = [shard for shard in shards if lacks(shard)]
    if not lacking:
        return
    greatest = yield "max", np.array([_greatest(shard.gradient) for shard in lacking], np.int64)
    for shard, bits in zip(lacking, greatest.tolist(), strict=True):
        exponent = int(exponent_of(bits))
        if shard.state["second_moment"].dtype != torch.uint8:
            exponent = min(exponent, MOST_UNCODED)
        shard.state["exponent"].fill_(exponent)


def _greatest(gradient: torch.Tensor | None) -> int:
    if gradient is None:
        return 0
    return int(greatest_gradient(bridge.as_numpy(gradient.detach().to("cpu", torch.float32).contiguous()).reshape(-1)))


def _follow_ceilings(shards: list[Shard], moving: list[int]) -> Reductions:
    blocked = [False] * len(shards)
    follow = [k for k in moving if ceiling_follows(shards[k].group)]
    due = [k for k in follow if int(shards[k].state["step"]) % ceiling.EVERY == 0]
    if not due:
        return blocked
    asked = []
    for k in due:
        weight = shards[k].weight
        # a histogram is counted faster, but takes a kilobyte a scale, which groups are too many for
        grouped = weight.group_size is not None
        own_sums = tallies_of(weight) if grouped else ceiling.sums(histograms_of(weight), weight.fmt)
        asked.append(shards[k].of_all_scales(own_sums))
    for k, whole in zip(due, (yield from _reduced("sum", asked)), strict=True):
        growing = ceiling.decide_by(whole)
        blocked[k] = bool(growing.blocked.any())
        if growing.grows.any():
            _grow(shards[k], growing.grows)
        shards[k].state["counts"][GROWN] = int(growing.grows.sum())
    return blocked


def _grow(shard: Shard, grows: NDArray[np.bool_]) -> None:
    """Let scales of the whole grow, and this shard's codes with them."""
    weight, state = shard.weight, shard.state
    here = torch.from_numpy(grows).reshape(state["at"].shape)
    draw = Draw(shard.group["seed"], state["stream"], int(state["step"]))
    own = here[shard.scales].reshape(-1).numpy()
    if weight.numel() or weight.scale.offsets is None:  # without elements, a view has no offsets
        weight.grow_(own, draw, keep=choices_of(shard.group).zero == "keep", part=shard.part)
    whole = weight._span.whole
    state["at"], state["units"] = ceiling_twin.raised(state["at"], state["units"], weight.fmt, here)
    if whole is not None:
        whole.copy_(weight.scale.merged(state["at"]))
        low, high = (int(extreme) for extreme in whole.aminmax())
        weight._span.set(low, high)


def _reduced(how: Literal["sum", "max"], arrays: list[Numbers]) -> Generator[Any, Numbers, list[Numbers]]:
    """Several arrays in one reduction."""
    flat = yield how, np.concatenate([array.reshape(-1) for array in arrays])
    parts = np.split(flat, np.cumsum([array.size for array in arrays])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]
