"""Decode and encode in Triton, for formats of base 2: one look-up in a table of one octave for each element.

    decode      bits(E)  =  octave[E mod 2^F]  +  (E // 2^F) at the exponent's field
    encode      E(x)     =  2^F e  +  (steps[b] + r) // 2^(22 - F),        |x| = 2^e (1 + t),  b, r the upper and
                                                                          lower bits of t

A float's exponent is the octave, so nothing else depends on it, as long as the number is a normal one. Of t the upper
F + 1 bits choose a bucket, so narrow that at most one threshold of rounding lies in it: `steps` has how many lie below
the bucket, and in its lower bits what is to be added to the rest r of t so that it carries at the threshold. The
thresholds are the core's, exact; so are the octave's floats. The stochastic modes compare the random bits with a
probability in float64, and count where its error leaves the answer open, as `codes_twin` does, which then decides.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from lnsnum import decoding, encoding
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.kernels import codes as core
from lnsnum.torch_bridge.kernels import codes_twin
from lnsnum.torch_bridge.kernels.codes_twin import CODE_DTYPES, FLOAT_NAMES, PATTERN_DTYPES, tensors_of
from lnsnum.torch_bridge.kernels.scale import Scale, blocks_within
from lnsnum.torch_bridge.kernels.triton_launch import NARROW, as_float32, block_of, launch, programs, readable

_INFINITY, _SIZE = tl.constexpr(0x7F800000), tl.constexpr(0x7FFFFFFF)
_BY_THRESHOLDS, _BY_LOG, _BY_VALUE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_FROM_HALF, _NEVER, _UP, _DOWN = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)

_BELOW = {"toward_zero": _NEVER, "up": _UP, "down": _DOWN}
"""Which numbers below the smallest magnitude become that; from its half on, where nothing else is said."""

_MANTISSA_BITS = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}


@triton.jit
def _place_of(i, inner, channels, WIDE: tl.constexpr):
    """Which channel an element (int64) has."""
    if WIDE:
        return i // inner % channels
    return i.to(tl.int32) // inner % channels


@triton.jit
def floats_of(
    code, offset, octave, TOP: tl.constexpr, FRACTION_BITS: tl.constexpr, MANTISSA: tl.constexpr, SIGN: tl.constexpr,
    NAN: tl.constexpr,
):  # fmt: skip
    """The bits (int32) of the floats of codes; `offset` is the log_offset less the bias."""
    m = code & TOP
    e = m + offset
    # the shift of a signed number rounds down, below 1 too
    bits = tl.load(octave + (e & ((1 << FRACTION_BITS) - 1))) + ((e >> FRACTION_BITS) << MANTISSA)
    bits = tl.where(code > TOP, bits | SIGN, bits)
    return tl.where(m > 0, bits, tl.where(code > TOP, NAN, 0))


@triton.jit(do_not_specialize=["offset"])
def decode_kernel(
    codes, out, octave, offsets, offset, n, inner, channels,
    TOP: tl.constexpr, FRACTION_BITS: tl.constexpr, MANTISSA: tl.constexpr, SIGN: tl.constexpr, NAN: tl.constexpr,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Decode a block of `n` codes in the order of memory; `offsets` are those of channels, less the bias."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    code = tl.load(codes + i, mask=mask, other=0).to(tl.int32) & (2 * TOP + 1)
    if CHANNELS:
        offset = tl.load(offsets + _place_of(i, inner, channels, WIDE), mask=mask, other=0)
    bits = floats_of(code, offset, octave, TOP, FRACTION_BITS, MANTISSA, SIGN, NAN)
    tl.store(out + i, bits.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _position(e, t, steps, FRACTION_BITS: tl.constexpr, FINE: tl.constexpr):
    """E of the numbers 2^e (1 + t), by one of the tables `steps`; FINE is 22 - F."""
    carried = tl.load(steps + (t >> FINE)) + (t & ((1 << FINE) - 1))
    return (e << FRACTION_BITS) + (carried >> FINE)


@triton.jit(do_not_specialize=["lowest", "smallest", "half"])
def encode_kernel(
    x, out, random, steps, steps_below, doubles, doubts, lowests, smallests, halves, lowest, smallest, half,
    n, inner, channels,
    BITS: tl.constexpr, TOP: tl.constexpr, FRACTION_BITS: tl.constexpr, FINE: tl.constexpr, HOW: tl.constexpr,
    DIRECTED: tl.constexpr, BELOW: tl.constexpr, BEYOND: tl.constexpr, SATURATES: tl.constexpr, CHANNELS: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Encode a block of `n` floats.

    Args: `steps` is the table of positive numbers, `steps_below` that of negative ones, where rounding is `DIRECTED`;
    `lowest` is E of m = 1, `smallest` and `half` the least patterns that are not below that magnitude and its half,
    and those in the plural are of channels; `doubles` has 2^-23 over each significand of an octave, and what
    `_doubles` says. `BEYOND` is m of what is too large, -1 for NaN.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    bits = as_float32(tl.load(x + i, mask=mask, other=0), BITS).to(tl.int32, bitcast=True)
    a, negative = bits & _SIZE, bits < 0
    if CHANNELS:
        channel = _place_of(i, inner, channels, WIDE)
        lowest = tl.load(lowests + channel, mask=mask, other=0)
        smallest = tl.load(smallests + channel, mask=mask, other=0)
        half = tl.load(halves + channel, mask=mask, other=0)
    # subnormal numbers by the integer that they are a multiple of, which is a normal number
    whole = a.to(tl.float32).to(tl.int32, bitcast=True)
    is_normal = a > 0x7FFFFF
    e = tl.where(is_normal, (a >> 23) - 127, (whole >> 23) - 276)
    t = tl.where(is_normal, a, whole) & 0x7FFFFF
    log = _position(e, t, steps, FRACTION_BITS, FINE)
    if DIRECTED:
        log = tl.where(negative, _position(e, t, steps_below, FRACTION_BITS, FINE), log)
    below = a >= half
    if BELOW == _NEVER:
        below = a > _INFINITY
    if BELOW == _UP:
        below = negative == 0
    if BELOW == _DOWN:
        below = negative
    if HOW != _BY_THRESHOLDS:
        share = tl.load(random + i, mask=mask, other=0).to(tl.uint32, bitcast=True).to(tl.float64)
        share = share * tl.load(doubles + (1 << FRACTION_BITS))
        per_step, error = tl.load(doubles + ((1 << FRACTION_BITS) + 1)), tl.load(doubles + ((1 << FRACTION_BITS) + 2))
        significand = (t | 0x800000).to(tl.float64)
        ratio = significand * tl.load(doubles + (log & ((1 << FRACTION_BITS) - 1)))
        open_below = a > _INFINITY
        if HOW == _BY_LOG:
            p = tl.log(ratio) * per_step
        else:
            p = (ratio - 1.0) * per_step
            # beyond 2^-200 no share is between 0 and it
            twos = e - (lowest >> FRACTION_BITS)
            twos = tl.where(twos > -200, tl.where(twos < 200, twos, 200), -200)
            power = ((twos + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)
            chance = significand * tl.load(doubles + (lowest & ((1 << FRACTION_BITS) - 1))) * power
            below = (share == 0.0) | (share < chance)
            near = tl.load(doubles + ((1 << FRACTION_BITS) + 3))
            open_below = (share > 0.0) & ((tl.abs(share - chance) > near) == 0)
        is_open = (tl.abs(share - p) > error) == 0
        log = log + (share < p).to(tl.int32)
        doubt = tl.where(a < smallest, open_below, is_open) & (a > 0) & (a < _INFINITY) & mask
        if SATURATES:
            doubt = doubt & (a >= smallest)
        count = tl.sum(doubt.to(tl.int32))
        tl.atomic_add(doubts, count, mask=count > 0)
    m = log - lowest + 1
    # in this order, as each line overrules those before it
    m = tl.where((m > TOP) | (a == _INFINITY), BEYOND, m)
    m = tl.where(a < smallest, 1 if SATURATES else below.to(tl.int32), m)
    m = tl.where(a > _INFINITY, -1, tl.where(a == 0, 0, m))
    # zero takes no sign, whose bit alone is NaN
    code = tl.where(m < 0, TOP + 1, tl.where(negative & (m > 0), m + (TOP + 1), m))
    tl.store(out + i, code.to(out.dtype.element_ty), mask=mask)


def decode(codes: torch.Tensor, fmt: LNSFormat, scale: Scale, dtype: torch.dtype) -> torch.Tensor | None:
    """The floats of codes that are dense, see `codes_twin.decode`; None where not all of them are normal numbers of a
    format of base 2, and of float64, for which the table of one octave does not do.
    """
    if dtype not in _MANTISSA_BITS or not are_normal(fmt, scale, dtype):
        return None
    (octave,) = tensors_of(codes, float_octave, fmt, FLOAT_NAMES[dtype])
    floats = torch.empty_like(codes, dtype=dtype)  # which has the strides of what is dense
    order = sorted(range(codes.ndim), key=codes.stride, reverse=True)
    words, bits = (t.permute(order).reshape(-1) for t in (codes, floats.view(PATTERN_DTYPES[dtype.itemsize])))
    inner, runs = 1, octave
    if scale.offsets is not None:
        inner, runs = blocks_within(scale.offsets.permute(order), codes.permute(order).shape)
        runs = (runs - fmt.bias).contiguous()
    size, block = codes.numel(), block_of(codes.numel())
    if size:
        launch(
            decode_kernel, programs(size, block), codes.device,
            words, bits, octave, runs, scale.low - fmt.bias, size, inner, runs.numel(),
            TOP=fmt.max_magnitude, FRACTION_BITS=fmt.fraction_bits, **constants(dtype),
            CHANNELS=scale.offsets is not None, WIDE=size >= NARROW, BLOCK=block,
        )  # fmt: skip
    return floats


def are_normal(fmt: LNSFormat, scale: Scale, dtype: torch.dtype) -> bool:
    """Whether all magnitudes of a format of base 2 are normal numbers of a type, rounded to it."""
    if fmt.base != 2.0:
        return False
    greatest = core.FLOAT_TYPES[FLOAT_NAMES[dtype]].max_exponent
    bottom, top = scale.low + 1 - fmt.bias, scale.high + fmt.max_log
    # below the greatest octave, as the last number of that may be rounded to infinity
    return bottom >> fmt.fraction_bits >= 1 - greatest and top >> fmt.fraction_bits < greatest


def constants(dtype: torch.dtype) -> dict[str, int]:
    """What `floats_of` is told of a float type: where its exponent's field begins, the sign's bit and NaN's."""
    kind = core.FLOAT_TYPES[FLOAT_NAMES[dtype]]
    nan = decoding.decode_table(LNSFormat(3, 0), 0, FLOAT_NAMES[dtype])[4]
    sign = 1 << (kind.bits - 1)
    # as an int32: of float32 it is negative
    sign = sign - (1 << 32) if kind.bits == 32 else sign
    return {"MANTISSA": _MANTISSA_BITS[dtype], "SIGN": sign, "NAN": int(nan)}


