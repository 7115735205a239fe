"""The oracle itself: values known by hand, the same decisions taken in another way, and its algebra.

In base 4 with one fraction bit every value is a power of 2, so plain fractions say what each operation gives; in the
other formats mpmath's own functions at 100 digits do.
"""

import itertools
import math
import random
from fractions import Fraction

import mpmath
import pytest

from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns8f5, lns16f10, lns32f23, reference
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.reference import sums

POWERS_OF_TWO = LNSFormat(5, 1, base=4.0)

ROUNDINGS = ["nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"]

NEAR_ONE = math.nextafter(1.0, 2.0)


def rational(code, fmt=POWERS_OF_TWO):
    m = code & fmt.max_magnitude
    return Fraction(2) ** (m - fmt.bias) * (-1 if code > fmt.sign_bit else 1) if m else Fraction(0)


# ------------------------------------------------------------------------------------------------------ by hand


def test_sums_known_by_hand():
    one = lns8f5.bias  # 32 codes an octave
    minus = lns8f5.sign_bit
    assert reference.add(one, one, lns8f5) == one + 32
    assert reference.add(one + 32, one, lns8f5) == 115  # 32 log2 3 = 50.72
    assert reference.subtract(one + 32, one, lns8f5) == one
    assert reference.subtract(one, one + 32, lns8f5) == minus | one
    assert reference.subtract(one, one - 1, lns8f5) == 0  # 1 - 2^(-1/32) is less than a half of 2^(-63/32)
    assert reference.subtract(one, one - 16, lns8f5) == 7  # 32 log2(1 - 2^-0.5) = -56.69
    assert reference.add(127, 127, lns8f5) == 127
    assert reference.add(127, 127, lns8f5, overflow="nan") == minus
    assert reference.add(one, one, LNSFormat(8, 5, base=4.0)) == one + 16
    assert reference.add(4, 4, LNSFormat(4, 0, base=4.0)) == 4  # the tie between 1 and 4 goes to the even E
    assert reference.add(5, 5, LNSFormat(4, 0, base=4.0)) == 6
    assert reference.add(4, 4, LNSFormat(4, 0, base=4.0), rounding="up") == 5


def test_fused_products_known_by_hand():
    one, half_step = lns8f5.bias, lns8f5.bias + 16  # 1 and the square root of 2
    assert reference.fma(half_step, half_step, lns8f5.sign_bit | one, lns8f5) == one
    assert reference.fma(half_step, half_step, lns8f5.sign_bit | one + 32, lns8f5) == 0
    assert reference.exact_dot([half_step] * 4, [half_step] * 4, lns8f5) == 127  # 8, beyond the greatest
    assert reference.exact_dot([half_step] * 4, [half_step] * 4, lns8f5, out_log_offset=96) == one
    assert reference.exact_sum([], lns8f5) == 0
    assert reference.exact_sum([one, lns8f5.nan_code], lns8f5) == lns8f5.nan_code


def test_powers_known_by_hand():
    one = lns8f5.bias
    assert [reference.sqrt(one + z, lns8f5) for z in (1, 2, 3, -1, -3)] == [one, one + 1, one + 2, one, one - 2]
    assert reference.sqrt(one + 1, lns8f5, rounding="up") == one + 1
    assert reference.power(one + 1, Fraction(2, 3), lns8f5) == one + 1
    assert reference.power(lns8f5.sign_bit | one + 5, 3, lns8f5) == lns8f5.sign_bit | one + 15
    assert reference.power(lns8f5.sign_bit | one + 5, Fraction(4, 2), lns8f5) == one + 10
    assert reference.power(lns8f5.sign_bit | one + 5, Fraction(1, 3), lns8f5) == lns8f5.nan_code
    assert reference.reciprocal(1, lns8f5) == 127
    assert reference.square(1, lns8f5) == 0
    assert reference.square(1, lns8f5, underflow="saturate") == 1


