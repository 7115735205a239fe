"""Madam's step on integers: the update of LNS weights as a function of arrays.

The paper's step, w <- w exp(-lr clamp(g_hat) sign(w)), moves log|w| by -lr clamp(g_hat) sign(w), so in code steps

    v      <-  beta v + (1 - beta) g^2                                         the second moment
    g_hat   =  clamp(g / sqrt(v / (1 - beta^t)), -g_bound, g_bound)
    m      <-  clip(m - round(rate g_hat) sign(w), 1, m_max),      rate = lr 2^F / ln(base)

an integer addition on the stored magnitude. Zero and NaN (m = 0) stay. All arithmetic is float32, one IEEE operation
after the other as written, so that any other implementation can agree to the bit; the random bits are Philox's, the
upper 24 of each word. Gradients enter as clamp(g / 2^exponent, -2^60, 2^60), and where v is then below 2^-126 the
weight does not move (so 0 / 0 moves nothing). A step is at most 2^40 codes.

Source: Bernstein et al., Learning compositional functions via multiplicative weight updates, NeurIPS 2020, Algorithm 1.

The second moment in one byte: code 0 is zero, code c is 2^((c - 128) / 4 + 2 exponent), 64 octaves, with `exponent` one
integer for each array, fixed at its first nonzero gradient so that the greatest |g| / 2^exponent is in [2^7, 2^8). It
is rounded on the value axis, stochastically, for it must not be inflated.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat, check_choice
from lnsnum.kernel import kernel
from lnsnum.rounding import fill_random_bits

MOMENT_BIAS = 128
MOMENT_FRACTION_BITS = 2
MOMENT_HEADROOM = 7
NO_EXPONENT = -1000
_EXPONENT_BOUND = 120

_CHUNK = 1024
_LEAST_NORMAL = np.float32(2.0**-126)
_GREATEST_GRADIENT = np.float32(2.0**60)
_GREATEST_STEP = np.float32(2.0**40)
_RANDOM_SHIFT = np.uint32(8)
_RANDOM_UNIT = np.float32(2.0**24)

_MANTISSAS = np.array([2.0 ** (j / 4) for j in range(5)]).astype(np.float32)
"""2^(j/4), the grid of the second moment within an octave."""

MOMENT_TABLE = np.array([0.0] + [2.0 ** ((c - MOMENT_BIAS) / 4) for c in range(1, 256)]).astype(np.float32)
"""The value of each second-moment code at exponent 0."""

StepRounding = Literal["stochastic_log", "nearest"]
"""How code steps are rounded; ties of "nearest" go to even."""


class StepCounts(NamedTuple):
    """What one step did to one array of codes."""

    moved: int
    at_ceiling: int
    at_floor: int
    not_finite: int


@kernel
def first_exponent(gradient: NDArray[np.float32]) -> int:
    """The exponent of a second moment whose first gradient is this one; NO_EXPONENT where no element is finite and
    nonzero.
    """
    greatest = np.float32(0.0)
    for g in gradient:
        size = abs(g)
        if size > greatest and size < np.float32(np.inf):
            greatest = size
    if greatest == np.float32(0.0):
        return NO_EXPONENT
    exponent = math.frexp(greatest)[1] - 1 - MOMENT_HEADROOM
    return min(max(exponent, -_EXPONENT_BOUND), _EXPONENT_BOUND)


@kernel
def _encode_moment(v, random):  # type: ignore[no-untyped-def]
    """The second-moment code of a float32 v >= 0, rounded stochastically on the value axis."""
    bits = np.int32(np.float32(v).view(np.int32))
    mantissa = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
    j = np.int32(mantissa >= _MANTISSAS[1]) + np.int32(mantissa >= _MANTISSAS[2]) + np.int32(mantissa >= _MANTISSAS[3])
    low = _MANTISSAS[j]
    position = (mantissa - low) / (_MANTISSAS[j + 1] - low)
    code = np.int64(4 * ((bits >> 23) - 127) + j + MOMENT_BIAS)
    if code < 1:
        code = np.int64(0)
        position = v / MOMENT_TABLE[1]
    code += np.int32(random >> _RANDOM_SHIFT) < np.int32(position * _RANDOM_UNIT)
    return min(code, 255)


@kernel
def _step(  # type: ignore[no-untyped-def]
    codes, gradient, moment, is_coded, moment_scale, beta, rest, correction, g_bound, rate, stochastic,
    max_magnitude, seed, stream, step, start,
):  # fmt: skip
    """One step, in place, in chunks that stay in the first cache: random bits, second moment, update, second moment."""
    random = np.empty(_CHUNK, np.uint32)
    moment_random = np.empty(_CHUNK, np.uint32)
    v = np.empty(_CHUNK, np.float32)
    sign_bit = max_magnitude + 1
    moved, at_ceiling, at_floor, not_finite = 0, 0, 0, 0
    for begin in range(0, codes.size, _CHUNK):
        n = min(_CHUNK, codes.size - begin)
        if stochastic:
            fill_random_bits(random[:n], start + begin, seed, 2 * stream, step)
        if is_coded:
            fill_random_bits(moment_random[:n], start + begin, seed, 2 * stream + 1, step)
        for i in range(n):
            g = gradient[begin + i]
            finite = abs(g) < np.float32(np.inf)
            g = np.float32(g * moment_scale)
            g = min(max(g, -_GREATEST_GRADIENT), _GREATEST_GRADIENT)
            old = MOMENT_TABLE[np.uint8(moment[begin + i])] if is_coded else np.float32(moment[begin + i])
            new = np.float32(np.float32(beta * old) + np.float32(rest * np.float32(g * g)))
            v[i] = new if finite else old
            corrected = max(np.float32(new * correction), _LEAST_NORMAL)
            g_hat = np.float32(g / np.float32(math.sqrt(corrected)))
            g_hat = min(max(g_hat, -g_bound), g_bound)
            if not finite or new < _LEAST_NORMAL:
                g_hat = np.float32(0.0)
            size = min(np.float32(abs(g_hat) * rate), _GREATEST_STEP)
            whole = np.int64(size)
            part = np.float32(size - np.float32(whole))
            if stochastic:
                whole += np.int64(np.int32(random[i] >> _RANDOM_SHIFT) < np.int32(part * _RANDOM_UNIT))
            elif part > np.float32(0.5) or (part == np.float32(0.5) and whole & 1):
                whole += 1
            code = np.int64(codes[begin + i])
            m = code & max_magnitude
            if (g_hat > np.float32(0.0)) != (code >= sign_bit):
                whole = -whole
            new_m = min(max(m + whole, 1), max_magnitude) if m > 0 else m
            moved += new_m != m
            at_ceiling += new_m == max_magnitude
            at_floor += new_m == 1
            not_finite += not finite
            codes[begin + i] = code - m + new_m
        if is_coded:
            for i in range(n):
                if abs(gradient[begin + i]) < np.float32(np.inf):
                    moment[begin + i] = _encode_moment(v[i], moment_random[i])
        else:
            for i in range(n):
                moment[begin + i] = v[i]
    return moved, at_ceiling, at_floor, not_finite


def madam_step(
    codes: NDArray[Any],
    gradient: NDArray[np.float32],
    second_moment: NDArray[Any],
    fmt: LNSFormat,
    *,
    lr: float,
    step: int,
    moment_exponent: int = 0,
    g_bound: float = 10.0,
    beta: float = 0.999,
    rounding: StepRounding = "stochastic_log",
    seed: int = 0,
    stream: int = 0,
    start: int = 0,
) -> StepCounts:
    """One step of Madam on codes: a function of its arguments alone, which writes its results over two of them.

    Args:
        codes: fmt.dtype, contiguous; updated.
        gradient: float32, of the same size. An element that is not finite changes nothing.
        second_moment: uint8 codes (see the module) or float32 values, of the same size; updated.
        lr: the paper's learning rate: the natural logarithm of the factor of a step at g_hat = 1.
        step: the number of this step, from 1; the bias correction and the random bits take it.
        moment_exponent: the scale of a uint8 second moment.
        g_bound, beta: clamp of the normalized gradient, decay of the second moment.
        rounding: of the code steps, "stochastic_log" or "nearest" (ties to even).
        seed, stream, start: what the random bits are drawn by; `start` is the index of the first element within the
            whole parameter, so that a shard draws what the whole would.

    Raises:
        TypeError: where an array is of another dtype.
        ValueError: where the arrays differ in size or are not contiguous, or an argument is out of range.

    Returns:
        How many elements moved, are at the greatest and at the smallest magnitude, and had a gradient not finite.

    >>> from lnsnum import lns8f3
    >>> codes, v = np.array([64, 192, 0], np.uint8), np.zeros(3, np.float32)
    >>> madam_step(codes, np.array([1, 1, 1], np.float32), v, lns8f3, lr=0.2, step=1, rounding="nearest")
    StepCounts(moved=2, at_ceiling=0, at_floor=0, not_finite=0)
    >>> codes.tolist()  # 0.2 * 8 / ln 2 = 2.3 steps: one shrinks, one grows, zero stays
    [62, 194, 0]
    """
    check_choice("rounding", rounding, StepRounding)
    if not (0.0 <= lr < math.inf and 0.0 <= beta < 1.0 and g_bound > 0.0 and step >= 1):
        raise ValueError(f"lr={lr}, beta={beta}, g_bound={g_bound}, step={step}: one of them is out of range")
    kinds: dict[str, list[Any]] = {
        "codes": [fmt.dtype],
        "gradient": [np.float32],
        "second_moment": [np.uint8, np.float32],
    }
    for (what, dtypes), array in zip(kinds.items(), (codes, gradient, second_moment), strict=True):
        if array.dtype not in dtypes:
            raise TypeError(f"{what} is of {array.dtype}: give {' or '.join(np.dtype(d).name for d in dtypes)}")
        if array.size != codes.size or not array.flags.c_contiguous:
            raise ValueError(f"{what} must be contiguous and of the {codes.size} elements of the codes")
    coded = second_moment.dtype == np.uint8
    rate = min(lr * (1 << fmt.fraction_bits) / math.log(fmt.base), 2.0**100)
    one = np.float32(1.0)
    moved = _step(
        codes.reshape(-1),
        gradient.reshape(-1),
        second_moment.reshape(-1),
        coded,
        np.float32(2.0**-moment_exponent) if coded else one,
        np.float32(beta),
        np.float32(1.0 - beta),
        np.float32(1.0 / (1.0 - beta**step)),
        np.float32(g_bound),
        np.float32(rate),
        rounding == "stochastic_log",
        fmt.max_magnitude,
        seed,
        stream,
        step,
        start,
    )
    return StepCounts(*moved)
