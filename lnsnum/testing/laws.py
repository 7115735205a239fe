"""The laws that arithmetic on codes keeps, over arrays of pairs.

    |E - r|  <=  max_ulp,      r = 2^F log_base |a op b|,      E of the code that came out

and the laws of the number system itself: x + 0 = x, x - x = 0, a + b = b + a, a <= b gives a + c <= b + c, what is too
great saturates, NaN stays NaN. docs/number_format.md is the specification. With g = E_a - E_b >= 0 the exact result of
a sum lies at

    r  =  E_a + log1p(+-exp(-g h)) / h,      h = ln(base) / 2^F,

which mpmath evaluates to 2^-100 code steps; no kernel of the library has a part in it. `lnsnum.testing.law_suite` tries
the laws on an implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.exact import nearest_float64
from lnsnum.format import LNSFormat, Overflow, Underflow

OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Call = Callable[[str, Ints, Ints], Ints]
"""An operation by name, on codes as int64."""

_POINT = 128
_SLACK = 1 << (_POINT - 100)
_FAR = 1 << 62


# ------------------------------------------------------------------------------------------- where the result may lie


class _Span(NamedTuple):
    """Which results are near enough to r = E_a + s, as whole code steps relative to E_a.

    From `low` to `high`; `tie` where both are equally near and the even one is right. The result underflows where
    E_a + floor is below the smallest. Counted from the smallest, it may then be zero where E_a < zero_below, and the
    smallest where E_a >= smallest_from.
    """

    s: float
    floor: int
    low: int
    high: int
    tie: bool
    zero_below: int
    smallest_from: int


@lru_cache(maxsize=1)
def _context() -> Any:
    import mpmath

    context = mpmath.MPContext()  # our own: mpmath.mp keeps the precision that its user gave it
    context.prec = 400
    return context


@lru_cache(maxsize=1 << 17)
def _span(fmt: LNSFormat, max_ulp: Fraction, gap: int, direction: int) -> _Span:
    """For a sum (direction 1), a difference (-1) of magnitudes that lie `gap` apart, a product or quotient (0)."""
    mp = _context()
    h = mp.ldexp(mp.log(mp.mpf(fmt.base)), -fmt.fraction_bits)
    t = gap * h
    if direction == 0 or t > 400:  # beyond, s is less than 2^-400
        s = mp.mpf(0)
    elif direction > 0:
        s = mp.log1p(mp.exp(-t)) / h
    else:
        s = (mp.log(-mp.expm1(-t)) if t < 1 else mp.log1p(-mp.exp(-t))) / h

    def fixed(x: Any) -> int:
        return int(mp.floor(mp.ldexp(x, _POINT)))

    def floor(x: int) -> int:
        return max(min((x + _SLACK) >> _POINT, _FAR), -_FAR)

    def ceil(x: int) -> int:
        return -floor(-x)

    at, half = fixed(s), fixed(mp.ln2 / h)
    ulp = (max_ulp.numerator << _POINT) // max_ulp.denominator
    spare = ulp - (1 << (_POINT - 1))
    low, high = ceil(at - ulp), floor(at + ulp)
    return _Span(
        float(s), floor(at), low, high, spare == 0 and low < high, ceil(spare - half - at), ceil(-half - spare - at)
    )


class _Bounds(NamedTuple):
    """For each pair of numbers: which magnitudes may come out, and where r lies. `exact` leaves out zero and NaN."""

    exact: Mask
    saturates: Mask
    underflows: Mask
    zero: Mask
    low: Ints
    high: Ints
    negative: Mask
    log: NDArray[np.float64]


class Rules(NamedTuple):
    """What is asked of a result."""

    fmt: LNSFormat
    max_ulp: Fraction
    overflow: Overflow
    underflow: Underflow


class Batch:
    """Pairs of operands and what an operation makes of them; codes are int64, so that nothing wraps here."""

    def __init__(
        self,
        call: Call,
        operation: str,
        a: Ints,
        b: Ints,
        steps: Ints,
        rules: Rules,
    ) -> None:
        self.call, self.operation, self.a, self.b, self.steps = call, operation, a, b, steps
        self.fmt, self.max_ulp, self.overflow, self.underflow = rules
        self.one = self.fmt.bias
        self.both_numbers = ~(self.isnan(a) | self.isnan(b))
        self.both_nonzero = self.both_numbers & (a != 0) & (b != 0)

    @cached_property
    def out(self) -> Ints:
        """What the operation makes of a and b."""
        return self.call(self.operation, self.a, self.b)

    def isnan(self, codes: Ints) -> Mask:
        """Which codes are NaN."""
        nan: Mask = codes == self.fmt.nan_code
        return nan

    def sign(self, codes: Ints) -> Ints:
        """-1, 0 or 1; 0 for NaN."""
        return np.sign(self.rank(codes))

    def rank(self, codes: Ints) -> Ints:
        """Integers in the order of the values, consecutive from the least to the greatest; 0 for NaN."""
        m = codes & self.fmt.max_magnitude
        return np.where(codes & self.fmt.sign_bit, -m, m)

    def successor(self, codes: Ints) -> Ints:
        """The code `steps` places further up, at most the greatest."""
        rank = np.minimum(self.rank(codes) + self.steps, self.fmt.max_magnitude)
        codes_above: Ints = np.where(rank < 0, self.fmt.sign_bit - rank, rank)
        return codes_above

    def negative(self, codes: Ints) -> Ints:
        """The opposite; zero and NaN stay."""
        return np.where(codes & self.fmt.max_magnitude, codes ^ self.fmt.sign_bit, codes)

    @cached_property
    def bounds(self) -> _Bounds:
        """Where the exact results lie, and what may stand for them."""
        fmt, operation = self.fmt, self.operation
        e_a, e_b = ((codes & fmt.max_magnitude) - fmt.bias for codes in (self.a, self.b))
        minus_a, minus_b = self.a >= fmt.sign_bit, self.b >= fmt.sign_bit
        if operation in ("multiply", "divide"):
            top = e_a + e_b if operation == "multiply" else e_a - e_b
            gap, direction, negative = np.zeros_like(top), np.zeros_like(top), minus_a ^ minus_b
        else:
            minus_b = minus_b ^ (operation == "subtract")
            top, gap = np.maximum(e_a, e_b), np.abs(e_a - e_b)
            direction, negative = np.where(minus_a == minus_b, 1, -1), np.where(e_a >= e_b, minus_a, minus_b)
        exact = self.both_nonzero & ~((direction < 0) & (gap == 0))
        kinds, which = np.unique(np.stack([gap, direction])[:, exact], axis=1, return_inverse=True)
        spans = [_span(fmt, self.max_ulp, int(g), int(d)) for g, d in kinds.T]
        columns = [np.array(column)[which.reshape(-1)] for column in zip(*spans, strict=True)] or [
            np.zeros(0, np.int64)
        ] * len(_Span._fields)
        spread = []
        for column in columns:
            full = np.zeros(top.shape, column.dtype)
            full[exact] = column
            spread.append(full)
        s, floor, low, high, tie, zero_below, smallest_from = spread
        low, high = np.clip(top + low, -_FAR, _FAR), np.clip(top + high, -_FAR, _FAR)
        tie = tie.astype(bool)
        even = np.where(low % 2 == 0, low, high)
        low, high = np.where(tie, even, low), np.where(tie, even, high)
        greatest, smallest = fmt.max_log, -fmt.max_log
        above = top - smallest
        underflows = exact & (top + floor < smallest)
        may_be_zero, may_be_smallest = above < zero_below, above >= smallest_from
        if self.underflow == "saturate":
            may_be_zero, may_be_smallest = np.zeros_like(exact), np.ones_like(exact)
        high = np.where(underflows & ~may_be_smallest, smallest - 1, np.maximum(high, smallest))
        return _Bounds(
            exact,
            exact & (low > greatest),
            underflows,
            underflows & may_be_zero,
            np.clip(low, smallest, greatest),
            high if self.overflow == "nan" else np.minimum(high, greatest),
            negative,
            top + s,
        )

    # ----------------------------------------------------------------------------------------------------- in words

    def value(self, code: int) -> str:
        """The value to six digits."""
        fmt = self.fmt
        if code == fmt.nan_code:
            return "nan"
        if not 0 <= code < 1 << fmt.bits:
            return "no code"
        m = code & fmt.max_magnitude
        size = nearest_float64(fmt.base, m - fmt.bias, fmt.fraction_bits) if m else 0.0
        return f"{-size if code > fmt.sign_bit else size:.6g}"

    def told(self, code: int) -> str:
        """A code with its value."""
        return f"{code} ({self.value(code)})"

    def equation(self, a: int, b: int, out: int) -> str:
        """`add(64, 96) = 115`, and the same as values."""
        x, y = self.value(a), self.value(b)
        y = f"({y})" if y.startswith("-") else y
        return f"{self.operation}({a}, {b}) = {out}, that is {x} {OPERATIONS[self.operation]} {y} = {self.value(out)}"


# ---------------------------------------------------------------------------------------------------------- the laws


class Finding(NamedTuple):
    """Which pairs break a law, and what should have come out at one of them, in words."""

    bad: Mask
    expected: Callable[[int], str]


def _range(batch: Batch) -> Iterator[Finding]:
    """What comes out is a code of the format."""
    bad = (batch.out < 0) | (batch.out >= 1 << batch.fmt.bits)
    yield Finding(bad, lambda i: f"a code, 0 to {(1 << batch.fmt.bits) - 1}")


def _should_be(batch: Batch, where: Mask, expected: Ints | int) -> Finding:
    codes = np.broadcast_to(np.asarray(expected), batch.out.shape)
    return Finding(where & (batch.out != codes), lambda i: batch.told(int(codes[i])))


def _nan(batch: Batch) -> Iterator[Finding]:
    """NaN stays NaN; x / 0 and 0 / 0 are NaN."""
    where = ~batch.both_numbers
    if batch.operation == "divide":
        where = where | (batch.b == 0)
    yield _should_be(batch, where, batch.fmt.nan_code)


def _zero(batch: Batch) -> Iterator[Finding]:
    """0 + 0 = 0 - 0 = 0, 0 x = x 0 = 0, 0 / x = 0."""
    a_is_zero, b_is_zero = batch.a == 0, batch.b == 0
    where = {"multiply": a_is_zero | b_is_zero, "divide": a_is_zero & ~b_is_zero}.get(
        batch.operation, a_is_zero & b_is_zero
    )
    yield _should_be(batch, batch.both_numbers & where, 0)


def _identity(batch: Batch) -> Iterator[Finding]:
    """x + 0 = 0 + x = x, x - 0 = x, 0 - x = -x, x 1 = 1 x = x, x / 1 = x."""
    neutral = 0 if batch.operation in ("add", "subtract") else batch.one
    yield _should_be(batch, batch.both_numbers & (batch.b == neutral), batch.a)
    if batch.operation != "divide":
        x = batch.negative(batch.b) if batch.operation == "subtract" else batch.b
        yield _should_be(batch, batch.both_numbers & (batch.a == neutral), x)


def _inverse(batch: Batch) -> Iterator[Finding]:
    """x - x = 0, x + -x = 0, x / x = 1."""
    if batch.operation == "multiply":
        return
    other = batch.negative(batch.b) if batch.operation == "add" else batch.b
    expected = batch.one if batch.operation == "divide" else 0
    yield _should_be(batch, batch.both_nonzero & (batch.a == other), expected)


def _compared(batch: Batch, a: Ints, b: Ints, out: Ints, bad: Mask, relation: str) -> Finding:
    return Finding(bad, lambda i: f"{relation} {batch.equation(int(a[i]), int(b[i]), int(out[i]))}")


def _commutativity(batch: Batch) -> Iterator[Finding]:
    """a + b = b + a, a b = b a, a - b = -(b - a)."""
    if batch.operation == "divide":
        return
    a, b = batch.b, batch.a
    out = batch.call(batch.operation, a, b)
    subtract = batch.operation == "subtract"
    bad = batch.both_numbers & (batch.out != (batch.negative(out) if subtract else out))
    yield _compared(batch, a, b, out, bad, "the opposite of" if subtract else "the same as")


def _sign_symmetry(batch: Batch) -> Iterator[Finding]:
    """-a + -b = -(a + b), -a - -b = -(a - b), -a b = a -b = -(a b), and so for the quotient."""
    minus_a, minus_b = batch.negative(batch.a), batch.negative(batch.b)
    both = [(minus_a, minus_b)]
    for a, b in both if batch.operation in ("add", "subtract") else [(minus_a, batch.b), (batch.a, minus_b)]:
        out = batch.call(batch.operation, a, b)
        bad = batch.both_numbers & (batch.out != batch.negative(out))
        yield _compared(batch, a, b, out, bad, "the opposite of")


def _monotonicity(batch: Batch) -> Iterator[Finding]:
    """Where a <= a', a + b <= a' + b; where b is negative, a b >= a' b; and so in each operand of each operation."""
    operation, a, b = batch.operation, batch.a, batch.b
    up = np.ones_like(a)
    slope_a = batch.sign(b) if operation in ("multiply", "divide") else up
    a_next = batch.successor(a)
    b_next = batch.successor(b)
    slope_b = {"add": up, "subtract": -up, "multiply": batch.sign(a), "divide": -batch.sign(a)}[operation]
    if operation == "divide":
        slope_b = np.where(batch.sign(b) == batch.sign(b_next), slope_b, 0) * np.abs(batch.sign(b))
    for a_there, b_there, slope in ((a_next, b, slope_a), (a, b_next, slope_b)):
        out = batch.call(operation, a_there, b_there)
        known = batch.both_numbers & ~batch.isnan(batch.out) & ~batch.isnan(out)
        bad = known & (slope * (batch.rank(out) - batch.rank(batch.out)) < 0)
        for side, relation in ((1, "at most"), (-1, "at least")):
            yield _compared(batch, a_there, b_there, out, bad & (slope == side), relation)


