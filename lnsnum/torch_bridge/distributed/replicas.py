"""DistributedDataParallel: every process has the whole model, and must have the same one.

    when it is made        names, shapes and formats are compared, then codes and scales of process 0 go to all
    first forward          codes and scales are compared (`lnsnum.torch_bridge.surroundings`)
    first step of Madam    options, seeds among them, the order of the parameters and the state are compared
    every n-th step        where `compare_replicas` was asked for, all parameters are

Gradients alone are exchanged afterwards: the same codes, gradients and random bits give the same codes everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from lnsnum.torch_bridge.distributed.exchange import Told, compare, difference, hear, reaching, tell
from lnsnum.torch_bridge.kernels.codes import as_numpy
from lnsnum.torch_bridge.weight import LNSWeight

_groups = WeakIdKeyDictionary()
"""The process group of each parameter of a model with LNS weights that was wrapped."""


def _on_registration(module: nn.Module, name: str, child: nn.Module | None) -> None:
    """Called by torch for each module that becomes another's: of the wrapper, before its first collective."""
    if isinstance(module, DistributedDataParallel) and name == "module" and child is not None:
        _check_models(child, module.process_group, module.parameters_to_ignore)


register_module_module_registration_hook(_on_registration)


def _check_models(model: nn.Module, group: Any, ignored: Iterable[str]) -> None:
    """Compare what is to be wrapped. A process whose model has no LNS weights tells of it, and does not wait: those of
    the others may be no users of lnsnum at all.

    Raises:
        RuntimeError: where they differ, on each process that has LNS weights.
    """
    left = set(ignored)
    parameters = {name: p for name, p in model.named_parameters() if name not in left}
    told = {repr(name): _kind_of(p) for name, p in parameters.items()}
    if not any(isinstance(p, LNSWeight) for p in parameters.values()):
        with contextlib.suppress(Exception):  # whatever fails is of no concern to floats
            tell("model", told, group)
        return
    heard = hear("model", tell("model", told, group), group)
    found = difference(heard, dist.get_process_group_ranks(group))
    if found is not None:
        if not all(any("lns" in kind for kind in told.values()) for told in heard):
            _release(parameters.values(), group)
        raise RuntimeError(f"{found}: DistributedDataParallel takes one model, converted alike on every process")
    for p in parameters.values():
        _groups[p] = group


def _kind_of(p: torch.Tensor) -> str:
    """All of a parameter but its values, in words."""
    shape = f"of shape {tuple(p.shape)}" + ("" if p.requires_grad else ", frozen")
    if not isinstance(p, LNSWeight):
        return f"{p.dtype} {shape}"
    offsets = p.scale.offsets
    scales = "" if offsets is None else f", with log_offsets of shape {tuple(offsets.shape)}"
    return f"{p.fmt.name} as {p.dtype} {shape}{scales}"


def _release(parameters: Iterable[torch.Tensor], group: Any) -> None:
    """Let processes of floats, which have gone on to compare the number of parameters in torch, fail there: with one
    more than there are."""
    from torch._C._distributed_c10d import _verify_params_across_processes  # which not every torch has

    plain = [torch.empty(0, device=p.device) for p in parameters]
    with contextlib.suppress(RuntimeError):
        _verify_params_across_processes(group, [*plain, plain[0]], None)


def groups_of(parameters: Iterable[torch.Tensor]) -> tuple[Any, ...]:
    """The group of the first parameter that is part of such a model; none where none is, or its group was destroyed."""
    group = next((_groups[p] for p in parameters if p in _groups), None) if _groups else None
    return (group,) if group is not None and group in dist.distributed_c10d._world.pg_map else ()


def check_optimizers(told: Told, *groups: Any) -> None:
    """Compare what the processes' optimizers are, each told in words, in groups that are the dimensions of a mesh.

    Raises:
        RuntimeError: where they differ, on every process.
    """
    found = compare("optimizer", told, *groups)
    if found is not None:
        raise RuntimeError(
            f"Madam's {found}: the processes of DistributedDataParallel or fully_shard would come to differ, so make "
            "it with the same options and the parameters in the same order, or load the same state"
        )


def digest(tensors: Iterable[Any]) -> str:
    """A hash of the bytes of tensors, and of the texts and numbers among them."""
    hashed = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor):
            memory = tensor.detach().cpu().contiguous()
            hashed.update(as_numpy(memory.reshape(-1).view(torch.uint8)).tobytes())
        else:
            hashed.update(repr(tensor).encode())
    return hashed.hexdigest()


def _digest_of(p: torch.Tensor) -> str:
    if not isinstance(p, LNSWeight):
        return digest([p])
    scale = p.scale
    return digest([p.codes, scale.low if scale.offsets is None else scale.offsets])


def compare_replicas(model: nn.Module, optimizer: Optimizer, *, every: int = 100) -> RemovableHandle:
    """Compare a hash of all parameters between the processes after each `every`-th step of an optimizer.

    For debugging: what makes processes differ (another learning rate, a gradient that was changed on one of them, a
    write to a weight) shows at once. It costs the time to hash the model, and a few bytes on the wire.

    Args:
        model: the module in DistributedDataParallel.
        optimizer: the one whose steps are counted.
        every: after how many steps.

    Returns:
        The hook; its `remove()` ends it. It raises RuntimeError on every process where parameters differ.

    Raises:
        TypeError: where model is no DistributedDataParallel.
        ValueError: for an `every` below 1.
    """
    if not isinstance(model, DistributedDataParallel):
        raise TypeError(f"model is a {type(model).__name__}, not a DistributedDataParallel, which keeps replicas")
    if every < 1:
        raise ValueError(f"every={every} is out of range: 1 or more steps")
    steps = 0

    def compare(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps % every == 0:
            _compare(model, steps)

    return optimizer.register_step_post_hook(compare)


def _compare(model: DistributedDataParallel, steps: int) -> None:
    names = {repr(name): p for name, p in model.module.named_parameters() if name not in model.parameters_to_ignore}
    own = {name: _digest_of(p) for name, p in names.items()}
    group, device = model.process_group, next(iter(names.values())).device
    mark = torch.frombuffer(bytearray.fromhex(digest(own.items())), dtype=torch.int64).to(device)
    marks = [torch.empty_like(mark) for _ in range(dist.get_world_size(group))]
    with reaching("the processes that have replicas"):
        dist.all_gather(marks, mark, group=group)
    if all(torch.equal(mark, other) for other in marks):
        return
    found = compare("replicas", own, group)
    raise RuntimeError(
        f"after {steps} steps the hash of {found}: something has changed a parameter, its gradient or an option of the "
        "optimizer on one process alone"
    )
