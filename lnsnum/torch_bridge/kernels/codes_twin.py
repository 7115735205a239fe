"""Decode and encode in torch operations: on any device, and inside of torch.compile.

    decode:  a gather from a table of floats          encode:  E = the number of thresholds that |x| has reached

The same bits as `lnsnum.encoding` and `lnsnum.decoding`, which do the work on the CPU. Floats of one sign are ordered
as their bit patterns, and rounding is monotone: so a table of the least pattern that is rounded to E or beyond, exact
by `lnsnum.kernels.elementary`, and a binary search in it encode without a logarithm. The stochastic modes compare the
random bits with a probability in float64; where its error bound leaves the answer open, the core's integers decide, by
way of the CPU. While a graph is traced no one can look at the elements, and the float64 answer stands.

Tables are NumPy arrays, made once, and become constants of a traced graph (`torch.from_numpy` inside of the trace).
Their making, into which Dynamo must not look, is behind operators of torch's library; these are composite, so the rest
of the compiler sees what they are made of. The version among their arguments is there for the compiler's cache on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import _disable_current_modes

from lnsnum import __version__, decoding, encoding, exact
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.kernels import codes as core
from lnsnum.kernels.elementary import significands
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.torch_bridge.kernels.scale import Scale

CODE_DTYPES = {1: torch.uint8, 2: torch.int16}
PATTERN_DTYPES = {2: torch.int16, 4: torch.int32, 8: torch.int64}
FLOAT_NAMES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}

RATIO_ERROR = 2.0**-51
"""Bound of the relative error of |x| / base^(E / 2^F) as `_ratio` computes it: two roundings, and one in reserve."""

_FUNCTION_ERROR = 2.0**-48
"""Bound of what log, the divisions and the constants add to a probability: 8 ulp, whatever the device's library."""


def decode(codes: torch.Tensor, fmt: LNSFormat, scale: Scale, dtype: torch.dtype) -> torch.Tensor:
    """The floats that codes stand for, each rounded once to `dtype`, as `lnsnum.decode` gives them.

    Args:
        codes: uint8 or int16 (the bits of unsigned codes), of any shape and on any device.
        fmt: a format of at most 16 bits.
        scale: one log_offset, or one for each channel on the device of the codes.
        dtype: float64, float32, float16 or bfloat16.

    Raises:
        NotImplementedError: for a wider format.

    >>> from lnsnum import lns8f3
    >>> decode(torch.tensor([64, 200, 0, 128], dtype=torch.uint8), lns8f3, Scale(0, 0), torch.float32)
    tensor([ 1., -2.,  0., nan])
    """
    check_width(fmt)
    numbers = fmt.bits, fmt.fraction_bits, fmt.base, scale.low, scale.high
    # Dynamo must not look into the making of tables; an eager call needs no operator, and is spared its price
    run = torch.ops.lnsnum.decode if torch.compiler.is_dynamo_compiling() else _decode
    return run(codes, *numbers, scale.offsets, dtype, __version__)


def _decode(
    codes: torch.Tensor, bits: int, fraction_bits: int, base: float, low: int, high: int,
    offsets: torch.Tensor | None, dtype: torch.dtype, version: str,
) -> torch.Tensor:  # fmt: skip
    """`decode` with the numbers of the format, which is what an operator takes."""
    fmt = LNSFormat(bits, fraction_bits, base=base)
    if offsets is None:
        (table,) = tensors_of(codes, _decode_patterns, fmt, low, FLOAT_NAMES[dtype])
        # int16 has the sign's bit of 16-bit codes as its own: the mask makes the index unsigned again
        return table.view(dtype)[codes.to(torch.int64) & ((1 << fmt.bits) - 1)]
    code = codes.to(torch.int32) & ((1 << fmt.bits) - 1)
    first, last = table_range(fmt, low, high, FLOAT_NAMES[dtype])
    (table,) = tensors_of(codes, signed_patterns, fmt, first, last, FLOAT_NAMES[dtype])
    count = last - first + 1
    return table.view(dtype)[channel_places(code, fmt, channel_starts(offsets, fmt, first, count), count)]


def channel_starts(offsets: torch.Tensor, fmt: LNSFormat, first: int, count: int) -> torch.Tensor:
    """What m of a channel's codes is added to for its place among `count` floats of E from `first` on, int32."""
    # clamped in int64, beyond what int32 holds: at these ends m + start is at the table's or beyond for every m
    return (offsets.to(torch.int64) - (fmt.bias + first)).clamp(-fmt.max_magnitude, count).to(torch.int32)


