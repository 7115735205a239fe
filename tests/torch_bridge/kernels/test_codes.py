"""Codes of channels and groups on the CPU, in whatever order of memory, against the table of each scale."""

import numpy as np
import pytest
import torch

from lnsnum import LNSFormat, lns8f3, lns8f5, lns12f6
from lnsnum.decoding import decode_table
from lnsnum.torch_bridge.kernels.codes import as_numpy, decode, encode
from lnsnum.torch_bridge.kernels.scale import Scale, check_offset
from lnsnum.torch_bridge.storing import elements

PATTERNS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float64: torch.int64}
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float64: "float64"}
FORMATS = [lns8f3, lns8f5, LNSFormat(6, 2), LNSFormat(8, 0, base=1.03), lns12f6]

CHANNELS = [
    ((8, 300), (8, 1)),
    ((40, 60), (40, 1)),
    ((40, 64), (40, 1)),
    ((40, 64), (1, 64)),
    ((40, 64), (1, 1)),
    ((40, 64), (40, 64)),
    ((8, 6, 5, 5), (8, 1, 1, 1)),
    ((8, 6, 5, 5), (8, 6, 1, 1)),
    ((8, 6, 5, 5), (1, 6, 1, 1)),
    ((8, 6, 5, 5), (8, 1, 5, 1)),
    ((3, 20, 30), (3, 20, 1)),
]
GROUPS = [((20, 64), 16), ((10, 128), 64), ((4, 512), 256), ((20, 100), 32), ((9, 150), 48), ((2, 10, 96), 32)]


def orders(x):
    """The same numbers in several orders of memory."""
    found = [x, x.mT.contiguous().mT]
    if x.ndim == 4:
        found.append(x.contiguous(memory_format=torch.channels_last))
    return [*found, torch.stack([x, x], -1)[..., 0]]  # and with room between


def check(codes, fmt, scale, each, dtype):
    expected = torch.empty(codes.shape, dtype=PATTERNS[dtype])
    for one in each.unique():
        table = decode_table(fmt, int(one), NAMES[dtype])
        here = each == one
        entries = table.view(f"i{table.itemsize}")[codes[here].numpy().view(fmt.dtype)]
        expected[here] = torch.from_numpy(entries)
    for order in orders(codes):
        found = decode(order, fmt, scale, dtype)
        assert torch.equal(found.contiguous().view(PATTERNS[dtype]), expected)
        if order.is_contiguous() or order.mT.is_contiguous():
            assert found.stride() == order.stride()


def cases(fmt, shape, own, group_size=0):
    random = np.random.default_rng(len(shape))
    codes = random.integers(0, 1 << fmt.bits, shape).astype(fmt.dtype)
    codes = torch.from_numpy(codes.view("u1" if fmt.bits <= 8 else "i2"))
    octave = round(fmt.codes_per_octave)
    for middle in (0, 120 * octave, -126 * octave, -140 * octave, -300 * octave):
        offsets = torch.from_numpy(random.integers(middle - 9, middle + 10, own).astype(np.int32))
        yield codes, offsets, check_offset(offsets, codes.shape, group_size)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
@pytest.mark.parametrize(("shape", "own"), CHANNELS, ids=str)
def test_channels(shape, own, fmt):
    for codes, offsets, scale in cases(fmt, shape, own):
        for dtype in PATTERNS:
            check(codes, fmt, scale, offsets.expand(shape), dtype)


@pytest.mark.parametrize("fmt", FORMATS[:3], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize(("shape", "group_size"), GROUPS, ids=str)
def test_groups(shape, group_size, fmt):
    for codes, offsets, scale in cases(fmt, shape, (*shape[:-1], -(-shape[-1] // group_size)), group_size):
        each = offsets.repeat_interleave(group_size, -1)[..., : shape[-1]]
        for dtype in PATTERNS:
            check(codes, fmt, scale, each, dtype)


FAR = [(8, 500), (8, -500), (8000, -8000), (1 << 30, -(1 << 30))]
WRITTEN = [((8, 300), (8, 1), 0), ((20, 64), (20, 4), 16), ((40, 64), (1, 64), 0), ((20, 100), (20, 4), 32)]


@pytest.mark.parametrize("fmt", [lns8f3, LNSFormat(8, 0, base=1.03), lns12f6], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize(("shape", "own", "group_size"), WRITTEN, ids=str)
def test_scales_beyond_their_bounds(shape, own, group_size, fmt):
    """Somebody wrote them in place, such as another process after the bounds were found."""
    codes = torch.arange(shape[0] * shape[1]).reshape(shape) % (1 << fmt.bits)
    codes = codes.to(torch.uint8 if fmt.bits <= 8 else torch.int16)
    for far in FAR:
        scale = check_offset(torch.zeros(own, dtype=torch.int32), codes.shape, group_size)
        scale.offsets.view(-1)[1:3] = torch.tensor(far)
        each = scale.spread(scale.offsets).expand(shape)
        for dtype in PATTERNS:
            check(codes, fmt, scale, each, dtype)


@pytest.mark.parametrize("dtype", [*PATTERNS, torch.float16], ids=str)
def test_floats_whose_sign_torch_keeps_apart_from_their_memory(dtype):
    """As in the imaginary part of a conjugate."""
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    lazy = torch._neg_view(x)
    assert elements(lazy).tolist() == (-x).reshape(-1).tolist()
    rows, groups = torch.arange(-3, 3, dtype=torch.int32)[:, None], torch.arange(18, dtype=torch.int32).reshape(6, 3)
    for scale in (Scale(0, 0), check_offset(rows, x.shape), check_offset(groups, x.shape, 16)):
        assert torch.equal(encode(lazy, lns8f5, scale), encode(-x, lns8f5, scale))


def test_an_array_of_such_floats_is_a_copy_that_nobody_writes_to():
    x = torch.arange(5.0)
    array = as_numpy(torch._neg_view(x))
    assert array.tolist() == (-x).tolist()
    assert not array.flags.writeable
