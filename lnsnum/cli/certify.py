"""`lnsnum certify`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lnsnum.cli.app import CommandError, app, console, errors, print_json
from lnsnum.format import LNSFormat

if TYPE_CHECKING:
    from lnsnum.certify import Certificate, Judgement
    from lnsnum.gaussian import GaussianLog


@app.command()
def certify(
    formats: Annotated[list[str], typer.Argument(help="Formats, such as lns8f3 or lns32f23.", show_default=False)],
    gaussian: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge an approximate Gaussian logarithm instead: exact, mitchell, bit-shift, "
            "cotransformation, cotransformation:BITS, linear:SEGMENTS, table:ENTRIES. Can be repeated."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for the documentation.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the tables.")] = False,
) -> None:
    """Scan all that a claim of correct rounding needs, and print a certificate. Exit code 1 where one is refuted."""
    try:
        parsed = [LNSFormat.parse(name) for name in formats]
    except ValueError as error:
        raise CommandError(str(error)) from error
    if json and markdown:
        raise CommandError("--json and --markdown were given: leave out one of them")
    from lnsnum import certify as proofs

    content: dict[str, Any] = {}
    logs = {name: _gaussian_log(name) for name in gaussian or []}
    wrong = 0
    for i, fmt in enumerate(parsed):
        if i and markdown:
            print()
        if logs:
            judged = {name: proofs.judge(log, fmt) for name, log in logs.items()}
            if json:
                content[fmt.name] = {name: [j._asdict() for j in found] for name, found in judged.items()}
            elif markdown:
                rows = (proofs.judgement_markdown(name, judgements) for name, judgements in judged.items())
                print(f"### {fmt.name}", "", proofs.JUDGEMENT_HEAD, *rows, sep="\n")
            else:
                for name, judgements in judged.items():
                    console.print(_judgement(fmt, name, judgements))
            continue
        with errors.status(f"{fmt.name}: ...") as status:
            certificate = proofs.certify(fmt, lambda name, fmt=fmt: status.update(f"{fmt.name}: {name}"))  # type: ignore[misc]
        wrong += certificate.misroundings
        if json:
            content[fmt.name] = _as_json(certificate)
        elif markdown:
            print(proofs.markdown(certificate))
        else:
            console.print(_certificate(certificate))
    if json:
        print_json({"judgements": content} if logs else {"certificates": content, "misroundings": wrong})
    if wrong:
        sys.exit(1)


def _gaussian_log(name: str) -> GaussianLog:
    from lnsnum import gaussian

    kind, _, number = name.partition(":")
    known: dict[str, Callable[[], GaussianLog]] = {
        "exact": gaussian.Exact,
        "mitchell": gaussian.Mitchell,
        "cotransformation": gaussian.Cotransformation,
        "bit-shift": gaussian.BitShift,
    }
    numbered: dict[str, Callable[[int], GaussianLog]] = {
        "linear": gaussian.LinearInterpolation,
        "cotransformation": gaussian.Cotransformation,
        "table": gaussian.LookUpTable,
    }
    try:
        if number and kind in numbered:
            return numbered[kind](int(number) if re.fullmatch("-?[0-9]{1,9}", number) else _no_number(number))
        if not number and kind in known:
            return known[kind]()
    except ValueError as error:
        raise CommandError(f"--gaussian {name}: {error}") from error
    raise CommandError(
        f"--gaussian {name} is not known: exact, mitchell, bit-shift, cotransformation, cotransformation:BITS, "
        "linear:SEGMENTS, table:ENTRIES"
    )


def _no_number(text: str) -> int:
    raise ValueError(f"{text!r} is no integer")


def _certificate(certificate: Certificate) -> Table:
    caption = ", ".join(f"{name} {value}" for name, value in certificate.environment.items())
    table = Table(title=certificate.fmt.name, caption=f"{certificate.seconds:.1f} s; {caption}")
    table.add_column("operation")
    for column in ("inputs scanned", "nearest tie", "near ties re-checked", "misroundings"):
        table.add_column(column, justify="right")
    for finding in certificate.findings:
        row = [f"{finding.inputs:,}", finding.tie, f"{finding.rechecked:,}"]
        table.add_row(finding.operation, *row, f"{finding.misroundings} {finding.first_wrong}".strip())
    return table


def _as_json(certificate: Certificate) -> dict[str, Any]:
    return {
        "seconds": certificate.seconds,
        "environment": certificate.environment,
        "misroundings": certificate.misroundings,
        "operations": [finding._asdict() for finding in certificate.findings],
    }


def _judgement(fmt: LNSFormat, name: str, judgements: list[Judgement]) -> Table:
    from lnsnum.certify import EDGES

    table = Table(title=f"{fmt.name}, {name}: error in ulp over every z")
    ends = [f"<= {end:g}" for end in EDGES[:-1]]
    for column in ("", *ends, "more", "worst", "monotone", "rounding"):
        table.add_column(column, justify="right")
    for j in judgements:
        row = [*(f"{count:,}" for count in j.histogram), f"{j.worst_error:.3f} at z={j.worst_z}"]
        table.add_row(j.function, *row, "yes" if j.monotone else "no", j.rounding)
    return table
