"""LNSTensor in NumPy's functions: moves mirrored on integers, arithmetic compared with lnsnum.arithmetic on codes."""

import copy
import itertools
import operator
import pickle
import re
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

import lnsnum
from lnsnum import LNSTensor, arithmetic, convert, decode, encode, lns6f2, lns8f3, lns8f5, lns16f10, reduction
from lnsnum.array.moves import AXES, JOINS, MOVES, SPLITS
from lnsnum.array.protocol import FUNCTIONS, signature_of
from lnsnum.array.ufuncs import COMPARED, REDUCED, ROUNDED, SUPPORTED, TESTED
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat

ALL = np.arange(256, dtype=np.uint8)
VALUES = np.array([[1.0, -2.5, 0.0], [np.nan, 300.0, -0.01]])
CHANNELS = np.array([[3], [-40]], np.int32)
ANY_OFFSETS = [0, 7, -100, CHANNELS, np.array([[1, 2, 3]], np.int32), np.arange(6, dtype=np.int32).reshape(2, 3)]


def tensor(codes, fmt=lns8f3, log_offset=0):
    return LNSTensor.from_codes(codes, fmt, log_offset=log_offset)


def same(a, b):
    """Equal in everything that a tensor holds, its scales element by element."""
    assert isinstance(a, LNSTensor)
    assert (a.fmt, a.shape, a.codes.dtype) == (b.fmt, b.shape, b.codes.dtype)
    np.testing.assert_array_equal(a.codes, b.codes)
    np.testing.assert_array_equal(np.broadcast_to(a.log_offset, a.shape), np.broadcast_to(b.log_offset, b.shape))
    return True


def scales(t):
    return np.broadcast_to(t.log_offset, t.shape)


@pytest.fixture(params=range(len(ANY_OFFSETS)), ids=["0", "7", "-100", "rows", "columns", "elements"])
def x(request):
    return LNSTensor.from_float(VALUES, lns8f3, log_offset=ANY_OFFSETS[request.param])


@pytest.fixture
def plain():
    return LNSTensor.from_float(VALUES, lns8f3)


# -------------------------------------------------------------------------------------------------------------- ufuncs

UNARY = [f for f in ROUNDED if f.nin == 1 and f is not np.cbrt]


def of_arithmetic(ufunc, a, b=None, **options):
    function = getattr(arithmetic, ufunc.__name__)
    if b is None:
        return function(a.codes, a.fmt, log_offset=a.log_offset, **options)
    return function(a.codes, b.codes, a.fmt, a_log_offset=a.log_offset, b_log_offset=b.log_offset, **options)


@pytest.mark.parametrize("ufunc", [f for f in ROUNDED if f.nin == 2], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("offset_a", "offset_b"), [(0, 0), (5, -3), (CHANNELS, 0), (4, CHANNELS), (CHANNELS, CHANNELS)]
)
def test_ufuncs_of_two_are_arithmetic_on_codes(ufunc, offset_a, offset_b):
    draw = np.random.default_rng(1)
    a, b = (tensor(draw.integers(0, 256, (2, 50), np.uint8), log_offset=o) for o in (offset_a, offset_b))
    codes, offset = of_arithmetic(ufunc, a, b)
    assert same(ufunc(a, b), tensor(codes, log_offset=offset))
    assert type(ufunc(a, b).log_offset) is int
    row = b[0]
    codes, offset = of_arithmetic(ufunc, a, row)
    assert same(ufunc(a, row), tensor(codes, log_offset=offset))


@pytest.mark.parametrize("ufunc", UNARY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("offset", [0, 9, np.arange(256) % 5])
def test_ufuncs_of_one_are_arithmetic_on_codes(ufunc, offset):
    a = tensor(ALL, log_offset=offset)
    codes, out = of_arithmetic(ufunc, a)
    assert same(ufunc(a), tensor(codes, log_offset=out))


def test_ufuncs_that_keep_the_scale(x):
    assert same(np.negative(x), -x)
    assert same(np.absolute(x), abs(x))
    assert same(np.fabs(x), abs(x))
    assert same(np.positive(x), x)
    assert not np.shares_memory(np.positive(x), x)
    assert same(np.conjugate(x), x)
    assert same(np.sign(x), tensor(arithmetic.sign(x.codes, x.fmt)))
    y = x[::-1]
    assert same(np.copysign(x, y), tensor(arithmetic.copysign(x.codes, y.codes, x.fmt), log_offset=x.log_offset))
    moved = arithmetic.nextafter(x.codes, y.codes, x.fmt, a_log_offset=x.log_offset, b_log_offset=y.log_offset)
    assert same(np.nextafter(x, y), tensor(moved, log_offset=x.log_offset))


def test_cube_roots_have_a_sign():
    a = tensor(ALL)
    positive = a[a.codes < 128]
    codes, _ = arithmetic.power(positive.codes, Fraction(1, 3), lns8f3)
    assert same(np.cbrt(positive), tensor(codes))
    assert same(np.cbrt(-positive), -np.cbrt(positive))
    assert np.isnan(np.cbrt(tensor([128]))).all()
    out = LNSTensor.from_codes([0, 0], lns16f10)
    np.cbrt(tensor([64 + 24, 192 + 24]), out=out)
    assert out.tolist() == [2.0, -2.0]


def test_many_elements_compare_and_sort_as_few():
    a, b = np.meshgrid(ALL, ALL)
    for offset in (0, 5):
        x, y = tensor(a), tensor(b, log_offset=offset)
        for ufunc in COMPARED:
            np.testing.assert_array_equal(ufunc(x, y), [ufunc(row, other) for row, other in zip(x, y, strict=True)])
        np.testing.assert_array_equal(np.argsort(x), np.array([np.argsort(row) for row in x]))


@pytest.mark.parametrize("ufunc", COMPARED, ids=lambda f: f.__name__)
def test_comparisons(ufunc, x, plain):
    floats, other = x.to_float(), plain.to_float()
    np.testing.assert_array_equal(ufunc(x, plain), ufunc(floats, other))
    np.testing.assert_array_equal(ufunc(plain[0], x), ufunc(other[0], floats))
    out = np.ones((2, 3), bool)
    assert ufunc(x, plain, out=out) is out
    np.testing.assert_array_equal(out, ufunc(floats, other))
    mask = np.array([True, False, True])
    out = np.array([[True, False, True]] * 2)
    ufunc(x, plain, out=out, where=mask)
    np.testing.assert_array_equal(out, np.where(mask, ufunc(floats, other), [[True, False, True]] * 2))


def test_truth_values(x):
    floats = x.to_float()
    for ufunc in (np.isnan, np.isinf, np.isfinite):
        result = ufunc(x)
        assert result.dtype == np.bool_
        np.testing.assert_array_equal(result, ufunc(floats))
    np.testing.assert_array_equal(np.signbit(x), floats < 0)
    np.testing.assert_array_equal(x.iszero(), floats == 0)
    for ufunc in TESTED:
        with pytest.raises(TypeError, match=r"gives truth values: out is an array of bool, not an LNSTensor$"):
            ufunc(x, out=x)


@pytest.mark.parametrize(
    ("symbol", "ufunc"),
    [
        (operator.add, np.add), (operator.sub, np.subtract), (operator.mul, np.multiply),
        (operator.truediv, np.divide), (operator.pow, np.float_power),
    ],
)  # fmt: skip
def test_operators_are_ufuncs(symbol, ufunc, x, plain):
    assert same(symbol(x, plain), ufunc(x, plain))
    for number in (2, 2.0, np.float32(2), np.int8(2), np.array(2.0)):
        two = tensor(72) if not np.any(x.log_offset) else LNSTensor.from_float(2.0, lns8f3, log_offset="fit")
        assert same(symbol(number, x), ufunc(two, x))
        if symbol is not operator.pow:
            assert same(symbol(x, number), ufunc(x, two))
            assert same(ufunc(x, number), ufunc(x, two))


# ------------------------------------------------------------------------------------------------------------- numbers


def test_numbers_that_are_in_the_format():
    a = tensor(ALL)
    for code in range(256):
        number = decode(code, lns6f2 if code < 64 else lns8f3).item()
        on_grid = encode(number, lns8f3, rounding="up") == encode(number, lns8f3, rounding="down")
        if abs(number) in (0.0, 1.0, 2.0, 4.0, 8.0, 0.5, 0.25) or number != number:
            assert on_grid
            assert same(a * number, a * LNSTensor.from_float(number, lns8f3))
    for number in (True, np.True_, 1, 1.0, np.float16(1), Fraction(1)):
        assert same(a * number, a)
    assert same(a + 0, a)
    assert same(a + -0.0, a)


@pytest.mark.parametrize(
    "number", [0.3, 3, -5, 1e-9, 512, 1e300, float("inf"), np.float32(0.1), Fraction(1, 3), 2**60 + 1, 10**400]
)
def test_numbers_that_would_be_rounded_are_refused(number):
    a = tensor([64])
    for call in (
        lambda: a + number, lambda: number - a, lambda: a * number, lambda: np.maximum(a, number),
        lambda: np.where([True], a, number), lambda: operator.setitem(a, 0, number), lambda: a.fill(number),
        lambda: np.full_like(a, number), lambda: np.clip(a, number, None), lambda: np.concatenate([a, number]),
    ):  # fmt: skip
        with pytest.raises(
            ValueError,
            match=r"is no number of lns8f3 at log_offset 0: round it with LNSTensor.from_float|is no float64",
        ):
            call()
    assert a.codes.tolist() == [64]


def test_numbers_take_the_scale_of_the_tensor():
    a = LNSTensor.from_float([2.0**100, 2.0**104], lns8f3, log_offset="fit")
    assert a.log_offset > 700
    assert same(a * 2.0**100, LNSTensor.from_float([2.0**200, 2.0**204], lns8f3, log_offset="fit"))
    assert same(a * 2, LNSTensor.from_float([2.0**101, 2.0**105], lns8f3, log_offset="fit"))
    with pytest.raises(ValueError, match=r"^3 is no number of lns8f3: round it"):
        _ = a * 3
    with pytest.raises(ValueError, match=r"^2 is no number of lns8f3 at log_offset \d+: round it"):
        a[0] = 2
    rows = LNSTensor.from_float(VALUES, lns8f3, log_offset=CHANNELS)
    assert np.where(VALUES > 0, rows, 0).log_offset.shape == (2, 1)
    np.testing.assert_array_equal((rows * 0.5).to_float(), (rows * LNSTensor.from_float(0.5, lns8f3)).to_float())


# --------------------------------------------------------------------------------------- comparison with any float

NEAR_THE_GRID = st.builds(
    lambda code, log_offset, side: float(np.nextafter(decode(code, lns8f3, log_offset=log_offset), side)),
    st.integers(1, 127), st.sampled_from([0, 3, -50, 4000]), st.sampled_from([-np.inf, np.inf, 0.0]),
)  # fmt: skip
FLOATS = st.one_of(
    NEAR_THE_GRID,
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-400, 400, width=32),
    st.integers(-(2**53), 2**53),
)


