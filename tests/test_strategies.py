"""The strategies draw what they say. Boundaries are checked with mpmath."""

import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
from drawing import drawn, minimal
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from hypothesis.extra.numpy import array_shapes

import lnsnum
from lnsnum import LNSFormat, LNSTensor, lns4f1, lns8f3, lns8f5, lns16f10, lns32f23, reference
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.strategies import (
    bases,
    codes,
    finite_floats,
    formats,
    near_ties,
    tensors,
)

ROOT = Path(lnsnum.__file__).parent.parent
DTYPES = {
    "float64": (53, -1022, 1023),
    "float32": (24, -126, 127),
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
}
"""Precision, least and greatest exponent of normal numbers."""


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


@pytest.mark.thorough
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
