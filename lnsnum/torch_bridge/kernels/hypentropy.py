"""The hypentropy rule on codes: multiplicative for large weights, additive for small ones, through zero.

In units of the floor (the magnitude of m = 1), with X as in `grid`, s the sign, unit = crossover * r / floor:

    y   =  s X[m] (1 - decay)  -  rate g_hat sqrt(X[m]^2 + unit^2)             where the weight is to be, a real number
    m'  =  k + [u < (|y| - X[k]) / (X[k + 1] - X[k])]   where |y| >= 1, X[k] <= |y| < X[k + 1]; at most m_max
    m'  =  [u < |y|]                                    where |y| <  1;        s' = sign(y), and zero has none

so the weight is right on average. What runs is float32, relative to the weight, so that a small step is added to an
integer and nothing of it lost: with M = max(m, 1), one = [m > 0] and c = sqrt(one + (unit / X[M])^2),

    t   =  y / (s X[M])  =  one + d,      d  =  -s rate g_hat c - one decay
    L   =  K log2|t|  =  K e + K z Q(z),  t = 2^e (1 + z),  1/sqrt(2) <= 1 + z < sqrt(2);   z = d itself where e = 0
    m'  =  M + floor(L) + [u < P(L - floor(L))],         P(f) = (b^f - 1) / (b - 1), b the factor of one step

Q is a polynomial of degree 7: z Q(z) as evaluated is within 2^-21.2 of log2(1 + z) in relation, P as evaluated within
2^-22; every operation is one of IEEE's in the order written. `probability_error` bounds by how much the probability of
a code differs. Where a weight falls by far in one step, y is what is left of two large numbers, and the error of h,
CHANGE_ERROR in relation, counts by h / |y|: that is its argument `reach`.

Source: Ghai, Hazan, Singer, Exponentiated gradient meets gradient descent, ALT 2020: the hypentropy potential, whose
mirror descent w <- unit sinh(arcsinh(w / unit) - rate g_hat) has this step as its first order.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.kernels.compiling import kernel
from lnsnum.torch_bridge.kernels.moments import RANDOM_UNIT
from lnsnum.torch_bridge.kernels.random_words import upper24

LOG2 = tuple(
    np.float32(float.fromhex(coefficient))
    for coefficient in (
        "0x1.715474p+0", "-0x1.715528p-1", "0x1.ec7724p-2", "-0x1.70e2aap-2",
        "0x1.25fd34p-2", "-0x1.fdb326p-3", "0x1.df519ep-3", "-0x1.2a9f5ep-3",
    )
)  # fmt: skip
"""Q: log2(1 + z) = z Q(z) from 1/sqrt(2) to sqrt(2), the polynomial of least relative error, in float32."""

LOG2_ERROR = 2.0**-21.2
"""Bound of the relative error of z Q(z), evaluated in float32."""

POWER_ERROR = 2.0**-22
"""Bound of the error of P, evaluated in float32: its roundings, and the terms that are cut."""

CHANGE_ERROR = 6 * 2.0**-24
"""Bound of the relative error of h = rate g_hat sqrt(X[m]^2 + unit^2), for a unit that is 0 or at least 2^-60 and at
most 2^63: half the six roundings within the root, its own, those of the product and of the sum with the decay."""

GREATEST_RATIO = 2.0**63
"""Of unit / X[m], so that its square is finite."""

OCTAVES = 64
"""A format of this rule spans less: no unit of a weight that it can hold is then beyond GREATEST_RATIO."""

SQRT_HALF = 0x3F3504F3
"""The bits of 1/sqrt(2): subtracted from those of t, what is left in the exponent's field is e."""

_Q0, _Q1, _Q2, _Q3, _Q4, _Q5, _Q6, _Q7 = LOG2
_SQRT_HALF, _EXPONENT, _SIZE = np.int32(SQRT_HALF), np.int32(23), np.int32(0x7FFFFFFF)
_FARTHEST = np.float32(2.0**30)
_GREATEST_RATIO = np.float32(GREATEST_RATIO)


@lru_cache(maxsize=64)
def check_format(fmt: LNSFormat) -> None:
    """Raise ValueError where the kernel would be wrong: P has eight terms, enough for code steps of up to an octave,
    and ratios of two magnitudes are to have a square in float32.

    >>> check_format(LNSFormat(8, 0, base=3.0))
    Traceback (most recent call last):
    ValueError: lns8f0b0x1.8000000000000p+1 has code steps of 1.58 octaves and spans 200 of them: rule='hypentropy' \
takes steps of up to one octave and a span below 64, more fraction bits; or take rule='paper'
    """
    step = 1.0 / fmt.codes_per_octave
    if step > 1.0 or fmt.octaves >= OCTAVES:
        raise ValueError(
            f"{fmt} has code steps of {step:.3g} octaves and spans {fmt.octaves:.3g} of them: rule='hypentropy' takes "
            f"steps of up to one octave and a span below {OCTAVES}, more fraction bits; or take rule='paper'"
        )


