"""Weights, steps and files where the kernels of the CPU cannot go: on a graphics card, if there is one.

The same tests run on the CPU with the kernels taken away, so that torch's operations do everything there too. What they
must give is what the kernels give.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lnsnum import LNSFormat
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, load_model, save_model
from lnsnum.torch_bridge.kernels import codes as bridge_codes
from lnsnum.torch_bridge.kernels import update_twin
from lnsnum.torch_bridge.kernels.update import madam_step

CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no graphics card")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=CARD)])
def device(request, monkeypatch):
    """A device on which nothing goes to the kernels."""
    kernels = bridge_codes.is_on_cpu
    monkeypatch.setattr(bridge_codes, "is_on_cpu", lambda tensor: False)
    request.node.kernels = kernels
    return request.param


def by_kernels(monkeypatch, request):
    monkeypatch.setattr(bridge_codes, "is_on_cpu", request.node.kernels)


FORMATS = ["lns4f1", "lns8f3", "lns8f5", "lns12f6", "lns16f10", LNSFormat.madam(8, 0.01).name]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("channels", [False, True])
def test_every_code_decodes_and_encodes_as_by_the_kernels(device, monkeypatch, request, fmt, dtype, channels):
    fmt = LNSFormat.parse(fmt)
    codes = torch.arange(1 << fmt.bits).to(bridge_codes.code_dtype(fmt)).reshape(4, -1)
    log_offset = torch.tensor([[-5], [0], [3], [70]]) if channels else -5
    weight = LNSWeight(codes.to(device), fmt, log_offset, dtype)
    floats = weight.to_float()
    again = LNSWeight.from_float(floats, fmt, log_offset=log_offset)
    by_kernels(monkeypatch, request)
    expected = LNSWeight(codes, fmt, log_offset, dtype).to_float()
    assert floats.device.type == device
    assert torch.equal(floats.cpu().view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(again.codes.cpu(), LNSWeight.from_float(expected, fmt, log_offset=log_offset).codes)


OPTIONS = {
    "default": {},
    "all": {"momentum": 0.9, "weight_decay": 0.1, "zero": "keep", "crossover": 0.5, "cap": 0.05},
    "float32": {"second_moment": "float32", "momentum": 0.5, "lr": 0.5},
    "paper": {"rule": "paper"},
    "paper, all": {
        "rule": "paper", "momentum": 0.9, "weight_decay": 0.1, "rounding": "stochastic_value", "zero": "leave",
    },
    "paper, float32": {
        "rule": "paper", "second_moment": "float32", "momentum": 0.5, "rounding": "nearest", "lr": 0.5,
    },
}  # fmt: skip


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("fmt", ["lns8f5", "lns12f6"])
def test_madam_s_steps_are_those_of_the_kernel(device, monkeypatch, request, options, fmt, per_channel):
    """Gradients that grow past the exponent of the moments, and a few that are not finite."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 7, bias=False))
    convert_model(model, fmt, per_channel=per_channel)
    there = copy.deepcopy(model).to(device)
    optimizers = Madam(there.parameters(), **options), Madam(model.parameters(), **options)
    gradients = [[torch.randn(p.shape) * 10.0**step for p in model.parameters()] for step in range(5)]
    gradients[2][0][0, :3] = torch.tensor([float("nan"), float("inf"), 0.0])
    for own, optimizer in zip((there, model), optimizers, strict=True):
        if own is model:
            by_kernels(monkeypatch, request)
        for each in gradients:
            for p, g in zip(own.parameters(), each, strict=True):
                p.grad = g.to(p.device)
            optimizer.step()
    assert optimizers[0].step_report() == optimizers[1].step_report()
    for p, q in zip(there.parameters(), model.parameters(), strict=True):
        assert torch.equal(p.codes.cpu(), q.codes)
        for name, value in optimizers[1].state[q].items():
            assert torch.equal(torch.as_tensor(optimizers[0].state[p][name]).cpu(), torch.as_tensor(value)), name


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("zero", ["learn", "keep"])
def test_ceilings_follow_as_by_the_kernel(device, monkeypatch, request, per_channel, zero):
    """Weights that must become many times larger: scales grow at steps 20, 40 and 60, and units with them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 6), nn.Linear(6, 3))
    convert_model(model, "lns8f4", per_channel=per_channel)
    there = copy.deepcopy(model).to(device)
    grown = []
    for own in (there, model):
        if own is model:
            by_kernels(monkeypatch, request)
        optimizer = Madam(own.parameters(), lr=0.15, zero=zero)
        for step in range(60):
            torch.manual_seed(step)
            for p in own.parameters():
                p.grad = (torch.randn(p.shape) - 0.5).to(p.device)
            optimizer.step()
            grown.append(optimizer.step_report().grown)
    assert grown[:60] == grown[60:]
    assert [step + 1 for step in range(60) if grown[step]] == [20, 40, 60]
    for p, q in zip(there.parameters(), model.parameters(), strict=True):
        assert torch.equal(p.codes.cpu(), q.codes)
        assert torch.equal(torch.as_tensor(p.log_offset).cpu(), torch.as_tensor(q.log_offset))


@pytest.mark.parametrize("per_channel", [False, True])
def test_sparse_rows_step_as_by_the_kernel(device, monkeypatch, request, per_channel):
    torch.manual_seed(0)
    model = nn.Embedding(20, 6, sparse=True)
    convert_model(model, "lns8f5", per_channel=per_channel)
    there = copy.deepcopy(model).to(device)
    for own in (there, model):
        if own is model:
            by_kernels(monkeypatch, request)
        optimizer = Madam(own.parameters(), momentum=0.9)
        for rows in ([3, 17, 3], [0, 3], [19]):
            optimizer.zero_grad()
            own(torch.tensor(rows, device=own.weight.device)).square().sum().backward()
            optimizer.step()
    assert torch.equal(there.weight.codes.cpu(), model.weight.codes)


def test_it_trains_saves_and_loads(device, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    convert_model(model, "lns8f5", per_channel=True)
    model.to(device)
    x, y = torch.randn(64, 8, device=device), torch.arange(64, device=device) % 4
    optimizer = Madam(model.parameters(), momentum=0.9)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    save_model(tmp_path / "w.safetensors", model)
    fresh = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).to(device)
    load_model(tmp_path / "w.safetensors", fresh)
    assert fresh[0].weight.device.type == device
    assert torch.equal(fresh(x), model(x))


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=CARD)])
def test_a_square_root_is_rounded_correctly(where):
    """Codes of both twins at gradients whose second moments are near where float32 roots round."""
    fmt = LNSFormat.parse("lns8f5")
    gradient = torch.logspace(-6, 6, 5000)
    codes = torch.full((5000,), 64, dtype=torch.uint8)
    moment = torch.linspace(0.01, 3.0, 5000).square()
    arrays = codes.numpy().copy(), gradient.numpy(), moment.numpy().copy()
    options = {"lr": 0.7, "step": 3, "rule": "paper", "rounding": "nearest"}
    madam_step(*arrays, fmt, **options)
    stepped = update_twin.madam_step(*(t.to(where) for t in (codes, gradient, moment)), fmt, **options)
    assert torch.equal(stepped.codes.cpu(), torch.from_numpy(arrays[0]))
    assert torch.equal(stepped.second_moment.cpu(), torch.from_numpy(arrays[1 + 1]))
