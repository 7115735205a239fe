"""How many planted faults the law suite finds: `python -m benchmarks.mutation_score`, the table of docs/testing.md.

Exit code 1 where one is not found.
"""

import sys
import time

from benchmarks.planted_faults import FAULTS, Fault
from lnsnum.strategies import LawViolation, check_arithmetic_laws

HEAD = "| fault | format | inputs | seconds | laws broken | smallest example |\n| --- | --- | ---: | ---: | --- | --- |"


def row(fault: Fault) -> tuple[str, bool]:
    """A line of the table, and whether the fault was found."""
    start = time.perf_counter()
    try:
        report = check_arithmetic_laws(fault, fault.fmt, operations=[fault.operation])
        laws, example = "none", "not found"
    except LawViolation as violation:
        report = violation.report
        first = min(report.violations, key=lambda broken: broken.law != "error_bound")
        laws = ", ".join(dict.fromkeys(broken.law for broken in report.violations))
        a, b = first.inputs
        example = f"{first.operation}({a}, {b}) = {first.result}, right is {first.right}"
    seconds = time.perf_counter() - start
    cells = fault.words, fault.fmt.name, f"{report.inputs:,}", f"{seconds:.1f}", laws, f"`{example}`"
    return f"| {' | '.join(cells)} |", bool(report.violations)


def main() -> None:
    print(HEAD)
    found = 0
    for fault in FAULTS:
        line, caught = row(fault)
        found += caught
        print(line, flush=True)
    print(f"\n{found} of {len(FAULTS)} found.")
    sys.exit(found < len(FAULTS))


if __name__ == "__main__":
    main()
