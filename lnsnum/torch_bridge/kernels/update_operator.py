"""Madam's step on a graphics card as an operator of torch's library: what a graph of torch.compile holds of it.

Out of place, as graphs want it, and opaque to the compiler: what it made itself of torch's operations, or of a kernel
that it can look into (`torch.library.triton_op`), it would compile with options of its own, which may fuse products and
sums into other bits.
"""

from __future__ import annotations

from typing import Any

import torch

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels.random_words import Draw, Part
from lnsnum.torch_bridge.kernels.scale import blocks_within
from lnsnum.torch_bridge.kernels.update import Choices, StepScalars


def _madam_step_on_card(
    codes: torch.Tensor, gradient: torch.Tensor, second_moment: torch.Tensor, momentum: torch.Tensor | None,
    units: torch.Tensor, bits: int, fraction_bits: int, base: float, rule: str, rounding: str, zero: str, seed: int,
    stream: int, start: int, part: list[int], step: torch.Tensor, scalars: list[torch.Tensor], version: str,
) -> list[torch.Tensor]:  # fmt: skip
    """New codes, second moment, counts, greatest |gradient| and, where there is one, momentum, as of `update_twin`."""
    from lnsnum.torch_bridge.kernels import update_triton  # here, as triton is there for cards alone

    fmt, choices = LNSFormat(bits, fraction_bits, base=base), Choices(rule, rounding, zero)  # type: ignore[arg-type]
    own: list[Any] = [None if t is None else _copied(t) for t in (codes, second_moment, momentum)]
    inner, runs = blocks_within(units, codes.shape) if units.ndim else (1, units.reshape(1))
    weight = update_triton.Stepped(
        own[0], gradient.contiguous(), own[1], own[2], runs.to(codes.device).contiguous(), inner,
        StepScalars(*(float(scalar) for scalar in scalars)), Draw(seed, stream, int(step)), start, None, Part(*part),
    )  # fmt: skip
    counts = update_triton.step_list([weight], fmt, choices)[0]
    return [*own[:2], counts[:6].clone(), counts[6].to(torch.int32), *own[2:][: momentum is not None]]


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


madam_step_on_card = torch.library.custom_op("lnsnum::madam_step_on_card", _madam_step_on_card, mutates_args=())


@madam_step_on_card.register_fake
def _shapes(codes: Any, gradient: Any, second_moment: Any, momentum: Any, *rest: Any) -> list[torch.Tensor]:
    contiguous = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (codes, second_moment)]
    counts = torch.empty(6, dtype=torch.int64, device=codes.device)
    greatest = torch.empty((), dtype=torch.int32, device=codes.device)
    new = [] if momentum is None else [torch.empty(codes.shape, dtype=momentum.dtype, device=codes.device)]
    return [*contiguous, counts, greatest, *new]
