"""y = x W^T with W held as codes: never more than a row of W as floats.

    y_i  =  sum over k of  fl(w_ik) x_k        products and sums in float32, in one fixed order

A row of codes becomes floats by a table, in a buffer that stays in the nearest cache, and is multiplied there with
each row of x. The order of the sum is part of the result: lane l of 128 adds the products of k = l, l + 128, l + 256,
... in turn, beginning with +0; then lanes l and l + 64 are added, l and l + 32, down to lanes 0 and 1. No product is
fused with a sum. So the result has the same bits on any machine, on any number of threads, and for a row of x whatever
the other rows are. BLAS sums in an order of its own, and differs in the last bits.

What bounds the time is the look-ups: a byte to isolate, a load and a store for each element of W. Codes of a byte are
therefore read eight at a time.
"""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.decoding import decode, decode_table
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import WIDEST_TABLE, Codes, LogOffset, check_codes, check_format, check_offsets
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import Team, in_chunks

__all__ = ["error_bound", "weight_only_matmul"]

LANES = 128
"""Partial sums of each element of the result: a power of two."""

_TABLES = 1 << 18
"""Tables of so many entries together stay in a cache; with more of them, rows are decoded by `decode`."""

_BLOCK = 1 << 20
"""So many elements at a time `decode` makes."""

_PARALLEL = 1 << 18


