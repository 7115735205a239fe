"""Mutations of the bytes of a file, and its checksums set right again.

Each takes the bytes of a file and gives others, and says what it did.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct

from .corpus import corpus
from .files import checksum, container, crc, parted
from .values import brief, edit_text


def edit_the_header(content, rng):
    header, data = parted(content)
    text, what = edit_text(header.decode("utf-8", "surrogateescape"), rng)
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
    at = rng.randrange(len(content))
    some = rng.choice([b"\0", b"\xff", b"\xed\xa0\x80", rng.randbytes(rng.randint(1, 9))])
    return (content[:at] + some + content[at + len(some) :])[: len(content)], f"{some!r} over byte {at}"


def insert_bytes(content, rng):
    """In the header or after it, with a length that is right then, or anywhere."""
    no_utf8 = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
    some = rng.choice([b"\0", *no_utf8, rng.randbytes(rng.randint(1, 9))])
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


def truncate(content, rng):
    length = rng.choice([0, 1, 7, 8, 9, rng.randint(0, len(content)), len(content) - 1])
    return content[:length], f"cut to {length} bytes"


def lie_about_the_length(content, rng):
    true = int.from_bytes(content[:8].ljust(8, b"\0"), "little")
    size = len(content)
    lie = rng.choice([0, 1, 2, true - 1, true + 1, true - 8, true + 8, size - 8, size - 7, size])
    lie = rng.choice([lie, 10**8, 10**8 + 1, 2**31, 2**32 + true, 2**62, 2**63, 2**64 - 8, 2**64 - 1]) % 2**64
    return struct.pack("<Q", lie) + content[8:], f"header length {lie} instead of {true}"


BYTES = [edit_the_header, edit_the_header, pad_the_header, flip_bits, flip_bits, overwrite_bytes, insert_bytes]
BYTES += [repeat_or_drop_bytes, splice_bytes]


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
        about = json.loads(text)
        entries = [
            (name + suffix, entry) for name, entry in about["tensors"].items() for suffix in ("", ".lnsnum_codes")
        ]
        for name, entry in about["tensors"].items():
            with contextlib.suppress(KeyError, TypeError):
                entries.append((f"{name}.lnsnum_offsets", entry["log_offset"]))
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            moments = about["optimizer"]["tensors"]
            entries += [(f"{name}.lnsnum_optimizer", entry) for name, entry in moments.items()]
        for name, entry in entries:
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
