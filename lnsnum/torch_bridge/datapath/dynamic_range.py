"""Where the range of an accumulator lies that goes by the numbers of each product: `Accumulator(log_offset="dynamic")`.

    B  =  the greatest over i, j of  sum over k of |a[i, k]| |b[k, j]|        no partial sum is above it, in any order

Magnitudes become integers, in units of 2^-s of the greatest of their factor and rounded up, with s so small that a sum
of products stays within 2^53. So float64 holds each partial sum exactly, BLAS may add in any order, and the range is
the same on every machine. With s = 20 for up to 2^13 terms, and half a bit less for each doubling, what is found is
above B by at most 3 K 2^-s of the product of the two greatest numbers: of numbers with 16 octaves, by a fifth of one.

Rounding may carry a sum above B, by steps, and a coarse Gaussian logarithm by octaves. Such a sum saturates, which
brings it nearer to the exact one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes
from lnsnum.torch_bridge.datapath import swift
from lnsnum.torch_bridge.datapath.matrices import Matrices, in_steps

_MOST_BITS = 20
_ROOM = 1 << 18
"""So many numbers of a factor at a time, and so many sums: what is made of them are some megabytes, of any product."""


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
    """Of the greatest number m + log_offset, from the greatest m of the format on; None where all are zero."""
    mask = x.fmt.dtype.type(x.fmt.max_magnitude)
    if isinstance(x.log_offset, int):
        top = int((x.codes & mask).max(initial=0))
        return top - x.fmt.max_magnitude + x.log_offset if top else None
    parts: Any = np.nditer([x.codes, x.log_offset], ["external_loop", "buffered", "zerosize_ok"], buffersize=_ROOM)
    tops = [_highest(codes & mask, offsets) for codes, offsets in parts]
    return max((top - x.fmt.max_magnitude for top in tops if top is not None), default=None)


def _highest(m: Codes, offsets: NDArray[np.int32]) -> int | None:
    return int((m.astype(np.int64) + offsets)[m > 0].max()) if m.any() else None


def _greatest(x: Matrices, y: Matrices, tops: Any, bits: int) -> float:
    """B of two matrices, in units of 2^-(2 bits) of the greatest numbers."""
    (rows, inner), columns = x.codes.shape, y.codes.shape[1]
    left, right = (_reader(one, top, bits) for one, top in zip((x, y), tops, strict=True))
    # near to squares where all are many, so that each number is read as seldom as may be
    side = math.isqrt(_ROOM)
    terms = min(inner, side)
    wide = _ROOM // max(terms, min(rows, side))
    high = _ROOM // max(terms, min(columns, wide))
    greatest = 0.0
    for own, some in itertools.product(_parts(rows, high), _parts(columns, wide)):
        sums = sum(left((own, k)) @ right((k, some)) for k in _parts(inner, terms))
        greatest = max(greatest, float(np.max(sums)))
    return greatest


def _parts(length: int, most: int) -> list[slice]:
    return [slice(begin, begin + most) for begin in range(0, length, most)]


def _reader(x: Matrices, top: int, bits: int) -> Callable[[Any], NDArray[np.float64]]:
    """What gives the integers of a part of a matrix."""
    fmt, offsets = x.fmt, x.log_offset
    mask, greatest = fmt.dtype.type(fmt.max_magnitude), fmt.max_magnitude + top
    spread = 0 if isinstance(offsets, int) else int(offsets.max()) - int(offsets.min())
    powers = _powers(fmt.base, fmt.fraction_bits, bits, (fmt.max_magnitude + spread).bit_length())

    def read(part: Any) -> NDArray[np.float64]:
        m = x.codes[part] & mask
        below: Any
        if isinstance(offsets, int):
            # of one scale no m is above this: the codes' own type is wide enough
            below = fmt.dtype.type(greatest - offsets) - m
        else:
            below = greatest - offsets[part].astype(np.int64) - m
        return np.where(m > 0, np.take(powers, below, mode="clip"), 0.0)

    return read


@lru_cache(maxsize=64)
def _powers(base: float, fraction_bits: int, bits: int, most: int) -> NDArray[np.float64]:
    """base^(-d / 2^F) in units of 2^-bits, rounded up, for d from 0 to 2^most - 1; the last one, 1, serves all that
    follow.
    """
    count = min(math.ceil(bits / math.log2(base) * (1 << fraction_bits)) + 1, 1 << most)
    powers = exact.nearest_float64s(base, 1 - count, count, fraction_bits)
    found: NDArray[np.float64] = np.ceil(np.ldexp(np.array(powers[::-1]), bits))
    return found
