"""multiply, divide, negative, absolute and order against the oracle, over all pairs of the small formats.

The oracle takes one pair at a time. Of nonzero numbers it needs one for each value of m_a + m_b (or m_a - m_b) and each
sign; the kernels must then give the same for every pair.
"""

import itertools
import math
import struct
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns16f10, lns32f23, reference
from lnsnum.arithmetic import absolute, divide, isnan, multiply, negative, order_key
from lnsnum.format import MAX_LOG_OFFSET

FORMATS = [lns4f1, lns6f2, lns8f3, LNSFormat(5, 1, base=1.7), LNSFormat(5, 0, base=16.0), LNSFormat(6, 1, base=4.0)]
"""At base 16 no code step fits between the smallest and its half; at base 4 the half is a grid point."""

OFFSETS = [
    (0, 0, 0),
    (5, -3, 0),
    (-7, 2, 4),
    (40, 41, 80),
    (40, 41, 0),
    (-1, 0, 9),
    (MAX_LOG_OFFSET, -MAX_LOG_OFFSET, 3),
    (MAX_LOG_OFFSET, MAX_LOG_OFFSET, -MAX_LOG_OFFSET),
    (-MAX_LOG_OFFSET, MAX_LOG_OFFSET, MAX_LOG_OFFSET),
]
"""log_offset of a, of b and of the result."""

POLICIES = list(itertools.product(["saturate", "nan"], ["round", "saturate"]))

OPERATIONS = {
    "multiply": (multiply, reference.multiply, lambda m_a, m_b: m_a + m_b),
    "divide": (divide, reference.divide, lambda m_a, m_b: m_a - m_b),
}

NEAR_ONE = math.nextafter(1.0, 2.0)


def identify(value):
    return value.name if isinstance(value, LNSFormat) else None


all_formats = pytest.mark.parametrize("fmt", FORMATS, ids=identify)
all_operations = pytest.mark.parametrize("operation", OPERATIONS)


def all_codes(fmt):
    return np.arange(1 << fmt.bits, dtype=fmt.dtype)


def magnitudes(codes, fmt):
    return codes.astype(np.int64) & fmt.max_magnitude


def keywords(a_log_offset, b_log_offset, out_log_offset, overflow="saturate", underflow="round"):
    return {
        "a_log_offset": a_log_offset,
        "b_log_offset": b_log_offset,
        "out_log_offset": out_log_offset,
        "overflow": overflow,
        "underflow": underflow,
    }


def oracle(operation, a, b, fmt, arguments):
    """The codes of the reference, in the shape that a and b broadcast to."""
    slow, combine = OPERATIONS[operation][1:]
    one = lru_cache(maxsize=None)(lambda a, b: slow(a, b, fmt, **arguments))
    representative = {}

    def code(a, b):
        m_a, m_b, sign = a & fmt.max_magnitude, b & fmt.max_magnitude, (a ^ b) & fmt.sign_bit
        if m_a == 0 or m_b == 0:
            return one(a, b)
        return one(*representative.setdefault((combine(m_a, m_b), sign), (a, b)))

    a, b = np.broadcast_arrays(a, b)
    codes = [code(int(x), int(y)) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True)]
    return np.array(codes, fmt.dtype).reshape(a.shape)


# ---------------------------------------------------------------------------------------------- all pairs of codes


@all_operations
@all_formats
@pytest.mark.parametrize("offsets", OFFSETS)
def test_all_pairs(operation, fmt, offsets):
    """Each policy once over all pairs for the small formats; lns8f3 takes one policy with each set of offsets."""
    a, b = all_codes(fmt)[:, None], all_codes(fmt)[None, :]
    at = OFFSETS.index(offsets) % 4
    for policies in POLICIES if fmt.bits < 8 else POLICIES[at : at + 1]:
        arguments = keywords(*offsets, *policies)
        codes, log_offset = OPERATIONS[operation][0](a, b, fmt, **arguments)
        assert (codes.dtype, type(log_offset), log_offset) == (fmt.dtype, int, offsets[2])
        np.testing.assert_array_equal(codes, oracle(operation, a, b, fmt, arguments))


