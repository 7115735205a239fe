"""Weights, Madam and products where Triton's kernels run, against the same on the CPU: codes, states and reports."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, use_weight_only, weight_only_linear
from lnsnum.torch_bridge.kernels import backends, codes_triton, codes_twin, products_triton, update_triton, update_twin
from lnsnum.torch_bridge.kernels import codes as bridge_codes

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KERNELS = bridge_codes.is_on_cpu


@pytest.fixture
def on_cpu(monkeypatch):
    """Call it, and tensors on the CPU go to Numba's kernels again."""
    return lambda: monkeypatch.setattr(bridge_codes, "is_on_cpu", KERNELS)


@pytest.fixture
def no_twin(monkeypatch):
    """Call it, and nothing may be left to the twins."""

    def refuse(*args, **kwargs):
        raise AssertionError("left to torch's operations")

    def none_left():
        monkeypatch.setattr(codes_twin, "decode", refuse)
        monkeypatch.setattr(codes_twin, "encode", refuse)
        monkeypatch.setattr(update_twin, "apply_step", refuse)

    return none_left


OPTIONS = {
    "default": {},
    "all": {"momentum": 0.9, "weight_decay": 0.1, "zero": "keep", "crossover": 0.5, "cap": 0.05},
    "paper, float32": {"rule": "paper", "second_moment": "float32", "momentum": 0.5, "rounding": "nearest", "lr": 0.5},
}


def stepped(model, optimizer, gradients):
    for each in gradients:
        for p, g in zip(model.parameters(), each, strict=True):
            p.grad = g.to(p.device)
        optimizer.step()


def same_states(first, second, a, b):
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p.codes.cpu(), q.codes.cpu())
        assert torch.equal(torch.as_tensor(p.log_offset).cpu(), torch.as_tensor(q.log_offset).cpu())
        for name, value in second.state[q].items():
            found = torch.as_tensor(first.state[p][name]).cpu()
            assert torch.equal(found, torch.as_tensor(value).cpu()), name


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("how", [{}, {"per_channel": True}, {"group_size": 16}], ids=str)
def test_steps_and_reports_are_those_of_the_cpu(card, on_cpu, no_twin, options, how):
    """Gradients that outgrow the exponent of the moments, some not finite; all weights go in one call."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 20), nn.Linear(32, 7, bias=False))
    convert_model(model, "lns8f5", **how)
    there = copy.deepcopy(model).to(card)
    first, second = Madam(there.parameters(), **options), Madam(model.parameters(), **options)
    gradients = [[torch.randn(p.shape) * 10.0**step for p in model.parameters()] for step in range(4)]
    gradients[2][0][0, :3] = torch.tensor([float("nan"), float("inf"), 0.0])
    no_twin()
    stepped(there, first, gradients)
    on_cpu()
    stepped(model, second, gradients)
    assert first.step_report() == second.step_report()
    same_states(first, second, there, model)


def test_all_weights_of_a_group_step_in_one_call(card, monkeypatch):
    calls = []
    run = update_triton.step_list
    monkeypatch.setattr(update_triton, "step_list", lambda ws, *rest: calls.append(len(ws)) or run(ws, *rest))
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3))).to(card)
    convert_model(model, "lns8f5")
    optimizer = Madam(model.parameters())
    stepped(model, optimizer, [[torch.ones(p.shape) for p in model.parameters()]])
    assert calls == [6]


def test_ceilings_follow_as_on_the_cpu(card, on_cpu):
    torch.manual_seed(0)
    model = nn.Linear(12, 6, bias=False)
    convert_model(model, "lns8f4")
    there = copy.deepcopy(model).to(card)
    gradients = [[torch.randn(6, 12) - 0.5] for _ in range(20)]
    first, second = Madam(there.parameters(), lr=0.15), Madam(model.parameters(), lr=0.15)
    stepped(there, first, gradients)
    on_cpu()
    stepped(model, second, gradients)
    assert first.step_report().grown == second.step_report().grown == 1
    same_states(first, second, there, model)


def test_sparse_rows_and_backward_hooks(card, on_cpu):
    torch.manual_seed(0)
    model = nn.Embedding(20, 6, sparse=True)
    convert_model(model, "lns8f5", per_channel=True)
    there = copy.deepcopy(model).to(card)
    optimizers = {}
    for own in (there, model):
        if own is model:
            on_cpu()
        optimizers[own] = Madam(own.parameters(), momentum=0.9)
        optimizers[own].attach(own)
        for rows in ([3, 17, 3], [0, 3], [19]):
            own(torch.tensor(rows, device=own.weight.device)).square().sum().backward()
            optimizers[own].step()
    same_states(optimizers[there], optimizers[model], there, model)


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
def test_fully_shard_steps_all_shards_in_one_launch(card, on_cpu, monkeypatch):
    """Gathered as bytes, decoded, stepped, and their exponents raised as one process does it without fully_shard."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 12), nn.Linear(12, 3))
    convert_model(model, "lns8f5", per_channel=True)
    there, x = copy.deepcopy(model).to(card), torch.randn(8, 16)
    calls = []
    run = update_triton.step_list
    monkeypatch.setattr(update_triton, "step_list", lambda ws, *rest: calls.append(len(ws)) or run(ws, *rest))
    gradients = [[torch.randn(p.shape) * 1024.0**step for p in model.parameters()] for step in range(4)]
    backend, kind = ("gloo", "cpu") if INTERPRETED else ("nccl", "cuda")
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        fully_shard(there, mesh=init_device_mesh(kind, (1,)))
        first, second = Madam(there.parameters(), momentum=0.9), Madam(model.parameters(), momentum=0.9)
        for each in gradients:
            for own, optimizer in ((there, first), (model, second)):
                if own is model:
                    on_cpu()
                elif INTERPRETED:
                    monkeypatch.setattr(bridge_codes, "is_on_cpu", lambda tensor: False)
                own(x.to(card if own is there else "cpu")).sum().backward()
                # those of a card are summed in an order of its own
                for p, gradient in zip(own.parameters(), each, strict=True):
                    (p.grad.to_local() if own is there else p.grad).copy_(gradient)
                optimizer.step()
                optimizer.zero_grad()
            for p, q in zip(there.parameters(), model.parameters(), strict=True):
                assert torch.equal(p.to_local().codes.cpu(), q.codes)
                assert int(first.state[p]["exponent"]) == int(second.state[q]["exponent"])
    finally:
        dist.destroy_process_group()
    assert calls == [4] * 4


