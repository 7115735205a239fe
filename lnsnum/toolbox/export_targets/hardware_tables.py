"""What hardware keeps in memories: the tables of a format from which it adds, decodes and encodes, exactly.

    a + b:     m_hi + sb(z),  m_hi + db(z),  z = m_hi - m_lo,        rounded to nearest, ties to the even E

Three tables make `lnsnum.arithmetic.add` at one scale, code for code (docs/toolbox.md says how): sb, db, and for what
lies below the smallest number

    half(z)  =  floor(2^F log_base(2 (1 - base^(-z / 2^F)))),      z < K = 2^F log_base 2,

for the difference is at least half of the smallest number exactly if m_hi + half(z) >= 1. From K on, half is not
negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lnsnum.encoding import encode
from lnsnum.format import LNSFormat
from lnsnum.gaussian import TIE, Exact, exact_steps, gaussian_position, has_tables, tables
from lnsnum.kernels.codes import WIDEST_TABLE
from lnsnum.kernels.decide import Sum, Term, decide
from lnsnum.kernels.rounding import steps_in_two, target, unbounded
from lnsnum.kernels.thresholds import ONE, threshold

Steps = NDArray[np.int64]

_INFINITY_IN_FLOAT32 = 0x7F80_0000


@dataclass(frozen=True)
class SumTables:
    """The memories of an adder, in code steps.

    Args:
        sb, db: what a sum, a difference adds to the greater logarithm, for z = 0, 1, ...; db[0] is not used. At a tie
            it is the lower of the two steps.
        sb_tie, db_tie: where the exact step lies half-way between that one and the next; there hi + step is rounded to
            the even E. Empty where there is none.
        half: for z = 0, 1, ... below K; half[0] is not used.
        complete: whether sb and db are 0 beyond their ends; else z gets there only where scales differ.
        word_bits: width of a two's complement word that holds every entry.
    """

    sb: Steps
    db: Steps
    sb_tie: NDArray[np.bool_]
    db_tie: NDArray[np.bool_]
    half: Steps
    complete: bool
    word_bits: int


@dataclass(frozen=True)
class EncodeTable:
    """Thresholds by which float32 become codes, to nearest.

    Args:
        thresholds: at base 2, 2^F mantissas of 23 bits: the fraction of the logarithm is how many are at most a float's
            mantissa (2^F carries into the next octave). At other bases, for m = 1, 2, ... the least bit pattern of
            a float32 whose magnitude is at least m, at log_offset 0; m is how many are at most |x|, infinity too.
        word_bits: 23 or 31.
        smallest_half: the bit pattern of the least float32 that does not become zero, at log_offset 0.
    """

    thresholds: NDArray[np.uint32]
    word_bits: int
    smallest_half: int


def why_no_sums(fmt: LNSFormat) -> str | None:
    """Why there are no `sum_tables` of a format, in one sentence; None where there are."""
    if fmt.bits > WIDEST_TABLE:
        return f"{fmt.name} has more than {WIDEST_TABLE} bits: its tables would be too long for a memory"
    if not has_tables(fmt):
        return f"{fmt.name} has a base so near to 1 that the tables of its sums would have steps beyond 2^30"
    return None


@lru_cache(maxsize=4)
def sum_tables(fmt: LNSFormat) -> SumTables:
    """The memories of an adder of a format for which `why_no_sums` is None."""
    table = tables(Exact(), fmt)
    lower, ties = [], []
    for subtracted, part in ((False, table.sb), (True, table.db)):
        steps, where = part.astype(np.int64), np.flatnonzero(part == TIE)
        steps[where] = np.minimum(*(exact_steps(where, fmt, subtracted, parity=parity) for parity in (0, 1)))
        lower.append(steps)
        ties.append(part == TIE if where.size else np.zeros(0, np.bool_))
    half = _half(fmt, table.sb.size)
    extremes = [int(extreme) for part in (*lower, half) for extreme in (part.min(), part.max())]
    word_bits = max((extreme if extreme >= 0 else ~extreme).bit_length() + 1 for extreme in extremes)
    return SumTables(lower[0], lower[1], ties[0], ties[1], half, table.complete, word_bits)


def _half(fmt: LNSFormat, most: int) -> Steps:
    """floor(2^F log_base(2 (1 - base^(-z / 2^F)))) for z below K and `most`; 0 for z = 0."""
    octave, octave_error = steps_in_two(fmt)
    to, steps = unbounded(target(fmt, 0, rounding="toward_zero")), 1 << fmt.fraction_bits
    out = np.zeros(max(min(math.ceil(octave), most), 1), np.int64)
    for z in range(1, out.size):
        position, error = gaussian_position(z, True, octave, octave_error)
        position, error = octave + position, error + octave_error + 2.0**-50 * octave
        if math.floor(position - error) == math.floor(position + error):
            out[z] = math.floor(position)
        else:
            value = Sum((Term(2, 0, Fraction(0)), Term(-2, 0, Fraction(-z, steps))))
            out[z] = decide(value, fmt, to, False, 0, position) + to.lowest - 1
    return out


@lru_cache(maxsize=4)
def encode_table(fmt: LNSFormat) -> EncodeTable:
    """The thresholds of a format of at most 16 bits."""
    assert fmt.bits <= WIDEST_TABLE
    if fmt.base != 2.0:
        patterns = _least_patterns(fmt, np.arange(1, fmt.max_magnitude + 1))
        return EncodeTable(patterns, 31, int(patterns[0]))
    steps = 1 << fmt.fraction_bits
    exact = np.array([threshold(fmt.fraction_bits, "nearest", log) - ONE for log in range(1, steps + 1)], np.int64)
    mantissas = -(-exact >> 29)  # the least float32 from there on
    return EncodeTable(mantissas.astype(np.uint32), 23, int(_least_patterns(fmt, np.array([1]))[0]))


def _least_patterns(fmt: LNSFormat, magnitudes: Steps) -> NDArray[np.uint32]:
    """The least bit pattern of a float32 that `encode` gives at least each magnitude, by bisection: inf has all."""
    low, high = np.zeros(magnitudes.size, np.uint32), np.full(magnitudes.size, _INFINITY_IN_FLOAT32, np.uint32)
    for _ in range(_INFINITY_IN_FLOAT32.bit_length()):
        middle = (low + high) >> np.uint32(1)  # their sum stays below 2^32
        reached = encode(middle.view(np.float32), fmt).astype(np.int64) >= magnitudes
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high