@given(FLOATS, st.sampled_from([0, 3, -50, 4000]), st.sampled_from([lns8f3, lns6f2, LNSFormat(7, 1, base=3.0)]))
@example(float("inf"), 0, lns8f3)
@example(-float("inf"), 4000, lns8f3)
@example(5e-324, 0, lns8f3)
@example(0.3, 0, lns8f3)
def test_comparisons_with_floats_are_exact(number, offset, fmt):
    a = LNSTensor.from_codes(np.arange(1 << fmt.bits), fmt, log_offset=offset)
    nan = a.isnan()
    if number != number:
        assert not (a < number).any()
        assert (a != number).all()
        return
    for code in range(0, 1 << fmt.bits, 7):
        if nan[code]:
            continue
        c = _compare_exactly(code, fmt, offset, number)
        one = a[code]
        answers = [
            bool(r(one, number)) for r in (operator.lt, operator.le, operator.eq, operator.ne, operator.ge, operator.gt)
        ]
        assert answers == [c < 0, c <= 0, c == 0, c != 0, c >= 0, c > 0]
        assert [bool(r(number, one)) for r in (operator.gt, operator.ge, operator.eq)] == [c < 0, c <= 0, c == 0]


def _compare_exactly(code, fmt, offset, number):
    """-1, 0 or 1: the value of a code against a number, from integers: base^E against number^(2^F)."""
    m, negative = code & fmt.max_magnitude, code > fmt.max_magnitude
    sign = 0 if m == 0 else -1 if negative else 1
    other = (number > 0) - (number < 0)
    if sign != other or sign == 0:
        return (sign > other) - (sign < other)
    if abs(number) == float("inf"):
        return -sign
    power = Fraction(abs(number)) ** (1 << fmt.fraction_bits)
    value = Fraction(fmt.base) ** (m - fmt.bias + offset)
    return sign * ((value > power) - (value < power))


def test_comparisons_at_the_ends_of_all_scales():
    wide = LNSFormat(32, 30)
    for offset in (MAX_LOG_OFFSET, -MAX_LOG_OFFSET, 0):
        a = LNSTensor.from_codes([1, wide.max_magnitude, wide.sign_bit + 1, 2**32 - 1, 0], wide, log_offset=offset)
        floats = a.to_float()
        for number in (1e300, -1e300, 1e-300, -1e-300, 3.0, -3.0, 0.3):
            for relation in (operator.lt, operator.le, operator.eq, operator.gt, operator.ge):
                np.testing.assert_array_equal(relation(a, number), relation(floats, number))


# ---------------------------------------------------------------------------------------------------- out= and where=


