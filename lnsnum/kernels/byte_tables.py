"""Look-ups of 64 codes at once in tables that processors hold in registers: float32 numbers, a byte at a time.

    byte p of float(code)  =  plane p [code & 127],    p = 0 .. 3        (and the sign, which is bit 7 of an 8-bit code)

A look-up in memory is one load, one store and one byte to isolate for each code, however wide registers are. AVX-512
has an instruction (VBMI's `vpermi2b`) that looks 64 bytes up in a table of 128, which is as many as 8-bit codes have
magnitudes: four of them give the four bytes of 64 numbers, and eight more move each to its place. On other processors
`has_byte_tables` is False, and callers take a plain loop: the numbers are the same.

The machine code is built here by llvmlite, since no loop that could be written makes LLVM choose these instructions.
What `pieces_of` gives is in the *order of pieces*: the i-th of four vectors holds elements 16 j + 4 i + (0 .. 3) of
64, j = 0 .. 3, because instructions interleave within 16 bytes.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel

BYTE, WORD, INT, LONG, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
BYTES, WORDS = ir.VectorType(BYTE, 64), ir.VectorType(WORD, 32)
INTS, FLOATS = ir.VectorType(INT, 16), ir.VectorType(FLOAT, 16)
MASK = ir.VectorType(ir.IntType(1), 64)
"""Registers of 512 bits, and a bit for each byte of one."""

NAN = 0x7FC00000
"""The pattern of float32's NaN."""


@lru_cache(maxsize=1)
def has_byte_tables() -> bool:
    """Whether kernels are compiled for a processor that has the instruction, and are compiled at all."""
    if numba.config.DISABLE_JIT or sys.byteorder != "little":
        return False
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return {"+avx512bw", "+avx512vbmi"} <= set(features.split(","))


def planes_of(patterns: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a table of float32 patterns by code, (..., 2^bits), as (..., 4, 128): of the codes without bit 7."""
    wide = np.zeros((*patterns.shape[:-1], 128), np.uint32)
    count = min(patterns.shape[-1], 128)
    wide[..., :count] = patterns[..., :count]
    return np.ascontiguousarray(np.moveaxis(wide.view(np.uint8).reshape(*wide.shape, 4), -1, -2))


def at(builder: ir.IRBuilder, address: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
    """A pointer to what stands `offset` bytes behind an address."""
    return builder.inttoptr(builder.add(address, ir.Constant(LONG, offset)), kind.as_pointer())


def load(builder: ir.IRBuilder, address: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
    """What stands there, wherever it begins."""
    return builder.load(at(builder, address, offset, kind), align=1)


def shuffle(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, places: list[int]) -> ir.Value:
    """Elements of x and, behind them, y."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT, len(places)), places))


def byte(value: int) -> ir.Constant:
    """64 times one byte."""
    return ir.Constant(BYTES, [value] * 64)


def filled(builder: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    """A vector of one value."""
    nothing = ir.Constant(kind, ir.Undefined)
    return shuffle(builder, builder.insert_element(nothing, value, ir.Constant(INT, 0)), nothing, [0] * kind.count)


def interleaved(size: int, second_half: int) -> list[int]:
    """The places of the first or second halves of each 16 bytes of two vectors of `size` elements, in turn."""
    part = size // 4
    return [part * j + second_half * part // 2 + i // 2 + size * (i % 2) for j in range(4) for i in range(part)]


def tables_at(builder: ir.IRBuilder, planes: ir.Value) -> list[ir.Value]:
    """Four planes of 128 bytes in eight registers."""
    return [load(builder, planes, 64 * i, BYTES) for i in range(8)]


def bytes_of(builder: ir.IRBuilder, codes: ir.Value, tables: list[ir.Value]) -> list[ir.Value]:
    """The numbers of 64 codes, a vector for each of their four bytes; of the code that is NaN, a zero. What is negative
    and has the magnitude zero, below float32's range, is -0.
    """
    kind = ir.FunctionType(BYTES, [BYTES] * 3)
    look_up = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpermi2var.qi.512")
    planes = [builder.call(look_up, [tables[2 * p], codes, tables[2 * p + 1]]) for p in range(4)]
    # the sign of an 8-bit code stands where a float has its own; the table of a narrower one holds it
    planes[3] = builder.or_(planes[3], builder.and_(codes, byte(0x80)))
    return planes


def joined(builder: ir.IRBuilder, planes: list[ir.Value]) -> list[ir.Value]:
    """Four vectors of 16 numbers, in the order of pieces, of the bytes of 64."""
    pieces = []
    for half in (0, 1):
        low, high = (
            builder.bitcast(shuffle(builder, x, y, interleaved(64, half)), WORDS) for x, y in (planes[:2], planes[2:])
        )
        pieces += [builder.bitcast(shuffle(builder, low, high, interleaved(32, quarter)), FLOATS) for quarter in (0, 1)]
    return pieces


def pieces_of(builder: ir.IRBuilder, codes: ir.Value, tables: list[ir.Value]) -> list[ir.Value]:
    """The numbers of 64 codes, as `bytes_of` says, in the order of pieces."""
    return joined(builder, bytes_of(builder, codes, tables))


def piece_of(k: Any) -> Any:
    """Where, among 64 elements in the order of pieces, element k stands."""
    return (k % 16) // 4 * 16 + k // 16 * 4 + k % 4


PIECES = [16 * i + 4 * j + k for j in range(4) for i in range(4) for k in range(4)]
"""The order of 64 bytes in which what is `joined` of them is in their own: one instruction before, in place of eight
after."""


def numbers_of(builder: ir.IRBuilder, planes: list[ir.Value], is_nan: ir.Value) -> list[ir.Value]:
    """64 numbers as four vectors, of their bytes, which are in the order PIECES; some of them NaN."""
    return joined(builder, [builder.select(is_nan, byte(NAN >> 8 * p & 255), plane) for p, plane in enumerate(planes)])


@intrinsic  # type: ignore[untyped-decorator]
def _decode(typing: Any, codes: Any, planes: Any, nan_code: Any, out: Any, count: Any) -> Any:
    """Numbers for `count` times 64 codes, at addresses."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        codes, planes, nan_code, out, count = arguments
        tables, nan_codes = tables_at(builder, planes), filled(builder, nan_code, BYTES)
        with cgutils.for_range(builder, count) as loop:
            vector = load(builder, builder.add(codes, builder.mul(loop.index, ir.Constant(LONG, 64))), 0, BYTES)
            target = builder.add(out, builder.mul(loop.index, ir.Constant(LONG, 256)))
            vector = shuffle(builder, vector, vector, PIECES)
            is_nan = builder.icmp_unsigned("==", vector, nan_codes)
            for i, part in enumerate(numbers_of(builder, bytes_of(builder, vector, tables), is_nan)):
                builder.store(part, at(builder, target, 64 * i, FLOATS), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.uint8, types.intp, types.intp), generate


@kernel
def decode_bytes(codes, planes, nan_code, out, count):  # type: ignore[no-untyped-def]
    """out[i] = the float32 number of codes[i], for `count` times 64 of them, all at addresses; only where
    `has_byte_tables()`. Negative numbers below float32's range become -0.
    """
    _decode(codes, planes, np.uint8(nan_code), out, count)
