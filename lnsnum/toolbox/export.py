"""`lnsnum export`: the tensors of a weight file as C source, as memories for hardware, or as NumPy arrays.

    FILE  ->  FOLDER/manifest.json and what it lists

The folder appears when all is written, and not at all if that fails. Names of tensors never become paths:
`lnsnum.toolbox.export_targets.plain_names` makes the names of files from them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.layout import Blocks, WeightFileError
from lnsnum.files.sharded import INDEX_SUFFIX, WeightFiles, open_files
from lnsnum.format import LNSFormat
from lnsnum.toolbox.export_targets.c_source import TAKEN, write_source
from lnsnum.toolbox.export_targets.exported import MANIFEST, MARK, VERSION, FormatTables, Item, Written
from lnsnum.toolbox.export_targets.memory_image import why_no_tables, write_memories, write_tables
from lnsnum.toolbox.export_targets.new_folder import new_folder
from lnsnum.toolbox.export_targets.numpy_arrays import Values, write_arrays
from lnsnum.toolbox.export_targets.plain_names import plain_names
from lnsnum.toolbox.reading import Progress, selected

__all__ = ["Export", "Target", "export"]

Target = Literal["c", "readmemh", "npy"]
"""C99 source, memories for Verilog's $readmemh, or .npy files."""


@dataclass(frozen=True)
class Export:
    """What has been written.

    Args:
        folder: where it is.
        target: as what.
        source: the weight file's name; None of tables alone.
        tensors: the tensors, in the order of their names.
        left_out: why a tensor is not there, in one sentence, by its name.
        formats: the tables of each format.
        sizes: bytes of each file by its name, without the manifest.
    """

    folder: Path
    target: Target
    source: str | None
    tensors: tuple[Written, ...]
    left_out: dict[str, str]
    formats: tuple[FormatTables, ...]
    sizes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """What manifest.json says."""
        return {
            MARK: VERSION,
            "target": self.target,
            "source": self.source,
            "files": sorted(self.sizes),
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "left_out": [{"name": name, "why": why} for name, why in self.left_out.items()],
            "formats": [tables.to_json() for tables in self.formats],
        }


