"""Mutations of what a file says of a tensor, and of its data: each field gets values that nearly are ones of its own.

Each changes a File in place and says in a few words what it did, or None where it finds nothing to change.
"""

from __future__ import annotations

import contextlib
import math
import random
import re

from .corpus import ODD_NAMES
from .files import SIZES, File, checksum, crc, dumps
from .values import ARABIC_ONE, INTEGERS, brief, odd_value

HUGE_SHAPES = [
    [2**40], [2**20, 2**20], [10**6, 10**6, 1000], [2**32, 2**32], [2**63, 2], [2**61], [2**64 - 1], [2**64],
    [0, 2**60], [2**60, 0], [2**62, 2**62, 0], [0, 2**63], [0, 2**64 - 1], [-1], [-2, -3], [0, -1], [2**31, 2**31],
]  # fmt: skip
UNKNOWN = [
    "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "C64", "X8", "u8", "U8 ", "", "U128", "U4", "U8\0",
]  # fmt: skip
FORMATS = [
    "lns8", "LNS8f5", "lns08f5", "lns8f05", " lns8f5", "lns8f5 ", "lns8f5\n", "lns8f-1", "lns8f7", "lns8f6", "lns2f0",
    "lns33f3", "lns3f1", "lns99999999999f1", "lns8f99999999999", "lns" + "9" * 10_000 + "f1", "lns\u0668f5", "lns8f5b",
    "int8", "lns16f10", "lns12f6", "lns32f0", "lns17f0", "lns9f0", "lns6f2", "lns5f2", "lns4f0", "lns7f1",
]  # fmt: skip
BASES = [
    "0x1p+1", "0x1.0000000000000p+1", "0x1.8p+0", "0x1.8p0", "0x3p-1", "0x.cp+1", "0xcp-3",
    "0x1.8p+0000000000000000000", "0x1p+0", "0x1.0000000000000p+0", "0x0p+0", "0x1p-1080", "0x1p-1", "0x1p+1024",
    "0x1.fffffffffffff8p+1023", "0x2p+1023", "0x1.fffffffffffffp+1023", "0x1.00000000000001p+0",
    "0x1.80000000000000000000000000000001p+0", "0x1.00000000000000p+1", "0x1..8p+0", "0x.p+1", "0x1.p+1", "0x1.8p",
    "0x1.8", "0x1.8p+", "0x1.8p+-1", "0X1.8P+0", "0x1.8P+0", "0x1.AP+0", "2.0", "inf", "nan", "0xinf",
    "0x1p+99999999999999999999", "0x1p-99999999999999999999", "0x1.8p+0\n", "0x1.8p+\u0660", "-0x1.8p+0",
    "0x" + "0" * 5000 + "1.8p+0", "0x1." + "8" + "0" * 5000 + "p+0", "0x1" + "0" * 300 + "p-1199",
    "0x1.8p+" + "0" * 5000,
]  # fmt: skip


def a_tensor(file: File, rng: random.Random, entry_with: str = "") -> tuple[str, dict, dict]:
    """A tensor that still is what it was: its name, its place in the header, its entry."""
    entries = file.description.get("tensors") if isinstance(file.description, dict) else None
    entries = entries if isinstance(entries, dict) else {}
    found = []
    for name, told in file.header.items() if isinstance(file.header, dict) else ():
        entry = entries.get(name, entries.get(name.removesuffix(".lnsnum_codes"), {}))
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


def name_a_tensor(file, rng):
    """A name changed in both places: most of these are sound."""
    name, told, entry = a_tensor(file, rng)
    others = ["\ud800", "__metadata__", "é", "e\u0301", "../../etc/passwd", "\ufeff", "\u2028", "n" * 70_000]
    new = rng.choice([*ODD_NAMES, *others])
    if not told or new in file.header:
        return None
    name = name.removesuffix(".lnsnum_codes")
    stored = {name + suffix: new + suffix for suffix in ("", ".lnsnum_codes", ".lnsnum_offsets")}
    file.header = {stored.get(key, key): value for key, value in file.header.items()}
    if entry:
        entries = file.description["tensors"]
        file.description["tensors"] = {new if key == name else key: value for key, value in entries.items()}
    return f"{name!r} is called {brief(new)}"


