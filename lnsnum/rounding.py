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
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF
_HALF = np.uint64(32)
_BLOCKS = 256


@kernel
def philox(c0: UInt32Array, c1: UInt32Array, c2: UInt32Array, c3: UInt32Array, k0: int, k1: int) -> None:
    """Philox 4x32-10 in place: block j has the counter (c0[j], c1[j], c2[j], c3[j]) and becomes four random words.

    Round by round over all blocks, so that each round is a loop that the compiler vectorizes.
    """
    for _ in range(_ROUNDS):
        key0, key1 = np.uint32(k0), np.uint32(k1)
        for j in range(c0.size):
            even = np.uint64(c0[j]) * _M0
            odd = np.uint64(c2[j]) * _M1
            c0[j] = np.uint32(odd >> _HALF) ^ c1[j] ^ key0
            c2[j] = np.uint32(even >> _HALF) ^ c3[j] ^ key1
            c1[j] = np.uint32(odd & np.uint64(_LOW))
            c3[j] = np.uint32(even & np.uint64(_LOW))
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW


@kernel
def fill_random_bits(out: UInt32Array, start: int, seed: int, stream: int, step: int) -> None:
    """Write the random words of the elements `start`, `start + 1`, ... into `out`."""
    words = np.empty((4, _BLOCKS), np.uint32)
    block, skipped, done = start >> 2, start & 3, 0
    while done < out.size:
        blocks = min(_BLOCKS, (out.size - done + skipped + 3) >> 2)
        for j in range(blocks):
            words[0, j] = (block + j) & _LOW
            words[1, j] = (block + j) >> 32
            words[2, j] = step
            words[3, j] = stream
        philox(
            words[0, :blocks], words[1, :blocks], words[2, :blocks], words[3, :blocks], seed & _LOW, (seed >> 32) & _LOW
        )
        if skipped == 0 and out.size - done >= 4 * blocks:
            for j in range(blocks):
                for k in range(4):
                    out[done + 4 * j + k] = words[k, j]
            done += 4 * blocks
        else:
            count = min(4 * blocks - skipped, out.size - done)
            for i in range(count):
                out[done + i] = words[(skipped + i) & 3, (skipped + i) >> 2]
            done += count
        block += blocks
        skipped = 0


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
