"""convert_model and decode_model: every figure of the report is computed again from the weights before and after.

log_offset has an oracle in mpmath; the codes have `lnsnum.encode`, parameter by parameter.
"""

import copy
import math
from collections.abc import Mapping

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import lnsnum
from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns8f5, lns12f6, lns16f10, torch_bridge
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.torch_bridge import ConversionReport, LNSWeight, convert_model, decode_model, load_model, save_model
from lnsnum.torch_bridge.datapath import use_datapath
from lnsnum.torch_bridge.kernels.scale import fit_to_rms

torch.set_num_threads(1)

FORMATS = [lns8f5, lns8f3, lns12f6, lns16f10, lns6f2, lns4f1, LNSFormat(8, 0, base=1.05)]


def network(dtype=torch.float32, seed=0) -> nn.Sequential:
    """Two linear layers about a normalization; its weights are ones, two biases are zeros."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 4))
    nn.init.zeros_(model[2].bias)
    return model.to(dtype)


def state(model: nn.Module) -> dict[str, tuple]:
    """Everything about a model's parameters that a refused conversion must leave as it was: identity, too."""
    return {
        f"{i}.{name}": (id(p), type(p), p.dtype, p.requires_grad, None if p.is_meta else p.detach().clone())
        for i, module in enumerate(model.modules())
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False)
    }


def assert_untouched(model: nn.Module, before: dict[str, tuple]) -> None:
    after = state(model)
    assert after.keys() == before.keys()
    for name, (*kind, value) in before.items():
        assert after[name][:-1] == tuple(kind), name
        assert value is None or torch.equal(torch.nan_to_num(value), torch.nan_to_num(after[name][-1])), name


def exact_rms(w: np.ndarray) -> mpmath.mpf:
    with mpmath.workprec(300):
        return mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(x)) ** 2 for x in w.reshape(-1)) / w.size)


def least_offset(top: mpmath.mpf, fmt: LNSFormat) -> int:
    """The least log_offset whose greatest value is at or above `top`."""
    with mpmath.workprec(300):
        log = mpmath.log(top) / mpmath.log(mpmath.mpf(fmt.base)) * 2**fmt.fraction_bits
        nearest = mpmath.nint(log)
        is_whole = abs(log - nearest) < mpmath.mpf(2) ** -200
        return int(nearest if is_whole else mpmath.ceil(log)) - (2 ** (fmt.bits - 2) - 1)


# ----------------------------------------------------------------------------------------------------------- the report


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("p_scale", [3.0, 0.7])
def test_codes_offsets_and_figures(fmt, dtype, p_scale):
    """With zeros kept everything follows from the weights before."""
    model = network(dtype)
    before = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    report = convert_model(model, fmt, p_scale=p_scale, zeros="keep")
    assert isinstance(report, ConversionReport)
    assert [entry.name for entry in report] == list(before) == [name for name, _ in model.named_parameters()]
    assert len(report) == len(report.parameters) == 6
    assert report.left_float == ()
    for name, p in model.named_parameters():
        w, entry = before[name], report[name]
        rms = exact_rms(w)
        std = 0.1 if w.ndim == 1 else min(0.1, math.prod(w.shape[1:]) ** -0.5)  # of what could stand for zeros
        offset = least_offset(p_scale * (rms or mpmath.mpf(std)), fmt)
        assert isinstance(p, LNSWeight)
        assert isinstance(p, nn.Parameter)
        assert (p.fmt, p.dtype, p.log_offset, p.requires_grad) == (fmt, dtype, offset, True)
        codes = lnsnum.encode(w, fmt, underflow="saturate", log_offset=offset)
        np.testing.assert_array_equal(p.codes.numpy().view(fmt.dtype), codes)
        m = codes.astype(int) & fmt.max_magnitude
        decoded = lnsnum.decode(codes, fmt, log_offset=offset)
        error = np.linalg.norm(decoded - w) / np.linalg.norm(w) if w.any() else 0.0
        assert (entry.name, entry.format, entry.shape, entry.log_offset) == (name, fmt, w.shape, offset)
        assert entry.relative_error == pytest.approx(error, rel=1e-9, abs=1e-12)
        assert entry.at_ceiling == (m == fmt.max_magnitude).mean()
        assert entry.at_floor == (m == 1).mean()
        assert entry.zeros_redrawn == 0
        assert entry.zeros_kept == (w == 0).sum() == (m == 0).sum()
        np.testing.assert_array_equal(np.signbit(decoded[w != 0]), np.signbit(w[w != 0]))


