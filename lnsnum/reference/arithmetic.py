"""Products, quotients, sums, powers: the operations of docs/number_format.md that are exact or correctly rounded.

    operands -> terms,      the operation on terms, exactly,      terms -> code, rounded once

A product adds exponents, a power of a single term multiplies them, a sum joins terms: see `lnsnum.reference.sums`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Unpack

from lnsnum.format import LNSFormat
from lnsnum.reference.codes import read_operands
from lnsnum.reference.rounding import Modes, round_sum
from lnsnum.reference.sums import Terms, plus, product


class Unary(Modes, total=False):
    """Keywords of an operation on one code.

    out_format: the result's format, that of a where it is not given. log_offset, out_log_offset: of a, of the result.
    """

    out_format: LNSFormat | None
    log_offset: int
    out_log_offset: int


class Binary(Modes, total=False):
    """Keywords of an operation on two codes.

    b_format: the format of b, `fmt` where it is not given. out_format: the result's, needed where theirs differ.
    a_log_offset, b_log_offset, out_log_offset: of a, of b, of the result.
    """

    b_format: LNSFormat | None
    out_format: LNSFormat | None
    a_log_offset: int
    b_log_offset: int
    out_log_offset: int


def _to_the(x: Terms | None, exponent: Fraction) -> Terms | None:
    """x^exponent of a single term: 0^0 = 1, and NaN where there is no real number."""
    if x is None or (not x and exponent < 0):
        return None
    if not x:
        return {} if exponent else {Fraction(0): Fraction(1)}
    ((q, sign),) = x.items()
    if sign < 0 and exponent.denominator > 1:
        return None
    return {q * exponent: Fraction(-1 if sign < 0 and exponent % 2 else 1)}


def _quotient(x: Terms, y: Terms) -> Terms | None:
    """x / y for a single term y; None for y = 0."""
    inverse = _to_the(y, Fraction(-1))
    return None if inverse is None else product(x, inverse)


def _dot(pairs: Iterable[tuple[Terms | None, Terms | None]]) -> Terms | None:
    """The sum of x * y; None where one of them is."""
    total: Terms = {}
    for x, y in pairs:
        if x is None or y is None:
            return None
        for exponent, weight in product(x, y).items():
            total[exponent] = total.get(exponent, Fraction(0)) + weight
    return total


class _Pair(NamedTuple):
    """The keywords of `Binary` that are not modes, and what they are where they are not given."""

    b_format: LNSFormat | None = None
    out_format: LNSFormat | None = None
    a_log_offset: int = 0
    b_log_offset: int = 0
    out_log_offset: int = 0

    def read(self, a: int, b: int, fmt: LNSFormat) -> tuple[LNSFormat, list[Terms | None]]:
        """The result's format, and both values."""
        pair = (a, fmt, self.a_log_offset), (b, self.b_format, self.b_log_offset)
        return read_operands(*pair, out_format=self.out_format)


def _split(how: Any) -> tuple[_Pair, Any]:
    """The keywords of `Binary`: those of the pair, and the modes."""
    modes = dict(how)
    return _Pair(**{name: modes.pop(name) for name in _Pair._fields if name in modes}), modes


def _binary(operation: Callable[[Terms, Terms], Terms | None], a: int, b: int, fmt: LNSFormat, how: Binary) -> int:
    """The code of operation(a, b), rounded once; NaN where one of them is."""
    pair, modes = _split(how)
    out, (x, y) = pair.read(a, b, fmt)
    return round_sum(None if x is None or y is None else operation(x, y), out, pair.out_log_offset, **modes)


def multiply(a: int, b: int, fmt: LNSFormat, **how: Unpack[Binary]) -> int:
    """The code of a * b.

    >>> multiply(96, 80, LNSFormat(8, 5))
    112
    """
    return _binary(product, a, b, fmt, how)


def divide(a: int, b: int, fmt: LNSFormat, **how: Unpack[Binary]) -> int:
    """The code of a / b.

    >>> divide(96, 80, LNSFormat(8, 5))
    80
    """
    return _binary(_quotient, a, b, fmt, how)


def add(a: int, b: int, fmt: LNSFormat, **how: Unpack[Binary]) -> int:
    """The code of a + b, rounded once.

    >>> add(64, 64, LNSFormat(8, 5)), add(64, 32, LNSFormat(8, 5))
    (96, 83)
    """
    return _binary(plus, a, b, fmt, how)


