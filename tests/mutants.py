"""Weight files with something wrong in them: `mutant(seed)` is always the same bytes, and says what was done to them.

    corpus (sound files, built here from docs/weight_file.md, without lnsnum)
        -> 1 to 3 mutations of the parsed header and description, of their texts, or of the bytes
        -> for every other seed the checksums set right again, so that the damage reaches what comes after them

`set_mutant(seed)` does the same to an index and its shards. `python tests/mutants.py SEED [FILE]` says what the mutant
is and what becomes of it, and writes it to FILE; `set:SEED` is that of a set. tests/test_mutants.py has the workers.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import re
import struct
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

SIZES = {"U8": 1, "I8": 1, "BOOL": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4}
SIZES |= {"U64": 8, "I64": 8, "F64": 8}
"""Bytes of an element, by type."""

# ----------------------------------------------------------------------------------------------------- sound files


class Raw(str):
    """JSON text that goes into the file as it is."""


def dumps(value: Any) -> str:
    """JSON text of a value, with `Raw` texts in it."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {dumps(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return json.dumps(value)


def crc(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"


def checksum(dtype: str, shape: list[int], data: bytes) -> str:
    return crc(" ".join([dtype, *map(str, shape)]).encode() + b"\n" + data)


@dataclass
class File:
    """A weight file in its parts, each of which a mutation may spoil."""

    header: Any = field(default_factory=dict)
    description: Any = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    metadata: Any = field(default_factory=lambda: {"lnsnum": None, "lnsnum_crc32": None})
    """None stands for what the file should have there."""
    text_edits: list = field(default_factory=list)
    """What happens to the description's text, before its checksum is taken."""

    def bytes(self) -> bytes:
        text = dumps(self.description)
        for edit in self.text_edits:
            text = edit(text)
        right = {"lnsnum": text, "lnsnum_crc32": crc(text.encode("utf-8", "surrogatepass"))}
        metadata = self.metadata
        if isinstance(metadata, dict):
            metadata = {key: right.get(key) if value is None else value for key, value in metadata.items()}
        header = self.header
        if isinstance(header, dict):
            header = ({} if metadata is None else {"__metadata__": metadata}) | header
        return container(dumps(header).encode(), self.data)


def container(header: bytes, data: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(data)


def parted(content: bytes) -> tuple[bytes, bytes]:
    """Header and data of a file, as far as its length says where one ends."""
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def build(*tensors: tuple, layout: int = 2, **description: Any) -> File:
    """A sound file of tensors (name, dtype, shape, data, entry)."""
    file = File(description={"layout": layout, **description, "tensors": {}})
    for name, dtype, shape, data, entry in copy.deepcopy(tensors):
        file.header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(file.data), len(file.data + data)]}
        file.data += data
        if layout == 2:
            file.description["tensors"][name] = {"crc32": checksum(dtype, shape, data), **entry}
        elif entry:
            file.description["tensors"][name] = entry
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


def coded(name: str, fmt: str, shape: tuple[int, ...], log_offset: Any = 0, packed: bool = False) -> tuple:
    bits = int(re.match(r"lns(\d+)", fmt)[1])
    numbers = random.Random(f"{name} {fmt} {shape}")
    codes = [numbers.getrandbits(bits) for _ in range(math.prod(shape))]
    entry = {"format": fmt, "log_offset": log_offset}
    if packed:
        data = sum(code << i * bits for i, code in enumerate(codes)).to_bytes(-(-len(codes) * bits // 8), "little")
        return name, "U8", [len(data)], data, {**entry, "packed_shape": list(shape)}
    size = 1 if bits <= 8 else 2 if bits <= 16 else 4
    return name, f"U{8 * size}", list(shape), b"".join(code.to_bytes(size, "little") for code in codes), entry


def by_channel(*shape: int) -> dict:
    numbers = random.Random(str(shape))
    return {"shape": list(shape), "values": [numbers.randint(-(1 << 30), 1 << 30) for _ in range(math.prod(shape))]}


MODEL = (
    coded("conv.weight", "lns8f5", (4, 3, 3, 3), by_channel(4, 1, 1, 1)),
    coded("fc.weight", "lns6f2", (2, 5), by_channel(2, 1), packed=True),
    plain("fc.bias", "F32", 2),
)
ODD_NAMES = ["", "\0", "two\nlines \"'\\/", "\N{GRINNING FACE}", "__metadata__ ", "lnsnum", "x" * 300, "\x7f\u202eé"]


@cache
def corpus() -> tuple[File, ...]:
    """Sound files of both layouts: every width class, packed or not, every type, every shape, odd names, nothing."""
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
        build(*(tensor for tensor in MODEL if "packed_shape" not in tensor[4]), layout=1, metadata={"model": "old"}),
        build(*wide[::3], *every_type, layout=1),
        build(layout=1),
    )


# -------------------------------------------------------------------------------------------------------- odd values

ARABIC_ONE = "\u0661"  # isdigit, and int takes it
INTEGERS = [0, 1, -1, 2, 3, 7, 8, 255, 256, 2**30, 2**30 + 1, -(2**30), -(2**30) - 1, 2**31, 2**32, 2**53 + 1]
INTEGERS += [2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**63), -(2**63) - 1, 10**30, 2**1100]
NUMBERS = ["-0", "2.0", "1e2", "1E0", "1e999", "-1e999", "1e-999", "0.1", "NaN", "-Infinity", "Infinity", "01", "+1"]
NUMBERS += [".5", "5.", "1_0", "0x10", ARABIC_ONE, "9" * 100_000, "0." + "1" * 100_000, "1e" + "9" * 100_000]
TEXTS = ["", "0", "2", "lns8f5", "00000000", "e", ARABIC_ONE, "x" * 100_000, "two\nlines", "\x1b[31m", "a\0b"]
STRINGS = [
    r'"\ud800"',
    r'"\udc00\ud800"',
    r'"\u0000"',
    '"\x01"',
    r'"\x"',
    r'"\u12"',
    '"\n"',
    "'a'",
    '"',
    r'"\ud83d\ude00"',
]
LITERALS = [
    "True",
    "None",
    "nul",
    "undefined",
    "",
    "/**/1",
    "1//",
    "{,}",
    "[,]",
    "[1,]",
    '{"a":1,}',
    '{"a" 1}',
    "{1:2}",
]
DEPTHS = [2, 30, 32, 33, 126, 127, 128, 990, 2000, 100_000]


