"""What is no product, in LNS: every bit is that of its composition of scalar operations of the reference."""

from fractions import Fraction

import numpy as np
import pytest
import scalar_datapath as scalar
import torch
from elementwise_fixtures import ADD, A, E, W, every_accumulator, floats, rounded, same, within
from scalar_unit import ScalarUnit
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lnsnum.torch_bridge import Madam, convert_model
from lnsnum.torch_bridge.datapath import FixedPoint, datapath
from lnsnum.torch_bridge.datapath.elementwise import IN_PLACE, WHOLE
from lnsnum.torch_bridge.datapath.pointwise import POINTWISE

pytestmark = pytest.mark.usefixtures("one_thread")


RULES = {
    "add": (lambda x, y: x + y, lambda u, x, y: u.add(x, y)),
    "add a constant": (lambda x, y: x + 0.3, lambda u, x, y: u.add(x, u.encode(0.3))),
    "add three times": (lambda x, y: torch.add(x, y, alpha=3), lambda u, x, y: u.add(x, u.scaled(y, 3.0))),
    "subtract": (lambda x, y: x - y, lambda u, x, y: u.subtract(x, y)),
    "from a constant": (lambda x, y: 1 - x, lambda u, x, y: u.subtract(u.encode(1.0), x)),
    "multiply": (lambda x, y: x * y, lambda u, x, y: u.multiply(x, y)),
    "by a constant": (lambda x, y: x * 0.3, lambda u, x, y: u.scaled(x, 0.3)),
    "divide": (lambda x, y: x / (y.abs() + 1), lambda u, x, y: u.divide(x, u.add(absolute(u, y), u.encode(1.0)))),
    "cubed": (lambda x, y: x**3, lambda u, x, y: u.power(x, 3)),
    "root": (lambda x, y: x.abs().sqrt(), lambda u, x, y: u.power(absolute(u, x), Fraction(1, 2))),
    "rsqrt": (
        lambda x, y: (x * x + 1).rsqrt(),
        lambda u, x, y: u.power(u.add(u.multiply(x, x), u.encode(1.0)), Fraction(-1, 2)),
    ),
    "exp": (lambda x, y: x.exp(), lambda u, x, y: u.exp(x)),
    "log": (lambda x, y: (x.abs() + 1).log(), lambda u, x, y: u.log(u.add(absolute(u, x), u.encode(1.0)))),
    "addcmul": (lambda x, y: torch.addcmul(x, x, y), lambda u, x, y: u.add(x, u.multiply(x, y))),
    "sum": (lambda x, y: x.sum(), lambda u, x, y: u.total(x, (0, 1))),
    "sum of rows": (lambda x, y: x.sum(1, keepdim=True), lambda u, x, y: u.total(x, 1, keepdims=True)),
    "mean": (lambda x, y: x.mean(0), lambda u, x, y: u.mean(x, 0)),
    "mean of all": (lambda x, y: x.mean(), lambda u, x, y: u.mean(x, (0, 1))),
}


def absolute(u, x):
    return u.encode(np.abs(scalar.decoded(x)))


@every_accumulator
@pytest.mark.parametrize("name", RULES)
def test_an_operation(name, add):
    """A transposed operand among them, and one that broadcasts."""
    function, composed = RULES[name]
    u, x, y = ScalarUnit(add), floats(3, 4), floats(4, 1, seed=1).T
    with within(add) as path:
        found = function(x, y)
    same(found, composed(u, u.encode(x), u.encode(y)))
    assert path.report().in_float == {}


@every_accumulator
@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
def test_softmax(log, add):
    u, x, y = ScalarUnit(add), floats(3, 4, spread=1.0).requires_grad_(), floats(3, 4, seed=1)
    with within(add) as path:
        out = (functional.log_softmax if log else functional.softmax)(x, 1)
        out.backward(y)
    a, e = u.encode(x.detach()), u.encode(y)
    d = u.subtract(a, u.greatest(a, 1))
    p = u.exp(d)
    total = u.total(p, 1, keepdims=True)
    expected = u.subtract(d, u.log(total)) if log else u.divide(p, total)
    same(out, expected)
    if log:
        back = u.subtract(e, u.multiply(u.exp(expected), u.total(e, 1, keepdims=True)))
    else:
        own = u.encode(out.detach())
        back = u.multiply(own, u.subtract(e, u.total(u.multiply(e, own), 1, keepdims=True)))
    same(x.grad, back)
    assert path.report().in_float == {}


