"""Models and weight files: what `save_weights` and `load_weights` are for tensors, for whole models.

LNS weights go to the file as their codes, every other parameter and buffer as it is. Tied parameters are stored once,
under the first of their names. Both ways go one tensor at a time: a model needs no second one's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.layout import Description
from lnsnum.files.sharded import WeightFiles, open_files
from lnsnum.files.single import Tensor, in_blocks
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import WIDEST_TABLE
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.tensor import LNSTensor
from lnsnum.torch_bridge.carrying import succeed
from lnsnum.torch_bridge.datapath.setting import ENTRY, put_setting, setting_of
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES
from lnsnum.torch_bridge.kernels.scale import Fit
from lnsnum.torch_bridge.placing import settle
from lnsnum.torch_bridge.resuming import read_section, section_of
from lnsnum.torch_bridge.storing import describe, elements
from lnsnum.torch_bridge.surroundings import check_module, is_spread
from lnsnum.torch_bridge.weight import LNSWeight
from lnsnum.weight_file import WeightFileError, save_tensors

Places = list[tuple[nn.Module, str]]

_CHUNK = 1 << 18
"""Elements looked at at once, so that looking takes little memory."""


def save_model(
    path: StrPath,
    model: nn.Module,
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
    packed: bool = False,
    optimizer: Optimizer | None = None,
) -> Path:
    """Write the parameters and persistent buffers of a model to a weight file, atomically.

    Tensors on the CPU are written from where they lie; of others, one at a time is copied to it.

    Args:
        path: the file; an existing one is replaced, and so is a set that an earlier call with this path wrote.
        model: any module whose state holds tensors only.
        metadata: further entries, strings by name. A datapath of the model (`use_datapath`) is one by itself.
        max_shard_bytes: where the tensors have more bytes in all, they go to several files and an index.
        packed: leave out the unused bits of codes.
        optimizer: write its state too, in a section of its own, so that training can go on from the file. Its
            parameters are the model's.

    Returns:
        What was written: the file, or the index. `load_model` takes it, and `path` as well.

    Raises:
        As `lnsnum.weight_file.save_weights`.
    """
    check_module(model)
    state = _state(model)
    setting = setting_of(model)
    if setting is not None:
        metadata = {ENTRY: setting, **(metadata or {})}
    descriptions = {name: describe(name, tensor, packed=packed) for name, tensor in state.items()}
    return save_tensors(
        path,
        descriptions,
        lambda name: in_blocks(elements(state[name])),
        metadata=metadata,
        max_shard_bytes=max_shard_bytes,
        optimizer=None if optimizer is None else section_of(model, optimizer, elements),
    )


def load_model(path: StrPath, model: nn.Module, *, optimizer: Optimizer | None = None) -> nn.Module:
    """Put the tensors of a weight file into a model of the same architecture; returns the model.

    Where the file holds codes the parameter becomes an `LNSWeight` with these codes, whatever it was before. A
    parameter of the file's kind and format, with a log_offset of the same shape, is written in place, so an optimizer
    made before goes on with it; any other is replaced, and the optimizer must be made afterwards. Parameters and
    buffers on the meta device are replaced too, by ones on the CPU: a model that was made there never has floats for
    what the file has as codes.

    A datapath that the saved model had becomes that of this one, the rules by which its scales were fitted (where they
    are not the default) those of the weights.

    Nothing is changed unless the whole file fits. Then one tensor after another is read and put into its place: beyond
    the model, there is memory for one.

    Args:
        path: the file, the index of a set, or the path that the set was saved under.
        model: the module to load into.
        optimizer: load the state that the file has for it too. It is of the model's parameters, which are all of the
            file's kinds: none is replaced.

    Raises:
        WeightFileError: where the file is damaged, or is one for another model; the message says which tensor.
        ValueError: where a tensor of the model is expanded, or a buffer that files do not hold is on the meta device.
        OSError: where it cannot be read.
    """
    check_module(model)
    state = _state(model)
    _check_transient_buffers(model, state)
    with open_files(path) as files, torch.no_grad():
        _check_fit(files, state)
        for name, own in state.items():
            _check_values(files, name, own)
        if optimizer is not None:
            section = read_section(files, model, optimizer)
            _check_in_place(files, state, optimizer)
            optimizer.load_state_dict(section)
        places = _places(model)
        for name in files.names:
            own = state.pop(name)
            _put(files, name, own, places[id(own)])
            del own  # a parameter that was replaced goes before the next is read
        setting = files.texts.get(ENTRY)
    return model if setting is None else put_setting(model, setting)


# ------------------------------------------------------------------------------------------- before anything is changed


def _check_transient_buffers(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse a model some of whose buffers would stay on the meta device, because no file holds them."""
    loaded = {id(tensor) for tensor in state.values()}
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta and id(buffer) not in loaded]
    if left:
        raise ValueError(
            f"{_some(left)} of the model: on the meta device, and no file holds buffers that are not persistent: "
            "assign them tensors on the CPU first"
        )


