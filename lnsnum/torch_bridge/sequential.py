"""Sequential networks as plain numbers: layers whose weights are codes, for programs that run without torch.

    y[i]  =  scale[i] * sum_k value(code[i, k]) x[k] + shift[i]

value(code) is that of the format at log_offset 0. The scale of a tensor or a channel is a factor of the sum, and so is
a batch normalization that follows, with its running statistics: both are folded into `scale` and `shift`, and no code
changes. Layers that do nothing in evaluation (dropout, flattening) are gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lnsnum.decoding import decode, decode_table
from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.datapath.setting import setting_of
from lnsnum.torch_bridge.weight import LNSWeight

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """What a convolution or a pooling moves over an image, each field of (vertical, horizontal)."""

    image: tuple[int, int]
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    places: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Product:
    """A linear layer, or a convolution (`window`).

    Attributes:
        name: of the module.
        codes: uint8, (outputs, inputs / groups, ...).
        log_offsets: of the codes, int64, (outputs,); a batch normalization behind is not in them.
        scale, shift: float32, (outputs,).
        inputs: elements, or channels, that come in.
    """

    name: str
    fmt: LNSFormat
    codes: NDArray[np.uint8]
    log_offsets: NDArray[np.int64]
    scale: Floats
    shift: Floats
    inputs: int
    groups: int = 1
    window: Window | None = None


@dataclass(frozen=True)
class Pool:
    """The greatest, or the mean, of each window of each channel."""

    kind: Literal["max", "mean"]
    channels: int
    window: Window
    count_padding: bool = True
    """Whether a mean is that of zeros beyond the image too."""


@dataclass(frozen=True)
class Affine:
    """x = scale x + shift, by channels of `size` elements, in place."""

    scale: Floats
    shift: Floats
    size: int


@dataclass(frozen=True)
class Activation:
    """Elementwise, in place: x below zero becomes slope * x; or x is clipped to (low, high)."""

    slope: float = 0.0
    clip: tuple[float, float] | None = None


Layer = Product | Pool | Affine | Activation


@dataclass(frozen=True)
class Network:
    """Layers one after another.

    Attributes:
        shape: of what comes in, without the dimension of examples.
        layers: in their order.
        sizes: how many elements come out of each.
    """

    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    sizes: tuple[int, ...]

    @property
    def products(self) -> list[Product]:
        """The layers that have weights."""
        return [layer for layer in self.layers if isinstance(layer, Product)]


class NetworkError(ValueError):
    """A network that cannot be had as such layers; the message says why."""


def read_sequential(model: nn.Module, shape: tuple[int, ...]) -> Network:
    """The layers of a converted `torch.nn.Sequential`, as evaluation runs them.

    Args:
        model: Sequential, of Linear, Conv2d, BatchNorm1d, BatchNorm2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d to one
            pixel, ReLU, LeakyReLU, ReLU6, Hardtanh, Flatten, Dropout, Identity, and Sequential of these; its weights
            of at most 8 bits, with one log_offset or one for each output.
        shape: of one input: (features,) or (channels, height, width).

    Raises:
        NetworkError: for any other layer or weight, by its name.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
    >>> report = convert_model(model, "lns8f5")
    >>> [type(layer).__name__ for layer in read_sequential(model, (4,)).layers]
    ['Product', 'Activation']
    """
    if type(model) is not nn.Sequential:
        raise NetworkError(f"the network is a {type(model).__name__}: only a torch.nn.Sequential can be written so")
    if setting_of(model) is not None:
        raise NetworkError(
            "the network has a datapath, which sums of floats would not be: lnsnum.torch_bridge.integer_twin computes "
            "it, and use_datapath(model, None) takes it away"
        )
    _check_hooks("", model)
    layers: list[Layer] = []
    sizes: list[int] = []
    here = tuple(shape)
    for name, module in flat_modules(model):
        _check_hooks(name, module)
        layer, there = _layer(name, module, here)
        here = there
        if layer is None:
            continue
        # behind a flattening it may have a factor for each pixel of a channel, which a convolution has not
        if (
            isinstance(layer, Affine)
            and layers
            and isinstance(before := layers[-1], Product)
            and layer.scale.size == before.scale.size
        ):
            layers[-1] = replace(
                before,
                scale=_finite(name, layer.scale.astype(np.float64) * before.scale),
                shift=_finite(name, layer.scale.astype(np.float64) * before.shift + layer.shift),
            )
            continue
        layers.append(layer)
        sizes.append(math.prod(here))
    if not any(isinstance(layer, Product) for layer in layers):
        raise NetworkError("the network has no layer with weights: there is nothing to write")
    return Network(tuple(shape), tuple(layers), tuple(sizes))


def flat_modules(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of a Sequential and those within it, by name, as often as they are called."""
    # named_children leaves out a module that stands there again
    for name, module in model._modules.items():
        if type(module) is nn.Sequential:
            _check_hooks(prefix + name, module)
            yield from flat_modules(module, f"{prefix}{name}.")
        else:
            yield prefix + name, module


