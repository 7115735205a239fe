"""`lnsnum evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnsnum.cli.app import app, console, print_json
from lnsnum.cli.trained import load_trained


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="A weight file that `lnsnum train` wrote.")],
    data: Annotated[Path | None, typer.Option(help="The data it was trained on, if that was no default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Load a weight file into a fresh network and score it on the test data."""
    task, model = load_trained(file, data)
    from lnsnum.tasks.training import weight_count, weight_formats

    if json:
        content = {"path": str(file), "task": task.name, "weights": weight_count(model)}
        content |= {"formats": weight_formats(model), "measure": task.measure.name, "score": task.score(model)}
        print_json(content | {"data": {"source": task.source, "sha256": task.fingerprint}})
        return
    console.print(f"{file}: {weight_count(model)} weights in {', '.join(weight_formats(model))}")
    console.print(f"test {task.measure.name} {task.measure.text(task.score(model))}; {task.source}")
