"""The laws that Gaussian logarithms keep, and what tries them.

    sb(z)  =  2^F log_base(1 + base^(-z / 2^F)),     db(z)  =  2^F log_base(1 - base^(-z / 2^F)),     z code steps

sb falls from 2^F log_base 2 to 0, db rises to 0 from minus infinity at z = 0, and with u = base^(-z / 2^F)

    log(1 + u) + log(1 - u)  =  log(1 - u^2),      sb(z) + db(z)  =  db(2 z).

The exact values are those of `lnsnum.testing.spans`: float64 with a bound on its error, and mpmath.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.testing.foreign import Array
from lnsnum.testing.pairs import WIDEST_WITH_EVERY_GAP, last_gaps, sizes
from lnsnum.testing.spans import Ints, Mask, Spans, exact_span, spans
from lnsnum.testing.trial import Finding, Law
from lnsnum.testing.unary import Ask, Unary, find_determinism

_FIRST_GAPS = 1 << 14
"""Of a wide format, all z below this are tried: there db is steep."""

_NOTHING = 2.0**-10
"""Of a code step: where the exact value is less, a table has ended."""


class Logs(Unary):
    """Distances z in code steps, and what sb or db makes of them."""

    def __init__(self, asks: dict[str, Ask], operation: str, z: Ints, steps: Ints, fmt: LNSFormat, max_ulp: Fraction):
        super().__init__(asks[operation], operation, z)
        self.asks, self.steps, self.fmt, self.max_ulp = asks, steps, fmt, max_ulp
        self.direction = 1 if operation == "sb" else -1
        self.h = float(np.log(np.float64(fmt.base))) / (1 << fmt.fraction_bits)

    def keys(self, where: Ints) -> Ints:
        """Short distances."""
        return 2 * self.x[where] + (self.steps[where] > 1)

    def nearby(self, i: int) -> Logs:
        """The distance itself and shorter ones, with smaller steps."""
        z, step = int(self.x[i]), int(self.steps[i])
        least = int(self.direction < 0)
        shorter = {z, *(z >> k for k in range(z.bit_length() + 1)), *(z - (1 << k) for k in range(z.bit_length()))}
        cases = sorted((x, s) for x in shorter if x >= least for s in {step, step >> 1 or 1, 1})
        x, steps = np.array(cases, np.int64).T
        return Logs(self.asks, self.operation, x, steps, self.fmt, self.max_ulp)

    def is_integer(self) -> bool:
        """Whether results are whole steps."""
        return bool(self.out.dtype.kind != "f")

    def in_steps(self, out: Array) -> Array:
        """Results in code steps: integers are, floats count in powers of the base."""
        return out if self.is_integer() else out.astype(np.float64) * (1 << self.fmt.fraction_bits)

    @cached_property
    def exact(self) -> Spans:
        """Where the exact values lie; those of db(0) stand for db(1)."""
        z = np.maximum(self.x, 1) if self.direction < 0 else self.x
        return spans(self.fmt, self.max_ulp - Fraction(1, 2), z, np.full_like(z, self.direction))

    def right(self, i: int) -> int | float:
        """By mpmath: the nearest step, ties to even; a float for a float."""
        s, _, low, high, *_ = exact_span(self.fmt, Fraction(0), int(self.x[i]), self.direction)
        if self.is_integer():
            return int(low if low % 2 == 0 else high)
        return float(s) / (1 << self.fmt.fraction_bits)

    def told_input(self, x: Any) -> str:
        """Steps, or powers of the base where floats are asked for."""
        return str(x if self.is_integer() else x / (1 << self.fmt.fraction_bits))

    @cached_property
    def inaccurate(self) -> Mask:
        """What lies further from the exact value than max_ulp."""
        exact, found = self.exact, self.in_steps(self.out)
        if self.is_integer():
            even = np.where(exact.nearest_low % 2 == 0, exact.nearest_low, exact.nearest_high)
            low, high = (np.where(exact.tie, even, end) for end in (exact.nearest_low, exact.nearest_high))
            return (found < low) | (found > high)
        error = 2.0**-45 * np.abs(exact.s) + 2.0**-48 / self.h
        return ~(np.abs(found - exact.s) <= float(self.max_ulp) + error)


def _sign(batch: Logs) -> Iterator[Finding]:
    bad = ~(batch.direction * batch.out >= 0)
    yield Finding(np.ones_like(bad), bad, lambda i: "0 or more" if batch.direction > 0 else "0 or less")


def _start(batch: Logs) -> Iterator[Finding]:
    if batch.direction < 0:
        return
    where = batch.x == 0
    octave = batch.exact.s
    whole = octave == np.rint(octave)
    bad = np.where(whole & (batch.fmt.base == 2.0), batch.in_steps(batch.out) != octave, batch.inaccurate)
    yield Finding(where, where & bad, lambda i: f"log_base 2, {batch.told(batch.right(i))}")


def _limit(batch: Logs) -> Iterator[Finding]:
    where = np.abs(batch.exact.s) < _NOTHING
    off = np.abs(batch.in_steps(batch.out))
    bad = off > 0 if batch.is_integer() else ~(off <= 0.5)
    yield Finding(where, where & bad, lambda i: "0, which is nearest")


def _monotonicity(batch: Logs) -> Iterator[Finding]:
    z = np.minimum(batch.x + batch.steps, 2 * batch.fmt.max_log)
    out = batch.ask(z)
    bad = ~(batch.direction * out <= batch.direction * batch.out)
    relation = "at least" if batch.direction > 0 else "at most"
    yield batch.compared(z, out, np.ones_like(bad), bad, relation)


def _doubling(batch: Logs) -> Iterator[Finding]:
    if batch.direction > 0 or len(batch.asks) < 2:
        return
    where = (batch.x > 0) & (batch.x <= batch.fmt.max_log)
    z = np.where(where, batch.x, 1)
    sb, db, doubled = (batch.in_steps(batch.asks[name](x)) for name, x in (("sb", z), ("db", z), ("db", 2 * z)))
    most = 3 * batch.max_ulp
    allowed = float(most) if not batch.is_integer() else float(most // 1)
    bad = ~(np.abs(sb + db - doubled) <= allowed * (1 + 2.0**-40))

    def expected(i: int) -> str:
        unit = 1 if batch.is_integer() else 1 << batch.fmt.fraction_bits
        parts = f"sb({z[i]}) + db({z[i]}) = {(sb[i] + db[i]) / unit:g}", f"db({2 * z[i]}) = {doubled[i] / unit:g}"
        return f"{parts[0]} to be {parts[1]} to within {allowed / unit:g}"

    yield Finding(where, where & bad, expected)


def _error_bound(batch: Logs) -> Iterator[Finding]:
    exact = batch.exact

    def expected(i: int) -> str:
        off = abs(float(batch.in_steps(batch.out)[i]) - float(exact.s[i]))
        return f"{batch.told(batch.right(i))}; it is off by {off:.4g} ulp"

    yield Finding(np.ones(batch.size, np.bool_), batch.inaccurate, expected)


GAUSSIAN_LAWS: dict[str, Law[Any]] = {
    "determinism": Law(
        "A value depends on its own z alone, not on those before or beside it.",
        "out[i] = f(z[i])",
        find_determinism,
        alone=False,
    ),
    "sign": Law("A sum is not less than its greater part, a difference not more.", "db(z) <= 0 <= sb(z)", _sign),
    "start": Law("Of two equal numbers the sum is their double.", "sb(0) = 2^F log_base 2, at base 2 exactly", _start),
    "limit": Law("What is far below changes nothing.", "z -> inf: sb(z) = db(z) = 0", _limit),
    "monotonicity": Law(
        "As z grows, sb never rises and db never falls.", "z <= y: sb(z) >= sb(y), db(z) <= db(y)", _monotonicity
    ),
    "doubling": Law(
        "The two belong together, to within the errors of all three.",
        "|sb(z) + db(z) - db(2 z)| <= 3 max_ulp",
        _doubling,
    ),
    "error_bound": Law(
        "Every value lies within max_ulp of the exact one; by default it is the nearest, ties to even.",
        "|f(z) - 2^F log_base(1 +- base^(-z / 2^F))| <= max_ulp",
        _error_bound,
    ),
}
"""By name, in the order in which they are reported."""


def distances(fmt: LNSFormat, operation: str, drawn: int, seed: int, widest: int) -> Ints:
    """Every z of two codes, up to 16 bits; else all where db is steep, those of the last steps, and drawn ones.

    `widest` is the greatest number of bits of a z that can be told to the function.
    """
    last = 2 * fmt.max_log
    if fmt.bits <= WIDEST_WITH_EVERY_GAP:
        z = np.arange(last + 1, dtype=np.int64)
    else:
        random = np.random.default_rng(seed)
        uniform = random.integers(0, last + 1, drawn // 2)
        of_any_size = random.integers(0, 1 << random.integers(1, fmt.bits, drawn // 2))
        z = np.concatenate([np.arange(_FIRST_GAPS), sizes(last), last_gaps(fmt), uniform, of_any_size])
        z = np.unique(z[(z >= 0) & (z <= last)])
    lost = np.frexp(z.astype(np.float64))[1] - widest
    z = np.unique(np.where(lost > 0, z >> np.maximum(lost, 0) << np.maximum(lost, 0), z))
    return z[z > 0] if operation == "db" else z
