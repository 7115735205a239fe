"""Encoding in vectors: the margin by exhaustion of the float32 mantissas, and the codes of the slow path everywhere.

The slow path (`encode_each`) is what test_conversions.py holds against the oracle; here it is the oracle.
"""

import mpmath
import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lnsnum import (
    LNSFormat,
    decode,
    encode,
    encoding,
    lns4f1,
    lns8f3,
    lns8f5,
    lns12f6,
    lns16f7,
    lns16f10,
    lns32f23,
    random_bits,
    reference,
)
from lnsnum.encoding import SIDES, encode_patterns, float_patterns
from lnsnum.kernels import scalar_encoding, vector_encoding
from lnsnum.kernels.rounding import MODES, target
from lnsnum.kernels.scalar_encoding import encode_each
from lnsnum.kernels.scales import Scales
from lnsnum.kernels.vector_encoding import CHUNK, SINGLE_ERROR, lane, moves, positions, terms

jit = not numba.config.DISABLE_JIT
F32 = np.float32
SQRT_HALF = 0x3F3504F3

FORMATS = [
    LNSFormat(3, 0), lns4f1, LNSFormat(5, 2), lns8f3, LNSFormat(9, 4), lns8f5, lns12f6, lns16f7, lns16f10,
    LNSFormat(16, 12), LNSFormat(8, 3, base=4.0), LNSFormat(10, 0, base=2.0 ** (1 / 4)),
    LNSFormat(9, 0, base=2.0 ** 0.2),
]  # fmt: skip
"""K = 1 to 4096, of bases whose K is an integer, and one whose K is not."""

WIDE = [lns32f23, LNSFormat(20, 11), LNSFormat(32, 30), LNSFormat(16, 13), LNSFormat(24, 14, base=4.0)]


def each(x, fmt, *, log_offset=0, random=None, **modes) -> np.ndarray:
    """The codes by the path without vectors."""
    patterns = float_patterns(x, None).reshape(-1)
    out = np.empty(patterns.shape, fmt.dtype)
    random = np.zeros(1, np.uint32) if random is None else random
    sides = SIDES.get(modes.get("rounding", "nearest"))
    encode_each(patterns, random, fmt, target(fmt, log_offset, **modes), sides, out)
    return out


def check(x, fmt, *, log_offset=0, random=None, **modes) -> None:
    """In vectors and one by one, in a whole number of chunks and a part."""
    stochastic = modes.get("rounding", "nearest").startswith("stochastic")
    x = np.resize(x, max(CHUNK + 37, len(x)))
    if stochastic:
        random = random_bits(x.size, seed=9) if random is None else np.resize(random, x.size)
    given = {"random_bits": random} if stochastic else {}
    found = encode(x, fmt, log_offset=log_offset, **given, **modes)
    np.testing.assert_array_equal(found, each(x, fmt, log_offset=log_offset, random=random, **modes))


@pytest.mark.skipif(not jit, reason="every mantissa, by the compiled kernel")
def test_the_margin_holds_for_every_float32_mantissa():
    """From sqrt(1/2) to sqrt(2), against the logarithm in long double, and a sample of that against mpmath."""
    mantissas = np.arange(SQRT_HALF, SQRT_HALF + (1 << 23), dtype=np.int32)
    by = lane(target(lns8f3, 0))._replace(octave=np.int32(1), steps=F32(1.0))
    floors, rests = np.empty(mantissas.size, np.int32), np.empty(mantissas.size, F32)
    positions(mantissas, by, floors, rests)
    position = floors + rests.astype(np.float64)
    exact = np.log2(mantissas.view(F32).astype(np.longdouble))
    sample = np.linspace(0, mantissas.size - 1, 1000).astype(int)
    for i in sample:
        assert abs(mpmath.mpf(str(exact[i])) - mpmath.log(mpmath.mpf(float(mantissas.view(F32)[i])), 2)) < 2.0**-50
    assert np.abs(position - exact).max() < 0.8 * SINGLE_ERROR


@pytest.mark.skipif(not jit, reason="every mantissa, by the compiled kernels")
@pytest.mark.parametrize("fmt", [lns8f3, LNSFormat(9, 4), lns8f5, lns16f10], ids=str)
@pytest.mark.parametrize("rounding", [mode for mode in MODES if not mode.startswith("stochastic")])
def test_every_mantissa_of_an_octave_is_encoded_as_one_by_one(fmt, rounding):
    x = np.arange(0x3F800000, 0x40000000, dtype=np.uint32).view(F32)
    for sign in (F32(1), F32(-1)):
        np.testing.assert_array_equal(encode(sign * x, fmt, rounding=rounding), each(sign * x, fmt, rounding=rounding))


