"""Values and texts that a reader of JSON may stumble over."""

from __future__ import annotations

import random
import re
from typing import Any

from .files import Raw, dumps

ARABIC_ONE = "\u0661"  # isdigit, and int takes it
INTEGERS = [
    0, 1, -1, 2, 3, 7, 8, 255, 256, 2**30, 2**30 + 1, -(2**30), -(2**30) - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1,
    2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**63), -(2**63) - 1, 10**30, 2**1100,
]  # fmt: skip
NUMBERS = [
    "-0", "2.0", "1e2", "1E0", "1e999", "-1e999", "1e-999", "0.1", "NaN", "-Infinity", "Infinity", "01", "+1", ".5",
    "5.", "1_0", "0x10", ARABIC_ONE, "9" * 100_000, "0." + "1" * 100_000, "1e" + "9" * 100_000,
]  # fmt: skip
TEXTS = ["", "0", "2", "lns8f5", "00000000", "e", ARABIC_ONE, "x" * 100_000, "two\nlines", "\x1b[31m", "a\0b"]
STRINGS = [
    r'"\ud800"', r'"\udc00\ud800"', r'"\u0000"', '"\x01"', r'"\x"', r'"\u12"', '"\n"', "'a'", '"', r'"\ud83d\ude00"',
]  # fmt: skip
LITERALS = [
    "True", "None", "nul", "undefined", "", "/**/1", "1//", "{,}", "[,]", "[1,]", '{"a":1,}', '{"a" 1}', "{1:2}",
]  # fmt: skip
DEPTHS = [2, 30, 32, 33, 126, 127, 128, 990, 2000, 100_000]
JUNK = [
    "\ufeff", " ", "\n", "\t\r\n", "\v", "\u00a0", "\0", ",", "}", "]", "{}", " x", "//", "/* */", "#", '"', "'", "\\",
    "\ud800", "-", "1", ".0", "e1", "null", ":", "[" * 100_000, " " * 100_000, "\u2028", "\x7f", "\x1f",
]  # fmt: skip


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
    others = [None, True, False, [], {}, [0], [[0]], [1, 2, 3], [None], {"a": 1}, {"shape": [], "values": [0]}]
    return rng.choice(others)


def edit_text(text: str, rng: random.Random) -> tuple[str, str]:
    """The text with one small change, and what that is."""
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


def brief(value: Any) -> str:
    text = value if isinstance(value, Raw) else repr(value) if not isinstance(value, dict) else dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
