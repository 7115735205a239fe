"""The command line: `lnsnum COMMAND`, one module for each command.

Bad input ends with one sentence on stderr and exit code 2; so does a missing extra.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from lnsnum.cli.app import CommandError, app, print_error
from lnsnum.tasks import TaskError
from lnsnum.tasks.signals import Stopped, stopping
from lnsnum.tasks.troubles import causes, in_words
from lnsnum.weight_file import WeightFileError

# isort: off
from lnsnum.cli import train, evaluate, watch, study, report, convert, inspect, verify, diff, export  # noqa: F401  (in the order of --help)
from lnsnum.cli import describe, certify, check  # noqa: F401


CLOSED_PIPE = 141
"""What shells give for a program that a closed pipe ends: 1 would say that files differ, or are damaged."""

SIGNAL = 128
"""What shells add to the number of the signal that ended a program."""


def main() -> None:
    """Run the command line; what the user can mend ends in one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # one that a test has put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may lack any letter
    try:
        with stopping():
            _run()
    except KeyboardInterrupt as stop:
        sys.exit(SIGNAL + (stop.number if isinstance(stop, Stopped) else 2))


def _run() -> None:
    try:
        try:
            app()
        finally:
            _flush()
    except SystemExit as ending:  # typer's, which ends with 1 where the reader of our output has gone
        for cause in causes(ending):
            if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
                sys.exit(CLOSED_PIPE)
            if isinstance(cause, Stopped):
                sys.exit(SIGNAL + cause.number)
        raise
    except (CommandError, TaskError, WeightFileError) as error:
        print_error(str(error))
        sys.exit(2)
    except (OSError, ImportError, MemoryError, RecursionError) as error:
        print_error(in_words(error))
        sys.exit(2)


def _flush() -> None:
    """Write what is still to be printed, so that a full disk behind stdout is told of."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # or Python would try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            sys.exit(CLOSED_PIPE)
        raise OSError(error.errno, error.strerror, "stdout") from error
