"""Activations in LNS and their gradients: every bit is that of the composition that docs/datapath.md names."""

import math

import numpy as np
import pytest
import scalar_datapath as scalar
import torch
from elementwise_fixtures import ADD, W, every_accumulator, floats, rounded, same, within
from scalar_unit import ScalarUnit
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("one_thread")

ONE, HALF_SQUARE, DENSITY = 1.0, -0.5, 1 / math.sqrt(2 * math.pi)
CUBE, BY_TANH = 0.044715, 2 * math.sqrt(2 / math.pi)


def below(x):
    return scalar.decoded(x) < 0


def above(x):
    return scalar.decoded(x) > 0


def sigmoid(u, x):
    small = u.exp(u.negate(u.absolute(x)))
    return u.divide(u.select(below(x), small, u.encode(ONE)), u.add(u.encode(ONE), small))


def tanh(u, x):
    small = u.exp(u.scaled(u.absolute(x), -2.0))
    out = u.divide(u.subtract(u.encode(ONE), small), u.add(u.encode(ONE), small))
    return u.select(below(x), u.negate(out), out)


def silu_gradient(u, e, x, y):
    s = sigmoid(u, x)
    return u.multiply(e, u.multiply(s, u.add(u.encode(ONE), u.multiply(x, u.subtract(u.encode(ONE), s)))))


def gelu_gradient(u, e, x, y):
    density = u.scaled(u.exp(u.scaled(u.multiply(x, x), HALF_SQUARE)), DENSITY)
    return u.multiply(e, u.add(u.normal(x), u.multiply(x, density)))


def by_tanh(u, x):
    return sigmoid(u, u.scaled(u.add(x, u.scaled(u.power(x, 3), CUBE)), BY_TANH))


def by_tanh_gradient(u, e, x, y):
    s, one = by_tanh(u, x), u.encode(ONE)
    slope = u.scaled(u.add(one, u.scaled(u.multiply(x, x), 3 * CUBE)), BY_TANH)
    return u.multiply(e, u.add(s, u.multiply(x, u.multiply(u.multiply(s, u.subtract(one, s)), slope))))


def softplus(u, x):
    by = u.scaled(x, 2.0)
    positive = u.encode(np.where(below(by), 0.0, scalar.decoded(by)))
    out = u.divide(u.add(positive, u.log1p(u.exp(u.negate(u.absolute(by))))), u.encode(2.0))
    return u.select(scalar.decoded(by) > 3.0, x, out)


def softplus_gradient(u, e, x, y):
    by = u.scaled(x, 2.0)
    return u.select(scalar.decoded(by) > 3.0, e, u.multiply(e, sigmoid(u, by)))


def negative(u, x):
    """Zero in the place of what is positive."""
    return u.encode(np.where(above(x), 0.0, scalar.decoded(x)))


def elu_gradient(u, e, x, y):
    slope = u.scaled(u.exp(negative(u, x)), 0.7)
    return u.select(above(x), e, u.multiply(e, slope))


