"""Faults of conversions, Gaussian logarithms, quantizers and stochastic rounding: what the laws of these have to find.

As in `benchmarks.planted_faults`, each stands on what is right but for the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lnsnum import LNSFormat, convert, decode, encode, lns4f1, lns8f3, lns8f5, lns10f5, lns12f6, lns16f7, lns16f10
from lnsnum.gaussian import Exact

FAULTS_OF_KINDS: list[FaultOfKind] = []
"""All of them, in the order of the table."""


class FaultOfKind(NamedTuple):
    """A fault in words, the kind of laws that finds it, the format, one function and its name, and options."""

    words: str
    kind: str
    fmt: LNSFormat | None
    operation: str
    function: Callable
    options: dict[str, Any]

    @property
    def implementation(self):
        """What the laws are tried on."""
        return {self.operation: self.function}


def fault(words: str, kind: str, fmt: LNSFormat | None, operation: str, function: Callable, **options: Any) -> None:
    """Enter a function in the list."""
    FAULTS_OF_KINDS.append(FaultOfKind(words, kind, fmt, operation, function, options))


BASE_4 = LNSFormat(5, 0, base=4.0)
BASE_10 = LNSFormat(10, 3, base=10.0)


# ------------------------------------------------------------------------------------------------------- conversions


def encoding(words, fmt, function, dtype="float32"):
    """A fault of encode: a function of the floats and the right codes."""
    fault(words, "conversions", fmt, "encode", lambda x: function(x, encode(x, fmt)).astype(fmt.dtype), dtype=dtype)


def decoding(words, fmt, function, dtype="float32"):
    """A fault of decode: a function of the codes and the right floats."""
    fault(words, "conversions", fmt, "decode", lambda c: function(c, decode(c, fmt, dtype)).astype(dtype), dtype=dtype)


def _by_logarithms(x, fmt):
    """Codes by float32's logarithm, as one writes it first."""
    with np.errstate(all="ignore"):
        log = np.rint(np.log2(np.abs(x)) * np.float32(1 << fmt.fraction_bits))
    inner = np.abs(log) < fmt.max_log
    return np.where(inner, np.where(inner, log, 0) + fmt.bias + fmt.sign_bit * np.signbit(x), encode(x, fmt))


def _half_away(x, right):
    """Base 4: what lies midway, 2 4^n, goes to the greater."""
    with np.errstate(all="ignore"):
        octaves = np.log2(np.abs(x))
        inner = (np.abs(octaves) < 2 * BASE_4.max_log) & (octaves % 2 == 1)
    up = (np.where(inner, octaves, 0) + 1) / 2 + BASE_4.bias + BASE_4.sign_bit * np.signbit(x)
    return np.where(inner, up, right)


encoding("truncation for nearest", lns8f3, lambda x, right: encode(x, lns8f3, rounding="toward_zero"))
encoding("negative numbers are truncated", lns10f5, lambda x, right: encode(x, lns10f5, rounding="up"))
encoding("ties away from even", BASE_4, _half_away)
encoding("float32's logarithm", lns16f10, lambda x, right: _by_logarithms(x, lns16f10))
encoding("float64 by way of float32", lns16f10, lambda x, right: encode(_as_float32(x), lns16f10), dtype="float64")
encoding(
    "one boundary is one float off", lns12f6, lambda x, right: np.where(x == _first_of(lns12f6, 2061), 2060, right)
)
encoding("one boundary is one float off", BASE_10, lambda x, right: np.where(x == _first_of(BASE_10, 300), 299, right))
encoding("one float16 is wrong", lns8f3, lambda x, right: np.where(x == 0.337890625, right ^ 1, right), dtype="float16")
encoding("NaN is the greatest", lns8f5, lambda x, right: np.where(np.isnan(x), lns8f5.max_magnitude, right))
encoding(
    "a NaN with a payload is a number",
    lns8f3,
    lambda x, right: np.where(x.view(np.uint32) & 0x7FFFFFFF == 0x7FC01234 & 0xFFFF0000 | 0x10000, 0, right),
)
encoding("-0 keeps its sign: NaN", lns16f10, lambda x, right: np.where((x == 0) & np.signbit(x), 32768, right))
encoding("infinity is NaN", lns12f6, lambda x, right: np.where(np.isinf(x), 2048, right))
encoding(
    "saturates one below the greatest", lns16f10, lambda x, right: np.where(right & 32767 == 32767, right - 1, right)
)
encoding("a carry out of the magnitude is lost", lns8f3, lambda x, right: np.where(np.abs(x) > 245, right & 128, right))
encoding(
    "flushes what is below the smallest", lns10f5, lambda x, right: np.where(np.abs(x) < 2.0 ** (-255 / 32), 0, right)
)
encoding("subnormals are zero", lns16f7, lambda x, right: np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0, right))
encoding("results in the wrong order", lns8f3, lambda x, right: right[::-1])
decoding(
    "one entry of the table is wrong", lns8f3, lambda c, right: np.where(c == 77, right * np.float32(1.001), right)
)
decoding("one unit in the last place", lns16f10, lambda c, right: np.where(c == 20001, np.nextafter(right, 0), right))
decoding("float32 by way of float16", lns16f10, lambda c, right: decode(c, lns16f10, "float16"))
decoding("float32's power", lns16f10, lambda c, right: _float32_power(c, lns16f10, right))
decoding("NaN is -0", lns12f6, lambda c, right: np.where(np.isnan(right), -0.0, right))
decoding("zero keeps a sign", lns8f5, lambda c, right: np.where(c == 0, -0.0, right))
decoding("the sign is lost", lns4f1, lambda c, right: np.abs(right))


