"""rescale_ and telemetry: the scale of a weight changes when one asks for it, by an addition of integers.

The oracle of the codes is that addition in NumPy, that of the scale that fits is mpmath; shares are counted by NumPy.
"""

import math
import sys
import warnings

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import lnsnum
from lnsnum import LNSFormat, lns6f2, lns8f3, lns8f5, lns12f6, lns16f10
from lnsnum.torch_bridge import LNSWeight, convert_model

torch.set_num_threads(1)

FORMATS = [LNSFormat(3, 1), LNSFormat(4, 0), lns6f2, lns8f5, lns8f3, LNSFormat(9, 3, base=1.5), lns12f6, lns16f10]


def words(weight: LNSWeight) -> np.ndarray:
    """The codes as the unsigned integers they are."""
    return weight.codes.detach().contiguous().numpy().view(weight.fmt.dtype).copy()


def as_codes(numbers, fmt: LNSFormat) -> torch.Tensor:
    return torch.as_tensor(numbers).to(torch.uint8 if fmt.bits <= 8 else torch.int16)


def every_code(fmt: LNSFormat, log_offset=0, dtype=torch.float64) -> LNSWeight:
    return LNSWeight(as_codes(torch.arange(1 << fmt.bits), fmt), fmt, log_offset, dtype)


def a_weight(shape=(6, 5), log_offset=-40, fmt=lns8f5, seed=0) -> LNSWeight:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return LNSWeight.from_float(x, fmt, log_offset=log_offset)


CHANNELS = torch.tensor([[-40], [-20], [0], [3], [9], [-64]])


def moved(codes: np.ndarray, fmt: LNSFormat, shift: np.ndarray | int) -> np.ndarray:
    """m + shift, kept from 1 to m_max; zeros and NaN stay, and so do signs."""
    m = codes.astype(np.int64) & fmt.max_magnitude
    sign = codes.astype(np.int64) - m
    return np.where(m > 0, np.clip(m + shift, 1, fmt.max_magnitude) + sign, codes)


def least_offset(w: np.ndarray, fmt: LNSFormat, p_scale: float = 3.0) -> int:
    """The least log_offset whose greatest value is at or above p_scale * RMS(w), where zeros stand for numbers of
    deviation 0.1, or 1 / sqrt(fan_in) in a matrix if that is less."""
    if not w.size:
        return 0
    with mpmath.workprec(300):
        rms = mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(x)) ** 2 for x in w.reshape(-1)) / w.size)
        fan_in = np.prod(w.shape[1:]) if w.ndim > 1 else 1
        top = p_scale * (rms or mpmath.mpf(min(0.1, float(fan_in) ** -0.5 if w.ndim > 1 else 0.1)))
        log = mpmath.log(top) / mpmath.log(mpmath.mpf(fmt.base)) * 2**fmt.fraction_bits
        return int(mpmath.ceil(log - mpmath.mpf(2) ** -200)) - (2 ** (fmt.bits - 2) - 1)


# ------------------------------------------------------------------------------------------------------------ rescale_


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("log_offset", [0, 1, -1, 5, -300, 2**30, -(2**30)])
def test_every_code_is_moved_by_the_difference(fmt, log_offset):
    weight = every_code(fmt, log_offset=2)
    assert weight.rescale_(log_offset) is weight
    assert weight.log_offset == log_offset
    np.testing.assert_array_equal(words(weight), moved(np.arange(1 << fmt.bits), fmt, 2 - log_offset))
    assert weight.codes.dtype == (torch.uint8 if fmt.bits <= 8 else torch.int16)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_what_does_not_saturate_keeps_its_value(fmt):
    weight = every_code(fmt)
    before, codes = weight.to_float(), torch.arange(1 << fmt.bits)
    weight.rescale_(-1)
    inside = (codes & fmt.max_magnitude) < fmt.max_magnitude
    np.testing.assert_array_equal(weight.to_float()[inside], before[inside])
    weight.rescale_(0)
    np.testing.assert_array_equal(weight.to_float()[inside], before[inside])


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_each_channel_is_moved_by_its_own_difference(fmt):
    codes = torch.arange(1 << fmt.bits).expand(6, -1)
    weight = LNSWeight(as_codes(codes, fmt).contiguous(), fmt, CHANNELS, torch.float64)
    for target in (CHANNELS.flip(0), CHANNELS * 0 + 2**30, CHANNELS[:1].expand(6, 1), -CHANNELS):
        expected = moved(words(weight), fmt, (weight.log_offset - target).numpy())
        weight.rescale_(target)
        np.testing.assert_array_equal(words(weight), expected)
        assert torch.equal(weight.log_offset, target.to(torch.int32))
        assert (weight.scale.low, weight.scale.high) == (int(target.min()), int(target.max()))


