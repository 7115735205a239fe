"""Madam in training loops: accumulation, clipping, scaling, autocast, and what autograd is told of a step."""

import math

import pytest
import torch
from test_madam import assert_same, bits, floats_left, network, set_gradients, shadows_of, snapshot
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model

torch.set_num_threads(1)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 12, generator=generator), torch.randint(3, (8,), generator=generator)


def loss_of(model, step: int) -> torch.Tensor:
    x, y = batch(step)
    return F.cross_entropy(model(x), y)


def check_step(model, optimizer, shadows, **arguments) -> None:
    """One step by the gradients that are there, as madam_step makes it."""
    optimizer.step()
    for shadow, p in zip(shadows, model.parameters(), strict=True):
        shadow.step(p.grad, 0.05, **arguments)
        shadow.check(p, optimizer.state[p])


@pytest.mark.parametrize("set_to_none", [True, False])
def test_accumulated_gradients_are_one_step(set_to_none):
    model, twin = network(), decode_model(network())
    optimizer, shadows = Madam(model.parameters()), shadows_of(model)
    for step in range(1, 4):
        optimizer.zero_grad(set_to_none=set_to_none)
        for part in range(3):
            loss_of(model, 10 * step + part).backward()
        if step == 1:
            for part in range(3):
                loss_of(twin, 10 + part).backward()
            grads = [(p.grad, q.grad) for p, q in zip(model.parameters(), twin.parameters(), strict=True)]
            assert all(torch.equal(a, b) for a, b in grads)
        check_step(model, optimizer, shadows)


@pytest.mark.parametrize("clip", [lambda p: clip_grad_norm_(p, 0.1), lambda p: clip_grad_value_(p, 0.01)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_clipped_gradients(clip, momentum):
    model, twin = network(), decode_model(network())
    optimizer, shadows = Madam(model.parameters(), momentum=momentum), shadows_of(model)
    for step in range(1, 4):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        if step == 1:
            loss_of(twin, step).backward()
            clip(twin.parameters())
        clip(model.parameters())
        if step == 1:
            grads = [(p.grad, q.grad) for p, q in zip(model.parameters(), twin.parameters(), strict=True)]
            assert all(torch.equal(a, b) for a, b in grads)
        check_step(model, optimizer, shadows, momentum=momentum)
    if momentum == 0.0:
        assert max(float(p.grad.abs().max()) for p in model.parameters()) <= 0.1 + 1e-6


def test_a_scaler_unscales_and_skips_the_step_of_an_overflow():
    model = network()
    optimizer, shadows = Madam(model.parameters()), shadows_of(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=100)
    for step in range(1, 6):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step == 3:
            model[3].weight.grad[1, 1] = math.inf
        scaler.unscale_(optimizer)
        before, scale = snapshot(model, optimizer), scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if step == 3:
            assert_same(snapshot(model, optimizer), before)
            assert scaler.get_scale() == scale / 2
            continue
        assert scaler.get_scale() == scale
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.step(p.grad, 0.05)
            shadow.check(p, optimizer.state[p])


def test_a_scaler_changes_no_code_where_its_scale_is_a_power_of_two():
    results = []
    for scaled in (False, True):
        model = network()
        optimizer = Madam(model.parameters(), momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**8, growth_interval=2)
        for step in range(1, 6):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, step)).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(snapshot(model, optimizer))
    assert_same(results[1], results[0])


@pytest.mark.parametrize("model_of", [network, floats_left], ids=["codes", "mixed"])
def test_a_second_pass_in_one_autocast_region_sees_the_new_weights(model_of):
    """Autocast keeps the weights that it has cast until its region ends."""
    model = model_of().eval()
    optimizer = Madam(model.parameters(), lr=0.3)
    x, y = batch(1)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        F.cross_entropy(before, y).backward()
        optimizer.step()
        within = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        after = model(x)
    assert torch.equal(within, after)
    assert not torch.equal(before, after)


def test_training_under_autocast_is_that_of_the_decoded_model():
    """Whole regions: gradients of each step are those of floats with the same values."""
    model = network()
    optimizer, shadows = Madam(model.parameters(), lr=0.05), shadows_of(model)
    for step in range(1, 4):
        optimizer.zero_grad()
        twin = decode_model(copy_of(model))
        for own in (model, twin):
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(own, step)
            loss.backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
        check_step(model, optimizer, shadows)


def copy_of(model):
    other = network()
    other.load_state_dict(model.state_dict())
    return other


# -------------------------------------------------------------------------------------------- what autograd is told


@pytest.mark.parametrize("model_of", [network, floats_left], ids=["codes", "mixed"])
def test_a_step_between_forward_and_backward_makes_backward_raise(model_of):
    model = model_of()
    optimizer = Madam(model.parameters())
    loss = loss_of(model, 1)
    set_gradients(model, 1)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_step_counts_as_one_write_or_more_to_each_parameter_with_a_gradient_and_to_no_other():
    model = network()
    optimizer = Madam(model.parameters())
    set_gradients(model, 1)
    model[0].bias.grad = None
    versions = [p._version for p in model.parameters()]
    optimizer.step()
    written = [p._version > v for p, v in zip(model.parameters(), versions, strict=True)]
    assert written == [True, False, True, True, True, True]


def test_a_step_within_a_graph_leaves_no_graph():
    model = network()
    optimizer = Madam(model.parameters(), momentum=0.9)
    with torch.enable_grad():
        loss_of(model, 1).backward(create_graph=False)
        optimizer.step()
    for p in model.parameters():
        assert p.is_leaf
        assert p.requires_grad
        assert not any(v.requires_grad for v in optimizer.state[p].values() if isinstance(v, torch.Tensor))


def test_aliases_of_a_weight_see_the_step():
    """Tied weights are one parameter; detached ones share the codes."""
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    convert_model(model, lns8f5)
    assert model[2].weight is model[0].weight
    alias = model[0].weight.detach()
    optimizer = Madam(model.parameters(), lr=0.3)
    shadows = shadows_of(model)
    model(torch.ones(2, 6)).square().sum().backward()
    before = bits(alias)
    optimizer.step()
    for shadow, p in zip(shadows, model.parameters(), strict=True):
        shadow.step(p.grad, 0.3)
        shadow.check(p, optimizer.state[p])
    assert isinstance(alias, LNSWeight)
    assert torch.equal(alias.codes, model[2].weight.codes)
    assert not torch.equal(alias.codes, before)


def test_gradients_of_another_memory_order_and_of_expanded_ones():
    model = network()
    optimizer, shadows = Madam(model.parameters()), shadows_of(model)
    set_gradients(model, 1)
    model[0].weight.grad = model[0].weight.grad.t().contiguous().t()
    model[3].weight.grad = torch.tensor(0.01).expand(3, 16)
    check_step(model, optimizer, shadows)
