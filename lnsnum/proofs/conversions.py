"""Scans of encode and decode, against powers of the base that are multiplied up step by step in integers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum import reference
from lnsnum.decoding import decode
from lnsnum.encoding import encode
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import FLOAT_TYPES
from lnsnum.kernels.elementary import LOG2_ERROR
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.kernels.scalar_encoding import MOST_THRESHOLDS
from lnsnum.proofs.scanning import CHUNK, WIDEST_RANGE, Finding, Scan, mp

_PRECISION = 160


def _step_power(fmt: LNSFormat, log: int) -> tuple[int, int]:
    """base^(log / 2^F) as (significand of _PRECISION bits, exponent of its top bit)."""
    value = mp.power(mp.mpf(fmt.base), mp.mpf(log) / (1 << fmt.fraction_bits))
    mantissa, exponent = int(value.man), int(value.exp)
    shift = _PRECISION - mantissa.bit_length()
    return (mantissa << shift if shift >= 0 else mantissa >> -shift), exponent + mantissa.bit_length() - 1


class _Powers(NamedTuple):
    """A stretch of base^((log + half) / 2^F): 64 leading bits, the 64 after them, exponent of the first bit."""

    logs: NDArray[np.int64]
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    exponent: NDArray[np.int64]


def _powers(fmt: LNSFormat, logs: range, *, half: bool) -> Iterator[_Powers]:
    """By repeated multiplication with one step, in integers; begun afresh for each chunk, at most 2^20 steps long."""
    doubled = LNSFormat(32, fmt.fraction_bits + 1, base=fmt.base) if fmt.fraction_bits < 30 else None
    step, step_exponent = _step_power(fmt, 1)
    for start in range(logs.start, logs.stop, CHUNK):
        count = min(CHUNK, logs.stop - start)
        if half and doubled is not None:
            x, exponent = _step_power(doubled, 2 * start + 1)
        elif half:
            value = mp.power(mp.mpf(fmt.base), mp.mpf(2 * start + 1) / (2 << fmt.fraction_bits))
            x = int(value.man) << 40
            x, exponent = x >> (x.bit_length() - _PRECISION), int(value.exp) + int(value.man).bit_length() - 1
        else:
            x, exponent = _step_power(fmt, start)
        high, low = np.empty(count, np.uint64), np.empty(count, np.uint64)
        exponents = np.empty(count, np.int64)
        for i in range(count):
            high[i], low[i], exponents[i] = x >> 96, (x >> 32) & 0xFFFFFFFFFFFFFFFF, exponent
            x *= step
            drop = x.bit_length() - _PRECISION
            exponent += drop - (_PRECISION - 1) + step_exponent
            x >>= drop
        yield _Powers(np.arange(start, start + count), high, low, exponents)


def _magnitude_range(fmt: LNSFormat) -> range:
    """The E that are scanned: all of the format, or one octave (2^F steps, from 1)."""
    if fmt.bits <= WIDEST_RANGE:
        return range(-fmt.max_log, fmt.max_log + 1)
    return range(1 << fmt.fraction_bits)


def _range_in_words(fmt: LNSFormat, what: str) -> str:
    if fmt.bits <= WIDEST_RANGE:
        return f"every {what}"
    return f"every {what} of one octave" if fmt.base == 2.0 else f"{what}s from 1 to the base, a sample"


def certify_encode_float32(fmt: LNSFormat) -> Finding:
    """Encode over all 2^23 mantissas of float32, from 1 to 2."""
    scan = Scan("encode float32, all mantissas")
    steps = steps_in_two(fmt)[0]
    margin = max(1e-6, steps * 2.0**-44)
    for start in range(0, 1 << 23, CHUNK):
        patterns = np.arange(start, start + CHUNK, dtype=np.uint32) + np.uint32(0x3F800000)
        x = patterns.view(np.float32)
        codes = encode(x, fmt)
        position = np.log2(x.astype(np.float64)) * steps
        expected = np.clip(np.rint(position).astype(np.int64), None, fmt.max_log)
        distance = np.abs(np.abs(position - np.floor(position)) - 0.5)
        wrong = (codes.astype(np.int64) - fmt.bias) != expected
        for i in np.flatnonzero(distance < margin):
            scan.rechecked += 1
            wrong[i] = int(codes[i]) != reference.encode(float(x[i]), fmt)
        scan.add(x.size, float(distance.min()), wrong, lambda i, x=x: f"x={float(x[i]).hex()}")  # type: ignore[misc]
    return scan.finding()


def _encode_bound(fmt: LNSFormat) -> str:
    """How encode in nearest is decided."""
    if fmt.base == 2.0 and fmt.fraction_bits <= MOST_THRESHOLDS:
        return "by exact thresholds"
    bound = steps_in_two(fmt)[0] * LOG2_ERROR + fmt.max_log * 2.0**-50
    return f"error bound {bound:.1e} ulp, nearer ones by integers"


def certify_encode_float64(fmt: LNSFormat) -> Finding:
    """Encode at the float64 on both sides of every threshold."""
    scan = Scan(f"encode float64, both neighbours of {_range_in_words(fmt, 'threshold')} ({_encode_bound(fmt)})")
    for part in _powers(fmt, _magnitude_range(fmt), half=True):
        fits = (part.exponent >= -1022) & (part.exponent <= 1023) & (part.logs < fmt.max_log)
        high, low, exponent, logs = (array[fits] for array in (part.high, part.low, part.exponent, part.logs))
        floor = (high >> np.uint64(11)) & np.uint64((1 << 52) - 1)
        below = ((exponent + 1023).astype(np.uint64) << np.uint64(52)) + floor
        codes_below, codes_above = (
            encode(below.view(np.float64), fmt),
            encode((below + np.uint64(1)).view(np.float64), fmt),
        )
        m = logs + fmt.bias
        wrong = (codes_below.astype(np.int64) != m) | (codes_above.astype(np.int64) != m + 1)
        # how far the threshold lies from the float64 below it, as a share of their distance
        share = ((high & np.uint64(0x7FF)).astype(np.float64) + low.astype(np.float64) * 2.0**-64) / 2048.0
        spacing = steps_in_two(fmt)[0] / math.log(2.0) * 2.0**-52
        near = np.minimum(share, 1.0 - share)
        for i in np.flatnonzero(near < 1e-6):
            scan.rechecked += 1
            pair = [int(codes[i]) for codes in (codes_below, codes_above)]
            floats = [float(bits.view(np.float64)) for bits in (below[i], below[i] + np.uint64(1))]
            wrong[i] = pair != [reference.encode(x, fmt) for x in floats]

        def describe(i: int, m: NDArray[Any] = m) -> str:
            return f"threshold above m={m[i]}"

        scan.add(2 * logs.size, float(near.min(initial=1.0)) * spacing, wrong, describe)
    return scan.finding()


def certify_decode(fmt: LNSFormat, dtype: str) -> Finding:
    """Decode of every scanned magnitude, against the recurrence rounded by integers."""
    scan = Scan(f"decode {dtype}, {_range_in_words(fmt, 'magnitude')}")
    to = FLOAT_TYPES[dtype]
    for part in _powers(fmt, _magnitude_range(fmt), half=False):
        codes = (part.logs + fmt.bias).astype(fmt.dtype)
        found = decode(codes, fmt, dtype)
        patterns = found if dtype == "bfloat16" else found.view(to.pattern)
        normal = (part.exponent >= 1 - to.max_exponent) & (part.exponent < to.max_exponent)
        drop = np.uint64(64 - to.precision)
        kept = part.high >> drop
        rest = (part.high << np.uint64(to.precision)).astype(np.float64) * 2.0**-64 + part.low.astype(
            np.float64
        ) * 2.0 ** (to.precision - 128)
        rounded = kept + (rest > 0.5)
        biased = (part.exponent + to.max_exponent - 1).astype(np.uint64)
        expected = (biased << np.uint64(to.mantissa_bits)) + rounded
        wrong = normal & (patterns.astype(np.uint64) != expected)
        distance = np.where(normal, np.abs(rest - 0.5), 0.5)
        unsure = ~normal | (distance < 1e-9) | (rest < 1e-15) | (rest > 1 - 1e-15)
        for i in np.flatnonzero(unsure):
            scan.rechecked += 1
            wrong[i] = int(patterns[i]) != reference.decode(int(codes[i]), fmt, dtype)  # type: ignore[arg-type]
        scan.add(codes.size, float(distance.min()), wrong, lambda i, m=codes: f"code={m[i]}")  # type: ignore[misc]
    return scan.finding()
