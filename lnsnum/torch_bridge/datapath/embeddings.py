"""Embeddings: rows of a weight are looked up, and errors of equal indices are summed.

forward      y[t]   =  Q_W(w)[i_t]
backward     dw[v]  =  Q_G(sum of Q_E(dy[t]) over all t with i_t = v, in their order)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lnsnum.torch_bridge.datapath import bit_true
from lnsnum.torch_bridge.datapath.graph import in_backward, record_of, role_of, running_node
from lnsnum.torch_bridge.datapath.settings import Accumulator, FixedPoint
from lnsnum.torch_bridge.datapath.workshop import Workshop, begin
from lnsnum.torch_bridge.weight import LNSWeight

aten = torch.ops.aten


def _embedding(shop: Workshop, func: Any, weight: torch.Tensor, indices: torch.Tensor, *rest: Any) -> torch.Tensor:
    shop.check(weight, name="embedding")
    if len(rest) > 2 and rest[2] and torch.is_grad_enabled():
        raise NotImplementedError(
            "an embedding with sparse=True leaves the sum of its errors to whoever adds sparse gradients: take "
            "sparse=False"
        )
    at = begin(shop, "embedding")
    taken = shop.take(weight, role_of(weight), at, 0, (0,))
    if taken.quantized is None:
        out = func(weight, indices, *rest)
    elif isinstance(weight, LNSWeight) and taken.quantized.fmt == weight.fmt:
        out = func(weight, indices, *rest)  # which decodes the rows alone
    else:
        out = func(taken.floats(weight.dtype), indices, *rest)
    at.factors = (taken.factor(),)
    if torch.is_grad_enabled():
        shop.graph.record(out, at)
    return out  # type: ignore[no-any-return]


def _backward(
    shop: Workshop, func: Any, error: torch.Tensor, indices: torch.Tensor, rows: int, padding_idx: int, by_freq: bool
) -> torch.Tensor:
    node = running_node() if in_backward() else None
    at = None if node is None else record_of(node)
    if at is None or not at.factors:
        raise RuntimeError(
            "the backward pass of an embedding that datapath(...) did not record runs within it: compute the loss "
            "within the same with block"
        )
    shop.check(error, name="embedding")
    taken = shop.take(error, "errors", at, 0, None)
    accumulator = None if at.formats is None else at.formats.accumulate
    if not isinstance(accumulator, (Accumulator, FixedPoint)):
        out = func(taken.floats(error.dtype), indices, rows, padding_idx, by_freq)
        return shop.settled(out, at.factors[0], at)
    if by_freq:
        raise NotImplementedError("an embedding with scale_grad_by_freq=True divides in float: leave it out")
    errors = taken.matrices(accumulator, lambda t: t.reshape(-1, t.shape[-1]))
    flat = indices.reshape(-1).numpy()
    order = np.argsort(flat, kind="stable")
    found, starts = np.unique(flat[order], return_index=True)
    out = error.new_zeros((rows, error.shape[-1]))
    for index, own in zip(found.tolist(), np.split(order, starts[1:]), strict=len(found) > 0):
        if index == padding_idx:
            continue
        offsets = errors.log_offset if isinstance(errors.log_offset, int) else errors.log_offset[own]
        part = errors._replace(codes=errors.codes[own], log_offset=offsets)
        out[index] = bit_true.sum_rows(part, accumulator).floats(error.dtype)
    return shop.settled(out, at.factors[0], at)


HANDLERS: dict[Any, Any] = {
    aten.embedding.default: _embedding,
    aten.embedding_dense_backward.default: _backward,
}
