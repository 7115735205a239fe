"""Products with codes as weights, to the bit: against the order of sums that the module's text gives, in plain NumPy.

The oracle decodes by `lnsnum.decode`, multiplies in float32, adds 128 lanes row by row, and halves them. The bound of
the error is tried against sums in rational numbers.
"""

import copy
import io
import itertools
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lnsnum import LNSFormat, decode, encode, lns6f2, lns8f3, lns8f5, lns12f6, lns16f10, lns32f23
from lnsnum.operations import weight_only
from lnsnum.operations.weight_only import error_bound, weight_only_matmul
from lnsnum.torch_bridge import LNSWeight, convert_model, decode_model, use_weight_only, weight_only_linear
from lnsnum.torch_bridge.weight_only import MOST_VECTORS, WeightOnlyLinear

FORMATS = [lns8f5, lns8f3, lns6f2, lns12f6, lns16f10, lns32f23, LNSFormat(7, 2, base=1.7), LNSFormat(3, 0)]
SIZES = [0, 1, 3, 7, 8, 9, 64, 127, 128, 129, 136, 256, 300, 1000]


def same_bits(a, b):
    """Equal, zeros in their sign too; any NaN is as good as another."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype == np.float32
    assert a.shape == b.shape
    nan = np.isnan(a)
    np.testing.assert_array_equal(nan, np.isnan(b))
    np.testing.assert_array_equal(a.view(np.uint32)[~nan], b.view(np.uint32)[~nan])
    return True


def lanes_then_halves(x, w):
    """x (B, K) times w (N, K), both float32, in the order of the specification."""
    inner = x.shape[1]
    with np.errstate(all="ignore"):
        products = x[:, None, :] * w[None, :, :]
        lanes = np.zeros((*products.shape[:2], 128), np.float32)
        for begin in range(0, inner, 128):
            part = products[..., begin : begin + 128]
            lanes[..., : part.shape[-1]] += part
        while lanes.shape[-1] > 1:
            half = lanes.shape[-1] // 2
            lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def expected(x, codes, fmt, log_offset=0):
    w = decode(codes, fmt, "float32", log_offset=log_offset)
    flat = lanes_then_halves(x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1]), w)
    return flat.reshape(*x.shape[:-1], codes.shape[0])


def drawn(seed, fmt, rows, inner, batch=(2,)):
    """Codes of every kind but NaN, and floats."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 1 << fmt.bits, (rows, inner), np.uint64).astype(fmt.dtype)
    codes[codes == fmt.nan_code] = 0
    return random.normal(size=(*batch, inner)).astype(np.float32), codes


# ------------------------------------------------------------------------------------------------------------ NumPy


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("inner", SIZES)
def test_the_bits_are_those_of_the_order(fmt, inner):
    for rows, batch in ((5, ()), (3, (2,)), (1, (2, 3)), (0, (2,)), (4, (0,)), (2, (3, 0))):
        x, codes = drawn(inner, fmt, rows, inner, batch)
        found = weight_only_matmul(x, codes, fmt)
        assert found.shape == (*batch, rows)
        same_bits(found, expected(x, codes, fmt))


SHAPES = [(), (1,), (1, 1), ("rows", 1), (1, "inner"), ("inner",), ("rows", "inner")]


@pytest.mark.parametrize("fmt", [lns8f5, lns6f2, lns16f10, lns32f23], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("spread", [0, 5, 3000])
def test_offsets(fmt, shape, spread):
    """One, one of each row, column or element; few of them, and more than there are tables for."""
    rows, inner = 6, 40
    x, codes = drawn(spread, fmt, rows, inner)
    sizes = {"rows": rows, "inner": inner, 1: 1}
    random = np.random.default_rng(1)
    offsets = random.integers(-spread - 1, spread + 1, [sizes[n] for n in shape]).astype(np.int32)
    same_bits(weight_only_matmul(x, codes, fmt, log_offset=offsets), expected(x, codes, fmt, offsets))


def test_more_scales_than_tables(monkeypatch):
    x, codes = drawn(0, lns8f5, 70, 24)
    offsets = np.arange(-35, 35, dtype=np.int32)[:, None]
    found = weight_only_matmul(x, codes, lns8f5, log_offset=offsets)
    monkeypatch.setattr(weight_only, "_TABLES", 1 << 10)
    monkeypatch.setattr(weight_only, "_BLOCK", 24 * 32)
    same_bits(weight_only_matmul(x, codes, lns8f5, log_offset=offsets), found)
    same_bits(found, expected(x, codes, lns8f5, offsets))


@settings(max_examples=150)
@given(data=st.data())
def test_any_floats(data):
    """Infinities, NaN, subnormal and huge numbers, signed zeros; NaN and zero codes."""
    fmt = data.draw(st.sampled_from([lns8f3, lns8f5, lns6f2, lns12f6]))
    inner, rows = data.draw(st.tuples(st.sampled_from([1, 2, 8, 16, 130]), st.integers(1, 3)))
    special = st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3e38, 1.0])
    number = st.one_of(special, st.floats(width=32))
    x = np.array(data.draw(st.lists(number, min_size=inner, max_size=inner)), np.float32)
    code = st.one_of(st.sampled_from([0, fmt.nan_code, 1, fmt.max_magnitude]), st.integers(0, (1 << fmt.bits) - 1))
    flat = data.draw(st.lists(code, min_size=rows * inner, max_size=rows * inner))
    codes = np.array(flat, fmt.dtype).reshape(rows, inner)
    same_bits(weight_only_matmul(x, codes, fmt), expected(x, codes, fmt))


