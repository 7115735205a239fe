"""Arrays drawn as arrays: a few strings of bytes that Hypothesis shrinks byte by byte, whatever the size.

    rank 0, 1, 2, ...      ->      1, -1, b^h, -b^h, b^-h, -b^-h, b^2h, ...,      h = 2^-F, and last zero and NaN

A rank says how far a code is from the simplest one, so zero bytes are ones, and a smaller byte is a simpler number. A
draw for each element would cost Hypothesis tens of times as much, and a thousand of them fail its health check.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from lnsnum.format import LNSFormat

Strategy = st.SearchStrategy
Ints = NDArray[np.int64]
Shape = int | tuple[int, ...]

_PERIOD = {1: 1021, 2: 509, 3: 337, 4: 251}
"""How many elements have bytes of their own, by the width of one: about a kilobyte of the eight that Hypothesis lets an
example have. What follows repeats them. Primes, so that rows and blocks of a power of two do not repeat each other."""

_LAST = 8
"""How many ranks are the ends. In 2^32 they would hardly come up, so they have some of the greatest bytes: none, or 4
to 128 of 256."""

_RARE = 4
"""How many elements may be replaced by a special, whatever the width and the size of the array: they stay while these
shrink."""

_NOT_RARE = 160
"""Of 256 values of the byte that says whether, how many mean no."""

_HEAD = 2 + 3 * _RARE

_SPARE = 256
"""Smaller arrays take strings of up to this length, longer than they need: what Hypothesis drew for a larger shape or a
wider format is then still one for a smaller, and shrinks with it."""


def _read(words: tuple[bytes, ...], size: int, numbers: int, specials: int, drawn: int) -> Ints:
    """The ranks. First come how far to shift them, how many bytes mean ends, and whether, which and where specials are.

    Then a string has the greatest byte of every element, another the next: a narrower format reads fewer.
    """
    (shift, much, *rare), *planes = words
    count = numbers + specials
    tops, *lower = (np.frombuffer(plane, np.uint8)[:drawn].astype(np.int64) for plane in planes)
    plain, low = tops, tops
    for low in lower:
        plain = plain * 256 + low
    plain = plain % count >> (shift * ((count - 1).bit_length() + 1) >> 8)
    ends = 1 << (much >> 5) if much >> 6 else 0
    # the last rank with the lowest bits of the plain one: an element that need not be an end shrinks to it
    array = np.where(tops >= 256 - ends, numbers - 1 - (numbers - 1 - low) % min(numbers, _LAST), plain)
    array = np.resize(array, size)
    for whether, high, place in zip(rare[::3], rare[1::3], rare[2::3], strict=True):
        if specials and whether >= _NOT_RARE:
            array[(high * 256 + place) * size >> 16] = numbers + whether % specials
    return array


@lru_cache(maxsize=4096)
def ranks(size: int, numbers: int, specials: int = 0) -> Strategy[Ints]:
    """Arrays of `size` integers from 0 to numbers + specials - 1, at most 2^32, that shrink to zeros one by one.

    The last ranks are those of specials, drawn more often. All others are divided by one power of two: what matters of
    a distance from one is its logarithm, and in an array that spreads over the whole range every sum is its greatest
    term.
    """
    if not size:
        return st.builds(np.zeros, st.just(0), st.just(np.int64))
    width = max(1, ((numbers + specials - 1).bit_length() + 7) // 8)
    drawn = min(size, _PERIOD[width])
    plane = st.binary(min_size=drawn, max_size=max(drawn, _SPARE))
    words = st.tuples(st.binary(min_size=_HEAD, max_size=_HEAD), *[plane] * width)
    return words.map(lambda strings: _read(strings, size, numbers, specials, drawn))


def about_zero(rank: Any) -> Any:
    """0, 1, -1, 2, -2, ... of the ranks 0, 1, 2, 3, 4, ..., integers or arrays of them."""
    return ((rank + 1) >> 1) * (2 * (rank & 1) - 1)


class Ranking(NamedTuple):
    """The codes of a format by rank, those that are to be drawn."""

    fmt: LNSFormat
    nan: bool
    zero: bool
    negative: bool

    @property
    def specials(self) -> list[int]:
        """The codes without a logarithm."""
        return [0] * self.zero + [self.fmt.nan_code] * self.nan

    @property
    def numbers(self) -> int:
        """How many there are besides the specials, whose ranks come after."""
        return (2 * self.fmt.max_log + 1) << self.negative

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return self.numbers + len(self.specials)

    def _number(self, rank: Any) -> Any:
        sign = rank & self.negative
        return about_zero(rank >> self.negative) + self.fmt.bias + sign * self.fmt.sign_bit

    def code(self, rank: int) -> int:
        """The code of a rank."""
        return int(self._number(rank)) if rank < self.numbers else self.specials[rank - self.numbers]

    def codes(self, drawn: Ints) -> NDArray[Any]:
        """The codes of an array of ranks."""
        codes = self._number(drawn)
        for i, special in enumerate(self.specials):
            codes[drawn == self.numbers + i] = special
        return codes.astype(self.fmt.dtype)  # type: ignore[no-any-return]


def checked_shape(shape: object) -> tuple[int, ...]:
    """A shape as a tuple; TypeError or ValueError where it is none."""
    sides = shape if isinstance(shape, tuple) else (shape,)
    for side in sides:
        if isinstance(side, bool) or not isinstance(side, (int, np.integer)):
            raise TypeError(f"shape={shape!r} is no shape: give an integer, a tuple of integers, or a strategy")
        if side < 0:
            raise ValueError(f"shape={shape!r} has a side below 0: give sides of 0 or more")
    return tuple(int(side) for side in sides)
