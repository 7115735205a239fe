"""Sums in every mode, and what arrays are used for beside arithmetic: comparisons, sorting, sums; and small calls.

Small calls are whole ones, of an operator on LNSTensors, beside the same one on arrays of float32.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.performance.cases import OWN, Call, Case
from benchmarks.performance.kernels import NEAREST, NUMPY, Numbers, Sides
from lnsnum import LNSFormat, LNSTensor, arithmetic, decode, lns8f3, lns16f10, lns32f23, random_bits

FLOAT32, SMALL = "lnsnum, float32", 1000

SMALL_CALLS: dict[str, Callable[[Any, Any], object]] = {
    "x + y": operator.add,
    "x * 2": lambda x, y: x * 2,
    "x.sum()": lambda x, y: x.sum(),
}


def adding(fmt: LNSFormat, *modes: str) -> Sides:
    """Sums in some modes, the first our own, and to nearest."""

    def by(mode: str, n: Numbers) -> Call:
        bits = {"random_bits": random_bits(n.size, seed=1)} if mode.startswith("stochastic") else {}
        return functools.partial(arithmetic.add, *n.pair(fmt), fmt, rounding=mode, **bits)

    sides: Sides = {OWN if mode == modes[0] else f"lnsnum, {mode}": functools.partial(by, mode) for mode in modes}
    return sides | {NEAREST: functools.partial(by, "nearest")}


def tensors(n: Numbers, fmt: LNSFormat) -> tuple[LNSTensor, LNSTensor]:
    """x and y."""
    x, y = (LNSTensor(codes, fmt) for codes in n.pair(fmt))
    return x, y


def calling(function: Callable[[Any, Any], object], fmt: LNSFormat) -> Sides:
    """A function of two arrays, on tensors and on floats."""
    return {
        OWN: lambda n: functools.partial(function, *tensors(n, fmt)),
        NUMPY: lambda n: functools.partial(function, n.x, n.y),
    }


def cases() -> list[Case]:
    """All of them."""
    found = []
    for fmt in (lns8f3, lns16f10, lns32f23):
        each = 3 * fmt.bits // 8
        directed, random = adding(fmt, "toward_zero", "up"), adding(fmt, "stochastic_log", "stochastic_value")
        step = "1 Gaussian logarithm" if fmt.bits > 16 else "1 table look-up"
        found += [
            Case(
                f"add {fmt.name}, directed", NEAREST, directed, Numbers, lambda n, each=each: each * n,
                f"1 comparison, {step}, 1 addition",
            ),
            Case(
                f"add {fmt.name}, stochastic", NEAREST, random, Numbers, lambda n, each=each: (each + 4) * n,
                f"1 comparison, {step}, 1 comparison with a random word, 1 addition",
            ),
        ]  # fmt: skip
    wide = {
        OWN: lambda n: functools.partial(decode, n.codes(lns32f23), lns32f23),
        FLOAT32: lambda n: functools.partial(decode, n.codes(lns32f23), lns32f23, "float32"),
    }
    found += [
        Case("x < y lns8f3", NUMPY, calling(operator.lt, lns8f3), Numbers, lambda n: 3 * n, "1 comparison"),
        Case("x < y lns32f23", NUMPY, calling(operator.lt, lns32f23), Numbers, lambda n: 9 * n, "1 comparison"),
        Case("sort lns8f3", NUMPY, calling(lambda x, y: np.sort(x), lns8f3), Numbers, lambda n: 2 * n, "1 count"),
        Case("decode lns32f23 to float64", FLOAT32, wide, Numbers, lambda n: 12 * n, "1 power as two doubles"),
        Case(
            "sum lns32f23", NUMPY, calling(lambda x, y: x.sum(), lns32f23), Numbers, lambda n: 4 * n,
            "1 power as two doubles, 1 addition",
        ),
    ]  # fmt: skip
    for fmt in (lns8f3, lns16f10, lns32f23):
        for name, function in SMALL_CALLS.items():
            found.append(
                Case(
                    f"{name} {fmt.name}, a small call", NUMPY, calling(function, fmt), Numbers,
                    lambda n, each=fmt.bits // 8: 3 * each * n, "1 operator of Python", sizes=(10, 100, SMALL),
                    unit="call", count=lambda n: 1,
                )
            )  # fmt: skip
    return found
