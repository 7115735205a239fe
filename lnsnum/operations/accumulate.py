"""Bit-true matrix products: every addition correctly rounded to the accumulator's format, in a fixed order.

    out[i, j]  =  t_0 + t_1 + ... ,      t_k = a[i, k] b[k, j], exact, then placed in the accumulator's format

The kernels for formats up to 16 bits keep a row of sums as int32 numbers and add a row of terms to it in three loops:
distances (vectors), steps from the table of sb and db (loads), sums (vectors). Other formats, and those in which a sum
can lie half-way between two codes, go one whole addition at a time by `lnsnum.operations.sums`. Both give the same
codes. Rows go to several threads, which changes no bit.
"""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat, Overflow
from lnsnum.gaussian import TIE, GaussianLog, exact_steps, has_tables, tables
from lnsnum.kernels.codes import NO_RANDOM_BITS, Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.kernels.scales import Scales
from lnsnum.kernels.threads import in_chunks
from lnsnum.operations import sums
from lnsnum.operations.linear import KEEP, linear
from lnsnum.operations.operation import Operand, Result

Order = Literal["sequential", "pairwise"]
"""In which order a bit-true sum adds its terms: one after another, or neighbours first, level by level."""


class Terms(NamedTuple):
    """A stack of matrices in int64 logarithms of an accumulator's grid, without the accumulator's bias."""

    log: NDArray[np.int64]
    negative: NDArray[np.bool_]
    zero: NDArray[np.bool_]
    nan: NDArray[np.bool_]

    def at(self, index: Any) -> Terms:
        """All four at an index."""
        return Terms(*(cast(Any, part[index]) for part in self))

    def stacked(self, stack: tuple[int, ...]) -> Terms:
        """All four broadcast to a stack of matrices."""
        shape = (*stack, *self.log.shape[-2:])
        return Terms(*(cast(Any, np.broadcast_to(part, shape)) for part in self))


def terms_of(
    codes: Codes, fmt: LNSFormat, log_offset: int | NDArray[np.int32], accumulator: LNSFormat
) -> tuple[Terms, int]:
    """E of the codes in steps of the accumulator, from the greatest log_offset, which is returned in steps of fmt."""
    m = codes.astype(np.int64) & fmt.max_magnitude
    reference = int(np.max(log_offset)) if np.size(log_offset) else 0
    # from the greatest offset, so that a scale that all share changes no bit
    relative = np.asarray(log_offset, np.int64) - reference
    log = (m - fmt.bias + relative) << (accumulator.fraction_bits - fmt.fraction_bits)
    negative = codes >= fmt.sign_bit
    return Terms(log, negative & (m > 0), m == 0, negative & (m == 0)), reference


def accumulate(a: Terms, b: Terms, fmt: LNSFormat, order: Order, gaussian: GaussianLog, overflow: Overflow) -> Codes:
    """The bit-true matrix product of stacks (..., M, K) and (..., K, N), as codes of the accumulator."""
    stack = np.broadcast_shapes(a.log.shape[:-2], b.log.shape[:-2])
    rows, inner, columns = *a.log.shape[-2:], b.log.shape[-1]
    # an empty sum is zero
    out = np.zeros((*stack, rows, columns), fmt.dtype)
    table = _fast_table(gaussian, fmt) if overflow == "saturate" else None
    for at in np.ndindex(stack):
        x, y = (terms.stacked(stack).at(at) for terms in (a, b))
        if not inner or not rows or not columns:
            continue
        product = None if table is None else _by_table(x, y, fmt, order, table)
        if product is None:
            product = _by_sums(x, y, fmt, order, None if gaussian == sums.EXACT else gaussian, overflow)
        out[at] = product
    # NaN is no number in the loops: it is put in afterwards, wherever a row or a column has one
    if a.nan.any() or b.nan.any():
        nan = np.any(a.nan, axis=-1)[..., :, None] | np.any(b.nan, axis=-2)[..., None, :]
        out[np.broadcast_to(nan, out.shape)] = fmt.nan_code
    return out


