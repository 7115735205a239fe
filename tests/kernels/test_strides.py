"""Arrays that are transposed: copied, or taken as they lie, they are the same arrays."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsnum import LNSTensor, arithmetic, decode, encode, lns8f3, lns16f10, random_bits
from lnsnum.kernels import strides
from lnsnum.kernels.rounding import MODES
from lnsnum.kernels.strides import common_order, contiguous, put_back

TYPES = [np.uint8, np.uint16, np.float16, np.uint32, np.float32, np.float64, np.longdouble, ">f4"]
SHAPES = [(80, 64), (64, 80), (61, 90), (9, 500), (8, 512), (3, 2000), (1, 5000), (16, 520), (200, 131)]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matrices(dtype, shape):
    memory = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    for array in (memory, memory.T, memory[::-1].T, memory[:, ::2].T, memory[1:].T, memory.T[::2], memory[:, :0].T):
        copy = contiguous(array)
        assert copy.flags.c_contiguous
        assert copy.dtype == array.dtype
        assert np.array_equal(copy, array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_any_part_of_the_columns(dtype):
    """As threads take them: what lies beside is not written to."""
    matrix = np.random.default_rng(0).integers(0, 256, (97, 200)).astype(dtype)
    for begin in (0, 64, 128):
        for end in (begin + 1, begin + 63, begin + 64, begin + 65, 200):
            out = np.full((200, 97), 7, dtype)
            strides._transpose_tiles(matrix, out, begin, min(end, 200))
            expected = np.full_like(out, 7)
            expected[begin:end] = matrix.T[begin:end]
            np.testing.assert_array_equal(out, expected)


def test_an_array_of_bytes_that_begins_anywhere():
    memory = np.random.default_rng(0).integers(0, 256, 64 * 72 + 8).astype(np.uint8)
    for begin in range(8):
        array = memory[begin : begin + 64 * 72].reshape(64, 72).T
        assert np.array_equal(contiguous(array), array)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data())
def test_axes_in_any_order(shape, data):
    """Put several times over, so that copies in squares have something to do."""
    shape = [8 * length for length in shape[:2]] + shape[2:] + [data.draw(st.sampled_from([1, 8, 11]))]
    order = data.draw(st.permutations(range(len(shape))))
    array = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape).transpose(order)
    assert np.array_equal(contiguous(array), array)
    found = common_order([array, array.copy(order="K")])
    if found is None:
        assert array.flags.c_contiguous
    else:
        assert array.transpose(found).flags.c_contiguous
        assert np.array_equal(put_back(array.transpose(found), found), array)


def test_arrays_that_lie_otherwise_have_no_common_order():
    a = np.zeros((3, 4, 5))
    assert common_order([a, a]) is None
    assert common_order([a.T, a.T.copy()]) is None
    assert common_order([a.transpose(1, 0, 2), a.transpose(1, 0, 2)]) == (1, 0, 2)


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(1)
    return [encode(rng.normal(size=(6, 30, 40)), lns8f3) for _ in range(2)]


LAYOUTS = list(itertools.permutations(range(3)))


def laid_out(array, order):
    """The same array, whose memory has its axes in this order."""
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


@pytest.mark.parametrize("order", LAYOUTS, ids=str)
@pytest.mark.parametrize("other", LAYOUTS, ids=str)
def test_operations_on_two(pair, order, other):
    """With scales along each axis, and random bits, which belong to the elements."""
    a, b = pair
    x, y = laid_out(a, order), laid_out(b, other)
    bits = random_bits(a.shape, seed=0)
    for shape in ((6, 1, 1), (30, 1), (40,), (6, 30, 40)):
        scales = {"a_log_offset": np.arange(np.prod(shape), dtype=np.int32).reshape(shape) % 50, "b_log_offset": 3}
        for name in ("multiply", "divide", "add", "subtract"):
            function = getattr(arithmetic, name)
            for modes in ({}, {"rounding": "stochastic_value", "random_bits": bits}, {"rounding": "up"}):
                expected, offset = function(a, b, lns8f3, **scales, **modes)
                found, its_offset = function(x, y, lns8f3, **scales, **modes)
                assert np.array_equal(found, expected)
                assert its_offset == offset


@pytest.mark.parametrize("order", LAYOUTS, ids=str)
def test_operations_on_one_and_three(pair, order):
    a, b = pair
    x, y = laid_out(a, order), laid_out(b, order)
    channels = np.arange(30, dtype=np.int32)[:, None]
    for name in ("sqrt", "reciprocal", "square", "exp", "exp2", "log", "log2"):
        function = getattr(arithmetic, name)
        for log_offset in (0, 5, channels):
            expected = function(a, lns8f3, log_offset=log_offset)
            found = function(x, lns8f3, log_offset=log_offset)
            assert np.array_equal(found[0], expected[0])
            assert found[1] == expected[1]
    assert np.array_equal(arithmetic.fma(x, y, x, lns8f3)[0], arithmetic.fma(a, b, a, lns8f3)[0])
    assert np.array_equal(arithmetic.power(x, 3, lns8f3)[0], arithmetic.power(a, 3, lns8f3)[0])
    # one of them broadcast
    assert np.array_equal(arithmetic.add(x, y[0], lns8f3)[0], arithmetic.add(a, b[0], lns8f3)[0])
    assert np.array_equal(arithmetic.multiply(x, y[:, :1], lns8f3)[0], arithmetic.multiply(a, b[:, :1], lns8f3)[0])


@pytest.mark.parametrize("order", LAYOUTS, ids=str)
def test_conversions(order):
    x = np.random.default_rng(2).normal(size=(6, 30, 40))
    bits, channels = random_bits(x.shape, seed=1), np.arange(30, dtype=np.int32)[:, None]
    for dtype in (np.float64, np.float32, np.float16):
        own = x.astype(dtype)
        for rounding in MODES:
            words = [{"random_bits": bits}, {"seed": 4}] if rounding.startswith("stochastic") else [{}]
            for given_words in words:
                for log_offset in (0, channels):
                    options = {"rounding": rounding, "log_offset": log_offset, **given_words}
                    expected = encode(own, lns16f10, **options)
                    assert np.array_equal(encode(laid_out(own, order), lns16f10, **options), expected)
                    back = decode(laid_out(expected, order), lns16f10, "float32", log_offset=log_offset)
                    assert np.array_equal(back, decode(expected, lns16f10, "float32", log_offset=log_offset))


def test_a_tensor_s_transpose_computes_as_the_tensor():
    x = LNSTensor.from_float(np.random.default_rng(3).normal(size=(50, 60)), "lns8f3")
    assert np.array_equal((x.T * x.T).codes, (x * x).codes.T)
    assert np.array_equal((x.T + x.T).codes, (x + x).codes.T)
    assert (x.T + x.T).sum().tolist() == (x + x).T.copy().sum().tolist()
