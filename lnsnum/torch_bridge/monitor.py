"""A log of a training that one can watch: a line for each step, of what the loop and the optimizer know of it.

`lnsnum.files.run_log` says what is in a line, `event_log` how TensorBoard gets it. The counts are those of
`Madam.step_report`; other optimizers have none.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.optim import Optimizer

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.run_log import COUNTS, FIELDS, RunLog, check_log_path
from lnsnum.torch_bridge.event_log import EventLog, summary_writer
from lnsnum.torch_bridge.madam import Madam
from lnsnum.torch_bridge.weight import LNSWeight


class Monitor:
    """Writes a line for each step of any loop; call `step` after the optimizer's, before the scheduler's.

    Args:
        path: the log, .jsonl or .csv; an existing one is replaced. None where there is a folder for TensorBoard.
        optimizer: whose learning rate and step report are written; also in accelerate's wrapper.
        every: write one line in so many steps.
        histogram_of: a model whose codes are counted now and then, in a .jsonl and for TensorBoard: a list for each
            weight, by log magnitude.
        histogram_every: once in so many steps, in the next line that is written.
        tensorboard: a folder that gets the same as events for TensorBoard.
        after: a run is resumed, and goes on after this step: lines up to it are kept.

    Raises:
        ValueError: for another ending, histograms that have no place or no codes, numbers out of range, or nothing to
            write to.
        TypeError: where an argument is something else.
        ImportError: for TensorBoard without its package.
        OSError: where the log cannot be written.

    >>> import tempfile
    >>> from lnsnum.torch_bridge import Madam, convert_model
    >>> model = nn.Linear(3, 1)
    >>> report = convert_model(model, "lns8f5")
    >>> optimizer = Madam(model.parameters())
    >>> with tempfile.TemporaryDirectory() as folder, Monitor(f"{folder}/run.jsonl", optimizer) as monitor:
    ...     loss = model(torch.ones(1, 3)).square().sum()
    ...     loss.backward()
    ...     optimizer.step()
    ...     line = monitor.step(loss)
    >>> line["step"], line["lr"], line["not_finite"]
    (1, 0.05, 0)
    """

    def __init__(
        self,
        path: StrPath | None,
        optimizer: Optimizer | None,
        *,
        every: int = 1,
        histogram_of: nn.Module | None = None,
        histogram_every: int = 100,
        tensorboard: StrPath | None = None,
        after: int = 0,
    ) -> None:
        check_options(
            path, every=every, histogram_of=histogram_of, histogram_every=histogram_every, tensorboard=tensorboard
        )
        if type(after) is not int or after < 0:
            raise ValueError(f"after={after!r} is no integer from 0 on")
        optimizer = getattr(optimizer, "optimizer", optimizer)  # of accelerate's wrapper
        if optimizer is not None and not hasattr(optimizer, "param_groups"):
            raise TypeError(f"optimizer is a {type(optimizer).__name__}: give one of torch.optim, or None")
        log = None if path is None else RunLog(path, after=after)
        self._logs: list[RunLog | EventLog] = [] if log is None else [log]
        if tensorboard is not None:
            try:
                self._logs.append(EventLog(tensorboard, after=after))
            except OSError:
                self.close()
                raise
        self._optimizer, self._every, self._is_closed = optimizer, every, False
        self._model, self._histogram_every, self._is_due = histogram_of, histogram_every, False
        self.steps = after
        """Those that are over."""
        before = log.kept[-1]["seconds"] if log is not None and log.kept else None
        self._begin = time.perf_counter() - (before or 0.0)

    def step(self, loss: float | torch.Tensor | None = None, *, lr: float | None = None, **more: Any) -> dict[str, Any]:
        """Write what is known of the step that has just been taken; returns it.

        Args:
            loss: its loss.
            lr: the learning rate, where that of the optimizer's first group is not it any more.
            more: further entries, in a .jsonl.

        Raises:
            ValueError: for a further entry with a name that the log has already, or when the monitor is closed.
            TypeError: for a loss that is no number.
        """
        taken = [name for name in more if name in FIELDS or name == "histograms"]
        if taken:
            raise ValueError(f"{taken[0]!r} is what the log itself writes: give the entry another name")
        if self._is_closed:
            raise ValueError("the monitor is closed: no step is written any more")
        if loss is not None:
            loss = _number(loss)
        self.steps += 1
        line: dict[str, Any] = dict.fromkeys(FIELDS) | {"step": self.steps, "loss": loss, "lr": lr}
        line["seconds"] = round(time.perf_counter() - self._begin, 3)
        optimizer = self._optimizer
        if optimizer is not None and lr is None:
            line["lr"] = float(optimizer.param_groups[0]["lr"])
        if isinstance(optimizer, Madam):
            line |= {name: count for name, count in asdict(optimizer.step_report()).items() if name in COUNTS}
        self._is_due |= self.steps % self._histogram_every == 0
        if self.steps % self._every == 0:
            whole = line | self._histograms() | more
            for log in self._logs:
                log.write(whole)
        return line | more

    def _histograms(self) -> dict[str, Any]:
        if self._model is None or not self._is_due:
            return {}
        self._is_due = False
        weights = weights_of(self._model)
        return {"histograms": {name: p.telemetry().histogram.tolist() for name, p in weights.items()}}

    def close(self) -> None:
        """Close the files."""
        self._is_closed = True
        for log in self._logs:
            log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_options(
    path: StrPath | None,
    *,
    every: int = 1,
    histogram_of: nn.Module | None = None,
    histogram_every: int = 100,
    tensorboard: StrPath | None = None,
) -> None:
    """Raise what `Monitor` raises for these arguments, before there is an optimizer."""
    for name, place in (("path", path), ("tensorboard", tensorboard)):
        if place is not None and not isinstance(place, (str, os.PathLike)):
            raise TypeError(f"{name} is a {type(place).__name__}: give a path")
    if path is None and not tensorboard:
        raise ValueError("a log is written to a path, .jsonl or .csv, or to a folder for TensorBoard: give one of them")
    if path is not None and check_log_path(path).suffix == ".csv" and histogram_of is not None and not tensorboard:
        raise ValueError(f"{shown(path)}: a .csv has no place for histograms, a .jsonl has")
    if tensorboard is not None:
        if not str(tensorboard):
            raise ValueError("tensorboard='' is no folder: give one for the events")
        summary_writer()
    for name, number in (("every", every), ("histogram_every", histogram_every)):
        if type(number) is not int or number < 1:
            raise ValueError(f"{name}={number!r} is no integer from 1 on")
    if histogram_of is not None:
        if not isinstance(histogram_of, nn.Module):
            raise TypeError(f"histogram_of is a {type(histogram_of).__name__}: give a module")
        if not weights_of(histogram_of):
            raise ValueError(f"histogram_of={type(histogram_of).__name__} has no LNS weights: convert_model makes them")


def weights_of(model: nn.Module) -> dict[str, LNSWeight]:
    """The LNS weights by name; of one that is cut between processes, what is here."""
    found = ((name, getattr(p, "_local_tensor", p)) for name, p in model.named_parameters())
    return {name: p for name, p in found if isinstance(p, LNSWeight)}


def _number(loss: Any) -> float:
    try:
        return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
    except (TypeError, ValueError, RuntimeError):
        what = f"tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise TypeError(f"the loss is a {what}: give one real number") from None


class Onlooker:
    """A Monitor of a run that is worth more than its log: where that cannot be written any more, the run goes on.

    A framework tells of a step piece by piece: that it begins, that it is over, and perhaps what its loss was.

    Args:
        monitor: of the run; None where another process writes.
        say: told in a sentence why the log ends.
        words: what an error says.
    """

    def __init__(
        self, monitor: Monitor | None, say: Callable[[str], None], words: Callable[[OSError], str] = str
    ) -> None:
        self._monitor, self._say, self._words = monitor, say, words
        self._lr: float | None = None
        self._is_due = False

    def begins(self, lr: float) -> None:
        """A step begins, with this learning rate: a schedule may change it before the step is written."""
        self.write(None)
        self._lr = lr

    def is_over(self) -> None:
        """The step that has begun is over, and still to be written."""
        self.write(None)
        self._is_due = True

    def write(self, loss: float | torch.Tensor | None) -> None:
        """Write the step that is over, unless that is done."""
        if self._is_due and self._monitor is not None:
            try:
                self._monitor.step(loss, lr=self._lr)
            except OSError as error:
                self._say(f"the log ends before step {self._monitor.steps}, and training goes on: {self._words(error)}")
                self._close()
        self._is_due = False

    def close(self) -> None:
        """Write what is still to be written, and close the log."""
        self.write(None)
        self._close()

    def _close(self) -> None:
        if self._monitor is not None:
            with contextlib.suppress(OSError):  # what could not be written is tried again
                self._monitor.close()
        self._monitor = None
