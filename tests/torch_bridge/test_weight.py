"""LNSWeight: a float parameter to modules, autograd and optimizers, codes to memory.

The oracle of forward and backward is the decoded model: every output and every gradient is compared by its bits. The
oracle of what is written is `lnsnum.encode`, with the random bits that torch's generator gives in the same state.
"""

import contextlib
import copy
import io
import math
import pickle
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn
from torch.nn import functional as F

import lnsnum
from lnsnum import LNSFormat, LNSTensor, lns6f2, lns8f3, lns8f5, lns12f6, lns16f10, lns32f23
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model
from lnsnum.torch_bridge.kernels import codes as bridge_codes
from lnsnum.torch_bridge.strategies import lns_weights

torch.set_num_threads(1)

FORMATS = [lns8f5, lns8f3, lns12f6, lns16f10, lns6f2]
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
PATTERN = {8: torch.int64, 4: torch.int32, 2: torch.int16}
NAMES = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


# ---------------------------------------------------------------------------------------------------------------- tools


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit, NaN and signed zeros included; both plain."""
    assert type(a) is type(b) is torch.Tensor
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    pattern = PATTERN[a.dtype.itemsize]
    return torch.equal(a.contiguous().view(pattern), b.contiguous().view(pattern))


def words(weight: LNSWeight) -> np.ndarray:
    """The codes as the unsigned integers they are."""
    return weight.codes.detach().contiguous().numpy().view(weight.fmt.dtype)


def numpy_of(floats: torch.Tensor) -> np.ndarray:
    """What lnsnum.encode takes: bfloat16 as patterns."""
    floats = floats.detach().contiguous()
    return floats.view(torch.int16).numpy().view(np.uint16) if floats.dtype == torch.bfloat16 else floats.numpy()


def encoded(floats: torch.Tensor, weight: LNSWeight, **arguments) -> np.ndarray:
    """The codes of floats at the weight's format and scale."""
    arguments = {"log_offset": weight.log_offset, **arguments}
    return lnsnum.encode(numpy_of(floats), weight.fmt, dtype=NAMES[floats.dtype], **arguments)


def drawn(shape) -> np.ndarray:
    """The random bits of the next seed from torch's generator."""
    return lnsnum.random_bits(tuple(shape), seed=int(torch.randint(1 << 62, ())))


def written(floats: torch.Tensor, weight: LNSWeight) -> np.ndarray:
    """The codes that writing floats in place gives now, from the generator's present state on."""
    return encoded(floats, weight, rounding="stochastic_value", random_bits=drawn(floats.shape))


