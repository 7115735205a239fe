"""What the reductions share: their keywords, the axes as columns of a matrix, and a total brought to the result.

    codes of any shape  ->  (count, columns)  ->  a row of totals  ->  the shape without the axes, rounded once

The public functions are in `lnsnum.reduction`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal, NamedTuple, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.format import LNSFormat, check_choice
from lnsnum.gaussian import GaussianLog, check_gaussian
from lnsnum.kernels.codes import Codes, LogOffset, check_format
from lnsnum.kernels.decide import Quotient, Term, Value
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.operations import sums
from lnsnum.operations.accumulate import Order
from lnsnum.operations.linear import KEEP, linear
from lnsnum.operations.operation import Rounded, Wanted, check_names, check_out_log_offset, prepare
from lnsnum.operations.real_steps import RealStep, real_step

Accumulator = Literal["float64", "float32"] | LNSFormat | str
"""What a sum is kept in: a float type, or an LNS format or its name."""


class Accumulated(Rounded, total=False):
    """Those of a sum.

    accumulator: "float64" (the default), "float32", or a format of the operands' base with no fewer bits and fraction
        bits.
    order: "sequential" (the default) or "pairwise"; of bit-true sums only.
    gaussian: an approximate Gaussian logarithm for the additions; of bit-true sums only.
    """

    accumulator: Accumulator
    order: Order
    gaussian: GaussianLog | None


class AccumulatedProduct(Accumulated, total=False):
    """Those of a sum of products."""

    b_format: LNSFormat | None
    a_log_offset: LogOffset
    b_log_offset: LogOffset


class Along(TypedDict, total=False):
    """Those of a reduction over axes.

    axis: one axis, several, or None for all.
    keepdims: whether the reduced axes stay, of length 1.
    log_offset: the scale of the codes.
    """

    axis: int | tuple[int, ...] | None
    keepdims: bool
    log_offset: LogOffset


class AccumulatedAlong(Accumulated, Along, total=False):
    """Those of `sum` and `mean`."""


class RoundedAlong(Rounded, Along, total=False):
    """Those of `prod`."""


def check_order(order: object) -> None:
    """Raise ValueError where the order is not known."""
    check_choice("order", order, Order)


def accumulator_format(accumulator: object) -> LNSFormat:
    """The format that an accumulator is or names."""
    if isinstance(accumulator, LNSFormat):
        return accumulator
    try:
        return LNSFormat.parse(cast(str, accumulator))
    except (TypeError, ValueError):
        raise ValueError(
            f"accumulator={accumulator!r} is not known: 'float64', 'float32', or a format such as 'lns16f10'"
        ) from None


class Call(NamedTuple):
    """What the keywords of a reduction say."""

    accumulator: Literal["float64", "float32"] | LNSFormat
    order: Order
    gaussian: GaussianLog
    wanted: Wanted


def read_call(options: Any, accepted: Any, *formats: LNSFormat, scaled: bool) -> Call:
    """Check the keywords of a reduction of operands of these formats; `scaled`: one has a log_offset other than 0."""
    check_names(options, accepted, "reduction")
    order = options.get("order", "sequential")
    check_order(order)
    accumulator = options.get("accumulator", "float64")
    gaussian = options.get("gaussian")
    if accumulator in ("float64", "float32"):
        if gaussian is not None or order != "sequential":
            raise ValueError(f"order and gaussian are for LNS accumulators: {accumulator} adds as NumPy and BLAS do")
    else:
        accumulator = accumulator_format(accumulator)
        for fmt in formats:
            if fmt.base != accumulator.base:
                raise TypeError(f"the accumulator {accumulator.name} and {fmt.name} have different bases")
            if fmt.bits > accumulator.bits or fmt.fraction_bits > accumulator.fraction_bits:
                raise ValueError(
                    f"the accumulator {accumulator.name} is narrower than its terms, of {fmt.name}: take one with at "
                    f"least {fmt.bits} bits and {fmt.fraction_bits} fraction bits"
                )
        if gaussian is not None:
            check_gaussian(gaussian)
    wanted = Wanted(**{name: options[name] for name in Wanted._fields if name in options})
    if wanted.out_log_offset is None:
        wanted = wanted._replace(out_log_offset="fit" if scaled else 0)
    wanted = wanted._replace(out_log_offset=check_out_log_offset(wanted.out_log_offset))
    return Call(accumulator, order, sums.EXACT if gaussian is None else gaussian, wanted)


def checked(codes: ArrayLike, fmt: LNSFormat, log_offset: LogOffset, base: LNSFormat | None = None) -> Codes:
    """The codes in their shape, everything about them looked at."""
    check_format(fmt)
    if base is not None:
        check_format(base, "out_format")
    pairs: list[tuple[ArrayLike, LNSFormat, LogOffset]] = [(codes, fmt, log_offset)]
    if base is not None:
        pairs.append((np.zeros((), base.dtype), base, 0))
    (x, *_), result = prepare(pairs, Wanted(out_format=fmt))
    return x.codes.reshape(result.shape)


def axes_of(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """The axes as numbers from 0 on."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    for one in axes:
        if not hasattr(one, "__index__"):
            raise TypeError(f"axis={axis!r} is no axis: give an integer, or a tuple of them")
    return tuple(np.lib.array_utils.normalize_axis_index(one, ndim) for one in axes)


def to_columns(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """The reduced axes as the rows of a matrix, in C order, the others as its columns."""
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis={axes} names an axis twice")
    kept = [axis for axis in range(array.ndim) if axis not in axes]
    count = math.prod(array.shape[axis] for axis in axes)
    columns = math.prod(array.shape[axis] for axis in kept)
    return np.transpose(array, (*axes, *kept)).reshape(count, columns)


def shape_without(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """The shape of the result."""
    if keepdims:
        return tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    return tuple(length for axis, length in enumerate(shape) if axis not in axes)


class Total(NamedTuple):
    """The result of a bit-true sum: codes of the accumulator, whose 1 lies at these offsets of these formats."""

    codes: Codes
    fmt: LNSFormat
    ones: tuple[tuple[LNSFormat, int], ...]


def finish(total: Total, default: LNSFormat, wanted: Wanted, divisor: int = 1) -> tuple[Codes, int]:
    """The total, or its quotient by an integer, rounded once to the result."""
    fmt, result_format = total.fmt, wanted.out_format or default
    (x,), result = prepare([(total.codes, fmt, 0)], wanted._replace(out_format=result_format))
    # the accumulator is no coarser than its terms, so that their offsets are whole steps of it
    one = [reference << (fmt.fraction_bits - f.fraction_bits) for f, reference in total.ones]
    for steps in one:
        x = x._replace(scale=x.scale.plus(steps))
    factor = Fraction(2) ** (result_format.fraction_bits - fmt.fraction_bits)
    if divisor == 1:
        return linear(x, None, factor, Fraction(0), KEEP, result)
    away = math.log2(divisor) * steps_in_two(result_format)[0]

    def case(i: int) -> tuple[Value, bool, int, float]:
        value = Quotient((Term(1, 0, Fraction(x.log(i), 1 << fmt.fraction_bits)),), divisor)
        return value, x.negative(i), int(result.random[i % result.random.size]), float(x.log(i) * factor) - away

    # log2 of an integer is known to within one part in 2^50, whoever's mathematical library computes it
    return real_step(x, RealStep(float(factor), away, 2.0**-49), case, result)
