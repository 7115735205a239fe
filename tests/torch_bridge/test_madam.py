"""The optimizer: what it hands to madam_step, what it keeps, and that a run can be cut anywhere and no code changes.

The integer step itself is tested in kernels/test_update.py; here it is the oracle of LNS parameters. Units, ceilings
and exponents are followed in plain Python, floats by the formulas in NumPy.
"""

import copy
import gc
import io
import math
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lnsnum import LNSFormat, lns8f3, lns8f5, lns12f6, lns16f10
from lnsnum.kernels.scales import Scales
from lnsnum.torch_bridge import LNSWeight, Madam, StepReport, convert_model, load_model, save_model
from lnsnum.torch_bridge.kernels import ceiling
from lnsnum.torch_bridge.kernels.moments import NO_EXPONENT, first_exponent
from lnsnum.torch_bridge.kernels.random_words import Draw
from lnsnum.torch_bridge.kernels.step_numbers import StepCounts
from lnsnum.torch_bridge.kernels.update import madam_step
from lnsnum.torch_bridge.madam import DEFAULT_LR
from lnsnum.torch_bridge.step_state import CODE_STATE

torch.set_num_threads(1)

FORMATS = [lns8f5, lns8f3, lns16f10]


# ---------------------------------------------------------------------------------------------------------------- tools


def network(fmt="lns8f5", dtype=torch.float32, seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)
    if fmt is not None:
        convert_model(model, fmt)
    return model


def floats_left(fmt="lns8f5", dtype=torch.float32) -> nn.Sequential:
    """Matrices in LNS, vectors in float."""
    return network({"*[03].weight": fmt}, dtype)


def set_gradients(model_or_parameters, step: int, scale=0.01) -> None:
    """Gradients that depend on the step and the shape alone."""
    parameters = getattr(model_or_parameters, "parameters", lambda: model_or_parameters)()
    for i, p in enumerate(parameters):
        generator = torch.Generator().manual_seed(1000 * step + i)
        p.grad = (torch.randn(p.shape, generator=generator) * scale).to(p.dtype)


def run(model, optimizer, first: int, last: int) -> None:
    for step in range(first, last + 1):
        set_gradients(model, step)
        optimizer.step()


def train(model, optimizer, steps) -> None:
    """Real training on numbers that depend on the step alone."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 12, generator=generator), torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def bits(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, LNSWeight):
        return tensor.codes.clone()
    return (
        tensor.detach().clone().view({8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[tensor.itemsize])
    )


def snapshot(model, optimizer) -> dict:
    """Every bit of the weights and of the optimizer's state."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = [
        {k: bits(v) if isinstance(v, torch.Tensor) else v for k, v in optimizer.state.get(p, {}).items()}
        for p in parameters
    ]
    offsets = [p.log_offset if isinstance(p, LNSWeight) else None for p in parameters]
    buffers = [b.clone() for b in model.buffers()] if model is not None else []
    return {"weights": [bits(p) for p in parameters], "offsets": offsets, "states": states, "buffers": buffers}


def assert_same(a, b, where="") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


