"""Networks that integers compute: a twin in torch, in whose datapath every number is fixed before an input comes.

    x  ->  codes at a fixed scale  ->  sums in an accumulator  ->  codes at the next layer's scale  ->  ...

What a datapath leaves in float is gone from the twin. A batch normalization behind a layer becomes the log_offset of
each output channel, rounded to the weights' grid, and signs of codes; its mean is taken at that rounded factor, so that
what a channel gives on average is exact. Biases are codes of the accumulator's width. A mean over windows becomes a
convolution whose codes all are 1. The scale of activations is that of the greatest that examples have.
"""

from __future__ import annotations

import copy
import glob
import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lnsnum.format import MAX_LOG_OFFSET, LNSFormat
from lnsnum.torch_bridge.datapath import Accumulator, Datapath, FixedPoint, datapath
from lnsnum.torch_bridge.datapath.quantized import greatest, of_weight
from lnsnum.torch_bridge.datapath.setting import setting_of, use_datapath
from lnsnum.torch_bridge.datapath.settings import Formats, Settings, check_operand
from lnsnum.torch_bridge.datapath.swift import fit
from lnsnum.torch_bridge.datapath.texts import from_json, read_short
from lnsnum.torch_bridge.sequential import NetworkError, flat_modules, read_sequential
from lnsnum.torch_bridge.weight import LNSWeight

FINEST_MEAN = LNSFormat(8, 6)
"""Of the factor 1 / n of a mean, where the accumulator takes it: within 0.6 % of it, exact where n is a power of 2."""

WIDE_BIAS = LNSFormat(16, 10)
"""Of biases, where the accumulator has a fixed point."""


@dataclass(frozen=True)
class IntegerTwin:
    """A network and the datapath that computes it, of which each layer has a fixed scale.

    Attributes:
        model: Sequential, of the same names of layers.
        datapath: of its calls.
        shape: of one input.

    Call it for the outputs of a batch, those of which a program in integers gives the same bits.
    """

    model: nn.Sequential
    datapath: Datapath
    shape: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs of a batch (N, *shape), float32."""
        with self.datapath:
            return self.model(x)  # type: ignore[no-any-return]

    def formats(self, name: str) -> Formats:
        """What a layer with weights computes with."""
        found = self.datapath.settings.of_layer(name)
        assert found is not None
        return found


def integer_twin(
    model: nn.Module,
    shape: tuple[int, ...],
    setting: str | Datapath | None = None,
    examples: torch.Tensor | None = None,
) -> IntegerTwin:
    """The twin of a converted Sequential that integers can compute; the model stays as it is.

    Args:
        model: as `lnsnum.torch_bridge.sequential.read_sequential` takes it, without LeakyReLU, and with its batch
            normalizations and means where they can become weights.
        shape: of one input.
        setting: a datapath, or its short form, "activations=lns8f3,accumulate=lns12f7" or one with
            "accumulate=fixed:20"; None for the model's own (`use_datapath`).
        examples: (N, *shape), inputs: where activations have the rule "max", the greatest number that comes before a
            layer chooses its scale.

    Raises:
        NetworkError: for what cannot be computed so, by its name.
        TypeError, ValueError: for a setting that cannot be read, or examples of another shape.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).eval()
    >>> report = convert_model(model, "lns8f5")
    >>> twin = integer_twin(model, (4,), "activations=lns8f3,accumulate=fixed:20", torch.ones(2, 4))
    >>> twin.model[1], twin.formats("0").accumulate
    (Identity(), FixedPoint(bits=20))
    """
    settings = _settings(model, setting)
    if examples is not None and tuple(examples.shape[1:]) != tuple(shape):
        raise ValueError(
            f"examples of shape {tuple(examples.shape)} are no inputs of shape {tuple(shape)}: give a batch of them"
        )
    plain: Any = use_datapath(copy.deepcopy(model), None).cpu().float().eval()
    read_sequential(plain, shape)
    twin = _apart(plain)
    seen = _inputs_of(twin, torch.zeros(1, *shape))
    formats: dict[str, Formats] = {}
    product: str | None = None
    trailing: str | None = None
    for name, module in list(flat_modules(twin)):
        kind = type(module)
        if kind in (nn.AvgPool2d, nn.AdaptiveAvgPool2d):
            formats[name] = _of_layer(settings, name)
            _replace(twin, name, _mean(name, module, seen[name], formats[name].accumulate))
            product, trailing = name, None
        elif kind in (nn.BatchNorm1d, nn.BatchNorm2d):
            if product is None:
                raise NetworkError(
                    f"layer {name} ({kind.__name__}) follows no layer with weights that it could become part of: "
                    "integers cannot compute it by itself"
                )
            layer: Any = twin.get_submodule(product)
            if module.num_features != layer.weight.shape[0]:
                raise NetworkError(
                    f"layer {name} ({kind.__name__}) has {module.num_features} factors, and layer {product} before it "
                    f"{layer.weight.shape[0]} outputs: integers can take one for each: put it before the flattening"
                )
            _fold(layer, module)
            _replace(twin, name, nn.Identity())
        elif kind in (nn.Linear, nn.Conv2d):
            formats[name] = _of_layer(settings, name)
            _prepare(name, module, formats[name])
            product, trailing = name, None
        elif kind is nn.LeakyReLU:
            raise NetworkError(
                f"layer {name} (LeakyReLU) multiplies outside of a sum, which integers here do not: ReLU"
            )
        elif kind in (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.MaxPool2d):
            product, trailing = None, f"{name} ({kind.__name__})"
    if trailing is not None:
        raise NetworkError(
            f"layer {trailing} stands behind the last layer with weights, whose sums are the outputs: take it away"
        )
    for name, own in formats.items():
        _widen_bias(twin.get_submodule(name), own.accumulate)
    fixed = _fixed(twin, formats, examples)
    layers = tuple((glob.escape(name), own) for name, own in fixed.items())
    return IntegerTwin(twin, Datapath(replace(settings, layers=layers, statistics=0)), tuple(shape))


def _apart(model: nn.Sequential) -> nn.Sequential:
    """A copy in which a layer that is called twice is two."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in model._modules.items():
        parts[name] = _apart(part) if isinstance(part, nn.Sequential) else copy.deepcopy(part)
    return nn.Sequential(parts).eval()


