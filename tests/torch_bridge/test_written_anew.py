"""Weights that are initialized, loaded or merged after conversion: at the scale that conversion would have chosen.

The oracle is a model of floats that gets the same treatment, converted afterwards, and figures on its numbers.
"""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from lnsnum import LNSFormat, lns6f2, lns8f3, lns8f5, lns12f6, lns16f10
from lnsnum.files.sharded import open_files
from lnsnum.toolbox.conversion import convert_file
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model, load_model, save_model
from lnsnum.weight_file import Description, WeightFileError, load_weights, save_tensors

torch.set_num_threads(1)

FORMATS = [LNSFormat(4, 1), lns6f2, lns8f5, lns8f3, LNSFormat(9, 3, base=1.5), lns12f6, lns16f10]


def relative_error(weight: torch.Tensor, floats: torch.Tensor) -> float:
    values = weight.to_float() if isinstance(weight, LNSWeight) else weight
    return float((values.detach() - floats).norm() / floats.norm())


def scales(model: nn.Module) -> list[torch.Tensor]:
    return [torch.as_tensor(p.log_offset).clone() for p in model.parameters()]


def same_scales(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(scales(a), scales(b), strict=True))


def same_codes(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x.codes, y.codes) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------------ initialization

INITIALIZATIONS = {
    "kaiming_normal_": nn.init.kaiming_normal_,
    "kaiming_uniform_": nn.init.kaiming_uniform_,
    "xavier_normal_": nn.init.xavier_normal_,
    "xavier_uniform_": lambda w: nn.init.xavier_uniform_(w, gain=5 / 3),
    "orthogonal_": nn.init.orthogonal_,
    "orthogonal_ with gain": lambda w: nn.init.orthogonal_(w, gain=math.sqrt(2)),
    "orthogonal_ small": lambda w: nn.init.orthogonal_(w, gain=0.01),
    "normal_": lambda w: nn.init.normal_(w, std=0.02),
    "normal_ of data": lambda w: w.data.normal_(0, 0.02),
    "normal_ and a factor": lambda w: w.data.normal_(0, 0.02).mul_(24**-0.5),
    "factor in place": lambda w: w.data.div_(math.sqrt(2 * 12)),
    "trunc_normal_": lambda w: nn.init.trunc_normal_(w, std=0.02),
    "trunc_normal_ by its quantile function": lambda w: (
        w.data.uniform_(-0.95, 0.95).erfinv_().mul_(0.02 * math.sqrt(2)).clamp_(-2.0, 2.0)
    ),
    "sparse_": lambda w: nn.init.sparse_(w.view(48, -1), 0.5),
    "eye_": lambda w: nn.init.eye_(w.view(48, -1)),
    "dirac_": lambda w: nn.init.dirac_(w.view(48, 16, 4)),
    "data of all": lambda w: w.data.__setitem__(slice(None), 0.01 * torch.randn(w.shape)),
    "eigenvectors": lambda w: w.data.__setitem__(
        slice(None), torch.linalg.qr(torch.randn(64, 48))[0].t().view(w.shape)
    ),
}


