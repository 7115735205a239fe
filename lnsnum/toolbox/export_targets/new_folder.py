"""Folders that appear at once or not at all: written beside their place under a hidden name, renamed at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lnsnum.files.atomic import (
    Access,
    StrPath,
    access_of,
    check_path,
    flush_to_disk,
    give,
    is_protected,
    naming,
    shown,
    temporary_path,
)


@contextlib.contextmanager
def new_folder(path: StrPath, *, replaceable: Callable[[Path], str | None]) -> Iterator[Path]:
    """An empty folder to write files into: it becomes `path` if the block ends well, and vanishes if not.

    Args:
        path: where there is nothing yet, or an empty folder, or one that may be replaced.
        replaceable: why a folder that is not empty must stay; None where it may be replaced, with all that is in it.

    Raises:
        OSError: where the folder cannot be put there; `path` is as it was then.
    """
    check_path(path)
    with naming(path, writing=True):
        target = Path(os.path.realpath(path))
        with naming(path, writing=True, always=True):
            _check(path, target, replaceable)
        temporary = temporary_path(target.parent)
        temporary.mkdir(0o700)
        try:
            yield temporary
            for file in temporary.iterdir():
                flush_to_disk(file)
            flush_to_disk(temporary)
            _check(path, target, replaceable)
            _open_as(temporary, target)
            _put(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _check(path: StrPath, target: Path, replaceable: Callable[[Path], str | None]) -> None:
    if not target.parent.is_dir():
        raise OSError(f"{shown(path)}: there is no folder {shown(target.parent)}")
    if not target.exists():
        return
    if not target.is_dir():
        raise OSError(f"{shown(path)} is no folder")
    if Path.cwd().is_relative_to(target):
        raise OSError(f"{shown(path)} is where you are, and cannot be exchanged: take a folder inside it")
    reason = replaceable(target) if any(target.iterdir()) else None
    if reason is not None:
        raise OSError(f"{shown(path)} {reason}")
    for place in (target, *target.iterdir()):
        if is_protected(place):
            raise PermissionError(f"{shown(place)} is write-protected: make it writable first, or take another folder")


def _open_as(temporary: Path, target: Path) -> None:
    """Let those in who may look into what is replaced, and where it is new those whom the umask lets in."""
    if target.exists():
        old = sorted(target.iterdir())
        for file in temporary.iterdir() if old else ():
            give(file, access_of(temporary, target / file.name, *old))
        give(temporary, access_of(target.parent, target))
    else:
        mode = access_of(target.parent).mode
        give(temporary, Access(mode | (mode & 0o444) >> 2))  # who may read a file may look into a folder


def _put(temporary: Path, target: Path) -> None:
    """Rename; an old folder is moved aside first, and back if that fails."""
    if not target.exists():
        os.rename(temporary, target)
    else:
        old = temporary.with_suffix(".old")
        os.rename(target, old)
        try:
            os.rename(temporary, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    flush_to_disk(target.parent)
