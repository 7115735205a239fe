"""Madam's step on integers: the update of LNS weights as a function of arrays.

    v      <-  beta v + (1 - beta) g^2                                         the second moment
    u      <-  momentum u + (1 - momentum) g                                   the momentum; without it, u = g
    g_hat   =  clamp(u_hat / sqrt(v_hat), -g_bound, g_bound)                   both corrected for their bias
    codes  <-  the rule's move by rate g_hat                                   an integer added to the magnitude

The rule is `hypentropy` (the default: rate = lr kappa) or `paper` (rate = lr 2^F / ln(base)); each has a module that
says what it does. All arithmetic is float32, one IEEE operation after the other as written, so that
`lnsnum.torch_bridge.kernels.update_twin` agrees to the bit; the random words are those of `random_words`, one for each
element and step, of which the upper 24 bits count. Gradients enter as clamp(g / 2^exponent, -2^60, 2^60), and where v
is then below 2^-126, g_hat is 0 (so 0 / 0 moves nothing). A gradient that is not finite changes nothing of its element.

Source: Bernstein et al., Learning compositional functions via multiplicative weight updates, NeurIPS 2020, Algorithm 1;
decoupled weight decay: Loshchilov, Hutter, ICLR 2019.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.byte_tables import decode_bytes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.scales import Walk
from lnsnum.kernels.threads import in_chunks
from lnsnum.torch_bridge.kernels import grid, hypentropy, paper
from lnsnum.torch_bridge.kernels.moments import load_moment, load_momentum, store_moment, store_momentum
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part, draw_keys, fill_words_of
from lnsnum.torch_bridge.kernels.step_numbers import (
    Choices,
    Rule,
    StepCounts,
    StepNumbers,
    StepRounding,
    StepScalars,
    Zero,
    step_scalars,
)
from lnsnum.torch_bridge.kernels.threads import torch_team

# A rule uses at most six of the seven arrays of a chunk: 24 KB, and 4 KB of the gradient, which stay in the first cache
# from one loop to the next.
_CHUNK = 1024
# Elements that are worth a thread of their own: some tenths of a millisecond.
PARALLEL = 1 << 17
# The least number that no device flushes to zero.
_LEAST_NORMAL = np.float32(2.0**-126)
# Its square, and so v, is finite with room for the bias correction.
_GREATEST_GRADIENT = np.float32(2.0**60)
_INFINITY = np.int32(0x7F800000)
_SIZE = np.int32(0x7FFFFFFF)


class Grid(NamedTuple):
    """A format as the kernels take it, see `lnsnum.torch_bridge.kernels.grid`."""

    inverses: NDArray[np.float32]
    planes: NDArray[np.uint8] | None
    """The same as bytes, where processors look them up in registers; see `lnsnum.kernels.byte_tables`."""
    octave: np.float32
    log: tuple[np.float32, ...]
    few: tuple[np.float32, ...]
    more: tuple[np.float32, ...] | None
    up: NDArray[np.float32]
    greatest: np.int32

    @classmethod
    def of(cls, fmt: LNSFormat) -> Grid:
        """That of a format."""
        return cls(
            grid.inverses(fmt),
            grid.inverse_planes(fmt),
            grid.octave(fmt),
            grid.log_coefficients(fmt),
            *grid.bend_coefficients(fmt),
            grid.up_coefficients(fmt),
            np.int32(fmt.max_magnitude),
        )


@kernel
def _advance(gradient, scalars, momentum, v, u, drive):  # type: ignore[no-untyped-def]
    """v and, where there is a momentum, u become the new ones, `drive` rate g_hat (NaN where a gradient is not finite);
    returns how many gradients were not finite, and the bits of the greatest finite |gradient|."""
    # int32 and float32 alone, each result cut to its type: Numba widens int32 to int64, which would halve the lanes
    not_finite, greatest = np.int32(0), np.int32(0)
    for i in range(gradient.size):
        # |g| as the integer of its bits: of one sign floats are ordered as these, infinity and NaN last. So one
        # comparison finds both, and the greatest is a maximum of integers, which a compiler may take in any order, as
        # vectors do.
        size = np.int32(np.float32(gradient[i]).view(np.int32) & _SIZE)
        finite = size < _INFINITY
        # 0 in the place of what is not finite: what is computed with it is a number, and is thrown away below
        g = np.float32(gradient[i] * scalars.gradient_scale) if finite else np.float32(0.0)
        # the product may be infinite: it is clamped like what is too large
        g = min(max(g, -_GREATEST_GRADIENT), _GREATEST_GRADIENT)
        new = np.float32(scalars.beta * v[i]) + np.float32(scalars.rest * np.float32(g * g))
        # no divisor is 0: where this bound counts, v is less still, and `moves` makes g_hat 0
        corrected = max(np.float32(new * scalars.correction), _LEAST_NORMAL)
        if momentum is not None:
            u[i] = np.float32(scalars.momentum * u[i]) + np.float32(scalars.momentum_rest * g)
            g = np.float32(u[i] * scalars.momentum_correction)
        # a root and a quotient, each correctly rounded: approximations of 1 / sqrt differ between processors
        g_hat = np.float32(g / np.float32(math.sqrt(corrected)))
        g_hat = min(max(g_hat, -scalars.g_bound), scalars.g_bound)
        moves = new >= _LEAST_NORMAL
        # chosen, not branched to: the loop stays one of vectors
        g_hat = g_hat if moves else np.float32(0.0)
        # NaN is the mark for the rules, so that they need no second array. u has moved, by g = 0: `store_momentum`
        # leaves its code, as v is left here.
        drive[i] = np.float32(g_hat * scalars.rate) if finite else np.float32(np.nan)
        v[i] = new if finite else v[i]
        not_finite = np.int32(not_finite + np.int32(not finite))
        greatest = max(greatest, size if finite else np.int32(0))
    return not_finite, greatest


@kernel
def _copy(values, out):  # type: ignore[no-untyped-def]
    for i in range(values.size):  # a slice assignment would compile for seconds, for the text of its error
        out[i] = values[i]


@kernel
def count_codes(old, new, greatest):  # type: ignore[no-untyped-def]
    """How many codes moved, are at the ceiling, at the floor and zero, and changed their signs, of a chunk."""
    # int16, as a chunk is shorter than 2^15, and a loop of its own, all as narrow as the codes: a vector has four times
    # as many lanes of bytes as of the numbers of a move
    kind = old.dtype.type
    top, one, zero = kind(greatest), kind(1), kind(0)
    moved, at_ceiling, at_floor, zeros, flips = np.int16(0), np.int16(0), np.int16(0), np.int16(0), np.int16(0)
    for i in range(new.size):
        m, before = kind(new[i] & top), kind(old[i] & top)
        moved = np.int16(moved + np.int16(new[i] != old[i]))
        at_ceiling = np.int16(at_ceiling + np.int16(m == top))
        at_floor = np.int16(at_floor + np.int16(m == one))
        zeros = np.int16(zeros + np.int16(new[i] == zero))
        crossed = kind(new[i] ^ old[i]) > top and m > zero and before > zero
        flips = np.int16(flips + np.int16(crossed))
    return moved, at_ceiling, at_floor, zeros, flips


def _part(array: Any, part: Any) -> Any:
    """A part of an array; None of None."""
    return None if array is None else array[part]


@overload(_part)
def _part_in_kernels(array, part):  # type: ignore[no-untyped-def]
    """By type: for a kernel, what may be None is of a type of its own."""
    if isinstance(array, types.NoneType):
        return lambda array, part: None
    return lambda array, part: array[part]


@kernel
def _look_up(codes, planes, greatest, out):  # type: ignore[no-untyped-def]
    """1 / X of as many codes as fill whole registers, with their signs; how many those are, 0 without planes."""
    if planes is None:
        return 0
    count = codes.size // 64
    decode_bytes(codes.ctypes.data, planes.ctypes.data, greatest + 1, out.ctypes.data, count)
    return 64 * count


@kernel
def step_part(  # type: ignore[no-untyped-def]
    codes, gradient, moment, momentum, scalars, mode, zero, grid, units, walk, draw, part_of, start,
):  # fmt: skip
    """One step of a part, in place, in chunks that stay in the first cache; each loop is one that the compiler can
    vectorize. `start` is the index of its first element, within a shard whose place in the whole is `part_of`; returns
    the counts and the bits of the greatest |gradient|.

    What is None is no branch but another kernel: `mode`, the paper's rounding, for the other rule, whose `zero` is None
    where zeros learn and a number where they are kept (of the paper's rule it is whether they leave), and `momentum`.
    """
    words, old = np.empty(_CHUNK, np.int32), np.empty(_CHUNK, codes.dtype)
    v, u, drive = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    # unit and 1 / X of the one rule, fraction and steps of the other
    p, inverse, steps = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.int32)
    coded = moment.itemsize == 1
    # nothing is drawn where nothing is rounded at random
    draws = mode is None or mode != paper.NEAREST or coded or momentum is not None
    # int64: a chunk's counts are int16, those of an array need not fit one
    moved, at_ceiling, at_floor, zeros, flips, not_finite = 0, 0, 0, 0, 0, 0
    greatest = np.int32(0)
    keys = draw_keys(draw.seed, draw.stream, draw.step)
    # one unit is written once
    if mode is None and units.size == 1:
        hypentropy.fill_units(units, walk, start, p[: min(codes.size, _CHUNK)])
    for begin in range(0, codes.size, _CHUNK):
        end = min(begin + _CHUNK, codes.size)
        n = end - begin
        g, part, own = gradient[begin:end], codes[begin:end], moment[begin:end]
        if draws:
            fill_words_of(words[:n], start + begin, part_of, keys[0], keys[1])
        if coded:
            load_moment(own, v)
        else:
            _copy(own, v)
        if momentum is not None:
            load_momentum(momentum[begin:end], scalars.momentum_load, u)
        bad, size = _advance(g, scalars, momentum, v, u, drive)
        not_finite, greatest = not_finite + bad, max(greatest, size)
        _copy(part, old)
        if mode is None:
            if units.size > 1:
                hypentropy.fill_units(units, walk, start + begin, p[:n])
            # a loop of its own, see there
            done = _look_up(part, grid.planes, grid.greatest, inverse)
            hypentropy.fill_inverses(part[done:], grid.inverses, inverse[done:])
            hypentropy.move(part, drive, p, inverse, scalars.decay, words, grid, zero)
        else:
            paper.move(part, drive, scalars.decay, mode, grid.up, words, zero, grid.greatest, steps, p)
        counts = count_codes(old, part, grid.greatest)
        moved, at_ceiling, at_floor = moved + counts[0], at_ceiling + counts[1], at_floor + counts[2]
        zeros, flips = zeros + counts[3], flips + counts[4]
        if coded:
            # what is kept is rounded; what moved the codes was not
            store_moment(v, g, words, own)
        else:
            _copy(v[:n], own)
        if momentum is not None:
            store_momentum(u, g, words, scalars.momentum_store, momentum[begin:end])
    return moved, at_ceiling, at_floor, zeros, flips, not_finite, np.int64(greatest)


@kernel
def _step_rows(  # type: ignore[no-untyped-def]
    codes, gradient, moment, momentum, scalars, mode, zero, grid, units, walk, draw, part_of, rows,
):  # fmt: skip
    """`step_part` on some rows of a parameter, which draw the random words that they would draw within the whole."""
    moved, at_ceiling, at_floor, zeros, flips, not_finite = 0, 0, 0, 0, 0, 0
    greatest = 0
    width = codes.size // max(rows.size, 1)
    for r in range(rows.size):
        row = slice(r * width, (r + 1) * width)
        counts = step_part(
            codes[row], gradient[row], moment[row], _part(momentum, row), scalars, mode, zero, grid, units, walk, draw,
            part_of, rows[r] * width,
        )  # fmt: skip
        moved, at_ceiling, at_floor = moved + counts[0], at_ceiling + counts[1], at_floor + counts[2]
        zeros, flips, not_finite = zeros + counts[3], flips + counts[4], not_finite + counts[5]
        greatest = max(greatest, counts[6])
    return moved, at_ceiling, at_floor, zeros, flips, not_finite, greatest


def madam_step(
    codes: NDArray[Any],
    gradient: NDArray[np.float32],
    second_moment: NDArray[Any],
    fmt: LNSFormat,
    *,
    lr: float,
    step: int,
    unit: float | NDArray[np.float32] = 1.0,
    inner: int = 1,
    kappa: float = 1.0,
    momentum_codes: NDArray[np.uint8] | None = None,
    exponent: int = 0,
    g_bound: float = 10.0,
    beta: float = 0.999,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    beta_product: float | None = None,
    momentum_product: float | None = None,
    rule: Rule = "hypentropy",
    rounding: StepRounding | None = None,
    zero: Zero | None = None,
    seed: int = 0,
    stream: int = 0,
    start: int = 0,
    rows: NDArray[np.int64] | None = None,
) -> StepCounts:
    """One step of Madam on codes: a function of its arguments alone, which writes its results over some of them.

    Args:
        codes: fmt.dtype, contiguous; updated.
        gradient: float32, of the same size. An element that is not finite changes nothing.
        second_moment: uint8 codes (see `lnsnum.torch_bridge.kernels.moments`) or float32 values, of the same size;
            updated.
        lr: the learning rate: the relative change of a large weight in a step at g_hat = 1.
        step: the number of this step, from 1; the random words take it.
        unit: crossover * r in units of the floor, where the hypentropy rule passes from multiplying to adding; an array
            of float32 where channels have scales of their own.
        inner: how many elements in a row have one unit: element i has unit[i // inner % unit.size].
        kappa: what lr is multiplied by, beside the weight decay; hypentropy.
        momentum_codes: uint8, of the same size; updated. None: no momentum.
        exponent: the scale of one-byte moments.
        g_bound, beta, momentum: clamp of the normalized gradient (2^27 at most), decay of the second moment and of the
            momentum.
        weight_decay: the decay, in units of lr.
        beta_product, momentum_product: the product of beta and of momentum over the steps so far, this one included,
            which the bias corrections take; by default beta^step and momentum^step.
        rule: see `Rule`.
        rounding: of the paper's code steps; by default "stochastic_log".
        zero: what becomes of weights that are zero; by default "learn" (hypentropy) or "keep" (paper).
        seed, stream, start: what the random words are drawn by; `start` is the index of the first element within the
            whole parameter, so that a shard draws what the whole would.
        rows: where the arrays are rows of a parameter, the index of each of them within it (instead of `start`).

    Raises:
        TypeError: where an array is of another dtype.
        ValueError: where the arrays differ in size or are not contiguous, an argument is out of range, or the format is
            none for the rule (`hypentropy.check_format`).

    Returns:
        How many elements moved, are at the greatest and at the smallest magnitude, are zero, changed from one sign to
        the other, and had a gradient not finite.

    >>> from lnsnum import lns8f3
    >>> codes, v = np.array([64, 192, 0], np.uint8), np.zeros(3, np.float32)
    >>> madam_step(codes, np.array([1, 1, 1], np.float32), v, lns8f3, lr=0.2, step=1, rule="paper", rounding="nearest")
    StepCounts(moved=2, at_ceiling=0, at_floor=0, zeros=1, sign_changes=0, not_finite=0)
    >>> codes.tolist()  # 0.2 * 8 / ln 2 = 2.3 steps: one shrinks, one grows, zero stays
    [62, 194, 0]
    >>> codes, v = np.array([64, 192, 0], np.uint8), np.zeros(3, np.float32)
    >>> madam_step(codes, np.array([1, 1, 1], np.float32), v, lns8f3, lr=0.5, step=1, unit=8.0).moved
    3
    >>> codes.tolist()  # zero goes to -4, 16 steps above the floor
    [56, 196, 145]
    """
    choices = Choices.of(rule, rounding, zero)
    limits = ("lr", lr, math.inf), ("kappa", kappa, math.inf), ("beta", beta, 1.0), ("momentum", momentum, 1.0)
    for name, value, high in limits:
        if not 0.0 <= value < high:
            raise ValueError(f"{name}={value} is out of range: at least 0, less than {high}")
    if not (0.0 <= weight_decay < math.inf and g_bound > 0.0 and step >= 1):
        raise ValueError(f"weight_decay={weight_decay}, g_bound={g_bound}, step={step}: one of them is out of range")
    kinds: dict[str, tuple[Any, list[Any]]] = {
        "codes": (codes, [fmt.dtype]),
        "gradient": (gradient, [np.float32]),
        "second_moment": (second_moment, [np.uint8, np.float32]),
        "momentum_codes": (momentum_codes, [np.uint8]),
    }
    for what, (array, dtypes) in kinds.items():
        if array is None:
            continue
        if array.dtype not in dtypes:
            raise TypeError(f"{what} is of {array.dtype}: give {' or '.join(np.dtype(d).name for d in dtypes)}")
        if array.size != codes.size or not array.flags.c_contiguous:
            raise ValueError(f"{what} must be contiguous and of the {codes.size} elements of the codes")
    if momentum_codes is None and momentum != 0.0:
        raise ValueError(f"momentum={momentum} needs momentum_codes")
    if rows is not None and (rows.size == 0 or codes.size % rows.size) and codes.size:
        raise ValueError(f"{codes.size} elements are not {rows.size} rows of one length")
    units = np.atleast_1d(np.asarray(unit, np.float32))
    if units.ndim != 1 or units.size == 0 or not bool(((units >= 0) & (units < np.inf)).all()) or inner < 1:
        raise ValueError(f"unit={unit}, inner={inner}: give one unit, or one for each channel, from 0 on; inner from 1")
    numbers = StepNumbers(
        lr=lr,
        kappa=kappa,
        exponent=exponent,
        beta_product=beta**step if beta_product is None else beta_product,
        momentum_product=momentum**step if momentum_product is None else momentum_product,
        g_bound=g_bound,
        beta=beta,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    # float32 moments need no scale of the gradients: the exponent is that of the momentum's codes alone then
    scalars = step_scalars(fmt, rule, numbers, coded=second_moment.dtype == np.uint8)
    arrays = codes, gradient, second_moment, momentum_codes
    draw = Draw(seed, stream, step)
    return apply_step(*arrays, fmt, scalars, choices, units, Walk(inner), draw, start=start, rows=rows)[0]


def modes_of(choices: Choices) -> tuple[int | None, int | None]:
    """`mode` and `zero` of `step_part`: numbers and None, for a kernel would have to unpack and compare strings."""
    if choices.rule == "hypentropy":
        return None, 1 if choices.zero == "keep" else None
    return paper.MODES[choices.rounding], int(choices.zero == "leave")


def apply_step(
    codes: NDArray[Any],
    gradient: NDArray[np.float32],
    second_moment: NDArray[Any],
    momentum_codes: NDArray[np.uint8] | None,
    fmt: LNSFormat,
    scalars: StepScalars,
    choices: Choices,
    units: NDArray[np.float32],
    walk: Walk,
    draw: Draw,
    *,
    start: int = 0,
    rows: NDArray[np.int64] | None = None,
    part: Part = WHOLE,
) -> tuple[StepCounts, int]:
    """`madam_step` with its scalars made and its arguments known to be good, on as many threads as torch uses; also the
    bits of the greatest finite |gradient|. Elements find their units by the walk. Of a shard, whose place in the
    parameter is `part`, `start` counts its own elements, and so do the units."""
    arrays = [codes, gradient, second_moment, momentum_codes]
    # views, as all are contiguous: what is written to them is written to the arrays
    flat = [None if array is None else array.reshape(-1) for array in arrays]
    if choices.rule == "hypentropy":
        hypentropy.check_format(fmt)
    rest = scalars, *modes_of(choices), Grid.of(fmt), units, walk, draw, part
    threads = torch_team()

    def run(begin: int, end: int) -> tuple[int, ...]:
        parts = (None if array is None else array[begin:end] for array in flat)
        return step_part(*parts, *rest, start + begin)  # type: ignore[no-any-return]

    def run_rows(begin: int, end: int) -> tuple[int, ...]:
        assert rows is not None
        parts = (None if array is None else array[begin * width : end * width] for array in flat)
        return _step_rows(*parts, *rest, rows[begin:end])  # type: ignore[no-any-return]

    if rows is None:
        counts = in_chunks(run, codes.size, PARALLEL, threads=threads)
    else:
        width = codes.size // max(rows.size, 1)
        # PARALLEL elements or more, from any row on: at multiples of 4096 rows, a few wide ones would be one chunk
        counts = in_chunks(run_rows, rows.size, PARALLEL // max(width, 1) + 1, alignment=1, threads=threads)
    total = sum((StepCounts(*c[:6]) for c in counts), StepCounts(0, 0, 0, 0, 0, 0))
    return total, max((int(c[6]) for c in counts), default=0)
