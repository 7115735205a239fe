"""A weight with one log_offset for each channel: what it decodes to, its views, its copies, the modules that use it.

The oracle is `lnsnum.decode` with the array of log_offsets, by bits; of a view it is the same view of what is decoded.
"""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import lnsnum
from lnsnum import LNSFormat, LNSTensor, lns6f2, lns8f3, lns8f5, lns12f6, lns16f10
from lnsnum.torch_bridge import LNSWeight, convert_model, decode_model
from lnsnum.torch_bridge.kernels.scale import fit_to_rms

torch.set_num_threads(1)

FORMATS = [
    LNSFormat(4, 1),
    LNSFormat(5, 0, base=1.5),
    lns6f2,
    lns8f5,
    lns8f3,
    LNSFormat(9, 3, base=math.e),
    lns12f6,
    lns16f10,
    LNSFormat(16, 0, base=1.001),
]
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
NAMES = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def words(weight: LNSWeight) -> np.ndarray:
    """The codes as the unsigned integers they are."""
    return weight.codes.detach().contiguous().numpy().view(weight.fmt.dtype)


def patterns(floats: torch.Tensor) -> np.ndarray:
    """The bits of floats, which are no LNSWeight."""
    assert type(floats) is torch.Tensor
    signed = {8: torch.int64, 4: torch.int32, 2: torch.int16}[floats.dtype.itemsize]
    return floats.detach().contiguous().view(signed).numpy().view(f"u{floats.dtype.itemsize}")


def decoded(weight: LNSWeight, dtype: torch.dtype) -> np.ndarray:
    """The patterns that `lnsnum.decode` gives."""
    offsets = weight.log_offset
    offsets = offsets.numpy() if isinstance(offsets, torch.Tensor) else offsets
    floats = lnsnum.decode(words(weight), weight.fmt, NAMES[dtype], log_offset=offsets)
    return floats.view(f"u{dtype.itemsize}")


