"""Integers of any size as codes, rounded once; and where any rational number stands on the logarithmic axis.

An integer beyond 2^53 lies between two neighbouring floats, and rounding is monotone: where both have one code, that is
its code too. Else, about once in as many integers as there are floats in a code step, the integer itself is decided.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.encoding import encode
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Rounding, check_choice, check_log_offset
from lnsnum.kernels.codes import Codes, LogOffset
from lnsnum.kernels.decide import Quotient, Term, decide
from lnsnum.kernels.rounding import pack, steps_in_two, target, unbounded


def integers_in(x: ArrayLike) -> NDArray[Any] | None:
    """Integers or truth values as an array, of Python's where NumPy has none as large; None for anything else.

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
    if array.dtype.kind == "O" and all(isinstance(v, (int, float, np.integer)) for v in array.flat):
        return array
    return None


def bracket(integers: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The greatest floats that are not above, and the least that are not below; floats among them are their own."""
    if integers.dtype.kind == "b" or (
        integers.dtype.kind != "O" and (not integers.size or -_EXACT <= integers.min() <= integers.max() <= _EXACT)
    ):
        floats = integers.astype(np.float64)
        return floats, floats
    low, high = np.empty(integers.shape), np.empty(integers.shape)
    for i, n in enumerate(integers.flat):
        exact = int(n) if isinstance(n, np.integer) else n
        try:
            near = float(exact)
        except OverflowError:
            near = math.inf if exact > 0 else -math.inf
        low.flat[i] = near if near <= exact or near != near else math.nextafter(near, -math.inf)
        high.flat[i] = near if near >= exact or near != near else math.nextafter(near, math.inf)
    return low, high


_EXACT = 1 << 53


def encode_integers(integers: NDArray[Any], fmt: LNSFormat, *, log_offset: LogOffset, **options: Any) -> Codes:
    """As `lnsnum.encode` of the exact integers."""
    low, high = bracket(integers)
    codes = encode(low, fmt, log_offset=log_offset, **options)
    if low is high:
        return codes
    open_ = np.argwhere(codes != encode(high, fmt, log_offset=log_offset, **options))
    random = options.pop("random_bits")
    modes = {"rounding": "nearest", "overflow": "saturate", "underflow": "round"} | options
    for at in map(tuple, open_):
        n = int(integers[at])
        place = int(np.broadcast_to(log_offset, codes.shape)[at])
        word = 0 if random is None else int(np.broadcast_to(random, codes.shape)[at])
        to, size = target(fmt, place, **modes), Fraction(abs(n))
        m = decide(size_of(size), fmt, to, n < 0, word, _position(size, fmt))
        codes[at] = pack(m, int(n < 0), to.sign_bit)
    return codes


def fit_integers(integers: NDArray[Any], fmt: LNSFormat, rounding: Rounding) -> int:
    """As `lnsnum.fit_log_offset` of the exact integers."""
    check_choice("rounding", rounding, Rounding)
    numbers = integers.flat if integers.dtype.kind == "O" else (integers.max(initial=0), integers.min(initial=0))
    finite = [Fraction(int(n) if isinstance(n, np.integer) else n) for n in numbers if abs(n) < math.inf]
    extremes = [n for n in (max(finite), min(finite)) if n] if finite else []
    logs = [log_of(abs(n), fmt, rounding, negative=n < 0) for n in extremes]
    return check_log_offset(max(max(logs) - fmt.max_log, -MAX_LOG_OFFSET)) if logs else 0


def log_of(x: Fraction, fmt: LNSFormat, rounding: Rounding, *, negative: bool = False) -> int:
    """E of a positive number, or of its negative, rounded; the stochastic modes round away from zero."""
    to = unbounded(target(fmt, 0, rounding=rounding))
    return decide(size_of(x), fmt, to, negative, 0, _position(x, fmt)) + to.lowest - 1


def size_of(x: Fraction) -> Quotient:
    """A positive number as what is compared with powers."""
    return Quotient((Term(x.numerator, 0, Fraction(0)),), x.denominator)


def _position(x: Fraction, fmt: LNSFormat) -> float:
    """Near 2^F log_base x; math.log2 takes integers of any size."""
    return (math.log2(x.numerator) - math.log2(x.denominator)) * steps_in_two(fmt)[0]
