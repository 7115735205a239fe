"""The journal as the tables ask it: what became of a run, of a run with several seeds, of a row's learning rates."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lnsnum.study.editions import parts_of, planned
from lnsnum.study.journal import Record, choosing, scores
from lnsnum.study.plan import SEEDS, Run, best_runs, candidates, ladder_runs, row_of, row_rates, rows_of
from lnsnum.study.problems import Problem, problems_of
from lnsnum.study.statistics import mean
from lnsnum.tasks import TaskError
from lnsnum.tasks.measure import Measure
from lnsnum.tasks.recipe import Recipe, Schedule

_NAMES = {"madam": "Madam", "adam": "Adam", "sgd": "SGD"}


def label(recipe: Recipe) -> str:
    """Format and optimizer as people write them: "lns8f5 Madam", "lns8f5 paper's Madam"."""
    whose = "paper's " if recipe.rule == "paper" else ""
    return f"{recipe.format} {whose}{_NAMES[recipe.optimizer]}"


def problem_of(name: str, edition: int = 1) -> Problem:
    """The problem of that name; one of which nothing else is known where there is none."""
    return problems_of(edition).get(name) or Problem(name, task="", steps=0, edition=edition)


class No(enum.Enum):
    """Why a run has no score."""

    MISSING = enum.auto()
    DIVERGED = enum.auto()


Outcome = float | No


@dataclass(frozen=True)
class Sample:
    """The same run with several seeds."""

    scores: tuple[float, ...]
    diverged: int
    missing: int

    @property
    def runs(self) -> int:
        """How many there are or should be."""
        return len(self.scores) + self.diverged + self.missing

    @property
    def complete(self) -> bool:
        """Whether each run has a score: only then is it compared with others."""
        return not self.diverged and not self.missing


@dataclass(frozen=True)
class Tuned:
    """A row at its best learning rate."""

    grid: dict[float, Outcome]
    """By learning rate, with seed 0."""
    best: Run | None
    """With seed 0; None where the grid is not done, or no run of it has a score."""
    sample: Sample | None
    """The best with five seeds; None where there is no best."""

    missing: int
    """Runs that are not there, of the grid and of all rates that get five seeds."""

    @property
    def done(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


class Results:
    """All records of a journal, and the measures of its problems.

    Args:
        records: those of the journal, in its order.
        measure_of: the measure of a problem, by its name; a KeyError where there is none of that name.

    Raises:
        TaskError: where a record is of a problem that `measure_of` does not know, or they are of two editions.
    """

    def __init__(self, records: Iterable[Record], measure_of: Callable[[str], Measure]) -> None:
        self.records: dict[str, Record] = {record.run.key: record for record in records}
        editions = {record.edition for record in self.records.values()} or {1}
        if len(editions) > 1:
            raise TaskError("the journal has runs of two editions of the study: tables are of one, so keep them apart")
        (self.edition,) = editions
        order = {problem: place for place, problem in enumerate(problems_of(self.edition))}
        found = dict.fromkeys(record.problem for record in self.records.values())
        self.problems = sorted(found, key=lambda problem: order.get(problem, len(order)))
        self.measures: dict[str, Measure] = {}
        for problem in self.problems:
            try:
                self.measures[problem] = measure_of(problem)
            except KeyError as error:
                raise TaskError(f"the journal has runs of {problem!r}, which this version does not know") from error
        self.scores = scores(self.records.values())
        self.choosing = choosing(self.records.values())

    def look(self) -> Look:
        """A look at the results that knows what was missing."""
        return Look(self)

    def of(self, problem: str) -> list[Record]:
        """The records of one problem."""
        return [record for record in self.records.values() if record.problem == problem]

    def begun(self, part: str, problems: Sequence[str]) -> tuple[list[str], list[str]]:
        """The problems of which there is a run that belongs to this part alone, and those which it has yet to begin."""
        done: list[str] = []
        left: list[str] = []
        for problem in problems:
            runs = {one: self._planned(one, problem) for one in parts_of(self.edition)}
            own = runs[part].difference(*(of_one for one, of_one in runs.items() if one != part))
            if own:
                (done if own & self.records.keys() else left).append(problem)
        return done, left

    def _planned(self, part: str, problem: str) -> set[str]:
        runs = planned(part, problem_of(problem, self.edition), self.measures[problem], self.choosing)
        return {run.key for run in runs}


class Look:
    """One look at the results: it remembers which runs were asked for."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._asked: set[str] = set()

    @property
    def asked(self) -> int:
        """So many runs were asked for."""
        return len(self._asked)

    @property
    def missing(self) -> int:
        """So many of them are not there."""
        return len(self._asked - self._results.records.keys())

    def notes(self) -> list[str]:
        """How many are missing, in words; no note where none is."""
        return [f"{self.missing} of {self.asked} runs are missing."] if self.missing else []

    def outcome(self, run: Run) -> Outcome:
        """The score of a run."""
        self._asked.add(run.key)
        if run.key not in self._results.scores:
            return No.MISSING
        score = self._results.scores[run.key]
        return No.DIVERGED if score is None else score

    def sample(self, problem: str, recipe: Recipe, seeds: int) -> Sample:
        """The scores with seeds 0 to `seeds` - 1."""
        outcomes = [self.outcome(Run(problem, recipe, seed)) for seed in range(seeds)]
        finished = tuple(outcome for outcome in outcomes if not isinstance(outcome, No))
        return Sample(finished, outcomes.count(No.DIVERGED), outcomes.count(No.MISSING))

    def grid(self, problem: str, row: Recipe) -> dict[float, Outcome]:
        """The scores of a row with seed 0, by learning rate."""
        found = self.row(problem, row)
        rates = [] if found is None else row_rates(found, problem_of(problem))
        return {lr: self.outcome(Run(problem, replace(found or row, lr=lr), 0)) for lr in rates}

    def row(self, problem: str, row: Recipe) -> Recipe | None:
        """A row as it is on a problem; None where it is not trained."""
        return row_of(row, problem_of(problem))

    def rows(self, problem: str) -> list[Recipe]:
        """The rows that are trained on a problem."""
        return rows_of(problem_of(problem))

    def has_ladder(self, problem: str, lr: float, schedule: Schedule) -> bool:
        """Whether the paper's ladder of 256 levels is trained on a problem in this way."""
        return (lr, schedule) in ladder_runs(problem_of(problem))

    def tuned(self, problem: str, row: Recipe) -> Tuned:
        """A row at the learning rate that is best for the problem: by five seeds, where several rates have them."""
        grid = self.grid(problem, row)
        runs = [Run(problem, replace(self.row(problem, row) or row, lr=lr), 0) for lr in grid]
        measure = self._results.measures[problem]
        best = best_runs(runs, measure, self._results.scores, candidates(row, problem_of(problem)))
        samples = [(run, self.sample(problem, run.recipe, SEEDS)) for run in best]
        missing = sum(outcome is No.MISSING for outcome in grid.values())
        if not samples:
            return Tuned(grid, None, None, missing)
        missing += sum(sample.missing for _, sample in samples)
        whole = [pair for pair in samples if pair[1].complete]
        if not whole or missing:
            return Tuned(grid, *samples[0], missing)
        return Tuned(grid, *max(whole, key=lambda pair: measure.sign * mean(pair[1].scores)), missing)