def test_masked_places():
    """Minus infinity and the least float32 take no part, and a row of them alone is 0 where torch's is."""
    x = torch.tensor([[1.0, 2.0, -torch.inf, 0.5], [-torch.inf] * 4])
    least = torch.where(x.isinf(), torch.finfo(torch.float32).min, x)[:1]
    with within():
        out = functional.softmax(x, 1)
        alone = functional.softmax(x[:1, [0, 1, 3]], 1)
        safe = torch.ops.aten._safe_softmax(x, 1)
        added = torch.tensor([[1.0, 2.0, 3.0, 0.5]]) + torch.where(least < -1e30, least, 0.0)
        by_least = functional.softmax(added, 1)
        loss = functional.log_softmax(x, 1)
    assert torch.equal(out[0, [0, 1, 3]], alone[0])
    assert out[0, 2] == 0.0
    assert out[1].isnan().all()
    assert torch.equal(safe[0], out[0])
    assert safe[1].tolist() == [0.0] * 4
    assert added[0, 2] == torch.finfo(torch.float32).min
    assert torch.equal(by_least[0], out[0])
    assert loss[0, 2] == -torch.inf


def test_infinite_numbers_are_nan_in_sums():
    with within():
        x = torch.tensor([[1.0, torch.inf], [1.0, 2.0]])
        assert x.sum(1).isnan().tolist() == [True, False]
        assert functional.layer_norm(x, (2,)).isnan().tolist() == [[True, True], [False, False]]
        assert functional.softmax(x, 1).isnan().tolist() == [[True, True], [False, False]]
        assert functional.mse_loss(x, torch.zeros(2, 2)).isnan()


def moments(u, x, axes, eps=1e-5):
    mean = u.mean(x, axes, keepdims=True)
    d = u.subtract(x, mean)
    var = u.mean(u.multiply(d, d), axes, keepdims=True)
    return mean, var, u.power(u.add(var, u.encode(eps)), Fraction(-1, 2))


def normalized(u, x, mean, r, w, b):
    return u.add(u.multiply(u.multiply(u.subtract(x, mean), r), w), b)


def gradient_of_x(u, e, h, r, w, axes):
    g = u.multiply(e, w)
    centered = u.subtract(g, u.mean(g, axes, keepdims=True))
    return u.multiply(r, u.subtract(centered, u.multiply(h, u.mean(u.multiply(g, h), axes, keepdims=True))))


def weight(u, p, *shape):
    """A parameter: Q_W, placed in the accumulator."""
    return u.placed(scalar.encoded(p.detach().reshape(shape or p.shape), W))


@every_accumulator
def test_layer_norm(add):
    u, x, y = ScalarUnit(add), floats(3, 4).requires_grad_(), floats(3, 4, seed=1)
    layer = nn.LayerNorm(4)
    layer.weight.data, layer.bias.data = floats(4, seed=2), floats(4, seed=3)
    with within(add) as path:
        out = layer(x)
        out.backward(y)
    a, e, w, b = u.encode(x.detach()), u.encode(y), weight(u, layer.weight, 1, 4), weight(u, layer.bias, 1, 4)
    mean, _, r = moments(u, a, (1,))
    same(out, normalized(u, a, mean, r, w, b))
    h = u.multiply(u.subtract(a, mean), r)
    same(x.grad, gradient_of_x(u, e, h, r, w, (1,)))
    same(layer.weight.grad, rounded(u.total(u.multiply(e, h), 0)))
    same(layer.bias.grad, rounded(u.total(e, 0)))
    assert path.report().in_float == {}