def _by_sums(
    a: Terms, b: Terms, fmt: LNSFormat, order: Order, gaussian: GaussianLog | None, overflow: Overflow
) -> Codes:
    """One addition at a time, of all rows and columns at once: any format, any Gaussian logarithm."""
    shape = (a.log.shape[0], b.log.shape[1])
    result = Result(fmt, (shape[0] * shape[1],), 0, "nearest", overflow, "round", NO_RANDOM_BITS)

    def term(k: int) -> Codes:
        log = a.log[:, k, None] + b.log[None, k, :]
        negative = a.negative[:, k, None] != b.negative[None, k, :]
        zero = a.zero[:, k, None] | b.zero[None, k, :]
        return _place(log.reshape(-1), negative.reshape(-1), zero.reshape(-1), result)[0]

    def plus(x: Codes, y: Codes) -> Codes:
        scale = Scales.of(-fmt.bias, ())
        return sums.add(Operand(x, fmt, scale), Operand(y, fmt, scale), gaussian, result)[0]

    if order == "sequential":
        total = term(0)
        for k in range(1, a.log.shape[1]):
            total = plus(total, term(k))
        return total.reshape(shape)
    # a counter in binary: two sums of 2^level terms become one of the next level
    waiting: list[tuple[int, Codes]] = []
    for k in range(a.log.shape[1]):
        level, total = 0, term(k)
        while waiting and waiting[-1][0] == level:
            total, level = plus(waiting.pop()[1], total), level + 1
        waiting.append((level, total))
    total = waiting.pop()[1]
    while waiting:  # an odd one out has moved up level by level, and comes last
        total = plus(waiting.pop()[1], total)
    return total.reshape(shape)


def _place(
    log: NDArray[np.int64], negative: NDArray[np.bool_], zero: NDArray[np.bool_], result: Result
) -> tuple[Codes, int]:
    """The codes of numbers given by E, in code steps of the result, and sign: exact but for the edges."""
    fmt = result.fmt
    one = np.where(negative, fmt.sign_bit | fmt.bias, fmt.bias)
    codes = np.where(zero, 0, one).astype(fmt.dtype)
    return linear(Operand(codes, fmt, Scales(log - fmt.bias)), None, Fraction(1), Fraction(0), KEEP, result)


class _FastTable(NamedTuple):
    """sb and db in turn, by distance, as 2 step + 1 - (1 where the exact value is below step).

    The last term tells an underflow of the exact sum.
    """

    steps: NDArray[np.int32]
    furthest: np.int32
    """Twice the greatest distance: there, and beyond, a sum is its greater operand."""


_EMPTY = -(1 << 26)
"""A logarithm far below all others: zero, in the fast kernels."""


@lru_cache(maxsize=32)
def _fast_table(gaussian: GaussianLog, fmt: LNSFormat) -> _FastTable | None:
    """For formats up to 16 bits whose K is an integer, and tables without ties or extremes; None elsewhere."""
    steps, error = steps_in_two(fmt)
    if not has_tables(fmt) or error != 0.0 or steps != int(steps):
        return None
    table = tables(gaussian, fmt)
    is_exact = gaussian == sums.EXACT
    reach = 2 * fmt.max_log + 1  # numbers in the range are no further apart than this many distances, 0 being the first
    sb, db = table.sb[:reach], table.db[:reach]
    greatest = max(int(np.abs(part.astype(np.int64)).max()) for part in (sb, db))
    complete = table.complete or sb.size == reach
    if TIE in sb or TIE in db or greatest >= -_EMPTY >> 1 or (is_exact and not complete):
        return None
    # the last bit tells on which side of the rounded step the exact one is: half of the smallest is judged by it
    doubled = [2 * sb.astype(np.int64), 2 * db.astype(np.int64)]
    if is_exact:
        z = np.arange(sb.size, dtype=np.int64)
        doubled[0] -= exact_steps(z, fmt, False, rounding="toward_zero") < sb
        doubled[1][1:] -= exact_steps(z[1:], fmt, True, rounding="toward_zero") < db[1:]
    # x - x ends below all numbers
    doubled[1][0] = 4 * _EMPTY
    # one distance more, without effect: where z ends up that is beyond the tables
    pairs = np.empty((sb.size + 1, 2), np.int32)
    for column, (part, end) in enumerate(zip(doubled, (0, -1 if is_exact else 0), strict=True)):
        pairs[:-1, column], pairs[-1, column] = part + 1, end + 1
    return _FastTable(pairs.reshape(-1), np.int32(2 * sb.size))


@kernel
def _pack(terms, limit, out):  # type: ignore[no-untyped-def]
    """Fill in 2 log + sign; returns the least and the greatest log that is no zero's, and whether all are in limit."""
    log, negative, zero = terms
    least, greatest, fits = np.int64(limit), np.int64(-limit), True
    for i in range(log.shape[0]):
        for j in range(log.shape[1]):
            if zero[i, j]:
                # zero is a number far below all others: products and sums with it need no branch
                out[i, j] = np.int32(2 * _EMPTY)
                continue
            one = np.int64(log[i, j])
            least, greatest = min(least, one), max(greatest, one)
            fits = fits and abs(one) < limit
            # with the sign as the lowest bit the greater of two numbers, with its sign, is one max
            out[i, j] = np.int32(2 * one + np.int64(negative[i, j]))
    return least, greatest, fits


