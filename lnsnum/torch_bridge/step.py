"""One parameter's step: its state, and the kernel that fits where it is.

On the CPU the Numba kernel works on the memory of codes, state and gradient, on a graphics card Triton's. On another
device, and in a graph that torch.compile traces, `lnsnum.torch_bridge.kernels.update_twin` does the same; there lr, the
number of the step and all that follows from them are tensors, so that no step traces the graph anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum import __version__
from lnsnum.format import LNSFormat
from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge.kernels import backends, ceiling, ceiling_twin, update_twin
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.moments import (
    MOMENT_HEADROOM,
    NO_EXPONENT,
    first_exponent,
    lower_moment,
    lower_momentum,
    octaves_to_raise,
)
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part
from lnsnum.torch_bridge.kernels.step_numbers import Choices, StepNumbers, StepScalars, kappa_of, step_scalars
from lnsnum.torch_bridge.kernels.update import apply_step
from lnsnum.torch_bridge.kernels.update_operator import madam_step_on_card
from lnsnum.torch_bridge.units import refresh_units, scales_of, tallies_of, unit_state
from lnsnum.torch_bridge.weight import LNSWeight

SecondMoment = Literal["byte", "float32"]

State = dict[str, Any]

CODE_STATE = frozenset(
    ["step", "second_moment", "beta_product", "momentum_product", "exponent", "counts", "stream", "r", "units", "at"]
)
"""What the state of an LNS weight holds, besides momentum."""

COUNTS = 8
"""What a step counts: weights stepped, moved, at the ceiling, at the floor, zero, changed in sign, scales that grew,
gradients not finite."""

GROWN = 6
"""The place of the scales among them."""

_NUMBERS = "g_bound", "beta", "momentum", "weight_decay"

MOST_UNCODED = 60 - MOMENT_HEADROOM
"""The greatest exponent of a momentum beside a float32 second moment, whose gradients are clamped at 2^60."""


def code_state(p: LNSWeight, second_moment: SecondMoment, stream: int) -> State:
    """The state of an LNS weight before its first step.

    `stream` is its place in the optimizer, by which it draws random words; `beta_product` and `momentum_product` are
    those of all steps so far, for the bias corrections; `counts` what the last step did, see `COUNTS`; `r` the RMS of
    the weight, `units` the same in units of each scale's floor, while its log_offset is `at`.
    """
    dtype = torch.uint8 if second_moment == "byte" else torch.float32
    return {**blank_state(torch.zeros_like(p, dtype=dtype), stream), **unit_state(p)}


def blank_state(moment: torch.Tensor, stream: int) -> State:
    """That state, but for what depends on the weight."""
    return {
        "step": torch.zeros((), dtype=torch.int64, device="cpu"),
        "second_moment": moment,
        "beta_product": torch.ones((), dtype=torch.float64, device="cpu"),
        "momentum_product": torch.ones((), dtype=torch.float64, device="cpu"),
        "exponent": torch.full((), NO_EXPONENT, dtype=torch.int32, device="cpu"),
        "counts": torch.zeros(COUNTS, dtype=torch.int64, device="cpu"),
        "stream": stream,
    }


def choices_of(group: dict[str, Any]) -> Choices:
    """What a group's options ask of a step."""
    return Choices.of(group["rule"], group["rounding"], group["zero"])


def ceiling_follows(group: dict[str, Any]) -> bool:
    """Whether a group's scales grow where too many codes are at their ceilings."""
    return bool(group["rule"] == "hypentropy" and group["ceiling"] == "follow")


def units_of(p: LNSWeight, state: State, group: dict[str, Any]) -> tuple[NDArray[np.float32], Walk]:
    """crossover * r in units of the floor of each scale, as the kernel takes it, and how elements find theirs."""
    each: NDArray[np.float64] = group["crossover"] * bridge.as_numpy(state["units"].reshape(-1).to("cpu"))
    units = each.astype(np.float32)
    if not p.numel():
        return units, Walk()
    scales = scales_of(p)
    return units[scales.values], scales.walk


