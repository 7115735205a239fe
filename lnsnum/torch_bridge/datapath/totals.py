"""Sums and means of tensors, along dimensions or over all: the accumulator's sums, in C order.

mean  =  sum / n,      n rounded to the grid
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lnsnum.torch_bridge.datapath.operands import Bench
from lnsnum.torch_bridge.datapath.unit import Unit

aten = torch.ops.aten


def _along(along: Any, bench: Bench, x: torch.Tensor, dim: Any, keepdim: bool, dtype: Any) -> Any:
    dtype = dtype or x.dtype
    if not (x.is_floating_point() and dtype.is_floating_point):
        return NotImplemented
    bench.shop.check(x, name=bench.at.name)
    dims = [dim] if isinstance(dim, int) else list(dim or range(x.ndim))
    axes = tuple(sorted(bench.axis(d, x) for d in dims))
    if len(set(axes)) < len(axes):
        raise RuntimeError(f"{bench.at.name} along {tuple(dims)} names a dimension twice: give each once")
    word = bench.read(x)
    if not x.ndim:
        return bench.write(word, dtype)
    return bench.write(along(bench.unit, word, axes, keepdims=keepdim), dtype)


def _sum(bench: Bench, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return _along(Unit.total, bench, x, dim, keepdim, dtype)


def _mean(bench: Bench, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return _along(Unit.mean, bench, x, dim, keepdim, dtype)


TOTALS: dict[Any, Callable[..., Any]] = {
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
}
"""By operation."""
