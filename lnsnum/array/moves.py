"""NumPy's functions that move numbers: to the codes and to the scales is done what NumPy does to an array.

No number is rounded by being moved. What joins tensors of several scales keeps each number's own where one scale does
not hold them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from lnsnum.arithmetic import order_key
from lnsnum.array.elementwise import as_operands, check_one_format, refusal, store
from lnsnum.array.moved_scales import compact, joined_scale
from lnsnum.array.rationals import as_rational
from lnsnum.array.reading import Array
from lnsnum.array.storage import S, ScaledCodes, codes_of_number, into
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.kernels.codes import each_offset

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""NumPy function -> ours, with the same signature."""

NOT_GIVEN: Any = getattr(np, "_NoValue", None)

F = TypeVar("F", bound=Callable[..., Any])


def does(*functions: Callable[..., Any]) -> Callable[[F], F]:
    """Enter a function into the table."""

    def enter(ours: F) -> F:
        FUNCTIONS.update(dict.fromkeys(functions, ours))
        return ours

    return enter


def refuse_given(name: str, **arguments: object) -> None:
    """Raise TypeError where one of the arguments is given that make no sense for a tensor."""
    for argument, value in arguments.items():
        if value is not None and value is not NOT_GIVEN and value is not True:
            raise TypeError(f"numpy.{name} of LNSTensors takes no {argument}=: {_INSTEAD_OF[argument]}")


AXES = frozenset({"axis", "axis1", "axis2", "source", "destination"})
"""Arguments that name axes."""


def check_axes(name: str, argument: str, axes: object) -> None:
    """Raise TypeError for what is neither an integer, several, nor None; how many there are NumPy knows."""
    for axis in axes if isinstance(axes, (tuple, list)) else (axes,):
        if axis is not None and axis is not NOT_GIVEN and not hasattr(axis, "__index__"):
            raise TypeError(f"numpy.{name} takes no {argument}={axes!r}: give an integer, or a tuple of them")


_INSTEAD_OF = {
    "dtype": "a tensor has a format, chosen with astype(fmt)",
    "initial": "add, multiply or compare with it afterwards",
    "where": "put a neutral number elsewhere first, with numpy.where",
    "order": "a tensor has no fields",
    "equal_nan": "there is one NaN, and it is one value here",
    "axis": "ravel first",
    "mean": "it is computed here",
    "weights": "repeat numbers, or give it floats, by to_float()",
    "out": "assign the result, as in y[...] = x",
}


def joined(join: Callable[[list[Array]], Any], parts: Sequence[S], what: str) -> S:
    """One tensor of several, as `join` makes one array of several. No number is rounded.

    Integer scales that differ become one where every number has a code there; else each number keeps its own.
    """
    check_one_format(parts, what, has_out_format=False)
    parts = _at_one_scale(parts)
    codes = np.asarray(join([part.codes for part in parts]))
    offsets = [part.log_offset for part in parts]
    if all(isinstance(offset, int) for offset in offsets) and len(set(cast(list[int], offsets))) == 1:
        return parts[0]._of(codes, parts[0].fmt, offsets[0])
    return parts[0]._of(codes, parts[0].fmt, joined_scale(offsets, [part.shape for part in parts], join))


def _at_one_scale(parts: Sequence[S]) -> Sequence[S]:
    """The parts at one scale, that of the first or the least that holds all; as they are where some number is lost."""
    offsets = [part.log_offset for part in parts]
    if not all(isinstance(offset, int) for offset in offsets) or len(set(cast(list[int], offsets))) == 1:
        return parts
    mask = parts[0].fmt.max_magnitude
    nonzero = [part for part in parts if np.any(part.codes & mask)]
    greatest = max((cast(int, part.log_offset) + int(np.max(part.codes & mask)) for part in nonzero), default=mask)
    least_that_holds_all = max(greatest - mask, -MAX_LOG_OFFSET)
    for offset in (cast(int, offsets[0]), least_that_holds_all):
        moved = [part._of(into(part, part.fmt, offset, part.shape), part.fmt, offset) for part in parts]
        if all(
            np.array_equal(order_key(old.codes, old.fmt, old.log_offset), order_key(new.codes, new.fmt, offset))
            for old, new in zip(parts, moved, strict=True)
        ):
            return moved
    return parts


def of_numpy_2_1(name: str) -> tuple[Any, ...]:
    """A function that NumPy has from 2.1 on, or nothing."""
    return (getattr(np, name),) if hasattr(np, name) else ()


