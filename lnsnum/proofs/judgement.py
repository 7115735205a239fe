"""Approximate Gaussian logarithms held against the exact one, z by z over the whole domain."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.gaussian import Exact, GaussianLog, check_gaussian, evaluate, last_step
from lnsnum.proofs.scanning import WIDEST_RANGE, chunks, float_position

EDGES = (0.5, 1.0, 2.0, 4.0, math.inf)
"""Upper ends of the bins of a histogram of errors, in code steps."""


class Judgement(NamedTuple):
    """How near an approximate sb or db comes to the exact one, over every z that two codes of one scale have.

    Of formats wider than 16 bits, up to the last z from which anything comes of the exact one.
    """

    function: str
    inputs: int
    histogram: tuple[int, ...]
    """How many z have an error up to each of `EDGES`, in code steps."""
    worst_z: int
    worst_error: float
    monotone: bool
    """sb never rises, and db never falls, as z grows."""
    faithful: bool
    """Always one of the two codes around the exact value."""
    correctly_rounded: bool

    @property
    def rounding(self) -> str:
        """The best that can be said of it."""
        return "correctly rounded" if self.correctly_rounded else "faithful" if self.faithful else "neither"


def judge(gaussian: GaussianLog, fmt: LNSFormat) -> list[Judgement]:
    """Hold a Gaussian logarithm against the exact one, z by z.

    >>> from lnsnum import lns8f3
    >>> from lnsnum.gaussian import Mitchell
    >>> [(j.function, j.faithful, round(j.worst_error, 2)) for j in judge(Mitchell(), lns8f3)]
    [('sb', False, 1.02), ('db', False, 3.27)]
    """
    check_gaussian(gaussian)
    judgements = []
    for subtracted in (False, True):
        counts = np.zeros(len(EDGES), np.int64)
        worst_z, worst, inputs = 0, -1.0, 0
        monotone = faithful = correct = True
        before: int | None = None
        last = 2 * fmt.max_log if fmt.bits <= WIDEST_RANGE else last_step(fmt)
        for z in chunks(last + 1, 1 if subtracted else 0):
            found = evaluate(gaussian, z, fmt, subtracted)
            nearest = evaluate(Exact(), z, fmt, subtracted)
            position = float_position(z, fmt, subtracted)
            error = np.abs(found - position)
            error = np.where(found == nearest, np.minimum(error, 0.5), error)
            correct = correct and bool(np.array_equal(found, nearest))
            faithful = faithful and bool(np.all((error < 1.0) | (found == nearest)))
            counts += np.histogram(error, np.array([-1.0, *EDGES]) + 1e-12)[0]
            at = int(np.argmax(error))
            if error[at] > worst:
                worst_z, worst = int(z[at]), float(error[at])
            joined = found if before is None else np.concatenate([[before], found])
            difference = np.diff(joined)
            monotone = monotone and bool(np.all(difference >= 0) if subtracted else np.all(difference <= 0))
            before, inputs = int(found[-1]), inputs + z.size
        name = "db" if subtracted else "sb"
        judgements.append(
            Judgement(name, inputs, tuple(int(c) for c in counts), worst_z, worst, monotone, faithful, correct)
        )
    return judgements


def judgement_markdown(name: str, judgements: list[Judgement]) -> str:
    """Rows of the table whose head is `JUDGEMENT_HEAD`."""
    rows = []
    for j in judgements:
        histogram = " / ".join(f"{count:,}" for count in j.histogram)
        monotone = "yes" if j.monotone else "no"
        worst = f"{j.worst_error:.3f} at z={j.worst_z}"
        rows.append(f"| {name} | {j.function} | {histogram} | {worst} | {monotone} | {j.rounding} |")
    return "\n".join(rows)


_ENDS = " / ".join(f"{end:g}" for end in EDGES[:-1])
JUDGEMENT_HEAD = f"""| Gaussian logarithm | | z with an error up to {_ENDS} / more ulp | worst | monotone | rounding |
| --- | --- | --- | --- | --- | --- |"""
"""Of the table that `judgement_markdown` gives the rows of."""