@pytest.mark.parametrize(
    "ufunc", [np.add, np.multiply, np.subtract, np.divide, np.float_power], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("out_fmt", [lns8f3, lns16f10, lns6f2], ids=str)
@pytest.mark.parametrize("out_offset", [0, -9, CHANNELS], ids=["0", "-9", "rows"])
def test_out_is_one_rounding_into_its_format_and_scale(ufunc, out_fmt, out_offset, x):
    y = x[::-1]
    z = LNSTensor(np.full((2, 3), 1, out_fmt.dtype), out_fmt, log_offset=out_offset)
    codes, z_codes = np.empty((2, 3), out_fmt.dtype), z.codes
    for i, j in np.ndindex(2, 3):
        options = {"out_format": out_fmt, "out_log_offset": int(np.broadcast_to(out_offset, (2, 3))[i, j])}
        codes[i, j] = of_arithmetic(ufunc, x[i, j], y[i, j], **options)[0]
    assert ufunc(x, y, out=z) is z
    assert z.codes is z_codes
    assert same(z, LNSTensor(codes, out_fmt, log_offset=out_offset))
    mask = np.array([[True, False, True], [False, True, True]])
    w = LNSTensor(np.full((2, 3), 1, out_fmt.dtype), out_fmt, log_offset=out_offset)
    ufunc(x, y, out=w, where=mask)
    np.testing.assert_array_equal(w.codes, np.where(mask, codes, 1))


def test_out_of_what_keeps_its_scale(x):
    z = LNSTensor(np.zeros((2, 3), np.uint16), lns16f10, log_offset=np.array([[100], [-100]], np.int32))
    assert np.negative(x, out=z) is z
    for row, offset in ((0, 100), (1, -100)):
        expected = convert((-x).codes[row], lns8f3, lns16f10, log_offset=scales(x)[row].copy(), out_log_offset=offset)
        np.testing.assert_array_equal(z.codes[row], expected)
    wide = LNSTensor(np.zeros((4, 2, 3), np.uint8), lns8f3)
    np.absolute(x, out=wide)
    assert same(wide[1], wide[3])


def test_out_broadcasts_as_in_numpy(plain):
    z = LNSTensor(np.zeros((4, 2, 3), np.uint8), lns8f3)
    np.add(plain, plain[0], out=z)
    assert same(z[2], plain + plain[0])
    with pytest.raises(ValueError, match=r"^the result has shape \(2, 3\), which does not fit out, of shape \(3,\)$"):
        np.add(plain, plain, out=plain[0].copy())


@pytest.mark.parametrize(
    ("in_place", "ufunc"),
    [
        (operator.iadd, np.add),
        (operator.isub, np.subtract),
        (operator.imul, np.multiply),
        (operator.itruediv, np.divide),
    ],
)
def test_in_place_operators_write_into_the_codes(in_place, ufunc, x, plain):
    t, codes = x.copy(), None
    codes = t.codes
    out = x.copy()
    ufunc(x, plain, out=out)
    t2 = in_place(t, plain)
    assert t2 is t
    assert t.codes is codes
    assert same(t, out)
    np.testing.assert_array_equal(scales(t), scales(x))
    other = LNSTensor.from_float(np.full(3, 1.7), lns16f10)  # another format: the destination names it
    mixed = x.copy()
    in_place(mixed, other)
    out = x.copy()
    ufunc(x, other, out=out)
    assert same(mixed, out)


def test_in_place_power_and_matmul(plain):
    t = plain.copy()
    t **= 2
    assert same(t, plain * plain)
    t = plain.copy()
    t **= Fraction(1, 2)
    assert same(t, np.sqrt(plain))
    square = LNSTensor.from_float([[1.0, 2.0], [0.5, 4.0]], lns8f3)
    t = square.copy()
    t @= square
    assert same(t, square @ square)


def test_in_place_on_itself_and_on_overlapping_views():
    for offset in (0, np.arange(6, dtype=np.int32)):
        t = tensor(np.arange(60, 66, dtype=np.uint8), log_offset=offset)
        old = t.copy()
        t[1:] += t[:-1]
        expected = old[1:].copy()
        np.add(old[1:], old[:-1], out=expected)
        assert same(t[1:], expected)
        assert same(t[:1], old[:1])


def test_where_without_out_is_refused(plain):
    for call in (lambda: np.add(plain, plain, where=plain > 0), lambda: np.less(plain, plain, where=[True])):
        with pytest.raises(TypeError, match=r"with where= and no out= would leave elements unset: give out=$"):
            call()


# ---------------------------------------------------------------------------------------------------- moves, mirrored


def mirrored(function, t):
    """The tensor that comes of doing the same to integers: the codes, and the scale of each element."""
    codes, offsets = (function(array) for array in (t.codes.astype(np.int64), scales(t).astype(np.int64)))
    return LNSTensor(np.asarray(codes).astype(t.fmt.dtype), t.fmt, log_offset=np.asarray(offsets))


MOVED = {
    np.reshape: lambda a: np.reshape(a, (3, 2)), np.ravel: np.ravel, np.transpose: np.transpose,
    np.permute_dims: lambda a: np.permute_dims(a, (1, 0)), np.matrix_transpose: np.matrix_transpose,
    np.swapaxes: lambda a: np.swapaxes(a, 0, 1), np.moveaxis: lambda a: np.moveaxis(a, 0, -1),
    np.rollaxis: lambda a: np.rollaxis(a, 1), np.squeeze: lambda a: np.squeeze(a[:1], 0),
    np.expand_dims: lambda a: np.expand_dims(a, (0, 2)), np.broadcast_to: lambda a: np.broadcast_to(a, (4, 2, 3)),
    np.flip: lambda a: np.flip(a, 1), np.fliplr: np.fliplr, np.flipud: np.flipud, np.rot90: np.rot90,
    np.roll: lambda a: np.roll(a, 1, 0), np.repeat: lambda a: np.repeat(a, [1, 2], 0),
    np.tile: lambda a: np.tile(a, (2, 1)),
    np.take: lambda a: np.take(a, [[1, 0], [1, 1]], 0),
    np.take_along_axis: lambda a: np.take_along_axis(a, np.array([[2], [0]]), 1),
    np.delete: lambda a: np.delete(a, 1, 1), np.diagonal: np.diagonal, np.diag: np.diag, np.tril: np.tril,
    np.triu: lambda a: np.triu(a, 1), np.copy: np.copy,
}  # fmt: skip


FILLS = (np.tril, np.triu, np.diag)
"""Those that put zeros in, at whatever scale."""


def test_every_move_is_tried():
    assert set(MOVED) == set(MOVES)


@pytest.mark.parametrize("name", MOVED, ids=lambda f: f.__name__)
def test_moves(name, x):
    function = MOVED[name]
    moved, mirror = function(x), mirrored(function, x)
    np.testing.assert_array_equal(moved.to_float(), mirror.to_float())
    assert name in FILLS or same(moved, mirror)


def test_diagonal_matrices(x):
    np.testing.assert_array_equal(np.diag(x[1]).to_float(), np.diag(x.to_float()[1]))


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a.T, lambda a: a.transpose(), lambda a: a.transpose(1, 0), lambda a: a.transpose((1, 0)),
        lambda a: a.swapaxes(0, 1), lambda a: a.reshape(3, 2), lambda a: a.reshape((6,)), lambda a: a.reshape(-1),
        lambda a: a.ravel(), lambda a: a.flatten(), lambda a: a[:1].squeeze(), lambda a: a[:1].squeeze(0),
        lambda a: a.take([1, 0], 0), lambda a: a.take(4), lambda a: a.repeat(2), lambda a: a.repeat(2, 1),
        lambda a: a.copy(), lambda a: a[:, None], lambda a: a[..., ::-1], lambda a: a[[1, 0], 1:],
    ],
)  # fmt: skip
def test_methods_that_move(function, x):
    assert same(function(x), mirrored(function, x))


def test_named_arguments_reach_the_moves(x):
    assert same(np.expand_dims(a=x, axis=0), x.expand_dims(0))
    with pytest.raises(TypeError, match=r"^numpy.take of LNSTensors takes no out=: assign the result"):
        np.take(x, [0], out=x)
    with pytest.raises(
        TypeError, match=r"^numpy.take_along_axis takes no LNSTensor as indices: give plain numbers, by tolist\(\)$"
    ):
        np.take_along_axis(VALUES, x, 0)
    with pytest.raises(TypeError, match=r"^an LNSTensor becomes an array of floats, not of int64: round them, by to_"):
        np.take(np.ones(3), x)


@pytest.mark.parametrize("order", ["C", "F", "A", "K", "k"])
def test_an_order_in_memory_is_that_of_the_codes(order):
    """The scales go with their codes, whichever way either lies in memory."""
    draw = np.random.default_rng(3)
    codes = draw.permutation(np.arange(1, 121)).astype(np.uint8).reshape(4, 5, 6)
    for offset in (0, np.arange(6), np.arange(5).reshape(5, 1), np.arange(120).reshape(4, 5, 6)):
        whole = tensor(codes, log_offset=offset)
        scale_of = dict(zip(codes.ravel().tolist(), scales(whole).ravel().tolist(), strict=True))
        for axes in itertools.permutations(range(3)):
            turned = whole.transpose(axes)
            wide = np.broadcast_to(turned[0], turned.shape)
            for t in (turned, turned[::-1], turned[:, ::-2], turned[0], turned[:, :, :1], wide):
                moved = [(np.ravel(t, order=order), np.ravel(t.codes, order=order)),
                         (np.ravel(t, order), np.ravel(t.codes, order)),
                         (np.copy(t, order=order), t.codes)]  # fmt: skip
                if order.upper() != "K":
                    moved += [(np.reshape(t, (-1, 2), order=order), np.reshape(t.codes, (-1, 2), order=order))]
                    moved += [(np.reshape(t, (2, -1), order), np.reshape(t.codes, (2, -1), order))]
                for ours, expected in moved:
                    if order.upper() == "K" and t is wide:  # what lies at one place has no order in memory
                        np.testing.assert_array_equal(np.sort(ours.codes), np.sort(expected))
                    else:
                        np.testing.assert_array_equal(ours.codes, expected)
                    assert [scale_of[code] for code in ours.codes.ravel().tolist()] == scales(ours).ravel().tolist()


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="reshape has no copy= before")
def test_a_reshape_copies_as_asked(x):
    for copied in (None, False, True):
        reshaped = np.reshape(x, (3, 2), copy=copied)
        assert same(reshaped, x.reshape(3, 2))
        assert np.shares_memory(reshaped, x) == (copied is not True)
    with pytest.raises(ValueError, match="copy"):
        np.reshape(x.T, (6,), copy=False)


def test_views_share_the_codes(x):
    for view in (
        x.T,
        x.reshape(3, 2),
        x.ravel(),
        x[1:],
        x[0],
        np.flip(x),
        np.expand_dims(x, 0),
        np.atleast_3d(x),
        x[...],
    ):
        assert np.shares_memory(view, x)
        assert np.may_share_memory(view.codes, x)
    for clone in (x.flatten(), x.copy(), np.copy(x), x[[0, 1]], copy.copy(x), copy.deepcopy(x)):
        assert not np.shares_memory(clone, x)
    with pytest.raises(ValueError, match="read-only"):
        np.broadcast_to(x, (4, 2, 3))[0] = x


def test_a_view_writes_through():
    t = tensor([64, 72, 80])
    y = t[1:]
    y[0] = 0.5
    assert t.tolist() == [1.0, 0.5, 4.0]
    t.T[...] = t[::-1].copy()
    assert t.tolist() == [4.0, 0.5, 1.0]


SPLIT = {
    np.split: lambda a: np.split(a, [1, 2], 1), np.array_split: lambda a: np.array_split(a, 2, 1),
    np.hsplit: lambda a: np.hsplit(a, 3), np.vsplit: lambda a: np.vsplit(a, 2),
    np.dsplit: lambda a: np.dsplit(a[..., None].repeat(2, 2), 2),
}  # fmt: skip
SPLIT |= {f: f for f in SPLITS if f.__name__ == "unstack"}


