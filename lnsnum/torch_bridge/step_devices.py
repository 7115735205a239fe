"""The arithmetic of a step where the weight is: three ways to the same bits.

    CPU                                Numba's kernel, on the memory of codes, state and gradient
    a graphics card                    Triton's
    any other device, and a graph      torch's operations (`update_twin`); or an operator that launches Triton's kernel

In a graph that torch.compile traces lr, the number of the step and all that follows from them are tensors, so that no
step traces it anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from lnsnum import __version__
from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels import backends, update_twin
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.moments import NO_EXPONENT, first_exponent
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part
from lnsnum.torch_bridge.kernels.step_numbers import Choices, StepScalars, step_scalars
from lnsnum.torch_bridge.kernels.update import apply_step
from lnsnum.torch_bridge.kernels.update_operator import madam_step_on_card
from lnsnum.torch_bridge.step_state import MOST_UNCODED, State, numbers_of, units_of
from lnsnum.torch_bridge.weight import LNSWeight


class Work(NamedTuple):
    """What a step works on: a weight, whole or a shard, or some of its rows."""

    p: LNSWeight
    arrays: list[torch.Tensor]
    """Codes and moments, or what these are of the rows."""
    gradient: torch.Tensor
    """That of all rows, or of `rows`."""
    rows: torch.Tensor | None
    state: State
    part: Part = WHOLE


class Outcome(NamedTuple):
    """What has become of it."""

    arrays: list[torch.Tensor]
    """In place, where they were contiguous and the step is a kernel's."""
    counts: torch.Tensor
    """See `step_state.COUNTS`."""
    greatest: Any
    """The bits of the greatest finite |gradient|."""


def run_for(codes: torch.Tensor) -> Callable[[Work, dict[str, Any], Choices], Outcome]:
    """What steps codes where they are, see `kernels.backends`."""
    if bridge.is_on_cpu(codes):
        return _step_here
    return _step_on_card if backends.is_on_card(codes) else _step_in_torch


def _step_here(work: Work, group: dict[str, Any], choices: Choices) -> Outcome:
    """The Numba kernel, in place where the arrays are contiguous."""
    p, _, gradient, rows, state, part = work
    arrays = [array.contiguous() for array in work.arrays]
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
    return Outcome(arrays, torch.tensor([codes.size, *steps, 0, not_finite]), greatest)


def _step_on_card(work: Work, group: dict[str, Any], choices: Choices) -> Outcome:
    """Triton's kernel, in place where the arrays are contiguous."""
    return launch_on_card([work], group, choices)[0]


def launch_on_card(works: list[Work], group: dict[str, Any], choices: Choices) -> list[Outcome]:
    """The same of several weights of one format."""
    from lnsnum.torch_bridge.kernels import update_triton  # here, as triton is there for cards alone

    made, weights = [], []
    for p, arrays, gradient, rows, state, part in works:
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
    counts = update_triton.step_list(weights, works[0].p.fmt, choices).to("cpu")
    none = torch.zeros((), dtype=torch.int64)
    return [
        Outcome(arrays, torch.stack([none + arrays[0].numel(), *own[:5], none, own[5]]), own[6].to(torch.int32))
        for arrays, own in zip(made, counts, strict=True)
    ]


def _step_in_torch(work: Work, group: dict[str, Any], choices: Choices) -> Outcome:
    """The same in torch's operations, out of place."""
    p, arrays, gradient, rows, state, part = work
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
    return Outcome(new, torch.stack([size, *steps, none, not_finite]), greatest)


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
