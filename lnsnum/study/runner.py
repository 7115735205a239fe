"""The study itself: what is planned and not done yet is run, in several processes; each result is kept at once.

A run's result depends on neither the number of processes nor on what ran before it. Some runs follow from the scores
of others, so the plan is made again after each result.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from lnsnum.files.atomic import shown
from lnsnum.study.editions import planned
from lnsnum.study.execution import ReadyProblem, describe, one_run
from lnsnum.study.journal import Journal, Record, choosing
from lnsnum.study.plan import Run, Scores
from lnsnum.study.workers import Workers
from lnsnum.tasks import TaskError
from lnsnum.tasks.rescue import keep
from lnsnum.tasks.signals import hold
from lnsnum.tasks.task import Task
from lnsnum.tasks.troubles import in_words


class Progress(NamedTuple):
    """How far the study is."""

    done: int
    total: int
    """Runs in all, as far as they can be known now."""
    record: Record | None
    """The run that finished last; None at the start."""


def run_study(
    problems: Sequence[ReadyProblem],
    parts: Sequence[str],
    journal: Journal,
    *,
    jobs: int = 1,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Run all that is missing in the journal; only this process writes it.

    Raises:
        TaskError: where the journal is of other steps or data; after all others, where runs did not come to a result.
    """
    check_records(problems, journal.records, journal.path)
    known = choosing(journal.records)
    ready = {problem.name: problem for problem in problems}
    runs = {name: planned_runs(problem, parts, known) for name, problem in ready.items()}
    foreseen = {name: foreseen_runs(problem, parts, known).keys() for name, problem in ready.items()}
    failures: dict[str, str] = {}

    def report(record: Record | None) -> None:
        keys = {key for of_problem in foreseen.values() for key in of_problem}
        on_progress(Progress(len(keys & known.keys()), len(keys), record))

    report(None)
    with Workers[_Job, Record](jobs, _do) as workers:
        while True:
            taken = {job.run.key for job in workers.busy} | known.keys() | failures.keys()
            left = (run for of_problem in runs.values() for key, run in of_problem.items() if key not in taken)
            while workers.has_room and (found := next(left, None)):
                workers.hand(_Job(ready[found.problem], found))
            if not workers.busy:
                break
            job, record, failure = workers.next()
            if record is None:
                failures[job.run.key] = f"{describe(job.run)}: {failure}"
                continue
            with hold():
                _append(journal, record)
            known[job.run.key] = record.chosen_by
            name = job.problem.name
            before, runs[name] = runs[name].keys(), planned_runs(job.problem, parts, known)
            if runs[name].keys() != before:
                foreseen[name] = foreseen_runs(job.problem, parts, known).keys()
            report(record)
    if failures:
        count, first = len(failures), next(iter(failures.values()))
        what = "a run came to no result:" if count == 1 else f"{count} runs came to no result, such as"
        kept = "1 run" if len(journal.records) == 1 else f"{len(journal.records):,} runs"
        raise TaskError(f"{what} {first}; {kept} kept in {shown(journal.path)}")


def _append(journal: Journal, record: Record) -> None:
    """Append a record; where the journal cannot be written, keep it in another file.

    Raises:
        TaskError: where it is in another, which the message names.
        OSError: where it can be written nowhere.
    """

    def write(path: Path) -> None:
        if path == journal.path:
            journal.append(record)
            return
        with open(path, "ab") as other:  # of an earlier trouble there may be records in it
            other.write(record.line())

    kept = keep(journal.path, write)
    if kept.trouble is not None:
        raise TaskError(
            f"{in_words(kept.trouble)}; the run that was done last is a line of {shown(kept.path)}: append it to "
            f"{shown(journal.path)}, which has all the others"
        )


