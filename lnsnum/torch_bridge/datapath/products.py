"""Matrix products, forward and backward.

    forward      y  =  Q(a) Q(b)  [+ Q_W(bias)]
    backward     da =  Q_E(dy) Q(b)^T,     db  =  Q(a)^T Q_E(dy),     dbias  =  the sum of Q_E(dy) over rows

mm, bmm, mv, dot, addmm, baddbmm, addmv; linear, matmul and einsum come down to them. What belongs to a weight is
rounded once more, by Q_G. A bias is added last; in an accumulator alpha is rounded to its grid, and beta is 0 or 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from lnsnum.torch_bridge.datapath import bit_true
from lnsnum.torch_bridge.datapath.graph import (
    Record,
    in_backward,
    is_weight,
    record_of,
    role_of,
    running_node,
    saved_by,
    storage_of,
)
from lnsnum.torch_bridge.datapath.settings import Accumulator, FixedPoint
from lnsnum.torch_bridge.datapath.workshop import Taken, Workshop, begin
from lnsnum.torch_bridge.weight import LNSWeight

aten = torch.ops.aten


class _Bias(NamedTuple):
    """What is added to a product: beta times this, the product times alpha."""

    x: torch.Tensor
    beta: Any
    alpha: Any


_NODES = frozenset(
    [
        "MmBackward0",
        "BmmBackward0",
        "AddmmBackward0",
        "BaddbmmBackward0",
        "MvBackward0",
        "AddmvBackward0",
        "DotBackward0",
        "VdotBackward0",
        "ConvolutionBackward0",
        "EmbeddingBackward0",
    ]
)
"""Autograd's nodes of what the handlers make."""


def _product(
    shop: Workshop, func: Any, a: torch.Tensor, b: torch.Tensor, name: str, bias: _Bias | None = None
) -> torch.Tensor:
    tensors = (a, b) if bias is None else (a, b, bias.x)
    if not all(x.is_floating_point() for x in tensors):
        if any(x.is_complex() for x in tensors):
            raise TypeError(f"a datapath takes real numbers, and {name} has complex ones: leave their layer out")
        return func(a, b) if bias is None else func(bias.x, a, b, beta=bias.beta, alpha=bias.alpha)  # type: ignore[no-any-return]
    shop.check(*tensors, name=name)
    if in_backward():
        found = _in_backward(shop, func, a, b, name)
        if found is not None and bias is None:
            return found
    return _forward(shop, func, a, b, name, bias)


def _forward(
    shop: Workshop, func: Any, a: torch.Tensor, b: torch.Tensor, name: str, bias: _Bias | None
) -> torch.Tensor:
    at = begin(shop, name)
    if at.formats is None:
        shop.left_in_float(f"{func}, by layers")
    dims = a.ndim, b.ndim
    # one scale for each row of the left factor and each column of the right one
    sides = tuple(range(dims[0] - 1)), tuple(d for d in range(dims[1]) if d != max(dims[1] - 2, 0))
    x, y = (shop.take(t, role_of(t), at, i, sides[i]) for i, t in enumerate((a, b)))
    factors = [x.factor(), y.factor()]
    added = None
    if bias is not None:
        added = shop.take(bias.x, role_of(bias.x), at, 2, ())
        factors.append(added.factor())
    out = _multiply(shop, func, x, y, at, "outputs", bias, added)
    at.factors = tuple(factors)
    if torch.is_grad_enabled():
        shop.graph.record(out, at)
    return out


def _multiply(
    shop: Workshop,
    func: Any,
    x: Taken,
    y: Taken,
    at: Record,
    kind: str,
    bias: _Bias | None = None,
    added: Taken | None = None,
) -> torch.Tensor:
    dtype = x.x.dtype
    accumulator = None if at.formats is None else at.formats.accumulate
    if not isinstance(accumulator, (Accumulator, FixedPoint)):
        a, b = x.floats(dtype), y.floats(dtype)
        if bias is None or added is None:
            return func(a, b)  # type: ignore[no-any-return]
        return func(added.floats(dtype), a, b, beta=bias.beta, alpha=bias.alpha)  # type: ignore[no-any-return]
    left, right = x.x.ndim == 1, y.x.ndim == 1
    a_codes = x.matrices(accumulator, (lambda t: t.unsqueeze(0)) if left else None)
    b_codes = y.matrices(accumulator, (lambda t: t.unsqueeze(1)) if right else None)
    plain = bias is not None and not (left or right) and bias.alpha == 1 and bias.beta == 1
    last = added.matrices(accumulator) if plain and added is not None else None
    sums = shop.sums(a_codes, b_codes, at, kind, last)
    if right:
        sums = sums.at((..., 0))
    if left:
        sums = sums.at(0)
    if bias is not None and added is not None and last is None:
        sums = bit_true.multiply(sums, float(bias.alpha))
        if float(bias.beta) != 0.0:
            if float(bias.beta) != 1.0:
                raise NotImplementedError(
                    f"{at.name} with beta={bias.beta} has no place in an accumulator: multiply the bias before, or "
                    "take 0 or 1"
                )
            sums = bit_true.add(sums, added.matrices(accumulator), accumulator)
    return sums.floats(dtype)