def change_a_shape(file, rng):
    name, told, entry = a_tensor(file, rng, rng.choice(["", "", "packed_shape"]))
    if not told:
        return None
    field_, holder = ("packed_shape", entry) if "packed_shape" in entry and rng.random() < 0.7 else ("shape", told)
    old = holder[field_]
    if not isinstance(old, list) or not all(type(size) is int for size in old):
        return None
    choices = [[*old, 1], [1, *old], old[::-1], [math.prod(old)], [*old, 0], [*old, 2], old[1:]]
    choices += [[size + 1 for size in old], old + [1] * rng.randint(27, 70), [0] * rng.randint(1, 70)]
    choices += [[float(size) for size in old], [*old, True]]
    holder[field_] = rng.choice([rng.choice(HUGE_SHAPES), *rng.sample(choices, 3)])
    return f"{field_} of {name!r} was {brief(old)}, now {brief(holder[field_])}"


def empty_a_tensor(file, rng):
    """A tensor without data, of sizes that nothing else may be made of."""
    shape = rng.choice([*(shape for shape in HUGE_SHAPES if 0 in shape), [0] * rng.randint(1, 70), [2**31, 0, 2**31]])
    kinds = [("", rng.choice(list(SIZES))), ("lns8f5", "U8"), ("lns32f2", "U32"), ("lns6f2", "U8"), ("lns20f2", "U8")]
    fmt, dtype = rng.choice(kinds)
    if not isinstance(file.header, dict) or not isinstance(file.description, dict):
        return None
    packed = fmt in ("lns6f2", "lns20f2")
    stored = [0] if packed else shape
    entry = {"crc32": checksum(dtype, stored, b"")} | ({"format": fmt, "log_offset": 0} if fmt else {})
    if packed:
        entry["packed_shape"] = shape
    with contextlib.suppress(TypeError, KeyError):
        file.description["tensors"]["empty"] = entry
        is_codes = file.description.get("layout") == 3 and fmt
        file.header["empty.lnsnum_codes" if is_codes else "empty"] = {
            "dtype": dtype,
            "shape": stored,
            "data_offsets": [0, 0],
        }
        return f"an empty tensor of shape {shape}, {dtype} {fmt}"


def change_a_dtype(file, rng):
    name, told, _ = a_tensor(file, rng)
    old = told.get("dtype")
    if not isinstance(old, str) or old not in SIZES:
        return None
    same_size = [dtype for dtype in SIZES if SIZES[dtype] == SIZES[old]]
    told["dtype"] = rng.choice([rng.choice(UNKNOWN), rng.choice(same_size), rng.choice(list(SIZES))])
    return f"{name!r} was of {old}, now {told['dtype']}"


def change_a_format(file, rng):
    name, _, entry = a_tensor(file, rng, rng.choice(["format", "format", ""]))
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
    name, told, entry = a_tensor(file, rng, "format")
    if not entry:
        return None
    shape = entry.get("packed_shape", told["shape"])
    sizes = [size for size in shape if type(size) is int and 0 <= size < 100] if isinstance(shape, list) else []
    axis = rng.randrange(len(sizes)) if sizes else 0
    channels = [size if d == axis or rng.random() < 0.1 else 1 for d, size in enumerate(sizes)]
    channels = channels[rng.choice([0, 0, axis]) :]
    if rng.random() < 0.2:
        others = [[], [1], [*channels, 1], [1, *channels], [0], [2], sizes, [1] * 40, [2**62, 2**62], [0, 2**62]]
        channels = rng.choice(others)
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
    layout = file.description.get("layout") if isinstance(file.description, dict) else None
    if layout == 3 and rng.random() < 0.5:
        offset = rng.choice([*INTEGERS, True, 0.0, None, "fit", [], {}, {"crc32": "00000000"}])
    entry["log_offset"] = offset
    return f"log_offset of {name!r} is {brief(offset)}"


