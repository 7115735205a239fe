"""Tensors with groups under NumPy's moves: each number as NumPy moves its float, and which moves keep the groups."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lnsnum
from lnsnum import GroupOffsets, LNSTensor, lns8f3, lns16f10, load_weights, save_weights
from lnsnum.array.moved_scales import regrouped

NAMES = {"LNSTensor": LNSTensor, "GroupOffsets": GroupOffsets, "array": np.array, "int32": np.int32, "nan": np.nan}


def grouped(shape, size=16, fmt=lns8f3, seed=0):
    """Numbers some octaves apart, no two neighbouring groups of which have one offset."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, shape).astype(fmt.dtype)
    own = (*shape[:-1], -(-shape[-1] // size))
    offsets = rng.permutation(np.arange(np.prod(own)) % 97 - 48).reshape(own)
    return LNSTensor(codes, fmt, log_offset=GroupOffsets(offsets, size))


def kind(t):
    """What a scale is: "one", the shape of channels, or those of groups with their size and axis."""
    offset = t.log_offset
    if isinstance(offset, int):
        return "one"
    return offset.shape if isinstance(offset, np.ndarray) else (offset.offsets.shape, offset.group_size, offset.axis)


MOVES = {
    "a row": (lambda x: x[1], ((5,), 16, -1)),
    "rows": (lambda x: x[1:3], ((2, 5), 16, -1)),
    "rows in any order": (lambda x: x[[2, 0, 0]], ((3, 5), 16, -1)),
    "rows by a mask": (lambda x: x[[True, False, True, True]], ((3, 5), 16, -1)),
    "from the beginning of a group": (lambda x: x[:, 16:70], ((4, 4), 16, -1)),
    "one group": (lambda x: x[:, 16:30], (4, 1)),
    "from the middle of a group": (lambda x: x[:, 3:], (4, 77)),
    "a column": (lambda x: x[:, 5], (4,)),
    "an element": (lambda x: x[2, 5], "one"),
    "every other": (lambda x: x[:, ::2], (4, 40)),
    "turned round": (lambda x: x[:, ::-1], ((4, 5), 16, -1)),
    "transposed": (lambda x: x.T, ((5, 4), 16, -2)),
    "a new axis": (lambda x: x[:, None], ((4, 1, 5), 16, -1)),
    "a new last axis": (lambda x: x[..., None], ((4, 5, 1), 16, -2)),
    "flat": (lambda x: x.reshape(-1), ((20,), 16, -1)),
    "more axes": (lambda x: x.reshape(2, 2, 5, 16), (2, 2, 5, 1)),
    "halves": (lambda x: x.reshape(2, 2, 80), ((2, 2, 5), 16, -1)),
    "repeated": (lambda x: np.repeat(x, 2, axis=1), ((4, 5), 32, -1)),
    "tiled": (lambda x: np.tile(x, (2, 3)), ((8, 15), 16, -1)),
    "rolled by a group": (lambda x: np.roll(x, 16, axis=1), ((4, 5), 16, -1)),
    "rolled by less": (lambda x: np.roll(x, 5, axis=1), (4, 80)),
    "the diagonal": (lambda x: np.diagonal(x), (4,)),
    "broadcast": (lambda x: np.broadcast_to(x, (3, 4, 80)), ((1, 4, 5), 16, -1)),
    "stacked": (lambda x: np.stack([x, x]), ((1, 4, 5), 16, -1)),
    "joined below": (lambda x: np.concatenate([x, x[::-1]]), ((8, 5), 16, -1)),
    "joined behind": (lambda x: np.concatenate([x, x[:, :32]], axis=1), ((4, 7), 16, -1)),
    "split": (lambda x: np.split(x, 2, axis=0)[1], ((2, 5), 16, -1)),
    "a triangle": (np.tril, ((4, 5), 16, -1)),
    "0 elsewhere": (lambda x: np.where(np.arange(80) % 3 > 0, x, 0), ((4, 5), 16, -1)),
    "of two": (lambda x: np.where(np.arange(80) % 3 > 0, x, x.copy()), ((4, 5), 16, -1)),
    "copied": (np.copy, ((4, 5), 16, -1)),
    "of no row": (lambda x: x[0:0], "one"),
    "negative": (np.negative, ((4, 5), 16, -1)),
    "sizes": (np.abs, ((4, 5), 16, -1)),
}


@pytest.mark.parametrize(("move", "expected"), MOVES.values(), ids=MOVES)
def test_numbers_keep_their_scales(move, expected):
    x = grouped((4, 80))
    moved = move(x)
    np.testing.assert_array_equal(moved.to_float(), move(x.to_float()))
    assert kind(moved) == expected


@pytest.mark.parametrize("name", ["flat", "turned round", "tiled", "joined behind"])
def test_a_rest_between_groups_is_written_out(name):
    x, move = grouped((4, 70)), MOVES[name][0]
    np.testing.assert_array_equal(move(x).to_float(), move(x.to_float()))
    assert kind(move(x)) == move(x).shape


SCALES = {
    "one": 5,
    "channels": np.array([[3], [-3], [0], [9]], np.int32),
    "columns": np.arange(80, dtype=np.int32),
    "groups": GroupOffsets(np.arange(20).reshape(4, 5), 16),
    "the same groups": GroupOffsets(np.arange(20).reshape(4, 5), 16),
    "other groups": GroupOffsets([[2, 4, 6]], 32),
    "groups of rows": GroupOffsets([[7]], 16, axis=-2),
}


@pytest.mark.parametrize("first", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("second", SCALES.values(), ids=SCALES)
def test_joins_of_any_two_scales(first, second):
    """Whichever comes first: channels may stand before groups, and behind them."""
    codes = np.random.default_rng(0).integers(0, 128, (4, 80)).astype(np.uint8)
    x, y = (LNSTensor(codes, lns8f3, log_offset=scale) for scale in (first, second))
    odd = np.arange(80) % 3 > 0
    for join in (lambda a, b: np.where(odd, a, b), lambda a, b: np.concatenate([a, b]), lambda a, b: np.stack([a, b])):
        np.testing.assert_array_equal(join(x, y).to_float(), join(x.to_float(), y.to_float()))
    if first is second or {id(first), id(second)} <= {id(SCALES["groups"]), id(SCALES["the same groups"])}:
        assert not x.ulp_distance(y).any()
    else:
        with pytest.raises(ValueError, match=r"^ulp_distance counts the codes of one scale: "):
            x.ulp_distance(y)


steps = st.sampled_from([1, 1, 1, -1, 2, 3])


@st.composite
def move_of(draw, shape):
    """A move of an array of this shape."""
    if not shape:
        return lambda x: x[None]
    axis = draw(st.integers(0, len(shape) - 1))
    what = draw(st.sampled_from(["slice", "turn", "flat", "take", "repeat", "axis", "join", "roll"]))
    if what == "slice":
        begin = draw(st.sampled_from([0, 0, 16, 5]))
        index = (*[slice(None)] * axis, slice(begin, None, draw(steps)))
        return lambda x: x[index]
    if what == "turn":
        order = draw(st.permutations(range(len(shape))))
        return lambda x: x.transpose(*order)
    if what == "flat":
        return lambda x: x.reshape(-1, *([] if shape[-1] == 0 else shape[-1:]))
    if what == "take":
        indices = draw(st.lists(st.integers(0, max(shape[axis] - 1, 0)), max_size=5)) if shape[axis] else []
        return lambda x: np.take(x, np.array(indices, int), axis)
    if what == "axis":
        return lambda x: np.expand_dims(x, axis)
    if what == "join":
        return lambda x: np.concatenate([x, x], axis)
    by = draw(st.integers(0, 3))
    return (lambda x: np.repeat(x, by, axis)) if what == "repeat" else (lambda x: np.roll(x, 16 * by, axis))


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([(3, 48), (2, 50), (2, 2, 33), (40,), (0, 32), (1, 16)]), st.data())
def test_moves_after_moves(shape, data):
    x = grouped(shape)
    floats = x.to_float()
    for _ in range(data.draw(st.integers(1, 4))):
        move = data.draw(move_of(x.shape))
        x, floats = move(x), move(floats)
        if x.size > 2000 or x.ndim > 5:
            break
        np.testing.assert_array_equal(x.to_float(), floats)
        np.testing.assert_array_equal(LNSTensor.from_float(floats, x.fmt, log_offset=x.log_offset).codes, x.codes)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=60))
