"""Both passes of a network in a datapath, against the same in float32, which is the floor: no optimizer's step.

Bit-true sums of lns16f10 for two small networks, with softmax and loss in LNS, as xlnstorch makes them, and in float;
and the fast path, codes of 8 bits and torch's own products, for the transformer of `training`. xlnstorch computes in
what is called lns16f10 here, but for its range, with its Gaussian logarithms computed each time or taken from tables.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.performance import rivals, training
from benchmarks.performance.cases import OWN, Call, Case
from lnsnum.torch_bridge.datapath import Accumulator, Datapath, datapath

FLOAT = "float32"
XLNSTORCH, XLNSTORCH_TABLES = "xlnstorch", "xlnstorch, tables"
ALL_LNS = "64-64-10, batch 32, lns16f10, all in LNS"
EPOCH = "784-100-10, batch 64, lns16f10, all in LNS"
FAST = "transformer, lns8f3 in float32"

KINDS = "weights", "activations", "errors", "gradients"


def bit_true(*, elementwise: bool = False) -> Datapath:
    """16 bits everywhere."""
    kinds = dict.fromkeys(KINDS, "lns16f10")
    return datapath(**kinds, accumulate=Accumulator("lns16f10"), elementwise=elementwise, statistics=0)  # type: ignore[arg-type]


def all_in_lns() -> Datapath:
    """Softmax and loss too."""
    return bit_true(elementwise=True)


def fast() -> Datapath:
    """8 bits, and sums in float32."""
    return datapath(**dict.fromkeys(KINDS, "lns8f3"), statistics=0)  # type: ignore[arg-type]


class Passes:
    """Forward and backward of one model."""

    def __init__(self, model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.model, self.inputs, self.labels = model, inputs, labels

    def floats(self) -> Call:
        """As torch does it."""
        return self._once

    def within(self, path: Datapath) -> Call:
        """In a datapath."""

        def once() -> None:
            with path:
                self._once()

        return once

    def _once(self) -> None:
        self.model.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(self.inputs).flatten(0, -2), self.labels).backward()


def by_xlnstorch(passes: Passes, *, tables: bool) -> Call:
    """The same layers in xlnstorch, with 10 fraction bits."""
    layers: Any = passes.model
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return rivals.xlnstorch_passes(linear, passes.inputs, passes.labels, tables=tables)


def layers(*widths: int, batch: int) -> Passes:
    """Linear layers with relu between them."""
    torch.manual_seed(0)
    parts = [part for pair in itertools.pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    return Passes(nn.Sequential(*parts[:-1]), torch.randn(batch, widths[0]), torch.randint(widths[-1], (batch,)))


def _case(name: str, make: object, path: object, size: int, sides: dict[str, Any] | None = None) -> Case:
    own = {OWN: lambda passes: passes.within(path()), FLOAT: Passes.floats}  # type: ignore[operator]
    return Case(
        f"datapath, {name}",
        FLOAT,
        {**own, **(sides or {})},
        lambda size: make(),  # type: ignore[operator]
        lambda size: 12 * size,
        "1 forward and 1 backward pass; the size is the number of parameters",
        sizes=(size,),
        unit="step",
        count=lambda size: 1,
        floor=FLOAT,
    )


def cases() -> list[Case]:
    """Two small networks, bit-true, and a transformer."""
    theirs = {
        XLNSTORCH: lambda passes: by_xlnstorch(passes, tables=False),
        XLNSTORCH_TABLES: lambda passes: by_xlnstorch(passes, tables=True),
    }
    count = sum(p.numel() for p in training.transformer()[0].parameters())
    return [
        _case(ALL_LNS, lambda: layers(64, 64, 10, batch=32), all_in_lns, 4_810, theirs),
        _case(EPOCH, lambda: layers(784, 100, 10, batch=64), all_in_lns, 79_510),
        _case("64-64-10, batch 32, lns16f10 bit-true", lambda: layers(64, 64, 10, batch=32), bit_true, 4_810),
        _case("784-100-10, batch 64, lns16f10 bit-true", lambda: layers(784, 100, 10, batch=64), bit_true, 79_510),
        _case(FAST, lambda: Passes(*training.transformer()), fast, count),
    ]