def _check_hooks(name: str, module: nn.Module) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        what = f"layer {name}" if name else "the network"
        raise NetworkError(f"{what} ({type(module).__name__}) has forward hooks, which would be lost: remove them")


def _layer(name: str, module: Any, shape: tuple[int, ...]) -> tuple[Layer | None, tuple[int, ...]]:
    """What a module is to an input of that shape, and the shape that it gives; None where it does nothing."""
    kind = type(module)
    if kind in _NOTHING:
        return None, shape
    if kind is nn.Flatten:
        if (module.start_dim, module.end_dim) not in ((1, -1), (1, len(shape))):
            raise _not_written(name, module, "it flattens some dimensions only")
        return None, (math.prod(shape),)
    if kind is nn.Linear:
        if len(shape) != 1 or shape[0] != module.in_features:
            raise _not_written(
                name, module, f"it is given {_shown(shape)} and takes {module.in_features}: flatten first"
            )
        return _product(name, module, module.in_features), (module.out_features,)
    if kind in _NORMS:
        return _norm(name, module, shape), shape
    if kind in (nn.ReLU, nn.LeakyReLU):
        return Activation(slope=float(getattr(module, "negative_slope", 0.0))), shape
    if kind in (nn.ReLU6, nn.Hardtanh):
        if not math.isfinite(module.min_val) or not math.isfinite(module.max_val):
            raise _not_written(name, module, "its bounds are not finite")
        return Activation(clip=(float(module.min_val), float(module.max_val))), shape
    if kind not in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d):
        raise NetworkError(f"layer {name} is a {kind.__name__}, which cannot be written: {_KNOWN} can")
    if len(shape) != 3:
        raise _not_written(name, module, f"it is given {_shown(shape)} and takes channels x height x width")
    return _over_images(name, module, shape)


def _over_images(name: str, module: Any, shape: tuple[int, ...]) -> tuple[Layer, tuple[int, ...]]:
    """A convolution or a pooling."""
    channels, image = shape[0], (shape[1], shape[2])
    if isinstance(module, nn.Conv2d):
        if module.in_channels != channels:
            raise _not_written(name, module, f"it is given {channels} channels and takes {module.in_channels}")
        if module.padding_mode != "zeros":
            raise _not_written(name, module, f"its padding_mode is {module.padding_mode!r}, not 'zeros'")
        # what torch pads: of "same" the odd one comes last, so the first two of four are what a window needs
        left, _, above, _ = module._reversed_padding_repeated_twice
        around = module._reversed_padding_repeated_twice
        grown = image[0] + around[2] + around[3], image[1] + around[0] + around[1]
        window = _window(
            name, module, image, _pair(module.kernel_size), _pair(module.stride), (above, left), _pair(module.dilation),
            grown,
        )  # fmt: skip
        return _product(name, module, channels, module.groups, window), (module.out_channels, *window.places)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        if module.output_size not in (1, (1, 1), [1, 1]):
            raise _not_written(name, module, "it gives more than one pixel")
        return Pool("mean", channels, Window(image, image)), (channels, 1, 1)
    if module.ceil_mode:
        raise _not_written(name, module, "its ceil_mode is not written")
    padding = _pair(module.padding)
    grown = image[0] + 2 * padding[0], image[1] + 2 * padding[1]
    shape_of_it = name, module, image, _pair(module.kernel_size), _pair(module.stride), padding
    if isinstance(module, nn.MaxPool2d):
        if module.return_indices:
            raise _not_written(name, module, "it returns indices")
        window = _window(*shape_of_it, _pair(module.dilation), grown)
        _check_pixels(name, module, window)
        return Pool("max", channels, window), (channels, *window.places)
    if module.divisor_override is not None:
        raise _not_written(name, module, "it has a divisor_override")
    window = _window(*shape_of_it, (1, 1), grown)
    _check_pixels(name, module, window)
    return Pool("mean", channels, window, bool(module.count_include_pad)), (channels, *window.places)


