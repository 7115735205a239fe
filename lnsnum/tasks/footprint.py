"""What training costs in memory, measured from what torch holds and allocates."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from lnsnum.tasks.task import Batch, Task
from lnsnum.tasks.training import weight_count
from lnsnum.torch_bridge import LNSWeight
from lnsnum.torch_bridge.datapath.setting import computing


class Footprint(NamedTuple):
    """Bytes per parameter while training, measured on one step."""

    weights: float
    optimizer_state: float
    gradients: float
    peak: float
    """Weights, optimizer state, and the most that one step allocates beside them: gradients, activations, decoded
    weights; NaN where that is not on the CPU."""


def held(model: nn.Module, optimizer: Optimizer) -> tuple[int, int]:
    """Bytes of the weights and of the optimizer's state."""
    states = optimizer.state.values()
    return sum(bytes_of(p) for p in model.parameters()), sum(
        bytes_of(v) for s in states for v in s.values() if isinstance(v, torch.Tensor)
    )


def gradients_held(model: nn.Module) -> int:
    """Bytes of the gradients that the parameters have."""
    return sum(bytes_of(p.grad) for p in model.parameters() if p.grad is not None)


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes in memory: of a tensor that wraps others, such as torchao's, theirs and not what it looks like."""
    if isinstance(tensor, LNSWeight) or not hasattr(tensor, "__tensor_flatten__"):
        return tensor.nbytes
    names, _ = tensor.__tensor_flatten__()
    return sum(bytes_of(getattr(tensor, name)) for name in names)


def measure_footprint(task: Task, model: nn.Module, optimizer: Optimizer, batch: Batch) -> Footprint:
    """The bytes that tensors take in one more training step on one batch, from torch's own allocation records.

    The step is a real one: it changes the model.
    """
    count = weight_count(model)
    model.train()
    optimizer.zero_grad(set_to_none=True)
    with _no_log_lines(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        with computing(model):
            with task.autocast():
                loss = task.loss(model, batch)
            loss.backward()
        gradients = gradients_held(model)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    weights, state = held(model, optimizer)
    peak = weights + state + peak_allocation(record) if task.device.type == "cpu" else math.nan
    return Footprint(weights / count, state / count, gradients / count, peak / count)


@contextlib.contextmanager
def _no_log_lines() -> Iterator[None]:
    """Keep the profiler's own C++ log lines off the terminal."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def peak_allocation(record: profile) -> int:
    """The most bytes alive at once of those allocated within the record."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        record.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    memory = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    alive = peak = 0
    for _, size in memory:
        alive += size
        peak = max(peak, alive)
    return peak
