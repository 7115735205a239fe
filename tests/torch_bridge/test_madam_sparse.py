"""Sparse gradients of embeddings: the rows that they have step as a dense gradient would move them, no other does."""

import math

import pytest
import torch
from test_madam import assert_same, bits, shadows_of, snapshot
from torch import nn

from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight, Madam, StepReport, convert_model

torch.set_num_threads(1)

ROWS, WIDTH = 11, 7

KINDS = ["Embedding", "EmbeddingBag"]
OPTIONS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "second_moment": "float32", "weight_decay": 0.3, "crossover": 2.0},
    {"rule": "paper", "rounding": "nearest", "zero": "leave"},
]


def embedding(kind: str, *, sparse: bool, fmt="lns8f5", dtype=torch.float32, **arguments):
    torch.manual_seed(0)
    model = getattr(nn, kind)(ROWS, WIDTH, sparse=sparse, **arguments).to(dtype)
    if fmt is not None:
        convert_model(model, fmt)
    return model


def backward(model, indices, step: int) -> None:
    """Gradients that depend on the step and the place in the batch alone."""
    indices = torch.tensor(indices, dtype=torch.int64)
    if isinstance(model, nn.EmbeddingBag):
        out = model(indices, torch.arange(0, max(len(indices), 1), 2))
    else:
        out = model(indices)
    generator = torch.Generator().manual_seed(step)
    out.backward(torch.randn(out.shape, generator=generator).to(out.dtype))


def rows_of(state: dict, rows) -> dict:
    """The moments of some rows, as bits."""
    return {name: bits(state[name])[rows] for name in ("second_moment", "momentum") if name in state}


