"""LNSWeight: a tensor that looks like a float parameter and holds only codes and a log_offset.

    element  =  (-1)^s * base^((m - bias + log_offset) / 2^F)

It is a wrapper subclass: autograd, modules and optimizers see its float dtype, but there is no float storage. Views
apply to the codes; every other operation decodes its LNS arguments, runs, and lets the floats go
(`lnsnum.torch_bridge.weight_ops`). So forward results and gradients are those of the decoded model, bit for bit, and
what autograd saves for backward is the codes. Gradients are plain tensors.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.hooks import warn_if_has_hooks

import lnsnum
from lnsnum.array.cards import card
from lnsnum.array.reading import card_of
from lnsnum.encoding import fit_log_offset
from lnsnum.format import LNSFormat, Rounding, Underflow
from lnsnum.kernels.codes import LogOffset as CoreOffset
from lnsnum.kernels.codes import check_format
from lnsnum.kernels.granularity import Channels
from lnsnum.kernels.groups import GroupOffsets, check_group_size
from lnsnum.tensor import LNSTensor
from lnsnum.torch_bridge.carrying import Belongings, belongings, hand_over
from lnsnum.torch_bridge.distributed.gathering import GatheredAsCodes
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES, check_width, is_real
from lnsnum.torch_bridge.kernels.fitting import choose_scale
from lnsnum.torch_bridge.kernels.scale import RMS, Fit, LogOffset, Scale, Span, check_offset, each_of
from lnsnum.torch_bridge.surroundings import check_not_taken_apart, level_of_the_caller
from lnsnum.torch_bridge.weight_ops import dispatch
from lnsnum.torch_bridge.weight_scale import WeightScale, others_have


@dataclass(frozen=True)
class Telemetry:
    """Where a weight's codes are in their range."""

    elements: int
    at_ceiling: float
    """Share at the greatest magnitude, where the scale must grow before they can."""
    at_floor: float
    """Share at the smallest nonzero magnitude."""
    zeros: float
    """Share of zeros, a rung like any other to Madam's default rule."""
    nan: float
    """Share of NaN."""
    histogram: torch.Tensor
    """Counts by log magnitude m, int64, of 2^(bits - 1) entries; that of 0 counts the zeros. On the CPU."""


