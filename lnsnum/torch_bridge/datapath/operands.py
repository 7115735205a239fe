"""Floats as words of a unit, and back: what an elementwise operation reads and writes.

    a weight       Q_W, placed in the accumulator's format
    anything else  the nearest code of that format: exact, where it came from it

LNS has no infinity. A magnitude of 2^100 and more stands for one, as the -inf and the least float32 of masks do. It has
no say in the scale, and is NaN but where an operation says what it does with it.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.torch_bridge.datapath import swift
from lnsnum.torch_bridge.datapath.graph import Record, is_weight
from lnsnum.torch_bridge.datapath.settings import Accumulator
from lnsnum.torch_bridge.datapath.unit import Unit, Word, unit_of
from lnsnum.torch_bridge.datapath.workshop import Workshop
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES
from lnsnum.torch_bridge.weight import LNSWeight

INFINITE = 2.0**100
"""A magnitude from which on a number stands for infinity."""

Mask = NDArray[np.bool_]


class Bench:
    """What one operation is computed on."""

    def __init__(self, shop: Workshop, at: Record, accumulator: Accumulator) -> None:
        self.shop, self.at = shop, at
        self.unit: Unit = unit_of(accumulator)
        self._read = 0

    def read(self, x: torch.Tensor | float) -> Word:
        """An operand's codes, in its shape; NaN for what is infinite."""
        word, infinite = self.read_masked(x)
        if infinite is None:
            return word
        return word._replace(codes=np.where(infinite, self.unit.fmt.nan_code, word.codes).astype(self.unit.fmt.dtype))

    def read_masked(self, x: torch.Tensor | float) -> tuple[Word, Mask | None]:
        """The same, the greatest code for what is infinite, and where that is, if anywhere."""
        if not isinstance(x, torch.Tensor):
            infinite = abs(float(x)) >= INFINITE
            return self.unit.constant(x), np.array(True) if infinite else None
        self._read += 1
        if is_weight(x):
            taken = self.shop.take(x, "weights", self.at, self._read, ())
            if taken.quantized is not None:
                return self.unit.placed(taken.matrices(self.unit.accumulator)), None
            x = taken.floats(x.dtype)
        if x.device.type != "cpu":
            raise NotImplementedError(
                f"elementwise=True computes on the CPU, and {self.at.name} has numbers on {x.device}: move the model "
                "there, or take elementwise=False"
            )
        x = x.detach()
        if not x.is_floating_point():
            # an integer may be wider than a float32, and is rounded once
            x = x.to(torch.float32 if x.dtype == torch.bool else torch.float64)
        array = bridge.as_numpy(x.contiguous())
        largest, mask = _span(array)
        return self.unit.encode(array, largest), mask

    def axis(self, dim: int, x: torch.Tensor) -> int:
        """A dimension, counted from the first; a number has one."""
        count = max(x.ndim, 1)
        if not -count <= dim < count:
            raise IndexError(
                f"{self.at.name} along dimension {dim} of a tensor of shape {tuple(x.shape)}: from "
                f"{-count} to {count - 1}"
            )
        return dim % count

    def write(self, word: Word, dtype: torch.dtype) -> torch.Tensor:
        """The floats of a result."""
        return swift.tensor_of(self.unit.decode(word, FLOAT_NAMES[dtype]))


def _span(x: NDArray[Any]) -> tuple[float, Mask | None]:
    """The greatest finite magnitude, and where numbers stand for infinity."""
    if not x.size:
        return 0.0, None
    known = swift.greatest_of(x) if x.dtype == np.float32 else None
    if known is not None and known < INFINITE:
        return known, None
    largest = max(float(x.max()), -float(x.min()))
    if largest < INFINITE:
        return largest, None
    size = np.abs(x)
    # NaN is neither
    mask, finite = np.asarray(size >= INFINITE), size[size < INFINITE]
    return float(finite.max(initial=0.0)), mask if mask.any() else None


def check_shapes(name: str, tensors: list[torch.Tensor]) -> None:
    """Refuse shapes that do not broadcast."""
    shapes = [tuple(x.shape) for x in tensors]
    if len(set(shapes)) > 1:
        for lengths in zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
            if len({*lengths, 1}) > 2:
                raise RuntimeError(f"{name} of shapes {' and '.join(map(str, shapes))}, which do not broadcast")


def plain(x: Any) -> Any:
    """An operand as torch takes it."""
    return x.to_float() if isinstance(x, LNSWeight) else x
