"""Scales that grow, units and exponents that follow: what Madam does beside the step itself, in plain integers."""

import copy
import math
import re
import warnings

import numpy as np
import pytest
import torch
from test_madam import Shadow, assert_same, bits, network, run, set_gradients, snapshot
from torch import nn

from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f4, lns8f5, lns16f10
from lnsnum.kernels.scales import Scales
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model
from lnsnum.torch_bridge.kernels import ceiling
from lnsnum.torch_bridge.kernels.random_words import Draw, draw_keys, fill_words
from lnsnum.torch_bridge.units import histograms_of, tallies_of, unit_state

torch.set_num_threads(1)

FORMATS = [lns8f5, lns8f4, lns6f2, lns4f1, lns16f10, LNSFormat(8, 0, base=1.05), LNSFormat(8, 3, base=3.0)]


def weight(codes, fmt=lns8f5, log_offset=0) -> nn.Parameter:
    dtype = torch.uint8 if fmt.bits <= 8 else torch.int16
    return nn.Parameter(LNSWeight(torch.tensor(codes).to(dtype), fmt, log_offset))


def words_of(n: int, draw: Draw) -> np.ndarray:
    """The upper 24 bits of the words that a growing scale draws."""
    keys, words = draw_keys(*draw), np.empty(n, np.int32)
    fill_words(words, 0, keys[2], keys[3])
    return (words.view(np.uint32) >> 8).astype(np.int64)