@given(
    rms=st.one_of(st.floats(1e-300, 1e300), st.integers(-60, 60).map(lambda k: 2.0**k), st.just(0.0)),
    p_scale=st.sampled_from([1.0, 3.0, 0.5, 2.0, 0.1]),
    bits=st.integers(3, 16),
    fraction_bits=st.integers(0, 14),
    base=st.sampled_from([2.0, 2.0, 1.5, math.e, 1.001]),
)
@example(1.0, 1.0, 8, 5, 2.0)
@example(math.nextafter(1.0, 2), 1.0, 8, 5, 2.0)
@example(math.nextafter(1.0, 0), 1.0, 8, 5, 2.0)
@example(1.5, 1.0, 8, 0, 1.5)
@example(1e-300, 1.0, 16, 14, 1.001)
def test_fit_to_rms_is_the_least(rms, p_scale, bits, fraction_bits, base):
    fmt = LNSFormat(bits, min(fraction_bits, bits - 2), base=base)
    top = p_scale * rms
    expected = least_offset(mpmath.mpf(top), fmt) if top else 0
    if abs(expected) <= MAX_LOG_OFFSET:
        assert fit_to_rms(rms, fmt, p_scale) == expected
    else:
        with pytest.raises(ValueError, match=r"is too large: at most 2\^30 in size"):
            fit_to_rms(rms, fmt, p_scale)


def test_the_top_is_at_or_just_above_p_scale_times_rms():
    """RMS exactly 1 and 2, a p_scale that is a code: the top is met, not passed."""
    for value, p_scale, fmt, offset in ((1.0, 1.0, lns8f5, -63), (2.0, 1.0, lns8f5, -31), (1.0, 4.0, lns8f3, 16 - 63)):
        model = nn.Linear(8, 8, bias=False)
        nn.init.constant_(model.weight, value)
        report = convert_model(model, fmt, p_scale=p_scale)
        assert report["weight"].log_offset == offset
        top = float(lnsnum.decode([fmt.max_magnitude], fmt, log_offset=offset)[0])
        assert top == p_scale * value
        assert report["weight"].at_ceiling == (1.0 if p_scale == 1.0 else 0.0)
        assert report["weight"].relative_error == 0.0


def test_underflow_saturates_and_the_ceiling_clips():
    model = nn.Linear(4, 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([[10.0, -1e-6, 1e-30, 100.0]]))
    report = convert_model(model, lns8f5, p_scale=0.5)
    assert (model.weight.codes & 127).tolist()[0][1:] == [1, 1, 127]
    assert (model.weight.codes >= 128).tolist() == [[False, True, False, False]]
    entry = report["weight"]
    assert (entry.at_ceiling, entry.at_floor, entry.zeros_kept, entry.zeros_redrawn) == (0.25, 0.5, 0, 0)


def test_a_scalar_an_empty_parameter_and_a_frozen_one():
    model = nn.Module()
    model.scale = nn.Parameter(torch.tensor(-0.3))
    model.none = nn.Parameter(torch.zeros(0, 3))
    model.fixed = nn.Parameter(torch.ones(3), requires_grad=False)
    report = convert_model(model, lns8f5)
    assert model.scale.shape == ()
    assert model.scale.item() == pytest.approx(-0.3, rel=0.011)
    assert (model.none.shape, report["none"].at_floor, report["none"].log_offset) == ((0, 3), 0.0, 0)
    assert not model.fixed.requires_grad
    assert model.scale.requires_grad


def test_the_report_as_text_and_by_name():
    model = network()
    report = convert_model(model, {"*.weight": lns8f5, "0.bias": "lns12f6"})
    assert report.left_float == ("1.bias", "2.bias")
    lines = str(report).splitlines()
    assert len(lines) == 1 + len(report) + 2
    assert lines[0].split() == [
        "name",
        "format",
        "log_offset",
        "rel.",
        "error",
        "ceiling",
        "floor",
        "zeros",
        "re-drawn",
    ]
    assert lines[1].split()[:3] == ["0.weight", "lns8f5", str(report["0.weight"].log_offset)]
    assert lines[-1].split(maxsplit=1) == ["2.bias", "float"]
    with pytest.raises(KeyError, match="nothing"):
        report["nothing"]


