"""Posits with two exponent bits, those of the standard of 2022: their numbers, and how they round.

    x  =  2^(4 k + e) (1 + f)

k is told by the run of equal bits behind the sign, a bit longer for each step away from zero; e has two bits, the
fraction what is left. So there is most precision from 1/16 to 16, and less and less beyond. Patterns are in the order
of their numbers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POSITS = {"posit8": 8, "posit16": 16}
"""Those that are known by name, and their bits."""


@lru_cache
def positive_posits(bits: int) -> Floats:
    """The numbers of the patterns 1 to 2^(bits-1) - 1, each exactly.

    >>> positive_posits(8)[[0, 63, 64, -1]].tolist()
    [5.960464477539063e-08, 1.0, 1.125, 16777216.0]
    """
    parts = []
    for k in range(2 - bits, bits - 1):
        # the run has a bit of the other kind at its end, unless the word ends before
        left = max(bits - 1 - (k + 2 if k >= 0 else 1 - k), 0)
        rest = np.arange(1 << left)
        # bits that have no room are zero
        exponent = rest >> (left - 2) if left >= 2 else rest << (2 - left)
        fraction = (rest & ((1 << max(left - 2, 0)) - 1)) / (1 << max(left - 2, 0))
        parts.append(np.ldexp(1.0 + fraction, 4 * k + exponent))
    values = np.concatenate(parts)
    values.flags.writeable = False
    return values


def round_to_posits(x: Floats, bits: int) -> Floats:
    """Positive numbers to the nearest, in the sense of the standard: never to zero, never beyond the greatest.

    Between two posits it changes at the posit of one bit more; a tie goes to the even pattern.
    """
    values = positive_posits(bits)
    between = positive_posits(bits + 1)[2:-1:2]
    above = np.searchsorted(between, x, side="left")
    tie = x == between[np.minimum(above, between.size - 1)]
    # number i has pattern i + 1
    return np.where(x > 0.0, values[above + (tie & (above % 2 == 0))], 0.0)
