"""Which rows sums, dot products and matrix products are tried with: those on which accumulators break.

    ones, alternating signs, doubling powers     nothing is rounded
    one great term and many small ones           what is lost beside it, to the last step
    the greatest, and then their opposites       overflow within, and at the end
    the smallest and their neighbours            underflow within, and at the end
    drawn ones                                   of any size, of one size, of one sign, cancelling

for lengths of 0, 1, odd ones, and those around powers of two, where vectors and trees end. The same in every run: what
is drawn is drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.testing.spans import Ints, Mask, log_step
from lnsnum.testing.sum_batches import Operands, operands
from lnsnum.testing.sum_rounding import Stated

LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 129, 257)
"""The lengths of rows."""

SHAPES = (
    *((1, 1, 1), (1, 0, 1), (3, 0, 2), (0, 3, 2), (2, 3, 0), (0, 0, 0)),
    *((1, 2, 1), (2, 2, 2), (1, 5, 1), (5, 1, 5), (3, 3, 3), (4, 7, 3), (5, 8, 2), (7, 9, 8)),
    *((16, 16, 17), (3, 17, 9), (2, 33, 4), (17, 65, 3), (2, 129, 3), (1, 257, 2)),
)
"""(M, K, N) of matrix products."""

_SHORT, _MIDDLE = 4, 17
"""Lengths up to these are tried with more rows."""


def _drawn_count(n: int) -> int:
    """How many rows of each kind are drawn."""
    return 0 if not n else 48 if n <= _SHORT else 12 if n <= _MIDDLE else 4


def _codes(fmt: LNSFormat, log: Ints, negative: Mask | bool = False) -> Ints:
    """The codes of logarithms, brought into the range."""
    log = np.clip(log, -fmt.max_log, fmt.max_log)
    return log + fmt.bias + np.where(negative, fmt.sign_bit, 0)


def lost_gaps(stated: Stated) -> tuple[int, ...]:
    """How far below another a term lies that is just lost beside it, in steps of the terms, and neighbours of that."""
    fmt, wide = stated.fmt, stated.accumulator
    half = log_step(wide) / 2 if isinstance(wide, LNSFormat) else 2.0 ** -(np.finfo(wide).nmant + 2)
    octave = max(round(np.log(2.0) / log_step(fmt)), 1)
    gap = round(-np.log(np.expm1(min(half, 50.0))) / log_step(fmt))
    near = {gap + k for k in (-1, 0, 1, 2)} | {gap + octave, gap - octave, gap - 3 * octave}
    return tuple(sorted(k for k in near if 0 < k <= 2 * fmt.max_log))


def _special_rows(stated: Stated, n: int) -> Iterator[Ints]:
    """The rows of one length that are always tried."""
    fmt = stated.fmt
    one, top, least = fmt.bias, fmt.max_magnitude, 1
    minus, octave = fmt.sign_bit, max(round(np.log(2.0) / log_step(fmt)), 1)
    yield np.full(n, one)
    yield np.full(n, one + minus)
    yield np.zeros(n, np.int64)
    alternating = np.where(np.arange(n) % 2, one + minus, one)
    yield alternating
    for k in dict.fromkeys((0, n // 2, n - 1)) if n else ():
        for code in (one, one + 1, top, least, top + minus, fmt.nan_code):
            row = np.zeros(n, np.int64)
            row[k] = code
            yield row
        row = np.full(n, one)
        row[k] = fmt.nan_code
        yield row
    if n < 2:
        return
    first = np.zeros(n, np.int64)
    first[0] = first[-1] = one + 1
    first[-1] += minus
    yield first
    # 1, 1, 2, 4, ...: each is the sum of all before it
    chain = np.concatenate([[0], np.arange(n - 1)]) * octave
    for shift in (0, -fmt.max_log, -2 * octave):
        inside = np.minimum(chain + shift, fmt.max_log)
        yield _codes(fmt, inside)
        yield _codes(fmt, inside[::-1])
    for gap in lost_gaps(stated):
        for great in (0, min(gap, fmt.max_log)):
            small = great - gap
            if small < -fmt.max_log:
                continue
            logs = np.full(n, small)
            logs[0] = great
            yield _codes(fmt, logs)
            yield _codes(fmt, logs[::-1])
            yield _codes(fmt, logs, np.arange(n) > 0)
    half = (n + 1) // 2
    near_top = fmt.max_log - round(np.log(n) / log_step(fmt))
    for log in dict.fromkeys((fmt.max_log, fmt.max_log - 1, near_top, near_top + 1, near_top - 1, near_top + octave)):
        for negative in (np.zeros(n, np.bool_), np.ones(n, np.bool_), np.arange(n) >= half, np.arange(n) % 2 == 1):
            yield _codes(fmt, np.full(n, log), negative)
    for away in (0, 1, 2, octave):
        logs = np.full(n, -fmt.max_log)
        logs[1::2] += away
        yield _codes(fmt, logs)
        yield _codes(fmt, logs, np.arange(n) % 2 == 1)


def _drawn_rows(fmt: LNSFormat, n: int, random: np.random.Generator) -> Iterator[Ints]:
    """A row of each kind."""
    sign = np.where(random.integers(0, 2, n), fmt.sign_bit, 0)
    any_code = random.integers(0, 1 << fmt.bits, n)
    yield np.where(any_code == fmt.nan_code, 0, any_code)
    octave = max(round(np.log(2.0) / log_step(fmt)), 1)
    spread = min(2 * octave, fmt.max_log)
    near = _codes(fmt, random.integers(-spread, spread + 1, n))
    yield near
    yield near + sign
    level = int(random.integers(-fmt.max_log, fmt.max_log + 1))
    gaps = random.integers(0, 1 << random.integers(1, fmt.bits, n))
    yield _codes(fmt, level - gaps, sign > 0)
    pairs = _codes(fmt, random.integers(-spread, spread + 1, n))
    pairs[1::2] = pairs[: n // 2 * 2 : 2] ^ fmt.sign_bit
    if n:
        pairs[int(random.integers(0, n))] ^= 1
    yield np.where(pairs & fmt.max_magnitude, pairs, 1)


def term_rows(stated: Stated, n: int, random: np.random.Generator) -> list[Ints]:
    """The rows of one length."""
    fmt = stated.fmt
    rows = [np.asarray(row, np.int64) for row in _special_rows(stated, n)]
    if n == 1:
        codes = np.arange(1 << fmt.bits) if fmt.bits <= 8 else random.integers(0, 1 << fmt.bits, 256)
        rows += list(codes[:, None])
    for _ in range(_drawn_count(n)):
        rows += list(_drawn_rows(fmt, n, random))
    return rows


def _factors(fmt: LNSFormat, row: Ints, turn: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    """a and b whose products are the terms of the row: times one, one times, or both of any size."""
    one = np.full(row.size, fmt.bias)
    if turn % 3 == 0:
        return row, one
    m, sign = row & fmt.max_magnitude, row & fmt.sign_bit
    if turn % 3 == 1:  # zeros times anything but NaN
        return np.where(random.integers(0, 2, row.size), one, np.where(m == 0, fmt.max_magnitude, one)), row
    log = m - fmt.bias
    low, high = np.maximum(log - fmt.max_log, -fmt.max_log), np.minimum(log + fmt.max_log, fmt.max_log)
    first = random.integers(low, high + 1)
    flip = np.where(random.integers(0, 2, row.size), fmt.sign_bit, 0)
    a, b = _codes(fmt, first) ^ flip, _codes(fmt, log - first) ^ sign ^ flip
    return np.where(m == 0, row, a), np.where(m == 0, fmt.bias, b)


def _nan_times_zero(fmt: LNSFormat, n: int, k: int) -> tuple[list[int], list[int]]:
    a, b = [fmt.bias] * n, [fmt.bias] * n
    a[k], b[k] = fmt.nan_code, 0
    return a, b


def rows_tried(stated: Stated, operation: str, seed: int) -> Iterator[Operands]:
    """The rows of `sum` or `dot`, in batches of lengths that are of a kind."""
    fmt, random = stated.fmt, np.random.default_rng(seed)
    batches: dict[int, list[tuple[list[int], ...]]] = {}
    for n in LENGTHS:
        batch = batches.setdefault(0 if n <= _SHORT else 1 if n <= _MIDDLE else 2 if n <= 65 else 3, [])
        for turn, row in enumerate(term_rows(stated, n, random)):
            if operation == "sum":
                batch.append((row.tolist(),))
            else:
                a, b = _factors(fmt, row, turn, random)
                batch.append((a.tolist(), b.tolist()))
        if operation == "dot" and n:
            for k in dict.fromkeys((0, n - 1)):
                batch += [_nan_times_zero(fmt, n, k), _nan_times_zero(fmt, n, k)[::-1]]
        if operation == "dot" and 0 < n <= _MIDDLE:
            codes = random.integers(0, 1 << fmt.bits, (2, 16, n))
            codes[codes == fmt.nan_code] = fmt.bias
            batch += [(a.tolist(), b.tolist()) for a, b in zip(*codes, strict=True)]
    for batch in batches.values():
        yield operands(batch)


def products_tried(stated: Stated, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """The operands of `matmul`: drawn ones, permutations, and rows that are hard to add up times ones."""
    fmt, random = stated.fmt, np.random.default_rng(seed)

    def drawn(*shape: int) -> Ints:
        codes = random.integers(0, 1 << fmt.bits, shape)
        return np.where(codes == fmt.nan_code, fmt.bias, codes)

    octave = max(round(np.log(2.0) / log_step(fmt)), 1)
    for turn, (m, k, n) in enumerate(SHAPES):
        if turn % 2:
            yield drawn(m, k), drawn(k, n)
        else:
            sides = (m, k), (k, n)
            a, b = (_codes(fmt, random.integers(-octave, octave + 1, s), random.integers(0, 2, s) > 0) for s in sides)
            yield a, b
        if k and m * n > 1:
            order = random.permutation(k)
            permutation = np.where(np.arange(k)[:, None] == order, fmt.bias, 0)
            yield (drawn(m, k), permutation) if turn % 2 else (permutation, drawn(k, n))
    for k in sorted({k for _, k, _ in SHAPES} - {0}):
        rows = np.array([np.asarray(row, np.int64) for row in _special_rows(stated, k)])
        one = np.full((k, 1), fmt.bias)
        yield (rows, one) if k % 2 else (one.T, rows.T)
        nan, zero = _nan_times_zero(fmt, k, k // 2)
        yield np.array([nan, zero, [fmt.bias] * k]), np.array([zero, nan, [fmt.bias] * k]).T