def test_dtype_of_codes_and_no_float_left():
    model = network()
    convert_model(model, {"*.weight": lns16f10, "*": lns8f5})
    assert {p.codes.dtype for p in model.parameters()} == {torch.int16, torch.uint8}
    assert all(type(b) is torch.Tensor for b in model.buffers())


# ---------------------------------------------------------------------------------------------------------------- zeros


def with_zeros(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 30))
    with torch.no_grad():
        model[0].weight[::2] = 0
        model[0].bias.zero_()
        model[1].weight.zero_()
    return model


def test_zeros_are_redrawn_by_the_seed():
    codes = []
    for seed in (0, 0, 1):
        model = with_zeros()
        torch.manual_seed(seed + 17)  # which must not matter
        state_of_generator = torch.get_rng_state()
        report = convert_model(model, lns12f6, zeros="redraw", seed=seed)
        assert torch.equal(torch.get_rng_state(), state_of_generator)
        assert [entry.zeros_redrawn for entry in report] == [1000, 40, 1200, 0]
        assert [entry.zeros_kept for entry in report] == [0, 0, 0, 0]
        assert all((p.codes & lns12f6.max_magnitude).all() for p in model.parameters())
        codes.append([p.codes.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(codes[0], codes[1], strict=True))
    same = [torch.equal(a, b) for a, b in zip(codes[0], codes[2], strict=True)]
    assert same == [False, False, False, True]


@pytest.mark.parametrize("zero_std", [0.1, 0.02])
def test_redrawn_numbers_are_normal_with_the_deviation_asked_or_the_rms(zero_std):
    model = with_zeros()
    kept = model[0].weight.detach().clone()
    report = convert_model(model, lns16f10, zeros="redraw", zero_std=zero_std)
    rms = float(kept.double().square().mean().sqrt())
    weight = model[0].weight.to_float(torch.float64)
    redrawn = weight[::2].reshape(-1)
    std = min(zero_std, rms)
    assert rms < 0.1
    assert float(redrawn.std()) == pytest.approx(std, rel=0.1)
    assert abs(float(redrawn.mean())) < 4 * std / math.sqrt(redrawn.numel())
    assert torch.allclose(weight[1::2].float(), kept[1::2], rtol=1e-3, atol=0.05 * rms)
    assert report["0.weight"].log_offset == least_offset(3 * exact_rms(kept.double().numpy()), lns16f10)
    everything_zero = model[1].weight.to_float(torch.float64)
    assert float(everything_zero.std()) == pytest.approx(zero_std, rel=0.1)
    top = float(lnsnum.decode([lns16f10.max_magnitude], lns16f10, log_offset=report["1.weight"].log_offset)[0])
    assert top == pytest.approx(3 * float(everything_zero.square().mean().sqrt()), rel=0.01)
    assert report["1.weight"].relative_error < 0.03


def test_zeros_are_kept():
    model = with_zeros()
    report = convert_model(model, lns8f5)
    assert [entry.zeros_kept for entry in report] == [1000, 40, 1200, 0]
    assert [entry.zeros_redrawn for entry in report] == [0, 0, 0, 0]
    assert not model[0].weight.codes[::2].any()
    assert not model[1].weight.codes.any()
    fan_in = math.prod(model[1].weight.shape[1:])
    assert model[1].weight.log_offset == least_offset(3 * mpmath.mpf(min(0.1, fan_in**-0.5)), lns8f5)
    assert report["1.weight"].relative_error == 0.0


def test_negative_zero_is_a_zero():
    model = nn.Linear(2, 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([[-0.0, 1.0]]))
    assert convert_model(copy.deepcopy(model), lns8f5, zeros="redraw")["weight"].zeros_redrawn == 1
    assert convert_model(model, lns8f5)["weight"].zeros_kept == 1


@pytest.mark.parametrize("padding_idx", [0, 3, -1])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_the_padding_row_is_kept(kind, padding_idx):
    torch.manual_seed(0)
    model = nn.Sequential(kind(7, 5, padding_idx=padding_idx), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].weight[2] = 0
    report = convert_model(model, lns8f5, zeros="redraw")
    zero_rows = (model[0].weight.codes == 0).all(1).nonzero().reshape(-1).tolist()
    assert zero_rows == [padding_idx % 7]
    assert (report["0.weight"].zeros_kept, report["0.weight"].zeros_redrawn) == (5, 5)


def test_the_padding_row_of_a_tied_embedding_is_kept():
    model = nn.ModuleDict({"head": nn.Linear(5, 7, bias=False), "embedding": nn.Embedding(7, 5, padding_idx=1)})
    model["head"].weight = model["embedding"].weight
    convert_model(model, lns8f5)
    assert (model["head"].weight.codes == 0).all(1).nonzero().tolist() == [[1]]


# ---------------------------------------------------------------------------------------------- which, and what formats


def formats_of(model: nn.Module) -> dict[str, str]:
    return {name: p.fmt.name if isinstance(p, LNSWeight) else "float" for name, p in model.named_parameters()}


def test_filter_fn_is_given_name_and_parameter():
    model, seen = network(), []

    def weights_only(name, parameter):
        seen.append((name, parameter))
        return parameter.ndim > 1

    expected = list(model.named_parameters())
    report = convert_model(model, "lns8f5", filter_fn=weights_only)
    assert [name for name, _ in seen] == [name for name, _ in expected]
    assert all(a is b for (_, a), (_, b) in zip(seen, expected, strict=True))
    assert [entry.name for entry in report] == ["0.weight", "2.weight"]
    assert report.left_float == ("0.bias", "1.weight", "1.bias", "2.bias")
    for name, p in model.named_parameters():
        assert isinstance(p, LNSWeight) == (name in ("0.weight", "2.weight"))
        assert isinstance(p, LNSWeight) or p is dict(expected)[name]


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"*": lns8f5}, ["lns8f5"] * 6),
        ({"*": "lns8f5"}, ["lns8f5"] * 6),
        ({"0.*": lns8f3, "*.weight": "lns12f6"}, ["lns8f3", "lns8f3", "lns12f6", "float", "lns12f6", "float"]),
        ({"*.weight": "lns12f6", "0.*": lns8f3}, ["lns12f6", "lns8f3", "lns12f6", "float", "lns12f6", "float"]),
        (
            {"[02].weight": lns8f5, "?.bias": lns16f10},
            ["lns8f5", "lns16f10", "float", "lns16f10", "lns8f5", "lns16f10"],
        ),
        ({"1.weight": lns4f1}, ["float", "float", "lns4f1", "float", "float", "float"]),
    ],
)
def test_the_first_pattern_that_matches_decides(mapping, expected):
    model = network()
    report = convert_model(model, mapping)
    names = [name for name, _ in model.named_parameters()]
    assert formats_of(model) == dict(zip(names, expected, strict=True))
    assert report.left_float == tuple(n for n, f in zip(names, expected, strict=True) if f == "float")


