"""Reports that are tables: in letters of one width where they are printed, HTML in a notebook.

    name      format  rel. error          texts at the left, numbers at the right
    0.weight  lns8f5      0.0021

A report says which rows it has; this lays them out.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of texts under a head, and lines below."""

    head: Sequence[str]
    """Of as many cells as each row; of none where the rows need no head."""
    rows: Sequence[Sequence[str]]
    texts: int = 1
    """How many of the first columns stand at the left."""
    notes: Sequence[str] = ()

    def text(self) -> str:
        """The lines, with no newline at the end."""
        lines = [list(self.head)] * bool(self.head) + [list(row) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(["  ".join(self._padded(line, widths)).rstrip() for line in lines] + list(self.notes))

    def _padded(self, line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        for at, (cell, width) in enumerate(zip(line, widths, strict=True)):
            yield cell.ljust(width) if at < self.texts else cell.rjust(width)

    def html(self) -> str:
        """A table, and a paragraph for each note."""
        head = f"<thead>{self._row('th', self.head)}</thead>" if self.head else ""
        body = "".join(self._row("td", row) for row in self.rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table>{head}<tbody>{body}</tbody></table>{notes}"

    def _row(self, kind: str, cells: Sequence[str]) -> str:
        aligned = ("left" if at < self.texts else "right" for at in range(len(cells)))
        shown = (
            f'<{kind} style="text-align: {side}">{html.escape(cell)}</{kind}>'
            for side, cell in zip(aligned, cells, strict=True)
        )
        return f"<tr>{''.join(shown)}</tr>"


class Tabular:
    """What is shown as a table."""

    def to_table(self) -> Table:
        """The table."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.to_table().text()

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.to_table().html()
