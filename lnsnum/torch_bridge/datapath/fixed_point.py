"""Sums in a wide fixed-point accumulator: the reference that approximate accumulators are compared with.

    term  =  +-round(2^(q + r / 2^F) 2^W),     2^(r / 2^F) from a table of W fraction bits,     2^q a shift

in units of 2^-W of the greatest product P that formats and scales allow. Integers add exactly, in any order. Powers
2^(r / 2^F) are irrational, so no accumulator is exact: a term is within one unit of the product, and a sum of n terms
within n 2^-W P of the exact sum. An int64 holds 2^(62 - W) terms.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import in_chunks
from lnsnum.torch_bridge.datapath import swift
from lnsnum.torch_bridge.datapath.matrices import Matrices
from lnsnum.torch_bridge.datapath.settings import FixedPoint

_EMPTY = -(1 << 40)
"""A logarithm far below all others: zero."""

_PARALLEL = 1 << 17


class FixedSums(NamedTuple):
    """Sums as integers of a unit; NaN where `nan` says so."""

    codes: NDArray[np.int64]
    nan: NDArray[np.bool_]
    unit: float

    def floats(self, dtype: torch.dtype) -> torch.Tensor:
        """What they stand for, by way of float64."""
        values = np.where(self.nan, np.nan, self.codes * self.unit)
        return swift.tensor_of(values).to(dtype)

    def at(self, index: Any) -> FixedSums:
        """Those at an index."""
        return self._replace(codes=self.codes[index], nan=self.nan[index])


@lru_cache(maxsize=64)
def power_table(fraction_bits: int, bits: int) -> NDArray[np.int64]:
    """round(2^(r / 2^F) 2^bits) for r from 0 to 2^F - 1, from the nearest double: right for up to 50 bits but where the
    53 bits of that say nearly half, and then by less than 2^-3.
    """
    powers = [exact.nearest_float64(2.0, r, fraction_bits) for r in range(1 << fraction_bits)]
    table: NDArray[np.int64] = np.rint(np.ldexp(np.array(powers), bits)).astype(np.int64)
    table.flags.writeable = False
    return table


@kernel
def _add_up(a, a_negative, b, b_negative, table, fraction_bits, out):  # type: ignore[no-untyped-def]
    """out[i, j] = the sum over k of the terms of logarithms a[i, k] + b[k, j] <= 0, in steps of 2^-F octaves."""
    mask = np.int64(table.size - 1)
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            for j in range(b.shape[1]):
                log = a[i, k] + b[k, j]
                shift = -(log >> fraction_bits)
                # a shift by 63 or more is not defined, and leaves nothing of any term
                if shift < 62:
                    term = table[log & mask]
                    if shift > 0:
                        # to nearest, half up
                        term = (term + (np.int64(1) << (shift - 1))) >> shift
                    out[i, j] += -term if a_negative[i, k] != b_negative[k, j] else term


def _logs(x: Matrices, fraction_bits: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], float]:
    """Logarithms from the greatest that the format and the scales allow, signs, NaN, and that greatest number."""
    m = x.codes.astype(np.int64) & x.fmt.max_magnitude
    top = int(np.max(x.log_offset)) if np.size(x.log_offset) else 0
    log = (m - x.fmt.max_magnitude + np.asarray(x.log_offset, np.int64) - top) << (fraction_bits - x.fmt.fraction_bits)
    negative = x.codes >= x.fmt.sign_bit
    octaves = (x.fmt.max_log + top) / (1 << x.fmt.fraction_bits)
    return np.where(m > 0, log, _EMPTY), negative & (m > 0), negative & (m == 0), octaves


def matmul(a: Matrices, b: Matrices, accumulator: FixedPoint) -> FixedSums:
    """The product of stacks (..., M, K) and (..., K, N), which broadcast."""
    inner = a.codes.shape[-1]
    if inner > 1 << (62 - accumulator.bits):
        most = f"at most 2^{62 - accumulator.bits}"
        raise ValueError(f"a sum of {inner} terms does not fit {accumulator.name}: {most}, take fewer bits")
    finest = max(x.fmt.fraction_bits for x in (a, b))
    (x, x_sign, x_nan, x_top), (y, y_sign, y_nan, y_top) = (_logs(one, finest) for one in (a, b))
    stack = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    out = np.zeros((*stack, x.shape[-2], y.shape[-1]), np.int64)
    table = power_table(finest, accumulator.bits)
    wide = [np.broadcast_to(one, (*stack, *one.shape[-2:])) for one in (x, x_sign, y, y_sign)]
    for at in np.ndindex(stack):
        left, left_sign, right, right_sign = (np.ascontiguousarray(one[at]) for one in wide)

        def run(begin: int, end: int, parts: Any = (left, left_sign, right, right_sign, out[at])) -> None:
            own, sign, columns, signs, sums = parts
            _add_up(own[begin:end], sign[begin:end], columns, signs, table, finest, sums[begin:end])

        in_chunks(run, len(left), max(_PARALLEL // max(right.size, 1), 1), alignment=1)
    nan = np.any(x_nan, axis=-1)[..., :, None] | np.any(y_nan, axis=-2)[..., None, :]
    return FixedSums(out, np.broadcast_to(nan, out.shape), 2.0 ** (x_top + y_top - accumulator.bits))


def add(sums: FixedSums, x: Matrices) -> FixedSums:
    """The sums and one number more for each, rounded to a unit; what does not fit saturates."""
    import lnsnum

    values = lnsnum.decode(x.codes, x.fmt, log_offset=x.log_offset) / sums.unit
    most = float(1 << 61)
    placed = np.rint(np.clip(np.nan_to_num(values, nan=0.0), -most, most)).astype(np.int64)
    codes = np.clip(sums.codes, -(1 << 61), 1 << 61) + placed
    return sums._replace(codes=codes, nan=np.broadcast_to(sums.nan | np.isnan(values), codes.shape))
