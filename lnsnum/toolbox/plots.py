"""Histograms of codes as a picture: where on the logarithmic axis the numbers of a tensor are, and those of all.

height of a bin  =  its numbers / its width in octaves,      so that bins of different widths can be compared
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from lnsnum.files.atomic import replacing, shown
from lnsnum.toolbox.inspection import CodeReport, FileReport, TensorReport

__all__ = ["plot_codes"]

MOST_PANELS = 15
"""Tensors that get a panel: of more, the largest."""

_COLUMNS, _BINS = 4, 128
_ENDS: dict[str, Any] = {"color": "gray", "linewidth": 0.8, "linestyle": ":"}
_LEGEND = "ends of the format at the tensor's scale"


def plot_codes(path: Path, report: FileReport) -> None:
    """Write one picture: a panel for each of the LNS tensors with the most elements, and one over all of them.

    Args:
        path: the picture; its ending says which kind. It is replaced at once or not at all.
        report: has an LNS tensor.
    """
    tensors = [tensor for tensor in report.tensors if tensor.codes is not None]
    largest = sorted(tensors, key=lambda tensor: -tensor.elements)[:MOST_PANELS]
    chosen = [tensor for tensor in tensors if any(tensor is one for one in largest)]
    panels: list[tuple[str, Sequence[TensorReport]]] = [(_title(tensor), [tensor]) for tensor in chosen]
    if len(tensors) > 1:
        panels.append((f"all {len(tensors)} tensors", tensors))
    columns = min(len(panels), _COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(1.0 + 3.4 * columns, 0.6 + 2.4 * rows))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    axes = np.asarray(figure.subplots(rows, columns, squeeze=False)).reshape(-1)
    for axis, (title, shown_here) in zip(axes, panels, strict=False):
        _draw(axis, title, [tensor.codes for tensor in shown_here if tensor.codes is not None])
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.legend(handles=[Line2D([], [], label=_LEGEND, **_ENDS)], loc="outside lower center", fontsize=8)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name may have characters that the font has not
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=110)


def _title(tensor: TensorReport) -> str:
    name = shown(tensor.name) or "''"
    assert tensor.codes is not None
    return f"{name if len(name) <= 32 else '...' + name[-29:]} ({tensor.codes.fmt.name})"


def _draw(axis: Any, title: str, codes: Sequence[CodeReport]) -> None:
    """The histogram of one tensor, between the ends of what its format has, or of several."""
    edges, counts = common_histogram(codes)
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.set_xlabel(r"$\log_2 |x|$", fontsize=8)
    axis.set_ylabel("numbers per octave", fontsize=8)
    axis.stairs(counts / np.diff(edges), edges, fill=True)
    if len(codes) == 1:
        for end in (edges[0], edges[-1]):
            axis.axvline(end, **_ENDS)
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    axis.locator_params(axis="x", nbins=6)  # labels such as -17.5 have room
    axis.tick_params(labelsize=8)
    axis.yaxis.get_offset_text().set_fontsize(8)


def common_histogram(codes: Sequence[CodeReport]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The numbers of several tensors in bins of log2 |x|, from the smallest that any has to the greatest.

    A tensor's own bin that lies in several of these counts in each by the part that lies there. Of one tensor the own
    bins are kept, from the format's smallest number to its greatest, where they are not too many for the picture.

    Returns:
        The edges of the bins, and what is in each.
    """
    if len(codes) == 1 and len(codes[0].log_histogram.counts) <= 2 * _BINS:
        return _edges(codes[0]), np.array(codes[0].log_histogram.counts, np.float64)
    own = [_edges(one) for one in codes]
    ends = [_occupied(one, its) for one, its in zip(codes, own, strict=True)]
    edges = np.linspace(min(low for low, _ in ends), max(high for _, high in ends), 2 * _BINS + 1)
    below = np.zeros(edges.size)
    for one, its in zip(codes, own, strict=True):
        below += np.interp(edges, its, np.concatenate([[0.0], np.cumsum(one.log_histogram.counts, dtype=np.float64)]))
    return edges, np.diff(below)


def _occupied(codes: CodeReport, edges: NDArray[np.float64]) -> tuple[float, float]:
    """The part of a histogram's axis that has anything; all of it where nothing has."""
    where = np.flatnonzero(codes.log_histogram.counts)
    return (edges[where[0]], edges[where[-1] + 1]) if where.size else (edges[0], edges[-1])


def _edges(codes: CodeReport) -> NDArray[np.float64]:
    """From half a step below the format's smallest number, at the least scale, to half a step above its greatest."""
    bins = codes.log_histogram
    logs = bins.first + bins.width * np.arange(len(bins.counts) + 1, dtype=np.float64)
    logs[-1] = codes.offsets[1] + codes.fmt.max_log + 1  # the last bin may be narrower
    return np.asarray((logs - 0.5) / codes.fmt.codes_per_octave)
