"""Means and differences of a few runs, and how far they can be trusted.

    mean ± t(n - 1) s / sqrt(n)                              Student's 95 % interval of a mean of n runs
    mean a - mean b ± t(f) sqrt(s_a^2 / n_a + s_b^2 / n_b)   Welch's, which lets the two have different variances

f = (v_a + v_b)^2 / (v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1)) with v = s^2 / n: B. L. Welch, Biometrika 34, 1947.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal, NamedTuple

CONFIDENCE = 0.95

Verdict = Literal["above", "level", "open", "missed"]


class Difference(NamedTuple):
    """A difference of means and the ends of its interval; None where there is no interval."""

    mean: float
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and zero is not in it."""
        return self.low is not None and self.high is not None and (self.low > 0.0 or self.high < 0.0)

    def negated(self) -> Difference:
        """The same difference, the other way round."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Difference(-self.mean, low, high)


def verdict(better: Difference, margin: float) -> Verdict | None:
    """What an interval of a difference says, positive where we are better; None where there is no interval.

    above: all of it is positive. level: all of it is above minus the margin. missed: all of it is below that. open:
    none of these.
    """
    if better.low is None or better.high is None:
        return None
    if better.low > 0.0:
        return "above"
    least = -margin * (1 + 1e-9)  # 1.50 - 1.52 is below -0.02
    if better.low >= least:
        return "level"
    return "missed" if better.high < least else "open"


def mean(values: Sequence[float]) -> float:
    """The mean of one value or more."""
    return fmean(values)


def standard_deviation(values: Sequence[float]) -> float | None:
    """The root of the unbiased variance, over n - 1; None for one value."""
    return stdev(values) if len(values) > 1 else None


def t_quantile(degrees: float) -> float:
    """t with a probability of 97.5 % below it, for so many degrees of freedom, a fraction too.

    Raises:
        ImportError: without SciPy, which comes with scikit-learn.
    """
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise ImportError("intervals need SciPy: pip install 'lnsnum[tasks]'") from error
    return float(stdtrit(degrees, (1.0 + CONFIDENCE) / 2.0))


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean; None for one value."""
    deviation = standard_deviation(values)
    return None if deviation is None else t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """mean a - mean b, with Welch's 95 % interval.

    One value in either leaves no interval. Where neither varies the interval is the difference itself.
    """
    between = fmean(a) - fmean(b)
    s_a, s_b = standard_deviation(a), standard_deviation(b)
    if s_a is None or s_b is None:
        return Difference(between, None, None)
    if s_a == s_b == 0.0:
        return Difference(between, between, between)
    error = math.hypot(s_a / math.sqrt(len(a)), s_b / math.sqrt(len(b)))
    share_a, share_b = s_a**2 / len(a) / error**2, s_b**2 / len(b) / error**2
    degrees = 1.0 / (share_a**2 / (len(a) - 1) + share_b**2 / (len(b) - 1))
    reach = t_quantile(degrees) * error
    return Difference(between, between - reach, between + reach)
