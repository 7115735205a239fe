"""What is no product, in LNS: the table of aten's operations that `elementwise=True` makes in the accumulator's format.

    read the operands (`operands`)  ->  a composition of the unit's operations (`unit`)  ->  floats that tell the codes

`pointwise`, `activations`, `totals`, `softmax`, `normalization`, `losses` and `pooling` have the compositions. In the
backward pass an operation belongs to the layer whose node runs, or ran last where autograd adds two errors. What
arrives at a weight is rounded by Q_G. What is not in the table stays in float, and the report lists it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from lnsnum.torch_bridge.datapath import pointwise
from lnsnum.torch_bridge.datapath.graph import Record, in_backward, is_weight, record_of, running_node
from lnsnum.torch_bridge.datapath.layout import as_torch_would
from lnsnum.torch_bridge.datapath.losses import LOSSES
from lnsnum.torch_bridge.datapath.normalization import NORMALIZATION
from lnsnum.torch_bridge.datapath.operands import Bench
from lnsnum.torch_bridge.datapath.pointwise import OTHERS, POINTWISE, Pointwise
from lnsnum.torch_bridge.datapath.pooling import POOLING
from lnsnum.torch_bridge.datapath.settings import Accumulator
from lnsnum.torch_bridge.datapath.softmax import SOFTMAX
from lnsnum.torch_bridge.datapath.totals import TOTALS
from lnsnum.torch_bridge.datapath.workshop import Workshop

WHOLE: dict[Any, Callable[..., Any]] = {**TOTALS, **SOFTMAX, **NORMALIZATION, **LOSSES, **POOLING, **OTHERS}
"""Operations on whole tensors."""


def _in_place(func: Any) -> Any:
    """The same operation, which writes its result over its first operand; None where there is none."""
    packet = getattr(torch.ops.aten, func._schema.name.split("::")[-1] + "_", None)
    return getattr(packet, {"Tensor_Scalar": "Scalar"}.get(func._overloadname, func._overloadname), None)


IN_PLACE: dict[Any, Any] = {other: func for func in POINTWISE if (other := _in_place(func)) is not None}
"""By operation the one whose result it writes over its first operand."""


NAMES: dict[Any, str] = {func: str(func._schema.name).split("::")[-1] for func in (*POINTWISE, *WHOLE)}


def made(shop: Workshop, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation gives in LNS; NotImplemented where the layer is in float, or the table has it not."""
    own = IN_PLACE.get(func, func)
    if own not in NAMES:
        return NotImplemented
    # what updates a weight is no part of the network: its rounding is the optimizer's
    if shop.layers.updating or (own is not func and is_weight(args[0])):
        return NotImplemented
    again = not in_backward() or torch.is_grad_enabled() or bool(shop.layers.stack)
    at = _record(shop, NAMES[own], again)
    formats = at.formats
    if formats is None or not formats.elementwise or not isinstance(formats.accumulate, Accumulator):
        return NotImplemented
    bench = Bench(shop, at, formats.accumulate)
    how = POINTWISE.get(own)
    out = WHOLE[own](bench, *args, **kwargs) if how is None else pointwise.compute(how, bench, own, args, kwargs)
    if out is NotImplemented:
        return NotImplemented
    if own is not func:
        if not args[0].is_floating_point():
            raise RuntimeError(
                f"{at.name} gives {out.dtype}, which is not written into {args[0].dtype}: leave out the _"
            )
        if out.shape != args[0].shape:
            raise RuntimeError(
                f"{at.name} gives the shape {tuple(out.shape)}, which is not written into {tuple(args[0].shape)}: "
                "leave out the _"
            )
        out = args[0].copy_(out)
    else:
        out = as_torch_would(out, func, args, kwargs)
    if again and torch.is_grad_enabled():
        _keep(shop, out[0] if isinstance(out, tuple) else out, at, args, how)
    return out


def _record(shop: Workshop, name: str, again: bool) -> Record:
    """Of an operation: its layer, that of a node in the backward pass."""
    if again:
        layer = shop.layers.current
    else:
        node = running_node()
        found = (None if node is None else record_of(node)) or shop.graph.last
        layer = "" if found is None else found.layer
    return Record(layer, shop.formats(layer), name)


def _keep(shop: Workshop, out: torch.Tensor, at: Record, args: tuple[Any, ...], how: Pointwise | None) -> None:
    """Record an operation of the forward pass, so that it is differentiated within, and its weights are rounded."""
    operands = args[: how.operands] if how is not None else [x for x in args if x is None or torch.is_tensor(x)]
    weights = {i for i, x in enumerate(operands) if isinstance(x, torch.Tensor) and is_weight(x)}
    if weights and at.formats is not None and at.formats.gradients is not None:

        def leave(gradients: tuple[torch.Tensor | None, ...], errors: Any) -> Any:
            # a hook runs within the dispatch mode, unlike a handler
            with _disable_current_modes():
                return tuple(
                    g if g is None or i not in weights else shop.gradient(g, at) for i, g in enumerate(gradients)
                )

        at.leave = leave
    shop.graph.record(out, at)
