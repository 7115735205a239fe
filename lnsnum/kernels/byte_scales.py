"""Numbers of 64 codes at once at any scale: codes of a byte as float32, where `has_byte_tables`.

    table[E] = the bytes of base^(E / 2^F)         E = m + place:  a scale's own table is a window of 128 entries

`lnsnum.kernels.byte_tables` looks magnitudes up in four planes of 128 bytes. Those of another scale are the bytes of
other E, so that four rows with the bytes of all E have the planes of every scale: `decode_runs` loads them at a
scale's place, once for each run of elements that share it.

    2^(E / 2^F)  =  2^(r / 2^F) 2^q                E = 2^F q + r,    place = 2^F octave + rest

Where elements of one register have several scales, at base 2, `decode_lines` looks only fractions up, of one octave,
which serves all scales: m + rest is at most 127 + 63, its lower F bits are r, one of 64 at most, and its upper bits and
the octave are the exponent. That takes half as many instructions more, and normal numbers.

Zero and NaN are told by the code. A negative number whose magnitude is below float32's range would be -0: callers do
not come here with scales that have such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from lnsnum.kernels.byte_tables import (
    BYTE,
    BYTES,
    FLOATS,
    LONG,
    PIECES,
    WORD,
    WORDS,
    at,
    byte,
    bytes_of,
    filled,
    load,
    numbers_of,
    shuffle,
)
from lnsnum.kernels.compiling import kernel

VECTOR = 64
"""Codes of a register."""

WINDOW = 128
"""Entries of a window: the magnitudes of eight bits, of which the first is zero's."""


def _widened(builder: ir.IRBuilder, codes: ir.Value, signs: ir.Value | None) -> ir.Value:
    """The codes of a narrower format with their signs where a byte's is."""
    if signs is None:
        return codes
    negative = builder.icmp_unsigned(">=", codes, signs)
    return builder.select(negative, builder.add(codes, builder.sub(byte(0x80), signs)), codes)


def _loop(
    builder: ir.IRBuilder, codes: ir.Value, out: ir.Value, count: ir.Value, signs: ir.Value | None,
    planes: Callable[[ir.Value, ir.Value, bool], list[ir.Value]],
) -> None:  # fmt: skip
    """Write the numbers of VECTOR codes or more, whose bytes are `planes(codes, where they begin, whether that is no
    multiple of VECTOR)`."""

    def decode(begin: ir.Value, last: bool) -> None:
        vector = load(builder, builder.add(codes, begin), 0, BYTES)
        vector = _widened(builder, shuffle(builder, vector, vector, PIECES), signs)
        is_nan = builder.icmp_unsigned("==", vector, byte(0x80))
        target = builder.add(out, builder.shl(begin, ir.Constant(LONG, 2)))
        for i, part in enumerate(numbers_of(builder, planes(vector, begin, last), is_nan)):
            builder.store(part, at(builder, target, 64 * i, FLOATS), align=1)

    with cgutils.for_range(builder, builder.lshr(count, ir.Constant(LONG, 6))) as loop:
        decode(builder.shl(loop.index, ir.Constant(LONG, 6)), False)
    left = builder.and_(count, ir.Constant(LONG, VECTOR - 1))
    # what is left makes a vector with codes that were decoded already
    with builder.if_then(builder.icmp_signed("!=", left, ir.Constant(LONG, 0))):
        decode(builder.sub(count, ir.Constant(LONG, VECTOR)), True)


def _run_of(narrow: bool) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def run(typing: Any, codes: Any, window: Any, apart: Any, sign_bit: Any, out: Any, count: Any) -> Any:
        """Of VECTOR codes or more, by the planes at `window`, `apart` bytes from each other; all are addresses."""

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            codes, window, apart, sign_bit, out, count = arguments
            # no entry of a window is zero's own
            but_zero = ir.Constant(BYTES, [0] + [255] * 63)
            tables = []
            for p in range(4):
                row = builder.add(window, builder.mul(apart, ir.Constant(LONG, p)))
                tables += [builder.and_(load(builder, row, 0, BYTES), but_zero), load(builder, row, 64, BYTES)]
            signs = filled(builder, sign_bit, BYTES) if narrow else None
            _loop(builder, codes, out, count, signs, lambda vector, begin, last: bytes_of(builder, vector, tables))
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, types.uint8, types.intp, types.intp), generate

    return run


