"""Which elements of a parameter share a scale: its rows, once its dimensions are put in an order."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from lnsnum.torch_bridge.kernels.scale import LogOffset, each_of


class Layout(NamedTuple):
    """Which elements of a parameter share a scale: those of a row, once its dimensions are put in an order."""

    order: tuple[int, ...]
    rows: int
    own: tuple[int, ...] | None
    """The shape of the log_offsets; None of one for all."""
    group_size: int | None = None
    rest: int = 0
    """Elements of the last group of each line, where these are fewer than the others have."""

    def matrices(self, w: torch.Tensor) -> list[torch.Tensor]:
        """A row for each scale: in one matrix, or in those of the whole groups and of the rests."""
        if not self.rest:
            return [w.permute(self.order).reshape(self.rows, w.numel() // self.rows if w.numel() else 0)]
        whole = w.shape[-1] - self.rest
        return [w[..., :whole].reshape(-1, self.group_size or 1), w[..., whole:].reshape(-1, self.rest)]

    def put_back(self, matrices: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
        """The inverse of `matrices`."""
        if self.rest:
            return torch.cat([each.reshape(*shape[:-1], -1) for each in matrices], -1)
        ordered = matrices[0].reshape([shape[d] for d in self.order])
        return ordered.permute([self.order.index(d) for d in range(len(shape))])

    def in_order(self, of_rows: list[int]) -> LogOffset:
        """The log_offsets of the rows of all matrices, as a weight has them."""
        if self.own is None:
            return of_rows[0]
        offsets = torch.tensor(of_rows, dtype=torch.int32)
        lines = math.prod(self.own[:-1])
        if self.rest:
            offsets = torch.cat([offsets[:-lines].reshape(lines, -1), offsets[-lines:, None]], 1)
        return offsets.reshape(self.own)

    def of_rows(self, offsets: torch.Tensor) -> list[int]:
        """The inverse of `in_order`."""
        if self.rest:
            offsets = torch.cat([offsets[..., :-1].reshape(-1), offsets[..., -1].reshape(-1)])
        return offsets.reshape(-1).tolist()


def layout_of(
    name: str, shape: torch.Size, per_channel: bool, channels: int | tuple[int, ...] | None, group_size: int | None
) -> Layout:
    """What the options of conversion ask of a parameter; ValueError where it has not the dimensions asked for."""
    order = tuple(range(len(shape)))
    whole = Layout(order, 1, None)
    if len(shape) < 2 or 0 in shape:
        return whole
    if group_size is not None and shape[-1] > group_size:
        own = (*shape[:-1], -(-shape[-1] // group_size))
        return Layout(order, math.prod(own), own, group_size, shape[-1] % group_size)
    if channels is None:
        channels = 0 if per_channel else None
    try:
        each = each_of(channels, None, shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"parameter {name!r}: {error}") from None
    if each is None or each.offsets is None:
        return whole
    if 1 < each.offsets.numel() == shape.numel():
        raise ValueError(
            f"parameter {name!r}: channels={channels!r} would give each element of shape {tuple(shape)} a scale: name "
            "the parameters that have more dimensions in a mapping, as {'*.experts.*': (0, 1)}"
        )
    kept = [d for d in order if each.offsets.shape[d] > 1 or shape[d] == 1]
    rest = [d for d in order if d not in kept]
    return Layout((*kept, *rest), each.offsets.numel(), tuple(each.offsets.shape))
