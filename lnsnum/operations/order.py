"""The order of codes of one scale, in integers of their own width: comparisons and sorting, many codes to a vector.

    rank  =  top + m  of positive numbers and zero,   top - m  of negative ones,   2 top + 1  of NaN,    top = 2^(b-1)-1

The ranks of a b-bit format are the integers from 0 to 2^b - 1, each once, so that one can be turned back into its code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import in_chunks

_LEAST = 1 << 19
"""So many elements at least to a thread."""


class Relation(NamedTuple):
    """What is written where a is less than b, equal to it, greater, and where one of them is NaN."""

    less: int
    equal: int
    greater: int
    unordered: int


def _relater(integer: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The loop of `relate` in signed integers of the width of codes: the narrower, the more of them in a vector."""

    # an order key is -m or m, of NaN 0; written out in both, since Numba keeps what calls a kernel made here for no
    # other process
    @kernel
    def relate(a, b, greatest, nan, less, equal, more, unordered, out):  # type: ignore[no-untyped-def]
        for i in range(out.size):
            x, y = integer(a[i] & greatest), integer(b[i] & greatest)
            x = x if a[i] <= greatest else integer(-x)
            y = y if b[i] <= greatest else integer(-y)
            holds = less if x < y else (more if x > y else equal)
            out[i] = unordered if (a[i] == nan) | (b[i] == nan) else holds

    @kernel
    def relate_to(a, y, greatest, nan, less, equal, more, unordered, out):  # type: ignore[no-untyped-def]
        for i in range(out.size):
            x = integer(a[i] & greatest)
            x = x if a[i] <= greatest else integer(-x)
            holds = less if x < y else (more if x > y else equal)
            out[i] = unordered if a[i] == nan else holds

    return relate, relate_to


_RELATE = {size: _relater(integer) for size, integer in ((1, np.int8), (2, np.int16), (4, np.int32))}


def relate(a: Codes, b: Codes, fmt: LNSFormat, relation: Relation, dtype: Any = np.bool_) -> NDArray[Any]:
    """What the relation says of each pair of codes of one scale, contiguous and of one shape."""
    of, out = fmt.dtype.type, np.empty(a.shape, dtype)
    x, y, flat = a.reshape(-1), b.reshape(-1), out.reshape(-1)
    rule = of(fmt.max_magnitude), of(fmt.nan_code), *map(out.dtype.type, relation)
    loop = _RELATE[fmt.dtype.itemsize][0]
    in_chunks(lambda begin, end: loop(x[begin:end], y[begin:end], *rule, flat[begin:end]), flat.size, _LEAST)
    return out


def relate_to(a: Codes, twice: int, fmt: LNSFormat, relation: Relation) -> NDArray[np.bool_]:
    """The same of each code and one number: given as twice its key (-m or m), odd where it lies between two codes."""
    of, out = fmt.dtype.type, np.empty(a.shape, np.bool_)
    limit = fmt.max_magnitude
    key = min(max(twice >> 1, -limit - 1), limit)
    if twice & 1 or key != twice >> 1:
        relation = relation._replace(equal=relation.less)  # what is not above the lower of the two is less
    x, flat = a.reshape(-1), out.reshape(-1)
    loop, integer = _RELATE[fmt.dtype.itemsize][1], np.dtype(f"i{fmt.dtype.itemsize}").type
    rule = integer(key), of(limit), of(fmt.nan_code), *map(np.bool_, relation)
    in_chunks(lambda begin, end: loop(x[begin:end], *rule, flat[begin:end]), flat.size, _LEAST)
    return out


@kernel
def _ranks(codes, greatest, out):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        m = codes[i] & greatest
        rank = greatest + m if codes[i] <= greatest else greatest - m
        # the code after the greatest positive one is NaN
        out[i] = greatest + greatest + 1 if codes[i] == greatest + 1 else rank


@kernel
def _codes(ranks, greatest, out):  # type: ignore[no-untyped-def]
    for i in range(ranks.size):
        above, below = ranks[i] - greatest, greatest + 1 + greatest - ranks[i]
        # beyond the greatest positive number there is NaN alone: its place among codes is the next one
        out[i] = above if ranks[i] >= greatest else below


def ranks(codes: Codes, fmt: LNSFormat) -> Codes:
    """The rank of each code, NaN's the last: unsigned integers of the codes' type."""
    return _each(_ranks, codes, fmt)


def codes_of(ranks: Codes, fmt: LNSFormat) -> Codes:
    """The inverse of `ranks`."""
    return _each(_codes, ranks, fmt)


def _each(kernel_of: Any, given: Codes, fmt: LNSFormat) -> Codes:
    """What a kernel of (integers, the greatest magnitude, out) makes of each."""
    out = np.empty(given.shape, fmt.dtype)
    flat, to = np.ascontiguousarray(given).reshape(-1), out.reshape(-1)
    greatest = fmt.dtype.type(fmt.max_magnitude)
    in_chunks(lambda begin, end: kernel_of(flat[begin:end], greatest, to[begin:end]), flat.size, _LEAST)
    return out


def argsort(codes: Codes, fmt: LNSFormat, axis: int | None) -> NDArray[np.int64]:
    """Indices that sort codes of one scale along an axis: stable, NaN last."""
    return np.argsort(ranks(codes, fmt), axis=axis, kind="stable")


def sort(codes: Codes, fmt: LNSFormat, axis: int) -> Codes:
    """The codes of one scale, sorted along an axis, NaN last."""
    # equal ranks are equal codes, so that any sorting is stable: up to 16 bits NumPy counts digits in the stable one
    return codes_of(np.sort(ranks(codes, fmt), axis=axis, kind="stable" if fmt.bits <= 16 else None), fmt)
