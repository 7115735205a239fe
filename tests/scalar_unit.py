"""The arithmetic of elementwise operations one number at a time, from `lnsnum.reference` and the definitions alone.

Numbers are `scalar_datapath.Coded`: arrays of Python integers of one scale. A result has the accumulator's log_offset,
where that is fixed, else the least at which the greatest of its numbers does not saturate.
"""

import math
from fractions import Fraction

import numpy as np
import scalar_datapath as scalar
from scalar_datapath import Coded

from lnsnum import reference
from lnsnum.gaussian import Exact


class ScalarUnit:
    """What computes in an accumulator's format."""

    def __init__(self, accumulator):
        self.accumulator, self.fmt = accumulator, accumulator.fmt
        self.fixed = None if isinstance(accumulator.log_offset, str) else accumulator.log_offset
        self.octave = 2**self.fmt.fraction_bits  # the formats here are of base 2

    def encode(self, x):
        return scalar.encoded(np.asarray(x, dtype=np.float64), self.fmt, self.fixed)

    def placed(self, x):
        """Codes of another format."""

        def at(code, out):
            return reference.convert(code, x.fmt, self.fmt, log_offset=x.log_offset, out_log_offset=out)

        finer = self.fmt.fraction_bits - x.fmt.fraction_bits
        return self._each(at, (x.log_offset + x.fmt.max_log) * 2**finer, x)

    def add(self, a, b):
        if self.accumulator.gaussian_log != Exact():
            return self._each(lambda x, y, out: self._approximate(x, a, y, b, out), self._top(a, b), a, b)

        def at(x, y, out):
            return reference.add(
                x, y, self.fmt, a_log_offset=a.log_offset, b_log_offset=b.log_offset, out_log_offset=out
            )

        return self._each(at, self._top(a, b), a, b)

    def _approximate(self, x, a, y, b, out):
        fmt, log = self.fmt, self.accumulator.gaussian_log
        (m, s), (n, t) = ((code & fmt.max_magnitude, code > fmt.max_magnitude) for code in (x, y))
        if m == 0 or n == 0:
            e, sign = (n + b.log_offset, t) if m == 0 else (m + a.log_offset, s)
            if m == n == 0:
                return 0
        else:
            e, f, sign, other = m + a.log_offset, n + b.log_offset, s, t
            if e < f:
                e, f, sign, other = f, e, t, s
            if e == f and sign != other:
                return 0
            z = np.array([e - f], dtype=np.int64)
            e += int((log.sb(z, fmt) if sign == other else log.db(z, fmt))[0])
        return self._place(e - fmt.bias, sign, out)

    def _place(self, e, negative, out):
        """The code of E, to nearest where it underflows."""
        m = e + self.fmt.bias - out
        if m < 1:
            m = 1 if m >= 1 - self.octave else 0
        m = min(m, self.fmt.max_magnitude)
        return m + (self.fmt.sign_bit if negative and m else 0)

    def subtract(self, a, b):
        return self.add(a, self.negate(b))

    def multiply(self, a, b):
        def at(x, y, out):
            return reference.multiply(
                x, y, self.fmt, a_log_offset=a.log_offset, b_log_offset=b.log_offset, out_log_offset=out
            )

        return self._each(at, a.log_offset + b.log_offset + 2 * self.fmt.max_log, a, b)

    def divide(self, a, b):
        def at(x, y, out):
            return reference.divide(
                x, y, self.fmt, a_log_offset=a.log_offset, b_log_offset=b.log_offset, out_log_offset=out
            )

        return self._each(at, a.log_offset - b.log_offset + 2 * self.fmt.max_log, a, b)

    def scaled(self, a, factor):
        return self.multiply(a, self.encode(factor))

    def negate(self, a):
        codes = [reference.negative(int(code), self.fmt) for code in a.codes.reshape(-1)]
        return a._replace(codes=np.array(codes, dtype=object).reshape(a.codes.shape))

    def power(self, a, exponent):
        def at(x, out):
            return reference.power(x, Fraction(exponent), self.fmt, log_offset=a.log_offset, out_log_offset=out)

        top = max(abs(a.log_offset + sign * self.fmt.max_log) for sign in (1, -1))
        return self._each(at, math.ceil(top * abs(exponent)), a)

    def exp(self, a):
        return self._transcendental("exp", a)

    def log(self, a):
        return self._transcendental("log", a)

    def _transcendental(self, name, a):
        def at(x, out):
            found = reference.bracket(name, self.fmt, x, log_offset=a.log_offset, out_log_offset=out)
            if found.log is None:
                return found.lower
            return self._place(round(found.log), bool(found.upper & self.fmt.sign_bit), out)

        if name == "log":
            return self._each(at, 8 * self.octave, a)
        values = [float(x) for x in scalar.decoded(a).reshape(-1)]
        return self._each(at, math.ceil(max(values, default=0.0) * 1.5 + 1) * self.octave, a)

    def expm1(self, a):
        values = [float(x) for x in scalar.decoded(a).reshape(-1)]
        return self._real(lambda x: scalar.MP.expm1(x), a, math.ceil(max(values, default=0.0) * 1.5 + 1) * self.octave)

    def log1p(self, a):
        return self._real(lambda x: scalar.MP.log1p(x), a, 8 * self.octave)

    def normal(self, a):
        """The normal distribution."""
        return self._real(lambda x: scalar.MP.ncdf(x), a, self.octave)

    def _real(self, function, a, top):
        """The nearest code of a function of mpmath's."""

        def at(x, out):
            m, sign = x & self.fmt.max_magnitude, -1 if x > self.fmt.max_magnitude else 1
            e = scalar.MP.mpf(m - self.fmt.bias + a.log_offset) / self.octave
            y = function(sign * scalar.MP.mpf(2) ** e if m else scalar.MP.mpf(0))
            if y == 0:
                return 0
            return self._place(int(scalar.MP.nint(scalar.MP.log(abs(y), 2) * self.octave)), y < 0, out)

        return self._each(at, top, a)

    def absolute(self, a):
        return a._replace(
            codes=np.array([c & self.fmt.max_magnitude for c in a.codes.reshape(-1)], dtype=object).reshape(
                a.codes.shape
            )
        )

    def select(self, where, a, b):
        """One or the other, at the least scale that takes what is chosen."""
        return self.encode(np.where(where, scalar.decoded(a), scalar.decoded(b)))

    def total(self, a, axis, keepdims=False):
        """Along one axis, or several as one, in C order."""
        axes = (axis,) if isinstance(axis, int) else axis
        rest = [d for d in range(a.codes.ndim) if d not in axes]
        lengths = [a.codes.shape[d] for d in rest]
        columns = a.codes.transpose(*axes, *rest).reshape(-1, math.prod(lengths))
        sums = scalar.column_sums(Coded(columns, self.fmt, a.log_offset), self.accumulator)
        kept = [1 if d in axes else n for d, n in enumerate(a.codes.shape) if keepdims or d not in axes]
        return sums._replace(codes=sums.codes.reshape(kept))

    def mean(self, a, axis, keepdims=False):
        axes = (axis,) if isinstance(axis, int) else axis
        count = math.prod(a.codes.shape[d] for d in axes)
        return self.divide(self.total(a, axis, keepdims), self.encode(float(count)))

    def greatest(self, a, axis):
        """Along an axis, by the values."""
        values = scalar.decoded(a).astype(np.float64)
        at = np.expand_dims(values.argmax(axis), axis)
        return a._replace(codes=np.take_along_axis(a.codes, at, axis))

    def _top(self, *words):
        """No sum has a greater E."""
        return max(word.log_offset for word in words) + self.fmt.max_log + self.octave

    def _each(self, at, top, *words):
        """An operation of codes and the log_offset of the result, at each element; no result has an E above `top`."""
        shape = np.broadcast_shapes(*(word.codes.shape for word in words))
        lists = [np.broadcast_to(word.codes, shape).reshape(-1) for word in words]

        def codes(out):
            found = [at(*(int(code) for code in row), out) for row in zip(*lists, strict=True)]
            return np.array([None, *found], dtype=object)[1:].reshape(shape)

        if self.fixed is not None:
            return Coded(codes(self.fixed), self.fmt, self.fixed)
        room, greatest = top - self.fmt.max_log, 0
        while greatest < 2 and room > top - 40 * self.fmt.max_log:  # a code of 1 may be an underflow
            greatest = max((int(code) & self.fmt.max_magnitude for code in codes(room).reshape(-1)), default=0)
            room -= self.fmt.max_log
        if greatest < 2:
            return Coded(codes(0), self.fmt, 0)
        out = room + self.fmt.max_log + greatest - self.fmt.max_magnitude
        return Coded(codes(out), self.fmt, out)
