"""convert_model by data: second moments, scales and codes by the outputs, against the outputs of the layers themselves.

What errors D do to the outputs is what the layer makes of its inputs with D in the place of its weight.
"""

import copy
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lnsnum
from lnsnum import lns4f1, lns6f2, lns8f4
from lnsnum.torch_bridge import LNSWeight, convert_model, second_moments
from lnsnum.torch_bridge.kernels.nearest_value import adaptive_codes, nearest_codes
from lnsnum.torch_bridge.second_moments import collect

torch.set_num_threads(1)


class Column(nn.Module):
    """x W, as Hugging Face's Conv1D."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, 6), self.weight)


class Experts(nn.Module):
    """A stack of matrices, transposed or not."""

    def __init__(self, *, transposed):
        super().__init__()
        self.transposed, self.bias = transposed, None
        self.weight = nn.Parameter(torch.randn(3, 5, 6) if transposed else torch.randn(3, 6, 5))

    def forward(self, x):
        return torch.bmm(x, self.weight.mT if self.transposed else self.weight)


class Tied(nn.Module):
    """An embedding that is the head too: the sum of both outputs' squares counts."""

    bias = None

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(11, 6))

    def forward(self, i, x):
        return torch.cat([F.embedding(i, self.weight).reshape(-1), F.linear(x, self.weight).reshape(-1)])


