"""What is no product: which of torch's operations compute with floats, and which a datapath refuses.

Moving and choosing numbers needs no arithmetic: views, copies, gathers, comparisons, maxima, relu are the same on
codes. Everything else that takes or gives floats computes, and is listed by the report.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

_MOVES = frozenset(
    [
        "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "transpose_", "t_", "squeeze_", "unsqueeze_",
        "alias", "clone", "detach", "detach_", "copy", "copy_", "_to_copy", "contiguous", "empty", "empty_like",
        "empty_strided", "new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full", "zeros", "zeros_like",
        "ones", "ones_like", "full", "full_like", "fill", "fill_", "zero_", "scalar_tensor", "lift_fresh", "arange",
        "linspace", "eye", "tril", "triu", "tril_", "triu_", "cat", "stack", "repeat", "roll", "flip", "gather",
        "scatter", "scatter_", "index", "index_put", "index_put_", "_unsafe_index_put", "index_select", "index_fill",
        "index_fill_", "masked_fill", "masked_fill_", "masked_select", "where", "take", "take_along_dim",
        "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
        "pixel_shuffle", "pixel_unshuffle", "im2col", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite",
        "argmax", "argmin", "sort", "topk", "max", "min", "amax", "amin", "maximum", "minimum", "aminmax", "clamp",
        "clamp_", "clamp_min", "clamp_min_", "clamp_max", "relu", "relu_", "hardtanh", "hardtanh_", "threshold",
        "threshold_backward", "hardtanh_backward", "abs", "abs_", "neg", "neg_", "sign", "sgn", "max_pool1d",
        "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d",
        "adaptive_max_pool3d", "max_unpool2d", "max_unpool3d", "upsample_nearest1d", "upsample_nearest2d",
        "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
        "channel_shuffle", "native_channel_shuffle", "select_backward", "slice_backward", "select_scatter",
        "slice_scatter", "value_selecting_reduction_backward", "diagonal_backward", "embedding", "bernoulli",
        "bernoulli_", "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "normal_", "uniform_",
        "random_", "multinomial", "_local_scalar_dense", "item", "equal", "nonzero", "_pin_memory", "is_pinned", "set_",
        "resize_", "_unsafe_view", "view_as_complex", "view_as_real", "bitwise_and", "bitwise_or", "bitwise_not",
        "logical_and", "logical_or", "logical_not", "any", "all", "unique", "_unique2", "searchsorted", "bucketize",
        "_assert_async", "isclose", "allclose",
    ]
)  # fmt: skip
"""By the name of the operation, without its overload; but see `_adds`."""


_OF_COMPLEX = frozenset(["abs", "abs_", "sign", "sgn", "sgn_"])
"""Which compute where numbers are complex."""


@lru_cache(maxsize=2048)
def _may_add(func: Any) -> bool:
    return not {"accumulate", "reduce"}.isdisjoint(one.name for one in func._schema.arguments)


def _adds(func: Any, arguments: Any, keywords: Any) -> bool:
    """Whether an operation that places numbers adds, or multiplies, those that fall on one place."""
    if not _may_add(func):
        return False
    given = dict(zip((one.name for one in func._schema.arguments), arguments, strict=False)) | keywords
    return bool(given.get("accumulate")) or given.get("reduce") is not None


_WRITE = "write it as mm, bmm, addmm, baddbmm or a convolution"

_REFUSED = {
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
            "_flash_attention_forward", "_efficient_attention_forward", "_native_multi_head_attention",
            "_transformer_encoder_layer_fwd", "_triton_multi_head_attention", "_triton_scaled_dot_attention",
        ],
        "call torch.nn.functional.scaled_dot_product_attention, or the module in Python, within the with block",
    ),
    **dict.fromkeys(
        [
            "mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell",
            "quantized_lstm",
        ],
        "call torch.nn.LSTM, GRU or RNN, or their cells, in Python on the CPU within the with block",
    ),
    **dict.fromkeys(
        [
            "addbmm", "addbmm_", "_trilinear", "_euclidean_dist", "mkldnn_linear", "mkldnn_linear_backward",
            "_grouped_mm", "_scaled_mm", "_int_mm", "_addmm_activation", "cudnn_convolution",
            "mkldnn_convolution", "miopen_convolution", "_convolution_double_backward", "_weight_int8pack_mm",
            "_weight_int4pack_mm", "_sparse_mm", "_sparse_addmm", "_sparse_semi_structured_mm",
            "chunk_grouped_mm", "_foreach_addcmul",
        ],
        _WRITE,
    ),
    **dict.fromkeys(
        ["linear", "linear_backward", "matmul", "matmul_backward"],
        "this is what nested tensors do, so pad them: call to_padded_tensor() before",
    ),
    **dict.fromkeys(
        ["_embedding_bag", "_embedding_bag_forward_only"],
        "look up by torch.nn.Embedding, and add or average its rows",
    ),
}  # fmt: skip
"""Operations that hold products that would be float, and what to do instead."""

_MULTIPLYING = frozenset(["mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "vdot", "convolution", "_convolution"])


_OTHERS = frozenset(
    ["quantized", "_quantized", "mkldnn", "mkldnn_prepacked", "onednn", "prepacked", "sparse", "xnnpack"]
)
"""Namespaces whose operations multiply in their own way."""


_WORDS = frozenset(
    [
        "mm", "bmm", "addmm", "addbmm", "baddbmm", "mv", "addmv", "matmul", "linear", "convolution", "conv", "conv2d",
        "conv3d", "depthwise2d", "depthwise3d", "dilated2d", "dilated3d", "transpose2d", "transpose3d", "rnn", "lstm",
        "gru", "attention", "hspmm", "sspaddmm",
    ]
)  # fmt: skip
"""What a name is made of where the operation multiplies matrices."""

_NO_PRODUCT = ("upsample", "reorder", "flatten", "convert", "fused_sdp_choice")
"""Of which names have these words all the same."""


@lru_cache(maxsize=2048)
def _hides_product(name: str) -> bool:
    words = name.strip("_").split("_")
    return not _WORDS.isdisjoint(words) and not any(one in name for one in _NO_PRODUCT)


def refuse(func: Any) -> None:
    """Raise NotImplementedError where an operation holds products that no handler makes."""
    name = _name_of(func)
    base = name.rstrip("_")
    if name in _REFUSED:
        raise NotImplementedError(f"{func} multiplies in floating point within one operation: {_REFUSED[name]}")
    if base in _MULTIPLYING:
        raise NotImplementedError(
            f"a datapath has no {func}, which writes its product in place, or of another type: write out = {base}(...)"
        )
    if func.namespace == "aten" and _hides_product(name):
        raise NotImplementedError(f"{func} multiplies in floating point within one operation: {_WRITE}")
    if func.namespace in _OTHERS:
        raise NotImplementedError(
            f"{func} is of a library that multiplies in its own way, of 8 bits or packed: call the module as it was "
            "before"
        )


@lru_cache(maxsize=2048)
def _name_of(func: Any) -> str:
    return str(func._schema.name).split("::")[-1]


@lru_cache(maxsize=2048)
def _may_compute(func: Any) -> bool:
    if func.namespace != "aten":
        return True
    views = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
    return not views and _name_of(func) not in _MOVES


def computes(func: Any, arguments: Any, keywords: Any, out: Any) -> bool:
    """Whether an operation computed with floating-point numbers."""
    if not (_may_compute(func) or _adds(func, arguments, keywords)):
        return _name_of(func) in _OF_COMPLEX and arguments[0].is_complex()
    tensors = [x for x in tree_leaves((arguments, out)) if isinstance(x, torch.Tensor)]
    return any(x.is_floating_point() or x.is_complex() for x in tensors)
