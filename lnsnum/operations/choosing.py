"""What is exact whatever the numbers: signs, order, and the choice between them; no magnitude is computed.

    order_key  =  (-1)^s (m + log_offset + 2^33)        integers in the order of the values, 0 for zero

Values are compared by these keys, those of one scale in integers of the codes' width (`lnsnum.operations.order`). A
chosen number keeps its magnitude, and is rounded only where the result has another scale.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, TypedDict, Unpack, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.format import LNSFormat, Overflow, Underflow
from lnsnum.kernels.codes import Codes, LogOffset, check_codes, check_offsets, of_elements
from lnsnum.kernels.scales import Scales
from lnsnum.operations import order
from lnsnum.operations.linear import KEEP, linear
from lnsnum.operations.operation import Operand, OutLogOffset, Result, Wanted, check_names, prepare, prepare_named
from lnsnum.operations.order import Relation


class _Edges(TypedDict, total=False):
    out_log_offset: OutLogOffset
    overflow: Overflow
    underflow: Underflow


class Extreme(_Edges, total=False):
    """Keyword arguments of `minimum` and `maximum`: scales of the operands and of the result, and the edges."""

    a_log_offset: LogOffset
    b_log_offset: LogOffset


class Bounds(_Edges, total=False):
    """Those of `clip`: log_offset is the scale of the array."""

    log_offset: LogOffset
    lower_log_offset: LogOffset
    upper_log_offset: LogOffset


def negative(a: ArrayLike, fmt: LNSFormat) -> Codes:
    """-a, exact; zero and NaN stay."""
    a = check_codes(a, fmt)
    return np.where(a & fmt.max_magnitude, a ^ fmt.sign_bit, a).astype(fmt.dtype)


def absolute(a: ArrayLike, fmt: LNSFormat) -> Codes:
    """|a|, exact; NaN stays."""
    a = check_codes(a, fmt)
    return np.where(a == fmt.nan_code, a, a & fmt.max_magnitude).astype(fmt.dtype)


def copysign(a: ArrayLike, b: ArrayLike, fmt: LNSFormat) -> Codes:
    """|a| with the sign of b, exact; zero has none, and NaN in either is NaN."""
    a, b = _together(a, b, fmt)
    magnitude = a & fmt.max_magnitude
    signed = np.where(magnitude, magnitude | (b & fmt.sign_bit), magnitude)
    return np.where((a == fmt.nan_code) | (b == fmt.nan_code), fmt.nan_code, signed).astype(fmt.dtype)


def sign(a: ArrayLike, fmt: LNSFormat) -> Codes:
    """-1, 0 or 1 as codes at log_offset 0, exact; NaN stays.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(sign(encode([-3.0, 0.0, 0.1], lns8f3), lns8f3), lns8f3)
    array([-1.,  0.,  1.])
    """
    a = check_codes(a, fmt)
    return np.where(a & fmt.max_magnitude, (a & fmt.sign_bit) | fmt.bias, a).astype(fmt.dtype)


def _together(a: ArrayLike, b: ArrayLike, fmt: LNSFormat) -> tuple[Codes, Codes]:
    """Both arrays, looked at and broadcast."""
    (x, y), result, _ = prepare_named({}, Extreme, fmt, a=a, b=b)
    return x.codes.reshape(result.shape), y.codes.reshape(result.shape)


def isnan(a: ArrayLike, fmt: LNSFormat) -> NDArray[np.bool_]:
    """Which elements are NaN."""
    nan: NDArray[np.bool_] = check_codes(a, fmt) == fmt.nan_code
    return nan


def iszero(a: ArrayLike, fmt: LNSFormat) -> NDArray[np.bool_]:
    """Which elements are zero."""
    zero: NDArray[np.bool_] = check_codes(a, fmt) == 0
    return zero


def order_key(a: ArrayLike, fmt: LNSFormat, log_offset: LogOffset = 0) -> NDArray[np.int64]:
    """Integers in the order of the values, comparable across offsets of one format (NaN has the key of zero).

    >>> from lnsnum import lns8f3, encode
    >>> (np.diff(order_key(encode([-2.0, -0.5, 0.0, 0.5, 2.0], lns8f3), lns8f3)) > 0).all()
    np.True_
    """
    a = check_codes(a, fmt)
    return _order_key(a, fmt, of_elements(check_offsets(log_offset, a.shape), a.shape))


def _order_key(a: Codes, fmt: LNSFormat, offsets: NDArray[Any]) -> NDArray[np.int64]:
    m = (a & fmt.max_magnitude).astype(np.int64)
    # m + log_offset can be negative or zero for a number: lifted, so that zero stays below all magnitudes
    above_all_offsets = np.int64(1) << np.int64(33)
    size: Any = np.where(m > 0, m + offsets + above_all_offsets, 0)
    key: NDArray[np.int64] = np.where(a >= fmt.sign_bit, -size, size)
    return key


LESS_EQUAL, GREATER_EQUAL = Relation(1, 1, 0, 0), Relation(0, 1, 1, 0)


def _scales(a: LogOffset, b: LogOffset) -> dict[str, LogOffset]:
    return {"a_log_offset": a, "b_log_offset": b}


def _key(operand: Operand) -> NDArray[np.int64]:
    """The keys of operands, up to a constant: `shift` is log_offset without the bias."""
    return _order_key(operand.codes, operand.fmt, operand.shift)


def _any_nan(x: Operand, y: Operand) -> NDArray[np.bool_]:
    nan: NDArray[np.bool_] = (x.codes == x.fmt.nan_code) | (y.codes == y.fmt.nan_code)
    return nan


def compare(
    a: ArrayLike, b: ArrayLike, fmt: LNSFormat, *, a_log_offset: LogOffset = 0, b_log_offset: LogOffset = 0
) -> NDArray[np.int8]:
    """-1, 0 or 1 where a is less than, equal to or greater than b, by value; 2 where one of them is NaN.

    >>> from lnsnum import lns8f3
    >>> compare([64, 64, 192, 128], [70, 64, 64, 64], lns8f3)
    array([-1,  0, -1,  2], dtype=int8)
    """
    return related(Relation(-1, 0, 1, 2), a, b, fmt, a_log_offset, b_log_offset, np.int8)


def related(
    relation: Relation, a: ArrayLike, b: ArrayLike, fmt: LNSFormat, a_log_offset: Any, b_log_offset: Any, dtype: Any
) -> NDArray[Any]:
    """What the relation says of each pair, by value."""
    (x, y), result, _ = prepare_named(_scales(a_log_offset, b_log_offset), Extreme, fmt, a=a, b=b)
    return _related(relation, x, y, dtype).reshape(result.shape)


def _alike(a: Operand, b: Operand) -> bool:
    """Whether each pair has one scale."""
    if a.scale.walk == b.scale.walk and np.array_equal(a.scale.values, b.scale.values):
        return True
    return not (a.scale.single or b.scale.single) and np.array_equal(a.shift, b.shift)


def _related(relation: Relation, a: Operand, b: Operand, dtype: Any) -> NDArray[Any]:
    if _alike(a, b):
        return order.relate(a.codes, b.codes, a.fmt, relation, dtype)
    # NaN has the key of zero: it is told by its code, before the keys have a say
    sign = np.where(_any_nan(a, b), 2, np.sign(_key(a) - _key(b)))
    return np.array([relation.equal, relation.greater, relation.unordered, relation.less], dtype)[sign]


def _choose(prefer: Relation, fmt: LNSFormat, a: Operand, b: Operand) -> Operand:
    """Of each pair the one that is preferred, NaN before all."""
    first = _related(prefer, a, b, np.bool_) | (a.codes == fmt.nan_code)
    # one scale for all where both have it: what follows is quicker then
    alike = a.scale.walk == b.scale.walk and np.array_equal(a.scale.values, b.scale.values)
    scale = a.scale if alike else Scales(np.where(first, a.shift, b.shift))
    return Operand(np.where(first, a.codes, b.codes), fmt, scale)


def _moved(chosen: Operand, result: Result) -> tuple[Codes, int]:
    """These numbers at the result's scale; where that is their own, they are it."""
    if chosen.scale.single and result.log_offset == int(chosen.scale.values[0]) + chosen.fmt.bias:
        return chosen.codes.reshape(result.shape), result.log_offset
    return linear(chosen, None, Fraction(1), Fraction(0), KEEP, result)


