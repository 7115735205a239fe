"""Madam's step of all the weights of a group in one launch.

A `Launch` keeps a `Table` of where codes, moments and numbers of the state are, which the kernels of
`lnsnum.torch_bridge.kernels.update_list` read. Before each step it looks whether all is where it was, so what a user
replaces, loads, moves or rescales between two steps is seen; what it cannot take (sparse gradients, other devices,
graphs, the first step) steps by itself, in `lnsnum.torch_bridge.step`, to the same bits.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.kernels.threads import in_chunks
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels import update_list
from lnsnum.torch_bridge.kernels.moments import EXPONENT_BOUND
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Part
from lnsnum.torch_bridge.kernels.step_numbers import SCALARS, paper_rate
from lnsnum.torch_bridge.kernels.threads import torch_team
from lnsnum.torch_bridge.kernels.update import PARALLEL, Grid, modes_of
from lnsnum.torch_bridge.step import follow_ceiling, raise_exponent
from lnsnum.torch_bridge.step_state import (
    COUNTS,
    GROWN,
    MOST_UNCODED,
    State,
    ceiling_follows,
    choices_of,
    code_state,
    set_momentum,
    units_of,
)
from lnsnum.torch_bridge.units import refresh_units, units_hold
from lnsnum.torch_bridge.weight import LNSWeight

_NUMBERS = {
    "step": (torch.int64, 1),
    "beta_product": (torch.float64, 1),
    "momentum_product": (torch.float64, 1),
    "exponent": (torch.int32, 1),
    "counts": (torch.int64, COUNTS),
}
"""What kernels read and write of a state besides its moments, in the order of the table."""

_FIXED = "r", "units", "at"
"""What is read when an entry is made."""
_VERSION = operator.attrgetter("_version")


class Slice(NamedTuple):
    """Of a shard: where its elements are within the whole, and which of the scales of the whole it has."""

    part: Part
    scales: tuple[slice, ...]


class Entry(NamedTuple):
    """A weight, and what must be as it was for its row of the table to hold."""

    place: int
    """In its group."""
    p: LNSWeight
    state: State
    named: Callable[[State], tuple[torch.Tensor, ...]]
    """Takes the tensors of a state by their names."""
    own: tuple[torch.Tensor, ...]
    """What it took."""
    read: tuple[torch.Tensor, ...]
    """Those of `_FIXED`."""
    versions: list[int]
    """Which of theirs were read: they may be written to in place."""
    tensors: tuple[torch.Tensor, ...]
    """Those whose addresses are in the table, codes first."""
    addresses: list[int]
    scale: tuple[int | None, ...] | None
    units: NDArray[np.float32]
    """What its row points to."""
    row: tuple[Any, ...]
    size: int
    stream: int

    @property
    def moments(self) -> list[torch.Tensor]:
        """Those of its state."""
        return [self.state[name] for name in ("second_moment", "momentum") if name in self.state]

    def holds(self, state: State) -> bool:
        """Whether its row is true still, of a state that has the tensors of this one."""
        if self.p.codes is not self.tensors[0] or self.p.scale_mark() != self.scale:
            return False
        try:
            # by identity: equal tensors are not the same memory
            is_own = state["stream"] == self.stream and all(map(operator.is_, self.named(state), self.own))
        except KeyError:
            return False
        is_read = is_own and list(map(_VERSION, self.read)) == self.versions
        return is_read and list(map(torch.Tensor.data_ptr, self.tensors)) == self.addresses


class Table:
    """What the kernels read of weights of one format, and their step.

    Args:
        group: theirs.
        entries: theirs.
    """

    def __init__(self, group: dict[str, Any], entries: list[Entry]) -> None:
        self._entries = entries
        sizes = [entry.size for entry in entries]
        self._rows = np.zeros(len(sizes), update_list.ROW)
        for k, entry in enumerate(entries):
            self._rows[k] = entry.row
        self._firsts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._scalars = np.empty((len(sizes), SCALARS), np.float32)
        self._left = np.zeros(len(sizes), np.int64)
        self._held: list[torch.Tensor] = []
        if entries:
            self._fmt = entries[0].p.fmt
            moment = np.uint8 if group["second_moment"] == "byte" else np.float32
            self._likes = update_list.likes_of(self._fmt.dtype, moment, np.uint8 if group["momentum"] > 0 else None)
            self._grid = Grid.of(self._fmt)

    def take(self, gradients: list[torch.Tensor | None]) -> bool:
        """Take the gradients of the next step, None for none; False where a kernel cannot read one."""
        addresses = []
        self._held = []
        for entry, gradient in zip(self._entries, gradients, strict=True):
            if gradient is None:
                addresses.append(0)
            elif is_plain(gradient, entry.size):
                addresses.append(gradient.data_ptr())
                self._held.append(gradient)  # its memory must not go before the kernel has read it
            else:
                return False
        self._rows["gradient"] = addresses
        return True

    def step(self, group: dict[str, Any], *, follows: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """One step of those that have a gradient; of each the bits of its greatest, and what is left to be done."""
        choices, likes, rows = choices_of(group), self._likes, self._rows
        numbers = (float(group[name]) for name in ("lr", "cap", "g_bound", "beta", "momentum", "weight_decay"))
        update_list.begin(rows, *numbers, *paper_rate(self._fmt, choices.rule), likes, self._scalars)
        rest = likes, *modes_of(choices), self._grid, group["seed"]

        def run(start: int, stop: int) -> NDArray[np.int64]:
            counts = np.zeros((rows.size, update_list.PARTIAL), np.int64)
            update_list.run(rows, self._firsts, self._scalars, start, stop, *rest, counts)
            return counts

        parts = in_chunks(run, int(self._firsts[-1]), PARALLEL, threads=torch_team())
        counts = parts[0]
        for part in parts[1:]:
            counts[:, :-1] += part[:, :-1]
            np.maximum(counts[:, -1], part[:, -1], out=counts[:, -1])
        update_list.end(rows, counts, follows, self._left)
        has_stepped = (rows["gradient"] != 0).tolist()
        torch.autograd.graph.increment_version([e.p for e, has in zip(self._entries, has_stepped, strict=True) if has])
        self._held = []
        return counts[:, -1], self._left


class Launch:
    """The weights of one group that step together.

    Args:
        group: with its parameters.
        states: the optimizer's.
        members: those of them that are to be launched if they can, (place in the group, stream) each. The state of one
            that has a gradient is made.

    Attributes:
        places: those of the weights that are launched.
    """

    def __init__(self, group: dict[str, Any], states: dict[Any, State], members: list[tuple[int, int]]) -> None:
        self._asked = asked(group)
        self._others: list[torch.Tensor] = []  # those that may be launched once they have a gradient for a kernel
        self._entries: list[Entry] = []
        for place, stream in members:
            p = group["params"][place]
            if not isinstance(p, LNSWeight):
                continue
            # of what has no gradient the state stays as it is
            if not (_has_all(group, p, states.get(p)) if p.grad is None else is_plain(p.grad, p.numel())):
                self._others.append(p)
            elif can_have_entry(p):
                if not states[p]:
                    states[p].update(code_state(p, group["second_moment"], stream))
                entry = entry_of(group, states[p], p, place)
                self._entries += [entry] if entry is not None else []
        self.places = frozenset(entry.place for entry in self._entries)
        self._table = Table(group, self._entries)

    @staticmethod
    def serves(group: dict[str, Any]) -> bool:
        """Whether a group's weights can be launched: nobody looks at gradients first, and kernels are compiled."""
        return group["non_finite"] == "skip" and can_launch()

    def ready(self, group: dict[str, Any], states: dict[Any, State]) -> bool:
        """Take the gradients; False where something is no longer as it was, or could be launched by now."""
        may_join = any(p.grad is not None and is_plain(p.grad, p.numel()) for p in self._others)
        if may_join or self._asked != asked(group):
            return False
        if not all(states.get(entry.p) is entry.state and entry.holds(entry.state) for entry in self._entries):
            return False
        return self._table.take([entry.p.grad for entry in self._entries])

    def step(self, group: dict[str, Any]) -> list[int]:
        """One step of those that have a gradient; the places of those whose scale should have grown, and could not."""
        if not self._entries:
            return []
        greatest, left = self._table.step(group, follows=ceiling_follows(group))
        choices, blocked = choices_of(group), []
        for k in np.flatnonzero(left).tolist():
            entry = self._entries[k]
            if left[k] & update_list.RAISE:
                raise_exponent(entry.moments, entry.state, int(greatest[k]))
            if left[k] & update_list.LOOK:
                grown, is_blocked = follow_ceiling(entry.p, entry.state, group, choices)
                entry.state["counts"][GROWN] = grown
                blocked += [entry.place] if is_blocked else []
        return blocked


