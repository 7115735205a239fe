"""`lnsnum verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnsnum.cli.app import app, byte_progress, console, errors, print_json, printable
from lnsnum.cli.tables import counted
from lnsnum.files.atomic import shown
from lnsnum.tasks.troubles import in_words

if TYPE_CHECKING:
    from lnsnum.toolbox.verification import Verification


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Weight files, or indexes of sets.", metavar="FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of sentences.")] = False,
) -> None:
    """Check weight files, list every problem. Exit code 1 where there is one, 2 where a file cannot be read."""
    from lnsnum.toolbox.verification import verify_weights

    results: list[Verification | tuple[Path, OSError]] = []
    with byte_progress() as progress:
        for file in files:
            task = progress.add_task(printable(file.name), total=None)
            try:
                result = verify_weights(
                    file,
                    progress=lambda done, total, task=task: progress.update(task, completed=done, total=total),  # type: ignore[misc]
                )
            except OSError as error:
                results.append((file, error))
            else:
                results.append(result)
            progress.remove_task(task)
    unread = [result for result in results if isinstance(result, tuple)]
    checked = [result for result in results if not isinstance(result, tuple)]
    if as_json:
        print_json({"files": [_to_json(result) for result in results]})
    else:
        for result in checked:
            _print(result)
    for _, trouble in unread:
        errors.print(f"error: {printable(in_words(trouble))}")
    if unread or not all(result.good for result in checked):
        sys.exit(2 if unread else 1)


def _print(result: Verification) -> None:
    verdict = "good" if result.good else counted(len(result.problems), "problem")
    console.print(f"{shown(result.path)}: {verdict}: {_extent(result)}", soft_wrap=True)
    for problem in result.problems:
        console.print(f"  {printable(problem)}", soft_wrap=True)


def _extent(result: Verification) -> str:
    """What was checked, in words."""
    if not result.files:
        return "nothing could be checked"
    parts = [counted(result.tensors, "tensor"), counted(result.bytes, "byte")]
    parts += [f"{result.files} files"] if result.files > 1 else []
    parts += [f"layout {' and '.join(map(str, result.layouts))}"]
    if 1 in result.layouts:
        parts += ["which has no checksums"]
    return ", ".join(parts)


def _to_json(result: Verification | tuple[Path, OSError]) -> dict[str, Any]:
    if isinstance(result, tuple):
        return {"file": str(result[0]), "readable": False, "error": in_words(result[1])}
    return {
        "file": result.path,
        "readable": True,
        "good": result.good,
        "problems": result.problems,
        "files": result.files,
        "layouts": result.layouts,
        "tensors": result.tensors,
        "bytes": result.bytes,
        "without_checksum": result.without_checksum,
    }
