"""The second edition: which rows are compared, what is changed one at a time, and who goes on to the longer runs.

    rows         ours at the one default rate; what we are compared with at its best of five or nine; all their seeds
    matters      the default with one choice changed, twice two: three seeds
    finalists    longer runs: lns8f5 at the default, Adam and the ways with weights of 8 bits at their best of five

Rates are chosen by validation scores. While a row's best with seed 0 is its first or last, one more is tried beyond it,
twice at most; then the best two get all seeds (one alone where runs are long), and the better mean counts, as one
seed may mislead. What is reported are the test scores, which choose nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lnsnum.study.plan import FEWER_SEEDS, GRID, HALF_DECADES, Run, Scores, best_runs, paper
from lnsnum.study.problems import Problem
from lnsnum.tasks.measure import Measure
from lnsnum.tasks.recipe import BFLOAT16, FLOAT, INT8, Recipe

PARTS = ("rows", "matters", "finalists")

NINE = tuple(sorted({*GRID, *HALF_DECADES}))
"""Half a decade apart, over four decades."""
ADAMS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Five for what steps as Adam does: around the best of Adam in the first edition."""
MADAMS = (0.01, 0.03, 0.05, 0.1, 0.3)
"""Five for the paper's rule, around its best."""
LNS_MADAMS = tuple(2.0**k * math.log(2.0) for k in range(-7, -2))
"""Five for LNS-Madam, w <- w 2^(-lr sign(w) g_hat): the published 2^-7, and larger ones, as the runs are short."""

_HALF_DECADES = (1e-5, 3e-5, *NINE, 3.0, 10.0)
_POWERS = tuple(2.0**k * math.log(2.0) for k in range(-9, 0))
FURTHER = 2
"""So many rates at most are tried beyond those of a row."""

Kind = Literal["ours", "float32", "few bytes"]


@dataclass(frozen=True)
class Row:
    """A way of training, and the learning rates of which it gets the best; none where it has its default alone."""

    kind: Kind
    recipe: Recipe
    rates: tuple[float, ...] = ()
    ladder: tuple[float, ...] = _HALF_DECADES
    """Those among which a further one is found."""


OURS = "lns8f5 Madam"
"""The row that others are compared with: the library's defaults."""

ROWS: Mapping[str, Row] = {
    OURS: Row("ours", Recipe()),
    "lns8f5 Madam, momentum": Row("ours", Recipe(momentum=0.9)),
    "lns8f4 Madam": Row("ours", Recipe("lns8f4")),
    "lns6f3 Madam, groups": Row("ours", Recipe("lns6f3", granularity="group")),
    "lns4f1 Madam, groups": Row("ours", Recipe("lns4f1", granularity="group")),
    "float32 Madam": Row("ours", Recipe(FLOAT)),
    "lns8f5 paper's Madam": Row("few bytes", paper(), MADAMS),
    "float32 paper's Madam": Row("few bytes", paper(FLOAT), MADAMS),
    "float32 SGD": Row("float32", Recipe(FLOAT, "sgd"), NINE),
    "float32 Adam": Row("float32", Recipe(FLOAT, "adam"), NINE),
    "float32 AdamW": Row("float32", Recipe(FLOAT, "adamw"), NINE),
    "int8 AdamW8bit": Row("few bytes", Recipe(INT8, "adamw8bit"), ADAMS),
    "bfloat16 AdamW, stochastic": Row("few bytes", Recipe(BFLOAT16, "adamw", rounding="stochastic_value"), ADAMS),
    "bfloat16 AdamW, Kahan": Row("few bytes", Recipe(BFLOAT16, "adamw", rounding="kahan"), ADAMS),
    "lns16f11 LNS-Madam": Row(
        "few bytes", paper("lns16f11", rounding="nearest", second_moment="float32"), LNS_MADAMS, _POWERS
    ),
}  # fmt: skip
"""By label, in the order of the tables. The row with momentum was added when the autoencoder had been seen. LNS-Madam
is its step: weights of 16 bits, 2^11 codes an octave, rounded to nearest, a second moment in float32; what its authors
compute in 8 bits is computed here as for all others."""

FINALISTS: Mapping[str, Row] = {
    OURS: ROWS[OURS],
    "float32 Adam": replace(ROWS["float32 Adam"], rates=ADAMS),
    **{name: ROWS[name] for name in ("lns8f5 paper's Madam", "int8 AdamW8bit")},
}
"""Rates are chosen anew, on the longer run's own validation part."""

