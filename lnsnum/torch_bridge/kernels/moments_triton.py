"""Madam's state in one byte a weight, in Triton: `moments`, operation by operation."""

from __future__ import annotations

import triton
import triton.language as tl

from lnsnum.torch_bridge.kernels import moments
from lnsnum.torch_bridge.kernels.random_words_triton import moment_word, momentum_word, upper24

_FIELD = tl.constexpr(21)
_ONE, _BELOW = tl.constexpr(1 << 21), tl.constexpr((1 << 21) - 1)
_MOMENT_ZERO = tl.constexpr((127 - moments.MOMENT_BIAS) << 23)
_MOMENTUM_ZERO = tl.constexpr((127 - moments.MOMENTUM_BIAS) << 23)
# powers of two, which are exact as Python's numbers
_PER_MOMENT, _PER_MOMENTUM = (tl.constexpr(float(x)) for x in moments.PER_SMALLEST)
_UNIT = tl.constexpr(float(moments.RANDOM_UNIT))


@triton.jit
def load_moment(code):
    """The values of second-moment codes (int32) at exponent 0."""
    return tl.where(code > 0, ((code << _FIELD) + _MOMENT_ZERO).to(tl.float32, bitcast=True), 0.0)


@triton.jit
def load_momentum(code, scale):
    """The values of momentum codes (int32) times `scale`."""
    size = code & 127
    x = tl.where(size > 0, ((size << _FIELD) + _MOMENTUM_ZERO).to(tl.float32, bitcast=True) * scale, 0.0)
    return tl.where(code > 127, -x, x)


@triton.jit
def moment_code(v, word):
    """Second moments rounded to codes, int32."""
    return _round(v, moment_word(word), _MOMENT_ZERO, _PER_MOMENT, 255)


@triton.jit
def momentum_code(u, word, scale):
    """Momenta times `scale` rounded to signed codes, int32."""
    scaled = u * scale
    size = _round(tl.abs(scaled), momentum_word(word), _MOMENTUM_ZERO, _PER_MOMENTUM, 127)
    return tl.where((scaled < 0.0) & (size > 0), size + 128, size)


@triton.jit
def _round(x, word, zero, per_smallest, greatest):
    """The code of a nonnegative float32, rounded stochastically on the value axis."""
    above = x.to(tl.int32, bitcast=True) - zero
    code = (above + ((word >> 11).to(tl.int32) & _BELOW)) >> _FIELD
    chance = x * per_smallest
    # less than code 1; the bound is for the others, whose product would leave int32
    by_chance = upper24(word) < (tl.where(chance < 1.0, chance, 1.0) * _UNIT).to(tl.int32)
    code = tl.where(above < _ONE, by_chance.to(tl.int32), code)
    return tl.where(code < greatest, code, greatest)
