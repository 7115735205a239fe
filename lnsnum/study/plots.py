"""The study as two pictures, a panel a problem: scores over learning rates, and over bits a weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lnsnum.files.atomic import replacing
from lnsnum.study.cells import heading
from lnsnum.study.plan import FEWER_SEEDS, LADDERS, ROWS, SEEDS, WIDTHS, bits_recipes, ladder, paper
from lnsnum.study.results import Look, No, Outcome, Results, Sample, label
from lnsnum.study.statistics import mean, standard_deviation
from lnsnum.study.variants import BASELINE, bits_of
from lnsnum.tasks.measure import Measure
from lnsnum.tasks.recipe import DEFAULT_LR, Recipe

COLORS: Mapping[str, str] = {
    "lns8f5 Madam": "#000000",
    "lns8f5 paper's Madam": "#08306b",
    "lns8f4 paper's Madam": "#2b7bba",
    "lns8f3 paper's Madam": "#7fb9da",
    "float32 paper's Madam": "#2ca02c",
    "float32 SGD": "#ff7f0e",
    "float32 Adam": "#d62728",
}
"""The default is black, the LNS rows of the paper's rule are blue."""

_STOCHASTIC, _NEAREST, _LADDERS = "lns, stochastic rounding", "lns, rounding to nearest", "the paper's ladders, nearest"
_BITS_COLORS = {
    _STOCHASTIC: COLORS["lns8f5 paper's Madam"],
    _NEAREST: COLORS["lns8f3 paper's Madam"],
    _LADDERS: "#7a3b9a",
}
_BESIDE = {_STOCHASTIC: -0.08, _NEAREST: 0.08, _LADDERS: 0.0}
"""By how many bits the points are moved, so that bars stand side by side."""

_COLUMNS = 3
_EDGE, _STEP = 0.03, 0.065
"""How far from the edge of a panel the first mark is of what is not on it, and each further one: of its height."""


class _Plot(NamedTuple):
    draw: Callable[[Path, Results, Sequence[str]], None]
    part: str


def _without_tuning(path: Path, results: Results, problems: Sequence[str]) -> None:
    """The paper's Figure 1: a line a row with seed 0; at the default a disc, and all that five seeds reach."""
    figure, panels = _figure(len(problems))
    look = results.look()
    for axis, problem in zip(panels, problems, strict=True):
        measure = results.measures[problem]
        axis.set_xscale("log")
        _name(axis, problem, measure, "learning rate")
        grids = {row: look.grid(problem, row) for row in look.rows(problem)}
        _limit(axis, measure, [it for grid in grids.values() for it in grid.values() if not isinstance(it, No)])
        edge: dict[str, Mapping[float, Outcome]] = {}
        for row, grid in grids.items():
            sample = look.sample(problem, row, SEEDS)
            _row(axis, row, grid, sample)
            edge[COLORS[label(row)]] = grid | {row.rate: No.DIVERGED} if sample.diverged else grid
        _mark_edge(axis, measure, edge)
    handles: list[Any] = [Line2D([], [], color=COLORS[label(row)], label=label(row)) for row in ROWS]
    gray: dict[str, Any] = {"color": "gray", "linestyle": "none"}
    handles.append(Line2D([], [], marker="o", label=f"default, {SEEDS} seeds", **gray))
    handles.append(Line2D([], [], marker="x", label="diverged", **gray))
    handles.append(Line2D([], [], marker="^", label="worse than the panel shows", **gray))
    _save(path, figure, handles)


def _row(axis: Any, row: Recipe, grid: Mapping[float, Outcome], sample: Sample) -> None:
    color, order = COLORS[label(row)], 3 if row == Recipe() else 2
    scores = {lr: score for lr, score in grid.items() if not isinstance(score, No)}
    axis.plot(list(scores), list(scores.values()), ".-", color=color, linewidth=1.4, markersize=5, zorder=order)
    if sample.scores and not sample.diverged:
        low, high, middle = min(sample.scores), max(sample.scores), mean(sample.scores)
        spread = [[middle - low], [high - middle]]
        axis.errorbar([row.rate], [middle], spread, fmt="o", color=color, markersize=7, capsize=3, zorder=order + 2)


def _mark_edge(axis: Any, measure: Measure, outcomes: Mapping[str, Mapping[float, Outcome]]) -> None:
    """Crosses at the panel's bad edge for what diverged, triangles for what lies beyond it, one above the other.

    `outcomes` are by color and x.
    """
    limit = axis.get_ylim()[0 if measure.higher_is_better else 1]
    stacked: Counter[float] = Counter()
    for color, by_x in outcomes.items():
        for x, outcome in by_x.items():
            if isinstance(outcome, No):
                marker = "x" if outcome is No.DIVERGED else ""
            elif measure.higher_is_better:
                marker = "v" if outcome < limit else ""
            else:
                marker = "^" if outcome > limit else ""
            if marker:
                away = _EDGE + _STEP * stacked[x]
                stacked[x] += 1
                y = away if measure.higher_is_better else 1.0 - away
                axis.plot([x], [y], marker, color=color, markersize=6, transform=axis.get_xaxis_transform(), zorder=6)


