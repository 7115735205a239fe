"""What the runs took: the tables "memory" (bytes a weight) and "budget" (steps, time, data, versions)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from lnsnum.study.plan import paper
from lnsnum.study.results import Results, label
from lnsnum.study.text_table import MISSING, Cell, TextTable, word
from lnsnum.tasks.recipe import FLOAT, Recipe

HELD = (Recipe(), Recipe(FLOAT, "adam"), Recipe(FLOAT, "sgd"), paper(FLOAT))
"""Whose memory is told, with the momentum that they have on a problem; the learning rate does not matter."""


def memory(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """A line a problem: bytes of weights and of the optimizer's state, per weight, as measured in the runs."""
    rows = [[word(problem), *(_held(results, problem, recipe) for recipe in HELD)] for problem in problems]
    title = "Bytes a weight + bytes of the optimizer's state a weight, held after the last step"
    return [TextTable("memory", title, ["", *map(label, HELD)], rows)]


def _held(results: Results, problem: str, recipe: Recipe) -> Cell:
    row = results.look().row(problem, recipe) or recipe
    for record in results.of(problem):
        if record.score is not None and replace(row, lr=record.recipe.lr).filled() == record.recipe:
            text = f"{record.weight_bytes:.2f} + {record.state_bytes:.2f}"
            return Cell(text, {"weights": record.weight_bytes, "state": record.state_bytes})
    return MISSING


def budget(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """A line a problem: what each run was given, and how many runs there are."""
    rows = []
    for problem in problems:
        records = results.of(problem)
        seconds = fmean(record.seconds for record in records)
        failed = sum(record.score is None for record in records)
        cells = [
            _values((record.steps for record in records), ",d"),
            _values((record.weights for record in records), ",d"),
            Cell(f"{len(records):,}", len(records)),
            Cell(f"{failed:,}", failed),
            Cell(f"{seconds:.1f}", seconds),
            _values((record.data for record in records), "s"),
            _values((record.lnsnum for record in records), "s"),
            _values((record.torch for record in records), "s"),
        ]
        rows.append([word(problem), *cells])
    columns = ["", "steps", "parameters", "runs", "diverged", "s a run", "data", "lnsnum", "torch"]
    return [TextTable("budget", "What a run was given; data: the first digits of SHA-256", columns, rows)]


def _values(values: Iterable[int] | Iterable[str], spec: str) -> Cell:
    """The value that all runs have in common; all that there are, where they have not."""
    distinct = list(dict.fromkeys(values))
    text = " and ".join(format(value, spec) for value in distinct)
    return Cell(text, distinct[0] if len(distinct) == 1 else distinct)
