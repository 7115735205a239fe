"""Formats as pictures: where their numbers lie, what rounding costs, which codes a tensor has."""

from __future__ import annotations

from typing import Any

import numpy as np

from lnsnum.array.storage import ScaledCodes
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import of_elements
from lnsnum.plots.numbers import numbers_of

Axes = Any
"""matplotlib.axes.Axes, which nothing here imports."""


def number_line(ax: Axes, *formats: str | LNSFormat, low: float = 0.0, high: float = 2.0) -> Axes:
    """A row of marks for each format: its numbers from `low` to `high`, both included.

    Args:
        ax: axes of matplotlib.
        formats: LNS formats or their names, and names of floats and posits, as "float8_e4m3fn" and "posit8"; of up to
            16 bits.
        low, high: the part of the line; negative numbers are there too.

    Returns:
        ax. Each row is a line of markers, the first on top.

    Raises:
        ValueError: for no format, or one of more than 16 bits.

    >>> from matplotlib.figure import Figure
    >>> ax = number_line(Figure().subplots(), "lns4f1", high=1.0)
    >>> ax.lines[0].get_xdata().round(2).tolist()
    [0.0, 0.35, 0.5, 0.71, 1.0]
    """
    if not formats:
        raise ValueError("no format was given: name one or several, as 'lns8f3'")
    names = []
    for row, name in enumerate(formats):
        numbers = numbers_of(name)
        positive = numbers.positive()
        values = np.concatenate([-positive[::-1], [0.0], positive])
        shown = values[(values >= low) & (values <= high)]
        ax.plot(shown, np.full(shown.size, -row), "|", markersize=18, label=numbers.name)
        names.append(numbers.name)
    ax.set_yticks([-row for row in range(len(names))], names)
    ax.set(ylim=(-len(names) + 0.4, 0.6), xlabel="value")
    return ax


def relative_error(
    ax: Axes, *formats: str | LNSFormat, low: float | None = None, high: float | None = None, points: int = 4000
) -> Axes:
    """What rounding costs over the range: |rounded x - x| / x, a line for each format, both axes logarithmic.

    It is 1 below the range, where numbers become zero; LNS formats and posits saturate above it, floats are not drawn
    there. (Posits saturate below, too.)

    Args:
        ax: axes of matplotlib.
        formats: as of `number_line`, of any width.
        low, high: the part of the axis; the range of all the formats, and an octave more, where nothing is said.
        points: so many numbers, equally far apart in their logarithm.

    Returns:
        ax.

    Raises:
        ValueError: for no format, or numbers that are not 0 < low < high.

    >>> from matplotlib.figure import Figure
    >>> ax = relative_error(Figure().subplots(), "lns8f3", low=1.0, high=2.0)
    >>> bool(ax.lines[0].get_ydata().max() < 0.0443)
    True
    """
    if not formats:
        raise ValueError("no format was given: name one or several, as 'lns8f3'")
    all_numbers = [numbers_of(name) for name in formats]
    low = max(min(n.smallest for n in all_numbers) / 2.0, 1e-200) if low is None else low
    high = min(max(n.greatest for n in all_numbers) * 2.0, 1e200) if high is None else high
    if not 0.0 < low < high < np.inf:
        raise ValueError(f"low={low!r} and high={high!r} are no part of the axis: 0 < low < high")
    x = np.geomspace(low, high, points)
    least = 1.0
    for numbers in all_numbers:
        error = np.abs(numbers.round(x) - x) / x
        error[~np.isfinite(error)] = np.nan
        ax.plot(x, error, linewidth=0.8, label=numbers.name)
        within = (x > numbers.smallest_normal) & (x < numbers.greatest) & (error > 0.0)
        least = min(least, float(np.median(error[within])) if within.any() else least)
    # towards each number the error falls to zero: the axis ends where little of that is seen
    ax.set(xscale="log", yscale="log", xlabel="value", ylabel="relative error of rounding", ylim=(least / 10.0, 1.5))
    ax.legend()
    return ax


def tensor_histogram(ax: Axes, tensor: Any, *, label: str | None = None) -> Axes:
    """How many elements of a tensor have each magnitude: positive ones upwards, negative ones downwards.

    The axis is log2 of the magnitude; bins are code steps from half a step below the format's smallest to half a step
    above its greatest, at the scales that occur. Zeros and NaN are counted in the title.

    Args:
        ax: axes of matplotlib.
        tensor: an `LNSTensor`, or a weight that has one, as `LNSWeight.to_lns()` gives it.
        label: of the legend; the format's name where nothing is said.

    Returns:
        ax, with two steps of matplotlib's (`stairs`): positive, negative.

    Raises:
        TypeError: for what holds no codes.

    >>> from lnsnum import LNSTensor
    >>> from matplotlib.figure import Figure
    >>> ax = tensor_histogram(Figure().subplots(), LNSTensor.from_float([1.0, 1.0, -2.0, 0.0], "lns8f3"))
    >>> [float(part.get_data().values.sum()) for part in ax.patches], ax.get_title()
    ([2.0, -1.0], 'lns8f3: 4 numbers, 1 zero, 0 NaN')
    """
    if not isinstance(tensor, ScaledCodes):
        raise TypeError(
            f"a {type(tensor).__name__} holds no codes: give an LNSTensor, made by LNSTensor.from_float or by "
            "LNSWeight.to_lns()"
        )
    fmt = tensor.fmt
    codes = tensor.codes.astype(np.int64)
    m, negative = codes & fmt.max_magnitude, codes > fmt.sign_bit
    offsets = of_elements(tensor.log_offset, tensor.shape)
    least, greatest = (int(offsets.min()), int(offsets.max())) if offsets.size else (0, 0)
    first, bins = least - fmt.max_log, greatest - least + fmt.max_magnitude
    logs = m - fmt.bias + offsets - first
    edges = (np.arange(bins + 1) + first - 0.5) / fmt.codes_per_octave
    for sign, where in ((1, (m > 0) & ~negative), (-1, negative)):
        counts = np.bincount(logs[where], minlength=bins).astype(np.float64)
        ax.stairs(sign * counts, edges, fill=True, label=(label or fmt.name) if sign > 0 else None)
    zeros, nans = int(np.count_nonzero(codes == 0)), int(np.count_nonzero(codes == fmt.nan_code))
    plural = "" if zeros == 1 else "s"
    ax.set_title(f"{fmt.name}: {tensor.size:,} numbers, {zeros:,} zero{plural}, {nans:,} NaN")
    ax.set(xlabel="log2 of the magnitude", ylabel="numbers")
    return ax
