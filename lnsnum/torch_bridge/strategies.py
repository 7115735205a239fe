"""For tests of the bridge: Hypothesis strategies for weights, small models, gradients; and the laws of optimizers.

    block  =  Linear | Tanh, ReLU, GELU | LayerNorm | x + blocks(x) | two Linear of one weight
    model  =  [Embedding, mean over tokens | Conv2d, Flatten] blocks Linear

What they draw shrinks to one Linear of one weight, to ones, to log_offset 0. They need the extra `hypothesis`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from torch import nn

from lnsnum.format import LNSFormat
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.testing.code_strategies import bases, codes, formats, scales
from lnsnum.testing.ranks import Ints, Shape, Strategy, about_zero, checked_shape, ranks
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES, check_width
from lnsnum.torch_bridge.kernels.scale import LogOffset
from lnsnum.torch_bridge.optimizer_checking import check_optimizer_laws
from lnsnum.torch_bridge.weight import LNSWeight

__all__ = ["check_optimizer_laws", "gradients", "lns_weights", "models"]


def lns_weights(
    fmt: LNSFormat | str | Strategy[LNSFormat] | None = None,
    shape: Shape | Strategy[Shape] | None = None,
    *,
    log_offset: LogOffset | Strategy[Any] | None = None,
    dtype: torch.dtype = torch.float32,
    nan: bool = False,
    zero: bool = True,
    negative: bool = True,
) -> Strategy[LNSWeight]:
    """Weights of any format up to 16 bits.

    Args:
        fmt: the format, its name, or a strategy.
        shape: an integer, a tuple, or a strategy; one to three dimensions where it is left out.
        log_offset: an integer, an integer tensor that broadcasts to the shape, groups along the last dimension as
            `lnsnum.GroupOffsets`, or a strategy of these or of NumPy's arrays; where it is left out, scales of a
            tensor, of channels and, in rows of more than 16 elements, of groups, in twice the range of the format.
        dtype: the float type that they appear as.
        nan, zero, negative: whether to draw these.

    >>> from hypothesis import find, settings
    >>> w = find(lns_weights("lns8f3", 2), lambda w: bool(w[1] < 0), settings=settings(database=None))
    >>> w.codes, w.log_offset
    (tensor([ 64, 192], dtype=torch.uint8), 0)
    """
    if fmt is None:
        fmt = formats(max_bits=16, bases=st.one_of(st.just(2.0), bases()))
    elif not isinstance(fmt, Strategy):
        fmt = st.just(LNSFormat.of(fmt))
    if shape is None:
        shape = st_numpy.array_shapes(max_dims=3, max_side=6)
    elif not isinstance(shape, Strategy):
        shape = st.just(checked_shape(shape))

    @st.composite
    def weight(draw: st.DrawFn) -> LNSWeight:
        drawn = draw(fmt)
        check_width(drawn)
        array = draw(codes(drawn, shape=draw(shape), nan=nan, zero=zero, negative=negative))
        offset: Any = log_offset
        if offset is None:
            offset = scales(drawn, array.shape if array.size else None, limit=2 * drawn.max_log)
        offset = draw(offset) if isinstance(offset, Strategy) else offset
        size = offset.group_size if isinstance(offset, GroupOffsets) else None
        offset = offset.offsets.copy() if isinstance(offset, GroupOffsets) else offset
        offset = torch.from_numpy(offset) if isinstance(offset, np.ndarray) else offset
        # torch's uint16 can do little: the same bits as int16
        signed = array.view(np.int16) if array.dtype == np.uint16 else array
        return LNSWeight(torch.from_numpy(signed), drawn, offset, dtype, group_size=size)

    return weight()


# ----------------------------------------------------------------------------------------------------------- gradients

_EIGHTHS = 8
"""Numbers between two powers of two: every float type of torch's that trains has them."""


