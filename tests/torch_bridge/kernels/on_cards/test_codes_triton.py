"""Decode and encode in Triton against the kernels of the core: every code, every float of 16 bits, every threshold."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lnsnum
from lnsnum import LNSFormat, lns4f1, lns8f3, lns8f5, lns12f6
from lnsnum.kernels.codes import FLOAT_TYPES
from lnsnum.torch_bridge.kernels import codes_triton
from lnsnum.torch_bridge.kernels.codes_twin import CODE_DTYPES, FLOAT_NAMES, thresholds
from lnsnum.torch_bridge.kernels.scale import Scale

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
FORMATS = [LNSFormat(3, 0), lns4f1, lns8f3, lns8f5, lns12f6, LNSFormat(16, 14)]
SIMPLE = ["nearest", "toward_zero", "up", "down"]
STOCHASTIC = ["stochastic_log", "stochastic_value"]
POLICIES = itertools.cycle(itertools.product(["saturate", "nan"], ["round", "saturate"]))


def every_code(fmt):
    codes = torch.from_numpy(np.arange(1 << fmt.bits).astype(fmt.dtype).view("u1" if fmt.bits <= 8 else "i2"))
    assert codes.dtype == CODE_DTYPES[fmt.dtype.itemsize]
    return codes


def offset_of(scale):
    return scale.low if scale.offsets is None else scale.offsets.numpy()


def to(scale, device):
    return scale if scale.offsets is None else scale._replace(offsets=scale.offsets.to(device))


def check_decode(codes, fmt, scale, dtype, device):
    found = codes_triton.decode(codes.to(device), fmt, to(scale, device), dtype)
    assert found is not None
    assert found.dtype == dtype
    words = codes.contiguous().numpy().view(fmt.dtype)
    expected = lnsnum.decode(words, fmt, FLOAT_NAMES[dtype], log_offset=offset_of(scale))
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    np.testing.assert_array_equal(found.cpu().contiguous().view(bits).numpy(), expected.view(f"i{dtype.itemsize}"))


def check_encode(x, fmt, scale, device, random_bits=None, **modes):
    random = None if random_bits is None else random_bits.to(device)
    found = codes_triton.encode(x.to(device), fmt, to(scale, device), random_bits=random, **modes)
    assert found is not None
    floats = x.contiguous().view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()
    random = None if random_bits is None else random_bits.expand(x.shape).numpy().view(np.uint32)
    name = FLOAT_NAMES[x.dtype]
    expected = lnsnum.encode(floats, fmt, log_offset=offset_of(scale), random_bits=random, dtype=name, **modes)
    np.testing.assert_array_equal(found.cpu().numpy().view(fmt.dtype), expected)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_code_decodes_as_by_the_core(fmt, dtype, device):
    codes = every_code(fmt)
    rows = codes.expand(4, -1).contiguous()
    offsets = torch.tensor([[-4], [3], [3], [-1]], dtype=torch.int32)
    scales = [Scale(0, 0), Scale(-37, -37), Scale(5, 5)]
    scales = [scale for scale in scales if codes_triton.are_normal(fmt, scale, dtype)]
    assert scales or (fmt, dtype) == (lns12f6, torch.float16)  # whose least magnitudes are subnormal there
    for scale in scales:
        check_decode(codes, fmt, scale, dtype, device)
    if scales:
        check_decode(rows, fmt, Scale(-4, 3, offsets), dtype, device)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_decode_at_both_ends_of_the_normal_numbers(dtype, device):
    """As far as `are_normal` goes, and not a step further."""
    fmt, kind = lns8f5, FLOAT_TYPES[FLOAT_NAMES[dtype]]
    lowest = (1 - kind.max_exponent) * 32 - 1 + fmt.bias
    greatest = kind.max_exponent * 32 - 1 - fmt.max_log
    for scale in (Scale(lowest, lowest), Scale(greatest, greatest)):
        check_decode(every_code(fmt), fmt, scale, dtype, device)
    for offset in (lowest - 1, greatest + 1, 1 << 30, -(1 << 30)):
        assert codes_triton.decode(every_code(fmt).to(device), fmt, Scale(offset, offset), dtype) is None


def test_what_is_left_to_the_twin(device):
    codes, other = every_code(lns8f5).to(device), LNSFormat(8, 3, base=1.5)
    assert codes_triton.decode(codes, lns8f5, Scale(0, 0), torch.float64) is None
    assert codes_triton.decode(codes, other, Scale(0, 0), torch.float32) is None
    assert codes_triton.encode(torch.ones(3, device=device), other, Scale(0, 0)) is None
    assert codes_triton.encode(torch.ones(3, device=device, dtype=torch.float64), lns8f5, Scale(0, 0)) is None


@settings(max_examples=12)
@given(
    outer=st.integers(0, 3), channels=st.integers(1, 5), inner=st.integers(0, 70), skip=st.integers(0, 3),
    turned=st.booleans(), data=st.data(),
)  # fmt: skip
def test_shapes_strides_and_offsets(outer, channels, inner, skip, turned, data):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    n = outer * channels * inner
    codes = torch.arange(skip, skip + n).to(torch.uint8)[:n].reshape(outer, channels, inner)
    where = torch.tensor(
        data.draw(st.lists(st.integers(-9, 9), min_size=channels, max_size=channels)), dtype=torch.int32
    )
    offsets = where[:, None].expand(1, channels, 1).contiguous() if channels else where.reshape(1, channels, 1)
    scale = Scale(int(where.min()), int(where.max()), offsets)
    if turned:
        # dense, in another order of dimensions
        codes = codes.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    check_decode(codes, lns8f5, scale, torch.float32, device)
    floats = torch.linspace(-3.0, 3.0, n + skip)[skip:].reshape(outer, channels, inner)
    check_encode(floats.mT.contiguous().mT if turned else floats, lns8f5, scale, device)


def near_thresholds(fmt, offset):
    """float32 numbers beside each threshold of the octaves around 1, and of the range's ends; and special ones."""
    low, high = offset - fmt.max_log, offset + fmt.max_log
    parts = [(-3, min(2 << fmt.fraction_bits, 600)), (low - 1, low + 2), (high - 1, high + 2)]
    t = [thresholds(fmt, *part, "float32", side)[0] for part in parts for side in ("nearest", "ceil")]
    # and of half the smallest, at the end of the underflow
    t += [thresholds(fmt, low - (1 << fmt.fraction_bits) - 1, low - (1 << fmt.fraction_bits) + 2, "float32", "ceil")[0]]
    near = np.unique(np.concatenate(t).astype(np.int64)[:, None] + np.arange(-2, 3))
    special = [0, 1, 2, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000]
    bits = np.concatenate([near[(near >= 0) & (near < 0x7F800000)], special]).astype(np.uint32)
    return torch.from_numpy(np.concatenate([bits, bits | 0x80000000]).view(np.float32))