def _extreme(prefer: Relation, a: ArrayLike, b: ArrayLike, fmt: LNSFormat, options: Any) -> tuple[Codes, int]:
    (x, y), result, _ = prepare_named(options, Extreme, fmt, a=a, b=b)
    return _moved(_choose(prefer, fmt, x, y), result)


def minimum(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Extreme]) -> tuple[Codes, int]:
    """The lesser of a and b, exact but for the edges of another scale: (codes, log_offset). NaN in either is NaN.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(minimum(encode([1.0, -2.0], lns8f3), encode([0.0, 4.0], lns8f3), lns8f3)[0], lns8f3)
    array([ 0., -2.])
    """
    return _extreme(LESS_EQUAL, a, b, fmt, options)


def maximum(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Extreme]) -> tuple[Codes, int]:
    """The greater of a and b; as `minimum`."""
    return _extreme(GREATER_EQUAL, a, b, fmt, options)


def clip(
    a: ArrayLike, lower: ArrayLike, upper: ArrayLike, fmt: LNSFormat, **options: Unpack[Bounds]
) -> tuple[Codes, int]:
    """minimum(maximum(a, lower), upper), exact but for the edges of another scale: (codes, log_offset).

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(clip(encode([0.1, 3.0, 50.0], lns8f3), *encode([1.0, 4.0], lns8f3), lns8f3)[0], lns8f3).round(2)
    array([1.  , 3.08, 4.  ])
    """
    check_names(options, Bounds, "operation")
    given = dict(options)
    offsets = [cast(LogOffset, given.pop(f"{name}log_offset", 0)) for name in ("", "lower_", "upper_")]
    operands = [(codes, fmt, offset) for codes, offset in zip((a, lower, upper), offsets, strict=True)]
    (x, low, high), result = prepare(operands, Wanted(**cast(Any, given)))
    chosen = _choose(LESS_EQUAL, fmt, _choose(GREATER_EQUAL, fmt, x, low), high)
    return _moved(chosen, result)


