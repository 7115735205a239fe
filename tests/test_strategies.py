"""The strategies draw what they say, and the law suite finds what is broken and passes what is not.

Boundaries are checked with mpmath. The suite is tried on a model of arithmetic written here, in float64, and on more
than a dozen ways of breaking it, each of which must be found by the law that it breaks.
"""

import contextlib
import io
import math
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from hypothesis.extra.numpy import array_shapes

import lnsnum
from lnsnum import LNSFormat, LNSTensor, arithmetic, lns4f1, lns6f2, lns8f3, lns8f5, lns16f10, lns32f23, reference
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.strategies import (
    LawViolation,
    bases,
    check_arithmetic_laws,
    codes,
    finite_floats,
    formats,
    near_ties,
    tensors,
)
from lnsnum.testing.laws import LAWS, OPERATIONS

ROOT = Path(lnsnum.__file__).parent.parent
DTYPES = {
    "float64": (53, -1022, 1023),
    "float32": (24, -126, 127),
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
}
"""Precision, least and greatest exponent of normal numbers."""

MANY = settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def minimal(strategy, condition=lambda _: True):
    return find(strategy, condition, settings=MANY)


def drawn(strategy, count=400):
    """Values of a strategy, the same in every run."""
    values = []

    @settings(MANY, max_examples=count, derandomize=True)
    @given(strategy)
    def collect(value):
        values.append(value)

    collect()
    return values


# ------------------------------------------------------------------------------------------- formats, codes, tensors


@given(formats(5, 9, bases=bases()))
def test_formats_have_the_bits_asked_for(fmt):
    assert isinstance(fmt, LNSFormat)
    assert 5 <= fmt.bits <= 9
    assert fmt.base > 1


def test_formats_shrink_to_few_bits_of_base_2():
    assert minimal(formats()) == LNSFormat(3, 0)
    assert minimal(formats(bases=bases())) == LNSFormat(3, 0)
    assert minimal(formats(), lambda fmt: fmt.bits > 20) == LNSFormat(21, 0)
    assert minimal(formats(), lambda fmt: fmt.fraction_bits > 4) == LNSFormat(7, 5)
    assert minimal(formats(bases=bases()), lambda fmt: fmt.base != 2.0).bits == 3


def test_formats_of_all_widths_and_bases_come_up():
    found = drawn(formats(bases=bases()), 1000)
    assert {fmt.bits for fmt in found} == set(range(3, 33))
    assert {fmt.base for fmt in found} >= {2.0, 4.0, 1.5, 10.0, math.e, math.nextafter(1.0, 2.0)}
    assert max(fmt.fraction_bits for fmt in found) == 30
    assert {fmt.base for fmt in drawn(formats(), 50)} == {2.0}
    assert {fmt.base for fmt in drawn(formats(bases=[3.0, 5.0]), 50)} == {3.0, 5.0}
    assert {fmt.base for fmt in drawn(formats(bases=1.5), 50)} == {1.5}


@pytest.mark.parametrize(("low", "high"), [(2, 8), (8, 33), (9, 8)])
def test_formats_refuse_widths_that_do_not_exist(low, high):
    with pytest.raises(ValueError, match=rf"min_bits={low}, max_bits={high} are out of range: 3 to 32"):
        formats(low, high)


@given(st.data(), formats(bases=bases()))
def test_codes_are_of_the_format(data, fmt):
    code = data.draw(codes(fmt))
    assert type(code) is int
    assert 0 <= code < 1 << fmt.bits
    number = data.draw(codes(fmt, nan=False, zero=False, negative=False))
    assert 1 <= number <= fmt.max_magnitude
    array = data.draw(codes(fmt, shape=(2, 3), nan=False))
    assert (array.dtype, array.shape) == (fmt.dtype, (2, 3))
    assert (array != fmt.nan_code).all()
    assert (array < 1 << fmt.bits).all()
    assert data.draw(codes(fmt, shape=array_shapes())).dtype == fmt.dtype


def test_all_codes_of_a_small_format_come_up():
    assert set(drawn(codes(lns4f1), 600)) == set(range(16))
    assert set(drawn(codes(lns4f1, zero=False, nan=False), 600)) == set(range(16)) - {0, 8}
    assert set(drawn(codes(lns4f1, negative=False), 600)) == set(range(9))


def test_edges_of_a_wide_format_come_up():
    edges = {0, lns32f23.nan_code, 1, lns32f23.sign_bit + 1, lns32f23.max_magnitude, (1 << 32) - 1, lns32f23.bias}
    assert edges <= set(drawn(codes("lns32f23"), 400))


