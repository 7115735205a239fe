"""Which pairs of codes a format is tried with: all of them, or those on which arithmetic breaks.

    8 bits or fewer     every pair
    9 to 16 bits        every code with 0, 1, NaN, itself; every gap between two logarithms, where the sum overflows
                        or underflows too; for each a, the b whose product and quotient do
    more                the same for chosen codes and gaps, those near the ends, near 0, near powers of two

and in either case the codes next to both ends and to 1 with all `landmarks`, in all four combinations of signs, and
pairs drawn from a seed. Nothing else is random: a verdict does not change from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.testing.spans import Ints, spans

WIDEST_EXHAUSTIVE = 8
"""Formats up to this many bits are tried with every pair of codes."""

WIDEST_WITH_EVERY_GAP = 16
"""Formats up to this many bits are tried with every code, and every gap between the logarithms of the operands."""

NEAR_AN_END = 12
"""How many codes next to either end, and on either side of 1, are landmarks."""

CHUNK = 1 << 16
"""How many pairs are tried at once: as many as stay in the caches."""

_FIRST_GAPS = 1 << 9
"""Of a wide format, all gaps below this are tried: there db is steep."""

_DRAWN_LOGS = 1 << 12
"""Of a wide format, how many logarithms are drawn whose products are put at an edge of the range."""

_NO_SPARE = Fraction(0)

_Pairs = tuple[Ints, Ints]


def all_pairs(fmt: LNSFormat) -> _Pairs:
    """Every pair of codes."""
    codes = np.arange(1 << fmt.bits, dtype=np.int64)
    a, b = np.meshgrid(codes, codes, indexing="ij")
    return a.reshape(-1), b.reshape(-1)


def sizes(most: int) -> Ints:
    """0 to `NEAR_AN_END`, powers of two up to `most`, their neighbours, and one and a half times as much."""
    powers = 1 << np.arange(most.bit_length(), dtype=np.int64)
    near = np.concatenate([np.arange(NEAR_AN_END + 1), powers - 1, powers, powers + 1, powers + powers // 2])
    return np.unique(near[near <= most])


def landmarks(fmt: LNSFormat) -> Ints:
    """Logarithms E at and next to both ends, and on either side of 1."""
    away = sizes(fmt.max_log)
    few = away[away <= NEAR_AN_END]
    octave = _octave(fmt)
    near_octave = np.array([octave - 1, octave, octave + 1])
    ends = np.concatenate([sizes(2 * fmt.max_log), near_octave])
    logs = np.concatenate([fmt.max_log - ends, ends - fmt.max_log, few, -few, near_octave, -near_octave])
    return np.unique(logs[np.abs(logs) <= fmt.max_log])


def _octave(fmt: LNSFormat) -> int:
    """Code steps to a factor of two, about; not more than fits."""
    return round(min(fmt.codes_per_octave, 2.0**40))


def _signed(fmt: LNSFormat, e_a: Ints, e_b: Ints, signs: Ints) -> _Pairs:
    """Codes of logarithms within the range; bit 0 of `signs` is the sign of a, bit 1 that of b."""
    inside = (np.abs(e_a) <= fmt.max_log) & (np.abs(e_b) <= fmt.max_log)
    e_a, e_b, signs = e_a[inside], e_b[inside], signs[inside]
    return e_a + fmt.bias + (signs & 1) * fmt.sign_bit, e_b + fmt.bias + (signs >> 1) * fmt.sign_bit


def _all_signs(fmt: LNSFormat, e_a: Ints, e_b: Ints) -> _Pairs:
    return _signed(fmt, np.tile(e_a, 4), np.tile(e_b, 4), np.repeat(np.arange(4), e_a.size))


def _specials(fmt: LNSFormat, codes: Ints) -> Iterator[_Pairs]:
    """Each code with 0, 1, -1, NaN on either side, with itself and its opposite."""
    for special in (0, fmt.bias, fmt.bias + fmt.sign_bit, fmt.nan_code):
        other = np.full_like(codes, special)
        yield codes, other
        yield other, codes
    yield codes, codes
    yield codes, np.where(codes & fmt.max_magnitude, codes ^ fmt.sign_bit, codes)


def _sums(fmt: LNSFormat, operation: str, gaps: Ints) -> Iterator[_Pairs]:
    """Sums and differences for each gap: with the smallest, with the greatest, around 1, at an edge of the range."""
    for direction in (1, -1):
        z = gaps[gaps > 0] if direction < 0 else gaps
        s = spans(fmt, _NO_SPARE, z, np.full_like(z, direction)).floor
        greater = [z - fmt.max_log, np.full_like(z, fmt.max_log), (z + 1) // 2]
        edge = fmt.max_log if direction > 0 else -fmt.max_log
        greater += [edge - s + k for k in (-1, 0, 1)]
        if direction < 0:
            greater += [edge - _octave(fmt) - s + k for k in (-1, 0)]
        for turn, e in enumerate(greater):  # the sign and the order take turns: all of them at each gap are too many
            negative = (np.arange(z.size) + turn) % 2
            signs = np.where(negative, 3, 0) if (direction > 0) == (operation == "add") else 1 + negative
            swap = (np.arange(z.size) + turn) // 2 % 2 == 0
            yield _signed(fmt, np.where(swap, e, e - z), np.where(swap, e - z, e), signs)


def _products(fmt: LNSFormat, operation: str, logs: Ints) -> Iterator[_Pairs]:
    """For each logarithm of a, the b at which the result leaves the range, or becomes zero."""
    turn = -1 if operation == "multiply" else 1
    for number, edge in enumerate((fmt.max_log, -fmt.max_log, -fmt.max_log - _octave(fmt))):
        for k in (-1, 0, 1):
            signs = (np.arange(logs.size) + number + k) % 4
            yield _signed(fmt, logs, turn * (logs - edge) + k, signs)


def _drawn(fmt: LNSFormat, count: int, random: np.random.Generator) -> Iterator[_Pairs]:
    """Pairs of any codes, and pairs of logarithms whose gap is of any size."""
    a, b = random.integers(0, 1 << fmt.bits, (2, count // 2))
    yield a, b
    e = random.integers(-fmt.max_log, fmt.max_log, count // 2, endpoint=True)
    gap = random.integers(0, 1 << random.integers(1, fmt.bits, count // 2))
    flip = random.integers(0, 2, count // 2) * 2 - 1
    yield _signed(fmt, e, e + flip * gap, random.integers(0, 4, count // 2))


def last_gaps(fmt: LNSFormat) -> Ints:
    """The gaps at which the last steps of both logarithms are taken: sb and db around 1/2, 3/2, 5/2 of a step."""
    h = np.log(np.float64(fmt.base)) / (1 << fmt.fraction_bits)
    with np.errstate(all="ignore"):
        halves = (np.arange(16) + 0.5) * h
        at = np.concatenate([-np.log(np.expm1(halves)), -np.log(-np.expm1(-halves))]) / h
    at = np.rint(at[(at >= 0) & (at < 2.0**40)]).astype(np.int64)
    return np.concatenate([at + k for k in (-2, -1, 0, 1, 2)])


def chosen_pairs(fmt: LNSFormat, operation: str, drawn_pairs: int, seed: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Pairs of a format of more than eight bits, and steps from an operand to a neighbour, in chunks."""
    random = np.random.default_rng(seed)
    marks = landmarks(fmt)
    magnitudes = np.concatenate([marks + fmt.bias, [0]])
    if fmt.bits <= WIDEST_WITH_EVERY_GAP:
        codes = np.arange(1 << fmt.bits, dtype=np.int64)
        gaps, logs = np.arange(2 * fmt.max_log + 1, dtype=np.int64), np.arange(-fmt.max_log, fmt.max_log + 1)
    else:
        codes = np.concatenate([magnitudes, magnitudes + fmt.sign_bit])
        gaps = np.unique(np.concatenate([np.arange(_FIRST_GAPS), sizes(2 * fmt.max_log), last_gaps(fmt)]))
        gaps = gaps[(gaps >= 0) & (gaps <= 2 * fmt.max_log)]
        logs = np.unique(np.concatenate([marks, random.integers(-fmt.max_log, fmt.max_log + 1, _DRAWN_LOGS)]))
    near = marks[np.minimum(np.abs(marks), fmt.max_log - np.abs(marks)) <= NEAR_AN_END]
    here, there = (x.reshape(-1) for x in np.meshgrid(near, marks, indexing="ij"))
    pairs = [_all_signs(fmt, here, there), _all_signs(fmt, there, here), *_specials(fmt, codes)]
    pairs += _sums(fmt, operation, gaps) if operation in ("add", "subtract") else _products(fmt, operation, logs)
    pairs += _drawn(fmt, drawn_pairs, random)
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    far = sizes(fmt.max_magnitude)
    steps = np.where(np.arange(a.size) % 2, far[np.arange(a.size) // 2 % far.size], 1)
    for i in range(0, a.size, CHUNK):
        yield a[i : i + CHUNK], b[i : i + CHUNK], np.maximum(steps[i : i + CHUNK], 1)
