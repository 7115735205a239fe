"""C functions: of a shared library by its path, or as ctypes and cffi hold them.

    void add(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n);        out[i] = a[i] + b[i],  i < n

Where ctypes or cffi know the arguments, the arrays may be of uint8_t, uint16_t or uint64_t too; of a library's path,
and of a function of ctypes' without argtypes, they are of uint32_t. What is no code has arrays of int64_t or floats
(`void sb(const int64_t *z, int64_t *out, size_t n)`). A function of plain numbers, `uint32_t add(uint32_t a, uint32_t
b)`, is asked as one of Python's is. cffi is looked at where somebody has imported it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lnsnum.testing.foreign import Array, CallError, Foreign

HEADER = """\
#include <stddef.h>
#include <stdint.h>
/* out[i] = a[i] + b[i] for i < n, codes in the low bits; subtract, multiply, divide likewise */
void add(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n);
"""
"""What a C library must look like. It may have some of the four functions."""

Items = np.dtype[Any]
"""What the arrays hold."""

_UNTOLD = np.dtype(np.void)
"""What arrays hold whose type nobody has told: uint32 for codes, int64 for other integers, floats as they are."""


class CFunction(Foreign):
    """A function that takes arrays, one for each operand and one for the results, then their length.

    Args:
        call: takes the addresses of the arrays, then the length.
        items: what the arrays hold.
        arrays: how many there are; None where nobody knows.
    """

    def __init__(self, call: Callable[..., Any], items: Items = _UNTOLD, arrays: int | None = None) -> None:
        self.call, self.items, self.arrays = call, items, arrays

    def ask(self, inputs: tuple[Array, ...], seconds: float) -> Array:
        """Call it once for all; where it writes nothing, NaN stays or the greatest integer, no code of most formats."""
        asked = len(inputs) + 1
        if self.arrays not in (None, asked):
            raise CallError(f"cannot be asked: it takes {self.arrays} arrays, and there are {asked}, the results' too")
        given = inputs[0].dtype
        items = self.items
        if items == _UNTOLD:
            items = np.dtype({"u": np.uint32, "i": np.int64}.get(given.kind, given))
        if items.kind != given.kind or items.itemsize < given.itemsize or (given.kind == "f" and items != given):
            raise CallError(f"cannot be asked: it takes arrays of {items}, and these are of {given}")
        arrays = [np.ascontiguousarray(x, items) for x in inputs]
        arrays.append(np.full(arrays[0].shape, np.nan if items.kind == "f" else np.iinfo(items).max, items))
        self.call(*(x.ctypes.data for x in arrays), arrays[0].size)
        return arrays[-1] if items.kind == "f" else arrays[-1].astype(np.int64)


def c_library(path: str | os.PathLike[str], operations: Sequence[str]) -> dict[str, Foreign]:
    """The functions of a shared library that have the names of operations.

    Raises:
        OSError: where there is no library at the path.
        TypeError: where it has none of the functions.
    """
    path = Path(path).resolve()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise OSError(f"{path} is no shared library that can be loaded: {error}") from error
    found: dict[str, Foreign] = {
        name: c_function(getattr(library, name)) for name in operations if hasattr(library, name)
    }
    if not found:
        raise TypeError(f"{path} has none of the functions {', '.join(operations)}: export one, without a C++ name")
    return found


def c_function(function: Any) -> Any:
    """A function of ctypes' or cffi's that takes arrays, as one that can be asked; anything else as it is.

    Raises:
        TypeError: where its arguments are known, and it takes pointers in another way.
    """
    if isinstance(function, _OF_CTYPES):
        return _from_ctypes(function)
    backend = sys.modules.get("_cffi_backend")
    if backend is None or not callable(function):
        return function
    ffi = backend.FFI()
    try:
        kind = ffi.typeof(function)
    except TypeError:  # it knows functions and data of C alone
        return function
    return _from_cffi(ffi, function, kind) if kind.kind == "function" else function


_OF_CTYPES: Any = ctypes.CFUNCTYPE(None).__base__


_OTHER = np.dtype(object)
"""What no pointer to numbers points to."""


def _made(call: Callable[..., Any], arguments: list[Items | None], function: Any) -> Any:
    """The function as one that takes arrays, as it is where it takes none; None stands for what is no pointer."""
    if not any(arguments):
        return function
    *arrays, length = arguments
    items = arrays[0]
    if items is None or items == _OTHER or length is not None or arrays != [items] * max(len(arrays), 2):
        raise TypeError(
            f"{function} cannot be asked: its arguments must be pointers to numbers of one type, the last for the "
            "results, then how many there are; or else numbers alone"
        )
    return CFunction(call, items, len(arrays))


def _from_ctypes(function: Any) -> Any:
    def call(*arguments: int) -> None:
        # under a prototype of our own, so that the caller's object keeps its types
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(arguments) - 1), ctypes.c_size_t)
        ctypes.cast(function, prototype)(*arguments)

    def items(kind: Any) -> Items | None:
        if kind is ctypes.c_void_p:
            return _UNTOLD
        if hasattr(kind, "_dtype_"):  # NumPy's ndpointer
            return _UNTOLD if kind._dtype_ is None else np.dtype(kind._dtype_)
        if not issubclass(kind, ctypes._Pointer):
            return None
        told = np.dtype(kind._type_) if issubclass(kind._type_, ctypes._SimpleCData) else _OTHER
        return told if told.kind in "uif" else _OTHER

    if function.argtypes is None:
        return CFunction(call)
    return _made(call, [items(kind) for kind in function.argtypes], function)


def _from_cffi(ffi: Any, function: Any, kind: Any) -> Any:
    def call(*arguments: int) -> None:
        function(*(ffi.cast(to, x) for to, x in zip(kind.args, arguments, strict=True)))

    def items(argument: Any) -> Items | None:
        if argument.kind != "pointer":
            return None
        item = argument.item
        if item.kind == "void":
            return _UNTOLD
        if item.kind != "primitive":
            return _OTHER
        if item.cname in ("float", "double"):
            return np.dtype(f"f{ffi.sizeof(item)}")
        size, least = ffi.sizeof(item), int(ffi.cast(item, -1))
        letter = "i" if least == -1 else "u" if least == (1 << 8 * size) - 1 else ""  # else a truth value
        return np.dtype(f"{letter}{size}") if letter else _OTHER

    return _made(call, [items(argument) for argument in kind.args], function)