def codes_of(fmt: LNSFormat, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Codes of all kinds, without NaN."""
    drawn = torch.randint(0, 1 << fmt.bits, shape, generator=torch.Generator().manual_seed(seed))
    drawn = torch.where(drawn == fmt.nan_code, 0, drawn)
    return drawn.to(torch.uint8) if fmt.bits <= 8 else drawn.to(torch.int16)


def a_weight(shape=(6, 5), channel=0, fmt=lns8f5, dtype=torch.float64, seed=0) -> LNSWeight:
    """One log_offset for each index of a dimension, from -60 to 60."""
    offsets = torch.randint(-60, 61, (shape[channel],), generator=torch.Generator().manual_seed(seed + 1))
    offsets = offsets.reshape([shape[channel] if d == channel else 1 for d in range(len(shape))])
    return LNSWeight(codes_of(fmt, shape, seed), fmt, offsets, dtype)


def state(weight: LNSWeight) -> tuple:
    offsets = weight.log_offset
    return (
        words(weight).tolist(),
        offsets.tolist() if isinstance(offsets, torch.Tensor) else offsets,
        weight.dtype,
        weight.fmt,
    )


# -------------------------------------------------------------------------------------------------------- constructors


@pytest.mark.parametrize("spread", [3, 200, 1 << 20, 1 << 30])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_every_code_at_every_offset_decodes_as_lnsnum_does(fmt, spread):
    """At offsets near and far apart: to zero, subnormal numbers and infinity, too."""
    codes = torch.arange(1 << fmt.bits)
    codes = codes.to(torch.uint8 if fmt.bits <= 8 else torch.int16)
    offsets = torch.tensor([0, -spread, spread, -spread // 2, 1])[:, None]
    weight = LNSWeight(codes.expand(5, -1).contiguous(), fmt, offsets)
    for dtype in FLOATS:
        np.testing.assert_array_equal(patterns(weight.to_float(dtype)), decoded(weight, dtype))


@pytest.mark.parametrize("integers", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8], ids=str)
def test_offsets_of_any_integers_are_copied(integers):
    given_offsets = torch.tensor([3, 100, 7], dtype=integers)
    weight = LNSWeight(codes_of(lns8f5, (2, 3)), lns8f5, given_offsets)
    assert weight.log_offset.dtype == torch.int32
    assert weight.log_offset.tolist() == [[3, 100, 7]]
    assert (weight.scale.low, weight.scale.high) == (3, 100)
    given_offsets.zero_()
    assert weight.log_offset.tolist() == [[3, 100, 7]]


def test_a_tensor_of_one_offset_without_dimensions_is_an_integer():
    weight = LNSWeight(codes_of(lns8f5, (2, 3)), lns8f5, torch.tensor(-4))
    assert weight.log_offset == -4
    assert isinstance(weight.log_offset, int)


@pytest.mark.parametrize(
    "shape", [(6, 1, 1), (5, 1), (4,), (6, 5, 1), (6, 1, 4), (5, 4), (6, 5, 4), (1, 1, 1), (1,)], ids=str
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)], ids=str)
def test_channels_in_any_dimension_and_codes_in_any_order_of_memory(shape, order):
    offsets = torch.randint(-90, 90, shape, generator=torch.Generator().manual_seed(3))
    inverse = sorted(range(3), key=order.__getitem__)
    for codes in (
        codes_of(lns8f5, (6, 5, 4)).permute(order).contiguous().permute(inverse),
        codes_of(lns8f5, (12, 5, 8))[::2, :, ::2].permute(order).contiguous().permute(inverse),
        codes_of(lns8f5, (12, 5, 8))[::2, :, ::2],
        codes_of(lns8f5, (6, 1, 4)).expand(6, 5, 4),
    ):
        weight = LNSWeight(codes, lns8f5, offsets)
        for dtype in FLOATS:
            np.testing.assert_array_equal(patterns(weight.to_float(dtype)), decoded(weight, dtype))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)], ids=str)
def test_no_elements_at_all(shape):
    offsets = torch.tensor([[4], [5], [6]]) if shape == (3, 0) else torch.ones((1,) * len(shape), dtype=torch.int64)
    weight = LNSWeight(codes_of(lns8f5, shape), lns8f5, offsets)
    assert weight.to_float().shape == shape
    assert weight.rescale_(offsets + 1) is weight
    assert weight.rescale_() is weight
    assert weight.telemetry().elements == 0
    assert weight.view(-1).to_float().shape == (0,)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_from_float_is_encode_with_the_array(fmt, dtype):
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0, :5] = torch.tensor([0.0, math.inf, -math.inf, math.nan, -0.0])
    floats = x.view(torch.int16).numpy().view(np.uint16) if dtype == torch.bfloat16 else x.numpy()
    bits = torch.arange(48, dtype=torch.int32).reshape(6, 8) * 89_000_000
    for offsets in (torch.arange(-3, 3)[:, None] * 20, torch.arange(-4, 4) * 3, torch.arange(48).reshape(6, 8)):
        for arguments in ({}, {"rounding": "up"}, {"rounding": "toward_zero", "underflow": "saturate"}):
            weight = LNSWeight.from_float(x, fmt, log_offset=offsets, **arguments)
            expected = lnsnum.encode(floats, fmt, dtype=NAMES[dtype], log_offset=offsets.numpy(), **arguments)
            np.testing.assert_array_equal(words(weight), expected)
        for rounding in ("stochastic_value", "stochastic_log"):
            weight = LNSWeight.from_float(x, fmt, log_offset=offsets, rounding=rounding, random_bits=bits)
            np.testing.assert_array_equal(
                words(weight),
                lnsnum.encode(
                    floats,
                    fmt,
                    dtype=NAMES[dtype],
                    log_offset=offsets.numpy(),
                    rounding=rounding,
                    random_bits=bits.numpy().view(np.uint32),
                ),
            )


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_lns_round_trip_copies_codes_and_offsets(fmt):
    weight = a_weight(fmt=fmt)
    tensor = weight.to_lns()
    assert isinstance(tensor, LNSTensor)
    np.testing.assert_array_equal(tensor.codes, words(weight))
    np.testing.assert_array_equal(tensor.log_offset, weight.log_offset.numpy())
    back = LNSWeight.from_lns(tensor, torch.float64)
    assert state(back) == state(weight)
    before = state(back)
    tensor.codes[:] = 0
    np.asarray(tensor.log_offset).setflags(write=True)
    tensor.log_offset[:] = 0
    assert state(back) == before == state(weight)


def test_to_lns_of_a_view():
    weight = a_weight()
    tensor = weight.t()[1:, ::2].to_lns()
    np.testing.assert_array_equal(tensor.codes, words(weight).T[1:, ::2])
    assert np.broadcast_to(tensor.log_offset, (4, 3)).tolist() == [weight.log_offset[::2, 0].tolist()] * 4


def test_repr_and_nbytes():
    weight = LNSWeight.from_float(torch.tensor([[1.0], [-0.5]]), lns8f5, log_offset=torch.tensor([[16], [-32]]))
    tensor = LNSTensor.from_float(np.array([[1.0], [-0.5]]), "lns8f5", log_offset=np.array([[16], [-32]], np.int32))
    assert repr(weight) == f"LNSWeight.from_lns({tensor!r})"
    assert weight.nbytes == 2 + 2 * 4


@st.composite
def weights(draw):
    shape = draw(st.lists(st.integers(1, 4), min_size=0, max_size=4))
    own = [size if draw(st.booleans()) else 1 for size in shape]
    own = own[draw(st.integers(0, len(own))) :]
    bits = draw(st.integers(3, 16))
    fmt = LNSFormat(bits, draw(st.integers(0, bits - 2)), base=draw(st.sampled_from([2.0, 1.5, math.e, 1.001])))
    size, count = math.prod(shape), math.prod(own)
    codes = draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=size, max_size=size))
    offsets = draw(st.lists(st.integers(-(2**30), 2**30) | st.integers(-300, 300), min_size=count, max_size=count))
    codes = torch.tensor(codes, dtype=torch.int64).reshape(shape).to(torch.uint8 if bits <= 8 else torch.int16)
    order = draw(st.permutations(range(len(shape))))
    inverse = sorted(range(len(shape)), key=order.__getitem__)
    codes = codes.permute(order).contiguous().permute(inverse)
    return LNSWeight(codes, fmt, torch.tensor(offsets).reshape(own), draw(st.sampled_from(FLOATS)))


@settings(max_examples=150)
@given(weights())
@example(LNSWeight(torch.tensor([[200, 3], [7, 128]], dtype=torch.uint8), lns8f5, torch.tensor([[2**30], [-(2**30)]])))
def test_any_weight_decodes_copies_and_turns_as_its_codes(weight):
    for dtype in FLOATS:
        np.testing.assert_array_equal(patterns(weight.to_float(dtype)), decoded(weight, dtype))
    bits = patterns(weight.to_float())
    np.testing.assert_array_equal(patterns(weight.clone().to_float()), bits)
    np.testing.assert_array_equal(patterns(weight.reshape(-1).to_float()), bits.reshape(-1))
    np.testing.assert_array_equal(
        patterns(weight.flip(0) if weight.ndim else weight + 0),
        np.flip(bits, 0) if weight.ndim else patterns(weight.to_float() + 0),
    )
    reversed_order = tuple(reversed(range(weight.ndim)))
    np.testing.assert_array_equal(patterns(weight.permute(reversed_order).to_float()), bits.transpose(reversed_order))
    if weight.ndim:
        np.testing.assert_array_equal(patterns(weight[-1].to_float()), bits[-1])
        np.testing.assert_array_equal(
            patterns(weight.unsqueeze(1).expand(-1, 2, *weight.shape[1:]).to_float()), np.stack([bits, bits], 1)
        )
    back = LNSWeight.from_lns(weight.to_lns(), weight.dtype)
    np.testing.assert_array_equal(patterns(back.to_float()), bits)


# --------------------------------------------------------------------------------------------------------------- views

VIEWS = {
    "view": lambda t: t.view(2, 3, 20),
    "view splits": lambda t: t.view(6, 5, 2, 2),
    "view merges": lambda t: t.view(30, 4),
    "view -1": lambda t: t.view(-1),
    "reshape": lambda t: t.reshape(3, 2, 20),
    "reshape of transposed": lambda t: t.transpose(0, 1).reshape(5, 24),
    "flatten": lambda t: t.flatten(1),
    "unflatten": lambda t: t.unflatten(0, (2, 3)),
    "transpose": lambda t: t.transpose(0, 2),
    "permute": lambda t: t.permute(1, 2, 0),
    "t": lambda t: t[:, 1].t(),
    "T": lambda t: t[..., 2].T,
    "mT": lambda t: t.mT,
    "movedim": lambda t: t.movedim(0, 2),
    "swapaxes": lambda t: t.swapaxes(0, 1),
    "slice 0": lambda t: t[1:4],
    "slice 1": lambda t: t[:, 1:4],
    "slice 2": lambda t: t[:, :, -2:],
    "slice steps": lambda t: t[::2, 1::3, ::3],
    "select 0": lambda t: t[2],
    "select 1": lambda t: t[:, 2],
    "select 2": lambda t: t.select(2, -1),
    "element": lambda t: t[2, 3, 1],
    "split": lambda t: t.split(2)[1],
    "split dim 1": lambda t: t.split([2, 3], 1)[1],
    "chunk": lambda t: t.chunk(3, 1)[2],
    "tensor_split": lambda t: t.tensor_split(4)[1],
    "unbind 0": lambda t: t.unbind()[4],
    "unbind 1": lambda t: t.unbind(1)[4],
    "narrow": lambda t: t.narrow(0, 2, 3),
    "unsqueeze": lambda t: t.unsqueeze(0),
    "unsqueeze last": lambda t: t.unsqueeze(-1),
    "squeeze": lambda t: t.unsqueeze(1).squeeze(),
    "squeeze dim": lambda t: t[1:2].squeeze(0),
    "squeeze dims": lambda t: t[1:2, :, :1].squeeze((0, 2)),
    "diagonal": lambda t: t.diagonal(),
    "diagonal 1 2": lambda t: t.diagonal(1, 1, 2),
    "unfold": lambda t: t.unfold(0, 2, 2),
    "unfold 1": lambda t: t.unfold(1, 3, 3),
    "detach": lambda t: t.detach(),
    "alias": lambda t: torch.ops.aten.alias(t),
    "as_strided of the same": lambda t: t.as_strided(t.shape, t.stride()),
    "empty slice": lambda t: t[:0],
    "chain": lambda t: t.permute(2, 0, 1)[1:, ::2].unsqueeze(1)[..., -1],
    "chain of a merge": lambda t: t.view(-1)[7:100:3].view(-1, 1),
    "view_as": lambda t: t.view_as(torch.empty(5, 6, 4)),
    "expand_as": lambda t: t[:1].squeeze(0).expand_as(torch.empty(5, 4)),
    "hsplit": lambda t: t.hsplit(5)[2],
    "ravel": lambda t: t.ravel(),
}


def three_dimensional(channel) -> LNSWeight:
    """With offsets of dimension `channel`, or of several."""
    if isinstance(channel, int):
        return a_weight((6, 5, 4), channel)
    offsets = torch.randint(-60, 60, channel, generator=torch.Generator().manual_seed(5))
    return LNSWeight(codes_of(lns8f5, (6, 5, 4)), lns8f5, offsets, torch.float64)


CHANNELS = [0, 1, 2, (6, 5, 1), (6, 1, 4), (6, 5, 4), (1, 1, 1)]


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("channel", CHANNELS, ids=str)
def test_a_view_decodes_to_the_view_of_the_decoded(name, channel):
    weight = three_dimensional(channel)
    view, floats, codes = VIEWS[name](weight), VIEWS[name](weight.to_float()), VIEWS[name](weight.codes)
    assert isinstance(view, LNSWeight)
    np.testing.assert_array_equal(patterns(view.to_float()), patterns(floats))
    np.testing.assert_array_equal(patterns(view + 0.0), patterns(floats + 0.0))
    assert torch.equal(view.codes, codes)
    assert (view.shape, view.stride(), view.storage_offset()) == (codes.shape, codes.stride(), codes.storage_offset())
    assert (
        name == "reshape of transposed"
        or view.codes.untyped_storage().data_ptr() == weight.codes.untyped_storage().data_ptr()
    )


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("channel", CHANNELS, ids=str)
def test_a_write_through_a_view_reaches_the_weight_and_nothing_else(name, channel):
    """Negation and zero are exact at any scale."""
    weight = three_dimensional(channel)
    offsets = weight.log_offset.clone()
    floats = weight.to_float()
    if name == "reshape of transposed":
        return  # a copy
    for write in (lambda t: t.neg_(), lambda t: t.mul_(torch.arange(t.numel()).reshape(t.shape) % 2)):
        version = weight._version
        write(VIEWS[name](weight))
        write(VIEWS[name](floats))
        assert torch.equal(weight.to_float(), floats)
        assert torch.equal(weight.log_offset, offsets)
        assert weight._version > version


@pytest.mark.parametrize("name", ["slice 0", "select 1", "view -1", "chain of a merge", "diagonal"])
@pytest.mark.parametrize("channel", CHANNELS[:-1], ids=str)  # the last has one offset, whose view -1 is the whole
@pytest.mark.filterwarnings("ignore:.*and was clipped")
def test_a_view_is_encoded_at_the_scale_of_its_elements(name, channel):
    weight = three_dimensional(channel)
    view = VIEWS[name](weight)
    x = torch.randn(view.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    offsets = VIEWS[name](weight.log_offset.expand(6, 5, 4).contiguous())
    torch.manual_seed(3)
    view.copy_(x)
    torch.manual_seed(3)
    bits = lnsnum.random_bits(tuple(view.shape), seed=int(torch.randint(1 << 62, ())))
    expected = lnsnum.encode(
        x.numpy(), lns8f5, log_offset=offsets.numpy(), rounding="stochastic_value", random_bits=bits
    )
    np.testing.assert_array_equal(words(VIEWS[name](weight)), expected)


@pytest.mark.parametrize("name", ["view", "transpose", "select 1", "unbind 1", "expand_as", "view -1", "diagonal"])
def test_views_in_inference_mode(name):
    weight = a_weight((6, 5, 4))
    with torch.inference_mode():
        view = VIEWS[name](weight)
        bits = patterns(view.to_float())
    np.testing.assert_array_equal(bits, patterns(VIEWS[name](weight.to_float())))


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "detach"])
def test_gradients_come_back_through_a_view(name):
    weight = nn.Parameter(a_weight((6, 5, 4)))
    floats = weight.to_float().requires_grad_()
    for leaf in (weight, floats):
        VIEWS[name](leaf).square().sum().backward()
    np.testing.assert_array_equal(patterns(weight.grad), patterns(floats.grad))


def test_expanded_views():
    weight = a_weight((6, 1, 4))
    view = weight.expand(2, 6, 5, 4)
    np.testing.assert_array_equal(patterns(view.to_float()), patterns(weight.to_float().expand(2, 6, 5, 4)))
    before = state(weight)
    with pytest.raises(RuntimeError, match="single memory location"):
        view.neg_()
    assert state(weight) == before


@pytest.mark.parametrize("arguments", [((3, 2), (5, 2), 1), ((30,), (1,)), ((6, 5), (5, 1), 1)], ids=str)
def test_other_strides_are_refused(arguments):
    storage = LNSWeight(codes_of(lns8f5, (40,))[:30].view(6, 5), lns8f5, torch.arange(6)[:, None])
    with pytest.raises(NotImplementedError, match="as_strided of an LNSWeight with a log_offset for each channel"):
        storage.as_strided(*arguments)


def test_the_offsets_of_a_view_are_those_of_the_weight():
    """No copies where a view exists: what rescales the weight is seen by the view."""
    weight = a_weight((6, 5))
    views = [weight[1:], weight.t(), weight[2], weight.detach(), weight[:, 1], weight.view(2, 3, 5)]
    weight.rescale_(torch.arange(6)[:, None])
    assert [view.log_offset.reshape(-1).tolist() for view in views] == [
        [1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
        [2],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]
    floats = weight.to_float()
    for view, expected in zip(
        views, [floats[1:], floats.t(), floats[2], floats, floats[:, 1], floats.view(2, 3, 5)], strict=True
    ):
        assert torch.equal(view.to_float(), expected)


# -------------------------------------------------------------------------------------------------------------- copies


def through(save, load):
    def copied(weight):
        file = io.BytesIO()
        save(weight, file)
        file.seek(0)
        return load(file)

    return copied


COPIES = {
    "clone": lambda w: w.detach().clone().requires_grad_(w.requires_grad),
    "contiguous": lambda w: w.detach().t().contiguous().t().clone().requires_grad_(w.requires_grad),
    "deepcopy": copy.deepcopy,
    "pickle": lambda w: pickle.loads(pickle.dumps(w)),
    "torch.save": through(torch.save, torch.load),
    "torch.save weights_only": through(torch.save, lambda file: torch.load(file, weights_only=True)),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_copies_keep_everything_and_share_nothing(name, dtype):
    for channel in (0, 1):
        for weight in (a_weight((6, 5), channel, dtype=dtype), nn.Parameter(a_weight((6, 5), channel, dtype=dtype))):
            before = state(weight)
            copied = COPIES[name](weight)
            assert isinstance(copied, LNSWeight)
            assert state(copied) == before
            assert copied.requires_grad == weight.requires_grad
            np.testing.assert_array_equal(patterns(copied.to_float()), patterns(weight.to_float()))
            with torch.no_grad():
                copied.rescale_(torch.full(copied.log_offset.shape, 3))
                copied.zero_()
            assert state(weight) == before


def test_a_file_mapped_into_memory(tmp_path):
    weight = a_weight((6, 5))
    torch.save({"w": weight}, tmp_path / "w.pt")
    mapped = torch.load(tmp_path / "w.pt", mmap=True)["w"]
    assert state(mapped) == state(weight)
    np.testing.assert_array_equal(patterns(mapped.to_float()), patterns(weight.to_float()))
    mapped.neg_()
    assert torch.equal(mapped.to_float(), -weight.to_float())
    assert state(torch.load(tmp_path / "w.pt")["w"]) == state(weight)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_another_float_type_keeps_the_codes(dtype):
    weight = a_weight(dtype=torch.float32)
    other = weight.to(dtype)
    assert isinstance(other, LNSWeight)
    assert other.dtype == dtype
    assert torch.equal(other.codes, weight.codes)
    assert torch.equal(other.log_offset, weight.log_offset)
    np.testing.assert_array_equal(patterns(other.to_float()), decoded(weight, dtype))


def test_a_copy_from_the_same_channels_takes_codes_and_offsets_and_draws_nothing():
    weight, other = nn.Parameter(a_weight(seed=1)), a_weight(seed=2)
    alias, part = weight.detach(), weight[1:].detach()
    generator = torch.get_rng_state()
    with torch.no_grad():
        assert weight.copy_(other) is weight
    assert torch.equal(torch.get_rng_state(), generator)
    assert state(weight) == state(other) == state(alias)
    np.testing.assert_array_equal(patterns(part.to_float()), patterns(other[1:].to_float()))
    before = state(weight)
    other.rescale_(torch.zeros(6, 1, dtype=torch.int64))
    assert state(weight) == before


def test_a_copy_from_one_offset_takes_it_for_each_channel():
    weight, other = a_weight(seed=1), LNSWeight(codes_of(lns8f5, (6, 5), 7), lns8f5, -33, torch.float64)
    part = weight[2:]
    weight.copy_(other)
    assert torch.equal(weight.codes, other.codes)
    assert weight.log_offset.tolist() == [[-33]] * 6
    np.testing.assert_array_equal(patterns(weight.to_float()), patterns(other.to_float()))
    np.testing.assert_array_equal(patterns(part.to_float()), patterns(other[2:].to_float()))


def test_a_copy_into_one_offset_is_exact_or_refused():
    weight = LNSWeight(codes_of(lns8f5, (6, 5), 7), lns8f5, -33, torch.float64)
    before = state(weight)
    with pytest.raises(ValueError, match="one log_offset cannot take codes with one for each channel"):
        weight.copy_(a_weight())
    assert state(weight) == before
    same = LNSWeight(codes_of(lns8f5, (6, 5), 8), lns8f5, torch.full((6, 1), 12), torch.float64)
    weight.copy_(same)
    assert torch.equal(weight.codes, same.codes)
    assert weight.log_offset == 12


def test_a_copy_from_channels_of_another_dimension_is_refused():
    weight, other = a_weight(channel=0), a_weight(channel=1)
    before = state(weight)
    with pytest.raises(ValueError, match=r"log_offsets of shape \(1, 5\) cannot become those of .* \(6, 1\)"):
        weight.copy_(other)
    assert state(weight) == before


def between_neighbours(weight: LNSWeight, floats: torch.Tensor) -> None:
    """Each element is one of the codes that are next to the floats, at the scale there."""
    offsets = weight.log_offset
    arguments = {"log_offset": offsets.numpy() if isinstance(offsets, torch.Tensor) else offsets}
    low = lnsnum.encode(floats.numpy(), weight.fmt, rounding="down", **arguments)
    high = lnsnum.encode(floats.numpy(), weight.fmt, rounding="up", **arguments)
    assert ((words(weight) == low) | (words(weight) == high)).all()


@pytest.mark.filterwarnings("ignore:.*and was clipped")
@pytest.mark.parametrize("part", [lambda w: w[1:3], lambda w: w[:, 2:], lambda w: w[4], lambda w: w.t()[1:]])
@pytest.mark.parametrize("channel", [0, 1, None])
def test_a_copy_into_a_part_is_encoded_there_and_leaves_the_rest(part, channel):
    weight = a_weight(seed=1) if channel is None else a_weight(channel=channel, seed=1)
    other = (
        LNSWeight(codes_of(lns8f5, (6, 5), 3), lns8f5, 9, torch.float64)
        if channel is None
        else a_weight(channel=channel, seed=2)
    )
    before, touched = weight.codes.clone(), torch.zeros(6, 5, dtype=torch.bool)
    offsets = weight.log_offset.clone()
    part(touched).fill_(True)
    part(weight).copy_(part(other))
    assert torch.equal(weight.log_offset, offsets)
    assert torch.equal(weight.codes[~touched], before[~touched])
    between_neighbours(part(weight), part(other).to_float())


def test_a_broadcast_copy_is_encoded():
    weight, row = a_weight(seed=1), torch.linspace(-1.1, 0.7, 5).double()
    weight.copy_(row)
    assert weight.log_offset.tolist() == [[LNSWeight.from_float(row, lns8f5).log_offset]] * 6
    between_neighbours(weight, row.expand(6, 5).contiguous())


def test_a_copy_of_itself_changes_nothing():
    weight = a_weight()
    before = state(weight)
    weight.copy_(weight)
    weight.copy_(weight.detach())
    weight[1].copy_(weight[1])
    assert state(weight) == before


@pytest.mark.filterwarnings("ignore:.*and was clipped")
def test_a_copy_into_elements_that_share_memory_leaves_the_others_alone():
    """As many elements as the memory holds, but two of them in one place: that is not the whole weight."""
    weight = LNSWeight(codes_of(lns8f5, (4,)), lns8f5, 0, torch.float64)
    last = float(weight[3])
    weight.as_strided((2, 2), (1, 1)).copy_(LNSWeight(codes_of(lns8f5, (2, 2), 4), lns8f5, 50, torch.float64))
    assert weight.log_offset == 0
    assert float(weight[3]) == last


# ------------------------------------------------------------------------------------------------------------- modules


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


def tokens(*shape):
    return torch.arange(math.prod(shape)).reshape(shape) * 7 % 11


MODULES = {
    "Linear": (lambda: nn.Linear(12, 7), (3, 12)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "Conv2d": (lambda: nn.Conv2d(3, 8, 3, stride=2), (2, 3, 9, 9)),
    "Conv2d channels last": (lambda: nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last), (2, 3, 9, 9)),
    "Conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding="same"), (2, 4, 6, 6)),
    "Conv2d depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (2, 4, 8, 8)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 5, 5)),
    "Embedding": (lambda: nn.Embedding(11, 5, padding_idx=2), tokens(3, 4)),
    "Embedding one dimension": (lambda: nn.Embedding(11, 5), tokens(4)),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(11, 5), tokens(3, 4)),
    "EmbeddingBag max": (lambda: nn.EmbeddingBag(11, 5, mode="max"), tokens(3, 4)),
    "LayerNorm 2d": (lambda: nn.LayerNorm((4, 3)), (5, 4, 3)),
    "MultiheadAttention": (lambda: SelfAttention(8, 2, batch_first=True), (2, 5, 8)),
    "MultiheadAttention kdim": (lambda: SelfAttention(8, 2, kdim=8, vdim=8, add_bias_kv=True), (5, 2, 8)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "LSTM": (lambda: nn.LSTM(5, 4, num_layers=2, bidirectional=True, batch_first=True), (2, 6, 5)),
    "GRU": (lambda: nn.GRU(5, 4, num_layers=2), (6, 2, 5)),
    "RNN": (lambda: nn.RNN(5, 4, nonlinearity="relu"), (6, 2, 5)),
    "LSTMCell": (lambda: nn.LSTMCell(5, 4), (3, 5)),
}


def converted(name: str, dtype: torch.dtype, fmt: LNSFormat = lns8f5) -> nn.Module:
    """With rows of very different sizes."""
    torch.manual_seed(0)
    model = MODULES[name][0]().to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(1.5 ** torch.arange(p.shape[0]).reshape(-1, *[1] * (p.ndim - 1)).to(dtype))
    convert_model(model, fmt, per_channel=True)
    assert any(isinstance(p.log_offset, torch.Tensor) for p in model.parameters())
    return model


def outputs_and_gradients(model, inputs, train):
    inputs = (
        inputs
        if isinstance(inputs, torch.Tensor)
        else torch.sin(torch.arange(math.prod(inputs)).double()).reshape(inputs)
    )
    if inputs.is_floating_point():
        inputs = inputs.to(next(model.parameters()).dtype).requires_grad_()
    model.train(train)
    torch.manual_seed(1)
    outputs = [o for o in torch.utils._pytree.tree_leaves(model(inputs)) if isinstance(o, torch.Tensor)]
    sum((o * torch.cos(torch.arange(o.numel())).reshape(o.shape).to(o)).sum() for o in outputs).backward()
    leaves = [inputs] if inputs.is_floating_point() else []
    return [o.detach() for o in outputs] + [leaf.grad for leaf in [*leaves, *model.parameters()]]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_modules_compute_as_decoded(name, dtype):
    for fmt in (lns8f5, lns16f10):
        model = converted(name, dtype, fmt)
        plain = decode_model(copy.deepcopy(model))
        for train in (True, False):
            found = outputs_and_gradients(model, MODULES[name][1], train)
            expected = outputs_and_gradients(plain, MODULES[name][1], train)
            assert len(found) == len(expected) > 1
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(patterns(a), patterns(b))


@pytest.mark.parametrize("channel", [0, 1, None])
def test_an_embedding_with_channels_of_rows_columns_or_both(channel):
    shape = (11, 5) if channel is None else ((11, 1), (1, 5))[channel]
    offsets = torch.randint(-60, 60, shape, generator=torch.Generator().manual_seed(5))
    model = nn.Embedding(11, 5)
    model.weight = nn.Parameter(LNSWeight(codes_of(lns8f5, (11, 5)), lns8f5, offsets))
    for indices in (tokens(3, 4), tokens(4), torch.tensor(3), tokens(0), tokens(2, 1, 3)):
        expected = nn.functional.embedding(indices, model.weight.to_float())
        np.testing.assert_array_equal(patterns(model(indices).detach()), patterns(expected))


@pytest.mark.parametrize(("columns", "group_size"), [(64, None), (2048, 32), (2040, 32)])
def test_an_embedding_of_as_many_indices_as_scales_in_a_row(columns, group_size):
    """All rows have the scales of one: whose dimension is the codes' last, however many indices there are."""
    offsets = torch.randint(-60, 60, (1, 64), generator=torch.Generator().manual_seed(5))
    weight = LNSWeight(codes_of(lns8f5, (11, columns)), lns8f5, offsets, group_size=group_size)
    for indices in (tokens(63), tokens(64), tokens(64, 1), tokens(1, 64), tokens(64, 64)):
        expected = weight.to_float()[indices]
        np.testing.assert_array_equal(patterns(torch.embedding(weight, indices)), patterns(expected))


def test_convert_model_gives_each_channel_the_scale_that_fits_it():
    """Rows in powers of two: their offsets are apart by that many octaves, and their codes are the same."""
    row = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = nn.Linear(16, 5).double()
    with torch.no_grad():
        model.weight.copy_(row * 2.0 ** torch.arange(5)[:, None])
    whole = LNSWeight.from_float(row, lns8f5)
    report = convert_model(model, lns8f5, per_channel=True)
    offsets = report["weight"].log_offset
    assert torch.equal(offsets, model.weight.log_offset)
    assert offsets.shape == (5, 1)
    assert (offsets.reshape(-1) - offsets[0, 0]).tolist() == [0, 32, 64, 96, 128]
    assert all(torch.equal(model.weight.codes[i], model.weight.codes[0]) for i in range(5))
    top = lnsnum.decode([lns8f5.max_magnitude], lns8f5, log_offset=int(offsets[0]))[0]
    rms = float(row.square().mean().sqrt())
    assert top / 2 ** (1 / 32) < 3 * rms <= top
    assert whole.fmt is lns8f5
    assert isinstance(model.bias.log_offset, int)
    assert report["weight"].relative_error == pytest.approx(
        float((model.weight.to_float()[0] - row).norm() / row.norm()), rel=1e-9
    )


def test_channels_of_zeros_and_of_small_parameters():
    model = nn.Module()
    model.rows = nn.Parameter(torch.tensor([[0.0, 0.0], [1.0, -2.0], [1e-30, 2e-30]]))
    model.vector = nn.Parameter(torch.ones(3))
    model.scalar = nn.Parameter(torch.tensor(2.0))
    model.empty = nn.Parameter(torch.zeros(0, 3))
    report = convert_model(model, lns8f5, per_channel=True, zeros="keep")
    assert report["rows"].log_offset.shape == (3, 1)
    assert report["rows"].log_offset[0, 0] == fit_to_rms(math.sqrt(5 / 6), lns8f5)  # that of all rows
    assert [type(report[name].log_offset) for name in ("vector", "scalar", "empty")] == [int] * 3
    np.testing.assert_allclose(model.rows.detach().to_float(), [[0, 0], [1, -2], [1e-30, 2e-30]], rtol=0.011)
    assert ".." in str(report).splitlines()[1]


def test_a_report_names_the_least_and_the_greatest_offset():
    model = converted("Linear", torch.float32)
    report = convert_model(decode_model(model), lns8f5, per_channel=True)
    offsets = model.weight.log_offset
    assert f" {int(offsets.min())}..{int(offsets.max())} " in str(report)


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_round_trip(by_file, assign):
    model, other = converted("Linear", torch.float32), converted("Linear", torch.float32)
    with torch.no_grad():
        other.weight.mul_(-1.7)
        other.weight.rescale_()
    saved = through(torch.save, torch.load)(model.state_dict()) if by_file else model.state_dict()
    other.load_state_dict(saved, assign=assign)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert isinstance(b, nn.Parameter)
        assert state(a) == state(b)


def test_a_state_of_decoded_floats_gives_the_values_back():
    model, other = converted("Linear", torch.float32), converted("Linear", torch.float32)
    with torch.no_grad():
        other.weight.neg_()
    floats = decode_model(copy.deepcopy(model)).state_dict()
    other.load_state_dict(floats)
    assert state(other.weight) == state(model.weight)


def test_a_state_of_other_floats_is_encoded_as_conversion_does():
    model, plain = converted("Linear", torch.float32), nn.Linear(12, 7)
    model.load_state_dict(plain.state_dict())
    convert_model(plain, lns8f5, per_channel=True, zeros="keep")
    assert [state(p) for p in model.parameters()] == [state(p) for p in plain.parameters()]


def test_a_model_takes_its_own_state():
    model = converted("Linear", torch.float32)
    before = [state(p) for p in model.parameters()]
    model.load_state_dict(model.state_dict())
    assert [state(p) for p in model.parameters()] == before


def test_states_between_a_scale_for_all_and_one_for_each_channel():
    torch.manual_seed(0)
    plain = nn.Linear(4, 3)
    one, each = copy.deepcopy(plain), copy.deepcopy(plain)
    convert_model(one, lns8f5)
    convert_model(each, lns8f5, per_channel=True)
    before = state(one.weight)
    with pytest.raises(RuntimeError, match="one log_offset cannot take codes with one for each channel"):
        one.load_state_dict(each.state_dict())
    assert state(one.weight) == before
    each.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(patterns(each.weight.to_float()), patterns(one.weight.to_float()))


@pytest.mark.parametrize("change", ["half", "bfloat16", "double", "float"])
def test_modules_change_their_float_type(change):
    model = converted("TransformerEncoderLayer", torch.float32)
    before = [(p.codes.clone(), p.log_offset) for p in model.parameters()]
    getattr(model, change)()
    for p, (codes, log_offset) in zip(model.parameters(), before, strict=True):
        assert p.dtype == getattr(torch, change)
        assert torch.equal(p.codes, codes)
        assert torch.equal(torch.as_tensor(p.log_offset), torch.as_tensor(log_offset))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_stock_optimizers_write_at_the_scale_of_each_channel(kind):
    weight = nn.Parameter(a_weight())
    offsets = weight.log_offset.clone()
    floats = nn.Parameter(weight.to_float())
    gradient = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(6, 5)
    for p in (weight, floats):
        p.grad = gradient.clone()
        kind([p], lr=0.01).step()
    assert torch.equal(weight.log_offset, offsets)
    between_neighbours(weight.detach(), floats.detach())
