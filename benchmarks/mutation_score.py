"""How many planted faults the laws find: `python -m benchmarks.mutation_score`, the tables of docs/testing.md.

Exit code 1 where one is not found.
"""

import sys
import time

from benchmarks.planted_faults import FAULTS, Fault
from benchmarks.planted_faults_of_kinds import FAULTS_OF_KINDS, FaultOfKind
from benchmarks.planted_optimizers import OPTIMIZER_FAULTS, OptimizerFault
from benchmarks.planted_sums import SUM_FAULTS, SumFault
from lnsnum.strategies import LawReport, LawViolation, Violation, check_arithmetic_laws, check_laws, check_sum_laws
from lnsnum.torch_bridge.strategies import check_optimizer_laws

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


HEAD_OF_SUMS = (
    "| fault | operation | format | accumulator | inputs | seconds | laws broken | smallest example |\n"
    "| --- | --- | --- | --- | ---: | ---: | --- | --- |"
)


def _example_of_sums(violation: Violation) -> str:
    right = "" if violation.right is None else f", right is {violation.right}"
    return f"{violation.operation}({', '.join(map(str, violation.inputs))}) = {violation.result}{right}"


def row_of_sums(fault: SumFault) -> tuple[str, bool]:
    """A line of the third table."""
    check = lambda: check_sum_laws(fault, fault.fmt, operations=[fault.operation], **fault.options)  # noqa: E731
    report, seconds = tried(check)
    laws, example, found = cells(report, _example_of_sums)
    stated = f"{fault.options['accumulator']}, {fault.options['order']}"
    numbers = f"{report.inputs:,}", f"{seconds:.1f}"
    line = fault.words, fault.operation, fault.fmt.name, stated, *numbers, laws, example
    return f"| {' | '.join(line)} |", found is not None


HEAD_OF_OPTIMIZERS = "| fault | seconds | laws broken | what is said of the first |\n| --- | ---: | --- | --- |"


def row_of_optimizer(fault: OptimizerFault) -> tuple[str, bool]:
    """A line of the fourth table."""
    report, seconds = tried(lambda: check_optimizer_laws(fault.make, **fault.options))
    laws, _, _ = cells(report, str)
    said = report.violations[0].line.partition("; expected ")[2] if report.violations else "not found"
    return f"| {fault.words} | {seconds:.1f} | {laws} | {said} |", bool(report.violations)


TABLES = (
    (HEAD, FAULTS, row),
    (HEAD_OF_KINDS, FAULTS_OF_KINDS, row_of_kind),
    (HEAD_OF_SUMS, SUM_FAULTS, row_of_sums),
    (HEAD_OF_OPTIMIZERS, OPTIMIZER_FAULTS, row_of_optimizer),
)


def main() -> None:
    missed = 0
    for head, faults, of_one in TABLES:
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
