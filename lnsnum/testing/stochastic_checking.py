"""`check_stochastic_laws`: the door to the laws of stochastic rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal

import numpy as np

from lnsnum.format import LNSFormat, Overflow, Underflow, check_choice
from lnsnum.testing.arguments import FloatType, Names, check_subnormals, choose, find_functions
from lnsnum.testing.calling import Callee, Takes
from lnsnum.testing.foreign import Array
from lnsnum.testing.positions import Axis
from lnsnum.testing.random_counts import AskWords
from lnsnum.testing.report import LawReport
from lnsnum.testing.spans import Ints, Rules
from lnsnum.testing.stochastic_laws import STOCHASTIC_LAWS, Rounded, values_tried
from lnsnum.testing.trial import Tried, try_laws

StochasticRounding = Literal["stochastic_value", "stochastic_log"]
"""In what the rounding is unbiased."""


def _asking(callee: Callee, fmt: LNSFormat, own_words: bool, reseed: Callable[[int], object] | None) -> AskWords:
    """Codes of values with a word each; what draws its own numbers is given none, and a seed of its own each time."""
    calls = 0

    def ask(x: Array, words: Array) -> Ints:
        nonlocal calls
        if reseed is not None:
            reseed(calls)
            calls += 1
        inputs = (x,) if own_words else (x, words)
        out: Ints = callee(
            "encode", inputs, fmt.dtype, lambda i: f"encode({', '.join(str(part[i]) for part in inputs)})"
        )
        return out

    return ask


def check_stochastic_laws(
    implementation: object,
    fmt: LNSFormat | str,
    *,
    rounding: StochasticRounding = "stochastic_value",
    random_bits: int | None = 32,
    max_bias: float | None = None,
    dtype: FloatType = "float32",
    laws: Names = None,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    reseed: Callable[[int], object] | None = None,
    seed: int = 0,
    takes: Takes = "auto",
    timeout: float = 60.0,
) -> LawReport:
    """Try the laws of stochastic rounding on an encoder of your own, counting exactly where its random words are given.

        encode: floats, words -> codes              or, where it draws its own random numbers,       floats -> codes

    Of words up to 16 bits all are counted, for as many values as there is time for; of others, and of the rest of the
    values, the word is found by bisection from which on the result is another, and words beside it must agree. Where
    they do not, and where the function draws its own numbers, its frequencies are tested: the probability of a false
    alarm is below 10^-9, all tests together, by Chernoff's bound. `notes` of the report says which of these it was.

    Args:
        implementation: a function `encode`, or an object or mapping that has it by this name. It takes an array of
            floats and one of words, uint32, and returns an array of codes; or numbers, or tensors of torch.
        fmt: the format, or its name.
        rounding: whether it is unbiased in the value or in the logarithm.
        random_bits: how wide the words are, 1 to 32; None where it draws its own random numbers.
        max_bias: how far the probability of the upper code may be from the exact one, 2^-random_bits unless said
            otherwise. A function that uses fewer bits than it is given needs more.
        dtype: of the floats.
        laws: which to try, names from `STOCHASTIC_LAWS`.
        overflow, underflow: as in `lnsnum.encode`.
        reseed: called with another integer before every call, such as `torch.manual_seed`: the verdict on what draws
            its own numbers is then the same in every run.
        seed, takes, timeout: as in `check_conversion_laws`.

    Returns:
        LawReport: over how many values each law held, and `notes`.

    Raises:
        LawViolation, ImplementationError, TypeError, ValueError: as `check_arithmetic_laws` does.

    >>> from lnsnum import encode, lns8f3
    >>> def with_8_bits(x, words):
    ...     return encode(x, lns8f3, rounding="stochastic_value", random_bits=words << 24)
    >>> report = check_stochastic_laws(with_8_bits, lns8f3, random_bits=8)
    >>> print(report.notes[0])
    counted over all 256 words for 4,095 values
    """
    fmt = LNSFormat.of(fmt)
    check_choice("rounding", rounding, StochasticRounding)
    check_subnormals()
    check_choice("dtype", dtype, FloatType)
    check_choice("overflow", overflow, Overflow)
    check_choice("underflow", underflow, Underflow)
    if random_bits is not None and (isinstance(random_bits, bool) or random_bits not in range(1, 33)):
        raise ValueError(f"random_bits={random_bits!r} is out of range: 1 to 32, or None for its own")
    bias = 2.0 ** -(random_bits or 32) if max_bias is None else float(max_bias)
    if not 0 <= bias < 1:
        raise ValueError(f"max_bias={max_bias!r} is out of range: 0 to 1")
    chosen = choose("laws", laws, STOCHASTIC_LAWS)
    callee, _ = find_functions(
        implementation,
        ("encode",),
        ("encode",),
        takes=takes,
        timeout=timeout,
        wants="return a code for every float",
        give="give a function that takes an array of floats and one of random words",
    )
    callee.law = chosen[0]
    axis = Axis(fmt)
    rules = Rules(fmt, Fraction(0), rounding, overflow, underflow)
    x = values_tried(axis, np.dtype(dtype), seed)
    batch = Rounded(_asking(callee, fmt, random_bits is None, reseed), x, rules, axis, random_bits, bias)
    notes = (batch.counts.note,)

    def batches() -> Iterator[Rounded]:
        yield batch

    plan = {"encode": Tried({law: STOCHASTIC_LAWS[law] for law in chosen}, batches(), False)}
    return try_laws("stochastic", fmt, callee, plan, order=STOCHASTIC_LAWS, notes=notes)
