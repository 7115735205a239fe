"""Scales of groups: each element as it is with its offset written out, and by the oracle.

What operations do with an offset for each element is held against one scale in test_scales.py; here an array of those,
made by the formula offsets[..., k // group_size], is the expected side.
"""

import copy
import itertools
import pickle
import re
import tempfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import (
    GroupOffsets,
    LNSFormat,
    LNSTensor,
    arithmetic,
    convert,
    decode,
    encode,
    fit_log_offset,
    lns4f1,
    lns6f2,
    lns8f3,
    lns8f5,
    lns16f10,
    lns32f23,
    random_bits,
    reduction,
    reference,
    strategies,
    weight_only_matmul,
)
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.gaussian import Mitchell
from lnsnum.kernels.codes import check_offsets, of_elements, same_scale
from lnsnum.kernels.rounding import MODES
from lnsnum.kernels.scales import Scales, spread
from lnsnum.weight_file import load_weights, save_weights

FORMATS = [lns4f1, lns8f3, lns8f5, LNSFormat(8, 3, base=3.0), lns16f10, LNSFormat(16, 4, base=1.5), lns32f23]
SHAPES = {"whole": (40, 64), "rest": (40, 70), "one row": (1, 300), "three axes": (3, 5, 100)}
"""With groups of 16 and of 32 that divide the last axis, and that do not."""


def written_out(groups, shape):
    """The offset of each element, by the formula alone."""
    axis = len(shape) + groups.axis
    own = groups.offsets.reshape((1,) * (len(shape) - groups.offsets.ndim) + groups.offsets.shape)
    places = [np.arange(n) // (groups.group_size if one == axis else 1) for one, n in enumerate(shape)]
    return own[np.ix_(*(np.minimum(place, n - 1) for place, n in zip(places, own.shape, strict=True)))]


def some_groups(rng, shape, size, axis=-1, most=60):
    """Offsets for the groups of an array, of few values as those of weights are."""
    own = list(shape)
    own[axis] = -(-shape[axis] // size)
    return GroupOffsets(rng.integers(-most, most + 1, own), size, axis=axis)


def floats(rng, fmt, shape):
    """Numbers across and beyond the range of a format, and special ones."""
    octaves = min((fmt.max_log + 40) / fmt.codes_per_octave, 120)
    x = (rng.normal(size=shape) * np.exp2(rng.uniform(-octaves, octaves, shape))).astype(np.float32)
    x.flat[:7] = 0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40
    return x


def codes_of(rng, fmt, shape):
    """Any codes, zero and NaN among them."""
    codes = rng.integers(0, 1 << fmt.bits, shape).astype(fmt.dtype)
    codes.flat[:3] = 0, fmt.nan_code, fmt.max_magnitude
    return codes


# ----------------------------------------------------------------------------------------------------------- the object


def test_it_is_what_it_was_given():
    given_offsets = np.array([[3, -4, 5]], np.int64)
    groups = GroupOffsets(given_offsets, 32)
    given_offsets[:] = 0
    assert (groups.offsets.tolist(), groups.offsets.dtype) == ([[3, -4, 5]], np.int32)
    assert (groups.group_size, groups.axis) == (32, -1)
    assert not groups.offsets.flags.writeable
    for again in (pickle.loads(pickle.dumps(groups)), copy.deepcopy(groups), copy.copy(groups)):
        assert again == groups
    turned = GroupOffsets([[3], [4]], 16, axis=-2)
    names = {"GroupOffsets": GroupOffsets, "array": np.array, "int32": np.int32}
    for one in (groups, turned):
        assert eval(repr(one), names) == one
    assert groups != turned
    assert groups != GroupOffsets([[3, -4, 5]], 64)
    assert groups != [[3, -4, 5]]


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (([1.5, 2.0], 32), TypeError, "offsets is an array of float64: give integers, whole code steps"),
        (([True, False], 32), TypeError, "offsets is an array of bool: give integers, whole code steps"),
        ((3, 32), ValueError, "offsets is one number: give an array with one for each group, or log_offset an integer"),
        (([0, 2**30 + 1], 32), ValueError, "offsets=1073741825 is too large: at most 2^30 in size"),
        (([0, 1], 15), ValueError, "group_size=15 is out of range: a group has 16 to 256 elements"),
        (([0, 1], 257), ValueError, "group_size=257 is out of range: a group has 16 to 256 elements"),
        (([0, 1], -32), ValueError, "group_size=-32 is out of range: a group has 16 to 256 elements"),
        (([0, 1], 32.0), TypeError, "group_size=32.0 is a float: give an integer, 16 to 256"),
        (([0, 1], True), TypeError, "group_size=True is a bool: give an integer, 16 to 256"),
        (([0, 1], 32, 0), ValueError,
         "axis=0 is out of range: offsets of shape (2,) have the axes -1 to -1, counted from the last"),
        (([0, 1], 32, -2), ValueError,
         "axis=-2 is out of range: offsets of shape (2,) have the axes -1 to -1, counted from the last"),
        (([0, 1], 32, "last"), TypeError, "axis='last' is a str: give an integer, -1 for the last axis"),
    ],
)  # fmt: skip
def test_what_no_groups_are(arguments, error, sentence):
    offsets, size, *axis = arguments
    with pytest.raises(error) as caught:
        GroupOffsets(offsets, size, **({"axis": axis[0]} if axis else {}))
    assert str(caught.value) == sentence