@pytest.mark.parametrize("function", SPLIT.values(), ids=[f.__name__ for f in SPLIT])
def test_splits(function, x):
    assert set(SPLIT) == set(SPLITS)
    parts = function(x)
    codes, offsets = function(x.codes), function(scales(x).copy())
    assert type(parts) is type(codes)
    for part, c, o in zip(parts, codes, offsets, strict=True):
        assert same(part, LNSTensor(c, x.fmt, log_offset=o))
        assert np.shares_memory(part, x) or function is SPLIT[np.dsplit]


def test_atleast_and_broadcast_arrays(x):
    zero = tensor(64)
    for function in (np.atleast_1d, np.atleast_2d, np.atleast_3d):
        assert same(function(x), mirrored(function, x))
        both = function(zero, x, np.ones(3))
        assert [t.shape for t in both] == [t.shape for t in function(np.ones(()), VALUES, np.ones(3))]
        assert [type(t) for t in both] == [LNSTensor, LNSTensor, np.ndarray]
    a, b, c = np.broadcast_arrays(x, zero, np.ones(1))
    assert a.shape == b.shape == c.shape == (2, 3)
    assert same(b, tensor(np.full((2, 3), 64)))


# -------------------------------------------------------------------------------------------------------- joins, scales

JOIN = {
    np.concatenate: lambda a, b: np.concatenate([a, b]), np.stack: lambda a, b: np.stack((a, b), -1),
    np.vstack: lambda a, b: np.vstack([a, b]), np.hstack: lambda a, b: np.hstack([a, b]),
    np.dstack: lambda a, b: np.dstack([a, b]), np.column_stack: lambda a, b: np.column_stack([a, b]),
    np.append: lambda a, b: np.append(a, b, 1),
}  # fmt: skip


@pytest.mark.parametrize("function", JOIN.values(), ids=[f.__name__ for f in JOIN])
@pytest.mark.parametrize("offset", [0, 7, 30, -1000, CHANNELS], ids=["0", "7", "30", "-1000", "rows"])
def test_joins_round_nothing(function, offset, x):
    assert set(JOIN) == {*JOINS, np.append}
    y = tensor([[1, 127, 0], [128, 255, 64]], log_offset=offset)
    result = function(x, y)
    np.testing.assert_array_equal(result.to_float(), function(x.to_float(), y.to_float()))
    mirrored = function(x.codes.astype(np.int64) & 127, y.codes.astype(np.int64) & 127)
    logs = function(scales(x).astype(np.int64), scales(y).astype(np.int64)) + mirrored
    nonzero = mirrored > 0
    np.testing.assert_array_equal(((result.codes & 127) + scales(result))[nonzero], logs[nonzero])


def test_scales_of_a_join():
    a, b = tensor([64, 72], log_offset=0), tensor([64], log_offset=8)
    assert same(np.concatenate([a, b]), tensor([64, 72, 72]))  # all at the scale of the first: 1, 2, 2
    assert type(np.concatenate([a, b]).log_offset) is int
    high = tensor([120], log_offset=8)
    assert same(np.concatenate([tensor([64]), high]), tensor([63, 127], log_offset=1))  # the least that holds all
    low, top = tensor([1]), tensor([127], log_offset=1)
    kept = np.concatenate([low, top])  # 128 magnitudes apart: no scale holds both, each keeps its own
    assert same(kept, tensor([1, 127], log_offset=np.array([0, 1])))
    for far in (tensor([0], log_offset=5000), LNSTensor.from_codes([], lns8f3, log_offset=5000)):
        assert same(np.concatenate([tensor([64]), far])[0], tensor(64))
        assert np.concatenate([far, tensor([64])])[-1].tolist() == 1.0
        assert type(np.concatenate([far, tensor([64])]).log_offset) is int
    rows = tensor(np.full((2, 3), 64), log_offset=CHANNELS)
    assert np.concatenate([rows, rows], 1).log_offset.tolist() == CHANNELS.tolist()
    assert np.concatenate([rows, rows], 0).log_offset.tolist() == [*CHANNELS.tolist(), *CHANNELS.tolist()]
    zeros = tensor([0, 128], log_offset=-5)
    assert same(np.concatenate([tensor([64]), zeros]), tensor([64, 0, 128]))
    extremes = [tensor([1], log_offset=o) for o in (MAX_LOG_OFFSET, -MAX_LOG_OFFSET)]
    assert np.concatenate(extremes).log_offset.tolist() == [MAX_LOG_OFFSET, -MAX_LOG_OFFSET]


def test_joins_of_tensors_and_numbers(x):
    assert np.concatenate([x.ravel(), np.atleast_1d(x[0, 0])]).shape == (7,)
    flat = np.concatenate([x, x], axis=None)
    assert same(flat, np.concatenate([x.ravel(), x.ravel()]))
    assert same(np.append(x, x), flat)
    assert same(np.append(tensor([64, 72]), 4), tensor([64, 72, 80]))
    assert np.append(x, 1).shape == (7,)
    with pytest.raises(ValueError, match="number of dimensions"):
        np.concatenate([x, 1])
    with pytest.raises(ValueError, match="do not match for a matrix product"):
        np.matmul(x, 1)
    np.testing.assert_array_equal(np.stack(x).to_float(), x.to_float())
    out = LNSTensor(np.zeros((4, 3), np.uint16), lns16f10)
    assert np.concatenate([x, x], out=out) is out
    assert same(out[:2], x.astype(lns16f10, out_log_offset=0))
    for call in (lambda: np.concatenate([x, x], out=out[:3]), lambda: np.max(x, 0, out=out)):
        with pytest.raises(ValueError, match=r"^the result has shape \(.*\), which does not fit out, of shape"):
            call()


def test_joins_are_refused(plain):
    with pytest.raises(TypeError, match=r"^concatenate of LNSTensor and ndarray: make it one with"):
        np.concatenate([plain, VALUES])
    with pytest.raises(TypeError, match=r"^stack of lns8f3 and lns8f5: bring both to one format with astype"):
        np.stack([plain, LNSTensor.from_float(VALUES, lns8f5)])
    with pytest.raises(TypeError, match=r"^numpy.concatenate of LNSTensors takes no dtype=: a tensor has a format"):
        np.concatenate([plain, plain], dtype="float32")
    with pytest.raises(
        TypeError, match=r"^LNSTensors go into an LNSTensor, not into a ndarray: take floats with to_float"
    ):
        np.concatenate([plain, plain], out=np.ones((4, 3)))


@pytest.mark.parametrize("offset", [0, 9, -1000, CHANNELS], ids=str)
def test_where(offset, x):
    y = tensor([[1, 127, 0], [128, 255, 64]], log_offset=offset)
    condition = np.array([[True], [False]])
    for c in (condition, VALUES > 0, True, x):
        result = np.where(c, x, y)
        truth = c.codes != 0 if isinstance(c, LNSTensor) else c
        np.testing.assert_array_equal(result.to_float(), np.where(truth, x.to_float(), y.to_float()))
    assert same(np.where(condition, x, x), x)
    np.testing.assert_array_equal(np.where(x > 0, x, 0).to_float(), np.where(x.to_float() > 0, x.to_float(), 0))
    np.testing.assert_array_equal(np.where(x)[1], np.nonzero(x.to_float())[1])


# -------------------------------------------------------------------------------------------------- indices, assignment


@st.composite
def arrays_and_indices(draw):
    shape = draw(st_np.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    codes = draw(st_np.arrays(np.uint8, shape))
    offset_shape = tuple(draw(st.sampled_from([1, n])) for n in shape)
    offset = draw(
        st.one_of(st.integers(-300, 300), st_np.arrays(np.int32, offset_shape, elements=st.integers(-300, 300)))
    )
    index = draw(st.one_of(
        st_np.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True),
        st_np.arrays(np.bool_, shape),
        st_np.integer_array_indices(shape) if all(shape) else st.just(...),
    ))  # fmt: skip
    return LNSTensor(codes, lns8f3, log_offset=offset), index


@given(arrays_and_indices())
def test_any_index_is_mirrored(case):
    t, index = case
    part = t[index]
    np.testing.assert_array_equal(part.codes, t.codes[index])
    np.testing.assert_array_equal(scales(part), scales(t)[index])
    assert np.shares_memory(part, t) == np.shares_memory(np.asarray(t.codes[index]), t.codes)


