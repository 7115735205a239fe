"""Products within a datapath, forward and backward, against scalar operations of the reference: every bit.

Expected floats are those of the oracle's codes (`scalar_datapath`), which knows the definitions and no array.
"""

import numpy as np
import pytest
import scalar_datapath as scalar
import torch
from torch import nn
from torch.nn import functional

from lnsnum import LNSFormat
from lnsnum.gaussian import BitShift, Cotransformation, Exact, FromFunctions, LinearInterpolation, LookUpTable, Mitchell
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model
from lnsnum.torch_bridge.datapath import Accumulator, Numbers, datapath

pytestmark = pytest.mark.usefixtures("one_thread")

W, A, E, G = LNSFormat(8, 5), LNSFormat(8, 3), LNSFormat(7, 3), LNSFormat(8, 4)
KINDS = {"weights": W, "activations": A, "errors": E, "gradients": G}
OWN = FromFunctions(lambda z, f: (1 << f) >> (z >> f), lambda z, f: -((1 << f) >> (z >> f)))

ACCUMULATORS = [
    *(Accumulator("lns12f6", order=order, block=3) for order in ("sequential", "pairwise", "blocked")),
    *(
        Accumulator("lns12f6", gaussian_log=log)
        for log in (Mitchell(), LinearInterpolation(4), LookUpTable(20), BitShift(), Cotransformation(), OWN)
    ),
    Accumulator("lns12f6", order="pairwise", gaussian_log=LookUpTable(20), log_offset=0),
    Accumulator("lns18f9", order="pairwise"),
    *(
        Accumulator("lns12f6", order=order, gaussian_log=log, block=3, log_offset="dynamic")
        for order, log in (("sequential", Exact()), ("pairwise", LookUpTable(20)), ("blocked", Exact()))
    ),
]


def name(accumulator):
    where = {"fit": "", "dynamic": " dynamic"}.get(accumulator.log_offset, " fixed")
    return f"{accumulator.fmt.name} {accumulator.order} {type(accumulator.gaussian_log).__name__}{where}"


def floats(*shape, seed=0, spread=2.0):
    """Numbers of several sizes, some of them zero."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * 2.0 ** random.uniform(-spread, spread, shape)
    return torch.tensor(np.where(random.random(shape) < 0.1, 0.0, x), dtype=torch.float32)


def coded(layer):
    """A layer's weight and bias."""
    return (scalar.encoded(one.detach(), W) for one in (layer.weight, layer.bias))


def same(found, expected):
    """Bit for bit; of a tensor and the oracle's codes."""
    assert found.detach().numpy().tolist() == scalar.decoded(expected).tolist()


def rounded(expected):
    """Q_G of the oracle's sums."""
    return scalar.encoded(scalar.decoded(expected), G)


@pytest.mark.parametrize("accumulator", ACCUMULATORS, ids=name)
def test_a_linear_layer(accumulator):
    x, y = floats(3, 5).requires_grad_(), floats(3, 4, seed=1)
    layer = nn.Linear(5, 4)
    layer.weight.data, layer.bias.data = floats(4, 5, seed=2), floats(4, seed=3)
    with datapath(**KINDS, accumulate=accumulator):
        out = layer(x)
        out.backward(y)
    a, w, b = (
        scalar.encoded(x.detach(), A),
        scalar.encoded(layer.weight.detach(), W),
        scalar.encoded(layer.bias.detach(), W),
    )
    e = scalar.encoded(y, E)
    same(out, scalar.matmul(a, scalar.transposed(w), accumulator, b))
    same(x.grad, scalar.matmul(e, w, accumulator))
    # autograd makes the gradient of the transpose, x^T dy
    same(layer.weight.grad.T, rounded(scalar.matmul(scalar.transposed(a), e, accumulator)))
    same(layer.bias.grad[None], rounded(scalar.column_sums(e, accumulator)))


def move(dims, stride=1, padding=0, dilation=1, groups=1):
    return {"stride": (stride,) * dims, "padding": (padding,) * dims, "dilation": (dilation,) * dims, "groups": groups}


