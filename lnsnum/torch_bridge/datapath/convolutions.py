"""Convolutions of one to three dimensions, forward and backward, transposed too.

In float32 torch's own kernel takes the numbers that the codes stand for. With an accumulator the windows become columns
(`windows`), and the matrix product of the core adds them: the same sums, in the order that `windows` names.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from lnsnum.torch_bridge.datapath import bit_true, windows
from lnsnum.torch_bridge.datapath.fixed_point import FixedSums
from lnsnum.torch_bridge.datapath.graph import Record, in_backward, record_of, role_of, running_node
from lnsnum.torch_bridge.datapath.products import sum_of_errors
from lnsnum.torch_bridge.datapath.settings import Accumulator, BitTrue, FixedPoint
from lnsnum.torch_bridge.datapath.windows import Shape
from lnsnum.torch_bridge.datapath.workshop import Taken, Workshop, begin

aten = torch.ops.aten


def _convolution(
    shop: Workshop,
    func: Any,
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> torch.Tensor:
    rest = (stride, padding, dilation, transposed, output_padding, groups)
    shop.check(x, w, bias, name="convolution")
    at = begin(shop, "convolution")
    if at.formats is None:
        shop.left_in_float(f"{func}, by layers")
    # an image, and an output channel, has a scale of its own under the rule "channel"
    own = (1,) if transposed else (0,)
    taken = shop.take(x, role_of(x), at, 0, (0,)), shop.take(w, role_of(w), at, 1, own)
    factors = [t.factor() for t in taken]
    added = None
    if bias is not None:
        added = shop.take(bias, role_of(bias), at, 2, ())
        factors.append(added.factor())
    accumulator = None if at.formats is None else at.formats.accumulate
    if not isinstance(accumulator, (Accumulator, FixedPoint)):
        floats = [t.floats(x.dtype) for t in taken]
        out = func(*floats, None if added is None else added.floats(x.dtype), *rest)
    else:
        # only one image or none: torch gives a batch to all that is not
        shape = Shape.of(stride, padding, dilation, groups, x.ndim - 2)
        kernel = tuple(w.shape[2:])
        if transposed:
            more = windows.in_all(output_padding, x.ndim - 2)
            spatial = tuple(
                (p - 1) * s - 2 * pad + d * (k - 1) + extra + 1
                for p, s, pad, d, k, extra in zip(x.shape[2:], *shape[:3], kernel, more, strict=True)
            )
            sums = _spread(shop, taken[0], taken[1], shape, spatial, at, accumulator, "outputs")
        else:
            spatial = shape.outputs(tuple(x.shape[2:]), kernel)
            sums = _correlate(shop, taken[0], taken[1], shape, at, accumulator, "outputs", spatial)
        if added is not None:
            column = added.matrices(accumulator, lambda t: t.reshape(groups, -1, 1))
            sums = bit_true.add(sums, column, accumulator)
        out = windows.to_outputs(sums.floats(x.dtype), len(x), spatial)
    at.factors = tuple(factors)
    if torch.is_grad_enabled():
        shop.graph.record(out, at)
    return out  # type: ignore[no-any-return]


def _correlate(
    shop: Workshop,
    x: Taken,
    w: Taken,
    shape: Shape,
    at: Record,
    accumulator: BitTrue,
    kind: str,
    spatial: tuple[int, ...],
) -> bit_true.Sums | FixedSums:
    kernel = tuple(w.x.shape[2:])
    # an output_padding of a stride or more makes room for windows that no element of the input has
    fitting: Any = (..., *(slice(length) for length in spatial))
    left = w.matrices(accumulator, lambda t: windows.of_weight(t, shape.groups))
    right = x.matrices(accumulator, lambda t: windows.by_window(windows.columns(t, kernel, shape)[fitting], kernel))
    return shop.sums(left, right, at, kind)


def _spread(
    shop: Workshop,
    y: Taken,
    w: Taken,
    shape: Shape,
    spatial: tuple[int, ...],
    at: Record,
    accumulator: BitTrue,
    kind: str,
) -> bit_true.Sums | FixedSums:
    kernel = tuple(w.x.shape[2:])
    left = w.matrices(accumulator, lambda t: windows.turned_weight(t, shape.groups))
    right = y.matrices(accumulator, lambda t: windows.spread_columns(t, kernel, shape, spatial))
    return shop.sums(left, right, at, kind)


def _backward(
    shop: Workshop,
    func: Any,
    error: torch.Tensor,
    x: torch.Tensor,
    w: torch.Tensor,
    bias_sizes: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    mask: Any,
) -> tuple[torch.Tensor | None, ...]:
    rest = (stride, padding, dilation, transposed, output_padding, groups)
    shop.check(error, x, w, name="convolution")
    node = running_node() if in_backward() else None
    at = None if node is None else record_of(node)
    if at is None or not at.factors or torch.is_grad_enabled():
        raise RuntimeError(
            "the backward pass of a convolution that datapath(...) did not record runs within it, or with "
            "create_graph=True: compute the loss within the same with block, and gradients of gradients outside"
        )
    factors = at.factors[:2]
    saved = [shop.take_again(t, one.role, at, i, one) for i, (t, one) in enumerate(zip((x, w), factors, strict=True))]
    taken = shop.take(error, "errors", at, 2, (0,))
    accumulator = None if at.formats is None else at.formats.accumulate
    out: list[torch.Tensor | None]
    if not isinstance(accumulator, (Accumulator, FixedPoint)):
        floats = [t.floats(x.dtype) for t in (taken, *saved)]
        out = list(func(*floats, bias_sizes, *rest, mask))
    else:
        shape = Shape.of(stride, padding, dilation, groups, x.ndim - 2)
        out = _bit_true(shop, taken, saved[0], saved[1], shape, transposed, mask, at, accumulator)
        if mask[2]:
            dims = [d for d in range(error.ndim) if d != 1]
            out[2] = sum_of_errors(shop, error, dims, at)
    return tuple(
        None if one is None or not wanted else shop.settled(one, factor, at)
        for one, wanted, factor in zip(out, mask, (*at.factors, *at.factors[1:])[:3], strict=True)
    )


def _bit_true(
    shop: Workshop,
    error: Taken,
    x: Taken,
    w: Taken,
    shape: Shape,
    transposed: bool,
    mask: Any,
    at: Record,
    accumulator: BitTrue,
) -> list[torch.Tensor | None]:
    kernel, dtype = tuple(w.x.shape[2:]), x.x.dtype
    names = ["gradients" if factor.role == "weights" else "errors" for factor in at.factors[:2]]
    out: list[torch.Tensor | None] = [None, None, None]
    if mask[0]:
        spatial = tuple(x.x.shape[2:])
        if transposed:
            sums = _correlate(shop, error, w, shape, at, accumulator, names[0], spatial)
        else:
            sums = _spread(shop, error, w, shape, spatial, at, accumulator, names[0])
        out[0] = windows.to_outputs(sums.floats(dtype), len(x.x), spatial)
    if mask[1]:
        # the windows are those of the larger image: what a transposed convolution gives, or another one takes
        large, small = (error, x) if transposed else (x, error)
        counts = math.prod(small.x.shape[2:])
        left = small.matrices(accumulator, lambda t: windows.of_outputs(t, shape.groups))

        def rows(t: torch.Tensor) -> torch.Tensor:
            cols = windows.columns(t, kernel, shape)
            fitting: Any = (..., *(slice(length) for length in small.x.shape[2:]))
            return windows.by_window(cols[fitting], kernel).transpose(1, 2)

        right = large.matrices(accumulator, rows)
        assert left.codes.shape[-1] == counts * len(x.x)
        out[1] = shop.sums(left, right, at, names[1]).floats(dtype).reshape(w.x.shape)
    return out


HANDLERS: dict[Any, Any] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _backward,
}
