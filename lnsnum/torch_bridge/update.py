"""Madam's step on integers: the update of LNS weights as a function of arrays.

The paper's step, w <- w exp(-lr clamp(g_hat) sign(w)), moves log|w| by -lr clamp(g_hat) sign(w), so in code steps

    v      <-  beta v + (1 - beta) g^2                                         the second moment
    g_hat   =  clamp(g / sqrt(v / (1 - beta^t)), -g_bound, g_bound)
    m      <-  clip(m - round(rate g_hat) sign(w), 1, m_max),      rate = lr 2^F / ln(base)

an integer addition on the stored magnitude. Zero and NaN (m = 0) stay. All arithmetic is float32, one IEEE operation
after the other as written, so that any other implementation can agree to the bit; the random bits are Philox's, the
upper 24 of each word. Gradients enter as clamp(g / 2^exponent, -2^60, 2^60), and where v is then below 2^-126 the
weight does not move (so 0 / 0 moves nothing). A step is at most 2^30 codes.

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
_GREATEST_STEP = np.float32(2.0**30)
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
def _load_moment(moment, is_coded, out):  # type: ignore[no-untyped-def]
    if is_coded:
        for i in range(moment.size):
            out[i] = MOMENT_TABLE[np.uint8(moment[i])]
    else:
        for i in range(moment.size):
            out[i] = moment[i]


@kernel
def _advance(  # type: ignore[no-untyped-def]
    gradient, scale, beta, rest, correction, g_bound, rate, stochastic, random, v, steps
):  # fmt: skip
    """v becomes the new second moment, `steps` the code steps along the gradient: rounded, with the sign of g_hat.

    Returns how many gradients were not finite.
    """
    not_finite = np.int32(0)
    for i in range(gradient.size):
        finite = abs(gradient[i]) < np.float32(np.inf)
        g = gradient[i] * scale if finite else np.float32(0.0)
        g = min(max(g, -_GREATEST_GRADIENT), _GREATEST_GRADIENT)
        new = np.float32(beta * v[i]) + np.float32(rest * np.float32(g * g))
        corrected = max(np.float32(new * correction), _LEAST_NORMAL)
        g_hat = np.float32(g / np.float32(math.sqrt(corrected)))
        g_hat = min(max(g_hat, -g_bound), g_bound)
        g_hat = g_hat if new >= _LEAST_NORMAL else np.float32(0.0)
        size = min(np.float32(abs(g_hat) * rate), _GREATEST_STEP)
        whole = np.int32(size)
        part = np.float32(size - np.float32(whole))
        if stochastic:
            up = np.int32(random[i] >> _RANDOM_SHIFT) < np.int32(part * _RANDOM_UNIT)
        else:
            up = part > np.float32(0.5) or (part == np.float32(0.5) and (whole & np.int32(1)) == np.int32(1))
        whole = np.int32(whole + np.int32(up))
        steps[i] = whole if g_hat > np.float32(0.0) else -whole
        v[i] = new if finite else v[i]
        not_finite += np.int32(not finite)
    return not_finite


@kernel
def _move(codes, steps, max_magnitude):  # type: ignore[no-untyped-def]
    """m <- clip(m - steps * sign, 1, m_max) where m > 0; returns how many moved, and how many are at either end."""
    greatest = np.int32(max_magnitude)
    moved, at_ceiling, at_floor = np.int32(0), np.int32(0), np.int32(0)
    for i in range(codes.size):
        code = np.int64(codes[i])
        m = np.int32(code & max_magnitude)
        step = steps[i] if code > max_magnitude else np.int32(-steps[i])
        new = min(max(np.int32(max(min(step, greatest), -greatest) + m), np.int32(1)), greatest)
        new = new if m > 0 else m
        moved += np.int32(new != m)
        at_ceiling += np.int32(new == greatest)
        at_floor += np.int32(new == 1)
        codes[i] = code - m + new
    return moved, at_ceiling, at_floor


@kernel
def _store_moment(v, gradient, random, is_coded, moment):  # type: ignore[no-untyped-def]
    """Write the second moment, a code rounded stochastically on the value axis, where the gradient was finite."""
    if not is_coded:
        for i in range(moment.size):
            moment[i] = v[i]
        return
    t1, t2, t3 = _MANTISSAS[1], _MANTISSAS[2], _MANTISSAS[3]
    for i in range(moment.size):
        bits = np.float32(v[i]).view(np.int32)
        mantissa = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
        j = np.int32(mantissa >= t1) + np.int32(mantissa >= t2) + np.int32(mantissa >= t3)
        low = _MANTISSAS[j]
        position = np.float32(np.float32(mantissa - low) / np.float32(_MANTISSAS[j + 1] - low))
        code = np.int32(4 * ((bits >> np.int32(23)) - 127) + j + MOMENT_BIAS)
        underflow = code < 1
        position = np.float32(v[i] / MOMENT_TABLE[1]) if underflow else position
        code = np.int32(0) if underflow else code
        up = np.int32(random[i] >> _RANDOM_SHIFT) < np.int32(position * _RANDOM_UNIT)
        code = min(np.int32(code + np.int32(up)), np.int32(255))
        moment[i] = code if abs(gradient[i]) < np.float32(np.inf) else moment[i]


@kernel
def _step(  # type: ignore[no-untyped-def]
    codes, gradient, moment, is_coded, moment_scale, beta, rest, correction, g_bound, rate, stochastic,
    max_magnitude, seed, stream, step, start,
):  # fmt: skip
    """One step, in place, in chunks that stay in the first cache; each loop is one that the compiler can vectorize."""
    random, moment_random = np.empty(_CHUNK, np.uint32), np.empty(_CHUNK, np.uint32)
    v, steps = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.int32)
    moved, at_ceiling, at_floor, not_finite = 0, 0, 0, 0
    for begin in range(0, codes.size, _CHUNK):
        end = min(begin + _CHUNK, codes.size)
        n = end - begin
        if stochastic:
            fill_random_bits(random[:n], start + begin, seed, 2 * stream, step)
        if is_coded:
            fill_random_bits(moment_random[:n], start + begin, seed, 2 * stream + 1, step)
        g, own = gradient[begin:end], moment[begin:end]
        _load_moment(own, is_coded, v)
        not_finite += _advance(g, moment_scale, beta, rest, correction, g_bound, rate, stochastic, random, v, steps)
        counts = _move(codes[begin:end], steps, max_magnitude)
        moved, at_ceiling, at_floor = moved + counts[0], at_ceiling + counts[1], at_floor + counts[2]
        _store_moment(v, g, moment_random, is_coded, own)
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