def channel_places(code: torch.Tensor, fmt: LNSFormat, starts: torch.Tensor, count: int) -> torch.Tensor:
    """Where `signed_patterns` has the floats of codes, int32 without bits beyond those of the format."""
    # code is masked, so the shift leaves 0 or 1
    m, negative = code & fmt.max_magnitude, code >> (fmt.bits - 1)
    place = (m + starts).clamp(0, count - 1)
    return torch.where(m == 0, 2 * count + negative, place + count * negative)


def encode(
    x: torch.Tensor,
    fmt: LNSFormat,
    scale: Scale,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    random_bits: torch.Tensor | None = None,
) -> torch.Tensor:
    """The codes of floats, as `lnsnum.encode` makes them.

    Args:
        x: float64, float32, float16 or bfloat16 of any shape, on any device.
        fmt: a format of at most 16 bits.
        scale: one log_offset, or one for each channel on the device of x.
        rounding, overflow, underflow: as for `lnsnum.encode`.
        random_bits: int32 (the bits of unsigned numbers), broadcasts to x; for the stochastic modes, and only for them.

    Returns:
        uint8 or int16, in the shape of x. In a traced graph a stochastic mode may give the neighbouring code where the
        random bits are within `probability_error(fmt, rounding)` of the probability, so for about one element in
        1 / (2 probability_error): 2^43 in lns8f5, 2^36 in lns16f14.

    Raises:
        NotImplementedError: for a wider format.
        TypeError: where x is of another dtype.
        ValueError: for an unknown mode, and for random bits that are missing or not wanted.

    >>> from lnsnum import lns8f3
    >>> encode(torch.tensor([1.0, -2.0, 0.0, float("nan")]), lns8f3, Scale(0, 0))
    tensor([ 64, 200,   0, 128], dtype=torch.uint8)
    """
    check_width(fmt)
    core.check_modes(rounding, overflow, underflow)
    if x.dtype not in FLOAT_NAMES:
        raise TypeError(f"encode takes float64, float32, float16 or bfloat16, not {x.dtype}: convert the tensor first")
    if (random_bits is None) == rounding.startswith("stochastic"):
        raise ValueError(f"rounding={rounding!r} {'needs' if random_bits is None else 'takes no'} random_bits")
    numbers = fmt.bits, fmt.fraction_bits, fmt.base, scale.low, scale.high
    run = torch.ops.lnsnum.encode if torch.compiler.is_dynamo_compiling() else _encode
    choices = rounding, overflow, underflow
    return run(x.detach(), *numbers, scale.offsets, *choices, random_bits, __version__)


