"""The picture of a training's log: loss and learning rate, and what the steps did to the codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lnsnum.files.atomic import replacing

__all__ = ["plot_log"]

_SMOOTHING = 20
"""Steps whose mean is drawn."""

_SHARES = {"moved": "moved", "at_ceiling": "at the ceiling", "at_floor": "at the floor", "zeros": "zeros"}


def plot_log(path: Path, lines: Sequence[dict[str, Any]], title: str = "") -> None:
    """Write one picture of the lines that `read_log` gives.

    Args:
        path: the picture; its ending says which kind. It is replaced at once or not at all.
        lines: of one log.
        title: stands above it.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(title)
    loss, lr, shares = figure.subplots(1, 3)
    loss.semilogy(*_curve(lines, "loss"))
    loss.set(xlabel="step", ylabel="loss")
    lr.plot(*_curve(lines, "lr", smoothing=1))
    lr.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    for name, label in _SHARES.items():
        steps, values = _curve(lines, name)
        if len(values):
            shares.plot(steps, values, label=label)
    shares.set(xlabel="step", ylabel="share of the codes", ylim=(0, None))
    if shares.lines:
        shares.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=110)


def _curve(lines: Sequence[dict[str, Any]], name: str, *, smoothing: int = _SMOOTHING) -> tuple[Any, Any]:
    """Steps, and the means of a field over so many of them, where it is known."""
    known = [(line["step"], line[name]) for line in lines if line[name] is not None]
    if not known:
        return np.empty(0), np.empty(0)
    steps, values = np.array(known).T
    window = min(smoothing, len(values))
    return steps[window - 1 :], np.convolve(values, np.ones(window) / window, mode="valid")
