"""Madam's state in one byte a weight: the second moment and the momentum as LNS codes with two fraction bits.

    second moment   code 0 is zero, code c is 2^((c - 128) / 4 + 2 exponent)           unsigned: 64 octaves
    momentum        code 0 is zero, code c is 2^((c - 64) / 4 + exponent), c < 128     and its negative, c + 128

`exponent` is one integer for each parameter, fixed at its first nonzero gradient so that the greatest |g| / 2^exponent
is in [2^7, 2^8): what is stored is then the moment of g / 2^exponent. Both are rounded on the value axis,
stochastically, for a moment must not be inflated: up with probability (x - low) / (high - low), of which the upper 24
of the random bits decide. (The momentum is a tensor of `lns8f2` whose log_offset is 4 exponent.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernel import kernel

MOMENT_BIAS = 128
MOMENTUM_BIAS = 64
MOMENT_FRACTION_BITS = 2
MOMENT_HEADROOM = 7
NO_EXPONENT = -1000
EXPONENT_BOUND = 120

RANDOM_SHIFT = np.uint32(8)
RANDOM_UNIT = np.float32(2.0**24)

MANTISSAS = np.array([2.0 ** (j / 4) for j in range(5)]).astype(np.float32)
"""2^(j/4), the grid within an octave."""

MOMENT_TABLE = np.array([0.0] + [2.0 ** ((c - MOMENT_BIAS) / 4) for c in range(1, 256)]).astype(np.float32)
"""The value of each second-moment code at exponent 0."""

_MAGNITUDES = np.array([0.0] + [2.0 ** ((c - MOMENTUM_BIAS) / 4) for c in range(1, 128)]).astype(np.float32)

MOMENTUM_TABLE = np.concatenate([_MAGNITUDES, -_MAGNITUDES])
"""The value of each momentum code at exponent 0. (128, which would be -0, does not occur.)"""


@kernel
def first_exponent(gradient: NDArray[np.float32]) -> int:
    """The exponent of moments whose first gradient is this one; NO_EXPONENT where no element is finite and nonzero."""
    greatest = np.float32(0.0)
    for g in gradient:
        size = abs(g)
        if size > greatest and size < np.float32(np.inf):
            greatest = size
    if greatest == np.float32(0.0):
        return NO_EXPONENT
    exponent = math.frexp(greatest)[1] - 1 - MOMENT_HEADROOM
    return min(max(exponent, -EXPONENT_BOUND), EXPONENT_BOUND)


@kernel
def load_moment(moment: NDArray[Any], table: NDArray[np.float32], scale: Any, out: NDArray[np.float32]) -> None:
    """The values of one-byte codes times `scale`; of float32 moments, which need no table, themselves."""
    if table.size:
        for i in range(moment.size):
            out[i] = np.float32(table[np.uint8(moment[i])] * scale)
    else:
        for i in range(moment.size):
            out[i] = moment[i]


@kernel
def store_moment(v, gradient, random, moment):  # type: ignore[no-untyped-def]
    """Round the second moment to codes where the gradient was finite."""
    for i in range(moment.size):
        code = _round(np.float32(v[i]), random[i], np.int32(MOMENT_BIAS), MOMENT_TABLE[1], np.int32(255))
        moment[i] = code if abs(gradient[i]) < np.float32(np.inf) else moment[i]


@kernel
def store_momentum(u, gradient, random, scale, momentum):  # type: ignore[no-untyped-def]
    """Round the momentum times `scale` to signed codes where the gradient was finite."""
    for i in range(momentum.size):
        scaled = np.float32(u[i] * scale)
        size = np.float32(abs(scaled))
        code = _round(size, random[i], np.int32(MOMENTUM_BIAS), MOMENTUM_TABLE[1], np.int32(127))
        code = code + np.int32(128) if scaled < np.float32(0.0) and code > 0 else code
        momentum[i] = code if abs(gradient[i]) < np.float32(np.inf) else momentum[i]


@kernel
def _round(x, random, bias, smallest, greatest):  # type: ignore[no-untyped-def]
    """The code of a nonnegative float32, rounded stochastically on the value axis."""
    t1, t2, t3 = MANTISSAS[1], MANTISSAS[2], MANTISSAS[3]
    bits = np.float32(x).view(np.int32)
    mantissa = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
    j = np.int32(mantissa >= t1) + np.int32(mantissa >= t2) + np.int32(mantissa >= t3)
    low = MANTISSAS[j]
    position = np.float32(np.float32(mantissa - low) / np.float32(MANTISSAS[j + 1] - low))
    code = np.int32(4 * ((bits >> np.int32(23)) - 127) + j + bias)
    underflow = code < 1
    position = np.float32(x / smallest) if underflow else position
    code = np.int32(0) if underflow else code
    up = np.int32(random >> RANDOM_SHIFT) < np.int32(position * RANDOM_UNIT)
    return min(np.int32(code + np.int32(up)), greatest)
