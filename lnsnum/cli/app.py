"""The frame of the command line: the application that commands are entered in, where they print, how they refuse."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from lnsnum import __version__

try:
    import typer
    from rich.console import Console, ConsoleDimensions
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError as missing:
    print(
        f"error: the command line needs {(missing.name or '').split('.')[0]}: pip install 'lnsnum[cli]'",
        file=sys.stderr,
    )
    sys.exit(2)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Numbers as logarithms: train networks natively in LNS, look at the result, and give it away.",
)


class _Console(Console):
    """As wide as what it prints where it is no terminal: a pipe has no width, and what is folded cannot be found."""

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Columns and lines; the environment variable COLUMNS decides, where it is set."""
        size = super().size
        return size if self.is_terminal or "COLUMNS" in os.environ else ConsoleDimensions(_WIDE, size.height)


_WIDE = 10_000

console = _Console(markup=False, highlight=False, emoji=False)
errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)


class CommandError(Exception):
    """What the user asked for cannot be done; the message says why."""


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"lnsnum {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


def printable(sentence: str) -> str:
    """A sentence that a terminal shows and does not obey: with escapes for all that is no visible character."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence)


def print_json(content: Any) -> None:
    """Print for a program: one JSON object on stdout, in ASCII, numbers that JSON has not as null."""
    print(json.dumps(_without_nan(content), indent=2, allow_nan=False))


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not abs(content) < float("inf") else content


def byte_progress() -> Progress:
    """A bar of bytes, on stderr, that is gone when the work is done; nothing where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(20), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)


def check_writable(option: str, path: Path) -> None:
    """Raise CommandError where a file cannot be put at this path."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise CommandError(f"{option} {path}: there is no folder {folder}")
    if (path.exists() and not path.is_file()) or not os.access(folder, os.W_OK):
        raise CommandError(f"{option} {path} cannot be written")


def check_plot(path: Path) -> None:
    """Raise CommandError where no picture can be put at this path."""
    check_writable("--plot", path)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install 'lnsnum[plot]'") from error
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise CommandError(f"--plot {path}: the ending is none of {', '.join(sorted(known))}")
