"""Where torch is when it comes to a weight: what would make floats of codes there, or let processes differ, is refused.

    in torch's sharding                 but for fully_shard, its shards would be floats, and train as such
    while torch.jit traces              the graph would hold a parameter without memory
    in torch.export's taking apart      it makes parameters of codes, which can have no gradient, and loses tables
    in DistributedDataParallel          it exchanges gradients, so every process must have the same codes: compared once

Each operation on a weight asks. Nothing else could: torch's sharding takes parameters through plain operations, and
tells nobody.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch._compile import _disable_dynamo
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import _disable_current_modes

from lnsnum.torch_bridge.distributed.exchange import hear, tell
from lnsnum.torch_bridge.kernels.codes import as_numpy

_FULLY_SHARDED = (
    "FullyShardedDataParallel would make floats of LNS weights: shard the converted model by fully_shard, or "
    "decode_model it first"
)

_TENSOR_PARALLEL = (
    "a DTensor, which distribute_tensor and parallelize_module make, cannot hold LNS weights but those of fully_shard: "
    "train the converted model in fully_shard or DistributedDataParallel, or decode_model it first"
)

_SHARDING = {
    "torch.distributed.fsdp": _FULLY_SHARDED,
    "torch.distributed._composable": _FULLY_SHARDED,
    "torch.distributed.tensor": _TENSOR_PARALLEL,
    "torch.distributed._tensor": _TENSOR_PARALLEL,
}
"""By the beginning of a module's name, what it would do."""

_SPREAD = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}

_TRACED_FORWARD = nn.Module._slow_forward.__code__
"""What calls a module's forward while torch.jit traces, and then alone."""

_agreed: WeakSet[nn.Module] = WeakSet()
"""Those of DistributedDataParallel in which the processes were found to have the same codes."""


def check_surroundings(kind: type, arguments: tuple[Any, ...]) -> None:
    """Refuse an operation on weights, of class `kind`, by who calls for it: the caller of `__torch_dispatch__`.

    Raises:
        NotImplementedError: within torch's sharding, and while torch.jit traces.
        RuntimeError: within the forward of DistributedDataParallel, where the processes have other codes or scales, or
            where a weight came into the model after it was wrapped.
    """
    caller = sys._getframe(2).f_back  # none where autograd's own thread calls
    if caller is not None:
        name: str = caller.f_globals.get("__name__", "")
        if name.startswith("torch.distributed."):
            for beginning, why in _SHARDING.items():
                if name.startswith(beginning) and not _may_shard(name, kind, arguments):
                    raise NotImplementedError(why)
        user = caller.f_back
        # While it runs an operation, torch.jit hides that it traces. What it calls modules by, it does not hide.
        if torch.jit._trace._trace_module_map is not None or (user is not None and user.f_code is _TRACED_FORWARD):
            raise NotImplementedError(
                "torch.jit cannot trace LNS weights: take torch.compile, or trace lnsnum.torch_bridge.for_export(model)"
            )
    wrapper = DistributedDataParallel._active_ddp_module
    if wrapper is not None and wrapper not in _agreed:
        with _disable_current_modes():  # the compiler's: it asks when it traces, and real codes are compared
            _check_agreement(wrapper, kind)
        _agreed.add(wrapper)


def check_not_taken_apart() -> None:
    """Refuse what a weight is made of to torch.export, which would make parameters of it: by who calls the caller.

    Raises:
        TypeError: within `run_decompositions`, or torch's `unwrap_tensor_subclass_parameters`.
    """
    caller = sys._getframe(2)
    if caller.f_globals.get("__name__") == "torch._functorch._aot_autograd.subclass_parametrization":
        # no NotImplementedError: torch's parametrization would take that for leave to go on without
        raise TypeError(
            "torch.export cannot take LNS weights apart, as run_decompositions, AOTInductor and ONNX want: export "
            "lnsnum.torch_bridge.for_export(model), whose weights are codes in plain buffers"
        )


def _may_shard(module: str, kind: type, arguments: tuple[Any, ...]) -> bool:
    """Whether code of torch's sharding may have a weight: fully_shard any, a DTensor the shards that this makes."""
    if module.startswith("torch.distributed.fsdp._fully_shard"):
        return True
    weights: list[Any] = [one for argument in arguments for one in _leaves(argument) if isinstance(one, kind)]
    return module.startswith("torch.distributed.tensor") and all(weight._span.is_shard for weight in weights)


def _leaves(argument: Any) -> list[Any]:
    return [leaf for part in argument for leaf in _leaves(part)] if isinstance(argument, (tuple, list)) else [argument]


def level_of_the_caller() -> int:
    """How many calls up is the first line that is neither ours nor torch's, as `warnings.warn` counts them."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("lnsnum", "torch"):
        level, frame = level + 1, frame.f_back
    return level + 1


def check_module(model: object) -> None:
    """Raise TypeError where `model` is no module, as where a path stands in its place."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")


def spread_over_processes(model: nn.Module) -> str | None:
    """The class of the first module by which torch has spread a model over processes; None where none has."""
    for module in model.modules():
        spread = _SPREAD & {c.__name__ for c in type(module).__mro__}
        if spread:
            return min(spread)
    return None


def is_spread(parameter: torch.Tensor) -> bool:
    """Whether a parameter is a part of one that other processes hold the rest of: a DTensor, or one of FSDP's."""
    return bool({"DTensor", "FlatParameter"} & {c.__name__ for c in type(parameter).__mro__})


@_disable_dynamo  # in a compiled wrapper it would be compiled as well
def _check_agreement(wrapper: DistributedDataParallel, kind: type) -> None:
    weights = {name: p for name, p in wrapper.module.named_parameters() if isinstance(p, kind)}
    exchanged = {id(p) for p in wrapper._module_parameters}
    for name, weight in weights.items():
        if id(weight) not in exchanged and name not in wrapper.parameters_to_ignore:
            raise RuntimeError(
                f"{name!r} came into the model after DistributedDataParallel was made, which exchanges gradients of "
                "what was there: convert or load the model first, then wrap it"
            )
    own = {name: _digest(weight) for name, weight in weights.items()}
    group = wrapper.process_group
    everywhere = hear("codes", tell("codes", own, group), group)
    first = everywhere[0]
    for rank, other in enumerate(everywhere):
        differing = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if differing:
            raise RuntimeError(
                f"{differing[0]!r} has other codes, or another scale, on process {rank} than on process 0: "
                "DistributedDataParallel exchanges gradients alone, so leave its init_sync on, and change no weight of "
                "one process alone"
            )


def _digest(weight: Any) -> str:
    """Of all that a weight's values come from: format, scale and codes."""
    scale = weight.scale
    digest = hashlib.blake2b(repr((weight.fmt, scale.low, scale.high)).encode(), digest_size=16)
    for tensor in (weight.codes, scale.offsets):
        if tensor is not None:
            digest.update(as_numpy(tensor.detach().cpu().contiguous()).tobytes())
    return digest.hexdigest()
