"""The operations against the oracle: all pairs of the small formats, Hypothesis for all others.

Values depend on E alone, so the oracle is asked once for each pair of E seen from the result's offset (shifted by an
even number of steps, which keeps the ties) and each sign, with a - b as a + (-b), b + a as a + b, and up for a negative
result as down for a positive one. That short cut is itself held against direct calls.
"""

import itertools
import math
import random
from fractions import Fraction
from functools import lru_cache, partial

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lnsnum import LNSFormat, arithmetic, lns4f1, lns6f2, lns8f3, lns8f5, lns10f5, lns16f10, lns32f23, reference
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.operations.functions import FAITHFUL_ULP

DETERMINISTIC = ["nearest", "toward_zero", "up", "down"]
STOCHASTIC = ["stochastic_log", "stochastic_value"]
POLICIES = list(itertools.product(["saturate", "nan"], ["round", "saturate"]))
OFFSETS = [(0, 0, 0), (5, -3, 0), (-7, 2, 3), (9, 12, 25), (MAX_LOG_OFFSET, -MAX_LOG_OFFSET, MAX_LOG_OFFSET - 3)]
"""log_offset of a, of b and of the result."""

SMALL = [lns4f1, lns6f2, LNSFormat(5, 1, base=1.7), LNSFormat(5, 1, base=4.0), LNSFormat(5, 0, base=16.0)]
"""At base 4, one fraction bit, and at base 16 sums tie: 1 + 1 is the geometric mean of two codes."""

NEAR_ONE = math.nextafter(1.0, 2.0)
ULP_BOUND = Fraction(FAITHFUL_ULP)
"""The error of a faithful function under nearest, in steps."""

BINARY = ["add", "subtract", "multiply", "divide"]
ROOTS = {"sqrt": Fraction(1, 2), "reciprocal": Fraction(-1), "square": Fraction(2)}
FAITHFUL = ["exp", "exp2", "log", "log2"]

all_small = pytest.mark.parametrize("fmt", SMALL, ids=str)
LAST = (1 << 32) - 1


def thoroughly(*cases):
    """Cases of a table of which the usual run has others."""
    return [pytest.param(case, marks=pytest.mark.thorough) for case in cases]


def all_codes(fmt):
    return np.arange(1 << fmt.bits, dtype=fmt.dtype)


def all_pairs(fmt):
    codes = all_codes(fmt)
    a, b = np.meshgrid(codes, codes, indexing="ij")
    return a.reshape(-1), b.reshape(-1)


def offsets_of(a, b, out):
    return {"a_log_offset": a, "b_log_offset": b, "out_log_offset": out}


def stochastic(rounding):
    return rounding in STOCHASTIC


def bits_of(rounding, value):
    return {"random_bits": value} if stochastic(rounding) else {}


def call(name, *arguments, **keywords):
    """The codes that a kernel gives, as integers of the result's format."""
    codes, log_offset = getattr(arithmetic, name)(*arguments, **keywords)
    out = keywords.get("out_format") or next(x for x in arguments if isinstance(x, LNSFormat))
    assert codes.dtype == out.dtype
    if isinstance(keywords.get("out_log_offset"), int):
        assert log_offset == keywords["out_log_offset"]
    return codes


# ------------------------------------------------------------------------------------- the oracle, asked less often


def limited(offset):
    """The offset, or the furthest there is: what lies beyond is beyond every code of the small formats too."""
    return max(-MAX_LOG_OFFSET, min(MAX_LOG_OFFSET, offset))


@lru_cache(maxsize=1 << 20)
def sum_of(fmt, x, y, apart, out, rounding, overflow, underflow, random_bits):
    """base^x + base^y, or base^x - base^y where `apart`, for logs x >= y."""
    one, minus = fmt.bias, fmt.sign_bit if apart else 0
    how = {"rounding": rounding, "overflow": overflow, "underflow": underflow, "random_bits": random_bits}
    return reference.add(one, one | minus, fmt, **offsets_of(x, y, out), **how)


@lru_cache(maxsize=1 << 20)
def power_of(fmt, x, out, rounding, overflow, underflow, random_bits):
    how = {"rounding": rounding, "overflow": overflow, "underflow": underflow, "random_bits": random_bits}
    return reference.power(fmt.bias, 1, fmt, log_offset=x, out_log_offset=out, **how)


def expected(name, a, b, fmt, offsets=(0, 0, 0), rounding="nearest", overflow="saturate", underflow="round", bits=0):
    """The code of the oracle for one pair, by the short cut that the docstring of this file tells of."""
    a, b, nan, minus = int(a), int(b), fmt.nan_code, fmt.sign_bit
    if nan in (a, b) or (name == "divide" and b == 0):
        return nan
    out, shift = offsets[2] % 2, offsets[2] - offsets[2] % 2
    x, y = ((code & fmt.max_magnitude) - fmt.bias + offset for code, offset in zip((a, b), offsets[:2], strict=True))
    policies = (overflow, underflow, bits)
    if name in ("multiply", "divide"):
        if 0 in (a, b):
            return 0
        negative = (a ^ b) & minus
        log = (x + y if name == "multiply" else x - y) - shift
        one = (power_of, fmt, limited(log), out)
    else:
        if name == "subtract" and b:
            b ^= minus
        if 0 in (a, b):
            if a == b == 0:
                return 0
            negative = (a or b) & minus
            one = (power_of, fmt, limited((x if a else y) - shift), out)
        else:
            if y > x:
                a, b, x, y = b, a, y, x
            negative = a & minus
            x, y = limited(x - shift), limited(y - shift)
            one = (sum_of, fmt, x, y, (a ^ b) & minus != 0, out)
    if negative:
        rounding = {"up": "down", "down": "up"}.get(rounding, rounding)
    code = one[0](*one[1:], rounding, *policies)
    return code ^ minus if negative and code not in (0, nan) else code


