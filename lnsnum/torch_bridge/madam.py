"""Madam: a multiplicative Adam, whose step on an LNS weight is an integer addition to its codes.

    w  <-  w * exp(-lr * clamp(g / sqrt(v_hat), -g_bound, g_bound) * sign(w)),      |w| <= p_scale * RMS(w0)

On `LNSWeight` parameters the step is `lnsnum.torch_bridge.update.madam_step`, and the clip is the format's saturation.
Plain float parameters in the same optimizer get the formula above in float, the paper's algorithm.

Source: Bernstein, Zhao, Meister, Liu, Anandkumar, Yue: Learning compositional functions via multiplicative weight
updates, NeurIPS 2020, Algorithm 1.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from lnsnum.format import check_choice
from lnsnum.torch_bridge import codes as bridge
from lnsnum.torch_bridge.model import root_mean_square
from lnsnum.torch_bridge.update import NO_EXPONENT, StepCounts, StepRounding, first_exponent, madam_step
from lnsnum.torch_bridge.weight import LNSWeight

SecondMoment = Literal["lns8", "float32"]

DEFAULT_LR = 0.05


@dataclass(frozen=True)
class StepReport:
    """What the last step did to the LNS weights."""

    weights: int
    moved: float
    """Share of weights whose code changed."""
    at_ceiling: float
    """Share at the greatest magnitude."""
    at_floor: float
    """Share at the smallest nonzero magnitude."""
    not_finite: int
    """Gradient elements that were NaN or infinite; they changed nothing."""


class Madam(Optimizer):
    """The Madam optimizer for LNS weights and for floats.

    Args:
        params: parameters or parameter groups: `LNSWeight` or plain floats, in any mixture.
        lr: learning rate, in the paper's units: the natural logarithm of the factor by which a weight changes when its
            normalized gradient is 1. See docs/training.md for where the default comes from.
        p_scale: for float parameters, the clip in units of their RMS at the first step. (LNS weights were given it at
            conversion.)
        g_bound: clamp of the normalized gradient.
        beta: decay of the second moment.
        rounding: how code steps are rounded: "stochastic_log" or "nearest". Nearest loses small steps; it is for
            reproducing the paper's ladders.
        second_moment: of LNS weights: "lns8" (one byte a weight) or "float32".
        seed: of the random bits. They depend on the seed, the parameter's place in the optimizer, the step and the
            element's index, and on nothing else.

    All but params may be set for each group. Zero weights stay zero and signs never change. A gradient element that is
    NaN or infinite changes nothing.

    Raises:
        TypeError: for parameters that are no real floating-point tensors.
        ValueError: for arguments out of range.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = torch.nn.Linear(3, 1)
    >>> report = convert_model(model, "lns8f5")
    >>> optimizer = Madam(model.parameters())
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.step_report().weights
    4
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = DEFAULT_LR,
        *,
        p_scale: float = 3.0,
        g_bound: float = 10.0,
        beta: float = 0.999,
        rounding: StepRounding = "stochastic_log",
        second_moment: SecondMoment = "lns8",
        seed: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "p_scale": p_scale,
            "g_bound": g_bound,
            "beta": beta,
            "rounding": rounding,
            "second_moment": second_moment,
            "seed": seed,
        }
        self._counts: dict[torch.Tensor, StepCounts] = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._counts = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, checked; see `torch.optim.Optimizer.add_param_group`."""
        _check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for i, p in enumerate(self.param_groups[-1]["params"]):
            if p.dtype not in bridge.FLOAT_NAMES:
                del self.param_groups[-1]
                raise TypeError(
                    f"parameter {i} of the group is of {p.dtype}: Madam takes real floating-point parameters"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for every parameter that has a gradient; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._counts = {}
        for group in self.param_groups:
            _check_group(group)  # a schedule may have changed it
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.grad is not None and p.grad.layout != torch.strided:
                raise TypeError("Madam takes dense gradients: make the embedding with sparse=False")
        stream = 0
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step_parameter(p, group, stream)
                stream += 1
        return loss

    def _step_parameter(self, p: torch.Tensor, group: dict[str, Any], stream: int) -> None:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state.update(_first_state(p, group, stream))
        state["step"] += 1
        if isinstance(p, LNSWeight):
            self._counts[p] = _step_codes(p, p.grad, state, group)
        else:
            _step_floats(p, p.grad, state, group)

    def step_report(self) -> StepReport:
        """What the last step did to the LNS weights that had a gradient."""
        counts = self._counts.values()
        weights = sum(p.numel() for p in self._counts)
        size = max(weights, 1)
        return StepReport(
            weights=weights,
            moved=sum(c.moved for c in counts) / size,
            at_ceiling=sum(c.at_ceiling for c in counts) / size,
            at_floor=sum(c.at_floor for c in counts) / size,
            not_finite=sum(c.not_finite for c in counts),
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, to the bit; the steps that follow are those that would have followed there.

        Raises:
            ValueError: where the state is of other parameters than these; nothing is loaded then.
        """
        if not {"state", "param_groups"} <= state_dict.keys():
            raise ValueError("this is no optimizer's state: it has no 'state' and 'param_groups'")
        for group in state_dict["param_groups"]:
            lacking = sorted(self.defaults.keys() - group.keys())
            if lacking:
                raise ValueError(f"the state is of another optimizer: its groups have no {lacking[0]!r}")
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        own = [p for group in self.param_groups for p in group["params"]]
        if len(saved) != len(own):
            raise ValueError(f"the state is of {len(saved)} parameters, this optimizer has {len(own)}")
        states = {p: state_dict["state"][i] for i, p in zip(saved, own, strict=True) if i in state_dict["state"]}
        for place, (p, state) in enumerate(states.items()):
            moment = state.get("second_moment")
            if not isinstance(moment, torch.Tensor) or moment.shape != p.shape:
                raise ValueError(f"the state of parameter {place} is not that of a parameter of shape {tuple(p.shape)}")
            keys = {"step", "stream", "exponent"} if isinstance(p, LNSWeight) else {"step", "max"}
            dtypes = (torch.uint8, torch.float32) if isinstance(p, LNSWeight) else (torch.float32, torch.float64)
            if not keys <= state.keys() or moment.dtype not in dtypes:
                raise ValueError(f"the state of parameter {place} is for {_kind(p, other=True)}, and it is {_kind(p)}")
        super().load_state_dict(state_dict)
        for p, state in states.items():  # the base class casts state to the parameter's dtype
            self.state[p] = {key: deepcopy(value) for key, value in state.items()}
            self.state[p]["second_moment"] = state["second_moment"].clone().to(p.device)


