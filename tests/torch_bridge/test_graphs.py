"""Models for exporters: codes in plain buffers, decoded by a look-up; programs of torch.export, torch.jit's traces."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import export

from lnsnum import LNSFormat, decode
from lnsnum.torch_bridge import LNSWeight, convert_model, decode_model, for_export, use_weight_only

FORMATS = [
    LNSFormat(8, 5),
    LNSFormat(3, 1),
    LNSFormat(8, 0, base=1.9),
    LNSFormat(8, 6, base=10.0),
    LNSFormat(12, 7),
    LNSFormat(16, 3),
    LNSFormat(16, 14),
]
SCALES = [0, -212, 77, 2**30, -(2**30)]


def every_code(fmt):
    codes = np.arange(1 << fmt.bits).astype(fmt.dtype)
    return torch.from_numpy(codes.view(np.int16 if fmt.bits > 8 else np.uint8))


class Holder(nn.Module):
    """A weight that is the output."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return self.weight + x


ZERO = torch.zeros(())


def bits_of(x):
    return x.detach().contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[x.dtype.itemsize])


def rows(fmt):
    """Each code so often that a byte and a table are less than the floats."""
    return every_code(fmt).expand(8 if fmt.bits > 8 else 6, -1).contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_every_code_has_the_float_of_decode(fmt, dtype):
    """By one table, and by the channels' places in one; the oracle is `lnsnum.decode`."""
    name = str(dtype).removeprefix("torch.")
    codes = rows(fmt)
    words = codes.numpy().view(fmt.dtype)
    offsets = np.resize(np.array(SCALES, np.int32), (len(codes), 1))
    for log_offset in (*SCALES[:3], torch.from_numpy(offsets)):
        exported = for_export(Holder(LNSWeight(codes, fmt, log_offset, dtype)))
        scale = offsets if isinstance(log_offset, torch.Tensor) else log_offset
        expected = decode(words, fmt, name, log_offset=scale)
        assert exported.weight.dtype == dtype
        assert np.array_equal(bits_of(exported.weight).numpy(), np.asarray(expected).view(f"i{dtype.itemsize}"))


def test_what_is_in_the_copy():
    """Codes and a table where they are less than floats; a parameter of floats where not; the model stays."""
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32)).eval()
    convert_model(model, "lns8f5")
    before = {name: p.codes.clone() for name, p in model.named_parameters()}
    exported = for_export(model)
    state = exported.state_dict()
    assert torch.equal(state["0.parametrizations.weight.original"], model[0].weight.codes)
    assert state["0.parametrizations.weight.original"].dtype == torch.uint8
    assert state["0.parametrizations.weight.0.table"].shape == (256,)
    assert set(dict(exported.named_parameters())) == {"0.bias", "1.weight", "1.bias"}
    for name, p in exported.named_parameters():
        assert type(p) is nn.Parameter
        assert not p.requires_grad
        assert torch.equal(p, dict(model.named_parameters())[name].to_float())
    assert not any(isinstance(t, LNSWeight) for t in state.values())
    assert not exported[0].training
    for name, p in model.named_parameters():
        assert isinstance(p, LNSWeight)
        assert torch.equal(p.codes, before[name])
    assert not exported(torch.ones(2, 64)).requires_grad
    assert all(p.requires_grad for p in model.parameters())


class Tied(nn.Module):
    """A transformer whose head is its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.encoder(self.embedding(tokens)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(16, 32, batch_first=True)

    def forward(self, x):
        return self.cells(x)[0]


def mlp():
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)), torch.randn(3, 64)


def cnn():
    layers = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)
    last = nn.Conv2d(32, 32, 3, groups=4), nn.Flatten(), nn.Linear(128, 10)
    model = nn.Sequential(*layers, *last).to(memory_format=torch.channels_last)
    return model, torch.randn(3, 3, 8, 8).contiguous(memory_format=torch.channels_last)


def transformer():
    return Tied(), torch.arange(16).reshape(2, 8) * 7 % 50


def lstm():
    return Recurrent(), torch.randn(2, 5, 16)


def converted(make, fmt="lns8f5", **options):
    torch.manual_seed(0)
    model, x = make()
    model.eval()
    convert_model(model, fmt, **options)
    return model, x


@pytest.fixture
def _slow_attention():
    """torch.export takes the slow path of attention; eager, where nothing has a gradient, another one."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.filterwarnings("ignore:The tensor attributes self.cells._flat_weights:UserWarning")  # of torch's LSTM
