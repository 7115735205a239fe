"""The study as two pictures, a panel a problem: scores over learning rates, and over bits a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.lines import Line2D

from lnsnum.study.panels import UP, figure_of, limit, mark_edge, name_axis, save
from lnsnum.study.plan import FEWER_SEEDS, LADDERS, ROWS, SEEDS, WIDTHS, bits_recipes, ladder, paper
from lnsnum.study.results import Look, No, Outcome, Results, Sample, label
from lnsnum.study.statistics import mean, standard_deviation
from lnsnum.study.variants import BASELINE, bits_of
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


class Plot(NamedTuple):
    """A picture of a part of the study."""

    draw: Callable[[Path, Results, Sequence[str]], None]
    part: str


def _without_tuning(path: Path, results: Results, problems: Sequence[str]) -> None:
    """The paper's Figure 1: a line a row with seed 0; at the default a disc, and all that five seeds reach."""
    figure, panels = figure_of(len(problems))
    look = results.look()
    for axis, problem in zip(panels, problems, strict=True):
        measure = results.measures[problem]
        axis.set_xscale("log")
        name_axis(axis, problem, measure, "learning rate")
        grids = {row: look.grid(problem, row) for row in look.rows(problem)}
        limit(axis, measure, [it for grid in grids.values() for it in grid.values() if not isinstance(it, No)])
        edge: dict[str, Mapping[float, Outcome]] = {}
        for row, grid in grids.items():
            sample = look.sample(problem, row, SEEDS)
            _row(axis, row, grid, sample)
            edge[COLORS[label(row)]] = grid | {row.rate: No.DIVERGED} if sample.diverged else grid
        mark_edge(axis, measure, edge)
    handles: list[Any] = [Line2D([], [], color=COLORS[label(row)], label=label(row)) for row in ROWS]
    gray: dict[str, Any] = {"color": "gray", "linestyle": "none"}
    handles.append(Line2D([], [], marker="o", label=f"default, {SEEDS} seeds", **gray))
    handles.append(Line2D([], [], marker="x", label="diverged", **gray))
    handles.append(Line2D([], [], marker=UP, label="worse than the panel shows", **gray))
    save(path, figure, handles)


def _row(axis: Any, row: Recipe, grid: Mapping[float, Outcome], sample: Sample) -> None:
    color, order = COLORS[label(row)], 3 if row == Recipe() else 2
    scores = {lr: score for lr, score in grid.items() if not isinstance(score, No)}
    axis.plot(list(scores), list(scores.values()), ".-", color=color, linewidth=1.4, markersize=5, zorder=order)
    if sample.scores and not sample.diverged:
        low, high, middle = min(sample.scores), max(sample.scores), mean(sample.scores)
        spread = [[middle - low], [high - middle]]
        axis.errorbar([row.rate], [middle], spread, fmt="o", color=color, markersize=7, capsize=3, zorder=order + 2)


def _bits(path: Path, results: Results, problems: Sequence[str]) -> None:
    """A line for each rounding and for the ladders; bars are standard deviations; float32 is a line with its band."""
    figure, panels = figure_of(len(problems))
    look = results.look()
    for axis, problem in zip(panels, problems, strict=True):
        measure = results.measures[problem]
        name_axis(axis, problem, measure, "bits a weight")
        series = {name: _samples(look, problem, recipes) for name, recipes in _series().items()}
        base = look.sample(problem, bits_recipes()[BASELINE], FEWER_SEEDS)
        drawn = [base, *(sample for samples in series.values() for sample in samples.values())]
        limit(axis, measure, [end for sample in drawn for end in _ends(sample)])
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
        mark_edge(axis, measure, edge)
        axis.set_xticks([bits_of(Recipe(name)) for name in WIDTHS])
    handles: list[Any] = []
    for name, color in _BITS_COLORS.items():
        marker, line = ("s", "--") if name == _LADDERS else ("o", "-")
        handles.append(Line2D([], [], color=color, label=name, marker=marker, linestyle=line))
    handles.append(Line2D([], [], color=COLORS[BASELINE], label=BASELINE))
    handles.append(Line2D([], [], color="gray", linestyle="none", marker="x", label="diverged with some seed"))
    handles.append(Line2D([], [], color="gray", linestyle="none", marker=UP, label="worse than the panel shows"))
    save(path, figure, handles)


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


PLOTS: Mapping[str, Plot] = {
    "without_tuning.png": Plot(_without_tuning, "without-tuning"),
    "bits.png": Plot(_bits, "bits"),
}
"""By the name of the file; each shows the problems of which there is a run of its part."""
