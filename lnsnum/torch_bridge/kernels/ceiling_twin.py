"""Ceilings that follow, in torch operations: the twin of `ceiling`, on any device and inside of torch.compile.

    grows  =  enough codes are at the ceiling, and the floor stays below half of the RMS             sums of integers
    m      <-  m - G  where a scale grows and m > G,  else [u < X[m] / c]

In a graph every step looks, and what it finds counts where the number of the step is a multiple of `ceiling.EVERY`.
Scales are tensors there, shaped as the log_offsets of an LNSWeight: of as many dimensions as the codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lnsnum import __version__
from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels import ceiling, grid
from lnsnum.torch_bridge.kernels.codes_twin import as_codes, tensors_of
from lnsnum.torch_bridge.kernels.moments import RANDOM_UNIT
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part
from lnsnum.torch_bridge.kernels.random_words_twin import draw_keys, indices, upper24, words_of
from lnsnum.torch_bridge.kernels.scale import Scale

_UNIT = float(RANDOM_UNIT)


class Followed(NamedTuple):
    """What a step makes of the scales of a parameter."""

    codes: torch.Tensor
    offsets: torch.Tensor
    units: torch.Tensor
    grown: torch.Tensor
    """How many grew: 0-dim, int64, where the units are."""


def decide(
    codes: torch.Tensor, fmt: LNSFormat, shape: torch.Size, sizes: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which scales grow, and which should and cannot, as `ceiling.decide`: in the shape of the scales. `sizes` says how
    many codes each has, where zeros stand behind them that are none.

    >>> from lnsnum import lns8f3
    >>> codes = torch.tensor([[127, 255, 90], [127, 3, 0]], dtype=torch.uint8)
    >>> decide(codes, lns8f3, torch.Size([2, 1]))[0].tolist()
    [[True], [False]]
    """
    m = codes.to(torch.int32) & fmt.max_magnitude
    (shares,) = tensors_of(codes, _square_shares, fmt)
    # the dimensions over which a scale is one: all, of one scale without dimensions
    merged = [d for d in range(codes.ndim) if len(shape) == 0 or shape[d] == 1]

    def total(of_codes: torch.Tensor) -> torch.Tensor:
        # sums of int64, as the histogram of the kernel: exact in any order
        wide = of_codes.to(torch.int64)
        return (wide.sum(merged, keepdim=True) if merged else wide).reshape(shape)

    size: Any = codes.numel() // max(shape.numel(), 1) if sizes is None else sizes
    at_ceiling = total(m == fmt.max_magnitude)
    # products in the place of quotients: integers alone decide
    wants = (at_ceiling >= 2) & (ceiling.SHARE * at_ceiling > size)
    fits = total(shares[m]) >= size * ceiling.ONE
    return wants & fits, wants & ~fits


def grow(
    codes: torch.Tensor,
    fmt: LNSFormat,
    grows: torch.Tensor,
    draw: Draw,
    *,
    keep: bool = False,
    part: Part = WHOLE,
) -> torch.Tensor:
    """The codes where the scales that grow (bool, broadcasts to the codes) have moved down by G, as `ceiling.grow`."""
    # the other two keys: the step itself has drawn by the first
    words = words_of(indices(codes.shape, part=part, device=codes.device), *draw_keys(draw)[2:])
    # a format that spans less than G has all of its codes drawn
    steps = min(grid.doubling(fmt), fmt.max_magnitude)
    code = codes.to(torch.int32) & ((1 << fmt.bits) - 1)
    m = code & fmt.max_magnitude
    sign = code - m
    (shares,) = tensors_of(codes, _shares, fmt)
    # codes above take no share: the clamp keeps their index within the table
    share = shares[m.clamp(max=steps)]
    if keep:  # unbiased between the floor and its negative
        share = 0.5 + 0.5 * share
    chosen = upper24(words) < (share * _UNIT).to(torch.int32)
    # with keep, not the floor is the floor of the other sign
    low = torch.where(chosen, sign + 1, fmt.sign_bit - sign + 1 if keep else 0)
    moved = torch.where(m > steps, code - steps, low)
    # m = 0 is zero and NaN, which have no scale
    return as_codes(torch.where(grows & (m > 0), moved, code), fmt)


