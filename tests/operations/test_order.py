"""The order of codes of one scale: every pair of narrow formats against floats and exact numbers, wide ones at random.

The loops must say what the int64 keys say, which serve numbers of several scales, and what Python says of the values.
"""

import operator
from fractions import Fraction

import numpy as np
import pytest

from lnsnum import LNSFormat, LNSTensor, arithmetic, decode, lns4f1, lns6f2, lns8f3, lns16f10, lns32f23
from lnsnum.array import elementwise
from lnsnum.array.scalars import exact_codes, key_of_number
from lnsnum.operations import order

FORMATS = [lns4f1, lns6f2, lns8f3, LNSFormat(3, 0), LNSFormat(8, 0, base=1.5), lns16f10, LNSFormat(12, 3), lns32f23]
RELATIONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
formats = pytest.mark.parametrize("fmt", FORMATS, ids=str)


def some_codes(fmt, count=300):
    """All codes, or the ends and some of them."""
    if fmt.bits <= 8:
        return np.arange(1 << fmt.bits, dtype=fmt.dtype)
    top = fmt.max_magnitude
    ends = [0, 1, 2, top, top - 1, fmt.bias, fmt.nan_code, fmt.nan_code + 1, fmt.nan_code + 2, fmt.nan_code + top]
    some = np.random.default_rng(3).integers(0, 1 << fmt.bits, count)
    return np.concatenate([ends, some, some[:50] + 1]).astype(np.uint64).astype(fmt.dtype)


def values(codes, fmt):
    """In the order of the numbers, with their NaN."""
    codes = codes.astype(np.int64)
    m = codes & fmt.max_magnitude
    signed = np.where(codes > fmt.max_magnitude, -m, m).astype(np.float64)
    signed[codes == fmt.nan_code] = np.nan
    return signed


@formats
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("offset", [0, -77])
def test_all_pairs_of_one_scale(fmt, relation, offset):
    codes = some_codes(fmt)
    a, b = codes[:, None], codes[None, :]
    x, y = (LNSTensor(part, fmt, log_offset=offset) for part in (a, b))
    np.testing.assert_array_equal(relation(x, y), relation(values(a, fmt), values(b, fmt)))


def test_the_order_is_that_of_the_floats():
    codes = some_codes(lns8f3)
    floats = decode(codes, lns8f3)
    np.testing.assert_array_equal(values(codes, lns8f3)[:, None] < values(codes, lns8f3), floats[:, None] < floats)


@formats
@pytest.mark.parametrize("relation", RELATIONS)
def test_scales_of_channels_that_are_the_same(fmt, relation):
    codes = some_codes(fmt)
    n = codes.size // 3
    offsets = np.array([[4], [-4], [9]], np.int32)
    a, b = codes[: 3 * n].reshape(3, n), codes[::-1][: 3 * n].reshape(3, n)
    x, y = (LNSTensor(part, fmt, log_offset=offsets) for part in (a, b))
    np.testing.assert_array_equal(relation(x, y), relation(values(a, fmt), values(b, fmt)))


@formats
@pytest.mark.parametrize("offset", [0, 5, -(1 << 30)])
def test_three_answers_and_not_a_number(fmt, offset):
    codes = some_codes(fmt)
    a, b = np.repeat(codes, codes.size), np.tile(codes, codes.size)
    found = arithmetic.compare(a, b, fmt, a_log_offset=offset, b_log_offset=offset)
    x, y = values(a, fmt), values(b, fmt)
    expected = np.where(np.isnan(x) | np.isnan(y), 2, np.nan_to_num(np.sign(x - y)))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int8
    for function, one in ((arithmetic.minimum, np.minimum), (arithmetic.maximum, np.maximum)):
        chosen, _ = function(a, b, fmt, a_log_offset=offset, b_log_offset=offset, out_log_offset=offset)
        np.testing.assert_array_equal(values(chosen, fmt), one(x, y))