def test_every_code_times_one():
    for fmt in (lns8f3, lns8f5, lns6f2, lns16f10):
        codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)[:, None]
        same_bits(weight_only_matmul(np.ones(1, np.float32), codes, fmt), decode(codes[:, 0], fmt, "float32"))


def test_zeros_behind_a_row_take_no_part():
    """NaN, and infinities as the next row's numbers, do not reach the row before; a sum of -0 is +0, as from any +0."""
    x, codes = drawn(3, lns8f5, 4, 12)
    codes[1::2] = lns8f5.nan_code
    found = weight_only_matmul(x, codes, lns8f5)
    assert np.isnan(found[:, 1::2]).all()
    same_bits(found[:, ::2], expected(x, codes[::2], lns8f5))
    assert not np.signbit(weight_only_matmul(np.float32([-0.0]), [[64]], lns8f5)).any()


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_number_of_threads_changes_nothing(threads, monkeypatch):
    monkeypatch.setattr(weight_only, "_PARALLEL", 1)
    for inner, rows, fmt in itertools.product((15, 16), (1, 2, 9), (lns8f5, lns32f23)):
        x, codes = drawn(inner, fmt, rows, inner)
        same_bits(weight_only.multiply(x, codes, fmt, 0, threads=threads), expected(x, codes, fmt))


def test_layouts():
    """Strides of every kind, and bytes that do not begin at a word."""
    x, codes = drawn(0, lns8f5, 16, 32)
    want = expected(x, codes, lns8f5)
    same_bits(weight_only_matmul(np.asfortranarray(x), codes, lns8f5), want)
    same_bits(weight_only_matmul(np.repeat(x, 2, axis=1)[:, ::2], np.repeat(codes, 2, axis=1)[:, ::2], lns8f5), want)
    same_bits(weight_only_matmul(x, np.asfortranarray(codes), lns8f5), want)
    same_bits(weight_only_matmul(x[:, ::-1], codes[:, ::-1], lns8f5), expected(x[:, ::-1], codes[:, ::-1], lns8f5))
    memory = np.zeros(codes.size + 8, np.uint8)
    for begin in range(8):
        shifted = memory[begin : begin + codes.size].reshape(codes.shape)
        shifted[:] = codes
        same_bits(weight_only_matmul(x, shifted, lns8f5), want)
    codes.setflags(write=False)
    x.setflags(write=False)
    same_bits(weight_only_matmul(x, codes, lns8f5), want)
    same_bits(weight_only_matmul(x, codes.astype(np.int64), lns8f5), want)


@pytest.mark.parametrize("inner", [1, 2, 127, 129, 1000, 5000])
def test_the_bound_of_the_error(inner):
    random = np.random.default_rng(inner)
    for scale in (1.0, 1e-38, 1e-44):
        x = (random.normal(size=inner) * scale).astype(np.float32)
        codes = encode(random.normal(size=(2, inner)), lns8f5)
        w = decode(codes, lns8f5, "float32")
        for found, row in zip(weight_only_matmul(x, codes, lns8f5), w, strict=True):
            terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, row, strict=True)]
            allowed = Fraction(error_bound(inner)) * sum(map(abs, terms)) + Fraction(inner, 1 << 149)
            assert abs(Fraction(float(found)) - sum(terms)) <= allowed


