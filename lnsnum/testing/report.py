"""What came of trying laws: which held, over how many inputs, which broke, on what, and what is right there."""

from __future__ import annotations

import dataclasses
from typing import Any

from lnsnum.format import LNSFormat


@dataclasses.dataclass(frozen=True)
class Violation:
    """The simplest inputs that were found to break a law.

    Args:
        law, operation: their names.
        inputs: what the operation was given, codes or floats.
        result: what it returned.
        right: what is right by `lnsnum.reference`; None where several results are.
        line: all of this in one line.
    """

    law: str
    operation: str
    inputs: tuple[Any, ...]
    result: Any
    right: Any
    line: str

    def __str__(self) -> str:
        return self.line


@dataclasses.dataclass(frozen=True)
class LawResult:
    """What came of one law on one operation: how many inputs it spoke of, and the simplest that broke it."""

    law: str
    operation: str
    inputs: int
    violation: Violation | None = None

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return "broken" if self.violation else "held" if self.inputs else "says nothing"


@dataclasses.dataclass(frozen=True)
class LawReport:
    """What was tried, and what was not.

    Args:
        kind: what was tried, such as "arithmetic".
        fmt: the format; None for kinds that need none.
        results: one for each law and operation.
        missing: the operations that the implementation lacks: nothing is said about them.
        inputs: how many inputs an operation was tried with, the most that one was.
        exhaustive: whether these are all that there are.
        notes: what was found out besides, a line each.
    """

    kind: str
    fmt: LNSFormat | None
    results: tuple[LawResult, ...]
    missing: tuple[str, ...]
    inputs: int
    exhaustive: bool
    notes: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What the report is about: the format, or the kind where there is none."""
        return self.kind if self.fmt is None else self.fmt.name

    @property
    def operations(self) -> tuple[str, ...]:
        """What was tried."""
        return tuple(dict.fromkeys(result.operation for result in self.results))

    @property
    def laws(self) -> tuple[str, ...]:
        """The laws that were tried."""
        return tuple(dict.fromkeys(result.law for result in self.results))

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The laws that were broken."""
        return tuple(result.violation for result in self.results if result.violation is not None)

    def table(self) -> str:
        """A line for each law and operation: what became of it, and of how many inputs it spoke."""
        rows = [("law", "operation", "inputs", "")]
        rows += [(r.law, r.operation, f"{r.inputs:,}", r.verdict) for r in self.results]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"{law:{widths[0]}}  {operation:{widths[1]}}  {inputs:>{widths[2]}}  {verdict}".rstrip()
            for law, operation, inputs, verdict in rows
        )

    def __str__(self) -> str:
        which = "all" if self.exhaustive else "chosen"
        lacks = f"; not there, so not tried: {', '.join(self.missing)}" if self.missing else ""
        if broken := self.violations:
            return "\n".join(violation.line for violation in broken)
        told = (
            f"{self.subject}: {', '.join(self.operations)} kept {len(self.laws)} laws "
            f"on {self.inputs} inputs ({which}){lacks}"
        )
        return "\n".join([told, *self.notes])


class LawViolation(AssertionError):  # noqa: N818 (it is a failed assertion, not an error of ours)
    """What breaks laws: the message has a line for each law and operation, `report` tells all."""

    def __init__(self, report: LawReport) -> None:
        super().__init__(str(report))
        self.report = report
        self.violations = report.violations

    def __reduce__(self) -> tuple[type[LawViolation], tuple[LawReport]]:
        return LawViolation, (self.report,)
