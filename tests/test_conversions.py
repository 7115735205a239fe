"""encode, decode, convert and fit_log_offset against the oracle, lnsnum.reference, code by code.

Floats are bit patterns here, so that subnormals, NaN payloads and bfloat16 need no special care. Rounding boundaries
come from mpmath: `bracket` gives the floats on either side of a real number.
"""

import ctypes
import math
import mmap
import platform
import struct
import subprocess
import sys
from functools import lru_cache

import mpmath
import numba
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lnsnum import convert, decode, encode, fit_log_offset, reference
from lnsnum.format import (
    MAX_LOG_OFFSET,
    LNSFormat,
    lns6f2,
    lns8f3,
    lns8f5,
    lns10f5,
    lns12f6,
    lns16f7,
    lns16f10,
)

FLOATS = {"float64": (64, 53, -1022), "float32": (32, 24, -126), "float16": (16, 11, -14), "bfloat16": (16, 8, -126)}
"""Width in bits, precision, exponent of the least normal number."""

DIRECTED = ("toward_zero", "up", "down")
STOCHASTIC = ("stochastic_log", "stochastic_value")
MODES = ("nearest", *DIRECTED, *STOCHASTIC)

NEXT_TO_ONE = math.nextafter(1.0, 2.0)

jit = not numba.config.DISABLE_JIT
"""Without it the kernels run a hundred times slower, and the exhaustive tests take a sample."""


# ------------------------------------------------------------------------------------------------ floats as patterns


def infinity(dtype: str) -> int:
    width, precision, _ = FLOATS[dtype]
    return (1 << (width - 1)) - (1 << (precision - 1))


def number(pattern: int, dtype: str) -> float:
    """The float of a bit pattern, as a Python float."""
    if dtype == "bfloat16":
        pattern, dtype = pattern << 16, "float32"
    integer, real = {"float64": "Qd", "float32": "If", "float16": "He"}[dtype]
    return struct.unpack(f"<{real}", struct.pack(f"<{integer}", pattern))[0]


def pattern_of(x: float, dtype: str = "float64") -> int:
    integer, real = {"float64": "Qd", "float32": "If", "float16": "He"}[dtype]
    return struct.unpack(f"<{integer}", struct.pack(f"<{real}", x))[0]


def array_of(patterns, dtype: str) -> np.ndarray:
    """What encode takes for these patterns."""
    array = np.asarray(patterns, dtype=f"u{FLOATS[dtype][0] // 8}")
    return array if dtype == "bfloat16" else array.view(dtype)


def encode_patterns(patterns, dtype: str, fmt: LNSFormat, **modes) -> np.ndarray:
    return encode(array_of(patterns, dtype), fmt, dtype="bfloat16" if dtype == "bfloat16" else None, **modes)


def negated(patterns, dtype: str) -> list[int]:
    return [p | 1 << (FLOATS[dtype][0] - 1) for p in patterns]


def grid(fmt: LNSFormat, log) -> mpmath.mpf:
    """base^(log / 2^F) to 400 bits."""
    with mpmath.workprec(400):
        return mpmath.power(fmt.base, mpmath.mpf(log) / (1 << fmt.fraction_bits))


def bracket(x: mpmath.mpf, dtype: str) -> list[int]:
    """Patterns of the positive floats around x > 0: the two below and the two above, itself too where x is one."""
    _, precision, least_exponent = FLOATS[dtype]
    top = int(mpmath.frexp(x)[1]) - 1
    if top > 1 - least_exponent:
        below = infinity(dtype) - 1
    else:
        unit = max(top, least_exponent) - (precision - 1)
        n = int(mpmath.floor(mpmath.ldexp(x, -unit)))
        below = n + ((unit - least_exponent + precision - 1) << (precision - 1))
    return [p for p in range(below - 1, below + 3) if 0 <= p <= infinity(dtype)]


def exponent_range(dtype: str) -> tuple[int, int]:
    """The exponents of normal numbers."""
    return FLOATS[dtype][2], 1 - FLOATS[dtype][2]


def check_encode(patterns, dtype: str, fmt: LNSFormat, *, random_bits=None, **modes) -> None:
    """Every pattern, one oracle call each."""
    random = {} if random_bits is None else {"random_bits": np.array(random_bits, np.uint32)}
    found = encode_patterns(patterns, dtype, fmt, **random, **modes)
    assert found.dtype == fmt.dtype
    for i, (pattern, code) in enumerate(zip(patterns, found.tolist(), strict=True)):
        bits = 0 if random_bits is None else random_bits[i]
        expected = reference.encode(number(pattern, dtype), fmt, random_bits=bits, **modes)
        assert code == expected, (number(pattern, dtype), dtype, fmt, modes, bits)


# ------------------------------------------------------------------------------------------------------- round trips

SMALL = [(bits, fraction_bits) for bits in range(3, 11) for fraction_bits in range(bits - 1)]


def check_round_trip(fmt: LNSFormat, dtype: str, offset: int) -> int:
    """Nearest brings back every code whose value is a normal float, where floats are finer than the codes."""
    _, precision, _ = FLOATS[dtype]
    steps_per_binade = (1 << fmt.fraction_bits) / math.log2(fmt.base)
    if 1.01 * steps_per_binade > math.log(2) * 2 ** (precision - 1):
        return 0
    m = np.arange(1, fmt.sign_bit)
    exponent = (m - fmt.bias + offset) / steps_per_binade
    low, high = exponent_range(dtype)
    codes = m[(exponent > low + 1e-6) & (exponent < high + 1 - 2.0 ** (1 - precision))]
    codes = np.concatenate([[0, fmt.nan_code], codes, codes | fmt.sign_bit]).astype(fmt.dtype)
    floats = decode(codes, fmt, dtype, log_offset=offset)
    back = encode(floats, fmt, log_offset=offset, dtype="bfloat16" if dtype == "bfloat16" else None)
    np.testing.assert_array_equal(back, codes)
    return codes.size


@pytest.mark.parametrize(("bits", "fraction_bits"), SMALL)
def test_decode_then_encode_is_the_identity(bits, fraction_bits):
    for base in (2.0, 3.0, 4.0, 1.5, 1.01):
        fmt = LNSFormat(bits, fraction_bits, base=base)
        for offset in (0, 1, -3, 5 << fraction_bits):
            assert check_round_trip(fmt, "float64", offset) > 2
        for dtype in ("float32", "float16", "bfloat16"):
            for offset in (0, -(2 << fraction_bits) - 1):
                check_round_trip(fmt, dtype, offset)


@pytest.mark.parametrize("fmt", [lns12f6, lns16f7, lns16f10, LNSFormat(16, 14), LNSFormat(16, 3, base=1.1)], ids=str)
def test_decode_then_encode_is_the_identity_for_wide_formats(fmt):
    for offset in (0, 77):
        for dtype in FLOATS:
            check_round_trip(fmt, dtype, offset)
        assert check_round_trip(fmt, "float64", offset) >= 1 << 12


