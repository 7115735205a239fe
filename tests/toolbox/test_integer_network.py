"""Networks as programs of integers: each bit of the outputs is what the datapath in Python says; what is refused."""

import subprocess

import numpy as np
import pytest
import torch
from c_compiler import needs_gcc
from c_networks import INTEGER_DUMP, SANITIZE, STRICT, check_outputs, run, trained
from torch import nn

from lnsnum import LNSFormat
from lnsnum.toolbox.network import export_network
from lnsnum.torch_bridge import convert_model
from lnsnum.torch_bridge.datapath import Accumulator, FixedPoint, Numbers, datapath, use_datapath
from lnsnum.torch_bridge.integer_layers import integer_layers
from lnsnum.torch_bridge.integer_twin import integer_twin
from lnsnum.torch_bridge.sequential import NetworkError, read_sequential


def features():
    return nn.Sequential(
        nn.Linear(6, 40), nn.BatchNorm1d(40), nn.ReLU6(), nn.Linear(40, 9), nn.Hardtanh(-0.25, 3.0), nn.Linear(9, 4)
    )


def images():
    return nn.Sequential(
        nn.MaxPool2d((1, 2), stride=1),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2), groups=2, bias=False),
        nn.BatchNorm2d(6),
        nn.Hardtanh(-0.5, 1.5),
        nn.MaxPool2d(3, stride=2, padding=1, dilation=1),
        nn.Sequential(nn.Conv2d(6, 8, 3, padding="same"), nn.Dropout(0.5), nn.ReLU()),
        nn.AvgPool2d((2, 1), padding=(1, 0)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


MIXED = {
    "0": {"accumulate": Accumulator("lns10f5", log_offset=-20), "activations": Numbers("lns6f2", scale=-5)},
    "3": {"accumulate": FixedPoint(9), "weights": Numbers("lns5f2")},
}
"""Other numbers in each layer: sums that saturate, terms that underflow, few bits, weights in another format."""

NETWORKS = {
    "features, logarithmic": (features, (6,), {"per_channel": True}, "activations=lns8f3,accumulate=lns12f7"),
    "features, fixed point": (features, (6,), {"fmt": "lns7f4"}, "activations=lns8f5,accumulate=fixed:16"),
    "images, logarithmic": (images, (4, 11, 9), {}, "activations=lns7f3,accumulate=lns11f6"),
    "images, fixed point": (images, (4, 11, 9), {"per_channel": True}, "activations=lns8f3,accumulate=fixed:20"),
    "mixed": (features, (6,), {}, datapath(activations="lns8f3", accumulate=Accumulator("lns12f6"), layers=MIXED)),
}


@needs_gcc
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_datapath(name, tmp_path):
    """Bit for bit, under the sanitizers; inputs of all kinds: of any size, NaN, infinite, subnormal, -0."""
    make, shape, options, setting = NETWORKS[name]
    torch.manual_seed(0)
    model = trained(make(), shape, **options)
    examples = torch.randn(50, *shape)
    folder = tmp_path / "net"
    done = export_network(model, shape, folder, datapath=setting, examples=examples)
    (folder / "dump.c").write_text(INTEGER_DUMP)
    command = ["gcc", *STRICT, *SANITIZE, "dump.c", "net_network.c", "-o", "dump"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    x = torch.cat(
        [torch.randn(60, *shape), torch.randn(40, *shape) * torch.logspace(-5, 5, 40).reshape(-1, *[1] * len(shape))]
    )
    for row, value in enumerate((0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e-45, -1e-38, 3e38, 1.0)):
        x[row].reshape(-1)[:: 1 + row % 3] = value
    outputs, classes = run(folder, "dump", x)
    twin = integer_twin(model, shape, setting, examples)
    last = integer_layers(twin).products[-1]
    expected = twin(x).numpy()
    check_outputs(outputs, classes, expected, last)
    assert np.isnan(expected).any(axis=1).sum() == 1
    assert len(np.unique(expected)) > 50
    # two arrays of bytes, and the twin is still the network
    assert done.network["written_bytes"] <= 2 * max(np.prod(shape), *integer_layers(twin).network.sizes)
    assert done.to_json()["network"]["integers"]["accumulator"] == last.accumulator.name


def test_a_batch_normalization_becomes_a_scale_on_the_grid_of_codes():
    """y - beta of the twin is that of the model, times a factor of each channel within half a step of 1."""
    torch.manual_seed(2)
    model = trained(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)), (3, 6, 6))
    with torch.no_grad():
        model[1].weight[3] = 0.0
    twin = integer_twin(model, (3, 6, 6), "activations=lns8f3,accumulate=fixed:20", torch.randn(4, 3, 6, 6))
    x = torch.randn(50, 3, 6, 6)
    beta = model[1].bias.detach().to(torch.float32).reshape(-1, 1, 1)
    with torch.no_grad():
        expected, found = model(x) - beta, twin.model(x) - beta
    slope = (expected * found).sum((0, 2, 3)) / (expected * expected).sum((0, 2, 3))
    slope[3] = 1.0
    assert (slope.log2().abs() * 32 <= 0.5 + 0.05).all()
    off = (found - slope.reshape(-1, 1, 1) * expected).abs().amax((0, 2, 3))
    assert (off <= 2e-3 * expected.abs().amax((0, 2, 3)) + 2e-3).all()


