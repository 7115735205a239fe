"""An `IntegerTwin` as plain integers: what its datapath computes, for programs that run without floats.

    log  =  (m_w << w_finer) + (m_x << x_finer) + shift[i]            of a product, in the accumulator's steps
    rank =  the sum of the products and bias[i], as an integer in the order of the numbers
    y    =  sign(rank) * how many thresholds |rank| reaches

A logarithmic accumulator counts log from its smallest number on, one with a fixed point from the greatest product down.
The thresholds are found by bisection, each of the floats that the datapath makes of a sum, so that what it rounds twice
(a sum to float32, that to a code) they round once, and alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.torch_bridge.datapath import Accumulator, FixedPoint, Numbers, bit_true
from lnsnum.torch_bridge.datapath.bit_true import Sums
from lnsnum.torch_bridge.datapath.fixed_point import FixedSums
from lnsnum.torch_bridge.datapath.matrices import Matrices
from lnsnum.torch_bridge.datapath.quantized import of_weight, quantize
from lnsnum.torch_bridge.datapath.workshop import viewed
from lnsnum.torch_bridge.integer_twin import IntegerTwin
from lnsnum.torch_bridge.sequential import Activation, Network, NetworkError, Product, read_sequential

Integers = NDArray[np.int32]

NEVER = (1 << 31) - 1
"""The threshold of a code that no sum reaches."""

_INFINITY = 0x7F80_0000


@dataclass(frozen=True)
class IntegerProduct:
    """A layer with weights.

    Attributes:
        product: its codes, and its window.
        numbers: of what comes in, at a fixed scale.
        accumulator: of its sums.
        finer: by how many bits logarithms of weights and inputs are shifted to the grid of products.
        shifts: int32, (outputs,).
        bias: int32, (outputs,), in the accumulator; None where there is none.
        thresholds: int32, the least rank of each positive code that comes out; None where ranks do.
        scale: of an accumulator's ranks, its log_offset; of fixed-point ones, their unit.
    """

    product: Product
    numbers: Numbers
    accumulator: Accumulator | FixedPoint
    finer: tuple[int, int]
    shifts: Integers
    bias: Integers | None
    thresholds: Integers | None
    scale: int | float


@dataclass(frozen=True)
class IntegerNetwork:
    """Layers one after another, of which those without weights choose among codes.

    Attributes:
        network: its layers, in their order.
        products: those with weights, in theirs.
        thresholds: the least bits of a float of each positive code of the input.
        clips: by the place of an activation that clips, the codes of its bounds.
    """

    network: Network
    products: tuple[IntegerProduct, ...]
    thresholds: Integers
    clips: dict[int, tuple[int, int]]


def integer_layers(twin: IntegerTwin) -> IntegerNetwork:
    """The integers of a twin.

    Raises:
        NetworkError: where a sum may not fit 32 bits.
    """
    network = read_sequential(twin.model, twin.shape)
    every = [(product, twin.formats(product.name)) for product in network.products]
    numbers: list[Any] = [own.activations for _, own in every]
    products = tuple(
        _made(product, twin.model.get_submodule(product.name), own.activations, own.accumulate, after)
        for (product, own), after in zip(every, [*numbers[1:], None], strict=True)
    )
    clips, passed = {}, 0
    for place, layer in enumerate(network.layers):
        passed += isinstance(layer, Product)
        if isinstance(layer, Activation) and layer.clip is not None:
            low, high = quantize(torch.tensor(layer.clip), numbers[passed]).codes.tolist()
            clips[place] = low, high
    first = thresholds(lambda bits: torch.from_numpy(bits.astype(np.int32).view(np.float32)), numbers[0], _INFINITY)
    return IntegerNetwork(network, products, first, clips)


def thresholds(values: Callable[[NDArray[np.int64]], torch.Tensor], numbers: Numbers, top: int) -> Integers:
    """For each positive code the least rank, of 1 to `top`, whose value becomes that code or a greater one."""
    wanted = np.arange(1, numbers.fmt.sign_bit)
    low, high = np.ones(wanted.size, np.int64), np.full(wanted.size, top + 1)
    while (low < high).any():
        middle = (low + high) // 2
        # where there is nothing left to halve, the middle may lie beyond the top
        codes = quantize(values(np.minimum(middle, top)), numbers).codes.numpy()
        reached = (codes >= wanted) | (middle > top)
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    return np.where(high > top, NEVER, high).astype(np.int32)


def _made(product: Product, module: Any, numbers: Any, accumulator: Any, after: Numbers | None) -> IntegerProduct:
    """Of a layer, as `lnsnum.torch_bridge.datapath.bit_true` multiplies it: products with zeros have its scale."""
    outputs = len(product.codes)
    weight = viewed(of_weight(module.weight, None), lambda t: t.reshape(outputs, -1))
    inner = weight.codes.shape[1]
    w = Matrices.of(weight, accumulator, "weights")
    nothing = Matrices(np.zeros((inner, 1), numbers.fmt.dtype), numbers.fmt, numbers.scale)
    sums = bit_true.matmul(w, nothing, accumulator)
    if module.bias is not None:
        bias = viewed(of_weight(module.bias, None), lambda t: t.reshape(outputs, 1))
        sums = bit_true.add(sums, Matrices.of(bias, accumulator, "weights"), accumulator)
    added = sums.codes[:, 0].astype(np.int64)
    below = product.log_offsets - product.log_offsets.max()
    if isinstance(sums, FixedSums):
        finest = max(product.fmt.fraction_bits, numbers.fmt.fraction_bits)
        finer = finest - product.fmt.fraction_bits, finest - numbers.fmt.fraction_bits
        shifts = ((below - product.fmt.max_magnitude) << finer[0]) - (numbers.fmt.max_magnitude << finer[1])
        _check_room(product.name, inner, int(np.abs(added).max()), accumulator)
        top, scale = NEVER - 1, sums.unit
    else:
        to = accumulator.fmt
        finer = to.fraction_bits - product.fmt.fraction_bits, to.fraction_bits - numbers.fmt.fraction_bits
        one = (int(product.log_offsets.max()) << finer[0]) + (numbers.scale << finer[1])
        shifts = ((below - product.fmt.bias) << finer[0]) - (numbers.fmt.bias << finer[1])
        shifts = shifts + one - sums.log_offset + to.bias
        top, scale = to.max_magnitude, sums.log_offset
    # so far down that no code leads back
    shifts = np.clip(shifts, -(1 << 29), 1 << 29).astype(np.int32)
    values = thresholds(lambda ranks: _floats(sums, ranks), after, top) if after is not None else None
    has_bias = added.astype(np.int32) if module.bias is not None else None
    return IntegerProduct(product, numbers, accumulator, finer, shifts, has_bias, values, scale)


def _floats(sums: Sums | FixedSums, ranks: NDArray[np.int64]) -> torch.Tensor:
    """What the datapath hands on of positive sums."""
    if isinstance(sums, FixedSums):
        return sums._replace(codes=ranks, nan=np.zeros(ranks.shape, np.bool_)).floats(torch.float32)
    return sums._replace(codes=ranks.astype(sums.fmt.dtype)).floats(torch.float32)


def _check_room(name: str, inner: int, bias: int, accumulator: FixedPoint) -> None:
    """A term is at most 2^bits, and a sum with its bias must stay within an int32."""
    bits = accumulator.bits
    if (inner << bits) + bias < NEVER:
        return
    # a bias is as large in terms of a product, whatever the unit is
    most = int(math.log2(NEVER / (inner + bias / (1 << bits))) - 2.0**-20)
    how = f"at most fixed:{most}" if most >= 8 else "take a logarithmic accumulator, such as lns12f6"
    raise NetworkError(
        f"layer {name} adds {inner} products and a bias in fixed:{bits}, which may need more than 32 bits: {how}"
    )
