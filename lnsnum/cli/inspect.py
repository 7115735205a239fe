"""`lnsnum inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len

from lnsnum.cli.app import CommandError, app, byte_progress, check_plot, console, print_json
from lnsnum.cli.tables import LONGEST, counted, decibels, loss_to_json, name_of, number, share, shortened, table_of
from lnsnum.files.atomic import shown
from lnsnum.toolbox.loss import Loss

if TYPE_CHECKING:
    from rich.table import Table

    from lnsnum.toolbox.inspection import CodeReport, FileReport, TensorReport


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A weight file, an index, or any other file of tensors.")],
    source: Annotated[
        Path | None, typer.Option(help="The original, floats or codes, to measure what was lost.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the histograms of codes to this picture.")] = None,
    histogram: Annotated[bool, typer.Option("--histogram", help="Print the histograms of codes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only tensors whose names match, such as 'fc*.weight'. Can be repeated."),
    ] = None,
) -> None:
    """Say what is in a file of weights: formats, scales, bits a weight, which codes occur, what was lost."""
    from lnsnum.toolbox.inspection import inspect_weights

    if plot is not None:
        check_plot(plot)
    with byte_progress() as progress:
        task = progress.add_task("inspect", total=None)
        report = inspect_weights(
            file,
            source=source,
            only=only or (),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if plot is not None:
        from lnsnum.toolbox.plots import plot_codes

        if not any(tensor.codes is not None for tensor in report.tensors):
            raise CommandError(f"--plot {shown(plot)}: no tensor that was inspected has codes to draw")
        plot_codes(plot, report)
    if as_json:
        print_json(_to_json(report, histogram))
        return
    _print(report, source)
    if histogram:
        for tensor in report.tensors:
            if tensor.codes is not None:
                _print_histogram(name_of(tensor.name), tensor.codes)
    if plot is not None:
        console.print(f"{shown(plot)}: the histograms", soft_wrap=True)


# -------------------------------------------------------------------------------------------------------------- tables


def _print(report: FileReport, source: Path | None) -> None:
    of_codes = [tensor for tensor in report.tensors if tensor.codes is not None]
    bits = "" if report.bits is None else f", {report.bits:.4g} bits each"
    counts = f"{counted(len(report.tensors), 'tensor')}, {len(of_codes)} of them LNS"
    sizes = f"{counted(report.elements, 'element')} in {counted(report.bytes, 'byte')}"
    console.print(f"{shown(report.path)}: {counts}: {sizes}{bits}", soft_wrap=True)
    if len(report.tensors) > _MANY:
        console.print(_summary(report))
    if report.texts:
        console.print(_metadata(report.texts))
    console.print(_storage(report))
    console.print(_magnitudes(report))
    console.print(_codes(report))
    if source is not None:
        console.print(_losses(report, source))


_MANY = 10
"""Tensors that are seen at a glance; more are summed up first."""


def _summary(report: FileReport) -> Table:
    """All tensors of a format, or of a type of plain numbers, together."""
    columns = ("tensors", "elements", "bytes", "bits", "greatest", "smallest", "zero", "NaN", "SQNR in dB")
    has_loss = report.loss is not None
    table = table_of("summary", ("format",), columns if has_loss else columns[:-1])
    kinds: dict[str, list[TensorReport]] = {}
    for tensor in report.tensors:
        kinds.setdefault(_kind(tensor), []).append(tensor)
    for kind, tensors in sorted(kinds.items(), key=lambda entry: -sum(tensor.bytes for tensor in entry[1])):
        n, size = sum(tensor.elements for tensor in tensors), sum(tensor.bytes for tensor in tensors)
        row = [kind, f"{len(tensors):,}", f"{n:,}", f"{size:,}", f"{8 * size / n:.4g}" if n else ""]
        codes = [tensor.codes.summary for tensor in tensors if tensor.codes is not None]
        extremes = (sum(one.at_greatest for one in codes), sum(one.at_smallest for one in codes))
        row += [share(count, n) if codes else "" for count in extremes]
        row += [share(sum(getattr(tensor, what) for tensor in tensors), n) for what in ("zeros", "nans")]
        losses = [tensor.loss for tensor in tensors if tensor.loss is not None]
        row += [decibels(sum(losses, Loss())) if losses else ""] * has_loss
        table.add_row(*row)
    return table


def _metadata(texts: dict[str, str]) -> Table:
    """The texts as far as the console has room for them in one line."""
    table = table_of("metadata", ("entry", "text"), ())
    keys = {key: shortened(key) or "''" for key in sorted(texts)}
    room = console.width - max(map(cell_len, ("entry", *keys.values()))) - _FRAME
    for key, entry in keys.items():
        table.add_row(entry, shortened(texts[key], max(room, LONGEST)))
    return table


_FRAME = 7
"""Columns of a table of two cells beside what is in them."""


def _storage(report: FileReport) -> Table:
    table = table_of("storage", ("tensor", "format", "shape"), ("elements", "bytes", "bits", "log_offset"))
    for tensor in report.tensors:
        codes = tensor.codes
        shape = " x ".join(map(str, tensor.shape)) or "scalar"
        bits = "" if tensor.bits is None else f"{tensor.bits:.4g}"
        table.add_row(
            name_of(tensor.name),
            _kind(tensor),
            shape,
            f"{tensor.elements:,}",
            f"{tensor.bytes:,}",
            bits,
            _offsets(codes),
        )
    return table


def _kind(tensor: TensorReport) -> str:
    """Its format, or the type of its numbers."""
    codes = tensor.codes
    return tensor.dtype if codes is None else codes.fmt.name + (", packed" if codes.packed else "")


def _offsets(codes: CodeReport | None) -> str:
    if codes is None:
        return ""
    least, greatest = codes.offsets
    groups = "" if codes.group_size is None else f" groups of {codes.group_size}"
    return str(least) if codes.scales == 1 else f"{least} .. {greatest} ({codes.scales}{groups})"


def _magnitudes(report: FileReport) -> Table:
    table = table_of("magnitudes of nonzero numbers", ("tensor",), ("of the format", "used", "m used"))
    for tensor in report.tensors:
        row = [name_of(tensor.name), "", _used(tensor), ""]
        if tensor.codes is not None:
            (least, greatest), (low, high) = tensor.codes.range, _logs_of_range(tensor.codes)
            row[1] = f"{number(least, low)} .. {number(greatest, high)}"
            magnitudes = tensor.codes.summary.magnitudes
            row[3] = "" if magnitudes is None else "{} .. {}".format(*magnitudes)
        table.add_row(*row)
    return table


def _codes(report: FileReport) -> Table:
    """Shares of the format's codes, and of the tensor's elements."""
    columns = ("codes used", "greatest", "smallest", "zero", "NaN", "negative")
    table = table_of("codes that occur, and shares of the elements", ("tensor",), columns)
    for tensor in report.tensors:
        codes, n = tensor.codes, tensor.elements
        row = [name_of(tensor.name), "", "", ""]
        if codes is not None:
            summary = codes.summary
            row[1] = "" if summary.distinct is None else share(summary.distinct, 1 << codes.fmt.bits)
            row[2:] = share(summary.at_greatest, n), share(summary.at_smallest, n)
        table.add_row(*row, share(tensor.zeros, n), share(tensor.nans, n), share(tensor.negative, n))
    return table


def _used(tensor: TensorReport) -> str:
    if tensor.used is None:
        return ""
    logs: tuple[float, float] | tuple[None, None] = (None, None)
    if tensor.codes is not None and tensor.codes.logs is not None:
        low, high = tensor.codes.logs
        logs = low / tensor.codes.fmt.codes_per_octave, high / tensor.codes.fmt.codes_per_octave
    return f"{number(tensor.used[0], logs[0])} .. {number(tensor.used[1], logs[1])}"


def _logs_of_range(codes: CodeReport) -> tuple[float, float]:
    fmt, (least, greatest) = codes.fmt, codes.offsets
    return (least - fmt.max_log) / fmt.codes_per_octave, (greatest + fmt.max_log) / fmt.codes_per_octave


def _losses(report: FileReport, source: Path) -> Table:
    columns = ("SQNR in dB", "greatest relative error", "changed", "became zero", "became NaN")
    table = table_of(f"against {shown(source)}", ("tensor",), columns)
    for tensor in report.tensors:
        loss = tensor.loss
        if loss is None:
            table.add_row(name_of(tensor.name), tensor.note)
            continue
        counts = (share(count, loss.elements) for count in (loss.changed, loss.zeroed, loss.to_nan))
        table.add_row(name_of(tensor.name), decibels(loss), number(loss.greatest_relative), *counts)
    if report.loss is not None and len(report.tensors) > 1:
        loss = report.loss
        counts = (share(count, loss.elements) for count in (loss.changed, loss.zeroed, loss.to_nan))
        table.add_row("all LNS tensors", decibels(loss), number(loss.greatest_relative), *counts)
    return table


# ----------------------------------------------------------------------------------------------------------- histograms

_WIDEST = 64


def _print_histogram(name: str, codes: CodeReport) -> None:
    """A row of bars over m, each as high as its share of the highest; one of nothing is blank."""
    counts, width = list(codes.summary.histogram.counts), codes.summary.histogram.width
    while len(counts) > _WIDEST:
        counts = [sum(counts[i : i + 2]) for i in range(0, len(counts), 2)]
        width *= 2
    bars = "▁▂▃▄▅▆▇█" if console.encoding.startswith("utf") else ".:-=+*#@"
    most = max(counts)
    row = "".join(bars[-(-count * len(bars) // most) - 1] if count else " " for count in counts)
    console.print(
        f"\n{name} ({codes.fmt.name}): the highest bar is {counted(most, 'code')}, {width} m wide", soft_wrap=True
    )
    console.print(f"  |{row}|", soft_wrap=True)
    ends = "m = 1", f"{codes.fmt.max_magnitude} = m"
    console.print(f"   {ends[0]}{ends[1]:>{max(len(row) - len(ends[0]), len(ends[1]) + 1)}}", soft_wrap=True)


# ---------------------------------------------------------------------------------------------------------------- JSON


def _to_json(report: FileReport, histogram: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "file": report.path,
        "kind": report.kind,
        "metadata": report.texts,
        "tensors": [_tensor_to_json(tensor, histogram) for tensor in report.tensors],
        "totals": {"tensors": len(report.tensors), "elements": report.elements, "bytes": report.bytes},
    }
    content["totals"]["bits"] = report.bits
    if report.loss is not None:
        content["totals"]["loss"] = loss_to_json(report.loss)
    return content


def _tensor_to_json(tensor: TensorReport, histogram: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": tensor.name,
        "format": None if tensor.codes is None else tensor.codes.fmt.name,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "elements": tensor.elements,
        "bytes": tensor.bytes,
        "bits": tensor.bits,
        "used": tensor.used,
        "zeros": tensor.zeros,
        "nans": tensor.nans,
        "infinities": tensor.infinities,
        "negative": tensor.negative,
    }
    if tensor.codes is not None:
        content["codes"] = _codes_to_json(tensor.codes, histogram)
    if tensor.loss is not None:
        content["loss"] = loss_to_json(tensor.loss)
    if tensor.note:
        content["note"] = tensor.note
    return content


def _codes_to_json(codes: CodeReport, histogram: bool) -> dict[str, Any]:
    summary, fmt = codes.summary, codes.fmt
    content: dict[str, Any] = {
        "packed": codes.packed,
        "log_offset": {"least": codes.offsets[0], "greatest": codes.offsets[1], "count": codes.scales}
        | ({} if codes.group_size is None else {"group_size": codes.group_size}),
        "range": codes.range,
        "range_log2": _logs_of_range(codes),
        "used_log2": None if codes.logs is None else [log / fmt.codes_per_octave for log in codes.logs],
        "magnitudes": summary.magnitudes,
        "distinct": summary.distinct,
        "share": codes.share_of_codes,
        "at_greatest": summary.at_greatest,
        "at_smallest": summary.at_smallest,
    }
    if histogram:
        bins = summary.histogram
        content["histogram"] = {"first": bins.first, "width": bins.width, "counts": bins.counts}
    return content
