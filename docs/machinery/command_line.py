"""The page of the command line, from the parser itself: what `lnsnum --help` knows, in Markdown."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer.main

from lnsnum.cli.app import app


def commands() -> dict[str, Any]:
    """The commands of `lnsnum` by name, in the order of --help."""
    return dict(typer.main.get_command(app).commands)


def _text(given: str | None) -> str:
    """Help in one line of a table: no bars, no markup of the terminal, patterns and names as they are."""
    line = " ".join((given or "").split()).replace("|", "\\|").replace("<", "&lt;")
    return re.sub(r"(?<![\w`])([*_])", r"\\\1", line)


def _takes(parameter: Any, annotation: Any) -> str:
    """What stands behind an option: its choices, or its kind of value."""
    if parameter.is_flag:
        return ""
    kinds = [kind for kind in (annotation, *_inner(annotation)) if isinstance(kind, type)]
    choices = next((kind for kind in kinds if issubclass(kind, enum.Enum)), None)
    if choices:
        return " " + " \\| ".join(str(choice.value) for choice in choices)
    named = {int: "NUMBER", float: "NUMBER", Path: "PATH"}
    return " " + (parameter.metavar or next((named[kind] for kind in kinds if kind in named), "TEXT"))


def _inner(annotation: Any) -> Iterator[Any]:
    """What a type is made of: `int | None`, `list[str]`."""
    for part in get_args(annotation):
        yield from (part, *_inner(part))


def _default(parameter: Any) -> str:
    """The default, where there is one worth saying."""
    default = parameter.default
    if (
        default is None
        or default is False
        or callable(default)
        or not isinstance(default, (str, int, float, enum.Enum))
    ):
        return ""
    return f"`{default.value if isinstance(default, enum.Enum) else default}`"


def _rows(parameters: list[Any], annotations: dict[str, Any]) -> Iterator[str]:
    for parameter in parameters:
        names = [*parameter.opts, *parameter.secondary_opts]
        repeated = " ..." if getattr(parameter, "multiple", False) or parameter.nargs == -1 else ""
        if parameter.param_type_name == "argument":
            shown = f"`{(parameter.metavar or parameter.name).upper()}`{repeated}"
        else:
            shown = ", ".join(f"`{name}`" for name in names) + _takes(parameter, annotations[parameter.name]) + repeated
        yield f"| {shown} | {_text(parameter.help)} | {_default(parameter)} |"


def to_markdown() -> str:
    """A section for each command: what it does, its arguments and options."""
    parts = []
    for name, command in commands().items():
        annotations = get_type_hints(inspect.unwrap(command.callback), include_extras=False)
        parts += [f"## `lnsnum {name}`", "", *(_text(part) + "\n" for part in (command.help or "").split("\n\n"))]
        for title, kind in (("argument", "argument"), ("option", "option")):
            rows = list(
                _rows([p for p in command.params if p.param_type_name == kind and p.name in annotations], annotations)
            )
            if rows:
                parts += [f"| {title} | meaning | default |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(parts)
