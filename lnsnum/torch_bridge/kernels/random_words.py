"""One random word for each element and step: a keyed mixing hash of the element's index.

    x  =  low * 0x9E3779B9 + high * 0xBB67AE85 + key0            index = 2^32 high + low; all modulo 2^32
    x ^= x >> 16;  x *= 0x7FEB352D;  x ^= key1;  x ^= x >> 15;  x *= 0x846CA68B;  x ^= x >> 16;  R = x

The keys are words of Philox at (seed, stream, step), so R is a pure function of these four numbers, like
`lnsnum.random_bits`, at a tenth of its cost. For given keys the map of 2^32 indices to words is one to one: words are
exactly uniform over all of them. The second key stands between the multiplications; before them alone, the words of two
steps would be the same ones in another order. Indices enter as multiples of the golden ratio, at the price of an
addition: as they are, neighbours differ in so few bits that two multiplications leave their words dependent (those
4096 apart by 1.6 % of the density). For rounding only: whoever sees some words can find the keys.

Source of the constants: Wellons, the lowbias32 mixing function (public domain).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.rounding import RANDOM_BLOCKS, fill_random_words

KEY_INDEX = 1 << 61
"""The element of `random_bits` whose word is the first key: beyond the elements of any array."""

MOMENT_FACTOR, MOMENTUM_FACTOR = 0x9E3779B1, 0x85EBCA77
"""An element has one random word R in a step. Its code takes R, its second moment R times the first of these odd
numbers modulo 2^32, its momentum R times the second. Each is uniform, and small multiples of two of them are far from
each other: none below 2^14 come within 2^14."""

LOW_FACTOR, HIGH_FACTOR = 0x9E3779B9, 0xBB67AE85
FIRST_FACTOR, SECOND_FACTOR = 0x7FEB352D, 0x846CA68B


class Draw(NamedTuple):
    """By what the random words of an array are drawn."""

    seed: int
    stream: int
    """Which array of the optimizer."""
    step: Any
    """How often it has been drawn before; of the twin, a tensor too."""


class Part(NamedTuple):
    """Where the elements of a shard are within the whole parameter: rows of `length` elements, `stride` apart, from the
    element `first` on. What lies in one piece has length = stride."""

    first: int
    length: int
    stride: int


WHOLE = Part(0, 1, 1)
"""All of a parameter, or a piece of which the first element's index is given by itself."""


def signed(word: int) -> np.int32:
    """The int32 of the same 32 bits.

    >>> signed(0xFFFFFFFE)
    np.int32(-2)
    """
    return np.int32(word - (1 << 32) if word >> 31 else word)


# Products of int32 keep their lower 32 bits, as those of uint32 do. Numba widens both to 64: each result is cut back.
_LOW, _HIGH, _FIRST, _SECOND = map(signed, (LOW_FACTOR, HIGH_FACTOR, FIRST_FACTOR, SECOND_FACTOR))
_MOMENT, _MOMENTUM = signed(MOMENT_FACTOR), signed(MOMENTUM_FACTOR)
_UNIT24 = np.float32(2.0**-24)
_LOW16, _LOW17, _LOW24 = np.int32(0xFFFF), np.int32(0x1FFFF), np.int32(0xFFFFFF)


@kernel
def draw_keys(seed, stream, step):  # type: ignore[no-untyped-def]
    """The four key words of a step, int32: two for the step itself, two for a scale that grows in it."""
    # four words are one block of Philox
    words = np.empty(4, np.uint32)
    fill_random_words(words, KEY_INDEX, seed, stream, step, np.empty((4, RANDOM_BLOCKS), np.uint32))
    return words.view(np.int32)


@kernel
def fill_words(out, start, key0, key1):  # type: ignore[no-untyped-def]
    """Write the words of the elements `start`, `start + 1`, ... as int32."""
    done = 0
    while done < out.size:
        # int64 here, once for each stretch; within it the index is an int32 and all is modulo 2^32
        first = start + done
        count = min(out.size - done, 4294967296 - (first & 4294967295))  # up to where the upper word changes
        low, high = np.int64(first & 4294967295), np.int64(first >> 32)
        # (low + i) LOW = low LOW + i LOW modulo 2^32: what does not depend on i is taken out of the loop
        begin = np.int32(np.int32(np.int32(low) * _LOW) + np.int32(key0 + np.int32(np.int32(high) * _HIGH)))
        # a slice, as an index that is a sum might be negative for all that Numba knows, and counted from the end: each
        # word would be stored by an address of its own
        part = out[done : done + count]
        for i in range(count):
            # each operation is cut to int32, since Numba widens them all: a vector has half as many lanes of 64 bits
            x = np.int32(begin + np.int32(np.int32(i) * _LOW))
            x = np.int32(x ^ np.int32(np.int32(x >> np.int32(16)) & _LOW16))  # int32 shifts copy the sign: masked off
            # the second key between the products, not before them: see above
            x = np.int32(np.int32(x * _FIRST) ^ key1)
            x = np.int32(x ^ np.int32(np.int32(x >> np.int32(15)) & _LOW17))
            x = np.int32(x * _SECOND)
            part[i] = np.int32(x ^ np.int32(np.int32(x >> np.int32(16)) & _LOW16))
        done += count


@kernel
def fill_words_of(out, start, part, key0, key1):  # type: ignore[no-untyped-def]
    """The same of the elements of a shard, `start` its first among them: each draws what it would within the whole."""
    if part.length == part.stride:
        fill_words(out, part.first + start, key0, key1)
        return
    done = 0
    while done < out.size:
        row, column = (start + done) // part.length, (start + done) % part.length
        # to the end of a row: within it indices follow each other
        end = done + min(out.size - done, part.length - column)
        fill_words(out[done:end], part.first + row * part.stride + column, key0, key1)
        done = end


@kernel
def upper24(word):  # type: ignore[no-untyped-def]
    """The upper 24 bits, which decide: from 0 to 2^24 - 1."""
    # the mask drops the copies of the sign that an int32's shift brings in. 24 bits, as a float32 holds them exactly.
    return np.int32(np.int32(word >> np.int32(8)) & _LOW24)


@kernel
def centred(word):  # type: ignore[no-untyped-def]
    """u - 1/2 as a float32: the upper 24 bits as a signed number, the last of them set, over 2^24."""
    # odd, so u is never 0, 1 nor 1/2, and as many lie on either side of each multiple of 2^-23; exact, with u too
    return np.float32(np.float32(np.int32(np.int32(word >> np.int32(8)) | np.int32(1))) * _UNIT24)


@kernel
def moment_word(word):  # type: ignore[no-untyped-def]
    """The word of the second moment."""
    return np.int32(word * _MOMENT)


@kernel
def momentum_word(word):  # type: ignore[no-untyped-def]
    """The word of the momentum."""
    return np.int32(word * _MOMENTUM)
