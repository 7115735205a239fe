"""Bit-true matrix products: every addition correctly rounded to the accumulator's format, in a fixed order.

    out[i, j]  =  t_0 + t_1 + ... ,      t_k = a[i, k] b[k, j], exact, then placed in the accumulator's format

The kernels for formats up to 16 bits keep a row of sums as int32 numbers and add a row of terms to it in three loops:
distances (vectors), steps from the table of sb and db (loads), sums (vectors). Other formats, and those in which a sum
can lie half-way between two codes, go one whole addition at a time by `lnsnum.sums`. Both give the same codes. Rows go
to as many threads as there are processors, which changes no bit.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum import sums
from lnsnum.codes import NO_RANDOM_BITS, Codes, LogOffset
from lnsnum.format import LNSFormat, Overflow
from lnsnum.gaussian import TIE, GaussianLog, exact_steps, has_tables, tables
from lnsnum.kernel import kernel
from lnsnum.linear import KEEP, linear
from lnsnum.operation import Operand, Result
from lnsnum.rounding import steps_in_two

Order = Literal["sequential", "pairwise"]


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


def terms_of(codes: Codes, fmt: LNSFormat, log_offset: LogOffset, accumulator: LNSFormat) -> tuple[Terms, int]:
    """E of the codes in steps of the accumulator, from the greatest log_offset, which is returned in steps of fmt."""
    m = codes.astype(np.int64) & fmt.max_magnitude
    reference = int(np.max(log_offset)) if np.size(log_offset) else 0
    relative = np.asarray(log_offset, np.int64) - reference
    log = (m - fmt.bias + relative) << (accumulator.fraction_bits - fmt.fraction_bits)
    negative = codes >= fmt.sign_bit
    return Terms(log, negative & (m > 0), m == 0, negative & (m == 0)), reference


def accumulate(a: Terms, b: Terms, fmt: LNSFormat, order: Order, gaussian: GaussianLog, overflow: Overflow) -> Codes:
    """The bit-true matrix product of stacks (..., M, K) and (..., K, N), as codes of the accumulator."""
    stack = np.broadcast_shapes(a.log.shape[:-2], b.log.shape[:-2])
    rows, inner, columns = *a.log.shape[-2:], b.log.shape[-1]
    out = np.zeros((*stack, rows, columns), fmt.dtype)
    table = _fast_table(gaussian, fmt) if overflow == "saturate" else None
    for at in np.ndindex(stack):
        x, y = (terms.stacked(stack).at(at) for terms in (a, b))
        if inner and table is not None and _fits_int32(x) and _fits_int32(y):
            out[at] = _by_table(x, y, fmt, order, table)
        elif inner:
            out[at] = _by_sums(x, y, fmt, order, None if gaussian == sums.EXACT else gaussian, overflow)
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
        shift = np.array([-fmt.bias], np.int64)
        return sums.add(Operand(x, fmt, shift), Operand(y, fmt, shift), gaussian, result)[0]

    if order == "sequential":
        total = term(0)
        for k in range(1, a.log.shape[1]):
            total = plus(total, term(k))
        return total.reshape(shape)
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
    return linear(Operand(codes, fmt, log - fmt.bias), None, Fraction(1), Fraction(0), KEEP, result)


class _FastTable(NamedTuple):
    """sb, then db, as 2 step - (1 where the exact value is below step), which tells an underflow of the exact sum."""

    doubled: NDArray[np.int32]
    size: int


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
    greatest = max(int(np.abs(part.astype(np.int64)).max()) for part in table[:2])
    if TIE in table.sb or TIE in table.db or greatest >= -_EMPTY >> 1 or (is_exact and not table.complete):
        return None
    doubled = [2 * table.sb.astype(np.int64), 2 * table.db.astype(np.int64)]
    if is_exact:
        z = np.arange(table.sb.size, dtype=np.int64)
        doubled[0] -= exact_steps(z, fmt, False, rounding="toward_zero") < table.sb
        doubled[1][1:] -= exact_steps(z[1:], fmt, True, rounding="toward_zero") < table.db[1:]
    doubled[1][0] = 4 * _EMPTY
    # one entry more, without effect: where z ends up that is beyond the tables
    ends = np.array([0]), np.array([-1 if is_exact else 0])
    parts = [np.concatenate([part, end]) for part, end in zip(doubled, ends, strict=True)]
    return _FastTable(np.concatenate(parts).astype(np.int32), table.sb.size + 1)


@kernel
def _distances(total, term, by, by_sign, size, index):  # type: ignore[no-untyped-def]
    """Where in the table the step of total + (the term times a number) is: the distance, and `size` on for db.

    Numbers are 2 log + sign in int32; `by` is twice the number's logarithm. This and `_settle_row` are loops of their
    own, without a branch and without a look-up, so that the compiler makes vectors of them.
    """
    one, last, skip = np.int32(1), np.int32(size - 1), np.int32(size)
    for j in range(total.size):
        p = np.int32(term[j] + by) ^ by_sign
        z = abs(np.int32((total[j] >> one) - (p >> one)))
        index[j] = np.int32(min(z, last) + (np.int32(-(np.int32(total[j] ^ p) & one)) & skip))


@kernel
def _look_up(table, index, step):  # type: ignore[no-untyped-def]
    for j in range(step.size):
        step[j] = table[np.uint32(index[j])]


@kernel
def _settle_row(total, term, by, by_sign, step, lowest, greatest, half):  # type: ignore[no-untyped-def]
    """total <- total + (the term times a number), from the doubled steps; with the edges."""
    one, empty, twice = np.int32(1), np.int32(_EMPTY), np.int32(half + half)
    for j in range(total.size):
        p = np.int32(term[j] + by) ^ by_sign
        old = total[j]
        hi = max(old, p) >> one
        log = np.int32(hi + (np.int32(step[j] + one) >> one))
        under = lowest if np.int32(np.int32(hi + hi) + step[j]) >= twice else empty
        log = min(under if log < lowest else log, greatest)
        sign = (p if np.int32(p >> one) > np.int32(old >> one) else old) & one
        total[j] = np.int32(np.int32(log + log) | sign)


@kernel
def _place_row(term, by, by_sign, lowest, greatest, half, out):  # type: ignore[no-untyped-def]
    """The term times a number, brought into the range: saturated, or underflowed by nearest."""
    one, empty = np.int32(1), np.int32(_EMPTY)
    for j in range(term.size):
        p = np.int32(term[j] + by) ^ by_sign
        log = min(np.int32(p >> one), greatest)
        log = log if log >= lowest else (lowest if log >= half else empty)
        out[j] = np.int32(np.int32(log + log) | (p & one))


@kernel
def _sequential(a, b, place, table, size, edges, out):  # type: ignore[no-untyped-def]
    """A matrix product of numbers 2 log + sign, term after term."""
    lowest, greatest, half = edges
    index, step, placed = np.empty(b.shape[1], np.int32), np.empty(b.shape[1], np.int32), np.empty(b.shape[1], np.int32)
    zero = np.int32(0)
    for i in range(a.shape[0]):
        total = out[i]
        total[:] = np.int32(2 * _EMPTY)
        for k in range(a.shape[1]):
            term, sign = b[k], np.int32(a[i, k] & 1)
            by = np.int32(a[i, k] - sign)
            if place:
                _place_row(term, by, sign, lowest, greatest, half, placed)
                term, by, sign = placed, zero, zero
            _distances(total, term, by, sign, size, index)
            _look_up(table, index, step)
            _settle_row(total, term, by, sign, step, lowest, greatest, half)


@kernel
def _pairwise(a, b, place, table, size, edges, out):  # type: ignore[no-untyped-def]
    """A matrix product of numbers 2 log + sign, the terms of each row added in a tree."""
    lowest, greatest, half = edges
    inner, columns = b.shape
    index, step, terms = np.empty(columns, np.int32), np.empty(columns, np.int32), np.empty((inner, columns), np.int32)
    zero = np.int32(0)
    for i in range(a.shape[0]):
        for k in range(inner):
            sign = np.int32(a[i, k] & 1)
            _place_row(b[k], np.int32(a[i, k] - sign), sign, lowest, greatest, half, terms[k])
        count = inner
        while count > 1:
            for k in range(count // 2):
                left, right = terms[2 * k], terms[2 * k + 1]
                _distances(left, right, zero, zero, size, index)
                _look_up(table, index, step)
                _settle_row(left, right, zero, zero, step, lowest, greatest, half)
                terms[k] = left
            if count & 1:
                terms[count // 2] = terms[count - 1]
            count = (count + 1) // 2
        out[i] = terms[0]


_THREADS_FROM = 1 << 20
"""From this many additions on, rows go to several threads."""


def _fits_int32(terms: Terms) -> bool:
    """Whether the kernels can add two such logarithms and tell the sum from zero."""
    return bool(np.all(terms.zero | (np.abs(terms.log) < -_EMPTY // 4)))


def _by_table(a: Terms, b: Terms, fmt: LNSFormat, order: Order, table: _FastTable) -> Codes:
    """The kernels over rows, on as many threads as there are processors."""
    lowest = -fmt.max_log
    half = lowest - int(steps_in_two(fmt)[0])
    edges = np.int32(lowest), np.int32(fmt.max_log), np.int32(half)
    a_log, b_log = (np.where(terms.zero, _EMPTY, terms.log) for terms in (a, b))
    kept = [terms.log[~terms.zero] for terms in (a, b)]
    place = any(part.size == 0 for part in kept) or not (
        kept[0].min() + kept[1].min() >= lowest and kept[0].max() + kept[1].max() <= fmt.max_log
    )
    packed = [np.ascontiguousarray(2 * log + terms.negative, np.int32) for log, terms in ((a_log, a), (b_log, b))]
    out = np.empty((a_log.shape[0], b_log.shape[1]), np.int32)
    run_rows = _sequential if order == "sequential" else _pairwise

    def rows(part: slice) -> None:
        run_rows(packed[0][part], packed[1], place, table.doubled, table.size, edges, out[part])

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads > 1 and a_log.size * b_log.shape[1] >= _THREADS_FROM and a_log.shape[0] > 1:
        cuts = np.linspace(0, a_log.shape[0], min(threads, a_log.shape[0]) + 1).astype(int)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(rows, itertools.starmap(slice, itertools.pairwise(cuts))))
    else:
        rows(slice(None))
    log = out.astype(np.int64) >> 1
    zero = log < lowest
    magnitude = np.where(zero, 0, log + fmt.bias)
    return np.where((out & 1 != 0) & ~zero, magnitude | fmt.sign_bit, magnitude).astype(fmt.dtype)