def nested(rng: random.Random) -> Raw:
    depth = rng.choice(DEPTHS)
    open_, close = rng.choice([("[", "]"), ('{"a":', "}"), ("[0,", "]")])
    return Raw(open_ * depth + rng.choice(["0", "", "{}"]) + close * rng.choice([depth, depth, depth - 1, 0]))


def odd_value(rng: random.Random) -> Any:
    """Anything that JSON can say, or nearly so."""
    kind = rng.randrange(8)
    if kind < 2:
        return rng.choice(INTEGERS)
    if kind == 2:
        return Raw(rng.choice(NUMBERS))
    if kind == 3:
        return rng.choice(TEXTS)
    if kind == 4:
        return Raw(rng.choice(STRINGS + LITERALS))
    if kind == 5:
        return nested(rng)
    return rng.choice(
        [None, True, False, [], {}, [0], [[0]], [1, 2, 3], [None], {"a": 1}, {"shape": [], "values": [0]}]
    )


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree of objects and lists."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in members for place in [(value, key), *places(inner)]]


def brief(value: Any) -> str:
    text = value if isinstance(value, Raw) else repr(value) if not isinstance(value, dict) else dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


# ------------------------------------------------------------------------------------------------- mutations of parts
# Each changes a File in place and says in a few words what it did, or None where it finds nothing to change.


def _tree(file: File, rng: random.Random) -> tuple[str, Any]:
    return rng.choice([("description", file.description), ("description", file.description), ("header", file.header)])


def set_a_value(file, rng):
    where, tree = _tree(file, rng)
    if at := places(tree):
        inside, key = rng.choice(at)
        old = inside[key]
        inside[key] = (
            rng.choice([str(old), [old], {"a": old}, float(old), -old])
            if isinstance(old, int) and (rng.random() < 0.3)
            else odd_value(rng)
        )
        return f"{where}: {key!r} was {brief(old)}, now {brief(inside[key])}"
    return None


def change_a_name(file, rng):
    where, tree = _tree(file, rng)
    objects = [value for value in [tree, *(inside[key] for inside, key in places(tree))] if isinstance(value, dict)]
    target = rng.choice([value for value in objects if value] or [{}])
    if not target:
        return None
    key, how = rng.choice(list(target)), rng.randrange(4)
    if how == 0:
        del target[key]
        return f"{where}: {key!r} is gone"
    if how == 1:
        new = rng.choice(
            [key + " ", key.upper(), key + "\0", "\ud800", "", "a", "__metadata__", "é", (key * 1000)[:20_000]]
        )
        changed = {new if name == key else name: value for name, value in target.items()}
        target.clear()
        target.update(changed)
        return f"{where}: {key!r} is called {brief(new)}"
    if how == 2:
        target[rng.choice(["colour", "", "\0", "lnsnum", "packed", "metadata "])] = odd_value(rng)
        return f"{where}: a field more beside {key!r}"
    # A name twice: the object becomes text.
    value = target[key] if rng.random() < 0.5 else odd_value(rng)
    spelled = rng.choice([json.dumps(key), '"' + "".join(f"\\u{ord(c):04x}" for c in key if ord(c) < 65536) + '"'])
    twice = Raw(dumps(target)[:-1] + f", {spelled}: {dumps(value)}}}")
    for inside, at in places(tree):
        if inside[at] is target:
            inside[at] = twice
            return f"{where}: {key!r} twice"
    if where == "header":
        file.header = Raw(twice)
    else:
        file.description = twice
    return f"{where}: {key!r} twice"


