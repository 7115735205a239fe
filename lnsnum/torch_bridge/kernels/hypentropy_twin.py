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
from lnsnum.torch_bridge.kernels.moments import RANDOM_UNIT
from lnsnum.torch_bridge.kernels.random_words_twin import upper24

_LOG2 = [float(coefficient) for coefficient in hypentropy.LOG2]
_FARTHEST = 2.0**30
_UNIT = float(RANDOM_UNIT)


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
    inverse = inverses[m]
    # order and bounds are the kernel's, which says why
    ratio = (unit * inverse).clamp(max=hypentropy.GREATEST_RATIO)
    whole = is_some.to(torch.float32)
    c = root(whole + ratio * ratio)
    # 0 for what is thrown away in the end: a conversion of NaN to int32 would be undefined
    along = torch.where(stays, 0.0, drive) * c
    d = torch.where(negative, along, -along) - decay * whole
    t = whole + d
    position = _position(t, d, (t > 0.0) & is_some, float(grid.octave(fmt)))
    # floor by way of int32, as the kernel has it, whose lanes it is for
    steps = position.to(torch.int32)  # toward zero
    steps = steps - (steps.to(torch.float32) > position).to(torch.int32)
    low = m.clamp(min=1) + steps
    is_below, flips = (low < 1) | (t == 0.0), t < 0.0
    # a tensor by a tensor: the kernel divides too
    y = (t.abs() / inverse).clamp(max=1.0)
    if keep:  # unbiased between the floor and its negative
        y = 0.5 + 0.5 * torch.where(flips, -y, y)
    share = torch.where(is_below, y, _share(position - steps.to(torch.float32), fmt))
    # between integers; the product by a power of two is exact, and what is below 2^-24 is cut on both sides alike
    up_by = upper24(words) < (share * _UNIT).to(torch.int32)
    new = torch.where(is_below, 0, low) + up_by
    if keep:
        flips = torch.where(is_below, ~up_by, flips)
        new = torch.where(is_some, new.clamp(min=1), 0)
    new = torch.where(stays, m, new.clamp(max=fmt.max_magnitude))
    flips = flips & ~stays
    # zero takes no sign
    out = torch.where((negative != flips) & (new > 0), new + fmt.sign_bit, new)
    out = torch.where(stays, code, out)
    return out, [out != code, new == fmt.max_magnitude, new == 1, out == 0, flips & is_some & (new > 0)]


def root(x: torch.Tensor) -> torch.Tensor:
    """The square root of float32 numbers, correctly rounded: that of float64 is at least 4 of its ulp from where
    rounding to float32 decides."""
    return x.to(torch.float64).sqrt().to(torch.float32)


def _inverses(fmt: LNSFormat) -> tuple[NDArray[np.float32]]:
    return (grid.inverses(fmt),)


def _position(t: torch.Tensor, d: torch.Tensor, is_near: torch.Tensor, octave: float) -> torch.Tensor:
    """K log2|t|; t = 1 + d, where it `is_near` and within the octave of 1, by d, which was not rounded to t's bits."""
    bits = t.view(torch.int32) & 0x7FFFFFFF
    e = (bits - hypentropy.SQRT_HALF) >> 23
    # 2^e is taken off the exponent's field; the shift of a signed integer rounds down, so e may be negative
    z = (bits - (e << 23)).view(torch.float32) - 1.0
    z = torch.where((e == 0) & is_near, d, z)
    position = e.to(torch.float32) * octave + (_polynomial(_LOG2, z) * z) * octave
    return position.clamp(-_FARTHEST, _FARTHEST)


def _share(f: torch.Tensor, fmt: LNSFormat) -> torch.Tensor:
    """P(f)."""
    return _polynomial([float(c) for c in grid.few_coefficients(fmt)], f) * f


def _polynomial(c: list[float], x: torch.Tensor) -> torch.Tensor:
    """Eight coefficients, in pairs of terms."""
    xx = x * x
    low = (c[0] + c[1] * x) + (c[2] + c[3] * x) * xx
    high = (c[4] + c[5] * x) + (c[6] + c[7] * x) * xx
    return low + high * (xx * xx)
