"""The context: what a tensor is told by, what is counted, and what is refused, each by one sentence."""

import json
import math
import threading

import numba
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lnsnum import LNSFormat
from lnsnum.gaussian import FromFunctions
from lnsnum.torch_bridge import LNSWeight, convert_model
from lnsnum.torch_bridge.datapath import Accumulator, Numbers, datapath
from lnsnum.torch_bridge.datapath.context import HANDLERS
from lnsnum.torch_bridge.datapath.float_operations import refuse
from lnsnum.torch_bridge.datapath.report import Report, TensorStatistics

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = dict.fromkeys(("weights", "activations", "errors", "gradients"), "lns8f3")
ADD = Accumulator("lns12f6")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.fixture(autouse=True)
def _nothing_is_left_behind():
    yield
    assert torch._C._len_torch_dispatch_stack() == torch._C._len_torch_function_stack() == 0
    assert not torch.nn.modules.module._global_forward_pre_hooks


X = torch.linspace(-2.0, 3.0, 24).reshape(4, 6)


def gradients(net, run, **kinds):
    """Those of the parameters after one backward pass."""
    net.zero_grad()
    with datapath(**{**KINDS, **kinds}) as path:
        run().square().sum().backward()
    return [p.grad.clone() for p in net.parameters()], path


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------------------- refusals


def nested(net):
    with datapath(**KINDS), datapath(**KINDS):
        pass


def outside(net):
    with datapath(**KINDS):
        loss = net(X).sum()
    loss.backward()


def last_product_outside(net):
    with datapath(**KINDS):
        y = net(X)
    y.backward(y.detach())


def outside_recomputed(net, reentrant=False):
    with datapath(**KINDS):
        y = checkpoint(net, X.clone().requires_grad_(), use_reentrant=reentrant)
    y.sum().backward()


def of_another_one(net):
    with datapath(**KINDS):
        loss = net(X).sum()
    with datapath(**KINDS):
        loss.backward()


def in_another_thread(net):
    with datapath(**KINDS):
        raise_in_thread(net(X).sum().backward)


def recorded_outside(net):
    loss = net(X).sum()
    with datapath(**KINDS):
        loss.backward()


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g @ b.mT, a.mT @ g


def own_function_outside(net):
    with datapath(**KINDS):
        y = Product.apply(X, net[0].weight.mT)
    y.sum().backward()


def within_autocast(net):
    with torch.autocast("cpu", torch.bfloat16), datapath(**KINDS):
        pass


def autocast_within(net):
    with datapath(**KINDS), torch.autocast("cpu", torch.bfloat16):
        net(X)


def half_types(net):
    with datapath(**KINDS):
        net.bfloat16()(X.bfloat16())


def twice(net):
    with datapath(**KINDS):
        torch.autograd.grad(net(X).square().sum(), net[0].weight, create_graph=True)


def recomputed_at_random(net):
    with datapath(**{**KINDS, "activations": Numbers("lns8f3", rounding="stochastic_log")}):
        checkpoint(net, X.clone().requires_grad_(), use_reentrant=False).sum().backward()


def model_in_a_thread(net):
    with datapath(**KINDS):
        net(X)
        raise_in_thread(lambda: net(X))


def object_in_a_thread(net):
    with datapath(**KINDS) as path:
        raise_in_thread(path.__enter__)


def written_in_place(net):
    with datapath(**KINDS), torch.no_grad():
        torch.mm(X, X.mT, out=torch.empty(4, 4))


def sparse_embedding(net):
    with datapath(**KINDS):
        nn.Embedding(3, 2, sparse=True)(torch.tensor([0]))


def floats_in_an_accumulator(net):
    with datapath(activations="lns8f3", errors="lns8f3", accumulate=ADD):
        net(X)


def differentiated_by_func(net):
    with datapath(**KINDS):
        torch.func.grad(lambda w: (X @ w).square().sum())(torch.ones(6, 2))


def forward_mode(net):
    with datapath(**KINDS):
        torch.func.jvp(lambda x: x @ X.mT, (X,), (X,))


def dual_numbers(net):
    with datapath(**KINDS), torch.autograd.forward_ad.dual_level():
        torch.autograd.forward_ad.make_dual(X, X) @ X.mT


