"""What is in a file of weights: formats, scales, which codes occur, and what was lost against the original.

    bits a weight  =  8 bytes / elements,      range  =  base^((1 - bias + o) / 2^F) .. base^((m_max - bias + o) / 2^F)

Reading goes to the end of every tensor, so checksums and codes are checked on the way.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath
from lnsnum.files.layout import Description, refuse
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import each_offset
from lnsnum.kernels.compiling import kernel
from lnsnum.toolbox.comparison import Comparison
from lnsnum.toolbox.counting import Bins, CodeCount, CodeSummary, LogCount
from lnsnum.toolbox.loss import Loss
from lnsnum.toolbox.reading import Progress, selected, side_by_side
from lnsnum.toolbox.sources import Source, open_source
from lnsnum.toolbox.values import Scale

__all__ = [
    "CodeReport",
    "FileReport",
    "TensorReport",
    "inspect_weights",
]

Range = tuple[float, float]


@dataclass(frozen=True)
class CodeReport:
    """What is to say of codes.

    Args:
        fmt: their format.
        packed: whether the file has them without their unused bits.
        offsets: the least and the greatest log_offset.
        scales: how many log_offsets the file has for the tensor.
        group_size: of how many elements, where each is that of a group.
        range: the smallest and the greatest magnitude that the format has, at the least and the greatest log_offset.
        summary: which codes occur.
        logs: the least and the greatest E = m - bias + log_offset of a nonzero number; None where there is none.
        log_histogram: how many nonzero numbers have an E of each bin.
    """

    fmt: LNSFormat
    packed: bool
    offsets: tuple[int, int]
    scales: int
    group_size: int | None
    range: Range
    summary: CodeSummary
    logs: tuple[int, int] | None
    log_histogram: Bins

    @property
    def share_of_codes(self) -> float | None:
        """The share of the format's 2^bits codes that occur; None for formats of more than 16 bits."""
        return None if self.summary.distinct is None else self.summary.distinct / (1 << self.fmt.bits)


@dataclass(frozen=True)
class TensorReport:
    """What is to say of a tensor.

    Args:
        name: its name.
        dtype: NumPy's name of the type of its elements, which are codes where `codes` is there.
        shape: its shape.
        elements: how many there are.
        bytes: of its elements in a weight file, or in any other file, and 4 for each log_offset of an array of them.
        used: the least and the greatest magnitude of its finite nonzero numbers; None where there is none.
        zeros: how many are zero.
        nans: how many are NaN.
        infinities: how many are infinite: none of codes.
        negative: how many are negative, without zeros and NaNs.
        codes: of codes alone.
        loss: against the original, where there is one that has the tensor in this shape.
        note: why there is no loss, where an original was given.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    used: Range | None
    zeros: int
    nans: int
    infinities: int
    negative: int
    codes: CodeReport | None
    loss: Loss | None = None
    note: str = ""

    @property
    def bits(self) -> float | None:
        """Bits a weight; None of an empty tensor."""
        return 8 * self.bytes / self.elements if self.elements else None


@dataclass(frozen=True)
class FileReport:
    """What is to say of a file: its kind as of `lnsnum.toolbox.sources.Source`, metadata, tensors by name."""

    path: str
    kind: str
    texts: dict[str, str]
    tensors: tuple[TensorReport, ...]

    @property
    def elements(self) -> int:
        """Of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def bits(self) -> float | None:
        """Bits a weight over all; None without any."""
        return 8 * self.bytes / self.elements if self.elements else None

    @property
    def loss(self) -> Loss | None:
        """Over the LNS tensors that were compared; None where none was.

        The numbers of plain tensors, such as counters, can be large and are what they were: they would hide the noise.
        """
        losses = [tensor.loss for tensor in self.tensors if tensor.loss is not None and tensor.codes is not None]
        return sum(losses, Loss()) if losses else None