@all_operations
@pytest.mark.parametrize("policies", POLICIES)
def test_all_pairs_of_lns8f3_under_each_policy(operation, policies):
    a, b = all_codes(lns8f3)[:, None], all_codes(lns8f3)[None, :]
    arguments = keywords(3, -2, 1, *policies)
    codes, _ = OPERATIONS[operation][0](a, b, lns8f3, **arguments)
    np.testing.assert_array_equal(codes, oracle(operation, a, b, lns8f3, arguments))


@all_formats
def test_the_tables_of_zero_and_nan(fmt):
    """0 * x = 0, x / 0 = NaN, 0 / 0 = NaN, 0 / x = 0; NaN in, NaN out: whatever the policies and the offsets."""
    nan, codes = fmt.nan_code, all_codes(fmt)
    numbers = codes[codes != nan]
    for offsets, policies in itertools.product(OFFSETS, POLICIES):
        arguments = keywords(*offsets, *policies)
        for operation in (multiply, divide):
            assert (operation(codes, [nan], fmt, **arguments)[0] == nan).all()
            assert (operation([nan], codes, fmt, **arguments)[0] == nan).all()
        assert (multiply(numbers, [0], fmt, **arguments)[0] == 0).all()
        assert (multiply([0], numbers, fmt, **arguments)[0] == 0).all()
        assert (divide(numbers, [0], fmt, **arguments)[0] == nan).all()
        assert (divide([0], numbers[1:], fmt, **arguments)[0] == 0).all()


bases = st.one_of(st.sampled_from([2.0, 4.0, 1.5, math.sqrt(2), 1e300]), st.floats(1.001, 20.0))
formats = st.tuples(st.integers(3, 32), bases).flatmap(
    lambda t: st.integers(0, t[0] - 2).map(lambda fraction_bits: LNSFormat(t[0], fraction_bits, base=t[1]))
)
offsets = st.one_of(st.just(0), st.integers(-50, 50), st.integers(-MAX_LOG_OFFSET, MAX_LOG_OFFSET))


def codes_of(fmt):
    edges = [0, 1, 2, fmt.bias, fmt.max_magnitude, fmt.nan_code, fmt.nan_code + 1, 2 * fmt.nan_code - 1]
    return st.one_of(st.sampled_from(edges), st.integers(0, 2 * fmt.nan_code - 1))


@st.composite
def pairs(draw):
    fmt = draw(formats)
    offset_a, offset_b = draw(offsets), draw(offsets)
    near = draw(st.sampled_from([0, offset_a + offset_b, offset_a - offset_b]))
    out = near + draw(st.one_of(offsets, st.integers(-2 * fmt.max_magnitude, 2 * fmt.max_magnitude)))
    out = max(-MAX_LOG_OFFSET, min(MAX_LOG_OFFSET, out))
    return fmt, draw(codes_of(fmt)), draw(codes_of(fmt)), (offset_a, offset_b, out)


@given(pairs(), st.sampled_from(POLICIES))
@example((LNSFormat(32, 30), 2**31 - 1, 2**31 - 1, (MAX_LOG_OFFSET,) * 3), ("saturate", "round"))
@example((LNSFormat(32, 30), 1, 1, (-MAX_LOG_OFFSET, -MAX_LOG_OFFSET, MAX_LOG_OFFSET)), ("saturate", "round"))
@example((LNSFormat(32, 0, base=1e300), 1, 2**30, (0, 0, 1)), ("saturate", "round"))
@example((LNSFormat(8, 0, base=NEAR_ONE), 1, 1, (0, 0, MAX_LOG_OFFSET)), ("saturate", "round"))
@example((LNSFormat(16, 11, base=NEAR_ONE), 1, 1, (0, 0, 0)), ("saturate", "round"))
@example((LNSFormat(16, 12, base=NEAR_ONE), 1, 1, (0, 0, 0)), ("saturate", "round"))
@example((LNSFormat(16, 14, base=NEAR_ONE), 1, 1, (0, 0, 0)), ("saturate", "round"))
def test_any_pair_of_any_format(pair, policies):
    fmt, a, b, (offset_a, offset_b, out) = pair
    arguments = keywords(offset_a, offset_b, out, *policies)
    for fast, slow, _ in OPERATIONS.values():
        codes, log_offset = fast(np.array(a, fmt.dtype), np.array(b, fmt.dtype), fmt, **arguments)
        assert (codes.shape, codes.dtype, log_offset) == ((), fmt.dtype, out)
        assert int(codes) == slow(a, b, fmt, **arguments)