def check_records(problems: Iterable[ReadyProblem], records: Iterable[Record], path: Path) -> None:
    """Raise TaskError where runs of these problems, found at a path, had other steps, data, or another torch."""
    ready = {problem.name: problem for problem in problems}
    for record in records:
        problem = ready.get(record.problem)
        if problem is not None and (record.steps, record.data) != (problem.problem.steps, problem.data):
            raise TaskError(
                f"{shown(path)}: problem {problem.name} was run with {record.steps} steps on data {record.data}; now "
                f"it has {problem.problem.steps} steps on data {problem.data}: use another --out"
            )
        if problem is not None and record.torch != torch.__version__:
            raise TaskError(
                f"{shown(path)}: problem {problem.name} was run with torch {record.torch}, and this is "
                f"{torch.__version__}, whose results differ: use another --out"
            )


def planned_runs(problem: ReadyProblem, parts: Iterable[str], known: Scores) -> dict[str, Run]:
    """The runs of these parts that are known already, by their keys, each once."""
    runs = (run for part in parts for run in planned(part, problem.problem, problem.measure, known))
    return {run.key: run for run in runs}


def foreseen_runs(problem: ReadyProblem, parts: Iterable[str], known: Scores) -> dict[str, Run]:
    """The runs that it would be in all if those that have no score yet all came out alike."""
    parts, guessed = list(parts), dict(known)
    while True:
        runs = planned_runs(problem, parts, guessed)
        if runs.keys() <= guessed.keys():
            return runs
        guessed = {**dict.fromkeys(runs, 0.0), **guessed}


class Repeated(NamedTuple):
    """A run of the journal that was run again."""

    before: Record
    again: Record

    @property
    def same(self) -> bool:
        """Whether all that was measured is the same, to the bit, but for the time: of any version of ours."""
        return replace(self.again, seconds=self.before.seconds, lnsnum=self.before.lnsnum) == self.before


def runs_to_repeat(records: Iterable[Record], count: int) -> list[Record]:
    """So many finished runs, in an order that only their keys decide, no problem twice before each has one."""
    waiting = sorted(records, key=lambda record: hashlib.sha256(record.run.key.encode()).digest())
    turns: Counter[str] = Counter()
    placed = []
    for record in waiting:
        placed.append((turns[record.problem], record))
        turns[record.problem] += 1
    return [record for _, record in sorted(placed, key=lambda pair: pair[0])[:count]]


def repeat_runs(
    problems: Sequence[ReadyProblem],
    records: Sequence[Record],
    count: int,
    path: Path,
    *,
    jobs: int = 1,
    on_result: Callable[[Repeated], None] = lambda _: None,
) -> list[Repeated]:
    """Run some runs of a journal again, and write nothing.

    Args:
        problems: those whose runs may be repeated.
        records: of the journal.
        count: how many; all where there are not so many.
        path: of the journal, for messages.
        jobs: processes.
        on_result: told each as it is done.

    Raises:
        TaskError: where the journal is of other steps, data or another torch, or a run comes to no result.
    """
    check_records(problems, records, path)
    ready = {problem.name: problem for problem in problems}
    waiting = runs_to_repeat([record for record in records if record.problem in ready], count)
    before = {record.run.key: record for record in waiting}
    done = []
    with Workers[_Job, Record](jobs, _do) as workers:
        while waiting or workers.busy:
            while waiting and workers.has_room:
                record = waiting.pop(0)
                workers.hand(_Job(ready[record.problem], record.run))
            job, again, failure = workers.next()
            if again is None:
                raise TaskError(f"{describe(job.run)} came to no result again: {failure}")
            done.append(Repeated(before[job.run.key], again))
            on_result(done[-1])
    return done


class _Job(NamedTuple):
    problem: ReadyProblem
    run: Run


_last_task: list[tuple[ReadyProblem, Task]] = []
"""In a worker: the task of the last run. Runs come problem by problem."""


def _do(job: _Job) -> Record:
    return one_run(task_of(job.problem), job.problem.problem, job.run)


def task_of(problem: ReadyProblem) -> Task:
    """The problem's task, made anew where the one before was another's.

    Raises:
        TaskError: where the data are no longer those that were found.
    """
    if not _last_task or _last_task[0][0] != problem:
        _last_task.clear()  # two sets of data may not fit into memory
        task = problem.make()
        if not task.fingerprint.startswith(problem.data):
            raise TaskError(f"the data of {problem.name} have changed since the study was started")
        _last_task.append((problem, task))
    return _last_task[0][1]
