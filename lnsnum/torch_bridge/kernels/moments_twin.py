"""Madam's state in one byte a weight, in torch operations: the twin of `moments`, on any device and in graphs.

Loading is a shift, rounding an addition before a shift, as there; the exponent is a 0-dim tensor.
"""

from __future__ import annotations

from typing import Any

import torch

from lnsnum.torch_bridge.kernels import moments
from lnsnum.torch_bridge.kernels.codes_twin import is_real
from lnsnum.torch_bridge.kernels.random_words_twin import moment_words, momentum_words, upper24

_FIELD = 21
_BELOW = (1 << _FIELD) - 1
_MOMENT_ZERO, _MOMENTUM_ZERO = ((127 - bias) << 23 for bias in (moments.MOMENT_BIAS, moments.MOMENTUM_BIAS))
# Rounded to float32 there; as Python's numbers they are that exactly.
_PER_SMALLEST = [float(inverse) for inverse in moments.PER_SMALLEST]
_UNIT = float(moments.RANDOM_UNIT)
_SIZE, _INFINITY = 0x7FFFFFFF, 0x7F800000


def greatest_gradient(gradient: torch.Tensor) -> torch.Tensor:
    """The greatest finite |gradient| of float32 values, as the bits of a float32: a 0-dim int32 tensor."""
    size = gradient.reshape(-1).view(torch.int32) & _SIZE
    if size.numel() == 0:
        return torch.zeros((), dtype=torch.int32, device=gradient.device)
    # as integers, which are in the order of the floats: a maximum in any order is the same
    return torch.where(size < _INFINITY, size, 0).amax()


def first_exponent(gradient: torch.Tensor) -> torch.Tensor:
    """`moments.first_exponent` as a 0-dim int32 tensor.

    >>> int(first_exponent(torch.tensor([0.0, -3.0, float("inf")])))
    -6
    """
    greatest = greatest_gradient(gradient.detach().to(torch.float32))
    exponent = (greatest >> 23) - (127 + moments.MOMENT_HEADROOM)  # of a subnormal number it is at the bound anyway
    exponent = exponent.clamp(-moments.EXPONENT_BOUND, moments.EXPONENT_BOUND)
    return torch.where(greatest == 0, moments.NO_EXPONENT, exponent).to(torch.int32)


def raise_exponent(state: list[torch.Tensor], exponent: torch.Tensor, greatest: torch.Tensor) -> None:
    """Where gradients outgrow the exponent, raise it, and let the codes go down by as many octaves: in place.

    Args:
        state: the second moment, uint8 codes or float32 values (which stay), and where there is one the momentum.
        exponent: 0-dim, int32.
        greatest: the bits of the greatest finite |gradient| of the step, 0-dim, int32.

    >>> moment, exponent = torch.tensor([0, 9, 100], dtype=torch.uint8), torch.tensor(0, dtype=torch.int32)
    >>> raise_exponent([moment], exponent, torch.tensor(2.0**12).view(torch.int32))
    >>> moment.tolist(), int(exponent)
    ([0, 1, 60], 5)
    """
    octave = (greatest.to(exponent.device) >> 23).clamp(min=1) - 127 - exponent
    octaves = torch.minimum(octave - moments.MOMENT_HEADROOM, moments.EXPONENT_BOUND - exponent)
    # 0 octaves in the place of a branch, which a graph has not
    octaves = torch.where((exponent == moments.NO_EXPONENT) | (octave < moments.MOMENT_LIMIT), 0, octaves)
    # nearly every step: nothing is written then
    if is_real(octaves) and int(octaves) == 0:
        return
    exponent.add_(octaves)
    for codes, lower in zip(state, (_lower_moment, _lower_momentum), strict=False):
        if codes.dtype == torch.uint8:
            # in int32, as a difference of bytes would wrap around
            codes.copy_(lower(codes.to(torch.int32), octaves.to(codes.device)).to(torch.uint8))


def _lower_moment(code: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
    # two octaves of v for one of g, four codes in each
    return torch.where(code > 0, (code - 8 * octaves).clamp(min=1), 0)


def _lower_momentum(code: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
    size = (code & 127) - 4 * octaves
    return torch.where(size > 0, size + (code & 128), 0)


def load_moment(codes: torch.Tensor) -> torch.Tensor:
    """The values of second-moment codes at exponent 0."""
    code = codes.to(torch.int32)
    # code 0 has the bits of 2^-bias, and stands for 0
    return torch.where(code > 0, ((code << _FIELD) + _MOMENT_ZERO).view(torch.float32), 0.0)


def load_momentum(codes: torch.Tensor, scale: Any) -> torch.Tensor:
    """The values of momentum codes times `scale`."""
    code = codes.to(torch.int32)
    size = code & 127
    x = torch.where(size > 0, ((size << _FIELD) + _MOMENTUM_ZERO).view(torch.float32) * scale, 0.0)
    return torch.where(code > 127, -x, x)


def moment_codes(v: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Second moments rounded to codes, int32."""
    return _round(v, moment_words(words), _MOMENT_ZERO, _PER_SMALLEST[0], 255)


def momentum_codes(u: torch.Tensor, words: torch.Tensor, scale: Any) -> torch.Tensor:
    """Momenta times `scale` rounded to signed codes, int32."""
    scaled = u * scale
    size = _round(scaled.abs(), momentum_words(words), _MOMENTUM_ZERO, _PER_SMALLEST[1], 127)
    return torch.where((scaled < 0.0) & (size > 0), size + 128, size)


def _round(x: torch.Tensor, words: torch.Tensor, zero: int, per_smallest: float, greatest: int) -> torch.Tensor:
    """The code of a nonnegative float32, rounded stochastically on the value axis."""
    above = x.view(torch.int32) - zero
    # No sum leaves int32: the bits of x are at most 0x7F800000, and zero is over 2^29.
    code = (above + ((words >> 11).to(torch.int32) & _BELOW)) >> _FIELD
    # below code 1; the bound is for the others, whose product would leave int32
    by_chance = upper24(words) < ((x * per_smallest).clamp(max=1.0) * _UNIT).to(torch.int32)
    return torch.where(above < 1 << _FIELD, by_chance.to(torch.int32), code).clamp(max=greatest)
