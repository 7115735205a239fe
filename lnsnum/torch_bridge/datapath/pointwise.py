"""Operations on each element by itself: aten's, and what each is composed of.

Operands broadcast as torch's do, and numbers of Python's are constants. Where an operand is infinite, the result is
torch's: a choice between numbers, as of a mask that is added. What only chooses and moves (relu, abs, maximum, where)
needs nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from itertools import zip_longest
from typing import Any, NamedTuple

import torch

from lnsnum.arithmetic import MAX_DENOMINATOR, MAX_NUMERATOR
from lnsnum.torch_bridge.datapath.operands import Bench, plain
from lnsnum.torch_bridge.datapath.unit import Unit, Word
from lnsnum.torch_bridge.kernels import codes as bridge

aten = torch.ops.aten


class Pointwise(NamedTuple):
    """How an operation is made.

    The first `operands` arguments are numbers or tensors, which `rule` gets as words; all others as they are.
    """

    operands: int
    rule: Callable[..., Any]


def _add(u: Unit, a: Word, b: Word, *, alpha: float = 1) -> Word:
    return u.add(a, u.scaled(b, alpha))


def _subtract(u: Unit, a: Word, b: Word, *, alpha: float = 1) -> Word:
    return u.subtract(a, u.scaled(b, alpha))


def _subtract_from(u: Unit, a: Word, b: Word, alpha: float = 1) -> Word:
    return u.subtract(b, u.scaled(a, alpha))


def _power(u: Unit, a: Word, exponent: float) -> Any:
    if not math.isfinite(exponent):
        return NotImplemented
    n = Fraction(exponent)
    if abs(n.numerator) > MAX_NUMERATOR or n.denominator > MAX_DENOMINATOR:
        return NotImplemented
    return u.power(a, n)


def _divide(u: Unit, a: Word, b: Word, *, rounding_mode: str | None = None) -> Any:
    # a quotient that is rounded to an integer is no number of LNS
    return u.divide(a, b) if rounding_mode is None else NotImplemented


def _product_added(u: Unit, a: Word, b: Word, c: Word, *, value: float = 1) -> Word:
    return u.add(a, u.scaled(u.multiply(b, c), value))


def _sigmoid(u: Unit, a: Word) -> Word:
    return u.divide(u.constant(1.0), u.add(u.constant(1.0), u.exp(u.negate(a))))


def _sigmoid_backward(u: Unit, grad: Word, y: Word) -> Word:
    return u.multiply(grad, u.multiply(y, u.subtract(u.constant(1.0), y)))


def _tanh(u: Unit, a: Word) -> Word:
    """(1 - e^-2a) / (1 + e^-2a) of |a|, whose terms are within 2; the sign comes last."""
    negative = (a.codes & u.fmt.sign_bit) != 0
    size = u.select(negative, u.negate(a), a)
    small = u.exp(u.scaled(size, -2.0))
    out = u.divide(u.subtract(u.constant(1.0), small), u.add(u.constant(1.0), small))
    return u.select(negative, u.negate(out), out)


def _tanh_backward(u: Unit, grad: Word, y: Word) -> Word:
    return u.multiply(grad, u.subtract(u.constant(1.0), u.multiply(y, y)))


def _silu(u: Unit, a: Word) -> Word:
    return u.multiply(a, _sigmoid(u, a))


def _silu_backward(u: Unit, grad: Word, a: Word) -> Word:
    s, one = _sigmoid(u, a), u.constant(1.0)
    return u.multiply(grad, u.multiply(s, u.add(one, u.multiply(a, u.subtract(one, s)))))


def _leaky(u: Unit, a: Word, slope: float = 0.01) -> Word:
    return u.select((a.codes & u.fmt.sign_bit) != 0, u.scaled(a, slope), a)


def _leaky_backward(u: Unit, grad: Word, a: Word, slope: float, is_result: bool) -> Word:
    positive = ((a.codes & u.fmt.sign_bit) == 0) & (a.codes != 0)
    return u.select(positive, grad, u.scaled(grad, slope))


POINTWISE: dict[Any, Pointwise] = {
    aten.add.Tensor: Pointwise(2, _add),
    aten.add.Scalar: Pointwise(2, lambda u, a, b, alpha=1: _add(u, a, b, alpha=alpha)),
    aten.sub.Tensor: Pointwise(2, _subtract),
    aten.sub.Scalar: Pointwise(2, lambda u, a, b, alpha=1: _subtract(u, a, b, alpha=alpha)),
    aten.rsub.Tensor: Pointwise(2, _subtract_from),
    aten.rsub.Scalar: Pointwise(2, _subtract_from),
    aten.mul.Tensor: Pointwise(2, Unit.multiply),
    aten.mul.Scalar: Pointwise(2, Unit.multiply),
    aten.div.Tensor: Pointwise(2, _divide),
    aten.div.Scalar: Pointwise(2, _divide),
    aten.div.Tensor_mode: Pointwise(2, _divide),
    aten.addcmul.default: Pointwise(3, _product_added),
    aten.reciprocal.default: Pointwise(1, lambda u, a: u.power(a, Fraction(-1))),
    aten.sqrt.default: Pointwise(1, lambda u, a: u.power(a, Fraction(1, 2))),
    aten.rsqrt.default: Pointwise(1, lambda u, a: u.power(a, Fraction(-1, 2))),
    aten.pow.Tensor_Scalar: Pointwise(1, _power),
    aten.exp.default: Pointwise(1, Unit.exp),
    aten.log.default: Pointwise(1, Unit.log),
    aten.sigmoid.default: Pointwise(1, _sigmoid),
    aten.sigmoid_backward.default: Pointwise(2, _sigmoid_backward),
    aten.tanh.default: Pointwise(1, _tanh),
    aten.tanh_backward.default: Pointwise(2, _tanh_backward),
    aten.silu.default: Pointwise(1, _silu),
    aten.silu_backward.default: Pointwise(2, _silu_backward),
    aten.leaky_relu.default: Pointwise(1, _leaky),
    aten.leaky_relu_backward.default: Pointwise(2, _leaky_backward),
}
"""By operation; those that write in place are added by `elementwise`."""


def compute(how: Pointwise, bench: Bench, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """The result, as a new tensor; NotImplemented where it is of integers, or no composition is known."""
    operands, rest = args[: how.operands], args[how.operands :]
    if not all(math.isfinite(factor) for factor in (*rest, *kwargs.values()) if isinstance(factor, float)):
        return NotImplemented  # alpha, a slope: infinite factors are no codes
    tensors = [x for x in operands if isinstance(x, torch.Tensor)]
    dtype = _result_type(operands)
    if dtype is None:
        return NotImplemented
    bench.shop.check(*(x for x in tensors if x.is_floating_point()), name=bench.at.name)
    _check_shapes(bench.at.name, tensors)
    read = [bench.read_masked(x) for x in operands]
    word = how.rule(bench.unit, *(one for one, _ in read), *rest, **kwargs)
    if word is NotImplemented:
        return NotImplemented
    out = bench.write(word, dtype)
    infinite = [torch.from_numpy(mask) for _, mask in read if mask is not None]
    if infinite:
        where = reduce(torch.logical_or, infinite)
        out = torch.where(where, func(*(plain(x) for x in operands), *rest, **kwargs), out)
    return _as_torch_would(out, tensors)


def _check_shapes(name: str, tensors: list[torch.Tensor]) -> None:
    shapes = [tuple(x.shape) for x in tensors]
    if len(set(shapes)) > 1:
        for lengths in zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
            if len({*lengths, 1}) > 2:
                raise RuntimeError(f"{name} of shapes {' and '.join(map(str, shapes))}, which do not broadcast")


def _result_type(operands: tuple[Any, ...]) -> torch.dtype | None:
    """That of torch's result; None where it is no float."""
    dtype = operands[0].dtype if isinstance(operands[0], torch.Tensor) else torch.bool
    if len(operands) > 1:
        dtype = torch.result_type(operands[0], operands[1])
    return dtype if dtype.is_floating_point else None


def _as_torch_would(out: torch.Tensor, tensors: list[torch.Tensor]) -> torch.Tensor:
    """With the strides of the first operand of the whole shape, as torch gives its results."""
    for x in tensors:
        if x.shape == out.shape:
            if x.is_contiguous() or not bridge.is_dense(x):
                return out
            return torch.empty_like(x.detach(), dtype=out.dtype).copy_(out)
    return out
