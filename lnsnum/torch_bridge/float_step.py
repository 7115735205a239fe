"""Madam on plain float parameters: the same rules in float, for the floats of a mixed model and as the baseline.

    w  <-  w (1 - lr weight_decay) - lr kappa g_hat sqrt(w^2 + (crossover r)^2)                       hypentropy
    w  <-  clip(w * exp(-lr * (g_hat * sign(w) + weight_decay)), p_scale * RMS(w0))                   the paper's

As for codes, 0 / 0 moves nothing, gradients are clamped at 2^60, so that no square overflows, v below 2^-126 moves
nothing, and neither does a gradient that is not finite.
"""

from __future__ import annotations

from typing import Any

import torch

from lnsnum.torch_bridge.kernels.scale import std_of_zeros
from lnsnum.torch_bridge.step import write
from lnsnum.torch_bridge.step_state import State, advance_clock, choices_of

FLOAT_STATE = frozenset(["step", "second_moment", "beta_product", "momentum_product", "r"])
"""What the state of a float parameter holds, besides momentum."""


def float_state(p: torch.Tensor) -> State:
    """The state of a float parameter before its first step; `r` is its RMS."""
    wide = torch.float64 if p.dtype == torch.float64 else torch.float32
    w = p.detach().to(torch.float64)
    greatest = w.abs().amax() if w.numel() else w.new_zeros(())
    unit = torch.where(greatest > 0, greatest, 1.0)
    rms = (w / unit).square().sum().div(max(w.numel(), 1)).sqrt() * greatest
    return {
        "step": torch.zeros((), dtype=torch.int64, device="cpu"),
        "second_moment": torch.zeros_like(p, dtype=wide),
        "beta_product": torch.ones((), dtype=torch.float64, device="cpu"),
        "momentum_product": torch.ones((), dtype=torch.float64, device="cpu"),
        "r": rms,
    }


def step_floats(p: torch.Tensor, gradient: torch.Tensor, state: State, group: dict[str, Any]) -> None:
    """One step of a float parameter, in place; a sparse gradient steps the rows that it has."""
    v_all = state["second_moment"]
    advance_clock(p, v_all.dtype, state, group)
    u_all = state["momentum"] if group["momentum"] > 0 else None
    rows = None
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, gradient = gradient.indices()[0], gradient.values()
    w, v = (p, v_all) if rows is None else (p[rows], v_all[rows])
    finite = torch.isfinite(gradient)
    g = torch.where(finite, gradient, 0.0).to(v.dtype).clamp(-(2.0**60), 2.0**60)
    v = torch.where(finite, group["beta"] * v + (1 - group["beta"]) * g.square(), v)
    drive = g
    if u_all is not None:
        u = u_all if rows is None else u_all[rows]
        u = torch.where(finite, group["momentum"] * u + (1 - group["momentum"]) * g, u)
        drive = u / (1 - state["momentum_product"]).to(v.device, v.dtype)
        write(u_all, u, rows)
    v_hat = (v / (1 - state["beta_product"]).to(v.device, v.dtype)).clamp_min(2.0**-126)
    moves = finite & (v >= 2.0**-126)
    g_hat = torch.where(moves, drive / v_hat.sqrt(), 0.0).clamp(-group["g_bound"], group["g_bound"])
    lr = group["lr"].reshape(()) if isinstance(group["lr"], torch.Tensor) else group["lr"]
    step = _paper if group["rule"] == "paper" else _hypentropy
    new = step(w.to(v.dtype), torch.where(finite, g_hat, 0.0), lr, state["r"].to(v.device, v.dtype), p.shape, group)
    write(p, torch.where(finite, new, w).to(p.dtype), rows)
    write(v_all, v, rows)


def _hypentropy(
    w: torch.Tensor, g_hat: torch.Tensor, lr: Any, rms: torch.Tensor, shape: torch.Size, group: dict[str, Any]
) -> torch.Tensor:
    r = torch.where(rms > 0, rms, std_of_zeros(shape))
    kappa = (group["cap"] / r).clamp(max=1.0)
    moved = w * (1 - lr * group["weight_decay"]) - lr * kappa * g_hat * torch.hypot(w, group["crossover"] * r)
    return torch.where(w == 0, w, moved) if choices_of(group).zero == "keep" else moved


def _paper(
    w: torch.Tensor, g_hat: torch.Tensor, lr: Any, rms: torch.Tensor, shape: torch.Size, group: dict[str, Any]
) -> torch.Tensor:
    top = group["p_scale"] * rms
    moved = (w * torch.exp(-lr * (g_hat * w.sign() + group["weight_decay"]))).to(w.dtype)
    return torch.minimum(torch.maximum(moved, -top), top)
