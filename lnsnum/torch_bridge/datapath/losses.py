"""The losses that are one operation of torch's: negative log-likelihood, as of cross-entropy, and squared errors.

    nll     l_i = -w_(t_i) x[i, t_i],      sum l / sum w,      dx[i, t_i] = -w_(t_i) dy / sum w
    mse     l = (x - y)^2,                 sum l / n,          dx = 2 (x - y) dy / n

What is ignored is a zero among the terms. The number of terms is counted in integers, and rounded to the grid where it
divides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lnsnum.torch_bridge.datapath.operands import Bench, check_shapes
from lnsnum.torch_bridge.datapath.unit import Word

aten = torch.ops.aten

_NONE, _MEAN, _SUM = 0, 1, 2
"""Of a reduction, as torch numbers them."""


def _by_row(x: torch.Tensor) -> torch.Tensor:
    """Of (N, C, ...) a row for each place; a vector is one."""
    return x.reshape(1, -1) if x.ndim == 1 else x.movedim(1, -1).reshape(-1, x.shape[1])


def _weights(
    bench: Bench, target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor, Word | None]:
    """Of each row: its class, 0 where it is ignored; whether it counts; and the weight of its class."""
    rows = target.reshape(-1)
    counts = rows != ignore_index
    classes = rows.masked_fill(~counts, 0)
    own = (
        None
        if weight is None
        else bench.read(weight.index_select(0, classes.clamp(0, len(weight) - 1)).masked_fill(~counts, 0.0))
    )
    return classes, counts, own


def _nll(
    bench: Bench, x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, reduction: int,
    ignore_index: int,
) -> Any:  # fmt: skip
    bench.shop.check(x, weight, name=bench.at.name)
    _check_shapes(x, target, weight)
    rows = _by_row(x)
    u = bench.unit
    classes, counts, own = _weights(bench, target, weight, ignore_index)
    _check_classes(classes, rows.shape[1], ignore_index)
    picked = rows.gather(1, classes.unsqueeze(1)).squeeze(1).masked_fill(~counts, 0.0)
    terms = u.negate(bench.read(picked))
    terms = terms if own is None else u.multiply(terms, own)
    if reduction == _NONE:
        losses = bench.write(terms, x.dtype)
        return (losses.reshape(()) if x.ndim == 1 else losses.reshape(target.shape)), x.new_zeros(())
    total = u.total(terms, (0,))
    if own is None:
        count = counts.sum().to(x.dtype)
        divisor = u.constant(float(count))
    else:
        divisor = u.total(own, (0,))
        count = bench.write(divisor, x.dtype)
    return bench.write(u.divide(total, divisor) if reduction == _MEAN else total, x.dtype), count


def _check_shapes(x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> None:
    """A class for each place, as an index of torch's, and weights of all classes."""
    places = (x.shape[0], *x.shape[2:]) if x.ndim > 1 else ()
    if target.shape != places and not (x.ndim == 1 and target.shape == (1,)):
        raise RuntimeError(
            f"a loss of scores of shape {tuple(x.shape)} takes classes of shape {tuple(places)}, not "
            f"{tuple(target.shape)}"
        )
    if target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(f"classes are of torch.int64 or torch.uint8, not of {target.dtype}: give target.long()")
    count = x.shape[1] if x.ndim > 1 else x.numel()
    if weight is not None and weight.shape != (count,):
        raise RuntimeError(
            f"a loss of {count} classes takes a weight for each, not weights of shape {tuple(weight.shape)}"
        )


def _check_classes(classes: torch.Tensor, count: int, ignore_index: int) -> None:
    if not classes.numel():
        return
    for extreme in classes.aminmax():
        if not 0 <= int(extreme) < count:
            raise IndexError(f"target {int(extreme)} is no class: 0 to {count - 1}, or {ignore_index}")


def _nll_backward(
    bench: Bench, grad: torch.Tensor, x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None,
    reduction: int, ignore_index: int, total_weight: torch.Tensor,
) -> Any:  # fmt: skip
    bench.shop.check(grad, x, weight, name=bench.at.name)
    u = bench.unit
    classes, counts, own = _weights(bench, target, weight, ignore_index)
    error = bench.read(grad.reshape(-1))
    error = u.negate(error if own is None else u.multiply(error, own))
    if reduction == _MEAN:
        error = u.divide(error, bench.read(total_weight.reshape(1)))
    each = bench.write(error, x.dtype).expand(classes.shape).masked_fill(~counts, 0.0)
    rows = x.new_zeros((classes.numel(), x.shape[-1] if x.ndim == 1 else x.shape[1]))
    rows.scatter_(1, classes.unsqueeze(1), each.unsqueeze(1))
    if x.ndim <= 2:
        return rows.reshape(x.shape)
    return rows.reshape(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1).contiguous()


def _mse(bench: Bench, x: torch.Tensor, y: torch.Tensor, reduction: int = _MEAN) -> Any:
    dtype = torch.result_type(x, y)
    if not dtype.is_floating_point:
        return NotImplemented
    bench.shop.check(*(one for one in (x, y) if one.is_floating_point()), name=bench.at.name)
    check_shapes(bench.at.name, [x, y])
    u = bench.unit
    d = u.subtract(bench.read(x), bench.read(y))
    terms, axes = u.multiply(d, d), tuple(range(d.codes.ndim))
    if reduction != _NONE:
        terms = u.mean(terms, axes) if reduction == _MEAN else u.total(terms, axes)
    return bench.write(terms, dtype)


def _mse_backward(bench: Bench, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor, reduction: int) -> Any:
    bench.shop.check(grad, *(one for one in (x, y) if one.is_floating_point()), name=bench.at.name)
    u = bench.unit
    d = u.subtract(bench.read(x), bench.read(y))
    out = u.multiply(u.scaled(d, 2.0), bench.read(grad))
    if reduction == _MEAN:
        out = u.divide(out, u.constant(d.codes.size))
    return bench.write(out, torch.result_type(x, y))


LOSSES: dict[Any, Callable[..., Any]] = {
    aten.nll_loss_forward.default: _nll,
    aten.nll_loss2d_forward.default: _nll,
    aten.nll_loss_backward.default: _nll_backward,
    aten.nll_loss2d_backward.default: _nll_backward,
    aten.mse_loss.default: _mse,
    aten.mse_loss_backward.default: _mse_backward,
}
"""By operation."""
