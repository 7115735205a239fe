"""The Python array API as far as it has a meaning for LNS: what `x.__array_namespace__()` gives.

    data types of numbers      LNS formats: `x.dtype` of the standard is `x.fmt` here
    integers, truth values     NumPy's arrays, of NumPy's types

A namespace belongs to a format: what is made without a dtype is of that format. A name of the standard that LNS has no
meaning for is there as NumPy's function, which takes NumPy's arrays and refuses tensors by name. docs/array_api.md says
what is kept of the standard, what is not, and why.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lnsnum.array.storage import ScaledCodes
from lnsnum.format import FormatInfo, LNSFormat

VERSION = "2024.12"
"""Of the standard."""

VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")
"""That are asked for and given."""

OF_NUMPY = [
    "abs", "acos", "acosh", "add", "all", "any", "arange", "argmax", "argmin", "asin", "asinh", "atan", "atan2",
    "atanh", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "broadcast_arrays", "broadcast_to", "ceil", "clip", "concat", "copysign", "cos", "cosh",
    "count_nonzero", "cumulative_prod", "cumulative_sum", "diff", "divide", "equal", "exp", "expand_dims", "expm1",
    "flip", "floor", "floor_divide", "from_dlpack", "greater", "greater_equal", "hypot", "isfinite", "isinf",
    "isnan", "less", "less_equal", "linalg", "log", "log10", "log1p", "log2", "logaddexp", "logical_and",
    "logical_not", "logical_or", "logical_xor", "matmul", "matrix_transpose", "max", "maximum", "mean", "meshgrid",
    "min", "minimum", "moveaxis", "multiply", "negative", "nextafter", "nonzero", "not_equal", "permute_dims",
    "positive", "pow", "prod", "reciprocal", "remainder", "repeat", "reshape", "roll", "round", "searchsorted",
    "sign", "signbit", "sin", "sinh", "sqrt", "square", "squeeze", "stack", "subtract", "sum", "take",
    "take_along_axis", "tan", "tanh", "tensordot", "tile", "tril", "triu", "trunc", "unstack", "vecdot", "where",
    "e", "inf", "nan", "newaxis", "pi", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", 
]  # fmt: skip
"""Names that are NumPy's: tensors go into these functions by its protocols."""

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class UniqueAll(NamedTuple):
    """What `unique_all` gives; the others are parts of it."""

    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    """What `unique_counts` gives."""

    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    """What `unique_inverse` gives."""

    values: Any
    inverse_indices: Any


def _check_device(device: object) -> None:
    if device not in (None, "cpu"):
        raise ValueError(f"device={device!r}: tensors lie in the memory of the processor, as NumPy's arrays: 'cpu'")