def _in_backward(shop: Workshop, func: Any, a: torch.Tensor, b: torch.Tensor, name: str) -> torch.Tensor | None:
    """A product of the backward pass; None where this is a forward computation that runs within it."""
    node = running_node()
    at = None if node is None else record_of(node)
    are_errors = [False, False] if at is None else [at.is_error(x) for x in (a, b)]
    if torch.is_grad_enabled():
        if not any(are_errors):
            return None  # checkpointing computes forward again
        raise NotImplementedError(
            "create_graph=True within datapath(...): gradients of gradients have no place in it, take them outside"
        )
    if not any(are_errors) and shop.layers.stack:
        return None  # the same, in a part without gradients: a module runs, of which autograd's nodes know nothing
    if at is None:
        if node is None or node.name() not in _NODES:
            shop.left_without_role(name, "" if node is None else node.name())
            return func(*(x.to_float() if isinstance(x, LNSWeight) else x for x in (a, b)))  # type: ignore[no-any-return]
        raise RuntimeError(
            f"{node.name()} was recorded outside of datapath(...), and is differentiated within: compute the loss "
            "within the same with block"
        )
    if not at.factors:
        return _of_own_function(shop, a, b, at, node, name, are_errors)
    if sum(are_errors) != 1:
        raise RuntimeError(
            f"the backward pass of {at.name} in {at.layer or 'a function'} multiplies two tensors of which "
            f"{'both' if all(are_errors) else 'none'} came from autograd, so that the error cannot be told: leave "
            "hooks out that replace gradients, and give backward() a copy of what the forward pass multiplied"
        )
    left = are_errors[0]
    error, saved = (a, b) if left else (b, a)
    index = _belongs_to(at, saved, error, left)
    turned = (index == 0) != left
    # the sum runs over the other dimension than in forward: nothing has a scale of its own but what had one there
    kinds = ("errors", at.factors[1 - index].role) if left else (at.factors[1 - index].role, "errors")
    sides = tuple(range(a.ndim - 1)), tuple(d for d in range(b.ndim) if d != max(b.ndim - 2, 0))
    taken = [
        shop.take(t, kind, at, i, sides[i])
        if kind == "errors"
        else shop.take_again(t, kind, at, i, at.factors[1 - index])
        for i, (t, kind) in enumerate(zip((a, b), kinds, strict=True))
    ]
    belongs = at.factors[index]
    out = _multiply(shop, _PLAIN[name], taken[0], taken[1], at, "gradients" if belongs.role == "weights" else "errors")
    return shop.settled(out, belongs, at, turned=turned)


def _belongs_to(at: Record, saved: torch.Tensor, error: torch.Tensor, left: bool) -> int:
    """Which of two factors a product of an error and the saved other one belongs to."""
    storage = storage_of(saved)
    same = [i for i in (0, 1) if at.factors[i].storage == storage]
    if len(same) == 1:
        return 1 - same[0]
    # of checkpointing, what is saved was made anew: its kind tells, if the two are of different ones
    kind = "weights" if is_weight(saved) else "activations"
    alike = [i for i in (0, 1) if at.factors[i].role == kind]
    if len(alike) == 1:
        return 1 - alike[0]
    # dy b^T and, of a factor that lies by columns, (b dy^T)^T; a^T dy and (dy^T a)^T
    return int(left == at.is_turned(error))