@pytest.mark.parametrize("fmt", [lns4f1, lns6f2, LNSFormat(5, 1, base=1.7)], ids=identify)
def test_laws(fmt):
    """Commutativity, and 1 is neutral: exact operations keep every law that the edges leave."""
    codes, one = all_codes(fmt), [fmt.bias]
    product, offset = multiply(codes[:, None], codes, fmt, a_log_offset=3, b_log_offset=3)
    np.testing.assert_array_equal(product, product.T)
    np.testing.assert_array_equal(multiply(codes, one, fmt)[0], codes)
    np.testing.assert_array_equal(divide(codes, one, fmt)[0], codes)
    quotient, _ = divide(product, codes, fmt, a_log_offset=offset, b_log_offset=3, out_log_offset=3)
    finite = (codes[None, :] & fmt.max_magnitude) != 0
    least = magnitudes(codes, fmt)[:, None] + magnitudes(codes, fmt)[None, :] - fmt.bias + 6 - offset >= 1
    kept = finite & finite.T & least
    np.testing.assert_array_equal(quotient[kept], np.broadcast_to(codes[:, None], product.shape)[kept])


# ----------------------------------------------------------------------------------------- log_offset of the result


@all_operations
@all_formats
def test_without_offsets_the_result_has_none(operation, fmt):
    codes = all_codes(fmt)
    for zero in (0, np.int64(0), np.zeros(codes.shape, np.int32)):
        result, log_offset = OPERATIONS[operation][0](codes, codes[::-1], fmt, a_log_offset=zero, b_log_offset=zero)
        assert (type(log_offset), log_offset) == (int, 0)
        np.testing.assert_array_equal(result, OPERATIONS[operation][0](codes, codes[::-1], fmt, out_log_offset=0)[0])


@all_operations
@all_formats
@pytest.mark.parametrize(("offset_a", "offset_b"), [(0, 0), (5, 0), (0, -3), (9, 9), (10**6, -(10**6))])
def test_fit_is_the_least_offset_at_which_nothing_saturates(operation, fmt, offset_a, offset_b):
    fast, _, combine = OPERATIONS[operation]
    a, b = all_codes(fmt)[:, None], all_codes(fmt)[None, :]
    nan = oracle(operation, a, b, fmt, keywords(0, 0, 0)) == fmt.nan_code
    for a_part, b_part in ((a, b), (a[1:3], b), (a[-3:], b[:, 1:3]), (a[5:6], b[:, 2:3])):
        arguments = {"a_log_offset": offset_a, "b_log_offset": offset_b, "overflow": "nan"}
        codes, fit = fast(a_part, b_part, fmt, out_log_offset="fit", **arguments)
        assert type(fit) is int
        expected_nan = np.isin(a_part, a[nan.all(axis=1)]) | np.isin(b_part, b[:, nan.all(axis=0)])
        np.testing.assert_array_equal(codes == fmt.nan_code, expected_nan)
        below, _ = fast(a_part, b_part, fmt, out_log_offset=fit - 1, **arguments)
        assert ((below == fmt.nan_code) & ~expected_nan).any()
        finite = (magnitudes(a_part, fmt) > 0) & (magnitudes(b_part, fmt) > 0)
        logs = combine(magnitudes(a_part, fmt) - fmt.bias + offset_a, magnitudes(b_part, fmt) - fmt.bias + offset_b)
        assert fit == logs[finite].max() - fmt.max_log
        if offset_a or offset_b:
            default, log_offset = fast(a_part, b_part, fmt, **arguments)
            assert log_offset == fit
            np.testing.assert_array_equal(default, codes)


