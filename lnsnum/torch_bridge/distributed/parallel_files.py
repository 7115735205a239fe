"""Weight files of a model that processes share: each writes one file of a set, and one index puts all in place at once.

    each process     gets the whole of some tensors, one after another, as codes; writes them to a file of its own
    the first        once all files are on the disk, writes the index, which is the set; then deletes what it replaced

The set is that of `save_model(max_shard_bytes=...)`: docs/weight_file.md has its layout. Until the index is there, and
where a process ends before, the old set is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lnsnum.files.atomic import StrPath, replacing
from lnsnum.files.single import in_blocks
from lnsnum.torch_bridge.datapath.setting import ENTRY, setting_of
from lnsnum.torch_bridge.distributed.dtensors import local_of, weight_of
from lnsnum.torch_bridge.distributed.exchange import compare, hear, reaching, tell
from lnsnum.torch_bridge.distributed.first_broadcast import as_sent
from lnsnum.torch_bridge.storing import describe, elements
from lnsnum.torch_bridge.surroundings import check_module
from lnsnum.torch_bridge.weight import LNSWeight
from lnsnum.weight_file import save_tensors

_HASH_DIGITS = 16


def save_model_together(
    path: StrPath, model: nn.Module, *, metadata: Mapping[str, str] | None = None, packed: bool = False
) -> Path:
    """Write a model that processes share to a set of weight files, each process one, put in place by one index.

    Of parameters that fully_shard has cut, one after another is put together, as codes, in the process that writes it,
    which so holds its part of the model once more. Of replicas each process writes some. `load_model` reads the set, on
    one process or before the model is wrapped or sharded.

    Args:
        path: as of `save_model`, the same on each process, in a folder that all see; what was there is replaced.
        model: the module, on each process; not its DistributedDataParallel, but what that wraps.
        metadata: further entries, strings by name. A datapath of the model (`use_datapath`) is one by itself.
        packed: leave out the unused bits of codes.

    Returns:
        The path of the index.

    Raises:
        RuntimeError: on every process, where they have other tensors, where one of them could not write its file, or
            none of it has arrived in the folder of the first; the old set is there then. Without a group of processes.
        NotImplementedError: for parameters that are not sharded over all processes along one dimension.
        TypeError, ValueError: for a state that files do not hold, DistributedDataParallel, or a path that cannot name a
            set.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "there is no group of processes: call torch.distributed.init_process_group, or take save_model"
        )
    group = dist.group.WORLD
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    target = Path(path)
    if not target.name or re.search(r"[\\:]", target.name):
        raise ValueError(f"{target.name!r} cannot name a set of files: take no \\ and no : in it")
    check_module(model)
    if isinstance(model, DistributedDataParallel):
        raise TypeError("model is a DistributedDataParallel, which has other names: give what it wraps, model.module")
    setting = setting_of(model)
    if setting is not None:
        metadata = {ENTRY: setting, **(metadata or {})}
    tensors = _tensors(model)
    _check_alike(target.name, tensors, metadata, group)
    owners = _owners({name: p.numel() for name, p in tensors.items()}, size)
    wholes: dict[str, Any] = {}
    for name, tensor in tensors.items():
        whole = _whole(name, tensor, owners[name], group)
        if rank == owners[name]:
            wholes[name] = whole
    number = f"{rank + 1:05}-of-{size:05}"
    trouble, written = "", _Written("", {})
    try:
        if wholes:
            written = _write(target, number, wholes, metadata, packed)
    except Exception as error:  # the others wait for what it says
        trouble = f"{type(error).__name__}: {error}"
    told = {"file": written.name, "stored": json.dumps(written.stored), "trouble": trouble}
    heard = hear("weight files", tell("weight files", told, group), group)
    names = {owner: each["file"] for owner, each in enumerate(heard)}
    index = target.with_name(f"{target.name}.index.json")
    troubles = [f"process {other} said {each['trouble']}" for other, each in enumerate(heard) if each["trouble"]]
    if rank == 0 and not troubles:
        lacking = [other for other, name in names.items() if name and not target.with_name(name).is_file()]
        troubles = (
            [f"the file of process {lacking[0]} is not in {target.parent}, which all have to see"] if lacking else []
        )
        if not troubles:
            try:
                stored = [json.loads(each["stored"]) for each in heard]
                weight_map = {name: names[owner] for owner, sizes in enumerate(stored) for name in sizes}
                _commit(target, index, weight_map, sum(sum(sizes.values()) for sizes in stored))
            except Exception as error:
                troubles = [f"process 0 said {type(error).__name__}: {error}"]
    (last, *_) = hear("index", tell("index", {"trouble": "; ".join(troubles)} if rank == 0 else {}, group), group)
    if last["trouble"]:
        if written.is_new:
            with contextlib.suppress(OSError):
                target.with_name(written.name).unlink()
        raise RuntimeError(f"the model is not saved to {target}, where all is as before: {last['trouble']}")
    return index


class _Written(NamedTuple):
    """A file of the set."""

    name: str
    stored: dict[str, int]
    """The names that the container has, which the index lists, and the bytes of each."""
    is_new: bool = False


