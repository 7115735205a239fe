"""LNSTensor: a thin class, so the tests look at its edges: what it keeps and refuses, and what NumPy makes of it."""

import copy
import itertools
import math
import operator
import pickle
import re
import unittest.mock
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import (
    GroupOffsets,
    LNSFormat,
    LNSTensor,
    decode,
    encode,
    exact,
    lns6f2,
    lns8f3,
    lns8f5,
    lns16f10,
    lns32f23,
    reference,
)
from lnsnum.arithmetic import divide, multiply
from lnsnum.array import reading
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.strategies import tensors

VALUES = np.array([[1.0, -2.5, 0.0], [np.nan, 300.0, -0.01]])

ROUNDINGS = ["nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"]

CHANNELS = np.array([[3], [-40]], np.int32)


@pytest.fixture
def x():
    return LNSTensor.from_float(VALUES, lns8f3)


@pytest.fixture
def per_channel():
    return LNSTensor.from_float(VALUES, lns8f3, log_offset=CHANNELS)


def same(a, b):
    """Equal in everything that a tensor holds."""
    return (
        a.fmt == b.fmt
        and a.codes.dtype == b.codes.dtype
        and np.array_equal(a.codes, b.codes)
        and np.array_equal(np.broadcast_to(a.log_offset, a.shape), np.broadcast_to(b.log_offset, b.shape))
    )


# ------------------------------------------------------------------------------------------------------ construction


def test_it_keeps_codes_format_and_offset():
    codes = np.arange(6, dtype=np.uint8).reshape(2, 3)
    t = LNSTensor(codes, lns8f3, log_offset=-5)
    assert t.codes is codes
    assert (t.fmt, t.log_offset, type(t.log_offset)) == (lns8f3, -5, int)
    assert (t.shape, t.ndim, t.size, t.nbytes, len(t)) == ((2, 3), 2, 6, 6, 2)


def test_a_format_can_be_given_by_name():
    assert LNSTensor.from_codes([1], "lns8f3").fmt == lns8f3
    assert LNSTensor.from_float([1.0], "lns16f10").fmt == lns16f10
    for wrong in (None, 8):
        with pytest.raises(TypeError, match=r"^a format name is a string such as 'lns8f5', not "):
            LNSTensor.from_codes([1], wrong)
    with pytest.raises(
        ValueError, match=r"^'int8' is no format name: write lns8f5 for 8 bits, 5 of them fraction bits$"
    ):
        LNSTensor.from_float([1.0], "int8")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64, ">u2", ">i8"])
def test_codes_of_any_integer_type_become_those_of_the_format(dtype):
    t = LNSTensor.from_codes(np.array([[1, 2], [63, 32]], dtype), lns6f2)
    assert t.codes.dtype == np.uint8
    assert t.codes.dtype.isnative
    assert t.codes.tolist() == [[1, 2], [63, 32]]
    wide = LNSTensor.from_codes(np.array([1, 100], dtype), lns32f23)
    assert wide.codes.dtype == np.uint32
    assert wide.codes.tolist() == [1, 100]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1, 1, 1, 1)])
def test_zero_size_and_zero_dimensional(shape):
    t = LNSTensor(np.full(shape, 5, np.uint8), lns8f3, log_offset=2)
    assert (t.shape, t.size) == (shape, math.prod(shape))
    assert t.to_float().shape == np.asarray(t).shape == (t * t).shape == abs(t).shape == shape
    assert np.shape(t == t) == np.shape(t.isnan()) == shape
    assert t.reshape(-1).shape == (t.size,)
    assert repr(t).startswith("LNSTensor")
    back = LNSTensor.from_float(t.to_float(), lns8f3, log_offset=2)
    assert same(back, t)


def test_zero_dimensional_tensors_have_no_length():
    t = LNSTensor.from_float(2.0, lns8f3)
    assert float(t.to_float()) == 2.0
    for call in (len, iter, list):
        with pytest.raises(TypeError, match="unsized"):
            call(t)


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        ([[1, 2], [3, 64]], ValueError, r"^code 64 at index \(1, 1\) is outside lns6f2: its codes are 0 to 63$"),
        (np.array([[[0, 0]], [[255, 0]]], np.uint8), ValueError, r"^code 255 at index \(1, 0, 0\) is outside lns6f2"),
        ([5, -1], ValueError, r"^code -1 at index \(1,\) is outside lns6f2: its codes are 0 to 63$"),
        (64, ValueError, r"^code 64 is outside lns6f2: its codes are 0 to 63$"),
        ([2**64 - 1], ValueError, r"^code 18446744073709551615 at index \(0,\) is outside lns6f2"),
        (np.arange(130).reshape(2, 65)[::-1, ::-1], ValueError, r"^code 129 at index \(0, 0\) is outside lns6f2"),
        ([1.0], TypeError, r"^codes are unsigned integers, not float64: use encode to make them from floats$"),
        ([True], TypeError, r"^codes are unsigned integers, not bool"),
        ([2**64], TypeError, r"^codes are unsigned integers, not object"),
        (["1"], TypeError, r"^codes are unsigned integers, not <U1"),
        (None, TypeError, r"^codes are unsigned integers, not object"),
    ],
)  # fmt: skip
def test_what_are_no_codes(codes, error, message):
    with pytest.raises(error, match=message):
        LNSTensor.from_codes(codes, lns6f2)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ([1, 2, 3], "int64"), ([1.0, 2.0], "float64"), (64, "int64"), (True, "bool"), ([], "float64"), ("1", "<U1"),
        (None, "object"), (np.int8([1]), "int8"), (np.uint16([1]), "uint16"), ([[1], [2]], "int64"),
        (LNSTensor.from_float([1.0], lns8f3), "LNSTensor"),
    ],
)  # fmt: skip
def test_numbers_are_not_taken_for_codes(given, what):
    with pytest.raises(
        TypeError,
        match=rf"^LNSTensor takes codes of lns8f3 as an array of uint8, not {what}: from_float rounds numbers to the "
        r"format, from_codes takes integers of any type as codes$",
    ):
        LNSTensor(given, lns8f3)
    with pytest.raises(TypeError, match=r"^LNSTensor takes codes of lns32f23 as an array of uint32, not "):
        LNSTensor(np.uint8([1]), lns32f23)


