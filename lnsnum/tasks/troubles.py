"""What goes wrong beneath us, in one sentence of ours: which file, what is wrong with it, what to install."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from lnsnum.files.atomic import shown
from lnsnum.files.system_errors import is_sentence
from lnsnum.tasks import TaskError

_WORDS = {
    errno.ENOENT: "there is no such file or folder",
    errno.EISDIR: "it is a folder, where a file is needed",
    errno.ENOTDIR: "a part of this path is a file, where a folder is needed",
    errno.EACCES: "permission denied: its mode, or that of its folder, does not let you",
    errno.EPERM: "permission denied: the system does not let you change it",
    errno.EROFS: "it is on a file system that is read-only",
    errno.ENOSPC: "the disk is full: make room, or write elsewhere",
    errno.EDQUOT: "your share of the disk is used up: make room, or write elsewhere",
    errno.EFBIG: "it would be larger than the system lets a file become",
    errno.ENAMETOOLONG: "the name is longer than the file system takes",
    errno.ELOOP: "its links lead in a circle",
    errno.EIO: "the disk failed, or the network that it is on",
    errno.EMFILE: "too many files are open: raise the limit by ulimit -n",
}

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
    "typer": "cli",
    "rich": "cli",
}
"""The extra that brings a library, of those that bring it the one that commands need."""


def check_regular(path: Path, wanted: str) -> None:
    """Raise TaskError where a path leads to a folder, or to a pipe or device, whose reading may never end.

    What is not there, or cannot be looked at, passes: whoever opens it will say so.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "is no regular file"
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
    if error.errno is None or is_sentence(error):
        return str(error)
    what = _WORDS.get(error.errno) or error.strerror or os.strerror(error.errno)
    named = [shown(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return f"{' to '.join(named)}: {what}" if named else what


def _of_library(error: ImportError) -> str:
    root = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or root not in EXTRAS:
        return str(error)
    return f"this needs {root}, which is not installed: pip install 'lnsnum[{EXTRAS[root]}]'"
