"""The training loop: any task, any recipe.

    lr(t)  =  lr * (1 - t / steps)            where the schedule is linear

Everything random comes from the seed: the network's first weights, the order of the examples, dropout, stochastic
rounding.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from lnsnum.tasks import TaskError
from lnsnum.tasks.processes import ALONE, Processes
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.signals import asked
from lnsnum.tasks.task import Task
from lnsnum.torch_bridge import LNSWeight, Madam
from lnsnum.torch_bridge.datapath import datapath, datapath_of, use_datapath
from lnsnum.torch_bridge.datapath.quantized import of_weight
from lnsnum.torch_bridge.datapath.setting import computing
from lnsnum.torch_bridge.datapath.settings import KINDS, OPERANDS, check_operand
from lnsnum.torch_bridge.datapath.texts import read_short


class DivergedError(TaskError):
    """The loss is no longer finite."""


@dataclass
class History:
    """One entry a step."""

    loss: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    """Share of LNS weights whose code changed (0 without Madam)."""
    order: torch.Tensor | None = None
    """The state of the data's generator at the start of the epoch that the next step is in; None before the first."""
    asked: int = 0
    """The signal by which a process was asked to stop before the last step; 0 for none. All have the same."""


def start(task: Task, recipe: Recipe, seed: int) -> tuple[nn.Module, Optimizer]:
    """A new network with the recipe's weights, and its optimizer.

    Raises:
        TaskError: where the network's weights cannot be had in the recipe's format, or the task's datapath cannot
            train them.
    """
    _check_datapath(task, recipe)
    torch.manual_seed(seed)
    model = task.network()
    return compute_as_asked(task, model, seed), recipe.prepare(model, seed)


def _check_datapath(task: Task, recipe: Recipe) -> None:
    """Raise TaskError where a step would multiply what the task's datapath cannot."""
    if task.datapath is None:
        return
    formats = datapath(**read_short(task.datapath)).settings.formats
    accumulate, given = formats.accumulate, {kind for kind in KINDS if formats.numbers(kind) is not None}
    if recipe.is_lns and recipe.parameters == "all":
        given.add("weights")
    try:
        if recipe.is_lns:
            weight = of_weight(LNSWeight.from_float(torch.ones(1), recipe.format), formats.weights)
            if not isinstance(accumulate, str):
                check_operand(weight.fmt, "weights", accumulate)
        for kind in OPERANDS:
            if not isinstance(accumulate, str) and kind not in given:
                raise ValueError(
                    f"accumulate={accumulate.name} adds products of codes, and {kind} are floats: give {kind} a format"
                )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TaskError(f"datapath {task.datapath}: {error}") from error


def compute_as_asked(task: Task, model: nn.Module, seed: int) -> nn.Module:
    """Give a network the datapath of its task, if that has one."""
    return model if task.datapath is None else use_datapath(model, task.datapath, seed=seed)


def train(
    task: Task,
    model: nn.Module,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    steps: int,
    seed: int,
    history: History | None = None,
    processes: Processes = ALONE,
    watch: Callable[[float], object] | None = None,
) -> Iterator[History]:
    """Train; yields the same growing history after every step.

    Args:
        task: the data and the loss.
        model, optimizer: what `start` made, or as they were after the last step of `history`.
        recipe: the schedule.
        steps: in all, those of `history` among them.
        seed: of the data's order.
        history: the steps that are done; the others follow as they would have.
        processes: those that share each batch; all of them call this.
        watch: told the loss of each step when it has been taken, before the learning rate changes.

    Raises:
        DivergedError: where the loss is no longer finite.
        TaskError: where another process has ended, or does not answer.
    """
    generator = torch.Generator().manual_seed(seed)
    history = history or History()
    done = len(history.loss)
    if history.order is not None:
        generator.set_state(history.order)
    history.order = generator.get_state()
    batches = task.batches(generator)
    for _ in range(done % task.epoch_steps):  # those of this epoch that were learned from
        next(batches)
    schedule = recipe.scheduler(optimizer, steps, done)
    model.train()
    loss_of = processes.loss_of(task, model)
    for step in range(done + 1, steps + 1):
        batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        if task.datapath is not None:
            datapath_of(model).step = step  # which keys random bits, also of a run that goes on
        with computing(model):
            with task.autocast():
                loss = loss_of(batch)
            mean, history.asked = processes.agree(loss.detach(), asked())
            history.loss.append(mean)
            if not math.isfinite(history.loss[-1]):
                at = f"{history.loss[-1]} at step {len(history.loss)} of {steps}"
                raise DivergedError(f"the loss is {at}: try a smaller learning rate")
            processes.backward(loss)
        optimizer.step()
        if watch is not None:
            watch(history.loss[-1])
        schedule.step()
        history.moved.append(optimizer.step_report().moved if isinstance(optimizer, Madam) else 0.0)
        if step % task.epoch_steps == 0:
            history.order = generator.get_state()
        yield history


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Gradients change in their last bits with the number of threads, and training makes much of that."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_outputs(task: Task, model: nn.Module) -> None:
    """Raise DivergedError where a trained model's outputs are not finite: the last step may have been one too many."""
    if not bool(torch.isfinite(task.outputs(model)).all()):
        raise DivergedError("the loss was finite to the end, and the outputs are not: try a smaller learning rate")


def weight_count(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def weight_formats(model: nn.Module) -> list[str]:
    """The formats of a model's parameters, sorted."""
    return sorted({p.fmt.name if isinstance(p, LNSWeight) else "float32" for p in model.parameters()})
