"""Memory of training: a stack of linear layers with 50 million parameters, in bytes a parameter.

Each optimizer runs in a process of its own. "resident" is the growth of the process's resident set, at its peak, over
what it was before the model was made (libraries loaded, kernels compiled, threads started), conversion of the model
layer after layer included; "tensors" is what torch holds and allocates at its peak, by its own records; both hold the
activations of the small minibatch, which are printed too. "returned" is the resident growth with the environment
variable MALLOC_MMAP_THRESHOLD_=1048576, which makes glibc return large blocks to the system when they are freed: left
to itself it keeps those of up to 32 MB, and small blocks that lie between them.

    python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lnsnum.tasks.footprint import peak_allocation
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model

WIDTH, DEPTH, BATCH, STEPS = 2048, 12, 16, 4

RUNS = {
    "float32, Adam": "adam",
    "lns8f5, Madam": "madam",
    "lns8f5, Madam with momentum": "momentum",
    "lns8f5, Madam in backward": "attached",
    "lns8f5, Madam with momentum in backward": "attached momentum",
}


def build(kind: str, width: int, depth: int) -> nn.Module:
    """Layer after layer, so that at most one is in float at a time."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        if kind != "adam":
            convert_model(layer, "lns8f5")
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)


def make_optimizer(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    if kind == "adam":
        return torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    optimizer = Madam(model.parameters(), lr=0.02, momentum=0.9 if "momentum" in kind else 0.0)
    if "attached" in kind:
        optimizer.attach(model)
    return optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, width: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = torch.randn(BATCH, width, generator=generator)
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def resident(key: str) -> int:
    """VmRSS or VmHWM (its peak) in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def measure(kind: str) -> dict[str, float]:
    small = build(kind, 512, 2)  # loads and compiles all that the run will use
    train(small, make_optimizer(kind, small), 512, 2)
    del small
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    model = build(kind, WIDTH, DEPTH)
    optimizer = make_optimizer(kind, model)
    train(model, optimizer, WIDTH, STEPS)
    growth = resident("VmHWM") - before
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters)
    weights = sum(p.nbytes for p in parameters)
    state = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        train(model, optimizer, WIDTH, 1)
    assert all(isinstance(p, LNSWeight) for p in parameters) or kind == "adam"
    in_step = peak_allocation(record)
    return {
        "weights": weights / count,
        "state": state / count,
        "tensors": (weights + state + in_step) / count,
        "activations": 2 * DEPTH * BATCH * WIDTH * 4 / count,
        "resident": growth / count,
    }


def run(command: list[str], variables: dict[str, str]) -> dict[str, float]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}  # the profiler writes log lines
    result = subprocess.run(command, check=True, env={**os.environ, **variables}, **streams)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", choices=RUNS.values(), help="measure this one alone, in this process, as JSON")
    kind = parser.parse_args().run
    if kind:
        print(json.dumps(measure(kind)))
        return
    print(f"{DEPTH} x Linear({WIDTH}, {WIDTH}), {DEPTH * (WIDTH + 1) * WIDTH:,} parameters, batch {BATCH}")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; bytes a parameter\n")
    columns = "weights", "state", "tensors", "activations", "resident", "returned"
    print(f"{'':41}" + "".join(f"{c:>13}" for c in columns))
    for name, kind in RUNS.items():
        command = [sys.executable, __file__, "--run", kind]
        figures = run(command, {})
        figures["returned"] = run(command, {"MALLOC_MMAP_THRESHOLD_": "1048576"})["resident"]
        print(f"{name:41}" + "".join(f"{figures[c]:13.2f}" for c in columns))


if __name__ == "__main__":
    main()
