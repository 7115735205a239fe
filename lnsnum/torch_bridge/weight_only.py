"""Linear layers on LNS weights that never become a matrix of floats: for inference, where one asks for it.

    y  =  x W^T + b        by `lnsnum.operations.weight_only`: a row of codes at a time becomes floats, in a cache

A weight's bytes are read once, a quarter of what float32 has, and nothing of its size is written. The sums have an
order of their own, the same on any machine and any number of threads, but not that of BLAS: results differ in their
last bits from those of the decoded model, which a converted model otherwise gives bit for bit. So this is no default:
call `weight_only_linear`, or ask for it in a whole model by `use_weight_only`.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from lnsnum.operations import weight_only
from lnsnum.torch_bridge.kernels.codes import as_numpy, is_on_cpu
from lnsnum.torch_bridge.kernels.threads import torch_team
from lnsnum.torch_bridge.weight import LNSWeight

MOST_VECTORS = 32
"""So many rows of x at most: at 4096 x 4096, lns8f5, decoding and BLAS catch up between 32 and 64 rows."""


def weight_only_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + b, as `torch.nn.functional.linear`, with W read as codes.

    Without its floats W is used where it is an LNSWeight that appears as float32, x is float32 on the CPU and has up
    to 32 rows (`MOST_VECTORS`), and nothing is to be differentiated, traced, autocast or mapped. Everything else is
    left to `torch.nn.functional.linear`, which decodes W first: gradients are right, and for many rows that is faster.

    Args:
        x: (..., K).
        weight: (N, K), with one log_offset or one for each row or element.
        bias: (N,), added after the sum; float32, plain or LNS.

    Errors: those of `lnsnum.operations.weight_only.weight_only_matmul`, and the rounding of the sum with b.

    >>> weight = LNSWeight.from_float(torch.tensor([[1.0, -0.5], [2.0, 0.5]]), "lns8f5")
    >>> weight_only_linear(torch.tensor([3.0, 2.0]), weight, torch.tensor([0.0, 1.0]))
    tensor([2., 8.])
    """
    if not (isinstance(weight, LNSWeight) and _is_for_kernels(x, weight, bias)):
        return F.linear(x, weight, bias)
    offset = weight.log_offset
    product = weight_only.multiply(
        as_numpy(x.detach().resolve_neg().contiguous()),
        as_numpy(weight.codes.detach().contiguous(), weight.fmt.dtype),
        weight.fmt,
        offset if isinstance(offset, int) else as_numpy(offset.contiguous()),
        threads=torch_team(),
    )
    out = torch.from_numpy(product)
    return out if bias is None else out.add_(bias)


def _is_for_kernels(x: torch.Tensor, weight: LNSWeight, bias: torch.Tensor | None) -> bool:
    """Whether the kernels can take these: of the right kind, not too many, and no transformation of torch's at work."""
    tensors = [x, weight] if bias is None else [x, weight, bias]
    return (
        all(is_on_cpu(t.codes if isinstance(t, LNSWeight) else t.detach()) for t in tensors)
        and all(tensor.dtype == torch.float32 for tensor in tensors)
        and weight.ndim == 2
        and x.ndim >= 1
        and x.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and x.numel() <= MOST_VECTORS * x.shape[-1]
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        and not torch.is_autocast_enabled("cpu")
        and forward_ad._current_level < 0
        and torch._C._functorch.maybe_current_level() is None
    )


class WeightOnlyLinear(torch.nn.Linear):
    """`torch.nn.Linear` by `weight_only_linear`: what `use_weight_only` makes of a layer."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: D102  (as of every module)
        return weight_only_linear(input, self.weight, self.bias)


def use_weight_only(model: torch.nn.Module, on: bool = True) -> int:
    """Let all linear layers of a model with LNS weights take `weight_only_linear`, or (on=False) none; in place.

    It changes the class of layers that are exactly `torch.nn.Linear` to `WeightOnlyLinear`, and back. Parameters, names
    and hooks stay as they are; copies and pickles of the model have what it has, its state_dict knows nothing of it.
    `decode_model` leaves the class as it is: turn it off before.

    Returns:
        How many layers were changed.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> report = convert_model(model, "lns8f5")
    >>> use_weight_only(model)
    2
    """
    old, new = (torch.nn.Linear, WeightOnlyLinear) if on else (WeightOnlyLinear, torch.nn.Linear)
    layers = [layer for layer in model.modules() if type(layer) is old]
    if on:
        layers = [layer for layer in layers if isinstance(layer.weight, LNSWeight)]
    for layer in layers:
        layer.__class__ = new
    return len(layers)
