"""`lnsnum train` and `lnsnum evaluate`."""

from __future__ import annotations

import contextlib
import enum
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from lnsnum import __version__
from lnsnum.cli.app import CommandError, app, check_plot, check_writable, console
from lnsnum.cli.tables import shortened

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lnsnum.tasks.footprint import Footprint
    from lnsnum.tasks.recipe import Recipe
    from lnsnum.tasks.task import Batch, Task
    from lnsnum.tasks.training import History

TASK_ENTRY, RUN_ENTRY = "lnsnum.task", "lnsnum.run"
"""Metadata of the weight files of `lnsnum train`: the task, and the run's arguments and result as JSON."""

FORMER_NAMES = {"digits": "classification"}
"""What a task was called in files of earlier versions."""


class TaskName(enum.StrEnum):
    """What `--task` takes."""

    classification = "classification"
    generation = "generation"
    characters = "characters"
    words = "words"
    regression = "regression"
    copying = "copying"


class NetworkName(enum.StrEnum):
    """What `--network` takes."""

    cnn = "cnn"
    resnet18 = "resnet18"
    resnet18_narrow = "resnet18-narrow"


class OptimizerName(enum.StrEnum):
    """What `--optimizer` takes."""

    madam = "madam"
    adam = "adam"
    sgd = "sgd"


