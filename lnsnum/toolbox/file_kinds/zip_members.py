"""Zip archives from elsewhere, open: what their directory says is checked before anything is read on its word.

An archive may name a member twice, let members overlap (so that few bytes unpack to very many), or have a directory
that is all of it. Reading goes through the one descriptor that was opened: what is renamed over the file meanwhile is
not seen, and a file that shrinks is cut off, no fault of memory as where it is mapped.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, naming
from lnsnum.files.layout import refuse
from lnsnum.files.single import check_unchanged, identity

LARGEST_DIRECTORY = 1 << 24
"""Bytes of the directory of an archive: room for 200,000 members."""

LARGEST_WHOLE = 1 << 30
"""Bytes that a compressed array may unpack to where it has to be in memory as a whole; what is not compressed may have
as many as the file has."""

_BAD_ARCHIVE = (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, EOFError, RuntimeError, zlib.error)
"""What opening or reading a damaged zip archive may raise."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a member: its magic number, and how long its name and its extra field are."""


class DamagedError(Exception):
    """An array that is damaged; the message says how."""

    @property
    def sentence(self) -> str:
        """What follows the array's name."""
        return f"is damaged: {self}"


class TooLargeError(DamagedError):
    """An array that is whole, as far as was seen, and more than is read; the message says why."""

    @property
    def sentence(self) -> str:
        """What follows the array's name."""
        return str(self)


def tried(read: Callable[..., Any], *arguments: Any) -> Any:
    """What a function makes of foreign bytes. Raises OSError, and DamagedError for whatever else it trips over."""
    try:
        return read(*arguments)
    except (OSError, DamagedError):
        raise
    except Exception as error:
        raise DamagedError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


class _DirectoryError(ValueError):
    pass


class _Guarded(io.BufferedReader):
    """A file that does not hand over very much at once: zipfile asks for a directory of whatever length it claims."""

    guarded = True

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.guarded:
            return super().read(size)
        most = LARGEST_DIRECTORY + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) == most:
            raise _DirectoryError(f"its directory has more than {LARGEST_DIRECTORY:,} bytes, the most that is read")
        return data


class Window(io.RawIOBase):
    """A part of a file as a stream.

    Args:
        file: the file, whose place changes.
        begin: where the part begins.
        length: how many bytes it has.
    """

    def __init__(self, file: io.BufferedReader, begin: int, length: int) -> None:
        self._file = file
        self._at, self._end = begin, begin + length

    def readable(self) -> bool:
        """It is made for that."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer as far as it goes; 0 at the end, and where the file is cut off."""
        part = memoryview(buffer).cast("B")[: max(self._end - self._at, 0)]
        self._file.seek(self._at)
        count = self._file.readinto(part)
        self._at += count
        return count


class Archive:
    """A zip archive, open.

    Args:
        path: the archive, for errors.
        file: it, open.

    Raises:
        WeightFileError: where it is damaged, has a member twice, or members that overlap.
    """

    def __init__(self, path: StrPath, file: _Guarded) -> None:
        self.path = path
        self._file = file
        self._opened = identity(os.fstat(file.fileno()))
        try:
            self._zip = zipfile.ZipFile(file)
            file.guarded = False
        except _BAD_ARCHIVE as error:
            refuse(path, f"a damaged archive: {error or type(error).__name__}")
        self.members: dict[str, zipfile.ZipInfo] = {}
        """By their names, in the order of the directory."""
        for info in self._zip.infolist():
            if info.filename in self.members:
                refuse(path, f"its member {info.filename!r} occurs twice")
            self.members[info.filename] = info
        ends = [info.header_offset for info in self._zip.infolist()]
        ends = sorted([*ends, self._zip.start_dir])
        for info, end in zip(sorted(self._zip.infolist(), key=lambda info: info.header_offset), ends[1:], strict=True):
            if info.header_offset + _LOCAL_HEADER.size + info.compress_size > end:
                refuse(path, f"its member {info.filename!r} overlaps another, or the directory")

    def open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """A member as a stream, which compares the checksum at its end. Raises DamagedError."""
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DamagedError("it is compressed by a method that is neither NumPy's nor PyTorch's")
        return cast(IO[bytes], tried(self._zip.open, info))

    def open_at(self, info: zipfile.ZipInfo, begin: int) -> IO[bytes]:
        """A member as a stream from one of its bytes on, without the checksum. Raises DamagedError."""
        if info.compress_type != zipfile.ZIP_STORED:
            file = self.open(info)
            skipped = np.empty(1 << 20, np.uint8)
            for at in range(0, begin, skipped.size):
                fill(file, skipped[: min(skipped.size, begin - at)])
            return file
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise DamagedError("it has no header of its own")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        first = info.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)
        return cast(IO[bytes], Window(self._file, first + begin, info.file_size - begin))

    def first_bad(self) -> str | None:
        """The first member whose bytes are not those of its CRC-32. Raises WeightFileError where one cannot be read."""
        try:
            return self._zip.testzip()
        except _BAD_ARCHIVE as error:
            refuse(self.path, f"a damaged archive: {error or type(error).__name__}")

    def check_unchanged(self) -> None:
        """Raise WeightFileError where somebody has written to the file since it was opened."""
        check_unchanged(self.path, self._file.fileno(), self._opened)


@contextlib.contextmanager
def open_archive(path: StrPath) -> Iterator[Archive]:
    """A zip archive. Raises WeightFileError, OSError."""
    with contextlib.ExitStack() as opened:
        with naming(path):
            file = opened.enter_context(_Guarded(io.FileIO(path)))
        yield Archive(path, file)


def fill(file: IO[bytes], block: NDArray[Any]) -> None:
    """Read an array's elements. Raises DamagedError, OSError."""
    left = memoryview(cast(Any, block.view(np.uint8)))
    while left:
        count = tried(cast(Any, file).readinto, left)
        if not count:
            raise DamagedError("it is cut off")
        left = left[count:]
    if block.dtype == bool and int(block.view(np.uint8).max(initial=0)) > 1:
        raise DamagedError("it is of bool, and has bytes other than 0 and 1")


def whole(file: IO[bytes], count: int, dtype: np.dtype[Any], block: int) -> NDArray[Any]:
    """Elements that have to be in memory at once: it is taken as they come, not on the word of a header."""
    data = bytearray()
    for begin in range(0, count, block):
        part = np.empty(min(block, count - begin), dtype)
        fill(file, part)
        data += part.view(np.uint8).data
    return np.frombuffer(data, dtype)


def check_whole(nbytes: int, stored: int, why: str) -> None:
    """Raise TooLargeError where an array would have to be in memory as a whole, and unpacks to too much.

    Args:
        nbytes: its bytes.
        stored: the bytes that it has in the file.
        why: why all of it is needed.
    """
    if nbytes > max(LARGEST_WHOLE, stored):
        raise TooLargeError(
            f"{why}, so it has to be in memory as a whole, and unpacks to {nbytes:,} bytes: "
            f"of what is compressed at most {LARGEST_WHOLE:,} are read"
        )


def native(block: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in this machine's order of bytes; in place, where it was another."""
    if block.dtype.isnative:
        return block
    return block.byteswap(inplace=True).view(block.dtype.newbyteorder("="))
