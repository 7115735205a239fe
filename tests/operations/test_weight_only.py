"""Products with codes as weights, to the bit: against the order of sums that the module's text gives, in plain NumPy.

The oracle decodes by `lnsnum.decode`, multiplies in float32, and adds as the order says: by rows 128 lanes, halved
until there is one; by columns the products of blocks of 64, and the blocks. Tests run in registers, where this
processor can, and as all others do. The bound of the error is tried against sums in rational numbers.
"""

import itertools
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsnum import GroupOffsets, LNSFormat, decode, encode, lns6f2, lns8f3, lns8f5, lns12f6, lns16f10, lns32f23
from lnsnum.kernels.byte_tables import has_byte_tables
from lnsnum.operations import weight_only
from lnsnum.operations.weight_only import error_bound, weight_only_matmul

FORMATS = [lns8f5, lns8f3, lns6f2, lns12f6, lns16f10, lns32f23, LNSFormat(7, 2, base=1.7), LNSFormat(3, 0)]
SIZES = [0, 1, 3, 7, 8, 9, 64, 127, 128, 129, 136, 256, 300, 1000]


def same_bits(a, b):
    """Equal, zeros in their sign too; any NaN is as good as another."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype == np.float32
    assert a.shape == b.shape
    nan = np.isnan(a)
    np.testing.assert_array_equal(nan, np.isnan(b))
    np.testing.assert_array_equal(a.view(np.uint32)[~nan], b.view(np.uint32)[~nan])
    return True


def lanes_then_halves(x, w):
    """x (B, K) times w (N, K), both float32, in the order of the specification."""
    inner = x.shape[1]
    with np.errstate(all="ignore"):
        products = x[:, None, :] * w[None, :, :]
        lanes = np.zeros((*products.shape[:2], 128), np.float32)
        for begin in range(0, inner, 128):
            part = products[..., begin : begin + 128]
            lanes[..., : part.shape[-1]] += part
        while lanes.shape[-1] > 1:
            half = lanes.shape[-1] // 2
            lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def blocks_in_turn(x, w):
    """x (B, K) times w (K, N), both float32, in the order of the specification."""
    total = np.zeros((x.shape[0], w.shape[1]), np.float32)
    with np.errstate(all="ignore"):
        for begin in range(0, x.shape[1], 64):
            block = np.zeros_like(total)
            for k in range(begin, min(begin + 64, x.shape[1])):
                block += x[:, k, None] * w[k]
            total += block
    return total


def expected(x, codes, fmt, log_offset=0, transposed=False):
    w = decode(codes, fmt, "float32", log_offset=log_offset)
    sums = (blocks_in_turn if transposed else lanes_then_halves)(x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1]), w)
    return sums.reshape(*x.shape[:-1], sums.shape[-1])


@pytest.fixture(params=[True, False], ids=["in registers", "in memory"])
def path(request, monkeypatch):
    """Both ways to make numbers of codes."""
    if request.param and not has_byte_tables():
        pytest.skip("this processor has no byte tables")
    monkeypatch.setattr(weight_only, "has_byte_tables", lambda: request.param)


both_ways = pytest.mark.usefixtures("path")


def drawn(seed, fmt, rows, inner, batch=(2,)):
    """Codes of every kind but NaN, and floats."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 1 << fmt.bits, (rows, inner), np.uint64).astype(fmt.dtype)
    codes[codes == fmt.nan_code] = 0
    return random.normal(size=(*batch, inner)).astype(np.float32), codes


@both_ways
@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("inner", SIZES)
def test_the_bits_are_those_of_the_order(fmt, inner):
    for rows, batch in ((5, ()), (3, (2,)), (1, (2, 3)), (0, (2,)), (4, (0,)), (2, (3, 0))):
        x, codes = drawn(inner, fmt, rows, inner, batch)
        found = weight_only_matmul(x, codes, fmt)
        assert found.shape == (*batch, rows)
        same_bits(found, expected(x, codes, fmt))


@both_ways
@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("columns", [0, 1, 63, 64, 128, 130, 300])
def test_the_bits_are_those_of_the_order_by_columns(fmt, columns):
    for inner, batch in ((0, (2,)), (1, ()), (5, (1,)), (64, (2,)), (65, (3,)), (200, (2, 1)), (7, (0,))):
        x, codes = drawn(columns, fmt, inner, columns, batch)
        x = np.random.default_rng(columns).normal(size=(*batch, inner)).astype(np.float32)
        found = weight_only_matmul(x, codes, fmt, transposed=True)
        assert found.shape == (*batch, columns)
        same_bits(found, expected(x, codes, fmt, transposed=True))


