"""Codes as the laws handle them: int64, so that nothing wraps, in the order of their values, and in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.exact import nearest_float64
from lnsnum.format import LNSFormat

Ints = NDArray[np.int64]


def rank(codes: Ints, fmt: LNSFormat) -> Ints:
    """Integers in the order of the values, consecutive from the least to the greatest; 0 for zero and for NaN."""
    m = codes & fmt.max_magnitude
    ranks: Ints = np.where(codes & fmt.sign_bit, -m, m)
    return ranks


def of_rank(ranks: Ints, fmt: LNSFormat) -> Ints:
    """The codes of these ranks."""
    codes: Ints = np.where(ranks < 0, fmt.sign_bit - ranks, ranks)
    return codes


def negative(codes: Ints, fmt: LNSFormat) -> Ints:
    """The opposites; zero and NaN stay."""
    opposites: Ints = np.where(codes & fmt.max_magnitude, codes ^ fmt.sign_bit, codes)
    return opposites


def distance_from_one(codes: Ints, fmt: LNSFormat) -> Ints:
    """How many steps a magnitude is from 1; 0 for zero and NaN."""
    m = codes & fmt.max_magnitude
    steps: Ints = np.abs(np.where(m, m - fmt.bias, 0))
    return steps


def value_told(code: Any, fmt: LNSFormat) -> str:
    """The value to six digits."""
    code = int(code)
    if code == fmt.nan_code:
        return "nan"
    if not 0 <= code < 1 << fmt.bits:
        return "no code"
    m = code & fmt.max_magnitude
    size = nearest_float64(fmt.base, m - fmt.bias, fmt.fraction_bits) if m else 0.0
    return f"{-size if code > fmt.sign_bit else size:.6g}"


def told(code: Any, fmt: LNSFormat) -> str:
    """A code with its value.

    >>> told(96, LNSFormat(8, 5))
    '96 (2)'
    """
    return f"{code} ({value_told(code, fmt)})"