def can_launch() -> bool:
    """Whether memory may be written behind torch's back, and kernels are compiled, which read addresses."""
    return torch._C._len_torch_dispatch_stack() == 0 and not numba.config.DISABLE_JIT


def is_plain(gradient: torch.Tensor, size: int) -> bool:
    """Whether a kernel can read a gradient where it is."""
    return (
        type(gradient) is torch.Tensor
        and gradient.dtype is torch.float32
        and gradient.layout is torch.strided
        and gradient.is_cpu
        and gradient.is_contiguous()
        and gradient.numel() == size
        and not gradient.is_neg()
    )


def asked(group: dict[str, Any]) -> tuple[Any, ...]:
    """What of a group's options is in the table, or decides which kernel runs."""
    return group["crossover"], group["momentum"] > 0, group["second_moment"], group["non_finite"]


def _has_all(group: dict[str, Any], p: LNSWeight, state: State | None) -> bool:
    """Whether nothing of a state is to be made, or changed, before its weight steps."""
    if not state:
        return False
    return ("momentum" in state) == (group["momentum"] > 0) and units_hold(p, state)


def can_have_entry(p: LNSWeight) -> bool:
    """Whether a kernel can work on the memory of a weight."""
    size = p.numel()
    return _is_memory_of(p.codes, size, p.codes.dtype) and size > 0 and p.scale_mark() is not None