def numbers_about(fmt, offset):
    """Numbers on the grid and between, beyond both ends, and of every kind."""
    places = np.linspace(-fmt.max_log - 2, fmt.max_log + 2, 13).astype(int) + offset
    on = [2.0 ** (int(p) // (1 << fmt.fraction_bits)) for p in places if abs(p) >> fmt.fraction_bits < 1000]
    near = [np.nextafter(x, way) for x in on for way in (0.0, np.inf)]
    kinds = [0, -0.0, 1, True, Fraction(1, 3), 10**400, Fraction(1, 10**400), np.inf, np.nan, np.float32(0.1)]
    return [number for x in (*on, *near, *kinds) for number in (x, -x if type(x) is not bool else x)]


@formats
@pytest.mark.parametrize("offset", [0, -20, 12345])
def test_a_number_beside_codes(fmt, offset):
    """The loop over the codes' width says what the keys of int64 say, whichever is on the left."""
    codes = some_codes(fmt)
    x = LNSTensor(codes, fmt, log_offset=offset)
    key = 2 * arithmetic.order_key(codes, fmt, offset)
    for number in numbers_about(fmt, offset):
        other = np.int64(0 if number != number else key_of_number(elementwise.as_rational(number), fmt))
        nan = (codes == fmt.nan_code) | (number != number)
        for relation in RELATIONS:
            holds, turned = relation(key, other), relation(other, key)
            both = (holds | nan, turned | nan) if relation is operator.ne else (holds & ~nan, turned & ~nan)
            np.testing.assert_array_equal(relation(x, number), both[0], err_msg=f"{relation} {number}")
            if not isinstance(number, (np.generic, Fraction)):
                np.testing.assert_array_equal(relation(number, x), both[1], err_msg=f"{number} {relation}")


@formats
def test_ranks_are_the_integers_and_can_be_turned_back(fmt):
    codes = some_codes(fmt)
    rank = order.ranks(codes, fmt)
    assert rank.dtype == fmt.dtype
    np.testing.assert_array_equal(order.codes_of(rank, fmt), codes)
    if fmt.bits <= 8:
        assert sorted(rank.tolist()) == list(range(1 << fmt.bits))
    np.testing.assert_array_equal(np.argsort(rank, kind="stable"), np.argsort(values(codes, fmt), kind="stable"))


@formats
@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_sorting(fmt, axis):
    codes = np.random.default_rng(8).choice(some_codes(fmt), (17, 23))
    for x in (LNSTensor(codes, fmt), LNSTensor(codes.T, fmt).T, LNSTensor(codes, fmt, log_offset=-9)):
        found, by_value = np.sort(x, axis), values(codes, fmt)
        np.testing.assert_array_equal(values(found.codes, fmt), np.sort(by_value, axis))
        assert found.log_offset == x.log_offset
        np.testing.assert_array_equal(np.argsort(x, axis), np.argsort(by_value, axis, kind="stable"))
        for function in (np.argmax, np.argmin):
            np.testing.assert_array_equal(function(x, axis), function(by_value, axis))


def test_sorting_along_the_axis_of_one_scale():
    codes = np.random.default_rng(9).integers(0, 256, (4, 30), dtype=np.uint8)
    offsets = np.array([[3], [0], [-5], [100]], np.int32)
    x = LNSTensor(codes, lns8f3, log_offset=offsets)
    found = np.sort(x, 1)
    np.testing.assert_array_equal(values(found.codes, lns8f3), np.sort(values(codes, lns8f3), 1))
    np.testing.assert_array_equal(found.log_offset, offsets)
    x.sort(1)
    np.testing.assert_array_equal(x.codes, found.codes)


def test_a_number_is_looked_up_by_its_value():
    """Whatever was asked before: 1, 1.0 and True are one number, and a shared code is not to be written to."""
    two = exact_codes(2, lns8f3, 0)
    assert exact_codes(2.0, lns8f3, 0) == two == 72
    assert not two.flags.writeable
    assert exact_codes(2, lns16f10, 0) != two
    assert exact_codes(2, lns8f3, 8) == 64
    assert exact_codes(float("nan"), lns8f3, 0) == lns8f3.nan_code
    x = LNSTensor.from_float([1.0, 2.0], lns8f3)
    x[...] = 2
    x[0] = 4
    assert (x + 2).tolist() == LNSTensor.from_float([6.0, 4.0], lns8f3).tolist()
