"""One parameter's step: begun, computed where the parameter is, written back; then exponent and ceilings follow.

    begin   the clock advances; codes and moments, of all rows or of those of a sparse gradient
    run     `step_devices`
    end     what is new is written; moments go down where gradients outgrow their exponent, scales up where too many
            codes are at their ceilings

`step_state` says what there is of each weight.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels import backends, ceiling, ceiling_twin, update_twin
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.moments import (
    NO_EXPONENT,
    lower_moment,
    lower_momentum,
    octaves_to_raise,
)
from lnsnum.torch_bridge.kernels.random_words import Draw, Part
from lnsnum.torch_bridge.kernels.step_numbers import Choices
from lnsnum.torch_bridge.step_devices import Outcome, Work, launch_on_card, run_for
from lnsnum.torch_bridge.step_state import GROWN, State, advance_clock, ceiling_follows, choices_of
from lnsnum.torch_bridge.units import refresh_units, tallies_of
from lnsnum.torch_bridge.weight import LNSWeight


def step_codes(p: LNSWeight, gradient: torch.Tensor, state: State, group: dict[str, Any]) -> bool:
    """One step of an LNS weight, in place; a sparse gradient steps the rows that it has.

    Returns whether a scale should have grown, and could not.
    """
    work = _begin(p, gradient, state, group)
    choices = choices_of(group)
    return _end(work, run_for(p.codes)(work, group, choices), group, choices)


def step_on_card(members: list[tuple[LNSWeight, torch.Tensor, State]], group: dict[str, Any]) -> list[bool]:
    """The same of weights (with gradient and state each) on one graphics card: a launch for each kind of them."""
    choices = choices_of(group)
    works = [_begin(*member, group) for member in members]
    formats: dict[LNSFormat, list[int]] = {}
    for k, work in enumerate(works):
        formats.setdefault(work.p.fmt, []).append(k)
    blocked = [False] * len(works)
    for places in formats.values():
        launched = launch_on_card([works[k] for k in places], group, choices)
        for k, stepped in zip(places, launched, strict=True):
            blocked[k] = _end(works[k], stepped, group, choices)
    return blocked


def _begin(p: LNSWeight, gradient: torch.Tensor, state: State, group: dict[str, Any]) -> Work:
    """Count the step, and take what it works on."""
    advance_clock(p, torch.uint8, state, group)
    rows = None
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, gradient = gradient.indices()[0], gradient.values()
    arrays = [p.codes, *_moments_of(state, group)]
    if rows is not None:
        arrays = [array[rows] for array in arrays]
    refresh_units(p, state)
    return Work(p, arrays, gradient, rows, state)


def _end(work: Work, stepped: Outcome, group: dict[str, Any], choices: Choices) -> bool:
    """Write what a step made of its arrays, let exponent and scales follow; whether a scale could not."""
    p, state = work.p, work.state
    (codes, *new_moments), counts, greatest = stepped
    follows = ceiling_follows(group)
    offsets, blocked = None, False
    grown: Any = 0
    if follows and torch.compiler.is_compiling():
        codes, offsets, grown = _follow_in_graph(p, codes, state, group, choices)
    _write_codes(p, codes, work.rows, offsets)
    moments = _moments_of(state, group)
    for moment, new in zip(moments, new_moments, strict=True):
        write(moment, new, work.rows)
    raise_exponent(moments, state, greatest)
    if follows and not torch.compiler.is_compiling():
        grown, blocked = follow_ceiling(p, state, group, choices)
    counts[GROWN] = grown
    state["counts"].copy_(counts)
    return blocked


def step_shards(members: list[tuple[LNSWeight, torch.Tensor, State, Part]], group: dict[str, Any]) -> list[int]:
    """The step of shards (with gradient and state each, and their places in their wholes), in place: what does not
    depend on other shards. Those on a graphics card are one launch.

    A state has the shard's moments and the units of its scales, and an exponent for all. Returns the bits of the
    greatest finite |gradient| of each; counts are those of the shard.
    """
    choices, greatest = choices_of(group), [0] * len(members)
    works = [
        Work(p, [p.codes, *_moments_of(state, group)], gradient, None, state, part)
        for p, gradient, state, part in members
    ]
    on_cards: dict[torch.device, list[int]] = {}
    for k, work in enumerate(works):
        codes = work.p.codes
        if not codes.numel():
            work.state["counts"].zero_()
        elif backends.is_on_card(codes):
            on_cards.setdefault(codes.device, []).append(k)
        else:
            greatest[k] = _end_shard(work, run_for(codes)(work, group, choices))
    for places in on_cards.values():
        launched = launch_on_card([works[k] for k in places], group, choices)
        for k, stepped in zip(places, launched, strict=True):
            greatest[k] = _end_shard(works[k], stepped)
    return greatest


def _moments_of(state: State, group: dict[str, Any]) -> list[torch.Tensor]:
    return [state["second_moment"]] + ([state["momentum"]] if group["momentum"] > 0 else [])


def _end_shard(work: Work, stepped: Outcome) -> int:
    for own, new in zip(work.arrays, stepped.arrays, strict=True):
        write(own, new, None)
    torch.autograd.graph.increment_version(work.p)
    work.state["counts"].copy_(stepped.counts)
    return int(stepped.greatest)


def write(own: torch.Tensor, new: torch.Tensor, rows: torch.Tensor | None) -> None:
    """Write what is not there already."""
    if rows is not None:
        own.index_copy_(0, rows, new)
    elif new is not own:
        own.copy_(new)


def _write_codes(
    p: LNSWeight, codes: torch.Tensor, rows: torch.Tensor | None, offsets: torch.Tensor | None = None
) -> None:
    """Write the codes, and tell autograd, which a kernel's write does not.

    In a traced graph by a write to the weight itself, of its offsets too where they grow: that is what the graph tells
    autograd of when it runs.
    """
    if not torch.compiler.is_compiling():
        write(p.codes, codes, rows)
        torch.autograd.graph.increment_version(p)
        return
    new = codes if rows is None else p.codes.index_copy(0, rows, codes)
    p.copy_(p.like(new, offsets=offsets, groups=p.scale.groups))


def raise_exponent(moments: list[torch.Tensor], state: State, greatest: Any) -> None:
    """Where gradients outgrow the exponent, it is raised, and the codes go down by as many octaves."""
    if not all(map(bridge.is_on_cpu, moments)):
        update_twin.raise_exponent(moments, state["exponent"], torch.as_tensor(greatest, dtype=torch.int32))
        return
    exponent = int(state["exponent"])
    octaves = 0 if exponent == NO_EXPONENT else octaves_to_raise(int(greatest), exponent)
    if octaves == 0:
        return
    state["exponent"].fill_(exponent + octaves)
    for moment, lower in zip(moments, (lower_moment, lower_momentum), strict=False):
        if moment.dtype == torch.uint8:
            lower(_memory(moment), octaves)


def _memory(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor's memory, in whatever order: for what treats all elements alike."""
    return bridge.as_numpy(tensor.permute(bridge.memory_order(tensor)))


