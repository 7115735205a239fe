"""Floats to codes and back where they are few and of one scale: all but the numbers looked up beforehand.

    E = 2^F q + r,      2^(E / 2^F)  =  2^(r / 2^F) 2^q         the bits of a float32: a table's, and q added above them

Beside a thousand numbers, checks and look-ups are most of the time. Both give what `lnsnum.encode` and `lnsnum.decode`
give, or None where these serve. Codes of a byte are decoded in registers, as there, by a window of all floats, which no
scale needs a table of its own for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import lnsnum
from lnsnum.encoding import encoder, fit_log_offset
from lnsnum.format import LNSFormat, Rounding
from lnsnum.kernels.byte_decoding import Window, window_of
from lnsnum.kernels.byte_scales import decode_run
from lnsnum.kernels.codes import Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.torch_bridge.kernels import codes as bridge

MOST = 1 << 18
"""So many numbers at most: from there on several threads are at work."""


def array_of(x: torch.Tensor) -> NDArray[np.float32] | None:
    """The memory of float32 that lie side by side on the CPU, and are not many; else None."""
    if x.dtype != torch.float32 or x.numel() > MOST or not (x.is_cpu and x.is_contiguous()):
        return None
    return bridge.as_numpy(x.detach())


@kernel
def _largest(patterns):  # type: ignore[no-untyped-def]
    """The greatest magnitude's bits: of floats without their sign these are in order, and beyond them infinity, NaN."""
    out = np.uint32(0)
    for i in range(patterns.size):
        out = max(out, np.uint32(patterns[i] & np.uint32(0x7FFFFFFF)))
    return out


def greatest_of(array: NDArray[np.float32]) -> float | None:
    """The greatest magnitude; None where one is infinite or NaN."""
    bits = np.uint32(_largest(array.reshape(-1).view(np.uint32)))
    return None if bits >= 0x7F800000 else float(bits.view(np.float32))


def fit(largest: float, fmt: LNSFormat, rounding: Rounding) -> int:
    """The least log_offset at which a magnitude, of either sign, does not saturate; 0 of 0."""
    if largest == 0.0:
        return 0
    if fmt.base == 2.0 and rounding == "nearest":
        position = math.log2(largest) * (1 << fmt.fraction_bits)
        # the logarithm is within 2^-44, so that far from half-way its rounding is that of the exact one
        if abs(position - math.floor(position) - 0.5) > 1e-4:
            return math.floor(position + 0.5) - fmt.max_log
    return _fit(largest, fmt, rounding)


@lru_cache(maxsize=4096)
def _fit(largest: float, fmt: LNSFormat, rounding: Rounding) -> int:
    return fit_log_offset(np.array([largest, -largest]), fmt, rounding=rounding)


def encode(array: NDArray[np.float32], fmt: LNSFormat, log_offset: int) -> Codes | None:
    """To nearest."""
    run = encoder(fmt, log_offset)
    return None if run is None else run(array)


@kernel
def _join(codes, fractions, fraction_bits, masks, place, out):  # type: ignore[no-untyped-def]
    magnitude, sign_shift = masks
    low = np.int32((1 << fraction_bits) - 1)
    for i in range(codes.size):
        # widened before anything is done with it
        code = np.int32(codes[i])
        m = code & np.int32(magnitude)
        e = m + np.int32(place)
        bits = fractions[e & low] + ((e >> np.int32(fraction_bits)) << np.int32(23))
        if m == 0:
            bits = np.int32(0) if code == 0 else np.int32(0x7FC00000)
        out[i] = bits | ((code >> np.int32(sign_shift)) << np.int32(31) if m != 0 else np.int32(0))


@lru_cache(maxsize=64)
def _fractions(fmt: LNSFormat) -> NDArray[np.int32]:
    """The bits of 2^(r / 2^F) as float32, each rounded once."""
    codes = np.arange(fmt.bias, fmt.bias + (1 << fmt.fraction_bits)).astype(fmt.dtype)
    table: NDArray[np.int32] = lnsnum.decode(codes, fmt, "float32").view(np.int32)
    return table


def _by_window(window: Window, codes: Codes) -> NDArray[np.float32]:
    out = np.empty(codes.shape, np.float32)
    decode_run(codes.reshape(-1), *window, out.reshape(-1))
    return out


Decoder = Callable[[Codes], NDArray[np.float32]]


@lru_cache(maxsize=4096)
def decoder(fmt: LNSFormat, log_offset: int) -> Decoder | None:
    """`decode` to float32 of contiguous codes at one scale; None where there is none but that."""
    window = window_of(fmt, log_offset)
    if window is not None:
        return partial(_by_window, window)
    # a number that is not a normal one has other bits
    if fmt.base != 2.0 or fmt.bits > 16 or fmt.fraction_bits > fmt.bits - 2:
        return None
    place = log_offset - fmt.bias
    if 1 + place < -126 << fmt.fraction_bits or fmt.max_magnitude + place >= 128 << fmt.fraction_bits:
        return None
    fractions, masks = _fractions(fmt), (fmt.max_magnitude, fmt.bits - 1)

    def run(codes: Codes) -> NDArray[np.float32]:
        out = np.empty(codes.shape, np.int32)
        _join(codes.reshape(-1), fractions, fmt.fraction_bits, masks, place, out.reshape(-1))
        return out.view(np.float32)

    return run


def decode(codes: Codes, fmt: LNSFormat, log_offset: int, dtype: Any = "float32") -> NDArray[Any]:
    """`lnsnum.decode` at one scale, this way where it serves."""
    if dtype == "float32" and codes.flags.c_contiguous and codes.ndim:
        run = decoder(fmt, log_offset)
        if run is not None:
            return run(codes)
    return np.asarray(lnsnum.decode(codes, fmt, dtype, log_offset=log_offset))


def tensor_of(array: NDArray[Any]) -> torch.Tensor:
    """A tensor on an array's memory, with torch's strides: without elements NumPy's are zeros."""
    if not array.size:
        return torch.from_numpy(array).new_empty(array.shape)
    # torch shares the memory of arrays with dimensions alone
    return torch.from_numpy(np.ascontiguousarray(array) if array.ndim else array.reshape(1)).reshape(array.shape)