def a_gradient_that_is_a_factor(net):
    a = X[:, :4].clone().requires_grad_()
    with datapath(**KINDS):
        (a @ a).backward(a.detach())


def a_wide_weight(net):
    convert_model(net, "lns12f9")
    with datapath(activations="lns8f3", errors="lns8f3", accumulate=ADD):
        net(X)


@numba.njit
def _wrong(z, f):
    return "text" + z


def nested_tensors(net):
    parts = [X[:3], X[:1]]
    with datapath(**KINDS):
        net(torch.nested.nested_tensor(parts, layout=torch.jagged))


def sparse(net):
    with datapath(**KINDS):
        torch.eye(4).to_sparse() @ X


def batched_gradients(net):
    with datapath(**KINDS):
        torch.autograd.grad(net(X), net[0].weight, torch.ones(2, 4, 3), is_grads_batched=True)


def bags(net):
    with datapath(**KINDS):
        nn.EmbeddingBag(3, 2)(torch.tensor([[0, 1]]))


def distances(net):
    with datapath(**KINDS):
        torch.cdist(X, X, compute_mode="use_mm_for_euclid_dist")


REFUSED = {
    nested: (RuntimeError, "a datapath is active in this thread already"),
    outside: (RuntimeError, "is differentiated outside of it: call backward"),
    last_product_outside: (RuntimeError, "is differentiated outside of it: call backward"),
    outside_recomputed: (RuntimeError, "is differentiated outside of it: call backward"),
    lambda net: outside_recomputed(net, True): (RuntimeError, "is differentiated outside of it: call backward"),
    of_another_one: (RuntimeError, "is differentiated outside of it: call backward"),
    in_another_thread: (RuntimeError, "is differentiated outside of it: call backward"),
    own_function_outside: (RuntimeError, "is differentiated outside of it: call backward"),
    recorded_outside: (RuntimeError, "was recorded outside of datapath"),
    within_autocast: (NotImplementedError, "leave torch.autocast out"),
    autocast_within: (NotImplementedError, "runs under autocast within datapath"),
    half_types: (TypeError, "takes float32 or float64, and addmm has torch.bfloat16"),
    twice: (NotImplementedError, "create_graph=True within datapath"),
    recomputed_at_random: (NotImplementedError, "would not be those of the first time"),
    model_in_a_thread: (RuntimeError, "is called in a thread that is in no datapath"),
    object_in_a_thread: (RuntimeError, "active in another thread"),
    written_in_place: (NotImplementedError, "which writes its product in place"),
    sparse_embedding: (NotImplementedError, "take sparse=False"),
    floats_in_an_accumulator: (ValueError, "and weights are floats: give weights a format, or convert the model"),
    **dict.fromkeys(
        (differentiated_by_func, forward_mode, dual_numbers),
        (NotImplementedError, "where an error cannot be told from an activation"),
    ),
    a_gradient_that_is_a_factor: (RuntimeError, "give backward.. a copy of what the forward pass multiplied"),
    nested_tensors: (NotImplementedError, r"call to_padded_tensor\(\) before"),
    **dict.fromkeys((sparse, batched_gradients), (NotImplementedError, "multiplies dense tensors alone")),
    bags: (NotImplementedError, "look up by torch.nn.Embedding"),
    distances: (NotImplementedError, "multiplies in floating point within one operation"),
    a_wide_weight: (ValueError, "the accumulator lns12f6 is narrower than weights of lns12f9"),
}


def raise_in_thread(function):
    """Call it in another thread, and raise here what it raised."""
    raised = []

    def run():
        try:
            function()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in raised:
        raise error


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, of its decompositions
@pytest.mark.parametrize("attempt", REFUSED, ids=lambda attempt: attempt.__name__)
def test_what_is_refused(net, attempt):
    kind, sentence = REFUSED[attempt]
    with pytest.raises(kind, match=sentence) as caught:
        attempt(net)
    assert "\n" not in str(caught.value)
    # and nothing is left of it
    other = nn.Linear(6, 3)
    gradients(other, lambda: other(X))


HIDE_NOTHING = ["upsample", "linear_combination", "reorder", "flatten", "convert", "fused_sdp_choice"]


