"""Models for torch's exporters: weights become plain tensors of codes, decoded by operations that every graph has.

    w  =  table[code]                               one log_offset: 256 floats, or 65,536 for 16 bits
    w  =  table[m + start of the channel + ...]     one for each channel: the floats of all E that there are

An exporter writes down tensors and operations. It cannot keep a class of ours, and what it is handed while it traces
(a table, say) it loses or copies. So codes and tables are buffers here, and what decodes is a look-up: in ONNX, Cast
and Gather. The floats are those of `lnsnum.decode`, so that logits are those of the converted model, bit for bit, for
as long as somebody computes in its order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

from lnsnum.decoding import decode_table
from lnsnum.torch_bridge.kernels.codes import memory_order
from lnsnum.torch_bridge.kernels.codes_twin import (
    FLOAT_NAMES,
    channel_places,
    channel_starts,
    signed_patterns,
    table_range,
)
from lnsnum.torch_bridge.placing import unsettle
from lnsnum.torch_bridge.surroundings import check_module, spread_over_processes
from lnsnum.torch_bridge.weight import LNSWeight


def for_export(model: nn.Module) -> nn.Module:
    """A copy of a converted model, for `torch.export`, AOTInductor, ONNX and other exporters, and for torch.jit.trace.

    A weight w of a module becomes the buffers `parametrizations.w.original`, its codes, and
    `parametrizations.w.0.table`, the floats that they stand for: a byte a weight (two beyond 8 bits) and 1 kB a tensor
    (256 kB). Where the floats themselves take no more than that, as those of a bias, they become a plain parameter.
    Codes of several dimensions lie in the order that they have in memory, as of channels_last, and tied weights stay
    tied. The copy is not to be trained: nothing in it requires a gradient. It computes what the decoded model computes
    without gradients (by which torch chooses how it multiplies), bit for bit; so does the model itself, but for layers
    that torch runs otherwise for plain tensors, as attention, and products that `use_weight_only` makes of codes.

    Args:
        model: a module with LNS weights; it stays as it is.

    Returns:
        The copy, in the mode (train or eval) of the model.

    Raises:
        TypeError: where model is no module, or one that is spread over processes.
        ValueError: where it has no LNS weights, or they are on the meta device.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = nn.Sequential(nn.Linear(64, 32))
    >>> report = convert_model(model, "lns8f5")
    >>> x = torch.ones(1, 64)
    >>> program = torch.export.export(for_export(model), (x,)).run_decompositions()
    >>> [(name, tuple(t.shape), t.dtype) for name, t in sorted(program.state_dict.items())]
    [('0.bias', (32,), torch.float32),
     ('0.parametrizations.weight.0.table', (256,), torch.float32),
     ('0.parametrizations.weight.original', (32, 64), torch.uint8)]
    >>> bool((program.module()(x) == model(x)).all())
    True
    """
    check_module(model)
    spread = spread_over_processes(model)
    if spread is not None:
        raise TypeError(f"the model is a {spread}, spread over processes: export the module within it")
    weights = {name: weight for _, name, weight in _weights(model)}
    if not weights:
        raise ValueError(
            f"the model ({type(model).__name__}) has no LNS weights: export it as it is, or convert_model it first"
        )
    for name, weight in weights.items():
        if weight.is_meta:
            raise ValueError(f"parameter {name!r} is on the meta device: it has no codes to export")
    exported = copy.deepcopy(model)
    # tied weights are one object in the copy too, and share what is made of it
    tensors: dict[int, torch.Tensor] = {}
    lookups: dict[int, _LookUp | None] = {}
    for module, name, weight in list(_weights(exported)):
        if id(weight) not in tensors:
            lookup = lookups[id(weight)] = _look_up_of(weight)
            tensors[id(weight)] = (
                nn.Parameter(weight.to_float().detach(), requires_grad=False)
                if lookup is None
                else weight.codes.detach().permute(memory_order(weight.codes)).contiguous()
            )
        _put(module, name.rpartition(".")[2], tensors[id(weight)], lookups[id(weight)])
    return exported.requires_grad_(False)


def _weights(model: nn.Module) -> Iterator[tuple[nn.Module, str, LNSWeight]]:
    """Each LNS weight: the module that has it, its whole name, and itself. Tied ones, as often as they stand."""
    for prefix, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if isinstance(tensor, LNSWeight):
                yield module, f"{prefix}.{name}" if prefix else name, tensor


class _LookUp(nn.Module):
    """The floats of codes by a table of all codes, or of all E behind each other."""

    table: torch.Tensor
    starts: torch.Tensor | None

    def __init__(self, weight: LNSWeight) -> None:
        super().__init__()
        self.fmt, offsets, name = weight.fmt, weight.scale.offsets, FLOAT_NAMES[weight.dtype]
        self.count = 0
        order = memory_order(weight.codes)
        self.back = None if order == list(range(weight.ndim)) else [order.index(dim) for dim in range(weight.ndim)]
        if offsets is None or offsets.numel() == 1:
            log_offset = weight.scale.low if offsets is None else int(offsets)
            patterns, starts = decode_table(weight.fmt, log_offset, name), None
        else:
            # of the scales that there are: one for graphs of torch.compile has room for more
            low, high = (int(bound) for bound in offsets.aminmax())
            first, last = table_range(weight.fmt, low, high, name)
            self.count = last - first + 1
            (patterns,), starts = (
                signed_patterns(weight.fmt, first, last, name),
                channel_starts(offsets, weight.fmt, first, self.count),
            )
        # a copy, for the original is kept for others
        table = torch.from_numpy(patterns.view(f"i{patterns.itemsize}").copy()).view(weight.dtype)
        self.register_buffer("table", table.to(weight.device))
        self.register_buffer("starts", None if starts is None else starts.permute(order))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes in the order of memory, to floats."""
        code = codes.to(torch.int32)
        if codes.dtype != torch.uint8:  # int16 has the sign's bit of 16-bit codes as its own
            code = code & ((1 << self.fmt.bits) - 1)
        if self.starts is not None:
            code = channel_places(code, self.fmt, self.starts, self.count)
        # as an embedding, which is ONNX's Gather; what is indexed becomes a dozen operations there
        floats = nn.functional.embedding(code, self.table[:, None]).squeeze(-1)
        return floats if self.back is None else floats.permute(self.back)

    def nbytes(self) -> int:
        """Of the buffers."""
        return sum(buffer.nbytes for buffer in self.buffers())


def _look_up_of(weight: LNSWeight) -> _LookUp | None:
    """What decodes a weight; None where its floats take no more than codes and tables, and of groups, which leave as
    floats: no table is there for each of their scales."""
    if weight.group_size is not None:
        return None
    lookup = _LookUp(weight)
    floats = weight.numel() * weight.dtype.itemsize
    return lookup if weight.codes.numel() * weight.codes.itemsize + lookup.nbytes() < floats else None


def _put(module: nn.Module, name: str, tensor: torch.Tensor, lookup: _LookUp | None) -> None:
    """Floats as the parameter itself, or codes as a buffer that the module decodes at each use."""
    unsettle(module)
    if lookup is None:
        setattr(module, name, tensor)
        return
    delattr(module, name)
    module.register_buffer(name, tensor)
    # unsafe: integers become floats, which is the purpose
    parametrize.register_parametrization(module, name, lookup, unsafe=True)
