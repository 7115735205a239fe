"""Medians of times on a card, by its own events; on the CPU (for a dry run in Triton's interpreter) by the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

Call = Callable[[], object]

SECONDS = 0.25
"""Of all timings of a call together, about."""


def median(call: Call, device: torch.device, seconds: float = SECONDS) -> float:
    """Seconds of a call: the median of as many as fit, five at least (one in a dry run)."""
    if device.type != "cuda":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    for _ in range(2):  # the first compiles and allocates
        call()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < seconds and len(times) < 200):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def copy(traffic: int, device: torch.device) -> float:
    """Seconds of a copy that reads and writes so many bytes in all."""
    source = torch.ones(max(traffic // 2, 1), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return median(lambda: target.copy_(source), device)


def peak(call: Call, device: torch.device) -> int:
    """The most bytes that torch holds on the card while a call runs."""
    if device.type != "cuda":
        call()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(device)