def test_codes_of_the_formats_own_type_are_taken():
    for codes in (np.uint8([1, 2]), [np.uint8(1), np.uint8(2)], (np.uint8(1), np.uint8(2))):
        assert same(LNSTensor(codes, lns8f3), LNSTensor.from_codes([1, 2], lns8f3))
    assert same(LNSTensor(np.uint8(64), lns8f3), LNSTensor.from_codes(64, lns8f3))
    big = np.array([1, 500], ">u2")
    assert same(LNSTensor(big, lns16f10), LNSTensor.from_codes([1, 500], lns16f10, log_offset=0))
    own = np.uint8([1, 2])
    assert LNSTensor.from_codes(own, lns8f3).codes is own
    with pytest.raises(TypeError, match=r"^codes is a LNSTensor already: astype\(fmt\) rounds it to another format$"):
        LNSTensor.from_codes(LNSTensor(own, lns8f3), lns8f3)
    with pytest.raises(ValueError, match=r"^code 64 at index \(1,\) is outside lns6f2"):
        LNSTensor(np.uint8([1, 64]), lns6f2)


@pytest.mark.parametrize(
    ("log_offset", "error", "message"),
    [
        (0.0, TypeError, r"^log_offset=0.0 is a float: give an integer number of code steps$"),
        (True, TypeError, r"^log_offset=True is a bool"),
        (None, TypeError, r"^log_offset=None is a NoneType"),
        ("fit", TypeError, r"^log_offset='fit' is a str"),
        ([1, 2, 3], TypeError, r"^log_offset=\[1, 2, 3\] is a list"),
        (np.array(1.0), TypeError, r"is a float64: give an integer number of code steps$"),
        (np.array([1.0, 2.0, 3.0]), TypeError, r"^log_offset is an array of float64: give integers, whole code steps$"),
        (np.array([True, False, True]), TypeError, r"^log_offset is an array of bool"),
        (2**30 + 1, ValueError, r"^log_offset=1073741825 is too large: at most 2\^30 in size$"),
        (np.int32(-(2**31)), ValueError, r"^log_offset=-2147483648 is too large"),
        (np.array([0, 0, -(2**40)]), ValueError, r"^log_offset=-1099511627776 is too large"),
        (np.array([2**63], np.uint64), ValueError, r"^log_offset=9223372036854775808 is too large"),
        (np.array([1, 2]), ValueError, r"^log_offset of shape \(2,\) does not broadcast to the codes' shape \(2, 3\)$"),
        (np.zeros((3, 1), int), ValueError, r"^log_offset of shape \(3, 1\) does not broadcast to the codes' shape"),
        (np.zeros((1, 2, 3), int), ValueError, r"^log_offset of shape \(1, 2, 3\) does not broadcast"),
        (np.zeros(0, int), ValueError, r"^log_offset of shape \(0,\) does not broadcast"),
    ],
)  # fmt: skip
def test_what_is_no_log_offset(log_offset, error, message):
    with pytest.raises(error, match=message):
        LNSTensor(np.zeros((2, 3), np.uint8), lns8f3, log_offset=log_offset)


def test_attributes_are_not_assigned_to(x):
    for name in ("codes", "fmt", "log_offset", "shape"):
        with pytest.raises(AttributeError):
            setattr(x, name, 0)
    with pytest.raises(AttributeError):
        x.scale = 2


def test_arguments_after_the_format_are_named():
    with pytest.raises(TypeError):
        LNSTensor.from_codes([1], lns8f3, 0)
    with pytest.raises(TypeError):
        LNSTensor.from_float([1.0], lns8f3, "nearest")


def test_copies(x, per_channel):
    for t in (x, per_channel):
        for clone in (copy.copy(t), copy.deepcopy(t), pickle.loads(pickle.dumps(t)), t.copy(), np.copy(t), +t * 1):
            assert type(clone) is LNSTensor
            assert not np.shares_memory(clone.codes, t.codes)
        for clone in (copy.copy(t), copy.deepcopy(t), pickle.loads(pickle.dumps(t)), t.copy(), np.copy(t)):
            assert same(clone, t)
            assert isinstance(clone.log_offset, int) or not clone.log_offset.flags.writeable


# ---------------------------------------------------------------------------------------------------- from and to float


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ">f8", ">f4", ">f2"])
def test_from_float_is_encode(dtype):
    floats = VALUES.astype(dtype)
    t = LNSTensor.from_float(floats, lns8f3)
    wide = floats.astype(np.float64)
    expected = [reference.encode(float(v), lns8f3) for v in wide.reshape(-1)]
    assert t.codes.reshape(-1).tolist() == expected
    assert t.codes.dtype == np.uint8
    for options in ({"rounding": "down"}, {"log_offset": -7}, {"overflow": "nan"}, {"underflow": "saturate"}):
        tensor = LNSTensor.from_float(floats, lns8f3, **options)
        assert tensor.codes.tolist() == encode(wide, lns8f3, **options).tolist()
        assert tensor.log_offset == options.get("log_offset", 0)


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_bfloat16_comes_as_patterns_too(byte_order):
    patterns = VALUES.astype(ml_dtypes.bfloat16).view(np.uint16)
    t = LNSTensor.from_float(patterns.astype(f"{byte_order}u2"), lns8f3, dtype="bfloat16")
    assert same(t, LNSTensor.from_float(VALUES.astype(ml_dtypes.bfloat16), lns8f3))


