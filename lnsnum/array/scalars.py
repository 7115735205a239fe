"""Python and NumPy numbers beside codes: taken where nothing is rounded, compared exactly whatever they are.

x is on the grid   <=>   encode(x, rounding="up") == encode(x, rounding="down")
"""

from __future__ import annotations

import contextlib
import numbers

import numpy as np

from lnsnum.arithmetic import order_key
from lnsnum.encoding import encode, fit_log_offset
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat
from lnsnum.kernels.codes import Codes, LogOffset


def not_exact(value: object, fmt: LNSFormat, place: str) -> ValueError:
    """The error of a number that would have to be rounded."""
    return ValueError(
        f"{value!r} is no number of {fmt.name}{place}: round it with LNSTensor.from_float({value!r}, {fmt.name!r})"
    )


def as_float(value: object) -> float | None:
    """A Python or NumPy real number as the float that it is, exactly; None for what is no such number.

    Raises:
        ValueError: for a number that no float64 is.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf":
        value = value[()]
    if not isinstance(value, (numbers.Real, np.bool_)):
        return None
    try:
        nearest = float(value)
    except OverflowError:
        nearest = float("inf")
    if nearest != value and nearest == nearest:
        raise ValueError(f"{value!r} is no float64: make it one first, rounded as you wish")
    return nearest


def exact_codes(value: object, fmt: LNSFormat, log_offset: LogOffset) -> Codes | None:
    """The codes of one number at a scale, in the shape of log_offset; None where it would have to be rounded.

    A number is on the grid if rounding up and rounding down agree.

    Raises:
        TypeError: for what is no number, arrays too.

    >>> from lnsnum import lns8f3
    >>> exact_codes(2, lns8f3, 0), exact_codes(0.3, lns8f3, 0)
    (array(72, dtype=uint8), None)
    """
    number = as_float(value)
    if number is None:
        raise TypeError(
            f"an LNSTensor does not take the numbers of a {type(value).__name__}: make it a tensor with "
            f"LNSTensor.from_float(x, {fmt.name!r})"
        )
    floats = np.full(np.shape(log_offset), number)
    up = encode(floats, fmt, rounding="up", overflow="nan", log_offset=log_offset)
    down = encode(floats, fmt, rounding="down", overflow="nan", log_offset=log_offset)
    exact = (up == down) & ((up != fmt.nan_code) | np.isnan(floats))
    return up if exact.all() else None


def key_of_float(x: float, fmt: LNSFormat) -> int:
    """Twice the order key of a number of the format, an odd integer between the keys of its neighbours otherwise."""
    if x != x or x == 0.0:
        return 0
    offset = MAX_LOG_OFFSET if abs(x) > 1.0 else -MAX_LOG_OFFSET  # where no scale reaches, the last that there is
    with contextlib.suppress(ValueError):
        offset = fit_log_offset(x, fmt, rounding="toward_zero") if np.isfinite(x) else offset
    inner, outer = (
        encode(x, fmt, rounding=rounding, overflow="nan", log_offset=offset)
        for rounding in ("toward_zero", "up" if x > 0.0 else "down")
    )
    if inner == fmt.nan_code:
        inner = encode(x, fmt, log_offset=offset)
    key = 2 * int(order_key(inner, fmt, offset))
    return key if inner == outer else key + (1 if x > 0.0 else -1)