def a_weight(fmt=lns8f5, shape=(6, 5), dtype=torch.float32, log_offset=-40, seed=0) -> LNSWeight:
    """Random numbers, a zero among them."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype) * 0.3
    x.view(-1)[0] = 0
    return LNSWeight.from_float(x, fmt, log_offset=log_offset)


def every_code(fmt, dtype=torch.float32, log_offset=0) -> LNSWeight:
    codes = torch.arange(1 << fmt.bits).to({1: torch.uint8, 2: torch.int16}[fmt.dtype.itemsize])
    return LNSWeight(codes, fmt, log_offset, dtype)


def a_parameter(*args, **kwargs) -> nn.Parameter:
    return nn.Parameter(a_weight(*args, **kwargs))


# --------------------------------------------------------------------------------------------------------- constructors


@pytest.mark.parametrize("fmt", [*FORMATS, LNSFormat(3, 1), LNSFormat(9, 0, base=1.5)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("log_offset", [0, -40, 9])
def test_to_float_is_decode(fmt, dtype, log_offset):
    weight = every_code(fmt, dtype, log_offset)
    assert (weight.dtype, weight.shape, weight.fmt, weight.log_offset) == (dtype, (1 << fmt.bits,), fmt, log_offset)
    for wanted in (None, *FLOATS):
        floats = weight.to_float(wanted)
        assert type(floats) is torch.Tensor
        assert floats.dtype == (wanted or dtype)
        expected = lnsnum.decode(words(weight), fmt, NAMES[floats.dtype], log_offset=log_offset)
        np.testing.assert_array_equal(
            numpy_of(floats).view(f"u{floats.dtype.itemsize}"), expected.view(f"u{floats.dtype.itemsize}")
        )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_from_float_is_encode(fmt, dtype):
    x = torch.tensor([0.0, -0.0, 1.0, -1.1, 1e-6, -1e-7, 6e4, math.inf, -math.inf, math.nan, 0.3], dtype=dtype)
    for arguments in (
        {"log_offset": 0},
        {"log_offset": -7},
        {"log_offset": 0, "rounding": "up"},
        {"underflow": "saturate", "rounding": "toward_zero", "log_offset": 3},
    ):
        weight = LNSWeight.from_float(x, fmt.name, **arguments)
        assert weight.dtype == dtype
        assert weight.log_offset == arguments["log_offset"]
        np.testing.assert_array_equal(words(weight), encoded(x, weight, **arguments))
    bits = torch.arange(11, dtype=torch.int32) * 400_000_000
    weight = LNSWeight.from_float(x, fmt, log_offset=0, rounding="stochastic_log", random_bits=bits)
    expected = encoded(x, weight, rounding="stochastic_log", random_bits=bits.numpy().view(np.uint32))
    np.testing.assert_array_equal(words(weight), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_from_float_fits(dtype):
    x = torch.tensor([[0.5, -300.0], [0.0, 1e-3]], dtype=dtype)
    for rounding in ("nearest", "up"):
        weight = LNSWeight.from_float(x, lns8f3, log_offset="fit", rounding=rounding)
        assert weight.log_offset == lnsnum.fit_log_offset(x.double().numpy(), lns8f3, rounding=rounding)
        assert weight.to_float(torch.float64).abs().max() > 270
    assert LNSWeight.from_float(torch.zeros(0, dtype=dtype), lns8f3, log_offset="fit").log_offset == 0


def test_from_float_of_any_layout_and_with_gradient():
    x = torch.randn(4, 3, 2, requires_grad=True)
    for view in (x, x.transpose(0, 2), x[:, ::2], x[0, 0, 0], x[:0]):
        weight = LNSWeight.from_float(view, lns8f5)
        assert not weight.requires_grad
        assert weight.shape == view.shape
        np.testing.assert_array_equal(words(weight), encoded(view, weight))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_lns_round_trip_copies(fmt):
    weight = every_code(fmt, log_offset=5)
    tensor = weight.to_lns()
    assert isinstance(tensor, LNSTensor)
    assert (tensor.fmt, tensor.log_offset) == (fmt, 5)
    np.testing.assert_array_equal(tensor.codes, words(weight))
    back = LNSWeight.from_lns(tensor, torch.bfloat16)
    assert (back.dtype, back.log_offset, back.fmt) == (torch.bfloat16, 5, fmt)
    np.testing.assert_array_equal(words(back), words(weight))
    tensor.codes[:] = 0
    np.testing.assert_array_equal(words(back), words(weight))
    np.testing.assert_array_equal(words(weight), np.arange(1 << fmt.bits))


def test_to_lns_of_a_view():
    weight = a_weight()
    np.testing.assert_array_equal(weight.t()[1:, ::2].to_lns().codes, words(weight).T[1:, ::2])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.int16), lns8f5),
            TypeError,
            "codes of lns8f5 .* torch.uint8, not torch.int16",
        ),
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns16f10),
            TypeError,
            "codes of lns16f10 .* torch.int16, not torch.uint8",
        ),
        (lambda: LNSWeight(torch.zeros(2), lns8f5), TypeError, "codes of lns8f5 .* not torch.float32"),
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, 0, torch.int32),
            TypeError,
            "dtype=torch.int32 is no float type",
        ),
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, 0, torch.complex64),
            TypeError,
            "dtype=torch.complex64 is no",
        ),
        (lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, 0.5), TypeError, "log_offset=0.5 is a float"),
        (lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, True), TypeError, "log_offset=True is a bool"),
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, 2**31),
            ValueError,
            "log_offset=2147483648 is too large",
        ),
        (
            lambda: LNSWeight.from_float(torch.zeros(2, dtype=torch.int64), lns8f5),
            TypeError,
            "torch.int64 cannot become an LNSWeight",
        ),
        (
            lambda: LNSWeight.from_float(torch.zeros(2, dtype=torch.complex64), lns8f5),
            TypeError,
            "torch.complex64 cannot become",
        ),
        (lambda: LNSWeight.from_float(torch.ones(2), "int8"), ValueError, "'int8' is no format name"),
        (
            lambda: LNSWeight.from_float(torch.ones(2), lns8f5, rounding="even"),
            ValueError,
            "rounding='even' is not known",
        ),
        (
            lambda: LNSWeight.from_float(torch.ones(2), lns8f5, underflow="no"),
            ValueError,
            "underflow='no' is not known",
        ),
        (lambda: LNSWeight.from_float(torch.ones(2), lns8f5, rounding="stochastic_log"), ValueError, "random_bits"),
        (lambda: LNSWeight.from_float(torch.ones(2), lns8f5, log_offset="best"), TypeError, "log_offset='best'"),
        (lambda: LNSWeight.from_float(torch.ones(2), lns32f23), NotImplementedError, "wider than 16 bits"),
        (
            lambda: LNSWeight(torch.zeros(2, 3, dtype=torch.uint8), lns8f5, torch.tensor([1, 2])),
            ValueError,
            r"log_offset of shape \(2,\) does not broadcast to the codes' shape \(2, 3\)",
        ),
        (
            lambda: LNSWeight(torch.zeros(3, dtype=torch.uint8), lns8f5, torch.zeros(2, 3, dtype=torch.int64)),
            ValueError,
            r"log_offset of shape \(2, 3\) does not broadcast",
        ),
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, torch.tensor([1.0, 2.0])),
            TypeError,
            "log_offset is a tensor of torch.float32: give integers",
        ),
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, torch.tensor([True, False])),
            TypeError,
            "log_offset is a tensor of torch.bool",
        ),
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, torch.tensor([0, -(2**30) - 1])),
            ValueError,
            "log_offset=-1073741825 is too large",
        ),
        (
            lambda: LNSWeight(torch.zeros(2, dtype=torch.uint8), lns8f5, torch.tensor(2**40)),
            ValueError,
            "log_offset=1099511627776 is too large",
        ),
        (
            lambda: LNSWeight.from_float(torch.ones(2), lns8f5, log_offset=torch.tensor([1, 2, 3])),
            ValueError,
            r"log_offset of shape \(3,\) does not broadcast",
        ),
        (
            lambda: LNSWeight.from_lns(LNSTensor.from_codes([1], lns8f5), torch.int8),
            TypeError,
            "dtype=torch.int8 is no float type",
        ),
    ],
)
def test_constructors_refuse(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_codes_outside_the_format_are_refused():
    with pytest.raises(ValueError, match="code 200"):
        LNSWeight(torch.tensor([200], dtype=torch.uint8), lns6f2)


# --------------------------------------------------------------------------- forward and backward: those of the decoded


def tokens(*shape):
    return torch.arange(math.prod(shape)).reshape(shape) * 7 % 11


class Tied(nn.Module):
    """An embedding whose weight is the last layer's."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.hidden = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(self.embedding(x))))


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


MODULES = {
    "Linear": (lambda: nn.Linear(12, 7), (3, 12)),
    "Linear wide": (lambda: nn.Linear(128, 96), (64, 128)),
    "Linear no bias": (lambda: nn.Linear(12, 7, bias=False), (2, 3, 12)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "Conv2d": (lambda: nn.Conv2d(3, 8, 3, stride=2), (2, 3, 9, 9)),
    "Conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding="same"), (2, 4, 6, 6)),
    "Conv2d depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, dilation=2), (2, 4, 8, 8)),
    "Conv2d reflect": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 6, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), (2, 4, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 5, 5)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (1, 2, 3, 3, 3)),
    "Embedding": (lambda: nn.Embedding(11, 5, padding_idx=2), tokens(3, 4)),
    "Embedding by frequency": (lambda: nn.Embedding(11, 5, scale_grad_by_freq=True), tokens(3, 8)),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(11, 5, padding_idx=0), tokens(3, 4)),
    "EmbeddingBag sum": (lambda: nn.EmbeddingBag(11, 5, mode="sum"), tokens(3, 4)),
    "EmbeddingBag max": (lambda: nn.EmbeddingBag(11, 5, mode="max"), tokens(3, 4)),
    "LayerNorm": (lambda: nn.LayerNorm(12), (5, 12)),
    "LayerNorm 2d": (lambda: nn.LayerNorm((4, 3), elementwise_affine=True), (5, 4, 3)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(6), (5, 6)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(6), (3, 6, 4, 4)),
    "InstanceNorm": (lambda: nn.InstanceNorm1d(4, affine=True), (3, 4, 6)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 6), (3, 6, 4)),
    "RMSNorm": (lambda: nn.RMSNorm(12), (5, 12)),
    "PReLU": (lambda: nn.PReLU(4), (3, 4)),
    "MultiheadAttention": (lambda: SelfAttention(8, 2, batch_first=True), (2, 5, 8)),
    "MultiheadAttention kdim": (lambda: SelfAttention(8, 2, kdim=8, vdim=8, add_bias_kv=True), (5, 2, 8)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "TransformerDecoderLayer": (lambda: Memory(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)), (2, 5, 8)),
    "LSTM": (lambda: nn.LSTM(5, 4, num_layers=2, bidirectional=True, batch_first=True), (2, 6, 5)),
    "GRU": (lambda: nn.GRU(5, 4, num_layers=2), (6, 2, 5)),
    "RNN": (lambda: nn.RNN(5, 4, nonlinearity="relu"), (6, 2, 5)),
    "LSTMCell": (lambda: nn.LSTMCell(5, 4), (3, 5)),
    "GRUCell": (lambda: nn.GRUCell(5, 4), (3, 5)),
    "tied": (Tied, tokens(3, 4)),
}


