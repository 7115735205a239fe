"""Arithmetic on codes: multiplying is adding logarithms.

    |a b| = base^((E_a + E_b) / 2^F),      |a / b| = base^((E_a - E_b) / 2^F)

so both are integer additions, exact but for the edges (docs/number_format.md), and a comparison compares E.
Functions take and return plain arrays of codes; the offsets travel beside them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.codes import Codes, LogOffset, check_codes, check_offsets, pack
from lnsnum.format import LNSFormat, Overflow, Underflow, check_choice, check_log_offset
from lnsnum.kernel import kernel

OutLogOffset = int | Literal["fit"] | None
"""The result's log_offset: an integer, "fit" (the least at which nothing saturates), or None: 0 where both operands
have 0, else "fit"."""


_BEYOND = 1 << 40


@lru_cache(maxsize=256)
def steps_in_two(fmt: LNSFormat) -> int:
    """floor(2^F log_base 2): a magnitude more code steps than this below another is less than half of it.

    At most 2^40, beyond any difference of magnitudes that there is.
    """
    return min(exact.floor_log(1, 1, fmt.base, fmt.fraction_bits), _BEYOND)


@kernel
def _add_logs(a, b, direction, shift, max_magnitude, half_steps, overflow, out):  # type: ignore[no-untyped-def]
    """m = m_a + direction * m_b + shift with the edges; direction 1 multiplies, -1 divides."""
    sign_bit = max_magnitude + 1
    stride = 0 if shift.size == 1 else 1
    for i in range(out.size):
        code_a, code_b = np.int64(a[i]), np.int64(b[i])
        m_a, m_b = code_a & max_magnitude, code_b & max_magnitude
        m = m_a + direction * m_b + shift[i * stride]
        if m > max_magnitude:
            m = overflow
        elif m < 1:
            m = np.int64(1 - m <= half_steps)
        if code_a == sign_bit or code_b == sign_bit or (direction < 0 and m_b == 0):
            m = np.int64(-1)
        elif m_a == 0 or m_b == 0:
            m = np.int64(0)
        out[i] = pack(m, np.int64((code_a ^ code_b) & sign_bit != 0), sign_bit)


@kernel
def _greatest_magnitude(a, b, direction, shift, max_magnitude):  # type: ignore[no-untyped-def]
    """The greatest m_a + direction * m_b + shift of the nonzero numbers, and whether there is any."""
    stride = 0 if shift.size == 1 else 1
    greatest = np.int64(-(1 << 62))
    for i in range(a.size):
        m_a, m_b = np.int64(a[i]) & max_magnitude, np.int64(b[i]) & max_magnitude
        if m_a != 0 and m_b != 0:
            greatest = max(greatest, m_a + direction * m_b + shift[i * stride])
    return greatest


def multiply(
    a: Codes,
    b: Codes,
    fmt: LNSFormat,
    *,
    a_log_offset: LogOffset = 0,
    b_log_offset: LogOffset = 0,
    out_log_offset: OutLogOffset = None,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
) -> tuple[Codes, int]:
    """a * b, exact but for overflow and underflow: (codes, log_offset).

    Args:
        a, b: codes of `fmt`, of shapes that broadcast.
        a_log_offset, b_log_offset: their scales, integers or int32 arrays that broadcast to a and to b.
        out_log_offset: the result's scale; see `OutLogOffset`.
        overflow, underflow: as for `encode`; an underflow is rounded as by "nearest".

    Raises:
        TypeError, ValueError: for codes outside the format, shapes that do not broadcast, a bad offset or policy.

    >>> from lnsnum import lns8f3, encode, decode
    >>> codes, offset = multiply(encode([2.0, 0.0], lns8f3), encode([-8.0, -1.0], lns8f3), lns8f3)
    >>> decode(codes, lns8f3).tolist(), offset
    ([-16.0, 0.0], 0)
    """
    return _combine(a, b, 1, fmt, a_log_offset, b_log_offset, out_log_offset, overflow, underflow)


def divide(
    a: Codes,
    b: Codes,
    fmt: LNSFormat,
    *,
    a_log_offset: LogOffset = 0,
    b_log_offset: LogOffset = 0,
    out_log_offset: OutLogOffset = None,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
) -> tuple[Codes, int]:
    """a / b, exact but for overflow and underflow: (codes, log_offset). x / 0 is NaN. Arguments as for `multiply`.

    >>> from lnsnum import lns8f3, encode, decode
    >>> codes, offset = divide(encode([2.0, 1.0], lns8f3), encode([-8.0, 0.0], lns8f3), lns8f3)
    >>> decode(codes, lns8f3)
    array([-0.25,   nan])
    """
    return _combine(a, b, -1, fmt, a_log_offset, b_log_offset, out_log_offset, overflow, underflow)


def _combine(
    a: Codes,
    b: Codes,
    direction: int,
    fmt: LNSFormat,
    a_log_offset: LogOffset,
    b_log_offset: LogOffset,
    out_log_offset: OutLogOffset,
    overflow: Overflow,
    underflow: Underflow,
) -> tuple[Codes, int]:
    check_choice("overflow", overflow, Overflow)
    check_choice("underflow", underflow, Underflow)
    a, b = check_codes(a, fmt), check_codes(b, fmt)
    a_offset, b_offset = check_offsets(a_log_offset, a.shape), check_offsets(b_log_offset, b.shape)
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not broadcast") from None
    offsets = np.asarray(a_offset, np.int64) + direction * np.asarray(b_offset, np.int64)
    shift = (offsets if offsets.ndim == 0 else np.broadcast_to(offsets, shape)).reshape(-1)
    shift = shift - direction * fmt.bias
    if out_log_offset is None:
        out_log_offset = "fit" if np.any(a_offset) or np.any(b_offset) else 0
    flat_a, flat_b = (np.ascontiguousarray(np.broadcast_to(x, shape)).reshape(-1) for x in (a, b))
    if out_log_offset == "fit":
        greatest = _greatest_magnitude(flat_a, flat_b, direction, shift, fmt.max_magnitude)
        out_log_offset = int(greatest) - fmt.max_magnitude if greatest > -(1 << 61) else 0
    out_offset = check_log_offset(out_log_offset)
    out = np.empty(flat_a.shape, fmt.dtype)
    half_steps = steps_in_two(fmt) if underflow == "round" else _BEYOND
    too_great = fmt.max_magnitude if overflow == "saturate" else -1
    _add_logs(flat_a, flat_b, direction, shift - out_offset, fmt.max_magnitude, half_steps, too_great, out)
    return out.reshape(shape), out_offset


def negative(a: Codes, fmt: LNSFormat) -> Codes:
    """-a, exact; zero and NaN stay."""
    a = check_codes(a, fmt)
    return np.where(a & fmt.max_magnitude, a ^ fmt.sign_bit, a).astype(fmt.dtype)


def absolute(a: Codes, fmt: LNSFormat) -> Codes:
    """|a|, exact; NaN stays."""
    a = check_codes(a, fmt)
    return np.where(a == fmt.nan_code, a, a & fmt.max_magnitude).astype(fmt.dtype)


def isnan(a: Codes, fmt: LNSFormat) -> NDArray[np.bool_]:
    """Which elements are NaN."""
    nan: NDArray[np.bool_] = check_codes(a, fmt) == fmt.nan_code
    return nan


def order_key(a: Codes, fmt: LNSFormat, log_offset: LogOffset = 0) -> NDArray[np.int64]:
    """Integers in the order of the values, comparable across offsets of one format (NaN has the key of zero).

    >>> from lnsnum import lns8f3, encode
    >>> (np.diff(order_key(encode([-2.0, -0.5, 0.0, 0.5, 2.0], lns8f3), lns8f3)) > 0).all()
    np.True_
    """
    a = check_codes(a, fmt)
    m = (a & fmt.max_magnitude).astype(np.int64)
    above_all_offsets = np.int64(1) << np.int64(33)
    size: Any = np.where(m > 0, m + np.asarray(log_offset, np.int64) + above_all_offsets, 0)
    key: NDArray[np.int64] = np.where(a >= fmt.sign_bit, -size, size)
    return key