def test_random_bits_reach_encode():
    bits = np.array([0, 2**32 - 1], np.uint32)
    t = LNSTensor.from_float([1.01, 1.01], lns8f3, rounding="stochastic_value", random_bits=bits)
    assert t.codes.tolist() == [65, 64]
    with pytest.raises(ValueError, match=r"^rounding='stochastic_log' needs random_bits"):
        LNSTensor.from_float([1.0], lns8f3, rounding="stochastic_log")


@pytest.mark.parametrize("wrong", [["1.0"], [1j], np.array([1.0], np.longdouble), None, [2**80, None]])
def test_what_are_no_floats(wrong):
    if np.asarray(wrong).dtype == np.float64:
        pytest.skip("longdouble is float64 here")
    with pytest.raises(
        TypeError, match=r"^encode takes float64, float32, float16, bfloat16 or a float8 of ml_dtypes, not "
    ):
        LNSTensor.from_float(wrong, lns8f3)


@pytest.mark.parametrize("view", [np.asfortranarray, lambda a: np.repeat(a, 2, 1)[:, ::2], lambda a: a[::-1][::-1]])
def test_no_layout_matters(view):
    floats, codes = view(VALUES), view(encode(VALUES, lns8f3))
    floats.flags.writeable = codes.flags.writeable = False
    t = LNSTensor.from_float(floats, lns8f3)
    assert same(t, LNSTensor(codes, lns8f3))
    assert LNSTensor(codes, lns8f3).codes is codes
    np.testing.assert_array_equal(LNSTensor(codes, lns8f3).to_float(), t.to_float())
    assert same(LNSTensor(codes, lns8f3) * t, t * t)
    assert t.to_float().flags.writeable


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_to_float_is_decode(x, per_channel, dtype):
    for t in (x, per_channel):
        floats = t.to_float(dtype)
        assert floats.dtype == np.dtype("uint16" if dtype == "bfloat16" else dtype)
        patterns = floats.view(f"u{floats.itemsize}").reshape(-1).tolist()
        offsets = np.broadcast_to(t.log_offset, t.shape).reshape(-1).tolist()
        expected = [
            reference.decode(code, lns8f3, dtype, log_offset=offset)
            for code, offset in zip(t.codes.reshape(-1).tolist(), offsets, strict=True)
        ]
        assert patterns == expected


def test_decoded_and_encoded_again_every_code_stays():
    for fmt in (lns8f3, LNSFormat(7, 2, base=1.7)):
        t = LNSTensor(np.arange(1 << fmt.bits, dtype=fmt.dtype), fmt, log_offset=-3)
        assert same(LNSTensor.from_float(t.to_float(), fmt, log_offset=-3), t)
        assert same(LNSTensor.from_float(np.asarray(t), fmt, log_offset=-3), t)


def test_fit():
    t = LNSTensor.from_float([300.0, 1e6, math.inf, math.nan], lns8f3, log_offset="fit")
    assert t.log_offset == 96
    assert t.codes.tolist()[1:] == [127, 127, 128]
    saturated = encode([1e6], lns8f3, log_offset=95, overflow="nan")
    assert saturated.tolist() == [lns8f3.nan_code]
    for floats in ([], [0.0], [math.nan, math.inf, -0.0]):
        assert LNSTensor.from_float(floats, lns8f3, log_offset="fit").log_offset == 0
    for sign, rounding in ((1, "up"), (-1, "down"), (1, "stochastic_value"), (-1, "stochastic_log")):
        bits = np.zeros(1, np.uint32) if "stochastic" in rounding else None
        t = LNSTensor.from_float(
            [sign * 2.01], lns8f3, log_offset="fit", rounding=rounding, random_bits=bits, overflow="nan"
        )
        assert (t.log_offset, t.isnan().tolist()) == (9 - lns8f3.max_log, [False])
    assert LNSTensor.from_float([2.01], lns8f3, log_offset="fit", rounding="down").log_offset == 8 - lns8f3.max_log
    with pytest.raises(ValueError, match=r'^log_offset=\'Fit\' is not known: an integer or "fit"$'):
        LNSTensor.from_float([1.0], lns8f3, log_offset="Fit")


def test_wide_formats():
    t = LNSTensor.from_codes([5, 2**31 - 1], lns32f23)
    assert same(LNSTensor.from_float(t.to_float(), lns32f23), t)
    assert (t * t).codes.tolist() == [0, 2**31 - 1]
    assert (-t < t).all()


# ------------------------------------------------------------------------------------------------- channels and shapes

