"""The scale at which numbers lose least: the least squared error over all log_offsets.

    error(hi)  =   sum over      |w| > X[hi]     (|w| - X[hi])^2                        clipped
                 + sum over X[lo] <= |w| <= X[hi]  (|w| - the code's)^2                 inside
                 + sum over      |w| < X[lo]     min(|w|, X[lo] - |w|)^2                below the floor

X[E] = base^(E / 2^F). The magnitudes at all scales are those of one grid, of which a scale shows a window: lo to hi, as
many E's as a format has magnitudes. So what a number inside loses is the same at every scale, and with sorted
magnitudes and running sums each window costs a few additions. They are tried from the greatest magnitude down; where
what is clipped alone costs more than the best window, no lower one can win, so the least is that of all.

Each number may have a weight, by which its square counts.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch

from lnsnum.format import LNSFormat, check_log_offset
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import in_chunks
from lnsnum.torch_bridge.kernels.codes import as_numpy
from lnsnum.torch_bridge.kernels.threads import torch_team

Axis = Literal["log", "value"]
"""On which axis numbers are rounded to nearest: "log" as conversion does by default, where nonzero numbers do not
become zero, or "value", where zero is a neighbour as others are."""

# Numbers that are worth a thread of their own: they are sorted.
_PARALLEL = 1 << 13


def least_error_offsets(
    rows: torch.Tensor, fmt: LNSFormat, *, axis: Axis = "value", weights: torch.Tensor | None = None
) -> list[int | None]:
    """The log_offset of least squared error for each row of a matrix; None for a row of nothing but zeros.

    Args:
        rows: float64, finite.
        fmt: the format.
        axis: how numbers are rounded.
        weights: float64, at least 0, that broadcast to rows: what each square counts.

    Raises:
        ValueError: where one would be larger than 2^30 in size.

    >>> from lnsnum import lns4f1
    >>> least_error_offsets(torch.tensor([[1.0, 0.5, 0.25], [0.0, 0.0, 0.0]], dtype=torch.float64), lns4f1)
    [-3, None]
    """
    values = as_numpy(rows.abs().cpu().contiguous())
    counted = np.ones(1) if weights is None else as_numpy(weights.expand(rows.shape).cpu().contiguous()).reshape(-1)
    top = np.empty(len(values), np.int64)
    step = math.log(fmt.base) / (1 << fmt.fraction_bits)

    def run(begin: int, end: int) -> None:
        _least(values, counted, step, fmt.max_magnitude - 1, axis == "log", top, begin, end)

    in_chunks(run, len(values), max(_PARALLEL // max(values.shape[1], 1), 1), alignment=1, threads=torch_team())
    return [None if hi == _NOTHING else check_log_offset(hi - fmt.max_log) for hi in top.tolist()]


_NOTHING = -(1 << 62)


@kernel
def _least(values, weights, step, window, log_axis, top, begin, end):  # type: ignore[no-untyped-def]
    for r in range(begin, end):
        row = values[r]
        own = weights[r * row.size : (r + 1) * row.size] if weights.size > 1 else weights
        top[r] = _least_of(row, own, step, window, log_axis)


@kernel
def _least_of(row, weights, step, window, log_axis):  # type: ignore[no-untyped-def]
    """E of the greatest magnitude of the best window; `window` steps below it is the smallest."""
    order = np.argsort(row)
    n = np.sum(row > 0.0)
    if n == 0:
        return np.int64(-(1 << 62))
    order = order[row.size - n :]
    greatest = row[order[-1]]
    # where nothing counts, everything does
    weighted = weights.size > 1 and np.sum(weights[order]) > 0.0
    # E of the greatest, a real number; all magnitudes are in units of it, so that no square leaves the range
    place = np.log(greatest) / step
    u = np.empty(n)
    # running sums of the first i: weights, weighted magnitudes and squares, and what is lost inside of a window
    count, first, second, inside = np.zeros(n + 1), np.zeros(n + 1), np.zeros(n + 1), np.zeros(n + 1)
    for i in range(n):
        x = row[order[i]] / greatest
        h = weights[order[i]] if weighted else 1.0
        p = place + np.log(max(x, 1e-300)) / step
        low = np.exp((np.floor(p) - place) * step)
        high = low * np.exp(step)
        lost = x - low if p - np.floor(p) < 0.5 else high - x
        if not log_axis:
            lost = min(abs(x - low), abs(high - x))
        u[i] = x
        count[i + 1] = count[i] + h
        first[i + 1] = first[i] + h * x
        second[i + 1] = second[i] + h * x * x
        inside[i + 1] = inside[i] + h * lost * lost
    best, best_top = np.inf, np.int64(np.ceil(place))
    top = best_top
    above = below = zero = n  # how many are at most the greatest, below the smallest, and rounded to zero
    while True:
        high, low = np.exp((top - place) * step), np.exp((top - window - place) * step)
        while above > 0 and u[above - 1] > high:
            above -= 1
        while below > 0 and u[below - 1] >= low:
            below -= 1
        while zero > 0 and (log_axis or u[zero - 1] > low / 2):
            zero -= 1
        some, sums = count[n] - count[above], first[n] - first[above]
        clipped = max(second[n] - second[above] - 2 * high * sums + high * high * some, 0.0)
        if clipped > best:
            return best_top
        some, sums = count[below] - count[zero], first[below] - first[zero]
        under = second[zero] + max(second[below] - second[zero] - 2 * low * sums + low * low * some, 0.0)
        cost = clipped + inside[above] - inside[below] + under
        # of equal ones the lower: it has as much above, and more below
        if cost <= best:
            best, best_top = cost, top
        if above == 0:
            return best_top
        top -= 1
