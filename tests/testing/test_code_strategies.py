"""Arrays are drawn whole and shrink element by element; gaps and scales are what was asked for."""

import itertools

import numpy as np
import pytest
from drawing import drawn, minimal
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsnum import GroupOffsets, LNSFormat, LNSTensor, lns4f1, lns8f3, lns8f5, lns16f10, lns32f23
from lnsnum.strategies import codes, pairs, scales, tensors
from lnsnum.testing.ranks import Ranking, about_zero, ranks

# ---------------------------------------------------------------------------------------------------------- the ranks


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns4f1, lns8f5, LNSFormat(9, 7)], ids=str)
def test_every_code_has_one_rank_and_those_near_one_come_first(fmt, flags):
    nan, zero, negative = flags
    ranking = Ranking(fmt, nan, zero, negative)
    found = ranking.codes(np.arange(ranking.ranks))
    assert found.dtype == fmt.dtype
    assert found.tolist() == [ranking.code(rank) for rank in range(ranking.ranks)]
    wanted = {
        code for code in range(1 << fmt.bits) if code not in (0, fmt.nan_code) and (negative or code < fmt.nan_code)
    }
    wanted |= {0} if zero else set()
    wanted |= {fmt.nan_code} if nan else set()
    assert set(found.tolist()) == wanted
    assert len(found) == len(wanted)
    distances = [abs((code & fmt.max_magnitude) - fmt.bias) for code in found.tolist()[: ranking.numbers]]
    assert distances == sorted(distances)
    assert found[0] == fmt.bias


def test_ranks_become_integers_about_zero():
    assert [about_zero(rank) for rank in range(7)] == [0, 1, -1, 2, -2, 3, -3]
    assert about_zero(np.arange(4)).tolist() == [0, 1, -1, 2]


@pytest.mark.parametrize("count", [1, 2, 13, 256, 257, 1 << 16, (1 << 31) + 1, 1 << 32])
def test_ranks_are_below_their_count_and_reach_it(count):
    found = drawn(ranks(5, count), 300)
    assert all(array.shape == (5,) and array.dtype == np.int64 for array in found)
    everything = np.stack(found)
    assert everything.min() == 0
    assert everything.max() == count - 1
    sizes = {int(rank).bit_length() for rank in everything.reshape(-1)}
    assert len(sizes) >= 0.8 * (count - 1).bit_length()  # of every size, however wide


# -------------------------------------------------------------------------------------------------- arrays of any size

LARGE = [
    (codes, {"shape": 1000}),
    (codes, {"shape": (16, 16)}),
    (tensors, {"shape": 1000}),
    (tensors, {"shape": (40, 50)}),
]


@pytest.mark.parametrize(("strategy", "arguments"), LARGE)
@pytest.mark.parametrize("fmt", [lns8f3, lns32f23], ids=str)
def test_large_arrays_pass_the_health_check(strategy, arguments, fmt):
    """Three at once, as a test of an operation draws them, with Hypothesis' own settings."""
    shape = arguments["shape"]
    one = strategy(fmt, **arguments)

    @settings(deadline=None, database=None, max_examples=30)
    @given(one, one, one)
    def draw(x, y, z):
        assert x.shape == y.shape == z.shape == (shape if isinstance(shape, tuple) else (shape,))

    draw()


def test_large_arrays_hold_many_codes_and_few_or_many_specials():
    found = drawn(codes(lns8f3, shape=3000), 100)
    assert max(len(np.unique(x)) for x in found) > 200
    counts = [np.isin(x, [0, lns8f3.nan_code]).sum() for x in found]
    assert min(counts) == 0
    assert max(counts) > 10
    places = np.concatenate([np.flatnonzero(x == lns8f3.nan_code) for x in found if (x == lns8f3.nan_code).sum() == 1])
    assert places.max() > 1500


def test_an_element_shrinks_out_of_the_last_ranks():
    for _ in range(5):
        assert minimal(codes(lns8f5, shape=3), lambda x: 64 < x[0] < 128).tolist() == [65, 64, 64]


