"""Arrays of numbers as text, all words of an array equally wide: columns of characters, looked up many at a time.

    0x1f,    0x0000001fu,    -128,    -0x1.5bf0a8p+1f,          an array of n numbers -> n rows of uint8

Equal widths make a matrix of the text, and each of its parts is one NumPy operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Text = NDArray[np.uint8]
"""One row for each number, ASCII."""

PART = 1 << 17
"""Numbers that are made text at once: their columns stay in the caches."""

_SPACE = ord(" ")


def rows(texts: list[str]) -> Text:
    """Strings of ASCII, spaces after the shorter ones."""
    width = max(map(len, texts))
    return np.frombuffer("".join(text.ljust(width) for text in texts).encode("ascii"), np.uint8).reshape(-1, width)


@lru_cache(maxsize=16)
def _small_table(bits: int, before: str, digits: int, after: str) -> Text:
    """The text of every number of so many bits."""
    return rows([f"{before}{i:0{digits}x}{after}" for i in range(1 << bits)])


def hexadecimal(words: NDArray[Any], bits: int, *, before: str = "", after: str = "") -> Text:
    """Unsigned integers below 2^bits: `before`, as many digits as the bits need, `after`."""
    digits = -(-bits // 4)
    if bits <= 16:
        return _small_table(bits, before, digits, after).take(words, axis=0)
    out = np.empty((words.size, len(before) + digits + len(after)), np.uint8)
    end = len(before) + digits
    out[:, : len(before)] = np.frombuffer(before.encode(), np.uint8)
    out[:, end:] = np.frombuffer(after.encode(), np.uint8)
    for low in range(0, bits, 16):
        part = ((words >> words.dtype.type(low)) & words.dtype.type(0xFFFF)).astype(np.uint16)
        some = min(digits - low // 4, 4)
        right = end - low // 4
        out[:, right - some : right] = _small_table(16, "", 4, "").take(part, axis=0)[:, 4 - some :]
    return out


@lru_cache(maxsize=2)
def _ends(exponent_bits: int, suffix: str) -> tuple[Text, Text]:
    """What stands before and after the digits of a float's mantissa, for every sign and exponent."""
    count, bias = 1 << exponent_bits, (1 << (exponent_bits - 1)) - 1
    heads = [f"{sign}0x{int(e > 0)}." for sign in " -" for e in range(count)]
    tails = [f"p{max(e, 1) - bias:+d}{suffix}" for e in range(count)]
    return rows(heads), rows([*tails, *tails])


def c_floats(values: NDArray[Any]) -> Text:
    """float32 and float64 as hexadecimal floats of C99, exactly; INFINITY, -INFINITY and NAN, whatever its bits."""
    single = values.dtype.itemsize == 4
    patterns: NDArray[Any] = values.view(np.uint32 if single else np.uint64)
    mantissa_bits, exponent_bits, suffix = (23, 8, "f,") if single else (52, 11, ",")
    head, tail = _ends(exponent_bits, suffix)
    of = patterns.dtype.type
    top = np.right_shift(patterns, of(mantissa_bits)).astype(np.int64)
    mantissa = np.bitwise_and(patterns, of((1 << mantissa_bits) - 1))
    digits = hexadecimal(np.left_shift(mantissa, of(single)), 24 if single else 52)
    out = np.concatenate([head.take(top, axis=0), digits, tail.take(top, axis=0)], axis=1)
    for text, which in (
        (" INFINITY,", values == np.inf),
        ("-INFINITY,", values == -np.inf),
        (" NAN,", values != values),
    ):
        if which.any():
            out[which] = rows([text.ljust(out.shape[1])])
    return out


def c_integers(values: NDArray[Any]) -> Text:
    """Integers and truth values as constants of C99."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return rows(["0,", "1,"]).take(values.view(np.uint8), axis=0)
    if kind == "u":
        return hexadecimal(values, 8 * size, before="0x", after="u," if size >= 4 else ",")
    if size <= 2:
        return _signed_table(8 * size).take(values.view(f"u{size}"), axis=0)
    least = values == np.iinfo(np.int64).min  # C has no such constant: the minus comes after the number
    out = np.full((values.size, 24), _SPACE, np.uint8)
    text = np.where(least, np.int64(0), values).astype("S22").view(np.uint8).reshape(-1, 22)
    np.copyto(out[:, :22], text, where=text != 0)
    out[least, :22] = rows(["-9223372036854775807-1"])
    out[:, 22] = ord(",")
    return out if size == 8 else np.ascontiguousarray(out[:, np.r_[:11, 22]])


@lru_cache(maxsize=2)
def _signed_table(bits: int) -> Text:
    """The text of every signed number of so many bits, by its pattern."""
    half = 1 << (bits - 1)
    width = len(str(-half))
    return rows([f"{(i + half) % (2 * half) - half:{width}d}," for i in range(2 * half)])


def lines(text: Text, per_line: int) -> Iterator[bytes]:
    """The rows as lines, so many to a line."""
    whole = text.shape[0] // per_line * per_line
    if whole:
        wide = text[:whole].reshape(whole // per_line, -1)
        yield np.concatenate([wide, np.full((wide.shape[0], 1), ord("\n"), np.uint8)], axis=1).tobytes()
    if whole < text.shape[0]:
        yield text[whole:].tobytes() + b"\n"


def parts(block: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """A block in parts that are made text one at a time."""
    for begin in range(0, block.size, PART):
        yield block[begin : begin + PART]
