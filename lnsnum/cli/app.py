"""The frame of the command line: the application that commands are entered in, where they print, how they refuse."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from lnsnum import __version__
from lnsnum.tasks.troubles import in_words

try:
    import typer
    from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.segment import Segment
    from rich.text import Text
    from typer.core import TyperGroup
except ImportError as missing:
    print(
        f"error: the command line needs {(missing.name or '').split('.')[0]}: pip install 'lnsnum[cli]'",
        file=sys.stderr,
    )
    sys.exit(2)


class _Commands(TyperGroup):
    """What is wrong with the arguments is told without what a terminal obeys: `lnsnum verify *` takes any name."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the arguments before the command's name."""
        with _visible_usage():
            return super().make_context(*arguments, **options)

    def invoke(self, context: Any) -> Any:
        """Read the others, and run the command."""
        with _visible_usage():
            return super().invoke(context)


@contextlib.contextmanager
def _visible_usage() -> Iterator[None]:
    try:
        yield
    except _USAGE_ERROR as error:
        error.message = printable(error.message)
        raise


_USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""Typer has a copy of click in it, or uses it, by its version."""

app = typer.Typer(
    cls=_Commands,
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Numbers as logarithms: train networks natively in LNS, look at the result, and give it away.",
)


@contextlib.contextmanager
def _naming_stream(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, name) from error


class _Console(Console):
    """Prints what a terminal shows and does not obey, wherever the text is from: names of files, of tensors, metadata.

    It is as wide as what it prints where it is no terminal: a pipe has no width, and what is folded cannot be found.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """A text with escapes, before it is laid out."""
        return super().render_str(_visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed; those that were no plain strings get their escapes here."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _visible(text), style, control)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; where that fails, the error names the stream. Nothing is cut off: the terminal breaks long lines."""
        options.setdefault("crop", False)
        with _naming_stream("stderr" if self.stderr else "stdout"):
            super().print(*objects, **options)

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Columns and lines; the environment variable COLUMNS decides, where it is set."""
        size = super().size
        return size if self.is_terminal or "COLUMNS" in os.environ else ConsoleDimensions(_WIDE, size.height)


_WIDE = 10_000

console = _Console(markup=False, highlight=False, emoji=False)
errors = _Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)


class _Speaker:
    """Who this process is among several, before what it has to say of an error."""

    name = ""


def speak_as(rank: int) -> None:
    """Print as number `rank` of several processes: the first as always, the others why they end, and nothing else."""
    if rank:
        _Speaker.name = f"process {rank}: "
        console.quiet = errors.quiet = True
        warnings.simplefilter("ignore")


def print_error(sentence: str) -> None:
    """Say on stderr why the command ends."""
    errors.quiet = False
    errors.print(f"{_Speaker.name}error: {printable(sentence)}")


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
    """A sentence in one line, with escapes for all that is no visible character."""
    return sentence if sentence.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence)


def _visible(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def print_json(content: Any) -> None:
    """Print for a program: one JSON object on stdout, in ASCII, numbers that JSON has not as null."""
    with _naming_stream("stdout"):
        print(json.dumps(_without_nan(content), indent=2, allow_nan=False), flush=True)


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
    target = Path(os.path.realpath(path))
    folder = target.parent
    if target.is_symlink():
        raise CommandError(f"{option} {path}: its links lead in a circle")
    if not folder.is_dir():
        raise CommandError(f"{option} {path}: there is no folder {folder}")
    if (path.exists() and not path.is_file()) or not os.access(folder, os.W_OK):
        raise CommandError(f"{option} {path} cannot be written")


@contextlib.contextmanager
def naming_lack(option: str) -> Iterator[None]:
    """Raise CommandError where a library is missing that an option needs, or one that it needs itself."""
    try:
        yield
    except ImportError as error:
        raise CommandError(f"{option}: {in_words(error)}") from error


@contextlib.contextmanager
def refusing(option: str) -> Iterator[None]:
    """Raise CommandError where an option's value is refused by a library."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise CommandError(f"{option} {error}") from error


def check_plot(path: Path) -> None:
    """Raise CommandError where no picture can be put at this path."""
    check_writable("--plot", path)
    with naming_lack("--plot"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise CommandError(f"--plot {path}: the ending is none of {', '.join(sorted(known))}")
