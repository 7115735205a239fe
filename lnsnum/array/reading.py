"""What others read off a tensor: floats, numbers of Python's, text. Nothing here makes a tensor or changes one.

    repr(x)  =  LNSTensor.from_float([1., -2.5], 'lns8f5')        where those floats name these codes
                LNSTensor.from_codes([2147483647], 'lns32f23')    where no float does

The text of a tensor of up to a thousand elements, read by Python again, is the tensor: `nan`, `array` and `int32` are
NumPy's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lnsnum.array.cards import card
from lnsnum.decoding import decode
from lnsnum.encoding import encode
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import FLOAT_TYPES, Codes, LogOffset, of_elements
from lnsnum.kernels.float8 import FLOAT8_TYPES
from lnsnum.kernels.groups import GroupOffsets

Array = NDArray[Any]


class ReadCodes:
    """Codes with their format and their scale, to be read."""

    __slots__ = ("_codes", "_fmt", "_log_offset")

    _codes: Codes
    _fmt: LNSFormat
    _log_offset: LogOffset

    def to_float(self, dtype: DTypeLike = "float64") -> Array:
        """The values, each rounded once: to "float64", "float32", "float16", or a type of ml_dtypes.

        Of those names, as "bfloat16" and "float8_e4m3fn", it gives uint16 and uint8 bit patterns, of the types floats:
        `lnsnum.decode`.
        """
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
        """The scale in code steps: an integer, a read-only int32 array that broadcasts to codes, or `GroupOffsets`."""
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
        if not self.ndim:
            raise TypeError(f"{type(self).__name__} of shape () is one number, unsized: float(x) gives its value")
        return len(self._codes)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"an LNSTensor of {self.size} elements is neither true nor false: compare it first")
        return bool(self._codes.reshape(-1)[0] != 0)

    # ------------------------------------------------------------------------------------------- numbers of Python's

    def __float__(self) -> float:
        return self._one("a float")

    def __int__(self) -> int:
        """The value as a float, its fraction cut off, as Python's of floats."""
        value = self._one("an int")
        if not math.isfinite(value):
            raise ValueError(f"no int is the value of {self!r}")
        return int(value)

    __trunc__ = __int__

    def __round__(self, ndigits: int | None = None) -> float | int:
        """As Python's of the float."""
        value = self._one("a rounded float")
        if ndigits is None and not math.isfinite(value):
            raise ValueError(f"no int is the value of {self!r}")
        return round(value, ndigits)

    def __format__(self, spec: str) -> str:
        """The text of the tensor, or of one float in a format of Python's, as in f"{x[0]:.3f}"."""
        return format(self._one(f"a float to be written as {spec!r}"), spec) if spec else str(self)

    def _one(self, what: str) -> float:
        if self.ndim:
            raise TypeError(f"only an LNSTensor of shape () becomes {what}, not one of shape {self.shape}: index it")
        return float(self.to_float())

    def tolist(self) -> Any:
        """The values as Python floats, in nested lists."""
        return self.to_float().tolist()

    def item(self, *index: int | tuple[int, ...]) -> float:
        """The value of one element as a Python float; arguments as of `numpy.ndarray.item`."""
        cast(Any, self._codes).item(*index)  # which raises what NumPy raises for an index that there is not
        place = tuple(map(int, index[0] if index and isinstance(index[0], tuple) else cast(Any, index)))
        # one integer counts in C order, whatever the axes; none is that of the only element
        one = cast(Any, self).moved(lambda array: array[place] if len(place) > 1 else array.flat[sum(place)])
        return float(one.to_float())

    # --------------------------------------------------------------------------------------------- arrays of floats

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("an LNSTensor holds codes: making an array of floats always copies")
        wanted = np.dtype("float64" if dtype is None else dtype)
        if wanted.name in FLOAT8_TYPES:
            return self.to_float(wanted)
        if wanted.name in FLOAT_TYPES:
            return self.to_float(wanted.name).view(wanted.newbyteorder("=")).astype(wanted, copy=False)  # rounds once
        if wanted.kind not in "fc":
            raise TypeError(f"an LNSTensor becomes an array of floats, not of {wanted}: round them, by to_float()")
        return self.to_float().astype(wanted)

    def __dlpack__(self, *, stream: Any = None, copy: bool | None = None, **named: Any) -> Any:
        """The values as float64: what `torch.as_tensor` asks for, as `numpy.asarray` asks for an array."""
        if copy is False:
            raise ValueError("an LNSTensor holds codes: making a tensor of floats always copies")
        return self.to_float().__dlpack__(stream=stream, **named)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._codes.__dlpack_device__()
        return device

    # ---------------------------------------------------------------------------------------------------------- text

    def __repr__(self) -> str:
        name, fmt, codes = type(self).__name__, self._fmt, self._codes
        offset = self._log_offset
        scale = "" if isinstance(offset, int) and offset == 0 else f", log_offset={_text(offset)}"
        if codes.size == 0 and codes.shape != (0,):
            return f"{name}({_text(codes)}, {fmt.name!r}{scale})"
        shown = cast(Any, self).moved(_shown)
        offsets = of_elements(shown.log_offset, shown.shape)
        for numbers in ({}, {"formatter": {"float_kind": lambda value: repr(float(value))}}):
            start = f"{name}.from_float("
            text = _text_of_floats(self, prefix=start, **numbers)
            if _names(text, shown.codes, fmt, offsets):
                return f"{start}{text}, {fmt.name!r}{scale})"
        start = f"{name}.from_codes("
        return f"{start}{np.array2string(codes, separator=', ', prefix=start)}, {fmt.name!r}{scale})"

    def _repr_html_(self) -> str:
        """The tensor's card, for notebooks: its format and scale, and its numbers as NumPy prints them."""
        return card_of(cast(Any, self), type(self).__name__)