INDICES = [
    0, -1, slice(None), slice(1, None), slice(None, None, -1), slice(0, 0), (0, 1), (slice(None), 1), (Ellipsis, 2),
    (None, 0), (1, None, slice(None, None, 2)), [1, 0, 1], np.array([True, False]), VALUES > 0, ([0, 1], [2, 0]), (),
    [], (np.int64(1), np.array(0)), Ellipsis, None,
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_takes_codes_and_offsets_alike(x, per_channel, index):
    for t in (x, per_channel):
        part = t[index]
        assert isinstance(part, LNSTensor)
        np.testing.assert_array_equal(part.codes, t.codes[index])
        np.testing.assert_array_equal(part.to_float(), t.to_float()[index])
        assert part.to_float().shape == t.to_float()[index].shape
        offsets = np.broadcast_to(t.log_offset, t.shape)[index]
        np.testing.assert_array_equal(np.broadcast_to(part.log_offset, part.shape), offsets)
    assert type(x[index].log_offset) is int


@pytest.mark.parametrize("index", [2, (0, 3), 1.0, "a", (0, 0, 0), [True, False, True]], ids=str)
def test_an_index_that_does_not_fit(x, per_channel, index):
    for t in (x, per_channel):
        with pytest.raises(IndexError):
            t[index]


@pytest.mark.parametrize("shape", [(6,), (3, 2), (-1,), (1, 6, 1), (2, -1), (2, 3)])
def test_reshape(x, per_channel, shape):
    for t in (x, per_channel):
        for moved in (t.reshape(shape), t.reshape(*shape)):
            assert moved.shape == t.codes.reshape(shape).shape
            np.testing.assert_array_equal(moved.to_float(), t.to_float().reshape(shape))
        with pytest.raises(ValueError, match="reshape"):
            t.reshape(4, 2)


def test_a_view_shares_the_codes(x):
    for part in (x[0], x.reshape(6), x[:, ::2]):
        assert np.shares_memory(part.codes, x.codes)


def test_iteration(x, per_channel):
    for t in (x, per_channel):
        rows = list(t)
        assert len(rows) == len(t) == 2
        for i, row in enumerate(rows):
            assert same(row, t[i])
            np.testing.assert_array_equal(row.to_float(), t.to_float()[i])
    assert [part.log_offset for part in per_channel[:, 0]] == [3, -40]


def test_offsets_of_channels_are_int32(per_channel):
    assert per_channel.log_offset.dtype == np.int32
    for dtype in (np.int8, np.uint16, np.int64, ">i4"):
        t = LNSTensor(np.zeros((2, 3), np.uint8), lns8f3, log_offset=CHANNELS.astype(np.int8).astype(dtype) % 100)
        assert t.log_offset.dtype == np.int32
        assert t.log_offset.dtype.isnative
    for zero_dimensional in (np.array(7), np.int16(7), np.array(7, np.uint8)):
        assert type(LNSTensor.from_codes([1], lns8f3, log_offset=zero_dimensional).log_offset) is int


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 1), (1, 3), (2, 3), (1, 1)])
def test_offsets_of_any_broadcasting_shape(shape):
    offsets = np.arange(-2, math.prod(shape) - 2, dtype=np.int32).reshape(shape)
    t = LNSTensor.from_float(VALUES, lns8f3, log_offset=offsets)
    full = np.broadcast_to(offsets, VALUES.shape)
    assert t.codes.tolist() == [
        [reference.encode(float(VALUES[i, j]), lns8f3, log_offset=int(full[i, j])) for j in range(3)] for i in range(2)
    ]
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(t.to_float()[i, j], decode(t.codes[i, j], lns8f3, log_offset=int(full[i, j])))


# ---------------------------------------------------------------------------------------------------------- operations


def test_the_operators_are_the_functions(x, per_channel):
    for a, b in itertools.product((x, per_channel, x[0], per_channel[1], x[:, :1]), repeat=2):
        for symbol, function in ((operator.mul, multiply), (operator.truediv, divide)):
            codes, offset = function(
                a.codes, b.codes, lns8f3, a_log_offset=a.log_offset, b_log_offset=b.log_offset
            )  # fmt: skip
            assert same(symbol(a, b), LNSTensor(codes, lns8f3, log_offset=offset))
    assert (x * x).log_offset == 0
    assert type((per_channel * x).log_offset) is int


def test_signs(x, per_channel):
    for t in (x, per_channel):
        twice = -t
        assert same(-twice, t)
        assert +t is t
        np.testing.assert_array_equal((-t).to_float(), 0.0 - t.to_float())
        np.testing.assert_array_equal(abs(t).to_float(), abs(t.to_float()))
        assert not np.signbit((-t).to_float()[t.to_float() == 0]).any()
        assert t.isnan().tolist() == [[False, False, False], [True, False, False]]
        np.testing.assert_array_equal((-t).log_offset, t.log_offset)


COMPARISONS = {
    operator.eq: lambda c: c == 0,
    operator.ne: lambda c: c != 0,
    operator.lt: lambda c: c is not None and c < 0,
    operator.le: lambda c: c is not None and c <= 0,
    operator.gt: lambda c: c is not None and c > 0,
    operator.ge: lambda c: c is not None and c >= 0,
}
"""What each says of the oracle's -1, 0, 1, or None where one is NaN."""


@pytest.mark.parametrize(
    ("offset_a", "offset_b"),
    [(0, 0), (2, -5), (31, 0), (MAX_LOG_OFFSET, MAX_LOG_OFFSET), (MAX_LOG_OFFSET, -MAX_LOG_OFFSET)],
)
def test_all_pairs_compare_by_value(offset_a, offset_b):
    codes = np.arange(64, dtype=np.uint8)
    a = LNSTensor(codes.reshape(64, 1), lns6f2, log_offset=offset_a)
    b = LNSTensor(codes, lns6f2, log_offset=offset_b)
    order = [
        [reference.compare(p, q, lns6f2, a_log_offset=offset_a, b_log_offset=offset_b) for q in range(64)]
        for p in range(64)
    ]
    for relation, says in COMPARISONS.items():
        result = relation(a, b)
        assert result.dtype == np.bool_
        assert result.tolist() == [[says(c) for c in row] for row in order]


def test_channels_compare_by_value(per_channel, x):
    a, b = per_channel.to_float(), x.to_float()
    for relation in COMPARISONS:
        np.testing.assert_array_equal(relation(per_channel, x), relation(a, b))
        np.testing.assert_array_equal(relation(x, per_channel[0]), relation(b, a[0]))


def test_nan_is_equal_to_nothing():
    nan = LNSTensor.from_codes([lns8f3.nan_code], lns8f3)
    for other in (nan, LNSTensor.from_codes([0], lns8f3), LNSTensor.from_codes([64], lns8f3, log_offset=5)):
        for a, b in ((nan, other), (other, nan)):
            assert [bool(relation(a, b)[0]) for relation in COMPARISONS] == [False, True, False, False, False, False]


@pytest.mark.parametrize("relation", list(COMPARISONS), ids=lambda f: f.__name__)
def test_shapes_that_do_not_broadcast_do_not_compare(x, relation):
    with pytest.raises(ValueError, match="broadcast"):
        relation(x, x.reshape(3, 2))


# ------------------------------------------------------------------------------------------------------------ refusals


