"""A checkpoint that is loaded into a model of codes: put together, and refused unless it is whole.

transformers' Trainer resumes by `load_state_dict(state, strict=False)`, and only warns of what is missing: training
would go on with other weights. A hook of the model's looks at the state before it is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lnsnum.huggingface.parts import PARTS, put_together
from lnsnum.torch_bridge.showing import kind_of
from lnsnum.torch_bridge.weight import LNSWeight


def guard_loading(model: nn.Module) -> None:
    """Let the model's `load_state_dict` take the parts of weights, and refuse states that are not whole."""
    if before_loading not in [getattr(hook, "hook", hook) for hook in model._load_state_dict_pre_hooks.values()]:
        model.register_load_state_dict_pre_hook(before_loading)


def stop_guarding(model: nn.Module) -> None:
    """Take the hook of `guard_loading` back."""
    hooks = model._load_state_dict_pre_hooks
    for key in [key for key, hook in hooks.items() if getattr(hook, "hook", hook) is before_loading]:
        del hooks[key]


def before_loading(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Put weights together from their parts in the state, in place.

    A state of floats alone is encoded, as by any module; one of codes is loaded as the codes that it has, or not at
    all.

    Raises:
        ValueError: where the parts of a weight do not fit together, or it is something else in the model: floats,
            another format, or scales of another kind.
        RuntimeError: where parameters or buffers of the model are not in the state, unless it holds adapters alone.
    """
    own: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    ends = tuple(PARTS)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key in [key for key in state if key.startswith(prefix) and key.endswith(ends)]:
        part = next(end for end in ends if key.endswith(end))
        parts.setdefault(key.removeprefix(prefix).removesuffix(part), {})[part] = state.pop(key)
    for name, of_one in parts.items():
        there = own.get(name)
        state[prefix + name] = put_together(name, of_one, torch.float32 if there is None else there.dtype)
    for name, there in (own if parts else {}).items():  # floats alone are encoded, and adapters are none of these
        given = state.get(prefix + name, there)
        if kind_of(given) != kind_of(there):
            raise ValueError(
                f"the checkpoint has {name!r} as {kind_of(given)}, and the model as {kind_of(there)}: load it by "
                "from_pretrained, or into a model of its kind"
            )
    _check_whole(model, own, {key.removeprefix(prefix) for key in state if key.startswith(prefix)}, bool(prefix))


def _check_whole(model: nn.Module, own: dict[str, torch.Tensor], given: set[str], is_part: bool) -> None:
    if is_part or getattr(model, "_hf_peft_config_loaded", False):
        weights = {name for name, p in own.items() if isinstance(p, LNSWeight)}
        if not given & weights and (is_part or given <= own.keys()):
            return  # adapters, beside which the base stays as it is
    names: dict[int, list[str]] = {}
    stored = model.state_dict(keep_vars=True)
    buffers = {name: b for name, b in model.named_buffers(remove_duplicate=False) if name in stored}
    for name, p in {**own, **buffers}.items():
        names.setdefault(id(p), []).append(name)
    what = "parameters and buffers" if buffers else "parameters"
    missing = sorted(tied[0] for tied in names.values() if not given.intersection(tied))
    if missing:
        shown = ", ".join(repr(name) for name in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise RuntimeError(
            f"the state that is to be loaded lacks {len(missing)} of the model's {len(names)} {what} ({shown}), "
            "which would keep other values: it is of another model, or one shard of several (load these by "
            f"from_pretrained). A whole one has them by these names, or as codes, {missing[0] + PARTS[0]!r}"
        )
