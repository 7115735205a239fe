"""Operations on tensors: operands, a function of `lnsnum.arithmetic` or `lnsnum.reduction`, and where the result goes.

    tensors, numbers  ->  operands of one kind  ->  a function on codes  ->  a tensor, or one rounding into `out`

A result that goes into a tensor that is there already is computed at that tensor's scale: for scales of channels, once
for the elements of each scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum import arithmetic, reduction
from lnsnum.arithmetic import order_key
from lnsnum.array.fitted_scales import scale_that_fits
from lnsnum.array.rationals import as_rational, is_number
from lnsnum.array.scalars import exact_somewhere, key_at, key_of_number, not_exact
from lnsnum.array.storage import S, ScaledCodes, holds_tensor, in_groups
from lnsnum.format import LNSFormat, Rounding, check_choice
from lnsnum.kernels.codes import Codes, LogOffset, check_codes, check_offsets, each_offset
from lnsnum.kernels.granularity import check_granularity
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.operations.choosing import related
from lnsnum.operations.order import Relation, relate_to
from lnsnum.operations.prepared import LARGEST, prepared, prepared_sum
from lnsnum.operations.reducing import axes_of
from lnsnum.operations.sums import EXACT

Bools = NDArray[np.bool_]

INSTEAD = "give it floats, by to_float()"


def refusal(name: str, instead: str = INSTEAD) -> TypeError:
    """The error of a NumPy function that takes no tensors."""
    return TypeError(f"numpy.{name} does not take LNSTensors: {instead}")


def refuse_tensor(name: str, argument: str, value: object) -> None:
    """Raise TypeError where a tensor is given, alone or in a list, as an argument that is none of the operands.

    NumPy would look at it as at an operand, and call the function again.
    """
    if holds_tensor(value):
        raise TypeError(f"numpy.{name} takes no LNSTensor as {argument}: give plain numbers, by tolist()")


def not_operand(value: object, like: ScaledCodes, what: str) -> TypeError:
    """The error of what is neither a tensor nor a number."""
    return TypeError(
        f"{what} of {type(like).__name__} and {type(value).__name__}: "
        f"make it one with LNSTensor.from_float(x, {like.fmt.name!r}), or take floats with to_float()"
    )


def as_operand(value: object, like: S, what: str) -> S:
    """The other operand of an operation with `like`: a tensor as it is, a number where nothing is rounded.

    A number is taken at the scale of `like`, or, where `like` has another scale than 0, at any at which it is exact.
    It has no axes.

    Raises:
        TypeError: for arrays, and all that is neither a tensor nor a number.
        ValueError: for numbers that are not in the format.
    """
    if isinstance(value, ScaledCodes):
        return cast(S, value)
    fmt, offset = like.fmt, like.log_offset
    if not is_number(value) and as_rational(value) is None:
        raise not_operand(value, like, what)
    is_scaled = offset != 0 if type(offset) is int else bool(each_offset(offset).any())
    found = exact_somewhere(value, fmt, offset if isinstance(offset, int) else 0, is_scaled)
    if found is None:
        raise not_exact(value, fmt, "" if is_scaled else " at log_offset 0")
    return like._of(found[0], fmt, found[1])


def is_foreign(other: object) -> bool:
    """Whether a class is none of Python's or NumPy's own, no number and no array: it says what an operator does."""
    kind = type(other)
    if kind is object:
        return True
    own = isinstance(other, (ScaledCodes, np.ndarray, np.generic)) or kind.__module__ == "builtins"
    return not own and not is_number(other) and not hasattr(kind, "__array__")


def knows(other: object, method: str) -> bool:
    """Whether the other operand is asked first: a class that has the method, or that takes no part in ufuncs."""
    if not isinstance(other, ScaledCodes) and getattr(other, "__array_ufunc__", ...) is None:
        return True  # as for NumPy's arrays
    return is_foreign(other) and getattr(type(other), method, None) not in (None, getattr(object, method, None))


def as_operands(values: Sequence[object], what: str) -> list[ScaledCodes]:
    """All operands of an operation, one of which at least is a tensor."""
    first = next((value for value in values if isinstance(value, ScaledCodes)), None)
    if first is None:
        raise TypeError(f"{what}: none of the numbers is an LNSTensor; make one of them one with LNSTensor.from_float")
    return [as_operand(value, first, what) for value in values]


def check_one_format(tensors: Sequence[ScaledCodes], what: str, *, has_out_format: bool) -> None:
    """Raise TypeError where there are two formats."""
    for tensor in tensors:
        if tensor.fmt != tensors[0].fmt:
            out_format = ", or name out_format" if has_out_format else ""
            raise TypeError(
                f"{what} of {tensors[0].fmt.name} and {tensor.fmt.name}: "
                f"bring both to one format with astype or lnsnum.convert{out_format}"
            )


def call(function: Callable[..., Any], tensors: Sequence[ScaledCodes], options: Any) -> tuple[Codes, int]:
    """A function of arithmetic or reduction on the codes of one, two or three tensors."""
    first = tensors[0]
    named = dict(options)
    for name in named:
        if name.endswith(("_format", "log_offset")) and not name.startswith("out_"):
            raise TypeError(f"{name} is no option of tensors: each carries its own format and scale")
    if isinstance(named.get("out_format"), str):
        named["out_format"] = LNSFormat.parse(named["out_format"])
    if named.get("out_format") is None:
        named.pop("out_format", None)
        check_one_format(tensors, function.__name__, has_out_format=function not in _OWN_FORMAT)
    for letter, tensor in zip("abc", tensors, strict=False):
        named[f"{letter}_log_offset" if len(tensors) > 1 else "log_offset"] = tensor.log_offset
        if tensor.fmt != first.fmt:
            named[f"{letter}_format"] = tensor.fmt
    result: tuple[Codes, int] = function(*(tensor.codes for tensor in tensors), first.fmt, **named)
    return result


def quickly(function: Callable[..., Any], a: object, b: object) -> Any:
    """The result of an operation on two tensors, as operators do it, prepared once for each scale.

    None where that does not serve: other formats, scales of channels, shapes to be broadcast, large arrays.
    """
    if type(a) is not type(b) or not isinstance(a, ScaledCodes) or not isinstance(b, ScaledCodes):
        return None
    x, y, fmt, a_offset, b_offset = a._codes, b._codes, a._fmt, a._log_offset, b._log_offset
    if x.shape != y.shape:
        # a number beside an array
        x = np.full(y.shape, x) if x.ndim == 0 else x
        y = np.full(x.shape, y) if y.ndim == 0 else y
    if type(a_offset) is not int or type(b_offset) is not int or x.shape != y.shape or not 0 < x.size <= LARGEST:
        return None
    if (b._fmt is not fmt and b._fmt != fmt) or not (x.flags.c_contiguous and y.flags.c_contiguous):
        return None
    operation = prepared(function.__name__, fmt, a_offset, b_offset)
    if operation is None:
        return None
    # codes with bits to spare are looked at: they are kept, not copied, and may have changed
    if fmt.bits < 8 * x.itemsize:
        check_codes(x, fmt)
        check_codes(y, fmt)
    if x.ndim == 1:
        found = operation(x, y)
        return None if found is None else a._of(found[0], fmt, found[1])
    found = operation(x.reshape(-1), y.reshape(-1))
    return None if found is None else a._of(found[0].reshape(x.shape), fmt, found[1])


def apply(function: Callable[..., Any], tensors: Sequence[S], **options: Any) -> S:
    """A new tensor of the results: options as of the function."""
    if len(tensors) == 2 and not options:
        found = quickly(function, *tensors)
        if found is not None:
            return cast(S, found)
    each = {name: options.pop(name, None) for name in ("channels", "group_size")}
    if any(value is not None for value in each.values()):
        options["out_log_offset"] = _fitting(function, tensors, options, **each)
    if isinstance(options.get("out_log_offset"), (np.ndarray, GroupOffsets)) and not _sums(function):
        return _at_scales(function, tensors, options)
    codes, log_offset = call(function, tensors, options)
    return tensors[0]._of(codes, LNSFormat.of(options.get("out_format") or tensors[0].fmt), log_offset)


def _sums(function: Callable[..., Any]) -> bool:
    """Whether a result is of several elements of an operand, so that it has not their shape."""
    return function.__module__ == reduction.__name__


def _fitting(
    function: Callable[..., Any], tensors: Sequence[S], options: dict[str, Any], channels: object, group_size: object
) -> LogOffset:
    """The scale that fits each channel or group of the results."""
    name = "group_size" if channels is None else "channels"
    if _sums(function) or function in _OWN_FORMAT:
        raise TypeError(
            f"{name} is of results that are rounded one by one, and {function.__name__} has one scale: "
            f"give its result to astype(fmt, {name}=...)"
        )
    given = options.get("out_log_offset")
    if not (given is None or (isinstance(given, str) and given == "fit")):
        raise ValueError(f'{name} asks for scales that fit, and out_log_offset gives one: leave it out, or say "fit"')
    shape = np.broadcast_shapes(*(tensor.shape for tensor in tensors))
    granularity = check_granularity(channels, group_size, shape)
    assert granularity is not None
    if options.get("gaussian") not in (None, EXACT):
        raise TypeError(
            f"{name} looks for scales in a wide format, and an approximate Gaussian logarithm is of one format: give "
            "out_log_offset the scale, such as that of the exact result"
        )
    fmt = LNSFormat.of(options.get("out_format") or tensors[0].fmt)
    rounding = options.get("rounding", "nearest")
    check_choice("rounding", rounding, Rounding)
    own = {key: value for key, value in options.items() if key != "random_bits"}

    def results(chosen: Bools | None, wide: dict[str, Any]) -> tuple[Codes, int]:
        if chosen is not None:
            parts = [t.moved(lambda array: np.broadcast_to(array, shape)[chosen]) for t in tensors]
            return call(function, parts, own | wide)
        codes, offset = call(function, tensors, own | wide)
        return np.broadcast_to(codes, shape), offset

    return scale_that_fits(results, fmt, rounding, shape, granularity)


def _at_scales(function: Callable[..., Any], tensors: Sequence[S], options: dict[str, Any]) -> S:
    """The results, each rounded once at the scale of its channel or group."""
    shape = np.broadcast_shapes(*(tensor.shape for tensor in tensors))
    scale = check_offsets(options["out_log_offset"], shape)
    bits = options.get("random_bits")
    if bits is not None:
        try:
            bits = np.broadcast_to(bits, shape)
        except ValueError:
            raise ValueError(f"random_bits of shape {np.shape(bits)} do not fit results of shape {shape}") from None
    # of no element, so that what is wrong with the other options is said before
    nothing = [t.moved(lambda array: np.broadcast_to(array, shape).reshape(-1)[:0]) for t in tensors]
    call(function, nothing, {**options, "out_log_offset": 0} | ({} if bits is None else {"random_bits": bits.flat[:0]}))
    fmt = LNSFormat.of(options.get("out_format") or tensors[0].fmt)
    codes = np.empty(shape, fmt.dtype)
    for offset, chosen in in_groups(scale, shape):
        parts = [t.moved(lambda array: np.broadcast_to(array, shape)[chosen]) for t in tensors]  # noqa: B023
        own = {} if bits is None else {"random_bits": bits[chosen]}
        codes[chosen] = call(function, parts, {**options, **own, "out_log_offset": offset})[0]
    return tensors[0]._of(codes, fmt, scale)


def apply_into(out: S, function: Callable[..., Any], tensors: Sequence[ScaledCodes], where: object = True) -> S:
    """The results rounded once into the format and the scale of `out`, written where `where` says."""
    shape = check_fits(np.broadcast_shapes(*(tensor.shape for tensor in tensors)), out)
    options: dict[str, Any] = {} if function in _OWN_FORMAT else {"out_format": out.fmt}
    if function in _OWN_FORMAT:
        check_one_format([out, *tensors], function.__name__, has_out_format=False)
    codes = np.empty(shape, out.fmt.dtype)
    for offset, chosen in in_groups(out.log_offset, shape):
        parts = [t.moved(lambda array: np.broadcast_to(array, shape)[chosen]) for t in tensors]  # noqa: B023
        codes[chosen] = call(function, parts, {**options, "out_log_offset": offset})[0]
    np.copyto(out.codes, codes, where=cast(Any, where))
    return out


def check_fits(shape: tuple[int, ...], out: Any, *, exactly: bool = False) -> tuple[int, ...]:
    """The shape of `out`, where a result of this shape broadcasts to it, or is of it; ValueError where it does not."""
    try:
        fits = (shape if exactly else np.broadcast_shapes(out.shape, shape)) == out.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"the result has shape {shape}, which does not fit out, of shape {out.shape}")
    return cast(tuple[int, ...], out.shape)


def store(out: S, result: object, where: object = True, *, same_shape: bool = False) -> S:
    """A tensor rounded once into the format and the scale of `out`, or a number, written where `where` says."""
    if not isinstance(out, ScaledCodes):
        raise TypeError(
            f"LNSTensors go into an LNSTensor, not into a {type(out).__name__}: take floats with to_float()"
        )
    if same_shape:
        check_fits(result.shape if isinstance(result, ScaledCodes) else (), out, exactly=True)
    rounded = out.copy()
    rounded[...] = result
    np.copyto(out.codes, rounded.codes, where=cast(Any, where))
    return out


def clip(a: Codes, lower: Codes, upper: Codes, fmt: LNSFormat, **options: Any) -> tuple[Codes, int]:
    """arithmetic.clip, its offsets named as those of other operations of three."""
    for letter, name in (("a", ""), ("b", "lower_"), ("c", "upper_")):
        options[f"{name}log_offset"] = options.pop(f"{letter}_log_offset")
    return arithmetic.clip(a, lower, upper, fmt, **options)


def cube_root(codes: Codes, fmt: LNSFormat, **options: Any) -> tuple[Codes, int]:
    """The real cube root, correctly rounded to nearest: that of -a is that of a with another sign."""
    to = options.get("out_format") or fmt
    root, log_offset = arithmetic.power(arithmetic.absolute(codes, fmt), Fraction(1, 3), fmt, **options)
    return np.where(codes > fmt.sign_bit, arithmetic.negative(root, to), root), log_offset


_OWN_FORMAT = (arithmetic.minimum, arithmetic.maximum, clip)
"""Those that have no out_format."""


def _of_float(exponent: Any) -> Fraction:
    """A float exponent as the fraction that it is: 0.5 is 1/2."""
    if np.isfinite(exponent):
        n = Fraction(*map(int, exponent.as_integer_ratio()))
        if abs(n.numerator) <= arithmetic.MAX_NUMERATOR and n.denominator <= arithmetic.MAX_DENOMINATOR:
            return n
        near = n.limit_denominator(arithmetic.MAX_DENOMINATOR)
        instead = f"Fraction({near.numerator}, {near.denominator})"
    if not np.isfinite(exponent) or not 0 < abs(near.numerator) <= arithmetic.MAX_NUMERATOR:
        instead = "a fraction"
    raise ValueError(
        f"exponent={exponent!r} is out of range: p/q with |p| at most 2^20 and q at most 1024, and a float is the "
        f"fraction that it is, rounded or not: give {instead}, or a tensor of exponents"
    )


def to_power(base: S, exponent: object, out: S | None = None, where: object = True, **options: Any) -> S:
    """base^exponent: exact or correctly rounded for an integer or a fraction, faithful for a tensor of exponents."""
    if isinstance(exponent, ScaledCodes):
        tensors, function = [base, cast(S, exponent)], cast(Callable[..., Any], arithmetic.float_power)
    else:
        if isinstance(exponent, np.ndarray):
            if exponent.ndim:
                raise TypeError("power of LNSTensor and ndarray: give one integer or Fraction, or a tensor")
            exponent = exponent[()]
        n = cast(Fraction, _of_float(exponent) if isinstance(exponent, (float, np.floating)) else exponent)

        def power(codes: Codes, fmt: LNSFormat, **named: Any) -> tuple[Codes, int]:
            return arithmetic.power(codes, n, fmt, **named)

        tensors, function = [base], power
    return apply(function, tensors, **options) if out is None else apply_into(out, function, tensors, where)


# ------------------------------------------------------------------------------------------- what keeps its scale


def negative(a: S) -> S:
    """-a."""
    return a._of(arithmetic.negative(a.codes, a.fmt), a.fmt, a.log_offset)


def positive(a: S) -> S:
    """A copy, as NumPy's."""
    return a.copy()


