"""One training step of a small transformer: native 8-bit weights with Madam against float32 with fused Adam.

Four layers, 256 wide, four heads, on batches of 32 sequences of 128 tokens. The models take steps in turn, in one
process; the figure is the median of the steps' times over that of float32 Adam's.

    python benchmarks/training_step.py
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.torch_bridge import Madam, convert_model

VOCABULARY, WIDTH, LAYERS, BATCH, LENGTH = 256, 256, 4, 32, 128


class Transformer(nn.Module):
    """A causal language model."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next token at each place."""
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.layers(x, mask=self.mask, is_causal=True))


def make_runs() -> dict[str, Callable[[], None]]:
    """A function for each optimizer that takes one training step."""
    torch.manual_seed(0)
    floats = Transformer()
    tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH + 1))

    def run(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            logits = model(tokens[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            optimizer.step()

        return step

    runs = {}
    for momentum, attached in ((0.0, False), (0.9, False), (0.0, True)):
        model = copy.deepcopy(floats)
        convert_model(model, "lns8f5")
        optimizer = Madam(model.parameters(), momentum=momentum)
        name = "lns8f5, Madam" + (" with momentum" if momentum else "")
        if attached:
            optimizer.attach(model)
            name += " in backward"
        runs[name] = run(model, optimizer)
    return {"float32, fused Adam": run(floats, torch.optim.Adam(floats.parameters(), lr=1e-3, fused=True)), **runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    runs = make_runs()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + 2):
        for name, step in runs.items():
            begin = time.perf_counter()
            step()
            if i >= 2:  # the first two load, compile and allocate
                times[name].append(time.perf_counter() - begin)
    count = sum(p.numel() for p in Transformer().parameters())
    print(f"transformer {LAYERS} x {WIDTH}, {count:,} parameters, batch {BATCH} x {LENGTH}, {repeats} steps in turn")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    baseline = statistics.median(times["float32, fused Adam"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:32}{1e3 * median:9.1f} ms{median / baseline:8.3f}")


if __name__ == "__main__":
    main()
