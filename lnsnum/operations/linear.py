"""Operations that are linear in the logarithms: products, quotients, powers, and other formats of one base.

    E  =  (c_a E_a + c_b E_b) / d,      c_a, c_b, d integers

    multiply 1, 1, 1    divide 1, -1, 1    reciprocal -1, 0, 1    square 2, 0, 1    sqrt 1, 0, 2    a^(p/q) p, 0, q

A format with other fraction bits, or with a base whose logarithm is a rational multiple, changes c and d only. The
position is a fraction, so that its rounding is one of integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import Sum, Term, Value
from lnsnum.kernels.rounding import DOUBT, Target, UInt32Array, pack, settle, whole_steps_in_two
from lnsnum.kernels.scales import Scales, spread
from lnsnum.kernels.threads import in_chunks, in_parts
from lnsnum.operations.operation import Operand, Result, fitting_offset, of_part, run


class Rule(NamedTuple):
    """What the operation makes of zeros and signs."""

    zero_a: int
    """The result where a = 0: 0, -1 for NaN, or 1 for one."""
    zero_b: int
    """The same where b = 0."""
    odd: bool
    """Whether the sign of a counts."""
    refuses_negative: bool
    """Whether a negative a gives NaN."""


KEEP = Rule(zero_a=0, zero_b=0, odd=True, refuses_negative=False)
"""The number itself."""

# beyond the range of every target, 2^42 of an unbounded one too
_FAR = 2.0**45


@kernel
def _linear(  # type: ignore[no-untyped-def]
    a, a_max, a_shift, a_factor, b, b_max, b_shift, b_factor, divisor, rule, error, to, random, out, hard
):
    """Fills `out`; returns how many elements are left to integers. b_factor = 0 says that there is no b."""
    a_stride, b_stride = 0 if a_shift.size == 1 else 1, 0 if b_shift.size == 1 else 1
    random_stride = 0 if random.size == 1 else 1
    unresolved = 0
    for i in range(out.size):
        code = np.int64(a[i])
        m_a = code & a_max
        negative = code > a_max
        log_a = m_a + a_shift[i * a_stride]
        is_nan = negative and m_a == 0
        negative = negative and rule.odd
        zero = rule.zero_a if m_a == 0 else np.int64(2)
        log_b = np.int64(0)
        if b_factor != 0:
            code_b = np.int64(b[i])
            m_b = code_b & b_max
            log_b = m_b + b_shift[i * b_stride]
            is_nan = is_nan or code_b == b_max + 1
            negative = negative != (code_b > b_max)
            if m_b == 0 and zero != -1:
                zero = rule.zero_b
        if is_nan or zero == -1 or (rule.refuses_negative and code > a_max):
            out[i] = to.sign_bit
            continue
        if zero == 0:
            out[i] = 0
            continue
        if zero == 1:
            log_a, negative = np.int64(0), False
        near = (np.float64(a_factor) * np.float64(log_a) + np.float64(b_factor) * np.float64(log_b)) / divisor
        # out there the integers could overflow, and a double says enough
        if abs(near) > _FAR:
            m = settle(np.int64(0), near, abs(near) * 2.0**-50, random[i * random_stride], negative, to)
        else:
            numerator = a_factor * log_a + b_factor * log_b
            # rounded down, so that rest / divisor is a fraction from 0 to 1 for either sign
            whole = numerator // divisor
            rest = numerator - whole * divisor
            # a quotient that is 0 or 1/2 is exact, and so are ties; others are rounded, by less than this bound
            bound = 0.0 if rest == 0 or 2 * rest == divisor else error
            m = settle(whole, rest / divisor, bound, random[i * random_stride], negative, to)
        if m == DOUBT:
            hard[unresolved] = i
            unresolved += 1
        out[i] = pack(m, np.int64(negative), to.sign_bit)
    return unresolved


@kernel
def _lowest_of(first, first_walk, second, second_walk, begin, lowest, other):  # type: ignore[no-untyped-def]
    """The sums of two scales of a block; nothing where there is one alone."""
    if first.size > 1:
        spread(first, first_walk, begin, lowest)
    if second.size > 0:
        part = other[: lowest.size]
        spread(second, second_walk, begin, part)
        for i in range(lowest.size):
            lowest[i] += part[i]


_BYTES = 1 << 13
"""Of the scales of a block: with the codes beside them they stay in the nearest cache."""


@kernel
def _product(a, b, lowest, rule, out):  # type: ignore[no-untyped-def]
    # the integers of `lowest`: the narrower, the more of them in a vector
    integer = lowest.dtype.type
    # each sum is brought back to `integer`: Numba makes int64 of it, and a vector would hold fewer of them
    zero, one = integer(0), integer(1)
    greatest, nan, bias, flip, span, steps, smallest, overflow = rule
    for i in range(out.size):
        code_a, code_b = integer(a[i]), integer(b[i])
        m_a, m_b = integer(code_a & greatest), integer(code_b & greatest)
        # (x ^ flip) - flip is x for flip = 0 and -x for flip = -1: no branch
        log = integer(integer(m_a - bias) + integer((integer(m_b - bias) ^ flip) - flip))
        m = integer(np.int64(log) - lowest[i] + 1)  # in the width of codes where it is one
        # all are computed and one is selected: a branch would end the vectors
        m = (one if log >= integer(lowest[i] - steps) else smallest) if log < lowest[i] else m
        m = overflow if log > integer(lowest[i] + span) else m
        # NaN is the sign bit alone, and masks the sign of the product
        code = integer(m | integer(integer(code_a ^ code_b) & nan)) if m > zero else (nan if m < zero else zero)
        code = zero if m_a == zero or m_b == zero else code
        is_nan = code_a == nan or code_b == nan or (flip != zero and m_b == zero)
        out[i] = nan if is_nan else code


@kernel
def _above(a, b, lowest, rule):  # type: ignore[no-untyped-def]
    integer = lowest.dtype.type
    greatest, least, bias, flip = rule
    most = least
    for i in range(a.size):
        m_a, m_b = integer(integer(a[i]) & greatest), integer(integer(b[i]) & greatest)
        log = integer(integer(m_a - bias) + integer((integer(m_b - bias) ^ flip) - flip))
        most = max(most, integer(log - lowest[i]) if m_a != 0 and m_b != 0 else least)
    return most


# one scale for all is written once, and not spread again
@kernel
def _products(a, b, first, first_walk, second, second_walk, begin, rule, out):  # type: ignore[no-untyped-def]
    """The codes; `rule` is the greatest magnitude, NaN, the bias, flip, from the lowest to the highest, and to half of
    it, what becomes of less, and of more. Of the scales `first` and `second`, with their walks, the latter may be none.
    """
    block = _BYTES // first.itemsize
    lowest, other = np.full(block, first[0]), np.empty(block, first.dtype)
    for start in range(0, out.size, block):
        end = min(start + block, out.size)
        _lowest_of(first, first_walk, second, second_walk, begin + start, lowest[: end - start], other)
        _product(a[start:end], b[start:end], lowest, rule, out[start:end])


@kernel
def _greatest_product(a, b, first, first_walk, second, second_walk, begin, rule):  # type: ignore[no-untyped-def]
    """The greatest E - lowest where neither is zero or NaN; `rule` is the greatest magnitude, what is returned where no
    such pair is, the bias, flip."""
    block = _BYTES // first.itemsize
    lowest, other = np.full(block, first[0]), np.empty(block, first.dtype)
    most = rule[1]
    for start in range(0, a.size, block):
        end = min(start + block, a.size)
        _lowest_of(first, first_walk, second, second_walk, begin + start, lowest[: end - start], other)
        most = max(most, _above(a[start:end], b[start:end], lowest, rule))
    return most


_INTEGERS = {16: np.int16, 32: np.int32, 64: np.int64}
_LEAST = 1 << 17


class _Lowest(NamedTuple):
    """What E of a product is measured from: constant - first - direction second, of which the second may be none.

    The sum is written out once, in the integers of the kernel: offsets of many groups are as much to read as codes.
    """

    constant: int
    first: Scales
    second: Scales
    direction: int = 1

    @classmethod
    def of(cls, a: Operand, b: Operand, direction: int, lowest: int = 0) -> _Lowest:
        """What the scales of the operands leave of `lowest`."""
        lowest -= a.fmt.bias + direction * b.fmt.bias
        x, y = a.scale, b.scale
        if y.single:
            return cls(lowest - direction * int(y.values[0]), x, _NONE)
        if x.single:
            # 0 - 0 - direction y, and what is constant with it
            return cls(lowest - int(x.values[0]), _NONE, y, direction)
        if x.walk == y.walk and x.values.size == y.values.size:
            return cls(lowest, Scales(x.values + direction * y.values, x.walk), _NONE)
        return cls(lowest, x, y, direction)

    def plus(self, constant: int) -> _Lowest:
        return self._replace(constant=self.constant + constant)

    @property
    def _parts(self) -> list[tuple[Scales, int, int]]:
        """Scales, what is added to each, and its sign; one with the constant first."""
        first, second = (self.first, -1), (self.second, -self.direction)
        (one, sign), (other, its) = (first, second) if self.first.values.size else (second, first)
        return [(one, self.constant, sign), (other, 0, its)]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The ends of both parts; each is read for them."""
        found = []
        for scale, constant, sign in self._parts:
            ends = scale.ends if scale.values.size else (0, 0)
            low, high = sorted(constant + sign * end for end in ends)
            found.append((low, high))
        return found

    def arguments(self, integer: Any) -> tuple[Any, ...]:
        """For kernels in these integers."""
        return tuple(x for s, constant, sign in self._parts for x in (s.moved(constant, sign, integer), s.walk))


