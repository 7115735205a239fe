"""Runs of one value, a line of the cache at a time.

    fill_run(out, begin, count, value)        out[begin : begin + count] = value
    fill_runs(out, begin, count, values)      the same for each of some values, one run behind the other

Of a short run a loop costs more than its stores: compilers make vectors of long ones alone. So whole lines are stored,
each by an instruction or two, and the last one beyond the end of the run, where there is room: what comes there is
written later.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from lnsnum.kernels.byte_tables import filled
from lnsnum.kernels.compiling import kernel

LINE = 64
"""Bytes."""


@intrinsic  # type: ignore[untyped-decorator]
def _store_line(typing: Any, address: Any, value: Any) -> Any:
    """A vector of one value, LINE bytes, at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, one = arguments
        kind = ir.VectorType(one.type, LINE // (context.get_abi_sizeof(one.type)))
        builder.store(filled(builder, one, kind), builder.inttoptr(place, kind.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, value), generate


def _line(out: NDArray[Any], begin: int, value: Any) -> None:
    """`out`, contiguous, from `begin` on for LINE bytes; in plain Python too."""
    out[begin : begin + LINE // out.itemsize] = value


@overload(_line)
def _compiled_line(out, begin, value):  # type: ignore[no-untyped-def]
    return lambda out, begin, value: _store_line(out.ctypes.data + begin * out.itemsize, out.dtype.type(value))


@kernel
def _fill(value, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = value


@kernel
def fill_runs(out, begin, count, values):  # type: ignore[no-untyped-def]
    """Write runs of `count` elements, one for each value, as long as there is a line of room; returns how many."""
    line = LINE // out.itemsize
    # a division only where not all of them have room
    room, whole = out.size - line - begin, values.size
    if whole * count > room:
        whole = max(room // count, 0)
    if count <= line:
        # of a loop within the loop its test alone would take as long as the store
        for i in range(whole):
            _line(out, begin + i * count, values[i])
        return whole
    for i in range(whole):
        for k in range(0, count, line):
            _line(out, begin + i * count + k, values[i])
    return whole


@kernel
def fill_run(out, begin, count, value):  # type: ignore[no-untyped-def]
    """Write a run into a contiguous array; what lies behind it up to a line further may be anything afterwards."""
    line = LINE // out.itemsize
    end = begin + count
    # in a loop over a slice LLVM sees that no index counts from the end
    if end + line > out.size or count > 16 * line:
        _fill(value, out[begin:end])
        return
    while begin < end:
        _line(out, begin, value)
        begin += line
