"""The command line, run in this process."""

import sys

import pytest

from lnsnum import cli


def run_command(capsys, monkeypatch, *arguments, command=(), columns=200, folded=True):
    """Exit code, stdout and stderr of `lnsnum COMMAND ...`; stderr in one line, where it is folded."""
    monkeypatch.setattr(sys, "argv", ["lnsnum", *command, *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    return stopped.value.code or 0, printed.out, " ".join(printed.err.split()) if folded else printed.err