def test_one_integer_for_all_channels():
    weight = a_weight(log_offset=CHANNELS)
    expected = moved(words(weight), lns8f5, (CHANNELS - 7).numpy())
    weight.rescale_(7)
    np.testing.assert_array_equal(words(weight), expected)
    assert weight.log_offset.tolist() == [[7]] * 6


def test_the_given_offsets_are_copied():
    weight, target = a_weight(log_offset=CHANNELS), CHANNELS.to(torch.int32)
    weight.rescale_(target)
    target.zero_()
    assert torch.equal(weight.log_offset, CHANNELS.to(torch.int32))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("p_scale", [3.0, 1.0, 0.5])
def test_by_default_the_greatest_magnitude_is_just_above_the_rms(fmt, p_scale):
    weight = a_weight(log_offset=17, fmt=fmt)
    floats = weight.to_float().numpy()
    codes = words(weight)
    weight.rescale_(p_scale=p_scale)
    assert weight.log_offset == least_offset(floats, fmt, p_scale)
    np.testing.assert_array_equal(words(weight), moved(codes, fmt, 17 - weight.log_offset))


@pytest.mark.parametrize("channel", [0, 1, (0, 1)], ids=str)
def test_by_default_each_channel_fits_its_own_rms(channel):
    shape = (6, 5) if isinstance(channel, tuple) else ((6, 1), (1, 5))[channel]
    offsets = torch.randint(-60, 60, shape, generator=torch.Generator().manual_seed(1))
    weight = a_weight(log_offset=offsets)
    weight[2, 3] = 0.0
    floats = weight.to_float().numpy()
    codes = words(weight)
    weight.rescale_()
    index = np.arange(30).reshape(6, 5)
    channels = {0: list(index), 1: list(index.T), (0, 1): list(index.reshape(30, 1))}[channel]
    whole = least_offset(floats, lns8f5)
    numbers = [floats.reshape(-1)[elements] for elements in channels]
    expected = [least_offset(each, lns8f5) if each.any() else whole for each in numbers]
    assert weight.log_offset.reshape(-1).tolist() == expected
    assert weight.log_offset.shape == shape
    np.testing.assert_array_equal(words(weight), moved(codes, lns8f5, (offsets - weight.log_offset).numpy()))


def test_conversion_and_rescaling_choose_the_same():
    model = nn.Linear(16, 8)
    convert_model(model, lns16f10, per_channel=True)
    before = [p.log_offset for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.rescale_(p.log_offset + 5).rescale_()
    for p, offset in zip(model.parameters(), before, strict=True):
        assert (torch.as_tensor(p.log_offset) - torch.as_tensor(offset)).abs().max() <= 1


@pytest.mark.parametrize(("shape", "deviation"), [((3, 2), 0.1), ((5,), 0.1), ((2, 400), 0.05), ((2, 16, 5, 5), 0.05)])
def test_zeros_get_the_scale_of_what_could_stand_there(shape, deviation):
    """Not log_offset 0, where the smallest number of lns8f5 is 0.26: zeros that an optimizer lets go start from it."""
    expected = least_offset(np.full(4, deviation), lns8f5)
    weight = LNSWeight(torch.zeros(shape, dtype=torch.uint8), lns8f5, 9)
    assert weight.rescale_().log_offset == expected
    offsets = torch.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    rows = LNSWeight(torch.zeros(shape, dtype=torch.uint8), lns8f5, offsets)
    assert rows.rescale_().log_offset.reshape(-1).tolist() == [expected] * shape[0]
    assert not weight.codes.any()


def test_a_channel_of_zeros_gets_the_scale_of_all():
    rows = LNSWeight.from_float(torch.tensor([[2.0, 2.0], [0.0, 0.0]]), lns8f5, log_offset=torch.tensor([[0], [9]]))
    rows.rescale_()
    expected = [least_offset(np.array(w), lns8f5) for w in ([2.0, 2.0], [2.0, 2.0, 0.0, 0.0])]
    assert rows.log_offset.reshape(-1).tolist() == expected


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)], ids=str)
def test_shapes_of_no_and_of_one_element(shape):
    weight = LNSWeight(torch.full(shape, 77, dtype=torch.uint8), lns8f5, 9)
    weight.rescale_(4)
    assert weight.log_offset == 4
    assert (weight.codes == 82).all()
    weight.rescale_()
    assert weight.log_offset == (least_offset(np.array(2.0 ** ((77 - 64 + 9) / 32)), lns8f5) if shape == () else 0)