def expected_all(name, a, b, fmt, *arguments, **keywords):
    codes = [expected(name, p, q, fmt, *arguments, **keywords) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    return np.array(codes, fmt.dtype)


@pytest.mark.parametrize("name", BINARY)
def test_the_short_cut_is_the_oracle(name):
    draw = random.Random(name)
    for fmt in [*SMALL, lns8f3, lns8f5]:
        for _ in range(60):
            near = draw.choice([1, fmt.bias, fmt.max_magnitude, draw.randrange(1 << fmt.bits)])
            a, b = near % (1 << fmt.bits) | draw.choice([0, fmt.sign_bit]), draw.randrange(1 << fmt.bits)
            b = draw.choice([a, (a + 1) % (1 << fmt.bits), a ^ fmt.sign_bit, b, b])
            offsets = draw.choice(OFFSETS)
            rounding, (overflow, underflow) = draw.choice(DETERMINISTIC + STOCHASTIC), draw.choice(POLICIES)
            bits = draw.choice([0, 1, LAST, draw.randrange(1 << 32)]) if stochastic(rounding) else 0
            how = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
            direct = getattr(reference, name)(a, b, fmt, **offsets_of(*offsets), random_bits=bits, **how)
            assert expected(name, a, b, fmt, offsets, bits=bits, **how) == direct


# ------------------------------------------------------------------------------------------------- all pairs of codes


@lru_cache(maxsize=4)
def sum_table(fmt):
    """For each z >= 0 and sign: nearest E and floor of the sum above the greater E; None for an exact zero."""
    wide = LNSFormat(fmt.bits + 4, fmt.fraction_bits, base=fmt.base)
    table = {}
    for z, apart in itertools.product(range(fmt.max_magnitude), (0, 1)):
        both = [
            reference.add(
                fmt.bias,
                fmt.bias | (fmt.sign_bit if apart else 0),
                fmt,
                b_log_offset=-z,
                out_format=wide,
                rounding=mode,
            )
            for mode in ("nearest", "toward_zero")
        ]
        table[z, apart] = None if both == [0, 0] else tuple(code - wide.bias for code in both)
    return table


def all_sums(name, fmt):
    """add or subtract of all pairs in nearest at offset 0, from the table of z and the edges of base 2."""
    table = sum_table(fmt)
    octave, least, greatest = 1 << fmt.fraction_bits, 1 - fmt.bias, fmt.max_log
    codes = []
    for a, b in itertools.product(range(1 << fmt.bits), repeat=2):
        if fmt.nan_code in (a, b):
            codes.append(fmt.nan_code)
            continue
        if name == "subtract" and b:
            b ^= fmt.sign_bit
        if 0 in (a, b):
            codes.append(a or b)
            continue
        hi, lo = (a, b) if a & fmt.max_magnitude >= b & fmt.max_magnitude else (b, a)
        m_hi, m_lo = hi & fmt.max_magnitude, lo & fmt.max_magnitude
        found = table[m_hi - m_lo, int((a ^ b) & fmt.sign_bit != 0)]
        if found is None:
            codes.append(0)
            continue
        nearest, floor = (m_hi - fmt.bias + step for step in found)
        if floor < least:
            codes.append(hi & fmt.sign_bit | 1 if floor >= least - octave else 0)
        else:
            codes.append(hi & fmt.sign_bit | min(nearest, greatest) + fmt.bias)
    return np.array(codes, fmt.dtype)


@pytest.mark.parametrize("fmt", [lns8f3, lns8f5], ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_all_pairs_in_nearest(name, fmt):
    a, b = all_pairs(fmt)
    if name in ("add", "subtract"):
        predicted = all_sums(name, fmt)
        draw = np.random.default_rng(fmt.fraction_bits)
        magnitude = predicted & fmt.max_magnitude
        close = np.flatnonzero((magnitude <= 2) | (magnitude >= fmt.max_magnitude - 1))
        for i in np.concatenate([draw.integers(0, a.size, 600), draw.choice(close, 600)]):
            assert predicted[i] == getattr(reference, name)(int(a[i]), int(b[i]), fmt)
    else:
        predicted = expected_all(name, a, b, fmt)
    np.testing.assert_array_equal(call(name, a, b, fmt), predicted)


@pytest.mark.parametrize("fraction_bits", [1, 2, 3])
@pytest.mark.parametrize(
    "base", [1.851749424574581, 1.0489642553230345, 1.237726285305428, 1.2107173259617308, 1.1252244184384836]
)
def test_products_near_half_the_smallest_where_an_octave_is_almost_a_whole_number_of_steps(base, fraction_bits):
    """K = 2^F log_base 2 is an integer as a double, and is not."""
    fmt = LNSFormat(8, fraction_bits, base=base)
    octave = round(math.log(2) / math.log(base) * 2**fraction_bits)
    for name, sign in (("multiply", 1), ("divide", -1)):
        for total in range(-fmt.max_log - octave - 2, -fmt.max_log - octave + 3):
            a = total // 2
            pair = a + fmt.bias, sign * (total - a) + fmt.bias
            if not all(1 <= m <= fmt.max_magnitude for m in pair):
                continue
            many = [np.full(1 << 16, m, np.uint8) for m in pair]
            expected = getattr(reference, name)(*pair, fmt)
            assert (call(name, *many, fmt) == expected).all(), (name, pair)
            assert (call(name, many[0][:2], many[1][:2], fmt) == expected).all(), (name, pair)


EXACT_OF_TWO = ["minimum", "maximum", "copysign", "nextafter", "ulp_distance"]


@pytest.mark.parametrize("fmt", [*thoroughly(lns8f3), lns8f5], ids=str)
@pytest.mark.parametrize("name", [*EXACT_OF_TWO, "compare"])
def test_all_65536_pairs_of_the_exact_operations(name, fmt):
    a, b = all_pairs(fmt)
    found = getattr(arithmetic, name)(a, b, fmt)
    found = found[0] if isinstance(found, tuple) else found
    decide = getattr(reference, name)
    expected = [decide(x, y, fmt) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_array_equal(found, [2 if code is None else code for code in expected])


@pytest.mark.parametrize("fmt", [lns8f3, lns8f5], ids=str)
def test_all_65536_pairs_of_powers_are_within_the_bound(fmt):
    """Positive a: the position E_a b in float64, whose error is far below what the bound leaves."""
    a, b = all_pairs(fmt)
    a, b = a[(a > 0) & (a < fmt.sign_bit)], b[(a > 0) & (a < fmt.sign_bit)]
    found, _ = arithmetic.float_power(a, b, fmt)
    values = np.array([float(reference.value(int(code), fmt)) for code in all_codes(fmt)])
    position = (a.astype(np.int64) - fmt.bias) * values[b]
    position = np.where(b == 0, 0.0, position)
    nan = b == fmt.nan_code
    assert (found[nan] == fmt.nan_code).all()
    position, found = position[~nan], found[~nan].astype(np.int64)
    inside = np.abs(position) <= fmt.max_log
    assert (np.abs(found - fmt.bias - position)[inside] <= FAITHFUL_ULP + 1e-9).all()
    assert (found[position > fmt.max_log + 1] == fmt.max_magnitude).all()
    assert (found[position < -fmt.max_log - (1 << fmt.fraction_bits) - 1] == 0).all()


@all_small
@pytest.mark.parametrize("offsets", [*OFFSETS[:2], OFFSETS[3], *thoroughly(OFFSETS[2], OFFSETS[4])], ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_all_pairs_in_every_deterministic_mode(name, fmt, offsets):
    a, b = all_pairs(fmt)
    turn = OFFSETS.index(offsets) + BINARY.index(name)
    for i, rounding in enumerate(DETERMINISTIC):
        for overflow, underflow in POLICIES if fmt.bits < 5 else [POLICIES[(turn + i) % 4]]:
            how = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
            codes = call(name, a, b, fmt, **offsets_of(*offsets), **how)
            np.testing.assert_array_equal(codes, expected_all(name, a, b, fmt, offsets, **how))


def mixed(name, fmt, b_format, out_format, offsets, how, pairs):
    a, b = np.array(pairs).T
    codes = call(
        name, a.astype(fmt.dtype), b.astype(b_format.dtype), fmt, b_format=b_format, out_format=out_format,
        **offsets_of(*offsets), **how,
    )  # fmt: skip
    single = getattr(reference, name)
    keywords = {"b_format": b_format, "out_format": out_format, **offsets_of(*offsets), **how}
    if "random_bits" in keywords:
        keywords["random_bits"] = int(how["random_bits"])
    one = [single(p, q, fmt, **keywords) for p, q in pairs]
    np.testing.assert_array_equal(codes, np.array(one, out_format.dtype))


@pytest.mark.parametrize("rounding", DETERMINISTIC + STOCHASTIC)
@pytest.mark.parametrize("name", BINARY)
def test_mixed_formats(name, rounding):
    """Fewer fraction bits in the result round even a product; more of them move a difference off the codes' grid."""
    draw = random.Random(f"{name} {rounding}")
    three = [lns4f1, lns6f2, lns8f3, lns8f5, LNSFormat(9, 0), lns16f10, LNSFormat(5, 3)]
    for turn in range(40):
        fmt, b_format, out_format = (draw.choice(three) for _ in range(3))
        overflow, underflow = POLICIES[turn % 4]
        how = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
        how |= bits_of(rounding, np.uint32(draw.choice([0, 1, LAST, draw.randrange(1 << 32)])))
        offsets = draw.randrange(-9, 9), draw.randrange(-9, 9), draw.randrange(-9, 9)
        pairs = [(draw.randrange(1 << fmt.bits), draw.randrange(1 << b_format.bits)) for _ in range(12)]
        mixed(name, fmt, b_format, out_format, offsets, how, pairs)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("base", [1.0009765625, 1 + 2.0**-20, NEAR_ONE])
@pytest.mark.parametrize("name", ["multiply", "divide"])
def test_products_far_below_the_smallest(name, base, bits):
    """Where an octave is many steps, a result that many steps below the smallest is still no less than its half."""
    fmt = LNSFormat(bits, 0, base=base)
    b = 1 if name == "multiply" else fmt.max_magnitude
    a, b = np.array(1, fmt.dtype), np.array(b, fmt.dtype)
    for out in sorted({(1 << e) + d for e in range(30) for d in (-1, 0, 1)}):
        got = call(name, a, b, fmt, out_log_offset=out)
        assert int(got) == getattr(reference, name)(1, int(b), fmt, out_log_offset=out), out


# ---------------------------------------------------------------------------------- stochastic rounding, by counting


def threshold(code):
    """The number of R that do not give the code of R = 2^32 - 1: `code` is a step function of R, with one step."""
    low, high = 0, LAST
    if code(low) == code(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if code(middle) == code(high) else (middle, high)
    return high


def assert_counts(name, codes, *exponents, fmt, **how):
    """The kernel steps from one code to the other at the very R where the oracle does."""

    def one(bits):
        return getattr(reference, name)(*codes, *exponents, fmt, **how, random_bits=bits)

    at = threshold(one)
    tried = [0, LAST, *([] if at is None else [at - 1, at])]
    arrays = [np.full(len(tried), code, fmt.dtype) for code in codes]
    got = call(name, *arrays, *exponents, fmt, **how, random_bits=np.array(tried, np.uint32))
    assert got.tolist() == [one(bits) for bits in tried]


@pytest.mark.parametrize("rounding", STOCHASTIC)
@pytest.mark.parametrize("name", ["add", "subtract"])
@pytest.mark.parametrize(
    "fmt", [lns4f1, *thoroughly(LNSFormat(4, 1, base=1.7), LNSFormat(4, 1, base=4.0), lns6f2)], ids=str
)
def test_stochastic_sums_by_counting(name, rounding, fmt):
    a, b = all_pairs(fmt)
    if fmt.bits > 4:
        chosen = np.random.default_rng(1).integers(0, a.size, 120)
        a, b = a[chosen], b[chosen]
    settings = [((0, 0, 0), ("saturate", "round")), ((2, -1, 1), ("nan", "saturate"))]
    for offsets, (overflow, underflow) in settings if fmt == lns4f1 else settings[:1]:
        how = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
        each = []
        for p, q in zip(a.tolist(), b.tolist(), strict=True):
            code = partial(expected, name, p, q, fmt, offsets, *how.values())
            at = threshold(code)
            each += [(p, q, R, code(R)) for R in [0, LAST, *([] if at is None else [at - 1, at])]]
        p, q, bits, codes = np.array(each, np.int64).T
        got = call(
            name, p.astype(fmt.dtype), q.astype(fmt.dtype), fmt, **offsets_of(*offsets), **how,
            random_bits=bits.astype(np.uint32),
        )  # fmt: skip
        np.testing.assert_array_equal(got, codes)


@pytest.mark.parametrize("rounding", STOCHASTIC)
@pytest.mark.parametrize("base", [2.0, 1.7, 4.0])
def test_other_stochastic_results_by_counting(rounding, base):
    """Products into fewer fraction bits, fused ones, and powers."""
    fine, coarse = LNSFormat(5, 3, base=base), LNSFormat(5, 1, base=base)
    draw = random.Random(base)
    how = {"rounding": rounding, "out_log_offset": draw.randrange(-2, 3)}
    how |= {"out_format": coarse}
    for _ in range(12):
        a, b, c = (draw.randrange(1, 32) for _ in range(3))
        assert_counts("multiply", (a, b), fmt=fine, **how)
        assert_counts("divide", (a, b), fmt=fine, **how)
        assert_counts("fma", (a, b, c), fmt=fine, **how)
        assert_counts("power", (a,), draw.choice([Fraction(1, 2), Fraction(2, 3), Fraction(-5, 7), 3]), fmt=fine, **how)


# --------------------------------------------------------------------------------------------------- any format at all


bases = st.one_of(
    st.sampled_from([2.0, 4.0, 1.5, 3.0, 10.0, math.e, 1.0009765625, 16.0, math.sqrt(2), NEAR_ONE, 1e300]),
    st.floats(1.001, 20.0),
)
formats = st.tuples(st.integers(3, 32), bases).flatmap(
    lambda t: st.integers(0, t[0] - 2).map(lambda fraction_bits: LNSFormat(t[0], fraction_bits, base=t[1]))
)
some_offsets = st.one_of(
    st.just(0), st.integers(-50, 50), st.integers(-(1 << 20), 1 << 20), st.integers(-MAX_LOG_OFFSET, MAX_LOG_OFFSET)
)
modes = st.fixed_dictionaries(
    {
        "rounding": st.sampled_from(DETERMINISTIC + STOCHASTIC),
        "overflow": st.sampled_from(["saturate", "nan"]),
        "underflow": st.sampled_from(["round", "saturate"]),
        "random_bits": st.one_of(st.sampled_from([0, 1, 1 << 31, LAST - 1, LAST]), st.integers(0, LAST)),
    }
)


def random_codes(fmt):
    edges = [0, 1, 2, fmt.bias, fmt.max_magnitude, fmt.nan_code, fmt.nan_code + 1, 2 * fmt.nan_code - 1]
    return st.one_of(st.sampled_from(edges), st.integers(0, 2 * fmt.nan_code - 1))


def near(offset, far):
    return st.one_of(st.just(offset), st.integers(-far, far).map(lambda d: offset + d))


@st.composite
def sums(draw):
    """Two operands whose sum or difference is of a special kind, and a result's offset close to it."""
    fmt = draw(formats)
    a, offset = draw(random_codes(fmt)), draw(some_offsets)
    kind = draw(st.sampled_from(["any", "equal", "step", "octave", "small", "huge"]))
    octave = 1 << fmt.fraction_bits
    z = {
        "equal": 0,
        "step": 1,
        "octave": octave + draw(st.integers(-1, 1)),
        "small": draw(st.integers(1, 40)),
        "huge": draw(st.integers(1, 1 << 31)),
        "any": 0,
    }[kind]
    b, offset_b = draw(random_codes(fmt)), draw(some_offsets)
    if kind != "any":
        b, offset_b = a ^ (draw(st.sampled_from([0, fmt.sign_bit])) if a else 0), limited(offset - z)
    out = limited(offset + draw(st.one_of(st.integers(-3, 3), st.integers(-fmt.max_magnitude, fmt.max_magnitude))))
    return fmt, a, b, (offset, offset_b, out)


def assert_same(name, codes, fmt, how, **keywords):
    """One call of the kernel and of the oracle with the same arguments."""
    rounding, bits = how["rounding"], how["random_bits"]
    policies = {key: how[key] for key in ("rounding", "overflow", "underflow")}
    arrays = [np.array(code, fmt.dtype) for code in codes]
    got = call(name, *arrays, fmt, **keywords, **policies, **bits_of(rounding, np.uint32(bits)))
    assert int(got) == getattr(reference, name)(*codes, fmt, **keywords, **policies, random_bits=bits)


def mode(rounding, overflow="saturate", underflow="round", random_bits=0):
    return {"rounding": rounding, "overflow": overflow, "underflow": underflow, "random_bits": random_bits}


@given(sums(), modes)
@example((lns32f23, 1 << 30, 1 << 30, (0, 0, 0)), mode("nearest"))
@example((lns32f23, 1 << 30, 3 << 30, (0, -1, 0)), mode("nearest"))
@example((lns32f23, 1 << 30, 1 << 30, (MAX_LOG_OFFSET, -MAX_LOG_OFFSET, MAX_LOG_OFFSET)), mode("up"))
@example((lns32f23, 1 << 30, 3 << 30, (MAX_LOG_OFFSET, -MAX_LOG_OFFSET, MAX_LOG_OFFSET)), mode("down"))
@example((lns32f23, 1 << 30, 1 << 30, (1 << 30, -(1 << 30), 1 << 30)), mode("stochastic_value", random_bits=1))
@example((LNSFormat(32, 30), 1, (1 << 31) + 1, (0, -1, -(1 << 30))), mode("nearest"))
@example((LNSFormat(32, 30), 1 << 30, 1 << 30, (0, 1 << 30, 0)), mode("toward_zero"))
@example((LNSFormat(32, 30, base=NEAR_ONE), 1 << 30, 3 << 30, (0, -1, 0)), mode("nearest"))
@example((LNSFormat(32, 30, base=NEAR_ONE), 1 << 30, 1 << 30, (0, -5, 0)), mode("up"))
@example((LNSFormat(32, 0, base=1e300), 1 << 30, 3 << 30, (0, -1, 0)), mode("stochastic_log", random_bits=LAST))
@example((LNSFormat(4, 0, base=4.0), 4, 4, (0, 0, 0)), mode("nearest"))
@example((LNSFormat(4, 0, base=4.0), 5, 5, (0, 0, 0)), mode("nearest"))
@example((LNSFormat(5, 1, base=1.5), 8, 8, (0, -4, 0)), mode("nearest"))
def test_any_sum(case, how):
    fmt, a, b, offsets = case
    for name in ("add", "subtract"):
        assert_same(name, (a, b), fmt, how, **offsets_of(*offsets))


DTYPES = [(8, 8, 8, 8), (16, 16, 16, 16), (32, 32, 32, 32), (8, 32, 16, 8), (32, 8, 8, 16), (16, 16, 8, 32)]
"""Width of a, b, c and the result: not all 81, as each is compiled by itself."""


@st.composite
def mixed_operands(draw):
    base = draw(bases)
    three = []
    for dtype in draw(st.sampled_from(DTYPES)):
        bits = draw(st.integers(3 if dtype == 8 else dtype // 2 + 1, dtype))
        three.append(LNSFormat(bits, draw(st.integers(0, bits - 2)), base=base))
    codes = tuple(draw(random_codes(fmt)) for fmt in three[:3])
    offsets = tuple(draw(st.one_of(st.just(0), st.integers(-100, 100))) for _ in range(3))
    return three, codes, offsets, draw(st.integers(-300, 300))


@pytest.mark.thorough
@given(mixed_operands(), modes)
@example(([lns8f5, lns16f10, lns8f3, lns4f1], (64, 16385, 192), (0, 0, 0), 0), mode("nearest"))
@example(
    ([LNSFormat(32, 30), LNSFormat(3, 0), LNSFormat(3, 1), LNSFormat(32, 15)], (1, 2, 3), (0, 0, 0), 0), mode("up")
)
@example(([LNSFormat(32, 30), *[LNSFormat(3, 1)] * 3], (7, 2, 2), (0, 0, 0), 0), mode("nearest"))
def test_any_mixed_formats(case, how):
    (fmt, b_format, c_format, out_format), codes, offsets, out = case
    policies = {key: how[key] for key in ("rounding", "overflow", "underflow")}
    arrays = [np.array(code, f.dtype) for code, f in zip(codes, (fmt, b_format, c_format), strict=True)]
    kernel_bits = bits_of(how["rounding"], np.uint32(how["random_bits"]))
    common = {"out_format": out_format, "b_format": b_format, **offsets_of(*offsets[:2], out), **policies}
    for name in BINARY:
        got = call(name, *arrays[:2], fmt, **common, **kernel_bits)
        assert int(got) == getattr(reference, name)(*codes[:2], fmt, **common, random_bits=how["random_bits"])
    common |= {"c_format": c_format, "c_log_offset": offsets[2]}
    got = call("fma", *arrays, fmt, **common, **kernel_bits)
    assert int(got) == reference.fma(*codes, fmt, **common, random_bits=how["random_bits"])


@st.composite
def fused(draw):
    """a b close to c, or beside it, or anything."""
    fmt, a, b, (offset, _, out) = draw(sums())
    b_offset = draw(st.one_of(st.just(0), st.integers(-100, 100)))
    m_a, m_b = a & fmt.max_magnitude, b & fmt.max_magnitude
    c = draw(random_codes(fmt))
    log = m_a + m_b - fmt.bias + offset + b_offset - (c & fmt.max_magnitude)
    c_offset = limited(log - draw(st.one_of(st.integers(-2, 2), st.integers(-(1 << 31), 1 << 31))))
    return fmt, a, b, c, (limited(offset), b_offset, c_offset), limited(out + draw(st.integers(-2, 2)))


@given(fused(), modes)
@example((lns8f5, 80, 80, 192, (0, 0, 0), 0), mode("nearest"))
@example((lns8f5, 80, 80, 128 + 96, (0, 0, 0), 0), mode("nearest", underflow="saturate"))
@example((lns32f23, 1 << 30, 1 << 30, 3 << 30, (0, 0, -1), -MAX_LOG_OFFSET), mode("nearest"))
@example((lns32f23, 1, 1, 1 << 30, (-MAX_LOG_OFFSET, -MAX_LOG_OFFSET, MAX_LOG_OFFSET), MAX_LOG_OFFSET), mode("up"))
def test_any_fused_product(case, how):
    fmt, a, b, c, offsets, out = case
    names = ("a_log_offset", "b_log_offset", "c_log_offset")
    assert_same("fma", (a, b, c), fmt, how, **dict(zip(names, offsets, strict=True)), out_log_offset=out)


@pytest.mark.parametrize("fmt", [lns4f1, *thoroughly(LNSFormat(4, 1, base=4.0), LNSFormat(4, 0, base=1.7))], ids=str)
@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_all_fused_products_of_the_smallest_formats(fmt, rounding):
    codes = all_codes(fmt)
    a, b, c = (axis.reshape(-1) for axis in np.meshgrid(codes, codes, codes, indexing="ij"))
    how = {"rounding": rounding, "c_log_offset": 1, "out_log_offset": 1}
    log = {}
    for p, q, r in zip(a.tolist(), b.tolist(), c.tolist(), strict=True):
        key = None if fmt.nan_code in (p, q, r) else (p and q and (p & 7) + (q & 7), (p ^ q) & 8 and p and q, r)
        if (key, 0) not in log:
            log[key, 0] = reference.fma(p, q, r, fmt, **how)
        log[p, q, r] = log[key, 0]
    direct = random.Random(rounding).sample(list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True)), 200)
    assert all(log[key] == reference.fma(*key, fmt, **how) for key in direct)
    expected_codes = [log[key] for key in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)]
    np.testing.assert_array_equal(call("fma", a, b, c, fmt, **how), np.array(expected_codes, fmt.dtype))


# ------------------------------------------------------------------------------------------------- roots and powers


@pytest.mark.parametrize("rounding", DETERMINISTIC + STOCHASTIC)
@pytest.mark.parametrize("fmt", [lns8f3, lns8f5, *thoroughly(lns10f5), LNSFormat(7, 2, base=10.0)], ids=str)
def test_roots_of_all_codes(fmt, rounding):
    codes = all_codes(fmt)
    bits = np.random.default_rng(5).integers(0, 1 << 32, codes.shape, np.uint32)
    exponents = [0, 1, -3, 7, Fraction(1, 3), Fraction(-5, 6), Fraction(1 << 20, 1023), Fraction(1, 1024)]
    for i, (name, *exponent) in enumerate([(name,) for name in ROOTS] + [("power", n) for n in exponents]):
        overflow, underflow = POLICIES[(i + fmt.bits) % 4]
        how = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
        for log_offset, out in ((0, 0), (i - 4, 3))[: 2 if codes.size < 256 else 1 + i % 2]:
            keywords = {"log_offset": log_offset, "out_log_offset": out, **how}
            got = call(name, codes, *exponent, fmt, **keywords, **bits_of(rounding, bits))
            single = getattr(reference, name)
            one = [
                single(int(code), *exponent, fmt, **keywords, random_bits=int(R))
                for code, R in zip(codes, bits, strict=True)
            ]
            np.testing.assert_array_equal(got, np.array(one, fmt.dtype))


@st.composite
def powers(draw):
    fmt = draw(formats)
    p = draw(st.one_of(st.integers(-5, 5), st.integers(-(1 << 20), 1 << 20)))
    q = draw(st.one_of(st.integers(1, 4), st.integers(1, 1024)))
    exponent = Fraction(p, q) if draw(st.booleans()) or q == 1 else p
    a, offset = draw(random_codes(fmt)), draw(some_offsets)
    centre = round(((a & fmt.max_magnitude) - fmt.bias + offset) * exponent)
    out = draw(st.one_of(near(centre, 2), near(centre, fmt.max_magnitude), some_offsets))
    wide = draw(st.integers(0, fmt.bits - 2))
    return (
        fmt,
        a,
        exponent,
        offset,
        limited(out),
        draw(st.sampled_from([None, LNSFormat(fmt.bits, wide, base=fmt.base)])),
    )


@given(powers(), modes)
@example((lns32f23, (1 << 31) - 1, Fraction(1 << 20, 1023), MAX_LOG_OFFSET, MAX_LOG_OFFSET, None), mode("nearest"))
@example((LNSFormat(32, 30), 1, Fraction(-1, 1024), -(1 << 30), 1 << 20, None), mode("stochastic_value", random_bits=1))
@example((lns8f5, 65, Fraction(1, 2), 0, 0, None), mode("nearest"))
@example((lns8f5, 67, Fraction(1, 2), 0, 0, None), mode("nearest"))
@example((lns8f5, 128 + 65, -1, 0, 0, LNSFormat(8, 4)), mode("nearest"))
def test_any_power(case, how):
    fmt, a, exponent, offset, out, out_format = case
    keywords = {"log_offset": offset, "out_log_offset": out, "out_format": out_format}
    policies = {key: how[key] for key in ("rounding", "overflow", "underflow")}
    bits = bits_of(how["rounding"], np.uint32(how["random_bits"]))
    for name, given_exponent in (("power", [exponent]), *((name, []) for name in ROOTS)):
        got = call(name, np.array(a, fmt.dtype), *given_exponent, fmt, **keywords, **policies, **bits)
        one = getattr(reference, name)(a, *given_exponent, fmt, **keywords, **policies, random_bits=how["random_bits"])
        assert int(got) == one


# -------------------------------------------------------------------------------------------- the faithful functions


def allowed(bracket, rounding, fmt, out, overflow="saturate", underflow="round"):
    """The codes that the specification allows: the two of the bracket; under nearest those in the error bound."""
    lower, upper, log = bracket
    if rounding != "nearest" or lower == upper:
        return {lower, upper}
    least = 1 - fmt.bias + out
    codes = set()
    if log < least:
        half = least - (1 << fmt.fraction_bits) / math.log2(fmt.base)
        if log - Fraction(half) <= ULP_BOUND - Fraction(1, 2):
            codes.add(lower)
        if Fraction(half) - log <= ULP_BOUND - Fraction(1, 2):
            codes.add(upper)
        return codes
    if log - math.floor(log) <= ULP_BOUND:
        codes.add(lower)
    if math.ceil(log) - log <= ULP_BOUND:
        codes.add(upper)
    return codes


def assert_faithful(got, brackets, rounding, fmt, out, what, **policies):
    wrong = [
        (*what[i], int(code), bracket)
        for i, (code, bracket) in enumerate(zip(got.reshape(-1), brackets, strict=True))
        if int(code) not in allowed(bracket, rounding, fmt, out, **policies)
    ]
    assert not wrong, f"{len(wrong)} of {len(what)}, the first: {wrong[:3]}"


@pytest.mark.parametrize(
    "fmt", [lns8f3, lns8f5, lns10f5, LNSFormat(7, 2, base=10.0), LNSFormat(8, 4, base=1.7)], ids=str
)
@pytest.mark.parametrize("name", FAITHFUL)
def test_faithful_functions_of_all_codes(name, fmt):
    codes = all_codes(fmt)
    octave = 1 << fmt.fraction_bits
    settings = [(0, 0), (0, -octave), (-2 * octave, 0), (octave // 2, -3 * octave + 1), (-300, 2), (300, 40)]
    for i, (offset, out) in enumerate(settings):
        overflow, underflow = POLICIES[i % 4]
        policies = {"overflow": overflow, "underflow": underflow}
        keywords = {"log_offset": offset, "out_log_offset": out, **policies}
        brackets = [reference.bracket(name, fmt, int(code), **keywords) for code in codes]
        for rounding in DETERMINISTIC:
            got = call(name, codes, fmt, rounding=rounding, **keywords)
            assert_faithful(got, brackets, rounding, fmt, out, [(int(code),) for code in codes], **policies)


@pytest.mark.parametrize("fmt", [lns4f1, lns6f2, LNSFormat(5, 1, base=1.7), LNSFormat(5, 0, base=3.0)], ids=str)
def test_powers_with_lns_exponents_of_all_pairs(fmt):
    a, b = all_pairs(fmt)
    what = list(zip(a.tolist(), b.tolist(), strict=True))
    for offsets, (overflow, underflow) in zip(OFFSETS[:3], POLICIES, strict=False):
        policies = {"overflow": overflow, "underflow": underflow}
        how = {"log_offset": offsets[0], "b_log_offset": offsets[1], "out_log_offset": offsets[2]}
        brackets = [reference.bracket("float_power", fmt, p, q, **how, **policies) for p, q in what]
        for rounding in DETERMINISTIC:
            got = call("float_power", a, b, fmt, rounding=rounding, **offsets_of(*offsets), **policies)
            assert_faithful(got, brackets, rounding, fmt, offsets[2], what, **policies)


@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_stochastic_faithful_results_stay_in_the_bracket(rounding):
    codes = all_codes(lns8f5)
    for name in FAITHFUL:
        brackets = [reference.bracket(name, lns8f5, int(code)) for code in codes]
        for bits in (0, 1, 1 << 31, LAST):
            got = call(name, codes, lns8f5, rounding=rounding, random_bits=np.uint32(bits))
            assert_faithful(got, brackets, rounding, lns8f5, 0, [(int(code), bits) for code in codes])


def coarser(fmt):
    return LNSFormat(fmt.bits, fmt.fraction_bits // 2, base=fmt.base)


@st.composite
def faithful(draw):
    """An operand whose result is not far out of range, or anything."""
    fmt = draw(formats)
    per_octave = (1 << fmt.fraction_bits) / math.log2(fmt.base)
    a = draw(random_codes(fmt))
    log = (a & fmt.max_magnitude) - fmt.bias
    if draw(st.booleans()) and per_octave < 1e6:
        offset = limited(round(draw(st.floats(-40, 12)) * per_octave) - log)
    else:
        offset = draw(some_offsets)
    out = draw(st.one_of(st.integers(-fmt.max_magnitude, fmt.max_magnitude), some_offsets))
    return fmt, a, offset, limited(out)


@given(faithful(), st.sampled_from(DETERMINISTIC), st.sampled_from(POLICIES))
@example((lns32f23, 1 << 30, 0, 0), "nearest", ("saturate", "round"))
@example((lns32f23, (1 << 30) + 1, 0, 0), "nearest", ("saturate", "round"))
@example((lns32f23, (1 << 30) - 1, 0, -MAX_LOG_OFFSET), "nearest", ("saturate", "round"))
@example((LNSFormat(32, 30), (1 << 30) + 1, 0, -MAX_LOG_OFFSET), "up", ("saturate", "round"))
@example((lns32f23, 1 << 30, -MAX_LOG_OFFSET, 0), "down", ("saturate", "round"))
@example((lns32f23, 3 << 30, MAX_LOG_OFFSET, 0), "nearest", ("nan", "saturate"))
@example((LNSFormat(32, 30, base=NEAR_ONE), 5, 0, 0), "nearest", ("saturate", "round"))
@example((LNSFormat(32, 30, base=NEAR_ONE), (1 << 30) + 1, MAX_LOG_OFFSET, MAX_LOG_OFFSET), "nearest", ("nan", "round"))
@example((LNSFormat(32, 0, base=1e300), (1 << 30) + 1, 0, 0), "nearest", ("saturate", "round"))
def test_any_faithful_result(case, rounding, policies):
    """Into the operand's format, and into half as many fraction bits."""
    fmt, a, offset, out = case
    how = {"log_offset": offset, "out_log_offset": out, "overflow": policies[0], "underflow": policies[1]}
    for name, out_format in itertools.product(FAITHFUL, (fmt, coarser(fmt))):
        got = call(name, np.array(a, fmt.dtype), fmt, rounding=rounding, out_format=out_format, **how)
        bracket = reference.bracket(name, fmt, a, out_format=out_format, **how)
        assert int(got) in allowed(bracket, rounding, out_format, out), (name, out_format, bracket)


@given(faithful(), st.data(), st.sampled_from(DETERMINISTIC), st.sampled_from(POLICIES))
def test_any_power_with_an_lns_exponent(case, data, rounding, policies):
    fmt, b, b_offset, out = case
    a = data.draw(random_codes(fmt))
    offset = data.draw(st.one_of(st.just(0), st.integers(-100, 100), some_offsets))
    how = {"b_log_offset": b_offset, "out_log_offset": out, "overflow": policies[0], "underflow": policies[1]}
    for a_format, out_format in ((fmt, fmt), (LNSFormat(fmt.bits, 0, base=fmt.base), coarser(fmt))):
        how |= {"b_format": fmt, "out_format": out_format}
        arrays = np.array(a, fmt.dtype), np.array(b, fmt.dtype)
        got = call("float_power", *arrays, a_format, rounding=rounding, a_log_offset=offset, **how)
        bracket = reference.bracket("float_power", a_format, a, b, log_offset=offset, **how)
        assert int(got) in allowed(bracket, rounding, out_format, out), bracket


# ------------------------------------------------------------------------------------------ order, signs, neighbours


@all_small
def test_signs_and_neighbours_of_all_pairs(fmt):
    a, b = all_pairs(fmt)
    what = list(zip(a.tolist(), b.tolist(), strict=True))
    for name in ("copysign", "nextafter", "ulp_distance"):
        got = getattr(arithmetic, name)(a, b, fmt)
        assert got.dtype == (np.int64 if name == "ulp_distance" else fmt.dtype)
        single = getattr(reference, name)
        np.testing.assert_array_equal(got, [single(p, q, fmt) for p, q in what])
    for offsets in OFFSETS[1:]:
        how = {"a_log_offset": offsets[0], "b_log_offset": offsets[1]}
        got = arithmetic.nextafter(a, b, fmt, **how)
        np.testing.assert_array_equal(got, [reference.nextafter(p, q, fmt, **how) for p, q in what])
    codes = all_codes(fmt)
    for name in ("sign", "negative", "absolute", "isnan", "iszero"):
        got = getattr(arithmetic, name)(codes, fmt)
        assert got.dtype == (np.bool_ if name.startswith("is") else fmt.dtype)
        np.testing.assert_array_equal(got, [getattr(reference, name)(int(code), fmt) for code in codes])


@all_small
@pytest.mark.parametrize("offsets", OFFSETS, ids=str)
def test_minimum_and_maximum_of_all_pairs(fmt, offsets):
    a, b = all_pairs(fmt)
    for i, name in enumerate(("minimum", "maximum")):
        for overflow, underflow in POLICIES if fmt.bits < 5 else [POLICIES[(OFFSETS.index(offsets) + i) % 4]]:
            how = {**offsets_of(*offsets), "overflow": overflow, "underflow": underflow}
            single = getattr(reference, name)
            one = [single(p, q, fmt, **how) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
            np.testing.assert_array_equal(call(name, a, b, fmt, **how), np.array(one, fmt.dtype))


@pytest.mark.parametrize("fmt", [lns4f1, LNSFormat(4, 0, base=4.0)], ids=str)
@pytest.mark.parametrize("offsets", [(0, 0, 0, 0), (2, -1, 1, 0), (-3, 4, 4, 2)])
def test_clip_of_all_triples(fmt, offsets):
    codes = all_codes(fmt)
    a, lower, upper = (axis.reshape(-1) for axis in np.meshgrid(codes, codes, codes, indexing="ij"))
    names = ("log_offset", "lower_log_offset", "upper_log_offset", "out_log_offset")
    for overflow, underflow in POLICIES[::3]:
        how = {**dict(zip(names, offsets, strict=True)), "overflow": overflow, "underflow": underflow}
        each = zip(a.tolist(), lower.tolist(), upper.tolist(), strict=True)
        one = [reference.clip(p, q, r, fmt, **how) for p, q, r in each]
        np.testing.assert_array_equal(call("clip", a, lower, upper, fmt, **how), np.array(one, fmt.dtype))


@given(sums())
def test_order_of_any_format(case):
    fmt, a, b, (offset_a, offset_b, out) = case
    arrays = np.array(a, fmt.dtype), np.array(b, fmt.dtype)
    for name in ("minimum", "maximum"):
        got = call(name, *arrays, fmt, **offsets_of(offset_a, offset_b, out))
        assert int(got) == getattr(reference, name)(a, b, fmt, **offsets_of(offset_a, offset_b, out))
    how = {"a_log_offset": offset_a, "b_log_offset": offset_b}
    assert int(arithmetic.nextafter(*arrays, fmt, **how)) == reference.nextafter(a, b, fmt, **how)
    assert int(arithmetic.ulp_distance(*arrays, fmt)) == reference.ulp_distance(a, b, fmt)
    assert int(arithmetic.copysign(*arrays, fmt)) == reference.copysign(a, b, fmt)


@pytest.mark.parametrize("fmt", [lns4f1, lns6f2, lns16f10, lns32f23], ids=str)
def test_sort_is_stable_and_puts_nan_last(fmt):
    draw = np.random.default_rng(3)
    codes = draw.integers(0, 1 << fmt.bits, (5, 7, 9)).astype(fmt.dtype)
    codes[codes % 5 == 0] = fmt.nan_code
    codes[codes % 7 == 0] = 0

    def key(code):
        return (
            (1, 0) if code == fmt.nan_code else (0, reference.ulp_distance(code, fmt.sign_bit | fmt.max_magnitude, fmt))
        )

    for axis in (-1, 0, 1, 2):
        order = arithmetic.argsort(codes, fmt, axis=axis)
        assert np.issubdtype(order.dtype, np.integer)
        moved, moved_order = np.moveaxis(codes, axis, -1), np.moveaxis(order, axis, -1)
        for index in np.ndindex(moved.shape[:-1]):
            row = moved[index].tolist()
            assert moved_order[index].tolist() == sorted(range(len(row)), key=lambda i, row=row: key(row[i]))
        result = arithmetic.sort(codes, fmt, axis=axis)
        assert result.dtype == fmt.dtype
        np.testing.assert_array_equal(result, np.take_along_axis(codes, order, axis))
    assert not np.shares_memory(arithmetic.sort(codes, fmt), codes)
    assert arithmetic.sort(np.zeros((0,), fmt.dtype), fmt).shape == (0,)
    np.testing.assert_array_equal(arithmetic.sort(codes[0, 0], fmt), arithmetic.sort(codes[:1, :1], fmt)[0, 0])


# ------------------------------------------------------------------------------------------- the scale of the result


def fit_cases(fmt):
    """Operations with the oracle's call for one element: name, number of operands, exponent."""
    return [(name, 2, []) for name in BINARY] + [("fma", 3, []), ("power", 1, [Fraction(2, 3)])] + [
        (name, 1, []) for name in ROOTS
    ]  # fmt: skip


def offset_names(operands):
    return ["log_offset"] if operands == 1 else ["a_log_offset", "b_log_offset", "c_log_offset"][:operands]


@pytest.mark.parametrize("rounding", DETERMINISTIC + STOCHASTIC)
@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(6, 1, base=4.0), lns16f10], ids=str)
def test_fit_is_the_least_offset_at_which_nothing_saturates(fmt, rounding):
    """The stochastic modes are judged as rounding away from zero: as the oracle does with R = 0."""
    draw = np.random.default_rng(4)
    for name, count, exponent in fit_cases(fmt):
        for size in (1, 3, 8):
            arrays = [draw.integers(0, 1 << fmt.bits, size).astype(fmt.dtype) for _ in range(count)]
            given_offsets = dict(zip(offset_names(count), draw.integers(-40, 40, count).tolist(), strict=True))
            bits = bits_of(rounding, draw.integers(0, 1 << 32, size, np.uint32))
            how = {"rounding": rounding, "overflow": "nan", **given_offsets}
            codes, fit = getattr(arithmetic, name)(*arrays, *exponent, fmt, out_log_offset="fit", **how, **bits)
            assert type(fit) is int
            each = list(zip(*(array.tolist() for array in arrays), strict=True))
            single = getattr(reference, name)

            def at(offset, each=each, single=single, exponent=exponent, how=how):
                return [single(*e, *exponent, fmt, out_log_offset=offset, **how) for e in each]

            undefined = [code == fmt.nan_code for code in at(1 << 20)]
            assert [code == fmt.nan_code for code in at(fit)] == undefined, (name, each, fit)
            sized = [code not in (0, fmt.nan_code) for code in at(fit)]
            if any(sized):
                assert [code == fmt.nan_code for code in at(fit - 1)] != undefined, (name, each, fit)
            elif all(u or c == 0 for u, c in zip(undefined, at(-(1 << 20)), strict=True)):
                assert fit == 0
            again = getattr(arithmetic, name)(*arrays, *exponent, fmt, out_log_offset=fit, **how, **bits)
            np.testing.assert_array_equal(codes, again[0])
            default = getattr(arithmetic, name)(*arrays, *exponent, fmt, **how, **bits)
            assert default[1] == (fit if any(given_offsets.values()) else 0)


@pytest.mark.parametrize("name", ["exp", "exp2", "log", "log2", "float_power"])
def test_fit_of_faithful_results(name):
    draw = np.random.default_rng(6)
    fmt = lns8f5
    for size in (1, 4):
        for _ in range(10):
            arrays = [draw.integers(0, 256, size).astype(np.uint8) for _ in range(2 if name == "float_power" else 1)]
            codes, fit = getattr(arithmetic, name)(*arrays, fmt, out_log_offset="fit", overflow="nan")
            each = zip(*(array.tolist() for array in arrays), strict=True)
            brackets = [reference.bracket(name, fmt, *e, out_log_offset=fit) for e in each]
            logs = [bracket.log for bracket in brackets if bracket.log is not None]
            if not logs:
                assert fit == 0
            else:
                assert fit in (math.floor(max(logs)) - fmt.max_log, math.ceil(max(logs)) - fmt.max_log)
            for code, bracket in zip(codes, brackets, strict=True):
                assert (int(code) == fmt.nan_code) == (bracket.lower == fmt.nan_code)


def test_fit_of_an_exact_zero_is_zero():
    for a, b in (([64, 0, 128], [64, 0, 5]), ([], [])):
        a, b = np.array(a, np.uint8), np.array(b, np.uint8)
        codes, fit = arithmetic.subtract(a, b, lns8f5, a_log_offset=77, b_log_offset=77)
        assert fit == 0
        assert codes.tolist() == [0, 0, 128][: a.size]


@pytest.mark.parametrize("name", ["minimum", "maximum"])
def test_fit_of_the_lesser_and_the_greater(name):
    codes = all_codes(lns6f2)
    a, b = codes[3:9, None], codes[None, 40:60]
    result, fit = getattr(arithmetic, name)(a, b, lns6f2, a_log_offset=3, b_log_offset=-4)
    single = getattr(reference, name)

    def at(offset):
        how = {**offsets_of(3, -4, offset), "overflow": "nan"}
        return [single(int(p), int(q), lns6f2, **how) for p in a.reshape(-1) for q in b.reshape(-1)]

    assert lns6f2.nan_code not in at(fit)
    assert lns6f2.nan_code in at(fit - 1)
    np.testing.assert_array_equal(result.reshape(-1), at(fit))


@pytest.mark.parametrize("out_log_offset", [0, 4, "fit", None])
@pytest.mark.parametrize("rounding", ["nearest", "up", "stochastic_value"])
def test_offsets_of_channels(out_log_offset, rounding):
    draw = np.random.default_rng(8)
    a, b = draw.integers(0, 64, (3, 1, 5), np.uint8), draw.integers(0, 64, (4, 1), np.uint8)
    for name, (shape_a, shape_b) in itertools.product(
        ["add", "subtract", "minimum"], [((3, 1, 1), (4, 1)), ((5,), (1,))]
    ):
        offset_a, offset_b = draw.integers(-9, 9, shape_a, np.int32), draw.integers(-9, 9, shape_b, np.int32)
        how, bits = {"rounding": rounding}, np.zeros((3, 4, 5), np.uint32)
        if name == "minimum":
            how = {}
        elif stochastic(rounding):
            how["random_bits"] = bits = draw.integers(0, 1 << 32, bits.shape, np.uint32)
        result, log_offset = getattr(arithmetic, name)(
            a, b, lns6f2, a_log_offset=offset_a, b_log_offset=offset_b, out_log_offset=out_log_offset, **how
        )
        if isinstance(out_log_offset, int):
            assert log_offset == out_log_offset
        full = [x.reshape(-1).tolist() for x in np.broadcast_arrays(a, b, offset_a, offset_b, bits)]
        expected_codes = []
        for p, q, u, v, R in zip(*full, strict=True):
            one = {} if name == "minimum" else {"rounding": rounding, "random_bits": R}
            expected_codes.append(getattr(reference, name)(p, q, lns6f2, **offsets_of(u, v, log_offset), **one))
        np.testing.assert_array_equal(result.reshape(-1), expected_codes)


def test_offsets_of_channels_of_one_operand():
    draw = np.random.default_rng(9)
    codes, offset = draw.integers(0, 256, (4, 6), np.uint8), np.array([[0], [-3], [40], [7]], np.int32)
    for name in ("sqrt", "square", "exp2"):
        result, _ = getattr(arithmetic, name)(codes, lns8f5, log_offset=offset, out_log_offset=3)
        for i in range(4):
            one, _ = getattr(arithmetic, name)(codes[i], lns8f5, log_offset=int(offset[i, 0]), out_log_offset=3)
            np.testing.assert_array_equal(result[i], one)
    a, b = codes, codes[::-1]
    result = arithmetic.nextafter(a, b, lns8f5, a_log_offset=offset, b_log_offset=-offset)
    for i in range(4):
        one = {"a_log_offset": int(offset[i, 0]), "b_log_offset": -int(offset[i, 0])}
        np.testing.assert_array_equal(result[i], arithmetic.nextafter(a[i], b[i], lns8f5, **one))


# ------------------------------------------------------------------------------------------------ arrays in, arrays out


@pytest.mark.parametrize("name", ["add", "subtract", "float_power", "minimum", "maximum"])
@pytest.mark.parametrize(
    ("shape_a", "shape_b"), [((), ()), ((), (3,)), ((0,), (1,)), ((2, 1), (1, 3)), ((2, 0, 3), (3,)), ((1,) * 5, (2,))]
)
def test_shapes_broadcast(name, shape_a, shape_b):
    a, b = np.full(shape_a, 70, np.uint8), np.full(shape_b, 60, np.uint8)
    a.flags.writeable = b.flags.writeable = False
    codes = call(name, a, b, lns8f5)
    assert isinstance(codes, np.ndarray)
    assert codes.shape == np.broadcast_shapes(shape_a, shape_b)
    assert codes.flags.writeable
    assert np.unique(codes).tolist() == ([int(call(name, 70, 60, lns8f5))] if codes.size else [])


@pytest.mark.parametrize("name", ["sqrt", "reciprocal", "square", "exp", "exp2", "log", "log2"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)])
def test_shapes_stay(name, shape):
    codes = np.full(shape, 70, np.uint8)
    codes.flags.writeable = False
    result = call(name, codes, lns8f5)
    assert result.shape == shape
    assert not np.shares_memory(result, codes)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "float_power"])
@pytest.mark.parametrize(
    ("a", "b", "arguments", "error", "message"),
    [
        ([1], [1], {"rounding": "odd"}, ValueError, "rounding='odd'"),
        ([1], [1], {"overflow": "wrap"}, ValueError, "overflow='wrap'"),
        ([1], [1], {"underflow": "zero"}, ValueError, "underflow='zero'"),
        ([1, 64], [1], {}, ValueError, "code 64 at index"),
        ([1], [[1, 2], [3, -4]], {}, ValueError, "code -4 at index"),
        ([1.0], [1], {}, TypeError, "codes are unsigned integers"),
        ([1], [True], {}, TypeError, "codes are unsigned integers"),
        ([1, 2], [1, 2, 3], {}, ValueError, "do not broadcast"),
        ([1], [1], {"a_log_offset": 0.5}, TypeError, "log_offset=0.5"),
        ([1], [1], {"b_log_offset": True}, TypeError, "log_offset=True"),
        ([1], [1], {"a_log_offset": 2**30 + 1}, ValueError, "log_offset=1073741825"),
        ([1], [1], {"out_log_offset": 2**31}, ValueError, "log_offset=2147483648"),
        ([1], [1], {"out_log_offset": "Fit"}, ValueError, "out_log_offset='Fit'"),
        ([1], [1, 2], {"a_log_offset": np.array([1, 2])}, ValueError, "log_offset of shape"),
        ([1], [1], {"rounding": "stochastic_log"}, ValueError, "random_bits"),
        ([1], [1], {"random_bits": np.uint32(1)}, ValueError, "random_bits"),
        ([1], [1], {"rounding": "stochastic_value", "random_bits": 1.5}, TypeError, "random_bits"),
        ([1], [1], {"rounding": "stochastic_value", "random_bits": np.zeros(3, np.uint32)}, ValueError, "random_bits"),
        ([1], [1], {"b_format": lns8f3}, TypeError, "out_format"),
        ([1], [1], {"b_format": LNSFormat(6, 2, base=4.0), "out_format": lns6f2}, TypeError, "base"),
        ([1], [1], {"out_format": LNSFormat(6, 2, base=4.0)}, TypeError, "base"),
        ([1], [1], {"out_format": 8}, TypeError, "out_format=8"),
        ([1], [1], {"b_format": 8}, TypeError, "b_format=8"),
        ([1], [200], {"b_format": lns8f3, "out_format": lns6f2}, None, None),
        ([200], [1], {"b_format": lns8f3, "out_format": lns6f2}, ValueError, "code 200"),
    ],
)
def test_errors_of_two_operands(name, a, b, arguments, error, message):
    if error is None:
        call(name, a, b, lns6f2, **arguments)
        return
    with pytest.raises(error, match=message):
        getattr(arithmetic, name)(a, b, lns6f2, **arguments)


@pytest.mark.parametrize("name", [*ROOTS, *FAITHFUL])
@pytest.mark.parametrize(
    ("a", "arguments", "error", "message"),
    [
        ([1], {"rounding": "odd"}, ValueError, "rounding='odd'"),
        ([1], {"overflow": "wrap"}, ValueError, "overflow='wrap'"),
        ([1], {"underflow": "zero"}, ValueError, "underflow='zero'"),
        ([1, 64], {}, ValueError, "code 64 at index"),
        ([1.0], {}, TypeError, "codes are unsigned integers"),
        ([1], {"log_offset": 0.5}, TypeError, "log_offset=0.5"),
        ([1], {"out_log_offset": 1.0}, TypeError, "log_offset=1.0"),
        ([1], {"rounding": "stochastic_log"}, ValueError, "random_bits"),
        ([1], {"out_format": LNSFormat(6, 2, base=4.0)}, TypeError, "base"),
    ],
)
def test_errors_of_one_operand(name, a, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(arithmetic, name)(a, lns6f2, **arguments)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: arithmetic.power([1], 0.5, lns6f2), TypeError, "exponent=0.5"),
        (lambda: arithmetic.power([1], True, lns6f2), TypeError, "exponent=True"),
        (lambda: arithmetic.power([1], "2", lns6f2), TypeError, "exponent='2'"),
        (lambda: arithmetic.power([1], (1 << 20) + 1, lns6f2), ValueError, "exponent=1048577"),
        (lambda: arithmetic.power([1], -(1 << 20) - 1, lns6f2), ValueError, "exponent=-1048577"),
        (lambda: arithmetic.power([1], Fraction(1, 1025), lns6f2), ValueError, "exponent="),
        (lambda: arithmetic.fma([1], [1], [64], lns6f2), ValueError, "code 64"),
        (lambda: arithmetic.fma([1], [1], [1, 2], lns6f2, c_format=lns8f3), TypeError, "out_format"),
        (lambda: arithmetic.fma([1], [1, 2, 3], [1, 2], lns6f2), ValueError, "do not broadcast"),
        (lambda: arithmetic.fma([1], [1], [1], lns6f2, c_log_offset=0.5), TypeError, "log_offset=0.5"),
        (lambda: arithmetic.minimum([1], [64], lns6f2), ValueError, "code 64"),
        (lambda: arithmetic.maximum([1], [1], lns6f2, overflow="wrap"), ValueError, "overflow='wrap'"),
        (lambda: arithmetic.minimum([1], [1], lns6f2, rounding="up"), TypeError, "rounding"),
        (lambda: arithmetic.clip([1], [1], [64], lns6f2), ValueError, "code 64"),
        (lambda: arithmetic.clip([1], [1], [1], lns6f2, underflow="zero"), ValueError, "underflow='zero'"),
        (lambda: arithmetic.clip([1], [1], [1], lns6f2, lower_log_offset=0.5), TypeError, "log_offset=0.5"),
        (lambda: arithmetic.copysign([1], [64], lns6f2), ValueError, "code 64"),
        (lambda: arithmetic.nextafter([1, 2], [1, 2, 3], lns6f2), ValueError, "do not broadcast"),
        (lambda: arithmetic.nextafter([1], [2], lns6f2, b_log_offset=0.5), TypeError, "log_offset=0.5"),
        (lambda: arithmetic.ulp_distance([1], [64], lns6f2), ValueError, "code 64"),
        (lambda: arithmetic.ulp_distance([1.0], [1], lns6f2), TypeError, "codes are unsigned integers"),
        (lambda: arithmetic.iszero([64], lns6f2), ValueError, "code 64"),
        (lambda: arithmetic.sign([64], lns6f2), ValueError, "code 64"),
        (lambda: arithmetic.sort([64], lns6f2), ValueError, "code 64"),
        (lambda: arithmetic.argsort([1.0], lns6f2), TypeError, "codes are unsigned integers"),
        (lambda: arithmetic.sort([1], lns6f2, axis=1), ValueError, "axis"),
        (lambda: arithmetic.add([1], [1], lns6f2, 0), TypeError, "positional"),
        (lambda: arithmetic.fma([1], [1], [1], lns6f2, lns6f2), TypeError, "positional"),
    ],
)
def test_other_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
