"""What each of torch's operations does to LNS weights: the table behind `LNSWeight.__torch_dispatch__`.

    a view or a copy of elements      the same one of the codes
    another float type or device      the codes stay what they are
    shapes only (zeros_like, ...)     a plain tensor, nothing is decoded
    memory for a copy (empty_like)    a weight of zeros, at the same scale; new_empty is that on a named device alone
    a write                           decode, run, encode again, rounded stochastically (`lnsnum.torch_bridge.writing`)
    a collective, a change of memory  refused
    a product with a few rows         of the codes, where the weight asks for it (`lnsnum.torch_bridge.products`)
    anything else                     decode the weights, run, let the floats go

A collective on the decoded floats would end with wrong weights on all processes, and say nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import FrameType
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import return_and_correct_aliasing

from lnsnum.torch_bridge.carrying import Belongings, belongings
from lnsnum.torch_bridge.distributed.first_broadcast import asks_for_bytes, bytes_to_broadcast
from lnsnum.torch_bridge.distributed.gathering import check_dense, fill_shard, is_fully_shard, new_shard
from lnsnum.torch_bridge.distributed.sent_states import asks_for_floats, check_not_sent, floats_to_send, puts_in_shards
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES, is_real
from lnsnum.torch_bridge.products import product_of
from lnsnum.torch_bridge.surroundings import check_surroundings
from lnsnum.torch_bridge.writing import multiply, write_anew, write_over

aten = torch.ops.aten

Weight = Any
"""An LNSWeight. (Its class is made of this module.)"""


def dispatch(kind: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation some of whose arguments are weights, of class `kind`."""
    check_surroundings(kind, args)
    way = _way_of(func)
    if way.handler is not None and isinstance(args[0], kind):
        out = way.handler(way.run, *args, **kwargs)
        if way.aliases is None or type(out) is torch.Tensor:  # plain: the bytes of codes, for a broadcast
            return out
        if way.aliases == "a view" and type(out) is kind:
            # all that torch's function below would do to one view: it is on the memory of what it views
            torch._functionalize_unsafe_set(out, args[0])
            return out
        return return_and_correct_aliasing(func, args, kwargs, out)
    if way.is_collective:
        return _refuse_collective(func)
    if way.writes:
        return _run_in_place(kind, func, args, kwargs)
    if way.product is not None:
        out = way.product(*args, **kwargs)
        if out is not None:
            return out
    floats = [argument.to_float() if isinstance(argument, kind) else argument for argument in args]
    if way.takes_lists:
        floats = _map(kind, kind.to_float, floats)
    return way.run(*floats, **_map(kind, kind.to_float, kwargs)) if kwargs else way.run(*floats)


class _Way(NamedTuple):
    """How an operation is run: what its schema and the tables below say, looked up once."""

    handler: Callable[..., Any] | None
    """For a weight as the first argument."""
    aliases: Literal["a view", "others"] | None
    """What of the arguments' memory it returns."""
    is_collective: bool
    writes: bool
    product: Callable[..., Any] | None
    """Makes it of codes, for weights that ask for it."""
    takes_lists: bool
    """Whether tensors can stand in lists among the positional arguments."""
    run: Callable[..., Any]
    """The operation on plain tensors, by the shortest way to it."""


@lru_cache(maxsize=1024)
def _way_of(func: Any) -> _Way:
    is_collective = func.namespace in _COLLECTIVES
    handler = _HANDLERS.get(func)
    if handler is None and is_collective:
        handler = _refuse_collective
    if handler is None and _is_view(func):
        handler = _on_codes
    schema = func._schema
    aliases: Literal["a view", "others"] | None = None
    if any(returned.alias_info is not None for returned in schema.returns):
        aliases = "a view" if len(schema.returns) == 1 and _is_view(func) else "others"
    takes_lists = any("Tensor" in str(argument.type) and "List" in str(argument.type) for argument in schema.arguments)
    writes, run = bool(_written_arguments(func)), _SHORT.get(func, func)
    return _Way(handler, aliases, is_collective, writes, product_of(func), takes_lists, run)