def _window(
    name: str,
    module: nn.Module,
    image: tuple[int, int],
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    grown: tuple[int, int],
) -> Window:
    """With its places on an image that has grown by the padding."""
    places = tuple((g - d * (s - 1) - 1) // t + 1 for g, d, s, t in zip(grown, dilation, size, stride, strict=True))
    if min(places) < 1:
        raise _not_written(name, module, f"its window is larger than the image of {_shown(image)}")
    return Window(image, size, stride, padding, dilation, (places[0], places[1]))


def _check_pixels(name: str, module: nn.Module, window: Window) -> None:
    """Whether a pooling has something to choose from wherever its window lies: of nothing torch's greatest is -inf."""
    axes = zip(*(getattr(window, f) for f in ("image", "size", "stride", "padding", "dilation", "places")), strict=True)
    for image, size, stride, padding, dilation, places in axes:
        if 2 * padding > dilation * (size - 1) + 1:
            raise _not_written(name, module, "its padding is more than half of its window, which torch cannot run")
        for begin in range(-padding, places * stride - padding, stride):
            if not any(0 <= begin + dilation * s < image for s in range(size)):
                raise _not_written(
                    name, module, f"its window has no pixel of the image of {_shown(window.image)} in some place"
                )


def _product(name: str, module: Any, inputs: int, groups: int = 1, window: Window | None = None) -> Product:
    """A layer with weights: codes, the factor that their scales are, and the bias as it is, a float."""
    weight = module.weight
    if not isinstance(weight, LNSWeight):
        raise NetworkError(f"layer {name}: its weight is of floats: convert_model it, or leave the layer out")
    fmt = weight.fmt
    if fmt.bits > 8:
        raise NetworkError(f"layer {name}: its weight is of {fmt.name}: formats of at most 8 bits can be written")
    values = decode_table(fmt, 0, "float32").view(np.float32)
    magnitudes = values[1 : fmt.sign_bit]
    if not np.isfinite(magnitudes).all() or magnitudes.min() < np.finfo(np.float32).tiny:
        raise NetworkError(f"layer {name}: its weight is of {fmt.name}, whose range is wider than that of float32")
    if weight.group_size is not None:
        raise NetworkError(
            f"layer {name}: its weight has a log_offset for each group of {weight.group_size} elements: convert the "
            "model with one for each weight, or with per_channel=True"
        )
    lns = weight.to_lns()
    if bool(np.any(lns.codes == fmt.nan_code)):
        raise NetworkError(f"layer {name}: its weight has NaN")
    outputs = lns.codes.shape[0]
    offsets = np.asarray(lns.log_offset, np.int64)
    if offsets.size not in (1, offsets.shape[0] if offsets.ndim else 1):
        raise NetworkError(f"layer {name}: its weight has more log_offsets than one for each output")
    offsets = np.broadcast_to(offsets.reshape(-1), (outputs,))
    ones = np.full(outputs, fmt.bias, fmt.dtype)
    scale = decode(ones, fmt, "float64", log_offset=offsets.astype(np.int32))
    bias = np.zeros(outputs) if module.bias is None else module.bias.detach().double().cpu().numpy()
    return Product(name, fmt, lns.codes, offsets, _finite(name, scale), _finite(name, bias), inputs, groups, window)


def _norm(name: str, module: Any, shape: tuple[int, ...]) -> Affine:
    """Batch normalization by its running statistics."""
    if len(shape) != (3 if type(module) is nn.BatchNorm2d else 1) or shape[0] != module.num_features:
        raise _not_written(name, module, f"it is given {_shown(shape)} and takes {module.num_features} channels")
    if module.running_mean is None:
        raise _not_written(name, module, "it has no running statistics")
    mean, variance = (t.detach().double().cpu().numpy() for t in (module.running_mean, module.running_var))
    scale = 1.0 / np.sqrt(variance + module.eps)
    if module.weight is not None:
        scale = scale * module.weight.detach().double().cpu().numpy()
    bias = 0.0 if module.bias is None else module.bias.detach().double().cpu().numpy()
    return Affine(_finite(name, scale), _finite(name, bias - mean * scale), math.prod(shape[1:]))


def _finite(name: str, values: Any) -> Floats:
    """As float32, where these are numbers of it."""
    floats = np.asarray(values).astype(np.float32)
    if not np.isfinite(floats).all():
        raise NetworkError(f"layer {name}: its numbers are NaN, infinite or too large for float32")
    return floats


def _pair(value: Any) -> tuple[int, int]:
    # torch takes a list too, and one number for both in either
    return (int(value[0]), int(value[-1])) if isinstance(value, (tuple, list)) else (int(value), int(value))


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _not_written(name: str, module: nn.Module, why: str) -> NetworkError:
    return NetworkError(f"layer {name} ({type(module).__name__}) cannot be written: {why}")


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_NOTHING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
_KNOWN = (
    "Linear, Conv2d, BatchNorm1d, BatchNorm2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, ReLU, LeakyReLU, ReLU6, "
    "Hardtanh, Flatten, Dropout and Identity"
)
