"""Sets of weight files: tensors spread over several files by size, and an index that says which is where.

    model.safetensors.index.json:  {"metadata": {"total_size": bytes}, "weight_map": {tensor: file, ...}}

This is Hugging Face's layout. Each shard is a weight file by itself, and its name has a part of the hash of its bytes:
new shards never overwrite old ones, and one rename of the index exchanges the sets. docs/weight_file.md is the
specification.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, access_of, check_path, naming, put, target_of, temporary_in
from lnsnum.files.headers import read_json
from lnsnum.files.layout import Blocks, Content, Description, WeightFileError, is_unicode, refuse
from lnsnum.files.single import Tensor, WeightFile, check_regular, open_file, write

INDEX_SUFFIX = ".index.json"
LARGEST_INDEX = 1 << 24
"""Bytes: room for 100,000 tensors and more."""

MOST_FILES = 10_000
"""Files of a set. They are all open at once, and the sets of the largest models have some hundreds."""

_HASH_DIGITS = 16


def index_of(path: Path) -> Path:
    """The index of the set that stands for a weight file of this path: beside it."""
    return path.with_name(path.name + INDEX_SUFFIX)


def plan(sizes: Mapping[str, int], max_shard_bytes: int) -> list[list[str]]:
    """Which tensors go together: in the order of their names, each shard filled until the next does not fit.

    A tensor that is larger than a shard may be has one of its own.

    >>> plan({"a": 3, "b": 4, "c": 9, "d": 1}, 8)
    [['a', 'b'], ['c'], ['d']]
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(sizes):
        if shards[-1] and size + sizes[name] > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += sizes[name]
    return shards


# -------------------------------------------------------------------------------------------------------------- writing


def write_set(target: Path, shards: list[Content], blocks: Blocks, moments: Blocks) -> Path:
    """Write the shards, one at a time, then put the index in its place, then delete what it replaces.

    Where that fails, what was written is deleted, and the old set is there as it was.

    Returns:
        The path of the index.
    """
    if not _is_plain(target.name):
        raise ValueError(f"{target.name!r} cannot name a set of files: take no \\ and no : in it")
    for content in shards:
        content.parts  # noqa: B018 -- two tensors of one name are refused before anything is written
    if len(shards) > MOST_FILES:
        raise ValueError(f"the set would have {len(shards)} files, and readers take {MOST_FILES}: make shards larger")
    index = index_of(target)
    target_of(index)
    old, _ = shards_of_ours(target)
    written: list[Path] = []
    weight_map: dict[str, str] = {}
    text = ""
    try:
        for number, content in enumerate(shards, 1):
            numbers = f"{number:05}-of-{len(shards):05}"
            weight_map.update(
                dict.fromkeys(content.parts, _write_shard(target, numbers, content, blocks, moments, written))
            )
        total = sum(told.nbytes_of_elements for content in shards for told in content.parts.values())
        text = _index_text(weight_map, total)
        with temporary_in(index.parent) as temporary:
            access = access_of(index.parent, index, target)
            temporary.write_bytes(text.encode())
            put(temporary, index, access)
    except BaseException:
        if not (text and os.path.isfile(index) and index.read_bytes() == text.encode()):
            _delete(written)  # else the new index is in its place, and a later step failed
        raise
    target.unlink(missing_ok=True)
    _delete([target.with_name(name) for name in old - set(weight_map.values())])
    return index


def _index_text(weight_map: Mapping[str, str], total_size: int) -> str:
    content = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    if len(text) > LARGEST_INDEX:
        raise ValueError(f"the index would have {len(text)} bytes, and readers take {LARGEST_INDEX}: save one file")
    return text


