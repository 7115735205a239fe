"""A `Monitor` as transformers' Trainer calls it."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from lnsnum.files.atomic import StrPath
from lnsnum.files.run_log import check_log_path
from lnsnum.torch_bridge.monitor import Monitor


class MonitorCallback(TrainerCallback):
    """Writes the log of a training: `Trainer(..., callbacks=[MonitorCallback("run.jsonl")])`.

    A line for each step; the loss is in those where Trainer logs one (`logging_steps`). A run that is resumed goes on
    with the log from its checkpoint's step.

    Args:
        path: the log, .jsonl or .csv.
        options: further arguments of `Monitor`.
    """

    def __init__(self, path: StrPath, **options: Any) -> None:
        self.path, self.options = check_log_path(path), options
        self._monitor: Monitor | None = None
        self._lr: float | None = None
        self._is_due = False

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Open the log."""
        self._monitor = Monitor(self.path, optimizer, after=state.global_step, **self.options)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Keep the learning rate, which the scheduler changes before the step is over."""
        self._lr = float(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the step that is over, unless its loss is still to be told."""
        self._write(None)
        self._is_due = True
        if not control.should_log:
            self._write(None)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write the step whose loss this is."""
        if logs and "loss" in logs:
            self._write(logs["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the log."""
        self._write(None)
        if self._monitor is not None:
            self._monitor.close()

    def _write(self, loss: float | None) -> None:
        if self._is_due and self._monitor is not None:
            self._monitor.step(loss, lr=self._lr)
        self._is_due = False
