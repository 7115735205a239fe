"""What Madam refuses: options, parameters, gradients and states that its step is not for."""

from __future__ import annotations

import math
import numbers
from typing import Any, Literal

import torch

from lnsnum.format import check_choice
from lnsnum.torch_bridge.distributed.dtensors import local_of, weight_of
from lnsnum.torch_bridge.float_step import FLOAT_STATE
from lnsnum.torch_bridge.kernels import hypentropy
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES
from lnsnum.torch_bridge.kernels.step_numbers import Choices
from lnsnum.torch_bridge.step_state import CODE_STATE, COUNTS, SecondMoment
from lnsnum.torch_bridge.weight import LNSWeight

NonFinite = Literal["skip", "raise"]
Ceiling = Literal["follow", "fixed"]


def check_group(group: dict[str, Any]) -> None:
    """Raise TypeError or ValueError where an option of a group is not of its kind, or out of range."""
    choices = {"ceiling": Ceiling, "second_moment": SecondMoment, "non_finite": NonFinite}
    for name, allowed in choices.items():
        check_choice(name, group[name], allowed)
    Choices.of(group["rule"], group["rounding"], group["zero"])
    for name in ("lr", "beta", "momentum", "weight_decay", "p_scale", "g_bound", "crossover", "cap", "seed"):
        kind, article = (numbers.Integral, "an integer") if name == "seed" else (numbers.Real, "a number")
        is_scalar = name == "lr" and isinstance(group[name], torch.Tensor) and group[name].numel() == 1
        if not is_scalar and (isinstance(group[name], bool) or not isinstance(group[name], kind)):
            raise TypeError(f"{name}={group[name]!r} is a {type(group[name]).__name__}: give {article}")
    limits = {"lr": math.inf, "beta": 1.0, "momentum": 1.0, "weight_decay": math.inf, "crossover": math.inf}
    limits["seed"] = 1 << 63
    for name, high in limits.items():
        if not 0 <= group[name] < high:
            raise ValueError(f"{name}={group[name]} is out of range: at least 0, less than {high}")
    for name in ("p_scale", "g_bound", "cap"):
        if not 0.0 < group[name] < math.inf:
            raise ValueError(f"{name}={group[name]} is out of range: finite and greater than 0")


def check_parameters(group: dict[str, Any]) -> None:
    """Raise TypeError or ValueError where a group has parameters that a step is not for."""
    for i, p in enumerate(group["params"]):
        if p.dtype not in FLOAT_NAMES:
            raise TypeError(f"parameter {i} of the group is of {p.dtype}: Madam takes real floating-point parameters")
        if isinstance(p, LNSWeight) and not p.is_whole():
            raise ValueError(f"parameter {i} of the group is a view of a part of a weight: give the whole")
        if group["zero"] == "raise" and local_of(p) is not None:
            raise ValueError(
                f"parameter {i} of the group is a part of one, and zero='raise' looks at all: take 'keep' or 'learn'"
            )
        if group["zero"] == "raise" and not p.is_meta and bool((p.detach() == 0).any()):
            raise ValueError(
                f"parameter {i} of the group has zeros, which zero='raise' refuses: the rule hypentropy lets them "
                "learn, convert_model(zeros='redraw') re-draws them, zero='keep' keeps them"
            )
    weights = [weight for p in group["params"] if (weight := weight_of(p)) is not None]
    formats = {weight.fmt.name: weight.fmt for weight in weights}
    if group["rule"] == "hypentropy":
        for fmt in formats.values():
            hypentropy.check_format(fmt)
    if len(formats) > 1:
        raise ValueError(
            f"the group mixes {' and '.join(sorted(formats))}: make a group for each format, as parameter_groups does"
        )


def check_gradient(p: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    """Raise TypeError, ValueError or FloatingPointError where a step by a parameter's gradient is refused."""
    assert p.grad is not None
    if isinstance(p.grad, LNSWeight):
        raise TypeError("a gradient is an LNSWeight: give plain floats")
    if isinstance(p, LNSWeight) and state:
        kept = "byte" if state["second_moment"].dtype == torch.uint8 else "float32"
        if kept != group["second_moment"]:
            raise ValueError(f"second_moment={group['second_moment']!r} comes too late: it has been {kept!r} so far")
    if p.grad.layout not in (torch.strided, torch.sparse_coo) or (p.grad.is_sparse and p.grad.sparse_dim() != 1):
        raise TypeError("Madam takes dense gradients, and sparse ones of whole rows, such as an embedding's")
    if group["non_finite"] == "raise":
        values = p.grad.coalesce().values() if p.grad.is_sparse else p.grad
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise FloatingPointError(f"{bad} elements of a gradient of shape {tuple(p.shape)} are NaN or infinite")


_NUMBERS_OF_STATE = (CODE_STATE | FLOAT_STATE) - {"second_moment", "stream"}
_SHAPES_OF_STATE = {"counts": (COUNTS,)}


def check_state(place: int, p: torch.Tensor, state: dict[str, Any]) -> None:
    """Raise ValueError where a state that is loaded is not one of such a parameter."""
    is_codes = weight_of(p) is not None
    moment, own = state.get("second_moment"), "an LNSWeight" if is_codes else "a float parameter"
    if not isinstance(moment, torch.Tensor) or moment.shape != p.shape:
        raise ValueError(f"the state of parameter {place} is not that of a parameter of shape {tuple(p.shape)}")
    if ("exponent" in state) != is_codes or (moment.dtype == torch.uint8 and not is_codes):
        raise ValueError(f"the state of parameter {place} is not for {own}, which this one is")
    lacking = sorted((CODE_STATE if is_codes else FLOAT_STATE) - state.keys())
    if lacking:
        raise ValueError(f"the state of parameter {place} lacks {lacking[0]!r}")
    for name in sorted(_NUMBERS_OF_STATE & state.keys()):
        value, shape = state[name], _SHAPES_OF_STATE.get(name, ())
        if not isinstance(value, torch.Tensor) or (name not in ("units", "at") and value.shape != shape):
            raise ValueError(f"the state of parameter {place} has a {name!r} that no step of Madam left there")
    if is_codes and (type(state["stream"]) is not int or state["units"].shape != state["at"].shape):
        raise ValueError(f"the state of parameter {place} has a 'stream' or 'units' that no step of Madam left there")
    momentum = state.get("momentum", moment)
    if (
        not isinstance(momentum, torch.Tensor)
        or momentum.shape != p.shape
        or (is_codes and "momentum" in state and momentum.dtype != torch.uint8)
    ):
        raise ValueError(f"the state of parameter {place} has a momentum that is not that of such a parameter")
    allowed = (torch.uint8, torch.float32) if is_codes else (torch.float32, torch.float64)
    if moment.dtype not in allowed:
        raise ValueError(f"the state of parameter {place} has a second moment of {moment.dtype}")
