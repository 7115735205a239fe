"""Hard operands are the hardest there are, by mpmath, and lie on both sides of every edge, by the reference."""

from functools import cache
from typing import get_args

import mpmath
import pytest
from drawing import drawn, minimal

from lnsnum import LNSFormat, lns8f3, lns8f5, lns16f10, lns32f23, reference
from lnsnum.format import Rounding
from lnsnum.strategies import near_ties, pairs
from lnsnum.testing.tie_strategies import _hardest

MODES = get_args(Rounding)
OPERATIONS = ["add", "subtract", "fma", "multiply", "divide", "square", "sqrt"]


def split(code, fmt):
    """Its logarithm in code steps, and whether it is negative."""
    return (code & fmt.max_magnitude) - fmt.bias, code >= fmt.sign_bit


def gap(operands, operation, fmt):
    """z of a sum, and whether its terms have opposite signs."""
    *factors, last = (split(code, fmt) for code in operands)
    log, negative = sum(e for e, _ in factors), sum(s for _, s in factors) % 2
    return abs(log - last[0]), (negative + last[1] + (operation == "subtract")) % 2 == 1


def least_term(operands, fmt):
    *factors, last = (split(code, fmt)[0] for code in operands)
    return min(sum(factors), last)


@cache
def shift(z, opposite, fmt):
    """s(z), in code steps."""
    with mpmath.workprec(200):
        h = mpmath.log(fmt.base) / 2**fmt.fraction_bits
        return mpmath.log1p((-1 if opposite else 1) * mpmath.exp(-z * h)) / h


def distance(z, opposite, fmt, at_midpoints):
    """How far s(z) is from where the mode decides, in code steps."""
    with mpmath.workprec(200):
        s = shift(z, opposite, fmt)
        from_code = abs(s - mpmath.nint(s))
        return float(0.5 - from_code if at_midpoints else from_code)


@pytest.mark.thorough
@pytest.mark.parametrize("rounding", ["nearest", "up", "stochastic_log"])
@pytest.mark.parametrize("operation", ["add", "subtract", "fma"])
@pytest.mark.parametrize("fmt", [lns8f5, LNSFormat(12, 7), LNSFormat(10, 4, base=3.0)], ids=str)
def test_sums_are_as_near_to_a_tie_as_sums_come(fmt, operation, rounding):
    operands = drawn(near_ties(fmt, operation, rounding=rounding), 400)
    operands = [x for x in operands if least_term(x, fmt) > 2 - fmt.max_log]  # which are drawn for what they cancel to
    found = {gap(x, operation, fmt) for x in operands}
    for opposite in (False, True):
        # further apart the sum is the greater term, as good as exactly
        near = [z for z in range(opposite, 2 * fmt.max_log + 1) if abs(shift(z, opposite, fmt)) > 0.3]
        every = sorted(distance(z, opposite, fmt, rounding == "nearest") for z in near)
        ours = [z for z, other in found if other == opposite and z in near]
        ours = sorted(distance(z, opposite, fmt, rounding == "nearest") for z in ours)
        assert ours[0] <= every[5]
        assert ours[-1] <= every[31]
        assert len(ours) >= 8


@pytest.mark.parametrize("at_midpoints", [False, True])
@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize("fmt", [lns8f5, LNSFormat(12, 7), LNSFormat(10, 4, base=3.0)], ids=str)
def test_the_hardest_gaps_are_the_hardest(fmt, opposite, at_midpoints):
    last = 2 * fmt.max_log
    every = sorted((distance(z, opposite, fmt, at_midpoints), z) for z in range(1, last + 1))
    ours = sorted(
        (distance(z, opposite, fmt, at_midpoints), z) for z in _hardest(fmt, opposite, at_midpoints, 1, last + 1)
    )
    assert [far for far, _ in ours] == pytest.approx([far for far, _ in every[: len(ours)]], abs=1e-12)


def results(fmt, operation, **modes):
    operands = drawn(near_ties(fmt, operation), 300)
    return [getattr(reference, operation)(*x, fmt, **modes) for x in operands]


