"""A `Monitor` as Lightning's Trainer calls it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from lnsnum.files.atomic import StrPath
from lnsnum.torch_bridge.monitor import Monitor, Onlooker, check_options


class MonitorCallback(Callback):
    """Writes the log of a training: `Trainer(callbacks=[MonitorCallback("run.jsonl")])`.

    A line for each step of an optimizer: the loss is that of its batches, where the module's `training_step` returns
    it. A run that is resumed goes on with the log from its checkpoint's step; of several processes the first writes.
    Where the log cannot be written any more, as on a full disk, a warning says so and training goes on.

    Args:
        path: the log, .jsonl or .csv; None where there is `tensorboard`.
        optimizer: whose steps are written, counted from 0; needed where the module has several.
        options: further arguments of `Monitor`, such as `tensorboard`, a folder.

    Raises:
        ValueError: where training begins, if the module has several optimizers and none is chosen.
    """

    def __init__(self, path: StrPath | None = None, *, optimizer: int | None = None, **options: Any) -> None:
        check_options(path, **options)
        self.path, self.number, self.options = path, optimizer, options
        self._onlooker = Onlooker(None, warnings.warn)
        self._optimizer: Any = None
        self._steps = 0
        """Those of the optimizer that are over. Lightning counts those of all together."""
        self._has_begun = False
        self._loss: torch.Tensor | None = None

    @property
    def state_key(self) -> str:
        """By which a checkpoint has the state of this one."""
        return str(self._generate_state_key(path=str(self.path), optimizer=self.number))

    def state_dict(self) -> dict[str, Any]:
        """How many steps are over."""
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after these steps."""
        self._steps = state_dict["steps"]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the log."""
        count = len(trainer.optimizers)
        if not 0 <= (self.number or 0) < count or (self.number is None and count > 1):
            raise ValueError(
                f"the module has {count} optimizers, and a log is of one: give optimizer, from 0 to {count - 1}"
            )
        self._optimizer = trainer.optimizers[self.number or 0]
        if count == 1 or trainer.global_step == 0:
            self._steps = trainer.global_step
        monitor = None
        if trainer.is_global_zero:
            monitor = Monitor(self.path, self._optimizer, after=self._steps, **self.options)
        self._onlooker = Onlooker(monitor, warnings.warn)
        self._has_begun, self._loss = False, None

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Keep the learning rate, which the scheduler changes before the step is written."""
        if getattr(optimizer, "optimizer", optimizer) is self._optimizer:
            self._is_over()
            self._onlooker.begins(float(optimizer.param_groups[0]["lr"]))
            self._has_begun = True

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write the step, if the batch was the last of one."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):  # Lightning has divided it by the batches of a step
            self._loss = loss.detach() + (0 if self._loss is None else self._loss)
        if self._has_begun:
            self._is_over()
            self._onlooker.write(self._loss)
            self._loss = None

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the log."""
        self._onlooker.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the log of a run that was stopped."""
        self._onlooker.close()

    def _is_over(self) -> None:
        if self._has_begun:
            self._onlooker.is_over()
            self._steps += 1
        self._has_begun = False
