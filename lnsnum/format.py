"""LNS formats: which numbers a code word can name.

    x  =  (-1)^s * base^(E / 2^F),      E = m - bias + log_offset

A code is one unsigned word of `bits` bits: the sign s on top, below it the biased log magnitude m, so that integer
order is magnitude order and saturation is a clip. m = 0 is zero (s = 0) or NaN (s = 1); there is one zero and no
infinity. docs/number_format.md is the specification.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from lnsnum.array.cards import card
from lnsnum.exact import nearest_float64, nearest_float64s

__all__ = [
    "MAX_LOG_OFFSET",
    "MOST_LISTED",
    "FormatInfo",
    "LNSFormat",
    "Modes",
    "Overflow",
    "Rounding",
    "Underflow",
    "lns4f1",
    "lns6f2",
    "lns8f3",
    "lns8f4",
    "lns8f5",
    "lns10f5",
    "lns12f6",
    "lns16f7",
    "lns16f10",
    "lns32f23",
]

Rounding = Literal["nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"]
"""nearest, ties to even, and the stochastic modes are defined in docs/number_format.md; each names its axis."""

Overflow = Literal["saturate", "nan"]
"""What a magnitude above the greatest becomes, judged after rounding: the greatest, or NaN."""

Underflow = Literal["round", "saturate"]
"""What a nonzero magnitude below the smallest becomes: zero or the smallest by the rounding mode, or always the
smallest.
"""


class Modes(TypedDict, total=False):
    """How a number becomes a code: keyword arguments of whatever rounds."""

    rounding: Rounding
    overflow: Overflow
    underflow: Underflow


MAX_LOG_OFFSET = 1 << 30
"""The greatest size of a log_offset, in code steps."""

MOST_LISTED = 16
"""Formats of up to this many bits can be listed: `LNSFormat.values`."""

_NAME = re.compile(r"lns([1-9][0-9]*)f(0|[1-9][0-9]*)(?:b(0x[0-9a-f.]+p[+-]?[0-9]+))?")


def check_choice(what: str, given: object, choices: Any) -> None:
    """Raise ValueError unless `given` is one of the strings of a Literal type."""
    allowed = get_args(choices)
    if given not in allowed:
        raise ValueError(f"{what}={given!r} is not known: one of {', '.join(allowed)}")


def check_log_offset(log_offset: int, what: str = "log_offset") -> int:
    """`log_offset` as a Python integer; TypeError or ValueError where it is none or too large."""
    if isinstance(log_offset, bool) or not isinstance(log_offset, (int, np.integer)):
        raise TypeError(f"{what}={log_offset!r} is a {type(log_offset).__name__}: give an integer number of code steps")
    if abs(int(log_offset)) > MAX_LOG_OFFSET:
        raise ValueError(f"{what}={log_offset} is too large: at most 2^30 in size")
    return int(log_offset)


def _exactly(base: str) -> Fraction:
    """The number that a hexadecimal float names, one within the range of doubles."""
    digits, exponent = base.removeprefix("0x").split("p")
    whole, _, fraction = digits.partition(".")
    return int(whole + fraction, 16) * Fraction(2) ** (int(exponent) - 4 * len(fraction))


@dataclass(frozen=True)
class FormatInfo:
    """What a format can hold at one scale, under the names of `numpy.finfo`: `LNSFormat.finfo` makes it.

    Magnitudes are the nearest float64 (0 or inf beyond these). Numbers are equally far apart in their logarithm, so
    that eps and epsneg are the relative distance of neighbours everywhere; there are no subnormal numbers.
    """

    dtype: LNSFormat
    """The format."""
    log_offset: int
    """The scale, in code steps."""
    bits: int
    """Width of a code."""
    fraction_bits: int
    """F: 2^F codes cover a factor of the base."""
    base: float
    """Base of the logarithm."""
    step: float
    """The factor from a number to the next greater: base^(2^-F)."""
    eps: float
    """step - 1: from 1 to the next greater number."""
    epsneg: float
    """1 - 1 / step: from 1 to the next smaller number."""
    max: float
    """The greatest number."""
    min: float
    """The least number, -max."""
    tiny: float
    """The smallest positive number."""
    smallest_normal: float
    """The same: every number is normal."""
    smallest_subnormal: float
    """The same."""
    octaves: float
    """log2 of the greatest magnitude over the smallest."""
    codes_per_octave: float
    """Code steps in a factor of 2."""
    precision: int
    """Decimal digits that a number is sure to keep: floor(-log10(eps)), not below 0."""
    max_relative_error: float
    """Of rounding to nearest within the range: half a step, sqrt(step) - 1."""


@dataclass(frozen=True, repr=False)
class LNSFormat:
    """A logarithmic number format: `bits` wide, `fraction_bits` of them after the point of the logarithm.

    Args:
        bits: width of a code, 3 to 32, the sign included.
        fraction_bits: F; 2^F codes cover a factor of `base`. 0 to bits - 2.
        base: base of the logarithm, a float > 1. Base 2 unless said otherwise.

    Raises:
        TypeError: where bits or fraction_bits is no integer, or base no number.
        ValueError: where one of them is out of range.

    >>> fmt = LNSFormat(8, 5)
    >>> fmt.name, fmt.max_value, fmt.codes_per_octave
    ('lns8f5', 3.9142882483508004, 32.0)
    >>> LNSFormat.parse("lns8f5") == fmt
    True
    """

    bits: int
    fraction_bits: int
    base: float = 2.0

    def __init__(self, bits: int, fraction_bits: int, *, base: float = 2.0) -> None:
        for what, given in (("bits", bits), ("fraction_bits", fraction_bits)):
            if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
                raise TypeError(f"{what}={given!r} is a {type(given).__name__}: give an integer")
        if not 3 <= bits <= 32:
            raise ValueError(f"bits={bits} is out of range: 3 to 32")
        if not 0 <= fraction_bits <= bits - 2:
            raise ValueError(f"fraction_bits={fraction_bits} does not fit bits={bits}: 0 to {bits - 2}")
        if isinstance(base, bool) or not isinstance(base, (int, float, np.integer, np.floating)):
            raise TypeError(f"base={base!r} is a {type(base).__name__}: give a number")
        if not 1.0 < base < math.inf:
            raise ValueError(f"base={base!r} is out of range: finite and greater than 1")
        try:
            is_float64 = float(base) == base
        except OverflowError:
            is_float64 = False
        if not is_float64:
            raise ValueError(f"base={base!r} is no float64: give the float nearest to it")
        object.__setattr__(self, "bits", int(bits))
        object.__setattr__(self, "fraction_bits", int(fraction_bits))
        object.__setattr__(self, "base", float(base))

    @classmethod
    def parse(cls, name: str) -> LNSFormat:
        """The format that `name` names: `lns{bits}f{F}`, and `b` with a hexadecimal float for a base other than 2.

        `LNSFormat.parse(fmt.name) == fmt` for every format.

        >>> LNSFormat.parse("lns12f0b0x1.8000000000000p+0").base
        1.5
        """
        if not isinstance(name, str):
            raise TypeError(f"a format name is a string such as 'lns8f5', not {name!r}")
        return _parsed(name)

    @classmethod
    def _read(cls, name: str) -> LNSFormat:
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is no format name: write lns8f5 for 8 bits, 5 of them fraction bits")
        bits, fraction_bits, base = match.groups()
        if len(bits) > 2 or len(fraction_bits) > 2:
            raise ValueError(f"{name!r} is no format: bits 3 to 32, fraction bits 0 to bits - 2")
        try:
            value = 2.0 if base is None else float.fromhex(base)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name!r} has a base that is no float64: {base}") from error
        if base is not None and 1.0 < value < math.inf and _exactly(base) != value:
            raise ValueError(f"{name!r} has a base that is no float64: {base} lies between two")
        return cls(int(bits), int(fraction_bits), base=value)

    @classmethod
    def of(cls, fmt: LNSFormat | str) -> LNSFormat:
        """`fmt` itself, or the format that the string names: for arguments that take either."""
        return fmt if isinstance(fmt, LNSFormat) else cls.parse(fmt)

    @classmethod
    def madam(cls, bits: int, base_lr: float) -> LNSFormat:
        """The ladder w = max * exp(-base_lr * k) of the Madam paper: base exp(base_lr), no fraction bits.

        Source: Bernstein et al., NeurIPS 2020, section 4.

        >>> LNSFormat.madam(12, 0.001).codes_per_octave > 693
        True
        """
        if not 0.0 < base_lr < 700.0:
            raise ValueError(f"base_lr={base_lr!r} is out of range: greater than 0, less than 700")
        return cls(bits, 0, base=math.exp(base_lr))

    @property
    def name(self) -> str:
        """The name that `parse` reads, for instance `lns8f5`."""
        suffix = "" if self.base == 2.0 else f"b{self.base.hex()}"
        return f"lns{self.bits}f{self.fraction_bits}{suffix}"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned integer that a code is kept in: uint8, uint16 or uint32."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16 if self.bits <= 16 else np.uint32)

    @property
    def bias(self) -> int:
        """The magnitude m of the value 1 at log_offset 0: 2^(bits - 2)."""
        return 1 << (self.bits - 2)

    @property
    def max_magnitude(self) -> int:
        """The greatest m, 2^(bits - 1) - 1; the smallest of a nonzero number is 1."""
        return (1 << (self.bits - 1)) - 1

    @property
    def sign_bit(self) -> int:
        """The code with only the sign set, which is NaN: 2^(bits - 1)."""
        return 1 << (self.bits - 1)

    @property
    def nan_code(self) -> int:
        """The one code that is NaN: sign 1, magnitude 0. Zero is the code 0."""
        return self.sign_bit

    @property
    def max_log(self) -> int:
        """E of the greatest magnitude at log_offset 0, in code steps; that of the smallest is its negative."""
        return self.bias - 1

    @property
    def max_value(self) -> float:
        """The greatest magnitude at log_offset 0, to the nearest float64 or inf."""
        return self.value_at(self.max_log)

    @property
    def min_value(self) -> float:
        """The smallest nonzero magnitude at log_offset 0, to the nearest float64 or 0."""
        return self.value_at(-self.max_log)

    @property
    def step(self) -> float:
        """The factor of one code step (one ulp): base^(2^-F), to the nearest float64."""
        return self.value_at(1)

    @property
    def codes_per_octave(self) -> float:
        """Code steps in a factor of 2."""
        return (1 << self.fraction_bits) / math.log2(self.base)

    @property
    def octaves(self) -> float:
        """log2 of the greatest magnitude over the smallest."""
        return 2 * self.max_log / self.codes_per_octave

    def value_at(self, log: int) -> float:
        """base^(log / 2^F), the magnitude at E = log, to the nearest float64 or 0 or inf."""
        return nearest_float64(self.base, log, self.fraction_bits)

    def values(self, *, log_offset: int = 0) -> NDArray[np.float64]:
        """The number of every code, in the order of the codes: 2^bits float64, each rounded once.

        `numpy.sort` puts them in order, NaN last. What no float64 holds is inf or 0, as everywhere.

        Args:
            log_offset: the scale, in code steps.

        Raises:
            ValueError: for formats of more than 16 bits: `lnsnum.decode` takes the codes that are asked for.

        >>> LNSFormat(4, 1).values()
        array([ 0.        ,  0.35355339,  0.5       ,  0.70710678,  1.        ,
                1.41421356,  2.        ,  2.82842712,         nan, -0.35355339,
               -0.5       , -0.70710678, -1.        , -1.41421356, -2.        ,
               -2.82842712])
        """
        if self.bits > MOST_LISTED:
            raise ValueError(
                f"{self.name} has 2^{self.bits} values, and formats of up to {MOST_LISTED} bits are listed: "
                "lnsnum.decode gives those of the codes that you name"
            )
        log_offset = check_log_offset(log_offset)
        first = log_offset - self.max_log
        positive = np.array(nearest_float64s(self.base, first, self.max_magnitude, self.fraction_bits))
        negative = np.where(positive == 0.0, 0.0, -positive)  # never -0
        return np.concatenate([[0.0], positive, [np.nan], negative])

    def finfo(self, *, log_offset: int = 0) -> FormatInfo:
        """The limits of the format at a scale, in the manner of `numpy.finfo`.

        Args:
            log_offset: the scale, in code steps.

        >>> info = LNSFormat(8, 3).finfo()
        >>> info.bits, info.max, round(info.eps, 4), round(info.max_relative_error, 4)
        (8, 234.75303506039583, 0.0905, 0.0443)
        """
        log_offset = check_log_offset(log_offset)
        # of a difference of doubles near 1 only few digits would be left
        log_step = math.log(self.base) / (1 << self.fraction_bits)
        eps = math.expm1(log_step) if log_step < 1.0 else self.step - 1.0
        greatest, smallest = (self.value_at(log_offset + end) for end in (self.max_log, -self.max_log))
        return FormatInfo(
            dtype=self,
            log_offset=log_offset,
            bits=self.bits,
            fraction_bits=self.fraction_bits,
            base=self.base,
            step=self.step,
            eps=eps,
            epsneg=-math.expm1(-log_step),
            max=greatest,
            min=-greatest,
            tiny=smallest,
            smallest_normal=smallest,
            smallest_subnormal=smallest,
            octaves=self.octaves,
            codes_per_octave=self.codes_per_octave,
            precision=math.floor(-math.log10(eps)) if eps < 1.0 else 0,
            max_relative_error=math.expm1(log_step / 2),
        )

    def _repr_html_(self) -> str:
        """The card of a format, for notebooks."""
        info = self.finfo()
        whole = self.bits - 1 - self.fraction_bits
        octaves = info.octaves
        rows = [
            ("bits", f"1 sign, {whole} whole, {self.fraction_bits} fraction bits of the logarithm"),
            ("base", f"{self.base:g}"),
            ("smallest, greatest", f"{info.tiny:.6g}, {info.max:.6g}"),
            ("range", f"{octaves:.4g} octaves, {info.codes_per_octave:.4g} codes an octave"),
            ("step", f"a factor of {info.step:.6g}"),
            ("greatest error of rounding", f"{100 * info.max_relative_error:.3g} %"),
            ("around one", ", ".join(f"{self.value_at(log):.5g}" for log in (-2, -1, 0, 1, 2))),
        ]
        return card(self.name, rows)

    def __repr__(self) -> str:
        base = "" if self.base == 2.0 else f", base={self.base!r}"
        return f"LNSFormat({self.bits}, {self.fraction_bits}{base})"

    def __str__(self) -> str:
        return self.name


_parsed = lru_cache(maxsize=256)(LNSFormat._read)

lns4f1 = LNSFormat(4, 1)
lns6f2 = LNSFormat(6, 2)
lns8f3 = LNSFormat(8, 3)
lns8f4 = LNSFormat(8, 4)
lns8f5 = LNSFormat(8, 5)
lns10f5 = LNSFormat(10, 5)
lns12f6 = LNSFormat(12, 6)
lns16f7 = LNSFormat(16, 7)
lns16f10 = LNSFormat(16, 10)
lns32f23 = LNSFormat(32, 23)
