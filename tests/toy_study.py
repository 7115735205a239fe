"""A problem that trains in milliseconds, and a plan of few runs: what the study's workers can import in a test.

`python toy_study.py JOURNAL` runs that plan, slowly: it is there to be killed.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.study import journal, plan, runner
from lnsnum.study.execution import find_data
from lnsnum.study.problems import Problem
from lnsnum.tasks import TaskError
from lnsnum.tasks.measure import LOSS
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.task import Batch, Task


class ToyTask(Task):
    """A linear map of 4 numbers to 2; its loss is steep, so that SGD diverges at learning rates of 0.1 and more."""

    name, measure, source, fingerprint = "toy", LOSS, "random numbers", "0123456789abcdef" * 4
    steps, epoch_steps = 30, 30
    device = torch.device("cpu")

    def __init__(self, troubles, pause):
        self.troubles, self.pause, self.options = troubles, pause, {}

    def network(self):
        return nn.Linear(4, 2)

    def batches(self, generator):
        while True:
            inputs = torch.randn(8, 4, generator=generator)
            yield Batch(inputs, inputs[:, :2] - inputs[:, 2:])

    def loss(self, model, batch):
        time.sleep(self.pause)
        return 100 * F.mse_loss(model(batch.inputs), batch.targets)

    @torch.no_grad()
    def score(self, model):
        trouble = self.troubles.get(torch.initial_seed())  # the seed of the run
        if trouble == "raise":
            raise ZeroDivisionError("by\nzero")
        if trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "nan":
            return float("nan")
        model.eval()
        return float(self.loss(model, next(self.batches(torch.Generator().manual_seed(99)))))

    def outputs(self, model):
        return model.weight


@dataclass(frozen=True)
class ToyProblem(Problem):
    """What goes wrong, by the seed of the run, and seconds that each step waits."""

    name: str = "toy"
    task: str = "toy"
    steps: int = 30
    troubles: dict = field(default_factory=dict)
    pause: float = 0.0

    def make(self, places):
        if self.data is not None and self.data not in places:
            raise TaskError(f"{self.name} needs data")
        return ToyTask(self.troubles, self.pause)


RATES = {"madam": (0.01, 0.1), "sgd": (1e-4, 1.0), "adam": (0.1,)}


def small_plan(part, problem, measure, scores):
    """A grid of learning rates and formats, and then more seeds of the best of "grid"; "default" shares a run."""
    default = [plan.Run(problem.name, Recipe(), seed) for seed in range(2)]
    if part == "default":
        return default
    if part == "troubled":
        return [replace(default[0], seed=seed) for seed in range(3)]
    grid = [
        plan.Run(problem.name, Recipe("float32" if name != "madam" else "lns8f5", name, lr=lr), 0)
        for name, rates in RATES.items()
        for lr in rates
    ]
    best = next(iter(plan.best_runs(grid, measure, scores)), None)
    return [*grid, default[0], *([replace(best, seed=seed) for seed in range(3)] if best else [])]


def run_small_plan(path, problem, parts=("grid", "default"), jobs=2, on_progress=lambda _: None):
    """The study of one toy problem, by `small_plan`: `runner.planned` is to be replaced by it."""
    with journal.Journal(Path(path)) as file:
        runner.run_study([find_data(problem, {})], parts, file, jobs=jobs, on_progress=on_progress)
        return file.records


if __name__ == "__main__":
    runner.planned = small_plan
    run_small_plan(sys.argv[1], ToyProblem(pause=0.01))
