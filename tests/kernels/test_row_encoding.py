"""float32 -> code by the upper half of the float, against the path that takes floats one by one."""

import numpy as np
import pytest

from lnsnum import LNSFormat, encode, lns4f1, lns8f3, lns8f5
from lnsnum.encoding import SIDES, encode_patterns
from lnsnum.kernels import row_encoding
from lnsnum.kernels.rounding import target
from lnsnum.kernels.scalar_encoding import encode_each
from lnsnum.kernels.scales import Scales
from lnsnum.kernels.thresholds import ONE, threshold

FORMATS = [
    LNSFormat(3, 0), LNSFormat(3, 1), lns4f1, LNSFormat(6, 4), LNSFormat(8, 0), lns8f3, lns8f5,
    LNSFormat(8, 3, base=4.0), LNSFormat(8, 0, base=2.0 ** (1 / 4)),
]  # fmt: skip
POLICIES = [("saturate", "round"), ("nan", "round"), ("saturate", "saturate"), ("nan", "saturate")]


def every_row(octave):
    """The ends of every row of patterns, and the patterns next to each step of u, of both signs."""
    rows = np.arange(1 << 16, dtype=np.int64) << 16
    steps = np.array([-(-(threshold(octave.bit_length(), "floor", j) - ONE) >> 29) for j in range(2 * octave)])
    near = (np.arange(255)[:, None, None] << 23) + steps[:, None] + np.arange(-1, 2)
    patterns = np.concatenate([rows, rows + 1, rows + 0xFFFF, near.reshape(-1), near.reshape(-1) + (1 << 31)])
    return np.unique(patterns & 0xFFFFFFFF).astype(np.uint32)


def each(patterns, fmt, to):
    out = np.empty(patterns.shape, fmt.dtype)
    encode_each(patterns, np.zeros(1, np.uint32), fmt, to, SIDES["nearest"], out)
    return out


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_every_row(fmt):
    """By the table of all scales, and by that of one, wherever the range lies."""
    octave = int(target(fmt, 0).steps_in_two)
    patterns = every_row(octave)
    out = np.empty(patterns.shape, fmt.dtype)
    for octaves in (0, 1, -90, 100, 1000):
        # no further down than this is a table asked: subnormal numbers would count
        offset = max(octaves * octave + 1, -124 * octave + fmt.max_log)
        for overflow, underflow in POLICIES:
            to = target(fmt, 0, overflow=overflow, underflow=underflow)
            expected = each(patterns, fmt, to._replace(lowest=to.lowest + offset))
            for size in (1, row_encoding._LARGE):
                row_encoding.filler(to, Scales.of(offset, ()), size)(patterns, 0, out)
                # subnormal numbers are all alike here: they are asked for only where they count for nothing
                assert np.array_equal(out, expected), (octaves, overflow, underflow, size)


@pytest.mark.parametrize("fmt", [lns8f3, lns8f5], ids=str)
def test_large_arrays_and_subnormal_numbers(fmt):
    """Where these count, another path is taken."""
    x = np.random.default_rng(0).normal(size=row_encoding._LARGE + 5).astype(np.float32)
    x[::100_000] = np.nan
    x[1::100_000] = -1e-41
    octave = 1 << fmt.fraction_bits
    for offset in (0, -125 * octave + fmt.max_log + octave, -125 * octave + fmt.max_log + octave - 1, -140 * octave):
        to = target(fmt, offset)
        assert np.array_equal(encode(x, fmt, log_offset=offset), each(x.view(np.uint32), fmt, to))


def test_threads_change_nothing():
    x = np.random.default_rng(1).normal(size=1_100_000).astype(np.float32).view(np.uint32)
    modes = {"rounding": "nearest", "overflow": "saturate", "underflow": "round"}
    scales = Scales.of(np.arange(11, dtype=np.int32)[:, None] * 9, (11, 100_000))
    for scale in (3, scales):
        outs = [np.empty(x.size, np.uint8) for _ in range(3)]
        for threads, out in enumerate(outs, 1):
            encode_patterns(x, out, lns8f5, scale, threads=threads, **modes)
        assert np.array_equal(outs[0], outs[1])
        assert np.array_equal(outs[0], outs[2])
