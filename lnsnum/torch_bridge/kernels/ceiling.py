"""Ceilings that follow: a scale at whose greatest magnitude too many codes are grows by whole code steps.

    m  <-  m - G  where m > G,  else [u < X[m] / c];   log_offset <- log_offset + G;       c = base^(G / 2^F) >= 2

Every number is what it was, but for those below the new floor, which are right on average. What decides is counted:
the codes of a scale at its ceiling, and their squares as integers, so it is the same in any order and for any sharding.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.scales import Scales, spread
from lnsnum.torch_bridge.kernels import grid
from lnsnum.torch_bridge.kernels.moments import RANDOM_UNIT
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part, draw_keys, fill_words_of, upper24

EVERY = 20
"""A ceiling is looked at after each 20th step of a parameter."""

SHARE = 50
"""It grows where more than a 50th of the codes are there, and at least two."""


_BLOCK = 1024
"""Elements whose scales are written out at a time, in the nearest cache."""


@kernel
def _numbers_of(numbers, walk, begin, out):  # type: ignore[no-untyped-def]
    """Which scale the elements from `begin` on have; of one scale it stands there already."""
    if numbers.size > 1:
        spread(numbers, walk, begin, out)


@kernel
def _count(codes, greatest, numbers, walk, histograms):  # type: ignore[no-untyped-def]
    own = np.full(_BLOCK, numbers[0])
    for begin in range(0, codes.size, _BLOCK):
        part = codes[begin : begin + _BLOCK]
        _numbers_of(numbers, walk, begin, own[: part.size])
        for i in range(part.size):
            histograms[own[i], np.int64(part[i]) & greatest] += 1


def histograms(codes: NDArray[Any], fmt: LNSFormat, numbers: Scales) -> NDArray[np.int64]:
    """How many codes of each scale have each magnitude, (scales, m_max + 1); NaN counts as zero.

    `numbers` says which row each element is counted in, as `Scale.numbers` does.

    >>> from lnsnum import lns4f1
    >>> histograms(np.array([7, 15, 0, 9], np.uint8), lns4f1, Scales.of(0, ())).tolist()
    [[1, 1, 0, 0, 0, 0, 0, 2]]
    """
    magnitudes = codes.reshape(-1)
    rows = _rows(numbers)
    if rows == 1:
        counted = np.bincount(magnitudes & fmt.dtype.type(fmt.max_magnitude), minlength=fmt.max_magnitude + 1)
        return counted.astype(np.int64)[None]
    out = np.zeros((rows, fmt.max_magnitude + 1), np.int64)
    if codes.size:
        _count(magnitudes, np.int64(fmt.max_magnitude), *numbers, out)
    return out


def _rows(numbers: Scales) -> int:
    return int(numbers.values.max(initial=-1)) + 1


@kernel
def _tally(codes, greatest, numbers, walk, shares, out):  # type: ignore[no-untyped-def]
    own = np.full(_BLOCK, numbers[0])
    for begin in range(0, codes.size, _BLOCK):
        part = codes[begin : begin + _BLOCK]
        _numbers_of(numbers, walk, begin, own[: part.size])
        for i in range(part.size):
            row, m = own[i], np.int64(part[i]) & greatest
            out[row, 0] += m == greatest
            out[row, 1] += shares[m]
            out[row, 2] += 1


def tallies(codes: NDArray[Any], fmt: LNSFormat, numbers: Scales) -> NDArray[np.int64]:
    """The `sums` of each scale without the histograms, which groups are too many for; `numbers` as for these.

    >>> from lnsnum import lns4f1
    >>> from lnsnum.kernels.scales import Walk
    >>> tallies(np.array([7, 15, 0, 9], np.uint8), lns4f1, Scales(np.arange(2), Walk(2)))[:, 0].tolist()
    [2, 0]
    """
    out = np.zeros((_rows(numbers), 3), np.int64)
    if codes.size:
        _tally(codes.reshape(-1), np.int64(fmt.max_magnitude), *numbers, square_shares(fmt), out)
    return out


def root_mean_squares(histogram: NDArray[np.int64], fmt: LNSFormat) -> NDArray[np.float64]:
    """The RMS of the codes of each scale, in units of its floor; 0 of none.

    The sums are exactly rounded (`math.fsum`), so they do not depend on any order.
    """
    with np.errstate(over="ignore"):  # of formats that span more than float64's range
        squares = np.square(grid.magnitudes(fmt))
    # without empty magnitudes, whose square may be infinite: 0 times that is NaN
    sums = [math.fsum(counts[counts > 0] * squares[counts > 0]) for counts in histogram]
    means: NDArray[np.float64] = np.array(sums) / np.maximum(histogram.sum(1), 1)
    return np.sqrt(means)


def floors(offsets: NDArray[np.int64], fmt: LNSFormat) -> NDArray[np.float64]:
    """The magnitude of m = 1 at each log_offset, to the nearest float64.

    >>> from lnsnum import lns8f5
    >>> floors(np.array([63]), lns8f5).tolist()
    [1.0]
    """
    return powers(offsets + (1 - fmt.bias), fmt)


def powers(steps: NDArray[np.int64], fmt: LNSFormat) -> NDArray[np.float64]:
    """base^(steps / 2^F), each to the nearest float64."""
    # the exact rule, not base ** (k / 2^F), which differs in the last bit between libraries; of many scales few differ
    different, which = np.unique(steps, return_inverse=True)
    n = [exact.nearest_float64(fmt.base, k, fmt.fraction_bits) for k in different.tolist()]
    return np.array(n, np.float64)[which].reshape(steps.shape)


class Growing(NamedTuple):
    """What becomes of scales, by their histograms."""

    grows: NDArray[np.bool_]
    blocked: NDArray[np.bool_]
    """Too many are at the ceiling, and the floor would rise beyond half of the RMS."""


ONE = 1 << 20
"""The mean square (2 c)^2 at which the new floor is half of the RMS, in the integers that decide."""


@lru_cache(maxsize=64)
def square_shares(fmt: LNSFormat) -> NDArray[np.int64]:
    """(X[m] / 2 c)^2 in units of 1 / ONE, at most 64: summed as integers, which no order of the codes changes.

    Where X[m_max] is cut, more than a 50th of the codes there are enough for any scale to grow.

    >>> from lnsnum import lns8f3
    >>> (square_shares(lns8f3)[[0, 1, 9, 17, 127]] / ONE).tolist()
    [0.0, 0.0625, 0.25, 1.0, 64.0]
    """
    # at 8 cut before it is squared, so that it is finite in every format, and n of them fit an int64 for n up to 2^37
    shares = np.square(np.minimum(grid.magnitudes(fmt) / (2.0 * factor(fmt)), 8.0))
    whole: NDArray[np.int64] = np.rint(shares * ONE).astype(np.int64)
    return whole


def sums(histogram: NDArray[np.int64], fmt: LNSFormat) -> NDArray[np.int64]:
    """What decides for each scale, (scales, 3): how many codes are at the ceiling, the sum of their square shares, and
    how many there are. Those of the shards of a parameter add up to those of the whole.

    >>> from lnsnum import lns4f1
    >>> sums(np.array([[1, 1, 0, 0, 0, 0, 0, 2]]), lns4f1).tolist()
    [[2, 8454144, 4]]
    """
    return np.stack([histogram[:, -1], histogram @ square_shares(fmt), histogram.sum(1)], axis=1)


def decide_by(sums: NDArray[np.int64]) -> Growing:
    """Which scales grow, by their `sums`: by integers alone, so that the twin in torch's operations decides alike."""
    at_ceiling, shares, sizes = sums.T
    wants = (at_ceiling >= 2) & (SHARE * at_ceiling > sizes)
    # mean >= ONE without the division: exact
    fits = shares >= sizes * ONE
    return Growing(wants & fits, wants & ~fits)


