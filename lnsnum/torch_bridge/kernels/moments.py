"""Madam's state in one byte a weight: the second moment and the momentum as LNS codes with two fraction bits.

    second moment   code 0 is zero, code c is 2^((c - 128) / 4 + 2 exponent)           unsigned: 64 octaves
    momentum        code 0 is zero, code c is 2^((c - 64) / 4 + exponent), c < 128     and its negative, c + 128

`exponent` is one integer for each parameter, fixed at its first nonzero gradient so that the greatest |g| / 2^exponent
is in [2^7, 2^8): what is stored is then the moment of g / 2^exponent. Both are rounded on the value axis,
stochastically, for a moment must not be inflated: up with probability (x - low) * (1 / (high - low)), in float32, of
which the upper 24 of the random bits decide. (The momentum is a tensor of `lns8f2` whose log_offset is 4 exponent.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel

MOMENT_BIAS = 128
MOMENTUM_BIAS = 64
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
def load_moment(moment: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """The values of second-moment codes at exponent 0: those of `MOMENT_TABLE`."""
    for i in range(moment.size):
        out[i] = _value(np.int32(moment[i]), np.int32(MOMENT_BIAS))


@kernel
def load_momentum(momentum: NDArray[np.uint8], scale: Any, out: NDArray[np.float32]) -> None:
    """The values of momentum codes, those of `MOMENTUM_TABLE`, times `scale`."""
    for i in range(momentum.size):
        code = np.int32(momentum[i])
        x = np.float32(_value(np.int32(code & np.int32(127)), np.int32(MOMENTUM_BIAS)) * scale)
        out[i] = -x if code > np.int32(127) else x


@kernel
def store_moment(v, gradient, random, moment):  # type: ignore[no-untyped-def]
    """Round the second moment to codes where the gradient was finite."""
    for i in range(moment.size):
        code = _round(np.float32(v[i]), random[i], np.int32(MOMENT_BIAS), PER_SMALLEST[0], np.int32(255))
        moment[i] = code if abs(gradient[i]) < np.float32(np.inf) else moment[i]


@kernel
def store_momentum(u, gradient, random, scale, momentum):  # type: ignore[no-untyped-def]
    """Round the momentum times `scale` to signed codes where the gradient was finite."""
    for i in range(momentum.size):
        scaled = np.float32(u[i] * scale)
        size = np.float32(abs(scaled))
        code = _round(size, random[i], np.int32(MOMENTUM_BIAS), PER_SMALLEST[1], np.int32(127))
        code = np.int32(code + np.int32(128)) if scaled < np.float32(0.0) and code > np.int32(0) else code
        momentum[i] = code if abs(gradient[i]) < np.float32(np.inf) else momentum[i]


INVERSE_GAPS = (1.0 / (MANTISSAS[1:] - MANTISSAS[:-1]).astype(np.float64)).astype(np.float32)
"""1 / (the distance of neighbours in the grid): positions between two codes are products, which are faster."""

PER_SMALLEST = (1.0 / np.array([MOMENT_TABLE[1], _MAGNITUDES[1]], np.float64)).astype(np.float32)
"""1 / (the smallest nonzero moment), and momentum."""

_M1, _M2, _M3 = (np.int32(bits & 0x7FFFFF) for bits in MANTISSAS[1:4].view(np.int32))
_M12, _M23 = np.int32(_M2 - _M1), np.int32(_M3 - _M2)
_G0, _G1, _G2, _G3 = (np.int32(bits) for bits in INVERSE_GAPS.view(np.int32))
_G01, _G12, _G23 = np.int32(_G1 - _G0), np.int32(_G2 - _G1), np.int32(_G3 - _G2)
_ONE = np.int32(0x3F800000)
_EXPONENT = np.int32(23)


@kernel
def _value(code, bias):  # type: ignore[no-untyped-def]
    """2^((code - bias) / 4) as a float32, 0 for code 0.

    From integers, as is the code in `_round`: sums of bits where a table would be four loads an element. Each sum is
    brought back to int32; Numba's are int64, and vectors of those half as long.
    """
    j = np.int32(code & np.int32(3))
    mantissa = np.int32(_M1 * np.int32(j > np.int32(0)))
    mantissa = np.int32(mantissa + np.int32(_M12 * np.int32(j > np.int32(1))))
    mantissa = np.int32(mantissa + np.int32(_M23 * np.int32(j > np.int32(2))))
    exponent = np.int32(np.int32(code >> np.int32(2)) + np.int32(127 - np.int32(bias >> np.int32(2))))
    x = np.int32(np.int32(exponent << _EXPONENT) | mantissa).view(np.float32)
    return x if code > np.int32(0) else np.float32(0.0)


@kernel
def _round(x, random, bias, per_smallest, greatest):  # type: ignore[no-untyped-def]
    """The code of a nonnegative float32, rounded stochastically on the value axis."""
    bits = np.float32(x).view(np.int32)
    mantissa = np.int32(bits & np.int32(0x7FFFFF))
    from1, from2, from3 = np.int32(mantissa >= _M1), np.int32(mantissa >= _M2), np.int32(mantissa >= _M3)
    low = np.int32(np.int32(_ONE + np.int32(_M1 * from1)) + np.int32(_M12 * from2))
    low = np.int32(low + np.int32(_M23 * from3)).view(np.float32)
    per_gap = np.int32(np.int32(_G0 + np.int32(_G01 * from1)) + np.int32(_G12 * from2))
    per_gap = np.int32(per_gap + np.int32(_G23 * from3)).view(np.float32)
    position = np.float32(np.float32(np.int32(mantissa | _ONE).view(np.float32) - low) * per_gap)
    octave = np.int32(np.int32(bits >> _EXPONENT) - np.int32(127))
    code = np.int32(np.int32(np.int32(octave << np.int32(2)) + bias) + np.int32(np.int32(from1 + from2) + from3))
    underflow = code < np.int32(1)
    position = np.float32(x * per_smallest) if underflow else position
    code = np.int32(0) if underflow else code
    up = np.int32(random >> RANDOM_SHIFT) < np.int32(position * RANDOM_UNIT)
    return min(np.int32(code + np.int32(up)), greatest)