def test_a_run_goes_on_on_another_device(card, on_cpu, monkeypatch):
    """Two steps here, two there, two here again: the codes of six steps on the CPU."""
    torch.manual_seed(0)
    model = nn.Linear(16, 5)
    convert_model(model, "lns8f5")
    gradients = [[torch.randn(p.shape) for p in model.parameters()] for _ in range(6)]
    moved = copy.deepcopy(model)
    on_cpu()
    whole = Madam(model.parameters(), momentum=0.5)
    stepped(model, whole, gradients)
    state = None
    for part, device in ((0, "cpu"), (2, card), (4, "cpu")):
        if INTERPRETED:
            is_there = device is card and part == 2
            monkeypatch.setattr(bridge_codes, "is_on_cpu", (lambda tensor: False) if is_there else KERNELS)
        moved = moved.to(device)
        optimizer = Madam(moved.parameters(), momentum=0.5)
        if state is not None:
            optimizer.load_state_dict(state)
        stepped(moved, optimizer, gradients[part : part + 2])
        state = copy.deepcopy(optimizer.state_dict())
    same_states(optimizer, whole, moved, model)


@pytest.mark.parametrize("shape", [(64, 24), (24, 64)])
def test_products_of_weights(card, on_cpu, shape):
    torch.manual_seed(0)
    x, weight = torch.randn(3, shape[1]), LNSWeight.from_float(torch.randn(shape), "lns8f5")
    bias = torch.randn(shape[0])
    model = nn.Linear(shape[1], shape[0])
    convert_model(model, "lns8f5")
    there = copy.deepcopy(model).to(card)
    with torch.inference_mode():
        found = weight_only_linear(x.to(card), weight.to(card), bias.to(card)).cpu()
        report = use_weight_only(there)
        by_model, by_columns = there(x.to(card)).cpu(), (bias.to(card) @ there.weight.detach()).cpu()
        on_cpu()
        use_weight_only(model)
        assert torch.equal(found, weight_only_linear(x, weight, bias))
        assert torch.equal(by_model, model(x))
        assert torch.equal(by_columns, bias @ model.weight.detach())
    assert report.covered == ("weight",)