def _map(kind: type, function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to what is of a kind among an operation's arguments: tuples, lists and one dict of names."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_map(kind, function, item) for item in tree)
    if isinstance(tree, dict):
        return {name: _map(kind, function, item) for name, item in tree.items()}
    return tree


def _on_codes(func: Any, weight: Weight, *args: Any, **kwargs: Any) -> Any:
    """A view of the elements: the same one of the codes, and of the channels' offsets."""
    codes = func(weight.codes, *args, **kwargs)
    if weight._offsets is None and not weight._span.room and isinstance(codes, torch.Tensor):
        return weight.like(codes)
    scale = weight.scale
    offsets = scale.offsets
    if offsets is None:
        return _map(torch.Tensor, weight.like, codes)
    if scale.group_size:
        if weight._span.is_shard and codes.ndim < weight.ndim and is_fully_shard(_caller()):
            return _without_scale(weight, codes)
        views = _views_of_groups(scale, weight.shape, lambda x: func(x, *args, **kwargs))
        if isinstance(codes, torch.Tensor):
            return weight.like(codes, **views[0])
        return type(codes)(weight.like(c, **view) for c, view in zip(codes, views, strict=True))
    expanded = offsets.expand(weight.shape)
    try:
        views = func(expanded, *args, **kwargs)
        copied = False
    except RuntimeError:  # dimensions that no view of the offsets can merge
        if weight._span.is_shard and is_fully_shard(_caller()):
            return _without_scale(weight, codes)
        views = func(expanded.contiguous(), *args, **kwargs)
        copied = True
    if isinstance(codes, torch.Tensor):
        return weight.like(codes, offsets=_narrow(views), copied=copied)
    return type(codes)(weight.like(c, offsets=_narrow(o), copied=copied) for c, o in zip(codes, views, strict=True))


def _without_scale(weight: Weight, codes: torch.Tensor) -> Weight:
    """The flat view of a shard that fully_shard keeps, and never looks at: without a copy of the offsets, so stale."""
    view = weight.like(codes, offsets=codes.new_zeros((1,) * codes.ndim, dtype=torch.int32))
    view.__dict__["_taken_at"] = -1
    return view


def _caller() -> FrameType | None:
    """Who asks for an operation, from within its handler."""
    return sys._getframe(3).f_back  # behind this, the handler, dispatch and __torch_dispatch__


def _views_of_groups(scale: Any, shape: torch.Size, view: Callable[[torch.Tensor], Any]) -> list[dict[str, Any]]:
    """What `LNSWeight.like` takes for each view of a weight with groups.

    The offsets of the first groups, expanded to the codes, are viewed alike, and tell where the rows went; the places
    along the dimension of the groups, expanded, which of them are there. Where groups stay together, but for the
    end of the last, the offsets are a view of the weight's. Where they do not, each element has its own, copied.
    """
    axis, length = scale.axis, shape[scale.axis]
    places = torch.arange(length, device=scale.offsets.device).view(length, *(1,) * (-1 - axis))
    try:
        rows, along = (_as_list(view(x.expand(shape))) for x in (scale.offsets.narrow(axis, 0, 1), places))
        found = [_view_of_groups(scale, row, place) for row, place in zip(rows, along, strict=True)]
    except RuntimeError:  # dimensions that no view can merge
        found = [None]
    kept = [one for one in found if one is not None]
    if len(kept) == len(found):
        return kept
    # each group's offset, for its elements
    whole = scale.spread(scale.offsets).expand(shape).contiguous()
    return [{"offsets": _narrow(part), "copied": True} for part in _as_list(view(whole))]


def _view_of_groups(scale: Any, row: torch.Tensor, place: torch.Tensor) -> dict[str, Any] | None:
    """Of one view, by the strides of the offsets of the first groups and of places; None where it cuts groups."""
    size, step = scale.group_size, scale.offsets.stride(scale.axis)
    along = [d for d, stride in enumerate(place.stride()) if stride != 0 and place.shape[d] > 1]
    first = place.storage_offset()
    row = _narrow(row)
    shape, strides, groups = list(row.shape), list(row.stride()), (0, -1)
    if along:
        dim = along[0]
        length = place.shape[dim]
        if len(along) > 1 or shape[dim] > 1 or place.stride(dim) != 1:
            return None
        if first // size != (first + length - 1) // size:
            if first % size:
                return None
            groups = size, dim - row.ndim
            # the last one may be cut: it is a rest then
            shape[dim], strides[dim] = -(-length // size), step
    offsets = row.as_strided(shape, strides, row.storage_offset() + first // size * step)
    return {"offsets": offsets, "groups": groups}


def _as_list(views: Any) -> list[torch.Tensor]:
    return [views] if isinstance(views, torch.Tensor) else list(views)


def _narrow(offsets: torch.Tensor) -> torch.Tensor:
    """One element of each dimension along which expanded offsets are the same."""
    for dim, stride in enumerate(offsets.stride()):
        if stride == 0 and offsets.shape[dim] > 1:
            offsets = offsets.narrow(dim, 0, 1)
    return offsets


def _as_strided(func: Any, weight: Weight, size: Any, stride: Any, storage_offset: int | None = None) -> Weight:
    """On the codes' memory; of channels only the strides that the weight has."""
    codes = func(weight.codes, size, stride, storage_offset)
    offsets = weight.scale.offsets
    if offsets is None or offsets.numel() == 1:
        return weight.like(codes, offsets=None if offsets is None else offsets.view((1,) * codes.ndim))
    same = tuple(stride) == weight.codes.stride() and storage_offset in (None, weight.codes.storage_offset())
    if tuple(size) != tuple(weight.shape) or not same:
        raise NotImplementedError(
            "as_strided of an LNSWeight with a log_offset for each channel: take view, slice or to_float()"
        )
    return weight.like(codes)


def _clone(func: Any, weight: Weight, **kwargs: Any) -> Weight:
    return weight.copied_with(func(weight.codes, **kwargs))


def _detach(func: Any, weight: Weight) -> Any:
    """An alias. In `nn.Module._apply` it becomes the parameter, and then gets all that the parameter had."""
    caller = _caller()
    if caller is not None and asks_for_bytes(caller):
        return bytes_to_broadcast(weight, caller)
    if caller is not None and asks_for_floats(caller):
        return floats_to_send(weight, caller)
    alias = _on_codes(func, weight)
    inheritance = _inheritance(weight)
    if inheritance is not None:
        alias._heir_of = inheritance
    return alias


def _inheritance(weight: Weight) -> Belongings | None:
    """What a module's parameter has, where `nn.Module._apply` is making another of it; None elsewhere.

    It makes a new parameter of what `to`, `half` and so on return; it and the old one then exchange their insides. Who
    asks for the operation is called by it: the function that it applies, or `nn.Parameter`.
    """
    own = vars(weight)
    if "_is_parameter" not in own and "_heir_of" not in own:
        return None
    asking = sys._getframe(3).f_back  # behind this, the handler, dispatch and __torch_dispatch__
    caller = None if asking is None else asking.f_back
    if caller is None or caller.f_code is not _MODULE_APPLY:
        return None
    return own.get("_heir_of") or belongings(weight)


def _to_copy(
    func: Any, weight: Weight, *, dtype: torch.dtype | None = None, device: torch.device | None = None, **kwargs: Any
) -> torch.Tensor:
    """Another float type changes what the weight appears as, another device where its codes are."""
    dtype = dtype or weight.dtype
    inheritance = _inheritance(weight)
    if dtype not in FLOAT_NAMES:
        if inheritance is not None:
            raise TypeError(f"LNS weights cannot appear as {dtype}: give {_FLOATS}, or decode_model the model first")
        return weight.to_float().to(dtype=dtype, device=device)  # type: ignore[no-any-return]
    copied = weight.copied_with(func(weight.codes, device=device, **kwargs), dtype)
    if inheritance is not None:
        copied._heir_of = inheritance
    return copied  # type: ignore[no-any-return]


def _copy(func: Any, weight: Weight, source: torch.Tensor, non_blocking: bool = False) -> Weight:
    """From a weight of the same format: its codes and its scale. From floats: encoded at the scale that fits.

    A view cannot take another scale, which would change the rest of the weight: there, the values are encoded at the
    scale that it has.
    """
    is_weight = isinstance(source, type(weight))
    if is_weight and weight._span.is_shard and is_fully_shard(_caller()):
        return fill_shard(weight, source)
    of_this_kind = is_weight and source.fmt == weight.fmt and source.shape == weight.shape  # type: ignore[attr-defined]
    if of_this_kind and weight.take_scale(source):
        weight.codes.copy_(source.codes, non_blocking)  # type: ignore[attr-defined]
        return weight
    if of_this_kind and weight._span.is_shard:
        other: Any = source
        raise ValueError(
            f"codes at log_offset {other._span.low} to {other._span.high} cannot become those of a shard at "
            f"{weight._span.low} to {weight._span.high}, which other shards have too: call set_log_offsets(model, ...) "
            "first"
        )
    if not is_weight and puts_in_shards(_caller()):
        check_not_sent(source)
    floats = source.to_float() if is_weight else source  # type: ignore[attr-defined]
    write_anew(weight, floats.to(weight.device, weight.dtype).expand(weight.shape))
    return weight


def _plain_like(func: Any, weight: Weight, *args: Any, **kwargs: Any) -> torch.Tensor:
    """zeros_like, new_zeros and their kin: a plain tensor in the order of the codes, without decoding."""
    kwargs["dtype"] = kwargs.get("dtype") or weight.dtype
    return func(weight.codes, *args, **kwargs)  # type: ignore[no-any-return]


def _new_zeros(func: Any, weight: Weight, size: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Plain zeros; in fully_shard the memory of a shard."""
    caller = _caller()
    if is_fully_shard(caller):
        return new_shard(weight, size, caller)  # type: ignore[no-any-return]
    return _plain_like(func, weight, size, *args, **kwargs)


def _empty_like(func: Any, weight: Weight, *, dtype: torch.dtype | None = None, **kwargs: Any) -> torch.Tensor:
    """Memory that something is to be copied into, for `Module.to_empty` and checkpoints: a weight of zeros.

    At the weight's scale, and codes are copied to it as they are. Of a type that is no float's, a plain tensor.
    """
    if dtype is not None and dtype not in FLOAT_NAMES:
        return _plain_like(func, weight, dtype=dtype, **kwargs)
    return weight.copied_with(torch.zeros_like(weight.codes, **kwargs), dtype)  # type: ignore[no-any-return]


def _new_empty(func: Any, weight: Weight, size: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Memory to compute in is plain: `nn.init.orthogonal_` draws into it, and decomposes what must not be rounded.

    But memory of the weight's shape on a device that is named is for a copy, as of asynchronous checkpoints: a weight
    of zeros, as of empty_like. `new_empty_strided` gives the strides too.
    """
    if kwargs.get("device") is None or tuple(size) != tuple(weight.shape):
        return _plain_like(func, weight, size, *args, **kwargs)
    dtype = kwargs.pop("dtype", None)
    if dtype is not None and dtype not in FLOAT_NAMES:
        return _plain_like(func, weight, size, *args, dtype=dtype, **kwargs)
    return weight.copied_with(func(weight.codes, size, *args, **kwargs).zero_(), dtype)  # type: ignore[no-any-return]


def _renorm_rows(func: Any, weight: Weight, *args: Any) -> Weight:
    """Rows of an embedding whose norm is too large, rounded toward zero until it is not.

    To nearest or at random some would be too large again, and each forward would move codes. The floor is no zero, so
    that what rounds to it may leave the norm too large once more.
    """
    while True:
        floats = weight.to_float()
        before = floats.clone()
        func(floats, *args)
        codes = bridge.encode(floats, weight.fmt, weight.scale, rounding="toward_zero", underflow="saturate")
        codes = torch.where(floats == before, weight.codes, codes)
        if torch.equal(codes, weight.codes):
            return weight
        weight.codes.copy_(codes)


def _embedding(
    func: Any,
    weight: Weight,
    indices: torch.Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> torch.Tensor:
    """Gathers codes, then decodes the rows that are used."""
    check_dense(weight, sparse)
    scale = weight.scale
    if scale.group_size and scale.axis != -1:
        return func(weight.to_float(), indices, padding_idx, scale_grad_by_freq, sparse)  # type: ignore[no-any-return]
    if scale.offsets is not None and scale.offsets.shape[0] != 1:
        scale = scale._replace(offsets=aten.embedding.default(scale.offsets, indices))
    elif scale.offsets is not None:
        # one for all rows: of as many dimensions as the codes that are gathered
        scale = scale._replace(offsets=scale.offsets.reshape((1,) * indices.ndim + scale.offsets.shape[1:]))
    return bridge.decode(aten.embedding.default(weight.codes, indices), weight.fmt, scale, weight.dtype)


def _embedding_bag(
    func: Any,
    weight: Weight,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    *rest: Any,
    **named: Any,
) -> Any:
    """Decodes all, as what has no line in the table."""
    check_dense(weight, sparse)
    return func(weight.to_float(), indices, offsets, scale_grad_by_freq, mode, sparse, *rest, **named)


def _pad(func: Any, weight: Weight, pad: Any, value: Any = 0) -> torch.Tensor:
    """Zeros around codes are codes."""
    if value != 0 or weight.scale.offsets is not None:
        return func(weight.to_float(), pad, value)  # type: ignore[no-any-return]
    return weight.copied_with(func(weight.codes, pad, 0))  # type: ignore[no-any-return]


def _pin(func: Any, weight: Weight, *args: Any, **kwargs: Any) -> Weight:
    if not torch.accelerator.is_available():
        raise RuntimeError(
            "memory is pinned for a graphics card, and there is none: leave pin_memory out, in fully_shard by "
            "CPUOffloadPolicy(pin_memory=False)"
        )
    return _clone(func, weight, *args, **kwargs)


def _is_pinned(func: Any, weight: Weight, *args: Any, **kwargs: Any) -> Any:
    return func(weight.codes, *args, **kwargs)


def _run_in_place(kind: type, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation that writes to a weight: decode, run, encode again."""
    if torch.Tag.inplace_view in func.tags:
        raise NotImplementedError(f"{func} would change the shape or the storage of an LNSWeight in place")
    if func is aten._foreach_copy_.default:
        for own, source in zip(args[0], args[1], strict=True):
            own.copy_(source, *args[2:], **kwargs)
        return None
    func, args = _with_scale_multiplied(kind, func, args)
    floats: dict[int, torch.Tensor] = {}
    written: list[Weight] = []

    def decode(weight: Weight) -> torch.Tensor:
        if id(weight) not in floats:
            floats[id(weight)] = weight.to_float()
        return floats[id(weight)]

    for position, name in _written_arguments(func):
        _map(kind, written.append, args[position] if position < len(args) else kwargs.get(name))
    is_filled = func.overloadpacket in _FILLING
    is_output = _writes_outputs(func) and not _reads(kind, written, args, kwargs)
    out = func(*_map(kind, decode, args), **_map(kind, decode, kwargs))
    weights = {id(floats[id(weight)]): weight for weight in written}
    for weight in weights.values():
        if is_filled or is_output:
            write_anew(weight, floats[id(weight)], underflow="saturate" if is_filled else "round")
        else:
            write_over(weight, floats[id(weight)])
    return _map(torch.Tensor, lambda tensor: weights.get(id(tensor), tensor), out)


def _with_scale_multiplied(kind: type, func: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Where a weight is to be multiplied by a number: with what is left of that after its scale was multiplied."""
    if func not in _SCALING or not isinstance(args[0], kind):
        return func, args
    number = args[1]
    if isinstance(number, torch.Tensor):
        if isinstance(number, kind) or number.ndim or number.is_complex() or not is_real(number) or not number.is_cpu:
            return func, args
        number = number.item()
    if isinstance(number, complex) or number == 0:
        return func, args
    factor = 1 / number if func in _DIVIDING else float(number)
    rest = multiply(args[0], factor)
    return (func, args) if rest == factor else (aten.mul_.Scalar, (args[0], rest))


def _reads(kind: type, written: list[Weight], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether what is written to stands among the arguments a second time, as itself or as a view."""
    found: list[Weight] = []
    _map(kind, found.append, (args, kwargs))
    return any(sum(one._span.is_that_of(weight._span) for one in found) > 1 for weight in written)


def _is_view(func: Any) -> bool:
    """Whether an operation returns a view of its first argument."""
    returned = [r.alias_info for r in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


@lru_cache(maxsize=1024)
def _written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Position and name of the arguments that an operation writes to."""
    arguments = enumerate(func._schema.arguments)
    return tuple((i, a.name) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)


@lru_cache(maxsize=1024)
def _writes_outputs(func: Any) -> bool:
    """Whether an operation writes to `out` alone, whatever that held."""
    written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return all(a.kwarg_only for a in written)


def _refuse_memory(func: Any, *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(f"{func} would look at the float memory of an LNSWeight, which has none: use to_float()")


def _refuse_collective(func: Any, *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(
        f"{func} on an LNSWeight: its codes are what processes must exchange: send weight.codes, and weight.log_offset"
    )


_MODULE_APPLY = nn.Module._apply.__code__

_FLOATS = ", ".join(str(dtype) for dtype in FLOAT_NAMES)

_COLLECTIVES = frozenset(
    ["c10d", "_c10d_functional", "_c10d_functional_autograd", "c10d_functional", "_dtensor", "symm_mem"]
)

_REINTERPRETING = [
    aten.view.dtype, aten._conj.default, aten._neg_view.default, aten.view_as_complex.default,
    aten.view_as_real.default,
]  # fmt: skip

_DIVIDING = frozenset([aten.div_.Scalar, aten.div_.Tensor])
_SCALING = _DIVIDING | {aten.mul_.Scalar, aten.mul_.Tensor}

_FILLING = frozenset(
    [
        aten.bernoulli_, aten.cauchy_, aten.exponential_, aten.fill_, aten.geometric_, aten.log_normal_, aten.normal_,
        aten.random_, aten.uniform_, aten.zero_, aten._foreach_zero_,
    ]
)  # fmt: skip
"""What writes all elements, whatever they were."""

_LIKE = [
    aten.full_like.default, aten.new_full.default, aten.new_ones.default, aten.ones_like.default,
    aten.rand_like.default, aten.randn_like.default, aten.zeros_like.default,
]  # fmt: skip

_SHORT: dict[Any, Callable[..., Any]] = {
    aten.t.default: torch.Tensor.t,
    aten.detach.default: torch.Tensor.detach,
    aten.mm.default: torch.mm,
    aten.addmm.default: torch.addmm,
}
"""What layers ask for at each use, by functions of Python's that read the same arguments in half of the time."""

_HANDLERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_REINTERPRETING, _refuse_memory),
    **dict.fromkeys(_LIKE, _plain_like),
    aten.empty_like.default: _empty_like,
    aten.new_zeros.default: _new_zeros,
    aten.new_empty.default: _new_empty,
    aten.new_empty_strided.default: _new_empty,
    aten.detach.default: _detach,
    aten.clone.default: _clone,
    aten._pin_memory.default: _pin,
    aten.is_pinned.default: _is_pinned,
    aten._unsafe_view.default: _on_codes,
    aten.as_strided.default: _as_strided,
    aten._to_copy.default: _to_copy,
    aten.copy_.default: _copy,
    aten.constant_pad_nd.default: _pad,
    aten.embedding.default: _embedding,
    aten._embedding_bag.default: _embedding_bag,
    aten.embedding_renorm_.default: _renorm_rows,
}
