"""The tables of an accumulator as C, for lnsnum_sums.h.

static const lnsnum_adder NAME  =  sb(z), -db(z) and -half(z) of a format, as uint16
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.toolbox.export_targets.fixed_text import hexadecimal, lines
from lnsnum.toolbox.export_targets.hardware_tables import sum_tables, why_no_sums

LNSNUM_SUMS_H = Path(__file__).resolve().parents[2] / "c" / "lnsnum_sums.h"
"""Sums of products of codes in C, which come with this package."""


def why_no_adder(fmt: LNSFormat) -> str | None:
    """Why lnsnum_sums.h cannot add in a format, in one sentence; None where it can.

    >>> why_no_adder(LNSFormat(16, 13))
    'lns16f13 has steps beyond 65,535: take one of at most 12 fraction bits'
    """
    if fmt.base != 2.0:
        return f"{fmt.name} is not of base 2, which lnsnum_sums.h adds in"
    if reason := why_no_sums(fmt):
        return reason
    tables = sum_tables(fmt)
    if max(int(-tables.db.min()), int(-tables.half.min())) > 0xFFFF:
        return f"{fmt.name} has steps beyond 65,535: take one of at most 12 fraction bits"
    return None


def adder_source(fmt: LNSFormat, name: str) -> str:
    """The C text that defines `static const lnsnum_adder NAME`.

    Raises:
        ValueError: where `why_no_adder`.

    >>> print(adder_source(LNSFormat(4, 0), "small"))
    static const uint16_t small_sb[] = {
    0x0001,0x0001,0x0000,0x0000,
    };
    static const uint16_t small_minus_db[] = {
    0x0000,0x0001,0x0000,0x0000,
    };
    static const uint16_t small_minus_half[] = {
    0x0000,
    };
    static const lnsnum_adder small = {{4, 0}, 4, 4, 1, small_sb, small_minus_db, small_minus_half};
    """
    if reason := why_no_adder(fmt):
        raise ValueError(reason)
    tables = sum_tables(fmt)
    db = -tables.db
    db[0] = 0  # which is not used
    parts = {"sb": tables.sb, "minus_db": db, "minus_half": -tables.half}
    text = "".join("".join(_array(f"{name}_{kind}", steps)) for kind, steps in parts.items())
    sizes = ", ".join(str(steps.size) for steps in parts.values())
    arrays = ", ".join(f"{name}_{kind}" for kind in parts)
    return f"{text}static const lnsnum_adder {name} = {{{{{fmt.bits}, {fmt.fraction_bits}}}, {sizes}, {arrays}}};\n"


def _array(name: str, steps: NDArray[np.int64]) -> Iterator[str]:
    yield f"static const uint16_t {name}[] = {{\n"
    for line in lines(hexadecimal(steps.astype(np.uint16), 16, before="0x", after=","), 16):
        yield line.decode("ascii")
    yield "};\n"
