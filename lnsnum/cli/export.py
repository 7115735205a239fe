"""`lnsnum export`: tensors of a weight file, and whole networks as programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.table import Table

from lnsnum.cli.app import CommandError, app, byte_progress, console, print_json
from lnsnum.cli.tables import name_of
from lnsnum.cli.trained import load_trained
from lnsnum.files.atomic import shown
from lnsnum.format import LNSFormat

if TYPE_CHECKING:
    from lnsnum.toolbox.export import Export

NETWORK = "c-network"
"""The target that is no list of tensors."""


@app.command()
def export(
    file: Annotated[
        Path | None, typer.Argument(help="A weight file, or the index of a set.", show_default=False)
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            help="As what: c, readmemh (memories for Verilog), npy or c-network (a program).", show_default=False
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="The folder to make; by default named after the file.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only tensors whose names match, such as 'fc*.weight'. Can be repeated."),
    ] = None,
    tables: Annotated[
        list[str] | None, typer.Option(help="Write the tables of this format, for readmemh; can be repeated.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="What all names begin with, for c and c-network; by default made from the file's name."),
    ] = None,
    pack: Annotated[bool, typer.Option("--pack", help="Leave out the unused bits of codes, for c.")] = False,
    values: Annotated[
        str | None, typer.Option(help="What codes become, for npy: codes (by default), float32 or float64.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data it was trained on, if that was no default, for c-network.")
    ] = None,
    datapath: Annotated[
        str | None,
        typer.Option(
            help="Compute in integers alone, for c-network: 'activations=lns8f3,accumulate=lns12f6', or "
            "'...,accumulate=fixed:20'; by default what it was trained in, and float32 for floats all the same."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take the place of an earlier export.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest and totals as JSON.")] = False,
) -> None:
    """Write the tensors of a weight file as C source, as memories for hardware, or as NumPy arrays; or the network that
    lnsnum train saved as a program in C.
    """
    from lnsnum.toolbox import export as exporting
    from lnsnum.toolbox.export_targets.exported import MANIFEST
    from lnsnum.toolbox.export_targets.memory_image import why_no_tables
    from lnsnum.toolbox.export_targets.numpy_arrays import Values

    targets = (*get_args(exporting.Target), NETWORK)
    if to not in targets:
        given = f"--to {shown(to)} is not known" if to else "--to is missing"
        raise CommandError(f"{given}: one of {', '.join(targets)}")
    for option, is_given, takers in (
        ("--prefix", prefix is not None, ("c", NETWORK)),
        ("--pack", pack, ("c",)),
        ("--values", values, ("npy",)),
        ("--tables", tables, ("readmemh",)),
        ("--only", only and to == NETWORK, get_args(exporting.Target)),
        ("--data", data, (NETWORK,)),
        ("--datapath", datapath is not None, (NETWORK,)),
    ):
        if is_given and to not in takers:
            raise CommandError(f"{option} is for --to {' and '.join(takers)}, not for --to {to}")
    if values not in (None, *get_args(Values)):
        raise CommandError(f"--values {shown(str(values))} is not known: one of {', '.join(get_args(Values))}")
    try:
        formats = [LNSFormat.parse(name) for name in tables or ()]
    except ValueError as error:
        raise CommandError(f"--tables {error}") from error
    if to == NETWORK and file is None:
        raise CommandError("there is nothing to export: give a weight file that lnsnum train wrote")
    if file is None and not formats:
        raise CommandError("there is nothing to export: give a weight file, or --tables FORMAT")
    if file is None and only:
        raise CommandError("--only is about the tensors of a weight file, and none is given")
    if file is None and all(reasons := [why_no_tables(fmt) for fmt in formats]):
        raise CommandError(f"there is nothing to export: {'; '.join(map(str, reasons))}")
    if prefix is not None:
        try:
            exporting.check_prefix(prefix)
        except ValueError as error:
            raise CommandError(f"--{error}") from error
    folder = out or Path(exporting.stem_of(file) if file is not None else formats[0].name)
    if out is None and folder.exists() and not folder.is_dir():
        raise CommandError(f"{shown(folder)} is no folder: say by --out where the export is to go")
    if to == NETWORK:
        assert file is not None
        _export_network(file, data, datapath, folder, prefix or exporting.prefix_of(file), force, as_json)
        return
    with byte_progress() as progress:
        task = progress.add_task("export", total=None)
        done = exporting.export(
            file,
            folder,
            to,  # type: ignore[arg-type]
            only=only or (),
            tables=formats,
            prefix=prefix,
            packed=pack,
            values=values or "codes",  # type: ignore[arg-type]
            replace=force,
            progress=lambda now, total: progress.update(task, completed=now, total=total),
        )
    if as_json:
        print_json(_to_json(done))
        return
    if done.source is not None:
        console.print(_tensors(done))
    if done.formats:
        console.print(_tables(done))
    if done.left_out:
        names = ", ".join(map(name_of, done.left_out))
        console.print(
            f"left out, because memories are written of LNS tensors: {names}", overflow="ellipsis", no_wrap=True
        )
    for tables_of_one in done.formats:
        if tables_of_one.left_out:
            console.print(f"no tables: {tables_of_one.left_out}")
    files = (
        ", ".join(sorted(done.sizes, key=lambda name: (name == "lnsnum.h", name)))
        if to == "c"
        else f"{len(done.sizes)} files"
    )
    console.print(
        f"{shown(done.folder)}: {files} of {sum(done.sizes.values()):,} bytes, and {MANIFEST}", soft_wrap=True
    )


def _export_network(
    file: Path, data: Path | None, datapath: str | None, folder: Path, prefix: str, replace: bool, as_json: bool
) -> None:
    """The network of a classification as a program."""
    task, model = load_trained(file, data)
    from lnsnum.tasks.classification import TEST_BATCH, Classification, as_floats
    from lnsnum.toolbox.export_targets.exported import MANIFEST
    from lnsnum.toolbox.network import export_network
    from lnsnum.torch_bridge.datapath import datapath as make_datapath
    from lnsnum.torch_bridge.datapath import use_datapath
    from lnsnum.torch_bridge.datapath.texts import read_short
    from lnsnum.torch_bridge.sequential import NetworkError

    if not isinstance(task, Classification):
        raise CommandError(f"{shown(file)} is for the task {task.name}: --to {NETWORK} writes networks that classify")
    shape = task.channels, task.height, task.width
    # training images choose the scales of integers
    examples = as_floats(task.train_data.images[:TEST_BATCH])
    path = None
    if datapath == "float32":
        use_datapath(model, None)
    elif datapath is not None:
        try:
            path = make_datapath(**read_short(datapath))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise CommandError(f"--datapath {shown(datapath)}: {error}") from error
    try:
        done = export_network(model, shape, folder, prefix=prefix, replace=replace, datapath=path, examples=examples)
    except NetworkError as error:
        raise CommandError(f"{shown(file)}: {error}") from error
    if as_json:
        print_json({"folder": str(done.folder), "manifest": done.to_json(), "totals": {"bytes": done.bytes}})
        return
    facts = done.network
    console.print(
        f"{facts['weights']:,} weights in {facts['layers']} layers: {facts['constant_bytes']:,} bytes of constants, "
        f"{facts['written_bytes']:,} bytes that are written to, beside the code"
    )
    if integers := facts.get("integers"):
        console.print(f"in integers alone; sums in {integers['accumulator']}", soft_wrap=True)
    console.print(f"{shown(done.folder)}: {', '.join(done.sizes)}, and {MANIFEST}", soft_wrap=True)
    console.print(f"gcc -std=c99 -O2 {prefix}_*.c -o {prefix}    reads images as text and prints classes")


def _to_json(done: Export) -> dict[str, Any]:
    totals = {
        "tensors": len(done.tensors),
        "files": len(done.sizes),
        "words": sum(tensor.words for tensor in done.tensors),
        "bytes": sum(done.sizes.values()),
    }
    return {"folder": str(done.folder), "manifest": done.to_json(), "totals": totals}


def _tensors(done: Export) -> Table:
    """Of C, where all tensors are in the same files, each one's variable and the length of its text there."""
    in_c = done.target == "c"
    table = Table("tensor", "variable" if in_c else "files")
    for column in ("words", "bits", "bytes of source" if in_c else "bytes"):
        table.add_column(column, justify="right")
    for tensor in done.tensors:
        row = [f"{tensor.words:,}", str(tensor.word_bits), f"{tensor.nbytes:,}"]
        table.add_row(name_of(tensor.item.name), tensor.identifier if in_c else ", ".join(tensor.files), *row)
    return table


def _tables(done: Export) -> Table:
    table = Table("format", "table", "file")
    for column in ("words", "bits", "bytes"):
        table.add_column(column, justify="right")
    for tables in done.formats:
        for kind, one in tables.tables.items():
            row = [f"{one.words:,}", str(one.word_bits), f"{one.nbytes:,}"]
            table.add_row(tables.fmt.name, kind, one.file, *row)
    return table
