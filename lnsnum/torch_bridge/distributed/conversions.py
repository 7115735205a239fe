"""fully_shard: which LNS weights each process has shards of, compared before torch gathers what it has.

    Madam is made           all tell, and wait for all
    first forward           those that converted the model tell, and wait for all: what they would gather next are codes
                            those of floats tell, and wait for a while: what they would gather next are floats

A process that did not convert its model runs nothing of ours in a forward: torch gathers what it has, and would wait
for the others, who wait for its word. torch tells nobody of a forward, so the class of its states is watched.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
from torch.distributed._composable_state import _State

from lnsnum.torch_bridge.distributed.dtensors import groups_of, local_of, weight_of
from lnsnum.torch_bridge.distributed.exchange import LostError, Told, compare
from lnsnum.torch_bridge.distributed.gathering import forget_shards

FLOATS_WAIT = timedelta(seconds=60)
"""How long a process of floats waits for the others, who may be no users of lnsnum, and tell nothing."""


def check_conversion(parameters: Iterable[torch.Tensor], patience: timedelta | None = None) -> None:
    """Compare which LNS weights the processes have shards of: who did not convert the model has nothing to compare when
    the others gather theirs, and would wait for them in another collective than they for it.

    Raises:
        RuntimeError: on every process, where one has others.
        LostError: where one has told nothing within the group's timeout, or `patience`.
    """
    cut = [p for p in parameters if local_of(p) is not None]
    told: Told = {}
    for p in cut:
        weight = weight_of(p)
        if weight is not None:
            size = "" if weight.group_size is None else f" in groups of {weight.group_size}"
            told[f"LNS weight {len(told)}"] = f"{weight.fmt.name} of shape {tuple(p.shape)}{size}"
    groups = groups_of(cut)
    found = compare("parameters", {"the number of LNS weights": str(len(told)), **told}, *groups, patience=patience)
    if found is not None:
        forget_shards(groups[0])
        raise RuntimeError(f"{found}: every process has to convert the model alike, before fully_shard")


def _check_before(state: Any) -> None:
    """Compare the parameters of the module whose first forward begins.

    Raises:
        RuntimeError: on every process, where one has other LNS weights than the others.
        LostError: where this one has LNS weights, and another has told nothing within the group's timeout.
    """
    cut = [p for module in state._modules for p in module.parameters() if local_of(p) is not None]
    if any(weight_of(p) is not None for p in cut):
        check_conversion(cut)
    elif cut:
        # floats may be spread in ways that shards of codes are not
        with contextlib.suppress(LostError, NotImplementedError):
            check_conversion(cut, FLOATS_WAIT)


def _watch(kind: Any) -> None:
    """Let states of fully_shard compare before they begin, once, and so before they gather."""
    begin = kind._lazy_init

    @functools.wraps(begin)
    def lazy_init(state: Any) -> None:
        if state._is_root is None:
            _check_before(state)
        begin(state)

    kind._lazy_init = lazy_init


_STATES = "torch.distributed.fsdp._fully_shard._fsdp_state"


def _on_class(kind: Any, /, **arguments: Any) -> None:
    """Called by Python for each class of states that torch makes."""
    super(_State, kind).__init_subclass__(**arguments)
    if kind.__module__ == _STATES and kind.__name__ == "FSDPState":
        _watch(kind)


if _STATES in sys.modules:
    _watch(sys.modules[_STATES].FSDPState)
else:  # it takes seconds to import, which a model on one process need not wait for
    _State.__init_subclass__ = classmethod(_on_class)  # type: ignore[assignment]