class Memory(nn.Module):
    """A decoder layer whose memory is its input."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x.flip(0))


def outputs_and_gradients(model, given, dtype, mode):
    """Everything that forward and backward give, in order."""
    model.train(mode == "train")
    inputs = (
        given if isinstance(given, torch.Tensor) else torch.sin(torch.arange(math.prod(given)).double()).reshape(given)
    )
    if inputs.is_floating_point():
        inputs = inputs.to(dtype).requires_grad_(mode in ("train", "eval"))
    torch.manual_seed(1)  # for dropout
    with contextlib.nullcontext() if mode in ("train", "eval") else getattr(torch, mode)():
        outputs = [o for o in torch.utils._pytree.tree_leaves(model(inputs)) if isinstance(o, torch.Tensor)]
    if mode not in ("train", "eval"):
        return outputs
    sum((o * torch.cos(torch.arange(o.numel())).reshape(o.shape).to(o)).sum() for o in outputs).backward()
    leaves = [inputs] if inputs.is_floating_point() else []
    return [o.detach() for o in outputs] + [leaf.grad for leaf in [*leaves, *model.parameters()]]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("name", MODULES)
def test_modules_compute_as_decoded(name, fmt):
    make, given = MODULES[name]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        torch.manual_seed(0)
        model = make().to(dtype)
        convert_model(model, fmt)
        decoded = decode_model(copy.deepcopy(model))
        assert not any(isinstance(p, LNSWeight) for p in decoded.parameters())
        for mode in ("train", "eval", "no_grad"):
            found = outputs_and_gradients(model, given, dtype, mode)
            expected = outputs_and_gradients(decoded, given, dtype, mode)
            assert len(found) == len(expected) > 0
            for i, (a, b) in enumerate(zip(found, expected, strict=True)):
                assert (a is None) == (b is None), (dtype, mode, i)
                assert a is None or same_bits(a, b), (dtype, mode, i)
        for buffer, other in zip(model.buffers(), decoded.buffers(), strict=True):
            assert torch.equal(buffer, other)


@pytest.mark.parametrize("name", MODULES)
def test_modules_compute_as_decoded_in_inference_mode(name):
    """Frozen, as one deploys: torch itself chooses other kernels for float weights that require a gradient."""
    make, given = MODULES[name]
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        model = make().to(dtype)
        convert_model(model, lns8f5)
        model.requires_grad_(False)
        decoded = decode_model(copy.deepcopy(model))
        found = outputs_and_gradients(model, given, dtype, "inference_mode")
        expected = outputs_and_gradients(decoded, given, dtype, "inference_mode")
        assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_bilinear_computes_as_decoded(dtype):
    model = nn.Bilinear(3, 4, 5).to(dtype)
    convert_model(model, lns8f5)
    decoded = decode_model(copy.deepcopy(model))
    results = []
    for module in (model, decoded):
        a = torch.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3).requires_grad_()
        b = torch.linspace(2, -1, 8, dtype=dtype).reshape(2, 4).requires_grad_()
        out = module(a, b)
        out.square().sum().backward()
        results.append([out.detach(), a.grad, b.grad, module.weight.grad, module.bias.grad])
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_autocast_computes_as_decoded():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4))
    convert_model(model, lns8f5)
    results = []
    for module in (model, decode_model(copy.deepcopy(model))):
        with torch.autocast("cpu", torch.bfloat16):
            out = module(torch.linspace(-1, 1, 24).reshape(3, 8))
        out.float().square().sum().backward()
        results.append([out.detach(), *(p.grad for p in module.parameters())])
    assert results[0][0].dtype == torch.bfloat16
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_gradients_are_plain_and_accumulate():
    model = nn.Linear(3, 2)
    convert_model(model, lns8f5)
    for passes in (1, 2, 3):
        model(torch.ones(1, 3)).sum().backward()
        assert type(model.weight.grad) is torch.Tensor
        assert torch.equal(model.weight.grad, torch.full((2, 3), float(passes)))
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert float(norm) == pytest.approx(math.sqrt(8 * 9))
    assert float(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).norm()) == pytest.approx(1.0, abs=1e-4)


SAVES = [
    "Linear",
    "Conv2d",
    "ConvTranspose2d",
    "Conv2d grouped",
    "LayerNorm",
    "BatchNorm2d",
    "GroupNorm",
    "RMSNorm",
    "PReLU",
    "MultiheadAttention",
    "TransformerEncoderLayer",
    "LSTM",
    "GRU",
    "RNN",
    "Embedding",
    "tied",
]


@pytest.mark.parametrize("name", SAVES)
def test_autograd_saves_codes_not_floats(name):
    torch.manual_seed(0)
    make, given = MODULES[name]
    model = make()
    convert_model(model, lns8f5)
    decoded = {p.numel(): p.to_float().reshape(-1).sort().values for p in model.parameters()}
    saved = []
    inputs = given if isinstance(given, torch.Tensor) else torch.randn(given, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = model(inputs)
    del out
    weights = [t for t in saved if isinstance(t, LNSWeight)]
    assert weights or name == "Embedding"
    for tensor in saved:
        if not isinstance(tensor, LNSWeight) and tensor.is_floating_point() and tensor.numel() in decoded:
            assert not torch.equal(tensor.reshape(-1).sort().values, decoded[tensor.numel()])


# -------------------------------------------------------------------------------------------------------- view and copy

VIEWS = {
    "view": lambda t: t.view(5, 6),
    "view -1": lambda t: t.view(-1),
    "reshape": lambda t: t.reshape(2, 3, 5),
    "flatten": lambda t: t.flatten(),
    "unflatten": lambda t: t.unflatten(0, (2, 3)),
    "t": lambda t: t.t(),
    "T": lambda t: t.T,
    "mT": lambda t: t.mT,
    "transpose": lambda t: t.transpose(0, 1),
    "permute": lambda t: t.permute(1, 0),
    "movedim": lambda t: t.movedim(0, 1),
    "unsqueeze": lambda t: t.unsqueeze(1),
    "squeeze": lambda t: t.unsqueeze(1).squeeze(),
    "squeeze dim": lambda t: t.unsqueeze(1).squeeze(1),
    "squeeze dims": lambda t: t.unsqueeze(1).squeeze((1, 2)),
    "select": lambda t: t[2],
    "element": lambda t: t[2, 3],
    "slice": lambda t: t[1:4],
    "slice step": lambda t: t[::2, 1:],
    "narrow": lambda t: t.narrow(1, 1, 3),
    "expand": lambda t: t.unsqueeze(0).expand(3, 6, 5),
    "as_strided": lambda t: t.as_strided((3, 2), (5, 2), 1),
    "split": lambda t: t.split(2)[1],
    "split sizes": lambda t: t.split([2, 4])[1],
    "chunk": lambda t: t.chunk(3, 1)[2],
    "unbind": lambda t: t.unbind(1)[4],
    "detach": lambda t: t.detach(),
    "alias": lambda t: torch.ops.aten.alias(t),
    "empty slice": lambda t: t[:0],
    "ellipsis": lambda t: t[..., None, 2],
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("fmt", [lns8f5, lns16f10], ids=str)
def test_views_are_views_of_the_codes(name, fmt):
    weight = a_weight(fmt)
    codes = weight.codes
    view, expected = VIEWS[name](weight), VIEWS[name](codes)
    assert isinstance(view, LNSWeight)
    assert torch.equal(view.codes, expected)
    assert view.codes.data_ptr() == expected.data_ptr()
    assert (view.fmt, view.log_offset, view.dtype) == (fmt, -40, torch.float32)
    assert (view.shape, view.stride(), view.storage_offset()) == (
        expected.shape,
        expected.stride(),
        expected.storage_offset(),
    )
    assert same_bits(view.to_float(), VIEWS[name](weight.to_float()).contiguous())
    assert view._base is weight or name in ("detach", "alias", "flatten", "reshape", "unflatten")
    assert torch._C._is_alias_of(view, weight)  # what the compiler's functionalization and torch's checks go by


@pytest.mark.parametrize("name", ["select", "split sizes", "t", "view", "detach"])
def test_views_in_inference_mode(name):
    weight = a_weight()
    with torch.inference_mode():
        view = VIEWS[name](weight)
    assert torch.equal(view.codes, VIEWS[name](weight.codes))


@pytest.mark.parametrize("name", ["select", "slice step", "t", "view -1", "split", "as_strided"])
def test_a_write_to_a_view_reaches_the_weight_and_nothing_else(name):
    weight = a_weight()
    expected = weight.codes.clone()
    VIEWS[name](expected).fill_(lns8f5.bias + 40)
    VIEWS[name](weight).fill_(1.0)
    if name in ("t", "view -1"):  # all of it, which takes another scale
        assert torch.equal(weight.to_float(), torch.ones(6, 5))
    else:
        assert torch.equal(weight.codes, expected)
        assert weight.log_offset == -40


def test_fill_diagonal_writes_the_diagonal():
    weight = a_weight()
    expected = weight.codes.clone().fill_diagonal_(lns8f5.bias + 40)
    weight.fill_diagonal_(1.0)
    assert torch.equal(weight.codes, expected)


@pytest.mark.parametrize("view", [lambda t: t.diagonal(), lambda t: t.unfold(0, 2, 2)], ids=["diagonal", "unfold"])
def test_a_write_to_other_views_is_not_lost(view):
    weight, floats = a_weight(), a_weight().to_float()
    view(weight).fill_(1.0)
    view(floats).fill_(1.0)
    assert same_bits(weight.to_float(), floats)


def test_a_copy_into_a_view_leaves_the_other_rows_alone():
    weight = LNSWeight.from_float(torch.ones(2, 3), lns8f5)
    weight[0].copy_(LNSWeight.from_float(torch.full((3,), 1.5), lns8f5, log_offset=32))
    assert torch.equal(weight[1].to_float(), torch.ones(3))


def check_same(copied, weight):
    assert isinstance(copied, LNSWeight)
    assert torch.equal(copied.codes, weight.codes)
    assert copied.codes.stride() == weight.codes.stride()
    assert (copied.fmt, copied.log_offset, copied.dtype, copied.shape, copied.requires_grad) == (
        weight.fmt,
        weight.log_offset,
        weight.dtype,
        weight.shape,
        weight.requires_grad,
    )


def check_apart(copied, weight):
    """Neither codes nor scale are shared."""
    before = weight.codes.clone()
    with torch.no_grad():
        copied.copy_(LNSWeight.from_float(torch.ones(weight.shape, dtype=weight.dtype), weight.fmt, log_offset=3))
        copied.zero_()
    assert torch.equal(weight.codes, before)
    assert weight.log_offset == -40


def through(save, load):
    def copied(weight):
        file = io.BytesIO()
        save(weight, file)
        file.seek(0)
        return load(file)

    return copied


COPIES = {
    "clone": lambda w: w.detach().clone().requires_grad_(w.requires_grad),
    "deepcopy": copy.deepcopy,
    "pickle": lambda w: pickle.loads(pickle.dumps(w)),
    "pickle 5": lambda w: pickle.loads(pickle.dumps(w, protocol=5)),
    "torch.save": through(torch.save, torch.load),
    "torch.save weights_only": through(torch.save, lambda file: torch.load(file, weights_only=True)),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_copies_keep_everything_and_share_nothing(name, fmt, dtype):
    for weight in (
        a_weight(fmt, dtype=dtype),
        a_parameter(fmt, dtype=dtype),
        a_parameter(fmt, dtype=dtype).t().detach(),
    ):
        copied = COPIES[name](weight)
        check_same(copied, weight)
        if name not in ("clone",):
            assert isinstance(copied, nn.Parameter) == isinstance(weight, nn.Parameter)
        check_apart(copied, weight)


def test_detach_shares_codes_and_scale():
    weight = a_parameter()
    alias = weight.detach()
    assert not alias.requires_grad
    alias.copy_(LNSWeight.from_float(torch.ones(6, 5), lns8f5, log_offset=3))
    assert weight.log_offset == 3
    assert torch.equal(weight.to_float(), torch.ones(6, 5))
    weight.data.fill_(0.5)
    assert torch.equal(alias.to_float(), torch.full((6, 5), 0.5))


def test_clone_is_differentiable():
    weight = a_parameter()
    (weight.clone() * 3).sum().backward()
    assert torch.equal(weight.grad, torch.full((6, 5), 3.0))


def two_models(fmt=lns8f5):
    models = []
    for seed, scale in ((0, 1.0), (1, 4.0)):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(scale)
        convert_model(model, fmt)
        models.append(model)
    return models


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("by_file", [False, True])
def test_state_dict_round_trip(fmt, assign, by_file):
    model, other = two_models(fmt)
    state = model.state_dict()
    assert all(isinstance(state[name], LNSWeight) for name, _ in model.named_parameters())
    if by_file:
        state = through(torch.save, lambda file: torch.load(file, weights_only=True))(state)
    assert model[0].weight.log_offset != other[0].weight.log_offset
    assert str(other.load_state_dict(state, assign=assign)) == "<All keys matched successfully>"
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert isinstance(b, nn.Parameter), name
        check_same(b, a)


@pytest.mark.parametrize("which", [0, 1], ids=["the same scale", "another scale"])
def test_state_dict_of_an_lns_model_decoded_gives_the_values_back(which):
    """Exactly, without drawing random numbers; and the codes where the scale is that of the weights here."""
    model, source = two_models()[0], two_models()[which]
    codes = [(p.codes.clone(), p.log_offset) for p in source.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.neg_()
    generator = torch.get_rng_state()
    model.load_state_dict(decode_model(source).state_dict())
    assert torch.equal(torch.get_rng_state(), generator)
    for p, floats, (code, log_offset) in zip(model.parameters(), source.parameters(), codes, strict=True):
        assert isinstance(p, LNSWeight)
        assert same_bits(p.to_float(), floats.detach())
        if which == 0:
            assert torch.equal(p.codes, code)
            assert p.log_offset == log_offset


def test_state_dict_of_floats_is_encoded_as_conversion_does():
    """To nearest at p_scale = 3, whatever the scale here was; conversion of those floats is the oracle."""
    model, other = two_models()
    decode_model(other)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(7)) * 0.1)
    floats = {name: t.clone() for name, t in other.state_dict().items()}
    model.load_state_dict(floats)
    convert_model(other, lns8f5, zeros="keep")
    for p, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert isinstance(p, LNSWeight)
        check_same(p, expected)
    assert all(type(t) is torch.Tensor for t in floats.values())


def test_state_dict_of_codes_is_decoded_by_a_float_model():
    model, other = two_models()
    decode_model(other).load_state_dict(model.state_dict())
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert type(b) is nn.Parameter
        assert same_bits(a.to_float(), b.detach())


# ------------------------------------------------------------------------------------------------------ in-place writes

ANEW = {
    "fill_": lambda t: t.fill_(0.123),
    "fill_ tensor": lambda t: t.fill_(torch.tensor(1e-9)),
    "fill_ far above": lambda t: t.fill_(1e30),
    "zero_": lambda t: t.zero_(),
    "copy_": lambda t: t.copy_(torch.linspace(-1, 1, 30).reshape(6, 5)),
    "copy_ broadcast": lambda t: t.copy_(torch.linspace(-1.1, 1, 5)),
    "copy_ double": lambda t: t.copy_(torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(6, 5)),
    "copy_ of another format": lambda t: t.copy_(a_weight(LNSFormat(9, 4, base=1.9), dtype=t.dtype, log_offset=300)),
    "foreach copy": lambda t: torch._foreach_copy_([t], [torch.linspace(-1e9, 1e9, 30).reshape(6, 5)]),
    "all of it": lambda t: t.__setitem__(slice(None), torch.linspace(-9, 1, 30).reshape(6, 5)),
    "data": lambda t: setattr(t, "data", torch.linspace(-9, 1, 30).reshape(6, 5).to(t.dtype)),
    "out=": lambda t: torch.add(torch.full((6, 5), 0.1, dtype=t.dtype), 0.01, out=t),
    "out= of a function": lambda t: torch.mul(torch.linspace(0, 9, 30, dtype=t.dtype).reshape(6, 5), 1e9, out=t),
    "bernoulli_": lambda t: t.bernoulli_(0.3),
    "exponential_": lambda t: t.exponential_(100.0),
    "log_normal_": lambda t: t.log_normal_(9.0),
    "random_": lambda t: t.random_(1, 100),
    "normal_": lambda t: t.normal_(0, 0.1),
    "normal_ far above": lambda t: t.normal_(0, 1e8),
    "uniform_": lambda t: t.uniform_(-0.1, 0.1),
    "init.constant_": lambda t: nn.init.constant_(t, 0.111),
    "init.ones_": lambda t: nn.init.ones_(t),
    "init.zeros_": lambda t: nn.init.zeros_(t),
    "init.eye_": lambda t: nn.init.eye_(t),
    "init.normal_": lambda t: nn.init.normal_(t, std=0.1),
    "init.kaiming_uniform_": lambda t: nn.init.kaiming_uniform_(t, a=math.sqrt(5)),
    "init.kaiming_normal_": lambda t: nn.init.kaiming_normal_(t),
    "init.xavier_uniform_": lambda t: nn.init.xavier_uniform_(t),
    "init.xavier_normal_": lambda t: nn.init.xavier_normal_(t),
    "vector_to_parameters": lambda t: nn.utils.vector_to_parameters(torch.linspace(-9, 1, 30, dtype=t.dtype), [t]),
}

WRITES = {
    "mul_": lambda t: t.mul_(1.01),
    "add_": lambda t: t.add_(0.001),
    "iadd": lambda t: t.__iadd__(0.001),
    "add_ itself": lambda t: t.add_(t, alpha=0.01),
    "sub_": lambda t: t.sub_(torch.linspace(0, 0.01, 30).reshape(6, 5).to(t.dtype)),
    "addcmul_": lambda t: t.addcmul_(torch.ones(6, 5).to(t.dtype), torch.ones(5).to(t.dtype), value=0.01),
    "addcdiv_": lambda t: t.addcdiv_(torch.ones(6, 5).to(t.dtype), torch.full((6, 5), 3.0).to(t.dtype), value=-0.01),
    "lerp_": lambda t: t.lerp_(torch.ones(6, 5).to(t.dtype), 0.1),
    "clamp_": lambda t: t.clamp_(-0.2, 0.2),
    "clamp_ min": lambda t: t.clamp_(min=-0.1),
    "masked_fill_": lambda t: t.masked_fill_(torch.eye(6, 5) > 0, 0.77),
    "index_fill_": lambda t: t.index_fill_(0, torch.tensor([1, 3]), 0.7),
    "index_put_": lambda t: t.__setitem__(torch.tensor([1, 3]), torch.full((2, 5), 0.7, dtype=t.dtype)),
    "boolean index": lambda t: t.__setitem__(torch.eye(6, 5) > 0, torch.tensor(0.7, dtype=t.dtype)),
    "out= of itself": lambda t: torch.add(t, 0.01, out=t),
    "out= of a view of itself": lambda t: torch.add(t.view(6, 5), 0.01, out=t),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_encode_at_the_same_scale(name):
    """The codes are those of lnsnum.encode, the random bits those of torch's generator after the operation's own."""
    for fmt, dtype in ((lns8f5, torch.float32), (lns16f10, torch.float64), (lns6f2, torch.bfloat16)):
        weight = a_parameter(fmt, dtype=dtype, log_offset=-3)
        floats = weight.to_float()
        torch.manual_seed(3)
        with torch.no_grad():
            result = WRITES[name](weight)
            following = torch.rand(())
        assert result is weight or name in ("index_put_", "boolean index")
        torch.manual_seed(3)
        WRITES[name](floats)
        np.testing.assert_array_equal(words(weight), written(floats, weight))
        assert torch.rand(()) == following
        assert (weight.log_offset, weight.dtype, weight.requires_grad) == (-3, dtype, True)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("name", ANEW)
def test_the_whole_written_anew_takes_the_scale_of_conversion(name, channels):
    """Conversion of the same floats is the oracle of the scale. A code is that of stochastic rounding there, or the one
    that the float is exactly; only zero becomes zero."""
    for fmt, dtype in ((lns8f5, torch.float32), (lns12f6, torch.float64), (lns6f2, torch.bfloat16)):
        offsets = torch.arange(-3, 3)[:, None] if channels else -3
        weight = a_parameter(fmt, dtype=dtype, log_offset=offsets)
        alias, view = weight.detach(), weight.t()[2:].detach()
        floats = weight.to_float()
        torch.manual_seed(3)
        with torch.no_grad():
            ANEW[name](weight)
            following = torch.rand(())
        torch.manual_seed(3)
        ANEW[name](floats)
        model = nn.ParameterDict({"p": nn.Parameter(floats.clone())})
        expected = convert_model(model, fmt, zeros="keep", per_channel=channels)["p"].log_offset
        assert torch.equal(torch.as_tensor(weight.log_offset), torch.as_tensor(expected))
        assert (weight.dtype, weight.requires_grad) == (dtype, True)
        at = {"log_offset": np.asarray(expected), "underflow": "saturate"}
        nearest = encoded(floats, weight, **at)
        at_random = encoded(floats, weight, rounding="stochastic_value", random_bits=drawn(floats.shape), **at)
        values = torch.from_numpy(lnsnum.decode(nearest, fmt, "float64", log_offset=np.asarray(expected))).to(dtype)
        np.testing.assert_array_equal(words(weight), np.where(values == floats, nearest, at_random))
        assert torch.rand(()) == following
        assert same_bits(alias.to_float(), weight.to_float())
        assert same_bits(view.to_float(), weight.to_float().t()[2:].contiguous())


@pytest.mark.parametrize("source", [lns8f3, lns16f10, lns6f2], ids=str)
def test_a_copy_from_another_format_is_encoded(source):
    weight, other = a_weight(seed=1), a_weight(source, seed=2, log_offset=0)
    torch.manual_seed(3)
    weight.copy_(other)
    torch.manual_seed(3)
    expected = LNSWeight.from_float(other.to_float(), lns8f5)
    assert (weight.fmt, weight.log_offset) == (lns8f5, expected.log_offset)
    bits = drawn(other.shape)
    codes = encoded(other.to_float(), weight, rounding="stochastic_value", random_bits=bits, underflow="saturate")
    is_exact = expected.to_float() == other.to_float()
    np.testing.assert_array_equal(words(weight), np.where(is_exact, words(expected), codes))


def test_a_copy_from_the_same_format_takes_codes_and_scale_and_draws_nothing():
    weight, other = a_parameter(seed=1), a_weight(seed=2, log_offset=17)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.no_grad():
        weight.copy_(other)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weight.codes, other.codes)
    assert weight.log_offset == 17
    assert weight.codes.data_ptr() != other.codes.data_ptr()


def test_a_plain_tensor_takes_a_weight():
    weight, plain = a_weight(), torch.ones(6, 5)
    assert plain.copy_(weight) is plain
    assert same_bits(plain, weight.to_float())
    assert plain.add_(weight) is plain
    assert same_bits(plain, weight.to_float() * 2)
    assert torch.mul(weight, 2, out=plain) is plain
    assert same_bits(plain, weight.to_float() * 2)


@pytest.mark.parametrize(
    "write",
    [lambda w: w.t_(), lambda w: w.resize_(3), lambda w: w.unsqueeze_(0), lambda w: w.set_(torch.ones(3))],
)
def test_changes_of_shape_or_storage_are_refused(write):
    weight = a_weight()
    with pytest.raises(NotImplementedError, match="would change the shape or the storage of an LNSWeight in place"):
        write(weight)
    check_same(weight, a_weight())


def test_setting_data_copies():
    weight, other = a_parameter(), a_parameter()
    floats = torch.linspace(-0.3, 0.3, 30).reshape(6, 5)
    torch.manual_seed(3)
    weight.data = floats
    torch.manual_seed(3)
    with torch.no_grad():
        other.copy_(floats)
    assert isinstance(weight, LNSWeight)
    check_same(weight, other)
    assert weight.log_offset == LNSWeight.from_float(floats, lns8f5).log_offset


def test_setting_data_to_a_weight_takes_its_codes_and_scale():
    weight, other = a_parameter(), a_weight(seed=4, log_offset=7)
    weight.data = other
    assert torch.equal(weight.codes, other.codes)
    assert weight.codes.data_ptr() != other.codes.data_ptr()
    assert weight.log_offset == 7


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(5), r"values of shape \(5,\) cannot become those of a weight of \(6, 5\)"),
        (torch.ones(1, 6, 5), r"values of shape \(1, 6, 5\) cannot become"),
        (torch.ones(6, 5, device="meta"), "values on meta cannot become those of a weight on cpu"),
    ],
)
def test_setting_data_of_another_shape_or_device_is_refused(value, message):
    weight = a_parameter()
    with pytest.raises(ValueError, match=message):
        weight.data = value
    check_same(weight, a_parameter())


@pytest.mark.parametrize(("fmt", "dtype"), [(lns8f5, torch.bfloat16), (lns16f10, torch.float32)], ids=str)
def test_a_write_that_changes_nothing_changes_no_code(fmt, dtype):
    weight = a_weight(fmt, (100_000,), dtype, log_offset=0)
    before = weight.codes.clone()
    torch.manual_seed(0)
    weight.mul_(1.0)
    assert torch.equal(weight.codes, before)


def stepped(optimizer, p, gradient):
    p.grad = gradient
    optimizer.step()
    return p


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD([p], lr=0.01),
    "SGD momentum": lambda p: torch.optim.SGD([p], lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True),
    "Adam": lambda p: torch.optim.Adam([p], lr=0.01),
    "Adam amsgrad": lambda p: torch.optim.Adam([p], lr=0.01, amsgrad=True, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop([p], lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad([p], lr=0.01),
    "SGD foreach": lambda p: torch.optim.SGD([p], lr=0.01, foreach=True),
    "Adam foreach": lambda p: torch.optim.Adam([p], lr=0.01, foreach=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fmt", [lns8f5, lns16f10], ids=str)
def test_stock_optimizers_write_what_they_write_to_floats(name, fmt):
    """Three steps: after each the codes are those of the floats that the same optimizer makes from the decoded ones."""
    weight = a_parameter(fmt, log_offset=-3)
    floats = nn.Parameter(weight.to_float())
    on_codes, on_floats = OPTIMIZERS[name](weight), OPTIMIZERS[name](floats)
    for step in range(3):
        gradient = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
        torch.manual_seed(step)
        stepped(on_codes, weight, gradient.clone())
        torch.manual_seed(step)
        stepped(on_floats, floats, gradient.clone())
        np.testing.assert_array_equal(words(weight), written(floats, weight))
        with torch.no_grad():
            floats.copy_(weight.to_float())
    assert weight.log_offset == -3
    assert all(type(t) is torch.Tensor for s in on_codes.state.values() for t in s.values() if torch.is_tensor(t))


@pytest.mark.parametrize("foreach", [False, True])
def test_adamw_writes_twice(foreach):
    """First the decay, then the step."""
    weight = a_parameter(log_offset=-3)
    floats = nn.Parameter(weight.to_float())
    gradient = torch.linspace(-1, 1, 30).reshape(6, 5)
    torch.manual_seed(1)
    stepped(torch.optim.AdamW([weight], lr=0.01, weight_decay=0.5, foreach=foreach), weight, gradient.clone())
    torch.manual_seed(1)
    codes = written(floats * (1 - 0.01 * 0.5), weight)
    floats.data.copy_(torch.from_numpy(lnsnum.decode(codes, lns8f5, "float32", log_offset=-3)))
    stepped(torch.optim.Adam([floats], lr=0.01, foreach=foreach), floats, gradient.clone())
    np.testing.assert_array_equal(words(weight), written(floats, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_small_updates_survive_on_average(dtype):
    """SGD at a tenth of a thousandth of a step's size: the mean of 100,000 weights goes where the floats go."""
    n, lr, steps = 100_000, 1e-4, 20
    weight = nn.Parameter(LNSWeight.from_float(torch.full((n,), 1.0, dtype=dtype), lns8f5, log_offset=0))
    optimizer = torch.optim.SGD([weight], lr=lr)
    torch.manual_seed(0)
    for _ in range(steps):
        stepped(optimizer, weight, torch.ones(n, dtype=dtype))
    gap = 1 - 2 ** (-1 / 32)
    deviation = math.sqrt(steps * lr * gap / n)
    assert abs(float(weight.to_float(torch.float64).mean()) - (1 - steps * lr)) < 4 * deviation
    assert 0.8 < float((weight.codes == 64).float().mean()) < 1