class LNSWeight(GatheredAsCodes, WeightScale):
    """Codes of an LNS format in the guise of a float tensor.

    Args:
        codes: uint8 or int16 (the format's unsigned codes bit for bit), of any shape.
        fmt: the format.
        log_offset: the scale in code steps: an integer, or for channels an integer tensor that broadcasts to the codes.
        dtype: the float type that it appears as and decodes to.
        requires_grad: given with a weight instead of codes, and nothing else: makes a parameter of it.
        group_size: log_offset has one for each group of so many elements along the last dimension, 16 to 256, and the
            last group what is left; (N, ceil(K / group_size)) of codes (N, K).

    Attributes:
        codes: the tensor of codes. A kernel that writes to it must tell autograd (`increment_version`).
        fmt: as given.

    Views and detached aliases share the codes and the log_offset.

    Raises:
        TypeError: where codes are of another dtype than the format's, log_offset is of no integers, or dtype is no
            float type.
        ValueError: where a code lies outside the format, or a log_offset is too large or does not broadcast.
        NotImplementedError: for formats wider than 16 bits.

    >>> w = LNSWeight.from_float(torch.tensor([1.0, -0.5, 0.0]), LNSFormat(8, 5), log_offset=0)
    >>> w.codes
    tensor([ 64, 160,   0], dtype=torch.uint8)
    >>> (w * 2).tolist()
    [2.0, -1.0, 0.0]
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(  # noqa: D102  (the class tells of it)
        cls: type[LNSWeight],
        codes: torch.Tensor,
        fmt: LNSFormat | None = None,
        log_offset: LogOffset = 0,
        dtype: torch.dtype = torch.float32,
        *,
        group_size: int | None = None,
        requires_grad: bool | None = None,
    ) -> LNSWeight:
        if fmt is None or requires_grad is not None:  # as accelerate makes a parameter anew, of the parameter's class
            if fmt is not None or not isinstance(codes, LNSWeight):
                raise TypeError("an LNSWeight is made of codes and their format, or of floats by LNSWeight.from_float")
            return torch.nn.Parameter(codes.detach(), bool(requires_grad))  # type: ignore[return-value]
        check_format(fmt)
        check_width(fmt)
        if codes.dtype != bridge.code_dtype(fmt):
            raise TypeError(f"codes of {fmt.name} are a tensor of {bridge.code_dtype(fmt)}, not {codes.dtype}")
        if dtype not in FLOAT_NAMES:
            raise TypeError(f"dtype={dtype} is no float type that an LNSWeight can appear as")
        if fmt.bits < 8 * fmt.dtype.itemsize and codes.numel() and codes.device.type != "meta":
            low, high = (int(extreme) for extreme in codes.aminmax())
            if low < 0 or high >= 1 << fmt.bits:
                outside = low if low < 0 else high
                raise ValueError(f"code {outside} is outside {fmt.name}: its codes are 0 to {(1 << fmt.bits) - 1}")
        size = 0 if group_size is None else check_group_size(group_size)
        scale = check_offset(log_offset, codes.shape, size)
        offsets = None if scale.offsets is None else scale.offsets.to(codes.device)
        return _wrap(codes, fmt, Span(scale.low, scale.high), offsets, dtype, groups=scale.groups)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__class__" and not issubclass(value, LNSWeight):
            warnings.warn(
                f"an LNSWeight of shape {tuple(self.shape)} becomes a plain tensor of floats, in place, as by "
                "parametrizations and swap_tensors: convert_model makes codes of it again",
                stacklevel=level_of_the_caller(),
            )
        super().__setattr__(name, value)

    @property
    def _is_param(self) -> bool:
        """Whether this is an `nn.Parameter`, which asks by this name, and sets it as the last thing that it does."""
        return "_is_parameter" in self.__dict__

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        self.__dict__["_is_parameter"] = value
        heir_of = self.__dict__.pop("_heir_of", None)
        if heir_of is not None:
            hand_over(heir_of, self)

    @property
    def weight_only(self) -> bool:
        """Whether products of a few rows with this weight and its aliases are made of the codes, in an order of their
        own; see `lnsnum.torch_bridge.use_weight_only`, which sets it for a model.
        """
        return self._span.weight_only

    @weight_only.setter
    def weight_only(self, value: bool) -> None:
        self._span.weight_only = bool(value)

    @classmethod
    def from_float(
        cls,
        x: torch.Tensor,
        fmt: LNSFormat | str,
        *,
        log_offset: LogOffset | Literal["fit"] | None = None,
        channels: Channels = None,
        group_size: int | None = None,
        rounding: Rounding = "nearest",
        underflow: Underflow = "round",
        random_bits: torch.Tensor | None = None,
    ) -> LNSWeight:
        """The weight nearest to floats (or rounded as asked); see `lnsnum.encode` for the arguments and errors.

        By default at the scale that conversion chooses: the greatest magnitude is at or just above 3 times the RMS, or
        nothing is lost, if the floats were codes of this format once. "fit" is the least at which nothing saturates.
        `channels`, the dimensions along which each index has a log_offset, or `group_size`, of groups along the last
        one, say of which elements a scale is chosen.

        >>> LNSWeight.from_float(torch.tensor([0.02, -0.01, 0.004]), "lns8f5").log_offset
        -212
        """
        fmt = LNSFormat.of(fmt)
        check_width(fmt)
        if x.dtype not in FLOAT_NAMES:
            raise TypeError(f"a tensor of {x.dtype} cannot become an LNSWeight: it holds real floating-point numbers")
        each = each_of(channels, group_size, x.shape)
        if channels is not None and not (log_offset is None or isinstance(log_offset, str)):
            raise ValueError("channels says of what a scale is chosen, and log_offset gives one: leave out one of them")
        if log_offset is None:
            log_offset = choose_scale(x.detach(), fmt, of=each)
        elif isinstance(log_offset, str):
            if log_offset != "fit":
                raise TypeError(f"log_offset={log_offset!r} is not known: give an integer, a tensor of them, or 'fit'")
            wide = x.detach().to("cpu", torch.float64 if x.dtype == torch.float64 else torch.float32)
            array = bridge.as_numpy(wide.contiguous())
            fitted = fit_log_offset(array, fmt, rounding=rounding, channels=channels, group_size=group_size)
            log_offset = _as_torch(fitted)
        scale = check_offset(log_offset, x.shape, 0 if each is None else each.group_size)
        codes = bridge.encode(x, fmt, scale, rounding=rounding, underflow=underflow, random_bits=random_bits)
        codes = bridge.with_strides_of(x, codes)
        return cls(codes, fmt, log_offset, x.dtype, group_size=scale.group_size or None)

    @classmethod
    def from_lns(cls, tensor: LNSTensor, dtype: torch.dtype = torch.float32) -> LNSWeight:
        """The weight with the codes and the log_offset of an LNSTensor, copied."""
        if not isinstance(tensor, LNSTensor):
            raise TypeError(f"from_lns takes an LNSTensor, not a {type(tensor).__name__}: from_float takes floats")
        offset = tensor.log_offset
        group_size = offset.group_size if isinstance(offset, GroupOffsets) else None
        if isinstance(offset, GroupOffsets) and offset.axis != -1:
            raise ValueError(
                f"the tensor's groups lie along axis {offset.axis}, and those of a weight along its last dimension: "
                "take LNSWeight.from_lns(x.T).T"
            )
        return cls(bridge.from_numpy(tensor.codes).clone(), tensor.fmt, _as_torch(offset), dtype, group_size=group_size)

    def to_lns(self) -> LNSTensor:
        """The same codes as an LNSTensor, copied."""
        codes = bridge.as_numpy(self.codes.detach().cpu().clone().contiguous(), self.fmt.dtype)
        return LNSTensor(codes, self.fmt, log_offset=self.array_offsets())

    def array_offsets(self) -> Any:
        """The scale as an LNSTensor and weight files take it: an integer, an int32 array, or `GroupOffsets`.

        A graph's scale is a tensor of one element, and still that of the whole.
        """
        scale = self.scale
        if scale.offsets is not None and scale.offsets.numel() == 1 and self._span.room:
            scale = Scale(int(scale.offsets), int(scale.offsets))
        return bridge.offsets_of(scale)

    def to_float(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A plain tensor of the values, each rounded once to `dtype` (by default the dtype it appears as)."""
        codes, dtype = self.codes, dtype or self.dtype
        is_plain = self._offsets is None and not self._span.numbers[3] and codes.itemsize == 1
        if is_plain and bridge.is_on_cpu(codes) and bridge.is_dense(codes):
            return bridge.decode_by(self._table(dtype), codes)
        return bridge.decode(codes, self.fmt, self.scale, dtype)

    def _table(self, dtype: torch.dtype) -> bridge.Table:
        """That of its one scale, kept with what all aliases share: finding it takes as long as decoding a small one."""
        low = self._span.numbers[0]
        kept: bridge.Table | None = self._span.tables.get(dtype)
        if kept is None or kept.log_offset != low:
            kept = self._span.tables[dtype] = bridge.table_of(self.fmt, low, dtype)
        return kept

    def with_dtype(self, dtype: torch.dtype) -> LNSWeight:
        """The same codes, appearing as another float type."""
        return self.like(self.codes, dtype)

    def like(
        self,
        codes: torch.Tensor,
        dtype: torch.dtype | None = None,
        *,
        offsets: torch.Tensor | None = None,
        groups: tuple[int, int] = (0, -1),
        copied: bool = False,
    ) -> LNSWeight:
        """A weight on other codes of the same format, sharing the log_offset.

        `offsets` are those of a view of channels, or with `groups` of groups, `copied` where they are no view of these
        here.
        """
        if offsets is None:
            offsets, groups = self._offsets, self._groups
        taken_at = self._span.changes if copied else self._taken_at
        return _wrap(codes, self.fmt, self._span, offsets, dtype or self.dtype, taken_at, groups)

    def copied_with(self, codes: torch.Tensor, dtype: torch.dtype | None = None) -> LNSWeight:
        """A weight on other codes of the same format and shape, with a log_offset of its own."""
        scale = self.scale
        offsets = scale.offsets
        if offsets is not None:
            no_values = offsets.is_meta and not codes.is_meta
            offsets = (
                torch.zeros_like(offsets, device=codes.device) if no_values else offsets.to(codes.device, copy=True)
            )
        span = Span(scale.low, scale.high, room=self._span.room)
        span.weight_only, span.is_shard, span.whole = self._span.weight_only, self._span.is_shard, self._span.whole
        span.fit = self._span.fit
        return _wrap(codes, self.fmt, span, offsets, dtype or self.dtype, groups=self._groups)

    def telemetry(self) -> Telemetry:
        """Where the codes are in their range: shares saturated at the top and the bottom, zeros, a histogram."""
        if self.is_meta:
            raise ValueError("a weight on the meta device has no codes to count")
        codes, top = self.codes.detach().reshape(-1), self.fmt.max_magnitude
        # in parts: what bincount counts takes eight bytes a code
        parts = codes.split(1 << 20)
        counts = [torch.bincount(part & top, minlength=top + 1) for part in parts]
        histogram = torch.stack(counts).sum(0).cpu()
        nan = sum(int(((part & top == 0) & (part != 0)).sum()) for part in parts)
        histogram[0] -= nan
        size = max(self.numel(), 1)
        ceiling, floor, zeros = (int(histogram[m]) / size for m in (top, 1, 0))
        return Telemetry(self.numel(), ceiling, floor, zeros, nan / size, histogram)

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
        if value.device != self.device:
            raise ValueError(f"values on {value.device} cannot become those of a weight on {self.device}: use to()")
        if value.dtype != self.dtype:
            raise TypeError(
                f"values of {value.dtype} cannot become those of a weight that appears as {self.dtype}: assign "
                "values.to(weight.dtype), or change what the module's weights appear as by module.to(dtype)"
            )
        with torch.no_grad():
            self.copy_(value)

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Bytes in memory: those of the codes, and of the channels' offsets."""
        return self.codes.nbytes + (0 if self._offsets is None else self._offsets.nbytes)

    def share_memory_(self) -> LNSWeight:
        """Move the codes to shared memory, and the offsets of channels.

        One log_offset of the whole is not shared: a process keeps the one that it was given.
        """
        self.codes.share_memory_()
        if self._offsets is not None:
            self._offsets.share_memory_()
        return self

    def is_shared(self) -> bool:
        """Whether the codes are in shared memory."""
        return bool(self.codes.is_shared())

    def __reduce_ex__(self, protocol: Any) -> Any:
        """By `_rebuild`, from codes that torch stores as any tensor; hooks stay behind, as torch warns."""
        warn_if_has_hooks(self)
        offsets = self.scale.offsets  # refused here where they are stale, rather than where they are loaded
        offsets = None if offsets is None else offsets.detach()  # without what a compiler has noted on it
        parts = self.codes, self.fmt, self._span.numbers, offsets, self.dtype, self._taken_at, self._groups
        is_parameter = isinstance(self, torch.nn.Parameter)
        attributes = belongings(self).attributes
        if self.weight_only and is_parameter:  # of a model that is pickled, not of its state
            attributes["weight_only"] = True
        if self.fit != RMS:
            attributes["fit"] = tuple(self.fit)
        return _rebuild, (*parts, self.requires_grad, is_parameter, attributes)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """A text that is this weight again, of up to a thousand elements, as that of an LNSTensor is."""
        shown = is_real(self.codes)  # in a traced graph nothing has values
        tensor = repr(self.to_lns()) if shown else f"LNSTensor(..., {self.fmt.name!r})"
        dtype = "" if self.dtype == torch.float32 else f", {self.dtype}"
        place = "" if self.device.type == "cpu" else f".to({str(self.device)!r})"
        gradient = ".requires_grad_()" if self.requires_grad and self.is_leaf else ""
        return f"LNSWeight.from_lns({tensor}{dtype}){place}{gradient}"

    def _repr_html_(self) -> str:
        """The weight's card, for notebooks: that of its LNSTensor, and the type and device that torch sees."""
        seen = [("seen by torch as", f"{self.dtype}, {self.device}")]
        if not is_real(self.codes) or self.codes.is_meta:
            return card(type(self).__name__, [("format", self.fmt.name), ("shape", str(tuple(self.shape))), *seen])
        return card_of(self.to_lns(), type(self).__name__, seen)

    def __tensor_flatten__(self) -> tuple[list[str], _Context]:
        check_not_taken_apart()
        inner = ["codes"] if self._offsets is None else ["codes", "_offsets"]
        return inner, (self.fmt, self._span.low, self._span.high, self.dtype, self._groups)

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], context: _Context, size: Any, stride: Any) -> LNSWeight:
        fmt, low, high, dtype, groups = context
        return _wrap(inner["codes"], fmt, Span(low, high), inner.get("_offsets"), dtype, groups=groups)

    def _stable_hash_for_caching(self) -> str:
        """What torch's cache of compiled graphs on disk must know: the code that decodes is not in the graphs' keys."""
        inner, context = self.__tensor_flatten__()
        tensors = [(t.dtype, tuple(t.shape), t.stride(), str(t.device)) for t in (getattr(self, n) for n in inner)]
        version = lnsnum.__version__, torch.__version__, "decode by table"
        return hashlib.sha256(repr((version, context, tensors, self.requires_grad)).encode()).hexdigest()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return dispatch(LNSWeight, func, args, kwargs or {})