@kernel
def _pack_codes(codes, turned, masks, bias, shift, finer, first, out):  # type: ignore[no-untyped-def]
    """Fill in 2 log + sign of codes (rows, columns), or of their transpose, in blocks of columns (blocks, rows, width)
    from the row `first` on, log = (m - bias) 2^finer + shift, and zeros where columns are missing; returns the least
    and the greatest log, and whether one is NaN.
    """
    magnitude, sign_bit = masks
    rows, columns = codes.shape
    if turned:
        rows, columns = columns, rows
    least, greatest, nan = np.int64(1 << 40), np.int64(-(1 << 40)), False
    for block in range(out.shape[0]):
        for i in range(rows):
            for j in range(out.shape[2]):
                column, code = block * out.shape[2] + j, np.int64(0)
                if column < columns:
                    # unsigned codes are widened before anything is done with them
                    code = np.int64(codes[column, i]) if turned else np.int64(codes[i, column])
                m = code & magnitude
                if m == 0:
                    nan = nan or code != 0
                    out[block, first + i, j] = np.int32(2 * _EMPTY)
                    continue
                log = ((m - bias) << finer) + shift
                least, greatest = min(least, log), max(greatest, log)
                out[block, first + i, j] = np.int32(2 * log + np.int64(code >= sign_bit))
    return least, greatest, nan


@kernel
def _distances(total, term, by, by_sign, furthest, index):  # type: ignore[no-untyped-def]
    """Where in the table the step of total + (the term times a number) is: twice the distance, and 1 on for db.

    Numbers are 2 log + sign in int32; `by` is twice the number's logarithm. This and `_settle_row` are loops of their
    own, without a branch and without a look-up, so that the compiler makes vectors of them.
    """
    one, but_sign = np.int32(1), np.int32(-2)
    for j in range(total.size):
        # by is even: the logarithms add, and the sign bit is flipped by the number's own sign
        p = np.int32(term[j] + by) ^ by_sign
        twice = abs(np.int32((total[j] & but_sign) - (p & but_sign)))
        # 16 bits: the table of the widest format, with both steps of each distance, has 2^16 entries
        index[j] = np.uint16(min(twice, furthest) | ((total[j] ^ p) & one))


@kernel
def _look_up(table, words, step):  # type: ignore[no-untyped-def]
    """step = table[index], four indices to a word: fewer loads."""
    for j in range(words.size):
        word = words[j]
        for part in range(4):
            step[4 * j + part] = table[(word >> np.uint64((16 * part) ^ _FIRST)) & np.uint64(0xFFFF)]


_FIRST = 0 if sys.byteorder == "little" else 48
"""Where in a word the first of its four indices is."""


@kernel
def _settle_row(total, term, by, by_sign, step, edges):  # type: ignore[no-untyped-def]
    """total <- total + (the term times a number), from the steps; with the edges. The sign is that of the greater."""
    one, but_sign, empty = np.int32(1), np.int32(-2), np.int32(2 * _EMPTY)
    lowest, greatest, half = np.int32(2 * edges[0]), np.int32(2 * edges[1]), np.int32(2 * edges[2] + 1)
    for j in range(total.size):
        p = np.int32(term[j] + by) ^ by_sign
        # of equal logarithms the signs do not matter: the step of x - x leads to zero anyway
        hi = max(total[j], p)
        # 2 E + 1, or 2 E where the exact sum is below E: compared with half of the smallest it is the exact sum
        twice = np.int32((hi & but_sign) + step[j])
        under = lowest if twice >= half else empty
        twice = min(under if twice < lowest else twice, greatest)
        total[j] = (twice & but_sign) | (hi & one)


@kernel
def _place_row(term, by, by_sign, edges, out):  # type: ignore[no-untyped-def]
    """The term times a number, brought into the range: saturated, or underflowed by nearest."""
    one, empty = np.int32(1), np.int32(_EMPTY)
    lowest, greatest, half = edges
    for j in range(term.size):
        p = np.int32(term[j] + by) ^ by_sign
        # a term is exact, so that its own logarithm is compared with half of the smallest
        log = min(np.int32(p >> one), greatest)
        log = log if log >= lowest else (lowest if log >= half else empty)
        out[j] = np.int32(np.int32(log + log) | (p & one))


