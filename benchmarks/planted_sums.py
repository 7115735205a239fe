"""Sums, dot products and matrix products with a fault each: what the laws of sums have to find.

Each fault is what someone has built once: an accumulator one bit short, a tail that is dropped, terms added in another
order than is said. It stands on a datapath that is right but for it, made of the library's arithmetic. `python -m
benchmarks.mutation_score` tries the laws on them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lnsnum import LNSFormat, arithmetic, convert, decode, encode

SUM_FAULTS: list[SumFault] = []
"""All of them, in the order of the table."""


class SumFault(NamedTuple):
    """A fault in words, what has it, what is said of it, and the datapath with the fault."""

    words: str
    operation: str
    fmt: LNSFormat
    options: dict[str, str]
    datapath: Datapath

    def __call__(self, *operands):
        """The operation with the fault, on arrays of codes."""
        return self.datapath.run(self, *operands)


class Datapath:
    """A sum without a fault: rows of terms, placed in the accumulator, added in its order, and rounded once."""

    def run(self, fault, a, b=None):
        """The results of arrays of codes, as `fault.operation` has them."""
        fmt, wide = fault.fmt, LNSFormat.of(fault.options["accumulator"])
        if fault.operation == "matmul":
            shape = a.shape[0], b.shape[1]
            rows = self.rows(a, b)
            a, b = (x.reshape(shape[0] * shape[1], a.shape[1]) for x in rows)
        terms = self.terms(a, b, fmt, wide).astype(wide.dtype)
        total = self.total(terms, wide, fault.options["order"])
        out = self.finish(total, wide, fmt)
        return out.reshape(shape) if fault.operation == "matmul" else out

    def rows(self, a, b):
        """The operands of every result of a matrix product."""
        return np.broadcast_arrays(a[:, None, :], np.swapaxes(b, 0, 1)[None])

    def terms(self, a, b, fmt, wide):
        """Products in the accumulator."""
        if b is None:
            return convert(a, fmt, wide, out_log_offset=0)
        return arithmetic.multiply(a, b, fmt, out_format=wide, out_log_offset=0)[0]

    def plus(self, x, y, wide):
        """One addition."""
        return arithmetic.add(x, y, wide, out_log_offset=0)[0]

    def total(self, terms, wide, order):
        """All additions."""
        if not terms.shape[1]:
            return np.zeros(terms.shape[0], wide.dtype)
        return self.sequential(terms, wide) if order == "sequential" else self.pairwise(terms, wide)

    def sequential(self, terms, wide):
        """One after the other."""
        total = terms[:, 0]
        for k in range(1, terms.shape[1]):
            total = self.plus(total, terms[:, k], wide)
        return total

    def pairwise(self, terms, wide):
        """Neighbours first."""
        while terms.shape[1] > 1:
            even = terms.shape[1] & ~1
            sums = self.plus(terms[:, :even:2], terms[:, 1:even:2], wide)
            terms = np.concatenate([sums, terms[:, even:]], axis=1)
        return terms[:, 0]

    def finish(self, total, wide, fmt):
        """The total, rounded once."""
        return convert(total, wide, fmt, out_log_offset=0)


def sum_fault(words, operation, name, accumulator, order="sequential", **options):
    """Enter a datapath in the list."""

    def enter(datapath):
        what = {"accumulator": accumulator, "order": order, **options}
        SUM_FAULTS.append(SumFault(words, operation, LNSFormat.of(name), what, datapath()))
        return datapath

    return enter


def _via(codes, wide, narrow):
    """Codes that go through another format."""
    there = convert(codes, wide, narrow, out_log_offset=0)
    return convert(there, narrow, wide, out_log_offset=0)


@sum_fault("an accumulator one fraction bit short", "sum", "lns8f3", "lns16f10")
class _OneBitShort(Datapath):
    def plus(self, x, y, wide):
        return _via(super().plus(x, y, wide), wide, LNSFormat(wide.bits - 1, wide.fraction_bits - 1))


@sum_fault("an accumulator with one bit of range less", "dot", "lns8f3", "lns16f10", "pairwise")
class _LessRange(Datapath):
    def plus(self, x, y, wide):
        return _via(super().plus(x, y, wide), wide, LNSFormat(wide.bits - 1, wide.fraction_bits))


@sum_fault("terms rounded to the operands' format", "dot", "lns8f5", "lns16f10")
class _NarrowSums(Datapath):
    def plus(self, x, y, wide):
        return _via(super().plus(x, y, wide), wide, LNSFormat(8, 5))


@sum_fault("neighbours first, not one after the other", "sum", "lns16f10", "lns16f10")
class _OtherOrder(Datapath):
    def sequential(self, terms, wide):
        return self.pairwise(terms, wide)


@sum_fault("one after the other, not neighbours first", "dot", "lns12f6", "lns16f10", "pairwise")
class _OtherWay(Datapath):
    def pairwise(self, terms, wide):
        return self.sequential(terms, wide)


@sum_fault("from the last term to the first", "sum", "lns8f3", "lns8f3")
class _Backwards(Datapath):
    def sequential(self, terms, wide):
        return super().sequential(terms[:, ::-1], wide)


@sum_fault("the last term is dropped", "sum", "lns8f3", "lns16f10")
class _ButTheLast(Datapath):
    def sequential(self, terms, wide):
        return super().sequential(np.concatenate([terms[:, :1], terms[:, 1:-1]], axis=1), wide)


@sum_fault("what is left over of eights is dropped", "dot", "lns8f3", "lns16f10")
class _NoTail(Datapath):
    def total(self, terms, wide, order):
        return super().total(terms[:, : terms.shape[1] // 8 * 8] if terms.shape[1] > 8 else terms, wide, order)


@sum_fault("an odd one out is lost", "sum", "lns16f7", "lns16f10", "pairwise")
class _OddOneLost(Datapath):
    def pairwise(self, terms, wide):
        while terms.shape[1] > 1:
            even = terms.shape[1] & ~1
            terms = self.plus(terms[:, :even:2], terms[:, 1:even:2], wide)
        return terms[:, 0]


@sum_fault("an odd one out moves to the front", "sum", "lns8f3", "lns16f10", "pairwise")
class _OddOneFirst(Datapath):
    def pairwise(self, terms, wide):
        while terms.shape[1] > 1:
            odd = terms.shape[1] % 2
            sums = self.plus(terms[:, odd::2], terms[:, odd + 1 :: 2], wide)
            terms = np.concatenate([terms[:, :odd], sums], axis=1)
        return terms[:, 0]


@sum_fault("filled up to a power of two with ones", "dot", "lns8f3", "lns16f10", "pairwise")
class _FilledUp(Datapath):
    def pairwise(self, terms, wide):
        more = (1 << (terms.shape[1] - 1).bit_length()) - terms.shape[1]
        ones = np.full((terms.shape[0], more), wide.bias, wide.dtype)
        return super().pairwise(np.concatenate([terms, ones], axis=1), wide)


@sum_fault("the accumulator is not cleared between rows", "sum", "lns8f3", "lns16f10")
class _NotCleared(Datapath):
    def sequential(self, terms, wide):
        total = super().sequential(terms, wide)
        return np.concatenate([total[:1], self.plus(total[1:], total[:-1], wide)])


@sum_fault("an empty sum is one", "sum", "lns8f3", "lns16f10")
class _EmptyIsOne(Datapath):
    def total(self, terms, wide, order):
        return super().total(terms, wide, order) if terms.shape[1] else np.full(terms.shape[0], wide.bias, wide.dtype)


@sum_fault("NaN is seen in the first term alone", "sum", "lns8f3", "lns16f10")
class _NanInTheFirst(Datapath):
    def terms(self, a, b, fmt, wide):
        terms = super().terms(a, b, fmt, wide)
        nan = (terms == wide.nan_code) & (np.arange(terms.shape[1]) > 0)
        return np.where(nan, 0, terms)


@sum_fault("0 times NaN is 0", "dot", "lns8f3", "lns16f10")
class _ZeroTimesNan(Datapath):
    def terms(self, a, b, fmt, wide):
        return np.where((a == 0) | (b == 0), 0, super().terms(a, b, fmt, wide))


@sum_fault("the sign of the first factor", "dot", "lns8f3", "lns16f10")
class _FirstSign(Datapath):
    def terms(self, a, b, fmt, wide):
        return super().terms(a, b & fmt.max_magnitude if b.size else b, fmt, wide)


@sum_fault("products rounded to the operands' range", "dot", "lns8f3", "lns16f10")
class _NarrowProducts(Datapath):
    def terms(self, a, b, fmt, wide):
        return convert(arithmetic.multiply(a, b, fmt, out_log_offset=0)[0], fmt, wide, out_log_offset=0)


@sum_fault("truncates each sum", "sum", "lns8f3", "lns16f10")
class _Truncates(Datapath):
    def plus(self, x, y, wide):
        return arithmetic.add(x, y, wide, out_log_offset=0, rounding="toward_zero")[0]


@sum_fault("truncates the total", "dot", "lns8f3", "lns16f10")
class _TruncatesTotal(Datapath):
    def finish(self, total, wide, fmt):
        return convert(total, wide, fmt, out_log_offset=0, rounding="toward_zero")


@sum_fault("the total is rounded twice", "sum", "lns8f3", "lns16f10")
class _Twice(Datapath):
    def finish(self, total, wide, fmt):
        between = LNSFormat(wide.bits - 5, fmt.fraction_bits + 2)
        return super().finish(convert(total, wide, between, out_log_offset=0), between, fmt)


@sum_fault("overflow wraps at the end", "sum", "lns8f3", "lns16f10")
class _Wraps(Datapath):
    def finish(self, total, wide, fmt):
        log = (total.astype(np.int64) & wide.max_magnitude) - wide.bias
        over = (log >> wide.fraction_bits - fmt.fraction_bits) > fmt.max_log
        return np.where(over, super().finish(total, wide, fmt) ^ fmt.sign_bit, super().finish(total, wide, fmt))


@sum_fault("overflow within saturates the result", "sum", "lns8f3", "lns16f10")
class _SaturatesForGood(Datapath):
    def sequential(self, terms, wide):
        total = terms[:, 0]
        stuck = np.zeros(total.shape, np.bool_)
        for k in range(1, terms.shape[1]):
            stuck |= (total & wide.max_magnitude) >= wide.bias + (8 << wide.fraction_bits) - 1000
            total = np.where(stuck, total, self.plus(total, terms[:, k], wide))
        return total


@sum_fault("flushes small totals", "dot", "lns16f10", "lns16f10")
class _Flushes(Datapath):
    def finish(self, total, wide, fmt):
        out = super().finish(total, wide, fmt)
        return np.where(out & fmt.max_magnitude < 1 << fmt.fraction_bits, 0, out)


@sum_fault("b is read without its transpose", "matmul", "lns8f3", "lns16f10")
class _NotTransposed(Datapath):
    def rows(self, a, b):
        right = b if b.shape[0] == b.shape[1] else np.swapaxes(b, 0, 1)
        return np.broadcast_arrays(a[:, None, :], right[None])


@sum_fault("strides are not looked at", "matmul", "lns8f3", "lns16f10")
class _NoStrides(Datapath):
    def run(self, fault, a, b=None):
        if b.size and not b.flags.c_contiguous:
            b = np.ravel(b, order="K").reshape(b.shape)
        return super().run(fault, a, b)


@sum_fault("the last column of odd widths is the first's", "matmul", "lns8f3", "lns16f10", "pairwise")
class _OddColumn(Datapath):
    def run(self, fault, a, b=None):
        out = super().run(fault, a, b)
        if out.shape[1] % 2 and out.shape[1] > 1:
            out[:, -1] = out[:, 0]
        return out


class _Floats(Datapath):
    """A float accumulator: decode, multiply, add, encode."""

    def run(self, fault, a, b=None):
        dtype, fmt = fault.options["accumulator"], fault.fmt
        factors = [decode(x, fmt, dtype) for x in (a, b) if x is not None]
        with np.errstate(over="ignore"):
            terms = factors[0] if b is None else factors[0] * factors[1]
        return encode(self.add_up(terms), fmt, log_offset=0)

    def add_up(self, terms):
        """One after the other."""
        total = np.zeros(terms.shape[0], terms.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(terms.shape[1]):
                total = total + terms[:, k]
        return total


@sum_fault("float16 sums of float32 terms", "dot", "lns8f3", "float32", "any")
class _HalfSums(_Floats):
    def add_up(self, terms):
        with np.errstate(over="ignore", invalid="ignore"):
            return np.sum(terms, axis=1, dtype=np.float16).astype(np.float32)


@sum_fault("float32 sums where float64 is said", "sum", "lns32f23", "float64", "any")
class _SingleSums(_Floats):
    def add_up(self, terms):
        with np.errstate(over="ignore"):
            return super().add_up(terms.astype(np.float32)).astype(np.float64)


@sum_fault("another order of floats", "sum", "lns32f23", "float32")
class _FloatOrder(_Floats):
    def add_up(self, terms):
        return super().add_up(terms[:, ::-1])


@sum_fault("the last term is dropped", "sum", "lns16f10", "float32", "any")
class _FloatLast(_Floats):
    def add_up(self, terms):
        return super().add_up(np.concatenate([terms[:, :1], terms[:, 1:-1]], axis=1))


@sum_fault("an addition off by a step where any order will do", "sum", "lns8f3", "lns8f3", "any")
class _OffByOne(Datapath):
    def pairwise(self, terms, wide):
        total = super().pairwise(terms, wide)
        inner = (total & wide.max_magnitude > 70) & (total & wide.max_magnitude < wide.max_magnitude)
        return np.where(inner & (terms.shape[1] == 2), total + 1, total)
