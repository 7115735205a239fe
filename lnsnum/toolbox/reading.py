"""Two readers of the same elements, side by side, and which tensors a command is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath
from lnsnum.files.layout import refuse

__all__ = ["Progress", "natural", "selected", "side_by_side"]

Progress = Callable[[int, int], None]
"""Told, now and then, how many bytes of how many are done."""


def natural(name: str) -> tuple[list[Any], str]:
    """By which names are sorted: numbers within them count as numbers, so that layer 2 stands before layer 10."""
    key: list[Any] = re.split("([0-9]+)", name)  # texts and digits in turn, a text first
    key[1::2] = [(len(digits.lstrip("0")), digits.lstrip("0")) for digits in key[1::2]]
    return key, name


def selected(path: StrPath, names: Iterable[str], only: Sequence[str]) -> list[str]:
    """The names that match any of these patterns of the shell (`*`, `?`, `[...]`), in order; all without a pattern.

    Raises:
        WeightFileError: where a pattern matches no name; it says which.
        TypeError: where `only` is a string: its characters would be the patterns.
    """
    if isinstance(only, str):
        raise TypeError(f"only={only!r} is one pattern: give a sequence of them, such as {[only]!r}")
    known = sorted(names, key=natural)
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in known):
            refuse(path, f"no tensor's name matches {pattern!r}")
    return [name for name in known if not only or any(fnmatchcase(name, pattern) for pattern in only)]


def side_by_side(
    first: Iterator[NDArray[Any]], second: Iterator[NDArray[Any]]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The blocks of two tensors of one size, cut where either is cut. Both are read to their ends."""
    a, b = next(first, None), next(second, None)
    while a is not None and b is not None:
        count = min(a.size, b.size)
        yield a[:count], b[:count]
        a = a[count:] if a.size > count else next(first, None)
        b = b[count:] if b.size > count else next(second, None)
    assert a is b is None, "tensors of two sizes"
