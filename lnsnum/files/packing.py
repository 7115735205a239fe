"""Codes without their unused bits: n codes of b bits in ceil(n b / 8) bytes.

    bit k of the string  =  bit k mod 8 of byte k div 8;      code i  =  bits  i b ... i b + b - 1,  the least first

docs/weight_file.md is the specification. Eight codes fill b bytes, so a multiple of eight codes begins at a byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel

UInt8Array = NDArray[np.uint8]


def can_be_packed(fmt: LNSFormat) -> bool:
    """Whether codes have unused bits in their integers: those of 8, 16 and 32 bits have none."""
    return fmt.bits < 8 * fmt.dtype.itemsize


def packed_bytes(n: int, fmt: LNSFormat) -> int:
    """Bytes that n codes take.

    >>> packed_bytes(5, LNSFormat(6, 2))
    4
    """
    return (n * fmt.bits + 7) // 8


def pack(codes: Codes, fmt: LNSFormat) -> UInt8Array:
    """The bytes of codes, which lie in the format.

    >>> from lnsnum import lns6f2
    >>> pack(np.uint8([1, 62, 32]), lns6f2)
    array([129,  15,   2], dtype=uint8)
    """
    out = np.empty(packed_bytes(codes.size, fmt), np.uint8)
    _pack(np.ascontiguousarray(codes).reshape(-1), fmt.bits, out)
    return out


def unpack(packed: UInt8Array, fmt: LNSFormat, out: Codes) -> None:
    """Write the codes of `packed_bytes(out.size, fmt)` bytes to an array of the format's type, of one dimension."""
    _unpack(packed, fmt.bits, out)


def spare_bits(last: int, n: int, fmt: LNSFormat) -> int:
    """The bits of the last byte that none of n codes takes: 0 in every good file."""
    return last >> (n * fmt.bits % 8) if n * fmt.bits % 8 else 0


@kernel
def _pack(codes, bits, out):  # type: ignore[no-untyped-def]
    """Four bytes at a time out of a word of 64 bits, which has room for the 32 bits of another code."""
    held, count, j = np.uint64(0), np.int64(0), 0
    for i in range(codes.size):
        held |= np.uint64(codes[i]) << np.uint64(count)
        count += bits
        if count >= 32:
            for _ in range(4):
                out[j] = np.uint8(held & np.uint64(255))
                held >>= np.uint64(8)
                j += 1
            count -= 32
    while j < out.size:
        out[j] = np.uint8(held & np.uint64(255))
        held >>= np.uint64(8)
        j += 1


@kernel
def _unpack(packed, bits, out):  # type: ignore[no-untyped-def]
    held, count, j = np.uint64(0), np.int64(0), 0
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    for i in range(out.size):
        if count < bits:
            if j + 4 <= packed.size:
                for _ in range(4):
                    held |= np.uint64(packed[j]) << np.uint64(count)
                    count += 8
                    j += 1
            else:
                while count < bits:
                    held |= np.uint64(packed[j]) << np.uint64(count)
                    count += 8
                    j += 1
        out[i] = held & mask
        held >>= np.uint64(bits)
        count -= bits
