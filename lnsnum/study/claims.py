"""The two claims, a line a problem: no tuning, and no worse than the paper's ladder.

    "claim"     lns8f5 Madam as it is  against  the better of SGD and Adam, each at its best learning rate
    "ladder"    lns8f5 Madam as it is  against  the paper's 8-bit ladder with steps to nearest

Where a seed diverged there is no mean: such a rival is none, and the default has missed.
"""

from __future__ import annotations

from collections.abc import Sequence

from lnsnum.study.cells import DIVERGED, better_by, difference_cell, heading, plain, rate, sample_cell
from lnsnum.study.plan import LADDER_RUNS, SEEDS, ladder
from lnsnum.study.results import Look, Results, Sample, Tuned, label
from lnsnum.study.statistics import mean
from lnsnum.study.text_table import MISSING, Cell, TextTable, word
from lnsnum.tasks.measure import Measure
from lnsnum.tasks.recipe import FLOAT, Recipe

DEFAULT = Recipe()
RIVALS = (Recipe(FLOAT, "sgd"), Recipe(FLOAT, "adam"))
LEVELS = 256

_INTERVALS = f"Means of {SEEDS} seeds ± half of their 95 % interval; the difference, positive where lns8f5 is better, "
_INTERVALS += "with Welch's."
_VERDICTS = (
    "above: all of the interval is positive; level: the difference is within the margin; missed: it is not.",
    "?: the interval holds differences of the other verdict too.",
)
_STAR = "* zero is not in the interval."


def claim(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """How the default does against what people get by tuning."""
    look = results.look()
    rows = [[word(problem), *_claim(look, results.measures[problem], problem)] for problem in problems]
    title = f"{label(DEFAULT)} at its default lr {rate(DEFAULT.rate)} against the better of SGD and Adam at its best lr"
    columns = ["", "measure", "rival", "its mean", "lns8f5 Madam", "difference", "margin", "verdict"]
    notes = [_INTERVALS, _STAR, *_VERDICTS, *look.notes()]
    return [TextTable("claim", title, columns, rows, notes, None, look.missing)]


def _claim(look: Look, measure: Measure, problem: str) -> list[Cell]:
    ours = look.sample(problem, DEFAULT, SEEDS)
    tuned = [look.tuned(problem, rival) for rival in RIVALS]
    start, own = word(heading(measure)), sample_cell(measure, ours)
    if not all(rival.done for rival in tuned):
        return [start, MISSING, MISSING, own, MISSING, MISSING, MISSING]
    rival = _better(measure, tuned)
    if rival is None:
        return [start, DIVERGED, DIVERGED, own, MISSING, MISSING, word("no rival")]
    recipe, theirs = rival
    name = f"{label(recipe).removeprefix(f'{FLOAT} ')} {rate(recipe.rate)}"
    margin = measure.margin_at(mean(theirs.scores))
    return [
        start,
        Cell(name, {"optimizer": recipe.optimizer, "lr": recipe.rate}),
        sample_cell(measure, theirs),
        own,
        difference_cell(measure, ours, theirs),
        Cell(plain(measure, margin), margin),
        _verdict(measure, ours, theirs),
    ]


def _better(measure: Measure, tuned: Sequence[Tuned]) -> tuple[Recipe, Sample] | None:
    """The one with the better mean of those that no seed let down."""
    sound = [(it.best.recipe, it.sample) for it in tuned if it.best and it.sample and it.sample.complete]
    return max(sound, key=lambda pair: measure.sign * mean(pair[1].scores), default=None)


def _verdict(measure: Measure, ours: Sample, theirs: Sample) -> Cell:
    if ours.missing:
        return MISSING
    if ours.diverged:
        return word("missed")
    better, best = better_by(measure, ours, theirs), mean(theirs.scores)
    low, high = (better.mean if end is None else end for end in (better.low, better.high))
    if low > 0.0:
        return word("above")
    margin = measure.margin_at(best)
    if measure.level(mean(ours.scores), best):
        return word("level" if low >= -margin * (1 + 1e-9) else "level?")
    return word("missed" if high < -margin else "missed?")


def ladders(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """How the default does against the paper's number system: a table for each of `LADDER_RUNS`."""
    tables = []
    for lr, schedule in LADDER_RUNS:
        look, rival = results.look(), ladder(LEVELS, lr, schedule)
        rows = []
        for problem in problems:
            if not look.has_ladder(problem, lr, schedule):
                continue
            measure = results.measures[problem]
            ours, theirs = look.sample(problem, DEFAULT, SEEDS), look.sample(problem, rival, SEEDS)
            cells = [sample_cell(measure, ours), sample_cell(measure, theirs), difference_cell(measure, ours, theirs)]
            rows.append([word(problem), word(heading(measure)), *cells, _side(measure, ours, theirs)])
        title = f"{label(DEFAULT)} at its default lr {rate(DEFAULT.rate)} against the paper's ladder of {LEVELS} "
        title += f"levels, steps to nearest, lr {rate(lr)} {schedule}"
        columns = ["", "measure", "lns8f5 Madam", "ladder", "difference", "verdict"]
        notes = [_INTERVALS, _STAR, "level: zero is in the interval, whatever the margin.", *look.notes()]
        tables.append(TextTable("ladder", title, columns, rows, notes, None, look.missing))
    return tables


def _side(measure: Measure, ours: Sample, theirs: Sample) -> Cell:
    """Whether we are above the ladder: one that diverged is below one that did not."""
    if ours.missing or theirs.missing or (ours.diverged and theirs.diverged):
        return MISSING
    if ours.diverged or theirs.diverged:
        return word("below" if ours.diverged else "above")
    better = better_by(measure, ours, theirs)
    if better.low is not None and better.low > 0.0:
        return word("above")
    return word("below" if better.high is not None and better.high < 0.0 else "level")
