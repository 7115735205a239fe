"""The study's file: one JSON line a finished run, on the disk before the next one counts.

A line leaves out what came with the second edition where it has the value that the first one knew alone. A crash can
tear the last line only: what is left of it is ignored by readers, and cut off where the study goes on.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from lnsnum.files.atomic import flush_to_disk, naming, shown, target_of
from lnsnum.study.plan import Run
from lnsnum.tasks import TaskError
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.troubles import check_regular

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PACKED = ".xz"
"""The ending of a journal that can be read and not continued."""

DATA_DIGITS = 16
"""Digits of a task's fingerprint that a line has."""


@dataclass(frozen=True)
class Record:
    """One finished run: a line of the journal, field by field."""

    problem: str
    steps: int
    data: str
    """The first 16 digits of the task's fingerprint."""
    recipe: Recipe
    """Its learning rate filled in."""
    seed: int
    score: float | None
    """None where the run failed."""
    failure: str | None
    """Why it failed; None where it has a score."""
    loss: float | None
    """Mean training loss of the last 20 steps; None where the loss became NaN or infinite."""
    seconds: float
    weights: int
    """Parameters of the network."""
    weight_bytes: float
    """Per parameter, held after the last step."""
    state_bytes: float
    """The optimizer's, per parameter, held after the last step."""
    lnsnum: str
    torch: str
    edition: int = 1
    """Of the study."""
    validation: float | None = None
    """The score on the validation part, of which there is one from the second edition on; None where the run failed."""
    gradient_bytes: float | None = None
    """Per parameter, held after the last step; None in the first edition, which did not ask."""

    @property
    def chosen_by(self) -> float | None:
        """The score that learning rates are chosen by: that on the validation part, where there is one."""
        return self.score if self.edition == 1 else self.validation

    @property
    def run(self) -> Run:
        """What was run."""
        return Run(self.problem, self.recipe, self.seed)

    def line(self) -> bytes:
        """The record as the journal has it, the end of the line included."""
        entry = asdict(self)
        for part, newer in ((entry["recipe"], _NEWER_CHOICES), (entry, _NEWER_FIELDS)):
            for name, standard in newer.items():
                if part[name] == standard:
                    del part[name]
        return json.dumps(entry, allow_nan=False).encode() + b"\n"


def scores(records: Iterable[Record]) -> dict[str, float | None]:
    """The score of each run by its key; None where it failed."""
    return {record.run.key: record.score for record in records}


def choosing(records: Iterable[Record]) -> dict[str, float | None]:
    """What learning rates are chosen by: a score of each run by its key; None where it failed."""
    return {record.run.key: record.chosen_by for record in records}


def read_journal(path: Path) -> list[Record]:
    """The records of a journal, also of one packed by xz; of a run that is there twice, the first.

    Raises:
        TaskError: where a line is no record, or a problem has not the same steps and data in all of its lines.
        OSError: where the file cannot be read.
    """
    check_regular(path, "the file that lnsnum study wrote")
    with naming(path):
        content = path.read_bytes()
    if path.suffix == PACKED:
        try:
            content = lzma.decompress(content)
        except lzma.LZMAError as error:
            raise TaskError(f"{shown(path)} is no whole xz file: {error}") from error
    return _parse(path, content)[0]