def test_groups_that_do_not_fit_the_codes():
    codes = np.zeros((4, 70), np.uint8)
    for offsets, axis, fit in (
        ((4, 4), -1, (4, 5)),
        ((3, 5), -1, (4, 5)),
        ((2, 4, 5), -1, None),
        ((2, 1), -2, (1, 70)),
    ):
        groups = GroupOffsets(np.zeros(offsets, int), 16, axis=axis)
        instead = "it has fewer axes" if fit is None else f"give offsets that broadcast to {fit}"
        sentence = (
            f"GroupOffsets of shape {offsets} with groups of 16 along axis {axis} do not fit the codes' shape "
            f"(4, 70): {instead}"
        )
        for call in (
            lambda g=groups: decode(codes, lns8f3, log_offset=g),
            lambda g=groups: encode(np.zeros((4, 70)), lns8f3, log_offset=g),
            lambda g=groups: arithmetic.add(codes, codes, lns8f3, b_log_offset=g),
            lambda g=groups: reduction.sum(codes, lns8f3, log_offset=g),
            lambda g=groups: convert(codes, lns8f3, lns16f10, log_offset=g),
            lambda g=groups: weight_only_matmul(np.zeros((2, 70), np.float32), codes, lns8f3, log_offset=g),
        ):
            with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
                call()


def test_it_does_not_become_an_array_by_itself():
    groups = GroupOffsets([[1, 2]], 16)
    for call in (lambda: np.asarray(groups), lambda: np.broadcast_to(groups, (3, 32)), lambda: np.any(groups)):
        with pytest.raises(TypeError, match=r"^GroupOffsets are no array, as each belongs to a group: "):
            call()


def test_one_group_is_a_channel():
    groups = GroupOffsets([[3], [5]], 32)
    offsets = check_offsets(groups, (2, 20))
    assert (type(offsets), offsets.tolist()) == (np.ndarray, [[3], [5]])
    assert check_offsets(GroupOffsets([[3, 4], [5, 6]], 32), (2, 33)) == GroupOffsets([[3, 4], [5, 6]], 32)