CHANGES: Mapping[str, Recipe] = {
    "default": Recipe(),
    **{f"b {b:g}": Recipe(crossover=b) for b in (0.0, 0.5, 2.0)},
    "zeros drawn anew": Recipe(zeros="redraw"),
    "zero no rung": Recipe(zeros="none"),
    "cap 0.1": Recipe(cap=0.1),
    "cap 0.4": Recipe(cap=0.4),
    "no cap": Recipe(cap=1e9),
    "ceiling fixed": Recipe(ceiling="fixed"),
    **{name: Recipe(name) for name in ("lns8f4", "lns8f3", "lns6f3", "lns10f6")},
    "paper's rule": paper(),
    "paper's, stochastic_value": paper(rounding="stochastic_value"),
    "paper's, nearest": paper(rounding="nearest"),
    "beta 0.99": Recipe(beta=0.99),
    "beta 0.9999": Recipe(beta=0.9999),
    "momentum 0.9": Recipe(momentum=0.9),
    "moment in float32": Recipe(second_moment="float32"),
    "scales of channels": Recipe(granularity="channel"),
    "scales of groups": Recipe(granularity="group"),
    "p_scale 6": Recipe(p_scale=6.0),
    "warm-up": Recipe(schedule="warm-up"),
    **{f"lr {lr:g}": Recipe(lr=lr) for lr in (0.03, 0.1)},
    **{f"momentum 0.9, lr {lr:g}": Recipe(lr=lr, momentum=0.9) for lr in (0.03, 0.1)},
}  # fmt: skip
"""By label. The hypentropy rule has one rounding, so others are tried under the paper's. "zero no rung" has its zeros
drawn anew too: "zeros drawn anew" alone tells the two apart. Two changes at once have a comma between them."""


def rows_on(problem: Problem) -> Mapping[str, Row]:
    """The rows that are trained on a problem."""
    return FINALISTS if problem.is_final else ROWS


def on(recipe: Recipe, problem: Problem) -> Recipe:
    """A recipe as it is on a problem, where others than Madam may have another momentum."""
    return recipe if recipe.optimizer == "madam" else replace(recipe, momentum=problem.rival_momentum)


def planned(part: str, problem: Problem, measure: Measure, validation: Scores) -> list[Run]:
    """The runs of one part on one problem that are known already, by the validation scores; more may follow."""
    if part == "matters":
        recipes = [] if problem.is_final else [*CHANGES.values()]
        return [Run(problem.name, recipe, seed) for recipe in recipes for seed in range(FEWER_SEEDS)]
    if problem.is_final != (part == "finalists"):
        return []
    runs: list[Run] = [] if problem.is_final else curve(problem)
    for row in rows_on(problem).values():
        grid = grid_of(row, problem, measure, validation)
        runs += grid + [
            replace(run, seed=seed)
            for run in candidates(row, problem, grid, measure, validation)
            for seed in range(problem.seeds)
        ]
    return list({run.key: run for run in runs}.values())


def grid_of(row: Row, problem: Problem, measure: Measure, validation: Scores) -> list[Run]:
    """A row at each of its rates, or at its default alone, with seed 0; beyond them while the best is at an end."""
    rates = list(row.rates)
    for _ in range(FURTHER if rates else 0):
        found = best_of(runs_at(row, problem, rates), measure, validation)
        if not found:
            break
        best = found[0].recipe.rate
        if best == rates[-1]:
            rates += [lr for lr in row.ladder if lr > best][:1]
        elif best == rates[0]:
            rates[:0] = [lr for lr in row.ladder if lr < best][-1:]
        else:
            break
    return runs_at(row, problem, rates)


def runs_at(row: Row, problem: Problem, rates: Sequence[float]) -> list[Run]:
    """A row at these rates, or without any at its default, with seed 0."""
    recipe = on(row.recipe, problem)
    return [Run(problem.name, replace(recipe, lr=lr), 0) for lr in rates or (recipe.rate,)]


def candidates(row: Row, problem: Problem, grid: Sequence[Run], measure: Measure, validation: Scores) -> Sequence[Run]:
    """The runs of a grid that get all seeds, the best first; none while that is not known, or where all diverged."""
    if not row.rates:
        return grid
    return best_of(grid, measure, validation)[: 1 if problem.coarse or problem.is_final else 2]


def best_of(grid: Sequence[Run], measure: Measure, validation: Scores) -> list[Run]:
    """A grid that is done, the best first, without what diverged; of equals those in their middle come first."""
    ranked = best_runs(grid, measure, validation, len(grid))
    order = []
    for _, equals in itertools.groupby(ranked, key=lambda run: validation[run.key]):
        equal = list(equals)
        places = sorted(range(len(equal)), key=lambda place: abs(place - (len(equal) - 1) / 2))
        order += [equal[place] for place in places]
    return order


def curve(problem: Problem) -> list[Run]:
    """Our row at nine rates and its default, for the picture of learning rates: nothing is chosen by it."""
    return [Run(problem.name, replace(Recipe(), lr=lr), 0) for lr in sorted({*NINE, Recipe().rate})]
