"""Logs of trainings: a line for each step, JSON or CSV, complete as soon as it is written.

    step  loss  lr  moved  at_ceiling  at_floor  zeros  sign_changes  grown  not_finite  seconds

So `lnsnum watch` shows one while it grows. A JSON line may have more, as histograms. What is not known is null there,
and empty in a CSV; numbers that are not finite are the texts NaN, Infinity and -Infinity, which JSON has no numbers
for: a loss that is none is not one that nobody told.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsnum.files.atomic import StrPath, naming, shown

COUNTS = ("moved", "at_ceiling", "at_floor", "zeros", "sign_changes", "grown", "not_finite")
"""What Madam's report of a step has, of all LNS weights together."""

FIELDS = ("step", "loss", "lr", *COUNTS, "seconds")
"""What a line has, in this order."""

_INTEGERS = ("step", "grown", "not_finite")
"""Of these: what counts, where all else is a share or a measure."""

KINDS = (".jsonl", ".csv")
"""The endings of logs."""


def check_log_path(path: StrPath) -> Path:
    """The path of a log. Raises ValueError for another ending."""
    if Path(path).suffix not in KINDS:
        raise ValueError(f"{shown(path)}: a log ends in {' or '.join(KINDS)}")
    return Path(path)


class RunLog:
    """A log that is being written.

    Args:
        path: .jsonl or .csv; an existing one is replaced.
        after: keep its lines up to this step: of a run that is resumed.

    Lines are added to the end, wherever that is: of two runs that write one log by mistake each line stays whole.

    Raises:
        ValueError: for another ending, or lines to keep that are none.
        OSError: where it cannot be written.
    """

    def __init__(self, path: StrPath, *, after: int = 0) -> None:
        self.path = check_log_path(path)
        there = after > 0 and self.path.exists()
        self.kept = [line for line in read_log(path) if line["step"] <= after] if there else []
        self._is_table = self.path.suffix == ".csv"
        with naming(path, writing=True):
            self._file = open(self.path, "a", encoding="utf-8", newline="")  # noqa: SIM115  (open as long as the run)
        if self.path.is_file():  # a pipe has nothing to replace
            self._file.truncate(0)
        self._table = csv.DictWriter(self._file, FIELDS, extrasaction="ignore", lineterminator="\n")
        if self._is_table:
            self._table.writeheader()
        for line in self.kept:
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line. Raises TypeError for entries that are no JSON."""
        try:
            known = {name: _as_json(value) for name, value in line.items()}
        except TypeError as error:
            raise TypeError(f"{shown(self.path)}: {error}, and a log has numbers, texts, lists and dicts") from None
        if self._is_table:
            self._table.writerow({name: "" if known.get(name) is None else known[name] for name in FIELDS})
        else:
            self._file.write(json.dumps(known, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: StrPath) -> list[dict[str, Any]]:
    """The lines of a log, with numbers or None for all fields; one that is still being written is left out.

    Raises:
        ValueError: for a file that is no such log, and its line.
        OSError: where it cannot be read.
    """
    path = check_log_path(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1].splitlines()
    rows: list[Any]
    first = 1
    if path.suffix == ".csv":
        if whole and tuple(whole[0].split(",")) != FIELDS:
            raise ValueError(f"{shown(path)} is no log of a training: its first line is not {','.join(FIELDS)}")
        rows, first = list(csv.DictReader(whole)), 2
    else:
        rows = [_from_json(line) for line in whole]
    lines = []
    for number, row in enumerate(rows, first):
        line = _checked(row)
        if line is None:
            raise ValueError(f"{shown(path)} is no log of a training: line {number} has no step, or no numbers")
        lines.append(line)
    return lines


def _as_json(value: Any) -> Any:
    """A value as JSON has it: what is not finite by its name, what holds numbers as these."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(name): _as_json(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return _as_json(value.tolist())
    raise TypeError(f"{value!r:.40} is a {type(value).__name__}")


def _from_json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _checked(row: Any) -> dict[str, Any] | None:
    """A line with numbers for the fields; None where it is none."""
    if not isinstance(row, dict) or None in row:  # a row of a CSV with too many cells has None as a name
        return None
    line = dict(row)
    for name in FIELDS:
        value = line.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, str, type(None))):
            return None
        try:
            line[name] = None if value in (None, "") else float(value)
        except (ValueError, OverflowError):
            return None
    step = line["step"]
    if step is None or not math.isfinite(step) or step != int(step) or step < 1:
        return None
    for name in _INTEGERS:
        if line[name] is not None and line[name].is_integer():
            line[name] = int(line[name])
    return line