MOVES: tuple[Any, ...] = (
    np.reshape, np.ravel, np.transpose, np.permute_dims, np.matrix_transpose, np.swapaxes, np.moveaxis, np.rollaxis,
    np.squeeze, np.expand_dims, np.broadcast_to, np.flip, np.fliplr, np.flipud, np.rot90, np.roll, np.repeat, np.tile,
    np.take, np.take_along_axis, np.delete, np.diagonal, np.diag, np.tril, np.triu, np.copy,
)  # fmt: skip
"""Functions of one tensor that give one."""

SPLITS: tuple[Any, ...] = (np.split, np.array_split, np.hsplit, np.vsplit, np.dsplit, *of_numpy_2_1("unstack"))
"""Functions of one tensor that give several."""

JOINS: tuple[Any, ...] = (np.concatenate, np.stack, np.vstack, np.hstack, np.dstack, np.column_stack)
"""Functions of a sequence of tensors, numbers among them, that give one."""


def _move(function: Callable[..., Any]) -> Callable[..., Any]:
    def ours(*arguments: Any, out: Any = None, **named: Any) -> Any:
        refuse_given(function.__name__, out=out)
        if arguments:
            a, *arguments = arguments  # type: ignore[assignment]
        else:
            a = named.pop(next(name for name, value in named.items() if isinstance(value, ScaledCodes)))
        if not isinstance(a, ScaledCodes):
            raise refusal(function.__name__, "indices and shapes are integers")
        return a.moved(lambda array: function(array, *arguments, **named))

    return ours