def test_mixed_formats_known_by_hand():
    one8, one16 = lns8f5.bias, lns16f10.bias
    assert reference.multiply(one8 + 5, one16 + 3, lns8f5, b_format=lns16f10, out_format=lns16f10) == one16 + 163
    assert reference.multiply(one8 + 5, one16 + 16, lns8f5, b_format=lns16f10, out_format=lns8f5) == one8 + 6
    assert reference.divide(one8 + 5, one16 + 48, lns8f5, b_format=lns16f10, out_format=lns8f5) == one8 + 4
    assert reference.add(one8, one16, lns8f5, b_format=lns16f10, out_format=lns8f5) == one8 + 32


# -------------------------------------------------------------------------------------------------- in fractions


def plainly(x, fmt, rounding, share):
    """The code of a fraction in POWERS_OF_TWO, by the tables of the specification and fractions alone."""
    size, negative = abs(x), x < 0
    if x == 0:
        return 0
    sign = fmt.sign_bit if negative else 0
    smallest = Fraction(2) ** -fmt.max_log
    if size < smallest:
        up = {
            "nearest": size >= smallest / 2,
            "stochastic_log": size >= smallest / 2,
            "toward_zero": False,
            "up": not negative,
            "down": negative,
            "stochastic_value": share < size / smallest,
        }[rounding]
        return 1 | sign if up else 0
    n = size.numerator.bit_length() - size.denominator.bit_length()
    n -= Fraction(2) ** n > size
    rest = size / Fraction(2) ** n
    up = (
        rest > 1
        and {
            "nearest": rest**2 >= 2,  # 2 itself cannot be: its root is irrational
            "toward_zero": False,
            "up": not negative,
            "down": negative,
            "stochastic_log": rest**16 > 2 ** int(16 * share),
            "stochastic_value": share < rest - 1,
        }[rounding]
    )
    return min(n + up + fmt.bias, fmt.max_magnitude) | sign


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_all_pairs_in_fractions(rounding):
    fmt = POWERS_OF_TWO
    draw = random.Random(1)
    codes = [code for code in range(1 << fmt.bits) if code != fmt.nan_code]
    for a, b in itertools.product(codes, repeat=2):
        x, y, c = rational(a), rational(b), draw.choice(codes)
        sixteenths = draw.randrange(16)
        how = {"rounding": rounding, "random_bits": sixteenths << 28}
        share = Fraction(sixteenths, 16)
        assert reference.add(a, b, fmt, **how) == plainly(x + y, fmt, rounding, share)
        assert reference.subtract(a, b, fmt, **how) == plainly(x - y, fmt, rounding, share)
        assert reference.multiply(a, b, fmt, **how) == plainly(x * y, fmt, rounding, share)
        if b:
            assert reference.divide(a, b, fmt, **how) == plainly(x / y, fmt, rounding, share)
        assert reference.fma(a, b, c, fmt, **how) == plainly(x * y + rational(c), fmt, rounding, share)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_dot_products_in_fractions(rounding):
    fmt = POWERS_OF_TWO
    draw = random.Random(2)
    codes = [code for code in range(1 << fmt.bits) if code != fmt.nan_code]
    for _ in range(100):
        a, b = draw.choices(codes, k=9), draw.choices(codes, k=9)
        sixteenths = draw.randrange(16)
        how = {"rounding": rounding, "random_bits": sixteenths << 28}
        dot = sum(rational(p) * rational(q) for p, q in zip(a, b, strict=True))
        total = sum(map(rational, a))
        assert reference.exact_dot(a, b, fmt, **how) == plainly(dot, fmt, rounding, Fraction(sixteenths, 16))
        assert reference.exact_sum(a, fmt, **how) == plainly(total, fmt, rounding, Fraction(sixteenths, 16))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("base", [1.5, 3.0, 10.0, 1.0009765625, 1000.0])
def test_sums_of_rational_values_are_encoded(rounding, base):
    """`encode` compares products of powers, and takes no sums: another way to the same codes."""
    fmt = LNSFormat(7, 0, base=base)
    draw = random.Random(base)
    for _ in range(40):
        a, b = draw.randrange(1, 64), draw.randrange(65, 128)
        x, y = (Fraction(base) ** ((code & 63) - fmt.bias) for code in (a, b))
        how = {"rounding": rounding, "random_bits": draw.randrange(1 << 32)}
        assert reference.add(a, b, fmt, **how) == reference.encode(x - y, fmt, **how)
        assert reference.subtract(a, b, fmt, **how) == reference.encode(x + y, fmt, **how)