def absolute(a: S) -> S:
    """|a|."""
    return a._of(arithmetic.absolute(a.codes, a.fmt), a.fmt, a.log_offset)


def sign(a: S) -> S:
    """-1, 0 or 1, at log_offset 0."""
    return a._of(arithmetic.sign(a.codes, a.fmt), a.fmt)


def copysign(a: S, b: S) -> S:
    """|a| with the sign of b, at the scale of a."""
    check_one_format([a, b], "copysign", has_out_format=False)
    return a._of(arithmetic.copysign(a.codes, b.codes, a.fmt), a.fmt, a.log_offset)


def nextafter(a: S, b: S) -> S:
    """The neighbour of a on the side of b, at the scale of a."""
    check_one_format([a, b], "nextafter", has_out_format=False)
    offsets: Any = {"a_log_offset": a.log_offset, "b_log_offset": b.log_offset}
    return a._of(arithmetic.nextafter(a.codes, b.codes, a.fmt, **offsets), a.fmt, a.log_offset)


# -------------------------------------------------------------------------------------------------- truth values


def isnan(a: ScaledCodes) -> Bools:
    """Which elements are NaN."""
    return arithmetic.isnan(a.codes, a.fmt)


def isinf(a: ScaledCodes) -> Bools:
    """Nowhere: there is no infinity."""
    return np.zeros(a.shape, np.bool_)


