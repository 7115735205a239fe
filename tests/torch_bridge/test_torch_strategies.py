"""Weights, gradients and models are drawn as asked, Madam takes them; floats are drawn where subnormals are flushed."""

import math
import struct

import numpy as np
import pytest
import torch
from drawing import drawn, minimal
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsnum import LNSFormat, lns8f3, lns8f5, lns12f6
from lnsnum.strategies import finite_floats, near_ties, scales
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model
from lnsnum.torch_bridge.strategies import gradients, lns_weights, models

# ------------------------------------------------------------------------------------------------------------- weights


def test_weights_of_every_kind_come_up():
    found = drawn(lns_weights(), 300)
    assert {w.codes.dtype for w in found} == {torch.uint8, torch.int16}
    assert {isinstance(w.log_offset, int) for w in found} == {False, True}
    assert {w.ndim for w in found} == {1, 2, 3}
    assert max(w.fmt.bits for w in found) == 16
    assert not any(w.isnan().any() for w in drawn(lns_weights(lns8f5, (2, 3)), 100))
    assert any(w.isnan().any() for w in drawn(lns_weights(lns8f5, (2, 3), nan=True), 100))


def test_weights_are_what_was_asked_for():
    channels = lns_weights(lns12f6, (3, 2), log_offset=scales(lns12f6, (3, 2), axis=0, limit=50), dtype=torch.bfloat16)
    for w in drawn(channels, 50):
        assert (w.fmt, tuple(w.shape), w.dtype, tuple(w.log_offset.shape)) == (lns12f6, (3, 2), torch.bfloat16, (3, 1))
    assert {w.log_offset for w in drawn(lns_weights(lns8f3, 5, log_offset=-7), 20)} == {-7}
    assert minimal(lns_weights()).tolist() == [1.0]
    assert {tuple(w.shape) for w in drawn(lns_weights(lns8f3, st.sampled_from([(), (0, 2)])), 20)} == {(), (0, 2)}
    with pytest.raises(NotImplementedError, match="16 bits"):
        minimal(lns_weights("lns32f23", 2))


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_gradients_of_every_size_come_up(dtype):
    found = drawn(gradients((3, 4), dtype=dtype), 200)
    assert all(g.dtype == dtype and tuple(g.shape) == (3, 4) for g in found)
    everything = torch.stack(found).double()
    assert everything.isnan().any()
    assert {-math.inf, 0.0, math.inf, 1.0, -1.0} <= set(everything.reshape(-1).tolist())
    sizes = everything[everything.isfinite() & (everything != 0)].abs()
    info = torch.finfo(dtype)
    assert sizes.max() > math.sqrt(info.max)
    assert sizes.min() < math.sqrt(info.tiny)
    rows = torch.stack([(g == 0).all(dim=1) for g in found])
    assert (rows.any(dim=1) & ~rows.all(dim=1)).float().mean() > 0.1
    assert torch.stack(drawn(gradients((3, 4), dtype=dtype, finite=True), 200)).isfinite().all()


def test_gradients_of_a_parameter_take_after_it():
    w = LNSWeight.from_float(torch.ones(2, 5, dtype=torch.float64), "lns8f5")
    assert {(tuple(g.shape), g.dtype) for g in drawn(gradients(w), 20)} == {((2, 5), torch.float64)}
    assert minimal(gradients(w)).tolist() == [[1.0] * 5] * 2
    with pytest.raises(TypeError, match=r"dtype=torch\.int8 is no float type that a gradient can have"):
        gradients(3, dtype=torch.int8)


def test_sparse_gradients_have_rows_in_any_order_and_twice():
    found = drawn(gradients((4, 3), sparse=True), 200)
    assert all(g.is_sparse and tuple(g.shape) == (4, 3) and g.sparse_dim() == 1 for g in found)
    places = [g._indices()[0].tolist() for g in found]
    assert [] in places
    assert any(rows != sorted(rows) for rows in places)
    assert any(len(rows) != len(set(rows)) for rows in places)
    with pytest.raises(ValueError, match="a sparse gradient has rows, give one dimension or more"):
        minimal(gradients((), sparse=True))


