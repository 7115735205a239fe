"""Files of tensors to LNS, to another LNS format, and to floats, and what each tensor lost.

    pass 1    the greatest magnitudes of what becomes codes    ->    scales, and so the header
    pass 2    block by block: read, convert, compare, write

A tensor is never in memory as a whole, and what is written takes the place of an older file at the end, at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.layout import Description
from lnsnum.files.packing import can_be_packed
from lnsnum.files.sharded import find_set, weight_map_of
from lnsnum.format import LNSFormat, Rounding, Underflow, check_choice
from lnsnum.kernels.codes import FLOAT_TYPES, each_offset
from lnsnum.kernels.groups import check_group_size
from lnsnum.kernels.rounding import check_key
from lnsnum.toolbox.file_kinds.npz_writer import save_npz
from lnsnum.toolbox.loss import Loss, loss_between
from lnsnum.toolbox.reading import natural
from lnsnum.toolbox.recoding import Greatest, Shared, Target, to_codes, to_floats
from lnsnum.toolbox.selection import Selection
from lnsnum.toolbox.sources import Source, open_source
from lnsnum.toolbox.values import Scale, decoded, values_of
from lnsnum.weight_file import save_tensors

__all__ = [
    "PROVENANCE",
    "ConversionReport",
    "TensorReport",
    "convert_file",
]

PROVENANCE = "lnsnum.convert"
"""The metadata entry that says what a file was made from, and how: a JSON object."""

Progress = Callable[[int, int], None]
"""Told, now and then, how many bytes of how many are done. Those of tensors that become codes are read twice."""

_STEP = 1 << 18
"""Elements that are converted and compared at once: what they take fits the processor's cache."""


_GIVE_ONE = "give a format or a type of floats to convert to, one of them"


@dataclass(frozen=True)
class TensorReport:
    """What became of a tensor.

    Args:
        name, shape: the tensor, by the name that it has now.
        before, after: what it was and is, a format's name or a NumPy type's.
        bytes_before, bytes_after: its data, in the files.
        bytes_packed: what it would have been, packed; bytes_after where it is, or has no bits to spare.
        log_offset: the least and the greatest scale of its channels; None where it is not LNS now.
        range: the smallest and the greatest magnitude that its codes can say, over all channels; None likewise.
        loss: what it lost, against float64; None where it was copied.
        zeroed: nonzero numbers that became zero.
        saturated: infinities that became the greatest number, or numbers that became infinite.
        nans: NaNs before; they stay.
    """

    name: str
    shape: tuple[int, ...]
    before: str
    after: str
    bytes_before: int
    bytes_after: int
    bytes_packed: int
    log_offset: tuple[int, int] | None = None
    range: tuple[float, float] | None = None
    loss: Loss | None = None
    zeroed: int = 0
    saturated: int = 0
    nans: int = 0


@dataclass(frozen=True)
class ConversionReport:
    """What was written, and what became of each tensor, in the order of their names, layer 2 before layer 10.

    Args:
        path: the file, or the index of a set.
        tensors: one entry for each.
        skipped: what the source holds beside tensors, but for what was to be dropped.
        dropped: what the selection left out, by the names in the source.
    """

    path: Path
    tensors: tuple[TensorReport, ...]
    skipped: tuple[str, ...]
    dropped: tuple[str, ...] = ()

    @property
    def loss(self) -> Loss:
        """That of all tensors that were converted, together."""
        return sum((tensor.loss for tensor in self.tensors if tensor.loss is not None), Loss())


