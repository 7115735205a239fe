"""What a datapath costs: digits by an MLP of 64-64-10, or the CNN of `lnsnum train`; the study's transformer of
characters, and 200 steps of its small network on CIFAR-10. Three seeds each; ten where single images decide, and one
where half a nat does.

Weights are trained by Madam at its default learning rate in the format that is told; the baseline is float32 by
Adam, at 0.03 for the MLP (best of 0.001, 0.003, 0.01, 0.03) and 0.003 for the CNN (of 0.001, 0.003, 0.01), and for the
others, whose rates docs/results.md has. Rates fall linearly.

One JSON line a run goes to the journal at once, and runs that are there are left out: a
study that was stopped goes on where it was.

    python benchmarks/datapath_accuracy.py docs/results/datapath.jsonl --data cifar10=PATH     # the missing runs
    python benchmarks/datapath_accuracy.py docs/results/datapath.jsonl --table                 # of docs/datapath.md

Without --data those of CIFAR-10 are left out.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import nn

from lnsnum.study.problems import PROBLEMS
from lnsnum.tasks import training
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.digits import load_digits
from lnsnum.tasks.recipe import Recipe

EPOCHS = {"mlp": 20, "cnn": 5}
STEPS = {"characters": 400, "cifar10-cnn": 200}
"""Of problems of the study."""
ADAM_LR = {"mlp": 0.03, "cnn": 0.003, "characters": 0.003, "cifar10-cnn": 0.003}


def all_of(fmt):
    """Activations, errors and gradients of one format."""
    return f"activations={fmt},errors={fmt},gradients={fmt}"


EIGHT, TWELVE = all_of("lns8f3"), all_of("lns12f7")
TOLD_BY_ONE = [
    ("characters", "lns12f7", f"{TWELVE},accumulate=lns12f7"),
    ("characters", "lns12f7", f"{TWELVE},accumulate=lns13f7/table:20"),
    ("cifar10-cnn", "lns12f7", f"{TWELVE},accumulate=lns12f7/table:20"),
]
"""What sums of 12 bits lose to their table and to their range, half a nat each and ten points: one seed."""

CELLS = [
    ("mlp", "float32", None),
    ("mlp", "lns8f5", None),
    ("mlp", "lns8f5", EIGHT),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns16f10"),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns12f6"),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns12f6/pairwise"),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns12f6/table:20"),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns12f6/mitchell"),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns12f6/bit-shift"),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns10f5"),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns10f5/pairwise"),
    ("mlp", "lns12f7", f"{TWELVE},accumulate=lns12f7/table:20"),
    ("mlp", "lns12f7", f"{TWELVE},accumulate=lns12f7"),
    ("mlp", "lns8f5", all_of("lns6f2")),
    ("mlp", "lns8f5", all_of("lns5f1")),
    ("mlp", "lns8f5", all_of("lns4f1")),
    ("mlp", "lns8f5", "activations=lns4f1,errors=lns8f3,gradients=lns8f3"),
    ("mlp", "lns8f5", "activations=lns8f3,errors=lns4f1,gradients=lns8f3"),
    ("mlp", "lns8f5", "activations=lns8f3,errors=lns8f3,gradients=lns4f1"),
    ("cnn", "float32", None),
    ("cnn", "lns8f5", None),
    ("cnn", "lns8f5", EIGHT),
    ("cnn", "lns8f5", all_of("lns5f1")),
    ("cnn", "lns8f5", f"{EIGHT},accumulate=lns16f10"),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns16f10,elementwise"),
    ("mlp", "lns12f7", f"{TWELVE},accumulate=lns12f7/table:20,elementwise"),
    ("mlp", "lns16f10", "sanyal_16bit"),
    *(
        cell
        for network in STEPS
        for cell in (
            (network, "float32", None),
            (network, "lns8f5", None),
            (network, "lns8f5", EIGHT),
            (network, "lns8f5", all_of("lns5f1")),
            (network, "lns8f5", f"{EIGHT},accumulate=lns16f10"),
            (network, "lns12f7", f"{TWELVE},accumulate=lns12f7/table:20"),
            (network, "lns12f7", f"{TWELVE},accumulate=lns12f7/dynamic/pairwise/table:20"),
        )
    ),
    # what of the row above the weights cost, what activations, errors and gradients, and what the sums: by their table,
    # and by their range
    ("characters", "lns12f7", None),
    ("characters", "lns12f7", TWELVE),
    *TOLD_BY_ONE[:2],
    ("characters", "lns12f7", f"{TWELVE},accumulate=lns12f7/dynamic"),
    ("characters", "lns12f7", f"{TWELVE},accumulate=lns12f7/dynamic/table:20"),
]
"""Network, format of the weights, datapath as `lnsnum train --datapath` takes it."""

GOALS = [
    ("mlp", "float32", None),
    ("mlp", "lns8f5", None),
    ("mlp", "lns8f5", EIGHT),
    ("mlp", "lns8f5", f"{EIGHT},accumulate=lns16f10"),
    ("mlp", "lns12f7", f"{TWELVE},accumulate=lns12f7/table:20"),
]
"""Of which differences of less than an image decide: ten seeds, as a mean of three is within 0.3 points alone."""


def seeds_of(cell):
    """Those of a cell."""
    return range(1 if cell in TOLD_BY_ONE else 10 if cell in GOALS else 3)


class Digits(Classification):
    """The digits, and a network by name."""

    def __init__(self, kind):
        super().__init__(load_digits(), epochs=EPOCHS[kind])
        self.kind = kind

    def network(self):
        """A new one."""
        if self.kind == "cnn":
            return super().network()
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def task_of(kind, places):
    """A new one."""
    if kind in EPOCHS:
        return Digits(kind)
    task = PROBLEMS[kind].make(places)
    task.steps = STEPS[kind]
    # under a datapath there is no autocast, and none of the rows has what others have not
    task.bfloat16 = False
    return task


def run(kind, fmt, text, seed, places):
    """The score after the last step: accuracy in %, or nats."""
    task = task_of(kind, places)
    task.datapath = text
    recipe = Recipe(fmt, "adam", lr=ADAM_LR[kind]) if fmt == "float32" else Recipe(fmt)
    model, optimizer = training.start(task, recipe, seed)
    for _ in training.train(task, model, optimizer, recipe, steps=task.steps, seed=seed):
        pass
    return task.score(model)


def read(journal):
    """The runs that are there, by cell and seed."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    runs = [json.loads(line) for line in lines]
    return {(one["network"], one["weights"], one["datapath"], one["seed"]): one["score"] for one in runs}