class Shadow:
    """What Madam does to one LNS parameter, by madam_step on arrays of our own; the rest in plain Python."""

    def __init__(self, p: LNSWeight, stream: int, second_moment="byte") -> None:
        self.codes = p.codes.contiguous().numpy().view(p.fmt.dtype).copy()
        self.moment = np.zeros(self.codes.shape, np.uint8 if second_moment == "byte" else np.float32)
        self.momentum = None
        self.fmt, self.stream, self.exponent, self.steps = p.fmt, stream, NO_EXPONENT, 0
        self.beta_product = self.momentum_product = 1.0
        self.counts = (0,) * 8
        self.offset, self.rms = p.log_offset, None
        if isinstance(self.offset, torch.Tensor):  # one for each channel
            self.offset = self.offset.numpy().astype(np.float64)
        self.fan_in = math.prod(p.shape[1:]) if p.ndim > 1 else 0

    def floor(self):
        return self.fmt.base ** ((1 - self.fmt.bias + self.offset) / 2**self.fmt.fraction_bits)

    def first_rms(self) -> float:
        """Of the values, from the codes one by one."""
        m = (self.codes & self.fmt.max_magnitude).astype(np.float64)
        values = np.where(m > 0, self.fmt.base ** ((m - 1) / 2**self.fmt.fraction_bits), 0.0) * self.floor()
        rms = math.sqrt(math.fsum((values**2).reshape(-1)) / max(m.size, 1))
        return rms or min(0.1, 1 / math.sqrt(self.fan_in) if self.fan_in else 0.1)

    def step(self, gradient, lr, *, beta=0.999, momentum=0.0, crossover=1.0, cap=0.2, **arguments) -> StepCounts:
        """One step; by a sparse gradient, of its rows."""
        follows = arguments.pop("ceiling", "follow") == "follow" and arguments.get("rule") != "paper"
        self.rms = self.rms or self.first_rms()
        rows = None
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, gradient = gradient.indices()[0].numpy(), gradient.values()
        g = np.ascontiguousarray(gradient.float().numpy())
        self.steps += 1
        self.beta_product, self.momentum_product = self.beta_product * beta, self.momentum_product * momentum
        if momentum and self.momentum is None:
            self.momentum = np.zeros(self.codes.shape, np.uint8)
        if self.exponent == NO_EXPONENT and (momentum or self.moment.dtype == np.uint8):
            self.exponent = first_exponent(g.reshape(-1))
            if self.moment.dtype == np.float32:
                self.exponent = min(self.exponent, 53)  # beside a float32 moment gradients are clamped at 2^60
        arrays = [self.codes, self.moment, self.momentum if momentum else None]
        if rows is not None:
            arrays = [None if array is None else array[rows] for array in arrays]
        counts = madam_step(
            arrays[0],
            g,
            arrays[1],
            self.fmt,
            lr=lr,
            unit=np.reshape(crossover * self.rms / self.floor(), -1).astype(np.float32),
            inner=math.prod(self.codes.shape[1:]) if self.codes.ndim > 1 else 1,
            kappa=min(1.0, cap / self.rms),
            momentum_codes=arrays[2],
            beta=beta,
            momentum=momentum,
            step=self.steps,
            stream=self.stream,
            exponent=0 if self.exponent == NO_EXPONENT else self.exponent,
            beta_product=self.beta_product,
            momentum_product=self.momentum_product,
            rows=rows,
            **arguments,
        )
        for own, new in zip((self.codes, self.moment, self.momentum), arrays, strict=True):
            if rows is not None and new is not None:
                own[rows] = new
        self.raise_exponent(g)
        grown = int(follows and self.follow_ceiling(arguments.get("seed", 0), arguments.get("zero") == "keep"))
        self.counts = (arrays[0].size, *counts[:5], grown, counts[5])
        return counts

    def raise_exponent(self, g) -> None:
        greatest = max((abs(float(x)) for x in g.reshape(-1) if math.isfinite(x)), default=0.0)
        if self.exponent == NO_EXPONENT or greatest < 2.0 ** (12 + self.exponent):
            return
        up = math.frexp(greatest)[1] - 1 - 7 - self.exponent
        self.exponent += up
        if self.moment.dtype == np.uint8:
            self.moment[...] = np.where(self.moment > 0, np.maximum(self.moment.astype(int) - 8 * up, 1), 0)
        if self.momentum is not None:
            size = (self.momentum & 127).astype(int) - 4 * up
            self.momentum[...] = np.where(size > 0, size + (self.momentum & 128), 0)

    def follow_ceiling(self, seed: int, keep: bool) -> bool:
        """By the page: after each 20th step, where more than 2 % are there and the floor stays small."""
        if self.steps % 20:
            return False
        m = (self.codes & self.fmt.max_magnitude).astype(int)
        top = int((m == self.fmt.max_magnitude).sum())
        by = math.ceil(2**self.fmt.fraction_bits / math.log2(self.fmt.base) - 1e-9)
        factor = self.fmt.base ** (by / 2**self.fmt.fraction_bits)
        assert not isinstance(self.offset, np.ndarray)
        rms = math.sqrt((np.where(m > 0, self.fmt.base ** ((m - 1) / 2**self.fmt.fraction_bits), 0.0) ** 2).mean())
        if top < 2 or 50 * top <= m.size or rms < 2 * factor:
            return False
        ceiling.grow(
            self.codes, self.fmt, np.array([True]), Scales.of(0, ()), Draw(seed, self.stream, self.steps), keep=keep
        )
        self.offset += by
        return True

    def check(self, p: LNSWeight, state: dict) -> None:
        np.testing.assert_array_equal(p.codes.contiguous().numpy().view(p.fmt.dtype), self.codes)
        np.testing.assert_array_equal(state["second_moment"].numpy(), self.moment)
        np.testing.assert_array_equal(np.asarray(p.log_offset), self.offset)
        if self.steps:
            own = (self.steps, self.exponent, self.beta_product, self.momentum_product, self.stream)
            names = ("step", "exponent", "beta_product", "momentum_product", "stream")
            assert tuple(float(state[name]) for name in names) == own
            assert float(state["r"]) == pytest.approx(self.rms, rel=1e-13)
            np.testing.assert_allclose(state["units"].numpy(), self.rms / self.floor(), rtol=1e-13)
        if self.momentum is None:
            assert "momentum" not in state
        else:
            np.testing.assert_array_equal(state["momentum"].numpy(), self.momentum)


def shadows_of(model, second_moment="byte") -> list[Shadow]:
    return [Shadow(p, i, second_moment) for i, p in enumerate(model.parameters())]


def follow(model, optimizer, shadows, steps, lr, **arguments) -> None:
    """Optimizer and shadows through steps with the same gradients, compared after each of them."""
    for step in steps:
        set_gradients(model, step)
        optimizer.step()
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.step(p.grad, lr, **arguments)
            shadow.check(p, optimizer.state[p])


# -------------------------------------------------------------------------------------------------------- the arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -0.1}, "lr=-0.1 is out of range: at least 0, less than inf"),
        ({"lr": math.inf}, "lr=inf is out of range"),
        ({"lr": math.nan}, "lr=nan is out of range"),
        ({"beta": 1.0}, "beta=1.0 is out of range: at least 0, less than 1.0"),
        ({"beta": -0.1}, "beta=-0.1 is out of range"),
        ({"beta": math.nan}, "beta=nan is out of range"),
        ({"g_bound": 0.0}, "g_bound=0.0 is out of range: finite and greater than 0"),
        ({"g_bound": math.inf}, "g_bound=inf is out of range"),
        ({"p_scale": 0.0}, "p_scale=0.0 is out of range"),
        ({"p_scale": -3.0}, "p_scale=-3.0 is out of range"),
        ({"p_scale": math.nan}, "p_scale=nan is out of range"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"seed": 2**63}, "seed=9223372036854775808 is out of range"),
        ({"rounding": "up"}, "rounding='up' is not known: one of stochastic_log, stochastic_value, nearest"),
        ({"rounding": "nearest"}, "rounding='nearest' is for rule='paper': the hypentropy rule has its own"),
        ({"rule": "adam"}, "rule='adam' is not known: one of hypentropy, paper"),
        ({"ceiling": "open"}, "ceiling='open' is not known: one of follow, fixed"),
        ({"crossover": -1.0}, "crossover=-1.0 is out of range: at least 0, less than inf"),
        ({"crossover": math.nan}, "crossover=nan is out of range"),
        ({"cap": 0.0}, "cap=0.0 is out of range: finite and greater than 0"),
        ({"cap": math.inf}, "cap=inf is out of range"),
        ({"zero": "leave"}, "zero='leave' is not for rule='hypentropy', which takes 'learn', 'keep', 'raise'"),
        (
            {"zero": "learn", "rule": "paper"},
            "zero='learn' is not for rule='paper', which takes 'keep', 'leave', 'raise'",
        ),
        ({"second_moment": "uint8"}, "second_moment='uint8' is not known: one of byte, float32"),
        ({"lr": torch.tensor(-0.1)}, "lr=-0.1.* is out of range"),
        ({"lr": torch.tensor(math.nan)}, "lr=nan is out of range"),
        ({"momentum": 1.0}, "momentum=1.0 is out of range: at least 0, less than 1.0"),
        ({"momentum": -0.1}, "momentum=-0.1 is out of range"),
        ({"momentum": math.nan}, "momentum=nan is out of range"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 is out of range: at least 0, less than inf"),
        ({"weight_decay": math.inf}, "weight_decay=inf is out of range"),
        ({"weight_decay": math.nan}, "weight_decay=nan is out of range"),
        ({"zero": "stay"}, "zero='stay' is not known: one of learn, keep, leave, raise"),
        ({"non_finite": "ignore"}, "non_finite='ignore' is not known: one of skip, raise"),
    ],
)
@pytest.mark.parametrize("of_group", [False, True])
def test_arguments_are_checked(arguments, message, of_group):
    model = network()
    with pytest.raises(ValueError, match=message):
        Madam([{"params": model.parameters(), **arguments}]) if of_group else Madam(model.parameters(), **arguments)
    optimizer = Madam(model[0].parameters())
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": model[3].parameters(), **arguments})
    assert len(optimizer.param_groups) == 1


