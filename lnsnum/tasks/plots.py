"""Plots of training runs: loss, how many codes move, and where the codes end up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from lnsnum.files.atomic import replacing
from lnsnum.tasks.training import History
from lnsnum.torch_bridge import LNSWeight

_SMOOTHING = 20


def plot_training(path: Path, runs: list[tuple[str, History]], model: nn.Module) -> None:
    """Write one image: training loss, share of codes moved in a step, histogram of the model's log magnitudes.

    Args:
        path: the image; its ending says which kind. It is replaced at once or not at all.
        runs: label and history of each run; the curves are means over 20 steps.
        model: the histogram's, drawn where it has LNS weights.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, moved, codes = figure.subplots(1, 3)
    for label, history in runs:
        loss.semilogy(_smooth(history.loss), label=label)
        if any(history.moved):
            moved.plot(_smooth(history.moved), label=label)
    loss.set(xlabel="step", ylabel="training loss")
    loss.legend()
    moved.set(xlabel="step", ylabel="share of codes moved", ylim=(0, None))
    weights = [p for p in model.parameters() if isinstance(p, LNSWeight)]
    if weights:
        fmt = weights[0].fmt
        magnitudes = torch.cat([(p.codes.to(torch.int64) & fmt.max_magnitude).reshape(-1) for p in weights])
        counts = np.bincount(magnitudes.numpy(), minlength=fmt.max_magnitude + 1)
        codes.bar(np.arange(counts.size), counts, width=1.0)
        codes.set(xlabel=f"log magnitude m ({fmt.name})", ylabel="weights")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=110)


def _smooth(values: list[float]) -> np.ndarray:
    window = min(_SMOOTHING, len(values))
    return np.convolve(values, np.ones(window) / window, mode="valid")