def test_codes_shrink_to_one_and_then_to_the_nearest():
    assert minimal(codes(lns16f10)) == lns16f10.bias
    assert (
        minimal(codes(lns16f10, negative=False, nan=False), lambda code: code > lns16f10.bias + 100)
        == lns16f10.bias + 101
    )
    assert minimal(codes(lns16f10, nan=False), lambda code: code & lns16f10.sign_bit) == lns16f10.bias + 32768
    assert minimal(codes(lns8f5, shape=(2, 2))).tolist() == [[64, 64], [64, 64]]
    assert minimal(codes(lns8f5, shape=3), lambda x: 128 in x).tolist().count(64) == 2


@given(tensors())
def test_tensors_are_tensors(x):
    assert isinstance(x, LNSTensor)
    assert 1 <= x.ndim <= 3
    assert x.size > 0


@given(st.data(), tensors(formats(max_bits=6), (2, 3), log_offset=st.integers(-3, 3), nan=False))
def test_tensors_are_what_was_asked_for(data, x):
    assert x.fmt.bits <= 6
    assert x.shape == (2, 3)
    assert -3 <= x.log_offset <= 3
    assert not x.isnan().any()
    assert data.draw(tensors("lns8f5", 4, log_offset=7)).log_offset == 7
    channels = np.array([[1], [2]], np.int32)
    assert data.draw(tensors("lns8f5", (2, 3), log_offset=channels)).log_offset.tolist() == [[1], [2]]


def test_tensors_of_every_kind_come_up():
    usual = drawn(tensors("lns8f3"), 600)
    offsets = [x.log_offset for x in usual]
    assert {type(offset) for offset in offsets} == {int, np.ndarray}
    assert 0 in [offset for offset in offsets if isinstance(offset, int)]
    assert max(abs(offset) for offset in offsets if isinstance(offset, int)) == MAX_LOG_OFFSET
    assert any(isinstance(o, np.ndarray) and o.ndim == 2 and 1 in o.shape and o.size > 1 for o in offsets)
    odd = drawn(tensors("lns8f3", scalars=True, empty=True), 600)
    assert {x.ndim for x in odd} == {0, 1, 2, 3}
    assert any(x.size == 0 for x in odd)
    assert {x.ndim for x in usual} == {1, 2, 3}


def test_tensors_shrink_to_a_single_one():
    x = minimal(tensors())
    assert (x.fmt, x.codes.tolist(), x.log_offset) == (LNSFormat(3, 0), [2], 0)
    x = minimal(tensors(lns8f3, scalars=True))
    assert (x.shape, x.codes.tolist()) == ((), lns8f3.bias)


# ------------------------------------------------------------------------------------------------------------- floats


def is_of(x, dtype):
    """Whether a Python float is a number of the type, by the definition of the type."""
    if x == 0:
        return True
    precision, least, greatest = DTYPES[dtype]
    exponent = math.frexp(abs(x))[1] - 1
    unit = max(exponent, least) - (precision - 1)
    return exponent <= greatest and Fraction(x) / Fraction(2) ** unit % 1 == 0


def log2_range(dtype):
    precision, least, greatest = DTYPES[dtype]
    return least - precision + 1, greatest + 1


def placed(fmt, log_offset=0):
    """log2 of the smallest and the greatest."""
    octave = 1 / fmt.codes_per_octave
    return (log_offset - fmt.max_log) * octave, (log_offset + fmt.max_log) * octave


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), fmt=formats(bases=bases()))
def test_floats_belong_to_their_type_and_to_the_range(dtype, data, fmt):
    log_offset = data.draw(st.integers(-2 * fmt.max_log, 2 * fmt.max_log).filter(lambda n: abs(n) <= MAX_LOG_OFFSET))
    for strategy in (finite_floats, near_ties):
        x = data.draw(strategy(fmt, log_offset=log_offset, dtype=dtype))
        assert type(x) is float
        assert math.isfinite(x)
        assert is_of(x, dtype)
        smallest, greatest = placed(fmt, log_offset)
        low, high = log2_range(dtype)
        beyond = 4.1 if strategy is finite_floats else 3 / fmt.codes_per_octave + 2
        if x:
            assert math.log2(abs(x)) >= min(smallest - beyond, high - 4.1)
            assert math.log2(abs(x)) <= max(greatest + beyond, low + 5.1)


def test_floats_reach_both_ends_of_a_format_and_beyond():
    for fmt, log_offset, dtype in [(lns8f5, 0, "float64"), (lns8f3, 40, "float32"), (lns8f3, -60, "bfloat16")]:
        smallest, greatest = (2.0**log for log in placed(fmt, log_offset))
        sizes = [abs(x) for x in drawn(finite_floats(fmt, log_offset=log_offset, dtype=dtype))]
        assert 0 in sizes
        assert any(0 < x < smallest / 2 for x in sizes)
        assert any(smallest <= x <= greatest for x in sizes)
        assert any(x > 2 * greatest for x in sizes)


