"""Squares of a matrix, transposed in registers.

    out[j : j + n, i : i + n]  =  matrix[i : i + n, j : j + n].T        n elements are 64 bytes

The rows are taken in eight groups, of as many as fill a word of 8 bytes with a column: each group's are interleaved,
element by element, then pair by pair, until its words are columns; then the words of the eight groups change places. So
memory is read and written in lines of the cache. The instructions are LLVM's own shuffles, which any processor has in
some width.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from lnsnum.kernels.byte_tables import LONG, at, interleaved, load, shuffle

LINE = 64
"""Bytes of a row of a square."""


def _columns_of(builder: ir.IRBuilder, rows: list[ir.Value], size: int) -> list[ir.Value]:
    """Rows of elements of `size` bytes, interleaved to words of 8 bytes: those of register h have the columns
    16 / size (w // 2) + 2 h + w % 2 in the words w."""
    kind = ir.VectorType(ir.IntType(8 * size), LINE // size)
    rows = [builder.bitcast(row, kind) for row in rows]
    if len(rows) == 1:
        return rows
    halves = (
        [shuffle(builder, x, y, interleaved(kind.count, half)) for x, y in zip(rows[::2], rows[1::2], strict=True)]
        for half in (0, 1)
    )
    return [column for half in halves for column in _columns_of(builder, half, 2 * size)]


def _words_transposed(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Eight registers of eight words."""
    even_odd = ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15])
    halves = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
    quarters = ([0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15])
    found: dict[int, ir.Value] = {}
    for odd, places in enumerate(even_odd):
        pairs = [shuffle(builder, rows[i], rows[i + 1], places) for i in range(0, 8, 2)]
        for half, where in enumerate(halves):
            first, second = (shuffle(builder, pairs[i], pairs[i + 1], where) for i in (0, 2))
            for quarter, part in enumerate(quarters):
                found[4 * half + 2 * quarter + odd] = shuffle(builder, first, second, part)
    return [found[i] for i in range(8)]


def _transpose_of(size: int) -> Any:
    """Of elements of 1, 2, 4 or 8 bytes."""
    group, line = 8 // size, ir.VectorType(LONG, 8)

    @intrinsic  # type: ignore[untyped-decorator]
    def transpose(typing: Any, matrix: Any, stride: Any, out: Any, out_stride: Any) -> Any:
        """A square at an address to another one; the strides are of rows, in bytes."""

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            matrix, stride, out, out_stride = arguments

            def row(begin: ir.Value, apart: ir.Value, i: int) -> ir.Value:
                return builder.add(begin, builder.mul(apart, ir.Constant(LONG, i)))

            groups = []
            for g in range(8):
                rows = [load(builder, row(matrix, stride, g * group + i), 0, line) for i in range(group)]
                groups.append([builder.bitcast(x, line) for x in _columns_of(builder, rows, size)])
            for h in range(group):
                for w, found in enumerate(_words_transposed(builder, [columns[h] for columns in groups])):
                    column = 16 // size * (w // 2) + 2 * h + w % 2
                    builder.store(found, at(builder, row(out, out_stride, column), 0, line), align=1)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), generate

    return transpose


_transposes = {size: _transpose_of(size) for size in (1, 2, 4, 8)}


def transpose_tile(matrix: NDArray[Any], i: int, j: int, out: NDArray[Any]) -> None:
    """The square from (i, j) on of a contiguous matrix, into a contiguous `out`; in plain Python too."""
    n = LINE // matrix.itemsize
    out[j : j + n, i : i + n] = matrix[i : i + n, j : j + n].T


@overload(transpose_tile)
def _compiled_tile(matrix, i, j, out):  # type: ignore[no-untyped-def]
    size = matrix.dtype.bitwidth // 8
    transpose = _transposes[size]

    def compiled(matrix, i, j, out):  # type: ignore[no-untyped-def]
        stride, out_stride = matrix.shape[1] * size, out.shape[1] * size
        begin = matrix.ctypes.data + i * stride + j * size
        transpose(begin, stride, out.ctypes.data + j * out_stride + i * size, out_stride)

    return compiled