class Plain:
    """A class that says nothing of operators."""


ARRAYS = [np.ones(3), np.ones((2, 3), np.float32), np.ones(3, int), np.ones(3, bool), [1.0, 2.0, 3.0], (), 2j, {}]

NAMES = {
    operator.add: "add", operator.sub: "subtract", operator.mul: "multiply", operator.truediv: "divide",
    operator.matmul: "matmul", operator.eq: "comparison", operator.ne: "comparison",
    operator.lt: "comparison", operator.le: "comparison", operator.gt: "comparison", operator.ge: "comparison",
}  # fmt: skip


@pytest.mark.parametrize("stranger", ARRAYS, ids=lambda v: type(v).__name__ + str(np.shape(v)))
@pytest.mark.parametrize("symbol", list(NAMES), ids=lambda f: f.__name__)
def test_arrays_do_not_mix_on_either_side(x, symbol, stranger):
    message = (
        rf"^{NAMES[symbol]} of LNSTensor and {type(stranger).__name__}: "
        r"make it one with LNSTensor.from_float\(x, 'lns8f3'\), or take floats with to_float\(\)$"
    )
    for a, b in ((x, stranger), (stranger, x)):
        with pytest.raises(TypeError, match=message):
            symbol(a, b)


@pytest.mark.parametrize("stranger", [None, "lns8f3", b"1", object(), Plain()])
def test_what_is_no_number_is_equal_to_none_of_them(x, stranger):
    assert (x == stranger).tolist() == (stranger == x).tolist() == [[False] * 3] * 2
    assert (x != stranger).tolist() == (stranger != x).tolist() == [[True] * 3] * 2
    with pytest.raises(TypeError, match=rf"^comparison of LNSTensor and {type(stranger).__name__}: "):
        _ = x < stranger


@pytest.mark.parametrize("symbol", list(NAMES), ids=lambda f: f.__name__)
def test_formats_do_not_mix(x, symbol):
    for fmt in (lns8f5, lns16f10, LNSFormat(8, 3, base=3.0)):
        other = LNSTensor.from_codes([1, 2, 3], fmt)
        message = f"{NAMES[symbol]} of lns8f3 and {fmt.name}: bring both to one format with astype or lnsnum.convert"
        with pytest.raises(TypeError, match=rf"^{re.escape(message)}(, or name out_format)?$") as caught:
            symbol(x, other)
        assert ("out_format" in str(caught.value)) == (NAMES[symbol] != "comparison")


INTEGERS = r" does not take LNSTensors: a quotient is rounded to no integer in a logarithmic format; take floats"
BITS = r" does not take LNSTensors: compare first, as in \(x > 0\) & \(y > 0\)$"


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        (operator.floordiv, "^//" + INTEGERS), (operator.mod, "^%" + INTEGERS), (divmod, "^divmod" + INTEGERS),
        (operator.lshift, r"^<< does not take LNSTensors: multiply by a power of two$"),
        (operator.rshift, r"^>> does not take LNSTensors: divide by a power of two$"),
        (operator.and_, "^&" + BITS), (operator.or_, r"^\|" + BITS), (operator.xor, r"^\^" + BITS),
    ],
)  # fmt: skip
def test_operators_that_are_refused(x, symbol, message):
    for a, b in ((x, x), (x, 2.0), (2.0, x), (x, None)):
        with pytest.raises(TypeError, match=message):
            symbol(a, b)
    with pytest.raises(TypeError, match="^~" + BITS):
        _ = ~x


def test_a_class_that_wants_to_do_it_itself():
    class Own:
        __array_ufunc__ = None

        def __radd__(self, other):
            return "own"

    assert LNSTensor.from_codes([1], lns8f3) + Own() == "own"


def test_a_class_with_operators_of_its_own_is_asked(x):
    class Asked:
        def answer(self, other):
            return "asked"

        __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rpow__ = __rmatmul__ = answer
        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = answer  # type: ignore[assignment]
        __hash__ = None

    for symbol in (*NAMES, operator.pow):
        assert symbol(x, Asked()) == "asked"
    assert x == unittest.mock.ANY
    with pytest.raises(TypeError, match=r"^add of LNSTensor and Plain: "):
        x + Plain()


class ArrayLike(list):
    """An array of a library that knows nothing of tensors: it would decode them."""

    def __array__(self, dtype=None, copy=None):
        return np.ones(3)

    def __radd__(self, other):
        return np.asarray(other)


def test_arrays_of_other_libraries_do_not_decode(x):
    for symbol in (operator.add, operator.eq, operator.lt):
        with pytest.raises(TypeError, match=r" of LNSTensor and ArrayLike: make it one with LNSTensor\.from_float"):
            symbol(x, ArrayLike())


