"""Which runs each part of the study is made of; some follow from the results of others.

    without-tuning     every row at every learning rate of the grid, one seed; then five seeds at its best and default
    bits               the paper's rule in formats of 4 to 16 bits, two roundings, its ladders, float32: three seeds
    ablations          the paper's rule with one choice changed: three seeds

Of SGD and Adam the best two learning rates get five seeds: one seed may mislead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lnsnum.format import LNSFormat
from lnsnum.study.problems import Problem
from lnsnum.tasks.measure import Measure
from lnsnum.tasks.recipe import DEFAULT_LR, FLOAT, Recipe, Schedule

PARTS = ("without-tuning", "bits", "ablations")

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""The learning rates of the paper's Figure 1: five over four decades."""
HALF_DECADES = (3e-4, 3e-3, 3e-2, 3e-1)
"""Between them."""
SEEDS = 5
FEWER_SEEDS = 3


def paper(format: str = "lns8f5", **changes: Any) -> Recipe:
    """The paper's rule, which draws zeros anew, as the first edition of the study trained it."""
    return Recipe(format, **{"rule": "paper", "ceiling": "fixed", "zeros": "redraw", **changes})


ROWS = (
    Recipe("lns8f5"),
    paper("lns8f5"),
    paper("lns8f4"),
    paper("lns8f3"),
    paper(FLOAT),
    Recipe(FLOAT, "sgd"),
    Recipe(FLOAT, "adam"),
)
"""The rows of the paper's Figure 1, and ours."""
COARSE_ROWS = tuple((row.format, row.optimizer) for row in (ROWS[0], *ROWS[-2:]))
"""Formats and optimizers that long problems are left with: the default, the paper's rule, SGD and Adam."""

LADDERS = {256: 0.01, 1024: 10**-2.5, 4096: 0.001}
"""The paper's ladders w = max * exp(-base_lr * k): levels and base_lr; the middle one is the geometric mean."""
PAPER_LR = 0.01


LADDER_RUNS: tuple[tuple[float, Schedule], ...] = (
    (PAPER_LR, "constant"),
    (PAPER_LR, "linear"),
    (DEFAULT_LR, "linear"),
)
"""Learning rates and schedules of the ladder that is compared with lns8f5. The paper's rate is 0.01, and its authors
never let it fall below base_lr, which of the ladder of 256 levels is 0.01 too: it stays."""


def ladder(levels: int, lr: float, schedule: Schedule = "linear") -> Recipe:
    """B-bit Madam of the paper: so many levels beside the sign, steps to nearest, a float32 second moment."""
    fmt = LNSFormat.madam(levels.bit_length(), LADDERS[levels])
    return paper(fmt.name, lr=lr, schedule=schedule, rounding="nearest", second_moment="float32")


WIDTHS = ("lns4f1", "lns5f2", "lns6f3", "lns8f5", "lns10f6", "lns12f8", "lns16f11")
"""Formats of 4 to 16 bits."""


@dataclass(frozen=True)
class Run:
    """One network trained once."""

    problem: str
    recipe: Recipe
    seed: int

    @property
    def key(self) -> str:
        """The same text for the same run: problem, recipe with its defaults filled in, seed."""
        recipe = self.recipe.filled().as_dict()
        return json.dumps([self.problem, recipe, self.seed], sort_keys=True)


Scores = Mapping[str, float | None]
"""The score of each finished run, by its key; None where it diverged."""


def planned(part: str, problem: Problem, measure: Measure, scores: Scores) -> list[Run]:
    """The runs of one part on one problem that are known already; more may follow when these are done."""
    if part == "without-tuning":
        return _without_tuning(problem, measure, scores)
    recipes = {"bits": bits_recipes, "ablations": ablation_recipes}[part]()
    return [Run(problem.name, recipe, seed) for recipe in recipes.values() for seed in range(FEWER_SEEDS)]


