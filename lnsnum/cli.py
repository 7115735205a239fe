"""The command line: `lnsnum train`, `lnsnum evaluate` and `lnsnum certify`.

Bad input ends with one sentence on stderr and exit code 2; so does a missing extra.
"""

from __future__ import annotations

import enum
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from lnsnum import __version__
from lnsnum.codes import WIDEST_TABLE
from lnsnum.format import LNSFormat
from lnsnum.tasks import TaskError
from lnsnum.weight_file import WeightFileError

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Table
except ImportError as missing:
    sys.exit(f"the command line needs {missing.name}: pip install 'lnsnum[cli]'")

if TYPE_CHECKING:
    from torch import nn

    from lnsnum.certify import Certificate, Judgement
    from lnsnum.gaussian import GaussianLog
    from lnsnum.tasks.training import Data, Footprint, History

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Numbers as logarithms: train networks natively in LNS, and look at the result.",
)
console = Console(markup=False, highlight=False, emoji=False)
errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)

TASK_ENTRY, RUN_ENTRY = "lnsnum.task", "lnsnum.run"
"""Metadata of the weight files of `lnsnum train`: the task, and the run's arguments and result as JSON."""


class OptimizerName(enum.StrEnum):
    """What `--optimizer` takes."""

    madam = "madam"
    adam = "adam"
    sgd = "sgd"


class CommandError(Exception):
    """What the user asked for cannot be done; the message says why."""


class Run(NamedTuple):
    """One training run and what became of it."""

    label: str
    accuracy: float
    seconds: float
    footprint: Footprint
    bytes_on_disk: float
    history: History
    model: nn.Module


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"lnsnum {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


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
    _check_writable("--out", out)
    if plot is not None:
        _check_plot(plot)
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


def _check_writable(option: str, path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CommandError(f"{option} {path}: there is no folder {folder}")
    if (path.exists() and not path.is_file()) or not os.access(folder, os.W_OK):
        raise CommandError(f"{option} {path} cannot be written")


def _check_plot(path: Path) -> None:
    _check_writable("--plot", path)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install 'lnsnum[plot]'") from error
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise CommandError(f"--plot {path}: the ending is none of {', '.join(sorted(known))}")


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


@app.command()
def certify(
    formats: Annotated[list[str], typer.Argument(help="Formats, such as lns8f3 or lns32f23.", show_default=False)],
    gaussian: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge an approximate Gaussian logarithm instead: exact, mitchell, cotransformation, "
            "cotransformation:BITS, linear:SEGMENTS. Can be repeated."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for the documentation.")] = False,
) -> None:
    """Scan all that a claim of correct rounding needs, and print a certificate. Exit code 1 where one is refuted."""
    try:
        parsed = [LNSFormat.parse(name) for name in formats]
    except ValueError as error:
        raise CommandError(str(error)) from error
    from lnsnum import certify as proofs

    logs = {name: _gaussian_log(name) for name in gaussian or []}
    wrong = 0
    for i, fmt in enumerate(parsed):
        if i and markdown:
            print()
        if logs:
            judged = {name: proofs.judge(log, fmt) for name, log in logs.items()}
            if markdown:
                rows = (proofs.judgement_markdown(name, judgements) for name, judgements in judged.items())
                print(f"### {fmt.name}", "", proofs.JUDGEMENT_HEAD, *rows, sep="\n")
            else:
                for name, judgements in judged.items():
                    console.print(_judgement(fmt, name, judgements))
            continue
        with errors.status(f"{fmt.name}: ...") as status:
            certificate = proofs.certify(fmt, lambda name, fmt=fmt: status.update(f"{fmt.name}: {name}"))  # type: ignore[misc]
        wrong += certificate.misroundings
        if markdown:
            print(proofs.markdown(certificate))
        else:
            console.print(_certificate(certificate))
    if wrong:
        sys.exit(1)


def _gaussian_log(name: str) -> GaussianLog:
    from lnsnum import gaussian

    kind, _, number = name.partition(":")
    known: dict[str, Callable[[], GaussianLog]] = {
        "exact": gaussian.Exact,
        "mitchell": gaussian.Mitchell,
        "cotransformation": gaussian.Cotransformation,
    }
    numbered: dict[str, Callable[[int], GaussianLog]] = {
        "linear": gaussian.LinearInterpolation,
        "cotransformation": gaussian.Cotransformation,
    }
    try:
        if number and kind in numbered:
            return numbered[kind](int(number) if re.fullmatch("-?[0-9]{1,9}", number) else _no_number(number))
        if not number and kind in known:
            return known[kind]()
    except ValueError as error:
        raise CommandError(f"--gaussian {name}: {error}") from error
    raise CommandError(
        f"--gaussian {name} is not known: exact, mitchell, cotransformation, cotransformation:BITS, linear:SEGMENTS"
    )


def _no_number(text: str) -> int:
    raise ValueError(f"{text!r} is no integer")


def _certificate(certificate: Certificate) -> Table:
    caption = ", ".join(f"{name} {value}" for name, value in certificate.environment.items())
    table = Table(title=certificate.fmt.name, caption=f"{certificate.seconds:.1f} s; {caption}")
    table.add_column("operation")
    for column in ("inputs scanned", "nearest tie", "near ties re-checked", "misroundings"):
        table.add_column(column, justify="right")
    for finding in certificate.findings:
        row = [f"{finding.inputs:,}", finding.tie, f"{finding.rechecked:,}"]
        table.add_row(finding.operation, *row, f"{finding.misroundings} {finding.first_wrong}".strip())
    return table


def _judgement(fmt: LNSFormat, name: str, judgements: list[Judgement]) -> Table:
    from lnsnum.certify import EDGES

    table = Table(title=f"{fmt.name}, {name}: error in ulp over every z")
    ends = [f"<= {end:g}" for end in EDGES[:-1]]
    for column in ("", *ends, "more", "worst", "monotone", "rounding"):
        table.add_column(column, justify="right")
    for j in judgements:
        row = [*(f"{count:,}" for count in j.histogram), f"{j.worst_error:.3f} at z={j.worst_z}"]
        table.add_row(j.function, *row, "yes" if j.monotone else "no", j.rounding)
    return table


def main() -> None:
    """Run the command line; what the user can mend ends in one sentence and exit code 2."""
    try:
        app()
    except (CommandError, TaskError, WeightFileError, OSError, ImportError) as error:
        errors.print(f"error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
