"""`lnsnum report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsnum.cli.app import CommandError, app, console, naming_lack, print_json
from lnsnum.files.atomic import shown

if TYPE_CHECKING:
    from lnsnum.study.results import Results


@app.command()
def report(
    journal: Annotated[Path, typer.Argument(help="What `lnsnum study` wrote.")],
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this table: claim, one-rate, ladder, grid, bits, ablations, memory, budget; of the second "
            "edition verdicts, counts, one-rate, rates, rows, matters, finalists, budget. Can be repeated."
        ),
    ] = None,
    problem: Annotated[list[str] | None, typer.Option(help="Only this problem. Can be repeated.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Also draw the plots into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Print the tables of a study from its journal, as far as it has come: what is missing is said to be."""
    from lnsnum.study.journal import read_journal
    from lnsnum.study.problems import measure_of
    from lnsnum.study.results import Results
    from lnsnum.study.tables import make_tables

    if plots is not None:
        _check_plots(plots)
    results = Results(read_journal(journal), measure_of)
    if not results.problems:
        raise CommandError(f"{shown(journal)} has no run yet")
    tables = make_tables(results, table or (), problem or ())
    pictures = [] if plots is None else _draw(plots, results, problem or ())
    if as_json:
        print_json({"tables": [one.as_dict() for one in tables], "plots": [str(path) for path in pictures]})
        return
    pages = [one.text() for one in tables] or ["The journal has no run that these tables tell of."]
    console.print("\n\n\n".join(pages), soft_wrap=True)
    for path in pictures:
        console.print(f"\n{shown(path)}: a plot", soft_wrap=True)


def _check_plots(folder: Path) -> None:
    with naming_lack("--plots"):
        import matplotlib  # noqa: F401
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"--plots {shown(folder)} is no folder")
    folder.mkdir(parents=True, exist_ok=True)


def _draw(folder: Path, results: Results, problems: list[str] | tuple[str, ...]) -> list[Path]:
    """Draw what the journal has runs for."""
    from lnsnum.study.plots import PLOTS
    from lnsnum.study.second_plots import SECOND_PLOTS
    from lnsnum.study.tables import choose

    drawn = []
    for name, (draw, part) in (PLOTS if results.edition == 1 else SECOND_PLOTS).items():
        begun, _ = results.begun(part, choose(results, problems))
        if begun:
            draw(folder / name, results, begun)
            drawn.append(folder / name)
    return drawn
