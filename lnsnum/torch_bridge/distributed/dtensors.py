"""Madam's step of parameters that fully_shard has cut: DTensors, on shards of LNS weights or of floats.

Moments are DTensors too, cut alike, so that checkpoints put them together; what is one number for the whole is the same
on every process. `shard_step` says what is reduced; here it is, by all_reduce within the processes that share a weight.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from lnsnum.torch_bridge.distributed.exchange import Told, compare, difference, hear, reaching, tell
from lnsnum.torch_bridge.distributed.replicas import digest
from lnsnum.torch_bridge.distributed.shard_step import Launches, Numbers, Reductions, Shard, steps, unit_states
from lnsnum.torch_bridge.float_step import float_state, step_floats
from lnsnum.torch_bridge.step_state import COUNTS, GROWN, State, blank_state
from lnsnum.torch_bridge.weight import LNSWeight

_MOMENTS = "second_moment", "momentum"

Together = dict[tuple[Any, ...], list[int]]
"""Places of members by the groups of processes that share them."""


class Member(NamedTuple):
    """A parameter of the optimizer that is a DTensor."""

    p: Any
    group: dict[str, Any]
    stream: int
    state: State
    """The optimizer's, which is filled."""


def local_of(p: torch.Tensor) -> torch.Tensor | None:
    """What this process has of a DTensor; None of any other tensor."""
    return getattr(p, "_local_tensor", None)


def weight_of(p: torch.Tensor) -> LNSWeight | None:
    """The LNS weight that a parameter is, or of which it holds a shard; None of floats."""
    if isinstance(p, LNSWeight):
        return p
    local = local_of(p)
    return local if isinstance(local, LNSWeight) else None


def groups_of(parameters: Iterable[torch.Tensor]) -> tuple[Any, ...]:
    """The groups of processes by which the first parameter that is a DTensor is spread: of its shards, and on a mesh of
    two dimensions of the replicas of each; none where no parameter is."""
    first: Any = next((p for p in parameters if local_of(p) is not None), None)
    return () if first is None else _place_of(first).groups


def place_of_process(p: Any) -> dict[str, int]:
    """Which of those that have shards of a DTensor this process is, and how many they are."""
    group = _place_of(p).groups[0]
    return {"process": dist.get_rank(group), "processes": dist.get_world_size(group)}


def counted_together(states: Iterable[tuple[Any, State]]) -> list[int]:
    """The counts of the last step of DTensors, with the state of each, as of the whole. Scales that grew are counted by
    each process alike.

    By the key-value store: a process that does not count is in other collectives, which a reduction would meet.

    Raises:
        LostError: where another process has ended, or does not count.
        RuntimeError: on every process, where one counts another step.
    """
    own: dict[Any, list[State]] = {}
    for p, state in states:
        own.setdefault(_place_of(p).groups[0], []).append(state)
    whole = np.zeros(COUNTS, np.int64)
    for group, members in own.items():
        counted = [state for state in members if "counts" in state]
        counts = np.sum([state["counts"].tolist() for state in counted], axis=0, dtype=np.int64, initial=0)
        step = max((int(state["step"]) for state in counted), default=0)
        told = {"step": str(step), _COUNTED: json.dumps(np.broadcast_to(counts, COUNTS).tolist())}
        heard = hear(_COUNTED, tell(_COUNTED, told, group), group)
        every = np.array([json.loads(each.pop(_COUNTED)) for each in heard])
        found = difference(heard, dist.get_process_group_ranks(group))
        if found is not None:
            raise RuntimeError(
                f"the last {found}: call step_report(together=True) on every process, after the same step"
            )
        every[1:, GROWN] = 0
        whole += every.sum(0)
    return whole.tolist()


_COUNTED = "step_report"


