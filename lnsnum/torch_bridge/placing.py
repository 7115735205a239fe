"""LNS weights in modules: putting them there, and what `load_state_dict` may bring for them later.

A state of floats is encoded before torch copies it into the codes, which would round it stochastically.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import NoneType
from typing import Any

import torch
from torch import nn

from lnsnum.torch_bridge.distributed.dtensors import local_of, weight_of
from lnsnum.torch_bridge.distributed.sent_states import check_not_in_place_of, check_not_sent
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES
from lnsnum.torch_bridge.kernels.fitting import choose_scale
from lnsnum.torch_bridge.showing import show_formats, stop_showing_formats
from lnsnum.torch_bridge.surroundings import level_of_the_caller
from lnsnum.torch_bridge.weight import LNSWeight


def replace_parameters(model: nn.Module, replacements: Mapping[int, nn.Parameter]) -> None:
    """Put a new parameter wherever one with the given id() stands; tied parameters stay tied.

    By `setattr`, not into `_parameters`: recurrent modules keep a list of their weights, which only that updates. A
    module that gets codes is settled.
    """
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) in replacements:
                setattr(module, name, replacements[id(parameter)])
                if isinstance(replacements[id(parameter)], LNSWeight):
                    settle(module)
                else:
                    unsettle(module)


def settle(module: nn.Module) -> None:
    """Let a module that has got LNS weights call `encode_state` first in `load_state_dict`, tell of their formats in
    its text, and let torch.jit.script refuse it."""
    vars(module)["__prepare_scriptable__"] = refuse_scripting
    show_formats(module)
    hooks = module._load_state_dict_pre_hooks.values()
    if not any(getattr(hook, "hook", hook) is encode_state for hook in hooks):
        module.register_load_state_dict_pre_hook(encode_state)


def unsettle(module: nn.Module) -> None:
    """Let a module be as it was before it got LNS weights; what would encode floats finds none to encode them for."""
    vars(module).pop("__prepare_scriptable__", None)
    stop_showing_formats(module)


def refuse_scripting() -> nn.Module:
    """What torch.jit.script asks a module for before it compiles it."""
    raise NotImplementedError(
        "torch.jit.script cannot compile a module with LNS weights, which it could not save: take torch.compile, or "
        "script decode_model(copy.deepcopy(model))"
    )


def encode_state(
    module: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: Mapping[str, Any],
    *rest: Any,
) -> None:
    """Before a state is loaded: floats for a module's own LNS weights become codes of their format, rounded to nearest;
    codes of another format likewise.

    At the scale that the weight has if that holds the floats exactly (they are those of an LNS model, decoded), or else
    at that which fits them by the rule of the weight's conversion.

    With assign=True the floats themselves take the weights' place, and a warning says so.
    """
    if local_metadata.get("assign_to_params_buffers", False):
        _warn_of_floats(module, state_dict, prefix)
        return
    for name, parameter in module._parameters.items():
        weight: Any = parameter
        floats: Any = state_dict.get(prefix + name)
        if not isinstance(weight, LNSWeight) or not isinstance(floats, torch.Tensor):
            continue
        if isinstance(floats, LNSWeight):
            if floats.fmt == weight.fmt or floats.is_meta:
                continue  # its codes will be taken as they are
            floats = floats.to_float()
        if floats.shape != weight.shape or floats.dtype not in FLOAT_NAMES or floats.device.type == "meta":
            continue  # load_state_dict itself has the word for it
        check_not_sent(floats)
        state_dict[prefix + name] = _encode_loaded(floats.detach(), weight)


def _warn_of_floats(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    for name, p in module._parameters.items():
        if p is None:
            continue
        weight, value = weight_of(p), state_dict.get(prefix + name)
        if weight is not None and isinstance(value, torch.Tensor) and weight_of(value) is None:
            check_not_in_place_of(p, value, is_shard=local_of(p) is not None)
    weights = [prefix + name for name, p in module._parameters.items() if isinstance(p, LNSWeight)]
    floats = [name for name in weights if not isinstance(state_dict.get(name), (LNSWeight, NoneType))]
    if len(floats) == len(weights):
        unsettle(module)
    if floats:
        warnings.warn(
            f"load_state_dict(assign=True) puts plain floats in the place of the LNS weight {floats[0]!r}"
            f"{f' and {len(floats) - 1} more' if floats[1:] else ''}: without assign they would be encoded, and "
            "convert_model makes codes of them",
            stacklevel=level_of_the_caller(),
        )


def _encode_loaded(floats: torch.Tensor, weight: LNSWeight) -> LNSWeight:
    log_offset = choose_scale(floats, weight.fmt, weight.fit, own=weight.scale)
    if weight.group_size is None or isinstance(log_offset, int):
        return LNSWeight.from_float(floats, weight.fmt, log_offset=log_offset, underflow="saturate")
    # encoded along the last dimension, wherever the weight's groups lie
    last, offsets = (x.movedim(weight.scale.axis, -1) for x in (floats, log_offset))
    options: Any = {"group_size": weight.group_size, "underflow": "saturate"}
    loaded: Any = LNSWeight.from_float(last, weight.fmt, log_offset=offsets, **options)
    return loaded.movedim(-1, weight.scale.axis)  # type: ignore[no-any-return]
