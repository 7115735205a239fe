"""The random words: the page's hash on Python's integers, that no split of the work shows, and that they are uniform.

The statistical tests draw by fixed seeds, so they pass or fail for good. Each compares a chi-square with the quantile
that independent uniform words exceed once in FALSE_ALARM; there are about 300 of them.
"""

import itertools
import math
from fractions import Fraction

import madam_reference as reference
import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lnsnum import random_bits
from lnsnum.torch_bridge.kernels.random_words import (
    KEY_INDEX,
    LOW_FACTOR,
    MOMENT_FACTOR,
    MOMENTUM_FACTOR,
    centred,
    draw_keys,
    fill_words,
    moment_word,
    momentum_word,
    signed,
    upper24,
)
from lnsnum.torch_bridge.kernels.random_words_twin import centred as centred_twin

jit = not numba.config.DISABLE_JIT

FALSE_ALARM = 1e6
"""Of that many such tests on truly random words one fails."""

NORMAL_QUANTILE = 4.753
"""The standard normal exceeds it once in a million."""

words32 = st.integers(0, 2**32 - 1)
seeds = st.one_of(st.integers(0, 3), st.integers(0, 2**63 - 1))
boundaries = st.integers(0, 2**29 - 1).flatmap(lambda high: st.integers(max(high * 2**32 - 20, 0), high * 2**32 + 20))


def keys_of(seed=0, stream=0, step=1):
    with np.errstate(all="ignore"):
        return draw_keys(seed, stream, step)


def words_of(size, start=0, *, keys=None, **draw):
    """The words of some elements, as uint32."""
    key0, key1 = (keys_of(**draw) if keys is None else keys)[:2]
    out = np.empty(size, np.int32)
    with np.errstate(all="ignore"):  # plain Python's products are NumPy's, which warn
        fill_words(out, start, np.int32(key0), np.int32(key1))
    return out.view(np.uint32)


def many(size=1 << 20):
    return size if jit else 1 << 12


# ---------------------------------------------------------------------------------------------------------- the hash


@given(seeds, words32, st.integers(1, 2**32 - 1))
@example(2**63 - 1, 2**32 - 1, 2**32 - 1)
@example(0, 0, 1)
def test_the_keys_are_words_of_philox(seed, stream, step):
    keys = [int(key) for key in keys_of(seed, stream, step).view(np.uint32)]
    assert keys == list(reference.keys(seed=seed, stream=stream, step=step))
    assert keys == random_bits(4, seed=seed, stream=stream, step=step, start=KEY_INDEX).tolist()


@given(boundaries, st.integers(0, 45), seeds, words32, st.integers(1, 2**32 - 1))
@example(2**32 - 2, 5, 0, 0, 1)
@example(2**61 - 3, 3, 1, 1, 1)
@example(0, 0, 0, 0, 1)
@example(2**31 - 2, 5, 3, 2, 1)
def test_each_element_takes_the_word_of_its_index(start, size, seed, stream, step):
    key0, key1, *_ = reference.keys(seed=seed, stream=stream, step=step)
    expected = [reference.word(start + i, key0, key1) for i in range(size)]
    assert words_of(size, start, seed=seed, stream=stream, step=step).tolist() == expected


@given(st.lists(st.integers(0, 30), max_size=6), boundaries)
def test_no_split_shows(sizes, start):
    parts, at = [np.empty(0, np.uint32)], start
    for size in sizes:
        parts.append(words_of(size, at, seed=11))
        at += size
    assert np.concatenate(parts).tolist() == words_of(sum(sizes), start, seed=11).tolist()


def test_every_start_around_the_boundary():
    whole = words_of(64, 2**32 - 32, seed=5)
    for begin, size in itertools.product(range(0, 64, 7), (0, 1, 2, 25, 32)):
        end = min(begin + size, 64)
        assert words_of(end - begin, 2**32 - 32 + begin, seed=5).tolist() == whole[begin:end].tolist()


@given(words32)
@example(0)
@example(2**32 - 1)
@example(2**31)
def test_the_three_uses_are_products_of_one_word(word):
    signed = np.uint32(word).view(np.int32)
    with np.errstate(all="ignore"):
        assert int(upper24(signed)) == reference.bits24(word)
        uses = {"moment": moment_word(signed), "momentum": momentum_word(signed)}
    for which, own in uses.items():
        assert int(np.int32(own).view(np.uint32)) == reference.use(word, which)


