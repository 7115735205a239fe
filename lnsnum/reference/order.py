"""The order of the values, and the functions of docs/number_format.md that need no rounding but for the edges.

    a < b      where      (s_a, s_a E_a)  <  (s_b, s_b E_b),      s = -1, 0 or 1: first the sign, then the logarithm

Among the codes of one offset, zero lies between the two smallest and NaN nowhere.
"""

from __future__ import annotations

from typing import TypedDict, Unpack, cast

from lnsnum.format import LNSFormat, Overflow, Underflow
from lnsnum.reference.codes import check, log_of, number_of
from lnsnum.reference.rounding import Modes, round_sum


def compare(a: int, b: int, fmt: LNSFormat, *, a_log_offset: int = 0, b_log_offset: int = 0) -> int | None:
    """-1, 0 or 1 where a is less than, equal to or greater than b; None where one of them is NaN.

    >>> compare(96, 80, LNSFormat(8, 5)), compare(96, 80, LNSFormat(8, 5), b_log_offset=16)
    (1, 0)
    """
    check(fmt, (a, b), (a_log_offset, b_log_offset))
    if fmt.nan_code in (a, b):
        return None
    keys = []
    for code, offset in ((a, a_log_offset), (b, b_log_offset)):
        sign = 0 if code == 0 else -1 if code >= fmt.sign_bit else 1
        keys.append((sign, sign * log_of(code, fmt, offset)))
    return (keys[0] > keys[1]) - (keys[0] < keys[1])


def _key(code: int, fmt: LNSFormat) -> int:
    """The place of a number among all codes of one offset, zero at 0."""
    return -(code & fmt.max_magnitude) if code & fmt.sign_bit else code


def _code(key: int, fmt: LNSFormat) -> int:
    return -key | fmt.sign_bit if key < 0 else key


def isnan(a: int, fmt: LNSFormat) -> bool:
    """Whether a is NaN.

    >>> isnan(128, LNSFormat(8, 5)), isnan(0, LNSFormat(8, 5))
    (True, False)
    """
    check(fmt, (a,), ())
    return a == fmt.nan_code


def iszero(a: int, fmt: LNSFormat) -> bool:
    """Whether a is zero.

    >>> iszero(128, LNSFormat(8, 5)), iszero(0, LNSFormat(8, 5))
    (False, True)
    """
    check(fmt, (a,), ())
    return a == 0


def negative(a: int, fmt: LNSFormat) -> int:
    """The code of -a.

    >>> negative(64, LNSFormat(8, 5)), negative(0, LNSFormat(8, 5)), negative(128, LNSFormat(8, 5))
    (192, 0, 128)
    """
    check(fmt, (a,), ())
    return a if a in (0, fmt.nan_code) else a ^ fmt.sign_bit


def absolute(a: int, fmt: LNSFormat) -> int:
    """The code of |a|.

    >>> absolute(192, LNSFormat(8, 5))
    64
    """
    return negative(a, fmt) if a > fmt.sign_bit else a


def copysign(a: int, b: int, fmt: LNSFormat) -> int:
    """The code of |a| with the sign of b; that of zero is plus.

    >>> copysign(64, 129, LNSFormat(8, 5)), copysign(192, 0, LNSFormat(8, 5))
    (192, 64)
    """
    check(fmt, (a, b), ())
    if fmt.nan_code in (a, b):
        return fmt.nan_code
    size = absolute(a, fmt)
    return negative(size, fmt) if b > fmt.sign_bit else size


def sign(a: int, fmt: LNSFormat) -> int:
    """The code of -1, 0 or 1, at log_offset 0; NaN for NaN.

    >>> sign(3, LNSFormat(8, 5)), sign(0, LNSFormat(8, 5)), sign(131, LNSFormat(8, 5))
    (64, 0, 192)
    """
    check(fmt, (a,), ())
    return a if a in (0, fmt.nan_code) else copysign(fmt.bias, a, fmt)


