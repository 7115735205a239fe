"""One run: a network trained once, and what is to be known of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from lnsnum import __version__
from lnsnum.study.journal import DATA_DIGITS, Record
from lnsnum.study.plan import Run
from lnsnum.study.problems import Problem
from lnsnum.tasks import training
from lnsnum.tasks.footprint import gradients_held, held
from lnsnum.tasks.measure import Measure
from lnsnum.tasks.task import Task

LAST_STEPS = 20
"""Steps over which a run's training loss is averaged."""


@dataclass(frozen=True)
class ReadyProblem:
    """A problem whose data have been found."""

    problem: Problem
    places: Mapping[str, Path]
    """Where the data are, by the names that problems give them."""
    measure: Measure
    data: str
    """The first digits of the task's fingerprint."""

    @property
    def name(self) -> str:
        """The problem's."""
        return self.problem.name

    def make(self) -> Task:
        """The task again, such as in another process."""
        return self.problem.make(self.places)


def find_data(problem: Problem, places: Mapping[str, Path]) -> ReadyProblem:
    """Make the problem's task once, to see that it can be made.

    Raises:
        TaskError: where its data are not there or not what they should be.
    """
    task = problem.make(places)
    return ReadyProblem(problem, dict(places), task.measure, task.fingerprint[:DATA_DIGITS])


def one_run(task: Task, problem: Problem, run: Run) -> Record:
    """Train and score a network; a run that diverges, or whose score is NaN or infinite, is a record too.

    Raises:
        TaskError: where the network's weights cannot be had in the recipe's format.
    """
    begin = time.perf_counter()
    model, optimizer = training.start(task, run.recipe, run.seed)
    score = validation = failure = loss = None
    try:
        history = training.History()
        for grown in training.train(task, model, optimizer, run.recipe, steps=problem.steps, seed=run.seed):
            history = grown
        loss = fmean(history.loss[-LAST_STEPS:])
        training.check_outputs(task, model)
        score = float(task.score(model))
        if task.validation is not None:
            validation = float(task.validation.score(model))
    except training.DivergedError as error:
        failure = str(error)
    for part in (score, validation):
        if part is not None and not math.isfinite(part):
            failure, score, validation = f"the {task.measure.name} is {part} after {problem.steps} steps", None, None
    count = training.weight_count(model)
    weight_bytes, state_bytes = held(model, optimizer)
    return Record(
        problem=problem.name,
        steps=problem.steps,
        data=task.fingerprint[:DATA_DIGITS],
        recipe=run.recipe.filled(),
        seed=run.seed,
        score=score,
        failure=failure,
        loss=loss,
        seconds=round(time.perf_counter() - begin, 3),
        weights=count,
        weight_bytes=weight_bytes / count,
        state_bytes=state_bytes / count,
        lnsnum=__version__,
        torch=torch.__version__,
        edition=problem.edition,
        validation=validation,
        gradient_bytes=gradients_held(model) / count if problem.edition > 1 else None,
    )


def describe(run: Run) -> str:
    """A run in a few words: "digits, lns8f5 madam, lr=0.05, rounding=nearest, seed 0"."""
    choices = {"lr": run.recipe.rate} | run.recipe.changes()
    words = [f"{name}={value}" for name, value in choices.items() if name not in ("format", "optimizer")]
    return ", ".join([run.problem, run.recipe.label, *words, f"seed {run.seed}"])
