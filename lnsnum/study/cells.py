"""Scores, means and differences as cells of a table: with the measure's digits, without its unit."""

from __future__ import annotations

import math
from typing import Any, Literal

from lnsnum.study.results import No, Outcome, Sample
from lnsnum.study.statistics import Difference, difference, half_width, mean, standard_deviation
from lnsnum.study.text_table import MISSING, Cell
from lnsnum.tasks.measure import Measure

DIVERGED = Cell("diverged", "diverged")

Spread = Literal["interval", "deviation", "none"]
"""What is said of a sample beside its mean."""


def heading(measure: Measure) -> str:
    """The measure with its unit: "accuracy, %"."""
    return f"{measure.name}, {measure.unit}" if measure.unit else measure.name


def plain(measure: Measure, score: float) -> str:
    """A score without its unit."""
    return measure.text(score).removesuffix(f" {measure.unit}") if measure.unit else measure.text(score)


def rate(lr: float) -> str:
    """A learning rate as a decimal number."""
    return f"{lr:.4g}"


def outcome_cell(measure: Measure, outcome: Outcome) -> Cell:
    """The score of one run."""
    if isinstance(outcome, No):
        return MISSING if outcome is No.MISSING else DIVERGED
    return Cell(plain(measure, outcome), outcome)


def sample_cell(measure: Measure, sample: Sample | None, spread: Spread = "interval") -> Cell:
    """The mean and half of its 95 % interval: "98.12 ± 0.30"; or the standard deviation, or the mean alone.

    Of a sample of which some diverged there is no mean. Where some are missing it is that of the others, and says so.
    """
    if sample is None:
        return MISSING
    counts: dict[str, Any] = {"finished": len(sample.scores), "diverged": sample.diverged, "missing": sample.missing}
    if sample.diverged:
        whole = sample.diverged == sample.runs
        return Cell("diverged" if whole else f"diverged {sample.diverged}/{sample.runs}", {"mean": None, **counts})
    if not sample.scores:
        return MISSING
    width, deviation = half_width(sample.scores), standard_deviation(sample.scores)
    behind = {"interval": width, "deviation": deviation, "none": None}[spread]
    text = plain(measure, mean(sample.scores)) + ("" if behind is None else f" ± {plain(measure, behind)}")
    if sample.missing:
        text += f" ({len(sample.scores)} of {sample.runs})"
    return Cell(text, {"mean": mean(sample.scores), "half_width": width, "standard_deviation": deviation, **counts})


def better_by(measure: Measure, ours: Sample, theirs: Sample) -> Difference:
    """By how much we are better, positive where we are, whichever way the measure goes; both samples are complete."""
    signed = difference(ours.scores, theirs.scores)
    return signed if measure.higher_is_better else signed.negated()


def difference_cell(measure: Measure, ours: Sample | None, theirs: Sample | None, *, interval: bool = True) -> Cell:
    """By how much we are better: "+0.12 [-0.10, +0.34]"; a star where zero is not in the interval.

    Where it is, a blank has the star's place.
    """
    if ours is None or theirs is None:
        return MISSING
    if ours.diverged or theirs.diverged:
        return DIVERGED
    if not ours.complete or not theirs.complete:
        return MISSING
    better = better_by(measure, ours, theirs)
    text = _signed(measure, better.mean)
    if interval and better.low is not None and better.high is not None:
        text += f" [{_signed(measure, better.low)}, {_signed(measure, better.high)}]"
    value = {"difference": better.mean, "low": better.low, "high": better.high, "excludes_zero": better.excludes_zero}
    return Cell(text + ("*" if better.excludes_zero else " "), value)


def _signed(measure: Measure, x: float) -> str:
    return ("-" if math.copysign(1.0, x) < 0 else "+") + plain(measure, abs(x))
