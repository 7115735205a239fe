"""Madam's step in Triton, of a list of weights in one launch: `update.step_part`, operation by operation.

    task      a weight and a stretch of its elements                        one program each
    table     a row for each weight: where its memory is, and its numbers   int64; floats as their bits
    units     those of all weights, behind the table                        float32

Table and units go to the card in one copy, and what was counted comes back in another. Gradient, codes and moments are
read once and written once. What is counted is added up as integers, so no order of the programs changes it. Weights of
one launch have one kind: where addresses and sizes are multiples of 16 all is read in vectors, and where no index is
beyond 31 bits, quotients of it are of 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge.kernels import grid, hypentropy, hypentropy_triton, paper_triton
from lnsnum.torch_bridge.kernels.codes_twin import tensors_of
from lnsnum.torch_bridge.kernels.moments_triton import load_moment, load_momentum, moment_code, momentum_code
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part, draw_keys
from lnsnum.torch_bridge.kernels.random_words_triton import words_of
from lnsnum.torch_bridge.kernels.step_numbers import Choices, StepScalars
from lnsnum.torch_bridge.kernels.triton_launch import ALIGNMENT, NARROW, as_float32, block_of, is_aligned, launch
from lnsnum.torch_bridge.kernels.update import modes_of

TASK = 16
"""Blocks that a program steps one after the other, fewer than 32: what it counts, it adds to the weight's counts
once."""

BLOCK = 1024
"""Eight elements a thread: with more of them the registers do not suffice."""

COUNTS = 8
"""A weight's counts: moved, at the ceiling, at the floor, zero, changed in sign, gradients not finite; the bits of the
greatest finite |gradient|; and one for alignment."""

COLUMNS = tl.constexpr(32)
SCALARS = tl.constexpr(20)
"""Where a row of the table has `StepScalars`."""
_LEAST_NORMAL = tl.constexpr(2.0**-126)
_GREATEST_GRADIENT = tl.constexpr(2.0**60)
_SIZE, _INFINITY = tl.constexpr(0x7FFFFFFF), tl.constexpr(0x7F800000)
_OF_WHOLE, _OF_PART, _OF_ROWS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


Arrays = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Codes, gradient, second moment and momentum of a weight."""


class Row(NamedTuple):
    """One weight's row of the table, its tasks, and where its steps are counted, on its card."""

    tasks: torch.Tensor
    table: torch.Tensor
    counts: torch.Tensor


class Stepped(NamedTuple):
    """A weight as a launch takes it: tensors on one device, contiguous, written in place."""

    codes: torch.Tensor
    gradient: torch.Tensor
    """float32, bfloat16 or float16: read as float32, exactly."""
    second_moment: torch.Tensor
    momentum: torch.Tensor | None
    units: NDArray[np.float32]
    """Element i has units[i // walk.run % units.size], or as a `walk` of groups says."""
    walk: Walk
    scalars: StepScalars
    draw: Draw
    start: int = 0
    rows: torch.Tensor | None = None
    part: Part = WHOLE


class _Kind(NamedTuple):
    """What differs between two kernels that are compiled from one text."""

    gradient: torch.dtype
    moment: torch.dtype
    momentum: bool
    place: int
    channels: bool
    groups: bool
    aligned: bool
    wide: bool


@triton.jit
def _number(row, k: tl.constexpr):
    """The k-th of `StepScalars`."""
    return tl.load(row + SCALARS + k).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _clamp(x, bound):
    x = tl.where(x < bound, x, bound)
    return tl.where(x > -bound, x, -bound)