def test_no_operation_hides_a_product():
    """Each of torch's whose name tells of products is made in LNS, made of others, or refused."""
    words = "mm", "bmm", "mv", "matmul", "linear", "convolution", "conv2d", "conv3d", "rnn", "lstm", "gru", "attention"
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        space, _, rest = name.partition("::")
        base, _, overload = rest.partition(".")
        parts = base.strip("_").split("_")
        if space != "aten" or set(parts).isdisjoint(words) or any(word in base for word in HIDE_NOTHING):
            continue
        func = getattr(getattr(torch.ops.aten, base), overload or "default")
        made_of_others = func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
        if func in HANDLERS or made_of_others:
            continue
        found.append(rest)
        with pytest.raises(NotImplementedError):
            refuse(func)
    assert len(found) > 50


BASE = LNSFormat(8, 3, base=3.0)
ARGUMENTS = {
    "bases": ({"weights": BASE, "accumulate": ADD}, TypeError, "have different bases: a bit-true sum has one base"),
    "narrow": ({"errors": "lns16f7", "accumulate": ADD}, ValueError, "is narrower than errors of lns16f7"),
    "no activations": ({"activations": None, "accumulate": ADD}, ValueError, "and activations are floats"),
    "accumulate": ({"accumulate": "float16"}, ValueError, "accumulate='float16' is not known"),
    "kind": ({"errors": 8}, TypeError, "errors=8 is a int: give a format"),
    "wide": ({"errors": "lns20f10"}, NotImplementedError, "is wider than 16 bits: take one of at most 16 in a network"),
    "layers": ({"layers": {"0": {"wights": None}}}, TypeError, "has 'wights', which is not known"),
    "pattern": ({"layers": {0: None}}, TypeError, "give patterns of modules' names"),
    "changes": ({"layers": {"0": "lns8f3"}}, TypeError, "give a dict of what changes, or None"),
    "statistics": ({"statistics": -1}, ValueError, "statistics=-1 is no number of tensors"),
}


