"""The random words of `random_words` in torch operations: on any device, and inside of torch.compile.

    keys   =  four words of Philox, by the kernel: in a graph an operator, of a step that is a tensor
    R      =  the hash of the elements' indices under two of them

All words are int64 from 0 to 2^32 - 1, and a factor is taken between -2^31 and 2^31, so that no product leaves int64: a
signed overflow would be undefined in the C++ that torch's compiler makes.
"""

from __future__ import annotations

from typing import Any

import torch

from lnsnum.torch_bridge.kernels import backends, random_words
from lnsnum.torch_bridge.kernels.codes_twin import is_real
from lnsnum.torch_bridge.kernels.random_words import (
    FIRST_FACTOR,
    HIGH_FACTOR,
    LOW_FACTOR,
    MOMENT_FACTOR,
    MOMENTUM_FACTOR,
    SECOND_FACTOR,
    WHOLE,
    Draw,
    Part,
)

Word = Any
"""A tensor of words, int64, or a Python number."""

_LOW = 0xFFFFFFFF
# Factors from here on are taken less 2^32, which is the same modulo 2^32.
_HALF = 1 << 31


def draw_keys(draw: Draw) -> tuple[Word, ...]:
    """The four key words of a step, see `random_words.draw_keys`: numbers, or tensors where the step is being traced.

    >>> draw_keys(Draw(0, 0, 1)) == draw_keys(Draw(0, 0, torch.tensor(1)))
    True
    """
    step = draw.step
    if isinstance(step, torch.Tensor) and not is_real(step):
        return torch.ops.lnsnum.draw_keys(step, draw.seed, draw.stream).unbind()  # type: ignore[no-any-return]
    # the kernel's int32 keys as words from 0 on
    return tuple(int(key) & _LOW for key in random_words.draw_keys(draw.seed, draw.stream, int(step)))


def _keys(step: torch.Tensor, seed: int, stream: int) -> torch.Tensor:
    """An operator of its own, the kernel: each round of Philox would be 16 operations of every parameter's graph."""
    return torch.tensor(draw_keys(Draw(seed, stream, int(step))), dtype=torch.int64).to(step.device)


def _keys_on_card(step: torch.Tensor, seed: int, stream: int) -> torch.Tensor:
    if backends.missing_on(step.device) is not None:
        return _keys(step, seed, stream)
    from lnsnum.torch_bridge.kernels import random_words_triton  # here, as triton is there for cards alone

    return random_words_triton.draw_keys(step, seed, stream)


def _keys_shape(step: torch.Tensor, seed: int, stream: int) -> torch.Tensor:
    return torch.empty(4, dtype=torch.int64, device="meta")


_OPERATORS = torch.library.Library("lnsnum", "FRAGMENT")
_OPERATORS.define("draw_keys(Tensor step, int seed, int stream) -> Tensor")
_OPERATORS.impl("draw_keys", _keys, "CompositeExplicitAutograd")
_OPERATORS.impl("draw_keys", _keys_on_card, "CUDA")
_OPERATORS.impl("draw_keys", _keys_shape, "Meta")


def indices(
    shape: torch.Size,
    *,
    start: int = 0,
    rows: torch.Tensor | None = None,
    part: Part = WHOLE,
    device: torch.device,
) -> torch.Tensor:
    """The index of each element within the whole parameter, int64, of a piece that begins at `start`, or of its rows;
    or of the elements of a shard, which `part` says where they are."""
    n = shape.numel()
    if rows is None:
        index = torch.arange(start, start + n, dtype=torch.int64, device=device).view(shape)
        if part.length == part.stride:
            return index + part.first if part.first else index
        return part.first + index // part.length * part.stride + index % part.length
    width = n // max(rows.numel(), 1)
    # as if the rows were still within the whole parameter: they draw what they would draw there
    first = rows.to(device, torch.int64)[:, None] * width
    return (first + torch.arange(width, dtype=torch.int64, device=device)).view(shape)


def words_of(index: torch.Tensor, key0: Word, key1: Word) -> torch.Tensor:
    """The words of the elements with these indices, under two of the keys."""
    # three words are less than 2^34: one mask at the end is enough
    x = (_times(index & _LOW, LOW_FACTOR) + _times(index >> 32, HIGH_FACTOR) + _on(key0, index)) & _LOW
    # no mask behind the shifts: words are not negative in int64, so nothing but zeros comes in
    x = x ^ (x >> 16)
    x = _times(x, FIRST_FACTOR) ^ _on(key1, index)
    x = x ^ (x >> 15)
    x = _times(x, SECOND_FACTOR)
    return x ^ (x >> 16)


def upper24(words: torch.Tensor) -> torch.Tensor:
    """The upper 24 bits, which decide, int32."""
    # 24 bits fit an int32 whatever the word
    return (words >> 8).to(torch.int32)


def centred(words: torch.Tensor) -> torch.Tensor:
    """u - 1/2 as float32, see `random_words.centred`."""
    # up and down again as int64: the arithmetic shift copies the word's upper bit, as that of an int32 does
    return (((words << 32) >> 40) | 1).to(torch.float32) * 2.0**-24


def moment_words(words: torch.Tensor) -> torch.Tensor:
    """The words of the second moments."""
    return _times(words, MOMENT_FACTOR)


def momentum_words(words: torch.Tensor) -> torch.Tensor:
    """The words of the momenta."""
    return _times(words, MOMENTUM_FACTOR)


def _on(key: Word, like: torch.Tensor) -> Word:
    return key.to(like.device) if isinstance(key, torch.Tensor) else key


def _times(words: torch.Tensor, factor: int) -> torch.Tensor:
    """Words times a factor modulo 2^32."""
    # the mask of a negative product is its residue too, as int64 is two's complement
    return (words * (factor - (1 << 32) if factor >= _HALF else factor)) & _LOW
