"""`lnsnum describe`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsnum.cli.app import CommandError, app, check_plot, console, errors, print_json
from lnsnum.cli.tables import table_of

if TYPE_CHECKING:
    from rich.table import Table

    from lnsnum.toolbox.description import Description


@app.command()
def describe(
    formats: Annotated[list[str], typer.Argument(help="Formats, such as lns8f5.", show_default=False)],
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Another to stand beside them: LNS, float32, float16, bfloat16, a float8 such as float8_e4m3fn, "
            "posit8, posit16. Can be repeated."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write number lines and errors of rounding to this picture.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the tables.")] = False,
) -> None:
    """Say what formats can do: range, octaves, step, errors of rounding, numbers near one, tables for hardware."""
    from lnsnum.toolbox.description import describe as figures_of
    from lnsnum.toolbox.description import plot_formats

    # click gives an option one word: further ones, `--against float8_e4m3fn lns8f3`, arrive as arguments
    names = list(dict.fromkeys([*formats, *(against or [])]))
    try:
        found = [figures_of(name) for name in names]
    except ValueError as error:
        raise CommandError(str(error)) from error
    if plot is not None:
        check_plot(plot)
        plot_formats(plot, names)
    if as_json:
        print_json({"formats": {one.name: _to_json(one) for one in found}})
    else:
        console.print(_figures(found))
        if any(one.memories is not None for one in found):
            console.print(_memories(found))
    if plot is not None:
        (errors if as_json else console).print(f"plot written to {plot}")


def _to_json(one: Description) -> dict[str, object]:
    memories = None if one.memories is None else {**asdict(one.memories), "bits": one.memories.bits}
    return {**asdict(one), "memories": memories}


def _percent(x: float) -> str:
    return f"{100.0 * x:.3g} %"


def _step(one: Description) -> str:
    least, greatest = map(_percent, one.step)
    return least if least == greatest else f"{least} .. {greatest}"


def _figures(found: list[Description]) -> Table:
    table = table_of("formats, at log_offset 0", ("",), [one.name for one in found])
    rows = {
        "bits": [str(one.bits) for one in found],
        "of which": [one.layout.replace(", ", "\n") for one in found],
        "smallest": [f"{one.smallest:.4g}" for one in found],
        "smallest of full precision": [f"{one.smallest_normal:.4g}" for one in found],
        "greatest of full precision": [f"{one.greatest_normal:.4g}" for one in found],
        "greatest": [f"{one.greatest:.4g}" for one in found],
        "octaves": [f"{one.octaves:.4g}" for one in found],
        "octaves of full precision": [f"{one.octaves_normal:.4g}" for one in found],
        "positive numbers": [f"{one.numbers:,}" for one in found],
        "step": [_step(one) for one in found],
        "greatest error of rounding": [_percent(one.greatest_error) for one in found],
        "mean error of rounding": [_percent(one.mean_error) for one in found],
        "near one": ["\n".join(f"{x:.5g}" for x in one.near_one) for one in found],
    }
    if all(one.greatest_normal == one.greatest for one in found):
        del rows["greatest of full precision"]  # of posits alone it is another
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _memories(found: list[Description]) -> Table:
    columns = ("sb", "db", "half", "word", "decode", "word", "encode", "word", "kbit in all")
    table = table_of("entries of tables for hardware, and bits of a word", ("format",), columns)
    for one in found:
        m = one.memories
        if m is None:
            continue
        numbers = (m.sb, m.db, m.half, m.sum_bits, m.decode, m.decode_bits, m.encode, m.encode_bits)
        table.add_row(one.name, *(f"{n:,}" for n in numbers), f"{m.bits / 1000:,.4g}")
    return table
