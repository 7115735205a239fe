"""Files that are replaced at once or not at all: written beside the old one, flushed to disk, renamed over it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: StrPath, *like: Path) -> Iterator[Path]:
    """A temporary path beside `path`: it becomes `path`, durably, if the block ends well, and vanishes if not.

    It gets the permissions of the file that it replaces; without one, of the first that is there of `like`.
    """
    target = target_of(path)
    with naming(path), temporary_in(target.parent) as temporary:
        mode = permissions(target, *like, temporary)
        yield temporary
        put(temporary, target, mode)


@contextlib.contextmanager
def naming(path: StrPath) -> Iterator[None]:
    """Let an OSError about no file, or about a temporary one, name the file that was to be written."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or _TEMPORARY.search(os.fsdecode(error.filename))
        if error.errno is not None and unnamed:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


_TEMPORARY = re.compile(r"\.lnsnum-[0-9]+-[0-9a-f]+\.tmp$")


def target_of(path: StrPath) -> Path:
    """The file that a path means, links resolved: there is none yet, or it is a regular file.

    Raises:
        OSError: where it is anything else.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(f"{shown(path)} is no regular file: it cannot be replaced by a weight file")
    return target


@contextlib.contextmanager
def temporary_in(folder: Path) -> Iterator[Path]:
    """An empty temporary file in a folder; what is still there when the block ends is deleted."""
    temporary = temporary_path(folder)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(folder: Path) -> Path:
    """A hidden name that nothing in a folder has."""
    return folder / f".lnsnum-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def permissions(*paths: Path) -> int:
    """The permission bits of the first of these files that is there; the last one is."""
    present = next(path for path in paths if path.exists())
    return present.stat().st_mode & 0o777


def put(temporary: Path, target: Path, mode: int) -> None:
    """Rename a finished temporary file, durably, with these permissions: what wrote it may have set others."""
    temporary.chmod(mode)
    flush_to_disk(temporary)
    os.replace(temporary, target)
    flush_to_disk(target.parent)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown(path: StrPath) -> str:
    """The path as an error shows it, in one line."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)
