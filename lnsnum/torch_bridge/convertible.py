"""Which parameters may become codes: those of finite real numbers, in memory that nothing else looks at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES
from lnsnum.torch_bridge.surroundings import is_spread
from lnsnum.torch_bridge.weight import LNSWeight

_PART = 1 << 20


def check_convertible(name: str, parameter: nn.Parameter) -> None:
    """Refuse what is a weight already, a shard, no real numbers, or not all finite."""
    if isinstance(parameter, LNSWeight):
        raise ValueError(f"parameter {name!r} is an LNSWeight already: decode_model first to choose another format")
    if is_spread(parameter):
        raise TypeError(
            f"parameter {name!r} is a {type(parameter).__name__}, of which other processes hold parts: convert first, "
            "or leave it out with filter_fn"
        )
    if parameter.dtype not in FLOAT_NAMES:
        raise TypeError(
            f"parameter {name!r} is of {parameter.dtype}: LNS holds real floating-point numbers; "
            "leave it out with filter_fn"
        )
    if parameter.device.type == "meta":
        raise ValueError(f"parameter {name!r} is on the meta device: it has no values to convert")
    # in parts: torch makes three tensors on the way, one of them of floats
    bad = sum(int((~torch.isfinite(part)).sum()) for part in parameter.detach().reshape(-1).split(_PART))
    if bad:
        raise ValueError(f"parameter {name!r} has {bad} values that are NaN or infinite")


def check_memory(model: nn.Module, chosen: Iterable[str]) -> None:
    """Refuse parameters that share memory with something else, which would not see their codes."""
    tenants: dict[int, dict[str, torch.Tensor]] = {}
    named = dict(model.named_parameters())
    for name, tensor in (*named.items(), *model.named_buffers()):
        if (
            tensor.numel()
            and tensor.layout == torch.strided
            and not tensor.is_meta
            and not isinstance(tensor, LNSWeight)
        ):
            tenants.setdefault(tensor.untyped_storage().data_ptr(), {})[name] = tensor
    for name in chosen:
        parameter = named[name]
        if not parameter.numel():
            continue
        others = {n: t for n, t in tenants[parameter.untyped_storage().data_ptr()].items() if n != name}
        storage = parameter.untyped_storage().nbytes()
        begin, end = _bytes_of(parameter)
        sharing = [n for n, t in others.items() if _bytes_of(t)[0] < end and begin < _bytes_of(t)[1]]
        if _overlaps_itself(parameter):
            what = f"{'is expanded' if 0 in parameter.stride() else 'overlaps itself'}, several elements in one place"
        elif sharing:
            what = f"shares memory with {sharing[0]!r}"
        elif not others and storage > parameter.nbytes:
            what = f"is a view: {parameter.nbytes} of the {storage} bytes of another tensor"
        else:
            continue
        raise ValueError(
            f"parameter {name!r} {what}; what else looks at that memory would not see its codes: "
            "give it memory of its own, nn.Parameter(p.detach().clone())"
        )


def _bytes_of(tensor: torch.Tensor) -> tuple[Any, Any]:
    """The first byte of the storage that a tensor looks at, and the one behind the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.storage_offset() * tensor.itemsize
    return begin, begin + (last + 1) * tensor.itemsize


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += (size - 1) * stride
    return False