def convert_file(
    source_path: StrPath,
    out_path: StrPath,
    *,
    fmt: LNSFormat | None = None,
    to: str | None = None,
    per_channel: bool = False,
    group_size: int | None = None,
    rounding: Rounding = "nearest",
    seed: int = 0,
    underflow: Underflow = "round",
    packed: bool = False,
    select: Selection = Selection(),  # noqa: B008  (frozen)
    max_shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Write the tensors of a file as codes of a format, or as floats.

    Args:
        source_path: what `open_source` takes. It may be the file that is written.
        out_path: a weight file, .safetensors; with `to`, where every tensor is plain, .npz as well.
        fmt: the format of the codes: floats are encoded, codes of another format converted, each number rounded once.
            Without it and `to` a weight file is written anew, in the newest layout: the same tensors, metadata and,
            where no tensor is left out or gets another name, optimizer. The scale is the least at which nothing finite
            saturates.
        to: instead of `fmt`, the type that LNS tensors are decoded into: "float32", "bfloat16", "float16" or "float64",
            each number rounded once, to nearest. Plain floating tensors that `select` takes are cast to it, by
            `Selection(everything=True)` all of them; others stay what they are. The arguments up to `select` belong to
            `fmt`.
        per_channel: one scale for each index of the first dimension of a tensor of two or more.
        group_size: one scale for each so many elements along the last dimension of such a tensor, 16 to 256, and for
            what is left.
        rounding, underflow: as of `encode`.
        seed: for the stochastic modes. The random bits of a tensor are `random_bits(shape, seed=seed, stream=...)`, the
            stream being the CRC-32 of its name in the source, in UTF-8: no other tensor matters to them.
        packed: leave out the unused bits of codes. (Those of 8, 16 and 32 bits have none.)
        select: which tensors are converted, which are left out, and names without a prefix. The others are copied.
        max_shard_bytes: as of `save_weights`.
        metadata: entries beside those of the source, and instead of those by the same name. An entry "lnsnum.convert"
            says what the file was made from, and how. (None of it in .npz.)
        progress: called with bytes done, and bytes in all.

    Raises:
        WeightFileError: where the source is of no known kind or damaged.
        TypeError, ValueError: for arguments that are none, a selection that chooses nothing, an output that cannot hold
            what it should, a scale beyond 2^30. Nothing is written then.
        OSError: where a file cannot be read or written.
    """
    ending = Path(out_path).suffix
    _check(fmt, to, rounding, seed, underflow, ending)
    if group_size is not None:
        group_size = check_group_size(group_size)
        if per_channel:
            raise ValueError("per_channel and group_size are both given: leave out one of them")
    if ending == ".npz" and (max_shard_bytes is not None or metadata):
        raise ValueError(".npz takes no shards and no metadata: .safetensors does")
    with open_source(source_path) as source:
        _check_no_shard(source, out_path)
        names = select.names(source.names, source.skipped)
        told = {name: source.describe(name) for name in names}
        work = _Work(source, told, progress)
        how: dict[str, Any] = {"source": Path(source_path).name}
        optimizer = None
        if fmt is None and to is None:
            if source.kind != "lnsnum":
                raise ValueError(f"{_GIVE_ONE} (only weight files are written anew without)")
            optimizer = source.optimizer if list(names) == list(names.values()) == source.names else None
            work.results = {
                name: replace(t, packed=t.packed or (packed and is_packable(t))) for name, t in told.items()
            }
            chosen = []
        else:
            chosen = select.of(told, to)
        if fmt is not None:
            how |= {"format": fmt.name, "per_channel": per_channel, "rounding": rounding}
            how |= {"group_size": group_size} if group_size is not None else {}
            how |= {"seed": seed} if rounding.startswith("stochastic") else {}
            how |= {"underflow": underflow, "packed": packed}
            for name in chosen:
                shared = Shared.of(told[name].shape, per_channel=per_channel, group_size=group_size)
                work.targets[name] = Target(fmt, shared, rounding, underflow, seed, crc32(name.encode()))
            work.fit(packed=packed)
        elif to is not None:
            how |= {"to": to}
            work.results |= {name: Description(told[name].shape, to or "") for name in chosen}
        old = {new: name for name, new in names.items()}
        results = {new: work.results[name] for new, name in old.items()}
        if ending == ".npz":
            path = save_npz(out_path, results, lambda new: work.blocks(old[new]))
        else:
            texts = {**source.texts, **(metadata or {})}
            if fmt is not None or to is not None:
                texts[PROVENANCE] = json.dumps(how | select.given)
            path = save_tensors(
                out_path, results, lambda new: work.blocks(old[new]), metadata=texts, max_shard_bytes=max_shard_bytes,
                optimizer=optimizer,
            )  # fmt: skip
        reports = tuple(replace(work.reports[old[new]], name=new) for new in sorted(old, key=natural))
        skipped = tuple(name for name in source.skipped if not select.drops([name]))
        skipped += ("the optimizer's state",) if source.optimizer is not None and optimizer is None else ()
        return ConversionReport(path, reports, skipped, select.drops([*source.names, *source.skipped]))


def _check(
    fmt: LNSFormat | None, to: str | None, rounding: Rounding, seed: int, underflow: Underflow, ending: str
) -> None:
    if fmt is not None and to is not None:
        raise ValueError(_GIVE_ONE)
    if to is not None and to not in FLOAT_TYPES:
        raise ValueError(f"to={to!r} is not known: one of {', '.join(FLOAT_TYPES)}")
    check_choice("rounding", rounding, Rounding)
    check_choice("underflow", underflow, Underflow)
    check_key(seed, 0, 0)
    if ending != ".safetensors" and not (ending == ".npz" and to is not None):
        kinds = ".safetensors" if to is None else ".safetensors or .npz"
        raise ValueError(f"what is written has the ending {kinds}, not {ending!r}")


def _check_no_shard(source: Source, out_path: StrPath) -> None:
    """Raise ValueError where a shard of the source would be overwritten: its set would be broken."""
    index, content = find_set(source.path) if source.kind in ("lnsnum", "safetensors") else (None, b"")
    if index is not None:
        shards = {os.path.realpath(index.with_name(shard)) for shard in weight_map_of(index, content).values()}
        if os.path.realpath(out_path) in shards:
            raise ValueError(f"{shown(out_path)} is a shard of {shown(index)}, which would lose it: take another name")


class _Work:
    """A conversion under way."""

    def __init__(self, source: Source, told: Mapping[str, Description], progress: Progress | None) -> None:
        self.source = source
        self.told = told
        self.targets: dict[str, Target] = {}
        self.results = dict(told)
        self.reports: dict[str, TensorReport] = {}
        self._progress = progress
        self._done = 0

    @cached_property
    def _total(self) -> int:
        """Bytes that are read, known when all targets are there."""
        return sum(tensor.nbytes for tensor in self.told.values()) + sum(self.told[n].nbytes for n in self.targets)

    def fit(self, *, packed: bool) -> None:
        """The first pass: the scales, and so what the results are."""
        for name, target in self.targets.items():
            told = self.told[name]
            greatest = Greatest(told, target.shared if told.size else Shared.of(told.shape))
            for begin, block in self._steps(name):
                greatest.add(block, begin)
            try:
                offsets = greatest.fit(target.fmt, target.rounding)
            except ValueError as error:
                raise ValueError(f"tensor {name!r}: {error}") from error
            log_offset = target.shared.log_offset(offsets)
            self.results[name] = Description.of_codes(told.shape, target.fmt, log_offset, packed=packed)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The second pass: the elements of the result; its report is there at the end."""
        told, result = self.told[name], self.results[name]
        packed = replace(result, packed=True).nbytes if is_packable(result) else result.nbytes
        report = TensorReport(name, told.shape, _kind(told), _kind(result), told.nbytes, result.nbytes, packed)
        if result.fmt is not None:
            offsets = each_offset(result.log_offset)
            ends = (int(offsets.min()), int(offsets.max())) if offsets.size else (0, 0)
            report = replace(report, log_offset=ends, range=_range(result.fmt, ends))
        if result is told or (name not in self.targets and result.fmt is not None):
            for _, block in self._steps(name):
                yield block
            self.reports[name] = report
            return
        before, after = Scale(told.log_offset, told.shape), Scale(result.log_offset, result.shape)
        report = replace(report, loss=Loss())
        for begin, block in self._steps(name):
            if name in self.targets:
                made: NDArray[Any] = to_codes(block, told, before, self.targets[name], after, begin)
            elif told.fmt is not None:
                made = decoded(block, told.fmt, before, begin, result.dtype)
            else:
                made = to_floats(block, result.dtype)
            yield made
            old, new = values_of(block, told, before, begin), values_of(made, result, after, begin)
            report = _with_loss(report, loss_between(old, new), old, new, _zeroed(block, made, told, result))
        self.reports[name] = report

    def _steps(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """The elements of the source, and the number of the first of each piece."""
        begin, told = 0, self.told[name]
        for block in self.source.blocks(name):
            for start in range(0, block.size, _STEP):
                piece = block[start : start + _STEP]
                yield begin + start, piece
            begin += block.size
            if self._progress is not None:
                self._progress(self._done + told.nbytes * begin // told.size, self._total)
        self._done += told.nbytes


def is_packable(told: Description) -> bool:
    """Whether a tensor's codes have bits to spare."""
    return told.fmt is not None and can_be_packed(told.fmt)


def _kind(told: Description) -> str:
    return told.dtype if told.fmt is None else told.fmt.name


def _range(fmt: LNSFormat, offsets: tuple[int, int]) -> tuple[float, float]:
    ends = offsets[0] - fmt.max_log, offsets[1] + fmt.max_log
    return fmt.value_at(ends[0]), fmt.value_at(ends[1])


def _zeroed(block: NDArray[Any], made: NDArray[Any], told: Description, result: Description) -> int | None:
    """How many codes of nonzero numbers became zero, told by the codes: float64 has no room for all that they say."""
    if told.fmt is None:
        return None
    nonzero = (block & block.dtype.type(told.fmt.max_magnitude)) != 0
    return int(np.count_nonzero(nonzero & (made == 0)))


def _with_loss(
    report: TensorReport, loss: Loss, old: NDArray[Any], new: NDArray[Any], zeroed: int | None
) -> TensorReport:
    """The report with what another piece lost."""
    nans = saturated = 0
    if loss.finite < loss.elements:
        nans = int(np.count_nonzero(np.isnan(old)))
        saturated = int(np.count_nonzero(np.isinf(old) != np.isinf(new)))
    assert report.loss is not None
    return replace(
        report,
        loss=report.loss + loss,
        zeroed=report.zeroed + (loss.zeroed if zeroed is None else zeroed),
        saturated=report.saturated + saturated,
        nans=report.nans + nans,
    )
