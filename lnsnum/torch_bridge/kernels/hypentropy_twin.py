"""The hypentropy rule on codes in torch operations: the twin of `hypentropy`, on any device and in graphs.

The float32 operations of that kernel, one after the other; the root is taken in float64, because torch's float32 root
is not correctly rounded on every CPU, and no divisor is a number, because that may become a product with its inverse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels import grid, hypentropy
from lnsnum.torch_bridge.kernels.codes_twin import tensors_of
from lnsnum.torch_bridge.kernels.random_words_twin import centred


def move(
    code: torch.Tensor,
    drive: torch.Tensor,
    unit: torch.Tensor,
    decay: Any,
    fmt: LNSFormat,
    words: torch.Tensor,
    *,
    keep: bool,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The moved codes, and where they moved, are at the ceiling, at the floor and zero, and changed their signs.

    Args:
        code: int32, unsigned codes.
        drive: rate g_hat, NaN where the gradient is not finite.
        unit: crossover * r in units of the floor, float32, broadcasts to the codes.
        decay: lr weight_decay.
        fmt: the format.
        words: int64.
        keep: zeros stay, and no other weight becomes zero.
    """
    # written so that NaN, of which every comparison fails, stays
    stays = (code == fmt.nan_code) | ~(drive.abs() < torch.inf)
    m, negative = code & fmt.max_magnitude, code > fmt.max_magnitude
    is_some = m > 0
    (inverses,) = tensors_of(code, _inverses, fmt)
    inverse = inverses[code]
    # order and bounds are the kernel's, which says why
    ratio = unit.clamp(max=hypentropy.GREATEST_UNIT) * inverse
    whole = is_some.to(torch.float32)
    along = drive * root(whole + ratio * ratio)
    d = torch.where(negative, along, -along) - decay * whole
    t = torch.where(stays, 1.0, whole + d)
    v = centred(words)
    # floor before int32, as the kernel has it
    steps = torch.floor(_position(t, d, (t > 0.0) & is_some, fmt) + _bent(fmt, v))
    low = (m.clamp(min=1) + steps.to(torch.int32)).clamp(min=1)
    is_below, flips = t.abs() < inverse, t < 0.0
    if keep:  # unbiased between the floor and its negative
        flips = torch.where(is_below, (v + v) * inverse >= t, flips)
        new = torch.where(is_some, torch.where(is_below, 1, low), 0)
    else:
        new = torch.where(is_below, ((v + 0.5) * inverse < t.abs()).to(torch.int32), low)
    new = torch.where(stays, m, new.clamp(max=fmt.max_magnitude))
    # zero takes no sign
    out = torch.where((negative != flips) & (new > 0), new + fmt.sign_bit, new)
    out = torch.where(stays, code, out)
    crossed = (negative != (out > fmt.max_magnitude)) & is_some & (new > 0)
    return out, [out != code, new == fmt.max_magnitude, new == 1, out == 0, crossed]


def root(x: torch.Tensor) -> torch.Tensor:
    """The square root of float32 numbers, correctly rounded: that of float64 is at least 4 of its ulp from where
    rounding to float32 decides."""
    return x.to(torch.float64).sqrt().to(torch.float32)


def _inverses(fmt: LNSFormat) -> tuple[NDArray[np.float32]]:
    return (grid.inverses(fmt),)


def _position(t: torch.Tensor, d: torch.Tensor, is_near: torch.Tensor, fmt: LNSFormat) -> torch.Tensor:
    """K log2|t|; t = 1 + d, where it `is_near` and within the octave of 1, by d, which was not rounded to t's bits."""
    bits = t.view(torch.int32) & 0x7FFFFFFF
    e = (bits - hypentropy.SQRT_HALF) >> 23
    # 2^e is taken off the exponent's field; the shift of a signed integer rounds down, so e may be negative
    z = (bits - (e << 23)).view(torch.float32) - 1.0
    z = torch.where((e == 0) & is_near, d, z)
    s = z / (z + 2.0)
    ss = s * s
    c = [float(coefficient) for coefficient in grid.log_coefficients(fmt)]
    return e.to(torch.float32) * float(grid.octave(fmt)) + (c[0] + ss * (c[1] + c[2] * ss)) * s


def _bent(fmt: LNSFormat, v: torch.Tensor) -> torch.Tensor:
    """W at u = v + 1/2."""
    few, more = grid.bend_coefficients(fmt)
    c = [float(coefficient) for coefficient in (*few, *(more or ()))]
    w = c[0] + v * (c[1] + v * (c[2] + c[3] * v))
    if more is None:
        return w
    vv = v * v
    rest = ((c[4] + c[5] * v) + (c[6] + c[7] * v) * vv) + c[8] * (vv * vv)
    return w + rest * (vv * vv)