@every_accumulator
def test_batch_norm(add):
    u, x, y = ScalarUnit(add), floats(2, 2, 3).requires_grad_(), floats(2, 2, 3, seed=1)
    layer = nn.BatchNorm1d(2, momentum=0.25)
    layer.weight.data, layer.bias.data = floats(2, seed=2) + 0.1, floats(2, seed=3)
    before = [u.encode(one.clone()) for one in (layer.running_mean, layer.running_var)]
    with within(add) as path:
        out = layer(x)
        out.backward(y)
    found = [p.grad.clone() for p in (x, layer.weight, layer.bias)]
    a, e, w, b = u.encode(x.detach()), u.encode(y), weight(u, layer.weight, 1, 2, 1), weight(u, layer.bias, 1, 2, 1)
    axes = (0, 2)
    mean, var, r = moments(u, a, axes)
    same(out, normalized(u, a, mean, r, w, b))
    h = u.multiply(u.subtract(a, mean), r)
    same(found[0], gradient_of_x(u, e, h, r, w, axes))
    same(found[1], rounded(u.total(u.multiply(e, h), axes)))
    same(found[2], rounded(u.total(e, axes)))
    unbiased = u.scaled(var, 6 / 5)
    for running, old, now in zip((layer.running_mean, layer.running_var), before, (mean, unbiased), strict=True):
        now = now._replace(codes=now.codes.reshape(-1))
        same(running, u.add(u.scaled(old, 0.75), u.scaled(now, 0.25)))
    assert path.report().in_float == {}
    # in evaluation by the running ones
    layer.eval()
    x.grad = layer.weight.grad = None
    with within(add):
        out = layer(x)
        out.backward(y)
    mean = u.encode(layer.running_mean.reshape(1, 2, 1))
    r = u.power(u.add(u.encode(layer.running_var.reshape(1, 2, 1)), u.encode(1e-5)), Fraction(-1, 2))
    same(out, normalized(u, a, mean, r, w, b))
    same(x.grad, u.multiply(r, u.multiply(e, w)))
    h = u.multiply(u.subtract(a, mean), r)
    same(layer.weight.grad, rounded(u.total(u.multiply(e, h), axes)))


def taken(x, labels):
    return x._replace(codes=np.array([row[label] for row, label in zip(x.codes, labels, strict=True)], dtype=object))


@every_accumulator
@pytest.mark.parametrize("weighted", [False, True])
def test_negative_log_likelihood(add, weighted):
    """Of four rows one is ignored; an image of two places is rows too."""
    u, x = ScalarUnit(add), floats(4, 3).requires_grad_()
    labels, weights = [2, 0, 1, 0], floats(3, seed=1).abs() + 0.5
    target = torch.tensor([2, 0, -100, 0])
    with within(add) as path:
        loss = functional.nll_loss(x, target, weights if weighted else None)
        (3 * loss).backward()
        images = x.detach().reshape(2, 2, 1, 3).permute(0, 3, 1, 2)
        assert torch.equal(functional.nll_loss(images, target.reshape(2, 2, 1), weights if weighted else None), loss)
    picked = torch.tensor([float(x.detach()[i, label]) if i != 2 else 0.0 for i, label in enumerate(labels)])
    terms, divisor = u.negate(u.encode(picked)), u.encode(3.0)
    own = u.encode([float(weights[label]) if i != 2 else 0.0 for i, label in enumerate(labels)])
    if weighted:
        terms, divisor = u.multiply(terms, own), u.total(own, 0)
    same(loss, u.divide(u.total(terms, 0), divisor))
    error = u.scaled(u.encode(1.0), 3.0)
    error = u.encode(scalar.decoded(error).reshape(1))
    each = u.divide(u.negate(u.multiply(error, own) if weighted else error), u.encode(scalar.decoded(divisor)))
    expected = np.zeros((4, 3), np.float32)
    for i, label in enumerate(labels):
        if i != 2:
            expected[i, label] = scalar.decoded(each)[i if weighted else 0]
    assert x.grad.tolist() == expected.tolist()
    assert path.report().in_float == {}


def test_squared_errors():
    u, x, y = ScalarUnit(ADD), floats(2, 3).requires_grad_(), floats(2, 3, seed=1)
    with within():
        loss = functional.mse_loss(x, y)
        loss.backward()
    d = u.subtract(u.encode(x.detach()), u.encode(y))
    same(loss, u.mean(u.multiply(d, d), (0, 1)))
    same(x.grad, u.divide(u.scaled(d, 2.0), u.encode(6.0)))