@pytest.mark.parametrize("shape", [(48, 64), (48, 16, 2, 2)], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_an_initialized_weight_holds_what_floats_would(name, per_channel, shape):
    """Hardly a number at the ceiling, and an error that is rounding's, where torch draws the same numbers for both."""
    torch.manual_seed(0)
    model = nn.ParameterDict({"w": nn.Parameter(torch.randn(shape) * 1e-3)})
    floats = model["w"].detach().clone()
    convert_model(model, lns8f3, per_channel=per_channel)
    with torch.no_grad():
        torch.manual_seed(1)
        INITIALIZATIONS[name](model["w"])
        torch.manual_seed(1)
        INITIALIZATIONS[name](floats)
    told = model["w"].telemetry()
    if name not in ("eye_", "dirac_"):
        assert told.at_ceiling < 0.01
    assert told.at_floor < 0.01
    assert float(model["w"].to_float().std()) == pytest.approx(float(floats.std()), rel=0.05)
    if name not in ("trunc_normal_", "sparse_"):  # which draw as many numbers as there were
        assert relative_error(model["w"], floats) < 0.1


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("fmt", [lns8f5, lns8f3, lns16f10], ids=str)
def test_modules_that_reset_their_parameters(fmt, per_channel):
    def a_model():
        return nn.ModuleList(
            [nn.Linear(30, 40), nn.Conv2d(8, 12, 3), nn.Embedding(50, 8, padding_idx=3), nn.LayerNorm(8),
             nn.BatchNorm2d(5), nn.LSTM(6, 7), nn.Bilinear(4, 5, 6)]
        )  # fmt: skip

    model, floats = a_model(), a_model()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=1e-3)
    convert_model(model, fmt, per_channel=per_channel)
    for each in (model, floats):
        torch.manual_seed(2)
        for module in each:
            module.reset_parameters()
    for (name, p), expected in zip(model.named_parameters(), floats.parameters(), strict=True):
        assert isinstance(p, LNSWeight)
        if expected.detach().any():
            rms = float(expected.detach().square().mean().sqrt())
            assert float(p.to_float().square().mean().sqrt()) == pytest.approx(rms, rel=0.1), name
        else:
            assert not p.codes.any()
        assert p.telemetry().at_ceiling < 0.03