def export(
    path: StrPath | None,
    folder: StrPath,
    target: Target,
    *,
    only: Sequence[str] = (),
    tables: Sequence[LNSFormat] = (),
    prefix: str | None = None,
    packed: bool = False,
    values: Values = "codes",
    replace: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write the tensors of a weight file, or tables of formats, to a new folder.

    Args:
        path: a weight file or an index; None for tables alone.
        folder: where there is nothing yet, or an empty folder.
        target: as what: C source, memories for $readmemh, or .npy files.
        only: patterns of the shell; tensors whose names match none of them are left out; without a pattern none is.
        tables: formats whose tables are wanted, beside those of the tensors; for memories.
        prefix: what all names in C begin with; without it `prefix_of` the path. For C.
        packed: write codes without their unused bits; for C.
        values: codes, or numbers; for .npy files.
        replace: take the place of an earlier export too.
        progress: told how many bytes of the tensors of how many are done.

    Raises:
        WeightFileError: where the file is damaged, or has nothing to export.
        ValueError: where there is neither a file nor a format that has tables; where formats are given for another
            target than memories, or a prefix for another than C or one that cannot begin names there.
        OSError: where the folder cannot be written; it is as it was then.
    """
    if tables and target != "readmemh":
        raise ValueError(f"tables are written as memories: target={target!r} has none, 'readmemh' has")
    if path is None:
        if not tables:
            raise ValueError("there is nothing to export: give a file, or formats for their tables")
        if all(reasons := [why_no_tables(fmt) for fmt in tables]):
            raise ValueError(f"there is nothing to export: {'; '.join(map(str, reasons))}")
    if prefix is not None:
        if target != "c":
            raise ValueError(f"a prefix is for names in C: target={target!r} has none")
        check_prefix(prefix)
    with new_folder(folder, replaceable=why_kept if replace else occupied) as place:
        tensors: list[Written] = []
        left_out: dict[str, str] = {}
        if path is not None:
            with open_files(path) as files:
                tensors, left_out = _export_tensors(files, path, place, target, only, prefix, packed, values, progress)
        formats: list[FormatTables] = []
        if target == "readmemh":
            present = [tensor.item.told.fmt for tensor in tensors]
            wanted = {fmt.name: fmt for fmt in (*tables, *present) if fmt is not None}
            formats = [write_tables(place, wanted[name]) for name in sorted(wanted)]
        sizes = {file.name: file.stat().st_size for file in sorted(place.iterdir())}
        source = None if path is None else os.path.basename(os.fspath(path))
        done = Export(Path(folder), target, source, tuple(tensors), left_out, tuple(formats), sizes)
        text = json.dumps(done.to_json(), indent=2) + "\n"
        (place / MANIFEST).write_text(text, encoding="ascii", newline="\n")
    return done


def _export_tensors(
    files: WeightFiles,
    path: StrPath,
    place: Path,
    target: Target,
    only: Sequence[str],
    prefix: str | None,
    packed: bool,
    values: Values,
    progress: Progress | None,
) -> tuple[list[Written], dict[str, str]]:
    described = {name: files.describe(name) for name in selected(path, files.names, only)}
    left_out = {}
    if target == "readmemh":
        left_out = {
            name: f"it is of {told.dtype}: memories are written of LNS tensors"
            for name, told in described.items()
            if told.fmt is None
        }
        if described and len(left_out) == len(described):
            raise WeightFileError(f"{shown(path)}: none of its tensors is of an LNS format: no memory can be written")
    prefix = prefix_of(path) if prefix is None else prefix
    stems = plain_names(
        [name for name in described if name not in left_out],
        prefix=f"{prefix}_" if target == "c" else "",
        taken=TAKEN if target == "c" else (),
    )
    items = [Item(name, stem, described[name]) for name, stem in stems.items()]
    blocks = _watched(files, items, progress)
    if target == "c":
        source = os.path.basename(os.fspath(path))
        return write_source(place, items, blocks, prefix=prefix, source=source, packed=packed), left_out
    if target == "npy":
        return write_arrays(place, items, blocks, values=values), left_out
    return write_memories(place, items, blocks), left_out


def _watched(files: WeightFiles, items: Sequence[Item], progress: Progress | None) -> Blocks:
    """The blocks of the tensors, told to `progress` when they are done."""
    if progress is None:
        return files.blocks
    total, done = sum(item.told.nbytes for item in items), 0

    def blocks(name: str) -> Iterator[NDArray[Any]]:
        nonlocal done
        told = files.describe(name)
        for block in files.blocks(name):
            yield block
            done += told.nbytes * block.size // told.size
            progress(done, total)

    return blocks


def stem_of(path: StrPath) -> str:
    """The name of a weight file without what says that it is one.

    >>> stem_of("models/a.safetensors"), stem_of("a.b.safetensors.index.json")
    ('a', 'a.b')
    """
    name = os.path.basename(os.fspath(path)).removesuffix(INDEX_SUFFIX)
    return os.path.splitext(name)[0] or "export"


def prefix_of(path: StrPath) -> str:
    """What all names in C begin with: from the file's, in small letters, clear of what lnsnum.h declares.

    >>> prefix_of("My-Model.safetensors"), prefix_of("lnsnum.safetensors"), prefix_of("int.safetensors")
    ('my_model', 'tensors_lnsnum', 'int_2')
    """
    stem = stem_of(path).lower()
    (prefix,) = plain_names([stem]).values()
    return f"tensors_{prefix}" if prefix.startswith("lnsnum") else prefix


def check_prefix(prefix: str) -> None:
    """Raise ValueError where it cannot begin the names in C. What can is what `prefix_of` makes of a file's name.

    >>> check_prefix("my_model")
    """
    # A capital letter might make a macro of it and a tensor's name: INT and MAX, say.
    fitting = prefix_of(prefix.replace(".", "_") or "model")
    if prefix != fitting:
        rule = "small letters, digits and single _ between them, and no word of C"
        raise ValueError(f"prefix={prefix!r} cannot begin names in C ({rule}): {fitting!r} can")


def occupied(folder: Path) -> str | None:
    """Why a folder with something in it is not written to, if an earlier export is not to be replaced."""
    return "is not empty" if why_kept(folder) else "has an earlier export: with --force it is replaced"


def why_kept(folder: Path) -> str | None:
    """Why a folder is not to be replaced by an export; None of one that holds an earlier export and nothing else."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        ours = {MANIFEST, *manifest["files"]} if MARK in manifest else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = set()
    if not ours:
        return "is not empty, and no earlier export: it is not replaced"
    for entry in sorted(folder.iterdir()):
        if entry.name not in ours or not entry.is_file():
            return f"has {shown(entry.name)}, which no export wrote: it is not replaced"
    return None