RATIONALS = st.one_of(
    st.fractions(), st.integers(), st.integers(-(10**400), 10**400), st.decimals(allow_nan=False),
    st.builds(lambda p, q: Fraction(3) ** p * Fraction(2) ** q, st.integers(-9, 9), st.integers(-9, 9)),
    st.floats(allow_nan=False), st.floats(allow_nan=False).map(np.longdouble), st.floats(width=16).map(np.float16),
    st.booleans(), st.booleans().map(np.bool_),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(RATIONALS, st.sampled_from([0, 3, -50]), st.sampled_from([lns8f3, lns6f2, LNSFormat(7, 1, base=3.0)]))
@example(Fraction(1, 3), 0, LNSFormat(7, 1, base=3.0))
@example(3**40, 80, LNSFormat(7, 1, base=3.0))
@example(Decimal("1e-400"), 0, lns8f3)
@example(-(10**5000), 0, lns8f3)
@example(Decimal("inf"), 0, lns8f3)
@example(2**60 + 1, 464, lns8f3)
@example(2**60, 464, lns8f3)
def test_every_real_number_compares_exactly(number, offset, fmt):
    """Against base^E to the power of 2^F, in fractions."""
    if number != number:
        return
    infinite = number in (math.inf, -math.inf)
    exact_number = number if isinstance(number, (int, Fraction, Decimal)) else float(number)
    exact_number = math.copysign(math.inf, exact_number) if infinite else Fraction(exact_number)
    for code in range(0, 1 << fmt.bits, 11):
        a = LNSTensor.from_codes(code, fmt, log_offset=offset)
        if a.isnan():
            continue
        m, negative = code & fmt.max_magnitude, code > fmt.max_magnitude
        sign = 0 if m == 0 else -1 if negative else 1
        other = (exact_number > 0) - (exact_number < 0)
        if sign != other or sign == 0:
            c = (sign > other) - (sign < other)
        elif infinite:
            c = -sign
        else:
            power, value = abs(exact_number) ** (1 << fmt.fraction_bits), Fraction(fmt.base) ** (m - fmt.bias + offset)
            c = sign * ((value > power) - (value < power))
        for relation, says in COMPARISONS.items():
            assert bool(relation(a, number)) == says(c)
            assert bool(relation(number, a)) == says(-c)


def test_numbers_that_are_not_compared(x):
    assert not (x == Decimal("nan")).any()
    assert (x != Decimal("sNaN")).all()
    with pytest.raises(ValueError, match=r"^Decimal\('1E\+999999999'\) is too large or too small: at most 100000 d"):
        _ = x < Decimal("1e999999999")
    with pytest.raises(
        ValueError,
        match=r"^an int of 16610 bits is no number of lns8f3 at log_offset 0: round it with LNSTensor.from_float\(x, ",
    ):
        x + 10**5000


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(),
            st.integers(-(2**64), 2**64),
            st.integers(-(10**400), 10**400),
            st.fractions(),
            st.decimals(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
    ),
    st.sampled_from([lns8f3, lns16f10, lns32f23, LNSFormat(9, 2, base=3.0), LNSFormat(32, 30), LNSFormat(32, 20)]),
    st.sampled_from(ROUNDINGS),
    st.sampled_from([0, 40, 5_000_000_000 >> 4]),
)
@example([2**53 + 1, -(2**63), 2**63, 2**64 - 1], lns32f23, "up", 0)
def test_numbers_of_any_kind_are_rounded_once(integers, fmt, rounding, log_offset):
    bits = np.arange(len(integers), dtype=np.uint32) * 0x9E3779B1 if rounding.startswith("stochastic") else None
    made = LNSTensor.from_float(integers, fmt, rounding=rounding, random_bits=bits, log_offset=log_offset)
    assert made.codes.tolist() == [
        reference.encode(
            Fraction(n), fmt, rounding=rounding, log_offset=log_offset, random_bits=0 if bits is None else int(bits[i])
        )
        for i, n in enumerate(integers)
    ]


def test_an_integer_between_two_floats_on_either_side_of_a_threshold():
    """Next to a tie of the format that lies between two neighbouring floats: decided by integers."""
    found = 0
    for log in range(60 << 10, (60 << 10) + 600):
        tie = exact.significand64(2.0, 2 * log + 1, 11)  # the floor of the middle of two codes, in 64 bits
        n = tie[0] << (tie[1] - 63) if tie[1] >= 63 else tie[0] >> (63 - tie[1])
        for integer in (n, n + 1):
            fmt = LNSFormat(18, 10)
            code = int(LNSTensor.from_float([integer], fmt, log_offset=0).codes[0])
            assert code == reference.encode(Fraction(integer), fmt)
            low, high = sorted({float(integer), math.nextafter(float(integer), math.inf)})
            found += encode(low, fmt) != encode(high, fmt)
    assert found > 100


def test_lists_that_are_no_arrays(x):
    with pytest.raises(TypeError, match=r"^x is a list of tensors, which hold codes, not floats: numpy\.stack\(x\) m"):
        LNSTensor.from_float([x, x], lns8f3)
    with pytest.raises(TypeError, match=r"^x is a list of lists of different lengths: an array has rows of one leng"):
        LNSTensor.from_float([[1, 2], [3]], lns8f3)
    truth = LNSTensor.from_float([[True, False]], lns8f3)
    assert truth.codes.tolist() == [[64, 0]]
    assert LNSTensor.from_float(np.bool_(1), lns8f3).codes == 64


def test_masked_numbers_are_refused(x):
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    words = np.ma.masked_array(np.uint8([64, 65]), [False, True])
    for call in (
        lambda: LNSTensor.from_float(masked, lns8f3), lambda: encode(masked, lns8f3), lambda: x + np.ma.masked,
        lambda: LNSTensor(words, lns8f3), lambda: LNSTensor.from_codes(words, lns8f3), lambda: decode(words, lns8f3),
        lambda: x == np.ma.masked, lambda: operator.setitem(x, (0, 0), np.ma.masked), lambda: x.fill(np.ma.masked),
        lambda: np.where([True], x, np.ma.masked), lambda: np.clip(x, np.ma.masked, None),
        lambda: LNSTensor.from_float(masked.astype(int), lns8f3, log_offset="fit"),
    ):  # fmt: skip
        with pytest.raises(
            TypeError, match=r"^some of the (numbers|codes) are masked, and no mask is kept: fill them with"
        ):
            call()
    with pytest.raises(TypeError, match=r"^add of LNSTensor and MaskedArray"):
        x + masked
    whole = np.ma.masked_array([1.0, 2.0], [False, False])
    assert same(LNSTensor.from_float(whole, lns8f3), LNSTensor.from_float([1.0, 2.0], lns8f3))


def test_an_array_is_not_changed_in_place(x):
    ones = np.ones((2, 3))
    with pytest.raises(TypeError, match=r"^numpy.multiply of LNSTensors writes into an LNSTensor, not into a ndarray$"):
        ones *= x
    assert (ones == 1).all()


