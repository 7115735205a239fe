"""The context: a dispatch mode that makes the products of both passes of a network in LNS.

    with datapath(activations="lns8f3", errors="lns8f3", gradients="lns8f3") as path:
        loss = model(x)
        loss.backward()
    optimizer.step()
    print(path.report())

Both passes are torch's operations, which the mode sees below autograd: products go to `products`, `convolutions` and
`embeddings`, views and copies pass, all else to `elementwise`, and what that leaves in float is counted for the report.
What a factor is stands in `graph`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.datapath import convolutions, elementwise, embeddings, products
from lnsnum.torch_bridge.datapath.float_operations import refuse
from lnsnum.torch_bridge.datapath.functions import Functions
from lnsnum.torch_bridge.datapath.graph import Graph, hand_role_on
from lnsnum.torch_bridge.datapath.modules import Layers
from lnsnum.torch_bridge.datapath.presets import preset
from lnsnum.torch_bridge.datapath.settings import BitTrue, Formats, Numbers, Settings, read_layers
from lnsnum.torch_bridge.datapath.workshop import Workshop

_active = threading.local()


class _Dispatch(TorchDispatchMode):
    """What torch asks at each operation."""

    def __init__(self, path: Datapath) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        path = self.path
        kwargs = kwargs or {}
        path.graph.settle(args)
        handler = HANDLERS.get(func)
        if handler is not None:
            out = handler(path.workshop, func, *args, **kwargs)
            if not torch.is_grad_enabled():
                path.graph.watch(out)
            return out
        inference = torch.is_inference_mode_enabled()
        if inference and func._can_decompose():
            # inference_mode does not take apart what is made of other operations, as autograd does
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        refuse(func)
        out = path.workshop.plain(func, *args, **kwargs)
        if inference:
            hand_role_on(func, args, out)
        if not torch.is_grad_enabled():
            path.graph.watch(out)
        return out


HANDLERS: dict[Any, Any] = {**products.HANDLERS, **convolutions.HANDLERS, **embeddings.HANDLERS}
"""What makes an operation in LNS."""


class Datapath:
    """A datapath, which is active within `with`: see `datapath`, which makes one.

    Attributes:
        settings: what it computes with.
        step: how often an outermost module was called in it, which keys the random bits: set it to go on after a
            resume as if there had been no interruption.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.graph = Graph(self.is_active)
        self.layers = Layers(lambda: current() is not None, self._begin_step)
        made = elementwise.made if settings.any_elementwise else None
        self.workshop = Workshop(settings, self.graph, self.layers, made)
        self._modes: tuple[Any, ...] = ()

    @property
    def step(self) -> int:  # noqa: D102  (the class tells of it)
        return self.workshop.step

    @step.setter
    def step(self, value: int) -> None:
        self.workshop.step = int(value)

    def _begin_step(self) -> None:
        self.workshop.begin_step()

    def is_active(self) -> bool:
        """Whether this thread is within `with` of this object."""
        return current() is self

    def __enter__(self) -> Datapath:
        if torch.compiler.is_compiling():
            raise NotImplementedError(_COMPILING)
        if current() is not None:
            raise RuntimeError(
                "a datapath is active in this thread already, and what an inner one would do to the outer one's graph "
                "is not defined: leave the outer with block first, or give layers of their own by layers={pattern: ...}"
            )
        if self._modes:
            raise RuntimeError("this datapath is active in another thread: make one for each thread")
        if torch._C._is_any_autocast_enabled():
            raise NotImplementedError(AUTOCAST)
        _active.path = self
        self.workshop.kept.generation += 1
        self._modes = (Functions(self.graph), _Dispatch(self))
        entered = []
        try:
            self.layers.start()
            for mode in self._modes:
                mode.__enter__()  # type: ignore[no-untyped-call]
                entered.append(mode)
        except BaseException:
            self._leave(entered)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.graph.settle(self.graph.watched())
        finally:
            self._leave(list(self._modes))

    def _leave(self, entered: list[Any]) -> None:
        try:
            for mode in reversed(entered):
                mode.__exit__(None, None, None)
        finally:
            self.layers.stop()
            self.graph.pending.clear()
            self.workshop.kept.sweep()
            self._modes = ()
            _active.path = None

    def report(self) -> Any:
        """What it did so far: a `Report`."""
        return self.workshop.report()

    def state_dict(self) -> dict[str, Any]:
        """What goes on after a resume: the step, and running maxima."""
        return {"step": self.step, "peaks": [[*place, peak] for place, peak in self.workshop.peaks.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.step = state["step"]
        self.workshop.peaks.clear()
        self.workshop.peaks.update({tuple(place): float(peak) for *place, peak in state["peaks"]})


def current() -> Datapath | None:
    """That of the `with` block in which this thread is."""
    found: Datapath | None = getattr(_active, "path", None)
    return found


AUTOCAST = (
    "datapath(...) chooses the numbers of each product itself, and autocast would cast them to a half type before: "
    "leave torch.autocast out"
)

_COMPILING = (
    "torch.compile cannot trace a datapath, whose operations are looked at one by one: call the model that was not "
    "compiled, and do not compile what contains the with block"
)


def datapath(
    name: str | None = None,
    /,
    *,
    weights: Numbers | LNSFormat | str | None = None,
    activations: Numbers | LNSFormat | str | None = None,
    errors: Numbers | LNSFormat | str | None = None,
    gradients: Numbers | LNSFormat | str | None = None,
    accumulate: BitTrue | Literal["float32"] = "float32",
    elementwise: bool | None = None,
    layers: Mapping[str, Any] | None = None,
    seed: int = 0,
    statistics: int | None = 8,
) -> Datapath:
    """A context in which the products of a network, forward and backward, are made in LNS.

    Args:
        name: of a preset (`lnsnum.torch_bridge.datapath.presets`), of which the other arguments change something.
        weights: of parameters as they enter products, by default as they are: LNSWeights their codes, others floats.
        activations: of all other factors of the forward pass.
        errors: of autograd's gradients as they enter products of the backward pass.
        gradients: of products of the backward pass that belong to a weight or a bias, as they leave.
            Each a format or its name, `Numbers` for more, or None for float.
        accumulate: "float32": exact products of the LNS numbers in float32, added as torch does; an `Accumulator`; or
            `FixedPoint`.
        elementwise: whether sums, products, softmax, normalization, losses and their like are computed in the
            accumulator's format too, see docs/datapath.md; by default they are not.
        layers: by patterns of modules' names, as "encoder.*", a dict of what they do otherwise, or None for float. Of
            several the last that fits decides.
        seed: of random bits.
        statistics: how many tensors of each layer and kind `report` measures; None for all.

    Raises:
        TypeError, ValueError: for what cannot be read, or does not go together, such as formats of different bases with
            an accumulator.

    >>> from lnsnum.torch_bridge.datapath import Accumulator
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
    >>> with datapath(weights="lns8f3", activations="lns8f3", accumulate=Accumulator("lns16f10")) as path:
    ...     y = layer(torch.tensor([[3.0, 0.5]]))
    >>> y
    tensor([[4.0848]], grad_fn=<MmBackward0>)
    """
    own = {"weights": weights, "activations": activations, "errors": errors, "gradients": gradients}
    given: dict[str, Any] = {kind: numbers for kind, numbers in own.items() if numbers is not None or name is None}
    if accumulate != "float32" or name is None:
        given["accumulate"] = accumulate
    if elementwise is not None:
        given["elementwise"] = elementwise
    formats = Formats(**{**({} if name is None else preset(name)), **given})
    if statistics is not None and (isinstance(statistics, bool) or not isinstance(statistics, int) or statistics < 0):
        raise ValueError(f"statistics={statistics!r} is no number of tensors: an integer, 0 or more, or None")
    return Datapath(Settings(formats, read_layers(formats, layers), seed, statistics))
