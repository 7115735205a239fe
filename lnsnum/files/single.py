"""One LNS weight file, written and read as a stream: a tensor is never in memory as a whole unless it is asked for.

`lnsnum.files.layout` tells what is in a file. The safetensors library checks the container of a file that is read; the
data are read and written here, block by block, because only so a file can be larger than memory. Loading executes
nothing that the file says, and allocates nothing on its word.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, naming, shown
from lnsnum.files.headers import Header, Stored
from lnsnum.files.layout import (
    CODES,
    CONTAINERS_METADATA,
    DTYPES,
    OFFSETS,
    OPTIMIZER,
    Blocks,
    Content,
    Description,
    WeightFileError,
    can_name,
    hexadecimal,
    in_one_line,
    is_unicode,
    refuse,
)
from lnsnum.files.packing import pack, packed_bytes, spare_bits, unpack
from lnsnum.files.system_errors import FOLDER, what_else
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import check_codes, check_unmasked, outside_of
from lnsnum.tensor import LNSTensor

Tensor = LNSTensor | NDArray[Any]

BLOCK = 1 << 20
"""Elements of a block: a multiple of eight, so that packed blocks begin at a byte."""


def _safetensors() -> Any:
    try:
        import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
        import safetensors
    except ImportError as error:
        raise ImportError(f"weight files need {error.name}: pip install 'lnsnum[files]'") from error
    return safetensors


def in_blocks(flat: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array of one dimension in blocks."""
    for begin in range(0, flat.size, BLOCK):
        yield flat[begin : begin + BLOCK]


# -------------------------------------------------------------------------------------------------------------- writing


def check_name(name: object) -> None:
    """Raise ValueError where this cannot name a tensor of a file."""
    if not can_name(name):
        raise ValueError(f"{name!r} cannot name a tensor: any string but {CONTAINERS_METADATA!r} can, in Unicode")


def describe_tensor(name: str, tensor: object, *, packed: bool = False) -> Description:
    """What a file is to say of a tensor. Raises TypeError where this is none that a file can hold."""
    if isinstance(tensor, LNSTensor):
        return Description.of_codes(tensor.shape, tensor.fmt, tensor.log_offset, packed=packed)
    if not isinstance(tensor, np.ndarray):
        raise TypeError(
            f"tensor {name!r} is a {type(tensor).__name__}: "
            "give an LNSTensor or a NumPy array (of an LNSWeight its to_lns())"
        )
    check_unmasked(tensor, f"elements of tensor {name!r}")
    if tensor.dtype.name not in DTYPES.values():
        raise TypeError(f"tensor {name!r} is of {tensor.dtype}, which weight files cannot hold")
    return Description(tensor.shape, tensor.dtype.name)


def blocks_of(tensor: Tensor) -> Iterator[NDArray[Any]]:
    """Its elements as a file has them, copied only where they do not lie so."""
    return in_blocks(np.asarray(tensor.codes if isinstance(tensor, LNSTensor) else tensor, order="C").reshape(-1))


