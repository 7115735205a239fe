"""y = x W^T, or x W, with W held as codes: never more than some rows of W as floats.

    y_i  =  sum over k of  fl(w_ik) x_k        products and sums in float32, in one fixed order

The order of the sum is part of the result. **By rows** (W of (N, K), of which each row makes a number): lane l of 128
adds the products of k = l, l + 128, l + 256, ... in turn, beginning with +0; then lanes l and l + 64 are added, l and
l + 32, down to lanes 0 and 1. **By columns** (W of (K, N), read as it lies in memory): the products of 64 k's, k = 64 b
to 64 b + 63, are added in turn, beginning with +0; then these sums of blocks in turn, beginning with +0. No product is
fused with a sum. So the result has the same bits on any machine, on any number of threads, and for a row of x whatever
the other rows are. BLAS sums in an order of its own, and differs in the last bits.

What bounds the time is to make numbers of codes. `lnsnum.operations.code_products` does it in registers, where the
processor can and codes have 8 bits at most; elsewhere a row of codes becomes floats by a table, in a buffer that stays
in the nearest cache, and is multiplied there with each row of x.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.decoding import decode, decode_table
from lnsnum.format import LNSFormat
from lnsnum.kernels.byte_tables import has_byte_tables, planes_of
from lnsnum.kernels.codes import WIDEST_TABLE, Codes, LogOffset, check_codes, check_format, check_offsets
from lnsnum.kernels.compiling import callback
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.kernels.threads import PIECES, Team, in_chunks
from lnsnum.operations.code_products import BLOCK, LANES, columns_at, columns_job, rows_at, rows_job
from lnsnum.operations.decoded_products import add_columns, rows_by_codes, rows_by_floats, words_of

__all__ = ["error_bound", "weight_only_matmul"]

Appearance = Literal["float32", "bfloat16", "float16"]
"""What a weight's numbers are rounded to, before they are multiplied as float32."""

_TABLES = 1 << 18
"""Tables of so many entries together stay in a cache; with more of them, rows are decoded by `decode`."""

_ELEMENTS = 1 << 20
"""So many elements at a time `decode` makes."""

_PARALLEL, _PARALLEL_IN_REGISTERS = 1 << 18, 1 << 20
"""Elements of W that are worth a thread of their own."""