def test_channels_last_and_views(card, on_cpu, no_twin):
    codes = torch.arange(2 * 3 * 4 * 5).to(torch.uint8).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    offsets = torch.tensor([3, -2])[:, None, None, None]
    no_twin()
    weight = LNSWeight(codes.to(card), lns8f5, offsets)
    found = weight.to_float()
    part = LNSWeight(codes[:, :, ::2].to(card), lns8f5, 5).to_float()
    on_cpu()
    expected = LNSWeight(codes, lns8f5, offsets).to_float()
    assert found.stride() == expected.stride()
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(part.cpu(), LNSWeight(codes[:, :, ::2], lns8f5, 5).to_float())


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"momentum": 0.9, "weight_decay": 0.1}, {"group_size": 16}),
        ({"rule": "paper", "second_moment": "float32"}, {"per_channel": True}),
    ],
    ids=["ceilings that follow, groups that leave a rest", "the paper's rule"],
)
def test_a_compiled_step_launches_the_kernel(card, on_cpu, monkeypatch, options, how):
    """As one operator of a graph without breaks; its bits are those of the CPU's kernel."""
    torch.manual_seed(0)
    model = nn.Linear(40, 5)
    convert_model(model, "lns8f5", **how)
    there = copy.deepcopy(model).to(card)
    gradients = [[torch.randn(p.shape) for p in model.parameters()] for _ in range(2)]
    calls = []
    run = update_triton.step_by_row
    monkeypatch.setattr(update_triton, "step_by_row", lambda *args: calls.append(0) or run(*args))
    torch.compiler.reset()
    first = Madam(there.parameters(), lr=torch.tensor(0.05, device=card), **options)
    first.make_state(for_graph=True)
    compiled = torch.compile(first.step, fullgraph=True, dynamic=False, backend="aot_eager")
    for each in gradients:
        for p, g in zip(there.parameters(), each, strict=True):
            p.grad = g.to(p.device)
        compiled()
    torch.compiler.reset()
    assert len(calls) == 4
    on_cpu()
    second = Madam(model.parameters(), lr=torch.tensor(0.05), **options)
    stepped(model, second, gradients)
    assert first.step_report() == second.step_report()
    for p, q in zip(there.parameters(), model.parameters(), strict=True):
        assert torch.equal(p.codes.cpu(), q.codes)
        for name in ("second_moment", "exponent", "beta_product", "step"):
            assert first.state[p][name].device == p.codes.device
            assert torch.equal(first.state[p][name].cpu(), second.state[q][name]), name


def test_errors_are_those_of_the_cpu(card, on_cpu):
    """A sentence for a sentence."""
    messages = []
    for device in (card, "cpu"):
        if device == "cpu":
            on_cpu()
        own = []
        model = nn.Linear(4, 3)
        convert_model(model, "lns8f5")
        model.to(device)
        weight = model.weight
        for run in (
            lambda weight=weight: Madam([weight], lr=-1.0),
            lambda device=device: LNSWeight(torch.zeros(3, dtype=torch.int32, device=device), "lns17f5"),
            lambda weight=weight: Madam([weight], zero="leave"),
        ):
            with pytest.raises((ValueError, TypeError, NotImplementedError)) as raised:
                run()
            own.append(str(raised.value))
        messages.append(own)
    assert messages[0] == messages[1]


def test_the_table_is_what_runs(card):
    """Where all is right, nothing is missing."""
    assert backends.missing_on(torch.device(card)) is None
    assert backends.is_on_card(torch.zeros(3, device=card))
    assert codes_triton.decode is not codes_twin.decode
    assert products_triton.MOST_VECTORS == 16
