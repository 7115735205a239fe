"""What a weight file says of its tensors: what is stored, under which names, and the header that says so.

    8 bytes: N  |  N bytes: JSON, names -> dtype, shape, place;  __metadata__: {"lnsnum": description, ...}  |  data

The container is safetensors'; the description, JSON again, says what integers stand for and has the checksums.

    fc.bias      plain           fc.bias
    fc.weight    codes           fc.weight.lnsnum_codes, and fc.weight.lnsnum_offsets where its scale is an array
    fc.weight    an optimizer's  fc.weight.lnsnum_optimizer

So a loader that knows nothing of LNS misses `fc.weight`, and does not take its codes for numbers. docs/weight_file.md
is the specification. Nothing here opens a file.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.packing import can_be_packed, packed_bytes
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import LogOffset
from lnsnum.kernels.groups import GroupOffsets

LAYOUT_VERSION = 3
"""What is written. Layouts 1, without checksums and packed tensors, and 2, without groups, are read too."""

CODES, OFFSETS, OPTIMIZER = ".lnsnum_codes", ".lnsnum_offsets", ".lnsnum_optimizer"
"""What the container adds to the name of an LNS tensor, for its codes and an array of log_offsets, and to that of a
tensor of the optimizer."""

CONTAINERS_METADATA = "__metadata__"
"""The member of a header that is no tensor. No tensor has this name, whatever it would be stored under."""

METADATA_KEY = "lnsnum"
"""The entry of a file's metadata that holds its description."""

CHECKSUM_KEY = "lnsnum_crc32"
"""The entry that holds the checksum of the description."""

LARGEST_HEADER = 100_000_000
"""Bytes: the limit of safetensors."""

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


Blocks = Callable[[str], Iterable[NDArray[Any]]]
"""The elements of a tensor by its name, one array after another, in row-major order: codes, where it has a format."""


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


def can_name(name: object) -> bool:
    """Whether a tensor can have this name, one of the weights or of an optimizer."""
    return isinstance(name, str) and name != CONTAINERS_METADATA and is_unicode(name)


@dataclass(frozen=True)
class Description:
    """What the header says of a tensor.

    Args:
        shape: its shape.
        dtype: the name of a NumPy type: of the codes, where there is a format.
        fmt: the format of its codes; None of a plain tensor.
        log_offset: the scale of the codes.
        packed: whether the codes are stored without their unused bits.
        fit: by which rule the scale was fitted, as JSON, for whoever will write all of it anew; None where it is not
            told. Nothing here looks into it.
    """

    shape: tuple[int, ...]
    dtype: str
    fmt: LNSFormat | None = None
    log_offset: LogOffset = 0
    packed: bool = False
    fit: Any = None

    @classmethod
    def of_codes(
        cls, shape: tuple[int, ...], fmt: LNSFormat, log_offset: LogOffset = 0, *, packed: bool = False, fit: Any = None
    ) -> Description:
        """Of an LNS tensor. `packed` where its format can be."""
        return cls(shape, type_of_codes(fmt), fmt, log_offset, packed and can_be_packed(fmt), fit)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def offsets(self) -> NDArray[np.int32] | None:
        """The log_offsets that are stored as an array of their own: of channels, or of groups."""
        if isinstance(self.log_offset, GroupOffsets):
            return self.log_offset.offsets
        return None if isinstance(self.log_offset, int) else self.log_offset

    @property
    def group_size(self) -> int | None:
        """Elements of a group that shares a log_offset; None without groups."""
        return self.log_offset.group_size if isinstance(self.log_offset, GroupOffsets) else None

    @property
    def nbytes(self) -> int:
        """Bytes of its data in the file, those of an array of log_offsets too."""
        offsets = self.offsets
        return self.nbytes_of_elements + (0 if offsets is None else 4 * offsets.size)

    @property
    def nbytes_of_elements(self) -> int:
        """Bytes of its data in the file without its log_offsets."""
        if self.packed:
            assert self.fmt is not None
            return packed_bytes(self.size, self.fmt)
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def stored(self) -> tuple[str, tuple[int, ...]]:
        """The type, by its name in the header, and the shape that the container sees."""
        return ("U8", (self.nbytes_of_elements,)) if self.packed else (_NAMES_OF_DTYPES[self.dtype], self.shape)

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


class OptimizerPart(NamedTuple):
    """What a file is to say of an optimizer's state, so that training can go on from it."""

    state: Mapping[str, Any]
    """What is no tensor: JSON."""
    tensors: Mapping[str, Description]
    """Plain ones, by names of their own."""
    blocks: Blocks
    """Their elements."""


