"""The laws of `lnsnum.testing.laws`, tried on an implementation of arithmetic on codes: a kernel, a table, a model of
an adder.

`lnsnum.testing.pairs` says with which pairs, `lnsnum.testing.calling` how an implementation is asked. A law that is
broken is told with the simplest operands that break it. docs/testing.md tells how to use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.testing.calling import Callee
from lnsnum.testing.laws import LAWS, OPERATIONS, Batch, Call, Finding
from lnsnum.testing.pairs import WIDEST_EXHAUSTIVE, all_pairs, chosen_pairs
from lnsnum.testing.report import LawReport, LawResult, Violation
from lnsnum.testing.spans import Ints, Rules

DRAWN = 100_000
"""Pairs that are drawn for a format of more than eight bits, besides those that are always tried."""


# ---------------------------------------------------------------------------------------------------- the simplest


def _complexity(batch: Batch, where: Ints) -> Ints:
    """How far the operands are from 1, then how many are negative: simple pairs have small keys."""
    fmt = batch.fmt
    pair = batch.a[where], batch.b[where]
    logs = [np.where(x & fmt.max_magnitude, (x & fmt.max_magnitude) - fmt.bias, 0) for x in pair]
    signs = [(x >= fmt.sign_bit).astype(np.int64) for x in pair]
    return 4 * (np.abs(logs[0]) + np.abs(logs[1])) + signs[0] + signs[1] + 2 * (batch.steps[where] > 1)


_Case = tuple[int, int, int]


_Worst = tuple[int, _Case, Finding, int]
"""The key of a pair that breaks a law, the pair itself, and where it was found."""


def _simplest(batch: Batch, law: str) -> tuple[_Worst | None, int]:
    """The simplest pair of the batch that breaks the law, and of how many the law speaks."""
    best: _Worst | None = None
    spoken = np.zeros(batch.a.shape, np.bool_)
    for finding in LAWS[law].find(batch):
        spoken |= finding.where
        where = np.flatnonzero(finding.bad)
        if where.size:
            keys = _complexity(batch, where)
            i, key = int(where[keys.argmin()]), int(keys.min())
            if best is None or key < best[0]:
                best = key, (int(batch.a[i]), int(batch.b[i]), int(batch.steps[i])), finding, i
    return best, int(np.count_nonzero(spoken))


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


# -------------------------------------------------------------------------------------------------------- the right


def _right(batch: Batch, i: int) -> int | None:
    """What is right for pair i, by `lnsnum.reference`; None where chance decides."""
    rules = batch.rules
    if rules.rounding in ("stochastic_log", "stochastic_value"):
        return None
    from lnsnum import reference

    modes = {"rounding": rules.rounding, "overflow": rules.overflow, "underflow": rules.underflow}
    right: int = getattr(reference, batch.operation)(int(batch.a[i]), int(batch.b[i]), rules.fmt, **modes)
    return right


def _violation(batch: Batch, law: str, finding: Finding, i: int) -> Violation:
    a, b, out = int(batch.a[i]), int(batch.b[i]), int(batch.out[i])
    right, expected = _right(batch, i), finding.expected(i)
    told = "" if right is None else batch.told(right)
    more = f"; right is {told}" if told and not expected.startswith(told) and out != right else ""
    line = f"{law}: {batch.equation(a, b, out)}; expected {expected}{more}"
    return Violation(law, batch.operation, (a, b), out, right, line)


# ------------------------------------------------------------------------------------------------------- the trial


class _Trial:
    """One operation, tried with all its laws: the simplest pair that breaks each, and how many pairs it spoke of."""

    def __init__(self, callee: Callee, operation: str, laws: tuple[str, ...], rules: Rules) -> None:
        self.callee, self.operation, self.laws, self.rules = callee, operation, laws, rules
        self.worst: dict[str, tuple[Batch, _Worst]] = {}
        self.spoken = dict.fromkeys(laws, 0)
        self.inputs = 0

    def call(self, operation: str, a: Ints, b: Ints) -> Ints:
        """The operation on codes, widened."""
        fmt = self.rules.fmt
        codes = a.astype(fmt.dtype), b.astype(fmt.dtype)
        out: Ints = self.callee(operation, codes, np.dtype(fmt.dtype), lambda i: f"{operation}({a[i]}, {b[i]})")
        return out

    def batch(self, a: Ints, b: Ints, steps: Ints, call: Call | None = None) -> Batch:
        return Batch(call or self.call, self.operation, a, b, steps, self.rules, self.call)

    def try_batch(self, batch: Batch) -> None:
        self.inputs += batch.a.size
        for law in self.laws:
            self.callee.law = law
            worst, spoken = _simplest(batch, law)
            self.spoken[law] += spoken
            if worst is not None and (law not in self.worst or worst[0] < self.worst[law][1][0]):
                self.worst[law] = batch, worst

    def all_pairs(self) -> None:
        """One call fills a table of every pair, and the laws look into it."""
        a, b = all_pairs(self.rules.fmt)
        side = 1 << self.rules.fmt.bits
        self.callee.law = self.laws[0]
        table = self.call(self.operation, a, b).reshape(side, side)
        self.try_batch(self.batch(a, b, np.ones_like(a), lambda _, x, y: table[x, y]))

    def chosen_pairs(self, drawn_pairs: int, seed: int) -> None:
        """The pairs of a wider format; those that break a law are made simpler."""
        for a, b, steps in chosen_pairs(self.rules.fmt, self.operation, drawn_pairs, seed):
            self.try_batch(self.batch(a, b, steps))
        for law, found in list(self.worst.items()):
            if law != "determinism":  # that takes all the operands that were there
                self.worst[law] = self._simpler(law, *found)

    def _simpler(self, law: str, batch: Batch, worst: _Worst) -> tuple[Batch, _Worst]:
        """The simplest pair near one that breaks the law; that one itself where it does so only among others."""
        self.callee.law = law
        while True:
            cases = np.array([worst[1], *_simpler(worst[1], self.rules.fmt)], np.int64)
            nearby = self.batch(*cases.T)
            simpler, _ = _simplest(nearby, law)
            if simpler is None or simpler[0] >= worst[0]:
                return batch, worst
            batch, worst = nearby, simpler

    def results(self) -> Iterator[LawResult]:
        """One for each law."""
        for law in self.laws:
            violation = None
            if law in self.worst:
                batch, (_, _, finding, i) = self.worst[law]
                violation = _violation(batch, law, finding, i)
            yield LawResult(law, self.operation, self.spoken[law], violation)


def try_arithmetic(
    callee: Callee,
    fmt: LNSFormat,
    operations: tuple[str, ...],
    laws: tuple[str, ...],
    *,
    max_ulp: float | Fraction,
    rounding: Rounding,
    overflow: Overflow,
    underflow: Underflow,
    drawn_pairs: int,
    seed: int,
) -> LawReport:
    """Try all laws on all operations."""
    rules = Rules(fmt, Fraction(max_ulp) - least_ulp(rounding), rounding, overflow, underflow)
    exhaustive = fmt.bits <= WIDEST_EXHAUSTIVE
    results: list[LawResult] = []
    inputs = 0
    for operation in operations:
        trial = _Trial(callee, operation, laws, rules)
        if exhaustive:
            trial.all_pairs()
        else:
            trial.chosen_pairs(drawn_pairs, seed)
        results += trial.results()
        inputs = trial.inputs
    results.sort(key=lambda result: list(LAWS).index(result.law))
    missing = tuple(name for name in OPERATIONS if name not in callee.functions)
    return LawReport("arithmetic", fmt, tuple(results), missing, inputs, exhaustive)


def least_ulp(rounding: Rounding) -> Fraction:
    """How far a correctly rounded result may be from the exact one: half a step under nearest, else one."""
    return Fraction(1, 2) if rounding == "nearest" else Fraction(1)