@pytest.mark.parametrize("norm_type", [2.0, 1.0])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embedding_with_max_norm(kind, norm_type):
    """Renormalizes the rows that are looked up, and no others, by rounding toward zero: the next lookup moves nothing.

    The scale fits rows of the norm asked, not those that the table had.
    """
    torch.manual_seed(0)
    model = kind(8, 64, max_norm=0.5, norm_type=norm_type).eval()
    expected = model.weight.detach().clone()
    expected *= 0.5 / expected.norm(norm_type, dim=1, keepdim=True)
    convert_model(model, lns8f5)
    assert float((model.weight.to_float() - expected).norm() / expected.norm()) < 0.1
    with torch.no_grad():
        model.weight.mul_(1.3)
    before = model.weight.codes.clone()
    indices = torch.tensor([1, 5]) if kind is nn.Embedding else torch.tensor([[1], [5]])
    norms = model(indices).norm(norm_type, dim=-1)
    assert ((norms <= 0.5) & (norms > 0.45)).all()
    changed = (model.weight.codes != before).any(1)
    assert changed.tolist() == [row in (1, 5) for row in range(8)]
    after = model.weight.codes.clone()
    model(indices)
    assert torch.equal(model.weight.codes, after)


def test_an_embedding_whose_smallest_rows_are_too_large_comes_to_rest():
    """At the floor nothing can shrink any more."""
    model = nn.Embedding(4, 64, max_norm=0.5)
    model.weight = nn.Parameter(LNSWeight.from_float(torch.ones(4, 64), lns8f5, log_offset=0))
    model(torch.arange(4))
    assert (model.weight.codes == 1).all()


