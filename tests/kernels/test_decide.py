"""Hard cases decided by integers, against fractions, mpmath and the oracle.

`sign_of_sum` must be the exact sign, zero included, and must end: soon, however far apart the terms lie.
"""

import math
import time
from fractions import Fraction
from typing import get_args

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lnsnum import LNSFormat, arithmetic, lns4f1, lns8f3, lns16f10, lns32f23, reference
from lnsnum.format import Rounding
from lnsnum.kernels import decide as deciding
from lnsnum.kernels.decide import Power, Quotient, Sum, Term, decide, primitive, resolve, sign_of_sum
from lnsnum.kernels.rounding import pack, target, unbounded

pytestmark = pytest.mark.plain_python

_mp = mpmath.MPContext()

MODES = get_args(Rounding)
RATIONAL_BASES = [2.0, 4.0, 8.0, 9.0, 16.0, 2.25, 1.5, 12.25, 72.0, 216.0, 0.125 * 27]
NEAR_ONE = [1.25, 1.0 + 2.0**-9, 1.0 + 2.0**-20, math.nextafter(1.0, 2.0)]
OTHER_BASES = [1.7, math.e, 10.0, 1.0 + 2.0**-20, math.nextafter(1.0, 2.0), 1e300]
POWERS_OF = {2.0: (2, 1), 4.0: (2, 2), 8.0: (2, 3), 9.0: (3, 2), 16.0: (2, 4), 2.25: (Fraction(3, 2), 2),
             12.25: (Fraction(7, 2), 2), 1.5: (Fraction(3, 2), 1), 72.0: (72, 1), 216.0: (6, 3),
             3.375: (Fraction(3, 2), 3), 10.0: (10, 1), 2.0**1000: (2, 1000), 81.0: (3, 4)}  # fmt: skip


def sign(x):
    return (x > 0) - (x < 0)


def by_fractions(base, terms):
    return sign(sum(c * Fraction(2) ** t * Fraction(base) ** int(p) for c, t, p in terms))


def soon(function, *arguments):
    """The result of a call that must not take long; the slowest takes a hundredth of that."""
    start = time.process_time()
    result = function(*arguments)
    assert time.process_time() - start < 5.0
    return result


# ------------------------------------------------------------------------------------------------ primitive


@pytest.mark.parametrize("base", POWERS_OF, ids=str)
def test_primitive(base):
    assert primitive(base) == POWERS_OF[base]


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 8))
def test_primitive_is_the_least_root(root, g, twos):
    base = Fraction(root, 1 << twos) ** g
    assume(1 < base < 2**60 and Fraction(float(base)) == base)
    gamma, power = primitive(float(base))
    assert gamma**power == base
    assert power % g == 0
    for prime in (2, 3, 5, 7, 11):  # no root is left in it
        near = [round(x ** (1 / prime)) for x in (gamma.numerator, gamma.denominator)]
        assert Fraction(*near) ** prime != gamma


# --------------------------------------------------------------------------------------------- sign_of_sum

coefficients = st.integers(-20, 20)
twos = st.integers(-6, 6)


@given(
    base=st.sampled_from([*RATIONAL_BASES, 1.7, math.e]),
    terms=st.lists(st.tuples(coefficients, twos, st.integers(-8, 8)), max_size=6),
)
@example(base=4.0, terms=[(1, 2, 0), (-1, 0, 1)])
@example(base=2.0, terms=[])
@example(base=2.0, terms=[(0, 0, 5)])
def test_whole_exponents_against_fractions(base, terms):
    terms = [Term(c, t, Fraction(p)) for c, t, p in terms]
    assert sign_of_sum(base, terms) == by_fractions(base, terms)


