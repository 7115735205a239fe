"""`check_arithmetic_laws`: the door to the laws of arithmetic on codes."""

from __future__ import annotations

from fractions import Fraction

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.testing.arguments import (
    Names,
    check_count,
    check_policies,
    check_ulp,
    choose_laws,
    find_functions,
    least_ulp,
)
from lnsnum.testing.calling import Takes
from lnsnum.testing.law_suite import DRAWN, try_arithmetic
from lnsnum.testing.laws import LAWS, OPERATIONS, laws_of
from lnsnum.testing.report import LawReport
from lnsnum.testing.spans import Rules


def check_arithmetic_laws(
    implementation: object,
    fmt: LNSFormat | str,
    *,
    max_ulp: float | Fraction | None = None,
    operations: Names = None,
    laws: Names = None,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    drawn_pairs: int = DRAWN,
    seed: int = 0,
    takes: Takes = "auto",
    timeout: float = 60.0,
) -> LawReport:
    """Try the laws of the number system on arithmetic of your own, for instance a model of a hardware adder.

    All laws are tried on all operations, and each law that an operation breaks is reported once, with the simplest
    operands that were found. Formats up to 8 bits are tried with every pair of codes, wider ones with the pairs on
    which arithmetic breaks: `lnsnum.testing.pairs` lists them. The verdict is the same in every run.

    Args:
        implementation: an object, module or mapping with some of `add`, `subtract`, `multiply`, `divide`, or one
            function, where `operations` names one. Each takes two arrays of codes, of fmt.dtype and of one shape, all
            at log_offset 0, and returns such an array; or two codes and returns one; or two int64 tensors of torch.
        fmt: the format, or its name.
        max_ulp: how far from the exact result one may be, in code steps. Unless said otherwise 0.5 under nearest,
            which asks for the right code, and 1 under the other modes. More allows every code in that distance, and
            near half the smallest both zero and the smallest.
        operations: which to try; all that the implementation has unless said otherwise.
        laws: which to try, names from `LAWS`; an approximation may lack `monotonicity` by design.
        rounding: the mode. Under a stochastic one both neighbours are right, and no law compares two results.
        overflow, underflow: what is asked beyond the range, as for `lnsnum.encode`.
        drawn_pairs: how many pairs are drawn for a format of more than 8 bits, besides those that are always tried.
        seed: of the draw.
        takes: "arrays", "elements" or "tensors" where "auto" should not find it out.
        timeout: seconds that one call may last.

    Returns:
        LawReport: over how many inputs each law held, and which operations the implementation lacks.

    Raises:
        LawViolation: an AssertionError; a line for each law and operation, and `violations` with the operands.
        ImplementationError: where a function raises, hangs, or returns no codes in the shape that was asked for.
        TypeError: where the implementation has none of the operations.
        ValueError: where an argument is not known.

    >>> import numpy as np
    >>> from lnsnum.testing.report import LawViolation
    >>> def multiply(a, b):  # forgets the sign of b
    ...     m_a, m_b = (a & 7).astype(int), (b & 7).astype(int)
    ...     return np.where(m_a * m_b == 0, 0, np.clip(m_a + m_b - 4, 1, 7) | a & 8).astype(np.uint8)
    >>> try:
    ...     check_arithmetic_laws(multiply, "lns4f1", operations=["multiply"], laws=["identity"])
    ... except LawViolation as error:
    ...     print(error)
    identity: multiply(4, 12) = 4, that is 1 * (-1) = 1; expected 12 (-1)
    """
    fmt = LNSFormat.of(fmt)
    check_policies(rounding, overflow, underflow)
    spare = check_ulp(max_ulp, fmt, rounding) - least_ulp(rounding)
    check_count("drawn_pairs", drawn_pairs)
    tried_laws = choose_laws(laws, LAWS, laws_of(rounding), f"rounding={rounding!r}")
    callee, tried = find_functions(
        implementation,
        tuple(OPERATIONS),
        operations,
        takes=takes,
        timeout=timeout,
        wants="return a code for every pair of codes",
        give="give it one that takes two arrays of codes, or name the one operation that a function does in "
        "`operations`",
    )
    rules = Rules(fmt, spare, rounding, overflow, underflow)
    return try_arithmetic(callee, tried, tried_laws, rules, drawn_pairs=drawn_pairs, seed=seed)