def _width(spans: list[tuple[int, int]], below: int, above: int, widths: tuple[int, ...]) -> int:
    """Bits of the narrowest integers that hold scales with these ends, and what lies so far below and above their
    sum."""
    least = min(min(low, 0) for low, _ in [*spans, (sum(low for low, _ in spans) - below, 0)])
    most = max(max(high, 0) for _, high in [*spans, (0, sum(high for _, high in spans) + above)])
    return next(width for width in widths if -(1 << (width - 1)) <= least and most < 1 << (width - 1))


_NONE = Scales(np.empty(0, np.int64))


class _Plan(NamedTuple):
    """A kernel of `combine`, and what it takes beside the codes."""

    kernel_of: Callable[..., Any]
    scales: tuple[Any, ...]
    rule: tuple[Any, ...]

    def arguments(self, begin: int) -> tuple[Any, ...]:
        """For elements from `begin` on."""
        return *self.scales, begin, self.rule


def _plan(fmt: LNSFormat, direction: int, lowest: _Lowest, to: Target) -> _Plan:
    """For the products, E of whose smallest is `lowest`, less what the scales of the factors add."""
    span = fmt.max_magnitude - 1
    # half of the smallest lies K steps below it, and E is an integer: floor(K). No E lies further down than the second
    spans = lowest.spans
    steps = min(whole_steps_in_two(fmt), max(sum(high for _, high in spans) + 2 * fmt.max_log, 0))
    # the narrowest integers that hold the sums of two logarithms and the edges
    integer = _INTEGERS[_width(spans, steps, span, (16, 32, 64) if fmt.bits <= 8 else (32, 64))]
    nan = np.array(fmt.nan_code, fmt.dtype).astype(integer)[()]
    edges = fmt.bias, (direction - 1) // 2, span, steps, to.saturate, to.overflow
    rule = integer(fmt.max_magnitude), nan, *map(integer, edges)
    return _Plan(_products, lowest.arguments(integer), rule)