def test_zeros_written_after_conversion_are_those_of_conversion():
    """The same codes and scales, so that whatever an optimizer makes of zeros, it makes of both."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    nn.init.zeros_(model[0].bias)
    nn.init.zeros_(model[2].weight)
    other = copy.deepcopy(model)
    convert_model(model, lns8f5, zeros="keep")
    convert_model(other, lns8f5, zeros="redraw")
    for written in (other[0].bias, other[2].weight):
        assert written.codes.all()
        nn.init.zeros_(written)
    assert same_codes(model, other)
    assert same_scales(model, other)
    x = torch.randn(5, 6)
    for zero in ("keep", "leave"):
        steps = []
        for each in (copy.deepcopy(model), copy.deepcopy(other)):
            optimizer = Madam(each.parameters(), rule="paper", zero=zero)
            each(x).square().add(each(x)).sum().backward()
            optimizer.step()
            steps.append(each)
        assert same_codes(*steps)
        assert bool(steps[0][0].bias.codes.any()) == (zero == "leave" and bool(steps[0][0].bias.grad.any()))


@pytest.mark.parametrize("width", [4, 768])
def test_zeros_are_redrawn_no_larger_than_a_layer_takes(width):
    """Outputs of a zeroed projection are of size 1 at most where its inputs are, at any width."""
    layer = nn.Linear(width, 200)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    convert_model(layer, lns16f10, zeros="redraw")
    assert float(layer.weight.to_float().std()) == pytest.approx(min(0.1, width**-0.5), rel=0.1)
    assert float(layer.bias.to_float().std()) == pytest.approx(0.1, rel=0.2)
    asked = nn.Linear(width, 200)
    nn.init.zeros_(asked.weight)
    convert_model(asked, lns16f10, zeros="redraw", zero_std=0.01)
    assert float(asked.weight.to_float().std()) == pytest.approx(0.01, rel=0.1)


def test_small_floats_are_no_zeros():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.02
    weight = LNSWeight.from_float(x, lns8f5)
    assert relative_error(weight, x) < 0.05
    assert weight.telemetry().at_ceiling < 0.01
    fitted = LNSWeight.from_float(x, lns8f5, log_offset="fit")
    assert fitted.telemetry().at_ceiling == 1e-3  # the greatest alone


# -------------------------------------------------------------------------------------------------- siblings of copy_


def made_empty(model):
    model = model.to("meta").to_empty(device="cpu")
    for p in model.parameters():
        nn.init.normal_(p, std=0.003)


def swapped(model):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.load_state_dict({name: torch.randn(p.shape) * 0.003 for name, p in model.named_parameters()})
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def merged_safely(model):
    """As adapters are merged: a copy, to which is added, and which is put back."""
    for p in model.parameters():
        values = p.data.clone()
        values.mul_(3e-3 / float(values.std()))
        values += torch.randn(p.shape) * 5e-4
        p.data = values


SIBLINGS = {
    "data": lambda model: [setattr(p, "data", torch.randn(p.shape) * 0.003) for p in model.parameters()],
    "data.copy_": lambda model: [p.data.copy_(torch.randn(p.shape) * 0.003) for p in model.parameters()],
    "vector_to_parameters": lambda model: nn.utils.vector_to_parameters(torch.randn(45) * 0.003, model.parameters()),
    "foreach": lambda model: torch._foreach_copy_(
        [p.data for p in model.parameters()], [torch.randn(p.shape) * 0.003 for p in model.parameters()]
    ),
    "state": lambda model: model.load_state_dict(
        {n: torch.randn(p.shape) * 0.003 for n, p in model.named_parameters()}
    ),
    "swap": swapped,
    "to_empty": made_empty,
    "merge": merged_safely,
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", SIBLINGS)
def test_every_way_to_write_the_whole_fits(name, per_channel):
    torch.manual_seed(0)
    model = nn.Linear(8, 5)
    convert_model(model, lns8f5, per_channel=per_channel)
    with torch.no_grad():
        SIBLINGS[name](model)
    for p in model.parameters():
        assert isinstance(p, LNSWeight)
        rms = float(p.to_float().square().mean().sqrt())
        assert 0.001 < rms < 0.006
        top = float(p.fmt.value_at(63 + int(torch.as_tensor(p.log_offset).max())))
        assert 1.4 * rms < top < 12 * rms


def test_many_weights_are_copied_at_once_by_their_codes():
    models = [nn.Linear(8, 5), nn.Linear(8, 5)]
    nn.init.normal_(models[1].weight, std=1e-3)
    for model in models:
        convert_model(model, lns8f5)
    state = torch.get_rng_state()
    with torch.no_grad():
        torch._foreach_copy_(list(models[0].parameters()), list(models[1].parameters()))
    assert torch.equal(torch.get_rng_state(), state)  # nothing was rounded
    assert same_codes(*models)
    assert same_scales(*models)


def test_skip_init_and_an_average():
    model = nn.utils.skip_init(nn.Linear, 30, 20)
    nn.init.normal_(model.weight, std=0.01)
    nn.init.zeros_(model.bias)
    convert_model(model, lns8f5)
    average = torch.optim.swa_utils.AveragedModel(model)
    nn.init.normal_(model.weight, std=10.0)
    average.update_parameters(model)  # the first time a copy: codes and scale
    assert same_codes(average.module, model)
    assert same_scales(average.module, model)


@pytest.mark.parametrize("per_channel", [False, True])
def test_floats_loaded_after_a_state_was_assigned(per_channel):
    """No conversion has told these modules of LNS: copying is what finds the scale."""
    torch.manual_seed(0)
    converted, model, floats = nn.Linear(50, 40), nn.Linear(50, 40), nn.Linear(50, 40)
    with torch.no_grad():
        for p in floats.parameters():
            p.mul_(1e-3)
    convert_model(converted, lns8f5, per_channel=per_channel)
    model.load_state_dict(converted.state_dict(), assign=True)
    assert isinstance(model.weight, LNSWeight)
    model.load_state_dict(floats.state_dict())
    for p, expected in zip(model.parameters(), floats.parameters(), strict=True):
        assert isinstance(p, LNSWeight)
        assert relative_error(p, expected.detach()) < 0.07
        again = LNSWeight.from_float(expected.detach(), lns8f5)
        assert per_channel or p.log_offset == again.log_offset


# ------------------------------------------------------------------------------------------------------ converted twice


def resumed(model: nn.Module, fresh: nn.Module, fmt, **arguments) -> nn.Module:
    """Built, a checkpoint loaded, converted: the order in which scripts of float models resume."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    convert_model(fresh, fmt, **arguments)
    return fresh


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16, padding_idx=1)
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.LayerNorm(16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_codes_that_were_decoded_become_the_codes_that_they_were(fmt, per_channel, dtype):
    """Where they reach both ends of their range, codes and scale are found again; the RMS has nothing to do with it."""
    if dtype == torch.bfloat16 and fmt.fraction_bits > 5:
        fmt = LNSFormat(12, 5)  # finer codes than bfloat16 has numbers cannot be told from each other
    model = Tied().to(dtype)
    convert_model(model, fmt, per_channel=per_channel)
    generator = torch.Generator().manual_seed(0)
    for i, p in enumerate(model.parameters()):
        codes = torch.randint(1, fmt.max_magnitude + 1, p.shape, generator=generator)
        codes[..., 0], codes[..., -1] = 1, fmt.max_magnitude
        codes |= torch.randint(0, 2, p.shape, generator=generator) * fmt.sign_bit
        p.codes.copy_(codes)
        offsets = torch.as_tensor(p.log_offset)
        p.detach().set_scale(LNSWeight(p.codes, fmt, p.log_offset).scale._replace(low=7 * i, high=7 * i, offsets=None))
        assert torch.as_tensor(p.log_offset).shape == offsets.shape
    before = copy.deepcopy(model)
    fresh = resumed(model, Tied().to(dtype), fmt, per_channel=per_channel, p_scale=1.5)
    assert fresh.head.weight is fresh.embedding.weight
    assert same_codes(fresh, before)
    assert same_scales(fresh, before)
    decode_model(model)
    convert_model(model, fmt, per_channel=per_channel)
    assert same_codes(model, before)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("fmt", [lns8f5, lns8f3, lns16f10], ids=str)
def test_a_trained_model_is_resumed_in_either_order_without_loss(fmt, per_channel):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 10))
    convert_model(model, fmt, per_channel=per_channel)
    optimizer = Madam(model.parameters(), lr=0.3)
    x, y = torch.randn(32, 20), torch.randn(32, 10)
    for _ in range(20):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    fresh = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 10))
    resumed(model, fresh, fmt, per_channel=per_channel)
    for a, b in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a.to_float(), b.to_float())
    if fmt == lns8f5 and not per_channel:  # so many codes, so few bits: they reach an end of their range
        assert torch.equal(model[0].weight.codes, fresh[0].weight.codes)


