"""Many weights in one launch: the bits of the steps one by one, and whatever a user changes between two steps is seen.

The steps one by one, of `lnsnum.torch_bridge.step`, are what the other tests hold against the oracle.
"""

import copy
from collections.abc import Callable

import numba
import pytest
import torch
from torch import nn

from lnsnum.torch_bridge import LNSWeight, Madam, convert_model
from lnsnum.torch_bridge.launch import Launch

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="a launch is compiled, or there is none")

OPTIONS = [
    {},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"second_moment": "float32"},
    {"second_moment": "float32", "momentum": 0.5},
    {"zero": "keep", "crossover": 0.3, "cap": 0.01, "g_bound": 1.0},
    {"rule": "paper"},
    {"rule": "paper", "rounding": "stochastic_value", "zero": "leave", "weight_decay": 1.0},
    {"rule": "paper", "rounding": "nearest", "momentum": 0.9},
    {"ceiling": "fixed", "seed": 2**62 + 5, "beta": 0.9},
]


def network(fmt="lns8f5", **conversion):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Embedding(11, 6), nn.Linear(6, 40), nn.LayerNorm(40), nn.Conv1d(1, 3, 5), nn.Linear(30, 50), nn.Linear(4, 1)
    )
    convert_model(layers, fmt, **conversion)
    return layers


def set_gradients(model, step, scale=0.01):
    """Some are missing in some steps, some are not finite, some are zero."""
    generator = torch.Generator().manual_seed(step)
    for k, p in enumerate(model.parameters()):
        g = torch.randn(p.shape, generator=generator) * scale * 4.0 ** (k - 3)
        g.view(-1)[:: 7 + k] = 0.0
        if step % 3 == 0:
            g.view(-1)[0] = float("nan")
        p.grad = None if (step + k) % 5 == 0 else g


def one_by_one(monkeypatch):
    monkeypatch.setattr(Launch, "serves", staticmethod(lambda group: False))


def check_equal(one, other, optimizer, same):
    """Codes, scales and every entry of the state."""
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.codes, q.codes)
        assert torch.equal(torch.as_tensor(p.log_offset), torch.as_tensor(q.log_offset))
        mine, others = optimizer.state.get(p, {}), same.state.get(q, {})
        assert mine.keys() == others.keys()
        for name in mine:
            assert torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(others[name])), name
    assert optimizer.step_report() == same.step_report()


