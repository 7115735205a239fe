"""Numbers whose position is a real multiple of an integer, moved by a constant: powers of another base, quotients.

    E'  =  factor E - away

Where factor and away are fractions, `lnsnum.operations.linear` has them as integers. Here they are irrational, or too
fine: doubles with a bound of their error, and integers where that leaves the code open.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import HardCase
from lnsnum.kernels.rounding import DOUBT, Target, UInt32Array, pack, settle
from lnsnum.operations.operation import Operand, Result, run


class RealStep(NamedTuple):
    """E' = factor E - away, within error (away + |E'|)."""

    factor: float
    away: float
    error: float


@kernel
def _move(codes, max_magnitude, shift, step, to, random, out, hard):  # type: ignore[no-untyped-def]
    """Fills `out`; returns how many elements are left to integers, their indices in `hard`."""
    stride, random_stride = 0 if shift.size == 1 else 1, 0 if random.size == 1 else 1
    unresolved = 0
    for i in range(codes.size):
        code = np.int64(codes[i])
        m, negative = code & max_magnitude, code > max_magnitude
        if m == 0:
            out[i] = to.sign_bit if negative else 0
            continue
        # on a fine grid E can pass 2^53: rounded by 2^-53 of itself, which the bound covers
        r = step.factor * np.float64(m + shift[i * stride]) - step.away
        # |away| counts beside |r|: where the two parts cancel, the result is small and their errors are not
        error = (step.away + abs(r)) * step.error
        m = settle(np.int64(0), r, error, random[i * random_stride], negative, to)
        if m == DOUBT:
            hard[unresolved] = i
            unresolved += 1
        out[i] = pack(m, np.int64(negative), to.sign_bit)
    return unresolved


def real_step(a: Operand, step: RealStep, case: HardCase, result: Result) -> tuple[Codes, int]:
    """The codes of the moved numbers, correctly rounded; `case` says what each of them is exactly."""

    def fill(to: Target, random: UInt32Array, out: NDArray[Any]) -> NDArray[np.int64]:
        hard = np.empty(out.size, np.int64)
        count = _move(a.codes, a.fmt.max_magnitude, a.shift, step, to, random, out, hard)
        return hard[:count]

    return run(fill, case, result)