@all_operations
def test_fit_of_nothing_is_zero(operation):
    fast = OPERATIONS[operation][0]
    nan = lns8f3.nan_code
    for a, b in (([0, nan], [5, 5]), ([5, 5], [0, nan]), ([], []), (nan, 5)):
        a, b = np.array(a, np.uint8), np.array(b, np.uint8)
        codes, log_offset = fast(a, b, lns8f3, a_log_offset=77, out_log_offset="fit")
        assert (codes.shape, codes.dtype, log_offset) == (a.shape, np.uint8, 0)


@all_operations
@pytest.mark.parametrize("out_log_offset", [0, 4, "fit", None])
def test_offsets_broadcast_as_the_codes_do(operation, out_log_offset):
    fast, slow, combine = OPERATIONS[operation]
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 64, (3, 1, 5), np.uint8), rng.integers(0, 64, (4, 1), np.uint8)
    for shape_a, shape_b in itertools.product([(3, 1, 1), (1, 1, 5), (5,), (3, 1, 5), (1,)], [(4, 1), (1, 1), (1,)]):
        offset_a, offset_b = rng.integers(-9, 9, shape_a, np.int32), rng.integers(-9, 9, shape_b, np.int32)
        codes, log_offset = fast(
            a, b, lns6f2, a_log_offset=offset_a, b_log_offset=offset_b, out_log_offset=out_log_offset
        )
        full = np.broadcast_arrays(a, b, offset_a, offset_b)
        each = [tuple(map(int, element)) for element in zip(*(x.reshape(-1) for x in full), strict=True)]
        if out_log_offset in (None, "fit"):
            logs = [combine((p & 31) - 16 + u, (q & 31) - 16 + v) for p, q, u, v in each if p & 31 and q & 31]
            assert log_offset == max(logs) - lns6f2.max_log
        else:
            assert log_offset == out_log_offset
        expected = [slow(p, q, lns6f2, **keywords(u, v, log_offset)) for p, q, u, v in each]
        np.testing.assert_array_equal(codes, np.array(expected, np.uint8).reshape(3, 4, 5))


# -------------------------------------------------------------------------------------------- arrays in, arrays out


@all_operations
@pytest.mark.parametrize(
    ("shape_a", "shape_b"), [((), ()), ((), (3,)), ((0,), (1,)), ((2, 1), (1, 3)), ((2, 0, 3), (3,)), ((1,) * 5, (2,))]
)
def test_shapes_broadcast(operation, shape_a, shape_b):
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 64, shape_a, np.uint8), rng.integers(0, 64, shape_b, np.uint8)
    codes, _ = OPERATIONS[operation][0](a, b, lns6f2)
    assert isinstance(codes, np.ndarray)
    assert codes.shape == np.broadcast_shapes(shape_a, shape_b)
    np.testing.assert_array_equal(codes, oracle(operation, a, b, lns6f2, keywords(0, 0, 0)))


@all_operations
def test_no_layout_matters_and_no_input_changes(operation):
    fast = OPERATIONS[operation][0]
    a, b = np.arange(24, dtype=np.uint16).reshape(4, 6), np.arange(40, 64, dtype=np.uint16).reshape(4, 6)
    expected, _ = fast(a, b, lns16f10)
    for view in (
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1][::-1],
        lambda x: x.astype(">u2"),
        lambda x: x.astype(np.int64),
        lambda x: x.tolist(),
    ):
        np.testing.assert_array_equal(fast(view(a), view(b), lns16f10)[0], expected)
    a.flags.writeable = b.flags.writeable = False
    codes, _ = fast(a, b, lns16f10)
    np.testing.assert_array_equal(codes, expected)
    assert codes.flags.writeable
    assert not np.shares_memory(codes, a)
    assert not np.shares_memory(fast(a, a, lns16f10)[0], a)


# ------------------------------------------------------------------------------------------------ negative, absolute


