"""The broadcast by which DistributedDataParallel begins, and ends where processes join: of codes, not floats.

    for name, param in module.named_parameters():
        module_states.append(param.detach())                    torch.distributed.utils._sync_module_states

torch asks each parameter for an alias, and writes the numbers of one process over it on all the others. An LNS weight
gives it the memory of its codes, which arrive bit for bit, a quarter of the bytes; that process's scale it takes first.
"""

from __future__ import annotations

from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.utils import _sync_module_states

from lnsnum.torch_bridge.kernels.scale import Scale

_ASKING = _sync_module_states.__code__


def asks_for_bytes(caller: FrameType | None) -> bool:
    """Whether it is that function which called for an alias."""
    return caller is not None and caller.f_code is _ASKING


def bytes_to_broadcast(weight: Any, caller: FrameType) -> torch.Tensor:
    """The codes of an LNSWeight as a type that every backend sends. The scale is exchanged here: a small collective."""
    group, source = caller.f_locals["process_group"], caller.f_locals["src"]
    own = weight.scale
    offsets = torch.tensor([own.low], dtype=torch.int32, device=weight.device) if own.offsets is None else own.offsets
    sent = offsets.contiguous().clone()
    dist.broadcast(sent, group=group, group_src=source)
    if not torch.equal(sent, offsets):
        low, high = (int(extreme) for extreme in sent.aminmax())
        weight.set_scale(Scale(low, high, None if own.offsets is None else sent))
    return as_sent(weight.codes.detach())


def as_sent(codes: torch.Tensor) -> torch.Tensor:
    """Codes in the guise of a type that is sent as it is; int16, which gloo does not take, as float16.

    >>> as_sent(torch.tensor([1, -1], dtype=torch.int16)).view(torch.int16)
    tensor([ 1, -1], dtype=torch.int16)
    """
    return codes if codes.dtype == torch.uint8 else codes.view(torch.float16)
