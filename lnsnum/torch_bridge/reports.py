"""What conversion did to the parameters of a model: errors, scales, what was clipped, as figures and as a table.

SQNR  =  10 log10 (sum of squares / sum of the squared errors)      in decibels, of weights or of a layer's outputs
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels.scale import LogOffset


@dataclass(frozen=True)
class ParameterReport:
    """What conversion did to one parameter."""

    name: str
    format: LNSFormat
    shape: tuple[int, ...]
    log_offset: LogOffset
    group_size: int | None
    """Of the groups that log_offset has one for each of; None where it is of the whole, or of channels."""
    relative_error: float
    """||decoded - w|| / ||w||, w after zeros were re-drawn."""
    at_ceiling: float
    """Share of elements at the greatest magnitude."""
    at_floor: float
    """Share of elements at the smallest nonzero magnitude."""
    zeros_redrawn: int
    zeros_kept: int
    not_carried: tuple[str, ...] = ()
    """What the parameter had besides its numbers, and the weight in its place cannot have."""
    output_sqnr: float | None = None
    """Of the products with the inputs of the calibration, in decibels: 10 log10(|x W^T|^2 / |x (W - decoded)^T|^2), the
    bias left out; of an embedding, of the rows that were looked up. None where there was none."""

    @property
    def weight_sqnr(self) -> float:
        """Of the weights, in decibels: -20 log10(relative_error); inf where nothing was lost."""
        return -20 * math.log10(self.relative_error) if self.relative_error > 0.0 else math.inf


@dataclass(frozen=True)
class ConversionReport:
    """What `convert_model` did: one entry for each parameter converted, and the names of those left as they were."""

    parameters: tuple[ParameterReport, ...]
    left_float: tuple[str, ...]

    def __getitem__(self, name: str) -> ParameterReport:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    def __iter__(self) -> Iterator[ParameterReport]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __str__(self) -> str:
        width = max((len(p.name) for p in self.parameters), default=4)
        lines = [f"{'name':{width}}  format   log_offset  rel. error  ceiling   floor   zeros re-drawn"]
        lines += [
            f"{p.name:{width}}  {p.format.name:7}  {_span(p.log_offset):>10}  {p.relative_error:10.4f}"
            f"  {p.at_ceiling:6.2%}  {p.at_floor:6.2%}  {p.zeros_redrawn:15}"
            for p in self.parameters
        ]
        if any(p.output_sqnr is not None for p in self.parameters):
            lines[0] += "  SQNR, dB  of outputs"
            rows = zip(lines[1:], self.parameters, strict=True)
            lines[1:] = [f"{line}  {p.weight_sqnr:8.2f}  {_decibels(p.output_sqnr):>10}" for line, p in rows]
        lines += [f"{name:{width}}  float" for name in self.left_float]
        lines += [f"{p.name:{width}}  lost: {', '.join(p.not_carried)}" for p in self.parameters if p.not_carried]
        return "\n".join(lines)


def _span(log_offset: LogOffset) -> str:
    """A log_offset as text: one number, or the least and the greatest."""
    if not isinstance(log_offset, torch.Tensor):
        return str(log_offset)
    return f"{int(log_offset.min())}..{int(log_offset.max())}"


def _decibels(sqnr: float | None) -> str:
    return "" if sqnr is None else f"{sqnr:.2f}"
