"""The codes of tensors that products have taken, kept as long as the tensors' memory is there.

A tensor enters several products: in forward, and again in backward, as itself or transposed. It is quantized once, so
that both passes have the same codes. Where rounding draws, or a maximum moves on, the record of an operation has them
too (`graph`), as the same tensor may have entered another step in between.

A tensor's version tells of writes, but not of those through `.data` or NumPy. So what a forward pass finds was made
since the context was entered or an outermost module called, the last of both; and of errors, in the same backward pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from lnsnum.torch_bridge.datapath.graph import memory_of
from lnsnum.torch_bridge.datapath.quantized import Quantized
from lnsnum.torch_bridge.datapath.settings import Numbers


class _Entry(NamedTuple):
    place: int
    shape: torch.Size
    strides: tuple[int, ...]
    version: int
    numbers: Numbers
    channels: tuple[int, ...]
    quantized: Quantized
    era: Any


class Kept:
    """Codes by the memory of the floats that they were made of."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[StorageWeakRef, list[_Entry]]] = {}
        self._since = 0
        self.generation = 0
        """Of what is put from now on."""

    def find(
        self, x: torch.Tensor, numbers: Numbers, channels: tuple[int, ...] | None, *, era: Any
    ) -> Quantized | None:
        """Those of a tensor or its transpose; `channels` None: whichever dimensions have scales of their own.

        `era`: the time in which they were made, a generation or a backward pass; None for any.
        """
        if x.is_inference():
            return None
        memory = memory_of(x)
        found = self._entries.get(int(memory._cdata))
        if found is None:
            return None
        place, shape, strides, version = x.storage_offset(), x.shape, x.stride(), x._version
        one: _Entry
        for one in reversed(found[1]):
            if era is not None and one.era != era:
                continue
            if one.place != place or one.version != version or one.numbers != numbers:
                continue
            if one.shape == shape and one.strides == strides and channels in (None, one.channels):
                return one.quantized
            if channels is None and x.ndim >= 2 and one.shape == x.mT.shape and one.strides == x.mT.stride():
                return one.quantized.mT
        return None

    def put(self, x: torch.Tensor, numbers: Numbers, channels: tuple[int, ...], quantized: Quantized, era: Any) -> None:
        """Keep a tensor's codes."""
        if x.is_inference():
            return
        memory = memory_of(x)
        own = self._entries.setdefault(int(memory._cdata), (StorageWeakRef(memory), []))[1]
        entry = _Entry(
            int(x.storage_offset()), x.shape, x.stride(), x._version, numbers, channels, quantized, era,
        )  # fmt: skip
        # what was made of a former content serves nobody, nor does what this takes the place of
        own[:] = [one for one in own if one.version == x._version and one[:6] != entry[:6]]
        own.append(entry)
        self._since += 1
        if self._since >= 64:
            self.sweep()

    def sweep(self) -> None:
        """Let go of what belongs to memory that is gone."""
        self._since = 0
        for key in [key for key, (memory, _) in self._entries.items() if memory.expired()]:
            del self._entries[key]

    def clear(self) -> None:
        """Let go of all."""
        self._entries.clear()