def test_subnormals_and_infinite_ranges():
    assert any(0 < abs(x) < 2.0**-126 for x in drawn(finite_floats(LNSFormat(12, 2), dtype="float32"), 200))
    fmt, offset, greatest = LNSFormat(8, 0), 1 << 20, sys.float_info.max
    assert all(x == 0 or abs(x) >= greatest / 17 for x in drawn(finite_floats(fmt, log_offset=offset), 100))
    assert all(abs(x) <= 16 * 5e-324 for x in drawn(finite_floats(fmt, log_offset=-offset), 100))
    assert all(abs(x) >= math.nextafter(greatest, 0) - 2.0**972 for x in drawn(near_ties(fmt, log_offset=offset), 100))
    assert all(abs(x) <= 4 * 5e-324 for x in drawn(near_ties(fmt, log_offset=-offset), 100))


def test_floats_shrink_to_one():
    for dtype in DTYPES:
        assert minimal(finite_floats(lns8f5, dtype=dtype)) == 1.0
        assert minimal(near_ties(lns8f5, dtype=dtype)) == 1.0
    assert minimal(near_ties("lns32f30")) == 1.0
    assert minimal(finite_floats(lns8f5), lambda x: x < 0) == -1.0
    assert minimal(near_ties(lns16f10), lambda x: x < 0) == -1.0


def side_of_boundary(x, fmt, log_offset, dtype):
    """The nearest boundary base^(n / 2^(F + 1)): n, the sign of |x| - boundary, and their distance in floats of dtype.

    mpmath at 400 bits; for `half`, half the smallest, n is None.
    """
    precision, least, _ = DTYPES[dtype]
    with mpmath.workprec(400):
        x, step = mpmath.mpf(abs(x)), mpmath.log(mpmath.mpf(fmt.base)) / 2 ** (fmt.fraction_bits + 1)
        n = int(mpmath.nint(mpmath.log(x) / step))
        half = mpmath.exp(2 * (log_offset - fmt.max_log) * step) / 2
        found = []
        for name, boundary in ((n, mpmath.exp(n * step)), (None, half)):
            difference = x - boundary
            if abs(difference) < boundary * mpmath.mpf(2) ** -300:
                difference = mpmath.mpf(0)
            unit = mpmath.mpf(2) ** (max(mpmath.frexp(boundary)[1] - 1, least) - precision + 1)
            found.append((abs(difference) / unit, name, int(mpmath.sign(difference))))
    distance, name, side = min(found, key=lambda entry: entry[0])
    return name, side, float(distance)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), fmt=formats(bases=bases()))
def test_near_ties_are_near_a_boundary(dtype, data, fmt):
    x = data.draw(near_ties(fmt, dtype=dtype))
    if x and abs(x) < math.ldexp(0.95, DTYPES[dtype][2] + 1) and log2_range(dtype)[0] + 4 < math.log2(abs(x)):
        assert side_of_boundary(x, fmt, 0, dtype)[2] <= 8  # three floats on either side, twice as many below 2^n


@pytest.mark.parametrize("log_offset", [0, -37])
@pytest.mark.parametrize("fmt", [lns8f5, LNSFormat(6, 0, base=4.0), LNSFormat(7, 2, base=10.0), lns32f23], ids=str)
def test_near_ties_lie_on_both_sides_of_grid_points_midpoints_and_edges(fmt, log_offset):
    sides = {}
    for x in drawn(near_ties(fmt, log_offset=log_offset), 1200):
        if x:
            n, side, _ = side_of_boundary(x, fmt, log_offset, "float64")
            smallest, greatest = 2 * (log_offset - fmt.max_log), 2 * (log_offset + fmt.max_log)
            n = None if n == smallest - 2 * fmt.codes_per_octave else n  # half the smallest can be on the grid
            kinds = {None: ["half"], smallest: ["smallest"], greatest: ["greatest"], greatest + 1: ["beyond"]}.get(
                n, []
            )
            for kind in [*kinds, "half" if n is None else "midpoint" if n % 2 else "grid"]:
                sides.setdefault(kind, set()).add(side)
    assert {kind: found >= {-1, 1} for kind, found in sides.items()} == dict.fromkeys(
        ["half", "smallest", "greatest", "beyond", "midpoint", "grid"], True
    )
    rational = fmt.base == 4.0
    assert (0 in sides["midpoint"]) == rational  # of base 4: between 4^n and 4^(n + 1) lies 2 4^n


def test_near_ties_are_where_the_codes_change():
    """Two neighbours among the floats, of which one rounds down and the other up, for every midpoint there is."""
    fmt = LNSFormat(5, 2)
    floats = sorted({x for x in drawn(near_ties(fmt), 3000) if 2.0 ** (-7 / 4) < x < 2.0 ** (7 / 4)})
    found = [reference.encode(x, fmt) for x in floats]
    assert sorted(set(found)) == list(range(1, 16))
    for code in range(1, 15):
        assert math.nextafter(max(x for x, c in zip(floats, found, strict=True) if c == code), 4.0) in floats


