"""Weight files checked in full: structure, checksums, codes, spare bits; every problem is listed, not the first alone.

docs/weight_file.md says what a reader refuses; the readers themselves check it here, one tensor after another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.layout import WeightFileError
from lnsnum.files.packing import packed_bytes
from lnsnum.files.sharded import differences, find_set, shards_of, weight_map_of
from lnsnum.files.single import WeightFile, check_regular, open_file
from lnsnum.toolbox.reading import Progress

__all__ = ["Verification", "verify_weights"]


@dataclass(frozen=True)
class Verification:
    """What a check found.

    Args:
        path: the file, or the index of a set.
        files: how many files with tensors were opened: 1, or the shards of a set that could be.
        layouts: the layout versions of these, each once.
        tensors: how many tensors they hold, an optimizer's too, all of which were checked.
        bytes: of the data that were read.
        without_checksum: how many of the tensors have none: all of a file of layout 1.
        problems: one sentence each; none where all is good.
    """

    path: str
    files: int
    layouts: tuple[int, ...]
    tensors: int
    bytes: int
    without_checksum: int
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


@dataclass
class _Findings:
    """What is found on the way. A file is closed before the next is opened, so its metadata are kept."""

    progress: Progress | None
    total: int
    problems: list[str] = field(default_factory=list)
    texts: list[dict[str, str]] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    layouts: set[int] = field(default_factory=set)
    files: int = 0
    tensors: int = 0
    bytes: int = 0
    without_checksum: int = 0

    def read(self, count: int) -> None:
        """So many bytes of data were read."""
        self.bytes += count
        if self.progress is not None:
            self.progress(self.bytes, self.total)


def verify_weights(path: StrPath, *, progress: Progress | None = None) -> Verification:
    """Read a weight file or a set, all of it, and list what is wrong.

    A tensor has at most one problem in the list: the first that its reader meets. What can still be read after it is
    checked: other tensors, other shards.

    Args:
        path: the file, the index of a set, or the path that the set was saved under.
        progress: called while it goes.

    Raises:
        OSError: where there is nothing that can be read: no file, a folder, no permission.
        ImportError: without safetensors and ml_dtypes.
    """
    index, content = _find_regular(path)
    if index is None:
        found = _Findings(progress, _size(Path(path)))
        _verify_file(path, found)
        return _result(path, found)
    try:
        shards = shards_of(weight_map_of(index, content))
    except WeightFileError as error:
        return _result(index, _Findings(progress, 0, [str(error)]))
    found = _Findings(progress, sum(_size(index.with_name(shard)) for shard in shards))
    for shard, names in shards.items():
        if not os.path.isfile(index.with_name(shard)):
            found.problems.append(f"{shown(index)}: its shard {shard!r} is not there")
            continue
        there = _verify_file(index.with_name(shard), found)
        if there is not None:
            found.problems += [f"{shown(index)}: its shard {shard!r} {what}" for what in differences(names, there)]
    if any(texts != found.texts[0] for texts in found.texts):
        found.problems.append(f"{shown(index)}: the metadata of its shards differ")
    if any(state != found.states[0] for state in found.states):
        found.problems.append(f"{shown(index)}: the optimizer's state of its shards differ")
    return _result(index, found)


def _find_regular(path: StrPath) -> tuple[Path | None, bytes]:
    """The index and its content, as `open_files` finds it; what is there but no regular file is an OSError."""
    try:
        index, content = find_set(path)
        check_regular(path if index is None else index)
    except WeightFileError as error:
        raise OSError(str(error)) from error
    return index, content


def _size(path: Path) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else 0


def _result(path: StrPath, found: _Findings) -> Verification:
    return Verification(
        str(path), found.files, tuple(sorted(found.layouts)), found.tensors, found.bytes, found.without_checksum,
        tuple(found.problems),
    )  # fmt: skip


def _verify_file(path: StrPath, found: _Findings) -> set[str] | None:
    """Check one file. Returns the names that its container has; None where its structure is damaged."""
    try:
        with open_file(path) as file:
            found.files += 1
            found.layouts.add(file.header.layout)
            found.problems += _problems(file, found)
            return file.header.stored_names
    except WeightFileError as error:
        found.problems.append(str(error))
        return None


def _problems(file: WeightFile, found: _Findings) -> Iterator[str]:
    found.texts.append(file.texts)
    found.states.append(file.header.state)
    for name, what in [(n, f"tensor {n!r}") for n in file.names] + [
        (f"{n}\0", f"tensor {n!r} of the optimizer") for n in file.header.moments
    ]:
        if name in found.names:
            yield f"{shown(file.path)}: {what} is in {found.names[name]} too"
        found.names[name] = shown(file.path)
    for name in file.names:
        found.tensors += 1
        try:
            elements, offsets, _ = file.header.outline(name)
            found.without_checksum += elements.checksum is None
            told = file.describe(name)
            found.read(0 if offsets is None else offsets.told.nbytes)
            for block in file.blocks(name):
                found.read(packed_bytes(block.size, told.fmt) if told.packed and told.fmt else block.nbytes)
        except WeightFileError as error:
            yield str(error)
    for name in file.header.moments:
        found.tensors += 1
        try:
            for block in file.moment_blocks(name):
                found.read(block.nbytes)
        except WeightFileError as error:
            yield str(error)
