"""Operations on one array or two, by way of all their results where that is less work.

    out[i]  =  table[a_i]        out[i]  =  table[a_i 2^bits_b + b_i],      a table of all codes, or of all pairs

A table is made by the kernels that take any format, so it has their codes. It serves where each element's result
depends on its codes alone: not on random bits, nor on a scale of its own or one still to be fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.gaussian import GaussianLog
from lnsnum.kernels.codes import NO_RANDOM_BITS, Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.look_ups import gather
from lnsnum.kernels.scales import Scales
from lnsnum.kernels.threads import in_chunks
from lnsnum.operations import elementary, functions, sums
from lnsnum.operations.linear import KEEP, Rule, combine, combines, linear
from lnsnum.operations.operation import Operand, Result

_Compute = Callable[[Operand, Operand, GaussianLog | None, Result], tuple[Codes, int]]

_QUOTIENT = Rule(zero_a=0, zero_b=-1, odd=True, refuses_negative=False)


def in_steps_of(result: Result, operand: Operand) -> Fraction:
    """Code steps of the result in one of the operand."""
    return Fraction(2) ** (result.fmt.fraction_bits - operand.fmt.fraction_bits)


def _product(a: Operand, b: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    if combines(a, b, result):
        return combine(a, b, 1, result)
    return linear(a, b, in_steps_of(result, a), in_steps_of(result, b), KEEP, result)


def _quotient(a: Operand, b: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    if combines(a, b, result):
        return combine(a, b, -1, result)
    return linear(a, b, in_steps_of(result, a), -in_steps_of(result, b), _QUOTIENT, result)


def _difference(a: Operand, b: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    return sums.add(a, sums.negate(b), gaussian, result)


def _without_gaussian(compute: Callable[[Operand, Operand, Result], tuple[Codes, int]]) -> _Compute:
    return lambda a, b, gaussian, result: compute(a, b, result)


_COMPUTE: dict[str, _Compute] = {
    "multiply": _product,
    "divide": _quotient,
    "add": sums.add,
    "subtract": _difference,
    "float_power": _without_gaussian(functions.power),
    "hypot": _without_gaussian(elementary.hypot),
    "logaddexp": _without_gaussian(elementary.logaddexp),
}

_LINEAR = "multiply", "divide"
_PAIRS_FROM = 1 << 15
"""From this many elements on, narrow formats go by a table of all pairs of codes."""
_PARALLEL = 1 << 18


def binary(name: str, a: Operand, b: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    """The operation of this name on each pair."""
    simple = not result.rounding.startswith("stochastic") and a.scale.single and b.scale.single
    # a product in one format is one vector loop, sooner done than looked up
    if not simple or result.log_offset == "fit" or (name in _LINEAR and combines(a, b, result)):
        return _COMPUTE[name](a, b, gaussian, result)
    # 2^16 results at most: they stay in a cache, and are made sooner than so many elements are computed
    narrow = a.fmt.bits <= 8 and b.fmt.bits <= 8 and result.fmt.bits <= 8
    if not (narrow and a.codes.size >= _PAIRS_FROM):
        return _COMPUTE[name](a, b, gaussian, result)
    shape, random = (1 << (a.fmt.bits + b.fmt.bits),), None  # an array of random bits could not be hashed
    key = tuple(result._replace(shape=shape, random=random))  # type: ignore[arg-type]
    table = _table_of_pairs(name, a.fmt, b.fmt, int(a.scale.values[0]), int(b.scale.values[0]), gaussian, key)
    out = np.empty(a.codes.shape, result.fmt.dtype)
    in_chunks(
        lambda begin, end: _gather_pairs(
            a.codes[begin:end], b.codes[begin:end], np.uint32(b.fmt.bits), table, out[begin:end]
        ),
        out.size,
        _PARALLEL,
    )
    return out.reshape(result.shape), result.log_offset


@lru_cache(maxsize=64)
def _table_of_pairs(
    name: str, a: LNSFormat, b: LNSFormat, a_shift: int, b_shift: int, gaussian: GaussianLog | None, key: Any
) -> Codes:
    """The results of all pairs of codes, by the kernels that take any format; a's code is the high part of an index."""
    codes_a, codes_b = np.arange(1 << a.bits, dtype=a.dtype), np.arange(1 << b.bits, dtype=b.dtype)
    x = Operand(np.repeat(codes_a, codes_b.size), a, Scales.of(a_shift, ()))
    y = Operand(np.tile(codes_b, codes_a.size), b, Scales.of(b_shift, ()))
    return _COMPUTE[name](x, y, gaussian, Result(*key)._replace(random=NO_RANDOM_BITS))[0]


@kernel
def _gather_pairs(a, b, bits, table, out):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        # unsigned 32 bits: uint8 codes would lose their high bits in the shift
        out[i] = table[(np.uint32(a[i]) << bits) | np.uint32(b[i])]


def unary(compute: Callable[[Operand, Result], tuple[Codes, int]], a: Operand, result: Result) -> tuple[Codes, int]:
    """One operation on each element."""
    by_element = result.rounding.startswith("stochastic") or result.log_offset == "fit" or not a.scale.single
    # a table pays from four times as many elements as codes on
    if by_element or a.codes.size >> 2 < 1 << a.fmt.bits:
        return compute(a, result)
    codes = np.arange(1 << a.fmt.bits, dtype=a.fmt.dtype)
    table, offset = compute(a._replace(codes=codes), result._replace(shape=codes.shape))
    out = np.empty(a.codes.shape, result.fmt.dtype)
    gather(a.codes, table, out)
    return out.reshape(result.shape), offset


def scaled(factor: Fraction, rule: Rule, a: Operand, result: Result) -> tuple[Codes, int]:
    """The numbers with E = factor E_a, on the grid of the result."""
    return unary(
        lambda a, result: linear(a, None, factor * in_steps_of(result, a), Fraction(0), rule, result), a, result
    )


def square(a: Operand, result: Result) -> tuple[Codes, int]:
    """a * a."""
    return unary(lambda a, result: _product(a, a, None, result), a, result)
