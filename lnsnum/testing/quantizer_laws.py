"""The laws that quantizers keep: functions from floats to floats, elementwise, whose results are few.

    q(q(x)) = q(x),      x <= y: q(x) <= q(y),      |x - q(x)| = min |x - g| over the g that come out

No format is needed: `lnsnum.testing.quantizer_grid` finds the numbers from what comes out. With a format of codes the
numbers are known, and nearest is nearest on the log axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from lnsnum.testing.foreign import Array
from lnsnum.testing.positions import Axis
from lnsnum.testing.quantizer_grid import Grid
from lnsnum.testing.spans import Ints, Mask, Rules
from lnsnum.testing.trial import Finding, Law
from lnsnum.testing.unary import Ask, Unary, find_determinism, float_above, float_keys, simple_floats

QuantizerRounding = Literal["nearest", "toward_zero", "up", "down", "either"]
"""Which of the two neighbours is right; "either" where chance or an approximation decides."""


class Asked(NamedTuple):
    """What is asked of a quantizer: `axis` and `rules` where it has a format of codes."""

    grid: Grid
    rounding: QuantizerRounding
    log_axis: bool
    scales: tuple[float, float] | None
    axis: Axis | None
    rules: Rules | None


class Quantized(Unary):
    """Floats, and what they are quantized to."""

    def __init__(self, ask: Ask, x: Array, steps: Ints, asked: Asked) -> None:
        super().__init__(ask, "quantize", x)
        self.steps, self.asked, self.grid = steps, asked, asked.grid

    def keys(self, where: Ints) -> Ints:
        """Few bits, near one."""
        return 2 * float_keys(self.x[where]) + (self.steps[where] > 1)

    def nearby(self, i: int) -> Quantized:
        """The float itself and simpler ones, with smaller steps."""
        x, step = simple_floats(self.x[i]), int(self.steps[i])
        steps = np.array(sorted({step, step >> 1 or 1, 1}), np.int64)
        return Quantized(self.ask, np.tile(x, steps.size), np.repeat(steps, x.size), self.asked)

    def right(self, i: int) -> float | None:
        """By `lnsnum.reference` where there is a format; else nobody knows more than the law says."""
        rules, axis = self.asked.rules, self.asked.axis
        if rules is None or axis is None or self.asked.rounding == "either":
            return None
        from lnsnum import reference

        code = reference.encode(
            float(self.x[i]), rules.fmt, rounding=rules.rounding, overflow=rules.overflow, underflow=rules.underflow
        )
        nan = code == rules.fmt.nan_code
        return math.nan if nan else float(axis.values(np.array([code]), self.x.dtype.name)[0])

    def told(self, result: Any) -> str:
        """In as many digits as the float needs."""
        return str(self.x.dtype.type(result))

    @property
    def inside(self) -> Mask:
        """Which inputs lie between the least and the greatest number."""
        inside: Mask = (self.numbers >= self.grid.values[0]) & (self.numbers <= self.grid.values[-1])
        return inside

    @cached_property
    def results(self) -> Array:
        """What came out, as float64, NaN quiet."""
        return np.where(np.isnan(self.out), np.nan, self.out).astype(np.float64)

    @cached_property
    def numbers(self) -> Array:
        """The inputs as float64, NaN quiet."""
        return np.where(np.isnan(self.x), np.nan, self.x).astype(np.float64)


# ---------------------------------------------------------------------------------------------------------- the laws


def _zero(batch: Quantized) -> Iterator[Finding]:
    where = batch.x == 0
    yield Finding(where, where & (batch.out != 0), lambda i: "0")


def _nan(batch: Quantized) -> Iterator[Finding]:
    where = np.isnan(batch.x)
    if not where.any():
        return
    first = np.abs(batch.grid.ask(np.array([np.nan], batch.x.dtype)))[0]
    bad = ~batch.same(np.abs(batch.out), np.full_like(batch.out, first))
    yield Finding(where, where & bad, lambda i: f"{batch.told(first)}, as another NaN became")


def _idempotence(batch: Quantized) -> Iterator[Finding]:
    where = ~np.isnan(batch.out)
    again = batch.ask(batch.out)
    bad = ~(batch.same(again, batch.out) | ((again == 0) & (batch.out == 0)))
    yield Finding(
        where, where & bad, lambda i: f"quantize({batch.told(batch.out[i])}) = {batch.told(again[i])} to be it"
    )


def _sign_symmetry(batch: Quantized) -> Iterator[Finding]:
    x = -batch.x
    out = batch.ask(x)
    bad = ~(batch.same(batch.out, -out) | ((batch.out == 0) & (out == 0)))  # zeros of either sign are one here
    yield batch.compared(x, out, ~np.isnan(batch.x), bad, "the opposite of")


def _monotonicity(batch: Quantized) -> Iterator[Finding]:
    x = float_above(batch.x, batch.steps)
    out = batch.ask(x)
    known = ~(np.isnan(batch.x) | np.isnan(batch.out) | np.isnan(out))
    yield batch.compared(x, out, known, batch.out > out, "at most")


def _neighbour(batch: Quantized) -> Iterator[Finding]:
    low, high = batch.grid.neighbours(batch.numbers)
    bad = ~((batch.results >= low) & (batch.results <= high))
    yield Finding(
        batch.inside,
        batch.inside & bad,
        lambda i: " or ".join(dict.fromkeys((batch.told(low[i]), batch.told(high[i])))),
    )


def _side(x: Array, low: Array, high: Array) -> Array:
    """The sign of 2 x - (low + high), exactly: what the sum loses is what Knuth's two-sum says."""
    total = low + high
    part = total - low
    lost = (low - (total - part)) + (high - part)
    difference = 2 * x - total
    return np.asarray(np.sign(np.where(np.abs(difference) > np.abs(lost), difference, difference - lost)))