def test_defaults():
    group = Madam(network().parameters()).param_groups[0]
    del group["params"]
    assert group == {
        "lr": DEFAULT_LR,
        "rule": "hypentropy",
        "crossover": 1.0,
        "cap": 0.2,
        "ceiling": "follow",
        "g_bound": 10.0,
        "beta": 0.999,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "second_moment": "byte",
        "zero": None,
        "rounding": None,
        "p_scale": 3.0,
        "non_finite": "skip",
        "seed": 0,
    }


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64], ids=str)
def test_parameters_that_are_no_real_floats_are_refused(dtype):
    bad = nn.Parameter(torch.ones(3).to(dtype), requires_grad=False)
    good = nn.Parameter(torch.ones(3))
    with pytest.raises(TypeError, match=rf"parameter 1 of the group is of {dtype}: Madam takes real floating-point"):
        Madam([good, bad])
    optimizer = Madam([good])
    with pytest.raises(TypeError, match="parameter 0 of the group"):
        optimizer.add_param_group({"params": [bad]})
    assert [group["params"] for group in optimizer.param_groups] == [[good]]


def test_no_parameters_and_the_same_twice():
    with pytest.raises(ValueError, match="empty parameter list"):
        Madam([])
    p = network()[0].weight
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        Madam([{"params": [p]}, {"params": [p]}])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 0.5}, "seed=0.5 is a float: give an integer"),
        ({"seed": True}, "seed=True is a bool: give an integer"),
        ({"lr": "0.1"}, "lr='0.1' is a str: give a number"),
        ({"lr": None}, "lr=None is a NoneType: give a number"),
        ({"lr": torch.ones(2)}, "lr=.* is a Tensor: give a number"),
        ({"lr": True}, "lr=True is a bool"),
        ({"beta": torch.tensor(0.9)}, "beta=.* is a Tensor: give a number"),
        ({"momentum": "0.9"}, "momentum='0.9' is a str: give a number"),
        ({"weight_decay": None}, "weight_decay=None is a NoneType: give a number"),
        ({"g_bound": [1]}, r"g_bound=\[1\] is a list: give a number"),
    ],
    ids=str,
)
def test_arguments_of_another_type_are_told(arguments, message):
    with pytest.raises(TypeError, match=message):
        Madam(network().parameters(), **arguments)


def test_gradients_that_are_sparse_otherwise_are_refused_before_anything_moves():
    """Elements instead of rows, as torch makes none for a parameter."""
    model = network()
    before = [p.codes.clone() for p in model.parameters()]
    optimizer = Madam(model.parameters(), lr=1.0)
    set_gradients(model, 1)
    model[3].weight.grad = torch.ones(3, 16).to_sparse()
    with pytest.raises(TypeError, match="Madam takes dense gradients, and sparse ones of whole rows"):
        optimizer.step()
    assert all(torch.equal(p.codes, b) for p, b in zip(model.parameters(), before, strict=True))
    assert not optimizer.state


