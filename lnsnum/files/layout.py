"""What a weight file says of its tensors: its header, made and read.

    8 bytes: N  |  N bytes: JSON, names -> dtype, shape, place;  __metadata__: {"lnsnum": description, ...}  |  data

The container is safetensors'; the description, JSON again, says what integers stand for and has the checksums.
docs/weight_file.md is the specification. Nothing here opens a file.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.packing import can_be_packed, packed_bytes
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import ChannelOffset, check_channel_offsets

LAYOUT_VERSION = 2
"""What is written. Layout 1, without checksums and packed tensors, is read too."""

METADATA_KEY, CHECKSUM_KEY = "lnsnum", "lnsnum_crc32"
"""The entries of a file's metadata that hold its description, and the checksum of that."""

LARGEST_HEADER = 100_000_000
"""Bytes: the limit of safetensors."""

MOST_PARTS = 1 << 23
"""Lists and objects of a JSON text: more than the tensors of the largest header have. An empty one takes 60 bytes."""

DTYPES = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""What a tensor can be of, by its name in the header, in the order in which tensors are written."""

_NAMES_OF_DTYPES = {dtype: name for name, dtype in DTYPES.items()}


class WeightFileError(ValueError):
    """A file that is no LNS weight file, a damaged one, or one for another model; the message says what and where."""


def refuse(path: StrPath, what: str) -> NoReturn:
    """Raise the error about a file."""
    raise WeightFileError(f"{shown(path)}: {in_one_line(what)}")


def in_one_line(what: str) -> str:
    """A sentence that may quote a file, in one line of no great length."""
    line = what if what.isprintable() else ascii(what)[1:-1]
    return line if len(line) <= 400 else line[:397] + "..."


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Description:
    """What the header says of a tensor.

    Args:
        shape: its shape.
        dtype: the name of a NumPy type: of the codes, where there is a format.
        fmt: the format of its codes; None of a plain tensor.
        log_offset: the scale of the codes.
        packed: whether the codes are stored without their unused bits.
    """

    shape: tuple[int, ...]
    dtype: str
    fmt: LNSFormat | None = None
    log_offset: ChannelOffset = 0
    packed: bool = False

    @classmethod
    def of_codes(
        cls, shape: tuple[int, ...], fmt: LNSFormat, log_offset: ChannelOffset = 0, *, packed: bool = False
    ) -> Description:
        """Of an LNS tensor. `packed` where its format can be."""
        return cls(shape, type_of_codes(fmt), fmt, log_offset, packed and can_be_packed(fmt))

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its data in the file."""
        if self.packed:
            assert self.fmt is not None
            return packed_bytes(self.size, self.fmt)
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def stored(self) -> tuple[str, tuple[int, ...]]:
        """The type, by its name in the header, and the shape that the container sees."""
        return ("U8", (self.nbytes,)) if self.packed else (_NAMES_OF_DTYPES[self.dtype], self.shape)

    @cached_property
    def checksum_of_line(self) -> int:
        """The CRC-32 of what a tensor's checksum begins with: its type and its shape."""
        dtype, shape = self.stored
        return zlib.crc32((" ".join([dtype, *map(str, shape)]) + "\n").encode())


def type_of_codes(fmt: LNSFormat) -> str:
    """The name of the NumPy type of a format's codes, which `numpy.dtype.name` takes long to make."""
    return f"uint{8 * fmt.dtype.itemsize}"


def hexadecimal(checksum: int) -> str:
    """A checksum as the file has it."""
    return f"{checksum:08x}"


# -------------------------------------------------------------------------------------------------------------- writing


def in_order(descriptions: Mapping[str, Description]) -> list[str]:
    """The names in the order in which their data are written: by type, then by name."""
    place = {name: i for i, name in enumerate(DTYPES)}
    return sorted(descriptions, key=lambda name: (place[descriptions[name].stored[0]], name))


