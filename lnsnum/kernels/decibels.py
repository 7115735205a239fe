"""A ratio of powers in decibels, for whatever was lost: of files, of a layer's outputs, of numbers in a datapath.

10 log10(signal / noise),      signal and noise sums of squares in one unit
"""

from __future__ import annotations

import math


def decibels(signal: float, noise: float) -> float:
    """The ratio; inf without noise, -inf without a signal, NaN where either is beyond doubles.

    >>> decibels(1.0, 0.001), decibels(3.0, 0.0), decibels(0.0, 2.0), decibels(1.0, math.inf)
    (30.0, inf, -inf, nan)
    """
    if noise <= 0.0:  # a sum that rounding left a little below 0
        return math.inf
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return math.nan
    # logarithms are subtracted, as a quotient may leave the range
    return 10.0 * (math.log10(signal) - math.log10(noise)) if signal > 0.0 else -math.inf
