"""LNSTensor: an array of codes with its format and its scale, that NumPy's functions take.

    x[i]  =  (-1)^s[i] * base^((m[i] - bias + log_offset) / 2^F)

The class only routes: arithmetic is a function on plain arrays in `lnsnum.arithmetic` or `lnsnum.reduction`; what moves
numbers is in `lnsnum.array.storage`, what NumPy's functions do in `lnsnum.array.ufuncs` and `lnsnum.array.protocol`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypedDict, Unpack, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import arithmetic, reduction
from lnsnum.array import elementwise
from lnsnum.array import protocol as numpy_protocol
from lnsnum.array import statistics as numpy_statistics
from lnsnum.array.elementwise import Bools, apply, as_operand, check_one_format, compare, knows, reduce_into, to_power
from lnsnum.array.namespace import VERSIONS, Namespace, namespace_of
from lnsnum.array.storage import ScaledCodes
from lnsnum.array.ufuncs import ROUNDED, array_ufunc
from lnsnum.conversion import rescale
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.gaussian import GaussianLog
from lnsnum.kernels.codes import FLOAT_TYPES, of_elements, same_scale
from lnsnum.kernels.float8 import FLOAT8_TYPES
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.operations.accumulate import Order
from lnsnum.operations.operation import OutLogOffset
from lnsnum.reduction import Accumulator

__all__ = ["LNSTensor"]

Axis = int | tuple[int, ...] | None


class Scaling(TypedDict, total=False):
    """Keyword arguments of `LNSTensor.astype`, and of all that rounds. An array, or groups, is for what takes each
    element by itself: sums and products of matrices take an integer.

    channels, group_size: fit a scale to each channel or group of the result instead of one to all of it, as
    `LNSTensor.from_float` does: of each the least at which nothing of it saturates.
    """

    out_log_offset: OutLogOffset | NDArray[Any] | GroupOffsets
    rounding: Rounding
    overflow: Overflow
    underflow: Underflow
    random_bits: ArrayLike | None
    channels: int | tuple[int, ...] | None
    group_size: int | None


class Rounded(Scaling, total=False):
    """Those of the operations; out_format: the result's format or its name, needed where the operands' differ."""

    out_format: LNSFormat | str | None


class RoundedSum(Rounded, total=False):
    """Those of `LNSTensor.add` and `subtract`."""

    gaussian: GaussianLog | None


class Accumulated(RoundedSum, total=False):
    """Those of sums: `lnsnum.reduction.Accumulated`."""

    accumulator: Accumulator
    order: Order


def _refused(symbol: str, instead: str) -> Any:
    def refuse(self: ScaledCodes, other: object = None) -> Any:
        raise TypeError(f"{symbol} does not take LNSTensors: {instead}")

    return refuse


REFLECTED = {
    np.add: "__radd__", np.subtract: "__rsub__", np.multiply: "__rmul__", np.divide: "__rtruediv__",
    np.float_power: "__rpow__", np.matmul: "__rmatmul__", np.equal: "__eq__", np.not_equal: "__ne__",
    np.less: "__gt__", np.less_equal: "__ge__", np.greater: "__lt__", np.greater_equal: "__le__",
}  # fmt: skip
"""What Python asks of the other operand where a tensor answers NotImplemented."""

_NO_REMAINDER = "a quotient is rounded to no integer in a logarithmic format; take floats with to_float()"
_NO_BITS = "compare first, as in (x > 0) & (y > 0)"


class LNSTensor(ScaledCodes):
    """Numbers in a logarithmic format.

    Operators and NumPy's functions work as on arrays; docs/numpy.md tells which, and what each means. The methods take
    what NumPy's signatures have no room for: out_format, out_log_offset, rounding, overflow, underflow, random_bits.

    Args:
        codes: an array of fmt.dtype, of any shape; kept, not copied. `from_codes` takes integers of any type,
            `from_float` rounds numbers.
        fmt: the format, or its name.
        log_offset: the scale in code steps: an integer, or an int32 array that broadcasts to codes (one for each
            channel), or `GroupOffsets`.

    Raises:
        TypeError: where codes are not of fmt.dtype, or offsets no integers.
        ValueError: where a code lies outside the format, or an offset is beyond 2^30 or does not broadcast.

    >>> from lnsnum import lns8f3
    >>> x = LNSTensor.from_float([1.0, -2.5, 0.0], lns8f3)
    >>> x
    LNSTensor.from_float([ 1.        , -2.59367911,  0.        ], 'lns8f3')
    >>> (x * x).to_float()
    array([1.        , 6.72717132, 0.        ])
    >>> np.sort(x + x)
    LNSTensor.from_float([-5.18735822,  0.        ,  2.        ], 'lns8f3')
    """

    __slots__ = ()

    # ------------------------------------------------------------------------------------------------------- NumPy

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **named: Any) -> Any:
        return array_ufunc(ufunc, method, inputs, named)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return numpy_protocol.array_function(func, args, kwargs)

    def __array_namespace__(self, *, api_version: str | None = None) -> Namespace:
        """The functions of the Python array API, as far as they have a meaning here: docs/array_api.md.

        Raises:
            ValueError: for another version than 2024.12 and those before it.
        """
        if api_version is not None and api_version not in VERSIONS:
            raise ValueError(f"api_version={api_version!r} is not known: one of {', '.join(VERSIONS)}")
        return namespace_of(type(self), self._fmt)  # type: ignore[arg-type]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise TypeError(
            f"torch's {getattr(func, '__name__', func)} does not take an {cls.__name__}: torch.as_tensor(x) makes "
            "floats of it, lnsnum.torch_bridge.LNSWeight.from_lns(x) a weight of its codes"
        )

    # --------------------------------------------------------------------------------------------------- operators

    def __add__(self, other: object) -> Self:
        return self._operate(np.add, self, other)

    def __radd__(self, other: object) -> Self:
        return self._operate(np.add, other, self)

    def __sub__(self, other: object) -> Self:
        return self._operate(np.subtract, self, other)

    def __rsub__(self, other: object) -> Self:
        return self._operate(np.subtract, other, self)

    def __mul__(self, other: object) -> Self:
        return self._operate(np.multiply, self, other)

    def __rmul__(self, other: object) -> Self:
        return self._operate(np.multiply, other, self)

    def __truediv__(self, other: object) -> Self:
        return self._operate(np.divide, self, other)

    def __rtruediv__(self, other: object) -> Self:
        return self._operate(np.divide, other, self)

    def __pow__(self, exponent: object) -> Self:
        return cast(Self, NotImplemented) if knows(exponent, "__rpow__") else to_power(self, exponent)

    def __rpow__(self, base: object) -> Self:
        return self._operate(np.float_power, base, self)

    def __matmul__(self, other: object) -> Self:
        return self._operate(np.matmul, self, other)

    def __rmatmul__(self, other: object) -> Self:
        return self._operate(np.matmul, other, self)

    def _operate(self, ufunc: np.ufunc, a: object, b: object) -> Self:
        # two tensors, or one and a number: what most operators get, and are done with here
        function = ROUNDED.get(ufunc)
        if function is not None:
            x = as_operand(a, self, ufunc.__name__) if type(a) in (int, float) else a
            y = as_operand(b, self, ufunc.__name__) if type(b) in (int, float) else b
            found = elementwise.quickly(function, x, y)
            if found is not None:
                return cast(Self, found)
        if a is self and knows(b, REFLECTED[ufunc]):
            return cast(Self, NotImplemented)
        result: Self = array_ufunc(ufunc, "__call__", (a, b), {})
        return result

    def __iadd__(self, other: object) -> Self:
        return self._in_place(np.add, other)

    def __isub__(self, other: object) -> Self:
        return self._in_place(np.subtract, other)

    def __imul__(self, other: object) -> Self:
        return self._in_place(np.multiply, other)

    def __itruediv__(self, other: object) -> Self:
        return self._in_place(np.divide, other)

    def __ipow__(self, exponent: object) -> Self:
        return to_power(self, exponent, self)

    def __imatmul__(self, other: object) -> Self:
        return self._in_place(np.matmul, other)

    def _in_place(self, ufunc: np.ufunc, other: object) -> Self:
        array_ufunc(ufunc, "__call__", (self, other), {"out": (self,)})
        return self

    def __neg__(self) -> Self:
        return elementwise.negative(self)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return elementwise.absolute(self)

    def __eq__(self, other: object) -> Bools:  # type: ignore[override]
        return self._compare(np.equal, other)

    def __ne__(self, other: object) -> Bools:  # type: ignore[override]
        return self._compare(np.not_equal, other)

    def __lt__(self, other: object) -> Bools:
        return self._compare(np.less, other)

    def __le__(self, other: object) -> Bools:
        return self._compare(np.less_equal, other)

    def __gt__(self, other: object) -> Bools:
        return self._compare(np.greater, other)

    def __ge__(self, other: object) -> Bools:
        return self._compare(np.greater_equal, other)

    def _compare(self, relation: np.ufunc, other: object) -> Bools:
        if knows(other, REFLECTED[relation]):
            return cast(Bools, NotImplemented)
        return compare(relation, self, other)

    def __contains__(self, number: object) -> bool:
        return bool(np.any(self == number))

    __floordiv__ = __rfloordiv__ = _refused("//", _NO_REMAINDER)
    __mod__ = __rmod__ = _refused("%", _NO_REMAINDER)
    __divmod__ = __rdivmod__ = _refused("divmod", _NO_REMAINDER)
    __lshift__ = __rlshift__ = _refused("<<", "multiply by a power of two")
    __rshift__ = __rrshift__ = _refused(">>", "divide by a power of two")
    __and__ = __rand__ = _refused("&", _NO_BITS)
    __or__ = __ror__ = _refused("|", _NO_BITS)
    __xor__ = __rxor__ = _refused("^", _NO_BITS)
    __invert__ = _refused("~", _NO_BITS)

    # ------------------------------------------------------------------------------------- operations, with options

    def _with(self, function: Callable[..., Any], others: tuple[object, ...], options: Any) -> Self:
        return apply(function, [self, *(as_operand(x, self, function.__name__) for x in others)], **options)

    def add(self, other: object, **options: Unpack[RoundedSum]) -> Self:
        """self + other, correctly rounded as the options say: those of `lnsnum.arithmetic.add`.

        >>> x = LNSTensor.from_float([1.0, 3.0], "lns8f3")
        >>> x.add(x, rounding="toward_zero", out_format="lns16f10", out_log_offset=0).log_offset
        0
        """
        return self._with(arithmetic.add, (other,), options)

    def subtract(self, other: object, **options: Unpack[RoundedSum]) -> Self:
        """self - other, correctly rounded."""
        return self._with(arithmetic.subtract, (other,), options)

    def multiply(self, other: object, **options: Unpack[Rounded]) -> Self:
        """self * other, exact but for the edges, or correctly rounded into out_format."""
        return self._with(arithmetic.multiply, (other,), options)

    def divide(self, other: object, **options: Unpack[Rounded]) -> Self:
        """self / other, as `multiply`."""
        return self._with(arithmetic.divide, (other,), options)

    def fma(self, factor: object, addend: object, **options: Unpack[Rounded]) -> Self:
        """self * factor + addend, correctly rounded, once.

        >>> x = LNSTensor.from_float([2.0], "lns16f10")
        >>> x.fma(x, -4).tolist()
        [0.0]
        """
        return self._with(arithmetic.fma, (factor, addend), options)

    def power(self, exponent: object, **options: Unpack[Rounded]) -> Self:
        """self^exponent: correctly rounded for an integer or a Fraction, faithful for a tensor."""
        return to_power(self, exponent, **options)

    def minimum(self, other: object, *, out_log_offset: OutLogOffset = None, **edges: Any) -> Self:
        """The lesser of each two; NaN in either is NaN."""
        return self._with(arithmetic.minimum, (other,), {"out_log_offset": out_log_offset, **edges})

    def maximum(self, other: object, *, out_log_offset: OutLogOffset = None, **edges: Any) -> Self:
        """The greater of each two; NaN in either is NaN."""
        return self._with(arithmetic.maximum, (other,), {"out_log_offset": out_log_offset, **edges})

    def sqrt(self, **options: Unpack[Rounded]) -> Self:
        """The square root, correctly rounded."""
        return self._with(arithmetic.sqrt, (), options)

    def reciprocal(self, **options: Unpack[Rounded]) -> Self:
        """1 / self, exact but for the edges."""
        return self._with(arithmetic.reciprocal, (), options)

    def square(self, **options: Unpack[Rounded]) -> Self:
        """self * self, exact but for the edges."""
        return self._with(arithmetic.square, (), options)

    def exp(self, **options: Unpack[Rounded]) -> Self:
        """e^self, faithful."""
        return self._with(arithmetic.exp, (), options)

    def exp2(self, **options: Unpack[Rounded]) -> Self:
        """2^self, faithful."""
        return self._with(arithmetic.exp2, (), options)

    def log(self, **options: Unpack[Rounded]) -> Self:
        """The natural logarithm, faithful."""
        return self._with(arithmetic.log, (), options)

    def log2(self, **options: Unpack[Rounded]) -> Self:
        """The logarithm to base 2, faithful."""
        return self._with(arithmetic.log2, (), options)

    def log10(self, **options: Unpack[Rounded]) -> Self:
        """The logarithm to base 10, faithful."""
        return self._with(arithmetic.log10, (), options)

    def expm1(self, **options: Unpack[Rounded]) -> Self:
        """e^self - 1, correctly rounded."""
        return self._with(arithmetic.expm1, (), options)

    def log1p(self, **options: Unpack[Rounded]) -> Self:
        """ln(1 + self), correctly rounded."""
        return self._with(arithmetic.log1p, (), options)

    def tanh(self, **options: Unpack[Rounded]) -> Self:
        """The hyperbolic tangent, correctly rounded."""
        return self._with(arithmetic.tanh, (), options)

    def sinh(self, **options: Unpack[Rounded]) -> Self:
        """The hyperbolic sine, correctly rounded."""
        return self._with(arithmetic.sinh, (), options)

    def cosh(self, **options: Unpack[Rounded]) -> Self:
        """The hyperbolic cosine, correctly rounded."""
        return self._with(arithmetic.cosh, (), options)

    def hypot(self, other: object, **options: Unpack[Rounded]) -> Self:
        """The square root of self^2 + other^2, correctly rounded, once."""
        return self._with(arithmetic.hypot, (other,), options)

    def logaddexp(self, other: object, **options: Unpack[Rounded]) -> Self:
        """ln(e^self + e^other), correctly rounded, once."""
        return self._with(arithmetic.logaddexp, (other,), options)

    def ulp_distance(self, other: object) -> NDArray[np.int64]:
        """How many codes lie between, -1 where one is NaN: `lnsnum.arithmetic.ulp_distance`.

        Raises:
            ValueError: where the two have not one scale: there is no common step then.
        """
        b = as_operand(other, self, "ulp_distance")
        check_one_format([self, b], "ulp_distance", has_out_format=False)
        if not same_scale(self.log_offset, b.log_offset):
            raise ValueError(
                "ulp_distance counts the codes of one scale: bring both to one with astype(out_log_offset=)"
            )
        return arithmetic.ulp_distance(self.codes, b.codes, self.fmt)

    def isnan(self) -> Bools:
        """Which elements are NaN."""
        return elementwise.isnan(self)

    def iszero(self) -> Bools:
        """Which elements are zero."""
        return arithmetic.iszero(self.codes, self.fmt)

    def clip(
        self,
        min: object = None,
        max: object = None,
    ) -> Self:
        """minimum(maximum(self, min), max); a bound that is None is none."""
        clipped: Self = numpy_protocol.clip(self, min, max)
        return clipped

    def sum(self, axis: Axis = None, *, keepdims: bool = False, **options: Unpack[Accumulated]) -> Self:
        """The sum over axes, in the accumulator and the order named: `lnsnum.reduction.sum`.

        >>> LNSTensor.from_float([1.0] * 100, "lns8f3").sum(accumulator="lns16f10").tolist()
        98.70149282610821
        """
        return reduce_into(None, reduction.sum, [self], axis=axis, keepdims=keepdims, **options)

    def mean(self, axis: Axis = None, *, keepdims: bool = False, **options: Unpack[Accumulated]) -> Self:
        """The mean over axes: `lnsnum.reduction.mean`."""
        return reduce_into(None, reduction.mean, [self], axis=axis, keepdims=keepdims, **options)

    def prod(self, axis: Axis = None, *, keepdims: bool = False, **options: Unpack[Rounded]) -> Self:
        """The product over axes, exact but for the edges: `lnsnum.reduction.prod`."""
        return reduce_into(None, reduction.prod, [self], axis=axis, keepdims=keepdims, **options)

    def var(self, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Self:
        """The variance over axes, in float64, rounded once: `numpy.var`.

        In an accumulator of your own it is the mean of the squares of `self.subtract(self.mean(...), ...)`.
        """
        return cast(Self, numpy_statistics.variance(self, axis, ddof=ddof, keepdims=keepdims))

    def std(self, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Self:
        """The standard deviation over axes, in float64, rounded once: `numpy.std`."""
        return cast(Self, numpy_statistics.standard_deviation(self, axis, ddof=ddof, keepdims=keepdims))

    def cumsum(self, axis: int | None = None) -> Self:
        """The sums of the first 1, 2, ... elements, added in float64, each rounded once: `numpy.cumsum`."""
        return cast(Self, numpy_statistics.cumsum(self, axis))

    def cumprod(self, axis: int | None = None, **options: Unpack[Rounded]) -> Self:
        """The products of the first 1, 2, ... elements, each exact but for the edges: `lnsnum.reduction.cumprod`."""
        return reduce_into(None, reduction.cumprod, [self], axis=axis, **options)

    def dot(self, other: object, **options: Unpack[Accumulated]) -> Self:
        """As `numpy.dot`, in the accumulator and the order named."""
        product: Self = numpy_protocol.dot(self, other, **options)
        return product

    def matmul(self, other: object, **options: Unpack[Accumulated]) -> Self:
        """As `numpy.matmul`, in the accumulator and the order named: `lnsnum.reduction.matmul`."""
        return self._with(reduction.matmul, (other,), options)

    # --------------------------------------------------------------------------------------------- choosing by value

    def min(self, axis: Axis = None, *, keepdims: bool = False) -> Self:
        """The least over axes, at the scale it has; NaN where there is one."""
        return cast(Self, numpy_protocol.least(self, axis, keepdims=keepdims))

    def max(self, axis: Axis = None, *, keepdims: bool = False) -> Self:
        """The greatest over axes, at the scale it has; NaN where there is one."""
        return cast(Self, numpy_protocol.greatest(self, axis, keepdims=keepdims))

    def argmin(self, axis: int | None = None, *, keepdims: bool = False) -> Any:
        """The index of the least, of the first NaN where there is one."""
        return numpy_protocol.argmin(self, axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, *, keepdims: bool = False) -> Any:
        """The index of the greatest, of the first NaN where there is one."""
        return numpy_protocol.argmax(self, axis, keepdims=keepdims)

    def argsort(self, axis: int | None = -1) -> Any:
        """Indices in the order of the values: stable, NaN last."""
        return numpy_protocol.argsort(self, axis)

    def sort(self, axis: int = -1) -> None:
        """Sort in place along an axis, as `numpy.ndarray.sort`: stable, NaN last.

        Raises:
            ValueError: where the scale changes along the axis: a number would be rounded in its new place.
        """
        result = numpy_protocol.sort(self, axis)
        old, new = (of_elements(tensor.log_offset, self.shape) for tensor in (self, result))
        if not np.array_equal(old, new):
            raise ValueError("the scale changes along the axis: numpy.sort(x) gives a sorted copy, with its scales")
        self.codes[...] = result.codes

    @overload
    def astype(self, to: LNSFormat, **options: Unpack[Scaling]) -> Self: ...

    @overload
    def astype(self, to: Any) -> Any: ...

    def astype(self, to: Any, **options: Any) -> Any:
        """In another format, rounded once from the exact values; or as floats, for a float type.

        Args:
            to: a format or its name, or a float type or its name: those of `lnsnum.decode`.
            options: for formats; out_log_offset, rounding, overflow, underflow, random_bits as for every operation.
                Here, as in all methods that take it, out_log_offset may be an array or `GroupOffsets` too: each number
                is rounded once at the scale of its channel or group. channels or group_size fit one to each.

        >>> x = LNSTensor.from_float([1.0, 2.5], "lns16f10")
        >>> x.astype("lns8f3"), x.astype(np.float32)
        (LNSTensor.from_float([1.        , 2.59367911], 'lns8f3'), array([1.      , 2.500585], dtype=float32))
        """
        if isinstance(to, str) and to.startswith("lns"):
            to = LNSFormat.parse(to)
        if isinstance(to, LNSFormat):
            return apply(rescale, [self], **{**options, "out_format": to})
        known = (*FLOAT_TYPES, *FLOAT8_TYPES)
        try:  # None would be float64
            name = to if isinstance(to, str) and to in known else "" if to is None else np.dtype(to).name
        except TypeError:
            name = ""
        if name not in known or options:
            raise TypeError(
                f"astype({to!r}): give a format, or float64, float32, float16, bfloat16 or a float8 of ml_dtypes "
                "without options"
            )
        return self.to_float(name if isinstance(to, str) else to)
