"""What the learning rate does: the tables "grid" and "one-rate".

Does one rate serve a row everywhere?   On how many problems is its score there within the margin of the row's own best?
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from lnsnum.study.cells import DIVERGED, heading, outcome_cell, rate, sample_cell
from lnsnum.study.plan import ROWS, SEEDS, row_rates
from lnsnum.study.results import No, Outcome, Results, label
from lnsnum.study.text_table import BLANK, MISSING, Cell, TextTable, word
from lnsnum.tasks.measure import Measure
from lnsnum.tasks.recipe import Recipe

WIDER = 5.0
"""So many margins are the wider margin."""


def all_rates() -> list[float]:
    """The learning rates that any row is tried at, rising."""
    return sorted({lr for row in ROWS for lr in row_rates(row)})


def grid(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """Two tables a problem: the scores at all learning rates, and what five seeds give at the best and the default."""
    return [table for problem in problems for table in _grid(results, problem)]


def _grid(results: Results, problem: str) -> list[TextTable]:
    measure, columns, grids, look = results.measures[problem], all_rates(), results.look(), results.look()
    scores, means = [], []
    for row in grids.rows(problem):
        tuned = look.tuned(problem, row)
        best = None if tuned.best is None else tuned.best.recipe.rate
        cells = {lr: _score(measure, it, lr == best) for lr, it in grids.grid(problem, row).items()}
        scores.append([word(label(row)), *(cells.get(lr, BLANK) for lr in columns)])
        at_best = DIVERGED if tuned.best is None and tuned.done else sample_cell(measure, tuned.sample)
        at_default = sample_cell(measure, look.sample(problem, row, SEEDS))
        chosen = MISSING if best is None else Cell(rate(best), best)
        means.append([word(label(row)), chosen, at_best, Cell(rate(row.rate), row.rate), at_default])
    direction = "higher is better" if measure.higher_is_better else "lower is better"
    title = f"{problem}: {heading(measure)} ({direction}), by learning rate, seed 0; * the rate that is chosen"
    five = f"{problem}: {heading(measure)}, mean of {SEEDS} seeds ± half of its 95 % interval"
    names = ["", "best lr", "at the best", "default lr", "at the default"]
    return [
        TextTable("grid", title, ["", *map(rate, columns)], scores, grids.notes(), problem, grids.missing),
        TextTable("grid", five, names, means, look.notes(), problem, look.missing),
    ]


def _score(measure: Measure, outcome: Outcome, is_best: bool) -> Cell:
    """With room for the star, so that numbers stand below one another."""
    cell = outcome_cell(measure, outcome)
    return Cell(cell.text + ("*" if is_best else " "), cell.value)


# ------------------------------------------------------------------------------------------------- one rate everywhere


class Served(NamedTuple):
    """What one learning rate does for a row over all problems whose grid is done."""

    lr: float
    within: int
    """Problems on which it comes within the margin of the row's best."""
    within_wider: int
    worst: float
    """The greatest loss against the row's best, in margins; infinite where it diverged."""
    where: str
    """The problem of that."""


def served(lr: float, grids: Sequence[tuple[str, Measure, dict[float, Outcome]]]) -> Served:
    """Count one learning rate; of each problem the name, the measure, and the row's scores by learning rate."""
    within = within_wider = 0
    worst, where = -1.0, ""
    for problem, measure, scores in grids:
        if lr not in scores:
            continue
        score, best = scores[lr], best_of(measure, scores.values())
        loss = math.inf
        if best is not None and not isinstance(score, No):
            within += measure.level(score, best)
            within_wider += replace(measure, margin=WIDER * measure.margin).level(score, best)
            loss = in_margins(measure, score, best)
        if loss > worst:
            worst, where = loss, problem
    return Served(lr, within, within_wider, worst, where)


def best_of(measure: Measure, outcomes: Iterable[Outcome]) -> float | None:
    """The best score; None where there is none."""
    scores = [outcome for outcome in outcomes if not isinstance(outcome, No)]
    return (max if measure.higher_is_better else min)(scores, default=None)


def in_margins(measure: Measure, score: float, best: float) -> float:
    """By how many margins a score is worse than the best."""
    worse = abs(best - score)
    margin = measure.margin_at(best)
    return worse / margin if margin else (math.inf if worse else 0.0)


def best_single(candidates: Iterable[Served]) -> Served:
    """The rate that serves most problems; then most within the wider margin, then the least loss, then the lowest."""
    return min(candidates, key=lambda one: (-one.within, -one.within_wider, one.worst, one.lr))


def one_rate(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """Two tables, for the margin and for the wider one: a line a row, a column a learning rate, counts of problems."""
    look = results.look()
    counts: list[tuple[Recipe, int, dict[float, Served], Served | None]] = []
    for row in ROWS:
        on = [problem for problem in problems if look.row(problem, row)]
        grids = [(problem, results.measures[problem], look.grid(problem, row)) for problem in on]
        done = [one for one in grids if No.MISSING not in one[2].values()]
        tried = {lr for _, _, scores in done for lr in scores}
        each = {lr: served(lr, done) for lr in sorted(tried)}
        counts.append((row, len(done), each, best_single(each.values()) if each else None))
    notes = [
        "A problem counts for a row when seed 0 is done at all its learning rates.",
        "* the rate within the margin on most problems, in both tables; worst: what it loses at most, in margins.",
        *look.notes(),
    ]
    columns = ["", "of", *map(rate, all_rates()), "default", "worst"]
    tables = []
    for name, wider in (("the margin", False), (f"{WIDER:g} margins", True)):
        title = f"On how many problems a learning rate comes within {name} of the row's own best"
        rows = [_one_rate_row(*count, wider=wider) for count in counts]
        tables.append(TextTable("one-rate", title, columns, rows, notes if wider else (), missing=look.missing))
    return tables


def _one_rate_row(
    row: Recipe, done: int, each: dict[float, Served], single: Served | None, *, wider: bool
) -> list[Cell]:
    cells = []
    for lr in all_rates():
        if lr not in each:
            cells.append(Cell("- ", None) if lr in row_rates(row) else BLANK)
            continue
        count = each[lr].within_wider if wider else each[lr].within
        cells.append(Cell(f"{count}{'*' if single is not None and lr == single.lr else ' '}", count))
    worst = MISSING
    if single is not None:
        loss = "diverged" if math.isinf(single.worst) else f"{single.worst:.3g}"
        value = {"lr": single.lr, "margins": loss if loss == "diverged" else single.worst, "problem": single.where}
        worst = Cell(f"{loss} ({single.where})" if single.worst else "0", value)
    return [word(label(row)), Cell(str(done), done), *cells, Cell(rate(row.rate), row.rate), worst]
