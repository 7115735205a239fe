"""What a quantizer's numbers are, found from what comes out of it, and what becomes of ties and of what is beyond.

Every number that came out is one of its grid. Midpoints between neighbours are asked until none gives a new number;
then the grid is closed, and neighbours in it are neighbours. (A number whose whole interval was missed stays unknown.)
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from lnsnum.testing.foreign import Array
from lnsnum.testing.spans import Ints, Mask
from lnsnum.testing.unary import Ask

_ROUNDS = 24
"""After so many the grid is taken for open: a quantizer to float32 in float64 has too many numbers."""

_MOST = 1 << 17
"""Numbers of a grid that is asked for more."""


def middle(low: Array, high: Array) -> Array:
    """(low + high) / 2 to the nearest float64, without overflow."""
    return np.asarray(low / 2 + high / 2)


class Grid:
    """The finite numbers that a quantizer gives, in order, as float64; `closed` where no more were found at the end."""

    def __init__(self, ask: Ask, x: Array) -> None:
        self.ask, self.dtype = ask, x.dtype
        self.values = self._add(np.zeros(0), x)
        self.closed = False
        for _ in range(_ROUNDS):
            if self.values.size > _MOST or self.values.size < 2:
                break
            with np.errstate(over="ignore", under="ignore"):
                between = np.unique(middle(self.values[:-1], self.values[1:]).astype(self.dtype))
            more = self._add(self.values, between[~np.isin(between, self.values)])
            self.closed = more.size == self.values.size
            self.values = more
            if self.closed:
                break

    def _add(self, values: Array, x: Array) -> Array:
        out = self.ask(x) if x.size else x
        return np.unique(np.concatenate([values, out[np.isfinite(out)].astype(np.float64) + 0.0]))

    def neighbours(self, x: Array) -> tuple[Array, Array]:
        """The greatest number not above, and the least not below; where there is none, an infinity."""
        low = np.searchsorted(self.values, x, side="right") - 1
        high = np.searchsorted(self.values, x, side="left")
        below = np.where(low >= 0, self.values[np.maximum(low, 0)], -np.inf)
        above = np.where(high < self.values.size, self.values[np.minimum(high, self.values.size - 1)], np.inf)
        return below, above

    @cached_property
    def ties(self) -> Array:
        """Midpoints of neighbours that are floats of the type; none where the grid is open."""
        return self._ties[0]

    @cached_property
    def _ties(self) -> tuple[Array, Ints]:
        """The midpoints, and the index of the neighbour below."""
        nothing = np.zeros(0, self.dtype), np.zeros(0, np.int64)
        if not self.closed:
            return nothing
        low, high = self.values[:-1], self.values[1:]
        between = middle(low, high)
        with np.errstate(over="ignore", under="ignore"):
            x = between.astype(self.dtype)
            exact = (x.astype(np.float64) == between) & (between - low == high - between)
        return x[exact], np.flatnonzero(exact)

    @cached_property
    def tie_rules(self) -> dict[str, Mask]:
        """For each rule, whether the upper neighbour is right at each tie."""
        _, low = self._ties
        positive = self.values[low] >= 0
        # numbers have codes in their order, and zero has the code 0: every second one is even
        even = (low - np.searchsorted(self.values, 0.0)) % 2 == 1
        up = np.ones_like(positive)
        return {"to even": even, "away from zero": positive, "toward zero": ~positive, "up": up, "down": ~up}

    @cached_property
    def tie_rule(self) -> str | None:
        """The rule that the most ties follow; None where there are no ties."""
        x, low = self._ties
        if not x.size:
            return None
        up = self.ask(x).astype(np.float64) == self.values[low + 1]
        followed = {rule: int(np.count_nonzero(up == right)) for rule, right in self.tie_rules.items()}
        return max(followed, key=lambda rule: followed[rule])

    def tied(self, x: Array) -> tuple[Mask, Array]:
        """Which inputs are ties, and what the rule makes of them."""
        ties, low = self._ties
        if self.tie_rule is None:
            return np.zeros(x.shape, np.bool_), np.zeros(x.shape)
        right = self.values[low + self.tie_rules[self.tie_rule]]
        at = np.minimum(np.searchsorted(ties, x), ties.size - 1)
        return ties[at] == x, right[at]

    def becomes(self, x: Any) -> str:
        """What one input becomes, in words: `the greatest, 448`."""
        out = self.ask(np.array([x], self.dtype))[0]
        return f"the greatest, {out}" if float(out) == self.values[-1] else str(out)

    def notes(self, ties: bool) -> tuple[str, ...]:
        """What was found out, in words; which way ties go only where they were tried."""
        positive = self.values[self.values > 0]
        least = f", the least positive {positive[0].astype(self.dtype)}" if positive.size else ""
        ends = f"{self.values[0].astype(self.dtype)} to {self.values[-1].astype(self.dtype)}"
        found = f"{self.values.size:,} numbers{'' if self.closed else ' and more'}, {ends}{least}"
        greatest = self.values[-1].astype(self.dtype)
        with np.errstate(over="ignore"):
            twice = self.dtype.type(2) * greatest
        beyond = "" if np.isinf(twice) else f"twice the greatest becomes {self.becomes(twice)}; "
        specials = f"{beyond}infinity becomes {self.becomes(np.inf)}; NaN becomes {self.becomes(np.nan)}"
        told = (f"ties go {self.tie_rule}",) if ties and self.tie_rule is not None else ()
        return (found, *told, f"{specials}; -0 becomes {self.becomes(-0.0)}")
