r"""What is not Python's and computes on codes: what all of it has in common, and programs that read standard input.

    $ printf '64 64\n64 192\n' | ./adder                                              one line of digits for each line

Codes are unsigned integers, whatever the width of the format, so that what is no code of it can be seen. C functions
are in `c_functions`, modules of Verilog in `verilog`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class HangsError(Exception):
    """A call did not end in time."""


class CallError(Exception):
    """What went wrong in a function that is not Python's, as the end of a sentence: "ended with exit code 1"."""


class Foreign:
    """A function that is not Python's: it takes arrays of codes and returns whole numbers, be they codes or not.

    Of other kinds of laws it takes signed integers, and returns int64 too, or floats, and returns these.
    """

    def ask(self, inputs: tuple[Array, ...], seconds: float) -> Array:
        """The results of n inputs, within some seconds."""
        raise NotImplementedError


class Program(Foreign):
    """A program that reads a line `a b` for each pair of codes, in decimal digits, and writes a line for each.

    Floats are written so that they read back as they were: `0.1`, `1e-45`, `inf`, `nan`.

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

    def ask(self, inputs: tuple[Array, ...], seconds: float) -> Array:
        """Run it once for all lines."""
        wanted, pattern, dtype = _ANSWERS[inputs[0].dtype.kind]
        lines = "".join(" ".join(map(str, row)) + "\n" for row in zip(*(x.tolist() for x in inputs), strict=True))
        done = run(self.words, seconds, lines.encode())
        answers = done.stdout.split()
        count = len(inputs[0])
        for answer in answers[:count]:
            if not re.fullmatch(pattern, answer, re.IGNORECASE):
                text = answer.decode(errors="replace")[:40]
                raise CallError(f"was answered {text!r}: write one {wanted} for each line")
        if len(answers) != count:
            raise CallError(f"and what follows: {count} lines got {len(answers)} answers: write one for each line")
        return np.array(answers, np.bytes_).astype(dtype).astype(inputs[0].dtype if dtype == np.float64 else dtype)


def run(words: Sequence[str], seconds: float, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A program's run, which ended with 0.

    Raises:
        HangsError: where it does not end within some seconds; it is killed.
        CallError: where it cannot be run, or ends otherwise.
    """
    try:
        done = subprocess.run(words, input=given, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise HangsError from error
    except OSError as error:
        raise CallError(f"could not be asked: {words[0]}: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        raise CallError(f"ended with {how}{f', saying {said[-1]!r}' if said else ''}: end with 0")
    return done


_ANSWERS: dict[str, tuple[str, bytes, Any]] = {
    "u": ("code in decimal digits", rb"[0-9]{1,18}", np.int64),
    "i": ("integer in decimal digits", rb"[+-]?[0-9]{1,18}", np.int64),
    "f": ("float", rb"[+-]?([0-9]+\.?[0-9]*(e[+-]?[0-9]+)?|\.[0-9]+(e[+-]?[0-9]+)?|inf|infinity|nan)", np.float64),
}
"""By the kind of the inputs: what to write, how it looks (18 digits are what an int64 holds), and what holds it."""