@pytest.mark.thorough
def test_large_arrays_shrink_to_ones_but_for_few():
    x = minimal(codes(lns8f3, shape=(16, 16)), lambda x: lns8f3.nan_code in x)
    assert ((x != lns8f3.bias).sum(), lns8f3.nan_code in x) == (1, True)
    x = minimal(codes(lns16f10, shape=60, nan=False), lambda x: (x == 0).sum() >= 2)
    assert sorted(x.tolist())[:3] == [0, 0, lns16f10.bias]
    assert (x != lns16f10.bias).sum() == 2
    x = minimal(codes(lns32f23, shape=300), lambda x: lns32f23.max_magnitude in x)  # the first of them repeat
    assert (x != lns32f23.bias).sum() <= 2
    x = minimal(codes(lns16f10, shape=8, negative=False, nan=False), lambda x: x[3] > lns16f10.bias + 100)
    assert np.delete(x, 3).tolist() == [lns16f10.bias] * 7
    assert lns16f10.bias + 100 < x[3] <= lns16f10.bias + 200


@pytest.mark.thorough
def test_failing_tensors_are_small():
    x = minimal(tensors(), lambda x: x.size >= 5 and x.isnan().any())
    assert x.fmt == LNSFormat(3, 0)
    assert x.size <= 6
    assert (x.codes != x.fmt.bias).sum() == 1
    x = minimal(tensors(), lambda x: x.fmt.bits > 8)
    assert (x.fmt.bits, x.shape, x.log_offset) == (9, (1,), 0)
    x = minimal(tensors(shape=(3, 4)), lambda x: np.size(x.log_offset) > 1)
    assert not np.any(x.log_offset)


@pytest.mark.thorough
@pytest.mark.parametrize("strategy", [tensors(), tensors(lns32f23, log_offset=st.integers(-(1 << 30), 1 << 30))])
def test_the_text_of_a_failing_tensor_can_be_pasted(strategy):
    for condition in (
        lambda x: True,
        lambda x: bool(x.isnan().any()),
        lambda x: bool(np.any(np.abs(x.log_offset) > 10**6)),
    ):
        x = minimal(strategy, condition)
        back = eval(repr(x), {"LNSTensor": LNSTensor, "array": np.array, "int32": np.int32, "nan": np.nan})
        assert (back.fmt, back.codes.tolist()) == (x.fmt, x.codes.tolist())
        assert np.array_equal(back.log_offset, x.log_offset)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        (2.5, TypeError, "shape=2.5 is no shape: give an integer, a tuple of integers, or a strategy"),
        ((2, True), TypeError, "is no shape"),
        ((2, -1), ValueError, r"shape=\(2, -1\) has a side below 0: give sides of 0 or more"),
    ],
)
def test_shapes_that_are_none_are_refused(shape, error, message):
    for strategy in (codes, tensors, scales):
        with pytest.raises(error, match=message):
            strategy(lns8f3, shape=shape)
    with pytest.raises(error, match=message):
        minimal(codes(lns8f3, shape=st.just(shape)))


# --------------------------------------------------------------------------------------------------------------- pairs


def gap(pair, fmt):
    a, b = ((code & fmt.max_magnitude) - fmt.bias for code in pair)
    return abs(a - b)


@pytest.mark.parametrize("signs", ["any", "same", "opposite"])
@pytest.mark.parametrize("z", [0, 1, 5, 6])
def test_all_pairs_of_a_gap_come_up(z, signs):
    found = set(drawn(pairs(lns4f1, z, signs=signs), 1200))
    numbers = [code for code in range(16) if code not in (0, 8)]
    wanted = {(a, b) for a in numbers for b in numbers if gap((a, b), lns4f1) == z}
    if signs != "any":
        wanted = {(a, b) for a, b in wanted if ((a ^ b) & 8 == 0) == (signs == "same")}
    assert found == wanted


def test_gaps_of_every_size_come_up():
    sizes = {gap(pair, lns32f23).bit_length() for pair in drawn(pairs(lns32f23), 600)}
    assert sizes == set(range(32))
    assert {gap(pair, lns8f5) for pair in drawn(pairs(lns8f5, st.sampled_from([3, 7])), 50)} == {3, 7}


def test_pairs_shrink_to_one_and_what_is_z_below():
    one = lns16f10.bias
    assert minimal(pairs(lns16f10)) == (one, one)
    assert minimal(pairs(lns16f10, 77)) == (one, one - 77)
    assert minimal(pairs(lns16f10, 77, signs="opposite")) == (one, one - 77 + lns16f10.sign_bit)
    assert minimal(pairs(lns16f10), lambda pair: pair[0] < pair[1] < lns16f10.sign_bit) == (one - 1, one)


