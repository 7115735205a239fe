"""What operators prepare once, against the functions of arrays, which check each call: the same codes and scales."""

import itertools
import operator

import numpy as np
import pytest

from lnsnum import LNSFormat, LNSTensor, arithmetic, lns4f1, lns8f3, lns8f5, lns16f10, lns32f23, reduction
from lnsnum.operations.prepared import LARGEST, prepared, prepared_sum

FORMATS = [lns4f1, lns8f3, lns8f5, lns16f10, lns32f23, LNSFormat(6, 0, base=4.0), LNSFormat(9, 4, base=1.7)]
FORMATS += [LNSFormat(20, 3), LNSFormat(8, 6, base=1.0 + 2.0**-40)]
OFFSETS = [(0, 0), (0, 3), (-4, 0), (7, 7), (-300, 12), (1 << 29, -(1 << 29)), (1 << 30, 1 << 30), (-(1 << 30),) * 2]
OPERATORS = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv}
formats = pytest.mark.parametrize("fmt", FORMATS, ids=str)


def pairs(fmt):
    """Pairs of all kinds: any, near each other, that cancel, at the ends, with zero and NaN, none of them a number."""
    rng, top, bottom = np.random.default_rng(2), fmt.max_magnitude, fmt.sign_bit
    some = rng.integers(0, 1 << fmt.bits, (2, 60))
    close = rng.integers(2, top, 30)
    yield some
    yield some % 8
    yield close, close - 1 + bottom
    yield close, close + bottom
    yield [top, top, 1, bottom + 1, 0, bottom, 5 % top], [top, bottom + top, 1, 1, 3, 0, bottom]
    yield [0, bottom, 0], [0, 0, bottom]
    yield [1], [1]


@formats
@pytest.mark.parametrize("name", OPERATORS)
def test_operations_on_two_arrays(fmt, name):
    served = 0
    for a, b in pairs(fmt):
        a, b = (np.asarray(codes, np.uint64).astype(fmt.dtype) for codes in (a, b))
        for a_offset, b_offset in OFFSETS:
            operation = prepared(name, fmt, a_offset, b_offset)
            found = operation and operation(a, b)
            scales = {"a_log_offset": a_offset, "b_log_offset": b_offset}
            function = getattr(arithmetic, name)
            try:
                expected, offset = function(a, b, fmt, **scales)
            except ValueError:
                assert found is None
                continue
            if found is not None:
                served += 1
                assert found[1] == offset
                np.testing.assert_array_equal(found[0], expected)
            x, y = LNSTensor(a, fmt, log_offset=a_offset), LNSTensor(b, fmt, log_offset=b_offset)
            for result in (OPERATORS[name](x, y), getattr(np, name)(x, y)):
                assert result.log_offset == offset
                np.testing.assert_array_equal(result.codes, expected)
    assert served > 10 or fmt not in FORMATS[1:5]


@pytest.mark.parametrize("fmt", [lns8f3, lns8f5], ids=str)
def test_sums_of_all_pairs_are_served(fmt):
    """Those near half of the smallest too, which the loops leave open: a thousand numbers are likely to have one."""
    a, c = (codes.reshape(-1).astype(np.uint8) for codes in np.meshgrid(np.arange(256), np.arange(256)))
    found = prepared("add", fmt, 0, 0)(a, c)
    assert found is not None
    np.testing.assert_array_equal(found[0], arithmetic.add(a, c, fmt)[0])