@kernel
def _write_row(total, lowest, bias, sign_bit, out):  # type: ignore[no-untyped-def]
    """Numbers 2 log + sign as codes."""
    for j in range(out.size):
        log = np.int32(total[j] >> np.int32(1))
        code = np.int32(log + bias) | (sign_bit if total[j] & np.int32(1) else np.int32(0))
        out[j] = np.int32(0) if log < lowest else code


@kernel
def _sequential(a, b, place, table, furthest, edges, code, rows, index, out):  # type: ignore[no-untyped-def]
    """A matrix product of numbers 2 log + sign, term after term; b is (blocks of columns, K, columns)."""
    columns, zero = b.shape[2], np.int32(0)
    total, placed, step, words = rows[0], rows[1], rows[2], index.view(np.uint64)
    for block in range(b.shape[0]):
        for i in range(a.shape[0]):
            # 0 + t_0 is t_0: the first term needs no case of its own
            total[:] = np.int32(2 * _EMPTY)
            for k in range(a.shape[1]):
                term, sign = b[block, k], np.int32(a[i, k] & 1)
                by = np.int32(a[i, k] - sign)
                # only where a product can leave the range; else the term is added as it is, unplaced
                if place:
                    _place_row(term, by, sign, edges, placed)
                    term, by, sign = placed, zero, zero
                _distances(total, term, by, sign, furthest, index)
                _look_up(table, words, step)
                _settle_row(total, term, by, sign, step, edges)
            _write_row(total, edges[0], code[0], code[1], out[i, block * columns : (block + 1) * columns])


@kernel
def _pairwise(a, b, place, table, furthest, edges, code, rows, index, out):  # type: ignore[no-untyped-def]
    """The same, the terms added in a tree: a sum waits in `rows` until another of as many terms comes."""
    columns, zero = b.shape[2], np.int32(0)
    step, words = rows[0], index.view(np.uint64)
    for block in range(b.shape[0]):
        for i in range(a.shape[0]):
            waiting = 0
            for k in range(a.shape[1]):
                sign = np.int32(a[i, k] & 1)
                waiting += 1
                _place_row(b[block, k], np.int32(a[i, k] - sign), sign, edges, rows[waiting])
                pairs = k + 1 if k + 1 < a.shape[1] else 0  # the last term calls in all that wait
                while waiting > 1 and pairs & 1 == 0:
                    left, right = rows[waiting - 1], rows[waiting]
                    _distances(left, right, zero, zero, furthest, index)
                    _look_up(table, words, step)
                    _settle_row(left, right, zero, zero, step, edges)
                    waiting -= 1
                    pairs >>= 1
            _write_row(rows[1], edges[0], code[0], code[1], out[i, block * columns : (block + 1) * columns])


_COLUMNS = 512
"""So many columns at a time: all that is needed of them stays in the nearest cache."""

_VECTOR = 16
"""Columns are filled up to a multiple of this: whole vectors, and whole words of indices."""

_PARALLEL = 1 << 19
"""So many additions, at least, to a thread."""


def _by_table(a: Terms, b: Terms, fmt: LNSFormat, order: Order, table: _FastTable) -> Codes | None:
    """The kernels over rows, on several threads; None where int32 is too narrow for a logarithm."""
    (rows, inner), columns = a.log.shape, b.log.shape[1]
    left, right = np.empty((rows, inner), np.int32), np.empty((inner, columns), np.int32)
    least, greatest = 0, 0
    for terms, packed in ((a, left), (b, right)):
        low, high, fits = _pack(terms[:3], _LIMIT, packed)
        if not fits:
            return None
        least, greatest = least + low, greatest + high
    blocks = _blocks(inner, columns)
    width = blocks.shape[2]
    for block, part in enumerate(blocks):
        part[:] = 2 * _EMPTY
        own = right[:, block * width : (block + 1) * width]
        part[:, : own.shape[1]] = own
    return _product(left, blocks, columns, not (-fmt.max_log <= least and greatest <= fmt.max_log), fmt, order, table)


_LIMIT = -_EMPTY // 4
"""Of a logarithm: sums of two, doubled, stay apart from zero and within int32."""


