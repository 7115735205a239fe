"""Products of a few rows with a matrix of codes in Triton: `lnsnum.operations.weight_only`, in its order of sums.

    by rows      W (N, K):  128 lanes, lane l adds the products of k = l, l + 128, ...; then halves are added
    by columns   W (K, N):  64 products in turn for each block, then the sums of the blocks in turn

The order is part of the result there, so it is kept here, and the bits are those of the CPU. Codes are read once for
all rows of x; they become floats in registers, and nothing of the size of W is written.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.operations.code_products import BLOCK, LANES
from lnsnum.operations.weight_only import as_float32 as as_float32_patterns
from lnsnum.torch_bridge.kernels.codes_triton import are_normal, constants, float_octave, floats_of
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES, tensors_of
from lnsnum.torch_bridge.kernels.scale import Scale, blocks_within
from lnsnum.torch_bridge.kernels.triton_launch import NARROW, as_float32, block_of, launch, readable

MOST_VECTORS = 16
"""So many rows of x at most: each has its own sums in registers."""

_LANES, _IN_TURN = tl.constexpr(LANES), tl.constexpr(BLOCK)

_ROWS, _COLUMNS = 4, 256
"""Rows of W, or columns, that a program takes on a card."""


@triton.jit
def _numbers(
    codes, i, mask, octave, offsets, offset, inner, channels, TOP: tl.constexpr, FRACTION_BITS: tl.constexpr,
    SIGN: tl.constexpr, NAN: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The elements i (int64) of W as float32."""
    code = tl.load(codes + i, mask=mask, other=0).to(tl.int32) & (2 * TOP + 1)
    if CHANNELS:
        channel = i // inner % channels if WIDE else i.to(tl.int32) // inner % channels
        offset = tl.load(offsets + channel, mask=mask, other=0)
    return floats_of(code, offset, octave, TOP, FRACTION_BITS, 23, SIGN, NAN).to(tl.float32, bitcast=True)


