"""What every handler of a datapath works with: a factor becomes codes, a product is made of two, a result is handed on.

    factor      x  ->  Q(x) by its kind's numbers, measured for the report
    product     of two factors: floats of the codes and torch's kernel, or codes in an accumulator
    gradient    what belongs to a weight  ->  Q_G(x)

Random bits are drawn by (seed, the number of the draw within the step, step): a step begins with each call of an
outermost module in the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from lnsnum.torch_bridge.datapath import bit_true
from lnsnum.torch_bridge.datapath.bit_true import Sums
from lnsnum.torch_bridge.datapath.fixed_point import FixedSums
from lnsnum.torch_bridge.datapath.float_operations import computes
from lnsnum.torch_bridge.datapath.graph import Factor, Graph, Record, in_backward
from lnsnum.torch_bridge.datapath.kept import Kept
from lnsnum.torch_bridge.datapath.matrices import Matrices
from lnsnum.torch_bridge.datapath.modules import Layers
from lnsnum.torch_bridge.datapath.quantized import Quantized, greatest, of_weight, quantize
from lnsnum.torch_bridge.datapath.report import Report, SumStatistics, TensorStatistics
from lnsnum.torch_bridge.datapath.settings import Accumulator, BitTrue, Formats, Settings
from lnsnum.torch_bridge.kernels.random_words import Draw
from lnsnum.torch_bridge.weight import LNSWeight

Place = tuple[str, str, str, int]
"""A layer, a kind, an operation, and which of its factors: where a running maximum belongs to."""


Made = Callable[["Workshop", Any, tuple[Any, ...], dict[str, Any]], Any]
"""What makes other operations in LNS (`elementwise`): the result, or NotImplemented."""


class Taken(NamedTuple):
    """A tensor as a product takes it: codes, or floats where its kind has no format."""

    x: torch.Tensor
    quantized: Quantized | None
    kind: str
    varies: bool = False
    """Whether codes of the same floats may be others at another time: where they are drawn, or a maximum moves on."""

    def factor(self) -> Factor:
        """As one of a recorded operation."""
        return Factor.of(self.x, self.quantized, varies=self.varies)

    def floats(self, dtype: torch.dtype) -> torch.Tensor:
        """The numbers."""
        if self.quantized is None:
            return self.x.to_float(dtype) if isinstance(self.x, LNSWeight) else self.x.detach()
        return self.quantized.floats(dtype)

    def matrices(self, accumulator: BitTrue, view: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Matrices:
        """The codes; `view` is applied to them, and to the log_offset of each element."""
        if self.quantized is None:
            raise ValueError(
                f"accumulate={accumulator.name} adds products of codes, and {self.kind} are floats: give "
                f"{self.kind} a format, or convert the model"
            )
        return Matrices.of(self.quantized if view is None else viewed(self.quantized, view), accumulator, self.kind)


def viewed(q: Quantized, view: Callable[[torch.Tensor], torch.Tensor]) -> Quantized:
    """Codes of another shape, with the log_offset of each."""
    q = q.apart()
    scale = q.scale
    if scale.offsets is not None:
        scale = scale._replace(offsets=view(scale.offsets.expand(q.codes.shape)))
    return Quantized(view(q.codes), q.fmt, scale)


class Workshop:
    """The state of a context, and the work on tensors."""

    def __init__(self, settings: Settings, graph: Graph, layers: Layers, made: Made | None = None) -> None:
        self.settings, self.graph, self.layers = settings, graph, layers
        self._made = made
        self.kept = Kept()
        self.peaks: dict[Place, float] = {}
        self.step = 0
        self._draws = 0
        self._formats: dict[str, Formats | None] = {}
        self._tensors: dict[tuple[str, str], TensorStatistics] = {}
        self._sums: dict[tuple[str, str], SumStatistics] = {}
        self._in_float: dict[str, dict[str, int]] = {}
        self._without_role: dict[str, dict[str, int]] = {}

    def begin_step(self) -> None:
        """An outermost module is called: new random bits, but for what is recomputed in a backward pass."""
        if not in_backward():
            self.step += 1
            self._draws = 0
            self.kept.generation += 1

    def formats(self, layer: str) -> Formats | None:
        """What a layer does."""
        if layer not in self._formats:
            self._formats[layer] = self.settings.of_layer(layer)
        return self._formats[layer]

    def check(self, *tensors: torch.Tensor | None, name: str) -> None:
        """Refuse types that a product in LNS is not made of."""
        for x in tensors:
            if x is not None and x.dtype not in (torch.float32, torch.float64):
                raise TypeError(
                    f"a datapath takes float32 or float64, and {name} has {x.dtype}: the formats stand for the "
                    "precision, so leave half types and autocast out"
                )

    def take(self, x: torch.Tensor, kind: str, at: Record, index: int, channels: tuple[int, ...] | None) -> Taken:
        """A factor as codes.

        Args:
            x: the tensor.
            kind: "weights", "activations" or "errors".
            at: the operation.
            index: which of its factors this is.
            channels: the dimensions of the rule "channel"; None where those of any other product of this serve.
        """
        formats = at.formats
        numbers = None if formats is None else formats.numbers(kind)
        if isinstance(x, LNSWeight):
            if numbers is None or numbers.fmt == x.fmt:
                q = of_weight(x, numbers)
                self._measure(x, q, kind, at.layer)
                return Taken(x, q, kind)
            found = self.kept.find(x, numbers, (), era=None if in_backward() else self.kept.generation)
            if found is None:
                found = of_weight(x, numbers)
                self.kept.put(x, numbers, (), found, self.kept.generation)
                self._measure(x, found, kind, at.layer)
            return Taken(x, found, kind)
        if numbers is None:
            return Taken(x, None, kind)
        if numbers.is_random and kind != "errors" and in_backward() and channels is not None:
            where = f"{at.name} of {at.layer or 'a function'}"
            raise NotImplementedError(
                f"{where} is computed again within the backward pass, as by checkpointing, and {kind} rounded at "
                f"random would not be those of the first time: give {kind} a mode that draws nothing"
            )
        varies = numbers.is_random or numbers.scale == "running"
        if numbers.scale != "channel":
            channels = ()
        # of errors those of one backward pass alone: a gradient that is given may be written to before the next
        era: Any = self.kept.generation
        if in_backward():
            era = ("errors", torch._C._current_graph_task_id()) if kind == "errors" else None
        found = self.kept.find(x, numbers, None if channels == () else channels, era=era)
        if found is not None:
            return Taken(x, found, kind, varies)
        peak = None
        if numbers.scale == "running":
            peak = self._peak((at.layer, kind, at.name, index), greatest(x), numbers.decay)
        quantized = quantize(x, numbers, channels=channels or (), draw=self._draw(numbers), peak=peak)
        self.kept.put(x, numbers, channels or (), quantized, self.kept.generation if era is None else era)
        self._measure(x, quantized, kind, at.layer)
        return Taken(x, quantized, kind, varies)

    def take_again(self, x: torch.Tensor, kind: str, at: Record, index: int, factor: Factor | None = None) -> Taken:
        """What a node saved of a factor, in the backward pass: as codes of the forward pass."""
        codes = None if factor is None else factor.codes_of(x)
        return self.take(x, kind, at, index, None) if codes is None else Taken(x, codes, kind)

    def _draw(self, numbers: Any) -> Draw | None:
        if not numbers.is_random:
            return None
        self._draws += 1
        return Draw(self.settings.seed, self._draws, self.step)

    def _peak(self, place: Place, now: float, decay: float) -> float:
        # a recomputation in the backward pass sees what the first one saw
        if in_backward() and place[1] != "errors" and place in self.peaks:
            return self.peaks[place]
        if not self.layers.training:  # evaluation leaves no trace in what is trained
            return self.peaks.get(place, now)
        self.peaks[place] = max(now, decay * self.peaks.get(place, 0.0))
        return self.peaks[place]

    def gradient(self, x: torch.Tensor, at: Record) -> torch.Tensor:
        """Q_G of what belongs to a weight."""
        numbers = None if at.formats is None else at.formats.gradients
        if numbers is None:
            return x
        peak = None
        if numbers.scale == "running":
            peak = self._peak((at.layer, "gradients", at.name, 0), greatest(x), numbers.decay)
        channels = (0,) if numbers.scale == "channel" and x.ndim > 1 else ()
        q = quantize(x, numbers, channels=channels, draw=self._draw(numbers), peak=peak)
        self._measure(x, q, "gradients", at.layer)
        return q.floats(x.dtype)

    def settled(self, x: torch.Tensor, factor: Factor, at: Record, *, turned: bool = False) -> torch.Tensor:
        """A product of the backward pass, as what belongs to a factor: a gradient, or an error."""
        if factor.role == "weights":
            x = self.gradient(x, at)
        if factor.outside is not None:
            outside = factor.outside.mT if turned else factor.outside
            x = x.masked_fill(outside.reshape(x.shape), 0.0)
        return x

    def sums(self, a: Matrices, b: Matrices, at: Record, kind: str, last: Matrices | None = None) -> Sums | FixedSums:
        """A bit-true product, counted for the report; `last` is added last."""
        accumulator: Any = None if at.formats is None else at.formats.accumulate
        own = self._sums.get((at.layer, kind))
        if own is None:
            own = self._sums[at.layer, kind] = SumStatistics(at.layer, kind, accumulator.name)
        own.products += 1
        most = self.settings.statistics
        if isinstance(accumulator, Accumulator) and (most is None or own.products <= most):
            own.measure(a, b, accumulator)
        return bit_true.matmul(a, b, accumulator, last)

    def _measure(self, x: torch.Tensor, q: Quantized, kind: str, layer: str) -> None:
        own = self._tensors.get((layer, kind))
        if own is None:
            own = self._tensors[layer, kind] = TensorStatistics(layer, kind, q.fmt.name)
        own.tensors += 1
        most = self.settings.statistics
        if most is None or own.measured < most:
            own.measure(x.to_float(torch.float64) if isinstance(x, LNSWeight) else x, q)

    def plain(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """An operation that is no product: in LNS where it is made so, else as it is, and counted where it computes."""
        if self._made is not None:
            out = self._made(self, func, args, kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if computes(func, args, kwargs, out):
            self.left_in_float(str(func))
        if self._made is not None and self.settings.layers and torch.is_grad_enabled() and not in_backward():
            # what its node computes belongs to the same layer
            of = out[0] if isinstance(out, (tuple, list)) and out else out
            if isinstance(of, torch.Tensor):
                self.graph.record(of, Record(self.layers.current, None, str(func), guarded=False))
        return out

    def left_in_float(self, operation: str, layer: str | None = None) -> None:
        """Count an operation that computed in floating point."""
        own = self._in_float.setdefault(operation, {})
        layer = self.layers.current if layer is None else layer
        own[layer] = own.get(layer, 0) + 1

    def left_without_role(self, operation: str, node: str) -> None:
        """Count a product of which nothing tells what its factors are."""
        own = self._without_role.setdefault(operation, {})
        own[node] = own.get(node, 0) + 1

    def report(self) -> Report:
        """What was counted so far."""
        copies = {name: dict(layers) for name, layers in self._in_float.items()}
        others = {name: dict(nodes) for name, nodes in self._without_role.items()}
        return Report(list(self._tensors.values()), list(self._sums.values()), copies, others)


def begin(shop: Workshop, name: str) -> Record:
    """The record of an operation of the forward pass."""
    layer = shop.layers.current
    return Record(layer, shop.formats(layer), name)