def _kind(p: torch.Tensor, *, other: bool = False) -> str:
    return "an LNSWeight" if isinstance(p, LNSWeight) != other else "a float parameter"


def _check_group(group: dict[str, Any]) -> None:
    check_choice("rounding", group["rounding"], StepRounding)
    check_choice("second_moment", group["second_moment"], SecondMoment)
    for name in ("lr", "beta", "p_scale", "g_bound", "seed"):
        kind, article = (numbers.Integral, "an integer") if name == "seed" else (numbers.Real, "a number")
        is_scalar = name == "lr" and isinstance(group[name], torch.Tensor) and group[name].numel() == 1
        if not is_scalar and (isinstance(group[name], bool) or not isinstance(group[name], kind)):
            raise TypeError(f"{name}={group[name]!r} is a {type(group[name]).__name__}: give {article}")
    for name, low, high in (("lr", 0.0, math.inf), ("beta", 0.0, 1.0), ("seed", 0, 1 << 63)):
        if not low <= group[name] < high:
            raise ValueError(f"{name}={group[name]} is out of range: at least {low}, less than {high}")
    for name in ("p_scale", "g_bound"):
        if not 0.0 < group[name] < math.inf:
            raise ValueError(f"{name}={group[name]} is out of range: finite and greater than 0")


def _first_state(p: torch.Tensor, group: dict[str, Any], stream: int) -> dict[str, Any]:
    if not isinstance(p, LNSWeight):
        maximum = group["p_scale"] * root_mean_square(p.to(torch.float64))
        wide = torch.float64 if p.dtype == torch.float64 else torch.float32
        return {"step": 0, "second_moment": torch.zeros_like(p, dtype=wide), "max": maximum}
    dtype = torch.uint8 if group["second_moment"] == "lns8" else torch.float32
    moment = torch.zeros(p.shape, dtype=dtype, device=p.device)
    return {"step": 0, "second_moment": moment, "stream": stream, "exponent": NO_EXPONENT}


def _step_codes(p: LNSWeight, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> StepCounts:
    """The integer step, on the memory of the codes; a kernel's write is told to autograd by `increment_version`."""
    codes, moment = (t.cpu().contiguous() for t in (p.codes, state["second_moment"]))
    floats = bridge.as_numpy(gradient.detach().to("cpu", torch.float32).contiguous())
    if moment.dtype == torch.uint8 and state["exponent"] == NO_EXPONENT:
        state["exponent"] = first_exponent(floats.reshape(-1))
    counts = madam_step(
        bridge.as_numpy(codes, p.fmt.dtype),
        floats,
        bridge.as_numpy(moment),
        p.fmt,
        lr=float(group["lr"]),
        step=state["step"],
        moment_exponent=0 if state["exponent"] == NO_EXPONENT else state["exponent"],
        g_bound=group["g_bound"],
        beta=group["beta"],
        rounding=group["rounding"],
        seed=group["seed"],
        stream=state["stream"],
    )
    for own, updated in ((p.codes, codes), (state["second_moment"], moment)):
        if updated.data_ptr() != own.data_ptr():
            own.copy_(updated)
    torch.autograd.graph.increment_version(p)
    return counts


def _step_floats(p: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """The paper's algorithm in float. 0 / 0 moves nothing, and neither does a gradient that is not finite.

    As for codes, gradients are clamped at 2^60, so that no square overflows, and v below 2^-126 moves nothing.
    """
    v = state["second_moment"]
    finite = torch.isfinite(gradient)
    g = torch.where(finite, gradient, 0.0).to(v.dtype).clamp(-(2.0**60), 2.0**60)
    v.copy_(torch.where(finite, group["beta"] * v + (1 - group["beta"]) * g.square(), v))
    v_hat = (v / (1 - group["beta"] ** state["step"])).clamp_min(2.0**-126)
    g_hat = torch.where(v < 2.0**-126, 0.0, g / v_hat.sqrt()).clamp(-group["g_bound"], group["g_bound"])
    factor = torch.exp(-float(group["lr"]) * g_hat * p.sign())
    p.copy_((p * factor).clamp(-state["max"], state["max"]))