@pytest.mark.parametrize("log_offset", [0, CHANNELS], ids=["whole", "channels"])
def test_nan_stays_and_has_no_say_in_the_scale(log_offset):
    weight = a_weight(log_offset=log_offset)
    weight.codes[1, 1] = lns8f5.nan_code
    codes = words(weight)
    weight.rescale_(log_offset)
    np.testing.assert_array_equal(words(weight), codes)
    floats = np.nan_to_num(weight.to_float().numpy())
    weight.rescale_()
    expected = [least_offset(row, lns8f5) for row in (floats if torch.is_tensor(log_offset) else [floats])]
    assert torch.as_tensor(weight.log_offset).reshape(-1).tolist() == expected
    assert weight.codes[1, 1] == lns8f5.nan_code


def test_aliases_and_views_see_the_new_scale():
    weight = nn.Parameter(a_weight(log_offset=-40))
    views = [weight.detach(), weight.data, weight[2:4].detach(), weight.t().detach(), weight.view(-1).detach()]
    weight.rescale_(-30)
    floats = weight.to_float()
    for view, expected in zip(views, [floats, floats, floats[2:4], floats.t(), floats.view(-1)], strict=True):
        assert view.log_offset == -30
        assert torch.equal(view.to_float(), expected)
    views[0].rescale_(-20)
    assert weight.log_offset == -20
    clone, floats = weight.detach().clone(), weight.to_float()
    clone.rescale_(0)
    assert weight.log_offset == -20
    assert torch.equal(weight.to_float(), floats)


def test_views_of_channels_see_the_new_scale():
    weight = a_weight(log_offset=CHANNELS)
    views = [weight.detach(), weight[2:4], weight.t(), weight[3], weight.view(3, 2, 5), weight.unbind(1)[2]]
    weight.rescale_(CHANNELS.flip(0))
    floats = weight.to_float()
    expected = [floats, floats[2:4], floats.t(), floats[3], floats.view(3, 2, 5), floats[:, 2]]
    for view, wanted in zip(views, expected, strict=True):
        assert torch.equal(view.to_float(), wanted)


@pytest.mark.parametrize("view", [lambda w: w.view(-1), lambda w: w.view(3, 10), lambda w: w.view(-1)[3:]])
@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.rescale_(CHANNELS + 1),
        lambda w: w.rescale_(CHANNELS.flip(0)),
        lambda w: w.rescale_(),
        lambda w: w.copy_(a_weight(log_offset=CHANNELS + 1, seed=3)),
        lambda w: w.copy_(a_weight(log_offset=CHANNELS.flip(0), seed=3)),
        lambda w: w.copy_(a_weight(log_offset=5, seed=3)),
        lambda w: w.t().rescale_(CHANNELS.flip(0).t()),
    ],
)
def test_a_view_that_merged_channels_is_told_stale(view, change):
    """It had to copy the offsets, among which the least and the greatest may have stayed what they were."""
    weight = a_weight(log_offset=CHANNELS)
    merged = view(weight)
    assert torch.equal(merged.to_float(), view(weight.to_float()))
    change(weight)
    codes = weight.codes.clone()
    for use in (
        LNSWeight.to_float,
        LNSWeight.to_lns,
        torch.neg,
        lambda w: w.fill_(1.0),
        lambda w: w[2:],
        lambda w: w.log_offset,
    ):
        with pytest.raises(RuntimeError, match="merged channels, and their log_offsets have been changed since"):
            use(merged)
    assert torch.equal(weight.codes, codes)
    assert torch.equal(view(weight).to_float(), view(weight.to_float()))


