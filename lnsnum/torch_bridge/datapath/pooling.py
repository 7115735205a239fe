"""Pooling in LNS: averages of windows, fixed and adaptive, and what goes back through windows.

    average     y_p  =  sum of x_q over the q of window p, / n_p        dx_q  =  sum of dy_p / n_p
    greatest    y_p  =  x at the place i_p, chosen                      dx_q  =  sum of dy_p over the p with i_p = q

Sums run in C order: of places in a window, and of the windows that a place lies in. Padding is a term, a zero. The
number of places n is rounded to the grid. Along each dimension a window is a row of places (`_Windows`), of pooling
that adapts rows of several lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.torch_bridge.datapath.operands import Bench
from lnsnum.torch_bridge.datapath.unit import Unit, Word

aten = torch.ops.aten

Places = NDArray[np.int64]


class _Windows(NamedTuple):
    """Along one dimension."""

    places: Places
    """(windows, longest): where each window's numbers lie, -1 where there is none."""
    reached_by: Places
    """(places, most): the windows in which each place lies, -1 where there is none."""
    counts: Places
    """What a window's average is divided by."""


def _windows(places: Places, length: int, counts: Places) -> _Windows:
    lists: list[list[int]] = [[] for _ in range(length)]
    for window, row in enumerate(places.tolist()):
        for place in row:
            if place >= 0:
                lists[place].append(window)
    most = max((len(one) for one in lists), default=0)
    reached_by = np.array([one + [-1] * (most - len(one)) for one in lists], np.int64).reshape(length, most)
    return _Windows(places, reached_by, counts)


@lru_cache(maxsize=256)
def _fixed(length: int, windows: int, kernel: int, stride: int, pad: int, dilation: int, padded: bool) -> _Windows:
    """Windows of one length; `padded`: whether padding counts."""
    first = np.arange(windows) * stride - pad
    places = first[:, None] + np.arange(kernel) * dilation
    counts = np.minimum(first + kernel, length + pad) - first
    if not padded:
        counts = np.minimum(first + kernel, length) - np.maximum(first, 0)
    return _windows(np.where((places < 0) | (places >= length), -1, places), length, counts)


