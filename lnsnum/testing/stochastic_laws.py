"""The laws that stochastic rounding to codes keeps: only two neighbours come out, and on the average the input.

    P(upper)  =  (|x| - lo) / (hi - lo)          stochastic_value: unbiased in the value
    P(upper)  =  r - floor(r)                    stochastic_log: unbiased in the logarithm r = 2^F log_base |x|

`lnsnum.testing.random_counts` counts how often the upper one comes out, exactly or with a known risk.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.testing import code_words
from lnsnum.testing.conversion_inputs import logs_tried
from lnsnum.testing.foreign import Array
from lnsnum.testing.positions import Axis
from lnsnum.testing.random_counts import NONE, AskWords, Counts, alarm, by_draws, by_words
from lnsnum.testing.spans import Bounds, Ints, Mask, Rules
from lnsnum.testing.trial import Batch, Finding, Law, in_other_company
from lnsnum.testing.unary import float_keys, float_of_rank, float_rank, plain

_GAPS = 128
"""So many gaps between neighbouring codes are tried, for either sign."""

_ELEMENTS = 1 << 16
"""Of an array of one value, in which neighbours are compared."""


class Rounded(Batch):
    """Values that are rounded many times each; `bits` is the width of a word, None of what draws its own numbers."""

    operation = "encode"

    def __init__(self, ask: AskWords, x: Array, rules: Rules, axis: Axis, bits: int | None, max_bias: float) -> None:
        self.ask, self.x, self.rules, self.axis, self.fmt = ask, x, rules, axis, rules.fmt
        self.bits, self.max_bias = bits, max_bias

    @property
    def size(self) -> int:
        """How many values."""
        return int(self.x.size)

    @cached_property
    def bounds(self) -> Bounds:
        """Where the values lie among the codes."""
        return self.axis.bounds(self.rules, self.numbers)

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """The values as float64."""
        return self.x.astype(np.float64)

    @cached_property
    def neighbours(self) -> tuple[Ints, Ints]:
        """The codes of lesser and of greater magnitude that may come out."""
        bounds, fmt = self.bounds, self.fmt
        sign = np.where(bounds.negative, fmt.sign_bit, 0)

        def code(log: Ints) -> Ints:
            beyond = fmt.nan_code if self.rules.overflow == "nan" else fmt.max_magnitude + sign
            return np.where(log > fmt.max_log, beyond, np.clip(log, -fmt.max_log, fmt.max_log) + fmt.bias + sign)

        lower, upper = code(bounds.low), code(bounds.high)
        upper = np.where(bounds.underflows & (bounds.high < -fmt.max_log), 0, upper)
        lower = np.where(bounds.zero, 0, np.where(bounds.underflows | bounds.saturates, upper, lower))
        special = np.where(np.isnan(self.x), fmt.nan_code, 0)
        known = bounds.exact
        return np.where(known, lower, special), np.where(known, upper, special)

    @cached_property
    def p(self) -> NDArray[np.float64]:
        """The probability of the upper code."""
        lower, upper = self.neighbours
        by_value = self.rules.rounding == "stochastic_value"
        p = np.ones(self.size)
        for i in np.flatnonzero(lower != upper):
            # of an underflow the two are zero and the smallest; the log axis has no choice there
            below = None if self.bounds.underflows[i] else int(self.bounds.low[i])
            p[i] = self.axis.share(abs(float(self.numbers[i])), below, by_value)
        return p

    @cached_property
    def counts(self) -> Counts:
        """How often the upper code comes out."""
        if self.bits is None:
            return by_draws(self.ask, self.x, *self.neighbours)
        return by_words(self.ask, self.x, *self.neighbours, self.bits, np.random.default_rng(0))

    @property
    def tests(self) -> int:
        """How many tests by draws there are, all together."""
        return int(np.count_nonzero(self.counts.draws)) + _GROUPS + _LAGS

    def keys(self, where: Ints) -> Ints:
        """Few bits, near one."""
        return float_keys(self.x[where])

    def inputs(self, i: int) -> tuple[Any, ...]:
        """The value, and with what came out that should not, the word that it came out with."""
        words = (int(self.counts.word[i]),) if self.counts.stray[i] != NONE and self.bits is not None else ()
        return (plain(self.x[i]), *words)

    def result(self, i: int) -> Any:
        """A code that should not come out, else the share of the upper one."""
        stray = int(self.counts.stray[i])
        return stray if stray != NONE else float(self.counts.share[i])

    def right(self, i: int) -> None:
        """Several codes are right."""
        return

    def told(self, result: Any) -> str:
        """A code with its value, or a share."""
        return code_words.told(result, self.fmt) if isinstance(result, (int, np.integer)) else f"{result:.10g}"

    def said(self, i: int) -> str:
        """What came out that should not, or how often the upper code did."""
        result = self.result(i)
        arguments = ", ".join(map(str, self.inputs(i)))
        if isinstance(result, int):
            return f"encode({arguments}) = {self.told(result)}"
        return f"encode({arguments}) = {self.told(int(self.neighbours[1][i]))} in {self.told(result)} of all cases"

    def stays_between(self, where: Mask) -> Finding:
        """Nothing but the neighbours should have come out there."""

        def expected(i: int) -> str:
            both = dict.fromkeys(int(codes[i]) for codes in self.neighbours)
            return " or ".join(self.told(code) for code in both)

        return Finding(where, where & (self.counts.stray != NONE), expected)

    @cached_property
    def kinds(self) -> dict[str, Mask]:
        """Which values a law about what may come out speaks of."""
        bounds = self.bounds
        inner = bounds.exact & ~bounds.underflows & ~bounds.saturates
        size = np.where(inner, np.abs(self.numbers), 1.0)
        on_grid = inner & self.axis.floors(size)[1]
        return {
            "nan": np.isnan(self.x),
            "zero": self.x == 0,
            "grid": on_grid,
            "underflow": bounds.underflows,
            "saturation": bounds.saturates,
            "neighbour": inner & ~on_grid,
        }


def values_tried(axis: Axis, dtype: np.dtype[Any], seed: int) -> Array:
    """Numbers of the format that are floats; floats between two neighbours: next to either, at shares, few bits."""
    fmt, random = axis.fmt, np.random.default_rng(seed)
    logs = logs_tried(axis, random)
    logs = logs[(logs >= -fmt.max_log) & (logs < fmt.max_log)]
    if logs.size > _GAPS:
        ends = np.concatenate([logs[:8], logs[-8:], logs[np.argsort(np.abs(logs), kind="stable")[:16]]])
        logs = np.unique(np.concatenate([ends, random.choice(logs, _GAPS - ends.size, replace=False)]))
    low, high = (axis.values(part + fmt.bias, "float64") for part in (logs, logs + 1))
    shares = np.array([0.03, 0.25, 1 / 3, 0.5, 0.75, 0.97])
    low, high = low[np.isfinite(high)], high[np.isfinite(high)]
    between = (low + np.multiply.outer(shares, high - low)).reshape(-1)
    significand, exponent = np.frexp(between)
    short = np.concatenate([np.ldexp(np.rint(np.ldexp(significand, bits)), exponent - bits) for bits in (3, 5, 8)])
    edge = [axis.values(np.array([1]), "float64")[0], axis.values(np.array([fmt.max_magnitude]), "float64")[0]]
    with np.errstate(all="ignore"):
        beyond = np.concatenate(
            [edge[0] * np.array([0.03, 0.25, 0.5, 0.51, 0.75, 0.97]), edge[1] * np.array([1.01, 4])]
        )
        floats = np.concatenate([between, short, beyond, low]).astype(dtype)
        floats = floats[np.isfinite(floats)]
        next_to = np.unique(
            np.concatenate([float_rank(part.astype(dtype)) + k for part in (low, high) for k in (-1, 1)])
        )
    floats = np.unique(np.concatenate([floats, float_of_rank(next_to[next_to > 0], dtype)]))
    specials = np.array([0.0, -0.0, np.inf, -np.inf, np.nan]).astype(dtype)
    return np.concatenate([floats, -floats, specials])


# ---------------------------------------------------------------------------------------------------------- the laws


def _range(batch: Rounded) -> Iterator[Finding]:
    stray = batch.counts.stray
    bad = (stray != NONE) & ((stray < 0) | (stray >= 1 << batch.fmt.bits))
    yield Finding(np.ones_like(bad), bad, lambda i: f"a code, 0 to {(1 << batch.fmt.bits) - 1}")


def _unbiased(batch: Rounded) -> Iterator[Finding]:
    lower, upper = batch.neighbours
    where = lower != upper
    share, p, draws = batch.counts.share, batch.p, batch.counts.draws
    exact = draws == 0
    bad = np.where(exact, np.abs(share - p) > batch.max_bias + 2.0**-48, alarm(share, p, draws, batch.tests))

    def expected(i: int) -> str:
        spread = f" to within {batch.max_bias:.3g}" if exact[i] else f", which {draws[i]:,} draws exclude"
        return f"{p[i]:.10g}{spread}"

    yield Finding(where, where & bad, expected)
    drawn = where & ~exact
    for name, members in _groups(batch, drawn):
        n = int(draws[members].sum())
        if not n:
            continue
        mean, wanted = float(share[members].mean()), float(p[members].mean())
        # of independent draws with different p the sum spreads no more than with their mean (Hoeffding 1956)
        if alarm(np.array([mean]), np.array([wanted]), n, batch.tests)[0]:
            told = f"{wanted:.6g} on the average of {name}, where it is {mean:.6g}"
            yield Finding(members, members, lambda i, told=told: told)  # type: ignore[misc]


_GROUPS = 8
_LAGS = 18
"""How many tests there are besides those of each value."""


def _groups(batch: Rounded, drawn: Mask) -> Iterator[tuple[str, Mask]]:
    negative = np.signbit(batch.x)
    yield "all values", drawn
    yield "all positive values", drawn & ~negative
    yield "all negative values", drawn & negative
    yield "all values less than 1", drawn & (np.abs(batch.numbers) < 1)
    for quarter in range(4):
        inside = (batch.p >= quarter / 4) & (batch.p < (quarter + 1) / 4)
        yield f"all values with a share of {quarter / 4:g} to {(quarter + 1) / 4:g}", drawn & inside


def _independence(batch: Rounded) -> Iterator[Finding]:
    if batch.bits is None:
        yield from _uncorrelated(batch)
        return
    random = np.random.default_rng(0)
    words = random.integers(0, 1 << batch.bits, batch.size).astype(np.uint32)
    here, there = batch.ask(batch.x, words), np.empty(batch.size, np.int64)
    for part in in_other_company(batch.size):
        there[part] = batch.ask(batch.x[part], words[part])
    yield Finding(
        np.ones(batch.size, np.bool_),
        here != there,
        lambda i: (
            f"the same among others: with word {words[i]} it is {batch.told(int(here[i]))}, "
            f"in another order {batch.told(int(there[i]))}"
        ),
    )


def _uncorrelated(batch: Rounded) -> Iterator[Finding]:
    lower, upper = batch.neighbours
    choices = np.flatnonzero((lower != upper) & ~batch.bounds.underflows)
    if not choices.size:
        return
    at = int(choices[np.argmin(np.abs(batch.p[choices] - 0.5))])
    x = np.full(_ELEMENTS, batch.x[at])
    first, second = (batch.ask(x, np.zeros(x.size, np.uint32)) == upper[at] for _ in range(2))
    p = float(batch.p[at])
    agree = p * p + (1 - p) * (1 - p)
    pairs = [("two calls", first == second)]
    index = np.arange(_ELEMENTS)
    for lag in (1 << k for k in range(16)):
        left = index[(index // lag % 2 == 0) & (index + lag < _ELEMENTS)]  # no element is in two pairs
        pairs.append((f"elements {lag} apart", first[left] == first[left + lag]))
    where = np.zeros(batch.size, np.bool_)
    where[at] = True
    for name, same in pairs:
        share = np.array([same.mean()])
        if alarm(share, np.array([agree]), same.size, batch.tests)[0]:
            told = f"results that agree in {agree:.6g} of all pairs of {name}, where they do in {share[0]:.6g}"
            yield Finding(where, where, lambda i, told=told: told)  # type: ignore[misc]
        else:
            yield Finding(where, np.zeros_like(where), lambda i: "")


def _of_kind(name: str) -> Any:
    def find(batch: Rounded) -> Iterator[Finding]:
        yield batch.stays_between(batch.kinds[name])

    return find


STOCHASTIC_LAWS: dict[str, Law[Any]] = {
    "range": Law("What comes out is a code of the format.", "0 <= encode(x, w) < 2^bits", _range),
    "nan": Law("NaN stays NaN, whatever the word.", "encode(nan, w) = nan", _of_kind("nan")),
    "zero": Law("Zero stays zero, whatever the word.", "encode(+-0, w) = 0", _of_kind("zero")),
    "grid": Law("A number of the format stays, whatever the word.", "encode(g, w) = g", _of_kind("grid")),
    "neighbour": Law(
        "Only the two codes on either side come out.",
        "encode(x, w) = E or E + 1, E = floor(2^F log_base |x|)",
        _of_kind("neighbour"),
    ),
    "underflow": Law(
        "Below the smallest it is zero or the smallest, by the rounding and the underflow policy.",
        "0 < |x| < min: encode(x, w) = 0 or +-min",
        _of_kind("underflow"),
    ),
    "saturation": Law(
        'Beyond the greatest it is the greatest, with its sign; NaN with overflow="nan".',
        "|x| > max: encode(x, w) = +-max",
        _of_kind("saturation"),
    ),
    "unbiased": Law(
        "The upper of the two comes out as often as the input is near it, in the value or in the logarithm.",
        "|P(hi) - (|x| - lo) / (hi - lo)| <= max_bias, or |P(hi) - (r - floor(r))|",
        _unbiased,
    ),
    "independence": Law(
        "An element's result depends on its own word alone; own draws do not agree more often than by chance.",
        "out[i] = f(x[i], w[i])",
        _independence,
        alone=False,
    ),
}
"""By name, in the order in which they are reported."""