@pytest.mark.parametrize("fmt", FORMATS[:-1], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_numbers_views_and_shapes(fmt, name):
    """The method with an option goes the plain way."""
    rng, operate = np.random.default_rng(4), OPERATORS[name]
    codes = rng.integers(0, 1 << fmt.bits, (6, 10), dtype=np.uint64).astype(fmt.dtype)

    def plainly(a, b):
        a = a if isinstance(a, LNSTensor) else LNSTensor.from_float(a, fmt)
        return getattr(a, name)(b, rounding="nearest")

    for offset in (0, -5):
        x = LNSTensor(codes, fmt, log_offset=offset)
        one = x[0, 0]
        others = [x, x[::-1], x.T.reshape(6, 10), x[0], x[:, :1], one, 1, 1.0, -1, 0, x[:0, 0].reshape(0, 1)[:, :0]]
        for a, b in [(x, other) for other in others[:-1]] + [(other, x) for other in others[:6]] + [(one, one)]:
            found, expected = operate(a, b), plainly(a, b)
            assert (found.shape, found.log_offset, found.fmt) == (expected.shape, expected.log_offset, fmt)
            np.testing.assert_array_equal(found.codes, expected.codes)
        if offset == 0:
            np.testing.assert_array_equal(operate(1, x).codes, plainly(1.0, x).codes)


@pytest.mark.parametrize("size", [LARGEST - 1, LARGEST, LARGEST + 1])
def test_sizes_about_the_largest(size):
    rng = np.random.default_rng(5)
    for fmt, operate in itertools.product((lns8f3, lns16f10), OPERATORS.items()):
        x, y = (LNSTensor(rng.integers(0, 1 << fmt.bits, size).astype(fmt.dtype), fmt) for _ in range(2))
        expected = getattr(x, operate[0])(y, rounding="nearest")
        np.testing.assert_array_equal(operate[1](x, y).codes, expected.codes)


@formats
def test_sums(fmt):
    rng = np.random.default_rng(6)
    any_codes = rng.integers(0, 1 << fmt.bits, (5, 7, 3), dtype=np.uint64).astype(fmt.dtype)
    numbers = np.where(any_codes == fmt.nan_code, 0, any_codes).astype(fmt.dtype)
    arrays = [any_codes, numbers, numbers % 4, np.zeros_like(numbers), numbers[:1, :1, :1]]
    arrays += [np.where(numbers > 0, fmt.max_magnitude, 0).astype(fmt.dtype), numbers.T]
    for codes, offset in itertools.product(arrays, (0, 1, -77, 12345, 1 << 30, -(1 << 30))):
        x = LNSTensor(codes, fmt, log_offset=offset)
        for axis, keepdims in itertools.product((None, 0, -1, (0, 2), (1, 0, 2), ()), (False, True)):
            try:
                expected, scale = reduction.sum(codes, fmt, log_offset=offset, axis=axis, keepdims=keepdims)
            except ValueError:
                with pytest.raises(ValueError, match="finds no scale"):
                    x.sum(axis, keepdims=keepdims)
                continue
            for found in (x.sum(axis, keepdims=keepdims), np.sum(x, axis, keepdims=keepdims)):
                assert (found.shape, found.log_offset) == (expected.shape, scale)
                np.testing.assert_array_equal(found.codes, expected)


def test_sums_of_axes_that_are_not_there():
    x = LNSTensor.from_float([[1.0, 2.0]], lns8f3)
    with pytest.raises(ValueError, match="axis"):
        x.sum((0, 0))
    with pytest.raises(ValueError, match="out of bounds"):
        x.sum(2)
    with pytest.raises(TypeError, match="no argument"):
        x.sum(initial=3)
    assert x[:, :0].sum().tolist() == 0.0
    # scales beyond the range of doubles need a look at each number, here or there
    assert prepared_sum(LNSFormat(32, 0), 0) is None
    assert prepared_sum(lns8f3, 0) is not None


def test_codes_with_bits_to_spare_are_looked_at():
    """They are kept, not copied: someone may have written to them."""
    codes = np.array([3, 5], np.uint8)
    x = LNSTensor(codes, lns4f1)
    codes[0] = 77
    for operate in (*OPERATORS.values(), lambda a, b: a.sum(), lambda a, b: b < 1):
        with pytest.raises(ValueError, match="outside lns4f1"):
            operate(x, x)
