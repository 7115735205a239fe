"""Look-ups of codes in a table, in memory or in registers.

    out[i] = table[codes[i]]

A table in memory serves codes of any width and entries of any type. One of float32 patterns of 8-bit codes also fits
into registers, where the processor has `lnsnum.kernels.byte_tables`: sixty-four codes at once, three times as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.byte_tables import decode_bytes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import Team, in_chunks

PARALLEL = 1 << 19
"""Elements that are worth a thread of their own."""

FEW = 1 << 10
"""Fewer codes are looked up in memory before the tables are in registers."""


@kernel
def look_up(codes, table, out):  # type: ignore[no-untyped-def]
    """out[i] = table[codes[i]]."""
    for i in range(codes.size):
        out[i] = table[codes[i]]


@kernel
def look_up_in_registers(codes, table, out, planes, nan_code):  # type: ignore[no-untyped-def]
    """The same for codes of a byte and patterns of float32; all contiguous."""
    count = codes.size // 64
    decode_bytes(codes.ctypes.data, planes.ctypes.data, nan_code, out.ctypes.data, count)
    look_up(codes[64 * count :], table, out[64 * count :])


def gather(
    codes: NDArray[Any],
    table: NDArray[Any],
    out: NDArray[Any],
    planes: NDArray[np.uint8] | None = None,
    nan_code: int = 0,
    *,
    threads: int | Team | None = None,
) -> None:
    """out[i] = table[codes[i]], all contiguous and one-dimensional; by `decode_planes` where they are given."""

    def run(begin: int, end: int) -> None:
        if planes is None:
            look_up(codes[begin:end], table, out[begin:end])
        else:
            look_up_in_registers(codes[begin:end], table, out[begin:end], planes, nan_code)

    in_chunks(run, codes.size, PARALLEL, threads=threads)