@pytest.mark.parametrize("word", [0, 1, 0xFF, 0x100, 0x1FF, 0x7FFFFFFF, 0x80000000, 0xFFFFFEFF, 0xFFFFFFFF, 123456789])
def test_the_centred_number_is_exact_and_odd(word):
    """(upper 24 bits, signed, the last set) / 2^24, the same in torch's operations; u = that and 1/2 is exact too."""
    bits = (word >> 8) - ((1 << 24) if word >> 31 else 0) | 1
    with np.errstate(all="ignore"):
        found = np.float32(centred(signed(word)))
    assert Fraction(float(found)) == Fraction(bits, 1 << 24)
    assert Fraction(float(found + np.float32(0.5))) == Fraction(bits, 1 << 24) + Fraction(1, 2)
    assert float(centred_twin(torch.tensor([word]))) == float(found)


def test_the_map_of_indices_to_words_is_one_to_one():
    """2^20 of the 2^32, with no word twice, though 128 repeats were to be expected of independent ones."""
    for high in (0, 1, 2**28):
        words = words_of(many(), high << 32, seed=1)
        assert np.unique(words).size == words.size


# -------------------------------------------------------------------------------------------------------- uniformity


def check_uniform(counts, expected):
    """Chi-square of counts by Wilson and Hilferty's normal approximation, at a false alarm of one in FALSE_ALARM."""
    freedom = counts.size - 1
    chi = float(((counts - expected) ** 2 / expected).sum())
    limit = freedom * (1 - 2 / (9 * freedom) + NORMAL_QUANTILE * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi < limit, (chi, limit)


def check_fields(numbers, bits):
    """Numbers of so many bits: their upper and lower 10 bits and those between, and each bit by itself."""
    for shift in {bits - 10, (bits - 10) // 2, 0}:
        counts = np.bincount(numbers >> shift & 1023, minlength=1024)
        check_uniform(counts, numbers.size / 1024)
    for bit in range(bits):
        ones = int((numbers >> bit & 1).sum())
        check_uniform(np.array([ones, numbers.size - ones]), numbers.size / 2)


def check_pairs(first, second, cells=32, *, of_one_word=False):
    """Two arrays of 24-bit numbers as independent: the upper bits of pairs, those of small ones, and the lower bits.

    Not of two multiples of one word: there the lower bits of the one tell the other's.
    """
    bits = cells.bit_length() - 1
    for shift in (24 - bits,) if of_one_word else (24 - bits, 0):
        counts = np.bincount((first >> shift & cells - 1) * cells + (second >> shift & cells - 1), minlength=cells**2)
        check_uniform(counts, first.size / cells**2)
    for one, other in ((first, second), (second, first)):
        small = one < 2 ** (24 - bits)  # where the one is in its lowest cell, a finer look at both
        pairs = (one[small] >> 24 - 2 * bits) * cells + (other[small] >> 24 - bits)
        counts = np.bincount(pairs, minlength=cells**2)
        check_uniform(counts, pairs.size / cells**2)
    check_uniform(np.bincount((first - second & 0xFFFFFF) >> 14, minlength=1024), first.size / 1024)
    check_uniform(np.bincount((first ^ second) >> 14, minlength=1024), first.size / 1024)


def fields(words, which):
    """The 24 bits of a use, as int64."""
    return (words.astype(np.uint64) * np.uint64(reference.FACTORS[which]) & np.uint64(0xFFFFFFFF)).astype(np.int64) >> 8


DRAWS = [{"seed": 0}, {"seed": 3, "stream": 8, "step": 2}, {"seed": 2**62, "stream": 2**31, "step": 10**6}]
USES = ["code", "moment", "momentum"]

statistical = pytest.mark.skipif(not jit, reason="a million words")


@statistical
@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize("start", [0, 2**32 - 2**19, 2**45])
def test_the_fields_that_decide_are_uniform(draw, start):
    """The upper 24 bits of each use, of which the upper 21 round moments between neighbours."""
    words = words_of(many(), start, **draw)
    for which in USES:
        numbers = fields(words, which)
        check_fields(numbers, 24)
        check_fields(numbers >> 3, 21)


@statistical
@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize("apart", [1, 2, 3, 64, 1023, 1024, 4096, 1 << 16])
def test_neighbours_are_independent(draw, apart):
    """Elements beside each other, in neighbouring rows, and in neighbouring chunks."""
    numbers = fields(words_of(many() + apart, **draw), "code")
    check_pairs(numbers[:-apart], numbers[apart:])


@statistical
@pytest.mark.parametrize("which", USES)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"step": 1}, {"step": 2}),
        ({"step": 2}, {"step": 3}),
        ({"step": 1}, {"step": 1001}),
        ({"step": 2**32 - 2}, {"step": 2**32 - 1}),
        ({"stream": 0}, {"stream": 1}),
        ({"stream": 7}, {"stream": 9}),
        ({"seed": 0}, {"seed": 1}),
        ({"seed": 1}, {"seed": 2**32 + 1}),
    ],
    ids=str,
)
def test_steps_streams_and_seeds_are_independent(one, other, which):
    """Of the same elements."""
    check_pairs(*(fields(words_of(many(), **draw), which) for draw in (one, other)))