def _settings(model: nn.Module, setting: str | Datapath | None) -> Settings:
    if isinstance(setting, Datapath):
        return setting.settings
    if setting is not None and not isinstance(setting, str):
        raise TypeError(
            f"setting={setting!r} is a {type(setting).__name__}: give a datapath, or its short form as text"
        )
    if setting is not None:
        return datapath(**read_short(setting)).settings
    text = setting_of(model)
    if text is None:
        raise NetworkError(
            "the network has no datapath: give one, such as 'activations=lns8f3,accumulate=lns12f6' or "
            "'activations=lns8f3,accumulate=fixed:20'"
        )
    return from_json(text)


def _of_layer(settings: Settings, name: str) -> Formats:
    """What a layer computes with, where integers can."""
    own = settings.of_layer(name)
    if own is None:
        raise NetworkError(f"layer {name} is in float by layers={{...: None}}: give it formats")
    accumulate, numbers = own.accumulate, own.activations
    if not isinstance(accumulate, (Accumulator, FixedPoint)):
        raise NetworkError(
            f"layer {name} has accumulate='float32', sums of floats: give an accumulator, such as accumulate=lns12f6 "
            "or accumulate=fixed:20"
        )
    assert numbers is not None, "an accumulator asks for them"
    if isinstance(accumulate, Accumulator):
        for what, given, needed in (
            ("order", accumulate.order, "sequential"),
            ("gaussian_log", type(accumulate.gaussian_log).__name__, "Exact"),
        ):
            if given != needed:
                raise NetworkError(f"layer {name} has {what} {given}: programs in integers are of {needed} alone")
        if accumulate.is_dynamic:
            raise NetworkError(
                f"layer {name} has a dynamic accumulator, whose range goes by the numbers of each product, which no "
                "program knows beforehand: take log_offset='fit', or an integer"
            )
    if numbers.fmt.bits > 8:
        raise NetworkError(
            f"layer {name} has activations of {numbers.fmt.name}: formats of at most 8 bits can be written"
        )
    if numbers.rounding != "nearest":
        raise NetworkError(f"layer {name} has activations rounded {numbers.rounding}: nearest can be written")
    if numbers.scale != "max" and not isinstance(numbers.scale, int):
        raise NetworkError(
            f"layer {name} has activations of the scale {numbers.scale!r}, which depends on the input: 'max', which is "
            "taken from examples once, or an integer"
        )
    return own


def _prepare(name: str, module: Any, formats: Formats) -> None:
    """Let the weight be of the format in which it enters products, and check that the accumulator takes it."""
    q = of_weight(module.weight, formats.weights)
    if q.fmt.bits > 8:
        raise NetworkError(f"layer {name} has weights of {q.fmt.name}: formats of at most 8 bits can be written")
    try:
        check_operand(q.fmt, "weights", formats.accumulate)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise NetworkError(f"layer {name}: {error}") from error
    scale: Any = q.scale.low if q.scale.offsets is None else q.scale.offsets
    module.weight = nn.Parameter(LNSWeight(q.codes.clone(), q.fmt, scale), False)
    if module.bias is not None:
        bias: Any = module.bias
        module.bias = nn.Parameter(bias.to_float(torch.float32) if isinstance(bias, LNSWeight) else bias.float(), False)