# ------------------------------------------------------------------------------------------------------------ LNS steps


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("second_moment", ["byte", "float32"])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"zero": "keep", "crossover": 0.3, "cap": 0.05},
        {"ceiling": "fixed", "crossover": 0.0},
        *({"rule": "paper", "rounding": r, "zero": "leave"} for r in ("stochastic_log", "stochastic_value", "nearest")),
    ],
    ids=str,
)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_each_parameter_is_stepped_by_madam_step(fmt, second_moment, choices, momentum):
    model = network(fmt)
    arguments = {"g_bound": 2.0, "beta": 0.9, "seed": 7, "momentum": momentum, "weight_decay": 0.2, **choices}
    optimizer = Madam(model.parameters(), lr=0.1, second_moment=second_moment, **arguments)
    shadows = [Shadow(p, i, second_moment) for i, p in enumerate(model.parameters())]
    for step in range(1, 8):
        set_gradients(model, step)
        assert optimizer.step() is None
        counts = [s.step(p.grad, 0.1, **arguments) for s, p in zip(shadows, model.parameters(), strict=True)]
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.check(p, optimizer.state[p])
        n = sum(p.numel() for p in model.parameters())
        assert optimizer.step_report() == StepReport(
            weights=n,
            moved=sum(c.moved for c in counts) / n,
            at_ceiling=sum(c.at_ceiling for c in counts) / n,
            at_floor=sum(c.at_floor for c in counts) / n,
            zeros=sum(c.zeros for c in counts) / n,
            sign_changes=sum(c.sign_changes for c in counts) / n,
            grown=0,
            not_finite=0,
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_dtype_that_a_weight_appears_as_does_not_matter_but_to_the_gradient(dtype):
    model = network(dtype=dtype)
    optimizer = Madam(model.parameters())
    shadows = [Shadow(p, i) for i, p in enumerate(model.parameters())]
    for step in range(1, 4):
        set_gradients(model, step)
        optimizer.step()
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.step(p.grad, DEFAULT_LR)
            shadow.check(p, optimizer.state[p])


def test_codes_in_another_memory_order():
    """Transposed codes: the element's index is that of the tensor, not that of the memory."""
    weight = network()[0].weight.detach()
    turned = nn.Parameter(weight.t().clone(memory_format=torch.contiguous_format).t())
    straight = nn.Parameter(weight.clone())
    assert not turned.codes.is_contiguous()
    optimizers = [Madam([turned]), Madam([straight])]
    for step in range(1, 4):
        for p, optimizer in zip((turned, straight), optimizers, strict=True):
            set_gradients([p], step)
            optimizer.step()
        assert torch.equal(turned.codes, straight.codes)
    assert torch.equal(optimizers[0].state[turned]["second_moment"], optimizers[1].state[straight]["second_moment"])


def test_parameters_without_gradients_are_left_alone_and_keep_their_streams():
    model = network()
    parameters = list(model.parameters())
    optimizer = Madam(parameters)
    shadows = [Shadow(p, i) for i, p in enumerate(parameters)]
    assert optimizer.step() is None
    assert optimizer.step_report() == StepReport(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    for step, with_gradient in enumerate(([4], [0, 4], [0, 1, 2, 3, 4, 5]), 1):
        set_gradients(model, step)
        for i, p in enumerate(parameters):
            if i in with_gradient:
                shadows[i].step(p.grad, DEFAULT_LR)
            else:
                p.grad = None
        optimizer.step()
        for shadow, p in zip(shadows, parameters, strict=True):
            shadow.check(p, optimizer.state.get(p, {"second_moment": torch.from_numpy(shadow.moment)}))
        assert optimizer.step_report().weights == sum(parameters[i].numel() for i in with_gradient)


def test_parameters_that_never_had_a_gradient_have_no_state_and_do_not_hinder_loading():
    model = network()
    optimizer = Madam(model.parameters())
    for step in (1, 2):
        set_gradients(model, step)
        model[0].bias.grad = None
        optimizer.step()
    assert model[0].bias not in optimizer.state
    other = copy.deepcopy(model)
    fresh = Madam(other.parameters())
    fresh.load_state_dict(reloaded(optimizer.state_dict(), "torch.save"))
    run(model, optimizer, 3, 4)
    run(other, fresh, 3, 4)
    assert_same(snapshot(other, fresh), snapshot(model, optimizer))


def test_a_step_without_any_gradient_is_reported_as_one():
    model = network()
    optimizer = Madam(model.parameters())
    run(model, optimizer, 1, 1)
    assert optimizer.step_report().weights == sum(p.numel() for p in model.parameters())
    optimizer.zero_grad()
    before = snapshot(model, optimizer)["weights"]
    optimizer.step()
    assert optimizer.step_report() == StepReport(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    assert_same(snapshot(model, optimizer)["weights"], before)


@pytest.mark.parametrize("arguments", [{}, {"momentum": 0.9, "weight_decay": 1.0, "zero": "keep"}], ids=str)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_step_of_rate_zero_changes_no_code(fmt, arguments):
    """What distributed checkpointing does, to make an optimizer's state: all gradients zero, and lr 0."""
    model = network(fmt)
    before = [p.codes.clone() for p in model.parameters()]
    optimizer = Madam(model.parameters(), lr=0.0, **arguments)
    for scale in (0.0, 1.0):
        set_gradients(model, 1, scale)
        optimizer.step()
        assert all(torch.equal(p.codes, b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_zero_gradient_changes_nothing_and_leaves_the_scale_of_the_moment_open():
    model = network()
    before = [p.codes.clone() for p in model.parameters()]
    optimizer = Madam(model.parameters(), lr=1.0)
    for _ in range(3):
        set_gradients(model, 1, scale=0.0)
        optimizer.step()
    assert all(torch.equal(p.codes, b) for p, b in zip(model.parameters(), before, strict=True))
    assert {int(s["exponent"]) for s in optimizer.state.values()} == {NO_EXPONENT}
    assert optimizer.step_report().moved == 0.0
    set_gradients(model, 4, scale=1e-8)
    optimizer.step()
    assert all(-50 < s["exponent"] < -25 for s in optimizer.state.values())


def test_gradients_that_are_not_finite_change_nothing_and_are_counted():
    model = network()
    optimizer = Madam(model.parameters(), lr=0.5)
    set_gradients(model, 1)
    optimizer.step()
    before = snapshot(model, optimizer)
    for p in model.parameters():
        p.grad.fill_(math.nan)
    model[3].bias.grad[0] = math.inf
    optimizer.step()
    after = snapshot(model, optimizer)
    assert_same(after["weights"], before["weights"])
    assert_same([s["second_moment"] for s in after["states"]], [s["second_moment"] for s in before["states"]])
    n = sum(p.numel() for p in model.parameters())
    assert optimizer.step_report().not_finite == n
    set_gradients(model, 3)
    model[0].weight.grad[0, 0] = -math.inf
    optimizer.step()
    assert optimizer.step_report().not_finite == 1
    assert 0 < optimizer.step_report().moved < 1


def test_report_of_a_mixture_is_of_the_lns_weights():
    model = floats_left()
    optimizer = Madam(model.parameters())
    set_gradients(model, 1)
    optimizer.step()
    report = optimizer.step_report()
    assert report.weights == 12 * 16 + 16 * 3
    values = [p.codes.int() & 127 for p in model.parameters() if isinstance(p, LNSWeight)]
    assert report.at_ceiling == sum(int((m == 127).sum()) for m in values) / report.weights
    assert report.at_floor == sum(int((m == 1).sum()) for m in values) / report.weights


def test_saturation_is_the_clip():
    """Driven outwards every weight comes to rest at the greatest magnitude, p_scale times the RMS of the first ones."""
    model = network(None)
    rms = [float(p.detach().double().square().mean().sqrt()) for p in model.parameters()]
    convert_model(model, "lns8f5", p_scale=3.0)
    optimizer = Madam(model.parameters(), lr=0.5, rule="paper", zero="leave")
    for _ in range(20):
        for p in model.parameters():
            p.grad = -p.to_float().sign() - (p.to_float() == 0).float()
        optimizer.step()
    assert optimizer.step_report().at_ceiling == 1.0
    for i, p in enumerate(model.parameters()):
        size = p.to_float().abs()
        assert size.min() == size.max()
        if rms[i]:
            assert 1 <= float(size[0].max()) / (3 * rms[i]) < 2 ** (1 / 32) * 1.0001


def test_it_learns():
    """Ten classes by lns8f5, from the first loss to a tenth of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
    convert_model(model, lns8f5)
    y = torch.arange(10)
    x = torch.randn(10, 16)
    optimizer = Madam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


# ----------------------------------------------------------------------------------------------------- float parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("p_scale", [3.0, 1.0])
def test_floats_get_the_paper_s_formula(dtype, p_scale):
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(40, 30, dtype=dtype) * 0.1)
    lr, beta, bound = 0.3, 0.9, 2.0
    optimizer = Madam([p], lr=lr, p_scale=p_scale, beta=beta, g_bound=bound, rule="paper")
    w = p.detach().double().numpy().copy()
    maximum = p_scale * math.sqrt((w**2).mean())
    v = np.zeros_like(w)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    for step in range(1, 21):
        set_gradients([p], step)
        g = p.grad.double().numpy()
        optimizer.step()
        v = beta * v + (1 - beta) * g**2
        g_hat = np.clip(g / np.sqrt(v / (1 - beta**step)), -bound, bound)
        w = np.clip(w * np.exp(-lr * g_hat * np.sign(w)), -maximum, maximum)
        np.testing.assert_allclose(p.detach().double().numpy(), w, rtol=tolerance)
    assert (np.abs(p.detach().double().numpy()) >= maximum * (1 - 1e-6)).any()
    assert (np.abs(p.detach().double().numpy()) <= maximum * (1 + 1e-6)).all()
    assert np.array_equal(np.sign(w), np.sign(p.detach().numpy()))
    state = optimizer.state[p]
    assert state["step"] == 20
    assert state["r"] == pytest.approx(maximum / p_scale, rel=1e-6)
    np.testing.assert_allclose(state["second_moment"].double().numpy(), v, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("zero", ["learn", "keep"])
@pytest.mark.parametrize("scale", [0.1, 3.0, 0.0])
def test_floats_follow_the_hypentropy_rule(dtype, zero, scale):
    """By its formula; zeros among them, and a parameter of zeros, whose unit is 1 / sqrt(fan_in)."""
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(40, 300, dtype=dtype) * scale)
    with torch.no_grad():
        p[0, :5] = 0.0
    lr, decay, momentum = 0.1, 0.3, 0.5
    optimizer = Madam([p], lr=lr, weight_decay=decay, momentum=momentum, crossover=0.5, zero=zero)
    w = p.detach().double().numpy().copy()
    r = math.sqrt((w**2).mean()) or 1 / math.sqrt(300)
    v, u = np.zeros_like(w), np.zeros_like(w)
    for step in range(1, 11):
        set_gradients([p], step)
        g = p.grad.double().numpy()
        optimizer.step()
        v, u = 0.999 * v + 0.001 * g**2, momentum * u + (1 - momentum) * g
        g_hat = np.clip(u / (1 - momentum**step) / np.sqrt(v / (1 - 0.999**step)), -10, 10)
        moved = w * (1 - lr * decay) - lr * min(1, 0.2 / r) * g_hat * np.sqrt(w**2 + (0.5 * r) ** 2)
        w = np.where(w == 0, w, moved) if zero == "keep" else moved
        np.testing.assert_allclose(
            p.detach().double().numpy(), w, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=1e-6 * r
        )
    assert (w[0, :5] == 0).all() == (zero == "keep")
    if zero == "learn":
        assert scale == 0.0 or (np.sign(w) != np.sign(p.detach().numpy())).sum() == 0


def test_floats_zero_zero_over_zero_and_not_finite():
    values = [0.0, -0.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0]
    p = nn.Parameter(torch.tensor(values))
    optimizer = Madam([p], lr=0.1, beta=0.0, p_scale=10.0, rule="paper")
    p.grad = torch.tensor([1.0, 1.0, 0.0, 0.0, 2.0, 2.0, math.nan, -math.inf])
    optimizer.step()
    shrunk, grown = math.exp(-0.1), math.exp(0.1)
    expected = [0.0, 0.0, 1.0, 1.0, shrunk, -grown, 1.0, 1.0]
    assert p.tolist() == pytest.approx(expected, rel=1e-6)
    assert optimizer.state[p]["second_moment"].tolist() == [1.0, 1.0, 0.0, 0.0, 4.0, 4.0, 0.0, 0.0]


def test_floats_of_one_model_beside_codes_of_the_same():
    """In one group: the LNS ones by madam_step, the float ones by the formula, as if each had its own optimizer."""
    model, alone = floats_left(), floats_left()
    parameters, others = list(model.parameters()), list(alone.parameters())
    optimizer = Madam(parameters, lr=0.1)
    by_kind = [Madam([p], lr=0.1) for p in others if not isinstance(p, LNSWeight)]
    shadows = {i: Shadow(p, i) for i, p in enumerate(parameters) if isinstance(p, LNSWeight)}
    for step in range(1, 6):
        set_gradients(model, step)
        set_gradients(alone, step)
        optimizer.step()
        for one in by_kind:
            one.step()
        for i, p in enumerate(parameters):
            if i in shadows:
                shadows[i].step(p.grad, 0.1)
                shadows[i].check(p, optimizer.state[p])
            else:
                assert torch.equal(p, others[i])


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.float16, 1e-3), (torch.float32, 1e-15), (torch.float32, 1e20), (torch.float64, 1e-17)],
    ids=str,
)
def test_floats_of_any_size_of_gradient_make_a_first_step_of_lr(dtype, size):
    """g / sqrt(g^2) is 1."""
    p = nn.Parameter(torch.ones(3, dtype=dtype))
    p.grad = torch.full((3,), size, dtype=dtype)
    Madam([p], lr=0.05, rule="paper").step()
    assert p.tolist() == pytest.approx([math.exp(-0.05)] * 3, rel=2e-3)


def test_gradients_whose_squares_are_below_the_range_move_no_float():
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.full((3,), 1e-25)
    Madam([p], lr=0.05).step()
    assert p.tolist() == [1.0] * 3


def test_the_second_moment_of_bfloat16_floats_decays():
    p = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = Madam([p], lr=0.0)
    for step in range(1001):
        p.grad = torch.full((1,), float(step == 0), dtype=torch.bfloat16)
        optimizer.step()
    assert float(optimizer.state[p]["second_moment"]) == pytest.approx(0.001 * 0.999**1000, rel=0.1)


# ------------------------------------------------------------------------------------------------- groups and schedules


def test_groups_have_their_own_arguments():
    model = network()
    settings = [
        {"lr": 0.02, "second_moment": "float32", "seed": 3, "momentum": 0.9},
        {"lr": 0.2, "rule": "paper", "rounding": "nearest", "beta": 0.5, "weight_decay": 0.3, "zero": "leave"},
        {"lr": 0.03, "g_bound": 1.0, "crossover": 2.0, "momentum": 0.5},
    ]
    split = [list(model[0].parameters()), list(model[1].parameters()), list(model[3].parameters())]
    groups = [{"params": params, **setting} for params, setting in zip(split, settings, strict=True)]
    optimizer = Madam(groups[:2])
    optimizer.add_param_group(groups[2])
    shadows = [Shadow(p, i, "float32" if i < 2 else "byte") for i, p in enumerate(model.parameters())]
    for step in range(1, 6):
        set_gradients(model, step)
        optimizer.step()
        for i, (shadow, p) in enumerate(zip(shadows, model.parameters(), strict=True)):
            setting = {k: v for k, v in settings[i // 2].items() if k != "second_moment"}
            shadow.step(p.grad, setting.pop("lr"), **setting)
            shadow.check(p, optimizer.state[p])
    assert [s["second_moment"].dtype for s in optimizer.state.values()] == [torch.float32] * 2 + [torch.uint8] * 4


def test_closure():
    model = network()
    optimizer = Madam(model.parameters())
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert optimizer.step_report().moved > 0


def test_hooks_of_the_base_class_run():
    model, seen = network(), []
    optimizer = Madam(model.parameters())
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    run(model, optimizer, 1, 1)
    assert seen == ["pre", "post"]


# ---------------------------------------------------------------------------------------------- state, saved and loaded


def reloaded(state: dict, how: str) -> dict:
    if how == "as it is":
        return state
    if how == "deepcopy":
        return copy.deepcopy(state)
    if how == "pickle":
        return pickle.loads(pickle.dumps(state))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("how", ["as it is", "deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("second_moment", ["byte", "float32"])
def test_state_dict_is_loaded_to_the_bit(how, dtype, second_moment):
    model = floats_left("lns8f5", dtype)
    optimizer = Madam(model.parameters(), lr=0.1, second_moment=second_moment, seed=3)
    run(model, optimizer, 1, 5)
    other = copy.deepcopy(model)
    fresh = Madam(other.parameters())
    fresh.load_state_dict(reloaded(optimizer.state_dict(), how))
    assert_same(snapshot(other, fresh), snapshot(model, optimizer))
    moments = {s["second_moment"].dtype for s in fresh.state.values()}
    of_floats = torch.float64 if dtype == torch.float64 else torch.float32
    assert moments == {torch.uint8 if second_moment == "byte" else torch.float32, of_floats}
    del fresh.param_groups[0]["params"]
    expected = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    assert fresh.param_groups[0] == expected
    fresh.param_groups[0]["params"] = list(other.parameters())
    run(model, optimizer, 6, 10)
    run(other, fresh, 6, 10)
    assert_same(snapshot(other, fresh), snapshot(model, optimizer))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_state_is_loaded_twice_and_over_another(momentum):
    """The second load wipes out what was done in between, momentum included."""
    model = floats_left()
    optimizer = Madam(model.parameters(), momentum=momentum)
    run(model, optimizer, 1, 3)
    states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    expected = snapshot(model, optimizer)
    for _ in range(2):
        run(model, optimizer, 4, 6)
        model.load_state_dict(states[0])
        optimizer.load_state_dict(states[1])
        assert_same(snapshot(model, optimizer), expected)
    run(model, optimizer, 4, 6)
    after = snapshot(model, optimizer)
    other = floats_left()
    fresh = Madam(other.parameters(), momentum=0.5)
    run(other, fresh, 1, 2)
    other.load_state_dict(states[0])
    fresh.load_state_dict(states[1])
    run(other, fresh, 4, 6)
    assert_same(snapshot(other, fresh), after)


@pytest.mark.parametrize("bad", ["shape", "dtype"])
def test_a_momentum_of_another_kind_is_refused(bad):
    model = network()
    optimizer = Madam(model.parameters(), momentum=0.9)
    run(model, optimizer, 1, 1)
    state = copy.deepcopy(optimizer.state_dict())
    own = state["state"][0]["momentum"]
    state["state"][0]["momentum"] = own[:2] if bad == "shape" else own.float()
    with pytest.raises(ValueError, match="the state of parameter 0"):
        optimizer.load_state_dict(state)


def test_loaded_state_is_a_copy():
    model = network()
    optimizer = Madam(model.parameters())
    run(model, optimizer, 1, 2)
    state = optimizer.state_dict()
    other = copy.deepcopy(model)
    fresh = Madam(other.parameters())
    fresh.load_state_dict(state)
    before = snapshot(model, optimizer)
    run(other, fresh, 3, 6)
    assert_same(snapshot(model, optimizer), before)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_the_optimizer_is_copied_with_its_model(how):
    model = floats_left()
    optimizer = Madam(model.parameters())
    run(model, optimizer, 1, 3)
    other, copied = how((model, optimizer))
    assert [id(p) for p in other.parameters()] == [id(p) for p in copied.param_groups[0]["params"]]
    assert_same(snapshot(other, copied), snapshot(model, optimizer))
    assert copied.step_report() == optimizer.step_report()
    assert copied.step_report().weights == 12 * 16 + 16 * 3
    run(other, copied, 4, 8)
    before = [bits(p) for p in model.parameters()]
    run(model, optimizer, 4, 8)
    assert_same(snapshot(other, copied), snapshot(model, optimizer))
    assert any(not torch.equal(bits(p), b) for p, b in zip(model.parameters(), before, strict=True))


def states_of_others():
    run(model := network(), good := Madam(model.parameters()), 1, 2)
    good = good.state_dict()
    wide = nn.Sequential(nn.Linear(12, 17), nn.BatchNorm1d(17), nn.ReLU(), nn.Linear(17, 3))
    convert_model(wide, lns8f5)
    run(wide, of_wide := Madam(wide.parameters()), 1, 2)
    run(floats := network(None), of_floats := Madam(floats.parameters()), 1, 2)
    run(model := network(), of_adam := torch.optim.Adam(model.parameters()), 1, 2)
    run(
        model := network(),
        grouped := Madam(
            [{"params": model[0].parameters()}, {"params": [*model[1].parameters(), *model[3].parameters()]}]
        ),
        1,
        2,
    )
    fewer = Madam(list(network().parameters())[:4])
    lacking = copy.deepcopy(good)
    del lacking["state"][5]["second_moment"]
    return {
        "wider": (of_wide.state_dict(), r"the state of parameter 0 is not that of a parameter of shape \(16, 12\)"),
        "floats": (
            of_floats.state_dict(),
            r"the state of parameter 0 is not for an LNSWeight, which this one is",
        ),
        "Adam": (of_adam.state_dict(), r"the state is of another optimizer: its groups have no 'beta'"),
        "fewer": (fewer.state_dict(), r"the state is of 4 parameters, this optimizer has 6"),
        "grouped": (grouped.state_dict(), r"parameter group"),
        "lacking": (lacking, r"the state of parameter 5 is not that of a parameter of shape \(3,\)"),
    }


@pytest.mark.parametrize("name", ["wider", "floats", "Adam", "fewer", "grouped", "lacking"])
def test_state_of_others_is_refused_and_nothing_is_loaded(name):
    state, message = states_of_others()[name]
    model = network()
    optimizer = Madam(model.parameters(), lr=0.3)
    run(model, optimizer, 1, 3)
    before, groups = snapshot(model, optimizer), copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert_same(snapshot(model, optimizer), before)
    assert optimizer.state_dict()["param_groups"] == groups
    run(model, optimizer, 4, 4)


def test_state_of_codes_is_refused_by_floats():
    run(model := network(), optimizer := Madam(model.parameters()), 1, 2)
    floats = network(None)
    with pytest.raises(ValueError, match="parameter 0 is not for a float parameter, which this one is"):
        Madam(floats.parameters()).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("other", [torch.optim.SGD, torch.optim.Adam])
def test_state_of_another_optimizer_before_its_first_step(other):
    model = network()
    optimizer = Madam(model.parameters())
    with pytest.raises(ValueError, match="optimizer"):
        optimizer.load_state_dict(other(model.parameters(), lr=0.1).state_dict())


def test_state_before_the_first_step():
    model = network()
    optimizer = Madam(model.parameters(), lr=0.3, seed=5)
    fresh = Madam(model.parameters())
    fresh.load_state_dict(optimizer.state_dict())
    assert (fresh.param_groups[0]["lr"], fresh.param_groups[0]["seed"]) == (0.3, 5)
    assert not fresh.state


# -------------------------------------------------------------------------------------------- reproducible, and resumed


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_codes_do_not_depend_on_the_number_of_threads(fmt):
    """Given the same gradients; the first weight is of three chunks and a bit."""
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(401, 500), nn.Linear(500, 7))
            convert_model(model, fmt)
            optimizer = Madam(model.parameters(), momentum=0.9)
            run(model, optimizer, 1, 3)
            results.append((snapshot(model, optimizer), optimizer.step_report()))
        finally:
            torch.set_num_threads(1)
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_torch_s_generator_has_no_say_and_the_seed_has():
    def final(torch_seed, seed):
        model = network()
        torch.manual_seed(torch_seed)
        optimizer = Madam(model.parameters(), seed=seed)
        run(model, optimizer, 1, 3)
        return [p.codes for p in model.parameters()]

    assert_same(final(0, 0), final(1, 0))
    assert not torch.equal(final(0, 0)[0], final(0, 1)[0])


RESUME = """
import sys, torch
sys.path[:0] = [{tests!r}, {root!r}]
torch.set_num_threads(1)
from test_madam import Madam, convert_model, load_model, network, save_model, train
folder = {folder!r}
model = network(seed=99)
if {by_file!r}:
    load_model(folder + "/model.safetensors", model)
else:
    model.load_state_dict(torch.load(folder + "/model.pt", weights_only=True))
optimizer = Madam(model.parameters())
optimizer.load_state_dict(torch.load(folder + "/optimizer.pt", weights_only=True))
train(model, optimizer, range(6, 11))
torch.save({{"model": model.state_dict(), "optimizer": optimizer.state_dict()}}, folder + "/after.pt")
"""


@pytest.mark.thorough
@pytest.mark.parametrize("by_file", [True, False], ids=["save_model", "torch.save"])
def test_ten_steps_are_five_and_five_in_another_process(tmp_path, by_file):
    """Weights, buffers and optimizer go through files; the gradients are those of real training."""
    model = network()
    optimizer = Madam(model.parameters(), lr=0.07, seed=12)
    train(model, optimizer, range(1, 6))
    if by_file:
        save_model(tmp_path / "model.safetensors", model)
    else:
        torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    train(model, optimizer, range(6, 11))
    tests = Path(__file__).parent
    script = RESUME.format(tests=str(tests), root=str(tests.parents[1]), folder=str(tmp_path), by_file=by_file)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    after = torch.load(tmp_path / "after.pt", weights_only=True)
    for name, own in model.state_dict().items():
        assert type(after["model"][name]) is type(own), name
        assert_same(bits(after["model"][name]), bits(own), name)
        if isinstance(own, LNSWeight):
            assert after["model"][name].log_offset == own.log_offset
    assert_same(after["optimizer"], optimizer.state_dict())


def test_cut_at_any_step(tmp_path):
    """Saved and loaded after every single step, within one process."""
    model, cut = network(lns12f6), network(lns12f6)
    optimizer, of_cut = Madam(model.parameters()), Madam(cut.parameters())
    for step in range(1, 8):
        train(model, optimizer, [step])
        train(cut, of_cut, [step])
        save_model(tmp_path / "model", cut)
        state = reloaded(of_cut.state_dict(), "torch.save")
        cut = load_model(tmp_path / "model", network(None, seed=step))
        of_cut = Madam(cut.parameters())
        of_cut.load_state_dict(state)
        assert_same(snapshot(cut, of_cut), snapshot(model, optimizer))


# --------------------------------------------------------------------------------------------------------------- memory


def live_tensors() -> list[torch.Tensor]:
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # by type, not isinstance, which asks a dead weakref.proxy of another test for its class
        return [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]


def big() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 37, 5), nn.Flatten(), nn.Linear(37 * 16, 173), nn.LayerNorm(173), nn.ReLU(), nn.Linear(173, 11)
    )


def test_two_bytes_a_parameter_and_no_float_of_a_weight_outlives_the_step():
    others = live_tensors()  # of other tests; kept, so that their ids are not given anew
    model = big()
    convert_model(model, "lns8f5")
    optimizer = Madam(model.parameters())
    n = sum(p.numel() for p in model.parameters())
    assert n >= 100_000
    shapes = {p.shape for p in model.parameters()} | {p.t().shape for p in model.parameters() if p.ndim == 2}
    for step in range(3):
        optimizer.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(step)
        F.cross_entropy(model(torch.randn(9, 3, 8, 8, generator=generator)), torch.arange(9)).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    weights = sum(p.codes.untyped_storage().nbytes() for p in model.parameters())
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert all(t.dtype == torch.uint8 for t in state if t.shape in shapes)
    assert all(t.numel() <= 8 for t in state if t.shape not in shapes)
    assert weights + sum(t.untyped_storage().nbytes() for t in state) <= 2.1 * n
    assert not list(model.buffers())

    old = {id(other) for other in others}
    tensors = [t for t in live_tensors() if id(t) not in old]
    floats = [t for t in tensors if not isinstance(t, LNSWeight) and t.is_floating_point() and t.shape in shapes]
    assert floats == []
    known = {p.codes.data_ptr() for p in model.parameters()} | {t.data_ptr() for t in state}
    large = [t.codes if isinstance(t, LNSWeight) else t for t in tensors if t.shape in shapes and t.numel() > 500]
    assert {t.data_ptr() for t in large} <= known


def test_six_bytes_of_sixteen_bit_weights_and_a_float32_moment():
    model = big()
    convert_model(model, LNSFormat(16, 9))
    optimizer = Madam(model.parameters(), second_moment="float32")
    run(model, optimizer, 1, 1)
    n = sum(p.numel() for p in model.parameters())
    shapes = {p.shape for p in model.parameters()}
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert sum(p.codes.nbytes for p in model.parameters()) == 2 * n
    assert sum(t.nbytes for t in state if t.shape in shapes) == 4 * n
    assert sum(t.nbytes for t in state) <= 4.1 * n


def test_what_a_schedule_breaks_is_refused_before_anything_moves():
    model = nn.Linear(8, 4)
    convert_model(model, "lns8f5")
    optimizer = Madam(model.parameters())
    model(torch.ones(2, 8)).sum().backward()
    before = model.weight.codes.clone()
    for name, value in (("lr", math.nan), ("lr", -0.1), ("g_bound", math.nan), ("rounding", "Nearest"), ("beta", 1.0)):
        kept = optimizer.param_groups[0][name]
        optimizer.param_groups[0][name] = value
        with pytest.raises(ValueError, match=name):
            optimizer.step()
        optimizer.param_groups[0][name] = kept
    assert torch.equal(model.weight.codes, before)
    optimizer.step()


@pytest.mark.parametrize("key", ["step", "stream", "exponent", "second_moment"])
def test_a_state_that_lacks_something_is_refused(key):
    model = nn.Linear(8, 4)
    convert_model(model, "lns8f5")
    optimizer = Madam(model.parameters())
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    del state["state"][0][key]
    with pytest.raises(ValueError, match=r"the state of parameter 0"):
        Madam(model.parameters()).load_state_dict(state)
    with pytest.raises(ValueError, match=r"this is no optimizer's state"):
        optimizer.load_state_dict({})


@pytest.mark.parametrize("value", [None, torch.zeros(7)], ids=["none", "seven"])
@pytest.mark.parametrize("key", [*sorted(CODE_STATE), "momentum"])
def test_a_state_that_holds_something_else_is_refused_when_it_is_loaded(key, value):
    model = nn.Linear(8, 4)
    convert_model(model, "lns8f5")
    optimizer = Madam(model.parameters(), momentum=0.9)
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0] = {**state["state"][0], key: value}
    with pytest.raises(ValueError, match=r"the state of parameter 0"):
        Madam(model.parameters()).load_state_dict(state)


UNCOMPILED = """
import sys, torch
from lnsnum.torch_bridge import Madam, convert_model
model = torch.nn.Linear(3, 2)
convert_model(model, "lns8f5")
optimizer = Madam(model.parameters(), lr=0.01)
for _ in range(2):
    optimizer.zero_grad()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
sys.exit("torch._dynamo" in sys.modules)
"""


def test_training_without_torch_compile_does_not_load_its_tracer():
    subprocess.run([sys.executable, "-c", UNCOMPILED], check=True)
