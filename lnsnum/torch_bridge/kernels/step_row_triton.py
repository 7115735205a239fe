"""A weight's row of the step's table, made on the card of numbers that are there: no step of a graph asks the host.

    row     =  addresses, numbers of the weight, keys of (seed, stream, step), `StepScalars`      as `update_triton`'s
    tasks   =  (0, first element, one behind the last) of each program of the step

What changes from step to step (lr, the number of the step, decays, exponent, r) is read where the optimizer's state has
it, so a CUDA graph that was recorded once steps on when it is replayed. Scalars are `step_numbers.fill_scalars` in the
same order, float64 rounded once to float32.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge.kernels import step_numbers
from lnsnum.torch_bridge.kernels.codes_twin import tensors_of
from lnsnum.torch_bridge.kernels.random_words import Part
from lnsnum.torch_bridge.kernels.random_words_triton import keys_of
from lnsnum.torch_bridge.kernels.step_numbers import Rule
from lnsnum.torch_bridge.kernels.triton_launch import block_of, launch, programs
from lnsnum.torch_bridge.kernels.update_triton import (
    BLOCK,
    COLUMNS,
    COUNTS,
    SCALARS,
    TASK,
    Arrays,
    Row,
    format_constants,
)

_TASKS = tl.constexpr(128)
_MOST_RATE, _MOST_DECAY = tl.constexpr(2.0**100), tl.constexpr(2.0**30)


class Changing(NamedTuple):
    """Tensors of one number on the weight's device, as the state of the optimizer has them after the step was
    counted."""

    lr: torch.Tensor
    r: torch.Tensor
    exponent: torch.Tensor
    beta_product: torch.Tensor
    momentum_product: torch.Tensor
    step: torch.Tensor


class Options(NamedTuple):
    """Numbers of a group that a graph has as constants."""

    cap: float
    g_bound: float
    beta: float
    momentum: float
    weight_decay: float


@triton.jit
def _put(row, k: tl.constexpr, x):
    """The k-th of `StepScalars`."""
    tl.store(row + SCALARS + k, x.to(tl.float32).to(tl.int32, bitcast=True).to(tl.int64))


@triton.jit(do_not_specialize=["seed", "stream", "scales", "run", "start", "first", "length", "stride", "group", "line",
                               "across", "size"])  # fmt: skip
def row_kernel(
    table, tasks, codes, gradients, moments, momenta, units, counts, lr, r, exponent, beta_product, momentum_product,
    step, by, seed, stream, scales, run, start, first, length, stride, group, line, across, size, count,
    PAPER: tl.constexpr, CODED: tl.constexpr, TASK: tl.constexpr,
):  # fmt: skip
    """Some of the tasks, and by each program the same row. `by` has the options and what `_constants` makes of them."""
    task = tl.program_id(0) * _TASKS + tl.arange(0, _TASKS)
    begin = task.to(tl.int64) * TASK
    end = tl.minimum(begin + TASK, size)
    tl.store(tasks + task * 3, begin * 0, mask=task < count)
    tl.store(tasks + task * 3 + 1, begin, mask=task < count)
    tl.store(tasks + task * 3 + 2, end, mask=task < count)
    tl.store(table, codes.to(tl.int64))
    tl.store(table + 1, gradients.to(tl.int64))
    tl.store(table + 2, moments.to(tl.int64))
    tl.store(table + 3, momenta.to(tl.int64))
    tl.store(table + 4, units.to(tl.int64))
    tl.store(table + 6, counts.to(tl.int64))
    key0, key1, _, _ = keys_of(tl.load(step).to(tl.uint64), seed.to(tl.uint64), stream.to(tl.uint64))
    tl.store(table + 7, scales.to(tl.int64))
    tl.store(table + 8, run.to(tl.int64))
    tl.store(table + 9, start.to(tl.int64))
    tl.store(table + 10, first.to(tl.int64))
    tl.store(table + 11, length.to(tl.int64))
    tl.store(table + 12, stride.to(tl.int64))
    tl.store(table + 13, key0.to(tl.int64))
    tl.store(table + 14, key1.to(tl.int64))
    tl.store(table + 15, group.to(tl.int64))
    tl.store(table + 16, line.to(tl.int64))
    tl.store(table + 17, across.to(tl.int64))
    one = tl.load(by + 8)
    rate = tl.load(lr).to(tl.float64)
    # a graph cannot refuse: what is no rate moves nothing
    rate = tl.where((rate >= 0.0) & (rate < float("inf")), rate, 0.0)
    decay = rate
    if PAPER:
        rate = rate * tl.load(by + 6) / tl.load(by + 7)
        decay = rate
    else:
        rms = tl.load(r).to(tl.float64)
        kappa = tl.load(by) / tl.where(rms > 0.0, rms, 1.0)
        rate = rate * tl.where((rms > 0.0) & (kappa < 1.0), kappa, one)
    decay = decay * tl.load(by + 4)
    n = tl.load(exponent).to(tl.int64)
    # powers of two by the exponent's field
    power = ((n + 1023) << 52).to(tl.float64, bitcast=True)
    inverse = ((1023 - n) << 52).to(tl.float64, bitcast=True)
    beta, momentum = tl.load(by + 2), tl.load(by + 3)
    _put(table, 0, inverse if CODED else one)
    _put(table, 1, beta)
    _put(table, 2, one - beta)
    _put(table, 3, one / (one - tl.load(beta_product)))
    _put(table, 4, momentum)
    _put(table, 5, one - momentum)
    _put(table, 6, one / (one - tl.load(momentum_product)))
    _put(table, 7, one if CODED else power)
    _put(table, 8, one if CODED else inverse)
    _put(table, 9, tl.load(by + 1))
    _put(table, 10, tl.where(rate < _MOST_RATE, rate, _MOST_RATE))
    _put(table, 11, tl.where(decay < _MOST_DECAY, decay, _MOST_DECAY))


def make_row(
    arrays: Arrays, units: torch.Tensor, walk: Walk, changing: Changing, options: Options, fmt: LNSFormat,
    rule: Rule, seed: int, stream: int, start: int, part: Part,
) -> Row:  # fmt: skip
    """The row and the tasks of one weight: of its codes, gradient, second moment and momentum, and of units on their
    device."""
    codes, _, moment, momentum = arrays
    device, size = codes.device, codes.numel()
    (by,) = tensors_of(codes, constants, fmt, rule, options)
    task = TASK * block_of(size, BLOCK)
    count = -(-size // task)
    row = Row(*(torch.zeros(shape, dtype=torch.int64, device=device) for shape in ((count, 3), COLUMNS.value, COUNTS)))
    launch(
        row_kernel, programs(count, _TASKS.value), device,
        row.table, row.tasks, *arrays[:3], moment if momentum is None else momentum, units, row.counts, *changing, by,
        seed, stream, units.numel(), walk.run, start, *part, *walk[1:], size, count,
        PAPER=rule == "paper", CODED=moment.dtype == torch.uint8, TASK=task,
    )  # fmt: skip
    return row


def keep_constants(codes: torch.Tensor, fmt: LNSFormat, rule: Rule, options: list[float]) -> None:
    """Bring what a step reads of a format and of a group to the codes' card, where it is kept."""
    tensors_of(codes, constants, fmt, rule, Options(*options))
    tensors_of(codes, format_constants, fmt)


@lru_cache(maxsize=64)
def constants(fmt: LNSFormat, rule: Rule, options: Options) -> tuple[NDArray[np.float64]]:
    """The options, g_bound at most what steps take, then 2^F and ln(base) of the paper's rate, behind a place of none,
    and 1: a kernel is given numbers of Python's as float32."""
    bounded = options._replace(g_bound=min(options.g_bound, step_numbers.GREATEST_BOUND))
    steps, log_base = float(1 << fmt.fraction_bits), math.log(fmt.base)
    return (np.array([*bounded, 0.0, steps, log_base, 1.0]),)
