"""NumPy's functions of several numbers that float64 computes: variance, running sums, einsum, norms, quantiles.

    codes  ->  float64, relative to a power of the base that all share  ->  NumPy  ->  one rounding, to nearest

This is what sums and matrix products do in their default accumulator: the precision of float64, any scale, and the last
bits are those of the machine's NumPy. What is exact or correctly rounded without floats is so here too: running
products, differences, the range, padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, cast

import numpy as np

from lnsnum import arithmetic, reduction
from lnsnum.array.elementwise import (
    INSTEAD,
    apply,
    apply_into,
    as_operands,
    check_fits,
    check_one_format,
    reduce_into,
    refusal,
    refuse_tensor,
)
from lnsnum.array.moves import NOT_GIVEN, check_axes, does, joined, of_numpy_2_1, refuse_given
from lnsnum.array.protocol import greatest, least
from lnsnum.array.storage import S, ScaledCodes, in_groups
from lnsnum.kernels.codes import check_codes, each_offset
from lnsnum.operations import float_sums
from lnsnum.operations.operation import Wanted


def through_floats(
    name: str,
    compute: Callable[..., Any],
    tensors: Sequence[S],
    *,
    each: int = 1,
    power: int = 1,
    terms: int = 1,
    out: Any = None,
) -> Any:
    """The results of NumPy on float64, rounded once.

    Args:
        name: of NumPy's function, for what is refused.
        compute: arrays of float64, one for each tensor -> an array.
        tensors: of one format.
        each: how often each number stands in a product on the way.
        power: how often in a result.
        terms: how many such products are added.
        out: a tensor that the results are written into.
    """
    check_one_format(tensors, name, has_out_format=False)
    fmt = tensors[0].fmt
    numbers = [float_sums.Numbers(check_codes(x.codes, fmt), fmt, x.log_offset) for x in tensors]
    floats, factors = float_sums.in_reach(numbers, each, terms)
    with np.errstate(all="ignore"):
        values = np.asarray(compute(*floats), np.float64)
    scaled = float_sums.Scaled(values, power * sum(factors))
    if out is None:
        is_scaled = any(np.any(each_offset(x.log_offset)) for x in tensors)
        codes, offset = float_sums.to_codes(scaled, fmt, Wanted(out_log_offset="fit" if is_scaled else 0))
        return tensors[0]._of(codes, fmt, offset)
    if not isinstance(out, ScaledCodes):
        raise TypeError(f"{name} of LNSTensors writes into an LNSTensor, not into a {type(out).__name__}")
    if out.fmt.base != fmt.base:
        raise TypeError(f"{name} of {fmt.name} into {out.fmt.name}: their bases differ")
    check_fits(values.shape, out, exactly=True)
    codes = np.empty(out.shape, out.fmt.dtype)
    for offset, chosen in in_groups(out.log_offset, out.shape):
        part = scaled._replace(values=values[chosen])
        codes[chosen] = float_sums.to_codes(part, out.fmt, Wanted(out_log_offset=offset))[0]
    np.copyto(out.codes, codes)
    return out


def _count(name: str, a: ScaledCodes, axis: Any) -> int:
    check_axes(name, "axis", axis)
    axes = range(a.ndim) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, a.ndim)
    return math.prod(a.shape[i] for i in axes)


def _given(value: Any, default: Any) -> Any:
    return default if value is NOT_GIVEN else value


# ------------------------------------------------------------------------------------------------------------- moments


def _deviation(name: str, function: Callable[..., Any], power: int) -> Callable[..., Any]:
    def ours(
        a: S, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: Any = NOT_GIVEN, *,
        where: Any = True, mean: Any = None, correction: Any = NOT_GIVEN,
    ) -> Any:  # fmt: skip
        refuse_given(name, dtype=dtype, where=where, mean=mean)
        if correction is not NOT_GIVEN:
            if ddof != 0:
                raise ValueError(f"numpy.{name} takes ddof= or correction=, which are the same: leave out one of them")
            ddof = correction
        if not isinstance(ddof, (int, float, np.integer, np.floating)) or not math.isfinite(ddof):
            raise TypeError(f"numpy.{name} takes no ddof={ddof!r}: give the number to be subtracted from the count")
        count = _count(name, a, axis)
        if count - ddof <= 0:
            raise ValueError(f"the {name} of {count} elements with ddof={ddof} is not defined")
        keep = bool(_given(keepdims, False))

        def compute(x: Any) -> Any:
            return function(x, axis=axis, ddof=ddof, keepdims=keep)

        # the square of a difference of two
        return through_floats(name, compute, [a], each=2, power=power, terms=4 * count, out=out)

    return ours


variance = does(np.var)(_deviation("var", np.var, 2))
standard_deviation = does(np.std)(_deviation("std", np.std, 1))


def _quantiles(function: Callable[..., Any]) -> Callable[..., Any]:
    name = function.__name__

    def ours(
        a: S, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
        keepdims: bool = False, *, weights: Any = None, interpolation: Any = None,
    ) -> Any:  # fmt: skip
        refuse_given(name, weights=weights)
        method = method if interpolation is None else interpolation
        if np.asarray(q).dtype.kind not in "biuf":
            last = 1 if name == "quantile" else 100
            raise TypeError(f"numpy.{name} takes no q={q!r}: give a number from 0 to {last}, or several")
        if _count(name, a, axis) == 0:
            raise ValueError(f"the {name} of no elements is not defined")

        def compute(x: Any) -> Any:
            return function(x, q, axis=axis, method=method, keepdims=keepdims)

        return through_floats(name, compute, [a], terms=2, out=out)

    return ours


does(np.quantile)(_quantiles(np.quantile))
does(np.percentile)(_quantiles(np.percentile))


@does(np.median)
def _median(a: S, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    if _count("median", a, axis) == 0:
        raise ValueError("the median of no elements is not defined")
    return through_floats("median", lambda x: np.median(x, axis=axis, keepdims=keepdims), [a], terms=2, out=out)


@does(np.ptp)
def _ptp(a: S, axis: Any = None, out: Any = None, keepdims: Any = NOT_GIVEN) -> Any:
    keep = bool(_given(keepdims, False))
    ends = [greatest(a, axis, keepdims=keep), least(a, axis, keepdims=keep)]
    if out is None:
        return apply(arithmetic.subtract, ends)
    check_fits(ends[0].shape, out, exactly=True)
    return apply_into(out, arithmetic.subtract, ends)


# ------------------------------------------------------------------------------------------- running sums and products


@does(np.cumsum)
def cumsum(a: S, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """numpy.cumsum: left to right, in float64."""
    refuse_given("cumsum", dtype=dtype)
    return through_floats("cumsum", lambda x: np.cumsum(x, axis=axis), [a], terms=_count("cumsum", a, axis), out=out)


@does(np.cumprod)
def _cumprod(a: S, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    refuse_given("cumprod", dtype=dtype)
    _count("cumprod", a, axis)  # which raises what NumPy raises for an axis that there is not
    flat = a.moved(lambda array: array.reshape(-1)) if a.ndim == 0 else a
    return reduce_into(out, reduction.cumprod, [flat], axis=axis)


def _cumulative(name: str, running: Callable[..., Any], first: int) -> Callable[..., Any]:
    def ours(x: S, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False) -> Any:
        refuse_given(name, dtype=dtype)
        if axis is None and x.ndim > 1:
            raise ValueError(f"numpy.{name} of {x.ndim} axes needs axis=")
        if x.ndim == 0:
            x = x.moved(lambda array: array.reshape(1))
        axis = 0 if axis is None else axis
        if not include_initial:
            return running(x, axis, None, out)
        refuse_given(name, out=out)
        axis = np.lib.array_utils.normalize_axis_index(axis, x.ndim)
        shape = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
        start = as_operands([x, first], name)[1].moved(lambda array: np.broadcast_to(array, shape))
        return joined(lambda codes: np.concatenate(codes, axis), [start, running(x, axis)], name)

    return ours


for _function, _running, _first in (
    *((f, cumsum, 0) for f in of_numpy_2_1("cumulative_sum")),
    *((f, _cumprod, 1) for f in of_numpy_2_1("cumulative_prod")),
):
    does(_function)(_cumulative(_function.__name__, _running, _first))


@does(np.diff)
def _diff(a: S, n: int = 1, axis: int = -1, prepend: Any = NOT_GIVEN, append: Any = NOT_GIVEN) -> Any:
    if n < 0:
        raise ValueError(f"n={n} is no order of a difference: 0 or more")
    if n == 0:
        return a
    if a.ndim == 0:
        raise ValueError("numpy.diff of one number: give a tensor with at least one axis")
    axis = np.lib.array_utils.normalize_axis_index(axis, a.ndim)
    parts = [a]
    for place, value in ((0, prepend), (2, append)):
        if value is not NOT_GIVEN:
            other = as_operands([a, value], "diff")[1]
            if other.ndim == 0:
                shape = tuple(1 if i == axis else m for i, m in enumerate(a.shape))
                other = np.broadcast_to(cast(Any, other), shape)  # type: ignore[assignment]
            parts.insert(place, cast(S, other))
    result = joined(lambda codes: np.concatenate(codes, axis), parts, "diff") if len(parts) > 1 else a
    before = (slice(None),) * axis
    for _ in range(n):
        result = apply(arithmetic.subtract, [result[(*before, slice(1, None))], result[(*before, slice(None, -1))]])
    return result


# ----------------------------------------------------------------------------------------------------- sums of products


@does(np.einsum)
def _einsum(*operands: Any, out: Any = None, optimize: Any = False, **named: Any) -> Any:
    for unknown in named:
        raise TypeError(f"numpy.einsum of LNSTensors takes out= and optimize=, not {unknown}=")
    # a string and the operands, or each operand and its list of axes, and a list of those of the result
    of_string = isinstance(operands[0], str)
    places = range(1, len(operands)) if of_string else range(0, len(operands) - len(operands) % 2, 2)
    tensors = as_operands([operands[i] for i in places], "einsum")

    def compute(*floats: Any) -> Any:
        given = list(operands)
        for i, array in zip(places, floats, strict=True):
            given[i] = array
        # operands one after the other, however many: no other order of additions
        return np.einsum(*given, optimize=optimize)

    return through_floats("einsum", compute, tensors, terms=math.prod(max(x.size, 1) for x in tensors), out=out)


@does(np.linalg.norm)
def _norm(x: S, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    axes = x.ndim if axis is None else 1 if np.ndim(axis) == 0 else len(axis)
    known = {1: (None, 0, 1, 2, math.inf, -math.inf), 2: (None, "fro", 1, -1, math.inf, -math.inf)}
    if ord is not None and (axes not in known or ord not in known[axes]):
        raise refusal("linalg.norm", f"ord={ord!r} of {axes} axes takes powers or a decomposition; {INSTEAD}")

    def compute(values: Any) -> Any:
        return np.linalg.norm(values, ord, axis, keepdims)

    # a number of numbers has no scale
    return through_floats("linalg.norm", compute, [x], each=2, power=0 if ord == 0 else 1, terms=max(x.size, 1))


# -------------------------------------------------------------------------------------------------------------- padding

_MODES = {
    "constant": "constant_values", "empty": None, "edge": None, "wrap": None,
    "reflect": "reflect_type", "symmetric": "reflect_type",
}  # fmt: skip
"""Those that make no numbers of their own, and the argument that each has."""


@does(np.pad)
def _pad(array: S, pad_width: Any, mode: Any = "constant", **named: Any) -> Any:
    for argument, value in named.items():
        refuse_tensor("pad", argument, value)
    known = _MODES.get(mode, "") if isinstance(mode, str) else ""
    if known == "":
        raise refusal("pad", f"mode={mode!r} makes numbers of its own; {INSTEAD}")
    for argument in named:
        if argument != known:
            raise TypeError(f"numpy.pad with mode={mode!r} takes no {argument}=" + (f", but {known}=" if known else ""))
    if mode not in ("constant", "empty"):
        if named.get("reflect_type", "even") != "even":
            raise refusal("pad", f"reflect_type='odd' makes numbers of its own; {INSTEAD}")
        return array.moved(lambda codes: np.pad(codes, pad_width, mode, **named))
    padded = array._of(np.pad(array.codes, pad_width), array.fmt, _padded_scale(array, pad_width))
    if mode == "empty" or "constant_values" not in named:
        return padded
    # NumPy says where which constant goes: it pads with their indices
    try:
        values = np.broadcast_to(np.asarray(named["constant_values"], object), (array.ndim, 2))
    except ValueError:
        values = np.empty((0, 2), object)
    if values.shape[0] != array.ndim or not all(isinstance(value, (Real, Decimal, np.bool_)) for value in values.flat):
        raise TypeError(
            f"numpy.pad takes no constant_values={named['constant_values']!r}: give a number, two, or two for each axis"
        )
    indices = np.arange(1, values.size + 1).reshape(values.shape)
    place = np.pad(np.zeros(array.shape, np.int16), pad_width, mode, constant_values=indices)
    for index, value in zip(indices.flat, values.flat, strict=True):
        if value != 0:
            number = value.item() if isinstance(value, np.generic) else value
            padded = np.where(place == index, number, cast(Any, padded))
    return padded


def _padded_scale(a: ScaledCodes, pad_width: Any) -> Any:
    """Zero has a code at every scale: what is new takes that of its neighbour."""
    if isinstance(a.log_offset, int) or not a.size:
        return a.log_offset if isinstance(a.log_offset, int) else 0
    return a._moved_scale(lambda array: np.pad(array, pad_width, "edge"))
