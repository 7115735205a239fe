"""Madam's step in torch operations: on any device, and inside of torch.compile.

    codes, v, u  ->  codes, v, u, counts            the formulas of `lnsnum.torch_bridge.kernels.update`, and its bits

A function without side effects, of the float32 operations of that module one after the other: no fused or combined ones
(addcmul, lerp), scalars that are float32 numbers. Two operations take a detour, because torch's are not the same
everywhere: its float32 square root is not correctly rounded on every CPU, so the root is taken in float64; and division
by a number may become a multiplication by its inverse, so divisors are tensors. The rules, the moments and the random
words have twins of their own, named as their kernels are: `hypentropy_twin`, `paper_twin` and so on.

Under torch.compile, pass as 0-dim tensors what changes from step to step (lr or the scalars, and the step): nothing is
compiled again then.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from lnsnum import __version__
from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels import hypentropy, hypentropy_twin, paper_twin, step_numbers
from lnsnum.torch_bridge.kernels.codes_twin import CODE_DTYPES, as_codes, is_real, power_of_two
from lnsnum.torch_bridge.kernels.hypentropy_twin import root
from lnsnum.torch_bridge.kernels.moments_twin import (
    first_exponent,
    greatest_gradient,
    load_moment,
    load_momentum,
    moment_codes,
    momentum_codes,
    raise_exponent,
)
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part
from lnsnum.torch_bridge.kernels.random_words_twin import draw_keys, indices, words_of
from lnsnum.torch_bridge.kernels.step_numbers import Choices, Rule, StepNumbers, StepRounding, StepScalars, Zero

__all__ = ["Step", "apply_step", "first_exponent", "madam_step", "raise_exponent", "step_scalars"]

_LEAST_NORMAL = 2.0**-126
_GREATEST_GRADIENT = 2.0**60
_INFINITY = 0x7F800000
_SIZE = 0x7FFFFFFF


class Step(NamedTuple):
    """What a step makes of its arrays."""

    codes: torch.Tensor
    second_moment: torch.Tensor
    momentum_codes: torch.Tensor | None
    counts: torch.Tensor
    """int64: moved, at the ceiling, at the floor, zero, changed in sign, not finite, as in `StepCounts`."""
    greatest: torch.Tensor
    """The bits of the greatest finite |gradient|: 0-dim, int32."""


def step_scalars(fmt: LNSFormat, rule: Rule, numbers: StepNumbers, *, coded: bool) -> StepScalars:
    """Those of `lnsnum.torch_bridge.kernels.step_numbers.step_scalars` as 0-dim float32 tensors, of numbers or 0-dim
    tensors.

    The arithmetic is that of float64 tensors, so `lr`, `kappa` and the products are best given in float64. An lr that
    is no number from 0 on, which no one can refuse within a graph, moves nothing.
    """
    n = numbers

    def double(x: torch.Tensor | float) -> torch.Tensor:
        # float64 throughout, as Python's floats are, so that tensors and numbers come to the same float32
        return x.to(torch.float64) if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64)

    lr = double(n.lr)
    lr = torch.where((lr >= 0.0) & (lr < math.inf), lr, 0.0)
    steps = lr * (1 << fmt.fraction_bits)
    # the divisor is a tensor: division by a number may become a product with its inverse, of other last bits
    rate = lr * double(n.kappa) if rule == "hypentropy" else steps / torch.full_like(steps, math.log(fmt.base))
    decay = (lr if rule == "hypentropy" else rate) * n.weight_decay
    one = torch.ones((), dtype=torch.float64)
    is_tensor = isinstance(n.exponent, torch.Tensor)
    # by the exponent's field: pow is not exact in every library
    power = power_of_two(n.exponent.to(torch.int64)) if is_tensor else double(2.0**n.exponent)
    values = (
        1.0 / power if coded else one,
        double(n.beta),
        # before beta is rounded, as in the kernel's scalars
        double(1.0 - n.beta),
        1.0 / (1.0 - double(n.beta_product)),
        double(n.momentum),
        double(1.0 - n.momentum),
        1.0 / (1.0 - double(n.momentum_product)),
        one if coded else power,
        one if coded else 1.0 / power,
        double(n.g_bound).clamp(max=step_numbers.GREATEST_BOUND),
        rate.clamp(max=2.0**100),
        decay.clamp(max=2.0**30),
    )
    # rounded once, here
    return StepScalars(*(value.to(torch.float32) for value in values))


def madam_step(
    codes: torch.Tensor,
    gradient: torch.Tensor,
    second_moment: torch.Tensor,
    fmt: LNSFormat,
    *,
    lr: torch.Tensor | float,
    step: torch.Tensor | int,
    unit: torch.Tensor | float = 1.0,
    inner: int = 1,
    kappa: torch.Tensor | float = 1.0,
    momentum_codes: torch.Tensor | None = None,
    exponent: torch.Tensor | int = 0,
    g_bound: float = 10.0,
    beta: float = 0.999,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    beta_product: torch.Tensor | float | None = None,
    momentum_product: torch.Tensor | float | None = None,
    rule: Rule = "hypentropy",
    rounding: StepRounding | None = None,
    zero: Zero | None = None,
    seed: int = 0,
    stream: int = 0,
    start: int = 0,
    rows: torch.Tensor | None = None,
) -> Step:
    """One step of Madam: what `lnsnum.torch_bridge.kernels.update.madam_step` writes, as new tensors.

    Args: as there, as tensors of any shape; codes of uint8 or int16. `lr`, `step`, `kappa`, `exponent` and the products
        may be 0-dim tensors; with a step that is a tensor, beta_product (and momentum_product, where momentum is not 0)
        must be given, because a power is not the same to the bit in every library.

    Raises:
        TypeError: where a tensor is of another dtype.
        ValueError: for an unknown rule, rounding or zero policy, for a format that is none for the rule, for tensors of
            different shapes, for a momentum without codes, and for a product that is missing.

    >>> from lnsnum import lns8f3
    >>> codes = torch.tensor([64, 192, 0], dtype=torch.uint8)
    >>> madam_step(codes, torch.ones(3), torch.zeros(3), lns8f3, lr=0.5, step=1, unit=8.0).codes
    tensor([ 56, 196, 145], dtype=torch.uint8)
    """
    choices = Choices.of(rule, rounding, zero)
    _check(codes, gradient, second_moment, momentum_codes, fmt)
    if momentum_codes is None and momentum != 0.0:
        raise ValueError(f"momentum={momentum} needs momentum_codes")
    products: list[Any] = [beta_product, momentum_product]
    for i, (name, decay) in enumerate((("beta", beta), ("momentum", momentum))):
        if products[i] is None:
            if isinstance(step, torch.Tensor) and decay != 0.0:
                raise ValueError(f"{name}_product is missing: give the product of {name} over the steps so far")
            products[i] = 0.0 if isinstance(step, torch.Tensor) else decay**step
    traced = torch.compiler.is_compiling() or any(
        isinstance(given, torch.Tensor) for given in (lr, kappa, exponent, *products)
    )
    numbers = StepNumbers(lr, kappa, exponent, products[0], products[1], g_bound, beta, momentum, weight_decay)
    # numbers alone take the kernel's own way, without 0-dim tensors
    scalars = (step_scalars if traced else step_numbers.step_scalars)(
        fmt, choices.rule, numbers, coded=second_moment.dtype == torch.uint8
    )
    units = torch.as_tensor(unit, dtype=torch.float32, device=codes.device)
    if units.ndim:
        at = indices(codes.shape, start=start, rows=rows, device=codes.device)
        # an element's own, where the kernel fills runs of equal ones
        units = units[at // inner % units.numel()]
    arrays = codes, gradient, second_moment, momentum_codes, rows, units
    return _run(*arrays, fmt, scalars, choices, Draw(seed, stream, step), start)


def apply_step(
    codes: torch.Tensor,
    gradient: torch.Tensor,
    second_moment: torch.Tensor,
    momentum_codes: torch.Tensor | None,
    fmt: LNSFormat,
    scalars: StepScalars,
    choices: Choices,
    units: torch.Tensor,
    draw: Draw,
    *,
    start: int = 0,
    rows: torch.Tensor | None = None,
    part: Part = WHOLE,
) -> Step:
    """`madam_step` with its scalars made: tensors, or numbers that are float32 numbers.

    `units` are float32 and broadcast to the codes; with `rows`, to the parameter whose rows these are. `part` is where
    the codes are within the parameter, if they are a shard.
    """
    units = units.to(codes.device)
    # a unit for each row goes with the rows; one for all has nothing to choose from
    if rows is not None and units.ndim and units.shape[0] != 1:
        units = units[rows]
    return _run(codes, gradient, second_moment, momentum_codes, rows, units, fmt, scalars, choices, draw, start, part)


def _check(
    codes: torch.Tensor,
    gradient: torch.Tensor,
    second_moment: torch.Tensor,
    momentum_codes: torch.Tensor | None,
    fmt: LNSFormat,
) -> None:
    kinds: dict[str, tuple[torch.Tensor | None, list[torch.dtype]]] = {
        "codes": (codes, [CODE_DTYPES[fmt.dtype.itemsize]]),
        "gradient": (gradient, [torch.float32]),
        "second_moment": (second_moment, [torch.uint8, torch.float32]),
        "momentum_codes": (momentum_codes, [torch.uint8]),
    }
    for what, (tensor, dtypes) in kinds.items():
        if tensor is None:
            continue
        if tensor.dtype not in dtypes:
            raise TypeError(f"{what} is of {tensor.dtype}: give {' or '.join(map(str, dtypes))}")
        if tensor.shape != codes.shape:
            raise ValueError(f"{what} of shape {tuple(tensor.shape)} is not of the codes' shape {tuple(codes.shape)}")


def _run(
    codes: torch.Tensor,
    gradient: torch.Tensor,
    second_moment: torch.Tensor,
    momentum_codes: torch.Tensor | None,
    rows: torch.Tensor | None,
    units: torch.Tensor,
    fmt: LNSFormat,
    scalars: StepScalars,
    choices: Choices,
    draw: Draw,
    start: int,
    part: Part = WHOLE,
) -> Step:
    """By one operator of torch's library where Dynamo traces, which must not look into the making of tables."""
    arrays: Any = codes, gradient, second_moment, momentum_codes, rows, units
    numbers: Any = fmt.bits, fmt.fraction_bits, fmt.base, *choices, draw.seed, draw.stream, start, list(part)
    if torch.compiler.is_dynamo_compiling():
        # the operator takes tensors in these places, and nothing else: numbers are made into them
        tensors = [s if isinstance(s, torch.Tensor) else torch.tensor(s, dtype=torch.float32) for s in scalars]
        step = draw.step if isinstance(draw.step, torch.Tensor) else torch.tensor(draw.step, dtype=torch.int64)
        out = torch.ops.lnsnum.madam_step(*arrays, *numbers, step, tensors, __version__)
    else:
        rest: Any = draw.step, list(scalars), __version__
        out = _step(*arrays, *numbers, *rest)
    return Step(out[0], out[1], None if momentum_codes is None else out[4], out[2], out[3])


