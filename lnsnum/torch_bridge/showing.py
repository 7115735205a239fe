"""What `print(model)` says of LNS weights: their format, and which elements share a scale.

    Linear(in_features=64, out_features=32, bias=True, weight=lns8f5 per channel, bias=lns8f5)

A module prints what its `extra_repr` returns, which a module that gets LNS weights has as a method of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.distributed.dtensors import weight_of
from lnsnum.torch_bridge.kernels.scale import LogOffset


def kind_of_codes(fmt: LNSFormat, log_offset: LogOffset, group_size: int | None) -> str:
    """A format, and what has a scale of its own: nothing is said of one scale for all."""
    if group_size:
        return f"{fmt.name} in groups of {group_size}"
    if not isinstance(log_offset, torch.Tensor) or log_offset.numel() == 1:
        return fmt.name
    shape = tuple(log_offset.shape)
    if shape[0] == log_offset.numel():
        return f"{fmt.name} per channel"
    return f"{fmt.name} with scales of shape {shape}"


def kind_of(p: torch.Tensor) -> str:
    """What a parameter is made of; "floats" of one that is no LNS weight, nor a shard of one."""
    weight = weight_of(p)
    if weight is None:
        return "floats"
    scale = weight.scale  # whose offsets may be on the meta device, where one is no integer
    return kind_of_codes(weight.fmt, scale.low if scale.offsets is None else scale.offsets, weight.group_size)


class OwnMethod:
    """A method that one object has, and its class has not.

    It holds the object weakly: a cycle would keep a model in memory until Python looks for cycles. Copied or pickled
    with the object, it is the copy's.
    """

    def __init__(self, owner: Any, function: Callable[..., Any]) -> None:
        self._owner, self._function = weakref.ref(owner), function

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function; of a shallow copy, with the object that it was copied from, or None once that is gone."""
        return self._function(self._owner(), *arguments, **options)

    def __reduce__(self) -> Any:
        return OwnMethod, (self._owner(), self._function)


def show_formats(module: nn.Module) -> None:
    """Let a module's text tell of its LNS weights, as long as it has any. One with a text of its own keeps that."""
    vars(module).setdefault("extra_repr", OwnMethod(module, _with_formats))


def stop_showing_formats(module: nn.Module) -> None:
    """Take `show_formats` back."""
    if isinstance(vars(module).get("extra_repr"), OwnMethod):
        del vars(module)["extra_repr"]


def _with_formats(module: nn.Module | None) -> str:
    if module is None:
        return ""
    text = type(module).extra_repr(module)
    kinds = {name: kind_of(p) for name, p in module._parameters.items() if p is not None and weight_of(p) is not None}
    if len(kinds) > _FEW and len(set(kinds.values())) == 1:
        kinds = {"parameters": next(iter(kinds.values()))}
    told = ", ".join(f"{name}={kind}" for name, kind in kinds.items())
    return ("\n" if "\n" in text else ", ").join(filter(None, (text, told)))


_FEW = 2
"""Parameters that are told one by one: a recurrent layer has eight and more."""
