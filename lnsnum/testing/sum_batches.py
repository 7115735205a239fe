"""Rows of terms, as a sum, a dot product or a matrix product is asked for them, and what comes out of each.

    sum(a), dot(a, b)       rows of one length at a time: (m, n) and (m, n)  ->  (m,)
    matmul(a, b)            (M, K) and (K, N)  ->  (M, N), each result a row of K terms

Laws speak of rows alone: `again` asks once more for the same rows, turned in some way, whatever the operation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property, partial
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.testing import code_words
from lnsnum.testing.accumulators import FloatAccumulator, LogAccumulator, Total
from lnsnum.testing.calling import Callee, ImplementationError
from lnsnum.testing.exact_sums import Terms, bounded
from lnsnum.testing.spans import Ints, Mask
from lnsnum.testing.sum_rounding import Allowed, Stated
from lnsnum.testing.trial import Batch, in_other_company

Turn = Literal["same", "beside", "strided", "opposite", "reversed", "shuffled", "swapped"]
"""How rows are asked for once more: as they were, among other rows, as arrays that do not lie one after the other in
memory, with opposite terms, with terms in two other orders, with a and b swapped."""

_SHOWN = 8
"""Rows up to this length are written out; longer ones as runs of equal codes."""


class Operands(NamedTuple):
    """Rows of codes, filled up with zeros: a and, of products, b, and how many codes each has."""

    a: Ints
    b: Ints | None
    length: Ints

    @property
    def pair(self) -> tuple[Ints, ...]:
        """a, and b where there is one."""
        return (self.a,) if self.b is None else (self.a, self.b)

    def at(self, rows: Any) -> Operands:
        """Some of the rows."""
        return Operands(self.a[rows], None if self.b is None else self.b[rows], self.length[rows])


def operands(rows: list[tuple[list[int], ...]]) -> Operands:
    """Rows of (a,) or (a, b) as arrays."""
    length = np.array([len(row[0]) for row in rows], np.int64)
    filled = np.zeros((len(rows[0]), len(rows), int(length.max(initial=0))), np.int64)
    for i, row in enumerate(rows):
        for part, codes in zip(filled, row, strict=True):
            part[i, : len(codes)] = codes
    return Operands(filled[0], filled[1] if len(filled) == 2 else None, length)


class Function:
    """A function of an implementation, given its operands as arrays of its own or lying apart in memory.

    `product` is the matrix product whose results the rows are, where the rows that are asked for are all of them.
    """

    def __init__(self, function: Callable[..., Any], is_product: bool) -> None:
        self.function, self.is_product = function, is_product
        self.strided, self.place = False, ""
        self.product: tuple[Ints, Ints] | None = None

    def __call__(self, *rows: Any) -> Any:
        """The results of rows, or of one row."""
        if not self.is_product:
            return self.function(*map(self._laid, rows))
        a, b = rows
        if self.product is None or a.shape[0] != self.product[0].shape[0] * self.product[1].shape[1] or a.ndim == 1:
            if a.ndim == 1:
                return self._matrix(a[None], b[:, None])[0, 0]
            single = [self._matrix(a[i : i + 1], b[i][:, None])[0] for i in range(a.shape[0])]
            return sys.modules["torch"].cat(single) if single and _is_tensor(single[0]) else np.concatenate(single)
        x, y = self.product
        dtype = a.dtype
        if _is_tensor(a):
            return self._matrix(*(sys.modules["torch"].from_numpy(m.astype(np.int64)) for m in (x, y))).reshape(-1)
        return self._matrix(x.astype(dtype), y.astype(dtype)).reshape(-1)

    def _matrix(self, a: Any, b: Any) -> Any:
        out = self.function(self._laid(a), self._laid(b))
        shape = (a.shape[0], b.shape[1])
        if getattr(out, "shape", None) is None or tuple(out.shape) != shape:
            kind = type(out).__name__ if getattr(out, "shape", None) is None else f"shape {tuple(out.shape)}"
            raise ImplementationError(
                f"matmul of shapes {tuple(a.shape)} and {tuple(b.shape)} (law {self.place}) returned {kind}: "
                f"return one array of shape {shape}"
            )
        return out

    def _laid(self, x: Any) -> Any:
        """The same array; apart: every other element of one twice as long, in the order of columns."""
        if not self.strided:
            return x if _is_tensor(x) else np.ascontiguousarray(x)
        if _is_tensor(x):
            wide = x.new_zeros(tuple(2 * side for side in reversed(x.shape)))
            view = wide.permute(tuple(reversed(range(x.ndim))))[tuple(slice(None, None, 2) for _ in range(x.ndim))]
            view.copy_(x)
            return view
        wide = np.zeros(tuple(2 * side for side in reversed(x.shape)), x.dtype).T
        view = wide[tuple(slice(None, None, 2) for _ in range(x.ndim))]
        view[...] = x
        return view


def _is_tensor(x: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


class Asking:
    """How rows are asked for: all of one length at once."""

    def __init__(self, callee: Callee, operation: str, stated: Stated) -> None:
        self.callee, self.operation, self.stated = callee, operation, stated
        self.accumulator = (
            LogAccumulator(stated) if isinstance(stated.accumulator, LNSFormat) else FloatAccumulator(stated)
        )
        self.function: Function = callee.functions[operation]

    def find_out(self) -> None:
        """What the function takes, by rows that are no more and no fewer than their codes."""
        ones = [[self.stated.fmt.bias] * 3] * (1 if self.operation == "sum" else 2)
        self.rows(operands([tuple(ones)] * 4))

    def rows(self, rows: Operands, strided: bool = False, halves: bool = False) -> Ints:
        """What comes out of each; with `halves`, in another order, and in two calls."""
        fmt = self.stated.fmt
        out = np.zeros(rows.length.shape, np.int64)
        for length in np.unique(rows.length):
            where = np.flatnonzero(rows.length == length)
            parts = [where]
            if halves:
                parts = [where[part] for part in in_other_company(where.size)]
            for part in parts:
                some = rows.at(part)
                codes = tuple(x[:, :length].astype(fmt.dtype) for x in some.pair)
                out[part] = self._call(codes, None, strided, partial(said, self.operation, some))
        return out

    def matrix(self, a: Ints, b: Ints, strided: bool = False) -> Ints:
        """The results of a matrix product, row by row."""
        rows = expanded(a, b)
        codes = tuple(x.astype(self.stated.fmt.dtype) for x in rows.pair)
        return self._call(codes, (a, b), strided, partial(said, self.operation, rows))

    def _call(
        self,
        codes: tuple[Any, ...],
        product: tuple[Ints, Ints] | None,
        strided: bool,
        told: Callable[[int], str],
    ) -> Ints:
        self.function.product, self.function.strided, self.function.place = product, strided, self.callee.law
        out: Ints = self.callee(self.operation, codes, np.dtype(self.stated.fmt.dtype), told)
        return out


def expanded(a: Ints, b: Ints) -> Operands:
    """The rows of terms of a matrix product, in the order of its results."""
    m, n = a.shape[0], b.shape[1]
    rows = np.repeat(a, n, axis=0), np.tile(b.T, (m, 1))
    return Operands(*rows, np.full(m * n, a.shape[1], np.int64))


def _run(codes: Ints) -> str:
    """`[64, 65]`, or runs: `[64] + [32] * 16`."""
    if codes.size <= _SHOWN:
        return str(codes.tolist())
    parts: list[list[int]] = []
    for code, run in groupby(codes.tolist()):
        count = len(list(run))
        if count > 1:
            parts.append([code, count])
        elif parts and parts[-1][0] < 0:
            parts[-1].append(code)
        else:
            parts.append([-1, code])
    return " + ".join(f"[{p[0]}] * {p[1]}" if p[0] >= 0 else str(p[1:]) for p in parts)


def said(operation: str, rows: Operands, i: int) -> str:
    """`dot([64, 64], [64, 192])`, which can be pasted."""
    if not rows.length.size:
        return f"{operation} of no rows"
    n = int(rows.length[i])
    return f"{operation}({', '.join(_run(x[i, :n]) for x in rows.pair)})"


# --------------------------------------------------------------------------------------------------------- the batch


class Sums(Batch):
    """Rows of one operation; of a matrix product those of its results."""

    def __init__(self, asking: Asking, rows: Operands, product: tuple[Ints, Ints] | None = None) -> None:
        self.asking, self.rows, self.product = asking, rows, product
        self.operation, self.stated = asking.operation, asking.stated
        self.fmt = self.stated.fmt

    @property
    def size(self) -> int:
        """How many rows."""
        return self.rows.length.size

    @cached_property
    def out(self) -> Ints:
        """What comes out of each row."""
        return self.again("same")

    def again(self, turn: Turn) -> Ints:
        """What comes out of each row, turned."""
        strided = turn == "strided"
        if self.product is not None:
            a, b = self._turned_product(turn)
            out = self.asking.matrix(a, b, strided)
            m, n = self.product[0].shape[0], self.product[1].shape[1]
            if turn == "swapped":
                return out.reshape(n, m).T.reshape(-1)
            if turn == "beside":
                return out.reshape(m, n)[::-1, ::-1].reshape(-1)
            return out
        return self.asking.rows(self.turned(turn), strided, halves=turn == "beside")

    def turned(self, turn: Turn) -> Operands:
        """The rows, turned; by a matrix product's turns these are its rows too."""
        a, b, length = self.rows
        if turn == "opposite":
            return Operands(code_words.negative(a, self.fmt), b, length)
        if turn == "swapped" and b is not None:
            return Operands(b, a, length)
        if turn in ("reversed", "shuffled"):
            order = np.zeros(a.shape, np.int64)
            for n in np.unique(length):
                order[length == n, :n] = _order(turn, int(n))
                order[length == n, n:] = np.arange(n, a.shape[1])
            pair = [np.take_along_axis(x, order, axis=1) for x in self.rows.pair]
            return Operands(pair[0], pair[1] if b is not None else None, length)
        return self.rows

    def _turned_product(self, turn: Turn) -> tuple[Ints, Ints]:
        assert self.product is not None
        a, b = self.product
        if turn == "opposite":
            return code_words.negative(a, self.fmt), b
        if turn == "swapped":
            return b.T, a.T
        if turn == "beside":
            return a[::-1], b[:, ::-1]
        if turn in ("reversed", "shuffled"):
            order = _order(turn, a.shape[1])
            return a[:, order], b[order]
        return a, b

    @cached_property
    def terms(self) -> Terms:
        """The exact products."""
        fmt, zero, nan = self.fmt, np.zeros(self.rows.a.shape, np.bool_), np.zeros(self.size, np.bool_)
        log, negative = np.zeros(self.rows.a.shape, np.int64), zero
        for codes in self.rows.pair:
            m = codes & fmt.max_magnitude
            nan = nan | (codes == fmt.nan_code).any(axis=1)
            zero = zero | (m == 0)
            negative = negative ^ (codes >= fmt.sign_bit)
            log = log + m - fmt.bias
        return Terms(np.where(zero, 0, log), negative & ~zero, zero, nan, self.rows.length)

    @cached_property
    def total(self) -> Total:
        """What the stated accumulator holds at last, in the stated order (one after the other, if any will do)."""
        accumulator = self.asking.accumulator
        if isinstance(accumulator, LogAccumulator):
            return accumulator.total(self.terms)
        return accumulator.total(self.rows.a, self.rows.b, self.terms)

    @cached_property
    def rounded_total(self) -> Allowed:
        """The codes that this may become."""
        return self.asking.accumulator.finish(self.total)

    @cached_property
    def within_bound(self) -> Allowed:
        """The codes that the bound on the error leaves."""
        return bounded(self.stated, self.terms, self.asking.accumulator.room())

    @cached_property
    def ranks(self) -> Ints:
        """Of what came out, in the order of the values."""
        return code_words.rank(self.out, self.fmt)

    def is_nan(self, out: Ints) -> Mask:
        """Which codes are NaN."""
        nan: Mask = out == self.fmt.nan_code
        return nan

    @cached_property
    def nonzero(self) -> Ints:
        """How many terms of each row are not zero."""
        return np.asarray((~self.terms.zero).sum(axis=1))

    # ------------------------------------------------------------------------------------------------------ in words

    def keys(self, where: Ints) -> Ints:
        """Short rows first, then those whose codes are near 1, then those with few negatives."""
        rows = self.rows.at(where)
        distance = sum(np.minimum(code_words.distance_from_one(x, self.fmt), 1 << 20).sum(axis=1) for x in rows.pair)
        signs = sum((x >= self.fmt.sign_bit).sum(axis=1) for x in rows.pair)
        keys: Ints = (rows.length << 44) + 4 * np.asarray(distance) + np.asarray(signs)
        return keys

    def inputs(self, i: int) -> tuple[list[int], ...]:
        """The row's codes: a, and b."""
        n = int(self.rows.length[i])
        return tuple(x[i, :n].tolist() for x in self.rows.pair)

    def result(self, i: int) -> int:
        """A code, or what came out in its place."""
        return int(self.out[i])

    def told(self, result: int) -> str:
        """A code with its value."""
        return code_words.told(result, self.fmt)

    def said(self, i: int) -> str:
        """`sum([64, 64]) = 72, that is 2`; of a greater product also where its result stands."""
        place = ""
        if self.product is not None and self.size > 1:
            (m, k), n = self.product[0].shape, self.product[1].shape[1]
            place = f", at [{i // n}, {i % n}] of the product of ({m}, {k}) and ({k}, {n})"
        text = said(self.operation, self.rows, i)
        if self.operation == "matmul":
            text = text.replace("matmul(", "matmul of the row and the column (")
        return f"{text} = {self.result(i)}, that is {code_words.value_told(self.result(i), self.fmt)}{place}"

    def right(self, i: int) -> int | None:
        """By `lnsnum.reference`; None where several codes are right."""
        return _right(self.stated, self.inputs(i))

    def allowed_told(self, allowed: Allowed, i: int) -> str:
        """What may come out of row i, in words."""
        low, high = int(allowed.low[i]), int(allowed.high[i])
        words = [self.told(int(code_words.of_rank(np.array(r), self.fmt))) for r in dict.fromkeys((low, high))]
        if low > high:
            words = []
        nan = [self.told(self.fmt.nan_code)] if allowed.nan[i] else []
        return " or ".join([" to ".join(words)] * bool(words) + nan)

    def nearby(self, i: int) -> Sums | None:
        """The row itself, shorter ones, and ones with simpler codes; by themselves, not in a product of many."""
        row = tuple(np.array(codes, np.int64) for codes in self.inputs(i))
        rows = [tuple(codes.tolist() for codes in row), *_simpler(row, self.fmt)]
        return Sums(self.asking, operands(rows))


