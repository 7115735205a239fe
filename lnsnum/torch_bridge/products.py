"""Products of a few rows with weights that stay codes, in the place of torch's: for weights that ask for it.

    mm, addmm, mv, addmv, bmm, linear, matmul        by `lnsnum.operations.weight_only`

Whatever module multiplies by a weight arrives at one of these operations with the weight or a view of it: a linear
layer, a head that is tied to an embedding, an expert of a stack. Sums are made by rows where the numbers of a sum lie
side by side in memory, as in x W^T of `torch.nn.Linear`, else by columns, as in x W of Hugging Face's Conv1D.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch.utils._pytree import tree_leaves

from lnsnum.operations import weight_only
from lnsnum.operations.weight_only import Appearance
from lnsnum.torch_bridge.kernels import backends
from lnsnum.torch_bridge.kernels.codes import as_numpy, is_on_cpu, offsets_of
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES
from lnsnum.torch_bridge.kernels.scale import Scale
from lnsnum.torch_bridge.kernels.threads import torch_team

aten = torch.ops.aten

Weight = Any
"""An LNSWeight."""

MOST_VECTORS = 8
"""So many rows of x at most, for each two of which codes are looked up anew: decoding and BLAS catch up at 4 to 6 rows
where the floats stay in a cache (768 x 2048, lns8f5), at more than 24 where they do not (4096 x 4096)."""

MOST_VECTORS_ON_CARDS = 16
"""The same on graphics cards, where each row of x has its own sums in registers."""

APPEARANCES = torch.float32, torch.bfloat16, torch.float16


class Matrix(NamedTuple):
    """W (K, N) of a weight or a part of it, as x W takes it."""

    codes: torch.Tensor
    scale: Scale

    @classmethod
    def of(cls, weight: Weight) -> Matrix:
        """All of a weight with two dimensions."""
        return cls(weight.codes, weight.scale)

    @property
    def mT(self) -> Matrix:  # noqa: N802  (torch's name)
        """W^T."""
        return Matrix(self.codes.t(), self.scale.mT)


def multiply(
    x: torch.Tensor, weight: Weight, matrix: Matrix, bias: torch.Tensor | Weight | None = None
) -> torch.Tensor | None:
    """x W + b for x (..., K) and b (N,), of the type that the weight appears as, to which the sum is rounded once,
    after b was added. None where this is torch's work: for many rows, other types or devices, what is to be
    differentiated or traced.
    """
    codes, own = matrix
    if x.dtype != weight.dtype or x.dtype not in APPEARANCES or codes.ndim != 2 or x.ndim == 0:
        return None
    inner, outer = codes.shape
    most = MOST_VECTORS if codes.is_cpu else MOST_VECTORS_ON_CARDS
    if x.shape[-1] != inner or x.numel() > most * inner:
        return None
    if bias is not None and (bias.dtype != x.dtype or bias.shape != (outer,)):
        return None
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return None
    x = x if type(x) is torch.Tensor else x.detach()
    on_card = backends.is_on_card(codes) and x.device == codes.device
    if not on_card and not (is_on_cpu(codes) and is_on_cpu(x)):
        return None
    by_rows = codes.t().is_contiguous()
    if not by_rows and (not codes.is_contiguous() or (own.offsets is not None and own.offsets.shape[1] > 1)):
        return None
    if by_rows:
        codes, own = matrix.mT
    x = x.detach().resolve_neg().contiguous()
    if on_card:
        from lnsnum.torch_bridge.kernels import products_triton  # here, as triton is there for cards alone

        on_its_card = products_triton.multiply(x, codes, weight.fmt, own, x.dtype, transposed=not by_rows)
        return None if on_its_card is None else _with_bias(on_its_card, bias, weight).to(x.dtype)
    scale: Any = own.low if own.offsets is None else offsets_of(own)
    appearance, dtype = cast(Appearance, FLOAT_NAMES[x.dtype]), x.dtype
    x = x.to(torch.float32)
    planes = weight_only.planes_for(weight.fmt, scale, len(codes), appearance)
    if planes is None:
        words, numbers = as_numpy(codes, weight.fmt.dtype), as_numpy(x)
        rest: Any = {"appearance": appearance, "transposed": not by_rows, "threads": torch_team()}
        product = torch.from_numpy(weight_only.multiply(numbers, words, weight.fmt, scale, **rest))
    else:
        # by addresses: arrays take as long to make as a small product
        product = torch.empty((*x.shape[:-1], outer), dtype=torch.float32)
        shape = math.prod(x.shape[:-1]), outer, inner  # by the shape: x may have no elements, and sums of nothing are 0
        places = codes.data_ptr(), x.data_ptr(), product.data_ptr()
        weight_only.multiply_at(*places, shape, planes, transposed=not by_rows, threads=torch_team())
    return _with_bias(product, bias, weight).to(dtype)


def _with_bias(product: torch.Tensor, bias: torch.Tensor | Weight | None, weight: Weight) -> torch.Tensor:
    if bias is not None:
        product.add_(bias.to_float() if isinstance(bias, type(weight)) else bias.detach())
    return product


def linear(x: Any, weight: Weight, bias: Any = None) -> torch.Tensor | None:
    """x W^T + b for W (N, K)."""
    return multiply(x, weight, Matrix.of(weight).mT, bias) if weight.ndim == 2 else None


def _linear(x: Any, weight: Any, bias: Any = None) -> torch.Tensor | None:
    return linear(x, weight, bias) if _asks(weight) else None


def _mm(x: Any, y: Any) -> torch.Tensor | None:
    """Of two matrices, or of one and a vector."""
    if _asks(y):
        return multiply(x, y, Matrix.of(y)) if y.ndim == 2 else None
    # W y  =  (y^T W^T)^T
    product = multiply(y.t(), x, Matrix.of(x).mT) if _asks(x) and x.ndim == 2 and y.ndim <= 2 else None
    return None if product is None else product.t().contiguous()


def _addmm(bias: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> torch.Tensor | None:
    return multiply(x, y, Matrix.of(y), bias) if _asks(y) and beta == 1 and alpha == 1 else None


def _addmv(bias: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> torch.Tensor | None:
    return multiply(y, x, Matrix.of(x).mT, bias) if _asks(x) and beta == 1 and alpha == 1 else None


def _bmm(x: Any, stack: Any) -> torch.Tensor | None:
    """Of two stacks of matrices, the second one of codes."""
    if not _asks(stack) or len(x) != len(stack):
        return None
    scale = stack.scale
    # groups across the stack: a scale is that of several matrices, not of a part of one
    if scale.group_size and scale.axis == -stack.ndim:
        return None
    if scale.offsets is None:
        each = [scale] * len(stack)
    else:
        each = [scale._replace(offsets=own) for own in scale.offsets.expand(len(stack), *scale.offsets.shape[1:])]
    products = []
    for rows, codes, own in zip(x, stack.codes, each, strict=True):
        product = multiply(rows, stack, Matrix(codes, own))
        if product is None:
            return None
        products.append(product)
    return torch.stack(products) if products else None


def _decomposed(func: Any, *args: Any, **kwargs: Any) -> Any:
    """What autograd makes of an operation that is made up of others, and inference_mode does not ask it."""
    found = None
    if any(map(_asks, tree_leaves((args, kwargs)))):
        found = func.decompose(*args, **kwargs)
    return None if found is NotImplemented else found


def product_of(func: Any) -> Callable[..., Any] | None:
    """What is tried before the weights among an operation's arguments are decoded; None, where it finds that this is to
    be done.
    """
    is_made_up = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return _PRODUCTS.get(func) or (partial(_decomposed, func) if is_made_up else None)


def _asks(weight: Any) -> bool:
    """Whether a tensor is a weight whose products are to be made of its codes."""
    span = getattr(weight, "_span", None)
    return span is not None and span.weight_only


_PRODUCTS: dict[Any, Callable[..., torch.Tensor | None]] = {
    aten.mm.default: _mm,
    aten.mv.default: _mm,
    aten.matmul.default: _mm,
    aten.addmm.default: _addmm,
    aten.addmv.default: _addmv,
    aten.bmm.default: _bmm,
    aten.linear.default: _linear,
}
