"""The arithmetic of an accumulator's format: what elementwise operations are composed of.

    a b, a / b, a^(p/q)     logarithms add, subtract and scale             `lnsnum.arithmetic`
    a + b, a - b            by the accumulator's Gaussian logarithm
    e^a, ln a               the nearest code but for 2^-16 of a step, as of a table in hardware
    e^a - 1, ln(1 + a), Phi  the nearest code
    sums                    in the accumulator's order                     `bit_true.sum_rows`

Numbers are codes and one log_offset. That of a result is the accumulator's, where it is fixed; else the least at which
nothing of the result saturates, of a sum that of `bit_true`. A constant is rounded to the grid once.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import lnsnum
from lnsnum import arithmetic
from lnsnum.conversion import rescale
from lnsnum.gaussian import Exact
from lnsnum.kernels.codes import Codes
from lnsnum.operations.prepared import LARGEST, prepared
from lnsnum.torch_bridge.datapath import bit_true, swift
from lnsnum.torch_bridge.datapath.matrices import Matrices
from lnsnum.torch_bridge.datapath.settings import Accumulator

_ERFC = np.frompyfunc(math.erfc, 1, 1)


class Word(NamedTuple):
    """Numbers of the unit's format, of one scale."""

    codes: Codes
    log_offset: int

    def reshape(self, *shape: int) -> Word:
        """In another shape."""
        return self._replace(codes=self.codes.reshape(shape))

    def at(self, index: Any) -> Word:
        """Those at an index."""
        return self._replace(codes=self.codes[index])

    def broadcast(self, shape: tuple[int, ...]) -> Word:
        """Repeated along dimensions."""
        return self._replace(codes=np.broadcast_to(self.codes, shape))


