"""Models and weight files: what `save_weights` and `load_weights` are for tensors, for whole models.

LNS weights go to the file as their codes, every other parameter and buffer as it is. Tied parameters are stored once,
under the first of their names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lnsnum.codes import WIDEST_TABLE
from lnsnum.tensor import LNSTensor
from lnsnum.torch_bridge import codes as bridge
from lnsnum.torch_bridge.model import replace_parameters
from lnsnum.torch_bridge.weight import LNSWeight
from lnsnum.weight_file import WeightFileError, load_shapes, load_weights, save_weights


def save_model(path: str | os.PathLike[str], model: nn.Module, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write the parameters and persistent buffers of a model to a weight file, atomically.

    Args:
        path: the file; an existing one is replaced.
        model: any module whose state holds tensors only.
        metadata: further entries, strings by name.

    Raises:
        As `lnsnum.weight_file.save_weights`.
    """
    save_weights(path, {name: _to_core(tensor) for name, tensor in _state(model).items()}, metadata=metadata)


def load_model(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Put the tensors of a weight file into a model of the same architecture; returns the model.

    Where the file holds codes the parameter becomes an `LNSWeight` with these codes, whatever it was before. A
    parameter of the file's kind and format is written in place, so an optimizer made before goes on with it; any other
    is replaced, and the optimizer must be made afterwards. Nothing is changed unless the whole file fits.

    Raises:
        WeightFileError: where the file is damaged, or is one for another model; the message says which tensor.
        ValueError: where a tensor of the model is on the meta device or expanded.
        OSError: where it cannot be read.
    """
    state = _state(model)
    where = os.fspath(path)
    _check_fit(where, load_shapes(path), state)
    replacements: dict[int, nn.Parameter] = {}
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, tensor in load_weights(path).items():
        own = state[name]
        loaded = _from_core(where, name, tensor, own)
        if getattr(loaded, "fmt", None) != getattr(own, "fmt", None):
            replacements[id(own)] = nn.Parameter(loaded, requires_grad=own.requires_grad)
        else:
            copies.append((own, loaded))
    with torch.no_grad():
        for own, loaded in copies:
            own.copy_(loaded)
    replace_parameters(model, replacements)
    return model


def _check_fit(where: str, shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, torch.Tensor]) -> None:
    """Refuse a file whose tensors are not those of the model, by its header, before any is read."""
    missing, unknown = sorted(state.keys() - shapes.keys()), sorted(shapes.keys() - state.keys())
    if missing or unknown:
        lacks = [f"it lacks {_some(missing)}"] if missing else []
        holds = [f"it holds {_some(unknown)}, which the model has not"] if unknown else []
        raise WeightFileError(f"{where} is for another model: {' and '.join(lacks + holds)}")
    for name, own in state.items():
        if shapes[name] != tuple(own.shape):
            raise WeightFileError(
                f"{where} is for another model: {name!r} has shape {shapes[name]}, and {tuple(own.shape)} there"
            )
        if own.device.type == "meta":
            raise ValueError(f"{name!r} of the model is on the meta device: give it memory first, by to_empty()")
        if any(stride == 0 and size > 1 for stride, size in zip(own.stride(), own.shape, strict=True)):
            raise ValueError(
                f"{name!r} of the model is expanded, several elements in one place: make it contiguous first"
            )


def _from_core(where: str, name: str, tensor: LNSTensor | NDArray[Any], own: torch.Tensor) -> torch.Tensor:
    """A tensor of the file as the model wants it: an LNSWeight of its codes, or a plain tensor of the model's dtype."""
    if isinstance(tensor, LNSTensor):
        if not isinstance(own, nn.Parameter) or own.dtype not in bridge.FLOAT_NAMES:
            raise WeightFileError(f"{where} holds codes for {name!r}, which is no float parameter of the model")
        if not isinstance(tensor.log_offset, int):
            raise WeightFileError(f"{where} has a log_offset for each channel of {name!r}: one alone can be loaded")
        if tensor.fmt.bits > WIDEST_TABLE:
            raise WeightFileError(
                f"{where}: {name!r} is of {tensor.fmt.name}: at most {WIDEST_TABLE} bits can be loaded"
            )
        return LNSWeight.from_lns(tensor, own.dtype).to(own.device)
    is_bfloat16 = tensor.dtype.name == "bfloat16"
    loaded = torch.from_numpy(tensor.view(np.int16) if is_bfloat16 else tensor)
    loaded = loaded.view(torch.bfloat16) if is_bfloat16 else loaded
    if _loses_values(loaded, own.dtype):
        raise WeightFileError(f"{where}: {name!r} is of {loaded.dtype}, and as {own.dtype} would lose values")
    return loaded.to(own.device, own.dtype)


def _loses_values(x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether x as another dtype is more than rounded: finite numbers become infinite, or fractions integers."""
    converted = x.to(dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return bool((torch.isfinite(x) & ~torch.isfinite(converted)).any())
    return not torch.equal(converted.to(x.dtype), x)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by name, the tensors themselves; tied ones once."""
    parameters: dict[str, torch.Tensor] = dict(model.named_parameters())
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - parameters.keys()
    for name, value in state.items():
        if name in parameters or name in tied:
            continue
        if not isinstance(value, torch.Tensor) or name.split(".")[-1] == "_extra_state":
            raise TypeError(
                f"{name!r} of the model's state is no parameter and no buffer: weight files hold only these"
            )
        parameters[name] = value
    return parameters


def _to_core(tensor: torch.Tensor) -> Any:
    if isinstance(tensor, LNSWeight):
        return tensor.to_lns()
    on_cpu = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return bridge.as_numpy(on_cpu.view(torch.int16)).view(ml_dtypes.bfloat16)
    return on_cpu.numpy() if tensor.dtype == torch.bool else bridge.as_numpy(on_cpu)


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
