"""One launch of Madam's step over a list of weights: a table of where their memory is, and the numbers of each.

    begin     each weight's clock: step, products of the decays, and from them its scalars
    run       `update`'s step, on a stretch of all elements laid end to end
    end       each weight's counts, and what is left to be done: an exponent to raise, a ceiling to look at

A model has hundreds of small tensors, and a call from Python costs as much as a step of thousands of weights. Here it
is paid once; what a weight's step is, `update` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from lnsnum.kernels.addresses import array_at
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge.kernels import ceiling
from lnsnum.torch_bridge.kernels.moments import NO_EXPONENT, exponent_of, greatest_gradient, octaves_to_raise
from lnsnum.torch_bridge.kernels.random_words import Draw, Part
from lnsnum.torch_bridge.kernels.step_numbers import StepNumbers, StepScalars, fill_scalars, kappa_of
from lnsnum.torch_bridge.kernels.update import step_part

ROW = np.dtype(
    [
        # addresses; a gradient of 0 leaves a weight as it is
        *((name, np.int64) for name in ("codes", "gradient", "moment", "momentum", "units")),
        # addresses of numbers of its state
        *((name, np.int64) for name in ("step", "beta_product", "momentum_product", "exponent", "counts")),
        # its elements, units, how elements find them (a `Walk`), greatest first exponent, and place in the optimizer
        *((name, np.int64) for name in ("size", "scales", *Walk._fields, "greatest_exponent", "stream")),
        # of a shard, where it is within the whole: a `Part`
        *((name, np.int64) for name in ("first", "row_length", "stride")),
        ("r", np.float64),
    ]
)
"""What is known of a weight between steps."""

PARTIAL = 7
"""What is counted of a part: `StepCounts`, and the bits of its greatest |gradient|."""

RAISE, LOOK = 1, 2
"""Left to be done: gradients have outgrown the exponent; many codes are at the ceiling."""


def _momentum_at(address: Any, size: Any, like: Any) -> Any:
    """The momentum at an address; None like None."""
    return None if like is None else array_at(address, size, like.dtype)


@overload(_momentum_at)
def _momentum_at_in_kernels(address, size, like):  # type: ignore[no-untyped-def]
    if isinstance(like, types.NoneType):
        return lambda address, size, like: None
    return lambda address, size, like: array_at(address, size, like.dtype)


@kernel
def begin(table, lr, cap, g_bound, beta, momentum, weight_decay, codes_in_octave, log_base, likes, scalars):  # type: ignore[no-untyped-def]
    """Advance the clock of each weight that has a gradient, and write its scalars; see `step_numbers.fill_scalars`."""
    coded = likes[1].itemsize == 1
    scaled = coded or likes[2] is not None
    for k in range(table.size):
        row = table[k]
        if row.gradient == 0:
            continue
        step, exponent = array_at(row.step, 1, np.int64), array_at(row.exponent, 1, np.int32)
        beta_product = array_at(row.beta_product, 1, np.float64)
        momentum_product = array_at(row.momentum_product, 1, np.float64)
        step[0] += 1
        beta_product[0] *= beta
        momentum_product[0] *= momentum
        if scaled and exponent[0] == NO_EXPONENT:
            greatest = greatest_gradient(array_at(row.gradient, row.size, np.float32))
            exponent[0] = min(exponent_of(greatest), row.greatest_exponent)
        power = np.int64(exponent[0]) if exponent[0] != NO_EXPONENT else 0
        numbers = StepNumbers(
            lr, kappa_of(cap, row.r), power, beta_product[0], momentum_product[0], g_bound, beta, momentum, weight_decay
        )
        fill_scalars(numbers, codes_in_octave, log_base, coded, scalars[k])


@kernel
def run(table, firsts, scalars, start, stop, likes, mode, zero, grid, seed, counts):  # type: ignore[no-untyped-def]
    """Step the elements from `start` to before `stop`, of all weights laid end to end: weight k begins at firsts[k].

    `counts` (weights, PARTIAL) are those of this stretch.
    """
    k = np.searchsorted(firsts, start, side="right") - 1
    while k < table.size and firsts[k] < stop:
        row, s = table[k], scalars[k]
        first = firsts[k]
        low, high = max(start - first, 0), min(stop - first, row.size)
        if row.gradient != 0 and high > low:
            by = StepScalars(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11])
            n = high - low
            part = step_part(
                array_at(row.codes + low * likes[0].itemsize, n, likes[0].dtype),
                array_at(row.gradient + 4 * low, n, np.float32),
                array_at(row.moment + low * likes[1].itemsize, n, likes[1].dtype),
                _momentum_at(row.momentum + low, n, likes[2]),
                by,
                mode,
                zero,
                grid,
                array_at(row.units, row.scales, np.float32),
                Walk(row.run, row.group, row.length, row.across),
                Draw(seed, row.stream, array_at(row.step, 1, np.int64)[0]),
                Part(row.first, row.row_length, row.stride),
                low,
            )
            for i in range(PARTIAL):
                counts[k, i] = part[i]
        k += 1


@kernel
def end(table, counts, follows, left):  # type: ignore[no-untyped-def]
    """Write what each weight's step did to its counts (zeros where there was none), and what is left to do."""
    for k in range(table.size):
        row = table[k]
        left[k] = 0
        own = array_at(row.counts, 8, np.int64)
        own[0] = row.size if row.gradient != 0 else 0
        for i in range(5):
            own[1 + i] = counts[k, i]
        own[6], own[7] = 0, counts[k, 5]
        if row.gradient == 0:
            continue
        exponent, at_ceiling = np.int64(array_at(row.exponent, 1, np.int32)[0]), counts[k, 1]
        if exponent != NO_EXPONENT and octaves_to_raise(counts[k, 6], exponent) > 0:
            left[k] |= RAISE
        # of several scales one may have too many where all together have few
        many = at_ceiling >= 2 and (row.scales > 1 or ceiling.SHARE * at_ceiling > row.size)
        if follows and many and array_at(row.step, 1, np.int64)[0] % ceiling.EVERY == 0:
            left[k] |= LOOK


def likes_of(codes: Any, moment: Any, momentum: Any) -> tuple[NDArray[Any] | None, ...]:
    """Empty arrays, by which kernels know the dtypes of codes, moment and momentum, None for none."""
    return tuple(None if dtype is None else np.empty(0, dtype) for dtype in (codes, moment, momentum))
