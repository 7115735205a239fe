"""How many runs are left, and how long they will take.

    seconds of a run  =  mean of its like in the journal, or  steps * (seconds of a step)  +  seconds of a score

The time left is the sum over all runs that are left, by the number of processes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from lnsnum.study.execution import ReadyProblem
from lnsnum.study.journal import Record, scores
from lnsnum.study.plan import Run
from lnsnum.study.runner import foreseen_runs, task_of
from lnsnum.study.workers import Workers
from lnsnum.tasks import TaskError, training
from lnsnum.tasks.recipe import FLOAT, Recipe

WARM_UP = 2
"""Steps that are not timed: the first ones compile and allocate."""
TIMED = 20


class Expected(NamedTuple):
    """What a part is on a problem."""

    part: str
    problem: str
    steps: int
    """Of one run."""
    runs: int
    """In all, as far as they can be known now."""
    done: int
    seconds: float
    """Of all that are left, one after the other."""


class Estimate(NamedTuple):
    """The parts on the problems, and all in all: a run that several parts share counts once there."""

    rows: list[Expected]
    runs: int
    done: int
    seconds: float


def estimate(
    problems: Sequence[ReadyProblem], parts: Sequence[str], records: Sequence[Record], *, jobs: int = 1
) -> Estimate:
    """Runs and seconds of each part on each problem; where the journal tells nothing of a problem, some steps are run.

    Args:
        problems: all are new to the journal, or have its steps and data.
        parts: their names.
        records: what is done.
        jobs: processes that time steps.

    Raises:
        TaskError: where the steps of a problem cannot be run.
    """
    known = scores(records)
    plans = {(part, p.name): foreseen_runs(p, [part], known) for p in problems for part in parts}
    left = {key for runs in plans.values() for key in runs} - known.keys()
    timed = {record.problem for record in records if record.failure is None}
    unknown = [p for p in problems if p.name not in timed and any(plans[part, p.name].keys() & left for part in parts)]
    measured = _measure(unknown, jobs) if unknown else {}
    seconds: dict[str, float] = {}
    rows = []
    for (part, problem), steps in ((pair, p.problem.steps) for p in problems for pair in plans if pair[1] == p.name):
        runs = plans[part, problem]
        missing = {
            key: measured[problem] if problem in measured else _mean_seconds(run, records)
            for key, run in runs.items()
            if key in left
        }
        seconds |= missing
        rows.append(Expected(part, problem, steps, len(runs), len(runs) - len(missing), sum(missing.values())))
    every = {key for runs in plans.values() for key in runs}
    return Estimate(rows, len(every), len(every) - len(left), sum(seconds.values()))


def _mean_seconds(run: Run, records: Iterable[Record]) -> float:
    """Of finished runs of the same problem; of those with such an optimizer, where there are any."""
    same = [r for r in records if r.problem == run.problem and r.failure is None]
    alike = [r for r in same if _kind(r.recipe) == _kind(run.recipe)]
    return fmean(r.seconds for r in alike or same)


def _kind(recipe: Recipe) -> tuple[str, bool]:
    return recipe.optimizer, recipe.format == FLOAT


def _measure(problems: Sequence[ReadyProblem], jobs: int) -> dict[str, float]:
    """Seconds of a run of each, with the default recipe."""
    seconds: dict[str, float] = {}
    waiting = list(problems)
    with Workers[ReadyProblem, float](jobs, time_problem) as workers:
        while waiting or workers.busy:
            while waiting and workers.has_room:
                workers.hand(waiting.pop(0))
            problem, result, failure = workers.next()
            if result is None:
                raise TaskError(f"{problem.name} cannot be timed: {failure}")
            seconds[problem.name] = result
    return seconds


def time_problem(problem: ReadyProblem) -> float:
    """Seconds of a run with the default recipe: from 20 steps and a score."""
    task, recipe, steps = task_of(problem), Recipe(), problem.problem.steps
    model, optimizer = training.start(task, recipe, 0)
    timed = max(1, min(TIMED, steps - WARM_UP))
    history = training.train(task, model, optimizer, recipe, steps=WARM_UP + timed, seed=0)
    for _ in itertools.islice(history, WARM_UP):
        pass
    begin = time.perf_counter()
    for _ in history:
        pass
    trained = time.perf_counter()
    task.score(model)
    return (trained - begin) / timed * steps + time.perf_counter() - trained
