"""Second moments of what the layers of a model are given: how much each error of a weight counts in their outputs.

    y = x W^T        |x D^T|^2 summed over all inputs  =  sum over rows d of D of d H d^T,      H = X^T X  (K, K)
    lookups          the sum over rows i of counts[i] |d_i|^2

A linear layer has one H, a convolution one for each of its groups, of patches of its inputs (im2col); an embedding has
how often each row was looked up. The model is run on some batches, and each input is added up as it comes, in float64.
What a weight is used for is seen in torch's operations, not in modules: so fused attention, tied weights and functional
calls are seen as well.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

MOST_BYTES = 1 << 30
"""Of the moments that are held at once: where those of a model take more, it is run several times."""

# Elements of inputs, or of patches, that are made float64 at once.
_BLOCK = 1 << 22


class Use(NamedTuple):
    """Which dimensions of a parameter are outputs and which inputs of a product."""

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """All of them, outputs first."""
        return self.outputs + self.inputs

    def rows(self, w: torch.Tensor, groups: int) -> torch.Tensor:
        """The parameter as (groups, outputs of one, inputs)."""
        length = math.prod(w.shape[d] for d in self.inputs)
        return w.permute(self.order).reshape(groups, -1, length)

    def put_back(self, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The inverse of `rows`."""
        return in_place_of(rows.reshape([shape[d] for d in self.order]), self.order)


