"""Sums on codes: the greater logarithm, and what a Gaussian logarithm adds to it.

    a b + c:    hi = max(E_a + E_b, E_c),  z = |E_a + E_b - E_c|,      E = hi + sb(z)  or, of unlike signs,  hi + db(z)

One kernel does every case: operands of several fraction bits are brought to the finest, where hi and z are integers.
Sums in one format are `narrow_sums` or `wide_sums` first, much sooner the same codes, and that kernel takes what those
leave open. The approximate Gaussian logarithms are integers by themselves, so that their sums
are too.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.gaussian import (
    Exact,
    GaussianLog,
    Tables,
    check_gaussian,
    evaluate,
    gaussian_position,
    has_tables,
    tables,
)
from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import HardCase, Sum, Term, Value, resolve
from lnsnum.kernels.rounding import AWAY_FROM_ZERO, DOUBT, Target, UInt32Array, pack, settle, whole_steps_in_two
from lnsnum.kernels.threads import in_chunks, in_parts
from lnsnum.operations import byte_sums, narrow_sums, wide_sums
from lnsnum.operations.operation import Fill, Operand, Result, fitting_offset, of_part, run

EXACT = Exact()

_LEAST, _SIMPLE = 1 << 12, 1 << 18
"""So many elements at least to a thread: sums, and what takes a tenth of a nanosecond."""


@kernel
def _log_of(operand, i):  # type: ignore[no-untyped-def]
    """`(m, negative, E)` of element i of (codes, greatest magnitude, shift)."""
    codes, max_magnitude, shift = operand
    code = np.int64(codes[i])
    m = code & max_magnitude
    return m, code > max_magnitude, m + shift[i if shift.size > 1 else 0]


@kernel
def _fused(a, a_factor, b, b_factor, c, c_factor, drop, to, random, out, hard):  # type: ignore[no-untyped-def]
    """a b + c rounded once; returns how many elements are left to integers. b_factor = 0 leaves out b.

    The factors bring E to the finest grid, which has 2^drop steps in one of the result.
    """
    # a power of two: what is multiplied or divided by it stays exact
    scale = 2.0 ** np.float64(drop)
    unresolved = 0
    for i in range(out.size):
        m_a, negative, log_a = _log_of(a, i)
        m_c, c_negative, log_c = _log_of(c, i)
        product, hi, lo = m_a != 0, log_a * a_factor, log_c * c_factor
        is_nan = (negative and m_a == 0) or (c_negative and m_c == 0)
        if b_factor != 0:
            m_b, b_negative, log_b = _log_of(b, i)
            is_nan = is_nan or (b_negative and m_b == 0)
            product, hi, negative = product and m_b != 0, hi + log_b * b_factor, negative != b_negative
        if is_nan:
            out[i] = to.sign_bit
            continue
        # 0 + c is c: as if the product were not there
        if not product:
            hi, negative = lo, c_negative
        subtracted = negative != c_negative
        # x - x is 0 under every policy, "saturate" too: it is no underflow
        if (m_c == 0 and not product) or (product and m_c != 0 and subtracted and hi == lo):
            out[i] = 0
            continue
        r, error = 0.0, 0.0
        if product and m_c != 0:
            z = hi - lo
            if z < 0:
                hi, z, negative = lo, -z, c_negative
            # in steps of the finest grid, where hi and z are integers
            r, error = gaussian_position(z, subtracted, to.steps_in_two * scale, to.steps_error * scale)
            if abs(r) > error or error == 0.0:  # else too small to count on either grid
                r, error = r / scale, error / scale
        # hi on the result's grid: whole steps, rounded down, and an exact part of one
        whole = hi >> drop
        r += (hi - (whole << drop)) / scale
        m = settle(whole, r, error, random[i if random.size > 1 else 0], negative, to)
        if m == DOUBT:
            hard[unresolved] = i
            unresolved += 1
        out[i] = pack(m, np.int64(negative), to.sign_bit)
    return unresolved


@kernel
def add_where(a, a_shift, c, c_shift, max_magnitude, to, places, out):  # type: ignore[no-untyped-def]
    """Write a + c at some places, in one format and at one scale each; returns how many are left to integers."""
    left, random, hard = 0, np.zeros(1, np.uint32), np.empty(1, np.int64)
    for i in places:
        x, z = (a[i : i + 1], max_magnitude, a_shift), (c[i : i + 1], max_magnitude, c_shift)
        left += _fused(x, 1, x, 0, z, 1, 0, to, random, out[i : i + 1], hard)
    return left


def _arguments(operand: Operand) -> tuple[Codes, int, NDArray[np.int64]]:
    return operand.codes, operand.fmt.max_magnitude, operand.shift


def fused(a: Operand, b: Operand | None, c: Operand, result: Result) -> tuple[Codes, int]:
    """a b + c, or a + c without b, correctly rounded in every mode."""
    return run(*_general(a, b, c, result), result)


def _general(a: Operand, b: Operand | None, c: Operand, result: Result) -> tuple[Fill, HardCase]:
    """The kernel for every case with its operands bound, and what the elements are that it leaves to integers."""
    finest = max(fmt.fraction_bits for fmt in (a.fmt, c.fmt, result.fmt, a.fmt if b is None else b.fmt))
    a_factor, c_factor = (1 << (finest - x.fmt.fraction_bits) for x in (a, c))
    b_factor = 0 if b is None else 1 << (finest - b.fmt.fraction_bits)
    other = a if b is None else b
    drop = finest - result.fmt.fraction_bits

    def fill(to: Target, random: UInt32Array, out: NDArray[Any]) -> NDArray[np.int64]:
        def part(begin: int, end: int, hard: NDArray[np.int64]) -> int:
            x, y, z = (_arguments(operand.part(begin, end)) for operand in (a, other, c))
            bits = of_part(random, begin, end)
            count: int = _fused(x, a_factor, y, b_factor, z, c_factor, drop, to, bits, out[begin:end], hard)
            return count

        return in_parts(part, out.size, _LEAST)

    def case(i: int) -> tuple[Value, bool, int, float]:
        steps = 1 << finest
        logs = [(x.log(i) * factor, x.negative(i)) for x, factor in ((a, a_factor), (c, c_factor))]
        if b is not None:
            logs[0] = logs[0][0] + b.log(i) * b_factor, logs[0][1] != b.negative(i)
        present = [bool(x.codes[i] & x.fmt.max_magnitude) for x in (a, other, c)]
        kept = [log for log, there in zip(logs, (present[0] and present[1], present[2]), strict=True) if there]
        hi, negative = max(kept)
        # the size of the sum, so the sign of the greater operand counts as plus
        terms = [Term(1 if sign == negative else -1, 0, Fraction(log, steps)) for log, sign in kept]
        return Sum(tuple(terms)), negative, int(result.random[i % result.random.size]), hi / (1 << drop)

    return fill, case


def add(a: Operand, c: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    """a + c: correctly rounded, or by an approximate Gaussian logarithm."""
    one_format = a.fmt == c.fmt == result.fmt
    if gaussian is not None and gaussian != EXACT:
        check_gaussian(gaussian)
        if not one_format or result.rounding != "nearest":
            raise ValueError(
                "an approximate Gaussian logarithm is an integer for one format: take operands and result of one "
                "format, and rounding='nearest'"
            )
        return _approximate(a, c, gaussian, result)
    if one_format:
        log_offset = _fitting(a, c, result) if result.log_offset == "fit" else result.log_offset
        codes = None if log_offset is None else _swiftly(a, c, result, result.target(log_offset))
        if codes is not None and log_offset is not None:
            return codes, log_offset
    return fused(a, None, c, result)


@kernel
def negate_codes(codes, max_magnitude, sign_bit, out):  # type: ignore[no-untyped-def]
    """out = -codes."""
    for i in range(out.size):
        out[i] = codes[i] ^ sign_bit if codes[i] & max_magnitude != 0 else codes[i]


def negate(a: Operand) -> Operand:
    """-a; zero and NaN stay."""
    of, out = a.fmt.dtype.type, np.empty_like(a.codes)
    masks = of(a.fmt.max_magnitude), of(a.fmt.sign_bit)
    in_chunks(lambda begin, end: negate_codes(a.codes[begin:end], *masks, out[begin:end]), out.size, _SIMPLE)
    return a._replace(codes=out)


def _fitting(a: Operand, c: Operand, result: Result) -> int | None:
    """The log_offset that "fit" finds: from the sums at one at which none can saturate. None where that finds none."""
    fmt = result.fmt
    # a sum is at most K above its greater operand; at `room` none can saturate, so that its code tells E
    most = max(int(x.shift.max(initial=-(1 << 32))) for x in (a, c)) + fmt.max_magnitude + whole_steps_in_two(fmt) + 2
    if most - fmt.max_log > MAX_LOG_OFFSET:
        return None
    room = fitting_offset(most, fmt)
    to = result.target(room)
    # as where no draw passes
    stochastic = result.rounding.startswith("stochastic")
    codes = _swiftly(a, c, result, to._replace(mode=AWAY_FROM_ZERO) if stochastic else to)
    greatest = 0 if codes is None else int((codes & fmt.dtype.type(fmt.max_magnitude)).max(initial=0))
    # a greatest code of 1 may be an underflow, and one of 0 hides what is below: the general way finds out
    return fitting_offset(room - fmt.max_log + greatest - 1, fmt) if greatest > 1 else None


def _swiftly(a: Operand, c: Operand, result: Result, to: Target) -> Codes | None:
    """a + c in one format, by the loops without branches; what they leave open goes the general way."""
    out = np.empty(max(a.codes.size, c.codes.size), result.fmt.dtype)
    left = byte_sums.add(a, c, to, out)
    if left is None:
        left = narrow_sums.add(a, c, result.fmt, to, result.random, out)
    if left is None:
        left = wide_sums.add(a, c, to, result.random, out)
    if left is None:
        return None
    if left.size:
        random = result.random[left] if result.random.size > 1 else result.random
        fill, case = _general(a.at(left), None, c.at(left), result._replace(shape=left.shape, random=random))
        part = np.empty(left.shape, result.fmt.dtype)
        resolve(fill(to, random, part), case, result.fmt, to, part)
        out[left] = part
    return out.reshape(result.shape)


def _approximate(a: Operand, c: Operand, gaussian: GaussianLog, result: Result) -> tuple[Codes, int]:
    """a + c with the steps that the Gaussian logarithm gives; an underflow is rounded as by nearest."""
    fmt = result.fmt
    m_a, m_c = (x.codes.astype(np.int64) & fmt.max_magnitude for x in (a, c))
    log_a, log_c = m_a + a.shift, m_c + c.shift
    sign_a, sign_c = (x.codes > fmt.max_magnitude for x in (a, c))
    both = (m_a > 0) & (m_c > 0)
    first = (m_c == 0) | ((m_a > 0) & (log_a >= log_c))
    log, negative = np.where(first, log_a, log_c), np.where(first, sign_a, sign_c)
    z = np.abs(log_a - log_c)
    zero = ((m_a == 0) & (m_c == 0)) | (both & (z == 0) & (sign_a != sign_c))
    for subtracted in (False, True):
        where = both & ~zero & ((sign_a != sign_c) == subtracted)
        # a Gaussian logarithm may be the user's Python: it is asked once for each distance
        distinct, back = np.unique(z[where], return_inverse=True)
        log[where] += steps_of(gaussian, distinct, fmt, subtracted)[back]
    nan = (sign_a & (m_a == 0)) | (sign_c & (m_c == 0))
    offset = result.log_offset
    if offset == "fit":
        greatest = int(log.max(where=~zero & ~nan, initial=-(1 << 50)))
        offset = fitting_offset(greatest, fmt) if greatest > -(1 << 50) else 0
    to = result.target(offset)
    m = log - to.lowest + 1
    below = m >= 1 - whole_steps_in_two(fmt) if not to.saturate else np.ones(m.shape, np.bool_)
    m = np.where(m > fmt.max_magnitude, to.overflow, np.where(m < 1, below, m))
    m = np.where(zero, 0, m)
    out = np.where(nan | (m < 0), fmt.nan_code, m + np.where(negative & (m > 0), fmt.sign_bit, 0))
    return out.astype(fmt.dtype).reshape(result.shape), offset


def steps_of(gaussian: GaussianLog, z: NDArray[np.int64], fmt: Any, subtracted: bool) -> NDArray[np.int64]:
    """sb(z) or db(z), from the table where there is one."""
    if has_tables(fmt):
        table: Tables = tables(gaussian, fmt)
        if z.max(initial=0) < table.sb.size:
            return (table.db if subtracted else table.sb)[z].astype(np.int64)
    return evaluate(gaussian, z, fmt, subtracted)