@every_accumulator
def test_a_whole_network_without_a_float(add):
    """Between the input and the update: linear layers, relu, softmax, cross-entropy, and all gradients."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    convert_model(net, W)
    (w1, b1), (w2, b2) = (
        (scalar.Coded(p.weight.codes.numpy().astype(object), W, p.weight.log_offset), p.bias) for p in (net[0], net[2])
    )
    b1, b2 = (
        scalar.Coded(b.codes.numpy().astype(object), W, b.log_offset) if hasattr(b, "codes") else scalar.encoded(b, W)
        for b in (b1.detach(), b2.detach())
    )
    x, labels = floats(3, 4), [0, 2, 1]
    with within(add) as path:
        loss = functional.cross_entropy(net(x), torch.tensor(labels))
        loss.backward()
    assert path.report().in_float == {}
    u = ScalarUnit(add)
    a1 = scalar.encoded(x, A)
    h = scalar.decoded(scalar.matmul(a1, scalar.transposed(w1), add, b1))
    a2 = scalar.encoded(np.maximum(h, 0), A)
    logits = u.encode(scalar.decoded(scalar.matmul(a2, scalar.transposed(w2), add, b2)))
    d = u.subtract(logits, u.greatest(logits, 1))
    logs = u.encode(scalar.decoded(u.subtract(d, u.log(u.total(u.exp(d), 1, keepdims=True)))))
    terms = u.negate(u.encode([scalar.decoded(logs)[i, label] for i, label in enumerate(labels)]))
    same(loss, u.divide(u.total(terms, 0), u.encode(3.0)))
    each = scalar.decoded(u.divide(u.negate(u.encode([1.0])), u.encode(3.0)))[0]
    picked = np.zeros((3, 3))
    picked[range(3), labels] = each
    e = u.encode(picked)
    error = scalar.decoded(u.subtract(e, u.multiply(u.exp(logs), u.total(e, 1, keepdims=True))))
    e2 = scalar.encoded(error, E)
    same(net[2].weight.grad.T, rounded(scalar.matmul(scalar.transposed(a2), e2, add)))
    same(net[2].bias.grad[None], rounded(scalar.column_sums(e2, add)))
    back = scalar.decoded(scalar.matmul(e2, w2, add))
    e1 = scalar.encoded(np.where(h > 0, back, 0.0), E)
    same(net[0].weight.grad.T, rounded(scalar.matmul(scalar.transposed(a1), e1, add)))
    same(net[0].bias.grad[None], rounded(scalar.column_sums(e1, add)))


def test_weights_that_are_added_and_multiplied():
    """Q_W as they enter, Q_G as their gradients arrive, after the sum over what they were repeated along."""
    u, x, y = ScalarUnit(ADD), floats(3, 4), floats(3, 4, seed=1)
    scale, shift = nn.Parameter(floats(4, seed=2)), nn.Parameter(floats(4, seed=3))
    with within():
        out = x * scale + shift
        out.backward(y)
    a, e, s, t = u.encode(x), u.encode(y), weight(u, scale), weight(u, shift)
    same(out, u.add(u.multiply(a, s), t))
    same(shift.grad, rounded(u.total(e, 0)))
    same(scale.grad, rounded(u.total(u.encode(scalar.decoded(u.multiply(e, a))), 0)))


def test_errors_that_meet_are_added_in_lns():
    u, x = ScalarUnit(ADD), floats(3).requires_grad_()
    with within() as path:
        (x.relu() * 0.3 + x.relu() * 0.7).sum().backward()
    three, seven = (u.encode(scalar.decoded(u.scaled(u.encode(np.ones(3)), c))) for c in (0.3, 0.7))
    both = scalar.decoded(u.add(three, seven))
    assert x.grad.tolist() == np.where(x.detach() > 0, both, 0.0).tolist()
    assert path.report().in_float == {}


# but for a quotient that is rounded to an integer, which stays in float
@pytest.mark.parametrize("func", [func for func in IN_PLACE if func._overloadname != "Tensor_mode"], ids=str)
def test_in_place(func):
    """The result of the operation that returns it, in the tensor's own memory."""
    own = IN_PLACE[func]
    x, y = floats(2, 3).abs() + 0.5, floats(2, 3, seed=1)
    more = {"addcmul": (y, y), "pow": (2,), "leaky_relu": ()}.get(own._schema.name.split("::")[-1])
    if more is None:
        more = (y,) * (POINTWISE[own].operands - 1) if own._overloadname.startswith("Tensor") else (3,)
        more = more if POINTWISE[own].operands > 1 else ()
    with within() as path:
        expected, memory = own(x, *more), x.data_ptr()
        found = func(x, *more)
    assert torch.equal(found, expected)
    assert (found is x, x.data_ptr()) == (True, memory)
    assert path.report().in_float == {}


