"""ScaledCodes: an array of codes with its format and its scale, and all that moves numbers.

    x[i]  =  (-1)^s[i] * base^((m[i] - bias + log_offset) / 2^F)

Indexing, reshaping and joining do to the scales what they do to the codes: no number is rounded by being moved. Where
a number goes into an array that is there already (`x[i] = y`), that array's format and scale say what becomes of it:
one rounding, to nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Self, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.array.scalars import exact_codes, not_exact
from lnsnum.conversion import rescale
from lnsnum.decoding import decode
from lnsnum.encoding import encode, fit_log_offset
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.kernels.codes import FLOAT_TYPES, Codes, LogOffset, check_codes, check_offsets

Array = NDArray[Any]


def _integers_as_floats(x: ArrayLike) -> ArrayLike:
    """Integers as float64, where that is exact for all of them; anything else as it is."""
    array = np.asarray(x)
    if array.dtype.kind not in "iu" or (array.size and not -(1 << 53) <= array.min() <= array.max() <= 1 << 53):
        return x
    return array.astype(np.float64)


class ScaledCodes:
    """What an LNSTensor holds; see there."""

    __slots__ = ("_codes", "_fmt", "_log_offset")
    __hash__ = None  # type: ignore[assignment]

    _codes: Codes
    _fmt: LNSFormat
    _log_offset: LogOffset

    def __init__(self, codes: ArrayLike, fmt: LNSFormat | str, *, log_offset: LogOffset = 0) -> None:
        self._fmt = LNSFormat.of(fmt)
        self._codes = check_codes(codes, self._fmt)
        self._log_offset = _frozen(check_offsets(log_offset, self._codes.shape))

    @classmethod
    def _of(cls, codes: Codes, fmt: LNSFormat, log_offset: LogOffset = 0) -> Self:
        """Without a look at the arguments: for results of our own."""
        new = object.__new__(cls)
        new._codes, new._fmt, new._log_offset = codes, fmt, _frozen(log_offset)
        return new

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
    ) -> Self:
        """The tensor nearest to floats (or rounded as asked): `lnsnum.encode` with its arguments and errors.

        Integers up to 2^53 in size are taken as the float64 that they are. `log_offset="fit"` takes the least offset at
        which no finite element saturates.

        >>> from lnsnum import LNSTensor
        >>> LNSTensor.from_float([300.0, 1e6], "lns8f3", log_offset="fit").log_offset
        96
        """
        fmt = LNSFormat.of(fmt)
        if isinstance(x, ScaledCodes):
            raise TypeError("x holds codes, not floats: x.astype(fmt) rounds them once to another format")
        if dtype is None:
            x = _integers_as_floats(x)
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

    def to_float(self, dtype: str = "float64") -> Array:
        """The values, each rounded once to "float64", "float32", "float16" or "bfloat16" (as uint16 patterns)."""
        return decode(self._codes, self._fmt, dtype, log_offset=self._log_offset)

    @property
    def codes(self) -> Codes:
        """The code words: an array of fmt.dtype, not a copy."""
        return self._codes

    @property
    def fmt(self) -> LNSFormat:
        """The format of every element. It stands in the place of a dtype, which a tensor has not."""
        return self._fmt

    @property
    def log_offset(self) -> LogOffset:
        """The scale in code steps: an integer, or a read-only int32 array that broadcasts to the codes."""
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

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"an LNSTensor of {self.size} elements is neither true nor false: compare it first")
        return bool(self._codes.reshape(-1)[0] != 0)

    def __float__(self) -> float:
        if self.ndim:
            raise TypeError(f"only an LNSTensor of shape () becomes a float, not one of shape {self.shape}: index it")
        return float(self.to_float())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("an LNSTensor holds codes: making an array of floats always copies")
        wanted = np.dtype("float64" if dtype is None else dtype)
        if wanted.name in FLOAT_TYPES:
            return self.to_float(wanted.name).view(wanted.newbyteorder("=")).astype(wanted, copy=False)  # rounds once
        if wanted.kind not in "fc":
            raise TypeError(f"an LNSTensor becomes an array of floats, not of {wanted}: round them, by to_float()")
        return self.to_float().astype(wanted)

    def __repr__(self) -> str:
        prefix = f"{type(self).__name__}("
        values = np.array2string(self.to_float(), separator=", ", prefix=prefix)
        offset = self._log_offset
        scale = "" if isinstance(offset, int) and offset == 0 else f", log_offset={offset!r}"
        return f"{prefix}{values}, {self._fmt.name}{scale})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._of, (self._codes, self._fmt, self._log_offset)

    def copy(self) -> Self:
        """The same numbers in codes of its own."""
        return self._of(self._codes.copy(), self._fmt, self._log_offset)

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Self:
        return self.copy()

    def tolist(self) -> Any:
        """The values as Python floats, in nested lists."""
        return self.to_float().tolist()

    def item(self, *index: int | tuple[int, ...]) -> float:
        """The value of one element as a Python float; arguments as of `numpy.ndarray.item`."""
        return float(cast(Any, self.to_float()).item(*index))

    def moved(self, move: Callable[[Array], Any]) -> Self:
        """The same move of the codes and of the scales: a view of the codes where the move makes one.

        >>> from lnsnum import LNSTensor
        >>> LNSTensor([[64, 72]], "lns8f3").moved(lambda codes: codes[:, ::-1])
        LNSTensor([[2., 1.]], lns8f3)
        """
        return self._of(np.asarray(move(self._codes)), self._fmt, self._moved_scale(move))

    def _moved_scale(self, move: Callable[[Array], Any]) -> LogOffset:
        offset = self._log_offset
        return offset if isinstance(offset, int) else compact(np.asarray(move(np.broadcast_to(offset, self.shape))))

    def __getitem__(self, index: Any) -> Self:
        return self.moved(lambda array: array[index])

    def __setitem__(self, index: Any, value: object) -> None:
        part = self._codes[index]
        offset = self._moved_scale(lambda array: array[index])
        self._codes[index] = into(value, self._fmt, offset, np.shape(part))

    def fill(self, value: object) -> None:
        """Every element becomes `value`, as by `x[...] = value`."""
        self[...] = value

    @property
    def T(self) -> Self:  # noqa: N802
        """As of a NumPy array: a view."""
        return self.transpose()

    def transpose(self, *axes: Any) -> Self:
        """As `numpy.ndarray.transpose`: a view."""
        return self.moved(lambda array: array.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> Self:
        """As `numpy.ndarray.swapaxes`: a view."""
        return self.moved(lambda array: array.swapaxes(axis1, axis2))

    def reshape(self, *shape: int | tuple[int, ...]) -> Self:
        """As `numpy.ndarray.reshape`: a view where it can be one."""
        target: Any = shape[0] if len(shape) == 1 else shape
        return self.moved(lambda array: array.reshape(target))

    def ravel(self) -> Self:
        """As `numpy.ndarray.ravel`: one axis, a view where it can be one."""
        return self.reshape(-1)

    def flatten(self) -> Self:
        """As `numpy.ndarray.flatten`: one axis, a copy."""
        return self.moved(lambda array: array.flatten())

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> Self:
        """As `numpy.ndarray.squeeze`: a view."""
        return self.moved(lambda array: array.squeeze(axis))

    def expand_dims(self, axis: int | tuple[int, ...]) -> Self:
        """As `numpy.expand_dims`: a view."""
        return self.moved(lambda array: np.expand_dims(array, axis))

    def take(self, indices: ArrayLike, axis: int | None = None) -> Self:
        """As `numpy.ndarray.take`."""
        return self.moved(lambda array: np.take(array, np.asarray(indices), axis))

    def repeat(self, repeats: Any, axis: int | None = None) -> Self:
        """As `numpy.ndarray.repeat`."""
        return self.moved(lambda array: array.repeat(repeats, axis))


S = TypeVar("S", bound=ScaledCodes)


def _frozen(offset: LogOffset) -> LogOffset:
    if isinstance(offset, np.ndarray):
        offset.flags.writeable = False
    return offset


def compact(offsets: Array) -> LogOffset:
    """The offsets without the axes along which they stay the same; where there is one only, an integer.

    >>> compact(np.array([[3, 3], [5, 5]], np.int32))
    array([[3],
           [5]], dtype=int32)
    """
    for axis, stride in enumerate(offsets.strides):
        first = offsets[(slice(None),) * axis + (slice(0, 1),)]
        if stride == 0 or np.array_equal(offsets, np.broadcast_to(first, offsets.shape)):
            offsets = first
    if offsets.size < 2:
        return int(offsets.reshape(-1)[0]) if offsets.size else 0
    return np.array(offsets, np.int32)


def in_groups(log_offset: LogOffset, shape: tuple[int, ...]) -> Iterator[tuple[int, Any]]:
    """Each offset, with the index of the elements that have it."""
    if isinstance(log_offset, int):
        yield log_offset, ...
    else:
        for offset in np.unique(log_offset):
            yield int(offset), np.broadcast_to(log_offset == offset, shape)


def into(value: object, fmt: LNSFormat, log_offset: LogOffset, shape: tuple[int, ...]) -> Codes:
    """The codes of `value` in a place of that format, scale and shape: tensors rounded, other numbers only exactly."""
    if not isinstance(value, ScaledCodes):
        codes = exact_codes(value, fmt, log_offset)
        if codes is None:
            place = f"log_offset {log_offset}" if isinstance(log_offset, int) else "the log_offsets there"
            raise not_exact(value, fmt, f" at {place}")
        return codes
    if isinstance(log_offset, int):
        if value._fmt == fmt and isinstance(value._log_offset, int) and value._log_offset == log_offset:
            return value._codes
        return rescale(
            value._codes, value._fmt, log_offset=value._log_offset, out_format=fmt, out_log_offset=log_offset
        )[0]
    extra = value.ndim - len(shape)  # as NumPy: leading axes of length 1 do not count
    if extra > 0 and value.shape[:extra] == (1,) * extra:
        value = value.moved(lambda array: array.reshape(array.shape[extra:]))
    whole = value.moved(lambda array: np.broadcast_to(array, shape))
    codes = np.empty(shape, fmt.dtype)
    for offset, chosen in in_groups(log_offset, shape):
        codes[chosen] = into(whole[chosen], fmt, offset, ())
    return codes
