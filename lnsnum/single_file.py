"""One LNS weight file: a safetensors file whose integer tensors say what they stand for.

Codes are stored as the unsigned integers they are (U8, U16, U32) and every other tensor as it is, so any safetensors
reader opens the file. One entry of the metadata, `lnsnum`, is JSON:

    {"layout": 1, "metadata": {...}, "tensors": {"conv.weight": {"format": "lns8f5", "log_offset": -12}, ...}}

where a log_offset for each channel is {"shape": [...], "values": [...]}. The same tensors give the same bytes.
docs/weight_file.md is the specification. The safetensors library writes the file, checks its header and reads it; large
tensors are read from where that header says that they are. Loading executes nothing that the file says.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum.atomic_file import StrPath, shown
from lnsnum.codes import Codes, LogOffset, check_codes, check_offsets
from lnsnum.format import LNSFormat
from lnsnum.tensor import LNSTensor

LAYOUT_VERSION = 1
METADATA_KEY = "lnsnum"

Tensor = LNSTensor | NDArray[Any]

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""What a tensor can be of, by the name in the file's header."""

LARGE = 1 << 22
"""Bytes from which NumPy asks for memory in large pages: reading a tensor into those is faster than
safetensors' copy, page by page, from a mapped file."""


class WeightFileError(ValueError):
    """A file that is no LNS weight file, a damaged one, or one for another model; the message says what and where."""


def refuse(path: StrPath, what: str) -> NoReturn:
    """Raise the error about a file, in one line of no great length."""
    short = what if len(what) <= 400 else what[:397] + "..."
    raise WeightFileError(f"{shown(path)}: {short}")


def _safetensors() -> Any:
    try:
        import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"weight files need {error.name}: pip install 'lnsnum[files]'") from error
    return safetensors


# -------------------------------------------------------------------------------------------------------------- writing


def check_name(name: object) -> None:
    """Raise ValueError where this cannot name a tensor of a file."""
    if not isinstance(name, str) or name == "__metadata__" or not is_unicode(name):
        raise ValueError(f"{name!r} cannot name a tensor: any string but '__metadata__' can, in Unicode")


def check_storable(name: str, tensor: object) -> None:
    """Raise TypeError where this is no tensor that a file can hold."""
    if not isinstance(tensor, (LNSTensor, np.ndarray)):
        raise TypeError(
            f"tensor {name!r} is a {type(tensor).__name__}: "
            "give an LNSTensor or a NumPy array (of an LNSWeight its to_lns())"
        )
    if isinstance(tensor, np.ndarray) and tensor.dtype.name not in _DTYPES.values():
        raise TypeError(f"tensor {name!r} is of {tensor.dtype}, which weight files cannot hold")


