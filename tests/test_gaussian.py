"""The Gaussian logarithms against mpmath, and sums by approximate ones against a plain model.

`position` is sb(z) or db(z) in code steps by mpmath. Everything exact is held against it, everything approximate
against its advertised bound, and `add` and `subtract` with `gaussian=` against hi + steps, one pair at a time.
"""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import mpmath
import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import (
    LNSFormat,
    LNSTensor,
    arithmetic,
    lns4f1,
    lns6f2,
    lns8f3,
    lns8f4,
    lns8f5,
    lns10f5,
    lns12f6,
    lns16f7,
    lns16f10,
    lns32f23,
)
from lnsnum.gaussian import (
    TIE,
    BitShift,
    Cotransformation,
    Exact,
    FromFunctions,
    LinearInterpolation,
    LookUpTable,
    Mitchell,
    check_gaussian,
    evaluate,
    exact_steps,
    gaussian_position,
    last_step,
    tables,
)
from lnsnum.kernels.rounding import steps_in_two

pytestmark = pytest.mark.plain_python

_mp = mpmath.MPContext()
_mp.prec = 300

SMALL = [
    *(lns4f1, lns6f2, lns8f3, lns8f5, LNSFormat(3, 0), LNSFormat(3, 0, base=1e9), LNSFormat(6, 0, base=2.25)),
    *(LNSFormat(5, 0, base=4.0), LNSFormat(5, 1, base=4.0), LNSFormat(6, 1, base=1.7), LNSFormat(7, 0, base=1.01)),
    *(LNSFormat(5, 0, base=16.0), LNSFormat(5, 1, base=16.0), LNSFormat(6, 2, base=16.0)),
]
PRESETS = [lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, lns10f5, lns12f6, lns16f7, lns16f10]

small = pytest.mark.parametrize("fmt", SMALL, ids=str)
presets = pytest.mark.parametrize("fmt", PRESETS, ids=str)


def position(z, fmt, subtracted):
    """sb(z) or db(z) in code steps; an mpf, or -inf for db(0)."""
    log_step = _mp.log(_mp.mpf(fmt.base)) / (1 << fmt.fraction_bits)
    ratio = _mp.exp(-int(z) * log_step)
    return _mp.log1p(-ratio if subtracted else ratio) / log_step


def rounded(x, rounding, parity=0):
    """x, which is never 0, rounded to an integer; halves to where parity + x is even.

    Nothing irrational is within 2^-200 of a boundary but of 0.
    """
    twice = int(_mp.nint(2 * x))
    is_boundary = twice != 0 and abs(2 * x - twice) < _mp.mpf(2) ** -200
    floor = twice // 2 if is_boundary else int(_mp.floor(x))
    on_grid = is_boundary and twice % 2 == 0
    if rounding in ("toward_zero", "down") or on_grid:
        return floor
    if rounding == "nearest":
        if is_boundary:
            return floor + (floor + parity) % 2
        return int(_mp.floor(x + 0.5))
    return floor + 1  # up, and the stochastic modes, which stand for away from zero


@lru_cache(maxsize=64)
def positions(fmt, subtracted, stop):
    return [position(z, fmt, subtracted) for z in range(int(subtracted), stop)]


def domain(fmt, subtracted):
    """Every z up to a little beyond the last that counts."""
    return np.arange(int(subtracted), last_step(fmt) + 5, dtype=np.int64)


# ------------------------------------------------------------------------------------------------- exact steps


@small
@pytest.mark.parametrize("subtracted", [False, True])
@pytest.mark.parametrize("rounding", ["nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"])
def test_exact_steps_of_small_formats(fmt, subtracted, rounding):
    z = domain(fmt, subtracted)
    true = positions(fmt, subtracted, int(z[-1]) + 1)
    for parity in (0, 1):
        found = exact_steps(z, fmt, subtracted, rounding=rounding, parity=parity)
        assert found.dtype == np.int64
        assert found.tolist() == [rounded(x, rounding, parity) for x in true], (fmt, parity)


