"""A trial before hours are spent: every way of training on every problem, for a few steps, and nothing kept.

It tells whether each runs, comes to a finite score, and what bytes it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from lnsnum.study.execution import ReadyProblem, describe, one_run
from lnsnum.study.journal import Record
from lnsnum.study.plan import Run
from lnsnum.study.runner import foreseen_runs, task_of
from lnsnum.study.workers import Workers

STEPS = 3


class Tried(NamedTuple):
    """One way on one problem."""

    run: Run
    record: Record | None
    """None where it came to no result."""
    failure: str | None
    """Why it came to none, or to no score."""


class _Job(NamedTuple):
    problem: ReadyProblem
    run: Run


def runs_to_try(problem: ReadyProblem, parts: Iterable[str]) -> list[Run]:
    """Of the runs that are foreseen, one of each way: the first of all its rates and seeds."""
    runs = foreseen_runs(problem, parts, {}).values()
    return list({replace(run.recipe, lr=None): run for run in reversed(list(runs))}.values())[::-1]


def try_all(
    problems: Sequence[ReadyProblem],
    parts: Sequence[str],
    *,
    jobs: int = 1,
    on_result: Callable[[Tried, int], None] = lambda *_: None,
) -> list[Tried]:
    """Train each way on each problem for three steps.

    Args:
        problems: with their data.
        parts: of the study, by name.
        jobs: processes.
        on_result: told each as it is done, and how many there are in all.
    """
    waiting = [_Job(problem, run) for problem in problems for run in runs_to_try(problem, parts)]
    count, tried = len(waiting), []
    with Workers[_Job, Record](jobs, _do) as workers:
        while waiting or workers.busy:
            while waiting and workers.has_room:
                workers.hand(waiting.pop(0))
            job, record, failure = workers.next()
            tried.append(Tried(job.run, record, failure if record is None else record.failure))
            on_result(tried[-1], count)
    return tried


def _do(job: _Job) -> Record:
    return one_run(task_of(job.problem), replace(job.problem.problem, steps=STEPS), job.run)


def told(one: Tried) -> str:
    """One line: what was run, and what came of it."""
    if one.record is None or one.failure is not None:
        return f"{describe(one.run)}: FAILED: {one.failure}"
    it = one.record
    gradients = "" if it.gradient_bytes is None else f" + {it.gradient_bytes:.2f}"
    held = f"{it.weight_bytes:.2f} + {it.state_bytes:.2f}{gradients} bytes a weight"
    return f"{describe(one.run)}: {it.score:.4g}, {held}, {it.seconds:.1f} s"
