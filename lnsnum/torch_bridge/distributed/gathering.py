"""fully_shard: the hooks by which its shards are gathered as codes, a byte for each weight, and never as floats.

    shard                 the codes of some rows, padded to as many as every process has; one scale, or all of the whole
    before the gathering  its codes, as bytes
    after it              an LNSWeight on the memory into which they were gathered, at the shard's scales

Scales are not gathered: each process knows those of the whole, since what changes them is decided by sums over all.
So they have to be the same at first, and formats too: the processes compare what they sharded before they gather it.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import torch

from lnsnum.torch_bridge.distributed.exchange import announce, compare
from lnsnum.torch_bridge.distributed.first_broadcast import as_sent
from lnsnum.torch_bridge.kernels.codes import as_numpy
from lnsnum.torch_bridge.kernels.codes_twin import is_real
from lnsnum.torch_bridge.kernels.scale import Scale, Span

Weight = Any
"""An LNSWeight. (Its class is made of what is here.)"""

_FULLY_SHARD = "torch.distributed.fsdp._fully_shard"


def is_fully_shard(caller: FrameType | None) -> bool:
    """Whether an operation was called for by fully_shard's own code."""
    return caller is not None and caller.f_globals.get("__name__", "").startswith(_FULLY_SHARD)


class _Sharded:
    """What this process has of a weight that was sharded, until it is compared; its log_offset may be set meanwhile, as
    before a checkpoint is loaded."""

    def __init__(self, kind: str, span: Span) -> None:
        # no weak reference: which of the processes still has a model that was given up is chance
        self.kind, self.span = kind, span

    def in_words(self) -> str:
        span = self.span
        if span.whole is None:
            return f"{self.kind} at log_offset {span.low}"
        content = as_numpy(span.whole.cpu().contiguous()).tobytes() if is_real(span.whole) else b""
        return f"{self.kind} at log_offsets hashed {hashlib.blake2b(content, digest_size=8).hexdigest()}"


_untold: dict[str, list[_Sharded]] = {}
"""What was sharded within each group of processes, by its name, and not compared yet."""


def new_shard(weight: Weight, size: Any, caller: FrameType | None = None) -> Weight:
    """Memory for a shard of a weight, or for another shard in the place of one: zeros, of `size`, with padding."""
    offsets, group_size = weight.scale.offsets, weight.group_size
    if group_size is not None and (weight.scale.axis != -1 or size[-1] != weight.shape[-1]):
        raise NotImplementedError(
            f"a weight of shape {tuple(weight.shape)} with a log_offset for each group of {group_size} elements along "
            f"dimension {weight.ndim + weight.scale.axis} is cut through its groups: shard it by another dimension, or "
            "convert the model with one for each weight, or with per_channel=True"
        )
    low: int | torch.Tensor = weight.scale.low
    if offsets is not None:
        shape = [1 if count == 1 else length for count, length in zip(offsets.shape, size, strict=True)]
        if group_size is not None:
            shape[-1] = offsets.shape[-1]
        low = offsets.new_full(shape, weight.scale.low)
    shard = type(weight)(weight.codes.new_zeros(size), weight.fmt, low, weight.dtype, group_size=group_size)
    span: Span = weight._span
    shard._span.set(span.low, span.high)  # of the whole, whichever scales these elements have
    shard._span.is_shard, shard._span.fit = True, span.fit
    shard._span.whole = offsets.clone() if span.whole is None and offsets is not None else span.whole
    if caller is not None and caller.f_code.co_name == "_init_sharded_param":  # of all processes, in the same order
        group = getattr(caller.f_locals["self"].mesh_info, "shard_process_group", None)
        if group is not None:
            announce()
            groups = "" if group_size is None else f" in groups of {group_size}"
            kind = f"{weight.fmt.name} as {weight.dtype} of shape {tuple(weight.shape)}{groups}{span.fit.in_words()}"
            _untold.setdefault(group.group_name, []).append(_Sharded(kind, shard._span))
    elif span.is_shard:  # padded anew, on those processes alone that have less rows than others
        for one in (one for untold in _untold.values() for one in untold if one.span is span):
            one.span = shard._span
    return shard


def _compare_shards(group: Any) -> None:
    """Compare what the processes of a group sharded since they compared last. Raises RuntimeError on each of them."""
    untold = _untold.pop(group.group_name, None)
    if untold is None:
        return
    told = {f"weight {place} of those that were sharded": one.in_words() for place, one in enumerate(untold)}
    found = compare("shards", told, group)
    if found is not None:
        raise RuntimeError(
            f"{found}: codes are gathered as they are, so every process has to convert the model alike: seed it alike, "
            "or load it, before fully_shard"
        )


