"""One format to another: code -> code, by one rounding of the exact value.

    E'  =  2^F' log_base'(v),      log_base'(v) = E / 2^F * log(base) / log(base')

Where the quotient of the logarithms is a rational number, as in one base, the new position is a fraction
(`lnsnum.operations.linear`). Between other bases it is irrational: floating point with a bound of its error, and
integers where that leaves the code open.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any, Unpack

from numpy.typing import ArrayLike

from lnsnum import exact
from lnsnum.format import LNSFormat, Modes, check_log_offset
from lnsnum.kernels.codes import Codes, LogOffset, check_format
from lnsnum.kernels.decide import Power, Value
from lnsnum.operations.linear import KEEP, linear
from lnsnum.operations.operation import Rounded, Wanted, check_names, prepare
from lnsnum.operations.real_steps import RealStep, real_step

__all__ = ["convert", "rescale"]


def convert(
    codes: ArrayLike,
    fmt: LNSFormat,
    to: LNSFormat,
    *,
    log_offset: LogOffset = 0,
    out_log_offset: int = 0,
    random_bits: ArrayLike | None = None,
    **modes: Unpack[Modes],
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
    scales: Any = {"log_offset": log_offset, "out_log_offset": check_log_offset(out_log_offset)}
    return rescale(codes, fmt, out_format=to, random_bits=random_bits, **scales, **modes)[0]


def rescale(
    codes: ArrayLike, fmt: LNSFormat, *, log_offset: LogOffset = 0, **options: Unpack[Rounded]
) -> tuple[Codes, int]:
    """The same values at another log_offset or in another format: (codes, log_offset). Arguments as for `convert`.

    >>> from lnsnum import encode, lns8f3
    >>> rescale(encode([1.0, 0.25], lns8f3), lns8f3, out_log_offset="fit")
    (array([127, 111], dtype=uint8), -63)
    """
    check_names(options, Rounded, "conversion")
    check_format(fmt)
    wanted = Wanted(**options)
    to = fmt if wanted.out_format is None else wanted.out_format
    check_format(to)
    ratio = exact.log_ratio(fmt.base, to.base)
    # the bases may differ, which operations refuse: so it is checked as one within fmt
    (a,), result = prepare([(codes, fmt, log_offset)], wanted._replace(out_format=None))
    result = result._replace(fmt=to)
    if ratio is not None:
        factor = ratio * Fraction(2) ** (to.fraction_bits - fmt.fraction_bits)
        return linear(a, None, factor, Fraction(0), KEEP, result)
    steps = _step_ratio(fmt, to)

    def case(i: int) -> tuple[Value, bool, int, float]:
        log = a.log(i)
        value = Power(fmt.base, Fraction(log, 1 << fmt.fraction_bits))
        return value, a.negative(i), int(result.random[i % result.random.size]), log * steps

    # the factor is within one part in 2^52, and its product is rounded once more
    return real_step(a, RealStep(steps, 0.0, 2.0**-51), case, result)


@lru_cache(maxsize=256)
def _step_ratio(fmt: LNSFormat, to: LNSFormat) -> float:
    """Code steps of `to` in one of `fmt`, to within one part in 2^52."""
    precision = 192
    (low, _), (_, high) = exact.log2_bracket(fmt.base, precision), exact.log2_bracket(to.base, precision)
    return float(Fraction(low, high) * Fraction(2) ** (to.fraction_bits - fmt.fraction_bits))
