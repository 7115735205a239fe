"""Arithmetic with a fault each: what a law suite has to find.

Each fault is what someone has built once: a table off by one, a carry that is lost, a sign that is forgotten. It
stands on the library's arithmetic, so that nothing else is wrong with it. `python -m benchmarks.mutation_score` tries
the suite on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lnsnum import LNSFormat, arithmetic

FAULTS: list[Fault] = []
"""All of them, in the order of the table."""


class Fault(NamedTuple):
    """A fault in words, the operation and format that have it, and the operation with the fault."""

    words: str
    operation: str
    fmt: LNSFormat
    function: Callable

    def __call__(self, a, b):
        """The operation with the fault, on arrays of codes."""
        parts = Parts(self.operation, self.fmt, a.astype(np.int64), b.astype(np.int64))
        return np.asarray(self.function(parts)).astype(self.fmt.dtype)


class Parts:
    """What a datapath has at hand: operands, their magnitudes m and signs s, the gap, and the right result."""

    def __init__(self, operation, fmt, a, b):
        self.operation, self.fmt, self.a, self.b = operation, fmt, a, b
        self.top, self.sign, self.bias = fmt.max_magnitude, fmt.sign_bit, fmt.bias
        self.m_a, self.m_b, self.s_a, self.s_b = a & self.top, b & self.top, a & self.sign, b & self.sign
        self.gap = abs(self.m_a - self.m_b)
        self.nan = (a == self.sign) | (b == self.sign)
        self.numbers = (self.m_a > 0) & (self.m_b > 0)
        self.opposite = self.s_a != self.s_b
        self.right = self.rounded()
        self.m, self.s = self.right & self.top, self.right & self.sign
        self.plain = self.numbers & (self.m > 0)
        product = {"multiply": self.m_a + self.m_b - self.bias, "divide": self.m_a - self.m_b + self.bias}
        self.unclipped = product.get(operation)

    def rounded(self, a=None, b=None, **modes):
        """The right result, of other operands or in another mode."""
        a, b = (x if y is None else y for x, y in ((self.a, a), (self.b, b)))
        codes = [np.asarray(x).astype(self.fmt.dtype) for x in (a, b)]
        return getattr(arithmetic, self.operation)(*codes, self.fmt, out_log_offset=0, **modes)[0].astype(np.int64)

    def instead(self, where, wrong):
        """The right result but for some places."""
        return np.where(where, wrong, self.right)

    def steps(self, where, by):
        """A magnitude that is off by some steps, where the result is an inner number."""
        moved = self.m + np.asarray(by).astype(np.int64)
        return self.instead(self.plain & where & (moved >= 1) & (moved <= self.top), moved | self.s)


def fault(words, operation, name):
    """Enter a function in the list."""

    def enter(function):
        FAULTS.append(Fault(words, operation, LNSFormat.parse(name) if isinstance(name, str) else name, function))
        return function

    return enter


BASE_4 = LNSFormat(5, 0, base=4.0)

fault("one entry of sb is off by one", "add", "lns16f10")(lambda p: p.steps((p.gap == 777) & ~p.opposite, 1))
fault("one entry of db is off by one", "add", "lns16f10")(lambda p: p.steps((p.gap == 3072) & p.opposite, -1))
fault("one entry of db is off by one", "subtract", "lns12f7")(lambda p: p.steps((p.gap == 5) & ~p.opposite, 1))
fault("the first entry of db is the second's", "add", "lns20f12")(
    lambda p: p.instead(p.opposite & (p.gap == 1) & p.numbers, p.rounded(a=np.minimum(p.a + 1, p.sign + p.top)))
)
fault("one pair of operands is wrong", "multiply", "lns8f3")(
    lambda p: p.instead((p.a == 77) & (p.b == 35), p.right ^ 1)
)
fault("one pair of operands is wrong", "subtract", "lns4f1")(lambda p: p.instead((p.a == 3) & (p.b == 6), p.right ^ 1))
fault("ties away from even", "add", BASE_4)(lambda p: p.steps((p.gap == 0) & ~p.opposite & (p.m % 2 == 0), 1))
fault("NaN loses its sign and is zero", "add", "lns8f5")(lambda p: p.right & np.where(p.nan, p.top, -1))
fault("NaN is seen in the first operand alone", "multiply", "lns16f7")(
    lambda p: p.instead((p.b == p.sign) & (p.a != p.sign), 0)
)
fault("truncation for nearest", "add", "lns10f5")(lambda p: p.rounded(rounding="toward_zero"))
fault("rounds up for nearest", "subtract", "lns20f9")(lambda p: p.rounded(rounding="up"))
fault("the bias is off by one", "multiply", "lns32f23")(lambda p: p.steps(True, 1))
fault("the bias is off by one", "divide", "lns6f2")(lambda p: p.steps(True, -1))
fault("operands swapped", "subtract", "lns8f4")(lambda p: p.rounded(a=p.b, b=p.a))
fault("operands swapped", "divide", "lns24f15")(lambda p: p.rounded(a=p.b, b=p.a))
fault("a stale carry: one more after an overflow", "multiply", "lns12f6")(
    lambda p: p.steps(np.append(False, (p.unclipped > p.top)[:-1]), 1)
)
fault("results in the wrong order", "add", "lns8f3")(lambda p: p.right[::-1])
fault("sums have one bit less", "add", "lns16f10")(lambda p: p.steps(~p.opposite & (p.m % 2 == 1), 1))
fault("the wrong sign where inner operands overflow", "add", "lns16f10")(
    lambda p: p.instead((p.m == p.top) & ~p.opposite & p.numbers & (p.m_a < p.top) & (p.m_b < p.top), p.right ^ p.sign)
)
fault("a carry out of the magnitude is lost", "multiply", "lns10f4")(
    lambda p: p.instead(p.numbers & (p.unclipped > p.top), (p.unclipped & p.top) | p.s)
)
fault("NaN for what overflows", "divide", "lns16f10")(lambda p: p.rounded(overflow="nan"))
fault("saturates one below the greatest", "add", "lns24f15")(lambda p: p.instead(p.m == p.top, p.right - 1))
fault("flushes what is below the smallest", "multiply", "lns20f12")(
    lambda p: p.instead(p.numbers & (p.unclipped < 1), 0)
)
fault("never underflows", "divide", "lns8f5")(lambda p: p.rounded(underflow="saturate"))
fault("x - x is the smallest", "subtract", "lns24f15")(lambda p: p.instead((p.a == p.b) & p.numbers, 1))
fault("x + -x keeps a sign: NaN", "add", "lns6f2")(lambda p: p.instead((p.m == 0) & p.numbers, p.sign))
fault("0 times a negative keeps the sign: NaN", "multiply", "lns4f1")(
    lambda p: p.instead(~p.numbers & ~p.nan & (p.s_a != p.s_b), p.sign)
)
fault("x / 0 is the greatest", "divide", "lns12f6")(lambda p: p.instead((p.b == 0) & (p.m_a > 0), p.top | p.s_a))
fault("0 / 0 is 1", "divide", "lns32f23")(lambda p: p.instead((p.a == 0) & (p.b == 0), p.bias))
fault("the sign of the first operand", "add", "lns8f4")(lambda p: p.instead(p.plain, p.m | p.s_a))
fault("Mitchell's line, uncorrected", "add", "lns12f7")(
    lambda p: p.steps(~p.opposite, np.rint(128 * 2.0 ** (-p.gap / 128) - 128 * np.log2(1 + 2.0 ** (-p.gap / 128))))
)
fault("the table ends one entry too early", "add", "lns20f9")(
    lambda p: p.steps(~p.opposite & (p.gap == _last_gap(p.fmt)), -1)
)
fault("no carry from the lower byte", "multiply", "lns24f15")(
    lambda p: p.instead(
        p.plain & (p.unclipped > 0) & (p.unclipped <= p.top),
        ((p.m_a & ~255) + (p.m_b & ~255) - p.bias + ((p.m_a + p.m_b) & 255)) & p.top | p.s,
    )
)
fault("a and b are rounded differently", "add", "lns20f9")(
    lambda p: p.steps((p.m_b > p.m_a) & ~p.opposite & (p.gap < 64), 1)
)


def _last_gap(fmt):
    """The greatest gap at which a sum is not the greater operand."""
    gap = np.arange(1, fmt.max_magnitude // 2)
    sb = fmt.codes_per_octave * np.log2(1 + 2.0 ** (-gap / fmt.codes_per_octave))
    return int(gap[np.rint(sb) > 0].max())
