"""Which floats and codes conversions are tried with.

    encode      every float16 and every bfloat16; every boundary between two codes, every code, half of the smallest,
                with the floats next to them; the ends and subnormals of the type; floats drawn from a seed
    decode      every code of up to 16 bits; of a wider format the landmarks, and codes drawn from a seed

The boundaries of wider formats are those next to landmarks and drawn ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from lnsnum.testing.foreign import Array
from lnsnum.testing.pairs import CHUNK, WIDEST_WITH_EVERY_GAP, landmarks, sizes
from lnsnum.testing.positions import Axis
from lnsnum.testing.spans import Ints
from lnsnum.testing.unary import float_of_rank, float_rank, quiet

DRAWN = 50_000
"""Floats, and codes of a wide format, that are drawn besides those that are always tried."""

_DRAWN_BOUNDARIES = 1 << 12
"""Of a wide format, how many boundaries are drawn."""


def all_narrow(dtype: np.dtype[Any]) -> Array:
    """Every float16, and every bfloat16 where the type has them all."""
    patterns = np.arange(1 << 16, dtype=np.uint32)
    halves = quiet(patterns.astype(np.uint16).view(np.float16))
    if dtype == np.float16:
        return halves
    return np.concatenate([halves.astype(dtype), quiet((patterns << 16).view(np.float32)).astype(dtype)])


def with_neighbours(x: Array, dtype: np.dtype[Any]) -> Array:
    """The floats of a type next to positive real numbers, and those next to these, with both signs."""
    with np.errstate(over="ignore"):
        rank = np.unique(float_rank(x.astype(dtype)))
    near = np.unique(np.concatenate([rank - 1, rank, rank + 1]))
    near = near[near >= 0]
    return float_of_rank(np.concatenate([near, -near]), dtype)


def logs_tried(axis: Axis, random: np.random.Generator) -> Ints:
    """Logarithms whose codes and boundaries are tried, within what a float64 has."""
    fmt = axis.fmt
    if fmt.bits <= WIDEST_WITH_EVERY_GAP:
        logs = np.arange(-fmt.max_log - 2, fmt.max_log + 3, dtype=np.int64)
    else:
        drawn = random.integers(-fmt.max_log, fmt.max_log, _DRAWN_BOUNDARIES, endpoint=True)
        marks = landmarks(fmt)
        ends = fmt.max_log + np.arange(3)
        logs = np.unique(np.concatenate([marks - 1, marks, drawn, ends, -ends]))
    return logs[np.abs(logs) <= 1080 * axis.steps_to_two]


def chosen_floats(axis: Axis, dtype: np.dtype[Any], drawn: int, seed: int) -> Array:
    """Floats of a type, NaN among them."""
    narrow = all_narrow(dtype)
    if dtype == np.float16:
        return narrow
    fmt, random = axis.fmt, np.random.default_rng(seed)
    logs = logs_tried(axis, random)
    codes, midpoints = (axis.thresholds(logs, c)[0] for c in (Fraction(0), Fraction(1, 2)))
    half = axis.thresholds(np.array([-fmt.max_log]), Fraction(0))[0] / 2
    info = np.finfo(dtype)
    ends = np.array([info.smallest_subnormal, info.tiny, info.max], np.float64)
    near = with_neighbours(np.concatenate([codes, midpoints, half, ends]), dtype)
    patterns = random.integers(0, 1 << (8 * dtype.itemsize), drawn // 2, dtype=f"u{dtype.itemsize}")
    octaves = np.minimum(fmt.max_log / axis.steps_to_two + 2, 1020.0)
    with np.errstate(over="ignore", under="ignore"):
        inside = np.exp2(random.uniform(-octaves, octaves, drawn // 2)).astype(dtype)
    signs = np.where(random.integers(0, 2, inside.size), -1, 1).astype(dtype)
    return np.concatenate([narrow, near, quiet(patterns.view(dtype)), inside * signs])


def chosen_codes(axis: Axis, drawn: int, seed: int) -> Ints:
    """Codes, zero and NaN among them."""
    fmt = axis.fmt
    if fmt.bits <= WIDEST_WITH_EVERY_GAP:
        return np.arange(1 << fmt.bits, dtype=np.int64)
    magnitudes = np.concatenate([[0], landmarks(fmt) + fmt.bias])
    random = np.random.default_rng(seed).integers(0, 1 << fmt.bits, drawn)
    return np.unique(np.concatenate([magnitudes, magnitudes + fmt.sign_bit, random]))


def in_chunks(*arrays: Array, greatest_step: int) -> Iterator[tuple[Array, ...]]:
    """Chunks of arrays of one length, and steps to a neighbour: ones, and powers of two by turns."""
    size = arrays[0].size
    far = sizes(greatest_step)[1:]
    steps = np.where(np.arange(size) % 2, far[np.arange(size) // 2 % far.size], 1)
    for i in range(0, size, CHUNK):
        yield *(array[i : i + CHUNK] for array in arrays), steps[i : i + CHUNK]
