"""An optimizer's state in a weight file: its section, by the names that the model has for the parameters.

    tensors of the state    PARAMETER.KEY, such as fc.weight.second_moment, as they are
    the rest, and options   JSON: {"class": "Madam", "groups": [{"params": [names], "lr": ...}],
                                   "parameters": {PARAMETER: {KEY: value}}}

Loaded beside the weights of the same file, training goes on code for code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from lnsnum.files.atomic import shown
from lnsnum.files.layout import DTYPES, Description, OptimizerPart, WeightFileError
from lnsnum.files.sharded import WeightFiles
from lnsnum.files.single import in_blocks

Elements = Callable[[torch.Tensor], NDArray[Any]]
"""The elements of a tensor as a file has them, flat."""


def section_of(model: nn.Module, optimizer: Optimizer, elements: Elements) -> OptimizerPart:
    """What a file is to say of an optimizer whose parameters are those of a model.

    Raises:
        TypeError: where it is no optimizer of torch's, or its state holds what is neither a tensor nor JSON.
        ValueError: where it has a parameter that the model has not.
    """
    names = _names_in(model, optimizer)
    content = optimizer.state_dict()
    groups, tensors = [], {}
    rest: dict[str, dict[str, Any]] = {}
    for group in content["param_groups"]:
        options = {key: _plain(f"option {key!r} of the optimizer", value) for key, value in group.items()}
        groups.append(options | {"params": [names[i] for i in group["params"]]})
    for i, state in content["state"].items():
        rest[names[i]] = {}
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{names[i]}.{key}"] = value
            else:
                rest[names[i]][key] = _plain(f"{key!r} of the state of {names[i]!r}", value)
    descriptions = {name: _describe(name, tensor) for name, tensor in tensors.items()}
    told = {"class": type(optimizer).__name__, "groups": groups, "parameters": rest}
    return OptimizerPart(told, descriptions, lambda name: in_blocks(elements(tensors[name])))


def read_section(files: WeightFiles, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The state of the optimizer that a file has, as `optimizer.load_state_dict` takes it.

    Raises:
        WeightFileError: where the file has none, or one of other parameters, or it is damaged.
        TypeError, ValueError: as of `section_of`.
    """
    names = _names_in(model, optimizer)
    where = shown(files.path)
    if files.state is None:
        raise WeightFileError(f"{where} has no optimizer's state: save_model(path, model, optimizer=...) writes it")
    groups, rest = files.state.get("groups", ()), files.state.get("parameters")
    if not (_is_list_of(dict, groups) and isinstance(rest, dict) and _is_list_of(dict, list(rest.values()))):
        raise WeightFileError(f"{where}: the optimizer's state is not as save_model writes it")
    kind = files.state.get("class")
    if kind not in [of.__name__ for of in type(optimizer).__mro__]:  # torch's would take any state for their own
        raise WeightFileError(
            f"{where} has the state of a {kind!s:.80}, and this optimizer is a {type(optimizer).__name__}"
        )
    own = optimizer.state_dict()["param_groups"]
    asked = [[names[i] for i in group["params"]] for group in own]
    told = [group.get("params") for group in groups]
    if asked != told:
        raise WeightFileError(
            f"{where} has the state of an optimizer of other parameters: its groups have {told!r:.80}, and those of "
            f"this one {asked!r:.80}"
        )
    number = {name: i for i, name in names.items()}
    parameters = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: parameters[id(p)] for name, p in model.named_parameters() if id(p) in parameters}
    state: dict[int, dict[str, Any]] = {}
    for name, values in rest.items():
        if name not in number:
            raise WeightFileError(f"{where} has the state of a parameter {name!r} that the optimizer has not")
        state[number[name]] = dict(values)
    for stored in files.moments:
        name, _, key = stored.rpartition(".")
        if name not in rest:
            raise WeightFileError(f"{where}: tensor {stored!r} of the optimizer is of no parameter that has a state")
        state[number[name]][key] = _like(by_name[name], files.read_moment(stored))
    options = [
        {**{key: _as_own(group.get(key), value) for key, value in given.items()}, "params": group["params"]}
        for given, group in zip(groups, own, strict=True)
    ]
    return {"state": state, "param_groups": options}


def _names_in(model: nn.Module, optimizer: Optimizer) -> dict[int, str]:
    """The model's names of the parameters, by the number that the optimizer's state gives them."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    known = {id(p): name for name, p in model.named_parameters()}
    names: dict[int, str] = {}
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        if id(p) not in known:
            raise ValueError(
                f"parameter {len(names)} of the optimizer, of shape {tuple(p.shape)}, is none of the model's: make the "
                "optimizer of the model's parameters as they are now"
            )
        names[len(names)] = known[id(p)]
    return names


def _plain(what: str, value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, tuple):
        return list(value)
    if value is None or isinstance(value, (bool, int, float, str, list, dict)):
        return value
    raise TypeError(f"{what} is a {type(value).__name__}, which weight files cannot hold: torch.save can")


def _as_own(own: Any, value: Any) -> Any:
    """An option as the optimizer has it: a tuple where it has one, a tensor where a graph or a scheduler fills one."""
    if isinstance(own, torch.Tensor) and isinstance(value, (int, float)):
        return torch.full_like(own, value)
    return tuple(value) if isinstance(own, tuple) and isinstance(value, list) else value


def _describe(name: str, tensor: torch.Tensor) -> Description:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES.values():
        raise TypeError(f"tensor {name!r} of the optimizer is of {dtype}, which weight files cannot hold")
    return Description(tuple(tensor.shape), dtype)


def _like(p: torch.Tensor, array: NDArray[Any]) -> torch.Tensor:
    """A tensor of the state; moments lie in memory as their parameter does."""
    is_bfloat16 = array.dtype.name == "bfloat16"
    loaded = torch.from_numpy(array.view("int16") if is_bfloat16 else array)
    loaded = loaded.view(torch.bfloat16) if is_bfloat16 else loaded
    if loaded.shape != p.shape:
        return loaded
    return torch.empty_strided(p.shape, p.stride(), dtype=loaded.dtype).copy_(loaded)


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, kind) for part in value)