def test_zeros_among_codes_are_redrawn_at_their_scale():
    model = nn.Linear(40, 30)
    convert_model(model, lns8f5)
    model.weight.detach()[::3].zero_()
    values, offset = model.weight.to_float(), model.weight.log_offset
    decode_model(model)
    report = convert_model(model, lns8f5, zeros="redraw")
    assert report["weight"].zeros_redrawn == 10 * 40
    assert model.weight.log_offset == offset
    assert torch.equal(model.weight.to_float()[1::3], values[1::3])


def test_ones_have_headroom():
    """They are exact at many scales; that of their RMS lets them grow."""
    model = nn.LayerNorm(16)
    report = convert_model(model, lns8f5, filter_fn=lambda name, p: name == "weight")
    assert report["weight"].log_offset == LNSWeight.from_float(torch.ones(3), lns8f5).log_offset == -12
    assert torch.equal(model.weight.to_float(), torch.ones(16))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_has_no_say(value):
    x = torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    finite = LNSWeight.from_float(torch.cat([x, torch.zeros(1).double()]), lns8f5)
    weight = LNSWeight.from_float(torch.cat([x, torch.tensor([value]).double()]), lns8f5)
    assert weight.log_offset == finite.log_offset
    assert torch.equal(weight.codes[:-1], finite.codes[:-1])