@lru_cache(maxsize=64)
def float_octave(fmt: LNSFormat, name: str) -> tuple[NDArray[np.int32]]:
    """The bits of 2^(k / 2^F), each rounded once to the type."""
    table = decoding.decode_table(fmt, 0, name)
    return (table[fmt.bias : fmt.bias + (1 << fmt.fraction_bits)].astype(np.int32),)


def encode(
    x: torch.Tensor,
    fmt: LNSFormat,
    scale: Scale,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    random_bits: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """The codes of floats, see `codes_twin.encode`; None for other bases and float64, and where random bits are so near
    to a probability that float64 cannot tell.
    """
    if fmt.base != 2.0 or x.dtype not in _MANTISSA_BITS:
        return None
    floats = x.detach().contiguous()
    out = torch.empty(x.shape, dtype=CODE_DTYPES[fmt.dtype.itemsize], device=x.device)
    size, block = x.numel(), block_of(x.numel())
    if size == 0:
        return out
    stochastic = rounding not in encoding.SIDES
    sides = ("floor", "floor") if stochastic else encoding.SIDES[rounding]
    steps, steps_below = (tensors_of(x, step_table, fmt, side)[0] for side in sides)
    (doubles,) = tensors_of(x, _doubles, fmt, rounding) if stochastic else (steps,)
    random = floats if random_bits is None else random_bits.expand(x.shape).contiguous()
    doubts = torch.zeros(1, dtype=torch.int32, device=x.device)
    inner, per_channel, single = _edges_of(x, fmt, scale)
    how = {"stochastic_log": _BY_LOG, "stochastic_value": _BY_VALUE}.get(rounding, _BY_THRESHOLDS)
    launch(
        encode_kernel, programs(size, block), x.device,
        readable(floats), out, random, steps, steps_below, doubles, doubts, *per_channel, *single, size, inner,
        per_channel[0].numel(),
        BITS=x.dtype == torch.bfloat16, TOP=fmt.max_magnitude, FRACTION_BITS=fmt.fraction_bits,
        FINE=22 - fmt.fraction_bits, HOW=how.value,
        DIRECTED=sides[0] != sides[1], BELOW=_BELOW.get(rounding, _FROM_HALF).value,
        BEYOND=fmt.max_magnitude if overflow == "saturate" else -1, SATURATES=underflow == "saturate",
        CHANNELS=scale.offsets is not None, WIDE=size >= NARROW, BLOCK=block,
    )  # fmt: skip
    return None if stochastic and int(doubts) else out


def _edges_of(
    x: torch.Tensor, fmt: LNSFormat, scale: Scale
) -> tuple[int, tuple[torch.Tensor, ...], tuple[int, int, int]]:
    """Where channels are, their `lowests`, `smallests` and `halves`, and those three of one scale."""
    first, last = codes_twin.table_range(fmt, scale.low, scale.high + 1, "float32")
    lowest = scale.low - fmt.max_log
    if scale.offsets is None:
        bottom = min(max(lowest, first), last)
        floor, half = (int(pattern[0]) for pattern in codes_twin.edges(fmt, bottom, bottom, "float32")[:2])
        none = torch.empty(0, dtype=torch.int32, device=x.device)
        return 1, (none, none, none), (lowest, floor, half)
    inner, runs = blocks_within(scale.offsets, x.shape)
    lowests = runs - fmt.max_log
    tables = codes_twin.tensors_of(x, codes_twin.edges, fmt, first, last, "float32")[:2]
    # beyond the table's ends all floats are above, or below
    places = lowests.clamp(first, last) - first
    return inner, (lowests.contiguous(), *(table[places].contiguous() for table in tables)), (0, 0, 0)


@lru_cache(maxsize=64)
def step_table(fmt: LNSFormat, side: str) -> tuple[NDArray[np.int32]]:
    """`steps` of a side of rounding: how many of the thresholds within an octave lie below each bucket, 2^(22 - F)
    times, and the carry at the one within it."""
    count, width = 1 << fmt.fraction_bits, 1 << (22 - fmt.fraction_bits)
    one = 127 << 23
    if side == "floor":
        patterns = codes_twin.edges(fmt, 1, count, "float32")[0]
    else:
        (patterns,) = codes_twin.thresholds(fmt, 1, count, "float32", side)
    # as t: what begins at 2 begins the next octave, whose e counts it
    t = np.sort(patterns.astype(np.int64) - one)
    t = t[t < 1 << 23]
    begins = np.arange(2 * count) * width
    below, through = np.searchsorted(t, begins, side="right"), np.searchsorted(t, begins + width, side="left")
    assert int((through - below).max()) <= 1  # thresholds are 0.69 / 2^F apart at least, buckets 0.5 / 2^F wide
    within = t[np.minimum(below, t.size - 1)] - begins if t.size else begins
    return ((below * width + np.where(through > below, width - within, 0)).astype(np.int32),)


@lru_cache(maxsize=64)
def _doubles(fmt: LNSFormat, rounding: Rounding) -> tuple[NDArray[np.float64]]:
    """2^-23 / 2^(k / 2^F) of an octave; 2^-32; what makes a probability of log(ratio), or of ratio - 1; and the bounds
    of the error of that probability, and of the one of a number below the smallest."""
    count = 1 << fmt.fraction_bits
    significands = codes_twin.edges(fmt, 0, count - 1, "float32")[2]
    by_log = rounding == "stochastic_log"
    per_step: Any = 1.0 / (codes_twin.log_step(fmt) if by_log else codes_twin.step_minus_one(fmt))
    # a quotient, a product and the significand are rounded: less than 4 ulp, which is RATIO_ERROR
    bounds = codes_twin.probability_error(fmt, rounding), 4 * codes_twin.RATIO_ERROR
    return (np.array([*(2.0**-23 / significands), 2.0**-32, per_step, *bounds]),)