def _without_tuning(problem: Problem, measure: Measure, scores: Scores) -> list[Run]:
    runs = []
    for row in rows_of(problem):
        grid = [Run(problem.name, replace(row, lr=lr), 0) for lr in row_rates(row, problem)]
        runs += grid
        chosen = [Run(problem.name, row, 0), *best_runs(grid, measure, scores, candidates(row, problem))]
        runs += [replace(run, seed=seed) for run in chosen for seed in range(SEEDS)]
    ladders = [ladder(256, lr, schedule) for lr, schedule in ladder_runs(problem)]
    runs += [Run(problem.name, recipe, seed) for recipe in ladders for seed in range(SEEDS)]
    return list({run.key: run for run in runs}.values())


def rows_of(problem: Problem) -> list[Recipe]:
    """The rows that are trained on a problem."""
    return [row for row in (row_of(row, problem) for row in ROWS) if row is not None]


def row_of(row: Recipe, problem: Problem) -> Recipe | None:
    """A row as it is on a problem, where SGD and Adam may have another momentum; None where it is not trained."""
    if problem.coarse and (row.format, row.optimizer) not in COARSE_ROWS:
        return None
    return row if row.optimizer == "madam" else replace(row, momentum=problem.rival_momentum)


def row_rates(row: Recipe, problem: Problem | None = None) -> list[float]:
    """The learning rates that a row is tried at, on any problem or on one."""
    return sorted({*GRID, row.rate, *(() if problem and problem.coarse else HALF_DECADES)})


def ladder_runs(problem: Problem) -> list[tuple[float, Schedule]]:
    """The learning rates and schedules at which the paper's ladder of 256 levels is trained on a problem."""
    return list(LADDER_RUNS[:1] if problem.coarse else LADDER_RUNS)


def candidates(row: Recipe, problem: Problem) -> int:
    """How many of a row's learning rates get five seeds."""
    return 1 if row.optimizer == "madam" or problem.coarse else 2


def best_runs(grid: Iterable[Run], measure: Measure, scores: Scores, count: int = 1) -> list[Run]:
    """The best of a grid that is done, the best first; none while it is not, or where all diverged."""
    grid = list(grid)
    if not all(run.key in scores for run in grid):
        return []
    finished = [(score, run) for run in grid if (score := scores[run.key]) is not None]
    return [run for _, run in sorted(finished, key=lambda pair: -measure.sign * pair[0])[:count]]


def bits_recipes() -> dict[str, Recipe]:
    """The recipes of the part "bits", by label; all of the paper's rule."""
    recipes: dict[str, Recipe] = {}
    for name in WIDTHS:
        recipes[f"{name} stochastic"] = paper(name)
        recipes[f"{name} nearest"] = paper(name, rounding="nearest")
    for levels, base_lr in LADDERS.items():
        for lr in (PAPER_LR, DEFAULT_LR):
            recipes[f"ladder {levels} x {base_lr:.2g}, lr {lr:g}"] = ladder(levels, lr)
    return recipes | {"float32 paper's Madam": paper(FLOAT)}


def ablation_recipes() -> dict[str, Recipe]:
    """The recipes of the part "ablations", by label: the paper's rule, and one choice changed in each other."""
    changes: dict[str, dict[str, Any]] = {
        "paper's rule": {},
        "second moment in float32": {"second_moment": "float32"},
        "rounding stochastic_value": {"rounding": "stochastic_value"},
        "rounding nearest": {"rounding": "nearest"},
        "zeros leave": {"zeros": "leave"},
        "zeros kept": {"zeros": "keep"},
        "p_scale 1.5": {"p_scale": 1.5},
        "p_scale 6": {"p_scale": 6.0},
        "schedule cosine": {"schedule": "cosine"},
        "schedule constant": {"schedule": "constant"},
        "momentum 0.9": {"momentum": 0.9},
        "matrices only": {"parameters": "matrices"},
    }
    return {label: paper(**change) for label, change in changes.items()}
