"""LNSWeight: a tensor that looks like a float parameter and holds only codes and a log_offset.

    element  =  (-1)^s * base^((m - bias + log_offset) / 2^F)

It is a wrapper subclass: autograd, modules and optimizers see its float dtype, but there is no float storage. Views
apply to the codes; every other operation decodes its LNS arguments, runs, and lets the floats go. So forward results
and gradients are those of the decoded model, bit for bit, and what autograd saves for backward is the codes. Gradients
are plain tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing

from lnsnum.codes import check_format, fit_log_offset
from lnsnum.format import LNSFormat, Rounding, Underflow, check_log_offset
from lnsnum.tensor import LNSTensor
from lnsnum.torch_bridge import codes as bridge

aten = torch.ops.aten


class LNSWeight(torch.Tensor):
    """Codes of an LNS format in the guise of a float tensor.

    Args:
        codes: uint8, int16 or int32 (the format's unsigned codes bit for bit), of any shape.
        fmt: the format.
        log_offset: the scale in code steps.
        dtype: the float type that it appears as and decodes to.

    Attributes:
        codes: the tensor of codes. A kernel that writes to it must tell autograd (`increment_version`).
        fmt, log_offset: as given. Views and detached aliases share the log_offset.

    Raises:
        TypeError: where codes are of another dtype than the format's, or dtype is no float type.
        ValueError: where a code lies outside the format.
        NotImplementedError: for formats wider than 16 bits.

    >>> w = LNSWeight.from_float(torch.tensor([1.0, -0.5, 0.0]), LNSFormat(8, 5))
    >>> w.codes
    tensor([ 64, 160,   0], dtype=torch.uint8)
    >>> (w * 2).tolist()
    [2.0, -1.0, 0.0]
    """

    codes: torch.Tensor
    fmt: LNSFormat
    _scale: list[int]  # one log_offset, in a list because aliases of the same codes must see one value

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(  # noqa: D102  (the class tells of it)
        cls: type[LNSWeight],
        codes: torch.Tensor,
        fmt: LNSFormat,
        log_offset: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> LNSWeight:
        check_format(fmt)
        bridge.check_width(fmt)
        if codes.dtype != bridge.code_dtype(fmt):
            raise TypeError(f"codes of {fmt.name} are a tensor of {bridge.code_dtype(fmt)}, not {codes.dtype}")
        if dtype not in bridge.FLOAT_NAMES:
            raise TypeError(f"dtype={dtype} is no float type that an LNSWeight can appear as")
        if fmt.bits < 8 * fmt.dtype.itemsize and codes.numel() and codes.device.type != "meta":
            low, high = (int(extreme) for extreme in codes.aminmax())
            if low < 0 or high >= 1 << fmt.bits:
                outside = low if low < 0 else high
                raise ValueError(f"code {outside} is outside {fmt.name}: its codes are 0 to {(1 << fmt.bits) - 1}")
        return _wrap(codes, fmt, [check_log_offset(log_offset)], dtype)

    @property
    def log_offset(self) -> int:
        """The scale in code steps."""
        return self._scale[0]

    @classmethod
    def from_float(
        cls,
        x: torch.Tensor,
        fmt: LNSFormat | str,
        *,
        log_offset: int | Literal["fit"] = 0,
        rounding: Rounding = "nearest",
        underflow: Underflow = "round",
        random_bits: torch.Tensor | None = None,
    ) -> LNSWeight:
        """The weight nearest to floats (or rounded as asked); see `lnsnum.encode` for the arguments and errors."""
        fmt = LNSFormat.of(fmt)
        if x.dtype not in bridge.FLOAT_NAMES:
            raise TypeError(f"a tensor of {x.dtype} cannot become an LNSWeight: it holds real floating-point numbers")
        if log_offset == "fit":
            wide = x.detach().to("cpu", torch.float64 if x.dtype == torch.float64 else torch.float32)
            log_offset = fit_log_offset(bridge.as_numpy(wide.contiguous()), fmt, rounding=rounding)
        codes = bridge.encode(
            x, fmt, log_offset=log_offset, rounding=rounding, underflow=underflow, random_bits=random_bits
        )
        return cls(codes, fmt, log_offset, x.dtype)

    @classmethod
    def from_lns(cls, tensor: LNSTensor, dtype: torch.dtype = torch.float32) -> LNSWeight:
        """The weight with the codes of an LNSTensor that has one log_offset."""
        if not isinstance(tensor.log_offset, int):
            raise ValueError("an LNSWeight has one log_offset, and this tensor has one for each channel")
        return cls(bridge.from_numpy(tensor.codes.copy(), tensor.fmt), tensor.fmt, tensor.log_offset, dtype)

    def to_lns(self) -> LNSTensor:
        """The same codes as an LNSTensor, copied."""
        codes = bridge.as_numpy(self.codes.detach().cpu().clone().contiguous(), self.fmt.dtype)
        return LNSTensor(codes, self.fmt, log_offset=self.log_offset)

    def to_float(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A plain tensor of the values, each rounded once to `dtype` (by default the dtype it appears as)."""
        return bridge.decode(self.codes, self.fmt, self.log_offset, dtype or self.dtype)

    def with_dtype(self, dtype: torch.dtype) -> LNSWeight:
        """The same codes, appearing as another float type."""
        return self.like(self.codes, dtype)

    def like(self, codes: torch.Tensor, dtype: torch.dtype | None = None) -> LNSWeight:
        """A weight on other codes of the same format, sharing the log_offset."""
        return _wrap(codes, self.fmt, self._scale, dtype or self.dtype)

    @property
    def data(self) -> LNSWeight:
        """The same codes without autograd's history; assigning to it writes, as `copy_` does."""
        return self.detach()  # type: ignore[return-value]

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if value.shape != self.shape:
            raise ValueError(
                f"values of shape {tuple(value.shape)} cannot become those of a weight of {tuple(self.shape)}"
            )
        with torch.no_grad():
            self.copy_(value)

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Bytes in memory: those of the codes."""
        return self.codes.nbytes

    def share_memory_(self) -> LNSWeight:
        """Move the codes to shared memory. (log_offset is not shared: a process keeps the one that it was given.)"""
        self.codes.share_memory_()
        return self

    def is_shared(self) -> bool:
        """Whether the codes are in shared memory."""
        return bool(self.codes.is_shared())

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("an LNSWeight has no float memory to share by DLPack: take to_float() or its codes")

    def apply_(self, *args: Any) -> Any:
        """Not supported: there is no float memory to apply a function to."""
        raise TypeError("an LNSWeight has no float memory: use to_float().apply_(f), then copy_")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        gradient = ", requires_grad=True" if self.requires_grad else ""
        return f"LNSWeight({self.to_float()}, {self.fmt.name}, log_offset={self.log_offset}{gradient})"

    def __tensor_flatten__(self) -> tuple[list[str], tuple[LNSFormat, int, torch.dtype]]:
        return ["codes"], (self.fmt, self.log_offset, self.dtype)

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, torch.Tensor], context: tuple[LNSFormat, int, torch.dtype], size: Any, stride: Any
    ) -> LNSWeight:
        fmt, log_offset, dtype = context
        return _wrap(inner["codes"], fmt, [log_offset], dtype)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        handler = _HANDLERS.get(func)
        if handler is None and _is_view(func):
            handler = _on_codes
        if handler is not None and isinstance(args[0], LNSWeight):
            return return_and_correct_aliasing(func, args, kwargs, handler(func, *args, **kwargs))
        if _written_arguments(func):
            return _run_in_place(func, args, kwargs)
        return func(*_map(LNSWeight, LNSWeight.to_float, args), **_map(LNSWeight, LNSWeight.to_float, kwargs))


def _wrap(codes: torch.Tensor, fmt: LNSFormat, scale: list[int], dtype: torch.dtype) -> LNSWeight:
    """The weight on codes that are known to be good; an inference tensor where they are."""
    with torch.inference_mode(codes.is_inference()):
        weight: LNSWeight = torch.Tensor._make_wrapper_subclass(
            LNSWeight,
            codes.shape,
            strides=codes.stride(),
            storage_offset=codes.storage_offset(),
            dtype=dtype,
            device=codes.device,
        )
    weight.codes = codes
    weight.fmt = fmt
    weight._scale = scale
    return weight


def _map(kind: type, function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to what is of a kind among an operation's arguments: tuples, lists and one dict of names."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_map(kind, function, item) for item in tree)
    if isinstance(tree, dict):
        return {name: _map(kind, function, item) for name, item in tree.items()}
    return tree


def _on_codes(func: Any, weight: LNSWeight, *args: Any, **kwargs: Any) -> Any:
    """A view or a copy of the elements: the same one of the codes."""
    return _map(torch.Tensor, weight.like, func(weight.codes, *args, **kwargs))


def _clone(func: Any, weight: LNSWeight, **kwargs: Any) -> LNSWeight:
    copy = _on_codes(func, weight, **kwargs)
    copy._scale = [weight.log_offset]
    return copy  # type: ignore[no-any-return]


def _to_copy(
    func: Any, weight: LNSWeight, *, dtype: torch.dtype | None = None, device: torch.device | None = None, **kwargs: Any
) -> torch.Tensor:
    """Another float type changes what the weight appears as, another device where its codes are."""
    dtype = dtype or weight.dtype
    if dtype not in bridge.FLOAT_NAMES:
        return weight.to_float().to(dtype=dtype, device=device)
    codes = func(weight.codes, device=device, **kwargs)
    return _wrap(codes, weight.fmt, [weight.log_offset], dtype)


def _copy(func: Any, weight: LNSWeight, source: torch.Tensor, non_blocking: bool = False) -> LNSWeight:
    """From a weight of the same format: its codes and its log_offset. From floats: encoded at the log_offset here.

    A view cannot take another log_offset, which would change the rest of the weight: there, the values are encoded.
    """
    is_whole = weight.codes.untyped_storage().nbytes() == weight.codes.nbytes
    if (
        isinstance(source, LNSWeight)
        and source.fmt == weight.fmt
        and source.shape == weight.shape
        and (is_whole or source.log_offset == weight.log_offset)
    ):
        weight.codes.copy_(source.codes, non_blocking)
        weight._scale[0] = source.log_offset
    else:
        floats = source.to_float() if isinstance(source, LNSWeight) else source
        _write(weight, floats.to(weight.device, weight.dtype).expand(weight.shape))
    return weight


def _plain_like(func: Any, weight: LNSWeight, *args: Any, **kwargs: Any) -> torch.Tensor:
    """zeros_like, new_zeros and their kin: a plain tensor, without decoding."""
    model = torch.empty((), dtype=weight.dtype, device=weight.device).expand(weight.shape)
    return func(model, *args, **kwargs)  # type: ignore[no-any-return]


def _embedding(func: Any, weight: LNSWeight, indices: torch.Tensor, *args: Any) -> torch.Tensor:
    """Gathers codes, then decodes the rows that are used."""
    return bridge.decode(aten.embedding.default(weight.codes, indices), weight.fmt, weight.log_offset, weight.dtype)


def _write(weight: LNSWeight, floats: torch.Tensor) -> None:
    """Write floats into the codes at the weight's log_offset, rounded so that small changes survive on average.

    Elements that are what they decode to keep their code: decoding rounds, and encoding that again could move it.
    """
    codes = bridge.encode(
        floats,
        weight.fmt,
        log_offset=weight.log_offset,
        rounding="stochastic_value",
        random_bits=bridge.draw_random_bits(floats.shape),
    )
    weight.codes.copy_(torch.where(floats == weight.to_float(), weight.codes, codes))


def _run_in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation that writes to a weight: decode, run, encode again at the same log_offset (stochastic_value).

    The scale is never chosen anew here: aliases and other shards of the weight would not learn of it.
    """
    if torch.Tag.inplace_view in func.tags:
        raise NotImplementedError(f"{func} would change the shape or the storage of an LNSWeight in place")
    floats: dict[int, torch.Tensor] = {}
    written: list[LNSWeight] = []

    def decode(weight: LNSWeight) -> torch.Tensor:
        if id(weight) not in floats:
            floats[id(weight)] = weight.to_float()
        return floats[id(weight)]

    for position, name in _written_arguments(func):
        _map(LNSWeight, written.append, args[position] if position < len(args) else kwargs.get(name))
    out = func(*_map(LNSWeight, decode, args), **_map(LNSWeight, decode, kwargs))
    weights = {id(floats[id(weight)]): weight for weight in written}
    for weight in weights.values():
        _write(weight, floats[id(weight)])
    return _map(torch.Tensor, lambda tensor: weights.get(id(tensor), tensor), out)


@lru_cache(maxsize=1024)
def _is_view(func: Any) -> bool:
    """Whether an operation returns a view of its first argument."""
    returned = [r.alias_info for r in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


def _refuse(func: Any, *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(f"{func} would look at the float memory of an LNSWeight, which has none: use to_float()")


@lru_cache(maxsize=1024)
def _written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Position and name of the arguments that an operation writes to."""
    arguments = enumerate(func._schema.arguments)
    return tuple((i, a.name) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)


_REINTERPRETING = [
    aten.view.dtype, aten._conj.default, aten._neg_view.default, aten.view_as_complex.default,
    aten.view_as_real.default,
]  # fmt: skip

_LIKE = [
    aten.empty_like.default, aten.full_like.default, aten.new_empty.default, aten.new_full.default,
    aten.new_ones.default, aten.new_zeros.default, aten.ones_like.default, aten.rand_like.default,
    aten.randn_like.default, aten.zeros_like.default,
]  # fmt: skip

_HANDLERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_REINTERPRETING, _refuse),
    **dict.fromkeys(_LIKE, _plain_like),
    aten.clone.default: _clone,
    aten._unsafe_view.default: _on_codes,
    aten._to_copy.default: _to_copy,
    aten.copy_.default: _copy,
    aten.embedding.default: _embedding,
}

torch.serialization.add_safe_globals([LNSWeight, LNSFormat])
