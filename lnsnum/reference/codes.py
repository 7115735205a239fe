"""What a code means, and which codes an operation takes: "The number" in docs/number_format.md.

    x  =  (-1)^s * base^(E / 2^F),      E = m - bias + log_offset

As a number to compare, base^(E / 2^F) is a radical (`grid`); as one to calculate with, it is a single term (`term`).
"""

from __future__ import annotations

from fractions import Fraction

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_choice, check_log_offset
from lnsnum.reference.radicals import Radical, radical, times
from lnsnum.reference.sums import Terms


def check(
    fmt: LNSFormat, codes: tuple[int, ...], offsets: tuple[int, ...], random_bits: int = 0, **choices: str
) -> None:
    """Refuse what is no code of fmt, no offset, no random bits or no mode."""
    for what, given in choices.items():
        check_choice(what, given, {"rounding": Rounding, "overflow": Overflow, "underflow": Underflow}[what])
    for offset in offsets:
        check_log_offset(offset)
    for code in codes:
        if not 0 <= code < 1 << fmt.bits:
            raise ValueError(f"code={code} is none of {fmt}: 0 to {(1 << fmt.bits) - 1}")
    if not 0 <= random_bits < 1 << 32:
        raise ValueError(f"random_bits={random_bits} is out of range: 0 to 2^32 - 1")


def log_of(code: int, fmt: LNSFormat, log_offset: int) -> int:
    """E = m - bias + log_offset."""
    return (code & fmt.max_magnitude) - fmt.bias + log_offset


def place(log: int, negative: bool, fmt: LNSFormat, log_offset: int, overflow: str) -> int:
    """The code of E, which is not below the smallest."""
    m = log + fmt.bias - log_offset
    if m > fmt.max_magnitude:
        if overflow == "nan":
            return fmt.nan_code
        m = fmt.max_magnitude
    return m | (fmt.sign_bit if negative else 0)


def grid(fmt: LNSFormat, log: Fraction | int) -> Radical:
    """base^(log / 2^F)."""
    return times({}, radical(Fraction(fmt.base)), Fraction(log) / (1 << fmt.fraction_bits))


def term(fmt: LNSFormat, log: Fraction | int, weight: Fraction | int = 1) -> Terms:
    """weight * base^(log / 2^F)."""
    return {Fraction(log, 1 << fmt.fraction_bits): Fraction(weight)} if weight else {}


def number_of(code: int, fmt: LNSFormat, log_offset: int) -> Terms | None:
    """The value of a code: one term, none for zero; None for NaN."""
    if code in (0, fmt.nan_code):
        return None if code else {}
    return term(fmt, log_of(code, fmt, log_offset), -1 if code > fmt.sign_bit else 1)


def read_operands(
    *operands: tuple[int, LNSFormat | None, int], out_format: LNSFormat | None
) -> tuple[LNSFormat, list[Terms | None]]:
    """The result's format and the values of (code, format, log_offset); a format None is that of the first operand."""
    first = operands[0][1]
    assert first is not None
    numbers, formats = [], []
    for code, given, log_offset in operands:
        fmt = given or first
        check(fmt, (code,), (log_offset,))
        formats.append(fmt)
        numbers.append(number_of(code, fmt, log_offset))
    if out_format is None and len(set(formats)) > 1:
        raise TypeError(f"the operands are {', '.join(map(str, formats))}: give out_format")
    out = out_format or first
    if len({fmt.base for fmt in [*formats, out]}) > 1:
        raise TypeError(f"the bases differ: {', '.join(map(str, [*formats, out]))}")
    return out, numbers