def _tensor(file: File, rng: random.Random, entry_with: str = "") -> tuple[str, dict, dict]:
    """A tensor that still is what it was: its name, its place in the header, its entry."""
    entries = file.description.get("tensors") if isinstance(file.description, dict) else None
    entries = entries if isinstance(entries, dict) else {}
    found = []
    for name, told in file.header.items() if isinstance(file.header, dict) else ():
        entry = entries.get(name, {})
        if (
            isinstance(told, dict)
            and isinstance(entry, dict)
            and isinstance(told.get("shape"), list)
            and (not entry_with or entry_with in entry)
        ):
            found.append((name, told, entry))
    return rng.choice(found) if found else ("", {}, {})


def _span(told: dict) -> tuple[int, int]:
    span = told.get("data_offsets")
    return tuple(span) if isinstance(span, list) and len(span) == 2 and all(type(i) is int for i in span) else (0, 0)


HUGE_SHAPES = [[2**40], [2**20, 2**20], [10**6, 10**6, 1000], [2**32, 2**32], [2**63, 2], [2**61], [2**64 - 1], [2**64]]
HUGE_SHAPES += [
    [0, 2**60],
    [2**60, 0],
    [2**62, 2**62, 0],
    [0, 2**63],
    [0, 2**64 - 1],
    [-1],
    [-2, -3],
    [0, -1],
    [2**31, 2**31],
]


def change_a_shape(file, rng):
    name, told, entry = _tensor(file, rng, rng.choice(["", "", "packed_shape"]))
    if not told:
        return None
    field_, holder = ("packed_shape", entry) if "packed_shape" in entry and rng.random() < 0.7 else ("shape", told)
    old = holder[field_]
    if not isinstance(old, list) or not all(type(size) is int for size in old):
        return None
    choices = [
        [*old, 1],
        [1, *old],
        old[::-1],
        [math.prod(old)],
        [*old, 0],
        [*old, 2],
        old[1:],
        [size + 1 for size in old],
    ]
    choices += [old + [1] * rng.randint(27, 70), [0] * rng.randint(1, 70), [float(size) for size in old], [*old, True]]
    holder[field_] = rng.choice([rng.choice(HUGE_SHAPES), *rng.sample(choices, 3)])
    return f"{field_} of {name!r} was {brief(old)}, now {brief(holder[field_])}"


def empty_a_tensor(file, rng):
    """A tensor without data, of sizes that nothing else may be made of."""
    shape = rng.choice([*(shape for shape in HUGE_SHAPES if 0 in shape), [0] * rng.randint(1, 70), [2**31, 0, 2**31]])
    fmt, dtype = rng.choice(
        [("", rng.choice(list(SIZES))), ("lns8f5", "U8"), ("lns32f2", "U32"), ("lns6f2", "U8"), ("lns20f2", "U8")]
    )
    if not isinstance(file.header, dict) or not isinstance(file.description, dict):
        return None
    packed = fmt in ("lns6f2", "lns20f2")
    stored = [0] if packed else shape
    entry = {"crc32": checksum(dtype, stored, b"")} | ({"format": fmt, "log_offset": 0} if fmt else {})
    if packed:
        entry["packed_shape"] = shape
    with contextlib.suppress(TypeError, KeyError):
        file.description["tensors"]["empty"] = entry
        file.header["empty"] = {"dtype": dtype, "shape": stored, "data_offsets": [0, 0]}
        return f"an empty tensor of shape {shape}, {dtype} {fmt}"


UNKNOWN = [
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F4",
    "F6_E2M3",
    "F6_E3M2",
    "C64",
    "X8",
    "u8",
    "U8 ",
    "",
    "U128",
    "U4",
    "U8\0",
]


def change_a_dtype(file, rng):
    name, told, _ = _tensor(file, rng)
    old = told.get("dtype")
    if not isinstance(old, str) or old not in SIZES:
        return None
    same_size = [dtype for dtype in SIZES if SIZES[dtype] == SIZES[old]]
    told["dtype"] = rng.choice([rng.choice(UNKNOWN), rng.choice(same_size), rng.choice(list(SIZES))])
    return f"{name!r} was of {old}, now {told['dtype']}"


def change_offsets(file, rng):
    name, told, _ = _tensor(file, rng)
    begin, end = _span(told)
    _, other, _ = _tensor(file, rng)
    if told:
        spans = [[begin + 1, end + 1], [begin - 1, end], [begin, end + 1], [begin, end - 1], [end, begin], [end, end]]
        spans += [
            [begin],
            [],
            [begin, end, end],
            [*_span(other)],
            [0, len(file.data)],
            [begin, 2**63],
            [2**64 - 8, 2**64],
        ]
        spans += [[0, 2**64 - 1], [begin - 2**64, end], [float(begin), end], [str(begin), end], {"0": begin, "1": end}]
        told["data_offsets"] = rng.choice(spans)
        return f"data_offsets of {name!r} were {[begin, end]}, now {told['data_offsets']}"
    return None


