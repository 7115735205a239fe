"""A run that was cut, as a file from which it goes on code for code.

    model.*        parameters and buffers, LNS weights as codes
    optimizer.*    the tensors of the optimizer's state, by the number of the parameter
    history.*      one entry a step
    random.*       the generators: torch's own, and the data's at the start of the epoch

It is a weight file, with checksums, and replaced at once or not at all. What is no tensor is JSON in its
metadata, as the running maxima of a datapath are, next to the arguments of the run. The schedule needs nothing: it
follows from the number of steps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.optim import Optimizer

from lnsnum.files.atomic import shown
from lnsnum.files.sharded import open_files
from lnsnum.tasks import RESUME_ENTRY, TaskError
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.task import Task
from lnsnum.tasks.training import History, compute_as_asked
from lnsnum.torch_bridge import load_model, save_model
from lnsnum.torch_bridge.datapath import datapath_of
from lnsnum.torch_bridge.datapath.setting import setting_of
from lnsnum.weight_file import load_metadata

STATE_ENTRY = "lnsnum.optimizer"
"""Metadata: what the optimizer's state holds beside tensors, and that of a datapath, as a JSON object."""


def save_run(
    path: Path, model: nn.Module, optimizer: Optimizer, history: History, arguments: Mapping[str, Any]
) -> None:
    """Write a run as it is after a whole step.

    Args:
        path: the file, replaced at once or not at all.
        model, optimizer, history: as `lnsnum.tasks.training.train` left them.
        arguments: JSON, for `read_arguments`.

    Raises:
        OSError: where the file cannot be written.
    """
    assert history.order is not None
    state = optimizer.state_dict()
    tensors = {
        "history.loss": torch.tensor(history.loss, dtype=torch.float64),
        "history.moved": torch.tensor(history.moved, dtype=torch.float64),
        "random.order": history.order,
        "random.torch": torch.get_rng_state(),
    }
    device = next(model.parameters()).device
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    plain: dict[str, dict[str, Any]] = {}
    for number, entries in state["state"].items():
        plain[str(number)] = {}
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{number}.{key}"] = value
            else:
                plain[str(number)][key] = value
    rest: dict[str, Any] = {"state": plain, "param_groups": state["param_groups"]}
    if setting_of(model) is not None:
        rest["datapath"] = datapath_of(model).state_dict()
    metadata = {RESUME_ENTRY: json.dumps(dict(arguments)), STATE_ENTRY: json.dumps(rest)}
    save_model(path, _together(model, tensors), metadata=metadata)


def read_arguments(path: Path) -> dict[str, Any]:
    """The arguments that `save_run` was given.

    Raises:
        TaskError: where the file is of no run.
        WeightFileError, OSError: where it is damaged, or cannot be read.
    """
    return _object(path, load_metadata(path), RESUME_ENTRY)


def load_run(path: Path, task: Task, recipe: Recipe, seed: int) -> tuple[nn.Module, Optimizer, History]:
    """Model, optimizer and history, ready for `lnsnum.tasks.training.train`; torch's generator is set as it was.

    Raises:
        TaskError: where the file is not what `save_run` writes of such a run.
        WeightFileError, OSError: where it is damaged, of another network, or cannot be read.
    """
    rest = _object(path, load_metadata(path), STATE_ENTRY)
    model = task.network()
    recipe.convert(model, seed)
    parameters = list(model.parameters())
    tensors = _empty_tensors(path, parameters)
    load_model(path, _together(model, tensors))
    optimizer = recipe.optimizer_for(model, seed)
    try:
        state: dict[int, dict[str, Any]] = {int(number): dict(plain) for number, plain in rest["state"].items()}
        for name, tensor in tensors.items():
            kind, _, place = name.partition(".")
            if kind == "optimizer":
                number, _, key = place.partition(".")
                state[int(number)][key] = tensor
        groups = [dict(group) for group in rest["param_groups"]]
        for group in groups:  # the schedule sets it, from where it begins
            group["lr"] = recipe.rate
            group.pop("initial_lr", None)
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        losses, moved = (tensors[f"history.{name}"].tolist() for name in ("loss", "moved"))
        history = History(losses, moved, tensors["random.order"])
        torch.Generator().set_state(tensors["random.order"])
        torch.set_rng_state(tensors["random.torch"])
        if "random.cuda" in tensors and task.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], task.device)
        compute_as_asked(task, model, seed)
        if task.datapath is not None:
            datapath_of(model).load_state_dict(rest["datapath"])
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        _refuse(path, STATE_ENTRY, error)
    return model, optimizer, history


def _together(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """One module that holds a model, and tensors as buffers, under their names."""
    whole = nn.Module()
    whole.add_module("model", model)
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        place = whole
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_buffer(last, tensor)
    return whole


def _empty_tensors(path: Path, parameters: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Room for what the file holds beside the model; moments lie in memory as their parameter does."""
    tensors = {}
    with open_files(path) as files:
        for name in files.names:
            if name.startswith("model."):
                continue
            told = files.describe(name)
            match = re.fullmatch(r"optimizer\.([0-9]{1,9})\.[a-z_]+|history\.[a-z]+|random\.[a-z]+", name)
            if told.fmt is not None or match is None:
                _refuse(path, name)
            own = parameters[int(match[1])] if match[1] and int(match[1]) < len(parameters) else None
            strides = own.stride() if own is not None and tuple(own.shape) == told.shape else None
            dtype = getattr(torch, told.dtype)
            if strides is None:
                tensors[name] = torch.empty(told.shape, dtype=dtype)
            else:
                tensors[name] = torch.empty_strided(told.shape, strides, dtype=dtype)
    return tensors


def _object(path: Path, metadata: Mapping[str, str], entry: str) -> dict[str, Any]:
    if entry not in metadata:
        raise TaskError(f"{shown(path)} is no run that can be resumed: lnsnum train writes NAME-resume.safetensors")
    try:
        content = json.loads(metadata[entry])
    except (ValueError, RecursionError) as error:
        _refuse(path, entry, error)
    if not isinstance(content, dict):
        _refuse(path, entry)
    return content


def _refuse(path: Path, what: str, error: Exception | None = None) -> NoReturn:
    raise TaskError(f"{shown(path)}: its entry {shown(what)} is not what lnsnum train writes") from error
