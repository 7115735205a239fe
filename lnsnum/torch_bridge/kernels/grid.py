"""The grid of a format in units of its floor, as Madam's steps take it: magnitudes, and positions between two of them.

X[0] = 0,   X[m] = base^((m - 1) / 2^F),        K = 2^F log_base(2)  code steps in an octave
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat
from lnsnum.kernels.rounding import steps_in_two


@lru_cache(maxsize=64)
def magnitudes(fmt: LNSFormat) -> NDArray[np.float64]:
    """X, each correctly rounded to float64.

    >>> from lnsnum import lns8f3
    >>> magnitudes(lns8f3)[[0, 1, 9, 17]].tolist()
    [0.0, 1.0, 2.0, 4.0]
    """
    steps = np.arange(fmt.max_magnitude)
    if fmt.base == 2.0:  # the octaves are alike
        # so one is computed exactly, and powers of two make the others without an error; a short format ends within it
        count = 1 << fmt.fraction_bits
        octave = np.array([exact.nearest_float64(2.0, n, fmt.fraction_bits) for n in range(min(count, steps.size))])
        # of formats that span more than float64's range
        with np.errstate(over="ignore"):
            x = np.ldexp(octave[steps % count], steps // count)
    else:
        x = np.array([exact.nearest_float64(fmt.base, int(n), fmt.fraction_bits) for n in steps])
    return np.concatenate([[0.0], x])


@lru_cache(maxsize=64)
def inverses(fmt: LNSFormat) -> NDArray[np.float32]:
    """1 / X[m] by float64, rounded to float32 (2^-126 where it would be less); 1 for m = 0."""
    x = magnitudes(fmt)
    # no subnormal numbers, which some devices flush to zero, and no 0, by which the kernel would divide; 1 for zero, as
    # zero is reckoned from the floor
    return np.maximum(1.0 / np.maximum(x, 1.0), 2.0**-126).astype(np.float32)


@lru_cache(maxsize=64)
def octave(fmt: LNSFormat) -> np.float32:
    """K as a float32."""
    return np.float32(steps_in_two(fmt)[0])


@lru_cache(maxsize=256)
def up_coefficients(fmt: LNSFormat) -> NDArray[np.float32]:
    """The coefficients of P(f) = (b^f - 1) / (b - 1) as a polynomial in f, from that of f on; b is the factor of a
    step.

    P is the probability of rounding up a growth by a fraction f of a step, unbiased in the value; cut where the terms
    fall below 2^-30.

    >>> from lnsnum import lns8f5
    >>> [f"{c:.4f}" for c in up_coefficients(lns8f5)[:3]]
    ['0.9892', '0.0107', '0.0001']
    """
    log_step = math.log(fmt.base) / (1 << fmt.fraction_bits)
    # (b^f - 1) / (b - 1) = sum of l^k f^k / k! / (b - 1), l = ln b
    term, terms, k = log_step / math.expm1(log_step), [], 1
    # the terms grow as long as k <= l: of a great step the first ones may be small, and not the last that count
    while term > 2.0**-30 or k <= log_step:
        terms.append(term)
        k += 1
        term *= log_step / k
    return np.array(terms, np.float32)


TERMS = 8
"""Of P, as far as a code step is an octave or less: what is cut is below 2^-22."""


@lru_cache(maxsize=256)
def few_coefficients(fmt: LNSFormat) -> tuple[np.float32, ...]:
    """The first eight of `up_coefficients`, as a tuple: a kernel's loop over elements has no loop in it then."""
    terms = up_coefficients(fmt)[:TERMS].tolist()
    # zeros behind the last keep one shape, and one compiled kernel, for every format
    return tuple(np.float32(c) for c in (*terms, *[0.0] * (TERMS - len(terms))))


def doubling(fmt: LNSFormat) -> int:
    """The least whole number of code steps that doubles: by which a ceiling grows.

    >>> from lnsnum import lns8f5
    >>> doubling(lns8f5), doubling(LNSFormat(8, 0, base=1.7))
    (32, 2)
    """
    return exact.ceil_log(1, 1, fmt.base, fmt.fraction_bits)
