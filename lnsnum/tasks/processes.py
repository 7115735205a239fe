"""One run on several processes: each learns from its share of every batch, and all take the same step.

    gradient of the batch's mean loss  =  sum over processes of (share / batch) * gradient of the share's mean loss

Every process draws the whole batch, and takes consecutive examples of it, so that the batch is the one that was asked
for, in any number of processes. DistributedDataParallel averages gradients: hence a loss is multiplied by
processes * share / batch, which is 1 where the shares are even.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from lnsnum.tasks import TaskError
from lnsnum.tasks.task import Batch, Task
from lnsnum.torch_bridge.distributed.exchange import LostError, difference, hear, reaching, tell

Loss = Callable[[Batch], torch.Tensor]

LARGEST_SEED = 1 << 62

_LETTING_GO = 0.1
"""Seconds, see `joined`."""


@dataclass(frozen=True)
class Processes:
    """Those of one run, of which this is number `rank`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """The number among those of this machine, and of its graphics card."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Where this process computes, when the run is asked to be on a device. Raises TaskError for one card.

        >>> Processes(5, 8, local_rank=1).device("cuda")
        'cuda:1'
        """
        kind, _, number = name.partition(":")
        if self.size == 1 or kind == "cpu":
            return name
        if number:
            raise TaskError(f"device {name}: {self.size} processes cannot share it: give {kind}, and each has its own")
        return f"{kind}:{self.local_rank}"

    def check_alike(self, told: Mapping[str, object]) -> None:
        """Compare what each process was asked to do. Raises TaskError, on every process, where they differ."""
        if self.size == 1:
            return
        with _in_words():
            number = tell("run", {name: str(value) for name, value in told.items()}, dist.group.WORLD)
            found = difference(hear("run", number, dist.group.WORLD))
        if found is not None:
            raise TaskError(f"{found}: the processes of one run are given the same command, the same data and files")

    def loss_of(self, task: Task, model: nn.Module) -> Loss:
        """The loss of this process's share of a batch, whose gradients become those of the batch.

        Raises:
            TaskError: for a task that is computed in a datapath.
        """
        if self.size == 1:
            return lambda batch: task.loss(model, batch)
        if task.datapath is not None:  # its random words are keyed by the place in a process's own share
            raise TaskError(f"datapath {task.datapath}: it is of one process: leave it out, or launch one")
        with warnings.catch_warnings(), _in_words():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of what its wrapper calls
            whole = nn.parallel.DistributedDataParallel(_Losses(task, model))
        devices = [task.device] if task.device.type == "cuda" else []

        def loss(batch: Batch) -> torch.Tensor:
            share, weight = share_of(batch, self.rank, self.size)
            # one draw on each process, so that what all draw alike afterwards stays alike, whatever the shares draw
            seed = int(torch.randint(LARGEST_SEED, ()))
            with _in_words(), torch.random.fork_rng(devices):
                torch.manual_seed(seed + self.rank)
                found: torch.Tensor = whole(*share)
            return found if weight == 1 else found * weight

        return loss

    def agree(self, loss: torch.Tensor, asked: int) -> tuple[float, int]:
        """The loss of the whole batch, and the greatest signal that a process was asked to stop by; 0 for none."""
        if self.size == 1:
            return loss.item(), asked
        own = torch.tensor([loss.item() / self.size, float(asked)], dtype=torch.float64)
        gathered = [torch.empty_like(own).to(loss.device) for _ in range(self.size)]
        with _in_words():
            dist.all_gather(gathered, own.to(loss.device))
        losses, signals = torch.stack(gathered).cpu().unbind(1)
        return float(losses.sum()), int(signals.max())

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of the batch, in the parameters."""
        with _in_words():
            loss.backward()

    def wait(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            with _in_words():
                dist.barrier()


ALONE = Processes()


class _Losses(nn.Module):
    """A network whose output is its loss: what DistributedDataParallel can wrap, whatever a loss asks of a network."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._loss = task.loss

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._loss(self.model, Batch(inputs, targets))


def share_of(batch: Batch, rank: int, size: int) -> tuple[Batch, float]:
    """What a process learns from, and what its mean loss counts, in units of 1 / size.

    Shares differ by one example at most. Where a batch has fewer examples than there are processes, the last ones learn
    from its first example, which counts nothing there.

    >>> batch = Batch(torch.arange(5), torch.arange(5))
    >>> [(share.inputs.tolist(), round(weight, 3)) for share, weight in (share_of(batch, rank, 2) for rank in range(2))]
    [([0, 1, 2], 1.2), ([3, 4], 0.8)]
    """
    count = len(batch.inputs)
    least, more = divmod(count, size)
    begin = rank * least + min(rank, more)
    own = least + (rank < more)
    part = slice(begin, begin + own) if own else slice(0, 1)
    return Batch(*(each[part] for each in batch)), own * size / count


def launched() -> bool:
    """Whether this process is one of several, as torchrun and accelerate launch tell them."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes of this run, as one group while the block lasts; alone where nothing was launched.

    Raises:
        TaskError: where torch has no backend for several processes on this device, or they do not find each other.
    """
    if not launched():
        yield ALONE
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    if not dist.is_available() or not dist.is_backend_available(backend):
        size = os.environ["WORLD_SIZE"]
        raise TaskError(f"{size} processes were launched, and this torch was built without {backend}, which they need")
    try:
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group(backend)
    except (RuntimeError, ValueError) as error:
        said = str(error).strip().split("\n")[0]
        raise TaskError(f"the processes that were launched do not find each other: {said}") from error
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
        # Threads of gloo's let go of a collective's tensors a moment after it is done, and need Python for it: were it
        # ending by then, they would abort the process, and its exit code would tell of a failure. Nobody joins them:
        # once a network has been wrapped, the group goes on to live.
        time.sleep(_LETTING_GO)


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        with reaching("the other processes of the run"):
            yield
    except LostError as error:
        raise TaskError(str(error)) from error
