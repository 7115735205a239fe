"""The hypentropy rule on codes: multiplicative for large weights, additive for small ones, through zero.

In units of the floor (the magnitude of m = 1), with X as in `grid`, s the sign, unit = crossover * r / floor:

    y   =  s X[m] (1 - decay)  -  rate g_hat sqrt(X[m]^2 + unit^2)             where the weight is to be, a real number
    m'  =  k + [u < (|y| - X[k]) / (X[k + 1] - X[k])]   where |y| >= 1, X[k] <= |y| < X[k + 1]; at most m_max
    m'  =  [u < |y|]                                    where |y| <  1;        s' = sign(y), and zero has none

so the weight is right on average. What runs is float32, relative to the weight, so that a small step is added to an
integer and nothing of it lost: with M = max(m, 1), one = [m > 0] and c = sqrt(one + (unit / X[M])^2),

    t   =  y / (s X[M])  =  one + d,      d  =  -s rate g_hat c - one decay
    L   =  K log2|t|  =  K e + A(z / (z + 2)),  t = 2^e (1 + z),  1/sqrt(2) <= 1 + z < sqrt(2);  z = d where e = 0
    m'  =  M + floor(L + W(u)),               W(u)  =  1 - log_b(1 + u (b - 1)), b the factor of one step

A(s) = 2 K / ln 2 atanh(s), as s times a polynomial in s^2: three terms, as |s| is below 0.172. W is the random number
bent to the logarithmic axis: u < (b^f - 1) / (b - 1), f the fraction of L, is f + W(u) > 1, so one floor does what a
comparison of probabilities would do. u is a multiple of 2^-24 by an odd number, so that no step of 0 is one; every
operation is one of IEEE's in the order written. `probability_error` bounds by how much the probability of a code
differs. Where a weight falls by far in one step, y is what is left of two large numbers, and the error of h,
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
from lnsnum.kernels.scales import spread
from lnsnum.torch_bridge.kernels import grid
from lnsnum.torch_bridge.kernels.random_words import centred

LOG2_ERROR = 2.0**-21.4
"""Bound of the relative error of A, evaluated in float32, for a K that is a power of two."""

CHANGE_ERROR = 6 * 2.0**-24
"""Bound of the relative error of h = rate g_hat sqrt(X[m]^2 + unit^2), for a unit that is 0 or at least 2^-60 and at
most 2^63: half the six roundings within the root, its own, those of the product and of the sum with the decay."""

GREATEST_UNIT = 2.0**63
"""So that the square of unit / X[m] is finite; a greater one counts as this."""

OCTAVES = 64
"""A format of this rule spans less: no unit of a weight that it can hold is then beyond GREATEST_UNIT."""

FINEST = 1 << 22
"""The most code steps in an octave: K e of any float32 is then an int32, with room for m."""

SQRT_HALF = 0x3F3504F3
"""The bits of 1/sqrt(2): subtracted from those of t, what is left in the exponent's field is e."""

_GREATEST_UNIT = np.float32(GREATEST_UNIT)
_SQRT_HALF, _EXPONENT, _SIZE = np.int32(SQRT_HALF), np.int32(23), np.int32(0x7FFFFFFF)


