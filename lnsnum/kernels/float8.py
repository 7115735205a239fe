"""Floats of eight bits, by their names in ml_dtypes: what each pattern is, and the nearest of them.

    float8_e4m3fn:  4 exponent bits, 3 mantissa bits, f(inite) numbers and one N(aN) only, no infinity
    ...fnuz:        and u(nsigned) z(ero): what would be -0 is the NaN, and the bias is one more

ml_dtypes itself is not needed: patterns are uint8, and an array of its types is a view of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FLOAT8_TYPES = (
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e4m3b11fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
)
"""Those that have a sign, zero and NaN."""


@lru_cache
def values_of(name: str) -> NDArray[np.float32]:
    """The number of each of the 256 patterns, exactly."""
    match = re.fullmatch(r"float8_e(\d)m(\d)(?:b(\d+))?(fn)?(uz)?", name)
    assert match is not None, name
    exponent_bits, mantissa_bits = int(match[1]), int(match[2])
    finite, no_minus_zero = match[4] is not None, match[5] is not None
    bias = int(match[3]) if match[3] else (1 << (exponent_bits - 1)) - 1 + no_minus_zero
    patterns = np.arange(128)
    exponent, mantissa = patterns >> mantissa_bits, patterns & ((1 << mantissa_bits) - 1)
    hidden = (exponent > 0) << mantissa_bits
    positive = np.ldexp((mantissa + hidden).astype(np.float32), np.maximum(exponent, 1) - bias - mantissa_bits)
    if not finite:
        last = exponent == (1 << exponent_bits) - 1
        positive[last] = np.where(mantissa[last] == 0, np.inf, np.nan)
    elif not no_minus_zero:
        positive[127] = np.nan
    values = np.concatenate([positive, -positive])
    if no_minus_zero:
        values[128] = np.nan
    values.flags.writeable = False
    return values


def nan_of(name: str) -> int:
    """The pattern that NaN becomes."""
    if name.endswith("uz"):
        return 0x80
    # a quiet one, where there are several
    infinity = np.flatnonzero(np.isinf(values_of(name)[:128]))
    return int(infinity[0]) | 1 << (int(name[name.index("m") + 1]) - 1) if infinity.size else 0x7F


def nearest_patterns(
    doubles: NDArray[np.float64], name: str, compare: Callable[[int, float], int]
) -> NDArray[np.uint8]:
    """The patterns nearest to numbers of which the nearest doubles are given; ties to even, never -0.

    What rounds beyond the greatest is infinity, or NaN where there is none, as in the conversions of ml_dtypes.

    Args:
        doubles: one-dimensional.
        name: the type.
        compare: (i, x) -> the sign of the size of number i minus x, exactly: asked where a double is a tie.
    """
    positive = values_of(name)[:128].astype(np.float64)
    finite = positive[np.isfinite(positive)]
    # the last boundary is where a further mantissa would round up: halfway to what the next number would be
    ends = np.append(finite, 2 * finite[-1] - finite[-2])
    halfway = (ends[:-1] + ends[1:]) / 2
    size = np.abs(doubles)
    pattern = np.searchsorted(halfway, size, side="left")
    tie = np.flatnonzero(size == halfway[np.minimum(pattern, halfway.size - 1)])
    for i in tie:
        side = compare(int(i), float(size[i]))
        pattern[i] += side > 0 or (side == 0 and pattern[i] & 1 == 1)
    beyond = pattern == finite.size
    nan = nan_of(name)
    infinity = finite.size if np.isinf(positive).any() else nan
    with_sign = np.where((doubles < 0) & (pattern > 0), pattern | 128, pattern)
    if infinity == nan:
        with_sign = np.where(beyond, nan, with_sign)
    return np.where(np.isnan(doubles), nan, with_sign).astype(np.uint8)
