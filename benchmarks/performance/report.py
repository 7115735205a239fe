"""The report, in Markdown: the machine, the marks, the sweep, and two runs compared by their ratios."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from benchmarks.performance.cases import DISTURBED, OWN, Mark, Point, Run

WORSE = 1.1
"""A cost that grew by this factor is flagged."""

DISTURBANCE = "†"


class Row(NamedTuple):
    """One mark held against one point."""

    mark: Mark
    point: Point
    baseline: str
    value: float


def rows(run: Run, marks: Iterable[Mark]) -> list[Row]:
    """The marks of which both sides were measured, at the most threads, at their sizes or else at the largest."""
    found: list[Row] = []
    for mark in marks:
        of_case = [p for p in run.points if p.case == mark.case]
        points = [p for p in of_case if {OWN, mark.baseline or p.baseline} <= p.seconds.keys()]
        most = max((p.threads for p in points), default=0)
        sizes = set(mark.sizes) & {p.size for p in points} or {max((p.size for p in points), default=0)}
        for point in points:
            if point.threads == most and point.size in sizes:
                baseline = mark.baseline or point.baseline
                found.append(Row(mark, point, baseline, mark.value(point.seconds[OWN], point.seconds[baseline])))
    return found


def time(seconds: float) -> str:
    """Three digits and a unit.

    >>> time(1.234e-9), time(0.0567), time(9.999e-7), time(12.3)
    ('1.23 ns', '56.7 ms', '1 µs', '12.3 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if float(f"{seconds:.3g}") >= size or unit == "ns":
            return f"{digits(seconds / size)} {unit}"
    raise AssertionError


def digits(number: float) -> str:
    """Three significant digits, never with an exponent.

    >>> digits(0.01234), digits(1.5), digits(123456.0)
    ('0.0123', '1.5', '123,000')
    """
    return f"{float(f'{number:.3g}'):,.12f}".rstrip("0").rstrip(".")


def table(head: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are text, and the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def machine(run: Run) -> str:
    """What the run was on, and how quiet it was."""
    versions = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    noisy = sum(p.others >= DISTURBED for p in run.points)
    quiet = f"Other processes took at least {DISTURBED:.0%} of the processors in {noisy} of {len(run.points)} points"
    anew = "".join(
        f" Measured anew at commit {commit}: {', '.join(case for case in run.anew if run.anew[case] == commit)}."
        for commit in dict.fromkeys(run.anew.values())
    )
    return f"Commit {run.commit}.{anew} {versions}. {quiet}{f' (marked {DISTURBANCE})' if noisy else ''}."


def size(point: Point) -> str:
    """With a mark where others disturbed."""
    return f"{point.size:,}{DISTURBANCE if point.others >= DISTURBED else ''}"


def _value(mark: Mark, value: float) -> str:
    return {
        "of": digits(value),
        "times faster": f"{digits(value)} x faster",
        "seconds over": f"{time(abs(value))} {'more' if value >= 0 else 'less'}",
        "seconds": time(abs(value)),
    }[mark.kind]


def marks_table(run: Run, marks: Iterable[Mark]) -> str:
    """Times are for each unit: an element, a multiply-add, a parameter, a start."""
    body = []
    for mark, point, baseline, value in rows(run, marks):
        floor = point.seconds.get(point.floor)
        body.append(
            [
                mark.title,
                baseline,
                f"{mark.verdict(value)}{DISTURBANCE if point.others >= DISTURBED else ''}",
                size(point),
                time(point.seconds[OWN] / point.count),
                time(point.seconds[baseline] / point.count),
                _value(mark, value),
                _value(mark, mark.mark),
                _value(mark, mark.stretch),
                "" if floor is None else f"{time(floor / point.count)}, {point.floor}",
                "" if floor is None else digits(point.seconds[OWN] / floor),
            ]
        )
    head = "kernel", "of", "reached", "size", OWN, "baseline", "ratio", "mark", "stretch", "floor", "of the floor"
    return table(head, body, left=3)


def sweep_tables(run: Run) -> str:
    """One table for each case: time of each side for a unit, and in brackets lnsnum's time over that of the side."""
    parts = []
    for name, group in groupby(run.points, key=lambda p: p.case):
        points = list(group)
        first = points[0]
        sides = list(dict.fromkeys(side for point in points for side in point.seconds))
        sides.sort(key=lambda side: (side != OWN, side == first.floor))
        body = []
        for point in sorted(points, key=lambda p: (p.threads, p.size)):
            cells = [f"{point.threads}", size(point), digits(point.traffic / point.count)]
            for side in sides:
                own = point.ratio(OWN, side)
                cell = time(point.seconds[side] / point.count) if side in point.seconds else ""
                cells.append(cell if side == OWN or own is None else f"{cell} ({digits(own)})")
            body.append(cells)
        head = ["threads", "size", f"bytes a{'n' * (first.unit[0] in 'aeiou')} {first.unit}", *sides]
        about = f"Operations of a{'n' * (first.unit[0] in 'aeiou')} {first.unit}: {first.operations}."
        parts.append(
            f"### {name}\n\n{about} Baseline: {first.baseline}. Floor: {first.floor}.\n\n{table(head, body, 0)}"
        )
    return "\n\n".join(parts)


def missing(run: Run) -> str:
    """What could not be measured, and why, one line for each reason."""
    sides: dict[str, list[str]] = {}
    for side, reason in run.missing.items():
        sides.setdefault(reason, []).append(side)
    return "\n".join(f"- Not measured: {', '.join(names)}. Reason: {reason}." for reason, names in sides.items())


def markdown(run: Run, marks: Iterable[Mark], pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole report; pictures are pairs of a caption and a link."""
    links = "\n\n".join(f"![{caption}]({link})" for caption, link in pictures)
    parts = [
        machine(run),
        missing(run),
        "## The marks",
        marks_table(run, marks),
        links,
        "## All sizes",
        sweep_tables(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


START, END = "<!-- figures -->", "<!-- /figures -->"


def put_between_markers(page: str, text: str) -> str:
    """The page with the text in place of what stands between the two markers.

    Raises:
        ValueError: where the page has not both of them, once each and in order.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in rest or END in after:
        raise ValueError(f"the page needs the lines {START} and {END} once each, in this order")
    return f"{before}{START}\n\n{text.strip()}\n\n{END}{after}"


class Change(NamedTuple):
    """A cost in two runs: the ratio to the baseline, or its inverse where faster is more."""

    name: str
    size: int
    threads: int
    old: float
    new: float

    @property
    def factor(self) -> float:
        """Above 1 where it became slower beside its baseline."""
        return self.new / self.old


def changes(old: Run, new: Run) -> list[Change]:
    """For every point that both runs have, our time over the baseline's."""
    before, found = old.at(), []
    for point in new.points:
        earlier = before.get(point.key)
        ratios = (earlier.ratio(baseline=point.baseline) if earlier else None), point.ratio()
        if ratios[0] is not None and ratios[1] is not None:
            found.append(Change(point.case, point.size, point.threads, ratios[0], ratios[1]))
    return found


def comparison(old: Run, new: Run) -> str:
    """The changes as a table, those that are flagged first."""
    found = sorted(changes(old, new), key=lambda c: -c.factor)
    body = [
        [
            f"**{c.name}**" if c.factor > WORSE else c.name,
            f"{c.size:,}",
            f"{c.threads}",
            digits(c.old),
            digits(c.new),
            digits(c.factor),
        ]
        for c in found
    ]
    flagged = sum(c.factor > WORSE for c in found)
    head = "kernel", "size", "threads", "old ratio", "new ratio", "new / old"
    about = f"Ratios to the baseline in each run, of commits {old.commit} and {new.commit}"
    return f"{about}; {flagged} of {len(found)} grew by more than {WORSE - 1:.0%} (bold).\n\n{table(head, body)}\n"
