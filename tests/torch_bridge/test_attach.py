"""Madam attached to a model: each parameter steps within backward, as step() would have, and frees its gradient."""

import copy
import math
import weakref

import pytest
import torch
from test_madam import assert_same, bits, floats_left, network, reloaded, snapshot
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint

from lnsnum import lns8f5
from lnsnum.torch_bridge import Madam, StepReport, convert_model

torch.set_num_threads(1)


def tied() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    model[2].weight = model[0].weight
    convert_model(model, lns8f5)
    return model


def frozen() -> nn.Sequential:
    model = network()
    model[0].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    return model


MODELS = [network, floats_left, tied, frozen]


def loss_of(model, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(8, 12, generator=generator), torch.randint(3, (8,), generator=generator)
    return F.cross_entropy(model(x), y)


def train(model, optimizer, steps, schedule=None) -> list[StepReport]:
    """A loop that is the same attached or not."""
    reports = []
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        reports.append(optimizer.step_report())
    return reports


def state_of(model, optimizer) -> dict:
    return snapshot(model, optimizer) | {"groups": optimizer.state_dict()["param_groups"]}


def pair(model_of, groups=lambda model: model.parameters(), **arguments):
    """Two models with their optimizers, the second attached."""
    models = [model_of(), model_of()]
    optimizers = [Madam(groups(model), **arguments) for model in models]
    handles = optimizers[1].attach(models[1])
    return models, optimizers, handles


def assert_pair_is_same(models, optimizers) -> None:
    assert_same(state_of(models[1], optimizers[1]), state_of(models[0], optimizers[0]))


# ------------------------------------------------------------------------------------------------ the same as by step()


@pytest.mark.parametrize("model_of", MODELS)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"weight_decay": 0.5, "second_moment": "float32"}], ids=str)
def test_codes_state_and_reports_are_those_of_step(model_of, options):
    models, optimizers, _ = pair(model_of, lr=0.1, **options)
    reports = [train(model, optimizer, range(1, 6)) for model, optimizer in zip(models, optimizers, strict=True)]
    assert_pair_is_same(models, optimizers)
    assert reports[0] == reports[1]
    assert reports[0][-1].moved > 0


def test_random_bits_are_those_of_the_parameter_s_place():
    models, optimizers, _ = pair(network)
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, [1])
    streams = [[o.state[p]["stream"] for p in m.parameters()] for m, o in zip(models, optimizers, strict=True)]
    assert streams[1] == streams[0] == list(range(6))


def in_groups(model):
    return [
        {"params": model[3].parameters(), "lr": 0.02, "momentum": 0.5},
        {"params": model[0].parameters(), "rule": "paper", "rounding": "nearest", "seed": 4},
        {"params": model[1].parameters(), "weight_decay": 0.1},
    ]


def test_groups_have_their_own_arguments():
    models, optimizers, _ = pair(network, in_groups, lr=0.1)
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, range(1, 5))
    assert_pair_is_same(models, optimizers)


@pytest.mark.parametrize(
    "schedule_of",
    [lambda o: lr_scheduler.StepLR(o, 1, 0.5), lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=10)],
    ids=["StepLR", "OneCycleLR"],
)
def test_schedules_set_the_rate_of_the_next_backward(schedule_of):
    models, optimizers, _ = pair(network, in_groups, lr=0.1)
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, range(1, 5), schedule_of(optimizer))
    assert_pair_is_same(models, optimizers)


def test_step_has_nothing_to_do():
    model = network()
    optimizer = Madam(model.parameters(), lr=0.3)
    optimizer.attach(model)
    loss_of(model, 1).backward()
    before, report = snapshot(model, optimizer), optimizer.step_report()
    assert report.weights == sum(p.numel() for p in model.parameters())
    assert optimizer.step() is None
    assert_same(snapshot(model, optimizer), before)
    assert optimizer.step_report() == report


def test_a_closure_steps_in_its_backward():
    models, optimizers, _ = pair(network)
    for model, optimizer in zip(models, optimizers, strict=True):
        for step in range(1, 4):

            def closure(model=model, optimizer=optimizer, step=step):
                optimizer.zero_grad()
                loss = loss_of(model, step)
                loss.backward()
                return loss

            optimizer.step(closure)
    assert_pair_is_same(models, optimizers)


def test_what_the_attached_module_does_not_have_is_stepped_by_step():
    """It is a part of the model; the rest keeps its gradients until then."""
    models = [network(), network()]
    optimizers = [Madam(model.parameters(), lr=0.1) for model in models]
    optimizers[1].attach(models[1][0])
    for step in range(1, 4):
        for i, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            assert (model[0].weight.grad is None) == (i == 1)
            assert model[3].weight.grad is not None
            optimizer.step()
    assert_pair_is_same(models, optimizers)


