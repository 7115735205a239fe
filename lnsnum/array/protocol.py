"""NumPy's functions on tensors: a table from the function to what it does. docs/numpy.md tells it to the user.

Here are those that choose by value, with integers in the order of the values, and sums and products, which are those of
`lnsnum.reduction`; those that move numbers are in `lnsnum.array.moves`. What is in no table is refused by name.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum import arithmetic, reduction
from lnsnum.array import elementwise
from lnsnum.array.elementwise import (
    INSTEAD,
    apply,
    apply_into,
    as_operands,
    check_fits,
    check_one_format,
    compare,
    isnan,
    keys,
    reduce_into,
    refusal,
    refuse_tensor,
    store,
)
from lnsnum.array.moves import AXES, FUNCTIONS, NOT_GIVEN, check_axes, does, refuse_given
from lnsnum.array.storage import S, ScaledCodes, holds_tensor
from lnsnum.kernels.codes import check_codes
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.operations.order import ranks

# ------------------------------------------------------------------------------------------- what chooses by value


def _order(a: ScaledCodes, nan: int) -> NDArray[Any]:
    """Integers in the order of the values, NaN first (-1) or last (1)."""
    if isinstance(a.log_offset, int):
        rank = ranks(check_codes(a.codes, a.fmt), a.fmt)
        # the last rank, NaN's, is followed by the first
        return rank if nan > 0 else np.asarray((rank + 1) & rank.dtype.type((1 << a.fmt.bits) - 1))
    key, is_nan = keys(a, a)
    return np.where(is_nan, nan << 40, key)


def _take_along(a: S, indices: NDArray[Any], axis: int | None) -> S:
    return a.moved(lambda array: np.take_along_axis(array, indices, axis))


@does(np.argsort)
def argsort(a: ScaledCodes, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """numpy.argsort: stable, NaN last."""
    refuse_given("argsort", order=order)
    return np.argsort(_order(a, 1), axis, kind="stable")


@does(np.sort)
def sort(a: S, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> S:
    """numpy.sort: stable, NaN last; each number keeps its scale."""
    refuse_given("sort", order=order)
    if axis is None:
        a, axis = a.moved(np.ravel), -1
    if has_one_scale_along(a, axis):
        return a._of(arithmetic.sort(a.codes, a.fmt, axis), a.fmt, a.log_offset)
    return _take_along(a, argsort(a, axis), axis)


def has_one_scale_along(a: ScaledCodes, axis: int) -> bool:
    """Whether numbers may change places along an axis without one of scale."""
    if isinstance(a.log_offset, int):
        return True
    along = np.lib.array_utils.normalize_axis_index(axis, a.ndim)
    if isinstance(a.log_offset, GroupOffsets):
        return bool(a.log_offset.padded(a.ndim).shape[along] == 1)
    return np.broadcast_to(a.log_offset, a.shape).strides[along] == 0


@does(np.argmax)
def argmax(a: ScaledCodes, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Any:
    """numpy.argmax: of the first NaN where there is one."""
    return np.argmax(_order(a, 1), axis, out, keepdims=keepdims)


@does(np.argmin)
def argmin(a: ScaledCodes, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Any:
    """numpy.argmin: of the first NaN where there is one."""
    return np.argmin(_order(a, -1), axis, out, keepdims=keepdims)


def _extreme(name: str, choose: Callable[..., Any]) -> Callable[..., Any]:
    def ours(
        a: S, axis: Any = None, out: Any = None, keepdims: bool = False, initial: Any = None, where: Any = True
    ) -> S:
        refuse_given(name, initial=initial, where=where)
        check_axes(name, "axis", axis)
        axes = tuple(range(a.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = np.lib.array_utils.normalize_axis_tuple(axes, a.ndim)
        kept = [i for i in range(a.ndim) if i not in axes]
        count = int(np.prod([a.shape[i] for i in axes], dtype=np.int64))
        if count == 0:
            raise ValueError(f"the {name} of no elements is not defined")
        shape = tuple(a.shape[i] for i in kept)
        flat = a.moved(lambda array: array.transpose(*kept, *axes).reshape(*shape, count))
        chosen = _take_along(flat, choose(flat, -1, keepdims=True), -1)
        final = tuple(1 if i in axes else n for i, n in enumerate(a.shape)) if keepdims else shape
        result = chosen.moved(lambda array: array.reshape(final))
        return result if out is None else store(out, result, same_shape=True)

    return ours


greatest = does(np.max, np.amax)(_extreme("max", argmax))
least = does(np.min, np.amin)(_extreme("min", argmin))


@does(np.clip)
def clip(
    a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None, **named: Any
) -> Any:
    """numpy.clip: minimum(maximum(a, a_min), a_max)."""
    for unknown in named:
        raise TypeError(f"numpy.clip of LNSTensors takes out=, not {unknown}=")
    lower, upper = a_min if min is None or min is NOT_GIVEN else min, a_max if max is None or max is NOT_GIVEN else max
    given = [a, *(bound for bound in (lower, upper) if bound is not None)]
    tensors = as_operands(given, "clip")
    if len(tensors) == 1:
        return tensors[0].copy() if out is None else store(out, tensors[0])
    function = elementwise.clip if len(tensors) == 3 else arithmetic.minimum if lower is None else arithmetic.maximum
    return apply(function, tensors) if out is None else apply_into(out, function, tensors)


@does(np.unique)
def _unique(
    ar: S, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False, axis: Any = None,
    *, equal_nan: bool = True, sorted: bool = True,
) -> Any:  # fmt: skip
    refuse_given("unique", axis=axis, equal_nan=equal_nan)
    _, first, *others = cast(Any, np.unique)(_order(ar, 1), True, return_inverse, return_counts)
    values = ar.moved(lambda array: np.ravel(array)[first])
    results = [values, *([first] if return_index else []), *others]
    return values if len(results) == 1 else tuple(results)


@does(np.searchsorted)
def _searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Any:
    tensors = [x for x in (a, v) if isinstance(x, ScaledCodes)]
    check_one_format(tensors, "searchsorted", has_out_format=False)
    (a_key, a_nan), (v_key, v_nan) = keys(a, tensors[0]), keys(v, tensors[0])
    last = np.int64(1 << 40)
    return np.searchsorted(np.where(a_nan, last, a_key), np.where(v_nan, last, v_key), side, sorter)


@does(np.nonzero)
def _nonzero(a: ScaledCodes) -> Any:
    return np.nonzero(a.codes)


@does(np.flatnonzero)
def _flatnonzero(a: ScaledCodes) -> Any:
    return np.flatnonzero(a.codes)


@does(np.argwhere)
def _argwhere(a: ScaledCodes) -> Any:
    return np.argwhere(a.codes)


@does(np.count_nonzero)
def _count_nonzero(a: ScaledCodes, axis: Any = None, *, keepdims: bool = False) -> Any:
    return np.count_nonzero(a.codes, axis, keepdims=keepdims)


def _truths(a: ScaledCodes) -> NDArray[np.bool_]:
    return np.asarray(a.codes != 0)  # of an array without axes too, where NumPy would give a scalar


@does(np.any)
def _any(a: ScaledCodes, *arguments: Any, **named: Any) -> Any:
    return np.any(_truths(a), *arguments, **named)


@does(np.all)
def _all(a: ScaledCodes, *arguments: Any, **named: Any) -> Any:
    return np.all(_truths(a), *arguments, **named)


@does(np.array_equal)
def _array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    tensors = as_operands([a1, a2], "array_equal")
    check_one_format(tensors, "array_equal", has_out_format=False)
    if tensors[0].shape != tensors[1].shape:
        return False
    equal = compare(np.equal, *tensors)
    return bool(np.all(equal | (isnan(tensors[0]) & isnan(tensors[1])) if equal_nan else equal))


def _as_floats(x: Any) -> Any:
    return x.to_float() if isinstance(x, ScaledCodes) else x


@does(np.isclose)
def _isclose(a: Any, b: Any, *arguments: Any, **named: Any) -> Any:
    return np.isclose(_as_floats(a), _as_floats(b), *arguments, **named)


@does(np.allclose)
def _allclose(a: Any, b: Any, *arguments: Any, **named: Any) -> bool:
    return bool(np.allclose(_as_floats(a), _as_floats(b), *arguments, **named))


# -------------------------------------------------------------------------------------------------- sums and products


@does(np.sum)
def _sum(
    a: S, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, initial: Any = None,
    where: Any = True,
) -> S:  # fmt: skip
    refuse_given("sum", dtype=dtype, initial=initial, where=where)
    return reduce_into(cast(S | None, out), reduction.sum, [a], axis=axis, keepdims=keepdims)


@does(np.mean)
def _mean(
    a: S, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, *, where: Any = True
) -> S:
    refuse_given("mean", dtype=dtype, where=where)
    return reduce_into(cast(S | None, out), reduction.mean, [a], axis=axis, keepdims=keepdims)


@does(np.prod)
def _prod(
    a: S, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, initial: Any = None,
    where: Any = True,
) -> S:  # fmt: skip
    refuse_given("prod", dtype=dtype, initial=initial, where=where)
    return reduce_into(cast(S | None, out), reduction.prod, [a], axis=axis, keepdims=keepdims)


@does(np.trace)
def _trace(a: S, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> S:
    return _sum(a.moved(lambda array: np.diagonal(array, offset, axis1, axis2)), -1, dtype, out)


@does(np.dot)
def dot(a: Any, b: Any, out: Any = None, **options: Any) -> Any:
    """numpy.dot: the sum of products over the last axis of a and the last but one of b."""
    x, y = as_operands([a, b], "dot")
    if x.ndim == 0 or y.ndim == 0:
        if out is None:
            return apply(arithmetic.multiply, [x, y], **options)
        check_fits(x.shape or y.shape, out, exactly=True)
        return apply_into(out, arithmetic.multiply, [x, y])
    if y.ndim > 2:
        rows = x.moved(lambda array: array.reshape(math.prod(array.shape[:-1]), array.shape[-1]))
        others = math.prod(y.shape[:-2]) * y.shape[-1]
        columns = y.moved(lambda array: np.moveaxis(array, -2, 0).reshape(array.shape[-2], others))
        shape = (*x.shape[:-1], *y.shape[:-2], y.shape[-1])
        product = reduce_into(None, reduction.matmul, [rows, columns], **options)
        product = product.moved(lambda array: array.reshape(shape))
        return product if out is None else store(out, product, same_shape=True)
    return reduce_into(out, reduction.matmul, [x, y], **options)


@does(np.vdot)
def _vdot(a: Any, b: Any, /) -> Any:
    x, y = as_operands([a, b], "vdot")
    return reduce_into(None, reduction.matmul, [x.moved(np.ravel), y.moved(np.ravel)])


@does(np.inner)
def _inner(a: Any, b: Any, /) -> Any:
    x, y = as_operands([a, b], "inner")
    turned = x.ndim > 0 and y.ndim > 1  # a number times a matrix is the matrix, each element multiplied
    return dot(x, y.moved(lambda array: np.swapaxes(array, -1, -2)) if turned else y)


@does(np.outer)
def _outer(a: Any, b: Any, out: Any = None) -> Any:
    x, y = as_operands([a, b], "outer")
    tensors = [x.moved(lambda array: array.reshape(-1, 1)), y.moved(np.ravel)]
    function = arithmetic.multiply
    return apply(function, tensors) if out is None else apply_into(out, function, tensors)


@does(np.tensordot)
def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    x, y = as_operands([a, b], "tensordot")
    if isinstance(axes, (int, np.integer)):
        axes = list(range(x.ndim - int(axes), x.ndim)), list(range(int(axes)))
    of_x, of_y = (
        np.lib.array_utils.normalize_axis_tuple(chosen, t.ndim) for chosen, t in zip(axes, (x, y), strict=True)
    )
    if [x.shape[i] for i in of_x] != [y.shape[i] for i in of_y]:
        raise ValueError(f"shapes {x.shape} and {y.shape} do not match along the axes {of_x} and {of_y}")
    kept_x, kept_y = ([i for i in range(t.ndim) if i not in of_t] for t, of_t in ((x, of_x), (y, of_y)))
    count = int(np.prod([x.shape[i] for i in of_x], dtype=np.int64))
    shape = (*(x.shape[i] for i in kept_x), *(y.shape[i] for i in kept_y))
    rows, columns = (int(np.prod([t.shape[i] for i in k], dtype=np.int64)) for t, k in ((x, kept_x), (y, kept_y)))
    left = x.moved(lambda array: array.transpose(*kept_x, *of_x).reshape(rows, count))
    right = y.moved(lambda array: array.transpose(*of_y, *kept_y).reshape(count, columns))
    return reduce_into(None, reduction.matmul, [left, right]).moved(lambda array: array.reshape(shape))


TENSORS: dict[Callable[..., Any], tuple[str, ...]] = {
    **dict.fromkeys((np.dot, np.vdot, np.inner, np.outer, np.tensordot), ("a", "b")),
    **dict.fromkeys((np.isclose, np.allclose, np.shares_memory, np.may_share_memory), ("a", "b")),
    np.array_equal: ("a1", "a2"),
    np.searchsorted: ("a", "v"),
    np.where: ("condition", "x", "y"),
    np.clip: ("a", "a_min", "a_max", "min", "max"),
    np.append: ("arr", "values"),
    np.copyto: ("dst", "src"),
    np.full_like: ("a", "fill_value"),
    np.diff: ("a", "prepend", "append"),
}
"""The arguments that may be tensors: of functions that are not here the first, or all of `*arrays`."""


def array_function(function: Callable[..., Any], arguments: Sequence[Any], named: dict[str, Any]) -> Any:
    """What `__array_function__` does: see docs/numpy.md."""
    ours = FUNCTIONS.get(function)
    name = f"{function.__module__}.{function.__name__}".removeprefix("numpy.")
    if ours is None:
        raise refusal(name, _INSTEAD.get(function.__name__, INSTEAD))
    given = (*arguments, *(value for key, value in named.items() if key != "out"))
    if isinstance(named.get("out"), ScaledCodes) and not any(map(holds_tensor, given)):
        raise refusal(name, "what goes into one must be made one, with LNSTensor.from_float")
    signature = signature_of(function, ours)
    allowed = TENSORS.get(function) or tuple(signature.parameters)[:1]
    for argument, value in signature.bind(*arguments, **named).arguments.items():
        if argument not in (*allowed, "out"):
            refuse_tensor(name, argument, value)
        if argument in AXES:
            check_axes(name, argument, value)
    return ours(*arguments, **named)


@lru_cache(maxsize=256)
def signature_of(function: Callable[..., Any], ours: Callable[..., Any]) -> inspect.Signature:
    """NumPy's, or our own where NumPy's is in C and says nothing."""
    try:
        return inspect.signature(function)
    except ValueError:
        return inspect.signature(ours)


_INSTEAD = {
    **dict.fromkeys(
        ("save", "savez", "savez_compressed"),
        "lnsnum.save_weights keeps the codes, their format and scale; or give it floats, by to_float()",
    ),
}
