"""`lnsnum train` and `lnsnum evaluate`."""

from __future__ import annotations

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
from lnsnum.codes import WIDEST_TABLE
from lnsnum.format import LNSFormat

if TYPE_CHECKING:
    from torch import nn

    from lnsnum.tasks.training import Data, Footprint, History

TASK_ENTRY, RUN_ENTRY = "lnsnum.task", "lnsnum.run"
"""Metadata of the weight files of `lnsnum train`: the task, and the run's arguments and result as JSON."""


class OptimizerName(enum.StrEnum):
    """What `--optimizer` takes."""

    madam = "madam"
    adam = "adam"
    sgd = "sgd"


class Run(NamedTuple):
    """One training run and what became of it."""

    label: str
    accuracy: float
    seconds: float
    footprint: Footprint
    bytes_on_disk: float
    history: History
    model: nn.Module


@app.command()
def train(
    format: Annotated[
        str, typer.Option(help="Format of the weights, such as lns8f5 or lns8f3; float32 for plain floats.")
    ] = "lns8f5",
    optimizer: Annotated[OptimizerName, typer.Option(help="How the weights are trained.")] = OptimizerName.madam,
    lr: Annotated[
        float | None, typer.Option(min=0.0, help="Learning rate; by default 0.05 for madam, 0.001 adam, 0.1 sgd.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 30,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of everything random in the run.")] = 0,
    out: Annotated[Path, typer.Option(help="The weight file to write.")] = Path("digits.safetensors"),
    compare: Annotated[bool, typer.Option("--compare", help="Also train float32 weights with Adam.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write training curves and code histogram to this image.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch; results depend on it in the last bits.")] = 1,
) -> None:
    """Train a small convolutional network on scikit-learn's digits, save it, load it back, score it."""
    fmt = _parse_format(format)
    if lr is not None and not math.isfinite(lr):
        raise CommandError(f"--lr {lr} is no learning rate: give a finite number")
    check_writable("--out", out)
    if plot is not None:
        check_plot(plot)
        if plot.absolute() == out.absolute():
            raise CommandError(f"--plot and --out are the same file: {out}")
    import torch

    from lnsnum.tasks import digits

    torch.set_num_threads(threads)
    train_data, test_data = digits.split(digits.load())
    console.print(f"digits: {len(train_data.labels)} training images, {len(test_data.labels)} test images")
    runs = [_train_once(fmt, optimizer, lr, epochs, seed, train_data, test_data, out)]
    console.print(f"saved to {out}; a fresh model loaded from it gives the same logits, bit for bit")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "float32.safetensors"
        if compare:
            runs.append(_train_once(None, OptimizerName.adam, None, epochs, seed, train_data, test_data, scratch))
        console.print(_results(runs, None if compare else _adam_footprint(train_data, scratch)))
    if plot is not None:
        _plot(plot, runs)
        console.print(f"plot written to {plot}")


def _parse_format(name: str) -> LNSFormat | None:
    try:
        fmt = None if name == "float32" else LNSFormat.parse(name)
    except ValueError as error:
        raise CommandError(f"--format: {error}") from error
    if fmt is not None and fmt.bits > WIDEST_TABLE:
        raise CommandError(f"--format {name}: at most {WIDEST_TABLE} bits can be trained")
    return fmt


