"""The problems of the study: a task, its data and its budget each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsnum.tasks import TaskError
from lnsnum.tasks.measure import MEASURES, Measure

if TYPE_CHECKING:
    from lnsnum.tasks.task import Task


@dataclass(frozen=True)
class Problem:
    """A task with the options and the number of steps that the study gives it."""

    name: str
    task: str
    steps: int
    data: str | None = None
    """The name under which the study is told where its data are; None for the embedded default."""
    options: Mapping[str, Any] = field(default_factory=dict)
    rival_momentum: float | None = None
    """The momentum of SGD and Adam, where it is not their default."""
    coarse: bool = False
    """Whether its runs are so long that only the default row, SGD and Adam are trained, on the grid alone."""

    def make(self, places: Mapping[str, Path]) -> Task:
        """The task with its data.

        Raises:
            TaskError: where the data are not there or not what they should be.
        """
        if self.data is not None and self.data not in places:
            raise TaskError(f"{self.name} needs data: say where they are, --data {self.data}=PATH")
        from lnsnum.tasks.registry import make_task

        return make_task(self.task, None if self.data is None else places[self.data], **self.options)


_CIFAR = {"bfloat16": True}

PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("digits", "classification", steps=460),
        Problem("cifar10-cnn", "classification", steps=782, data="cifar10", options={"network": "cnn", **_CIFAR}),
        Problem(
            "cifar10-resnet", "classification", steps=200, data="cifar10",
            options={"network": "resnet18-narrow", **_CIFAR}, coarse=True,
        ),
        Problem("gan", "generation", steps=800, rival_momentum=0.0),  # as the paper's authors have it there
        Problem("characters", "characters", steps=400),
        Problem("words", "words", steps=300),
        Problem("regression", "regression", steps=600),
        Problem("copying", "copying", steps=1200),
    )
}  # fmt: skip
"""By name, in the order of the tables; the budgets are those of two processor cores and an hour or two."""


def measure_of(problem: str) -> Measure:
    """What the problem of that name is scored by; a KeyError where there is none of that name."""
    return MEASURES[PROBLEMS[problem].task]
