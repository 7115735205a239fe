"""What the tables of several commands have in common: names, numbers and shares as text."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lnsnum.cli.app import printable
from lnsnum.files.atomic import shown
from lnsnum.toolbox.loss import Loss

LONGEST = 60
"""Columns of a text from elsewhere in a line."""

_BEFORE = 20
"""Columns of an excerpt before the first that differs."""


def name_of(tensor: str) -> str:
    """A tensor's name in one line: any string can be one, the empty one and escape sequences too."""
    return shown(tensor) or "''"


def shortened(text: str, most: int = LONGEST) -> str:
    """A text in one line of no great length: at most so many columns of a terminal."""
    line = printable(text)
    return line if cell_len(line) <= most else f"{set_cell_size(line, most - 3)}..."


def excerpts(one: str, other: str) -> tuple[str, str]:
    """Of two texts that differ, quoted parts of one length in which that is seen; `...` is where more is."""
    lines = [repr(text)[1:-1] for text in (one, other)]  # unlike `printable`, it makes no two texts the same
    first = next((i for i, (a, b) in enumerate(zip(*lines, strict=False)) if a != b), min(map(len, lines)))
    begin = 0
    if max(map(cell_len, lines)) > LONGEST:  # columns: a character of Chinese takes two, a mark that combines none
        begin = next(i for i in range(max(0, first - _BEFORE), first + 1) if cell_len(lines[0][i:first]) <= _BEFORE)
    front = "..." if begin else ""
    a, b = (f"'{front}{shortened(line[begin:])}'" for line in lines)
    return a, b


def number(x: float, log2: float | None = None) -> str:
    """Four digits of a number; of a magnitude that no double is, its logarithm, where that is given."""
    if log2 is not None and (x == 0.0 or math.isinf(x)):
        return f"2^{log2:.4g}"
    return f"{x:.4g}"


def counted(count: int, noun: str) -> str:
    """So many of them."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def share(count: int, of: int) -> str:
    """A part in percent: 0 and 100 only where it is none and all."""
    if not count or not of:
        return "0"
    percent = 100.0 * count / of
    return "<0.01 %" if percent < 0.01 else ">99.99 %" if count < of and percent > 99.99 else f"{percent:.3g} %"


def decibels(loss: Loss) -> str:
    """A loss's signal-to-quantization-noise ratio."""
    if loss.changed == 0:
        return "exact"
    return f"{loss.sqnr_db:.2f}" if math.isfinite(loss.sqnr_db) else "-"


def loss_to_json(loss: Loss) -> dict[str, float]:
    """A loss for a program: the ratio is null where there is no noise, or no double that is it."""
    return {
        "elements": loss.elements,
        "finite": loss.finite,
        "changed": loss.changed,
        "sqnr_db": loss.sqnr_db,
        "greatest_relative": loss.greatest_relative,
        "greatest_absolute": loss.greatest_absolute,
        "to_zero": loss.zeroed,
        "from_zero": loss.unzeroed,
        "to_nan": loss.to_nan,
        "from_nan": loss.from_nan,
    }


class NameTable(Table):
    """A table whose first column has names, which are never broken: who looks for one finds it, and can copy it.

    Where a terminal has no room for names beside figures, each name has a line of its own, and its figures the next.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table as it is, or in lines."""
        natural = Measurement.get(console, options.update(max_width=_UNBOUNDED), self).maximum
        return super().__rich_console__(console, options) if natural <= options.max_width else self._in_lines()

    def _in_lines(self) -> RenderResult:
        names, *others = ([str(column.header), *map(str, column.cells)] for column in self.columns)
        widths = [max(map(cell_len, cells)) for cells in others]
        justified = [column.justify == "right" for column in self.columns[1:]]
        if self.title:
            yield _unbroken(str(self.title))
        for name, *cells in zip(names, *others, strict=True):
            yield _unbroken(name)
            padded = [
                " " * (width - cell_len(cell)) + cell if right else cell + " " * (width - cell_len(cell))
                for cell, width, right in zip(cells, widths, justified, strict=True)
            ]
            if any(cells):
                yield _unbroken(f"  {'  '.join(padded).rstrip()}")
        if self.caption:
            yield _unbroken(str(self.caption))


def _unbroken(text: str) -> Text:
    """A line that only the terminal breaks."""
    return Text(text, no_wrap=True, overflow="ignore")


_UNBOUNDED = 1 << 20


def table_of(title: str, first: Iterable[str], numbers: Iterable[str]) -> Table:
    """A table whose first column has names, the others texts and numbers, which stand at the right."""
    table = NameTable(title=title, title_justify="left")
    for column in first:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right", overflow="fold")
    return table