def near_boundaries(fmt, log_offset) -> np.ndarray:
    """Floats at and next to grid points and midpoints, at the edges of the range, and special ones."""
    wide = LNSFormat(16, min(fmt.fraction_bits + 1, 14), base=fmt.base)
    every = np.arange(1, wide.max_magnitude + 1, max(1, wide.max_magnitude // 4000)).astype(wide.dtype)
    grid = decode(every, wide, "float32", log_offset=2 * log_offset)
    ends = decode(np.array([1, 2, fmt.max_magnitude], fmt.dtype), fmt, "float32", log_offset=log_offset)
    with np.errstate(over="ignore"):
        some = np.concatenate([grid, ends, ends / 2, ends * 2, 2.0 ** np.arange(-149, 128, dtype=F32)]).astype(F32)
        near = np.concatenate([some, np.nextafter(some, F32(0)), np.nextafter(some, F32(np.inf))])
    special = np.array([0, np.inf, np.nan, 1e-45, 1.1754942e-38, 1.17549435e-38, 3.4e38], F32)
    near = np.concatenate([near, special])
    return np.concatenate([near, -near])


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("rounding", MODES)
def test_next_to_every_boundary(fmt, rounding):
    for offset in (0, -3, 1000, -(1 << 30)):
        x = near_boundaries(fmt, min(max(offset, -2000), 2000))
        for overflow, underflow in (("saturate", "round"), ("nan", "saturate")):
            check(x, fmt, log_offset=offset, rounding=rounding, overflow=overflow, underflow=underflow)


@pytest.mark.parametrize("fmt", WIDE, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_formats_and_doubles(fmt, dtype):
    rng = np.random.default_rng(0)
    x = np.concatenate([near_boundaries(fmt, 0), rng.normal(size=3000).astype(F32)]).astype(dtype)
    with np.errstate(over="ignore"):
        x = np.concatenate([x, np.nextafter(x, dtype == "float64")])
    for offset in (0, 7, -(fmt.bias // 2)):
        for overflow, underflow in (("saturate", "round"), ("nan", "saturate")):
            check(x, fmt, log_offset=offset, overflow=overflow, underflow=underflow)


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50),
    st.sampled_from(FORMATS),
    st.integers(-2000, 2000),
    st.sampled_from(MODES),
    st.sampled_from(["round", "saturate"]),
)
@example([0x00000001, 0x80000001], [0, 1], lns16f7, -20000, "stochastic_value", "round")
def test_any_pattern(patterns, words, fmt, log_offset, rounding, underflow):
    x, random = np.array(patterns, np.uint32).view(F32), np.array(words, np.uint32)
    check(x, fmt, log_offset=log_offset, random=random, rounding=rounding, underflow=underflow)


@pytest.mark.parametrize("rounding", ["stochastic_log", "stochastic_value"])
@pytest.mark.parametrize("fmt", [LNSFormat(5, 0), lns8f3, lns8f5, lns16f10], ids=str)
def test_words_next_to_the_probability(fmt, rounding):
    """Random bits that decide by their last ones, for positions across a step and below the smallest."""
    x = np.concatenate([2.0 ** np.linspace(0, 1, 400), 2.0 ** -np.linspace(0, 20, 200)]).astype(F32)
    low, high = np.zeros(x.size, np.int64), np.full(x.size, 2**32 - 1)
    down = each(x, fmt, rounding=rounding, random=high.astype(np.uint32))
    while (low + 1 < high).any():
        middle = (low + high) // 2
        is_down = each(x, fmt, rounding=rounding, random=middle.astype(np.uint32)) == down
        low, high = np.where(is_down, low, middle), np.where(is_down, middle, high)
    for shift in range(-2000, 2001, 250):
        check(x, fmt, rounding=rounding, random=np.clip(low + shift, 0, 2**32 - 1).astype(np.uint32))
    for shift in (-1, 0, 1):
        check(x, fmt, rounding=rounding, random=np.clip(low + shift, 0, 2**32 - 1).astype(np.uint32))


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 4096])
def test_the_terms_are_those_of_the_probability(steps):
    """(b^f - 1) / (b - 1) to within 2^-26, b = 2^(1/steps)."""
    for f in (0.0, 0.1, 0.5, 0.99, 1.0):
        p = sum(float(c) * f ** (k + 1) for k, c in enumerate(terms(float(steps))))
        b = mpmath.mpf(2) ** (mpmath.mpf(1) / steps)
        assert abs(p - (b**f - 1) / (b - 1)) < 2.0**-24


@pytest.mark.parametrize("rounding", MODES)
def test_a_seed_is_the_random_bits_of_that_seed(rounding):
    x = np.random.default_rng(0).normal(size=(5, 1001)).astype(F32)
    key = {"seed": 3, "stream": 4, "step": 5}
    random = random_bits(x.shape, **key) if rounding.startswith("stochastic") else None
    channels = np.array([-3, 0, 2, 7, 9], np.int32)[:, None]
    for fmt in (lns8f5, lns32f23, LNSFormat(8, 3, base=3.0)):
        for offset in (0, channels):
            for part in (x, x[:1, :7]):
                at = offset[: len(part)] if isinstance(offset, np.ndarray) else offset
                bits = None if random is None else random_bits(part.shape, **key)
                expected = encode(part, fmt, rounding=rounding, random_bits=bits, log_offset=at)
                np.testing.assert_array_equal(encode(part, fmt, rounding=rounding, **key, log_offset=at), expected)


@pytest.mark.parametrize("rounding", ["stochastic_log", "stochastic_value"])
def test_a_seed_where_all_or_a_few_are_left_open(rounding):
    for x in (np.full(5000, 1e-40, F32), np.full(5000, np.inf, F32), np.concatenate([np.ones(5000), [np.nan] * 3])):
        x = x.astype(F32)
        found = encode(x, lns16f7, rounding=rounding, seed=2, log_offset=-1000)
        expected = encode(x, lns16f7, rounding=rounding, random_bits=random_bits(x.size, seed=2), log_offset=-1000)
        np.testing.assert_array_equal(found, expected)


def test_a_seed_and_random_bits_are_too_much_and_a_bad_seed_is_refused():
    x = np.ones(3, F32)
    with pytest.raises(ValueError, match="leave out one"):
        encode(x, lns8f3, rounding="stochastic_log", seed=0, random_bits=random_bits(3, seed=0))
    with pytest.raises(ValueError, match="seed=-1 is out of range"):
        encode(x, lns8f3, rounding="stochastic_log", seed=-1)
    with pytest.raises(TypeError):
        encode(x, lns8f3, rounding="stochastic_log", seed=0.5)


@pytest.mark.parametrize("rounding", ["nearest", "up", "stochastic_value"])
def test_the_number_of_threads_changes_nothing(rounding):
    x = np.random.default_rng(1).normal(size=900_001).astype(F32)
    x[::1000] = np.nan
    patterns, outs = float_patterns(x, None), []
    modes = {"rounding": rounding, "overflow": "saturate", "underflow": "round"}
    for threads in (1, 2, 3):
        out = np.empty(x.size, np.uint8)
        encode_patterns(patterns, out, lns8f5, -20, key=(1, 2, 3), threads=threads, **modes)
        outs.append(out.tobytes())
    assert outs[0] == outs[1] == outs[2]
    key = {"seed": 1, "stream": 2, "step": 3} if rounding.startswith("stochastic") else {}
    assert encode(x, lns8f5, log_offset=-20, rounding=rounding, **key).tobytes() == outs[0]


def test_few_elements_are_left_open():
    """About 2^-21 K of random ones: what makes the vectors worth it."""
    x = np.random.default_rng(2).normal(size=1 << 16).astype(F32)
    for fmt, most in ((lns8f5, 20), (lns16f10, 200)):
        to, flags = target(fmt, 0), np.empty(1 << 16, np.int64)
        out = np.empty(x.size, fmt.dtype)
        arguments = (
            lane(to),
            moves(to, Scales.of(0, ())),
            terms(to.steps_in_two),
            np.zeros(1, np.uint32),
            False,
            (0, 0, 0),
            0,
            out,
            flags,
        )
        assert vector_encoding.encode_single(x.view(np.int32), to.mode, *arguments) < most


def test_zeros_are_not_left_open():
    x = np.zeros(1 << 12, F32)
    for fmt in (lns8f5, lns16f7):
        to, hard = target(fmt, 0), np.empty(x.size, np.int64)
        out = np.ones(x.size, fmt.dtype)
        arguments = (
            lane(to),
            moves(to, Scales.of(0, ())),
            terms(to.steps_in_two),
            np.zeros(1, np.uint32),
            False,
            (0, 0, 0),
            0,
            out,
            hard,
        )
        assert vector_encoding.encode_single(x.view(np.int32), to.mode, *arguments) == 0
        assert not out.any()
    assert encoding.encode(x, lns32f23).max() == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, lns32f23, LNSFormat(8, 3, base=3.0)], ids=str)
