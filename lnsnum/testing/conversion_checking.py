"""`check_conversion_laws`: the door to the laws of conversions between floats and codes."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_choice
from lnsnum.testing.arguments import (
    FloatType,
    Names,
    check_count,
    check_policies,
    check_subnormals,
    check_ulp,
    choose_laws,
    find_functions,
    least_ulp,
)
from lnsnum.testing.calling import Callee, Takes
from lnsnum.testing.conversion_batches import Decoded, Encoded, Recoded
from lnsnum.testing.conversion_inputs import DRAWN, chosen_codes, chosen_floats, in_chunks
from lnsnum.testing.conversion_laws import CONVERSION_LAWS, conversion_laws_of
from lnsnum.testing.pairs import WIDEST_WITH_EVERY_GAP
from lnsnum.testing.positions import Axis
from lnsnum.testing.report import LawReport
from lnsnum.testing.spans import Rules
from lnsnum.testing.trial import Tried, try_laws
from lnsnum.testing.unary import asking

CONVERSIONS = ("encode", "decode", "convert")
"""What is tried."""


class _Conversions:
    """What the batches of both operations are made with."""

    def __init__(self, callee: Callee, rules: Rules, to: LNSFormat | None, dtype: str, drawn: int, seed: int) -> None:
        self.to = to or rules.fmt
        self.rules, self.axis, self.dtype, self.drawn, self.seed = rules, Axis(rules.fmt), dtype, drawn, seed
        floats, codes = np.dtype(dtype), rules.fmt.dtype
        self.ask_encode = asking(callee, "encode", floats, codes)
        self.ask_decode = asking(callee, "decode", codes, floats)
        self.ask_convert = asking(callee, "convert", codes, self.to.dtype)
        self.has_decode = "decode" in callee.functions

    def encoded(self) -> Iterator[Encoded]:
        """What every code is decoded to, by the decode that is there or else the right one, then floats."""
        all_codes = chosen_codes(self.axis, self.drawn, self.seed)
        back = self.ask_decode(all_codes) if self.has_decode else self.axis.values(all_codes, self.dtype)
        floats = chosen_floats(self.axis, np.dtype(self.dtype), self.drawn, self.seed)
        x = np.concatenate([back, floats])
        codes = np.concatenate([all_codes, np.full(floats.shape, -1)])
        for part, code, steps in in_chunks(x, codes, greatest_step=1 << (8 * x.dtype.itemsize - 3)):
            yield Encoded(self.ask_encode, part, code, steps, self.rules, self.axis)

    def decoded(self) -> Iterator[Decoded]:
        """Codes."""
        codes = chosen_codes(self.axis, self.drawn, self.seed)
        for part, steps in in_chunks(codes, greatest_step=self.rules.fmt.max_magnitude):
            yield Decoded(self.ask_decode, part, steps, self.rules, self.axis, self.dtype)

    def recoded(self) -> Iterator[Recoded]:
        """Codes, for another format."""
        rules = self.rules._replace(fmt=self.to)
        codes = chosen_codes(self.axis, self.drawn, self.seed)
        for part, steps in in_chunks(codes, greatest_step=self.rules.fmt.max_magnitude):
            yield Recoded(self.ask_convert, part, steps, self.rules.fmt, rules)


def check_conversion_laws(
    implementation: object,
    fmt: LNSFormat | str,
    *,
    to: LNSFormat | str | None = None,
    dtype: FloatType = "float32",
    max_ulp: float | Fraction | None = None,
    operations: Names = None,
    laws: Names = None,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    drawn: int = DRAWN,
    seed: int = 0,
    takes: Takes = "auto",
    timeout: float = 60.0,
) -> LawReport:
    """Try the laws of conversions on an encoder and a decoder of your own.

        encode: floats -> codes          decode: codes -> floats          convert: codes of fmt -> codes of `to`

    all at log_offset 0.

    Every code of up to 16 bits is tried, every boundary between two, with the floats next to it, every float16 and
    every bfloat16: `lnsnum.testing.conversion_inputs` lists all. The verdict is the same in every run.

    Args:
        implementation: an object, module or mapping with some of `encode`, `decode`, `convert`, or one function, where
            `operations` names one. Each takes one array and returns one, or numbers, or tensors of torch.
        fmt: the format, or its name.
        to: the format that `convert` converts to, or its name; without it convert is not tried. Bases may differ.
        dtype: of the floats.
        max_ulp: how far from the exact logarithm a code may be, in code steps. Unless said otherwise 0.5 under
            nearest, which asks for the right code, and 1 under the other modes. What is more than that is allowed to
            decode too, besides the nearest float.
        operations: which to try; all that the implementation has unless said otherwise.
        laws: which to try, names from `CONVERSION_LAWS`.
        rounding, overflow, underflow: what is asked of encode and convert, as in `lnsnum.encode`.
        drawn: how many floats are drawn, and codes of more than 16 bits, besides those that are always tried.
        seed, takes, timeout: as in `check_arithmetic_laws`.

    Returns:
        LawReport: over how many inputs each law held.

    Raises:
        LawViolation, ImplementationError, TypeError, ValueError: as `check_arithmetic_laws` does.

    >>> import numpy as np
    >>> def encode(x):  # truncates
    ...     with np.errstate(all="ignore"):
    ...         m = np.floor(2 * np.log2(np.abs(x.astype(float)))) + 4
    ...     m = np.where(np.abs(x) < 0.177, 0, np.clip(m, 1, 7))
    ...     return np.where(np.isnan(x), 8, m + 8 * ((x < 0) & (m > 0))).astype(np.uint8)
    >>> try:
    ...     check_conversion_laws({"encode": encode}, "lns4f1", laws=["nan", "error_bound"])
    ... except AssertionError as error:
    ...     print(error)
    error_bound: encode(1.25) = 4 (1); expected 5 (1.41421); it is off by 0.6439 ulp
    """
    fmt = LNSFormat.of(fmt)
    to = None if to is None else LNSFormat.of(to)
    known = CONVERSIONS[:2] if to is None else CONVERSIONS
    if to is None and operations is not None and "convert" in operations:
        raise TypeError("operations has 'convert', but there is no format to convert to: give `to`")
    check_subnormals()
    check_choice("dtype", dtype, FloatType)
    check_policies(rounding, overflow, underflow)
    spare = check_ulp(max_ulp, fmt, rounding) - least_ulp(rounding)
    check_count("drawn", drawn)
    callee, tried = find_functions(
        implementation,
        known,
        operations,
        takes=takes,
        timeout=timeout,
        wants="return a code for every float, a float for every code",
        give="give it one that takes an array, or name the one operation that a function does in `operations`",
    )
    holding = {name: conversion_laws_of(name, rounding) for name in tried}
    all_holding = [law for law in CONVERSION_LAWS if any(law in of_one for of_one in holding.values())]
    under = f"rounding={rounding!r} of {', '.join(tried)}"
    chosen = choose_laws(laws, CONVERSION_LAWS, all_holding, under)
    maker = _Conversions(callee, Rules(fmt, spare, rounding, overflow, underflow), to, dtype, drawn, seed)
    batches: dict[str, Any] = {"encode": maker.encoded, "decode": maker.decoded, "convert": maker.recoded}
    every_code = fmt.bits <= WIDEST_WITH_EVERY_GAP
    whole = {"encode": dtype == "float16", "decode": every_code, "convert": every_code}
    plan = {
        name: Tried({law: CONVERSION_LAWS[law] for law in chosen if law in holding[name]}, batches[name](), whole[name])
        for name in tried
    }
    missing = tuple(name for name in known if name not in callee.functions)
    return try_laws("conversions", fmt, callee, plan, order=CONVERSION_LAWS, missing=missing)
