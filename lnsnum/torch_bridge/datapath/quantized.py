"""Floats as codes of their kind: the quantizer Q of a datapath, and what a product takes.

    Q(x)  =  decode(encode(x)),      at a log_offset by the kind's rule, rounded by its mode

A weight that is codes already stays what it is; in another format each code is rounded once, from its exact value.
Whatever is not finite saturates or is NaN, and has no say in the scale.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import lnsnum
from lnsnum.conversion import convert
from lnsnum.encoding import fit_log_offset
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Rounding
from lnsnum.torch_bridge.datapath import swift
from lnsnum.torch_bridge.datapath.settings import Numbers
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels import random_words, random_words_twin
from lnsnum.torch_bridge.kernels.random_words import Draw
from lnsnum.torch_bridge.kernels.scale import Scale
from lnsnum.torch_bridge.weight import LNSWeight


class Quantized(NamedTuple):
    """A tensor as codes."""

    codes: torch.Tensor
    fmt: LNSFormat
    scale: Scale
    outside: torch.Tensor | None = None
    """Where the gradient is cut off: what lay above the greatest number."""

    def floats(self, dtype: torch.dtype) -> torch.Tensor:
        """What the codes stand for, each rounded once."""
        return bridge.decode(self.codes, self.fmt, self.scale, dtype)

    @property
    def mT(self) -> Quantized:  # noqa: N802  (torch's name)
        """The last two dimensions exchanged."""
        outside = None if self.outside is None else self.outside.mT
        return self._replace(codes=self.codes.mT, scale=self.scale.mT, outside=outside)

    def apart(self) -> Quantized:
        """Groups written out: one log_offset for each element of what has one for each group."""
        scale = self.scale
        if not scale.group_size:
            return self
        each = scale.over_codes(scale.offsets).expand(scale.apart(self.codes).shape)  # type: ignore[arg-type]
        return self._replace(scale=Scale(scale.low, scale.high, scale.together(each.contiguous())))


def of_weight(weight: LNSWeight, numbers: Numbers | None) -> Quantized:
    """The codes of an LNSWeight, or those of another format."""
    own = Quantized(weight.codes, weight.fmt, weight.scale)
    if numbers is None or numbers.fmt == weight.fmt:
        return own
    if numbers.is_random:
        raise NotImplementedError(
            f"weights of {weight.fmt.name} cannot become {numbers.fmt.name} at random: give weights a mode that draws "
            "nothing, or leave their format as it is"
        )
    own = own.apart()
    scale, to = own.scale, numbers.fmt
    codes = bridge.as_numpy(own.codes.detach().cpu().contiguous(), weight.fmt.dtype)
    offsets: Any = scale.low if scale.offsets is None else bridge.offsets_of(scale)
    if isinstance(numbers.scale, int):
        target = numbers.scale
    else:
        # the greatest number as it is now decides; rounded up, so that nothing saturates
        m = codes.astype(np.int64) & weight.fmt.max_magnitude
        greatest = int(np.max(np.where(m > 0, m + offsets, -(1 << 40)), initial=-(1 << 40)))
        if greatest == -(1 << 40):
            target = 0
        else:
            steps = (
                math.log2(weight.fmt.base) / math.log2(to.base) * 2.0 ** (to.fraction_bits - weight.fmt.fraction_bits)
            )
            target = math.ceil((greatest - weight.fmt.bias) * steps) - to.max_log
    converted = convert(codes, weight.fmt, to, log_offset=offsets, out_log_offset=target, rounding=numbers.rounding)
    tensor = bridge.from_numpy(converted).to(weight.device)
    return Quantized(tensor, to, Scale(target, target))


def quantize(
    x: torch.Tensor,
    numbers: Numbers,
    *,
    channels: tuple[int, ...] = (),
    draw: Draw | None = None,
    peak: float | None = None,
) -> Quantized:
    """The codes of floats.

    Args:
        x: float32 or float64.
        numbers: their kind's.
        channels: the dimensions along which each index has a log_offset of its own, under the rule "channel".
        draw: by what the stochastic modes draw.
        peak: the maximum that decides, under the rule "running".
    """
    fmt, x = numbers.fmt, x.detach()
    rule = numbers.scale
    if rule != "channel" and numbers.rounding == "nearest" and numbers.outside == "pass":
        turned = x.ndim == 2 and not x.is_contiguous()
        array = swift.array_of(x.mT if turned else x)
        found = None if array is None else _swiftly(array, numbers, peak)
        if found is not None:
            return found.mT if turned else found
    if isinstance(rule, int):
        scale = Scale(rule, rule)
    elif rule == "channel" and channels and x.numel():
        scale = _of_channels(x, fmt, numbers.rounding, channels)
    else:
        offset = swift.fit(greatest(x) if peak is None else peak, fmt, numbers.rounding)
        scale = Scale(offset, offset)
    bits = None if draw is None or not numbers.is_random else random_bits(x.shape, draw, x.device)
    codes = _encode(x, fmt, scale, numbers.rounding, bits)
    outside = None
    # under the other rules nothing lies above the greatest number
    if numbers.outside == "zero" and (isinstance(rule, int) or rule == "running"):
        outside = x.abs() > float(lnsnum.decode(fmt.max_magnitude, fmt, log_offset=scale.low))
        outside = outside if bool(outside.any()) else None
    return Quantized(codes, fmt, scale, outside)


def _swiftly(array: NDArray[np.float32], numbers: Numbers, peak: float | None) -> Quantized | None:
    """The same, of few numbers of one scale, to nearest; None where that is not to be had."""
    fmt, offset = numbers.fmt, numbers.scale
    if not isinstance(offset, int):
        largest = swift.greatest_of(array) if peak is None else peak
        if largest is None:
            return None
        offset = swift.fit(largest, fmt, "nearest")
    codes = swift.encode(array, fmt, offset)
    return None if codes is None else Quantized(bridge.from_numpy(codes), fmt, Scale(offset, offset))


def _encode(
    x: torch.Tensor, fmt: LNSFormat, scale: Scale, rounding: Rounding, bits: torch.Tensor | None
) -> torch.Tensor:
    """The codes with the strides of the floats, so that torch's kernels take the same way with either."""
    if x.is_contiguous() or not bridge.is_dense(x):
        return bridge.encode(x, fmt, scale, rounding=rounding, random_bits=bits)
    order = bridge.memory_order(x)
    back = [order.index(d) for d in range(x.ndim)]
    offsets = None if scale.offsets is None else scale.offsets.permute(order)
    bits = None if bits is None else bits.permute(order)
    codes = bridge.encode(x.permute(order), fmt, scale._replace(offsets=offsets), rounding=rounding, random_bits=bits)
    return codes.permute(back)


