"""The twin of decode and encode in torch operations against the kernels of the core: every code and every bit.

`lnsnum.encode` and `lnsnum.decode`, which the other tests hold to the specification, are the oracle.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import lnsnum
from lnsnum import LNSFormat, lns4f1, lns8f3, lns8f5, lns12f6, lns16f10
from lnsnum.torch_bridge.kernels.codes_twin import decode, encode, probability_error
from lnsnum.torch_bridge.kernels.scale import Scale

FLOATS = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
PATTERN = {2: torch.int16, 4: torch.int32, 8: torch.int64}
SIMPLE = ["nearest", "toward_zero", "up", "down"]
STOCHASTIC = ["stochastic_log", "stochastic_value"]
POLICIES = list(itertools.product(["saturate", "nan"], ["round", "saturate"]))
FORMATS = [
    LNSFormat(3, 0), LNSFormat(3, 1), lns4f1, lns8f3, lns8f5, lns12f6, lns16f10, LNSFormat(9, 0, base=4.0),
    LNSFormat(7, 2, base=1.5), LNSFormat(5, 0, base=1e300), LNSFormat.madam(12, 0.001), LNSFormat(16, 0),
    LNSFormat(10, 3, base=2.0**0.5), LNSFormat(16, 14),
]  # fmt: skip

compiles = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
"""torch's own compiler uses what torch calls deprecated."""


def every_code(fmt):
    return torch.from_numpy(np.arange(1 << fmt.bits).astype(fmt.dtype).view("u1" if fmt.bits <= 8 else "i2"))


def patterns(floats: torch.Tensor) -> torch.Tensor:
    return floats.contiguous().view(PATTERN[floats.dtype.itemsize])


def words(codes: torch.Tensor, fmt) -> np.ndarray:
    assert codes.dtype == (torch.uint8 if fmt.bits <= 8 else torch.int16)
    return codes.contiguous().numpy().view(fmt.dtype)


def offset_of(scale):
    return scale.low if scale.offsets is None else scale.offsets.numpy()


def check_decode(codes, fmt, scale, dtype):
    found = decode(codes, fmt, scale, dtype)
    assert found.dtype == dtype
    expected = lnsnum.decode(words(codes, fmt), fmt, FLOATS[dtype], log_offset=offset_of(scale))
    assert found.shape == codes.shape
    np.testing.assert_array_equal(patterns(found).numpy(), expected.view(f"i{dtype.itemsize}"))


def core_encode(x, fmt, scale, random_bits=None, **arguments):
    floats = x.contiguous().view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()
    random = None if random_bits is None else random_bits.numpy().view(np.uint32)
    return lnsnum.encode(
        floats, fmt, log_offset=offset_of(scale), random_bits=random, dtype=FLOATS[x.dtype], **arguments
    )


def check_encode(x, fmt, scale, **arguments):
    found = encode(x, fmt, scale, **arguments)
    assert found.shape == x.shape
    np.testing.assert_array_equal(words(found, fmt), core_encode(x, fmt, scale, **arguments))


