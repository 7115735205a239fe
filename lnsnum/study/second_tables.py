"""The tables of the second edition, each made of the journal alone.

verdicts     lns8f5 Madam at its one rate  against  the best float32 row, a line a problem: those on which nothing was
             chosen, and those on which the rule was
rows         every row with its bytes, and what the intervals say of lns8f5 Madam against it: a table a problem
counts       the same verdicts counted over the problems, a line a row
one-rate     every row at one rate for all problems, the one that loses least where it loses most
rates        our row at other rates than the default
matters      what one change makes of the default
finalists    the rows of the longer runs
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from textwrap import wrap

from lnsnum.study.cells import (
    DIVERGED,
    better_by,
    difference_cell,
    heading,
    outcome_cell,
    plain,
    rate,
    sample_cell,
)
from lnsnum.study.plan import FEWER_SEEDS, Run
from lnsnum.study.results import No, Results, problem_of
from lnsnum.study.second_plan import CHANGES, OURS, ROWS, Row, curve, runs_at
from lnsnum.study.standings import Standing, best_float, ours_of, standings
from lnsnum.study.statistics import mean, verdict
from lnsnum.study.text_table import MISSING, Cell, TextTable, word
from lnsnum.tasks.measure import Measure

_INTERVALS = "Means of the seeds ± half of their 95 % interval; the difference, positive where lns8f5 Madam is better, "
_INTERVALS += "with Welch's."
_VERDICTS = (
    "above: all of the interval is positive; level: all of it is above minus the margin;",
    "missed: all of it is below that; open: none of these.",
)
_CHOSEN = (
    "Rates of rivals: the best two by the validation score of seed 0 get all seeds (where runs are long, one), and the",
    "better mean of validation scores counts; no test score chooses one. end: the first or the last that was tried.",
)
_STAR = "* zero is not in the interval."
_WIDTH = 110


def _apart(results: Results, problems: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The problems on which nothing was chosen, and the others, each with a name; none that is empty."""
    of_kind: dict[bool, list[str]] = {True: [], False: []}
    for problem in problems:
        of_kind[problem_of(problem, results.edition).is_new].append(problem)
    names = {True: "on which nothing was chosen", False: "on which the rule and its rate were chosen"}
    return [(names[kind], of) for kind, of in of_kind.items() if of]


