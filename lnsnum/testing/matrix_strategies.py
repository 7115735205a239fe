"""Two matrices whose product is hard to add up: its sums cancel, swamp or overflow.

    c[i, j]  =  sum over k of a[i, k] b[k, j],      log |a[i, k] b[k, j]|  =  A[i, k] + B[k, j]

Logarithms of products are sums, so a bound on those of a and b bounds every term of every sum at once.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from lnsnum.format import LNSFormat, check_choice
from lnsnum.testing.code_strategies import codes
from lnsnum.testing.ranks import Ints, Shape, Strategy, checked_shape, ranks
from lnsnum.testing.spans import log_step
from lnsnum.testing.tie_strategies import last_gap

Sums = Literal["any", "cancel", "swamp", "overflow"]
Pair = tuple[NDArray[Any], NDArray[Any]]

_SPREAD = 8
"""How many codes terms differ by, at most, that are to be of one size."""


def matrices(
    fmt: LNSFormat | str, shape: Shape | Strategy[Shape] | None = None, *, sums: Sums | None = None
) -> Strategy[Pair]:
    """Codes of two matrices, for `lnsnum.reduction.matmul` or an accumulator of your own; all at log_offset 0.

    - "cancel": the terms of each sum are pairs of opposite numbers, in one of three orders, and the least term alone
      where their number is odd. In half of the cases one term is off by a code.
    - "swamp": one term of each sum, at one index k, is so great that each of the others is less than half a code step
      of it. All have one sign, or the great one the other: a running sum loses what together is much.
    - "overflow": no term is beyond the greatest, but their sum is, or the sum of the first half, which the second half
      cancels.
    - "any": codes of all kinds but NaN.

    Args:
        fmt: the format, or its name.
        shape: (M, K, N) of a, (M, K), and b, (K, N), with K at least 2, or a strategy. Where it is left out, up to 4, 9
            and 4.
        sums: one of these; all that the format has room for where it is left out.

    Raises:
        ValueError: where the range of the format is less than "swamp" needs.

    >>> from hypothesis import find, settings
    >>> a, b = find(matrices("lns8f3", (1, 2, 1), sums="cancel"), lambda pair: True, settings=settings(database=None))
    >>> a.tolist(), b.tolist()
    ([[64, 64]], [[64], [192]])
    """
    fmt = LNSFormat.of(fmt)
    if sums is not None:
        check_choice("sums", sums, Sums)
    room = 2 * fmt.max_log >= _half_gap(fmt)
    if sums == "swamp" and not room:
        raise ValueError(f"sums='swamp': no product of {fmt.name} is lost beside another, its range is too small")
    kinds = [kind for kind in get_args(Sums) if room or kind != "swamp"] if sums is None else [sums]
    if shape is None:
        shape = st.tuples(st.integers(1, 4), st.integers(2, 9), st.integers(1, 4))
    elif not isinstance(shape, Strategy):
        shape = st.just(_checked(shape))
    makers = {"cancel": _cancelling, "swamp": _swamping, "overflow": _overflowing, "any": _arbitrary}

    @st.composite
    def pair(draw: st.DrawFn) -> Pair:
        return makers[draw(st.sampled_from(kinds))](draw, fmt, _checked(draw(shape)))

    return pair()


def _checked(shape: object) -> tuple[int, int, int]:
    sides = checked_shape(shape)
    if len(sides) != 3 or sides[1] < 2:
        raise ValueError(f"shape={shape!r}: give (M, K, N), with K at least 2, for matrices (M, K) and (K, N)")
    return sides[0], sides[1], sides[2]


def _pack(fmt: LNSFormat, logs: Ints, negative: NDArray[Any]) -> NDArray[Any]:
    return (logs + fmt.bias + fmt.sign_bit * negative.astype(np.int64)).astype(fmt.dtype)


def _array(draw: st.DrawFn, shape: tuple[int, ...], count: int) -> Ints:
    array: Ints = draw(ranks(math.prod(shape), count)).reshape(shape)
    return array


def _one_sign_a_sum(draw: st.DrawFn, m: int, n: int) -> tuple[Ints, Ints]:
    """A sign for each row of a and each column of b: the terms of a sum have one sign."""
    return _array(draw, (m, 1), 2), _array(draw, (1, n), 2)


def _negated(fmt: LNSFormat, x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.where(x & fmt.max_magnitude, x ^ fmt.sign_bit, x), fmt.dtype)


def _arbitrary(draw: st.DrawFn, fmt: LNSFormat, shape: tuple[int, int, int]) -> Pair:
    m, k, n = shape
    return draw(codes(fmt, shape=(m, k), nan=False)), draw(codes(fmt, shape=(k, n), nan=False))


def _orders(k: int) -> list[list[int]]:
    """Where the terms go, given those of the first half, their opposites, and one more where k is odd."""
    half = k // 2
    last = [2 * half] * (k % 2)
    first, second = list(range(half)), list(range(half, 2 * half))
    neighbours = [i for pair in zip(first, second, strict=True) for i in pair]
    return [first + second + last, neighbours + last, last + first + second[::-1]]


def _cancelling(draw: st.DrawFn, fmt: LNSFormat, shape: tuple[int, int, int]) -> Pair:
    m, k, n = shape
    half = k // 2
    a = draw(codes(fmt, shape=(m, half), nan=False, zero=False))
    b = draw(codes(fmt, shape=(half, n), nan=False, zero=False))
    opposite = _negated(fmt, b)
    if b.size and draw(st.booleans()):
        at = draw(st.integers(0, b.size - 1))
        code = int(opposite.flat[at])
        opposite.flat[at] = code + (1 if code & fmt.max_magnitude < fmt.max_magnitude else -1)
    columns, rows = [a, a], [b, opposite]
    if k % 2:
        # as small as the smallest of the row and of the column: no other term is less
        columns.append((a & fmt.max_magnitude).min(axis=1, keepdims=True, initial=fmt.max_magnitude))
        rows.append((b & fmt.max_magnitude).min(axis=0, keepdims=True, initial=fmt.max_magnitude))
    order = draw(st.sampled_from(_orders(k)))
    left, right = np.concatenate(columns, axis=1)[:, order], np.concatenate(rows, axis=0)[order]
    return left.astype(fmt.dtype), right.astype(fmt.dtype)


def _half_gap(fmt: LNSFormat) -> int:
    """Half of the steps beyond which a term is lost beside another of either sign, at least."""
    return (max(last_gap(fmt, False), last_gap(fmt, True)) + 2) // 2


def _swamping(draw: st.DrawFn, fmt: LNSFormat, shape: tuple[int, int, int]) -> Pair:
    m, k, n = shape
    gap = _half_gap(fmt)
    # greater factors lie from `level` - spread to `level`, lesser ones from spread + gap below that
    spread = draw(st.integers(0, min(_SPREAD, (2 * fmt.max_log - gap) // 2)))
    level = draw(st.integers(gap + 2 * spread - fmt.max_log, fmt.max_log))
    logs_a = level - spread - gap - _array(draw, (m, k), spread + 1)
    logs_b = level - spread - gap - _array(draw, (k, n), spread + 1)
    at = draw(st.integers(0, k - 1))
    logs_a[:, at] += spread + gap
    logs_b[at] += spread + gap
    rows, columns = _one_sign_a_sum(draw, m, n)
    great = np.arange(k)[:, None] == at
    negative = columns ^ great if draw(st.booleans()) else columns | np.zeros_like(great)
    return _pack(fmt, logs_a, rows | np.zeros_like(logs_a)), _pack(fmt, logs_b, negative)


def _overflowing(draw: st.DrawFn, fmt: LNSFormat, shape: tuple[int, int, int]) -> Pair:
    m, k, n = shape
    turns = k >= 4 and draw(st.booleans())
    terms = k // 2 if turns else k
    # terms * base^-spread > 1: so many terms of that size, none of them less, are beyond the greatest
    spread = min(int(0.9 * math.log(terms) / log_step(fmt) / 2), _SPREAD, fmt.max_log)
    level = draw(st.integers(0, fmt.max_log))
    logs_a = level - _array(draw, (m, k), spread + 1)
    logs_b = fmt.max_log - level - _array(draw, (k, n), spread + 1)
    rows, columns = _one_sign_a_sum(draw, m, n)
    second_half = np.arange(k)[:, None] >= (k + 1) // 2
    negative = columns ^ second_half if turns else columns | np.zeros_like(second_half)
    return _pack(fmt, logs_a, rows | np.zeros_like(logs_a)), _pack(fmt, logs_b, negative)
