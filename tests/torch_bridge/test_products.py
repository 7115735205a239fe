"""Products of models made of codes: against the core's, whose order of sums has an oracle of its own, and torch's."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lnsnum import lns6f2, lns8f5, lns12f6, lns16f10, weight_only_matmul
from lnsnum.operations import weight_only
from lnsnum.torch_bridge import LNSWeight, convert_model, decode_model, use_weight_only, weight_only_linear
from lnsnum.torch_bridge.products import MOST_VECTORS

torch.set_num_threads(1)

TYPES = [torch.float32, torch.bfloat16, torch.float16]


def same_bits(a, b):
    """Equal, zeros in their sign too."""
    a, b = a.detach(), b.detach()
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert torch.equal(a, b)
    assert torch.equal(a.signbit(), b.signbit())


def layer(fmt=lns8f5, rows=5, inner=24, per_channel=False, bias=True):
    torch.manual_seed(0)
    linear = nn.Linear(inner, rows, bias=bias)
    convert_model(linear, fmt, per_channel=per_channel)
    assert isinstance(linear.weight, LNSWeight)
    return linear.eval()


def floats(parameter):
    return parameter.to_float() if isinstance(parameter, LNSWeight) else parameter.detach()


def of_codes(x, weight, bias=None, transposed=False):
    """The product by the core; in a narrower type, of the numbers that the weight appears as, rounded once."""
    lns = weight.detach().to_lns()
    if x.dtype == torch.float32:
        arrays = x.numpy(), lns.codes
        out = torch.from_numpy(weight_only_matmul(*arrays, lns.fmt, log_offset=lns.log_offset, transposed=transposed))
    else:
        # of float32 numbers by an exact weight: each in the order of the sums with lanes or columns of its own
        out = in_order(x.float().numpy(), floats(weight).float().numpy(), transposed)
    if bias is not None:
        out = out + floats(bias).float()
    return out.to(x.dtype)


def in_order(x, w, transposed):
    """The order that the core's text gives, in NumPy."""
    w = w if transposed else w.T
    flat = x.reshape(-1, x.shape[-1])
    sums = np.zeros((len(flat), w.shape[1]), np.float32)
    if transposed:
        for begin in range(0, len(w), 64):
            block = np.zeros_like(sums)
            for k in range(begin, min(begin + 64, len(w))):
                block += flat[:, k, None] * w[k]
            sums += block
    else:
        lanes = np.zeros((128, *sums.shape), np.float32)
        for k in range(len(w)):
            lanes[k % 128] += flat[:, k, None] * w[k]
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        sums = lanes[0]
    return torch.from_numpy(sums.reshape(*x.shape[:-1], w.shape[1]))


class Counted:
    """The products that the kernels made meanwhile."""

    def __init__(self, monkeypatch):
        self.count = 0
        for name in ("multiply", "multiply_at"):
            monkeypatch.setattr(weight_only, name, self.counting(getattr(weight_only, name)))

    def counting(self, function):
        def run(*arguments, **options):
            self.count += 1
            return function(*arguments, **options)

        return run

    def of(self, call):
        """The result of a call, and how many it made."""
        self.count = 0
        return call(), self.count


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


@pytest.fixture(params=[True, False], ids=["in registers", "in memory"])
def both_ways(request, monkeypatch):
    if request.param and not weight_only.has_byte_tables():
        pytest.skip("this processor has no byte tables")
    monkeypatch.setattr(weight_only, "has_byte_tables", lambda: request.param)


# --------------------------------------------------------------------------------------------------- weight_only_linear


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("fmt", [lns8f5, lns6f2, lns12f6, lns16f10], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [None, "LNS", "float"])
def test_linear_layers(fmt, per_channel, bias, counted):
    linear = layer(fmt, per_channel=per_channel, bias=bias is not None)
    if bias == "float":
        linear.bias = nn.Parameter(floats(linear.bias) + 0.1)
    for shape in ((24,), (1, 24), (2, 3, 24), (0, 24), (MOST_VECTORS, 24)):
        x = torch.randn(shape)
        with torch.no_grad():
            found, count = counted.of(lambda x=x: weight_only_linear(x, linear.weight, linear.bias))
            assert count == 1
            assert type(found) is torch.Tensor
            same_bits(found, of_codes(x, linear.weight, linear.bias))
            torch.testing.assert_close(found, F.linear(x, linear.weight, linear.bias))
            assert counted.of(lambda x=x: weight_only_linear(nn.Parameter(x), linear.weight, linear.bias))[1] == 1


