"""`lnsnum watch`."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lnsnum.cli.app import CommandError, app, check_plot, console, errors, print_json
from lnsnum.cli.tables import number
from lnsnum.files.atomic import shown
from lnsnum.files.run_log import FIELDS, read_log

_RECENT = 20
"""Steps of which means are shown."""

_WIDTH = 60
"""Columns of a curve."""

_BARS = "▁▂▃▄▅▆▇█"

_SHARES = {
    "moved": "codes moved",
    "at_ceiling": "at the ceiling",
    "at_floor": "at the floor",
    "zeros": "zeros",
    "sign_changes": "signs changed",
}

_COUNTS = {"grown": "ceilings raised", "not_finite": "gradients not finite"}


@app.command()
def watch(
    log: Annotated[
        Path, typer.Argument(help="The log of a training: what --log wrote, or a Monitor.", show_default=False)
    ],
    every: Annotated[float, typer.Option(min=0.05, help="Seconds after which it is read again.")] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Show what is there and end, as where stdout is no terminal.")
    ] = (False),
    plot: Annotated[Path | None, typer.Option(help="Write the curves to this image, and end.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and end.")] = False,
) -> None:
    """Show a training while it runs: its loss, its learning rate, and what its steps do to the codes."""
    if plot is not None:
        check_plot(plot)
    lines = _read(log)
    if plot is not None:
        from lnsnum.toolbox.log_plots import plot_log

        plot_log(plot, lines, shown(log))
        (errors if json else console).print(f"plot written to {plot}")
    if json:
        print_json({"path": str(log), "steps": lines[-1]["step"] if lines else 0} | _summary(lines))
    elif plot is None and (once or not console.is_terminal):
        console.print(_view(log, lines))
    elif plot is None:
        with Live(_view(log, lines), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_view(log, _read(log)), refresh=True)


def _read(log: Path) -> list[dict[str, Any]]:
    try:
        return read_log(log)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _known(lines: Iterable[dict[str, Any]], name: str) -> list[float]:
    return [line[name] for line in lines if line[name] is not None]


def _summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the last steps, and sums of what is rare over all."""
    recent = lines[-_RECENT:]
    means = {name: _mean(known) if (known := _known(recent, name)) else None for name in ("loss", *_SHARES)}
    sums = {name: _total(known) if (known := _known(lines, name)) else None for name in _COUNTS}
    last = {name: lines[-1][name] if lines else None for name in ("lr", "seconds")}
    return {name: (means | sums | last)[name] for name in FIELDS if name != "step"}


def _mean(values: list[float]) -> float:
    """NaN where one is not finite: of a loss that diverged there is no mean."""
    return fmean(values) if all(map(math.isfinite, values)) else math.nan


def _total(counts: list[float]) -> float:
    total = sum(counts)
    return int(total) if math.isfinite(total) else math.nan


def _view(log: Path, lines: list[dict[str, Any]]) -> RenderableType:
    if not lines:
        return Text(f"{shown(log)}: no step yet")
    summary = _summary(lines)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("step", f"{lines[-1]['step']:,}", _pace(lines))
    for name in ("loss", "lr"):
        if summary[name] is not None:
            table.add_row(name, number(summary[name]), _curve(_known(lines, name)))
    for name, words in _SHARES.items():
        if summary[name] is not None:
            table.add_row(words, f"{summary[name]:.2%}", _curve(_known(lines, name)))
    for name, words in _COUNTS.items():
        if summary[name] is not None:
            table.add_row(words, f"{summary[name]:,.0f}", _curve(_known(lines, name)) if summary[name] else "")
    return Group(Text(shown(log)), table)


def _pace(lines: list[dict[str, Any]]) -> str:
    """Steps a second, of the last ones."""
    first, last = lines[-_RECENT:][0], lines[-1]
    if None in (first["seconds"], last["seconds"]) or last["seconds"] <= first["seconds"]:
        return ""
    return f"{(last['step'] - first['step']) / (last['seconds'] - first['seconds']):.1f} a second"


def _curve(values: list[float], width: int = _WIDTH) -> str:
    """Numbers as bars, the least the lowest; means, where there are more than columns."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    count = min(width, len(finite))
    edges = [i * len(finite) // count for i in range(count + 1)]
    means = [fmean(finite[a:b]) for a, b in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    if span == 0:
        return ""
    return "".join(_BARS[min(int((mean - low) / span * len(_BARS)), len(_BARS) - 1)] for mean in means)
