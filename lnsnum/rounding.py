"""Random bits for stochastic rounding: a pure function of (seed, stream, step, element index).

Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3, SC11) maps a 128-bit counter
and a 64-bit key to 128 bits. Here

    key = seed,   counter = (index // 4, step, stream),   element `index` takes word index % 4 of the block,

so the bits of an element do not depend on how many threads, devices or shards share the work, nor on what was drawn
before: whoever knows the four numbers can draw them again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from lnsnum.kernel import kernel

UInt32Array = np.ndarray[Any, np.dtype[np.uint32]]

_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@kernel
def philox_block(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    """One block of Philox 4x32-10: four words of 32 random bits. All arguments are below 2^32."""
    for _ in range(_ROUNDS):
        even = c0 * _M0
        odd = c2 * _M1
        c0 = (odd >> _HALF) ^ c1 ^ k0
        c2 = (even >> _HALF) ^ c3 ^ k1
        c1 = odd & _LOW
        c3 = even & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3)


@kernel
def fill_random_bits(out: UInt32Array, start: int, seed: int, stream: int, step: int) -> None:
    """Write the random words of the elements `start`, `start + 1`, ... into `out`."""
    k0, k1 = np.uint64(seed) & _LOW, np.uint64(seed) >> _HALF
    c2, c3 = np.uint64(step), np.uint64(stream)
    n = out.size
    head = min(-start & 3, n)
    if head:
        block = np.uint64(start >> 2)
        words = philox_block(block & _LOW, block >> _HALF, c2, c3, k0, k1)
        for i in range(head):
            out[i] = words[(start + i) & 3]
    first = (start + head) >> 2
    whole = (n - head) >> 2
    for j in range(whole):
        block = np.uint64(first + j)
        w0, w1, w2, w3 = philox_block(block & _LOW, block >> _HALF, c2, c3, k0, k1)
        i = head + 4 * j
        out[i] = w0
        out[i + 1] = w1
        out[i + 2] = w2
        out[i + 3] = w3
    tail = head + 4 * whole
    if tail < n:
        block = np.uint64(first + whole)
        words = philox_block(block & _LOW, block >> _HALF, c2, c3, k0, k1)
        for i in range(tail, n):
            out[i] = words[i - tail]


def random_bits(
    shape: int | tuple[int, ...], *, seed: int, stream: int = 0, step: int = 0, start: int = 0
) -> UInt32Array:
    """32 random bits for each element of an array of `shape`.

    Args:
        shape: the array's shape.
        seed: 0 to 2^63 - 1. The same seed, stream, step and start give the same bits, everywhere.
        stream: which array of a program, 0 to 2^32 - 1.
        step: how often that array has been drawn before, 0 to 2^32 - 1.
        start: index of the first element within the whole array (a shard's place), row-major.

    Raises:
        TypeError: where an argument is no integer.
        ValueError: where one is out of range.

    >>> bits = random_bits(4, seed=0)
    >>> [f"{b:08x}" for b in bits]  # Random123's known answer for a zero counter and key
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    >>> bool((random_bits(2, seed=0, start=2) == bits[2:]).all())
    True
    """
    seed, stream, step, start = (operator.index(given) for given in (seed, stream, step, start))
    for what, given, bits in (("seed", seed, 63), ("stream", stream, 32), ("step", step, 32), ("start", start, 62)):
        if not 0 <= given < 1 << bits:
            raise ValueError(f"{what}={given} is out of range: 0 to 2^{bits} - 1")
    shape = tuple(shape) if isinstance(shape, Iterable) else (operator.index(shape),)
    out = np.empty(math.prod(shape), np.uint32)
    fill_random_bits(out, start, seed, stream, step)
    return out.reshape(shape)
