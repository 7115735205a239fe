"""A log of a training that one can watch: a line for each step, of what the loop and the optimizer know of it.

`lnsnum.files.run_log` says what is in a line. The counts are those of `Madam.step_report`; other optimizers have none.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.optim import Optimizer

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.run_log import COUNTS, FIELDS, RunLog, check_log_path
from lnsnum.torch_bridge.madam import Madam
from lnsnum.torch_bridge.weight import LNSWeight


class Monitor:
    """Writes a line for each step of any loop; call `step` after the optimizer's, before the scheduler's.

    Args:
        path: the log, .jsonl or .csv; an existing one is replaced.
        optimizer: whose learning rate and step report are written; also in accelerate's wrapper.
        every: write one line in so many steps.
        histogram_of: a model whose codes are counted now and then, in a .jsonl: a list for each weight, by log
            magnitude.
        histogram_every: in one of so many steps.
        after: a run is resumed, and goes on after this step: lines up to it are kept.

    Raises:
        ValueError: for another ending, histograms in a .csv, or numbers out of range.
        OSError: where the file cannot be written.

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
        path: StrPath,
        optimizer: Optimizer | None,
        *,
        every: int = 1,
        histogram_of: nn.Module | None = None,
        histogram_every: int = 100,
        after: int = 0,
    ) -> None:
        if check_log_path(path).suffix == ".csv" and histogram_of is not None:
            raise ValueError(f"{shown(path)}: a .csv has no place for histograms, a .jsonl has")
        for name, number, least in (("every", every, 1), ("histogram_every", histogram_every, 1), ("after", after, 0)):
            if type(number) is not int or number < least:
                raise ValueError(f"{name}={number!r} is no integer from {least} on")
        self._log = RunLog(path, after=after)
        self._optimizer, self._every = optimizer, every
        self._model, self._histogram_every = histogram_of, histogram_every
        self.steps = after
        """Those that are over."""
        before = self._log.kept[-1]["seconds"] if self._log.kept else None
        self._begin = time.perf_counter() - (before or 0.0)

    def step(self, loss: float | torch.Tensor | None = None, *, lr: float | None = None, **more: Any) -> dict[str, Any]:
        """Write what is known of the step that has just been taken; returns it.

        Args:
            loss: its loss.
            lr: the learning rate, where that of the optimizer's first group is not it any more.
            more: further entries, in a .jsonl.
        """
        self.steps += 1
        if loss is not None:
            loss = float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
        line: dict[str, Any] = dict.fromkeys(FIELDS) | {"step": self.steps, "loss": loss, "lr": lr}
        line["seconds"] = round(time.perf_counter() - self._begin, 3)
        optimizer = getattr(self._optimizer, "optimizer", self._optimizer)
        if optimizer is not None and lr is None:
            line["lr"] = float(optimizer.param_groups[0]["lr"])
        if isinstance(optimizer, Madam):
            line |= {name: count for name, count in asdict(optimizer.step_report()).items() if name in COUNTS}
        if self.steps % self._every == 0:
            self._log.write(line | self._histograms() | more)
        return line | more

    def _histograms(self) -> dict[str, Any]:
        if self._model is None or self.steps % self._histogram_every:
            return {}
        weights = {name: p for name, p in self._model.named_parameters() if isinstance(p, LNSWeight)}
        return {"histograms": {name: p.telemetry().histogram.tolist() for name, p in weights.items()}}

    def close(self) -> None:
        """Close the file."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
