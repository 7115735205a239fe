"""Pictures of the study: panels side by side, one a problem, and what does not fit into one marked at its edge."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lnsnum.files.atomic import replacing
from lnsnum.study.cells import heading, plain
from lnsnum.study.results import No, Outcome
from lnsnum.tasks.measure import Measure

_COLUMNS = 3
UP, DOWN = r"$\uparrow$", r"$\downarrow$"
"""Markers of what lies beyond a panel, above and below."""
_EDGE, _STEP = 0.03, 0.065
"""How far from the edge of a panel the first mark is of what is not on it, and each further one: of its height."""


def figure_of(panels: int) -> tuple[Figure, Sequence[Any]]:
    """A figure and so many panels."""
    rows = math.ceil(panels / _COLUMNS)
    columns = math.ceil(panels / rows)
    figure = Figure(figsize=(max(1.0 + 3.0 * columns, 6.0), 1.0 + 2.6 * rows))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    axes = np.asarray(figure.subplots(rows, columns, squeeze=False)).reshape(-1)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, list(axes[:panels])


def name_axis(axis: Any, problem: str, measure: Measure, x: str) -> None:
    """The problem above a panel, its measure beside it, and what is below."""
    axis.set_title(problem, fontsize=11, parse_math=False)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(f"{heading(measure)} ({'higher' if measure.higher_is_better else 'lower'} is better)", fontsize=9)
    axis.tick_params(labelsize=9)
    axis.grid(color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)


def limit(axis: Any, measure: Measure, scores: Sequence[float], *, margins: float = math.inf) -> None:
    """Show the best three quarters of the scores and as much again, or so many margins from the best: one bad score
    must not flatten the others.
    """
    if not scores:
        return
    best = max(scores) if measure.higher_is_better else min(scores)
    losses = np.abs(np.array(scores) - best)
    reach = min(float(losses.max()), 2.0 * float(np.quantile(losses, 0.75)), margins * measure.margin_at(best)) or 1.0
    worst = best - reach if measure.higher_is_better else best + reach
    room = 0.12 * reach
    axis.set_ylim(*((worst - room, best + room) if measure.higher_is_better else (best - room, worst + room)))


def mark_edge(
    axis: Any, measure: Measure, outcomes: Mapping[str, Mapping[float, Outcome]], *, numbers: bool = False
) -> None:
    """Crosses at the panel's bad edge for what diverged, arrows for what lies beyond it, one above the other.

    `outcomes` are by color and x; with `numbers` those beyond stand beside their arrows, each on a line of its own.
    """
    edge = axis.get_ylim()[0 if measure.higher_is_better else 1]
    stacked: Counter[float] = Counter()
    for color, by_x in outcomes.items():
        for x, outcome in by_x.items():
            if isinstance(outcome, No):
                marker = "x" if outcome is No.DIVERGED else ""
            elif measure.higher_is_better:
                marker = DOWN if outcome < edge else ""
            else:
                marker = UP if outcome > edge else ""
            if marker:
                line = 0.0 if numbers else x
                away = _EDGE + _STEP * stacked[line]
                stacked[line] += 1
                y = away if measure.higher_is_better else 1.0 - away
                transform = axis.get_xaxis_transform()
                axis.plot([x], [y], marker=marker, color=color, markersize=6, transform=transform, zorder=6)
                if numbers and not isinstance(outcome, No):
                    text = f"   {plain(measure, outcome)}"
                    axis.text(x, y, text, color=color, fontsize=7, va="center", transform=transform, zorder=6)


def save(path: Path, figure: Figure, handles: list[Any]) -> None:
    """Write the picture with its legend, at once."""
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