def _ordered(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """A move whose argument `order`, at that place, may ask for the order in memory.

    The scales do not lie in memory as the codes do: "A" and "K" are made C, F or a turn of the axes by the codes alone.
    """
    move = _move(function)

    def ours(*arguments: Any, **named: Any) -> Any:
        a, *others = arguments or (named.pop("a"),)
        order = str(others.pop(place - 1) if len(others) >= place else named.pop("order", "C")).upper()
        if order == "A" and isinstance(a, ScaledCodes):
            order = "F" if a.codes.flags.fnc else "C"
        if order == "K" and isinstance(a, ScaledCodes) and function is np.ravel:
            steps = [-abs(stride) for stride in a.codes.strides]
            a, order = a.transpose(sorted(range(a.ndim), key=steps.__getitem__)), "C"
        if named.get("copy") is False and isinstance(a, ScaledCodes):
            function(a.codes, *others, **named, order=order)  # raises where it must copy; the scales may be copied
            del named["copy"]
        return move(a, *others, **named, order=order)

    return ours


def _split(function: Callable[..., Any]) -> Callable[..., Any]:
    def ours(a: ScaledCodes, *arguments: Any, **named: Any) -> Any:
        parts = function(a.codes, *arguments, **named)

        def scale(i: int) -> Any:
            return a._moved_scale(lambda array: function(array, *arguments, **named)[i])

        return type(parts)(a._of(part, a.fmt, scale(i)) for i, part in enumerate(parts))

    return ours


def _join(function: Callable[..., Any]) -> Callable[..., Any]:
    name = function.__name__

    def ours(arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = None) -> Any:
        refuse_given(name, dtype=dtype)
        along = {"axis": axis} if function in (np.concatenate, np.stack) else {}
        parts = [arrays[i] for i in range(len(arrays))] if isinstance(arrays, ScaledCodes) else list(arrays)
        tensors = as_operands(parts, name)
        if axis is None:
            tensors, along = [part.moved(np.ravel) for part in tensors], {}
        result = joined(lambda codes: function(codes, **along), tensors, name)
        return result if out is None else store(out, result, same_shape=True)

    return ours


FUNCTIONS |= {function: _move(function) for function in MOVES}
FUNCTIONS |= {np.ravel: _ordered(np.ravel, 1), np.reshape: _ordered(np.reshape, 2)}
FUNCTIONS |= {function: _split(function) for function in SPLITS}
FUNCTIONS |= {function: _join(function) for function in JOINS}


def _triangle(function: Callable[..., Any]) -> Callable[..., Any]:
    def ours(m: S, k: int = 0) -> S:
        # nothing moves: zero is zero at the scale that the place has
        return m._of(function(m.codes, k), m.fmt, m.log_offset)

    return ours


FUNCTIONS |= {function: _triangle(function) for function in (np.tril, np.triu)}


@does(np.append)
def _append(arr: Any, values: Any, axis: int | None = None) -> Any:
    parts = as_operands([arr, values], "append")
    if axis is None:
        parts, axis = [part.moved(np.ravel) for part in parts], 0
    return joined(lambda codes: np.concatenate(codes, axis), parts, "append")


@does(np.where)
def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if isinstance(condition, ScaledCodes):
        condition = condition.codes != 0
    if x is None and y is None:
        return np.where(condition)
    tensors = as_operands([_beside(x, y), _beside(y, x)], "where")
    return joined(lambda pair: np.where(condition, *pair), tensors, "where")


def _beside(value: Any, other: Any) -> Any:
    """A number at the scales of a tensor, where they are several and hold it: then the result has no more of them."""
    if isinstance(value, ScaledCodes) or not isinstance(other, ScaledCodes) or isinstance(other.log_offset, int):
        return value
    if as_rational(value) is None:
        return value
    codes = codes_of_number(value, other.fmt, other.log_offset, other.shape)
    return value if codes is None else other._of(codes, other.fmt, other.log_offset)


@does(np.atleast_1d)
def _atleast_1d(*arrays: ScaledCodes) -> Any:
    return _each(np.atleast_1d, arrays)


@does(np.atleast_2d)
def _atleast_2d(*arrays: ScaledCodes) -> Any:
    return _each(np.atleast_2d, arrays)


@does(np.atleast_3d)
def _atleast_3d(*arrays: ScaledCodes) -> Any:
    return _each(np.atleast_3d, arrays)


def _each(function: Any, arrays: Sequence[Any]) -> Any:
    moved = tuple(a.moved(function) if isinstance(a, ScaledCodes) else function(a) for a in arrays)
    return moved[0] if len(moved) == 1 else moved


@does(np.broadcast_arrays)
def _broadcast_arrays(*arrays: Any, subok: bool = False) -> Any:
    shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
    return tuple(np.broadcast_to(a, shape) for a in arrays)


@does(np.copyto)
def _copyto(dst: Any, src: Any, casting: Any = None, where: Any = True) -> None:
    if not isinstance(dst, ScaledCodes):
        raise refusal("copyto", "make floats of the tensor first, by to_float()")
    store(dst, src, where)


@does(np.full_like)
def _full_like(
    a: S,
    fill_value: Any,
    dtype: Any = None,
    order: Any = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> S:
    refuse_given("full_like", dtype=dtype)
    filled = _zeros_like(a, shape=shape)
    filled[...] = fill_value
    return filled


@does(np.zeros_like, np.empty_like)
def _zeros_like(
    a: S, dtype: Any = None, order: Any = None, subok: bool = True, shape: Any = None, *, device: Any = None
) -> S:
    refuse_given("zeros_like", dtype=dtype)
    codes = np.zeros(a.shape if shape is None else shape, a.fmt.dtype)
    offset = a.log_offset
    if codes.shape != a.shape and not isinstance(offset, int):
        offset = compact(each_offset(offset))
    if codes.shape != a.shape and not isinstance(offset, int):
        raise ValueError(
            f"a tensor with a scale for each channel has none for the shape {codes.shape}: it is {a.shape}; "
            "make one with LNSTensor(codes, fmt, log_offset=...)"
        )
    return type(a)(codes, a.fmt, log_offset=offset)


@does(np.ones_like)
def _ones_like(
    a: S, dtype: Any = None, order: Any = None, subok: bool = True, shape: Any = None, *, device: Any = None
) -> S:
    refuse_given("ones_like", dtype=dtype)
    return _full_like(a, 1, shape=shape)


@does(*of_numpy_2_1("astype"))
def _astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    return x.astype(dtype)


@does(np.shape)
def _shape(a: ScaledCodes) -> tuple[int, ...]:
    return a.shape


@does(np.ndim)
def _ndim(a: ScaledCodes) -> int:
    return a.ndim


@does(np.size)
def _size(a: ScaledCodes, axis: Any = None) -> int:
    return int(np.size(a.codes, axis))


def _codes_of(x: Any) -> Any:
    return x.codes if isinstance(x, ScaledCodes) else x


@does(np.shares_memory)
def _shares_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    return np.shares_memory(_codes_of(a), _codes_of(b))


@does(np.may_share_memory)
def _may_share_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    return np.may_share_memory(_codes_of(a), _codes_of(b))