@given(
    base=st.sampled_from(RATIONAL_BASES + OTHER_BASES),
    terms=st.lists(st.tuples(coefficients, twos, st.fractions(-6, 6, max_denominator=40)), min_size=1, max_size=5),
)
def test_rational_exponents_against_mpmath(base, terms):
    """Terms of one exponent are added first, so that mpmath meets no sum that vanishes by itself."""
    joined = {}
    for c, t, p in terms:
        joined[p] = joined.get(p, 0) + c * Fraction(2) ** t
    gamma, g = primitive(base)
    classes = {}
    for p, w in joined.items():
        key = p * g - math.floor(p * g)
        classes[key] = classes.get(key, 0) + w * gamma ** math.floor(p * g)
    found = sign_of_sum(base, [Term(c, t, p) for c, t, p in terms])
    if not any(classes.values()):
        assert found == 0
    else:
        kept = [Term(w.numerator, 0, (n / g, w.denominator)) for n, w in classes.items() if w]
        with _mp.workprec(3000):
            powers = [_mp.power(_mp.mpf(base), _mp.mpf(p.numerator) / p.denominator) for _, _, (p, _) in kept]
            parts = [c * power / d for (c, _, (_, d)), power in zip(kept, powers, strict=True)]
            total = _mp.fsum(parts)
            assert abs(total) > _mp.ldexp(max(map(abs, parts)), -1500), "mpmath cannot tell"
        assert found == sign(total)


@st.composite
def zeros(draw):
    """A base, and terms whose sum is zero by algebra: in each class of exponents the last coefficient is chosen so."""
    base = draw(st.sampled_from(RATIONAL_BASES + NEAR_ONE))
    gamma, g = POWERS_OF.get(base, (base, 1))
    terms = []
    far = draw(st.sampled_from([0, 0, 1 << 20, -(1 << 30)]))
    for _ in range(draw(st.integers(1, 3))):
        shift = far + draw(st.fractions(-40, 40, max_denominator=15))
        numbers = draw(st.lists(st.tuples(coefficients, twos, st.integers(-8, 8)), min_size=1, max_size=4))
        last = draw(st.integers(-8, 8))
        rest = -sum((c * Fraction(2) ** t * Fraction(gamma) ** n for c, t, n in numbers), Fraction(0))
        rest /= Fraction(gamma) ** last
        scale = rest.denominator
        terms += [Term(c * scale, t, shift + Fraction(n, g)) for c, t, n in numbers]
        terms.append(Term(int(rest * scale), 0, shift + Fraction(last, g)))
    return base, draw(st.permutations(terms))


@given(zeros())
@example((4.0, [Term(1, 1, Fraction(0)), Term(-1, 0, Fraction(1, 2))]))
@example((9.0, [Term(3, 0, Fraction(1, 3)), Term(-1, 0, Fraction(5, 6))]))
@example((2.25, [Term(3, -1, Fraction(1, 7)), Term(-1, 0, Fraction(1, 7) + Fraction(1, 2))]))
@example((1.5, [Term(9, 0, Fraction(0)), Term(-1, 2, Fraction(2))]))
@example((16.0, [Term(1, 0, Fraction(1, 4)), Term(1, 0, Fraction(0)), Term(-3, 0, Fraction(0))]))
def test_sums_that_are_zero_by_algebra(case):
    base, terms = case
    assert sign_of_sum(base, terms) == 0


