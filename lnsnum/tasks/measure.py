"""What each task is scored by: its unit, which way it is better, and which scores are level. It needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """What a task is scored by."""

    name: str
    """Such as "accuracy"."""
    unit: str
    """Such as "%" or "nats"; empty for a plain number."""
    higher_is_better: bool
    margin: float
    """By how much one may be worse than another and still count as level with it: in units of the measure, or, where
    `relative`, as a share of the other's."""
    relative: bool = False

    @property
    def sign(self) -> int:
        """What scores are multiplied by so that more is better."""
        return 1 if self.higher_is_better else -1

    def margin_at(self, best: float) -> float:
        """The margin below a best score, in units of the measure."""
        return self.margin * (abs(best) if self.relative else 1.0)

    def level(self, score: float, best: float) -> bool:
        """Whether `score` is at least `best`, up to the margin."""
        return self.sign * (best - score) <= self.margin_at(best) * (1 + 1e-9)  # 1.52 - 1.50 is above 0.02

    def text(self, score: float) -> str:
        """A score as people read it: "99.28 %", "1.683 nats"."""
        digits = 2 if self.unit == "%" else 3
        return f"{score:.{digits}f}" + (f" {self.unit}" if self.unit else "")


ACCURACY = Measure("accuracy", "%", higher_is_better=True, margin=0.5)
LOSS = Measure("loss", "nats", higher_is_better=False, margin=0.02)
ERROR = Measure("error", "levels", higher_is_better=False, margin=0.05, relative=True)

MEASURES: Mapping[str, Measure] = {
    "classification": ACCURACY,
    "generation": Measure("Fréchet distance", "", higher_is_better=False, margin=0.05, relative=True),
    "reconstruction": ERROR,
    "characters": LOSS,
    "words": LOSS,
    "regression": ERROR,
    "copying": ACCURACY,
}
"""By the name of the task."""