RULES = {
    "sigmoid": (
        lambda x: x.sigmoid(),
        sigmoid,
        lambda u, e, x, y: u.multiply(e, u.multiply(y, u.subtract(u.encode(ONE), y))),
    ),
    "tanh": (
        lambda x: x.tanh(),
        tanh,
        lambda u, e, x, y: u.multiply(e, u.subtract(u.encode(ONE), u.multiply(y, y))),
    ),
    # at the call, as the name is another function within a datapath
    "silu": (lambda x: functional.silu(x), lambda u, x: u.multiply(x, sigmoid(u, x)), silu_gradient),
    "gelu": (lambda x: functional.gelu(x), lambda u, x: u.multiply(x, u.normal(x)), gelu_gradient),
    "gelu by tanh": (
        lambda x: functional.gelu(x, approximate="tanh"),
        lambda u, x: u.multiply(x, by_tanh(u, x)),
        by_tanh_gradient,
    ),
    "leaky relu": (
        lambda x: functional.leaky_relu(x, 0.3),
        lambda u, x: u.select(above(x), x, u.scaled(x, 0.3)),
        lambda u, e, x, y: u.select(above(x), e, u.scaled(e, 0.3)),
    ),
    "elu": (
        lambda x: functional.elu(x, 0.7),
        lambda u, x: u.select(above(x), x, u.scaled(u.expm1(negative(u, x)), 0.7)),
        elu_gradient,
    ),
    "elu in place": (
        lambda x: functional.elu(x + 0.0, 0.7, inplace=True),
        lambda u, x: u.select(above(x), x, u.scaled(u.expm1(negative(u, x)), 0.7)),
        lambda u, e, x, y: u.select(above(y), e, u.multiply(e, u.add(negative(u, y), u.encode(0.7)))),
    ),
    "softplus": (lambda x: functional.softplus(x, 2.0, 3.0), softplus, softplus_gradient),
}


@every_accumulator
@pytest.mark.parametrize("name", RULES)
def test_both_passes(name, add):
    function, forward, backward = RULES[name]
    u, x, y = ScalarUnit(add), floats(3, 2).T.requires_grad_(), floats(2, 3, seed=1)
    with within(add) as path:
        out = function(x)
        out.backward(y)
    a = u.encode(x.detach())
    same(out, forward(u, a))
    same(x.grad, backward(u, u.encode(y), a, u.encode(out.detach())))
    assert path.report().in_float == {}


def test_slopes_that_are_learned():
    u, x, y = ScalarUnit(ADD), floats(2, 3, 2).requires_grad_(), floats(2, 3, 2, seed=1)
    layer = nn.PReLU(3)
    layer.weight.data = floats(3, seed=2).abs() + 0.1
    with within() as path:
        out = layer(x)
        out.backward(y)
    a, e = u.encode(x.detach()), u.encode(y)
    w = u.placed(scalar.encoded(layer.weight.detach().reshape(1, 3, 1), W))
    same(out, u.select(above(a), a, u.multiply(a, w)))
    same(x.grad, u.select(above(a), e, u.multiply(e, w)))
    each = u.encode(np.where(above(a), 0.0, scalar.decoded(u.multiply(e, a))))
    # autograd adds over images, then over places
    same(layer.weight.grad, rounded(u.total(each, (0, 2))))
    assert path.report().in_float == {}


WIDE = torch.tensor([-90.0, -30.0, -3.0, -1e-3, 0.0, 1e-3, 3.0, 30.0, 90.0])


@pytest.mark.parametrize("name", RULES)
def test_beside_large_numbers(name):
    """A scale has 32 octaves here, and e^90 is 130: what underflows beside it would make NaN of others."""
    function = RULES[name][0]
    x, y = (WIDE.clone().requires_grad_() for _ in range(2))
    with within():
        out = function(x)
        out.sum().backward()
    expected = function(y)
    expected.sum().backward()
    for found, own in ((out, expected), (x.grad, y.grad)):
        torch.testing.assert_close(found.detach(), own.detach(), rtol=0.1, atol=0.03)


@pytest.mark.parametrize("numbers", [[2.0, math.nan, -1.0], [math.nan]], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_nan_stays_with_itself(name, numbers):
    """It has no say in the scale of the others, and where there are none has none."""
    function = RULES[name][0]
    x, y = (torch.tensor(numbers).requires_grad_() for _ in range(2))
    with within():
        out = function(x)
        out.sum().backward()
    expected = function(y)
    expected.sum().backward()
    torch.testing.assert_close(out.detach(), expected.detach(), rtol=0.1, atol=0.03, equal_nan=True)
    # at NaN itself torch's gradient of elu is a number
    others = ~y.detach().isnan()
    torch.testing.assert_close(x.grad[others], y.grad[others], rtol=0.1, atol=0.03)
