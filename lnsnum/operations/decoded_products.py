"""Sums of products of codes with float32 numbers, by way of floats in a buffer: on every processor, for every format.

    lanes[l]  =  w[l] x[l] + w[l + 128] x[l + 128] + ...    (by rows; `lnsnum.operations.weight_only` gives the order)

What bounds the time is the look-ups: a byte to isolate, a load and a store for each element of W. Codes of a byte are
therefore read eight at a time.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.operations.code_products import BLOCK, LANES


def words_of(codes: Codes) -> NDArray[Any]:
    """Eight codes of a byte each as one word, where rows are made up of whole words; else the codes."""
    # rows of whole words, and words where the processor loads them at once
    fits = codes.itemsize == 1 and codes.size > 0 and codes.shape[1] % 8 == 0 and codes.ctypes.data % 8 == 0
    return codes.view(np.uint64) if fits else codes


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
def rows_by_codes(rows, tables, which, x, out, begin, end):  # type: ignore[no-untyped-def]
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
def rows_by_floats(floats, x, out, begin, end):  # type: ignore[no-untyped-def]
    """Rows of W that are decoded already."""
    tile, lanes = np.zeros((x.shape[1], LANES), np.float32), np.empty(LANES, np.float32)
    flat = tile.reshape(-1)
    for i in range(begin, end):
        # what lies behind stays 0 from the first row on
        flat[: floats.shape[1]] = floats[i]
        _sum_products(tile, x, lanes, i, out)


@kernel
def add_columns(floats, x, out, begin, end):  # type: ignore[no-untyped-def]
    """Add the products of some rows of W, decoded already: whole blocks of them, but the last."""
    part = np.empty(end - begin, np.float32)
    for n in range(x.shape[0]):
        sums = out[n, begin:end]
        for first in range(0, floats.shape[0], BLOCK):
            part[:] = np.float32(0.0)
            for k in range(first, min(first + BLOCK, floats.shape[0])):
                row, factor = floats[k, begin:end], x[n, k]
                for c in range(part.size):
                    part[c] += row[c] * factor
            for c in range(part.size):
                sums[c] += part[c]