def test_exact_ties_are_drawn():
    fmt = LNSFormat(5, 0, base=4.0)
    assert minimal(near_ties(fmt), lambda x: x == 2.0) == 2.0
    assert reference.encode(2.0, fmt) == fmt.bias  # a tie: the even E
    assert reference.encode(8.0, fmt) == fmt.bias + 2
    with pytest.raises(NoSuchExample):
        minimal(near_ties(fmt), lambda x: x == 3.0)


@pytest.mark.parametrize("strategy", [finite_floats, near_ties])
def test_bad_arguments_are_refused(strategy):
    with pytest.raises(ValueError, match="dtype='float8' is not known: one of float64, float32, float16, bfloat16"):
        strategy(lns8f5, dtype="float8")
    with pytest.raises(TypeError, match=r"log_offset=0\.5 is a float"):
        strategy(lns8f5, log_offset=0.5)


# ------------------------------------------------------------------------------------------------------ from_type


FROM_TYPE = """
import sys, warnings
warnings.simplefilter("error")
import hypothesis
assert "lnsnum" not in sys.modules and "numpy" not in sys.modules and "mpmath" not in sys.modules
sys.modules["mpmath"] = None  # as if it were not there
import hypothesis.strategies as st
import lnsnum
assert "lnsnum.strategies" not in sys.modules
x = hypothesis.find(st.from_type(lnsnum.LNSTensor), lambda x: True)
fmt = hypothesis.find(st.from_type(lnsnum.LNSFormat), lambda fmt: True)
assert hypothesis.find(st.from_type(list[int]), lambda x: True) == []
print(x, fmt)
"""


def test_hypothesis_knows_our_types_without_importing_us():
    result = subprocess.run([sys.executable, "-c", FROM_TYPE], capture_output=True, text=True, cwd="/", check=False)
    assert (result.stdout, result.stderr) == ("LNSTensor.from_float([1.], 'lns3f0') lns3f0\n", "")


def test_our_types_can_be_overridden_and_our_hook_survives_another_hypothesis(monkeypatch):
    from hypothesis.strategies._internal import types

    import _lnsnum_hypothesis

    monkeypatch.delattr(types, "_global_extra_lookup")
    known = dict(types._global_type_lookup)
    try:
        _lnsnum_hypothesis.register()
        assert {LNSFormat, LNSTensor} <= set(types._global_type_lookup)
        monkeypatch.undo()
        assert minimal(st.from_type(LNSFormat)) == LNSFormat(3, 0)
        st.register_type_strategy(LNSFormat, st.just(lns8f5))
        assert minimal(st.from_type(LNSFormat)) == lns8f5
    finally:
        types._global_type_lookup.clear()
        types._global_type_lookup.update(known)
        st.from_type.__clear_cache()


# ----------------------------------------------------------------------------------- arithmetic that keeps the laws


class Library:
    """lnsnum.arithmetic at log_offset 0."""

    def __init__(self, fmt, operations=tuple(OPERATIONS), **policies):
        for name in operations:
            function = getattr(arithmetic, name)
            setattr(self, name, lambda a, b, f=function: f(a, b, fmt, out_log_offset=0, **policies)[0])