def test_the_bound_counts_the_roundings():
    assert error_bound(1) >= 8 * 2.0**-24
    assert error_bound(4096) < 40 * 2.0**-24 < error_bound(4097 + 128)


def test_errors():
    x, codes = drawn(0, lns8f5, 3, 4)
    for bad, error, message in (
        ((x.astype(np.float64), codes, lns8f5), TypeError, "x is an array of float64, not of float32"),
        (([1.0, 2.0], codes[:, :2], lns8f5), TypeError, "x is an array of float64"),
        ((x, codes[0], lns8f5), ValueError, r"codes of shape \(4,\) are no matrix: give \(N, K\)"),
        ((x[:, :3], codes, lns8f5), ValueError, r"x of shape \(2, 3\) and codes of shape \(3, 4\) do not match in K"),
        ((np.float32(1.0), codes, lns8f5), ValueError, "do not match in K"),
        ((x, codes.astype(np.float32), lns8f5), TypeError, "codes are unsigned integers, not float32"),
        ((x, codes | 64, lns6f2), ValueError, "is outside lns6f2"),
        ((x, codes, "lns8f5"), TypeError, "is a str, not an LNSFormat"),
    ):
        with pytest.raises(error, match=message):
            weight_only_matmul(*bad)
    with pytest.raises(ValueError, match=r"log_offset of shape \(2, 1\) does not broadcast"):
        weight_only_matmul(x, codes, lns8f5, log_offset=np.zeros((2, 1), np.int32))
    with pytest.raises(ValueError, match="log_offset"):
        weight_only_matmul(x, codes, lns8f5, log_offset=(1 << 30) + 1)


# ------------------------------------------------------------------------------------------------------------ torch


def layer(fmt=lns8f5, rows=5, inner=24, per_channel=False, bias=True):
    torch.manual_seed(0)
    linear = nn.Linear(inner, rows, bias=bias)
    convert_model(linear, fmt, per_channel=per_channel)
    assert isinstance(linear.weight, LNSWeight)
    return linear.eval()


def of_layer(x, linear):
    """The product by the core, and the bias."""
    weight = linear.weight.to_lns()
    out = weight_only_matmul(x.numpy(), weight.codes, weight.fmt, log_offset=weight.log_offset)
    return out if linear.bias is None else out + floats(linear.bias).numpy()


def floats(parameter):
    return parameter.to_float() if isinstance(parameter, LNSWeight) else parameter.detach()


@pytest.mark.parametrize("fmt", [lns8f5, lns6f2, lns12f6, lns16f10], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [None, "LNS", "float"])
def test_linear_layers(fmt, per_channel, bias, monkeypatch):
    linear = layer(fmt, per_channel=per_channel, bias=bias is not None)
    if bias == "float":
        linear.bias = nn.Parameter(floats(linear.bias) + 0.1)
    for shape in ((24,), (1, 24), (2, 3, 24), (0, 24), (MOST_VECTORS, 24)):
        x = torch.randn(shape)
        with torch.no_grad():
            found = weight_only_linear(x, linear.weight, linear.bias)
            assert type(found) is torch.Tensor
            same_bits(found.numpy(), of_layer(x, linear))
            torch.testing.assert_close(found, F.linear(x, linear.weight, linear.bias))
            monkeypatch.setattr(F, "linear", None)  # which is not called
            weight_only_linear(nn.Parameter(x), linear.weight, linear.bias)
            monkeypatch.undo()


def test_layouts_of_tensors():
    linear = layer(bias=False)
    x = torch.randn(4, 24, 2)
    with torch.no_grad():
        for vectors in (x[..., 0], x[..., 1], torch.randn(24, 4).T, torch._neg_view(x[..., 0])):
            same_bits(weight_only_linear(vectors, linear.weight).numpy(), of_layer(vectors.resolve_neg(), linear))
        weight = layer(rows=24, inner=5).weight.T
        found = weight_only_linear(x[..., 0], weight.contiguous())
        same_bits(weight_only_linear(x[..., 0], weight).numpy(), found.numpy())


def is_left_to_torch(monkeypatch, call):
    """The result of `call`, in which the kernels must not run."""

    def never(*arguments, **options):
        raise AssertionError("the kernels ran")

    with monkeypatch.context() as patch:
        patch.setattr(weight_only, "multiply", never)
        return call()


