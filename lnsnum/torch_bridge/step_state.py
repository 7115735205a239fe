"""What Madam keeps of an LNS weight from one step to the next, and the numbers that it gives a step.

    step, beta_product, momentum_product        the clock, and the decays so far
    second_moment, momentum, exponent           codes of a byte each, and their scale; or float32
    r, units, at                                the weight's RMS; it in floors of its scales; their log_offset then
    counts, stream                              what the last step did; the place in the optimizer

`step` runs it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.moments import MOMENT_HEADROOM, NO_EXPONENT
from lnsnum.torch_bridge.kernels.step_numbers import Choices, StepNumbers, kappa_of
from lnsnum.torch_bridge.units import scales_of, unit_state
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


def _kappa_tensor(state: State, group: dict[str, Any]) -> torch.Tensor:
    r: torch.Tensor = state["r"]
    return (torch.full_like(r, group["cap"]) / r).clamp(max=1.0)  # a number over a tensor would be rounded twice
