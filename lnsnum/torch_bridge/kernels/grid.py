"""The grid of a format in units of its floor, as Madam's steps take it: magnitudes, and positions between two of them.

X[0] = 0,   X[m] = base^((m - 1) / 2^F),        K = 2^F log_base(2)  code steps in an octave
"""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat
from lnsnum.kernels.byte_tables import has_byte_tables, planes_of
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
    """1 / X[m] of each code by float64, rounded to float32 (2^-126 where it would be less); 1 of zero, NaN of NaN.

    >>> from lnsnum import lns8f3
    >>> inverses(lns8f3)[[0, 1, 9, 128, 137]].tolist()
    [1.0, 1.0, 0.5, nan, 0.5]
    """
    x = magnitudes(fmt)
    # no subnormal numbers, which some devices flush to zero, and no 0; 1 for zero, as zero is reckoned from the floor
    positive = np.maximum(1.0 / np.maximum(x, 1.0), 2.0**-126).astype(np.float32)
    # of all codes, as a look-up by the code needs no mask
    both = np.concatenate([positive, positive])
    both[fmt.nan_code] = np.nan
    return both


@lru_cache(maxsize=64)
def inverse_planes(fmt: LNSFormat) -> NDArray[np.uint8] | None:
    """`inverses` of formats of 8 bits as the bytes that look-ups in registers take; None where there are none."""
    if fmt.bits != 8 or not has_byte_tables():
        return None
    return planes_of(inverses(fmt).view(np.uint32))


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


LOG = tuple(np.float32(float.fromhex(c)) for c in ("0x1.71547ap+1", "0x1.ec5548p-1", "0x1.310a2cp-1"))
"""log2((1 + s) / (1 - s)) / s as a polynomial in s^2, of least relative error to s = 0.172: 2 / ln 2 atanh(s) / s."""


@lru_cache(maxsize=64)
def log_coefficients(fmt: LNSFormat) -> tuple[np.float32, ...]:
    """`LOG` in code steps: times K."""
    k = float(octave(fmt))
    return tuple(np.float32(float(c) * k) for c in LOG)


FEW, MORE = 4, 5
"""Terms of W, and how many more where the code steps are coarse."""

INSIDE = 2.0**-22
"""W stays as far from 0 and 1: more than its roundings."""


@lru_cache(maxsize=64)
def _bend(fmt: LNSFormat) -> list[float]:
    """W as a series of Chebyshev polynomials T_k in 2 v. With l = ln b and beta = tanh(l / 4),

    ln(1 + u (b - 1)), u = v + 1/2, is ln |1 + beta e^(i t)|^2 - 2 ln(1 - beta) where 2 v = cos t, so

        W  =  (ln(1 + beta) + sum over k from 1 of (-beta)^k / k T_k(2 v)) / (ln(1 + beta) - ln(1 - beta))
    """
    root = exact.nearest_float64(fmt.base, 1, fmt.fraction_bits + 1)  # of b
    beta = (root - 1.0) / (root + 1.0)
    # beta is at most 0.172; sums and products alone, so that every machine has the same bits
    powers = [power / k for k, power in enumerate(accumulate([-beta] * 30, operator.mul), 1)]
    log_up, log_down = -math.fsum(powers), -math.fsum(map(abs, powers))
    return [log_up / (log_up - log_down), *(p / (log_up - log_down) for p in powers)]


@lru_cache(maxsize=64)
def bend_coefficients(fmt: LNSFormat) -> tuple[tuple[np.float32, ...], tuple[np.float32, ...] | None]:
    """W(u) = 1 - log_b(1 + u (b - 1)), b the factor of a step, as a polynomial in v = u - 1/2: its first four terms,
    and the others, None where four are enough.

    Drawn in at either end by what is cut and INSIDE, so that no rounding of it is 0 or less, or 1.

    >>> from lnsnum import lns8f5, LNSFormat
    >>> [f"{c:.5f}" for c in bend_coefficients(lns8f5)[0]], bend_coefficients(lns8f5)[1] is None
    (['0.49729', '-0.99996', '0.01083', '-0.00016'], True)
    >>> len(bend_coefficients(LNSFormat(8, 1))[1])
    5
    """
    count = FEW if _needs_few(fmt) else FEW + MORE
    in_2v = np.polynomial.chebyshev.cheb2poly(_bend(fmt)[:count])
    in_2v[0] -= 0.5
    in_2v *= 1.0 - 2.0 * (INSIDE + _cut(fmt, count))
    in_2v[0] += 0.5
    coefficients = [np.float32(c * 2.0**k) for k, c in enumerate(in_2v.tolist())]
    return tuple(coefficients[:FEW]), None if count == FEW else tuple(coefficients[FEW:])


@lru_cache(maxsize=64)
def bend_error(fmt: LNSFormat) -> float:
    """Bound of the difference between the polynomial and W."""
    return INSIDE + 2.0 * _cut(fmt, FEW if _needs_few(fmt) else FEW + MORE)


def _needs_few(fmt: LNSFormat) -> bool:
    return _cut(fmt, FEW) < 2.0**-17


def _cut(fmt: LNSFormat, count: int) -> float:
    return math.fsum(map(abs, _bend(fmt)[count:]))


def doubling(fmt: LNSFormat) -> int:
    """The least whole number of code steps that doubles: by which a ceiling grows.

    >>> from lnsnum import lns8f5
    >>> doubling(lns8f5), doubling(LNSFormat(8, 0, base=1.7))
    (32, 2)
    """
    return exact.ceil_log(1, 1, fmt.base, fmt.fraction_bits)