CONVOLUTIONS = {
    "1-d": ((2, 2, 6), (3, 2, 3), move(1, stride=2, padding=1), 0),
    "grouped": ((1, 4, 3, 4), (4, 2, 2, 2), move(2, groups=2), 0),
    "strided and dilated": ((2, 1, 5, 4), (2, 1, 2, 2), move(2, stride=2, padding=1, dilation=2), 0),
    "3-d": ((1, 1, 2, 3, 3), (2, 1, 2, 2, 2), move(3, padding=1, stride=2), 0),
    "with a rest": ((1, 1, 6), (1, 1, 2), move(1, stride=3), 0),
    "beyond its kernel": ((1, 1, 2), (1, 1, 2), move(1, padding=2), 0),
}
TRANSPOSED = {
    "grouped": ((1, 4, 3), (4, 1, 3), move(1, stride=2, padding=1, groups=2), 1),
    "dilated": ((2, 2, 2, 2), (2, 1, 2, 2), move(2, stride=1, padding=1, dilation=2), 0),
    "padded by more than a stride": ((1, 2, 2), (2, 1, 2), move(1, dilation=2), 1),
}
ORDERS = [
    Accumulator("lns12f6"),
    Accumulator("lns12f6", order="pairwise", gaussian_log=LookUpTable(20)),
    Accumulator("lns12f6", log_offset="dynamic"),
]


