"""Optimizers with a fault each: what the laws of optimizers have to find.

Each fault is what someone has built once: a counter that is not saved, a state that two parameters share, a rounding
that leans to one side. It stands on an Adam that is right but for it. `python -m benchmarks.mutation_score` tries the
laws on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

OPTIMIZER_FAULTS: list[OptimizerFault] = []
"""All of them, in the order of the table."""


class OptimizerFault(NamedTuple):
    """A fault in words, the optimizer that has it, and what the laws are tried with."""

    words: str
    make: Callable[[Any], torch.optim.Optimizer]
    options: dict[str, Any]


class PlainAdam(torch.optim.Optimizer):
    """Adam without a fault, one parameter at a time; weights of bfloat16 are rounded by chance."""

    def __init__(self, params, lr=0.01, betas=(0.9, 0.999), eps=1e-12):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self):
        """One step for every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.write(p, self.moved(p, self.gradient(p), self.state_of(p), group))

    def load_state_dict(self, state_dict):
        """As it was saved: the base class would cast it to the weights' dtype."""
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        for i, state in state_dict["state"].items():
            self.state[params[i]] = {name: value.clone() for name, value in state.items()}

    def gradient(self, p):
        """As floats of at least 32 bits."""
        return p.grad.to(torch.promote_types(p.dtype, torch.float32))

    def state_of(self, p):
        """Made at the first step."""
        state = self.state[p]
        if not state:
            wide = torch.promote_types(p.dtype, torch.float32)
            state.update(step=torch.zeros(()), m=torch.zeros_like(p, dtype=wide), v=torch.zeros_like(p, dtype=wide))
        return state

    def count(self, state, group):
        """The step's number, from 1."""
        state["step"] += 1
        return float(state["step"])

    def moved(self, p, g, state, group):
        """The weights after the step, in floats."""
        first, second = group["betas"]
        count = self.count(state, group)
        state["m"].mul_(first).add_(g, alpha=1 - first)
        state["v"].mul_(second).addcmul_(g, g, value=1 - second)
        m_hat, v_hat = state["m"] / (1 - first**count), state["v"] / (1 - second**count)
        return p.to(g.dtype) - group["lr"] * self.direction(g, m_hat, v_hat, group)

    def direction(self, g, m_hat, v_hat, group):
        """Of the step, of size 1."""
        return m_hat / (v_hat.sqrt() + group["eps"])

    def write(self, p, new):
        """Round to the weights' dtype."""
        if p.dtype != torch.bfloat16:
            p.copy_(new)
            return
        bits = new.view(torch.int32) + self.noise(new)
        p.copy_((bits & -65536).view(torch.float32))

    def noise(self, new):
        """What carries the 16 bits that are dropped into the next one, with the right probability."""
        return torch.randint(0, 1 << 16, new.shape, dtype=torch.int32)


def optimizer_fault(words, **options):
    """Enter an optimizer in the list."""

    def enter(make):
        OPTIMIZER_FAULTS.append(OptimizerFault(words, make, options))
        return make

    return enter


def bfloat16(x):
    """Weights that are rounded by chance."""
    return torch.nn.Parameter(x.to(torch.bfloat16))


@optimizer_fault("state shared between parameters of one shape")
class _Shared(PlainAdam):
    def state_of(self, p):
        first = next(q for group in self.param_groups for q in group["params"] if q.shape == p.shape)
        return super().state_of(first)


@optimizer_fault("the step counter is not saved")
class _CounterOfItsOwn(PlainAdam):
    def count(self, state, group):
        counts = self.__dict__.setdefault("counts", {})
        counts[id(state)] = counts.get(id(state), 0) + 1
        return counts[id(state)]


@optimizer_fault("one step counter for all parameters")
class _OneCounter(PlainAdam):
    def count(self, state, group):
        self.counted = getattr(self, "counted", 0) + 1
        state["step"] = torch.tensor(float(self.counted))
        return self.counted


@optimizer_fault("the momentum is made anew after loading")
class _MomentumLost(PlainAdam):
    def state_dict(self):
        """All but m."""
        saved = super().state_dict()
        return {**saved, "state": {i: {**s, "m": torch.zeros_like(s["m"])} for i, s in saved["state"].items()}}