def table(done):
    """The lines of the table of docs/datapath.md, of runs that are missing too."""
    yield "| network | weights | activations, errors, gradients; sums | test accuracy, %; loss, nats |"
    yield "| --- | --- | --- | --- |"
    for cell in CELLS:
        kind, fmt, text = cell
        seeds = seeds_of(cell)
        found = [done[*cell, seed] for seed in seeds if (*cell, seed) in done]
        places = 3 if kind == "characters" else 2
        spread = f" ± {stdev(found):.{places}f}" if len(found) > 1 else ""
        score = f"{fmean(found):.{places}f}{spread} " if found else ""
        many = f"({len(found)})" if len(found) == len(seeds) else f"({len(found)} of {len(seeds)})"
        what = "float" if text is None else text.replace("activations=", "A ").replace("errors=", "E ")
        what = what.replace("gradients=", "G ").replace("accumulate=", "sums ").replace(",", ", ")
        yield f"| {kind} | {fmt} | {what} | {score + many if found else 'not run'} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journal", type=Path)
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    parser.add_argument("--network", choices=sorted(ADAM_LR), help="the cells of one network alone")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH", help="where a data set is")
    arguments = parser.parse_args()
    done = read(arguments.journal)
    if arguments.table:
        print("\n".join(table(done)))
        return
    places = {name: Path(path) for name, _, path in (one.partition("=") for one in arguments.data)}
    torch.set_num_threads(1)
    # a seed of all cells before the next one, so that a study that is stopped has every cell
    for seed in range(10):
        for kind, fmt, text in CELLS:
            if seed not in seeds_of((kind, fmt, text)):
                continue
            if (kind, fmt, text, seed) in done or arguments.network not in (None, kind):
                continue
            if kind.startswith("cifar10") and "cifar10" not in places:
                continue
            score = run(kind, fmt, text, seed, places)
            line = {"network": kind, "weights": fmt, "datapath": text, "seed": seed, "score": score}
            with arguments.journal.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{kind} {fmt} {text} seed {seed}: {score:.3f}", flush=True)


if __name__ == "__main__":
    main()