def compare(monkeypatch, make, options, steps=45, between: Callable[[int, nn.Module, Madam], None] | None = None):
    """Two models, the one launched, the other not, and all equal after every step."""
    one, other = make(), make()
    optimizer, same = Madam(one.parameters(), **options), Madam(other.parameters(), **options)
    launched = 0
    for step in range(1, steps + 1):
        for model, by in ((one, optimizer), (other, same)):
            set_gradients(model, step)
            if between is not None:
                between(step, model, by)
        optimizer.step()
        launched = max(launched, *(len(launch.places) for launch in optimizer._launches.values()))
        with monkeypatch.context() as patch:
            one_by_one(patch)
            same.step()
        check_equal(one, other, optimizer, same)
    assert not same._launches
    return launched


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("fmt", ["lns8f5", "lns16f10"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_launch_makes_the_steps_one_by_one(monkeypatch, options, fmt, per_channel):
    launched = compare(monkeypatch, lambda: network(fmt, per_channel=per_channel), {"lr": 0.3, **options})
    assert launched == len(list(network().parameters()))


def test_scales_that_grow_and_exponents_that_are_raised(monkeypatch):
    """A large rate drives codes to their ceilings, and gradients grow by 2^14 in step 30."""

    def between(step, model, by):
        if step >= 30:
            for p in model.parameters():
                if p.grad is not None:
                    p.grad *= 2.0**14
        by.param_groups[0]["lr"] = 1.0 if step < 25 else 0.05

    grown = []
    exponents = set()

    def watch(step, model, by):
        between(step, model, by)
        grown.append(by.step_report().grown)
        exponents.update(int(state["exponent"]) for state in by.state.values())

    compare(monkeypatch, network, {"lr": 1.0, "momentum": 0.9}, steps=50, between=watch)
    assert sum(grown) > 0
    assert max(exponents) - min(exponents) > 14


def rescale(step, model, by):
    if step == 7:
        model[1].weight.rescale_(model[1].weight.log_offset + 9)


def write_anew(step, model, by):
    if step in (5, 21):
        torch.manual_seed(step)  # by which it is drawn, and encoded
        with torch.no_grad():
            model[4].weight.normal_()


def change_options(step, model, by):
    by.param_groups[0]["lr"] = 0.1 / step
    if step == 9:
        by.param_groups[0]["crossover"] = 0.1
    by.param_groups[0]["momentum"] = 0.9 if 12 <= step < 30 else 0.0


def change_rule(step, model, by):
    by.param_groups[0]["rule"] = "paper" if step % 2 else "hypentropy"
    by.param_groups[0]["lr"] = torch.tensor(0.1)


def load_own_state(step, model, by):
    if step == 11:
        by.load_state_dict(copy.deepcopy(by.state_dict()))


def replace_entries(step, model, by):
    if step == 11:
        for state in by.state.values():
            for name, value in list(state.items()):
                if isinstance(value, torch.Tensor):
                    state[name] = value.clone()


def write_entries(step, model, by):
    """What is read once, written to in place, as a checkpoint is loaded into the tensors that there are."""
    if step in (6, 11):
        for state in by.state.values():
            state["r"].mul_(0.5)
            state["units"].mul_(2.0)
    if step == 16:
        for state in by.state.values():
            state["stream"] += 1000


def other_dtypes(step, model, by):
    """As a state may have them that came from elsewhere."""
    if step == 11:
        for state in by.state.values():
            state["step"] = state["step"].to(torch.int32)
            state["exponent"] = state["exponent"].to(torch.int64)


def other_strides(step, model, by):
    if step == 11 and model[1].weight in by.state:
        state = by.state[model[1].weight]
        state["second_moment"] = state["second_moment"].t().contiguous().t()


def move_state(step, model, by):
    """To other memory, under the same tensors."""
    if step == 11:
        for state in by.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    value.share_memory_()


def forget_state(step, model, by):
    if step == 11:
        by.state.pop(model[1].weight, None)


def move_codes(step, model, by):
    if step == 11:
        model[0].weight.share_memory_()


def other_gradients(step, model, by):
    """Of other strides, sparse, and then plain again."""
    if 5 <= step < 9 and model[1].weight.grad is not None:
        model[1].weight.grad = model[1].weight.grad.t().contiguous().t()
    if step % 4 == 1:
        model[0].weight.grad = torch.sparse_coo_tensor(
            torch.tensor([[step % 11, 3]]), torch.ones(2, 6), (11, 6), check_invariants=True
        )


def freeze(step, model, by):
    if 10 <= step < 20:
        model[1].weight.grad = None
    model[4].weight.requires_grad_(step > 10)
    if step <= 10:
        model[4].weight.grad = None


def pickled(step, model, by):
    if step == 11:
        by.__setstate__(copy.deepcopy(by).__getstate__() | {"state": by.state, "param_groups": by.param_groups})


@pytest.mark.parametrize(
    "between",
    [
        rescale, write_anew, change_options, change_rule, load_own_state, replace_entries, write_entries, other_dtypes,
        other_strides, move_state, forget_state, move_codes, other_gradients, freeze, pickled,
    ],
)  # fmt: skip
@pytest.mark.parametrize("per_channel", [False, True])
def test_what_changes_between_two_steps_is_seen(monkeypatch, between, per_channel):
    compare(monkeypatch, lambda: network(per_channel=per_channel), {"lr": 0.1}, steps=26, between=between)


def test_offsets_of_channels_that_are_written_to(monkeypatch):
    def between(step, model, by):
        if step == 8:
            model[1].weight.log_offset.add_(3)

    compare(monkeypatch, lambda: network(per_channel=True), {"lr": 0.1}, steps=12, between=between)


def test_what_cannot_be_launched_steps_by_itself(monkeypatch):
    """Floats, weights whose codes are not contiguous, and groups that look at their gradients first."""

    def make():
        model = network()
        weight = model[1].weight
        codes = torch.empty(6, 40, dtype=torch.uint8).t().copy_(weight.codes)
        model[1].weight = nn.Parameter(weight.like(codes))
        model[2] = nn.LayerNorm(40)
        return model

    one = make()
    optimizer = Madam(one.parameters())
    set_gradients(one, 1)
    optimizer.step()
    set_gradients(one, 2)
    optimizer.step()
    assert len(optimizer._launches[0].places) == len(list(one.parameters())) - 3
    optimizer = Madam(network().parameters(), non_finite="raise")
    optimizer.step()
    assert not optimizer._launches

    def floats_alone(step, model, by):
        with torch.no_grad():
            model[2].weight.clamp_(-1, 1)

    model, other = make(), make()
    by, same = Madam(model.parameters()), Madam(other.parameters())
    for step in range(1, 8):
        set_gradients(model, step)
        set_gradients(other, step)
        by.step()
        with monkeypatch.context() as patch:
            one_by_one(patch)
            same.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.codes, q.codes) if isinstance(p, LNSWeight) else torch.equal(p, q)


def test_groups_have_launches_of_their_own(monkeypatch):
    def groups(model):
        return [{"params": list(model[0].parameters()), "lr": 0.5}, {"params": list(model[1:].parameters())}]

    one, other = network(), network()
    optimizer, same = Madam(groups(one)), Madam(groups(other))
    for step in range(1, 8):
        set_gradients(one, step)
        set_gradients(other, step)
        optimizer.step()
        with monkeypatch.context() as patch:
            one_by_one(patch)
            same.step()
        check_equal(one, other, optimizer, same)
    assert sorted(optimizer._launches) == [0, 1]


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_attached_to_backward(monkeypatch, options):
    """Each parameter is launched by itself, as soon as its gradient is there."""

    def run(launches):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(9, 30), nn.ReLU(), nn.Linear(30, 4))
        convert_model(model, "lns8f5")
        optimizer = Madam(model.parameters(), **options)
        with monkeypatch.context() as patch:
            if not launches:
                one_by_one(patch)
            optimizer.attach(model)
            for step in range(25):
                model(torch.randn(5, 9, generator=torch.Generator().manual_seed(step))).square().mean().backward()
                optimizer.step()
        assert len(optimizer._launches) == (4 if launches else 0)
        return model, optimizer

    (one, optimizer), (other, same) = run(True), run(False)
    check_equal(one, other, optimizer, same)


