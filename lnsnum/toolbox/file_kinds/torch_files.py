"""Files of torch.save, read as streams, without torch: what they would execute is never executed, nor built.

    {"model": {"fc.weight": tensor, "fc.bias": tensor}, "epoch": 3}    ->    model.fc.weight, model.fc.bias

    since PyTorch 1.6     a zip archive: x/data.pkl, which says where tensors lie, and x/data/0, x/data/1, ...
    before                pickles: a magic number, a version, the system, the content, the storages' keys; then these

`torch_pickle` reads the pickle; elements are read block by block, through the descriptor. torch does not look at the
checksums that it writes into the archive, so they are checked here, once, before all else.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, naming
from lnsnum.files.layout import DTYPES, Description, refuse
from lnsnum.files.pickles import Call, PickleReader
from lnsnum.files.single import BLOCK, check_unchanged, identity
from lnsnum.kernels.codes import check_codes, check_offsets
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.toolbox.file_kinds.torch_pickle import (
    SIZES,
    Leaf,
    Storage,
    StoredTensor,
    StoredWeight,
    TorchPickleReader,
    Unusable,
    leaves,
    read_pickle,
)
from lnsnum.toolbox.file_kinds.zip_members import (
    Archive,
    DamagedError,
    Window,
    check_whole,
    fill,
    native,
    open_archive,
    whole,
)

LARGEST_PICKLE = 100_000_000
"""Bytes of the pickle that says where tensors lie: as many as the header of a weight file may have."""

_EXPANDED = 1 << 20
"""Elements up to which a tensor may have more than are stored: a file of a few bytes is none of terabytes."""


class _Bytes(Protocol):
    """Where the bytes of storages are."""

    byteorder: str

    def sizes(self, storage: Storage) -> tuple[int, int]:
        """How many bytes of it there are, and how many they take in the file. Raises DamagedError."""

    def open(self, storage: Storage, begin: int) -> IO[bytes]:
        """A stream of them, from one on. Raises DamagedError, OSError."""

    def check_unchanged(self) -> None:
        """Raise WeightFileError where somebody has written to the file since it was opened."""


class TorchFile:
    """The tensors of a file of torch.save.

    Args:
        path: the file.
        content: what its pickle stands for.
        data: the bytes of its storages.
    """

    def __init__(self, path: StrPath, content: Any, data: _Bytes) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        self.skipped: list[str] = []
        self._data = data
        self._tensors: dict[str, Leaf] = {}
        odd = None
        for name, leaf in leaves(path, content):
            name = name if isinstance(content, (dict, list, tuple)) else Path(path).stem
            if not isinstance(leaf, Leaf):
                self.skipped.append(name)
                odd = odd or (leaf if isinstance(leaf, Call) else None)
            elif name in self._tensors:
                refuse(path, f"two of its tensors would have the name {name!r}")
            else:
                self._tensors[name] = leaf
        if not self._tensors and not (isinstance(content, dict) and odd is None):
            what = (
                f"a value of the type {type(content).__name__}"
                if odd is None
                else f"an object of {odd.name}, which is not built"
            )
            refuse(path, f"it holds no tensors by name, but {what}: save the state_dict()")
        self.names = list(self._tensors)

    def describe(self, name: str) -> Description:
        """What a tensor is. Raises WeightFileError where a weight file could not hold it."""
        tensor = self._tensors[name]
        if isinstance(tensor, Unusable):
            refuse(self.path, f"tensor {name!r} is {tensor.what}; weight files cannot hold such a tensor")
        if isinstance(tensor, StoredWeight):
            return self._describe_weight(name, tensor)
        self._check(name, tensor)
        return Description(tensor.shape, tensor.dtype)

    def _describe_weight(self, name: str, weight: StoredWeight) -> Description:
        fmt, codes = weight.fmt, weight.codes
        self._check(name, codes)
        if np.dtype(codes.dtype).itemsize != fmt.dtype.itemsize or np.dtype(codes.dtype).kind not in "iu":
            refuse(self.path, f"tensor {name!r} is of {fmt.name}, and its codes are of {codes.dtype}")
        scale: Any = weight.log_offset
        if isinstance(scale, StoredTensor):
            self._check(name, scale)
            scale = self._read(name, scale)
        size, axis = weight.groups
        try:
            if size:
                scale = GroupOffsets(scale, size, axis=axis)
            return Description.of_codes(codes.shape, fmt, check_offsets(scale, codes.shape))
        except (TypeError, ValueError, OverflowError) as error:
            refuse(self.path, f"tensor {name!r}: {error}")

    def _check(self, name: str, tensor: StoredTensor) -> None:
        """Refuse what cannot be held, and what its storage has not."""
        if tensor.dtype not in DTYPES.values():
            refuse(self.path, f"tensor {name!r} is of {tensor.dtype}, which weight files cannot hold")
        storage, size = tensor.storage, SIZES[tensor.dtype]
        stored = storage.size // size if storage.dtype is None else storage.size
        reach = tensor.offset + tensor.span if tensor.span else 0  # a view of nothing may begin behind the end
        if storage.dtype not in (None, tensor.dtype) or reach > stored:
            refuse(self.path, f"tensor {name!r} is damaged: it reaches beyond its storage")
        with self._named(name):
            there, _ = self._data.sizes(storage)
            if (storage.begin + stored) * size > there:
                raise DamagedError(
                    f"its storage has {there} bytes, and {(storage.begin + stored) * size} are said of it"
                )
        if math.prod(tensor.shape) > max(stored, _EXPANDED):
            elements = f"{math.prod(tensor.shape)} elements of {stored}"
            refuse(self.path, f"tensor {name!r} is expanded, {elements}: save it contiguous")

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of a tensor, in row-major order. Raises WeightFileError."""
        told, tensor = self.describe(name), self._tensors[name]
        if isinstance(tensor, StoredWeight):
            for block in self._blocks(name, tensor.codes):
                codes = block.view(told.dtype)
                try:
                    check_codes(codes, tensor.fmt)
                except ValueError as error:
                    refuse(self.path, f"tensor {name!r}: {error}")
                yield codes
        else:
            assert isinstance(tensor, StoredTensor)
            yield from self._blocks(name, tensor)
        self._data.check_unchanged()

    def _read(self, name: str, tensor: StoredTensor) -> NDArray[Any]:
        """A small tensor as a whole."""
        dtype = np.dtype(tensor.dtype)
        with self._named(name):
            check_whole(math.prod(tensor.shape) * dtype.itemsize, LARGEST_PICKLE, "has scales for its channels")
        parts = [part.copy() for part in self._blocks(name, tensor)]
        return np.concatenate([*parts, np.empty(0, dtype)]).reshape(tensor.shape)

    def _blocks(self, name: str, tensor: StoredTensor) -> Iterator[NDArray[Any]]:
        if not math.prod(tensor.shape):
            return
        dtype = np.dtype(tensor.dtype)
        stored = dtype if self._data.byteorder == sys.byteorder or dtype.itemsize == 1 else dtype.newbyteorder()
        begin = (tensor.storage.begin + tensor.offset) * dtype.itemsize
        with self._named(name), naming(self.path), self._data.open(tensor.storage, begin) as file:
            if tensor.contiguous:
                size = math.prod(tensor.shape)
                buffer = np.empty(min(size, BLOCK), stored)
                for at in range(0, size, BLOCK):
                    block = buffer[: min(BLOCK, size - at)]
                    fill(file, block)
                    yield _signed(native(block), tensor)
                return
            _, in_file = self._data.sizes(tensor.storage)
            check_whole(tensor.span * dtype.itemsize, in_file, "has elements that do not lie in order")
            elements = native(whole(file, tensor.span, stored, BLOCK))
        steps = [step * dtype.itemsize if n > 1 else 0 for n, step in zip(tensor.shape, tensor.stride, strict=True)]
        view = np.lib.stride_tricks.as_strided(elements, tensor.shape, steps, writeable=False)
        for place in _places(tensor.shape):
            yield _signed(view[place].reshape(-1), tensor)

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except DamagedError as error:
            refuse(self.path, f"tensor {name!r} {error.sentence}")


