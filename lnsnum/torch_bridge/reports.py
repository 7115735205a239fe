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
from lnsnum.torch_bridge.showing import kind_of_codes
from lnsnum.torch_bridge.tables import Table, Tabular


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
class ConversionReport(Tabular):
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

    def to_table(self) -> Table:
        """A row for each parameter."""
        head = ["name", "format", "log_offset", "rel. error", "ceiling", "floor", "zeros re-drawn"]
        rows = [
            [
                p.name,
                kind_of_codes(p.format, p.log_offset, p.group_size),
                _span(p.log_offset),
                f"{p.relative_error:.4f}",
                f"{p.at_ceiling:.2%}",
                f"{p.at_floor:.2%}",
                str(p.zeros_redrawn),
            ]
            for p in self.parameters
        ]
        if any(p.output_sqnr is not None for p in self.parameters):
            head += ["SQNR, dB", "of outputs"]
            for row, p in zip(rows, self.parameters, strict=True):
                row += [f"{p.weight_sqnr:.2f}", _decibels(p.output_sqnr)]
        rows += [[name, "float", *[""] * (len(head) - 2)] for name in self.left_float]
        notes = [f"{p.name} lost: {', '.join(p.not_carried)}" for p in self.parameters if p.not_carried]
        return Table(head, rows, texts=2, notes=notes)


def _span(log_offset: LogOffset) -> str:
    """A log_offset as text: one number, or the least and the greatest."""
    if not isinstance(log_offset, torch.Tensor):
        return str(log_offset)
    return f"{int(log_offset.min())}..{int(log_offset.max())}"


def _decibels(sqnr: float | None) -> str:
    return "" if sqnr is None else f"{sqnr:.2f}"