def isfinite(a: ScaledCodes) -> Bools:
    """Which elements are numbers."""
    return ~isnan(a)


def signbit(a: ScaledCodes) -> Bools:
    """Which elements are less than zero; zero and NaN have no sign."""
    negative: Bools = a.codes > a.fmt.sign_bit
    return negative


def keys(a: object, like: ScaledCodes) -> tuple[NDArray[np.int64], Bools]:
    """Integers in the order of the values, of tensors and of numbers that no tensor can hold; and which are NaN."""
    if isinstance(a, ScaledCodes):
        return 2 * order_key(a.codes, a.fmt, a.log_offset), isnan(a)
    number = as_rational(a)
    if number is None:
        raise not_operand(a, like, "comparison")
    return np.int64(key_of_number(number, like.fmt)), np.bool_(number != number)  # type: ignore[return-value]


def compare(relation: Callable[..., Any], a: object, b: object) -> Bools:
    """One of the six relations, by value, exactly: across scales, and of tensors with any float."""
    tensors = [x for x in (a, b) if isinstance(x, ScaledCodes)]
    check_one_format(tensors, "comparison", has_out_format=False)
    if relation in (np.equal, np.not_equal):
        other = b if isinstance(a, ScaledCodes) else a
        if other is None or isinstance(other, (str, bytes)) or is_foreign(other):
            return np.full(tensors[0].shape, relation is np.not_equal)
    says = _RELATIONS[relation]
    if isinstance(a, ScaledCodes) and isinstance(b, ScaledCodes):
        return related(says, a.codes, b.codes, a.fmt, a.log_offset, b.log_offset, np.bool_)
    tensor, number = tensors[0], b if isinstance(a, ScaledCodes) else a
    if isinstance(tensor.log_offset, int):
        # a number on the left: what is less than it, it is greater than
        says = says if tensor is a else says._replace(less=says.greater, greater=says.less)
        twice = key_at(number, tensor.fmt, tensor.log_offset)
        if twice is not None:
            return relate_to(check_codes(tensor.codes, tensor.fmt), twice, tensor.fmt, says)
    (x, x_nan), (y, y_nan) = keys(a, tensors[0]), keys(b, tensors[0])
    nan = np.asarray(x_nan | y_nan)
    holds: Bools = relation(x, y)
    return holds | nan if relation is np.not_equal else holds & ~nan


