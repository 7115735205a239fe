"""A whole step of Madam on codes in NumPy: float32, one operation after the other as the kernels' docstrings say.

Every code, every moment and every count of `madam_step` is compared with this, never by a tolerance. That these are the
right operations is `madam_reference`'s business, which knows the page and no float.
"""

import math
from typing import NamedTuple

import madam_reference as reference
import numpy as np

from lnsnum.torch_bridge.kernels import grid
from lnsnum.torch_bridge.kernels.step_numbers import StepCounts

F32 = np.float32
TWO24 = F32(2.0**24)


class Result(NamedTuple):
    """What a step leaves."""

    codes: np.ndarray
    moment: np.ndarray
    momentum: np.ndarray | None
    counts: StepCounts


# ---------------------------------------------------------------------------------------------------- the random words


def words_at(index, *, seed, stream, step, use="code"):
    """The word of each element, by its index in the parameter, as int64."""
    key0, key1, *_ = reference.keys(seed=seed, stream=stream, step=step)
    index = index.astype(np.uint64)
    low, high = index & np.uint64(reference.MASK), index >> np.uint64(32)
    x = (low * np.uint64(0x9E3779B9) + high * np.uint64(0xBB67AE85) + np.uint64(key0)) & np.uint64(reference.MASK)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x7FEB352D) & np.uint64(reference.MASK)) ^ np.uint64(key1)
    x ^= x >> np.uint64(15)
    x = x * np.uint64(0x846CA68B) & np.uint64(reference.MASK)
    x ^= x >> np.uint64(16)
    return (x * np.uint64(reference.FACTORS[use]) & np.uint64(reference.MASK)).astype(np.int64)


def threshold24(share):
    """How many of the 2^24 numbers are below a float32 probability."""
    return np.floor(share * TWO24).astype(np.int64)


# ---------------------------------------------------------------------------------------------------------- the moments

MOMENTS = np.array([float(reference.moment_value(code)) for code in range(256)], F32)
MOMENTA = np.array([float(reference.momentum_value(code)) for code in range(256)], F32)


def code_of(x, table, words):
    """Nonnegative float32 values as indices into an increasing table, stochastically rounded on the value axis."""
    code = np.searchsorted(table, x, side="right") - 1
    low, high = table[code].astype(float), table[np.minimum(code + 1, table.size - 1)].astype(float)
    with np.errstate(all="ignore"):
        rest = np.where(high > low, (x - low) / (high - low) * 2**21, 0.0)  # whole numbers: the bits below the code's
        chance = np.minimum(x * F32(1.0 / float(table[1])), F32(1.0))
    up = np.where(code > 0, (words >> 11) + rest.astype(np.int64) >= 1 << 21, words >> 8 < threshold24(chance))
    return code + (up & (code < table.size - 1))


# ------------------------------------------------------------------------------------------------------------ the rules


def bent(fmt, v):
    """W at u = v + 1/2: four terms, and others where there are."""
    few, more = grid.bend_coefficients(fmt)
    w = few[0] + v * (few[1] + v * (few[2] + few[3] * v))
    if more is None:
        return w
    vv = v * v
    pairs = (more[0] + more[1] * v) + (more[2] + more[3] * v) * vv + more[4] * (vv * vv)
    return w + pairs * (vv * vv)


def hypentropy(codes, drive, unit, decay, words, fmt, keep):
    """The magnitudes and signs (whether negative) after a move by the hypentropy rule; `drive` is finite."""
    m = codes.astype(np.int64) & fmt.max_magnitude
    negative = codes > fmt.max_magnitude
    inverse, one = np.where(m > 0, grid.inverses(fmt)[m], F32(1.0)), (m > 0).astype(F32)
    ratio = np.minimum(unit, F32(2.0**63)) * inverse
    along = drive * np.sqrt(one + ratio * ratio)
    d = np.where(negative, along, -along) - decay * one
    t = one + d
    half, e = np.frexp(np.abs(t))
    upper = half >= F32(math.sqrt(0.5))
    e = np.where(np.isinf(t), 128, np.where(upper, e, e - 1))
    z = np.where(np.isinf(t), F32(0.0), np.where(upper, half, F32(2.0) * half) - F32(1.0))
    z = np.where((e == 0) & (t > 0) & (m > 0), d, z)
    s = z / (z + F32(2.0))
    log = grid.log_coefficients(fmt)
    position = e.astype(F32) * grid.octave(fmt) + (log[0] + s * s * (log[1] + log[2] * (s * s))) * s
    signed = words.astype(np.uint32).view(np.int32)
    v = ((signed >> 8) | 1).astype(F32) * F32(2.0**-24)
    total = position + bent(fmt, v)
    assert total.dtype == F32
    low = np.maximum(np.maximum(m, 1) + np.floor(total).astype(np.int64), 1)
    below, crossed = np.abs(t) < inverse, t < 0
    if keep:
        crossed = np.where(below, ~((v + v) * inverse < t), crossed)
        new = np.where(m > 0, np.where(below, 1, low), 0)
    else:
        new = np.where(below, (v + F32(0.5)) * inverse < np.abs(t), low)
    return np.minimum(new, fmt.max_magnitude), negative != crossed