class Model:
    """Arithmetic in float64, far more accurate than any tie of the formats that are tried is close."""

    def __init__(self, fmt):
        self.fmt = fmt
        self.h = math.log(fmt.base) / (1 << fmt.fraction_bits)

    def logs(self, *operands):
        return [(x.astype(np.int64) & self.fmt.max_magnitude) - self.fmt.bias for x in operands]

    def round(self, top, s):
        """E of r = top + s."""
        e = np.rint(top + s).astype(np.int64)
        smallest = np.where(
            top + s < -self.fmt.max_log - math.log(2) / self.h - 1e-9, -self.fmt.bias, -self.fmt.max_log
        )
        return np.where(top + s < -self.fmt.max_log, smallest, e)

    def saturate(self, e):
        return np.minimum(e, self.fmt.max_log)

    def pack(self, e, negative, a, b):
        """The code of E, zero where E is -bias."""
        m = self.saturate(e) + self.fmt.bias
        return m + np.where((m > 0) & negative, self.fmt.sign_bit, 0)

    def minus(self, a, b):
        return [x >= self.fmt.sign_bit for x in (a, b)]

    def nan(self, a, b, codes):
        return np.where((a == self.fmt.nan_code) | (b == self.fmt.nan_code), self.fmt.nan_code, codes)

    def sb(self, gap):
        return np.log1p(np.exp(-gap * self.h)) / self.h

    def db(self, gap):
        return np.log1p(-np.exp(-np.maximum(gap, 1) * self.h)) / self.h

    def cancel(self, codes, where):
        return np.where(where, 0, codes)

    def sign_of_sum(self, a, b):
        return np.where(self.logs(a)[0] >= self.logs(b)[0], *self.minus(a, b))

    def sum(self, a, b):
        (e_a, e_b), (minus_a, minus_b) = self.logs(a, b), self.minus(a, b)
        gap = abs(e_a - e_b)
        e = self.round(np.maximum(e_a, e_b), np.where(minus_a == minus_b, self.sb(gap), self.db(gap)))
        codes = self.cancel(self.pack(e, self.sign_of_sum(a, b), a, b), (minus_a != minus_b) & (gap == 0))
        return np.where(a == 0, b, np.where(b == 0, a, codes))

    def negative(self, a):
        return np.where(a & self.fmt.max_magnitude, a ^ self.fmt.sign_bit, a)

    def add(self, a, b):
        return self.nan(a, b, self.sum(a, b)).astype(self.fmt.dtype)

    def subtract(self, a, b):
        return self.add(a, self.negative(b).astype(self.fmt.dtype))

    def multiply(self, a, b):
        (e_a, e_b), (minus_a, minus_b) = self.logs(a, b), self.minus(a, b)
        codes = self.pack(self.round(e_a + e_b, 0.0), minus_a ^ minus_b, a, b)
        return self.nan(a, b, self.times_zero(np.where((a == 0) | (b == 0), 0, codes), a, b)).astype(self.fmt.dtype)

    def times_zero(self, codes, a, b):
        return codes

    def divide(self, a, b):
        (e_a, e_b), (minus_a, minus_b) = self.logs(a, b), self.minus(a, b)
        codes = np.where(a == 0, 0, self.pack(self.round(e_a - e_b, 0.0), minus_a ^ minus_b, a, b))
        return self.nan(a, b, self.by_zero(codes, b)).astype(self.fmt.dtype)

    def by_zero(self, codes, b):
        return np.where(b == 0, self.fmt.nan_code, codes)


SMALL = [
    lns4f1,
    lns6f2,
    lns8f3,
    lns8f5,
    LNSFormat(3, 0),
    LNSFormat(8, 6),
    LNSFormat(5, 0, base=4.0),
    LNSFormat(7, 3, base=10.0),
]
WIDE = [LNSFormat(10, 4), lns16f10, LNSFormat(12, 5, base=1.5), LNSFormat(20, 9)]


@pytest.mark.parametrize("implementation", [Library, Model])
@pytest.mark.parametrize("fmt", SMALL + WIDE, ids=str)
def test_the_library_and_a_model_keep_the_laws(implementation, fmt):
    report = check_arithmetic_laws(implementation(fmt), fmt, max_examples=60)
    assert (report.fmt, report.operations, report.missing) == (fmt, tuple(OPERATIONS), ())
    assert (report.laws, report.exhaustive) == (tuple(LAWS), fmt.bits <= 8)
    assert report.pairs == 4**fmt.bits if report.exhaustive else report.pairs > 5000


@pytest.mark.parametrize(
    "fmt",
    [lns32f23, LNSFormat(32, 30, base=1e300), LNSFormat(32, 0, base=1 + 2.0**-50), LNSFormat(24, 0, base=1.1)],
    ids=str,
)
def test_the_library_keeps_the_laws_in_wide_formats(fmt):
    check_arithmetic_laws(Library(fmt), fmt, max_examples=25)


@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(5, 0, base=16.0), LNSFormat(9, 3)], ids=str)
@pytest.mark.parametrize("overflow", ["saturate", "nan"])
@pytest.mark.parametrize("underflow", ["round", "saturate"])
def test_the_library_keeps_the_laws_under_every_policy(fmt, overflow, underflow):
    policies = {"overflow": overflow, "underflow": underflow}
    check_arithmetic_laws(Library(fmt, **policies), fmt, **policies, max_examples=30)
    other = {"overflow": "nan" if overflow == "saturate" else "saturate"}
    with pytest.raises(LawViolation) as caught:
        check_arithmetic_laws(Library(fmt, **policies), fmt, **{**policies, **other}, max_examples=30)
    assert {violation.law for violation in caught.value.violations} == {"saturation"}


@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(5, 0, base=4.0), LNSFormat(6, 1, base=16.0)], ids=str)
def test_the_suite_agrees_with_the_reference(fmt):
    """The oracle's own results pass, as tables of all pairs, and any other code in place of one is found."""
    every = range(1 << fmt.bits)
    tables = {
        name: np.array([[getattr(reference, name)(a, b, fmt) for b in every] for a in every], fmt.dtype)
        for name in OPERATIONS
    }

    class Table:
        pass

    table = Table()
    for name in OPERATIONS:
        setattr(table, name, lambda a, b, name=name: tables[name][a, b])
    check_arithmetic_laws(table, fmt)
    random = np.random.default_rng(0)
    for name in OPERATIONS:
        for _ in range(60):
            a, b, wrong = random.integers(1 << fmt.bits, size=3)
            right = tables[name][a, b]
            if wrong != right:
                tables[name][a, b] = wrong
                with pytest.raises(LawViolation, match=rf"{name}\({a}, {b}\) = {wrong}"):
                    check_arithmetic_laws(table, fmt, operations=[name])
                tables[name][a, b] = right