# ----------------------------------------------------------------------------------------------- in mpmath's own


@pytest.mark.parametrize(
    "fmt",
    [lns8f3, lns16f10, lns32f23, LNSFormat(12, 4, base=1.7), LNSFormat(32, 30, base=NEAR_ONE)],
    ids=str,
)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_random_operands_in_mpmath(fmt, rounding):
    draw = random.Random(fmt.name)
    m = fmt.max_magnitude
    with mpmath.workdps(100):
        root = mpmath.power(mpmath.mpf(fmt.base), mpmath.mpf(2) ** -fmt.fraction_bits)
        for _ in range(40):
            a, b, c = (draw.randrange(1, m + 1) | draw.choice([0, fmt.sign_bit]) for _ in range(3))
            x, y, z = (root ** ((code & m) - fmt.bias) * (-1 if code > m else 1) for code in (a, b, c))
            bits, offset = draw.randrange(1 << 32), draw.randrange(-5, 6)
            how = {"rounding": rounding, "random_bits": bits, "out_log_offset": offset}
            for got, value in (
                (reference.add(a, b, fmt, **how), x + y),
                (reference.subtract(a, b, fmt, **how), x - y),
                (reference.fma(a, b, c, fmt, **how), x * y + z),
            ):
                if value == 0:
                    assert got == 0
                    continue
                r = mpmath.log(abs(value)) / mpmath.log(root)
                if r < 1 - fmt.bias + offset or mpmath.almosteq(r, mpmath.nint(r), abs_eps=mpmath.mpf(10) ** -60):
                    continue  # the edges and the exact cases are tried above
                lo = mpmath.floor(r)
                share = mpmath.mpf(bits) / 2**32
                up = {
                    "nearest": r - lo > 0.5,
                    "toward_zero": False,
                    "up": value > 0,
                    "down": value < 0,
                    "stochastic_log": share < r - lo,
                    "stochastic_value": share < (root ** (r - lo) - 1) / (root - 1),
                }[rounding]
                size = min(int(lo) + up + fmt.bias - offset, m)
                assert got == size | (fmt.sign_bit if value < 0 else 0)


@pytest.mark.parametrize("fmt", [lns6f2, lns8f5, LNSFormat(7, 3, base=1.7), LNSFormat(6, 0, base=16.0)], ids=str)
@pytest.mark.parametrize("offset", [0, -9, 30])
def test_brackets_in_mpmath(fmt, offset):
    functions = {"exp": mpmath.exp, "exp2": lambda x: mpmath.power(2, x), "log": mpmath.log}
    functions["log2"] = lambda x: mpmath.log(x) / mpmath.log(2)
    with mpmath.workdps(75):
        root = mpmath.power(mpmath.mpf(fmt.base), mpmath.mpf(2) ** -fmt.fraction_bits)
        tiny = mpmath.mpf(10) ** -40
        for name, function in functions.items():
            for code in range(1 << fmt.bits):
                lower, upper, log = reference.bracket(name, fmt, code, log_offset=offset, out_log_offset=offset)
                x = reference.value(code, fmt, log_offset=offset)
                if code == fmt.nan_code or (name.startswith("log") and x <= 0):
                    assert (lower, upper, log) == (fmt.nan_code, fmt.nan_code, None)
                    continue
                if abs(x) > mpmath.mpf(10) ** 20 and name.startswith("exp"):
                    assert (lower, upper) == ((fmt.max_magnitude,) * 2 if x > 0 else (0, 1))
                    continue
                y = function(x)
                if x == 1 and name.startswith("log"):
                    assert (lower, upper, log) == (0, 0, None)
                    continue
                r = mpmath.log(abs(y)) / mpmath.log(root)
                assert abs(r - mpmath.mpf(log.numerator) / log.denominator) < mpmath.mpf(2) ** -30
                least = 1 - fmt.bias + offset
                sign = fmt.sign_bit if y < 0 else 0
                if r < least - tiny:
                    assert (lower, upper) == (0, 1 | sign)
                    continue
                n = [int(mpmath.floor(r + tiny)), int(mpmath.ceil(r - tiny))]
                assert [lower, upper] == [min(k - least + 1, fmt.max_magnitude) | sign for k in n]