def _check_fit(files: WeightFiles, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse a file whose tensors are not those of the model, by headers alone."""
    where, names = shown(files.path), set(files.names)
    missing, unknown = sorted(state.keys() - names), sorted(names - state.keys())
    if missing or unknown:
        lacks = [f"it lacks {_some(missing)}"] if missing else []
        holds = [f"it holds {_some(unknown)}, which the model has not"] if unknown else []
        prefix = _prefix(missing, unknown)
        hint = f" (its names are the model's behind {prefix!r})" if prefix else ""
        raise WeightFileError(f"{where} is for another model: {' and '.join(lacks + holds)}{hint}")
    for name, own in state.items():
        told = files.describe(name)
        if told.shape != tuple(own.shape):
            raise WeightFileError(
                f"{where} is for another model: {name!r} has shape {told.shape}, and {tuple(own.shape)} there"
            )
        if not own.is_meta and any(stride == 0 and n > 1 for stride, n in zip(own.stride(), own.shape, strict=True)):
            raise ValueError(
                f"{name!r} of the model is expanded, several elements in one place: make it contiguous first"
            )
        _check_kind(where, name, told, own)


def _prefix(missing: list[str], unknown: list[str]) -> str | None:
    """What the file's names have before the model's, where that is all that is wrong."""
    if not missing or len(missing) != len(unknown) or not unknown[0].endswith(missing[0]):
        return None  # a prefix does not change the order
    prefix = unknown[0].removesuffix(missing[0])
    return prefix if unknown == [prefix + name for name in missing] else None


def _check_kind(where: str, name: str, told: Description, own: torch.Tensor) -> None:
    if told.fmt is None:
        return
    if not isinstance(own, nn.Parameter) or own.dtype not in FLOAT_NAMES:
        raise WeightFileError(f"{where} holds codes for {name!r}, which is no float parameter of the model")
    if told.fmt.bits > WIDEST_TABLE:
        raise WeightFileError(f"{where}: {name!r} is of {told.fmt.name}: at most {WIDEST_TABLE} bits can be loaded")
    if isinstance(told.log_offset, GroupOffsets) and told.log_offset.axis != -1:
        raise WeightFileError(
            f"{where}: {name!r} has groups along dimension {told.log_offset.axis}, and those of a model's weights lie "
            "along the last: load_weights reads them"
        )
    if told.fit is not None:
        try:
            Fit.of_json(told.fit)
        except ValueError as error:
            raise WeightFileError(f"{where}: {name!r}: {error}") from None


def _check_values(files: WeightFiles, name: str, own: torch.Tensor) -> None:
    """Refuse what only the data can show: wrong checksums, bad codes, floats that do not fit."""
    told = files.describe(name)
    dtype = None if told.fmt is not None else getattr(torch, told.dtype)
    may_lose = dtype is not None and not _holds_all(own.dtype, dtype)
    for block in files.blocks(name):
        if may_lose and _loses_values(_to_torch(block, own.dtype), own.dtype):
            raise WeightFileError(f"{shown(files.path)}: {name!r} is of {dtype}, and as {own.dtype} would lose values")


def _holds_all(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether every value of `other` is one of `dtype`, rounded at most, as types alone show."""
    if dtype == other:
        return True
    both_float = dtype.is_floating_point and other.is_floating_point
    return both_float and torch.promote_types(dtype, other) == dtype


def _loses_values(x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether x as another dtype is more than rounded: finite numbers become infinite, or fractions integers."""
    for part in x.reshape(-1).split(_CHUNK):
        converted = part.to(dtype)
        if not (dtype.is_floating_point or dtype.is_complex):
            if not torch.equal(converted.to(x.dtype), part):
                return True
        elif bool((torch.isfinite(part.to(torch.float64)) & ~torch.isfinite(converted)).any()):
            return True
    return False


def _check_in_place(files: WeightFiles, state: Mapping[str, torch.Tensor], optimizer: Optimizer) -> None:
    """Refuse a model of which a parameter would be replaced: the optimizer would go on with the old one."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, own in state.items():
        if id(own) in trained and (own.is_meta or _kind_told(files.describe(name)) != _kind(own)):
            raise ValueError(
                f"{name!r} of the model is not what {shown(files.path)} has, and would be replaced: load the model "
                "first without it, make the optimizer of that, and load both then"
            )


# ----------------------------------------------------------------------------------------------------------- one tensor


def _put(files: WeightFiles, name: str, own: torch.Tensor, places: Places) -> None:
    """Read one tensor into the place of the model's own, which is changed or replaced."""
    loaded = _to_torch(files.read(name), own.dtype)
    fit = files.describe(name).fit
    if isinstance(loaded, LNSWeight) and fit is not None:
        loaded.fit = Fit.of_json(fit)
    if not own.is_meta and _kind(loaded) == _kind(own):
        own.copy_(loaded)
        return
    device = torch.device("cpu") if own.is_meta else own.device
    is_lns = isinstance(loaded, LNSWeight)
    new: torch.Tensor
    if isinstance(loaded, LNSWeight):
        new = loaded.copied_with(bridge.with_strides_of(own, loaded.codes.to(device, copy=True)))
    else:
        new = torch.empty(own.shape, dtype=own.dtype, device=device).copy_(loaded)
    if isinstance(own, nn.Parameter):
        new = parameter = nn.Parameter(new, requires_grad=own.requires_grad)
        succeed(own, parameter)
    for module, key in places:
        if isinstance(own, nn.Parameter):
            setattr(module, key, new)  # not into _parameters: recurrent modules keep a list of their weights as well
            if is_lns:
                settle(module)
        else:
            module._buffers[key] = new


def _kind(tensor: torch.Tensor) -> tuple[LNSFormat, torch.Size, int | None] | None:
    """Format, shape and groups of the scale, None of a plain tensor: alike where one can be copied to the other."""
    if not isinstance(tensor, LNSWeight):
        return None
    offset = tensor.log_offset
    return tensor.fmt, offset.shape if isinstance(offset, torch.Tensor) else torch.Size(), tensor.group_size


def _kind_told(told: Description) -> tuple[LNSFormat, torch.Size, int | None] | None:
    """`_kind` of what a file has."""
    if told.fmt is None:
        return None
    return (
        told.fmt,
        torch.Size(() if told.offsets is None else _padded(told.offsets.shape, told.shape)),
        told.group_size,
    )


def _padded(sizes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of offsets as a weight has them, of as many dimensions as its codes; () of a single one in none."""
    return (1,) * (len(shape) - len(sizes)) + sizes if sizes else ()


def _places(model: nn.Module) -> dict[int, Places]:
    """Every place where a parameter or buffer stands, by its id: tied ones have several."""
    places: dict[int, Places] = {}
    for module in model.modules():
        for key, tensor in _tensors(module):
            places.setdefault(id(tensor), []).append((module, key))
    return places


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for key, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            yield key, tensor


def _to_torch(tensor: Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor on the memory of the file's: an LNSWeight that appears as `dtype`, or a plain one of the file's type."""
    if not isinstance(tensor, LNSTensor):
        is_bfloat16 = tensor.dtype.name == "bfloat16"
        plain = torch.from_numpy(tensor.view(np.int16) if is_bfloat16 else tensor)
        return plain.view(torch.bfloat16) if is_bfloat16 else plain
    return LNSWeight.from_lns(tensor, dtype=dtype)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by name, the tensors themselves; tied ones once."""
    parameters: dict[str, torch.Tensor] = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if is_spread(parameter):
            raise TypeError(
                f"{name!r} is a {type(parameter).__name__}, of which other processes hold parts: load before "
                "fully_shard, and save by save_model_together or torch.distributed.checkpoint"
            )
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


def _some(names: list[str]) -> str:
    shown_names = ", ".join(repr(name) for name in names[:3])
    return shown_names if len(names) <= 3 else f"{shown_names} and {len(names) - 3} more"
