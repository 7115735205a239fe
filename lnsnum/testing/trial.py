"""The trial of an operation: laws over batches of inputs, and of each broken law the simplest input that breaks it.

    inputs  ->  batches of n  ->  of each law: where it speaks, where it is broken  ->  the simplest  ->  simpler ones

Every kind of laws has a `Batch` of its own, which knows what its inputs are, which are simple, and what is right; what
goes on with them is the same for all and stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.testing.report import LawReport, LawResult, LawViolation, Violation

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Batch:
    """n inputs of one operation and, when a law asks for it, what comes out. Inputs are named by their index."""

    operation: str

    @property
    def size(self) -> int:
        """n."""
        raise NotImplementedError

    def keys(self, where: Ints) -> Ints:
        """How far the inputs at these indices are from simple: the simplest has the smallest key."""
        raise NotImplementedError

    def inputs(self, i: int) -> tuple[Any, ...]:
        """Input i, as the violation keeps it."""
        raise NotImplementedError

    def result(self, i: int) -> Any:
        """What came out for it."""
        raise NotImplementedError

    def right(self, i: int) -> Any:
        """What is right for it, by `lnsnum.reference`; None where several results are, or nobody knows."""
        raise NotImplementedError

    def told(self, result: Any) -> str:
        """A result in words."""
        raise NotImplementedError

    def said(self, i: int) -> str:
        """Input i and its result in words: `add(64, 96) = 115, that is ...`."""
        raise NotImplementedError

    def nearby(self, i: int) -> Batch | None:
        """Inputs that are simpler than i and near it, to try next; None where all there are were tried."""
        return None


B = TypeVar("B", bound=Batch)


class Finding(NamedTuple):
    """Which inputs a law speaks of, which of them break it, and what should have come out at one of them, in words."""

    where: Mask
    bad: Mask
    expected: Callable[[int], str]


@dataclass(frozen=True)
class Law(Generic[B]):
    """A law in one sentence and as a formula, and what finds the inputs that break it.

    Args:
        sentence, formula: what the law says, for people.
        find: yields findings over a batch; all their masks are n long.
        alone: whether an input that breaks the law does so by itself. If not, it is not made simpler.
    """

    sentence: str
    formula: str
    find: Callable[[B], Iterator[Finding]]
    alone: bool = True


class _Worst(NamedTuple):
    """The simplest input that breaks a law, so far."""

    key: int
    batch: Batch
    finding: Finding
    i: int


def _simplest(batch: Batch, law: Law[Any]) -> tuple[_Worst | None, int]:
    """The simplest input of the batch that breaks the law, and of how many the law speaks."""
    best: _Worst | None = None
    spoken = np.zeros(batch.size, np.bool_)
    for finding in law.find(batch):
        spoken |= finding.where
        where = np.flatnonzero(finding.bad)
        if where.size:
            keys = batch.keys(where)
            i, key = int(where[keys.argmin()]), int(keys.min())
            if best is None or key < best.key:
                best = _Worst(key, batch, finding, i)
    return best, int(np.count_nonzero(spoken))


def in_other_company(size: int) -> list[Ints]:
    """All indices once more, in another order and in two parts: what a result must not depend on."""
    order = np.random.default_rng(0).permutation(size)
    return [part for part in (order[: size // 3], order[size // 3 :]) if part.size]


class Asked(Protocol):
    """What is tried, however it is asked: it is told which law is being tried, for what it says of calls that fail."""

    law: str


class Trial(Generic[B]):
    """One operation, tried with its laws."""

    def __init__(self, callee: Asked, operation: str, laws: Mapping[str, Law[B]]) -> None:
        self.callee, self.operation, self.laws = callee, operation, laws
        self.worst: dict[str, _Worst] = {}
        self.spoken = dict.fromkeys(laws, 0)
        self.inputs = 0

    def run(self, batches: Iterable[B]) -> None:
        """Try all laws on all batches, then look for simpler inputs near those that break one."""
        self.callee.law = next(iter(self.laws))
        for batch in batches:
            self.inputs += batch.size
            for name, law in self.laws.items():
                self.callee.law = name
                worst, spoken = _simplest(batch, law)
                self.spoken[name] += spoken
                if worst is not None and (name not in self.worst or worst.key < self.worst[name].key):
                    self.worst[name] = worst
        for name, worst in self.worst.items():
            if self.laws[name].alone:
                self.worst[name] = self._simpler(name, worst)

    def _simpler(self, name: str, worst: _Worst) -> _Worst:
        """The simplest input near one that breaks the law; that one itself where it does so only among others."""
        self.callee.law = name
        while (nearby := worst.batch.nearby(worst.i)) is not None:
            simpler, _ = _simplest(nearby, self.laws[name])
            if simpler is None or simpler.key >= worst.key:
                break
            worst = simpler
        return worst

    def results(self) -> Iterator[LawResult]:
        """One for each law."""
        for name in self.laws:
            worst = self.worst.get(name)
            yield LawResult(
                name, self.operation, self.spoken[name], None if worst is None else violation(name, *worst[1:])
            )


def violation(law: str, batch: Batch, finding: Finding, i: int) -> Violation:
    """Input i of the batch breaks the law, in one line."""
    result, right, expected = batch.result(i), batch.right(i), finding.expected(i)
    told = "" if right is None else batch.told(right)
    more = f"; right is {told}" if told and not expected.startswith(told) and batch.told(result) != told else ""
    line = f"{law}: {batch.said(i)}; expected {expected}{more}"
    return Violation(law, batch.operation, batch.inputs(i), result, right, line)


class Tried(NamedTuple, Generic[B]):
    """What an operation is tried with: its laws, its inputs, and whether these are all that there are."""

    laws: Mapping[str, Law[B]]
    batches: Iterable[B]
    exhaustive: bool


def try_laws(
    kind: str,
    fmt: LNSFormat | None,
    callee: Asked,
    tried: Mapping[str, Tried[Any]],
    *,
    order: Iterable[str],
    missing: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> LawReport:
    """Try each operation with its laws, and report on these in the order of `order`, the names of all laws.

    Raises:
        LawViolation: where a law is broken.
    """
    results: list[LawResult] = []
    inputs = 0
    for operation, (laws, batches, _) in tried.items():
        if not laws:
            continue
        trial = Trial(callee, operation, laws)
        trial.run(batches)
        results += trial.results()
        inputs = max(inputs, trial.inputs)
    rank = {law: n for n, law in enumerate(order)}
    results.sort(key=lambda result: rank[result.law])
    exhaustive = all(what.exhaustive for what in tried.values())
    return judged(LawReport(kind, fmt, tuple(results), missing, inputs, exhaustive, notes))


def judged(report: LawReport) -> LawReport:
    """The report where all laws held; else LawViolation is raised."""
    if report.violations:
        raise LawViolation(report)
    return report
