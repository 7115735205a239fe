"""Which tensor of a backward pass is what: told from the graph that the context recorded.

    forward      y = a b                    a `Record` of the operation, kept with autograd's node of y
    backward     dy b^T, a^T dy             the node runs: its record says what a and b were, autograd what dy is

A dispatch mode sees products of two tensors alone. In backward one of them is autograd's gradient of the node that
runs, which is the error; the other is what the node saved, a weight or an activation. The product belongs to the other
factor of the recorded operation: where that is a weight it is a gradient, else an error.

Nodes do not know of a context by themselves. Each that is recorded gets a hook that runs before it, which takes the
errors, and raises where the context is not active.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import ref

import torch
from torch.autograd.function import BackwardCFunction
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Parameter

from lnsnum.torch_bridge.datapath.quantized import Quantized
from lnsnum.torch_bridge.datapath.settings import Formats
from lnsnum.torch_bridge.weight import LNSWeight

Role = Literal["weights", "activations"]
"""What a factor of a recorded product is."""

_KEY = "lnsnum.datapath"


_VIEW = "_lnsnum_view_of_a_weight"
"""The attribute of one that was taken within inference_mode."""


def memory_of(x: torch.Tensor) -> torch.UntypedStorage:
    """What all views of a tensor share.

    Raises:
        NotImplementedError: for one that has none, as of sparse tensors.
    """
    try:
        return (x.codes if isinstance(x, LNSWeight) else x).untyped_storage()
    except NotImplementedError:
        raise NotImplementedError(
            "a datapath multiplies dense tensors alone, none that is sparse or a batch of is_grads_batched=True: call "
            "to_dense() before, or take the gradients one by one"
        ) from None


def storage_of(x: torch.Tensor) -> int:
    """The number of a tensor's memory."""
    return int(memory_of(x)._cdata)


def is_weight(x: torch.Tensor) -> bool:
    """Whether a tensor is an LNSWeight, a parameter, or a view of one."""
    if isinstance(x, (LNSWeight, Parameter)):
        return True
    base = x._base
    if base is None:
        return hasattr(x, _VIEW)
    return isinstance(base, (LNSWeight, Parameter))


def hand_role_on(func: Any, args: Any, out: Any) -> None:
    """Mark the views that an operation took of a weight within inference_mode, which does not note what they are of."""
    if not (args and isinstance(args[0], torch.Tensor) and is_weight(args[0])) or func in _DETACHING:
        return
    if any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns):
        for one in out if isinstance(out, (list, tuple)) else (out,):
            setattr(one, _VIEW, True)


_DETACHING = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
"""Views that are no weights in training either."""


def role_of(x: torch.Tensor) -> Role:
    """That of a factor in the forward pass."""
    return "weights" if is_weight(x) else "activations"


@dataclass
class Factor:
    """One of the two tensors that a recorded operation multiplied."""

    role: Role
    storage: int
    kept: StorageWeakRef | None
    """So that no other memory gets the number of this, as long as the record is there."""
    outside: torch.Tensor | None = None
    codes: Quantized | None = None
    """Those of the forward pass, where another pass over the same memory may make others."""

    @classmethod
    def of(cls, x: torch.Tensor, quantized: Quantized | None, *, varies: bool = False) -> Factor:
        """That of a tensor; `varies`: whether its codes are drawn, or of a maximum that moves on."""
        memory = memory_of(x)
        outside = None if quantized is None else quantized.outside
        codes = quantized if varies else None
        return cls(role_of(x), int(memory._cdata), StorageWeakRef(memory), outside, codes)

    def codes_of(self, saved: torch.Tensor) -> Quantized | None:
        """Those of the forward pass for what autograd saved of this: itself or its transpose."""
        own = self.codes
        if own is None:
            return None
        if own.codes.shape == saved.shape and own.codes.stride() == saved.stride():
            return own
        if saved.ndim >= 2 and own.codes.shape == saved.mT.shape and own.codes.stride() == saved.mT.stride():
            return own.mT
        return None


