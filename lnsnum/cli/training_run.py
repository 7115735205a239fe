"""One training run of `lnsnum train`: under a progress bar, kept whatever ends it, and then measured.

    NAME            the network, written right after its last step, and once more with its score
    NAME-stopped    the network of a run that was stopped, or whose loss is no longer finite
    NAME-resume     all that the run needs to go on: of a run that was stopped, and with --save-every

Signals wait for the end of the step, so that what is kept is the run after a whole step. Of several processes all run
the steps, and stop after the same one; the first alone writes and measures.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from lnsnum import __version__
from lnsnum.cli.app import CommandError, console, errors
from lnsnum.tasks import RUN_ENTRY, TASK_ENTRY
from lnsnum.tasks.rescue import keep
from lnsnum.tasks.signals import Stopped, check, hold, stop
from lnsnum.tasks.troubles import in_words

if TYPE_CHECKING:
    from torch import nn

    from lnsnum.tasks.footprint import Footprint
    from lnsnum.tasks.processes import Processes
    from lnsnum.tasks.recipe import Recipe
    from lnsnum.tasks.task import Batch, Task
    from lnsnum.tasks.training import History
    from lnsnum.torch_bridge.monitor import Onlooker


class Run(NamedTuple):
    """One training run and what became of it."""

    label: str
    score: float
    seconds: float
    footprint: Footprint
    bytes_on_disk: float
    history: History
    model: nn.Module
    path: Path
    """Of the weight file."""
    trouble: str | None
    """Why that is not where it should be."""


@dataclass(frozen=True)
class Job:
    """What is to be trained, and where it is kept."""

    task: Task
    recipe: Recipe
    steps: int
    seed: int
    out: Path
    processes: Processes
    """Those that share each batch."""
    is_kept: bool = True
    """Whether anybody wants what was learned where the run is cut."""
    save_every: int | None = None
    """Steps after which the run is saved, to be resumed."""
    more: dict[str, Any] | None = None
    """What else is saved of the command, to be resumed."""
    resumed: Path | None = None
    """The file from which the run goes on."""
    log: Path | None = None
    """Where each step gets a line."""
    tensorboard: Path | None = None
    """The folder where each step's events go."""
    told: Console = console
    """Where progress is shown: not where a program reads."""

    @property
    def stopped(self) -> Path:
        """The network of a run that was cut."""
        return self.out.with_stem(f"{self.out.stem}-stopped")

    @property
    def resume(self) -> Path:
        """The whole run, to go on with."""
        return resume_path(self.out)

    def record(self) -> dict[str, Any]:
        """The run's arguments, as JSON."""
        return {
            "run": self.recipe.label,
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
            "steps": self.steps,
            "options": self.task.options,
            "data": self.task.fingerprint,
            "measure": self.task.measure.name,
            "lnsnum": __version__,
            **({} if self.processes.size == 1 else {"processes": self.processes.size}),
        }


def resume_path(out: Path) -> Path:
    """Where a run that writes `out` is kept, to be resumed."""
    return out.with_stem(f"{out.stem}-resume")


class _Trainee:
    """A network while it is trained."""

    def __init__(self, job: Job) -> None:
        from lnsnum.tasks import training
        from lnsnum.tasks.resume import load_run, read_arguments

        self.job, self.before = job, 0.0
        self.history = training.History()
        if job.resumed is None:
            self.model, self.optimizer = training.start(job.task, job.recipe, job.seed)
        else:
            self.before = float(read_arguments(job.resumed).get("seconds", 0.0))
            self.model, self.optimizer, self.history = load_run(job.resumed, job.task, job.recipe, job.seed)
        asked = {**job.record(), "save_every": job.save_every, **(job.more or {}), "done": len(self.history.loss)}
        job.processes.check_alike({f"the run's {name}": value for name, value in asked.items()})
        self._begin = time.perf_counter()
        self.onlooker = self._onlooker()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self._begin

    def steps(self) -> Iterator[History]:
        from lnsnum.tasks import training

        job = self.job
        return training.train(
            job.task, self.model, self.optimizer, job.recipe,
            steps=job.steps, seed=job.seed, history=self.history, processes=job.processes,
            watch=self._log,
        )  # fmt: skip

    def _onlooker(self) -> Onlooker:
        """Who writes the log, if one is wanted of this process."""
        from lnsnum.torch_bridge.monitor import Monitor, Onlooker, weights_of

        job, monitor = self.job, None
        if (job.log or job.tensorboard) and job.processes.is_first:
            options: dict[str, Any] = {"tensorboard": job.tensorboard, "after": len(self.history.loss)}
            options["histogram_of"] = self.model if job.tensorboard and weights_of(self.model) else None
            try:
                monitor = Monitor(job.log, self.optimizer, **options)
            except ValueError as error:  # of a log that a resumed run is to go on with
                raise CommandError(str(error)) from error
        return Onlooker(monitor, errors.print, in_words)

    def _log(self, loss: float) -> None:
        self.onlooker.is_over()
        self.onlooker.write(loss)

    def save(self, path: Path, **more: Any) -> None:
        from lnsnum.torch_bridge import save_model

        record = json.dumps(self.job.record() | more)
        save_model(path, self.model, metadata={TASK_ENTRY: self.job.task.name, RUN_ENTRY: record})

    def save_to_resume(self, path: Path) -> None:
        from lnsnum.tasks.resume import save_run

        whole = {"task": self.job.task.name, **self.job.record(), "seconds": self.seconds, **(self.job.more or {})}
        save_run(path, self.model, self.optimizer, self.history, whole)


