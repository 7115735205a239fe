"""Look-ups of 32 indices at once in a table of 16-bit words that registers hold, where `has_byte_tables`.

    out[i] = table[place[i]],    of 128, 256 or 512 entries: 4, 8 or 16 registers

An instruction of AVX-512 (`vpermi2w`) looks 32 words up among 64; of the results of several the upper bits of the index
choose. A look-up in memory is a load of the index, one of the entry and a store for each word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from lnsnum.kernels.byte_tables import LONG, WORDS, at, has_byte_tables, load
from lnsnum.kernels.compiling import kernel

_MOST = 16
"""Registers of a table: half of those that there are."""


def _by(registers: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def run(typing: Any, table: Any, place: Any, out: Any, count: Any) -> Any:
        """`count` times 32 indices, at addresses."""

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            table, place, out, count = arguments
            tables = [load(builder, table, 64 * i, WORDS) for i in range(registers)]
            kind = ir.FunctionType(WORDS, [WORDS] * 3)
            look_up = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpermi2var.hi.512")
            with cgutils.for_range(builder, count) as loop:
                begin = builder.mul(loop.index, ir.Constant(LONG, 64))
                index = load(builder, builder.add(place, begin), 0, WORDS)
                found = [builder.call(look_up, [x, index, y]) for x, y in zip(tables[::2], tables[1::2], strict=True)]
                bit = 64
                while len(found) > 1:
                    masked = builder.and_(index, ir.Constant(WORDS, [bit] * 32))
                    upper = builder.icmp_unsigned("!=", masked, ir.Constant(WORDS, [0] * 32))
                    found = [builder.select(upper, y, x) for x, y in zip(found[::2], found[1::2], strict=True)]
                    bit *= 2
                builder.store(found[0], at(builder, builder.add(out, begin), 0, WORDS), align=1)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), generate

    return run


_of_4, _of_8, _of_16 = _by(4), _by(8), _by(16)


def in_registers(table: NDArray[np.int16]) -> NDArray[np.int16]:
    """The table as registers take it, with zeros behind; empty where it is too large, or processors cannot."""
    registers = max(1 << (-(-table.size // 32) - 1).bit_length(), 4)
    if registers > _MOST or not has_byte_tables():
        return np.empty(0, np.int16)
    return np.concatenate([table, np.zeros(32 * registers - table.size, np.int16)])


@kernel
def look_up_words(table, place, out, count):  # type: ignore[no-untyped-def]
    """The first `count` of out[i] = table[place[i]], of a table that is `in_registers`; some behind are written too, in
    arrays of a multiple of 32 elements.
    """
    where = table.ctypes.data, place.ctypes.data, out.ctypes.data, (count + 31) // 32
    if table.size == 128:
        _of_4(*where)
    elif table.size == 256:
        _of_8(*where)
    else:
        _of_16(*where)