@dataclass
class Record:
    """An operation of the forward pass."""

    layer: str
    formats: Formats | None
    name: str
    factors: tuple[Factor, ...] = ()
    errors: tuple[tuple[int, tuple[int, ...]], ...] = field(default_factory=tuple)
    """While its node runs: the storage and the strides of autograd's gradients."""
    guarded: bool = True
    """Whether it raises where it is differentiated outside of the context."""
    leave: Callable[..., Any] | None = None
    """What its node's gradients become as they leave, where the operation does not see them as they do."""

    def is_error(self, x: torch.Tensor) -> bool:
        """Whether a tensor is one of these gradients, or a view of one."""
        storage = storage_of(x)
        if not self.errors:
            # the node began to run before it had a hook: what the operation did not multiply came from autograd
            return bool(self.factors) and all(storage != factor.storage for factor in self.factors)
        return any(storage == one for one, _ in self.errors)

    def is_turned(self, x: torch.Tensor) -> bool:
        """Whether a matrix is the transpose of autograd's gradient."""
        storage, strides = storage_of(x), tuple(x.stride())
        return not any(storage == one and strides == own for one, own in self.errors)


class Graph:
    """What was recorded in a context.

    Args:
        is_active: whether the context is active in this thread.
    """

    def __init__(self, is_active: Callable[[], bool]) -> None:
        self.is_active = is_active
        self.pending: list[tuple[torch.Tensor, Record]] = []
        self.last: Record | None = None
        """That whose node began to run last."""
        self._watched: list[ref[torch.Tensor]] = []

    def watch(self, out: Any) -> None:
        """Look at the result of an operation without gradients when the context ends: within a function of the user's
        own it can become what the function returns, and get a node then.
        """
        if isinstance(out, torch.Tensor) and not in_backward():
            self._watched.append(ref(out))
            if len(self._watched) > 1024:
                self._watched = [one for one in self._watched if one() is not None]

    def watched(self) -> list[torch.Tensor]:
        """Those that are still there, to be looked at no more."""
        there = [one() for one in self._watched]
        self._watched = []
        return [x for x in there if x is not None]

    def record(self, out: torch.Tensor, record: Record) -> None:
        """Keep a record until autograd has made the operation's node, which it does after the operation has run."""
        self.pending.append((out, record))

    def settle(self, arguments: Any = ()) -> None:
        """Hand what is pending to its nodes, and guard the nodes of functions of the user's own."""
        if self.pending:
            for out, record in self.pending:
                node = out.grad_fn
                if node is not None and record_of(node) is None:
                    self._mark(node, record)
            self.pending.clear()
        for x in arguments:
            own: Any = x.grad_fn if isinstance(x, torch.Tensor) and x.requires_grad else None
            if own is not None and is_own_function(own) and record_of(own) is None:
                self._mark(own, Record("", None, own.name()))

    def _mark(self, node: Any, record: Record) -> None:
        node.metadata[_KEY] = record
        is_active = self.is_active

        def enter(gradients: tuple[torch.Tensor | None, ...]) -> None:
            if not is_active():
                if not record.guarded:
                    return
                raise RuntimeError(
                    f"this graph was recorded within datapath(...), and {record.name} is differentiated outside of "
                    "it: call backward() within the same with block, or within another one of the same object"
                )
            self.last = record
            record.errors = tuple(
                (storage_of(one), tuple(one.stride())) for one in gradients if isinstance(one, torch.Tensor)
            )

        node.register_prehook(enter)
        if record.leave is not None:
            node.register_hook(record.leave)


def running_node() -> Any:
    """Autograd's node that runs in this thread, or None."""
    return torch._C._current_autograd_node()


def record_of(node: Any) -> Record | None:
    """What was recorded for a node."""
    found: Record | None = node.metadata.get(_KEY)
    return found


def is_own_function(node: Any) -> bool:
    """Whether a node is of a `torch.autograd.Function` that is written in Python."""
    return isinstance(node, BackwardCFunction)


def in_backward() -> bool:
    """Whether autograd runs in this thread."""
    return bool(torch._C._current_graph_task_id() != -1)


def saved_by(node: Any) -> set[int]:
    """The storages of what a user's own function saved for its backward pass."""
    if not is_own_function(node):
        return set()
    return {storage_of(x) for x in node.saved_tensors if isinstance(x, torch.Tensor)}