def test_layouts_of_tensors():
    linear = layer(bias=False)
    x = torch.randn(4, 24, 2)
    with torch.no_grad():
        for vectors in (x[..., 0], x[..., 1], torch.randn(24, 4).T, torch._neg_view(x[..., 0])):
            same_bits(weight_only_linear(vectors, linear.weight), of_codes(vectors.resolve_neg(), linear.weight))
        # x W of what is stored as W^T is read by columns
        weight = layer(rows=24, inner=5).weight.T
        found = weight_only_linear(x[..., 0], weight)
        same_bits(found, of_codes(x[..., 0].contiguous(), weight.T.contiguous(), transposed=True))
        strided = layer(rows=10, inner=48, bias=False).weight[:, ::2]
        assert torch.equal(weight_only_linear(x[..., 0], strided), F.linear(x[..., 0], strided))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_products_without_numbers_are_torch_s(dtype, monkeypatch):
    """Sums of nothing are zeros, whatever the memory held; a weight without rows is looked up for no index."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **named: empty(*args, **named).fill_(7))
    for shape in ((0, 33), (33, 0), (0, 0), (2, 0, 33), (2, 33, 0), (0, 2, 3)):
        for options in ({}, {"channels": 0}, {"channels": (0, 1)} if len(shape) == 3 else {"group_size": 16}):
            weight = nn.Parameter(LNSWeight.from_float(torch.zeros(shape, dtype=dtype), "lns8f5", **options))
            weight.requires_grad_(False).weight_only = True
            for rows in (1, 3, 9):
                x = torch.ones(*shape[:-2], rows, shape[-2], dtype=dtype)
                assert torch.equal(x @ weight, x @ weight.to_float())
                if len(shape) == 2:
                    y = torch.ones(rows, shape[1], dtype=dtype)
                    assert torch.equal(F.linear(y, weight), F.linear(y, weight.to_float()))
            if len(shape) == 2:
                none = torch.zeros(0, dtype=torch.long)
                assert torch.equal(F.embedding(none, weight), F.embedding(none, weight.to_float()))


def test_stacks_of_several_lengths_are_refused_as_torch_refuses_them():
    stack = nn.Parameter(LNSWeight.from_float(torch.ones(2, 3, 4), "lns8f5"), requires_grad=False)
    stack.weight_only = True
    for other in (stack, stack.to_float()):
        with pytest.raises(RuntimeError, match="batch"):
            torch.bmm(torch.ones(3, 1, 3), other)


def test_what_is_left_to_torch(counted):
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
            found, count = counted.of(lambda arguments=arguments: run(*arguments))
            want = F.linear(*arguments)
            assert count == 0
            assert found.dtype == want.dtype
            assert found.is_meta or torch.equal(found, want)
        with torch.autocast("cpu", torch.bfloat16):
            found, count = counted.of(lambda: run(x, weight, bias))
            assert torch.equal(found, F.linear(x, weight, bias))
            assert (count, found.dtype) == (0, torch.bfloat16)
        mapped, count = counted.of(lambda: torch.vmap(lambda row: run(row, weight, bias))(x))
        torch.testing.assert_close(mapped, F.linear(x, weight, bias))
        assert count == 0
        with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|size mismatch"):
            run(x[:, :5], weight, bias)


def test_gradients_are_those_of_torch(counted):
    linear, x = layer(), torch.randn(3, 24, requires_grad=True)
    want = F.linear(x, linear.weight, linear.bias)
    theirs = torch.autograd.grad(want.square().sum(), [x, *linear.parameters()])
    for asked in (False, True):
        linear.weight.weight_only = asked
        found, count = counted.of(lambda: weight_only_linear(x, linear.weight, linear.bias))
        assert count == 0
        assert torch.equal(found, want)
        ours = torch.autograd.grad(found.square().sum(), [x, *linear.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    linear.weight.weight_only = False
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        assert counted.of(lambda: weight_only_linear(x, linear.weight, linear.bias))[1] == 0


def test_nothing_to_differentiate_needs_no_mode():
    linear, x = layer().requires_grad_(False), torch.randn(3, 24)
    same_bits(weight_only_linear(x, linear.weight, linear.bias), of_codes(x, linear.weight, linear.bias))
    with torch.inference_mode():
        same_bits(weight_only_linear(x, linear.weight, linear.bias), of_codes(x, linear.weight, linear.bias))


@pytest.mark.parametrize("asked", [False, True])
def test_compiled(counted, fresh, asked):
    linear, x = layer(), torch.randn(3, 24)
    linear.weight.weight_only = asked
    compiled = torch.compile(weight_only_linear, backend="eager", fullgraph=True)
    whole = torch.compile(linear, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for run in (lambda: compiled(x, linear.weight, linear.bias), lambda: whole(x)):
            found, count = counted.of(run)
            assert count == 0 or asked
            linear.weight.weight_only = False
            torch.testing.assert_close(found, F.linear(x, linear.weight, linear.bias))
            linear.weight.weight_only = asked


# ------------------------------------------------------------------------------------------------------ use_weight_only


class Conv1D(nn.Module):
    """x W + b with W (K, N), as Hugging Face's."""

    def __init__(self, inner, outer):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inner, outer) / inner**0.5)
        self.bias = nn.Parameter(torch.randn(outer))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class Experts(nn.Module):
    """Stacks of matrices, multiplied one by one and all at once."""

    def __init__(self, count, inner, outer):
        super().__init__()
        self.up = nn.Parameter(torch.randn(count, outer, inner) / inner**0.5)
        self.down = nn.Parameter(torch.randn(count, outer, inner) / outer**0.5)

    def forward(self, x):
        hidden = torch.stack([F.linear(x, self.up[i]) for i in range(len(self.up))])
        return torch.bmm(hidden, self.down).sum(0)