# -------------------------------------------------------------------------------------------- dtype, kin, text, version


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_another_float_type_keeps_the_codes(fmt):
    weight = every_code(fmt, log_offset=2)
    for dtype in FLOATS:
        other = weight.to(dtype)
        assert isinstance(other, LNSWeight)
        assert other.dtype == dtype
        assert torch.equal(other.codes, weight.codes)
        assert same_bits(other.to_float(), weight.to_float(dtype))
        assert torch.equal(other.to(torch.float32).codes, weight.codes)


@pytest.mark.parametrize("change", ["half", "bfloat16", "double", "float"])
def test_modules_change_their_float_type(change):
    model, _ = two_models()
    codes = [p.codes.clone() for p in model.parameters()]
    getattr(model, change)()
    dtype = getattr(torch, change)
    for p, before in zip(model.parameters(), codes, strict=True):
        assert isinstance(p, LNSWeight)
        assert isinstance(p, nn.Parameter)
        assert p.dtype == dtype
        assert torch.equal(p.codes, before)
    model(torch.ones(2, 4, dtype=dtype)).sum().backward()
    assert model[0].weight.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool, torch.complex64], ids=str)
def test_types_that_are_no_floats_are_plain(dtype):
    weight = a_weight()
    other = weight.to(dtype)
    assert type(other) is torch.Tensor
    assert torch.equal(other, weight.to_float().to(dtype))