def card_of(tensor: Any, title: str, more: Sequence[tuple[str, str]] = ()) -> str:
    """The card of a tensor, or of what holds one, under a title of its own and with more rows."""
    info = tensor.fmt.finfo()
    rows = [
        ("format", f"{tensor.fmt.name}, {info.octaves:.4g} octaves in steps of {100 * info.eps:.3g} %"),
        ("shape", f"{tensor.shape}, {tensor.size:,} numbers in {tensor.nbytes:,} bytes"),
        ("log_offset", _scale_in_words(tensor.log_offset)),
        *more,
    ]
    return card(title, rows, _text_of_floats(tensor) if tensor.size else "")


def _scale_in_words(log_offset: LogOffset) -> str:
    if isinstance(log_offset, int):
        return str(log_offset)
    offsets = log_offset.offsets if isinstance(log_offset, GroupOffsets) else log_offset
    of_groups = f", groups of {log_offset.group_size}" if isinstance(log_offset, GroupOffsets) else ""
    ends = f", from {offsets.min()} to {offsets.max()}" if offsets.size else ""
    return f"int32 of shape {offsets.shape}{of_groups}{ends}"


def _text(array: Any) -> str:
    """An integer or an array of them; NumPy's own text of an empty array loses its shape in most versions."""
    if isinstance(array, (int, GroupOffsets)) or array.size:
        return repr(array)
    return f"array([], {array.dtype.name!r}).reshape({array.shape})"


def _text_of_floats(tensor: Any, **options: Any) -> str:
    """NumPy's text of a tensor's floats; of a large one those alone are decoded that the text has."""
    if not _is_cut(tensor.codes):
        return np.array2string(tensor.to_float(), separator=", ", **options)
    # an element more than is shown, so that NumPy puts its dots in the same places
    ends = tensor.moved(lambda array: _ends(array, 1))
    return np.array2string(ends.to_float(), separator=", ", threshold=0, **options)


def _is_cut(array: Array) -> bool:
    options = np.get_printoptions()  # without edges NumPy looks at every number for the width of one
    return bool(array.size > options["threshold"] and options["edgeitems"])


def _shown(array: Array) -> Array:
    """The elements that NumPy's text of an array has, in C order."""
    return _ends(array, 0) if _is_cut(array) else array


def _ends(array: Array, between: int) -> Array:
    """The first and the last elements of each axis that NumPy's text cuts, and some of those that it leaves out."""
    edge = np.get_printoptions()["edgeitems"]
    for axis, n in enumerate(array.shape):
        if n > 2 * edge:
            # by an index: numpy.take would write out a broadcast array first
            array = array[(slice(None),) * axis + (np.r_[: edge + between, n - edge : n],)]
    return array


def _names(text: str, codes: Codes, fmt: LNSFormat, log_offset: LogOffset) -> bool:
    """Whether the floats in a text are these codes, once they are rounded."""
    try:
        floats = np.array([float(word) for word in re.findall(r"[^\s,\[\]]+", text) if word != "..."])
    except ValueError:  # a user's own words, of numpy.set_printoptions
        return False
    if floats.size != codes.size or np.isinf(floats).any():
        return False
    return np.array_equal(encode(floats.reshape(codes.shape), fmt, log_offset=log_offset), codes)
