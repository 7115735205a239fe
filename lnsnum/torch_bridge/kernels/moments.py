"""Madam's state in one byte a weight: the second moment and the momentum as floats of eight bits.

    second moment   6 exponent bits e, 2 mantissa bits j:    2^(e - 32) (1 + j / 4) 4^exponent     unsigned: 64 octaves
    momentum        a sign, 5 exponent bits, 2 mantissa:     2^(e - 16) (1 + j / 4) 2^exponent     and code 0 is zero

which is Mitchell's piecewise linear logarithm with two fraction bits. A float32 has the same layout with longer fields,
so loading is a shift, and rounding the addition of random bits below the two kept ones before a shift: between
neighbours the bits of a float are linear in its value, so what is stored is right on average, exactly (a moment must
not be inflated). Below the smallest number the probability of becoming it is the quotient of the two.

`exponent` is one integer for each parameter: the first nonzero gradient puts its greatest |g| / 2^exponent into
[2^7, 2^8), and what is stored is the moment of g / 2^exponent. After a step in which one reached 2^12 the exponent is
raised to that again, and all codes go down by as many octaves: by an integer subtraction.

Source: Mitchell, Computer multiplication and division using binary logarithms, IRE Trans. EC-11 (1962).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.torch_bridge.kernels.random_words import moment_word, momentum_word, upper24

MOMENT_BIAS = 32
MOMENTUM_BIAS = 16
# |g| / 2^exponent of the first gradients is below 2^(HEADROOM + 1), and so their squares below 2^16 of 2^32; from
# 2^LIMIT on the exponent follows.
MOMENT_HEADROOM = 7
MOMENT_LIMIT = 12
# Before the first nonzero gradient: beyond any exponent that there can be.
NO_EXPONENT = -1000
EXPONENT_BOUND = 120

RANDOM_UNIT = np.float32(2.0**24)


def _values(count: int, bias: int) -> NDArray[np.float32]:
    values = [0.0] + [2.0 ** ((c >> 2) - bias) * (1 + (c & 3) / 4) for c in range(1, count)]
    return np.array(values, np.float32)


MOMENT_TABLE = _values(256, MOMENT_BIAS)
"""The value of each second-moment code at exponent 0."""

MOMENTUM_TABLE = np.concatenate([_values(128, MOMENTUM_BIAS), -_values(128, MOMENTUM_BIAS)])
"""The value of each momentum code at exponent 0. (128, which would be -0, does not occur.)"""

PER_SMALLEST = (1.0 / np.array([MOMENT_TABLE[1], MOMENTUM_TABLE[1]], np.float64)).astype(np.float32)
"""1 / (the smallest nonzero moment), and momentum."""

_FIELD = np.int32(21)  # a float32 has 21 bits below its two upper mantissa bits
# The bits of 2^-bias, for which code 0 would stand if it were not zero.
_MOMENT_ZERO, _MOMENTUM_ZERO = (np.int32((127 - bias) << 23) for bias in (MOMENT_BIAS, MOMENTUM_BIAS))
_BELOW = np.int32((1 << 21) - 1)


@kernel
def greatest_gradient(gradient):  # type: ignore[no-untyped-def]
    """The greatest finite |gradient|, as the bits of a float32: as integers they are in the same order."""
    greatest = np.int32(0)
    bits = gradient.view(np.int32)
    for i in range(bits.size):
        # a maximum of integers is the same in any order, so the compiler makes vectors of it; of floats it may not
        size = np.int32(bits[i] & np.int32(0x7FFFFFFF))
        greatest = max(greatest, size if size < np.int32(0x7F800000) else np.int32(0))
    return greatest


@kernel
def exponent_of(greatest):  # type: ignore[no-untyped-def]
    """The exponent of moments whose first gradients have this greatest |g|, by its bits; NO_EXPONENT of 0."""
    if greatest == 0:
        return NO_EXPONENT
    # the octave of a subnormal number is below the bound in any case
    return min(max(np.int64(greatest >> 23) - 127 - MOMENT_HEADROOM, -EXPONENT_BOUND), EXPONENT_BOUND)


def first_exponent(gradient: NDArray[np.float32]) -> int:
    """The exponent of moments whose first gradient is this one; NO_EXPONENT where no element is finite and nonzero.

    >>> first_exponent(np.array([0.0, -3.0, np.inf], np.float32))
    -6
    """
    return int(exponent_of(greatest_gradient(gradient)))


@kernel
def octaves_to_raise(greatest, exponent):  # type: ignore[no-untyped-def]
    """By how much the exponent is raised after a step whose greatest |gradient| has these bits: 0 below the limit.

    >>> bits = int(np.float32(2.0**12).view(np.int32))
    >>> octaves_to_raise(bits, 0), octaves_to_raise(bits, 1)
    (5, 0)
    """
    octave = max(np.int64(greatest >> 23), np.int64(1)) - 127 - exponent  # subnormals are below every limit
    if octave < MOMENT_LIMIT:
        return 0
    return min(octave - MOMENT_HEADROOM, EXPONENT_BOUND - exponent)


def lower_moment(moment: NDArray[np.uint8], octaves: int) -> None:
    """Let the codes of the second moment stand for the same values at an exponent that is `octaves` greater; what is
    below the smallest number becomes that."""
    # an octave of the gradient is two of v, of four codes each; in int32, as a byte would wrap around
    np.copyto(moment, np.where(moment > 0, np.maximum(moment.astype(np.int32) - 8 * octaves, 1), 0).astype(np.uint8))


def lower_momentum(momentum: NDArray[np.uint8], octaves: int) -> None:
    """The same for the momentum, of which what is below the smallest number becomes zero."""
    # four codes an octave; the sign, bit 7, is put back
    size = (momentum & 127).astype(np.int32) - 4 * octaves
    np.copyto(momentum, np.where(size > 0, size + (momentum & 128), 0).astype(np.uint8))


@kernel
def load_moment(moment: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """The values of second-moment codes at exponent 0: those of `MOMENT_TABLE`."""
    for i in range(moment.size):
        # a shift and a sum in the place of the table, loads from which do not become vectors; cut to int32, as Numba
        # widens both to int64 and the view is of 32 bits
        code = np.int32(moment[i])
        x = np.int32(np.int32(code << _FIELD) + _MOMENT_ZERO).view(np.float32)
        out[i] = x if code > np.int32(0) else np.float32(0.0)


@kernel
def load_momentum(momentum: NDArray[np.uint8], scale: Any, out: NDArray[np.float32]) -> None:
    """The values of momentum codes, those of `MOMENTUM_TABLE`, times `scale`."""
    for i in range(momentum.size):
        code = np.int32(momentum[i])
        size = np.int32(code & np.int32(127))
        x = np.int32(np.int32(size << _FIELD) + _MOMENTUM_ZERO).view(np.float32)
        # the scale is a power of two: nothing is rounded
        x = np.float32(x * scale) if size > np.int32(0) else np.float32(0.0)
        out[i] = -x if code > np.int32(127) else x


@kernel
def store_moment(v, gradient, words, moment):  # type: ignore[no-untyped-def]
    """Round the second moment to codes where the gradient was finite."""
    for i in range(moment.size):
        code = _round(np.float32(v[i]), moment_word(words[i]), _MOMENT_ZERO, PER_SMALLEST[0], np.int32(255))
        # a comparison that NaN fails; the old code is written again, as a store on a condition would be a branch
        moment[i] = code if abs(gradient[i]) < np.float32(np.inf) else np.int32(moment[i])


@kernel
def store_momentum(u, gradient, words, scale, momentum):  # type: ignore[no-untyped-def]
    """Round the momentum times `scale` to signed codes where the gradient was finite."""
    for i in range(momentum.size):
        scaled = np.float32(u[i] * scale)
        size = np.float32(abs(scaled))
        code = _round(size, momentum_word(words[i]), _MOMENTUM_ZERO, PER_SMALLEST[1], np.int32(127))
        code = np.int32(code + np.int32(128)) if scaled < np.float32(0.0) and code > np.int32(0) else code
        momentum[i] = code if abs(gradient[i]) < np.float32(np.inf) else np.int32(momentum[i])


@kernel
def _round(x, word, zero, per_smallest, greatest):  # type: ignore[no-untyped-def]
    """The code of a nonnegative float32, rounded stochastically on the value axis."""
    bits = np.float32(x).view(np.int32)
    above = np.int32(bits - zero)  # of a float below 2^-bias it is negative, and never less than -2^30
    # int32 shifts copy the sign: masked off
    random = np.int32(np.int32(word >> np.int32(11)) & _BELOW)
    # The greatest sum stays below 2^31: x is finite, so its bits are at most 0x7F800000, and zero is over 2^29.
    code = np.int32(np.int32(above + random) >> _FIELD)
    # less than code 1: 2^21 above the bits of 2^-bias, as code 0 stands for 0
    is_small = above < np.int32(1 << 21)
    # computed in every lane, also where `code` is taken: the bound by 1 keeps the number in int32
    by_chance = np.int32(
        upper24(word) < np.int32(np.float32(min(np.float32(x * per_smallest), np.float32(1.0)) * RANDOM_UNIT))
    )
    return min(by_chance if is_small else code, greatest)
