"""Tables of floats: the bit patterns of consecutive points of a grid, each rounded once.

base^(E / 2^F)  =  s 2^(exponent - 63),    s from 2^63 on: 64 bits, of which the lower ones are rounded away

At base 2 those of one octave serve all E.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import FLOAT_TYPES
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.elementary import significands


@lru_cache(maxsize=64)
def exact_significands(base: float, fraction_bits: int, lowest: int, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """`exact.significand64` of `count` grid points from E = lowest: two arrays, uint64 and int64."""
    pairs = [exact.significand64(base, lowest + j, fraction_bits) for j in range(count)]
    return np.array([p[0] for p in pairs], np.uint64), np.array([p[1] for p in pairs], np.int64)


@kernel
def _round_significand(s, exponent, mantissa_bits, max_exponent):  # type: ignore[no-untyped-def]
    """The bit pattern of s 2^(exponent - 63), s from 2^63 on, to nearest with ties to even, once."""
    if exponent > max_exponent:
        return np.uint64(2 * max_exponent + 1) << np.uint64(mantissa_bits)
    # the leading one of s is added to the exponent field below, hence the - 1
    biased = exponent + max_exponent - 1
    drop = np.int64(63 - mantissa_bits)
    # a subnormal number: more bits are dropped, and the exponent field is 0
    if biased < 0:
        drop, biased = drop - biased, np.int64(0)
    # below half of the least subnormal
    if drop > 64:
        return np.uint64(0)
    half = np.uint64(1) << np.uint64(drop - 1)
    kept = s >> np.uint64(drop) if drop < 64 else np.uint64(0)
    rest = s - (kept << np.uint64(drop)) if drop < 64 else s
    # a carry out of the mantissa goes into the exponent, which is what it must
    kept += np.uint64(rest > half or (rest == half and kept & np.uint64(1) == np.uint64(1)))
    pattern = (np.uint64(biased) << np.uint64(mantissa_bits)) + kept
    # rounded up beyond the greatest: infinity
    return min(pattern, np.uint64(2 * max_exponent + 1) << np.uint64(mantissa_bits))


@kernel
def round_significands(s, exponent, negative, mantissa_bits, max_exponent, sign_bit, out):  # type: ignore[no-untyped-def]
    """The floats (-1)^negative s 2^(exponent - 63) as bit patterns; a zero has no sign."""
    for i in range(s.size):
        pattern = _round_significand(s[i], exponent[i], mantissa_bits, max_exponent)
        out[i] = pattern | (np.uint64(negative[i] and pattern != 0) << np.uint64(sign_bit))


_FEW_BITS = 10
"""Tables of fewer than 2^10 entries do without the tables of `lnsnum.kernels.elementary`, which have more."""


def patterns_of(fmt: LNSFormat, logs: NDArray[np.int64], dtype: str, *, negative: bool) -> NDArray[Any]:
    """The bit patterns in `dtype` of consecutive E, of a format up to 16 bits."""
    to = FLOAT_TYPES[dtype]
    # at base 2 an octave of significands serves all E
    if fmt.base == 2.0:
        fraction, _ = exact_significands(2.0, fmt.fraction_bits, 0, 1 << fmt.fraction_bits)
        significand = fraction[logs & ((1 << fmt.fraction_bits) - 1)]
        exponent = logs >> fmt.fraction_bits
    elif logs.size < 1 << _FEW_BITS:
        significand, exponent = exact_significands(fmt.base, fmt.fraction_bits, int(logs[0]), logs.size)
    else:
        significand, exponent = significands(fmt.base, fmt.fraction_bits, logs)
    patterns = np.empty(logs.shape, to.pattern)
    signs = np.broadcast_to(negative, logs.shape)
    round_significands(significand, exponent, signs, to.mantissa_bits, to.max_exponent, to.bits - 1, patterns)
    return patterns
