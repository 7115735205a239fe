"""What one choice changes in the paper's rule: the tables "bits" (formats, roundings) and "ablations" (one choice)."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from lnsnum.format import LNSFormat
from lnsnum.study.cells import difference_cell, heading, sample_cell
from lnsnum.study.plan import FEWER_SEEDS, ablation_recipes, bits_recipes
from lnsnum.study.results import Results
from lnsnum.study.text_table import Cell, TextTable, word
from lnsnum.tasks.recipe import FLOAT, Recipe

BASELINE = "float32 paper's Madam"
"""What formats are compared with, among the recipes of "bits"."""

_FLOAT_BITS = 32
_WIDTH = 110
_STAR = "* zero is not in Welch's 95 % interval."


def bits_of(recipe: Recipe) -> int:
    """Bits a weight."""
    return _FLOAT_BITS if recipe.format == FLOAT else LNSFormat.parse(recipe.format).bits


def bits(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """A table a problem: a line a format."""
    tables = []
    for problem in problems:
        look, measure = results.look(), results.measures[problem]
        samples = {name: look.sample(problem, recipe, FEWER_SEEDS) for name, recipe in bits_recipes().items()}
        rows = []
        for name, recipe in bits_recipes().items():
            width = bits_of(recipe)
            cells = [Cell(str(width), width), sample_cell(measure, samples[name], "deviation")]
            against = word("") if name == BASELINE else difference_cell(measure, samples[name], samples[BASELINE])
            rows.append([word(name), *cells, against])
        title = f"{problem}, the paper's rule: {heading(measure)}, mean of {FEWER_SEEDS} seeds ± standard deviation"
        columns = ["", "bits", "mean", f"better than {BASELINE} by"]
        tables.append(TextTable("bits", title, columns, rows, [_STAR, *look.notes()], problem, look.missing))
    return tables


def ablations(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """One table: a line a change, a column a problem."""
    look = results.look()
    rows = []
    default, *changed = ablation_recipes().items()
    standards = {problem: look.sample(problem, default[1], FEWER_SEEDS) for problem in problems}
    means = [sample_cell(results.measures[problem], standards[problem], "none") for problem in problems]
    rows.append([word(default[0]), *means])
    for name, recipe in changed:
        samples = {problem: look.sample(problem, recipe, FEWER_SEEDS) for problem in problems}
        cells = [
            difference_cell(results.measures[problem], samples[problem], standards[problem], interval=False)
            for problem in problems
        ]
        rows.append([word(name), *cells])
    title = f"What one change makes better than the paper's rule (worse, where negative): means of {FEWER_SEEDS} seeds"
    units = "; ".join(f"{problem}: {heading(results.measures[problem])}" for problem in problems)
    notes = [
        "paper's rule: its mean, in units of the measure.",
        _STAR,
        *wrap(f"Measures: {units}.", _WIDTH),
        *look.notes(),
    ]
    return [TextTable("ablations", title, ["", *problems], rows, notes, None, look.missing)]