# ---------------------------------------------------------------------------------------------------- how elements walk


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), max_size=2), st.integers(16, 90), st.lists(st.integers(1, 4), max_size=2), st.data())
@example([2], 40, [3], None)
@example([], 33, [], None)
def test_elements_find_their_groups(before, length, after, data):
    """Along any axis, with offsets of all the others or of some, from any element to any other."""
    draw = (lambda strategy, default: default) if data is None else lambda strategy, _: data.draw(strategy)
    shape = (*before, length, *after)
    size, axis = draw(st.integers(16, 40), 16), -1 - len(after)
    own = [draw(st.sampled_from([1, n]), n) for n in shape]
    own[axis] = -(-length // size)
    groups = GroupOffsets(np.arange(np.prod(own)).reshape(own), size, axis=axis)
    each = written_out(groups, shape).reshape(-1)
    assert np.array_equal(groups.of_elements(shape).reshape(-1), each)
    scale = Scales.of(groups, shape)
    if own[axis] > 1:  # never one for each element
        assert scale.values.size <= own[axis] * np.prod(before, dtype=int) * np.prod(after, dtype=int)
    assert scale.ends == (each.min(), each.max())
    assert np.array_equal(scale.at(np.arange(each.size)), each)
    begin = draw(st.integers(0, each.size), 7)
    end = draw(st.integers(begin, each.size), each.size - 2)
    for part in (scale.each(begin, end), scale.part(begin, end).at(np.arange(end - begin))):
        assert np.array_equal(np.broadcast_to(part, end - begin), each[begin:end])
    out = np.empty(end - begin, np.int16)
    spread(scale.values, scale.walk, begin, out)
    assert np.array_equal(out, each[begin:end])


@pytest.mark.plain_python
def test_walks_in_plain_python():
    for shape, axis in (((3, 40), -1), ((40, 3), -2), ((2, 33, 3, 2), -3)):
        groups = some_groups(np.random.default_rng(0), shape, 16, axis)
        own = GroupOffsets(groups.offsets[..., :1], 16, axis=axis) if axis == -3 else groups
        each = written_out(own, shape).reshape(-1)
        for begin in range(0, each.size, 11):
            out = np.empty(each.size - begin, np.int64)
            scale = Scales.of(own, shape)
            spread(scale.values, scale.walk, begin, out)
            assert np.array_equal(out, each[begin:])


# ---------------------------------------------------------------------------------------------- conversions, arithmetic


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_encode_and_decode(fmt, shape):
    rng = np.random.default_rng(0)
    x, codes, bits = floats(rng, fmt, shape), codes_of(rng, fmt, shape), random_bits(shape, seed=1)
    for size, most in ((16, 60), (32, 20_000)):
        groups = some_groups(rng, shape, size, most=most)
        each = written_out(groups, shape)
        for rounding in MODES:
            for dtype in ("float32", "float64"):
                drawn = {"random_bits": bits} if rounding.startswith("stochastic") else {}
                found = encode(x.astype(dtype), fmt, rounding=rounding, log_offset=groups, **drawn)
                assert np.array_equal(found, encode(x.astype(dtype), fmt, rounding=rounding, log_offset=each, **drawn))
        assert np.array_equal(
            encode(x, fmt, rounding="stochastic_value", log_offset=groups, seed=4),
            encode(x, fmt, rounding="stochastic_value", log_offset=each, seed=4),
        )
        for dtype in ("float64", "float32", "float16", "bfloat16"):
            back, expected = (decode(codes, fmt, dtype, log_offset=offset) for offset in (groups, each))
            assert np.array_equal(back.view(np.uint8), expected.view(np.uint8))
        if most == 60:
            numbers = decode(codes, fmt, log_offset=groups)
            again = encode(numbers, fmt, log_offset=groups)
            assert np.array_equal(again, codes)


@pytest.mark.parametrize("fmt", [lns8f3, lns16f10], ids=str)
def test_hostile_strides(fmt):
    """Transposed, reversed, cut and repeated arrays, with groups along each axis."""
    rng = np.random.default_rng(1)
    whole = codes_of(rng, fmt, (80, 96))
    views = {
        "transposed": whole.T,
        "reversed": whole[::-1, ::-1],
        "cut": whole[1:70:3, 5:90],
        "repeated": np.broadcast_to(whole[0], (50, 96)),
        "three axes": whole.reshape(4, 20, 96).transpose(2, 0, 1)[::2],
    }
    for name, codes in views.items():
        for axis in range(-codes.ndim, 0):
            groups = some_groups(rng, codes.shape, 16, axis)
            each = written_out(groups, codes.shape)
            numbers = decode(codes, fmt, log_offset=groups)
            assert np.array_equal(numbers, decode(codes, fmt, log_offset=each), equal_nan=True), (name, axis)
            assert np.array_equal(encode(numbers, fmt, log_offset=groups), codes), (name, axis)
            found, at = arithmetic.multiply(codes, codes, fmt, a_log_offset=groups)
            expected, by = arithmetic.multiply(codes, codes, fmt, a_log_offset=each)
            assert (at, by) == (by, at), (name, axis)
            assert np.array_equal(found, expected), (name, axis)


def test_arrays_of_nothing_and_of_one_element():
    for shape, own in (((0, 64), (0, 2)), ((3, 0), (3, 0)), ((2, 0, 70), (2, 1, 3)), ((0,), (0,))):
        groups = GroupOffsets(np.zeros(own, int), 32)
        for fmt in (lns8f3, lns32f23):
            codes = np.empty(shape, fmt.dtype)
            assert decode(codes, fmt, log_offset=groups).shape == shape
            assert encode(np.empty(shape), fmt, log_offset=groups).shape == shape
            assert arithmetic.add(codes, codes, fmt, a_log_offset=groups)[0].shape == shape
    assert decode(np.array([64], np.uint8), lns8f3, log_offset=GroupOffsets([8], 16)).tolist() == [2.0]


OPERANDS = {
    "groups and one scale": (16, None),
    "one scale and groups": (None, 32),
    "alike": (16, 16),
    "of two sizes": (16, 48),
    "groups and rows": (32, "rows"),
    "columns and groups": ("columns", 32),
}


def scale_of(rng, what, shape):
    if what is None:
        return 5
    if isinstance(what, int):
        return some_groups(rng, shape, what)
    return rng.integers(-60, 61, (shape[0], 1) if what == "rows" else (1, shape[1])).astype(np.int32)


@pytest.mark.parametrize("which", OPERANDS.values(), ids=OPERANDS)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_arithmetic(fmt, which):
    rng = np.random.default_rng(2)
    for shape in ((40, 64), (40, 70)):
        a, b = codes_of(rng, fmt, shape), codes_of(rng, fmt, shape)
        scales = [scale_of(rng, what, shape) for what in which]
        plain = [written_out(s, shape) if isinstance(s, GroupOffsets) else s for s in scales]
        for name in ("multiply", "divide", "add", "subtract", "minimum", "maximum"):
            # of 32 bits any code may be there, and no scale holds the products of all
            for out in ({"out_log_offset": 3},) if fmt.bits == 32 else ({}, {"out_log_offset": 3}):
                function = getattr(arithmetic, name)
                found, at = function(a, b, fmt, a_log_offset=scales[0], b_log_offset=scales[1], **out)
                expected, by = function(a, b, fmt, a_log_offset=plain[0], b_log_offset=plain[1], **out)
                assert at == by, (name, out)
                assert np.array_equal(found, expected), (name, out)
        compared = [arithmetic.compare(a, b, fmt, a_log_offset=s[0], b_log_offset=s[1]) for s in (scales, plain)]
        assert np.array_equal(*compared)
        keys = [arithmetic.order_key(a, fmt, s[0]) for s in (scales, plain)]
        assert np.array_equal(*keys)


@pytest.mark.parametrize("fmt", [lns8f3, lns16f10, LNSFormat(8, 3, base=3.0)], ids=str)
def test_operations_of_one_array(fmt):
    rng = np.random.default_rng(3)
    shape = (20, 70)
    codes, groups = codes_of(rng, fmt, shape), some_groups(rng, shape, 32, most=20)
    each = written_out(groups, shape)
    for name in ("sqrt", "square", "reciprocal", "exp", "exp2", "log", "log2"):
        found, expected = (getattr(arithmetic, name)(codes, fmt, log_offset=o) for o in (groups, each))
        assert found[1] == expected[1], name
        assert np.array_equal(found[0], expected[0]), name
    wide = LNSFormat(24, fmt.fraction_bits + 4, base=fmt.base)
    assert np.array_equal(*(convert(codes, fmt, wide, log_offset=o) for o in (groups, each)))
    bounds = codes_of(rng, fmt, shape), codes_of(rng, fmt, shape)
    found, expected = (arithmetic.clip(codes, *bounds, fmt, log_offset=o, lower_log_offset=o) for o in (groups, each))
    assert (found[1], found[0].tolist()) == (expected[1], expected[0].tolist())
    found, expected = (arithmetic.fma(codes, *bounds, fmt, a_log_offset=o, c_log_offset=o) for o in (groups, each))
    assert (found[1], found[0].tolist()) == (expected[1], expected[0].tolist())
    moved = [arithmetic.nextafter(codes, bounds[0], fmt, a_log_offset=o, b_log_offset=-7) for o in (groups, each)]
    assert np.array_equal(*moved)


@pytest.mark.parametrize("accumulator", ["float64", "float32", "lns16f10"])
def test_sums_and_products(accumulator):
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 256, (6, 70)).astype(np.uint8) & 0x7F for _ in range(2))
    x, y = some_groups(rng, a.shape, 16, most=20), some_groups(rng, b.shape, 32, most=20)
    each_x, each_y = written_out(x, a.shape), written_out(y, b.shape)
    for axis in (None, 0, 1):
        for function in (reduction.sum, reduction.mean):
            found, expected = (
                function(a, lns8f3, axis=axis, accumulator=accumulator, log_offset=o) for o in (x, each_x)
            )
            assert (found[1], found[0].tolist()) == (expected[1], expected[0].tolist())
        found, expected = (reduction.prod(a, lns8f3, axis=axis, log_offset=o) for o in (x, each_x))
        assert (found[1], found[0].tolist()) == (expected[1], expected[0].tolist())
    turned = y.turned(2, (1, 0))
    assert turned.axis == -2
    found, expected = (
        reduction.matmul(a, b.T, lns8f3, accumulator=accumulator, a_log_offset=p, b_log_offset=q)
        for p, q in ((x, turned), (each_x, each_y.T))
    )
    assert (found[1], found[0].tolist()) == (expected[1], expected[0].tolist())