def error_bound(inner: int) -> float:
    """A bound of |found - exact| / (sum of |w_ik x_k|) for sums of `inner` products, w as float32.

        n u / (1 - n u),    n = ceil(inner / 128) + 7,    u = 2^-24

    A product is rounded once, and then goes through ceil(inner / 128) - 1 additions in its lane and 7 of lanes. Where
    products are below the range of float32's normal numbers, add inner 2^-149.

    >>> error_bound(4096) < 40 * 2**-24
    True
    """
    n = -(-inner // LANES) + LANES.bit_length() - 1
    return n * 2.0**-24 / (1 - n * 2.0**-24)


def weight_only_matmul(x: ArrayLike, codes: ArrayLike, fmt: LNSFormat, *, log_offset: LogOffset = 0) -> NDArray[Any]:
    """x W^T of float32 numbers and a matrix of codes, without the matrix of floats.

        out[..., i]  =  sum over k of  x[..., k] decode(codes)[i, k]

    float32 arithmetic in the order that the module's text gives: the same bits everywhere. It is made for a vector, or
    a few rows of x; from some dozens on, `decode` and `@` are faster.

    Args:
        x: float32, (..., K).
        codes: unsigned integers, (N, K). What is contiguous is read in place.
        fmt: their format.
        log_offset: the scale in code steps, an integer or an int32 array that broadcasts to codes; (N, 1) for one of
            each row.

    Returns:
        float32, (..., N). NaN where a NaN of the row of W or of x, or an infinity times zero, comes in.

    Errors: within `error_bound(K)` times the sum of |w x|, w the code's value rounded to float32.

    Raises:
        TypeError: where x is not of float32, or codes are no integers.
        ValueError: where codes are no matrix, K differs, or a code lies outside the format.

    >>> from lnsnum import encode, lns8f5
    >>> weights = encode([[1.0, -0.5, 0.0], [2.0, 1.0, 0.5]], lns8f5)
    >>> weight_only_matmul(np.float32([3.0, 2.0, 4.0]), weights, lns8f5)
    array([ 2., 10.], dtype=float32)
    """
    check_format(fmt)
    array = check_codes(codes, fmt)
    if array.ndim != 2:
        raise ValueError(f"codes of shape {array.shape} are no matrix: give (N, K), a row for each output")
    vectors = np.asarray(x)
    if vectors.dtype != np.float32:
        raise TypeError(f"x is an array of {vectors.dtype}, not of float32: convert it with astype(np.float32)")
    if vectors.ndim == 0 or vectors.shape[-1] != array.shape[1]:
        raise ValueError(
            f"x of shape {vectors.shape} and codes of shape {array.shape} do not match in K, the last axis"
        )
    return multiply(vectors, array, fmt, check_offsets(log_offset, array.shape))


def multiply(
    x: NDArray[Any], codes: Codes, fmt: LNSFormat, log_offset: LogOffset, *, threads: int | Team | None = None
) -> NDArray[Any]:
    """`weight_only_matmul` of what is known to be good, on so many threads."""
    rows, inner = codes.shape
    count, steps = math.prod(x.shape[:-1]), -(-inner // LANES)
    vectors = np.zeros((count, steps * LANES), np.float32)  # zeros behind change no sum: none is ever -0
    # filled up to whole groups of lanes
    vectors[:, :inner] = x.reshape(count, inner)
    vectors = vectors.reshape(count, steps, LANES)
    out = np.empty((count, rows), np.float32)
    least = max(_PARALLEL // max(inner, 1), 1)
    chosen = _tables(fmt, log_offset, rows)
    if chosen is None:
        length = max(_BLOCK // max(inner, 1), 1)
        for begin in range(0, rows, length):
            block = slice(begin, begin + length)
            scale = log_offset if isinstance(log_offset, int) else _part(log_offset, codes.shape, block)
            floats = decode(codes[block], fmt, "float32", log_offset=scale)
            # whole rows to a thread: each sum is made by one, in its own order
            in_chunks(
                partial(_by_floats, floats, vectors, out[:, block]), len(floats), least, alignment=1, threads=threads
            )
    else:
        tables, which = chosen
        codes = np.ascontiguousarray(codes)
        words = _words(codes)
        run = partial(_by_codes, codes if words is None else words, tables, which, vectors, out)
        in_chunks(run, rows, least, alignment=1, threads=threads)
    return out.reshape(*x.shape[:-1], rows)


def _tables(fmt: LNSFormat, log_offset: LogOffset, rows: int) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """Bit patterns of float32 by code, a table a row, and which of them a row of W takes; None where they are many."""
    if fmt.bits > WIDEST_TABLE:
        return None
    if isinstance(log_offset, int):
        return decode_table(fmt, log_offset, "float32")[None], np.zeros(rows, np.int64)
    if log_offset.shape[-1] != 1 or log_offset.size == 0:
        return None
    # channels that share a scale share a table
    different, which = np.unique(log_offset.reshape(-1), return_inverse=True)
    if different.size << fmt.bits > _TABLES:
        return None
    tables = np.stack([decode_table(fmt, int(offset), "float32") for offset in different])
    return tables, np.ascontiguousarray(np.broadcast_to(which.reshape(-1), rows), np.int64)


def _part(offsets: NDArray[np.int32], shape: tuple[int, ...], rows: slice) -> NDArray[np.int32]:
    """The offsets of some rows, shaped so that `decode` sees which are one."""
    padded = offsets.reshape((1,) * (len(shape) - offsets.ndim) + offsets.shape)
    return padded if padded.shape[0] == 1 else padded[rows]


def _words(codes: Codes) -> NDArray[np.uint64] | None:
    """Eight codes of a byte each as one word, where rows are made up of whole words."""
    # rows of whole words, and words where the processor loads them at once
    fits = codes.itemsize == 1 and codes.size > 0 and codes.shape[1] % 8 == 0 and codes.ctypes.data % 8 == 0
    return codes.view(np.uint64) if fits else None


_FIRST = 0 if sys.byteorder == "little" else 56
"""Where in a word the first of its eight codes is."""


@kernel
def _sum_products(tile, x, lanes, i, out):  # type: ignore[no-untyped-def]
    """out[n, i] = the sum of tile * x[n], both of (steps, LANES): the inner loop is vectors."""
    for n in range(x.shape[0]):
        lanes[:] = np.float32(0.0)
        for j in range(tile.shape[0]):
            # lanes do not depend on each other: the compiler makes vectors of them without changing the order of a sum
            for k in range(LANES):
                lanes[k] += tile[j, k] * x[n, j, k]
        # halves are added, not neighbours: vectors again
        half = LANES >> 1
        while half > 0:
            for k in range(half):
                lanes[k] += lanes[k + half]
            half >>= 1
        out[n, i] = lanes[0]


@kernel
def _by_codes(rows, tables, which, x, out, begin, end):  # type: ignore[no-untyped-def]
    """Rows of W as codes of one or two bytes, or as words of eight codes of a byte."""
    patterns, lanes = np.zeros(x.shape[1] * LANES, np.uint32), np.empty(LANES, np.float32)
    tile = patterns.view(np.float32).reshape(x.shape[1], LANES)
    for i in range(begin, end):
        row, table = rows[i], tables[which[i]]
        if rows.itemsize < 8:
            for k in range(row.size):
                patterns[k] = table[row[k]]
        else:
            for k in range(row.size):
                word = row[k]  # into a register, once: for all that the compiler knows, patterns is the same memory
                for byte in range(8):
                    patterns[8 * k + byte] = table[(word >> np.uint64((8 * byte) ^ _FIRST)) & np.uint64(255)]
        _sum_products(tile, x, lanes, i, out)


@kernel
def _by_floats(floats, x, out, begin, end):  # type: ignore[no-untyped-def]
    """Rows of W that are decoded already."""
    tile, lanes = np.zeros((x.shape[1], LANES), np.float32), np.empty(LANES, np.float32)
    flat = tile.reshape(-1)
    for i in range(begin, end):
        # what lies behind stays 0 from the first row on
        flat[: floats.shape[1]] = floats[i]
        _sum_products(tile, x, lanes, i, out)