@both_ways
@pytest.mark.parametrize("fmt", [lns8f5, lns6f2], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_nan_of_the_codes_reaches_its_sums_and_no_other(fmt, transposed):
    x, codes = drawn(5, fmt, 200, 300)
    x = x[:, : len(codes)] if transposed else x
    random = np.random.default_rng(0)
    codes[random.integers(0, 200, 12), random.integers(0, 300, 12)] = fmt.nan_code
    found = weight_only_matmul(x, codes, fmt, transposed=transposed)
    assert 0 < np.isnan(found).sum() < found.size // 2
    same_bits(found, expected(x, codes, fmt, transposed=transposed))


SHAPES = [(), (1,), (1, 1), ("rows", 1), (1, "inner"), ("inner",), ("rows", "inner")]


@pytest.mark.parametrize("fmt", [lns8f5, lns6f2, lns16f10, lns32f23], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("spread", [0, 5, 3000])
@both_ways
def test_offsets(fmt, shape, spread):
    """One, one of each row, column or element; few of them, and more than there are tables for."""
    rows, inner = 6, 40
    x, codes = drawn(spread, fmt, rows, inner)
    sizes = {"rows": rows, "inner": inner, 1: 1}
    random = np.random.default_rng(1)
    offsets = random.integers(-spread - 1, spread + 1, [sizes[n] for n in shape]).astype(np.int32)
    same_bits(weight_only_matmul(x, codes, fmt, log_offset=offsets), expected(x, codes, fmt, offsets))
    x = np.ascontiguousarray(x[:, :rows])
    found = weight_only_matmul(x, codes, fmt, log_offset=offsets, transposed=True)
    same_bits(found, expected(x, codes, fmt, offsets, transposed=True))


@both_ways
def test_more_scales_than_tables(monkeypatch):
    x, codes = drawn(0, lns8f5, 70, 24)
    offsets = np.arange(-35, 35, dtype=np.int32)[:, None]
    found = weight_only_matmul(x, codes, lns8f5, log_offset=offsets)
    monkeypatch.setattr(weight_only, "_TABLES", 1 << 10)
    monkeypatch.setattr(weight_only, "_ELEMENTS", 24 * 32)
    same_bits(weight_only_matmul(x, codes, lns8f5, log_offset=offsets), found)
    same_bits(found, expected(x, codes, lns8f5, offsets))
    x = np.ones((2, 70), np.float32)
    found = weight_only_matmul(x, codes, lns8f5, log_offset=offsets, transposed=True)
    same_bits(found, expected(x, codes, lns8f5, offsets, transposed=True))


@settings(max_examples=150)
@given(data=st.data())
def test_any_floats(data):
    """Infinities, NaN, subnormal and huge numbers, signed zeros; NaN and zero codes."""
    fmt = data.draw(st.sampled_from([lns8f3, lns8f5, lns6f2, lns12f6]))
    inner, rows = data.draw(st.tuples(st.sampled_from([1, 2, 8, 16, 130]), st.integers(1, 3)))
    special = st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3e38, 1.0])
    number = st.one_of(special, st.floats(width=32))
    x = np.array(data.draw(st.lists(number, min_size=inner, max_size=inner)), np.float32)
    code = st.one_of(st.sampled_from([0, fmt.nan_code, 1, fmt.max_magnitude]), st.integers(0, (1 << fmt.bits) - 1))
    flat = data.draw(st.lists(code, min_size=rows * inner, max_size=rows * inner))
    codes = np.array(flat, fmt.dtype).reshape(rows, inner)
    by_rows, by_columns = expected(x, codes, fmt), expected(x, np.ascontiguousarray(codes.T), fmt, transposed=True)
    for in_registers in {False, has_byte_tables()}:
        with mock.patch.object(weight_only, "has_byte_tables", lambda in_registers=in_registers: in_registers):
            same_bits(weight_only_matmul(x, codes, fmt), by_rows)
            same_bits(weight_only_matmul(x, codes.T, fmt, transposed=True), by_columns)