def _step(
    codes: torch.Tensor, gradient: torch.Tensor, second_moment: torch.Tensor, momentum: torch.Tensor | None,
    rows: torch.Tensor | None, units: torch.Tensor, bits: int, fraction_bits: int, base: float, rule: str,
    rounding: str, zero: str, seed: int, stream: int, start: int, part: list[int], step: torch.Tensor | int,
    scalars: list[Any], version: str,
) -> list[torch.Tensor]:  # fmt: skip
    """The step with the numbers of the format, which is what an operator takes; returns codes, second moment, counts,
    the greatest gradient and, where there is one, momentum."""
    fmt = LNSFormat(bits, fraction_bits, base=base)
    if rule == "hypentropy":
        hypentropy.check_format(fmt)
    by = StepScalars(*(_scalar(scalar, codes) for scalar in scalars))
    index = indices(codes.shape, start=start, rows=rows, part=Part(*part), device=codes.device)
    # the first two keys; the others are for scales that grow
    words = words_of(index, *draw_keys(Draw(seed, stream, step))[:2])

    # by the bits, as the kernel has it: NaN and infinity are the greatest of them
    finite = (gradient.view(torch.int32) & _SIZE) < _INFINITY
    # 0 for what is thrown away in the end; clamped, as the product may be infinite and the square is to be finite
    g = torch.where(finite, gradient * by.gradient_scale, 0.0).clamp(-_GREATEST_GRADIENT, _GREATEST_GRADIENT)
    v = load_moment(second_moment) if second_moment.dtype == torch.uint8 else second_moment
    # each operation by itself and in the kernel's order: addcmul and lerp may fuse two of them
    new = by.beta * v + by.rest * (g * g)
    # the bound keeps 0 from being a divisor; what it changed is set to 0 below
    per_v = root((new * by.correction).clamp(min=_LEAST_NORMAL))
    u = None
    if momentum is not None:
        u = by.momentum * load_momentum(momentum, by.momentum_load) + by.momentum_rest * g
        g = u * by.momentum_correction
    g_hat = (g / per_v).clamp(-by.g_bound, by.g_bound)
    drive = torch.where(new >= _LEAST_NORMAL, g_hat, 0.0) * by.rate
    # the mark by which the rules leave an element as it is
    drive = torch.where(finite, drive, torch.nan)

    # int16 brings its sign along: masked, codes are from 0 on
    code = codes.to(torch.int32) & ((1 << fmt.bits) - 1)
    if rule == "paper":
        moved, counted = paper_twin.move(code, drive, by.decay, fmt, rounding, words, leave=zero == "leave")
    else:
        moved, counted = hypentropy_twin.move(code, drive, units, by.decay, fmt, words, keep=zero == "keep")
    # still tensors: nobody waits for the device here
    counts = torch.stack([what.sum() for what in (*counted, ~finite)])

    if second_moment.dtype == torch.uint8:
        # what is kept is rounded; g_hat took v before
        new = moment_codes(new, words).to(torch.uint8)
    out = [as_codes(moved, fmt), torch.where(finite, new, second_moment), counts, greatest_gradient(gradient)]
    if momentum is not None and u is not None:
        out.append(torch.where(finite, momentum_codes(u, words, by.momentum_store).to(torch.uint8), momentum))
    return out


_OPERATORS = torch.library.Library("lnsnum", "FRAGMENT")
_OPERATORS.define(
    "madam_step(Tensor codes, Tensor gradient, Tensor second_moment, Tensor? momentum_codes, Tensor? rows, "
    "Tensor units, int bits, int fraction_bits, float base, str rule, str rounding, str zero, int seed, int stream, "
    "int start, int[] part, Tensor step, Tensor[] scalars, str version) -> Tensor[]"
)
_OPERATORS.impl("madam_step", _step, "CompositeImplicitAutograd")


def _scalar(scalar: Any, codes: torch.Tensor) -> Any:
    """A scalar as operations on the device of the codes take it: a Python number, or what is traced, a tensor there."""
    if not isinstance(scalar, torch.Tensor) or (scalar.device.type == "cpu" and is_real(scalar)):
        # a float32 as a Python number is exact, and joins float32 tensors without making them wider
        return float(scalar)
    return scalar.to(codes.device)
