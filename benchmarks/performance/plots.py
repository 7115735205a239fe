"""The pictures: time for each unit against size, one panel for each case; and every mark with what was reached."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.performance.cases import OWN, Mark, Point, Run
from benchmarks.performance.report import rows, size

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#8C6D31", "#7F7F7F")
"""Those of Okabe and Ito, which all readers tell apart, and two more; lnsnum has a blue of its own."""

OWN_COLOUR, FLOOR_COLOUR = "#0072B2", "#000000"

STYLE = {
    "font.size": 8,
    "legend.fontsize": 6,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text as text, not as outlines
    "svg.hashsalt": "lnsnum",  # the same file for the same figures
}


def _panel(axes: pyplot.Axes, points: list[Point]) -> None:
    first = points[0]
    sides = list(dict.fromkeys(side for point in points for side in point.seconds))
    others = [side for side in sides if side not in (OWN, first.floor)]
    for side in sides:
        series = sorted((p.count, p.seconds[side] / p.count * 1e9) for p in points if side in p.seconds)
        style = {"marker": "o", "markersize": 2.5, "linewidth": 1.0}
        if side == OWN:
            style |= {"color": OWN_COLOUR, "linewidth": 2.2, "zorder": 5}
        elif side == first.floor:
            style |= {"color": FLOOR_COLOUR, "linestyle": ":", "marker": ""}
        else:
            at = others.index(side)
            style |= {"color": COLOURS[at % len(COLOURS)], "linestyle": "-" if at < len(COLOURS) else "--"}
        axes.plot(*zip(*series, strict=True), label=side, **style)
    axes.set(xscale="log", yscale="log", title=first.case)
    axes.minorticks_off()
    axes.set_xlabel(f"{first.unit}s", labelpad=1)
    axes.set_ylabel(f"ns / {first.unit}", labelpad=1)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 3}
    axes.legend(frameon=False, handlelength=1.4, labelspacing=0.25, columnspacing=0.9, **below)


def sweep(run: Run, threads: int) -> Figure | None:
    """All cases of several sizes, on so many threads."""
    points = [p for p in run.points if p.threads == threads]
    groups = [list(group) for _, group in groupby(points, key=lambda p: p.case)]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        return None
    columns = min(3, len(groups))
    lines = math.ceil(len(groups) / columns)
    figure, grid = pyplot.subplots(lines, columns, figsize=(3.8 * columns, 3.2 * lines), squeeze=False)
    for axes, group in zip(grid.flat, groups, strict=False):
        _panel(axes, group)
    for axes in list(grid.flat)[len(groups) :]:
        axes.set_visible(False)
    figure.tight_layout()
    return figure


def reached(run: Run, marks: tuple[Mark, ...]) -> Figure | None:
    """Each mark's cost as a share of the mark: left of 1 it is reached."""
    found = rows(run, marks)
    if not found:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.24 * len(found)))
    for place, (mark, _, _, value) in enumerate(found):
        share = mark.cost(value) / mark.cost(mark.mark)
        colour = {"stretch": COLOURS[2], "mark": OWN_COLOUR, "missed": COLOURS[4]}[mark.verdict(value)]
        axes.barh(place, share, color=colour, height=0.6)
        stretch = mark.cost(mark.stretch) / mark.cost(mark.mark)
        axes.plot([stretch, stretch], [place - 0.42, place + 0.42], color="black", linewidth=1.2)
    axes.axvline(1.0, color="black", linewidth=1.2, linestyle="--")
    labels = [f"{r.mark.title}{f', {size(r.point)}' if r.point.size > 1 else ''}" for r in found]
    axes.set_yticks(range(len(found)), labels)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="cost over the mark (dashed: the mark; short lines: the stretch; less is better)")
    figure.tight_layout()
    return figure


def write(run: Run, marks: tuple[Mark, ...], folder: Path) -> list[tuple[str, Path]]:
    """Write the pictures as SVG; their captions and files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with pyplot.rc_context(STYLE):
        counts = sorted({p.threads for p in run.points if p.size > 1}, reverse=True)
        plans = [("marks", "Every kernel's cost over its mark", reached(run, marks))]
        for n in counts:
            about = f"Time for each element against size, {n} thread{'s' if n > 1 else ''}"
            plans.append((f"sweep_{n}", about, sweep(run, n)))
        for name, caption, figure in plans:
            if figure is not None:
                path = folder / f"{name}.svg"
                figure.savefig(path, metadata={"Date": None})
                pyplot.close(figure)
                written.append((caption, path))
    return written
