"""One format to another: code -> code, by one rounding of the exact value.

    E'  =  2^F' log_base'(v),      log_base'(v) = E / 2^F * log(base) / log(base')

Where the quotient of the logarithms is a rational number, as in one base, the new position is a fraction
(`lnsnum.operations.linear`). Between other bases it is irrational: floating point with a bound of its error, and
integers where that leaves the code open.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_log_offset
from lnsnum.kernels.codes import Codes, LogOffset, check_codes, check_format
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import Power, Value
from lnsnum.kernels.rounding import DOUBT, Target, UInt32Array, pack, settle
from lnsnum.operations.linear import KEEP, linear
from lnsnum.operations.operation import OutLogOffset, prepare, run


def convert(
    codes: ArrayLike,
    fmt: LNSFormat,
    to: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    log_offset: LogOffset = 0,
    out_log_offset: int = 0,
    random_bits: ArrayLike | None = None,
) -> Codes:
    """The codes in format `to` of the values that `codes` have in `fmt`: one rounding, of the exact value.

    Args:
        codes: unsigned integers of any shape.
        fmt: their format; `to`: the format wanted. Of any width and base.
        rounding, overflow, underflow, random_bits: as for `encode`.
        log_offset: the scale of `codes`, an integer or an int32 array that broadcasts to them; `out_log_offset`: that
            of the result, an integer.

    Raises:
        As `encode` and `decode`.

    >>> from lnsnum import encode, lns8f3, lns16f10
    >>> convert(encode([1.5, 200.0], lns16f10), lns16f10, lns8f3)
    array([ 69, 125], dtype=uint8)
    """
    check_format(to)
    return rescale(
        codes, fmt, log_offset=log_offset, out_format=to, out_log_offset=check_log_offset(out_log_offset),
        rounding=rounding, overflow=overflow, underflow=underflow, random_bits=random_bits,
    )[0]  # fmt: skip


def rescale(
    codes: ArrayLike,
    fmt: LNSFormat,
    *,
    log_offset: LogOffset = 0,
    out_format: LNSFormat | None = None,
    out_log_offset: OutLogOffset = None,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    random_bits: ArrayLike | None = None,
) -> tuple[Codes, int]:
    """The same values at another log_offset or in another format: (codes, log_offset). Arguments as for `convert`.

    >>> from lnsnum import encode, lns8f3
    >>> rescale(encode([1.0, 0.25], lns8f3), lns8f3, out_log_offset="fit")
    (array([127, 111], dtype=uint8), -63)
    """
    check_format(fmt)
    to = fmt if out_format is None else out_format
    check_format(to)
    array = check_codes(codes, fmt)
    ratio = exact.log_ratio(fmt.base, to.base)
    modes: dict[str, Any] = {"out_log_offset": out_log_offset, "rounding": rounding, "overflow": overflow}
    modes |= {"underflow": underflow, "random_bits": random_bits}
    (a,), result = prepare([(array, fmt, log_offset)], out_format=None, **modes)
    result = result._replace(fmt=to)
    if ratio is not None:
        factor = ratio * Fraction(2) ** (to.fraction_bits - fmt.fraction_bits)
        return linear(a, None, factor, Fraction(0), KEEP, result)
    steps = _step_ratio(fmt, to)

    def fill(target: Target, random: UInt32Array, out: NDArray[Any]) -> NDArray[np.int64]:
        hard = np.empty(out.size, np.int64)
        count = _change_base(a.codes, a.fmt.max_magnitude, a.shift, steps, target, random, out, hard)
        return hard[:count]

    def case(i: int) -> tuple[Value, bool, int, float]:
        log = a.log(i)
        value = Power(fmt.base, Fraction(log, 1 << fmt.fraction_bits))
        return value, a.negative(i), int(result.random[i % result.random.size]), log * steps

    return run(fill, case, result)


@lru_cache(maxsize=256)
def _step_ratio(fmt: LNSFormat, to: LNSFormat) -> float:
    """Code steps of `to` in one of `fmt`, to within one part in 2^52."""
    precision = 192
    (low, _), (_, high) = exact.log2_bracket(fmt.base, precision), exact.log2_bracket(to.base, precision)
    return float(Fraction(low, high) * Fraction(2) ** (to.fraction_bits - fmt.fraction_bits))


@kernel
def _change_base(codes, max_magnitude, shift, factor, to, random, out, hard):  # type: ignore[no-untyped-def]
    """E' = factor E, the factor irrational and known to within one part in 2^52."""
    stride, random_stride = 0 if shift.size == 1 else 1, 0 if random.size == 1 else 1
    unresolved = 0
    for i in range(codes.size):
        code = np.int64(codes[i])
        m, negative = code & max_magnitude, code > max_magnitude
        if m == 0:
            out[i] = to.sign_bit if negative else 0
            continue
        r = np.float64(m + shift[i * stride]) * factor
        m = settle(np.int64(0), r, abs(r) * 2.0**-51, random[i * random_stride], negative, to)
        if m == DOUBT:
            hard[unresolved] = i
            unresolved += 1
        out[i] = pack(m, np.int64(negative), to.sign_bit)
    return unresolved