def _plan_fitting(fmt: LNSFormat, direction: int, lowest: _Lowest) -> _Plan:
    """For the greatest E - lowest."""
    width = _width(lowest.spans, 2 * fmt.max_log, 2 * fmt.max_log, (32, 64))
    integer = _INTEGERS[width]
    rule = tuple(map(integer, (fmt.max_magnitude, -(1 << (width - 1)), fmt.bias, (direction - 1) // 2)))
    return _Plan(_greatest_product, lowest.arguments(integer), rule)


@lru_cache(maxsize=1024)
def combiner(fmt: LNSFormat, to: Target, scale: int, direction: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The kernel of `combine`, and what it takes between codes and result, where the scales add so much to E: small
    operations take longer to plan than to do."""
    plan = _plan(fmt, direction, _Lowest(to.lowest - scale, Scales.of(0, ()), _NONE), to)
    return plan.kernel_of, plan.arguments(0)


@lru_cache(maxsize=256)
def _plan_fitting_of_one(fmt: LNSFormat, direction: int) -> _Plan:
    return _plan_fitting(fmt, direction, _Lowest(0, Scales.of(0, ()), _NONE))


def _scale(a: Operand, b: Operand, direction: int) -> int:
    """What the scales of the operands add to E, where each has one."""
    return int(a.scale.values[0]) + a.fmt.bias + direction * (int(b.scale.values[0]) + b.fmt.bias)


def greatest_log_of(a: Codes, b: Codes, fmt: LNSFormat, direction: int) -> int | None:
    """The greatest E of a b or a / b at log_offset 0, of flat codes; None where all have a zero or NaN in them."""
    return _greatest(a, b, _plan_fitting_of_one(fmt, direction))


def _greatest(a: Codes, b: Codes, plan: _Plan) -> int | None:
    def part(begin: int, end: int) -> int:
        return int(plan.kernel_of(a[begin:end], b[begin:end], *plan.arguments(begin)))

    greatest = max(in_chunks(part, a.size, _LEAST))
    return greatest if greatest > plan.rule[1] else None


def fitting(a: Operand, b: Operand, direction: int, result: Result) -> int:
    """The log_offset that "fit" finds for `combine`."""
    if a.scale.single and b.scale.single:
        base, greatest = _scale(a, b, direction), greatest_log_of(a.codes, b.codes, a.fmt, direction)
    else:
        lowest = _Lowest.of(a, b, direction)
        # counted from the lowest of all, so that numbers are small
        base = -sum(low for low, _ in lowest.spans)
        greatest = _greatest(a.codes, b.codes, _plan_fitting(a.fmt, direction, lowest.plus(base)))
    return fitting_offset(greatest + base, result.fmt) if greatest is not None else 0


def combines(a: Operand, b: Operand, result: Result) -> bool:
    """Whether `combine` takes these: one format, to nearest."""
    return a.fmt == b.fmt == result.fmt and result.rounding == "nearest"


def combine(a: Operand, b: Operand, direction: int, result: Result) -> tuple[Codes, int]:
    """a b (direction 1) or a / b (-1) to nearest, of one format: `linear` in one vector loop, with any scales.

    E = E_a + direction E_b as at log_offset 0, of at most twice the size of the greatest, 2^(bits - 2): so that codes
    of 32 bits need integers of 32 bits. The scales move the range: from half of its lowest to that the smallest, below
    zero.
    """
    log_offset = fitting(a, b, direction, result) if result.log_offset == "fit" else result.log_offset
    to, fmt = result.target(log_offset), result.fmt
    out = np.empty(a.codes.shape, fmt.dtype)
    if a.scale.single and b.scale.single:
        kernel_of, arguments = combiner(fmt, to, _scale(a, b, direction), direction)

        def part(begin: int, end: int) -> None:
            kernel_of(a.codes[begin:end], b.codes[begin:end], *arguments, out[begin:end])

    else:
        plan = _plan(fmt, direction, _Lowest.of(a, b, direction, to.lowest), to)

        def part(begin: int, end: int) -> None:
            plan.kernel_of(a.codes[begin:end], b.codes[begin:end], *plan.arguments(begin), out[begin:end])

    in_chunks(part, out.size, _LEAST)
    return out.reshape(result.shape), log_offset


def linear(
    a: Operand, b: Operand | None, a_factor: Fraction, b_factor: Fraction, rule: Rule, result: Result
) -> tuple[Codes, int]:
    """The numbers with E = a_factor E_a + b_factor E_b, in code steps of the result."""
    # one denominator, so that the kernel's position is a quotient of two integers
    divisor = math.lcm(a_factor.denominator, b_factor.denominator)
    factors = int(a_factor * divisor), int(b_factor * divisor)
    other = a if b is None else b
    # a quotient by a power of two is exact in a double
    error = 0.0 if divisor & (divisor - 1) == 0 else 2.0**-52

    def fill(to: Target, random: UInt32Array, out: NDArray[Any]) -> NDArray[np.int64]:
        def part(begin: int, end: int, hard: NDArray[np.int64]) -> int:
            x, y = a.part(begin, end), other.part(begin, end)
            count: int = _linear(
                x.codes, a.fmt.max_magnitude, x.shift, factors[0],
                y.codes, other.fmt.max_magnitude, y.shift, factors[1],
                divisor, rule, error, to, of_part(random, begin, end), out[begin:end], hard,
            )  # fmt: skip
            return count

        return in_parts(part, out.size, _LEAST)

    def case(i: int) -> tuple[Value, bool, int, float]:
        position = a_factor * a.log(i) + b_factor * other.log(i)
        negative = (a.negative(i) and rule.odd) != (b is not None and b.negative(i))
        value = Sum((Term(1, 0, position / (1 << result.fmt.fraction_bits)),))
        return value, negative, int(result.random[i % result.random.size]), float(position)

    return run(fill, case, result)