def forget_shards(group: Any) -> None:
    """Compare nothing of what was sharded so far within a group, since its processes were refused it."""
    _untold.pop(group.group_name, None)


def check_dense(weight: Weight, sparse: bool) -> None:
    """Refuse sparse gradients of an embedding that was gathered, which torch would get stuck in, in its own words.

    Raises:
        NotImplementedError: with what to do instead.
    """
    if sparse and weight._span.is_gathered:
        raise NotImplementedError(
            "fully_shard adds gradients of whole weights, and sparse=True makes those of rows: make the embedding with "
            "sparse=False, or take DistributedDataParallel"
        )


def fill_shard(shard: Weight, source: Weight) -> Weight:
    """Put the elements of a part of a weight, with their scales, into a view of a new shard."""
    shard.codes.copy_(source.codes)
    if shard._offsets is not None:
        shard._offsets.copy_(source.scale.offsets)
    shard._span.set(source._span.low, source._span.high)
    return shard


class Gathered(NamedTuple):
    """What is known of a weight besides its codes."""

    scale: Scale
    """Of the whole."""
    size: torch.Size


class GatheredAsCodes:
    """What fully_shard calls on a shard, for `LNSWeight`, which inherits it."""

    codes: torch.Tensor
    fmt: Any
    _span: Span
    _groups: tuple[int, int]

    @property
    def fsdp_pre_all_gather(self) -> Callable[..., Any]:
        """Gives the codes of this shard with their padding, as bytes, and what is known besides."""
        hook = functools.partial(_before_gathering, self)
        # torch asks for the signature before each gathering, and to find that of a method takes longer than the rest
        vars(hook)["__signature__"] = _SIGNATURE
        return hook

    def fsdp_post_all_gather(
        self, outputs: tuple[torch.Tensor, ...], gathered: Gathered, dtype: torch.dtype, *, out: Any = None
    ) -> tuple[Weight, tuple[torch.Tensor, ...]] | None:
        """The weight on the memory of `outputs`, which appears as `dtype`; `out` is that of an earlier time."""
        scale, size = gathered
        if out is not None:  # on the same memory, which has been filled again
            if out.scale.offsets is None and out.scale.low != scale.low:
                out._span.set(scale.low, scale.high)
            elif scale.offsets is not None and not torch.equal(out.scale.offsets, scale.offsets):
                out.set_scale(scale)
            return None
        (memory,) = outputs
        codes = memory.view(self.codes.dtype).view(-1)[: size.numel()].view(size)
        kind: Any = type(self)
        offsets = scale.low if scale.offsets is None else scale.offsets
        weight = kind(codes, self.fmt, offsets, dtype, group_size=scale.group_size or None)
        weight._span.is_gathered, weight._span.fit = True, self._span.fit
        return weight, ()


def _before_gathering(
    shard: Weight, mesh: Any, outer_size: torch.Size, outer_stride: Any, module: Any, mp_policy: Any
) -> tuple[tuple[torch.Tensor, ...], Gathered]:
    if _untold:  # before each gathering: to find the group takes longer than the rest
        _compare_shards(mesh.get_group())
    span = shard._span
    scale = Scale(span.low, span.high, span.whole, *(shard._groups if span.whole is not None else ()))
    if span.rows is None:  # a mesh counts its processes anew each time
        span.rows = -(-outer_size[0] // mesh.size())
    return (as_sent(_padded(shard.codes.detach(), outer_size, span.rows)),), Gathered(scale, outer_size)


_SIGNATURE = inspect.signature(functools.partial(_before_gathering, None))


def _padded(codes: torch.Tensor, whole: torch.Size, rows: int) -> torch.Tensor:
    """As many rows as every process sends: those that the memory has behind the codes."""
    if codes.shape[0] == rows or codes.shape[1:] != whole[1:]:  # sharded by another dimension, which divides
        return codes.contiguous()
    shape = torch.Size([rows, *whole[1:]])
    if codes.untyped_storage().nbytes() - codes.storage_offset() * codes.itemsize >= shape.numel() * codes.itemsize:
        return codes.as_strided(shape, torch.empty(shape, device="meta").stride())
    padded = codes.new_zeros(shape)
    padded[: len(codes)] = codes
    return padded