def test_a_layer_that_is_called_twice_is_two(tmp_path):
    """Each with its own scale, and the batch normalization that follows it there; floats leave nothing out either."""
    torch.manual_seed(0)
    layer, act = nn.Linear(5, 5), nn.ReLU()
    model = trained(nn.Sequential(layer, nn.BatchNorm1d(5), act, layer, nn.BatchNorm1d(5), act, nn.Linear(5, 3)), (5,))
    x = torch.randn(30, 5)
    twin = integer_twin(model, (5,), "activations=lns8f5,accumulate=fixed:20", x)
    assert twin.formats("0") != twin.formats("3")
    with torch.no_grad():
        expected = model(x)
        assert (twin.model(x) - expected).abs().max() < 0.05 * expected.abs().max()
    kinds = [type(layer).__name__ for layer in read_sequential(model, (5,)).layers]
    assert kinds == ["Product", "Activation"] * 2 + ["Product"]


def test_a_models_own_datapath_is_written(tmp_path):
    torch.manual_seed(0)
    model = trained(features(), (6,))
    x = torch.randn(20, 6)
    given = export_network(
        model, (6,), tmp_path / "a", prefix="n", datapath="activations=lns8f3,accumulate=lns12f7", examples=x
    )
    use_datapath(model, "activations=lns8f3,accumulate=lns12f7")
    own = export_network(model, (6,), tmp_path / "b", prefix="n", examples=x)
    assert own.network == given.network
    text = (tmp_path / "a" / "n_network.c").read_text()
    assert (tmp_path / "b" / "n_network.c").read_text() == text
    assert "float" not in text.replace("const float *input", "").replace("bits of a float", "").replace(
        "codes_of_floats", ""
    )


LNS = "activations=lns8f3,accumulate=lns12f7"


def one_layer(*more):
    return lambda: nn.Sequential(nn.Linear(4, 2), *more)


def in_fixed_point(**activations):
    return datapath(activations=Numbers("lns8f3", **activations), accumulate=FixedPoint(20))


IN_FLOAT = datapath(activations="lns8f3", accumulate=FixedPoint(20), layers={"0": None})
AT_THE_BORDER = nn.AvgPool2d(2, padding=1, count_include_pad=False)
A = "activations=lns8f3,accumulate="
REFUSED = [
    (one_layer(nn.ReLU()), LNS, r"layer 1 \(ReLU\) stands behind the last layer"),
    (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), LNS, r"layer 0 \(BatchNorm1d\) follows no layer with"),
    (one_layer(nn.LeakyReLU(), nn.Linear(2, 2)), LNS, r"layer 1 \(LeakyReLU\) multiplies outside of a sum"),
    (one_layer(), "lns_madam_8bit", "layer 0 has accumulate='float32', sums of floats"),
    (one_layer(), LNS + "/pairwise", "has order pairwise: .* of sequential alone"),
    (one_layer(), LNS + "/mitchell", "has gaussian_log Mitchell: .* of Exact alone"),
    (one_layer(), LNS + "/dynamic", "has a dynamic accumulator, whose range goes by"),
    (one_layer(), "activations=lns9f3,accumulate=lns12f7", "activations of lns9f3: formats of at most 8 bits"),
    (one_layer(), A + "lns8f3", "layer 0: the accumulator lns8f3 is narrower"),
    (one_layer(), A + "lns16f13", "layer 0 has an accumulator of lns16f13: .* take one of"),
    (one_layer(), A + "fixed:30", "adds 4 products and a bias in fixed:30, .* at most fixed:28"),
    (one_layer(), in_fixed_point(scale="channel"), "of the scale 'channel', which depends"),
    (one_layer(), in_fixed_point(rounding="up"), "rounded up: nearest can"),
    (one_layer(), IN_FLOAT, "layer 0 is in float"),
    (lambda: nn.Sequential(AT_THE_BORDER, nn.Conv2d(1, 1, 1)), LNS, "divides by fewer at the border"),
    (
        lambda: nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)),
        LNS,
        r"layer 2 \(BatchNorm1d\) has 4 factors, and layer 0 before it 1 outputs",
    ),
    (one_layer(nn.GELU()), LNS, "layer 1 is a GELU, which cannot be written"),
]


@pytest.mark.parametrize(("make", "setting", "why"), REFUSED, ids=[why[:30] for *_, why in REFUSED])
def test_what_integers_cannot_compute_is_refused_by_name(make, setting, why, tmp_path):
    model = make().eval()
    shape = (1, 4, 4) if isinstance(model[0], nn.AvgPool2d) else (4,)
    convert_model(model, "lns8f5")
    with pytest.raises(NetworkError, match=why):
        export_network(model, shape, tmp_path / "out", datapath=setting, examples=torch.randn(5, *shape))
    assert list(tmp_path.iterdir()) == []


def test_scales_need_examples_or_are_given():
    model = trained(nn.Sequential(nn.Linear(4, 2)), (4,))
    with pytest.raises(TypeError, match=r"setting=8 is a int: give a datapath"):
        integer_twin(model, (4,), 8)
    with pytest.raises(ValueError, match=r"examples of shape \(3, 5\) are no inputs of shape \(4,\)"):
        integer_twin(model, (4,), LNS, torch.ones(3, 5))
    with pytest.raises(NetworkError, match="layer 0 has activations of the scale 'max', which is chosen by examples"):
        integer_twin(model, (4,), LNS)
    with pytest.raises(NetworkError, match="the network has no datapath: give one"):
        integer_twin(model, (4,))
    given = datapath(activations=Numbers(LNSFormat(8, 3), scale=-7), accumulate=Accumulator("lns12f7"))
    assert integer_twin(model, (4,), given).formats("0").activations.scale == -7