def test_brackets_known_by_hand():
    one = lns8f5.bias
    assert reference.bracket("exp2", lns8f5, one + 32)[:2] == (127, 127)
    assert reference.bracket("exp2", lns8f5, one + 32, overflow="nan")[:2] == (128, 128)
    assert reference.bracket("exp2", lns8f5, one + 32, out_log_offset=9)[:2] == (119, 119)
    assert reference.bracket("log2", lns8f5, one + 32)[:2] == (one, one)
    assert reference.bracket("log2", lns8f5, one - 32)[:2] == (128 | one,) * 2
    assert reference.bracket("log2", lns8f5, one + 1, out_log_offset=-160)[:2] == (one, one)  # a 32nd, five octaves
    assert reference.bracket("exp", lns8f5, one, log_offset=-MAX_LOG_OFFSET) == (one, one + 1, Fraction(1, 1 << 100))
    assert reference.bracket("exp", lns8f5, 128 | one, log_offset=-MAX_LOG_OFFSET)[:2] == (one - 1, one)
    assert reference.bracket("exp", lns8f5, 128 | one, log_offset=MAX_LOG_OFFSET)[:2] == (0, 1)
    assert reference.bracket("exp", lns8f5, 128 | one, log_offset=MAX_LOG_OFFSET, underflow="saturate")[:2] == (1, 1)
    assert reference.bracket("exp2", lns8f5, one, log_offset=MAX_LOG_OFFSET)[:2] == (127, 127)
    assert reference.bracket("float_power", lns8f5, one + 4, one + 32)[:2] == (one + 8, one + 8)
    assert reference.bracket("float_power", lns8f5, one + 4, 128 | one + 32)[:2] == (one - 8, one - 8)
    assert reference.bracket("float_power", lns8f5, one + 4, one + 16)[:2] == (one + 5, one + 6)
    assert reference.bracket("float_power", lns8f5, 128 | one + 4, one)[:2] == (128 | one + 4,) * 2
    assert reference.bracket("float_power", lns8f5, 128 | one + 4, one + 32)[:2] == (one + 8,) * 2
    assert reference.bracket("float_power", lns8f5, 128 | one + 4, one - 32)[:2] == (128, 128)
    cubes = LNSFormat(6, 0, base=3.0)
    assert reference.bracket("float_power", cubes, 32 | 17, 17)[:2] == (32 | 19,) * 2  # (-3)^3


def test_powers_with_lns_exponents_in_mpmath():
    tiny = mpmath.mpf(10) ** -40
    for fmt in (lns6f2, LNSFormat(6, 1, base=1.5), LNSFormat(6, 0, base=3.0)):
        with mpmath.workdps(60):
            for a, b in itertools.product(
                range(1, fmt.sign_bit), [c for c in range(1 << fmt.bits) if c != fmt.nan_code]
            ):
                lower, upper, log = reference.bracket("float_power", fmt, a, b)
                y = mpmath.power(reference.value(a, fmt), reference.value(b, fmt))
                r = mpmath.log(y) / mpmath.log(fmt.base) * 2**fmt.fraction_bits
                assert mpmath.almosteq(r, mpmath.mpf(log.numerator) / log.denominator, 1e-30, 1e-30)
                if r > 1 - fmt.bias:
                    n = [math.floor(log), math.ceil(log)]
                    assert n[0] - tiny <= r <= n[1] + tiny
                    assert [lower, upper] == [min(k + fmt.bias, fmt.max_magnitude) for k in n]


# ------------------------------------------------------------------------------------------------------ the algebra


def test_roots_of_bases():
    assert sums.root_of(Fraction(2)) == (2, 1)
    assert sums.root_of(Fraction(64)) == (2, 6)
    assert sums.root_of(Fraction(36)) == (6, 2)
    assert sums.root_of(Fraction(27, 8)) == (Fraction(3, 2), 3)
    assert sums.root_of(Fraction(9, 2)) == (Fraction(9, 2), 1)
    assert sums.root_of(Fraction(NEAR_ONE)) == (Fraction(NEAR_ONE), 1)
    assert sums.root_of(Fraction(2) ** 1023) == (2, 1023)
    assert sums.root_of(Fraction(2.0**600) * 81**4) == (2**75 * 9, 8)