def change_stored_offsets(file, rng):
    """What layout 3 says of log_offsets that are stored: their groups, their checksum, their type, their values."""
    name, _, entry = a_tensor(file, rng, "format")
    offset = entry.get("log_offset")
    if not isinstance(offset, dict):
        return None
    stored = file.header.get(name.removesuffix(".lnsnum_codes") + ".lnsnum_offsets")
    if not isinstance(stored, dict):
        return None
    how = rng.randrange(6)
    if how == 0:
        offset["group_size"] = rng.choice([15, 16, 17, 32, 255, 256, 257, 0, -16, 16.0, "16", True, None, 2**64])
    elif how == 1:
        offset["axis"] = rng.choice([-1, -2, -3, 0, 1, -64, -65, -(2**31), -(2**64), -1.0, "-1", True, None])
    elif how == 2 and offset:
        del offset[rng.choice(list(offset))]
    elif how == 3:
        stored["dtype"] = rng.choice(["U32", "F32", "I64", "I16", "X8", "i32"])
    elif how == 4:
        begin, end = _span(stored)
        if 0 <= begin < end <= len(file.data):
            at = rng.randrange(begin, end)
            file.data[at] = rng.choice([0, 0x40, 0x41, 0x80, 0xC0, 0xBF, 0xFF])
            return f"byte {at - begin} of the log_offset of {name!r} is {file.data[at]:#x}"
    elif isinstance(sizes := stored.get("shape"), list) and all(type(size) is int for size in sizes):
        stored["shape"] = rng.choice([[*sizes, 1], [1, *sizes], sizes[::-1], sizes[1:], [math.prod(sizes)]])
    return f"log_offset of {name!r} is {brief(offset)}, stored as {brief(stored)}"


def change_packing(file, rng):
    name, told, entry = a_tensor(file, rng, rng.choice(["packed_shape", "format", ""]))
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
    shapes = [sizes, [*sizes, 1], [1, *sizes], [-1], [2**63], [2**63 - 1], [2**61], [0, 2**62]]
    shapes += [[2**32, 2**32], [2**62, 4], [], [1] * rng.randint(30, 70), None, 3, "3", [[3]], [3.0], [True], {"0": 3}]
    entry["packed_shape"] = rng.choice(shapes)
    return f"packed_shape of {name!r} was {brief(old)}, now {brief(entry['packed_shape'])}"


def change_a_checksum(file, rng):
    name, _, entry = a_tensor(file, rng, "crc32")
    other, key = (entry, "crc32") if entry and rng.random() < 0.7 else (file.metadata, "lnsnum_crc32")
    if not isinstance(other, dict):
        return None
    old = other.get(key) or crc(dumps(file.description).encode())
    if isinstance(old, str):
        digits = re.fullmatch("[0-9a-f]{8}", old)
        choices = [old.upper(), old[1:], old + "0", "0" + old, " " + old, old + "\n", "0x" + old, "g" * 8, "", "0" * 8]
        choices += [old[:-1] + ARABIC_ONE, int(old, 16) if digits else 0, crc(b"x")]
        new = rng.choice(choices)
        other[key] = new
        if rng.random() < 0.2:
            del other[key]
        return f"{key} of {name!r} was {brief(old)}, now {brief(other.get(key, 'missing'))}"
    return None


def change_offsets(file, rng):
    name, told, _ = a_tensor(file, rng)
    begin, end = _span(told)
    _, other, _ = a_tensor(file, rng)
    if told:
        spans = [[begin + 1, end + 1], [begin - 1, end], [begin, end + 1], [begin, end - 1], [end, begin], [end, end]]
        spans += [[begin], [], [begin, end, end], [*_span(other)], [0, len(file.data)], [begin, 2**63]]
        spans += [[2**64 - 8, 2**64], [0, 2**64 - 1], [begin - 2**64, end], [float(begin), end], [str(begin), end]]
        spans += [{"0": begin, "1": end}]
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
    if how == 2 and isinstance(file.header, dict) and (name := a_tensor(file, rng)[0]) in file.header:
        del file.header[name]
        return f"{name!r} gone from the header"
    if file.data:
        file.data[at : at + len(some)] = some[: max(0, len(file.data) - at)]
        return f"{len(some)} bytes of data changed at {at}"
    return None


def spoil_codes(file, rng):
    """Bits that no code, no bool and no packed tensor has."""
    name, told, entry = a_tensor(file, rng, rng.choice(["packed_shape", "format", ""]))
    begin, end = _span(told)
    if not 0 <= begin < end <= len(file.data):
        return None
    at = rng.choice([end - 1, end - 1, rng.randrange(begin, end)])
    file.data[at] |= rng.choice([0x80, 0x40, 0xFF, 2])
    return f"byte {at - begin} of {name!r} ({told.get('dtype')} {entry.get('format', '')}) is {file.data[at]:#x}"


def exchange_tensors(file, rng):
    """The data of two tensors exchanged, the checksums not: only these can tell."""
    (a, told, _), (b, other, _) = a_tensor(file, rng), a_tensor(file, rng)
    if told and other and a != b:
        told["data_offsets"], other["data_offsets"] = other.get("data_offsets"), told.get("data_offsets")
        return f"{a!r} and {b!r} have exchanged their data"
    return None
