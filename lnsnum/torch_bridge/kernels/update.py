"""Madam's step on integers: the update of LNS weights as a function of arrays.

The paper's step, w <- w exp(-lr clamp(g_hat) sign(w)), moves log|w| by -lr clamp(g_hat) sign(w), so in code steps

    v      <-  beta v + (1 - beta) g^2                                         the second moment
    u      <-  momentum u + (1 - momentum) g                                   the momentum; without it, u = g
    g_hat   =  clamp(u_hat / sqrt(v_hat), -g_bound, g_bound)                   both corrected for their bias
    m      <-  clip(m - round(rate g_hat sign(w) + pull), 1, m_max),           rate = lr 2^F / ln(base)

an integer addition on the stored magnitude; pull = rate weight_decay, decoupled weight decay as a constant pull of the
codes (w <- w exp(-lr weight_decay)). NaN stays, and so does zero, or under zero="leave" it becomes the smallest
magnitude against its gradient. All arithmetic is float32, one IEEE operation after the other as written, so that
`lnsnum.torch_bridge.kernels.update_twin` agrees to the bit; the random bits are Philox's, one word for each element and
step, of which the upper 24 count. Gradients enter as clamp(g / 2^exponent, -2^60, 2^60), and where v is then below
2^-126, g_hat is 0 (so 0 / 0 moves nothing). A step is at most 2^30 codes. A gradient that is not finite changes nothing
of its element.

Source: Bernstein et al., Learning compositional functions via multiplicative weight updates, NeurIPS 2020, Algorithm 1;
decoupled weight decay: Loshchilov, Hutter, ICLR 2019.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat, check_choice
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.rounding import RANDOM_BLOCKS, fill_random_words
from lnsnum.kernels.threads import in_chunks
from lnsnum.torch_bridge.kernels.moments import (
    RANDOM_SHIFT,
    RANDOM_UNIT,
    load_moment,
    load_momentum,
    store_moment,
    store_momentum,
)
from lnsnum.torch_bridge.kernels.threads import torch_team

StepRounding = Literal["stochastic_log", "stochastic_value", "nearest"]
"""How the real number of code steps is rounded: so that the logarithm of the weight is right on average, so that the
weight is, or to nearest, ties to an even number of steps."""

Zero = Literal["keep", "leave", "raise"]
"""What becomes of a weight that is zero: it stays; it leaves zero at the first nonzero g_hat, as the smallest magnitude
against the gradient; or the optimizer refuses it. (The step itself takes "raise" as "keep".)"""

_NEAREST, _LOG, _VALUE = 0, 1, 2
_MODES = {"nearest": _NEAREST, "stochastic_log": _LOG, "stochastic_value": _VALUE}

_CHUNK = 1024
_PARALLEL = 1 << 17
_LEAST_NORMAL = np.float32(2.0**-126)
_GREATEST_GRADIENT = np.float32(2.0**60)
_GREATEST_STEP = np.float32(2.0**30)
_NO_TABLE = np.empty(0, np.float32)

MOMENT_FACTOR, MOMENTUM_FACTOR = 0x9E3779B1, 0x85EBCA77
"""An element has one random word R in a step. Its code takes R, its second moment R times the first of these odd
numbers modulo 2^32, its momentum R times the second. Each is uniform, and small multiples of two of them are far from
each other: none below 2^14 come within 2^14."""


class StepCounts(NamedTuple):
    """What one step did to one array of codes."""

    moved: int
    at_ceiling: int
    at_floor: int
    not_finite: int

    def __add__(self, other: tuple[int, ...]) -> StepCounts:  # type: ignore[override]
        return StepCounts(*(a + b for a, b in zip(self, other, strict=True)))


class StepScalars(NamedTuple):
    """The float32 scalars of a step; of the twin under torch.compile, tensors of them."""

    gradient_scale: Any
    """2^-exponent where the second moment is coded, else 1."""
    beta: Any
    rest: Any
    """1 - beta."""
    correction: Any
    """1 / (1 - the product of beta over the steps)."""
    momentum: Any
    momentum_rest: Any
    momentum_correction: Any
    momentum_load: Any
    """The scale of momentum codes against that of gradients: 1 where the second moment is coded, else 2^exponent."""
    momentum_store: Any
    """Its inverse."""
    g_bound: Any
    rate: Any
    """lr 2^F / ln(base), at most 2^100."""
    pull: Any
    """rate weight_decay, at most 2^30."""


@lru_cache(maxsize=256)
def up_coefficients(fmt: LNSFormat) -> NDArray[np.float32]:
    """The coefficients of (b^f - 1) / (b - 1) as a polynomial in f, from that of f on; b is the factor of one step.

    It is the probability of rounding up a growth by a fraction f of a step, unbiased in the value; cut where the terms
    fall below 2^-30.

    >>> from lnsnum import lns8f5
    >>> [f"{c:.4f}" for c in up_coefficients(lns8f5)[:3]]
    ['0.9892', '0.0107', '0.0001']
    """
    log_step = math.log(fmt.base) / (1 << fmt.fraction_bits)
    term, terms, k = log_step / math.expm1(log_step), [], 1
    while term > 2.0**-30 or k <= log_step:
        terms.append(term)
        k += 1
        term *= log_step / k
    return np.array(terms, np.float32)


@kernel
def _advance(gradient, scalars, has_momentum, v, u, drive):  # type: ignore[no-untyped-def]
    """v and u become the new moments, `drive` rate g_hat; returns how many gradients were not finite."""
    not_finite = np.int32(0)
    for i in range(gradient.size):
        finite = abs(gradient[i]) < np.float32(np.inf)
        g = np.float32(gradient[i] * scalars.gradient_scale) if finite else np.float32(0.0)
        g = min(max(g, -_GREATEST_GRADIENT), _GREATEST_GRADIENT)
        new = np.float32(scalars.beta * v[i]) + np.float32(scalars.rest * np.float32(g * g))
        corrected = max(np.float32(new * scalars.correction), _LEAST_NORMAL)
        if has_momentum:
            u[i] = np.float32(scalars.momentum * u[i]) + np.float32(scalars.momentum_rest * g)
            g = np.float32(u[i] * scalars.momentum_correction)
        g_hat = np.float32(g / np.float32(math.sqrt(corrected)))
        g_hat = min(max(g_hat, -scalars.g_bound), scalars.g_bound)
        moves = finite and new >= _LEAST_NORMAL
        drive[i] = np.float32(g_hat * scalars.rate) if moves else np.float32(0.0)
        v[i] = new if finite else v[i]
        not_finite = np.int32(not_finite + np.int32(not finite))
    return not_finite


@kernel
def _shrink(code, gradient, drive, pull, greatest):  # type: ignore[no-untyped-def]
    """By how many code steps the magnitude is to shrink, as a real number; (its size, its whole part, the rest)."""
    along = -drive if np.int32(code) > greatest else drive
    shrink = np.float32(along + pull) if abs(gradient) < np.float32(np.inf) else np.float32(0.0)
    size = min(np.float32(abs(shrink)), _GREATEST_STEP)
    whole = np.int32(size)
    return shrink, whole, np.float32(size - np.float32(whole))


@kernel
def _signed(shrink, whole, more):  # type: ignore[no-untyped-def]
    steps = np.int32(whole + np.int32(more))
    return steps if shrink > np.float32(0.0) else np.int32(np.int32(0) - steps)


@kernel
def _round_to_nearest(codes, gradient, drive, pull, greatest, steps):  # type: ignore[no-untyped-def]
    """`steps` becomes the whole number of code steps by which each magnitude shrinks (grows, where it is negative)."""
    one = np.int32(1)
    for i in range(codes.size):
        shrink, whole, part = _shrink(codes[i], gradient[i], drive[i], pull, greatest)
        more = part > np.float32(0.5) or (part == np.float32(0.5) and np.int32(whole & one) == one)
        steps[i] = _signed(shrink, whole, more)


@kernel
def _round_by_log(codes, gradient, drive, pull, greatest, random, steps):  # type: ignore[no-untyped-def]
    """The same, up with the probability of the fraction."""
    for i in range(codes.size):
        shrink, whole, part = _shrink(codes[i], gradient[i], drive[i], pull, greatest)
        more = np.int32(random[i] >> RANDOM_SHIFT) < np.int32(part * RANDOM_UNIT)
        steps[i] = _signed(shrink, whole, more)


@kernel
def _round_by_value(codes, gradient, drive, pull, greatest, up, random, p, steps):  # type: ignore[no-untyped-def]
    """The same, up with the probability p that is unbiased in the value: (b^part - 1) / (b - 1) to grow by a part of a
    step, to shrink by it 1 - (b^(1 - part) - 1) / (b - 1).

    Coefficient by coefficient over all elements, so that each is a loop of vectors.
    """
    one = np.float32(1.0)
    for i in range(codes.size):
        p[i] = np.float32(0.0)
    for k in range(up.size):
        coefficient = up[up.size - 1 - k]
        for i in range(codes.size):
            shrink, whole, part = _shrink(codes[i], gradient[i], drive[i], pull, greatest)
            f = np.float32(one - part) if shrink > np.float32(0.0) else part
            p[i] = np.float32(np.float32(p[i] + coefficient) * f)
    for i in range(codes.size):
        shrink, whole, part = _shrink(codes[i], gradient[i], drive[i], pull, greatest)
        share = np.float32(one - p[i]) if shrink > np.float32(0.0) else p[i]
        share = share if part > np.float32(0.0) else np.float32(0.0)
        more = np.int32(random[i] >> RANDOM_SHIFT) < np.int32(share * RANDOM_UNIT)
        steps[i] = _signed(shrink, whole, more)


@kernel
def _move(codes, steps, greatest):  # type: ignore[no-untyped-def]
    """m <- clip(m - steps, 1, m_max) where m > 0; returns how many moved, and how many are at either end."""
    zero, one = np.int32(0), np.int32(1)
    moved, at_ceiling, at_floor = zero, zero, zero
    for i in range(codes.size):
        code = np.int32(codes[i])
        m = np.int32(code & greatest)
        by = max(min(steps[i], greatest), np.int32(zero - greatest))
        new = min(max(np.int32(m - by), one), greatest)
        new = new if m > zero else m
        moved = np.int32(moved + np.int32(new != m))
        at_ceiling = np.int32(at_ceiling + np.int32(new == greatest))
        at_floor = np.int32(at_floor + np.int32(new == one))
        codes[i] = np.int32(code + np.int32(new - m))
    return moved, at_ceiling, at_floor


@kernel
def _leave_zero(codes, drive, greatest):  # type: ignore[no-untyped-def]
    """Zeros with a drive become the smallest magnitude against it; returns how many did."""
    left = np.int32(0)
    for i in range(codes.size):
        leaves = codes[i] == 0 and drive[i] != np.float32(0.0)
        smallest = np.int32(greatest + np.int32(2)) if drive[i] > np.float32(0.0) else np.int32(1)
        codes[i] = smallest if leaves else np.int32(codes[i])
        left = np.int32(left + np.int32(leaves))
    return left


@kernel
def _copy(values, out):  # type: ignore[no-untyped-def]
    for i in range(values.size):  # a slice assignment would compile for seconds, for the text of its error
        out[i] = values[i]


@kernel
def _multiply_words(random, factor, out):  # type: ignore[no-untyped-def]
    """out = random * factor, modulo 2^32."""
    for i in range(random.size):
        out[i] = (np.uint64(random[i]) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)


@kernel
def _step(  # type: ignore[no-untyped-def]
    codes, gradient, moment, momentum, scalars, mode, up, leave, max_magnitude, seed, stream, step, start,
):  # fmt: skip
    """One step, in place, in chunks that stay in the first cache; each loop is one that the compiler can vectorize."""
    random, other_random = np.empty(_CHUNK, np.uint32), np.empty(_CHUNK, np.uint32)
    words, steps = np.empty((4, RANDOM_BLOCKS), np.uint32), np.empty(_CHUNK, np.int32)
    v, u = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    drive, p = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    greatest, coded, has_momentum = np.int32(max_magnitude), moment.itemsize == 1, momentum.size > 0
    moved, at_ceiling, at_floor, not_finite = 0, 0, 0, 0
    for begin in range(0, codes.size, _CHUNK):
        end = min(begin + _CHUNK, codes.size)
        n = end - begin
        g, part, own = gradient[begin:end], codes[begin:end], moment[begin:end]
        if mode != _NEAREST or coded or has_momentum:
            fill_random_words(random[:n], start + begin, seed, stream, step, words)
        if coded:
            load_moment(own, v)
        else:
            _copy(own, v)
        if has_momentum:
            load_momentum(momentum[begin:end], scalars.momentum_load, u)
        not_finite += _advance(g, scalars, has_momentum, v, u, drive)
        if mode == _NEAREST:
            _round_to_nearest(part, g, drive, scalars.pull, greatest, steps)
        elif mode == _LOG:
            _round_by_log(part, g, drive, scalars.pull, greatest, random, steps)
        else:
            _round_by_value(part, g, drive, scalars.pull, greatest, up, random, p, steps)
        counts = _move(part, steps, greatest)
        left = _leave_zero(part, drive, greatest) if leave else 0
        moved, at_ceiling, at_floor = moved + counts[0] + left, at_ceiling + counts[1], at_floor + counts[2] + left
        if coded:
            _multiply_words(random, MOMENT_FACTOR, other_random)
            store_moment(v, g, other_random, own)
        else:
            _copy(v[:n], own)
        if has_momentum:
            _multiply_words(random, MOMENTUM_FACTOR, other_random)
            store_momentum(u, g, other_random, scalars.momentum_store, momentum[begin:end])
    return moved, at_ceiling, at_floor, not_finite


@kernel
def _step_rows(  # type: ignore[no-untyped-def]
    codes, gradient, moment, momentum, scalars, mode, up, leave, max_magnitude, seed, stream, step, rows,
):  # fmt: skip
    """`_step` on some rows of a parameter, which draw the random bits that they would draw within the whole."""
    moved, at_ceiling, at_floor, not_finite = 0, 0, 0, 0
    width = codes.size // max(rows.size, 1)
    for r in range(rows.size):
        row = slice(r * width, (r + 1) * width)
        counts = _step(
            codes[row], gradient[row], moment[row], momentum[row], scalars, mode, up, leave, max_magnitude,
            seed, stream, step, rows[r] * width,
        )  # fmt: skip
        moved, at_ceiling, at_floor = moved + counts[0], at_ceiling + counts[1], at_floor + counts[2]
        not_finite += counts[3]
    return moved, at_ceiling, at_floor, not_finite


def madam_step(
    codes: NDArray[Any],
    gradient: NDArray[np.float32],
    second_moment: NDArray[Any],
    fmt: LNSFormat,
    *,
    lr: float,
    step: int,
    momentum_codes: NDArray[np.uint8] | None = None,
    exponent: int = 0,
    g_bound: float = 10.0,
    beta: float = 0.999,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    beta_product: float | None = None,
    momentum_product: float | None = None,
    rounding: StepRounding = "stochastic_log",
    zero: Zero = "keep",
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
        lr: the paper's learning rate: the natural logarithm of the factor of a step at g_hat = 1.
        step: the number of this step, from 1; the random bits take it.
        momentum_codes: uint8, of the same size; updated. None: no momentum.
        exponent: the scale of one-byte moments.
        g_bound, beta, momentum: clamp of the normalized gradient, decay of the second moment and of the momentum.
        weight_decay: the pull, in units of lr.
        beta_product, momentum_product: the product of beta and of momentum over the steps so far, this one included,
            which the bias corrections take; by default beta^step and momentum^step.
        rounding: of the code steps.
        zero: what becomes of weights that are zero.
        seed, stream, start: what the random bits are drawn by; `start` is the index of the first element within the
            whole parameter, so that a shard draws what the whole would.
        rows: where the arrays are rows of a parameter, the index of each of them within it (instead of `start`).

    Raises:
        TypeError: where an array is of another dtype.
        ValueError: where the arrays differ in size or are not contiguous, or an argument is out of range.

    Returns:
        How many elements moved, are at the greatest and at the smallest magnitude, and had a gradient not finite.

    >>> from lnsnum import lns8f3
    >>> codes, v = np.array([64, 192, 0], np.uint8), np.zeros(3, np.float32)
    >>> madam_step(codes, np.array([1, 1, 1], np.float32), v, lns8f3, lr=0.2, step=1, rounding="nearest")
    StepCounts(moved=2, at_ceiling=0, at_floor=0, not_finite=0)
    >>> codes.tolist()  # 0.2 * 8 / ln 2 = 2.3 steps: one shrinks, one grows, zero stays
    [62, 194, 0]
    """
    check_choice("rounding", rounding, StepRounding)
    check_choice("zero", zero, Zero)
    for name, value, high in (("lr", lr, math.inf), ("beta", beta, 1.0), ("momentum", momentum, 1.0)):
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
    scalars = step_scalars(
        fmt,
        lr=lr,
        coded=second_moment.dtype == np.uint8,
        exponent=exponent,
        g_bound=g_bound,
        beta=beta,
        momentum=momentum,
        weight_decay=weight_decay,
        beta_product=beta**step if beta_product is None else beta_product,
        momentum_product=momentum**step if momentum_product is None else momentum_product,
    )
    return apply_step(
        codes,
        gradient,
        second_moment,
        momentum_codes,
        fmt,
        scalars,
        rounding=rounding,
        zero=zero,
        seed=seed,
        stream=stream,
        step=step,
        start=start,
        rows=rows,
    )


