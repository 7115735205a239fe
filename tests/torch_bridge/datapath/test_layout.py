"""Results in LNS lie in memory as torch's do, whatever the operands' strides are."""

import pytest
import torch
from elementwise_fixtures import within

from lnsnum.torch_bridge.datapath import FixedPoint
from lnsnum.torch_bridge.datapath.elementwise import WHOLE
from lnsnum.torch_bridge.datapath.pointwise import POINTWISE

pytestmark = pytest.mark.usefixtures("one_thread")

aten = torch.ops.aten

SHAPE = (2, 3, 4, 4)
ONES, ZEROS, CLASSES = torch.ones(3), torch.zeros(3), torch.zeros(2, 4, 4, dtype=torch.int64)
WINDOW = [2, 2], [2, 2], [0, 0]


def other(x):
    return torch.linspace(-1.0, 1.0, x.numel()).reshape(x.shape)


def halved(x):
    return torch.linspace(-1.0, 1.0, 24).reshape(2, 3, 2, 2)


SPECIAL = {
    aten.sum.dim_IntList: lambda x: (x, [1], True),
    aten.mean.dim: lambda x: (x, [0]),
    aten._softmax.default: lambda x: (x, 1, False),
    aten._log_softmax.default: lambda x: (x, 1, False),
    aten._safe_softmax.default: lambda x: (x, 1),
    aten._softmax_backward_data.default: lambda x: (x, other(x), 1, torch.float32),
    aten._log_softmax_backward_data.default: lambda x: (other(x), x, 1, torch.float32),
    aten.native_layer_norm.default: lambda x: (x, [4], None, None, 1e-5),
    aten.native_batch_norm.default: lambda x: (x, ONES, ZEROS, ZEROS, ONES, False, 0.1, 1e-5),
    aten.native_batch_norm_backward.default: lambda x: (
        x, other(x), ONES, ZEROS, ONES, ZEROS, ONES, False, 1e-5, [True] * 3,
    ),
    aten.native_group_norm.default: lambda x: (x, None, None, 2, 3, 16, 1, 1e-5),
    aten.nll_loss2d_forward.default: lambda x: (x, CLASSES, None, 0, -100),
    aten.mse_loss.default: lambda x: (x, other(x), 0),
    aten.mse_loss_backward.default: lambda x: (torch.tensor(1.0), x, other(x), 1),
    aten.avg_pool2d.default: lambda x: (x, [2, 2]),
    aten.avg_pool2d_backward.default: lambda x: (halved(x), x, *WINDOW, False, True, None),
    aten._adaptive_avg_pool2d.default: lambda x: (x, [2, 2]),
    aten._adaptive_avg_pool2d_backward.default: lambda x: (halved(x), x),
    aten.max_pool2d_with_indices_backward.default: lambda x: (
        halved(x), x, *WINDOW, [1, 1], False, torch.zeros(2, 3, 2, 2, dtype=torch.int64),
    ),
    aten.elu_backward.default: lambda x: (other(x), 1.0, 1.0, 1.0, False, x),
    aten._prelu_kernel_backward.default: lambda x: (other(x), x, torch.full((1, 3, 1, 1), 0.1)),
    aten.leaky_relu_backward.default: lambda x: (other(x), x, 0.1, False),
    aten.softplus_backward.default: lambda x: (other(x), x, 1.0, 20.0),
    aten.pow.Tensor_Scalar: lambda x: (x, 2),
    aten.div.Tensor_mode: lambda x: (x, other(x)),
}  # fmt: skip
ALSO = {
    aten._softmax_backward_data.default: lambda x: (other(x), x, 1, torch.float32),
    aten._log_softmax_backward_data.default: lambda x: (x, other(x), 1, torch.float32),
    aten.native_batch_norm.default: lambda x: (x, None, None, ZEROS.clone(), ONES.clone(), True, 0.1, 1e-5),
    aten.native_batch_norm_backward.default: lambda x: (
        other(x), x, ONES, ZEROS, ONES, ZEROS, ONES, True, 1e-5, [True] * 3,
    ),
    aten.mse_loss.default: lambda x: (other(x), x, 0),
    aten.mul.Tensor: lambda x: (other(x), x),
    aten.add.Tensor: lambda x: (torch.ones(4), x),
}  # fmt: skip
"""The same with another operand that is not contiguous."""


def memories():
    x = torch.linspace(-2.0, 2.0, 96).reshape(SHAPE)
    yield "channels last", x.to(memory_format=torch.channels_last)
    yield "transposed", torch.empty(SHAPE[::-1]).permute(3, 2, 1, 0).copy_(x)
    yield "two dimensions exchanged", torch.empty(3, 2, 4, 4).transpose(0, 1).copy_(x)
    yield "every second", torch.empty(2, 3, 8, 8)[..., ::2, ::2].copy_(x)
    yield "repeated", x[..., :1].expand(SHAPE)


def calls():
    for func, how in POINTWISE.items():
        if func not in SPECIAL:
            more = 0.5 if func._overloadname == "Scalar" else None
            yield func, lambda x, n=how.operands, m=more: (x, *([other(x) if m is None else m] * (n - 1)))
    yield from SPECIAL.items()
    yield from ALSO.items()


def by_torch(func, args):
    """Strides, or None of what torch refuses."""
    try:
        out = func(*args)
    except RuntimeError:
        return None
    first = out[0] if isinstance(out, tuple) else out
    return first.shape, first.stride()


@pytest.mark.parametrize("name", [name for name, _ in memories()])
def test_strides(name):
    x = dict(memories())[name]
    wrong = {}
    for func, args in calls():
        expected = by_torch(func, args(x))
        if expected is None:
            continue
        with within():
            out = func(*args(x))
        first = out[0] if isinstance(out, tuple) else out
        if (first.shape, first.stride()) != expected:
            wrong[str(func)] = first.stride(), expected
    assert wrong == {}


def test_every_operation_has_a_call():
    there = {func for func, _ in calls()}
    assert there <= {*POINTWISE, *WHOLE}
    rest = {str(func) for func in {*POINTWISE, *WHOLE} - there}
    assert rest == {
        "aten.sum.default", "aten.mean.default",  # numbers
        "aten.nll_loss_forward.default", "aten.nll_loss_backward.default", "aten.nll_loss2d_backward.default",
        "aten.native_layer_norm_backward.default", "aten.native_group_norm_backward.default",
        "aten.avg_pool3d.default", "aten.avg_pool3d_backward.default", "aten._adaptive_avg_pool3d.default",
        "aten._adaptive_avg_pool3d_backward.default", "aten.max_pool3d_with_indices_backward.default",
        "aten.adaptive_max_pool2d_backward.default", "aten.adaptive_max_pool3d_backward.default",
    }  # fmt: skip


def test_strides_without_elements():
    """Of which NumPy's are zeros."""
    for shape in ((3, 0, 2), (0, 4), (2, 3, 0)):
        x = torch.empty(shape)
        square = torch.zeros(shape[-1], 5)
        with within():
            found = x * 2.0, x.exp(), x.sum(1, keepdim=True), x @ square
        with within(FixedPoint(), elementwise=False):
            found = (*found, x @ square)
        expected = x * 2.0, x.exp(), x.sum(1, keepdim=True), x @ square, x @ square
        assert [y.stride() for y in found] == [y.stride() for y in expected]