def test_sparse_gradients():
    def embedding():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 12, sparse=True), nn.Linear(12, 3))
        convert_model(model, lns8f5)
        return model

    models, optimizers, _ = pair(embedding, lr=0.2, momentum=0.9)
    for model, optimizer in zip(models, optimizers, strict=True):
        for indices in ([1, 2, 2], [0, 8]):
            optimizer.zero_grad()
            model(torch.tensor(indices)).square().sum().backward()
            optimizer.step()
    assert_pair_is_same(models, optimizers)


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_gradient_checkpointing(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            x = x.requires_grad_()  # without it, reentrant checkpoints compute no gradients
            for block in (self.inner[:3], self.inner[3:]):
                x = checkpoint(block, x, use_reentrant=reentrant)
            return x

    def blocks():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 3))
        convert_model(model, lns8f5)
        return model

    models, optimizers, _ = pair(blocks, lr=0.1)
    wrapped = Checkpointed(models[1])
    for step in range(1, 5):
        for model, optimizer in zip((models[0], wrapped), optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            optimizer.step()
    assert_pair_is_same(models, optimizers)


# -------------------------------------------------------------------------------------------------------- the gradients


def test_no_more_than_one_gradient_is_alive_at_a_time():
    model = network()
    seen, most = [], []

    def arrived(p):
        seen.append(weakref.ref(p.grad))
        most.append(sum(r() is not None for r in seen))
        assert sum(q.grad is not None for q in model.parameters()) == 1

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(arrived)  # torch calls hooks in the order that they were registered
    optimizer = Madam(model.parameters())
    optimizer.attach(model)
    for step in (1, 2):
        loss_of(model, step).backward()
        assert all(p.grad is None for p in model.parameters())
    assert len(seen) == 12
    assert max(most) == 1
    assert all(r() is None for r in seen)


def test_the_report_is_of_the_last_backward():
    """A parameter without a gradient this time is not in it."""
    models, optimizers, _ = pair(lambda: nn.ModuleList([network(), network(seed=1)]), lr=0.1)
    reports = []
    for model, optimizer in zip(models, optimizers, strict=True):
        for i in (0, 1, 1):
            optimizer.zero_grad()
            loss_of(model[i], 1).backward()
            optimizer.step()
            reports.append(optimizer.step_report())
    assert [r.weights for r in reports] == [sum(p.numel() for p in network().parameters())] * 6
    assert reports[:3] == reports[3:]
    assert_pair_is_same(models, optimizers)


def test_a_gradient_not_finite_raises_from_backward_and_does_not_move_its_parameter():
    model = network()
    optimizer = Madam(model.parameters(), lr=0.3, non_finite="raise")
    optimizer.attach(model)
    before = bits(model[0].weight)
    with pytest.raises(FloatingPointError, match="elements of a gradient of shape"):
        (loss_of(model, 1) * math.inf).backward()
    assert torch.equal(model[0].weight.codes, before)


def test_weights_are_seen_new_by_the_next_forward_in_one_autocast_region():
    model = network().eval()
    Madam(model.parameters(), lr=0.3).attach(model)
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        model(x).square().mean().backward()
        within = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), within)


# -------------------------------------------------------------------------------------------- refused, removed, resumed


