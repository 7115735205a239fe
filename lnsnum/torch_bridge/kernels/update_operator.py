"""Madam's step on a graphics card as an operator of torch's library: what a graph of torch.compile holds of it.

Out of place, as graphs want it, and opaque to the compiler. It could look into a kernel (`torch.library.triton_op` and
`wrap_triton`), but it would compile that anew and drop `enable_fp_fusion=False`, as of the options of a launch it keeps
those that it knows (num_warps, num_stages) and no more: products would be fused with sums, into other bits. Nothing
here asks the host: the numbers that change are tensors on the card, so CUDA graphs may record it.
"""

from __future__ import annotations

from typing import Any

import torch

from lnsnum.format import LNSFormat
from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge.kernels.random_words import Part
from lnsnum.torch_bridge.kernels.scale import blocks_within
from lnsnum.torch_bridge.kernels.step_numbers import Choices


def _madam_step_on_card(
    codes: torch.Tensor, gradient: torch.Tensor, second_moment: torch.Tensor, momentum: torch.Tensor | None,
    units: torch.Tensor, changing: list[torch.Tensor], options: list[float], bits: int, fraction_bits: int,
    base: float, rule: str, rounding: str, zero: str, seed: int, stream: int, start: int, part: list[int], version: str,
) -> list[torch.Tensor]:  # fmt: skip
    """New codes, second moment, counts, greatest |gradient| and, where there is one, momentum, as of `update_twin`.

    `units` broadcast to the codes; `changing` and `options` are those of `step_row_triton`.
    """
    from lnsnum.torch_bridge.kernels import step_row_triton, update_triton  # here, as triton is there for cards alone

    fmt, choices = LNSFormat(bits, fraction_bits, base=base), Choices(rule, rounding, zero)  # type: ignore[arg-type]
    own: list[Any] = [None if t is None else _copied(t) for t in (codes, second_moment, momentum)]
    arrays = own[0], gradient.contiguous(), own[1], own[2]
    if not codes.numel():
        counts = torch.zeros(7, dtype=torch.int64, device=codes.device)
    else:
        inner, runs = blocks_within(units, codes.shape) if units.ndim else (1, units.reshape(1))
        runs, place = runs.contiguous(), Part(*part)
        by = step_row_triton.Changing(*changing), step_row_triton.Options(*options)
        row = step_row_triton.make_row(arrays, runs, Walk(inner), *by, fmt, choices.rule, seed, stream, start, place)
        update_triton.step_by_row(arrays, row, runs.numel(), Walk(inner), start, place, fmt, choices)
        counts = row.counts
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
