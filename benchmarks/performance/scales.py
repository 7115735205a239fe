"""The core's usual cases beside its quickest: many scales, transposed arrays, numbers on the grid; each of one process.

Matrices of 1,000 columns; the baseline is the same operation at one scale, or on arrays as they lie in memory.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.performance.cases import OWN, Call, Case
from benchmarks.performance.kernels import TORCH_FLOAT8, Numbers, Sides
from lnsnum import GroupOffsets, arithmetic, decode, encode, lns8f3, lns8f5

ONE, COLUMNS, ALIKE, OFF_GRID = "one scale", "a scale a column", "as in memory", "numbers off the grid"
GROUP = 32
PER_CHANNEL = "multiply", "add", "encode", "decode"

SIZE = 10**6


class Matrices(Numbers):
    """Codes of lns8f3 of two matrices, and offsets for their rows and columns."""

    @functools.cached_property
    def rows(self) -> NDArray[np.int32]:
        """One for each row, within five octaves."""
        return np.random.default_rng(2).integers(-20, 21, (self.size // 1000, 1)).astype(np.int32)

    @functools.cached_property
    def columns(self) -> NDArray[np.int32]:
        """One for each column."""
        return np.random.default_rng(3).integers(-20, 21, (1, 1000)).astype(np.int32)

    @functools.cached_property
    def groups(self) -> GroupOffsets:
        """One for each group of 32, and for the rest of 8 of each row."""
        own = self.size // 1000, -(-1000 // GROUP)
        return GroupOffsets(np.random.default_rng(4).integers(-20, 21, own), GROUP)

    def matrix(self, array: NDArray[Any]) -> NDArray[Any]:
        """Of 1,000 columns."""
        return array.reshape(-1, 1000)

    def call(self, name: str, log_offset: Any) -> Call:
        """The operation where the first operand has these scales, into codes at log_offset 0 or from them."""
        a, b = map(self.matrix, self.pair(lns8f3))
        if name == "encode":
            return functools.partial(encode, self.matrix(self.x), lns8f3, log_offset=log_offset)
        if name == "decode":
            return functools.partial(decode, a, lns8f3, "float32", log_offset=log_offset)
        scales = {"a_log_offset": log_offset, "b_log_offset": 3, "out_log_offset": 0}
        return functools.partial(getattr(arithmetic, name), a, b, lns8f3, **scales)

    def transposed(self, name: str, first: bool, second: bool) -> Call:
        """The operation on square matrices, of which these are transposed."""
        a, b = (codes.reshape(round(self.size**0.5), -1) for codes in self.pair(lns8f3))
        return functools.partial(getattr(arithmetic, name), a.T if first else a, b.T if second else b, lns8f3)


def _distinct(m: Matrices) -> Call:
    offsets = np.arange(10_000, dtype=np.int32)[:, None] - 5_000
    return functools.partial(encode, m.x.reshape(10_000, -1), lns8f3, log_offset=offsets)


def _on_grid(m: Matrices, on: bool) -> Call:
    x = decode(m.codes(lns8f3), lns8f3) if on else m.x.astype(np.float64)
    return functools.partial(encode, x, lns8f3, rounding="stochastic_value", seed=7)


def _case(name: str, baseline: str, sides: Any, bytes_each: int, operations: str, sizes: tuple[int, ...]) -> Case:
    return Case(name, baseline, sides, Matrices, lambda size: bytes_each * size, operations, sizes)


def per_channel(name: str) -> str:
    """The name of its case."""
    return f"{name} lns8f3, a scale a row"


def per_group(name: str) -> str:
    """The name of its case."""
    return f"{name} lns8f3, a scale for {GROUP}"


def cases() -> list[Case]:
    """All of them."""
    found = []
    for name in PER_CHANNEL:
        sides: Sides = {
            OWN: lambda m, name=name: m.call(name, m.rows),
            COLUMNS: lambda m, name=name: m.call(name, m.columns),
            ONE: lambda m, name=name: m.call(name, 5),
        }
        bytes_each = 5 if name in ("encode", "decode") else 3
        found.append(_case(per_channel(name), ONE, sides, bytes_each, "as at one scale, 1 load and store", (SIZE,)))
        grouped: Sides = {OWN: lambda m, name=name: m.call(name, m.groups), ONE: sides[ONE]}
        found.append(_case(per_group(name), ONE, grouped, bytes_each, "as at one scale, 1 load and store", (SIZE,)))
    distinct: Sides = {OWN: _distinct, ONE: lambda m: m.call("encode", 5)}
    found.append(_case("encode lns8f3, 10,000 scales", ONE, distinct, 5, "as at one scale", (SIZE,)))
    for name in ("multiply", "add"):
        for what, first in (("one transposed", False), ("both transposed", True)):
            layouts: Sides = {
                OWN: lambda m, name=name, first=first: m.transposed(name, first, True),
                ALIKE: lambda m, name=name: m.transposed(name, False, False),
            }
            found.append(_case(f"{name} lns8f3, {what}", ALIKE, layouts, 3, "as in memory", (SIZE,)))
    grid: Sides = {OWN: lambda m: _on_grid(m, True), OFF_GRID: lambda m: _on_grid(m, False)}
    found.append(
        _case("encode lns8f3, stochastic, on the grid", OFF_GRID, grid, 9, "1 logarithm, 1 random word", (10**5,))
    )
    cast: Sides = {
        OWN: lambda m: functools.partial(encode, m.x, lns8f5),
        TORCH_FLOAT8: lambda m: functools.partial(m.torch(m.x).to, torch.float8_e4m3fn),
    }
    found.append(_case("encode lns8f5", TORCH_FLOAT8, cast, 5, "1 look-up, 1 addition", (2 * 10**6,)))
    return found