def sign(*terms, base=2):
    return sums.sign_of({Fraction(q): Fraction(w) for q, w in terms}, Fraction(base))


def test_signs_of_sums():
    far = 1 << 40
    assert sign() == 0
    assert sign((1, 1), (0, -2)) == 0
    assert sign((1, 1), (0, -2), (-far, 3)) == 1
    assert sign((1, 1), (0, -2), (-far, -3), (-2 * far, 7)) == -1
    assert sign((far + 1, 1), (far, -2), (0, Fraction(1, 3)), (-1, Fraction(-2, 3))) == 0
    assert sign((Fraction(1, 2), 1), (0, Fraction(-141421356, 100000000))) == 1
    assert sign((Fraction(1, 2), 2), (0, -1), (Fraction(3, 2), -1), (1, Fraction(1, 2))) == 0
    assert sign((Fraction(1, 2), 2), (0, -1), (Fraction(3, 2), -1), (1, Fraction(1, 2)), (-far, -1)) == -1
    root = Fraction(math.isqrt(2 << 2000), 1 << 1000)  # below the root of 2 by less than 2^-1000
    assert sign((Fraction(1, 2), 1), (0, -root)) == 1
    assert sign((Fraction(1, 2), 1), (0, -root - Fraction(1, 1 << 1000))) == -1
    assert sign((2, 4), (0, -9), base=Fraction(3, 2)) == 0
    assert sign((2, 4), (0, -9), (-far, 1), base=Fraction(3, 2)) == 1
    assert sign((far, 1), (far - 1, -1), (far - 2, Fraction(-3, 4)), base=Fraction(3, 2)) == 0
    assert sign((Fraction(1, 4), 1), (0, -1), (-Fraction(1, 4), Fraction(-1, 1)), base=4) == -1
    assert sign((Fraction(1, 2), 1), (0, -2), base=4) == 0
    assert sign((Fraction(1, 3), 1), (0, -2), base=8) == 0
    assert sign((Fraction(1, 6), 1), (0, -1), base=8) == 1
    near = Fraction(NEAR_ONE)
    assert sign((1 << 31, 1), ((1 << 31) - 1, -near), base=near) == 0
    assert sign((1 << 31, 1), ((1 << 31) - 1, -1), base=near) == 1
    assert sign((1 << 31, 1), ((1 << 31) - 1, -near), (0, -1), base=near) == -1


def test_a_distant_term_decides_in_finite_time():
    one = lns8f5.bias
    far = {"a_log_offset": MAX_LOG_OFFSET, "b_log_offset": -MAX_LOG_OFFSET, "out_log_offset": MAX_LOG_OFFSET}
    for rounding, sum_, difference in (("nearest", 0, 0), ("toward_zero", 0, -1), ("up", 1, 0), ("down", 0, -1)):
        assert reference.add(one, one, lns8f5, rounding=rounding, **far) == one + sum_
        assert reference.subtract(one, one, lns8f5, rounding=rounding, **far) == one + difference
    last = (1 << 32) - 1
    for rounding in ("stochastic_log", "stochastic_value"):
        for bits, sum_, difference in ((0, 1, 0), (1, 0, 0), (last, 0, 0)):
            how = {"rounding": rounding, "random_bits": bits}
            assert reference.add(one, one, lns8f5, **how, **far) == one + sum_
            assert reference.subtract(one, one, lns8f5, **how, **far) == one + difference
    bias = lns32f23.bias  # 1 + 1 - 2, and a product so small that only it is left
    a, b = [bias, bias, lns32f23.sign_bit | bias + (1 << 23), 1], [bias, bias, bias, 1]
    assert reference.exact_dot(a, b, lns32f23, out_log_offset=-MAX_LOG_OFFSET) == 2
    assert reference.exact_dot(a[:3], b[:3], lns32f23, underflow="saturate") == 0
    assert reference.exact_dot(a, b, lns32f23) == 0
    assert reference.exact_dot(a, b, lns32f23, underflow="saturate") == 1


