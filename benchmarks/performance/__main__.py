"""Times, bytes and operations of each kernel, its floor on this machine, and its ratio to each rival, in one run.

    python -m benchmarks.performance --json new.json --markdown docs/performance.md      (needs the extra `bench`)
    python -m benchmarks.performance --against old.json
    python -m benchmarks.performance --only decode --anew new.json --json new.json --markdown docs/performance.md

Prints Markdown: the machine, the marks, and every case over its sizes on one and two threads. Times are medians of
interleaved repeats; `timing` tells how every side is treated. Two runs are compared by their ratios to the baseline
measured in the same run, since machines and their load vary; cases measured anew replace those of a run on the same
machine, and the report says which.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

from benchmarks.performance import (
    arrays,
    datapath,
    files,
    kernels,
    plots,
    products,
    report,
    scales,
    startup,
    timing,
    training,
    uses,
)
from benchmarks.performance.cases import Point, Run
from benchmarks.performance.marks import MARKS
from lnsnum.certify import environment

ROOT = Path(__file__).parents[2]
PACKAGES = "torch", "torchao", "ml_dtypes", "xlns", "xlnstorch", "safetensors"


def machine() -> dict[str, str]:
    """The processor and all versions."""
    described = {**environment(), "processors": str(timing.processors())}
    for name in PACKAGES:
        try:
            described[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return described


def commit() -> str:
    """Of this checkout, with a mark where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def keep(run: Run, path: Path | None) -> None:
    """As JSON, where a file is named."""
    if path:
        path.write_text(json.dumps(run.to_json(), indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> Run:
    """All cases that were asked for; what is measured so far is kept after each."""
    here = machine()
    run = Run(here, commit(), [], {})
    if arguments.anew:
        run = Run.from_json(json.loads(arguments.anew.read_text()))
        if run.machine != here:
            differ = sorted({*run.machine.items()} ^ {*here.items()})
            sys.exit(f"{arguments.anew} is of another machine, or of other versions: {differ}")

    def tell(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    def wanted(name: str) -> bool:
        return arguments.only is None or any(part in name for part in arguments.only)

    parts = kernels, scales, arrays, products, uses, training, datapath, files
    everything = [case for part in parts for case in part.cases()]
    starts = (startup.IMPORT, startup.FIRST, startup.LATER)

    def take(points: list[Point]) -> None:
        run.take(points)
        if arguments.anew:
            run.anew |= dict.fromkeys(sorted({point.case for point in points}), commit())
        keep(run, arguments.json)

    for case in filter(lambda case: wanted(case.name), everything):
        points = timing.sweep(
            case,
            arguments.threads,
            largest=arguments.largest,
            repeats=arguments.repeats,
            budget=arguments.budget,
            limit=arguments.limit,
            missing=run.missing,
            tell=tell,
        )
        take(points)
    if any(map(wanted, starts)) and not (arguments.quick and arguments.only is None):
        take(startup.points(arguments.repeats, tell))
    keep(run, arguments.json)
    return run


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose name has one of these parts in it")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--largest", type=float, default=2e9, help="leave sizes of more units than this out")
    parser.add_argument("--limit", type=float, default=2.0, help="seconds of a call, above which a side stops")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for a point, after three repeats")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats, no starts: does all of it run?")
    parser.add_argument("--json", type=Path, help="keep the run in this file")
    parser.add_argument("--from", dest="kept", type=Path, help="report on a run that was kept, measure nothing")
    parser.add_argument("--anew", type=Path, help="measure the cases of --only, take the others of this run")
    parser.add_argument("--against", type=Path, help="compare with a run that was kept")
    parser.add_argument("--plots", type=Path, help="write the pictures to this folder")
    parser.add_argument(
        "--markdown", type=Path, help="put the report between the markers of this page, the pictures beside it"
    )
    arguments = parser.parse_args()
    if arguments.anew and not arguments.only:
        parser.error("--anew needs --only: which cases are to be measured anew?")
    if arguments.quick:
        arguments.repeats, arguments.budget = 3, 0.05
        arguments.limit, arguments.largest = 0.2, min(arguments.largest, 4e6)
    return arguments


def main() -> None:
    """Measure, keep, show."""
    arguments = parse()
    warnings.filterwarnings("ignore")  # of the rivals' compilers
    run = Run.from_json(json.loads(arguments.kept.read_text())) if arguments.kept else measure(arguments)
    page = arguments.markdown
    folder = arguments.plots or (page.with_suffix("") if page else None)
    pictures = plots.write(run, MARKS, folder) if folder else []
    beside = page.parent if page else Path()
    links = [(caption, Path(os.path.relpath(path, beside)).as_posix()) for caption, path in pictures]
    text = report.markdown(run, MARKS, links)
    if page:
        page.write_text(report.put_between_markers(page.read_text(), text))
    print(text)
    if arguments.against:
        print(report.comparison(Run.from_json(json.loads(arguments.against.read_text())), run))


if __name__ == "__main__":
    main()