def _signed(block: NDArray[Any], tensor: StoredTensor) -> NDArray[Any]:
    return np.negative(block) if tensor.negative else block


def _places(shape: tuple[int, ...]) -> Iterator[tuple[int | slice, ...]]:
    """Indices of parts of an array, none of more than BLOCK elements, in row-major order."""
    row = math.prod(shape[1:])
    if not shape or not row:
        yield ()
    elif row > BLOCK:
        for i in range(shape[0]):
            yield from ((i, *inner) for inner in _places(shape[1:]))
    else:
        rows = BLOCK // row
        yield from ((slice(i, i + rows),) for i in range(0, shape[0], rows))


@contextlib.contextmanager
def open_torch(path: StrPath, *, is_archive: bool) -> Iterator[TorchFile]:
    """The tensors of a file of torch.save.

    Args:
        path: the file.
        is_archive: whether it is a zip archive, which torch.save writes since PyTorch 1.6.

    Raises:
        WeightFileError: where it is damaged, or holds no tensors by name. Every byte of an archive is read once.
        OSError: where it cannot be read.
        ImportError: without ml_dtypes.
    """
    try:
        import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
    except ImportError as error:
        raise ImportError("PyTorch's files need ml_dtypes: pip install 'lnsnum[files]'") from error
    if is_archive:
        with open_archive(path) as archive:
            members = _Members(path, archive)
            yield TorchFile(path, members.content, members)
        return
    with contextlib.ExitStack() as opened:
        with naming(path):
            file = opened.enter_context(open(path, "rb"))
            stream = _Stream(path, file)
        yield TorchFile(path, stream.content, stream)


