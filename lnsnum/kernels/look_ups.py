"""Look-ups of codes in a table in memory, of codes of any width and entries of any type.

    out[i] = table[codes[i]]

Those of 8-bit codes to float32 fit into registers, where the processor has such: `lnsnum.kernels.byte_decoding`.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import Team, in_chunks

PARALLEL = 1 << 19
"""Elements that are worth a thread of their own."""


@kernel
def look_up(codes, table, out):  # type: ignore[no-untyped-def]
    """out[i] = table[codes[i]]."""
    for i in range(codes.size):
        out[i] = table[codes[i]]


def gather(codes: NDArray[Any], table: NDArray[Any], out: NDArray[Any], *, threads: int | Team | None = None) -> None:
    """out[i] = table[codes[i]], all contiguous and one-dimensional."""
    in_chunks(
        lambda begin, end: look_up(codes[begin:end], table, out[begin:end]), codes.size, PARALLEL, threads=threads
    )
