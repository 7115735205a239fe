"""The operands that are hard to round, for every operation and rounding mode.

    r  =  max(E_a, E_b) + s(z),      s = sb for equal signs, db for opposite ones,      z = |E_a - E_b|

Nearest decides where r is a midpoint of two codes, the other modes where r is a code. As max(E_a, E_b) is an integer, a
sum is as near to a tie as s(z) is: the z at which it is nearest are searched for, in windows of some thousand.
Products, quotients and squares are exact but at the edges, roots of odd logarithms are ties themselves.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from lnsnum.format import LNSFormat, Rounding, check_choice
from lnsnum.testing.code_strategies import signed
from lnsnum.testing.float_strategies import FloatType, float_ties
from lnsnum.testing.ranks import Strategy
from lnsnum.testing.spans import log_step

Operation = Literal["encode", "add", "subtract", "fma", "multiply", "divide", "square", "sqrt"]

_WINDOW = 1 << 14
_HARDEST = 32
"""How many z of a window are drawn."""

_BEYOND = 2
"""How many codes on either side of an edge the results go."""


def near_ties(
    fmt: LNSFormat | str,
    operation: Operation = "encode",
    *,
    rounding: Rounding | None = None,
    log_offset: int = 0,
    dtype: FloatType = "float64",
    allow_subnormal: bool | None = None,
) -> Strategy[Any]:
    """What is hard to round: floats for `lnsnum.encode`, tuples of codes for the operations of `lnsnum.arithmetic`.

    For encode, floats at and next to a boundary of rounding. Boundaries are the numbers of the format, the geometric
    midpoints between two of them, half the smallest, and the same beyond either end of the range; of each, the three
    floats on either side, of both signs. They are Python floats that `dtype` holds exactly. A boundary is a float
    itself where it is rational and short enough, else the floats around it are as close to a tie as floats can be.
    Boundaries outside the range of the floats give zeros and the greatest floats.

    For add, subtract and fma, numbers whose exact sum is as near to a boundary as sums come, and for these, multiply,
    divide and square, also numbers whose results are within two codes of the greatest, the smallest and half the
    smallest. For sqrt, odd logarithms, whose roots are midpoints, and even ones, whose roots are numbers. All at
    log_offset 0; no zeros and no NaN, which are not rounded.

    Args:
        fmt: the format, or its name.
        operation: "encode", "add", "subtract", "fma" (a, b, c of a b + c), "multiply", "divide", "square" or "sqrt".
        rounding: where decisions change in this mode: at midpoints for "nearest", at numbers for the others. Where it
            is left out, both.
        log_offset, dtype, allow_subnormal: of encode alone; the scale, "float64", "float32", "float16" or "bfloat16",
            and as for `finite_floats`.

    >>> from hypothesis import find, settings
    >>> find(near_ties("lns8f5"), lambda x: x > 1.001, settings=settings(database=None))  # rounds up, just
    1.0108892860517005
    >>> find(near_ties("lns8f5", "sqrt", rounding="nearest"), lambda x: True, settings=settings(database=None))
    (65,)
    """
    fmt = LNSFormat.of(fmt)
    check_choice("operation", operation, Operation)
    if rounding is not None:
        check_choice("rounding", rounding, Rounding)
    if operation == "encode":
        return float_ties(fmt, rounding, log_offset=log_offset, dtype=dtype, allow_subnormal=allow_subnormal)
    if (log_offset, dtype, allow_subnormal) != (0, "float64", None):
        raise TypeError(f"log_offset, dtype and allow_subnormal are of encode: {operation} takes codes at log_offset 0")
    if operation == "sqrt":
        return _roots(fmt, rounding)
    if operation in ("add", "subtract", "fma"):
        return st.booleans().flatmap(lambda opposite: _sums(fmt, operation, opposite, rounding))
    logs = {"multiply": _products, "divide": _quotients, "square": _squares}[operation](fmt)
    return logs.flatmap(lambda drawn: signed(fmt, drawn, "any"))


# ---------------------------------------------------------------------------------------------------------------- sums


def last_gap(fmt: LNSFormat, opposite: bool) -> int:
    """The least z from which on the lesser of two numbers is lost, because s(z) is less than half a code step."""
    half = log_step(fmt) / 2
    if half > 700.0:
        return 1
    # exp(-z h) = exp(h / 2) - 1 for equal signs, 1 - exp(-h / 2) for opposite ones
    share = -math.expm1(-half) if opposite else math.expm1(half)
    return max(math.ceil(min(-math.log(share) / log_step(fmt), 2.0**40)) + 1, 1)


def _shift(fmt: LNSFormat, z: Any, opposite: bool) -> Any:
    """s(z) in code steps, in float64: good enough to choose cases by."""
    h = log_step(fmt)
    # expm1, as 1 - exp(-z h) is 0 where h is small
    return (np.log(-np.expm1(-z * h)) if opposite else np.log1p(np.exp(-z * h))) / h


@lru_cache(maxsize=1024)
def _hardest(fmt: LNSFormat, opposite: bool, at_midpoints: bool, first: int, end: int) -> list[int]:
    """The z from `first` to below `end` at which s(z) is nearest to where rounding decides."""
    z = np.arange(first, end, dtype=np.float64)
    s = _shift(fmt, z, opposite)
    from_code = np.abs(s - np.rint(s))
    order = np.argsort(0.5 - from_code if at_midpoints else from_code, kind="stable")
    return [first + int(i) for i in order[:_HARDEST]]


def _hard_gaps(fmt: LNSFormat, opposite: bool, rounding: Rounding | None) -> Strategy[int]:
    first = int(opposite)  # equal numbers of opposite signs cancel: nothing is rounded
    greatest = 2 * fmt.max_log
    # an octave beyond the last gap |s| is near a quarter; up to there it may lie just below a half
    last = last_gap(fmt, opposite) + round(min(fmt.codes_per_octave, 2.0**40))
    end = min(last, greatest) + 1

    def gaps(at_midpoints: bool) -> Strategy[int]:
        windows = st.integers(0, (end - first - 1) // _WINDOW).map(lambda k: first + k * _WINDOW)
        hard = windows.flatmap(
            lambda low: st.sampled_from(_hardest(fmt, opposite, at_midpoints, low, min(low + _WINDOW, end)))
        )
        # further apart s is all but 0, a code: as near to one as can be
        return hard if at_midpoints or end > greatest else st.one_of(hard, st.integers(end, greatest))

    if rounding is None:
        return st.one_of(gaps(True), gaps(False))
    return gaps(rounding == "nearest")


def _near_edges(fmt: LNSFormat) -> Strategy[int]:
    """Logarithms about the greatest, the smallest and half the smallest."""
    half = -fmt.max_log - round(min(fmt.codes_per_octave, 2.0**40))
    edges = st.sampled_from([fmt.max_log, -fmt.max_log, half])
    return st.tuples(edges, st.integers(-_BEYOND, _BEYOND)).map(sum)


def _sums(fmt: LNSFormat, operation: Operation, opposite: bool, rounding: Rounding | None) -> Strategy[tuple[int, ...]]:
    top = fmt.max_log * (2 if operation == "fma" else 1)
    """How great the first term can be."""

    def terms(z: int) -> Strategy[tuple[int, int]]:
        """Two logarithms, the greater anywhere or so that the sum is at an edge."""
        s = float(_shift(fmt, float(z), opposite))
        nearest = round(max(min(s, 2.0**40), -(2.0**40)))

        def pair(greater_is_first: bool) -> Strategy[tuple[int, int]]:
            tops = (top, fmt.max_log) if greater_is_first else (fmt.max_log, top)
            low, high = max(z - tops[1], -tops[0]), min(tops[0], z + tops[1])
            at_edges = _near_edges(fmt).map(lambda edge: min(max(edge - nearest, low), high))
            greater = st.one_of(st.integers(low, high), at_edges)
            return greater.map(lambda e: (e, e - z) if greater_is_first else (e - z, e))

        return st.booleans().flatmap(lambda swapped: pair(not swapped))

    def operands(logs: tuple[int, int]) -> Strategy[tuple[int, ...]]:
        first, last = logs
        flipped = opposite != (operation == "subtract")
        if operation != "fma":
            return signed(fmt, logs, "opposite" if flipped else "same")
        factors = st.integers(max(first - fmt.max_log, -fmt.max_log), min(first + fmt.max_log, fmt.max_log))
        return factors.flatmap(lambda e: _product_signed(fmt, (e, first - e, last), opposite))

    def about_the_smallest(z: int) -> Strategy[tuple[int, int]]:
        """The lesser of the terms, so that their difference is less than the smallest where z is little."""
        last = st.integers(0, _BEYOND).map(lambda up: min(up, 2 * fmt.max_log - z) - fmt.max_log)
        return st.tuples(last, st.booleans()).map(lambda e: (e[0], e[0] + z) if e[1] else (e[0] + z, e[0]))

    hard = _hard_gaps(fmt, opposite, rounding).flatmap(terms)
    if opposite:
        little = min(round(min(fmt.codes_per_octave, 2.0**40)) + _BEYOND, 2 * fmt.max_log)
        hard = st.one_of(hard, st.integers(1, little).flatmap(about_the_smallest))
    return hard.flatmap(operands)


def _product_signed(fmt: LNSFormat, logs: tuple[int, int, int], opposite: bool) -> Strategy[tuple[int, ...]]:
    """a, b, c, where a b and c have equal or opposite signs."""

    def turned(drawn: tuple[int, ...]) -> tuple[int, ...]:
        a, b, c = drawn
        sign = (a ^ b ^ (fmt.sign_bit if opposite else 0)) & fmt.sign_bit
        return a, b, c & fmt.max_magnitude | sign

    return signed(fmt, logs, "any").map(turned)


# -------------------------------------------------------------------------------------------- products, roots, squares


def _products(fmt: LNSFormat) -> Strategy[tuple[int, int]]:
    def split(log: int) -> Strategy[tuple[int, int]]:
        log = min(max(log, -2 * fmt.max_log), 2 * fmt.max_log)
        factors = st.integers(max(log - fmt.max_log, -fmt.max_log), min(log + fmt.max_log, fmt.max_log))
        return factors.map(lambda e: (e, log - e))

    return _near_edges(fmt).flatmap(split)


def _quotients(fmt: LNSFormat) -> Strategy[tuple[int, int]]:
    return _products(fmt).map(lambda logs: (logs[0], -logs[1]))


def _squares(fmt: LNSFormat) -> Strategy[tuple[int]]:
    away = st.integers(-_BEYOND, _BEYOND)
    return st.tuples(_near_edges(fmt), away).map(
        lambda drawn: (min(max(drawn[0] // 2 + drawn[1], -fmt.max_log), fmt.max_log),)
    )


def _roots(fmt: LNSFormat, rounding: Rounding | None) -> Strategy[tuple[int]]:
    odd = st.integers(-fmt.max_log // 2, (fmt.max_log - 1) // 2).map(lambda k: 2 * k + 1)
    even = st.integers(-(fmt.max_log // 2), fmt.max_log // 2).map(lambda k: 2 * k)
    logs = odd if rounding == "nearest" else even if rounding is not None else st.one_of(even, odd)
    return logs.map(lambda log: (log + fmt.bias,))