@pytest.mark.parametrize(
    "part",
    [
        lambda w: w[1:],
        lambda w: w[0],
        lambda w: w[:, ::2],
        lambda w: w[2, 3],
        lambda w: w[:0],
        lambda w: w.view(-1)[:29],
        lambda w: w.diagonal(),
        lambda w: w.as_strided((5, 6), (1, 1)),
        lambda w: w[:1].expand(6, 5),
    ],
)
def test_a_part_of_a_weight_is_refused(part):
    weight = a_weight()
    before = weight.codes.clone()
    with pytest.raises(RuntimeError, match="rescale_ of a part of a weight would leave the rest at another scale"):
        part(weight).rescale_(3)
    assert torch.equal(weight.codes, before)
    assert weight.log_offset == -40


def test_a_merged_view_of_channels_is_refused():
    weight = a_weight(log_offset=CHANNELS)
    with pytest.raises(RuntimeError, match="rescale_ of a part of a weight"):
        weight.view(-1).rescale_()


def test_a_view_of_the_whole_may_rescale():
    weight = a_weight(log_offset=CHANNELS)
    expected = moved(words(weight), lns8f5, (CHANNELS - 4).numpy())
    weight.t().rescale_(4)
    np.testing.assert_array_equal(words(weight), expected)
    assert weight.log_offset.tolist() == [[4]] * 6


@pytest.mark.parametrize(
    ("log_offset", "own", "error", "message"),
    [
        (0.5, 0, TypeError, "log_offset=0.5 is a float"),
        (True, 0, TypeError, "log_offset=True is a bool"),
        ("fit", 0, TypeError, "log_offset='fit'"),
        (2**30 + 1, 0, ValueError, r"log_offset=1073741825 is too large: at most 2\^30"),
        (CHANNELS, 0, ValueError, "this weight has one log_offset: give one integer"),
        (CHANNELS.double(), CHANNELS, TypeError, "log_offset is a tensor of torch.float64"),
        (CHANNELS[:4], CHANNELS, ValueError, r"log_offset of shape \(4, 1\) does not broadcast"),
        (CHANNELS.t(), CHANNELS, ValueError, r"log_offset of shape \(1, 6\) does not broadcast"),
        (torch.arange(5), CHANNELS, ValueError, r"\(1, 5\).*\(6, 1\)"),
        (torch.zeros(6, 5, dtype=torch.int64), CHANNELS, ValueError, r"\(6, 5\).*\(6, 1\)"),
        (CHANNELS << 30, CHANNELS, ValueError, "is too large"),
    ],
)
def test_offsets_of_another_kind_are_refused_and_nothing_changes(log_offset, own, error, message):
    weight = a_weight(log_offset=own)
    codes, version = weight.codes.clone(), weight._version
    with pytest.raises(error, match=message):
        weight.rescale_(log_offset)
    assert torch.equal(weight.codes, codes)
    assert torch.equal(torch.as_tensor(weight.log_offset), torch.as_tensor(own))
    assert weight._version == version