def check_replicas(parameters: Iterable[torch.Tensor]) -> None:
    """Compare the shards that several processes have each, on a mesh of two dimensions: torch copies none of them.

    Raises:
        RuntimeError: on every process, where replicas of one shard have other codes, scales or floats.
    """
    spread: list[Any] = [p for p in parameters if local_of(p) is not None]
    cut = [p for p in spread if p.device_mesh.ndim > 1]
    if not cut:
        return
    told = {}
    for place, p in enumerate(cut):
        weight = weight_of(p)
        span = None if weight is None else weight._span
        scales = [] if span is None else [span.low if span.whole is None else span.whole]
        told[f"parameter {place}"] = digest([_local(p) if weight is None else weight.codes, *scales])
    shards, *replicas = groups_of(cut)
    found = None
    for group in replicas:
        ranks = dist.get_process_group_ranks(group)
        heard = hear("replicas of shards", tell("replicas of shards", told, group), group)
        differing = (
            (name, rank)
            for rank, each in zip(ranks, heard, strict=True)
            for name in told
            if each.get(name) != heard[0].get(name)
        )
        name, rank = next(differing, (None, 0))
        if name is not None:
            found = f"{name} has other codes, or another scale, on process {rank} than on process {ranks[0]}"
    found = compare("replicas of shards", {}, shards, found=found)  # which those of other shards have not seen
    if found is not None:
        raise RuntimeError(
            f"{found}, which have one shard of it: seed every process alike, or load the same, before fully_shard"
        )


def step_dtensors(members: list[Member], options: Told, launches: Launches) -> list[bool]:
    """One step of all that have a gradient; for each whether a scale should have grown, and could not.

    `options` are the numbers of the step in words, `launches` what was kept of the step before.

    Raises:
        RuntimeError: on every process, where one has others; the step has moved codes then.
    """
    together = _by_processes(members)
    _make_states(members, together)
    _check_gradients(members, together)
    blocked = [False] * len(members)
    floats: list[Member] = []
    for groups, own in together.items():
        codes, shards = [], []
        for k in own:
            member = members[k]
            if weight_of(member.p) is None:
                floats.append(member)
            else:
                codes.append(k)
                shards.append(_shard_of(member))
        numbers = _numbers_of([members[k] for k in own], options)
        answer = _answered(steps(shards, _mark_of(numbers), launches), groups, _device(members[own[0]].p))
        if answer is None:
            found = compare("numbers of a step", numbers, *groups)
            raise RuntimeError(
                f"Madam's {found}: this step has moved each shard by the numbers of its own process, so set the same "
                "on all, and go on from the last checkpoint"
            )
        for k, shard, is_blocked in zip(codes, shards, answer, strict=True):
            blocked[k] = is_blocked
            state = members[k].state
            state["units"], state["at"] = shard.state["units"], shard.state["at"]
    for member in floats:
        if member.p.grad is not None:
            step_floats(_local(member.p), _local(member.p.grad), _local_state(member), member.group)
    return blocked


def _numbers_of(members: list[Member], options: Told) -> Told:
    """What has to be the same on all processes in a step, in words: what it is made with, and of which parameters."""
    numbers = {f"step of parameter {m.stream}": str(int(m.state["step"])) for m in members if m.p.grad is not None}
    return {**options, **numbers}


def _mark_of(numbers: Told) -> int:
    """A hash of texts, 62 bits."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "little") >> 2


def make_states(members: list[Member]) -> None:
    """Make the state of those that have none, and the momentum where it is asked for anew."""
    _make_states(members, _by_processes(members))


def _make_states(members: list[Member], together: Together) -> None:
    for groups, own in together.items():
        new = [members[k] for k in own if not members[k].state and weight_of(members[k].p) is not None]
        units = _answered(unit_states([_shard_of(m) for m in new]), groups, _device(members[own[0]].p))
        for member, unit in zip(new, units, strict=True):
            dtype = torch.uint8 if member.group["second_moment"] == "byte" else torch.float32
            member.state.update({**blank_state(_zeros_like(member.p, dtype), member.stream), **unit})
    for p, group, _, state in members:
        if not state:  # of floats; the RMS of the whole, so that no order of a sum shows in it
            whole = float_state(p.full_tensor())
            state.update({**whole, "second_moment": _zeros_like(p, whole["second_moment"].dtype)})
        if group["momentum"] == 0:
            state.pop("momentum", None)
        elif "momentum" not in state:
            state["momentum"] = _zeros_like(
                p, torch.uint8 if weight_of(p) is not None else state["second_moment"].dtype
            )
            state["momentum_product"].fill_(1.0)


class _Place(NamedTuple):
    """How a DTensor lies on its mesh."""

    groups: tuple[Any, ...]
    """Of the processes that have shards of it, and of those that have replicas of each."""
    cut: int
    begin: int


_places: dict[int, tuple[weakref.ref[Any], Any, _Place]] = {}
"""The place of each DTensor that was asked for, by its id(), beside what it was found by: to find it takes longer than
its step, and so would a dictionary of torch's, whose keys are tensors."""