def change_the_data(file, rng):
    how = rng.randrange(4)
    at = rng.randint(0, len(file.data))
    some = rng.randbytes(rng.randint(1, 9))
    if how == 0:
        file.data += some
        return f"{len(some)} bytes more at the end"
    if how == 1:
        file.data[at : at + len(some)] = b""
        return f"{len(some)} bytes of data gone at {at}"
    if how == 2 and isinstance(file.header, dict) and (name := _tensor(file, rng)[0]) in file.header:
        del file.header[name]
        return f"{name!r} gone from the header"
    if file.data:
        file.data[at : at + len(some)] = some[: max(0, len(file.data) - at)]
        return f"{len(some)} bytes of data changed at {at}"
    return None


def spoil_codes(file, rng):
    """Bits that no code, no bool and no packed tensor has."""
    name, told, entry = _tensor(file, rng, rng.choice(["packed_shape", "format", ""]))
    begin, end = _span(told)
    if not 0 <= begin < end <= len(file.data):
        return None
    at = rng.choice([end - 1, end - 1, rng.randrange(begin, end)])
    file.data[at] |= rng.choice([0x80, 0x40, 0xFF, 2])
    return f"byte {at - begin} of {name!r} ({told.get('dtype')} {entry.get('format', '')}) is {file.data[at]:#x}"


FORMATS = [
    "lns8",
    "LNS8f5",
    "lns08f5",
    "lns8f05",
    " lns8f5",
    "lns8f5 ",
    "lns8f5\n",
    "lns8f-1",
    "lns8f7",
    "lns8f6",
    "lns2f0",
]
FORMATS += [
    "lns33f3",
    "lns3f1",
    "lns99999999999f1",
    "lns8f99999999999",
    "lns" + "9" * 10_000 + "f1",
    "lns\u0668f5",
    "lns8f5b",
    "int8",
]
FORMATS += ["lns16f10", "lns12f6", "lns32f0", "lns17f0", "lns9f0", "lns6f2", "lns5f2", "lns4f0", "lns7f1"]
BASES = [
    "0x1p+1",
    "0x1.0000000000000p+1",
    "0x1.8p+0",
    "0x1.8p0",
    "0x3p-1",
    "0x.cp+1",
    "0xcp-3",
    "0x1.8p+0000000000000000000",
]
BASES += [
    "0x1p+0",
    "0x1.0000000000000p+0",
    "0x0p+0",
    "0x1p-1080",
    "0x1p-1",
    "0x1p+1024",
    "0x1.fffffffffffff8p+1023",
    "0x2p+1023",
]
BASES += [
    "0x1.fffffffffffffp+1023",
    "0x1.00000000000001p+0",
    "0x1.80000000000000000000000000000001p+0",
    "0x1.00000000000000p+1",
]
BASES += [
    "0x1..8p+0",
    "0x.p+1",
    "0x1.p+1",
    "0x1.8p",
    "0x1.8",
    "0x1.8p+",
    "0x1.8p+-1",
    "0X1.8P+0",
    "0x1.8P+0",
    "0x1.AP+0",
    "2.0",
]
BASES += [
    "inf",
    "nan",
    "0xinf",
    "0x1p+99999999999999999999",
    "0x1p-99999999999999999999",
    "0x1.8p+0\n",
    "0x1.8p+\u0660",
    "-0x1.8p+0",
]
BASES += [
    "0x" + "0" * 5000 + "1.8p+0",
    "0x1." + "8" + "0" * 5000 + "p+0",
    "0x1" + "0" * 300 + "p-1199",
    "0x1.8p+" + "0" * 5000,
]


def change_a_format(file, rng):
    name, _, entry = _tensor(file, rng, rng.choice(["format", "format", ""]))
    if not name and not entry:
        return None
    old = entry.get("format")
    parts = re.fullmatch(r"lns(\d{1,3})f(\d{1,3})(b.*)?", old) if isinstance(old, str) else None
    if rng.random() < 0.4 or not parts:
        new = rng.choice(FORMATS)
    elif rng.random() < 0.5:
        new = f"lns{parts[1]}f{parts[2]}b{rng.choice(BASES)}"
    else:
        bits, fraction = int(parts[1]) + rng.choice([-1, 0, 1, 0, 8]), int(parts[2]) + rng.choice([-1, 0, 1, 5])
        new = f"lns{bits}f{fraction}"
    entry["format"] = new
    return f"format of {name!r} was {old!r}, now {brief(new)}"


