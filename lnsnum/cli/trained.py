"""Weight files of `lnsnum train`: the task that one names, and its network with the file's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsnum.cli.app import CommandError
from lnsnum.files.atomic import shown
from lnsnum.tasks import RESUME_ENTRY, RUN_ENTRY, TASK_ENTRY

if TYPE_CHECKING:
    from torch import nn

    from lnsnum.tasks.task import Task

FORMER_NAMES = {"digits": "classification"}
"""What a task was called in files of earlier versions."""


def load_trained(file: Path, data: Path | None) -> tuple[Task, nn.Module]:
    """The task of a weight file, with its data at a path or the default, and the network.

    Raises:
        CommandError: where the file is none that training wrote, or was trained on other data.
    """
    from lnsnum.weight_file import load_metadata

    metadata = load_metadata(file)
    name = metadata.get(TASK_ENTRY)
    if name is None and RESUME_ENTRY in metadata:
        raise CommandError(f"{shown(file)} is a run that was cut: lnsnum train --resume goes on with it")
    if name is None:
        raise CommandError(f"{file} names no task: it was not written by lnsnum train")
    name = FORMER_NAMES.get(name, name)
    from lnsnum.tasks.registry import OPTIONS, TASKS, make_task

    if name not in TASKS:
        raise CommandError(f"{file} is for the task {name!r}, which this version does not know")
    record = _record(file, metadata.get(RUN_ENTRY, "{}"))
    from lnsnum.torch_bridge import load_model

    options = record.get("options", {})
    if unknown := sorted(options.keys() - TASKS[name].options - OPTIONS):
        raise CommandError(f"{file}: its entry {RUN_ENTRY} has an option {unknown[0]!r}, which {name} has not")
    task = make_task(name, data, **options)
    if record.get("data", task.fingerprint) != task.fingerprint:
        raise CommandError(
            f"{file} was trained on data of SHA-256 {record['data']}, and {task.source} is of {task.fingerprint}: "
            "give the same with --data"
        )
    return task, load_model(file, task.network())


def _record(file: Path, text: str) -> dict[str, Any]:
    """What the run's entry says, where it is an object with an object of options."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("options", {}), dict):
        raise CommandError(f"{shown(file)}: its entry {RUN_ENTRY} is not what lnsnum train writes")
    return record