def probability_error(fmt: LNSFormat, reach: float = 1.0) -> float:
    """Bound of the difference between the probability with which a code is chosen and the exact one.

    `reach` bounds (|h| + decay X[m]) / max(|y|, 1): what a step takes from or adds to a weight, over what it becomes.
    It is at most 1 where a weight grows, and where it loses up to half of itself. With reach = 0 this bounds the error
    against the exact probability for an h and a decay that are off by CHANGE_ERROR and 2^-24 in relation.

    In units of 2^-24, a rounding of a number from 1 to 2 at most, with l = ln b and K = ln 2 / l:

        position L      z Q(z), of at most half an octave, its product by K, f:     K / 2 (2^24 LOG2_ERROR + 1) + 1
                        the sum, |L| <= m_max, is rounded to half an ulp:           (m_max + 1) / 2
                        K and K e, which are no integers unless the base is 2:      four times that
        y               rounding t where e is not 0:                                1
                        h and decay:                                                2^24 CHANGE_ERROR reach
        probability     P, and the 24 bits of a word:                               2^24 POWER_ERROR + 1

    The probability changes with the position by at most the slope of P, l b / (b - 1), and with y in relation by at
    most b / (b - 1). Below the floor it is |y| itself, with a slope of 1, and three roundings more are within this.

    >>> from lnsnum import lns8f5
    >>> probability_error(lns8f5) < 2**-14, probability_error(lns8f5, reach=0) < 2**-15
    (True, True)
    """
    ulp = 2.0**-24
    step = math.log(fmt.base) / (1 << fmt.fraction_bits)
    octave = math.log(2.0) / step
    # b / (b - 1), the latter by expm1: of a small step the difference would have few bits
    steep = math.exp(step) / math.expm1(step)
    sums = (fmt.max_magnitude + 1) / 2 * (1 if fmt.base == 2.0 else 5)
    position = octave / 2 * (LOG2_ERROR + ulp) + (1 + sums) * ulp
    return step * steep * position + steep * (ulp + CHANGE_ERROR * reach) + POWER_ERROR + ulp


