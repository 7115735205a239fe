"""What is measured: cases, the points that come of them, and the marks set for them.

A case is one kernel on several sizes. Its sides (our own, rivals, the floor) work on the same numbers; each is made
when its turn comes, and may say that it cannot be measured here. A point is what one run found for a case of one size,
on so many threads; it is all that a JSON file keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Call = Callable[[], object]

OWN = "lnsnum"
COPY = "copy of the same bytes"

DISTURBED = 0.03
"""Share of the processors' time taken by others from which on a point is measured anew, and marked in the report."""

SIZES = tuple(10**k for k in range(3, 9))


class UnavailableError(Exception):
    """A side cannot be measured here, for the reason that the message gives."""


@dataclass(frozen=True)
class Case:
    """One kernel. `sides` make the call of each side from what `data` makes for a size."""

    name: str
    baseline: str
    sides: Mapping[str, Callable[[Any], Call]]
    data: Callable[[int], Any]
    traffic: Callable[[int], int]
    """Compulsory bytes of a size: inputs read once, outputs written once."""
    operations: str
    """What is done for each unit, at least."""
    sizes: tuple[int, ...] = SIZES
    unit: str = "element"
    count: Callable[[int], int] = lambda size: size
    """How many units a size has."""
    patience: float = 1.0
    """Factor on the seconds that a call may take."""
    floor: str = COPY
    """The side below which the kernel cannot come; a memory copy of as many bytes is made where it is none."""


@dataclass(frozen=True)
class Point:
    """Median seconds of a call of each side."""

    case: str
    size: int
    threads: int
    unit: str
    count: int
    traffic: int
    operations: str
    baseline: str
    floor: str
    seconds: dict[str, float]
    others: float = 0.0
    """Share of the processors' time that other processes took meanwhile."""

    @property
    def key(self) -> tuple[str, int, int]:
        """What makes it comparable to a point of another run."""
        return self.case, self.size, self.threads

    def ratio(self, side: str = OWN, baseline: str | None = None) -> float | None:
        """A side's time over the baseline's, None where one of them is missing."""
        own, other = self.seconds.get(side), self.seconds.get(baseline or self.baseline)
        return None if own is None or other is None else own / other


@dataclass(frozen=True)
class Mark:
    """What a kernel shall reach, and what would be better still."""

    title: str
    case: str
    mark: float
    stretch: float
    sizes: tuple[int, ...]
    """Where it holds; the largest size measured where none of them is."""
    baseline: str | None = None
    """Instead of the case's."""
    kind: Literal["of", "times faster", "seconds over", "seconds"] = "of"
    """own / baseline, baseline / own, own - baseline, or own alone, of a whole call."""

    def value(self, own: float, baseline: float) -> float:
        """What is held against the mark."""
        kinds = {"of": own / baseline, "times faster": baseline / own, "seconds over": own - baseline, "seconds": own}
        return kinds[self.kind]

    def cost(self, value: float) -> float:
        """A number that grows as things get worse, whatever the kind."""
        return 1 / value if self.kind == "times faster" else value

    def verdict(self, value: float) -> str:
        """Which of the two is reached."""
        if self.cost(value) <= self.cost(self.stretch):
            return "stretch"
        return "mark" if self.cost(value) <= self.cost(self.mark) else "missed"


@dataclass
class Run:
    """All that one run of the command found."""

    machine: dict[str, str]
    commit: str
    points: list[Point]
    missing: dict[str, str]
    """Sides of cases ("side of case") that could not be measured, and why."""
    anew: dict[str, str] = field(default_factory=dict)
    """Cases that were measured anew at a later commit, and which."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Run:
        """The inverse of `to_json`."""
        points = [Point(**point) for point in data["points"]]
        return cls(data["machine"], data["commit"], points, data["missing"], data.get("anew", {}))

    def at(self) -> dict[tuple[str, int, int], Point]:
        """The points by their keys."""
        return {point.key: point for point in self.points}

    def take(self, points: list[Point]) -> None:
        """In the place of those that it has of the same cases, or behind all others."""
        cases = {point.case for point in points}
        place = next((i for i, point in enumerate(self.points) if point.case in cases), len(self.points))
        kept = [[p for p in part if p.case not in cases] for part in (self.points[:place], self.points[place:])]
        self.points = [*kept[0], *points, *kept[1]]
