"""Madam's step in torch operations: on any device, and inside of torch.compile.

    codes, v, u  ->  codes, v, u, counts            the formulas of `lnsnum.torch_bridge.kernels.update`, and its bits

A function without side effects, of the float32 operations of that module one after the other: no fused or combined ones
(addcmul, lerp), scalars that are float32 numbers. Two operations take a detour, because torch's are not the same
everywhere: its float32 square root is not correctly rounded on every CPU, so the root is taken in float64 (the root of
a float32 is at least 4 ulp of float64 from where rounding to float32 decides); and division by a number may become a
multiplication by its inverse, so divisors are tensors. Philox works on int64, with products that do not overflow.

Under torch.compile, pass as 0-dim tensors what changes from step to step (lr or the scalars, and the step): nothing is
compiled again then.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum import __version__
from lnsnum.format import LNSFormat, check_choice
from lnsnum.kernels.rounding import fill_random_bits
from lnsnum.torch_bridge.kernels import moments, update
from lnsnum.torch_bridge.kernels.codes_twin import as_codes, is_real, power_of_two, tensors_of
from lnsnum.torch_bridge.kernels.update import MOMENT_FACTOR, MOMENTUM_FACTOR, StepRounding, StepScalars, Zero

_LOW = 0xFFFFFFFF
_HALF = 1 << 31
_ROUNDS = 10
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85

_LEAST_NORMAL = 2.0**-126
_GREATEST_GRADIENT = 2.0**60
_GREATEST_STEP = 2.0**30
_INFINITY = 0x7F800000
_UNIT = float(moments.RANDOM_UNIT)
_SHIFT = int(moments.RANDOM_SHIFT)
_GRID = [float(mantissa) for mantissa in moments.MANTISSAS]
_PER_GAP = [float(inverse) for inverse in moments.INVERSE_GAPS]
_TABLES = {"moment": moments.MOMENT_TABLE, "momentum": moments.MOMENTUM_TABLE}
_PER_SMALLEST = {kind: float(inverse) for kind, inverse in zip(_TABLES, moments.PER_SMALLEST, strict=True)}


class Step(NamedTuple):
    """What a step makes of its arrays."""

    codes: torch.Tensor
    second_moment: torch.Tensor
    momentum_codes: torch.Tensor | None
    counts: torch.Tensor
    """int64: moved, at the ceiling, at the floor, not finite, as in `StepCounts`."""


# ---------------------------------------------------------------------------------------------------------- random bits


def _multiply(a: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper and the lower word of a product of 32-bit words; m is odd.

    With h = 2^31, (a - h) m stays within 63 bits, and a m = ((a - h) m + h) + 2^32 (m - 1) / 2.
    """
    product = (a - _HALF) * m + _HALF
    return (product >> 32) + (m >> 1), product & _LOW


