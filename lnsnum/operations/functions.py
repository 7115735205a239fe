"""exp, exp2, log, log2, log10 and powers with an LNS exponent: faithful, by their position on the logarithmic axis.

    exp2(a):  E = K a        log2(a):  E = K log2(|E_a| / K_a)        a^b:  E = E_a b        K = 2^F log_base 2

The position is computed in floating point. Where it comes within its error bound of a code it is that code; so the
result is always one of the two codes around the exact one, and in nearest within `FAITHFUL_ULP` of it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import primitive
from lnsnum.kernels.elementary import log2_parts, power_significand, powers
from lnsnum.kernels.rounding import DOUBT, Target, UInt32Array, pack, settle, steps_in_two
from lnsnum.operations.operation import Operand, Result, run

FAITHFUL_ULP = 0.5 + 2.0**-16
"""Bound of the error of the faithful functions in nearest, in code steps."""

_RELATIVE_ERROR = 2.0**-49


@kernel
def _snap(r, error, negative, random, to):  # type: ignore[no-untyped-def]
    """The magnitude of a position known to within `error`: that of one of the codes around the exact position."""
    # within the error of a code that code is one of the two around the exact position: faithful, without integers
    nearest = np.rint(r)
    if abs(r - nearest) <= error:
        r = nearest
    m = settle(np.int64(0), r, 0.0, random, negative, to)
    # here r counts as exact, so only a draw and the half of the smallest can be in doubt: either answer is faithful
    if m == DOUBT:
        m = np.int64(1) if r < to.lowest else np.int64(min(nearest, 1e15)) - to.lowest + 1
        m = min(max(m, np.int64(1)), np.int64(to.max_magnitude))
    return m


@kernel
def _value(log, table):  # type: ignore[no-untyped-def]
    """base^(log / 2^F) as a double, at most 1e300; 0 below 1e-300."""
    # 64 bits of the value, more than the double that it becomes
    s, e, _ = power_significand(log, table[0], table[1], table[2])
    # beyond: exponents as great lead out of every format, and ones as small move no result by a step
    if e > 990:
        return 1e300
    if e < -990:
        return 0.0
    return math.ldexp(np.float64(s), int(e - 63))


@kernel
def _exponential(codes, max_magnitude, shift, table, factor, to, random, out):  # type: ignore[no-untyped-def]
    """E = factor * a."""
    for i in range(codes.size):
        code = np.int64(codes[i])
        m, negative = code & max_magnitude, code > max_magnitude
        if m == 0 and negative:
            out[i] = to.sign_bit
            continue
        r = 0.0
        if m > 0:
            # for a = 0 it stays 0, and e^0 is 1
            r = factor * _value(m + shift[i if shift.size > 1 else 0], table)
        r = -r if negative else r
        m = _snap(r, abs(r) * _RELATIVE_ERROR, False, random[i if random.size > 1 else 0], to)
        out[i] = pack(m, 0, to.sign_bit)


@kernel
def _logarithm(codes, max_magnitude, shift, factor, to, random, out):  # type: ignore[no-untyped-def]
    """The real number factor * E_a, rounded like any other."""
    for i in range(codes.size):
        code = np.int64(codes[i])
        m = code & max_magnitude
        if m == 0 or code > max_magnitude:
            out[i] = to.sign_bit
            continue
        log = m + shift[i if shift.size > 1 else 0]
        if log == 0:
            out[i] = 0
            continue
        # log a is a number like any other: its sign is that of E_a, its size is encoded
        exponent, fraction = log2_parts(abs(np.float64(log)) * factor)
        r = to.steps_in_two * (exponent + fraction)
        # of log2 in the first part, of the factor and the product in the second
        error = (to.steps_in_two + abs(r)) * _RELATIVE_ERROR
        m = _snap(r, error, log < 0, random[i if random.size > 1 else 0], to)
        out[i] = pack(m, np.int64(log < 0), to.sign_bit)


@kernel
def _power(a, a_max, a_shift, a_factor, b, b_max, b_shift, table, period, root, to, random, out):  # type: ignore[no-untyped-def]
    """E = a_factor E_a b.

    b is an integer exactly where E_b >= 0 is a multiple of `period` (0: only where b = 1); it is odd where b = 1 or
    `root` is odd.
    """
    for i in range(out.size):
        code_a, code_b = np.int64(a[i]), np.int64(b[i])
        m_a, m_b = code_a & a_max, code_b & b_max
        negative, b_negative = code_a > a_max, code_b > b_max
        # NaN in either; 0 to a negative power is NaN too
        if (m_a == 0 and negative) or (m_b == 0 and b_negative) or (m_a == 0 and m_b != 0 and b_negative):
            out[i] = to.sign_bit
            continue
        if m_a == 0 and m_b != 0:
            out[i] = 0
            continue
        r = 0.0
        if m_b == 0:
            negative = False
        else:
            log_b = m_b + b_shift[i if b_shift.size > 1 else 0]
            # 1 and -1 keep the sign of a. Else b must be an integer, and its parity decides
            if negative and log_b != 0:
                if log_b < 0 or period == 0 or log_b % period != 0:
                    out[i] = to.sign_bit
                    continue
                negative = root & 1 == 1
            r = _value(log_b, table) * (a_factor * np.float64(m_a + a_shift[i if a_shift.size > 1 else 0]))
            r = -r if b_negative else r
        m = _snap(r, abs(r) * _RELATIVE_ERROR, negative, random[i if random.size > 1 else 0], to)
        out[i] = pack(m, np.int64(negative), to.sign_bit)


def _faithful(a: Operand, kernel_of: Any, result: Result) -> tuple[Codes, int]:
    """Run a kernel that leaves nothing open."""

    def fill(to: Target, random: UInt32Array, out: NDArray[Any]) -> NDArray[np.int64]:
        kernel_of(to, random, out)
        return np.empty(0, np.int64)

    def case(i: int) -> Any:
        raise AssertionError(f"element {i} was left open")

    return run(fill, case, result)


Of = Literal["2", "e", "10"]
"""The base of an exponential or a logarithm."""


@lru_cache(maxsize=256)
def _constant(base: float, fraction_bits: int, of: Of) -> float:
    """2^F log_base of 2, e or 10."""
    if of == "2":
        return steps_in_two(LNSFormat(32, fraction_bits, base=base))[0]
    if of == "10":
        low, _ = exact.log2_bracket(10.0, 192)
        _, high = exact.log2_bracket(base, 192)
        return float(Fraction(low << fraction_bits, high))
    low, _ = exact.log2_bracket(math.e, 192)
    # e is no double: log2(e) by its double and what that leaves out, e - 2.718281828459045 = 1.4456468917292502e-16
    log2_e = Fraction(low, 1 << 192) + Fraction(1.4456468917292502e-16 / math.e / math.log(2.0))
    _, high = exact.log2_bracket(base, 192)
    return float(log2_e * (1 << (fraction_bits + 192)) / high)


def exponential(a: Operand, of: Of, result: Result) -> tuple[Codes, int]:
    """e^a or 2^a."""
    table = powers(a.fmt.base, a.fmt.fraction_bits)
    factor = _constant(result.fmt.base, result.fmt.fraction_bits, of)

    def kernel_of(to: Target, random: UInt32Array, out: NDArray[Any]) -> None:
        _exponential(a.codes, a.fmt.max_magnitude, a.shift, table, factor, to, random, out)

    return _faithful(a, kernel_of, result)


def logarithm(a: Operand, of: Of, result: Result) -> tuple[Codes, int]:
    """Ln a, log2 a or log10 a."""
    factor = 1.0 / _constant(a.fmt.base, a.fmt.fraction_bits, of)

    def kernel_of(to: Target, random: UInt32Array, out: NDArray[Any]) -> None:
        _logarithm(a.codes, a.fmt.max_magnitude, a.shift, factor, to, random, out)

    return _faithful(a, kernel_of, result)


def power(a: Operand, b: Operand, result: Result) -> tuple[Codes, int]:
    """a^b."""
    table = powers(b.fmt.base, b.fmt.fraction_bits)
    factor = 2.0 ** (result.fmt.fraction_bits - a.fmt.fraction_bits)
    root, g = primitive(b.fmt.base)
    steps = 1 << b.fmt.fraction_bits
    period = steps // math.gcd(g, steps) if root.denominator == 1 else 0

    def kernel_of(to: Target, random: UInt32Array, out: NDArray[Any]) -> None:
        _power(
            a.codes, a.fmt.max_magnitude, a.shift, factor, b.codes, b.fmt.max_magnitude, b.shift, table, period,
            root.numerator & 1, to, random, out,
        )  # fmt: skip

    return _faithful(a, kernel_of, result)
