"""The second edition as pictures, a panel a problem: test scores over bytes a weight, and over learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lnsnum.study.panels import UP, figure_of, limit, mark_edge, name_axis, save
from lnsnum.study.plan import Run
from lnsnum.study.plots import Plot
from lnsnum.study.results import No, Outcome, Results, Sample, problem_of
from lnsnum.study.second_plan import OURS, ROWS, curve, grid_of, rows_on
from lnsnum.study.standings import Held, Standing, best_float, standings
from lnsnum.study.statistics import half_width, mean

STYLES: Mapping[str, tuple[str, str]] = {
    OURS: ("#000000", "o"),
    "lns8f5 Madam, momentum": ("#7a0177", "o"),
    "lns8f4 Madam": ("#08519c", "o"),
    "lns6f3 Madam, groups": ("#4292c6", "o"),
    "lns4f1 Madam, groups": ("#9ecae1", "o"),
    "float32 Madam": ("#555555", "s"),
    "lns8f5 paper's Madam": ("#238b45", "^"),
    "float32 paper's Madam": ("#74c476", "s"),
    "float32 SGD": ("#ff7f0e", "s"),
    "float32 Adam": ("#d62728", "s"),
    "float32 AdamW": ("#fb9a99", "s"),
    "int8 AdamW8bit": ("#6a3d9a", "D"),
    "bfloat16 AdamW, stochastic": ("#b15928", "v"),
    "bfloat16 AdamW, Kahan": ("#e6ab02", "v"),
    "lns16f11 LNS-Madam": ("#41ab9d", "^"),
}
"""Color and marker of each row: ours discs, floats of four bytes squares, of two bytes triangles down."""


_TICKS = (2, 3, 4, 6, 8, 12)
_BAND = "#e3e3e3"
_GRAY: Mapping[str, Any] = {"color": "gray", "linestyle": "none"}
_MARGINS = 20.0
"""So many margins from the best score the panels of learning rates show."""
_ASIDE = 1.015
"""By this factor rows are moved aside, so that the bars of those with the same bytes stand side by side."""


class _Held(NamedTuple):
    held: Held
    sample: Sample


def _held(rows: Mapping[str, Standing]) -> dict[str, _Held]:
    """The rows of which a run came to an end."""
    return {name: _Held(it.held, it.sample) for name, it in rows.items() if it.held and it.sample}


def _state_bytes(path: Path, results: Results, problems: Sequence[str]) -> None:
    """Mean and half of its interval over the bytes of weights and of the optimizer, each row with all its seeds."""
    figure, panels = figure_of(len(problems))
    look = results.look()
    for axis, problem in zip(panels, problems, strict=True):
        measure = results.measures[problem]
        axis.set_xscale("log", base=2)
        name_axis(axis, problem, measure, "bytes a weight, with its state")
        rows = standings(results, look, problem)
        there = _held(rows)
        means = {name: mean(it.sample.scores) for name, it in there.items() if it.sample.complete}
        widths = {name: half_width(there[name].sample.scores) or 0.0 for name in means}
        limit(axis, measure, [y + end * widths[name] for name, y in means.items() for end in (-1, 1)])
        rival = best_float(results, problem, rows)
        if rival is not None and rival.label in means:
            level = means[rival.label]
            axis.axhspan(level, level - measure.sign * measure.margin_at(level), color=_BAND, zorder=0)
        edge: dict[str, dict[float, Outcome]] = {}
        for place, (name, it) in enumerate(there.items()):
            color, marker = STYLES[name]
            x = (it.held.weights + it.held.state) * _ASIDE ** (place % 5 - 2)
            edge[color] = {x: means.get(name, No.DIVERGED if it.sample.diverged else No.MISSING)}
            if name in means:
                axis.errorbar(
                    [x], [means[name]], [widths[name]], fmt=marker, color=color, markersize=6, capsize=2,
                    linewidth=1.2, zorder=4 if name == OURS else 3,
                )  # fmt: skip
        mark_edge(axis, measure, edge, numbers=True)
        axis.set_xticks(_TICKS, map(str, _TICKS))
        axis.minorticks_off()
    save(path, figure, [*_legend(ROWS), Patch(color=_BAND, label="level with the best float32 rival")])


def _learning_rates(path: Path, results: Results, problems: Sequence[str]) -> None:
    """The paper's Figure 1: a line a row, test scores of seed 0; what has one rate alone is a point. The rate that was
    chosen, by validation scores, has a ring."""
    figure, panels = figure_of(len(problems))
    look = results.look()
    for axis, problem in zip(panels, problems, strict=True):
        measure, it = results.measures[problem], problem_of(problem, results.edition)
        axis.set_xscale("log")
        name_axis(axis, problem, measure, "learning rate")
        grids = {name: grid_of(row, it, measure, results.choosing) for name, row in rows_on(it).items()}
        lines = {name: _line(look.outcome, curve(it) if name == OURS else grid) for name, grid in grids.items()}
        scores = [y for line in lines.values() for y in line.values() if not isinstance(y, No)]
        limit(axis, measure, scores, margins=_MARGINS)
        rows = standings(results, look, problem)
        chosen = {name: it.best for name, it in rows.items() if it.validation is not None}
        for name, line in lines.items():
            color, marker = STYLES[name]
            drawn = {x: y for x, y in line.items() if not isinstance(y, No)}
            axis.plot(
                list(drawn), list(drawn.values()), marker=marker, color=color, linewidth=1.3, markersize=4,
                zorder=4 if name == OURS else 3,
            )  # fmt: skip
            best = chosen.get(name)
            if best is not None and len(drawn) > 1 and best.recipe.rate in drawn:
                lr = best.recipe.rate
                axis.plot([lr], [drawn[lr]], "o", color=color, markersize=9, fillstyle="none", zorder=5)
        # a line shows by itself where it leaves the panel: of what is beyond, the rates that count are marked
        counting = {name: it.recipe.rate for name, it in chosen.items() if it is not None}
        marked = {
            STYLES[name][0]: {x: y for x, y in line.items() if isinstance(y, No) or x == counting.get(name)}
            for name, line in lines.items()
        }
        mark_edge(axis, measure, marked)
    save(path, figure, [*_legend(ROWS), Line2D([], [], marker="o", fillstyle="none", label="chosen", **_GRAY)])


def _line(outcome_of: Any, runs: Sequence[Run]) -> dict[float, Outcome]:
    """By learning rate."""
    return {run.recipe.rate: outcome_of(run) for run in runs}


def _legend(names: Mapping[str, object]) -> list[Any]:
    handles: list[Any] = []
    for name in names:
        color, marker = STYLES[name]
        handles.append(Line2D([], [], color=color, marker=marker, label=name, linestyle="none"))
    handles.append(Line2D([], [], marker="x", label="diverged", **_GRAY))
    handles.append(Line2D([], [], marker=UP, label="worse than the panel shows", **_GRAY))
    return handles


SECOND_PLOTS: Mapping[str, Plot] = {
    "state_bytes.png": Plot(_state_bytes, "rows"),
    "learning_rates.png": Plot(_learning_rates, "rows"),
}
"""By the name of the file; each shows the problems of which there is a run of its part."""