class _Work(NamedTuple):
    """A weight's step, begun."""

    p: LNSWeight
    gradient: torch.Tensor
    """That of all rows, or of `rows`."""
    rows: torch.Tensor | None
    moments: list[torch.Tensor]
    arrays: list[torch.Tensor]
    """Codes and moments, or what these are of the rows."""
    state: State


def step_codes(p: LNSWeight, gradient: torch.Tensor, state: State, group: dict[str, Any]) -> bool:
    """One step of an LNS weight, in place; a sparse gradient steps the rows that it has.

    Returns whether a scale should have grown, and could not.
    """
    work = _begin(p, gradient, state, group)
    choices, run = choices_of(group), _run_for(p.codes)
    return _end(work, *run(p, work.arrays, work.gradient, work.rows, state, group, choices), group, choices)


def step_on_card(members: list[tuple[LNSWeight, torch.Tensor, State]], group: dict[str, Any]) -> list[bool]:
    """The same of weights (with gradient and state each) on one graphics card: a launch for each kind of them."""
    choices = choices_of(group)
    works = [_begin(*member, group) for member in members]
    formats: dict[LNSFormat, list[int]] = {}
    for k, work in enumerate(works):
        formats.setdefault(work.p.fmt, []).append(k)
    blocked = [False] * len(works)
    for places in formats.values():
        own = [works[k] for k in places]
        launched = [(w.p, w.arrays, w.gradient, w.rows, w.state, WHOLE) for w in own]
        stepped = _launch_on_card(launched, group, choices)
        for k, results in zip(places, stepped, strict=True):
            blocked[k] = _end(works[k], *results, group, choices)
    return blocked


def _begin(p: LNSWeight, gradient: torch.Tensor, state: State, group: dict[str, Any]) -> _Work:
    """Count the step, and take what it works on."""
    advance_clock(p, torch.uint8, state, group)
    rows = None
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, gradient = gradient.indices()[0], gradient.values()
    moments = [state["second_moment"]] + ([state["momentum"]] if group["momentum"] > 0 else [])
    arrays = [p.codes, *moments]
    if rows is not None:
        arrays = [array[rows] for array in arrays]
    refresh_units(p, state)
    return _Work(p, gradient, rows, moments, arrays, state)


def _end(
    work: _Work, stepped: list[torch.Tensor], counts: torch.Tensor, greatest: Any, group: dict[str, Any],
    choices: Choices,
) -> bool:  # fmt: skip
    """Write what a step made of its arrays, let exponent and scales follow; whether a scale could not."""
    p, state = work.p, work.state
    follows = ceiling_follows(group)
    offsets, blocked = None, False
    grown: Any = 0
    if follows and torch.compiler.is_compiling():
        stepped[0], offsets, grown = _follow_in_graph(p, stepped[0], state, group, choices)
    _write_codes(p, stepped[0], work.rows, offsets)
    for moment, new in zip(work.moments, stepped[1:], strict=True):
        write(moment, new, work.rows)
    raise_exponent(work.moments, state, greatest)
    if follows and not torch.compiler.is_compiling():
        grown, blocked = follow_ceiling(p, state, group, choices)
    counts[GROWN] = grown
    state["counts"].copy_(counts)
    return blocked


def _run_for(codes: torch.Tensor) -> Callable[..., tuple[list[torch.Tensor], torch.Tensor, Any]]:
    """What steps codes where they are, see `kernels.backends`."""
    if bridge.is_on_cpu(codes):
        return _step_here
    return _step_on_card if backends.is_on_card(codes) else _step_in_torch