WIDE = [lns16f10, lns16f7, LNSFormat(16, 9, base=4.0), LNSFormat(16, 3, base=1.7), lns32f23, LNSFormat(32, 30),
        LNSFormat(32, 30, base=1e300), LNSFormat(32, 8, base=1.0 + 2.0**-20), LNSFormat(20, 10, base=16.0)]  # fmt: skip


def sample(fmt, subtracted, count):
    """The ends, the octave and its neighbours, and z that are uniform in their logarithm and in themselves."""
    octave, last = int(steps_in_two(fmt)[0]), last_step(fmt)
    random = np.random.default_rng([fmt.bits, fmt.fraction_bits, subtracted])
    z = [0, 1, 2, 3, octave - 1, octave, octave + 1, octave + 2, 2 * octave, last - 1, last, last + 1, 1 << 33]
    z += np.exp(random.uniform(0.0, math.log(last), count)).astype(np.int64).tolist()
    z += random.integers(1, last, count).tolist()
    return np.unique([x for x in z if x >= subtracted])


@pytest.mark.parametrize("fmt", WIDE, ids=str)
@pytest.mark.parametrize("subtracted", [False, True])
def test_exact_steps_of_wide_formats(fmt, subtracted):
    z = sample(fmt, subtracted, 60)
    true = [position(x, fmt, subtracted) for x in z]
    for rounding in ("nearest", "toward_zero", "up"):
        found = exact_steps(z, fmt, subtracted, rounding=rounding)
        assert found.tolist() == [rounded(x, rounding) for x in true], rounding
    function = Exact().db if subtracted else Exact().sb
    assert function(z, fmt).tolist() == [rounded(x, "nearest") for x in true]


def test_exact_steps_of_nothing():
    assert exact_steps(np.empty(0, np.int64), lns8f3, True).tolist() == []


# ------------------------------------------------------------------------------------------------ error bounds

BASES = [2.0, 4.0, 1.7, 16.0, 1.5, math.e, 1.0 + 2.0**-20, 1e300, 8.0]


def check_position(z, fmt, subtracted):
    steps, steps_error = steps_in_two(fmt)
    value, error = gaussian_position(z, subtracted, steps, steps_error)
    true = position(z, fmt, subtracted)
    assert error >= 0.0
    assert abs(_mp.mpf(value) - true) <= _mp.mpf(error), (fmt, z, subtracted, value, error, float(true))
    assert error <= steps * 2.0**-44 + 2.0**-40
    assert value < 0 if subtracted else value > 0


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("fraction_bits", [0, 1, 3, 10, 23, 30])
@pytest.mark.parametrize("subtracted", [False, True])
def test_the_error_bound_holds_where_it_is_hardest(base, fraction_bits, subtracted):
    fmt = LNSFormat(32, fraction_bits, base=base)
    octave = steps_in_two(fmt)[0]
    edges = [int(octave * u) for u in (0.5, 1, 2, 29.9, 30, 30.1, 39, 40, 41, 60, 70, 71, 72, 999, 1000, 1001)]
    near = [z + shift for z in edges for shift in (-1, 0, 1, 2)]
    for z in {1, 2, 3, 7, 1 << 20, 1 << 32, *near} | (set() if subtracted else {0}):
        if int(subtracted) <= z <= 1 << 33:
            check_position(z, fmt, subtracted)


@given(
    base=st.sampled_from(BASES),
    fraction_bits=st.integers(0, 30),
    z=st.one_of(st.integers(1, 1 << 33), st.floats(0, 33).map(lambda e: int(2.0**e)), st.integers(1, 64)),
    subtracted=st.booleans(),
)
@example(base=2.0, fraction_bits=30, z=1 << 30, subtracted=True)
@example(base=2.0, fraction_bits=30, z=(1 << 30) + 1, subtracted=True)
@settings(max_examples=250)
def test_the_error_bound_holds(base, fraction_bits, z, subtracted):
    check_position(z, LNSFormat(32, fraction_bits, base=base), subtracted)