@both_ways
def test_every_code_times_one():
    for fmt in (lns8f3, lns8f5, lns6f2, lns16f10):
        codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)[:, None]
        same_bits(weight_only_matmul(np.ones(1, np.float32), codes, fmt), decode(codes[:, 0], fmt, "float32"))
        by_columns = weight_only_matmul(np.ones(1, np.float32), codes.T, fmt, transposed=True)
        same_bits(by_columns, decode(codes[:, 0], fmt, "float32"))


@both_ways
@pytest.mark.parametrize("appearance", ["bfloat16", "float16"])
@pytest.mark.parametrize("fmt", [lns8f5, lns6f2, lns16f10], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("transposed", [False, True])
def test_numbers_that_appear_in_a_narrower_type(appearance, fmt, transposed):
    """Rounded once to it; NaN and what is beyond the type's range too."""
    every = np.arange(1 << fmt.bits, dtype=fmt.dtype)
    codes, x = (every[None] if transposed else every[:, None]), np.ones(1, np.float32)
    for offset in (0, -40, np.full((1, 1), 600, np.int32)):
        patterns = decode(every, fmt, appearance, log_offset=offset if isinstance(offset, int) else 600)
        floats = (patterns.astype(np.uint32) << 16).view(np.float32) if appearance == "bfloat16" else patterns
        found = weight_only.multiply(x, codes, fmt, offset, transposed=transposed, appearance=appearance)
        same_bits(found, floats.astype(np.float32))


@both_ways
def test_zeros_behind_a_row_take_no_part():
    """NaN, and infinities as the next row's numbers, do not reach the row before; a sum of -0 is +0, as from any +0."""
    x, codes = drawn(3, lns8f5, 4, 12)
    codes[1::2] = lns8f5.nan_code
    found = weight_only_matmul(x, codes, lns8f5)
    assert np.isnan(found[:, 1::2]).all()
    same_bits(found[:, ::2], expected(x, codes[::2], lns8f5))
    assert not np.signbit(weight_only_matmul(np.float32([-0.0]), [[64]], lns8f5)).any()


@both_ways
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_number_of_threads_changes_nothing(threads, monkeypatch):
    monkeypatch.setattr(weight_only, "_PARALLEL", 1)
    monkeypatch.setattr(weight_only, "_PARALLEL_IN_REGISTERS", 1)
    for inner, rows, fmt in itertools.product((15, 16), (1, 2, 9), (lns8f5, lns32f23)):
        x, codes = drawn(inner, fmt, rows, inner)
        same_bits(weight_only.multiply(x, codes, fmt, 0, threads=threads), expected(x, codes, fmt))
    for columns, fmt in itertools.product((70, 128, 300, 700), (lns8f5, lns16f10)):
        x, codes = drawn(columns, fmt, 70, columns)
        x = x[:, :70]
        found = weight_only.multiply(x, codes, fmt, 0, transposed=True, threads=threads)
        same_bits(found, expected(x, codes, fmt, transposed=True))


@both_ways
def test_layouts():
    """Strides of every kind, and bytes that do not begin at a word."""
    x, codes = drawn(0, lns8f5, 16, 32)
    want = expected(x, codes, lns8f5)
    same_bits(weight_only_matmul(np.asfortranarray(x), codes, lns8f5), want)
    same_bits(weight_only_matmul(np.repeat(x, 2, axis=1)[:, ::2], np.repeat(codes, 2, axis=1)[:, ::2], lns8f5), want)
    same_bits(weight_only_matmul(x, np.asfortranarray(codes), lns8f5), want)
    same_bits(weight_only_matmul(x[:, ::-1], codes[:, ::-1], lns8f5), expected(x[:, ::-1], codes[:, ::-1], lns8f5))
    memory = np.zeros(codes.size + 8, np.uint8)
    for begin in range(8):
        shifted = memory[begin : begin + codes.size].reshape(codes.shape)
        shifted[:] = codes
        same_bits(weight_only_matmul(x, shifted, lns8f5), want)
    codes.setflags(write=False)
    x.setflags(write=False)
    same_bits(weight_only_matmul(x, codes, lns8f5), want)
    same_bits(weight_only_matmul(x, codes.astype(np.int64), lns8f5), want)
    want = expected(x[:, :16], codes, lns8f5, transposed=True)
    for other in (codes, np.asfortranarray(codes), np.repeat(codes, 2, axis=1)[:, ::2]):
        same_bits(weight_only_matmul(x[:, :16], other, lns8f5, transposed=True), want)


@pytest.mark.parametrize("inner", [1, 2, 127, 129, 1000, 5000])
def test_the_bound_of_the_error(inner):
    random = np.random.default_rng(inner)
    for scale in (1.0, 1e-38, 1e-44):
        x = (random.normal(size=inner) * scale).astype(np.float32)
        codes = encode(random.normal(size=(2, inner)), lns8f5)
        w = decode(codes, lns8f5, "float32")
        for found, row in zip(weight_only_matmul(x, codes, lns8f5), w, strict=True):
            terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, row, strict=True)]
            allowed = Fraction(error_bound(inner)) * sum(map(abs, terms)) + Fraction(inner, 1 << 149)
            assert abs(Fraction(float(found)) - sum(terms)) <= allowed
        by_columns = weight_only_matmul(x, np.ascontiguousarray(codes.T), lns8f5, transposed=True)
        for found, row in zip(by_columns, w, strict=True):
            terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, row, strict=True)]
            allowed = Fraction(error_bound(inner, transposed=True)) * sum(map(abs, terms)) + Fraction(inner, 1 << 149)
            assert abs(Fraction(float(found)) - sum(terms)) <= allowed


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("fmt", [lns8f5, lns16f10], ids=str)
def test_sums_of_nothing_are_zeros(fmt, transposed, monkeypatch):
    """Whatever the memory held before, at scales of every kind."""
    shape = (0, 40) if transposed else (40, 0)
    groups = [GroupOffsets(np.zeros(own, int), 16, axis=axis) for own, axis in (((3, 0), -2), ((0, 3), -1))]
    monkeypatch.setattr(np, "empty", lambda shape, dtype=float: np.full(shape, 7, dtype))
    for scale in (3, np.arange(shape[0])[:, None], groups[transposed]):
        for rows in (1, 3, 70):
            codes, x = np.zeros(shape, fmt.dtype), np.ones((rows, 0), np.float32)
            found = weight_only_matmul(x, codes, fmt, log_offset=scale, transposed=transposed)
            assert np.array_equal(found, np.zeros((rows, 40)))