@given(arrays_and_indices(), st.data())
def test_any_assignment_is_mirrored(case, data):
    """Against one conversion of each element to the scale of its place."""
    t, index = case
    target = np.asarray(t.codes[index])
    shape = data.draw(st.sampled_from([target.shape, (1,) * target.ndim, target.shape[1:], ()]))
    value = LNSTensor(
        data.draw(st_np.arrays(np.uint16, shape, elements=st.integers(0, 4095))), LNSFormat(12, 6),
        log_offset=data.draw(st.integers(-3000, 3000)),
    )  # fmt: skip
    expected = t.codes.astype(np.int64)
    spread = np.broadcast_to(value.codes, target.shape)
    places = scales(t)[index]
    rounded = np.empty(target.shape, np.int64)
    for at in np.ndindex(target.shape):
        options = {"log_offset": value.log_offset, "out_log_offset": int(np.asarray(places)[at])}
        rounded[at] = convert(spread[at], value.fmt, t.fmt, **options)
    expected[index] = rounded
    codes, before = t.codes, scales(t).copy()
    t[index] = value
    assert t.codes is codes
    if not isinstance(index, tuple) or not any(isinstance(i, np.ndarray) for i in index):  # no element named twice
        np.testing.assert_array_equal(t.codes, expected)
    np.testing.assert_array_equal(scales(t), before)


