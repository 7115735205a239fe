"""`check_quantizer_laws`: the door to the laws of quantizers."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

import numpy as np

from lnsnum.format import LNSFormat, Overflow, Underflow, check_choice
from lnsnum.testing.arguments import FloatType, Names, check_count, check_subnormals, choose_laws, find_functions
from lnsnum.testing.calling import ImplementationError, Takes
from lnsnum.testing.conversion_inputs import DRAWN, all_narrow, chosen_floats, in_chunks, with_neighbours
from lnsnum.testing.foreign import Array
from lnsnum.testing.positions import Axis
from lnsnum.testing.quantizer_grid import Grid, middle
from lnsnum.testing.quantizer_laws import QUANTIZER_LAWS, Asked, Quantized, QuantizerRounding, holding_laws
from lnsnum.testing.report import LawReport
from lnsnum.testing.spans import Rules
from lnsnum.testing.trial import Tried, try_laws
from lnsnum.testing.unary import asking, quiet

_MOST_NUMBERS = 1 << 16
"""Of so many numbers of a grid all midpoints are tried, with the floats next to them."""


def _floats(dtype: np.dtype[np.generic], drawn: int, seed: int) -> Array:
    """What a quantizer is asked first: every float16 and bfloat16, the ends of the type, drawn patterns."""
    narrow = all_narrow(dtype)
    if dtype == np.float16:
        return narrow
    random = np.random.default_rng(seed)
    info = np.finfo(dtype)  # type: ignore[type-var]  # one of the three
    ends = np.array([info.smallest_subnormal, info.tiny, info.max], np.float64)
    patterns = random.integers(0, 1 << (8 * dtype.itemsize), drawn, dtype=f"u{dtype.itemsize}").view(dtype)
    return np.concatenate([narrow, with_neighbours(ends, dtype), quiet(patterns)])


def _around(grid: Grid) -> Array:
    """The numbers of a grid, the midpoints between them, and the floats next to all of these."""
    numbers = grid.values[:: max(1, grid.values.size // _MOST_NUMBERS)]
    between = np.abs(middle(numbers[:-1], numbers[1:]))
    return with_neighbours(np.unique(np.concatenate([np.abs(numbers), between])), grid.dtype)


def check_quantizer_laws(
    implementation: object,
    fmt: LNSFormat | str | None = None,
    *,
    dtype: FloatType = "float32",
    rounding: QuantizerRounding = "nearest",
    axis: Literal["value", "log"] = "value",
    scales: tuple[float, float] | None = None,
    laws: Names = None,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    drawn: int = DRAWN,
    seed: int = 0,
    takes: Takes = "auto",
    timeout: float = 60.0,
) -> LawReport:
    """Try the laws of quantizers on any function from floats to floats of the same type.

    It is tried with every float16 and bfloat16, the ends of its type, drawn floats, and its own numbers: all that came
    out, the midpoints between them and the floats next to these. The report tells in `notes` which numbers it has,
    which way ties go, and what becomes of NaN, infinity, and what is beyond. The verdict is the same in every run.

    Args:
        implementation: a function `quantize` of an array that returns one, or numbers, or tensors of torch; or an
            object or mapping that has it by this name. It works on each element alone; where one scale is computed from
            all of them, `determinism` is broken.
        fmt: where the numbers are those of a format of codes, that format: its numbers are then right, on the log axis.
        dtype: of the floats.
        rounding: which of two neighbours is right: the nearest unless said otherwise.
        axis: where nearest is judged without a format: between numbers or between their logarithms.
        scales: the least and greatest size between which scaling by 2 must change nothing but the scale.
        laws: which to try, names from `QUANTIZER_LAWS`; those that hold under `rounding` where they are left out.
        overflow, underflow: with a format, as in `lnsnum.encode`.
        drawn, seed, takes, timeout: as in `check_conversion_laws`.

    Returns:
        LawReport: over how many inputs each law held, and `notes`.

    Raises:
        LawViolation, ImplementationError, TypeError, ValueError: as `check_arithmetic_laws` does.

    >>> import numpy as np
    >>> report = check_quantizer_laws(lambda x: np.clip(np.rint(x), -7, 7))
    >>> print(report)
    quantizers: quantize kept 11 laws on 181178 inputs (chosen)
    15 numbers, -7.0 to 7.0, the least positive 1.0
    ties go to even
    twice the greatest becomes the greatest, 7.0; infinity becomes the greatest, 7.0; NaN becomes nan; -0 becomes -0.0
    """
    fmt = None if fmt is None else LNSFormat.of(fmt)
    check_subnormals()
    check_choice("dtype", dtype, FloatType)
    check_choice("rounding", rounding, QuantizerRounding)
    check_choice("axis", axis, Literal["value", "log"])
    check_choice("overflow", overflow, Overflow)
    check_choice("underflow", underflow, Underflow)
    if scales is not None and not (len(scales) == 2 and 0 < scales[0] < scales[1]):
        raise ValueError(f"scales={scales!r} is no range: two sizes, the lesser first, more than 0")
    check_count("drawn", drawn)
    where = f"rounding={rounding!r}{'' if fmt is None else ' with a format'}"
    chosen = choose_laws(laws, QUANTIZER_LAWS, holding_laws(rounding, of_codes=fmt is not None), where)
    callee, _ = find_functions(
        implementation,
        ("quantize",),
        ("quantize",),
        takes=takes,
        timeout=timeout,
        wants="return a float for every float",
        give="give a function that takes an array of floats",
    )
    kept = np.dtype(dtype)
    ask = asking(callee, "quantize", kept, kept)
    callee.law = chosen[0]
    x = _floats(kept, drawn, seed)
    known = None
    if fmt is not None:
        known = Axis(fmt)
        x = np.concatenate([x, chosen_floats(known, kept, drawn, seed)])
    grid = Grid(ask, x)
    if not grid.values.size:
        raise ImplementationError(
            f"quantize gave no finite number for any of {x.size:,} inputs: there is nothing to try"
        )
    rules = None
    if fmt is not None:
        code_rounding = "nearest" if rounding == "either" else rounding
        rules = Rules(fmt, Fraction(0), code_rounding, overflow, underflow)
    asked = Asked(grid, rounding, axis == "log", scales, known, rules)
    x = np.concatenate([x, _around(grid)])

    def batches() -> Iterator[Quantized]:
        for part, steps in in_chunks(x, greatest_step=1 << (8 * kept.itemsize - 3)):
            yield Quantized(ask, part, steps, asked)

    ties = "ties" in chosen and rounding == "nearest" and axis == "value" and fmt is None
    plan = {"quantize": Tried({law: QUANTIZER_LAWS[law] for law in chosen}, batches(), dtype == "float16")}
    return try_laws("quantizers", fmt, callee, plan, order=QUANTIZER_LAWS, notes=grid.notes(ties))
