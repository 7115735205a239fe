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

MOST_POINTS = 1_000_000
"""Of a line, far more than a picture shows."""

MOST_BINS = 1 << 16
"""Of a histogram: the magnitudes of 17 bits."""


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, (int, float, np.integer, np.floating)) for value in values)


def _check_part(name: str, low: object, high: object, is_part: bool) -> None:
    if not is_part:
        positive = "0 < " if name == "axis" else ""
        raise ValueError(f"low={low!r} and high={high!r} are no part of the {name}: {positive}low < high")


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
        TypeError: for formats that are neither one nor its name.
        ValueError: for no format, or one of more than 16 bits, or numbers that are not low < high.

    >>> from matplotlib.figure import Figure
    >>> ax = number_line(Figure().subplots(), "lns4f1", high=1.0)
    >>> ax.lines[0].get_xdata().round(2).tolist()
    [0.0, 0.35, 0.5, 0.71, 1.0]
    """
    if not formats:
        raise ValueError("no format was given: name one or several, as 'lns8f3'")
    _check_part("line", low, high, low < high if _are_numbers(low, high) else False)
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
        TypeError: for formats that are neither one nor its name.
        ValueError: for no format, numbers that are not 0 < low < high, or points that are no integer above 1.

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
    _check_part("axis", low, high, 0.0 < low < high < np.inf if _are_numbers(low, high) else False)
    if not isinstance(points, (int, np.integer)) or not 2 <= points <= MOST_POINTS:
        raise ValueError(f"points={points!r} does not draw a line: an integer from 2 to {MOST_POINTS:,}")
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
    above its greatest, at the scales that occur; several steps, where these are more than 65,536. Zeros and NaN are
    counted in the title.

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
    first, steps = least - fmt.max_log, greatest - least + fmt.max_magnitude
    # so many steps a bin: those of 32 bits, or of scales far apart, are more than memory holds
    width = -(-steps // MOST_BINS)
    bins = -(-steps // width)
    logs = (m - fmt.bias + offsets - first) // width
    edges = (np.arange(bins + 1) * width + first - 0.5) / fmt.codes_per_octave
    for sign, where in ((1, (m > 0) & ~negative), (-1, negative)):
        counts = np.bincount(logs[where], minlength=bins).astype(np.float64)
        ax.stairs(sign * counts, edges, fill=True, label=(label or fmt.name) if sign > 0 else None)
    zeros, nans = int(np.count_nonzero(codes == 0)), int(np.count_nonzero(codes == fmt.nan_code))
    said = ", ".join(f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in ((tensor.size, "number"), (zeros, "zero")))
    ax.set_title(f"{fmt.name}: {said}, {nans:,} NaN")
    ax.set(xlabel="log2 of the magnitude", ylabel="numbers")
    return ax