def test_what_is_left_to_torch(monkeypatch):
    linear, x = layer(), torch.randn(3, 24)
    weight, bias = linear.weight, linear.bias
    run = weight_only_linear
    with torch.no_grad():
        for arguments in (
            (x.double(), weight.double(), bias.double()),
            (x, weight.to_float(), bias),
            (torch.randn(MOST_VECTORS + 1, 24), weight, bias),
            (x.to("meta"), weight.to("meta"), bias.to("meta")),
        ):
            found = is_left_to_torch(monkeypatch, lambda arguments=arguments: run(*arguments))
            want = F.linear(*arguments)
            assert found.dtype == want.dtype
            assert found.is_meta or torch.equal(found, want)
        with torch.autocast("cpu", torch.bfloat16):
            found = is_left_to_torch(monkeypatch, lambda: run(x, weight, bias))
            assert torch.equal(found, F.linear(x, weight, bias))
            assert found.dtype == torch.bfloat16
        mapped = is_left_to_torch(monkeypatch, lambda: torch.vmap(lambda row: run(row, weight, bias))(x))
        torch.testing.assert_close(mapped, F.linear(x, weight, bias))
        with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|size mismatch"):
            is_left_to_torch(monkeypatch, lambda: run(x[:, :5], weight, bias))


def test_gradients_are_those_of_torch(monkeypatch):
    linear, x = layer(), torch.randn(3, 24, requires_grad=True)
    found = is_left_to_torch(monkeypatch, lambda: weight_only_linear(x, linear.weight, linear.bias))
    want = F.linear(x, linear.weight, linear.bias)
    assert torch.equal(found, want)
    ours, theirs = (torch.autograd.grad(y.square().sum(), [x, *linear.parameters()]) for y in (found, want))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        is_left_to_torch(monkeypatch, lambda: weight_only_linear(x, linear.weight, linear.bias))


def test_nothing_to_differentiate_needs_no_mode(monkeypatch):
    linear, x = layer().requires_grad_(False), torch.randn(3, 24)
    same_bits(weight_only_linear(x, linear.weight, linear.bias).numpy(), of_layer(x, linear))
    with torch.inference_mode():
        same_bits(weight_only_linear(x, linear.weight, linear.bias).numpy(), of_layer(x, linear))


def test_compiled(monkeypatch, fresh):
    linear, x = layer(), torch.randn(3, 24)
    compiled = torch.compile(weight_only_linear, backend="eager", fullgraph=True)
    with torch.no_grad():
        found = is_left_to_torch(monkeypatch, lambda: compiled(x, linear.weight, linear.bias))
        assert torch.equal(found, F.linear(x, linear.weight, linear.bias))


def model():
    torch.manual_seed(0)
    built = nn.Sequential(
        nn.Linear(24, 16), nn.ReLU(), nn.LayerNorm(16), nn.Sequential(nn.Linear(16, 4)), nn.Linear(4, 2)
    )
    convert_model(built[:4], lns8f5)
    return built.eval()


def test_a_whole_model_and_back():
    built, x = model(), torch.randn(3, 24)
    state = copy.deepcopy(built.state_dict())
    with torch.no_grad():
        plain = built(x)
        assert use_weight_only(built) == 2
        assert [type(built[i]) for i in (0, 4)] == [WeightOnlyLinear, nn.Linear]  # the last has no LNS weight
        assert use_weight_only(built) == 0
        found = built(x)
        same_bits(built[0](x).numpy(), of_layer(x, built[0]))
        torch.testing.assert_close(found, plain)
        assert built.state_dict().keys() == state.keys()
        built.load_state_dict(state)
        for copied in (copy.deepcopy(built), pickle.loads(pickle.dumps(built)), saved_and_loaded(built)):
            assert type(copied[0]) is WeightOnlyLinear
            assert torch.equal(copied(x), found)
        assert use_weight_only(built, on=False) == 2
        assert type(built[0]) is nn.Linear
        assert torch.equal(built(x), plain)


def saved_and_loaded(built):
    memory = io.BytesIO()
    torch.save(built, memory)
    memory.seek(0)
    return torch.load(memory, weights_only=False)


def test_a_model_that_is_decoded_or_trained_again(monkeypatch):
    built, x = model(), torch.randn(3, 24)
    want = built(x)
    use_weight_only(built)
    assert torch.equal(is_left_to_torch(monkeypatch, lambda: built(x)), want)
    decode_model(built)
    assert torch.equal(is_left_to_torch(monkeypatch, lambda: built(x)), want)