def _fold(layer: Any, norm: Any) -> None:
    """A batch normalization into the layer before it: y = s (w x + b - mean) + beta, s on the weights' grid."""
    weight: LNSWeight = layer.weight
    outputs = weight.shape[0]
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    exact = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        exact = exact * _plain(norm.weight)
    steps = 1 << weight.fmt.fraction_bits
    # a factor of 0 leaves codes of 0, whatever its logarithm
    sizes = exact.abs().where(exact != 0, torch.ones_like(exact))
    added = torch.round(torch.log2(sizes) * steps / math.log2(weight.fmt.base)).to(torch.int64)
    column = (outputs, *([1] * (weight.ndim - 1)))
    offsets: Any = weight.log_offset
    if isinstance(offsets, torch.Tensor):
        offsets = offsets.to(torch.int64)
    offsets = torch.clamp(offsets + added.reshape(column), -MAX_LOG_OFFSET, MAX_LOG_OFFSET)
    codes = weight.codes
    flipped = torch.where(codes == 0, codes, codes ^ weight.fmt.sign_bit)
    sign = exact.sign().reshape(column)
    codes = torch.where(sign < 0, flipped, torch.where(sign == 0, torch.zeros_like(codes), codes))
    factor = exact.sign() * torch.exp2(added * math.log2(weight.fmt.base) / steps)
    bias = torch.zeros(outputs, dtype=torch.float64) if layer.bias is None else layer.bias.double()
    shift = factor * (bias - mean)
    if norm.bias is not None:
        shift = shift + _plain(norm.bias)
    layer.weight = nn.Parameter(LNSWeight(codes.contiguous(), weight.fmt, offsets.to(torch.int32)), False)
    layer.bias = nn.Parameter(shift.float(), False)


def _plain(x: torch.Tensor) -> torch.Tensor:
    return x.to_float(torch.float64) if isinstance(x, LNSWeight) else x.double()


def _mean(name: str, module: Any, shape: tuple[int, ...], accumulate: Any) -> nn.Conv2d:
    """A pooling by means as a convolution of each channel by itself."""
    channels = shape[0]
    if isinstance(module, nn.AdaptiveAvgPool2d):
        size, stride, padding = (shape[1], shape[2]), (1, 1), (0, 0)
    else:
        size, stride, padding = (_pair(one) for one in (module.kernel_size, module.stride, module.padding))
        if any(padding) and not module.count_include_pad:
            raise NetworkError(
                f"layer {name} (AvgPool2d) divides by fewer at the border, which no weight does: count_include_pad=True"
            )
    conv = nn.Conv2d(channels, channels, size, stride, padding, groups=channels, bias=False)
    fmt = FINEST_MEAN
    if isinstance(accumulate, Accumulator):
        bits = min(fmt.bits, accumulate.fmt.bits)
        fmt = LNSFormat(bits, min(fmt.fraction_bits, bits - 2, accumulate.fmt.fraction_bits))
    offset = round(-math.log2(math.prod(size)) * (1 << fmt.fraction_bits))
    codes = torch.full(conv.weight.shape, fmt.bias, dtype=torch.uint8)
    conv.weight = nn.Parameter(LNSWeight(codes, fmt, offset), False)
    return conv


def _pair(value: Any) -> tuple[int, int]:
    # torch takes a list too, and one number for both in either
    return (int(value[0]), int(value[-1])) if isinstance(value, (tuple, list)) else (int(value), int(value))


def _widen_bias(layer: Any, accumulate: Any) -> None:
    """A bias as codes that lose nothing that the accumulator keeps."""
    if layer.bias is None:
        return
    fmt = accumulate.fmt if isinstance(accumulate, Accumulator) else WIDE_BIAS
    bias = layer.bias.detach()
    offset = fit(greatest(bias), fmt, "nearest")
    layer.bias = nn.Parameter(LNSWeight.from_float(bias, fmt, log_offset=offset), False)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    model.get_submodule(parent)._modules[own] = module


def _inputs_of(model: nn.Module, x: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of what comes into each layer, without the dimension of examples."""
    with _watched(model, lambda given: tuple(given.shape[1:])) as seen, torch.no_grad():
        model(x)
    return seen


@contextmanager
def _watched(model: nn.Module, look: Any) -> Iterator[dict[str, Any]]:
    """What `look` says of each module's input, while the block runs."""
    seen: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def see(module: nn.Module, given: Any) -> None:
            seen[name] = look(given[0])

        return see

    handles = [part.register_forward_pre_hook(hook(name)) for name, part in model.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _fixed(model: nn.Module, formats: dict[str, Formats], examples: torch.Tensor | None) -> dict[str, Formats]:
    """The formats with activations of fixed scales."""
    chosen = [name for name, own in formats.items() if own.activations is not None and own.activations.scale == "max"]
    peaks: dict[str, float] = {}
    if chosen:
        if examples is None or not len(examples):
            raise NetworkError(
                f"layer {chosen[0]} has activations of the scale 'max', which is chosen by examples: give some, or "
                "Numbers(FORMAT, scale=LOG_OFFSET)"
            )
        with _watched(model, greatest) as peaks, torch.no_grad():
            model(examples.detach().to("cpu", torch.float32))
    fixed = {}
    for name, own in formats.items():
        numbers = own.activations
        assert numbers is not None
        if name in chosen:
            numbers = replace(numbers, scale=fit(peaks[name], numbers.fmt, "nearest"))
        fixed[name] = replace(own, weights=None, activations=numbers, errors=None, gradients=None)
    return fixed