def make_header(
    descriptions: Mapping[str, Description], checksums: Mapping[str, int], texts: Mapping[str, str]
) -> bytes:
    """The bytes before the data, whatever the checksums of equally many.

    Raises:
        ValueError: where safetensors' readers would refuse it for its length.
    """
    entries: dict[str, dict[str, Any]] = {}
    for name, told in descriptions.items():
        entries[name] = {"crc32": hexadecimal(checksums.get(name, 0))}
        if told.fmt is not None:
            entries[name] |= {"format": told.fmt.name, "log_offset": offset_to_json(told.log_offset)}
        if told.packed:
            entries[name]["packed_shape"] = list(told.shape)
    text = json.dumps({"layout": LAYOUT_VERSION, "metadata": dict(texts), "tensors": entries}, sort_keys=True)
    metadata = {METADATA_KEY: text, CHECKSUM_KEY: hexadecimal(zlib.crc32(text.encode()))}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in in_order(descriptions):
        begin, end = end, end + descriptions[name].nbytes
        dtype, shape = descriptions[name].stored
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > LARGEST_HEADER:
        raise ValueError(f"the header would have {len(encoded)} bytes, and readers take {LARGEST_HEADER}")
    return len(encoded).to_bytes(8, "little") + encoded


def offset_to_json(log_offset: ChannelOffset) -> Any:
    """A scale as the description has it: an integer, or an object of shape and values."""
    if isinstance(log_offset, int):
        return log_offset
    return {"shape": list(log_offset.shape), "values": log_offset.reshape(-1).tolist()}


# -------------------------------------------------------------------------------------------------------------- reading


class Header:
    """The header of a weight file, its outline checked: what a tensor is it says by `describe`.

    Args:
        path: the file, for errors.
        encoded: the header's JSON, which safetensors has read.

    Raises:
        WeightFileError: where the description is missing, damaged or of a later layout, its metadata are no strings, or
            its entries are not those of the tensors.
    """

    def __init__(self, path: StrPath, encoded: bytes) -> None:
        self.path = path
        self._described: dict[str, Description] = {}
        if not encoded.startswith(b"{"):
            refuse(path, "its header does not begin with a brace")
        self._tensors = read_json(path, "its header", _decoded(path, encoded))
        metadata = self._tensors.pop("__metadata__", None) or {}
        self.names: list[str] = sorted(self._tensors, key=lambda name: self._tensors[name]["data_offsets"])
        text = metadata.get(METADATA_KEY)
        if text is None:
            what = f"a safetensors file, but no LNS weight file: its metadata has no entry {METADATA_KEY!r}"
            refuse(path, f"{what} (lnsnum convert makes one of it)")
        is_damaged = metadata.get(CHECKSUM_KEY) != hexadecimal(zlib.crc32(text.encode()))
        damaged = f"its metadata entry {METADATA_KEY!r} is damaged: {CHECKSUM_KEY!r} is not its checksum"
        try:
            self._content = read_json(path, f"its metadata entry {METADATA_KEY!r}", text)
        except WeightFileError:
            if is_damaged and CHECKSUM_KEY in metadata:
                refuse(path, damaged)
            raise
        layout = self._content.get("layout")
        if type(layout) is not int or not 1 <= layout <= LAYOUT_VERSION:
            refuse(path, f"layout version {layout!r} is unknown: this reader knows 1 to {LAYOUT_VERSION}")
        self.layout: int = layout
        if self.layout > 1 and is_damaged:
            refuse(path, damaged)
        entries = self._content.get("tensors")
        if not isinstance(entries, dict):
            refuse(path, f"its metadata entry {METADATA_KEY!r} has no list of tensors")
        self._entries: dict[str, Any] = entries
        texts = self._content.get("metadata", {})
        if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
            refuse(path, "its metadata are not strings by name")
        self.texts: dict[str, str] = texts
        """The metadata that the writer was given."""
        for name in sorted(self._entries.keys() - self._tensors.keys()):
            refuse(path, f"its entry for {name!r} has no tensor")
        for name in sorted(self._tensors.keys() - self._entries.keys() if self.layout > 1 else ()):
            refuse(path, f"tensor {name!r} has no entry")

    def place(self, name: str) -> tuple[int, int]:
        """Where a tensor's data begin and end, after the header."""
        begin, end = self._tensors[name]["data_offsets"]
        return begin, end

    def checksum(self, name: str) -> str | None:
        """The checksum that its data should have; None in a file of layout 1. Raises WeightFileError."""
        if self.layout == 1:
            return None
        checksum = self._entry(name).get("crc32")
        if not isinstance(checksum, str) or re.fullmatch("[0-9a-f]{8}", checksum) is None:
            refuse(self.path, f"the entry for {name!r} has no checksum of eight hexadecimal digits")
        return checksum

    def describe(self, name: str) -> Description:
        """What the header says of a tensor, checked. Raises WeightFileError."""
        if name not in self._described:
            self._described[name] = self._checked(name)
        return self._described[name]

    def _checked(self, name: str) -> Description:
        dtype, shape = self._tensors[name]["dtype"], tuple(self._tensors[name]["shape"])
        if dtype not in DTYPES:
            refuse(self.path, f"tensor {name!r} is of {dtype}: NumPy has no such type")
        entry = self._entry(name)
        try:
            told = self._describe(entry, dtype, shape)
        except (TypeError, ValueError, OverflowError) as error:
            refuse(self.path, f"tensor {name!r}: {error}")
        begin, end = self.place(name)
        if told.nbytes != end - begin:
            what = f"shape {told.shape}" + (f" of {told.fmt} packed" if told.packed else "")
            refuse(self.path, f"tensor {name!r} has {end - begin} bytes, and its {what} takes {told.nbytes}")
        why = why_unholdable(told.shape, told.dtype)
        if why is not None:
            refuse(self.path, f"tensor {name!r} is none that NumPy can hold: {why}")
        return told

    def _entry(self, name: str) -> dict[str, Any]:
        entry = self._entries.get(name, {})
        if not isinstance(entry, dict):
            refuse(self.path, f"the entry for {name!r} is no object")
        return entry

    def _describe(self, entry: dict[str, Any], dtype: str, shape: tuple[int, ...]) -> Description:
        if "format" not in entry:
            for field in ("log_offset", "packed_shape"):
                if field in entry:
                    raise ValueError(f"its entry has a {field}, but no format")
            return Description(shape, DTYPES[dtype])
        if not isinstance(entry.get("format"), str) or "log_offset" not in entry:
            raise ValueError("its entry lacks a format or a log_offset")
        fmt = LNSFormat.parse(entry["format"])
        packed = self.layout > 1 and "packed_shape" in entry
        if packed:
            if not can_be_packed(fmt):
                raise ValueError(f"it is packed, and codes of {fmt.name} have no bit to spare")
            if dtype != "U8" or len(shape) != 1:
                raise ValueError(f"it is packed, but of {DTYPES[dtype]} and shape {shape}, not uint8 of one dimension")
            shape = _integers("packed_shape", entry["packed_shape"])
        elif DTYPES[dtype] != type_of_codes(fmt):
            raise ValueError(f"it is of {DTYPES[dtype]}, but codes of {fmt.name} are {fmt.dtype}")
        log_offset = check_channel_offsets(_offset_from_json(entry["log_offset"]), shape)
        return Description.of_codes(shape, fmt, log_offset, packed=packed)


