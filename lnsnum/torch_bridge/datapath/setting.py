"""A datapath as a setting of a model: saved with it, and asked for by every call.

    use_datapath(model, "lns_madam_8bit")
    with datapath_of(model): ...            training
    model(x)                                without gradients: within the datapath by itself

A call with gradients outside of a datapath raises: its backward pass would be float. Copies and pickles of the model
have the setting and the running maxima; `save_model` writes them, and `load_model` gives them to the model it loads
into.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from lnsnum.torch_bridge.datapath.context import Datapath, current, datapath
from lnsnum.torch_bridge.datapath.texts import from_json, read_short, to_json
from lnsnum.torch_bridge.datapath.workshop import Place
from lnsnum.torch_bridge.surroundings import check_module

ENTRY = "lnsnum.datapath"
"""In the metadata of a weight file."""

_SETTING = "_lnsnum_datapath"
"""The model's attribute: JSON."""

_PEAKS = "_lnsnum_datapath_peaks"
"""The model's attribute: its datapath's running maxima by place, which copies and files have too."""

_paths: WeakKeyDictionary[nn.Module, Datapath] = WeakKeyDictionary()


def use_datapath(model: nn.Module, setting: str | Datapath | None = None, /, **arguments: Any) -> nn.Module:
    """Let a model be computed in a datapath from now on, in place; returns the model.

    Args:
        model: any module.
        setting: a preset's name or the short form of a command (see `lnsnum.torch_bridge.datapath.texts`), a Datapath,
            whose settings are taken, or None.
        arguments: those of `datapath`, instead or beside a name. Without any, and None, the setting is taken away.

    Raises:
        ValueError: for what cannot be read, or no file can hold.

    >>> model = use_datapath(nn.Linear(2, 1), "lns_madam_8bit")
    >>> with datapath_of(model) as path:
    ...     model(torch.ones(1, 2)).sum().backward()
    >>> len(path.report().tensors)
    4
    """
    check_module(model)
    if setting is None and not arguments:
        return _set(model, None)
    if isinstance(setting, Datapath):
        if arguments:
            raise TypeError("a Datapath has all settings: give it alone, or a preset's name and arguments")
        settings = setting.settings
    else:
        settings = datapath(**{**({} if setting is None else read_short(setting)), **arguments}).settings
    return _set(model, to_json(settings))


def setting_of(model: nn.Module) -> str | None:
    """The setting of a model as JSON, with the running maxima so far; None where it has none."""
    text: str | None = model.__dict__.get(_SETTING)
    peaks = model.__dict__.get(_PEAKS)
    if text is None or not peaks:
        return text
    return json.dumps({**json.loads(text), "peaks": [[*place, peak] for place, peak in peaks.items()]})


def put_setting(model: nn.Module, text: str | None) -> nn.Module:
    """Give a model a setting as JSON, as a file has it."""
    if text is None:
        return _set(model, None)
    settings = to_json(from_json(text))
    try:
        peaks = {_place(place): float(peak) for *place, peak in json.loads(text).get("peaks", [])}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text[:80]!r} has running maxima that are none: {error}") from error
    _set(model, settings)
    model.__dict__[_PEAKS] = peaks
    return model


def _place(given: list[Any]) -> Place:
    layer, kind, name, index = given
    return str(layer), str(kind), str(name), int(index)


def _set(model: nn.Module, text: str | None) -> nn.Module:
    _paths.pop(model, None)
    model.__dict__.pop(_PEAKS, None)
    if text is None:
        model.__dict__.pop(_SETTING, None)
    else:
        model.__dict__[_SETTING] = text
    hooks = model._forward_pre_hooks, model._forward_hooks
    for own, kept in zip((_enter, _leave), hooks, strict=True):
        for key in [key for key, hook in kept.items() if hook is own]:
            del kept[key]
            model._forward_hooks_always_called.pop(key, None)
    if text is not None:
        model.register_forward_pre_hook(_enter, prepend=True)
        model.register_forward_hook(_leave, always_call=True)
    return model


def datapath_of(model: nn.Module) -> Datapath:
    """The datapath of a model's setting: one for as long as the model has it.

    Raises:
        ValueError: where the model has none.
        TypeError: for what is no module.
    """
    check_module(model)
    text = model.__dict__.get(_SETTING)
    if text is None:
        raise ValueError(f"{type(model).__name__} has no datapath: give it one by use_datapath(model, ...)")
    if model not in _paths:
        path = _paths[model] = Datapath(from_json(text))
        path.workshop.peaks = model.__dict__.setdefault(_PEAKS, {})
    return _paths[model]


def computing(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """The datapath of a model that has one; else a block that does nothing."""
    return contextlib.nullcontext() if setting_of(model) is None else datapath_of(model)


_ENTERED = "_lnsnum_datapath_entered"


def _enter(model: nn.Module, arguments: Any) -> None:
    path = datapath_of(model)
    if current() is path:
        return
    if current() is not None:
        raise RuntimeError(
            f"{type(model).__name__} has a datapath of its own, and is called within another one: call it within "
            "datapath_of(model), or take its own away by use_datapath(model, None)"
        )
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{type(model).__name__} has a datapath, and is called with gradients outside of it: train it within "
            "with datapath_of(model):, or call it under torch.no_grad()"
        )
    path.__enter__()
    # the hooks of the context come too late for this call
    path.layers.begin(model)
    path.layers.stack.append(type(model).__name__)
    model.__dict__[_ENTERED] = True


def _leave(model: nn.Module, arguments: Any, output: Any) -> None:
    if model.__dict__.pop(_ENTERED, False):
        datapath_of(model).__exit__(None, None, None)
