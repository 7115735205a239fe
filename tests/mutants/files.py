"""A weight file in its parts, and as bytes: by hand from docs/weight_file.md, without lnsnum."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

SIZES = {"U8": 1, "I8": 1, "BOOL": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4}
SIZES |= {"U64": 8, "I64": 8, "F64": 8}
"""Bytes of an element, by type."""


class Raw(str):
    """JSON text that goes into the file as it is."""


def dumps(value: Any) -> str:
    """JSON text of a value, with `Raw` texts in it."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {dumps(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return json.dumps(value)


def crc(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"


def checksum(dtype: str, shape: list[int], data: bytes) -> str:
    return crc(" ".join([dtype, *map(str, shape)]).encode() + b"\n" + data)


def code_bytes(codes: list[int], bits: int, packed: bool) -> bytes:
    """The data of codes: a word for each, of 1, 2 or 4 bytes, or one string of bits, from the lowest."""
    if packed:
        return sum(code << i * bits for i, code in enumerate(codes)).to_bytes((len(codes) * bits + 7) // 8, "little")
    return b"".join(code.to_bytes(word_size(bits), "little") for code in codes)


def word_size(bits: int) -> int:
    return 1 if bits <= 8 else 2 if bits <= 16 else 4


def container(header: bytes, data: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(data)


def parted(content: bytes) -> tuple[bytes, bytes]:
    """Header and data of a file, as far as its length says where one ends."""
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def offset_bytes(values: list[int]) -> bytes:
    """The data of log_offsets: four bytes each, the least first."""
    return b"".join(value.to_bytes(4, "little", signed=True) for value in values)


@dataclass
class File:
    """A weight file in its parts, each of which a mutation may spoil."""

    header: Any = field(default_factory=dict)
    description: Any = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    metadata: Any = field(default_factory=lambda: {"lnsnum": None, "lnsnum_crc32": None})
    """None stands for what the file should have there."""
    text_edits: list = field(default_factory=list)
    """What happens to the description's text, before its checksum is taken."""

    def bytes(self) -> bytes:
        text = dumps(self.description)
        for edit in self.text_edits:
            text = edit(text)
        right = {"lnsnum": text, "lnsnum_crc32": crc(text.encode("utf-8", "surrogatepass"))}
        metadata = self.metadata
        if isinstance(metadata, dict):
            metadata = {key: right.get(key) if value is None else value for key, value in metadata.items()}
        header = self.header
        if isinstance(header, dict):
            header = ({} if metadata is None else {"__metadata__": metadata}) | header
        return container(dumps(header).encode(), self.data)