@given(st.data())
def test_broadcasting_is_numpys(data):
    shapes = data.draw(st_np.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
    a, b = (
        tensor(data.draw(st_np.arrays(np.uint8, s)), log_offset=data.draw(st.integers(-50, 50)))
        for s in shapes.input_shapes
    )
    for ufunc in (np.add, np.multiply, np.maximum):
        result = ufunc(a, b)
        assert result.shape == shapes.result_shape
        codes, offset = of_arithmetic(ufunc, a, b)
        assert same(result, tensor(codes, log_offset=offset))
        full = [np.broadcast_to(t, shapes.result_shape) for t in (a, b)]
        assert same(ufunc(*full), result)
    assert (a == b).shape == np.where(True, a, b).shape == shapes.result_shape


def test_assignment(plain):
    t = plain.copy()
    t[0] = t[1]
    assert same(t[0], t[1])
    t[:, 0] = 2
    assert t.codes[:, 0].tolist() == [72, 72]
    t[t < 0] = 0
    assert not (t < 0).any()
    t[...] = t[:1] * 1
    t[0, 0] = LNSTensor.from_float(5e6, lns16f10, log_offset=20000)  # rounds to nearest, and saturates at the edge
    assert t.codes[0, 0] == 127
    t.fill(-1)
    assert (t == -1).all()
    with pytest.raises(TypeError, match=r"^an LNSTensor does not take the numbers of a ndarray: make it a tensor with"):
        t[0] = np.ones(3)
    with pytest.raises(TypeError, match=r"^an LNSTensor does not take the numbers of a list"):
        t[0] = [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="broadcast"):
        t[0] = tensor([1, 2])
    with pytest.raises(IndexError):
        t[5] = 1
    rows = tensor(np.zeros((2, 3)).astype(np.uint8), log_offset=CHANNELS)
    with pytest.raises(ValueError, match=r"^8192.0 is no number of lns8f3 at the log_offsets there: round it"):
        rows[...] = 8.0 * 2.0**10
    rows[...] = 1.0
    assert rows.tolist() == [[1.0] * 3] * 2
    for t in (rows, plain.copy()):  # as NumPy: leading axes of length 1 do not count
        t[0] = tensor([[[64, 72, 80]]])
        assert t[0].tolist() == [1.0, 2.0, 4.0]


def test_copyto(x, plain):
    t = plain.copy()
    np.copyto(t, x, where=[True, False, True])
    np.testing.assert_array_equal(
        t.codes, np.where([True, False, True], x.astype(lns8f3, out_log_offset=0).codes, plain.codes)
    )
    np.copyto(t, 1.0)
    assert (t == 1).all()
    with pytest.raises(TypeError, match=r"^numpy.copyto does not take LNSTensors: make floats of the tensor first"):
        np.copyto(np.ones((2, 3)), x)


# ---------------------------------------------------------------------------------------------------- chosen by value


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_order(axis, x):
    floats = x.to_float()
    indices = np.argsort(x, axis)
    np.testing.assert_array_equal(indices, np.argsort(floats, axis, kind="stable"))
    np.testing.assert_array_equal(indices, x.argsort(axis))
    assert same(
        np.sort(x, axis),
        mirrored(
            lambda a: np.take_along_axis(a.ravel() if axis is None else a, indices, -1 if axis is None else axis), x
        ),
    )
    np.testing.assert_array_equal(np.sort(x, axis).to_float(), np.sort(floats, axis))
    for function in (np.argmax, np.argmin):
        np.testing.assert_array_equal(function(x, axis), function(floats, axis))
        np.testing.assert_array_equal(function(x, axis, keepdims=True), function(floats, axis, keepdims=True))
    np.testing.assert_array_equal(x.argmax(axis), np.argmax(floats, axis))
    np.testing.assert_array_equal(x.argmin(axis), np.argmin(floats, axis))


@pytest.mark.parametrize("axis", [0, 1, -1, None, (0, 1), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_extremes(axis, keepdims, x):
    floats = x.to_float()
    for function, method, reduction_of in ((np.max, x.max, np.maximum), (np.min, x.min, np.minimum)):
        expected = function(floats, axis=axis, keepdims=keepdims)
        for result in (
            function(x, axis=axis, keepdims=keepdims), method(axis, keepdims=keepdims),
            reduction_of.reduce(x, axis=axis, keepdims=keepdims),
        ):  # fmt: skip
            assert isinstance(result, LNSTensor)
            np.testing.assert_array_equal(result.to_float(), expected)
        if isinstance(x.log_offset, int):
            assert function(x, axis=axis).log_offset == x.log_offset
    out = LNSTensor(np.zeros(np.shape(expected), np.uint8), lns8f3)
    if isinstance(x.log_offset, int) and x.log_offset == 0:
        assert np.amax(x, axis, out, keepdims) is out
        assert same(out, np.max(x, axis, keepdims=keepdims))


def test_sorting_is_stable():
    """Equal values at two scales, and NaN among them: they stay in their order."""
    offsets = np.random.default_rng(2).integers(0, 3, 999).astype(np.int32) * 8
    t = tensor(np.random.default_rng(3).choice([0, 64, 72, 80, 128, 200], 999).astype(np.uint8), log_offset=offsets)
    np.testing.assert_array_equal(np.argsort(t), np.argsort(t.to_float(), kind="stable"))
    same_scale = LNSTensor(t.codes, lns8f3)
    np.testing.assert_array_equal(np.argsort(same_scale), np.argsort(same_scale.to_float(), kind="stable"))


def test_extremes_of_nothing():
    for function in (np.max, np.min):
        with pytest.raises(ValueError, match=rf"^the {function.__name__[-3:]} of no elements is not defined$"):
            function(tensor(np.zeros((3, 0), np.uint8)), 1)
        assert function(tensor(np.zeros((0, 3), np.uint8)), 1).shape == (0,)


def test_sort_in_place():
    t = tensor(ALL)
    codes = t.codes
    assert t.copy().sort() is None
    old = t.copy()
    writable = tensor(ALL.copy(), log_offset=5)
    writable.sort()
    np.testing.assert_array_equal(writable.codes, arithmetic.sort(ALL, lns8f3))
    assert same(old, t)
    assert t.codes is codes
    rows = tensor([[72, 64], [200, 1]], log_offset=CHANNELS)
    rows.sort(1)
    assert rows.codes.tolist() == [[64, 72], [200, 1]]
    with pytest.raises(ValueError, match=r"^the scale changes along the axis: numpy.sort\(x\) gives a sorted copy"):
        rows.sort(0)


def test_clip(x, plain):
    floats = x.to_float()
    for low, high in ((-1.0, 2.0), (None, 2.0), (-1.0, None), (None, None)):
        for result in (np.clip(x, low, high), x.clip(low, high)):
            expected = x if low is None else np.maximum(x, low)
            expected = expected if high is None else np.minimum(expected, high)
            np.testing.assert_array_equal(result.to_float(), expected.to_float())
    np.testing.assert_array_equal(np.clip(plain, -1, 2).to_float(), np.clip(plain.to_float(), -1, 2))
    assert np.clip(floats, -1, 2).shape == (2, 3)
    low, high = plain[0], abs(plain[1])
    codes, offset = arithmetic.clip(x.codes, low.codes, high.codes, lns8f3, log_offset=x.log_offset)
    assert same(np.clip(x, low, high), tensor(codes, log_offset=offset))
    out = LNSTensor(np.zeros((2, 3), np.uint8), lns8f3, log_offset=CHANNELS)
    assert np.clip(x, low, high, out=out) is out
    np.testing.assert_array_equal(out.codes[0], arithmetic.clip(
        x.codes[0], low.codes, high.codes, lns8f3, log_offset=scales(x)[0].copy(), out_log_offset=3)[0])  # fmt: skip
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        assert same(np.clip(x, min=low, max=high), np.clip(x, low, high))


def test_unique_and_searchsorted():
    t = tensor([72, 64, 128, 72, 0, 200, 128, 64])
    floats = t.to_float()
    np.testing.assert_array_equal(np.unique(t).to_float(), np.unique(floats))
    for ours, theirs in zip(np.unique(t, True, True, True), np.unique(floats, True, True, True), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), theirs)
    mixed = np.unique(tensor([64, 72], log_offset=np.array([8, 0])))  # 2 at two scales
    assert mixed.tolist() == [2.0]
    keys = np.sort(t)
    for side in ("left", "right"):
        for v in (t, 1.0, 0.3, -7.0, float("nan"), t[0]):
            wanted = np.asarray(v) if isinstance(v, LNSTensor) else v
            np.testing.assert_array_equal(
                np.searchsorted(keys, v, side), np.searchsorted(np.sort(floats), wanted, side)
            )
    for axis in (0, 1):
        with pytest.raises(TypeError, match=r"^numpy.unique of LNSTensors takes no axis=: ravel first$"):
            np.unique(t, axis=axis)


def test_what_is_not_zero(x):
    floats = x.to_float()
    for function in (np.nonzero, np.flatnonzero, np.argwhere, np.count_nonzero, np.any, np.all):
        np.testing.assert_array_equal(function(x), function(floats))
    for function in (np.count_nonzero, np.any, np.all):
        np.testing.assert_array_equal(function(x, axis=0, keepdims=True), function(floats, axis=0, keepdims=True))


def test_equal_and_close(x, plain):
    number = x[:, 1:]
    assert np.array_equal(number[:1], number[:1].copy())
    assert not np.array_equal(x, x)  # NaN
    assert np.array_equal(x, x, equal_nan=True)
    assert not np.array_equal(x, x[0])
    assert np.array_equal(tensor([64], log_offset=8), tensor([72]))
    with pytest.raises(TypeError, match=r"^array_equal of LNSTensor and ndarray"):
        np.array_equal(plain, VALUES)
    floats = x.to_float()
    assert np.allclose(x, floats, equal_nan=True)
    assert np.allclose(floats * (1 + 1e-7), x, equal_nan=True)
    assert not np.allclose(x, floats)
    np.testing.assert_array_equal(np.isclose(x, plain, 0.1), np.isclose(floats, plain.to_float(), 0.1))


def test_likes(x, plain):
    for function, value in ((np.zeros_like, 0.0), (np.empty_like, 0.0)):
        t = function(x)
        assert (t.shape, t.fmt, t.tolist()) == (x.shape, x.fmt, [[value] * 3] * 2)
        np.testing.assert_array_equal(scales(t), scales(x))
    assert np.ones_like(plain).tolist() == [[1.0] * 3] * 2
    assert np.full_like(plain, -0.5).tolist() == [[-0.5] * 3] * 2
    assert np.full_like(plain, plain[0]).codes.tolist() == [plain.codes[0].tolist()] * 2
    assert np.zeros_like(plain, shape=(5,)).shape == np.ones_like(plain, shape=5).shape == (5,)
    with pytest.raises(TypeError, match=r"^numpy.zeros_like of LNSTensors takes no dtype=: a tensor has a format"):
        np.zeros_like(plain, dtype="float32")
    far = tensor([64], log_offset=1000)
    with pytest.raises(ValueError, match=r"^1 is no number of lns8f3 at log_offset 1000: round it with"):
        np.ones_like(far)
    assert (np.shape(x), np.ndim(x), np.size(x), np.size(x, 1)) == ((2, 3), 2, 6, 3)


# -------------------------------------------------------------------------------------------------- sums and products


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
@pytest.mark.parametrize("name", ["sum", "mean", "prod"])
def test_reductions_are_those_of_reduction(name, axis, x):
    t = np.where(x == x, x, 1)
    function = getattr(reduction, name)
    for keepdims in (False, True):
        codes, offset = function(t.codes, t.fmt, axis=axis, keepdims=keepdims, log_offset=t.log_offset)
        expected = LNSTensor(codes, t.fmt, log_offset=offset)
        assert same(getattr(np, name)(t, axis=axis, keepdims=keepdims), expected)
        assert same(getattr(t, name)(axis, keepdims=keepdims), expected)
        if name != "mean":
            ufunc = np.add if name == "sum" else np.multiply
            assert same(ufunc.reduce(t, axis=axis, keepdims=keepdims), expected)
            assert same(ufunc.reduce(t), getattr(np, name)(t, 0))
    out = LNSTensor(np.zeros(3, np.uint16), lns16f10, log_offset=np.array([0, -500, 900]))
    assert getattr(np, name)(t, 0, out=out) is out
    for i, offset in enumerate((0, -500, 900)):
        codes, _ = function(t.codes, t.fmt, axis=0, log_offset=t.log_offset, out_format=lns16f10, out_log_offset=offset)
        assert out.codes[i] == codes[i]


def test_options_of_the_methods(plain):
    t = abs(np.where(plain == plain, plain, 1))
    for options in ({"accumulator": "lns16f10"}, {"accumulator": lns16f10, "order": "pairwise"},
                    {"accumulator": "float32"}, {"out_format": lns16f10},
                    {"rounding": "up", "out_log_offset": 5}):  # fmt: skip
        codes, offset = reduction.sum(t.codes, t.fmt, **options)
        assert same(t.sum(**options), LNSTensor(codes, options.get("out_format", t.fmt), log_offset=offset))
        codes, offset = reduction.matmul(t.codes, t.codes.T, t.fmt, **options)
        expected = LNSTensor(codes, options.get("out_format", t.fmt), log_offset=offset)
        assert same(t.matmul(t.T, **options), expected)
        assert same(t.dot(t.T, **options), expected)
    bits = np.arange(6, dtype=np.uint32).reshape(2, 3) << 29
    for name in ("add", "subtract", "multiply", "divide"):
        for options in (
            {"rounding": "down"}, {"rounding": "stochastic_value", "random_bits": bits}, {"overflow": "nan"},
            {"out_format": lns16f10}, {"out_format": "lns16f10", "out_log_offset": 3}, {"out_log_offset": "fit"},
        ):  # fmt: skip
            own = {**options, "out_format": lns16f10} if "out_format" in options else options
            codes, offset = getattr(arithmetic, name)(t.codes, t.codes[::-1], t.fmt, **own)
            assert same(
                getattr(t, name)(t[::-1], **options), LNSTensor(codes, own.get("out_format", t.fmt), log_offset=offset)
            )
    for name in ("sqrt", "reciprocal", "square", "exp", "exp2", "log", "log2"):
        codes, offset = getattr(arithmetic, name)(t.codes, t.fmt, rounding="up", out_log_offset=2)
        assert same(getattr(t, name)(rounding="up", out_log_offset=2), tensor(codes, log_offset=offset))
    codes, offset = arithmetic.fma(t.codes, t.codes, t.codes[0], t.fmt, rounding="down")
    assert same(t.fma(t, t[0], rounding="down"), tensor(codes, log_offset=offset))
    assert same(t.minimum(t[0]), np.minimum(t, t[0]))
    assert same(
        t.maximum(1, out_log_offset=9),
        tensor(arithmetic.maximum(t.codes, 64, t.fmt, out_log_offset=9)[0], log_offset=9),
    )
    codes, offset = arithmetic.power(t.codes, Fraction(2, 3), t.fmt, rounding="up")
    assert same(t.power(Fraction(2, 3), rounding="up"), tensor(codes, log_offset=offset))
    assert t.ulp_distance(t[0]).tolist() == arithmetic.ulp_distance(t.codes, t.codes[0], t.fmt).tolist()
    with pytest.raises(ValueError, match=r"^ulp_distance counts the codes of one scale"):
        t.ulp_distance(t * tensor(64, log_offset=2))
    with pytest.raises(TypeError, match="is no argument of this operation"):
        t.add(t, dtype="float32")


def test_mixed_formats_need_out_format(plain):
    other = LNSTensor.from_float([1.0, 1.5, 3.0], lns16f10, log_offset=4)
    codes, offset = arithmetic.add(
        plain.codes, other.codes, lns8f3, b_format=lns16f10, b_log_offset=4, out_format=lns8f5
    )  # fmt: skip
    assert same(plain.add(other, out_format=lns8f5), LNSTensor(codes, lns8f5, log_offset=offset))
    out = LNSTensor(np.zeros((2, 3), np.uint8), lns8f5, log_offset=offset)
    assert same(np.add(plain, other, out=out), LNSTensor(codes, lns8f5, log_offset=offset))
    for call in (lambda: np.add(plain, other), lambda: np.matmul(plain, other), lambda: plain.fma(plain, other)):
        with pytest.raises(
            TypeError,
            match=r"of lns8f3 and lns16f10: bring both to one format with astype or .*convert, or name out_format$",
        ):
            call()
    for call in (
        lambda: np.maximum(plain, other), lambda: np.where(True, plain, other), lambda: np.copysign(plain, other),
        lambda: np.nextafter(plain, other), lambda: np.searchsorted(plain[0], other),
    ):  # fmt: skip
        with pytest.raises(
            TypeError, match=r"of lns8f3 and lns16f10: bring both to one format with astype or lnsnum.convert$"
        ):
            call()


def test_power(x):
    codes, offset = arithmetic.power(x.codes, 3, x.fmt, log_offset=x.log_offset)
    for exponent in (3, np.int64(3), Fraction(3), 3.0, np.float32(3)):
        assert same(x**exponent, tensor(codes, log_offset=offset))
        assert same(np.power(x, exponent), tensor(codes, log_offset=offset))
    assert same(x**0.5, np.sqrt(x))
    assert same(x ** Fraction(1, 2), np.sqrt(x))
    assert same(x**x, np.float_power(x, x))
    assert same(np.power(x, x), np.float_power(x, x))
    assert same(np.power(2, x), np.float_power(2, x))
    for exponent, instead in (
        (1 / 3, r"Fraction\(1, 3\)"), (np.float32(0.1), r"Fraction\(1, 10\)"), (-2 / 3, r"Fraction\(-2, 3\)"),
        (1e300, "a fraction"), (1e-300, "a fraction"), (float("nan"), "a fraction"), (float("inf"), "a fraction"),
    ):  # fmt: skip
        with pytest.raises(
            ValueError,
            match=r"^exponent=.* is out of range: p/q with \|p\| at most 2\^20 and q at most 1024, and a float is the "
            rf"fraction that it is, rounded or not: give {instead}, or a tensor of exponents$",
        ):
            _ = x**exponent
    with pytest.raises(TypeError, match=r"^power of LNSTensor and ndarray: give one integer or Fraction, or a tensor$"):
        _ = x ** np.arange(3)
    with pytest.raises(TypeError, match=r"^exponent=True is a bool"):
        _ = x**True


DRAW = np.random.default_rng(0)


@pytest.mark.parametrize("offset", [0, 6, "rows"])
def test_products(offset):
    def draw(*shape):
        o = np.arange(shape[0], dtype=np.int32).reshape(-1, *[1] * (len(shape) - 1)) if offset == "rows" else offset
        return LNSTensor.from_float(DRAW.normal(size=shape), lns8f3, log_offset=o)

    def close(ours, theirs):
        assert isinstance(ours, LNSTensor)
        assert ours.shape == theirs.shape
        floats = ours.to_float()
        np.testing.assert_array_less(abs(floats - theirs), 0.047 * abs(theirs) + 0.0043)  # a step, the least

    a, b, v, w = draw(3, 4), draw(4, 5), draw(4), draw(4)
    stack = draw(2, 4, 3)
    for function, x, y in (
        (np.matmul, a, b), (np.dot, a, b), (np.matmul, a, v), (np.dot, v, b), (np.dot, v, w), (np.vdot, v, w),
        (np.inner, v, w), (np.inner, a, b.T), (np.outer, v, w), (np.tensordot, a, stack), (np.matmul, stack, a),
        (np.dot, a, stack), (np.inner, a, stack.swapaxes(1, 2)), (np.vdot, a, a),
    ):  # fmt: skip
        if function is np.tensordot:
            for axes in (([1], [1]), ([0, 1], [2, 1]), 0, (1, 1)):
                close(np.tensordot(x, y, axes), np.asarray(np.tensordot(x.to_float(), y.to_float(), axes)))
            continue
        close(function(x, y), np.asarray(function(x.to_float(), y.to_float())))
    codes, out_offset = reduction.matmul(a.codes, b.codes, lns8f3, a_log_offset=a.log_offset, b_log_offset=b.log_offset)
    for result in (a @ b, np.matmul(a, b), np.dot(a, b), a.matmul(b), a.dot(b), np.tensordot(a, b, 1)):
        assert same(result, tensor(codes, log_offset=out_offset))
    assert same(np.outer(v, w), np.multiply(v[:, None], w))
    assert same(np.dot(v, 2), v * 2)
    assert same(np.trace(a), np.sum(np.diagonal(a)))
    z = LNSTensor(np.zeros((3, 5), np.uint16), lns16f10, log_offset=np.array([[0], [2], [4]]))
    for function in (np.matmul, np.dot):
        assert function(a, b, out=z) is z
        for row, o in enumerate((0, 2, 4)):
            codes, _ = reduction.matmul(
                a.codes, b.codes, lns8f3, a_log_offset=a.log_offset, b_log_offset=b.log_offset,
                out_format=lns16f10, out_log_offset=o,
            )  # fmt: skip
            np.testing.assert_array_equal(z.codes[row], codes[row])


# ------------------------------------------------------------------------------------------------------------ refusals

TO_FLOAT = "give it floats, by to_float()"
REFUSED = {
    "average": np.average, "nanmean": np.nanmean,
    "linalg.norm": lambda x: np.linalg.norm(x, 2), "linalg.inv": np.linalg.inv, "linalg.svd": np.linalg.svd,
    "fft.fft": np.fft.fft,
    "floor": np.floor, "ceil": np.ceil, "rint": np.rint, "sin": np.sin,
    "tan": np.tan, "arctanh": np.arctanh, "logaddexp2": lambda x: np.logaddexp2(x, x), "modf": np.modf,
    "frexp": np.frexp,
    "remainder": lambda x: np.mod(x, x), "divmod": lambda x: np.divmod(x, x),
    "floor_divide": lambda x: np.floor_divide(x, x), "fmin": lambda x: np.fmin(x, x), "fmax": lambda x: np.fmax(x, x),
    "left_shift": lambda x: np.left_shift(x, 1), "logical_not": np.logical_not, "invert": np.invert,
    "add.accumulate": np.add.accumulate, "add.outer": lambda x: np.add.outer(x, x),
    "subtract.reduce": np.subtract.reduce,
    "add.at": lambda x: np.add.at(x, [0], x[0]), "add.reduceat": lambda x: np.add.reduceat(x, [0]), "round": np.round,
    "real": np.real, "nan_to_num": np.nan_to_num, "nansum": np.nansum, "pad": lambda x: np.pad(x, 1, "mean"),
    "put": lambda x: np.put(x, [0], [1]), "partition": lambda x: np.partition(x, 1),
    "select": lambda x: np.select([x > 0], [x]),
    "apply_along_axis": lambda x: np.apply_along_axis(np.sum, 0, x), "result_type": np.result_type,
    "interp": lambda x: np.interp(x, x, x),
    "savetxt": lambda x: np.savetxt("f", x), "convolve": lambda x: np.convolve(x[0], x[0]),
    "kron": lambda x: np.kron(x, x),
    "histogram": np.histogram, "cov": np.cov, "array2string": np.array2string,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name, plain):
    with pytest.raises(TypeError, match=rf"^numpy\.{re.escape(name)} does not take LNSTensors: \w.*$") as caught:
        REFUSED[name](plain)
    assert TO_FLOAT in str(caught.value) or name in ("fmin", "fmax", "left_shift", "logical_not", "invert")


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed], ids=lambda f: f.__name__)
def test_numpys_files_are_refused_for_ours(save, plain, tmp_path):
    with pytest.raises(
        TypeError,
        match=rf"^numpy\.{save.__name__} does not take LNSTensors: lnsnum\.save_weights keeps the codes, their format "
        r"and scale; or give it floats, by to_float\(\)$",
    ):
        save(tmp_path / "x", plain)
    assert not list(tmp_path.iterdir())