# -------------------------------------------------------------------------------------------------------------- growing


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_growing_moves_every_code_down_exactly_or_rounds_it_to_the_floor(fmt, keep):
    """Every code, many times over: exact integers, and where the floor has risen the word's bits against X[m] / c."""
    count = 1 << fmt.bits
    codes = np.tile(np.arange(count), max(4096 // count, 1)).astype(fmt.dtype)
    before, draw = codes.astype(np.int64), Draw(3, 5, 40)
    ceiling.grow(codes, fmt, np.array([True]), Scales.of(0, ()), draw, keep=keep)
    step = math.log2(fmt.base) / 2**fmt.fraction_bits
    by = next(n for n in range(1, 10**6) if n * step >= 1 - 1e-12)
    words, half = words_of(before.size, draw), 1 << (fmt.bits - 1)
    for code, new, word in zip(before.tolist(), codes.tolist(), words.tolist(), strict=True):
        m, sign = code & (half - 1), code & half
        if m == 0 or m > by:
            assert new == (code - by if m else code)
            continue
        share = 2.0 ** ((m - 1 - by) * step)
        p = (0.5 + 0.5 * share if keep else share) * 2**24
        if abs(word - p) > 4:  # float32 has the share to 24 bits
            below = 1 + (half - sign if keep else 0) if keep else 0
            assert new == (1 + sign if word < p else below)
        assert new in ((1, 1 + half) if keep else (0, 1 + sign))


def test_a_scale_grows_where_more_than_two_percent_are_at_the_ceiling_and_at_least_two():
    for n, top, expected in (
        (100, 2, False),
        (100, 3, True),
        (50, 1, False),
        (20, 1, False),
        (20, 2, True),
        (1, 1, False),
    ):
        codes = np.array([127] * top + [100] * (n - top), np.uint8)
        growing = ceiling.decide_by(ceiling.tallies(codes, lns8f5, Scales.of(0, ())))
        assert growing.grows.tolist() == [expected], (n, top)
        assert growing.blocked.tolist() == [False]


def test_a_scale_whose_small_codes_would_be_lost_does_not_grow():
    """RMS 4 floors is the border, 2 c at base 2: the new floor is half of it."""
    floor_codes = lambda ones: np.array([127] * 3 + [1] * ones, np.uint8)  # noqa: E731
    top = 2 ** (126 / 32)
    border = round(3 * (top**2 - 16) / 15)  # (3 top^2 + n) / (3 + n) = 16
    for ones, grows in ((border - 3, True), (border + 3, False)):
        growing = ceiling.decide_by(ceiling.tallies(floor_codes(ones), lns8f5, Scales.of(0, ())))
        wanted = ones + 3 < 50 * 3
        assert (growing.grows[0], growing.blocked[0]) == (grows and wanted, not grows and wanted)


@pytest.mark.parametrize("second_moment", ["byte", "float32"])
def test_ceilings_follow_within_training_as_the_page_says(second_moment):
    """Driven outwards: every 20th step, code by code, by an oracle of its own."""
    model = network()
    optimizer = Madam(model.parameters(), lr=0.1, second_moment=second_moment, seed=4)
    shadows = [Shadow(p, i, second_moment) for i, p in enumerate(model.parameters())]
    offsets, grown = [p.log_offset for p in model.parameters()], 0
    for step in range(1, 62):
        set_gradients(model, step, 0.001)
        for p in model.parameters():
            p.grad -= 0.01 * p.to_float().sign()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.step(p.grad, 0.1, seed=4)
            shadow.check(p, optimizer.state[p])
        assert optimizer.step_report().grown == sum(s.counts[6] for s in shadows)
        grown += optimizer.step_report().grown
    assert grown > 3
    risen = [p.log_offset - offset for p, offset in zip(model.parameters(), offsets, strict=True)]
    assert sum(risen) == 32 * grown


def test_fixed_ceilings_stay():
    model = network()
    optimizer = Madam(model.parameters(), lr=0.2, ceiling="fixed")
    offsets = [p.log_offset for p in model.parameters()]
    for _ in range(41):
        for p in model.parameters():
            p.grad = -p.to_float().sign()
        optimizer.step()
    assert [p.log_offset for p in model.parameters()] == offsets
    assert optimizer.step_report().at_ceiling > 0.5


@pytest.mark.parametrize("named", [False, True])
def test_where_a_scale_cannot_grow_one_warning_names_the_parameter_and_a_format(named):
    codes = [127] * 5 + [1] * 95
    p = weight(codes)
    optimizer = Madam([("head.weight", p)] if named else [p], lr=1e-6)
    name = r"'head.weight'" if named else r"0 of shape \(100,\)"
    told = []
    for _ in range(60):
        p.grad = torch.zeros(100)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step()
        told += [str(w.message) for w in caught]
    assert len(told) == 1
    message = f"too many codes of parameter {name} are at the ceiling of lns8f5, .*: lns8f4 has more range"
    assert re.match(message, told[0])
    assert p.log_offset == 0


def test_each_channel_has_its_own_ceiling():
    codes = torch.randint(90, 120, (4, 1000))
    codes[1, :30], codes[3, :30] = 127, 255
    offsets = torch.tensor([[0], [5], [-7], [9]], dtype=torch.int32)
    p = nn.Parameter(LNSWeight(codes.to(torch.uint8), lns8f5, offsets.clone()))
    values, optimizer = p.to_float(torch.float64), Madam([p], lr=0.0)
    for _ in range(20):
        p.grad = torch.ones(4, 1000)
        optimizer.step()
    assert p.log_offset.tolist() == [[0], [37], [-7], [41]]
    assert torch.equal(p.to_float(torch.float64), values)
    assert optimizer.step_report().grown == 2
    units = optimizer.state[p]["units"]
    r = float(values.square().mean().sqrt())
    floor = 2.0 ** ((1 - 64 + p.log_offset.double()) / 32)
    torch.testing.assert_close(units, r / floor, rtol=1e-12, atol=0)


@pytest.mark.parametrize("per_channel", [False, True])
def test_codes_in_shared_memory_keep_a_scale_that_the_others_would_not_learn_of(per_channel):
    """Another process has the codes and a log_offset of its own; those of channels are shared, and grow."""
    p = weight([[127] * 100], log_offset=torch.tensor([[0]], dtype=torch.int32) if per_channel else 0)
    p.share_memory_()
    other = LNSWeight(p.codes, p.fmt, 0)  # what a process keeps that has the same memory
    optimizer = Madam([p], lr=0.3)
    for _ in range(40):
        p.grad = -torch.ones(1, 100)
        optimizer.step()
    assert (int(p.log_offset) > 0) == per_channel
    assert torch.equal(p.to_float(), other.to_float()) != per_channel


def test_views_learn_of_a_scale_that_grew():
    p = weight([127] * 10 + [100] * 90)
    view, optimizer = p.detach()[:10], Madam([p], lr=0.0)
    before = view.to_float()
    for _ in range(20):
        p.grad = torch.ones(100)
        optimizer.step()
    assert p.log_offset == 32
    assert torch.equal(view.to_float(), before)


# ---------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("shape", "channels"), [((3, 0), (3, 1)), ((3, 0, 4), (3, 1, 4)), ((0, 5), (1, 5)), ((0, 5), (1, 1))]
)
def test_weights_without_elements_that_have_channels_step(shape, channels):
    p = nn.Parameter(LNSWeight(torch.zeros(shape, dtype=torch.uint8), lns8f5, torch.zeros(channels, dtype=torch.int32)))
    optimizer = Madam([p])
    for _ in range(21):
        p.grad = torch.zeros(shape)
        optimizer.step()
    assert optimizer.step_report().weights == 0


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("log_offset", [0, -133, 77])
def test_the_unit_is_the_rms_of_the_values(fmt, log_offset):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(1 << fmt.bits, (500,), generator=generator)
    codes[codes == 1 << (fmt.bits - 1)] = 0  # no NaN
    p = weight(codes.tolist(), fmt, log_offset)
    values = p.to_float(torch.float64)
    state = unit_state(p)
    r = float((values / values.abs().max()).square().mean().sqrt() * values.abs().max())
    assert float(state["r"]) == pytest.approx(r, rel=1e-12)
    floor = float(weight([1], fmt, log_offset).to_float(torch.float64))
    assert float(state["units"]) == pytest.approx(r / floor, rel=1e-12)


@pytest.mark.parametrize(
    "shape", [(3, 1, 1), (1, 4, 1), (1, 1, 5), (3, 4, 1), (1, 4, 5), (3, 1, 5), (3, 4, 5), (1, 1, 1)]
)
def test_units_and_tallies_of_scales_along_any_dimensions(shape):
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(1, 128, (3, 4, 5), generator=generator)
    offsets = torch.randint(-40, 40, shape, generator=generator, dtype=torch.int32)
    p = nn.Parameter(LNSWeight(codes.to(torch.uint8), lns8f5, offsets))
    state, counted = unit_state(p), tallies_of(p)
    r = float(p.to_float(torch.float64).square().mean().sqrt())
    torch.testing.assert_close(state["units"], r / 2.0 ** ((offsets.double() - 63) / 32), rtol=1e-12, atol=0)
    scale = torch.arange(offsets.numel()).reshape(shape).expand(3, 4, 5)
    np.testing.assert_array_equal(counted, ceiling.sums(histograms_of(p), lns8f5))
    for i, counts in enumerate(histograms_of(p)):
        np.testing.assert_array_equal(counts, np.bincount(codes[scale == i], minlength=128))
    # and the step takes them: each element as alone, at its own scale
    optimizer = Madam([p], lr=0.3, seed=2)
    set_gradients([p], 1)
    before = codes.clone()
    optimizer.step()
    every = LNSWeight(before.to(torch.uint8), lns8f5, offsets.expand(3, 4, 5).contiguous())
    q = nn.Parameter(every)
    other = Madam([q], lr=0.3, seed=2)
    q.grad = p.grad.clone()
    other.step()
    assert torch.equal(q.codes, p.codes)
    assert not torch.equal(p.codes.long(), before)


@pytest.mark.parametrize(
    ("shape", "unit"), [((7,), 0.1), ((7, 400), 0.05), ((3, 100, 2, 2), 0.05), ((2, 3), 0.1), ((), 0.1)]
)
def test_a_tensor_of_zeros_has_a_unit_of_its_own_and_learns(shape, unit):
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(shape))
    convert_model(model, "lns8f5")
    assert not model.w.codes.any()
    top = float(weight([127], lns8f5, model.w.log_offset).to_float())
    assert 1 <= top / (3 * unit) < 2 ** (1 / 32) * 1.0001
    optimizer = Madam(model.parameters(), lr=0.05)
    target = torch.linspace(-unit, unit, max(math.prod(shape), 1)).reshape(shape)
    for _ in range(200):
        optimizer.zero_grad()
        (model.w - target).square().sum().backward()
        optimizer.step()
    assert float(optimizer.state[model.w]["r"]) == pytest.approx(unit, rel=1e-12)
    assert float((model.w.to_float() - target).abs().mean()) < 0.3 * unit