def _order(turn: str, n: int) -> Ints:
    return np.arange(n)[::-1] if turn == "reversed" else np.random.default_rng(n).permutation(n)


_MOST_SIMPLER = 400
"""Rows that are tried around one that breaks a law."""

_PLACES = 24
"""Codes of a row that are changed one at a time."""


def _simpler(row: tuple[Ints, ...], fmt: LNSFormat) -> list[tuple[list[int], ...]]:
    """Rows without some of the codes, and rows with some of them nearer to 1, or positive."""
    n = row[0].size
    found: list[tuple[Ints, ...]] = []
    size = n
    while size:
        for begin in range(0, n, size):
            kept = np.r_[0:begin, begin + size : n]
            found.append(tuple(x[kept] for x in row))
        size //= 2

    def nearer(x: Ints, halvings: int) -> Ints:
        """The logarithm halved so many times, or one step nearer to 0; zero and NaN stay."""
        m, sign = x & fmt.max_magnitude, x & fmt.sign_bit
        e = m - fmt.bias
        size = np.abs(e) >> halvings if halvings else np.maximum(np.abs(e) - 1, 0)
        return np.where(m, np.sign(e) * size + fmt.bias + sign, x)

    def positive(x: Ints) -> Ints:
        m = x & fmt.max_magnitude
        return np.where(m, m, x)

    changes = [partial(nearer, halvings=k) for k in (62, 8, 4, 2, 1, 0)] + [positive]
    for place in [np.arange(n), *(np.array([k]) for k in range(min(n, _PLACES)))]:
        for part, codes in enumerate(row):
            for change in changes:
                changed = codes.copy()
                changed[place] = change(codes[place])
                found.append((*row[:part], changed, *row[part + 1 :]))
    # all terms by one factor: what counts is the gaps between them
    m = row[0] & fmt.max_magnitude
    for one in np.unique(m[m > 0])[:8]:
        moved = m - one + fmt.bias
        if np.all((m == 0) | ((moved >= 1) & (moved <= fmt.max_magnitude))):
            found.append((np.where(m, row[0] - one + fmt.bias, row[0]), *row[1:]))
    unique = dict.fromkeys(tuple(tuple(x.tolist()) for x in each) for each in found)
    return [tuple(list(x) for x in each) for each in unique][:_MOST_SIMPLER]


def _right(stated: Stated, row: tuple[list[int], ...]) -> int | None:
    """The code of the row, one addition after the other by the oracle; None where there are several."""
    if stated.by_chance or not stated.to_the_bit or not isinstance(stated.accumulator, LNSFormat):
        return None
    from lnsnum import reference

    fmt, wide, overflow = stated.fmt, stated.accumulator, stated.overflow
    one = [fmt.bias] * len(row[0])
    totals = [
        reference.multiply(x, y, fmt, out_format=wide, overflow=overflow)
        for x, y in zip(row[0], row[1] if len(row) == 2 else one, strict=True)
    ]

    def plus(x: int, y: int) -> int:
        return int(reference.add(x, y, wide, overflow=overflow))

    while len(totals) > 1:
        if stated.order == "sequential":
            totals = [plus(totals[0], totals[1]), *totals[2:]]
        else:
            pairs = zip(totals[::2], totals[1::2], strict=False)
            totals = [plus(x, y) for x, y in pairs] + totals[len(totals) & ~1 :]
    modes: Any = {"rounding": stated.rounding, "overflow": overflow, "underflow": stated.underflow}
    right: int = reference.convert(totals[0], wide, fmt, **modes) if totals else 0
    return right