def _place_of(p: Any) -> _Place:
    key = id(p)
    known = _places.get(key)
    held: Any = None if known is None else known[0]()
    if known is None or held is not p or known[1] is not p._spec:
        known = _places[key] = weakref.ref(p, lambda _: _places.pop(key, None)), p._spec, _find_place(p)
    return known[2]


def _find_place(p: Any) -> _Place:
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    cut = [(dim, one.dim) for dim, one in enumerate(p.placements) if type(one).__name__ == "Shard"]
    others = [one for one in p.placements if type(one).__name__ not in ("Shard", "Replicate")]
    if others or len(cut) != 1:
        raise NotImplementedError(
            f"a parameter is spread as {tuple(p.placements)}: Madam steps what fully_shard cut along one dimension, "
            "on a mesh of one dimension, or of two for replicas"
        )
    _, begin = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
    (mesh_dim, dim), *_ = cut
    dims = [mesh_dim, *(d for d in range(p.device_mesh.ndim) if d != mesh_dim)]
    return _Place(tuple(p.device_mesh.get_group(d) for d in dims), dim, begin[dim])


def _by_processes(members: list[Member]) -> Together:
    """The places of the members that the same processes share, in the order of the optimizer."""
    found: Together = {}
    for k, member in enumerate(members):
        found.setdefault(_place_of(member.p).groups, []).append(k)
    return found


def shard_of(p: Any, state: State | None = None, group: dict[str, Any] | None = None) -> Shard:
    """The shard that a DTensor of an LNS weight holds, with what an optimizer has of it."""
    weight, place, grad = weight_of(p), _place_of(p), p.grad
    assert weight is not None
    own = None if grad is None else local_of(grad)
    return Shard(weight, own, state or {}, group or {}, p.shape, place.cut, place.begin)


def _shard_of(member: Member) -> Shard:
    return shard_of(member.p, _local_state(member), member.group)


def _local_state(member: Member) -> State:
    """The state with this process's moments; the numbers in it are the very tensors."""
    state = dict(member.state)
    for name in _MOMENTS:
        if name in state:
            state[name] = local_of(state[name])
    return state


def _zeros_like(p: Any, dtype: torch.dtype) -> torch.Tensor:
    from torch.distributed.tensor import DTensor

    local = _local(p)
    zeros = torch.zeros(local.shape, dtype=dtype, device=local.device)
    return DTensor.from_local(zeros, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride())


def _check_gradients(members: list[Member], together: Together) -> None:
    """Refuse gradients that are not finite, on every process, where that is asked for."""
    for groups, own in together.items():
        asked = [k for k in own if members[k].group["non_finite"] == "raise"]
        if not asked:
            continue

        def count(asked: list[int]) -> Reductions:
            bad = [0 if (g := members[k].p.grad) is None else int((~torch.isfinite(_local(g))).sum()) for k in asked]
            return (yield "sum", np.array(bad, np.int64))

        for k, bad in zip(asked, _answered(count(asked), groups, _device(members[own[0]].p)).tolist(), strict=True):
            if bad:
                shape = tuple(members[k].p.shape)
                raise FloatingPointError(f"{bad} elements of a gradient of shape {shape} are NaN or infinite")


def _local(p: Any) -> torch.Tensor:
    local = local_of(p)
    assert local is not None
    return local


def _device(p: Any) -> torch.device:
    """Where the processes of a mesh reduce: not on the CPU to which shards of graphics cards are offloaded."""
    return torch.device(p.device_mesh.device_type)


def _answered(asking: Reductions, groups: tuple[Any, ...], device: torch.device) -> Any:
    """Run a step of shards: reduce what it asks for over the processes that have shards. Raises LostError.

    Replicas of a shard have the same sums. Maxima are taken over them too, as by the numbers in these each process
    learns whether it is one of many that are alike.
    """
    answer: Numbers | None = None
    try:
        while True:
            how, numbers = asking.send(answer)  # type: ignore[arg-type]
            reduced = torch.from_numpy(numbers).to(device)
            with reaching("the processes that share a weight, in Madam's step,"):
                if how == "sum":
                    dist.all_reduce(reduced, dist.ReduceOp.SUM, group=groups[0])
                else:
                    for group in groups:
                        dist.all_reduce(reduced, dist.ReduceOp.MAX, group=group)
            answer = reduced.cpu().numpy()
    except StopIteration as done:
        return done.value