@pytest.mark.parametrize("fraction_bits", [0, 5, 30])
def test_positions_that_are_exact_have_no_error(fraction_bits):
    octave = float(1 << fraction_bits)
    assert gaussian_position(0, False, octave, 0.0) == (octave, 0.0)
    assert gaussian_position(1 << fraction_bits, True, octave, 0.0) == (-octave, 0.0)


# ---------------------------------------------------------------------------------------------------- tables


@small
def test_tables_of_the_exact_ones(fmt):
    table = tables(Exact(), fmt)
    assert table.sb.dtype == table.db.dtype == np.int32
    assert table.sb.shape == table.db.shape
    assert table.db[0] == 0
    for subtracted, found in ((False, table.sb), (True, table.db[1:])):
        true = positions(fmt, subtracted, table.sb.size)
        ties = [rounded(x, "nearest", 0) != rounded(x, "nearest", 1) for x in true]
        expected = [TIE if tie else rounded(x, "nearest") for x, tie in zip(true, ties, strict=True)]
        assert found.tolist() == expected


def test_where_sums_tie():
    """1 + 1 = base^(1/2) or base^(3/2) ..., half-way between two codes, and nowhere else."""
    ties = {
        (4.0, 0): [0], (4.0, 1): [], (16.0, 0): [], (16.0, 1): [0], (16.0, 2): [], (2.0, 0): [], (2.0, 5): [],
        (2.0**8, 2): [0], (1.7, 3): [], (8.0, 3): [], (2.0**64, 5): [0],
    }  # fmt: skip
    for (base, fraction_bits), expected in ties.items():
        table = tables(Exact(), LNSFormat(9, fraction_bits, base=base))
        assert np.flatnonzero(table.sb == TIE).tolist() == expected, base
        assert not np.any(table.db == TIE)
    assert np.iinfo(np.int32).min == TIE


@pytest.mark.parametrize("fmt", [*SMALL, *PRESETS, *WIDE], ids=str)
def test_nothing_comes_after_the_last_step(fmt):
    last = last_step(fmt)
    for subtracted in (False, True):
        assert abs(position(last, fmt, subtracted)) < 0.5
        low, high = 0, last  # the first z from which nothing comes
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if abs(position(middle, fmt, subtracted)) < 0.5 else (middle, high)
        assert high <= last <= high + 2 * steps_in_two(fmt)[0] + 4, "absurdly long"


@pytest.mark.parametrize("fmt", [*SMALL, *PRESETS], ids=str)
@pytest.mark.parametrize("gaussian", [Exact(), Mitchell(), LinearInterpolation(3)], ids=str)
def test_tables_are_complete_or_as_long_as_the_range(fmt, gaussian):
    table = tables(gaussian, fmt)
    if table.complete:
        assert table.sb[-1] == 0
        assert table.db[-1] == 0
        beyond = np.arange(table.sb.size, table.sb.size + 50, dtype=np.int64)
        assert not np.any(evaluate(gaussian, beyond, fmt, False))
        assert not np.any(evaluate(gaussian, beyond, fmt, True))
    else:
        assert table.sb.size == 2 * fmt.max_magnitude or isinstance(gaussian, Mitchell)
    if isinstance(gaussian, Exact):
        assert table.complete == (last_step(fmt) < 2 * fmt.max_magnitude)


def test_tables_are_made_once():
    assert tables(Mitchell(), lns8f3) is tables(Mitchell(), LNSFormat(8, 3))
    assert tables(LinearInterpolation(3), lns8f3) is not tables(LinearInterpolation(4), lns8f3)


# --------------------------------------------------------------------------------------------- approximations


