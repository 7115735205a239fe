"""The numbers of a format by its name, LNS or float, and how they round: what formats are compared by.

lns8f5              equally far apart on the logarithmic axis, rounded there
float8_e4m3fn, ...  equally far apart within an octave, rounded on the value axis
posit8, posit16     the same, with fewer numbers an octave towards both ends
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.decoding import decode
from lnsnum.encoding import encode
from lnsnum.format import MOST_LISTED, LNSFormat
from lnsnum.kernels.codes import FLOAT_TYPES
from lnsnum.kernels.float8 import FLOAT8_TYPES, values_of
from lnsnum.plots.posits import POSITS, positive_posits, round_to_posits

Floats = NDArray[np.float64]

FLOATS = ("float32", "float16", "bfloat16", *FLOAT8_TYPES)
"""Float formats that are known by name."""


@dataclass(frozen=True)
class Numbers:
    """What a format can hold.

    Args:
        name: that of the format.
        fmt: the LNS format; None of floats.
        bits: width of a number.
        mantissa_bits: of floats and posits, those after the point of a number from 1 to 2.
        smallest, smallest_normal, greatest_normal, greatest: magnitudes; normal ones have full precision.
    """

    name: str
    fmt: LNSFormat | None
    bits: int
    mantissa_bits: int
    smallest: float
    smallest_normal: float
    greatest_normal: float
    greatest: float

    def positive(self) -> Floats:
        """All positive finite numbers, in order.

        Raises:
            ValueError: for formats of more than 16 bits.
        """
        if self.bits > MOST_LISTED:
            raise ValueError(
                f"{self.name} has 2^{self.bits} values, and formats of up to {MOST_LISTED} bits are listed"
            )
        if self.fmt is not None:
            values = self.fmt.values()[1 : self.fmt.sign_bit]
            return np.unique(values[(values > 0.0) & np.isfinite(values)])
        return positive_posits(self.bits) if self.name in POSITS else _positive_floats(self.name)

    def round(self, x: ArrayLike) -> Floats:
        """Positive numbers rounded to the format; beyond its range the greatest, or inf where there is one."""
        numbers = np.asarray(x, np.float64)
        if self.name in POSITS:
            return round_to_posits(numbers, self.bits)
        if self.fmt is not None:
            return np.asarray(decode(encode(numbers, self.fmt), self.fmt))
        if self.name == "float32":
            with np.errstate(over="ignore"):
                return numbers.astype(np.float32).astype(np.float64)
        grid = np.concatenate([[0.0], _positive_floats(self.name)])
        # one further number, as far away as the mantissa goes on: what rounds to it is beyond the range
        grid = np.append(grid, 2 * grid[-1] - grid[-2])
        halfway = (grid[:-1] + grid[1:]) / 2
        index = np.searchsorted(halfway, numbers, side="left")
        # patterns are consecutive integers: the even one is that with an even index
        tie = numbers == halfway[np.minimum(index, halfway.size - 1)]
        index += tie & (index % 2 == 1)
        return np.where(index == grid.size - 1, np.inf, grid[index])


@lru_cache
def _positive_floats(name: str) -> Floats:
    if name in FLOAT8_TYPES:
        values = values_of(name)[:128].astype(np.float64)
        return np.asarray(values[np.isfinite(values) & (values > 0.0)])
    patterns = np.arange(1, FLOAT_TYPES[name].infinity, dtype=np.uint32)
    if name == "bfloat16":
        # the upper half of a float32
        return (patterns << np.uint32(16)).view(np.float32).astype(np.float64)
    return patterns.astype(np.uint16).view(np.float16).astype(np.float64)


def numbers_of(name: str | LNSFormat) -> Numbers:
    """The numbers of a format, by its name.

    Raises:
        TypeError: for what is neither a format nor a name.
        ValueError: for what is no name of one.

    >>> numbers_of("float8_e4m3fn").greatest, numbers_of("lns8f3").fmt
    (448.0, LNSFormat(8, 3))
    """
    if not isinstance(name, (LNSFormat, str)):
        raise TypeError(f"{name!r} is a {type(name).__name__}: give an LNSFormat, or a name such as 'float8_e4m3fn'")
    if isinstance(name, LNSFormat) or name.startswith("lns"):
        fmt = LNSFormat.of(name)
        smallest = fmt.min_value
        return Numbers(fmt.name, fmt, fmt.bits, fmt.fraction_bits, smallest, smallest, fmt.max_value, fmt.max_value)
    if name in POSITS:
        bits = POSITS[name]
        values, mantissa = positive_posits(bits), bits - 5
        # from 1/16 to 16 the sign, the shortest run and the exponent take five bits
        full = 16.0 - 2.0 ** (3 - mantissa)
        return Numbers(name, None, bits, mantissa, float(values[0]), 0.0625, full, float(values[-1]))
    if name not in FLOATS:
        known = ", ".join([*FLOATS, *POSITS])
        raise ValueError(f"{name!r} is no format: write lns8f5 for an LNS format, or one of {known}")
    if name == "float32":
        info = np.finfo(np.float32)
        smallest, greatest = float(info.smallest_subnormal), float(info.max)
        return Numbers(name, None, 32, 23, smallest, float(info.tiny), greatest, greatest)
    values = _positive_floats(name)
    if name in FLOAT8_TYPES:
        match = re.search(r"m(\d)", name)
        assert match is not None
        mantissa, bits = int(match[1]), 8
    else:
        mantissa, bits = FLOAT_TYPES[name].mantissa_bits, 16
    # patterns below the first exponent but 0 are the subnormal numbers
    smallest, normal, greatest = (float(values[i]) for i in (0, (1 << mantissa) - 1, -1))
    return Numbers(name, None, bits, mantissa, smallest, normal, greatest, greatest)
