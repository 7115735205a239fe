"""`lnsnum diff`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnsnum.cli.app import app, byte_progress, console, print_json
from lnsnum.cli.tables import counted, decibels, excerpts, loss_to_json, name_of, number, share, shortened, table_of

if TYPE_CHECKING:
    from rich.table import Table

    from lnsnum.files.layout import Description
    from lnsnum.toolbox.difference import FileDifference, TensorDifference
    from lnsnum.toolbox.moves import Moves


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="A file of tensors, of any kind.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only tensors whose names match, and no metadata. Can be repeated.")
    ] = None,
    ignore_metadata: Annotated[
        bool, typer.Option("--ignore-metadata", help="Compare the tensors alone: metadata may differ.")
    ] = False,
) -> None:
    """Say how two files differ, codes in steps. Exit code 0 where they do not, 1 where they do, 2 in trouble."""
    from lnsnum.toolbox.difference import diff_weights

    with byte_progress() as progress:
        task = progress.add_task("diff", total=None)
        found = diff_weights(
            before,
            after,
            only=only or (),
            ignore_metadata=ignore_metadata,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(_to_json(found))
    else:
        _print(found)
    if not found.same:
        sys.exit(1)


# -------------------------------------------------------------------------------------------------------------- tables


def _print(found: FileDifference) -> None:
    def say(sentence: str) -> None:
        console.print(sentence, soft_wrap=True)

    for name in found.only_before:
        say(f"only in A: {name_of(name)}")
    for name in found.only_after:
        say(f"only in B: {name_of(name)}")
    different = [tensor for tensor in found.tensors if not tensor.same]
    for tensor in different:
        for what in _outline(tensor):
            say(f"{name_of(tensor.name)}: {what}")
    moved = [tensor for tensor in different if tensor.moves is not None]
    if moved:
        console.print(_moves(moved))
    if any(tensor.moves is not None and tensor.moves.moved for tensor in moved):
        console.print(_steps(moved))
    _print_if_any(_values, [tensor for tensor in different if tensor.loss is not None])
    _print_if_any(_plain, [tensor for tensor in different if tensor.plain is not None])
    for key, texts in found.texts.items():
        one, other = _told(*texts)
        say(f"metadata {shortened(key) or repr('')}: {one} in A, {other} in B")
    count = len(found.tensors)
    if found.same:
        say(f"no difference: {counted(count, 'tensor')}")
    else:
        say(f"{counted(count, 'tensor')} in both: {len(different)} different")


def _told(before: str | None, after: str | None) -> tuple[str, str]:
    """The texts of an entry in A and in B, as far as is needed to see how they differ."""
    if before is None or after is None:
        one, other = ("missing" if text is None else f"'{shortened(text)}'" for text in (before, after))
        return one, other
    return excerpts(before, after)


def _print_if_any(make: Callable[[list[TensorDifference]], Table], tensors: list[TensorDifference]) -> None:
    if tensors:
        console.print(make(tensors))


def _outline(tensor: TensorDifference) -> list[str]:
    """What differs in the descriptions of a tensor."""
    before, after = tensor.before, tensor.after
    lines = []
    if before.shape != after.shape:
        lines.append(f"shape {before.shape} in A, {after.shape} in B")
    if not tensor.same_kind:
        lines.append(f"{_kind(before)} in A, {_kind(after)} in B")
    if not tensor.same_scale and before.fmt is not None and after.fmt is not None:
        lines.append(f"log_offset {_offset(before)} in A, {_offset(after)} in B")
    return lines


def _kind(told: Description) -> str:
    return told.dtype if told.fmt is None else told.fmt.name


def _offset(told: Description) -> str:
    each, size = told.offsets, told.group_size
    if each is None:
        return str(told.log_offset)
    groups = f" groups of {size}" if size is not None else ""
    return f"{each.min()} .. {each.max()} ({each.size}{groups})" if each.size else "of no element"


def _moves(tensors: list[TensorDifference]) -> Table:
    columns = ("changed", "codes", "moved", "mean steps", "greatest", "flipped", "to 0", "from 0", "to NaN", "from NaN")
    table = table_of("codes of one format", ("tensor",), columns)
    for tensor in tensors:
        moves = tensor.moves
        assert moves is not None
        counts = (moves.flipped, moves.to_zero, moves.from_zero, moves.to_nan, moves.from_nan)
        table.add_row(
            name_of(tensor.name),
            share(moves.changed, moves.elements),
            f"{moves.codes:,}",
            f"{moves.moved:,}",
            f"{moves.mean_steps:.4g}",
            f"{moves.greatest_steps:,}",
            *(f"{count:,}" for count in counts),
        )
    return table


def _steps(tensors: list[TensorDifference]) -> Table:
    """How far codes moved, over all tensors."""
    table = table_of("steps", ("steps",), ("toward zero", "away from zero"))
    rows: dict[str, list[int]] = {}
    for tensor in tensors:
        assert tensor.moves is not None
        for label, shrunk, grown in _bins(tensor.moves):
            row = rows.setdefault(label, [0, 0])
            row[0] += shrunk
            row[1] += grown
    for label in sorted(rows, key=lambda label: int(label.split(" ")[0])):
        table.add_row(label, *(f"{count:,}" for count in rows[label]))
    return table


def _bins(moves: Moves) -> list[tuple[str, int, int]]:
    """`(steps, toward zero, away from zero)` of the bins, up to the last that has any."""
    last = max((i for i, pair in enumerate(zip(moves.shrunk, moves.grown, strict=True)) if any(pair)), default=-1)
    labels = ("1", "2", *(f"{2 ** (i - 1) + 1} .. {2**i}" for i in range(2, len(moves.grown))))
    return list(zip(labels, moves.shrunk, moves.grown, strict=True))[: last + 1]


def _values(tensors: list[TensorDifference]) -> Table:
    columns = ("changed", "SQNR in dB", "greatest relative", "to 0", "from 0", "to NaN", "from NaN")
    table = table_of("of two formats, as numbers", ("tensor", "A", "B"), columns)
    for tensor in tensors:
        loss = tensor.loss
        assert loss is not None
        counts = (loss.zeroed, loss.unzeroed, loss.to_nan, loss.from_nan)
        table.add_row(
            name_of(tensor.name),
            _kind(tensor.before),
            _kind(tensor.after),
            share(loss.changed, loss.elements),
            decibels(loss),
            number(loss.greatest_relative),
            *(f"{count:,}" for count in counts),
        )
    return table


def _plain(tensors: list[TensorDifference]) -> Table:
    columns = ("differing", "of", "greatest difference", "to NaN", "from NaN")
    table = table_of("plain, of one type", ("tensor", "type"), columns)
    for tensor in tensors:
        plain = tensor.plain
        assert plain is not None
        counts = f"{plain.differing:,}", f"{plain.elements:,}"
        nans = f"{plain.to_nan:,}", f"{plain.from_nan:,}"
        table.add_row(name_of(tensor.name), tensor.before.dtype, *counts, number(plain.greatest_absolute), *nans)
    return table


# ---------------------------------------------------------------------------------------------------------------- JSON


def _to_json(found: FileDifference) -> dict[str, Any]:
    return {
        "a": found.before,
        "b": found.after,
        "same": found.same,
        "only_in_a": found.only_before,
        "only_in_b": found.only_after,
        "tensors": [_tensor_to_json(tensor) for tensor in found.tensors],
        "metadata": {key: {"a": a, "b": b} for key, (a, b) in found.texts.items()},
    }


def _tensor_to_json(tensor: TensorDifference) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": tensor.name,
        "same": tensor.same,
        "same_scale": tensor.same_scale,
        "a": {"format": _kind(tensor.before), "shape": tensor.before.shape},
        "b": {"format": _kind(tensor.after), "shape": tensor.after.shape},
    }
    if tensor.moves is not None:
        content["codes"] = _moves_to_json(tensor.moves)
    if tensor.plain is not None:
        content["plain"] = vars(tensor.plain)
    if tensor.loss is not None:
        content["values"] = loss_to_json(tensor.loss)
    return content


def _moves_to_json(moves: Moves) -> dict[str, Any]:
    content = {key: value for key, value in vars(moves).items() if key not in ("shrunk", "grown")}
    content["mean_steps"] = moves.mean_steps
    content["histogram"] = [
        {"steps": label, "toward_zero": shrunk, "away_from_zero": grown} for label, shrunk, grown in _bins(moves)
    ]
    return content