@example([0] * 16 + [1] * 16 + [2] * 3)
def test_runs_that_are_groups(labels):
    """Groups are runs of one length from 16 on, but the last; one run is one scale."""
    table = np.array([5, -7, 9], np.int32)
    scale = regrouped(np.array(labels), table)
    bounds = [0, *(i for i, (a, b) in enumerate(pairwise(labels), 1) if a != b), len(labels)]
    lengths = [end - begin for begin, end in pairwise(bounds)]
    if len(lengths) == 1:
        assert scale == table[labels[0]]
    elif len(set(lengths[:-1])) == 1 and lengths[0] >= 16 and lengths[-1] <= lengths[0]:
        assert (scale.group_size, scale.offsets.tolist()) == (lengths[0], [table[labels[i]] for i in bounds[:-1]])
    else:
        assert scale.tolist() == table[labels].tolist()


def test_views_share_their_codes():
    x = grouped((4, 80))
    for move in ("a row", "rows", "from the beginning of a group", "transposed", "flat", "halves", "turned round"):
        assert np.shares_memory(MOVES[move][0](x), x), move
    x[1] = 0
    assert x[1].tolist() == [0.0] * 80


def test_a_tensor_of_groups_is_one_again():
    for x in (grouped((2, 40)), grouped((2, 40)).T, grouped((2, 2, 33), 32, lns16f10)):
        for again in (eval(repr(x), NAMES), pickle.loads(pickle.dumps(x)), copy.deepcopy(x), x.copy()):
            assert again.log_offset == x.log_offset
            np.testing.assert_array_equal(again.codes, x.codes)


