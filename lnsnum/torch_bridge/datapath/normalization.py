"""Layer, batch and group normalization, forward and backward.

    mean = sum x / n,   d = x - mean,   var = sum d^2 / n,   r = (var + eps)^(-1/2),   h = d r,   y = h w + b
    g = dy w,   dx = r (g - sum g / n - h sum(g h) / n),   dw = sum(dy h),   db = sum dy

n, eps and what else is a constant are rounded to the grid. Of a layer the statistics are those of a row, of a group
those of an image's channels in it, of a batch those of a channel, over images and then places; a batch's running ones
move by the same arithmetic, and where they serve, in evaluation, dx = r g.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import torch

from lnsnum.torch_bridge.datapath.operands import Bench
from lnsnum.torch_bridge.datapath.unit import Unit, Word

aten = torch.ops.aten

_TO_MINUS_HALF = Fraction(-1, 2)


class Statistics(NamedTuple):
    """Of the numbers along some axes, which keep one element."""

    mean: Word
    var: Word
    r: Word


def statistics(u: Unit, x: Word, axes: tuple[int, ...], eps: float) -> Statistics:
    """Mean, variance and (var + eps)^(-1/2)."""
    mean = u.mean(x, axes, keepdims=True)
    d = u.subtract(x, mean)
    var = u.mean(u.multiply(d, d), axes, keepdims=True)
    return Statistics(mean, var, inverse_root(u, var, eps))


def inverse_root(u: Unit, var: Word, eps: float) -> Word:
    """(var + eps)^(-1/2); where eps underflows beside other variances, that of the smallest number."""
    total = u.add(var, u.constant(eps))
    return u.power(u.at_least_smallest(total) if eps > 0.0 else total, _TO_MINUS_HALF)


def normalized(u: Unit, x: Word, mean: Word, r: Word, weight: Word | None, bias: Word | None) -> Word:
    """H w + b."""
    return _affine(u, u.multiply(u.subtract(x, mean), r), weight, bias)


def _affine(u: Unit, out: Word, weight: Word | None, bias: Word | None) -> Word:
    out = out if weight is None else u.multiply(out, weight)
    return out if bias is None else u.add(out, bias)


def input_gradient(u: Unit, g: Word, h: Word, r: Word, axes: tuple[int, ...]) -> Word:
    """R (g - sum g / n - h sum(g h) / n)."""
    centered = u.subtract(g, u.mean(g, axes, keepdims=True))
    along = u.multiply(h, u.mean(u.multiply(g, h), axes, keepdims=True))
    return u.multiply(r, u.subtract(centered, along))


def _check(bench: Bench, *tensors: torch.Tensor | None) -> None:
    bench.shop.check(*tensors, name=bench.at.name)


def _read(bench: Bench, x: torch.Tensor | None, shape: tuple[int, ...]) -> Word | None:
    return None if x is None else bench.read(x).reshape(*shape)


# ---------------------------------------------------------------------------------------------------------------- layer


def _check_layer(x: torch.Tensor, shape: tuple[int, ...], w: torch.Tensor | None, b: torch.Tensor | None) -> None:
    if not shape or tuple(x.shape[max(x.ndim - len(shape), 0) :]) != shape:
        raise RuntimeError(f"layer norm over {shape} takes a tensor that ends in these lengths, not {tuple(x.shape)}")
    for name, one in (("weight", w), ("bias", b)):
        if one is not None and tuple(one.shape) != shape:
            raise RuntimeError(f"layer norm over {shape} takes a {name} of that shape, not of {tuple(one.shape)}")


def _layer(
    bench: Bench, x: torch.Tensor, shape: Any, w: torch.Tensor | None, b: torch.Tensor | None, eps: float
) -> Any:
    _check(bench, x, w, b)
    _check_layer(x, tuple(shape), w, b)
    u, count = bench.unit, math.prod(shape)
    rows = bench.read(x).reshape(-1 if x.numel() else 0, count)
    found = statistics(u, rows, (1,), eps)
    weight, bias = (_read(bench, one, (1, count)) for one in (w, b))
    out = normalized(u, rows, found.mean, found.r, weight, bias)
    kept = (*x.shape[: x.ndim - len(shape)], *(1 for _ in shape))
    if not count:
        # of rows of no numbers: their mean is not defined
        nothing = x.new_full(kept, float("nan"))
        return torch.empty_like(x.detach()), nothing, nothing.clone()
    return (
        bench.write(out, x.dtype).reshape(x.shape),
        bench.write(found.mean, x.dtype).reshape(kept),
        bench.write(found.r, x.dtype).reshape(kept),
    )


def _layer_backward(
    bench: Bench, grad: torch.Tensor, x: torch.Tensor, shape: Any, mean: torch.Tensor, r: torch.Tensor,
    w: torch.Tensor | None, b: torch.Tensor | None, mask: Any,
) -> Any:  # fmt: skip
    _check(bench, grad, x, w)
    u, count = bench.unit, math.prod(shape)
    dy, rows = (bench.read(one).reshape(-1 if x.numel() else 0, count) for one in (grad, x))
    center, root = (bench.read(one).reshape(-1, 1) for one in (mean, r))
    h = u.multiply(u.subtract(rows, center), root)
    weight = _read(bench, w, (1, count))
    out: list[torch.Tensor | None] = [None, None, None]
    if mask[0]:
        g = dy if weight is None else u.multiply(dy, weight)
        out[0] = bench.write(input_gradient(u, g, h, root, (1,)), x.dtype).reshape(x.shape)
    if mask[1] and w is not None:
        out[1] = bench.write(u.total(u.multiply(dy, h), (0,)), x.dtype).reshape(w.shape)
    if mask[2] and b is not None:
        out[2] = bench.write(u.total(dy, (0,)), x.dtype).reshape(b.shape)
    return tuple(out)


# ---------------------------------------------------------------------------------------------------------------- batch


def _channel(x: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes along which a channel lies, and the shape of one number for each."""
    axes = tuple(d for d in range(x.ndim) if d != 1)
    return axes, tuple(x.shape[1] if d == 1 else 1 for d in range(x.ndim))