@pytest.mark.parametrize("p_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_p_scale_out_of_range_is_refused(p_scale):
    weight = a_weight()
    before = weight.codes.clone()
    with pytest.raises(ValueError, match="p_scale"):
        weight.rescale_(p_scale=p_scale)
    assert torch.equal(weight.codes, before)


def test_rescaling_between_forward_and_backward_raises():
    weight = nn.Parameter(a_weight())
    out = nn.functional.linear(torch.ones(3, 5, dtype=torch.float64, requires_grad=True), weight).square().sum()
    version = weight._version
    weight.rescale_(3)
    assert weight._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_rescaling_of_codes_in_another_order_of_memory():
    codes = torch.arange(30, dtype=torch.uint8).reshape(5, 6).t()
    for offset, target in ((0, 7), (CHANNELS, CHANNELS + 7)):
        weight = LNSWeight(codes.clone(), lns8f5, offset)
        weight.rescale_(target)
        assert weight.codes.stride() == codes.stride()
        np.testing.assert_array_equal(words(weight), moved(codes.numpy(), lns8f5, -7))


@given(
    bits=st.integers(3, 16),
    fraction_bits=st.integers(0, 14),
    old=st.integers(-(2**30), 2**30),
    by=st.integers(-70000, 70000) | st.integers(-3, 3),
    seed=st.integers(0, 2**20),
)
@example(16, 14, 2**30, 0, 0)
@example(3, 1, -(2**30), 1, 0)
@example(8, 5, 0, -1, 0)
def test_rescaling_is_the_addition(bits, fraction_bits, old, by, seed):
    fmt = LNSFormat(bits, min(fraction_bits, bits - 2))
    codes = as_codes(np.random.default_rng(seed).integers(0, 1 << bits, 40), fmt)
    weight = LNSWeight(codes.clone(), fmt, old)
    target = min(max(old + by, -(2**30)), 2**30)
    weight.rescale_(target)
    np.testing.assert_array_equal(words(weight), moved(codes.numpy().view(fmt.dtype), fmt, old - target))


# --------------------------------------------------------------- what is no new beginning keeps the scale, and says so

KEEPING = {
    "add_": lambda w: w.add_(1e9),
    "mul_ by a tensor": lambda w: w.mul_(torch.full((5,), 1e9, dtype=torch.float64)),
    "into a part": lambda w: w[1].copy_(LNSWeight(torch.full((5,), 90).byte(), lns8f5, 300)),
    "set item": lambda w: w.__setitem__((slice(1, 3), 2), 1e20),
    "init of a part": lambda w: nn.init.normal_(w[:2], std=1e8),
    "data of a part": lambda w: setattr(w[1:], "data", torch.full((5, 5), 1e9, dtype=w.dtype)),
    "out= of a part": lambda w: torch.mul(torch.ones(5, dtype=torch.float64), 1e9, out=w[1]),
    "out= of itself": lambda w: torch.mul(w, 1e9, out=w),
    "out= of its own view": lambda w: torch.mul(w.view(6, 5), 1e9, out=w),
    "foreach": lambda w: torch._foreach_mul_([w], 1e9),
    "SGD": lambda w: optimized(torch.optim.SGD, w),
    "Adam": lambda w: optimized(torch.optim.Adam, w),
    "masked_fill_": lambda w: w.masked_fill_(torch.eye(6, 5) > 0, 1e9),
}

SILENT = {
    "mul_ near 1": lambda w: w.mul_(1.1),
    "decay": lambda w: w.mul_(0.51),
    "clamp_": lambda w: w.clamp_(-1e-9, 1e-9),
    "a small part": lambda w: w.view(-1)[:0].fill_(1e9),
    "zeros in a part": lambda w: w[1].zero_(),
    "what fits in a part": lambda w: w[1].fill_(1.0),
    "NaN in a part": lambda w: w[1].fill_(math.nan),
    "AdamW of a usual size": lambda w: optimized(torch.optim.AdamW, w, lr=1e-3),
}


def optimized(kind, weight, lr=1e9):
    p = nn.Parameter(weight)
    p.grad = torch.full(p.shape, 1e9, dtype=p.dtype)
    kind([p], lr=lr).step()


@pytest.mark.parametrize("name", [*KEEPING, *SILENT])
@pytest.mark.parametrize("log_offset", [-40, CHANNELS.clamp_min(-40)], ids=["whole", "channels"])
def test_a_write_to_a_part_or_over_the_old_values_keeps_the_scale(name, log_offset):
    """The rest of the weight has the same one; and of several processes that write each would choose its own."""
    if name in SILENT:
        log_offset = log_offset + 60
    weight = a_weight(log_offset=log_offset)
    alias, row = weight.detach(), weight[5].detach()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            {**KEEPING, **SILENT}[name](weight)
    assert torch.equal(torch.as_tensor(weight.log_offset), torch.as_tensor(log_offset))
    expected = lnsnum.decode(words(weight), lns8f5, log_offset=np.asarray(torch.as_tensor(log_offset)))
    for view, wanted in ((weight, expected), (alias, expected), (row, expected[5])):
        np.testing.assert_array_equal(view.to_float(), wanted)
    assert len(caught) == (name in KEEPING)


def test_what_is_clipped_is_told_once_for_each_weight_and_scale():
    weight, other = a_weight(), a_weight()
    message = r"^100.0% of what was written into a weight of lns8f5 lies beyond its greatest magnitude, 1.65, and was"
    with pytest.warns(UserWarning, match=message) as caught:
        weight[1].fill_(1e9)
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, sys._getframe().f_lineno - 1)]
    assert "rescale_() the whole first" in str(caught[0].message)
    weight.detach()[2].fill_(1e9)  # an alias
    weight.t()[2].fill_(1e9)
    with pytest.warns(UserWarning, match="40.0% of what"):
        other[1].copy_(torch.tensor([9.0, 1.0, math.nan, -math.inf, 0.0]).double())
    weight.rescale_()
    with pytest.warns(UserWarning, match="was clipped"):
        weight[1].fill_(1e9)