# --------------------------------------------------------------------------------------- arithmetic that breaks them


class LeavesALittle(Model):
    """x - x is the smallest: the table of the difference has no entry for it."""

    def cancel(self, codes, where):
        return np.where(where, 1, codes)


class Wraps(Model):
    """A carry out of the magnitude is lost."""

    def saturate(self, e):
        return ((e + self.fmt.bias) & self.fmt.max_magnitude) - self.fmt.bias


class CarriesIntoTheSign(Model):
    """A carry out of the magnitude flips the sign."""

    def saturate(self, e):
        return e


class ForgetsNaN(Model):
    """NaN is taken for a number."""

    def nan(self, a, b, codes):
        return np.where(a == self.fmt.nan_code, codes & self.fmt.max_magnitude, codes)


class DividesByZero(Model):
    """x / 0 is the greatest, as in formats with an infinity."""

    def by_zero(self, codes, b):
        return np.where(b == 0, self.fmt.max_magnitude, codes)


class ZeroIsSmall(Model):
    """Zero is taken for a number just below the smallest."""

    def sum(self, a, b):
        return super().sum(np.where(a == 0, 1, a), np.where(b == 0, 1, b))


class KeepsTimesZero(Model):
    """0 x is the smallest."""

    def times_zero(self, codes, a, b):
        return np.where((a == 0) ^ (b == 0), 1, codes)


class Truncates(Model):
    """Rounds towards zero."""

    def round(self, top, s):
        return super().round(np.floor(top + s + 1e-9), 0.0)


class RoundsUp(Model):
    """Rounds towards +infinity: up for positive sums, down for negative ones."""

    def pack(self, e, negative, a, b):
        return super().pack(np.where(negative & (e > -self.fmt.max_log), e - (b & 1 & a), e), negative, a, b)


class TakesTheFirstSign(Model):
    """The sum has the sign of a, whichever is greater."""

    def sign_of_sum(self, a, b):
        return self.minus(a, b)[0]


class Mitchell(Model):
    """log2(1 + x) = x, Mitchell's straight line, without a correction."""

    def sb(self, gap):
        return np.exp(-gap * self.h) * math.log(2) / self.h


class CoarseTable(Model):
    """A table whose entries each serve 8 gaps, the last ones read first: within 5 ulp, but it dips."""

    def sb(self, gap):
        return super().sb((gap & ~7) + 7 - (gap & 7))


class Flushes(Model):
    """What is below the smallest is zero."""

    def round(self, top, s):
        return np.where(top + s < -self.fmt.max_log, -self.fmt.bias, super().round(top, s))


class PrefersTheFirst(Model):
    """Rounds up where a is the greater and down where b is."""

    def sum(self, a, b):
        above = self.logs(a)[0] > self.logs(b)[0]
        same = ~((a ^ b) & self.fmt.sign_bit).astype(bool) & (a != 0) & (b != 0)
        codes = super().sum(a, b)
        m = codes & self.fmt.max_magnitude
        return np.where(above & same & (m < self.fmt.max_magnitude), codes + 1, codes)


class DividesByOne(Model):
    """The bias is off by one in the quotient."""

    def divide(self, a, b):
        return super().divide(a, np.where(b & self.fmt.max_magnitude == 1, b, b - (b > 0) * (b != self.fmt.nan_code)))


class ForgetsToNegate(Model):
    """a - b is a + b where b is negative."""

    def subtract(self, a, b):
        return self.add(a, np.where(self.minus(a, b)[1], b, self.negative(b)).astype(self.fmt.dtype))


class SaturatesToNaN(Model):
    """What is beyond the greatest is NaN."""

    def pack(self, e, negative, a, b):
        return np.where(e > self.fmt.max_log, self.fmt.nan_code, super().pack(e, negative, a, b))


class OneWrongEntry(Model):
    """One gap of the table of differences is off by one."""

    def db(self, gap):
        return super().db(gap) + (gap == 5)


