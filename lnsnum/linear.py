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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.codes import Codes
from lnsnum.decide import Sum, Term, Value
from lnsnum.kernel import kernel
from lnsnum.operation import Operand, Result, run
from lnsnum.rounding import DOUBT, Target, UInt32Array, pack, settle, whole_steps_in_two


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
        if abs(near) > _FAR:
            m = settle(np.int64(0), near, abs(near) * 2.0**-50, random[i * random_stride], negative, to)
        else:
            numerator = a_factor * log_a + b_factor * log_b
            whole = numerator // divisor
            rest = numerator - whole * divisor
            bound = 0.0 if rest == 0 or 2 * rest == divisor else error
            m = settle(whole, rest / divisor, bound, random[i * random_stride], negative, to)
        if m == DOUBT:
            hard[unresolved] = i
            unresolved += 1
        out[i] = pack(m, np.int64(negative), to.sign_bit)
    return unresolved


def _combiner(integer: Any) -> Callable[..., Any]:
    """The kernel `combine` in integers of one width: the narrower, the more of them in a vector."""

    @kernel
    def combine(a, b, direction, shift, max_magnitude, one_from, overflow, out):  # type: ignore[no-untyped-def]
        zero, one, greatest = integer(0), integer(1), integer(max_magnitude)
        sign_bit = integer(greatest + one)
        for i in range(out.size):
            code_a, code_b = integer(a[i]), integer(b[i])
            m_a, m_b = integer(code_a & greatest), integer(code_b & greatest)
            m = integer(integer(m_a + integer(direction * m_b)) + shift)
            too_great = m > greatest
            m = (one if m >= one_from else zero) if m < one else m
            sign = integer(integer(code_a ^ code_b) & sign_bit)
            code = integer(overflow if too_great else m)
            code = integer(code | sign) if code > zero else (sign_bit if code < zero else zero)
            code = zero if m_a == zero or m_b == zero else code
            nan = code_a == sign_bit or code_b == sign_bit or (direction < zero and m_b == zero)
            out[i] = sign_bit if nan else code

    return combine


_combine_narrow, _combine_wide = _combiner(np.int16), _combiner(np.int64)


def combine(a: Operand, b: Operand, direction: int, result: Result, log_offset: int) -> tuple[Codes, int]:
    """a b (direction 1) or a / b (-1) to nearest, of one format, each with one scale: `linear` in one vector loop.

    m = m_a + direction m_b + shift, selections for the edges: from `one_from` to 0 the smallest, below that zero.
    """
    to, fmt = result.target(log_offset), result.fmt
    narrow = fmt.bits <= 8 and to.steps_in_two < 1 << 10
    integer, kernel_of = (np.int16, _combine_narrow) if narrow else (np.int64, _combine_wide)
    far = 1 << (10 if narrow else 40)  # beyond all sums of magnitudes, and beyond the half of the smallest or both
    shift = int(a.shift[0]) + direction * int(b.shift[0]) + 1 - to.lowest
    one_from = -8 * far if to.saturate else 1 - min(whole_steps_in_two(fmt), far)
    out = np.empty(a.codes.shape, fmt.dtype)
    kernel_of(
        a.codes, b.codes, integer(direction), integer(min(max(shift, -4 * far), 4 * far)), integer(fmt.max_magnitude),
        integer(one_from), integer(to.overflow), out,
    )  # fmt: skip
    return out.reshape(result.shape), log_offset


def linear(
    a: Operand, b: Operand | None, a_factor: Fraction, b_factor: Fraction, rule: Rule, result: Result
) -> tuple[Codes, int]:
    """The numbers with E = a_factor E_a + b_factor E_b, in code steps of the result."""
    divisor = math.lcm(a_factor.denominator, b_factor.denominator)
    factors = int(a_factor * divisor), int(b_factor * divisor)
    other = a if b is None else b
    error = 0.0 if divisor & (divisor - 1) == 0 else 2.0**-52

    def fill(to: Target, random: UInt32Array, out: NDArray[Any], hard: NDArray[np.int64]) -> int:
        count: int = _linear(
            a.codes, a.fmt.max_magnitude, a.shift, factors[0],
            other.codes, other.fmt.max_magnitude, other.shift, factors[1],
            divisor, rule, error, to, random, out, hard,
        )  # fmt: skip
        return count

    def case(i: int) -> tuple[Value, bool, int, float]:
        position = a_factor * a.log(i) + b_factor * other.log(i)
        negative = (a.negative(i) and rule.odd) != (b is not None and b.negative(i))
        value = Sum((Term(1, 0, position / (1 << result.fmt.fraction_bits)),))
        return value, negative, int(result.random[i % result.random.size]), float(position)

    return run(fill, case, result)