def in_place_of(x: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """The inverse of x.permute(order)."""
    return x.permute([order.index(d) for d in range(len(order))])


class SecondMoments:
    """Of the inputs that one parameter was used with.

    Attributes:
        products: H of each use in products, (groups, K, K), float64.
        counts: how often each row was looked up, float64; None where none was.
    """

    def __init__(self) -> None:
        self.products: dict[Use, torch.Tensor] = {}
        self.counts: torch.Tensor | None = None

    def square(self, d: torch.Tensor) -> float:
        """What errors d, in the parameter's shape and float64, do to the squared error of all outputs."""
        total = 0.0
        for use, h in self.products.items():
            rows = use.rows(d, len(h))
            total += float(((rows @ h) * rows).sum())
        if self.counts is not None:
            total += float(self.counts @ d.square().flatten(1).sum(1))
        return total

    def main(self) -> tuple[Use, torch.Tensor] | None:
        """The use and the H by which scales and codes are chosen; None where there are lookups alone, so that an
        element's error is its own.
        """
        if not self.products:
            return None
        use, h = next(iter(self.products.items()))
        if self.counts is not None:
            # of a tied embedding: rows that are looked up count by themselves too
            h = h + self.counts.mean() * torch.eye(h.shape[1], dtype=h.dtype, device=h.device)
        return use, h

    def is_finite(self) -> bool:
        """Whether no input was NaN or infinite, nor its square."""
        return all(bool(torch.isfinite(h).all()) for h in self.products.values())


def collect(
    model: nn.Module, wanted: Mapping[str, nn.Parameter], batches: Iterable[Any]
) -> Iterator[dict[str, SecondMoments]]:
    """The moments of parameters by name, some at a time, for each of which the model is run over all batches; those
    that no product or lookup used whole are in none.

    The model runs as it is, in evaluation mode and without gradients, and is left in the modes that it was in. A batch
    is its argument, a tuple or list its arguments, a mapping its keyword arguments. Batches that are an iterator, which
    ends, are run over once, whatever the moments take.

    Raises:
        TypeError: where batches cannot be iterated or are a single one, or one is not what the model is called with.
        ValueError: where there is no batch, or an input of a product is not finite.
    """
    if not isinstance(batches, Iterable):
        raise TypeError(f"calibrate={type(batches).__name__} has no batches: give a list or a DataLoader of inputs")
    # these are iterable too, over rows, names and characters
    if isinstance(batches, (torch.Tensor, Mapping, str, bytes)):
        raise TypeError(f"calibrate={type(batches).__name__} is one batch, or none: give a list of batches, [inputs]")
    room = None if isinstance(batches, Iterator) else MOST_BYTES
    left = {name: parameter for name, parameter in wanted.items() if parameter.numel()}
    while left:
        watch = _Watch(left, room)
        count = 0
        with _as_evaluated(model), torch.no_grad(), watch:
            for batch in batches:
                _run(model, batch)
                count += 1
        if not count:
            raise ValueError("calibrate has no batches: give some inputs of the model")
        for name, moments in watch.moments.items():
            if not moments.is_finite():
                raise ValueError(f"calibrate: an input of the product with {name!r} is NaN, infinite or too large")
        yield watch.moments
        left = {name: left[name] for name in watch.put_off}


def _run(model: nn.Module, batch: Any) -> None:
    given: tuple[Any, ...] = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    named: Mapping[str, Any] = {}
    if isinstance(batch, Mapping):
        given, named = (), batch
    try:
        inspect.signature(model.forward).bind(*given, **named)
    except ValueError:  # of what has no signature, the model itself will say so
        pass
    except TypeError as error:
        what = f"{sorted(named)}" if named else f"{len(given)} arguments"
        raise TypeError(
            f"calibrate: a batch is what the model is called with, and {type(model).__name__} does not take {what} "
            f"({error}): give its inputs alone, as [x for x, _ in loader]"
        ) from error
    model(*given, **named)


@contextmanager
def _as_evaluated(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and without fused layers, whose products cannot be seen."""
    modes = [(module, module.training) for module in model.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes:
            module.training = mode


class _Watch(TorchDispatchMode):
    """Adds up the inputs of products with the parameters, as they are made."""

    def __init__(self, wanted: Mapping[str, nn.Parameter], room: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wanted = {p.untyped_storage().data_ptr(): (name, p.detach()) for name, p in wanted.items()}
        self.room, self.moments = room, dict[str, SecondMoments]()
        self.put_off: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        read = _READERS.get(func)
        if read is not None:
            read(self, *args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))
        # in inference mode torch does not take linear layers and convolutions apart before they come here
        with self:
            made = func.decompose(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if made is NotImplemented else made

    def found(self, tensor: Any, inputs: Any) -> tuple[str, torch.Tensor] | None:
        """The parameter on whose memory a tensor is, where there are inputs of it: an expert that no row was sent to
        is called with none, and they tell nothing.
        """
        if not isinstance(inputs, torch.Tensor) or not inputs.numel():
            return None
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_meta:
            return None
        if hasattr(tensor, "__tensor_flatten__"):  # a weight that is codes already, and has no memory to look at
            return None
        return self.wanted.get(tensor.untyped_storage().data_ptr())

    def product(self, x: torch.Tensor, w: torch.Tensor) -> None:
        """x (M, K) times w (K, N), which is a parameter or its transpose."""
        found = self.found(w, x)
        if found is None or found[1].ndim != 2:
            return
        name, parameter = found
        if _is_all(w.t(), parameter):
            use = Use((0,), (1,))
        elif _is_all(w, parameter):
            use = Use((1,), (0,))
        else:
            return
        self.add(name, use, 1, x.shape[1], lambda: (x[part][None] for part in _parts(len(x), x.shape[1])))

    def products_of_stack(self, x: torch.Tensor, w: torch.Tensor) -> None:
        """x (E, M, K) times w (E, K, N), which is a stack of experts or has its matrices transposed."""
        found = self.found(w, x)
        if found is None:
            return
        if found[1].ndim != 3:
            if w.stride(0) == 0:  # one matrix for all, as torch has it for inputs that are no rows in memory
                self.product(x.flatten(0, 1), w[0])
            return
        name, parameter = found
        if _is_all(w.mT, parameter):
            use = Use((0, 1), (2,))
        elif _is_all(w, parameter):
            use = Use((0, 2), (1,))
        else:
            return
        parts = _parts(x.shape[1], len(x) * x.shape[2])
        self.add(name, use, len(x), x.shape[2], lambda: (x[:, part] for part in parts))

    def convolution(
        self, x: torch.Tensor, w: torch.Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
        transposed: bool, output_padding: Any, groups: int,
    ) -> None:  # fmt: skip
        """A convolution as a product with patches of x (batch, channels, ...)."""
        found = self.found(w, x)
        if found is None or transposed or not _is_all(w, found[1]):
            return
        name, parameter = found
        kernel = parameter.shape[2:]
        length = math.prod(parameter.shape[1:])

        def patches() -> Iterator[torch.Tensor]:
            step = max(_BLOCK // max(x[:1].numel() * math.prod(kernel), 1), 1)
            for part in x.split(step):
                yield _patches(part, kernel, stride, padding, dilation, groups)

        use = Use((0,), tuple(range(1, parameter.ndim)))
        self.add(name, use, groups, length, patches)

    def lookup(self, w: torch.Tensor, indices: torch.Tensor, *rest: Any) -> None:
        """Rows of an embedding."""
        found = self.found(w, indices)
        if found is None or not _is_all(w, found[1]):
            return
        moments = self.of(found[0], 8 * len(w))
        if moments is not None:
            counts = torch.bincount(indices.reshape(-1), minlength=len(w)).to(torch.float64)
            moments.counts = counts if moments.counts is None else moments.counts + counts

    def add(self, name: str, use: Use, groups: int, length: int, inputs: Callable[[], Iterator[torch.Tensor]]) -> None:
        """Add (groups, M, length) inputs to a parameter's moments."""
        moments = self.of(name, 8 * groups * length * length)
        if moments is None:
            return
        for x in inputs():
            own = x.to(torch.float64)
            h = moments.products.get(use)
            if h is None:
                h = moments.products[use] = own.new_zeros(groups, length, length)
            h.baddbmm_(own.mT, own)

    def of(self, name: str, size: int) -> SecondMoments | None:
        """The moments of a parameter; None where they are for another time, as there is no room."""
        if name in self.put_off:
            return None
        if name not in self.moments:
            # one has room, whatever it takes
            if self.room is not None and self.moments and size > self.room:
                self.put_off[name] = None
                return None
            self.room = None if self.room is None else self.room - size
            self.moments[name] = SecondMoments()
        return self.moments[name]


def _is_all(tensor: torch.Tensor, parameter: torch.Tensor) -> bool:
    same = tensor.shape == parameter.shape and tensor.stride() == parameter.stride()
    return same and tensor.storage_offset() == parameter.storage_offset()


def _parts(rows: int, length: int) -> Iterator[slice]:
    step = max(_BLOCK // max(length, 1), 1)
    return (slice(begin, begin + step) for begin in range(0, rows, step))


def _patches(x: torch.Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> torch.Tensor:
    """(groups, batch * places, channels / groups * kernel): what each place of a convolution's output is made of."""
    count = len(kernel)
    # conv1d and its kin may give one number for all dimensions
    stride, padding, dilation = (list(each) * (count // len(each)) for each in (stride, padding, dilation))
    x = F.pad(x, [side for each in reversed(padding) for side in (each, each)])
    batch, channels, *sizes = x.shape
    places = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)]
    own = x.stride()
    steps = [a * by for each in (stride, dilation) for a, by in zip(own[2:], each, strict=True)]
    windows = x.as_strided([batch, channels, *places, *kernel], [*own[:2], *steps], x.storage_offset())
    # (batch, groups, channels / groups, places, kernel) to (groups, batch, places, channels / groups, kernel)
    apart = windows.reshape(batch, groups, channels // groups, math.prod(places), math.prod(kernel))
    return apart.permute(1, 0, 3, 2, 4).reshape(groups, batch * math.prod(places), -1)


_READERS: dict[Any, Callable[..., None]] = {
    aten.mm.default: _Watch.product,
    aten.addmm.default: lambda watch, bias, x, w, **factors: watch.product(x, w),
    aten.bmm.default: _Watch.products_of_stack,
    aten.baddbmm.default: lambda watch, bias, x, w, **factors: watch.products_of_stack(x, w),
    aten.convolution.default: _Watch.convolution,
    aten.embedding.default: _Watch.lookup,
}
