"""Single numbers beside codes: taken where nothing is rounded, compared exactly whatever they are.

x is on the grid   <=>   x rounded up and x rounded down are one code
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import numpy as np

from lnsnum.arithmetic import order_key
from lnsnum.array.rationals import as_rational, encode_rationals, fit_rationals, log_of, shown, size_of
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes, LogOffset
from lnsnum.kernels.decide import Term

F = TypeVar("F", bound=Callable[..., Any])


def once_for_each_number(function: F) -> F:
    """Keep what the function gives for the numbers that a program has written out: ints and floats, by their value."""
    kept = lru_cache(maxsize=1024)(function)

    @wraps(function)
    def look_up(value: object, *others: Any) -> Any:
        # of other types some cannot be hashed, and NaN is not found again; nor are scales of channels
        plain = type(value) in (int, float) and value == value and not isinstance(others[-1], np.ndarray)
        return kept(value, *others) if plain else function(value, *others)

    return cast(F, look_up)


def not_exact(value: object, fmt: LNSFormat, place: str) -> ValueError:
    """The error of a number that would have to be rounded."""
    text = shown(value)
    name = "x" if text.startswith(("an int of ", "a ")) else text
    return ValueError(
        f"{text} is no number of {fmt.name}{place}: round it with LNSTensor.from_float({name}, {fmt.name!r})"
    )


@once_for_each_number
def exact_codes(value: object, fmt: LNSFormat, log_offset: LogOffset) -> Codes | None:
    """The codes of one number at a scale, in the shape of log_offset; None where it would have to be rounded.

    Raises:
        TypeError: for what is no number, arrays too.

    >>> from lnsnum import lns8f3
    >>> exact_codes(2, lns8f3, 0), exact_codes(0.3, lns8f3, 0)
    (array(72, dtype=uint8), None)
    """
    number = as_rational(value)
    if number is None:
        raise TypeError(
            f"an LNSTensor does not take the numbers of a {type(value).__name__}: make it a tensor with "
            f"LNSTensor.from_float(x, {fmt.name!r})"
        )
    try:
        near = float(number)  # which takes no loop over fractions
    except OverflowError:
        near = math.nan
    exact = np.full(np.shape(log_offset), near if near == number else number)
    up, down = (
        encode_rationals(exact, fmt, rounding=rounding, overflow="nan", log_offset=log_offset)
        for rounding in ("up", "down")
    )
    on_grid = (up == down) & ((up != fmt.nan_code) | (number != number))
    up.flags.writeable = False  # it is shared
    return up if on_grid.all() else None


@once_for_each_number
def exact_somewhere(value: object, fmt: LNSFormat, log_offset: int, anywhere: bool) -> tuple[Codes, int] | None:
    """The code of one number at a scale, or where it may be `anywhere` at any at which it is exact, and that scale."""
    codes = exact_codes(value, fmt, log_offset)
    number = as_rational(value)
    if codes is None and anywhere and isinstance(number, Fraction):
        try:
            log_offset = fit_rationals(np.array([number], object), fmt, "nearest")
            codes = exact_codes(number, fmt, log_offset)
        except ValueError:  # beyond every scale
            codes = None
    return None if codes is None else (codes, log_offset)


def key_of_number(x: Fraction | float, fmt: LNSFormat) -> int:
    """Twice the order key of a number of the format, an odd integer between the keys of its neighbours otherwise."""
    if x != x or x == 0:
        return 0
    sign = 1 if x > 0 else -1
    if isinstance(x, float):
        return sign * _BEYOND
    log = log_of(abs(x), fmt, "toward_zero")
    between = size_of(x).sign(0, fmt.base, [Term(-1, 0, Fraction(log, 1 << fmt.fraction_bits))]) != 0
    one = int(order_key(np.array(fmt.bias, fmt.dtype), fmt))
    return sign * min(max(2 * (one + log) + between, 1), _BEYOND)


@once_for_each_number
def key_at(value: object, fmt: LNSFormat, log_offset: int) -> int | None:
    """Twice the place of a number among the codes of a scale, -m or m, odd between two of them: any integer beyond.

    None for NaN, and for what is no number.
    """
    number = as_rational(value)
    if number is None or number != number:
        return None
    key = key_of_number(number, fmt)
    # without the lift of the order keys: below the smallest lies what is between it and zero
    size = max(abs(key) - 2 * int(order_key(np.array(1, fmt.dtype), fmt, log_offset)) + 2, 1) if key else 0
    return size if key >= 0 else -size


_BEYOND = 1 << 39
"""More than twice every order key."""