@pytest.mark.parametrize(
    "make",
    [
        torch.zeros_like,
        torch.ones_like,
        torch.rand_like,
        torch.randn_like,
        lambda w: torch.full_like(w, 2.0),
        lambda w: torch.randint_like(w, 5),
        lambda w: torch.zeros_like(w, memory_format=torch.preserve_format),
        lambda w: w.new_zeros(6, 5),
        lambda w: w.new_ones((6, 5)),
        lambda w: w.new_empty((5, 6)).t(),
        lambda w: w.new_empty((3,)).expand(6, 5, 3)[..., 0].clone(),
        lambda w: w.new_full((6, 5), 3.0),
        lambda w: w.new_tensor(np.zeros((6, 5))),
        lambda w: w + 1,
        lambda w: -w,
        lambda w: w.abs(),
    ],
)
def test_zeros_like_and_its_kin_are_plain(make):
    for dtype in FLOATS:
        made = make(a_parameter(dtype=dtype).detach())
        assert type(made) is torch.Tensor
        assert (made.dtype, made.shape, made.device.type) == (dtype, (6, 5), "cpu")
        made.fill_(1)


@pytest.fixture
def decodes(monkeypatch):
    """The sizes of what has been decoded."""
    sizes, decode = [], bridge_codes.decode
    monkeypatch.setattr(
        bridge_codes, "decode", lambda codes, *rest: sizes.append(codes.numel()) or decode(codes, *rest)
    )
    return sizes