@lru_cache(maxsize=64)
def check_format(fmt: LNSFormat) -> None:
    """Raise ValueError where the kernel would be wrong: W has nine terms, enough for code steps of up to an octave,
    ratios of two magnitudes are to have a square in float32, and positions are to fit an int32.

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
    if fmt.codes_per_octave > FINEST:
        raise ValueError(
            f"{fmt} has {fmt.codes_per_octave:.3g} code steps in an octave: rule='hypentropy' takes at most {FINEST}, "
            "a greater base; or take rule='paper'"
        )


def probability_error(fmt: LNSFormat, reach: float = 1.0) -> float:
    """Bound of the difference between the probability with which a code is chosen and the exact one.

    `reach` bounds (|h| + decay X[m]) / max(|y|, 1): what a step takes from or adds to a weight, over what it becomes.
    It is at most 1 where a weight grows, and where it loses up to half of itself. With reach = 0 this bounds the error
    against the exact probability for an h and a decay that are off by CHANGE_ERROR and 2^-24 in relation.

    In units of 2^-24, a rounding of a number from 1 to 2 at most, with l = ln b and K = ln 2 / l:

        position L      A of at most half an octave, its coefficients times K:      K / 2 (2^24 LOG2_ERROR + 1)
                        the sum, |L| <= m_max, is rounded to half an ulp:           (m_max + 1) / 2
                        K and K e, which are no integers unless the base is 2:      four times that
        W               its roundings, and the terms that are cut:                  3 + 2^24 `grid.bend_error`
                        its sum with L:                                             (m_max + 1) / 2
        y               rounding t where e is not 0:                                1
                        h and decay:                                                2^24 CHANGE_ERROR reach
        probability     the 23 bits of a word, in the midst of their intervals:     1

    The probability changes with the position by at most the slope of (b^f - 1) / (b - 1), l b / (b - 1), and with y in
    relation by at most b / (b - 1). Below the floor it is |y| itself, with a slope of 1, and three roundings more are
    within this.

    >>> from lnsnum import lns8f5
    >>> probability_error(lns8f5) < 2**-14, probability_error(lns8f5, reach=0) < 2**-15
    (True, True)
    """
    ulp = 2.0**-24
    step = math.log(fmt.base) / (1 << fmt.fraction_bits)
    octave = math.log(2.0) / step
    # b / (b - 1), the latter by expm1: of a small step the difference would have few bits
    steep = math.exp(step) / math.expm1(step)
    sums = (fmt.max_magnitude + 1) / 2 * (2 if fmt.base == 2.0 else 6)
    position = octave / 2 * (LOG2_ERROR + ulp) + (3 + sums) * ulp + grid.bend_error(fmt)
    return step * steep * position + steep * (ulp + CHANGE_ERROR * reach) + ulp


@kernel
def fill_units(units, walk, start, out):  # type: ignore[no-untyped-def]
    """The unit of each element from the `start`-th on, at most GREATEST_UNIT: elements find them by the walk."""
    if units.size > 1:
        spread(units, walk, start, out)
        for i in range(out.size):
            out[i] = min(out[i], _GREATEST_UNIT)
    else:
        one = min(units[0], _GREATEST_UNIT)
        for i in range(out.size):
            out[i] = one


@kernel
def fill_inverses(codes, inverses, out):  # type: ignore[no-untyped-def]
    """1 / X of each code. A loop of its own: beside a store to the codes the look-up would keep all of `move` from
    becoming vectors, for the compiler must then fear that the table changes."""
    for i in range(codes.size):
        # unsigned: of a signed index Numba tests each time whether it is negative, to count from the end
        out[i] = inverses[np.uint32(codes[i])]


@kernel
def _bent(few, more, v):  # type: ignore[no-untyped-def]
    """W at u = v + 1/2; `more` terms, or None."""
    w = np.float32(few[2] + np.float32(few[3] * v))
    w = np.float32(few[0] + np.float32(v * np.float32(few[1] + np.float32(v * w))))
    if more is not None:
        vv = np.float32(v * v)
        high = np.float32(np.float32(more[2] + np.float32(more[3] * v)) * vv)
        pairs = np.float32(np.float32(more[0] + np.float32(more[1] * v)) + high)
        rest = np.float32(pairs + np.float32(more[4] * np.float32(vv * vv)))
        w = np.float32(w + np.float32(rest * np.float32(vv * vv)))
    return w


@kernel
def move(codes, drive, unit, inverse, decay, words, by, keep):  # type: ignore[no-untyped-def]
    """Move the codes.

    Args: `drive` is rate g_hat, at most 2^127, or NaN, which moves nothing; `unit` (at most GREATEST_UNIT) and
    `inverse` (1 / X of either sign, NaN of the NaN code) are those of each element; `by` is the format's `Grid`; with
    `keep`, a number, zeros stay, and no other weight becomes zero; else it is None, and another kernel is compiled.
    """
    # Numba widens every sum, product, shift and mask of int32 to int64, which would halve the lanes of a vector: each
    # is cut back where it is made, and constants are int32 too. m_max + 1 is the sign's bit.
    zero, one, sign_bit = np.int32(0), np.int32(1), np.int32(by.greatest + np.int32(1))
    f0, f1, f2, half = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(0.5)
    for i in range(codes.size):
        code = np.int32(codes[i])
        m = np.int32(code & by.greatest)
        is_some, negative = m > zero, code > by.greatest
        inv = np.float32(abs(inverse[i]))
        ratio = np.float32(unit[i] * inv)
        # [m > 0]: zero is reckoned from the floor, whose 1 / X is its entry in the table too: its t is y itself
        whole = f1 if is_some else f0
        c = np.float32(math.sqrt(np.float32(whole + np.float32(ratio * ratio))))
        along = np.float32(drive[i] * c)
        # t is y over the signed weight s X: h enters with the sign -s, and t < 0 where the weight changes its sign
        d = np.float32((along if negative else -along) - np.float32(decay * whole))
        y_over_x = np.float32(whole + d)
        # of NaN, whether a code or a gradient. 1 in its place: there is no integer for the floor of NaN
        stays = y_over_x != y_over_x
        t = np.float32(f1 if stays else y_over_x)
        # |t| = 2^e (1 + z) by its bits, as a library's log2 has other last bits on other machines. Less those of
        # 1/sqrt(2), the exponent's field changes there instead of at 1, and an arithmetic shift rounds down: e is right
        # below 1 too. The bits of 0 read as 2^-127, those of infinity as 2^128: the one is below the floor, the other
        # above the ceiling.
        bits = np.int32(t.view(np.int32) & _SIZE)
        size = bits.view(np.float32)
        e = np.int32(np.int32(bits - _SQRT_HALF) >> _EXPONENT)
        z = np.float32(np.int32(bits - np.int32(e << _EXPONENT)).view(np.float32) - f1)
        # of a negative t, z is |t| - 1 and not d, and of zero t is d itself: those keep the z of the bits
        z = d if e == zero and t > f0 and is_some else z  # t was rounded, d is not: small steps keep all their bits
        # one division, which has a unit of its own, in the place of five terms
        s = np.float32(z / np.float32(z + f2))
        ss = np.float32(s * s)
        q = np.float32(by.log[0] + np.float32(ss * np.float32(by.log[1] + np.float32(by.log[2] * ss))))
        position = np.float32(np.float32(np.float32(e) * by.octave) + np.float32(q * s))
        v = centred(words[i])
        # np.floor, not math.floor, which would go by way of 64 bits
        low = np.int32(max(m, one) + np.int32(np.floor(np.float32(position + _bent(by.few, by.more, v)))))
        low = max(low, one)  # it is 0 where a position beside the floor was rounded across it
        # |y| = |t| X[m] < 1, and u < |y|, each by 1 / X, which has been looked up
        is_below = size < inv
        flips = t < f0
        # both cases are computed and one is chosen, here as everywhere in this loop: a branch would end the vectors
        if keep is None:
            up_by = np.int32(np.float32(np.float32(v + half) * inv) < size)
            new = min(up_by if is_below else low, by.greatest)
        else:
            # unbiased between the floor and its negative: u < (1 + y) / 2 keeps the sign
            is_same = np.float32(np.float32(v + v) * inv) < t
            flips = np.bool_(not is_same) if is_below else flips
            new = min(one if is_below else low, by.greatest)
            new = new if is_some else zero
        # zero takes no sign
        is_negative = negative != flips and new > zero
        codes[i] = code if stays else np.int32(new + (sign_bit if is_negative else zero))
