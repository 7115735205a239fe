"""`check_laws`: the door to the laws of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_choice
from lnsnum.testing.calling import Callee, Takes
from lnsnum.testing.law_suite import DRAWN, least_ulp, try_arithmetic
from lnsnum.testing.laws import LAWS, OPERATIONS, laws_of
from lnsnum.testing.report import LawReport, LawViolation


def _choose(what: str, given_names: tuple[str, ...] | list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(given_names, str):
        raise TypeError(f"{what}={given_names!r} is a string: give a list of names")
    chosen = known if given_names is None else tuple(given_names)
    for name in chosen:
        if name not in known:
            raise ValueError(f"{what} has {name!r}, which is not known: {', '.join(known)}")
    if not chosen:
        raise ValueError(f"{what} is empty: name at least one of {', '.join(known)}")
    return chosen


def check_arithmetic_laws(
    implementation: object,
    fmt: LNSFormat | str,
    *,
    max_ulp: float | Fraction | None = None,
    operations: tuple[str, ...] | list[str] | None = None,
    laws: tuple[str, ...] | list[str] | None = None,
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
    check_choice("rounding", rounding, Rounding)
    check_choice("overflow", overflow, Overflow)
    check_choice("underflow", underflow, Underflow)
    check_choice("takes", takes, Takes)
    least = least_ulp(rounding)
    asked = least if max_ulp is None else max_ulp
    if not least <= asked <= fmt.max_magnitude:
        raise ValueError(
            f"max_ulp={max_ulp!r} is out of range: at least {float(least):g}, which no rounding can better"
        )
    if not timeout > 0:
        raise ValueError(f"timeout={timeout!r} is out of range: more than 0 seconds")
    if drawn_pairs < 0:
        raise ValueError(f"drawn_pairs={drawn_pairs!r} is out of range: 0 or more")
    wanted = _choose("operations", operations, tuple(OPERATIONS))
    tried_laws = _choose("laws", laws, tuple(LAWS))
    holding = laws_of(rounding)
    if laws is None:
        tried_laws = holding
    elif lost := [law for law in tried_laws if law not in holding]:
        raise ValueError(f"laws has {lost[0]!r}, which does not hold under rounding={rounding!r}: {', '.join(holding)}")
    callee = Callee(implementation, tuple(OPERATIONS), None if operations is None else wanted, takes, timeout)
    have = tuple(callee.functions)
    lacking = [name for name in wanted if name not in have]
    if not have or (operations is not None and lacking):
        has_none = "there is no function" if isinstance(implementation, Mapping) else "has no method"
        who = "" if isinstance(implementation, Mapping) else f"{type(implementation).__name__} "
        raise TypeError(
            f"{who}{has_none} {', '.join(lacking)}: "
            "give it one that takes two arrays of codes, or name the one operation that a function does in `operations`"
        )
    tried = tuple(name for name in wanted if name in have)
    report = try_arithmetic(
        callee,
        fmt,
        tried,
        tried_laws,
        max_ulp=asked,
        rounding=rounding,
        overflow=overflow,
        underflow=underflow,
        drawn_pairs=drawn_pairs,
        seed=seed,
    )
    if report.violations:
        raise LawViolation(report)
    return report
