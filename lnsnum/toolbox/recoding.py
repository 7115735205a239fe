"""Blocks of a tensor in another format: floats to codes, codes to codes, floats to floats, each number rounded once.

    log_offset  =  E of the greatest  -  E of the format's greatest

is the least scale at which nothing finite saturates; there is one for the tensor, one for each channel, an index of the
first dimension, or one for each group along the last. What comes out does not depend on where blocks begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum.conversion import rescale
from lnsnum.encoding import encode, fit_log_offset
from lnsnum.files.layout import Description
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Rounding, Underflow
from lnsnum.kernels.codes import WIDEST_TABLE, ChannelOffset, Codes, LogOffset
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.kernels.rounding import random_bits
from lnsnum.toolbox.values import Runs, Scale, distinct_of

__all__ = [
    "Greatest",
    "Shared",
    "Target",
    "to_codes",
    "to_floats",
]

Integers = NDArray[np.int64]
Where = slice | NDArray[np.intp]

_LONG_ROW = 1024
"""Elements of a channel from which on it is encoded by itself; shorter ones are put together by their scales."""

_NOTHING = -(1 << 40)
"""Below every E."""


class Shared(NamedTuple):
    """Which elements of a tensor share a scale: all, those of an index of the first dimension, or those of a group."""

    runs: Runs
    shape: tuple[int, ...]
    """That of the array of scales; none where all share one."""
    group_size: int | None

    @classmethod
    def of(cls, shape: tuple[int, ...], *, per_channel: bool = False, group_size: int | None = None) -> Shared:
        """Of a tensor of this shape; of one without two dimensions all share one."""
        if len(shape) > 1 and group_size is not None:
            runs = Runs(group_size, shape[-1])
            return cls(runs, (*shape[:-1], runs.per_line if shape[-1] else 0), group_size)
        if len(shape) > 1 and per_channel:
            return cls(Runs(math.prod(shape[1:])), (shape[0], *(1 for _ in shape[1:])), None)
        return cls(Runs(math.prod(shape)), (), None)

    def log_offset(self, offsets: Integers) -> LogOffset:
        """The scales, one for each run, as a file has them."""
        if offsets.size == 1:
            return int(offsets[0])
        own = offsets.astype(np.int32).reshape(self.shape)
        return own if self.group_size is None or self.shape[-1] == 1 else GroupOffsets(own, self.group_size)


class Target(NamedTuple):
    """What a tensor is to be: a format, how many share a scale, and how to round."""

    fmt: LNSFormat
    shared: Shared
    rounding: Rounding
    underflow: Underflow
    seed: int
    stream: int


# --------------------------------------------------------------------------------------------------------- fitting


class Greatest:
    """The greatest finite magnitudes of a tensor's channels, of numbers above and below zero, block by block.

    Args:
        told: the tensor. Of codes, it is E that is kept.
        shared: which of its elements share a scale.
    """

    def __init__(self, told: Description, shared: Shared) -> None:
        self._told, self._runs = told, shared.runs
        scales = math.prod(shared.shape)
        self._scale = Scale(told.log_offset, told.shape)
        self._nothing = 0 if told.fmt is None else _NOTHING
        self._above, self._below = (
            np.full(scales, self._nothing, np.float64 if told.fmt is None else np.int64) for _ in range(2)
        )

    def add(self, block: NDArray[Any], begin: int) -> None:
        """Look at the elements from number `begin` on."""
        if self._told.fmt is None:
            wide = block if block.dtype in (np.float32, np.float64) else block.astype(np.float32)
            if not (math.isfinite(wide.max()) and math.isfinite(wide.min())):
                wide = np.where(np.isfinite(wide), wide, wide.dtype.type(0))
            self._enter(self._above, wide, begin)
            self._enter(self._below, -wide, begin)
            return
        fmt = self._told.fmt
        m = block & block.dtype.type(fmt.max_magnitude)
        log = m.astype(np.int64) + (self._scale.of(begin, block.size) - np.int64(fmt.bias))
        negative = block > fmt.sign_bit
        self._enter(self._above, np.where((m > 0) & ~negative, log, _NOTHING), begin)
        self._enter(self._below, np.where(negative, log, _NOTHING), begin)

    def _enter(self, greatest: NDArray[Any], values: NDArray[Any], begin: int) -> None:
        first, lengths = self._runs.lengths(begin, values.size)
        part = greatest[first : first + lengths.size]
        np.maximum(part, np.maximum.reduceat(values, np.cumsum(lengths) - lengths), out=part)

    def fit(self, fmt: LNSFormat, rounding: Rounding) -> Integers:
        """The log_offset of each channel, as `fit_log_offset` and `rescale` fit it; 0 where all finite are zero.

        All at once, by converting into a format of 32 bits; what that has no room for, one by one.

        Raises:
            ValueError: where it would be beyond 2^30.
        """
        wide = LNSFormat(32, fmt.fraction_bits, base=fmt.base)
        logs = np.full(self._above.shape, _NOTHING)
        settled = np.full(self._above.shape, True)
        for greatest, negative, away in ((self._above, False, "up"), (self._below, True, "down")):
            mode = cast(Rounding, away) if rounding.startswith("stochastic") else rounding
            m = self._codes(greatest, wide, mode, negative=negative).astype(np.int64) & wide.max_magnitude
            there = greatest != self._nothing
            logs = np.maximum(logs, np.where(there, m - wide.bias, _NOTHING))
            settled &= ~there | ((m > 1) & (m < wide.max_magnitude))
        offsets = np.where(logs == _NOTHING, 0, np.maximum(logs - fmt.max_log, -MAX_LOG_OFFSET))
        settled &= offsets <= MAX_LOG_OFFSET
        for i in np.flatnonzero(~settled):
            offsets[i] = self._fit_one(int(i), fmt, rounding)
        return offsets

    def _codes(self, greatest: NDArray[Any], fmt: LNSFormat, rounding: Rounding, *, negative: bool) -> Codes:
        source = self._told.fmt
        if source is None:
            return encode(-greatest if negative else greatest, fmt, rounding=rounding)
        m, offsets = _as_codes(greatest, source)
        codes = (m + (source.sign_bit if negative else 0)).astype(source.dtype)
        return rescale(
            codes, source, log_offset=offsets, out_format=fmt, out_log_offset=0, rounding=rounding
        )[0]  # fmt: skip

    def _fit_one(self, i: int, fmt: LNSFormat, rounding: Rounding) -> int:
        pair, source = np.array([self._above[i], self._below[i]]), self._told.fmt
        if source is None:
            return fit_log_offset(pair * [1.0, -1.0], fmt, rounding=rounding)
        m, offsets = _as_codes(pair, source)
        codes = np.where(pair == _NOTHING, 0, m + np.array([0, source.sign_bit])).astype(source.dtype)
        bits = np.zeros(1, np.uint32) if rounding.startswith("stochastic") else None
        return rescale(
            codes, source, log_offset=offsets, out_format=fmt, out_log_offset="fit", rounding=rounding, random_bits=bits
        )[1]  # fmt: skip


def _as_codes(log: Integers, fmt: LNSFormat) -> tuple[Integers, NDArray[np.int32]]:
    """Magnitudes and offsets that have these E."""
    m = np.clip(log + fmt.bias, 1, fmt.max_magnitude)
    return m, np.where(log == _NOTHING, 0, log + fmt.bias - m).astype(np.int32)


# -------------------------------------------------------------------------------------------------------- converting


def to_codes(block: NDArray[Any], told: Description, scale: Scale, to: Target, new: Scale, begin: int) -> Codes:
    """The codes of the elements from number `begin` of a tensor on, of floats or of codes.

    Args:
        block: the elements, of one dimension.
        told: what the tensor is.
        scale: its scale, `Scale(told.log_offset, told.shape)`.
        to: what it is to be.
        new: its scale then.
        begin: the number of the first element.
    """
    options: dict[str, Any] = {"rounding": to.rounding, "underflow": to.underflow}
    bits = None
    if to.rounding.startswith("stochastic"):
        bits = random_bits(block.size, seed=to.seed, stream=to.stream, start=begin)
    own = scale.of(begin, block.size)
    out = np.empty(block.size, to.fmt.dtype)
    for where, offset in by_scale(new, begin, block.size):
        part = block[where]
        options["random_bits"] = None if bits is None else bits[where]
        if told.fmt is None:
            out[where] = encode(part, to.fmt, log_offset=offset, **options)
        else:
            out[where] = _rescale(part, told.fmt, own if isinstance(own, int) else own[where], to.fmt, offset, options)
    return out


def _rescale(
    codes: Codes, fmt: LNSFormat, own: ChannelOffset, to: LNSFormat, offset: int, options: dict[str, Any]
) -> Codes:
    """The codes in another format; where they are many and of one scale, by a table of all codes."""
    if not isinstance(own, int) and (own == own[0]).all():
        own = int(own[0])
    if isinstance(own, int) and options["random_bits"] is None and fmt.bits <= WIDEST_TABLE and codes.size >> fmt.bits:
        every = np.arange(1 << fmt.bits).astype(fmt.dtype)
        table = rescale(every, fmt, log_offset=own, out_format=to, out_log_offset=offset, **options)[0]
        return table[codes]
    return rescale(codes, fmt, log_offset=own, out_format=to, out_log_offset=offset, **options)[0]


def to_floats(block: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Floats of one type as those of another: to nearest, a tie to even, what is too great to infinity.

    Args:
        block: of any type of `FLOAT_TYPES`.
        dtype: the other, one of them too.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # infinities, subnormals, signaling NaN
        if block.dtype == np.float64 and dtype == "bfloat16":
            block = _to_odd(block)
        return block.astype(dtype)


def _to_odd(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """float64 as float32, inexact ones to the neighbour whose last bit is 1: then no tie of bfloat16 comes about.

    (ml_dtypes goes from float64 to bfloat16 by way of float32, and would round twice.)
    """
    nearest = x.astype(np.float32)
    bits = nearest.view(np.uint32)
    inexact = (nearest != x) & np.isfinite(nearest)
    away = np.abs(nearest) > np.abs(x)
    return np.where(inexact, (bits - away) | 1, bits).astype(np.uint32).view(np.float32)


def by_scale(scale: Scale, begin: int, count: int) -> Iterator[tuple[Where, int]]:
    """Which of `count` elements from number `begin` on share a scale: index, offset."""
    own = scale.of(begin, count)
    if isinstance(own, int) or (own == own[0]).all():
        yield slice(0, count), own if isinstance(own, int) else int(own[0])
        return
    if scale.run >= _LONG_ROW:
        for start, stop, offset in scale.runs(begin, count):
            yield slice(start, stop), offset
        return
    yield from distinct_of(*np.unique(own, return_inverse=True))
