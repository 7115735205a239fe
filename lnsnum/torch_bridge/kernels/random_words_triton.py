"""The random words of `random_words` in Triton: uint32 arithmetic is modulo 2^32, and its shifts bring in zeros.

keys   =  four words of Philox at (seed, stream, step): by the host (`random_words.draw_keys`), or here for graphs
R      =  the hash of an element's index under two of them
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from lnsnum.torch_bridge.kernels import random_words
from lnsnum.torch_bridge.kernels.triton_launch import launch

_LOW, _HIGH = tl.constexpr(random_words.LOW_FACTOR), tl.constexpr(random_words.HIGH_FACTOR)
_FIRST, _SECOND = tl.constexpr(random_words.FIRST_FACTOR), tl.constexpr(random_words.SECOND_FACTOR)
_MOMENT, _MOMENTUM = tl.constexpr(random_words.MOMENT_FACTOR), tl.constexpr(random_words.MOMENTUM_FACTOR)

_BLOCK_HIGH = tl.constexpr(random_words.KEY_INDEX >> 34)
"""The upper word of the number of the block of four words, whose lower word is 0."""


@triton.jit
def keys_of(step, seed, stream):
    """The four key words, each in a uint64, as are the arguments: products of two words are exact there."""
    c0, c1, c2, c3 = step * 0, step * 0 + _BLOCK_HIGH, step, stream
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in tl.static_range(10):
        even, odd = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (odd >> 32) ^ c1 ^ k0, odd & 0xFFFFFFFF, (even >> 32) ^ c3 ^ k1, even & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


@triton.jit(do_not_specialize=["seed", "stream"])
def keys_kernel(step, out, seed, stream):
    """Write the four words of a step, int64."""
    k0, k1, k2, k3 = keys_of(tl.load(step).to(tl.uint64), seed.to(tl.uint64), stream.to(tl.uint64))
    tl.store(out, k0.to(tl.int64))
    tl.store(out + 1, k1.to(tl.int64))
    tl.store(out + 2, k2.to(tl.int64))
    tl.store(out + 3, k3.to(tl.int64))


def draw_keys(step: torch.Tensor, seed: int, stream: int) -> torch.Tensor:
    """`random_words.draw_keys` of a step (int64) on a card: four words, int64."""
    out = torch.empty(4, dtype=torch.int64, device=step.device)
    launch(keys_kernel, (1,), step.device, step, out, seed, stream)
    return out


@triton.jit
def words_of(index, key0, key1, WIDE: tl.constexpr):
    """The words (uint32) of the elements with these indices, int64 where they are `WIDE`, under two keys (uint32)."""
    x = index.to(tl.uint32) * _LOW + key0
    if WIDE:
        x = x + (index >> 32).to(tl.uint32) * _HIGH
    x = x ^ (x >> 16)
    x = (x * _FIRST) ^ key1
    x = x ^ (x >> 15)
    x = x * _SECOND
    return x ^ (x >> 16)


@triton.jit
def upper24(word):
    """The upper 24 bits, which decide, int32."""
    return (word >> 8).to(tl.int32)


@triton.jit
def centred(word):
    """u - 1/2 as float32, see `random_words.centred`."""
    # int32 before the shift: it copies the sign, so the number is signed
    return ((word.to(tl.int32, bitcast=True) >> 8) | 1).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def moment_word(word):
    """The word of the second moment."""
    return word * _MOMENT


@triton.jit
def momentum_word(word):
    """The word of the momentum."""
    return word * _MOMENTUM
