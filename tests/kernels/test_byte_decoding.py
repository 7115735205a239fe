"""Codes of many scales in registers: every code of every narrow format, against the table of each scale."""

import numpy as np
import pytest

from lnsnum import GroupOffsets, LNSFormat, decode
from lnsnum.decoding import decode_table
from lnsnum.kernels import byte_decoding
from lnsnum.kernels.byte_tables import has_byte_tables
from lnsnum.kernels.scales import Scales, Walk

FORMATS = [LNSFormat(bits, f) for bits in range(3, 9) for f in range(bits - 1)] + [
    LNSFormat(8, 0, base=1.03),
    LNSFormat(7, 3, base=1e300),
    LNSFormat(5, 1, base=2.25),
]

WALKS = {
    "rows": ([[3], [-5], [0], [40]], (4, 700)),
    "short rows": ([[3], [-5], [0], [40]] * 9, (36, 70)),
    "rows of a register": ([[3], [-5], [0], [40]] * 9, (36, 64)),
    "columns": ([[3, -5, 0] * 60], (30, 180)),
    "few columns": ([[3, -5, 0]], (900, 3)),
    "stacked rows": ([[[3], [-5]]], (3, 2, 600)),
    "stacked columns": ([[[3, -5, 7, 1]], [[0, 9, 2, -1]]], (2, 300, 4)),
}
GROUPS = [(size, length) for size in (16, 32, 64, 128, 256) for length in (1000, 512)] + [(48, 1000), (16, 60)]


def scale_of(name):
    """A scale, and the shape of the codes that have it."""
    if name in WALKS:
        offsets, shape = WALKS[name]
        return np.array(offsets, np.int32), shape
    size, length = name
    offsets = np.random.default_rng(size).integers(-40, 41, (5000 // length, -(-length // size)))
    return GroupOffsets(offsets, size), (len(offsets), length)


def codes_of(fmt, shape):
    every = np.resize(np.arange(1 << fmt.bits, dtype=np.uint8), 1 << 8)
    whole = np.concatenate([np.roll(every, 7 * i) for i in range(-(-np.prod(shape) // 256))])
    return whole[: np.prod(shape)].reshape(shape)


def expected(codes, fmt, scale, offset):
    each = scale.of_elements(codes.shape) if isinstance(scale, GroupOffsets) else np.broadcast_to(scale, codes.shape)
    out = np.empty(codes.shape, np.uint32)
    for one in np.unique(each):
        out[each == one] = decode_table(fmt, int(one) + offset, "float32")[codes[each == one]]
    return out


def plus(scale, offset):
    return scale - -offset if isinstance(scale, GroupOffsets) else scale + np.int32(offset)


def edges(fmt):
    """Offsets at which all numbers are normal, and where the least or the greatest of them leave float32's range."""
    octave = round(fmt.codes_per_octave)
    ends = -149 * octave + fmt.max_log, -126 * octave + fmt.max_log, 128 * octave - fmt.max_log
    return sorted(
        {0, -37, 10_000 * octave, -10_000 * octave, *(end + i for end in ends for i in (-41, -40, 0, 39, 41))}
    )


@pytest.mark.parametrize("name", [*WALKS, *GROUPS], ids=str)
def test_the_bits_of_each_scale_s_table(name):
    """Whichever way they go: what has a magnitude below float32's range, +0 there, goes by the plain loops."""
    scale, shape = scale_of(name)
    for fmt in FORMATS:
        codes = codes_of(fmt, shape)
        for offset in edges(fmt) if fmt.fraction_bits in (0, 3) else (0, -37):
            found = decode(codes, fmt, "float32", log_offset=plus(scale, offset))
            np.testing.assert_array_equal(found.view(np.uint32), expected(codes, fmt, scale, offset), f"{fmt} {offset}")


@pytest.mark.parametrize("name", [*WALKS, *GROUPS], ids=str)
def test_any_part_of_the_elements(name, monkeypatch):
    """As threads take them: from any multiple of what is asked for, to any end."""
    if not has_byte_tables():
        pytest.skip("this processor has no byte tables")
    parts = []

    def in_parts(run, size, least, *, alignment, threads):
        for begin in range(0, size, alignment):
            for end in {min(begin + alignment, size), min(begin + 1, size), min(begin + 131, size), size}:
                run(begin, end)
                parts.append(end - begin)

    monkeypatch.setattr(byte_decoding, "in_chunks", in_parts)
    scale, shape = scale_of(name)
    for fmt in (LNSFormat(8, 3), LNSFormat(6, 2)):
        codes, out = codes_of(fmt, shape), np.full(np.prod(shape), 7, np.uint32)
        done = byte_decoding.decode_in_registers(codes.reshape(-1), fmt, Scales.of(scale, shape), out)
        assert done == (name not in ((48, 1000), (16, 60)))
        if done:
            np.testing.assert_array_equal(out.reshape(shape), expected(codes, fmt, scale, 0))
            assert parts


FORMAT, OTHER_BASE = LNSFormat(8, 3), LNSFormat(8, 0, base=1.03)
LEAST = -149 * 8 + FORMAT.max_log  # at which the least magnitude is float32's


@pytest.mark.parametrize(
    ("values", "walk", "fmt", "goes"),
    [
        ([0], Walk(), FORMAT, True),
        ([0], Walk(), LNSFormat(9, 3), False),
        ([0, 1], Walk(2048), FORMAT, True),
        ([0, 1], Walk(64), FORMAT, True),
        ([0, 1], Walk(), FORMAT, True),
        ([0, 1], Walk(100), FORMAT, True),  # windows, as long as a register is filled
        ([0, 1], Walk(33), FORMAT, False),
        ([9000, 1], Walk(2048), FORMAT, True),  # infinity
        ([9000, 1], Walk(32), FORMAT, False),
        ([LEAST], Walk(), FORMAT, True),  # subnormal numbers
        ([0, LEAST], Walk(512), FORMAT, True),
        ([0, LEAST], Walk(32), FORMAT, False),
        ([LEAST - 8], Walk(), FORMAT, False),  # and 0
        ([0, LEAST - 8], Walk(512), FORMAT, False),
        ([0, 1], Walk(512), OTHER_BASE, True),
        ([0, 1], Walk(32), OTHER_BASE, False),
        ([0], Walk(), LNSFormat(8, 0, base=1.00001), False),  # of which there are too many floats
    ],
)
def test_what_goes_by_registers(values, walk, fmt, goes):
    codes, out = np.ones(4096, fmt.dtype), np.empty(4096, np.uint32)
    scale = Scales(np.array(values, np.int64), walk)
    goes = goes and has_byte_tables()
    assert byte_decoding.decode_in_registers(codes, fmt, scale, out) == goes
    assert not byte_decoding.decode_in_registers(codes[:1000], fmt, scale, out[:1000])