def check_texts(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The metadata as a dict. Raises TypeError or ValueError where they are no strings by name."""
    texts = dict(metadata or {})
    for key, value in texts.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata entry {key!r} is not a string by a string")
        if not is_unicode(key + value):
            raise ValueError(f"metadata entry {key!r} is no Unicode")
    return texts


def check_state(state: object) -> dict[str, Any]:
    """What an optimizer's state holds beside tensors. Raises TypeError or ValueError where it is no JSON."""
    if not isinstance(state, Mapping):
        raise TypeError(f"the state of the optimizer is a {type(state).__name__}: give an object of JSON, by name")
    try:
        again = json.loads(json.dumps(dict(state), allow_nan=False))
        json.dumps(again, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the state of the optimizer is no JSON: {in_one_line(str(error))}") from error
    if again != state:
        raise ValueError("the state of the optimizer is no JSON: names are strings, and sequences lists")
    return dict(state)


def write(target: Path, content: Content, blocks: Blocks, moments: Blocks) -> None:
    """Write what has been checked to a file, over what is there.

    The header comes first and has the checksums of what follows, so it is written once more at the end.

    Args:
        target: the file.
        content: what it is to hold.
        blocks: the elements of each tensor.
        moments: those of the tensors of the optimizer.
    """
    _safetensors()
    from_part: dict[str, tuple[str, Iterable[NDArray[Any]]]] = {}
    for name, told in content.tensors.items():
        from_part[name if told.fmt is None else name + CODES] = name, _later(blocks, name)
        if told.offsets is not None:
            from_part[name + OFFSETS] = name, in_blocks(np.ascontiguousarray(told.offsets).reshape(-1))
    for name in content.moments:
        from_part[name + OPTIMIZER] = name, _later(moments, name)
    with open(target, "wb", buffering=0) as file:
        _write_all(file, content.header({}))
        checksums: dict[str, int] = {}
        for stored in content.in_order:
            name, data = from_part[stored]
            checksums[stored] = _write_tensor(file, name, content.parts[stored], data)
        file.seek(0)
        _write_all(file, content.header(checksums))


def _later(blocks: Blocks, name: str) -> Iterator[NDArray[Any]]:
    """The blocks of a tensor, which is asked for when its turn comes."""
    yield from blocks(name)


def _write_tensor(file: io.FileIO, name: str, told: Description, blocks: Iterable[NDArray[Any]]) -> int:
    """Write the data of one tensor. Returns its checksum."""
    checked = _checked(name, told, blocks)
    checksum = told.checksum_of_line
    for block in _whole_bytes(checked) if told.packed else checked:
        data = pack(block, cast(LNSFormat, told.fmt)) if told.packed else block
        raw = memoryview(cast(Any, _little_endian(data).view(np.uint8)))
        checksum = zlib.crc32(raw, checksum)
        _write_all(file, raw)
    return checksum


def _checked(name: str, told: Description, blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The blocks, contiguous. Raises TypeError or ValueError where they are not what the description says."""
    count = 0
    for block in blocks:
        if not isinstance(block, np.ndarray) or block.dtype.name != told.dtype or block.ndim != 1:
            given = f"{block.ndim}-d {block.dtype}" if isinstance(block, np.ndarray) else type(block).__name__
            raise TypeError(f"a block of tensor {name!r} is a {given}: give arrays of {told.dtype} and one dimension")
        if told.fmt is not None and _outside(block, told.fmt):
            check_codes(block, told.fmt)  # says which
        count += block.size
        yield np.ascontiguousarray(block, block.dtype.newbyteorder("="))
    if count != told.size:
        raise ValueError(f"the blocks of tensor {name!r} have {count} elements, and its shape {told.shape} {told.size}")


def _outside(codes: NDArray[Any], fmt: LNSFormat) -> bool:
    """Whether one of them lies outside the format."""
    return fmt.bits < 8 * codes.itemsize and codes.size > 0 and bool(int(codes.max()) >> fmt.bits)


def _whole_bytes(blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The same elements in blocks of multiples of eight, but for the last."""
    rest: NDArray[Any] | None = None
    for block in blocks:
        joined = block if rest is None or not rest.size else np.concatenate([rest, block])
        whole = joined.size - joined.size % 8
        rest = joined[whole:]
        if whole:
            yield joined[:whole]
    if rest is not None and rest.size:
        yield rest


def _write_all(file: io.FileIO, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return array.byteswap() if sys.byteorder == "big" and array.itemsize > 1 else array


# -------------------------------------------------------------------------------------------------------------- reading


class WeightFile:
    """An open weight file, its outline checked; closed at the end of a `with` that it is given to."""

    def __init__(self, path: StrPath, file: io.FileIO, header: Header, begin: int) -> None:
        self.path = path
        self.header = header
        self.names = header.names
        self._file = file
        self._begin = begin
        self._opened = identity(os.fstat(file.fileno()))
        self._described: dict[str, Description] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @property
    def texts(self) -> dict[str, str]:
        """The metadata that the writer was given."""
        return dict(self.header.texts)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, by the header alone. Raises WeightFileError."""
        return self.header.outline(name).elements.told.shape

    def describe(self, name: str) -> Description:
        """What the file says of a tensor, checked, its log_offsets read. Raises WeightFileError."""
        if name not in self._described:
            outline = self.header.outline(name)
            told = outline.elements.told
            if outline.offsets is not None:
                offsets = self._read(outline.offsets)
                try:
                    told = outline.with_offsets(offsets)
                except (TypeError, ValueError) as error:
                    refuse(self.path, f"tensor {name!r}: {error}")
            self._described[name] = told
        return self._described[name]

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own, all of it checked. Raises WeightFileError."""
        told = self.describe(name)
        array = self._read(self.header.outline(name).elements)
        return array if told.fmt is None else LNSTensor._of(array, told.fmt, told.log_offset)

    def read_moment(self, name: str) -> NDArray[Any]:
        """One tensor of the optimizer's state, in memory of its own, checked. Raises WeightFileError."""
        return self._read(self.header.moment(name))

    def _read(self, stored: Stored) -> NDArray[Any]:
        array = self._empty(stored)
        for _ in self._read_into(array.reshape(-1), stored):
            pass
        return array

    def _empty(self, stored: Stored) -> NDArray[Any]:
        try:
            return np.empty(stored.told.shape, stored.told.dtype)
        except MemoryError:
            raise WeightFileError(f"{shown(self.path)}: {stored.what} does not fit into memory") from None

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of a tensor, one array after another, each valid until the next is asked for.

        Codes are checked when they come, the checksum when all have come. Raises WeightFileError.
        """
        self.describe(name)  # a scale that is none refuses the tensor
        stored = self.header.outline(name).elements
        return self._read_into(np.empty(min(stored.told.size, BLOCK), stored.told.dtype), stored)

    def moment_blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of a tensor of the optimizer's state, as `blocks`. Raises WeightFileError."""
        stored = self.header.moment(name)
        return self._read_into(np.empty(min(stored.told.size, BLOCK), stored.told.dtype), stored)

    def _read_into(self, array: NDArray[Any], stored: Stored) -> Iterator[NDArray[Any]]:
        """Fill an array, or one of a block's size again and again; yields each block of it that is filled."""
        told = stored.told
        self._file.seek(self._begin + stored.begin)
        checksum, last = told.checksum_of_line, 0
        for begin in range(0, told.size, BLOCK):
            count = min(BLOCK, told.size - begin)
            block = array[begin : begin + count] if array.size == told.size else array[:count]
            raw = np.empty(packed_bytes(count, cast(LNSFormat, told.fmt)), np.uint8) if told.packed else block
            data = memoryview(cast(Any, raw.view(np.uint8)))
            self._read_exactly(data, stored.what)
            checksum = zlib.crc32(data, checksum)
            if told.packed:
                unpack(raw, cast(LNSFormat, told.fmt), block)
                last = int(raw[-1])
            elif sys.byteorder == "big":
                block.byteswap(inplace=True)
            self._check_elements(block, begin, stored)
            yield block
        expected = stored.checksum
        if expected is not None and hexadecimal(checksum) != expected:
            refuse(
                self.path,
                f"{stored.what} is damaged: its checksum is {hexadecimal(checksum)}, and the file says {expected}",
            )
        if told.packed and spare_bits(last, told.size, cast(LNSFormat, told.fmt)):
            refuse(self.path, f"{stored.what} has bits other than 0 after its last code")
        check_unchanged(self.path, self._file.fileno(), self._opened)

    def _read_exactly(self, data: memoryview, what: str) -> None:
        left = data
        while left:
            with naming(self.path):
                count = self._file.readinto(left)
            if not count:
                refuse(self.path, f"{what} is cut off: the file became shorter while it was read")
            left = left[count:]

    def _check_elements(self, block: NDArray[Any], begin: int, stored: Stored) -> None:
        """Raise WeightFileError where a code lies outside the format, or a truth value is neither 0 nor 1."""
        told = stored.told
        if told.dtype == "bool" and int(block.view(np.uint8).max()) > 1:
            refuse(self.path, f"{stored.what} is of bool, and has bytes other than 0 and 1")
        if told.fmt is not None and _outside(block, told.fmt):
            at = int((block > told.fmt.sign_bit + told.fmt.max_magnitude).argmax())
            refuse(self.path, f"{stored.what}: {outside_of(told.fmt, block[at], begin + at, told.shape)}")


def open_file(path: StrPath) -> WeightFile:
    """A weight file, open. Raises WeightFileError, OSError, ImportError."""
    file, header = open_container(path)
    try:
        return WeightFile(path, file, Header(path, header), 8 + len(header))
    except BaseException:
        file.close()
        raise


def open_container(path: StrPath) -> tuple[io.FileIO, bytes]:
    """A file that safetensors takes, and the JSON of its header."""
    while True:
        check_regular(path)
        with naming(path):
            file = open(path, "rb", buffering=0)  # noqa: SIM115 -- it is handed on, open
            try:
                status = os.fstat(file.fileno())
                _check_container(path, file)
                length = int.from_bytes(file.read(8), "little")
                header = file.read(min(length, status.st_size))
                unchanged = identity(os.stat(path)) == identity(status)
            except BaseException:
                file.close()
                raise
            if unchanged:  # else what was checked is another file: once more
                return file, header
            file.close()


def _check_container(path: StrPath, file: io.FileIO) -> None:
    """Raise WeightFileError where the safetensors library refuses a file."""
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except safetensors.SafetensorError as error:
        first = file.read(1 << 10)
        for magic, what in _FOREIGN.items():
            if first.startswith(magic):
                refuse(path, what)
        why = _why_not_covered(file) or in_one_line(str(error))
        raise WeightFileError(f"{shown(path)} is damaged or no safetensors file: {why}") from error


_FOREIGN = {
    b"PK": "a zip archive, as PyTorch's .pt and NumPy's .npz are, and no weight file (lnsnum convert makes one of it)",
    b"\x93NUMPY": "an .npy file, and no weight file (lnsnum convert makes one of it)",
    b"version https://git-lfs": "a pointer of Git LFS, not the file that it stands for: git lfs pull fetches that",
}
"""What other files begin with that are given by mistake."""


def _why_not_covered(file: io.FileIO) -> str | None:
    """How many bytes a file lacks or has too many, by its header; None where that is not what is wrong."""
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    try:
        header = json.loads(file.read(min(length, size)).decode())  # of bytes, json would guess the encoding
        data = max(told["data_offsets"][1] for name, told in header.items() if name != CONTAINERS_METADATA)
        there = size - 8 - length
        if type(data) is not int or data == there:
            return None
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError):
        return None
    return in_one_line(f"its header tells of {data} bytes of data, and there are {max(there, 0)}")


def identity(status: os.stat_result) -> tuple[int, ...]:
    """What stays as long as a file is the same and nobody writes to it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_unchanged(path: StrPath, descriptor: int, opened: tuple[int, ...]) -> None:
    """Refuse an open file that was written to since it was opened: what was checked may be there no more."""
    if identity(os.fstat(descriptor)) != opened:
        refuse(path, "it was changed while it was read")


def check_regular(path: StrPath) -> None:
    """Refuse folders, pipes and their like; what is not there passes."""
    what = what_else(path)
    if what is not None:
        raise WeightFileError(f"{shown(path)} {what}{', not a weight file' if what == FOLDER else ''}")
