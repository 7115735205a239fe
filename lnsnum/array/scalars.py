"""Python and NumPy numbers beside codes: taken where nothing is rounded, compared exactly whatever they are.

x is on the grid   <=>   encode(x, rounding="up") == encode(x, rounding="down")
"""

from __future__ import annotations

import math
import numbers
from decimal import Decimal
from fractions import Fraction
from typing import cast

import numpy as np

from lnsnum.arithmetic import order_key
from lnsnum.array.integers import log_of, size_of
from lnsnum.encoding import encode
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes, LogOffset, check_unmasked
from lnsnum.kernels.decide import Term

REAL = (numbers.Real, np.bool_, Decimal)
"""The kinds of numbers that have a place among the values."""


def not_exact(value: object, fmt: LNSFormat, place: str) -> ValueError:
    """The error of a number that would have to be rounded."""
    text = shown(value)
    return ValueError(
        f"{text} is no number of {fmt.name}{place}: round it with LNSTensor.from_float({text}, {fmt.name!r})"
    )


def shown(value: object) -> str:
    """A number for a message: an integer of many digits is told by its length."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an int of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) < 200 else f"a {type(value).__name__} of {len(text)} characters"


def _scalar(value: object) -> object:
    """The element of an array without axes; anything else as it is."""
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf":
        check_unmasked(value)
        return value[()]
    return value


def as_float(value: object) -> float | None:
    """A Python or NumPy real number as the float that it is, exactly; None for what is no such number.

    Raises:
        ValueError: for a number that no float64 is.
    """
    value = _scalar(value)
    if not isinstance(value, (numbers.Real, np.bool_)):
        return None
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf
    if nearest != value and nearest == nearest:
        raise ValueError(f"{shown(value)} is no float64: make it one first, rounded as you wish")
    return nearest


def as_rational(value: object) -> Fraction | float | None:
    """A real number of any kind as the fraction that it is, or inf, or NaN; None for what is no such number.

    Raises:
        ValueError: for a Decimal of more than 100,000 digits, which is written out.
    """
    value = _scalar(value)
    if not isinstance(value, REAL):
        return None
    if isinstance(value, np.bool_):
        return Fraction(bool(value))
    if isinstance(value, Decimal) and value.is_snan():
        return math.nan
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"{shown(value)} is too large or too small to be compared: at most {_MOST_DIGITS} digits")
    if value != value:
        return math.nan
    if value in (math.inf, -math.inf):
        return float(value)
    if isinstance(value, numbers.Rational):
        return Fraction(int(value.numerator), int(value.denominator))
    ratio = getattr(value, "as_integer_ratio", None)
    return Fraction(cast(float, as_float(value))) if ratio is None else Fraction(*map(int, ratio()))


_MOST_DIGITS = 100_000


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


def key_of_number(x: Fraction | float, fmt: LNSFormat) -> int:
    """Twice the order key of a number of the format, an odd integer between the keys of its neighbours otherwise."""
    if x != x or x == 0:
        return 0
    sign = 1 if x > 0 else -1
    if isinstance(x, float):
        return sign * _BEYOND
    value = abs(Fraction(x))
    log = log_of(value, fmt, "toward_zero")
    between = size_of(value).sign(0, fmt.base, [Term(-1, 0, Fraction(log, 1 << fmt.fraction_bits))]) != 0
    one = int(order_key(np.array(fmt.bias, fmt.dtype), fmt))
    return sign * min(max(2 * (one + log) + between, 1), _BEYOND)


_BEYOND = 1 << 39
"""More than twice every order key."""