@pytest.mark.parametrize(("changed", "kind", "sentence"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_arguments(changed, kind, sentence):
    with pytest.raises(kind, match=sentence):
        datapath(**{**KINDS, **changed})


PARTS = {
    "does not compile": (lambda: Accumulator("lns12f6", gaussian_log=FromFunctions(_wrong, _wrong)), TypeError),
    "finer than the float32": (lambda: Accumulator("lns32f23"), ValueError),
    "is no number of terms": (lambda: Accumulator("lns12f6", block=0), ValueError),
    "order='random'": (lambda: Accumulator("lns12f6", order="random"), ValueError),
    "log_offset='max'": (lambda: Accumulator("lns12f6", log_offset="max"), ValueError),
    "scale='mean'": (lambda: Numbers("lns8f3", scale="mean"), ValueError),
    "scale=1.5": (lambda: Numbers("lns8f3", scale=1.5), TypeError),
    "outside='clip'": (lambda: Numbers("lns8f3", outside="clip"), ValueError),
    "decay=2": (lambda: Numbers("lns8f3", decay=2), ValueError),
}


@pytest.mark.parametrize("sentence", PARTS)
def test_bad_parts(sentence):
    make, kind = PARTS[sentence]
    with pytest.raises(kind, match=sentence):
        make()


def test_an_error_within_leaves_nothing_behind(net):
    path = datapath(**KINDS)
    with pytest.raises(KeyError), path:
        raise KeyError
    with pytest.raises(RuntimeError), path:
        net(X.mT)
    with path:
        net(X).sum().backward()


# ---------------------------------------------------------------------------------------------------------- both passes


def test_the_same_object_again(net):
    expected, _ = gradients(net, lambda: net(X))
    net.zero_grad()
    path = datapath(**KINDS)
    with path:
        y = net(X)
    with path:
        y.square().sum().backward()
    assert equal([p.grad for p in net.parameters()], expected)


def test_without_gradients(net):
    with datapath(**KINDS, accumulate=ADD):
        expected = net(X)
        with torch.no_grad():
            assert torch.equal(net(X), expected)
        with torch.inference_mode():
            assert torch.equal(net(X), expected)


class OwnParameter(nn.Parameter):
    """A subclass, as libraries of quantized models have."""


ROLES = {
    "linear": lambda w, x: functional.linear(x, w),
    "bias": lambda w, x: functional.linear(x, w, w[0]),
    "matmul": lambda w, x: x @ w,
    "vector": lambda w, x: w @ x[0],
    "chunks": lambda w, x: functional.linear(x, w.chunk(2)[1]),
    "reshaped": lambda w, x: x @ w.view(-1).view(6, 6),
    "detached": lambda w, x: x @ w.detach(),
    "data": lambda w, x: x @ w.data,
    "copied": lambda w, x: x @ w.clone(),
    "convolution": lambda w, x: functional.conv1d(x[None, :, :], w[:, :, None][:, :4], padding="same"),
    "attention": lambda w, x: functional.multi_head_attention_forward(
        x, x, x, 6, 2, w.repeat(3, 1), None, None, None, False, 0.0, w, None, need_weights=False
    )[0],
}


@pytest.mark.parametrize("own", [nn.Parameter, OwnParameter])
@pytest.mark.parametrize("product", ROLES)
def test_roles_are_the_same_without_gradients(product, own):
    """Weights and activations of formats so different that one in the place of the other shows."""
    x, w = X[:, :6], own(torch.linspace(-1.3, 1.7, 36).reshape(6, 6))
    with datapath(weights="lns5f1", activations="lns12f6") as path:
        expected = ROLES[product](w, x)
        kinds = {one.kind for one in path.report().tensors}
        for without in (torch.no_grad, torch.inference_mode):
            with without():
                assert torch.equal(ROLES[product](w, x), expected)
    assert ("weights" in kinds) == (product not in ("detached", "data", "copied"))


MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "bools": {"attn_mask": torch.ones(4, 4).tril().bool()},
    "floats": {"attn_mask": torch.linspace(-2.0, 2.0, 16).reshape(4, 4)},
    "scale": {"scale": 0.3},
    "groups": {"enable_gqa": True},
}


@pytest.mark.parametrize("arguments", MASKS.values(), ids=MASKS)
def test_attention_is_that_of_torch(arguments):
    """Where no kind has a format, all its arguments mean what they do outside."""
    q = torch.linspace(-1.0, 1.0, 96).reshape(1, 4, 4, 6)
    kv = (q[:, :2] if "enable_gqa" in arguments else q).sin()
    expected = functional.scaled_dot_product_attention(q, kv, kv, **arguments)
    for without in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with datapath(), without():
            found = functional.scaled_dot_product_attention(q, kv, kv, **arguments)
        torch.testing.assert_close(found, expected)


def test_a_gradient_that_is_written_to_between_two_backward_passes(net):
    given = torch.ones(4, 3)
    with datapath(**KINDS):
        y = net(X)
        y.backward(given, retain_graph=True)
        first = [p.grad.clone() for p in net.parameters()]
        net.zero_grad()
        given.numpy()[:] = 4.0
        y.backward(given)
    assert equal([p.grad for p in net.parameters()], [4.0 * one for one in first])


@pytest.mark.parametrize("kind", ["weights", "activations"])
def test_both_passes_have_the_same_codes_though_another_step_lies_between(kind):
    """Of a running maximum that has fallen since, and of other draws."""
    for numbers in (Numbers("lns5f1", scale="running", decay=0.1), Numbers("lns5f1", rounding="stochastic_value")):
        layer, a, found = nn.Linear(6, 3, bias=False), X.clone().requires_grad_(), []
        layer.weight.data = torch.linspace(-1.3, 1.7, 18).reshape(3, 6)
        for more in (0, 3):
            a.grad = layer.weight.grad = None
            with datapath(**{kind: numbers}) as path:
                path.workshop.peaks[kind_place(kind)] = 1e4
                y = layer(a)
                for _ in range(more):
                    layer(a)
                y.sum().backward()
            found.append([a.grad, layer.weight.grad])
        assert equal(*found)


def kind_place(kind):
    return "Linear", kind, "mm", ["activations", "weights"].index(kind)


ADDS = {
    "scatter.value_reduce": lambda x: x.detach().scatter(0, torch.zeros(4, 6, dtype=torch.long), 2.0, reduce="add"),
    "index_put.default": lambda x: x.index_put((torch.tensor([0, 0]),), x[:2], accumulate=True),
    "max_pool2d_with_indices_backward.default": lambda x: functional.max_pool2d(x[None], 2, 1).sum().backward(),
    "unfold_backward.default": lambda x: x.unfold(1, 3, 1).sum().backward(),
}


@pytest.mark.parametrize("name", ADDS)
def test_what_adds_where_numbers_fall_on_one_place_is_listed(name):
    with datapath(**KINDS) as path:
        ADDS[name](X.clone().requires_grad_())
        X.index_put((torch.tensor([0, 1]),), X[:2])
        X.scatter(0, torch.zeros(4, 6, dtype=torch.long), X)
    listed = set(path.report().in_float)
    assert f"aten.{name}" in listed
    assert not listed & ({"aten.index_put.default", "aten.scatter.src"} - {f"aten.{name}"})


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("scale", ["max", "running", "channel"])
def test_checkpointing(net, reentrant, scale):
    x = X.clone().requires_grad_()
    kinds = {
        "weights": Numbers("lns8f3", scale=scale),
        "activations": Numbers("lns8f3", scale=scale),
        "accumulate": ADD,
    }
    expected, _ = gradients(net, lambda: net(x), **kinds)
    found, _ = gradients(net, lambda: checkpoint(net, x, use_reentrant=reentrant), **kinds)
    assert equal(found, expected)


def test_attention_within_checkpointing():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
    x = torch.randn(2, 3, 8, requires_grad=True)
    expected, path = gradients(layer, lambda: layer(x))
    found, _ = gradients(layer, lambda: checkpoint(layer, x, use_reentrant=False))
    assert equal(found, expected)
    assert {one.layer for one in path.report().tensors} >= {"self_attn", "linear1", "linear2"}


def test_saved_tensors_elsewhere(net):
    expected, _ = gradients(net, lambda: net(X))
    with torch.autograd.graph.save_on_cpu():
        found, _ = gradients(net, lambda: net(X))
    assert equal(found, expected)


def test_a_gradient_that_is_given():
    """backward(y) straight after a product of a matrix with itself."""
    a, y = X[:, :4].clone().requires_grad_(), X[:, 2:]
    with datapath(**{**KINDS, "errors": "lns12f6"}):
        (a @ a).backward(y)
    q, e = (
        LNSWeight.from_float(x.detach(), fmt, log_offset="fit").to_float() for x, fmt in ((a, "lns8f3"), (y, "lns12f6"))
    )
    torch.testing.assert_close(a.grad, e @ q.mT + q.mT @ e)


def test_a_function_of_ones_own():
    a, b = X.clone().requires_grad_(), nn.Parameter(torch.linspace(-1.0, 2.0, 12).reshape(6, 2))
    found = []
    for product in (torch.matmul, Product.apply):
        a.grad = b.grad = None
        with datapath(**{**KINDS, "gradients": None}) as path:
            product(a, b).square().sum().backward()
        found.append([a.grad, b.grad, sorted(one.kind for one in path.report().tensors)])
    assert equal(*(one[:2] for one in found))
    assert found[0][2] == found[1][2] == ["activations", "errors", "weights"]


@pytest.mark.filterwarnings("ignore:Using `torch.compile")  # torch's own, of global hooks
def test_compiled_models_run_as_they_were(net, fresh):
    compiled = torch.compile(net, backend="eager")
    plain = compiled(X)
    with datapath(**KINDS):
        expected, found = net(X), compiled(X)
    assert torch.equal(found, expected)
    assert not torch.equal(found, plain)

    def run(x):
        with datapath(**KINDS):
            return net(x)

    assert torch.equal(torch.compile(run, backend="eager")(X), expected)


def test_each_thread_has_its_own(net):
    found = []

    def run():
        with datapath(**KINDS):
            found.append(net(X))

    with datapath(**KINDS):
        expected = net(X)
        raise_in_thread(run)
    assert torch.equal(found[0], expected)


# --------------------------------------------------------------------------------------------------------- what is told


def test_roles_and_layers(net):
    convert_model(net, "lns8f5")
    _, path = gradients(net, lambda: net(X), weights=None, layers={"2": {"errors": "lns12f6"}})
    told = {(one.layer, one.kind): one.fmt for one in path.report().tensors}
    weights = {("0", "weights"): "lns8f5", ("2", "weights"): "lns8f5"}
    second = {("2", "activations"): "lns8f3", ("2", "errors"): "lns12f6", ("2", "gradients"): "lns8f3"}
    assert told == {**weights, **second, **{("0", kind): "lns8f3" for kind in ("activations", "errors", "gradients")}}


@pytest.mark.parametrize("rounding", ["nearest", "stochastic_value"])
def test_writes_that_no_version_tells_of(rounding):
    """Through .data and NumPy, between two calls of a module and between two with blocks."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0]])
    path = datapath(weights=Numbers("lns8f3", rounding=rounding), activations="lns8f3")
    x = torch.tensor([[1.0, 1.0]])
    with path:
        assert layer(x).item() == 3.0
        layer.weight.data.mul_(2.0)
        assert layer(x).item() == 6.0
        layer.weight.detach().numpy()[:] = [[2.0, 8.0]]
        assert layer(x).item() == 10.0
    layer.weight.data[:] = torch.tensor([[8.0, 2.0]])
    x.numpy()[:] = [[1.0, 2.0]]
    with path:
        assert functional.linear(x, layer.weight).item() == 12.0


def test_a_weight_in_another_format_is_rounded_from_its_codes():
    """lns8f5 to lns8f3: half of the codes lie half-way between two, and go to the even one."""
    weight = LNSWeight(torch.arange(1, 128, dtype=torch.uint8).reshape(1, -1), LNSFormat(8, 5), 5)
    with datapath(weights="lns8f3"):
        out = functional.linear(torch.eye(127), weight)[:, 0]
    codes = torch.arange(1, 128) - 64 + 5
    steps = torch.round(codes.double() / 4)  # ties to even
    torch.testing.assert_close(out, torch.exp2(steps / 8).float(), rtol=1e-6, atol=0.0)


def test_a_layer_that_stays_in_float(net):
    expected = net(X)
    with datapath(**KINDS, layers={"*": None}) as path:
        assert torch.equal(net(X), expected)
    assert path.report().tensors == []
    assert path.report().in_float == {"aten.addmm.default, by layers": {"0": 1, "2": 1}}


def test_the_report(net, tmp_path):
    pytest.importorskip("matplotlib")
    x = torch.tensor([[0.0, 1.0, 100.0, 1e-6, -2.0, 8.0]])
    with datapath(**{**KINDS, "activations": Numbers("lns8f3", scale=0)}, accumulate=ADD, statistics=1) as path:
        functional.cross_entropy(net(x), torch.tensor([1])).backward()
        net(x)
    report = path.report()
    (own,) = (one for one in report.tensors if (one.layer, one.kind) == ("0", "activations"))
    # 2^8 is above 100; 1e-6 is below 2^-7.9
    assert (own.measured, own.elements, own.zeros, own.saturated, own.underflow) == (1, 6, 1, 0, 1)
    assert (own.low, own.high) == pytest.approx((-19.93, 6.64), abs=0.01)
    assert 20.0 < own.snr < 60.0
    assert "aten._log_softmax.default" in report.in_float
    assert "aten.relu.default" not in report.in_float
    assert "in float: aten._log_softmax.default" in str(report)
    assert json.loads(report.to_json())["tensors"][0]["layer"] == "0"
    assert report.to_table().row_count == len(report.tensors) + len(report.sums)
    report.plot(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="what='mean' is not known"):
        report.plot(tmp_path / "map.png", "mean")


def test_a_report_of_what_is_beyond_doubles(tmp_path):
    """Numbers whose squares are infinite have no SNR, and the report is written all the same."""
    pytest.importorskip("matplotlib")
    one = TensorStatistics("0", "activations", "lns8f5", 1, 1, 4, 0.0, 600.0, 4, 0, 0, math.inf, math.inf)
    assert math.isnan(one.snr)
    report = Report([one])
    assert json.loads(report.to_json())["tensors"][0]["snr"] is None
    assert "nan" in str(report)
    report.plot(tmp_path / "map.png")


def test_what_is_swamped():
    """1 and then many a part in 2^12: lns12f6 adds none of them."""
    x, w = torch.full((1, 9), 2.0**-12), nn.Parameter(torch.ones(1, 9))
    x[0, 0] = 1.0
    with datapath(**KINDS, accumulate=ADD) as path:
        assert functional.linear(x, w).item() == 1.0
    (own,) = path.report().sums
    assert (own.additions, own.swamped) == (8, 8)


@pytest.mark.parametrize("size", [1e300, 1e-300])
@pytest.mark.parametrize("rule", ["fit", "dynamic"])
def test_sums_that_no_double_holds(size, rule):
    """Products of 10^600 and of 10^-600 are told of as others are: two, and one that lies 20 octaves lower, or 32."""
    for below, underflow in ((10, 0), (16, 1)):
        x = torch.tensor([[size, size, size * 2.0**-below]], dtype=torch.float64)
        with datapath(activations="lns12f6", accumulate=Accumulator("lns12f6", log_offset=rule)) as path:
            torch.mm(x, x.mT)
        (own,) = path.report().sums
        assert (own.terms, own.underflow, own.additions, own.swamped) == (3, underflow, 2, 1)


# -------------------------------------------------------------------------------------------------- scales and rounding


def test_gradients_outside_of_the_range():
    x = torch.tensor([[1.0, 300.0, -400.0, 2.0]], requires_grad=True)
    w = nn.Parameter(torch.ones(1, 4))
    for outside, expected in (("pass", [1.0, 1.0, 1.0, 1.0]), ("zero", [1.0, 0.0, 0.0, 1.0])):
        x.grad = None
        with datapath(activations=Numbers("lns8f3", scale=0, outside=outside)):
            functional.linear(x, w).sum().backward()
        assert x.grad[0].tolist() == expected


def test_a_running_maximum(net):
    numbers = Numbers("lns8f3", scale="running", decay=0.5)
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data.fill_(1.0)
    path = datapath(activations=numbers)
    found = []
    small = (
        2.0**-14.875
    )  # just within the range below a maximum, and below half of the smallest where that is 4 times more
    with path:
        for size in (8.0, 1.0, 64.0):
            found.append(float(layer(torch.tensor([[size, size * small]])).detach()) / size)
    # at a maximum of 8, of 4, of 64
    assert found == [pytest.approx(1.0 + small, abs=1e-6), 1.0, pytest.approx(1.0 + small, abs=1e-6)]
    assert path.state_dict()["peaks"] == [["Linear", "activations", "mm", 0, 64.0]]
    other = datapath(activations=numbers)
    other.load_state_dict(path.state_dict())
    assert other.state_dict() == path.state_dict()


def test_random_rounding_is_keyed(net):
    """By seed and step; one draw for a tensor in both passes; unbiased over steps."""
    kinds = {**KINDS, "activations": Numbers("lns8f3", rounding="stochastic_value")}

    def run(seed, step):
        path = datapath(**kinds, seed=seed)
        path.step = step
        with path:
            return net(X)

    assert torch.equal(run(1, 5), run(1, 5))
    assert not torch.equal(run(1, 5), run(1, 6))
    assert not torch.equal(run(1, 5), run(2, 5))
    # a weight that is not trained is drawn anew too, so that a run that goes on draws what it would have
    frozen = {**kinds, "weights": kinds["activations"]}
    whole, rest = datapath(**frozen), datapath(**frozen)
    with whole:
        net(X)
        state, expected = whole.state_dict(), net(X)
    rest.load_state_dict(state)
    with rest:
        assert torch.equal(net(X), expected)
    one = nn.Linear(1, 1, bias=False)
    one.weight.data.fill_(1.0)
    x = torch.full((20000, 1), 1.03)
    x[0] = 2.0
    with datapath(activations=kinds["activations"]):
        y = one(x)
        assert y.unique().tolist() == pytest.approx([1.0, 2 ** (1 / 8), 2.0])
        assert float(y[1:].mean().detach()) == pytest.approx(1.03, abs=0.002)
        y.sum().backward()
    assert float(one.weight.grad) == pytest.approx(float(y.detach().double().sum()), rel=1e-4)
