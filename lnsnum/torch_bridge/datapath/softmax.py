"""Softmax and its logarithm, forward and backward.

    m = max x,   d = x - m,   e = exp d,   s = sum e
    softmax       y = e / s             dx = y (dy - sum(dy y))
    log_softmax   y = d - ln s          dx = dy - exp(y) sum dy

Masked places, where x is minus infinity, have e = 0; where all of a row are, softmax is NaN as torch's is, and 0 in
`_safe_softmax`, which attention calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lnsnum.kernels.codes import Codes
from lnsnum.torch_bridge.datapath.operands import Bench, Mask
from lnsnum.torch_bridge.datapath.unit import Unit, Word

aten = torch.ops.aten


def softmax(u: Unit, x: Word, axis: int, masked: Mask | None = None) -> Word:
    """e / s."""
    e = _exponentials(u, x, axis, masked)[1]
    return u.divide(e, u.total(e, (axis,), keepdims=True))


def log_softmax(u: Unit, x: Word, axis: int, masked: Mask | None = None) -> Word:
    """d - ln s."""
    d, e = _exponentials(u, x, axis, masked)
    return u.subtract(d, u.log(u.total(e, (axis,), keepdims=True)))


def _exponentials(u: Unit, x: Word, axis: int, masked: Mask | None) -> tuple[Word, Word]:
    if masked is None:
        top = u.greatest(x, axis)
    else:
        # the least code: it is the greatest of a row only where all of that are masked
        least: Codes = np.where(masked, u.fmt.sign_bit | u.fmt.max_magnitude, x.codes).astype(u.fmt.dtype)
        top = u.greatest(x._replace(codes=least), axis)
        # their difference is 0, so that they have no say in its scale
        x = x._replace(codes=np.where(masked, top.codes, x.codes))
    d = u.subtract(x, top)
    e = u.exp(d)
    return d, e if masked is None else u.zeroed(masked, e)


def softmax_backward(u: Unit, grad: Word, y: Word, axis: int) -> Word:
    """Y (dy - sum(dy y))."""
    return u.multiply(y, u.subtract(grad, u.total(u.multiply(grad, y), (axis,), keepdims=True)))


def log_softmax_backward(u: Unit, grad: Word, y: Word, axis: int, masked: Mask | None = None) -> Word:
    """Dy - exp(y) sum dy."""
    p = u.exp(y) if masked is None else u.zeroed(masked, u.exp(y))
    return u.subtract(grad, u.multiply(p, u.total(grad, (axis,), keepdims=True)))


def _masked(bench: Bench, x: torch.Tensor) -> tuple[Word, Mask | None]:
    """Codes, and where x is minus infinity. Plus infinity is NaN, and so is its row then."""
    word, infinite = bench.read_masked(x)
    if infinite is None:
        return word, None
    above = infinite & (word.codes < bench.unit.fmt.sign_bit)
    return word._replace(
        codes=np.where(above, bench.unit.fmt.nan_code, word.codes).astype(bench.unit.fmt.dtype)
    ), infinite & ~above


def _forward(rule: Callable[..., Word], empty: float, bench: Bench, x: torch.Tensor, dim: int, dtype: Any) -> Any:
    bench.shop.check(x, name=bench.at.name)
    dim = bench.axis(dim, x)
    if not x.numel():
        return torch.empty_like(x.detach(), dtype=dtype or x.dtype)
    if not x.ndim:
        x = x.reshape(1)
        return _forward(rule, empty, bench, x, 0, dtype).reshape(())
    word, masked = _masked(bench, x)
    out = bench.write(rule(bench.unit, word, dim, masked), dtype or x.dtype)
    if masked is not None:
        where = torch.from_numpy(masked)
        nothing = float("-inf") if rule is log_softmax else 0.0
        out = out.masked_fill(where, nothing).masked_fill(where.all(dim, keepdim=True), empty)
    return out


def _softmax(bench: Bench, x: torch.Tensor, dim: int, half_to_float: bool) -> Any:
    return _forward(softmax, float("nan"), bench, x, dim, None)


def _safe_softmax(bench: Bench, x: torch.Tensor, dim: int, dtype: Any = None) -> Any:
    return _forward(softmax, 0.0, bench, x, dim, dtype)


def _log_softmax(bench: Bench, x: torch.Tensor, dim: int, half_to_float: bool) -> Any:
    return _forward(log_softmax, float("nan"), bench, x, dim, None)


def _softmax_backward(bench: Bench, grad: torch.Tensor, y: torch.Tensor, dim: int, dtype: Any) -> Any:
    bench.shop.check(grad, y, name=bench.at.name)
    if not y.ndim:
        return torch.zeros_like(grad)
    return bench.write(softmax_backward(bench.unit, bench.read(grad), bench.read(y), dim), grad.dtype)


def _log_softmax_backward(bench: Bench, grad: torch.Tensor, y: torch.Tensor, dim: int, dtype: Any) -> Any:
    bench.shop.check(grad, y, name=bench.at.name)
    if not y.ndim:
        return torch.zeros_like(grad)
    word, masked = _masked(bench, y)
    return bench.write(log_softmax_backward(bench.unit, bench.read(grad), word, dim, masked), grad.dtype)


SOFTMAX: dict[Any, Callable[..., Any]] = {
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _log_softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten._log_softmax_backward_data.default: _log_softmax_backward,
    aten._safe_softmax.default: _safe_softmax,
}
"""By operation."""
