"""fully_shard: which LNS weights each process has shards of, compared before torch gathers what it has.

    Madam is made           all tell, and wait for all
    first forward           those that converted the model tell, and wait for all: what they would gather next are codes
                            those of floats tell, and wait for those that have announced codes: else for nobody

A process that did not convert its model runs nothing of ours in a forward: torch gathers what it has, and would wait
for the others, who wait for its word. torch tells nobody of a forward, so the class of its states is watched. Where no
process has codes nothing of this may be felt: most of them may not have imported lnsnum, and time out while one waits.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from lnsnum.torch_bridge.distributed.dtensors import groups_of, local_of, weight_of
from lnsnum.torch_bridge.distributed.exchange import FOUND, Told, announced, compare, difference, hear, tell
from lnsnum.torch_bridge.distributed.gathering import forget_shards

FLOATS_WAIT = timedelta(seconds=60)
"""How long a process of floats waits at most for those that have announced codes: these may be of another model."""

_SUBJECT = "parameters"


def check_conversion(parameters: Iterable[torch.Tensor]) -> None:
    """Compare which LNS weights the processes have shards of: who did not convert the model has nothing to compare when
    the others gather theirs, and would wait for them in another collective than they for it.

    Raises:
        RuntimeError: on every process, where one has others.
        LostError: where one has told nothing within the group's timeout.
    """
    cut = [p for p in parameters if local_of(p) is not None]
    groups = groups_of(cut)
    found = compare(_SUBJECT, _told_of(cut), *groups)
    if found is not None:
        _refuse(found, groups[0])


def _told_of(cut: Iterable[torch.Tensor]) -> Told:
    told: Told = {}
    for p in cut:
        weight = weight_of(p)
        if weight is not None:
            size = "" if weight.group_size is None else f" in groups of {weight.group_size}"
            told[f"LNS weight {len(told)}"] = f"{weight.fmt.name} of shape {tuple(p.shape)}{size}"
    return {"the number of LNS weights": str(len(told)), **told}


def _refuse(found: str, group: Any) -> NoReturn:
    forget_shards(group)
    raise RuntimeError(f"{found}: every process has to convert the model alike, before fully_shard")


def _check_before(state: Any) -> None:
    """Compare the parameters of the module whose first forward begins, with those who gather them together: replicas
    may forward later, or never.

    Raises:
        RuntimeError: on every process, where one has other LNS weights than the others.
        LostError: where this one has LNS weights, and another has told nothing within the group's timeout.
    """
    cut = [p for module in getattr(state, "_modules", ()) for p in module.parameters() if local_of(p) is not None]
    if any(weight_of(p) is not None for p in cut):
        group = groups_of(cut)[0]
        found = compare(_SUBJECT, _told_of(cut), group)
    elif cut:
        found = group = None
        # whatever fails is of no concern to floats: their spread, which shards of codes may not have, or their store
        with contextlib.suppress(Exception):
            group = groups_of(cut)[0]
            found = _heard_of_codes(_told_of(cut), group)
    else:
        return
    if found is not None:
        _refuse(found, group)


def _heard_of_codes(told: Told, group: Any) -> str | None:
    """Tell that this process has floats; in words, how those differ that have announced codes."""
    number = tell(_SUBJECT, {**told, FOUND: ""}, group)  # as `compare` tells: what others compare may be a Madam's
    own, ranks = dist.get_rank(group), announced(group)
    if set(ranks) <= {own}:
        return None
    ranks = sorted({own, *ranks})
    heard = hear(_SUBJECT, number, group, FLOATS_WAIT, ranks)
    return difference(heard, [dist.get_global_rank(group, rank) for rank in ranks])


def _watch(kind: Any) -> None:
    """Let states of fully_shard compare before they begin, once, and so before they gather."""
    begin = getattr(kind, "_lazy_init", None)
    if begin is None:  # a torch that begins otherwise: where Madam is made they compare all the same
        return
    if getattr(begin, "compares", False):  # this module was imported before
        begin = begin.__wrapped__

    @functools.wraps(begin)
    def lazy_init(state: Any) -> None:
        if getattr(state, "_is_root", False) is None:
            _check_before(state)
        begin(state)

    vars(lazy_init)["compares"] = True
    kind._lazy_init = lazy_init


_STATES = "torch.distributed.fsdp._fully_shard._fsdp_state"


def _watch_states() -> None:
    """Watch the class of states, now or as soon as torch makes it: it takes seconds to import, which a model on one
    process need not wait for."""
    if _STATES in sys.modules:
        _watch(sys.modules[_STATES].FSDPState)
        return
    try:
        from torch.distributed._composable_state import _State
    except ImportError:  # a torch that has it elsewhere: where Madam is made they compare all the same
        return

    def on_class(kind: Any, /, **arguments: Any) -> None:
        """Called by Python for each class of states that torch makes."""
        super(_State, kind).__init_subclass__(**arguments)
        if kind.__module__ == _STATES and kind.__name__ == "FSDPState":
            _watch(kind)

    _State.__init_subclass__ = classmethod(on_class)  # type: ignore[assignment]


_watch_states()
