"""Two tensors of one shape compared as numbers, whatever each is stored as."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from lnsnum.files.layout import Description
from lnsnum.toolbox.loss import Loss, loss_between
from lnsnum.toolbox.values import Scale, values_of

__all__ = ["Comparison"]

_PIECE = 1 << 15
"""Elements at a time: their doubles stay in the cache."""


class Comparison:
    """The loss between two tensors, block by block.

    Args:
        before: the original.
        after: what became of it, of the same shape.
    """

    def __init__(self, before: Description, after: Description) -> None:
        self.loss = Loss()
        self._before, self._before_scale = before, Scale(before.log_offset, before.shape)
        self._after, self._after_scale = after, Scale(after.log_offset, after.shape)

    def add(self, before: NDArray[Any], after: NDArray[Any], begin: int) -> None:
        """Compare a block of both, of one size, that begins at this element of the tensors."""
        for start in range(0, before.size, _PIECE):
            piece = slice(start, start + _PIECE)
            self.loss += loss_between(
                values_of(before[piece], self._before, self._before_scale, begin + start),
                values_of(after[piece], self._after, self._after_scale, begin + start),
            )