@pytest.mark.usefixtures("_slow_attention")
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("make", [mlp, cnn, transformer, lstm])
def test_programs_give_the_models_bits(make, per_channel, tmp_path):
    """Of weights that require gradients: eager, exported, decomposed, saved and loaded."""
    model, x = converted(make, per_channel=per_channel)
    exported = for_export(model)
    with torch.no_grad():
        # torch multiplies in another way where a weight requires a gradient, even under no_grad
        decoded = decode_model(copy.deepcopy(model)).requires_grad_(False)
        expected = decoded(x)
        assert torch.equal(exported(x), expected)
        program = export(exported, (x,))
        decomposed = program.run_decompositions()
        if make in (transformer, lstm):  # torch takes attention and recurrence apart, and adds in another order
            plain = export(decoded, (x,))
            assert torch.equal(program.module()(x), plain.module()(x))
            expected = plain.run_decompositions().module()(x)
        else:
            assert torch.equal(model(x), expected)
            assert torch.equal(program.module()(x), expected)
        assert torch.equal(decomposed.module()(x), expected)
        torch.export.save(decomposed, tmp_path / "model.pt2")
        assert torch.equal(torch.export.load(tmp_path / "model.pt2").module()(x), expected)
    kept = [t for t in decomposed.state_dict.values() if t.dtype == torch.uint8]
    assert len({t.data_ptr() for t in kept}) == len({id(m) for m in exported.modules() if hasattr(m, "table")})


def test_tied_weights_are_one():
    exported = for_export(converted(transformer)[0])
    state = exported.state_dict()
    parts = [state[f"{name}.parametrizations.weight.original"].data_ptr() for name in ("embedding", "head")]
    assert parts[0] == parts[1]
    assert exported.embedding.parametrizations.weight[0] is exported.head.parametrizations.weight[0]


class Listed(nn.Module):
    """Weights in a list and in a dict, of which one stands under two names."""

    def __init__(self):
        super().__init__()
        self.several = nn.ParameterList([torch.randn(40, 40), torch.randn(3)])
        self.named = nn.ParameterDict({"w": torch.randn(40, 40), "again": self.several[0]})

    def forward(self, x):
        return x @ self.several[0] @ self.named["w"] @ self.named["again"] + self.several[1].sum()


def test_weights_of_lists_and_dicts():
    model, x = converted(lambda: (Listed(), torch.randn(2, 40)))
    with torch.no_grad():
        expected = model(x)
        exported = for_export(model)
        assert torch.equal(exported(x), expected)
        assert torch.equal(export(exported, (x,)).run_decompositions().module()(x), expected)
        assert torch.equal(copy.deepcopy(exported)(x), expected)


def test_a_program_needs_no_lnsnum_and_a_byte_a_weight(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512)).eval()
    convert_model(model, "lns8f5")
    x = torch.randn(2, 512)
    torch.export.save(export(for_export(model), (x,)).run_decompositions(), tmp_path / "model.pt2")
    torch.save((x, model(x).detach()), tmp_path / "expected.pt")
    code = (
        "import sys, torch; x, y = torch.load('expected.pt')\n"
        "assert torch.equal(torch.export.load('model.pt2').module()(x), y)\n"
        "assert not any(name.startswith('lnsnum') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True, timeout=120)
    weights = sum(p.numel() for p in model.parameters())
    assert os.path.getsize(tmp_path / "model.pt2") <= weights + 100_000


@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning")
def test_torchscript_traces_the_copy(tmp_path):
    model, x = converted(mlp)
    traced = torch.jit.trace(for_export(model), x)
    torch.jit.save(traced, tmp_path / "model.pt")
    assert torch.equal(torch.jit.load(tmp_path / "model.pt")(x), model(x))


def test_products_of_codes_become_products_of_floats():
    """`use_weight_only` changes the order of a sum; the copy has that of the decoded model."""
    model, x = converted(mlp)
    use_weight_only(model)
    with torch.no_grad():
        assert torch.equal(for_export(model)(x), decode_model(copy.deepcopy(model))(x))


def test_what_is_taken_apart_is_refused_by_name():
    """torch would give codes gradients, and lose the tables that it makes while it traces."""
    from torch._functorch._aot_autograd.subclass_parametrization import unwrap_tensor_subclass_parameters

    for requires_grad in (True, False):
        model, x = converted(mlp)
        model.requires_grad_(requires_grad)
        program = export(model, (x,))
        assert torch.equal(program.module()(x), model(x))
        with pytest.raises(TypeError, match=r"export lnsnum\.torch_bridge\.for_export\(model\), whose"):
            program.run_decompositions()
        with pytest.raises(TypeError, match="run_decompositions, AOTInductor and ONNX"):
            unwrap_tensor_subclass_parameters(copy.deepcopy(model))
        exported = for_export(model)
        assert unwrap_tensor_subclass_parameters(exported) is exported
        assert torch.equal(exported(x), model(x))


def test_what_cannot_be_exported_is_refused():
    with pytest.raises(TypeError, match="model is a dict, not a torch"):
        for_export({})
    with pytest.raises(ValueError, match="has no LNS weights: export it as it is, or convert_model it first"):
        for_export(nn.Linear(2, 2))
    model = converted(mlp)[0].to("meta")
    with pytest.raises(ValueError, match=r"parameter '0\.weight' is on the meta device: it has no codes to export"):
        for_export(model)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own compiler's
@pytest.mark.long
def test_ahead_of_time_inductor(tmp_path):
    """A shared library: a C++ compiler and a minute. The graph decodes before BLAS multiplies, as eager does."""
    model, x = converted(mlp)
    program = export(for_export(model), (x,)).run_decompositions()
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    with torch.no_grad():
        assert torch.equal(torch._inductor.aoti_load_package(package)(x), model(x))