def _tensors(model: nn.Module) -> dict[str, Any]:
    """Parameters and persistent buffers, tied ones once, in the order of their names."""
    found: dict[str, Any] = dict(model.named_parameters())
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in model.state_dict(keep_vars=True).items():
        if name not in tied and name not in found:
            if not isinstance(value, torch.Tensor) or name.split(".")[-1] == "_extra_state":
                raise TypeError(
                    f"{name!r} of the model's state is no parameter and no buffer: weight files hold only these"
                )
            found[name] = value
    return {name: found[name] for name in sorted(found)}


def _owners(sizes: Mapping[str, int], processes: int) -> dict[str, int]:
    """Which process writes a tensor: the largest first, each to who has the least.

    >>> _owners({"a": 5, "b": 3, "c": 2, "d": 1}, 2)
    {'a': 0, 'b': 1, 'c': 1, 'd': 0}
    """
    load, owners = [0] * processes, {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        owner = load.index(min(load))
        owners[name] = owner
        load[owner] += max(sizes[name], 1)
    return {name: owners[name] for name in sizes}


def _whole(name: str, tensor: Any, owner: int, group: Any) -> Any:
    """A tensor in the process that writes it, put together where it is a DTensor; something else on the others."""
    local = local_of(tensor)
    if local is None:
        return tensor
    mesh, size = tensor.device_mesh, dist.get_world_size(group)
    (placement, *others) = tensor.placements
    if others or mesh.size() != size or type(placement).__name__ != "Shard":
        raise NotImplementedError(
            f"{name!r} is spread as {tuple(tensor.placements)} over {mesh.size()} of {size} processes: files are "
            "written together of what is sharded over all of them; take torch.distributed.checkpoint"
        )
    weight, dim = weight_of(tensor), placement.dim
    part = as_sent(weight.codes.detach()) if weight is not None else local.detach()
    length = -(-tensor.shape[dim] // size)
    shape = [length if d == dim else n for d, n in enumerate(tensor.shape)]
    padded = part.new_zeros(shape, device=tensor.device_mesh.device_type)  # shards of cards may be on the CPU
    padded.narrow(dim, 0, part.shape[dim] if part.numel() else 0).copy_(part.narrow(dim, 0, part.shape[dim]))
    is_owner = dist.get_rank(group) == owner
    parts = [torch.empty_like(padded) for _ in range(size)] if is_owner else None
    with reaching("the processes that save a model"):
        dist.gather(padded, parts, group=group, group_dst=owner)
    if parts is None:
        return None
    whole = torch.cat(parts, dim).narrow(dim, 0, tensor.shape[dim]).contiguous()
    if weight is None:
        return whole
    scales = weight._span.whole if weight._span.whole is not None else weight._span.low
    codes = whole.view(weight.codes.dtype)
    found = LNSWeight(codes, weight.fmt, scales, weight.dtype, group_size=weight.group_size)
    found.fit = weight.fit
    return found


def _check_alike(path: str, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None, group: Any) -> None:
    """Compare what each process is about to save: a tensor that others lack might be nobody's."""
    told = {"path": path, "metadata": repr(sorted((metadata or {}).items()))}
    for name, tensor in tensors.items():
        weight = weight_of(tensor)
        kind = tensor.dtype if weight is None else f"{weight.fmt.name}{weight.fit.in_words()}"
        told[repr(name)] = f"{kind} of shape {tuple(tensor.shape)}"
    found = compare("what is saved", told, group)
    if found is not None:
        raise RuntimeError(f"{found}: the processes save one model together, under one path, so call it alike on each")


def _write(target: Path, number: str, own: Mapping[str, torch.Tensor], metadata: Any, packed: bool) -> _Written:
    """Write one file of the set under the name that its bytes give it."""
    stem = target.name.removesuffix(".safetensors")
    suffix = target.name[len(stem) :]
    begun = target.with_name(f".{stem}-{number}-begun{suffix}")
    try:
        told = {name: describe(name, tensor, packed=packed) for name, tensor in own.items()}
        save_tensors(begun, told, lambda name: in_blocks(elements(own[name])), metadata=metadata)
        with open(begun, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()[:_HASH_DIGITS]
        shard = target.with_name(f"{stem}-{content}-{number}{suffix}")
        is_new = not shard.exists()
        begun.replace(shard)
    finally:
        begun.unlink(missing_ok=True)
    return _Written(shard.name, _stored_in(shard), is_new)


def _stored_in(file: Path) -> dict[str, int]:
    """The names in a safetensors file, which may be others than those of the tensors, and the bytes of each."""
    with open(file, "rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    places = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: end - begin for name, (begin, end) in places.items()}


def _commit(target: Path, index: Path, weight_map: Mapping[str, str], size: int) -> None:
    """Put the index in its place, and delete the set or the file that it replaces."""
    old = _files_of_ours(target, index)
    with replacing(index, target) as temporary:
        content = {"metadata": {"total_size": size}, "weight_map": dict(weight_map)}
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    target.unlink(missing_ok=True)
    for name in old - set(weight_map.values()):
        with contextlib.suppress(OSError):
            target.with_name(name).unlink()


def _files_of_ours(target: Path, index: Path) -> set[str]:
    """The files that an index names and that have a name of ours: it may name anything, and only these are deleted."""
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return set()
    stem = target.name.removesuffix(".safetensors")
    ours = re.compile(
        rf"{re.escape(stem)}-[0-9a-f]{{{_HASH_DIGITS}}}-\d{{5,}}-of-\d{{5,}}{re.escape(target.name[len(stem) :])}"
    )
    return {name for name in named if isinstance(name, str) and ours.fullmatch(name)}