BATCHES = [[1, 4, 4, 9, 1, 4], [0, 10], [4, 1, 1], [2]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rows_of_the_batch_step_as_madam_step_has_them_and_others_do_not_change(kind, options):
    model = embedding(kind, sparse=True)
    optimizer = Madam(model.parameters(), lr=0.3, **options)
    shadows = shadows_of(model, options.get("second_moment", "byte"))
    arguments = {name: value for name, value in options.items() if name != "second_moment"}
    for step, indices in enumerate(BATCHES, 1):
        optimizer.zero_grad()
        backward(model, indices, step)
        assert model.weight.grad.is_sparse
        absent = [i for i in range(ROWS) if i not in indices]
        before, moments = bits(model.weight), rows_of(optimizer.state.get(model.weight, {}), absent)
        optimizer.step()
        shadows[0].step(model.weight.grad, 0.3, **arguments)
        shadows[0].check(model.weight, optimizer.state[model.weight])
        assert torch.equal(model.weight.codes[absent], before[absent])
        if step > 1:
            assert_same(rows_of(optimizer.state[model.weight], absent), moments)
        assert not torch.equal(model.weight.codes, before)
        weights, *counts = shadows[0].counts
        assert weights == len(set(indices)) * WIDTH
        shares = [count / weights for count in counts[:5]]
        assert optimizer.step_report() == StepReport(weights, *shares, *counts[5:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("fmt", ["lns8f5", "lns16f10", None])
def test_where_all_rows_are_there_it_is_the_dense_step_to_the_bit(kind, options, fmt):
    """Duplicates included: the gradients of a row are summed first, as torch's `coalesce` sums them."""
    model, dense = embedding(kind, sparse=True, fmt=fmt), embedding(kind, sparse=True, fmt=fmt)
    optimizers = [Madam(own.parameters(), lr=0.3, **options) for own in (model, dense)]
    for step in range(1, 5):
        optimizers[0].zero_grad()
        backward(model, [*range(ROWS), 3, 3, 0, *reversed(range(ROWS))], step)
        dense.weight.grad = model.weight.grad.coalesce().to_dense()
        for optimizer in optimizers:
            optimizer.step()
    assert_same(snapshot(None, optimizers[0]), snapshot(None, optimizers[1]))
    assert optimizers[0].step_report() == optimizers[1].step_report()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("fmt", ["lns8f5", None])
def test_the_first_step_of_some_rows_is_that_of_a_dense_gradient_with_zeros_elsewhere(options, fmt):
    model, dense = embedding("Embedding", sparse=True, fmt=fmt), embedding("Embedding", sparse=True, fmt=fmt)
    indices = [8, 2, 2, 5]
    present = sorted(set(indices))
    backward(model, indices, 1)
    dense.weight.grad = model.weight.grad.coalesce().to_dense()
    optimizers = [Madam(m.parameters(), lr=0.3, **options) for m in (model, dense)]
    for optimizer in optimizers:
        optimizer.step()
    assert torch.equal(bits(model.weight)[present], bits(dense.weight)[present])
    states = [rows_of(o.state[m.weight], present) for o, m in zip(optimizers, (model, dense), strict=True)]
    assert_same(*states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rows_of_floats(dtype, momentum):
    model = embedding("Embedding", sparse=True, fmt=None, dtype=dtype)
    optimizer = Madam(model.parameters(), lr=0.3, momentum=momentum)
    for step, indices in enumerate(BATCHES, 1):
        optimizer.zero_grad()
        backward(model, indices, step)
        absent = [i for i in range(ROWS) if i not in indices]
        before, moments = bits(model.weight), rows_of(optimizer.state.get(model.weight, {}), absent)
        optimizer.step()
        assert torch.equal(bits(model.weight)[absent], before[absent])
        assert not torch.equal(bits(model.weight), before)
        if step > 1:
            assert_same(rows_of(optimizer.state[model.weight], absent), moments)


def test_sums_that_are_not_coalesced():
    """Two backward passes: torch appends the rows of the second."""
    model, dense = embedding("Embedding", sparse=True), embedding("Embedding", sparse=True)
    for part in (1, 2):
        backward(model, [3, 5, 3], part)
    assert not model.weight.grad.is_coalesced()
    dense.weight.grad = model.weight.grad.coalesce()
    for own in (model, dense):
        Madam(own.parameters(), lr=0.3).step()
    assert torch.equal(model.weight.codes, dense.weight.codes)


def test_an_empty_batch_changes_nothing():
    model = embedding("Embedding", sparse=True)
    optimizer = Madam(model.parameters(), lr=0.3, momentum=0.9)
    backward(model, [], 1)
    before = bits(model.weight)
    optimizer.step()
    assert torch.equal(model.weight.codes, before)
    assert optimizer.step_report() == StepReport(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    optimizer.zero_grad()
    backward(model, [2], 2)
    optimizer.step()
    assert optimizer.step_report().weights == WIDTH


def test_the_row_of_padding_does_not_change():
    """Its gradient is zero, and so is its code; weight decay has nothing to pull there."""
    model = embedding("Embedding", sparse=True, padding_idx=4)
    assert isinstance(model.weight, LNSWeight)
    before = bits(model.weight)[4]
    optimizer = Madam(model.parameters(), lr=0.3, momentum=0.9)
    for step, indices in enumerate(BATCHES, 1):
        optimizer.zero_grad()
        backward(model, indices, step)
        optimizer.step()
    assert torch.equal(model.weight.codes[4], before)


def test_elements_not_finite_are_skipped_or_raise():
    model = embedding("Embedding", sparse=True)
    backward(model, [1, 2], 1)
    model.weight.grad._values()[0, :2] = torch.tensor([math.nan, math.inf])
    before = bits(model.weight)
    with pytest.raises(FloatingPointError, match=r"2 elements of a gradient of shape \(11, 7\)"):
        Madam(model.parameters(), lr=0.3, non_finite="raise").step()
    assert torch.equal(model.weight.codes, before)
    optimizer = Madam(model.parameters(), lr=0.3)
    optimizer.step()
    assert optimizer.step_report().not_finite == 2
    assert torch.equal(model.weight.codes[1, :2], before[1, :2])
    assert not torch.equal(model.weight.codes[1, 2:], before[1, 2:])


@pytest.mark.parametrize("fmt", ["lns8f5", None])
def test_a_sparse_step_tells_autograd(fmt):
    model = embedding("Embedding", sparse=True, fmt=fmt)
    version = model.weight._version
    backward(model, [1], 1)
    Madam(model.parameters()).step()
    assert model.weight._version > version


def test_an_embedding_whose_codes_are_in_another_memory_order():
    straight = embedding("Embedding", sparse=True)
    turned = embedding("Embedding", sparse=True)
    codes = straight.weight.codes.t().contiguous().t()
    turned.weight = nn.Parameter(LNSWeight(codes, lns8f5, straight.weight.log_offset))
    for own in (straight, turned):
        optimizer = Madam(own.parameters(), lr=0.3, momentum=0.9)
        for step, indices in enumerate(BATCHES, 1):
            optimizer.zero_grad()
            backward(own, indices, step)
            optimizer.step()
    assert torch.equal(straight.weight.codes, turned.weight.codes)


def test_sparse_and_dense_in_one_model():
    model = nn.ModuleList([embedding("Embedding", sparse=True), nn.Linear(WIDTH, 2)])
    convert_model(model[1], lns8f5)
    optimizer, shadows = Madam(model.parameters(), lr=0.1), shadows_of(model)
    for _ in range(3):
        optimizer.zero_grad()
        model[1](model[0](torch.tensor([1, 2, 2]))).square().sum().backward()
        optimizer.step()
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.step(p.grad, 0.1)
            shadow.check(p, optimizer.state[p])
