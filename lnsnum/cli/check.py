"""`lnsnum check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lnsnum.cli.app import CommandError, app, check_writable, console
from lnsnum.format import LNSFormat


@app.command()
def check(
    format_name: Annotated[str, typer.Option("--format", help="The format of the codes, such as lns8f3.")],
    command: Annotated[
        str | None,
        typer.Option(help="A program that reads lines 'a b' of codes and writes a code for each. Needs --operation."),
    ] = None,
    library: Annotated[
        Path | None, typer.Option(help="A shared library of C functions add, subtract, multiply, divide.")
    ] = None,
    operation: Annotated[
        list[str] | None, typer.Option(help="add, subtract, multiply or divide. Can be repeated with --library.")
    ] = None,
    law: Annotated[list[str] | None, typer.Option(help="Try this law alone. Can be repeated.")] = None,
    max_ulp: Annotated[
        float | None, typer.Option(help="How far from the exact result, in code steps; the right code alone without.")
    ] = None,
    rounding: Annotated[str, typer.Option(help="nearest, toward_zero, up, down, or a stochastic mode.")] = "nearest",
    overflow: Annotated[str, typer.Option(help="saturate or nan.")] = "saturate",
    underflow: Annotated[str, typer.Option(help="round or saturate.")] = "round",
    seed: Annotated[int, typer.Option(min=0, help="Of the pairs that are drawn for wide formats.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds that one call may last.")] = 60.0,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts to this file as JUnit XML.")] = None,
) -> None:
    """Try the laws of the number system on arithmetic of your own. Exit code 1 where one is broken."""
    if (command is None) == (library is None):
        raise CommandError("give one of --command and --library: what is to be tried")
    if junit is not None:
        check_writable("--junit", junit)
    from lnsnum.testing.c_functions import c_library
    from lnsnum.testing.calling import ImplementationError
    from lnsnum.testing.checking import check_arithmetic_laws
    from lnsnum.testing.foreign import Program
    from lnsnum.testing.junit import write_junit
    from lnsnum.testing.laws import OPERATIONS
    from lnsnum.testing.report import LawViolation

    implementation: object
    try:
        fmt = LNSFormat.parse(format_name)
        if command is not None:
            if operation is None or len(operation) != 1:
                raise CommandError("--command needs --operation once: what the program does")
            implementation = {operation[0]: Program(command)}
        elif library is not None:
            implementation = c_library(library, tuple(OPERATIONS))
        report = check_arithmetic_laws(
            implementation,
            fmt,
            max_ulp=max_ulp,
            operations=operation,
            laws=law,
            rounding=rounding,  # type: ignore[arg-type]  # checked there
            overflow=overflow,  # type: ignore[arg-type]
            underflow=underflow,  # type: ignore[arg-type]
            seed=seed,
            timeout=timeout,
        )
    except LawViolation as violation:
        report = violation.report
    except (ImplementationError, TypeError, ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    if junit is not None:
        write_junit(report, junit)
    console.print(report.table())
    console.print()
    console.print(str(report))
    if report.violations:
        sys.exit(1)
