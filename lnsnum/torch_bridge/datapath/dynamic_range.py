"""Where the range of an accumulator lies that goes by the numbers of each product: `Accumulator(log_offset="dynamic")`.

    B  =  the greatest over i, j of  sum over k of |a[i, k]| |b[k, j]|        no partial sum is above it, in any order

Magnitudes become integers, in units of 2^-s of the greatest of their factor and rounded up, with s so small that a sum
of products stays below 2^53. So float64 holds each partial sum exactly, BLAS may add in any order, and the range is the
same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.datapath import swift
from lnsnum.torch_bridge.datapath.matrices import Matrices, in_steps

_MOST_BITS = 20
_BLOCK = 1 << 12
"""So many terms and columns at a time: what is made of them are some tens of megabytes."""


def place(a: Matrices, b: Matrices, to: LNSFormat) -> int | None:
    """The least log_offset at which B does not saturate, for stacks (..., M, K) and (..., K, N), which broadcast; None
    where all products are zero.
    """
    tops = [top for x in (a, b) if (top := _top(x)) is not None]
    if len(tops) < 2:
        return None
    bits = min(_MOST_BITS, (53 - math.ceil(math.log2(a.codes.shape[-1]))) // 2)
    stack = np.broadcast_shapes(a.codes.shape[:-2], b.codes.shape[:-2])
    greatest = max((_greatest(a.at(at), b.at(at), tops, bits) for at in np.ndindex(stack)), default=0.0)
    if greatest == 0.0:
        return None
    logs = [in_steps(x, to, x.fmt.max_log + top) for x, top in zip((a, b), tops, strict=True)]
    return logs[0] + logs[1] + swift.fit(math.ldexp(greatest, -2 * bits), to, "nearest")


def _top(x: Matrices) -> int | None:
    """The greatest log_offset that a number of the greatest code would have to be the greatest number; None of none."""
    m = x.codes & x.fmt.dtype.type(x.fmt.max_magnitude)
    greatest = int(m.max(initial=0))
    if not greatest:
        return None
    if isinstance(x.log_offset, int):
        return greatest - x.fmt.max_magnitude + x.log_offset
    return int((m.astype(np.int64) + x.log_offset)[m > 0].max()) - x.fmt.max_magnitude


def _greatest(x: Matrices, y: Matrices, tops: Any, bits: int) -> float:
    """B of two matrices, in units of 2^-(2 bits) of the greatest numbers."""
    (rows, inner), columns = x.codes.shape, y.codes.shape[1]
    left, right = (_reader(one, top, bits) for one, top in zip((x, y), tops, strict=True))
    greatest = 0.0
    for first in range(0, columns, _BLOCK):
        some = slice(first, first + _BLOCK)
        sums = np.zeros((rows, min(_BLOCK, columns - first)))
        for begin in range(0, inner, _BLOCK):
            terms = slice(begin, begin + _BLOCK)
            sums += left((slice(None), terms)) @ right((terms, some))
        greatest = max(greatest, float(sums.max(initial=0.0)))
    return greatest


def _reader(x: Matrices, top: int, bits: int) -> Callable[[Any], NDArray[np.float64]]:
    """What gives the integers of a part of a matrix."""
    fmt = x.fmt
    if isinstance(x.log_offset, int):
        table = _of_codes(fmt, top - x.log_offset, bits)
        return lambda part: np.take(table, x.codes[part])
    offsets, powers, greatest = x.log_offset, _powers(fmt.base, fmt.fraction_bits, bits), fmt.max_magnitude

    def read(part: Any) -> NDArray[np.float64]:
        m = x.codes[part].astype(np.int64) & greatest
        found = np.take(powers, np.clip(greatest + top - m - offsets[part], 0, powers.size - 1))
        return np.where(m > 0, found, 0.0)

    return read


@lru_cache(maxsize=256)
def _of_codes(fmt: LNSFormat, below: int, bits: int) -> NDArray[np.float64]:
    """The integer of each code, where the greatest number is that of a code `below` the greatest one."""
    m = np.arange(1 << fmt.bits) & fmt.max_magnitude
    powers = _powers(fmt.base, fmt.fraction_bits, bits)
    return np.where(m > 0, powers[np.clip(fmt.max_magnitude + below - m, 0, powers.size - 1)], 0.0)


@lru_cache(maxsize=64)
def _powers(base: float, fraction_bits: int, bits: int) -> NDArray[np.float64]:
    """base^(-d / 2^F) in units of 2^-bits, rounded up, for d from 0 on; the last one, 1, serves all that follow."""
    count = math.ceil(bits / math.log2(base) * (1 << fraction_bits)) + 1
    powers = exact.nearest_float64s(base, 1 - count, count, fraction_bits)
    found: NDArray[np.float64] = np.ceil(np.ldexp(np.array(powers[::-1]), bits))
    return found