def _saturation(batch: Batch) -> Iterator[Finding]:
    """What is beyond the greatest is the greatest, with the right sign (or NaN, where overflow is "nan")."""
    sign = np.where(batch.bounds.negative, batch.fmt.sign_bit, 0)
    expected = batch.fmt.nan_code if batch.overflow == "nan" else batch.fmt.max_magnitude + sign
    yield _should_be(batch, batch.bounds.saturates, expected)


def _within(batch: Batch, where: Mask) -> Finding:
    bounds, fmt = batch.bounds, batch.fmt
    log = (batch.out & fmt.max_magnitude) - fmt.bias
    number = (bounds.low <= log) & (log <= bounds.high) & ((batch.out >= fmt.sign_bit) == bounds.negative)
    ok = np.where(log == -fmt.bias, bounds.zero, number)
    ok = np.where(batch.isnan(batch.out), bounds.high > fmt.max_log, ok)

    def expected(i: int) -> str:
        sign = fmt.sign_bit if bounds.negative[i] else 0
        low, high = int(bounds.low[i]), min(int(bounds.high[i]), fmt.max_log)
        words = [batch.told(0)] if bounds.zero[i] else []
        words += [batch.told(e + fmt.bias + sign) for e in dict.fromkeys((low, high)) if low <= high]
        told = " to ".join(words)
        off = abs(float(log[i]) - float(bounds.log[i]))
        right_sign = log[i] > -fmt.bias and (batch.out[i] >= fmt.sign_bit) == bounds.negative[i]
        return f"{told}; it is off by {off:.4g} ulp" if right_sign and not bounds.underflows[i] else told

    return Finding(where & ~ok, expected)


def _underflow(batch: Batch) -> Iterator[Finding]:
    """What is below the smallest is zero or the smallest, by the underflow policy."""
    yield _within(batch, batch.bounds.underflows)


def _error_bound(batch: Batch) -> Iterator[Finding]:
    """In between, the result has the right sign and lies within max_ulp of the exact one, on the log axis."""
    bounds = batch.bounds
    yield _within(batch, bounds.exact & ~bounds.underflows & ~bounds.saturates)


LAWS: dict[str, Callable[[Batch], Iterator[Finding]]] = {
    "range": _range,
    "nan": _nan,
    "zero": _zero,
    "identity": _identity,
    "inverse": _inverse,
    "commutativity": _commutativity,
    "sign_symmetry": _sign_symmetry,
    "monotonicity": _monotonicity,
    "saturation": _saturation,
    "underflow": _underflow,
    "error_bound": _error_bound,
}
"""By name, in the order in which they are reported."""
