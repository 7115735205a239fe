"""What `lnsnum train --resume` reads of a run: the arguments that it was begun with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsnum.cli.app import CommandError
from lnsnum.files.atomic import shown
from lnsnum.tasks import RESUME_ENTRY, TaskError
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.registry import TASKS
from lnsnum.tasks.resume import read_arguments
from lnsnum.tasks.task import Task


@dataclass(frozen=True)
class Begun:
    """A run as it was begun."""

    file: Path
    task: str
    recipe: Recipe
    steps: int
    seed: int
    options: dict[str, Any]
    data: str
    threads: int
    device: str
    in_epochs: bool
    """Whether its length was given in epochs: then it is saved after so many epochs."""
    save_every: int | None
    """In steps."""

    def check_data(self, task: Task) -> None:
        """Raise CommandError where a task has not the data that the run was begun with."""
        if task.fingerprint != self.data:
            raise CommandError(
                f"{shown(self.file)} was trained on data of SHA-256 {self.data}, and {task.source} is of "
                f"{task.fingerprint}: give the same with --data"
            )


def read_begun(file: Path) -> Begun:
    """The arguments in a file.

    Raises:
        TaskError: where it is of no run, or of one that this version does not know.
        WeightFileError, OSError: where it is damaged, or cannot be read.
    """
    told = read_arguments(file)
    kinds = {"task": str, "steps": int, "seed": int, "options": dict, "data": str, "threads": int, "device": str}
    kinds |= {"in_epochs": bool, "recipe": dict, "seconds": float}
    every = told.get("save_every")
    sound = all(type(told.get(name)) is kind for name, kind in kinds.items())
    sound = sound and (every is None or (type(every) is int and every > 0)) and told["task"] in TASKS
    if not sound or min(told["steps"], told["threads"]) < 1 or not 0 <= told["seed"] < 1 << 63:
        raise TaskError(f"{shown(file)}: its entry {RESUME_ENTRY} is not what this version of lnsnum train writes")
    try:
        recipe = Recipe(**told["recipe"])
    except (TaskError, TypeError) as error:
        raise TaskError(f"{shown(file)}: its entry {RESUME_ENTRY} has a recipe that is none: {error}") from error
    names = [name for name in kinds if name not in ("recipe", "seconds")]
    return Begun(file=file, recipe=recipe, save_every=every, **{name: told[name] for name in names})
