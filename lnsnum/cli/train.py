"""`lnsnum train`."""

from __future__ import annotations

import enum
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lnsnum.cli.app import (
    CommandError,
    app,
    check_plot,
    check_writable,
    console,
    errors,
    naming_lack,
    print_json,
    refusing,
    speak_as,
)
from lnsnum.cli.tables import shortened
from lnsnum.cli.training_run import Job, Run, first_batch, train_once
from lnsnum.files.atomic import shown
from lnsnum.files.run_log import check_log_path

if TYPE_CHECKING:
    import torch

    from lnsnum.tasks.footprint import Footprint
    from lnsnum.tasks.task import Task


class TaskName(enum.StrEnum):
    """What `--task` takes."""

    classification = "classification"
    generation = "generation"
    reconstruction = "reconstruction"
    characters = "characters"
    words = "words"
    regression = "regression"
    copying = "copying"


class NetworkName(enum.StrEnum):
    """What `--network` takes."""

    cnn = "cnn"
    resnet18 = "resnet18"
    resnet18_narrow = "resnet18-narrow"
    vit = "vit"
    transformer = "transformer"
    gru = "gru"
    experts = "experts"


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
    warm_up = "warm-up"


@app.command()
def train(
    context: typer.Context,
    task: Annotated[TaskName, typer.Option(help="What to learn; docs/tasks.md tells of each.")] = (
        TaskName.classification
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Images (folders, an archive, CIFAR batches, MNIST idx), a text, or an image; not needed."),
    ] = None,
    network: Annotated[NetworkName | None, typer.Option(help="Of classification, or of characters and words.")] = None,
    augment: Annotated[bool, typer.Option("--augment", help="Mirror and move images while training.")] = False,
    format: Annotated[
        str, typer.Option(help="Format of the weights, such as lns8f5 or lns8f3; float32 for plain floats.")
    ] = "lns8f5",
    optimizer: Annotated[OptimizerName, typer.Option(help="How the weights are trained.")] = OptimizerName.madam,
    lr: Annotated[
        float | None, typer.Option(min=0.0, help="Learning rate; by default 0.05 for madam, 0.001 adam, 0.1 sgd.")
    ] = None,
    schedule: Annotated[ScheduleName, typer.Option(help="How the learning rate goes.")] = ScheduleName.linear,
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
    datapath: Annotated[
        str | None,
        typer.Option(
            help="Compute in LNS too: a preset such as lns_madam_8bit, or 'activations=lns8f3,errors=lns8f3,"
            "gradients=lns8f3,accumulate=lns12f6/pairwise/table:20'; docs/datapath.md tells of it."
        ),
    ] = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Compute under bfloat16 autocast.")] = False,
    save_every: Annotated[
        int | None,
        typer.Option(min=1, help="Save the run to OUT-resume after so many steps, or epochs where --epochs is given."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the run in this file, as it was begun; --data where it had any.", metavar="FILE"),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="Write a line for each step to this .jsonl or .csv, which `lnsnum watch` shows."),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(help="Write events of each step, and histograms of the codes, to this folder, for TensorBoard."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Train a network on real data with its weights in LNS, save it, load it back, score it."""
    if resume is not None:
        _check_resuming(context)
    if lr is not None and not math.isfinite(lr):
        raise CommandError(f"--lr {lr} is no learning rate: give a finite number")
    if epochs is not None and steps is not None:
        raise CommandError("--epochs and --steps are two ways to say how long: give one of them")
    if out is None:
        out = Path(f"{task}.safetensors") if resume is None else _out_of(resume)
    check_writable("--out", out)
    if plot is not None:
        check_plot(plot)
        if plot.absolute() == out.absolute():
            raise CommandError(f"--plot and --out are the same file: {out}")
    if log is not None:
        check_writable("--log", log)
        with refusing("--log"):
            check_log_path(log)
    if tensorboard is not None:
        _check_events(tensorboard)
    import torch

    from lnsnum.cli.resuming import read_begun
    from lnsnum.tasks import TaskError
    from lnsnum.tasks.processes import joined
    from lnsnum.tasks.recipe import Recipe
    from lnsnum.tasks.registry import make_task

    begun = None if resume is None else read_begun(resume)
    if begun is None:
        try:
            recipe = Recipe(format, optimizer.value, lr, schedule.value, momentum)
        except TaskError as error:
            raise CommandError(f"--{error}") from error
        options = {"network": network and network.value, "augment": augment, "bfloat16": bfloat16, "datapath": datapath}
        options = {option: value for option, value in options.items() if value}
    else:
        task, recipe, seed, options = TaskName(begun.task), begun.recipe, begun.seed, begun.options
        threads = begun.threads if _is_default(context, "threads") else threads
        device = begun.device if _is_default(context, "device") else device
    torch.set_num_threads(threads)
    with joined(device) as processes:
        speak_as(processes.rank)
        problem = make_task(task, data, device=_device(processes.device(device)), **options)
        if begun is None:
            length = steps or (problem.steps if epochs is None else epochs * problem.epoch_steps)
            every = save_every and save_every * (1 if epochs is None else problem.epoch_steps)
            in_epochs = epochs is not None
        else:
            begun.check_data(problem)
            length, in_epochs = begun.steps, begun.in_epochs
            every = save_every * (problem.epoch_steps if in_epochs else 1) if save_every else begun.save_every
        told = errors if json else console
        told.print(problem.source)
        told.print(f"data: SHA-256 {problem.fingerprint}")
        more = {"threads": threads, "device": device, "in_epochs": in_epochs, "save_every": every}
        job = Job(problem, recipe, length, seed, out, processes, save_every=every, more=more, resumed=resume)
        job = replace(job, log=log, tensorboard=tensorboard, told=told)
        if resume is None and job.resume.exists():
            errors.print(f"{job.resume} is of an earlier run, and is replaced where this one is saved")
        _train_all(job, compare, plot, json)


def _check_events(folder: Path) -> None:
    """Raise CommandError where no events can be written to a folder: it is none, or their package is missing."""
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"--tensorboard {shown(folder)} is a file: give a folder, where events of other runs may be")
    with naming_lack("--tensorboard"):
        from lnsnum.torch_bridge.event_log import summary_writer

        summary_writer()


def _train_all(job: Job, compare: bool, plot: Path | None, json: bool) -> None:
    """The run, and what it is compared with; the first of several processes tells of them."""
    from lnsnum.tasks.recipe import Recipe

    saved = train_once(job)
    task = job.task
    if saved is not None:
        what = OUTPUTS[TaskName(task.name)]
        job.told.print(f"saved to {saved.path}; a fresh model loaded from it gives the same {what}, bit for bit")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "float32.safetensors"
        rival = None
        if compare:
            plain, adam = task.in_float(), Recipe("float32", "adam")
            other = Job(plain, adam, job.steps, job.seed, scratch, job.processes, is_kept=False, told=job.told)
            rival = train_once(other)
        if saved is None:
            return
        runs = [saved] if rival is None else [saved, rival]
        if json:
            print_json(_as_json(task, runs, job.steps))
        else:
            console.print(_results(task, runs, None if compare else _adam_footprint(task, scratch)))
    if plot is not None:
        _plot(plot, runs)
        job.told.print(f"plot written to {plot}")
    if saved.trouble is not None:
        raise CommandError(saved.trouble)


_BESIDE = {"context", "resume", "data", "out", "compare", "plot", "threads", "device", "save_every"}
_BESIDE |= {"log", "tensorboard", "json"}
"""What may be given beside --resume: all that does not make another run of it."""


def _is_default(context: typer.Context, name: str) -> bool:
    """Whether an option was not given."""
    source = context.get_parameter_source(name)
    return source is None or source.name != "COMMANDLINE"


def _check_resuming(context: typer.Context) -> None:
    for name in context.params.keys() - _BESIDE:
        if not _is_default(context, name):
            raise CommandError(f"--resume goes on with the run as it was begun: leave out --{name.replace('_', '-')}")


def _out_of(resume: Path) -> Path:
    """Where a run that was kept in this file would have been written."""
    stem = resume.stem.removesuffix("-resume")
    return resume.with_stem(stem) if stem and stem != resume.stem else resume.with_stem(f"{resume.stem}-done")


OUTPUTS = {
    TaskName.classification: "logits",
    TaskName.generation: "images",
    TaskName.reconstruction: "images",
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


def _adam_footprint(task: Task, scratch: Path) -> tuple[Footprint, float]:
    """What float32 weights and Adam take on the same network: the footprint of the second step, bytes on disk."""
    from lnsnum.tasks import training
    from lnsnum.tasks.footprint import measure_footprint
    from lnsnum.tasks.recipe import Recipe
    from lnsnum.torch_bridge import save_model

    task = task.in_float()
    model, optimizer = training.start(task, Recipe("float32", "adam"), 0)
    batch = first_batch(task)
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


def _as_json(task: Task, runs: list[Run], steps: int) -> dict[str, Any]:
    return {
        "path": str(runs[0].path),
        "task": task.name,
        "data": {"source": task.source, "sha256": task.fingerprint},
        "measure": task.measure.name,
        "steps": steps,
        "runs": [
            {
                "run": run.label,
                "score": run.score,
                "loss": run.history.loss[-1],
                "seconds": run.seconds,
                "bytes_a_weight": run.footprint._asdict() | {"on_disk": run.bytes_on_disk},
            }
            for run in runs
        ],
    }


def _plot(path: Path, runs: list[Run]) -> None:
    """Loss, share of codes moved, and how often each magnitude occurs in the first run's model."""
    from lnsnum.tasks.plots import plot_training

    plot_training(path, [(run.label, run.history) for run in runs], runs[0].model)