def test_what_decodes_unasked_is_what_the_page_says(x):
    """Functions that make an array of whatever they are given; and what the page tells to write instead."""
    floats = x.to_float()
    masked = np.ma.masked_array(np.ones((2, 3)), [[False, True, False]] * 2)
    with np.errstate(invalid="ignore"):
        for array, expected in (
            (np.sum([x, x], 0), floats + floats), (np.concatenate([[x], [x]]), np.array([floats, floats])),
            (np.random.default_rng(1).permutation(x), np.random.default_rng(1).permutation(floats)),
            (np.random.default_rng(1).choice(x, 5), np.random.default_rng(1).choice(floats, 5)),
            (np.ma.array(x), floats), (masked + x, masked + floats), (np.r_[x, x], np.r_[floats, floats]),
            (np.full(3, x[0, 0]), np.full(3, floats[0, 0])), (np.ones(2).dot(x), np.ones(2).dot(floats)),
        ):  # fmt: skip
            assert isinstance(array, np.ndarray)
            assert array.dtype == np.float64
            np.testing.assert_array_equal(array, expected)
    assert (masked + x).mask.tolist() == masked.mask.tolist()
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_array_equal(x[order].to_float(), np.random.default_rng(1).permutation(floats))
    np.testing.assert_array_equal(x[~masked.mask].to_float(), floats[~masked.mask])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: np.sum(x, dtype="float32"), r"^numpy.sum of LNSTensors takes no dtype=: a tensor has a format"),
        (lambda x: np.sum(x, 0, np.float32), r"^numpy.sum of LNSTensors takes no dtype="),
        (lambda x: np.sum(x, initial=1), r"^numpy.sum of LNSTensors takes no initial=: add, multiply or compare"),
        (lambda x: np.sum(x, where=x > 0), r"^numpy.sum of LNSTensors takes no where=: put a neutral number"),
        (lambda x: np.max(x, initial=1), r"^numpy.max of LNSTensors takes no initial="),
        (lambda x: np.mean(x, where=x > 0), r"^numpy.mean of LNSTensors takes no where="),
        (lambda x: np.prod(x, dtype=int), r"^numpy.prod of LNSTensors takes no dtype="),
        (lambda x: np.add.reduce(x, dtype="f4"), r"^numpy.sum of LNSTensors takes no dtype="),
        (lambda x: np.sort(x, order="a"), r"^numpy.sort of LNSTensors takes no order=: a tensor has no fields$"),
        (lambda x: np.add(x, x, dtype="f4"), r"^numpy.add of LNSTensors takes out= and where=, not dtype="),
        (lambda x: np.add(x, x, casting="no"), r"^numpy.add of LNSTensors takes out= and where=, not casting="),
        (lambda x: np.add(x, x, out=np.ones((2, 3))), r"^numpy.add of LNSTensors writes into an LNSTensor, not into"),
        (lambda x: np.sum(x, out=np.ones(())), r"^sum of LNSTensors writes into an LNSTensor, not into a ndarray$"),
        (lambda x: np.add(VALUES, VALUES, out=x), r"^numpy.add of ndarray and ndarray into an LNSTensor: make the op"),
        (lambda x: np.add(VALUES, x), r"^add of LNSTensor and ndarray: make it one with LNSTensor.from_float\(x, 'lns"),
        (lambda x: np.matmul(VALUES, x.T), r"^matmul of LNSTensor and ndarray"),
        (lambda x: np.where(x > 0, x, VALUES), r"^where of LNSTensor and ndarray"),
        (lambda x: np.clip(x, VALUES, None), r"^clip of LNSTensor and ndarray"),
        (lambda x: np.clip(x, 0, 1, dtype="f4"), r"^numpy.clip of LNSTensors takes out=, not dtype="),
        (lambda x: x.astype("int32"), r"^astype\('int32'\): give a format, or float64, float32"),
        (lambda x: x.astype("float7"), r"^astype\('float7'\): give a format, or float64, float32"),
        (lambda x: x.astype(None), r"^astype\(None\): give a format, or float64, float32"),
        (lambda x: x.astype("float32", rounding="up"), r"^astype\('float32'\): give a format"),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(call, message, plain):
    with pytest.raises(TypeError, match=message):
        call(plain)