def factor(fmt: LNSFormat) -> float:
    """c = base^(G / 2^F)."""
    return exact.nearest_float64(fmt.base, grid.doubling(fmt), fmt.fraction_bits)


@lru_cache(maxsize=64)
def shares(fmt: LNSFormat) -> NDArray[np.float32]:
    """X[m] / c for m from 0 to G (to m_max, where that is less): the probability of the new floor."""
    low = grid.magnitudes(fmt)[: grid.doubling(fmt) + 1]
    return (low / factor(fmt)).astype(np.float32)


@kernel
def _grow(codes, grows, numbers, walk, steps, shares, keep, greatest, part, key0, key1):  # type: ignore[no-untyped-def]
    # as many words as stay in the first cache, instead of those of all codes. What follows branches and makes no
    # vectors: it runs in a step out of many, where a scale grows.
    words, own = np.empty(_BLOCK, np.int32), np.full(_BLOCK, numbers[0])
    for begin in range(0, codes.size, _BLOCK):
        end = min(begin + _BLOCK, codes.size)
        fill_words_of(words[: end - begin], begin, part, key0, key1)
        _numbers_of(numbers, walk, begin, own[: end - begin])
        for i in range(begin, end):
            code = np.int32(codes[i])
            m = np.int32(code & greatest)
            # m = 0 is zero and NaN, which have no scale
            if m == 0 or not grows[own[i - begin]]:
                continue
            sign = np.int32(code - m)
            # the whole code less G: as m stays above 0, nothing is borrowed from the sign's bit
            if m > steps:
                codes[i] = np.int32(code - steps)
                continue
            share = shares[m]
            if keep:  # unbiased between the floor and its negative
                share = np.float32(np.float32(0.5) + np.float32(np.float32(0.5) * share))
            chosen = upper24(words[i - begin]) < np.int32(share * RANDOM_UNIT)
            # the floor of the other sign: (m_max + 1) - sign is the sign's bit where there was none, else 0
            if keep and not chosen:
                codes[i] = np.int32(np.int32(np.int32(greatest + np.int32(1)) - sign) + np.int32(1))
            else:
                codes[i] = np.int32(sign + np.int32(1)) if chosen else np.int32(0)


def grow(
    codes: NDArray[Any],
    fmt: LNSFormat,
    grows: NDArray[np.bool_],
    numbers: Scales,
    draw: Draw,
    *,
    keep: bool = False,
    part: Part = WHOLE,
) -> None:
    """Move the codes of the scales that grow down by G, in place; `keep`: none becomes zero. `numbers` says which scale
    each element has; of a shard, `part` where it is within the parameter.

    >>> from lnsnum import lns8f3
    >>> codes = np.array([127, 200, 3, 0, 128], np.uint8)
    >>> grow(codes, lns8f3, np.array([True]), Scales.of(0, ()), Draw(0, 0, 1))
    >>> codes[[0, 1, 3, 4]].tolist()  # eight steps down, and what has none
    [119, 192, 0, 128]
    """
    keys = draw_keys(draw.seed, draw.stream, draw.step)
    # a format that spans less than G has all of its codes drawn
    steps, greatest = np.int32(min(grid.doubling(fmt), fmt.max_magnitude)), np.int32(fmt.max_magnitude)
    _grow(codes.reshape(-1), grows, *numbers, steps, shares(fmt), keep, greatest, part, keys[2], keys[3])
