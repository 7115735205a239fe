"""`lnsnum convert`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from lnsnum.cli.app import CommandError, app, byte_progress, check_writable, console, errors, print_json
from lnsnum.cli.model_folder import convert_model_folder
from lnsnum.cli.tables import NameTable, loss_to_json, name_of
from lnsnum.files.atomic import shown
from lnsnum.files.layout import WeightFileError
from lnsnum.format import LNSFormat

if TYPE_CHECKING:
    from lnsnum.toolbox.conversion import ConversionReport, TensorReport
    from lnsnum.toolbox.loss import Loss

_FEW = 5
"""Names that are told of what was left out: a checkpoint of an optimizer has hundreds."""


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="A file of tensors: safetensors (a weight file, a plain one, an index), .npz, .npy, .pt, .pth, .bin; "
            "or the folder of a model of Hugging Face's.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The file to write: .safetensors, with --to also .npz; or a folder.", show_default=False
        ),
    ],
    fmt: Annotated[
        str | None, typer.Option("--format", help="Make codes of this format, such as lns8f5.", show_default=False)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Make floats of LNS tensors, with --all of all: float32, bfloat16, float16 or float64.",
            show_default=False,
        ),
    ] = None,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="One scale for each index of the first dimension.")
    ] = False,
    group_size: Annotated[
        int | None,
        typer.Option(
            "--group-size",
            help="One scale for each so many elements along the last dimension, 16 to 256.",
            show_default=False,
        ),
    ] = None,
    rounding: Annotated[
        str, typer.Option(help="nearest, toward_zero, up, down, stochastic_log or stochastic_value.")
    ] = "nearest",
    seed: Annotated[int, typer.Option(help="What the stochastic roundings draw by.")] = 0,
    underflow: Annotated[
        str, typer.Option(help="What is too small: round (to zero or the smallest) or saturate (at the smallest).")
    ] = "round",
    pack: Annotated[
        bool, typer.Option("--pack", help="Leave out the unused bits of codes (8, 16 and 32 bits have none).")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Convert every floating tensor, of any dimensions; with --to also plain ones."),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Convert the floating tensors of these names (*, ?, [...]). Can be repeated."),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(help="Copy the tensors of these names as they are. Can be repeated.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Leave out the tensors of these names. Can be repeated.")
    ] = None,
    strip_prefix: Annotated[
        str, typer.Option(metavar="TEXT", help="Take this away where a name begins with it.", show_default=False)
    ] = "",
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            "--max-shard-bytes",
            help="Write several files of at most so many bytes, such as 5GB, and an index.",
        ),
    ] = None,
    meta: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An entry of the file's metadata. Can be repeated.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Convert a file of tensors to LNS, to another LNS format or to floats, and say what each tensor lost.

    Without --format and --to a weight file is written anew, as it is, in the newest layout.
    """
    if source.is_dir():
        convert_model_folder(dict(locals()), _bytes(shard))
        return
    _check_options(fmt, to, locals())
    from lnsnum.toolbox.conversion import convert_file
    from lnsnum.toolbox.selection import Selection

    options: dict[str, Any] = {"per_channel": per_channel, "rounding": rounding, "seed": seed, "underflow": underflow}
    patterns = {"only": tuple(only or ()), "skip": tuple(skip or ()), "drop": tuple(drop or ())}
    options |= {
        "group_size": group_size,
        "packed": pack,
        "select": Selection(everything, **patterns, strip_prefix=strip_prefix),
    }
    options |= {"max_shard_bytes": _bytes(shard), "metadata": _texts(meta or []), "to": to}
    check_writable("OUT", out)
    with byte_progress() as progress:
        task = progress.add_task("converting", total=None)
        try:
            report = convert_file(
                source, out, fmt=None if fmt is None else LNSFormat.parse(fmt), **options,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )  # fmt: skip
        except (WeightFileError, OSError):
            raise
        except (TypeError, ValueError) as error:
            raise CommandError(_of_options(str(error))) from error
    if json:
        print_json(_as_json(report))
        return
    console.print(_table(report))
    after, packed = (sum(getattr(t, f"bytes_{how}") for t in report.tensors) for how in ("after", "packed"))
    if packed < after and to is None:
        console.print(f"--pack would leave out unused bits: {decimal(after)} → {decimal(packed)}", soft_wrap=True)
    if report.skipped:
        errors.print(f"not tensors, left out: {_few(report.skipped)}")


def _of_options(sentence: str) -> str:
    """An error about arguments of `convert_file` as one about options."""
    sentence = sentence.replace("give a format or a type of floats to convert to, one of them", _GIVE_ONE)
    sentence = re.sub("^(only|skip|drop) ", r"--\1 ", sentence.replace("`all`", "--all"))
    return re.sub(
        "^strip_prefix ", "--strip-prefix ", re.sub("^(to|rounding|underflow|seed|group_size)=", _option, sentence)
    )