def float_of(code, fmt):
    return struct.unpack("<d", struct.pack("<Q", reference.decode(int(code), fmt)))[0]


@all_formats
def test_negative_and_absolute_of_all_codes(fmt):
    codes = all_codes(fmt)
    for function, scalar in ((negative, lambda x: 0.0 - x), (absolute, abs)):
        result = function(codes, fmt)
        assert result.dtype == fmt.dtype
        for code, changed in zip(codes, result, strict=True):
            x, y = float_of(code, fmt), float_of(changed, fmt)
            assert y == scalar(x) or (math.isnan(x) and math.isnan(y))
            assert int(changed) & fmt.max_magnitude == int(code) & fmt.max_magnitude
    np.testing.assert_array_equal(negative(negative(codes, fmt), fmt), codes)
    np.testing.assert_array_equal(isnan(codes, fmt), codes == fmt.nan_code)


@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns6f2, lns16f10, LNSFormat(17, 9), lns32f23], ids=identify)
def test_negative_and_absolute_of_the_edges(fmt):
    m = fmt.max_magnitude
    codes = np.array([0, 1, m, fmt.nan_code, fmt.nan_code + 1, fmt.nan_code + m], fmt.dtype)
    np.testing.assert_array_equal(negative(codes, fmt), codes[[0, 4, 5, 3, 1, 2]])
    np.testing.assert_array_equal(absolute(codes, fmt), codes[[0, 1, 2, 3, 1, 2]])
    assert negative(codes, fmt).dtype == absolute(codes, fmt).dtype == fmt.dtype
    assert isnan(codes, fmt).tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("function", [negative, absolute, isnan, order_key])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)])
def test_shapes_stay(function, shape):
    codes = np.full(shape, 7, np.uint8)
    codes.flags.writeable = False
    result = function(codes, lns8f3)
    assert np.shape(result) == shape
    assert not np.shares_memory(result, codes)


# ---------------------------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize(
    ("offset_a", "offset_b"),
    [(0, 0), (3, -2), (-40, 25), (7, 7), (MAX_LOG_OFFSET, -MAX_LOG_OFFSET), (-MAX_LOG_OFFSET, -MAX_LOG_OFFSET)],
)
def test_order_keys_of_all_pairs(offset_a, offset_b):
    codes = all_codes(lns6f2)
    key_a, key_b = order_key(codes, lns6f2, offset_a), order_key(codes, lns6f2, offset_b)
    assert key_a.dtype == np.int64
    for a, b in itertools.product(codes.tolist(), repeat=2):
        expected = reference.compare(a, b, lns6f2, a_log_offset=offset_a, b_log_offset=offset_b)
        if expected is not None:
            assert np.sign(key_a[a] - key_b[b]) == expected
    assert key_a[lns6f2.nan_code] == key_a[0] == 0


@given(pairs())
@example((LNSFormat(32, 30), 2**31 + 1, 1, (-MAX_LOG_OFFSET, -MAX_LOG_OFFSET, 0)))
@example((LNSFormat(32, 30), 2**31 - 1, 1, (-MAX_LOG_OFFSET, MAX_LOG_OFFSET, 0)))
def test_order_keys_of_any_format(pair):
    fmt, a, b, (offset_a, offset_b, _) = pair
    expected = reference.compare(a, b, fmt, a_log_offset=offset_a, b_log_offset=offset_b)
    assume(expected is not None)
    key_a, key_b = int(order_key(a, fmt, offset_a)), int(order_key(b, fmt, offset_b))
    assert (key_a > key_b) - (key_a < key_b) == expected


def test_order_keys_take_an_offset_for_each_channel():
    codes, offset = np.arange(64, dtype=np.uint8).reshape(4, 16), np.array([[0], [-3], [100], [7]], np.int32)
    expected = [order_key(codes[i], lns6f2, int(offset[i, 0])) for i in range(4)]
    np.testing.assert_array_equal(order_key(codes, lns6f2, offset), expected)


# -------------------------------------------------------------------------------------------------------------- errors


