"""NumPy's ufuncs on tensors: tables from the ufunc to what it does. docs/numpy.md tells it to the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lnsnum import arithmetic, reduction
from lnsnum.array import elementwise
from lnsnum.array.elementwise import (
    INSTEAD,
    apply,
    apply_into,
    as_operands,
    check_fits,
    compare,
    cube_root,
    reduce_into,
    refusal,
    refuse_tensor,
    store,
    to_power,
)
from lnsnum.array.storage import ScaledCodes

ROUNDED: dict[Any, Any] = {
    np.add: arithmetic.add,
    np.subtract: arithmetic.subtract,
    np.multiply: arithmetic.multiply,
    np.divide: arithmetic.divide,
    np.float_power: arithmetic.float_power,
    np.minimum: arithmetic.minimum,
    np.maximum: arithmetic.maximum,
    np.reciprocal: arithmetic.reciprocal,
    np.square: arithmetic.square,
    np.sqrt: arithmetic.sqrt,
    np.cbrt: cube_root,
    np.exp: arithmetic.exp,
    np.exp2: arithmetic.exp2,
    np.log: arithmetic.log,
    np.log2: arithmetic.log2,
    np.log10: arithmetic.log10,
    np.expm1: arithmetic.expm1,
    np.log1p: arithmetic.log1p,
    np.tanh: arithmetic.tanh,
    np.sinh: arithmetic.sinh,
    np.cosh: arithmetic.cosh,
    np.hypot: arithmetic.hypot,
    np.logaddexp: arithmetic.logaddexp,
}
"""Results at out_log_offset, rounded or at the edges of the scale."""

KEPT: dict[Any, Any] = {
    np.negative: elementwise.negative,
    np.positive: elementwise.positive,
    np.conjugate: elementwise.positive,
    np.absolute: elementwise.absolute,
    np.fabs: elementwise.absolute,
    np.sign: elementwise.sign,
    np.copysign: elementwise.copysign,
    np.nextafter: elementwise.nextafter,
}
"""Results at the scale of the first operand."""

TESTED: dict[Any, Any] = {
    np.isnan: elementwise.isnan,
    np.isinf: elementwise.isinf,
    np.isfinite: elementwise.isfinite,
    np.signbit: elementwise.signbit,
}
"""Truth values."""

COMPARED = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)

SUPPORTED = frozenset([*ROUNDED, *KEPT, *TESTED, *COMPARED, np.power, np.matmul])

REDUCED: dict[Any, Any] = {np.add: np.sum, np.multiply: np.prod, np.minimum: np.min, np.maximum: np.max}
"""The functions that ufunc.reduce stands for."""

_INSTEAD = {
    np.floor_divide: "a quotient is rounded to no integer in a logarithmic format; give it floats, by to_float()",
    np.fmin: "numpy.minimum does, where NaN wins",
    np.fmax: "numpy.maximum does, where NaN wins",
    np.left_shift: "multiply by a power of two",
    np.right_shift: "divide by a power of two",
    **dict.fromkeys(
        (np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.bitwise_and, np.bitwise_or, np.bitwise_xor,
         np.invert), "compare first, as in x != 0"),
}  # fmt: skip


def array_ufunc(ufunc: np.ufunc, method: str, inputs: Sequence[Any], named: dict[str, Any]) -> Any:
    """What `__array_ufunc__` does: see docs/numpy.md."""
    name = ufunc.__name__
    if method == "reduce" and ufunc in REDUCED and isinstance(inputs[0], ScaledCodes):
        axis = {"axis": 0, **named}
        if isinstance(axis.get("out"), tuple):
            (axis["out"],) = axis["out"]
        return REDUCED[ufunc](*inputs, **axis)
    if method != "__call__":
        raise refusal(f"{name}.{method}")
    if ufunc not in SUPPORTED:
        raise refusal(name, _INSTEAD.get(ufunc, INSTEAD))
    (out,) = named.pop("out", (None,))
    for argument, value in named.items():
        refuse_tensor(name, argument, value)
    where = named.pop("where", True)
    for unknown in named:
        raise TypeError(
            f"numpy.{name} of LNSTensors takes out= and where=, not {unknown}=: a format is chosen with astype, "
            "a rounding with the method of the tensor"
        )
    if where is not True and out is None:
        raise TypeError(f"numpy.{name} with where= and no out= would leave elements unset: give out=")
    if ufunc in COMPARED or ufunc in TESTED:
        return _tested(ufunc, inputs, out, where)
    if out is not None and not isinstance(out, ScaledCodes):
        raise TypeError(f"numpy.{name} of LNSTensors writes into an LNSTensor, not into a {type(out).__name__}")
    if out is not None and not any(isinstance(x, ScaledCodes) for x in inputs):
        kinds = " and ".join(type(x).__name__ for x in inputs)
        raise TypeError(
            f"numpy.{name} of {kinds} into an LNSTensor: make the operand one with "
            f"LNSTensor.from_float(x, {out.fmt.name!r})"
        )
    if ufunc is np.power and isinstance(inputs[0], ScaledCodes):
        return to_power(inputs[0], inputs[1], out, where)
    if ufunc is np.power:
        ufunc = np.float_power
    if ufunc is np.matmul:
        return _product(inputs, out, where)
    tensors = as_operands(inputs, name)
    if ufunc in KEPT:
        result = KEPT[ufunc](*tensors)
        if out is None:
            return result
        check_fits(result.shape, out)
        return store(out, result, where)
    function = ROUNDED[ufunc]
    return apply(function, tensors) if out is None else apply_into(out, function, tensors, where)


def _tested(ufunc: np.ufunc, inputs: Sequence[Any], out: Any, where: Any) -> Any:
    if isinstance(out, ScaledCodes):
        raise TypeError(f"numpy.{ufunc.__name__} gives truth values: out is an array of bool, not an LNSTensor")
    result = compare(ufunc, *inputs) if ufunc in COMPARED else TESTED[ufunc](*inputs)
    if out is None:
        return result
    check_fits(result.shape, out)
    np.copyto(out, result, where=where)
    return out


def _product(inputs: Sequence[Any], out: Any, where: Any) -> Any:
    if where is not True:
        raise TypeError("numpy.matmul takes no where=")
    return reduce_into(out, reduction.matmul, as_operands(inputs, "matmul"))