def subtract(a: int, b: int, fmt: LNSFormat, **how: Unpack[Binary]) -> int:
    """The code of a - b, rounded once.

    >>> subtract(96, 64, LNSFormat(8, 5)), subtract(64, 64, LNSFormat(8, 5))
    (64, 0)
    """
    return _binary(lambda x, y: plus(x, y, -1), a, b, fmt, how)


def fma(
    a: int,
    b: int,
    c: int,
    fmt: LNSFormat,
    *,
    b_format: LNSFormat | None = None,
    c_format: LNSFormat | None = None,
    out_format: LNSFormat | None = None,
    a_log_offset: int = 0,
    b_log_offset: int = 0,
    c_log_offset: int = 0,
    out_log_offset: int = 0,
    **modes: Unpack[Modes],
) -> int:
    """The code of a * b + c, rounded once.

    >>> fma(80, 80, 192, LNSFormat(8, 5)), fma(96, 64, 224, LNSFormat(8, 5))
    (64, 0)
    """
    out, (x, y, z) = read_operands(
        (a, fmt, a_log_offset), (b, b_format, b_log_offset), (c, c_format, c_log_offset), out_format=out_format
    )
    total = None if x is None or y is None or z is None else plus(product(x, y), z)
    return round_sum(total, out, out_log_offset, **modes)


def exact_dot(a: Sequence[int], b: Sequence[int], fmt: LNSFormat, **how: Unpack[Binary]) -> int:
    """The code of a_1 b_1 + a_2 b_2 + ..., rounded once.

    >>> exact_dot([64, 96, 64], [64, 96, 128 + 64], LNSFormat(8, 5))
    127
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} codes and b has {len(b)}: give as many of each")
    pair, modes = _split(how)
    out, _ = pair.read(0, 0, fmt)  # of no codes too
    pairs = []
    for p, q in zip(a, b, strict=True):
        x, y = pair.read(int(p), int(q), fmt)[1]
        pairs.append((x, y))
    return round_sum(_dot(pairs), out, pair.out_log_offset, **modes)


def exact_sum(
    a: Sequence[int],
    fmt: LNSFormat,
    *,
    out_format: LNSFormat | None = None,
    log_offset: int = 0,
    out_log_offset: int = 0,
    **modes: Unpack[Modes],
) -> int:
    """The code of a_1 + a_2 + ..., rounded once.

    >>> exact_sum([64, 64, 96, 128 + 64], LNSFormat(8, 5))
    115
    """
    out, _ = read_operands((0, fmt, log_offset), out_format=out_format)
    numbers = [read_operands((int(code), fmt, log_offset), out_format=out)[1][0] for code in a]
    return round_sum(_dot((x, {Fraction(0): Fraction(1)}) for x in numbers), out, out_log_offset, **modes)


def power(
    a: int,
    exponent: int | Fraction,
    fmt: LNSFormat,
    *,
    out_format: LNSFormat | None = None,
    log_offset: int = 0,
    out_log_offset: int = 0,
    **modes: Unpack[Modes],
) -> int:
    """The code of a^exponent, rounded once: NaN for 0 to a negative power and for a negative a to no integer.

    >>> power(96, 1, LNSFormat(8, 5)), power(96, Fraction(-1, 3), LNSFormat(8, 5)), power(0, 0, LNSFormat(8, 5))
    (96, 53, 64)
    """
    if isinstance(exponent, bool) or not isinstance(exponent, (int, Fraction)):
        raise TypeError(f"exponent={exponent!r} is a {type(exponent).__name__}: give an int or a Fraction")
    out, (x,) = read_operands((a, fmt, log_offset), out_format=out_format)
    return round_sum(_to_the(x, Fraction(exponent)), out, out_log_offset, **modes)


def reciprocal(a: int, fmt: LNSFormat, **how: Unpack[Unary]) -> int:
    """The code of 1 / a.

    >>> reciprocal(96, LNSFormat(8, 5)), reciprocal(0, LNSFormat(8, 5))
    (32, 128)
    """
    return power(a, -1, fmt, **how)


def square(a: int, fmt: LNSFormat, **how: Unpack[Unary]) -> int:
    """The code of a * a.

    >>> square(128 + 80, LNSFormat(8, 5))
    96
    """
    return power(a, 2, fmt, **how)


def sqrt(a: int, fmt: LNSFormat, **how: Unpack[Unary]) -> int:
    """The code of the square root of a, rounded once; a tie goes to the even E.

    >>> sqrt(96, LNSFormat(8, 5)), sqrt(65, LNSFormat(8, 5)), sqrt(67, LNSFormat(8, 5))
    (80, 64, 66)
    """
    return power(a, Fraction(1, 2), fmt, **how)