def _encode(
    x: torch.Tensor, bits: int, fraction_bits: int, base: float, low: int, high: int, offsets: torch.Tensor | None,
    rounding: Rounding, overflow: Overflow, underflow: Underflow, random_bits: torch.Tensor | None,
    version: str,
) -> torch.Tensor:  # fmt: skip
    """`encode` with the numbers of the format, which is what an operator takes."""
    fmt = LNSFormat(bits, fraction_bits, base=base)
    a, negative, name = _magnitude(x)
    infinity = core.FLOAT_TYPES[name].infinity
    # one E more than codes have: what reaches its threshold is beyond the greatest
    first, last = table_range(fmt, low, high + 1, name)
    lowest: Any = low - fmt.max_log if offsets is None else offsets.to(torch.int64) - fmt.max_log
    # E of the smallest code, or the table's end where that is beyond all floats
    bottom = min(max(lowest, first), last) if isinstance(lowest, int) else lowest.clamp(first, last)
    floor, half, significand, exponent = tensors_of(x, edges, fmt, first, last, name)
    smallest = floor[bottom - first]

    def search(side: str) -> torch.Tensor:
        (table,) = (floor,) if side == "floor" else tensors_of(x, thresholds, fmt, first, last, name, side)
        # how many thresholds |x| has reached, in integers: patterns of one sign are in the order of the floats
        return torch.searchsorted(table, a, right=True) + (first - 1)

    doubt = None
    if rounding in encoding.SIDES:
        for_positive, for_negative = encoding.SIDES[rounding]
        log = search(for_positive)
        if for_positive != for_negative:
            log = torch.where(negative, search(for_negative), log)
        # below the smallest code the value decides, not the axis: from its half on to nearest, never toward zero, by
        # the sign in the directed modes
        below: Any = a >= half[bottom - first] if rounding == "nearest" else torch.zeros_like(negative)
        if rounding in ("up", "down"):
            below = negative if rounding == "down" else ~negative
    else:
        assert random_bits is not None
        # unsigned again, and exact in float64
        share = (random_bits.expand(x.shape).to(torch.int64) & 0xFFFFFFFF).to(torch.float64) * 2.0**-32
        log = search("floor")
        # zeros are below the first threshold; what is read for them does not count
        at = (log - first).clamp(min=0)
        ratio, error = _ratio(a, name, significand[at], exponent[at]), probability_error(fmt, rounding)
        p = torch.log(ratio) / log_step(fmt) if rounding == "stochastic_log" else (ratio - 1.0) / step_minus_one(fmt)
        # written so that NaN, of a comparison that fails, is in doubt
        open_ = ~((share - p).abs() > error)
        log = log + (share < p)
        if rounding == "stochastic_log":
            below, open_below = a >= half[bottom - first], torch.zeros_like(negative)
        else:
            p = _ratio(a, name, significand[bottom - first], exponent[bottom - first])
            # p is more than 0, also where float64 has no such number: a share of 0 is always below it
            below = (share == 0.0) | (share < p)
            open_below = (share > 0.0) & ~((share - p).abs() > 4 * RATIO_ERROR)
        # zeros, infinities and NaN draw nothing, nor does what saturates below
        doubt = torch.where(a < smallest, open_below, open_) & (a > 0) & (a < infinity)
        doubt = doubt & (a >= smallest) if underflow == "saturate" else doubt

    m = log - lowest + 1
    beyond = fmt.max_magnitude if overflow == "saturate" else -1
    # -1 stands for NaN until the end; this order, since each line overrules those before it
    m = torch.where((m > fmt.max_magnitude) | (a == infinity), beyond, m)
    m = torch.where(a < smallest, 1 if underflow == "saturate" else below.to(torch.int64), m)
    m = torch.where(a > infinity, -1, torch.where(a == 0, 0, m))
    # zero takes no sign, whose bit alone is NaN
    code = torch.where(m < 0, fmt.nan_code, torch.where(negative & (m > 0), m + fmt.sign_bit, m))
    out = as_codes(code, fmt)
    # a traced graph cannot look: the answer of float64 stands, see `probability_error`
    if doubt is None or not is_real(x):
        return out
    assert random_bits is not None
    where_log = low if offsets is None else offsets.expand(x.shape)[doubt].cpu().numpy()
    decided = encoding.encode(
        _numpy(x[doubt]),
        fmt,
        rounding=rounding,
        overflow=overflow,
        underflow=underflow,
        log_offset=where_log,
        random_bits=random_bits.expand(x.shape)[doubt].cpu().numpy().view(np.uint32),
        dtype=FLOAT_NAMES[x.dtype],
    )
    return out.masked_scatter(doubt, as_codes(torch.from_numpy(decided.astype(np.int64)), fmt).to(x.device))


_OPERATORS = torch.library.Library("lnsnum", "FRAGMENT")
_FORMAT = "int bits, int fraction_bits, float base, int low, int high, Tensor? offsets"
_OPERATORS.define(f"decode(Tensor codes, {_FORMAT}, ScalarType dtype, str version) -> Tensor")
_CHOICES = "str rounding, str overflow, str underflow"
_OPERATORS.define(f"encode(Tensor x, {_FORMAT}, {_CHOICES}, Tensor? random_bits, str version) -> Tensor")
_OPERATORS.impl("decode", _decode, "CompositeImplicitAutograd")
_OPERATORS.impl("encode", _encode, "CompositeImplicitAutograd")


def probability_error(fmt: LNSFormat, rounding: Rounding) -> float:
    """A bound of the error of the probability of rounding up that `encode` compares with the random bits.

    >>> from lnsnum import lns8f5
    >>> probability_error(lns8f5, "stochastic_log") < 2.0**-44
    True
    """
    if rounding == "stochastic_log":
        return RATIO_ERROR / log_step(fmt) + _FUNCTION_ERROR
    return RATIO_ERROR * (1.0 + 1.0 / step_minus_one(fmt)) + _FUNCTION_ERROR


def check_width(fmt: LNSFormat) -> None:
    """Raise NotImplementedError where tensors of codes cannot be of this format."""
    if fmt.bits > core.WIDEST_TABLE:
        raise NotImplementedError(
            f"{fmt.name} is wider than {core.WIDEST_TABLE} bits: take one of at most {core.WIDEST_TABLE} in a network"
        )


@lru_cache(maxsize=1024)
def log_step(fmt: LNSFormat) -> float:
    """The natural logarithm of the factor of a code step."""
    return math.log(2.0) / steps_in_two(fmt)[0]


