"""Sums of 8-bit codes in int16 give what the general kernel gives, for all pairs of codes and at any scales."""

import numpy as np
import pytest

from lnsnum import LNSFormat, lns8f3, lns8f5, lns16f10
from lnsnum.gaussian import Exact, tables
from lnsnum.kernels.codes import NO_RANDOM_BITS
from lnsnum.kernels.scales import Scales, Walk
from lnsnum.operations import byte_sums, sums
from lnsnum.operations.operation import Operand, Result

FORMATS = [
    LNSFormat(3, 0), LNSFormat(5, 2), LNSFormat(7, 5), LNSFormat(8, 0), lns8f3, lns8f5, LNSFormat(8, 6),
    LNSFormat(8, 2, base=4.0), LNSFormat(6, 0, base=4.0), LNSFormat(8, 4, base=1.7), LNSFormat(8, 3, base=300.0),
]  # fmt: skip
POLICIES = [("saturate", "round"), ("nan", "round"), ("saturate", "saturate"), ("nan", "saturate")]


def all_pairs(fmt):
    codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
    return np.repeat(codes, codes.size), np.tile(codes, codes.size)


def result_of(fmt, size, log_offset, overflow, underflow):
    return Result(fmt, (size,), log_offset, "nearest", overflow, underflow, NO_RANDOM_BITS)


def check(a, c, result):
    out = np.empty(a.codes.shape, result.fmt.dtype)
    left = byte_sums.add(a, c, result.target(result.log_offset), out)
    expected, _ = sums.fused(a, None, c, result)
    assert np.array_equal(sums.add(a, c, None, result)[0], expected)
    if left is None:
        # a table that does not reach as far as the scales
        assert not tables(Exact(), result.fmt).complete
        assert np.ptp(a.scale.values) + np.ptp(c.scale.values) or a.scale.values[0] != c.scale.values[0]
        return
    closed = np.ones(out.size, np.bool_)
    closed[left] = False
    assert np.array_equal(out[closed], expected[closed])
    # ties, and what is next to half of the smallest: of few codes many
    assert left.size <= out.size // (8 if result.fmt.bits > 3 else 2)


@pytest.mark.parametrize("policies", POLICIES, ids=str)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_all_pairs(fmt, policies):
    a, c = all_pairs(fmt)
    k = int(fmt.codes_per_octave)
    for a_offset, c_offset, log_offset in ((0, 0, 0), (7, -3, 2), (0, 3 * k, 3 * k), (-k, 0, k), (-5000, 5000, 5000)):
        x, y = (Operand(codes, fmt, Scales.of(o - fmt.bias, ())) for codes, o in ((a, a_offset), (c, c_offset)))
        check(x, y, result_of(fmt, a.size, log_offset, *policies))


@pytest.mark.parametrize("fmt", [lns8f3, lns8f5, LNSFormat(8, 4, base=1.7)], ids=str)
def test_all_pairs_at_scales_of_their_own(fmt):
    a, c = all_pairs(fmt)
    rng = np.random.default_rng(0)
    for run, most in ((1, 40), (256, 100), (1000, 11_000)):
        own, other = (rng.integers(-most, most, -(-a.size // run)) - fmt.bias for _ in range(2))
        one = Scales.of(3 - fmt.bias, ())
        walk = Walk(run)
        for scales in (
            (Scales(own, walk), Scales(other, walk)),
            (Scales(own, walk), one),
            (one, Scales(other[:7], walk)),
        ):
            x, y = (Operand(codes, fmt, scale) for codes, scale in zip((a, c), scales, strict=True))
            check(x, y, result_of(fmt, a.size, 0, "saturate", "round"))


def test_what_16_bits_do_not_hold_is_declined():
    out = np.empty(10, np.uint8)

    def of(fmt, log_offset=0):
        return Operand(np.arange(10, dtype=fmt.dtype), fmt, Scales.of(log_offset - fmt.bias, ()))

    near, to = of(lns8f3), result_of(lns8f3, 10, 0, "saturate", "round").target(0)
    assert byte_sums.add(near, near, to, out) is not None
    for far in (byte_sums.FAR, -byte_sums.FAR - 1, 1 << 30):
        assert byte_sums.add(near, of(lns8f3, far), to, out) is None
        assert byte_sums.add(of(lns8f3, far), near, to, out) is None
    assert byte_sums.add(near, near, to._replace(mode=2), out) is None
    wide = of(lns16f10)
    assert byte_sums.add(wide, wide, result_of(lns16f10, 10, 0, "saturate", "round").target(0), out) is None
    fine = LNSFormat(8, 6, base=1.0 + 2.0**-30)
    assert byte_sums.add(of(fine), of(fine), result_of(fine, 10, 0, "saturate", "round").target(0), out) is None
    assert byte_sums.add(near.part(0, 0), near.part(0, 0), to, out[:0]).size == 0


@pytest.mark.parametrize("fmt", [lns8f3, lns8f5], ids=str)
def test_all_pairs_by_tables_in_memory(fmt, monkeypatch):
    """As on processors whose registers hold no tables."""
    steps = byte_sums._steps(fmt)
    monkeypatch.setattr(byte_sums, "_steps", lambda fmt: steps._replace(words=np.empty(0, np.int16)))
    a, c = all_pairs(fmt)
    check(*(Operand(codes, fmt, Scales.of(-fmt.bias, ())) for codes in (a, c)), result_of(fmt, a.size, 0, *POLICIES[0]))
