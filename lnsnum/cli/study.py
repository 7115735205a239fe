"""`lnsnum study`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from lnsnum.cli.app import CommandError, app, check_writable, console, errors, print_json, printable
from lnsnum.cli.tables import counted, shortened, table_of

if TYPE_CHECKING:
    from lnsnum.study.execution import ReadyProblem
    from lnsnum.study.problems import Problem
    from lnsnum.study.runner import Progress

Named = TypeVar("Named")

INTERRUPTED = 130
"""What shells give for a program that Ctrl-C ends."""

_SPEED_PERIOD = 3600.0
"""Seconds over which the bar takes its speed: one run can take minutes."""


@app.command()
def study(
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="without-tuning, bits or ablations, of the second edition rows, matters or finalists; by default all. "
            "Can be repeated."
        ),
    ] = None,
    problem: Annotated[
        list[str] | None,
        typer.Option(help="What is trained; by default all whose data are there. Can be repeated."),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="Where data are. Can be repeated.")
    ] = None,
    edition: Annotated[int, typer.Option(min=1, max=2, help="Which study: docs/first_study.md, docs/results.md.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file of results, which is continued where it is there; study.jsonl, of the second edition "
            "second_study.jsonl."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one for each processor. It changes no result.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many runs there are and how long they take.")
    ] = False,
    trial: Annotated[
        bool, typer.Option("--trial", help="Only train each way on each problem for three steps, and keep nothing.")
    ] = False,
    repeat: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only run N of the runs that are done again: do they end as before?"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object in the end.")] = False,
) -> None:
    """Train every network of the study and keep each result at once; it can be interrupted and continued."""
    from lnsnum.study.editions import FILES, parts_of
    from lnsnum.study.execution import find_data
    from lnsnum.study.problems import problems_of

    out = Path(FILES[edition]) if out is None else out
    check_writable("--out", out)
    parts = _chosen("--part", part, {name: name for name in parts_of(edition)})
    known = problems_of(edition)
    places = _places(data or [], known.values())
    if problem is None:
        problems = [p for p in known.values() if p.data is None or p.data in places]
    else:
        problems = _chosen("--problem", problem, known)
    ready = []
    with errors.status("reading data") as status:
        for chosen in problems:
            status.update(f"reading the data of {chosen.name}")
            ready.append(find_data(chosen, places))
    jobs = jobs or _processors()
    if repeat is not None:
        _repeat(ready, repeat, out, jobs, json)
    elif trial:
        _try(ready, parts, jobs, json)
    elif dry_run:
        _print_estimate(ready, parts, out, jobs, json)
    else:
        _run(ready, parts, out, jobs, json)


def _chosen(option: str, names: list[str] | None, known: Mapping[str, Named]) -> list[Named]:
    """What was asked for, each once, in the order of asking; all where nothing was."""
    for name in names or []:
        if name not in known:
            raise CommandError(f"{option} {name} is not known: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names if names is not None else known)]


def _places(assignments: Iterable[str], problems: Iterable[Problem]) -> dict[str, Path]:
    """Paths by name, from NAME=PATH."""
    known = list(dict.fromkeys(p.data for p in problems if p.data is not None))
    places: dict[str, Path] = {}
    for assignment in assignments:
        name, equals, path = assignment.partition("=")
        if not equals or not path:
            raise CommandError(f"--data {assignment} is not NAME=PATH, such as {(known or ['name'])[0]}=/path/to/data")
        if name not in known:
            raise CommandError(f"--data {assignment}: {name!r} is not known: {', '.join(known)}")
        if name in places:
            raise CommandError(f"--data {name}=... is given twice: {places[name]} and {path}")
        places[name] = Path(path)
    return places


def _processors() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(problems: list[ReadyProblem], parts: list[str], out: Path, jobs: int, json: bool) -> None:
    from lnsnum.study.journal import Journal
    from lnsnum.study.runner import run_study

    measures = {p.name: p.measure for p in problems}
    with Journal(out) as journal:
        columns = (
            BarColumn(20), MofNCompleteColumn(), TextColumn("runs, time left"), TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )  # fmt: skip
        shown = errors.is_terminal
        bar = ProgressBar(
            *columns, console=errors, transient=True, disable=not shown, speed_estimate_period=_SPEED_PERIOD
        )
        entry = bar.add_task("", total=None)

        def show(progress: Progress) -> None:
            from lnsnum.study.execution import describe

            record = progress.record
            text = ""
            if record is not None:
                score = "diverged" if record.score is None else measures[record.problem].text(record.score)
                text = shortened(f"{describe(record.run)}: {score}", 100)
            bar.update(entry, completed=progress.done, total=progress.total, description=text)
            if text and not shown:
                errors.print(f"{progress.done:,} of {progress.total:,}: {text}")

        try:
            with bar:
                run_study(problems, parts, journal, jobs=jobs, on_progress=show)
        except KeyboardInterrupt:
            kept = counted(len(journal.records), "run")
            errors.print(f"interrupted: {kept} kept in {printable(str(out))}; the same command continues")
            sys.exit(INTERRUPTED)
        records = journal.records
    failed = sum(record.failure is not None for record in records)
    if json:
        print_json({"path": str(out), "runs": len(records), "diverged": failed})
        return
    console.print(
        f"{counted(len(records), 'run')} in {out}, {failed} of them diverged; `lnsnum report {out}` prints the tables"
    )


def _try(problems: list[ReadyProblem], parts: list[str], jobs: int, json: bool) -> None:
    from lnsnum.study.trial import Tried, told, try_all

    shown = 0

    def show(one: Tried, count: int) -> None:
        nonlocal shown
        shown += 1
        errors.print(f"{shown:,} of {count:,}: {told(one)}", soft_wrap=True)

    tried = try_all(problems, parts, jobs=jobs, on_result=show)
    failed = sum(one.failure is not None for one in tried)
    if json:
        print_json({"tried": len(tried), "failed": failed})
    else:
        console.print(f"{counted(len(tried), 'way')} of training tried, {failed} of them failed")
    if failed:
        sys.exit(1)


def _repeat(problems: list[ReadyProblem], count: int, out: Path, jobs: int, json: bool) -> None:
    from lnsnum.study.execution import describe
    from lnsnum.study.journal import read_journal
    from lnsnum.study.runner import Repeated, repeat_runs

    def show(one: Repeated) -> None:
        result = "the same to the bit" if one.same else f"{one.before.score} before, {one.again.score} now"
        errors.print(f"{describe(one.before.run)}: {result}")

    done = repeat_runs(problems, read_journal(out), count, out, jobs=jobs, on_result=show)
    other = sum(not one.same for one in done)
    if json:
        print_json({"path": str(out), "repeated": len(done), "different": other})
    else:
        console.print(f"{counted(len(done), 'run')} of {out} again, {len(done) - other} of them the same to the bit")
    if other:
        sys.exit(1)


def _print_estimate(problems: list[ReadyProblem], parts: list[str], out: Path, jobs: int, json: bool) -> None:
    from lnsnum.study.estimate import estimate
    from lnsnum.study.journal import read_journal
    from lnsnum.study.runner import check_records

    records = read_journal(out) if out.exists() else []
    check_records(problems, records, out)
    with errors.status("timing some steps of each problem"):
        found = estimate(problems, parts, records, jobs=jobs)
    if json:
        rows = [row._asdict() | {"seconds": row.seconds / jobs} for row in found.rows]
        total = {"runs": found.runs, "done": found.done, "seconds": found.seconds / jobs, "jobs": jobs}
        print_json({"path": str(out), "parts": rows, "total": total})
        return
    title = f"{found.runs:,} runs, {found.done:,} done, {duration(found.seconds / jobs)} left with --jobs {jobs}"
    table: Table = table_of(title, ("part", "problem"), ("steps", "runs", "done", "time left"))
    for row in found.rows:
        counts = (f"{n:,}" for n in (row.steps, row.runs, row.done))
        table.add_row(row.part, row.problem, *counts, duration(row.seconds / jobs))
    table.add_section()
    table.add_row("all", "", "", f"{found.runs:,}", f"{found.done:,}", duration(found.seconds / jobs))
    table.caption = "Runs that parts share count once in all."
    console.print(table)


def duration(seconds: float) -> str:
    """Such as "45 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"