def _line_of(narrow: bool) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def line(
        typing: Any, codes: Any, rests: Any, octaves: Any, group: Any, fractions: Any, sign_bit: Any,
        fraction_bits: Any, out: Any, count: Any,
    ) -> Any:  # fmt: skip
        """Of VECTOR codes or more, each 2^group of which share a rest and an octave, bytes; all are addresses."""

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            codes, rests, octaves, group, fractions, sign_bit, fraction_bits, out, count = arguments
            tables = [load(builder, fractions, 64 * i, BYTES) for i in range(3)]
            by = filled(builder, builder.zext(fraction_bits, WORD), WORDS)
            kept = filled(builder, builder.lshr(ir.Constant(BYTE, 255), fraction_bits), BYTES)
            wide = ir.VectorType(WORD, 64)
            lanes, group_bits = ir.Constant(wide, PIECES), filled(builder, builder.trunc(group, WORD), wide)
            own_groups = builder.trunc(builder.lshr(lanes, group_bits), BYTES)
            kind = ir.FunctionType(BYTES, [BYTES] * 2)
            permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.qi.512")

            def shifted(vector: ir.Value, by: ir.Value, *, left: bool = False) -> ir.Value:
                # as words: what comes from a byte's neighbour is masked by the caller
                words = builder.bitcast(vector, WORDS)
                return builder.bitcast((builder.shl if left else builder.lshr)(words, by), BYTES)

            def joined_bits(high: ir.Value, low: ir.Value) -> ir.Value:
                return builder.or_(builder.and_(high, byte(0x80)), builder.and_(low, byte(0x7F)))

            def groups_from(begin: ir.Value) -> ir.Value:
                # how far into its group a vector begins, in words, as 63 and 255 are more than a byte
                mask = builder.sub(builder.shl(ir.Constant(LONG, 1), group), ir.Constant(LONG, 1))
                inside = filled(builder, builder.trunc(builder.and_(begin, mask), WORD), wide)
                return builder.trunc(builder.lshr(builder.add(lanes, inside), group_bits), BYTES)

            def planes(vector: ir.Value, begin: ir.Value, last: bool) -> list[ir.Value]:
                # groups are powers of two: at each multiple of VECTOR one begins, or goes on for all of the vector
                groups, first = groups_from(begin) if last else own_groups, builder.lshr(begin, group)
                rest, octave = (
                    builder.call(permute, [load(builder, builder.add(each, first), 0, BYTES), groups])
                    for each in (rests, octaves)
                )
                m = builder.and_(vector, byte(0x7F))
                log = builder.add(m, rest)
                exponent = builder.add(builder.and_(shifted(log, by), kept), octave)
                # the instruction takes six bits of each index
                found = [builder.call(permute, [table, log]) for table in tables]
                found[2] = joined_bits(shifted(exponent, ir.Constant(WORDS, [7] * 32), left=True), found[2])
                found.append(joined_bits(vector, shifted(exponent, ir.Constant(WORDS, [1] * 32))))
                is_zero = builder.icmp_unsigned("==", m, byte(0))
                return [builder.select(is_zero, byte(0), plane) for plane in found]

            signs = filled(builder, sign_bit, BYTES) if narrow else None
            _loop(builder, codes, out, count, signs, planes)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5, types.uint8, types.uint8, types.intp, types.intp), generate

    return line


_run, _narrow_run = _run_of(False), _run_of(True)
_line, _narrow_line = _line_of(False), _line_of(True)


