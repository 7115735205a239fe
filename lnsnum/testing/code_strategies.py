"""Formats, codes, pairs of codes with a chosen gap, scales, tensors.

    z  =  |E_a - E_b|,      a + b  =  max(E_a, E_b) + sb(z)  or  max(E_a, E_b) + db(z)

All that a sum depends on besides the edges is z: `pairs` draws it, or takes it. Arrays are drawn as arrays
(`lnsnum.testing.ranks`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, check_choice
from lnsnum.kernels.codes import LogOffset
from lnsnum.kernels.groups import GREATEST_GROUP, LEAST_GROUP, GroupOffsets, check_group_size
from lnsnum.tensor import LNSTensor
from lnsnum.testing.ranks import Ranking, Shape, Strategy, about_zero, checked_shape, ranks

Signs = Literal["any", "same", "opposite"]


def bases() -> Strategy[float]:
    """Bases of logarithms: 2, then common ones, then any float64 > 1, close to 1 and huge ones among them.

    >>> from hypothesis import find, settings
    >>> find(bases(), lambda base: base < 3, settings=settings(database=None))
    2.0
    """
    common = [2.0, 4.0, 1.5, 10.0, math.e, 16.0, math.sqrt(2), math.nextafter(1.0, 2.0), 1.0 + 2.0**-20]
    close = st.integers(1, 52).map(lambda k: 1.0 + 2.0**-k)
    moderate = st.floats(1.0, 20.0, exclude_min=True)
    anything = st.floats(1.0, exclude_min=True, allow_infinity=False)
    return st.one_of(st.just(2.0), st.sampled_from(common), close, moderate, anything)


def formats(
    min_bits: int = 3, max_bits: int = 32, *, bases: float | Sequence[float] | Strategy[float] = 2.0
) -> Strategy[LNSFormat]:
    """Formats of `min_bits` to `max_bits` bits with any number of fraction bits.

    Args:
        min_bits, max_bits: 3 to 32.
        bases: a base, several, or a strategy: `formats(bases=bases())` draws them all.

    >>> from hypothesis import find, settings
    >>> find(formats(bases=[2.0, 10.0]), lambda fmt: fmt.bits > 4, settings=settings(database=None))
    LNSFormat(5, 0)
    """
    if not 3 <= min_bits <= max_bits <= 32:
        raise ValueError(f"min_bits={min_bits}, max_bits={max_bits} are out of range: 3 to 32, the lesser first")
    if not isinstance(bases, Strategy):
        bases = st.just(bases) if isinstance(bases, (int, float)) else st.sampled_from(bases)
    widths = st.integers(min_bits, max_bits).flatmap(lambda bits: st.tuples(st.just(bits), st.integers(0, bits - 2)))
    return st.tuples(widths, bases).map(lambda drawn: LNSFormat(*drawn[0], base=drawn[1]))


@lru_cache(maxsize=1024)
def _code(ranking: Ranking) -> Strategy[int]:
    last = min(ranking.ranks, 8) - 1
    rank = st.one_of(
        st.integers(0, ranking.ranks - 1), st.integers(0, last).map(lambda below: ranking.ranks - 1 - below)
    )
    return rank.map(ranking.code)


@lru_cache(maxsize=1024)
def _codes(ranking: Ranking, shape: tuple[int, ...]) -> Strategy[Any]:
    return ranks(math.prod(shape), ranking.numbers, len(ranking.specials)).map(
        lambda drawn: ranking.codes(drawn).reshape(shape)
    )


def codes(
    fmt: LNSFormat | str,
    *,
    shape: Shape | Strategy[Shape] | None = None,
    nan: bool = True,
    zero: bool = True,
    negative: bool = True,
) -> Strategy[Any]:
    """Codes of a format: Python integers, or arrays of fmt.dtype where a shape is given.

    Zero and NaN come up often, so do the ends of the range. Shrinks to the code of 1, or to one near it; an array to
    ones, but for few elements. Of arrays of more than some hundred elements the first are drawn, and repeated.

    Args:
        fmt: the format, or its name.
        shape: of the arrays: an integer, a tuple, or a strategy such as `hypothesis.extra.numpy.array_shapes()`.
        nan, zero, negative: whether to draw these.

    >>> from hypothesis import find, settings
    >>> find(codes("lns8f5", shape=3), lambda codes: 64 < codes[0] < 128, settings=settings(database=None))
    array([65, 64, 64], dtype=uint8)
    """
    ranking = Ranking(LNSFormat.of(fmt), bool(nan), bool(zero), bool(negative))
    if shape is None:
        return _code(ranking)
    if isinstance(shape, Strategy):
        return shape.flatmap(lambda drawn: _codes(ranking, checked_shape(drawn)))
    return _codes(ranking, checked_shape(shape))


def pairs(
    fmt: LNSFormat | str, z: int | Strategy[int] | None = None, *, signs: Signs = "any"
) -> Strategy[tuple[int, int]]:
    """Two codes of numbers whose logarithms are z code steps apart, either of them the greater.

    Args:
        fmt: the format, or its name.
        z: the gap, 0 to 2 max_log, or a strategy; where it is left out, gaps of every size: it is their logarithm that
            matters.
        signs: "any", "same" or "opposite".

    Raises:
        ValueError: where no two numbers of the format are that far apart; for drawn gaps, when they are drawn.

    >>> from hypothesis import find, settings
    >>> find(pairs("lns8f5", 3, signs="opposite"), lambda pair: True, settings=settings(database=None))
    (64, 189)
    """
    fmt = LNSFormat.of(fmt)
    check_choice("signs", signs, Signs)
    return placed(fmt, _gaps(fmt, z)).flatmap(lambda logs: signed(fmt, logs, signs))


def _gaps(fmt: LNSFormat, z: int | Strategy[int] | None) -> Strategy[int]:
    if z is None:
        sizes = st.integers(0, fmt.bits - 2)
        return sizes.flatmap(lambda k: st.integers((1 << k) - 1, (1 << (k + 1)) - 2))
    if isinstance(z, Strategy):
        return z.map(lambda drawn: _checked_gap(fmt, drawn))
    return st.just(_checked_gap(fmt, z))


def _checked_gap(fmt: LNSFormat, z: object) -> int:
    if isinstance(z, bool) or not isinstance(z, (int, np.integer)):
        raise TypeError(f"z={z!r} is a {type(z).__name__}: give an integer number of code steps, or a strategy")
    if not 0 <= z <= 2 * fmt.max_log:
        raise ValueError(f"z={z} is out of range: 0 to {2 * fmt.max_log}, no numbers of {fmt.name} are further apart")
    return int(z)


def placed(fmt: LNSFormat, gaps: Strategy[int]) -> Strategy[tuple[int, int]]:
    """Two logarithms a gap apart, the greater as near to that of 1 as may be, then swapped or not."""
    logs = gaps.flatmap(lambda z: st.integers(z - fmt.max_log, fmt.max_log).map(lambda greater: (greater, greater - z)))
    return st.tuples(logs, st.booleans()).map(lambda drawn: drawn[0][::-1] if drawn[1] else drawn[0])


def signed(fmt: LNSFormat, logs: tuple[int, ...], signs: Signs) -> Strategy[Any]:
    """Codes of the numbers of these logarithms: the last has the sign of the first, the other, or any as the rest."""
    count = len(logs)
    words = st.integers(0, (1 << count if signs == "any" else 1 << (count - 1)) - 1)

    def pack(word: int) -> tuple[int, ...]:
        if signs != "any":
            word |= (word & 1 ^ (signs == "opposite")) << (count - 1)
        return tuple(log + fmt.bias + fmt.sign_bit * (word >> i & 1) for i, log in enumerate(logs))

    return words.map(pack)


# ------------------------------------------------------------------------------------------------- scales and tensors


@lru_cache(maxsize=1024)
def _scale(fmt: LNSFormat, limit: int) -> Strategy[int]:
    near = min(2 * fmt.max_log, limit)
    return st.one_of(st.just(0), st.integers(-near, near), st.integers(-limit, limit), st.sampled_from([limit, -limit]))


@lru_cache(maxsize=1024)
def _channels(fmt: LNSFormat, limit: int, shape: tuple[int, ...]) -> Strategy[LogOffset]:
    """One scale, and how far each channel is from it."""

    def scales_of(middle: int, drawn: Any) -> LogOffset:
        around = np.clip(middle + about_zero(drawn), -limit, limit)
        return np.asarray(around, np.int32).reshape(shape)

    return st.builds(scales_of, _scale(fmt, limit), ranks(math.prod(shape), 2 * limit + 1))


@lru_cache(maxsize=1024)
def _any_channels(fmt: LNSFormat, limit: int, shape: tuple[int, ...]) -> Strategy[LogOffset]:
    """An integer, or arrays that keep some of the sides, with or without the dimensions before these."""

    def channels(word: int) -> tuple[int, ...]:
        kept = tuple(side if word >> i & 2 else 1 for i, side in enumerate(shape))
        first = next((i for i in range(len(shape)) if word >> i & 2), len(shape) - 1)
        return kept[first:] if word & 1 else kept

    words = st.integers(0, (2 << len(shape)) - 1)
    kinds = [_scale(fmt, limit), words.flatmap(lambda word: _channels(fmt, limit, channels(word)))]
    if shape[-1] > LEAST_GROUP:
        sizes = st.integers(LEAST_GROUP, min(shape[-1] - 1, GREATEST_GROUP))
        some = st.tuples(sizes, st.integers(0, (1 << (len(shape) - 1)) - 1))
        kinds.append(some.flatmap(lambda drawn: _groups(fmt, limit, shape, len(shape) - 1, *drawn)))
    return st.one_of(kinds)


def _groups(fmt: LNSFormat, limit: int, shape: tuple[int, ...], axis: int, size: int, same: int) -> Strategy[LogOffset]:
    """One scale for each group along an axis; those of the others that are bits of `same` have the same ones."""
    others = [1 if same >> i & 1 else side for i, side in enumerate(shape)]
    own = (*others[:axis], -(-shape[axis] // size), *others[axis + 1 :])
    return _channels(fmt, limit, own).map(lambda offsets: GroupOffsets(offsets, size, axis=axis - len(shape)))


def scales(
    fmt: LNSFormat | str,
    shape: Shape | None = None,
    *,
    axis: int | None = None,
    group_size: int | None = None,
    limit: int = MAX_LOG_OFFSET,
) -> Strategy[LogOffset]:
    """log_offsets: a tensor's, or one for each channel or group. 0, small ones, any, and both ends; shrinks to 0.

    Args:
        fmt: the format, or its name: small is within its range, where two tensors overlap.
        shape: of the tensor. Where it is given, int32 arrays that broadcast to it are drawn as well as integers, and
            `GroupOffsets` where the last axis has more elements than a group; these scales lie about a common one.
        axis: of the channels: arrays alone, with one scale for each index of this axis.
        group_size: `GroupOffsets` alone, along `axis`, or the last.
        limit: the greatest size. At 2^30, the default, the values are beyond every float.

    >>> from hypothesis import find, settings
    >>> find(scales("lns8f3"), lambda scale: scale < -5, settings=settings(database=None))
    -6
    >>> find(scales("lns8f3", (2, 4), axis=0), lambda scale: True, settings=settings(database=None))
    array([[0],
           [0]], dtype=int32)
    """
    fmt = LNSFormat.of(fmt)
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or not 0 <= limit <= MAX_LOG_OFFSET:
        raise ValueError(f"limit={limit!r} is out of range: an integer from 0 to 2^30")
    sides = () if shape is None else checked_shape(shape)
    if axis is None and group_size is None:
        return _any_channels(fmt, limit, sides) if sides else _scale(fmt, limit)
    axis = -1 if axis is None else axis
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -len(sides) <= axis < len(sides):
        raise ValueError(f"axis={axis!r} is out of range for shape={shape!r}: give one of its axes")
    axis %= len(sides)
    if group_size is not None:
        return _groups(fmt, limit, sides, axis, check_group_size(group_size), 0)
    return _channels(fmt, limit, tuple(side if i == axis else 1 for i, side in enumerate(sides)))


def tensors(
    fmt: LNSFormat | str | Strategy[LNSFormat] | None = None,
    shape: Shape | Strategy[Shape] | None = None,
    *,
    log_offset: LogOffset | Strategy[LogOffset] | None = None,
    scalars: bool = False,
    empty: bool = False,
    nan: bool = True,
    zero: bool = True,
    negative: bool = True,
) -> Strategy[LNSTensor]:
    """Tensors.

    Args:
        fmt: the format, its name, or a strategy; any format where it is left out.
        shape: an integer, a tuple, or a strategy; one to three dimensions where it is left out.
        log_offset: an integer, an array that broadcasts to the shape, groups, or a strategy; where it is left out,
            `scales` of the shape. At large ones the values are beyond every float.
        scalars, empty: whether to draw shapes without dimensions, and with dimensions of size 0, too.
        nan, zero, negative: as for `codes`.

    >>> from hypothesis import find, settings
    >>> find(tensors("lns8f3"), lambda x: x.ndim == 2, settings=settings(database=None))
    LNSTensor.from_float([[1.]], 'lns8f3')
    """
    if fmt is None:
        fmt = formats(bases=bases())
    elif not isinstance(fmt, Strategy):
        fmt = st.just(LNSFormat.of(fmt))
    if shape is None:
        shape = st_numpy.array_shapes(min_dims=0 if scalars else 1, min_side=0 if empty else 1, max_dims=3, max_side=6)
    elif not isinstance(shape, Strategy):
        shape = st.just(checked_shape(shape))
    asked = bool(nan), bool(zero), bool(negative)

    @st.composite
    def tensor(draw: st.DrawFn) -> LNSTensor:
        drawn = draw(fmt)
        array = draw(_codes(Ranking(drawn, *asked), checked_shape(draw(shape))))
        offset = scales(drawn, array.shape) if log_offset is None else log_offset
        return LNSTensor(array, drawn, log_offset=draw(offset) if isinstance(offset, Strategy) else offset)

    return tensor()
