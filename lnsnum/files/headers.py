"""The header of a weight file, read: what its tensors are, and where.

    layout 3    a name -> its codes, its offsets, a plain tensor, each a tensor of the container by a name of its own
    layout 2    a name -> the tensor of that name; offsets stand in the description
    layout 1    the same, without checksums, packed tensors and, for plain tensors, entries

`lnsnum.files.layout` makes headers. Nothing here opens a file.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import numpy as np

from lnsnum.files.atomic import StrPath
from lnsnum.files.layout import (
    CHECKSUM_KEY,
    CODES,
    CONTAINERS_METADATA,
    DTYPES,
    LAYOUT_VERSION,
    METADATA_KEY,
    OFFSETS,
    OPTIMIZER,
    Description,
    WeightFileError,
    can_name,
    hexadecimal,
    is_unicode,
    refuse,
    type_of_codes,
)
from lnsnum.files.packing import can_be_packed
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import check_offsets
from lnsnum.kernels.groups import GroupOffsets

MOST_PARTS = 1 << 23
"""Lists and objects of a JSON text: more than the tensors of the largest header have. An empty one takes 60 bytes."""


class Stored(NamedTuple):
    """A tensor of the container: what its data are, where they begin after the header, and their checksum.

    `what` names it in errors. The checksum is None in a file of layout 1.
    """

    what: str
    told: Description
    begin: int
    checksum: str | None


class Outline(NamedTuple):
    """What the header says of a tensor: all of it but for a scale that is stored as an array."""

    elements: Stored
    """Its elements; their log_offset is 0 where there are `offsets`."""
    offsets: Stored | None
    """The array of its log_offsets."""
    groups: tuple[int, int] | None
    """Of log_offsets of groups: group_size and axis."""

    def with_offsets(self, offsets: np.ndarray[Any, Any]) -> Description:
        """What the tensor is, its offsets read. Raises TypeError or ValueError where they are none of it."""
        told = self.elements.told
        scale = offsets if self.groups is None else GroupOffsets(offsets, self.groups[0], axis=self.groups[1])
        assert told.fmt is not None
        return replace(told, log_offset=check_offsets(scale, told.shape))


class Header:
    """The header of a weight file, its outline checked: what a tensor is it says by `outline`.

    Args:
        path: the file, for errors.
        encoded: the header's JSON, which safetensors has read.

    Raises:
        WeightFileError: where the description is missing, damaged or of a later layout, its metadata are no strings, or
            its entries are not those of the tensors.
    """

    def __init__(self, path: StrPath, encoded: bytes) -> None:
        self.path = path
        self._outlines: dict[str, Outline] = {}
        if not encoded.startswith(b"{"):
            refuse(path, "its header does not begin with a brace")
        self._tensors = read_json(path, "its header", _decoded(path, encoded))
        metadata = self._tensors.pop(CONTAINERS_METADATA, None) or {}
        self._content = self._description(metadata)
        texts = self._content.get("metadata", {})
        if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
            refuse(path, "its metadata are not strings by name")
        self.texts: dict[str, str] = texts
        """The metadata that the writer was given."""
        entries = self._content.get("tensors")
        if not isinstance(entries, dict):
            refuse(path, f"its metadata entry {METADATA_KEY!r} has no list of tensors")
        self._entries: dict[str, Any] = entries
        self.state: dict[str, Any] | None = None
        """What an optimizer's state holds beside tensors; None without one."""
        self._moments: dict[str, Any] = {}
        if self.layout > 2 and "optimizer" in self._content:
            self.state, self._moments = self._optimizer(self._content["optimizer"])
        self._check_names()
        self.names: list[str] = self._by_place({name: self._stored_name(name) for name in self._names()})
        """The tensors, in the order of their data."""
        self.moments: list[str] = self._by_place({name: name + OPTIMIZER for name in self._moments})
        """The tensors of the optimizer's state."""
        for name in self.moments:
            self.moment(name)

    @property
    def stored_names(self) -> set[str]:
        """The names that the container has."""
        return set(self._tensors)

    def _description(self, metadata: dict[str, str]) -> dict[str, Any]:
        """The description, its checksum and layout known."""
        path, text = self.path, metadata.get(METADATA_KEY)
        if text is None:
            what = f"a safetensors file, but no LNS weight file: its metadata has no entry {METADATA_KEY!r}"
            refuse(path, f"{what} (lnsnum convert makes one of it)")
        is_damaged = metadata.get(CHECKSUM_KEY) != hexadecimal(zlib.crc32(text.encode()))
        damaged = f"its metadata entry {METADATA_KEY!r} is damaged: {CHECKSUM_KEY!r} is not its checksum"
        try:
            content = read_json(path, f"its metadata entry {METADATA_KEY!r}", text)
        except WeightFileError:
            if is_damaged and CHECKSUM_KEY in metadata:
                refuse(path, damaged)
            raise
        layout = content.get("layout")
        if type(layout) is not int or not 1 <= layout <= LAYOUT_VERSION:
            refuse(path, f"layout version {layout!r} is unknown: this reader knows 1 to {LAYOUT_VERSION}")
        self.layout: int = layout
        if self.layout > 1 and is_damaged:
            refuse(path, damaged)
        return content

    def _optimizer(self, section: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if not isinstance(section, dict):
            refuse(self.path, "its section of the optimizer is no object")
        state, tensors = section.get("state"), section.get("tensors")
        if not isinstance(state, dict) or not isinstance(tensors, dict):
            refuse(self.path, "its section of the optimizer has no state and tensors that are objects")
        return state, tensors

    def _check_names(self) -> None:
        """Refuse an entry of no name or without a tensor, a tensor without an entry, and one that two entries claim."""
        for name in (*self._entries, *self._moments):
            if not can_name(name):
                refuse(self.path, f"it has an entry for {name!r}, which cannot name a tensor")
        claimed: dict[str, str] = {}
        wanted = [(f"{name!r}", stored) for name in sorted(self._entries) for stored in self._parts_of(name)]
        wanted += [(f"{name!r} of the optimizer", name + OPTIMIZER) for name in sorted(self._moments)]
        for what, stored in wanted:
            if stored not in self._tensors:
                refuse(self.path, f"its entry for {what} has no tensor" + f" {stored!r}" * (self.layout > 2))
            if stored in claimed:
                refuse(self.path, f"its entries for {claimed[stored]} and {what} have one tensor, {stored!r}")
            claimed[stored] = what
        for stored in sorted(self._tensors.keys() - claimed.keys() if self.layout > 1 else ()):
            refuse(self.path, f"tensor {stored!r} has no entry")

    def _names(self) -> list[str]:
        return list(self._tensors if self.layout == 1 else self._entries)

    def _stored_name(self, name: str) -> str:
        is_codes = self.layout > 2 and "format" in self._entry(name)
        return name + CODES if is_codes else name

    def _parts_of(self, name: str) -> list[str]:
        """The names that the container has for a tensor."""
        parts = [self._stored_name(name)]
        if parts[0] != name and isinstance(self._entry(name).get("log_offset"), dict):
            parts.append(name + OFFSETS)
        return parts

    def _by_place(self, stored: dict[str, str]) -> list[str]:
        return sorted(stored, key=lambda name: self._tensors[stored[name]]["data_offsets"])

    # ------------------------------------------------------------------------------------------------- one tensor

    def outline(self, name: str) -> Outline:
        """What the header says of a tensor, checked. Raises WeightFileError."""
        if name not in self._outlines:
            self._outlines[name] = self._checked(name)
        return self._outlines[name]

    def moment(self, name: str) -> Stored:
        """What it says of a tensor of the optimizer's state. Raises WeightFileError."""
        what = f"tensor {name!r} of the optimizer"
        entry = self._moments[name]
        if not isinstance(entry, dict):
            refuse(self.path, f"the entry for {what} is no object")
        dtype, shape = self._type_of(what, name + OPTIMIZER)
        return self._stored(what, name + OPTIMIZER, Description(shape, DTYPES[dtype]), entry)

    def _checked(self, name: str) -> Outline:
        entry, what, stored = self._entry(name), f"tensor {name!r}", self._stored_name(name)
        dtype, shape = self._type_of(what, stored)
        offsets, groups = None, None
        try:
            told = self._describe(entry, dtype, shape)
            if stored != name and isinstance(entry["log_offset"], dict):
                groups = _groups(entry["log_offset"])
                offsets = self._offsets(name, entry["log_offset"])
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, WeightFileError):
                raise
            refuse(self.path, f"{what}: {error}")
        return Outline(self._stored(what, stored, told, entry), offsets, groups)

    def _offsets(self, name: str, entry: dict[str, Any]) -> Stored:
        dtype, shape = self._type_of(f"tensor {name!r}", name + OFFSETS)
        if dtype != "I32":
            raise ValueError(f"its log_offset is of {DTYPES[dtype]}, not int32")
        return self._stored(f"the log_offset of tensor {name!r}", name + OFFSETS, Description(shape, "int32"), entry)

    def _stored(self, what: str, stored: str, told: Description, entry: dict[str, Any]) -> Stored:
        """What the container has by a name, its place and checksum in agreement with what it is told to be."""
        begin, end = self._tensors[stored]["data_offsets"]
        if told.nbytes_of_elements != end - begin:
            it = f"shape {told.shape}" + (f" of {told.fmt} packed" if told.packed else "")
            refuse(self.path, f"{what} has {end - begin} bytes, and its {it} takes {told.nbytes_of_elements}")
        why = why_unholdable(told.shape, told.dtype)
        if why is not None:
            refuse(self.path, f"{what} is none that NumPy can hold: {why}")
        checksum = None if self.layout == 1 else entry.get("crc32")
        if self.layout > 1 and (not isinstance(checksum, str) or re.fullmatch("[0-9a-f]{8}", checksum) is None):
            refuse(
                self.path, f"the entry for {what.removeprefix('tensor ')} has no checksum of eight hexadecimal digits"
            )
        return Stored(what, told, begin, checksum)

    def _type_of(self, what: str, stored: str) -> tuple[str, tuple[int, ...]]:
        dtype, shape = self._tensors[stored]["dtype"], tuple(self._tensors[stored]["shape"])
        if dtype not in DTYPES:
            refuse(self.path, f"{what} is of {dtype}: NumPy has no such type")
        return dtype, shape

    def _entry(self, name: str) -> dict[str, Any]:
        entry = self._entries.get(name, {})
        if not isinstance(entry, dict):
            refuse(self.path, f"the entry for {name!r} is no object")
        return entry

    def _describe(self, entry: dict[str, Any], dtype: str, shape: tuple[int, ...]) -> Description:
        if "format" not in entry:
            for name in ("log_offset", *(["packed_shape"] if self.layout > 1 else ())):
                if name in entry:
                    raise ValueError(f"its entry has a {name}, but no format")
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
        is_apart = self.layout > 2 and isinstance(entry["log_offset"], dict)
        fit = entry.get("fit") if self.layout > 2 else None
        log_offset = check_offsets(0 if is_apart else _offset_from_json(entry["log_offset"]), shape)
        return Description.of_codes(shape, fmt, log_offset, packed=packed, fit=fit)


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