def entry_of(group: dict[str, Any], state: State, p: LNSWeight, place: int, shard: Slice | None = None) -> Entry | None:
    """The entry of a weight that can have one, or of a shard; None where no kernel can work on its state's memory."""
    size = p.numel()
    kind = torch.uint8 if group["second_moment"] == "byte" else torch.float32
    if state["second_moment"].dtype != kind:
        return None  # which the optimizer refuses
    set_momentum(p, torch.uint8, state, group)
    dtypes = {"second_moment": kind, **({"momentum": torch.uint8} if "momentum" in state else {})}
    # a state that was loaded may have numbers of other dtypes, which a kernel would read wrongly
    fits = [_is_memory_of(state[name], size, dtype) for name, dtype in dtypes.items()]
    fits += [_is_memory_of(state[name], count, dtype) for name, (dtype, count) in _NUMBERS.items()]
    if not all(fits):
        return None
    own = state
    if shard is None:
        refresh_units(p, state)
    else:
        own = {**state, "units": state["units"][shard.scales]}
    (units, walk), part = units_of(p, own, group), WHOLE if shard is None else shard.part
    tensors = (p.codes, *(state[name] for name in (*dtypes, *_NUMBERS)))
    addresses = [tensor.data_ptr() for tensor in tensors]
    row = (
        addresses[0], 0, addresses[1], addresses[2] if "momentum" in dtypes else 0, units.ctypes.data,
        *addresses[-len(_NUMBERS) :], size, units.size, *walk,
        EXPONENT_BOUND if kind == torch.uint8 else MOST_UNCODED, state["stream"], *part, float(state["r"]),
    )  # fmt: skip
    names = [*dtypes, *_NUMBERS, *_FIXED]
    named = operator.itemgetter(*names)
    # torch counts no writes to tensors of inference mode
    read = tuple(state[name] for name in _FIXED if not state[name].is_inference())
    versions = list(map(_VERSION, read))
    return Entry(
        place, p, state, named, named(state), read, versions, tensors, addresses, p.scale_mark(), units, row, size,
        state["stream"],
    )  # fmt: skip


def _is_memory_of(tensor: torch.Tensor, count: int, dtype: torch.dtype) -> bool:
    """Whether a tensor is so many numbers in a row, of this dtype, where the kernels are."""
    return bridge.is_on_cpu(tensor) and tensor.dtype is dtype and tensor.numel() == count and tensor.is_contiguous()