@statistical
@pytest.mark.parametrize("draw", DRAWS, ids=str)
def test_the_words_of_a_scale_that_grows_are_others(draw):
    keys = keys_of(**draw)
    check_pairs(*(fields(words_of(many(), keys=pair), "code") for pair in (keys[:2], keys[2:])))


@statistical
@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize("pair", list(itertools.combinations(USES, 2)), ids=str)
def test_the_three_uses_are_as_good_as_independent(draw, pair):
    words = words_of(many(), **draw)
    check_pairs(*(fields(words, which) for which in pair), of_one_word=True)


@statistical
def test_an_element_over_many_steps_is_uniform_and_independent():
    """What one weight draws in a training: 2^17 steps of 8 elements, each against its next step."""
    steps, elements = 1 << 17, 8
    drawn = np.array([words_of(elements, stream=2, step=1 + step) for step in range(steps)])
    for element in range(0, elements, 3):
        numbers = fields(drawn[:, element], "code")
        check_fields(numbers, 24)
        check_pairs(numbers[:-1], numbers[1:], cells=16)
        check_pairs(numbers, fields(drawn[:, (element + 1) % elements], "code"), cells=16)


@statistical
def test_no_step_repeats_the_words_of_another():
    """Neither in place nor moved: runs of four words of 2^16 elements over 20 steps, of which none occurs twice."""
    runs = []
    for step in range(1, 21):
        words = words_of(1 << 16, step=step).astype(np.uint64)
        assert np.unique(words).size == words.size
        runs.append(words[:-1] << np.uint64(32) | words[1:])
    everything = np.concatenate(runs)
    assert np.unique(everything).size == everything.size


@statistical
def test_steps_are_no_rearrangements_of_each_other():
    """Under one second key the words of two steps would be the same ones, in another order: a set of 2^32 is. Of 2^20
    elements of each as many words are in common as independent draws have, 256, within five deviations."""
    first, second = (words_of(1 << 20, step=step) for step in (1, 2))
    common = np.intersect1d(first, second).size
    assert abs(common - 2**40 / 2**32) < 5 * math.sqrt(2**8)
    key0, key1, *_ = keys_of(step=1)
    other, *_ = keys_of(step=2)
    ahead = (int(key0) - int(other)) * pow(LOW_FACTOR, -1, 2**32) % 2**32  # what the second key is for
    assert words_of(4, ahead, keys=(other, key1)).tolist() == words_of(4, keys=(key0, key1)).tolist()


def test_the_factors_are_odd_and_keep_small_multiples_apart():
    """No multiple below 2^14 of the ratio of two factors comes within 2^14 of a multiple of 2^32."""
    factors = 1, MOMENT_FACTOR, MOMENTUM_FACTOR
    assert tuple(reference.FACTORS.values()) == factors
    for one, other in itertools.combinations(factors, 2):
        ratio = other * pow(one, -1, 2**32) % 2**32
        multiples = np.arange(1, 2**14, dtype=np.uint64) * np.uint64(ratio) % np.uint64(2**32)
        assert np.minimum(multiples, np.uint64(2**32) - multiples).min() >= 2**14
