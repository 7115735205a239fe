"""Matrix products of codes whose every addition is rounded to an accumulator: those of the core, as torch's operations.

    C[i, j]  =  a[i, 0] b[0, j]  +  a[i, 1] b[1, j]  +  ...         by `lnsnum.operations.accumulate`

The terms' logarithms are taken from the accumulator's log_offset on, which an `Accumulator` fixes or which fits them.
What more is added to a sum, as a bias is, is placed in the accumulator as a term is, and comes last.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from lnsnum import arithmetic
from lnsnum.conversion import rescale
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.operations.accumulate import Matrix, Terms, accumulate, product, terms_of
from lnsnum.torch_bridge.datapath import dynamic_range, fixed_point, swift
from lnsnum.torch_bridge.datapath.fixed_point import FixedSums
from lnsnum.torch_bridge.datapath.matrices import Matrices, in_steps
from lnsnum.torch_bridge.datapath.settings import Accumulator, BitTrue, FixedPoint
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES


class Sums(NamedTuple):
    """The sums as codes of the accumulator."""

    codes: Codes
    fmt: LNSFormat
    log_offset: int

    def at(self, index: Any) -> Sums:
        """Those at an index."""
        return self._replace(codes=self.codes[index])

    def floats(self, dtype: torch.dtype) -> torch.Tensor:
        """What they stand for: a float32 tells the codes of an accumulator apart, so that nothing is lost."""
        return swift.tensor_of(swift.decode(self.codes, self.fmt, self.log_offset, FLOAT_NAMES[dtype]))


def matmul(a: Matrices, b: Matrices, accumulator: BitTrue, last: Matrices | None = None) -> Sums | FixedSums:
    """The product of stacks (..., M, K) and (..., K, N), which broadcast; `last`: what is added last, as by `add`."""
    found: Sums | FixedSums | None
    if isinstance(accumulator, FixedPoint):
        found = fixed_point.matmul(a, b, accumulator)
        return found if last is None else fixed_point.add(found, last)
    log_offset = range_of(a, b, accumulator)
    if accumulator.order != "blocked":
        # one term more of a sequence is what is added to its sum
        row = last is not None and accumulator.order == "sequential" and last.codes.shape == b.codes.shape[1:]
        row = row and a.codes.ndim == b.codes.ndim == 2 and not accumulator.is_dynamic
        found = _swiftly(a, b, accumulator, log_offset, last if row else None)
        if found is not None:
            return found if row or last is None else add(found, last, accumulator)
    found = _by_terms(a, b, accumulator, log_offset)
    return found if last is None else add(found, last, accumulator)


def _by_terms(a: Matrices, b: Matrices, accumulator: Accumulator, log_offset: int) -> Sums:
    """Any scales, any order."""
    to = accumulator.fmt
    (x, x_one), (y, y_one) = (terms_of(m.codes, m.fmt, m.log_offset, to) for m in (a, b))
    one = in_steps(a, to, x_one) + in_steps(b, to, y_one)
    if log_offset != one:
        x = x._replace(log=x.log + (one - log_offset))
    return Sums(_ordered(x, y, accumulator), to, log_offset)


def range_of(a: Matrices, b: Matrices, accumulator: Accumulator) -> int:
    """The log_offset of the sums of a product."""
    log_offset, to = accumulator.log_offset, accumulator.fmt
    if not isinstance(log_offset, str):
        return log_offset
    if accumulator.is_dynamic:
        found = dynamic_range.place(a, b, to)
        if found is not None:
            return found
    # the greatest product that the formats and scales allow, and log2 K octaves more, are just within
    top = sum(
        in_steps(x, to, x.fmt.max_log + (int(np.max(x.log_offset)) if np.size(x.log_offset) else 0)) for x in (a, b)
    )
    return top + math.ceil(math.log2(max(a.codes.shape[-1], 1)) * steps_in_two(to)[0]) - to.max_log


def _swiftly(a: Matrices, b: Matrices, accumulator: Accumulator, log_offset: int, last: Matrices | None) -> Sums | None:
    """The product of stacks of one scale each, and a row added last; None where it takes the general way."""
    to = accumulator.fmt
    if any(x is not None and not isinstance(x.log_offset, int) for x in (a, b, last)):
        return None
    offsets: Any = a.log_offset, b.log_offset
    one = in_steps(a, to, offsets[0]) + in_steps(b, to, offsets[1])
    row = None
    if last is not None:
        own: Any = last.log_offset
        row = Matrix(last.codes.reshape(1, -1), last.fmt, in_steps(last, to, own) - log_offset)
    order: Any = accumulator.order

    def at(index: tuple[int, ...]) -> Codes | None:
        x, y = a.at(index), b.at(index)
        left, right = Matrix(x.codes, x.fmt, one - log_offset), Matrix(y.codes, y.fmt, 0)
        return product(left, right, to, order, accumulator.gaussian_log, row)

    stack = np.broadcast_shapes(a.codes.shape[:-2], b.codes.shape[:-2])
    if not stack:
        codes = at(())
        return None if codes is None else Sums(codes, to, log_offset)
    out = np.empty((*stack, a.codes.shape[-2], b.codes.shape[-1]), to.dtype)
    for index in np.ndindex(stack):
        codes = at(index)
        if codes is None:
            return None
        out[index] = codes
    return Sums(out, to, log_offset)


def _ordered(x: Terms, y: Terms, accumulator: Accumulator) -> Codes:
    to, log = accumulator.fmt, accumulator.gaussian_log
    if accumulator.order != "blocked":
        return accumulate(x, y, to, accumulator.order, log, "saturate")
    inner, block = x.log.shape[-1], accumulator.block
    parts = [slice(begin, begin + block) for begin in range(0, inner, block)]
    if len(parts) < 2:
        return accumulate(x, y, to, "sequential", log, "saturate")
    totals: list[Codes] = [
        accumulate(x.at((..., k)), y.at((..., k, slice(None))), to, "sequential", log, "saturate") for k in parts
    ]
    columns = np.stack([codes.reshape(-1) for codes in totals])
    codes: Codes = _total(columns, to, "sequential", accumulator).reshape(totals[0].shape)
    return codes


def _total(columns: Codes, fmt: LNSFormat, order: Any, accumulator: Accumulator) -> Codes:
    """The sums of columns of codes of the accumulator, whatever its scale is."""
    row, no = (1, len(columns)), np.zeros((1, len(columns)), np.bool_)
    terms, _ = terms_of(columns, fmt, 0, fmt)
    ones = Terms(np.zeros(row, np.int64), no, no, no)
    total: Codes = accumulate(ones, terms, fmt, order, accumulator.gaussian_log, "saturate")[0]
    return total


def add(sums: Sums | FixedSums, x: Matrices, accumulator: BitTrue) -> Sums | FixedSums:
    """The sums and one number more for each, which broadcasts to them, placed in the accumulator; a dynamic range moves
    to where the results are."""
    if isinstance(sums, FixedSums) or isinstance(accumulator, FixedPoint):
        return fixed_point.add(sums, x)  # type: ignore[arg-type]
    log_offset: Any = "fit" if accumulator.is_dynamic else sums.log_offset
    placed, own = rescale(x.codes, x.fmt, log_offset=x.log_offset, out_format=sums.fmt, out_log_offset=log_offset)
    offsets: Any = {"a_log_offset": sums.log_offset, "b_log_offset": own, "out_log_offset": log_offset}
    codes, own = arithmetic.add(sums.codes, placed, sums.fmt, gaussian=accumulator.gaussian_log, **offsets)
    return Sums(codes, sums.fmt, own)


def multiply(sums: Sums | FixedSums, factor: float) -> Sums | FixedSums:
    """The sums times a constant, which is rounded to the accumulator's grid: their scale and their signs change."""
    if factor == 1.0:
        return sums
    if factor == 0.0:
        return sums._replace(codes=np.zeros_like(sums.codes))
    if isinstance(sums, FixedSums):
        return sums._replace(unit=sums.unit * factor)
    steps = round(math.log2(abs(factor)) * steps_in_two(sums.fmt)[0])
    codes = sums.codes
    if factor < 0.0:
        codes = np.where(codes & sums.fmt.dtype.type(sums.fmt.max_magnitude), codes ^ sums.fmt.sign_bit, codes)
    return Sums(codes.astype(sums.fmt.dtype), sums.fmt, sums.log_offset + steps)


def sum_rows(x: Matrices, accumulator: BitTrue) -> Sums | FixedSums:
    """The sums over the rows of a matrix (K, N): (N,). As the product of ones with it."""
    # 1 as the greatest number of its scale, so that the range that fits is that of the sum
    one = np.full((1, x.codes.shape[-2]), x.fmt.max_magnitude, x.fmt.dtype)
    sums = matmul(Matrices(one, x.fmt, -x.fmt.max_log), x, accumulator)
    return sums.at(0)
