"""Operations as pictures: the error over all pairs of codes, and Gaussian logarithms with theirs.

error  =  position of the result  -  position of the exact result,      in code steps, log_base 2^F
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import arithmetic
from lnsnum.format import LNSFormat
from lnsnum.gaussian import Exact, GaussianLog, check_gaussian, evaluate, last_step
from lnsnum.kernels.codes import check_codes
from lnsnum.plots.formats import Axes

MOST_BITS = 10
"""Formats of up to this many bits have a map: a million pairs."""

Operation = Literal["add", "subtract", "multiply", "divide"]

_EXACT: dict[str, Callable[..., Any]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide
}  # fmt: skip


def error_map(
    ax: Axes,
    fmt: LNSFormat | str,
    operation: Operation = "add",
    *,
    function: Callable[[NDArray[Any], NDArray[Any]], ArrayLike] | None = None,
) -> Axes:
    """The error of an operation over all pairs of positive numbers, as an image: a upwards, b to the right.

    In code steps; there is none (NaN) where the exact result is zero, where the result is, and where it is NaN. A
    result that saturates has the error that this makes.

    Args:
        ax: axes of matplotlib.
        fmt: a format of up to 10 bits, or its name.
        operation: what is asked for.
        function: what answers, from two arrays of codes to one: an adder of your own. `lnsnum.arithmetic`, which is
            correctly rounded, where nothing is said.

    Returns:
        ax, with one image: rows are a, columns b, by their magnitudes from 1 on.

    Raises:
        ValueError: for wider formats, another operation, or a function that gives no such codes.

    >>> from matplotlib.figure import Figure
    >>> error = error_map(Figure().subplots(), "lns6f2").images[0].get_array()
    >>> error.shape, bool(np.nanmax(np.abs(error[:16, :16])) <= 0.5)
    ((31, 31), True)
    """
    fmt = LNSFormat.of(fmt)
    if fmt.bits > MOST_BITS:
        raise ValueError(f"{fmt.name} has 2^{2 * fmt.bits} pairs: formats of up to {MOST_BITS} bits have a map")
    if operation not in _EXACT:
        raise ValueError(f"operation={operation!r} is not known: one of {', '.join(_EXACT)}")
    m = np.arange(1, fmt.sign_bit, dtype=fmt.dtype)
    a, b = (np.ascontiguousarray(x) for x in np.broadcast_arrays(m[:, None], m[None, :]))
    if function is None:
        result = getattr(arithmetic, operation)(a, b, fmt)[0]
    else:
        if not callable(function):
            raise TypeError(f"function={function!r} is no function: give one of two arrays of codes")
        result = np.asarray(function(a, b))
        if result.shape != a.shape or result.dtype.kind not in "ui":
            raise ValueError(
                f"the function gave {result.dtype} of shape {result.shape}, and codes of shape {a.shape} are wanted"
            )
        check_codes(result, fmt)
    error = _error(operation, result.astype(np.int64), m.astype(np.int64), fmt)
    known = np.abs(error[np.isfinite(error)])
    # what saturates has errors that no color would be left beside
    limit = max(float(np.quantile(known, 0.98)) if known.size else 0.0, 0.5)
    octaves = (m.astype(np.float64)[[0, -1]] - fmt.bias + np.array([-0.5, 0.5])) / fmt.codes_per_octave
    image = ax.imshow(
        error,
        origin="lower",
        cmap="RdBu",
        vmin=-limit,
        vmax=limit,
        extent=(*octaves, *octaves),
        interpolation="nearest",
    )
    ax.figure.colorbar(image, ax=ax, label="error in code steps")
    ax.set(xlabel="log2 b", ylabel="log2 a", title=f"{operation}, {fmt.name}")
    return ax


def _error(operation: str, result: NDArray[np.int64], m: NDArray[np.int64], fmt: LNSFormat) -> NDArray[np.float64]:
    # relative to the greater, so that no power of the base overflows
    a, b = np.broadcast_arrays(m[:, None] - fmt.bias, m[None, :] - fmt.bias)
    if operation in ("multiply", "divide"):
        position, negative = (a + b if operation == "multiply" else a - b).astype(np.float64), np.zeros(a.shape, bool)
    else:
        log_step = np.log(fmt.base) / (1 << fmt.fraction_bits)
        z = np.abs(a - b) * log_step
        with np.errstate(divide="ignore"):
            more = np.log1p(np.exp(-z)) if operation == "add" else np.log(-np.expm1(-z))
        position, negative = np.maximum(a, b) + more / log_step, (a < b) & (operation == "subtract")
    found = result & fmt.max_magnitude
    right_sign = (result > fmt.max_magnitude) == negative
    known = (found > 0) & right_sign & np.isfinite(position)
    return np.where(known, found - fmt.bias - np.where(known, position, 0.0), np.nan)


def gaussian_logarithm(
    ax: Axes, fmt: LNSFormat | str, gaussian: GaussianLog | None = None, *, error: bool = False, last: int | None = None
) -> Axes:
    """sb(z) and db(z) in code steps over the distance z of two logarithms, or their errors.

    Args:
        ax: axes of matplotlib.
        fmt: a format of up to 16 bits, or its name.
        gaussian: an approximation of `lnsnum.gaussian`, or your own; the correctly rounded ones where nothing is said.
        error: draw approximation - exact real value in the place of the values.
        last: the greatest z; where both are 0 from then on, where nothing is said.

    Returns:
        ax, with two lines: sb from z = 0, db from z = 1.

    Raises:
        TypeError: for what is no approximation.
        ValueError: for wider formats, or a z that no two logarithms are apart.

    >>> from matplotlib.figure import Figure
    >>> ax = gaussian_logarithm(Figure().subplots(), "lns8f3")
    >>> ax.lines[0].get_ydata()[:3].tolist()
    [8, 8, 7]
    """
    fmt = LNSFormat.of(fmt)
    if fmt.bits > 16:
        raise ValueError(f"{fmt.name} has more z than a picture shows: formats of up to 16 bits have one")
    gaussian = Exact() if gaussian is None else gaussian
    check_gaussian(gaussian)
    furthest = fmt.max_magnitude - 1
    last = min(last_step(fmt), furthest) if last is None else last
    if not isinstance(last, (int, np.integer)) or not 0 <= last <= furthest:
        raise ValueError(f"last={last!r} is no distance of logarithms of {fmt.name}: an integer from 0 to {furthest:,}")
    log_step = np.log(fmt.base) / (1 << fmt.fraction_bits)
    for name, subtracted in (("sb", False), ("db", True)):
        z = np.arange(int(subtracted), last + 1)
        steps = evaluate(gaussian, z.astype(np.int64), fmt, subtracted)
        y = steps
        if error:
            t = z * log_step
            y = steps - (np.log(-np.expm1(-t)) if subtracted else np.log1p(np.exp(-t))) / log_step
        ax.plot(z, y, linewidth=1.0, label=name)
    ax.set(xlabel="z in code steps", ylabel="error in code steps" if error else "code steps", title=fmt.name)
    ax.legend()
    return ax
