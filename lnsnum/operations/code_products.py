"""Sums of products of codes, as float32, with float32 numbers: in registers, where the processor has byte tables.

    a row of W        sums[n]     =  sum over k of  w[k] x[n, k]          one of each row of x
    columns of W      sums[n, c]  =  sum over k of  x[n, k] w[k, c]       128 columns at a time

in the orders that `lnsnum.operations.weight_only` gives. Nothing is written but the sums: `lnsnum.kernels.byte_tables`
makes numbers of 64 codes in some fifteen instructions, and they are multiplied and added where they are, in eight. Each
is used for two rows of x where there are two; for more the registers do not suffice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lnsnum.kernels.addresses import array_at, fetch_add
from lnsnum.kernels.byte_tables import (
    BYTE,
    BYTES,
    FLOAT,
    FLOATS,
    INT,
    LONG,
    MASK,
    at,
    filled,
    load,
    piece_of,
    pieces_of,
    shuffle,
    tables_at,
)
from lnsnum.kernels.compiling import kernel

LANES = 128
"""Partial sums of each element of a product by rows; columns that are made at a time."""

BLOCK = 64
"""Products that are added in turn in a product by columns, before their sum is added to the others."""

_NONE = ir.Constant(FLOATS, [0.0] * 16)


def _times(builder: ir.IRBuilder, value: ir.Value, factor: int) -> ir.Value:
    return builder.mul(value, ir.Constant(LONG, factor))


def _add_to(builder: ir.IRBuilder, place: ir.Value, value: ir.Value) -> None:
    builder.store(builder.fadd(builder.load(place), value), place)


def _mark(builder: ir.IRBuilder, place: ir.Value, codes: ir.Value, nan_codes: ir.Value) -> None:
    """Remember which of 64 codes is NaN."""
    builder.store(builder.or_(builder.load(place), builder.icmp_unsigned("==", codes, nan_codes)), place)


def _sum_of_lanes(builder: ir.IRBuilder, lanes: list[ir.Value]) -> ir.Value:
    """128 partial sums, in two times four vectors in the order of pieces, halved until there is one."""

    def halved(vector: ir.Value, size: int) -> ir.Value:
        low, high = (shuffle(builder, vector, vector, list(range(i, i + size))) for i in (0, size))
        return builder.fadd(low, high)

    # lanes l and l + 64; then l and l + 32, l + 16, within a vector, whose 4 times 4 elements are 16 apart
    pieces = [halved(halved(builder.fadd(lanes[i], lanes[i + 4]), 8), 4) for i in range(4)]
    # l and l + 8, l + 4, of vectors, whose elements are 4 apart; and the last four
    four = builder.fadd(builder.fadd(pieces[0], pieces[2]), builder.fadd(pieces[1], pieces[3]))
    return builder.extract_element(halved(halved(four, 2), 1), ir.Constant(INT, 0))


def _row_by(count: int) -> Any:
    """The sums of a row with `count` rows of x."""

    @intrinsic  # type: ignore[untyped-decorator]
    def row(
        typing: Any, codes: Any, whole: Any, rest: Any, steps: Any, planes: Any, nan_code: Any, x: Any, apart: Any,
        out: Any,
    ) -> Any:  # fmt: skip
        """`whole` groups of 128 codes at `codes`, and up to `steps` one more at `rest`; x in the order of pieces."""

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            codes, whole, rest, steps, planes, nan_code, x, apart, out = arguments
            tables, nan_codes = tables_at(builder, planes), filled(builder, nan_code, BYTES)
            lanes = [[cgutils.alloca_once_value(builder, _NONE) for _ in range(8)] for _ in range(count)]
            found = cgutils.alloca_once_value(builder, ir.Constant(MASK, [0] * 64))
            with cgutils.for_range(builder, steps) as loop:
                begin = builder.add(codes, _times(builder, loop.index, LANES))
                begin = builder.select(builder.icmp_signed("<", loop.index, whole), begin, rest)
                numbers = builder.add(x, _times(builder, loop.index, 4 * LANES))
                for half in range(2):
                    vector = load(builder, begin, 64 * half, BYTES)
                    _mark(builder, found, vector, nan_codes)
                    for i, piece in enumerate(pieces_of(builder, vector, tables), start=4 * half):
                        for n in range(count):
                            factor = load(builder, builder.add(numbers, _times(builder, apart, n)), 64 * i, FLOATS)
                            _add_to(builder, lanes[n][i], builder.fmul(piece, factor))
            some = builder.icmp_unsigned("!=", builder.bitcast(builder.load(found), LONG), ir.Constant(LONG, 0))
            for n in range(count):
                total = _sum_of_lanes(builder, [builder.load(lane) for lane in lanes[n]])
                total = builder.select(some, ir.Constant(FLOAT, float("nan")), total)
                builder.store(total, at(builder, out, 4 * n, FLOAT))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5, types.uint8, *[types.intp] * 3), generate

    return row


def _columns_by(count: int) -> Any:
    """The products of a block of rows of W, 128 columns of each, added to the sums with `count` rows of x."""

    @intrinsic  # type: ignore[untyped-decorator]
    def columns(
        typing: Any, codes: Any, stride: Any, inner: Any, planes: Any, which: Any, nan_code: Any, x: Any, apart: Any,
        sums: Any, found: Any,
    ) -> Any:  # fmt: skip
        """128 codes of each of `inner` rows, `stride` bytes apart, each with a table of its own: number `which`."""

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            codes, stride, inner, planes, which, nan_code, x, apart, sums, found = arguments
            nan_codes = filled(builder, nan_code, BYTES)
            parts = [[cgutils.alloca_once_value(builder, _NONE) for _ in range(8)] for _ in range(count)]
            marks = [cgutils.alloca_once_value(builder, load(builder, found, 8 * half, MASK)) for half in range(2)]
            kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), INT, INT, INT])
            prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            # to read, into every cache, as data
            hint = [ir.Constant(INT, number) for number in (0, 3, 1)]
            with cgutils.for_range(builder, inner) as loop:
                begin = builder.add(codes, builder.mul(loop.index, stride))
                table = load(builder, builder.add(which, _times(builder, loop.index, 8)), 0, LONG)
                tables = tables_at(builder, builder.add(planes, _times(builder, table, 512)))
                for half in range(2):
                    # the columns that come next: no processor foresees a walk down columns
                    builder.call(prefetch, [at(builder, begin, LANES + 64 * half, BYTE), *hint])
                    vector = load(builder, begin, 64 * half, BYTES)
                    _mark(builder, marks[half], vector, nan_codes)
                    for i, piece in enumerate(pieces_of(builder, vector, tables), start=4 * half):
                        for n in range(count):
                            place = builder.add(_times(builder, loop.index, 4), _times(builder, apart, n))
                            factor = filled(builder, load(builder, builder.add(x, place), 0, FLOAT), FLOATS)
                            _add_to(builder, parts[n][i], builder.fmul(piece, factor))
            for half in range(2):
                builder.store(builder.load(marks[half]), at(builder, found, 8 * half, MASK), align=1)
            for n in range(count):
                for i, part in enumerate(parts[n]):
                    place = at(builder, sums, 4 * LANES * n + 64 * i, FLOATS)
                    builder.store(builder.fadd(builder.load(place, align=1), builder.load(part)), place, align=1)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5, types.uint8, *[types.intp] * 4), generate

    return columns


_row_by_1, _row_by_2, _columns_by_1, _columns_by_2 = _row_by(1), _row_by(2), _columns_by(1), _columns_by(2)


@kernel
def _in_pieces(x, steps):  # type: ignore[no-untyped-def]
    """Rows of x, filled up with zeros to groups of 128, each 64 of them in the order of pieces."""
    out = np.zeros((x.shape[0], steps * LANES), np.float32)
    for n in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[n, k // 64 * 64 + _piece_of(k % 64)] = x[n, k]
    return out


_piece_of = kernel(piece_of)


@kernel
def rows_by_planes(codes, planes, which, nan_code, x, out, begin, end):  # type: ignore[no-untyped-def]
    """out[n, i] for rows i of W from `begin` to `end`; the planes of row i are number which[i]."""
    inner = codes.shape[1]
    whole, steps = inner // LANES, -(-inner // LANES)
    numbers, sums = _in_pieces(x, steps), np.empty(2, np.float32)
    rest, apart, nan = np.zeros(LANES, np.uint8), 4 * steps * LANES, np.uint8(nan_code)
    for i in range(begin, end):
        row, table = codes[i], planes[which[i]].ctypes.data
        # codes that do not make a group stand in memory that does, before zeros
        rest[: inner - whole * LANES] = row[whole * LANES :]
        at = row.ctypes.data, whole, rest.ctypes.data, steps, table, nan
        for n in range(0, x.shape[0] - 1, 2):
            _row_by_2(*at, numbers[n].ctypes.data, apart, sums.ctypes.data)
            out[n, i], out[n + 1, i] = sums[0], sums[1]
        if x.shape[0] % 2:
            _row_by_1(*at, numbers[x.shape[0] - 1].ctypes.data, apart, sums.ctypes.data)
            out[x.shape[0] - 1, i] = sums[0]


@kernel
def columns_by_planes(codes, planes, which, nan_code, x, out, begin, end):  # type: ignore[no-untyped-def]
    """out[n, c] for columns c of W from `begin` to `end`; the planes of row k are number which[k]."""
    count, inner, nan = x.shape[0], codes.shape[0], np.uint8(nan_code)
    groups, apart = -(-(end - begin) // LANES), 4 * x.shape[1]
    sums, found = np.zeros((groups, count, LANES), np.float32), np.zeros((groups, 2), np.uint64)
    width = end - begin - (groups - 1) * LANES
    last = np.zeros((BLOCK, LANES), np.uint8)
    # a block of rows after the other, so that what is read next to each other is used soon after each other
    for k in range(0, inner, BLOCK):
        length = min(BLOCK, inner - k)
        for group in range(groups):
            address, stride = codes.ctypes.data + k * codes.strides[0] + begin + group * LANES, codes.strides[0]
            if group == groups - 1 and width < LANES:
                # columns that do not make a group stand in memory that does, before zeros
                last[:length, :width] = codes[k : k + length, end - width : end]
                address, stride = last.ctypes.data, LANES
            at = address, stride, length, planes.ctypes.data, which[k:].ctypes.data, nan
            for n in range(0, count - 1, 2):
                goal = sums[group, n].ctypes.data, found[group].ctypes.data
                _columns_by_2(*at, x[n, k:].ctypes.data, apart, *goal)
            if count % 2:
                goal = sums[group, count - 1].ctypes.data, found[group].ctypes.data
                _columns_by_1(*at, x[count - 1, k:].ctypes.data, apart, *goal)
    for c in range(end - begin):
        group, half, at_bit = c // LANES, c % LANES // 64, c % 64
        is_nan = (found[group, half] >> np.uint64(at_bit)) & np.uint64(1) != np.uint64(0)
        for n in range(count):
            place = half * 64 + _piece_of(at_bit)
            out[n, begin + c] = np.float32(np.nan) if is_nan else sums[group, n, place]


@kernel
def rows_at(codes, planes, which, nan_code, x, out, count, outer, inner, begin, end):  # type: ignore[no-untyped-def]
    """`rows_by_planes` of codes (outer, inner), x (count, inner) and out (count, outer) at addresses, contiguous."""
    matrix, numbers = array_at(codes, outer * inner, np.uint8), array_at(x, count * inner, np.float32)
    sums = array_at(out, count * outer, np.float32).reshape(count, outer)
    rows_by_planes(
        matrix.reshape(outer, inner), planes, which, nan_code, numbers.reshape(count, inner), sums, begin, end
    )


@kernel
def columns_at(codes, planes, which, nan_code, x, out, count, outer, inner, begin, end):  # type: ignore[no-untyped-def]
    """`columns_by_planes` of codes (inner, outer), and the others as in `rows_at`."""
    matrix, numbers = array_at(codes, outer * inner, np.uint8), array_at(x, count * inner, np.float32)
    sums = array_at(out, count * outer, np.float32).reshape(count, outer)
    columns_by_planes(
        matrix.reshape(inner, outer), planes, which, nan_code, numbers.reshape(count, inner), sums, begin, end
    )


@kernel
def _take_chunks(job, by_columns):  # type: ignore[no-untyped-def]
    """`rows_at` or `columns_at`, a chunk after the other that no other thread has taken; the first of a job's twelve
    numbers is where the next one begins.
    """
    numbers = array_at(job, 12, np.int64)
    codes, which, nan_code, x, out, count, outer, inner, planes, tables, length = numbers[1:12]
    table = array_at(planes, tables * 512, np.uint8).reshape(tables, 4, 128)
    tables_of_rows = array_at(which, inner if by_columns else outer, np.int64)
    begin = fetch_add(job, length)
    while begin < outer:
        end = min(begin + length, outer)
        if by_columns:
            columns_at(codes, table, tables_of_rows, nan_code, x, out, count, outer, inner, begin, end)
        else:
            rows_at(codes, table, tables_of_rows, nan_code, x, out, count, outer, inner, begin, end)
        begin = fetch_add(job, length)


def rows_job(job):  # type: ignore[no-untyped-def]
    """The product by rows that the numbers of a job tell of, for `lnsnum.kernels.compiling.callback`."""
    _take_chunks(job, False)


def columns_job(job):  # type: ignore[no-untyped-def]
    """By columns."""
    _take_chunks(job, True)
