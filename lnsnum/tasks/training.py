"""The training loop, and what it costs: classification by minibatches with a learning rate that falls linearly to zero.

    lr(t)  =  lr * (1 - t / steps)

Everything random comes from the seed: the network's first weights, the order of the images, dropout, stochastic
rounding.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.profiler import ProfilerActivity, profile

from lnsnum.tasks import TaskError
from lnsnum.torch_bridge import Madam
from lnsnum.torch_bridge.madam import DEFAULT_LR

BATCH_SIZE = 64

DEFAULT_LRS = {"madam": DEFAULT_LR, "adam": 1e-3, "sgd": 0.1}
"""Adam's is the one of its paper; SGD has a momentum of 0.9."""


class Data(NamedTuple):
    """Images of shape (N, channels, height, width) and labels of shape (N,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def subset(self, index: torch.Tensor) -> Data:
        """The images at `index`."""
        return Data(self.images[index], self.labels[index])


@dataclass
class History:
    """One entry a step."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    """Share of the minibatch that was classified rightly, before the step."""
    moved: list[float] = field(default_factory=list)
    """Share of LNS weights whose code changed (0 without Madam)."""


def step_count(data: Data, epochs: int) -> int:
    """Training steps in so many epochs."""
    return epochs * -(-len(data.labels) // BATCH_SIZE)


def weight_count(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def make_optimizer(name: str, model: nn.Module, lr: float | None, seed: int) -> Optimizer:
    """Madam, Adam or SGD with momentum; `lr=None` takes the default of `DEFAULT_LRS`."""
    lr = DEFAULT_LRS[name] if lr is None else lr
    if name == "madam":
        return Madam(model.parameters(), lr=lr, seed=seed)
    if name == "adam":
        return torch.optim.Adam(model.parameters(), lr=lr)
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def train(model: nn.Module, optimizer: Optimizer, data: Data, *, epochs: int, seed: int) -> Iterator[History]:
    """Train; yields the same growing history after every step.

    Raises:
        TaskError: where the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = step_count(data, epochs)
    schedule = LambdaLR(optimizer, lambda t: 1 - t / steps)
    history = History()
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(data.labels), generator=generator).split(BATCH_SIZE):
            images, labels = data.subset(batch)
            optimizer.zero_grad(set_to_none=True)
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            history.loss.append(loss.item())
            if not torch.isfinite(loss):
                raise TaskError(f"the loss is {history.loss[-1]} at step {len(history.loss)}: try a smaller --lr")
            loss.backward()
            optimizer.step()
            schedule.step()
            history.accuracy.append(float((logits.argmax(1) == labels).float().mean()))
            history.moved.append(optimizer.step_report().moved if isinstance(optimizer, Madam) else 0.0)
            yield history


@torch.no_grad()
def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The outputs in evaluation mode, in one batch."""
    model.eval()
    return model(images)  # type: ignore[no-any-return]


def accuracy(model: nn.Module, data: Data) -> float:
    """Share of the images that are classified rightly."""
    return float((logits(model, data.images).argmax(1) == data.labels).float().mean())


class Footprint(NamedTuple):
    """Bytes per parameter while training, measured on one step."""

    weights: float
    optimizer_state: float
    gradients: float
    peak: float
    """Weights, optimizer state, and the most that one step allocates beside them: gradients, activations, decoded
    weights."""


def measure_footprint(model: nn.Module, optimizer: Optimizer, data: Data) -> Footprint:
    """The bytes that tensors take in one more training step on one minibatch, from torch's own allocation records.

    The step is a real one: it changes the model.
    """
    parameters = list(model.parameters())
    count = weight_count(model)
    model.train()
    optimizer.zero_grad(set_to_none=True)
    with _no_log_lines(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        F.cross_entropy(model(data.images[:BATCH_SIZE]), data.labels[:BATCH_SIZE]).backward()
        gradients = sum(p.grad.nbytes for p in parameters if p.grad is not None)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    weights = sum(p.nbytes for p in parameters)
    states = optimizer.state.values()
    state = sum(v.nbytes for s in states for v in s.values() if isinstance(v, torch.Tensor))
    peak = weights + state + peak_allocation(record)
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