class Choice(TypedDict, total=False):
    """Keywords of `minimum` and `maximum`: the offsets of a, of b, of the result, and its edges."""

    a_log_offset: int
    b_log_offset: int
    out_log_offset: int
    overflow: Overflow
    underflow: Underflow


def _chosen(wanted: int, a: int, b: int, fmt: LNSFormat, how: Choice) -> int:
    """The code of b where a compares with it the other way than wanted, else of a."""
    scales = how.pop("a_log_offset", 0), how.pop("b_log_offset", 0)
    order = compare(a, b, fmt, a_log_offset=scales[0], b_log_offset=scales[1])
    code, log_offset = (b, scales[1]) if order == -wanted else (a, scales[0])
    number = None if order is None else number_of(code, fmt, log_offset)
    return round_sum(number, fmt, how.pop("out_log_offset", 0), **cast(Modes, how))


def minimum(a: int, b: int, fmt: LNSFormat, **how: Unpack[Choice]) -> int:
    """The code of the lesser of a and b; NaN if one is.

    >>> minimum(64, 80, LNSFormat(8, 5)), minimum(64, 80, LNSFormat(8, 5), a_log_offset=32, out_log_offset=32)
    (64, 48)
    """
    return _chosen(-1, a, b, fmt, how)


def maximum(a: int, b: int, fmt: LNSFormat, **how: Unpack[Choice]) -> int:
    """The code of the greater of a and b; NaN if one is.

    >>> maximum(64, 80, LNSFormat(8, 5)), maximum(64, 192, LNSFormat(8, 5))
    (80, 64)
    """
    return _chosen(1, a, b, fmt, how)


def clip(
    a: int,
    lower: int,
    upper: int,
    fmt: LNSFormat,
    *,
    log_offset: int = 0,
    lower_log_offset: int = 0,
    upper_log_offset: int = 0,
    out_log_offset: int = 0,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
) -> int:
    """The code of minimum(maximum(a, lower), upper), placed once; NaN if one is.

    >>> [clip(a, 192, 64, LNSFormat(8, 5)) for a in (0, 80, 200, 128)]
    [0, 64, 192, 128]
    """
    order = compare(a, lower, fmt, a_log_offset=log_offset, b_log_offset=lower_log_offset)
    code, offset = (lower, lower_log_offset) if order == -1 else (a, log_offset)
    above = compare(code, upper, fmt, a_log_offset=offset, b_log_offset=upper_log_offset)
    if above == 1:
        code, offset = upper, upper_log_offset
    number = None if order is None or above is None else number_of(code, fmt, offset)
    return round_sum(number, fmt, out_log_offset, overflow=overflow, underflow=underflow)


def nextafter(a: int, b: int, fmt: LNSFormat, *, a_log_offset: int = 0, b_log_offset: int = 0) -> int:
    """The neighbour of a on the side of b, at a's offset; a where they are equal or there is no neighbour.

    >>> nextafter(64, 0, LNSFormat(8, 5)), nextafter(0, 64, LNSFormat(8, 5)), nextafter(129, 64, LNSFormat(8, 5))
    (63, 1, 0)
    """
    order = compare(a, b, fmt, a_log_offset=a_log_offset, b_log_offset=b_log_offset)
    if order is None:
        return fmt.nan_code
    key = _key(a, fmt) - order
    return _code(max(-fmt.max_magnitude, min(fmt.max_magnitude, key)), fmt)


def ulp_distance(a: int, b: int, fmt: LNSFormat) -> int:
    """How many codes lie from a to b, zero between the two smallest; -1 where one is NaN.

    >>> ulp_distance(64, 61, LNSFormat(8, 5)), ulp_distance(1, 129, LNSFormat(8, 5))
    (3, 2)
    """
    check(fmt, (a, b), ())
    return -1 if fmt.nan_code in (a, b) else abs(_key(a, fmt) - _key(b, fmt))
