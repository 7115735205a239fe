"""Plain safetensors files, one or a set with an index, read as weight files that say nothing of LNS.

A file without our metadata is one of layout 1 whose description is empty: no checksums, every tensor plain. So the
reader of weight files reads it, by offsets and block by block; a mapping of the file would count as memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from lnsnum.files.atomic import StrPath
from lnsnum.files.headers import Header, read_json
from lnsnum.files.layout import METADATA_KEY, refuse
from lnsnum.files.sharded import WeightFiles, differences, find_set, open_files, shards_of, weight_map_of
from lnsnum.files.single import WeightFile, open_container


class _PlainFiles(WeightFiles):
    """One plain file or a set of them."""

    @property
    def texts(self) -> dict[str, str]:
        """The metadata that all files have alike."""
        first, *others = (file.texts for file in self._files)
        return {key: text for key, text in first.items() if all(texts.get(key) == text for texts in others)}


@contextlib.contextmanager
def open_safetensors(path: StrPath) -> Iterator[tuple[str, WeightFiles]]:
    """The kind of the safetensors file or set of a path, and its reader.

    Raises:
        WeightFileError: where an index or a file is damaged.
        OSError: where it cannot be read.
        ImportError: without safetensors and ml_dtypes.
    """
    index, content = find_set(path)
    shards = {} if index is None else weight_map_of(index, content)
    first = path if index is None else index.with_name(min(shards.values()))
    if _is_ours(first):
        with open_files(path) as files:
            yield "lnsnum", files
        return
    with contextlib.ExitStack() as opened:
        if index is None:
            yield "safetensors", _PlainFiles(path, [_open_plain(path, opened)])
        else:
            yield "safetensors", _PlainFiles(index, _open_shards(index, shards, opened))


def _is_ours(path: StrPath) -> bool:
    file, encoded = open_container(path)
    file.close()
    metadata = read_json(path, "its header", encoded.decode(errors="replace")).get("__metadata__") or {}
    return METADATA_KEY in metadata


def _open_shards(index: Path, shards: dict[str, str], opened: contextlib.ExitStack) -> list[WeightFile]:
    """The files of a set, open; each has the tensors that the index says."""
    files = []
    for shard, expected in shards_of(shards).items():
        if not os.path.isfile(index.with_name(shard)):
            refuse(index, f"its shard {shard!r} is not there")
        file = _open_plain(index.with_name(shard), opened)
        for what in differences(expected, file.header.stored_names):
            refuse(index, f"its shard {shard!r} {what}")
        files.append(file)
    return files


def _open_plain(path: StrPath, opened: contextlib.ExitStack) -> WeightFile:
    file: io.FileIO
    file, encoded = open_container(path)
    opened.enter_context(file)
    tensors = read_json(path, "its header", encoded.decode(errors="replace"))
    texts = tensors.pop("__metadata__", None) or {}
    if METADATA_KEY in texts:
        refuse(path, "a weight file of lnsnum in a set of plain files")
    nothing = json.dumps({"layout": 1, "metadata": texts, "tensors": {}})
    header = json.dumps(tensors | {"__metadata__": {METADATA_KEY: nothing}}).encode()
    return WeightFile(path, file, Header(path, header), 8 + len(encoded))