def test_sums_that_are_exactly_zero():
    three_halves = LNSFormat(8, 2, base=1.5)
    one = three_halves.bias
    codes = [one] * 9 + [three_halves.sign_bit | one + 8] * 4  # 9 - 4 * 1.5^2
    assert reference.exact_sum(codes, three_halves, underflow="saturate") == 0
    assert reference.exact_sum([*codes, one + 3], three_halves) == one + 3
    draw = random.Random(3)
    for fmt in (lns4f1, lns8f5, lns32f23, LNSFormat(16, 7, base=1.7)):
        a = [draw.randrange(1, fmt.sign_bit) for _ in range(20)]
        b = [draw.randrange(1, fmt.sign_bit) for _ in range(20)]
        minus = [code | fmt.sign_bit for code in b]
        order = draw.sample(range(40), 40)
        left, right = a + a, b + minus
        left, right = [left[i] for i in order], [right[i] for i in order]
        assert reference.exact_dot(left, right, fmt, underflow="saturate", rounding="up") == 0


# ------------------------------------------------------------------------------------------------------------ order


@pytest.mark.parametrize("fmt", [lns4f1, lns6f2], ids=str)
def test_order_is_that_of_the_values(fmt):
    values = {c: reference.value(c, fmt, precision=20) for c in range(1 << fmt.bits) if c != fmt.nan_code}
    ladder = sorted(values, key=values.get)
    for i, a in enumerate(ladder):
        assert reference.sign(a, fmt) == {-1: fmt.sign_bit | fmt.bias, 0: 0, 1: fmt.bias}[int(mpmath.sign(values[a]))]
        assert values[reference.negative(a, fmt)] == -values[a]
        assert values[reference.absolute(a, fmt)] == abs(values[a])
        for j, b in enumerate(ladder):
            assert reference.ulp_distance(a, b, fmt) == abs(i - j)
            assert reference.nextafter(a, b, fmt) == ladder[i + (j > i) - (j < i)]
            assert reference.minimum(a, b, fmt) == ladder[min(i, j)]
            assert reference.maximum(a, b, fmt) == ladder[max(i, j)]
            assert values[reference.copysign(a, b, fmt)] == (-abs(values[a]) if values[b] < 0 else abs(values[a]))
            c = ladder[(7 * i + 3 * j) % len(ladder)]
            clipped = min(max(values[a], values[b]), values[c])
            assert values[reference.clip(a, b, c, fmt)] == clipped


def test_neighbours_across_offsets():
    one = lns8f5.bias
    assert reference.nextafter(one, one, lns8f5, b_log_offset=1) == one + 1
    assert reference.nextafter(one + 1, one, lns8f5, b_log_offset=1) == one + 1
    assert reference.nextafter(127, 127, lns8f5, b_log_offset=1) == 127  # nothing above the greatest
    assert reference.nextafter(255, 255, lns8f5, b_log_offset=1) == 255


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: reference.add(256, 1, lns8f5), ValueError, r"code=256 is none of lns8f5"),
        (lambda: reference.add(1, 1, lns8f5, b_format=lns8f3), TypeError, r"the operands are .*: give out_format"),
        (lambda: reference.add(1, 1, lns8f5, out_format=POWERS_OF_TWO), TypeError, r"the bases differ"),
        (lambda: reference.add(1, 1, lns8f5, rounding="odd"), ValueError, r"rounding='odd' is not known"),
        (lambda: reference.add(1, 1, lns8f5, overflow="wrap"), ValueError, r"overflow='wrap' is not known"),
        (lambda: reference.add(1, 1, lns8f5, random_bits=1 << 32), ValueError, r"random_bits=4294967296"),
        (lambda: reference.add(1, 1, lns8f5, a_log_offset=0.5), TypeError, r"log_offset=0.5 is a float"),
        (lambda: reference.add(1, 1, lns8f5, seed=1), TypeError, r"seed"),
        (lambda: reference.power(1, 0.5, lns8f5), TypeError, r"exponent=0.5 is a float"),
        (lambda: reference.power(1, True, lns8f5), TypeError, r"exponent=True is a bool"),
        (lambda: reference.exact_dot([1], [], lns8f5), ValueError, r"a has 1 codes and b has 0"),
        (lambda: reference.bracket("sin", lns8f5, 1), ValueError, r"operation='sin'"),
        (lambda: reference.bracket("exp", lns8f5, 1, 2), ValueError, r"operation='exp' of 2 codes"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
