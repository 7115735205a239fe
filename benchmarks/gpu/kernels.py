"""Decode, encode and Madam's step, in GB/s and as a share of what a copy of the same traffic does; AdamW beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import clock
from lnsnum import lns8f5
from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels import step_numbers, update_triton
from lnsnum.torch_bridge.kernels.random_words import Draw
from lnsnum.torch_bridge.kernels.scale import Scale
from lnsnum.torch_bridge.kernels.step_numbers import Choices, StepNumbers

MARKS = {"decode": 0.8, "encode nearest": 0.8, "encode stochastic_value": 0.7, "step": 0.75, "step, momentum": 0.75}


def measure(sizes: list[int], device: torch.device) -> Iterator[dict[str, Any]]:
    """A row for each kernel and size, as far as the card's memory goes."""
    for size in sizes:
        try:
            for name, (call, traffic) in _calls(size, device).items():
                seconds = clock.median(call, device)
                yield {
                    "what": name,
                    "weights": size,
                    "seconds": seconds,
                    "GB/s": traffic * size / seconds / 1e9,
                    "of a copy": clock.copy(traffic * size, device) / seconds,
                    "mark": MARKS.get(name),
                }
        except torch.OutOfMemoryError:
            yield {"what": "left out", "weights": size, "why": "more than the card's memory"}


def _calls(size: int, device: torch.device) -> dict[str, tuple[clock.Call, int]]:
    """Each with its bytes a weight, written and read."""
    fmt, scale = lns8f5, Scale(-12, -12)
    codes = torch.randint(1, 128, (size,), dtype=torch.uint8, device=device)
    moment, momentum = torch.full_like(codes, 128), torch.zeros_like(codes)
    floats = torch.randn(size, device=device)
    random = torch.randint(-(1 << 31), 1 << 31, (size,), dtype=torch.int32, device=device)

    def step(momenta: torch.Tensor | None, decay: float) -> clock.Call:
        numbers = StepNumbers(0.05, 1.0, 0, 0.5, decay, 10.0, 0.999, decay, 0.0)
        scalars = step_numbers.step_scalars(fmt, "hypentropy", numbers, coded=True)
        unit = np.ones(1, np.float32)
        weight = update_triton.Stepped(codes, floats, moment, momenta, unit, Walk(), scalars, Draw(0, 0, 1))
        return lambda: update_triton.step_list([weight], fmt, Choices())

    stochastic: Any = {"rounding": "stochastic_value", "random_bits": random}
    calls = {
        "decode": (lambda: bridge.decode(codes, fmt, scale, torch.float32), 5),
        "decode to bfloat16": (lambda: bridge.decode(codes, fmt, scale, torch.bfloat16), 3),
        "encode nearest": (lambda: bridge.encode(floats, fmt, scale), 5),
        "encode stochastic_value": (lambda: bridge.encode(floats, fmt, scale, **stochastic), 9),
        "step": (step(None, 0.0), 8),
        "step, momentum": (step(momentum, 0.9), 10),
    }
    if size <= 10**8:  # 16 bytes a weight more
        weight = torch.nn.Parameter(floats.clone())
        weight.grad = floats
        calls["fused AdamW of torch, float32"] = torch.optim.AdamW([weight], fused=True).step, 28
    return calls
