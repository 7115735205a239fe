"""The random words of `random_words` in Triton: uint32 arithmetic is modulo 2^32, and its shifts bring in zeros.

R   =  the hash of an element's index under two keys, which the host makes (`random_words.draw_keys`)
"""

from __future__ import annotations

import triton
import triton.language as tl

from lnsnum.torch_bridge.kernels import random_words

_LOW, _HIGH = tl.constexpr(random_words.LOW_FACTOR), tl.constexpr(random_words.HIGH_FACTOR)
_FIRST, _SECOND = tl.constexpr(random_words.FIRST_FACTOR), tl.constexpr(random_words.SECOND_FACTOR)
_MOMENT, _MOMENTUM = tl.constexpr(random_words.MOMENT_FACTOR), tl.constexpr(random_words.MOMENTUM_FACTOR)


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