class Beside(nn.Module):
    """A layer, and another that is always called."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.other = layer, nn.Linear(2, 2)

    def forward(self, *inputs):
        return self.layer(*inputs), self.other(torch.ones(1, 2))


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) + 0.5


LAYERS = {
    "linear": (nn.Linear(6, 8), [(images(5, 6),), (images(2, 3, 6),)]),
    "no bias": (nn.Linear(6, 8, bias=False), [(images(5, 6),), (images(6),)]),
    "turned": (nn.Linear(6, 8), [(images(4, 6, 3).mT,), (images(2, 4, 6, 3).mT,)]),
    "one image": (nn.Conv2d(2, 3, 3), [(images(2, 5, 6),)]),
    "conv1d": (nn.Conv1d(3, 4, 5, stride=2, padding=2, dilation=2), [(images(2, 3, 20),)]),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), [(images(2, 4, 9, 8),)] * 2),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), [(images(2, 2, 5, 6),)]),
    "same": (nn.Conv2d(2, 3, 3, padding="same", dilation=2), [(images(2, 7, 6, 2).permute(0, 3, 1, 2),)]),
    "conv3d": (nn.Conv3d(2, 3, 2, bias=False), [(images(2, 2, 4, 3, 5),)]),
    "embedding": (nn.Embedding(7, 6), [(torch.tensor([[1, 1, 4], [0, 1, 6]]),), (torch.tensor([4]),)]),
    "column": (Column(), [(images(5, 6),)]),
    "experts": (Experts(transposed=False), [(images(3, 4, 6),)]),
    "experts^T": (Experts(transposed=True), [(images(3, 4, 6),)]),
    "tied": (Tied(), [(torch.tensor([1, 1, 4, 10]), images(5, 6))]),
}  # fmt: skip


def squares_of_outputs(layer, weight, batches):
    """The sum of the squares of what the layer makes of batches with another weight, and no bias, in float64."""
    own = copy.deepcopy(layer).double()
    with torch.no_grad():
        own.weight.copy_(weight)
        if getattr(own, "bias", None) is not None:
            own.bias.zero_()
        wide = [[x.double() if x.is_floating_point() else x for x in batch] for batch in batches]
        return sum(float(own(*batch).square().sum()) for batch in wide)


@pytest.mark.parametrize("name", LAYERS)
def test_moments_say_what_errors_do_to_the_outputs(name):
    layer, batches = LAYERS[name]
    ((moments,),) = (part.values() for part in collect(layer, {"weight": layer.weight}, batches))
    error = torch.randn(layer.weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert moments.square(error) == pytest.approx(squares_of_outputs(layer, error, batches), rel=1e-6)


@pytest.mark.parametrize("name", ["linear", "conv2d", "embedding", "column", "experts", "tied"])
@pytest.mark.parametrize("rounding", ["nearest", "nearest_value", "adaptive"])
def test_the_report_has_the_sqnr_of_the_outputs(name, rounding):
    layer, batches = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    before = layer.weight.detach().double()
    granularity = {"channels": {"weight": 0}}
    report = convert_model(layer, lns4f1, scale="output", rounding=rounding, calibrate=batches, **granularity)
    error = layer.weight.to_float(torch.float64) - before
    signal, noise = (squares_of_outputs(LAYERS[name][0], w, batches) for w in (before, error))
    assert report["weight"].output_sqnr == pytest.approx(10 * math.log10(signal / noise), abs=1e-4)
    weights = float(before.square().sum() / error.square().sum())
    assert report["weight"].weight_sqnr == pytest.approx(10 * math.log10(weights), abs=1e-6)
    assert all(p.output_sqnr is None for p in report if p.name == "bias")


def test_every_scale_is_as_good_as_any_for_the_outputs():
    """One scale of a tensor, and of each row, tried one by one over the octave of the greatest magnitude, within which
    the search is; a convolution with two groups.
    """
    for name, granularity in (("linear", {}), ("linear", {"per_channel": True}), ("conv2d", {"per_channel": True})):
        original, batches = LAYERS[name]
        for rounding in ("nearest", "nearest_value"):
            layer = copy.deepcopy(original)
            convert_model(layer, lns6f2, scale="output", rounding=rounding, calibrate=batches, **granularity)
            w, own = original.weight.detach().double(), layer.weight.to_float(torch.float64)
            rows = [slice(None)] if not granularity else [slice(r, r + 1) for r in range(len(w))]
            for row in rows:
                lost = []
                greatest = lnsnum.fit_log_offset(w[row].numpy(), lns6f2)
                for at in range(greatest - 3, greatest + 2):
                    if rounding == "nearest":
                        codes = lnsnum.encode(w[row].numpy(), lns6f2, log_offset=at, underflow="saturate")
                    else:
                        codes = nearest_codes(w[row], lns6f2, torch.tensor(at)).numpy()
                    error = torch.zeros_like(w)
                    error[row] = torch.from_numpy(lnsnum.decode(codes, lns6f2, log_offset=at)) - w[row]
                    lost.append(squares_of_outputs(original, error, batches))
                found = torch.zeros_like(w)
                found[row] = own[row] - w[row]
                assert squares_of_outputs(original, found, batches) <= min(lost) * (1 + 1e-6)


@pytest.mark.parametrize("name", ["conv2d", "column", "experts", "groups"])
@pytest.mark.parametrize("rounding", ["nearest", "nearest_value"])
def test_scales_that_share_a_row_take_turns(name, rounding):
    """They lose no more at the outputs than those of least error of the weights, nor than one scale."""
    if name == "groups":
        original, batches = nn.Linear(64, 9), [(images(40, 64),)]
        granularity = {"group_size": 16}
    else:
        original, batches = LAYERS[name]
        granularity = {"channels": {"weight": 1}}
    sqnr = {}
    for scale in ("mse", "output"):
        layer = copy.deepcopy(original)
        how = {"scale": scale, "rounding": rounding, "calibrate": batches, **granularity}
        sqnr[scale] = convert_model(layer, lns4f1, **how)["weight"].output_sqnr
        assert layer.weight.group_size == granularity.get("group_size")
    assert sqnr["output"] >= sqnr["mse"]


@pytest.mark.parametrize(
    ("name", "granularity"),
    [
        ("linear", {}),
        ("column", {"channels": {"weight": 1}}),
        ("conv2d", {"per_channel": True}),
        ("experts^T", {"channels": {"weight": (0, 1)}}),
        ("groups", {"group_size": 16}),
    ],
)
def test_adaptive_codes_are_those_of_the_matrix(name, granularity):
    """Of each group of a convolution, each expert, wherever outputs and inputs lie; H by the inputs themselves."""
    original, batches = (nn.Linear(64, 9), [(images(40, 64),)]) if name == "groups" else LAYERS[name]
    layer = copy.deepcopy(original)
    convert_model(layer, lns4f1, scale="mse", rounding="adaptive", calibrate=batches, **granularity)
    inputs = [batch[0].double() for batch in batches]
    if name == "conv2d":
        columns = torch.cat([F.unfold(x, (3, 2), padding=(1, 0), stride=(2, 1)).mT.flatten(0, 1) for x in inputs])
        parts = [(slice(3 * g, 3 * g + 3), columns[:, 12 * g : 12 * g + 12]) for g in range(2)]
    elif name == "experts^T":
        parts = [(e, inputs[0][e]) for e in range(3)]
    else:
        parts = [(slice(None), torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs]))]
    offsets = torch.as_tensor(layer.weight.log_offset)
    if name == "groups":
        offsets = offsets.repeat_interleave(16, 1)
    offsets = offsets.expand(layer.weight.shape)
    for part, x in parts:
        w, own, at = (t[part] for t in (original.weight.detach().double(), layer.weight.codes, offsets))
        w, own, at = (t.t() if name == "column" else t.flatten(1) for t in (w, own, at))
        assert torch.equal(own, adaptive_codes(w, x.T @ x, lns4f1, at))


def test_error_feedback_helps_the_outputs_and_its_scales_more():
    torch.manual_seed(0)
    original, x = nn.Linear(64, 32), torch.randn(300, 64) @ torch.randn(64, 64) / 8
    sqnr = {}
    for rounding in ("nearest", "nearest_value", "adaptive"):
        for scale in ("rms", "max", "mse", "output"):
            layer = copy.deepcopy(original)
            report = convert_model(layer, "lns4f1", scale=scale, rounding=rounding, calibrate=[x], group_size=32)
            sqnr[rounding, scale] = report["weight"].output_sqnr
    assert sqnr["nearest_value", "output"] > sqnr["nearest_value", "mse"] > sqnr["nearest", "max"]
    for scale in ("rms", "max", "mse", "output"):
        assert sqnr["adaptive", scale] > sqnr["nearest_value", scale] + 1


# ---------------------------------------------------------------------------------------------------- running the model


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3))


class Spy(nn.Module):
    """Counts how often it is run, and in which mode."""

    runs: ClassVar[list[bool]] = []

    def forward(self, x):
        self.runs.append(self.training)
        return x


def test_the_model_is_run_as_evaluated_and_left_as_it_was():
    model = nn.Sequential(Spy(), *network())
    model[3].eval()
    modes = [module.training for module in model.modules()]
    before = {name: b.clone() for name, b in model.named_buffers()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    Spy.runs.clear()
    convert_model(model, lns8f4, calibrate=[images(5, 6), images(3, 6)])
    assert Spy.runs == [False, False]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_model_that_fails_is_left_as_it_was():
    model = network()
    with pytest.raises(RuntimeError, match="shapes"):
        convert_model(model, lns8f4, calibrate=[images(5, 7)])
    assert model.training
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any(isinstance(p, LNSWeight) for p in model.parameters())


def test_little_room_takes_more_runs_and_gives_the_same_codes(monkeypatch):
    codes = []
    how = {"scale": "output", "rounding": "adaptive"}
    for most, runs in ((1 << 30, 2), (1, 4)):
        monkeypatch.setattr(second_moments, "MOST_BYTES", most)
        model = nn.Sequential(Spy(), *network())
        Spy.runs.clear()
        report = convert_model(model, lns4f1, calibrate=[images(5, 6), images(3, 6)], **how)
        assert len(Spy.runs) == runs
        assert [p.name for p in report] == [name for name, _ in model.named_parameters()]
        codes.append([p.codes for p in model.parameters()])
    model = nn.Sequential(Spy(), *network())
    convert_model(model, lns4f1, calibrate=iter([images(5, 6), images(3, 6)]), **how)  # once, as it ends
    codes.append([p.codes for p in model.parameters()])
    assert all(torch.equal(a, b) for other in codes[1:] for a, b in zip(codes[0], other, strict=True))


def test_arguments_of_the_model():
    """A tensor, a tuple, a mapping: the same moments."""
    bilinear, x = Tied(), images(5, 6)
    i = torch.tensor([1, 2])
    found = []
    for batch in ((i, x), [i, x], {"i": i, "x": x}):
        model = copy.deepcopy(bilinear)
        convert_model(model, lns4f1, scale="output", rounding="adaptive", calibrate=[batch])
        found.append(model.weight.codes)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_beside_weights_that_are_codes_already():
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 4))
    convert_model(model, lns8f4, filter_fn=lambda name, _: name == "0.weight")
    batches = [torch.tensor([1, 4, 8, 8])]
    report = convert_model(model, lns8f4, filter_fn=lambda name, _: name != "0.weight", calibrate=batches)
    assert [p.output_sqnr is None for p in report] == [False, True]


@pytest.mark.parametrize("name", ["linear", "turned", "conv2d", "embedding", "column", "experts", "tied"])
def test_layers_called_with_no_rows_are_converted_by_their_numbers(name):
    """As an expert is to which no row is sent; rows that come later count as if they were all."""
    layer, (*_, given) = LAYERS[name]
    # rows of stacks are in the second dimension
    none = tuple(x[:, :0] if name == "experts" else x[:0] for x in given)
    for rounding in ("nearest", "adaptive"):
        found = []
        for batches in ([none], [none, given], [given]):
            model = Beside(copy.deepcopy(layer))
            report = convert_model(model, lns4f1, scale="output", rounding=rounding, calibrate=batches)
            found.append((report["layer.weight"].output_sqnr, model.layer.weight.codes))
        (without, _), (mixed, codes), (sqnr, expected) = found
        assert without is None
        assert mixed == sqnr is not None
        assert torch.equal(codes, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_moments_in_inference_mode_are_the_same(name):
    layer, batches = LAYERS[name]
    ((expected,),) = (part.values() for part in collect(layer, {"weight": layer.weight}, batches))
    with torch.inference_mode():
        # one that was made in it, too
        for own in (layer, copy.deepcopy(layer)):
            ((moments,),) = (part.values() for part in collect(own, {"weight": own.weight}, batches))
            assert moments.products.keys() == expected.products.keys()
            assert all(torch.equal(h, expected.products[use]) for use, h in moments.products.items())
            assert (moments.counts is None) == (expected.counts is None)
            assert moments.counts is None or torch.equal(moments.counts, expected.counts)


def test_attention_that_torch_would_fuse_is_seen():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    report = convert_model(layer, lns4f1, scale="output", rounding="adaptive", calibrate=[images(3, 5, 16)])
    seen = {p.name for p in report if p.output_sqnr is not None}
    matrices = {"self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"}
    assert seen == matrices
    assert all(report[name].output_sqnr > report[name].weight_sqnr for name in seen)


def test_the_report_as_text():
    report = convert_model(network(), lns8f4, calibrate=[images(5, 6)])
    lines = str(report).splitlines()
    assert lines[0].endswith("zeros re-drawn  SQNR, dB  of outputs")
    assert lines[1].split()[-2:] == [f"{report['0.weight'].weight_sqnr:.2f}", f"{report['0.weight'].output_sqnr:.2f}"]
    assert lines[2].split()[-1] == f"{report['0.bias'].weight_sqnr:.2f}"


# -------------------------------------------------------------------------------------------------------------- options


def test_rules_by_name():
    model = network()
    rules = {"0.*": "max", "*.weight": "mse"}
    convert_model(model, lns6f2, scale=rules, rounding={"4.*": "nearest_value"}, p_scale={"*": 2.0})
    expected = {
        name: LNSWeight.from_float(p.to_float(), lns6f2, log_offset="fit").log_offset
        for name, p in model.named_parameters()
    }
    assert model[0].weight.log_offset == expected["0.weight"]
    assert model[0].bias.log_offset == expected["0.bias"]
    assert [tuple(p.fit) for p in model.parameters()] == [
        *[("max", 2.0)] * 2, ("mse", 2.0), ("rms", 2.0), ("mse", 2.0), ("rms", 2.0)
    ]  # fmt: skip


@pytest.mark.parametrize("scale", ["rms", "max", "mse", "output"])
@pytest.mark.parametrize("rounding", ["nearest", "nearest_value", "adaptive"])
def test_parameters_of_no_and_of_one_element(scale, rounding):
    shapes = [(0,), (0, 32), (3, 0), (2, 0, 32), (), (1,), (1, 1)]
    for granularity in ({}, {"per_channel": True}, {"group_size": 16}):
        model = nn.Linear(2, 2)
        for i, shape in enumerate(shapes):
            model.register_parameter(f"p{i}", nn.Parameter(torch.full(shape, -0.7)))
        report = convert_model(model, lns4f1, scale=scale, rounding=rounding, calibrate=[images(4, 2)], **granularity)
        for i, shape in enumerate(shapes):
            own = model.get_parameter(f"p{i}")
            assert own.shape == shape
            assert report[f"p{i}"].output_sqnr is None
            # codes of base sqrt(2) are within a factor of 2^(1/4) of a number that they hold
            assert bool(((own.to_float() / -0.7).log2().abs() <= 0.2501).all())


def test_headroom_beside_other_rules():
    """p_scale is refused where no parameter has a rule that looks at it, and nowhere else."""
    for rules in ({"0.*": "rms", "*": "mse"}, {"0.*": "mse"}):
        convert_model(network(), lns6f2, scale=rules, p_scale=2.0)
    for refused in ("mse", {"*": "mse"}, {"0.*": "max", "*": "mse"}):
        with pytest.raises(ValueError, match="headroom of scale='rms': leave it out"):
            convert_model(network(), lns6f2, scale=refused, p_scale=2.0)


@pytest.mark.parametrize("granularity", [{}, {"per_channel": True}, {"group_size": 16}], ids=str)
def test_max_is_the_least_at_which_nothing_saturates(granularity):
    torch.manual_seed(0)
    layer = nn.Linear(48, 5, bias=False)
    w = layer.weight.detach().numpy().copy()
    convert_model(layer, lns6f2, scale="max", **granularity)
    core = {"channels": 0} if "per_channel" in granularity else granularity
    fitted = lnsnum.fit_log_offset(w, lns6f2, **core)
    np.testing.assert_array_equal(np.asarray(layer.weight.log_offset), getattr(fitted, "offsets", fitted))


def test_zeros_take_the_scale_of_all():
    layer = nn.Linear(32, 3, bias=False)
    with torch.no_grad():
        layer.weight[1] = 0
    usual = copy.deepcopy(layer)
    convert_model(usual, lns8f4, per_channel=True)
    for how in ({"scale": "max"}, {"scale": "mse"}, {"scale": "output", "calibrate": [images(4, 32)]}):
        for rounding in ("nearest", "nearest_value"):
            own = copy.deepcopy(layer)
            convert_model(own, lns8f4, per_channel=True, rounding=rounding, **how)
            assert not own.weight.codes[1].any()
            if how["scale"] != "output":
                assert own.weight.log_offset[1] == usual.weight.log_offset[1]


def test_codes_come_back_whatever_the_rule():
    """Numbers that were codes lose nothing, at every granularity."""
    for granularity in ({}, {"per_channel": True}, {"group_size": 16}):
        layer = nn.Linear(32, 4, bias=False)
        convert_model(layer, lns6f2, scale="mse", rounding="nearest_value", **granularity)
        values = layer.weight.to_float()
        for how in ({"scale": "max"}, {"scale": "mse"}, {"scale": "output", "rounding": "adaptive"}):
            own = nn.Linear(32, 4, bias=False)
            own.weight = nn.Parameter(values.clone())
            calibrate = {"calibrate": [images(4, 32)]} if how["scale"] == "output" else {}
            convert_model(own, lns6f2, **granularity, **how, **calibrate)
            assert torch.equal(own.weight.to_float(), values)


def test_values_that_float64_does_not_hold_are_refused_by_name():
    layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    nn.init.constant_(layer.weight, 5e307)  # three times which lies below the greatest float64, and the code above not
    with pytest.raises(ValueError, match="parameter 'weight': the greatest magnitude lies beyond float64"):
        convert_model(layer, lns4f1, rounding="nearest_value")
    convert_model(layer, lns4f1)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"scale": "best"}, ValueError, "scale='best' is not known: one of rms, max, mse, output"),
        ({"rounding": "up"}, ValueError, "rounding='up' is not known: one of nearest, nearest_value, adaptive"),
        ({"scale": "output"}, ValueError, "scale='output' needs calibrate: some inputs"),
        ({"rounding": {"*": "adaptive"}}, ValueError, "rounding='adaptive' needs calibrate"),
        ({"scale": "mse", "p_scale": 2.0}, ValueError, "p_scale=2.0 is the headroom of scale='rms': leave it out"),
        ({"scale": {"x*": "mse"}}, ValueError, "scale: no parameter's name matches 'x[*]'"),
        ({"calibrate": []}, ValueError, "calibrate has no batches"),
        ({"calibrate": 3}, TypeError, "calibrate=int has no batches"),
        ({"calibrate": images(2, 6)}, TypeError, "calibrate=Tensor is one batch, or none: give a list"),
        ({"calibrate": {"input": images(2, 6)}}, TypeError, "calibrate=dict is one batch, or none: give a list"),
        ({"calibrate": "loader"}, TypeError, "calibrate=str is one batch, or none: give a list"),
        (
            {"calibrate": [(images(2, 6), 1)]},
            TypeError,
            "Sequential does not take 2 arguments .*: give its inputs alone",
        ),
        ({"calibrate": [{"y": 1}]}, TypeError, "Sequential does not take .'y'. "),
        ({"calibrate": [images(2, 6)], "zeros": "redraw"}, ValueError, "zeros='redraw' puts other numbers"),
        ({"calibrate": [images(2, 6) * math.inf]}, ValueError, "product with '0.weight' is NaN, infinite"),
        ({"calibrate": [images(2, 6)], "filter_fn": lambda n, p: "bias" in n}, ValueError, "used none of the param"),
        ({"calibrate": [images(2, 6)], "dampening": 0.0}, ValueError, "dampening=0.0 is out of range"),
    ],
)
def test_refusals(arguments, error, match):
    model = network()
    with pytest.raises(error, match=match):
        convert_model(model, lns8f4, **arguments)
    assert not any(isinstance(p, LNSWeight) for p in model.parameters())