def check_texts(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The metadata as a dict. Raises TypeError where they are no strings by name."""
    texts = dict(metadata or {})
    for key, value in texts.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata entry {key!r} is not a string by a string")
    return texts


def write(target: Path, weights: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write tensors and texts that have been checked to a file, over what is there."""
    safetensors = _safetensors()
    arrays: dict[str, NDArray[Any]] = {}
    entries: dict[str, dict[str, Any]] = {}
    for name, tensor in weights.items():
        if isinstance(tensor, LNSTensor):
            entries[name] = {"format": tensor.fmt.name, "log_offset": _offset_to_json(tensor.log_offset)}
        arrays[name] = np.asarray(tensor.codes if isinstance(tensor, LNSTensor) else tensor, order="C")
    header = json.dumps({"layout": LAYOUT_VERSION, "metadata": dict(texts), "tensors": entries}, sort_keys=True)
    try:
        safetensors.numpy.save_file(arrays, target, metadata={METADATA_KEY: header})
    except safetensors.SafetensorError as error:
        raise OSError(f"{shown(target)} cannot be written: {error}") from error


def tensor_on(codes: NDArray[Any], fmt: LNSFormat, log_offset: LogOffset) -> LNSTensor:
    """An LNSTensor on an array of codes of the format's type, which is looked at without any further memory.

    Raises:
        ValueError: where a code lies outside the format.
    """
    if fmt.bits < 8 * codes.dtype.itemsize and codes.size and int(codes.max()) >> fmt.bits:
        check_codes(codes, fmt)  # says which
    return LNSTensor._of(cast(Codes, codes), fmt, log_offset)


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _offset_to_json(log_offset: LogOffset) -> Any:
    if isinstance(log_offset, int):
        return log_offset
    return {"shape": list(log_offset.shape), "values": log_offset.reshape(-1).tolist()}


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Description:
    """What the header says of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    """The name of a NumPy type: of the codes, where there is a format."""
    fmt: LNSFormat | None = None
    log_offset: LogOffset = 0

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def takes_any_data(self) -> bool:
        """Whether every bit pattern is good: not where codes do not fill their integers."""
        return self.fmt is None or self.fmt.bits == 8 * self.fmt.dtype.itemsize


class WeightFile:
    """An open weight file, its outline checked: every entry has a tensor. What a tensor is it says by `describe`."""

    def __init__(self, path: StrPath, file: Any, identity: tuple[int, ...]) -> None:
        self.path = path
        self._file = file
        self._identity = identity
        self._begins: dict[str, int] = {}
        self._header = _header(path, file)
        self.names: list[str] = list(file.keys())
        for name in sorted(self._header["tensors"].keys() - set(self.names)):
            refuse(path, f"its entry for {name!r} has no tensor")

    @property
    def texts(self) -> dict[str, str]:
        """The metadata that the writer was given. Raises WeightFileError where they are no strings."""
        texts = self._header.get("metadata", {})
        if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
            refuse(self.path, "its metadata are not strings by name")
        return dict(texts)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from the header."""
        return tuple(self._file.get_slice(name).get_shape())

    def describe(self, name: str) -> Description:
        """What the header says of a tensor, checked. Raises WeightFileError."""
        shape, stored = self.shape(name), self._file.get_slice(name).get_dtype()
        if stored not in _DTYPES:
            refuse(self.path, f"tensor {name!r} is of {stored}: NumPy has no such type")
        dtype = _DTYPES[stored]
        if name not in self._header["tensors"]:
            return Description(shape, dtype)
        entry = self._header["tensors"][name]
        if not isinstance(entry, dict) or not isinstance(entry.get("format"), str) or "log_offset" not in entry:
            refuse(self.path, f"the entry for {name!r} lacks a format or a log_offset")
        try:
            fmt = LNSFormat.parse(entry["format"])
            if dtype != fmt.dtype.name:
                refuse(self.path, f"tensor {name!r} is of {dtype}, but codes of {fmt.name} are {fmt.dtype}")
            return Description(shape, dtype, fmt, check_offsets(_offset_from_json(entry["log_offset"]), shape))
        except WeightFileError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            refuse(self.path, f"tensor {name!r}: {error}")

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own, all of it checked. Raises WeightFileError."""
        told = self.describe(name)
        array = self._array(name, told)
        if told.fmt is None:
            return array
        try:
            return tensor_on(array, told.fmt, told.log_offset)
        except ValueError as error:
            refuse(self.path, f"tensor {name!r}: {error}")

    def _array(self, name: str, told: Description) -> NDArray[Any]:
        try:
            if told.nbytes >= LARGE and (straight := self._straight(name, told)) is not None:
                return straight
            with _refusing_damage(self.path):
                array: NDArray[Any] = self._file.get_tensor(name)
        except MemoryError:
            raise WeightFileError(f"{shown(self.path)}: tensor {name!r} does not fit into memory") from None
        except WeightFileError:
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise WeightFileError(
                f"{shown(self.path)}: tensor {name!r} is none that NumPy can hold: {error}"
            ) from error
        return array

    def _straight(self, name: str, told: Description) -> NDArray[Any] | None:
        """A tensor read from the file itself; None where that is not, or no longer, the one that is open."""
        with contextlib.suppress(OSError, ValueError), open(self.path, "rb", buffering=0) as file:
            if _identity(os.fstat(file.fileno())) != self._identity or sys.byteorder == "big":
                return None
            self._begins = self._begins or _begins(file)
            array = np.empty(told.shape, told.dtype)
            left = array.reshape(-1).view(np.uint8).data
            file.seek(self._begins[name])
            while count := file.readinto(left):
                left = left[count:]
            return None if left else array
        return None


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _begins(file: io.FileIO) -> dict[str, int]:
    """Where in the file each tensor begins, by the header, which safetensors has checked. Raises ValueError."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
    return {name: 8 + length + told["data_offsets"][0] for name, told in header.items() if name != "__metadata__"}


@contextlib.contextmanager
def open_file(path: StrPath) -> Iterator[WeightFile]:
    """A weight file, open. Raises WeightFileError, OSError, ImportError."""
    check_regular(path)
    with _refusing_damage(path):
        identity = _identity(os.stat(path))  # before it is opened: where the path has it later, it is what was opened
        file = _safetensors().safe_open(path, framework="numpy")
    with file:
        yield WeightFile(path, file, identity)


@contextlib.contextmanager
def _refusing_damage(path: StrPath) -> Iterator[None]:
    safetensors = _safetensors()
    try:
        yield
    except safetensors.SafetensorError as error:
        raise WeightFileError(f"{shown(path)} is damaged or no safetensors file: {error}") from error


def check_regular(path: StrPath) -> None:
    """Refuse folders, pipes and their like; what is not there passes."""
    if os.path.isdir(path):
        raise WeightFileError(f"{shown(path)} is a folder, not a weight file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise WeightFileError(f"{shown(path)} is no regular file")


def _header(path: StrPath, file: Any) -> dict[str, Any]:
    """Our entry of the file's metadata, its outline checked."""
    metadata: Mapping[str, str] = file.metadata() or {}
    if METADATA_KEY not in metadata:
        refuse(path, f"a safetensors file, but no LNS weight file: its metadata has no entry {METADATA_KEY!r}")
    header = read_json(path, f"its metadata entry {METADATA_KEY!r}", metadata[METADATA_KEY])
    version = header.get("layout")
    if type(version) is not int or version != LAYOUT_VERSION:
        refuse(path, f"layout version {version!r} is unknown: this reader knows version {LAYOUT_VERSION}")
    if not isinstance(header.get("tensors"), dict):
        refuse(path, f"its metadata entry {METADATA_KEY!r} has no list of tensors")
    return header


class _DuplicateError(ValueError):
    pass


def read_json(path: StrPath, what: str, text: str) -> dict[str, Any]:
    """A JSON object, in which no name occurs twice: different readers would read it differently."""
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        twice = f": {error}" if isinstance(error, _DuplicateError) else ""
        refuse(path, f"{what} is not JSON{twice}")
    if not isinstance(value, dict):
        refuse(path, f"{what} is no JSON object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _DuplicateError("a name occurs twice in one object")
    return fields


def _offset_from_json(entry: Any) -> object:
    if not isinstance(entry, dict):
        return entry  # check_offsets says what is wrong with it
    shape, values = entry.get("shape"), entry.get("values")
    if not isinstance(shape, list) or not isinstance(values, list):
        raise ValueError("its log_offset has no shape and values")
    if not all(type(number) is int for number in shape + values) or any(size < 0 for size in shape):
        raise ValueError("its log_offset has a shape or values that are no integers")
    return np.array(values, np.int64).reshape(shape)