@pytest.mark.parametrize("accumulator", ORDERS, ids=name)
@pytest.mark.parametrize(("shape", "kernel", "moves", "_"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution(shape, kernel, moves, _, accumulator):
    x, weight, bias = floats(*shape).requires_grad_(), floats(*kernel, seed=1), floats(kernel[0], seed=2)
    weight, bias = nn.Parameter(weight), nn.Parameter(bias)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[len(shape) - 3]
    with datapath(**KINDS, accumulate=accumulator):
        out = function(x, weight, bias, **moves)
        y = floats(*out.shape, seed=3)
        out.backward(y)
    a, w, b = scalar.encoded(x.detach(), A), scalar.encoded(weight.detach(), W), scalar.encoded(bias.detach(), W)
    e = scalar.encoded(y, E)
    same(out, scalar.convolution(a, w, out.shape[2:], accumulator, moves, b))
    same(x.grad, scalar.spread(e, w, x.shape[2:], accumulator, moves))
    same(weight.grad, rounded(scalar.correlation(e, a, kernel, accumulator, moves)))
    columns = scalar.Coded(np.moveaxis(e.codes, 1, -1).reshape(-1, kernel[0]), E, e.log_offset)
    same(bias.grad[None], rounded(scalar.column_sums(columns, accumulator)))


@pytest.mark.parametrize("accumulator", ORDERS, ids=name)
@pytest.mark.parametrize(("shape", "kernel", "moves", "more"), TRANSPOSED.values(), ids=TRANSPOSED)
def test_a_transposed_convolution(shape, kernel, moves, more, accumulator):
    x, weight = floats(*shape).requires_grad_(), nn.Parameter(floats(*kernel, seed=1))
    bias = nn.Parameter(floats(kernel[1] * moves["groups"], seed=2))
    function = (functional.conv_transpose1d, functional.conv_transpose2d)[len(shape) - 3]
    with datapath(**KINDS, accumulate=accumulator):
        out = function(x, weight, bias, output_padding=more, **moves)
        y = floats(*out.shape, seed=3)
        out.backward(y)
    a, w, b = scalar.encoded(x.detach(), A), scalar.encoded(weight.detach(), W), scalar.encoded(bias.detach(), W)
    e = scalar.encoded(y, E)
    same(out, scalar.spread(a, w, out.shape[2:], accumulator, moves, b))
    same(x.grad, scalar.convolution(e, w, x.shape[2:], accumulator, moves))
    same(weight.grad, rounded(scalar.correlation(a, e, kernel, accumulator, moves)))


def test_products_of_stacks_and_vectors():
    """Attention's two products, and those with vectors, whose gradients have no sum."""
    accumulator = Accumulator("lns12f6")
    q, k = floats(2, 3, 4).requires_grad_(), floats(2, 4, 2, seed=1).requires_grad_()
    with datapath(**KINDS, accumulate=accumulator):
        out = torch.bmm(q, k)
        y = floats(2, 3, 2, seed=2)
        out.backward(y)
    a, b, e = scalar.encoded(q.detach(), A), scalar.encoded(k.detach(), A), scalar.encoded(y, E)
    for i in range(2):
        x, z, d = (one._replace(codes=one.codes[i]) for one in (a, b, e))
        same(out[i], scalar.matmul(x, z, accumulator))
        same(q.grad[i], scalar.matmul(d, scalar.transposed(z), accumulator))
        same(k.grad[i], scalar.matmul(scalar.transposed(x), d, accumulator))

    w, v = nn.Parameter(floats(3, 4, seed=3)), floats(4, seed=4).requires_grad_()
    with datapath(**KINDS, accumulate=accumulator):
        out = torch.mv(w, v)
        y = floats(3, seed=5)
        out.backward(y)
    m, n, d = scalar.encoded(w.detach(), W), scalar.encoded(v.detach()[:, None], A), scalar.encoded(y[:, None], E)
    same(out[:, None], scalar.matmul(m, n, accumulator))
    same(v.grad[:, None], scalar.matmul(scalar.transposed(m), d, accumulator))
    same(w.grad, rounded(scalar.matmul(d, scalar.transposed(n), accumulator)))


def test_an_embedding():
    accumulator = Accumulator("lns12f6")
    layer, indices = nn.Embedding(5, 3, padding_idx=4), torch.tensor([[0, 2, 0], [4, 2, 0]])
    layer.weight.data = floats(5, 3)
    with datapath(**KINDS, accumulate=accumulator):
        out = layer(indices)
        y = floats(2, 3, 3, seed=1)
        out.backward(y)
    w, e = scalar.encoded(layer.weight.detach(), W), scalar.encoded(y, E)
    same(out, w._replace(codes=w.codes[indices.numpy()]))
    rows = e.codes.reshape(-1, 3)
    flat = indices.reshape(-1).numpy()
    sums = np.zeros((5, 3), np.float32)
    for index in (0, 2):
        sums[index] = scalar.decoded(scalar.column_sums(e._replace(codes=rows[flat == index]), accumulator))[0]
    same(layer.weight.grad, scalar.encoded(sums, G))


def test_products_of_nothing():
    """Empty batches, and sums of no terms."""
    for accumulator in ("float32", Accumulator("lns12f6")):
        layers = [nn.Linear(4, 2), nn.Conv2d(1, 2, 3), nn.Embedding(3, 2)]
        inputs = [torch.zeros(0, 4), torch.zeros(0, 1, 5, 5), torch.zeros(0, dtype=torch.long)]
        with datapath(**KINDS, accumulate=accumulator):
            for layer, x in zip(layers, inputs, strict=True):
                out = layer(x)
                assert out.shape[0] == 0
                out.sum().backward()
                assert all(not p.grad.any() for p in layer.parameters())
            assert torch.bmm(torch.zeros(2, 3, 0), torch.zeros(2, 0, 2)).tolist() == [[[0.0, 0.0]] * 3] * 2


@pytest.mark.parametrize("rule", ["fit", "dynamic"])
def test_a_whole_training_step(rule):
    """Two layers of codes, the loss in float, the backward pass, and the first step of Madam's ladder: every code.

    The first step of that rule moves each code by round(lr 2^F / ln 2) against the sign of its gradient, since
    g / sqrt(v_hat) is 1 or -1.
    """
    accumulator = Accumulator("lns12f6", order="pairwise", gaussian_log=Exact(), log_offset=rule)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    convert_model(net, W)
    before = [p.to_lns() if isinstance(p, LNSWeight) else p.detach().clone() for p in net.parameters()]
    optimizer = Madam(net.parameters(), lr=0.1, rule="paper", rounding="nearest")
    x, labels = floats(3, 4), torch.tensor([0, 2, 1])
    with datapath(activations=A, errors=E, gradients=G, weights=W, accumulate=accumulator):
        loss = functional.cross_entropy(net(x), labels)
        loss.backward()
    optimizer.step()

    def codes(p):
        return (
            scalar.Coded(p.codes.astype(object), p.fmt, p.log_offset) if hasattr(p, "codes") else scalar.encoded(p, W)
        )

    w1, b1, w2, b2 = map(codes, before)
    a1 = scalar.encoded(x, A)
    h = torch.from_numpy(scalar.decoded(scalar.matmul(a1, scalar.transposed(w1), accumulator, b1)))
    a2 = scalar.encoded(h.relu(), A)
    logits = torch.from_numpy(
        scalar.decoded(scalar.matmul(a2, scalar.transposed(w2), accumulator, b2))
    ).requires_grad_()
    expected = functional.cross_entropy(logits, labels)
    assert float(loss.detach()) == float(expected.detach())
    expected.backward()
    e2 = scalar.encoded(logits.grad, E)
    g2 = rounded(scalar.matmul(scalar.transposed(a2), e2, accumulator))
    back = torch.from_numpy(scalar.decoded(scalar.matmul(e2, w2, accumulator)))
    e1 = scalar.encoded(torch.where(h > 0, back, 0.0), E)
    g1 = rounded(scalar.matmul(scalar.transposed(a1), e1, accumulator))
    same(net[2].weight.grad.T, g2)
    same(net[0].weight.grad.T, g1)
    same(net[2].bias.grad[None], rounded(scalar.column_sums(e2, accumulator)))
    same(net[0].bias.grad[None], rounded(scalar.column_sums(e1, accumulator)))
    steps = round(0.1 * 2**W.fraction_bits / np.log(2.0))
    for layer, old, g in ((net[0], w1, g1), (net[2], w2, g2)):
        m, sign = old.codes & W.max_magnitude, np.where(old.codes > W.max_magnitude, -1, 1)
        towards = np.sign(scalar.decoded(g).T).astype(int)
        moved = np.clip(m - steps * towards * sign, 1, W.max_magnitude)
        expected_codes = np.where(m == 0, 0, moved | np.where(sign < 0, W.sign_bit, 0))
        assert layer.weight.codes.numpy().tolist() == expected_codes.tolist()


@pytest.mark.parametrize("scale", ["max", "running", "channel", -40])
def test_exact_products_in_float32(scale):
    """The floats of the codes, multiplied by torch: the quantizers alone are ours."""
    kinds = {kind: Numbers(fmt, scale=scale) for kind, fmt in KINDS.items()}
    x, layer, y = floats(3, 5).requires_grad_(), nn.Linear(5, 4, bias=False), floats(3, 4, seed=1)
    layer.weight.data = floats(4, 5, seed=2)
    with datapath(**kinds):
        out = layer(x)
        out.backward(y)

    def quantized(t, fmt, channel=None):
        if scale == "channel" and channel is not None:
            parts = [scalar.decoded(scalar.encoded(part, fmt)) for part in torch.unbind(t.detach(), channel)]
            return torch.from_numpy(np.stack(parts, channel))
        return torch.from_numpy(scalar.decoded(scalar.encoded(t.detach(), fmt, scale if scale == -40 else None)))

    a, w = quantized(x, A, 0).requires_grad_(), quantized(layer.weight, W, 0).requires_grad_()
    expected = functional.linear(a, w)
    assert torch.equal(out, expected)
    expected.backward(quantized(y, E, 0))
    assert torch.equal(x.grad, a.grad)
    # Q_G sees the gradient as autograd makes it, as x^T dy, whose rows are those of x^T
    assert torch.equal(layer.weight.grad.T, quantized(w.grad.T, G, 0))