@pytest.mark.parametrize("clipped", [0, 1, 2])
def test_a_hundredth_may_be_clipped(clipped):
    """The greatest magnitude itself is no more than it is."""
    weight = LNSWeight.from_float(torch.randn(300, generator=torch.Generator().manual_seed(0)), lns8f5)
    values = torch.full((100,), float(weight.fmt.value_at(63 + weight.log_offset)))
    values[:clipped] *= -1.001
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        weight[100:200].copy_(values)
    assert len(caught) == (clipped > 1)


# --------------------------------------------------------------------------------------- a whole is multiplied exactly


@pytest.mark.parametrize("log_offset", [-40, CHANNELS], ids=["whole", "channels"])
@pytest.mark.parametrize("by", [2.0, -2.0, 0.5, 1024.0, -(2.0**-20), 2.0**0.5, 1 / 24**0.5, 5 / 3, 1e6])
@pytest.mark.parametrize("how", ["mul_", "div_", "imul", "data", "tensor", "view"])
def test_a_number_multiplies_the_scale(how, by, log_offset):
    """As initializations do, x *= gain. Oracle: a whole number of code steps, and codes that are at most one apart."""
    weight = a_weight(log_offset=log_offset)
    weight[0, 0] = 0.0
    floats, codes = weight.to_float(), words(weight)
    alias = weight.detach()
    if how == "mul_":
        assert weight.mul_(by) is weight
    elif how == "div_":
        weight.div_(1 / by)
    elif how == "imul":
        weight *= by
    elif how == "data":
        weight.data *= by
    elif how == "tensor":
        weight.mul_(torch.tensor(by, dtype=torch.float64))
    else:
        weight.t().mul_(by)
    steps = round(math.log2(abs(by)) * 32)
    assert torch.equal(torch.as_tensor(weight.log_offset), torch.as_tensor(log_offset) + steps)
    m, before = words(weight) & 127, codes & 127
    if abs(math.log2(abs(by)) * 32 - steps) < 1e-9:
        np.testing.assert_array_equal(m, before)
    else:
        assert np.abs(m.astype(int) - before).max() <= 1
    stays = torch.from_numpy((before != 1) | (m != 0))  # chance may round the smallest code to zero
    assert torch.equal(weight.to_float().sign()[stays], (floats.sign() * math.copysign(1, by))[stays])
    assert torch.equal(alias.to_float(), weight.to_float())


@pytest.mark.parametrize("by", [0.0, math.inf, math.nan, -1.0, 1.0])
def test_what_is_no_scale_multiplies_the_codes(by):
    weight, floats = a_weight(), a_weight().to_float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inf is told to be clipped
        weight.mul_(by)
    assert weight.log_offset == -40
    expected = LNSWeight.from_float(floats * by, lns8f5, log_offset=-40, underflow="saturate").to_float()
    assert torch.equal(weight.to_float().nan_to_num(7.0), expected.nan_to_num(7.0))