def step_shards(members: list[tuple[LNSWeight, torch.Tensor, State, Part]], group: dict[str, Any]) -> list[int]:
    """The step of shards (with gradient and state each, and their places in their wholes), in place: what does not
    depend on other shards. Those on a graphics card are one launch.

    A state has the shard's moments and the units of its scales, and an exponent for all. Returns the bits of the
    greatest finite |gradient| of each; counts are those of the shard.
    """
    choices, greatest = choices_of(group), [0] * len(members)
    on_cards: dict[torch.device, list[int]] = {}
    for k, (p, gradient, state, part) in enumerate(members):
        if not p.numel():
            state["counts"].zero_()
        elif backends.is_on_card(p.codes):
            on_cards.setdefault(p.codes.device, []).append(k)
        else:
            arrays = _arrays_of(p, state, group)
            stepped = _run_for(p.codes)(p, arrays, gradient, None, state, group, choices, part)
            greatest[k] = _end_shard(p, arrays, state, *stepped)
    for places in on_cards.values():
        launched: Any = [
            (p, _arrays_of(p, state, group), gradient, None, state, part)
            for p, gradient, state, part in (members[k] for k in places)
        ]
        for k, work, stepped in zip(places, launched, _launch_on_card(launched, group, choices), strict=True):
            greatest[k] = _end_shard(work[0], work[1], work[4], *stepped)
    return greatest


def _arrays_of(p: LNSWeight, state: State, group: dict[str, Any]) -> list[torch.Tensor]:
    return [p.codes, state["second_moment"]] + ([state["momentum"]] if group["momentum"] > 0 else [])


def _end_shard(
    p: LNSWeight, arrays: list[torch.Tensor], state: State, stepped: list[torch.Tensor], counts: torch.Tensor,
    greatest: Any,
) -> int:  # fmt: skip
    for own, new in zip(arrays, stepped, strict=True):
        write(own, new, None)
    torch.autograd.graph.increment_version(p)
    state["counts"].copy_(counts)
    return int(greatest)


def advance_clock(p: torch.Tensor, momentum_dtype: torch.dtype, state: State, group: dict[str, Any]) -> None:
    """Count the step, multiply the decays; a momentum that is turned on starts anew, from zero."""
    set_momentum(p, momentum_dtype, state, group)
    state["step"] += 1
    state["beta_product"] *= group["beta"]
    state["momentum_product"] *= group["momentum"]


def set_momentum(p: torch.Tensor, dtype: torch.dtype, state: State, group: dict[str, Any]) -> None:
    """Make the momentum where it is wanted and not there; let it go where it is not wanted."""
    if group["momentum"] == 0:
        state.pop("momentum", None)
    elif "momentum" not in state:
        state["momentum"] = torch.zeros_like(p, dtype=dtype)
        state["momentum_product"].fill_(1.0)


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


def numbers_of(state: State, group: dict[str, Any], exponent: Any, number: Any = float) -> StepNumbers:
    """The numbers of a step; `number` makes what changes from step to step a float, or leaves it a tensor."""
    return StepNumbers(
        lr=number(group["lr"]),
        kappa=kappa_of(group["cap"], float(state["r"])) if number is float else _kappa_tensor(state, group),
        exponent=exponent,
        beta_product=number(state["beta_product"]),
        momentum_product=number(state["momentum_product"]),
        **{name: group[name] for name in _NUMBERS},
    )


def _scalars_of(
    p: LNSWeight,
    arrays: list[torch.Tensor],
    state: State,
    group: dict[str, Any],
    choices: Choices,
    first: Callable[[], Any],
) -> StepScalars:
    """What a kernel outside of graphs is given of numbers; moments that have no exponent yet take that of `first`."""
    coded, momentum = arrays[1].dtype == torch.uint8, len(arrays) > 2
    exponent = int(state["exponent"])
    if exponent == NO_EXPONENT and (coded or momentum):
        exponent = int(first())
        exponent = exponent if coded else min(exponent, MOST_UNCODED)
        state["exponent"].fill_(exponent)
    numbers = numbers_of(state, group, 0 if exponent == NO_EXPONENT else exponent)
    return step_scalars(p.fmt, choices.rule, numbers, coded=coded)


