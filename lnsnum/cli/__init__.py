"""The command line: `lnsnum COMMAND`, one module for each command.

Bad input ends with one sentence on stderr and exit code 2; so does a missing extra.
"""

from __future__ import annotations

import sys

from lnsnum.cli.app import CommandError, app, errors, printable
from lnsnum.tasks import TaskError
from lnsnum.weight_file import WeightFileError

# isort: off
from lnsnum.cli import train, convert, inspect, verify, diff, export, certify  # noqa: F401  (in the order of --help)


def main() -> None:
    """Run the command line; what the user can mend ends in one sentence and exit code 2."""
    try:
        app()
    except (CommandError, TaskError, WeightFileError, OSError, ImportError) as error:
        errors.print(f"error: {printable(str(error))}")
        sys.exit(2)