def step_scalars(
    fmt: LNSFormat,
    *,
    lr: float,
    coded: bool,
    exponent: int,
    g_bound: float,
    beta: float,
    momentum: float,
    weight_decay: float,
    beta_product: float,
    momentum_product: float,
) -> StepScalars:
    """The scalars of a step: float64 arithmetic, each rounded once to float32."""
    rate = lr * (1 << fmt.fraction_bits) / math.log(fmt.base)
    values = (
        2.0**-exponent if coded else 1.0,
        beta,
        1.0 - beta,
        1.0 / (1.0 - beta_product),
        momentum,
        1.0 - momentum,
        1.0 / (1.0 - momentum_product),
        1.0 if coded else 2.0**exponent,
        1.0 if coded else 2.0**-exponent,
        g_bound,
        min(rate, 2.0**100),
        min(rate * weight_decay, 2.0**30),
    )
    return StepScalars(*map(np.float32, values))


def apply_step(
    codes: NDArray[Any],
    gradient: NDArray[np.float32],
    second_moment: NDArray[Any],
    momentum_codes: NDArray[np.uint8] | None,
    fmt: LNSFormat,
    scalars: StepScalars,
    *,
    rounding: StepRounding,
    zero: Zero,
    seed: int,
    stream: int,
    step: int,
    start: int = 0,
    rows: NDArray[np.int64] | None = None,
) -> StepCounts:
    """`madam_step` with its scalars made and its arguments known to be good, on as many threads as torch uses."""
    mode = _MODES[rounding]
    up = up_coefficients(fmt) if mode == _VALUE else _NO_TABLE
    arrays = [codes, gradient, second_moment, np.empty(0, np.uint8) if momentum_codes is None else momentum_codes]
    flat = [array.reshape(-1) for array in arrays]
    rule = scalars, mode, up, zero == "leave", fmt.max_magnitude, seed, stream, step
    threads = torch_team()

    def run(begin: int, end: int) -> tuple[int, int, int, int]:
        parts = (array[begin:end] for array in flat)
        return _step(*parts, *rule, start + begin)  # type: ignore[no-any-return]

    def run_rows(begin: int, end: int) -> tuple[int, int, int, int]:
        assert rows is not None
        parts = (array[begin * width : end * width] for array in flat)
        return _step_rows(*parts, *rule, rows[begin:end])  # type: ignore[no-any-return]

    if rows is None:
        counts = in_chunks(run, codes.size, _PARALLEL, threads=threads)
    else:
        width = codes.size // max(rows.size, 1)
        counts = in_chunks(run_rows, rows.size, _PARALLEL // max(width, 1) + 1, alignment=1, threads=threads)
    return sum((StepCounts(*c) for c in counts), StepCounts(0, 0, 0, 0))
