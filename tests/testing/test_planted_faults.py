"""The suite finds every planted fault, in every run: the mutation score of docs/testing.md."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mutation_score
from benchmarks.planted_faults import FAULTS, Parts
from benchmarks.planted_faults_of_kinds import FAULTS_OF_KINDS
from lnsnum import lns16f10, reference
from lnsnum.strategies import KINDS, LawViolation, check_arithmetic_laws, check_laws

OTHERS_MATTER = {"a stale carry: one more after an overflow", "results in the wrong order"}
"""Faults whose results depend on what else is computed."""


OTHER_KINDS = [kind for kind in KINDS if kind not in ("arithmetic", "sums")]  # these have a list each


def caught(fault, **options):
    with pytest.raises(LawViolation) as violation:
        check_arithmetic_laws(fault, fault.fmt, operations=[fault.operation], **options)
    return violation.value


def test_there_are_thirty_faults_over_4_to_32_bits():
    assert len(FAULTS) >= 30
    assert {fault.fmt.bits for fault in FAULTS} >= {4, 6, 8, 10, 12, 16, 20, 24, 32}
    assert {fault.operation for fault in FAULTS} == {"add", "subtract", "multiply", "divide"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.words} ({fault.fmt.name})")
def test_every_fault_is_found_and_shown_in_two_codes(fault):
    violations = caught(fault, drawn_pairs=0).violations
    modes = [violation for violation in violations if violation.law == "error_bound"] or violations[:1]
    for violation in modes:
        a, b = violation.inputs
        assert violation.right == getattr(reference, fault.operation)(a, b, fault.fmt)
        if fault.words not in OTHERS_MATTER:
            alone = fault(*(np.array([x], fault.fmt.dtype) for x in (a, b)))
            assert alone[0] == violation.result != violation.right
    assert fault.words not in OTHERS_MATTER or "determinism" in {violation.law for violation in violations}


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(6))
def test_a_wrong_sign_where_inner_operands_overflow_is_found_whatever_is_drawn(seed):
    (fault,) = [fault for fault in FAULTS if "inner operands" in fault.words]
    assert fault.fmt == lns16f10
    for drawn_pairs in (0, 1000):
        laws = {violation.law for violation in caught(fault, seed=seed, drawn_pairs=drawn_pairs).violations}
        assert {"saturation", "error_bound"} & laws


def test_two_runs_say_the_same():
    fault = next(fault for fault in FAULTS if fault.fmt.bits == 20)
    assert caught(fault).report == caught(fault).report


def test_without_a_fault_the_datapath_of_the_faults_is_right():
    for fault in {fault.fmt.name + fault.operation: fault for fault in FAULTS if fault.fmt.bits <= 12}.values():
        right = fault._replace(function=lambda parts: parts.right)
        assert check_arithmetic_laws(right, fault.fmt, operations=[fault.operation])
        assert Parts(fault.operation, fault.fmt, *np.array([[1], [2]])).gap == 1


def _table(page, head):
    return page[page.index(head) :].split("\n\n")[0]


@pytest.mark.thorough
@pytest.mark.parametrize("fault", FAULTS_OF_KINDS, ids=lambda fault: f"{fault.kind}: {fault.words}")
def test_every_fault_of_the_other_kinds_is_found(fault):
    with pytest.raises(LawViolation) as caught:
        check_laws(fault.implementation, fault.fmt, kind=fault.kind, **fault.options)
    for violation in caught.value.violations:
        assert violation.line.startswith(f"{violation.law}: {fault.operation}(")
        assert "; expected " in violation.line
        if fault.kind in ("conversions", "gaussian") and fault.words not in OTHERS_MATTER:
            x = np.array(violation.inputs, _input_type(fault))
            is_plain = not np.isnan(x[0])  # the bits of another NaN are in the line alone
            assert not is_plain or np.array_equal(fault.function(x)[0], violation.result, equal_nan=True)
            assert violation.law != "error_bound" or violation.result != violation.right


def _input_type(fault):
    return {"encode": fault.options.get("dtype"), "decode": fault.fmt.dtype}.get(fault.operation, np.int64)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_two_runs_of_the_other_kinds_say_the_same(kind):
    for fault in [fault for fault in FAULTS_OF_KINDS if fault.kind == kind][-2:]:
        lines = []
        for _ in range(2):
            with pytest.raises(LawViolation) as caught:
                check_laws(fault.implementation, fault.fmt, kind=kind, **fault.options)
            lines.append(str(caught.value))
        assert lines[0] == lines[1]


def test_there_are_faults_of_every_kind():
    counts = {kind: sum(fault.kind == kind for fault in FAULTS_OF_KINDS) for kind in OTHER_KINDS}
    assert min(counts.values()) >= 8, counts


def test_the_second_table_of_the_docs_is_that_of_the_command():
    """But for the seconds."""
    page = (Path(mutation_score.__file__).parents[1] / "docs" / "testing.md").read_text()
    table = _table(page, "| fault | kind |")
    listed = re.findall(r"^\| (.*?) \| ([a-z]+) \| (lns\S+|none) \|.*\|$", table, re.MULTILINE)
    assert listed == [(fault.words, fault.kind, fault.fmt.name if fault.fmt else "none") for fault in FAULTS_OF_KINDS]
    timeless = r"\| [0-9.]+ (?=\| [a-z])"
    for fault in FAULTS_OF_KINDS[::4]:
        line, found = mutation_score.row_of_kind(fault)
        assert found
        assert re.sub(timeless, "", line) in re.sub(timeless, "", table)


def test_the_table_of_the_docs_is_that_of_the_command(capsys):
    """But for the seconds."""
    page = (Path(mutation_score.__file__).parents[1] / "docs" / "testing.md").read_text()
    table = _table(page, "| fault | format |")
    listed = re.findall(r"^\| (.*?) \| (lns\S+) \|.*\|$", table, re.MULTILINE)
    assert listed == [(fault.words, fault.fmt.name) for fault in FAULTS]
    line, found = mutation_score.row(next(fault for fault in FAULTS if fault.fmt.bits == 8))
    assert found
    timeless = r"\| [0-9.]+ (?=\| [a-z])"
    assert re.sub(timeless, "", line) in re.sub(timeless, "", table)