@triton.jit
def _halved(sums, SIZE: tl.constexpr):
    """Lanes l and l + SIZE / 2 of the last dimension added."""
    parts = tl.reshape(sums, [sums.shape[0], sums.shape[1], 2, SIZE // 2])
    low, high = tl.split(tl.permute(parts, [0, 1, 3, 2]))
    return low + high


@triton.jit(do_not_specialize=["offset"])
def rows_kernel(
    codes, x, out, octave, offsets, offset, vectors, outer, length, inner, channels,
    BITS: tl.constexpr, TOP: tl.constexpr, FRACTION_BITS: tl.constexpr, SIGN: tl.constexpr, NAN: tl.constexpr,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, VECTORS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Some rows of W (outer, length) with all of x (vectors, length)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    v, lane = tl.arange(0, VECTORS), tl.arange(0, _LANES)
    sums = tl.zeros([VECTORS, ROWS, _LANES], tl.float32)
    # as wide as W's, so that each thread reads the numbers that its codes are multiplied with
    rows_of_x = tl.broadcast_to(v[:, None, None] * length, [VECTORS, ROWS, _LANES])
    has_x = tl.broadcast_to(v[:, None, None] < vectors, [VECTORS, ROWS, _LANES])
    for step in range((length + (_LANES - 1)) // _LANES):
        k = step * _LANES + lane
        mask = (row[:, None] < outer) & (k[None, :] < length)
        place = row[:, None].to(tl.int64) * length + k[None, :]
        w = _numbers(
            codes, place, mask, octave, offsets, offset, inner, channels, TOP, FRACTION_BITS, SIGN, NAN, CHANNELS, WIDE
        )
        mask = has_x & (k[None, None, :] < length)
        numbers = as_float32(tl.load(x + rows_of_x + k[None, None, :], mask=mask, other=0), BITS)
        # what lies beyond the row adds +0, which changes no sum, as none is -0
        sums += numbers * w[None, :, :]
    halves = _halved(_halved(_halved(_halved(sums, 128), 64), 32), 16)
    halves = _halved(_halved(_halved(halves, 8), 4), 2)
    mask = (v[:, None] < vectors) & (row[None, :] < outer)
    tl.store(out + v[:, None] * outer + row[None, :], tl.reshape(halves, [VECTORS, ROWS]), mask=mask)


@triton.jit(do_not_specialize=["offset"])
def columns_kernel(
    codes, x, out, octave, offsets, offset, vectors, outer, length, inner, channels,
    BITS: tl.constexpr, TOP: tl.constexpr, FRACTION_BITS: tl.constexpr, SIGN: tl.constexpr, NAN: tl.constexpr,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, VECTORS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The sum of a block of W (length, outer), of some columns: one of (blocks, vectors, outer)."""
    # of one dimension, as a grid has at most 65,535 programs in the others
    across = (outer + (COLUMNS - 1)) // COLUMNS
    column, block = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS), tl.program_id(0) // across
    v = tl.arange(0, VECTORS)
    sums = tl.zeros([VECTORS, COLUMNS], tl.float32)
    first = block * _IN_TURN
    mask, place = column < outer, column + first.to(tl.int64) * outer
    for k in range(first, tl.minimum(first + _IN_TURN, length)):
        w = _numbers(
            codes, place, mask, octave, offsets, offset, inner, channels, TOP, FRACTION_BITS, SIGN, NAN, CHANNELS, WIDE
        )
        numbers = as_float32(tl.load(x + v * length + k, mask=v < vectors, other=0), BITS)
        sums += numbers[:, None] * w[None, :]
        place += outer
    mask = (v[:, None] < vectors) & (column[None, :] < outer)
    place = (block * vectors + v[:, None]).to(tl.int64) * outer + column[None, :]
    tl.store(out + place, sums, mask=mask)


@triton.jit
def add_kernel(sums, out, size, blocks, COLUMNS: tl.constexpr):
    """The sums of all blocks (blocks, size), in turn."""
    i = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total, place = tl.zeros([COLUMNS], tl.float32), sums + i
    for _ in range(blocks):
        total += tl.load(place, mask=i < size, other=0.0)
        place += size
    tl.store(out + i, total, mask=i < size)


def multiply(
    x: torch.Tensor, codes: torch.Tensor, fmt: LNSFormat, scale: Scale, appearance: torch.dtype, *, transposed: bool
) -> torch.Tensor | None:
    """x W^T of x (..., K) and codes (N, K), or of (K, N) where transposed x W, as float32 (..., N); all contiguous. W's
    numbers are rounded to `appearance`. None where not all of them are normal numbers of it, of a format of base 2, and
    where x or the product has 2^31 numbers.
    """
    if not are_normal(fmt, scale, appearance):
        return None
    outer, length = codes.shape[::-1] if transposed else codes.shape
    vectors = x.numel() // max(length, 1)
    # places in x and in the product are of 32 bits
    if length == 0 or vectors > MOST_VECTORS or vectors * max(length, outer) >= NARROW:
        return None
    out = torch.empty((*x.shape[:-1], outer), dtype=torch.float32, device=x.device)
    if out.numel() == 0:
        return out
    (octave,) = tensors_of(codes, _octave, fmt, FLOAT_NAMES[appearance])
    inner, runs = 1, octave
    if scale.offsets is not None:
        own = scale.of_channels
        assert own.offsets is not None
        inner, runs = blocks_within(own.offsets, scale.apart(codes).shape)
        runs = (runs - fmt.bias).contiguous()
    of_float32 = constants(torch.float32)
    arguments: Any = octave, runs, scale.low - fmt.bias, vectors, outer, length, inner, runs.numel()
    kind = {
        "BITS": x.dtype == torch.bfloat16, "TOP": fmt.max_magnitude, "FRACTION_BITS": fmt.fraction_bits,
        "SIGN": of_float32["SIGN"], "NAN": of_float32["NAN"], "CHANNELS": scale.offsets is not None,
        "WIDE": codes.numel() >= NARROW, "VECTORS": triton.next_power_of_2(vectors),
    }  # fmt: skip
    if not transposed:
        rows = min(block_of(outer, _ROWS), 64)
        launch(rows_kernel, (-(-outer // rows),), x.device, codes, readable(x), out, *arguments, ROWS=rows, **kind)
        return out
    columns, blocks = block_of(outer, _COLUMNS), -(-length // BLOCK)
    sums = torch.empty((blocks, vectors, outer), dtype=torch.float32, device=x.device)
    grid = (-(-outer // columns) * blocks,)
    launch(columns_kernel, grid, x.device, codes, readable(x), sums, *arguments, COLUMNS=columns, **kind)
    size, columns = out.numel(), block_of(out.numel(), _COLUMNS)
    launch(add_kernel, (-(-size // columns),), x.device, sums, out, size, blocks, COLUMNS=columns)
    return out


@lru_cache(maxsize=64)
def _octave(fmt: LNSFormat, name: str) -> tuple[NDArray[np.int32]]:
    """The octave of a type's floats as those of float32, exactly."""
    (bits,) = float_octave(fmt, name)
    patterns = bits.astype(np.uint32 if name == "float32" else np.uint16)
    return (as_float32_patterns(patterns, name).view(np.int32),)  # type: ignore[arg-type]
