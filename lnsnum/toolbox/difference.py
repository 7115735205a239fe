"""How two files of weights differ: as codes in steps where both sides have one format, as numbers elsewhere.

    steps  =  E' - E,      E  =  m - bias + log_offset

What counts are the numbers and how they are given: the layout of a file, its packing, shards and order do not. docs:
`lnsnum.toolbox.moves` says what a step is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath
from lnsnum.files.layout import Description
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import each_offset
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.toolbox.comparison import Comparison
from lnsnum.toolbox.loss import Loss
from lnsnum.toolbox.moves import MoveCount, Moves
from lnsnum.toolbox.reading import Progress, selected, side_by_side
from lnsnum.toolbox.sources import Source, open_source
from lnsnum.toolbox.values import Scale

__all__ = [
    "FileDifference",
    "PlainMoves",
    "TensorDifference",
    "diff_weights",
]


@dataclass(frozen=True)
class PlainMoves:
    """How plain elements of one type differ.

    Args:
        elements: how many were compared.
        differing: how many differ in their bits: 0 and -0 do, and so do two NaNs of different payloads.
        greatest_absolute: the greatest absolute difference; of integers it is exact, of floats a double.
        to_nan: how many became NaN. from_nan: how many left it.
    """

    elements: int
    differing: int
    greatest_absolute: float
    to_nan: int
    from_nan: int


@dataclass(frozen=True)
class TensorDifference:
    """How a tensor that is in both differs. Of `moves`, `plain` and `loss` one is there, none where the shapes differ.

    Args:
        name: its name.
        before, after: what it is in A and in B.
        same_scale: whether every element has the same log_offset; plain tensors have.
        moves: where both have one format.
        plain: where both are plain and of one type.
        loss: of any others, A's numbers taken for the original.
    """

    name: str
    before: Description
    after: Description
    same_scale: bool
    moves: Moves | None = None
    plain: PlainMoves | None = None
    loss: Loss | None = None

    @property
    def same_kind(self) -> bool:
        """Whether both are of one format, or plain and of one type."""
        return self.before.fmt == self.after.fmt and self.before.dtype == self.after.dtype

    @property
    def same(self) -> bool:
        """Whether shape, format or type, scale and all elements are the same."""
        if self.before.shape != self.after.shape or not self.same_kind or not self.same_scale:
            return False
        return not (self.moves.codes if self.moves is not None else self.plain is not None and self.plain.differing)


@dataclass(frozen=True)
class FileDifference:
    """How two files differ.

    Args:
        before, after: the paths of A and B.
        only_before, only_after: names of tensors that only A, only B has.
        tensors: those that both have, by name.
        texts: metadata entries that differ, by name: A's and B's text, None where there is none.
    """

    before: str
    after: str
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    tensors: tuple[TensorDifference, ...]
    texts: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return not (self.only_before or self.only_after or self.texts) and all(tensor.same for tensor in self.tensors)


def diff_weights(
    before: StrPath,
    after: StrPath,
    *,
    only: Sequence[str] = (),
    ignore_metadata: bool = False,
    progress: Progress | None = None,
) -> FileDifference:
    """Read two files side by side, a block at a time, and say how they differ.

    Args:
        before, after: A and B, of any kinds that `open_source` opens.
        only: patterns of the shell: tensors whose names match none of them, and the metadata, are not compared.
        ignore_metadata: compare all tensors, and not the metadata.
        progress: called while it goes.

    Raises:
        WeightFileError: where a file is damaged or unknown, or a pattern matches no name in either.
        OSError: where one cannot be read.
        ImportError: without what their kinds need.
    """
    with open_source(before) as a, open_source(after) as b:
        names = selected(before, {*a.names, *b.names}, only)
        in_a, in_b = set(a.names), set(b.names)
        both = [name for name in names if name in in_a and name in in_b]
        sizes = {name: a.describe(name).nbytes + b.describe(name).nbytes for name in both}
        tensors, done = [], 0
        for name in both:
            tensors.append(_diff(a, b, name))
            done += sizes[name]
            if progress is not None:
                progress(done, sum(sizes.values()))
        return FileDifference(
            str(before),
            str(after),
            tuple(name for name in names if name not in in_b),
            tuple(name for name in names if name not in in_a),
            tuple(tensors),
            {} if only or ignore_metadata else _diff_texts(a.texts, b.texts),
        )


def _diff_texts(a: dict[str, str], b: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    return {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}


def _diff(a: Source, b: Source, name: str) -> TensorDifference:
    before, after = a.describe(name), b.describe(name)
    same_scale = _same_scale(before, after)
    if before.shape != after.shape:
        return TensorDifference(name, before, after, same_scale)
    counter: _CodeDifference | _PlainDifference | Comparison
    if before.fmt is not None and before.fmt == after.fmt:
        counter = _CodeDifference(before.fmt, before, after, same_scale)
    elif before.fmt is None and after.fmt is None and before.dtype == after.dtype:
        counter = _PlainDifference()
    else:
        counter = Comparison(before, after)
    begin = 0
    for one, other in side_by_side(a.blocks(name), b.blocks(name)):
        counter.add(one, other, begin)
        begin += one.size
    if isinstance(counter, _CodeDifference):
        return TensorDifference(name, before, after, same_scale, moves=counter.count.result())
    if isinstance(counter, _PlainDifference):
        return TensorDifference(name, before, after, same_scale, plain=counter.result())
    return TensorDifference(name, before, after, same_scale, loss=counter.loss)


def _same_scale(a: Description, b: Description) -> bool:
    """Whether two scales are the same for every element: an array of one value is that value."""
    groups = [told.log_offset for told in (a, b) if isinstance(told.log_offset, GroupOffsets)]
    if len(groups) == 2 and groups[0] == groups[1]:
        return True
    if groups and a.shape == b.shape:  # groups of two sizes, or groups and channels: element by element, without all
        one, other = (Scale(told.log_offset, told.shape) for told in (a, b))
        pieces = ((begin, min(_STEP, a.size - begin)) for begin in range(0, a.size, _STEP))
        return all(np.equal(one.of(*piece), other.of(*piece)).all() for piece in pieces)
    if groups:
        return False
    first, second = (_shortest(each_offset(told.log_offset)) for told in (a, b))
    return first.shape == second.shape and bool((first == second).all())


_STEP = 1 << 18
"""Elements whose scales are written out at once."""


def _shortest(offsets: NDArray[Any]) -> NDArray[Any]:
    """Without the axes along which nothing changes; those in front are gone, the others have the size 1."""
    for axis in range(offsets.ndim):
        first = offsets.take([0], axis) if offsets.shape[axis] else offsets
        offsets = first if (first == offsets).all() else offsets
    while offsets.ndim and offsets.shape[0] == 1:
        offsets = offsets[0]
    return offsets


class _CodeDifference:
    """Codes of one format, compared in steps."""

    def __init__(self, fmt: LNSFormat, before: Description, after: Description, same_scale: bool) -> None:
        self._before, self._after = (Scale(told.log_offset, told.shape) for told in (before, after))
        self._shift: int | None = 0 if same_scale else None
        if self._before.single is not None and self._after.single is not None:
            self._shift = self._after.single - self._before.single
        self.count = MoveCount(fmt, self._shift)

    def add(self, before: NDArray[Any], after: NDArray[Any], begin: int) -> None:
        shifts: NDArray[np.int64] | None = None
        if self._shift is None:
            one, other = (np.asarray(scale.of(begin, before.size), np.int64) for scale in (self._before, self._after))
            shifts = (other - one).reshape(-1)
        self.count.add(before, after, shifts)


class _PlainDifference:
    """Elements of one plain type, compared by their bits."""

    def __init__(self) -> None:
        self._elements, self._differing, self._to_nan, self._from_nan = 0, 0, 0, 0
        self._greatest: float = 0

    def add(self, before: NDArray[Any], after: NDArray[Any], begin: int) -> None:
        self._elements += before.size
        bits = np.dtype(f"u{before.itemsize}")
        different = before.view(bits) != after.view(bits)
        if not different.any():
            return
        a, b = before[different], after[different]
        self._differing += a.size
        if a.dtype.kind in "iub":
            a, b = (x.view(np.uint8) if x.dtype.kind == "b" else x for x in (a, b))
            distance = np.maximum(a, b).view(bits) - np.minimum(a, b).view(bits)
            self._greatest = max(self._greatest, int(distance.max()))
            return
        with np.errstate(over="ignore", invalid="ignore"):
            x, y = a.astype(np.float64), b.astype(np.float64)
            self._to_nan += int((np.isnan(y) & ~np.isnan(x)).sum())
            self._from_nan += int((np.isnan(x) & ~np.isnan(y)).sum())
            self._greatest = max(self._greatest, float(np.fmax.reduce(np.abs(x - y), initial=0.0)))

    def result(self) -> PlainMoves:
        return PlainMoves(self._elements, self._differing, self._greatest, self._to_nan, self._from_nan)
