"""Pickles of plain values and NumPy arrays, read without executing anything.

    {b"data": array of uint8, b"labels": [6, 9, ...]}

What a pickle would call stands in the result as a `Call`, by its name; `array` makes an array of those that NumPy
writes, in numbers of the pickle and nothing else (NumPy's own `__setstate__` trusts the dtypes it is given). Strings of
Python 2 are bytes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.pickles import ENCODE, NO_BYTES, Call, ForbiddenError, PickleReader, of_type

_RECONSTRUCT = "numpy._core.multiarray._reconstruct"
_SCALAR = "numpy._core.multiarray.scalar"
_FROM_BUFFER = "numpy._core.numeric._frombuffer"
_DTYPE = "numpy.dtype"
_KNOWN = {_RECONSTRUCT, _SCALAR, _FROM_BUFFER, ENCODE, *NO_BYTES, _DTYPE, "numpy.ndarray"}

_INTEGERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}


class _Reader(PickleReader):
    """Knows what NumPy writes, and bytes."""

    def named(self, name: str) -> str:
        name = name.replace("numpy.core.", "numpy._core.", 1) if name.startswith("numpy.core.") else name
        if name not in _KNOWN:
            raise ForbiddenError(repr(name[:80]))
        return name


def read(data: bytes) -> Any:
    """The value that a pickle stands for, of any protocol.

    Raises:
        ForbiddenError: where it would call what is unknown here.
        Exception: any other, where it is damaged.
    """
    return _Reader().read(data)


def array(value: Any) -> NDArray[Any]:
    """The array of integers that a value of `read` stands for: an array, a NumPy number, or a list of numbers.

    Raises ValueError where it is none of these.
    """
    if isinstance(value, list):
        return np.array([_integer(item) for item in value], np.int64)
    match value:
        case Call(name=name, state=(_, tuple() as shape, dtype, fortran, raw)) if name == _RECONSTRUCT:
            return _elements(raw, dtype, shape, "F" if fortran else "C")
        case Call(name=name, arguments=(raw, dtype, tuple() as shape, "C" | "F" as order)) if name == _FROM_BUFFER:
            return _elements(raw, dtype, shape, order)
        case Call(name=name, arguments=(dtype, raw)) if name == _SCALAR:
            return _elements(raw, dtype, (), "C")
    raise ValueError(f"a {type(value).__name__} where an array of integers has to be")


def _integer(item: Any) -> int:
    if isinstance(item, Call):
        return int(array(item))
    if type(item) is not int:
        raise ValueError(f"a {type(item).__name__} among its numbers")
    return item


def _elements(raw: Any, dtype: Any, shape: tuple[Any, ...], order: str) -> NDArray[Any]:
    elements = np.frombuffer(of_type(bytes, raw), _dtype(dtype))
    if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) != elements.size:
        raise ValueError(f"{elements.size} elements in an array of another shape")
    return elements.reshape(shape, order="F" if order == "F" else "C")


def _dtype(value: Any) -> np.dtype[Any]:
    match value:
        case Call(name=name, arguments=(str() | bytes() as code, *_), state=(_, str() | bytes() as order, *_)) if (
            name == _DTYPE and _text(code) in _INTEGERS and _text(order) in tuple("<>|=")
        ):
            return np.dtype(_text(order) + _text(code))
    raise ValueError("elements that are no integers")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
