"""Floats written into LNS weights: which scale they get, and how they are rounded.

    the whole, anew (normal_, fill_, copy_)     the scale that fits, as conversion chooses it
    the whole, times a number                   the scale times that number, an addition to log_offset
    a part, or what depends on the old values   the scale that is there; what does not fit is clipped, and told

All aliases of the codes share one scale, so views see the new one. A part cannot choose, since the rest has the same
scale; and an optimizer's step must not, since it writes to the same weight on several processes, which would come to
disagree. Rounding is stochastic on the value axis, so that small changes survive on average.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from lnsnum.format import MAX_LOG_OFFSET, Underflow
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.codes_twin import is_real
from lnsnum.torch_bridge.kernels.fitting import choose_scale
from lnsnum.torch_bridge.kernels.scale import Scale, check_offset
from lnsnum.torch_bridge.surroundings import level_of_the_caller

Weight = Any
"""An LNSWeight. (Its class is made of what is here.)"""

_CLIPPED = 0.01
"""The share of what is written that may be clipped without a word: of normal numbers, 0.3 % lie beyond 3 RMS."""


def write_anew(weight: Weight, floats: torch.Tensor, *, underflow: Underflow = "round") -> None:
    """Write floats that need not have anything to do with what was there: the whole takes the scale that fits them.

    Elements that are what a code decodes to become that code, whatever the rounding: decoding rounds, and encoding that
    again could move it. Where the scale changes these are other numbers than before: then, as in conversion, what lies
    below the smallest magnitude becomes that, not zero, whatever `underflow` says.
    """
    if not weight.owns_scale():
        write_over(weight, floats)
        return
    own = weight.scale
    chosen = choose_scale(floats, weight.fmt, weight.fit, own=own)
    scale = check_offset(chosen, weight.shape, *own.groups).on(weight.device)
    if _are_equal(scale, own):
        _encode_into(weight, floats, weight.codes, weight.to_float(), underflow)
        return
    weight.set_scale(scale)
    nearest = bridge.encode(floats, weight.fmt, scale, underflow="saturate")
    _encode_into(weight, floats, nearest, bridge.decode(nearest, weight.fmt, scale, floats.dtype), "saturate")


def write_over(weight: Weight, floats: torch.Tensor) -> None:
    """Write floats at the weight's scale. Where more than 1 % are clipped, that is said once for each weight and scale.

    (A part may choose the scale of a weight of nothing but zeros, which are zeros at any.)
    """
    clipped = _share_clipped(weight, floats) if is_real(weight.codes) and not weight._span.warned else 0.0
    if clipped > _CLIPPED and _has_only_zeros(weight):
        _choose_for_all(weight, floats)
    elif clipped > _CLIPPED:
        weight._span.warned = True
        tops = _greatest(weight, torch.float64)
        reach = (
            f"its greatest magnitude, {float(tops.max()):.3g}" if tops.numel() == 1 else "the greatest of its channel"
        )
        warnings.warn(
            f"{clipped:.1%} of what was written into a weight of {weight.fmt.name} lies beyond {reach}, and was "
            "clipped: a write to a part, or one that depends on the old values, keeps the scale; rescale_() the whole "
            "first, or copy_ all its values as floats",
            stacklevel=level_of_the_caller(),
        )
    _encode_into(weight, floats, weight.codes, weight.to_float(), "round")


def multiply(weight: Weight, factor: float) -> float:
    """Multiply a whole weight by a number as far as whole code steps go; returns what is left of the factor, about 1.

    Factors near 1, which weight decay has, are left alone: what 3 RMS were, is 2.7 then, or 6, and no more than 0.8 %
    of normal numbers are clipped.
    """
    if not weight.owns_scale() or not math.isfinite(factor) or factor == 0.0 or 0.5 < abs(factor) <= 1.125:
        return factor
    step = math.log(weight.fmt.base) / (1 << weight.fmt.fraction_bits)
    by = round(math.log(abs(factor)) / step)
    own = weight.scale
    low, high = own.low + by, own.high + by
    if max(abs(low), abs(high)) > MAX_LOG_OFFSET:
        return factor
    weight.set_scale(own._replace(low=low, high=high, offsets=None if own.offsets is None else own.offsets + by))
    return math.copysign(math.exp(math.log(abs(factor)) - by * step), factor)


def _encode_into(
    weight: Weight, floats: torch.Tensor, candidates: torch.Tensor, values: torch.Tensor, underflow: Underflow
) -> None:
    """Write the candidates where their values are the floats already, and elsewhere the floats' codes, at random."""
    codes = bridge.encode_at_random(floats, weight.fmt, weight.scale, underflow=underflow)
    weight.codes.copy_(torch.where(floats == values, candidates, codes))


def _are_equal(a: Scale, b: Scale) -> bool:
    if a.offsets is None or b.offsets is None:
        return a.offsets is b.offsets and a.low == b.low
    return torch.equal(a.offsets, b.offsets)


def _greatest(weight: Weight, dtype: torch.dtype) -> torch.Tensor:
    """The greatest magnitude, or that of each channel; of groups as of `Scale.apart`."""
    scale = weight.scale.of_channels
    shape = (1,) if scale.offsets is None else scale.offsets.shape
    top = torch.full(shape, weight.fmt.max_magnitude, dtype=weight.codes.dtype, device=weight.device)
    return bridge.decode(top, weight.fmt, scale, dtype)


def _share_clipped(weight: Weight, floats: torch.Tensor) -> float:
    beyond = weight.scale.apart(floats).abs() > _greatest(weight, floats.dtype)
    return int(beyond.sum()) / max(floats.numel(), 1)


def _has_only_zeros(weight: Weight) -> bool:
    """Whether that is so of the whole weight, of which this may be a part that sees all channels' offsets."""
    return weight.may_set_scale_of_all() and not bool(_whole_memory(weight.codes).any())


def _choose_for_all(weight: Weight, floats: torch.Tensor) -> None:
    """Give the weight that this is a part of the scale that fits the floats, in all channels."""
    chosen = choose_scale(floats, weight.fmt, weight.fit)
    assert isinstance(chosen, int)
    if weight.scale.offsets is not None:
        _whole_memory(weight.scale.offsets).fill_(chosen)
    weight._span.set(chosen, chosen)


def _whole_memory(tensor: torch.Tensor) -> torch.Tensor:
    """All elements of a tensor's memory, beyond a view."""
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())
