"""Real numbers of any kind, exactly: as codes, rounded once, and where they stand on the logarithmic axis.

A number that is no float64 lies between two neighbouring ones, and rounding is monotone: where both have one code, that
is its code too. Else, about once in as many numbers as there are floats in a code step, the number itself is decided.
"""

from __future__ import annotations

import math
import numbers
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.encoding import encode
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Rounding, check_choice, check_log_offset
from lnsnum.kernels.codes import Codes, LogOffset, check_unmasked, of_elements
from lnsnum.kernels.decide import Quotient, Term, decide
from lnsnum.kernels.granularity import Granularity
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.kernels.rounding import pack, steps_in_two, target, unbounded

_EXACT = 1 << 53
_MOST_DIGITS = 100_000


def is_number(value: object) -> bool:
    """Whether it is a real number of Python's or NumPy's."""
    return isinstance(value, (numbers.Real, np.bool_, Decimal)) and not isinstance(value, np.timedelta64)


def shown(value: object) -> str:
    """A number for a message: one of many digits is told by its length."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an int of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) < 200 else f"a {type(value).__name__} of {len(text)} characters"


def as_rational(value: object) -> Fraction | float | None:
    """A real number as the fraction that it is, or inf, or NaN; None for what is no such number.

    Raises:
        ValueError: for a Decimal of more than 100,000 digits, which would be written out.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf":
        check_unmasked(value)
        value = value[()]
    number: Any = value
    if not is_number(number):
        return None
    if isinstance(number, np.bool_):
        return Fraction(bool(number))
    if isinstance(number, Decimal) and number.is_snan():
        return math.nan
    if isinstance(number, Decimal) and number.is_finite() and abs(number.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"{shown(number)} is too large or too small: at most {_MOST_DIGITS} digits")
    if number != number:
        return math.nan
    if number in (math.inf, -math.inf):
        return float(number)
    if isinstance(number, numbers.Rational):
        return Fraction(int(number.numerator), int(number.denominator))
    if not hasattr(number, "as_integer_ratio") and float(number) != number:
        raise ValueError(f"{shown(number)} is a {type(number).__name__} that no float64 is: make it one first")
    return Fraction(*map(int, getattr(number, "as_integer_ratio", float(number).as_integer_ratio)()))


def numbers_in(x: ArrayLike) -> NDArray[Any] | None:
    """Integers or truth values as an array, or, where NumPy has no such, an array of fractions; None for anything else.

    Raises:
        TypeError: for lists of several lengths.
    """
    try:
        array = np.asarray(x)
        if isinstance(x, (list, tuple)) and array.dtype.kind == "f" and np.any(np.abs(array) >= _EXACT):
            array = np.asarray(x, dtype=object)  # NumPy has rounded the integers among floats, and those of two signs
    except ValueError:
        raise TypeError("x is a list of lists of different lengths: an array has rows of one length") from None
    if array.dtype.kind in "biu":
        return array
    if array.dtype.kind != "O" or not all(map(is_number, array.flat)):
        return None
    exact = np.empty(array.shape, object)
    exact.flat[:] = [as_rational(number) for number in array.flat]
    return exact


def bracket(exact: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The greatest floats that are not above, and the least that are not below: the same where all are floats."""
    if exact.dtype.kind == "b" or (
        exact.dtype.kind != "O" and (not exact.size or -_EXACT <= exact.min() <= exact.max() <= _EXACT)
    ):
        floats = exact.astype(np.float64)
        return floats, floats
    low, high = np.empty(exact.shape), np.empty(exact.shape)
    for i, number in enumerate(exact.flat):
        n = int(number) if isinstance(number, np.integer) else number
        try:
            near = float(n)
        except OverflowError:
            near = math.inf if n > 0 else -math.inf
        low.flat[i] = near if near <= n or near != near else math.nextafter(near, -math.inf)
        high.flat[i] = near if near >= n or near != near else math.nextafter(near, math.inf)
    return low, high


def encode_rationals(exact: NDArray[Any], fmt: LNSFormat, *, log_offset: LogOffset, **options: Any) -> Codes:
    """As `lnsnum.encode` of the exact numbers, those of `numbers_in`."""
    low, high = bracket(exact)
    codes = encode(low, fmt, log_offset=log_offset, **options)
    if low is high:
        return codes
    open_ = np.argwhere(codes != encode(high, fmt, log_offset=log_offset, **options))
    random, offsets = options.pop("random_bits", None), of_elements(log_offset, codes.shape)
    modes = {"rounding": "nearest", "overflow": "saturate", "underflow": "round"} | options
    for at in map(tuple, open_):
        n = Fraction(int(exact[at]) if isinstance(exact[at], np.integer) else exact[at])
        word = 0 if random is None else int(np.broadcast_to(random, codes.shape)[at])
        to = target(fmt, int(offsets[at]), **modes)
        m = decide(size_of(n), fmt, to, n < 0, word, _position(n, fmt))
        codes[at] = pack(m, int(n < 0), to.sign_bit)
    return codes


def fit_rationals_each(
    exact: NDArray[Any], fmt: LNSFormat, rounding: Rounding, each: Granularity
) -> NDArray[np.int32] | GroupOffsets:
    """`fit_rationals` of each channel or group."""
    parts = each.parts(exact)
    offsets = np.array([fit_rationals(part, fmt, rounding) for part in parts.flat], np.int32)
    return each.scale(offsets.reshape(parts.shape))


def fit_rationals(exact: NDArray[Any], fmt: LNSFormat, rounding: Rounding) -> int:
    """As `lnsnum.fit_log_offset` of the exact numbers."""
    check_choice("rounding", rounding, Rounding)
    some = exact.flat if exact.dtype.kind == "O" else (exact.max(initial=0), exact.min(initial=0))
    finite = [Fraction(int(n) if isinstance(n, np.integer) else n) for n in some if abs(n) < math.inf]
    extremes = [n for n in (max(finite), min(finite)) if n] if finite else []
    logs = [log_of(n, fmt, rounding) for n in extremes]
    return check_log_offset(max(max(logs) - fmt.max_log, -MAX_LOG_OFFSET)) if logs else 0


def log_of(x: Fraction, fmt: LNSFormat, rounding: Rounding) -> int:
    """E of a number that is not zero, rounded; the stochastic modes round away from zero."""
    to = unbounded(target(fmt, 0, rounding=rounding))
    return decide(size_of(x), fmt, to, x < 0, 0, _position(x, fmt)) + to.lowest - 1


def size_of(x: Fraction) -> Quotient:
    """The size of a number as what is compared with powers."""
    return Quotient((Term(abs(x.numerator), 0, Fraction(0)),), x.denominator)


def _position(x: Fraction, fmt: LNSFormat) -> float:
    """Near 2^F log_base |x|; math.log2 takes integers of any size."""
    return (math.log2(abs(x.numerator)) - math.log2(x.denominator)) * steps_in_two(fmt)[0]
