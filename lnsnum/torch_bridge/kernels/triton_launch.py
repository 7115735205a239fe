"""How the Triton kernels are launched: the options that keep their bits, and how many elements a program takes.

    enable_fp_fusion=False      products and sums are rounded one by one, as on the CPU
    the tensors' own card       Triton launches on the current card and its stream, whatever the tensors are on

Triton's interpreter (TRITON_INTERPRET=1, set before triton is imported) runs the same kernels in NumPy on the CPU. It
pays for operations, not for elements, so programs are large there.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl

OPTIONS: dict[str, Any] = {"enable_fp_fusion": False}
"""Of every launch, and of what is compiled ahead of time."""

BLOCK = 2048
"""Elements of a program at a time on a card: 16 a thread, as many codes as one load brings."""

_INTERPRETED_BLOCK = 1 << 16

ALIGNMENT = 16
"""Addresses and sizes that are multiples of this are read in whole vectors."""

NARROW = 1 << 31
"""Indices below are 32 bits wide."""


def launch(kernel: Any, grid: tuple[int, ...], device: torch.device, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on the card that its tensors are on. On another, and another's stream, it would read and write
    across cards where they reach each other, in no order with what torch does to these tensors, and else fail."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **constants, **OPTIONS)


def block_of(size: int, on_card: int = BLOCK) -> int:
    """How many elements a program takes at a time, of so many in all: `on_card`, or many in the interpreter."""
    if not triton.knobs.runtime.interpret:
        return on_card
    return int(min(_INTERPRETED_BLOCK, triton.next_power_of_2(max(size, 16))))


def programs(size: int, block: int) -> tuple[int]:
    """The grid that covers so many elements."""
    return (-(-size // block),)


def is_aligned(*tensors: torch.Tensor | None) -> bool:
    """Whether all tensors begin at a multiple of 16 bytes."""
    return all(t is None or t.data_ptr() % ALIGNMENT == 0 for t in tensors)


@triton.jit
def as_float32(x, BITS: tl.constexpr):
    """Floats as float32, exactly; those of bfloat16 are given as their bits (int16), subnormal ones included."""
    if BITS:
        return (x.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return x.to(tl.float32)


def readable(x: torch.Tensor) -> torch.Tensor:
    """A tensor as `as_float32` takes it."""
    return x.view(torch.int16) if x.dtype == torch.bfloat16 else x