def _groups(entry: dict[str, Any]) -> tuple[int, int] | None:
    """group_size and axis of a log_offset; None where it has neither. What they may be `GroupOffsets` says."""
    given = [name for name in ("group_size", "axis") if name in entry]
    if not given:
        return None
    if len(given) < 2 or not all(type(entry[name]) is int for name in given):
        raise ValueError("its log_offset has not both group_size and axis, as integers")
    return entry["group_size"], entry["axis"]


def _offset_from_json(entry: Any) -> object:
    if not isinstance(entry, dict):
        return entry  # check_offsets says what is wrong with it
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


class _ToldError(ValueError):
    """What is wrong with a JSON text, in words for whoever has the file."""


def read_json(path: StrPath, what: str, text: str) -> dict[str, Any]:
    """A JSON object, in which no name occurs twice: different readers would read it differently."""
    if text.count("[") + text.count("{") > MOST_PARTS:
        refuse(path, f"{what} has more than {MOST_PARTS} lists and objects")
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        why = f": {error}" if isinstance(error, _ToldError) else ""
        refuse(path, f"{what} is not JSON{why}")
    if not isinstance(value, dict):
        refuse(path, f"{what} is no JSON object")
    if "\\ud" in text.lower() and not is_unicode(json.dumps(value, ensure_ascii=False)):
        refuse(path, f"{what} has a string that is no Unicode")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is none of JSON's numbers")


def _double(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # which JSON cannot write again
        raise _ToldError("it has a number beyond doubles")
    return number


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _ToldError("a name occurs twice in one object")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_float=_double, parse_constant=_no_constant)