def change_a_log_offset(file, rng):
    name, told, entry = _tensor(file, rng, "format")
    if not entry:
        return None
    shape = entry.get("packed_shape", told["shape"])
    sizes = [size for size in shape if type(size) is int and 0 <= size < 100] if isinstance(shape, list) else []
    axis = rng.randrange(len(sizes)) if sizes else 0
    channels = [size if d == axis or rng.random() < 0.1 else 1 for d, size in enumerate(sizes)]
    channels = channels[rng.choice([0, 0, axis]) :]
    if rng.random() < 0.2:
        channels = rng.choice(
            [[], [1], [*channels, 1], [1, *channels], [0], [2], sizes, [1] * 40, [2**62, 2**62], [0, 2**62]]
        )
    count = math.prod(channels) if math.prod(channels) < 1000 else 0
    values = [rng.choice([0, 1, -1, 2**30, -(2**30)]) for _ in range(count)]
    offset = {"shape": channels, "values": values}
    how = rng.randrange(8)
    if how == 0:
        values.append(0)
    elif how == 1 and values:
        values[rng.randrange(count)] = odd_value(rng)
    elif how == 2:
        offset["values"] = rng.choice([[values], values[1:], values * 2, {"0": 0}, None, "0", 0])
    elif how == 3:
        offset = rng.choice([values, [0], *INTEGERS, True, 0.0, None, "fit"])
    elif how == 4:
        offset["colour"] = odd_value(rng)
    entry["log_offset"] = offset
    return f"log_offset of {name!r} is {brief(offset)}"


def change_packing(file, rng):
    name, told, entry = _tensor(file, rng, rng.choice(["packed_shape", "format", ""]))
    if not told:
        return None
    old = entry.get("packed_shape", "none")
    sizes = old if isinstance(old, list) else told["shape"]
    if old != "none" and rng.random() < 0.2:
        del entry["packed_shape"]
        return f"{name!r} is not packed any more"
    if rng.random() < 0.2 and old != "none":
        entry.pop("format", None)
        return f"{name!r} is packed without a format"
    shapes = [
        sizes,
        [*sizes, 1],
        [1, *sizes],
        [-1],
        [2**63],
        [2**63 - 1],
        [2**61],
        [0, 2**62],
        [2**32, 2**32],
        [2**62, 4],
    ]
    shapes += [[], [1] * rng.randint(30, 70), None, 3, "3", [[3]], [3.0], [True], {"0": 3}]
    entry["packed_shape"] = rng.choice(shapes)
    return f"packed_shape of {name!r} was {brief(old)}, now {brief(entry['packed_shape'])}"


def change_a_checksum(file, rng):
    name, _, entry = _tensor(file, rng, "crc32")
    other, key = (entry, "crc32") if entry and rng.random() < 0.7 else (file.metadata, "lnsnum_crc32")
    if not isinstance(other, dict):
        return None
    old = other.get(key) or crc(dumps(file.description).encode())
    if isinstance(old, str):
        digits = re.fullmatch("[0-9a-f]{8}", old)
        choices = [
            old.upper(),
            old[1:],
            old + "0",
            "0" + old,
            " " + old,
            old + "\n",
            "0x" + old,
            "g" * 8,
            "",
            "00000000",
        ]
        choices += [old[:-1] + ARABIC_ONE, int(old, 16) if digits else 0, crc(b"x")]
        new = rng.choice(choices)
        other[key] = new
        if rng.random() < 0.2:
            del other[key]
        return f"{key} of {name!r} was {brief(old)}, now {brief(other.get(key, 'missing'))}"
    return None


def change_the_layout(file, rng):
    if isinstance(file.description, dict):
        odd = [
            0,
            1,
            2,
            3,
            -1,
            -2,
            2**64 + 2,
            True,
            2.0,
            "2",
            None,
            [2],
            Raw("2e0"),
            Raw("02"),
            Raw("2" * 100_000),
            Raw("-0"),
        ]
        file.description["layout"] = rng.choice(odd)
        return f"layout is {brief(file.description['layout'])}"
    return None


def change_the_metadata(file, rng):
    if rng.random() < 0.5 and isinstance(file.description, dict):
        file.description["metadata"] = rng.choice(
            [odd_value(rng), {"a": odd_value(rng)}, {"a": "b", "\ud800": Raw(r'"\udc00"')}, {"": ""}, {"a": None}, []]
        )
        return f"metadata are {brief(file.description['metadata'])}"
    how = rng.randrange(4)
    if how == 0:
        file.metadata = rng.choice([None, Raw("null"), [], "lnsnum", 5, {}, {"format": "pt"}, odd_value(rng)])
    elif isinstance(file.metadata, dict):
        key = rng.choice(["lnsnum", "lnsnum_crc32", "format", "", "LNSNUM", "__metadata__"])
        file.metadata[key] = rng.choice(["text", "", odd_value(rng), {"a": "b"}, Raw(r'"\ud800"'), "\0"])
        if how == 1:
            del file.metadata[key]
    return f"__metadata__ is {brief(file.metadata)}"