def _of_format(batch: Quantized, axis: Axis, rules: Rules) -> tuple[Mask, Array]:
    """Which inputs lie among the numbers of the format, and what is right for them."""
    bounds = axis.bounds(rules, batch.numbers)
    sign = np.where(bounds.negative, axis.fmt.sign_bit, 0)
    codes = np.where(bounds.zero, 0, (bounds.low + axis.fmt.bias) | sign)
    where = bounds.exact & ~bounds.saturates & np.isfinite(batch.x)
    return where, axis.values(np.where(where, codes, 0), batch.x.dtype.name)


def _rounding(batch: Quantized) -> Iterator[Finding]:
    rounding, axis, rules = batch.asked.rounding, batch.asked.axis, batch.asked.rules
    if rounding == "either":
        return
    if axis is not None and rules is not None:
        where, right = _of_format(batch, axis, rules)
        yield Finding(where, where & (batch.results != right), lambda i: batch.told(right[i]))
        return
    low, high = batch.grid.neighbours(batch.numbers)
    where = batch.inside & (low < high)
    x, low, high = batch.numbers, np.where(where, low, 0), np.where(where, high, 0)
    if rounding != "nearest":
        down = {"toward_zero": x > 0, "up": np.zeros_like(where), "down": np.ones_like(where)}[rounding]
        wanted, least, most = np.where(down, low, high), np.where(down, low, x), np.where(down, x, high)
        bad = ~((batch.results >= least) & (batch.results <= most))
        yield Finding(where, where & bad, lambda i: batch.told(wanted[i]))
        return
    where = where & (np.abs(x) < np.finfo(np.float64).max / 4)
    x = np.where(where, x, 0)
    if batch.asked.log_axis:
        # numbers are known as floats alone, so that what is this near to a midpoint of theirs is left open
        where = where & (low * high > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            off = 2 * np.log2(np.abs(x)) - np.log2(np.abs(low)) - np.log2(np.abs(high))
        off = np.where(where, off * np.sign(x), 0)
        side = np.where(np.abs(off) <= 8 * np.finfo(batch.x.dtype).eps, 0, np.sign(off))
    else:
        side = _side(x, low, high)
    nearest = np.where(side > 0, high, low)
    # of an open grid something between the two may be a number that was not known
    bad = (batch.results != nearest) & ~((batch.results > low) & (batch.results < high))
    yield Finding(where, where & (side != 0) & bad, lambda i: batch.told(nearest[i]))


def _ties(batch: Quantized) -> Iterator[Finding]:
    if batch.asked.rounding != "nearest" or batch.asked.log_axis or batch.asked.axis is not None:
        return
    where, right = batch.grid.tied(batch.numbers)
    rule = batch.grid.tie_rule
    yield Finding(where, where & (batch.results != right), lambda i: f"{batch.told(right[i])}, {rule} as most ties go")


def _saturation(batch: Quantized) -> Iterator[Finding]:
    for side, edge in ((1, batch.grid.values[-1]), (-1, batch.grid.values[0])):
        if side * edge <= 0:  # nothing negative comes out
            continue
        beyond = side * batch.numbers > side * edge
        choices = np.array([edge, side * np.inf, np.nan]).astype(batch.x.dtype)
        is_one = np.array([batch.same(batch.out, np.full_like(batch.out, choice)) for choice in choices])
        told = [batch.told(choice) for choice in choices]
        yield Finding(beyond, beyond & ~is_one.any(axis=0), lambda i, told=told: " or ".join(told))  # type: ignore[misc]
        far = beyond & np.isfinite(batch.x) & (side * (batch.numbers / 2) >= side * edge)
        with np.errstate(over="ignore"):
            least = batch.x.dtype.type(2 * edge)
        if far.any() and np.isfinite(least):
            first = batch.grid.ask(np.array([least]))[0]
            bad = ~batch.same(batch.out, np.full_like(batch.out, first))
            as_first = f"{batch.told(first)}, as {batch.told(least)} became"
            yield Finding(far, far & bad, lambda i, told=as_first: told)  # type: ignore[misc]


def _scale(batch: Quantized) -> Iterator[Finding]:
    if batch.asked.scales is None:
        return
    least, greatest = batch.asked.scales
    size = np.abs(batch.x)
    where = (size >= least) & (size <= greatest / 2)
    x = np.where(where, 2 * np.where(where, batch.x, 0), batch.x)
    out = batch.ask(x)
    yield batch.compared(x, out, where, 2 * np.where(where, batch.out, 0) != out, "half of")


QUANTIZER_LAWS: dict[str, Law[Any]] = {
    "determinism": Law(
        "A result depends on its own input alone, not on those before or beside it.",
        "out[i] = q(x[i])",
        find_determinism,
        alone=False,
    ),
    "nan": Law(
        "NaN stays NaN, or always becomes the same number, which the report tells.", "q(nan) = nan, or one number", _nan
    ),
    "zero": Law("Zero stays zero.", "q(+-0) = 0", _zero),
    "idempotence": Law("What has been quantized stays as it is.", "q(q(x)) = q(x)", _idempotence),
    "sign_symmetry": Law("Opposite inputs give the opposite.", "q(-x) = -q(x)", _sign_symmetry),
    "monotonicity": Law("A greater input gives no lesser result.", "x <= y: q(x) <= q(y)", _monotonicity),
    "neighbour": Law(
        "What comes out is next to the input: no other number that comes out lies between.",
        "no g between x and q(x)",
        _neighbour,
    ),
    "rounding": Law(
        "Of the two neighbours it is the nearest, or the one that another rounding names.",
        "|x - q(x)| = min |x - g|",
        _rounding,
    ),
    "ties": Law(
        "What lies in the middle always goes the same way: to even, away from zero, toward zero, up or down.",
        "x = (g + g') / 2: one rule",
        _ties,
    ),
    "saturation": Law(
        "What is beyond the greatest is the greatest, infinity or NaN; from twice the greatest on always the same.",
        "|x| > max: q(x) = +-max, +-inf or nan",
        _saturation,
    ),
    "scale": Law(
        "Powers of two pass through, in the range that is given (`scales`); no law without one.",
        "q(2 x) = 2 q(x)",
        _scale,
    ),
}
"""By name, in the order in which they are reported."""


def holding_laws(rounding: QuantizerRounding, *, of_codes: bool) -> tuple[str, ...]:
    """The laws that a right quantizer keeps under a rounding, in the order of the table.

    Up and down are not symmetric. A float that stands for a code lies beside its number: rounded in a direction it need
    not stay, and the code that is right for an input may be the one behind a nearer float.
    """
    lost = {"sign_symmetry"} if rounding in ("up", "down") else set()
    if of_codes and rounding in ("toward_zero", "up", "down"):
        lost |= {"idempotence", "neighbour"}
    return tuple(law for law in QUANTIZER_LAWS if law not in lost)