def _philox(block: torch.Tensor, seed: int, stream: int, step: torch.Tensor | int) -> tuple[torch.Tensor, ...]:
    """The four random words of each block, int64."""
    c0, c1 = block & _LOW, block >> 32
    c3: Any = stream
    c2 = torch.zeros_like(block) + (step.to(block.device, torch.int64) if isinstance(step, torch.Tensor) else step)
    k0, k1 = seed & _LOW, seed >> 32
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _M0)
        high1, low1 = _multiply(c2, _M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return torch.broadcast_tensors(c0, c1, c2, c3)  # type: ignore[no-any-return]


def random_bits(index: torch.Tensor, *, seed: int, stream: int, step: torch.Tensor | int) -> torch.Tensor:
    """The random words of the elements with these indices: int64 from 0 to 2^32 - 1, in their shape.

    Args:
        index: int64, from 0 on.
        seed, stream, step: as for `lnsnum.random_bits`; step also as a 0-dim integer tensor.

    >>> [f"{b:08x}" for b in random_bits(torch.tensor([3, 0]), seed=0, stream=0, step=0).tolist()]
    ['9b00dbd8', '6627e8d5']
    """
    w0, w1, w2, w3 = _philox(index >> 2, seed, stream, step)
    word = index & 3
    return torch.where(word < 2, torch.where(word == 0, w0, w1), torch.where(word == 2, w2, w3))


def random_bits_range(
    n: int, start: int = 0, *, seed: int, stream: int, step: torch.Tensor | int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """The random words of the elements `start` to `start + n - 1`, each block of Philox drawn once.

    >>> words = random_bits_range(3, 2, seed=0, stream=0, step=0)
    >>> words.equal(random_bits(torch.arange(2, 5), seed=0, stream=0, step=0))
    True
    """
    skipped = start & 3
    block = torch.arange((skipped + n + 3) >> 2, dtype=torch.int64, device=device) + (start >> 2)
    return torch.stack(_philox(block, seed, stream, step), -1).view(-1)[skipped : skipped + n]


def _draw(
    like: torch.Tensor, rows: torch.Tensor | None, start: int, stream: int, seed: int, step: torch.Tensor | int
) -> torch.Tensor:
    """The random words of the elements of a tensor, or of rows of a parameter: int64, in its shape.

    In a graph on the CPU they are one operator, the kernel, as Philox takes long to compile.
    """
    n = like.numel()
    if rows is not None:
        width = n // max(rows.numel(), 1)
        if width & 3:
            words = random_bits(_cells(rows, width), seed=seed, stream=stream, step=step)
        else:
            words = torch.stack(_philox(_cells(rows, width >> 2), seed, stream, step), -1)
    elif like.device.type == "cpu" and not is_real(like) and isinstance(step, torch.Tensor):
        words = torch.ops.lnsnum.random_bits(step, n, start, stream, seed).to(torch.int64) & _LOW
    else:
        words = random_bits_range(n, start, seed=seed, stream=stream, step=step, device=like.device)
    return words.reshape(like.shape)


def _upper24(words: torch.Tensor, factor: int = 1) -> torch.Tensor:
    """The upper 24 bits of words times an odd factor modulo 2^32, int32; the factor is 1, or from 2^31 on.

    Then factor - 2^32 has 31 bits, and the product 63 and a sign.
    """
    product = words if factor == 1 else (words * (factor - (1 << 32))) & _LOW
    return (product >> _SHIFT).to(torch.int32)


def _cells(rows: torch.Tensor, width: int) -> torch.Tensor:
    """The indices of the cells of rows that have `width` of them, flat."""
    cells = rows.to(torch.int64)[:, None] * width + torch.arange(width, dtype=torch.int64, device=rows.device)
    return cells.view(-1)


# -------------------------------------------------------------------------------------------------------------- moments


def first_exponent(gradient: torch.Tensor) -> torch.Tensor:
    """`lnsnum.torch_bridge.kernels.moments.first_exponent` as a 0-dim int32 tensor.

    >>> int(first_exponent(torch.tensor([0.0, -3.0, float("inf")])))
    -6
    """
    bits = gradient.detach().to(torch.float32).view(torch.int32).reshape(-1) & 0x7FFFFFFF
    if bits.numel() == 0:
        return torch.full((), moments.NO_EXPONENT, dtype=torch.int32, device=bits.device)
    greatest = torch.where(bits < _INFINITY, bits, 0).amax()
    exponent = (greatest >> 23) - (127 + moments.MOMENT_HEADROOM)
    exponent = exponent.clamp(-moments.EXPONENT_BOUND, moments.EXPONENT_BOUND)
    return torch.where(greatest == 0, moments.NO_EXPONENT, exponent).to(torch.int32)


def _table(kind: str) -> tuple[NDArray[np.float32]]:
    return (_TABLES[kind],)


def _load(codes: torch.Tensor, kind: str) -> torch.Tensor:
    """The values of one-byte codes at exponent 0."""
    (table,) = tensors_of(codes, _table, kind)
    return table[codes.to(torch.int64)]


def _round(x: torch.Tensor, bits24: torch.Tensor, bias: int, kind: str, greatest: int) -> torch.Tensor:
    """The int32 code of a nonnegative float32, rounded stochastically on the value axis."""
    bits = x.view(torch.int32)
    mantissa = ((bits & 0x7FFFFF) | 0x3F800000).view(torch.float32)
    low, per_gap = torch.full_like(x, _GRID[0]), torch.full_like(x, _PER_GAP[0])
    j = torch.zeros_like(bits)
    for grid, next_per_gap in zip(_GRID[1:4], _PER_GAP[1:], strict=True):
        reached = mantissa >= grid
        low, per_gap, j = torch.where(reached, grid, low), torch.where(reached, next_per_gap, per_gap), j + reached
    code = 4 * ((bits >> 23) - 127) + j + bias
    underflow = code < 1
    position = torch.where(underflow, x * _PER_SMALLEST[kind], (mantissa - low) * per_gap)
    up = bits24 < (position * _UNIT).to(torch.int32)
    return (torch.where(underflow, 0, code) + up).clamp(max=greatest)


# ------------------------------------------------------------------------------------------------------------- the step


def step_scalars(
    fmt: LNSFormat,
    *,
    lr: torch.Tensor | float,
    coded: bool,
    exponent: torch.Tensor | int,
    g_bound: float,
    beta: float,
    momentum: float,
    weight_decay: float,
    beta_product: torch.Tensor | float,
    momentum_product: torch.Tensor | float,
) -> StepScalars:
    """The scalars of `lnsnum.torch_bridge.kernels.update.step_scalars` as 0-dim float32 tensors, of numbers or 0-dim
    tensors.

    The arithmetic is that of float64 tensors, so `lr` and the products are best given in float64. An lr that is no
    number from 0 on, which no one can refuse within a graph, moves nothing.
    """

    def double(x: torch.Tensor | float) -> torch.Tensor:
        return x.to(torch.float64) if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64)

    steps = double(lr) * (1 << fmt.fraction_bits)
    rate = steps / torch.full_like(steps, math.log(fmt.base))
    rate = torch.where((rate >= 0.0) & (rate < math.inf), rate, 0.0)
    one = torch.ones((), dtype=torch.float64)
    power = power_of_two(exponent.to(torch.int64)) if isinstance(exponent, torch.Tensor) else double(2.0**exponent)
    values = (
        1.0 / power if coded else one,
        double(beta),
        double(1.0 - beta),
        1.0 / (1.0 - double(beta_product)),
        double(momentum),
        double(1.0 - momentum),
        1.0 / (1.0 - double(momentum_product)),
        one if coded else power,
        one if coded else 1.0 / power,
        double(g_bound),
        rate.clamp(max=2.0**100),
        (rate * weight_decay).clamp(max=2.0**30),
    )
    return StepScalars(*(value.to(torch.float32) for value in values))


def madam_step(
    codes: torch.Tensor,
    gradient: torch.Tensor,
    second_moment: torch.Tensor,
    fmt: LNSFormat,
    *,
    lr: torch.Tensor | float,
    step: torch.Tensor | int,
    momentum_codes: torch.Tensor | None = None,
    exponent: torch.Tensor | int = 0,
    g_bound: float = 10.0,
    beta: float = 0.999,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    beta_product: torch.Tensor | float | None = None,
    momentum_product: torch.Tensor | float | None = None,
    rounding: StepRounding = "stochastic_log",
    zero: Zero = "keep",
    seed: int = 0,
    stream: int = 0,
    start: int = 0,
    rows: torch.Tensor | None = None,
) -> Step:
    """One step of Madam: what `lnsnum.torch_bridge.kernels.update.madam_step` writes, as new tensors.

    Args: as there, as tensors of any shape; codes of uint8 or int16. `lr`, `step`, `exponent` and the products may be
        0-dim tensors; with a step that is a tensor, beta_product (and momentum_product, where momentum is not 0) must
        be given, because a power is not the same to the bit in every library.

    Raises:
        ValueError: for an unknown rounding or zero policy, and for a product that is missing.

    >>> from lnsnum import lns8f3
    >>> codes = torch.tensor([64, 192, 0], dtype=torch.uint8)
    >>> madam_step(codes, torch.ones(3), torch.zeros(3), lns8f3, lr=0.2, step=1, rounding="nearest").codes
    tensor([ 62, 194,   0], dtype=torch.uint8)
    """
    products = [beta_product, momentum_product]
    for i, (name, decay) in enumerate((("beta", beta), ("momentum", momentum))):
        if products[i] is None:
            if isinstance(step, torch.Tensor) and decay != 0.0:
                raise ValueError(f"{name}_product is missing: give the product of {name} over the steps so far")
            products[i] = 0.0 if isinstance(step, torch.Tensor) else decay**step
    numbers = not torch.compiler.is_compiling() and not any(
        isinstance(given, torch.Tensor) for given in (lr, exponent, *products)
    )
    make: Any = update.step_scalars if numbers else step_scalars
    scalars: StepScalars = make(
        fmt,
        lr=lr,
        coded=second_moment.dtype == torch.uint8,
        exponent=exponent,
        g_bound=g_bound,
        beta=beta,
        momentum=momentum,
        weight_decay=weight_decay,
        beta_product=products[0],
        momentum_product=products[1],
    )
    draw: dict[str, Any] = {"seed": seed, "stream": stream, "step": step, "start": start, "rows": rows}
    return apply_step(
        codes, gradient, second_moment, momentum_codes, fmt, scalars, rounding=rounding, zero=zero, **draw
    )


def apply_step(
    codes: torch.Tensor,
    gradient: torch.Tensor,
    second_moment: torch.Tensor,
    momentum_codes: torch.Tensor | None,
    fmt: LNSFormat,
    scalars: StepScalars,
    *,
    rounding: StepRounding,
    zero: Zero,
    seed: int,
    stream: int,
    step: torch.Tensor | int,
    start: int = 0,
    rows: torch.Tensor | None = None,
) -> Step:
    """`madam_step` with its scalars made: tensors, or numbers that are float32 numbers."""
    check_choice("rounding", rounding, StepRounding)
    check_choice("zero", zero, Zero)
    arrays: Any = codes, gradient, second_moment, momentum_codes, rows
    numbers: Any = fmt.bits, fmt.fraction_bits, fmt.base, rounding, zero == "leave", seed, stream, start
    if torch.compiler.is_dynamo_compiling():
        tensors = [s if isinstance(s, torch.Tensor) else torch.tensor(s, dtype=torch.float32) for s in scalars]
        number = step if isinstance(step, torch.Tensor) else torch.tensor(step, dtype=torch.int64)
        out = torch.ops.lnsnum.madam_step(*arrays, *numbers, number, tensors, __version__)
    else:
        rest: Any = step, list(scalars), __version__
        out = _apply_step(*arrays, *numbers, *rest)
    return Step(out[0], out[1], None if momentum_codes is None else out[3], out[2])


def _apply_step(
    codes: torch.Tensor, gradient: torch.Tensor, second_moment: torch.Tensor, momentum_codes: torch.Tensor | None,
    rows: torch.Tensor | None, bits: int, fraction_bits: int, base: float, rounding: str, leave: bool,
    seed: int, stream: int, start: int, step: torch.Tensor | int, scalars: list[Any], version: str,
) -> list[torch.Tensor]:  # fmt: skip
    """`apply_step` with the numbers of the format, which is what an operator takes; returns codes, second moment,
    counts and, where there is one, momentum.
    """
    fmt = LNSFormat(bits, fraction_bits, base=base)
    by = StepScalars(*(_scalar(scalar, codes) for scalar in scalars))
    coded = second_moment.dtype == torch.uint8
    drawn = None
    if rounding != "nearest" or coded or momentum_codes is not None:
        drawn = _draw(codes, rows, start, stream, seed, step)

    finite = (gradient.view(torch.int32) & 0x7FFFFFFF) < _INFINITY
    g = torch.where(finite, gradient * by.gradient_scale, 0.0).clamp(-_GREATEST_GRADIENT, _GREATEST_GRADIENT)
    new = by.beta * (_load(second_moment, "moment") if coded else second_moment) + by.rest * (g * g)
    root = (new * by.correction).clamp(min=_LEAST_NORMAL).to(torch.float64).sqrt().to(torch.float32)
    u = None
    if momentum_codes is not None:
        u = by.momentum * (_load(momentum_codes, "momentum") * by.momentum_load) + by.momentum_rest * g
        g = u * by.momentum_correction
    g_hat = (g / root).clamp(-by.g_bound, by.g_bound)
    drive = torch.where(finite & (new >= _LEAST_NORMAL), g_hat * by.rate, 0.0)

    code = codes.to(torch.int32) & ((1 << fmt.bits) - 1)
    shrink = torch.where(finite, torch.where(code < fmt.sign_bit, drive, -drive) + by.pull, 0.0)
    steps = _round_steps(shrink, fmt, rounding, drawn)
    m = code & fmt.max_magnitude
    moved_to = (m - steps.clamp(-fmt.max_magnitude, fmt.max_magnitude)).clamp(1, fmt.max_magnitude)
    new_m = torch.where(m > 0, moved_to, m)
    new_code = code + (new_m - m)
    if leave:
        leaves = (code == 0) & (drive != 0.0)
        new_m = torch.where(leaves, 1, new_m)
        new_code = torch.where(leaves, torch.where(drive > 0.0, fmt.sign_bit + 1, 1), new_code)
    counted = (new_m != m, new_m == fmt.max_magnitude, new_m == 1, ~finite)
    counts = torch.stack([what.sum() for what in counted])

    if coded and drawn is not None:
        new = _round(new, _upper24(drawn, MOMENT_FACTOR), moments.MOMENT_BIAS, "moment", 255).to(torch.uint8)
    second_moment = torch.where(finite, new, second_moment)
    if u is not None and momentum_codes is not None and drawn is not None:
        u = u * by.momentum_store
        size = _round(u.abs(), _upper24(drawn, MOMENTUM_FACTOR), moments.MOMENTUM_BIAS, "momentum", 127)
        size = torch.where((u < 0.0) & (size > 0), size + 128, size)
        momentum_codes = torch.where(finite, size.to(torch.uint8), momentum_codes)
    out = as_codes(new_code, fmt)
    return [out, second_moment, counts] + ([] if momentum_codes is None else [momentum_codes])


def _kernel_bits(step: torch.Tensor, n: int, start: int, stream: int, seed: int) -> torch.Tensor:
    """The random words of n elements, int32, by the kernel of the core."""
    words = np.empty(n, np.uint32)
    fill_random_bits(words, start, seed, stream, int(step))
    return torch.from_numpy(words.view(np.int32))


def _kernel_bits_shape(step: torch.Tensor, n: int, start: int, stream: int, seed: int) -> torch.Tensor:
    return torch.empty(n, dtype=torch.int32, device="meta")


_OPERATORS = torch.library.Library("lnsnum", "FRAGMENT")
_OPERATORS.define("random_bits(Tensor step, SymInt n, int start, int stream, int seed) -> Tensor")
_OPERATORS.impl("random_bits", _kernel_bits, "CPU")
_OPERATORS.impl("random_bits", _kernel_bits_shape, "Meta")
_OPERATORS.define(
    "madam_step(Tensor codes, Tensor gradient, Tensor second_moment, Tensor? momentum_codes, Tensor? rows, int bits, "
    "int fraction_bits, float base, str rounding, bool leave, int seed, int stream, int start, Tensor step, "
    "Tensor[] scalars, str version) -> Tensor[]"
)
_OPERATORS.impl("madam_step", _apply_step, "CompositeImplicitAutograd")


def _scalar(scalar: Any, codes: torch.Tensor) -> Any:
    """A scalar as operations on the device of the codes take it: a Python number, or what is traced, a tensor there."""
    if not isinstance(scalar, torch.Tensor) or (scalar.device.type == "cpu" and is_real(scalar)):
        return float(scalar)
    return scalar.to(codes.device)


def _round_steps(shrink: torch.Tensor, fmt: LNSFormat, rounding: str, words: torch.Tensor | None) -> torch.Tensor:
    """The whole number of code steps by which each magnitude shrinks, int32."""
    size = shrink.abs().clamp(max=_GREATEST_STEP)
    whole = size.to(torch.int32)
    part = size - whole.to(torch.float32)
    if rounding == "nearest" or words is None:
        more = (part > 0.5) | ((part == 0.5) & (whole & 1 == 1))
    else:
        if rounding == "stochastic_value":
            part = _share(part, shrink > 0.0, fmt)
        more = _upper24(words) < (part * _UNIT).to(torch.int32)
    whole = whole + more
    return torch.where(shrink > 0.0, whole, -whole)


def _share(part: torch.Tensor, shrinks: torch.Tensor, fmt: LNSFormat) -> torch.Tensor:
    """With which probability a fraction of a step becomes a whole one, unbiased in the value."""
    f = torch.where(shrinks, 1.0 - part, part)
    p = torch.zeros_like(part)
    for coefficient in reversed(update.up_coefficients(fmt).tolist()):
        p = (p + coefficient) * f
    return torch.where(part > 0.0, torch.where(shrinks, 1.0 - p, p), 0.0)
