"""Files in folders, wherever they lie: on disk, or in a .zip or .tar archive, which is read and never unpacked.

    files(*place), folders(*place)    sorted names directly in place, hidden ones left out
    read(*place)                      the bytes of a file, up to a limit

Links and special members of archives are ignored. A tar archive is read once, from its start to its end, and the files
that are wanted stay in memory, compressed as they are; those of a zip archive are read when asked for.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from lnsnum.files.system_errors import what_is_wrong
from lnsnum.tasks import TaskError

Limits = Callable[[str], int]
"""The most bytes that a file of this name may have; 0 where such files are not wanted."""

LARGEST_TOTAL = 8 << 30
"""Bytes of files that are kept of a tar archive."""

_DEEPEST = 8
"""Folders in folders of an archive; what lies deeper is ignored."""

_MAGICS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}


class FileTree(ABC):
    """Files that are wanted, in folders.

    Args:
        path: of the folder or archive, as sentences name it.
        limits: which files are wanted, and how large they may be.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits

    def name(self, *place: str) -> str:
        """What to call the data in the folder `place`: the last part of a path."""
        return self.path.absolute().name or str(self.path)

    def refuse(self, place: tuple[str, ...], what: str) -> NoReturn:
        """Raise TaskError: what is wrong with a file or folder."""
        raise TaskError(f"{self.path}: {'/'.join(place)!r} {what}" if place else f"{self.path}: {what}")

    @abstractmethod
    def files(self, *place: str) -> list[str]:
        """Names of the wanted files directly in a folder, sorted."""

    @abstractmethod
    def folders(self, *place: str) -> list[str]:
        """Names of the folders directly in a folder, sorted."""

    def read(self, *place: str) -> bytes:
        """The bytes of a file. Raises TaskError where it is damaged or larger than its limit."""
        limit = self.limits(place[-1])
        try:
            data = self._read(place, limit)
        except TaskError:
            raise
        except OSError as error:
            self.refuse(place, f"cannot be read: {what_is_wrong(error)}")
        except Exception as error:  # whatever zipfile and its decompressors trip over
            self.refuse(place, f"is damaged: {reason(error)}")
        if len(data) > limit:
            self.refuse(place, f"has more than {limit >> 20} MB, the most that such a file may have")
        return data

    @abstractmethod
    def _read(self, place: tuple[str, ...], limit: int) -> bytes:
        """The first `limit` bytes of a file; one more where there are more."""


class _Disk(FileTree):
    """A folder on disk; links in it are followed."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path, limits)
        self._known: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}

    def name(self, *place: str) -> str:
        return place[-1] if place else super().name()

    def files(self, *place: str) -> list[str]:
        return self._list(place)[0]

    def folders(self, *place: str) -> list[str]:
        return self._list(place)[1]

    def _list(self, place: tuple[str, ...]) -> tuple[list[str], list[str]]:
        if place not in self._known:
            try:
                with os.scandir(self.path.joinpath(*place)) as scan:
                    entries = [entry for entry in scan if not _hidden(entry.name)]
                files = sorted(entry.name for entry in entries if self.limits(entry.name) and entry.is_file())
                folders = sorted(entry.name for entry in entries if entry.is_dir())
            except OSError as error:
                self.refuse(place, f"cannot be listed: {what_is_wrong(error)}")
            self._known[place] = files, folders
        return self._known[place]

    def _read(self, place: tuple[str, ...], limit: int) -> bytes:
        with open(os.path.join(self.path, *place), "rb") as file:
            return file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)


class _Archive(FileTree):
    """An archive: what is in which folder, by the names of its members."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path, limits)
        self._folders: dict[tuple[str, ...], set[str]] = {(): set()}
        self._files: dict[tuple[str, ...], set[str]] = {}

    def files(self, *place: str) -> list[str]:
        return sorted(self._files.get(place, ()))

    def folders(self, *place: str) -> list[str]:
        return sorted(self._folders.get(place, ()))

    def _add_folder(self, place: tuple[str, ...]) -> None:
        for depth, name in enumerate(place):
            self._folders.setdefault(place[:depth], set()).add(name)

    def _add_file(self, place: tuple[str, ...]) -> bool:
        """Note a file and the folders above it; whether the file is wanted."""
        self._add_folder(place[:-1])
        wanted = bool(place) and self.limits(place[-1]) > 0
        if wanted:
            self._files.setdefault(place[:-1], set()).add(place[-1])
        return wanted