@pytest.mark.parametrize("fmt", [lns8f5, lns16f10, lns32f23], ids=str)
def test_weight_only_products(fmt):
    rng = np.random.default_rng(5)
    codes = codes_of(rng, fmt, (48, 100))
    codes[codes == fmt.nan_code] = 0
    for axis in (-1, -2):
        groups = some_groups(rng, codes.shape, 32, axis, most=int(fmt.codes_per_octave))
        each = written_out(groups, codes.shape)
        for transposed in (False, True):
            x = rng.normal(size=(3, codes.shape[0 if transposed else 1])).astype(np.float32)
            found, expected = (
                weight_only_matmul(x, codes, fmt, log_offset=o, transposed=transposed) for o in (groups, each)
            )
            assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([lns4f1, lns8f3, LNSFormat(8, 3, base=3.0), lns16f10]),
    st.sampled_from(["multiply", "divide", "add", "subtract"]),
    st.integers(17, 40),
    st.integers(0, 2**32 - 1),
)
def test_pairs_by_the_oracle(fmt, name, length, seed):
    """The two ends of each group and the middle, by the specification in integers."""
    rng = np.random.default_rng(seed)
    a, b = codes_of(rng, fmt, (2, length)), codes_of(rng, fmt, (2, length))
    most = 2 * int(fmt.codes_per_octave)
    x, y = some_groups(rng, a.shape, 16, most=most), some_groups(rng, b.shape, 17, most=most)
    found, _ = getattr(arithmetic, name)(a, b, fmt, a_log_offset=x, b_log_offset=y, out_log_offset=3)
    for i, k in ((0, 0), (0, 15), (1, 16), (1, 15), (0, length - 1)):
        expected = getattr(reference, name)(
            int(a[i, k]), int(b[i, k]), fmt,
            a_log_offset=int(x.offsets[i, k // 16]), b_log_offset=int(y.offsets[i, k // 17]), out_log_offset=3,
        )  # fmt: skip
        assert found[i, k] == expected, (i, k)


OF_ONE = {
    "sqrt": (arithmetic.sqrt, reference.sqrt),
    "square": (arithmetic.square, reference.square),
    "reciprocal": (arithmetic.reciprocal, reference.reciprocal),
    "power": (lambda a, fmt, **how: arithmetic.power(a, -3, fmt, **how),
              lambda a, fmt, **how: reference.power(a, -3, fmt, **how)),
    "convert": (lambda a, fmt, **how: (convert(a, fmt, LNSFormat(9, 2, base=fmt.base), **how), 3),
                lambda a, fmt, **how: reference.convert(a, fmt, LNSFormat(9, 2, base=fmt.base), **how)),
}  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([lns4f1, lns8f3, LNSFormat(8, 3, base=3.0), lns16f10]),
    st.sampled_from([*OF_ONE, "fma", "minimum", "maximum", "compare", "decode", "encode"]),
    st.integers(17, 40),
    st.integers(0, 2**32 - 1),
)
def test_other_operations_by_the_oracle(fmt, name, length, seed):
    rng = np.random.default_rng(seed)
    a, b, c = (codes_of(rng, fmt, (2, length)) for _ in range(3))
    most = 2 * int(fmt.codes_per_octave)
    x, y = some_groups(rng, a.shape, 16, most=most), some_groups(rng, b.shape, 17, most=most)
    numbers = decode(a, fmt, "float32") * np.float32(rng.uniform(0.5, 2.0))
    if name in OF_ONE:
        found, _ = OF_ONE[name][0](a, fmt, log_offset=x, out_log_offset=3)
    elif name == "fma":
        found, _ = arithmetic.fma(a, b, c, fmt, a_log_offset=x, c_log_offset=y, out_log_offset=3)
    elif name in ("decode", "encode"):
        found = decode(a, fmt, "float32", log_offset=x).view(np.uint32)
        found = encode(numbers, fmt, log_offset=x) if name == "encode" else found
    else:
        out = {} if name == "compare" else {"out_log_offset": 3}
        found = getattr(arithmetic, name)(a, b, fmt, a_log_offset=x, b_log_offset=y, **out)
        found = found if name == "compare" else found[0]
    for i, k in ((0, 0), (0, 15), (1, 16), (1, 15), (0, length - 1)):
        p, q = int(x.offsets[i, k // 16]), int(y.offsets[i, k // 17])
        of_a, of_b, of_c = int(a[i, k]), int(b[i, k]), int(c[i, k])
        if name in OF_ONE:
            expected = OF_ONE[name][1](of_a, fmt, log_offset=p, out_log_offset=3)
        elif name == "fma":
            expected = reference.fma(of_a, of_b, of_c, fmt, a_log_offset=p, c_log_offset=q, out_log_offset=3)
        elif name == "decode":
            expected = reference.decode(of_a, fmt, "float32", log_offset=p)
        elif name == "encode":
            expected = reference.encode(float(numbers[i, k]), fmt, log_offset=p)
        elif name == "compare":
            relation = reference.compare(of_a, of_b, fmt, a_log_offset=p, b_log_offset=q)
            expected = 2 if relation is None else relation
        else:
            expected = getattr(reference, name)(of_a, of_b, fmt, a_log_offset=p, b_log_offset=q, out_log_offset=3)
        assert found[i, k] == expected, (i, k)


# ------------------------------------------------------------------------------------------------- there and back again


def seen_from_afar(array, word):
    """An array with the same elements in memory of another order, or with steps that are hostile; and that, undone."""
    order = tuple(np.random.default_rng(word).permutation(array.ndim))
    turned = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    if word & 1 and array.ndim:
        wide = np.zeros((*turned.shape[:-1], 3 * turned.shape[-1]), turned.dtype)
        wide[..., ::-3] = turned
        turned = wide[..., ::-3]
    return turned


@st.composite
def scaled_codes(draw):
    """Tensors of every granularity, format, base and shape, whose codes are different doubles at every scale."""
    fmt = draw(
        strategies.formats(bases=strategies.bases()).filter(
            lambda fmt: fmt.octaves < 900 and fmt.codes_per_octave < 2**44
        )
    )
    sides = st.sampled_from([0, 1, 2, 3, 16, 17, 33, 40])
    shape = tuple(draw(st.lists(sides, min_size=1, max_size=3).filter(lambda s: np.prod(s, dtype=int) <= 4000)))
    codes = draw(strategies.codes(fmt, shape=shape))
    limit = int(min(50 * fmt.codes_per_octave, 2**30))
    kinds = [strategies.scales(fmt, shape, limit=limit)]
    kinds += [strategies.scales(fmt, shape, axis=axis, limit=limit) for axis in range(len(shape))]
    kinds += [
        strategies.scales(fmt, shape, axis=axis, group_size=size, limit=limit)
        for axis in range(len(shape)) for size in (16, 32)
    ]  # fmt: skip
    scale = draw(kinds[draw(st.integers(0, len(kinds) - 1))])
    return LNSTensor(seen_from_afar(codes, draw(st.integers(0, 63))), fmt, log_offset=scale)


@settings(deadline=None, max_examples=60)
@given(scaled_codes())
def test_every_tensor_goes_there_and_back(x):
    """By floats, its text, pickles, copies, files of either kind, another scale, and another order of its axes."""
    floats = x.to_float()
    assert floats.shape == x.shape
    assert np.array_equal(encode(floats, x.fmt, log_offset=x.log_offset), x.codes)
    each = of_elements(x.log_offset, x.shape)
    for at in list(np.ndindex(x.shape))[:: 1 + x.size // 5]:
        number = decode(x.codes[at], x.fmt, log_offset=int(each[at]))
        assert np.array_equal(np.asarray(number), floats[at], equal_nan=True)
    copies = [pickle.loads(pickle.dumps(x)), copy.deepcopy(x)]
    with tempfile.TemporaryDirectory() as folder:
        for packed in (False, True):
            save_weights(f"{folder}/x", {"x": x}, packed=packed)
            copies.append(load_weights(f"{folder}/x")["x"])
    for again in copies:
        assert (again.fmt, again.shape) == (x.fmt, x.shape)
        assert np.array_equal(again.codes, x.codes)
        assert same_scale(again.log_offset, x.log_offset)
    wider = LNSFormat(min(x.fmt.bits + 3, 32), x.fmt.fraction_bits, base=x.fmt.base)
    if wider.bits == x.fmt.bits + 3:
        # room for scales a factor of the format's range apart: nothing is rounded there, so it comes back
        middle = int(each.min()) if each.size else 0
        if not each.size or int(each.max()) - middle < x.fmt.max_magnitude:
            there = x.astype(wider, out_log_offset=middle)
            assert np.array_equal(there.astype(x.fmt, out_log_offset=x.log_offset).codes, x.codes)
    for move in (lambda a: a.T, lambda a: a.reshape(-1), lambda a: a[..., ::-1], lambda a: np.concatenate([a, a])):
        moved = move(x)
        assert np.array_equal(moved.to_float(), move(floats), equal_nan=True)
    assert np.array_equal(of_elements(x.T.T.log_offset, x.shape), each)


# ------------------------------------------------------------------------------------------------------ scales that fit


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("fmt", [*FORMATS, LNSFormat.madam(8, 1e-5)], ids=str)
def test_the_scale_that_fits_each(fmt, rounding):
    """That of the elements of each channel or group alone."""
    rng = np.random.default_rng(6)
    x = (rng.normal(size=(3, 4, 40)) * np.exp2(rng.uniform(-20, 20, (3, 4, 40)))).astype(np.float32)
    x[0, 0, :16] = 0, np.inf, np.nan, *[0.0] * 13  # of no finite number but 0
    x[1] = np.abs(x[1])
    x[2, 0] = -np.abs(x[2, 0])

    def alone(part):
        return fit_log_offset(part, fmt, rounding=rounding)

    for dtype in (np.float32, np.float64):
        found = fit_log_offset(x.astype(dtype), fmt, rounding=rounding, group_size=16)
        assert isinstance(found, GroupOffsets)
        assert found.offsets.tolist() == [
            [[alone(row[k : k + 16]) for k in range(0, 40, 16)] for row in matrix] for matrix in x
        ]
        experts = fit_log_offset(x.astype(dtype), fmt, rounding=rounding, channels=(0, 1))
        assert experts[..., 0].tolist() == [[alone(row) for row in matrix] for matrix in x]
        assert experts.shape == (3, 4, 1)
        last = fit_log_offset(x.astype(dtype), fmt, rounding=rounding, channels=-1)
        assert last.tolist() == [[[alone(x[..., k]) for k in range(40)]]]
    assert (
        fit_log_offset(x, fmt, rounding=rounding, group_size=40).tolist()
        == fit_log_offset(x, fmt, rounding=rounding, channels=(-2, 0)).tolist()
    )


def test_nothing_saturates_at_the_scale_that_fits():
    rng = np.random.default_rng(7)
    x = (rng.normal(size=(20, 70)) * np.exp2(rng.uniform(-20, 20, (20, 70)))).astype(np.float32)
    for each in ({"group_size": 16}, {"channels": 1}, {"channels": (0, 1)}):
        scale = fit_log_offset(x, lns8f3, **each)
        codes = encode(x, lns8f3, log_offset=scale, overflow="nan")
        assert not (codes == lns8f3.nan_code).any()
        lower = scale - 1 if isinstance(scale, np.ndarray) else GroupOffsets(scale.offsets - 1, 16)
        tight = encode(x, lns8f3, log_offset=lower, overflow="nan") == lns8f3.nan_code
        counts = np.add.reduceat(tight, np.arange(0, 70, 16), axis=1) if "group_size" in each else tight.sum(axis=0)
        assert (counts > 0).all()


def test_a_scale_of_nothing():
    assert fit_log_offset(np.empty((2, 0)), lns8f3, channels=0).tolist() == [[0], [0]]
    assert fit_log_offset(np.empty((0, 64)), lns8f3, group_size=32).offsets.shape == (0, 2)
    assert (
        encode(np.empty((3, 0)), lns8f3, log_offset=fit_log_offset(np.empty((3, 0)), lns8f3, group_size=32)).size == 0
    )


@pytest.mark.parametrize(
    ("each", "error", "sentence"),
    [
        ({"channels": 2}, ValueError, "channels=2 is out of range: an array of shape (4, 64) has axes 0 to 1"),
        ({"channels": (0, -3)}, ValueError,
         "channels=(0, -3) is out of range: an array of shape (4, 64) has axes 0 to 1"),
        ({"channels": (1, -1)}, ValueError, "channels=(1, -1) names an axis twice: give each once"),
        ({"channels": ()}, ValueError, "channels=() names no axis: give one or more"),
        ({"channels": "rows"}, TypeError, "channels='rows' is no axis: give an integer, or a tuple of them"),
        ({"channels": True}, TypeError, "channels=True is no axis: give an integer, or a tuple of them"),
        ({"group_size": 8}, ValueError, "group_size=8 is out of range: a group has 16 to 256 elements"),
        ({"group_size": 512}, ValueError, "group_size=512 is out of range: a group has 16 to 256 elements"),
        ({"group_size": "32"}, TypeError, "group_size='32' is a str: give an integer, 16 to 256"),
        ({"channels": 0, "group_size": 32}, ValueError,
         "channels and group_size are both given, and a group's scale is its channel's own: leave out one"),
    ],
)  # fmt: skip
def test_what_no_granularity_is(each, error, sentence):
    with pytest.raises(error) as caught:
        fit_log_offset(np.ones((4, 64)), lns8f3, **each)
    assert str(caught.value) == sentence


def test_a_number_has_neither_channels_nor_groups():
    with pytest.raises(ValueError, match=r"^channels=0 is out of range: an array of shape \(\) has no axes$"):
        fit_log_offset(1.0, lns8f3, channels=0)
    with pytest.raises(ValueError, match=r"^group_size=32 is of elements along the last axis, and a number has none$"):
        fit_log_offset(1.0, lns8f3, group_size=32)
    with pytest.raises(ValueError, match=r"is too large: at most 2\^30 in size$"):
        fit_log_offset([[1e300]], LNSFormat(8, 0, base=1.0000001), channels=0)
    assert MAX_LOG_OFFSET == 1 << 30


# --------------------------------------------------------------------------------------------- results at given scales


RESULTS = {
    "astype": lambda x, y, **options: x.astype(lns6f2, **options),
    "multiply": lambda x, y, **options: x.multiply(y, **options),
    "add": lambda x, y, **options: x.add(y, out_format=lns8f3, **options),
    "sqrt": lambda x, y, **options: abs(x).sqrt(**options),
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("kind", ["groups", "groups along the first", "channels", "pairs", "none"])
def test_results_are_rounded_once_at_the_scale_of_their_group(name, kind):
    """Each is that of its numbers alone at its group's offset; so are those of each expert's channels."""
    rng = np.random.default_rng(5)
    shape = (0, 3, 40) if kind == "none" else (2, 3, 40)
    x, y = (LNSTensor.from_float(rng.standard_normal(shape), lns16f10, group_size=size) for size in (16, 32))
    own = {
        "groups": (3, 3),
        "none": (3, 3),
        "groups along the first": (1, 3, 1),
        "channels": (3, 1),
        "pairs": (2, 3, 1),
    }
    scale = rng.integers(-9, 9, own[kind])
    if kind.startswith("groups") or kind == "none":
        scale = GroupOffsets(scale, 16, axis=-3 if "first" in kind else -1)
    modes = {"rounding": "stochastic_value", "random_bits": rng.integers(0, 2**32, shape, np.uint32)}
    for options in ({}, modes) if name in ("astype", "add") else ({},):
        found = RESULTS[name](x, y, out_log_offset=scale, **options)
        assert same_scale(found.log_offset, check_offsets(scale, shape))
        each = of_elements(found.log_offset, shape)
        for at in list(np.ndindex(shape))[::7]:
            bits = {"random_bits": modes["random_bits"][at]} if options else {}
            one = RESULTS[name](x[at], y[at], out_log_offset=int(each[at]), **{**options, **bits})
            assert found.codes[at] == one.codes[()]


def test_what_no_scale_of_a_result_is():
    x = LNSTensor.from_float(np.ones((2, 40)), lns8f3, group_size=16)
    with pytest.raises(ValueError, match="do not fit the codes' shape"):
        x.astype(lns6f2, out_log_offset=GroupOffsets([[1, 2]], 16))
    with pytest.raises(ValueError, match=r"^random_bits of shape \(3,\) do not fit results of shape \(2, 40\)$"):
        x.astype(lns6f2, out_log_offset=x.log_offset, rounding="stochastic_log", random_bits=np.uint32([1, 2, 3]))
    for scale in (x.log_offset, np.array([1, 2])):
        with pytest.raises(TypeError, match="give an integer"):
            x.matmul(x.T, out_log_offset=scale)
        with pytest.raises(TypeError, match="give an integer"):
            x.sum(axis=0, out_log_offset=scale)
        with pytest.raises(TypeError, match="give an integer"):
            arithmetic.multiply(x.codes, x.codes, lns8f3, out_log_offset=scale)


# ---------------------------------------------------------------------------------------------- results that fit

FITTED = RESULTS | {
    "divide": lambda x, y, **options: x.divide(y, rounding="up", out_format=lns4f1, **options),
    "fma": lambda x, y, **options: x.fma(y, y, **options),
    "power": lambda x, y, **options: x.power(-3, **options),
    "exp": lambda x, y, **options: x.exp(**options),
    "log1p": lambda x, y, **options: abs(x).log1p(out_format=lns6f2, **options),
    "hypot": lambda x, y, **options: x.hypot(y, **options),
}
EACH = {"groups": {"group_size": 16}, "rows": {"channels": (0, 1)}, "columns": {"channels": -1}, "one": {"channels": 0}}


def parts_of(each, shape):
    """The elements that share a scale, as indices of the flat array, by the definition of each option."""
    flat, axes = np.arange(np.prod(shape)).reshape(shape), [0, 1, 2]
    if "group_size" in each:
        rows = flat.reshape(-1, shape[-1])
        return [row[k : k + 16] for row in rows for k in range(0, shape[-1], 16)]
    kept = [axis % 3 for axis in np.atleast_1d(each["channels"])]
    order = kept + [axis for axis in axes if axis not in kept]
    return list(flat.transpose(order).reshape(np.prod([shape[axis] for axis in kept]), -1))


@pytest.mark.parametrize("name", FITTED)
def test_results_take_the_scale_that_fits_each(name):
    """That of the elements of each channel or group alone: the codes and the offset of "fit"."""
    rng = np.random.default_rng(8)
    shape = (2, 2, 40)
    wide = rng.standard_normal(shape) * np.exp2(rng.integers(-30, 3, (2, 2, 5)).repeat(8, 2))
    wide[0, 0, :16] = 0
    x, y = (LNSTensor.from_float(wide[::step], lns16f10, group_size=16) for step in (1, -1))
    for each in EACH.values():
        found = FITTED[name](x, y, **each)
        offsets = of_elements(found.log_offset, shape).reshape(-1)
        for part in parts_of(each, shape):
            alone = FITTED[name](x.reshape(-1)[part], y.reshape(-1)[part], out_log_offset="fit")
            assert set(offsets[part].tolist()) == {alone.log_offset}
            assert np.array_equal(found.codes.reshape(-1)[part], alone.codes)


def test_results_further_apart_than_any_format_take_the_scale_that_fits_each():
    """Of 2^31 steps and more, and with random bits of their own; NaN counts as nothing."""
    fmt, rng = LNSFormat(32, 28), np.random.default_rng(9)
    codes = codes_of(rng, fmt, (8, 48))
    x = LNSTensor(codes, fmt, log_offset=GroupOffsets(rng.choice([-(2**30), 0, 2**30 - 2**29], (8, 3)), 16))
    bits = random_bits(codes.shape, seed=3)
    how = {"rounding": "stochastic_log"}
    found = x.astype(LNSFormat(12, 5), group_size=16, random_bits=bits, **how)
    assert len(set(found.log_offset.offsets.reshape(-1).tolist())) > 3
    for i, k in itertools.product(range(8), range(0, 48, 16)):
        alone = x[i, k : k + 16].astype(LNSFormat(12, 5), out_log_offset="fit", random_bits=bits[i, k : k + 16], **how)
        assert found.log_offset.offsets[i, k // 16] == alone.log_offset
        assert np.array_equal(found.codes[i, k : k + 16], alone.codes)


@pytest.mark.parametrize("shape", [(0, 40), (3, 0), (2, 0, 40), (1,), (1, 17)])
def test_the_scale_that_fits_results_of_nothing_and_of_one(shape):
    x = LNSTensor.from_float(np.full(shape, -3.0), lns8f3)
    for each in ({"group_size": 16}, {"channels": 0}):
        found = x.multiply(x, **each)
        assert found.shape == shape
        assert not found.size or found.codes.max() == lns8f3.max_magnitude


def test_what_takes_no_scale_for_each():
    x = LNSTensor.from_float(np.ones((2, 40)), lns8f3)
    for name, call in (
        ("sum", lambda **each: x.sum(axis=0, **each)),
        ("matmul", lambda **each: x.matmul(x.T, **each)),
        ("minimum", lambda **each: x.minimum(x, **each)),
    ):
        sentence = rf"^group_size is of results that are rounded one by one, and {name} has one scale: give its result "
        with pytest.raises(TypeError, match=sentence):
            call(group_size=16)
    with pytest.raises(TypeError, match=r"^channels looks for scales in a wide format, and an approximate Gaussian"):
        x.add(x, channels=0, gaussian=Mitchell())
    with pytest.raises(ValueError, match=r"^channels asks for scales that fit, and out_log_offset gives one: leave it"):
        x.add(x, channels=0, out_log_offset=3)
    for each, sentence in (
        ({"group_size": 8}, "group_size=8 is out of range"),
        ({"channels": 2}, r"channels=2 is out of range: an array of shape \(2, 40\) has axes 0 to 1"),
        ({"channels": 0, "group_size": 16}, "channels and group_size are both given"),
    ):
        with pytest.raises(ValueError, match=sentence):
            x.add(x, **each)
