"""What became of the second edition's rows on a problem: the rate that was chosen, the scores, the bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

from lnsnum.study.plan import Run
from lnsnum.study.results import Look, No, Results, Sample, problem_of
from lnsnum.study.second_plan import OURS, Row, candidates, grid_of, rows_on


@dataclass(frozen=True)
class Held:
    """Bytes a weight while training, as measured after the last step."""

    weights: float
    state: float
    gradients: float

    @property
    def sum(self) -> float:
        """Of all three: what training keeps beside the activations."""
        return self.weights + self.state + self.gradients


@dataclass(frozen=True)
class Standing:
    """A row on a problem."""

    label: str
    row: Row
    best: Run | None
    """At the rate that was chosen, with seed 0; None where all diverged, or the rates are not done."""
    sample: Sample | None
    """Test scores of all seeds; None where there is no best."""
    validation: float | None
    """Mean validation score of the seeds; None where one is missing or diverged."""
    held: Held | None
    at_end: bool = False
    """Whether the rate is the first or the last of those that were tried."""

    @property
    def diverged(self) -> bool:
        """Whether there is no mean for it: all its rates diverged, or a seed did."""
        return self.sample is not None and self.sample.diverged > 0


def standings(results: Results, look: Look, problem: str) -> dict[str, Standing]:
    """All rows on a problem, by label."""
    rows = rows_on(problem_of(problem, results.edition))
    return {name: _standing(results, look, problem, name, row) for name, row in rows.items()}


def _standing(results: Results, look: Look, problem: str, name: str, row: Row) -> Standing:
    it, measure = problem_of(problem, results.edition), results.measures[problem]
    grid = grid_of(row, it, measure, results.choosing)
    outcomes = [look.outcome(run) for run in grid]
    if row.rates and No.MISSING in outcomes:
        return Standing(name, row, None, None, None, None)
    tried = [
        (run, look.sample(problem, run.recipe, it.seeds))
        for run in candidates(row, it, grid, measure, results.choosing)
    ]
    if not tried:
        return Standing(name, row, None, Sample((), it.seeds, 0), None, None)
    # while a run of one of them is missing that one is shown, as no choice can be made
    best, sample = next((pair for pair in tried if pair[1].missing), tried[0])
    means = {run: _validation(results, run, it.seeds) for run, of in tried if of.complete}
    if means and not sample.missing:
        best = max(means, key=lambda run: measure.sign * means[run])
        sample = dict(tried)[best]
    finished = (results.records[key] for key in _keys(best, it.seeds) if results.scores.get(key) is not None)
    record = next(finished, None)
    held = None
    if record is not None and record.gradient_bytes is not None:
        held = Held(record.weight_bytes, record.state_bytes, record.gradient_bytes)
    at_end = bool(row.rates) and best in (grid[0], grid[-1])
    return Standing(name, row, best, sample, means.get(best), held, at_end)


def _keys(run: Run, seeds: int) -> list[str]:
    return [replace(run, seed=seed).key for seed in range(seeds)]


def _validation(results: Results, run: Run, seeds: int) -> float:
    """The mean validation score of all seeds, each of which has a score."""
    return fmean(score for key in _keys(run, seeds) if (score := results.choosing[key]) is not None)


def best_float(results: Results, problem: str, rows: dict[str, Standing]) -> Standing | None:
    """Of the float32 rows that no seed let down the one with the best validation score; None where there is none.

    None too while a run of theirs is missing.
    """
    rivals = [it for it in rows.values() if it.row.kind == "float32"]
    if any(it.sample is None or it.sample.missing for it in rivals):
        return None
    sign = results.measures[problem].sign
    sound = [(sign * it.validation, it) for it in rivals if it.validation is not None]
    return max(sound, key=lambda pair: pair[0])[1] if sound else None


def ours_of(rows: dict[str, Standing]) -> Standing:
    """The row that others are compared with."""
    return rows[OURS]