class _Zip(_Archive):
    """A zip archive, open."""

    def __init__(self, path: Path, limits: Limits, archive: zipfile.ZipFile) -> None:
        super().__init__(path, limits)
        self._archive = archive
        self._members: dict[tuple[str, ...], zipfile.ZipInfo] = {}
        for member in archive.infolist():
            place = _place(member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                self._add_folder(place)
            elif kind in (0, stat.S_IFREG) and self._add_file(place):
                self._members[place] = member

    def _read(self, place: tuple[str, ...], limit: int) -> bytes:
        if self._members[place].flag_bits & 1:
            self.refuse(place, "is encrypted: make an archive without a password")
        try:
            with self._archive.open(self._members[place]) as file:
                return file.read(limit + 1)
        except OSError as error:  # of a decompressor
            self.refuse(place, f"is damaged: {reason(error)}")


class _Tar(_Archive):
    """A tar archive, read."""

    def __init__(self, path: Path, limits: Limits, file: IO[bytes]) -> None:
        super().__init__(path, limits)
        self._contents: dict[tuple[str, ...], bytes] = {}
        total, previous = 0, -1
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.size < 0 or member.offset <= previous:
                    raise tarfile.ReadError("a member of negative size")
                previous = member.offset
                place = _place(member.name)
                if member.isdir():
                    self._add_folder(place)
                elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and self._add_file(place):
                    content = archive.extractfile(member)
                    assert content is not None
                    total -= len(self._contents.get(place, b""))
                    self._contents[place] = content.read(limits(place[-1]) + 1)
                    total += len(self._contents[place])
                    if total > LARGEST_TOTAL:
                        self.refuse((), f"more than {LARGEST_TOTAL >> 30} GiB of data: unpack it and name the folder")
            file.seek(archive.offset)
            if file.read(512) != bytes(512):  # tarfile takes a damaged header for the end
                raise tarfile.ReadError("it does not end where its last member does")
            while file.read(1 << 20):  # checksums are compared at the end
                pass

    def _read(self, place: tuple[str, ...], limit: int) -> bytes:
        return self._contents[place]


def _place(name: str) -> tuple[str, ...]:
    """The parts of a member's name; () where it is hidden or leads elsewhere."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    return () if len(parts) > _DEEPEST or any(_hidden(part) for part in parts) else parts


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextlib.contextmanager
def open_tree(path: Path, limits: Limits) -> Iterator[FileTree | None]:
    """The files in a folder, or in an archive; None where a file is no archive. Raises TaskError."""
    if path.is_dir():
        yield _Disk(path, limits)
        return
    with contextlib.ExitStack() as stack:
        try:
            tree = _archive(path, limits, stack.enter_context(open(path, "rb")), stack)
        except OSError as error:
            raise TaskError(f"{path}: it cannot be read: {what_is_wrong(error)}") from error
        yield tree


def _archive(path: Path, limits: Limits, file: IO[bytes], stack: contextlib.ExitStack) -> FileTree | None:
    head = file.read(512)
    file.seek(0)
    packed = next((magic for magic in _MAGICS if head.startswith(magic)), None)
    try:
        if head.startswith((b"PK\3\4", b"PK\5\6")):
            return _Zip(path, limits, stack.enter_context(zipfile.ZipFile(file)))
        if packed is not None:
            return _Tar(path, limits, stack.enter_context(_MAGICS[packed](file)))
        return _Tar(path, limits, file) if head[257:262] == b"ustar" else None
    except TaskError:
        raise
    except Exception as error:  # whatever zipfile, tarfile and the decompressors trip over
        raise TaskError(f"{path}: a damaged archive, or no .tar in it: {reason(error)}") from error
