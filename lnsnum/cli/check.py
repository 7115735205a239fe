"""`lnsnum check`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from lnsnum.cli.app import CommandError, app, check_writable, console
from lnsnum.format import LNSFormat

_VERILOG = "Verilog"
"""The panel of its options in the help."""

_NAMES = {
    "arithmetic": ("add", "subtract", "multiply", "divide"),
    "gaussian": ("sb", "db"),
    "quantizers": ("quantize",),
}
"""The kinds that make sense from outside of Python, and the names of their functions."""


@app.command()
def check(
    format_name: Annotated[
        str | None, typer.Option("--format", help="The format of the codes, such as lns8f3. Quantizers need none.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="arithmetic, gaussian (sb and db of z) or quantizers (floats to floats).")
    ] = "arithmetic",
    command: Annotated[
        str | None,
        typer.Option(help="A program that reads lines 'a b' of codes and writes a code for each. Needs --operation."),
    ] = None,
    library: Annotated[
        Path | None, typer.Option(help="A shared library of C functions that have the names of operations.")
    ] = None,
    verilog: Annotated[
        list[Path] | None, typer.Option(help="A file of Verilog. Can be repeated. Needs --top and --operation.")
    ] = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(help="add, subtract, multiply, divide; sb, db. Can be repeated with --library."),
    ] = None,
    law: Annotated[list[str] | None, typer.Option(help="Try this law alone. Can be repeated.")] = None,
    max_ulp: Annotated[
        float | None, typer.Option(help="How far from the exact result, in code steps; the right code alone without.")
    ] = None,
    rounding: Annotated[
        str | None, typer.Option(help="nearest (unless said otherwise), toward_zero, up, down, or a stochastic mode.")
    ] = None,
    overflow: Annotated[str | None, typer.Option(help="saturate (unless said otherwise) or nan.")] = None,
    underflow: Annotated[str | None, typer.Option(help="round (unless said otherwise) or saturate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the inputs that are drawn for wide formats.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one call may last.")] = 60.0,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts to this file as JUnit XML.")] = None,
    top: Annotated[str | None, typer.Option(help="The module.", rich_help_panel=_VERILOG)] = None,
    ports: Annotated[
        str | None, typer.Option(help="Its operands and, last, its result: a,b,out.", rich_help_panel=_VERILOG)
    ] = None,
    clock: Annotated[str | None, typer.Option(help="The port of its clock.", rich_help_panel=_VERILOG)] = None,
    latency: Annotated[
        int | None, typer.Option(help="After how many rising edges its result is there.", rich_help_panel=_VERILOG)
    ] = None,
    reset: Annotated[
        str | None, typer.Option(help="Its reset; !rst_n for one that is low.", rich_help_panel=_VERILOG)
    ] = None,
    tie: Annotated[
        list[str] | None, typer.Option(help="PORT=INTEGER for another port.", rich_help_panel=_VERILOG)
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for a parameter.", rich_help_panel=_VERILOG)
    ] = None,
    settle: Annotated[
        int | None, typer.Option(help="How many time units a result takes: 1.", rich_help_panel=_VERILOG)
    ] = None,
    simulator: Annotated[
        str | None, typer.Option(help="icarus (unless said otherwise) or verilator.", rich_help_panel=_VERILOG)
    ] = None,
    compiler_option: Annotated[
        list[str] | None, typer.Option(help="One more for the compiler, such as -Iinclude.", rich_help_panel=_VERILOG)
    ] = None,
) -> None:
    """Try the laws of the number system on arithmetic of your own. Exit code 1 where one is broken."""
    if sum(given is not None for given in (command, library, verilog)) != 1:
        raise CommandError("give one of --command, --library and --verilog: what is to be tried")
    of_verilog = {
        "top": top,
        "ports": ports,
        "clock": clock,
        "latency": latency,
        "reset": reset,
        "tie": tie,
        "parameter": parameter,
        "settle": settle,
        "simulator": simulator,
        "compiler-option": compiler_option,
    }
    if verilog is None and (stray := [name for name, value in of_verilog.items() if value is not None]):
        raise CommandError(f"--{stray[0]} is of --verilog: give a file of Verilog")
    if junit is not None:
        check_writable("--junit", junit)
    from lnsnum.testing.c_functions import c_library
    from lnsnum.testing.calling import ImplementationError
    from lnsnum.testing.foreign import Program
    from lnsnum.testing.junit import write_junit
    from lnsnum.testing.kinds import check_laws
    from lnsnum.testing.report import LawViolation
    from lnsnum.testing.verilog import VerilogModule
    from lnsnum.testing.verilog_bench import Pins

    asked = {
        "operations": operation,
        "laws": law,
        "max_ulp": max_ulp,
        "rounding": rounding,
        "overflow": overflow,
        "underflow": underflow,
        "seed": seed,
        "timeout": timeout,
    }
    implementation: object
    try:
        if kind not in _NAMES:
            raise CommandError(f"--kind {kind} is not known here: one of {', '.join(_NAMES)}")
        fmt = None if format_name is None else LNSFormat.parse(format_name)
        if kind == "quantizers":  # there is one function
            if operation not in (None, ["quantize"]):
                raise CommandError(f"--operation {operation[0]} is none of quantizers: quantize is all that they do")
            operation, asked["operations"] = ["quantize"], None
        if library is not None:
            implementation = c_library(library, operation or _NAMES[kind])
        elif operation is None or len(operation) != 1:
            raise CommandError(f"{'--verilog' if verilog else '--command'} needs --operation once: what it does")
        elif command is not None:
            implementation = {operation[0]: Program(command)}
        elif verilog is not None:
            if top is None or fmt is None:
                raise CommandError(f"--verilog needs {'--format' if top else '--top: the name of the module'}")
            pins = Pins(
                tuple(port.strip() for port in (ports or "a,b,out").split(",")),
                clock=clock,
                latency=latency or 0,
                reset=reset,
                tied={name: _integer("--tie", name, value) for name, value in _named("--tie", tie)},
                parameters={name: _value(value) for name, value in _named("--parameter", parameter)},
                settle=1 if settle is None else settle,
            )
            module = VerilogModule(
                verilog,
                top,
                fmt,
                pins,
                simulator=simulator or "icarus",  # type: ignore[arg-type]  # checked there
                arguments=compiler_option or (),
            )
            implementation = {operation[0]: module}
        given = {name: value for name, value in asked.items() if value is not None}
        report = check_laws(implementation, fmt, kind=kind, **given)
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


def _named(option: str, given: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """The halves of NAME=VALUE."""
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals:
            raise CommandError(f"{option} {each} has no =: write it as NAME=VALUE")
        yield name, value


def _value(text: str) -> int | str:
    """An integer where it is written as one, 0x in front of hexadecimal digits; else the text."""
    return int(text, 0) if re.fullmatch(r"-?(0x[0-9a-fA-F]+|0|[1-9][0-9]*)", text) else text


def _integer(option: str, name: str, text: str) -> int:
    value = _value(text)
    if isinstance(value, str):
        raise CommandError(f"{option} {name}={text}: {text!r} is no integer")
    return value