def floats_of_16_bits(dtype):
    return torch.arange(-32768, 32768).to(torch.int16).view(dtype)


def bits_for(x):
    """Random bits, some of them 0; not of powers of two, which are codes, as 0 is their probability itself."""
    n = x.numel()
    bits = np.random.default_rng(n).integers(1, 1 << 32, n, dtype=np.uint32)
    bits[:: max(n // 7, 1)] = 0
    mantissa = np.frexp(x.to(torch.float32).numpy())[0]
    bits[np.abs(mantissa) == 0.5] |= 1
    return torch.from_numpy(bits.view(np.int32))


@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns8f5, lns12f6, LNSFormat(16, 14)], ids=str)
@pytest.mark.parametrize("rounding", SIMPLE + STOCHASTIC)
def test_encode_beside_every_threshold(fmt, rounding, device):
    for offset in (0, -37):
        x = near_thresholds(fmt, offset)
        random = bits_for(x) if rounding in STOCHASTIC else None
        overflow, underflow = next(POLICIES)
        modes = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
        check_encode(x, fmt, Scale(offset, offset), device, random, **modes)


@pytest.mark.parametrize("dtype", FLOATS[1:], ids=str)
@pytest.mark.parametrize("rounding", ["nearest", "toward_zero", *STOCHASTIC])
def test_encode_every_float_of_16_bits(dtype, rounding, device):
    """At scales of channels that are far apart, too: beyond all floats of the type."""
    x = floats_of_16_bits(dtype)
    random = bits_for(x) if rounding in STOCHASTIC else None
    check_encode(x, lns8f5, Scale(-5, -5), device, random, rounding=rounding)
    offsets = torch.tensor([[-40], [3], [-5000], [1 << 30]], dtype=torch.int32)
    rows = None if random is None else random.reshape(4, -1)
    check_encode(x.reshape(4, -1), lns8f3, Scale(-5000, 1 << 30, offsets), device, rows, rounding=rounding)


@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_what_float64_leaves_open_is_told(rounding, device):
    """Random bits at the probability itself: the kernel says that it cannot tell, and the twin decides."""
    x = torch.ones(1, device=device)
    zero = torch.zeros(1, dtype=torch.int32, device=device)
    # 1 is a code: up with probability 0, and the bits are 0
    assert codes_triton.encode(x, lns8f5, Scale(0, 0), rounding=rounding, random_bits=zero) is None