@kernel
def _decode_at(codes, window, apart, sign_bit, out, count):  # type: ignore[no-untyped-def]
    """The numbers of VECTOR codes or more at an address, by the window at another one."""
    if sign_bit == 128:
        _run(codes, window, apart, np.uint8(sign_bit), out, count)
    else:
        _narrow_run(codes, window, apart, np.uint8(sign_bit), out, count)


@kernel
def decode_run(codes, table, place, sign_bit, out):  # type: ignore[no-untyped-def]
    """out[i] = the number of codes[i], both contiguous: by the window of `table`, four rows of bytes, at `place`."""
    window, apart = table.ctypes.data + place, table.shape[1]
    if out.size >= VECTOR:
        _decode_at(codes.ctypes.data, window, apart, sign_bit, out.ctypes.data, out.size)
    else:
        whole, numbers = np.zeros(VECTOR, codes.dtype), np.empty(VECTOR, out.dtype)
        whole[: out.size] = codes
        _decode_at(whole.ctypes.data, window, apart, sign_bit, numbers.ctypes.data, VECTOR)
        # an address keeps no memory: the codes are asked for their size, and so last until here
        out[:] = numbers[: whole[: out.size].size]


@kernel
def decode_runs(codes, table, places, run, begin, sign_bit, out):  # type: ignore[no-untyped-def]
    """The same of elements from `begin` on, of runs of VECTOR or more that have a place each; these go round."""
    which = begin // run
    left, at, done = run - (begin - which * run), which % places.size, 0
    window, apart = table.ctypes.data, table.shape[1]
    while done < out.size:
        count = min(left, out.size - done)
        if count >= VECTOR:
            # addresses: a slice takes as long as some registers
            numbers = out.ctypes.data + done * out.itemsize
            _decode_at(codes.ctypes.data + done, window + places[at], apart, sign_bit, numbers, count)
        else:
            decode_run(codes[done : done + count], table, places[at], sign_bit, out[done : done + count])
        done += count
        left, at = run, (at + 1 if at + 1 < places.size else 0)


class Lines(NamedTuple):
    """Elements in lines, in which each 2^group share a rest and an octave, to which 127 is added: bytes, with so many
    in a line, those of all lines going round; VECTOR bytes more may be read behind them."""

    rests: NDArray[np.uint8]
    octaves: NDArray[np.uint8]
    length: int
    in_line: int
    group: int


@kernel
def decode_lines(codes, lines, fractions, sign_bit, fraction_bits, begin, out):  # type: ignore[no-untyped-def]
    """The same of elements from `begin` on, where a group begins, each group of a scale of its own; `fractions` are the
    bytes of those of an octave, three rows of 64.
    """
    rests, octaves, length, in_line, group = lines
    number, sign, bits = rests.size - VECTOR, np.uint8(sign_bit), np.uint8(fraction_bits)
    line = begin // length
    k, done = begin - line * length, 0
    at = (line * in_line + (k >> group)) % number
    while done < out.size:
        count = min(length - k, out.size - done)
        scales = rests.ctypes.data + at, octaves.ctypes.data + at, group, fractions.ctypes.data, sign, bits
        if count >= VECTOR:
            numbers = out.ctypes.data + done * out.itemsize
            if sign_bit == 128:
                _line(codes.ctypes.data + done, *scales, numbers, count)
            else:
                _narrow_line(codes.ctypes.data + done, *scales, numbers, count)
        else:
            whole, few = np.zeros(VECTOR, codes.dtype), np.empty(VECTOR, out.dtype)
            whole[:count] = codes[done : done + count]
            if sign_bit == 128:
                _line(whole.ctypes.data, *scales, few.ctypes.data, VECTOR)
            else:
                _narrow_line(whole.ctypes.data, *scales, few.ctypes.data, VECTOR)
            out[done : done + count] = few[: whole[:count].size]  # as in `decode_run`
        done += count
        at += ((k + count + (1 << group) - 1) >> group) - (k >> group)
        at, k = (at if at < number else 0), 0
