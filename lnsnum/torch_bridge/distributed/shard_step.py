"""Madam's step of shards: what it takes from the whole tensor is reduced over them, as integers.

    unit r of the steps          first step      histogram of the codes: sums (of scales that lie in one shard each, the
                                                 RMS of each, at its place in a list of all)
    exponent of the moments      first gradient  bits of the greatest |gradient|: maximum
    gradients that outgrow it    every step      the same
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
from lnsnum.torch_bridge.step import (
    MOST_UNCODED,
    State,
    advance_clock,
    ceiling_follows,
    choices_of,
    raise_exponent,
    step_shard,
)
from lnsnum.torch_bridge.units import histograms_of, move_units, units_by
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
        """The log_offsets of the whole."""
        whole, own = self.weight._span.whole, self.weight.scale
        if whole is not None:
            return whole
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
        histogram = histograms_of(shard.weight)
        if shard.is_cut_between_scales():
            bits = ceiling.root_mean_squares(histogram, shard.weight.fmt).view(np.int64)
            asked.append(shard.of_all_scales(np.stack([bits, histogram.sum(1)], axis=1)))
        else:
            asked.append(shard.of_all_scales(histogram))
    states = []
    for shard, whole in zip(shards, (yield from _reduced("sum", asked)), strict=True):
        if shard.is_cut_between_scales():
            rms: NDArray[np.float64] = np.ascontiguousarray(whole[:, 0]).view(np.float64)
            sizes = whole[:, 1]
        else:
            rms, sizes = ceiling.root_mean_squares(whole, shard.weight.fmt), whole.sum(1)
        states.append(units_by(shard.weight.fmt, shard.offsets, shard.shape, rms, sizes))
    return states


def steps(shards: list[Shard]) -> Reductions:
    """One step of those that have a gradient; returns for each whether a scale should have grown, and could not."""
    moving = [k for k, shard in enumerate(shards) if shard.gradient is not None]
    yield from _first_exponents(shards)
    greatest, moments = np.zeros(len(shards), np.int64), {}
    for k in moving:
        weight, gradient, state, group, *_ = shards[k]
        assert gradient is not None
        advance_clock(weight, torch.uint8, state, group)
        offsets = shards[k].offsets
        if not torch.equal(state["at"], offsets.to(state["at"].device, state["at"].dtype)):
            move_units(weight.fmt, state, offsets)
        own = {**state, "units": state["units"][shards[k].scales]}
        moments[k], greatest[k] = step_shard(weight, gradient, own, group, shards[k].part)
    greatest = yield "max", greatest
    for k in moving:
        raise_exponent(moments[k], shards[k].state, int(greatest[k]))
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
        asked.append(shards[k].of_all_scales(ceiling.sums(histograms_of(weight), weight.fmt)))
    for k, whole in zip(due, (yield from _reduced("sum", asked)), strict=True):
        growing = ceiling.decide_by(whole)
        blocked[k] = bool(growing.blocked.any())
        if growing.grows.any():
            _grow(shards[k], growing.grows)
        shards[k].state["counts"][6] = int(growing.grows.sum())
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
        whole.copy_(state["at"])
        low, high = (int(extreme) for extreme in whole.aminmax())
        weight._span.set(low, high)


def _reduced(how: Literal["sum", "max"], arrays: list[Numbers]) -> Generator[Any, Numbers, list[Numbers]]:
    """Several arrays in one reduction."""
    flat = yield how, np.concatenate([array.reshape(-1) for array in arrays])
    parts = np.split(flat, np.cumsum([array.size for array in arrays])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]