def value_share(part, shrinks, fmt):
    """The fraction of a step as a probability that is unbiased in the value, by Horner's scheme."""
    f = np.where(shrinks, F32(1.0) - part, part)
    p = np.zeros_like(f)
    for coefficient in grid.up_coefficients(fmt)[::-1]:
        p = (p + coefficient) * f
    return np.where(part > 0, np.where(shrinks, F32(1.0) - p, p), F32(0.0))


def paper(codes, drive, pull, words, fmt, rounding, leave):
    """The same by the paper's rule."""
    m = codes.astype(np.int64) & fmt.max_magnitude
    negative = codes > fmt.max_magnitude
    shrink = np.where(negative, -drive, drive) + pull
    size = np.minimum(np.abs(shrink), F32(2.0**30))
    assert size.dtype == F32
    if rounding == "nearest":
        steps = np.rint(size).astype(np.int64)
    else:
        part = size - np.floor(size)
        share = value_share(part, shrink > 0, fmt) if rounding == "stochastic_value" else part
        steps = np.floor(size).astype(np.int64) + (words >> 8 < threshold24(share))
    new = np.where(m > 0, np.clip(m - np.where(shrink > 0, steps, -steps), 1, fmt.max_magnitude), m)
    if leave:
        leaves = (codes == 0) & (drive != 0)
        new, negative = np.where(leaves, 1, new), np.where(leaves, drive > 0, negative)
    return new, negative


# ------------------------------------------------------------------------------------------------------------- the step


def oracle(
    codes,
    gradient,
    moment,
    fmt,
    *,
    lr,
    step,
    unit=1.0,
    inner=1,
    kappa=1.0,
    momentum_codes=None,
    exponent=0,
    g_bound=10.0,
    beta=0.999,
    momentum=0.0,
    weight_decay=0.0,
    beta_product=None,
    momentum_product=None,
    rule="hypentropy",
    rounding=None,
    zero=None,
    seed=0,
    stream=0,
    start=0,
    rows=None,
) -> Result:
    """What madam_step's docstring promises."""
    finite, coded = np.isfinite(gradient), moment.dtype == np.uint8
    if rows is None:
        index = np.arange(start, start + codes.size, dtype=np.uint64)
    else:
        width = codes.size // max(rows.size, 1)
        index = (rows[:, None] * width + np.arange(width)).reshape(-1).astype(np.uint64)
    beta_product = beta**step if beta_product is None else beta_product
    momentum_product = momentum**step if momentum_product is None else momentum_product
    rate = lr * kappa if rule == "hypentropy" else lr * 2**fmt.fraction_bits / math.log(fmt.base)
    decay = F32(min((lr if rule == "hypentropy" else rate) * weight_decay, 2.0**30))
    bound = F32(min(g_bound, 2.0**27))

    def words(use):
        return words_at(index, seed=seed, stream=stream, step=step, use=use)

    with np.errstate(all="ignore"):
        g = np.where(finite, gradient, F32(0.0))
        g = np.clip(g * F32(2.0**-exponent) if coded else g, F32(-(2.0**60)), F32(2.0**60))
        v = F32(beta) * (MOMENTS[moment] if coded else moment) + F32(1.0 - beta) * (g * g)
        v_hat = np.maximum(v * F32(1.0 / (1.0 - beta_product)), F32(2.0**-126))
        drive = g
        if momentum_codes is not None:
            old = MOMENTA[momentum_codes] * F32(1.0 if coded else 2.0**exponent)
            u = F32(momentum) * old + F32(1.0 - momentum) * g
            drive = u * F32(1.0 / (1.0 - momentum_product))
        g_hat = np.clip(drive / np.sqrt(v_hat), -bound, bound)
        drive = np.where(finite & (v >= F32(2.0**-126)), g_hat, F32(0.0)) * F32(min(rate, 2.0**100))
        if rule == "hypentropy":
            units = np.atleast_1d(np.asarray(unit, F32))
            own = units[(index // np.uint64(inner) % np.uint64(units.size)).astype(np.int64)]
            new_m, negative = hypentropy(codes, drive, own, decay, words("code"), fmt, zero == "keep")
        else:
            new_m, negative = paper(codes, drive, decay, words("code"), fmt, rounding, zero == "leave")
        m = codes.astype(np.int64) & fmt.max_magnitude
        stays = ~finite | (codes == fmt.nan_code)
        new_m = np.where(stays, m, new_m)
        new_codes = np.where(stays, codes, new_m + np.where(negative & (new_m > 0), fmt.sign_bit, 0))
        if coded:
            v = code_of(v, MOMENTS, words("moment")).astype(np.uint8)
        if momentum_codes is not None:
            scaled = u * F32(1.0 if coded else 2.0**-exponent)
            c = code_of(np.abs(scaled), MOMENTA[:128], words("momentum"))
            u = np.where(finite, np.where((scaled < 0) & (c > 0), c + 128, c), momentum_codes).astype(np.uint8)
    crossed = (new_m > 0) & (m > 0) & ((new_codes > fmt.max_magnitude) != (codes > fmt.max_magnitude))
    counts = StepCounts(
        moved=int((new_codes != codes).sum()),
        at_ceiling=int((new_m == fmt.max_magnitude).sum()),
        at_floor=int((new_m == 1).sum()),
        zeros=int((new_codes == 0).sum()),
        sign_changes=int(crossed.sum()),
        not_finite=int((~finite).sum()),
    )
    return Result(
        new_codes.astype(codes.dtype), np.where(finite, v, moment), None if momentum_codes is None else u, counts
    )