class Namespace:
    """The functions of the array API for tensors of a format.

    >>> from lnsnum import LNSTensor
    >>> xp = LNSTensor.from_float([1.0], "lns8f3").__array_namespace__()
    >>> xp.sum(xp.asarray([1.0, 2.0]))
    LNSTensor.from_float(3.08442165, 'lns8f3')
    >>> xp.finfo(xp.default_format).bits, xp.isdtype(xp.default_format, "real floating")
    (8, True)
    """

    __array_api_version__ = VERSION

    def __init__(self, tensor: type[ScaledCodes], fmt: LNSFormat) -> None:
        self._tensor = tensor
        self.default_format = fmt
        self.__name__ = f"the array API of {fmt.name}"

    def __getattr__(self, name: str) -> Any:
        if name in OF_NUMPY and hasattr(np, name):
            return getattr(np, name)
        if name.startswith("lns"):
            try:
                return LNSFormat.parse(name)
            except ValueError as error:
                raise AttributeError(str(error)) from None
        raise AttributeError(f"{self.__name__} has no {name}: docs/array_api.md says why")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in OF_NUMPY if hasattr(np, name))})

    def __repr__(self) -> str:
        return f"<{self.__name__}>"

    # ------------------------------------------------------------------------------------------------------- creation

    def _format(self, dtype: object) -> LNSFormat | None:
        """The LNS format of a dtype; None where it is one of NumPy's integers or bool."""
        if dtype is None:
            return self.default_format
        if isinstance(dtype, LNSFormat):
            return dtype
        kind = np.dtype(dtype)  # type: ignore[call-overload]
        if kind.kind not in "biu":
            raise TypeError(f"dtype={dtype!r} has no LNS numbers: give an LNSFormat, or a type of integers or bool")
        return None

    def _from(self, numbers: Any, fmt: LNSFormat) -> ScaledCodes:
        if isinstance(numbers, np.ndarray) and numbers.dtype == np.bool_:
            numbers = numbers.astype(np.float64)
        return self._tensor.from_float(numbers, fmt)

    def asarray(self, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
        """A tensor of numbers, rounded to nearest; without a dtype, of integers and truth values NumPy's array."""
        _check_device(device)
        if isinstance(obj, ScaledCodes):
            if dtype is None or dtype == obj.fmt:
                return obj.copy() if copy else obj
            if copy is False:
                raise ValueError("copy=False, and another dtype takes a copy")
            return obj.astype(dtype) if isinstance(dtype, LNSFormat) else self.astype(obj, dtype)  # type: ignore[attr-defined]
        array = np.asarray(obj)
        if (dtype is None and array.dtype.kind in "biu") or (dtype is not None and self._format(dtype) is None):
            return np.array(obj, dtype=dtype, copy=copy)
        if copy is False:
            raise ValueError("copy=False, and to round numbers to codes takes a copy")
        fmt = self._format(dtype)
        assert fmt is not None
        return self._from(array, fmt)

    def full(self, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
        """A tensor of one number, rounded to nearest; as `asarray` of it where no dtype is given."""
        _check_device(device)
        value = self.asarray(fill_value, dtype=dtype)
        return (
            np.array(np.broadcast_to(value, shape))
            if isinstance(value, np.ndarray)
            else np.broadcast_to(value, shape).copy()
        )

    def zeros(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
        """Zeros."""
        return self.full(shape, 0.0, dtype=dtype or self.default_format, device=device)

    def ones(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
        """Ones."""
        return self.full(shape, 1.0, dtype=dtype or self.default_format, device=device)

    def empty(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
        """Zeros too."""
        return self.zeros(shape, dtype=dtype, device=device)

    def full_like(self, x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
        """As `full`, in the shape of x and of its dtype."""
        own = x.fmt if isinstance(x, ScaledCodes) else x.dtype
        return self.full(x.shape, fill_value, dtype=own if dtype is None else dtype, device=device)

    def zeros_like(self, x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
        """Zeros in the shape of x."""
        return self.full_like(x, 0, dtype=dtype, device=device)

    def ones_like(self, x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
        """Ones in the shape of x."""
        return self.full_like(x, 1, dtype=dtype, device=device)

    def empty_like(self, x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
        """Zeros in the shape of x too."""
        return self.zeros_like(x, dtype=dtype, device=device)

    def eye(
        self, n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
    ) -> Any:  # fmt: skip
        """Ones on a diagonal."""
        _check_device(device)
        return self.asarray(np.eye(n_rows, n_cols, k), dtype=dtype or self.default_format)

    def linspace(
        self, start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
    ) -> Any:  # fmt: skip
        """Numbers equally far apart, each rounded to nearest."""
        _check_device(device)
        return self.asarray(np.linspace(start, stop, num, endpoint=endpoint), dtype=dtype or self.default_format)

    # ----------------------------------------------------------------------------------------------------- data types

    def astype(self, x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
        """To another format, rounded once; to integers and truth values by way of float64, as NumPy makes them."""
        _check_device(device)
        fmt = self._format(dtype)
        if isinstance(x, ScaledCodes):
            if fmt is None:
                with np.errstate(invalid="ignore"):
                    return x.codes != 0 if np.dtype(dtype) == np.bool_ else x.to_float().astype(dtype)
            return x.copy() if fmt == x.fmt and copy else x if fmt == x.fmt else x.astype(fmt)  # type: ignore[attr-defined]
        return np.asarray(x).astype(dtype, copy=copy) if fmt is None else self._from(np.asarray(x), fmt)

    def finfo(self, type: Any, /) -> FormatInfo:
        """`LNSFormat.finfo` of a format, or of a tensor's."""
        fmt = type.fmt if isinstance(type, ScaledCodes) else self._format(type)
        if fmt is None:
            raise TypeError(f"{type!r} is a type of integers: iinfo tells its limits")
        return fmt.finfo()

    def iinfo(self, type: Any, /) -> Any:
        """NumPy's, of a type of integers or an array of them."""
        return np.iinfo(type.dtype if isinstance(type, (np.ndarray, np.generic)) else type)

    def isdtype(self, dtype: Any, kind: Any) -> bool:
        """Whether it is of a kind: LNS formats are "real floating" and "numeric"."""
        if isinstance(kind, tuple):
            return any(self.isdtype(dtype, one) for one in kind)
        if isinstance(kind, str):
            if isinstance(dtype, LNSFormat):
                np.isdtype(np.dtype(np.bool_), kind)  # which says what no kind is
                return kind in ("real floating", "numeric")
            return bool(np.isdtype(np.dtype(dtype), kind))
        return bool(dtype == kind)

    def can_cast(self, from_: Any, to: Any, /) -> bool:
        """Whether every number has a place: from a format to one that has all its numbers, of integers as NumPy."""
        own = from_.fmt if isinstance(from_, ScaledCodes) else getattr(from_, "dtype", from_)
        own = from_ if isinstance(from_, LNSFormat) else own
        if isinstance(own, LNSFormat) and isinstance(to, LNSFormat):
            finer = own.base == to.base and own.fraction_bits <= to.fraction_bits
            return finer and own.bits - own.fraction_bits <= to.bits - to.fraction_bits
        if isinstance(own, LNSFormat) or isinstance(to, LNSFormat):
            return False
        return bool(np.can_cast(own, to))

    def result_type(self, *arrays_and_dtypes: Any) -> Any:
        """The one format of all tensors, with which integers and truth values do not mix; of NumPy's arrays NumPy's.

        Raises:
            TypeError: for several formats: which one a result has is said by out_format.
        """
        formats = {
            x.fmt if isinstance(x, ScaledCodes) else x
            for x in arrays_and_dtypes
            if isinstance(x, (ScaledCodes, LNSFormat))
        }
        others = [x for x in arrays_and_dtypes if not isinstance(x, (ScaledCodes, LNSFormat))]
        if not formats:
            return np.result_type(*others)
        if len(formats) > 1 or not all(isinstance(x, (int, float)) for x in others):
            raise TypeError("LNS numbers of several formats, or beside arrays of NumPy's, have no common type")
        return formats.pop()

    # --------------------------------------------------------------------------------------- what NumPy has otherwise

    def std(self, x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
        """The standard deviation."""
        return np.std(x, axis=axis, ddof=correction, keepdims=keepdims)

    def var(self, x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
        """The variance."""
        return np.var(x, axis=axis, ddof=correction, keepdims=keepdims)

    def argsort(self, x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
        """Indices in the order of the values, equal ones as they stood; NaN last, or first where it descends."""
        if not descending:
            return np.argsort(x, axis=axis, kind="stable")
        back = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
        return np.asarray(x.shape[axis] - 1 - back)

    def sort(self, x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
        """In the order of the values; NaN last, or first where it descends."""
        ordered = np.sort(x, axis=axis, kind="stable")
        return np.flip(ordered, axis) if descending else ordered

    def unique_all(self, x: Any, /) -> UniqueAll:
        """Values in order, where each was first, where each element's is, how many there are of each."""
        values, first, inverse, counts = np.unique(x, True, True, True)
        return UniqueAll(values, first, inverse.reshape(x.shape), counts)

    def unique_counts(self, x: Any, /) -> UniqueCounts:
        """Values in order, and how many there are of each."""
        found = self.unique_all(x)
        return UniqueCounts(found.values, found.counts)

    def unique_inverse(self, x: Any, /) -> UniqueInverse:
        """Values in order, and where each element's is."""
        found = self.unique_all(x)
        return UniqueInverse(found.values, found.inverse_indices)

    def unique_values(self, x: Any, /) -> Any:
        """Values in order."""
        return self.unique_all(x).values

    def __array_namespace_info__(self) -> Info:
        """What there is: the standard's `__array_namespace_info__`."""
        return Info(self.default_format)


class Info:
    """Capabilities, devices and data types of a namespace."""

    def __init__(self, fmt: LNSFormat) -> None:
        self._fmt = fmt

    def capabilities(self) -> dict[str, Any]:
        """Indexing with masks and shapes that depend on data, as NumPy's arrays."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """The only one."""
        return "cpu"

    def devices(self) -> list[str]:
        """The only one."""
        return ["cpu"]

    def default_dtypes(self, *, device: Any = None) -> dict[str, Any]:
        """The format of the namespace; of integers NumPy's."""
        _check_device(device)
        return {"real floating": self._fmt, "integral": np.dtype(np.int64), "indexing": np.dtype(np.int64)}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, Any]:
        """NumPy's integers and bool, and the format of the namespace, by their names."""
        _check_device(device)
        there = {"bool": np.dtype(np.bool_), **{name: np.dtype(name) for name in _INTEGERS}, self._fmt.name: self._fmt}
        if kind is None:
            return there
        space = Namespace(ScaledCodes, self._fmt)
        return {name: dtype for name, dtype in there.items() if space.isdtype(dtype, kind)}


@lru_cache(maxsize=256)
def namespace_of(tensor: Any, fmt: LNSFormat) -> Namespace:
    """The one namespace of a format."""
    return Namespace(tensor, fmt)