def errors_in_steps(gaussian, fmt, subtracted):
    z = domain(fmt, subtracted)
    found = evaluate(gaussian, z, fmt, subtracted)
    true = np.array([float(x) for x in positions(fmt, subtracted, int(z[-1]) + 1)])
    return np.abs(found - true)


@presets
def test_mitchell_is_at_most_a_ninth_of_an_octave_off(fmt):
    worst = errors_in_steps(Mitchell(), fmt, False).max()
    assert worst <= 0.11 * steps_in_two(fmt)[0] + 0.5
    assert fmt.fraction_bits < 5 or worst > 0.05 * steps_in_two(fmt)[0]


def test_mitchell_by_hand():
    """sb(u) = (1 - frac(u) / 2) 2^-floor(u), db(u) = log2 of 1 less that, on the same line; in 1024 steps an octave."""
    assert Mitchell().sb(np.array([0, 1024, 2048, 512, 1536, 100 * 1024]), lns16f10).tolist() == [
        1024,
        512,
        256,
        768,
        384,
        0,
    ]
    # 1 - 3/4 = 1/4; 1 - 1/2 = 1/2; 1 - 1/4 = 3/4 = 1.5 / 2; 1 - 3/8 = 5/8 = 1.25 / 2
    assert Mitchell().db(np.array([512, 1024, 2048, 1536]), lns16f10).tolist() == [-2048, -1024, -512, -768]


@presets
@pytest.mark.parametrize("subtracted", [False, True])
def test_mitchell_has_the_right_signs(fmt, subtracted):
    found = evaluate(Mitchell(), domain(fmt, subtracted), fmt, subtracted)
    assert np.all(np.diff(found) >= 0) if subtracted else np.all(np.diff(found) <= 0)


@pytest.mark.parametrize("fmt", [lns8f5, lns10f5, lns12f6, lns16f7], ids=str)
@pytest.mark.parametrize("subtracted", [False, True])
def test_more_segments_are_nearer(fmt, subtracted):
    worst = [errors_in_steps(LinearInterpolation(n), fmt, subtracted).max() for n in (1, 2, 4, 8, 16, 32, 64)]
    assert all(b <= a + 0.5 for a, b in itertools.pairwise(worst))
    assert worst[0] > 4 * worst[-1]
    assert worst[-1] < 1.0


@pytest.mark.parametrize("subtracted", [False, True])
def test_a_line_for_each_step_is_exact(subtracted):
    fmt = lns8f3
    z = domain(fmt, subtracted)
    lines = LinearInterpolation(last_step(fmt), table_octaves=0.0)
    assert evaluate(lines, z, fmt, subtracted).tolist() == exact_steps(z, fmt, subtracted).tolist()


