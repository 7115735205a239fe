"""The tables of the study, by name, each made of the journal alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lnsnum.study import bookkeeping, claims, learning_rates, second_tables, variants
from lnsnum.study.results import Results
from lnsnum.study.text_table import TextTable
from lnsnum.tasks import TaskError


class _Maker(NamedTuple):
    make: Callable[[Results, Sequence[str]], list[TextTable]]
    part: str | None
    """The part of the study that it tells of: problems of which no run of that part is there are left out."""


TABLES: Mapping[str, _Maker] = {
    "claim": _Maker(claims.claim, "without-tuning"),
    "one-rate": _Maker(learning_rates.one_rate, "without-tuning"),
    "ladder": _Maker(claims.ladders, "without-tuning"),
    "grid": _Maker(learning_rates.grid, "without-tuning"),
    "bits": _Maker(variants.bits, "bits"),
    "ablations": _Maker(variants.ablations, "ablations"),
    "memory": _Maker(bookkeeping.memory, None),
    "budget": _Maker(bookkeeping.budget, None),
}
"""Of the first edition, in the order in which they are printed."""

SECOND_TABLES: Mapping[str, _Maker] = {
    "verdicts": _Maker(second_tables.verdicts, "rows"),
    "counts": _Maker(second_tables.counts, "rows"),
    "one-rate": _Maker(second_tables.one_rate, "rows"),
    "rates": _Maker(second_tables.rates, "rows"),
    "rows": _Maker(second_tables.rows, "rows"),
    "matters": _Maker(second_tables.matters, "matters"),
    "finalists": _Maker(second_tables.finalists, "finalists"),
    "budget": _Maker(bookkeeping.budget, None),
}
"""Of the second edition."""


def make_tables(results: Results, names: Sequence[str] = (), problems: Sequence[str] = ()) -> list[TextTable]:
    """The tables of these names for these problems; all, where none is named. One with no problem is left out.

    Raises:
        TaskError: where there is no table of a name, or no run of a problem.
    """
    known = TABLES if results.edition == 1 else SECOND_TABLES
    for name in names:
        if name not in known:
            raise TaskError(f"there is no table {name!r}: the tables are {', '.join(known)}")
    chosen = choose(results, problems)
    tables = []
    for name in names or known:
        make, part = known[name]
        of, left = (chosen, []) if part is None else results.begun(part, chosen)
        if of:
            tables += [_noted(table, left) for table in make(results, of)]
    return tables


def _noted(table: TextTable, left: Sequence[str]) -> TextTable:
    """The table with a note on problems that it has yet no line of; one of a single problem is left as it is."""
    if not left or table.problem is not None:
        return table
    return replace(table, notes=[*table.notes, f"Not begun: {', '.join(left)}."])


def choose(results: Results, problems: Sequence[str]) -> list[str]:
    """The problems of these names, or all, in the order of the study.

    Raises:
        TaskError: where the journal has no run of one.
    """
    for problem in problems:
        if problem not in results.problems:
            known = ", ".join(results.problems) or "none at all"
            raise TaskError(f"the journal has no run of the problem {problem!r}: it has runs of {known}")
    return [problem for problem in results.problems if not problems or problem in problems]