@pytest.mark.parametrize("call", [hash, lambda t: {t}, lambda t: {t: 1}], ids=["hash", "set", "dict"])
def test_it_is_unhashable(x, call):
    with pytest.raises(TypeError, match=r"unhashable type: 'LNSTensor'"):
        call(x)


def test_numbers_of_python():
    t = LNSTensor.from_float([2.0, 8.0], lns8f3, log_offset=3)
    assert (float(t[0]), t[1].item(), t.item(1), t.tolist()) == (2.0, 8.0, 8.0, [2.0, 8.0])
    assert [type(v) for v in (float(t[0]), t.item(0), *t.tolist())] == [float] * 4
    with pytest.raises(TypeError, match=r"^only an LNSTensor of shape \(\) becomes a float, not one of shape \(2,\)"):
        float(t)
    with pytest.raises(TypeError):
        operator.index(t[0])


SCALARS = [0.0, 1.0, -2.5, 300.0, 0.0123, 1e9]


@pytest.mark.parametrize("number", SCALARS)
def test_a_tensor_of_one_number_is_read_as_its_float(number):
    x = LNSTensor.from_float(number, lns16f10, log_offset="fit")
    value = float(x.to_float())
    assert (int(x), math.trunc(x), math.floor(x), math.ceil(x)) == (
        int(value), math.trunc(value), math.floor(value), math.ceil(value),
    )  # fmt: skip
    assert [round(x), round(x, 2), round(x, -1)] == [round(value), round(value, 2), round(value, -1)]
    assert type(round(x)) is int
    assert (f"{x:.3f}", f"{x:>12}", f"{x:e}", "%.2f" % x, "%d" % x, complex(x)) == (  # noqa: UP031
        f"{value:.3f}", f"{value:>12}", f"{value:e}", "%.2f" % value, "%d" % value, complex(value),  # noqa: UP031
    )  # fmt: skip
    assert f"{x}" == str(x)


def test_what_is_not_read_as_one_number(x):
    for call in (int, math.trunc, round, lambda t: f"{t:.2f}"):
        with pytest.raises(
            TypeError, match=r"^only an LNSTensor of shape \(\) becomes .*, not one of shape \(2, 3\): "
        ):
            call(x)
    for number in (x[1, 0], LNSTensor.from_codes(64, lns8f3, log_offset=2**30)):
        for call in (int, round, math.trunc):
            with pytest.raises(ValueError, match=r"^no int is the value of LNSTensor\.from_"):
                call(number)


def test_membership_is_by_value(x):
    assert 1.0 in x
    assert 0.3 not in x
    assert Fraction(1, 3) not in x
    assert 1 in x[0]
    assert None not in x


def test_there_is_no_dtype(x):
    assert not hasattr(x, "dtype")


def test_a_tensor_is_not_encoded_again(x):
    with pytest.raises(TypeError, match=r"^x holds codes, not floats: x.astype\(fmt\) rounds them once"):
        LNSTensor.from_float(x, lns8f5)


# --------------------------------------------------------------------------------------------------------------- NumPy


def test_asarray_gives_floats(x, per_channel):
    for t in (x, per_channel, x[1, 1]):
        floats = np.asarray(t)
        assert floats.dtype == np.float64
        np.testing.assert_array_equal(floats, t.to_float())
        np.testing.assert_array_equal(np.array(t, copy=True), t.to_float())
        assert not np.shares_memory(np.asarray(t), np.asarray(t))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_asarray_of_a_narrower_type(x, dtype):
    floats = np.asarray(x, dtype)
    assert floats.dtype == dtype
    np.testing.assert_array_equal(floats, x.to_float(np.dtype(dtype).name))


def test_asarray_rounds_once():
    """A value a little below the middle of two float32, to which float64 rounds it."""
    fmt = LNSFormat(4, 0, base=1 + 3 * 2.0**-25 - 9 * 2.0**-51)
    t = LNSTensor.from_codes([fmt.bias + 2], fmt)
    assert t.to_float().tolist() == [1 + 3 * 2.0**-24]
    assert t.to_float("float32").tolist() == [1 + 2.0**-23]
    assert np.asarray(t, np.float32).tolist() == [1 + 2.0**-23]


def test_asarray_without_a_copy_is_refused(x):
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("NumPy 1 has no copy=False that raises")
    for call in (lambda: np.asarray(x, copy=False), lambda: np.array(x, copy=False)):
        with pytest.raises(ValueError, match=r"^an LNSTensor holds codes: making an array of floats always copies$"):
            call()


# ---------------------------------------------------------------------------------------------------------------- repr


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (LNSTensor.from_codes([64, 200, 0, 128], lns8f3), "from_float([ 1., -2.,  0., nan], 'lns8f3')"),
        (LNSTensor.from_codes([64, 72], lns8f3, log_offset=-8), "from_float([0.5, 1. ], 'lns8f3', log_offset=-8)"),
        (LNSTensor.from_codes(64, lns8f3), "from_float(1., 'lns8f3')"),
        (LNSTensor.from_codes([], lns8f3), "from_float([], 'lns8f3')"),
        (LNSTensor(np.zeros((0, 3), np.uint8), lns8f3), "(array([], 'uint8').reshape((0, 3)), 'lns8f3')"),
        (
            LNSTensor.from_codes([2], LNSFormat(3, 0, base=3.0)),
            "from_float([1.], 'lns3f0b0x1.8000000000000p+1')",
        ),
        (
            LNSTensor.from_codes([[64], [64]], lns8f3, log_offset=np.array([[8], [0]])),
            "from_float([[2.],\n                      [1.]], 'lns8f3', log_offset=array([[8],\n       [0]], "
            "dtype=int32))",
        ),
        (  # beyond every float, on either side
            LNSTensor.from_codes([64, 200], lns8f3, log_offset=10**5),
            "from_codes([ 64, 200], 'lns8f3', log_offset=100000)",
        ),
        (LNSTensor.from_codes([1], lns8f3, log_offset=-(2**30)), "from_codes([1], 'lns8f3', log_offset=-1073741824)"),
        (
            LNSTensor.from_codes([0, 128], lns8f3, log_offset=-(2**30)),
            "from_float([ 0., nan], 'lns8f3', log_offset=-1073741824)",
        ),
        (  # steps that eight digits do not tell apart, and that no float does
            LNSTensor.from_codes([2**30 + 1], LNSFormat(32, 30)), "from_float([1.0000000006455436], 'lns32f30')",
        ),
        (
            LNSTensor.from_codes([2**10 + 1], LNSFormat(12, 10, base=1 + 2.0**-50)),
            "from_codes([1025], 'lns12f10b0x1.0000000000004p+0')",
        ),
    ],
)  # fmt: skip
def test_repr(tensor, text):
    assert repr(tensor) == str(tensor) == f"{tensor}" == ("LNSTensor" if text[0] == "(" else "LNSTensor.") + text