class Journal:
    """A journal that is open for appending: its earlier records, and no other process can write it meanwhile.

    Args:
        path: the file; it is made where there is none.

    Raises:
        TaskError: where the file is no journal, which is left as it is, or where another study writes it.
        OSError: where it cannot be read or written, or is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix == PACKED:
            raise TaskError(f"{shown(path)} is packed: it can be read, not continued; unpack it with xz -d first")
        check_regular(path, "another --out")
        target_of(path)  # not what a program has open, such as /dev/stdout in a file
        with contextlib.ExitStack() as undo, naming(path, writing=True):
            is_new = not path.exists()
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115  (close() closes it)
            undo.callback(self._file.close)
            _lock(self._file.fileno(), path)
            self._file.seek(0)
            content = self._file.read()
            self.records, self._whole = _parse(path, content)
            self._cut()
            if self._whole and not content.endswith(b"\n", 0, self._whole):
                self._write(b"\n")
            if is_new and os.name != "nt":  # Windows cannot open folders
                flush_to_disk(path.resolve().parent)
            undo.pop_all()

    def append(self, record: Record) -> None:
        """Write a record; it is on the disk when this returns.

        Raises:
            OSError: where it cannot be written, such as to a full disk: the records before it are kept, and nothing of
                it is left behind them.
        """
        with naming(self.path, writing=True):
            self._cut()
            self._write(record.line())
        self.records.append(record)

    def _write(self, line: bytes) -> None:
        """Put a line, or the end of one, behind what is there; all of it or nothing."""
        rest = line
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):  # the next one to write will try again
                self._cut()
            raise
        self._whole += len(line)

    def _cut(self) -> None:
        """Take away what a write has torn: the next record would be glued to it."""
        if os.fstat(self._file.fileno()).st_size > self._whole:
            self._file.truncate(self._whole)

    def close(self) -> None:
        """Let other processes write the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(descriptor: int, path: Path) -> None:
    """Keep the file from all others that lock it, until the descriptor is closed."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 40, os.SEEK_SET)  # bytes that nobody reads: what is locked there, nobody else can
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise TaskError(f"another study is writing {shown(path)}: wait for its end, or use another --out") from error


def _parse(path: Path, content: bytes) -> tuple[list[Record], int]:
    """The records, and how many bytes their lines are: all but those of a last line that a crash has torn."""
    records: dict[str, Record] = {}
    first_lines: dict[str, tuple[int, Record]] = {}
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        is_last = number == len(lines)
        if is_last and not line:
            break
        try:
            record = _record(line)
        except _NoJSONError as error:
            if is_last and _is_torn(line):
                return list(records.values()), len(content) - len(line)
            raise TaskError(f"{shown(path)} is no journal of a study: line {number} {error}") from error
        except (TaskError, ValueError) as error:
            raise TaskError(f"{shown(path)} is no journal of a study: line {number} {error}") from error
        first_line, first = first_lines.setdefault(record.problem, (number, record))
        if (record.steps, record.data) != (first.steps, first.data):
            raise TaskError(
                f"{shown(path)}: in line {number} problem {record.problem} was run with {record.steps} steps on data "
                f"{record.data}, in line {first_line} with {first.steps} on {first.data}: these are two studies"
            )
        records.setdefault(record.run.key, record)
    return list(records.values()), len(content)


class _NoJSONError(ValueError):
    """A line that is not JSON at all; the message goes on from "line 7"."""


_OPENING = b'{"problem": "'


def _is_torn(line: bytes) -> bool:
    """Whether a line that is not whole can be the beginning of a record."""
    return line.startswith(_OPENING) or _OPENING.startswith(line)


def _record(line: bytes) -> Record:
    """The record in a line.

    Raises:
        _NoJSONError: where the line is no JSON.
        ValueError, TaskError: where it is no record; the message goes on from "line 7".
    """
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _NoJSONError("is not JSON") from error
    _check_fields(entry, "", _RECORD_FIELDS, _NEWER_FIELDS)
    _check_fields(entry["recipe"], "recipe.", _RECIPE_FIELDS, _NEWER_CHOICES)
    if (entry["score"] is None) == (entry["failure"] is None):
        raise ValueError("has not either a score or a failure")
    validated = entry.get("edition", 1) > 1 and entry["score"] is not None
    if (entry.get("validation") is not None) != validated:
        raise ValueError("has not a validation score where, and only where, it has a score of a later edition")
    try:
        recipe = Recipe(**entry["recipe"])
    except TaskError as error:
        raise TaskError(f"has a recipe that is none: {error}") from error
    return Record(**{**entry, "recipe": recipe.filled()})


def _check_fields(entry: Any, prefix: str, known: dict[str, Callable[[Any], bool]], newer: Mapping[str, Any]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"is no object with the field {prefix}{next(iter(known))}")
    for name in [*(name for name in known if name not in newer), *entry]:
        if name not in entry or name not in known:
            raise ValueError(f"{'lacks the' if name in known else 'has an unknown'} field {prefix + name!r}")
        if not known[name](entry[name]):
            raise ValueError(f"has {prefix}{name}={entry[name]!r}, which cannot be")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max and not math.isnan(value)


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_NEWER_CHOICES: Mapping[str, Any] = {"beta": Recipe().beta, "granularity": Recipe().granularity}
_NEWER_FIELDS: Mapping[str, Any] = {"edition": 1, "validation": None, "gradient_bytes": None}
"""What came with the second edition, and the value that the first one knew alone."""

_RECIPE_FIELDS: dict[str, Callable[[Any], bool]] = {
    f.name: _is_number if f.default is None or isinstance(f.default, float) else _is_text for f in fields(Recipe)
} | {"rounding": _or_none(_is_text)}
_RECORD_FIELDS: dict[str, Callable[[Any], bool]] = {
    "problem": _is_text,
    "steps": _is_count,
    "data": _is_text,
    "recipe": lambda value: True,
    "seed": _is_count,
    "score": _or_none(_is_number),
    "failure": _or_none(_is_text),
    "loss": _or_none(_is_number),
    "seconds": _is_number,
    "weights": _is_count,
    "weight_bytes": _is_number,
    "state_bytes": _is_number,
    "lnsnum": _is_text,
    "torch": _is_text,
    "edition": lambda value: type(value) is int and value in (1, 2),
    "validation": _or_none(_is_number),
    "gradient_bytes": _or_none(_is_number),
}