@lru_cache(maxsize=256)
def _adaptive(length: int, windows: int) -> _Windows:
    """From floor(i L / n) to ceil((i + 1) L / n)."""
    begin = np.arange(windows) * length // max(windows, 1)
    end = -(-(np.arange(windows) + 1) * length // max(windows, 1))
    places = begin[:, None] + np.arange(max((end - begin).max(initial=0), 1))
    return _windows(np.where(places >= end[:, None], -1, places), length, end - begin)


def _gathered(codes: NDArray[Any], rows: Sequence[Places], none: int = 0) -> NDArray[Any]:
    """(..., L1, ..., Ld) -> (..., n1, ..., nd, k1, ..., kd): of each dimension the places of its rows."""
    for at, places in enumerate(rows, codes.ndim - len(rows)):
        # -1 is the last one, which says that there is none
        last = np.full((*codes.shape[:at], 1, *codes.shape[at + 1 :]), none, codes.dtype)
        codes = np.moveaxis(np.concatenate([codes, last], at).take(places, at), at + 1, -1)
    return codes


def _summed(u: Unit, word: Word, rows: Sequence[Places]) -> Word:
    gathered = word._replace(codes=_gathered(word.codes, rows))
    return u.total(gathered, tuple(range(-len(rows), 0)))


def _divided(u: Unit, word: Word, windows: Sequence[_Windows], divisor: int | None) -> Word:
    """By the number of each window."""
    counts = np.array(1.0)
    for one in windows:
        counts = counts[..., None] * one.counts
    if divisor is not None:
        counts = np.array(float(divisor))
    if counts.size and (counts == counts.flat[0]).all():
        return u.divide(word, u.constant(float(counts.flat[0])))
    return u.divide(word, u.encode(counts))


def _average(u: Unit, x: Word, windows: Sequence[_Windows], divisor: int | None = None) -> Word:
    return _divided(u, _summed(u, x, [one.places for one in windows]), windows, divisor)


def _average_backward(u: Unit, error: Word, windows: Sequence[_Windows], divisor: int | None = None) -> Word:
    return _summed(u, _divided(u, error, windows, divisor), [one.reached_by for one in windows])


def _all_of(given: Any, d: int) -> list[int]:
    """One number for each dimension."""
    numbers = [int(n) for n in given] if isinstance(given, (list, tuple)) else [int(given)]
    return numbers * d if len(numbers) == 1 else numbers


def _fixed_windows(
    bench: Bench, x: torch.Tensor, d: int, kernel: Any, stride: Any, padding: Any, dilation: Any = 1, *,
    ceil_mode: bool = False, padded: bool = True, outputs: Sequence[int] | None = None,
) -> list[_Windows]:  # fmt: skip
    """Of each dimension; `outputs`: how many there are, where that is known."""
    kernels, pads, dilations = (_all_of(one, d) for one in (kernel, padding, dilation))
    strides = _all_of(stride, d) if stride else kernels
    lengths = x.shape[-d:]
    if outputs is None:
        counts = [
            _count(*one, ceil_mode) for one in zip(lengths, kernels, strides, pads, strict=True)
        ]  # fmt: skip
        fits = all(2 * pad <= k for pad, k in zip(pads, kernels, strict=True)) and min(*kernels, *strides, *counts) > 0
        if x.ndim not in (d + 1, d + 2) or min(pads) < 0 or not fits:
            raise RuntimeError(
                f"{bench.at.name} of shape {tuple(x.shape)} with windows of {kernels}, strides {strides} and padding "
                f"{pads}: take {d} lengths behind the channels, and windows within them, padded by half of them at most"
            )
        outputs = counts
    numbers = zip(lengths, outputs, kernels, strides, pads, dilations, strict=True)
    return [_fixed(*one, padded) for one in numbers]


def _count(length: int, kernel: int, stride: int, pad: int, ceil_mode: bool) -> int:
    """How many windows there are; an unfinished one begins within the numbers or what is before them."""
    if stride < 1:
        return 0
    room = length + 2 * pad - kernel
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= length + pad else count


def _pool(d: int) -> Callable[..., Any]:
    def run(
        bench: Bench, x: torch.Tensor, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
        padded: bool = True, divisor: int | None = None,
    ) -> Any:  # fmt: skip
        bench.shop.check(x, name=bench.at.name)
        if divisor == 0:
            raise RuntimeError(f"{bench.at.name} with divisor_override=0: give another number, or None")
        windows = _fixed_windows(bench, x, d, kernel, stride, padding, ceil_mode=ceil_mode, padded=padded)
        return bench.write(_average(bench.unit, bench.read(x), windows, divisor), x.dtype)

    return run


def _pool_backward(d: int) -> Callable[..., Any]:
    def run(
        bench: Bench, error: torch.Tensor, x: torch.Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool,
        padded: bool, divisor: int | None,
    ) -> Any:  # fmt: skip
        bench.shop.check(error, name=bench.at.name)
        windows = _fixed_windows(bench, x, d, kernel, stride, padding, padded=padded, outputs=error.shape[-d:])
        return bench.write(_average_backward(bench.unit, bench.read(error), windows, divisor), x.dtype)

    return run


def _adaptive_pool(bench: Bench, x: torch.Tensor, size: Any) -> Any:
    bench.shop.check(x, name=bench.at.name)
    windows = [_adaptive(n, m) for n, m in zip(x.shape[-len(size) :], size, strict=True)]
    return bench.write(_average(bench.unit, bench.read(x), windows), x.dtype)


def _adaptive_backward(d: int) -> Callable[..., Any]:
    def run(bench: Bench, error: torch.Tensor, x: torch.Tensor) -> Any:
        bench.shop.check(error, name=bench.at.name)
        windows = [_adaptive(n, m) for n, m in zip(x.shape[-d:], error.shape[-d:], strict=True)]
        return bench.write(_average_backward(bench.unit, bench.read(error), windows), x.dtype)

    return run


def _chosen_backward(
    bench: Bench, error: torch.Tensor, x: torch.Tensor, windows: Sequence[_Windows], indices: torch.Tensor
) -> Any:
    """Of each place the errors of the windows that chose it; windows without it are zeros."""
    bench.shop.check(error, name=bench.at.name)
    u, d = bench.unit, len(windows)
    word, rows = bench.read(error), [one.reached_by for one in windows]
    lengths = x.shape[-d:]
    own = np.arange(math.prod(lengths)).reshape(*lengths, *(1 for _ in lengths))
    chosen = _gathered(indices.contiguous().numpy(), rows, -1) == own
    codes = np.where(chosen, _gathered(word.codes, rows), 0).astype(u.fmt.dtype)
    return bench.write(u.total(word._replace(codes=codes), tuple(range(-d, 0))), x.dtype)


def _greatest_backward(d: int) -> Callable[..., Any]:
    def run(
        bench: Bench, error: torch.Tensor, x: torch.Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any,
        ceil_mode: bool, indices: torch.Tensor,
    ) -> Any:  # fmt: skip
        windows = _fixed_windows(bench, x, d, kernel, stride, padding, dilation, outputs=error.shape[-d:])
        return _chosen_backward(bench, error, x, windows, indices)

    return run


def _adaptive_greatest_backward(d: int) -> Callable[..., Any]:
    def run(bench: Bench, error: torch.Tensor, x: torch.Tensor, indices: torch.Tensor) -> Any:
        windows = [_adaptive(n, m) for n, m in zip(x.shape[-d:], error.shape[-d:], strict=True)]
        return _chosen_backward(bench, error, x, windows, indices)

    return run


POOLING: dict[Any, Callable[..., Any]] = {
    aten.avg_pool2d.default: _pool(2),
    aten.avg_pool3d.default: _pool(3),
    aten.avg_pool2d_backward.default: _pool_backward(2),
    aten.avg_pool3d_backward.default: _pool_backward(3),
    aten._adaptive_avg_pool2d.default: _adaptive_pool,
    aten._adaptive_avg_pool3d.default: _adaptive_pool,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_backward(2),
    aten._adaptive_avg_pool3d_backward.default: _adaptive_backward(3),
    aten.max_pool2d_with_indices_backward.default: _greatest_backward(2),
    aten.max_pool3d_with_indices_backward.default: _greatest_backward(3),
    aten.adaptive_max_pool2d_backward.default: _adaptive_greatest_backward(2),
    aten.adaptive_max_pool3d_backward.default: _adaptive_greatest_backward(3),
}
"""By operation."""
