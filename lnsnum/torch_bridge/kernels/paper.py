"""The paper's rule on codes: an addition to the logarithm of the weight, whose sign and whose zero stay.

    m  <-  clip(m - round(rate g_hat sign(w) + pull), 1, m_max),
    rate = lr 2^F / ln(base),   pull = rate weight_decay

All arithmetic is float32, one IEEE operation after the other as written. A step is at most 2^30 codes.

Source: Bernstein et al., Learning compositional functions via multiplicative weight updates, NeurIPS 2020, Algorithm 1;
decoupled weight decay: Loshchilov, Hutter, ICLR 2019.
"""

from __future__ import annotations

import numpy as np

from lnsnum.kernels.compiling import kernel
from lnsnum.torch_bridge.kernels.moments import RANDOM_UNIT
from lnsnum.torch_bridge.kernels.random_words import upper24

NEAREST, LOG, VALUE = 0, 1, 2
MODES = {"nearest": NEAREST, "stochastic_log": LOG, "stochastic_value": VALUE}

_GREATEST_STEP = np.float32(2.0**30)


@kernel
def move(codes, drive, pull, mode, up, words, leave, greatest, steps, p):  # type: ignore[no-untyped-def]
    """Move the codes.

    Args: `drive` is rate g_hat, NaN where the gradient is not finite; `up` the polynomial P of the format, for VALUE;
    `leave`: zeros with a drive become the smallest magnitude against it; `steps` (int32) and `p` (float32) are memory
    for what comes between.
    """
    if mode == NEAREST:
        _round_to_nearest(codes, drive, pull, greatest, steps)
    elif mode == LOG:
        _round_by_log(codes, drive, pull, greatest, words, steps)
    else:
        _round_by_value(codes, drive, pull, greatest, up, words, p, steps)
    _move(codes, steps, greatest)
    if leave:
        _leave_zero(codes, drive, greatest)


@kernel
def _shrink(code, drive, pull, greatest):  # type: ignore[no-untyped-def]
    """By how many code steps the magnitude is to shrink, as a real number; (its size, its whole part, the rest)."""
    # drive sign(w)
    along = -drive if np.int32(code) > greatest else drive
    # NaN fails the comparison: the decay, too, leaves an element without a finite gradient
    shrink = np.float32(along + pull) if abs(drive) < np.float32(np.inf) else np.float32(0.0)
    # before the conversion, which has no result beyond int32; `whole` is cut toward zero, so `part` is exact
    size = min(np.float32(abs(shrink)), _GREATEST_STEP)
    whole = np.int32(size)
    return shrink, whole, np.float32(size - np.float32(whole))


@kernel
def _signed(shrink, whole, more):  # type: ignore[no-untyped-def]
    # by size and sign, so that growing and shrinking are rounded alike
    steps = np.int32(whole + np.int32(more))
    # 0 - steps cut to int32: Numba's minus of an int32 is an int64, and the lanes would be half as many
    return steps if shrink > np.float32(0.0) else np.int32(np.int32(0) - steps)


@kernel
def _round_to_nearest(codes, drive, pull, greatest, steps):  # type: ignore[no-untyped-def]
    """`steps` becomes the whole number of code steps by which each magnitude shrinks (grows, where it is negative)."""
    one = np.int32(1)
    for i in range(codes.size):
        shrink, whole, part = _shrink(codes[i], drive[i], pull, greatest)
        # a tie goes up where that makes the number of steps even
        more = part > np.float32(0.5) or (part == np.float32(0.5) and np.int32(whole & one) == one)
        steps[i] = _signed(shrink, whole, more)


@kernel
def _round_by_log(codes, drive, pull, greatest, words, steps):  # type: ignore[no-untyped-def]
    """The same, up with the probability of the fraction."""
    for i in range(codes.size):
        shrink, whole, part = _shrink(codes[i], drive[i], pull, greatest)
        # between integers: the product by 2^24 is exact, what is below 2^-24 is cut
        more = upper24(words[i]) < np.int32(part * RANDOM_UNIT)
        steps[i] = _signed(shrink, whole, more)


@kernel
def _round_by_value(codes, drive, pull, greatest, up, words, p, steps):  # type: ignore[no-untyped-def]
    """The same, up with the probability p that is unbiased in the value: (b^part - 1) / (b - 1) to grow by a part of a
    step, to shrink by it 1 - (b^(1 - part) - 1) / (b - 1).

    Coefficient by coefficient over all elements, so that each is a loop of vectors.
    """
    one = np.float32(1.0)
    for i in range(codes.size):
        p[i] = np.float32(0.0)
    # Horner, from the highest term; P has no constant one, so the factor f comes last. A loop, since `up` is as long as
    # the format needs: this rule takes code steps of more than an octave. The step is made anew in each, which needs no
    # memory for its parts.
    for k in range(up.size):
        coefficient = up[up.size - 1 - k]
        for i in range(codes.size):
            shrink, whole, part = _shrink(codes[i], drive[i], pull, greatest)
            f = np.float32(one - part) if shrink > np.float32(0.0) else part
            p[i] = np.float32(np.float32(p[i] + coefficient) * f)
    for i in range(codes.size):
        shrink, whole, part = _shrink(codes[i], drive[i], pull, greatest)
        share = np.float32(one - p[i]) if shrink > np.float32(0.0) else p[i]
        # a shrink by whole codes has f = 1: 1 - P(1) is 0 but for roundings, of which none may move it by one more
        share = share if part > np.float32(0.0) else np.float32(0.0)
        more = upper24(words[i]) < np.int32(share * RANDOM_UNIT)
        steps[i] = _signed(shrink, whole, more)


@kernel
def _move(codes, steps, greatest):  # type: ignore[no-untyped-def]
    """m <- clip(m - steps, 1, m_max) where m > 0."""
    zero, one = np.int32(0), np.int32(1)
    for i in range(codes.size):
        code = np.int32(codes[i])
        m = np.int32(code & greatest)
        by = max(min(steps[i], greatest), np.int32(zero - greatest))
        new = min(max(np.int32(m - by), one), greatest)
        new = new if m > zero else m
        # the sign's bit is not touched: m and `new` are both from 1 to m_max, or equal
        codes[i] = np.int32(code + np.int32(new - m))


@kernel
def _leave_zero(codes, drive, greatest):  # type: ignore[no-untyped-def]
    """Zeros with a drive become the smallest magnitude against it."""
    for i in range(codes.size):
        leaves = codes[i] == 0 and abs(drive[i]) > np.float32(0.0)
        # the floor with a sign is m_max + 1, the sign's bit, and 1; a drive of NaN is not greater than 0
        smallest = np.int32(greatest + np.int32(2)) if drive[i] > np.float32(0.0) else np.int32(1)
        codes[i] = smallest if leaves else np.int32(codes[i])