fault(
    "rounded twice: by way of lns10f5",
    "conversions",
    lns16f10,
    "convert",
    lambda c: convert(convert(c, lns16f10, lns10f5), lns10f5, lns8f3),
    to=lns8f3,
)
fault(
    "shifts, and drops what falls out",
    "conversions",
    lns8f5,
    "convert",
    lambda c: np.where(c & 127, ((c.astype(np.int64) & 127) - 64 >> 2) + 64 | c & 128, c).astype(np.uint8),
    to=lns8f3,
)


def _as_float32(x):
    with np.errstate(all="ignore"):
        return x.astype(np.float32)


def _first_of(fmt, code):
    """The least float32 that is encoded as a code."""
    low, high = (int(v.view(np.uint32)) for v in decode(np.array([code - 1, code], fmt.dtype), fmt, "float32"))
    while high - low > 1:
        middle = (low + high) // 2
        x = np.array([middle], np.uint32).view(np.float32)
        low, high = (middle, high) if encode(x, fmt)[0] < code else (low, middle)
    return np.array([high], np.uint32).view(np.float32)[0]


def _float32_power(c, fmt, right):
    m = c.astype(np.int64) & fmt.max_magnitude
    size = np.exp2(((m - fmt.bias) / (1 << fmt.fraction_bits)).astype(np.float32)) * np.float32(1 + 2.0**-23)
    return np.where(m > 0, np.copysign(size, right), right)


# ----------------------------------------------------------------------------------------------- Gaussian logarithms


def logarithm(words, fmt, operation, function):
    """A fault of sb or db: a function of z and the right values."""
    right = getattr(Exact(), operation)
    fault(words, "gaussian", fmt, operation, lambda z: function(z, right(z, fmt)))


logarithm("one entry of sb is off by one", lns16f10, "sb", lambda z, right: right + (z == 777))
logarithm("one entry of db is off by one", lns16f10, "db", lambda z, right: right - (z == 3072))
logarithm(
    "the first entry of db is the second's", lns12f6, "db", lambda z, right: Exact().db(np.maximum(z, 2), lns12f6)
)
logarithm("sb ends one entry too early", lns16f7, "sb", lambda z, right: np.where(z >= _last(lns16f7), 0, right))
logarithm("sb never ends", lns10f5, "sb", lambda z, right: np.maximum(right, 1))
logarithm("the first entry of sb is one less", lns8f3, "sb", lambda z, right: right - (z == 0))
logarithm("db has the sign of sb", lns8f5, "db", lambda z, right: -right)
logarithm("a table for every second z, which dips", lns12f6, "sb", lambda z, right: Exact().sb(z ^ 1, lns12f6))
logarithm("rounded toward zero", BASE_10, "sb", lambda z, right: _floor_sb(z, BASE_10))


def _last(fmt):
    z = np.arange(2 * fmt.max_log)
    return int(z[Exact().sb(z, fmt) > 0].max())


def _floor_sb(z, fmt):
    h = np.log(fmt.base) / (1 << fmt.fraction_bits)
    return np.floor(np.log1p(np.exp(-z * h)) / h).astype(np.int64)


# --------------------------------------------------------------------------------------------------------- quantizers


def quantizer(words, function, fmt=None, **options):
    """A fault of a quantizer on float32."""

    def quiet(x):
        with np.errstate(all="ignore"):
            return np.asarray(function(x), x.dtype)

    fault(words, "quantizers", fmt, "quantize", quiet, **options)


def int8(x):
    """To whole numbers, -127 to 127."""
    return np.clip(np.rint(x), -127, 127)