class DistributedDataParallel(nn.Module):
    """By its name, and by that of a class that it is made of."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class Wrapped(DistributedDataParallel):
    pass


@pytest.mark.parametrize("wrap", [DistributedDataParallel, Wrapped, lambda m: nn.Sequential(Wrapped(m))])
def test_models_that_are_spread_over_processes_are_refused(wrap):
    model = wrap(network())
    optimizer = Madam(model.parameters())
    with pytest.raises(TypeError, match="the model is a DistributedDataParallel: a step within backward would run"):
        optimizer.attach(model)
    train_by_step(model, optimizer)


def train_by_step(model, optimizer) -> None:
    """Nothing is attached: gradients stay."""
    inner = next(m for m in model.modules() if isinstance(m, nn.Sequential) and len(m) == 4)
    optimizer.zero_grad()
    loss_of(inner, 1).backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="gloo")
def test_a_real_one_is_refused(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(network(None))
        with pytest.raises(TypeError, match="the model is a DistributedDataParallel"):
            Madam(model.parameters()).attach(model)
    finally:
        torch.distributed.destroy_process_group()


def test_what_is_no_module_or_not_in_the_optimizer_is_refused():
    model = network()
    optimizer = Madam(list(model.parameters())[:3])
    with pytest.raises(TypeError, match=r"model is a list, not a torch\.nn\.Module"):
        optimizer.attach(list(model.parameters()))
    with pytest.raises(ValueError, match=r"parameter '1\.bias' of the model is not in this optimizer"):
        optimizer.attach(model)
    model[1].bias.requires_grad_(False)
    for p in model[3].parameters():
        p.requires_grad_(False)
    optimizer.attach(model)


def test_attached_twice_is_refused():
    model = network()
    optimizer = Madam(model.parameters())
    optimizer.attach(model)
    with pytest.raises(ValueError, match="attached already: remove"):
        optimizer.attach(model)
    loss_of(model, 1).backward()
    assert {int(optimizer.state[p]["step"]) for p in model.parameters()} == {1}


def test_removed_hooks_end_it_and_it_may_be_attached_again():
    models, optimizers, handles = pair(network, lr=0.1)
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, [1, 2])
    for handle in handles:
        handle.remove()
    for model in models:
        loss_of(model, 3).backward()
    assert all(p.grad is not None for p in models[1].parameters())
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, [3, 4])
    assert_pair_is_same(models, optimizers)
    optimizers[1].attach(models[1])
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, [5, 6])
    assert all(p.grad is None for p in models[1].parameters())
    assert_pair_is_same(models, optimizers)


def test_after_the_hooks_are_removed_reports_are_of_the_last_step():
    model = network()
    optimizer = Madam(model.parameters())
    handles = optimizer.attach(model)
    train(model, optimizer, [1])
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert optimizer.step_report() == StepReport(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


def test_a_state_is_saved_and_loaded_while_attached():
    """Into the optimizer that gave it: rates that a schedule sets afterwards still count, and steps are not doubled."""
    models, optimizers, _ = pair(network, lr=0.1)
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, [1, 2])
        state = reloaded(optimizer.state_dict(), "torch.save")
        optimizer.load_state_dict(state)
        optimizer.param_groups[0]["lr"] = 0.3
        train(model, optimizer, [3, 4])
    assert_pair_is_same(models, optimizers)
    with pytest.raises(ValueError, match="attached already"):
        optimizers[1].attach(models[1])


@pytest.mark.parametrize("attached", [False, True])
def test_a_run_is_resumed_attached_or_not(attached):
    models, optimizers, _ = pair(network, lr=0.1, momentum=0.9)
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, [1, 2])
    other = copy_of(models[1])
    fresh = Madam(other.parameters())
    if attached:
        fresh.attach(other)
    fresh.load_state_dict(reloaded(optimizers[1].state_dict(), "torch.save"))
    train(other, fresh, [3, 4])
    train(models[0], optimizers[0], [3, 4])
    assert_same(state_of(other, fresh), state_of(models[0], optimizers[0]))


def copy_of(model):
    other = network(seed=9)
    other.load_state_dict(model.state_dict())
    return other


def test_a_copy_of_model_and_optimizer_is_its_own():
    """Training the copy moves the copy, and the first is as it was."""
    model = network()
    optimizer = Madam(model.parameters(), lr=0.1)
    optimizer.attach(model)
    train(model, optimizer, [1])
    before = snapshot(model, optimizer)
    other, copied = copy.deepcopy((model, optimizer))
    train(other, copied, [2])
    assert_same(snapshot(model, optimizer), before)
    train(model, optimizer, [2])
    assert_same(snapshot(other, copied), snapshot(model, optimizer))


def test_what_a_schedule_breaks_is_refused_before_the_parameter_moves():
    model = network()
    optimizer = Madam(model.parameters())
    optimizer.attach(model)
    before = snapshot(model, optimizer)["weights"]
    optimizer.param_groups[0]["lr"] = math.nan
    with pytest.raises(ValueError, match="lr=nan is out of range"):
        loss_of(model, 1).backward()
    assert_same(snapshot(model, optimizer)["weights"], before)


def test_a_parameter_that_is_unfrozen_later_steps_too_and_is_freed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    convert_model(model, "lns8f5")
    model[0].weight.requires_grad_(False)
    optimizer = Madam(model.parameters())
    optimizer.attach(model)
    model[0].weight.requires_grad_(True)
    for step in range(1, 4):
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        assert [p.grad for p in model.parameters()] == [None] * 4
        assert [int(optimizer.state[p]["step"]) for p in model.parameters()] == [step] * 4
    assert optimizer.state[model[0].weight]["stream"] == 0
