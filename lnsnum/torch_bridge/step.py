"""One parameter's step: its state, and the kernel that fits where it is.

On the CPU the Numba kernel works on the memory of codes, state and gradient. On another device, and in a graph that
torch.compile traces, `lnsnum.torch_bridge.kernels.update_twin` does the same in torch's operations; there lr, the
number of the step and all that follows from them are tensors, so that no step traces the graph anew.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels import update_twin
from lnsnum.torch_bridge.kernels.moments import MOMENT_HEADROOM, NO_EXPONENT, first_exponent
from lnsnum.torch_bridge.kernels.update import apply_step, step_scalars
from lnsnum.torch_bridge.weight import LNSWeight

SecondMoment = Literal["lns8", "float32"]

State = dict[str, Any]

CODE_STATE = frozenset(["step", "second_moment", "beta_product", "momentum_product", "exponent", "counts", "stream"])
"""What the state of an LNS weight holds, besides momentum."""

_NUMBERS = "g_bound", "beta", "momentum", "weight_decay"

_MOST_UNCODED = 60 - MOMENT_HEADROOM
"""The greatest exponent of a momentum beside a float32 second moment, whose gradients are clamped at 2^60."""


def code_state(p: LNSWeight, second_moment: SecondMoment, stream: int) -> State:
    """The state of an LNS weight before its first step.

    `stream` is its place in the optimizer, by which it draws random bits; `beta_product` and `momentum_product` are
    those of all steps so far, for the bias corrections; `counts` what the last step did: weights stepped, moved, at the
    ceiling, at the floor, gradients not finite.
    """
    dtype = torch.uint8 if second_moment == "lns8" else torch.float32
    return {
        "step": torch.zeros((), dtype=torch.int64, device="cpu"),
        "second_moment": torch.zeros_like(p, dtype=dtype),
        "beta_product": torch.ones((), dtype=torch.float64, device="cpu"),
        "momentum_product": torch.ones((), dtype=torch.float64, device="cpu"),
        "exponent": torch.full((), NO_EXPONENT, dtype=torch.int32, device="cpu"),
        "counts": torch.zeros(5, dtype=torch.int64, device="cpu"),
        "stream": stream,
    }


def step_codes(p: LNSWeight, gradient: torch.Tensor, state: State, group: dict[str, Any]) -> None:
    """One step of an LNS weight, in place; a sparse gradient steps the rows that it has."""
    advance_clock(p, torch.uint8, state, group)
    rows = None
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, gradient = gradient.indices()[0], gradient.values()
    moments = [state["second_moment"]] + ([state["momentum"]] if group["momentum"] > 0 else [])
    arrays = [p.codes, *moments]
    if rows is not None:
        arrays = [array[rows] for array in arrays]
    if bridge.is_on_cpu(p.codes):
        stepped, counts = _step_here(p, arrays, gradient, rows, state, group)
    else:
        stepped, counts = _step_in_torch(p, arrays, gradient, rows, state, group)
    _write_codes(p, stepped[0], rows)
    for moment, new in zip(moments, stepped[1:], strict=True):
        write(moment, new, rows)
    state["counts"].copy_(counts)


def advance_clock(p: torch.Tensor, momentum_dtype: torch.dtype, state: State, group: dict[str, Any]) -> None:
    """Count the step, multiply the decays; a momentum that is turned on starts anew, from zero."""
    if group["momentum"] == 0:
        state.pop("momentum", None)
    elif "momentum" not in state:
        state["momentum"] = torch.zeros_like(p, dtype=momentum_dtype)
        state["momentum_product"].fill_(1.0)
    state["step"] += 1
    state["beta_product"] *= group["beta"]
    state["momentum_product"] *= group["momentum"]


def write(own: torch.Tensor, new: torch.Tensor, rows: torch.Tensor | None) -> None:
    """Write what is not there already."""
    if rows is not None:
        own.index_copy_(0, rows, new)
    elif new is not own:
        own.copy_(new)


def _write_codes(p: LNSWeight, codes: torch.Tensor, rows: torch.Tensor | None) -> None:
    """Write the codes, and tell autograd, which a kernel's write does not.

    In a traced graph by a write to the weight itself: that is what the graph tells autograd of when it runs.
    """
    if not torch.compiler.is_compiling():
        write(p.codes, codes, rows)
        torch.autograd.graph.increment_version(p)
        return
    p.copy_(p.like(codes if rows is None else p.codes.index_copy(0, rows, codes)))


def _step_here(
    p: LNSWeight,
    arrays: list[torch.Tensor],
    gradient: torch.Tensor,
    rows: torch.Tensor | None,
    state: State,
    group: dict[str, Any],
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The Numba kernel, in place where the arrays are contiguous."""
    arrays = [array.contiguous() for array in arrays]
    floats = bridge.as_numpy(gradient.detach().to(torch.float32).contiguous())
    coded, momentum = arrays[1].dtype == torch.uint8, len(arrays) > 2
    exponent = int(state["exponent"])
    if exponent == NO_EXPONENT and (coded or momentum):
        exponent = first_exponent(floats.reshape(-1))
        exponent = exponent if coded else min(exponent, _MOST_UNCODED)
        state["exponent"].fill_(exponent)
    scalars = step_scalars(
        p.fmt,
        lr=float(group["lr"]),
        coded=coded,
        exponent=0 if exponent == NO_EXPONENT else exponent,
        beta_product=float(state["beta_product"]),
        momentum_product=float(state["momentum_product"]),
        **{name: group[name] for name in _NUMBERS},
    )
    codes, *moments = (bridge.as_numpy(array) for array in arrays)
    counts = apply_step(
        codes.view(p.fmt.dtype),
        floats,
        moments[0],
        moments[1] if momentum else None,
        p.fmt,
        scalars,
        rounding=group["rounding"],
        zero=group["zero"],
        seed=group["seed"],
        stream=state["stream"],
        step=int(state["step"]),
        rows=None if rows is None else bridge.as_numpy(rows.contiguous()),
    )
    return arrays, torch.tensor([codes.size, *counts])


def _step_in_torch(
    p: LNSWeight,
    arrays: list[torch.Tensor],
    gradient: torch.Tensor,
    rows: torch.Tensor | None,
    state: State,
    group: dict[str, Any],
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The same in torch's operations, out of place."""
    codes, moment, *momentum = arrays
    floats = gradient.detach().to(torch.float32)
    coded = moment.dtype == torch.uint8
    if coded or momentum:
        first = update_twin.first_exponent(floats).to(state["exponent"].device)
        first = first if coded else first.clamp(max=_MOST_UNCODED)
        state["exponent"].copy_(torch.where(state["exponent"] == NO_EXPONENT, first, state["exponent"]))
    scalars = update_twin.step_scalars(
        p.fmt,
        lr=group["lr"],
        coded=coded,
        exponent=torch.where(state["exponent"] == NO_EXPONENT, 0, state["exponent"]),
        beta_product=state["beta_product"],
        momentum_product=state["momentum_product"],
        **{name: group[name] for name in _NUMBERS},
    )
    new_codes, new_moment, new_momentum, counts = update_twin.apply_step(
        codes,
        floats,
        moment,
        momentum[0] if momentum else None,
        p.fmt,
        scalars,
        rounding=group["rounding"],
        zero=group["zero"],
        seed=group["seed"],
        stream=state["stream"],
        step=state["step"],
        rows=rows,
    )
    stepped = [new_codes, new_moment] + ([new_momentum] if new_momentum is not None else [])
    return stepped, torch.cat([torch.full((1,), codes.numel(), dtype=torch.int64), counts.to("cpu")])
