"""The two editions of the study: their parts, and which runs a part is made of."""

from __future__ import annotations

from lnsnum.study import plan, second_plan
from lnsnum.study.plan import Run, Scores
from lnsnum.study.problems import Problem
from lnsnum.tasks.measure import Measure

EDITIONS = (1, 2)
FILES = {1: "study.jsonl", 2: "second_study.jsonl"}
"""What the journal of an edition is called, where nobody says."""


def parts_of(edition: int) -> tuple[str, ...]:
    """The names of an edition's parts."""
    return plan.PARTS if edition == 1 else second_plan.PARTS


def planned(part: str, problem: Problem, measure: Measure, scores: Scores) -> list[Run]:
    """The runs of one part on one problem that are known already; more may follow when these are done.

    Args:
        part: of either edition; no two have the same name.
        problem: of that edition.
        measure: of the problem.
        scores: those that learning rates are chosen by, of the runs that are done.
    """
    of_edition = plan.planned if part in plan.PARTS else second_plan.planned
    return of_edition(part, problem, measure, scores)