def _limit(axis: Any, measure: Measure, scores: Sequence[float]) -> None:
    """Show the best three quarters of the scores and as much again: one bad score must not flatten the others."""
    if not scores:
        return
    best = max(scores) if measure.higher_is_better else min(scores)
    losses = np.abs(np.array(scores) - best)
    reach = min(float(losses.max()), 2.0 * float(np.quantile(losses, 0.75))) or 1.0
    worst = best - reach if measure.higher_is_better else best + reach
    room = 0.12 * reach
    axis.set_ylim(*((worst - room, best + room) if measure.higher_is_better else (best - room, worst + room)))


def _bits(path: Path, results: Results, problems: Sequence[str]) -> None:
    """A line for each rounding and for the ladders; bars are standard deviations; float32 is a line with its band."""
    figure, panels = _figure(len(problems))
    look = results.look()
    for axis, problem in zip(panels, problems, strict=True):
        measure = results.measures[problem]
        _name(axis, problem, measure, "bits a weight")
        series = {name: _samples(look, problem, recipes) for name, recipes in _series().items()}
        base = look.sample(problem, bits_recipes()[BASELINE], FEWER_SEEDS)
        drawn = [base, *(sample for samples in series.values() for sample in samples.values())]
        _limit(axis, measure, [end for sample in drawn for end in _ends(sample)])
        if _ends(base):
            middle, spread = mean(base.scores), standard_deviation(base.scores) or 0.0
            axis.axhline(middle, color=COLORS[BASELINE], linewidth=1.2)
            axis.axhspan(middle - spread, middle + spread, color=COLORS[BASELINE], alpha=0.15, linewidth=0)
        edge: dict[str, Mapping[float, Outcome]] = {}
        for name, samples in series.items():
            there = {width: it.scores for width, it in samples.items() if it.scores and not it.diverged}
            means: dict[float, Outcome] = {width: mean(scores) for width, scores in there.items()}
            spreads = [standard_deviation(scores) or 0.0 for scores in there.values()]
            style: dict[str, Any] = {"color": _BITS_COLORS[name], "capsize": 3, "markersize": 5, "linewidth": 1.4}
            places = [width + _BESIDE[name] for width in means]
            axis.errorbar(places, list(means.values()), spreads, fmt="s--" if name == _LADDERS else "o-", **style)
            edge[_BITS_COLORS[name]] = means | {width: No.DIVERGED for width, it in samples.items() if it.diverged}
        _mark_edge(axis, measure, edge)
        axis.set_xticks([bits_of(Recipe(name)) for name in WIDTHS])
    handles: list[Any] = []
    for name, color in _BITS_COLORS.items():
        marker, line = ("s", "--") if name == _LADDERS else ("o", "-")
        handles.append(Line2D([], [], color=color, label=name, marker=marker, linestyle=line))
    handles.append(Line2D([], [], color=COLORS[BASELINE], label=BASELINE))
    handles.append(Line2D([], [], color="gray", linestyle="none", marker="x", label="diverged with some seed"))
    handles.append(Line2D([], [], color="gray", linestyle="none", marker="^", label="worse than the panel shows"))
    _save(path, figure, handles)


def _series() -> dict[str, list[Recipe]]:
    return {
        _STOCHASTIC: [paper(name) for name in WIDTHS],
        _NEAREST: [paper(name, rounding="nearest") for name in WIDTHS],
        _LADDERS: [ladder(levels, DEFAULT_LR) for levels in LADDERS],
    }


def _samples(look: Look, problem: str, recipes: Sequence[Recipe]) -> dict[float, Sample]:
    """By bits a weight."""
    return {bits_of(recipe): look.sample(problem, recipe, FEWER_SEEDS) for recipe in recipes}


def _ends(sample: Sample) -> tuple[float, ...]:
    """The mean, and a standard deviation to either side."""
    if not sample.scores or sample.diverged:
        return ()
    middle, spread = mean(sample.scores), standard_deviation(sample.scores) or 0.0
    return middle - spread, middle, middle + spread


def _figure(panels: int) -> tuple[Figure, Sequence[Any]]:
    rows = math.ceil(panels / _COLUMNS)
    columns = math.ceil(panels / rows)
    figure = Figure(figsize=(max(1.0 + 3.0 * columns, 6.0), 1.0 + 2.6 * rows))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    axes = np.asarray(figure.subplots(rows, columns, squeeze=False)).reshape(-1)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, list(axes[:panels])


def _name(axis: Any, problem: str, measure: Measure, x: str) -> None:
    axis.set_title(problem, fontsize=11, parse_math=False)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(f"{heading(measure)} ({'higher' if measure.higher_is_better else 'lower'} is better)", fontsize=9)
    axis.tick_params(labelsize=9)
    axis.grid(color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)


def _save(path: Path, figure: Figure, handles: list[Any]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


PLOTS: Mapping[str, _Plot] = {
    "without_tuning.png": _Plot(_without_tuning, "without-tuning"),
    "bits.png": _Plot(_bits, "bits"),
}
"""By the name of the file; each shows the problems of which there is a run of its part."""
