"""The laws of sums find every planted fault, in every run: the third table of docs/testing.md."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mutation_score
from benchmarks.planted_sums import SUM_FAULTS, Datapath, SumFault
from lnsnum import LNSFormat
from lnsnum.strategies import LawViolation, check_sum_laws

OTHERS_MATTER = {
    "the accumulator is not cleared between rows",
    "b is read without its transpose",
    "strides are not looked at",
    "the last column of odd widths is the first's",
}
"""Faults whose results depend on what else is computed, or on how operands lie in memory."""


def caught(fault):
    with pytest.raises(LawViolation) as violation:
        check_sum_laws(fault, fault.fmt, operations=[fault.operation], **fault.options)
    return violation.value


@pytest.mark.thorough
@pytest.mark.parametrize("fault", SUM_FAULTS, ids=lambda fault: f"{fault.words} ({fault.operation} {fault.fmt.name})")
def test_every_fault_is_found_and_the_example_shows_it(fault):
    violations = caught(fault).violations
    codes = fault.fmt.dtype
    if fault.words in OTHERS_MATTER:
        assert {"determinism", "layout"} & {violation.law for violation in violations}
        return
    shown = [violation for violation in violations if violation.law in ("accumulation", "error_bound", "nan")]
    assert shown
    for violation in shown:
        alone = fault(*(np.array([row], codes) for row in violation.inputs))
        assert int(alone[0]) == violation.result
        assert violation.right is None or violation.right != violation.result


def test_without_a_fault_the_datapath_of_the_faults_is_right():
    for operation, accumulator, order in (
        ("sum", "lns16f10", "sequential"),
        ("dot", "lns16f10", "pairwise"),
        ("matmul", "lns8f3", "sequential"),
    ):
        options = {"accumulator": accumulator, "order": order}
        right = SumFault("no fault", operation, LNSFormat.of("lns8f3"), options, Datapath())
        assert check_sum_laws(right, right.fmt, operations=[operation], **options)


@pytest.mark.thorough
def test_the_table_of_the_docs_is_that_of_the_command():
    """But for the seconds."""
    page = (Path(mutation_score.__file__).parents[1] / "docs" / "testing.md").read_text()
    table = page[page.index(mutation_score.HEAD_OF_SUMS) :].split("\n\n")[0]
    listed = [tuple(line.split(" | ")[:3]) for line in table.splitlines()[2:]]
    assert listed == [(f"| {fault.words}", fault.operation, fault.fmt.name) for fault in SUM_FAULTS]
    timeless = r"\| [0-9.]+ (?=\| [a-z])"
    for fault in SUM_FAULTS[::10]:
        line, found = mutation_score.row_of_sums(fault)
        assert found
        assert re.sub(timeless, "", line) in re.sub(timeless, "", table)