@settings(max_examples=40, deadline=None)
@given(st.data(), lns_weights(lns8f5, (3, 2)), st.booleans())
def test_madam_moves_no_code_whose_gradient_is_not_finite(data, weight, sparse):
    weight = torch.nn.Parameter(weight)
    optimizer = Madam([weight], lr=0.01)
    weight.grad = data.draw(gradients(weight, sparse=sparse))
    dense = weight.grad.to_dense() if sparse else weight.grad
    before = weight.codes.clone()
    optimizer.step()
    still = ~dense.isfinite()
    assert torch.equal(weight.codes[still], before[still])


# -------------------------------------------------------------------------------------------------------------- models


@settings(max_examples=60, deadline=None)
@given(models())
def test_models_run_and_every_parameter_learns(drawn_model):
    model, x = drawn_model
    out = model(x)
    assert out.ndim == 2
    assert len(out) == len(x)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


@settings(max_examples=25, deadline=None)
@given(models(max_width=3, max_blocks=2))
def test_converted_models_compute_what_decoded_ones_do(drawn_model):
    model, x = drawn_model
    convert_model(model, LNSFormat(8, 5))
    with torch.no_grad():
        out = model(x)
        decode_model(model)
        assert torch.equal(model(x), out)


@pytest.mark.thorough
def test_models_of_every_kind_come_up_and_leave_the_random_state_alone():
    before = torch.random.get_rng_state()
    found = [model for model, _ in drawn(models(), 200)]
    assert torch.equal(torch.random.get_rng_state(), before)
    kinds = {type(module).__name__ for model in found for module in model.modules()}
    wanted = {"Linear", "Tanh", "ReLU", "GELU", "LayerNorm", "Embedding", "Conv2d", "_Residual", "_MeanOfTokens"}
    assert wanted <= kinds
    assert any(
        len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False))) for model in found
    )
    model, x = minimal(
        models(), lambda drawn: any(isinstance(module, torch.nn.LayerNorm) for module in drawn[0].modules())
    )
    assert [type(module).__name__ for module in model] == ["LayerNorm", "Linear"]
    assert x.tolist() == [[1.0]]
    assert np.isfinite(model(x).item())


@pytest.mark.parametrize(("name", "value"), [("max_width", 0), ("max_blocks", -1), ("max_batch", True)])
def test_models_of_no_size_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value} is out of range: an integer, at least"):
        models(**{name: value})


# --------------------------------------------------------------------------------------------- flushed subnormals


@pytest.fixture
def flushed():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormals")
    yield
    torch.set_flush_denormal(False)


LEAST = {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}
STRATEGIES = [(finite_floats, LNSFormat(20, 7)), (near_ties, LNSFormat(20, 7)), (near_ties, LNSFormat(12, 0))]


def is_subnormal(x, dtype):
    """By the exponent in its pattern; a comparison would take a flushed subnormal for zero."""
    pattern = struct.unpack("<Q", struct.pack("<d", abs(x)))[0]
    return pattern > 0 and (pattern >> 52) - 1023 < LEAST[dtype]


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", LEAST)
@pytest.mark.parametrize(("strategy", "fmt"), STRATEGIES)
def test_floats_are_drawn_under_flush_to_zero(strategy, fmt, dtype, flushed):
    plain, chosen = strategy(fmt, dtype=dtype), strategy(fmt, dtype=dtype, allow_subnormal=True)
    assert not any(is_subnormal(x, dtype) for x in drawn(plain, 150))
    with_them = drawn(chosen, 150)
    assert any(is_subnormal(x, dtype) for x in with_them)
    torch.set_flush_denormal(False)
    unflushed = drawn(strategy(fmt, dtype=dtype), 150)
    assert [struct.pack("<d", x) for x in with_them] == [struct.pack("<d", x) for x in unflushed]
    assert not any(is_subnormal(x, dtype) for x in drawn(strategy(fmt, dtype=dtype, allow_subnormal=False), 150))