@pytest.mark.parametrize("rounding", ["stochastic_log", "stochastic_value"])
def test_numbers_on_the_grid_are_left_to_integers_by_a_few_words_alone(fmt, rounding, dtype, monkeypatch):
    """A float next to a grid point goes there whatever is drawn, but for words at the ends: there each is decided."""
    left, resolve = [], scalar_encoding.resolve
    monkeypatch.setattr(scalar_encoding, "resolve", lambda hard, *rest: (left.append(hard.size), resolve(hard, *rest)))
    rng = np.random.default_rng(4)
    m = fmt.bias + rng.integers(-3, 4, 3000) * (1 << fmt.fraction_bits) // 2 + rng.integers(0, 60, 3000)
    codes = (m | rng.choice([0, fmt.sign_bit], 3000)).astype(fmt.dtype)
    x = decode(codes, fmt, dtype)
    # what float32 rounds by is far more than a step of a wide format
    on_grid = dtype == "float64" or fmt.bits <= 16
    words = rng.integers(1 << 12, (1 << 32) - (1 << 12), 3000).astype(np.uint32)
    found = encode(x, fmt, rounding=rounding, random_bits=words)
    assert not on_grid or (np.array_equal(found, codes) and sum(left) < 10)
    for word in (0, (1 << 32) - 1):
        some = slice(0, 20)
        ends = encode(x[some], fmt, rounding=rounding, random_bits=np.full(20, word, np.uint32))
        expected = [reference.encode(float(v), fmt, rounding=rounding, random_bits=word) for v in x[some]]
        assert ends.tolist() == expected