def test_a_file_takes_what_was_initialized(tmp_path):
    model, other = nn.Linear(8, 5), nn.Linear(8, 5)
    convert_model(model, lns8f5)
    nn.init.normal_(model.weight, std=1e-4)
    load_model(save_model(tmp_path / "m.safetensors", model), other)
    assert same_codes(model, other)
    assert same_scales(model, other)


# --------------------------------------------------------------------------------------------------- graphs and floats


def test_a_graph_keeps_the_scale():
    """What is traced cannot look at values; it writes at the scale that it was traced with."""
    model = nn.Linear(8, 5)
    convert_model(model, lns8f5)
    offset = model.weight.log_offset

    @torch.compile(backend="aot_eager", fullgraph=True)
    def halve(w):
        with torch.no_grad():
            w.copy_(torch.ones_like(w) * 0.01)

    halve(model.weight)
    assert model.weight.log_offset == offset


def test_floats_that_are_zero_learn_beside_codes():
    """The default rule adds where a weight is small: zero is no trap, of floats as of codes."""
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    convert_model(model, lns8f5, filter_fn=lambda name, p: p.ndim > 1)
    shift, optimizer = model[1].bias, Madam(model.parameters())
    assert not shift.detach().any()
    model(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    assert bool((shift.detach() != 0).all())


# ------------------------------------------------------------------------------------------- by the rule of conversion

RULES = [{"scale": "max"}, {"scale": "mse", "rounding": "nearest_value"}, {"p_scale": 2.0}]


@pytest.mark.parametrize("granularity", [{}, {"per_channel": True}, {"group_size": 16}], ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_weight_that_is_written_anew_gets_its_scale_by_the_rule_of_its_conversion(rule, granularity):
    """As conversion of the same numbers by the same rule does, also for copies of the model, and pickles of it."""
    torch.manual_seed(0)
    model = nn.Linear(48, 6, bias=False)
    convert_model(model, lns6f2, **rule, **granularity)
    pickled = io.BytesIO()
    torch.save(model, pickled)
    pickled.seek(0)
    others = [copy.deepcopy(model), torch.load(pickled, weights_only=False), model.half().float()]
    numbers = torch.randn(6, 48) ** 3
    writes = [
        lambda w: w.copy_(numbers),
        lambda w: nn.init.trunc_normal_(w, std=0.01),
        lambda w: nn.init.uniform_(w, -5, 3),
        lambda w: w.fill_(0.3),
    ]
    for own in others:
        for write in writes:
            floats = nn.Linear(48, 6, bias=False)
            for module in (own, floats):
                torch.manual_seed(1)
                with torch.no_grad():
                    write(module.weight)
            convert_model(floats, lns6f2, **rule, **granularity)
            assert torch.equal(*(torch.as_tensor(m.weight.log_offset) for m in (own, floats)))
        own.load_state_dict({"weight": numbers})
        usual = nn.Linear(48, 6, bias=False)
        usual.load_state_dict({"weight": numbers})
        convert_model(usual, lns6f2, **rule, **granularity)
        assert torch.equal(*(torch.as_tensor(m.weight.log_offset) for m in (own, usual)))
        assert own.weight.fit == model.weight.fit


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_states_and_files_keep_the_rule(tmp_path, rule):
    """In the place of one that a model has by default, or by another conversion; in a file that is written anew too."""

    def layer(**by):
        own = nn.Linear(48, 6, bias=False)
        convert_model(own, lns6f2, group_size=20, **by)
        return own

    torch.manual_seed(0)
    model, numbers = layer(**rule), torch.randn(6, 48) ** 3
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    save_model(tmp_path / "old.safetensors", model)
    convert_file(tmp_path / "old.safetensors", tmp_path / "new.safetensors", packed=True)
    with torch.device("meta"):
        empty = nn.Linear(48, 6, bias=False)
    others = [layer(), layer(p_scale=5.0), layer(), layer(), layer(p_scale=5.0), nn.Linear(48, 6, bias=False), empty]
    others[0].load_state_dict(state)
    others[1].load_state_dict(state)
    others[2].load_state_dict(state, assign=True)
    for other in others[3:]:
        load_model(tmp_path / ("old.safetensors" if other is others[3] else "new.safetensors"), other)
    with torch.no_grad():
        for own in (model, *others):
            assert own.weight.fit == model.weight.fit
            own.weight.copy_(numbers)
            assert torch.equal(own.weight.log_offset, model.weight.log_offset)


def test_what_has_the_default_rule_leaves_that_of_a_model(tmp_path):
    """It may be of one that nobody chose a rule for, as of LNSWeight.from_float and older files."""
    usual, model = nn.Linear(4, 2, bias=False), nn.Linear(4, 2, bias=False)
    convert_model(usual, lns6f2)
    convert_model(model, lns6f2, scale="mse")
    save_model(tmp_path / "m", usual)
    assert load_weights(tmp_path / "m")["weight"].shape == (2, 4)
    with open_files(tmp_path / "m") as files:
        assert files.describe("weight").fit is None
    load_model(tmp_path / "m", model)
    model.load_state_dict(usual.state_dict())
    with torch.no_grad():
        model.weight.copy_(LNSWeight.from_float(torch.ones(2, 4), lns6f2))
    assert tuple(model.weight.fit) == ("mse", 3.0)


@pytest.mark.parametrize(
    "told",
    [
        7,
        {},
        {"rule": "mse"},
        {"rule": "best", "p_scale": 3.0},
        *({"rule": "rms", "p_scale": x} for x in (True, "3", 0, 10**999)),
    ],
    ids=repr,
)
def test_a_file_with_another_rule_is_refused_by_models_alone(tmp_path, told):
    description = Description.of_codes((2, 4), lns6f2, 5, fit=told)
    save_tensors(tmp_path / "m", {"weight": description}, lambda name: [np.zeros(8, np.uint8)])
    assert load_weights(tmp_path / "m")["weight"].log_offset == 5
    model = nn.Linear(4, 2, bias=False)
    with pytest.raises(WeightFileError, match=r"'weight': .* is no rule of a scale: "):
        load_model(tmp_path / "m", model)
    assert not isinstance(model.weight, LNSWeight)


def test_a_headroom_may_be_any_number_of_a_file(tmp_path):
    """Other writers, as JavaScript's, give 3 for 3.0: JSON has one kind of numbers."""
    description = Description.of_codes((2, 4), lns6f2, 5, fit={"rule": "rms", "p_scale": 5})
    save_tensors(tmp_path / "m", {"weight": description}, lambda name: [np.zeros(8, np.uint8)])
    model = nn.Linear(4, 2, bias=False)
    load_model(tmp_path / "m", model)
    assert repr(tuple(model.weight.fit)) == "('rms', 5.0)"


def test_scales_fitted_to_outputs_are_fitted_to_weights_when_others_are_written():
    """The moments of the inputs are gone, and were of another layer."""
    model = nn.Linear(32, 4, bias=False)
    convert_model(model, lns6f2, scale="output", rounding="adaptive", calibrate=[torch.randn(9, 32)])
    assert tuple(model.weight.fit) == ("mse", 3.0)


@pytest.mark.parametrize("given", ["mse", ("best", 3.0), ("mse", 0.0), ("mse", "3"), ["mse", 3.0]], ids=str)
def test_a_pickle_with_another_rule_is_refused(given):
    model = nn.Linear(4, 2, bias=False)
    convert_model(model, lns6f2, scale="mse")
    model.weight.fit = given
    rebuild, parts = model.weight.__reduce_ex__(2)
    *parts, attributes = parts
    with pytest.raises(ValueError, match="is no rule of a scale: rms, max or mse"):
        rebuild(*parts, {**attributes, "fit": given})