def _floats(drawn: Ints, exponents: int, specials: list[float], dtype: torch.dtype) -> torch.Tensor:
    """1, -1, 9/8, -9/8, ..., then other powers of two, the specials last."""
    numbers = 2 * _EIGHTHS * exponents
    steps = drawn >> 1
    sizes = (1 + steps % _EIGHTHS / _EIGHTHS) * 2.0 ** about_zero(np.minimum(steps // _EIGHTHS, exponents - 1))
    values = np.where(drawn & 1, -sizes, sizes)
    for i, special in enumerate(specials):
        values[drawn == numbers + i] = special
    return torch.from_numpy(values).to(dtype)


def gradients(
    shape: Shape | Strategy[Shape] | torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    finite: bool = False,
    sparse: bool = False,
) -> Strategy[torch.Tensor]:
    """Gradients of every size that the float type has: with zeros, whole rows of zeros, infinities and NaN.

    Args:
        shape: an integer, a tuple, a strategy, or the parameter, whose shape and dtype they take.
        dtype: float32 where it is left out, and no parameter is given.
        finite: leave infinities and NaN out.
        sparse: sparse tensors of whole rows, as an embedding's are: in any order, and some more than once.

    >>> from hypothesis import find, settings
    >>> find(gradients((2, 2)), lambda g: True, settings=settings(database=None))
    tensor([[1., 1.],
            [1., 1.]])
    """
    if isinstance(shape, torch.Tensor):
        dtype, shape = dtype or shape.dtype, tuple(shape.shape)
    dtype = dtype or torch.float32
    if dtype not in FLOAT_NAMES:
        raise TypeError(f"dtype={dtype} is no float type that a gradient can have")
    if not isinstance(shape, Strategy):
        shape = st.just(checked_shape(shape))
    specials = [0.0] if finite else [math.nan, math.inf, -math.inf, 0.0]
    # as many powers above one as there are below
    exponents = 2 * math.frexp(torch.finfo(dtype).max)[1] - 3
    counts = 2 * _EIGHTHS * exponents, len(specials)

    def of_shape(sides: Shape) -> Strategy[torch.Tensor]:
        sides = checked_shape(sides)
        if sparse:
            if not sides:
                raise ValueError(f"shape={sides}: a sparse gradient has rows, give one dimension or more")
            return st.integers(0, 2 * sides[0]).flatmap(lambda rows: _sparse(sides, rows))
        dense = ranks(math.prod(sides), *counts).map(lambda drawn: read(drawn, sides))
        if len(sides) < 2 or not sides[0]:
            return dense
        kept = ranks(sides[0], 2).map(lambda rows: torch.from_numpy(rows == 0))
        # where, as 0 times an infinity is none
        return st.one_of(dense, st.builds(lambda g, rows: torch.where(_over(rows, g), g, 0.0), dense, kept))

    def read(drawn: Ints, sides: tuple[int, ...]) -> torch.Tensor:
        return _floats(drawn, exponents, specials, dtype).reshape(sides)

    def _over(rows: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return rows.reshape((-1,) + (1,) * (g.ndim - 1))

    def _sparse(sides: tuple[int, ...], rows: int) -> Strategy[torch.Tensor]:
        values = ranks(rows * math.prod(sides[1:]), *counts).map(lambda drawn: read(drawn, (rows, *sides[1:])))
        at = ranks(rows, sides[0]).map(lambda drawn: torch.from_numpy(drawn)[None])
        return st.builds(
            lambda places, numbers: torch.sparse_coo_tensor(places, numbers, sides, check_invariants=True), at, values
        )

    return shape.flatmap(of_shape)


# -------------------------------------------------------------------------------------------------------------- models


class _Residual(nn.Module):
    """x + blocks(x)."""

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.blocks(x)
        return out


class _MeanOfTokens(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1)


def _tied(width: int) -> nn.Module:
    first, second = nn.Linear(width, width), nn.Linear(width, width)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second)


Head = tuple[list[nn.Module], int, torch.Tensor]
"""Its layers, the width of what comes out, and an input."""


def models(
    *, max_width: int = 4, max_blocks: int = 3, max_batch: int = 4
) -> Strategy[tuple[nn.Sequential, torch.Tensor]]:
    """Small models, each with an input of its own: `model(x)` is of shape (batch, width).

    The default initialization, from a seed that is drawn; torch's own random state is left as it was.

    Args:
        max_width: of layers.
        max_blocks: how many blocks stand between head and the last Linear, and within a residual one.
        max_batch: rows of the input.

    >>> from hypothesis import find, settings
    >>> model, x = find(models(), lambda drawn: True, settings=settings(database=None))
    >>> model, x
    (Sequential(
      (0): Linear(in_features=1, out_features=1, bias=False)
    ), tensor([[1.]]))
    """
    for what, given in (("max_width", max_width), ("max_blocks", max_blocks), ("max_batch", max_batch)):
        least = int(what != "max_blocks")
        if isinstance(given, bool) or not isinstance(given, int) or given < least:
            raise ValueError(f"{what}={given!r} is out of range: an integer, at least {least}")
    widths = st.integers(1, max_width)

    def features(draw: st.DrawFn, *sides: int) -> torch.Tensor:
        return draw(gradients((draw(st.integers(1, max_batch)), *sides), finite=True)).clamp(-4.0, 4.0)

    def vectors(draw: st.DrawFn) -> Head:
        width = draw(widths)
        return [], width, features(draw, width)

    def tokens(draw: st.DrawFn) -> Head:
        width, vocabulary, length = draw(widths), draw(st.integers(1, 8)), draw(st.integers(1, 4))
        batch = draw(st.integers(1, max_batch))
        x = draw(ranks(batch * length, vocabulary)).reshape(batch, length)
        return [nn.Embedding(vocabulary, width), _MeanOfTokens()], width, torch.from_numpy(x)

    def images(draw: st.DrawFn) -> Head:
        channels, out, side = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
        layers = [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.Flatten()]
        return layers, out * side * side, features(draw, channels, side, side)

    def block(draw: st.DrawFn, width: int, nested: bool) -> tuple[nn.Module, int]:
        """A block, and the width of what comes out; within a residual one, the same as goes in."""
        kinds = ["linear", "activation", "norm", "tied"] + ["residual"] * (not nested)
        kind = draw(st.sampled_from(kinds))
        if kind == "linear":
            out = width if nested else draw(widths)
            return nn.Linear(width, out, bias=draw(st.booleans())), out
        if kind == "activation":
            return draw(st.sampled_from([nn.Tanh, nn.ReLU, nn.GELU]))(), width
        if kind == "residual":
            return _Residual(nn.Sequential(*blocks(draw, width, True)[0])), width
        return (nn.LayerNorm(width) if kind == "norm" else _tied(width)), width

    def blocks(draw: st.DrawFn, width: int, nested: bool) -> tuple[list[nn.Module], int]:
        drawn = []
        for _ in range(draw(st.integers(0, max_blocks))):
            layer, width = block(draw, width, nested)
            drawn.append(layer)
        return drawn, width

    heads: list[Callable[[st.DrawFn], Head]] = [vectors, tokens, images]

    @st.composite
    def model(draw: st.DrawFn) -> tuple[nn.Sequential, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw(st.integers(0, (1 << 32) - 1)))
            layers, width, x = draw(st.sampled_from(heads))(draw)
            between, width = blocks(draw, width, False)
            last = nn.Linear(width, draw(widths), bias=draw(st.booleans()))
        return nn.Sequential(*layers, *between, last), x

    return model()