@optimizer_fault("the second moment is saved in 16 bits")
class _Half(PlainAdam):
    def state_dict(self):
        """v in bfloat16."""
        saved = super().state_dict()
        return {**saved, "state": {i: {**s, "v": s["v"].bfloat16()} for i, s in saved["state"].items()}}


@optimizer_fault("the state is cast to the weights' dtype when it is loaded", weights=bfloat16, stochastic=True)
class _Cast(PlainAdam):
    def load_state_dict(self, state_dict):
        """As torch's own does."""
        torch.optim.Optimizer.load_state_dict(self, state_dict)


@optimizer_fault("no gradient is taken for one of zeros")
class _NoneIsZero(PlainAdam):
    @torch.no_grad()
    def step(self):
        """A step of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        super().step()


@optimizer_fault("the sign of zero is 1")
class _SignOfZero(PlainAdam):
    def direction(self, g, m_hat, v_hat, group):
        return torch.where(m_hat >= 0, 1.0, -1.0)


@optimizer_fault("the rate is that of the first step")
class _FirstRate(PlainAdam):
    def moved(self, p, g, state, group):
        return super().moved(p, g, state, {**group, "lr": self.defaults["lr"]})


@optimizer_fault("the sign of the weight is lost, as in a step of exp(-lr g)")
class _NoSign(PlainAdam):
    def direction(self, g, m_hat, v_hat, group):
        return torch.where(self.negative, -1.0, 1.0) * super().direction(g, m_hat, v_hat, group)

    def moved(self, p, g, state, group):
        self.negative = p < 0
        return super().moved(p, g, state, group)


@optimizer_fault("gradients are scaled by the norm of all")
class _GlobalNorm(PlainAdam):
    def gradient(self, p):
        every = [q.grad for group in self.param_groups for q in group["params"] if q.grad is not None]
        norm = torch.stack([g.square().sum() for g in every]).sum().sqrt()
        return super().gradient(p) / (1 + norm)


@optimizer_fault("strides of gradients are not looked at")
class _NoStrides(PlainAdam):
    def gradient(self, p):
        g = super().gradient(p)
        return g if g.is_contiguous() or not g.numel() else torch.as_strided(g, g.shape, torch.empty(g.shape).stride())


@optimizer_fault("the first parameter of a group waits for a step")
class _FirstWaits(PlainAdam):
    def write(self, p, new):
        first = any(group["params"][0] is p for group in self.param_groups)
        if not first or float(self.state[p]["step"]) > 1:
            super().write(p, new)


@optimizer_fault("chance from a generator that nobody seeds", weights=bfloat16, stochastic=True)
class _Unseeded(PlainAdam):
    generator = torch.Generator().manual_seed(0)

    def noise(self, new):
        return torch.randint(0, 1 << 16, new.shape, dtype=torch.int32, generator=self.generator)


@optimizer_fault("a rounding by chance that leans down", weights=bfloat16, laws=["unbiased"])
class _LeansDown(PlainAdam):
    def noise(self, new):
        return super().noise(new) * 15 // 16


@optimizer_fault("chance of 4 bits", weights=bfloat16, laws=["unbiased"])
class _FourBits(PlainAdam):
    def noise(self, new):
        return super().noise(new) & -4096


@optimizer_fault("small steps are rounded to nothing", weights=bfloat16, stochastic=True)
class _Nearest(PlainAdam):
    def __init__(self, params):
        super().__init__(params, lr=1e-3)

    def noise(self, new):
        return torch.full(new.shape, 1 << 15, dtype=torch.int32)


@optimizer_fault("a NaN stays in the moments", laws=["non_finite"])
class _Poisoned(PlainAdam):
    def write(self, p, new):
        super().write(p, torch.where(new.isfinite(), new, p))


@optimizer_fault("an eps of the size of gradients", laws=["scale_equivariance"])
class _GreatEps(PlainAdam):
    def __init__(self, params):
        super().__init__(params, eps=1e-4)
