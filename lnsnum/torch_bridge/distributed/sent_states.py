"""torch's set_model_state_dict(broadcast_from_rank0=True), which sends a state from the first process: refused on all.

    first process    asked for the floats of a weight, gives marks in their place, which torch sends
    every process    finds marks where a weight is to be loaded, and raises; on the meta device, where floats would take
                     the place of shards, whatever they are: a process may have no part of them

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
    """What the first process sends in the place of a weight of its state: marks, where the model has one there too."""
    own = caller.f_locals["local_state_dict"].get(caller.f_locals["key"])
    if not isinstance(getattr(own, "_local_tensor", own), type(weight)):
        return weight.to_float()  # type: ignore[no-any-return]
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


def check_not_in_place_of(weight: Any, floats: torch.Tensor, *, is_shard: bool) -> None:
    """Refuse floats that would take the place of a weight, not be written into it, as in a model on the meta device.

    Raises:
        NotImplementedError: for marks, and of a shard for any floats, with what to do instead.
    """
    if is_shard:
        raise NotImplementedError(
            f"floats cannot take the place of shards of LNS weights, here of one of shape {tuple(weight.shape)}, as "
            "load_state_dict(assign=True) would put them, and set_model_state_dict(broadcast_from_rank0=True) on the "
            "meta device: give the model memory by to_empty, and load the state on every process, or take "
            "torch.distributed.checkpoint"
        )
    check_not_sent(floats)


def _is_called(caller: FrameType | None, name: str) -> bool:
    return caller is not None and caller.f_code.co_name == name and caller.f_globals.get("__name__") == _STATES