def _wrap(
    codes: torch.Tensor,
    fmt: LNSFormat,
    span: Span,
    offsets: torch.Tensor | None,
    dtype: torch.dtype,
    taken_at: int | None = None,
    groups: tuple[int, int] = (0, -1),
) -> LNSWeight:
    """The weight on codes that are known to be good; an inference tensor where they are."""
    if codes.is_inference() != torch.is_inference_mode_enabled():
        with torch.inference_mode(codes.is_inference()):
            return _wrap(codes, fmt, span, offsets, dtype, taken_at, groups)
    weight: LNSWeight = torch.Tensor._make_wrapper_subclass(
        LNSWeight,
        codes.shape,
        strides=codes.stride(),
        storage_offset=codes.storage_offset(),
        dtype=dtype,
        device=codes.device,
        storage_size=codes.untyped_storage().nbytes(),
    )
    if not torch.compiler.is_compiling():
        torch._C._set_throw_on_mutable_data_ptr(weight)  # what would write to its memory gets an error, no null pointer
    # past __setattr__, which is for others: a view is made for each use of a weight
    weight.__dict__.update(codes=codes, fmt=fmt, _span=span, _offsets=offsets, _groups=groups, _taken_at=taken_at)
    return weight


_Context = tuple[LNSFormat, int, int, torch.dtype, tuple[int, int]]
"""What of a weight is no tensor."""


