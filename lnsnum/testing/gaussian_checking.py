"""`check_gaussian_laws`: the door to the laws of Gaussian logarithms."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Literal

import numpy as np

from lnsnum.format import LNSFormat, check_choice
from lnsnum.testing.arguments import Names, check_count, check_ulp, choose, find_functions
from lnsnum.testing.calling import Callee, Takes
from lnsnum.testing.conversion_inputs import in_chunks
from lnsnum.testing.foreign import Array
from lnsnum.testing.gaussian_laws import GAUSSIAN_LAWS, Logs, distances
from lnsnum.testing.pairs import WIDEST_WITH_EVERY_GAP
from lnsnum.testing.report import LawReport
from lnsnum.testing.trial import Tried, try_laws
from lnsnum.testing.unary import Ask

LogType = Literal["int64", "float64", "float32"]
"""What z and the values are: whole code steps, or floats that count powers of the base."""

FUNCTIONS = ("sb", "db")
"""What is tried."""

DRAWN = 100_000
"""Distances that are drawn for a format of more than 16 bits, besides those that are always tried."""


def _of_z(implementation: object, fmt: LNSFormat) -> object:
    """The functions of z alone, where those of a `lnsnum.gaussian.GaussianLog` take the format too."""
    if isinstance(implementation, Mapping):
        return implementation
    functions = {}
    for name in FUNCTIONS:
        function = getattr(implementation, name, None)
        if not callable(function):
            continue
        try:
            inspect.signature(function).bind(0, fmt)
        except (TypeError, ValueError):  # it takes z alone, or hides what it takes
            continue
        functions[name] = lambda z, f=function: f(z, fmt)
    return functions or implementation


def _asks(callee: Callee, fmt: LNSFormat, dtype: np.dtype[np.generic]) -> dict[str, Ask]:
    """The functions, from z in code steps."""

    def ask_of(name: str) -> Ask:
        def ask(z: Array) -> Array:
            x = z if dtype.kind == "i" else (z / (1 << fmt.fraction_bits)).astype(dtype)
            return callee(name, (x,), dtype, lambda i: f"{name}({x[i]})")

        return ask

    return {name: ask_of(name) for name in callee.functions}


def check_gaussian_laws(
    implementation: object,
    fmt: LNSFormat | str,
    *,
    dtype: LogType = "int64",
    max_ulp: float | Fraction | None = None,
    operations: Names = None,
    laws: Names = None,
    drawn: int = DRAWN,
    seed: int = 0,
    takes: Takes = "auto",
    timeout: float = 60.0,
) -> LawReport:
    """Try the laws of Gaussian logarithms on an sb and a db of your own.

        sb(z) = 2^F log_base(1 + base^(-z / 2^F)),      db(z) = 2^F log_base(1 - base^(-z / 2^F))

    Formats up to 16 bits are tried with every z that two codes have; wider ones with every z below 2^14, where db is
    steep, those at which the last steps are taken, powers of two, and z drawn from a seed. db(0) is not asked for.

    Args:
        implementation: an object, module or mapping with `sb` or `db` or both, or one function, where `operations`
            names one. Each takes an array of z and returns one, or numbers, or tensors of torch. Those of a
            `lnsnum.gaussian.GaussianLog`, which take z and the format, will do.
        fmt: the format, or its name.
        dtype: "int64" where z and values are whole code steps; "float64" or "float32" where both count powers of the
            base: z / 2^F.
        max_ulp: how far from the exact value one may be, in code steps. Unless said otherwise 0.5, which asks integers
            for the nearest.
        operations: which to try; all that the implementation has unless said otherwise.
        laws: which to try, names from `GAUSSIAN_LAWS`. An approximation may lack `monotonicity` by design.
        drawn: how many z are drawn for a format of more than 16 bits.
        seed, takes, timeout: as in `check_arithmetic_laws`.

    Returns:
        LawReport: over how many z each law held.

    Raises:
        LawViolation, ImplementationError, TypeError, ValueError: as `check_arithmetic_laws` does.

    >>> from lnsnum.gaussian import Mitchell
    >>> try:
    ...     check_gaussian_laws(Mitchell(), "lns8f3", operations=["sb"], laws=["error_bound"])
    ... except AssertionError as error:
    ...     print(error)
    error_bound: sb(3) = 6; expected 7; it is off by 0.5972 ulp
    """
    fmt = LNSFormat.of(fmt)
    check_choice("dtype", dtype, LogType)
    ulp = check_ulp(max_ulp, fmt, "nearest")
    check_count("drawn", drawn)
    chosen = choose("laws", laws, GAUSSIAN_LAWS)
    callee, tried = find_functions(
        _of_z(implementation, fmt),
        FUNCTIONS,
        operations,
        takes=takes,
        timeout=timeout,
        wants="return a value for every z",
        give="give it one that takes an array of z, or name the one that a function is in `operations`",
    )
    kept = np.dtype(dtype)
    asks = _asks(callee, fmt, kept)
    widest = 63 if kept.kind == "i" else np.finfo(kept).nmant + 1

    def batches(operation: str) -> Iterator[Logs]:
        for z, steps in in_chunks(distances(fmt, operation, drawn, seed, widest), greatest_step=fmt.max_magnitude):
            yield Logs(asks, operation, z, steps, fmt, ulp)

    whole = fmt.bits <= WIDEST_WITH_EVERY_GAP
    plan = {name: Tried({law: GAUSSIAN_LAWS[law] for law in chosen}, batches(name), whole) for name in tried}
    missing = tuple(name for name in FUNCTIONS if name not in callee.functions)
    return try_laws("gaussian", fmt, callee, plan, order=GAUSSIAN_LAWS, missing=missing)
