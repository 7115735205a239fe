"""Look-ups of words in registers: every index of tables of every size, at every place of a vector."""

import numpy as np
import pytest

from lnsnum.kernels.byte_tables import has_byte_tables
from lnsnum.kernels.word_tables import in_registers, look_up_words


@pytest.mark.parametrize("size", [1, 32, 86, 128, 129, 200, 256, 257, 454, 512])
def test_every_index_at_every_place(size):
    if not has_byte_tables():
        pytest.skip("this processor has no tables in registers")
    table = np.random.default_rng(size).integers(-(1 << 15), 1 << 15, size).astype(np.int16)
    words = in_registers(table)
    assert words.size == max(128, 1 << (size - 1).bit_length())
    place = np.concatenate([np.roll(np.resize(np.arange(size, dtype=np.int16), 512), i) for i in range(32)])
    out = np.full(place.size + 32, 7, np.int16)
    look_up_words(words, place, out, place.size - 5)
    np.testing.assert_array_equal(out[: place.size], table[place])
    np.testing.assert_array_equal(out[place.size :], 7)


def test_tables_that_stay_in_memory():
    assert in_registers(np.zeros(513, np.int16)).size == 0