@kernel
def fill_units(units, inner, start, out):  # type: ignore[no-untyped-def]
    """The unit of each element from the `start`-th on: `units` are those of channels, of `inner` elements each in a
    row, over and over."""
    # a run of equal units at a time: one division for each run, where `(i // inner) %` would be one for each element
    i = 0
    while i < out.size:
        at = start + i
        # the first run may begin within a channel, where a chunk or a shard does
        count = min(out.size - i, inner - at % inner) if units.size > 1 else out.size
        unit = units[(at // inner) % units.size]
        for j in range(i, i + count):
            out[j] = unit
        i += count


@kernel
def fill_inverses(codes, inverses, greatest, out):  # type: ignore[no-untyped-def]
    """1 / X[m] of each element. A loop of its own: beside a store to the codes the look-up would keep all of `move`
    from becoming vectors, for the compiler must then fear that the table changes."""
    for i in range(codes.size):
        # as unsigned numbers: of a signed index Numba tests each time whether it is negative, to count from the end
        out[i] = inverses[np.uint32(codes[i]) & np.uint32(greatest)]


@kernel
def move(codes, drive, unit, inverse, decay, words, octave, up, keep, greatest):  # type: ignore[no-untyped-def]
    """Move the codes; returns how many moved, are at the ceiling, at the floor and zero, and changed their signs.

    Args: `drive` is rate g_hat, NaN where the gradient is not finite; `unit` and `inverse` (1 / X) are those of each
    element; `octave`, `up`: K and P of the format; `keep`: zeros stay, and no other weight becomes zero.
    """
    # Numba widens every sum, product, shift and mask of int32 to int64, which would halve the lanes of a vector: each
    # is cut back where it is made, and constants are int32 too. m_max + 1 is the sign's bit, and by itself NaN.
    zero, one, nan = np.int32(0), np.int32(1), np.int32(greatest + np.int32(1))
    f0, f1, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    moved, at_ceiling, at_floor, zeros, flips = zero, zero, zero, zero, zero
    for i in range(codes.size):
        code = np.int32(codes[i])
        m = np.int32(code & greatest)
        is_some = m > zero
        negative = code > greatest
        # bounded for units beyond those of weights that the format holds: the square, at most 2^126, is finite
        ratio = min(np.float32(unit[i] * inverse[i]), _GREATEST_RATIO)
        # [m > 0]: zero is reckoned from the floor, whose 1 / X is its entry in the table too: its t is y itself
        whole = f1 if is_some else f0
        c = np.float32(math.sqrt(np.float32(whole + np.float32(ratio * ratio))))
        along = np.float32(drive[i] * c)
        # t is y over the signed weight s X: h enters with the sign -s, and t < 0 where the weight changes its sign
        d = np.float32((along if negative else -along) - np.float32(decay * whole))
        t = np.float32(whole + d)
        # |t| = 2^e (1 + z) by its bits, as a library's log2 has other last bits on other machines. Less those of
        # 1/sqrt(2), the exponent's field changes there instead of at 1, and an arithmetic shift rounds down: e is right
        # below 1 too. The bits of 0 read as 2^-127, those of infinity as 2^128: the one is told, the other clipped,
        # below.
        bits = np.int32(t.view(np.int32) & _SIZE)
        e = np.int32(np.int32(bits - _SQRT_HALF) >> _EXPONENT)
        z = np.float32(np.int32(bits - np.int32(e << _EXPONENT)).view(np.float32) - f1)
        # of a negative t, z is |t| - 1 and not d, and of zero t is d itself: those keep the z of the bits
        z = d if e == zero and t > f0 and is_some else z  # t was rounded, d is not: small steps keep all their bits
        # Both polynomials in pairs of terms: one after the other, each operation would wait for the one before.
        zz = np.float32(z * z)
        q0 = np.float32(np.float32(_Q0 + np.float32(_Q1 * z)) + np.float32(np.float32(_Q2 + np.float32(_Q3 * z)) * zz))
        q4 = np.float32(np.float32(_Q4 + np.float32(_Q5 * z)) + np.float32(np.float32(_Q6 + np.float32(_Q7 * z)) * zz))
        q = np.float32(q0 + np.float32(q4 * np.float32(zz * zz)))
        # each by K, as the twin has it: with base 2 K is a power of two, and neither product by it rounds
        position = np.float32(np.float32(np.float32(e) * octave) + np.float32(np.float32(q * z) * octave))
        # so that it fits an int32, and its sum with m: with a base next to 1, K e may be beyond that
        position = min(max(position, -_FARTHEST), _FARTHEST)
        steps = np.int32(position)  # toward zero; math.floor would go by way of 64 bits
        steps = np.int32(steps - np.int32(np.float32(steps) > position))
        # exact, but for positions from -1/2 to 0, whose f has fewer bits below: off by 2^-25 at most
        f = np.float32(position - np.float32(steps))
        ff = np.float32(f * f)
        p0 = np.float32(
            np.float32(up[0] + np.float32(up[1] * f)) + np.float32(np.float32(up[2] + np.float32(up[3] * f)) * ff)
        )
        p4 = np.float32(
            np.float32(up[4] + np.float32(up[5] * f)) + np.float32(np.float32(up[6] + np.float32(up[7] * f)) * ff)
        )
        share = np.float32(np.float32(p0 + np.float32(p4 * np.float32(ff * ff))) * f)
        low = np.int32(max(m, one) + steps)
        is_below = low < one or t == f0
        # |y| = |t| X[m], by 1 / X, which has been looked up. Lanes that do not take it may hold anything: bounded by 1,
        # as the product by 2^24 is to fit an int32.
        y = min(np.float32(np.float32(abs(t)) / inverse[i]), f1)
        flips_sign = t < f0
        if keep:  # unbiased between the floor and its negative
            y = np.float32(half + np.float32(half * (-y if flips_sign else y)))
        share = y if is_below else share
        # [u < share] of integers: the product by 2^24 is exact, and cut, which costs the probability less than 2^-24
        up_by = np.int32(upper24(words[i]) < np.int32(share * RANDOM_UNIT))
        # both cases are computed and one is chosen, here as everywhere in this loop: a branch would end the vectors
        new = np.int32((zero if is_below else low) + up_by)
        if keep:
            flips_sign = (up_by == zero) if is_below else flips_sign
            new = max(new, one) if is_some else zero
        new = min(new, greatest)
        # A gradient that is not finite changes nothing of its element, and NaN stays NaN.
        stays = code == nan or not abs(drive[i]) < np.float32(np.inf)
        new = m if stays else new
        flips_sign = np.bool_(flips_sign and not stays)
        is_negative = negative != flips_sign and new > zero
        new_code = np.int32(new + (nan if is_negative else zero))
        new_code = code if stays else new_code
        codes[i] = new_code
        # sums of one chunk fit an int32, so the counters have lanes as wide as the rest
        moved = np.int32(moved + np.int32(new_code != code))
        at_ceiling = np.int32(at_ceiling + np.int32(new == greatest))
        at_floor = np.int32(at_floor + np.int32(new == one))
        zeros = np.int32(zeros + np.int32(new_code == zero))
        flips = np.int32(flips + np.int32(flips_sign and is_some and new > zero))
    return moved, at_ceiling, at_floor, zeros, flips
