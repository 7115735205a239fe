"""`lnsnum convert` of a folder of Hugging Face's: another folder, which `from_pretrained` loads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from lnsnum.cli.app import CommandError, console, errors, naming_lack, print_json
from lnsnum.cli.tables import NameTable, name_of, shortened
from lnsnum.files.atomic import shown
from lnsnum.toolbox.export_targets.new_folder import new_folder

if TYPE_CHECKING:
    from lnsnum.huggingface.folders import FolderReport

_FITTING = {"source", "out", "fmt", "per_channel", "group_size", "shard", "json"}
"""The arguments of `convert` that a model's folder takes."""

_DEFAULTS: dict[str, Any] = {"rounding": "nearest", "seed": 0, "underflow": "round", "strip_prefix": ""}

_NAMES = {"everything": "--all", "fmt": "--format"}


def convert_model_folder(given: dict[str, Any], max_shard_bytes: int | None) -> None:
    """Convert the folder, by the arguments that `convert` was given."""
    source, out = given["source"], given["out"]
    for name, value in given.items():
        if name not in _FITTING and value not in (None, False, _DEFAULTS.get(name)):
            option = _NAMES.get(name, f"--{name.replace('_', '-')}")
            raise CommandError(
                f"{option} is for files, and {shown(source)} is a folder: a model's folder takes --format, "
                "--per-channel, --group-size, --shard and --json"
            )
    if given["fmt"] is None:
        raise CommandError(f"{shown(source)} is a folder of a model: give --format, such as lns8f5")
    with naming_lack("a folder of a model"):
        from lnsnum.huggingface import LNSConfig
        from lnsnum.huggingface.folders import convert_folder
    try:
        config = LNSConfig(given["fmt"], per_channel=given["per_channel"], group_size=given.get("group_size"))
        with new_folder(out, replaceable=lambda folder: "is not empty: give a new folder") as folder:
            report = convert_folder(source, folder, config, max_shard_bytes=max_shard_bytes)
    except OSError:
        raise
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CommandError(shortened(str(error).strip().splitlines()[-1], 300)) from error
    if given["json"]:
        print_json(_as_json(report, out))
        return
    console.print(_table(report, out))
    for what, names in (("not copied", report.left_out), ("no place in the model", report.unused)):
        if names:
            errors.print(f"{what}: {', '.join(map(name_of, names[:5]))}" + (" ..." if len(names) > 5 else ""))


def _as_json(report: FolderReport, out: Path) -> dict[str, Any]:
    return {
        "path": str(out),
        "architecture": report.architecture,
        "tensors": [
            {
                "name": p.name,
                "shape": p.shape,
                "after": p.format.name,
                "sqnr_db": p.weight_sqnr,
                "at_ceiling": p.at_ceiling,
                "at_floor": p.at_floor,
                "zeros": p.zeros_kept,
            }
            for p in report.conversion
        ],
        "left_float": report.conversion.left_float,
        "total": {"bytes_before": report.bytes_before, "bytes_after": report.bytes_after},
        "copied": report.copied,
        "left_out": report.left_out,
        "unused": report.unused,
    }


def _table(report: FolderReport, out: Path) -> NameTable:
    table = NameTable(box=None, caption=shown(out), caption_justify="left", padding=(0, 1, 0, 0))
    table.add_column("parameter")
    table.add_column("format", no_wrap=True)
    for column in ("SQNR dB", "ceiling", "floor", "zeros"):
        table.add_column(column, justify="right", no_wrap=True)
    for p in report.conversion:
        name = f"{name_of(p.name)} ({'x'.join(map(str, p.shape)) or 'scalar'})"
        exact = "exact" if math.isinf(p.weight_sqnr) else f"{p.weight_sqnr:.1f}"
        table.add_row(name, p.format.name, exact, f"{p.at_ceiling:.2%}", f"{p.at_floor:.2%}", f"{p.zeros_kept:,}")
    for name in report.conversion.left_float:
        table.add_row(name_of(name), "float")
    sizes = f"{decimal(report.bytes_before)} → {decimal(report.bytes_after)}"
    table.add_row(f"{len(report.conversion):,} in all, {sizes}")
    return table
