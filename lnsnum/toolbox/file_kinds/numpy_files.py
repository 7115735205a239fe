""".npz archives and .npy files, read as streams; what NumPy would unpickle is never read.

    .npy:  magic, version, {"descr": dtype, "fortran_order": ..., "shape": ...}, elements        .npz:  a zip of them

(numpy.lib.format is the specification.) Elements in Fortran order are read whole: a row-major block of them lies
everywhere.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath
from lnsnum.files.layout import DTYPES, Description, refuse
from lnsnum.files.single import BLOCK, in_blocks

BAD_ARCHIVE = (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error)
"""What opening a damaged zip archive may raise."""


class _Head(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


class NumPyFiles:
    """The arrays of an .npz archive, or the one of an .npy file, open."""

    def __init__(self, path: StrPath, archive: zipfile.ZipFile | None) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo | None] = {}
        self._heads: dict[str, _Head] = {}
        for info in archive.infolist() if archive else ():
            name, ending = info.filename[:-4], info.filename[-4:]
            if ending != ".npy" or name in self._members:
                what = "occurs twice" if ending == ".npy" else "is no .npy array"
                refuse(path, f"its member {info.filename!r} {what}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                refuse(path, f"its member {info.filename!r} is compressed as NumPy does not")
            self._members[name] = info
        if archive is None:
            self._members[Path(path).stem] = None
        self.names = list(self._members)

    def describe(self, name: str) -> Description:
        """What an array is. Raises WeightFileError where a weight file could not hold it."""
        head = self._head(name)
        return Description(head.shape, head.dtype.name)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of an array, in row-major order. Raises WeightFileError."""
        head = self._head(name)
        size = math.prod(head.shape)
        with self._reading(name) as file:
            _read_head(file)
            if head.fortran and len(head.shape) > 1:
                whole = self._whole(file, size, head.dtype, name)
                yield from in_blocks(_native(whole).reshape(head.shape, order="F").reshape(-1))
                self._finish(file, name)
                return
            buffer = np.empty(min(size, BLOCK), head.dtype)
            for begin in range(0, size, BLOCK):
                block = buffer[: min(BLOCK, size - begin)]
                self._fill(file, block, name)
                yield _native(block)
            self._finish(file, name)

    def _head(self, name: str) -> _Head:
        if name not in self._heads:
            with self._reading(name) as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old headers are read well, and slower
                head, length = _read_head(file), file.tell()
            self._check(name, head, length)
            self._heads[name] = head
        return self._heads[name]

    def _check(self, name: str, head: _Head, length: int) -> None:
        """Refuse what cannot be held, and what is longer or shorter than its header says."""
        if head.dtype.newbyteorder("=").name not in DTYPES.values():
            hint = ": NumPy writes bfloat16 so, and forgets what it was" if head.dtype == "V2" else ""
            refuse(self.path, f"array {name!r} is of {head.dtype}, which weight files cannot hold{hint}")
        info = self._members[name]
        there = (os.path.getsize(self.path) if info is None else info.file_size) - length
        takes = math.prod(head.shape) * head.dtype.itemsize
        if there != takes:
            refuse(self.path, f"array {name!r} has {there} bytes, and its shape {head.shape} takes {takes}")

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[IO[bytes]]:
        info = self._members[name]
        archive = self._archive
        try:
            opened = open(self.path, "rb") if info is None or archive is None else _tried(archive.open, info)  # noqa: SIM115
            with opened as file:
                yield file
        except _DamagedError as error:
            refuse(self.path, f"array {name!r} is damaged: {error}")

    def _fill(self, file: IO[bytes], block: NDArray[Any], name: str) -> None:
        left = memoryview(cast(Any, block.view(np.uint8)))
        while left:
            count = _tried(cast(Any, file).readinto, left)
            if not count:
                refuse(self.path, f"array {name!r} is cut off")
            left = left[count:]
        if block.dtype == bool and int(block.view(np.uint8).max(initial=0)) > 1:
            refuse(self.path, f"array {name!r} is of bool, and has bytes other than 0 and 1")

    def _whole(self, file: IO[bytes], size: int, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
        """All elements: memory is taken as they come, not on the word of a header."""
        data = bytearray()
        for begin in range(0, size, BLOCK):
            block = np.empty(min(BLOCK, size - begin), dtype)
            self._fill(file, block, name)
            data += block.view(np.uint8).data
        return np.frombuffer(data, dtype)

    def _finish(self, file: IO[bytes], name: str) -> None:
        """Read to the end, where zipfile compares the checksum."""
        if _tried(file.read, 1):
            refuse(self.path, f"array {name!r} is longer than its header says")


class _DamagedError(Exception):
    """A member that is damaged; the message says how."""


def _tried(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except OSError:
        raise
    except Exception as error:  # whatever zipfile, and NumPy's parser of headers, trip over
        raise _DamagedError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _read_head(file: IO[bytes]) -> _Head:
    version = _tried(np.lib.format.read_magic, file)
    if version not in ((1, 0), (2, 0)):
        raise _DamagedError(f"it is of version {version[0]}.{version[1]}, which only structured arrays need")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    head = _Head(*_tried(read, file))
    if any(type(size) is not int or size < 0 for size in head.shape):
        raise _DamagedError(f"its shape is {head.shape}")
    return head


def _native(block: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in this machine's order of bytes; in place, where it was another."""
    if block.dtype.isnative:
        return block
    return block.byteswap(inplace=True).view(block.dtype.newbyteorder("="))


@contextlib.contextmanager
def open_numpy(path: StrPath, *, is_archive: bool) -> Iterator[NumPyFiles]:
    """The arrays of an .npz archive or of an .npy file. Raises WeightFileError, OSError."""
    if not is_archive:
        yield NumPyFiles(path, None)
        return
    try:
        archive = zipfile.ZipFile(path)
    except BAD_ARCHIVE as error:
        refuse(path, f"a damaged archive: {error}")
    with archive:
        yield NumPyFiles(path, archive)
