"""The command line: `lnsnum COMMAND`, one module for each command.

Bad input ends with one sentence on stderr and exit code 2; so does a missing extra.
"""

from __future__ import annotations

import contextlib
import errno
import sys

from lnsnum.cli.app import CommandError, app, errors, printable
from lnsnum.tasks import TaskError
from lnsnum.weight_file import WeightFileError

# isort: off
from lnsnum.cli import train, study, report, convert, inspect, verify, diff, export, certify  # noqa: F401  (in the order of --help)


CLOSED_PIPE = 141
"""What shells give for a program that a closed pipe ends: 1 would say that files differ, or are damaged."""


def main() -> None:
    """Run the command line; what the user can mend ends in one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # one that a test has put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may lack any letter
    try:
        app()
    except SystemExit as ending:  # typer's, which ends with 1 where the reader of our output has gone
        if isinstance(ending.__context__, OSError) and ending.__context__.errno == errno.EPIPE:
            sys.exit(CLOSED_PIPE)
        raise
    except (CommandError, TaskError, WeightFileError, OSError, ImportError) as error:
        errors.print(f"error: {printable(str(error))}")
        sys.exit(2)
    except MemoryError as error:
        errors.print(f"error: there is not enough memory: {printable(str(error))}".removesuffix(": "))
        sys.exit(2)
