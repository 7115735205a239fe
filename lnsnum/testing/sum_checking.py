"""`check_sum_laws`: the door to the laws of sums, dot products and matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import numpy as np

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_choice
from lnsnum.testing.arguments import Names, check_policies, choose_laws, find_functions
from lnsnum.testing.calling import Takes
from lnsnum.testing.report import LawReport
from lnsnum.testing.sum_batches import Asking, Function, Sums, expanded
from lnsnum.testing.sum_cases import products_tried, rows_tried
from lnsnum.testing.sum_laws import SUM_LAWS, sum_laws_of
from lnsnum.testing.sum_rounding import FloatName, Order, Stated
from lnsnum.testing.trial import Law, Tried, try_laws

SUMS = ("sum", "dot", "matmul")


def _accumulator(given: object, fmt: LNSFormat) -> LNSFormat | FloatName:
    if given in ("float32", "float64"):
        return given
    try:
        wide = LNSFormat.of(cast(Any, given))
    except (TypeError, ValueError):
        raise ValueError(
            f"accumulator={given!r} is not known: 'float64', 'float32', or a format such as 'lns16f10'"
        ) from None
    if wide.base != fmt.base:
        raise ValueError(f"the accumulator {wide.name} and {fmt.name} have different bases")
    if wide.bits < fmt.bits or wide.fraction_bits < fmt.fraction_bits:
        raise ValueError(
            f"the accumulator {wide.name} is narrower than its terms, of {fmt.name}: take one with at least "
            f"{fmt.bits} bits and {fmt.fraction_bits} fraction bits"
        )
    return wide


def check_sum_laws(
    implementation: object,
    fmt: LNSFormat | str,
    *,
    accumulator: LNSFormat | str = "float64",
    order: Order = "any",
    max_ulp: float | Fraction = Fraction(1, 2),
    operations: Names = None,
    laws: Names = None,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    seed: int = 0,
    takes: Takes = "auto",
    timeout: float = 60.0,
) -> LawReport:
    """Try the laws of sums on a sum, dot product or matrix product of your own, with its accumulator and order.

    An accumulator adds the exact products, placed in its range, and its total is rounded once to the format. Stated as
    an LNS format, each of its additions is correctly rounded (nearest), and as floats those of NumPy are; in a stated
    order that leaves one right code for every row of terms. Where any order will do, what the error bound leaves is
    right, and where nothing is rounded the one code that is. The verdict is the same in every run.

    Args:
        implementation: an object, module or mapping with some of `sum`, `dot`, `matmul`, or one function, where
            `operations` names one. `sum(a)` takes codes of shape (m, n) and returns those of the m rows' sums, `dot(a,
            b)` two of them; or they take vectors of n codes and return one. `matmul(a, b)` takes (M, K) and (K, N) and
            returns (M, N). All are of fmt.dtype and at log_offset 0; or int64 tensors of torch.
        fmt: the format of operands and results, or its name.
        accumulator: "float64", "float32", or a format with the base of `fmt` and at least its bits and fraction bits.
        order: "sequential", ((t_0 + t_1) + t_2) + ...; "pairwise", neighbours first, level by level, an odd one out
            moving up; or "any".
        max_ulp: of an LNS accumulator, how far an addition may be from the exact sum, in steps of it. More than 0.5
            leaves out the laws that ask for one code.
        operations, laws: which to try; all that are there unless said otherwise.
        rounding, overflow, underflow: of the result. The accumulator overflows as the result does, and underflows by
            nearest.
        seed: of the rows that are drawn.
        takes, timeout: as for `check_arithmetic_laws`; "elements" means vectors.

    Returns:
        LawReport: over how many rows each law held.

    Raises:
        LawViolation, ImplementationError, TypeError, ValueError: as `check_arithmetic_laws` does.

    >>> import numpy as np
    >>> from lnsnum import lns8f3, reduction
    >>> from lnsnum.testing.report import LawViolation
    >>> def but_the_last(a):
    ...     return reduction.sum(a[:, :-1], lns8f3, axis=1, accumulator="lns16f10")[0]
    >>> try:
    ...     check_sum_laws(but_the_last, lns8f3, accumulator="lns16f10", operations=["sum"], laws=["single"])
    ... except LawViolation as error:
    ...     print(error)
    single: sum([64]) = 0, that is 0; expected 64 (1)
    """
    fmt = LNSFormat.of(fmt)
    check_policies(rounding, overflow, underflow)
    check_choice("order", order, Order)
    wide = _accumulator(accumulator, fmt)
    ulp = Fraction(max_ulp)
    if not Fraction(1, 2) <= ulp <= fmt.max_magnitude:
        raise ValueError(f"max_ulp={max_ulp!r} is out of range: at least 0.5, which no rounding can better")
    stated = Stated(fmt, wide, order, rounding, overflow, underflow, ulp)
    tried_laws = choose_laws(laws, SUM_LAWS, sum_laws_of(stated), f"rounding={rounding!r}, max_ulp={float(ulp):g}")
    callee, have = find_functions(
        implementation,
        SUMS,
        operations,
        takes=takes,
        timeout=timeout,
        wants="return a code for every row",
        give="give it one that takes arrays of codes, or name the one operation that a function does in `operations`",
    )
    for name in have:
        callee.functions[name] = Function(callee.functions[name], name == "matmul")
    chosen = {name: _of(tried_laws, name) for name in have}
    if not any(chosen.values()):
        raise ValueError(f"laws has {tried_laws[0]!r}, which says nothing of {', '.join(have)}")
    tried = {name: Tried(chosen[name], _batches(Asking(callee, name, stated), seed), False) for name in have}
    missing = tuple(name for name in SUMS if name not in callee.functions)
    return try_laws("sums", fmt, callee, tried, order=SUM_LAWS, missing=missing)


def _of(laws: tuple[str, ...], operation: str) -> dict[str, Law[Sums]]:
    """Those that speak of an operation: a sum has no ones that pick an element."""
    return {law: SUM_LAWS[law] for law in laws if operation != "sum" or law != "identity"}


def _batches(asking: Asking, seed: int) -> Iterator[Sums]:
    if asking.operation == "matmul":
        for a, b in products_tried(asking.stated, seed):
            yield Sums(asking, expanded(a, b), (np.ascontiguousarray(a), np.ascontiguousarray(b)))
        return
    asking.find_out()
    for rows in rows_tried(asking.stated, asking.operation, seed):
        yield Sums(asking, rows)