def _fixed_mantissa(x, bits, rounded=np.rint):
    """To a mantissa of some bits, without end."""
    significand, exponent = np.frexp(x)
    return np.ldexp(rounded(np.ldexp(significand, bits)), exponent - bits)


quantizer("truncation for nearest", lambda x: np.clip(np.trunc(x), -127, 127))
quantizer("adds one half and takes the floor", lambda x: np.clip(np.floor(x + np.float32(0.5)), -127, 127))
quantizer("one tie goes the other way", lambda x: np.where(x == 6.5, 7, int8(x)))
quantizer(
    "wraps beyond the greatest",
    lambda x: np.where(np.abs(x) < 1e6, (int8(x * 0 + (np.rint(x) + 128) % 256 - 128)), int8(x)),
)
quantizer("infinity is zero", lambda x: np.where(np.isinf(x), 0, int8(x)))
quantizer("a NaN with a sign is another number", lambda x: np.where(np.isnan(x) & np.signbit(x), -127, int8(x)))
quantizer("rounded twice: by way of float16", lambda x: _fixed_mantissa(x.astype(np.float16).astype(np.float32), 5))
quantizer("one number comes out for its neighbour", lambda x: np.where(int8(x) == 42, 43, int8(x)))
quantizer("two numbers swapped", lambda x: np.select([int8(x) == 42, int8(x) == 43], [43, 42], int8(x)))
quantizer("a gain of 1.001", lambda x: int8(x * np.float32(1.001)) / 16, axis="value")
quantizer(
    "scaled by the greatest of all",
    lambda x: int8(x / max(np.max(np.abs(x), where=np.isfinite(x), initial=1), 1) * 127),
)
quantizer(
    "coarse below 2^-8", lambda x: _fixed_mantissa(x, np.where(np.abs(x) < 2.0**-8, 3, 4)), scales=(2.0**-12, 2.0**12)
)
quantizer(
    "of codes: truncation for nearest",
    lambda x: decode(encode(x, lns8f3, rounding="toward_zero"), lns8f3, "float32"),
    fmt=lns8f3,
)


# ------------------------------------------------------------------------------------------------ stochastic rounding


def stochastic(words, function, fmt=lns8f3, **options):
    """A fault of stochastic rounding, in the value unless said otherwise."""
    fault(words, "stochastic", fmt, "encode", function, **options)


def _rounded(x, words, fmt=lns8f3, rounding="stochastic_value"):
    return encode(x, fmt, rounding=rounding, random_bits=np.asarray(words, np.uint32))


_SEED = [0]


def _own(x, function):
    """With words of its own."""
    return function(np.random.default_rng(_SEED[0]).integers(0, 1 << 32, x.size, dtype=np.uint32))


OWN = {"random_bits": None, "reseed": lambda seed: _SEED.__setitem__(0, seed)}


stochastic("unbiased in the logarithm, not in the value", lambda x, w: _rounded(x, w, rounding="stochastic_log"))
stochastic("to nearest", lambda x, w: encode(x, lns8f3))
stochastic("uses 8 of 32 bits", lambda x, w: _rounded(x, w & np.uint32(0xFF000000)))
stochastic("up one word too often", lambda x, w: _rounded(x, np.maximum(w, 1) - 1 << 24), random_bits=8)
stochastic("negative numbers are truncated", lambda x, w: _rounded(x, np.where(np.signbit(x), ~np.uint32(0), w)))
stochastic("numbers of the format move", lambda x, w: np.where((x == 2) & (w > 1 << 31), 73, _rounded(x, w)))
stochastic(
    "two steps up, once in 2^32", lambda x, w: np.where((w == 0) & (np.abs(x) < 2), _rounded(x * 2, w), _rounded(x, w))
)
stochastic("zero becomes the smallest", lambda x, w: np.where((x == 0) & (w == 0), 1, _rounded(x, w)))
stochastic("below the smallest always zero", lambda x, w: np.where(np.abs(x) < lns8f3.min_value, 0, _rounded(x, w)))
stochastic("the word of the neighbour", lambda x, w: _rounded(x, np.roll(w, 1)))
stochastic(
    "own: two elements share a word",
    lambda x: _own(x, lambda w: _rounded(x, np.repeat(w, 2)[: x.size])),
    **OWN,
)
stochastic(
    "own: the same words in every call",
    lambda x: encode(x, lns8f3, rounding="stochastic_value", seed=7),
    **OWN,
)
stochastic("own: biased by 1 %", lambda x: _own(x, lambda w: _rounded(x, w - (w >> 6))), **OWN)
