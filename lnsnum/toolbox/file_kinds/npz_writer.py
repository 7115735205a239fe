"""An .npz archive, written block by block: a zip of .npy files, uncompressed, the same bytes of the same arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from lnsnum.files.atomic import StrPath, replacing
from lnsnum.files.layout import Blocks, Description

_LONGEST_NAME = 65_535
"""Bytes of the name of a member: the limit of zip."""

DEVICES = frozenset([*(f"{port}{i}" for port in ("com", "lpt") for i in range(10)), "con", "prn", "aux", "nul"])
"""What Windows takes for devices, in any folder and with any ending."""


def save_npz(path: StrPath, descriptions: Mapping[str, Description], blocks: Blocks) -> Path:
    """Write plain tensors to an .npz archive, atomically. Arguments as of `save_tensors`.

    Raises:
        ValueError: for what .npz cannot hold: codes, bfloat16, names of more than 64 kB; for names that lead elsewhere
            when the archive is unpacked (`why_no_member`), and for two of which NumPy would find one.
        OSError: where the file cannot be written; an old one is left as it was.
    """
    for name, told in descriptions.items():
        if told.fmt is not None or told.dtype == "bfloat16":
            what = told.dtype if told.fmt is None else told.fmt.name
            raise ValueError(f"tensor {name!r} is of {what}, which .npz cannot hold: .safetensors can")
        why = why_no_member(name)
        if why is not None:
            raise ValueError(f"{name[:50]!r} cannot name an array in .npz: {why}; .safetensors takes any name")
        if f"{name}.npy" in descriptions:
            pair = f"{name[:50]!r} and {name[:50] + '.npy'!r}"
            raise ValueError(
                f"{pair} cannot both name arrays in .npz: NumPy finds one of them; .safetensors takes both"
            )
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, told in descriptions.items():
            _write(archive, name, told, blocks)
    return Path(path)


def why_no_member(name: str) -> str | None:
    """Why a file that is called so in an archive may be more than a file in its folder; None where it is not.

    >>> why_no_member("fc/weight"), why_no_member("../fc")
    (None, 'it leads out of the folder that the archive is unpacked into')
    """
    if len(name.encode()) > _LONGEST_NAME - len(".npy"):
        return "it is too long"
    if not name.isprintable():
        return "it has a character that is not visible"
    if "\\" in name or ":" in name:
        return "some systems take \\ and : for parts of a path"
    parts = f"{name}.npy".split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        return "it leads out of the folder that the archive is unpacked into"
    if any(part.partition(".")[0].strip().lower() in DEVICES or part != part.rstrip(". ") for part in parts):
        return "some systems take it for a device, or for another name"
    return None


def _write(archive: zipfile.ZipFile, name: str, told: Description, blocks: Blocks) -> None:
    info = zipfile.ZipInfo(name + ".npy")  # of 1980: no time of writing
    head = {"descr": np.lib.format.dtype_to_descr(np.dtype(told.dtype)), "fortran_order": False, "shape": told.shape}
    left = told.size
    with archive.open(info, "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, cast(Any, head))
        for block in blocks(name):
            assert block.dtype == told.dtype, "a block of another type"
            file.write(memoryview(cast(Any, block.view(np.uint8))))
            left -= block.size
    assert left == 0, "blocks of another size"