@pytest.mark.parametrize(
    "make",
    [torch.zeros_like, torch.ones_like, torch.empty_like, torch.rand_like, torch.randn_like, torch.Tensor.detach],
)
def test_what_needs_no_values_decodes_nothing(make, decodes):
    make(a_parameter())
    assert decodes == []


def test_an_embedding_decodes_the_rows_that_are_used(decodes):
    model = nn.Embedding(1000, 8)
    convert_model(model, lns8f5)
    decodes.clear()
    model(torch.tensor([[3, 999, 3]])).sum().backward()
    assert decodes == [24]


def test_zeros_like_is_zeros_of_the_type_asked():
    weight = a_parameter()
    zeros = torch.zeros_like(weight, dtype=torch.float64)
    assert same_bits(zeros, torch.zeros(6, 5, dtype=torch.float64))
    assert same_bits(weight.new_full((2,), 0.1), torch.full((2,), 0.1))


def test_a_weight_has_a_card():
    """That of its tensor, and what torch sees; without values, what is known."""
    weight = LNSWeight.from_float(torch.tensor([[1.0, -2.0]]), "lns8f3")
    row = '<tr><th scope="row">seen by torch as</th><td>torch.{}, {}</td></tr>'
    for seen, told in ((weight, "float32"), (nn.Parameter(weight), "float32"), (weight.to(torch.bfloat16), "bfloat16")):
        expected = seen.to_lns()._repr_html_().replace("<caption>LNSTensor", f"<caption>{type(seen).__name__}")
        assert seen._repr_html_() == expected.replace("</table>", row.format(told, "cpu") + "</table>")
    assert row.format("float32", "meta") in weight.to("meta")._repr_html_()