# -------------------------------------------------------------------------------------------------- since PyTorch 1.6


class _Members:
    """The storages of an archive: a member for each."""

    def __init__(self, path: StrPath, archive: Archive) -> None:
        self.path = path
        self._archive = archive
        pickles = [name for name in archive.members if name == "data.pkl" or name.endswith("/data.pkl")]
        self._prefix = min(pickles, key=len).removesuffix("data.pkl")
        if self._prefix + "constants.pkl" in archive.members:
            refuse(path, "a TorchScript program, not tensors: torch.save(torch.jit.load(path).state_dict(), other) "
                         "saves those")  # fmt: skip
        bad = archive.first_bad()
        if bad is not None:
            refuse(
                path,
                f"its member {bad!r} is damaged: the CRC-32 is another (as it always is where torch.serialization."
                "set_crc32_options(False) was called before torch.save: such a file has to be loaded and saved again)",
            )
        if self._prefix + "version" not in archive.members:
            refuse(path, f"its member {self._prefix + 'version'!r} is missing: it is damaged, or no file of torch.save")
        self.byteorder = "big" if self._small("byteorder", 16, b"little").strip() == b"big" else "little"
        self.content = read_pickle(path, TorchPickleReader(), self._small("data.pkl", LARGEST_PICKLE))

    def _small(self, name: str, most: int, default: bytes = b"") -> bytes:
        """A member that is read whole."""
        info = self._archive.members.get(self._prefix + name)
        if info is None:
            return default
        if info.file_size > most:
            refuse(self.path, f"its member {info.filename!r} unpacks to {info.file_size:,} bytes: {most:,} are read")
        try:
            with self._archive.open(info) as file:
                return file.read(most + 1)
        except DamagedError as error:
            refuse(self.path, f"its member {info.filename!r} {error.sentence}")

    def _info(self, storage: Storage) -> zipfile.ZipInfo:
        info = self._archive.members.get(f"{self._prefix}data/{storage.key}")
        if info is None:
            raise DamagedError(f"its storage, the member {f'{self._prefix}data/{storage.key}'!r}, is missing")
        return info

    def sizes(self, storage: Storage) -> tuple[int, int]:
        info = self._info(storage)
        return info.file_size, info.compress_size

    def open(self, storage: Storage, begin: int) -> IO[bytes]:
        return self._archive.open_at(self._info(storage), begin)

    def check_unchanged(self) -> None:
        self._archive.check_unchanged()


# -------------------------------------------------------------------------------------------------- before PyTorch 1.6


class _Limited:
    """A file of which one pickle is read, and no more than that may have."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._left = LARGEST_PICKLE

    def read(self, size: int) -> bytes:
        return self._counted(self._file.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._left + 1))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it has more than {LARGEST_PICKLE:,} bytes")
        return data


class _Stream:
    """The storages of a file of pickles: at its end, one after another, each with how many elements it has."""

    def __init__(self, path: StrPath, file: io.BufferedReader) -> None:
        self.path = path
        self._file = file
        self._opened = identity(os.fstat(file.fileno()))
        size = os.fstat(file.fileno()).st_size
        plain, reader = PickleReader(1000), TorchPickleReader()
        for _ in range(2):  # the magic number, by which the file is known, and the version
            read_pickle(path, plain, cast(IO[bytes], _Limited(file)))
        system = read_pickle(path, plain, cast(IO[bytes], _Limited(file)))
        little = system.get("little_endian", True) if isinstance(system, dict) else True
        self.byteorder = "little" if little else "big"
        self.content = read_pickle(path, reader, cast(IO[bytes], _Limited(file)))
        keys = read_pickle(path, TorchPickleReader(), cast(IO[bytes], _Limited(file)))
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            refuse(path, "it is damaged: it has no list of storages")
        self._places: dict[str, tuple[int, int]] = {}
        for key in keys:
            known = reader.storages.get(key)
            if known is None or known.dtype not in SIZES:
                refuse(
                    path, f"it is damaged, or holds what cannot be read: of its storage {key!r} the type is not known"
                )
            count = int.from_bytes(file.read(8), "little" if little else "big", signed=True)
            nbytes = count * SIZES[known.dtype]
            if count < 0 or file.tell() + nbytes > size:
                refuse(path, f"its storage {key!r} is cut off: it has {count} elements of {known.dtype}")
            self._places[key] = file.tell(), nbytes
            file.seek(nbytes, os.SEEK_CUR)

    def sizes(self, storage: Storage) -> tuple[int, int]:
        if storage.key not in self._places:
            raise DamagedError(f"its storage {storage.key!r} is missing")
        return (self._places[storage.key][1],) * 2

    def open(self, storage: Storage, begin: int) -> IO[bytes]:
        at, nbytes = self._places[storage.key]
        return cast(IO[bytes], Window(self._file, at + begin, nbytes - begin))

    def check_unchanged(self) -> None:
        check_unchanged(self.path, self._file.fileno(), self._opened)
