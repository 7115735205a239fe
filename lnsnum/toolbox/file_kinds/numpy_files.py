""".npz archives and .npy files, read as streams; what NumPy would unpickle is never read.

    .npy:  magic, version, {"descr": dtype, "fortran_order": ..., "shape": ...}, elements        .npz:  a zip of them

(numpy.lib.format is the specification.) Elements in Fortran order are read whole: a row-major block of them lies
everywhere.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, naming
from lnsnum.files.headers import why_unholdable
from lnsnum.files.layout import DTYPES, Description, refuse
from lnsnum.files.single import BLOCK, check_unchanged, identity, in_blocks
from lnsnum.toolbox.file_kinds.zip_members import (
    Archive,
    DamagedError,
    check_whole,
    fill,
    native,
    open_archive,
    tried,
    whole,
)

LARGEST_HEAD = 10_000
"""Bytes of the header of an array, the limit of NumPy, which looks at it when it has read them; its own have 118."""


class _Head(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


class NumPyFiles:
    """The arrays of an .npz archive, or the one of an .npy file, open."""

    def __init__(self, path: StrPath, source: Archive | IO[bytes]) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        self._source = source
        self._members: dict[str, zipfile.ZipInfo | None] = {}
        self._heads: dict[str, _Head] = {}
        if not isinstance(source, Archive):
            self._members[Path(path).stem] = None
            self._opened = identity(os.fstat(source.fileno()))
        else:
            for filename, info in source.members.items():
                if not filename.endswith(".npy"):
                    refuse(path, f"its member {filename!r} is no .npy array")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    refuse(path, f"its member {filename!r} is compressed as NumPy does not")
                self._members[filename.removesuffix(".npy")] = info
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
                info = self._members[name]
                nbytes = size * head.dtype.itemsize
                check_whole(nbytes, nbytes if info is None else info.compress_size, "has its elements in Fortran order")
                elements = native(whole(file, size, head.dtype, BLOCK))
                yield from in_blocks(elements.reshape(head.shape, order="F").reshape(-1))
            else:
                buffer = np.empty(min(size, BLOCK), head.dtype)
                for begin in range(0, size, BLOCK):
                    block = buffer[: min(BLOCK, size - begin)]
                    fill(file, block)
                    yield native(block)
            if tried(file.read, 1):  # to the end, where zipfile compares the checksum
                raise DamagedError("it is longer than its header says")
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        if isinstance(self._source, Archive):
            self._source.check_unchanged()
        else:
            check_unchanged(self.path, self._source.fileno(), self._opened)

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
        why = why_unholdable(head.shape, head.dtype.name)
        if why is not None:
            refuse(self.path, f"array {name!r} is none that NumPy can hold: {why}")
        info = self._members[name]
        if info is None:
            assert not isinstance(self._source, Archive)
            there = os.fstat(self._source.fileno()).st_size - length
        else:
            there = info.file_size - length
        takes = math.prod(head.shape) * head.dtype.itemsize
        if there != takes:
            refuse(self.path, f"array {name!r} has {there} bytes, and its shape {head.shape} takes {takes}")

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[IO[bytes]]:
        info = self._members[name]
        try:
            with naming(self.path):
                if isinstance(self._source, Archive):
                    assert info is not None
                    with self._source.open(info) as file:
                        yield file
                else:
                    self._source.seek(0)
                    yield self._source
        except DamagedError as error:
            refuse(self.path, f"array {name!r} {error.sentence}")


class _Frugal:
    """A file whose reader gets no more at once than the header of an array has."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if size > LARGEST_HEAD:
            raise DamagedError(f"its header has {size:,} bytes: at most {LARGEST_HEAD:,} are read")
        return self._file.read(size)


def _read_head(opened: IO[bytes]) -> _Head:
    file: Any = _Frugal(opened)
    version = tried(np.lib.format.read_magic, file)
    if version not in ((1, 0), (2, 0)):
        raise DamagedError(f"it is of version {version[0]}.{version[1]}, which only structured arrays need")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    head = _Head(*tried(read, file))
    if any(type(size) is not int or size < 0 for size in head.shape):
        raise DamagedError(f"its shape is {head.shape}")
    return head


@contextlib.contextmanager
def open_numpy(path: StrPath, *, is_archive: bool) -> Iterator[NumPyFiles]:
    """The arrays of an .npz archive or of an .npy file. Raises WeightFileError, OSError."""
    if is_archive:
        with open_archive(path) as archive:
            yield NumPyFiles(path, archive)
        return
    with contextlib.ExitStack() as opened:
        with naming(path):
            file = opened.enter_context(open(path, "rb"))
        yield NumPyFiles(path, file)