def test_what_stays_in_float_is_listed():
    x = floats(2, 3).requires_grad_()
    layers = {"norm": {"elementwise": False}}
    net = nn.Sequential()
    net.add_module("norm", nn.LayerNorm(3))
    net.add_module("other", nn.LayerNorm(3))
    with within(layers=layers) as path:
        functional.mish(net(x)).sum().backward()
        torch.div(x.detach(), 2.0, rounding_mode="floor")
    assert path.report().in_float == {
        "aten.native_layer_norm.default": {"norm": 1},
        "aten.native_layer_norm_backward.default": {"": 1},
        "aten.mish.default": {"": 1},
        "aten.mish_backward.default": {"": 1},
        "aten.div.Tensor_mode": {"": 1},
    }


def test_integers_are_counted_as_ever():
    with within() as path:
        n = torch.arange(6)
        assert ((n + 1) * 2).sum().item() == 42
        n += 1
    assert path.report().in_float == {}


def test_every_operation_of_the_table_is_tried():
    tried = set()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            tried.add(func)
            return func(*args, **(kwargs or {}))

    x, y = floats(3, 4), floats(4, 1, seed=1).T
    with Watch():
        for function, _ in RULES.values():
            function(x, y)
    elsewhere = {"_softmax", "_log_softmax", "native_", "nll_loss", "mse_loss", "_safe_softmax", "_backward", "pool"}
    elsewhere |= {"sigmoid", "tanh", "silu", "gelu", "elu", "softplus"}  # test_pooling, test_activations
    rest = {func for func in {*POINTWISE, *WHOLE} - tried if not any(part in str(func) for part in elsewhere)}
    # the same functions under other names
    assert {str(func) for func in rest} == {
        "aten.add.Scalar", "aten.sub.Scalar", "aten.rsub.Tensor", "aten.mul.Scalar", "aten.div.Scalar",
        "aten.div.Tensor_mode", "aten.reciprocal.default", "aten.rsub.Scalar",
    } - {str(func) for func in tried}  # fmt: skip


REFUSED = {
    "accumulate='float32' has none": ({"accumulate": "float32"}, ValueError),
    "accumulate=a fixed-point accumulator of 40 bits has none": ({"accumulate": FixedPoint()}, ValueError),
    "elementwise=1 is a int": ({"elementwise": 1}, TypeError),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_go(sentence):
    changes, kind = REFUSED[sentence]
    with pytest.raises(kind, match=sentence):
        within(**changes)


def test_differentiated_outside():
    x = floats(3).requires_grad_()
    with within():
        loss = (x * 2).sum()
    with pytest.raises(RuntimeError, match="is differentiated outside of it: call backward"):
        loss.backward()


@pytest.mark.parametrize("name", ["Madam", "SGD", "Adam"])
def test_an_optimizer_steps_as_ever_within(name):
    """Its arithmetic is its own, also where the step before raised."""
    found = []
    for inside in (False, True):
        torch.manual_seed(0)
        net = nn.Linear(4, 3)
        if name == "Madam":
            convert_model(net, W)
        optimizer = Madam(net.parameters()) if name == "Madam" else getattr(torch.optim, name)(net.parameters(), lr=0.1)
        with within():
            with pytest.raises(ZeroDivisionError):
                optimizer.step(lambda: 1 / 0)
            functional.cross_entropy(net(floats(5, 4)), torch.tensor([0, 1, 2, 0, 1])).backward()
            if inside:
                optimizer.step()
        if not inside:
            optimizer.step()
        found.append([p.to_float() if name == "Madam" else p.detach().clone() for p in net.parameters()])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=0.0), nn.SiLU(), nn.Linear(5, 3), nn.LayerNorm(3))
    x, found = floats(6, 4).requires_grad_(), []
    for run in (net, lambda x: checkpoint(net, x, use_reentrant=reentrant)):
        net.zero_grad()
        with within() as path:
            functional.cross_entropy(run(x), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
        found.append([p.grad.clone() for p in net.parameters()])
        assert path.report().in_float == {}
    assert all(map(torch.equal, *found))


def test_what_torch_makes_of_these():
    """RMS norm, dropout, attention with a causal mask, smoothed labels: all without a float; and in float64."""
    x = floats(2, 4, 6)
    layer, labels = nn.MultiheadAttention(6, 2, dropout=0.25, batch_first=True), torch.tensor([1, 0])
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    with within() as path:
        h = functional.dropout(nn.RMSNorm(6)(x), 0.5)
        y, _ = layer(h, h, h, attn_mask=mask, is_causal=True, need_weights=False)
        q = functional.scaled_dot_product_attention(y, y, y, is_causal=True)
        functional.cross_entropy(q[:, 0], labels, label_smoothing=0.1).backward()
        double = functional.layer_norm(x.double(), (6,))
    assert path.report().in_float == {}
    assert double.dtype == torch.float64
    with within():
        assert torch.equal(double.float(), functional.layer_norm(x, (6,)))


def test_nan_goes_through():
    x = torch.tensor([[1.0, float("nan")], [1.0, 2.0]])
    with within():
        found = x * 2, x + x, x.sum(1), functional.softmax(x, 1), functional.layer_norm(x, (2,)), x.exp()
    for y in found:
        rows = y.isnan() if y.ndim == 1 else y.isnan().any(1)
        assert rows.tolist() == [True, False]


def test_a_class_that_is_none():
    with within(), pytest.raises(IndexError, match="target 3 is no class: 0 to 2, or -100"):
        functional.nll_loss(floats(1, 3), torch.tensor([3]))


def test_sanyal_trains_without_a_float():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.01), nn.Linear(16, 4))
    x, labels = torch.randn(16, 8), torch.randint(4, (16,))
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.5), []
    path = datapath("sanyal_16bit")
    for _ in range(20):
        optimizer.zero_grad()
        with path:
            loss = functional.cross_entropy(net(x), labels)
            loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert path.report().in_float == {}
    assert losses[-1] < 0.6 * losses[0]


