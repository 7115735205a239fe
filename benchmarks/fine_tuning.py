"""Fine-tuning a float network in LNS: digits as they are, then the same digits mirrored.

A float32 network is trained on the images by Adam, then fine-tuned on mirrored ones: in float32 by Adam, and as codes
by Madam. "signs" is the share of weights whose sign is another after fine-tuning; "before" is
the accuracy on mirrored test images before it. Means over seeds, in %.

    python benchmarks/fine_tuning.py
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from torch import nn

from lnsnum.tasks import training
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.digits import load_digits
from lnsnum.tasks.images import Data, ImageSet
from lnsnum.tasks.recipe import Recipe

PAPER: dict[str, Any] = {"rule": "paper", "ceiling": "fixed", "zeros": "redraw"}
RUNS: dict[str, Recipe] = {
    "float32, Adam": Recipe("float32", "adam"),
    "lns8f5, Madam 0.05": Recipe("lns8f5", lr=0.05),
    "lns8f5, Madam 0.02": Recipe("lns8f5", lr=0.02),
    "lns8f4, Madam 0.05": Recipe("lns8f4", lr=0.05),
    "lns8f5, paper's 0.05": Recipe("lns8f5", lr=0.05, **PAPER),
}


def mirrored(images: ImageSet) -> ImageSet:
    train, test = (Data(data.images.flip(-1), data.labels) for data in images[:2])
    return images._replace(train=train, test=test)


def train(task: Classification, model: nn.Module, recipe: Recipe, epochs: int, seed: int) -> None:
    torch.manual_seed(seed)
    optimizer = recipe.optimizer_for(model, seed)
    for _ in training.train(task, model, optimizer, recipe, steps=epochs * task.epoch_steps, seed=seed):
        pass


def signs(model: nn.Module) -> torch.Tensor:
    return torch.cat([torch.sign(p.detach() * 1.0).flatten() for p in model.parameters() if p.ndim > 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = load_digits()
    plain, mirror = Classification(images), Classification(mirrored(images))
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in RUNS}
    for seed in range(arguments.seeds):
        torch.manual_seed(seed)
        original = plain.network()
        train(plain, original, Recipe("float32", "adam"), 30, seed)
        for name, recipe in RUNS.items():
            model = copy.deepcopy(original)
            recipe.convert(model, seed)
            before = mirror.score(model), signs(model)
            train(mirror, model, recipe, arguments.epochs, seed)
            flipped = 100 * float((signs(model) != before[1]).float().mean())
            figures[name].append((before[0], mirror.score(model), flipped))
    print(f"fine-tuning on mirrored digits, {arguments.epochs} epochs, {arguments.seeds} seeds, in %")
    print(f"{'':22}{'before':>9}{'after':>9}{'signs':>9}")
    for name, rows in figures.items():
        print(f"{name:22}" + "".join(f"{sum(column) / len(rows):9.2f}" for column in zip(*rows, strict=True)))


if __name__ == "__main__":
    main()