def _kappa_tensor(state: State, group: dict[str, Any]) -> torch.Tensor:
    r: torch.Tensor = state["r"]
    return (torch.full_like(r, group["cap"]) / r).clamp(max=1.0)  # a number over a tensor would be rounded twice


def _step_here(
    p: LNSWeight,
    arrays: list[torch.Tensor],
    gradient: torch.Tensor,
    rows: torch.Tensor | None,
    state: State,
    group: dict[str, Any],
    choices: Choices,
    part: Part = WHOLE,
) -> tuple[list[torch.Tensor], torch.Tensor, Any]:
    """The Numba kernel, in place where the arrays are contiguous."""
    arrays = [array.contiguous() for array in arrays]
    floats = bridge.as_numpy(gradient.detach().resolve_neg().to(torch.float32).contiguous())
    momentum = len(arrays) > 2
    scalars = _scalars_of(p, arrays, state, group, choices, partial(first_exponent, floats.reshape(-1)))
    codes, *moments = (bridge.as_numpy(array) for array in arrays)
    counts, greatest = apply_step(
        codes.view(p.fmt.dtype),
        floats,
        moments[0],
        moments[1] if momentum else None,
        p.fmt,
        scalars,
        choices,
        *units_of(p, state, group),
        Draw(group["seed"], state["stream"], int(state["step"])),
        rows=None if rows is None else bridge.as_numpy(rows.contiguous()),
        part=part,
    )
    *steps, not_finite = counts
    return arrays, torch.tensor([codes.size, *steps, 0, not_finite]), greatest


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


def _step_on_card(
    p: LNSWeight,
    arrays: list[torch.Tensor],
    gradient: torch.Tensor,
    rows: torch.Tensor | None,
    state: State,
    group: dict[str, Any],
    choices: Choices,
    part: Part = WHOLE,
) -> tuple[list[torch.Tensor], torch.Tensor, Any]:
    """Triton's kernel, in place where the arrays are contiguous."""
    return _launch_on_card([(p, arrays, gradient, rows, state, part)], group, choices)[0]


def _launch_on_card(
    members: list[tuple[LNSWeight, list[torch.Tensor], torch.Tensor, torch.Tensor | None, State, Part]],
    group: dict[str, Any],
    choices: Choices,
) -> list[tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]]:
    """The same of several weights of one format."""
    from lnsnum.torch_bridge.kernels import update_triton  # here, as triton is there for cards alone

    made, weights = [], []
    for p, arrays, gradient, rows, state, part in members:
        arrays = [array.contiguous() for array in arrays]
        momentum = len(arrays) > 2
        # the kernel reads what a float32 holds exactly; others are rounded to it, as on the CPU
        floats = gradient.detach().resolve_neg().contiguous()
        floats = floats if floats.dtype in update_triton.GRADIENTS else floats.to(torch.float32)
        scalars = _scalars_of(p, arrays, state, group, choices, partial(update_twin.first_exponent, floats))
        weights.append(
            update_triton.Stepped(
                arrays[0],
                floats,
                arrays[1],
                arrays[2] if momentum else None,
                *units_of(p, state, group),
                scalars,
                Draw(group["seed"], state["stream"], int(state["step"])),
                rows=None if rows is None else rows.contiguous(),
                part=part,
            )
        )
        made.append(arrays)
    # one wait for the card, for the counts of all
    counts = update_triton.step_list(weights, members[0][0].fmt, choices).to("cpu")
    none = torch.zeros((), dtype=torch.int64)
    return [
        (arrays, torch.stack([none + arrays[0].numel(), *own[:5], none, own[5]]), own[6].to(torch.int32))
        for arrays, own in zip(made, counts, strict=True)
    ]