@all_operations
@pytest.mark.parametrize(
    ("a", "b", "arguments", "error", "message"),
    [
        ([1], [1], {"overflow": "wrap"}, ValueError, r"^overflow='wrap' is not known: one of saturate, nan$"),
        ([1], [1], {"underflow": "zero"}, ValueError, r"^underflow='zero' is not known: one of round, saturate$"),
        ([1, 64], [1], {}, ValueError, r"^code 64 at index \(1,\) is outside lns6f2: its codes are 0 to 63$"),
        ([1], [[1, 2], [3, -4]], {}, ValueError, r"^code -4 at index \(1, 1\) is outside lns6f2: its codes are"),
        (64, 1, {}, ValueError, r"^code 64 is outside lns6f2: its codes are 0 to 63$"),
        ([1.0], [1], {}, TypeError, r"^codes are unsigned integers, not float64: use encode to make them from floats$"),
        ([1], [True], {}, TypeError, r"^codes are unsigned integers, not bool"),
        ([1, 2], [1, 2, 3], {}, ValueError, r"^shapes \(2,\) and \(3,\) do not broadcast$"),
        ([1], [1], {"a_log_offset": 0.5}, TypeError, r"^log_offset=0.5 is a float: give an integer number of"),
        ([1], [1], {"b_log_offset": True}, TypeError, r"^log_offset=True is a bool"),
        ([1], [1], {"a_log_offset": 2**30 + 1}, ValueError, r"^log_offset=1073741825 is too large: at most 2\^30"),
        ([1], [1], {"b_log_offset": np.array([-(2**31)])}, ValueError, r"^log_offset=-2147483648 is too large"),
        ([1], [1], {"a_log_offset": np.array([0.0])}, TypeError, r"^log_offset is an array of float64: give integers"),
        ([1], [1, 2], {"a_log_offset": np.array([1, 2])}, ValueError, r"^log_offset of shape \(2,\) does not broad"),
        ([1, 2], [1], {"b_log_offset": np.zeros((1, 1), int)}, ValueError, r"^log_offset of shape \(1, 1\) does not"),
        ([1], [1], {"out_log_offset": 2**31}, ValueError, r"^out_log_offset=2147483648 is too large"),
        ([1], [1], {"out_log_offset": 1.0}, TypeError, r"^out_log_offset=1.0 is a float"),
        ([1], [1], {"out_log_offset": True}, TypeError, r"^out_log_offset=True is a bool"),
        ([1], [1], {"out_log_offset": "Fit"}, ValueError, r"^out_log_offset=.Fit. is not known: an integer or"),
    ],
)  # fmt: skip
def test_errors(operation, a, b, arguments, error, message):
    with pytest.raises(error, match=message):
        OPERATIONS[operation][0](a, b, lns6f2, **arguments)


def test_a_fit_beyond_all_offsets():
    far = {"a_log_offset": MAX_LOG_OFFSET, "out_log_offset": "fit"}
    with pytest.raises(
        ValueError, match=r'^out_log_offset="fit" finds no scale: the greatest result saturates at each up to 2\^30'
    ):
        multiply([1], [1], lns6f2, b_log_offset=MAX_LOG_OFFSET, **far)
    with pytest.raises(
        ValueError, match=r'^out_log_offset="fit" finds no scale: the greatest result saturates at each up to 2\^30'
    ):
        divide([1], [1], lns6f2, b_log_offset=-MAX_LOG_OFFSET, **far)


@pytest.mark.parametrize("function", [negative, absolute, isnan, order_key])
def test_errors_of_one_operand(function):
    with pytest.raises(ValueError, match=r"^code 64 at index \(2,\) is outside lns6f2: its codes are 0 to 63$"):
        function([1, 2, 64], lns6f2)
    with pytest.raises(TypeError, match=r"^codes are unsigned integers, not float64"):
        function([1.0], lns6f2)


def test_modes_are_named():
    with pytest.raises(TypeError):
        multiply([1], [1], lns6f2, 0)
    with pytest.raises(TypeError):
        divide([1], [1], lns6f2, 0, 0)