def some_bits(n, seed=0):
    bits = np.random.default_rng(seed).integers(0, 1 << 32, n, dtype=np.uint32)
    bits[:: max(n // 7, 1)] = 0
    return torch.from_numpy(bits.view(np.int32))


def edges(fmt, dtype, offsets):
    """The floats next to each grid point, each midpoint and each half of the smallest, and the special ones."""
    kind = {torch.float64: np.float64, torch.float32: np.float32}[dtype]
    logs = np.unique(np.concatenate([o + np.array([-2, -1, 0, 1, 2, 7]) + e * fmt.max_log
                                     for o in offsets for e in (-1, 0, 1)]))  # fmt: skip
    inside = np.random.default_rng(0).integers(min(offsets) - fmt.max_log, max(offsets) + fmt.max_log + 1, 100)
    logs = np.concatenate([logs, inside])
    octaves = np.concatenate([logs, logs + 0.5]) * math.log2(fmt.base) / (1 << fmt.fraction_bits)
    octaves = np.concatenate([octaves, octaves[: logs.size] - 1.0])
    octaves = octaves[(octaves > -1080) & (octaves < 1024)]
    with np.errstate(all="ignore"):
        x = np.exp2(octaves).astype(kind)
    bits = x.view(f"i{x.itemsize}")
    near = (bits[:, None] + np.arange(-4, 5)).ravel().view(kind)
    tiny = np.array([0, 1, 2, 3, (1 << np.finfo(kind).nmant) - 1, 1 << np.finfo(kind).nmant]).astype(bits.dtype)
    special = np.array([np.inf, np.nan, np.finfo(kind).max], kind)
    x = np.concatenate([near, tiny.view(kind), special])
    return torch.from_numpy(np.concatenate([x, -x]))


def sampled(x):
    """So few that integers can decide them all: the core leaves floats next to a grid point to these."""
    return x[:: max(x.numel() // 300, 1)]


# --------------------------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_decode_every_code(fmt, dtype):
    codes = every_code(fmt)
    for low in (0, -37, 5):
        check_decode(codes, fmt, Scale(low, low), dtype)
    offsets = torch.tensor([[-40], [3], [3], [-1]], dtype=torch.int32)
    check_decode(codes.expand(4, -1).contiguous(), fmt, Scale(-40, 3, offsets), dtype)


@pytest.mark.parametrize("fmt", [lns4f1, lns8f3, LNSFormat(7, 2, base=1.5), LNSFormat(5, 0, base=1e300)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_decode_where_the_scales_lie_far_apart(fmt, dtype):
    """The table ends where all further entries are zero or infinite."""
    far = [-(1 << 30), -5000, -2000, -400, 0, 399, 2001, 9000, 1 << 30]
    offsets = torch.tensor(far, dtype=torch.int32)[:, None]
    codes = every_code(fmt).expand(len(far), -1).contiguous()
    check_decode(codes, fmt, Scale(far[0], far[-1], offsets), dtype)
    check_decode(codes[-1:], fmt, Scale(far[-1], far[-1], offsets[-1:]), dtype)
    check_decode(codes[:1], fmt, Scale(far[0], far[0], offsets[:1]), dtype)


@pytest.mark.parametrize("fmt", [lns8f3, lns12f6], ids=str)
def test_decode_shapes(fmt):
    codes = every_code(fmt).reshape(2, 8, -1)
    offsets = torch.arange(8, dtype=torch.int32)[:, None]
    for part, place in ((codes, offsets), (codes[:, ::2], offsets[::2]), (codes[:0], offsets), (codes[1, 3, 2], None)):
        check_decode(part, fmt, Scale(0, 0), torch.float32)
        if place is not None:
            check_decode(part, fmt, Scale(0, 7, place), torch.float32)
    check_decode(codes.permute(2, 0, 1), fmt, Scale(0, 7, offsets[:, 0]), torch.float32)
    check_decode(codes.mT, fmt, Scale(0, 0), torch.bfloat16)


# --------------------------------------------------------------------------------------------------------------- encode


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns8f3, lns8f5, lns16f10, LNSFormat.madam(12, 0.01)], ids=str)
def test_encode_every_16_bit_float(fmt, dtype):
    x = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    scale = Scale(3, 3)
    for rounding, (overflow, underflow) in zip(SIMPLE, POLICIES, strict=True):
        check_encode(x, fmt, scale, rounding=rounding, overflow=overflow, underflow=underflow)
    for rounding, underflow in itertools.product(STOCHASTIC, ["round", "saturate"]):
        check_encode(x, fmt, scale, rounding=rounding, underflow=underflow, random_bits=some_bits(1 << 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_encode_next_to_the_thresholds(fmt, dtype):
    x = edges(fmt, dtype, [-9])
    for rounding, (overflow, underflow) in itertools.product(SIMPLE, POLICIES):
        check_encode(x, fmt, Scale(-9, -9), rounding=rounding, overflow=overflow, underflow=underflow)
    sample = sampled(x)
    bits = some_bits(sample.numel())
    for rounding, (overflow, underflow) in itertools.product(STOCHASTIC, [POLICIES[0], POLICIES[3]]):
        policies = {"overflow": overflow, "underflow": underflow}
        check_encode(sample, fmt, Scale(-9, -9), rounding=rounding, random_bits=bits, **policies)


@pytest.mark.parametrize("fmt", [lns4f1, lns8f5, lns12f6, LNSFormat(7, 2, base=1.5)], ids=str)
@pytest.mark.parametrize("far", [(-9, 0, 30), (-(1 << 30), -900, 900, 1 << 30)])
def test_encode_with_a_scale_for_each_channel(fmt, far):
    for dtype in (torch.float32, torch.float64):
        x = edges(fmt, dtype, far)
        offsets = torch.tensor(far, dtype=torch.int32)[:, None]
        scale = Scale(far[0], far[-1], offsets)
        for rounding, (overflow, underflow) in zip([*SIMPLE, *STOCHASTIC], [*POLICIES, *POLICIES[:2]], strict=True):
            rows = (sampled(x) if rounding in STOCHASTIC else x).expand(len(far), -1).contiguous()
            random = {"random_bits": some_bits(rows.numel()).view(rows.shape)} if rounding in STOCHASTIC else {}
            check_encode(rows, fmt, scale, rounding=rounding, overflow=overflow, underflow=underflow, **random)


@pytest.mark.parametrize("fmt", [lns4f1, lns8f5, LNSFormat(16, 14), LNSFormat(7, 0, base=900.0),
                                 LNSFormat(12, 0, base=1.0 + 2.0**-45)], ids=str)  # fmt: skip
@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_random_bits_next_to_the_probability(fmt, rounding):
    """Where float64 does not tell, the core does: the random bits at the probability, and one to either side of it."""
    random = np.random.default_rng(1)
    n = 100
    log_step = math.log(fmt.base) / (1 << fmt.fraction_bits)
    span = min(fmt.max_log * log_step, 80.0)
    x = np.exp(random.uniform(max(-span * 1.2, -80), span, n)).astype(np.float32)
    x[0] = 1.0
    frac = np.log(x.astype(np.float64)) / log_step % 1.0
    p = frac if rounding == "stochastic_log" else np.expm1(frac * log_step) / np.expm1(log_step)
    if rounding == "stochastic_value":
        smallest = -fmt.max_log * log_step
        p = np.where(np.log(x) < smallest, np.exp(np.minimum(np.log(x) - smallest, 0.0)), p)
    nearest = np.round(p * 2.0**32).astype(np.int64)
    bits = np.clip(nearest[:, None] + np.arange(-3, 4), 0, (1 << 32) - 1).astype(np.uint32)
    x = torch.from_numpy(x)[:, None].expand(n, 7).contiguous()
    bits = torch.from_numpy(bits.view(np.int32))
    check_encode(x, fmt, Scale(0, 0), rounding=rounding, random_bits=bits)
    offsets = torch.zeros(7, dtype=torch.int32)
    check_encode(-x, fmt, Scale(0, 0, offsets), rounding=rounding, random_bits=bits, underflow="saturate")


@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_the_bound_of_the_probability_is_small(rounding):
    assert probability_error(lns8f5, rounding) < 2.0**-44
    assert probability_error(LNSFormat(16, 14), rounding) < 2.0**-36


FORMATS_DRAWN = st.integers(3, 16).flatmap(
    lambda bits: st.builds(
        LNSFormat, st.just(bits), st.integers(0, min(bits - 2, 10)), base=st.sampled_from([2.0, 1.5, math.e, 1.01])
    )
)


@example(lns8f5, torch.float32, [0x3F800000, 1, 0x7F800000, 0], [5, -200, 0], "nearest", POLICIES[0], 0)
@given(
    fmt=FORMATS_DRAWN,
    dtype=st.sampled_from(list(FLOATS)),
    numbers=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    offsets=st.lists(st.integers(-300, 300), min_size=1, max_size=3),
    rounding=st.sampled_from([*SIMPLE, *STOCHASTIC]),
    policies=st.sampled_from(POLICIES),
    seed=st.integers(0, 100),
)
def test_any_floats(fmt, dtype, numbers, offsets, rounding, policies, seed):
    """Any bit patterns, by rows of one scale each; and the codes back to floats."""
    unsigned = np.array(numbers, np.uint64).astype(f"u{dtype.itemsize}")
    row = torch.from_numpy(unsigned.view(f"i{dtype.itemsize}")).view(dtype)
    x = row.expand(len(offsets), -1).contiguous()
    scale = Scale(min(offsets), max(offsets), torch.tensor(offsets, dtype=torch.int32)[:, None])
    arguments = {"rounding": rounding, "overflow": policies[0], "underflow": policies[1]}
    if rounding in STOCHASTIC:
        arguments["random_bits"] = some_bits(x.numel(), seed).view(x.shape)
    check_encode(x, fmt, scale, **arguments)
    check_decode(encode(x, fmt, scale, **arguments), fmt, scale, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_encode_shapes(dtype):
    x = torch.randn(6, 8, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    bits = some_bits(480).view(6, 8, 10)
    offsets = torch.tensor([-40, 0, 3, 7, -1, -2, 8, 8], dtype=torch.int32)[:, None]
    cuts = [lambda t: t, lambda t: t.permute(2, 1, 0), lambda t: t[::2, :, ::3], lambda t: t[:0], lambda t: t.mT.mT]
    for cut in cuts:
        check_encode(cut(x), lns8f5, Scale(-40, 8, offsets))
        check_encode(cut(x), lns12f6, Scale(-40, 8, offsets), rounding="stochastic_value", random_bits=cut(bits))
    check_encode(x[0, 0, 0], lns8f5, Scale(2, 2))
    check_encode(x[0, 0, 0], lns8f5, Scale(2, 2), rounding="stochastic_log", random_bits=bits[0, 0, 0])
    random = some_bits(1)
    found = encode(x, lns8f5, Scale(0, 0), rounding="stochastic_value", random_bits=random)
    expected = core_encode(x, lns8f5, Scale(0, 0), rounding="stochastic_value", random_bits=random)
    np.testing.assert_array_equal(words(found, lns8f5), expected)


def test_encode_takes_what_requires_grad():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert encode(x, lns8f3, Scale(0, 0)).tolist() == [64, 72]


def test_errors():
    x, codes = torch.ones(3), torch.zeros(3, dtype=torch.int32)
    with pytest.raises(NotImplementedError, match="wider than 16 bits"):
        decode(codes, LNSFormat(17, 3), Scale(0, 0), torch.float32)
    with pytest.raises(NotImplementedError, match="wider than 16 bits"):
        encode(x, LNSFormat(17, 3), Scale(0, 0))
    with pytest.raises(ValueError, match="needs random_bits"):
        encode(x, lns8f3, Scale(0, 0), rounding="stochastic_log")
    with pytest.raises(ValueError, match="takes no random_bits"):
        encode(x, lns8f3, Scale(0, 0), random_bits=codes)
    with pytest.raises(ValueError, match="rounding='near'"):
        encode(x, lns8f3, Scale(0, 0), rounding="near")
    with pytest.raises(TypeError, match=r"not torch\.int32"):
        encode(codes, lns8f3, Scale(0, 0))


# ------------------------------------------------------------------------------------------------------------- compiled


@pytest.mark.thorough
@compiles
def test_compiled_decode_gives_the_same_bits(fresh):
    """Under Dynamo, with formats and scales that change from call to call."""
    compiled = torch.compile(lambda codes, fmt, scale, dtype: decode(codes, fmt, scale, dtype) * 1, fullgraph=True)
    for fmt, low in ((lns8f3, 0), (LNSFormat(12, 4, base=1.5), -7)):
        codes, scale = every_code(fmt), Scale(low, low)
        found = compiled(codes, fmt, scale, torch.float32)
        assert torch.equal(patterns(found), patterns(decode(codes, fmt, scale, torch.float32) * 1))
    codes = every_code(lns8f5).view(4, 64)
    scale = Scale(-40, 3, torch.tensor([[-40], [3], [0], [-1]], dtype=torch.int32))
    found = compiled(codes, lns8f5, scale, torch.float64)
    assert torch.equal(patterns(found), patterns(decode(codes, lns8f5, scale, torch.float64) * 1))


@pytest.mark.thorough
@compiles
def test_compiled_encode_gives_the_same_codes(fresh):
    x = edges(lns8f5, torch.float32, [-9, 0])
    x = x[: x.numel() // 2 * 2].view(2, -1)
    scale = Scale(-9, 0, torch.tensor([[-9], [0]], dtype=torch.int32))
    bits = some_bits(x.numel()).view(x.shape)

    def both(x, bits):
        nearest = encode(x, lns8f5, scale)
        return nearest, encode(x, lns8f5, scale, rounding="stochastic_value", random_bits=bits)

    nearest, stochastic = torch.compile(both, fullgraph=True)(x, bits)
    np.testing.assert_array_equal(words(nearest, lns8f5), core_encode(x, lns8f5, scale))
    expected = core_encode(x, lns8f5, scale, rounding="stochastic_value", random_bits=bits)
    np.testing.assert_array_equal(words(stochastic, lns8f5), expected)


def test_traced_without_dynamo_the_tables_are_constants():
    """As a subclass's `__torch_dispatch__` is traced: by make_fx over fake tensors."""
    from torch.fx.experimental.proxy_tensor import make_fx

    scale = Scale(0, 7, torch.arange(8, dtype=torch.int32)[:, None])

    def round_trip(codes, offsets):
        given_scale = scale._replace(offsets=offsets)
        return encode(decode(codes, lns8f3, given_scale, torch.float32), lns8f3, given_scale)

    codes = every_code(lns8f3).expand(8, -1).contiguous()
    graph = make_fx(round_trip, tracing_mode="fake")(codes, scale.offsets)
    shuffled = codes[:, torch.randperm(256, generator=torch.Generator().manual_seed(0))].contiguous()
    assert torch.equal(graph(shuffled, scale.offsets), shuffled)