def _layer_norm(shape, weight=None):
    return lambda: functional.layer_norm(torch.ones(2, 3, 4), shape, weight)


def _loss(scores, classes, weight=None, dtype=torch.int64):
    return lambda: functional.cross_entropy(torch.ones(scores), torch.zeros(classes, dtype=dtype), weight)


UNDEFINED = {
    "a dimension that there is not": (lambda: torch.ones(2, 3).sum(2), "dimension 2"),
    "mean along one": (lambda: torch.ones(2, 3).mean(-3), "dimension -3"),
    "softmax along one": (lambda: torch.ones(2, 3).softmax(2), "dimension 2"),
    "a dimension twice": (lambda: torch.ones(2, 3).sum((0, -2)), "twice"),
    "classes of other places": (_loss((2, 5, 3, 3), (2, 3, 2)), r"not \(2, 3, 2\)"),
    "weights of fewer classes": (_loss((3, 5), (3,), torch.ones(3)), "5 classes"),
    "weights of more classes": (_loss((3, 5), (3,), torch.ones(7)), "5 classes"),
    "classes of another type": (_loss((3, 5), (3,), dtype=torch.int32), "int32"),
    "lengths in another order": (_layer_norm((4, 3)), "ends in these"),
    "a weight of another shape": (_layer_norm((3, 4), torch.ones(4, 3)), "a weight of that shape"),
    "shapes that do not broadcast": (lambda: torch.ones(2, 3) + torch.ones(4), "do not broadcast"),
    "floats into integers": (lambda: torch.arange(3).add_(1.5), "int64"),
    "more into less": (lambda: torch.ones(3).add_(torch.ones(2, 3)), "not written"),
}


@pytest.mark.parametrize(("call", "message"), UNDEFINED.values(), ids=UNDEFINED)
def test_what_torch_refuses_is_refused_by_name(call, message):
    with pytest.raises((RuntimeError, IndexError)):
        call()
    with within(), pytest.raises((RuntimeError, IndexError), match=message):
        call()


def test_infinite_numbers_without_a_dimension_are_torchs():
    x = torch.tensor([1.0, -2.0, 0.0])
    calls = [
        *(lambda y=y: x + y for y in (torch.inf, -torch.inf, torch.nan)),
        *(lambda y=y: x * torch.tensor(y) for y in (torch.inf, -torch.inf, torch.nan)),
        lambda: x / torch.inf,
        lambda: torch.tensor(-torch.inf).exp(),
        lambda: torch.tensor(torch.inf) + 1.0,
        lambda: x.square() ** torch.inf,
        lambda: torch.add(x, x, alpha=torch.inf),
    ]
    for call in calls:
        expected = call()
        with within():
            torch.testing.assert_close(call(), expected, rtol=0, atol=0, equal_nan=True)


def test_rows_of_no_numbers_are_as_torchs():
    for shape in ((3, 0), (0, 3)):
        x = torch.ones(shape)
        with within():
            assert x.softmax(1).shape == x.log_softmax(1).shape == shape
            assert functional.layer_norm(x, shape[1:]).shape == shape
