"""What networks bend their numbers with: the compositions of sigmoid, tanh, silu, gelu, the kin of relu, and gradients.

    s(a)  =  1 / (1 + e^-a)         Phi(a)  =  (1 + erf(a / sqrt 2)) / 2         phi(a)  =  e^(-a a / 2) / sqrt(2 pi)

Phi, e^a - 1 and ln(1 + a) are the nearest code, as of tables in hardware: their compositions would lose what is small.
What is not chosen is a zero, and powers of e are of what is negative: one scale has few octaves, in which a large
number that nobody asks for would make zeros of others.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lnsnum.torch_bridge.datapath.unit import Unit, Word


def _is_negative(u: Unit, a: Word) -> NDArray[np.bool_]:
    return np.asarray((a.codes & u.fmt.sign_bit) != 0)


def _is_positive(u: Unit, a: Word) -> NDArray[np.bool_]:
    return np.asarray((a.codes != 0) & ((a.codes & u.fmt.sign_bit) == 0))


def sigmoid(u: Unit, a: Word) -> Word:
    """1 / (1 + t), or t / (1 + t) below zero, with t = e^-|a|: within 2, so that nothing but t underflows."""
    small, one = u.exp(u.negate(u.absolute(a))), u.constant(1.0)
    return u.divide(u.select(_is_negative(u, a), small, one), u.add(one, small))


def sigmoid_backward(u: Unit, grad: Word, y: Word) -> Word:
    """Dy (y (1 - y))."""
    return u.multiply(grad, u.multiply(y, u.subtract(u.constant(1.0), y)))


def tanh(u: Unit, a: Word) -> Word:
    """(1 - e^-2a) / (1 + e^-2a) of |a|, whose terms are within 2; the sign comes last."""
    small, one = u.exp(u.scaled(u.absolute(a), -2.0)), u.constant(1.0)
    out = u.divide(u.subtract(one, small), u.add(one, small))
    return u.select(_is_negative(u, a), u.negate(out), out)


def tanh_backward(u: Unit, grad: Word, y: Word) -> Word:
    """Dy (1 - y y)."""
    return u.multiply(grad, u.subtract(u.constant(1.0), u.multiply(y, y)))


def silu(u: Unit, a: Word) -> Word:
    """A sigmoid a."""
    return u.multiply(a, sigmoid(u, a))


def silu_backward(u: Unit, grad: Word, a: Word) -> Word:
    """Dy (s (1 + a (1 - s)))."""
    s, one = sigmoid(u, a), u.constant(1.0)
    return u.multiply(grad, u.multiply(s, u.add(one, u.multiply(a, u.subtract(one, s)))))


def leaky(u: Unit, a: Word, slope: float = 0.01) -> Word:
    """A, or slope a below zero."""
    return u.select(_is_positive(u, a), a, u.scaled(a, slope))


def leaky_backward(u: Unit, grad: Word, a: Word, slope: float, is_result: bool) -> Word:
    """Dy, or slope dy."""
    return u.select(_is_positive(u, a), grad, u.scaled(grad, slope))


def prelu(u: Unit, a: Word, slope: Word) -> Word:
    """A, or slope a below zero, of slopes that are numbers too."""
    positive = _is_positive(u, a)
    return u.select(positive, a, u.multiply(u.zeroed(positive, a), slope))


def prelu_backward(u: Unit, grad: Word, a: Word, slope: Word) -> Word:
    """Dy, or slope dy."""
    positive = _is_positive(u, a)
    return u.select(positive, grad, u.multiply(u.zeroed(positive, grad), slope))


def prelu_slope_backward(u: Unit, grad: Word, a: Word) -> Word:
    """Dy a below zero, else zero."""
    return u.multiply(grad, u.zeroed(_is_positive(u, a), a))


def elu(u: Unit, a: Word, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Word:
    """A, or alpha (e^a - 1) below zero, each times its scale."""
    positive = _is_positive(u, a)
    below = u.scaled(u.expm1(u.scaled(u.zeroed(positive, a), input_scale)), alpha * scale)
    return u.select(positive, u.scaled(a, scale), below)


def elu_backward(
    u: Unit, grad: Word, a: Word, alpha: float, scale: float, input_scale: float, is_result: bool
) -> Word:  # fmt: skip
    """Dy scale, or dy (input_scale (y + alpha scale)), of which the last is alpha scale e^(input_scale a)."""
    positive = _is_positive(u, a)
    a = u.zeroed(positive, a)
    if is_result:
        slope = u.add(a, u.constant(alpha * scale))
    else:
        slope = u.scaled(u.exp(u.scaled(a, input_scale)), alpha * scale)
    return u.select(positive, u.scaled(grad, scale), u.multiply(grad, u.scaled(slope, input_scale)))


def softplus(u: Unit, a: Word, beta: float = 1, threshold: float = 20) -> Word:
    """(max(b, 0) + ln(1 + e^-|b|)) / beta with b = beta a, or a where b is above the threshold."""
    by = u.scaled(a, beta)
    out = u.add(u.zeroed(_is_negative(u, by), by), u.log1p(u.exp(u.negate(u.absolute(by)))))
    return u.select(_is_above(u, by, threshold), a, u.divide(out, u.constant(beta)))


def softplus_backward(u: Unit, grad: Word, a: Word, beta: float, threshold: float) -> Word:
    """Dy s(beta a), or dy."""
    by = u.scaled(a, beta)
    return u.select(_is_above(u, by, threshold), grad, u.multiply(grad, sigmoid(u, by)))


def _is_above(u: Unit, a: Word, threshold: float) -> NDArray[np.bool_]:
    return np.asarray(u.decode(a, "float64") > threshold)


_TANH_CUBE, _TANH_SCALE = 0.044715, 2.0 * math.sqrt(2.0 / math.pi)
"""Of gelu by tanh: (1 + tanh z) / 2 = s(2 z), with 2 z = scale (a + cube a^3)."""


def gelu(u: Unit, a: Word, *, approximate: str = "none") -> Word:
    """A Phi(a); by tanh a s(2 z)."""
    return u.multiply(a, u.normal(a) if approximate == "none" else _by_tanh(u, a))


def gelu_backward(u: Unit, grad: Word, a: Word, *, approximate: str = "none") -> Word:
    """Dy (Phi + a phi); by tanh dy (s + a ((s (1 - s)) (2 z)'))."""
    if approximate == "none":
        density = u.scaled(u.exp(u.scaled(u.multiply(a, a), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
        return u.multiply(grad, u.add(u.normal(a), u.multiply(a, density)))
    s, one = _by_tanh(u, a), u.constant(1.0)
    slope = u.scaled(u.add(one, u.scaled(u.multiply(a, a), 3.0 * _TANH_CUBE)), _TANH_SCALE)
    along = u.multiply(a, u.multiply(u.multiply(s, u.subtract(one, s)), slope))
    return u.multiply(grad, u.add(s, along))


def _by_tanh(u: Unit, a: Word) -> Word:
    cube = u.scaled(u.power(a, Fraction(3)), _TANH_CUBE)
    return sigmoid(u, u.scaled(u.add(a, cube), _TANH_SCALE))
