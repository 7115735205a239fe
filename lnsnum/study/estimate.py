"""How many runs are left, and how long they will take.

    seconds of a run  =  mean of its like in the journal, or  steps * (seconds of a step)  +  seconds of a score

The time left is the sum over all runs that are left, by the number of processes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from torch import nn

from lnsnum.study.execution import ReadyProblem
from lnsnum.study.journal import Record, choosing
from lnsnum.study.plan import Run
from lnsnum.study.runner import foreseen_runs, task_of
from lnsnum.study.workers import Workers
from lnsnum.tasks import TaskError, training
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.task import Task

WARM_UP = 2
"""Steps that are not timed: the first ones compile and allocate."""
TIMED = 20
_HARMLESS = 1e-6
"""A learning rate at which nothing diverges: a step takes as long at any."""


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
    known = choosing(records)
    plans = {(part, p.name): foreseen_runs(p, [part], known) for p in problems for part in parts}
    left = {key for runs in plans.values() for key in runs} - known.keys()
    timed = {record.problem for record in records if record.failure is None}
    unknown = [p for p in problems if p.name not in timed and any(plans[part, p.name].keys() & left for part in parts)]
    samples = {
        p.name: {
            _kind(run.recipe): run.recipe for part in parts for key, run in plans[part, p.name].items() if key in left
        }
        for p in unknown
    }
    measured = _measure([Sample(p, tuple(samples[p.name].values())) for p in unknown], jobs) if unknown else {}
    seconds: dict[str, float] = {}
    rows = []
    for (part, problem), steps in ((pair, p.problem.steps) for p in problems for pair in plans if pair[1] == p.name):
        runs = plans[part, problem]
        if not runs:
            continue
        missing = {
            key: measured[problem][_kind(run.recipe)] if problem in measured else _mean_seconds(run, records)
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


_Kind = tuple[str, ...]


def _kind(recipe: Recipe) -> _Kind:
    """What decides how long a step takes: the optimizer, whether weights are codes, and the scales or the sums."""
    if recipe.is_lns:
        return recipe.optimizer, "lns", recipe.granularity
    return recipe.optimizer, recipe.format, "kahan" if recipe.rounding == "kahan" else ""


class Sample(NamedTuple):
    """Recipes that are to be timed on a problem, one of each kind."""

    problem: ReadyProblem
    recipes: tuple[Recipe, ...]


def _measure(samples: Sequence[Sample], jobs: int) -> dict[str, dict[_Kind, float]]:
    """Seconds of a run of each kind on each problem."""
    seconds: dict[str, dict[_Kind, float]] = {}
    waiting = list(samples)
    with Workers[Sample, list[float]](jobs, time_problem) as workers:
        while waiting or workers.busy:
            while waiting and workers.has_room:
                workers.hand(waiting.pop(0))
            sample, result, failure = workers.next()
            if result is None:
                raise TaskError(f"{sample.problem.name} cannot be timed: {failure}")
            kinds = (_kind(recipe) for recipe in sample.recipes)
            seconds[sample.problem.name] = dict(zip(kinds, result, strict=True))
    return seconds


def time_problem(sample: Sample) -> list[float]:
    """Seconds of a run with each recipe: from 20 steps and a score."""
    task, steps = task_of(sample.problem), sample.problem.problem.steps
    timed = max(1, min(TIMED, steps - WARM_UP))
    of_score: float | None = None
    seconds = []
    for recipe in (replace(recipe, lr=_HARMLESS) for recipe in sample.recipes):
        model, optimizer = training.start(task, recipe, 0)
        history = training.train(task, model, optimizer, recipe, steps=WARM_UP + timed, seed=0)
        for _ in itertools.islice(history, WARM_UP):
            pass
        begin = time.perf_counter()
        for _ in history:
            pass
        trained = time.perf_counter() - begin
        if of_score is None:
            of_score = _time_score(task, model)
        seconds.append(trained / timed * steps + of_score)
    return seconds


def _time_score(task: Task, model: nn.Module) -> float:
    """Seconds of what a run is scored by; not of what is made for the first score and kept, such as a GAN's judge."""
    task.score(model)
    begin = time.perf_counter()
    for part in (task, task.validation):
        if part is not None:
            part.score(model)
    return time.perf_counter() - begin
