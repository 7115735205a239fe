"""How many planted faults the laws find: `python -m benchmarks.mutation_score`, the tables of docs/testing.md.

Exit code 1 where one is not found.
"""

import sys
import time

from benchmarks.planted_faults import FAULTS, Fault
from benchmarks.planted_faults_of_kinds import FAULTS_OF_KINDS, FaultOfKind
from lnsnum.strategies import LawReport, LawViolation, Violation, check_arithmetic_laws, check_laws

HEAD = "| fault | format | inputs | seconds | laws broken | smallest example |\n| --- | --- | ---: | ---: | --- | --- |"

HEAD_OF_KINDS = (
    "| fault | kind | format | inputs | seconds | laws broken | smallest example |\n"
    "| --- | --- | --- | ---: | ---: | --- | --- |"
)

SAY_MOST = ("error_bound", "rounding", "unbiased")
"""The laws whose example says what is right."""


def tried(check) -> tuple[LawReport, float]:
    """What a check reports, and the seconds that it took."""
    start = time.perf_counter()
    try:
        report = check()
    except LawViolation as violation:
        report = violation.report
    return report, time.perf_counter() - start


def cells(report: LawReport, example) -> tuple[str, str, Violation | None]:
    """The laws that are broken, and the example of the one that says most."""
    if not report.violations:
        return "none", "not found", None
    first = min(report.violations, key=lambda broken: broken.law not in SAY_MOST)
    return ", ".join(dict.fromkeys(broken.law for broken in report.violations)), f"`{example(first)}`", first


def _example(violation: Violation) -> str:
    inputs = ", ".join(map(str, violation.inputs))
    return f"{violation.operation}({inputs}) = {violation.result}, right is {violation.right}"


def _example_of_kind(violation: Violation) -> str:
    return violation.line.partition(": ")[2].partition("; it is off")[0]


def row(fault: Fault) -> tuple[str, bool]:
    """A line of the table, and whether the fault was found."""
    report, seconds = tried(lambda: check_arithmetic_laws(fault, fault.fmt, operations=[fault.operation]))
    laws, example, found = cells(report, _example)
    line = fault.words, fault.fmt.name, f"{report.inputs:,}", f"{seconds:.1f}", laws, example
    return f"| {' | '.join(line)} |", found is not None


def row_of_kind(fault: FaultOfKind) -> tuple[str, bool]:
    """A line of the second table, and whether the fault was found."""
    report, seconds = tried(lambda: check_laws(fault.implementation, fault.fmt, kind=fault.kind, **fault.options))
    laws, example, found = cells(report, _example_of_kind)
    fmt = fault.fmt.name if fault.fmt else "none"
    line = fault.words, fault.kind, fmt, f"{report.inputs:,}", f"{seconds:.1f}", laws, example
    return f"| {' | '.join(line)} |", found is not None


def main() -> None:
    missed = 0
    for head, faults, of_one in ((HEAD, FAULTS, row), (HEAD_OF_KINDS, FAULTS_OF_KINDS, row_of_kind)):
        print(head)
        found = 0
        for fault in faults:
            line, caught = of_one(fault)
            found += caught
            print(line, flush=True)
        print(f"\n{found} of {len(faults)} found.\n")
        missed += len(faults) - found
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