def test_rescaling_in_between_changes_nothing_but_the_codes():
    """The unit is a number, not a code: what follows goes on with the same one."""
    p = weight(list(range(1, 120)))
    optimizer = Madam([p], lr=0.05)
    set_gradients([p], 1)
    optimizer.step()
    r, units = float(optimizer.state[p]["r"]), float(optimizer.state[p]["units"])
    p.rescale_(32)
    set_gradients([p], 2)
    optimizer.step()
    assert float(optimizer.state[p]["r"]) == r
    assert float(optimizer.state[p]["units"]) == pytest.approx(units / 2, rel=1e-15)


def test_a_run_whose_ceilings_grew_is_resumed_to_the_bit():
    model = network()
    optimizer = Madam(model.parameters(), lr=0.3)

    def steps(model, optimizer, first, last):
        for step in range(first, last + 1):
            set_gradients(model, step, 0.01)
            for p in model.parameters():
                p.grad -= 0.02 * p.to_float().sign()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                optimizer.step()

    steps(model, optimizer, 1, 30)
    states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    steps(model, optimizer, 31, 65)
    other = network()
    fresh = Madam(other.parameters())
    other.load_state_dict(states[0])
    fresh.load_state_dict(states[1])
    steps(other, fresh, 31, 65)
    assert_same(snapshot(other, fresh), snapshot(model, optimizer))
    assert [p.log_offset for p in other.parameters()] == [p.log_offset for p in model.parameters()]


