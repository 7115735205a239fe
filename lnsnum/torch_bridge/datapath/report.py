"""What a datapath did to the numbers: by layer and kind of tensor, and what it left in float.

    range          log2 of the smallest and the greatest magnitude that came in
    saturated      share of numbers above the greatest of their format and scale, by more than rounding
    underflow      share of nonzero numbers below the smallest
    zeros          share of zeros that came in
    SNR            10 log10 (sum x^2 / sum (Q(x) - x)^2), in dB
    swamped        share of additions in which the smaller operand changes nothing: of a sample of sums, followed in
                   float64; of the same sample, underflow is the share of terms below the accumulator's smallest number

Only the first `statistics` tensors of each layer and kind are measured: the counts say how many of how many.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from lnsnum.format import LNSFormat
from lnsnum.gaussian import last_step
from lnsnum.kernels.decibels import decibels
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.operations.accumulate import Terms, terms_of
from lnsnum.torch_bridge.datapath import bit_true
from lnsnum.torch_bridge.datapath.matrices import Matrices, in_steps
from lnsnum.torch_bridge.datapath.quantized import Quantized
from lnsnum.torch_bridge.datapath.settings import Accumulator
from lnsnum.torch_bridge.tables import Table


@dataclass
class TensorStatistics:
    """Of the tensors of one kind in one layer."""

    layer: str
    kind: str
    fmt: str
    tensors: int = 0
    measured: int = 0
    elements: int = 0
    low: float = math.inf
    """log2 of the smallest magnitude but zero."""
    high: float = -math.inf
    saturated: int = 0
    underflow: int = 0
    zeros: int = 0
    signal: float = 0.0
    noise: float = 0.0

    @property
    def snr(self) -> float:
        """In dB; infinite where nothing was lost, NaN where noise is beyond doubles."""
        return decibels(self.signal, self.noise)

    def share(self, what: str) -> float:
        """Of the measured elements."""
        return float(getattr(self, what)) / max(self.elements, 1)

    def measure(self, x: torch.Tensor, q: Quantized) -> None:
        """Count one tensor."""
        self.measured += 1
        self.elements += x.numel()
        if not x.numel():
            return
        values, wide = q.floats(torch.float64).reshape(-1), x.detach().to(torch.float64).reshape(-1)
        magnitude, m = wide.abs(), (q.codes & q.fmt.max_magnitude).reshape(-1)
        nonzero = magnitude > 0
        if bool(nonzero.any()):
            present = magnitude[nonzero & torch.isfinite(magnitude)]
            if present.numel():
                self.low = min(self.low, math.log2(float(present.min())))
                self.high = max(self.high, math.log2(float(present.max())))
        # rounding at the ends of the range is neither saturation nor underflow: half a code step
        half = q.fmt.base ** (0.5 / (1 << q.fmt.fraction_bits)) * (1.0 + 1e-6)
        self.saturated += int(((m == q.fmt.max_magnitude) & (magnitude > values.abs() * half)).sum())
        self.underflow += int((nonzero & ((m == 0) | ((m == 1) & (magnitude * half < values.abs())))).sum())
        self.zeros += int((~nonzero).sum())
        finite = torch.isfinite(wide)
        self.signal += float(wide[finite].square().sum())
        self.noise += float((values[finite] - wide[finite]).square().sum())


@dataclass
class SumStatistics:
    """Of the sums of one layer."""

    layer: str
    kind: str
    accumulator: str
    products: int = 0
    additions: int = 0
    """Of the sample."""
    swamped: int = 0
    terms: int = 0
    """Of the sample, but zeros."""
    underflow: int = 0

    def measure(self, a: Matrices, b: Matrices, accumulator: Accumulator) -> None:
        """Follow up to 16 sums of a product."""
        rows, columns = a.codes.shape[-2], b.codes.shape[-1]
        if not (rows and columns and a.codes.size and b.codes.size):
            return
        to = accumulator.fmt
        at = [np.unique(np.linspace(0, length - 1, 4).astype(np.int64)) for length in (rows, columns)]
        left, right = (self._sample(x, index, to) for x, index in ((a, at[0]), (b.transposed, at[1])))
        log = left.log[:, None] + right.log[None]
        here = ~(left.zero[:, None] | right.zero[None])
        self.terms += int(here.sum())
        self.underflow += int((here & (log < bit_true.range_of(a, b, accumulator) - to.max_log)).sum())
        # from the greatest term: what doubles hold does not depend on scales
        octaves = (log - log.max(where=here, initial=log.min())) / steps_in_two(to)[0]
        sign = np.where(left.negative[:, None] ^ right.negative[None], -1.0, 1.0)
        before = np.cumsum(np.where(here, sign * np.exp2(np.minimum(octaves, 0.0)), 0.0), axis=-1)[..., :-1]
        both = here[..., 1:] & (before != 0)
        distance = np.abs(octaves[..., 1:][both] - np.log2(np.abs(before[both])))
        self.additions += int(both.sum())
        # from this many octaves on sb and db are less than half a code step
        self.swamped += int((distance >= last_step(to) / steps_in_two(to)[0]).sum())

    @staticmethod
    def _sample(x: Matrices, rows: Any, to: LNSFormat) -> Terms:
        """Rows of the first matrix of a stack, in steps of the accumulator."""
        first = x.at((0,) * (x.codes.ndim - 2))
        offsets: Any = first.log_offset if isinstance(first.log_offset, int) else first.log_offset[rows]
        terms, reference = terms_of(first.codes[rows], x.fmt, offsets, to)
        return terms._replace(log=terms.log + in_steps(x, to, reference))


@dataclass
class Report:
    """What `Datapath.report()` returns; printed, a table."""

    tensors: list[TensorStatistics] = field(default_factory=list)
    sums: list[SumStatistics] = field(default_factory=list)
    in_float: dict[str, dict[str, int]] = field(default_factory=dict)
    """By operation and layer how often it computed in floating point."""
    without_role: dict[str, dict[str, int]] = field(default_factory=dict)
    """Products in backward of which nothing tells what their factors are: they stayed in float."""

    def to_json(self) -> str:
        """All of it; numbers that are not finite are null."""

        def plain(one: TensorStatistics) -> dict[str, Any]:
            return {
                name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in asdict(one).items()
            }

        tensors = [{**plain(one), "snr": one.snr if math.isfinite(one.snr) else None} for one in self.tensors]
        sums = [asdict(one) for one in self.sums]
        return json.dumps(
            {"tensors": tensors, "sums": sums, "in_float": self.in_float, "without_role": self.without_role}, indent=1
        )

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A line for each layer and kind."""
        for one in self.tensors:
            span = f"{one.low:.1f} to {one.high:.1f}" if one.high > -math.inf else ""
            shares = [f"{100 * one.share(what):.2f}" for what in ("saturated", "underflow", "zeros")]
            snr = "exact" if one.snr == math.inf else f"{one.snr:.1f}"
            yield one.layer, one.kind, one.fmt, f"{one.measured} of {one.tensors}", span, *shares, snr, ""
        for many in self.sums:
            swamped = f"{100 * many.swamped / many.additions:.2f}" if many.additions else ""
            underflow = f"{100 * many.underflow / many.terms:.2f}" if many.terms else ""
            yield many.layer, many.kind, many.accumulator, str(many.products), "", "", underflow, "", "", swamped

    def to_table(self) -> Any:
        """A `rich.table.Table`; needs rich, of the extra `cli`."""
        from rich.table import Table

        table = Table(title="datapath")
        for at, name in enumerate(HEAD):
            table.add_column(name, justify="left" if at < 3 else "right")
        for row in self.rows():
            table.add_row(*row)
        return table

    def __str__(self) -> str:
        rows = [HEAD, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
        lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> Iterator[str]:
        for title, found in (("in float", self.in_float), ("without a role", self.without_role)):
            for operation, layers in sorted(found.items()):
                where = ", ".join(f"{layer or '-'} {count}" for layer, count in layers.items())
                yield f"{title}: {operation}: {where}"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return Table(HEAD, list(self.rows()), texts=3, notes=list(self._notes())).html()

    def plot(self, path: Any, what: str = "snr") -> None:
        """A heat map of layers by kinds, as an image file; needs matplotlib, of the extra `plot`.

        `what` is "snr", or a share: "saturated", "underflow", "zeros".
        """
        if what not in ("snr", "saturated", "underflow", "zeros"):
            raise ValueError(f"what={what!r} is not known: 'snr', 'saturated', 'underflow', 'zeros'")
        from matplotlib.figure import Figure

        layers = list(dict.fromkeys(one.layer for one in self.tensors))
        kinds = list(dict.fromkeys(one.kind for one in self.tensors))
        cells = np.full((len(layers), len(kinds)), np.nan)
        for one in self.tensors:
            value = min(one.snr, 200.0) if what == "snr" else 100.0 * one.share(what)
            cells[layers.index(one.layer), kinds.index(one.kind)] = value
        figure = Figure(figsize=(2.0 + 1.2 * max(len(kinds), 1), 1.5 + 0.3 * max(len(layers), 1)), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(np.atleast_2d(cells), aspect="auto")
        axes.set_xticks(range(len(kinds)), kinds)
        axes.set_yticks(range(len(layers)), layers)
        figure.colorbar(image, label="SNR (dB)" if what == "snr" else f"{what} (%)")
        figure.savefig(path)


HEAD = (
    "layer",
    "kind",
    "format",
    "measured",
    "log2 range",
    "saturated %",
    "underflow %",
    "zeros %",
    "SNR dB",
    "swamped %",
)
