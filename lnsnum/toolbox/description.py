"""What a format can do, in figures: range, steps, errors, and the memories that hardware needs. `lnsnum describe`.

step   from a number to the next, by the number: base^(2^-F) - 1 in LNS; of floats 2^-M at 1, half of that below 2
error  of rounding to nearest, by the number that is rounded, of numbers of full precision
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lnsnum.files.atomic import replacing
from lnsnum.format import MOST_LISTED, LNSFormat
from lnsnum.plots.formats import number_line, relative_error
from lnsnum.plots.numbers import Numbers, numbers_of
from lnsnum.plots.posits import POSITS
from lnsnum.toolbox.export_targets.hardware_tables import encode_table, sum_tables, why_no_sums

__all__ = ["Description", "Memories", "describe", "plot_formats"]

_POINTS = 1 << 14
"""Numbers of an octave over which the mean error is taken, equally far apart in their logarithm."""


@dataclass(frozen=True)
class Memories:
    """The tables of `lnsnum export --to readmemh`, at one scale: entries, and bits of each."""

    sb: int
    db: int
    half: int
    sum_bits: int
    decode: int
    decode_bits: int
    encode: int
    encode_bits: int

    @property
    def bits(self) -> int:
        """Of all of them."""
        sums = (self.sb + self.db + self.half) * self.sum_bits
        return sums + self.decode * self.decode_bits + self.encode * self.encode_bits


@dataclass(frozen=True)
class Description:
    """A format in figures. Magnitudes are at log_offset 0.

    Args:
        name, bits: of the format.
        layout: what its bits are, in words.
        smallest, smallest_normal, greatest_normal, greatest: positive numbers; normal ones have full precision.
        octaves: log2 of the greatest over the smallest.
        octaves_normal: the same of normal numbers.
        numbers: how many are positive and finite.
        step: the least and the greatest relative step of normal numbers.
        greatest_error, mean_error: relative, of rounding to nearest; the mean over an octave of numbers equally far
            apart in their logarithm.
        near_one: the number 1, the two below it and the two above.
        memories: of LNS formats of up to 16 bits.
    """

    name: str
    bits: int
    layout: str
    smallest: float
    smallest_normal: float
    greatest_normal: float
    greatest: float
    octaves: float
    octaves_normal: float
    numbers: int
    step: tuple[float, float]
    greatest_error: float
    mean_error: float
    near_one: tuple[float, ...]
    memories: Memories | None


def describe(name: str | LNSFormat) -> Description:
    """The figures of an LNS format, or of float32, float16, bfloat16, a float8 of ml_dtypes, posit8 or posit16.

    Raises:
        ValueError: for what is no name of one.

    >>> found = describe("lns8f3")
    >>> found.numbers, round(found.octaves, 2), f"{found.greatest_error:.4f}"
    (127, 15.75, '0.0443')
    """
    numbers = numbers_of(name)
    if numbers.fmt is not None:
        return _of_lns(numbers, numbers.fmt)
    m = numbers.mantissa_bits
    exponents = numbers.bits - 1 - m
    layout = f"1 sign, {exponents} exponent, {m} mantissa bits"
    if numbers.name in POSITS:
        layout = f"1 sign, 2 or more regime, 2 exponent, up to {m} fraction bits"
    ulp = 2.0**-m
    count = numbers.positive().size if numbers.bits <= MOST_LISTED else int(np.float32(np.inf).view(np.uint32)) - 1
    # what rounds worst lies half-way from 1 to the next number
    return Description(
        name=numbers.name,
        bits=numbers.bits,
        layout=layout,
        smallest=numbers.smallest,
        smallest_normal=numbers.smallest_normal,
        greatest_normal=numbers.greatest_normal,
        greatest=numbers.greatest,
        octaves=math.log2(numbers.greatest) - math.log2(numbers.smallest),
        octaves_normal=math.log2(numbers.greatest_normal) - math.log2(numbers.smallest_normal),
        numbers=count,
        step=(ulp / (2.0 - ulp), ulp),
        greatest_error=ulp / 2.0 / (1.0 + ulp / 2.0),
        mean_error=_mean_error(numbers),
        near_one=(1.0 - ulp, 1.0 - ulp / 2.0, 1.0, 1.0 + ulp, 1.0 + 2.0 * ulp),
        memories=None,
    )


def _of_lns(numbers: Numbers, fmt: LNSFormat) -> Description:
    info = fmt.finfo()
    whole = fmt.bits - 1 - fmt.fraction_bits
    plural = "" if fmt.fraction_bits == 1 else "s"
    base = "" if fmt.base == 2.0 else f", base {fmt.base:g}"
    # numbers a step of a logarithm apart: the error is the same everywhere, whether the range holds an octave or not
    share = (np.arange(_POINTS) + 0.5) / _POINTS
    log_step = math.log(fmt.base) / (1 << fmt.fraction_bits)
    mean = float(np.mean(np.abs(np.expm1((np.rint(share) - share) * log_step))))
    return Description(
        name=numbers.name,
        bits=fmt.bits,
        layout=f"1 sign, {whole} whole, {fmt.fraction_bits} fraction bit{plural}{base}",
        smallest=info.smallest_normal,
        smallest_normal=info.smallest_normal,
        greatest_normal=info.max,
        greatest=info.max,
        octaves=info.octaves,
        octaves_normal=info.octaves,
        numbers=fmt.max_magnitude,
        step=(info.eps, info.eps),
        greatest_error=info.max_relative_error,
        mean_error=mean,
        near_one=tuple(fmt.value_at(log) for log in (-2, -1, 0, 1, 2) if abs(log) <= fmt.max_log),
        memories=_memories(fmt),
    )


def _mean_error(numbers: Numbers) -> float:
    x = np.exp2((np.arange(_POINTS) + 0.5) / _POINTS)
    return float(np.mean(np.abs(numbers.round(x) - x) / x))


def _memories(fmt: LNSFormat) -> Memories | None:
    if fmt.bits > MOST_LISTED or why_no_sums(fmt) is not None:
        return None
    sums, thresholds = sum_tables(fmt), encode_table(fmt)
    # a float32 for each code
    decode = (1 << fmt.bits, 32)
    return Memories(
        sums.sb.size, sums.db.size, sums.half.size, sums.word_bits, *decode,
        thresholds.thresholds.size, thresholds.word_bits,
    )  # fmt: skip


def plot_formats(path: Path, names: list[str]) -> None:
    """Write one picture of formats: their number lines from 0 to 2, and what rounding costs over the range.

    Args:
        path: the picture; its ending says which kind. It is replaced at once or not at all.
        names: of formats; those of more than 16 bits have no number line.
    """
    from matplotlib.figure import Figure

    listed = [name for name in names if numbers_of(name).bits <= MOST_LISTED]
    figure = Figure(figsize=(9.0, 3.6 + 0.5 * len(listed)), layout="constrained")
    panels = figure.subplots(2, 1, height_ratios=[max(len(listed), 1), 6], squeeze=False)[:, 0]
    if listed:
        number_line(panels[0], *listed)
    else:
        panels[0].set_axis_off()
    relative_error(panels[1], *names)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=110)