@pytest.mark.parametrize(("bits", "fraction_bits"), [(3, 0), (6, 2), (8, 0), (8, 3), (9, 4), (16, 7)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_powers_of_two_are_kept_by_every_mode(bits, fraction_bits, dtype):
    fmt = LNSFormat(bits, fraction_bits)
    low, high = exponent_range(dtype)
    for offset in (0, 3):
        m = np.arange(1, fmt.sign_bit)
        exponent, rest = np.divmod(m - fmt.bias + offset, 1 << fraction_bits)
        codes = m[(rest == 0) & (exponent >= low - FLOATS[dtype][1] + 1) & (exponent <= high)]
        codes = np.concatenate([codes, codes | fmt.sign_bit]).astype(fmt.dtype)
        floats = decode(codes, fmt, dtype, log_offset=offset).view(f"u{FLOATS[dtype][0] // 8}")
        for rounding in MODES:
            for bits32 in (0, 1, 2**31, 2**32 - 1) if rounding in STOCHASTIC else (None,):
                random = None if bits32 is None else np.full(codes.shape, bits32, np.uint32)
                back = encode_patterns(floats, dtype, fmt, rounding=rounding, log_offset=offset, random_bits=random)
                np.testing.assert_array_equal(back, codes)


# -------------------------------------------------------------------------------------------------- nearest: boundaries


def edge_points(fmt: LNSFormat, offset: int = 0) -> list[mpmath.mpf]:
    """Half of the smallest, the smallest, the greatest, and where it overflows."""
    smallest, greatest = offset - fmt.max_log, offset + fmt.max_log
    return [grid(fmt, smallest) / 2, *(grid(fmt, log) for log in (smallest, greatest, greatest + 0.5, greatest + 1))]


def extremes(dtype: str) -> list[int]:
    """Zero, the least subnormals, the greatest floats, infinity, and quiet NaN."""
    top = infinity(dtype)
    return [0, 1, 2, top - 2, top - 1, top, top | 1 << (FLOATS[dtype][1] - 2)]


@pytest.mark.parametrize("fmt", [lns6f2, lns8f3, lns8f5, LNSFormat(7, 0), LNSFormat(8, 2, base=10.0)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nearest_at_every_boundary(fmt, dtype):
    logs = range(-fmt.max_log - 2, fmt.max_log + 2)
    patterns = sorted({p for log in logs for p in bracket(grid(fmt, log + 0.5), dtype)})
    patterns = [*patterns, *(p for x in edge_points(fmt) for p in bracket(x, dtype)), *extremes(dtype)]
    check_encode(patterns, dtype, fmt)
    check_encode(negated(patterns, dtype), dtype, fmt, overflow="nan", underflow="saturate")


@pytest.mark.parametrize("base", [4.0, 16.0, 2.25, 1.5625, 6.25])
@pytest.mark.parametrize("offset", [0, 1, -7])
def test_ties_go_to_the_even_log_whatever_the_offset(base, offset):
    fmt = LNSFormat(7, 0, base=base)
    patterns = [p for log in range(-24, 24) for p in bracket(grid(fmt, log + 0.5), "float64")]
    check_encode(patterns, "float64", fmt, log_offset=offset)


@lru_cache
def octave_boundaries(fraction_bits: int, dtype: str) -> tuple[list[int], list[int]]:
    """For each midpoint of [1, 2) the last float below it and the first above, as patterns: E is j, then j + 1."""
    fmt = LNSFormat(32, fraction_bits)
    below = [bracket(grid(fmt, j + 0.5), dtype)[1] for j in range(1 << fraction_bits)]
    return below, [p + 1 for p in below]


@pytest.mark.parametrize("fmt", [lns12f6, lns16f7, lns16f10, LNSFormat(16, 9)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nearest_at_every_boundary_of_wide_formats(fmt, dtype):
    """All boundaries: one octave by the oracle, in a format without edges; the others are these times powers of two."""
    below, above = octave_boundaries(fmt.fraction_bits, dtype)
    wide = LNSFormat(32, fmt.fraction_bits)
    steps = 1 << fmt.fraction_bits
    for j, (p, q) in enumerate(zip(below, above, strict=True)):
        assert reference.encode(number(p, dtype), wide) == wide.bias + j
        assert reference.encode(number(q, dtype), wide) == wide.bias + j + 1
    octaves = fmt.bias // steps
    low, high = max(-octaves, exponent_range(dtype)[0]), min(octaves - 1, exponent_range(dtype)[1])
    ulp = 1 << (FLOATS[dtype][1] - 1)
    patterns, expected = [], []
    for exponent in range(low, high + 1):
        for side in (0, 1):
            patterns += [p + exponent * ulp for p in (below, above)[side]]
            expected += [fmt.bias + exponent * steps + j + side for j in range(steps)]
    found = encode_patterns(patterns, dtype, fmt)
    clipped = np.clip(expected, 1, fmt.max_magnitude)
    inside = np.array(expected) >= 1
    np.testing.assert_array_equal(found[inside], clipped[inside])
    np.testing.assert_array_equal(encode_patterns(negated(patterns, dtype), dtype, fmt)[inside],
                                  clipped[inside] | fmt.sign_bit)  # fmt: skip


@pytest.mark.parametrize("fmt", [lns12f6, lns16f7, lns16f10, LNSFormat(16, 0), LNSFormat(16, 14)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("offset", [0, 1000])
def test_the_edges_of_wide_formats(fmt, dtype, offset):
    points = edge_points(fmt, offset)
    patterns = [p for x in points for p in bracket(x, dtype)] + extremes(dtype)
    for overflow, underflow in (("saturate", "round"), ("nan", "saturate")):
        for rounding in ("nearest", *DIRECTED):
            modes = {"rounding": rounding, "overflow": overflow, "underflow": underflow, "log_offset": offset}
            check_encode(patterns, dtype, fmt, **modes)
            check_encode(negated(patterns, dtype), dtype, fmt, **modes)


@pytest.mark.parametrize("fmt", [lns16f7, lns16f10], ids=str)
def test_every_float32_of_an_octave(fmt):
    one = pattern_of(1.0, "float32")
    below, _ = octave_boundaries(fmt.fraction_bits, "float32")
    patterns = np.arange(one, one + (1 << 23), 1 if jit else 997, dtype=np.uint32)
    steps = np.searchsorted(np.array(below), patterns, side="left")
    np.testing.assert_array_equal(encode(patterns.view(np.float32), fmt), fmt.bias + steps)


@pytest.mark.parametrize("fmt", [lns8f3, lns16f7, LNSFormat(6, 0), LNSFormat(9, 4, base=3.0)], ids=str)
@pytest.mark.parametrize("rounding", MODES)
def test_every_half_is_its_double(fmt, rounding):
    """float16 and bfloat16 wholly, NaN payloads included: the result is that of the float64 with the same value."""
    patterns = np.arange(0, 1 << 16, 1 if jit else 97, dtype=np.uint16)
    random = None
    if rounding in STOCHASTIC:
        random = (patterns * np.uint32(2654435761)).astype(np.uint32)
    with np.errstate(invalid="ignore"):
        doubles = {
            "float16": patterns.view(np.float16).astype(np.float64),
            "bfloat16": (patterns.astype(np.uint32) << 16).view(np.float32).astype(np.float64),
        }
    for dtype, wide in doubles.items():
        expected = encode(wide, fmt, rounding=rounding, random_bits=random)
        found = encode_patterns(patterns, dtype, fmt, rounding=rounding, random_bits=random)
        np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------------------------------------ directed modes


@pytest.mark.parametrize("fmt", [lns6f2, lns8f3, LNSFormat(6, 1, base=2.25), LNSFormat(5, 0, base=3.0)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rounding", DIRECTED)
def test_directed_modes_at_every_grid_point(fmt, dtype, rounding):
    logs = range(-fmt.max_log - 1, fmt.max_log + 2)
    patterns = sorted({p for log in logs for p in bracket(grid(fmt, log), dtype)})
    patterns += [*bracket(edge_points(fmt)[0], dtype), *extremes(dtype)]
    check_encode(patterns, dtype, fmt, rounding=rounding)
    check_encode(negated(patterns, dtype), dtype, fmt, rounding=rounding, overflow="nan")
    for p in (patterns, negated(patterns, dtype)):
        check_encode(p[:12], dtype, fmt, rounding=rounding, underflow="saturate")


# ---------------------------------------------------------------------------------------------------- stochastic modes


def flip(x: float, fmt: LNSFormat, rounding: str, offset: int = 0) -> tuple[int, int, int]:
    """(T, up, down): the oracle goes up exactly for R < T. A guess by mpmath, judged by the oracle at T - 1 and T."""

    def code(random_bits):
        return reference.encode(x, fmt, rounding=rounding, log_offset=offset, random_bits=random_bits)

    with mpmath.workprec(500):
        size = mpmath.mpf(abs(x))
        smallest = grid(fmt, offset - fmt.max_log)
        log = mpmath.log(size) / mpmath.log(fmt.base) * (1 << fmt.fraction_bits)
        floor = mpmath.floor(log + mpmath.ldexp(1, -300))
        if size < smallest:
            share = size / smallest
        elif rounding == "stochastic_log":
            share = log - floor
        else:
            lo, hi = grid(fmt, floor), grid(fmt, floor + 1)
            share = (size - lo) / (hi - lo)
        guess = int(mpmath.ceil(mpmath.ldexp(share, 32) - mpmath.ldexp(1, -250)))
    down, up = code((1 << 32) - 1), code(0)
    if up == down:
        return (0 if guess <= 0 else 1 << 32), up, down
    guess = min(max(guess, 1), (1 << 32) - 1)
    assert code(guess - 1) == up, (x, fmt, rounding, guess)
    assert code(guess) == down, (x, fmt, rounding, guess)
    return guess, up, down


def hard_floats(fmt: LNSFormat, count: int, dtype: str = "float64", offset: int = 0) -> list[int]:
    """Patterns inside the range: next to grid points, next to the quarters, random ones, below the smallest."""
    rng = np.random.default_rng(fmt.bits * 64 + fmt.fraction_bits)
    patterns = []
    for log in rng.integers(offset - fmt.max_log, offset + fmt.max_log, count // 8):
        patterns += bracket(grid(fmt, int(log)), dtype)
        for share in (0.25, 0.5, float(rng.random())):
            patterns += bracket(grid(fmt, int(log) + share), dtype)[1:2]
        patterns += bracket((grid(fmt, int(log)) + grid(fmt, int(log) + 1)) / 2, dtype)[1:2]
    smallest = grid(fmt, offset - fmt.max_log)
    for share in (0.999999, 0.5, 0.3, 1e-5, 1e-9, 1e-11, 1e-40):
        patterns += bracket(smallest * share, dtype)
    return [p for p in patterns if 0 < p < infinity(dtype)]


STOCHASTIC_FORMATS = [
    (lns8f3, 0),
    (lns16f7, 0),
    (lns16f10, 0),
    (LNSFormat(16, 14), 0),
    (LNSFormat(12, 0), 0),
    (LNSFormat(12, 0), -60),
    (lns8f3, -8 * 1060),
    (lns8f3, 8 * 1015),
    (LNSFormat(8, 3, base=3.0), 0),
    (LNSFormat(8, 2, base=4.0), 3),
    (LNSFormat(7, 0, base=2.25), 0),
    (LNSFormat(7, 1, base=2.25), 0),
    (LNSFormat(7, 3, base=1e10), 0),
    (LNSFormat(5, 1, base=1e300), 0),
    (LNSFormat(12, 0, base=1.0001), 0),
    (LNSFormat(12, 8, base=1.0000001), 0),
    (LNSFormat(8, 0, base=NEXT_TO_ONE), 0),
    (LNSFormat(8, 6, base=1.0 + 2.0**-40), 0),
    (LNSFormat(8, 3, base=3.0), -5100),
]


@pytest.mark.parametrize("rounding", STOCHASTIC)
@pytest.mark.parametrize(("fmt", "offset"), STOCHASTIC_FORMATS, ids=str)
def test_the_random_bits_flip_where_the_oracle_says(fmt, offset, rounding):
    """R = T - 1 goes up and R = T does not, T the oracle's ceil(2^32 p); so do the extreme R."""
    patterns, random, expected = [], [], []
    for pattern in hard_floats(fmt, 80, "float64", offset):
        t, up, down = flip(number(pattern, "float64"), fmt, rounding, offset)
        for r in {0, t - 2, t - 1, t, t + 1, (1 << 32) - 1}:
            if 0 <= r < 1 << 32:
                code = up if r < t else down
                patterns += [pattern, *negated([pattern], "float64")]
                random += [r, r]
                expected += [code, signed(code, fmt)]
    found = encode_patterns(
        patterns, "float64", fmt, rounding=rounding, log_offset=offset, random_bits=np.array(random, np.uint32)
    )
    wrong = np.flatnonzero(found != np.array(expected))
    assert wrong.size == 0, [(number(patterns[i], "float64"), random[i], found[i], expected[i]) for i in wrong[:4]]


@pytest.mark.parametrize(
    ("fmt", "rounding", "x", "random_bits", "code"),
    [
        (LNSFormat(16, 14), "stochastic_value", 1.4460981784428582, 4293255014, 25102),
        (LNSFormat(16, 14), "stochastic_value", 1.6328502606055069, 3945557551, 27973),
        (LNSFormat(16, 14), "stochastic_log", 1.0934628085904519, 4147301849, 18495),
        (LNSFormat(15, 13), "stochastic_value", 1.0442651090276374, 3873350691, 8704),
        (LNSFormat(15, 13), "stochastic_log", 1.1751986665226692, 4101726174, 10100),
        (LNSFormat(16, 13), "stochastic_log", 1.0241461360752402, 4216189165, 16666),
    ],
)
def test_flips_that_a_step_rounded_to_float64_gets_wrong(fmt, rounding, x, random_bits, code):
    """Found by search: 2^(2^-14) - 1 from the nearest float64 is off by 2^-39, and T by more than a 256th of a unit."""
    assert reference.encode(x, fmt, rounding=rounding, random_bits=random_bits) == code
    found = encode(np.array([x]), fmt, rounding=rounding, random_bits=np.array([random_bits], np.uint32))
    assert found.tolist() == [code]


def signed(code: int, fmt: LNSFormat) -> int:
    return code | fmt.sign_bit if code else 0


@pytest.mark.parametrize("rounding", STOCHASTIC)
@pytest.mark.parametrize("fmt", [LNSFormat(16, 14), LNSFormat(16, 12), LNSFormat(14, 2, base=1.001)], ids=str)
def test_the_random_bits_flip_for_fine_formats(fmt, rounding):
    """Where lo and hi are close, p is a quotient of small differences."""
    rng = np.random.default_rng(1)
    low, high = math.log2(fmt.min_value), math.log2(fmt.max_value)
    x = np.exp2(rng.uniform(low, high, 600))
    flips = [flip(float(v), fmt, rounding) for v in x]
    t = np.array([f[0] for f in flips])
    for r, side in ((t - 1, 1), (t, 2)):
        keep = (r >= 0) & (r < 1 << 32)
        found = encode(x[keep], fmt, rounding=rounding, random_bits=r[keep].astype(np.uint32))
        np.testing.assert_array_equal(found, np.array([f[side] for f in flips])[keep])


@pytest.mark.parametrize("rounding", STOCHASTIC)
@pytest.mark.parametrize(
    ("fmt", "x"),
    [
        (lns8f3, 1.03),
        (lns8f3, -37.7),
        (lns8f3, 2.0**-7.875 * 0.3),
        (lns6f2, 1.5),
        (LNSFormat(8, 0), 3.0),
        (LNSFormat(8, 0, base=4.0), 2.0),
        (LNSFormat(8, 1, base=2.25), 1.25),
        (lns16f7, 0.1),
        (lns16f10, -3.3333),
        (LNSFormat(9, 2, base=3.0), 5.0),
        (LNSFormat(12, 0, base=1.001), 1.0004),
    ],
    ids=str,
)
def test_the_share_that_goes_up_is_exact(fmt, x, rounding):
    """R = i 2^16 for every i: as many go up as are below T, no more and no fewer."""
    t, up, down = flip(x, fmt, rounding)
    step = 1 << (16 if jit else 22)
    random = np.arange(0, 1 << 32, step, dtype=np.uint64).astype(np.uint32)
    found = encode(np.full(random.shape, x), fmt, rounding=rounding, random_bits=random)
    if up == down:
        assert (found == up).all()
        return
    assert np.isin(found, [up, down]).all()
    assert np.count_nonzero(found == up) == -(-t // step)


@pytest.mark.skipif(not jit, reason="2^24 elements need the compiled kernels")
@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_the_share_that_goes_up_is_exact_in_24_bits(rounding):
    t, up, down = flip(1.2345, lns16f7, rounding)
    total = 0
    for start in range(0, 1 << 32, 1 << 28):
        random = (start + np.arange(0, 1 << 28, 1 << 8, dtype=np.uint64)).astype(np.uint32)
        found = encode(np.full(random.shape, np.float32(1.2345)), lns16f7, rounding=rounding, random_bits=random)
        total += np.count_nonzero(found == up)
        assert ((found == up) | (found == down)).all()
    t, up, down = flip(float(np.float32(1.2345)), lns16f7, rounding)
    assert total == -(-t // (1 << 8))


@pytest.mark.parametrize(
    ("fmt", "x", "t"),
    [
        (LNSFormat(8, 0), 1.5, 1 << 31),
        (LNSFormat(8, 0), 1.25, 1 << 30),
        (LNSFormat(8, 0), 1.0 + 2.0**-32, 1),
        (LNSFormat(8, 0), 1.0 + 2.0**-33, 1),
        (LNSFormat(8, 0), 1.0 + 2.0**-31 + 2.0**-52, 3),
        (LNSFormat(8, 0), 2.0 - 2.0**-32, (1 << 32) - 1),
        (LNSFormat(8, 1, base=2.25), 1.25, 1 << 31),
        (LNSFormat(8, 0, base=3.0), 2.0, 1 << 31),
        (LNSFormat(8, 0, base=3.0), 6.0, 1 << 31),
        (LNSFormat(8, 0), 2.0**-64, 1 << 31),
        (LNSFormat(8, 0), 2.0**-95, 1),
        (LNSFormat(8, 0), 5e-324, 1),
    ],
)
def test_probabilities_known_by_heart(fmt, x, t):
    """Value axis, lo = 1 and hi = base, or below the smallest, 2^-63: p is a fraction of 2^32."""
    random = np.array([t - 1, t], np.uint32)
    below, at = encode(np.full(2, x), fmt, rounding="stochastic_value", random_bits=random)
    assert below == at + 1


# ---------------------------------------------------------------------------------------------------------- hypothesis

bases = st.one_of(
    st.just(2.0),
    st.sampled_from([3.0, 4.0, 2.25, 1.5, 10.0, 16.0, 1.0000001, 1e300, math.exp(0.001), NEXT_TO_ONE]),
    st.floats(1.0001, 50.0),
)


@st.composite
def formats(draw, max_bits=16):
    base = draw(bases)
    bits = draw(st.integers(3, max_bits if base == 2.0 else min(max_bits, 10)))
    return LNSFormat(bits, draw(st.integers(0, bits - 2)), base=base)


def log_of(x: float, fmt: LNSFormat) -> int:
    with mpmath.workprec(200):
        log = mpmath.log(abs(x)) / mpmath.log(fmt.base) * (1 << fmt.fraction_bits)
        return int(mpmath.nint(log))


@st.composite
def encode_cases(draw):
    """A format, floats as patterns, and an offset that brings one of them near a place of the range."""
    fmt = draw(formats())
    dtype = draw(st.sampled_from(sorted(FLOATS)))
    patterns = draw(st.lists(st.integers(0, (1 << FLOATS[dtype][0]) - 1), min_size=1, max_size=6))
    offset = draw(st.sampled_from([0, 0, 1, -1, MAX_LOG_OFFSET, -MAX_LOG_OFFSET]))
    first = number(patterns[0], dtype)
    if draw(st.booleans()) and math.isfinite(first) and first:
        place = draw(st.sampled_from([0, fmt.max_log, -fmt.max_log, -fmt.max_log - 1, fmt.max_log // 2]))
        offset = max(-MAX_LOG_OFFSET, min(log_of(first, fmt) - place, MAX_LOG_OFFSET))
    patterns += [p + d for p in patterns for d in (-1, 1) if 0 <= p + d < 1 << FLOATS[dtype][0]]
    return fmt, dtype, patterns, offset


@settings(max_examples=250)
@given(
    encode_cases(),
    st.sampled_from(MODES),
    st.sampled_from(["saturate", "nan"]),
    st.sampled_from(["round", "saturate"]),
    st.integers(0, 2**32 - 1),
)
@example((LNSFormat(3, 0), "float64", [pattern_of(-0.0), pattern_of(5e-324)], 0), "nearest", "nan", "round", 0)
@example((LNSFormat(3, 0), "float16", [0x8000, 1, 0x7C00, 0xFC00, 0x7C01, 0xFE00], 0), "up", "nan", "saturate", 0)
@example((LNSFormat(8, 0, base=1e300), "float64", [pattern_of(1e300)], 63), "stochastic_value", "nan", "round", 5)
def test_encode_is_the_oracle(case, rounding, overflow, underflow, random_bits):
    fmt, dtype, patterns, offset = case
    random = [(random_bits * (2 * i + 1)) & 0xFFFFFFFF for i in range(len(patterns))]
    check_encode(
        patterns, dtype, fmt, rounding=rounding, overflow=overflow, underflow=underflow, log_offset=offset,
        random_bits=random if rounding in STOCHASTIC else None,
    )  # fmt: skip


@settings(max_examples=60)
@given(formats(10), st.lists(st.floats(width=32), min_size=6, max_size=6), st.sampled_from(MODES), st.data())
def test_offsets_and_random_bits_broadcast(fmt, values, rounding, data):
    x = np.array(values, np.float32).reshape(2, 3)
    shape = data.draw(st.sampled_from([(), (1,), (3,), (1, 3), (2, 1), (2, 3), (1, 1)]))
    spread = data.draw(st.integers(-150, 150))
    offsets = np.array([spread * (i % 3 - 1) + i for i in range(math.prod(shape))], np.int32).reshape(shape)
    random = None
    if rounding in STOCHASTIC:
        random_shape = data.draw(st.sampled_from([(), (3,), (2, 1), (2, 3)]))
        random = np.arange(math.prod(random_shape), dtype=np.uint32).reshape(random_shape) * np.uint32(700_000_001)
    found = encode(x, fmt, rounding=rounding, log_offset=offsets, random_bits=random)
    wide_offsets = np.broadcast_to(offsets, x.shape)
    wide_random = np.broadcast_to(0 if random is None else random, x.shape)
    for at in np.ndindex(x.shape):
        modes = {"rounding": rounding, "log_offset": int(wide_offsets[at]), "random_bits": int(wide_random[at])}
        assert found[at] == reference.encode(float(x[at]), fmt, **modes)
    floats = decode(found, fmt, "float32", log_offset=offsets).view(np.uint32)
    for at in np.ndindex(x.shape):
        assert floats[at] == reference.decode(int(found[at]), fmt, "float32", log_offset=int(wide_offsets[at]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (2, 3), (5, 1, 2)])
def test_shapes_and_layouts(dtype, shape):
    size = math.prod(shape)
    patterns = (np.arange(size) * 0x0123_4567_89AB) % infinity(dtype)
    flat = array_of(patterns, dtype)
    expected = [reference.encode(number(int(p), dtype), lns8f3) for p in patterns]
    named = {"dtype": "bfloat16"} if dtype == "bfloat16" else {}
    x = flat.reshape(shape)
    layouts = [x, x.copy(order="F"), x.astype(x.dtype.newbyteorder()), np.repeat(x[..., None], 2, -1)[..., 1]]
    for layout in layouts:
        found = encode(layout, lns8f3, **named)
        assert found.shape == shape
        assert found.dtype == np.uint8
        assert found.reshape(-1).tolist() == expected
    codes = np.array(expected, np.uint8).reshape(shape)
    for layout in (codes, codes.copy(order="F"), np.repeat(codes[..., None], 2, -1)[..., 1]):
        floats = decode(layout, lns8f3, dtype)
        assert floats.shape == shape
        assert floats.dtype == flat.dtype
        assert [reference.decode(c, lns8f3, dtype) for c in expected] == floats.reshape(-1).view(
            f"u{FLOATS[dtype][0] // 8}"
        ).tolist()


# -------------------------------------------------------------------------------------------------------------- decode


@lru_cache(maxsize=1 << 17)
def expected_float(log: int, fraction_bits: int, base: float, dtype: str) -> int:
    """The oracle's bit pattern of base^(log / 2^fraction_bits), in lowest terms, so that formats share the answers."""
    while fraction_bits and log % 2 == 0:
        log, fraction_bits = log // 2, fraction_bits - 1
    if fraction_bits == 0 and log == 0:
        base = 2.0
    return reduced_float(log, fraction_bits, base, dtype)


@lru_cache(maxsize=1 << 17)
def reduced_float(log: int, fraction_bits: int, base: float, dtype: str) -> int:
    fmt = LNSFormat(32, fraction_bits, base=base)
    return reference.decode(fmt.bias + log - log // 2, fmt, dtype, log_offset=log // 2)


def check_decode_table(fmt: LNSFormat, dtype: str, offset: int) -> None:
    """All codes of a format; the oracle is asked for the positive ones."""
    found = decode(np.arange(1 << fmt.bits, dtype=fmt.dtype), fmt, dtype, log_offset=offset)
    patterns = found.view(f"u{FLOATS[dtype][0] // 8}").tolist()
    positive = [
        expected_float(m - fmt.bias + offset, fmt.fraction_bits, fmt.base, dtype) for m in range(1, fmt.sign_bit)
    ]
    sign = 1 << (FLOATS[dtype][0] - 1)
    nan = infinity(dtype) | 1 << (FLOATS[dtype][1] - 2)
    assert patterns == [0, *positive, nan, *(p | sign if p else 0 for p in positive)]


def decode_offsets(fmt: LNSFormat, dtype: str) -> list[int]:
    """0, and what puts one end of the codes among the least subnormals, or the other beyond infinity."""
    _, precision, least_exponent = FLOATS[dtype]
    steps = (1 << fmt.fraction_bits) / math.log2(fmt.base)
    into_subnormals = round((least_exponent - precision) * steps) + fmt.max_log // 2
    into_infinity = round((2 - least_exponent) * steps) - fmt.max_log // 2
    return [0, 1, *(max(-MAX_LOG_OFFSET, min(o, MAX_LOG_OFFSET)) for o in (into_subnormals, into_infinity))]


@pytest.mark.parametrize(("bits", "fraction_bits"), SMALL)
def test_decode_every_code(bits, fraction_bits):
    fmt = LNSFormat(bits, fraction_bits)
    for dtype in FLOATS:
        for offset in decode_offsets(fmt, dtype):
            check_decode_table(fmt, dtype, offset)


@pytest.mark.parametrize("base", [3.0, 4.0, 2.25, 1.0000001, 1e300, NEXT_TO_ONE, math.nextafter(2.0, 3.0)])
@pytest.mark.parametrize("width", [(3, 0), (5, 1), (7, 3)])
def test_decode_every_code_of_other_bases(width, base):
    fmt = LNSFormat(*width, base=base)
    for dtype in FLOATS:
        for offset in [*decode_offsets(fmt, dtype), MAX_LOG_OFFSET, -MAX_LOG_OFFSET]:
            check_decode_table(fmt, dtype, offset)


@pytest.mark.parametrize("fmt", [lns12f6, lns16f7, lns16f10, LNSFormat(16, 0), LNSFormat(16, 14)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_decode_codes_of_wide_formats(fmt, dtype):
    rng = np.random.default_rng(fmt.fraction_bits)
    for offset in decode_offsets(fmt, dtype):
        codes = rng.integers(0, 1 << fmt.bits, 100).astype(fmt.dtype)
        found = decode(codes, fmt, dtype, log_offset=offset).view(f"u{FLOATS[dtype][0] // 8}")
        assert found.tolist() == [reference.decode(int(c), fmt, dtype, log_offset=offset) for c in codes]


def test_decode_of_exact_ties():
    """9^n is odd: its float is exact until 53 bits, then a tie wherever half an ulp is all that is left."""
    fmt = LNSFormat(8, 0, base=math.ldexp(2**26 + 1, -26))
    check_decode_table(fmt, "float64", 0)
    check_decode_table(fmt, "float32", 0)
    fmt = LNSFormat(6, 0, base=257.0)
    check_decode_table(fmt, "bfloat16", 0)
    fmt = LNSFormat(6, 0, base=2049.0)
    check_decode_table(fmt, "float16", 0)


# ------------------------------------------------------------------------------------------------------------- convert


def check_convert(fmt, to, codes, *, random_bits=None, **modes) -> None:
    random = {} if random_bits is None else {"random_bits": np.array(random_bits, np.uint32)}
    found = convert(np.array(codes, fmt.dtype), fmt, to, **random, **modes)
    assert found.dtype == to.dtype
    for i, (code, result) in enumerate(zip(codes, found.tolist(), strict=True)):
        bits = 0 if random_bits is None else random_bits[i]
        expected = reference.convert(int(code), fmt, to, random_bits=bits, **modes)
        assert result == expected, (int(code), fmt, to, modes, bits)


CONVERSIONS = [
    (lns8f5, lns6f2),
    (lns6f2, lns8f5),
    (lns8f3, LNSFormat(8, 4)),
    (LNSFormat(8, 4), LNSFormat(5, 0)),
    (LNSFormat(8, 0), lns8f3),
    (LNSFormat(7, 2, base=4.0), LNSFormat(7, 2, base=8.0)),
    (LNSFormat(7, 2, base=2.25), LNSFormat(7, 0, base=1.5)),
    (LNSFormat(7, 0, base=4.0), LNSFormat(7, 1, base=16.0)),
    (LNSFormat(7, 2), LNSFormat(7, 2, base=3.0)),
    (LNSFormat(7, 0, base=3.0), LNSFormat(7, 3)),
    (LNSFormat(7, 0, base=27.0), LNSFormat(7, 0, base=9.0)),
    (LNSFormat(6, 0, base=1e300), LNSFormat(6, 0, base=NEXT_TO_ONE)),
    (LNSFormat(6, 4, base=NEXT_TO_ONE), LNSFormat(6, 0, base=1e300)),
    (LNSFormat(6, 0, base=1.0001), LNSFormat(6, 4, base=1.00001)),
]


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize(("fmt", "to"), CONVERSIONS, ids=str)
def test_convert_every_code(fmt, to, rounding):
    codes = range(1 << fmt.bits)
    for i, (offset, out_offset) in enumerate(((0, 0), (3, -2))):
        random = [(c * 2654435769) & 0xFFFFFFFF for c in codes] if rounding in STOCHASTIC else None
        policies = {"overflow": ("saturate", "nan")[i], "underflow": "round"}
        modes = {"rounding": rounding, "log_offset": offset, "out_log_offset": out_offset, **policies}
        check_convert(fmt, to, codes, random_bits=random, **modes)
    check_convert(fmt, to, codes[::5], random_bits=random and random[::5], rounding=rounding, underflow="saturate")


@pytest.mark.parametrize(
    ("fmt", "to", "offset"),
    [
        (LNSFormat(8, 5), LNSFormat(8, 2), 0),
        (LNSFormat(8, 5), LNSFormat(8, 0), 0),
        (LNSFormat(8, 5), LNSFormat(5, 2), 6),
        (LNSFormat(8, 3, base=3.0), LNSFormat(8, 1), 0),
        (LNSFormat(8, 3, base=1.5), LNSFormat(8, 0, base=2.25), 0),
        (LNSFormat(7, 3), LNSFormat(7, 1, base=16.0), 0),
        (LNSFormat(8, 3, base=1e10), LNSFormat(4, 0, base=1e30), 0),
        (LNSFormat(9, 3, base=1.0001), LNSFormat(6, 0, base=1.001), 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_the_random_bits_flip_a_conversion_where_the_oracle_says(fmt, to, offset, rounding):
    """T found by bisection with the oracle: R = T - 1 goes up, R = T does not."""

    def code(source, random_bits):
        return reference.convert(source, fmt, to, rounding=rounding, out_log_offset=offset, random_bits=random_bits)

    sources, random, expected = [], [], []
    for source in range(1, fmt.sign_bit, 11):
        lo, hi = 0, (1 << 32) - 1
        up, down = code(source, lo), code(source, hi)
        if up == down:
            continue
        while hi - lo > 1:
            middle = (lo + hi) // 2
            lo, hi = (middle, hi) if code(source, middle) == up else (lo, middle)
        sources += [source, source]
        random += [lo, hi]
        expected += [up, down]
    found = convert(
        np.array(sources, fmt.dtype), fmt, to, rounding=rounding, out_log_offset=offset,
        random_bits=np.array(random, np.uint32),
    )  # fmt: skip
    np.testing.assert_array_equal(found, expected)
    assert len(sources) >= 4


@settings(max_examples=60)
@given(
    formats(9), formats(16), st.sampled_from(MODES), st.sampled_from(["saturate", "nan"]),
    st.sampled_from(["round", "saturate"]), st.integers(-600, 600), st.integers(-600, 600),
    st.integers(0, 2**32 - 1), st.integers(0, 1 << 30),
)  # fmt: skip
def test_convert_is_the_oracle(fmt, to, rounding, overflow, underflow, offset, out_offset, random_bits, seed):
    some = np.random.default_rng(seed).integers(0, 1 << fmt.bits, 10).tolist()
    codes = [0, 1, fmt.max_magnitude, fmt.nan_code, fmt.nan_code + 1, *some]
    random = [(random_bits * (2 * i + 1)) & 0xFFFFFFFF for i in range(len(codes))]
    check_convert(
        fmt, to, codes, rounding=rounding, overflow=overflow, underflow=underflow, log_offset=offset,
        out_log_offset=out_offset, random_bits=random if rounding in STOCHASTIC else None,
    )  # fmt: skip


def test_convert_to_the_same_format_and_offset_is_the_identity():
    for fmt in (lns8f3, LNSFormat(10, 4, base=3.0), lns12f6):
        codes = np.arange(1 << fmt.bits).astype(fmt.dtype)
        for rounding in MODES:
            random = np.uint32(77) if rounding in STOCHASTIC else None
            found = convert(codes, fmt, fmt, rounding=rounding, log_offset=5, out_log_offset=5, random_bits=random)
            np.testing.assert_array_equal(found, codes)


# ------------------------------------------------------------------------------------------------------ fit_log_offset


@settings(max_examples=150)
@given(formats(), st.lists(st.floats(width=32), max_size=5), st.sampled_from(MODES))
@example(lns8f3, [100.0, -300.0], "nearest")
@example(lns8f3, [2.0**7.875, 1.0], "nearest")
@example(lns8f3, [-math.inf, math.nan, 0.0], "up")
@example(LNSFormat(8, 0, base=4.0), [2.0], "nearest")
@example(LNSFormat(8, 0, base=4.0), [8.0], "nearest")
@example(lns8f3, [3.0, -5.0], "down")
@example(lns8f3, [3.0, -5.0], "up")
@example(lns8f3, [1.401298464324817e-45], "nearest")
def test_fit_is_the_least_offset_at_which_nothing_saturates(fmt, values, rounding):
    x = np.array(values, np.float32)
    finite = [v for v in x.tolist() if math.isfinite(v) and v]
    if finite:
        assume(max(abs(log_of(v, fmt)) for v in finite) < MAX_LOG_OFFSET - 10)
    offset = fit_log_offset(x, fmt, rounding=rounding)
    if not finite:
        assert offset == 0
        return

    def overflows(at):
        return any(
            reference.encode(v, fmt, rounding=rounding, overflow="nan", log_offset=at) == fmt.nan_code for v in finite
        )

    assert not overflows(offset)
    assert overflows(offset - 1)
    assert fit_log_offset(x.astype(np.float64), fmt, rounding=rounding) == offset


def test_fit_of_subnormals_empty_and_extreme():
    assert fit_log_offset(np.array([5e-324]), lns8f3) == -1074 * 8 - 63
    assert fit_log_offset(np.array([]), lns8f3) == 0
    assert fit_log_offset(np.zeros((2, 2)), lns8f3) == 0
    assert fit_log_offset(np.float32(1.0), lns8f3) == -63
    assert fit_log_offset(np.full((3, 4), 2.0, np.float16), lns8f3) == -55


def test_fit_beyond_every_offset():
    with pytest.raises(ValueError, match=r"log_offset=.* is too large: at most 2\^30"):
        fit_log_offset(np.array([1e300]), LNSFormat(8, 6, base=1.0000001))


# ---------------------------------------------------------------------------------------------------------------- laws


@settings(max_examples=40)
@given(formats(), st.sampled_from(["nearest", *DIRECTED]), st.integers(-50, 50), st.integers(0, 1 << 30))
def test_order_is_kept(fmt, rounding, offset, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, 300) * np.exp2(rng.uniform(-140, 140, 300))
    x = np.sort(np.concatenate([x, [0.0, -0.0, 5e-324, -5e-324, math.inf, -math.inf]]))
    codes = encode(x, fmt, rounding=rounding, log_offset=offset).astype(np.int64)
    ordered = np.where(codes >= fmt.sign_bit, fmt.sign_bit - codes, codes)
    assert (np.diff(ordered) >= 0).all()


@settings(max_examples=40)
@given(formats(), st.integers(-50, 50), st.lists(st.floats(allow_nan=False), min_size=1, max_size=30))
def test_signs_are_symmetric(fmt, offset, values):
    x = np.array(values)
    mirror = {"up": "down", "down": "up"}
    for rounding in MODES:
        for policy in ("saturate", "nan"):
            modes = {"overflow": policy, "log_offset": offset}
            modes["random_bits"] = np.uint32(123456789) if rounding in STOCHASTIC else None
            codes = encode(x, fmt, rounding=rounding, **modes)
            mirrored = encode(-x, fmt, rounding=mirror.get(rounding, rounding), **modes)
            special = (codes & fmt.max_magnitude) == 0
            np.testing.assert_array_equal(mirrored, np.where(special, codes, codes ^ fmt.dtype.type(fmt.sign_bit)))


@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_more_random_bits_never_go_up_more(rounding):
    x = np.linspace(-9, 9, 200)
    random = np.sort(np.random.default_rng(3).integers(0, 1 << 32, 50, dtype=np.uint32))
    codes = encode(np.repeat(x[:, None], 50, 1), lns8f3, rounding=rounding, random_bits=random)
    magnitudes = (codes & lns8f3.max_magnitude).astype(int)
    assert (np.diff(magnitudes, axis=1) <= 0).all()
    assert (np.ptp(magnitudes, axis=1) <= 1).all()


@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, LNSFormat(3, 0), LNSFormat(8, 1, base=3.0)], ids=str)
def test_specials(fmt):
    x = np.array([0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf])
    for rounding in MODES:
        for offset in (0, MAX_LOG_OFFSET, -MAX_LOG_OFFSET):
            random = np.uint32(0) if rounding in STOCHASTIC else None
            for underflow in ("round", "saturate"):
                modes = {"rounding": rounding, "log_offset": offset, "random_bits": random, "underflow": underflow}
                nan, top = fmt.nan_code, fmt.max_magnitude
                assert encode(x, fmt, **modes).tolist() == [0, 0, nan, nan, top, top | fmt.sign_bit]
                assert encode(x, fmt, overflow="nan", **modes).tolist() == [0, 0, nan, nan, nan, nan]


def test_inputs_are_not_written_to():
    x = np.array([1.0, -3.0])
    x.flags.writeable = False
    codes = encode(x, lns8f3)
    codes.flags.writeable = False
    decode(codes, lns8f3)
    convert(codes, lns8f3, lns8f5)
    first = decode(codes, lns8f3)
    first[:] = 7.0
    assert decode(codes, lns8f3)[0] == 1.0


# -------------------------------------------------------------------------------------------------------------- errors

ONES = np.ones((2, 3))
CODES = np.full((2, 3), 64, np.uint8)


@pytest.mark.parametrize(
    ("x", "modes", "error", "message"),
    [
        (np.ones(3, np.int64), {}, TypeError, r"float16, bfloat16 or a float8 of ml_dtypes, not int64"),
        (np.ones(3, np.uint16), {}, TypeError, r"not uint16"),
        (np.ones(3, bool), {}, TypeError, r"not bool"),
        (np.ones(3, complex), {}, TypeError, r"not complex128"),
        (np.array(["1"]), {}, TypeError, r"not str"),
        (np.ones(3), {"dtype": "bfloat16"}, TypeError, r"bfloat16"),
        (np.ones(3), {"dtype": "float32"}, TypeError, r"float32"),
        (np.ones(3, np.uint32), {"dtype": "bfloat16"}, TypeError, r"bfloat16"),
        (np.ones(3, np.uint16), {"dtype": "float16"}, TypeError, r"float16"),
        (np.ones(3), {"dtype": "float8"}, TypeError, r"float8"),
        (ONES, {"rounding": "even"}, ValueError, r"rounding='even' is not known: one of nearest, toward_zero"),
        (ONES, {"rounding": None}, ValueError, r"rounding=None is not known"),
        (ONES, {"overflow": "inf"}, ValueError, r"overflow='inf' is not known: one of saturate, nan"),
        (ONES, {"underflow": "zero"}, ValueError, r"underflow='zero' is not known: one of round, saturate"),
        (ONES, {"rounding": "stochastic_log"}, ValueError, r"rounding='stochastic_log' needs random_bits"),
        (ONES, {"rounding": "stochastic_value"}, ValueError, r"rounding='stochastic_value' needs random_bits"),
        (ONES, {"random_bits": np.zeros((2, 3), np.uint32)}, ValueError, r"rounding='nearest' takes no random_bits"),
        (ONES, {"rounding": "stochastic_log", "random_bits": np.zeros((2, 3), np.int64)}, TypeError, r"not int64"),
        (ONES, {"rounding": "stochastic_log", "random_bits": np.zeros((2, 3))}, TypeError, r"not float64"),
        (ONES, {"rounding": "stochastic_log", "random_bits": 5}, TypeError, r"uint32"),
        (ONES, {"rounding": "stochastic_log", "random_bits": np.zeros(2, np.uint32)}, ValueError, r"broadcast"),
        (ONES, {"rounding": "stochastic_log", "random_bits": np.zeros((1, 2, 3), np.uint32)}, ValueError, r"broadcast"),
    ],
)  # fmt: skip
def test_errors_of_encode(x, modes, error, message):
    with pytest.raises(error, match=message):
        encode(x, lns8f3, **modes)


@pytest.mark.parametrize(
    ("offset", "error", "message"),
    [
        (MAX_LOG_OFFSET + 1, ValueError, r"too large: at most 2\^30 in size"),
        (-MAX_LOG_OFFSET - 1, ValueError, r"too large: at most 2\^30 in size"),
        (10**30, ValueError, r"too large"),
        (0.5, TypeError, r"log_offset=0.5 is a float: give an integer number of code steps"),
        (1.0, TypeError, r"log_offset=1.0 is a float"),
        (True, TypeError, r"log_offset=True is a bool"),
        (None, TypeError, r"log_offset=None is a NoneType"),
        ("fit", TypeError, r"log_offset='fit' is a str"),
        (np.zeros(3), TypeError, r"float64"),
        (np.zeros(3, bool), TypeError, r"bool"),
        (np.array([0, 2**30 + 1, 0]), ValueError, r"too large"),
        (np.array([0, -(2**31), 0], np.int32), ValueError, r"too large"),
        (np.array([0, 2**40, 0], np.uint64), ValueError, r"too large"),
        (np.zeros(2, np.int32), ValueError, r"\(2,\).*broadcast.*\(2, 3\)"),
        (np.zeros((1, 2, 3), np.int32), ValueError, r"\(1, 2, 3\).*broadcast.*\(2, 3\)"),
    ],
)
def test_errors_of_offsets(offset, error, message):
    with pytest.raises(error, match=message):
        encode(ONES, lns8f3, log_offset=offset)
    with pytest.raises(error, match=message):
        decode(CODES, lns8f3, log_offset=offset)


@pytest.mark.parametrize("offset", [0.5, None, MAX_LOG_OFFSET + 1, -MAX_LOG_OFFSET - 1, True])
@pytest.mark.parametrize("which", ["log_offset", "out_log_offset"])
def test_errors_of_the_offsets_of_convert(which, offset):
    with pytest.raises((TypeError, ValueError), match=r"log_offset=.* is (a|too large)"):
        convert(CODES, lns8f3, lns8f5, **{which: offset})


@pytest.mark.parametrize(
    ("codes", "fmt", "error", "message"),
    [
        (np.ones(3), lns8f3, TypeError, r"not float64"),
        (np.ones(3, bool), lns8f3, TypeError, r"not bool"),
        (np.array([3, 256, 0]), lns8f3, ValueError, r"code 256 at index \(1,\) is outside lns8f3"),
        (np.array([[3, -1]]), lns8f3, ValueError, r"code -1 at index \(0, 1\) is outside lns8f3"),
        (np.array([64], np.uint8), lns6f2, ValueError, r"code 64 at .* outside lns6f2: its codes are 0 to 63"),
        (np.array(1024, np.uint16), lns10f5, ValueError, r"code 1024 is outside lns10f5"),
        (np.array([2**63], np.uint64), lns16f7, ValueError, r"outside lns16f7"),
    ],
)  # fmt: skip
def test_errors_of_codes(codes, fmt, error, message):
    for call in (lambda: decode(codes, fmt), lambda: convert(codes, fmt, lns8f5)):
        with pytest.raises(error, match=message):
            call()


def test_other_errors():
    for dtype in ("float8", "int32", np.int64, "double"):
        with pytest.raises(ValueError, match=r"dtype=.* is not known: one of float64, float32, float16, bfloat16"):
            decode(CODES, lns8f3, dtype)
    for wrong in ("lns8f3", None, 8):
        for call in (
            lambda f: encode(ONES, f), lambda f: decode(CODES, f), lambda f: convert(CODES, f, lns8f3),
            lambda f: convert(CODES, lns8f3, f), lambda f: fit_log_offset(ONES, f),
        ):  # fmt: skip
            with pytest.raises(TypeError, match=r"LNSFormat"):
                call(wrong)
    for modes, message in (
        ({"rounding": "odd"}, r"rounding='odd' is not known"),
        ({"overflow": "odd"}, r"overflow='odd' is not known"),
        ({"underflow": "odd"}, r"underflow='odd' is not known"),
        ({"rounding": "stochastic_log"}, r"needs random_bits"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(CODES, lns8f3, lns8f5, **modes)
    with pytest.raises(ValueError, match=r"rounding='odd' is not known"):
        fit_log_offset(ONES, lns8f3, rounding="odd")
    with pytest.raises(TypeError, match=r"not int64"):
        fit_log_offset(np.ones(3, np.int64), lns8f3)


# ------------------------------------------------------------------------------------------------------ flush to zero

FLUSH = """
import ctypes, mmap, sys
import numpy as np
if {flush}:
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes([0x0F, 0xAE, 0x17, 0xC3]))  # ldmxcsr [rdi]; ret
    set_mxcsr = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    mxcsr = ctypes.c_uint32(0x9FC0)  # flush to zero, denormals are zero, exceptions masked
    set_mxcsr(ctypes.addressof(mxcsr))
least = float(np.uint64(1).view(np.float64))
assert (least * 3.0 == 0.0) == {flush}, "the processor does not flush"

from lnsnum import LNSFormat, convert, decode, encode, fit_log_offset

lines = []
for fmt, offset in ((LNSFormat(8, 3), -8400), (LNSFormat(8, 3), -1100), (LNSFormat(12, 0), 0),
                    (LNSFormat(8, 2, base=3.0), -2650), (LNSFormat(16, 3), 0)):
    for dtype, fraction in (("float64", 52), ("float32", 23), ("float16", 10), ("bfloat16", 7)):
        width = 8 if dtype == "float64" else 4 if dtype == "float32" else 2
        patterns = np.unique(np.geomspace(1, (1 << fraction) + 5, 60).astype(f"u{{width}}"))
        patterns = np.concatenate([patterns, patterns | patterns.dtype.type(1 << (8 * width - 1))])
        named = {{"dtype": dtype}} if dtype == "bfloat16" else {{}}
        x = patterns if named else patterns.view(dtype)
        for rounding in ("nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"):
            random = np.uint32(1 << 30) if rounding.startswith("stoch") else None
            codes = encode(x, fmt, rounding=rounding, log_offset=offset, random_bits=random, **named)
            lines.append((fmt.name, dtype, rounding, codes.tolist()))
            to = convert(codes, fmt, LNSFormat(9, 3, base=1.7), rounding=rounding, log_offset=offset,
                         random_bits=random, out_log_offset=-5000)
            lines.append((fmt.name, dtype, "convert", to.tolist()))
        floats = decode(codes, fmt, dtype, log_offset=offset)
        lines.append((fmt.name, dtype, "decode", floats.view(patterns.dtype).tolist()))
        for part in (x, x[:20], x[60:70], x[:1]):
            lines.append((fmt.name, dtype, "fit", fit_log_offset(part, fmt, **named)))
print(*lines, sep="\\n")
"""


def executable_pages() -> bool:
    if platform.machine() not in ("x86_64", "AMD64") or not hasattr(mmap, "PROT_EXEC"):
        return False
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return hasattr(ctypes, "CFUNCTYPE")


@pytest.mark.skipif(not executable_pages(), reason="sets the x86-64 control register by machine code, not allowed here")
def test_subnormals_are_read_even_where_the_processor_flushes_them():
    """The same calls in two fresh processes, one of which flushes subnormals to zero from its first line on."""
    normal, flushed = (
        subprocess.run([sys.executable, "-c", FLUSH.format(flush=flush)], capture_output=True, text=True, check=False)
        for flush in (False, True)
    )
    assert normal.returncode == 0, normal.stderr
    assert flushed.returncode == 0, flushed.stderr
    pairs = list(zip(normal.stdout.splitlines(), flushed.stdout.splitlines(), strict=True))
    assert len(pairs) > 300
    assert [pair for pair in pairs if pair[0] != pair[1]] == []
