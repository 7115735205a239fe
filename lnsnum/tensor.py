"""LNSTensor: an array of codes with its format and its scale.

    x[i]  =  (-1)^s[i] * base^((m[i] - bias + log_offset) / 2^F)

The class only routes: every operation is a function on plain arrays in `lnsnum.codes` or `lnsnum.arithmetic`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import arithmetic
from lnsnum.codes import WIDEST_TABLE, Codes, LogOffset, check_codes, check_offsets, decode, encode, fit_log_offset
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow


class LNSTensor:
    """Numbers in a logarithmic format.

    Args:
        codes: unsigned integers of any shape; kept, not copied, where they are of fmt.dtype already.
        fmt: the format, or its name.
        log_offset: the scale in code steps: an integer, or an int32 array that broadcasts to codes (one for each
            channel).

    Raises:
        TypeError: where codes or offsets are no integers.
        ValueError: where a code lies outside the format, or an offset is beyond 2^30 or does not broadcast.

    >>> from lnsnum import lns8f3
    >>> x = LNSTensor.from_float([1.0, -2.5, 0.0], lns8f3)
    >>> x
    LNSTensor([ 1.        , -2.59367911,  0.        ], lns8f3)
    >>> (x * x).to_float()
    array([1.        , 6.72717132, 0.        ])
    """

    __slots__ = ("_codes", "_fmt", "_log_offset")
    __array_ufunc__ = None  # NumPy hands mixed operations to us, and we refuse them with a sentence
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, codes: ArrayLike, fmt: LNSFormat | str, *, log_offset: LogOffset = 0) -> None:
        self._fmt = LNSFormat.of(fmt)
        self._codes = check_codes(codes, self._fmt)
        self._log_offset = check_offsets(log_offset, self._codes.shape)

    @classmethod
    def from_float(
        cls,
        x: ArrayLike,
        fmt: LNSFormat | str,
        *,
        rounding: Rounding = "nearest",
        overflow: Overflow = "saturate",
        underflow: Underflow = "round",
        log_offset: LogOffset | Literal["fit"] = 0,
        random_bits: ArrayLike | None = None,
        dtype: str | None = None,
    ) -> LNSTensor:
        """The tensor nearest to floats (or rounded as asked): `lnsnum.encode` with its arguments and errors.

        `log_offset="fit"` takes the least offset at which no finite element saturates.

        >>> LNSTensor.from_float([300.0, 1e6], "lns8f3", log_offset="fit").log_offset
        96
        """
        fmt = LNSFormat.of(fmt)
        if isinstance(log_offset, str):
            if log_offset != "fit":
                raise ValueError(f'log_offset={log_offset!r} is not known: an integer or "fit"')
            log_offset = fit_log_offset(x, fmt, rounding=rounding, dtype=dtype)
        codes = encode(
            x,
            fmt,
            rounding=rounding,
            overflow=overflow,
            underflow=underflow,
            log_offset=log_offset,
            random_bits=random_bits,
            dtype=dtype,
        )
        return cls(codes, fmt, log_offset=log_offset)

    def to_float(self, dtype: str = "float64") -> NDArray[Any]:
        """The values, each rounded once to "float64", "float32", "float16" or "bfloat16" (as uint16 patterns)."""
        return decode(self._codes, self._fmt, dtype, log_offset=self._log_offset)

    @property
    def codes(self) -> Codes:
        """The code words: an array of fmt.dtype, not a copy."""
        return self._codes

    @property
    def fmt(self) -> LNSFormat:
        """The format of every element."""
        return self._fmt

    @property
    def log_offset(self) -> LogOffset:
        """The scale in code steps: an integer, or an int32 array that broadcasts to the codes."""
        return self._log_offset

    @property
    def shape(self) -> tuple[int, ...]:
        """As of a NumPy array."""
        return self._codes.shape

    @property
    def ndim(self) -> int:
        """As of a NumPy array."""
        return self._codes.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._codes.size

    @property
    def nbytes(self) -> int:
        """Bytes of the codes."""
        return self._codes.nbytes

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"an LNSTensor of {self.size} elements is neither true nor false: compare it first")
        return bool(self._codes.reshape(-1)[0] != 0)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{func.__name__} does not take LNSTensors: give it floats, by to_float()")

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[LNSTensor]:
        return (self[i] for i in range(len(self)))

    def _with_shape_of(self, view: Callable[[NDArray[Any]], Any]) -> LNSTensor:
        """The same view of the codes and of the offsets."""
        offset = self._log_offset
        if isinstance(offset, np.ndarray):
            offset = view(np.broadcast_to(offset, self.shape))
        return LNSTensor(view(self._codes), self._fmt, log_offset=offset)

    def __getitem__(self, index: Any) -> LNSTensor:
        return self._with_shape_of(lambda array: np.asarray(array[index]))

    def reshape(self, *shape: int | tuple[int, ...]) -> LNSTensor:
        """As `numpy.ndarray.reshape`: a view where it can be one."""
        target: Any = shape[0] if len(shape) == 1 else shape
        return self._with_shape_of(lambda array: array.reshape(target))

    def __repr__(self) -> str:
        wide = self._fmt.bits > WIDEST_TABLE
        prefix = "LNSTensor(codes=" if wide else "LNSTensor("
        values = np.array2string(self._codes if wide else self.to_float(), separator=", ", prefix=prefix)
        offset = self._log_offset
        scale = "" if isinstance(offset, int) and offset == 0 else f", log_offset={offset!r}"
        return f"{prefix}{values}, {self._fmt.name}{scale})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("an LNSTensor holds codes: making an array of floats always copies")
        name = "float64" if dtype is None else np.dtype(dtype).name
        if name in ("float64", "float32", "float16"):
            return self.to_float(name)  # rounds once
        return self.to_float().astype(dtype)

    def _operand(self, other: object, operation: str) -> LNSTensor:
        if not isinstance(other, LNSTensor):
            raise TypeError(
                f"{operation} of LNSTensor and {type(other).__name__}: "
                f"make it one with LNSTensor.from_float(x, {self._fmt.name!r}), or take floats with to_float()"
            )
        if other._fmt != self._fmt:
            raise TypeError(
                f"{operation} of {self._fmt.name} and {other._fmt.name}: bring both to one format with lnsnum.convert"
            )
        return other

    def __mul__(self, other: object) -> LNSTensor:
        return self._combine(other, arithmetic.multiply, "multiplication")

    def __truediv__(self, other: object) -> LNSTensor:
        return self._combine(other, arithmetic.divide, "division")

    def _combine(self, other: object, operation: Callable[..., tuple[Codes, int]], name: str) -> LNSTensor:
        b = self._operand(other, name)
        codes, offset = operation(
            self._codes, b._codes, self._fmt, a_log_offset=self._log_offset, b_log_offset=b._log_offset
        )
        return LNSTensor(codes, self._fmt, log_offset=offset)

    def __rmul__(self, other: object) -> LNSTensor:
        return self._operand(other, "multiplication") * self

    def __rtruediv__(self, other: object) -> LNSTensor:
        return self._operand(other, "division") / self

    def __neg__(self) -> LNSTensor:
        return LNSTensor(arithmetic.negative(self._codes, self._fmt), self._fmt, log_offset=self._log_offset)

    def __pos__(self) -> LNSTensor:
        return self

    def __abs__(self) -> LNSTensor:
        return LNSTensor(arithmetic.absolute(self._codes, self._fmt), self._fmt, log_offset=self._log_offset)

    def isnan(self) -> NDArray[np.bool_]:
        """Which elements are NaN."""
        return arithmetic.isnan(self._codes, self._fmt)

    def _compare(self, other: object, relation: Callable[[Any, Any], Any]) -> NDArray[np.bool_]:
        b = self._operand(other, "comparison")
        keys = (arithmetic.order_key(t._codes, t._fmt, t._log_offset) for t in (self, b))
        result: NDArray[np.bool_] = relation(*keys) & ~(self.isnan() | b.isnan())
        return result

    def __eq__(self, other: object) -> NDArray[np.bool_]:  # type: ignore[override]
        return self._compare(other, np.equal)

    def __ne__(self, other: object) -> NDArray[np.bool_]:  # type: ignore[override]
        return ~self._compare(other, np.equal)

    def __lt__(self, other: object) -> NDArray[np.bool_]:
        return self._compare(other, np.less)

    def __le__(self, other: object) -> NDArray[np.bool_]:
        return self._compare(other, np.less_equal)

    def __gt__(self, other: object) -> NDArray[np.bool_]:
        return self._compare(other, np.greater)

    def __ge__(self, other: object) -> NDArray[np.bool_]:
        return self._compare(other, np.greater_equal)
