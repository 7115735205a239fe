"""How results lie in memory: as torch's do, so that views of them are as without a datapath.

Of contiguous operands a result is contiguous. Of others torch's own rules decide, which it tells of tensors without
memory (`meta`), but for what its kernels on the CPU do otherwise than that.
"""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten

_CONTIGUOUS = frozenset(
    [
        aten._log_softmax_backward_data.default,
        aten.mse_loss_backward.default,
        aten.nll_loss_backward.default,
        aten.nll_loss2d_backward.default,
    ]
)
"""Whose results are contiguous whatever the operands are."""

_AS_IMAGES = {
    aten.native_batch_norm.default: 0,
    aten.native_batch_norm_backward.default: 1,
    aten.native_group_norm.default: 0,
    aten.native_group_norm_backward.default: 1,
}
"""Whose results are channels_last where this operand is, and contiguous elsewhere."""


_OF_OPERANDS = {
    aten.elu_backward.default: (0, 5),
    aten.softplus_backward.default: (0, 1),
}
"""Where these operands decide as those of a product do."""


def as_torch_would(out: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A result, of one tensor or of several, the first with the strides that torch's has."""
    if all(x.is_contiguous() for x in args if isinstance(x, torch.Tensor)) or func in _CONTIGUOUS:
        return out
    first = out[0] if isinstance(out, tuple) else out
    if first is None or first.ndim < 2:
        return out
    own = _AS_IMAGES.get(func)
    if own is not None:
        strides = torch.empty_like(first, memory_format=torch._prims_common.suggest_memory_format(args[own])).stride()
    else:
        if func in _OF_OPERANDS:
            args, func = tuple(args[i] for i in _OF_OPERANDS[func]), aten.mul.Tensor
        found = func(*map(_without_memory, args), **kwargs)
        strides = (found[0] if isinstance(found, tuple) else found).stride()
    if strides == first.stride():
        return out
    moved = torch.empty_strided(first.shape, strides, dtype=first.dtype).copy_(first)
    return (moved, *out[1:]) if isinstance(out, tuple) else moved


def _without_memory(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