@settings(max_examples=60, deadline=None)
@given(
    tensors(scalars=True, empty=True), st.sampled_from([{}, {"precision": 2}, {"floatmode": "fixed"}, {"sign": "+"}])
)
def test_repr_read_by_python_is_the_tensor(tensor, options):
    with np.printoptions(**options):
        text = repr(tensor)
    back = eval(text, {"LNSTensor": LNSTensor, "array": np.array, "int32": np.int32, "nan": np.nan})
    assert same(back, tensor)
    assert "inf" not in text


def test_repr_of_many_elements_is_short():
    assert len(repr(LNSTensor(np.zeros((1000, 1000), np.uint8), lns8f3))) < 1000
    offsets = np.arange(1000, dtype=np.int32)[:, None]
    rows = LNSTensor(np.full((1000, 1000), 64, np.uint8), lns8f3, log_offset=offsets)
    assert repr(rows).startswith("LNSTensor.from_float([[1.00000000e+00, 1.00000000e+00, 1.00000000e+00,")
    far = LNSTensor(rows.codes, lns8f3, log_offset=100 * offsets)
    assert repr(far).startswith("LNSTensor.from_codes([[64, 64, 64, ..., 64, 64, 64],")


@pytest.mark.parametrize("shape", [(1001,), (2, 3000), (3000, 2), (6, 6, 6, 6), (40, 41), (1001, 1)])
@pytest.mark.parametrize("scale", [{}, {"channels": 0}, {"group_size": 16}])
def test_repr_of_many_elements_is_that_of_all_their_floats(shape, scale):
    x = LNSTensor.from_float(np.random.default_rng(0).normal(size=shape), lns8f3, **scale)
    for options in ({}, {"edgeitems": 1}, {"edgeitems": 0}, {"threshold": 10**6}):
        with np.printoptions(**options):
            text = np.array2string(x.to_float(), separator=", ", prefix="LNSTensor.from_float(")
            shown = repr(x)
        if options.get("edgeitems") != 0:  # where NumPy shows the last number alone, no float is looked for
            assert shown.startswith(f"LNSTensor.from_float({text}, 'lns8f3'")
    for i in (0, 7, x.size - 1, -3):
        at = tuple(map(int, np.unravel_index(i % x.size, shape)))
        assert x.item(i) == x.item(*at) == x.item(at) == x.to_float().item(i)


def test_repr_card_and_item_decode_what_they_show_alone(monkeypatch):
    decoded = []
    decode = reading.decode
    monkeypatch.setattr(reading, "decode", lambda codes, *a, **k: decoded.append(codes.size) or decode(codes, *a, **k))
    groups = GroupOffsets(np.arange(1000, dtype=np.int32)[:, None] * 0 + np.arange(4, dtype=np.int32), 256)
    for offset in (0, np.arange(1000, dtype=np.int32)[:, None], groups):
        x = LNSTensor(np.full((1000, 1000), 64, np.uint8), lns8f3, log_offset=offset)
        assert "..." in repr(x)
        assert "..." in x._repr_html_()
        assert x.item(3, 4) > 0.0
    assert 0 < max(decoded) <= 49


def test_repr_of_a_wide_format_has_values():
    text = "LNSTensor.from_float([1.00000000e+00, 2.93873709e-39], 'lns32f23')"
    assert repr(LNSTensor.from_codes([1 << 30, 5], lns32f23)) == text


def test_a_tensor_has_a_card():
    """Its format, its scale and its numbers; what Python shows of a text as HTML is that text."""
    groups = LNSTensor.from_float(np.ones((2, 64)), lns8f3, group_size=32)
    for x, offset in (
        (LNSTensor.from_float([[1.0, -2.0]], lns8f3, log_offset=5), "5"),
        (LNSTensor.from_float([[1.0], [64.0]], lns8f3, channels=0), "int32 of shape (2, 1), from -63 to -15"),
        (groups, "int32 of shape (2, 2), groups of 32, from -63 to -63"),
        (LNSTensor.from_float(np.ones((0, 3)), lns8f3), "0"),
    ):
        card = x._repr_html_()
        assert "<caption>LNSTensor</caption>" in card
        assert "<td>lns8f3, 15.75 octaves in steps of 9.05 %</td>" in card
        assert f'<th scope="row">log_offset</th><td>{offset}</td>' in card
        assert f"<td>{x.shape}, {x.size} numbers in {x.nbytes} bytes</td>" in card
        assert card.endswith(f"<pre>{np.array2string(x.to_float(), separator=', ')}</pre>" if x.size else "</table>")


@pytest.mark.parametrize("name", ["log_offset", "a_log_offset", "b_format"])
def test_astype_takes_no_scale_of_its_operand(name):
    x = LNSTensor.from_float([1.0, 2.0], "lns8f3")
    with pytest.raises(TypeError, match=f"{name} is no option of tensors: each carries its own format and scale"):
        x.astype("lns16f10", **{name: 3})
