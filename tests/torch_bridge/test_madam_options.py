"""Madam's arguments, one by one: momentum, weight decay, zeros, gradients not finite, formats, rates too large."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from test_madam import Shadow, assert_same, bits, floats_left, follow, network, run, set_gradients, shadows_of, snapshot
from torch import nn

from lnsnum import LNSFormat, lns8f3, lns8f5, lns16f10
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model
from lnsnum.torch_bridge.madam import parameter_groups

torch.set_num_threads(1)

CODE = math.log(2) / 32
"""The rate of one code of lns8f5."""

PAPER = {"rule": "paper"}
"""The rule that moves codes by amounts that do not depend on them."""


def weight(codes, fmt=lns8f5) -> nn.Parameter:
    dtype = torch.uint8 if fmt.bits <= 8 else torch.int16
    return nn.Parameter(LNSWeight(torch.tensor(codes, dtype=dtype), fmt))


# ------------------------------------------------------------------------------------------------------------- momentum


@pytest.mark.parametrize("fmt", [lns8f5, lns16f10], ids=str)
@pytest.mark.parametrize("second_moment", ["byte", "float32"])
@pytest.mark.parametrize("scale", [1e-20, 0.01, 1e20])
def test_momentum_at_any_scale_of_the_gradients(fmt, second_moment, scale):
    model = network(fmt)
    optimizer = Madam(model.parameters(), lr=0.1, momentum=0.9, second_moment=second_moment)
    shadows = shadows_of(model, second_moment)
    for step in range(1, 6):
        set_gradients(model, step, scale)
        optimizer.step()
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.step(p.grad, 0.1, momentum=0.9)
            shadow.check(p, optimizer.state[p])
            assert optimizer.state[p]["momentum"].dtype == torch.uint8
    if scale > 1e-15 or second_moment == "byte":
        assert optimizer.step_report().moved > 0.5


def test_momentum_takes_a_third_byte_and_none_takes_none():
    for momentum, expected in ((0.0, 2), (0.9, 3)):
        p = weight([64] * 1000)
        optimizer = Madam([p], momentum=momentum)
        set_gradients([p], 1)
        optimizer.step()
        state = [v for v in optimizer.state[p].values() if isinstance(v, torch.Tensor) and v.shape == p.shape]
        assert sum(v.nbytes for v in (p, *state)) == expected * 1000


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_a_constant_gradient_moves_with_momentum_as_without(momentum):
    """u_hat is the gradient itself, by the correction of its bias: each step is of one code, but for the noise of u."""
    p = weight([100] * 4000)
    optimizer = Madam([p], lr=CODE, momentum=momentum, second_moment="float32", beta=0.0, **PAPER)
    for step in range(1, 11):
        p.grad = torch.ones(4000)
        optimizer.step()
        assert float(p.codes.float().mean()) == pytest.approx(100 - step, abs=0.1 * step)


@pytest.mark.parametrize("codes", [True, False])
def test_momentum_that_begins_later_is_free_of_bias_too(codes):
    """A schedule may turn it on. The first gradient that it sees is then all that it holds."""
    p = weight([100] * 4000) if codes else nn.Parameter(torch.full((4000,), 2.0 ** (36 / 32)))
    optimizer = Madam([p], lr=CODE, beta=0.0, **PAPER)
    for step in range(1, 7):
        optimizer.param_groups[0]["momentum"] = 0.0 if step <= 3 else 0.9
        p.grad = torch.ones(4000)
        optimizer.step()
        place = p.codes.float() if codes else torch.log2(p.detach()) * 32 + 64
        assert float(place.mean()) == pytest.approx(100 - step, abs=0.1 * step), f"step {step}"


def test_momentum_that_is_turned_off_and_on_again_begins_anew():
    """What it held is of gradients before the pause; it is not taken for the recent ones."""
    p = weight([100] * 4000)
    optimizer = Madam([p], lr=CODE, beta=0.0, **PAPER)
    expected = 100
    for gradient, momentum in [(-1, 0.9)] * 5 + [(1, 0.0)] * 2 + [(1, 0.9)] * 3:
        optimizer.param_groups[0]["momentum"] = momentum
        p.grad = torch.full((4000,), float(gradient))
        optimizer.step()
        expected -= gradient
        assert float(p.codes.float().mean()) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_floats_get_momentum_and_decay_by_the_formula(dtype):
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(30, 20, dtype=dtype) * 0.1)
    lr, beta, momentum, decay = 0.2, 0.9, 0.8, 0.3
    optimizer = Madam([p], lr=lr, beta=beta, momentum=momentum, weight_decay=decay, **PAPER)
    w = p.detach().double().numpy().copy()
    maximum = 3.0 * math.sqrt((w**2).mean())
    u = v = np.zeros_like(w)
    for step in range(1, 16):
        set_gradients([p], step)
        g = p.grad.double().numpy()
        optimizer.step()
        u, v = momentum * u + (1 - momentum) * g, beta * v + (1 - beta) * g**2
        g_hat = np.clip(u / (1 - momentum**step) / np.sqrt(v / (1 - beta**step)), -10, 10)
        w = np.clip(w * np.exp(-lr * (g_hat * np.sign(w) + decay)), -maximum, maximum)
        np.testing.assert_allclose(p.detach().double().numpy(), w, rtol=1e-4 if dtype == torch.float32 else 1e-11)
    assert np.array_equal(np.sign(w), np.sign(p.detach().numpy()))


# --------------------------------------------------------------------------------------------------------- weight decay


def test_decay_pulls_every_code_by_the_same_amount_towards_zero():
    codes = torch.arange(256, dtype=torch.uint8)
    p = weight(codes.tolist())
    optimizer = Madam([p], lr=0.5 * CODE, weight_decay=6.0, rounding="nearest", **PAPER)
    p.grad = torch.zeros(256)
    optimizer.step()
    m = codes.int() & 127
    expected = torch.where(m > 0, (m - 3).clamp_min(1), 0) + (codes.int() & 128)
    assert torch.equal(p.codes, expected.to(torch.uint8))


def test_decay_of_a_weight_and_of_a_float_are_one_rate():
    p, q = weight([90] * 20_000), nn.Parameter(torch.full((20_000,), 2.0 ** (26 / 32)))
    optimizer = Madam([p, q], lr=0.01, weight_decay=0.5, **PAPER)
    for _ in range(50):
        p.grad = q.grad = torch.zeros(20_000)
        optimizer.step()
    factor = math.exp(-0.01 * 0.5 * 50)
    assert float(q[0].detach()) == pytest.approx(2.0 ** (26 / 32) * factor, rel=1e-5)
    mean_log = float((p.codes.float() - 90).mean()) * CODE
    assert mean_log == pytest.approx(math.log(factor), abs=4 * CODE * math.sqrt(50 * 0.18 / 20_000))


@pytest.mark.parametrize("kind", ["codes", "floats"])
def test_no_decay_without_a_gradient_nor_where_it_is_not_finite(kind):
    p = weight([90] * 3) if kind == "codes" else nn.Parameter(torch.ones(3))
    optimizer = Madam([p], lr=0.1, weight_decay=1.0)
    before = bits(p)
    optimizer.step()
    assert torch.equal(bits(p), before)
    p.grad = torch.tensor([0.0, math.nan, math.inf])
    optimizer.step()
    assert (bits(p) == before).tolist() == [False, True, True]


# ---------------------------------------------------------------------------------------------------------------- zeros


def with_zeros() -> nn.Linear:
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    with torch.no_grad():
        model.weight[:2] = 0.0
    convert_model(model, lns8f5, zeros="keep")
    return model


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("choices", [PAPER, {"zero": "keep"}], ids=str)
def test_zeros_are_kept(momentum, choices):
    model = with_zeros()
    optimizer, shadows = Madam(model.parameters(), lr=0.3, momentum=momentum, **choices), shadows_of(model)
    follow(model, optimizer, shadows, range(1, 6), 0.3, momentum=momentum, **choices)
    assert (model.weight.codes == 0).sum() == 16


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_zeros_leave_as_the_smallest_magnitude_against_their_gradient(momentum):
    model = with_zeros()
    optimizer, shadows = Madam(model.parameters(), lr=0.3, momentum=momentum, zero="leave", **PAPER), shadows_of(model)
    set_gradients(model, 1)
    model.weight.grad[0, 0] = 0.0
    model.weight.grad[0, 1] = math.nan
    gradient = model.weight.grad[:2].clone()
    optimizer.step()
    codes = model.weight.codes[:2]
    assert torch.equal(codes, torch.where(gradient > 0, 129, torch.where(gradient < 0, 1, 0)).to(torch.uint8))
    for shadow, p in zip(shadows, model.parameters(), strict=True):
        shadow.step(p.grad, 0.3, momentum=momentum, zero="leave", **PAPER)
    follow(model, optimizer, shadows, range(2, 6), 0.3, momentum=momentum, zero="leave", **PAPER)
    assert not (model.weight.codes == 0).any()


def test_nan_weights_do_not_leave():
    p = weight([128, 128, 0])
    p.grad = torch.tensor([1.0, -1.0, 1.0])
    Madam([p], zero="leave", **PAPER).step()
    assert p.codes.tolist() == [128, 128, 129]


def test_zeros_are_refused_when_asked_to():
    model = with_zeros()
    message = "parameter 1 of the group has zeros, which zero='raise' refuses: the rule hypentropy lets them learn"
    with pytest.raises(ValueError, match=message):
        Madam([model.bias, model.weight], zero="raise")
    optimizer = Madam([model.bias], zero="raise")
    with pytest.raises(ValueError, match="parameter 0 of the group has zeros"):
        optimizer.add_param_group({"params": [model.weight]})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [model.weight], "zero": "keep"})
    with pytest.raises(ValueError, match="parameter 0 of the group has zeros"):
        Madam([nn.Parameter(torch.tensor([1.0, 0.0]))], zero="raise")
    model = network(None)
    convert_model(model, lns8f5, zeros="redraw")
    run(model, Madam(model.parameters(), zero="raise"), 1, 1)


# ------------------------------------------------------------------------------------------------- gradients not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_step_that_raises_has_changed_nothing_at_all(bad, at):
    model = floats_left()
    optimizer = Madam(model.parameters(), lr=0.3, momentum=0.9, weight_decay=0.1, non_finite="raise")
    run(model, optimizer, 1, 2)
    before, versions = snapshot(model, optimizer), [p._version for p in model.parameters()]
    report = optimizer.step_report()
    set_gradients(model, 3)
    p = list(model.parameters())[at]
    p.grad.view(-1)[-2:] = bad
    with pytest.raises(FloatingPointError, match=r"2 elements of a gradient of shape \(.*\) are NaN or infinite"):
        optimizer.step()
    assert_same(snapshot(model, optimizer), before)
    assert [p._version for p in model.parameters()] == versions
    assert optimizer.step_report() == report
    run(model, optimizer, 3, 3)


def test_a_first_step_that_raises_leaves_no_state():
    model = network()
    optimizer = Madam(model.parameters(), non_finite="raise")
    set_gradients(model, 1)
    model[3].bias.grad[0] = math.nan
    with pytest.raises(FloatingPointError):
        optimizer.step()
    assert not optimizer.state


def test_groups_differ_in_what_they_do_with_gradients_not_finite():
    model = network()
    groups = [{"params": model[0].parameters(), "non_finite": "raise"}, {"params": model[3].parameters()}]
    optimizer = Madam(groups)
    set_gradients(model, 1)
    model[3].weight.grad[0, 0] = math.nan
    optimizer.step()
    assert optimizer.step_report().not_finite == 1
    model[0].weight.grad[0, 0] = math.nan
    with pytest.raises(FloatingPointError):
        optimizer.step()


# ------------------------------------------------------------------------------------------------------- what may step


def test_a_group_is_of_one_format_and_parameter_groups_makes_such():
    model = network({"0.*": "lns8f5", "3.*": "lns16f10"})
    message = "the group mixes lns16f10 and lns8f5: make a group for each format, as parameter_groups does"
    with pytest.raises(ValueError, match=message):
        Madam(model.parameters())
    model[0].bias.requires_grad_(False)
    groups = parameter_groups(model)
    optimizer = Madam(groups)
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 2, 2]
    kinds = [{getattr(p, "fmt", None) for p in g["params"]} for g in optimizer.param_groups]
    assert kinds == [{lns8f5}, {None}, {lns16f10}]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in trainable}
    run_trainable = [p for g in optimizer.param_groups for p in g["params"]]
    shadows = [Shadow(p, i) if isinstance(p, LNSWeight) else None for i, p in enumerate(run_trainable)]
    set_gradients(run_trainable, 1)
    optimizer.step()
    for shadow, p in zip(shadows, run_trainable, strict=True):
        if shadow is not None:
            shadow.step(p.grad, 0.05)
            shadow.check(p, optimizer.state[p])


def test_parameter_groups_takes_tied_weights_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    convert_model(model, lns8f5)
    assert [len(g["params"]) for g in parameter_groups(model)] == [3]


def test_views_of_a_part_of_a_weight_are_refused():
    whole = weight([64, 65, 66, 67])
    part = nn.Parameter(whole.detach()[1:3])
    with pytest.raises(ValueError, match="parameter 0 of the group is a view of a part of a weight: give the whole"):
        Madam([part])
    optimizer = Madam([whole])
    with pytest.raises(ValueError, match="view of a part"):
        optimizer.add_param_group({"params": [part]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(("fmt", "lr"), [(lns8f5, 2.73), (lns8f3, 11.0), (LNSFormat.madam(8, 0.01), 1.27)], ids=str)
def test_a_rate_that_crosses_the_whole_range_is_warned_of_and_works(fmt, lr):
    codes = list(range(256))
    message = rf"lr={lr} is \d+ code steps of {re.escape(fmt.name)}, which has 127: one step crosses the whole range"
    with pytest.warns(UserWarning, match=message):
        optimizer = Madam([weight(codes, fmt)], lr=lr, **PAPER)
    with pytest.warns(UserWarning, match=message):
        optimizer.add_param_group({"params": [weight(codes, fmt)]})
    for group in optimizer.param_groups:
        (p,) = group["params"]
        p.grad = torch.ones(256)
    optimizer.step()
    m, signs = torch.arange(256) & 127, torch.arange(256) & 128
    expected = torch.where(m > 0, torch.where(signs > 0, 127, 1), 0) + signs
    assert torch.equal(p.codes, expected.to(torch.uint8))
    Madam([weight(codes, fmt)], lr=0.9 * lr, **PAPER)


def test_the_warning_names_the_line_that_asked_for_it():
    with pytest.warns(UserWarning, match="crosses the whole range") as told:
        optimizer = Madam([weight([64])], lr=3.0)
    with pytest.warns(UserWarning, match="crosses the whole range") as told_of_group:
        optimizer.add_param_group({"params": [weight([64])]})
    assert [told[0].filename, told_of_group[0].filename] == [__file__, __file__]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weights_with_a_scale_for_each_channel_step_as_others_do(momentum):
    model = network(None)
    convert_model(model, lns8f5, per_channel=True)
    scales = [p.log_offset.clone() for p in model.parameters() if isinstance(p.log_offset, torch.Tensor)]
    assert scales
    optimizer, shadows = Madam(model.parameters(), momentum=momentum), shadows_of(model)
    follow(model, optimizer, shadows, range(1, 5), 0.05, momentum=momentum)
    after = [p.log_offset for p in model.parameters() if isinstance(p.log_offset, torch.Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(scales, after, strict=True))


def test_a_copy_has_all_arguments():
    settings = {"momentum": 0.5, "weight_decay": 0.1, "zero": "leave", "non_finite": "raise", "rounding": "nearest"}
    settings |= {**PAPER, "crossover": 0.5, "cap": 0.3, "ceiling": "fixed"}
    optimizer = Madam(network().parameters(), **settings)
    copied = copy.deepcopy(optimizer)
    assert {name: copied.param_groups[0][name] for name in settings} == settings
    assert copied.defaults.items() >= optimizer.defaults.items()


def test_a_rate_that_a_schedule_makes_too_large_is_warned_of_once():
    optimizer = Madam([p := weight([64, 65])])
    p.grad = torch.ones(2)
    optimizer.param_groups[0]["lr"] = 50.0
    with pytest.warns(UserWarning, match="crosses the whole range"):
        optimizer.step()
    optimizer.step()


def test_another_second_moment_after_the_first_step_is_refused():
    optimizer = Madam([p := weight([64, 65])])
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.param_groups[0]["second_moment"] = "float32"
    codes = p.codes.clone()
    with pytest.raises(ValueError, match="second_moment='float32' comes too late: it has been 'byte' so far"):
        optimizer.step()
    assert torch.equal(p.codes, codes)


def test_a_gradient_of_codes_is_refused():
    optimizer = Madam([p := weight([64, 65])])
    p.grad = p.detach().clone()
    with pytest.raises(TypeError, match="a gradient is an LNSWeight: give plain floats"):
        optimizer.step()


def test_state_made_before_is_the_state_of_the_first_step():
    options = {"lr": 0.3, "momentum": 0.9}
    pairs = [[weight([60, 70]), weight([80, 190, 10])] for _ in range(2)]
    early, late = (Madam(pair, **options) for pair in pairs)
    early.make_state()
    for _ in range(2):
        for pair, optimizer in zip(pairs, (early, late), strict=True):
            for p in pair:
                p.grad = torch.linspace(-1, 1, p.numel())
            optimizer.step()
    for p, q in zip(*pairs, strict=True):
        assert torch.equal(p.codes, q.codes)
        assert early.state[p].keys() == late.state[q].keys()