def follow_ceiling(p: LNSWeight, state: State, group: dict[str, Any], choices: Choices) -> tuple[Any, bool]:
    """Let the scales grow at whose ceiling too many codes are; (how many did, whether one could not).

    Codes in shared memory keep their one scale, since the other processes would not learn of another.
    """
    if int(state["step"]) % ceiling.EVERY or not p.may_set_scale_of_all():
        return 0, False
    growing = ceiling.decide_by(tallies_of(p))
    if growing.grows.any():
        p.grow_(growing.grows, Draw(group["seed"], state["stream"], int(state["step"])), keep=choices.zero == "keep")
        grows = torch.from_numpy(growing.grows).reshape(state["at"].shape)
        state["at"], state["units"] = ceiling_twin.raised(state["at"], state["units"], p.fmt, grows)
    return int(growing.grows.sum()), bool(growing.blocked.any())


def _follow_in_graph(
    p: LNSWeight, codes: torch.Tensor, state: State, group: dict[str, Any], choices: Choices
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same of a step that is being traced: the codes, the offsets, and how many scales grew.

    A graph cannot warn, and a scale does not grow beyond the bounds between which it decodes.
    """
    scale = p.scale
    if scale.offsets is None:
        raise ValueError(
            "a compiled step can raise a ceiling only where the log_offset is a tensor: call "
            "optimizer.make_state(for_graph=True) before, or take ceiling='fixed'"
        )
    draw = Draw(group["seed"], state["stream"], state["step"])
    keep = choices.zero == "keep"
    followed = ceiling_twin.follow(codes, scale, state["units"], p.fmt, draw, keep=keep)
    state["units"].copy_(followed.units)
    state["at"].copy_(followed.offsets)
    return followed.codes, scale.merged(followed.offsets), followed.grown
