"""What an export is made of, and what manifest.json says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lnsnum.files.layout import Description, offset_to_json
from lnsnum.format import LNSFormat

MANIFEST = "manifest.json"
MARK = "lnsnum_export"
"""The manifest's entry with the version of its form: by it an export is known."""
VERSION = 1


@dataclass(frozen=True)
class Item:
    """A tensor that is to be exported.

    Args:
        name: as in the weight file.
        identifier: what stands for it in names of files and of variables.
        told: what the file says of it.
    """

    name: str
    identifier: str
    told: Description


@dataclass(frozen=True)
class Written:
    """A tensor that has been exported.

    Args:
        item: the tensor.
        files: names of the files, in the export's folder, that have it.
        dtype: of the words: a NumPy type, of the values that they stand for as far as it has one.
        words: how many words were written: elements, or bytes where they are packed.
        word_bits: bits of a word that count.
        nbytes: bytes of what was written for it.
        identifier: its variable, if it is not the item's identifier.
        packed: whether the words are bytes of codes without their unused bits.
    """

    item: Item
    files: tuple[str, ...]
    dtype: str
    words: int
    word_bits: int
    nbytes: int
    identifier: str = ""
    packed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Its entry of the manifest."""
        told = self.item.told
        entry: dict[str, Any] = {
            "name": self.item.name,
            "files": list(self.files),
            "identifier": self.identifier or self.item.identifier,
            "shape": list(told.shape),
            "dtype": self.dtype,
            "words": self.words,
            "word_bits": self.word_bits,
            "bytes": self.nbytes,
        }
        if told.dtype == "bfloat16" and self.dtype == "uint16":
            entry["bits_of"] = "bfloat16"
        elif told.dtype == "float16" and self.dtype == "uint16":
            entry["bits_of"] = "float16"
        if told.fmt is not None:
            entry |= {**format_to_json(told.fmt), "log_offset": offset_to_json(told.log_offset), "packed": self.packed}
        return entry


@dataclass(frozen=True)
class Table:
    """A table of a format that has been exported.

    Args:
        file: its file.
        words, word_bits: how many words, and how wide they are.
        signed: whether they are in two's complement.
        meaning: what a word is, in one sentence.
        nbytes: of the file.
    """

    file: str
    words: int
    word_bits: int
    signed: bool
    meaning: str
    nbytes: int

    def to_json(self) -> dict[str, Any]:
        """Its entry of the manifest."""
        facts = {"words": self.words, "word_bits": self.word_bits, "signed": self.signed, "bytes": self.nbytes}
        return {"file": self.file, **facts, "meaning": self.meaning}


@dataclass(frozen=True)
class FormatTables:
    """The tables of a format that have been exported.

    Args:
        fmt: the format.
        tables: by kind: sb, db, sb_tie, db_tie, half, float32, encode.
        left_out: why some or all are not there, in one sentence; empty where all are.
        smallest_half: bit pattern of the least float32 that does not become zero at log_offset 0; None without tables.
        complete: whether sb and db are 0 beyond their ends.
    """

    fmt: LNSFormat
    tables: Mapping[str, Table]
    left_out: str = ""
    smallest_half: int | None = None
    complete: bool = False

    def to_json(self) -> dict[str, Any]:
        """Its entry of the manifest."""
        return {
            **format_to_json(self.fmt),
            "bits": self.fmt.bits,
            "fraction_bits": self.fmt.fraction_bits,
            "bias": self.fmt.bias,
            "smallest_half": self.smallest_half,
            "steps_are_zero_beyond": self.complete,
            "tables": {kind: table.to_json() for kind, table in self.tables.items()},
            "left_out": self.left_out or None,
        }


def format_to_json(fmt: LNSFormat) -> dict[str, str]:
    """Name and base, the base exactly: a hexadecimal float."""
    return {"format": fmt.name, "base": fmt.base.hex()}
