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


def _combiner(integer: Any) -> Callable[..., Any]:
    """The kernel of `combine` in integers of one width: the narrower, the more of them in a vector."""

    @kernel
    def combine(a, b, greatest, nan, bias, flip, lowest, highest, half, overflow, out):  # type: ignore[no-untyped-def]
        # each sum is brought back to `integer`: Numba makes int64 of it, and a vector would hold fewer of them
        zero, one = integer(0), integer(1)
        for i in range(out.size):
            code_a, code_b = integer(a[i]), integer(b[i])
            m_a, m_b = integer(code_a & greatest), integer(code_b & greatest)
            # (x ^ flip) - flip is x for flip = 0 and -x for flip = -1: no branch
            log = integer(integer(m_a - bias) + integer((integer(m_b - bias) ^ flip) - flip))
            m = integer(np.int64(log) - lowest + 1)  # in the width of codes where it is one
            # both are computed and one is selected: a branch would end the vectors
            m = (one if log >= half else zero) if log < lowest else m
            m = overflow if log > highest else m
            # NaN is the sign bit alone, and masks the sign of the product
            code = integer(m | integer(integer(code_a ^ code_b) & nan)) if m > zero else (nan if m < zero else zero)
            code = zero if m_a == zero or m_b == zero else code
            is_nan = code_a == nan or code_b == nan or (flip != zero and m_b == zero)
            out[i] = nan if is_nan else code

    return combine


_COMBINE = {16: _combiner(np.int16), 32: _combiner(np.int32), 64: _combiner(np.int64)}
_LEAST = 1 << 17


_NONE = -(1 << 31)


@kernel
def _greatest_log(a, b, max_magnitude, bias, flip):  # type: ignore[no-untyped-def]
    """The greatest E of `combine` at log_offset 0 where neither is zero or NaN; _NONE where no such pair is."""
    greatest = np.int32(_NONE)
    for i in range(a.size):
        m_a, m_b = np.int32(a[i]) & max_magnitude, np.int32(b[i]) & max_magnitude
        log = np.int32(np.int32(m_a - bias) + np.int32((np.int32(m_b - bias) ^ flip) - flip))
        greatest = max(greatest, log if m_a != 0 and m_b != 0 else np.int32(_NONE))
    return greatest


def _scale(a: Operand, b: Operand, direction: int) -> int:
    """What the scales of the operands add to E."""
    return int(a.shift[0]) + a.fmt.bias + direction * (int(b.shift[0]) + b.fmt.bias)


def fitting(a: Operand, b: Operand, direction: int, result: Result) -> int:
    """The log_offset that "fit" finds for `combine`."""
    greatest = greatest_log_of(a.codes, b.codes, a.fmt, direction)
    return fitting_offset(greatest + _scale(a, b, direction), result.fmt) if greatest is not None else 0


def greatest_log_of(a: Codes, b: Codes, fmt: LNSFormat, direction: int) -> int | None:
    """The greatest E of a b or a / b at log_offset 0, of flat codes; None where all have a zero or NaN in them."""
    constants = [np.int32(x) for x in (fmt.max_magnitude, fmt.bias, (direction - 1) // 2)]

    def part(begin: int, end: int) -> int:
        return int(_greatest_log(a[begin:end], b[begin:end], *constants))

    greatest = max(in_chunks(part, a.size, _LEAST))
    return greatest if greatest > _NONE else None


def combines(a: Operand, b: Operand, result: Result) -> bool:
    """Whether `combine` takes these: one format, one scale each, to nearest."""
    return a.fmt == b.fmt == result.fmt and a.shift.size == b.shift.size == 1 and result.rounding == "nearest"


def combine(a: Operand, b: Operand, direction: int, result: Result) -> tuple[Codes, int]:
    """a b (direction 1) or a / b (-1) to nearest, of one format, each with one scale: `linear` in one vector loop.

    E = E_a + direction E_b as at log_offset 0, of at most twice the size of the greatest, 2^(bits - 2): so that codes
    of 32 bits need integers of 32 bits. The scales move the range: from `half` to its lowest the smallest, below zero.
    """
    log_offset = fitting(a, b, direction, result) if result.log_offset == "fit" else result.log_offset
    kernel_of, rule = combiner(result.fmt, result.target(log_offset), _scale(a, b, direction), direction)
    out = np.empty(a.codes.shape, result.fmt.dtype)

    def part(begin: int, end: int) -> None:
        kernel_of(a.codes[begin:end], b.codes[begin:end], *rule, out[begin:end])

    in_chunks(part, out.size, _LEAST)
    return out.reshape(result.shape), log_offset


@lru_cache(maxsize=1024)
def combiner(fmt: LNSFormat, to: Target, scale: int, direction: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The kernel of `combine`, and what it takes between codes and result, where the scales add so much to E."""
    lowest = to.lowest - scale
    highest = lowest + fmt.max_magnitude - 1
    # half of the smallest lies K steps below it, and E is an integer: floor(K); with "saturate" nothing becomes zero
    half = lowest - (1 << 40 if to.saturate else whole_steps_in_two(fmt))
    # the narrowest integers that hold the sums of two logarithms and the edges
    width = 16 if fmt.bits <= 8 else 32
    if max(highest, -lowest) >= 1 << (width - 1):
        width = 64
    integer = {16: np.int16, 32: np.int32, 64: np.int64}[width]
    # no log is below the least integer, so that a half that lies there is as good
    half = max(half, -(1 << (width - 1)))
    nan = np.array(fmt.nan_code, fmt.dtype).astype(integer)[()]
    edges = [integer(x) for x in (fmt.bias, (direction - 1) // 2, lowest, highest, half, to.overflow)]
    return _COMBINE[width], (integer(fmt.max_magnitude), nan, *edges)


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