def raised(offsets: torch.Tensor, units: torch.Tensor, fmt: LNSFormat, grows: torch.Tensor) -> list[torch.Tensor]:
    """log_offsets, and units in terms of their floors, of scales of which some grow."""
    # a tensor as divisor: a number may become a product with its inverse
    factors = torch.where(grows.to(units.device), ceiling.factor(fmt), torch.ones_like(units))
    return [offsets + grows.to(offsets.device, offsets.dtype) * grid.doubling(fmt), units / factors]


def follow(
    codes: torch.Tensor,
    scale: Scale,
    units: torch.Tensor,
    fmt: LNSFormat,
    draw: Draw,
    *,
    keep: bool,
) -> Followed:
    """What follows a step in a graph, out of place.

    Args:
        codes: as the step left them.
        scale: theirs, with a tensor on their device, and the greatest log_offset for which the graph can decode.
        units: float64, one for each log_offset, on any device; of groups as `Scale.unmerged`.
        fmt: the format.
        draw: its step is a tensor.
        keep: no code becomes zero.

    Returns:
        Offsets and units in the shape of the given units.
    """
    assert scale.offsets is not None
    numbers: Any = fmt.bits, fmt.fraction_bits, fmt.base, scale.high, draw.seed, draw.stream, keep
    numbers = *numbers, *scale.groups, __version__
    run = torch.ops.lnsnum.follow_ceiling if torch.compiler.is_dynamo_compiling() else _follow
    return Followed(*run(codes, scale.unmerged(scale.offsets), units, draw.step, *numbers))


def _follow(
    codes: torch.Tensor, offsets: torch.Tensor, units: torch.Tensor, step: torch.Tensor, bits: int, fraction_bits: int,
    base: float, high: int, seed: int, stream: int, keep: bool, group_size: int, axis: int, version: str,
) -> list[torch.Tensor]:  # fmt: skip
    """`follow` with the numbers of the format and the scale, which is what an operator takes."""
    fmt = LNSFormat(bits, fraction_bits, base=base)
    scale = Scale(0, high, None, group_size, axis, codes.shape[axis] % group_size if group_size else 0)
    grows, _ = decide(*_in_groups(codes, scale, fmt, offsets.shape))
    due = (step % ceiling.EVERY == 0).to(codes.device)
    # the graph's tables end at `high`: there a ceiling stays
    grows = grows & due & (offsets <= high - grid.doubling(fmt))
    each = scale.over_codes(scale.merged(grows))
    moved = scale.together(grow(scale.apart(codes), fmt, each, Draw(seed, stream, step), keep=keep))
    return [moved, *raised(offsets, units, fmt, grows), grows.sum().to(units.device)]


def _in_groups(codes: torch.Tensor, scale: Scale, fmt: LNSFormat, shape: torch.Size) -> Any:
    """What `decide` takes: where groups leave a rest, with zeros behind it, which are at no ceiling."""
    if not scale.rest:
        return scale.apart(codes), fmt, shape
    size, axis = scale.groups
    groups = -(-codes.shape[axis] // size)
    pad = [0, 0] * (-1 - axis) + [0, size - scale.rest]
    last = torch.arange(groups, device=codes.device).view(groups, *(1,) * -axis) == groups - 1
    alike = codes.numel() // codes.shape[axis] // (shape.numel() // groups)
    sizes = torch.where(last, alike * scale.rest, alike * size).expand(shape)
    return functional.pad(codes, pad).unflatten(axis, (groups, size)), fmt, shape, sizes


_OPERATORS = torch.library.Library("lnsnum", "FRAGMENT")
_OPERATORS.define(
    "follow_ceiling(Tensor codes, Tensor offsets, Tensor units, Tensor step, int bits, int fraction_bits, float base, "
    "int high, int seed, int stream, bool keep, int group_size, int axis, str version) -> Tensor[]"
)
_OPERATORS.impl("follow_ceiling", _follow, "CompositeImplicitAutograd")


def _square_shares(fmt: LNSFormat) -> tuple[NDArray[np.int64]]:
    return (ceiling.square_shares(fmt),)


def _shares(fmt: LNSFormat) -> tuple[NDArray[np.float32]]:
    return (ceiling.shares(fmt),)
