"""Inference from codes: products of a few rows with LNS weights that never become a matrix of floats.

    y  =  x W^T + b  or  x W + b        by `lnsnum.operations.weight_only`

A weight's bytes are read once, a quarter of what float32 has, and nothing of its size is written. The sums have an
order of their own, the same on any machine and any number of threads, but not that of BLAS: results differ in their
last bits from those of the decoded model, which a converted model otherwise gives bit for bit. So this is no default:
ask for it in a whole model by `use_weight_only`, or call `weight_only_linear`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from lnsnum.torch_bridge import products
from lnsnum.torch_bridge.kernels import backends
from lnsnum.torch_bridge.products import APPEARANCES
from lnsnum.torch_bridge.surroundings import check_module
from lnsnum.torch_bridge.tables import Table, Tabular
from lnsnum.torch_bridge.weight import LNSWeight


def weight_only_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + b, as `torch.nn.functional.linear`, with W read as codes.

    Without its floats W is used where it is an LNSWeight on the CPU or a graphics card (`kernels.backends`) that
    appears as float32, bfloat16 or float16, x is of that type and has up to 8 rows (`products.MOST_VECTORS`; 16 on
    a card), and nothing is to be differentiated, traced, autocast or mapped. Everything else is left to
    `torch.nn.functional.linear`: gradients are right, and for many rows that is faster.

    Args:
        x: (..., K).
        weight: (N, K), with one log_offset or one for each row or element.
        bias: (N,), added after the sum; plain or LNS.

    Errors: those of `lnsnum.operations.weight_only.weight_only_matmul`, for W's numbers as they appear, and the
    roundings of the sum with b, and of that to the type.

    >>> weight = LNSWeight.from_float(torch.tensor([[1.0, -0.5], [2.0, 0.5]]), "lns8f5")
    >>> weight_only_linear(torch.tensor([3.0, 2.0]), weight, torch.tensor([0.0, 1.0]))
    tensor([2., 8.])
    """
    product = products.linear(x, weight, bias) if isinstance(weight, LNSWeight) and _is_plain_call() else None
    return F.linear(x, weight, bias) if product is None else product


def _is_plain_call() -> bool:
    """Whether no transformation of torch's is at work, which would have to see the operation."""
    return (
        not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))
        and forward_ad._current_level < 0
        and torch._C._functorch.maybe_current_level() is None
    )


@dataclass(frozen=True)
class WeightOnlyReport(Tabular):
    """What `use_weight_only` did: the names of the parameters whose products are made of codes from now on, and of all
    others, with the reason.
    """

    covered: tuple[str, ...]
    left: dict[str, str]

    def __len__(self) -> int:
        """How many parameters are covered."""
        return len(self.covered)

    def to_table(self) -> Table:
        """A row for each parameter."""
        covered = [(name, "products of codes") for name in self.covered]
        return Table((), covered + [(name, f"left: {why}") for name, why in self.left.items()], texts=2)


def use_weight_only(model: nn.Module, on: bool = True) -> WeightOnlyReport:
    """Let products of a few rows with a model's LNS weights be made of their codes, or (on=False) none; in place.

    This is asked of the weights (`LNSWeight.weight_only`), not of the modules: it serves whatever multiplies rows by
    one of them or a part of it: `torch.nn.Linear`, Hugging Face's Conv1D, a head that is tied to an embedding, an
    expert of a stack; in float32, bfloat16 and float16, under autocast, no_grad and inference_mode. Up to 8 rows
    (`products.MOST_VECTORS`) are taken so; more, and all that is to be differentiated or compiled, as always.
    Parameters, names and hooks stay as they are; copies and pickles of the model have what it has, its state_dict knows
    nothing of it.

    Returns:
        Which parameters are covered, and why the others are not.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    >>> report = convert_model(model, "lns8f5")
    >>> print(use_weight_only(model))
    1.weight  products of codes
    0.weight  left: looked up, not multiplied
    1.bias    left: no matrix
    2.weight  left: no matrix
    2.bias    left: no matrix
    """
    check_module(model)
    users: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=isinstance(module, _FUSED)):
            users.setdefault(id(parameter), []).append(module)
    covered, left = [], {}
    for name, parameter in model.named_parameters():
        why = _why_not(parameter, users[id(parameter)]) if on else "turned off"
        if isinstance(parameter, LNSWeight):
            parameter.weight_only = why is None
        if why is None:
            covered.append(name)
        else:
            left[name] = why
    return WeightOnlyReport(tuple(covered), left)


_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""What torch runs as one operation for inference, with all of the weights within."""

_TAKING_ALL: tuple[tuple[tuple[type, ...], str], ...] = (
    (_FUSED, "torch's fused attention takes all weights in one operation"),
    ((nn.RNNBase, nn.RNNCellBase), "torch's recurrent layers take all weights in one operation"),
    ((_ConvNd,), "a convolution"),
    ((nn.Bilinear,), "multiplied from both sides"),
)
"""Modules that do not multiply rows by one of their weights, whatever its shape."""


def _why_not(parameter: nn.Parameter, users: list[nn.Module]) -> str | None:
    """Why products with a parameter of these modules cannot be made of codes; None where they can."""
    if not isinstance(parameter, LNSWeight):
        return "float"
    for kinds, why in _TAKING_ALL:
        if any(isinstance(user, kinds) for user in users):
            return why
    if all(isinstance(user, (nn.Embedding, nn.EmbeddingBag)) for user in users):
        return "looked up, not multiplied"
    codes = parameter.codes
    if codes.ndim not in (2, 3):
        return "no matrix"
    if parameter.dtype not in APPEARANCES:
        return f"it appears as {parameter.dtype}: float32, bfloat16 and float16 are multiplied so"
    if codes.device.type != "cpu" and (missing := backends.missing_on(codes.device)) is not None:
        return f"on {codes.device}: {missing}"
    if not (codes.is_contiguous() or codes.mT.is_contiguous()):
        return "its codes are neither in the order of rows nor in that of columns: take parameter.data.contiguous()"
    return None