def _write_shard(
    target: Path, numbers: str, content: Content, blocks: Blocks, moments: Blocks, written: list[Path]
) -> str:
    """Write one shard; its path goes to `written` where there was none before. Returns its name."""
    stem, suffix = _stem_and_suffix(target)
    with temporary_in(target.parent) as temporary:
        access = access_of(target.parent, index_of(target), target)
        write(temporary, content, blocks, moments)
        with open(temporary, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        shard = target.with_name(f"{stem}-{digest[:_HASH_DIGITS]}-{numbers}{suffix}")
        if not shard.exists():
            written.append(shard)
        put(temporary, shard, access)
    return shard.name


def _stem_and_suffix(target: Path) -> tuple[str, str]:
    stem = target.name.removesuffix(".safetensors")
    return stem, target.name[len(stem) :]


def shards_of_ours(target: Path) -> tuple[set[str], bool]:
    """The shards that the index beside a path names and that we named, and whether these are all.

    An index may name anything: only such shards are ever deleted.
    """
    try:
        files = set(weight_map_of(index_of(target), _content(index_of(target))).values())
    except (OSError, WeightFileError):
        return set(), False
    stem, suffix = map(re.escape, _stem_and_suffix(target))
    name = re.compile(rf"{stem}-[0-9a-f]{{{_HASH_DIGITS}}}-\d{{5,}}-of-\d{{5,}}{suffix}")
    ours = {file for file in files if name.fullmatch(file)}
    return ours, ours == files


def delete_set(target: Path) -> None:
    """Delete the set that a weight file has taken the place of, if it is one that we wrote: the index first."""
    ours, are_all = shards_of_ours(target)
    if are_all:
        index_of(target).unlink()
        _delete([target.with_name(name) for name in ours])


def _delete(files: list[Path]) -> None:
    """Delete files as far as that can be done: one that a reader holds open may stay."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()


# -------------------------------------------------------------------------------------------------------------- reading


class WeightFiles:
    """One weight file or a set of them, open: what a `WeightFile` tells, over all; closed as one is."""

    def __init__(self, path: StrPath, files: list[WeightFile]) -> None:
        self.path = path
        self._files = files
        self._where = self._files_of("tensor", {file: file.names for file in files})
        self._moments = self._files_of("tensor of the optimizer", {file: file.header.moments for file in files})
        self.names, self.moments = list(self._where), list(self._moments)

    def _files_of(self, what: str, names: Mapping[WeightFile, list[str]]) -> dict[str, WeightFile]:
        """Which file has a tensor: with layout 3, shards can have one name in two files, under two stored names."""
        where: dict[str, WeightFile] = {}
        for file, own in names.items():
            for name in own:
                if name in where:
                    refuse(self.path, f"two of its shards have a {what} {name!r}")
                where[name] = file
        return where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        _close(self._files)

    @property
    def texts(self) -> dict[str, str]:
        """The metadata. Raises WeightFileError where they are not the same in all files."""
        first, *others = (file.texts for file in self._files)
        if any(texts != first for texts in others):
            refuse(self.path, "the metadata of its shards differ")
        return first

    @property
    def state(self) -> dict[str, Any] | None:
        """What the optimizer's state holds beside tensors. Raises WeightFileError where it is not one in all files."""
        first, *others = (file.header.state for file in self._files)
        if any(state != first for state in others):
            refuse(self.path, "the optimizer's state of its shards differ")
        return first

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, by its header alone. Raises WeightFileError."""
        return self._where[name].shape(name)

    def describe(self, name: str) -> Description:
        """What the file says of a tensor, checked, its log_offsets read. Raises WeightFileError."""
        return self._where[name].describe(name)

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own, all of it checked. Raises WeightFileError."""
        return self._where[name].read(name)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of one tensor, one array after another, as `WeightFile.blocks`. Raises WeightFileError."""
        return self._where[name].blocks(name)

    def describe_moment(self, name: str) -> Description:
        """What the header says of a tensor of the optimizer's state. Raises WeightFileError."""
        return self._moments[name].header.moment(name).told

    def read_moment(self, name: str) -> NDArray[Any]:
        """A tensor of the optimizer's state, checked. Raises WeightFileError."""
        return self._moments[name].read_moment(name)

    def moment_blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of one, as `WeightFile.moment_blocks`. Raises WeightFileError."""
        return self._moments[name].moment_blocks(name)


def _close(files: list[WeightFile]) -> None:
    for file in files:
        file.__exit__()


def open_files(path: StrPath) -> WeightFiles:
    """The weight file or the set of a path, open: all shards at once, so that no writer can delete one meanwhile.

    The path is that of a file, of an index, or of a file that is not there and has an index beside it. Where a writer
    exchanges what is there just now, the new is opened.

    Raises:
        WeightFileError: where an index, a shard or the file is damaged or foreign.
        OSError: where it cannot be read.
        ImportError: without safetensors and ml_dtypes.
    """
    found = find_set(path)
    while True:
        try:
            with naming(path):
                return _open_all(path, *found)
        except (WeightFileError, FileNotFoundError):
            before, found = found, find_set(path)
            if found == before:
                raise


def _open_all(path: StrPath, index: Path | None, content: bytes) -> WeightFiles:
    if index is None:
        return WeightFiles(path, [open_file(path)])
    files: list[WeightFile] = []
    try:
        for shard, names in shards_of(weight_map_of(index, content)).items():
            if not os.path.isfile(index.with_name(shard)):
                refuse(index, f"its shard {shard!r} is not there")
            files.append(open_file(index.with_name(shard)))
            for what in differences(names, files[-1].header.stored_names):
                refuse(index, f"its shard {shard!r} {what}")
        return WeightFiles(index, files)
    except BaseException:
        _close(files)
        raise


def differences(expected: set[str], there: set[str]) -> Iterator[str]:
    """What is wrong with the tensors of a shard."""
    if expected - there:
        yield f"lacks the tensor {_some(expected - there)}"
    if there - expected:
        yield f"holds {_some(there - expected)}, which the index does not put there"


def _some(names: set[str]) -> str:
    first, *others = sorted(names)
    return f"{first!r}" + (f" and {len(others)} more" if others else "")


def find_set(path: StrPath) -> tuple[Path | None, bytes]:
    """The index that a path names or stands for, and what is in it; None where it is the path of one file."""
    check_path(path)
    index = _find_index(path)
    try:
        with naming(path):
            return index, b"" if index is None else _content(index)
    except FileNotFoundError:
        if index == Path(path):
            raise
        return find_set(path)  # it was there a moment ago


def _find_index(path: StrPath) -> Path | None:
    """The index that a path names or stands for; None where it is that of one file."""
    text = os.fspath(path)  # a Path is slow to make, beside a small file
    if not text.endswith(INDEX_SUFFIX) and os.path.exists(text):
        return None
    given = Path(path)
    if given.name.endswith(INDEX_SUFFIX):
        return given
    if not given.name:
        return None
    candidates = (index_of(given), index_of(Path(os.path.realpath(given))))
    return next((index for index in candidates if os.path.exists(index)), None)


def _content(index: Path) -> bytes:
    check_regular(index)
    with open(index, "rb") as file:
        content = file.read(LARGEST_INDEX + 1)
    if len(content) > LARGEST_INDEX:
        refuse(index, f"an index of more than {LARGEST_INDEX} bytes")
    return content


def weight_map_of(index: Path, content: bytes) -> dict[str, str]:
    """Which file has a tensor, as an index says: plain names of files in its folder."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        refuse(index, "the index is not JSON: it is no UTF-8")
    weight_map = read_json(index, "the index", text).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        refuse(index, "the index has no weight_map from names of tensors to names of files")
    if not weight_map:
        refuse(index, "the index names no tensor")
    files = set(weight_map.values())
    for file in sorted(files):
        if not _is_plain(file):
            name = next(name for name, where in weight_map.items() if where == file)
            refuse(index, f"the file {file!r} of {name!r} is no plain name of a file in the index's folder")
    if len(files) > MOST_FILES:
        refuse(index, f"the index names {len(files)} files: at most {MOST_FILES} are read")
    return weight_map


def shards_of(weight_map: Mapping[str, str]) -> dict[str, set[str]]:
    """The tensors that each file has, by its name, in the order of the names."""
    shards: dict[str, set[str]] = {file: set() for file in sorted(set(weight_map.values()))}
    for name, file in weight_map.items():
        shards[file].add(name)
    return shards


def _is_plain(name: str) -> bool:
    """Whether it names a file in a folder and nothing else, on every system: no path, no drive, no stream."""
    return name not in ("", ".", "..") and not _PARTED.search(name) and is_unicode(name)


_PARTED = re.compile(r"[/\\:\0]")
"""What parts folders, drives and streams from names, on any system, and what ends a name in C."""
