"""The laws of `lnsnum.testing.laws`, tried on an implementation of arithmetic on codes: a kernel, a table, a model of
an adder.

`lnsnum.testing.pairs` says with which pairs, `lnsnum.testing.calling` how an implementation is asked. A law that is
broken is told with the simplest operands that break it. docs/testing.md tells how to use it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.testing import code_words
from lnsnum.testing.calling import Callee
from lnsnum.testing.laws import LAWS, OPERATIONS, Call, Pairs
from lnsnum.testing.pairs import WIDEST_EXHAUSTIVE, all_pairs, chosen_pairs
from lnsnum.testing.report import LawReport
from lnsnum.testing.spans import Ints, Rules
from lnsnum.testing.trial import Tried, try_laws

DRAWN = 100_000
"""Pairs that are drawn for a format of more than eight bits, besides those that are always tried."""

_Case = tuple[int, int, int]
"""Two operands, and the step to a neighbour."""


def _simpler(case: _Case, fmt: LNSFormat) -> list[_Case]:
    """Cases to try next: each operand nearer to 1, both together, positive, with a smaller step."""
    a, b, step = case
    sign_a, sign_b = a & fmt.sign_bit, b & fmt.sign_bit
    e_a, e_b = (a & fmt.max_magnitude) - fmt.bias, (b & fmt.max_magnitude) - fmt.bias
    moves: set[int] = set()
    for e in (e_a, e_b, e_a - e_b, e_a + e_b):
        moves |= {sign * (abs(e) >> k) for k in range(abs(e).bit_length()) for sign in (1, -1)}
    logs = {(e_a - t, e_b) for t in moves} | {(e_a, e_b - t) for t in moves}
    logs |= {(e_a - t, e_b - t) for t in moves} | {(e_a - t, e_b + t) for t in moves} | {(e_a, e_b)}
    return [
        (x + fmt.bias + s if a & fmt.max_magnitude else a, y + fmt.bias + t if b & fmt.max_magnitude else b, n)
        for x, y in logs
        if max(abs(x), abs(y)) <= fmt.max_log or (x, y) == (e_a, e_b)
        for s, t in {(sign_a, sign_b), (0, 0), (0, sign_b), (sign_a, 0)}
        for n in {step, step >> 1 or 1, 1}
        if abs(x) <= fmt.max_log or not a & fmt.max_magnitude
        if abs(y) <= fmt.max_log or not b & fmt.max_magnitude
    ]


class _Tried(Pairs):
    """Pairs that are judged: which are simple, and what is right."""

    def keys(self, where: Ints) -> Ints:
        """How far the operands are from 1, then how many are negative: simple pairs have small keys."""
        fmt = self.fmt
        a, b = self.a[where], self.b[where]
        distance = code_words.distance_from_one(a, fmt) + code_words.distance_from_one(b, fmt)
        signs = (a >= fmt.sign_bit).astype(np.int64) + (b >= fmt.sign_bit)
        return 4 * distance + signs + 2 * (self.steps[where] > 1)

    def inputs(self, i: int) -> tuple[int, int]:
        """The two codes."""
        return int(self.a[i]), int(self.b[i])

    def right(self, i: int) -> int | None:
        """By `lnsnum.reference`; None where chance decides."""
        rules = self.rules
        if rules.rounding in ("stochastic_log", "stochastic_value"):
            return None
        from lnsnum import reference

        modes = {"rounding": rules.rounding, "overflow": rules.overflow, "underflow": rules.underflow}
        right: int = getattr(reference, self.operation)(*self.inputs(i), rules.fmt, **modes)
        return right

    def said(self, i: int) -> str:
        """As codes and as values."""
        return self.equation(*self.inputs(i), self.result(i))

    def nearby(self, i: int) -> _Tried | None:
        """The pair itself and simpler ones; None where a table of all was tried."""
        if self.ask is not self.call:
            return None
        case = *self.inputs(i), int(self.steps[i])
        a, b, steps = np.array([case, *_simpler(case, self.fmt)], np.int64).T
        return _Tried(self.call, self.operation, a, b, steps, self.rules, self.ask)


def _batches(callee: Callee, operation: str, rules: Rules, drawn_pairs: int, seed: int) -> Iterator[_Tried]:
    """All pairs at once, or those of a wider format in chunks."""
    fmt = rules.fmt

    def ask(name: str, a: Ints, b: Ints) -> Ints:
        codes = a.astype(fmt.dtype), b.astype(fmt.dtype)
        out: Ints = callee(name, codes, np.dtype(fmt.dtype), lambda i: f"{name}({a[i]}, {b[i]})")
        return out

    if fmt.bits <= WIDEST_EXHAUSTIVE:
        # one call fills a table of every pair, and the laws look into it
        a, b = all_pairs(fmt)
        side = 1 << fmt.bits
        table = ask(operation, a, b).reshape(side, side)
        look_up: Call = lambda _, x, y: table[x, y]  # noqa: E731
        yield _Tried(look_up, operation, a, b, np.ones_like(a), rules, ask)
        return
    for a, b, steps in chosen_pairs(fmt, operation, drawn_pairs, seed):
        yield _Tried(ask, operation, a, b, steps, rules, ask)


def try_arithmetic(
    callee: Callee, operations: tuple[str, ...], laws: tuple[str, ...], rules: Rules, *, drawn_pairs: int, seed: int
) -> LawReport:
    """Try all laws on all operations."""
    exhaustive = rules.fmt.bits <= WIDEST_EXHAUSTIVE
    chosen = {law: LAWS[law] for law in laws}
    tried = {name: Tried(chosen, _batches(callee, name, rules, drawn_pairs, seed), exhaustive) for name in operations}
    missing = tuple(name for name in OPERATIONS if name not in callee.functions)
    return try_laws("arithmetic", rules.fmt, callee, tried, order=LAWS, missing=missing)