def name_a_tensor(file, rng):
    """A name changed in both places: most of these are sound."""
    name, told, entry = _tensor(file, rng)
    new = rng.choice(
        [*ODD_NAMES, "\ud800", "__metadata__", "é", "e\u0301", "../../etc/passwd", "\ufeff", "\u2028", "n" * 70_000]
    )
    if not told or new in file.header:
        return None
    file.header = {new if key == name else key: value for key, value in file.header.items()}
    if entry:
        entries = file.description["tensors"]
        file.description["tensors"] = {new if key == name else key: value for key, value in entries.items()}
    return f"{name!r} is called {brief(new)}"


def shuffle(file, rng):
    """Another order of the same: sound."""
    for inside in [file.header, file.description, file.metadata]:
        if isinstance(inside, dict):
            members = list(inside.items())
            rng.shuffle(members)
            inside.clear()
            inside.update(members)
    return "another order"


def exchange_tensors(file, rng):
    """The data of two tensors exchanged, the checksums not: only these can tell."""
    (a, told, _), (b, other, _) = _tensor(file, rng), _tensor(file, rng)
    if told and other and a != b:
        told["data_offsets"], other["data_offsets"] = other.get("data_offsets"), told.get("data_offsets")
        return f"{a!r} and {b!r} have exchanged their data"
    return None


def splice_parts(file, rng):
    other = copy.deepcopy(rng.choice(corpus()))
    part = rng.choice(["header", "description", "data", "metadata"])
    setattr(file, part, getattr(other, part))
    return f"{part} of another file"


JUNK = [
    "\ufeff",
    " ",
    "\n",
    "\t\r\n",
    "\v",
    "\u00a0",
    "\0",
    ",",
    "}",
    "]",
    "{}",
    " x",
    "//",
    "/* */",
    "#",
    '"',
    "'",
    "\\",
    "\ud800",
    "-",
]
JUNK += ["1", ".0", "e1", "null", ":", "[" * 100_000, " " * 100_000, "\u2028", "\x7f", "\x1f"]


def _edit_text(text: str, rng: random.Random) -> tuple[str, str]:
    junk, how = rng.choice(JUNK), rng.randrange(6)
    at = rng.choice([0, len(text), rng.randint(0, len(text)), rng.randint(0, len(text))])
    if how < 2:
        return text[:at] + junk + text[at:], f"{brief(junk)!r} at character {at}"
    if how == 2 and (blank := [m.start() for m in re.finditer("[ :,{}]", text)]):
        at = rng.choice(blank)
        return text[:at] + rng.choice([" ", "\n", "\t", "\r"]) * 3 + text[at:], f"white space at character {at}"
    if how == 3 and (letters := [m.start() for m in re.finditer("[a-z]", text)]):
        at = rng.choice(letters)
        return text[:at] + f"\\u{ord(text[at]):04X}" + text[at + 1 :], f"an escape at character {at}"
    if how == 4 and (digits := [m.start() for m in re.finditer("[0-9]", text)]):
        at = rng.choice(digits)
        digit = rng.choice(["0", "1", "9", "-", ".", "00", "1e1", ARABIC_ONE])
        return text[:at] + digit + text[at + 1 :], f"the digit at character {at} is {digit!r}"
    end = min(len(text), at + rng.randint(1, 20))
    return text[:at] + text[at:end] * rng.choice([0, 2, 3]) + text[end:], f"characters {at} to {end} gone or repeated"


def edit_the_text(file, rng):
    """Something in the text of the description; its checksum is that of the text then, unless something else is."""
    seed = rng.getrandbits(64)
    file.text_edits.append(lambda text: _edit_text(text, random.Random(seed))[0])
    return f"description text: {_edit_text(dumps(file.description), random.Random(seed))[1]}"


STRUCTURAL = [set_a_value, set_a_value, change_a_name, change_a_name, change_a_shape, change_a_shape, empty_a_tensor]
STRUCTURAL += [
    change_a_dtype,
    change_offsets,
    change_the_data,
    spoil_codes,
    spoil_codes,
    change_a_format,
    change_a_format,
]
STRUCTURAL += [change_a_log_offset, change_a_log_offset, change_packing, change_a_checksum, change_the_layout]
STRUCTURAL += [change_the_metadata, name_a_tensor, shuffle, exchange_tensors, splice_parts, edit_the_text]

# ------------------------------------------------------------------------------------------------ mutations of bytes
# Each takes the bytes of a file and gives others, and says what it did.


def edit_the_header(content, rng):
    header, data = parted(content)
    text, what = _edit_text(header.decode("utf-8", "surrogateescape"), rng)
    return container(text.encode("utf-8", "surrogatepass"), data), f"header text: {what}"