def test_any_mapping_is_taken_and_a_filter_besides():
    class Frozen(Mapping):
        def __getitem__(self, key):
            return {"*.weight": "lns8f5"}[key]

        def __iter__(self):
            return iter(["*.weight"])

        def __len__(self):
            return 1

    model = network()
    convert_model(model, Frozen(), filter_fn=lambda name, p: not name.startswith("1"))
    assert formats_of(model) == {
        "0.weight": "lns8f5",
        "0.bias": "float",
        "1.weight": "float",
        "1.bias": "float",
        "2.weight": "lns8f5",
        "2.bias": "float",
    }


# ------------------------------------------------------------------------------------ ties, structure, and the way back


class Twins(nn.Module):
    """One weight under three names, in two kinds of modules."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.a = nn.Linear(6, 9)
        self.b = nn.Linear(6, 9, bias=False)
        self.a.weight = self.b.weight = self.embedding.weight

    def forward(self, x):
        return self.a(self.embedding(x)) + self.b(self.embedding(x))


def test_tied_parameters_stay_tied():
    model = Twins()
    report = convert_model(model, lns8f5)
    assert [entry.name for entry in report] == ["embedding.weight", "a.bias"]
    assert model.embedding.weight is model.a.weight is model.b.weight
    model(torch.tensor([1, 2])).sum().backward()
    assert model.b.weight.grad is model.embedding.weight.grad
    decode_model(model)
    assert type(model.a.weight) is nn.Parameter
    assert model.embedding.weight is model.a.weight is model.b.weight


def test_a_module_used_twice_is_converted_once():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(convert_model(model, lns8f5)) == 2
    assert model[0].weight is model[2].weight


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_flat_weights_of_recurrent_modules_follow(kind):
    model = kind(3, 4, num_layers=2, bidirectional=True)
    convert_model(model, lns8f5)
    own = [getattr(model, name) for name in model._flat_weights_names]
    assert all(isinstance(p, LNSWeight) for p in own)
    assert all(a is b for a, b in zip(model._flat_weights, own, strict=True))
    model(torch.ones(2, 1, 3))[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    decode_model(model)
    assert all(type(p) is nn.Parameter for p in model._flat_weights)
    assert all(a is b for a, b in zip(model._flat_weights, model.parameters(), strict=True))


def test_parameters_in_lists_dictionaries_and_parametrizations():
    model = nn.Module()
    model.listed = nn.ParameterList([torch.randn(3), torch.randn(2)])
    model.named = nn.ParameterDict({"a": torch.randn(3)})
    model.layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    convert_model(model, lns8f5)
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    assert isinstance(model.listed[1], LNSWeight)
    assert isinstance(model.named["a"], LNSWeight)
    model.layer(torch.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in model.layer.parameters())


def test_requires_grad_dtype_and_mode_are_kept():
    model = network(torch.bfloat16)
    model[0].weight.requires_grad_(False)
    model.eval()
    convert_model(model, lns8f5)
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert not model.training
    decode_model(model)
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_decode_model_gives_the_values_and_converting_again_the_codes():
    for fmt in FORMATS:
        model = network()
        report = convert_model(model, {"*.weight": fmt})
        codes = {name: p.codes.clone() for name, p in model.named_parameters() if isinstance(p, LNSWeight)}
        untouched = {name: p for name, p in model.named_parameters() if not isinstance(p, LNSWeight)}
        values = {name: p.to_float() for name, p in model.named_parameters() if isinstance(p, LNSWeight)}
        assert decode_model(model) is model
        assert all(type(p) is nn.Parameter for p in model.parameters())
        for name, p in model.named_parameters():
            assert p is untouched[name] if name in untouched else torch.equal(p, values[name])
        for name in codes:
            p = dict(model.named_parameters())[name]
            again = LNSWeight.from_float(p, fmt, log_offset=report[name].log_offset)
            assert torch.equal(again.codes, codes[name])


def test_decode_model_leaves_float_models_alone():
    model = network()
    before = state(model)
    assert decode_model(model) is model
    assert_untouched(model, before)


def test_the_old_parameters_are_not_changed():
    model = network()
    old = dict(model.named_parameters())
    values = {name: p.detach().clone() for name, p in old.items()}
    convert_model(model, lns8f5)
    assert all(torch.equal(old[name], value) for name, value in values.items())


# ------------------------------------------------------------------------------------------------------------ bad input


def broken(change):
    """A network, spoiled."""
    model = network()
    change(model)
    return model


def put(name, values, **arguments):
    def change(model):
        setattr(model[2], name, nn.Parameter(values, **arguments))

    return change


NAN_AND_INF = torch.tensor([1.0, math.nan, -math.inf, math.inf])

BAD = {
    "no parameters": (lambda: nn.ReLU(), {}, ValueError, r"the model \(ReLU\) has no parameters: there is nothing"),
    "no module": (lambda: "model", {}, TypeError, r"model is a str, not a torch.nn.Module"),
    "integer": (
        lambda: broken(put("bias", torch.ones(4, dtype=torch.int64), requires_grad=False)),
        {},
        TypeError,
        r"parameter '2.bias' is of torch.int64: LNS holds real floating-point numbers; leave it out with filter_fn",
    ),
    "complex": (
        lambda: broken(put("bias", torch.ones(4, dtype=torch.complex64))),
        {},
        TypeError,
        r"parameter '2.bias' is of torch.complex64",
    ),
    "NaN and inf": (
        lambda: broken(put("bias", NAN_AND_INF)),
        {},
        ValueError,
        r"parameter '2.bias' has 3 values that are NaN or infinite",
    ),
    "half inf": (
        lambda: broken(put("bias", torch.full((4,), math.inf, dtype=torch.float16))),
        {},
        ValueError,
        r"parameter '2.bias' has 4 values",
    ),
    "meta": (
        lambda: network().to("meta"),
        {},
        ValueError,
        r"parameter '0.weight' is on the meta device: it has no values",
    ),
    "converted": (
        lambda: broken(lambda m: convert_model(m[2], lns8f5)),
        {},
        ValueError,
        r"parameter '2.weight' is an LNSWeight already",
    ),
    "pattern": (
        network,
        {"fmt": {"*.weight": lns8f5, "3.*": lns8f5}},
        ValueError,
        r"no parameter's name matches '3.\*'; the first name is '0.weight'",
    ),
    "filter": (
        network,
        {"filter_fn": lambda name, p: False},
        ValueError,
        r"filter_fn chose no parameter: there is nothing to convert",
    ),
    "format name": (network, {"fmt": "float8"}, ValueError, r"'float8' is no format name"),
    "format name in a mapping": (network, {"fmt": {"*": "lns8f9"}}, ValueError, r"fraction_bits=9 does not fit bits=8"),
    "format type": (network, {"fmt": 8}, TypeError, r"a format name is a string such as 'lns8f5', not 8"),
    "p_scale 0": (network, {"p_scale": 0.0}, ValueError, r"p_scale=0.0 is out of range"),
    "p_scale negative": (network, {"p_scale": -1.0}, ValueError, r"p_scale=-1.0 is out of range"),
    "p_scale inf": (network, {"p_scale": math.inf}, ValueError, r"p_scale=inf is out of range"),
    "p_scale nan": (network, {"p_scale": math.nan}, ValueError, r"p_scale=nan is out of range"),
    "zero_std": (network, {"zero_std": 0.0}, ValueError, r"zero_std=0.0 is out of range"),
    "zeros": (network, {"zeros": "drop"}, ValueError, r"zeros='drop' is not known: one of redraw, keep"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_changes_nothing(name):
    make, arguments, error, message = BAD[name]
    model = make()
    before = state(model) if isinstance(model, nn.Module) else None
    with pytest.raises(error, match=message) as caught:
        convert_model(model, **{"fmt": lns8f5, **arguments})
    assert "\n" not in str(caught.value)
    if before is not None:
        assert_untouched(model, before)


def test_what_is_left_out_may_be_anything():
    """Integers, NaN and weights converted before are no obstacle where the filter or the patterns leave them out."""
    model = broken(put("bias", NAN_AND_INF))
    convert_model(model[0], lns8f3)
    model[1].bias = nn.Parameter(torch.ones(30, dtype=torch.int32), requires_grad=False)
    report = convert_model(model, {"2.weight": lns8f5, "1.weight": lns8f5})
    assert [entry.name for entry in report] == ["1.weight", "2.weight"]
    assert formats_of(model)["0.weight"] == "lns8f3"


def test_an_error_of_the_filter_changes_nothing():
    model = network()
    before = state(model)
    with pytest.raises(ZeroDivisionError):
        convert_model(model, lns8f5, filter_fn=lambda name, p: 1 // (p.ndim - 1))
    assert_untouched(model, before)


@pytest.mark.parametrize(
    "door",
    [
        decode_model, torch_bridge.parameter_groups, torch_bridge.use_weight_only, torch_bridge.for_export,
        torch_bridge.log_offsets, use_datapath, lambda model: save_model("model.safetensors", model),
        lambda model: load_model("model.safetensors", model),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", [[nn.Linear(1, 1)], "model.safetensors", None])
def test_what_is_no_module_is_refused(door, model):
    with pytest.raises(TypeError, match=rf"^model is a {type(model).__name__}, not a torch\.nn\.Module$"):
        door(model)


@pytest.mark.parametrize("value", [1e200, 1e-200])
def test_extreme_float64_weights(value):
    model = nn.Linear(3, 2).double()
    nn.init.constant_(model.weight, value)
    report = convert_model(model, lns8f5)
    assert report["weight"].relative_error < 0.02


def test_a_pattern_may_name_a_tied_parameter_by_its_other_name():
    convert_model(Twins(), {"b.weight": lns8f5})
    model = Twins()
    rms = float(model.a.weight.detach().double().square().mean().sqrt())
    report = convert_model(model, lns8f5, p_scale={"b.weight": 40.0, "*": 3.0})
    assert report["embedding.weight"].log_offset == fit_to_rms(rms, lns8f5, 40.0)
    for option in ("channels", "group_size"):
        model = module_of(a=torch.randn(4, 32))
        model.b = model.a
        convert_model(model, lns8f5, **{option: {"b": 0 if option == "channels" else 16}})
        assert model.a is model.b
        assert model.a.log_offset.shape == ((4, 1) if option == "channels" else (4, 2))
    with pytest.raises(ValueError, match=r"^p_scale: no parameter's name matches 'c'$"):
        convert_model(Twins(), lns8f5, p_scale={"c": 2.0})


def test_an_empty_mapping_is_told_as_one():
    with pytest.raises(ValueError, match=r"pattern|mapping|format"):
        convert_model(network(), {})


def test_formats_too_wide_are_told_as_such():
    with pytest.raises(NotImplementedError, match="wider than 16 bits"):
        convert_model(network(), "lns32f23")


# --------------------------------------------------------------------------------------------------------------- memory


def module_of(**parameters: torch.Tensor) -> nn.Module:
    model = nn.Module()
    for name, tensor in parameters.items():
        model.register_parameter(name, nn.Parameter(tensor))
    return model


def with_buffer(p: torch.Tensor, buffer: torch.Tensor) -> nn.Module:
    model = module_of(p=p)
    model.register_buffer("buffer", buffer)
    return model


LONG, WHOLE = torch.randn(100), torch.randn(6, 5)

SHARED = {
    "a slice": (lambda: module_of(p=LONG[:50]), r"parameter 'p' is a view: 200 of the 400 bytes of another tensor"),
    "a column": (lambda: module_of(p=WHOLE[:, 1]), r"parameter 'p' is a view: 24 of the 120 bytes"),
    "an expanded row": (lambda: module_of(p=WHOLE[:1].expand(6, 5)), r"parameter 'p' is expanded"),
    "an expanded number": (lambda: module_of(p=torch.tensor(1.0).expand(3)), r"parameter 'p' is expanded"),
    "a zero stride of a larger size": (
        lambda: module_of(p=torch.ones(3, 1).expand(3, 4)),
        r"parameter 'p' is expanded, several elements in one place",
    ),
    "elements that overlap": (lambda: module_of(p=torch.arange(4.0).as_strided((2, 2), (1, 1))), r"parameter 'p'"),
    "twice the same memory": (lambda: module_of(p=WHOLE, q=WHOLE), r"parameter 'p' shares memory with 'q'"),
    "turned": (lambda: module_of(p=WHOLE, q=WHOLE.t()), r"parameter 'p' shares memory with 'q'"),
    "the whole and a row": (lambda: module_of(p=WHOLE, q=WHOLE[2]), r"parameter 'p' shares memory with 'q'"),
    "halves that overlap": (lambda: module_of(p=LONG[:50], q=LONG[25:75]), r"parameter 'p'"),
    "a buffer on the same memory": (lambda: with_buffer(WHOLE, WHOLE), r"parameter 'p'"),
    "a buffer on a part of it": (lambda: with_buffer(WHOLE, WHOLE[1]), r"parameter 'p'"),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", SHARED)
def test_parameters_on_the_memory_of_others_are_refused_and_nothing_changes(name, per_channel):
    make, message = SHARED[name]
    model = make()
    before = state(model)
    with pytest.raises(ValueError, match=message) as caught:
        convert_model(model, lns8f5, per_channel=per_channel)
    assert "\n" not in str(caught.value)
    assert "nn.Parameter(p.detach().clone())" in str(caught.value)
    assert_untouched(model, before)


def test_the_mend_that_the_message_names_works():
    model = module_of(p=LONG[:50])
    model.p = nn.Parameter(model.p.detach().clone())
    assert len(convert_model(model, lns8f5)) == 1


def test_parameters_side_by_side_in_one_buffer_are_converted():
    """A flat buffer that they fill without overlapping, as FSDP and optimizers lay them out."""
    torch.manual_seed(0)
    flat = torch.randn(70)
    values = flat.clone()
    model = module_of(p=flat[:30].view(6, 5), q=flat[30:50], r=flat[50:].view(5, 4).t())
    convert_model(model, lns16f10)
    assert torch.equal(flat, values)
    for p, expected in ((model.p, flat[:30].view(6, 5)), (model.q, flat[30:50]), (model.r, flat[50:].view(5, 4).t())):
        assert isinstance(p, LNSWeight)
        assert p.codes.untyped_storage().nbytes() == p.codes.nbytes
        np.testing.assert_allclose(p.detach().to_float(), expected, rtol=1e-3)
        p.detach().rescale_(0)


@pytest.mark.parametrize(
    "parameter",
    [
        lambda: torch.randn(5, 6).t(),
        lambda: torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        lambda: torch.randn(()),
        lambda: torch.zeros(0, 3),
        lambda: torch.zeros(3, 0).expand(3, 0),
        lambda: torch.randn(1, 5).expand(1, 5),
    ],
)
@pytest.mark.parametrize("per_channel", [False, True])
def test_any_layout_of_ones_own_memory_is_converted(parameter, per_channel):
    torch.manual_seed(0)
    value = parameter()
    model = module_of(p=value)
    convert_model(model, lns16f10, per_channel=per_channel, zeros="keep", p_scale=10.0)
    assert model.p.shape == value.shape
    floats = model.p.detach().to_float()
    assert bool(((floats - value).abs() <= 1e-3 * value.abs() + 1e-3).all())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("kind", "memory_format"), [(nn.Conv2d, torch.channels_last), (nn.Conv3d, torch.channels_last_3d)]
)
def test_the_order_of_the_memory_is_kept(kind, memory_format, per_channel, tmp_path):
    """That of the codes, and of the floats again; the codes are those of the contiguous layer."""
    torch.manual_seed(0)
    contiguous = kind(3, 4, 2)
    layer = copy.deepcopy(contiguous).to(memory_format=memory_format)
    strides = layer.weight.stride()
    assert strides != contiguous.weight.stride()
    for model in (contiguous, layer):
        convert_model(model, lns8f5, per_channel=per_channel)
    assert layer.weight.stride() == layer.weight.codes.stride() == strides
    assert layer.weight.is_whole()
    assert torch.equal(layer.weight.codes, contiguous.weight.codes)
    fresh = kind(3, 4, 2).to(memory_format=memory_format)
    load_model(save_model(tmp_path / "m.safetensors", contiguous), fresh)
    assert fresh.weight.stride() == fresh.weight.codes.stride() == strides
    assert torch.equal(fresh.weight.codes, contiguous.weight.codes)
    floats = decode_model(layer).weight
    assert floats.stride() == strides
    assert LNSWeight.from_float(floats, lns8f5).stride() == strides


@pytest.mark.parametrize("filter_fn", [None, lambda name, p: p.ndim > 1])
def test_a_lazy_module_is_called_first(filter_fn):
    model = nn.Sequential(nn.Linear(2, 4), nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"parameter '1.weight' has no values yet: call its lazy module once"):
        convert_model(model, lns8f5, filter_fn=filter_fn)
    assert type(model[0].weight) is nn.Parameter
    model(torch.ones(1, 2))
    assert len(convert_model(model, lns8f5)) == 4


def test_what_shares_memory_may_stay_float():
    model = module_of(p=WHOLE, q=WHOLE[2], r=torch.randn(3))
    assert [entry.name for entry in convert_model(model, {"r": lns8f5})] == ["r"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("per_channel", [False, True])
def test_recurrent_and_tied_weights_are_no_shared_memory(kind, per_channel):
    model = nn.ModuleDict({"r": kind(3, 4, num_layers=2), "twins": Twins()})
    convert_model(model, lns8f5, per_channel=per_channel)
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    assert model["twins"].a.weight is model["twins"].embedding.weight


def test_each_parameter_takes_the_headroom_of_the_first_pattern_that_matches():
    models = [nn.Linear(6, 5) for _ in range(3)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    report = convert_model(models[0], lns8f5, p_scale={"weight": 12.0, "w*": 1.0})
    alone = convert_model(models[1], lns8f5, p_scale=12.0)
    default = convert_model(models[2], lns8f5)
    assert report["weight"].log_offset == alone["weight"].log_offset == default["weight"].log_offset + 64
    assert report["bias"].log_offset == default["bias"].log_offset
    with pytest.raises(ValueError, match=r"p_scale=0.0 is out of range"):
        convert_model(nn.Linear(6, 5), lns8f5, p_scale={"*": 0.0})
    with pytest.raises(ValueError, match=r"p_scale: no parameter's name matches 'wieght'"):
        convert_model(nn.Linear(6, 5), lns8f5, p_scale={"wieght": 2.0})