def _batch(
    bench: Bench, x: torch.Tensor, w: torch.Tensor | None, b: torch.Tensor | None,
    running_mean: torch.Tensor | None, running_var: torch.Tensor | None, training: bool, momentum: float, eps: float,
) -> Any:  # fmt: skip
    _check(bench, x, w, b)
    u, (axes, shape) = bench.unit, _channel(x)
    word = bench.read(x)
    if training:
        found = statistics(u, word, axes, eps)
        mean, root = found.mean, found.r
        count = x.numel() // max(x.shape[1], 1)
        if running_mean is not None:
            _move(bench, running_mean, mean, momentum)
        if running_var is not None:
            _move(bench, running_var, u.scaled(found.var, count / max(count - 1, 1)), momentum)
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, root = bench.read(running_mean).reshape(*shape), bench.read(running_var).reshape(*shape)
        root = inverse_root(u, root, eps)
    out = normalized(u, word, mean, root, *(_read(bench, one, shape) for one in (w, b)))
    kept = [bench.write(one, x.dtype).reshape(-1) for one in (mean, root)] if training else [x.new_empty(0)] * 2
    return bench.write(out, x.dtype), *kept


def _move(bench: Bench, running: torch.Tensor, now: Word, momentum: float) -> None:
    """running <- (1 - momentum) running + momentum now."""
    u = bench.unit
    old = u.scaled(bench.read(running), 1.0 - momentum)
    running.copy_(bench.write(u.add(old, u.scaled(now.reshape(-1), momentum)), running.dtype))


def _batch_backward(
    bench: Bench, grad: torch.Tensor, x: torch.Tensor, w: torch.Tensor | None,
    running_mean: torch.Tensor | None, running_var: torch.Tensor | None, mean: torch.Tensor | None,
    root: torch.Tensor | None, training: bool, eps: float, mask: Any,
) -> Any:  # fmt: skip
    _check(bench, grad, x, w)
    u, (axes, shape) = bench.unit, _channel(x)
    dy, word = bench.read(grad), bench.read(x)
    if training:
        assert mean is not None
        assert root is not None
        center, r = bench.read(mean).reshape(*shape), bench.read(root).reshape(*shape)
    else:
        assert running_mean is not None
        assert running_var is not None
        center = bench.read(running_mean).reshape(*shape)
        r = inverse_root(u, bench.read(running_var).reshape(*shape), eps)
    weight = _read(bench, w, shape)
    h = u.multiply(u.subtract(word, center), r)
    out: list[torch.Tensor | None] = [None, None, None]
    if mask[0]:
        g = dy if weight is None else u.multiply(dy, weight)
        out[0] = bench.write(input_gradient(u, g, h, r, axes) if training else u.multiply(r, g), x.dtype)
    if mask[1]:
        out[1] = bench.write(u.total(u.multiply(dy, h), axes), x.dtype)
    if mask[2]:
        out[2] = bench.write(u.total(dy, axes), x.dtype)
    return tuple(out)


# ---------------------------------------------------------------------------------------------------------------- group


def _group(
    bench: Bench, x: torch.Tensor, w: torch.Tensor | None, b: torch.Tensor | None, n: int, channels: int, places: int,
    groups: int, eps: float,
) -> Any:  # fmt: skip
    _check(bench, x, w, b)
    u = bench.unit
    rows = bench.read(x).reshape(n * groups, channels // groups * places)
    found = statistics(u, rows, (1,), eps)
    h = u.multiply(u.subtract(rows, found.mean), found.r).reshape(n, channels, places)
    out = _affine(u, h, *(_read(bench, one, (1, channels, 1)) for one in (w, b)))
    kept = (bench.write(one, x.dtype).reshape(n, groups) for one in (found.mean, found.r))
    return (bench.write(out, x.dtype).reshape(x.shape), *kept)


def _group_backward(
    bench: Bench, grad: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, r: torch.Tensor, w: torch.Tensor | None,
    n: int, channels: int, places: int, groups: int, mask: Any,
) -> Any:  # fmt: skip
    _check(bench, grad, x, w)
    u, whole = bench.unit, (n, channels, places)
    rows = (n * groups, channels // groups * places)
    dy, root = bench.read(grad).reshape(*whole), bench.read(r).reshape(-1, 1)
    h = u.multiply(u.subtract(bench.read(x).reshape(*rows), bench.read(mean).reshape(-1, 1)), root)
    weight = _read(bench, w, (1, channels, 1))
    out: list[torch.Tensor | None] = [None, None, None]
    if mask[0]:
        g = dy if weight is None else u.multiply(dy, weight)
        out[0] = bench.write(input_gradient(u, g.reshape(*rows), h, root, (1,)), x.dtype).reshape(x.shape)
    if mask[1]:
        out[1] = bench.write(u.total(u.multiply(dy, h.reshape(*whole)), (0, 2)), x.dtype)
    if mask[2]:
        out[2] = bench.write(u.total(dy, (0, 2)), x.dtype)
    return tuple(out)


NORMALIZATION: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm.default: _layer,
    aten.native_layer_norm_backward.default: _layer_backward,
    aten.native_batch_norm.default: _batch,
    aten.native_batch_norm_backward.default: _batch_backward,
    aten.native_group_norm.default: _group,
    aten.native_group_norm_backward.default: _group_backward,
}
"""By operation."""
