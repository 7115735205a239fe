"""What goes wrong beneath us, in one sentence of ours: which file, what is wrong with it, what to install."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lnsnum.files.atomic import shown
from lnsnum.files.system_errors import what_else, what_is_wrong
from lnsnum.tasks import TaskError

EXTRAS = {
    "torch": "tasks",
    "sklearn": "tasks",
    "scipy": "tasks",
    "PIL": "tasks",
    "safetensors": "files",
    "ml_dtypes": "files",
    "mpmath": "reference",
    "matplotlib": "plot",
    "hypothesis": "hypothesis",
    "tensorboard": "tensorboard",
    "typer": "cli",
    "rich": "cli",
}
"""The extra that brings a library, of those that bring it the one that commands need."""


def check_regular(path: Path, wanted: str) -> None:
    """Raise TaskError where a path leads to anything else that is there."""
    what = what_else(path)
    if what is not None:
        raise TaskError(f"{shown(path)} {what}: give {wanted}")


def in_words(error: OSError | ImportError | MemoryError | RecursionError) -> str:
    """The error as one sentence, without an end; what we raised ourselves says it already."""
    if isinstance(error, OSError):
        return _of_file(error)
    if isinstance(error, ImportError):
        return _of_library(error)
    if isinstance(error, MemoryError):
        return f"there is not enough memory: {error}".removesuffix(": ")
    return "a file is nested deeper than can be read"


def _of_file(error: OSError) -> str:
    named = [shown(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return ": ".join(filter(None, (" to ".join(named), what_is_wrong(error))))


def _of_library(error: ImportError) -> str:
    """What to install, also where a library tells in its own words that it lacks another one."""
    if "lnsnum[" in str(error):  # a sentence of ours, which says it
        return str(error)
    for cause in (error, *causes(error)):
        root = (cause.name or "").split(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
        if root in EXTRAS:
            return f"this needs {root}, which is not installed: pip install 'lnsnum[{EXTRAS[root]}]'"
    return str(error)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that one follows from, the last first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
