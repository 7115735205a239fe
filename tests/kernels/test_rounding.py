"""Philox and random_bits: Random123's known answers, a second implementation, and that no split of the work shows."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lnsnum import random_bits
from lnsnum.kernels.rounding import philox as philox_kernel

pytestmark = pytest.mark.plain_python

KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""Counter, key and block of philox4x32 10 in Random123's `examples/kat_vectors`."""

words32 = st.integers(0, 2**32 - 1)
seeds = st.one_of(st.integers(0, 3), st.integers(0, 2**63 - 1))
starts = st.one_of(st.integers(0, 9), st.integers(2**34 - 9, 2**34), st.integers(0, 2**62 - 1))


def hexadecimal(text):
    return tuple(int(word, 16) for word in text.split())


def philox(counter, key):
    """Philox 4x32-10 from the paper's figure 2: no word ever leaves Python's integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        hi0, lo0 = divmod(0xD2511F53 * c0, 2**32)
        hi1, lo1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def block_by_kernel(counter, key):
    words = [np.empty(1, np.uint32) for _ in range(4)]
    philox_kernel(
        np.uint64(counter[0] | counter[1] << 32), counter[2], counter[3], np.uint64(key[0] | key[1] << 32), *words
    )
    return tuple(int(word[0]) for word in words)


def random_word(index, seed, stream=0, step=0):
    """The bits of element `index`, as the module's first lines say."""
    block, place = divmod(index, 4)
    return philox((block % 2**32, block >> 32, step, stream), (seed % 2**32, seed >> 32))[place]


# ------------------------------------------------------------------------------------------------------- the block


@pytest.mark.parametrize(("counter", "key", "block"), KNOWN_ANSWERS)
def test_known_answers_of_random123(counter, key, block):
    assert block_by_kernel(hexadecimal(counter), hexadecimal(key)) == hexadecimal(block)
    assert philox(hexadecimal(counter), hexadecimal(key)) == hexadecimal(block)


@given(st.tuples(*[words32] * 4), st.tuples(words32, words32))
@example((2**32 - 1,) * 4, (2**32 - 1,) * 2)
@example((0, 0, 0, 0), (0x61C88647, 0x4498517B))
def test_a_block_is_the_one_of_the_paper(counter, key):
    block = block_by_kernel(counter, key)
    assert tuple(map(int, block)) == philox(counter, key)


# ------------------------------------------------------------------------------------------------------ random_bits


@given(st.integers(0, 11), seeds, words32, words32, starts)
@example(11, 2**63 - 1, 2**32 - 1, 2**32 - 1, 2**62 - 1)
@example(8, 2**32, 1, 0, 2**34 - 2)
@example(0, 0, 0, 0, 3)
def test_each_element_takes_its_own_word(size, seed, stream, step, start):
    bits = random_bits(size, seed=seed, stream=stream, step=step, start=start)
    assert bits.tolist() == [random_word(start + i, seed, stream, step) for i in range(size)]


def test_every_head_and_tail():
    whole = random_bits(32, seed=5, stream=6, step=7)
    for start, size in itertools.product(range(9), range(18)):
        part = random_bits(size, seed=5, stream=6, step=7, start=start)
        assert part.tolist() == whole[start : start + size].tolist()


@given(st.lists(st.integers(0, 40), max_size=6), starts.map(lambda start: min(start, 2**62 - 256)))
def test_no_split_shows(sizes, start):
    parts, at = [np.empty(0, np.uint32)], start
    for size in sizes:
        parts.append(random_bits(size, seed=11, start=at))
        at += size
    assert np.concatenate(parts).tolist() == random_bits(sum(sizes), seed=11, start=start).tolist()


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3), (1, 0, 4), (2, 2, 2, 3), [3, 2]])
def test_the_shape_only_arranges(shape):
    bits = random_bits(shape, seed=3, stream=1, start=5)
    assert bits.shape == tuple(shape)
    assert bits.dtype == np.uint32
    assert bits.flags.c_contiguous
    assert bits.flags.writeable
    assert bits.reshape(-1).tolist() == random_bits(bits.size, seed=3, stream=1, start=5).tolist()


def test_an_integer_is_a_shape():
    assert random_bits(6, seed=1).tolist() == random_bits((6,), seed=1).tolist()


def test_each_call_draws_the_same():
    first = random_bits(9, seed=2, stream=3, step=4)
    random_bits(100, seed=2, stream=3, step=5)
    np.random.default_rng(0).random(3)
    assert random_bits(9, seed=2, stream=3, step=4).tolist() == first.tolist()


@pytest.mark.parametrize("which", ["seed", "stream", "step", "start"])
def test_each_number_matters(which):
    numbers = {"seed": 0, "stream": 0, "step": 0, "start": 0}
    changed = numbers | {which: 64}
    assert not np.any(random_bits(64, **numbers) == random_bits(64, **changed))


@pytest.mark.parametrize("integer", [int, np.int64, np.uint64, np.int32])
def test_numbers_of_numpy_are_numbers(integer):
    bits = random_bits(5, seed=integer(9), stream=integer(8), step=integer(7), start=integer(6))
    assert bits.tolist() == [random_word(6 + i, 9, 8, 7) for i in range(5)]


@pytest.mark.parametrize(("what", "width"), [("seed", 63), ("stream", 32), ("step", 32), ("start", 62)])
def test_numbers_out_of_range(what, width):
    greatest = {"seed": 0} | {what: 2**width - 1}
    assert random_bits(1, **greatest).shape == (1,)
    for wrong in (-1, 2**width, -(2**70), 2**70):
        with pytest.raises(ValueError, match=rf"^{what}={wrong} is out of range: 0 to 2\^{width} - 1$"):
            random_bits(1, **({"seed": 0} | {what: wrong}))


def test_the_seed_is_asked_for_by_name():
    with pytest.raises(TypeError, match="seed"):
        random_bits(4)
    with pytest.raises(TypeError):
        random_bits(4, 0)


@pytest.mark.parametrize("shape", [-1, (2, -3), (-2, -3), (0, -1), (-1, 0)])
def test_no_shape_is_negative(shape):
    with pytest.raises(ValueError, match=r"has a negative length"):
        random_bits(shape, seed=0)