def verdicts(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """How the default does against the best of SGD, Adam and AdamW in float32."""
    return [_verdicts(results, of, name) for name, of in _apart(results, problems)]


def _verdicts(results: Results, problems: Sequence[str], kind: str) -> TextTable:
    look, rows = results.look(), []
    for problem in problems:
        measure, there = results.measures[problem], standings(results, look, problem)
        ours, rival = ours_of(there), best_float(results, problem, there)
        start = [word(problem), word(heading(measure))]
        if rival is None:
            rows.append([*start, MISSING, MISSING, _mean(measure, ours), MISSING, MISSING, MISSING])
            continue
        name = Cell(f"{rival.label.removeprefix('float32 ')} {_rate(rival).text}", rival.label)
        rows.append([*start, name, _mean(measure, rival), _mean(measure, ours), *_against(measure, ours, rival)])
    title = f"{OURS} at its one rate against the best of SGD, Adam and AdamW in float32, on problems\n{kind}"
    columns = ["", "measure", "rival", "its mean", OURS, "difference", "margin", "verdict"]
    notes = [_INTERVALS, _STAR, *_VERDICTS, *_CHOSEN, "The rival is chosen by the same means.", *look.notes()]
    return TextTable("verdicts", title, columns, rows, notes, None, look.missing)


def rows(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """A table a problem: all rows."""
    return [_rows(results, problem, "rows") for problem in problems]


def finalists(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """A table for each of the longer runs."""
    return [_rows(results, problem, "finalists") for problem in problems]


def _rows(results: Results, problem: str, name: str) -> TextTable:
    look, measure = results.look(), results.measures[problem]
    there = standings(results, look, problem)
    ours = ours_of(there)
    lines = []
    for it in there.values():
        against = [word("")] * 3 if it is ours else _against(measure, ours, it)
        lines.append([word(it.label), *_bytes(it), _rate(it), _mean(measure, it), *against])
    seeds = problem_of(problem, results.edition).seeds
    direction = "higher" if measure.higher_is_better else "lower"
    title = f"{problem}: {heading(measure)} ({direction} is better), {seeds} seeds"
    columns = ["", "weights", "state", "gradients", "lr", "mean", f"{OURS} better by", "margin", "verdict"]
    notes = ["Bytes a weight, measured after the last step.", _INTERVALS, _STAR, *_VERDICTS, *_CHOSEN, *look.notes()]
    return TextTable(name, title, columns, lines, notes, problem, look.missing)


def counts(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """On how many problems lns8f5 Madam is above, level, open or missed, a line for each row it is compared with."""
    return [_counts(results, of, name) for name, of in _apart(results, problems)]


def _counts(results: Results, problems: Sequence[str], kind: str) -> TextTable:
    look = results.look()
    found: dict[str, Counter[str]] = {name: Counter() for name in ROWS if name != OURS}
    held: dict[str, list[float]] = {name: [] for name in ROWS}
    for problem in problems:
        measure, there = results.measures[problem], standings(results, look, problem)
        for name, it in there.items():
            if it.held is not None:
                held[name].append(it.held.sum)
            if name != OURS:
                found[name][str(_against(measure, ours_of(there), it)[-1].value)] += 1
    lines = [[word(OURS), _sum(held[OURS]), *[word("")] * 4]]
    for name, count in found.items():
        cells = [Cell(str(count[kind]), count[kind]) for kind in ("above", "level", "open", "missed")]
        lines.append([word(name), _sum(held[name]), *cells])
    title = f"On how many of {len(problems)} problems {kind}\n{OURS}, at its one rate, is above, level, open or missed"
    columns = ["against", "bytes", "above", "level", "open", "missed"]
    notes = [
        "bytes: of weights, state and gradients a weight, mean over the problems; verdicts as in the table of rows.",
        *look.notes(),
    ]
    return TextTable("counts", title, columns, lines, notes, None, look.missing)


def one_rate(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """How the default does against others that have one rate for all problems, too."""
    look, lines = results.look(), []
    for name, row in ROWS.items():
        grids = _grids(results, row, problems)
        rated = list(zip(*grids.values(), strict=True))
        if No.MISSING in [look.outcome(run) for runs in rated for run in runs]:
            lines.append([word(name), *[MISSING] * (len(problems) + 2)])
            continue
        best = min(rated, key=lambda runs: _worst(results, runs, grids))
        lr = best[0].recipe.rate
        cells = [word("")] * (len(problems) + 1)
        if name != OURS:
            found = [_margins(results, run) for run in best]
            apart = [margins for margins in found if isinstance(margins, float)]
            least = MISSING if not apart else Cell(f"{min(apart):+.1f}", min(apart))
            least = DIVERGED if "ours" in found else least
            cells = [Cell(f"{m:+.1f}", m) if isinstance(m, float) else DIVERGED for m in found] + [least]
        lines.append([word(name), Cell(rate(lr), lr), *cells])
    title = f"One rate for all problems: by how many margins {OURS} is better, by test scores"
    notes = [
        "lr: the one rate that is never far from the row's best: what it loses at most, on any problem, in margins, by",
        "validation scores of seed 0, is least; the default where there is one. Means of all seeds where that rate has",
        "them, else seed 0 alone. least: where we are most behind, or least ahead.",
        *look.notes(),
    ]
    return [TextTable("one-rate", title, ["", "lr", *problems, "least"], lines, notes, None, look.missing)]


def _margins(results: Results, run: Run) -> float | str:
    """By how many margins our default is better than a run, over the seeds that both have; or whose has diverged."""
    problem, measure = run.problem, results.measures[run.problem]
    (ours,) = _grids(results, ROWS[OURS], [problem])[problem]
    look = results.look()  # not the table's: most rates are not meant to have all seeds
    for seeds in (problem_of(problem, results.edition).seeds, 1):
        own, theirs = (look.sample(problem, one.recipe, seeds) for one in (ours, run))
        if not own.missing and not theirs.missing:
            break
    if not own.complete:
        return "ours"
    if not theirs.complete:
        return "theirs"
    return better_by(measure, own, theirs).mean / measure.margin_at(mean(theirs.scores))


def _grids(results: Results, row: Row, problems: Sequence[str]) -> dict[str, list[Run]]:
    """A row at its rates, with seed 0, on each problem."""
    return {problem: runs_at(row, problem_of(problem, results.edition), row.rates) for problem in problems}


def _worst(results: Results, runs: Sequence[Run], grids: Mapping[str, Sequence[Run]]) -> float:
    """What a rate loses at most against the best of the row, in margins; infinity where it diverged."""
    losses = []
    for run in runs:
        measure = results.measures[run.problem]
        scores = [score for one in grids[run.problem] if (score := results.choosing[one.key]) is not None]
        own = results.choosing[run.key]
        if own is None:
            return math.inf
        best = max(scores, key=lambda score: measure.sign * score)
        losses.append(measure.sign * (best - own) / measure.margin_at(best))
    return max(losses)


def rates(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """Our row at other rates: a line a problem."""
    look, lines = results.look(), []
    curves = {problem: curve(problem_of(problem, results.edition)) for problem in problems}
    for problem, runs in curves.items():
        measure = results.measures[problem]
        cells = [outcome_cell(measure, look.outcome(run)) for run in runs]
        lines.append([word(problem), word(heading(measure)), *cells])
    columns = ["", "measure", *(rate(run.recipe.rate) for run in curves[problems[0]])]
    one = rate(ROWS[OURS].recipe.rate)
    title = f"{OURS} at other rates than its one of {one}: test scores of seed 0, which choose nothing"
    return [TextTable("rates", title, columns, lines, look.notes(), None, look.missing)]


def matters(results: Results, problems: Sequence[str]) -> list[TextTable]:
    """One table: a line a change, a column a problem."""
    look = results.look()
    samples = {
        name: {problem: look.sample(problem, recipe, FEWER_SEEDS) for problem in problems}
        for name, recipe in CHANGES.items()
    }
    (default, standards), *changed = samples.items()
    lines = [[word(default), *(sample_cell(results.measures[p], standards[p], "none") for p in problems)]]
    for name, of in changed:
        cells = [difference_cell(results.measures[p], of[p], standards[p], interval=False) for p in problems]
        lines.append([word(name), *cells])
    title = f"What a change makes better than the default (worse, where negative): means of {FEWER_SEEDS} seeds"
    units = "; ".join(f"{problem}: {heading(results.measures[problem])}" for problem in problems)
    star = "* zero is not in Welch's 95 % interval."
    notes = ["default: its mean, in units of the measure.", star, *wrap(f"Measures: {units}.", _WIDTH), *look.notes()]
    return [TextTable("matters", title, ["", *problems], lines, notes, None, look.missing)]


# ---------------------------------------------------------------------------------------------------------------- cells


def _mean(measure: Measure, it: Standing) -> Cell:
    return DIVERGED if it.best is None and it.diverged else sample_cell(measure, it.sample)


def _rate(it: Standing) -> Cell:
    if it.best is None:
        return MISSING
    return Cell(rate(it.best.recipe.rate) + (" end" if it.at_end else ""), it.best.recipe.rate)


def _bytes(it: Standing) -> list[Cell]:
    if it.held is None:
        return [MISSING] * 3
    return [Cell(f"{x:.2f}", x) for x in (it.held.weights, it.held.state, it.held.gradients)]


def _sum(held: Sequence[float]) -> Cell:
    return Cell(f"{fmean(held):.2f}", fmean(held)) if held else MISSING


def _against(measure: Measure, ours: Standing, theirs: Standing) -> list[Cell]:
    """The difference, the margin and the verdict of our row against another.

    Where a seed of ours diverged we have missed, whatever the other did; where one of theirs alone did, we are above.
    """
    if ours.sample is None or theirs.sample is None or ours.sample.missing or theirs.sample.missing:
        return [MISSING] * 3
    if ours.diverged or theirs.diverged:
        return [DIVERGED, MISSING, word("missed" if ours.diverged else "above")]
    margin = measure.margin_at(mean(theirs.sample.scores))
    said = verdict(better_by(measure, ours.sample, theirs.sample), margin)
    shown = difference_cell(measure, ours.sample, theirs.sample)
    return [shown, Cell(plain(measure, margin), margin), MISSING if said is None else word(said)]
