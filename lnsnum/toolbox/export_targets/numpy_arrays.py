"""Tensors as .npy files, one for each: codes as they are, or the numbers that they stand for.

magic, version, {"descr": dtype, "fortran_order": False, "shape": ...}, elements        (numpy.lib.format)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.layout import Blocks, Description
from lnsnum.toolbox.export_targets.exported import Item, Written
from lnsnum.toolbox.values import Scale, decoded

Values = Literal["codes", "float32", "float64"]
"""What elements of LNS tensors become."""


def write_arrays(folder: Path, items: Sequence[Item], blocks: Blocks, *, values: Values = "codes") -> list[Written]:
    """Write an .npy file for each tensor.

    Plain tensors stay what they are; but NumPy has no bfloat16: it becomes float32, exactly, and where codes are asked
    for uint16 bit patterns.

    Args:
        folder: where the files go.
        items: the tensors.
        blocks: their elements.
        values: what codes become: unsigned integers as they are, or numbers, each rounded once.
    """
    return [_write(folder / f"{item.identifier}.npy", item, blocks, values) for item in items]


def _write(path: Path, item: Item, blocks: Blocks, values: Values) -> Written:
    told = item.told
    dtype = np.dtype(_dtype(told, values))
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": told.shape}
    begin, scale = 0, Scale(told.log_offset, told.shape)
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks(item.name):
            file.write(_converted(block, told, scale, begin, dtype).data)
            begin += block.size
        nbytes = file.tell()
    bits = 8 * dtype.itemsize if told.fmt is None or values != "codes" else told.fmt.bits
    return Written(item, (path.name,), dtype.name, math.prod(told.shape), bits, nbytes)


def _dtype(told: Description, values: Values) -> str:
    if told.fmt is not None and values != "codes":
        return values
    if told.dtype == "bfloat16":
        return "uint16" if values == "codes" else "float32"
    return told.dtype


def _converted(block: NDArray[Any], told: Description, scale: Scale, begin: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if told.fmt is not None and dtype.kind == "f":
        return decoded(block, told.fmt, scale, begin, dtype.name)
    if told.dtype == "bfloat16":
        return block.view(np.uint16) if dtype == np.uint16 else block.astype(np.float32)
    return block