def _train_once(
    fmt: LNSFormat | None,
    optimizer_name: OptimizerName,
    lr: float | None,
    epochs: int,
    seed: int,
    train_data: Data,
    test_data: Data,
    out: Path,
) -> Run:
    """Train, save, load into a fresh model, compare the two, and measure one more step of the trained one."""
    import torch

    from lnsnum.tasks import digits, training
    from lnsnum.torch_bridge import convert_model, load_model, save_model

    label = f"{'float32' if fmt is None else fmt.name} {optimizer_name}"
    torch.manual_seed(seed)
    model = digits.network()
    if fmt is not None:
        try:
            convert_model(model, fmt, seed=seed)
        except ValueError as error:
            raise CommandError(f"--format {fmt}: {error}") from error
    optimizer = training.make_optimizer(optimizer_name, model, lr, seed)
    begin = time.perf_counter()
    history = _with_progress(
        label, training.train(model, optimizer, train_data, epochs=epochs, seed=seed),
        training.step_count(train_data, epochs), show_moved=optimizer_name is OptimizerName.madam and fmt is not None,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    score = training.accuracy(model, test_data)
    record = {"run": label, "seed": seed, "epochs": epochs, "test_accuracy": score, "lnsnum": __version__}
    save_model(out, model, metadata={TASK_ENTRY: digits.NAME, RUN_ENTRY: json.dumps(record)})
    loaded = load_model(out, digits.network())
    if not torch.equal(training.logits(loaded, test_data.images), training.logits(model, test_data.images)):
        raise CommandError(f"the model loaded from {out} is not the one that was saved")
    footprint = training.measure_footprint(model, optimizer, train_data)
    return Run(label, score, seconds, footprint, out.stat().st_size / training.weight_count(model), history, loaded)


def _with_progress(label: str, steps: Iterator[History], total: int, *, show_moved: bool) -> History:
    """Run the steps under a progress bar that shows the means of the last 20."""
    fields = ["[bold]{task.description}", "loss {task.fields[loss]:.4f}", "accuracy {task.fields[accuracy]:6.2%}"]
    if show_moved:
        fields.append("codes moved {task.fields[moved]:6.2%}")
    columns: list[ProgressColumn] = [TextColumn(field) for field in fields]
    with Progress(*columns, BarColumn(20), TaskProgressColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(label, total=total, loss=float("nan"), accuracy=0.0, moved=0.0)
        for history in steps:
            series = {"loss": history.loss, "accuracy": history.accuracy, "moved": history.moved}
            means: dict[str, Any] = {name: fmean(values[-20:]) for name, values in series.items()}
            bar.update(task, advance=1, **means)
    return history


def _adam_footprint(data: Data, scratch: Path) -> tuple[Footprint, float]:
    """What float32 weights and Adam take on the same network: the footprint of the second step, bytes on disk."""
    from lnsnum.tasks import digits, training
    from lnsnum.torch_bridge import save_model

    model = digits.network()
    optimizer = training.make_optimizer("adam", model, None, 0)
    training.measure_footprint(model, optimizer, data)
    save_model(scratch, model)
    footprint = training.measure_footprint(model, optimizer, data)
    return footprint, scratch.stat().st_size / training.weight_count(model)


def _results(runs: list[Run], baseline: tuple[Footprint, float] | None) -> Table:
    table = Table(caption="Bytes per weight. Peak: of one training step, its activations included.")
    table.add_column("")
    for run in runs:
        table.add_column(run.label, justify="right")
    columns = [(run.footprint, run.bytes_on_disk) for run in runs]
    if baseline is not None:
        table.add_column("float32 adam (one step)", justify="right")
        columns.append(baseline)
    blank = [""] * (baseline is not None)
    table.add_row("test accuracy", *(f"{run.accuracy:.2%}" for run in runs), *blank)
    table.add_row("training time", *(f"{run.seconds:.1f} s" for run in runs), *blank)
    for name in ("weights", "optimizer_state", "gradients", "peak"):
        table.add_row(f"bytes: {name.replace('_', ' ')}", *(f"{getattr(f, name):.2f}" for f, _ in columns))
    table.add_row("bytes: on disk", *(f"{disk:.2f}" for _, disk in columns))
    return table


def _plot(path: Path, runs: list[Run]) -> None:
    """Loss, share of codes moved, and how often each magnitude occurs in the first run's model."""
    from lnsnum.tasks.plots import plot_training

    plot_training(path, [(run.label, run.history) for run in runs], runs[0].model)


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="A weight file that `lnsnum train` wrote.")],
) -> None:
    """Load a weight file into a fresh network and score it on the test images."""
    from lnsnum.weight_file import load_metadata

    task = load_metadata(file).get(TASK_ENTRY)
    if task is None:
        raise CommandError(f"{file} names no task: it was not written by lnsnum train")
    from lnsnum.tasks import digits, training
    from lnsnum.torch_bridge import LNSWeight, load_model

    if task != digits.NAME:
        raise CommandError(f"{file} is for the task {task!r}, which this version does not know")
    _, test_data = digits.split(digits.load())
    model = load_model(file, digits.network())
    formats = sorted({p.fmt.name if isinstance(p, LNSWeight) else "float32" for p in model.parameters()})
    score = training.accuracy(model, test_data)
    console.print(f"{file}: {training.weight_count(model)} weights in {', '.join(formats)}")
    console.print(f"test accuracy {score:.2%} on {len(test_data.labels)} images")
