"""Fine-tuning a float network in LNS: digits as they are, then the same digits mirrored.

A float32 network is trained on the images by Adam, then fine-tuned on mirrored ones: in float32 by Adam, and as codes
by Madam, which keeps every sign. "signs" is the share of weights whose sign is another after fine-tuning; "before" is
the accuracy on mirrored test images before it. Means over seeds, in %.

    python benchmarks/fine_tuning.py
"""

from __future__ import annotations

import argparse
import copy

import torch
from torch import nn

from lnsnum.tasks import digits, training
from lnsnum.tasks.training import Data
from lnsnum.torch_bridge import convert_model

RUNS: dict[str, tuple[str | None, float | None]] = {
    "float32, Adam": (None, None),
    "lns8f5, Madam 0.05": ("lns8f5", 0.05),
    "lns8f5, Madam 0.02": ("lns8f5", 0.02),
    "lns8f4, Madam 0.05": ("lns8f4", 0.05),
    "lns8f4, Madam 0.02": ("lns8f4", 0.02),
}


def mirrored(data: Data) -> Data:
    return Data(data.images.flip(-1), data.labels)


def train(model: nn.Module, name: str, lr: float | None, data: Data, epochs: int, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in training.train(model, training.make_optimizer(name, model, lr, seed), data, epochs=epochs, seed=seed):
        pass


def signs(model: nn.Module) -> torch.Tensor:
    return torch.cat([torch.sign(p.detach() * 1.0).flatten() for p in model.parameters() if p.ndim > 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept, held_out = digits.split(digits.load())
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in RUNS}
    for seed in range(arguments.seeds):
        torch.manual_seed(seed)
        original = digits.network()
        train(original, "adam", None, kept, 30, seed)
        for name, (fmt, lr) in RUNS.items():
            model = copy.deepcopy(original)
            if fmt:
                convert_model(model, fmt, seed=seed)
            before = training.accuracy(model, mirrored(held_out)), signs(model)
            train(model, "madam" if fmt else "adam", lr, mirrored(kept), arguments.epochs, seed)
            flipped = float((signs(model) != before[1]).float().mean())
            figures[name].append((before[0], training.accuracy(model, mirrored(held_out)), flipped))
    print(f"fine-tuning on mirrored digits, {arguments.epochs} epochs, {arguments.seeds} seeds, in %")
    print(f"{'':22}{'before':>9}{'after':>9}{'signs':>9}")
    for name, rows in figures.items():
        print(f"{name:22}" + "".join(f"{100 * sum(column) / len(rows):9.2f}" for column in zip(*rows, strict=True)))


if __name__ == "__main__":
    main()