@pytest.mark.thorough
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "sqrt"])
@pytest.mark.parametrize("fmt", [lns8f3, LNSFormat(6, 1), LNSFormat(6, 0, base=10.0)], ids=str)
def test_results_lie_on_both_sides_of_every_edge(fmt, operation):
    magnitudes = {
        code & fmt.max_magnitude if code != fmt.nan_code else "nan" for code in results(fmt, operation, overflow="nan")
    }
    if operation == "square":  # whose logarithms are even
        assert {"nan", fmt.max_magnitude - 1, 2, 0} <= magnitudes
    else:
        assert {fmt.max_magnitude, fmt.max_magnitude - 1, 1, 2} <= magnitudes
    if operation not in ("add", "subtract", "fma") or fmt.base == 2.0:  # in base 10, x + x is x, and 10 - 1 is 10
        assert {"nan", 0} <= magnitudes


@pytest.mark.parametrize("rounding", [None, *MODES])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "fmt",
    [
        LNSFormat(3, 0),
        LNSFormat(3, 1),
        lns8f3,
        lns32f23,
        LNSFormat(32, 30, base=1 + 2.0**-52),
        LNSFormat(32, 0, base=1e300),
    ],
    ids=str,
)
def test_operands_are_numbers_of_the_format(fmt, operation, rounding):
    lengths = {"fma": 3, "square": 1, "sqrt": 1}
    for operands in drawn(near_ties(fmt, operation, rounding=rounding), 25):
        assert len(operands) == lengths.get(operation, 2)
        assert all(type(code) is int and code & fmt.max_magnitude >= 1 for code in operands)
        assert all(code < 1 << fmt.bits for code in operands)
        assert operation != "sqrt" or operands[0] < fmt.sign_bit


def test_roots_are_ties_or_exact():
    assert {split(x[0], lns8f3)[0] % 2 for x in drawn(near_ties(lns8f3, "sqrt", rounding="nearest"), 100)} == {1}
    assert {split(x[0], lns8f3)[0] % 2 for x in drawn(near_ties(lns8f3, "sqrt", rounding="down"), 100)} == {0}
    odd = {split(x[0], LNSFormat(4, 0))[0] for x in drawn(near_ties(LNSFormat(4, 0), "sqrt"), 200)}
    assert odd == set(range(-3, 4))


def test_a_table_that_is_a_little_low_is_found_where_plain_pairs_miss_it():
    fmt = LNSFormat(14, 8)

    def differs(pair):
        z, opposite = gap(pair, "add", fmt)
        if z == 0:  # cancels, or is exact and no hard case
            return False
        s, half = shift(z, opposite, fmt), mpmath.mpf(1) / 2
        return mpmath.floor(s + half) != mpmath.floor(s * (1 - mpmath.mpf(2) ** -15) + half)

    hard = sum(map(differs, drawn(near_ties(fmt, "add", rounding="nearest"), 200)))
    plain = sum(map(differs, drawn(pairs(fmt), 200)))
    assert hard > 3 * plain
    assert hard >= 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_simplest_are_about_one(operation):
    first = minimal(near_ties(lns16f10, operation))[0]
    if operation != "square":  # whose results are at an edge
        assert abs(first - lns16f10.bias) <= lns16f10.codes_per_octave


@pytest.mark.parametrize("rounding", MODES)
def test_encode_has_midpoints_or_numbers_by_mode(rounding):
    """Far from the edges, the floats nearest to 2^(n / 4) with n odd, or even."""
    fmt = LNSFormat(8, 1)
    for x in drawn(near_ties(fmt, rounding=rounding), 300):
        with mpmath.workprec(200):
            quarters = 4 * mpmath.log(abs(x), 2) if x else mpmath.mpf(10**6)
            n = int(mpmath.nint(quarters))
            if abs(n) < 2 * fmt.max_log - 4:
                assert abs(quarters - n) < 1e-14
                assert n % 2 == (rounding == "nearest")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"operation": "exp"}, ValueError, "operation='exp' is not known: one of encode, add, subtract, fma, multiply"),
        ({"rounding": "odd"}, ValueError, "rounding='odd' is not known: one of nearest, toward_zero"),
        (
            {"operation": "add", "log_offset": 3},
            TypeError,
            "log_offset, dtype and allow_subnormal are of encode: add takes codes at log_offset 0",
        ),
        ({"allow_subnormal": 1}, TypeError, "allow_subnormal=1 is no truth value: give True, False or None"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        near_ties(lns8f5, **arguments)