def test_repr():
    weight = LNSWeight.from_float(torch.tensor([1.0, -0.5, 0.0]), lns8f5, log_offset=16)
    text = "LNSWeight.from_lns(LNSTensor.from_float([ 1. , -0.5,  0. ], 'lns8f5', log_offset=16)"
    assert repr(weight) == f"{text})"
    assert repr(weight.to(torch.bfloat16)) == f"{text}, torch.bfloat16)"
    assert repr(nn.Parameter(weight)) == f"{text}).requires_grad_()"
    assert "lns8f5" in str(weight)
    model = nn.Linear(2, 2)
    convert_model(model, lns8f5)
    assert repr(model) == "Linear(in_features=2, out_features=2, bias=True, weight=lns8f5, bias=lns8f5)"


@given(lns_weights(nan=True))
def test_the_text_of_a_weight_is_the_weight(weight):
    """Codes where no float of six digits names them."""
    names = {"LNSWeight": LNSWeight, "LNSTensor": LNSTensor, "torch": torch}
    names |= {name: getattr(np, name) for name in ("array", "nan", "int32", "uint8", "uint16")}
    again = eval(repr(weight), names)
    assert (again.fmt, again.dtype, again.requires_grad) == (weight.fmt, weight.dtype, weight.requires_grad)
    assert (again.codes.dtype, torch.equal(again.codes, weight.codes)) == (weight.codes.dtype, True)
    assert np.array_equal(again.to_lns().log_offset, weight.to_lns().log_offset)


def test_it_looks_like_a_float_parameter():
    weight = a_parameter(dtype=torch.bfloat16)
    assert isinstance(weight, nn.Parameter)
    assert isinstance(weight, torch.Tensor)
    assert (weight.dtype, weight.is_floating_point(), weight.is_leaf, weight.ndim) == (torch.bfloat16, True, True, 2)
    assert (weight.numel(), len(weight), weight.element_size(), weight.device.type) == (30, 6, 1, "cpu")
    assert weight[1, 2].item() == float(weight.to_float()[1, 2])
    assert torch.equal(weight, weight.to_float())
    assert weight.codes.dtype == torch.uint8
    with pytest.raises(TypeError, match="NumPy has no bfloat16"):
        weight.detach().numpy()


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.fill_(0.5),
        lambda w: w.mul_(1.01),
        lambda w: w.copy_(torch.ones(6, 5)),
        lambda w: w.copy_(a_weight(seed=7)),
        lambda w: w[1:].zero_(),
        lambda w: w.detach().zero_(),
        lambda w: nn.init.normal_(w),
        lambda w: stepped(torch.optim.SGD([w], lr=0.1), w, torch.ones(6, 5)),
        lambda w: stepped(Madam([w]), w, torch.ones(6, 5)),
    ],
)
def test_a_write_between_forward_and_backward_raises(write):
    weight = a_parameter()
    x = torch.ones(3, 5, requires_grad=True)
    out = F.linear(x, weight).square().sum()
    version = weight._version
    with torch.no_grad():
        write(weight)
    assert weight._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@pytest.mark.parametrize(
    "use", [lambda m: m.weight.to_float(), lambda m: convert_model(m[1], lns8f5)], ids=["decode", "convert"]
)
def test_the_default_device_has_no_say(use):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    nn.init.zeros_(model[1].bias)
    model.weight = nn.Parameter(a_weight())
    with torch.device("meta"):
        use(model)


SHARE = """
import torch
from lnsnum.torch_bridge import convert_model
model = torch.nn.Linear(2, 2)
convert_model(model, "lns8f5")
try:
    model.share_memory()
except (NotImplementedError, RuntimeError) as error:
    print(error)
"""


def test_sharing_memory_does_not_crash():
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}){SHARE}"], timeout=300)
    assert done.returncode == 0


def test_reading_does_not_bump_the_version():
    weight = a_parameter()
    version = weight._version
    (weight * 2).sum().backward()
    weight.to_float(), weight.to_lns(), repr(weight), weight.clone(), copy.deepcopy(weight), weight[1:]
    assert weight._version == version


def test_a_leaf_that_needs_a_gradient_cannot_be_written():
    weight = a_parameter()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        weight.fill_(1.0)


def test_bfloat16_arrays_of_ml_dtypes_agree():
    """numpy_of above and ml_dtypes mean the same bits."""
    assert numpy_of(torch.tensor([1.5], dtype=torch.bfloat16)).view(ml_dtypes.bfloat16)[0] == 1.5
