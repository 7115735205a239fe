"""Operations on arrays of codes as operators do them: all but the codes checked and looked up beforehand.

    prepared(name, fmt, a_log_offset, b_log_offset)  ->  function of (a, b)  ->  codes, log_offset
    prepared_sum(fmt, log_offset)  ->  function of (codes, axes, keepdims)  ->  codes, log_offset

To nearest, with the edges of the default, at the default scale; of contiguous arrays that are not large, since beside a
thousand elements the checks of `lnsnum.operations.operation.prepare` are most of the time. What a kernel leaves open,
and all else, is None: the plain way does it. Both give the same codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum.decoding import decode_flat, decode_table
from lnsnum.encoding import SIDES
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat
from lnsnum.kernels.codes import NO_RANDOM_BITS, WIDEST_TABLE, Codes, least_offset
from lnsnum.kernels.rounding import Target, steps_in_two, target, whole_steps_in_two
from lnsnum.kernels.scalar_encoding import encode_each
from lnsnum.kernels.scales import Scales
from lnsnum.operations import float_sums, narrow_sums, sums, wide_sums
from lnsnum.operations.linear import combiner, greatest_log_of

LARGEST = 1 << 15
"""From there on several threads are at work, and tables of all pairs."""

Operation = Callable[[Codes, Codes], "tuple[Codes, int] | None"]


@lru_cache(maxsize=1024)
def prepared(name: str, fmt: LNSFormat, a_log_offset: int, b_log_offset: int) -> Operation | None:
    """The function for codes, flat, of these scales; None for an operation that has none."""
    if name in ("multiply", "divide"):
        return _linear(fmt, a_log_offset, b_log_offset, 1 if name == "multiply" else -1)
    if name == "add":
        return _sum(fmt, a_log_offset, b_log_offset)
    return _difference(fmt, a_log_offset, b_log_offset) if name == "subtract" else None


def _linear(fmt: LNSFormat, a_log_offset: int, b_log_offset: int, direction: int) -> Operation:
    scale = a_log_offset + direction * b_log_offset

    dtype = fmt.dtype

    def at(log_offset: int) -> Operation:
        kernel, rule = combiner(fmt, target(fmt, log_offset), scale, direction)

        def run(a: Codes, b: Codes) -> tuple[Codes, int]:
            out = np.empty(a.size, dtype)
            kernel(a, b, *rule, out)
            return out, log_offset

        return run

    def fitted(a: Codes, b: Codes) -> tuple[Codes, int] | None:
        greatest = greatest_log_of(a, b, fmt, direction)
        log_offset = 0 if greatest is None else least_offset(greatest + scale, fmt)
        return at(log_offset)(a, b) if log_offset <= MAX_LOG_OFFSET else None

    return fitted if a_log_offset or b_log_offset else at(0)


@lru_cache(maxsize=1024)
def _adder(fmt: LNSFormat, a_shift: int, c_shift: int, log_offset: int) -> Operation | None:
    """a + c at a scale; None where no loop serves."""
    to, dtype = target(fmt, log_offset), fmt.dtype
    x_shift, z_shift = (np.array([shift], np.int64) for shift in (a_shift, c_shift))
    narrow, wide = narrow_sums.tabulated(fmt, to), wide_sums.prepared(to)
    kernel: Callable[..., int]
    if narrow is not None and narrow.serves((a_shift, a_shift), (c_shift, c_shift)):
        kernel, arguments = narrow_sums.add_blocks, narrow.arguments
    elif wide is not None:
        kernel, arguments = wide.kernel, wide.arguments
    else:
        return None

    def run(a: Codes, c: Codes) -> tuple[Codes, int] | None:
        out, hard = np.empty(a.size, dtype), np.empty(a.size, np.int64)
        left = kernel(a, x_shift, c, z_shift, *arguments, NO_RANDOM_BITS, out, hard)
        # of a thousand sums one is likely to lie near half of the smallest
        if left and sums.add_where(a, x_shift, c, z_shift, fmt.max_magnitude, to, hard[:left], out):
            return None
        return out, log_offset

    return run


def _sum(fmt: LNSFormat, a_log_offset: int, c_log_offset: int) -> Operation | None:
    shifts = a_log_offset - fmt.bias, c_log_offset - fmt.bias
    if not a_log_offset and not c_log_offset:
        return _adder(fmt, *shifts, 0)
    # at `room` none can saturate: a sum is at most K above its greater operand
    room = least_offset(max(shifts) + fmt.max_magnitude + whole_steps_in_two(fmt) + 2, fmt)
    roomy = _adder(fmt, *shifts, room) if room <= MAX_LOG_OFFSET else None
    if roomy is None:
        return None
    magnitude = fmt.dtype.type(fmt.max_magnitude)

    def fitted(a: Codes, c: Codes) -> tuple[Codes, int] | None:
        found = roomy(a, c)
        greatest = int((found[0] & magnitude).max()) if found else 0
        if greatest < 2:  # what underflows there hides what is below
            return None
        adder = _adder(fmt, *shifts, least_offset(room - fmt.max_log + greatest - 1, fmt))
        return adder(a, c) if adder else None

    return fitted


def _difference(fmt: LNSFormat, a_log_offset: int, c_log_offset: int) -> Operation | None:
    add, of = _sum(fmt, a_log_offset, c_log_offset), fmt.dtype.type
    if add is None:
        return None
    masks = of(fmt.max_magnitude), of(fmt.sign_bit)

    def run(a: Codes, c: Codes) -> tuple[Codes, int] | None:
        negated = np.empty_like(c)
        sums.negate_codes(c, *masks, negated)
        return add(a, negated)

    return run


_FEW = 100
"""From so many results on vectors encode them sooner."""

Sum = Callable[[Codes, tuple[int, ...], bool], "tuple[Codes, int] | None"]


@lru_cache(maxsize=1024)
def prepared_sum(fmt: LNSFormat, log_offset: int) -> Sum | None:
    """Sums over axes in float64, of up to LARGEST codes of a scale; None where they need a look at each number."""
    x = float_sums.Numbers(np.empty(0, fmt.dtype), fmt, log_offset)
    if not float_sums.fits_in(x, LARGEST, "float64"):
        return None
    # a common scale is left out of the floats, as by `float_sums.total`
    away = float_sums.common_factors(x) << fmt.fraction_bits
    relative, dtype = log_offset - away, fmt.dtype
    table = decode_table(fmt, relative, "float64").view(np.float64) if fmt.bits <= WIDEST_TABLE else None
    scale = Scales.of(relative, ())
    magnitude, (steps, _) = dtype.type(fmt.max_magnitude), steps_in_two(fmt)
    here, sides = target(fmt, 0), SIDES["nearest"]

    def at(to: Target, floats: NDArray[np.float64]) -> Codes:
        out = np.empty(floats.size, dtype)
        encode_each(floats.reshape(-1).view(np.uint64), NO_RANDOM_BITS, fmt, to, sides, out)
        return out.reshape(floats.shape)

    def floats_of(codes: Codes) -> NDArray[Any]:
        if table is not None:
            return table.take(codes)
        patterns = np.empty(codes.size, np.uint64)
        decode_flat(codes.reshape(-1), fmt, scale, "float64", patterns)
        return patterns.view(np.float64).reshape(codes.shape)

    def run(codes: Codes, axes: tuple[int, ...], keepdims: bool) -> tuple[Codes, int] | None:
        floats = floats_of(codes)
        floats = np.asarray(cast(Any, np.add.reduce)(floats, axis=axes, keepdims=keepdims))
        if floats.size > _FEW:
            return None
        if not log_offset:
            return at(here, floats), 0
        greatest = float(np.abs(floats).max())
        if not 0.0 < greatest < math.inf:
            return None
        # at `room` the greatest does not saturate, and is near the top: its code tells its E
        room = math.ceil(steps * math.frexp(greatest)[1]) + 1 - fmt.max_log
        m = int((at(target(fmt, room), floats) & magnitude).max())
        offset = least_offset(m + room - fmt.bias + away, fmt)
        if m < 2 or offset > MAX_LOG_OFFSET:
            return None
        return at(target(fmt, offset - away), floats), offset

    return run
