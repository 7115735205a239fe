r"""Arithmetic that is not Python's: functions of a C library, and programs that read codes on standard input.

    void add(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n);        out[i] = a[i] + b[i],  i < n
    $ printf '64 64\n64 192\n' | ./adder                                              one line of digits for each line

Either way codes are unsigned integers, whatever the width of the format, so that what is no code of it can be seen.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lnsnum.testing.calling import Array, CallError, Foreign, HangsError

HEADER = """\
#include <stddef.h>
#include <stdint.h>
/* out[i] = a[i] + b[i] for i < n, codes in the low bits; subtract, multiply, divide likewise */
void add(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n);
"""
"""What a C library must look like. It may have some of the four functions."""

_UNWRITTEN = 0xFFFF_FFFF


class CFunction(Foreign):
    """A function of a C library, with the arguments of `HEADER`."""

    def __init__(self, function: ctypes._NamedFuncPointer) -> None:
        words = ctypes.POINTER(ctypes.c_uint32)
        function.argtypes, function.restype = [words, words, words, ctypes.c_size_t], None
        self.function, self.words = function, words

    def ask(self, inputs: tuple[Array, ...], seconds: float) -> NDArray[np.int64]:
        """Call it once for all; where it writes nothing, 2^32 - 1 stays, which only 32 bits have for a code."""
        a, b = (np.ascontiguousarray(x, np.uint32) for x in inputs)
        out = np.full(a.shape, _UNWRITTEN, np.uint32)
        self.function(*(x.ctypes.data_as(self.words) for x in (a, b, out)), a.size)
        return out.astype(np.int64)


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
        name: CFunction(getattr(library, name)) for name in operations if hasattr(library, name)
    }
    if not found:
        raise TypeError(f"{path} has none of the functions {', '.join(operations)}: export one, without a C++ name")
    return found


class Program(Foreign):
    """A program that reads a line `a b` for each pair of codes, in decimal digits, and writes a line for each.

    Args:
        command: the program and its arguments, as in a shell, or a list of them.

    Raises:
        ValueError: where the command is empty, or its quotes do not close.
        FileNotFoundError: where there is no such program.
    """

    def __init__(self, command: str | Sequence[str]) -> None:
        try:
            words = shlex.split(command) if isinstance(command, str) else list(command)
        except ValueError as error:
            raise ValueError(f"command={command!r} cannot be read: {error}") from error
        if not words:
            raise ValueError("command is empty: give a program that reads codes on standard input")
        program = shutil.which(words[0])
        if program is None:
            raise FileNotFoundError(f"{words[0]} is no program that can be run: give its path, such as ./adder")
        self.words = [program, *words[1:]]

    def ask(self, inputs: tuple[Array, ...], seconds: float) -> NDArray[np.int64]:
        """Run it once for all lines."""
        lines = "".join(" ".join(map(str, row)) + "\n" for row in zip(*(x.tolist() for x in inputs), strict=True))
        try:
            done = subprocess.run(self.words, input=lines.encode(), capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise HangsError from error
        except OSError as error:
            raise CallError(f"could not be asked: {self.words[0]}: {error.strerror}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
            raise CallError(f"ended with {how}{f', saying {said[-1]!r}' if said else ''}: end with 0")
        answers = done.stdout.split()
        count = len(inputs[0])
        for answer in answers[:count]:
            if not answer.isdigit() or len(answer) > _DIGITS:
                text = answer.decode(errors="replace")[:40]
                raise CallError(f"was answered {text!r}: write one code in decimal digits for each line")
        if len(answers) != count:
            raise CallError(f"and what follows: {count} lines got {len(answers)} answers: write one for each line")
        return np.array(answers, np.bytes_).astype(np.int64)


_DIGITS = 18
"""What an int64 holds for certain."""