def _as_torch(log_offset: CoreOffset) -> LogOffset:
    """A scale of the core's, copied; of groups without their size."""
    offsets = log_offset.offsets if isinstance(log_offset, GroupOffsets) else log_offset
    return offsets if isinstance(offsets, int) else torch.from_numpy(offsets.copy())


def _checked_groups(groups: Any, ndim: int) -> tuple[int, int]:
    """Size and dimension of groups as a pickle tells them."""
    if groups == (0, -1):
        return 0, -1
    fits = isinstance(groups, tuple) and len(groups) == 2 and all(type(n) is int for n in groups)
    if not fits or not -ndim <= groups[1] < 0:
        raise ValueError(
            f"{groups!r:.60} are no groups of a pickled LNSWeight: a size, and a dimension from -{ndim} to -1"
        )
    return check_group_size(groups[0]), groups[1]


def _rebuild(
    codes: torch.Tensor,
    fmt: LNSFormat,
    numbers: list[int],
    offsets: torch.Tensor | None,
    dtype: torch.dtype,
    taken_at: int | None,
    groups: tuple[int, int],
    requires_grad: bool,
    is_parameter: bool,
    attributes: dict[str, Any],
) -> LNSWeight:
    """The weight of a pickle: whatever it holds, the kernels get codes of the format, as from every other door."""
    LNSWeight(codes, fmt, 0, dtype)
    span = Span.on(numbers)
    if offsets is None and span.low != span.high and not span.room:  # with room it is a view that its scale refuses
        raise ValueError(f"a weight without a tensor of log_offsets has one, not {span.low} to {span.high}")
    if offsets is not None and is_real(offsets) and not others_have(offsets):  # another process may have changed those
        own = check_offset(offsets, codes.shape, *_checked_groups(groups, codes.ndim))
        if own.low < span.low or own.high > span.high:
            raise ValueError(
                f"log_offsets {own.low} to {own.high} are outside of the range told of them, {span.low} to {span.high}"
            )
    weight = _wrap(codes, fmt, span, offsets, dtype, taken_at, _checked_groups(groups, codes.ndim))
    if is_parameter:
        weight = torch.nn.Parameter(weight, requires_grad)  # type: ignore[assignment]
    weight.weight_only = is_parameter and attributes.pop("weight_only", False) is True
    weight.fit = Fit.checked(attributes.pop("fit", RMS))
    hand_over(Belongings(attributes, None, None), weight)
    return weight.requires_grad_(requires_grad)  # type: ignore[return-value]


torch.serialization.add_safe_globals([LNSWeight, LNSFormat, _rebuild])
