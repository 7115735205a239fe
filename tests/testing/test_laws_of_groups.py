"""The laws hold at scales of groups: of lnsnum's own operations, whose operands and results have a scale each.

    add       g, g -> g        multiply  g, h -> g + h        divide  g, h -> g - h        encode, decode  x 2^k -> x

A scale moves no bit of a code, so what is right at log_offset 0, of which the laws speak, is right at any; ties go to
an even E, so scales are even.
"""

import numpy as np
import pytest

from lnsnum import GroupOffsets, LNSFormat, LNSTensor, decode, encode, lns4f1, lns6f2, lns8f3, reduction
from lnsnum.strategies import check_arithmetic_laws, check_conversion_laws, check_sum_laws


def groups_of(n, *, first=0, step=1):
    """Of n elements in a row, 16 to a group: a few offsets, that differ from each group to the next."""
    cycle = np.array([0, 6, -10, 24, -2])
    return GroupOffsets(step * cycle[(first + np.arange(-(-n // 16))) % 5], 16)


def both(g, h, sign):
    return GroupOffsets(g.offsets + sign * h.offsets, 16)


class Grouped:
    """lnsnum's arithmetic, of tensors with groups."""

    def __init__(self, fmt):
        def tensor(codes, scale):
            return LNSTensor(codes, fmt, log_offset=scale)

        def linear(name):
            def function(a, b):
                g = groups_of(a.size)
                return getattr(tensor(a, g), name)(tensor(b, g), out_log_offset=g).codes

            return function

        def product(name, sign):
            def function(a, b):
                g, h = groups_of(a.size), groups_of(a.size, first=2)
                return getattr(tensor(a, g), name)(tensor(b, h), out_log_offset=both(g, h, sign)).codes

            return function

        self.add, self.subtract = linear("add"), linear("subtract")
        self.multiply, self.divide = product("multiply", 1), product("divide", -1)


@pytest.mark.parametrize("fmt", [lns4f1, lns6f2, LNSFormat(6, 1, base=3.0)], ids=str)
def test_arithmetic(fmt):
    report = check_arithmetic_laws(Grouped(fmt), fmt, takes="arrays")
    assert not report.missing


@pytest.mark.parametrize("fmt", [lns6f2, lns8f3], ids=str)
def test_conversions(fmt):
    """A scale of whole octaves is a power of two, by which floats are multiplied exactly."""
    octave, wide = 1 << fmt.fraction_bits, LNSFormat(fmt.bits + 2, fmt.fraction_bits)

    def scale_of(array):
        groups = groups_of(array.size, step=octave)
        return groups, groups.of_elements(array.shape) // octave

    def to_codes(x):
        groups, octaves = scale_of(x)
        return encode(np.ldexp(x.astype(np.float64), octaves), fmt, log_offset=groups)

    def to_floats(codes):
        groups, octaves = scale_of(codes)
        return np.ldexp(decode(codes, fmt, "float32", log_offset=groups), -octaves)

    def to_wide(codes):
        groups, _ = scale_of(codes)
        return LNSTensor(codes, fmt, log_offset=groups).astype(wide, out_log_offset=groups).codes

    kinds = {"encode": to_codes, "decode": to_floats, "convert": to_wide}
    assert not check_conversion_laws(kinds, fmt, to=wide, takes="arrays", drawn=500).missing


@pytest.mark.parametrize("order", ["sequential", "pairwise"])
def test_sums(order):
    """Of terms whose groups have one scale, which the result has then; along a row, and across."""
    how = {"accumulator": "lns16f10", "order": order}

    def same(shape, axis, offset):
        own = [-(-n // 16) if i == axis else 1 for i, n in enumerate(shape)]
        return GroupOffsets(np.full(own, offset), 16, axis=axis - len(shape))

    def rows(a):
        return reduction.sum(a, lns6f2, axis=1, log_offset=same(a.shape, 1, 8), out_log_offset=8, **how)[0]

    def matmul(a, b):
        scales = {"a_log_offset": same(a.shape, 1, 8), "b_log_offset": same(b.shape, 0, -4)}
        return reduction.matmul(a, b, lns6f2, out_log_offset=4, **scales, **how)[0]

    assert check_sum_laws({"sum": rows, "matmul": matmul}, lns6f2, takes="arrays", **how).missing == ("dot",)
