"""Pickles read without executing anything: a machine for their opcodes that builds plain values, and calls nothing.

    {"epoch": 3, "args": argparse.Namespace(lr=0.1)}    ->    {"epoch": 3, "args": Call("argparse.Namespace", ...)}

What a pickle would call stands in the result as a `Call`, by its name. The opcodes are those of `pickletools`, which
documents them; it brings them and their arguments, whatever lengths a pickle claims.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import IO, Any

ENCODE, NO_BYTES = "_codecs.encode", ("__builtin__.bytes", "builtins.bytes")

_VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"} | {
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
_OLD_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class ForbiddenError(Exception):
    """A pickle that would call or do what its reader does not expect; the message says what."""


@dataclass(frozen=True)
class Global:
    """What a pickle names: a class, a function or a value of a module."""

    name: str


@dataclass(eq=False)
class Call:
    """What a pickle would call, by its name, with which arguments; `state` is what it would set in the result."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


class PickleReader:
    """A machine that reads pickles of any protocol, one after another. Subclasses say what is known to them.

    Args:
        most_steps: how many opcodes a pickle may have.
    """

    def __init__(self, most_steps: int | None = None) -> None:
        self.stack: list[Any] = []
        self._most_steps = most_steps
        self._marks: list[int] = []

    def named(self, name: str) -> str:
        """The name of a global as `called` is to get it. Raises ForbiddenError where it may not occur."""
        return name

    def called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What a call gives: bytes, as Python 3 writes them for Python 2, or a `Call`."""
        match arguments:
            case (str() as text, "latin1") if name == ENCODE:
                return text.encode("latin-1")
            case () if name in NO_BYTES:
                return b""
        return Call(name, arguments)

    def key(self, key: Any) -> Any:
        """The key of a table. Raises ValueError where it is none."""
        if type(key) not in (str, bytes, int):  # the hash of nested tuples could overflow the stack
            raise ValueError("a key that is neither text nor a number")
        return key

    def read(self, data: bytes | IO[bytes]) -> Any:
        """The value that a pickle stands for; of a file the next pickle, to whose end it is read.

        Raises:
            ForbiddenError: where it would call what is not known.
            Exception: any other, where it is damaged.
        """
        self.stack, self._marks = [], []
        stack, memo = self.stack, dict[int, Any]()
        argument: Any
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(data), 1):
            name = opcode.name
            if self._most_steps is not None and steps > self._most_steps:
                raise ForbiddenError(f"more than {self._most_steps:,} steps")
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
                self.move(name, argument)
        raise ValueError("it has no end")

    def since_mark(self) -> list[Any]:
        """Take what came since the last mark off the stack."""
        mark = self._marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def move(self, name: str, argument: Any) -> None:
        """One opcode that takes from the stack. Raises ForbiddenError where it may not occur."""
        stack = self.stack
        match name:
            case "MARK":
                self._marks.append(len(stack))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "BYTEARRAY8":
                stack.append(bytes(argument))
            case "APPEND":
                item = stack.pop()
                self.extend(stack[-1], [item])
            case "APPENDS":
                items = self.since_mark()
                self.extend(stack[-1], items)
            case "LIST":
                stack.append(self.since_mark())
            case "TUPLE":
                stack.append(tuple(self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(_TUPLES[name])]
                stack.append(tuple(reversed(items)))
            case "DICT":
                items = self.since_mark()
                stack.append({})
                self.set(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.set(stack[-1], [key, value])
            case "SETITEMS":
                items = self.since_mark()
                self.set(stack[-1], items)
            case "GLOBAL":
                stack.append(Global(self.named(argument.replace(" ", ".", 1))))
            case "STACK_GLOBAL":
                inner, module = stack.pop(), stack.pop()
                stack.append(Global(self.named(f"{of_type(str, module)}.{of_type(str, inner)}")))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self.called(of_type(Global, function).name, of_type(tuple, arguments)))
            case "BUILD":
                state = stack.pop()
                self.build(stack[-1], state)
            case _:
                raise ForbiddenError(f"the opcode {name}")

    def extend(self, sequence: Any, items: list[Any]) -> None:
        """Put items at the end of a list."""
        of_type(list, sequence).extend(items)

    def set(self, table: Any, items: list[Any]) -> None:
        """Put keys and values, by turns, into a table."""
        of_type(dict, table).update(zip(map(self.key, items[::2]), items[1::2], strict=True))

    def build(self, made: Any, state: Any) -> None:
        """Set the state of what a call gave."""
        of_type(Call, made).state = state


def of_type(kind: type | tuple[type, ...], value: Any) -> Any:
    """The value. Raises ValueError where it is of another type."""
    if not isinstance(value, kind):
        first = kind[0] if isinstance(kind, tuple) else kind
        raise ValueError(f"a {type(value).__name__} where a {first.__name__} has to be")
    return value
