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
from typing import Any, NamedTuple

import torch

from lnsnum.arithmetic import MAX_DENOMINATOR, MAX_NUMERATOR
from lnsnum.torch_bridge.datapath import activations
from lnsnum.torch_bridge.datapath.operands import Bench, check_shapes, plain
from lnsnum.torch_bridge.datapath.unit import Unit, Word

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
    aten.sigmoid.default: Pointwise(1, activations.sigmoid),
    aten.sigmoid_backward.default: Pointwise(2, activations.sigmoid_backward),
    aten.tanh.default: Pointwise(1, activations.tanh),
    aten.tanh_backward.default: Pointwise(2, activations.tanh_backward),
    aten.silu.default: Pointwise(1, activations.silu),
    aten.silu_backward.default: Pointwise(2, activations.silu_backward),
    aten.gelu.default: Pointwise(1, activations.gelu),
    aten.gelu_backward.default: Pointwise(2, activations.gelu_backward),
    aten.elu.default: Pointwise(1, activations.elu),
    aten.softplus.default: Pointwise(1, activations.softplus),
    aten.softplus_backward.default: Pointwise(2, activations.softplus_backward),
    aten._prelu_kernel.default: Pointwise(2, activations.prelu),
    aten.leaky_relu.default: Pointwise(1, activations.leaky),
    aten.leaky_relu_backward.default: Pointwise(2, activations.leaky_backward),
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
    check_shapes(bench.at.name, tensors)
    read = [bench.read_masked(x) for x in operands]
    word = how.rule(bench.unit, *(one for one, _ in read), *rest, **kwargs)
    if word is NotImplemented:
        return NotImplemented
    out = bench.write(word, dtype)
    infinite = [torch.from_numpy(mask) for _, mask in read if mask is not None]
    if infinite:
        where = reduce(torch.logical_or, infinite)
        out = torch.where(where, func(*(plain(x) for x in operands), *rest, **kwargs), out)
    return out


def _result_type(operands: tuple[Any, ...]) -> torch.dtype | None:
    """That of torch's result; None where it is no float."""
    # a number of Python's, and a tensor without dimensions, decides only among its own
    dtype = operands[0].dtype if isinstance(operands[0], torch.Tensor) else torch.bool
    if len(operands) > 1:
        dtype = torch.result_type(operands[0], operands[1])
    for more in operands[2:]:
        dtype = torch.promote_types(dtype, more.dtype) if more.ndim else dtype
    return dtype if dtype.is_floating_point else None


def _elu_backward(
    bench: Bench, grad: torch.Tensor, alpha: float, scale: float, input_scale: float, is_result: bool, x: torch.Tensor
) -> Any:
    def own(grad: torch.Tensor, x: torch.Tensor, *rest: Any) -> Any:
        return aten.elu_backward(grad, *rest, x)

    return compute(
        Pointwise(2, activations.elu_backward), bench, own, (grad, x, alpha, scale, input_scale, is_result), {}
    )


def _prelu_backward(bench: Bench, grad: torch.Tensor, x: torch.Tensor, slope: torch.Tensor) -> Any:
    """What belongs to the slopes has the shape of the numbers: autograd adds it up."""
    whole = aten._prelu_kernel_backward
    dx = compute(Pointwise(3, activations.prelu_backward), bench, lambda *three: whole(*three)[0], (grad, x, slope), {})
    own = Pointwise(2, activations.prelu_slope_backward)
    return dx, compute(own, bench, lambda *two: whole(*two, slope)[1], (grad, x), {})


OTHERS: dict[Any, Callable[..., Any]] = {
    aten.elu_backward.default: _elu_backward,
    aten._prelu_kernel_backward.default: _prelu_backward,
}
"""Those whose operands do not come first, or that give two results."""