def why_unholdable(shape: tuple[int, ...], dtype: str) -> str | None:
    """Why NumPy has no array of this shape, which may have no elements; None where it has."""
    if len(shape) <= 32 and 0 < math.prod(shape) < 1 << 50:
        return None  # what every version has, without asking
    try:
        np.broadcast_to(np.empty((), dtype), shape)
    except ValueError as error:
        return str(error)
    return None


def _decoded(path: StrPath, encoded: bytes) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        refuse(path, "its header is no UTF-8")


def _offset_from_json(entry: Any) -> object:
    if not isinstance(entry, dict):
        return entry  # check_channel_offsets says what is wrong with it
    shape = _integers("shape of its log_offset", entry.get("shape"))
    values = entry.get("values")
    if not isinstance(values, list) or not all(type(number) is int for number in values):
        raise ValueError("the values of its log_offset are no list of integers")
    if len(values) != math.prod(shape):
        raise ValueError(f"its log_offset has {len(values)} values, and its shape {shape} takes {math.prod(shape)}")
    return np.array(values, np.int64).reshape(shape)


def _integers(what: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(size) is int and 0 <= size < 1 << 63 for size in value):
        raise ValueError(f"the {what} is no list of integers from 0 on")
    return tuple(value)


class _DuplicateError(ValueError):
    pass


def read_json(path: StrPath, what: str, text: str) -> dict[str, Any]:
    """A JSON object, in which no name occurs twice: different readers would read it differently."""
    if text.count("[") + text.count("{") > MOST_PARTS:
        refuse(path, f"{what} has more than {MOST_PARTS} lists and objects")
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        twice = f": {error}" if isinstance(error, _DuplicateError) else ""
        refuse(path, f"{what} is not JSON{twice}")
    if not isinstance(value, dict):
        refuse(path, f"{what} is no JSON object")
    if "\\ud" in text.lower() and not is_unicode(json.dumps(value, ensure_ascii=False)):
        refuse(path, f"{what} has a string that is no Unicode")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is none of JSON's numbers")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _DuplicateError("a name occurs twice in one object")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