def test_any_number_of_threads():
    """Large weights and small ones between them: a stretch of elements for a thread begins and ends anywhere."""

    def run(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(0)
            model = nn.ModuleList([nn.Linear(700, 700), nn.Linear(3, 2), nn.Linear(301, 901), nn.LayerNorm(5)])
            convert_model(model, "lns8f5")
            optimizer = Madam(model.parameters(), momentum=0.9)
            for step in range(1, 4):
                set_gradients(model, step)
                optimizer.step()
        finally:
            torch.set_num_threads(before)
        return model, optimizer

    (one, optimizer), (other, same) = run(1), run(3)
    check_equal(one, other, optimizer, same)


def test_the_versions_of_weights_that_step_go_up():
    """By which autograd knows that what it saved has changed; those that do not step keep theirs."""
    model = network()
    optimizer = Madam(model.parameters())
    for step in (1, 2, 3):
        set_gradients(model, step)
        before = [p._version for p in model.parameters()]
        optimizer.step()
        for p, version in zip(model.parameters(), before, strict=True):
            assert p._version == version + (p.grad is not None)


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_whose_sign_torch_keeps_apart_from_their_memory(sparse):
    def stepped(negated):
        model = network()[0]
        g = negated(torch.randn(11, 6, generator=torch.Generator().manual_seed(1)))
        model.weight.grad = torch.sparse_coo_tensor(torch.arange(11)[None], g, check_invariants=True) if sparse else g
        Madam(model.parameters(), lr=0.3).step()
        return model.weight.codes

    assert torch.equal(stepped(torch._neg_view), stepped(torch.neg))