# ------------------------------------------------------------------------------------------------------------ exponents


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("second_moment", ["byte", "float32"])
def test_the_exponent_follows_gradients_that_grow(momentum, second_moment):
    """Ten octaves in a hundred steps, followed by the oracle; v is then right within its rounding."""
    model = network()
    optimizer = Madam(model.parameters(), lr=0.05, momentum=momentum, second_moment=second_moment, beta=0.9)
    shadows = [Shadow(p, i, second_moment) for i, p in enumerate(model.parameters())]
    for step in range(1, 51):
        set_gradients(model, step, 1e-6 * 4.0**step)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.step(p.grad, 0.05, momentum=momentum, beta=0.9)
            shadow.check(p, optimizer.state[p])
    for p in model.parameters():
        exponent = int(optimizer.state[p]["exponent"])
        if second_moment == "byte" or momentum:
            assert 2**-exponent * float(p.grad.abs().max()) < 2**13
    assert optimizer.step_report().moved > 0.1


def test_bits_of_a_weight_whose_scale_grew_are_told_to_autograd():
    p = weight([127] * 10 + [100] * 90)
    optimizer = Madam([p], lr=0.0)
    run(None, optimizer, 1, 0)
    versions = []
    for _ in range(20):
        p.grad = torch.ones(100)
        versions.append((p._version, bits(p)))
        optimizer.step()
    assert p._version > versions[-1][0]
