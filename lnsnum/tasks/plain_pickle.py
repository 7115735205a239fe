"""Pickles of plain values and NumPy arrays, read without executing anything.

    {b"data": array of uint8, b"labels": [6, 9, ...]}

What a pickle would call stands in the result as a `Call`, by its name; `array` makes an array of those that NumPy
writes, in numbers of the pickle and nothing else (NumPy's own `__setstate__` trusts the dtypes it is given). Strings of
Python 2 are bytes. The opcodes are those of `pickletools`, which documents them.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RECONSTRUCT = "numpy._core.multiarray._reconstruct"
_SCALAR = "numpy._core.multiarray.scalar"
_FROM_BUFFER = "numpy._core.numeric._frombuffer"
_ENCODE = "_codecs.encode"
_NO_BYTES = ("__builtin__.bytes", "builtins.bytes")
_DTYPE = "numpy.dtype"
_KNOWN = {_RECONSTRUCT, _SCALAR, _FROM_BUFFER, _ENCODE, *_NO_BYTES, _DTYPE, "numpy.ndarray"}

_INTEGERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}

_VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"} | {
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
_OLD_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class ForbiddenError(Exception):
    """A pickle that would call or do what plain values and arrays do not need; the message says what."""


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(eq=False)
class Call:
    """What a pickle would call, by its name, with which arguments; `state` is what it would set in the result."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def read(data: bytes) -> Any:
    """The value that a pickle stands for, of any protocol.

    Raises:
        ForbiddenError: where it would call what is unknown here.
        Exception: any other, where it is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _OLD_STRINGS:
            stack.append(argument.encode("latin-1"))
        elif name in _PUTS:
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            _move(name, argument, stack, marks)
    raise ValueError("it has no end")


def _move(name: str, argument: Any, stack: list[Any], marks: list[int]) -> None:
    """One opcode that takes from the stack."""

    def since_mark() -> list[Any]:
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    match name:
        case "MARK":
            marks.append(len(stack))
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_DICT":
            stack.append({})
        case "BYTEARRAY8":
            stack.append(bytes(argument))
        case "APPEND":
            item = stack.pop()
            _as(list, stack[-1]).append(item)
        case "APPENDS":
            items = since_mark()
            _as(list, stack[-1]).extend(items)
        case "LIST":
            stack.append(since_mark())
        case "TUPLE":
            stack.append(tuple(since_mark()))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        case "DICT":
            stack.append(_set({}, since_mark()))
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set(stack[-1], [key, value])
        case "SETITEMS":
            items = since_mark()
            _set(stack[-1], items)
        case "GLOBAL":
            stack.append(_global(argument.replace(" ", ".", 1)))
        case "STACK_GLOBAL":
            inner, module = stack.pop(), stack.pop()
            stack.append(_global(f"{_as(str, module)}.{_as(str, inner)}"))
        case "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(_as(_Global, function).name, _as(tuple, arguments)))
        case "BUILD":
            state = stack.pop()
            _as(Call, stack[-1]).state = state
        case _:
            raise ForbiddenError(f"the opcode {name}")


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call gives: bytes, as Python 3 writes them for Python 2, or a `Call`."""
    match arguments:
        case (str() as text, "latin1") if name == _ENCODE:
            return text.encode("latin-1")
        case () if name in _NO_BYTES:
            return b""
    return Call(name, arguments)


def _global(name: str) -> _Global:
    name = name.replace("numpy.core.", "numpy._core.", 1) if name.startswith("numpy.core.") else name
    if name not in _KNOWN:
        raise ForbiddenError(repr(name[:80]))
    return _Global(name)


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} has to be")
    return value


def _set(table: Any, items: list[Any]) -> dict[Any, Any]:
    keys, values = items[::2], items[1::2]
    if any(type(key) not in (str, bytes, int) for key in keys):  # the hash of nested tuples could overflow the stack
        raise ValueError("a key that is neither text nor a number")
    known: dict[Any, Any] = _as(dict, table)
    known.update(zip(keys, values, strict=True))
    return known


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
    elements = np.frombuffer(_as(bytes, raw), _dtype(dtype))
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