def test_it_is_made_of_floats_and_of_integers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 70)).astype(np.float32)
    groups = LNSTensor.from_float(x, "lns8f3", group_size=32)
    assert groups.log_offset == lnsnum.fit_log_offset(x, lns8f3, group_size=32)
    experts = LNSTensor.from_float(x, "lns8f3", log_offset="fit", channels=(0, 1))
    assert experts.log_offset.tolist() == lnsnum.fit_log_offset(x, lns8f3, channels=(0, 1)).tolist()
    huge = (rng.integers(1, 1 << 62, (3, 40))).tolist()
    for each in ({"group_size": 16}, {"channels": 1}):
        exact = LNSTensor.from_float(huge, "lns8f3", **each)
        rows = LNSTensor.from_float(np.array(huge, float), "lns8f3", **each)  # no float is near to a boundary here
        np.testing.assert_array_equal(exact.to_float(), rows.to_float())
    with pytest.raises(
        ValueError,
        match=r"^channels and group_size say of which elements a scale is fitted, and log_offset gives one: ",
    ):
        LNSTensor.from_float(x, "lns8f3", log_offset=groups.log_offset, group_size=32)


def test_writing_rounds_into_the_groups():
    x, y = grouped((4, 80), seed=1), grouped((4, 80), 32, seed=2)
    z = grouped((4, 80), seed=3)
    expected = LNSTensor.from_float(y.to_float(), z.fmt, log_offset=z.log_offset)
    z[...] = y
    np.testing.assert_array_equal(z.codes, expected.codes)
    z[:, 3:20] = x[:, 3:20]
    part = LNSTensor.from_float(x.to_float(), z.fmt, log_offset=z.log_offset)
    np.testing.assert_array_equal(z.codes[:, 3:20], part.codes[:, 3:20])
    z[2, 7:50] = 0
    assert not z.codes[2, 7:50].any()
    wide = x.astype(lns16f10).multiply(y.astype(lns16f10))
    np.multiply(x, y, out=z)
    rounded = LNSTensor(np.zeros_like(z.codes), z.fmt, log_offset=z.log_offset)
    rounded[...] = wide
    near = np.abs(z.codes.astype(int) - rounded.codes.astype(int)) <= 1
    assert near[np.abs(wide.to_float()) > 1e-3].all()
    sums = LNSTensor(np.zeros((80,), np.uint8), lns8f3, log_offset=GroupOffsets(np.arange(5), 16))
    np.sum(x, axis=0, out=sums)
    for k in (0, 15, 16, 79):
        assert sums.codes[k] == x[:, k].sum(out_log_offset=k // 16).codes


def test_values_are_compared_sorted_and_chosen_across_groups():
    x, y = grouped((4, 80), seed=4), grouped((4, 80), 32, seed=5)
    a, b = x.to_float(), y.to_float()
    for relation in (np.equal, np.less, np.less_equal, np.greater):
        np.testing.assert_array_equal(relation(x, y), relation(a, b))
        np.testing.assert_array_equal(relation(x, 0.3), relation(a, 0.3))
    for axis in (0, 1, None):
        np.testing.assert_array_equal(np.sort(x, axis=axis).to_float(), np.sort(a, axis=axis))
        np.testing.assert_array_equal(np.argmax(x, axis), np.argmax(a, axis))
    number = ~np.isnan(a)
    np.testing.assert_array_equal(np.max(x[:, :40], axis=1).to_float(), np.max(a[:, :40], axis=1))
    np.testing.assert_array_equal(np.isnan(x), ~number)
    with pytest.raises(ValueError, match=r"^the scale changes along the axis: numpy.sort\(x\) gives a sorted copy"):
        x.sort(axis=1)
    assert x.ulp_distance(x.copy())[number].tolist() == [0] * int(number.sum())
    with pytest.raises(ValueError, match=r"^ulp_distance counts the codes of one scale: "):
        x.ulp_distance(y)


def test_numbers_beside_groups():
    x = grouped((2, 40))
    np.testing.assert_array_equal((x * 2).to_float(), (x * LNSTensor.from_float(2.0, lns8f3)).to_float())
    assert kind(np.zeros_like(x)) == kind(x)
    with pytest.raises(ValueError, match="has none for the shape"):
        np.zeros_like(x, shape=(3, 3))
    ones = LNSTensor(x.codes, x.fmt, log_offset=GroupOffsets(np.full((2, 3), 7), 16))
    assert np.zeros_like(ones, shape=(3, 3)).log_offset == 7


def test_what_was_moved_goes_to_files(tmp_path):
    x = grouped((2, 40))
    weights = {"w": x, "t": x.T, "apart": x[:, 5:], "rows": x[::-1, :16]}
    save_weights(tmp_path / "w.safetensors", weights)
    for name, tensor in load_weights(tmp_path / "w.safetensors").items():
        assert kind(tensor) == kind(weights[name])
        np.testing.assert_array_equal(tensor.to_float(), weights[name].to_float())