def _option(match: re.Match[str]) -> str:
    return f"--{match[1].replace('_', '-')} "


def _check_options(fmt: str | None, to: str | None, given: dict[str, Any]) -> None:
    if fmt is not None and to is not None:
        raise CommandError(_GIVE_ONE)
    belongs = {"per_channel": "--per-channel", "group_size": "--group-size"}
    belongs |= {"pack": "--pack"} if to is not None else {}
    defaults = {"rounding": "nearest", "seed": 0, "underflow": "round"}
    wrong = [option for name, option in belongs.items() if given[name]]
    wrong += [f"--{name}" for name, value in defaults.items() if given[name] != value]
    if fmt is None and wrong:
        raise CommandError(f"{wrong[0]} goes with --format" + (", not with --to" if to is not None else ""))
    if given["per_channel"] and given["group_size"] is not None:
        raise CommandError("--per-channel and --group-size were given: leave out one of them")
    chosen = [option for name, option in _CHOOSING.items() if given[name]]
    if fmt is None and to is None and chosen:
        raise CommandError(f"{chosen[0]} chooses what is converted: give --format, such as lns8f5, or --to too")
    if given["everything"] and given["only"]:
        raise CommandError("--all and --only were given: leave out one of them")


_GIVE_ONE = "give --format, such as lns8f5, or --to, such as float32: one of them"
_CHOOSING = {"everything": "--all", "only": "--only", "skip": "--skip"}


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch("([0-9]{1,15}) ?(?:([kmgt])(i?))?b?", text.lower())
    if match is None or not int(match[1]):
        raise CommandError(f"--shard {text}: give a number of bytes, or a size such as 500MB or 5GB")
    power = "kmgt".index(match[2]) + 1 if match[2] else 0
    return int(match[1]) * int((1024 if match[3] else 1000) ** power)


def _texts(entries: list[str]) -> dict[str, str]:
    texts = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals:
            raise CommandError(f"--meta {entry}: give KEY=VALUE")
        texts[key] = value
    return texts


_SIZES = ("before", "after", "packed")


def _as_json(report: ConversionReport) -> dict[str, Any]:
    entries = []
    for tensor in report.tensors:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "shape": tensor.shape,
            "before": tensor.before,
            "after": tensor.after,
        }
        entry |= {f"bytes_{when}": getattr(tensor, f"bytes_{when}") for when in _SIZES}
        entry |= {"log_offset": tensor.log_offset, "range": tensor.range}
        if tensor.loss is not None:
            entry |= loss_to_json(tensor.loss)
            entry |= {"to_zero": tensor.zeroed, "saturated": tensor.saturated, "nans": tensor.nans}
        entries.append(entry)
    total = {f"bytes_{when}": sum(getattr(t, f"bytes_{when}") for t in report.tensors) for when in _SIZES}
    return {"path": str(report.path), "tensors": entries, "total": total | loss_to_json(report.loss)} | {
        "skipped": report.skipped,
        "dropped": report.dropped,
    }


def _few(names: tuple[str, ...]) -> str:
    """The first of them, and how many there are beside; the rest is in --json."""
    more = [f"{len(names) - _FEW:,} more"] if len(names) > _FEW else []
    return " and ".join([", ".join(map(name_of, names[:_FEW])), *more])


def _table(report: ConversionReport) -> NameTable:
    table = NameTable(box=None, caption=shown(report.path), caption_justify="left", padding=(0, 1, 0, 0))
    table.add_column("tensor")
    table.add_column("from, to", no_wrap=True)
    any_saturated = any(tensor.saturated for tensor in report.tensors)
    columns = ["bytes", "SQNR dB", "worst", "to zero", *["sat."] * any_saturated]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for tensor in report.tensors:
        name = f"{name_of(tensor.name)} ({'x'.join(map(str, tensor.shape)) or 'scalar'})"
        kinds = tensor.before if tensor.before == tensor.after else f"{tensor.before} → {tensor.after}"
        table.add_row(name, kinds, *_figures([tensor], tensor.loss)[: len(columns)])
    total = _figures(list(report.tensors), report.loss)[: len(columns)]
    table.add_row(f"{len(report.tensors):,} in all", "", *total)
    return table


def _figures(tensors: list[TensorReport], loss: Loss | None) -> list[str]:
    before, after = (decimal(sum(getattr(t, f"bytes_{when}") for t in tensors)) for when in ("before", "after"))
    sizes = f"{before} → {after}".replace("bytes", "B").replace("byte", "B")
    if loss is None or loss.elements == 0:
        return [sizes] + [""] * 4
    ratio = "exact" if loss.changed == 0 else f"{loss.sqnr_db:.1f}" if math.isfinite(loss.sqnr_db) else "-"
    worst = "" if loss.changed == 0 else f"{loss.greatest_relative:.1e}"
    return [sizes, ratio, worst, f"{sum(t.zeroed for t in tensors):,}", f"{sum(t.saturated for t in tensors):,}"]
