"""Sound files, of which all mutants are made: all layouts, and what may be in them."""

from __future__ import annotations

import copy
import math
import random
import re
from functools import cache
from typing import Any

from .files import SIZES, File, checksum, code_bytes, offset_bytes, word_size


def build(*tensors: tuple, layout: int = 3, optimizer: dict | None = None, **description: Any) -> File:
    """A sound file of tensors (name, dtype, shape, data, entry), and of an optimizer's by name (dtype, shape, data)."""
    file = File(description={"layout": layout, **description, "tensors": {}})

    def store(name: str, dtype: str, shape: list[int], data: bytes) -> dict[str, str]:
        file.header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(file.data), len(file.data + data)]}
        file.data += data
        return {"crc32": checksum(dtype, shape, data)}

    for name, dtype, shape, data, entry in copy.deepcopy(tensors):
        is_codes = layout == 3 and "format" in entry
        told = store(name + ".lnsnum_codes" * is_codes, dtype, shape, data)
        if is_codes and isinstance(offset := entry["log_offset"], dict):
            values, sizes = offset.pop("values"), offset.pop("shape")
            entry["log_offset"] = store(f"{name}.lnsnum_offsets", "I32", sizes, offset_bytes(values)) | offset
        if layout > 1:
            file.description["tensors"][name] = {**told, **entry}
        elif entry:
            file.description["tensors"][name] = entry
    if optimizer is not None:
        moments = {name: store(f"{name}.lnsnum_optimizer", *stored) for name, stored in optimizer.items()}
        file.description["optimizer"] = {"state": {"step": 3, "rates": [0.1, None]}, "tensors": moments}
    if layout == 1:
        del file.metadata["lnsnum_crc32"]
    return file


def plain(name: str, dtype: str, *shape: int) -> tuple:
    count = math.prod(shape)
    if dtype == "BOOL":
        data = bytes(i % 2 for i in range(count))
    else:
        data = random.Random(f"{name} {dtype} {shape}").randbytes(count * SIZES[dtype])
    return name, dtype, list(shape), data, {}


def coded(
    name: str, fmt: str, shape: tuple[int, ...], log_offset: Any = 0, packed: bool = False, **fields: Any
) -> tuple:
    bits = int(re.match(r"lns(\d+)", fmt)[1])
    numbers = random.Random(f"{name} {fmt} {shape}")
    codes = [numbers.getrandbits(bits) for _ in range(math.prod(shape))]
    entry = {"format": fmt, "log_offset": log_offset, **fields}
    data = code_bytes(codes, bits, packed)
    if packed:
        return name, "U8", [len(data)], data, {**entry, "packed_shape": list(shape)}
    return name, f"U{8 * word_size(bits)}", list(shape), data, entry


def by_channel(*shape: int) -> dict:
    numbers = random.Random(str(shape))
    return {"shape": list(shape), "values": [numbers.randint(-(1 << 30), 1 << 30) for _ in range(math.prod(shape))]}


def by_group(size: int, axis: int, *shape: int) -> dict:
    return by_channel(*shape) | {"group_size": size, "axis": axis}


GROUPS = (
    coded("rows", "lns8f3", (2, 40), by_group(16, -1, 2, 3), fit={"rule": "mse", "p_scale": 3.0}),
    coded("shared", "lns6f2", (3, 32), by_group(16, -1, 2), packed=True),
    coded("columns", "lns4f1", (33, 2), by_group(32, -2, 2, 2), packed=True),
    coded("one", "lns8f3", (2, 9), by_group(256, -1, 2, 1)),
    coded("none", "lns16f3", (2, 0), by_group(17, -1, 2, 0)),
    coded("middle", "lns5f1", (2, 20, 2), by_group(19, -2, 2, 2, 2)),
)
"""Groups with rests, one for all rows, along another axis, one alone, none."""

MODEL = (
    coded("conv.weight", "lns8f5", (4, 3, 3, 3), by_channel(4, 1, 1, 1)),
    coded("fc.weight", "lns6f2", (2, 5), by_channel(2, 1), packed=True),
    plain("fc.bias", "F32", 2),
)
MOMENTS = {name: plain(name, "U8", 2, 5)[1:4] for name in ("fc.weight", "fc.weight.second_moment", "")}
ODD_NAMES = ["", "\0", "two\nlines \"'\\/", "\N{GRINNING FACE}", "__metadata__ ", "lnsnum", "x" * 300, "\x7f\u202eé"]


@cache
def corpus() -> tuple[File, ...]:
    """Sound files of all layouts: every width class, packed or not, every type, every shape, odd names, nothing."""
    every_type = [plain(dtype, dtype, 3) for dtype in SIZES]
    widths = [3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32]
    wide = [coded(f"w{bits}", f"lns{bits}f{bits // 2}", (2, 3), 7 * bits - 99) for bits in widths]
    packed = [coded(f"p{b}", f"lns{b}f{b - 2}", (b % 4, 5), -b, packed=True) for b in widths if b not in (8, 16, 32)]
    shapes = [(), (0,), (2, 0, 3), (1, 2, 1, 2, 3), (1,) * 32]
    shaped = [coded(f"s{i}", "lns8f3", shape, i) for i, shape in enumerate(shapes)]
    shaped += [coded(f"p{i}", "lns5f1", shape, {"shape": [], "values": [i]}, True) for i, shape in enumerate(shapes)]
    shaped += [plain(f"f{i}", "BF16", *shape) for i, shape in enumerate(shapes)]
    bases = ["0x1.8000000000000p+0", "0x1.0000000000001p+0", "0x1.fffffffffffffp+1023"]
    return (
        build(*MODEL, metadata={"model": "a small network", "note": "é\n\0"}),
        build(coded("w", "lns8f5", (3,))),
        build(coded("w", "lns6f2", (3,), 5, packed=True)),
        build(plain("b", "F32", 3), metadata={}),
        build(*every_type),
        build(*wide),
        build(*packed),
        build(*shaped),
        build(*(coded(base, f"lns12f0b{base}", (2,), -1, packed=base == bases[0]) for base in bases)),
        build(*(coded(name, "lns10f5", (2,), 1, packed=bool(i % 2)) for i, name in enumerate(ODD_NAMES))),
        build(),
        build(metadata={"": "", "lnsnum": "{}"}, colour=["ignored"]),
        build(*GROUPS),
        build(*GROUPS[:2], plain("b", "F32", 3), metadata={"groups": "and more"}),
        build(*MODEL, optimizer=MOMENTS),
        build(optimizer={}),
        build(*MODEL, layout=2, metadata={"model": "a small network", "note": "é\n\0"}),
        build(*wide[::2], *packed[::2], *every_type[::2], layout=2),
        build(*shaped, layout=2),
        build(*(tensor for tensor in MODEL if "packed_shape" not in tensor[4]), layout=1, metadata={"model": "old"}),
        build(*wide[::3], *every_type, layout=1),
        build(layout=1),
    )
