"""Ceilings that follow: when a scale grows, and what its codes become, word by word, against `madam_reference`."""

from fractions import Fraction

import madam_reference as reference
import mpmath
import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from madam_oracle import words_at

from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns8f4, lns8f5
from lnsnum.kernels.scales import Scales, Walk
from lnsnum.torch_bridge.kernels.ceiling import decide_by, grow, histograms, sums, tallies
from lnsnum.torch_bridge.kernels.random_words import Draw

ONE = Scales.of(0, ())

jit = not numba.config.DISABLE_JIT

FORMATS = [lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, LNSFormat.madam(8, 0.05), LNSFormat(6, 1, base=1.7)]


def grown(codes, fmt, *, keep, grows=(True,), numbers=ONE, draw=None):
    codes = codes.copy()
    with np.errstate(all="ignore"):  # plain Python's operations are NumPy's, which warn
        grow(codes, fmt, np.array(grows), numbers, draw or Draw(0, 0, 20), keep=keep)
    return codes


def words24(n, draw):
    """The upper 24 bits of the words of a growing scale: those under the third and the fourth key."""
    *_, key0, key1 = reference.keys(seed=draw.seed, stream=draw.stream, step=draw.step)
    return np.array([reference.bits24(reference.word(i, key0, key1)) for i in range(n)])


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_each_code_goes_where_its_word_says(fmt, keep):
    """Every code with a hundred words of its own: up are those below the page's probability, but for the words within
    3 of the 2^24 of it."""
    draw, count = Draw(3, 5, 40), 100 if jit else 5
    codes = np.tile(np.arange(1 << fmt.bits), count).astype(fmt.dtype)
    found, words = grown(codes, fmt, keep=keep, draw=draw), words24(codes.size, draw)
    expected = [reference.grown(fmt, code, keep=keep) for code in range(1 << fmt.bits)]
    for code, after, word in zip(codes.tolist(), found.tolist(), words.tolist(), strict=True):
        outcomes = expected[code]
        own = after in outcomes and outcomes[after] > 0
        assert own, (code, after, outcomes)
        if len(outcomes) == 1:
            continue
        sign = code & fmt.sign_bit  # first the new floor of the code's own sign, then what else it can be
        chance = float(outcomes[sign + 1])
        if abs(word - chance * 2**24) > 3:
            assert (after == sign + 1) == (word < chance * 2**24)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_a_scale_that_grows_keeps_every_mean(fmt, keep):
    """The page's own distribution: in units of the old floor the mean is what the code was, exactly."""
    c = reference.rung(fmt, reference.growth(fmt) + 1) if reference.growth(fmt) < fmt.max_magnitude else None
    for code in range(1 << fmt.bits):
        distribution = reference.grown(fmt, code, keep=keep)
        if code != fmt.nan_code and c is not None:
            exact = reference.value(fmt, code)
            with mpmath.workprec(reference.PRECISION):
                assert abs(reference.mean(fmt, distribution) * c - exact) <= abs(exact) * 2.0**-100


@given(
    st.sampled_from(FORMATS),
    st.integers(1, 4),
    st.integers(1, 5),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.booleans(),
)
def test_only_the_scales_that_grow_change_and_each_element_draws_by_its_index(fmt, count, inner, which, keep):
    size = count * inner * 7
    random = np.random.default_rng(size)
    codes = random.integers(0, 1 << fmt.bits, size).astype(fmt.dtype)
    grows = which[:count]
    found = grown(codes, fmt, keep=keep, grows=grows, numbers=Scales(np.arange(count), Walk(inner)))
    whole = grown(codes, fmt, keep=keep)
    own = np.array(grows)[np.arange(size) // inner % count]
    np.testing.assert_array_equal(found, np.where(own, whole, codes))


def test_its_words_are_not_those_of_the_step():
    draw = Draw(0, 0, 20)
    index = np.arange(64, dtype=np.uint64)
    assert not np.any(words24(64, draw) == words_at(index, **draw._asdict()) >> 8)


@given(
    st.sampled_from(FORMATS),
    st.lists(st.integers(0, 255), min_size=1, max_size=120),
    st.integers(0, 6),
)
@example(lns8f5, [127] * 2 + [100] * 98, 0)
@example(lns8f5, [127] * 2 + [100] * 97, 0)
@example(lns8f5, [127] + [100] * 9, 0)
@example(lns8f5, [127, 255] + [0] * 50, 0)
@example(lns8f3, [127, 255, 128], 0)
def test_a_scale_grows_where_the_page_says(fmt, codes, ceilings):
    codes = [code % (1 << fmt.bits) for code in codes] + [fmt.max_magnitude] * ceilings
    growing = decide_by(tallies(np.array(codes, fmt.dtype), fmt, ONE))
    assert bool(growing.grows[0]) == reference.grows(fmt, codes)
    at_ceiling = sum(code & fmt.max_magnitude == fmt.max_magnitude for code in codes)
    wants = at_ceiling >= 2 and Fraction(at_ceiling, len(codes)) > Fraction(2, 100)
    assert bool(growing.blocked[0]) == (wants and not growing.grows[0])


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_each_scale_is_counted_by_itself(count, inner, rounds):
    random = np.random.default_rng(rounds)
    codes = random.integers(0, 256, count * inner * rounds).astype(np.uint8)
    numbers = Scales(np.arange(count), Walk(inner))
    found = histograms(codes, lns8f5, numbers)
    scale = np.arange(codes.size) // inner % count
    assert tallies(codes, lns8f5, numbers).tolist() == sums(found, lns8f5).tolist()
    together = histograms(codes, lns8f5, numbers._replace(values=np.zeros(count, np.int64)))
    assert together.tolist() == [found.sum(0).tolist()]
    for i in range(count):
        assert found[i].tolist() == [int(((codes & 127) == m)[scale == i].sum()) for m in range(128)]
