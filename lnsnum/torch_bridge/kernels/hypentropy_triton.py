"""The hypentropy rule on codes in Triton: `hypentropy.move`, operation by operation.

Products and sums are rounded one by one: whoever launches turns their fusion off. Quotient and root are those that are
rounded correctly (`div_rn`, `sqrt_rn`). The floor is made of integers, as libraries flush small numbers first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lnsnum.torch_bridge.kernels import hypentropy
from lnsnum.torch_bridge.kernels.random_words_triton import centred

_SIZE = tl.constexpr(0x7FFFFFFF)
_SQRT_HALF = tl.constexpr(hypentropy.SQRT_HALF)
_GREATEST_UNIT = tl.constexpr(hypentropy.GREATEST_UNIT)

CONSTANTS = tl.constexpr(13)
"""Of a format: K, three of the logarithm, four and five of W."""


@triton.jit
def move(code, drive, unit, inverse, decay, word, by, KEEP: tl.constexpr, MORE: tl.constexpr, TOP: tl.constexpr):
    """The moved codes, int32.

    Args: `code` is int32, `drive` rate g_hat or NaN, `unit` in units of the floor, `inverse` 1 / X[m] of either sign,
    NaN of the NaN code; `by` points to the format's constants; `MORE` says that W has nine terms, `TOP` is m_max.
    """
    m = code & TOP
    is_some, negative = m > 0, code > TOP
    ratio = tl.where(unit < _GREATEST_UNIT, unit, _GREATEST_UNIT) * inverse
    whole = tl.where(is_some, 1.0, 0.0)
    along = drive * tl.sqrt_rn(whole + ratio * ratio)
    d = tl.where(negative, along, -along) - decay * whole
    t = whole + d
    stays = t != t
    t = tl.where(stays, 1.0, t)
    v = centred(word)
    steps = _floor(_position(t, d, (t > 0.0) & is_some, by) + _bent(v, by, MORE))
    low = tl.where(is_some, m, 1) + steps
    low = tl.where(low > 1, low, 1)
    size = tl.abs(t)
    is_below, flips = size < inverse, t < 0.0
    if KEEP:  # unbiased between the floor and its negative
        flips = tl.where(is_below, ((v + v) * inverse < t) == 0, flips)
        new = tl.where(is_some, tl.where(is_below, 1, low), 0)
    else:
        new = tl.where(is_below, ((v + 0.5) * inverse < size).to(tl.int32), low)
    new = tl.where(new < TOP, new, TOP)
    # zero takes no sign
    out = tl.where((negative != flips) & (new > 0), new + (TOP + 1), new)
    return tl.where(stays, code, out)


@triton.jit
def _floor(x):
    whole = x.to(tl.int32)
    return whole - (whole.to(tl.float32) > x).to(tl.int32)


@triton.jit
def _position(t, d, is_near, by):
    """K log2|t|; t = 1 + d, where it `is_near` and within the octave of 1, by d, which was not rounded to t's bits."""
    bits = t.to(tl.int32, bitcast=True) & _SIZE
    e = (bits - _SQRT_HALF) >> 23
    z = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    z = tl.where((e == 0) & is_near, d, z)
    s = tl.div_rn(z, z + 2.0)
    ss = s * s
    q = tl.load(by + 1) + ss * (tl.load(by + 2) + tl.load(by + 3) * ss)
    return e.to(tl.float32) * tl.load(by) + q * s


@triton.jit
def _bent(v, by, MORE: tl.constexpr):
    """W at u = v + 1/2."""
    w = tl.load(by + 4) + v * (tl.load(by + 5) + v * (tl.load(by + 6) + tl.load(by + 7) * v))
    if MORE:
        vv = v * v
        high = (tl.load(by + 10) + tl.load(by + 11) * v) * vv
        rest = ((tl.load(by + 8) + tl.load(by + 9) * v) + high) + tl.load(by + 12) * (vv * vv)
        w = w + rest * (vv * vv)
    return w
