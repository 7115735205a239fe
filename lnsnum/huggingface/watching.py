"""A `Monitor` as transformers' Trainer calls it."""

from __future__ import annotations

import warnings
from typing import Any

from transformers import TrainerCallback

from lnsnum.files.atomic import StrPath
from lnsnum.torch_bridge.monitor import Monitor, Onlooker, check_options


class MonitorCallback(TrainerCallback):
    """Writes the log of a training: `Trainer(..., callbacks=[MonitorCallback("run.jsonl")])`.

    A line for each step; the loss is in those where Trainer logs one (`logging_steps`). A run that is resumed goes on
    with the log from its checkpoint's step; of several processes the first writes. Where the log cannot be written any
    more, as on a full disk, a warning says so and training goes on.

    Args:
        path: the log, .jsonl or .csv; None where there is `tensorboard`.
        options: further arguments of `Monitor`, such as `tensorboard`, a folder.
    """

    def __init__(self, path: StrPath | None = None, **options: Any) -> None:
        check_options(path, **options)
        self.path, self.options = path, options
        self._onlooker = Onlooker(None, warnings.warn)

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Open the log."""
        monitor = None
        if state.is_world_process_zero:
            monitor = Monitor(self.path, optimizer, after=state.global_step, **self.options)
        self._onlooker = Onlooker(monitor, warnings.warn)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Keep the learning rate, which the scheduler changes before the step is over."""
        self._onlooker.begins(float(optimizer.param_groups[0]["lr"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the step that is over, unless its loss is still to be told."""
        self._onlooker.is_over()
        if not control.should_log:
            self._onlooker.write(None)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write the step whose loss this is."""
        if logs and "loss" in logs:
            self._onlooker.write(logs["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the log."""
        self._onlooker.close()