def greatest(x: torch.Tensor) -> float:
    """The greatest finite magnitude, 0 of none."""
    if not x.numel():
        return 0.0
    low, high = (float(extreme) for extreme in x.aminmax())
    largest = max(-low, high)
    if math.isfinite(low) and math.isfinite(high):
        return largest
    finite = x[torch.isfinite(x)]
    return greatest(finite)


def _of_channels(x: torch.Tensor, fmt: LNSFormat, rounding: Rounding, channels: tuple[int, ...]) -> Scale:
    array = bridge.as_numpy(x.cpu().contiguous())
    offsets = np.asarray(fit_log_offset(array, fmt, rounding=rounding, channels=channels))
    offsets = np.clip(offsets, -MAX_LOG_OFFSET, MAX_LOG_OFFSET).astype(np.int32)
    each = torch.from_numpy(offsets).to(x.device)
    low, high = int(offsets.min()), int(offsets.max())
    return Scale(low, high) if low == high else Scale(low, high, each)


def random_bits(shape: torch.Size, draw: Draw, device: torch.device) -> torch.Tensor:
    """A word for each element, int32, by `lnsnum.torch_bridge.kernels.random_words`."""
    count = math.prod(shape)
    if device.type == "cpu":
        words = np.empty(count, np.int32)
        keys = random_words.draw_keys(draw.seed, draw.stream, draw.step)
        random_words.fill_words(words, 0, keys[0], keys[1])
        return torch.from_numpy(words).reshape(shape)
    keys = random_words_twin.draw_keys(draw)
    index = torch.arange(count, dtype=torch.int64, device=device)
    return random_words_twin.words_of(index, keys[0], keys[1]).to(torch.int32).reshape(shape)
