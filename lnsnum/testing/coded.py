"""Batches whose results are codes, held against the exact results: what may stand for these is a matter of `Bounds`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.testing import code_words
from lnsnum.testing.spans import Bounds, Ints, Mask, Rules
from lnsnum.testing.trial import Batch, Finding


class Coded(Batch):
    """n inputs whose results are codes of a format, as int64, so that nothing wraps here."""

    fmt: LNSFormat
    rules: Rules

    @property
    def out(self) -> Ints:
        """What came out."""
        raise NotImplementedError

    @property
    def bounds(self) -> Bounds:
        """Where the exact results lie, and what may stand for them."""
        raise NotImplementedError

    def result(self, i: int) -> int:
        """A code, or what came out in its place."""
        return int(self.out[i])

    def told(self, result: int) -> str:
        """A code with its value."""
        return code_words.told(result, self.fmt)

    def isnan(self, codes: Ints) -> Mask:
        """Which codes are NaN."""
        nan: Mask = codes == self.fmt.nan_code
        return nan

    def rank(self, codes: Ints) -> Ints:
        """Integers in the order of the values."""
        return code_words.rank(codes, self.fmt)

    def negative(self, codes: Ints) -> Ints:
        """The opposite; zero and NaN stay."""
        return code_words.negative(codes, self.fmt)

    def should_be(self, where: Mask, expected: Ints | int) -> Finding:
        """These codes should have come out there."""
        codes = np.broadcast_to(np.asarray(expected), self.out.shape)
        return Finding(where, where & (self.out != codes), lambda i: self.told(int(codes[i])))

    def within(self, where: Mask) -> Finding:
        """What came out there should be what the bounds allow."""
        bounds, fmt = self.bounds, self.fmt
        log = (self.out & fmt.max_magnitude) - fmt.bias
        number = (bounds.low <= log) & (log <= bounds.high) & ((self.out >= fmt.sign_bit) == bounds.negative)
        ok = np.where(log == -fmt.bias, bounds.zero, number)
        ok = np.where(self.isnan(self.out), bounds.high > fmt.max_log, ok)

        def expected(i: int) -> str:
            sign = fmt.sign_bit if bounds.negative[i] else 0
            low, high = int(bounds.low[i]), min(int(bounds.high[i]), fmt.max_log)
            words = [self.told(0)] if bounds.zero[i] else []
            words += [self.told(e + fmt.bias + sign) for e in dict.fromkeys((low, high)) if low <= high]
            told = " to ".join(words)
            off = abs(float(log[i]) - float(bounds.log[i]))
            right_sign = log[i] > -fmt.bias and (self.out[i] >= fmt.sign_bit) == bounds.negative[i]
            return f"{told}; it is off by {off:.4g} ulp" if right_sign and not bounds.underflows[i] else told

        return Finding(where, where & ~ok, expected)


def find_range(batch: Coded) -> Iterator[Finding]:
    """What comes out is a code of the format."""
    bad = (batch.out < 0) | (batch.out >= 1 << batch.fmt.bits)
    yield Finding(np.ones_like(bad), bad, lambda i: f"a code, 0 to {(1 << batch.fmt.bits) - 1}")


def find_saturation(batch: Coded) -> Iterator[Finding]:
    """What is beyond the greatest is the greatest, with the right sign (or NaN, where overflow is "nan")."""
    sign = np.where(batch.bounds.negative, batch.fmt.sign_bit, 0)
    expected = batch.fmt.nan_code if batch.rules.overflow == "nan" else batch.fmt.max_magnitude + sign
    yield batch.should_be(batch.bounds.saturates, expected)


def find_underflow(batch: Coded) -> Iterator[Finding]:
    """What is below the smallest is zero or the smallest, by the underflow policy."""
    yield batch.within(batch.bounds.underflows)


def find_error_bound(batch: Coded) -> Iterator[Finding]:
    """In between, the result has the right sign and lies within max_ulp of the exact one, on the log axis."""
    bounds = batch.bounds
    yield batch.within(bounds.exact & ~bounds.underflows & ~bounds.saturates)