class Unit:
    """What computes in an accumulator's format.

    >>> unit = Unit(Accumulator("lns16f10"))
    >>> x = unit.encode(np.array([1.0, 2.0, 5.0]))
    >>> round(float(unit.decode(unit.mean(x, (0,)), "float32")), 2)
    2.67
    """

    def __init__(self, accumulator: Accumulator) -> None:
        self.accumulator, self.fmt = accumulator, accumulator.fmt
        # what is no sum of products goes by its numbers under either rule
        self._fits, self._exact = isinstance(accumulator.log_offset, str), accumulator.gaussian_log == Exact()
        self._scale: Any = {"out_log_offset": "fit" if self._fits else accumulator.log_offset}
        self._sum: Any = {**self._scale, "gaussian": accumulator.gaussian_log}

    # ----------------------------------------------------------------------------------------------- to and from floats

    def encode(self, x: NDArray[Any], largest: float | None = None) -> Word:
        """Floats, each to the nearest code; `largest`: the greatest magnitude that has a say in the scale."""
        scale = self.accumulator.log_offset
        if isinstance(scale, str):
            if largest is None:
                # NaN has no say
                largest = float(np.fmax.reduce(np.abs(x), axis=None, initial=0.0))
            scale = swift.fit(largest, self.fmt, "nearest")
        if x.dtype == np.float32:
            codes = swift.encode(x, self.fmt, scale)
            if codes is not None:
                return Word(codes, scale)
        return Word(lnsnum.encode(x, self.fmt, log_offset=scale), scale)

    def constant(self, value: float) -> Word:
        """One number, without a dimension."""
        return _constant(self.accumulator, float(value))

    def placed(self, x: Matrices) -> Word:
        """Codes of another format: exact, but where a scale is fixed or scales differ by more than the range."""
        return Word(*rescale(x.codes, x.fmt, log_offset=x.log_offset, out_format=self.fmt, **self._scale))

    def decode(self, x: Word, dtype: Any) -> NDArray[Any]:
        """As floats, each rounded once: a float32 tells the codes apart."""
        return swift.decode(x.codes, self.fmt, x.log_offset, dtype)

    # ------------------------------------------------------------------------------------------------------- arithmetic

    def _swiftly(self, name: str, a: Word, b: Word) -> Word | None:
        """An operation of few numbers, prepared; None where that does not serve."""
        # at two scales of 0 the prepared way would not fit the result's
        if not self._fits or not (a.log_offset or b.log_offset) or not (self._exact or name in ("multiply", "divide")):
            return None
        shape = a.codes.shape
        if shape != b.codes.shape:
            shape = np.broadcast_shapes(shape, b.codes.shape)
            a, b = a.broadcast(shape), b.broadcast(shape)
        x, y = (np.ascontiguousarray(one.codes).reshape(-1) for one in (a, b))
        if not 0 < x.size < LARGEST:
            return None
        run = prepared(name, self.fmt, a.log_offset, b.log_offset)
        found = None if run is None else run(x, y)
        return None if found is None else Word(found[0].reshape(shape), found[1])

    def add(self, a: Word, b: Word) -> Word:
        """a + b."""
        found = self._swiftly("add", a, b)
        return found or Word(*arithmetic.add(a.codes, b.codes, self.fmt, **_offsets(a, b), **self._sum))

    def subtract(self, a: Word, b: Word) -> Word:
        """a - b."""
        found = self._swiftly("subtract", a, b)
        return found or Word(*arithmetic.subtract(a.codes, b.codes, self.fmt, **_offsets(a, b), **self._sum))

    def multiply(self, a: Word, b: Word) -> Word:
        """A b."""
        found = self._swiftly("multiply", a, b)
        return found or Word(*arithmetic.multiply(a.codes, b.codes, self.fmt, **_offsets(a, b), **self._scale))

    def divide(self, a: Word, b: Word) -> Word:
        """A / b; NaN where b is zero."""
        found = self._swiftly("divide", a, b)
        return found or Word(*arithmetic.divide(a.codes, b.codes, self.fmt, **_offsets(a, b), **self._scale))

    def scaled(self, a: Word, factor: float) -> Word:
        """A times a constant; 1 and -1 change nothing but the sign."""
        if factor == 1.0:
            return a
        return self.negate(a) if factor == -1.0 else self.multiply(a, self.constant(factor))

    def negate(self, a: Word) -> Word:
        """-a."""
        return a._replace(codes=arithmetic.negative(a.codes, self.fmt))

    def absolute(self, a: Word) -> Word:
        """|a|."""
        return a._replace(codes=arithmetic.absolute(a.codes, self.fmt))

    def at_least_smallest(self, a: Word) -> Word:
        """A, and the smallest number where a is zero."""
        return a._replace(codes=np.where(a.codes == 0, 1, a.codes).astype(self.fmt.dtype))

    def power(self, a: Word, exponent: Fraction) -> Word:
        """a^exponent, rounded once."""
        return Word(*arithmetic.power(a.codes, exponent, self.fmt, log_offset=a.log_offset, **self._scale))

    def exp(self, a: Word) -> Word:
        """e^a."""
        return Word(*arithmetic.exp(a.codes, self.fmt, log_offset=a.log_offset, **self._scale))

    def log(self, a: Word) -> Word:
        """Ln a; NaN where a is not positive."""
        return Word(*arithmetic.log(a.codes, self.fmt, log_offset=a.log_offset, **self._scale))

    def expm1(self, a: Word) -> Word:
        """e^a - 1, the nearest code."""
        return Word(*arithmetic.expm1(a.codes, self.fmt, log_offset=a.log_offset, **self._scale))

    def log1p(self, a: Word) -> Word:
        """Ln(1 + a), the nearest code; NaN where a is -1 or less."""
        return Word(*arithmetic.log1p(a.codes, self.fmt, log_offset=a.log_offset, **self._scale))

    def normal(self, a: Word) -> Word:
        """The normal distribution's share below a: (1 + erf(a / sqrt 2)) / 2, the nearest code of a double."""
        x = np.asarray(self.decode(a, "float64"))
        # of the other tail, which loses nothing below zero
        return self.encode(0.5 * np.asarray(_ERFC(x * -math.sqrt(0.5)), np.float64))

    # ------------------------------------------------------------------------------------------------------ along axes

    def total(self, a: Word, axes: tuple[int, ...], *, keepdims: bool = False) -> Word:
        """The sum along axes, as one, in C order, by the accumulator."""
        shape = a.codes.shape
        axes = tuple(axis % len(shape) for axis in axes)
        rest = [axis for axis in range(len(shape)) if axis not in axes]
        count = math.prod(shape[axis] for axis in axes)
        columns = a.codes.transpose(*axes, *rest).reshape(count, math.prod(shape[axis] for axis in rest))
        sums: Any = bit_true.sum_rows(Matrices(columns, self.fmt, a.log_offset), self.accumulator)
        kept = [1 if axis in axes else length for axis, length in enumerate(shape) if keepdims or axis not in axes]
        return Word(sums.codes.reshape(kept), sums.log_offset)

    def mean(self, a: Word, axes: tuple[int, ...], *, keepdims: bool = False) -> Word:
        """The sum divided by the number of terms."""
        count = math.prod(a.codes.shape[axis] for axis in axes)
        return self.divide(self.total(a, axes, keepdims=keepdims), self.constant(count))

    def greatest(self, a: Word, axis: int) -> Word:
        """The greatest along an axis, which stays with one element: chosen, not computed."""
        first = arithmetic.order_key(a.codes, self.fmt).argmax(axis=axis, keepdims=True)
        return a._replace(codes=np.take_along_axis(a.codes, first, axis))

    def select(self, where: NDArray[np.bool_], a: Word, b: Word) -> Word:
        """A where the mask says so, else b."""
        log_offset = self.accumulator.log_offset
        if isinstance(log_offset, str):
            # the least at which nothing that is chosen saturates
            tops = [
                one.log_offset + int(greatest)
                for one, chosen in ((a, where), (b, ~where))
                if (greatest := np.where(chosen, one.codes & self.fmt.max_magnitude, 0).max(initial=0))
            ]
            log_offset = max(tops) - self.fmt.max_magnitude if tops else 0
        x, y = (self._at(one, log_offset) for one in (a, b))
        return Word(np.where(where, x.codes, y.codes).astype(self.fmt.dtype), log_offset)

    def zeroed(self, where: NDArray[np.bool_], a: Word) -> Word:
        """Zero where the mask says so."""
        return a._replace(codes=np.where(where, 0, a.codes).astype(self.fmt.dtype))

    def _at(self, a: Word, log_offset: int) -> Word:
        if a.log_offset == log_offset:
            return a
        codes, _ = rescale(a.codes, self.fmt, log_offset=a.log_offset, out_log_offset=log_offset)
        return Word(codes, log_offset)


def _offsets(a: Word, b: Word) -> Any:
    return {"a_log_offset": a.log_offset, "b_log_offset": b.log_offset}


@lru_cache(maxsize=256)
def unit_of(accumulator: Accumulator) -> Unit:
    """The one of an accumulator."""
    return Unit(accumulator)


@lru_cache(maxsize=1024)
def _constant(accumulator: Accumulator, value: float) -> Word:
    # what is no number has no scale
    return unit_of(accumulator).encode(np.array(value), None if math.isfinite(value) else 0.0)