def train_once(job: Job) -> Run | None:
    """Train, save, score, load into a fresh model, compare the two, and measure one more step of the trained one.

    Returns:
        The run; None on the other processes than the first, which train and do no more.

    Raises:
        Stopped: where a signal ended it; what was learned is kept, and said to be.
        CommandError: where it diverged; what was learned is kept.
        OSError: where nothing can be written anywhere.
    """
    import torch

    from lnsnum.tasks.footprint import measure_footprint
    from lnsnum.tasks.training import weight_count
    from lnsnum.torch_bridge import load_model

    trainee = _Trainee(job)
    task, model = job.task, trainee.model
    kept = None
    try:
        with hold():
            _train(trainee)
            seconds = trainee.seconds
            if not job.processes.is_first:
                return None
            kept = keep(job.out, trainee.save)
            if job.is_kept and kept.trouble is None:
                with contextlib.suppress(OSError):  # what is left of it does no harm
                    job.resume.unlink(missing_ok=True)
        score = task.score(model)
        try:
            with hold():
                trainee.save(kept.path, score=score)
        except OSError as error:
            errors.print(f"the score could not be added to the file: {in_words(error)}")
        loaded = load_model(kept.path, task.network())
        if not torch.equal(task.outputs(loaded), task.outputs(model)):
            raise CommandError(f"the model loaded from {kept.path} is not the one that was saved")
        footprint = measure_footprint(task, model, trainee.optimizer, first_batch(task))
    except KeyboardInterrupt:
        if job.is_kept and kept is not None:
            job.told.print(f"stopped; the trained network is in {kept.path}, and lnsnum evaluate scores it")
        raise
    trouble = None if kept.trouble is None else f"{in_words(kept.trouble)}; the network is in {kept.path}"
    size = kept.path.stat().st_size / weight_count(model)
    return Run(job.recipe.label, score, seconds, footprint, size, trainee.history, loaded, kept.path, trouble)


def _train(trainee: _Trainee) -> None:
    """All steps; where they end too soon, for whatever reason, what was learned until then is kept."""
    from lnsnum.tasks import training

    job = trainee.job
    try:
        try:
            _with_progress(trainee)
        except (training.DivergedError, Stopped) as end:  # on all processes, none of which ends before this is kept
            try:
                _keep_cut(trainee, end)
            finally:
                job.processes.wait()
            raise
        if job.processes.is_first:
            training.check_outputs(job.task, trainee.model)
    except (CommandError, Stopped):
        raise
    except BaseException as end:
        _keep_cut(trainee, end)
        raise
    finally:
        trainee.onlooker.close()


def _keep_cut(trainee: _Trainee, end: BaseException) -> None:
    """Keep what a run that is cut has learned; raises CommandError of one that diverged."""
    from lnsnum.tasks import training

    job = trainee.job
    if not job.is_kept:
        return
    where = ""
    if job.processes.is_first:
        where = f"what was learned until then is in {_kept(job.stopped, trainee.save)}"
    if isinstance(end, training.DivergedError):
        raise CommandError(f"{end}; {where}" if where else str(end)) from end
    job.told.print(f"stopped; {where}" if isinstance(end, KeyboardInterrupt) else where)
    if isinstance(end, Stopped) and job.processes.is_first:  # after a whole step
        try:
            path = _kept(job.resume, trainee.save_to_resume)
            job.told.print(f"lnsnum train --resume {path} goes on with step {len(trainee.history.loss) + 1}")
        except OSError as error:
            errors.print(f"it cannot be resumed: {in_words(error)}")


def _kept(path: Path, write: Callable[[Path], object]) -> str:
    """Write a file, and say where it is; and why there, where it could not be where it should."""
    kept = keep(path, write)
    return str(kept.path) if kept.trouble is None else f"{kept.path} ({in_words(kept.trouble)})"


def _with_progress(trainee: _Trainee) -> None:
    """Run the steps under a progress bar that shows the means of the last 20, and save the run now and then."""
    job = trainee.job
    fields = ["[bold]{task.description}", "loss {task.fields[loss]:.4f}"]
    if job.recipe.moves_codes:
        fields.append("codes moved {task.fields[moved]:6.2%}")
    columns: list[ProgressColumn] = [TextColumn(field) for field in fields]
    with Progress(*columns, BarColumn(20), TaskProgressColumn(), TimeRemainingColumn(), console=job.told) as bar:
        done = len(trainee.history.loss)
        entry = bar.add_task(job.recipe.label, total=job.steps, completed=done, loss=math.nan, moved=0.0)
        for history in trainee.steps():
            trainee.history = history
            bar.update(entry, advance=1, loss=fmean(history.loss[-20:]), moved=fmean(history.moved[-20:]))
            done = len(history.loss)
            is_due = job.save_every is not None and done % job.save_every == 0 and done < job.steps
            if is_due and job.processes.is_first:
                try:
                    trainee.save_to_resume(job.resume)
                except OSError as error:  # the run is worth more than its copy
                    errors.print(f"step {done} is not saved, and training goes on: {in_words(error)}")
            if job.processes.size == 1:
                check()
            elif history.asked:  # in the midst of the step, and all know
                stop(history.asked)


def first_batch(task: Task) -> Batch:
    """Some batch."""
    import torch

    return next(task.batches(torch.Generator().manual_seed(0)))