class Mixed(nn.Module):
    """Every kind of parameter."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight
        self.positions = nn.Embedding(8, 16)
        self.linear, self.conv1d, self.experts = nn.Linear(16, 24), Conv1D(24, 16), Experts(3, 16, 12)
        self.norm, self.convolution, self.lstm = nn.LayerNorm(16), nn.Conv1d(16, 16, 1), nn.LSTM(16, 16)
        self.attention = nn.MultiheadAttention(16, 2)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.positions(torch.arange(len(tokens)))
        x = self.norm(self.experts(self.conv1d(F.relu(self.linear(x)))))
        return self.head(x)


COVERED = ("embedding.weight", "linear.weight", "conv1d.weight", "experts.up", "experts.down")


def mixed(**options):
    torch.manual_seed(0)
    model = Mixed()
    convert_model(model, "lns8f5", **options)
    return model.eval()


def test_the_report_names_what_is_covered_and_why_the_rest_is_not():
    model = mixed(filter_fn=lambda name, parameter: name != "norm.weight")
    report = use_weight_only(model)
    assert report.covered == COVERED
    assert len(report) == 5
    assert {*report.covered, *report.left} == {name for name, _ in model.named_parameters()}
    assert report.left["norm.weight"] == "float"
    assert report.left["norm.bias"] == report.left["linear.bias"] == "no matrix"
    assert report.left["positions.weight"] == "looked up, not multiplied"
    assert report.left["convolution.weight"] == "a convolution"
    assert "recurrent" in report.left["lstm.weight_hh_l0"]
    assert "attention" in report.left["attention.in_proj_weight"]
    assert "attention" in report.left["attention.out_proj.weight"]
    lines = str(report).splitlines()
    assert len(lines) == len(report.covered) + len(report.left)
    assert lines[0].split(maxsplit=1) == ["embedding.weight", "products of codes"]
    asked = [name for name, p in model.named_parameters() if isinstance(p, LNSWeight) and p.weight_only]
    assert tuple(asked) == COVERED
    off = use_weight_only(model, on=False)
    assert (off.covered, set(off.left.values())) == ((), {"turned off"})
    assert not any(p.weight_only for p in model.parameters() if isinstance(p, LNSWeight))


def test_a_weight_of_another_type_or_order_or_device_is_left():
    linear = layer()
    assert "float64" in use_weight_only(linear.double()).left["weight"]
    assert "on meta" in use_weight_only(layer().to("meta")).left["weight"]
    stack = nn.Module()
    stack.weight = nn.Parameter(LNSWeight.from_float(torch.randn(3, 4, 5), "lns8f5").permute(1, 0, 2).detach())
    assert "order" in use_weight_only(stack).left["weight"]


def run_of_mixed(model, tokens, product):
    """What `Mixed` computes, by a function (x, weight, bias, transposed) for each product."""
    x = model.embedding(tokens) + model.positions(torch.arange(len(tokens)))
    x = product(
        F.relu(product(x, model.linear.weight, model.linear.bias)), model.conv1d.weight, model.conv1d.bias, True
    )
    experts = zip(model.experts.up, model.experts.down, strict=True)
    sums = torch.stack([product(product(x, up), down, None, True) for up, down in experts]).sum(0)
    return product(model.norm(sums), model.embedding.weight)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_model_multiplies_by_codes(dtype, per_channel, mode, counted):
    model, tokens = mixed(per_channel=per_channel).to(dtype), torch.tensor([3, 1, 4, 1])
    with mode():
        plain, count = counted.of(lambda: model(tokens))
        assert count == 0
        use_weight_only(model)
        found, count = counted.of(lambda: model(tokens))
        assert count == 9  # a linear layer, a Conv1D, a head, and two for each of three experts
        same_bits(found, run_of_mixed(model, tokens, of_codes))
        torch.testing.assert_close(found, plain, rtol=0.1, atol=0.1 if dtype != torch.float32 else 1e-5)
        use_weight_only(model, on=False)
        assert counted.of(lambda: model(tokens))[1] == 0
        same_bits(model(tokens), plain)


def test_under_autocast(counted):
    model, tokens = mixed(), torch.tensor([3, 1, 4, 1])
    use_weight_only(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, count = counted.of(lambda: model.linear(torch.ones(2, 16)))
        assert count == 1
        narrow = copy.deepcopy(model.linear).bfloat16()
        same_bits(found, of_codes(torch.ones(2, 16).bfloat16(), narrow.weight, narrow.bias))
        assert counted.of(lambda: model(tokens))[1] == 9


def test_what_is_learned_or_has_many_rows_is_torch_s(counted):
    model = mixed()
    x = torch.randn(MOST_VECTORS + 1, 16)
    want = model.linear(x)
    gradients = torch.autograd.grad(want.square().sum(), list(model.linear.parameters()))
    use_weight_only(model)
    found, count = counted.of(lambda: model.linear(x))
    assert count == 0
    assert torch.equal(found, want)
    few, count = counted.of(lambda: model.linear(x[:2]))
    assert count == 0
    assert few.requires_grad
    ours = torch.autograd.grad(found.square().sum(), list(model.linear.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(ours, gradients, strict=True))
    with torch.no_grad():
        assert torch.equal(model.linear(x), want)


@pytest.mark.parametrize(
    "call",
    [
        lambda w, x: torch.mm(w, x.T),
        lambda w, x: torch.mv(w, x[0]),
        lambda w, x: w @ x.T,
        lambda w, x: x @ w.T,
        lambda w, x: x[0] @ w.T,
        lambda w, x: x[None] @ w.T,
        lambda w, x: torch.addmv(torch.ones(len(w)), w, x[0]),
        lambda w, x: torch.addmm(torch.ones(len(w)), x, w.T),
        lambda w, x: F.linear(x, w[1:4]),
        lambda w, x: F.linear(x[:, 2:6], w[:, 2:6].contiguous()),
        lambda w, x: torch.einsum("bk,nk->bn", x, w),
    ],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_every_way_to_multiply(call, mode, counted):
    weight, x = layer(bias=False).weight, torch.randn(2, 24)
    with mode():
        plain, count = counted.of(lambda: call(weight, x))
        assert count == 0
        weight.weight_only = True
        found, count = counted.of(lambda: call(weight, x))
        assert count == 1
        torch.testing.assert_close(found, plain)
        assert found.stride() == plain.stride() or found.numel() == max(found.shape)


@pytest.mark.parametrize(
    "call",
    [
        lambda w, x: torch.addmm(torch.ones(len(w)), x, w.T, beta=2),
        lambda w, x: torch.addmm(torch.ones(2, len(w)), x, w.T),
        lambda w, x: torch.addmm(torch.ones(1), x, w.T, alpha=3),
        lambda w, x: torch.addmv(torch.ones(1), w, x[0]),
        lambda w, x: torch.mm(w, w.T),
        lambda w, x: F.linear(x[:, ::2], w[:, ::2]),
        lambda w, x: w * x[0],
        lambda w, x: w.sum(),
    ],
)
def test_other_operations_are_torch_s(call, counted):
    weight, x = layer(bias=False).weight, torch.randn(2, 24)
    with torch.no_grad():
        plain = call(weight, x)
        weight.weight_only = True
        found, count = counted.of(lambda: call(weight, x))
        assert count == 0 or found.shape == (5, 5)
        torch.testing.assert_close(found, plain)


def saved_and_loaded(model):
    memory = io.BytesIO()
    torch.save(model, memory)
    memory.seek(0)
    return torch.load(memory, weights_only=False)


def test_copies_and_pickles_have_it_and_the_state_does_not(counted):
    model, tokens = mixed(), torch.tensor([3, 1])
    state = model.state_dict()
    before, after = io.BytesIO(), io.BytesIO()
    torch.save(state, before)
    use_weight_only(model)
    torch.save(model.state_dict(), after)
    assert before.getvalue() == after.getvalue()
    with torch.no_grad():
        want = model(tokens)
        for other in (
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
            saved_and_loaded(model),
            copy.deepcopy(model).double().float(),
        ):
            found, count = counted.of(lambda other=other: other(tokens))
            assert count == 9
            same_bits(found, want)
        fresh = mixed()
        fresh.load_state_dict(model.state_dict())
        assert counted.of(lambda: fresh(tokens))[1] == 0
        model.load_state_dict(state)
        assert counted.of(lambda: model(tokens))[1] == 9


def test_a_model_that_is_decoded_again(counted):
    model, tokens = mixed(), torch.tensor([3, 1])
    with torch.no_grad():
        want = model(tokens)
        use_weight_only(model)
        decode_model(model)
        found, count = counted.of(lambda: model(tokens))
    assert count == 0
    assert torch.equal(found, want)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_threads_of_torch_change_nothing(threads, monkeypatch):
    monkeypatch.setattr(weight_only, "_PARALLEL_IN_REGISTERS", 1)
    x = torch.randn(3, 200)
    try:
        for rows in (2, 127, 300):  # of a single column the numbers lie side by side as in a row
            weight = layer(rows=rows, inner=200, per_channel=rows > 2).weight
            stored = LNSWeight.from_float(torch.randn(200, rows), "lns8f5")
            stored.weight_only = True
            torch.set_num_threads(threads)
            with torch.no_grad():
                same_bits(weight_only_linear(x, weight), of_codes(x, weight))
                same_bits(x @ stored, of_codes(x, stored, transposed=True))
    finally:
        torch.set_num_threads(1)


def test_codes_that_change_are_seen():
    linear, x = layer(), torch.randn(2, 24)
    use_weight_only(linear)
    with torch.no_grad():
        for change in (
            lambda w: w.mul_(2.0),
            lambda w: w.rescale_(w.log_offset + 3),
            lambda w: w.codes.copy_(w.codes.flip(0)),
            lambda w: w.share_memory_(),
        ):
            change(linear.weight)
            same_bits(linear(x), of_codes(x, linear.weight, linear.bias))


def test_gpt2_is_covered_but_for_its_positions_and_norms(counted):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=50, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    convert_model(model, "lns8f5")
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        plain = model(tokens).logits
        report = use_weight_only(model)
        assert len(report) == 1 + 4 * 2
        assert {why for name, why in report.left.items() if "bias" not in name and "ln" not in name} == {
            "looked up, not multiplied"
        }
        found, count = counted.of(lambda: model(tokens).logits)
    assert count == 9
    torch.testing.assert_close(found, plain)
