"""torch's set_model_state_dict(broadcast_from_rank0=True), which sends a state from the first process: refused on all.

    first process    asked for the floats of a weight, gives marks in their place, which torch sends
    every process    finds marks where a weight is to be loaded, and raises

Only the first process has the weights when the sending begins: if it refused alone, the others would wait for it. And
floats would arrive at other scales, in other codes. A model of floats gets the floats, as from any state.
"""

from __future__ import annotations

from types import FrameType
from typing import Any

import torch

_STATES = "torch.distributed._state_dict_utils"

_MARK = 0x7FCC
"""Two bytes that are NaN as they are, and repeated in a float of four or eight."""

_REFUSED = (
    "set_model_state_dict(broadcast_from_rank0=True) would send floats of LNS weights: give the state on every process "
    "and leave it out, or load it on the first before DistributedDataParallel is made, which sends codes; for "
    "fully_shard load it on every process before, or take torch.distributed.checkpoint"
)


def asks_for_floats(caller: FrameType | None) -> bool:
    """Whether it is torch's sending of a state that called for an alias of a weight."""
    return _is_called(caller, "_broadcast_tensors")


def floats_to_send(weight: Any, caller: FrameType) -> torch.Tensor:
    """What the first process sends in the place of a weight of its state: marks, where the model has one there too.

    Raises:
        NotImplementedError: for a model on the meta device, which would take whatever arrives.
    """
    own = caller.f_locals["local_state_dict"].get(caller.f_locals["key"])
    if not isinstance(getattr(own, "_local_tensor", own), type(weight)):
        return weight.to_float()  # type: ignore[no-any-return]
    if own.is_meta:
        raise NotImplementedError(_REFUSED)
    sent = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    sent.view(torch.int16).fill_(_MARK)
    return sent


def puts_in_shards(caller: FrameType | None) -> bool:
    """Whether it is torch's sending of a state that writes what has arrived into a shard."""
    return _is_called(caller, "_distribute_tensors")


def check_not_sent(floats: torch.Tensor) -> None:
    """Refuse floats that are to be written into a weight, where they are marks.

    Raises:
        NotImplementedError: with what to do instead.
    """
    # the whole memory: a process may have no part of the weight, and has to raise with the others
    memory = floats.untyped_storage()
    if floats.dtype.itemsize > 1 and floats.device.type != "meta" and memory.nbytes() > 1:
        first = torch.empty(0, dtype=torch.int16, device=floats.device).set_(memory)[0]
        if int(first) == _MARK:
            raise NotImplementedError(_REFUSED)


def _is_called(caller: FrameType | None, name: str) -> bool:
    return caller is not None and caller.f_code.co_name == name and caller.f_globals.get("__name__") == _STATES