def pad_the_header(content, rng):
    header, data = parted(content)
    header = header.rstrip() + rng.choice([b"", b" ", b" " * 4099, b"\n", b"\t ", b"\0" * 8, b"  {}", b"\r\n", b"\x0c"])
    return struct.pack("<Q", len(header)) + header + data, f"header ends with {brief(header[-9:])}"


def flip_bits(content, rng):
    changed = bytearray(content)
    spots = [rng.randrange(len(content)) for _ in range(rng.choice([1, 1, 2, 5]))]
    for at in spots:
        changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed), f"bits flipped in bytes {spots}"


def overwrite_bytes(content, rng):
    at, some = (
        rng.randrange(len(content)),
        rng.choice([b"\0", b"\xff", b"\xed\xa0\x80", rng.randbytes(rng.randint(1, 9))]),
    )
    return (content[:at] + some + content[at + len(some) :])[: len(content)], f"{some!r} over byte {at}"


def insert_bytes(content, rng):
    """In the header or after it, with a length that is right then, or anywhere."""
    some = rng.choice(
        [b"\0", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", rng.randbytes(rng.randint(1, 9))]
    )
    at = rng.randint(0, len(content))
    header, data = parted(content)
    if rng.random() < 0.5:
        at = rng.randint(0, len(header))
        return container(header[:at] + some + header[at:], data), f"{some!r} at byte {at} of the header"
    return content[:at] + some + content[at:], f"{some!r} at byte {at}"


def repeat_or_drop_bytes(content, rng):
    at = rng.randrange(len(content))
    end = min(len(content), at + rng.choice([1, 1, 8, 100]))
    times = rng.choice([0, 2])
    return content[:at] + content[at:end] * times + content[end:], f"bytes {at} to {end}, {times} times"


def splice_bytes(content, rng):
    other = rng.choice(corpus()).bytes()
    if rng.random() < 0.5:
        return container(parted(content)[0], parted(other)[1]), "data of another file"
    i, j = rng.randint(0, len(content)), rng.randint(0, len(other))
    return content[:i] + other[j:], f"{i} bytes, then another file from byte {j}"


BYTES = [edit_the_header, edit_the_header, pad_the_header, flip_bits, flip_bits, overwrite_bytes, insert_bytes]
BYTES += [repeat_or_drop_bytes, splice_bytes]


def truncate(content, rng):
    length = rng.choice([0, 1, 7, 8, 9, rng.randint(0, len(content)), len(content) - 1])
    return content[:length], f"cut to {length} bytes"


def lie_about_the_length(content, rng):
    true = int.from_bytes(content[:8].ljust(8, b"\0"), "little")
    lie = rng.choice(
        [0, 1, 2, true - 1, true + 1, true - 8, true + 8, len(content) - 8, len(content) - 7, len(content)]
    )
    lie = rng.choice([lie, 10**8, 10**8 + 1, 2**31, 2**32 + true, 2**62, 2**63, 2**64 - 8, 2**64 - 1]) % 2**64
    return struct.pack("<Q", lie) + content[8:], f"header length {lie} instead of {true}"


def repaired(content: bytes) -> bytes:
    """The same with the checksums that it has set right, as far as they can be found."""
    header, data = parted(content)
    try:
        told = json.loads(header)
        text = told["__metadata__"]["lnsnum"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return content
    new: dict[str, str] = {}
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
        for name, entry in json.loads(text)["tensors"].items():
            with contextlib.suppress(KeyError, TypeError, ValueError):
                begin, end = told[name]["data_offsets"]
                new[entry["crc32"]] = checksum(told[name]["dtype"], told[name]["shape"], data[begin:end])
    good = {old: right for old, right in new.items() if isinstance(old, str) and re.fullmatch("[0-9a-f]{8}", old)}

    def renewed(value: bytes) -> bytes:
        return re.sub(rb"[0-9a-f]{8}", lambda match: good.get(match[0].decode(), match[0].decode()).encode(), value)

    header = renewed(header)
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
        told = json.loads(header)["__metadata__"]
        if re.fullmatch("[0-9a-f]{8}", old := told["lnsnum_crc32"]):
            header = header.replace(f'"{old}"'.encode(), f'"{crc(told["lnsnum"].encode())}"'.encode())
    return content[:8] + header + data


def is_repaired(seed: int) -> bool:
    return seed % 2 == 1


def _mutate(file: File, rng: random.Random, repair: bool) -> tuple[bytes, list[str]]:
    steps = rng.choice([1, 1, 1, 1, 2, 2, 3])
    structural = sum(rng.random() < 0.75 for _ in range(steps))
    done: list[str] = []
    for _ in range(structural):
        for _ in range(20):  # some find nothing to change in some files
            if what := rng.choice(STRUCTURAL)(file, rng):
                done.append(what)
                break
    content = file.bytes()
    for _ in range(steps - structural):
        if content:
            content, what = rng.choice(BYTES)(content, rng)
            done.append(what)
    if repair:
        content = repaired(content)
    if rng.random() < 0.06:
        content, what = rng.choice([truncate, lie_about_the_length])(content, rng)
        done.append(what)
    return content, [*done, "checksums repaired"] if repair else done


def mutant_and_story(seed: int) -> tuple[bytes, str]:
    """The mutant of a seed, and what was done to which file of the corpus."""
    rng = random.Random(seed)
    which = rng.randrange(len(corpus()))
    content, done = _mutate(copy.deepcopy(corpus()[which]), rng, is_repaired(seed))
    return content, f"corpus file {which}: " + "; ".join(done)


def mutant(seed: int) -> bytes:
    """The mutant of a seed: a function of the seed alone."""
    return mutant_and_story(seed)[0]


# ---------------------------------------------------------------------------------------------------------------- sets

INDEX = "w.safetensors.index.json"
SHARDS = {
    f"w-{letter * 16}-{number:05}-of-00003.safetensors": number for number, letter in enumerate("0af", 1)
}  # as the writer calls them, so that saving over the set deletes them
FILES = [
    "../w",
    "..",
    ".",
    "",
    "/etc/passwd",
    "sub/x",
    "x\\y",
    "C:x",
    "x:y",
    "two\0",
    "\ud800",
    "two\nlines",
    "x" * 300,
]
FILES += [
    "w.safetensors",
    INDEX,
    "w.safetensors-",
    "sub",
    "/dev/zero",
    "/dev/stdin",
    "//x",
    "~",
    "$HOME",
    "file:///x",
    "e\u0301",
]


def sound_set() -> tuple[dict[str, Any], dict[str, File]]:
    tensors = [[MODEL[0]], [MODEL[1], plain("a", "F64", 2, 2)], [MODEL[2]]]
    shards = {name: build(*tensors[number - 1], metadata={"k": "v"}) for name, number in SHARDS.items()}
    return {
        "metadata": {"total_size": 152},
        "weight_map": {t: name for name in shards for t in shards[name].header},
    }, shards


def set_mutant(seed: int) -> tuple[dict[str, bytes], str]:
    """The files of a set with something wrong in one of them, by name, and what was done."""
    rng = random.Random(f"set {seed}")
    index, shards = sound_set()
    files = {name: file.bytes() for name, file in shards.items()}
    name = rng.choice(list(shards))
    weight_map, tensor = index["weight_map"], rng.choice(list(index["weight_map"]))
    text, how = "", rng.randrange(9)
    if how < 2:
        files[name], done = _mutate(shards[name], rng, is_repaired(seed))
        what = f"{name}: " + "; ".join(done)
    elif how == 2:
        weight_map[tensor] = rng.choice([*FILES, *SHARDS])
        what = f"the index puts {tensor!r} into {weight_map[tensor]!r}"
    elif how == 3:
        file = File(header={}, description=index)
        what = rng.choice([set_a_value, change_a_name])(file, rng) or "nothing"
        index = file.description
    elif how == 4:
        text, what = _edit_text(dumps(index), rng)
    elif how == 5:
        other = rng.choice(list(shards))
        files[name] = files[other]
        what = f"{name} is {other}"
    elif how == 6:
        del files[name]
        what = f"{name} is missing"
    elif how == 7:
        shards[name].description["metadata"] = rng.choice([{}, {"k": "w"}, {"k": 1}, None, {"k": "v", "l": ""}])
        files[name] = shards[name].bytes()
        what = f"{name} has metadata {shards[name].description['metadata']}"
    else:
        rng.choice([index, weight_map])[rng.choice(["colour", "", *FILES])] = odd_value(rng)
        what = "a field more in the index"
    encoded = (text or dumps(index)).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        encoded, more = rng.choice([flip_bits, overwrite_bytes, truncate])(encoded, rng)
        what += f"; index: {more}"
    return {**files, INDEX: encoded}, what


def write(seed: str | int, folder: Path) -> tuple[Path, str]:
    """Write the mutant of a seed, or of `set:SEED`, into an empty folder: the path to load, and what was done."""
    if not str(seed).startswith("set:"):
        content, what = mutant_and_story(int(seed))
        (folder / "w.safetensors").write_bytes(content)
        return folder / "w.safetensors", what
    files, what = set_mutant(int(str(seed)[4:]))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / INDEX, what


def main() -> None:
    """Say what a mutant is and what becomes of it, in this process and without any limit."""
    import mutant_worker

    seed, *target = sys.argv[1:]
    whole = set_mutant(int(seed[4:])) if seed.startswith("set:") else mutant_and_story(int(seed))
    print(whole[1])
    if target and not seed.startswith("set:"):
        Path(target[0]).write_bytes(whole[0])
    with tempfile.TemporaryDirectory() as folder:
        mutant_worker.warm(Path(folder))
        print(": ".join(filter(None, mutant_worker.verdict(seed, Path(folder)))))


if __name__ == "__main__":
    main()