# ---------------------------------------------------------------------------------------------------- what is written


def parts_of(name: str, told: Description) -> dict[str, Description]:
    """What the container has of a tensor, by the names that it has there: codes and their offsets apart."""
    if told.fmt is None:
        return {name: told}
    parts = {name + CODES: told}
    if told.offsets is not None:
        parts[name + OFFSETS] = Description(told.offsets.shape, "int32")
    return parts


@dataclass(frozen=True)
class Content:
    """All that one file is to hold, and so its header.

    Args:
        tensors: what each tensor is, by name.
        texts: the metadata.
        state: the optimizer's, what is no tensor; None without an optimizer.
        moments: its tensors, by name.
    """

    tensors: Mapping[str, Description]
    texts: Mapping[str, str]
    state: Mapping[str, Any] | None = None
    moments: Mapping[str, Description] = field(default_factory=dict)

    @cached_property
    def parts(self) -> dict[str, Description]:
        """What the container holds, by name. Raises ValueError where two tensors would have one name."""
        parts: dict[str, Description] = {}
        of: dict[str, str] = {}
        named = [(f"{name!r}", parts_of(name, told)) for name, told in self.tensors.items()]
        named += [(f"{name!r} of the optimizer", {name + OPTIMIZER: told}) for name, told in self.moments.items()]
        for what, own in named:
            for stored in own:
                if stored in parts:
                    raise ValueError(
                        f"tensors {of[stored]} and {what} would both be stored as {stored!r}: give one another name"
                    )
                of[stored] = what
            parts |= own
        return parts

    @cached_property
    def in_order(self) -> list[str]:
        """The names of the parts in the order in which their data are written: by type, then by name."""
        place = {name: i for i, name in enumerate(DTYPES)}
        return sorted(self.parts, key=lambda name: (place[self.parts[name].stored[0]], name))

    def header(self, checksums: Mapping[str, int]) -> bytes:
        """The bytes before the data, as many whatever the checksums of the parts.

        Raises:
            ValueError: where safetensors' readers would refuse it for its length.
        """

        def crc32(stored: str) -> str:
            return hexadecimal(checksums.get(stored, 0))

        entries: dict[str, dict[str, Any]] = {}
        for name, told in self.tensors.items():
            entries[name] = {"crc32": crc32(name if told.fmt is None else name + CODES)}
            if told.fmt is not None:
                offset: Any = told.log_offset
                if told.offsets is not None:
                    offset = {"crc32": crc32(name + OFFSETS)}
                if isinstance(told.log_offset, GroupOffsets):
                    offset |= {"axis": told.log_offset.axis, "group_size": told.log_offset.group_size}
                entries[name] |= {"format": told.fmt.name, "log_offset": offset}
            if told.packed:
                entries[name]["packed_shape"] = list(told.shape)
            if told.fit is not None:
                entries[name]["fit"] = told.fit
        about: dict[str, Any] = {"layout": LAYOUT_VERSION, "metadata": dict(self.texts), "tensors": entries}
        if self.state is not None:
            moments = {name: {"crc32": crc32(name + OPTIMIZER)} for name in self.moments}
            about["optimizer"] = {"state": self.state, "tensors": moments}
        text = json.dumps(about, sort_keys=True, allow_nan=False)
        metadata = {METADATA_KEY: text, CHECKSUM_KEY: hexadecimal(zlib.crc32(text.encode()))}
        header: dict[str, Any] = {CONTAINERS_METADATA: metadata}
        end = 0
        for stored in self.in_order:
            begin, end = end, end + self.parts[stored].nbytes_of_elements
            dtype, shape = self.parts[stored].stored
            header[stored] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        encoded += b" " * (-len(encoded) % 8)
        if len(encoded) > LARGEST_HEADER:
            raise ValueError(f"the header would have {len(encoded)} bytes, and readers take {LARGEST_HEADER}")
        return len(encoded).to_bytes(8, "little") + encoded


def offset_to_json(log_offset: LogOffset) -> Any:
    """A scale as JSON that holds all of it: an integer, or an object of shape and values, and of a group's size."""
    if isinstance(log_offset, int):
        return log_offset
    if isinstance(log_offset, GroupOffsets):
        groups = {"group_size": log_offset.group_size, "axis": log_offset.axis}
        return offset_to_json(log_offset.offsets) | groups
    return {"shape": list(log_offset.shape), "values": log_offset.reshape(-1).tolist()}
