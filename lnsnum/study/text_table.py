"""A table in letters of one width: the first column at the left, the others at the right, two blanks between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """What people read, and what a program gets."""

    text: str
    value: Any


BLANK = Cell("", None)
MISSING = Cell("-", None)


def word(text: str) -> Cell:
    """A cell that is the same to both."""
    return Cell(text, text)


@dataclass(frozen=True)
class TextTable:
    """A table under its title; the notes stand below it."""

    name: str
    title: str
    columns: Sequence[str]
    """As many as each row has cells, no two alike."""
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    problem: str | None = None
    """The one that it is of, where there is a table a problem."""
    missing: int = 0
    """Runs that it needs and that are not there."""

    def text(self) -> str:
        """The lines, with no newline at the end."""
        lines = [list(self.columns)] + [[cell.text for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        laid_out = [
            "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in lines
        ]
        rule = "-" * max(map(len, laid_out))
        return "\n".join(line.rstrip() for line in [self.title, "", laid_out[0], rule, *laid_out[1:], *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the values of each row under the names of the columns."""
        rows = [dict(zip(self.columns, (cell.value for cell in row), strict=True)) for row in self.rows]
        return {
            "table": self.name,
            "title": self.title,
            "problem": self.problem,
            "rows": rows,
            "missing": self.missing,
            "notes": list(self.notes),
        }
