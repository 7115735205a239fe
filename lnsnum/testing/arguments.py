"""What the doors of all kinds ask of their arguments: known names, numbers in range, functions that are there."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_choice
from lnsnum.testing.calling import Callee, Takes

FloatType = Literal["float64", "float32", "float16"]
"""A type of floats."""

Names = Sequence[str] | None
"""Names that are chosen, or None for all."""


def check_names(what: str, given: object) -> None:
    """TypeError where it is no list of names, a string above all."""
    if isinstance(given, str):
        raise TypeError(f"{what}={given!r} is a string: give a list of names")
    if not isinstance(given, Iterable):
        raise TypeError(f"{what}={given!r} is a {type(given).__name__}: give a list of names")


def check_timeout(timeout: float) -> None:
    """ValueError where no thread can wait for so many seconds: some, and not for ever."""
    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValueError(
            f"timeout={timeout!r} is out of range: more than 0 seconds, at most {threading.TIMEOUT_MAX:.0f}"
        )


def choose(what: str, given: Names, known: Iterable[str]) -> tuple[str, ...]:
    """The names that are given, or all that are known.

    Raises:
        TypeError: for a string, and for what is no list.
        ValueError: for a name that is not known, and for no name at all.
    """
    known = tuple(known)
    if given is not None:
        check_names(what, given)
    chosen = known if given is None else tuple(given)
    for name in chosen:
        if name not in known:
            raise ValueError(f"{what} has {name!r}, which is not known: {', '.join(known)}")
    if not chosen:
        raise ValueError(f"{what} is empty: name at least one of {', '.join(known)}")
    return chosen


def choose_laws(given: Names, known: Iterable[str], holding: Sequence[str], where: str) -> tuple[str, ...]:
    """The laws that are given, which must hold `where`; else all that do. ValueError and TypeError as in `choose`."""
    chosen = choose("laws", given, known)
    if given is None:
        return tuple(holding)
    if lost := [law for law in chosen if law not in holding]:
        raise ValueError(f"laws has {lost[0]!r}, which does not hold under {where}: {', '.join(holding)}")
    return chosen


def least_ulp(rounding: Rounding) -> Fraction:
    """How far a correctly rounded result may be from the exact one: half a step under nearest, else one."""
    return Fraction(1, 2) if rounding == "nearest" else Fraction(1)


def check_ulp(max_ulp: float | Fraction | None, fmt: LNSFormat, rounding: Rounding) -> Fraction:
    """How far a result may be from the exact one, the least that a rounding leaves unless said otherwise.

    Raises:
        ValueError: where no rounding can keep it, or it is more than the format's range.
    """
    least = least_ulp(rounding)
    asked = least if max_ulp is None else max_ulp
    if not least <= asked <= fmt.max_magnitude:
        raise ValueError(
            f"max_ulp={max_ulp!r} is out of range: at least {float(least):g}, which no rounding can better"
        )
    return Fraction(asked)


def check_count(what: str, count: int) -> None:
    """ValueError where a number of draws is negative, TypeError where it is no integer."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{what}={count!r} is a {type(count).__name__}: give an integer, 0 or more")
    if count < 0:
        raise ValueError(f"{what}={count!r} is out of range: 0 or more")


def check_policies(rounding: str, overflow: str, underflow: str) -> None:
    """ValueError where one of them is not known."""
    check_choice("rounding", rounding, Rounding)
    check_choice("overflow", overflow, Overflow)
    check_choice("underflow", underflow, Underflow)


def check_subnormals() -> None:
    """RuntimeError where the processor is set to flush subnormal floats: what is right for them could not be told."""
    least = np.array([5e-324])
    if (least * 1.0)[0] == 0.0:
        raise RuntimeError(
            "this thread's processor is set to flush subnormal floats to zero: set it back, for instance by "
            "torch.set_flush_denormal(False), and flush in your own function alone"
        )


def find_functions(
    implementation: object,
    known: tuple[str, ...],
    operations: Names,
    *,
    takes: Takes,
    timeout: float,
    wants: str,
    give: str,
) -> tuple[Callee, tuple[str, ...]]:
    """The functions of an implementation that are wanted and there, and their names.

    Args:
        implementation: an object, a mapping or a function.
        known: the names that functions may have.
        operations: those that are to be tried; unless said otherwise, all that are there.
        takes, timeout: as in `Callee`.
        wants: what a function should return, for what is said of one that raises.
        give: what to do where there is no function, for the sentence that says so.

    Raises:
        TypeError: where none is there, or one of `operations` is not.
        ValueError: where an argument is not known.
    """
    check_choice("takes", takes, Takes)
    check_timeout(timeout)
    wanted = choose("operations", operations, known)
    callee = Callee(implementation, known, None if operations is None else wanted, takes, timeout, wants)
    have = tuple(callee.functions)
    lacking = [name for name in wanted if name not in have]
    if not have or (operations is not None and lacking):
        has_none = "there is no function" if isinstance(implementation, Mapping) else "has no method"
        who = "" if isinstance(implementation, Mapping) else f"{type(implementation).__name__} "
        raise TypeError(f"{who}{has_none} {', '.join(lacking)}: {give}")
    return callee, tuple(name for name in wanted if name in have)