def test_nothing_makes_an_array_of_objects(x):
    """Whatever NumPy's own functions make of a tensor by __array__ is floats: decoding, never objects."""
    for array in (np.asarray(x), np.array(x), np.array([x, x]), np.ascontiguousarray(x)):
        assert array.dtype == np.float64
    assert np.asarray(list(x[0])).dtype == np.float64
    floats = np.zeros(3)
    floats[:] = x[0]
    np.testing.assert_array_equal(floats, x.to_float()[0])


# ----------------------------------------------------------------------------------------------- astype, copies, tables


@pytest.mark.parametrize("to", [lns8f5, lns16f10, LNSFormat(12, 4, base=3.0)], ids=str)
def test_astype(to, x):
    for fmt in (to, to.name):
        if np.any(x.log_offset):
            back = x.astype(fmt)
            assert back.log_offset != 0
        for offset in (0, 5):
            codes = convert(x.codes, x.fmt, to, log_offset=x.log_offset, out_log_offset=offset, rounding="up")
            assert same(x.astype(fmt, out_log_offset=offset, rounding="up"), LNSTensor(codes, to, log_offset=offset))
    for dtype in ("float64", "float32", "float16", "bfloat16", np.float32, np.dtype("float16")):
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
        np.testing.assert_array_equal(x.astype(dtype), x.to_float(name))
    if hasattr(np, "astype"):
        assert same(np.astype(x, lns16f10), x.astype(lns16f10))


def test_asarray_of_bfloat16():
    floats = np.asarray(tensor(ALL), ml_dtypes.bfloat16)
    assert floats.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(floats.view(np.uint16), tensor(ALL).to_float("bfloat16"))
    for dtype in (int, bool, object, "U4", np.uint8):
        with pytest.raises(TypeError, match=r"^an LNSTensor becomes an array of floats, not of .*: round them, by to_"):
            np.asarray(tensor(ALL), dtype)
    assert np.asarray(tensor(ALL), ">f4").dtype == ">f4"


def test_copies_and_pickles_of_views(x):
    for view in (x, x[1:], x.T, x[:, ::2], x[0, 0], np.broadcast_to(x, (2, 2, 3)), x[:0]):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            assert same(pickle.loads(pickle.dumps(view, protocol)), view)
        assert same(copy.copy(view), view)
        assert same(copy.deepcopy([view, view])[1], view)
        assert copy.copy(view).codes.flags.writeable


def test_the_scales_of_a_tensor_are_read_only(x):
    for t in (x, x[1:], x * 1, np.concatenate([x, x]), pickle.loads(pickle.dumps(x)), np.zeros_like(x)):
        if not isinstance(t.log_offset, int):
            with pytest.raises(ValueError, match="read-only"):
                t.log_offset[...] = 0


def test_the_page_lists_what_is_there():
    """docs/numpy.md names every function of the tables, and no other."""
    page = (Path(lnsnum.__file__).parent.parent / "docs" / "numpy.md").read_text()
    table = page[page.index("<!-- functions -->") : page.index("<!-- end -->")]
    listed = set(re.findall(r"`np\.(\w+)`", table))
    ours = {f.__name__ for f in (*FUNCTIONS, *SUPPORTED)}
    aliases = {"max": "amax", "min": "amin"}
    listed |= set(re.findall(r"`np\.linalg\.(\w+)`", table))
    there = {getattr(np, n, getattr(np.linalg, n, None)) for n in listed - {"linalg"}} - {None}  # NumPy 2.0 lacks some
    there = {f.__name__ for f in there}
    assert there - {*aliases.values()} == ours - {*aliases.values()}
    assert {f.__name__ for f in REDUCED} == set(re.findall(r"`np\.(\w+)\.reduce`", page))


def with_axes():
    """Of the table, the functions that take an axis, and the argument that names it."""
    for function, ours in FUNCTIONS.items():
        for argument in AXES & set(signature_of(function, ours).parameters):
            yield pytest.param(function, argument, id=f"{function.__name__}-{argument}")


@pytest.mark.parametrize(("function", "argument"), sorted(with_axes(), key=lambda param: param.id))
@pytest.mark.parametrize("axis", [1.0, "a", (0, 1.5)])
def test_what_names_no_axis_is_refused(function, argument, axis):
    x = tensor(ALL[:6].reshape(2, 3))
    required = [
        parameter
        for parameter in signature_of(function, FUNCTIONS[function]).parameters.values()
        if parameter.default is parameter.empty and parameter.name not in AXES
    ]
    arguments = [x] + [0] * (len(required) - 1)
    others = {name: 0 for name in AXES - {argument} if name in signature_of(function, FUNCTIONS[function]).parameters}
    if {"source", "destination"} & others.keys() or argument in ("source", "destination"):
        others |= {"source": 0, "destination": 0}
    with pytest.raises(TypeError, match=rf"^numpy\.\S+ takes no {argument}={re.escape(repr(axis))}: give an integer"):
        function(*arguments, **(others | {argument: axis}))


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "var", "std", "cumsum", "max", "min"])
def test_what_names_no_axis_is_refused_by_methods(name):
    with pytest.raises(TypeError, match=r"axis=1\.0"):
        getattr(tensor(ALL[:6].reshape(2, 3)), name)(axis=1.0)