def _of_own_function(
    shop: Workshop, a: torch.Tensor, b: torch.Tensor, at: Record, node: Any, name: str, are_errors: list[bool]
) -> torch.Tensor:
    """In the backward pass of a function of the user's own: what it saved is an activation, all else an error."""
    saved = saved_by(node)
    here = Record(at.layer, shop.formats(at.layer), at.name)
    taken = []
    for i, x in enumerate((a, b)):
        is_saved = not are_errors[i] and storage_of(x) in saved
        kind = "weights" if is_weight(x) else "activations" if is_saved else "errors"
        taken.append(shop.take(x, kind, here, i, ()) if kind == "errors" else shop.take_again(x, kind, here, i))
    return _multiply(shop, _PLAIN[name], taken[0], taken[1], here, "errors")


def _mm(shop: Workshop, func: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _product(shop, func, a, b, _name(func))


def _vdot(shop: Workshop, func: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # of real numbers, and no others come this far, it is dot
    return _product(shop, aten.dot.default, a, b, "dot")


def _addmm(
    shop: Workshop, func: Any, bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> torch.Tensor:
    return _product(shop, func, a, b, _name(func), _Bias(bias, beta, alpha))


def _sum(shop: Workshop, func: Any, x: torch.Tensor, dim: Any, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Of errors over rows, within the node of a product with a bias: the bias' gradient. Any other sum is a float's."""
    node = running_node() if in_backward() and not torch.is_grad_enabled() else None
    at = None if node is None else record_of(node)
    if at is None or len(at.factors) != 3 or not dim or not at.is_error(x):
        return shop.plain(func, x, dim, keepdim, dtype=dtype)
    shop.check(x, name=at.name)
    dims = sorted(d % x.ndim for d in dim)
    out = sum_of_errors(shop, x, dims, at, keepdim)
    return shop.settled(out, at.factors[2], at)


def sum_of_errors(shop: Workshop, x: torch.Tensor, dims: list[int], at: Record, keepdim: bool = False) -> torch.Tensor:
    """The sum of errors along dimensions, as one, in C order."""
    channels = tuple(d for d in range(x.ndim) if d not in dims)
    taken = shop.take(x, "errors", at, 0, None)
    accumulator = None if at.formats is None else at.formats.accumulate
    if not isinstance(accumulator, (Accumulator, FixedPoint)):
        return taken.floats(x.dtype).sum(dims, keepdim)
    rest = [x.shape[d] for d in channels]

    def view(t: torch.Tensor) -> torch.Tensor:
        columns = t.permute(*dims, *channels)
        return columns.reshape(_count([x.shape[d] for d in dims]), _count(rest))

    sums = bit_true.sum_rows(taken.matrices(accumulator, view), accumulator)
    shape = [1 if d in dims else x.shape[d] for d in range(x.ndim)] if keepdim else rest
    return sums.floats(x.dtype).reshape(shape)


def _count(lengths: list[int]) -> int:
    count = 1
    for length in lengths:
        count *= length
    return count


def _mul(shop: Workshop, func: Any, a: Any, b: Any) -> Any:
    """Of an error, within the node of a product with a vector: a product without a sum. Any other is a float's."""
    node = running_node() if in_backward() and not torch.is_grad_enabled() else None
    at = None if node is None else record_of(node)
    if (
        at is None
        or at.name not in ("mv", "addmv", "dot")
        or not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor))
    ):
        return shop.plain(func, a, b)
    # mv: dy (M, 1) by x (K,); dot: dy () by the other vector
    x, y = (a, b) if a.ndim == 2 else (a.reshape(-1, 1), b.reshape(-1, 1))
    if a.ndim != 2 and 1 not in (len(x), len(y)):
        return shop.plain(func, a, b)
    if a.ndim != 2:
        x, y = (x, y.mT) if len(y) == 1 else (y, x.mT)
    elif y.ndim == 1:
        y = y.unsqueeze(0)
    out = _in_backward(shop, aten.mm.default, x, y, "mm")
    return shop.plain(func, a, b) if out is None else out.reshape(torch.broadcast_shapes(a.shape, b.shape))


def _name(func: Any) -> str:
    return str(func._schema.name).split("::")[-1]


_PLAIN = {"mm": aten.mm.default, "bmm": aten.bmm.default, "mv": aten.mv.default, "dot": aten.dot.default}
"""What makes a product of the backward pass in float."""

HANDLERS: dict[Any, Any] = {
    **dict.fromkeys(_PLAIN.values(), _mm),
    aten.vdot.default: _vdot,
    **dict.fromkeys([aten.addmm.default, aten.baddbmm.default, aten.addmv.default], _addmm),
    aten.sum.dim_IntList: _sum,
    aten.mul.Tensor: _mul,
}
