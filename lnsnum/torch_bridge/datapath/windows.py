"""Convolutions as matrix products: windows of an image as columns, by strides, in one to three dimensions.

    correlate     y[n, o, p]   =  sum_{c, k}  w[o, c, k]  x[n, c, p s + k d - pad]
    spread        x[n, c, q]   =  sum_{o, k}  w[o, c, k]  y[n, o, p]     over all p, k with  p s + k d - pad = q
    correlation   w[o, c, k]   =  sum_{n, p}  y[n, o, p]  x[n, c, p s + k d - pad]

The first is a convolution, the second its gradient of x, the third that of w; of a transposed convolution the first
two change places. Each becomes a product of matrices in groups, whose terms are in the order of the sums above: c,
then k; o, then k; n, then p. Elements are codes, of which 0 is zero, or their log_offsets: padding adds zeros.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch.nn import functional


class Shape(NamedTuple):
    """How a window moves, each for all spatial dimensions."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, stride: Any, padding: Any, dilation: Any, groups: int, dims: int) -> Shape:
        """As torch gives them, of which one number stands for all dimensions."""
        return cls(*(in_all(one, dims) for one in (stride, padding, dilation)), groups)  # type: ignore[call-arg, arg-type]

    def outputs(self, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
        """How many windows there are along each dimension."""
        return tuple(
            (length + 2 * pad - d * (k - 1) - 1) // s + 1
            for length, pad, d, k, s in zip(spatial, self.padding, self.dilation, kernel, self.stride, strict=True)
        )


def in_all(numbers: Any, dims: int) -> tuple[int, ...]:
    """One number for each dimension, of one for all."""
    each: tuple[int, ...] = tuple(numbers)
    return each * dims if len(each) == 1 else each


def columns(x: torch.Tensor, kernel: tuple[int, ...], shape: Shape) -> torch.Tensor:
    """Windows of (N, C, *S) as (groups, N, C / groups, *kernel, *outputs): a view, where nothing is padded."""
    padding = [pad for one in reversed(shape.padding) for pad in (one, one)]
    return _windows(functional.pad(x, padding), kernel, shape)


def _windows(x: torch.Tensor, kernel: tuple[int, ...], shape: Shape) -> torch.Tensor:
    n, c, *spatial = x.shape
    first, channel, *steps = x.stride()
    counts = [
        (length - d * (k - 1) - 1) // s + 1
        for length, d, k, s in zip(spatial, shape.dilation, kernel, shape.stride, strict=True)
    ]
    own = c // shape.groups
    sizes = (shape.groups, n, own, *kernel, *counts)
    within = [d * step for d, step in zip(shape.dilation, steps, strict=True)]
    between = [s * step for s, step in zip(shape.stride, steps, strict=True)]
    return x.as_strided(sizes, (own * channel, first, channel, *within, *between), x.storage_offset())


def by_window(cols: torch.Tensor, kernel: tuple[int, ...]) -> torch.Tensor:
    """Columns (groups, C K, N P): a window in each column."""
    g, n, c, *rest = cols.shape
    size, count = math.prod(kernel), math.prod(rest[len(kernel) :])
    return cols.reshape(g, n, c * size, count).transpose(1, 2).reshape(g, c * size, n * count)


def of_weight(w: torch.Tensor, groups: int) -> torch.Tensor:
    """(O, C / groups, *kernel) as (groups, O / groups, C K)."""
    return w.reshape(groups, len(w) // groups, math.prod(w.shape[1:]))


def of_outputs(y: torch.Tensor, groups: int) -> torch.Tensor:
    """(N, O, *P) as (groups, O / groups, N P)."""
    n, o, *spatial = y.shape
    count = math.prod(spatial)
    return y.reshape(n, groups, o // groups, count).permute(1, 2, 0, 3).reshape(groups, o // groups, n * count)


def to_outputs(y: torch.Tensor, n: int, spatial: tuple[int, ...]) -> torch.Tensor:
    """(groups, O / groups, N P) as (N, O, *P)."""
    g, o, _ = y.shape
    return y.reshape(g * o, n, math.prod(spatial)).transpose(0, 1).reshape(n, g * o, *spatial)


def turned_weight(w: torch.Tensor, groups: int) -> torch.Tensor:
    """(O, C / groups, *kernel) as (groups, C / groups, O K), each window back to front: what `spread` multiplies by."""
    o, c, *kernel = w.shape
    flipped = w.flip(tuple(range(2, w.ndim))) if kernel else w
    apart = flipped.reshape(groups, o // groups, c, *kernel)
    return apart.transpose(1, 2).reshape(groups, c, o // groups * math.prod(kernel))


def spread_columns(y: torch.Tensor, kernel: tuple[int, ...], shape: Shape, spatial: tuple[int, ...]) -> torch.Tensor:
    """Windows of (N, O, *P), stretched by the strides, as (groups, O K, N Q): those that reach each of `spatial`."""
    n, o, *counts = y.shape
    # with stride - 1 zeros between, a window that moves by ones meets each output where it belongs
    stretched = y.new_zeros((n, o, *((c - 1) * s + 1 for c, s in zip(counts, shape.stride, strict=True))))
    each: Any = (..., *(slice(None, None, s) for s in shape.stride))
    stretched[each] = y
    padding: list[int] = []
    for length, have, pad, d, k in reversed(
        list(zip(spatial, stretched.shape[2:], shape.padding, shape.dilation, kernel, strict=True))
    ):
        before = d * (k - 1) - pad
        padding += [before, length + d * (k - 1) - have - before]
    padded = functional.pad(stretched, padding).contiguous()
    ones = (1,) * len(kernel)
    windows = _windows(padded, kernel, Shape(ones, (0,) * len(kernel), shape.dilation, shape.groups))
    return by_window(windows, kernel)
