"""What a parameter has besides its numbers: hooks and attributes are there after conversion, decoding and loading.

The oracle is a float model to which nothing was done.
"""

import copy

import pytest
import torch
from torch import nn

from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model, load_model, save_model

torch.set_num_threads(1)

X = torch.linspace(-1, 1, 8).reshape(2, 4)


def a_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def convert(model: nn.Module, folder) -> nn.Module:
    convert_model(model, lns8f5)
    return model


def load(model: nn.Module, folder) -> nn.Module:
    other = convert(a_model(), folder)
    return load_model(save_model(folder / "m.safetensors", other), model)


WAYS = {
    "convert": convert,
    "convert per channel": lambda m, folder: convert_model(m, lns8f5, per_channel=True) and m,
    "convert and decode": lambda m, folder: decode_model(convert(m, folder)),
    "load": load,
    "convert and load": lambda m, folder: load(convert(m, folder), folder),
    "convert and half": lambda m, folder: convert(m, folder).half().float(),
    "convert and the same type": lambda m, folder: convert(m, folder).float(),
    "convert, to, double": lambda m, folder: convert(m, folder).to("cpu", torch.float64).to(torch.float32),
    "convert and _apply": lambda m, folder: convert(m, folder)._apply(lambda t: t.double().float()),
    "convert, channels_last": lambda m, folder: convert(m, folder).to(memory_format=torch.channels_last),
    "convert and load_state_dict": lambda m, folder: convert(m, folder).load_state_dict(a_model().state_dict()) and m,
}


@pytest.mark.filterwarnings("ignore:load_state_dict")
@pytest.mark.parametrize("way", WAYS)
def test_hooks_attributes_and_requires_grad_go_over(way, tmp_path):
    model, calls = a_model(), []
    mask = torch.arange(24).reshape(6, 4) % 2
    handles = [
        model[0].weight.register_hook(lambda gradient: gradient * mask),
        model[0].weight.register_hook(lambda gradient: calls.append("second")),
        model[0].weight.register_post_accumulate_grad_hook(lambda p: calls.append(p)),
    ]
    model[0].bias.requires_grad_(False)
    model[2].weight._no_weight_decay, model[2].weight.lr_scale = True, {"scale": 0.5}
    expected = WAYS[way](model, tmp_path)
    assert expected is model
    assert model[2].weight._no_weight_decay is True
    assert model[2].weight.lr_scale == {"scale": 0.5}
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert isinstance(model[2].weight, LNSWeight) == (way != "convert and decode")
    calls.clear()
    model(X).sum().backward()
    assert calls[0] == "second"
    assert calls[1] is model[0].weight
    assert len(calls) == 2
    assert (model[0].weight.grad[mask == 0] == 0).all()
    assert (model[0].weight.grad[mask == 1] != 0).all()
    for handle in handles:
        handle.remove()
    calls.clear()
    model.zero_grad()
    model(X).sum().backward()
    assert calls == []
    assert (model[0].weight.grad != 0).all()


def test_tied_parameters_have_their_hook_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    calls = []
    model[0].weight.register_hook(lambda gradient: calls.append(1))
    convert_model(model, lns8f5)
    model(X).sum().backward()
    assert calls == [1]


def test_copies_have_attributes_and_no_hooks():
    model, calls = a_model(), []
    model[0].weight.register_hook(lambda gradient: calls.append(1))
    model[0].weight.mark = [1]
    convert_model(model, lns8f5)
    for copied in (copy.deepcopy(model), copy.deepcopy(model.half()).float()):
        assert copied[0].weight.mark == [1]
        assert copied[0].weight.mark is not model[0].weight.mark
        copied(X).sum().backward()
        assert calls == []


def test_a_shallow_copy_shares_the_codes():
    weight = nn.Parameter(LNSWeight.from_float(torch.ones(3), lns8f5))
    weight.mark = [1]
    copied = copy.copy(weight)
    assert copied.codes.data_ptr() == weight.codes.data_ptr()
    assert isinstance(copied, nn.Parameter)
    assert copied.mark is weight.mark
    copied.detach().rescale_(3)
    assert weight.log_offset == 3


class Marked(nn.Parameter):
    """A class of somebody's own."""


def test_the_report_says_what_cannot_go_over():
    model = a_model()
    model[0].weight = Marked(model[0].weight.detach())
    model[0].weight.mark = 1
    model[0].bias.codes, model[0].bias.telemetry, model[0].bias.nbytes_saved = 1, 2, 3
    report = convert_model(model, lns8f5)
    assert report["0.weight"].not_carried == ("class Marked",)
    assert report["0.bias"].not_carried == ("attribute 'codes'", "attribute 'telemetry'")
    assert report["2.weight"].not_carried == ()
    assert model[0].weight.mark == 1
    assert model[0].bias.nbytes_saved == 3
    assert model[0].bias.telemetry().elements == 6
    lines = str(report).split("\n")
    assert [line.split() for line in lines[-2:]] == [
        ["0.weight", "lost:", "class", "Marked"],
        ["0.bias", "lost:", "attribute", "'codes',", "attribute", "'telemetry'"],
    ]


def test_gradients_do_not_go_over():
    model = a_model()
    model(X).sum().backward()
    convert_model(model, lns8f5)
    assert all(p.grad is None for p in model.parameters())


def test_a_hook_of_an_optimizer_whose_parameters_were_replaced_says_so():
    model = a_model()
    convert_model(model, lns8f5)
    optimizer = Madam(model.parameters())
    handles = optimizer.attach(model)
    decode_model(model)
    with pytest.raises(ValueError, match=r"a parameter took the place of one that this optimizer has, .*: remove\(\)"):
        model(X).sum().backward()
    for handle in handles:
        handle.remove()
    model(X).sum().backward()