def _index(codes: Codes, fmt: LNSFormat) -> NDArray[np.int64]:
    """The place of a code in the order of the values, zero at 0."""
    m = (codes & fmt.max_magnitude).astype(np.int64)
    return np.where(codes >= fmt.sign_bit, -m, m)


def nextafter(
    a: ArrayLike, b: ArrayLike, fmt: LNSFormat, *, a_log_offset: LogOffset = 0, b_log_offset: LogOffset = 0
) -> Codes:
    """The neighbour of a on the side of b, at a's scale; a where they are equal, or where a is the last.

    >>> from lnsnum import lns8f3, encode
    >>> nextafter(encode([1.0, 0.0], lns8f3), encode([2.0, -1.0], lns8f3), lns8f3)
    array([ 65, 129], dtype=uint8)
    """
    (x, y), result, _ = prepare_named(_scales(a_log_offset, b_log_offset), Extreme, fmt, a=a, b=b)
    keys = [_key(operand) for operand in (x, y)]
    # codes of one sign are neighbours as integers, and zero lies between the two smallest
    moved = np.clip(_index(x.codes, fmt) + np.sign(keys[1] - keys[0]), -fmt.max_magnitude, fmt.max_magnitude)
    codes = np.where(moved < 0, fmt.sign_bit - moved, moved)
    return np.where(_any_nan(x, y), fmt.nan_code, codes).astype(fmt.dtype).reshape(result.shape)


def ulp_distance(a: ArrayLike, b: ArrayLike, fmt: LNSFormat) -> NDArray[np.int64]:
    """How many codes of one scale b lies from a, in the order of the values, zero among them; -1 where one is NaN.

    >>> from lnsnum import lns8f3
    >>> ulp_distance([64, 1, 128], [70, 129, 0], lns8f3)
    array([ 6,  2, -1])
    """
    x, y = _together(a, b, fmt)
    nan = (x == fmt.nan_code) | (y == fmt.nan_code)
    return np.where(nan, -1, np.abs(_index(x, fmt) - _index(y, fmt)))


def argsort(a: ArrayLike, fmt: LNSFormat, axis: int = -1) -> NDArray[np.int64]:
    """Indices that sort the codes of one scale by value along an axis: stable, NaN last."""
    return order.argsort(check_codes(a, fmt), fmt, axis)


def sort(a: ArrayLike, fmt: LNSFormat, axis: int = -1) -> Codes:
    """The codes of one scale in the order of the values along an axis, NaN last.

    >>> from lnsnum import lns8f3
    >>> sort([64, 200, 0, 128], lns8f3)
    array([200,   0,  64, 128], dtype=uint8)
    """
    return order.sort(check_codes(a, fmt), fmt, axis)