def _blocks(inner: int, columns: int) -> NDArray[np.int32]:
    """Room for a matrix (inner, columns) in blocks of columns, one after another in memory: whole vectors."""
    width = min(_COLUMNS, -(-columns // _VECTOR) * _VECTOR)
    return _aligned((-(-columns // width), inner, width), np.int32)


def _product(
    left: NDArray[np.int32], blocks: NDArray[np.int32], columns: int, place: bool, fmt: LNSFormat, order: Order,
    table: _FastTable,
) -> Codes:  # fmt: skip
    """The product of packed numbers, the right ones in blocks."""
    (rows, inner), width = left.shape, blocks.shape[2]
    edges, code = _edges(fmt)
    out = np.empty((rows, columns), fmt.dtype)
    kernel_of = _sequential if order == "sequential" else _pairwise

    def run(begin: int, end: int) -> None:
        # own to each thread: rows of sums for every level of the tree, and the indices
        buffers = _aligned((inner.bit_length() + 3, width), np.int32), _aligned((width,), np.uint16)
        kernel_of(left[begin:end], blocks, place, table.steps, table.furthest, edges, code, *buffers, out[begin:end])

    least = max(_PARALLEL // max(inner * columns, 1), 1)
    if rows <= least:
        run(0, rows)
    else:
        in_chunks(run, rows, least, alignment=1)
    return out


@lru_cache(maxsize=64)
def _edges(fmt: LNSFormat) -> tuple[tuple[np.int32, ...], tuple[np.int32, np.int32]]:
    """The least, the greatest and half of the smallest logarithm; the bias and the sign bit."""
    # K is an integer here, so half of the smallest is on the grid
    half = -fmt.max_log - int(steps_in_two(fmt)[0])
    edges = np.int32(-fmt.max_log), np.int32(fmt.max_log), np.int32(half)
    return edges, (np.int32(fmt.bias), np.int32(fmt.sign_bit))


class Matrix(NamedTuple):
    """Codes (rows, columns) of one scale."""

    codes: Codes
    fmt: LNSFormat
    shift: int
    """Their log_offset, in code steps of the accumulator, from its own."""

    def packed(self, accumulator: LNSFormat, out: NDArray[np.int32], first: int = 0) -> tuple[int, int, bool]:
        """Fill in numbers of the accumulator from a row on: `_pack_codes`."""
        turned = not self.codes.flags.c_contiguous and self.codes.flags.f_contiguous
        codes = self.codes.T if turned else np.ascontiguousarray(self.codes)
        fmt = self.fmt
        masks, finer = (fmt.max_magnitude, fmt.sign_bit), accumulator.fraction_bits - fmt.fraction_bits
        found: tuple[int, int, bool] = _pack_codes(codes, turned, masks, fmt.bias, self.shift, finer, first, out)
        return found


def product(
    a: Matrix, b: Matrix, fmt: LNSFormat, order: Order, gaussian: GaussianLog, last: Matrix | None = None
) -> Codes | None:
    """`accumulate` of two matrices of codes, saturating, without `Terms`; None where the fast kernels do not serve.

    `last`, a row of codes, is one term more of each sum: placed in the accumulator, and added after all others.
    """
    table = _fast_table(gaussian, fmt)
    (rows, inner), columns = a.codes.shape, b.codes.shape[1]
    if table is None or not (rows and inner and columns):
        return None
    # a product of numbers does not depend on which is which: the loops run over columns, which few do not fill
    turned = last is None and _effort(columns, inner, rows) < _effort(rows, inner, columns)
    if turned:
        a, b = b._replace(codes=b.codes.T), a._replace(codes=a.codes.T)
        rows, columns = columns, rows
    terms = inner if last is None else inner + 1
    left, blocks = np.empty((1, rows, terms), np.int32), _blocks(terms, columns)
    (least, greatest, nan), (low, high, other) = a.packed(fmt, left), b.packed(fmt, blocks)
    most, fewest = greatest + high, least + low
    if last is not None:
        left[:, :, inner] = 0  # 1, in the accumulator
        own, own_most, own_nan = last.packed(fmt, blocks, inner)
        nan, most, fewest = nan or own_nan, max(most, own_most), min(fewest, own)
        least, greatest = min(least, own), max(greatest, own_most)
    if nan or other or min(least, low) <= -_LIMIT or max(greatest, high) >= _LIMIT:
        return None
    place = not (-fmt.max_log <= fewest and most <= fmt.max_log)
    out = _product(left[0], blocks, columns, place, fmt, order, table)
    return np.ascontiguousarray(out.T) if turned else out


def _effort(rows: int, inner: int, columns: int) -> int:
    """Of a product, in columns: the loops over them cost as much to begin as over some 40."""
    return rows * inner * (40 + -(-columns // _VECTOR) * _VECTOR)


def _aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """An array, not filled in, that begins with a line of the cache: a vector on two of them would be two loads."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size].view(dtype).reshape(shape)