@lru_cache(maxsize=1024)
def step_minus_one(fmt: LNSFormat) -> float:
    """That factor less 1, rounded once."""
    return exact.step_minus_one(fmt.base, fmt.fraction_bits)


def is_real(x: torch.Tensor) -> bool:
    """Whether the elements of x can be looked at, and tables be kept: not while a graph is traced."""
    # a FakeTensor is a subclass, and no elements are behind it
    return type(x) in (torch.Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling() and not x.is_meta


def tensors_of(
    like: torch.Tensor, make: Callable[..., tuple[NDArray[Any], ...]], *key: Any
) -> tuple[torch.Tensor, ...]:
    """The arrays make(*key) as tensors on the device of `like`, constants of a traced graph; on another device than the
    CPU copied once and kept.
    """
    if like.device.type == "cpu":
        return tuple(torch.from_numpy(array) for array in make(*key))
    kept = _kept(like.device, make, *key)
    # what is on the CPU in a graph would be copied in each run, and no CUDA graph be recorded
    return kept if is_real(like) else tuple(torch.ops.aten.lift_fresh.default(tensor) for tensor in kept)


@lru_cache(maxsize=64)
def _kept(device: torch.device, make: Callable[..., tuple[NDArray[Any], ...]], *key: Any) -> tuple[torch.Tensor, ...]:
    # a tensor made in inference mode stays one of it, and autograd refuses to save it later; modes that trace are off
    with torch.inference_mode(False), _disable_current_modes():
        return tuple(torch.from_numpy(array).to(device) for array in make(*key))


def _numpy(x: torch.Tensor) -> NDArray[Any]:
    """Floats as `lnsnum.encode` takes them."""
    return x.cpu().view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.cpu().numpy()


def as_codes(code: torch.Tensor, fmt: LNSFormat) -> torch.Tensor:
    """Integer codes in the type of a tensor of codes; into int16 without leaving its range."""
    return code.to(torch.uint8) if fmt.bits <= 8 else ((code ^ 0x8000) - 0x8000).to(torch.int16)


def _magnitude(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, str]:
    """|x| as bit patterns of float32 or float64, contiguous; where x is negative; the name of that type."""
    if x.dtype == torch.bfloat16:
        # a bfloat16 is the upper half of a float32
        bits = x.view(torch.int16).to(torch.int32) << 16
    else:
        wide = x.to(torch.float32) if x.dtype == torch.float16 else x
        bits = wide.view(PATTERN_DTYPES[wide.dtype.itemsize])
    bits = bits.contiguous()
    # without the sign's bit; as a signed integer the pattern is negative where that is set
    return bits & torch.iinfo(bits.dtype).max, bits < 0, "float64" if x.dtype == torch.float64 else "float32"


def _ratio(a: torch.Tensor, name: str, significand: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """|x| / (significand 2^exponent) in float64, from the pattern of |x|: a subnormal one is read from its bits."""
    kind = core.FLOAT_TYPES[name]
    mantissa = (a & ((1 << kind.mantissa_bits) - 1)).to(torch.int64)
    biased = (a >> kind.mantissa_bits).to(torch.int64)
    # normal numbers have a leading bit that is not stored; subnormal ones have the exponent of the least normal
    whole = torch.where(biased > 0, mantissa | (1 << kind.mantissa_bits), mantissa).to(torch.float64)
    twos = biased.clamp(min=1) - (kind.max_exponent + kind.mantissa_bits) - exponent
    # beyond these the quotient is 0 or infinite; in two halves, as one double holds no such power of two
    twos = twos.clamp(-1900, 1900)
    first = twos >> 1
    return whole / significand * power_of_two(first) * power_of_two(twos - first)


def power_of_two(n: torch.Tensor) -> torch.Tensor:
    """2^n, -1022 <= n <= 1023, exactly."""
    # the exponent's field of a double alone: exp2 is not exact in every library
    return ((n + 1023) << 52).view(torch.float64)


def table_range(fmt: LNSFormat, low: int, high: int, name: str) -> tuple[int, int]:
    """The first and the last E at offsets from `low` to `high`, or where floats of the type are far from there, theirs.

    Forty octaves are left above, and some below: all E beyond decode to one float, and are reached by the same floats;
    and a number is rounded up from zero to something greater by no random bits but 0.
    """
    kind, (steps, _) = core.FLOAT_TYPES[name], steps_in_two(fmt)
    bottom = -math.ceil(steps * (kind.max_exponent + kind.mantissa_bits + 2)) - 2
    top = math.ceil(steps * (kind.max_exponent + 40)) + 2
    return min(max(low - fmt.max_log, bottom), top), max(min(high + fmt.max_log, top), bottom)


def _signed(patterns: NDArray[Any]) -> NDArray[Any]:
    """Unsigned patterns as the signed integers of the same bits, which is what torch has."""
    return patterns.view(f"i{patterns.itemsize}")


def _decode_patterns(fmt: LNSFormat, log_offset: int, name: str) -> tuple[NDArray[Any]]:
    """The float of every code."""
    return (_signed(decoding.decode_table(fmt, log_offset, name)),)


@lru_cache(maxsize=64)
def signed_patterns(fmt: LNSFormat, first: int, last: int, name: str) -> tuple[NDArray[Any]]:
    """The floats of the magnitudes with E from `first` to `last`, their negatives, then 0 and NaN."""
    count = last - first + 1
    # decode tables of a format that spans as many E as one can, or as are wanted, one behind the other
    wide = LNSFormat(min(max(fmt.bits, count.bit_length() + 1), 16), fmt.fraction_bits, base=fmt.base)
    tables = [
        decoding.decode_table(wide, start + wide.max_log, name)
        for start in range(first, last + 1, wide.max_magnitude)
    ]  # fmt: skip
    # without 0 and NaN, which stand once at the end
    positive = np.concatenate([table[1 : wide.sign_bit] for table in tables])[:count]
    negative = np.concatenate([table[wide.sign_bit + 1 :] for table in tables])[:count]
    return (_signed(np.concatenate([positive, negative, tables[0][[0, wide.nan_code]]])),)


@lru_cache(maxsize=64)
def edges(fmt: LNSFormat, first: int, last: int, name: str) -> tuple[NDArray[Any], ...]:
    """For E from `first` to `last`: the least pattern not below base^(E / 2^F), and not below its half; then the number
    itself, as a double and an exponent of two."""
    s, e = _powers(fmt.base, fmt.fraction_bits, np.arange(first, last + 1))
    # from 1 to 2, rounded once to 53 bits
    significand = s.astype(np.float64) * 2.0**-63
    strict = np.zeros(s.shape, np.bool_)
    return _ceil(s, e, strict, name), _ceil(s, e - 1, strict, name), significand, e


@lru_cache(maxsize=64)
def thresholds(fmt: LNSFormat, first: int, last: int, name: str, side: str) -> tuple[NDArray[Any]]:
    """For E from `first` to `last`: the least pattern that is rounded to E or beyond, to that side on the log axis."""
    logs = np.arange(first, last + 1)
    # rounded up to E is what is above E - 1; to nearest, what is above the middle, 2 E - 1 on an axis twice as fine,
    # and at it where E is even
    if side == "ceil":
        return (_ceil(*_powers(fmt.base, fmt.fraction_bits, logs - 1), np.ones(logs.shape, np.bool_), name),)
    return (_ceil(*_powers(fmt.base, fmt.fraction_bits + 1, 2 * logs - 1), logs & 1 == 1, name),)


# Up to so many, integers of Python do, without a kernel that would have to be compiled or loaded.
_FEW = 1 << 14


def _powers(base: float, k: int, n: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """`exact.significand64` of base^(n / 2^k): arrays of uint64 and int64."""
    if n.size > _FEW:
        return significands(base, k, n)
    pairs = [exact.significand64(base, int(i), k) for i in n]
    return np.array([s for s, _ in pairs], np.uint64), np.array([e for _, e in pairs], np.int64)


def _ceil(s: NDArray[Any], e: NDArray[Any], strict: NDArray[np.bool_], name: str) -> NDArray[Any]:
    """The pattern, a signed integer, of the least float that is not below s 2^(e - 63); above it where `strict`."""
    kind = core.FLOAT_TYPES[name]
    above = e - (1 - kind.max_exponent)
    # below the normal numbers the mantissa has a bit less for each exponent less
    drop = np.minimum(63 - kind.mantissa_bits - np.minimum(above, 0), 64).astype(np.uint64)
    one = np.uint64(1)
    # in two shifts: one by 64 is not defined for a uint64
    kept = s >> (drop - one) >> one
    cut = kept << (drop - one) << one != s
    # the leading bit of a normal number adds 1 to the field of the exponent, which starts at 1; and rounding up may
    # carry into it, which is right, as patterns are in the order of the floats
    pattern = (np.clip(above, 0, 2 * kind.max_exponent) << kind.mantissa_bits) + kept.astype(np.int64) + (cut | strict)
    pattern = np.where(e > kind.max_exponent, kind.infinity, np.minimum(pattern, kind.infinity))
    return pattern.astype(f"i{kind.bits // 8}")