@triton.jit
def step_kernel(
    tasks, table, by, inverses, up, terms,
    CODE: tl.constexpr, GRADIENT: tl.constexpr, BITS: tl.constexpr, MOMENT: tl.constexpr, CODED: tl.constexpr,
    MOMENTUM: tl.constexpr, PLACE: tl.constexpr, CHANNELS: tl.constexpr, GROUPS: tl.constexpr, ALIGNED: tl.constexpr,
    WIDE: tl.constexpr, MODE: tl.constexpr, ZERO: tl.constexpr, MORE: tl.constexpr,
    FRACTION_BITS: tl.constexpr, SPLIT: tl.constexpr, TOP: tl.constexpr, DRAWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One task. `MODE` is the paper's rounding, -1 of the other rule, whose `ZERO` is whether zeros are kept; of the
    paper's it is whether they leave. `SPLIT` says that `inverses` are of one octave, else they are of all codes."""
    task = tl.program_id(0).to(tl.int64) * 3
    row = table + tl.load(tasks + task) * COLUMNS
    first, last = tl.load(tasks + task + 1), tl.load(tasks + task + 2)
    codes = tl.load(row).to(tl.pointer_type(CODE))
    gradients = tl.load(row + 1).to(tl.pointer_type(GRADIENT))
    moments = tl.load(row + 2).to(tl.pointer_type(MOMENT))
    momenta = tl.load(row + 3).to(tl.pointer_type(tl.uint8))
    units, rows = tl.load(row + 4).to(tl.pointer_type(tl.float32)), tl.load(row + 5).to(tl.pointer_type(tl.int64))
    counts = tl.load(row + 6).to(tl.pointer_type(tl.int64))
    scales, inner, start, place = tl.load(row + 7), tl.load(row + 8), tl.load(row + 9), tl.load(row + 10)
    length, stride = tl.load(row + 11), tl.load(row + 12)
    key0, key1 = tl.load(row + 13).to(tl.uint32), tl.load(row + 14).to(tl.uint32)
    group, line, across = tl.load(row + 15), tl.load(row + 16), tl.load(row + 17)
    if ALIGNED:
        codes, gradients = tl.multiple_of(codes, 16), tl.multiple_of(gradients, 16)
        moments, momenta = tl.multiple_of(moments, 16), tl.multiple_of(momenta, 16)
        first, last = tl.multiple_of(first, 16), tl.multiple_of(last, 16)
    gradient_scale, beta, rest, correction = _number(row, 0), _number(row, 1), _number(row, 2), _number(row, 3)
    momentum, momentum_rest, momentum_correction = _number(row, 4), _number(row, 5), _number(row, 6)
    momentum_load, momentum_store = _number(row, 7), _number(row, 8)
    g_bound, rate, decay = _number(row, 9), _number(row, 10), _number(row, 11)
    if not WIDE:
        scales, inner, start, place = scales.to(tl.int32), inner.to(tl.int32), start.to(tl.int32), place.to(tl.int32)
        length, stride = length.to(tl.int32), stride.to(tl.int32)
        group, line, across = group.to(tl.int32), line.to(tl.int32), across.to(tl.int32)
    lane = tl.arange(0, BLOCK)
    tally, greatest = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
    for turn in range((last - first + (BLOCK - 1)).to(tl.int32) // BLOCK):
        at = first + turn * BLOCK
        # 64 bits in what is added to addresses once, 32 for each element
        mask = lane < (last - at).to(tl.int32)
        raw = as_float32(tl.load(gradients + at + lane, mask=mask, other=0), BITS)
        code = tl.load(codes + at + lane, mask=mask, other=0).to(tl.int32) & (2 * TOP + 1)
        held = tl.load(moments + at + lane, mask=mask, other=0)

        i = at + lane.to(tl.int64) if WIDE else at.to(tl.int32) + lane
        j = start + i
        index = place + j
        if PLACE == _OF_PART:
            index = place + j // length * stride + j % length
        if PLACE == _OF_ROWS:
            index = tl.load(rows + i // length, mask=mask, other=0) * length + i % length
            j = index
        word = tl.zeros([BLOCK], tl.uint32)
        if DRAWS:
            word = words_of(index, key0, key1, WIDE)

        # |g| as the integer of its bits: infinity and NaN are the greatest
        size = raw.to(tl.int32, bitcast=True) & _SIZE
        finite = size < _INFINITY
        g = _clamp(tl.where(finite, raw * gradient_scale, 0.0), _GREATEST_GRADIENT)
        v = held.to(tl.float32)
        if CODED:
            v = load_moment(held.to(tl.int32))
        new = beta * v + rest * (g * g)
        corrected = new * correction
        root = tl.sqrt_rn(tl.where(corrected > _LEAST_NORMAL, corrected, _LEAST_NORMAL))
        u = g
        if MOMENTUM:
            held_momentum = tl.load(momenta + at + lane, mask=mask, other=0).to(tl.int32)
            u = momentum * load_momentum(held_momentum, momentum_load) + momentum_rest * g
            g = u * momentum_correction
        g_hat = _clamp(tl.div_rn(g, root), g_bound)
        drive = tl.where(new >= _LEAST_NORMAL, g_hat, 0.0) * rate
        # NaN is the mark by which the rules leave an element
        drive = tl.where(finite, drive, float("nan"))

        m = code & TOP
        if MODE < 0:
            unit = tl.load(units)
            if CHANNELS:
                own = j // inner
                if GROUPS:  # as `lnsnum.kernels.scales.Walk` has them
                    k = own // across % line
                    own = (own // across // line * ((line + group - 1) // group) + k // group) * across + own % across
                unit = tl.load(units + own % scales, mask=mask, other=0.0)
            if SPLIT:
                # 1 / X of an octave, and what is above it taken off the exponent's field
                pattern = tl.load(inverses + ((m - 1) & ((1 << FRACTION_BITS) - 1)))
                inverse = (pattern - (((m - 1) >> FRACTION_BITS) << 23)).to(tl.float32, bitcast=True)
                inverse = tl.where(m > 0, inverse, tl.where(code == 0, 1.0, float("nan")))
            else:
                inverse = tl.load(inverses + code).to(tl.float32, bitcast=True)
            out = hypentropy_triton.move(code, drive, unit, inverse, decay, word, by, ZERO, MORE, TOP)
        else:
            out = paper_triton.move(code, drive, decay, word, up, terms, MODE, ZERO, TOP)

        tl.store(codes + at + lane, out.to(CODE), mask=mask)
        stored = new
        if CODED:
            stored = moment_code(new, word).to(tl.uint8)
        tl.store(moments + at + lane, tl.where(finite, stored, held), mask=mask)
        if MOMENTUM:
            stored_momentum = momentum_code(u, word, momentum_store)
            tl.store(momenta + at + lane, tl.where(finite, stored_momentum, held_momentum).to(tl.uint8), mask=mask)

        n = out & TOP
        crossed = ((out > TOP) != (code > TOP)) & (n > 0) & (m > 0)
        # what is counted goes into fields of one number for each lane: a program has fewer turns than a field holds
        seen = tl.where(out != code, 1, 0) | tl.where(n == TOP, 1 << 5, 0) | tl.where(n == 1, 1 << 10, 0)
        seen = seen | tl.where(out == 0, 1 << 15, 0) | tl.where(crossed, 1 << 20, 0) | tl.where(finite, 0, 1 << 25)
        tally += tl.where(mask, seen, 0)
        # of what the mask leaves out the gradient is 0
        size = tl.where(finite, size, 0)
        greatest = tl.where(size > greatest, size, greatest)
    for k in tl.static_range(6):
        count = tl.sum((tally >> (5 * k)) & 31)
        tl.atomic_add(counts + k, count.to(tl.int64), mask=count > 0)
    most = tl.max(greatest)
    tl.atomic_max(counts + 6, most.to(tl.int64), mask=most > 0)


TRITON_TYPES: dict[torch.dtype, Any] = {
    torch.uint8: tl.uint8,
    torch.int16: tl.int16,
    torch.float32: tl.float32,
    torch.bfloat16: tl.int16,  # as `as_float32` takes it
    torch.float16: tl.float16,
}
"""What a kernel is told of the memory behind an address."""

GRADIENTS = torch.float32, torch.bfloat16, torch.float16
"""What gradients are read as they are."""


def step_list(weights: Sequence[Stepped], fmt: LNSFormat, choices: Choices) -> torch.Tensor:
    """Step weights of one format, in place, in one launch for each kind that there is of them.

    Returns:
        int64 (weights, 7), on their device: `StepCounts`, and the bits of the greatest finite |gradient|.
    """
    if choices.rule == "hypentropy":
        hypentropy.check_format(fmt)
    device = weights[0].codes.device
    counts = torch.zeros((len(weights), COUNTS), dtype=torch.int64, device=device)
    kinds: dict[_Kind, list[int]] = {}
    for k, weight in enumerate(weights):
        if weight.codes.numel():
            kinds.setdefault(_kind_of(weight), []).append(k)
    table = _table(weights, counts, device)
    for kind, members in kinds.items():
        sizes = tuple((k, weights[k].codes.numel()) for k in members)
        block = block_of(max(size for _, size in sizes), BLOCK)
        _launch(kind, _tasks_on(device, sizes, block), table, fmt, choices, block)
    return counts[:, :7]


def _table(weights: Sequence[Stepped], counts: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A row for each weight, and behind the rows the units of all, on their device."""
    ends = np.cumsum([weight.units.size for weight in weights])
    rows = len(weights) * COLUMNS.value
    host = torch.empty(rows + (int(ends[-1]) + 1) // 2, dtype=torch.int64, pin_memory=device.type == "cuda")
    there = torch.empty_like(host, device=device)
    words, units = host.numpy(), host.view(torch.float32).numpy()[2 * rows :]
    for k, (weight, end) in enumerate(zip(weights, ends.tolist(), strict=True)):
        own = end - weight.units.size
        units[own:end] = weight.units
        places = there.data_ptr() + 8 * rows + 4 * own, counts.data_ptr() + 8 * COUNTS * k
        words[k * COLUMNS.value : (k + 1) * COLUMNS.value] = _row(weight, *places)
    # from pinned memory, which torch keeps until the copy has read it, nobody waits
    return there.copy_(host, non_blocking=True)


def _kind_of(weight: Stepped) -> _Kind:
    place = _OF_ROWS if weight.rows is not None else _OF_WHOLE if weight.part.length == weight.part.stride else _OF_PART
    # of rows nobody knows here how many the parameter has
    is_wide = place is _OF_ROWS or _end(weight.part, weight.start, weight.codes.numel()) >= NARROW
    arrays = weight.codes, weight.gradient, weight.second_moment, weight.momentum
    return _kind(arrays, place.value, weight.units.size, weight.walk, is_wide)


def _kind(arrays: Arrays, place: int, units: int, walk: Walk, is_wide: bool) -> _Kind:
    codes, gradient, moment, momentum = arrays
    return _Kind(
        gradient.dtype, moment.dtype, momentum is not None, place, units > 1, walk.group > 1,
        codes.numel() % ALIGNMENT == 0 and is_aligned(*arrays), is_wide,
    )  # fmt: skip


def step_by_row(
    arrays: Arrays, row: Row, units: int, walk: Walk, start: int, part: Part, fmt: LNSFormat, choices: Choices
) -> None:
    """Step one weight, in place, by a row that was made on its card."""
    place = _OF_WHOLE if part.length == part.stride else _OF_PART
    kind = _kind(arrays, place.value, units, walk, _end(part, start, arrays[0].numel()) >= NARROW)
    _launch(kind, row.tasks, row.table, fmt, choices, block_of(arrays[0].numel(), BLOCK))


def _end(part: Part, start: int, size: int) -> int:
    """An index beyond those of so many elements from `start` on."""
    end = start + size
    return part.first + (end if part.length == part.stride else -(-end // part.length) * part.stride)


def _row(weight: Stepped, units: int, counts: int) -> list[int]:
    """A weight's row of the table, with the addresses of its units and of its counts."""
    first, length, stride = weight.part
    if weight.rows is not None:
        length = weight.codes.numel() // max(weight.rows.numel(), 1)
    draw, (run, group, line, across) = weight.draw, weight.walk
    keys = [int(key) & 0xFFFFFFFF for key in draw_keys(draw.seed, draw.stream, int(draw.step))[:2]]
    own = weight.codes, weight.gradient, weight.second_moment, weight.momentum
    addresses = [*map(_address, own), units, _address(weight.rows), counts]
    scalars = np.array([float(x) for x in weight.scalars], np.float32).view(np.int32).tolist()
    numbers = [weight.units.size, run, weight.start, first, length, stride, *keys, group, line, across, 0, 0]
    return [*addresses, *numbers, *scalars]


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _tasks(sizes: tuple[tuple[int, int], ...], block: int) -> NDArray[np.int64]:
    """(weight, first element, one behind the last) of each program."""
    length = TASK * block
    stretches = [(k, first, min(first + length, size)) for k, size in sizes for first in range(0, size, length)]
    return np.array(stretches, np.int64)


@lru_cache(maxsize=64)
def _tasks_on(device: torch.device, sizes: tuple[tuple[int, int], ...], block: int) -> torch.Tensor:
    """The same on the device, where the next step finds it."""
    # it waits for the copy, once: the next step may be on another stream
    return torch.from_numpy(_tasks(sizes, block)).to(device)


def _launch(
    kind: _Kind, tasks: torch.Tensor, table: torch.Tensor, fmt: LNSFormat, choices: Choices, block: int
) -> None:
    by, up, inverses = tensors_of(table, format_constants, fmt)
    mode, zero = modes_of(choices)
    coded = kind.moment == torch.uint8
    launch(
        step_kernel, (len(tasks),), table.device, tasks, table, by, inverses, up, up.numel(),
        CODE=tl.uint8 if fmt.bits <= 8 else tl.int16, GRADIENT=TRITON_TYPES[kind.gradient],
        BITS=kind.gradient == torch.bfloat16, MOMENT=TRITON_TYPES[kind.moment], CODED=coded, MOMENTUM=kind.momentum,
        PLACE=kind.place, CHANNELS=kind.channels, GROUPS=kind.groups, ALIGNED=kind.aligned, WIDE=kind.wide,
        MODE=-1 if mode is None else mode, ZERO=bool(zero), MORE=grid.bend_coefficients(fmt)[1] is not None,
        FRACTION_BITS=fmt.fraction_bits, SPLIT=inverse_octave(fmt) is not None, TOP=fmt.max_magnitude,
        DRAWS=coded or kind.momentum or not (choices.rule == "paper" and choices.rounding == "nearest"),
        BLOCK=block,
    )  # fmt: skip


def format_constants(fmt: LNSFormat) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """What the kernel reads of a format: the constants of the hypentropy rule, the paper's polynomial, and 1 / X."""
    few, more = grid.bend_coefficients(fmt)
    numbers = [grid.octave(fmt), *grid.log_coefficients(fmt), *few, *(more or ())]
    octave = inverse_octave(fmt)
    inverses = grid.inverses(fmt).view(np.int32) if octave is None else octave
    return np.array(numbers, np.float32), grid.up_coefficients(fmt), inverses


@lru_cache(maxsize=64)
def inverse_octave(fmt: LNSFormat) -> NDArray[np.int32] | None:
    """The bits of 1 / X[m] for m from 1 to 2^F, if those of all others are these less whole octaves; else None.

    >>> from lnsnum import lns8f3
    >>> len(inverse_octave(lns8f3)), inverse_octave(LNSFormat(8, 3, base=1.5))
    (8, None)
    """
    bits = grid.inverses(fmt)[1 : fmt.sign_bit].view(np.int32)
    count = 1 << fmt.fraction_bits
    steps = np.arange(bits.size)
    if fmt.base != 2.0 or bits.size < count:
        return None
    octave = bits[:count].copy()
    # looked at for every m: where magnitudes are so far apart that the least are cut, it does not hold
    return octave if np.array_equal(octave[steps % count] - (steps // count << 23), bits) else None
