"""The scales of a model beside its codes: what a checkpoint of shards needs before codes are put into them.

    saved        codes of each shard, with the log_offsets at which they are; log_offsets of the whole, once
    loaded       log_offsets first, on every process, so that codes arrive at those that they were saved at

A shard takes codes at its own scale alone, since a process with no elements of a weight would not learn of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lnsnum.torch_bridge.distributed.dtensors import shard_of, weight_of
from lnsnum.torch_bridge.kernels.scale import Scale, check_offset
from lnsnum.torch_bridge.surroundings import check_module
from lnsnum.torch_bridge.weight import LNSWeight


def log_offsets(model: nn.Module) -> dict[str, torch.Tensor]:
    """The log_offsets of each LNS weight of a model by its name: int32, copied, and of a shard those of the whole.

    Raises:
        TypeError: where model is no module.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = nn.Linear(2, 3)
    >>> report = convert_model(model, "lns8f5", per_channel=True)
    >>> {name: tuple(offsets.shape) for name, offsets in log_offsets(model).items()}
    {'weight': (3, 1), 'bias': ()}
    """
    check_module(model)
    found = {}
    for name, p in model.named_parameters():
        weight = weight_of(p)
        if weight is not None:
            offsets = weight._span.whole if weight._span.whole is not None else weight.log_offset
            found[name] = torch.as_tensor(offsets, dtype=torch.int32).detach().clone()
    return found


def set_log_offsets(model: nn.Module, offsets: Mapping[str, torch.Tensor]) -> None:
    """Give each LNS weight of a model other log_offsets, on every process the same: `log_offsets` of the model whose
    codes will be loaded next. Until then codes stand for other numbers.

    Raises:
        TypeError: where model is no module, or offsets are no mapping of tensors.
        ValueError: where names, or the shapes of log_offsets, are not those of the model; nothing is changed then.
    """
    before = log_offsets(model)
    if not isinstance(offsets, Mapping):
        raise TypeError(f"offsets is a {type(offsets).__name__}: give what log_offsets(model) returns")
    for name, each in offsets.items():
        if not isinstance(each, torch.Tensor):
            raise TypeError(f"the log_offset of {name!r} is a {type(each).__name__}: give an int32 tensor")
    weights: dict[str, Any] = {n: p for n, p in model.named_parameters() if weight_of(p) is not None}
    if weights.keys() != offsets.keys():
        name = min(weights.keys() ^ offsets.keys())
        raise ValueError(f"{name!r} is an LNS weight of one of model and log_offsets alone: give those of this model")
    scales = {}
    for name, own in before.items():
        if offsets[name].shape != own.shape:
            raise ValueError(
                f"{name!r} has log_offsets of shape {tuple(own.shape)}, not {tuple(offsets[name].shape)}: convert the "
                "model as the one that was saved"
            )
        weight = weight_of(weights[name])
        assert weight is not None
        # those of groups do not broadcast; past `scale`, which refuses what a shard without elements has
        scales[name] = check_offset(offsets[name], weights[name].shape, *weight._groups)
    for name, p in weights.items():
        if isinstance(p, LNSWeight):
            p.set_scale(scales[name])
        else:
            _set(p, scales[name])


def _set(p: Any, scale: Scale) -> None:
    shard = shard_of(p)
    weight = shard.weight
    if scale.offsets is not None:
        assert weight._span.whole is not None
        weight._span.whole.copy_(scale.offsets)
        if weight.numel() and weight._offsets is not None:
            weight._offsets.copy_(scale.offsets[shard.scales])
    weight._span.set(scale.low, scale.high)
