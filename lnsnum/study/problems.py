"""The problems of the study: a task, its data and its budget each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
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
    """Whether its runs are so long that only the default row, SGD and Adam are trained, on the grid alone; in the
    second edition all rows are, but one rate of each has all seeds."""
    edition: int = 1
    """Of the study. From the second on a part of the training data is held out, by which learning rates are chosen."""
    seeds: int = 5
    """Of a row in the second edition: ten where a run takes less than ten seconds, and where seeds differ much."""
    is_final: bool = False
    """Whether it is a longer run of the second edition's finalists alone."""
    is_new: bool = False
    """Whether nothing was chosen on it, neither the rule nor its one rate."""

    def make(self, places: Mapping[str, Path]) -> Task:
        """The task with its data.

        Raises:
            TaskError: where the data are not there or not what they should be.
        """
        if self.data is not None and self.data not in places:
            raise TaskError(f"{self.name} needs data: say where they are, --data {self.data}=PATH")
        from lnsnum.tasks.registry import make_task

        task = make_task(self.task, None if self.data is None else places[self.data], **self.options)
        if self.edition > 1:
            task.hold_out()
        return task


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


_new = partial(Problem, edition=2, is_new=True)

SECOND = {
    problem.name: problem
    for problem in (
        replace(PROBLEMS["digits"], edition=2, seeds=10),
        replace(PROBLEMS["cifar10-cnn"], edition=2),
        replace(PROBLEMS["cifar10-resnet"], edition=2),
        replace(PROBLEMS["gan"], edition=2, seeds=10),
        replace(PROBLEMS["characters"], edition=2),
        replace(PROBLEMS["words"], edition=2, seeds=10),
        replace(PROBLEMS["regression"], edition=2, seeds=10),
        replace(PROBLEMS["copying"], edition=2, seeds=10),
        _new("characters-gru", "characters", steps=400, options={"network": "gru"}),
        _new(
            "cifar10-vit", "classification", steps=400, data="cifar10", options={"network": "vit", **_CIFAR},
            coarse=True,
        ),
        _new("words-experts", "words", steps=300, options={"network": "experts"}),
        _new("autoencoder", "reconstruction", steps=600, seeds=10),
        _new("fine-tuning", "classification", steps=190, options={"mirrored": True}, seeds=10),
        replace(PROBLEMS["cifar10-cnn"], name="cifar10-cnn-long", steps=3255, edition=2, is_final=True),  # 5 epochs
        Problem(
            "characters-long", "characters", steps=2000, data="shakespeare", edition=2, is_final=True
        ),
    )
}  # fmt: skip
"""Those of the second edition: the eight, five that nothing was chosen on, and two longer runs. Networks learn from
five sixths of the data of the first edition."""


def problems_of(edition: int) -> dict[str, Problem]:
    """Those of an edition of the study, by name, in the order of the tables."""
    return PROBLEMS if edition == 1 else SECOND


def measure_of(problem: str) -> Measure:
    """What the problem of that name is scored by, in any edition; a KeyError where there is none of that name."""
    return MEASURES[(SECOND | PROBLEMS)[problem].task]