def test_interpolation_goes_through_its_ends_and_is_exact_below_an_octave():
    fmt, segments = lns16f7, 5
    lines, last = LinearInterpolation(segments), last_step(fmt)
    nodes = np.array([i * last // segments for i in range(segments + 1)])
    assert lines.sb(nodes, fmt).tolist() == exact_steps(nodes, fmt, False).tolist()
    between = (nodes[:-1] + nodes[1:]) // 2
    ends = [exact_steps(side, fmt, False) for side in (nodes[:-1], nodes[1:])]
    share = (between - nodes[:-1]) / np.diff(nodes)
    assert np.abs(lines.sb(between, fmt) - (ends[0] + share * (ends[1] - ends[0]))).max() <= 0.5
    near = np.arange(1, 128)
    assert lines.db(near, fmt).tolist() == exact_steps(near, fmt, True).tolist()
    half = LinearInterpolation(segments, table_octaves=0.5)
    assert half.db(near[:63], fmt).tolist() == exact_steps(near[:63], fmt, True).tolist()
    assert half.db(near, fmt).tolist() != exact_steps(near, fmt, True).tolist()


@pytest.mark.parametrize("segments", [0, -1, True, 1.5, "3", None])
def test_a_bad_number_of_segments(segments):
    with pytest.raises(ValueError, match="is no number of lines: an integer from 1 to 2"):
        LinearInterpolation(segments)


@pytest.mark.parametrize("subtracted", [False, True])
def test_a_table_has_the_value_in_the_middle_of_each_entry(subtracted):
    """20 entries of half an octave, by Python's own logarithm; one as narrow as a step is the exact one."""
    for fmt, width in ((lns8f3, 4), (lns16f10, 512)):
        z = domain(fmt, subtracted)[: 12 * width * 2]
        middle = z // width * width + width // 2
        sign = -1.0 if subtracted else 1.0
        expected = [
            0 if k >= 20 * width else round(2 * width * math.log2(1 + sign * 2.0 ** (-k / (2 * width))))
            for k in middle.tolist()
        ]
        assert evaluate(LookUpTable(20), z, fmt, subtracted).tolist() == expected
    z = domain(lns8f3, subtracted)
    for entries in (80, 160, 99):  # a step each, half a step, and what divides none
        fine = evaluate(LookUpTable(entries), z, lns8f3, subtracted)
        assert fine.tolist() == exact_steps(z, lns8f3, subtracted).tolist()


def test_a_bit_shift_by_hand():
    z = np.array([0, 1, 7, 8, 15, 16, 31, 64])
    assert BitShift().sb(z, lns8f3).tolist() == [8, 8, 8, 4, 4, 2, 1, 0]
    assert BitShift().db(z, lns8f3).tolist() == [-12, -12, -12, -6, -6, -3, -2, 0]  # -1.5, ties to even


@pytest.mark.parametrize(("entries", "octaves"), [(0, 10.0), (True, 10.0), (2.0, 10.0), (4, 0.0), (4, 65.0)])
def test_a_bad_table(entries, octaves):
    with pytest.raises(ValueError, match=r"is no size of a table|is out of range: more than 0"):
        LookUpTable(entries, octaves)


@presets
def test_cotransformation_is_faithful(fmt):
    assert errors_in_steps(Cotransformation(), fmt, True).max() < 1.0
    z = domain(fmt, False)
    assert Cotransformation().sb(z, fmt).tolist() == exact_steps(z, fmt, False).tolist()


def test_cotransformation_needs_its_guard_bits():
    """The more of them, the nearer to correct rounding."""
    z = domain(lns16f10, True)
    exact = exact_steps(z, lns16f10, True)
    wrong = [np.count_nonzero(Cotransformation(guard).db(z, lns16f10) != exact) for guard in (0, 3, 6, 12)]
    assert wrong[0] > wrong[1] > wrong[2] > wrong[3]
    assert errors_in_steps(Cotransformation(0), lns16f10, True).max() > 0.9
    assert wrong[3] <= 2
    assert wrong[1] > 10, "three guard bits are no correct rounding: the tables are in use"


# ------------------------------------------------------------------------------------------ sums, by a model


def model(a, b, fmt, gaussian, a_offset=0, b_offset=0, out=0, overflow="saturate", underflow="round", fit=False):
    """a + b for single codes: hi and the steps. With `fit`, E of the result, or None for zero and NaN."""
    nan, top = fmt.nan_code, fmt.max_magnitude
    if nan in (a, b):
        return None if fit else nan
    numbers = [
        ((code & top) - fmt.bias + offset, code > top) for code, offset in ((a, a_offset), (b, b_offset)) if code
    ]
    if not numbers:
        return None if fit else 0
    (log, negative), *others = sorted(numbers, key=lambda n: n[0], reverse=True)
    for other, other_negative in others:
        z = np.array([log - other], np.int64)
        if negative != other_negative and z == 0:
            return None if fit else 0
        log += int((gaussian.db if negative != other_negative else gaussian.sb)(z, fmt)[0])
    if fit:
        return log
    lowest = 1 - fmt.bias + out
    if log > fmt.max_log + out:
        m = 0 if overflow == "nan" else top
        return nan if overflow == "nan" else top | (fmt.sign_bit if negative else 0)
    m = log - lowest + 1
    if m < 1:
        half = lowest - Fraction(*steps_in_two(fmt)[0].as_integer_ratio())
        m = int(underflow == "saturate" or log >= half)
    return m | (fmt.sign_bit if negative and m else 0)


def steep(z, f):
    return max((1 << f) - z, 0) + (z == 3)


def plain_db(z, f):
    return -(40 << f) // (z * z)


njit_sb, njit_db = numba.njit(steep), numba.njit(plain_db)

APPROXIMATE = [
    Mitchell(),
    LinearInterpolation(3),
    Cotransformation(1),
    FromFunctions(steep, plain_db),
    FromFunctions(njit_sb, njit_db),
    FromFunctions(lambda z, f: 2.4, lambda z, f: -0.6),
]
KINDS = ["mitchell", "linear", "cotransformation", "plain functions", "jitted functions", "constants"]
approximate = pytest.mark.parametrize("gaussian", APPROXIMATE, ids=KINDS)
MODELLED = [lns4f1, lns6f2, LNSFormat(5, 1, base=1.7), LNSFormat(5, 0, base=4.0)]


@approximate
@pytest.mark.parametrize("fmt", MODELLED, ids=str)
@pytest.mark.parametrize("offsets", [(0, 0, 0), (3, -2, 1), (0, 0, 9), (0, 0, -9), (1000, -7, 990)])
def test_sums_of_all_pairs(gaussian, fmt, offsets):
    codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
    a, b = (part.reshape(-1) for part in np.meshgrid(codes, codes, indexing="ij"))
    where = {"a_log_offset": offsets[0], "b_log_offset": offsets[1], "out_log_offset": offsets[2]}
    modelled = lru_cache(maxsize=None)(lambda x, y, *rest: model(x, y, fmt, gaussian, *offsets, *rest))
    for overflow, underflow in (("saturate", "round"), ("nan", "saturate")):
        how = {**where, "overflow": overflow, "underflow": underflow}
        expected = [modelled(x, y, overflow, underflow) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        found, offset = arithmetic.add(a, b, fmt, gaussian=gaussian, **how)
        assert (found.tolist(), offset) == (expected, offsets[2])
        flipped = np.where(b & fmt.max_magnitude, b ^ fmt.sign_bit, b).astype(fmt.dtype)
        found, _ = arithmetic.subtract(a, flipped, fmt, gaussian=gaussian, **how)
        assert found.tolist() == expected
    assert found.dtype == fmt.dtype


@approximate
@given(data=st.data())
@settings(max_examples=25)
def test_sums_at_fitted_offsets(gaussian, data):
    fmt = data.draw(st.sampled_from([lns8f3, lns16f10, LNSFormat(8, 2, base=1.7), LNSFormat(20, 10)]))
    size = data.draw(st.integers(0, 6))
    code = st.one_of(st.sampled_from([0, fmt.nan_code, 1, fmt.max_magnitude]), st.integers(0, (1 << fmt.bits) - 1))
    a, b = (np.array(data.draw(st.lists(code, min_size=size, max_size=size)), fmt.dtype) for _ in range(2))
    offset = st.integers(-2 * fmt.max_log, 2 * fmt.max_log)
    a_offset = data.draw(offset)
    b_offset = np.array(data.draw(st.lists(offset, min_size=size, max_size=size)), np.int32)
    logs = [
        model(int(x), int(y), fmt, gaussian, a_offset, int(o), fit=True) for x, y, o in zip(a, b, b_offset, strict=True)
    ]
    found, out = arithmetic.add(
        a, b, fmt, gaussian=gaussian, a_log_offset=a_offset, b_log_offset=b_offset, out_log_offset="fit"
    )
    assert out == max((log for log in logs if log is not None), default=fmt.max_log) - fmt.max_log
    expected = [
        model(int(x), int(y), fmt, gaussian, a_offset, int(o), out) for x, y, o in zip(a, b, b_offset, strict=True)
    ]
    assert found.tolist() == expected


def test_the_exact_one_is_the_default():
    codes = np.arange(256, dtype=np.uint8)
    plain = arithmetic.add(codes[:, None], codes, lns8f3)
    named = arithmetic.add(codes[:, None], codes, lns8f3, gaussian=Exact())
    np.testing.assert_array_equal(plain[0], named[0])


def test_jitted_and_plain_functions_agree():
    z = np.arange(1, 200)
    for fmt in (lns8f3, lns16f10):
        assert APPROXIMATE[3].sb(z, fmt).tolist() == APPROXIMATE[4].sb(z, fmt).tolist()
        assert APPROXIMATE[3].db(z, fmt).tolist() == APPROXIMATE[4].db(z, fmt).tolist()
    assert FromFunctions(lambda z, f: 2.5, lambda z, f: -0.5).sb(np.array([7]), lns8f3).tolist() == [2]


def test_tensors_take_one_in_their_arithmetic():
    x = LNSTensor.from_float([1.0, 3.0, -2.0], lns8f5)
    y = LNSTensor.from_float([1.5, -3.0, 0.0], lns8f5)
    expected = [model(int(a), int(b), lns8f5, Mitchell()) for a, b in zip(x.codes, y.codes, strict=True)]
    assert x.add(y, gaussian=Mitchell()).codes.tolist() == expected
    assert x.subtract(-y, gaussian=Mitchell()).codes.tolist() == expected
    two = LNSTensor.from_float([1.0, 3.0], lns8f5)
    total = two.sum(accumulator=lns8f5, gaussian=Mitchell())
    assert int(total.codes) == model(*map(int, two.codes), lns8f5, Mitchell())


# ---------------------------------------------------------------------------------------------------- nonsense


@dataclass(frozen=True)
class Gives:
    """A Gaussian logarithm that gives what it is told to."""

    kind: str

    def sb(self, z, fmt):
        if self.kind == "nan":
            return np.full(z.shape, np.nan)
        if self.kind == "float":
            return np.zeros(z.shape)
        if self.kind == "bool":
            return np.zeros(z.shape, bool)
        if self.kind == "object":
            return np.array([None] * z.size, object)
        if self.kind == "shape":
            return np.zeros(z.size + 1, np.int64)
        if self.kind == "scalar":
            return 3
        if self.kind == "negative":
            return np.where(z == 2, -1, 0)
        if self.kind == "huge":
            return np.where(z == 2, (1 << 40) + 1, 0)
        if self.kind == "unsigned":
            return np.where(z == 2, np.uint64((1 << 64) - 1), np.uint64(0))
        return np.zeros(z.shape, np.int64)

    def db(self, z, fmt):
        if self.kind == "positive":
            return np.where(z == 2, 1, 0)
        if self.kind == "deep":
            return np.where(z == 2, -(1 << 40) - 1, 0)
        if self.kind == "least":
            return np.where(z == 2, np.iinfo(np.int64).min, 0)
        return np.zeros(z.shape, np.int64)


NONSENSE = {
    "nan": (TypeError, r"sb of Gives\(kind='nan'\) gave float64: give integers"),
    "float": (TypeError, "gave float64: give integers, whole code steps"),
    "bool": (TypeError, "gave bool: give integers"),
    "object": (TypeError, "gave object: give integers"),
    "shape": (ValueError, r"sb of Gives\(kind='shape'\) gave shape \(\d+,\) for \(\d+,\): one value for each z"),
    "scalar": (ValueError, r"gave shape \(\) for"),
    "negative": (ValueError, r"sb of Gives\(kind='negative'\) gave -1 at z=2: 0 or more, at most 2\^40 in size"),
    "huge": (ValueError, r"gave 1099511627777 at z=2: 0 or more, at most 2\^40"),
    "unsigned": (ValueError, "at z=2: 0 or more"),
    "positive": (ValueError, r"db of Gives\(kind='positive'\) gave 1 at z=2: 0 or less, at most 2\^40 in size"),
    "deep": (ValueError, r"db of Gives\(kind='deep'\) gave -1099511627777 at z=2: 0 or less"),
}


@pytest.mark.parametrize("kind", NONSENSE)
@pytest.mark.parametrize("fmt", [lns8f3, lns32f23], ids=str)
def test_nonsense_is_named(kind, fmt):
    kind_of_error, message = NONSENSE[kind]
    a = np.array([fmt.bias, fmt.bias], fmt.dtype)
    b = np.array([fmt.bias - 2, (fmt.bias - 2) | fmt.sign_bit], fmt.dtype)
    with pytest.raises(kind_of_error, match=message):
        arithmetic.add(a, b, fmt, gaussian=Gives(kind))


@pytest.mark.parametrize("fmt", [lns8f3, lns32f23], ids=str)
def test_the_least_integer_is_no_number_of_steps(fmt):
    a, b = np.array([fmt.bias], fmt.dtype), np.array([(fmt.bias - 2) | fmt.sign_bit], fmt.dtype)
    with pytest.raises(ValueError, match=r"db of .* at z=2: 0 or less"):
        arithmetic.add(a, b, fmt, gaussian=Gives("least"))


def test_more_steps_than_a_table_holds():
    with pytest.raises(ValueError, match=r"gave more than 2\^31 code steps for lns8f3: too many for a table"):
        tables(FromFunctions(lambda z, f: 0, lambda z, f: -(1 << 32)), lns8f3)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_functions_that_give_no_number(wrong):
    ones = np.array([64, 56], np.uint8)
    with pytest.raises(
        ValueError, match=r"a Gaussian logarithm gave -?(nan|inf) at z=0: code steps, at most 2\^40 in size"
    ):
        arithmetic.add(ones, ones, lns8f3, gaussian=FromFunctions(lambda z, f: wrong, lambda z, f: 0))
    with pytest.raises(ValueError, match=r"a Gaussian logarithm gave -?(nan|inf) at z=5"):
        FromFunctions(lambda z, f: 0, lambda z, f: wrong if z == 5 else 0).db(np.arange(1, 9), lns8f3)


@dataclass
class Unhashable:
    numbers: list

    def sb(self, z, fmt):
        return z * 0

    db = sb


def test_objects_that_are_none():
    ones = np.array([64], np.uint8)
    for wrong in (3, "mitchell", object(), type("Half", (), {"sb": lambda self, z, fmt: z})()):
        with pytest.raises(TypeError, match=r"has no methods sb and db: see lnsnum\.gaussian\.GaussianLog"):
            arithmetic.add(ones, ones, lns8f3, gaussian=wrong)
        with pytest.raises(TypeError, match="has no methods sb and db"):
            check_gaussian(wrong)
    with pytest.raises(
        TypeError, match="cannot be hashed, and its tables are kept by that: make it a frozen dataclass"
    ):
        arithmetic.add(ones, ones, lns8f3, gaussian=Unhashable([]))


def test_what_an_approximation_is_not_for():
    ones = np.array([64], np.uint8)
    for how in ({"rounding": "up"}, {"rounding": "stochastic_log", "random_bits": np.zeros(1, np.uint32)},
                {"out_format": lns16f10}, {"b_format": lns8f5, "out_format": lns8f3}):  # fmt: skip
        with pytest.raises(ValueError, match="one format, and rounding='nearest'"):
            arithmetic.add(ones, ones, lns8f3, gaussian=Mitchell(), **how)