_RELATIONS: dict[Any, Relation] = {
    np.equal: Relation(0, 1, 0, 0),
    np.not_equal: Relation(1, 0, 1, 1),
    np.less: Relation(1, 0, 0, 0),
    np.less_equal: Relation(1, 1, 0, 0),
    np.greater: Relation(0, 0, 1, 0),
    np.greater_equal: Relation(0, 1, 1, 0),
}


def _quick_sum(a: S, axis: Any = None, keepdims: Any = False, **others: Any) -> S | None:
    """The sum of a small tensor of one scale, prepared once for each; None where that does not serve."""
    codes, fmt, log_offset = a._codes, a._fmt, a._log_offset
    if others or type(log_offset) is not int or not 0 < codes.size <= LARGEST or keepdims not in (False, True):
        return None
    add = prepared_sum(fmt, log_offset)
    if add is None or not codes.flags.c_contiguous:
        return None
    if fmt.bits < 8 * codes.itemsize:
        check_codes(codes, fmt)
    axes = tuple(range(codes.ndim)) if axis is None else axes_of(axis, codes.ndim)
    found = add(codes, axes, keepdims) if len(set(axes)) == len(axes) else None
    return None if found is None else a._of(found[0], fmt, found[1])


def reduce_into(out: S | None, function: Callable[..., Any], tensors: Sequence[S], **options: Any) -> S:
    """A reduction as a new tensor, or rounded once into the format and the scale of `out`."""
    if out is None:
        found = _quick_sum(tensors[0], **options) if function is reduction.sum and len(options) == 2 else None
        return apply(function, tensors, **options) if found is None else found
    if not isinstance(out, ScaledCodes):
        raise TypeError(f"{function.__name__} of LNSTensors writes into an LNSTensor, not into a {type(out).__name__}")
    codes = np.empty(out.shape, out.fmt.dtype)
    for offset, chosen in in_groups(out.log_offset, out.shape):
        result = call(function, tensors, {**options, "out_format": out.fmt, "out_log_offset": offset})[0]
        check_fits(result.shape, out, exactly=True)
        codes[chosen] = result[chosen]
    np.copyto(out.codes, codes)
    return out
