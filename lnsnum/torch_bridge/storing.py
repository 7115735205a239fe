"""What a weight file is to hold of a model's tensor: its description, with the rule of its scale, and its elements."""

from __future__ import annotations

from typing import Any, cast

import torch
from numpy.typing import NDArray

from lnsnum.files.layout import DTYPES, Description
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.scale import RMS
from lnsnum.torch_bridge.weight import LNSWeight


def describe(name: str, tensor: torch.Tensor, *, packed: bool) -> Description:
    """What the file is to say of a tensor. Raises ValueError or TypeError where none can hold it."""
    if tensor.is_meta:
        raise ValueError(f"{name!r} of the model is on the meta device: it has no values to save")
    if isinstance(tensor, LNSWeight):
        fit = None if tensor.fit == RMS else tensor.fit._asdict()
        return Description.of_codes(tuple(tensor.shape), tensor.fmt, tensor.array_offsets(), packed=packed, fit=fit)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES.values():
        raise TypeError(f"tensor {name!r} is of {dtype}, which weight files cannot hold")
    return Description(tuple(tensor.shape), dtype)


def elements(tensor: torch.Tensor) -> NDArray[Any]:
    """What the file holds of a tensor, flat, on its own memory where that is contiguous and on the CPU."""
    if isinstance(tensor, LNSWeight):
        return bridge.as_numpy(tensor.codes.detach().cpu().contiguous(), tensor.fmt.dtype).reshape(-1)
    on_cpu = tensor.detach().resolve_neg().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return cast(NDArray[Any], bridge.as_numpy(on_cpu.view(torch.int16)).view(ml_dtypes.bfloat16).reshape(-1))
    array: NDArray[Any] = on_cpu.numpy() if tensor.dtype == torch.bool else bridge.as_numpy(on_cpu)
    return array.reshape(-1)
