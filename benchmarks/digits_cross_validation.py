"""5-fold cross-validation on all 1,797 digits: native LNS weights trained by Madam against float32 trained by Adam.

Every image is tested once in each seed's round, by a network that never saw it, after the last epoch.
Both optimizers see the same folds, first weights and order of images. The interval of the difference is the normal
95 % interval of the mean over images of (right by LNS) - (right by float32), averaged over the seeds first.

    python benchmarks/digits_cross_validation.py                     # the comparison, three seeds
    python benchmarks/digits_cross_validation.py --lr 0.01 0.02 ...  # which learning rate
"""

import argparse
import json

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from lnsnum.tasks import training
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.digits import load_all
from lnsnum.tasks.images import ImageSet
from lnsnum.tasks.recipe import Recipe
from lnsnum.torch_bridge.madam import DEFAULT_LR


def right(data, recipe, epochs, seed):
    """Which images are classified rightly when their fold is held out: a boolean array."""
    result = np.zeros(len(data.labels), bool)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(data.images, data.labels)
    for fold, (kept, held_out) in enumerate(folds):
        run_seed = 10 * seed + fold
        parts = (data.subset(torch.from_numpy(index)) for index in (kept, held_out))
        task = Classification(ImageSet(*parts, tuple("0123456789"), "digits"), epochs=epochs)
        model, optimizer = training.start(task, recipe, run_seed)
        for _ in training.train(task, model, optimizer, recipe, steps=task.steps, seed=run_seed):
            pass
        answers = task.outputs(model).argmax(1)
        result[held_out] = (answers == task.test_data.labels).numpy()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", default="lns8f5")
    parser.add_argument("--lr", type=float, nargs="+", default=[DEFAULT_LR])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_all()

    def rounds(recipe):
        return np.array([right(data, recipe, arguments.epochs, seed) for seed in range(arguments.seeds)])

    adam = rounds(Recipe("float32", "adam"))
    print(f"5-fold cross-validation, {arguments.epochs} epochs, {arguments.seeds} seeds, accuracy in %")

    def row(label, mean, by_seed, interval):
        print(f"{label:24} {mean:>6}  {by_seed:20}  {interval:>24}", flush=True)

    row("run", "mean", "by seed", "difference to Adam, 95 %")
    shown = " ".join(f"{100 * r.mean():.2f}" for r in adam)
    row("float32 Adam 0.001", f"{100 * adam.mean():.2f}", shown, "")
    figures = {"epochs": arguments.epochs, "seeds": arguments.seeds, "adam": 100 * adam.mean(), "madam": {}}
    for lr in arguments.lr:
        madam = rounds(Recipe(arguments.format, lr=lr))
        difference = 100 * (madam.astype(float) - adam).mean(axis=0)
        half_width = 1.96 * difference.std(ddof=1) / np.sqrt(difference.size)
        shown = " ".join(f"{100 * r.mean():.2f}" for r in madam)
        mean = difference.mean()
        interval = f"{mean:+.2f} [{mean - half_width:+.2f}, {mean + half_width:+.2f}]"
        label = f"{arguments.format} Madam {lr:g}"
        row(label, f"{100 * madam.mean():.2f}", shown, interval)
        figures["madam"][lr] = [100 * madam.mean(), mean, half_width]
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
