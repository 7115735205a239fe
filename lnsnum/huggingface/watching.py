"""A `Monitor` as transformers' Trainer calls it."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from transformers import TrainerCallback

from lnsnum.files.atomic import StrPath
from lnsnum.files.run_log import check_log_path
from lnsnum.torch_bridge.monitor import Monitor


class MonitorCallback(TrainerCallback):
    """Writes the log of a training: `Trainer(..., callbacks=[MonitorCallback("run.jsonl")])`.

    A line for each step; the loss is in those where Trainer logs one (`logging_steps`). A run that is resumed goes on
    with the log from its checkpoint's step; of several processes the first writes. Where the log cannot be written any
    more, as on a full disk, a warning says so and training goes on.

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
        self._monitor, self._is_due = None, False
        if not state.is_world_process_zero:
            return
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
        self._close()

    def _write(self, loss: float | None) -> None:
        if self._is_due and self._monitor is not None:
            try:
                self._monitor.step(loss, lr=self._lr)
            except OSError as error:
                warnings.warn(f"the log ends before step {self._monitor.steps}: {error}", stacklevel=2)
                self._close()
        self._is_due = False

    def _close(self) -> None:
        if self._monitor is not None:
            with contextlib.suppress(OSError):  # what could not be written is tried again
                self._monitor.close()
        self._monitor = None