def _step_in_torch(
    p: LNSWeight,
    arrays: list[torch.Tensor],
    gradient: torch.Tensor,
    rows: torch.Tensor | None,
    state: State,
    group: dict[str, Any],
    choices: Choices,
    part: Part = WHOLE,
) -> tuple[list[torch.Tensor], torch.Tensor, Any]:
    """The same in torch's operations, out of place."""
    scale, there = p.scale, state["counts"].device
    codes, moment, *momentum = (scale.apart(array) for array in arrays)
    floats = scale.apart(gradient.detach().to(torch.float32))
    coded = moment.dtype == torch.uint8
    if coded or momentum:
        first = update_twin.first_exponent(floats).to(state["exponent"].device)
        first = first if coded else first.clamp(max=MOST_UNCODED)
        state["exponent"].copy_(torch.where(state["exponent"] == NO_EXPONENT, first, state["exponent"]))
    exponent = torch.where(state["exponent"] == NO_EXPONENT, 0, state["exponent"])
    units = scale.over_codes(scale.merged((group["crossover"] * state["units"]).to(torch.float32)))
    own = codes, floats, moment, momentum[0] if momentum else None
    if torch.compiler.is_compiling() and rows is None and backends.graph_has_card(str(codes.device)):
        new, counts, greatest = _step_by_operator(own, units, exponent, p.fmt, state, group, choices, part)
    else:
        numbers = numbers_of(state, group, exponent, number=lambda x: x)
        scalars = update_twin.step_scalars(p.fmt, choices.rule, numbers, coded=coded)
        draw = Draw(group["seed"], state["stream"], state["step"])
        stepped = update_twin.apply_step(*own, p.fmt, scalars, choices, units, draw, rows=rows, part=part)
        new, counts, greatest = [stepped.codes, stepped.second_moment], stepped.counts, stepped.greatest
        new += [stepped.momentum_codes] if stepped.momentum_codes is not None else []
    new = [scale.together(array) for array in new]
    *steps, not_finite = counts.to(there).unbind()
    # made there by a number: what is copied there, a CUDA graph would not record
    size, none = (torch.full((), number, dtype=torch.int64, device=there) for number in (codes.numel(), 0))
    return new, torch.stack([size, *steps, none, not_finite]), greatest


def _step_by_operator(
    arrays: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None],
    units: torch.Tensor,
    exponent: torch.Tensor,
    fmt: LNSFormat,
    state: State,
    group: dict[str, Any],
    choices: Choices,
    part: Part,
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """The operator that launches Triton's kernel: codes and moments, counts, the bits of the greatest gradient."""
    there, lr = arrays[0].device, group["lr"]
    lr = lr if isinstance(lr, torch.Tensor) else torch.full((), lr, dtype=torch.float64, device=there)
    changing = [lr, state["r"], exponent, *(state[name] for name in ("beta_product", "momentum_product", "step"))]
    codes, moment, counts, greatest, *momentum = madam_step_on_card(
        *arrays, units.to(there), [number.to(there) for number in changing],
        _options_of(group),
        fmt.bits, fmt.fraction_bits, fmt.base, *choices, group["seed"], state["stream"], 0, list(part), __version__,
    )  # fmt: skip
    return [codes, moment, *momentum], counts, greatest


def ready_for_card(p: torch.Tensor, state: State, group: dict[str, Any]) -> None:
    """Let what a graph reads and writes of a state lie where its weight is, if Triton's kernels run there; and what
    they read of a format, which is kept, and so not to be made within the memory of a CUDA graph."""
    if not backends.graph_has_card(str(p.device)):
        return
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.device != p.device:
            state[name] = value.to(p.device)
    if isinstance(p, LNSWeight) and backends.is_on_card(p.codes):
        from lnsnum.torch_bridge.kernels import step_row_triton  # here, as triton is there for cards alone

        step_row_triton.keep_constants(p.codes, p.fmt, group["rule"], _options_of(group))


def _options_of(group: dict[str, Any]) -> list[float]:
    """What the operator is given of a group as numbers."""
    return [float(group[name]) for name in ("cap", "g_bound", "beta", "momentum", "weight_decay")]