BROKEN = [
    (LeavesALittle, {"inverse"}, {"add", "subtract"}, {}),
    (Wraps, {"saturation"}, {"add", "multiply", "divide"}, {}),
    (CarriesIntoTheSign, {"saturation"}, {"add", "multiply", "divide"}, {}),
    (ForgetsNaN, {"nan"}, {"add", "multiply", "divide"}, {}),
    (DividesByZero, {"nan"}, {"divide"}, {}),
    (ZeroIsSmall, {"identity", "zero"}, {"add", "subtract"}, {}),
    (KeepsTimesZero, {"zero"}, {"multiply"}, {}),
    (Truncates, {"error_bound"}, {"add", "subtract"}, {}),
    (RoundsUp, {"sign_symmetry"}, {"multiply", "add"}, {"max_ulp": 2}),
    (TakesTheFirstSign, {"error_bound", "commutativity"}, {"add", "subtract"}, {}),
    (Mitchell, {"error_bound"}, {"add", "subtract"}, {}),
    (CoarseTable, {"monotonicity"}, {"add"}, {"max_ulp": 8}),
    (Flushes, {"underflow"}, {"multiply", "divide"}, {}),
    (PrefersTheFirst, {"commutativity"}, {"add"}, {"max_ulp": 2}),
    (DividesByOne, {"identity", "inverse", "error_bound"}, {"divide"}, {}),
    (ForgetsToNegate, {"inverse", "commutativity"}, {"subtract"}, {}),
    (SaturatesToNaN, {"saturation"}, {"add", "multiply"}, {}),
    (OneWrongEntry, {"error_bound"}, {"add", "subtract"}, {}),
]


@pytest.mark.parametrize("fmt", [lns8f5, LNSFormat(12, 7)], ids=str)
@pytest.mark.parametrize(
    ("broken", "laws", "operations", "arguments"), BROKEN, ids=lambda x: getattr(x, "__name__", "")
)
def test_broken_arithmetic_is_found_by_the_law_it_breaks(broken, laws, operations, arguments, fmt):
    with pytest.raises(LawViolation) as caught:
        check_arithmetic_laws(broken(fmt), fmt, **arguments, max_examples=100)
    found = {(violation.law, violation.operation) for violation in caught.value.violations}
    assert {law for law, _ in found} >= laws
    for law in laws:
        assert {operation for broken_law, operation in found if broken_law == law} & operations
    assert {operation for _, operation in found} <= operations | {"subtract", "multiply", "divide", "add"}
    for violation in caught.value.violations:
        own = getattr(broken(fmt), violation.operation)
        assert own(*(np.array([x], fmt.dtype) for x in (violation.a, violation.b)))[0] == violation.result
        assert str(violation) == violation.line
        assert f"{violation.law}: {violation.operation}({violation.a}, {violation.b}) = {violation.result}" in str(
            violation
        )
    assert str(caught.value).splitlines() == [violation.line for violation in caught.value.violations]


@pytest.mark.parametrize("fmt", [lns8f5, LNSFormat(12, 7)], ids=str)
def test_only_the_laws_that_are_broken_are_reported(fmt):
    for broken, expected in [
        (LeavesALittle, {"inverse", "commutativity", "sign_symmetry", "monotonicity"}),
        (KeepsTimesZero, {"zero", "identity", "sign_symmetry", "monotonicity"}),
        (DividesByZero, {"nan", "sign_symmetry"}),
        (SaturatesToNaN, {"saturation"}),
        (Flushes, {"underflow"}),
    ]:
        with pytest.raises(LawViolation) as caught:
            check_arithmetic_laws(broken(fmt), fmt, max_examples=60)
        assert {violation.law for violation in caught.value.violations} <= expected, broken


def test_an_approximation_passes_at_its_own_bound():
    worst = math.ceil(32 * 0.0861)  # Mitchell's line is at most 0.0861 octaves off
    with pytest.raises(LawViolation, match=r"error_bound: add\(\d+, \d+\).*; it is off by [\d.]+ ulp"):
        check_arithmetic_laws(Mitchell(lns8f5), lns8f5)
    assert check_arithmetic_laws(Mitchell(lns8f5), lns8f5, max_ulp=worst + 0.5)
    assert check_arithmetic_laws(Truncates(LNSFormat(12, 7)), LNSFormat(12, 7), operations=["add"], max_ulp=1)


def test_ties_go_to_the_even_code():
    fmt = LNSFormat(5, 0, base=4.0)

    class TiesUp(Model):
        def round(self, top, s):
            return np.where(np.abs(s - 0.5) < 1e-9, top + 1, super().round(top, s))

    with pytest.raises(LawViolation, match=r"error_bound: add\(8, 8\) = 9, that is 1 \+ 1 = 4; expected 8 \(1\)"):
        check_arithmetic_laws(TiesUp(fmt), fmt)
    assert check_arithmetic_laws(TiesUp(fmt), fmt, max_ulp=Fraction(1, 2) + Fraction(1, 1000))


