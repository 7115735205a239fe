"""What the processes of a group tell each other before they compute together: texts, by the group's key-value store.

    tell     leave this process's text where the others find it, and wait for nobody
    hear     the texts of all, by rank, as soon as all have told theirs
    compare  both, and in words what differs: of a mesh, along one of its dimensions after another
    announce that this process has LNS weights: whoever has none waits for those alone who have

No collective: whoever has nothing to compare need not wait, and who is missing after the group's timeout is named.
Where collectives are called, a process that has gone is told of in one sentence by `reaching`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

if dist.is_available():
    from torch.distributed.distributed_c10d import _get_default_store, _get_process_group_store

Told = dict[str, str]
"""What a process says of things by their names."""


class LostError(RuntimeError):
    """A process that others need has ended, or does not answer."""


_LOST = re.compile(r"gloo|NCCL|[Cc]onnection (was )?(closed|reset|refused)|[Tt]imed? ?out|Broken pipe")
"""What the backends say then: they have no error of their own for it."""


@contextlib.contextmanager
def reaching(whom: str) -> Iterator[None]:
    """Name those whom collectives in this block wait for, where these fail.

    Raises:
        LostError: where one of them has ended, or has not come that far within the group's timeout.
    """
    try:
        yield
    except RuntimeError as error:
        told = str(error)
        if isinstance(error, LostError) or not (isinstance(error, dist.DistError) or _LOST.search(told)):
            raise
        said = told.strip().split("\n")[0]
        raise LostError(
            f"one of {whom} has ended, or has not come this far within the timeout ({said}): look at what it said, and "
            "go on from the last checkpoint, with all of them"
        ) from error


def tell(subject: str, told: Told, group: Any) -> int:
    """Tell the others of a subject; returns which time that is, by which they are heard.

    Raises:
        LostError: where the group's store takes nothing, since its process has ended, or it is a store for show.
    """
    store, rank = _get_process_group_store(group), dist.get_rank(group)
    try:
        number = store.add(f"lnsnum/{subject}/{rank}", 1)
        store.set(f"lnsnum/{subject}/{number}/{rank}", json.dumps(told))
    except RuntimeError as error:
        said = str(error).strip().split("\n")[0]
        raise LostError(
            f"the key-value store of the processes takes nothing of what this one tells of its {subject} ({said}): "
            "its process has to live, and init_process_group to be given a store that keeps what it gets"
        ) from error
    return int(number)


def hear(
    subject: str, number: int, group: Any, patience: timedelta | None = None, ranks: Sequence[int] | None = None
) -> list[Told]:
    """What each process of a group told of a subject the same time, or each of those `ranks` in it.

    Raises:
        LostError: where one has not within the group's timeout, or `patience` where that is less.
    """
    store: Any = _get_process_group_store(group)
    # the store has a timeout of its own, which is longer where the user made it; and not every backend has options
    options: list[Any] = [getattr(group._get_backend(device), "options", None) for device in group._device_types]
    own = [one._timeout for one in options if hasattr(one, "_timeout")]
    patience = min([store.timeout, *own, *([] if patience is None else [patience])])
    heard = []
    for rank in range(dist.get_world_size(group)) if ranks is None else ranks:
        key = f"lnsnum/{subject}/{number}/{rank}"
        try:
            store.wait([key], patience)
        except RuntimeError as error:
            raise LostError(
                f"process {dist.get_global_rank(group, rank)} has told nothing of its {subject} for "
                f"{patience.total_seconds():.0f} s: every process of a group has to come this far, with the same "
                "version of lnsnum"
            ) from error
        heard.append(json.loads(store.get(key)))
    return heard


def announce() -> None:
    """Say that this process has LNS weights, if there are others to whom it can be said."""
    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(Exception):  # a store that takes nothing is told of where it is needed
            _get_default_store().set(f"lnsnum/announced/{dist.get_rank()}", "")


def announced(group: Any) -> list[int]:
    """The ranks of a group's processes that have announced LNS weights by now; waits for nobody."""
    store, ranks = _get_default_store(), dist.get_process_group_ranks(group)
    return [rank for rank, each in enumerate(ranks) if store.check([f"lnsnum/announced/{each}"])]


def difference(heard: list[Told], ranks: Sequence[int] | None = None) -> str | None:
    """In words, the first thing that a process has told otherwise than the first did; None where there is none.
    `ranks` are the names of the processes, where these are not numbered from 0.

    >>> difference([{"seed": "0"}, {"seed": "0"}, {"seed": "1"}])
    'seed is 1 on process 2 and 0 on process 0'
    >>> difference([{}, {"seed": "0"}], [1, 3])
    'seed is 0 on process 3 and missing on process 1'
    """
    first = heard[0]
    for rank, told in zip(ranks or range(len(heard)), heard, strict=True):
        for name in {**first, **told}:
            own, other = first.get(name, "missing"), told.get(name, "missing")
            if own != other:
                return f"{name} is {other} on process {rank} and {own} on process {ranks[0] if ranks else 0}"
    return None


def compare(subject: str, told: Told, *groups: Any, found: str | None = None) -> str | None:
    """Tell a subject in one group after another, and hear it: the first `difference`, the same on all of a mesh whose
    dimensions these groups are. `found` is what this process has found before, which the others learn then.

    Raises:
        LostError: as `hear`.
    """
    for group in groups:
        heard = hear(subject, tell(subject, {**told, FOUND: found or ""}, group), group)
        before = next((text for each in heard if (text := each.pop(FOUND, ""))), None)
        found = before or difference(heard, dist.get_process_group_ranks(group))
    return found


FOUND = "what was found"
"""Under what name `compare` tells what a process has found before."""
