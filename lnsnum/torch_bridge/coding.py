"""One parameter becomes codes, block by block.

The scale of it, or of each of its channels or groups, is chosen once, from its values w0: the least log_offset at which
the greatest magnitude is at or above p_scale * RMS(w0), or that of another rule. Or, where these were codes once, the
one next to it at which nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.calibrated import adapted, offsets_for_outputs, output_sqnr
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.fits import fit_rows
from lnsnum.torch_bridge.kernels.fitting import Windows, exact_windows
from lnsnum.torch_bridge.kernels.least_error import Axis
from lnsnum.torch_bridge.kernels.nearest_value import nearest_codes
from lnsnum.torch_bridge.kernels.scale import Fit, check_offset, fit_to_rms, std_of_zeros
from lnsnum.torch_bridge.layouts import Layout
from lnsnum.torch_bridge.reports import ParameterReport
from lnsnum.torch_bridge.second_moments import SecondMoments
from lnsnum.torch_bridge.weight import LNSWeight

Zeros = Literal["redraw", "keep"]
Scaling = Literal["rms", "max", "mse", "output"]
"""By which rule a scale is fitted to a parameter."""
WeightRounding = Literal["nearest", "nearest_value", "adaptive"]
"""How the weights of a parameter become codes."""


class Way(NamedTuple):
    """How the numbers of one parameter become codes."""

    rule: Scaling
    p_scale: float
    rounding: WeightRounding
    moments: SecondMoments | None
    """Of its inputs; None where nothing is known of them."""
    dampening: float

    @property
    def axis(self) -> Axis:
        """On which its scale's errors are measured."""
        return "log" if self.rounding == "nearest" else "value"

    @property
    def fit(self) -> Fit:
        """The rule, as far as it goes by the numbers alone."""
        return Fit("mse" if self.rule == "output" else self.rule, self.p_scale)


def converted(
    name: str,
    parameter: torch.Tensor,
    fmt: LNSFormat,
    layout: Layout,
    way: Way,
    zeros: Zeros,
    zero_std: float,
    padding_row: int | None,
    generator: torch.Generator,
) -> tuple[LNSWeight, ParameterReport]:
    """One parameter, block by block: beside the codes it takes memory for some float64 numbers, not for all."""
    each = layout.own is not None
    w = Redrawn(parameter, layout, zeros, zero_std, padding_row, generator)
    each_windows = [exact_windows(matrix, fmt) for matrix in layout.matrices(parameter.detach())]
    windows = Windows(*(torch.cat(of_all) for of_all in zip(*each_windows, strict=True)))
    fitting = torch.tensor(_fitting(name, w, fmt, layout, way), device=parameter.device)
    offsets = windows.nearest(fitting, fmt).tolist()
    log_offset = layout.in_order(offsets)
    codes = [torch.empty(rows.shape, dtype=bridge.code_dtype(fmt), device=parameter.device) for rows in w.matrices]
    adaptive = None
    if way.rounding == "adaptive" and way.moments is not None:
        scale = check_offset(log_offset, parameter.shape, layout.group_size or 0).on(parameter.device)
        adaptive = adapted(_wide(parameter), fmt, scale, way.moments, way.dampening)
    if adaptive is not None:
        codes = [rows.contiguous() for rows in _in_rows(adaptive, layout)]
    error_squares, done = 0.0, 0
    for matrix, begin, block in w.blocks():
        own_offsets = offsets[done : done + len(block)]
        scale = check_offset(torch.tensor(own_offsets)[:, None] if each else offsets[0], block.shape)
        scale, part = scale.on(block.device), codes[matrix][begin : begin + len(block)]
        done += len(block)
        if way.rounding == "nearest":
            part.copy_(bridge.encode(block, fmt, scale, underflow="saturate"))
        elif adaptive is None:
            own = torch.tensor(scale.low) if scale.offsets is None else scale.offsets
            part.copy_(nearest_codes(block, fmt, own))
        decoded = bridge.decode(part, fmt, scale, torch.float64)
        error_squares += float(((decoded - block) / w.unit).square().sum())
    whole = bridge.with_strides_of(parameter, layout.put_back(codes, parameter.shape))
    weight = LNSWeight(whole, fmt, log_offset, parameter.dtype, group_size=layout.group_size)
    weight.fit = way.fit
    sqnr = None
    if way.moments is not None:
        sqnr = output_sqnr(_wide(parameter), weight.to_float(torch.float64), way.moments)
    telemetry = weight.telemetry()
    report = ParameterReport(
        name=name,
        format=fmt,
        shape=tuple(parameter.shape),
        log_offset=log_offset,
        group_size=layout.group_size,
        relative_error=math.sqrt(error_squares / w.squares) if w.squares else 0.0,
        at_ceiling=telemetry.at_ceiling,
        at_floor=telemetry.at_floor,
        zeros_redrawn=w.count,
        zeros_kept=int(telemetry.histogram[0]),
        output_sqnr=sqnr,
    )
    return weight, report