def test_the_bound_counts_the_roundings():
    assert error_bound(1) >= 8 * 2.0**-24
    assert error_bound(4096) < 40 * 2.0**-24 < error_bound(4097 + 128)
    assert error_bound(1, transposed=True) >= 2.0**-24
    assert 127 * 2.0**-24 < error_bound(4096, transposed=True) < error_bound(4097, transposed=True) < 129 * 2.0**-24


def test_errors():
    x, codes = drawn(0, lns8f5, 3, 4)
    for bad, error, message in (
        ((x.astype(np.float64), codes, lns8f5), TypeError, "x is an array of float64, not of float32"),
        (([1.0, 2.0], codes[:, :2], lns8f5), TypeError, "x is an array of float64"),
        ((x, codes[0], lns8f5), ValueError, r"codes of shape \(4,\) are no matrix: give \(N, K\)"),
        ((x[:, :3], codes, lns8f5), ValueError, r"x of shape \(2, 3\) and codes of shape \(3, 4\) do not match in K"),
        ((np.float32(1.0), codes, lns8f5), ValueError, "do not match in K"),
        ((x, codes.astype(np.float32), lns8f5), TypeError, "codes are unsigned integers, not float32"),
        ((x, codes | 64, lns6f2), ValueError, "is outside lns6f2"),
        ((x, codes, "lns8f5"), TypeError, "is a str, not an LNSFormat"),
    ):
        with pytest.raises(error, match=message):
            weight_only_matmul(*bad)
    with pytest.raises(ValueError, match=r"\(2, 4\) and codes of shape \(3, 4\) do not match in K, the first of codes"):
        weight_only_matmul(x, codes, lns8f5, transposed=True)
    with pytest.raises(ValueError, match=r"give \(K, N\), a column for each output"):
        weight_only_matmul(x, codes[0], lns8f5, transposed=True)
    with pytest.raises(ValueError, match=r"log_offset of shape \(2, 1\) does not broadcast"):
        weight_only_matmul(x, codes, lns8f5, log_offset=np.zeros((2, 1), np.int32))
    with pytest.raises(ValueError, match="log_offset"):
        weight_only_matmul(x, codes, lns8f5, log_offset=(1 << 30) + 1)