def test_counterexamples_of_wide_formats_are_made_simple():
    class ForgetsTheSign(Model):
        def multiply(self, a, b):
            return super().multiply(a, b & self.fmt.max_magnitude)

    with pytest.raises(LawViolation) as caught:
        check_arithmetic_laws(ForgetsTheSign(lns16f10), lns16f10, laws=["error_bound"])
    one, minus_one = lns16f10.bias, lns16f10.bias + lns16f10.sign_bit
    assert [(v.a, v.b, v.result) for v in caught.value.violations] == [(one, minus_one, one)]


def test_codes_outside_the_format_break_a_law():
    class Overflows(Model):
        def saturate(self, e):
            return e

    fmt = lns6f2
    with pytest.raises(
        LawViolation, match=r"range: multiply\(\d+, \d+\) = (6[4-9]|[7-9]\d|1\d\d), .* = no code; expected a code"
    ):
        check_arithmetic_laws(Overflows(fmt), fmt, laws=["range"], operations=["multiply"])


# ----------------------------------------------------------------------------------------------- what the suite says


def test_missing_operations_are_reported():
    report = check_arithmetic_laws(Library(lns6f2, ("multiply", "divide")), "lns6f2")
    assert report.operations == ("multiply", "divide")
    assert report.missing == ("add", "subtract")
    assert str(report) == (
        "lns6f2: multiply, divide kept 11 laws on 4096 pairs (all); not there, so not tried: add, subtract"
    )


def test_a_module_is_an_implementation_too():
    class Namespace:
        multiply = staticmethod(Library(lns6f2).multiply)

    assert check_arithmetic_laws(Namespace, lns6f2).operations == ("multiply",)


def test_operations_and_laws_can_be_chosen():
    report = check_arithmetic_laws(Wraps(lns6f2), lns6f2, operations=["add"], laws=["identity", "inverse"])
    assert (report.operations, report.missing, report.laws) == (("add",), (), ("identity", "inverse"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"operations": ["fma"]},
            ValueError,
            "operations has 'fma', which is not known: add, subtract, multiply, divide",
        ),
        ({"operations": "add"}, TypeError, "operations='add' is a string: give a list of names"),
        ({"operations": []}, ValueError, "operations is empty"),
        ({"laws": ["associativity"]}, ValueError, "laws has 'associativity', which is not known: range, nan"),
        ({"max_ulp": 0.4}, ValueError, "max_ulp=0.4 is out of range: at least 0.5"),
        ({"max_ulp": math.nan}, ValueError, "max_ulp=nan is out of range"),
        ({"overflow": "wrap"}, ValueError, "overflow='wrap' is not known"),
        ({"underflow": "flush"}, ValueError, "underflow='flush' is not known"),
    ],
)
def test_bad_arguments_of_the_suite_are_refused(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_arithmetic_laws(Library(lns6f2), lns6f2, **arguments)


def test_implementations_without_operations_are_refused():
    with pytest.raises(TypeError, match="object has no method add, subtract, multiply, divide: give it one"):
        check_arithmetic_laws(object(), lns6f2)
    with pytest.raises(TypeError, match="Library has no method add"):
        check_arithmetic_laws(Library(lns6f2, ("multiply",)), lns6f2, operations=["add"])


@pytest.mark.parametrize("fmt", [lns6f2, lns16f10], ids=str)
@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda a, b: (a, 0), TypeError, "add returned a tuple: return one array of codes"),
        (lambda a, b: a.astype(np.int64), TypeError, "add returned an array of int64: the codes of"),
        (lambda a, b: a[:1], ValueError, "add returned shape (1,) for operands of shape"),
    ],
)
def test_results_of_a_wrong_type_or_shape_are_refused(fmt, result, error, message):
    class Wrong:
        add = staticmethod(result)

    with pytest.raises(error, match=re.escape(message)):
        check_arithmetic_laws(Wrong, fmt)


def test_the_operands_are_the_implementation_s_own():
    class Scribbles(Model):
        def multiply(self, a, b):
            out = super().multiply(a, b)
            a[:] = b[:] = 0
            return out

    assert check_arithmetic_laws(Scribbles(lns6f2), lns6f2)
    assert check_arithmetic_laws(Scribbles(lns16f10), lns16f10, max_examples=20)


@settings(max_examples=5, deadline=None)
@given(formats(3, 6, bases=[2.0, 1.5, 10.0]))
def test_the_suite_can_be_run_inside_a_property(fmt):
    check_arithmetic_laws(Library(fmt), fmt)


def test_the_output_in_the_docs_is_real():
    page = (ROOT / "docs" / "testing.md").read_text()
    blocks = re.findall(r"^```(python|text)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    namespace, printed, compared = {}, "", 0
    for language, text in blocks:
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(text, "testing.md", "exec"), namespace)
            printed = output.getvalue()
        else:
            assert text == printed
            compared += 1
    assert compared == 2


def test_the_docs_list_every_law():
    page = (ROOT / "docs" / "testing.md").read_text()
    assert re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE) == list(LAWS)