@given(zeros(), st.integers(0, 500), st.sampled_from([-1, 1]), st.fractions(-3, 3, max_denominator=9))
@example((4.0, [Term(1, 1, Fraction(0)), Term(-1, 0, Fraction(1, 2))]), 500, -1, Fraction(1, 3))
def test_sums_that_are_nearly_zero(case, depth, side, exponent):
    """Whatever is added to a zero is the sign, however small: 2^-500 of them, in their class or another."""
    base, terms = case
    exponent += math.floor(terms[0].exponent)
    for at in (0, len(terms) // 2, len(terms)):
        extra = [*terms[:at], Term(side, -depth, exponent), *terms[at:]]
        assert sign_of_sum(base, extra) == side


@given(
    base=st.sampled_from([2.0, 4.0, 1.5, 1.7, 9.0, math.e]),
    p=st.fractions(-3, 3, max_denominator=11),
    q=st.fractions(-3, 3, max_denominator=11),
    bits=st.integers(40, 400),
    nudge=st.sampled_from([0, 1]),
)
@settings(max_examples=40)
def test_two_terms_that_agree_in_hundreds_of_bits(base, p, q, bits, nudge):
    """floor(2^bits base^p) / 2^bits base^q against base^(p + q): below it, and one more is above."""
    with _mp.workprec(1200):
        power = _mp.ldexp(_mp.power(_mp.mpf(base), _mp.mpf(p.numerator) / p.denominator), bits)
        floor = int(_mp.floor(power))
        assume(abs(power - _mp.nint(power)) > _mp.mpf(2) ** -500)
    terms = [Term(1, bits, p + q), Term(-(floor + nudge), 0, q)]
    assert sign_of_sum(base, terms) == (-1 if nudge else 1)


FAR = [1 << 20, 1 << 31, 1 << 40]


@pytest.mark.parametrize("base", [2.0, 4.0, 1.5, 1.7, math.e, 1e300, 1.0 + 2.0**-9], ids=str)
@pytest.mark.parametrize("far", FAR)
def test_terms_that_no_precision_could_hold_together(base, far):
    near = Term(1, 0, Fraction(1, 3)), Term(-1, 0, Fraction(1, 3))
    for side in (-1, 1):
        tiny = Term(side, 0, Fraction(-far))
        assert soon(sign_of_sum, base, [Term(5, 0, Fraction(0)), tiny]) == 1
        assert soon(sign_of_sum, base, [Term(-5, 0, Fraction(far)), tiny, Term(1, 3, Fraction(1, 2))]) == -1
        assert soon(sign_of_sum, base, [*near, tiny]) == side
        assert soon(sign_of_sum, base, [*near, tiny, Term(-side, -(1 << 40), Fraction(-far))]) == side
        # three levels, each of which vanishes but the last
        middle = Term(3, 0, Fraction(-far // 2)), Term(-3, 0, Fraction(-far // 2))
        assert soon(sign_of_sum, base, [*near, *middle, tiny]) == side
        assert soon(sign_of_sum, base, [*near, *middle, tiny, tiny._replace(coefficient=-side)]) == 0


@pytest.mark.parametrize("a", [(1 << 15) - 1, -(1 << 29)])
def test_exponents_far_apart_whose_powers_are_of_like_size(a):
    """At a base near 1 a gap of 2^26 steps is 92 octaves: near enough to be called near."""
    terms = [Term(1, 0, Fraction(a)), Term(-1, 0, Fraction(a)), Term(-1, 0, Fraction(a - (1 << 26)))]
    assert soon(sign_of_sum, 1.0 + 2.0**-20, terms) == -1


@pytest.mark.parametrize(("rounding", "code"), [("up", 1), ("toward_zero", 0)])
def test_a_difference_just_below_the_smallest_at_a_base_near_one(rounding, code):
    fmt, log = LNSFormat(32, 0, base=1.0 + 2.0**-20), -(1 << 29)
    a, b = (np.array([fmt.bias + x], np.uint32) for x in (log, log - (1 << 26)))
    found, _ = soon(lambda: arithmetic.subtract(a, b, fmt, out_log_offset=fmt.max_log + log, rounding=rounding))
    assert found.tolist() == [code]


# -------------------------------------------------------------------------------------------------- decide


def code_of(value, fmt, to, negative, random, estimate):
    return int(pack(decide(value, fmt, to, negative, random, estimate), int(negative), to.sign_bit))


FORMATS = [lns4f1, lns8f3, LNSFormat(6, 0, base=4.0), LNSFormat(7, 2, base=1.7), LNSFormat(9, 1, base=2.25),
           lns16f10, lns32f23, LNSFormat(12, 3, base=1.5), LNSFormat(10, 2, base=16.0)]  # fmt: skip
modes = st.sampled_from(MODES)
policies = st.tuples(st.sampled_from(["saturate", "nan"]), st.sampled_from(["round", "saturate"]))
words = st.one_of(st.sampled_from([0, 1, 1 << 31, (1 << 32) - 1]), st.integers(0, (1 << 32) - 1))
wild = st.sampled_from([0.0, 1e9, -1e9, 1e300, -1e300, 0.5, -3.7])
"""What is added to a good estimate."""


@st.composite
def codes_of(draw, fmt, count):
    """Codes of nonzero numbers, of which some are near one another, with offsets."""
    first = draw(st.integers(1, fmt.max_magnitude))
    out = []
    for _ in range(count):
        m = draw(st.one_of(st.just(first), st.integers(1, fmt.max_magnitude), st.integers(first - 9, first + 9)))
        out.append(min(max(m, 1), fmt.max_magnitude) | draw(st.sampled_from([0, fmt.sign_bit])))
    return out


@given(data=st.data(), fmt=st.sampled_from(FORMATS), rounding=modes, policy=policies, random=words, off=wild)
@settings(max_examples=250)
def test_sums_against_the_oracle(data, fmt, rounding, policy, random, off):
    a, b, c = data.draw(codes_of(fmt, 3))
    offset = data.draw(st.one_of(st.just(0), st.integers(-3 * fmt.max_log, 3 * fmt.max_log)))
    offset = max(-(1 << 30), min(1 << 30, offset))
    how = {"rounding": rounding, "overflow": policy[0], "underflow": policy[1]}
    bits = random if rounding.startswith("stochastic") else 0
    steps = 1 << fmt.fraction_bits
    logs = [(code & fmt.max_magnitude) - fmt.bias for code in (a, b, c)]
    minus = [code > fmt.sign_bit for code in (a, b, c)]
    kept = [(logs[0] + logs[1], minus[0] != minus[1]), (logs[2], minus[2])]
    hi, negative = max(kept)
    assume(kept[0][0] != kept[1][0] or kept[0][1] == kept[1][1])
    value = Sum(tuple(Term(1 if s == negative else -1, 0, Fraction(log, steps)) for log, s in kept))
    found = code_of(value, fmt, target(fmt, offset, **how), negative, bits, hi + off)
    assert found == reference.fma(a, b, c, fmt, out_log_offset=offset, random_bits=bits, **how)


@given(data=st.data(), fmt=st.sampled_from(FORMATS), rounding=modes, policy=policies, random=words, off=wild)
@settings(max_examples=150)
def test_powers_of_another_base_against_the_oracle(data, fmt, rounding, policy, random, off):
    source = data.draw(st.sampled_from([other for other in FORMATS if other.base != fmt.base]))
    code = data.draw(codes_of(source, 1))[0]
    how = {"rounding": rounding, "overflow": policy[0], "underflow": policy[1]}
    bits = random if rounding.startswith("stochastic") else 0
    log = (code & source.max_magnitude) - source.bias
    value = Power(source.base, Fraction(log, 1 << source.fraction_bits))
    estimate = log / 2**source.fraction_bits * math.log(source.base) / math.log(fmt.base) * 2**fmt.fraction_bits
    found = code_of(value, fmt, target(fmt, 0, **how), code > source.sign_bit, bits, estimate + off)
    assert found == reference.convert(code, source, fmt, random_bits=bits, **how)


def quotient(code, divisor, fmt, random_bits=0, **how):
    """code / divisor by encode of the oracle, where the code is a rational number."""
    log = Fraction((code & fmt.max_magnitude) - fmt.bias, 1 << fmt.fraction_bits)
    gamma, g = POWERS_OF[fmt.base]
    size = Fraction(gamma) ** int(log * g) / divisor
    return reference.encode(-size if code > fmt.sign_bit else size, fmt, random_bits=random_bits, **how)


@given(data=st.data(), rounding=modes, policy=policies, random=words, off=wild)
@settings(max_examples=200)
def test_quotients_against_the_oracle(data, rounding, policy, random, off):
    fmt = data.draw(st.sampled_from([LNSFormat(8, b, base=2.0**p) for b, p in ((0, 1), (1, 2), (2, 4), (0, 3))]
                                    + [LNSFormat(7, 1, base=2.25), LNSFormat(7, 0, base=1.5)]))  # fmt: skip
    _, g = POWERS_OF[fmt.base]
    code = data.draw(codes_of(fmt, 1))[0]
    log = (code & fmt.max_magnitude) - fmt.bias
    assume(Fraction(log * g, 1 << fmt.fraction_bits).denominator == 1)
    divisor = data.draw(st.one_of(st.integers(1, 70), st.integers(1, 1 << 40), st.sampled_from([2, 4, 8, 3, 9])))
    how = {"rounding": rounding, "overflow": policy[0], "underflow": policy[1]}
    bits = random if rounding.startswith("stochastic") else 0
    value = Quotient((Term(1, 0, Fraction(log, 1 << fmt.fraction_bits)),), divisor)
    estimate = log - math.log(divisor, fmt.base) * 2**fmt.fraction_bits
    found = code_of(value, fmt, target(fmt, 0, **how), code > fmt.sign_bit, bits, estimate + off)
    assert found == quotient(code, divisor, fmt, random_bits=bits, **how)


def test_a_quotient_of_a_sum():
    """(1 + 2) / 3 = 1, (1 + 8) / 3 = 3, (4 - 1) / 12 = 1/4: on the grid, in every mode."""
    fmt = LNSFormat(8, 2, base=4.0)
    third = {1: 0, 3: None, Fraction(1, 4): -4}
    for terms, divisor, expected in (
        ((Term(1, 0, Fraction(0)), Term(1, 0, Fraction(1, 2))), 3, third[1]),
        ((Term(4, 0, Fraction(0)), Term(-1, 0, Fraction(0))), 12, third[Fraction(1, 4)]),
    ):
        for rounding in MODES:
            to = target(fmt, 0, rounding=rounding)
            assert decide(Quotient(terms, divisor), fmt, to, False, 12345, 0.0) == expected + fmt.bias
    value = Quotient((Term(1, 0, Fraction(0)), Term(1, 3, Fraction(0))), 3)  # 3 lies between codes
    for rounding, bits in (
        ("nearest", 0),
        ("up", 0),
        ("toward_zero", 0),
        ("stochastic_log", 77),
        ("stochastic_value", 9),
    ):
        found = decide(value, fmt, target(fmt, 0, rounding=rounding), False, bits, 3.0)
        assert found == reference.encode(3.0, fmt, rounding=rounding, random_bits=bits)


BOUNDARY_FORMATS = [lns4f1, LNSFormat(6, 0, base=4.0), LNSFormat(7, 2, base=1.7), LNSFormat(9, 1, base=2.25)]
boundary_formats = pytest.mark.parametrize("fmt", BOUNDARY_FORMATS, ids=str)


def around(fmt, rounding, terms, random=0, **how):
    """What decide makes of 2^-200 below a boundary, of the boundary itself, and of 2^-200 above it."""
    to = target(fmt, 0, rounding=rounding, **how)
    tiny = [(), (Term(1, -200, Fraction(0)),), (Term(-1, -200, Fraction(0)),)]
    below, at, above = (Sum((*terms, *extra)) for extra in (tiny[2], tiny[0], tiny[1]))
    return [decide(value, fmt, to, False, random, 0.0) for value in (below, at, above)]


@boundary_formats
def test_boundaries_of_nearest(fmt):
    """Half-way goes to the even E, half the smallest to the smallest."""
    steps = 1 << fmt.fraction_bits
    for log in (-3, -2, -1, 0, 1, 2):
        m, even = log + fmt.bias, log % 2
        half = Term(1, 0, Fraction(2 * log + 1, 2 * steps))
        assert around(fmt, "nearest", [half]) == [m, m + even, m + 1]
    smallest = Fraction(1 - fmt.bias, steps)
    for rounding in ("nearest", "stochastic_log"):
        assert around(fmt, rounding, [Term(1, -1, smallest)]) == [0, 1, 1]
    top = Fraction(2 * fmt.max_log + 1, 2 * steps)  # E of the greatest is odd
    assert around(fmt, "nearest", [Term(1, 0, top)], overflow="nan") == [fmt.max_magnitude, -1, -1]


@boundary_formats
def test_boundaries_of_the_directed_modes(fmt):
    steps = 1 << fmt.fraction_bits
    for log in (-3, 0, 2):
        m, on_grid = log + fmt.bias, [Term(1, 0, Fraction(log, steps))]
        assert around(fmt, "toward_zero", on_grid) == around(fmt, "down", on_grid) == [m - 1, m, m]
        assert around(fmt, "up", on_grid) == [m, m, m + 1]
    smallest = [Term(1, 0, Fraction(1 - fmt.bias, steps))]
    assert around(fmt, "toward_zero", smallest) == around(fmt, "down", smallest) == [0, 1, 1]
    assert around(fmt, "down", smallest, underflow="saturate") == [1, 1, 1]


@boundary_formats
@pytest.mark.parametrize("random", [1, 2, 1 << 31, (1 << 32) - 1, 0x12345678])
def test_boundaries_of_the_stochastic_modes(fmt, random):
    """Up where R / 2^32 < the share: not where they are equal."""
    steps, rest = 1 << fmt.fraction_bits, (1 << 32) - random
    for log in (-3, 0, 2):
        m, lo, hi = log + fmt.bias, Fraction(log, steps), Fraction(log + 1, steps)
        share = lo + Fraction(random, steps << 32)
        assert around(fmt, "stochastic_log", [Term(1, 0, share)], random) == [m, m, m + 1]
        between = [Term(rest, -32, lo), Term(random, -32, hi)]
        assert around(fmt, "stochastic_value", between, random) == [m, m, m + 1]
    below = [Term(random, -32, Fraction(1 - fmt.bias, steps))]
    assert around(fmt, "stochastic_value", below, random) == [0, 0, 1]


@pytest.mark.parametrize("estimate", [-1e300, -1e18, -1e6, -1.0, 0.0, 0.49, 1.0, 1e6, 1e18, 1e300])
@pytest.mark.parametrize("rounding", MODES)
def test_any_estimate_gives_the_same_code(estimate, rounding):
    """Near the middle, at both ends, and beyond them."""
    for fmt in (lns4f1, lns32f23):
        to = target(fmt, 0, rounding=rounding)
        for log in (0, fmt.max_log, -fmt.max_log, fmt.max_log + 1, -fmt.max_log - 1, fmt.max_log - 1):
            value = Sum((Term(1, 0, Fraction(log, 1 << fmt.fraction_bits)), Term(1, -60, Fraction(0))))
            assert soon(decide, value, fmt, to, False, 7, estimate) == decide(value, fmt, to, False, 7, float(log))


@pytest.mark.parametrize("fmt", [lns8f3, lns32f23], ids=str)
def test_an_unbounded_target_has_room_for_everything(fmt):
    to = unbounded(target(fmt, 0))
    for log in (0, 5 * fmt.max_log, -5 * fmt.max_log, 3 << 32):
        value = Sum((Term(1, 0, Fraction(log, 1 << fmt.fraction_bits)),))
        assert decide(value, fmt, to, False, 0, log + 3.0) + to.lowest - 1 == log
    stochastic = unbounded(target(fmt, 0, rounding="stochastic_value"))
    value = Sum((Term(1, 0, Fraction(0)), Term(1, -200, Fraction(0))))
    assert decide(value, fmt, stochastic, False, 0, 0.0) + stochastic.lowest - 1 == 1, "as no draw passes"


def test_resolve_decides_equal_cases_once_and_writes_codes(monkeypatch):
    calls = []
    monkeypatch.setattr(deciding, "decide", lambda *arguments: calls.append(arguments) or decide(*arguments))
    fmt, to = lns8f3, target(lns8f3, 0)
    out = np.zeros(6, fmt.dtype)

    def case(i):
        return Sum((Term(1, 0, Fraction(i % 2)),)), i >= 4, 0, 0.0

    resolve(np.array([0, 2, 4, 5], np.int64), case, fmt, to, out)
    assert out.tolist() == [64, 0, 64, 0, 64 | 128, 72 | 128]
    assert len(calls) == 3
    resolve(np.array([4], np.int64), case, fmt, target(fmt, -1000, overflow="nan"), out)
    assert out[4] == fmt.nan_code
    resolve(np.array([4], np.int64), case, fmt, target(fmt, 1000), out)
    assert out[4] == 0
