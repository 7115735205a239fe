"""How often a stochastic rounding goes up: counted over the random words, or judged from draws with a known risk.

    all words            every word of up to 16 bits, for as many values as there is time for
    bisection            the word from which on the result is another, where words beside it say that there is one such
    a sample             else, and of what draws its own numbers:  P(n KL(k / n || p) > t) <= 2 exp(-t)   (Chernoff)

Chernoff's bound holds for every n and p. A suite of T such tests whose t is ln(2 T / 10^-9) alarms at random with a
probability below 10^-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.testing.foreign import Array
from lnsnum.testing.spans import Ints, Mask

FALSE_ALARM = 1e-9
"""The probability that a suite finds what is not there, all its tests together."""

WIDEST_COUNTED = 16
"""Words of up to so many bits are counted, all of them."""

_MOST_COUNTED = 1 << 20
"""How many results are looked at for that."""

_MOST = 1 << 21
"""How many results are drawn for a sample."""

_BESIDE = 64
"""How many words beside a threshold must agree with it."""

NONE = -(1 << 62)
"""In the place of a code, where there is none."""

AskWords = Callable[[Array, Array], Ints]
"""Codes of values with a word each."""


class Counts(NamedTuple):
    """Of each value, the share of results that are the upper code, and what came out that is neither.

    `draws` is how many results a share was read off, 0 where it is exact. `stray` is such a code, or `NONE`, and `word`
    what it came out with.
    """

    share: NDArray[np.float64]
    draws: Ints
    stray: Ints
    word: Ints
    note: str


def divergence(share: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(share || p) in nats; infinite where what is impossible happened."""
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(share > 0, share * np.log(share / p), 0.0)
        down = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - p)), 0.0)
    return np.asarray(np.where(np.isnan(up + down), np.inf, up + down))


def alarm(share: NDArray[np.float64], p: NDArray[np.float64], draws: Ints | int, tests: int) -> Mask:
    """Which shares are further from p than chance allows, for one of `tests` tests."""
    limit = math.log(2 * tests / FALSE_ALARM) / np.maximum(draws, 1)
    too_far: Mask = divergence(share, p) > limit
    return too_far


class _Looker:
    """Asks, and keeps what is neither the lower nor the upper code."""

    def __init__(self, ask: AskWords, lower: Ints, upper: Ints) -> None:
        self.ask, self.lower, self.upper = ask, lower, upper
        self.stray, self.word = np.full(lower.shape, NONE, np.int64), np.zeros(lower.shape, np.int64)

    def __call__(self, x: Array, words: Array, which: Ints) -> Mask:
        """Whether the results of these values, by their index, are the upper codes."""
        out = self.ask(x[which], words)
        up: Mask = out == self.upper[which]
        strange = np.flatnonzero(~up & (out != self.lower[which]))[::-1]  # so that the first one stays
        self.stray[which[strange]], self.word[which[strange]] = out[strange], words[strange]
        return up


def by_words(ask: AskWords, x: Array, lower: Ints, upper: Ints, bits: int, random: np.random.Generator) -> Counts:
    """The shares over all words of so many bits, each as probable as another."""
    look, every = _Looker(ask, lower, upper), np.arange(x.size)
    top = (1 << bits) - 1

    def words(values: Ints | int) -> Array:
        return np.broadcast_to(np.asarray(values), x.shape).astype(np.uint32)

    first, last = look(x, words(0), every), look(x, words(top), every)
    low, high = np.zeros(x.shape, np.int64), np.full(x.shape, top)
    for _ in range(bits):
        middle = (low + high) // 2
        same = look(x, words(middle), every) == first
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    high = np.where(first == last, top + 1, high)
    share = np.where(first, high, top + 1 - high) / (top + 1)
    share = np.where(first == last, first, share)

    beside = np.concatenate([random.integers(0, top + 1, (_BESIDE, x.size)), [np.minimum(high, top)], [high - 1]])
    up = look(x, beside.reshape(-1).astype(np.uint32), np.tile(every, len(beside))).reshape(beside.shape)
    monotone = bool(np.all(up == np.where(beside < high, first, last)))

    counted, draws = 0, np.zeros(x.shape, np.int64)
    if bits <= WIDEST_COUNTED:
        which = np.unique(np.linspace(0, x.size - 1, max(1, min(x.size, _MOST_COUNTED >> bits))).astype(np.int64))
        counted = which.size
        each = max(1, (1 << 18) >> bits)
        for i in range(0, which.size, each):
            part = which[i : i + each]
            all_words = np.tile(np.arange(top + 1, dtype=np.uint32), part.size)
            exact = look(x, all_words, np.repeat(part, top + 1)).reshape(part.size, -1).mean(axis=1)
            monotone = monotone and bool(np.all(exact == share[part]))
            share[part] = exact
        if not monotone:
            rest = np.setdiff1d(every, which)
            share[rest], draws[rest] = _sampled(look, x, rest, top, random)
        note = f"counted over all {top + 1:,} words for {counted:,} values"
    elif monotone:
        note = (
            f"counted over 2^{bits} words by bisection: results change once as the word grows, as do {_BESIDE} others"
        )
    else:
        share[:], draws[:] = _sampled(look, x, every, top, random)
        note = "results do not change once as the word grows"
    if monotone and counted < x.size and counted:
        note += f", by bisection for {x.size - counted:,}"
    if draws.any():
        note += f"; {draws.max():,} drawn words for each value, a false alarm has a probability below {FALSE_ALARM:g}"
    return Counts(share, draws, look.stray, look.word, note)


def _sampled(
    look: _Looker, x: Array, which: Ints, top: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], Ints]:
    """Shares by drawn words, and how many were drawn."""
    if not which.size:
        return np.zeros(0), np.zeros(0, np.int64)
    count = _MOST // which.size
    ups = np.zeros(which.size)
    each = max(1, (1 << 18) // which.size)
    for i in range(0, count, each):
        n = min(each, count - i)
        words = random.integers(0, top + 1, n * which.size).astype(np.uint32)
        ups += look(x, words, np.tile(which, n)).reshape(n, -1).sum(axis=0)
    return ups / count, np.full(which.size, count)


def by_draws(ask: AskWords, x: Array, lower: Ints, upper: Ints) -> Counts:
    """The shares in many calls of what draws its own random numbers."""
    look, count = _Looker(ask, lower, upper), _MOST // x.size
    each = max(1, (1 << 18) // x.size)
    ups = np.zeros(x.size)
    for i in range(0, count, each):
        n = min(each, count - i)
        which = np.tile(np.arange(x.size), n)
        ups += look(x, np.zeros(which.size, np.uint32), which).reshape(n, -1).sum(axis=0)
    note = f"{count:,} draws of each value; a false alarm has a probability below {FALSE_ALARM:g}"
    return Counts(ups / count, np.full(x.size, count), look.stray, look.word, note)