def inspect_weights(
    path: StrPath, *, source: StrPath | None = None, only: Sequence[str] = (), progress: Progress | None = None
) -> FileReport:
    """Read a file, a block at a time, and say what is in it.

    Args:
        path: of any kind that `open_source` opens.
        source: the original, of any kind too: its tensors of the same names are compared.
        only: patterns of the shell: tensors whose names match none of them are left out; without a pattern none is.
        progress: called while it goes.

    Raises:
        WeightFileError: where a file is damaged or unknown, or a pattern matches no name.
        OSError: where one cannot be read.
        ImportError: without what their kinds need.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_source(path))
        original = None if source is None else stack.enter_context(open_source(source))
        names = selected(path, file.names, only)
        total, done = sum(file.describe(name).nbytes for name in names), 0
        theirs = set() if original is None else set(original.names)
        if original is not None and names and not theirs.intersection(names):
            refuse(original.path, f"it has none of the {len(names)} tensors of the inspected file, by name")
        reports = []
        for name in names:
            reports.append(_inspect(file, original, name, theirs))
            done += reports[-1].bytes
            if progress is not None:
                progress(done, total)
        return FileReport(str(path), file.kind, file.texts, tuple(reports))


def _inspect(file: Source, original: Source | None, name: str, theirs: set[str]) -> TensorReport:
    told, other, note = file.describe(name), None, ""
    if original is not None:
        other = original.describe(name) if name in theirs else None
        if other is None:
            note = "not in the original"
        elif other.shape != told.shape:
            note, other = f"of shape {other.shape} in the original", None
    seen = _PlainCount() if told.fmt is None else _LNSCount(told.fmt, told)
    begin = 0
    if original is None or other is None:
        for block in file.blocks(name):
            seen.add(block, begin)
            begin += block.size
        return seen.report(name, told, None, note)
    comparison = Comparison(other, told)
    for block, before in side_by_side(file.blocks(name), original.blocks(name)):
        seen.add(block, begin)
        comparison.add(before, block, begin)
        begin += block.size
    return seen.report(name, told, comparison.loss, note)


class _LNSCount:
    """Codes, counted."""

    def __init__(self, fmt: LNSFormat, told: Description) -> None:
        self._scale = Scale(told.log_offset, told.shape)
        self._offsets = each_offset(told.log_offset).reshape(-1)
        self._range = _extremes(self._offsets)
        self._codes = CodeCount(fmt)
        self._logs = LogCount(fmt, *self._range) if self._scale.single is None else None

    def add(self, block: NDArray[Any], begin: int) -> None:
        self._codes.add(block)
        if self._logs is not None:
            self._logs.add(block, np.asarray(self._scale.of(begin, block.size)))

    def report(self, name: str, told: Description, loss: Loss | None, note: str) -> TensorReport:
        assert told.fmt is not None
        fmt, summary = told.fmt, self._codes.result()
        low, high = self._range
        if self._logs is not None:
            logs, histogram = self._logs.result()
        else:
            shift = low - fmt.bias
            logs = None if summary.magnitudes is None else tuple(m + shift for m in summary.magnitudes)  # type: ignore[assignment]
            histogram = Bins(summary.histogram.first + shift, summary.histogram.width, summary.histogram.counts)
        whole = fmt.value_at(low - fmt.max_log), fmt.value_at(high + fmt.max_log)
        return TensorReport(
            name, told.dtype, told.shape, told.size, told.nbytes,
            None if logs is None else (fmt.value_at(logs[0]), fmt.value_at(logs[1])),
            summary.zeros, summary.nans, 0, summary.negative,
            CodeReport(
                fmt, told.packed, (low, high), self._offsets.size, told.group_size, whole, summary, logs, histogram
            ),
            loss, note,
        )  # fmt: skip


def _extremes(offsets: NDArray[Any]) -> tuple[int, int]:
    return (int(offsets.min()), int(offsets.max())) if offsets.size else (0, 0)


class _PlainCount:
    """Plain numbers, counted."""

    def __init__(self) -> None:
        self._extremes = np.array([math.inf, 0.0])
        self._counts = np.zeros(4, np.int64)

    def add(self, block: NDArray[Any], begin: int) -> None:
        with np.errstate(invalid="ignore"):  # a signaling NaN
            wide = block if block.dtype in (np.float32, np.float64) else block.astype(np.float64)
        _count_plain(wide, self._extremes, self._counts)

    def report(self, name: str, told: Description, loss: Loss | None, note: str) -> TensorReport:
        least, greatest = self._extremes.tolist()
        zeros, nans, infinities, negative = self._counts.tolist()
        used = (least, greatest) if greatest else None
        shape = told.shape
        return TensorReport(
            name, told.dtype, shape, told.size, told.nbytes, used, zeros, nans, infinities, negative, None, loss, note
        )


@kernel
def _count_plain(block, extremes, counts):  # type: ignore[no-untyped-def]
    least, greatest = extremes[0], extremes[1]
    zeros, nans, infinities, negative = 0, 0, 0, 0
    for x in block:
        size = np.float64(abs(x))
        negative += x < 0.0
        nans += size != size
        infinities += size == np.inf
        zeros += size == 0.0
        least = size if 0.0 < size < least else least
        greatest = size if greatest < size < np.inf else greatest
    extremes[0], extremes[1] = least, greatest
    counts[0] += zeros
    counts[1] += nans
    counts[2] += infinities
    counts[3] += negative
