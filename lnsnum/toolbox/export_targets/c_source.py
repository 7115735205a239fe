"""Tensors as C99: a header and a source with constant arrays, described by the structs of lnsnum.h.

    extern const lnsnum_tensor model_fc_weight;     ->     lnsnum_to_float(&model_fc_weight, out, NULL);

All is static data: a program has the tensors without a file, and its compiler puts them into read-only memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.layout import Blocks, Description
from lnsnum.files.packing import can_be_packed, pack
from lnsnum.kernels.codes import each_offset
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.toolbox.export_targets.exported import Item, Written
from lnsnum.toolbox.export_targets.fixed_text import PART, Text, c_floats, c_integers, hexadecimal, lines, parts
from lnsnum.toolbox.export_targets.plain_names import in_comment

LNSNUM_H = Path(__file__).resolve().parents[2] / "c" / "lnsnum.h"
"""The reader and decoder in C that comes with this package."""

TAKEN = ("tensors", "count")
"""Identifiers that the source gives to other things than tensors."""

_C_TYPES = {"bool": "uint8_t", "float16": "uint16_t", "bfloat16": "uint16_t", "float32": "float", "float64": "double"}
_LONGEST_LITERAL = 4000
"""Characters: C99 promises 4095."""


def write_source(
    folder: Path, items: Sequence[Item], blocks: Blocks, *, prefix: str, source: str, packed: bool = False
) -> list[Written]:
    """Write PREFIX_tensors.h, PREFIX_tensors.c and a copy of lnsnum.h. (No header of C or a system has such a name.)

    Args:
        folder: where the files go.
        items: the tensors.
        blocks: their elements.
        prefix: an identifier in small letters, which begins all that the header declares.
        source: the name of the weight file, for a comment.
        packed: write codes without their unused bits, where the format has some.
    """
    shutil.copyfile(LNSNUM_H, folder / LNSNUM_H.name)
    files = f"{prefix}_tensors.h", f"{prefix}_tensors.c"
    with open(folder / files[0], "x", encoding="ascii", newline="\n") as header:
        header.writelines(_header(items, prefix, source))
    written = []
    with open(folder / files[1], "xb") as file:
        _put(file, f'#include "{files[0]}"\n\n#include <math.h>\n')
        for number, item in enumerate(items):
            begin = file.tell()
            is_packed = packed and item.told.fmt is not None and can_be_packed(item.told.fmt)
            words, bits = _write_tensor(file, f"{prefix}_{item.identifier}", number, item, blocks, is_packed)
            dtype = "uint8" if is_packed else _c_type(item.told).removesuffix("_t")
            dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
            name = f"{prefix}_{item.identifier}"
            written.append(Written(item, files, dtype, words, bits, file.tell() - begin, name, is_packed))
        names = [f"&{prefix}_{item.identifier}" for item in items] or ["NULL"]
        _put(file, f"\nconst lnsnum_tensor *const {prefix}_tensors[] = {{\n    " + ",\n    ".join(names) + "\n};\n")
    return written


def _header(items: Sequence[Item], prefix: str, source: str) -> Iterator[str]:
    guard = f"{prefix.upper()}_TENSORS_H"
    yield f"/* The tensors of {in_comment(source)}, as lnsnum export writes them; manifest.json lists them. */\n\n"
    yield f'#ifndef {guard}\n#define {guard}\n\n#include "lnsnum.h"\n\n'
    yield '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
    yield f"enum {{ {prefix}_count = {len(items)} }};\n"
    yield f"extern const lnsnum_tensor *const {prefix}_tensors[]; /* {prefix}_count of them */\n"
    for item in items:
        told = item.told
        what = told.dtype if told.fmt is None else f"{told.fmt.name}, log_offset {_scale_in_words(told)}"
        shape = " x ".join(map(str, told.shape)) or "none"
        yield f"\n/* {in_comment(item.name)}: {what}, shape {shape} */\n"
        yield f"extern const lnsnum_tensor {prefix}_{item.identifier};\n"
    yield "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n"


def _scale_in_words(told: Description) -> str:
    if told.offsets is None:
        return str(told.log_offset)
    groups = f", groups of {told.group_size}" if told.group_size is not None else ""
    return "of shape " + " x ".join(map(str, told.offsets.shape)) + groups


def _write_tensor(
    file: IO[bytes], variable: str, number: int, item: Item, blocks: Blocks, packed: bool
) -> tuple[int, int]:
    """Write the arrays of a tensor and its struct. Returns how many words its data are, and bits of a word."""
    told = item.told
    words = told.size if told.fmt is None or not packed else -(-told.size * told.fmt.bits // 8)
    c_type = "uint8_t" if packed else _c_type(told)
    _put(file, f"\nstatic const {c_type} data_{number}[] = {{\n")
    texts = (_text(part, told, packed) for block in blocks(item.name) for part in parts(block))
    _put_all(file, texts, words, 16 if c_type.startswith("uint") else 8)
    fields = _fields(file, number, item, packed)
    itemsize = 1 if packed else np.dtype(told.dtype).itemsize
    fields |= {"native_order": "1", "data": f"data_{number}", "data_size": f"{words * itemsize}u"}
    inside = ",\n".join(f"    .{field} = {value}" for field, value in fields.items())
    _put(file, f"const lnsnum_tensor {variable} = {{\n{inside}\n}};\n")
    bits = 8 * itemsize if told.fmt is None or packed else told.fmt.bits
    return words, bits


def _fields(file: IO[bytes], number: int, item: Item, packed: bool) -> dict[str, str]:
    """The fields of the struct but for the data; the arrays that they point to are written."""
    told, encoded = item.told, item.name.encode()
    name = '"' + "".join(map(_escaped, encoded)) + '"'
    if len(name) > _LONGEST_LITERAL:
        name = f"name_{number}"
        text = "".join(f"'{_escaped(c)}'," for c in encoded)
        _put(file, f"static const char {name}[] = {{{text}0}};\n")
    fields = {"name": name, "name_length": str(len(encoded)), "ndim": str(len(told.shape))}
    fields |= _shape(file, f"shape_{number}", "shape", told.shape)
    fields |= {"count": f"{told.size}u", "dtype": "LNSNUM_U8" if packed else _C_DTYPES[told.dtype]}
    if told.fmt is not None:
        fmt, offsets = told.fmt, each_offset(told.log_offset).astype(np.int32)
        fields |= {
            "is_lns": "1",
            "format": f"{{{fmt.bits}, {fmt.fraction_bits}, {fmt.base.hex()}}}",
            "packed": str(int(packed)),
            "offset_ndim": str(offsets.ndim),
        }
        fields |= _shape(file, f"offset_shape_{number}", "offset_shape", offsets.shape)
        _put(file, f"static const int32_t offsets_{number}[] = {{\n")
        _put_all(file, (c_integers(part) for part in parts(offsets.reshape(-1))), offsets.size, 8)
        fields["offsets"] = f"offsets_{number}"
        if isinstance(told.log_offset, GroupOffsets):
            fields |= {"group_size": str(told.log_offset.group_size), "group_axis": str(told.log_offset.axis)}
    return fields


def _shape(file: IO[bytes], variable: str, field: str, shape: tuple[int, ...]) -> dict[str, str]:
    """Write a shape, if there is one; the field that points to it."""
    if not shape:
        return {}
    _put(file, f"static const uint64_t {variable}[] = {{{', '.join(f'{size}u' for size in shape)}}};\n")
    return {field: variable}


_C_DTYPES = {
    "uint64": "LNSNUM_U64", "int64": "LNSNUM_I64", "float64": "LNSNUM_F64", "float32": "LNSNUM_F32",
    "uint32": "LNSNUM_U32", "int32": "LNSNUM_I32", "bfloat16": "LNSNUM_BF16", "float16": "LNSNUM_F16",
    "uint16": "LNSNUM_U16", "int16": "LNSNUM_I16", "int8": "LNSNUM_I8", "uint8": "LNSNUM_U8", "bool": "LNSNUM_BOOL",
}  # fmt: skip


def _c_type(told: Description) -> str:
    return _C_TYPES.get(told.dtype, f"{told.dtype}_t")


def _text(block: NDArray[Any], told: Description, packed: bool) -> Text:
    """A part of a tensor as C's constants."""
    if told.fmt is not None:
        if packed:
            assert block.size % 8 == 0 or block.size == told.size % PART, "a part that ends within a byte"
            return hexadecimal(pack(block, told.fmt), 8, before="0x", after=",")
        return hexadecimal(block, 8 * block.itemsize, before="0x", after="," if block.itemsize < 4 else "u,")
    if told.dtype in ("float32", "float64"):
        return c_floats(block)
    if told.dtype in ("float16", "bfloat16"):
        return hexadecimal(block.view(np.uint16), 16, before="0x", after=",")
    return c_integers(block)


def _escaped(byte: int) -> str:
    """A byte in a literal of C: no quotes, no trigraphs."""
    char = chr(byte)
    return char if 32 <= byte < 127 and char not in "\"'\\?" else f"\\{byte:03o}"


def _put(file: IO[bytes], text: str) -> None:
    file.write(text.encode("ascii"))


def _put_all(file: IO[bytes], texts: Iterable[Text], count: int, per_line: int) -> None:
    """Write `count` constants and the end of their array."""
    for text in texts:
        file.writelines(lines(text, per_line))
    _put(file, ("" if count else "0\n") + "};\n")  # C has no empty arrays
