"""Files that are replaced at once or not at all: written beside the old one, flushed to disk, renamed over it.

    O_EXCL, 0600   ->   written   ->   owner and permissions of the old file   ->   fsync   ->   rename   ->   fsync

Until the last steps the temporary file is its writer's alone: what was private is at no moment anything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lnsnum.files.system_errors import in_a_sentence, is_sentence

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: StrPath, *like: Path) -> Iterator[Path]:
    """A temporary path beside `path`: it becomes `path`, durably, if the block ends well, and vanishes if not.

    It gets owner and permissions of the file that it replaces; without one, of the first that is there of `like`.

    Raises:
        OSError: where `path` cannot be replaced, by `target_of`, or cannot be written; it is as it was then.
    """
    with naming(path, writing=True):
        target = target_of(path)
        with temporary_in(target.parent) as temporary:
            access = access_of(target.parent, target, *like)
            yield temporary
            put(temporary, target, access)


@contextlib.contextmanager
def naming(path: StrPath, *, writing: bool = False, always: bool = False) -> Iterator[None]:
    """Let the system's errors be sentences about this file, but for those that name another one, unless it is `always`
    this file that they are about."""
    try:
        yield
    except OSError as error:
        if is_sentence(error) or error.errno is None:
            raise
        named = error.filename
        if always or named is None or _TEMPORARY.search(os.fsdecode(named)):
            named = os.fspath(path)
        folder = os.path.dirname(os.path.realpath(path)) if writing else None
        raise in_a_sentence(error, shown(os.fsdecode(named)), folder=folder) from error


_TEMPORARY = re.compile(r"\.lnsnum-[0-9]+-[0-9a-f]+\.tmp(?:$|[/\\])")

_OPEN_FILES = re.compile(r"/proc/[^/]+(?:/task/[0-9]+)?/fd/[0-9]+|/dev/(?:std(?:in|out|err)|fd/[0-9]+)")
"""Names that stand for what a process has open: to replace that would be to take another program's file away."""

_MOST_LINKS = 40
"""Links in a row: the limit of Linux."""


def target_of(path: StrPath) -> Path:
    """The file that a path means, links followed: there is none yet, or it is a regular one that may be written.

    Raises:
        OSError: where it is anything else: a folder, a device, a pipe, what a process has open (/dev/stdout), a file
            that is write-protected.
    """
    with naming(path, writing=True, always=True):
        target = _follow(path)
        try:
            status = os.stat(target)
        except FileNotFoundError:
            return target
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(errno.EINVAL, path, "is no regular file: it cannot be replaced by one; give another path")
        if is_protected(target):
            raise _refusal(errno.EACCES, path, "is write-protected: make it writable first, or give another path")
        return target


def is_protected(path: Path) -> bool:
    """Whether a file may not be written: by anybody, which the superuser could nevertheless, or by us."""
    allowed = os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    return not allowed or not os.stat(path).st_mode & 0o222


def _follow(path: StrPath) -> Path:
    """Where a path leads, one link after another, even if there is nothing yet."""
    check_path(path)
    text = os.fspath(path)
    place = Path(text) if Path(text).name else Path.cwd() / text
    for _ in range(_MOST_LINKS):
        place = Path(os.path.realpath(place.parent)) / place.name
        if _OPEN_FILES.fullmatch(os.fspath(place)):
            raise _refusal(errno.EINVAL, path, "is what a program has open, no file of its own: give a file's path")
        try:
            place = place.parent / os.readlink(place)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # no link; nothing there
                return place
            raise
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def check_path(path: StrPath) -> None:
    """Raise OSError where no file can be called so."""
    if "\0" in os.fspath(path):
        raise _refusal(errno.EINVAL, path, "has a NUL in it, and no file can be called so")


def _refusal(code: int, path: StrPath, what: str) -> OSError:
    """An OSError of the class that belongs to the code, in a sentence."""
    error = type(OSError(code, ""))(f"{shown(path)} {what}")
    error.errno = code
    return error


@contextlib.contextmanager
def temporary_in(folder: Path) -> Iterator[Path]:
    """An empty temporary file in a folder, its writer's alone; what is still there when the block ends is deleted."""
    temporary = temporary_path(folder)
    _make(temporary, 0o600)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make(path: Path, mode: int) -> None:
    """Make an empty file where there is none, and no link either."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))


def temporary_path(folder: Path) -> Path:
    """A hidden name that nothing in a folder has; a short one, however long that of the target is."""
    return folder / f".lnsnum-{os.getpid()}-{secrets.token_hex(4)}.tmp"


class Access(NamedTuple):
    """Who may do what with a file: permissions, and owner and group; None: those of whoever makes it."""

    mode: int
    owner: tuple[int, int] | None = None


def access_of(folder: Path, *paths: Path) -> Access:
    """Owner and permissions of the first of these files that is there; of a new one in the folder where none is."""
    for path in paths:
        with contextlib.suppress(OSError):  # none that is there: there can be none where its name is too long
            status = os.stat(path)
            return Access(stat.S_IMODE(status.st_mode) & 0o777, (status.st_uid, status.st_gid))
    probe = temporary_path(folder)  # os.umask cannot be read without being changed, for every thread
    _make(probe, 0o666)
    try:
        return Access(stat.S_IMODE(os.stat(probe).st_mode))
    finally:
        probe.unlink(missing_ok=True)


def put(temporary: Path, target: Path, access: Access) -> None:
    """Rename a finished temporary file, durably: owner and permissions come last."""
    with _flushed(temporary):
        give(temporary, access)
    os.replace(temporary, target)
    flush_to_disk(target.parent)


def give(path: Path, access: Access) -> None:
    """Set owner and permissions, as far as may be: who cannot keep the group lets no other group in."""
    mode = access.mode
    if access.owner is not None and os.name != "nt":
        (owner, group), status = access.owner, os.stat(path)
        if owner != status.st_uid and os.geteuid() == 0:
            os.chown(path, owner, -1)
        if group != status.st_gid:
            try:
                os.chown(path, -1, group)
            except PermissionError:
                mode &= ~0o070
    os.chmod(path, mode)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    with _flushed(path):
        pass


@contextlib.contextmanager
def _flushed(path: Path) -> Iterator[None]:
    """Wait at the end; opened at the beginning, since permissions that are set meanwhile may forbid to read."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown(path: StrPath) -> str:
    """The path as an error shows it, in one line."""
    text = os.fspath(path)
    return text if text and text.isprintable() else repr(text)
