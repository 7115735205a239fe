"""How crossover, cap, ceiling, format and rate of Madam's rule were settled: on validation parts, with seeds of their
own.

The problems and budgets are the study's; the score is that on a part of the training data that is held out here, and
the test parts are not looked at. One setting at a time differs from the default; each has three seeds, 10 to 12, which
no study uses. "level" counts the problems on which a setting is within the study's margin of the best one's mean.

    python benchmarks/rule_settings.py --data cifar10=PATH --out settings.jsonl [--jobs 2]
    python benchmarks/rule_settings.py --report settings.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lnsnum.study.problems import PROBLEMS, measure_of
from lnsnum.tasks import training
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.copying import TEST_SEQUENCES, Copying, _draw
from lnsnum.tasks.generation import Generation
from lnsnum.tasks.language import LanguageModel
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.regression import Regression
from lnsnum.tasks.task import Batch, Task

SEEDS = (10, 11, 12)
HELD_OUT = 6
"""A sixth of the training data is the validation part."""

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "crossover 0.5": {"crossover": 0.5},
    "crossover 2": {"crossover": 2.0},
    "cap 0.1": {"cap": 0.1},
    "cap 0.4": {"cap": 0.4},
    "ceiling fixed": {"ceiling": "fixed"},
    "lns8f4": {"format": "lns8f4"},
    "lr 0.03": {"lr": 0.03},
    "lr 0.07": {"lr": 0.07},
    "lr 0.1": {"lr": 0.1},
    "zeros redrawn": {"zeros": "redraw"},
    "paper": {"rule": "paper", "ceiling": "fixed", "zeros": "redraw"},
}


def hold_out(task: Task) -> Task:
    """Let a part of the training data take the place of the test part."""
    if isinstance(task, Generation):
        hold_out(task.judge)
    elif isinstance(task, Classification):
        order = torch.randperm(len(task.train_data.labels), generator=torch.Generator().manual_seed(0))
        border = len(order) // HELD_OUT
        task.test_data, task.train_data = task.train_data.subset(order[:border]), task.train_data.subset(order[border:])
        task.epoch_steps = len(order[border:]) // 64
    elif isinstance(task, LanguageModel):
        border = len(task.train_tokens) - len(task.train_tokens) // HELD_OUT
        task.train_tokens, task.test_tokens = task.train_tokens[:border], task.train_tokens[border:]
    elif isinstance(task, Regression):
        order = torch.randperm(len(task.train_data.inputs), generator=torch.Generator().manual_seed(0))
        border = len(order) // HELD_OUT
        held, learned = (Batch(*(t[part] for t in task.train_data)) for part in (order[:border], order[border:]))
        task.train_data, task.test_data = learned, held
    else:
        assert isinstance(task, Copying)
        task.test_data = _draw(TEST_SEQUENCES, torch.Generator().manual_seed(99), task.device)
    return task


@lru_cache(maxsize=1)
def task_of(problem: str, places: tuple[tuple[str, Path], ...]) -> Task:
    return hold_out(PROBLEMS[problem].make(dict(places)))


def run(problem: str, setting: str, seed: int, places: tuple[tuple[str, Path], ...]) -> float | None:
    """The validation score; None where the run diverged."""
    torch.set_num_threads(1)
    task, recipe = task_of(problem, places), Recipe(**SETTINGS[setting])
    model, optimizer = training.start(task, recipe, seed)
    try:
        for _ in training.train(task, model, optimizer, recipe, steps=PROBLEMS[problem].steps, seed=seed):
            pass
        training.check_outputs(task, model)
    except training.DivergedError:
        return None
    return task.score(model)


def report(path: Path) -> None:
    scores: dict[str, dict[str, dict[int, float | None]]] = defaultdict(lambda: defaultdict(dict))
    for line in path.read_text().splitlines():
        record = json.loads(line)
        scores[record["setting"]][record["problem"]][record["seed"]] = record["score"]
    problems = [p for p in PROBLEMS if any(p in of for of in scores.values())]
    means = {
        setting: {
            p: fmean(v) if len(v := [s for s in of[p].values() if s is not None]) == len(SEEDS) else None
            for p in problems
        }
        for setting, of in scores.items()
    }
    best: dict[str, float] = {}
    for p in problems:
        finished = [m[p] for m in means.values() if m[p] is not None]
        best[p] = max(finished, key=lambda score, p=p: measure_of(p).sign * score) if finished else 0.0
    print(f"validation scores, means of seeds {', '.join(map(str, SEEDS))}; the best of each problem in []\n")
    print(f"{'':15}" + "".join(f"{p:>16}" for p in problems) + "   level")
    for setting in SETTINGS:
        if setting not in means:
            continue
        cells, level = [], 0
        for p in problems:
            score = means[setting][p]
            if score is None:
                cells.append("-")
                continue
            level += measure_of(p).level(score, best[p])
            text = measure_of(p).text(score).split()[0]
            cells.append(f"[{text}]" if score == best[p] else text)
        print(f"{setting:15}" + "".join(f"{cell:>16}" for cell in cells) + f"{level:>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    arguments = parser.parse_args()
    if arguments.report:
        report(arguments.report)
        return
    if arguments.out is None:
        parser.error("give --out or --report")
    places = tuple((name, Path(path)) for name, _, path in (given.partition("=") for given in arguments.data))
    done = set()
    if arguments.out.exists():
        records = map(json.loads, arguments.out.read_text().splitlines())
        done = {(record["problem"], record["setting"], record["seed"]) for record in records}
    cells = [(p, s, seed) for p in arguments.problems for s in arguments.settings for seed in SEEDS]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool, arguments.out.open("a") as out:
        waiting = {pool.submit(run, *cell, places): cell for cell in cells if cell not in done}
        for future in as_completed(waiting):
            problem, setting, seed = waiting[future]
            record = {"problem": problem, "setting": setting, "seed": seed, "score": future.result()}
            out.write(json.dumps(record) + "\n")
            out.flush()
            print(record, flush=True)
    report(arguments.out)


if __name__ == "__main__":
    main()