def _fitting(name: str, w: Redrawn, fmt: LNSFormat, layout: Layout, way: Way) -> list[int]:
    """The log_offset of each scale by its rule."""
    rms = w.rms() or w.std_of_zeros
    try:
        if way.rule == "output" and way.moments is not None:
            own = (1,) * w.given.ndim if layout.own is None else layout.own
            each = check_offset(torch.zeros(own, dtype=torch.int32), w.given.shape, layout.group_size or 0)
            numbers = _wide(w.given)
            fed_back = way.dampening if way.rounding == "adaptive" else None
            found = offsets_for_outputs(numbers, fmt, each, way.moments, rms, axis=way.axis, dampening=fed_back)
            return layout.of_rows(found)
        if way.rule == "rms":
            return [fit_to_rms(r, fmt, way.p_scale) for r in (w.row_rms() if layout.own is not None else [rms])]
        blocks = [block for *_, block in w.blocks()]
        if layout.own is None:
            # of no elements there is no block
            none = torch.empty(0, dtype=torch.float64, device=w.given.device)
            blocks = [torch.cat([none, *(block.reshape(-1) for block in blocks)])[None]]
        return [offset for block in blocks for offset in fit_rows(block, fmt, way.fit, rms, axis=way.axis)]
    except (ValueError, OverflowError) as error:
        what = f"{way.p_scale} times its RMS of {rms}" if way.rule == "rms" else f"its numbers, of an RMS of {rms}"
        raise ValueError(f"parameter {name!r}: no scale fits {what}: {error}") from error


def _wide(w: torch.Tensor) -> torch.Tensor:
    return w.detach().to(torch.float64).contiguous()


_BLOCK = 1 << 16


def _in_rows(w: torch.Tensor, layout: Layout) -> list[torch.Tensor]:
    """Matrices whose rows are read some at a time: of one scale each, or of none."""
    if layout.own is not None:
        return layout.matrices(w)
    return [w.reshape(w.shape[0], -1) if w.ndim > 1 and w.numel() else w.reshape(-1, 1)]


class Redrawn:
    """The numbers of a parameter as float64, in blocks of rows, its zeros re-drawn where that is wanted."""

    def __init__(
        self,
        w: torch.Tensor,
        layout: Layout,
        zeros: Zeros,
        zero_std: float,
        padding_row: int | None,
        generator: torch.Generator,
    ) -> None:
        self.given = w
        self.matrices = _in_rows(w, layout)
        asked = zeros == "redraw"
        self.redraw = [rows == 0 if asked else torch.zeros_like(rows, dtype=torch.bool) for rows in self.matrices]
        if padding_row is not None:
            padding = torch.zeros(w.shape, dtype=torch.bool, device=w.device)
            padding[padding_row] = True
            for redraw, padded in zip(self.redraw, _in_rows(padding, layout), strict=True):
                redraw &= ~padded
        self.drawn = torch.empty(0, dtype=torch.float64)
        self.count = 0
        self.std_of_zeros = std_of_zeros(w.shape, zero_std) if w.numel() else 0.0
        self._measure()
        count = sum(int(redraw.sum()) for redraw in self.redraw)
        if count:
            rms = self.rms()
            std = min(zero_std, rms) if rms > 0 else self.std_of_zeros
            drawn = torch.randn(count, dtype=torch.float64, generator=generator, device="cpu") * std
            self.drawn, self.count = drawn.to(w.device), count
            if rms == 0:
                self._measure()
            self.squares = sum(float((block / self.unit).square().sum()) for *_, block in self.blocks())

    def _measure(self) -> None:
        """The greatest magnitude, and the sum of squares in units of it, which leaves no range."""
        greatest = max((float(block.abs().max()) for *_, block in self.blocks()), default=0.0)
        self.unit = greatest or 1.0
        self.squares = sum(float((block / self.unit).square().sum()) for *_, block in self.blocks())
        self.mean_square = self.squares / max(self.given.numel(), 1)

    def rms(self) -> float:
        """The root mean square; that of the numbers before zeros were re-drawn, if it was not 0."""
        return self.unit * math.sqrt(self.mean_square)

    def row_rms(self) -> list[float]:
        """The root mean square of each row; of a row of zeros that of all, or of what could stand there."""
        each: list[float] = []
        for *_, block in self.blocks():
            unit = block.abs().amax(1, keepdim=True)
            unit = torch.where(unit > 0, unit, 1.0)
            each += ((block / unit).square().mean(1).sqrt() * unit[:, 0]).tolist()
        return [rms or self.rms() or self.std_of_zeros for rms in each]

    def blocks(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Some rows, and before them which matrix they are of, and the index of the first."""
        used = 0
        for matrix, (rows, redraws) in enumerate(zip(self.matrices, self.redraw, strict=True)):
            length = max(_BLOCK // max(rows.shape[1], 1), 1)
            for begin in range(0, len(rows), length):
                part = slice(begin, begin + length)
                block = rows[part].to(torch.float64, copy=True)
                if self.count:
                    redraw = redraws[part]
                    count = int(redraw.sum())
                    block[redraw] = self.drawn[used : used + count]
                    used += count
                yield matrix, begin, block
