"""Trainings as pictures: which codes the weights have, step after step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lnsnum.plots.formats import Axes


def codes_over_training(ax: Axes, lines: Sequence[Mapping[str, Any]], weight: str | None = None) -> Axes:
    """The share of each magnitude m over the steps of a training, as an image: steps to the right, m upwards.

    Row 0 is zero; the top row the ceiling.

    Args:
        ax: axes of matplotlib.
        lines: those of a log, as `lnsnum.files.run_log.read_log` gives them, of a `Monitor` with histogram_of=.
        weight: the name of one; all of them together where nothing is said, which must have one format then.

    Returns:
        ax, with one mesh whose array has a row for each m and a column for each step that has a histogram.

    Raises:
        TypeError: for what are no lines, as the path of a log.
        ValueError: where the log has no histograms, or none of that weight, or weights of several formats.

    >>> from matplotlib.figure import Figure
    >>> lines = [{"step": step, "histograms": {"w": [0, step, 1]}} for step in (1, 3)]
    >>> ax = codes_over_training(Figure().subplots(), lines)
    >>> ax.collections[0].get_array().tolist()
    [[0.0, 0.0], [0.5, 0.75], [0.5, 0.25]]
    """
    if isinstance(lines, (str, Path)) or not all(isinstance(line, Mapping) for line in lines):
        raise TypeError(f"lines={lines!r} are no lines of a log: give those of lnsnum.files.run_log.read_log(path)")
    there = [line for line in lines if line.get("histograms")]
    if not there:
        raise ValueError("the log has no histograms: give Monitor a model, as histogram_of=model")
    names = list(there[0]["histograms"])
    if weight is not None and weight not in names:
        raise ValueError(f"the log has no weight {weight!r}: it has {', '.join(names)}")
    columns = []
    for line in there:
        counts = [np.asarray(own, np.float64) for name, own in line["histograms"].items() if weight in (None, name)]
        if len({own.size for own in counts}) > 1:
            raise ValueError(f"the weights have several formats: name one of {', '.join(names)}")
        total = np.sum(counts, axis=0)
        columns.append(total / max(total.sum(), 1.0))
    steps = np.array([line["step"] for line in there], np.float64)
    # a column reaches half-way to its neighbours
    middle = (steps[1:] + steps[:-1]) / 2
    first, last = (
        (steps[0] - 0.5, steps[-1] + 0.5) if steps.size == 1 else (2 * steps[0] - middle[0], 2 * steps[-1] - middle[-1])
    )
    edges = np.concatenate([[first], middle, [last]])
    shares = np.stack(columns, axis=1)
    mesh = ax.pcolormesh(edges, np.arange(shares.shape[0] + 1) - 0.5, shares)
    ax.figure.colorbar(mesh, ax=ax, label="share of the weights")
    ax.set(xlabel="step", ylabel="magnitude m of the code", title=weight or "all weights")
    return ax
