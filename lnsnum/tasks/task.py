"""What a task is: data, a network for it, a loss whose gradient trains the network, and a score.

    score(model trained on the training part), measured on the test part

Everything random comes from two places: torch's global generator (first weights, dropout) and the generator that is
handed to `Task.batches` (which examples come when, noise, sequences that are drawn).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from lnsnum.tasks import TaskError
from lnsnum.tasks.measure import Measure

HELD_OUT = 6
"""A sixth of the training data is a validation part, where there is one."""


class Batch(NamedTuple):
    """Inputs and targets of one step; the first dimension is the example."""

    inputs: torch.Tensor
    targets: torch.Tensor


class Task(ABC):
    """One problem with its data, ready to be trained. Tensors are on `device`."""

    name: str
    """What `lnsnum train --task` calls it."""
    measure: Measure
    source: str
    """What data it is, in one line: "digits of scikit-learn, 1,437 training and 360 test images"."""
    fingerprint: str
    """SHA-256 of the data as the task uses it, hexadecimal."""
    steps: int
    """Training steps when nobody says how many."""
    epoch_steps: int
    """Steps in which as many examples are seen as the training part has."""
    options: dict[str, Any]
    """The arguments, beside the data, that make the same task again; JSON."""
    device: torch.device
    bfloat16: bool = False
    """Whether to train under bfloat16 autocast."""
    datapath: str | None = None
    """What networks are computed in, as `lnsnum train --datapath` takes it; None for float."""
    validation: Task | None = None
    """The same task, whose test part is one of the training data that `hold_out` took away; None where it did not."""

    def hold_out(self) -> None:
        """Train without a sixth of the training data, and let `validation` be scored by that.

        What is held out is the same in every process. The fingerprint is another one, as a network learns from less.

        Raises:
            TaskError: where the task has nothing that can be held out.
        """
        validation = copy.copy(self)
        self._split(validation)
        self.fingerprint = validation.fingerprint = fingerprint(self.fingerprint.encode(), b"held out")
        self.validation = validation

    def _split(self, validation: Task) -> None:
        """Take the part away from both, and make it the test part of `validation`, a shallow copy."""
        raise TaskError(f"the task {self.name} has no validation part")

    def in_float(self) -> Task:
        """The same problem without a datapath: what one that has one is compared with."""
        plain = copy.copy(self)
        plain.datapath = None
        plain.options = {name: option for name, option in self.options.items() if name != "datapath"}
        return plain

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The precision to train and test in."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else contextlib.nullcontext()

    @abstractmethod
    def network(self) -> nn.Module:
        """A new network on `device`, its weights drawn by torch's global generator."""

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Training batches without end; `generator`, on the CPU, decides everything random in them.

        Begun anew with the generator as it was after a whole number of epochs, they go on as they would have: so a run
        that was cut is resumed.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The training loss on one batch, a scalar whose gradient trains all parameters."""

    @abstractmethod
    def score(self, model: nn.Module) -> float:
        """The score on the test part, in units of `measure`. Puts the model in evaluation mode."""

    @abstractmethod
    def outputs(self, model: nn.Module) -> torch.Tensor:
        """Outputs of the model, in evaluation mode, for some of the test part: equal bits tell equal models."""


def held_out(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of `count` examples: of those that are trained on, and of a sixth that is not, drawn once for all."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SPLIT_SEED))
    border = count // HELD_OUT
    return order[border:], order[:border]


_SPLIT_SEED = 2**33


def fingerprint(*parts: torch.Tensor | bytes) -> str:
    """SHA-256 over arrays (dtype, shape, bytes) and byte strings, hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(part.contiguous().cpu().numpy().tobytes())
        else:
            digest.update(part)
    return digest.hexdigest()
