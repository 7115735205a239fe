"""The laws that arithmetic on codes keeps, over arrays of pairs.

    |E - r|  <=  max_ulp,      r = 2^F log_base |a op b|,      E of the code that came out

and the laws of the number system itself: x + 0 = x, x - x = 0, a + b = b + a, a <= b gives a + c <= b + c, what is too
great saturates, NaN stays NaN. docs/number_format.md is the specification; `lnsnum.testing.spans` knows where r lies.
`lnsnum.testing.law_suite` tries the laws on an implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from lnsnum.format import Rounding
from lnsnum.testing import code_words
from lnsnum.testing.coded import Coded, find_error_bound, find_range, find_saturation, find_underflow
from lnsnum.testing.spans import Bounds, Ints, Mask, Rules, bounds
from lnsnum.testing.trial import Finding, Law, in_other_company

OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}

Call = Callable[[str, Ints, Ints], Ints]
"""An operation by name, on codes as int64."""


class Pairs(Coded):
    """Pairs of operands and what an operation makes of them; codes are int64, so that nothing wraps here."""

    def __init__(
        self,
        call: Call,
        operation: str,
        a: Ints,
        b: Ints,
        steps: Ints,
        rules: Rules,
        ask: Call | None = None,
    ) -> None:
        self.call, self.operation, self.a, self.b, self.steps = call, operation, a, b, steps
        self.rules, self.fmt = rules, rules.fmt
        self.ask = ask or call  # where `call` looks into a table
        self.one = self.fmt.bias
        self.both_numbers = ~(self.isnan(a) | self.isnan(b))
        self.both_nonzero = self.both_numbers & (a != 0) & (b != 0)

    @property
    def size(self) -> int:
        """How many pairs."""
        return self.a.size

    @cached_property
    def out(self) -> Ints:
        """What the operation makes of a and b."""
        return self.call(self.operation, self.a, self.b)

    def sign(self, codes: Ints) -> Ints:
        """-1, 0 or 1; 0 for NaN."""
        return np.sign(self.rank(codes))

    def successor(self, codes: Ints) -> Ints:
        """The code `steps` places further up, at most the greatest."""
        return code_words.of_rank(np.minimum(self.rank(codes) + self.steps, self.fmt.max_magnitude), self.fmt)

    @cached_property
    def bounds(self) -> Bounds:
        """Where the exact results lie, and what may stand for them."""
        return bounds(self.rules, self.operation, self.a, self.b, self.both_nonzero)

    # ----------------------------------------------------------------------------------------------------- in words

    def equation(self, a: int, b: int, out: int) -> str:
        """`add(64, 96) = 115`, and the same as values."""
        x, y, value = (code_words.value_told(code, self.fmt) for code in (a, b, out))
        y = f"({y})" if y.startswith("-") else y
        return f"{self.operation}({a}, {b}) = {out}, that is {x} {OPERATIONS[self.operation]} {y} = {value}"


# ---------------------------------------------------------------------------------------------------------- the laws


def _determinism(batch: Pairs) -> Iterator[Finding]:
    """A result depends on its own operands alone, not on what stands beside them or came before."""
    out = np.empty_like(batch.out)
    for part in in_other_company(batch.size):
        out[part] = batch.ask(batch.operation, batch.a[part], batch.b[part])
    yield Finding(
        np.ones(out.shape, np.bool_),
        out != batch.out,
        lambda i: f"the same in another order, where it is {batch.told(int(out[i]))}",
    )


def _nan(batch: Pairs) -> Iterator[Finding]:
    """NaN stays NaN; x / 0 and 0 / 0 are NaN."""
    where = ~batch.both_numbers
    if batch.operation == "divide":
        where = where | (batch.b == 0)
    yield batch.should_be(where, batch.fmt.nan_code)


def _zero(batch: Pairs) -> Iterator[Finding]:
    """0 + 0 = 0 - 0 = 0, 0 x = x 0 = 0, 0 / x = 0."""
    a_is_zero, b_is_zero = batch.a == 0, batch.b == 0
    where = {"multiply": a_is_zero | b_is_zero, "divide": a_is_zero & ~b_is_zero}.get(
        batch.operation, a_is_zero & b_is_zero
    )
    yield batch.should_be(batch.both_numbers & where, 0)


def _identity(batch: Pairs) -> Iterator[Finding]:
    """x + 0 = 0 + x = x, x - 0 = x, 0 - x = -x, x 1 = 1 x = x, x / 1 = x."""
    neutral = 0 if batch.operation in ("add", "subtract") else batch.one
    yield batch.should_be(batch.both_numbers & (batch.b == neutral), batch.a)
    if batch.operation != "divide":
        x = batch.negative(batch.b) if batch.operation == "subtract" else batch.b
        yield batch.should_be(batch.both_numbers & (batch.a == neutral), x)


def _inverse(batch: Pairs) -> Iterator[Finding]:
    """x - x = 0, x + -x = 0, x / x = 1."""
    if batch.operation == "multiply":
        return
    other = batch.negative(batch.b) if batch.operation == "add" else batch.b
    expected = batch.one if batch.operation == "divide" else 0
    yield batch.should_be(batch.both_nonzero & (batch.a == other), expected)


def _compared(batch: Pairs, a: Ints, b: Ints, out: Ints, where: Mask, bad: Mask, relation: str) -> Finding:
    return Finding(where, where & bad, lambda i: f"{relation} {batch.equation(int(a[i]), int(b[i]), int(out[i]))}")


def _commutativity(batch: Pairs) -> Iterator[Finding]:
    """a + b = b + a, a b = b a, a - b = -(b - a)."""
    one_way = batch.rules.rounding in ("up", "down")  # -(b - a) is rounded the other way
    if batch.operation == "divide" or (batch.operation == "subtract" and one_way):
        return
    a, b = batch.b, batch.a
    out = batch.call(batch.operation, a, b)
    subtract = batch.operation == "subtract"
    bad = batch.out != (batch.negative(out) if subtract else out)
    yield _compared(batch, a, b, out, batch.both_numbers, bad, "the opposite of" if subtract else "the same as")


def _sign_symmetry(batch: Pairs) -> Iterator[Finding]:
    """-a + -b = -(a + b), -a - -b = -(a - b), -a b = a -b = -(a b), and so for the quotient."""
    minus_a, minus_b = batch.negative(batch.a), batch.negative(batch.b)
    both = [(minus_a, minus_b)]
    for a, b in both if batch.operation in ("add", "subtract") else [(minus_a, batch.b), (batch.a, minus_b)]:
        out = batch.call(batch.operation, a, b)
        bad = batch.out != batch.negative(out)
        yield _compared(batch, a, b, out, batch.both_numbers, bad, "the opposite of")


def _monotonicity(batch: Pairs) -> Iterator[Finding]:
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
        bad = slope * (batch.rank(out) - batch.rank(batch.out)) < 0
        for side, relation in ((1, "at most"), (-1, "at least")):
            yield _compared(batch, a_there, b_there, out, known & (slope == side), bad, relation)


LAWS: dict[str, Law[Pairs]] = {
    "range": Law("What comes out is a code of the format.", "0 <= out < 2^bits", find_range),
    "determinism": Law(
        "A result depends on its own operands alone, not on those before or beside them.",
        "out[i] = f(a[i], b[i])",
        _determinism,
        alone=False,  # it takes all the operands that were there
    ),
    "nan": Law("NaN stays NaN, and a division by zero is NaN.", "nan op x = x op nan = nan, x / 0 = 0 / 0 = nan", _nan),
    "zero": Law("Zeros give zero.", "0 + 0 = 0 - 0 = 0, 0 x = x 0 = 0, 0 / x = 0", _zero),
    "identity": Law(
        "The neutral element changes nothing.",
        "x + 0 = 0 + x = x, x - 0 = x, 0 - x = -x, x 1 = 1 x = x, x / 1 = x",
        _identity,
    ),
    "inverse": Law("A number and its inverse cancel.", "x - x = 0, x + -x = 0, x / x = 1", _inverse),
    "commutativity": Law(
        "The order of the operands does not matter.", "a + b = b + a, a b = b a, a - b = -(b - a)", _commutativity
    ),
    "sign_symmetry": Law(
        "Opposite operands give the opposite.",
        "-a + -b = -(a + b), -a b = a -b = -(a b), -a / b = -(a / b)",
        _sign_symmetry,
    ),
    "monotonicity": Law(
        "A greater operand gives no lesser result; no greater one, where the operation falls.",
        "a <= a': a + b <= a' + b, a - b <= a' - b, b > 0: a b <= a' b, a / b <= a' / b",
        _monotonicity,
    ),
    "saturation": Law(
        'What is beyond the greatest is the greatest, with its sign; NaN with overflow="nan".',
        "|a op b| > max: out = +-max",
        find_saturation,
    ),
    "underflow": Law(
        "What is below the smallest is zero or the smallest, by the rounding and the underflow policy.",
        "0 < |a op b| < min: out = 0 or +-min",
        find_underflow,
    ),
    "error_bound": Law(
        "Everything else has the right sign, and lies within max_ulp of the exact result on the log axis.",
        "|E - r| <= max_ulp, r = 2^F log_base |a op b|",
        find_error_bound,
    ),
}
"""By name, in the order in which they are reported."""


def laws_of(rounding: Rounding) -> tuple[str, ...]:
    """The laws that hold under a rounding: up and down are not symmetric, a stochastic result is not one number."""
    lost = {
        "up": ("sign_symmetry",),
        "down": ("sign_symmetry",),
        "stochastic_log": ("determinism", "commutativity", "sign_symmetry", "monotonicity"),
        "stochastic_value": ("determinism", "commutativity", "sign_symmetry", "monotonicity"),
    }.get(rounding, ())
    return tuple(law for law in LAWS if law not in lost)
