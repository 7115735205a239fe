"""expm1, log1p, tanh, sinh, cosh, hypot and logaddexp: correctly rounded, in every mode.

    f(x)  ->  its position on the logarithmic axis, a double with a bound of its error  ->  the code, or DOUBT
    DOUBT ->  intervals of growing precision (lnsnum.operations.transcendental)

Where f(x) is near to a number whose position is known exactly (x itself for small x, 1 for tanh of a great one), only
what is between the two is computed in floating point:

    position of f(x)  =  position of x  +  K log2(f(x) / x),      K = 2^F log_base 2

The mathematical library of the machine has no say in a result: its errors, of some units in the last place, are within
the bound.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import HardCase, Root, Sum, Term, Value
from lnsnum.kernels.elementary import significands
from lnsnum.kernels.rounding import DOUBT, Target, UInt32Array, pack, settle, steps_in_two
from lnsnum.operations.operation import Operand, Result, run
from lnsnum.operations.transcendental import Elementary, LogOfSum, Name

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NUMBER, NEGATIVE, ZERO, NAN = range(4)

_LN2 = math.log(2.0)

_RELATIVE = 2.0**-45
"""Bound of the relative error of a double that a mathematical library has made of a rounded operand, conditions apart:
128 units in its last place."""

_SMALL = 2.0**-26
"""Below this two terms of a series give ln(f(x) / x) to the last bit."""

_GREAT = 30.0
"""Beyond this e^-2x is below the last bit of 1, and e^-x a correction that a double has."""

_NUDGE = 2.0**-41
"""Where f(x) is beside an exact position by less than twice this, it is taken to be that far away: with a bound of as
much, no mode sees a tie or a code where there is none."""

_NO_IDEA = 1e17
"""A bound that leaves every code open."""


class Positions(NamedTuple):
    """Where results lie on the axis of their format: at whole + r code steps, within error."""

    whole: Integers
    r: Floats
    error: Floats
    kind: NDArray[np.int8]


@kernel
def _settle_all(whole, r, error, kind, random, to, out, hard):  # type: ignore[no-untyped-def]
    """Fills `out`; returns how many elements are left to intervals, their indices in `hard`."""
    stride = 0 if random.size == 1 else 1
    unresolved = 0
    for i in range(out.size):
        if kind[i] >= ZERO:
            out[i] = to.sign_bit if kind[i] == NAN else 0
            continue
        negative = kind[i] == NEGATIVE
        m = settle(whole[i], r[i], error[i], random[i * stride], negative, to)
        if m == DOUBT:
            hard[unresolved] = i
            unresolved += 1
        out[i] = pack(m, np.int64(negative), to.sign_bit)
    return unresolved


def _settled(at: Positions, case: HardCase, result: Result) -> tuple[Codes, int]:
    def fill(to: Target, random: UInt32Array, out: NDArray[Any]) -> NDArray[np.int64]:
        hard = np.empty(out.size, np.int64)
        return hard[: _settle_all(*at, random, to, out, hard)]

    return run(fill, case, result)


class _Read(NamedTuple):
    """An operand as doubles."""

    logs: Integers
    """E, 0 of zero and NaN."""
    x: Floats
    """The number with its sign, at most 1e300 in size; 0 of zero and NaN."""
    octaves: Floats
    """log2 of the size."""
    negative: NDArray[np.bool_]
    zero: NDArray[np.bool_]
    nan: NDArray[np.bool_]


def _read(a: Operand) -> _Read:
    codes = a.codes.astype(np.int64)
    m, negative = codes & a.fmt.max_magnitude, codes > a.fmt.max_magnitude
    logs = np.where(m == 0, 0, m + a.shift)
    significand, exponent = significands(a.fmt.base, a.fmt.fraction_bits, logs)
    # 64 bits of the number, rounded once to a double from 1 to 2
    top = np.ldexp(significand.astype(np.float64), -63)
    size = np.ldexp(top, np.clip(exponent, -1000, 990).astype(np.int32))
    x = np.where(m == 0, 0.0, np.where(negative, -size, size))
    return _Read(logs, x, exponent + np.log2(top), negative & (m > 0), codes == 0, negative & (m == 0))


def _exactly(logs: Integers, fraction_bits: int, fmt: LNSFormat) -> tuple[Integers, Floats]:
    """E on another grid of the same base: whole steps and the fraction of one, both exact."""
    shift = fmt.fraction_bits - fraction_bits
    if shift >= 0:
        return logs << shift, np.zeros(logs.shape)
    return logs >> -shift, np.ldexp((logs & ((1 << -shift) - 1)).astype(np.float64), shift)


class _Axis:
    """Positions under way: places are filled in by masks."""

    def __init__(self, size: int, fmt: LNSFormat) -> None:
        self.steps, self.steps_error = steps_in_two(fmt)
        self.whole = np.zeros(size, np.int64)
        self.r, self.error = np.zeros(size), np.zeros(size)

    def beside(self, where: Any, whole: Any, fraction: Any, log: Floats) -> None:
        """Beside the exact position whole + fraction, by the logarithm of a quotient, to _RELATIVE of itself."""
        delta = self.steps / _LN2 * log
        near = np.abs(delta) < 2.0 * _NUDGE
        self.whole[where] = np.broadcast_to(whole, delta.shape)
        self.r[where] = fraction + np.where(near, np.copysign(_NUDGE, delta), delta)
        self.error[where] = np.where(near, _NUDGE, np.abs(delta) * _RELATIVE + 2.0**-51)

    def at(self, where: Any, octaves: Floats, error: Any = 0.0) -> None:
        """At a number of octaves, to _RELATIVE of itself and of 1, and `error` more."""
        r = self.steps * octaves
        self.whole[where] = 0
        self.r[where] = r
        # a number that is known to a quarter of itself and no better may be as near to zero as it likes
        own = (self.steps + np.abs(r)) * _RELATIVE + 2.0 * self.steps * error
        self.error[where] = np.where(np.asarray(error) > 0.25, _NO_IDEA, np.minimum(own, _NO_IDEA))


def _expm1(a: _Read, axis: _Axis, whole: Integers, fraction: Floats) -> None:
    x = a.x
    small, great = np.abs(x) < _SMALL, np.abs(x) > _GREAT
    middle = ~small & ~great
    axis.beside(small, whole[small], fraction[small], x[small] / 2 + np.square(x[small]) / 24)
    axis.at(middle, np.log2(np.abs(np.expm1(x[middle]))))
    up, down = great & (x > 0), great & (x < 0)
    axis.at(up, (x[up] - np.exp(-x[up])) / _LN2)
    axis.beside(down, 0, 0.0, _never_zero(np.log1p(-np.exp(x[down])), -1))


def _log1p(a: _Read, axis: _Axis, whole: Integers, fraction: Floats) -> None:
    x = a.x
    small, great = np.abs(x) < _SMALL, a.octaves > 900.0
    great &= ~a.negative
    middle = ~small & ~great & (x > -1.0)
    axis.beside(small, whole[small], fraction[small], -x[small] / 2 + 5 / 24 * np.square(x[small]))
    y = np.log1p(x[middle])
    # near -1 what the double of x has lost counts so many times
    condition = np.abs(x[middle] / ((1.0 + x[middle]) * y))
    axis.at(middle, np.log2(np.abs(y)), condition * _RELATIVE)
    axis.at(great, np.log2(a.octaves[great] * _LN2))
    # -1 as a double, but for less than its last bit: the numbers at and below -1 are none
    rest = ~small & ~great & ~middle
    axis.at(rest, np.zeros(np.count_nonzero(rest)), _NO_IDEA)


def _tanh(a: _Read, axis: _Axis, whole: Integers, fraction: Floats) -> None:
    x = np.abs(a.x)
    small, great = x < _SMALL, x > 1.0
    middle = ~small & ~great
    square = np.square(x[small])
    axis.beside(small, whole[small], fraction[small], _never_zero(-square / 3 + 7 / 90 * np.square(square), -1))
    axis.at(middle, np.log2(np.tanh(x[middle])))
    # tanh = (1 - e) / (1 + e), e = e^-2x
    e = np.exp(-2.0 * x[great])
    axis.beside(great, 0, 0.0, _never_zero(np.log1p(-2.0 * e / (1.0 + e)), -1))


def _sinh(a: _Read, axis: _Axis, whole: Integers, fraction: Floats) -> None:
    x = np.abs(a.x)
    small, great = x < _SMALL, x > _GREAT
    middle = ~small & ~great
    square = np.square(x[small])
    axis.beside(small, whole[small], fraction[small], _never_zero(square / 6 - np.square(square) / 180, 1))
    axis.at(middle, np.log2(np.sinh(x[middle])))
    axis.at(great, (x[great] - _LN2 - np.exp(-2.0 * x[great])) / _LN2)


def _cosh(a: _Read, axis: _Axis, whole: Integers, fraction: Floats) -> None:
    x = np.abs(a.x)
    near, great = x < 1.0, x > _GREAT
    middle = ~near & ~great
    axis.beside(near, 0, 0.0, _never_zero(np.log1p(2.0 * np.square(np.sinh(x[near] / 2))), 1))
    axis.at(middle, np.log2(np.cosh(x[middle])))
    axis.at(great, (x[great] - _LN2 + np.exp(-2.0 * x[great])) / _LN2)


def _never_zero(log: Floats, side: int) -> Floats:
    """A logarithm that is not zero; where it has underflowed, its side is left."""
    return np.where(log == 0.0, side * 1e-300, log)


_POSITIONS: dict[Name, Any] = {"expm1": _expm1, "log1p": _log1p, "tanh": _tanh, "sinh": _sinh, "cosh": _cosh}


def elementary(name: Name, a: Operand, result: Result) -> tuple[Codes, int]:
    """A function of each number."""
    read, fmt = _read(a), result.fmt
    axis = _Axis(a.codes.size, fmt)
    with np.errstate(all="ignore"):
        _POSITIONS[name](read, axis, *_exactly(read.logs, a.fmt.fraction_bits, fmt))
    kind = np.where(read.negative & (name != "cosh"), NEGATIVE, NUMBER)
    if name == "log1p":
        kind[read.negative & (read.logs >= 0)] = NAN
    zero = read.zero
    if name == "cosh":
        # cosh 0 is 1, exactly
        axis.whole[zero], axis.r[zero], axis.error[zero] = 0, 0.0, 0.0
    else:
        kind[zero] = ZERO
    kind[read.nan] = NAN

    def case(i: int) -> tuple[Value, bool, int, float]:
        exponent = Fraction(a.log(i), 1 << a.fmt.fraction_bits)
        value = Elementary(name, a.fmt.base, exponent, a.negative(i))
        random = int(result.random[i % result.random.size])
        return value, bool(kind[i] == NEGATIVE), random, float(axis.whole[i]) + float(axis.r[i])

    return _settled(Positions(axis.whole, axis.r, axis.error, kind.astype(np.int8)), case, result)


def hypot(a: Operand, b: Operand, result: Result) -> tuple[Codes, int]:
    """The square root of a^2 + b^2: above the greater by half of the Gaussian logarithm sb at twice the distance."""
    finest = max(a.fmt.fraction_bits, b.fmt.fraction_bits)
    x, y = _read(a), _read(b)
    grid, _ = steps_in_two(LNSFormat(32, finest, base=a.fmt.base))
    # at most 2^32 times 2^30
    up_a, up_b = (x.logs << (finest - a.fmt.fraction_bits)), (y.logs << (finest - b.fmt.fraction_bits))
    greater = np.where(y.zero | (~x.zero & (up_a >= up_b)), up_a, up_b)
    axis = _Axis(a.codes.size, result.fmt)
    whole, fraction = _exactly(greater, finest, result.fmt)
    alone = x.zero | y.zero
    apart = np.abs(up_a - up_b)
    axis.beside(..., whole, fraction, np.log1p(_never_zero(np.exp2(-2.0 / grid * apart), 1)) / 2)
    # of one number alone the position is exact, of two equal ones it is half an octave up
    axis.r[alone], axis.error[alone] = fraction[alone], 0.0
    equal = ~alone & (apart == 0)
    axis.r[equal] = fraction[equal] + axis.steps / 2
    axis.error[equal] = axis.steps_error
    kind = np.full(a.codes.size, NUMBER, np.int8)
    kind[x.zero & y.zero] = ZERO
    kind[x.nan | y.nan] = NAN

    def case(i: int) -> tuple[Value, bool, int, float]:
        operands = ((a, x), (b, y))
        exponents = [Fraction(2 * o.log(i), 1 << o.fmt.fraction_bits) for o, read in operands if not read.zero[i]]
        value = Root(Sum(tuple(Term(1, 0, exponent) for exponent in exponents)))
        random = int(result.random[i % result.random.size])
        return value, False, random, float(axis.whole[i]) + float(axis.r[i])

    return _settled(Positions(axis.whole, axis.r, axis.error, kind), case, result)


def logaddexp(a: Operand, b: Operand, result: Result) -> tuple[Codes, int]:
    """ln(e^a + e^b): the greater and ln(1 + e^-distance), which is computed alone where it is small beside it."""
    x, y = _read(a), _read(b)
    first = x.x >= y.x
    great, small = np.where(first, x.x, y.x), np.where(first, y.x, x.x)
    axis = _Axis(a.codes.size, result.fmt)
    whole, fraction = (
        np.where(first, *pair)
        for pair in zip(
            _exactly(x.logs, a.fmt.fraction_bits, result.fmt),
            _exactly(y.logs, b.fmt.fraction_bits, result.fmt),
            strict=True,
        )
    )
    with np.errstate(all="ignore"):
        apart = small - great
        rest = np.log1p(np.exp(apart))
        # what the rounding of two operands does to their distance
        lost = (np.abs(great) + np.abs(small)) * 2.0**-52 + _RELATIVE
        value = great + rest
        axis.at(..., np.log2(np.where(value == 0.0, 1.0, np.abs(value))), lost / np.abs(value))
        share = rest / great
        sure = (lost < 2.0**-10) | (np.abs(apart) > 1e3 + lost)
        # beside a number so great nothing that lies between 0 and ln 2 is more than a nudge
        beside = (great != 0.0) & (np.abs(share) < _SMALL) & (sure | (axis.steps < np.abs(great) * _NUDGE))
        # with a share that has underflowed its sign, that of the greater, is left
        log = np.log1p(share[beside]) + np.where(share[beside] == 0.0, np.copysign(1e-300, great[beside]), 0.0)
        axis.beside(beside, whole[beside], fraction[beside], log)
        axis.error[beside] += np.abs(axis.steps / _LN2 * share[beside]) * np.minimum(2.0 * lost[beside], 1.0)
        # e^b alone beside 0; beside a number that is no double there are two that may be as small as each other
        tiny = (np.abs(great) < 2.0**-900) & (small < -500.0)
        axis.error[tiny] = _NO_IDEA
        alone = (great == 0.0) & (small < -600.0)
        axis.at(alone, small[alone] / _LN2, np.minimum(np.abs(small[alone]) * 2.0**-50, 0.2))
    kind = np.where(value < 0.0, NEGATIVE, NUMBER).astype(np.int8)
    kind[x.nan | y.nan] = NAN

    def case(i: int) -> tuple[Value, bool, int, float]:
        terms = []
        for o, read in ((a, x), (b, y)):
            sign = 0 if read.zero[i] else -1 if o.negative(i) else 1
            terms.append((sign, Fraction(o.log(i) if sign else 0, 1 << o.fmt.fraction_bits)))
        log = LogOfSum(a.fmt.base, terms[0], terms[1])
        random = int(result.random[i % result.random.size])
        return log, log.negative(), random, float(axis.whole[i]) + float(axis.r[i])

    return _settled(Positions(axis.whole, axis.r, axis.error, kind), case, result)