@pytest.mark.parametrize(
    ("z", "error", "message"),
    [
        (13, ValueError, "z=13 is out of range: 0 to 6, no numbers of lns4f1 are further apart"),
        (-1, ValueError, "z=-1 is out of range"),
        (0.5, TypeError, "z=0.5 is a float: give an integer number of code steps, or a strategy"),
    ],
)
def test_gaps_that_no_numbers_have_are_refused(z, error, message):
    with pytest.raises(error, match=message):
        pairs(lns4f1, z)
    with pytest.raises(error, match=message):
        minimal(pairs(lns4f1, st.just(z)))
    with pytest.raises(ValueError, match="signs='both' is not known: one of any, same, opposite"):
        pairs(lns4f1, signs="both")


# -------------------------------------------------------------------------------------------------------------- scales


@given(st.data(), st.sampled_from([lns8f3, lns16f10]), st.sampled_from([(3,), (2, 3), (2, 3, 4), (1, 5), (0, 2), ()]))
def test_scales_broadcast_to_the_shape(data, fmt, shape):
    scale = data.draw(scales(fmt, shape, limit=1000))
    assert isinstance(scale, int) or scale.dtype == np.int32
    assert np.broadcast_shapes(np.shape(scale), shape) == shape
    assert np.all(np.abs(scale) <= 1000)
    LNSTensor(np.full(shape, fmt.bias, fmt.dtype), fmt, log_offset=scale)


def test_scales_of_every_kind_come_up():
    assert {type(scale) for scale in drawn(scales(lns8f3), 100)} == {int}
    found = [np.asarray(scale) for scale in drawn(scales(lns8f3, (2, 3)), 600)]
    assert {scale.shape for scale in found} == {(), (1,), (3,), (1, 1), (1, 3), (2, 1), (2, 3)}
    sizes = np.concatenate([scale.reshape(-1) for scale in found])
    assert (sizes.min(), sizes.max()) == (-(1 << 30), 1 << 30)
    assert 0 in sizes
    channels = drawn(scales(lns8f3, (2, 3, 4), axis=-2), 200)
    assert {scale.shape for scale in channels} == {(1, 3, 1)}
    assert any(0 < np.ptp(scale.astype(np.int64)) < 100 < abs(int(scale.min())) for scale in channels)
    assert minimal(scales(lns8f3, (2, 3), axis=0)).tolist() == [[0], [0]]
    assert set(drawn(scales(lns8f3, limit=0), 20)) == {0}


@pytest.mark.thorough
def test_scales_of_groups_come_up():
    found = drawn(scales(lns8f3, (2, 40), limit=1000), 600)
    groups = [scale for scale in found if isinstance(scale, GroupOffsets)]
    assert {scale.axis for scale in groups} == {-1}
    assert {scale.offsets.shape for scale in groups} == {(2, 3), (1, 3), (2, 2), (1, 2)}
    sizes = {scale.group_size for scale in groups}
    assert sizes <= set(range(16, 40))
    assert len(sizes) > 12
    assert max(int(np.abs(scale.offsets).max()) for scale in groups) == 1000
    assert {int, np.ndarray} < {type(scale) for scale in found}
    assert not any(isinstance(scale, GroupOffsets) for scale in drawn(scales(lns8f3, (40, 16)), 200))
    alone = drawn(scales(lns8f3, (40, 3), axis=0, group_size=16), 50)
    assert {(scale.axis, scale.group_size, scale.offsets.shape) for scale in alone} == {(-2, 16, (3, 3))}
    assert minimal(scales(lns8f3, 33, group_size=32)) == GroupOffsets([0, 0], 32)
    tensor = minimal(tensors(lns8f3, (2, 33)), lambda x: isinstance(x.log_offset, GroupOffsets))
    assert (tensor.to_float() == 1.0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (40,), "group_size": 8}, "group_size=8 is out of range: a group has 16 to 256 elements"),
        ({"group_size": 16}, "axis=-1 is out of range for shape=None: give one of its axes"),
        ({"limit": 1 << 31}, "limit=2147483648 is out of range: an integer from 0 to 2\\^30"),
        ({"limit": -1}, "limit=-1 is out of range"),
        ({"axis": 0}, "axis=0 is out of range for shape=None: give one of its axes"),
        ({"shape": (2, 3), "axis": 2}, r"axis=2 is out of range for shape=\(2, 3\)"),
    ],
)
def test_scales_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        scales(lns8f3, **arguments)