def error_bound(inner: int, *, transposed: bool = False) -> float:
    """A bound of |found - exact| / (sum of |w_ik x_k|) for sums of `inner` products, w as float32.

        n u / (1 - n u),    n = ceil(inner / 128) + 7,  by columns  min(inner, 64) + ceil(inner / 64) - 1,    u = 2^-24

    A product is rounded once, and then goes through ceil(inner / 128) - 1 additions in its lane and 7 of lanes; by
    columns through at most 63 in its block, and one for each further block. Where products are below the range of
    float32's normal numbers, add inner 2^-149.

    >>> error_bound(4096) < 40 * 2**-24, error_bound(4096, transposed=True) < 128 * 2**-24
    (True, True)
    """
    by_rows, by_columns = -(-inner // LANES) + LANES.bit_length() - 1, min(inner, BLOCK) - (-inner // BLOCK) - 1
    n = max(by_columns, 0) if transposed else by_rows
    return n * 2.0**-24 / (1 - n * 2.0**-24)


def weight_only_matmul(
    x: ArrayLike, codes: ArrayLike, fmt: LNSFormat, *, log_offset: LogOffset = 0, transposed: bool = False
) -> NDArray[Any]:
    """x W^T of float32 numbers and a matrix of codes, without the matrix of floats; or x W.

        out[..., i]  =  sum over k of  x[..., k] decode(codes)[i, k]

    float32 arithmetic in the order that the module's text gives: the same bits everywhere. It is made for a vector, or
    a few rows of x; from about ten on, `decode` and `@` are faster.

    Args:
        x: float32, (..., K).
        codes: unsigned integers, (N, K). What is contiguous is read in place.
        fmt: their format.
        log_offset: the scale in code steps, an integer, an int32 array that broadcasts to codes, (N, 1) for one of
            each row, or `GroupOffsets`.
        transposed: the codes are (K, N), and read by columns: another order of the sums.

    Returns:
        float32, (..., N). NaN where a NaN of W's numbers for it or of x, or an infinity times zero, comes in.

    Errors: within `error_bound(K)` times the sum of |w x|, w the code's value rounded to float32.

    Raises:
        TypeError: where x is not of float32, or codes are no integers.
        ValueError: where codes are no matrix, K differs, or a code lies outside the format.

    >>> from lnsnum import encode, lns8f5
    >>> weights = encode([[1.0, -0.5, 0.0], [2.0, 1.0, 0.5]], lns8f5)
    >>> weight_only_matmul(np.float32([3.0, 2.0, 4.0]), weights, lns8f5)
    array([ 2., 10.], dtype=float32)
    >>> weight_only_matmul(np.float32([3.0, 2.0]), weights, lns8f5, transposed=True)
    array([7. , 0.5, 1. ], dtype=float32)
    """
    check_format(fmt)
    array = check_codes(codes, fmt)
    if array.ndim != 2:
        shape = "(K, N), a column for each output" if transposed else "(N, K), a row for each output"
        raise ValueError(f"codes of shape {array.shape} are no matrix: give {shape}")
    vectors = np.asarray(x)
    if vectors.dtype != np.float32:
        raise TypeError(f"x is an array of {vectors.dtype}, not of float32: convert it with astype(np.float32)")
    if vectors.ndim == 0 or vectors.shape[-1] != array.shape[0 if transposed else 1]:
        which = "the first of codes" if transposed else "the last axis"
        raise ValueError(f"x of shape {vectors.shape} and codes of shape {array.shape} do not match in K, {which}")
    return multiply(vectors, array, fmt, check_offsets(log_offset, array.shape), transposed=transposed)


def multiply(
    x: NDArray[Any],
    codes: Codes,
    fmt: LNSFormat,
    log_offset: LogOffset,
    *,
    transposed: bool = False,
    appearance: Appearance = "float32",
    threads: int | Team | None = None,
) -> NDArray[Any]:
    """`weight_only_matmul` of what is known to be good, on so many threads; W's numbers rounded to `appearance`."""
    outer, inner = codes.shape[::-1] if transposed else codes.shape
    vectors = np.ascontiguousarray(x.reshape(math.prod(x.shape[:-1]), inner))
    out = np.empty((len(vectors), outer), np.float32)
    planes = planes_for(fmt, log_offset, len(codes), appearance)
    if planes is not None:
        codes = np.ascontiguousarray(codes)
        places = codes.ctypes.data, vectors.ctypes.data, out.ctypes.data
        multiply_at(*places, (len(vectors), outer, inner), planes, transposed=transposed, threads=threads)
    else:
        by_floats = _columns_of_floats if transposed else _rows_of_floats
        by_floats(codes, fmt, log_offset, vectors, out, appearance, threads)
    return out.reshape(*x.shape[:-1], outer)


class Planes(NamedTuple):
    """Tables for the registers, and how a matrix of codes takes them."""

    planes: NDArray[np.uint8]
    """As `planes_of` makes them, one for each log_offset."""
    which: NDArray[np.int64]
    """The table of each row of codes."""
    nan_code: int


def planes_for(fmt: LNSFormat, log_offset: LogOffset, rows: int, appearance: Appearance) -> Planes | None:
    """What `multiply_at` needs; None where it cannot do: on another processor, for wide codes, for many scales."""
    if fmt.bits > 8 or not has_byte_tables():
        return None
    chosen = _tables_of(fmt, log_offset, rows)
    return None if chosen is None else Planes(_planes(fmt, *chosen[0], appearance), chosen[1], fmt.nan_code)


def multiply_at(
    codes: int,
    x: int,
    out: int,
    shape: tuple[int, int, int],
    planes: Planes,
    *,
    transposed: bool,
    threads: int | Team | None = None,
) -> None:
    """`multiply` of codes (N, K), or (K, N) where transposed, and x (B, K), into float32 (B, N), all contiguous and
    given by their addresses; shape is (B, N, K).
    """
    rows, outer, inner = shape
    if inner == 0:  # sums of nothing: no kernel writes them
        ctypes.memset(out, 0, 4 * rows * outer)
        return
    # whole sums to a thread: each is made by one, in its own order
    least, alignment = max(_PARALLEL_IN_REGISTERS // max(inner, 1), 1), LANES if transposed else 1
    if isinstance(threads, Team) and threads.region is not None and outer >= 2 * least:
        count = min(threads.size * PIECES, outer // least)
        length = -(-outer // (count * alignment)) * alignment
        tables, which, nan_code = planes
        places = codes, which.ctypes.data, nan_code, x, out
        job = np.array([0, *places, *shape, tables.ctypes.data, len(tables), length], np.int64)
        threads.region(callback(columns_job if transposed else rows_job), job.ctypes.data)
    else:
        run = partial(columns_at if transposed else rows_at, codes, *planes, x, out, *shape)
        in_chunks(run, outer, least, alignment=alignment, threads=threads)


def _rows_of_floats(
    codes: Codes, fmt: LNSFormat, log_offset: LogOffset, x: NDArray[Any], out: NDArray[Any], appearance: Appearance,
    threads: int | Team | None,
) -> None:  # fmt: skip
    """By rows, each of which becomes floats in a buffer: by tables of all codes where these are few, else before."""
    outer, inner = codes.shape
    least = max(_PARALLEL // max(inner, 1), 1)
    # zeros behind change no sum: none is ever -0
    steps = -(-inner // LANES)
    lanes = np.zeros((len(x), steps * LANES), np.float32)
    lanes[:, :inner] = x
    lanes = lanes.reshape(len(x), steps, LANES)
    chosen = _tables_of(fmt, log_offset, outer)
    if chosen is not None:
        codes = words_of(np.ascontiguousarray(codes))
        run = partial(rows_by_codes, codes, _patterns(fmt, *chosen[0], appearance), chosen[1], lanes, out)
        in_chunks(run, outer, least, alignment=1, threads=threads)
        return
    length = max(_ELEMENTS // max(inner, 1), 1)
    for begin in range(0, outer, length):
        floats = _floats(codes, fmt, log_offset, slice(begin, begin + length), appearance)
        run = partial(rows_by_floats, floats, lanes, out[:, begin : begin + length])
        in_chunks(run, len(floats), least, alignment=1, threads=threads)


def _columns_of_floats(
    codes: Codes, fmt: LNSFormat, log_offset: LogOffset, x: NDArray[Any], out: NDArray[Any], appearance: Appearance,
    threads: int | Team | None,
) -> None:  # fmt: skip
    """By columns, some blocks of the sums at a time."""
    inner, outer = codes.shape
    least = max(_PARALLEL // max(inner, 1), 1)
    length = max(_ELEMENTS // max(outer, 1) // BLOCK, 1) * BLOCK
    out[:] = 0.0
    for begin in range(0, inner, length):
        floats = _floats(codes, fmt, log_offset, slice(begin, begin + length), appearance)
        run = partial(add_columns, floats, x[:, begin : begin + length], out)
        in_chunks(run, outer, least, alignment=LANES, threads=threads)


def _tables_of(fmt: LNSFormat, log_offset: LogOffset, rows: int) -> tuple[tuple[int, int], NDArray[np.int64]] | None:
    """The least and the greatest log_offset, and which table of all between them a row of codes takes; None where they
    are many, or a row has several.
    """
    if fmt.bits > WIDEST_TABLE:
        return None
    if isinstance(log_offset, int):
        return (log_offset, log_offset), np.zeros(rows, np.int64)
    if isinstance(log_offset, GroupOffsets) or log_offset.shape[-1] != 1 or log_offset.size == 0:
        return None
    low, high = int(log_offset.min()), int(log_offset.max())
    if (high - low + 1) << fmt.bits > _TABLES:
        return None
    return (low, high), np.ascontiguousarray(np.broadcast_to(log_offset.reshape(-1) - np.int64(low), rows), np.int64)


@lru_cache(maxsize=256)
def _patterns(fmt: LNSFormat, low: int, high: int, appearance: Appearance) -> NDArray[np.uint32]:
    """The float32 pattern of every code, a table for each log_offset from `low` to `high`."""
    return as_float32(np.stack([decode_table(fmt, offset, appearance) for offset in range(low, high + 1)]), appearance)


@lru_cache(maxsize=256)
def _planes(fmt: LNSFormat, low: int, high: int, appearance: Appearance) -> NDArray[np.uint8]:
    """The same in planes of bytes."""
    return planes_of(_patterns(fmt, low, high, appearance))


def as_float32(numbers: NDArray[Any], appearance: Appearance) -> NDArray[np.uint32]:
    """Patterns or floats of a type as float32's patterns, exactly."""
    if appearance == "bfloat16":
        return numbers.astype(np.uint32) << np.uint32(16)  # which is the upper half of a float32
    return numbers.view(appearance).astype(np.float32, copy=False).view(np.uint32)


def _floats(codes: Codes, fmt: LNSFormat, log_offset: LogOffset, rows: slice, appearance: Appearance) -> NDArray[Any]:
    """Some rows of codes as float32."""
    scale = log_offset if isinstance(log_offset, int) else _part(log_offset, codes.shape, rows)
    return as_float32(decode(codes[rows], fmt, appearance, log_offset=scale), appearance).view(np.float32)


def _part(log_offset: NDArray[np.int32] | GroupOffsets, shape: tuple[int, ...], rows: slice) -> LogOffset:
    """The offsets of some rows, shaped so that `decode` sees which are one."""
    if isinstance(log_offset, GroupOffsets):
        own = log_offset.padded(len(shape))
        if log_offset.axis == -1:
            return GroupOffsets(own if own.shape[0] == 1 else own[rows], log_offset.group_size)
        return own[np.arange(shape[0])[rows] // log_offset.group_size]
    padded = log_offset.reshape((1,) * (len(shape) - log_offset.ndim) + log_offset.shape)
    return padded if padded.shape[0] == 1 else padded[rows]