def test_a_scale_does_not_leave_its_range():
    weight = a_weight(log_offset=2**30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight.mul_(2.0)
    assert weight.log_offset == 2**30


# -------------------------------------------------------------------------------------------- memory that others share


def test_floats_written_into_shared_memory_keep_the_one_scale():
    """The other processes have the same codes, and a log_offset of their own, which none can change from here."""
    weight = a_weight().share_memory_()
    with pytest.warns(UserWarning, match="was clipped"):
        weight.fill_(1e9)
    weight.normal_()
    weight.mul_(0.25)
    weight.copy_(a_weight(log_offset=-80).to_float())
    assert weight.log_offset == -40
    expected = a_weight(log_offset=-80).to_float()
    assert float((weight.to_float() - expected).norm() / expected.norm()) < 0.2


def test_codes_written_into_shared_memory_are_encoded_at_the_one_scale():
    weight = a_weight().share_memory_()
    other = LNSWeight(weight.codes, weight.fmt, weight.log_offset, weight.dtype)  # what another process has
    source = a_weight(log_offset=-80)
    weight.copy_(source)
    assert weight.log_offset == -40
    assert torch.equal(weight.to_float(), other.to_float())
    assert float((weight.to_float() - source.to_float()).norm() / source.to_float().norm()) < 0.2
    with pytest.raises(RuntimeError, match="shared memory"):
        weight.rescale_(7)
    assert weight.log_offset == -40


def test_channels_in_shared_memory_share_their_scales():
    weight = a_weight(log_offset=CHANNELS).share_memory_()
    weight.fill_(1e9)
    assert (weight.log_offset > 900).all()
    assert torch.allclose(weight.to_float(), torch.tensor(1e9).double(), rtol=0.02)


# ----------------------------------------------------------------------------------------------------------- telemetry


def counted(codes: np.ndarray, fmt: LNSFormat) -> dict:
    """The same figures by NumPy."""
    codes = codes.astype(np.int64).reshape(-1)
    m, nan, size = codes & fmt.max_magnitude, codes == fmt.nan_code, max(codes.size, 1)
    return {
        "elements": codes.size,
        "at_ceiling": (m == fmt.max_magnitude).sum() / size,
        "at_floor": (m == 1).sum() / size,
        "zeros": (codes == 0).sum() / size,
        "nan": nan.sum() / size,
        "histogram": [int((m[~nan] == i).sum()) for i in range(fmt.max_magnitude + 1)],
    }


def told(weight: LNSWeight) -> dict:
    telemetry = weight.telemetry()
    assert telemetry.histogram.dtype == torch.int64
    assert telemetry.histogram.device.type == "cpu"
    assert type(telemetry.histogram) is torch.Tensor
    names = ("elements", "at_ceiling", "at_floor", "zeros", "nan")
    return {**{name: getattr(telemetry, name) for name in names}, "histogram": telemetry.histogram.tolist()}


@pytest.mark.parametrize("bits", range(3, 17))
def test_telemetry_counts_at_every_width(bits):
    fmt = LNSFormat(bits, 1)
    assert told(every_code(fmt)) == counted(np.arange(1 << bits), fmt)
    few = np.random.default_rng(bits).integers(0, 1 << bits, (11, 7))
    assert told(LNSWeight(as_codes(few, fmt), fmt)) == counted(few, fmt)


@pytest.mark.parametrize("fmt", [LNSFormat(3, 1), lns8f5, lns16f10], ids=str)
def test_telemetry_of_all_the_same(fmt):
    ends = {"at_ceiling": fmt.max_magnitude, "at_floor": 1, "zeros": 0, "nan": fmt.nan_code}
    for name, code in ends.items():
        for shape in ((), (1,), (3, 4)):
            codes = np.full(shape, code)
            weight = LNSWeight(as_codes(codes.astype(np.uint16).astype(np.int64), fmt), fmt)
            assert told(weight) == counted(codes, fmt)
            assert getattr(weight.telemetry(), name) == 1.0
    negative = np.full((2,), fmt.max_magnitude + fmt.sign_bit)
    assert LNSWeight(as_codes(negative, fmt), fmt).telemetry().at_ceiling == 1.0


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)], ids=str)
def test_telemetry_of_nothing(shape):
    assert told(LNSWeight(torch.zeros(shape, dtype=torch.uint8), lns8f5)) == counted(np.zeros(shape), lns8f5)


def test_telemetry_of_views_channels_and_parameters():
    weight = nn.Parameter(a_weight(log_offset=CHANNELS))
    codes = words(weight)
    for view, expected in (
        (weight, codes),
        (weight.t(), codes.T),
        (weight[1:, ::2], codes[1:, ::2]),
        (weight[3], codes[3]),
    ):
        assert told(view) == counted(expected, lns8f5)
    expanded = weight[:1].expand(4, 5)
    assert told(expanded) == counted(np.broadcast_to(codes[:1], (4, 5)), lns8f5)


def test_telemetry_changes_nothing():
    weight = nn.Parameter(a_weight())
    codes, version, generator = weight.codes.clone(), weight._version, torch.get_rng_state()
    weight.telemetry()
    assert torch.equal(weight.codes, codes)
    assert weight._version == version
    assert torch.equal(torch.get_rng_state(), generator)