class ScheduleName(enum.StrEnum):
    """What `--schedule` takes."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


class Run(NamedTuple):
    """One training run and what became of it."""

    label: str
    score: float
    seconds: float
    footprint: Footprint
    bytes_on_disk: float
    history: History
    model: nn.Module


@app.command()
def train(
    task: Annotated[TaskName, typer.Option(help="What to learn; docs/tasks.md tells of each.")] = (
        TaskName.classification
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Images (folders, an archive, CIFAR batches, MNIST idx), a text, or an image; not needed."),
    ] = None,
    network: Annotated[NetworkName | None, typer.Option(help="Of classification.")] = None,
    augment: Annotated[bool, typer.Option("--augment", help="Mirror and move images while training.")] = False,
    format: Annotated[
        str, typer.Option(help="Format of the weights, such as lns8f5 or lns8f3; float32 for plain floats.")
    ] = "lns8f5",
    optimizer: Annotated[OptimizerName, typer.Option(help="How the weights are trained.")] = OptimizerName.madam,
    lr: Annotated[
        float | None, typer.Option(min=0.0, help="Learning rate; by default 0.05 for madam, 0.001 adam, 0.1 sgd.")
    ] = None,
    schedule: Annotated[ScheduleName, typer.Option(help="How the learning rate falls.")] = ScheduleName.linear,
    momentum: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=0.9999, help="By default 0 for madam (otherwise a third byte a weight), 0.9 for the others."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training data; 30 over the digits.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, instead of --epochs.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of everything random in the run.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The weight file to write; by default TASK.safetensors.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also train float32 weights with Adam.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write training curves and code histogram to this image.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch; results depend on it in the last bits.")] = 1,
    device: Annotated[str, typer.Option(help="Where torch computes: cpu, cuda, ...")] = "cpu",
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Compute under bfloat16 autocast.")] = False,
) -> None:
    """Train a network on real data with its weights in LNS, save it, load it back, score it."""
    if lr is not None and not math.isfinite(lr):
        raise CommandError(f"--lr {lr} is no learning rate: give a finite number")
    if epochs is not None and steps is not None:
        raise CommandError("--epochs and --steps are two ways to say how long: give one of them")
    out = Path(f"{task}.safetensors") if out is None else out
    check_writable("--out", out)
    if plot is not None:
        check_plot(plot)
        if plot.absolute() == out.absolute():
            raise CommandError(f"--plot and --out are the same file: {out}")
    import torch

    from lnsnum.tasks import TaskError
    from lnsnum.tasks.recipe import Recipe
    from lnsnum.tasks.registry import make_task

    try:
        recipe = Recipe(format, optimizer.value, lr, schedule.value, momentum)
    except TaskError as error:
        raise CommandError(f"--{error}") from error
    options = {"network": network and network.value, "augment": augment, "bfloat16": bfloat16}
    torch.set_num_threads(threads)
    problem = make_task(task, data, device=_device(device), **{name: value for name, value in options.items() if value})
    length = steps or (problem.steps if epochs is None else epochs * problem.epoch_steps)
    console.print(problem.source)
    console.print(f"data: SHA-256 {problem.fingerprint}")
    runs = [_train_once(problem, recipe, length, seed, out, out.with_stem(f"{out.stem}-stopped"))]
    console.print(f"saved to {out}; a fresh model loaded from it gives the same {OUTPUTS[task]}, bit for bit")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "float32.safetensors"
        if compare:
            runs.append(_train_once(problem, Recipe("float32", "adam"), length, seed, scratch))
        console.print(_results(problem, runs, None if compare else _adam_footprint(problem, scratch)))
    if plot is not None:
        _plot(plot, runs)
        console.print(f"plot written to {plot}")


OUTPUTS = {
    TaskName.classification: "logits",
    TaskName.generation: "images",
    TaskName.characters: "logits",
    TaskName.words: "logits",
    TaskName.regression: "colors",
    TaskName.copying: "logits",
}


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        if device.type != "meta" and float(torch.ones(1, device=device).sum()) == 1.0:
            return device
    except Exception as error:  # each kind of device has its own
        raise CommandError(f"--device {name}: torch cannot compute there: {shortened(str(error), 100)}") from error
    raise CommandError(f"--device {name}: torch cannot compute there")


def _train_once(task: Task, recipe: Recipe, steps: int, seed: int, out: Path, stopped: Path | None = None) -> Run:
    """Train, save, load into a fresh model, compare the two, and measure one more step of the trained one.

    A run that is interrupted or diverges is saved to `stopped`.
    """
    import torch

    from lnsnum.tasks import training
    from lnsnum.tasks.footprint import measure_footprint
    from lnsnum.torch_bridge import load_model, save_model

    model, optimizer = training.start(task, recipe, seed)
    record: dict[str, Any] = {
        "run": recipe.label,
        "recipe": recipe.as_dict(),
        "seed": seed,
        "steps": steps,
        "options": task.options,
        "data": task.fingerprint,
        "measure": task.measure.name,
        "lnsnum": __version__,
    }

    def save(path: Path, **more: Any) -> None:
        save_model(path, model, metadata={TASK_ENTRY: task.name, RUN_ENTRY: json.dumps(record | more)})

    begin = time.perf_counter()
    run = training.train(task, model, optimizer, recipe, steps=steps, seed=seed)
    try:
        history = _with_progress(recipe.label, run, steps, show_moved=recipe.moves_codes)
        training.check_outputs(task, model)
    except (KeyboardInterrupt, training.DivergedError) as stop:
        if stopped is None:
            raise
        save(stopped)
        if isinstance(stop, KeyboardInterrupt):
            console.print(f"stopped; what was learned until then is in {stopped}")
            raise
        raise CommandError(f"{stop}; what was learned until then is in {stopped}") from stop
    seconds = time.perf_counter() - begin
    score = task.score(model)
    save(out, score=score)
    loaded = load_model(out, task.network())
    if not torch.equal(task.outputs(loaded), task.outputs(model)):
        raise CommandError(f"the model loaded from {out} is not the one that was saved")
    footprint = measure_footprint(task, model, optimizer, _first_batch(task))
    return Run(
        recipe.label, score, seconds, footprint, out.stat().st_size / training.weight_count(model), history, loaded
    )


def _first_batch(task: Task) -> Batch:
    import torch

    return next(task.batches(torch.Generator().manual_seed(0)))


def _with_progress(label: str, steps: Iterator[History], total: int, *, show_moved: bool) -> History:
    """Run the steps under a progress bar that shows the means of the last 20."""
    fields = ["[bold]{task.description}", "loss {task.fields[loss]:.4f}"]
    if show_moved:
        fields.append("codes moved {task.fields[moved]:6.2%}")
    columns: list[ProgressColumn] = [TextColumn(field) for field in fields]
    with Progress(*columns, BarColumn(20), TaskProgressColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(label, total=total, loss=float("nan"), moved=0.0)
        for history in steps:
            bar.update(task, advance=1, loss=fmean(history.loss[-20:]), moved=fmean(history.moved[-20:]))
    return history


def _adam_footprint(task: Task, scratch: Path) -> tuple[Footprint, float]:
    """What float32 weights and Adam take on the same network: the footprint of the second step, bytes on disk."""
    from lnsnum.tasks import training
    from lnsnum.tasks.footprint import measure_footprint
    from lnsnum.tasks.recipe import Recipe
    from lnsnum.torch_bridge import save_model

    model, optimizer = training.start(task, Recipe("float32", "adam"), 0)
    batch = _first_batch(task)
    measure_footprint(task, model, optimizer, batch)
    save_model(scratch, model)
    footprint = measure_footprint(task, model, optimizer, batch)
    return footprint, scratch.stat().st_size / training.weight_count(model)


def _results(task: Task, runs: list[Run], baseline: tuple[Footprint, float] | None) -> Table:
    table = Table(caption="Bytes per weight. Peak: of one training step, its activations included.")
    table.add_column("")
    for run in runs:
        table.add_column(run.label, justify="right")
    columns = [(run.footprint, run.bytes_on_disk) for run in runs]
    if baseline is not None:
        table.add_column("float32 adam (one step)", justify="right")
        columns.append(baseline)
    blank = [""] * (baseline is not None)
    table.add_row(f"test {task.measure.name}", *(task.measure.text(run.score) for run in runs), *blank)
    table.add_row("training time", *(f"{run.seconds:.1f} s" for run in runs), *blank)
    for name in ("weights", "optimizer_state", "gradients", "peak"):
        figures = [getattr(footprint, name) for footprint, _ in columns]
        table.add_row(f"bytes: {name.replace('_', ' ')}", *("-" if math.isnan(f) else f"{f:.2f}" for f in figures))
    table.add_row("bytes: on disk", *(f"{disk:.2f}" for _, disk in columns))
    return table


def _plot(path: Path, runs: list[Run]) -> None:
    """Loss, share of codes moved, and how often each magnitude occurs in the first run's model."""
    from lnsnum.tasks.plots import plot_training

    plot_training(path, [(run.label, run.history) for run in runs], runs[0].model)


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="A weight file that `lnsnum train` wrote.")],
    data: Annotated[Path | None, typer.Option(help="The data it was trained on, if that was no default.")] = None,
) -> None:
    """Load a weight file into a fresh network and score it on the test data."""
    from lnsnum.weight_file import load_metadata

    metadata = load_metadata(file)
    name = metadata.get(TASK_ENTRY)
    if name is None:
        raise CommandError(f"{file} names no task: it was not written by lnsnum train")
    name = FORMER_NAMES.get(name, name)
    if name not in list(TaskName):
        raise CommandError(f"{file} is for the task {name!r}, which this version does not know")
    record = _record(file, metadata.get(RUN_ENTRY, "{}"))
    from lnsnum.tasks.registry import TASKS, make_task
    from lnsnum.tasks.training import weight_count, weight_formats
    from lnsnum.torch_bridge import load_model

    options = record.get("options", {})
    if unknown := sorted(options.keys() - TASKS[name].options):
        raise CommandError(f"{file}: its entry {RUN_ENTRY} has an option {unknown[0]!r}, which {name} has not")
    task = make_task(name, data, **options)
    if record.get("data", task.fingerprint) != task.fingerprint:
        raise CommandError(
            f"{file} was trained on data of SHA-256 {record['data']}, and {task.source} is of {task.fingerprint}: "
            "give the same with --data"
        )
    model = load_model(file, task.network())
    console.print(f"{file}: {weight_count(model)} weights in {', '.join(weight_formats(model))}")
    console.print(f"test {task.measure.name} {task.measure.text(task.score(model))}; {task.source}")


def _record(file: Path, text: str) -> dict[str, Any]:
    """What the run's entry says, where it is an object with an object of options."""
    with contextlib.suppress(ValueError):
        record = json.loads(text)
        if isinstance(record, dict) and isinstance(record.get("options", {}), dict):
            return record
    raise CommandError(f"{file}: its entry {RUN_ENTRY} is not what lnsnum train writes")
