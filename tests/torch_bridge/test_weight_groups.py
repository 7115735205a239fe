"""Weights with a log_offset for each group of elements: what they are beside the same codes with channels of one
dimension more, which other tests hold against the oracle, and beside the tensors of the core."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lnsnum import GroupOffsets, LNSFormat, LNSTensor, fit_log_offset, lns8f3, lns8f5, lns16f10
from lnsnum.toolbox.conversion import convert_file
from lnsnum.torch_bridge import (
    LNSWeight,
    Madam,
    convert_model,
    decode_model,
    for_export,
    load_model,
    log_offsets,
    save_model,
    set_log_offsets,
    use_weight_only,
    weight_only_linear,
)
from lnsnum.torch_bridge.kernels import ceiling, ceiling_twin, codes_twin
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.fitting import choose_scale
from lnsnum.torch_bridge.kernels.random_words import Draw
from lnsnum.torch_bridge.kernels.scale import Fit, fit_to_rms
from lnsnum.torch_bridge.placing import encode_state
from lnsnum.torch_bridge.sequential import NetworkError, read_sequential
from lnsnum.torch_bridge.units import tallies_of
from lnsnum.weight_file import WeightFileError, load_weights, save_weights

FORMATS = [lns8f5, lns8f3, LNSFormat(8, 3, base=3.0), lns16f10]


def grouped(shape=(6, 64), size=16, fmt=lns8f5, seed=0):
    """Any codes, and groups some octaves apart."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(1 << fmt.bits, shape, generator=generator)
    codes[codes == fmt.nan_code] = 0
    offsets = torch.randint(-60, 61, (*shape[:-1], -(-shape[-1] // size)), generator=generator)
    return LNSWeight(codes_twin.as_codes(codes, fmt), fmt, offsets, group_size=size)


def apart(w):
    """The same numbers as channels of one dimension more; where the last group has a rest, each with its own scale."""
    if w.shape[-1] % w.group_size:
        return LNSWeight(w.codes.clone(), w.fmt, each_offset(w))
    return LNSWeight(w.codes.clone().unflatten(-1, (-1, w.group_size)), w.fmt, w.log_offset.unsqueeze(-1))


def each_offset(w):
    """The log_offset of each element of a row."""
    return w.log_offset[..., torch.arange(w.shape[-1]) // w.group_size]


def values(w, dtype=torch.float64):
    return apart(w).to_float(dtype).reshape(w.shape)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_decode_and_encode(fmt):
    """On the CPU, in torch's operations, and in the core: the same bits."""
    shapes = ((6, 64), 16), ((40, 96), 32), ((2, 3, 48), 24), ((64,), 32), ((6, 70), 16), ((2, 3, 33), 32), ((40,), 32)
    for shape, size in shapes:
        w = grouped(shape, size, fmt)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            expected = apart(w).to_float(dtype).reshape(shape)
            assert torch.equal(w.to_float(dtype), expected)
            scale = w.scale
            twin = codes_twin.decode(scale.apart(w.codes), fmt, scale.of_channels, dtype)
            assert torch.equal(scale.together(twin), expected)
        tensor = w.to_lns()
        assert (tensor.log_offset.group_size, tensor.log_offset.offsets.tolist()) == (size, w.log_offset.tolist())
        np.testing.assert_array_equal(tensor.to_float(), values(w).numpy())
        again = LNSWeight.from_lns(tensor)
        assert (again.group_size, again.log_offset.tolist()) == (size, w.log_offset.tolist())
        assert torch.equal(again.codes, w.codes)
        x = values(w).clone()
        back = LNSWeight.from_float(x, fmt, log_offset=w.log_offset, group_size=size)
        assert torch.equal(back.codes, w.codes)
        bits = torch.randint(-(1 << 31), 1 << 31, shape, dtype=torch.int32)
        modes = {"rounding": "stochastic_value", "random_bits": bits}
        drawn = bridge.encode(x * 1.01, fmt, w.scale, **modes)
        with torch.device("cpu"):
            twin = codes_twin.encode(
                w.scale.apart(x * 1.01), fmt, w.scale.of_channels, rounding="stochastic_value",
                random_bits=w.scale.apart(bits),
            )  # fmt: skip
        assert torch.equal(drawn, w.scale.together(twin))


VIEWS = {
    "t": (lambda w: w.t(), 16, (4, 6)),
    "twice": (lambda w: w.t()[16:48].t(), 16, (6, 2)),
    "rows": (lambda w: w[1:3], 16, (2, 4)),
    "a row": (lambda w: w[2], 16, (4,)),
    "whole groups": (lambda w: w[:, 16:48], 16, (6, 2)),
    "a part of one": (lambda w: w[:, 16:20], None, (6, 1)),
    "a column": (lambda w: w[:, 5], None, (6,)),
    "view": (lambda w: w.view(2, 3, 64), 16, (2, 3, 4)),
    "unsqueeze": (lambda w: w.unsqueeze(0), 16, (1, 6, 4)),
    "expand": (lambda w: w.expand(2, 6, 64), 16, (1, 6, 4)),
    "split": (lambda w: w.split(32, 1)[1], 16, (6, 2)),
    "unbind": (lambda w: w.unbind(0)[3], 16, (4,)),
    "cut": (lambda w: w[:, 3:20], None, (6, 17)),
    "every other": (lambda w: w[:, ::2], None, (6, 32)),
    "flat": (lambda w: w.view(-1), None, (384,)),
    "diagonal": (lambda w: w.diagonal(), None, (6,)),
}


RESTS = {
    "rest: t": (lambda w: w.t(), 16, (5, 6)),
    "rest: rows": (lambda w: w[1:3], 16, (2, 5)),
    "rest: a row": (lambda w: w[2], 16, (5,)),
    "rest: the end": (lambda w: w[:, 16:], 16, (6, 4)),
    "rest: alone": (lambda w: w[:, 64:], None, (6, 1)),
    "rest: cut": (lambda w: w[:, 32:68], 16, (6, 3)),
    "rest: view": (lambda w: w.view(2, 3, 70), 16, (2, 3, 5)),
    "rest: split": (lambda w: w.split(48, 1)[1], 16, (6, 2)),
    "rest: twice": (lambda w: w.t()[16:].t(), 16, (6, 4)),
    "rest: inside": (lambda w: w[:, 3:], None, (6, 67)),
    "rest: flat": (lambda w: w.view(-1), None, (420,)),
}


@pytest.mark.parametrize(("view", "size", "shape"), [*VIEWS.values(), *RESTS.values()], ids=[*VIEWS, *RESTS])
def test_views_are_codes(view, size, shape):
    """From the beginning of a group on with its scales; what begins within one has a copy for each element, which knows
    when it is stale."""
    w = grouped((6, 70)) if view in [view for view, *_ in RESTS.values()] else grouped()
    seen, floats = view(w), w.to_float()
    assert isinstance(seen, LNSWeight)
    assert torch.equal(seen.to_float(), view(floats))
    assert (seen.group_size, tuple(seen.log_offset.shape)) == (size, shape)
    assert seen.codes.untyped_storage().data_ptr() == w.codes.untyped_storage().data_ptr()
    w.set_scale(w.scale._replace(low=w.scale.low + 32, high=w.scale.high + 32, offsets=w.scale.offsets + 32))
    if size or (shape in ((6, 1), (6,)) and view is not VIEWS["diagonal"][0]):
        assert torch.equal(seen.to_float(), view(floats) * 2)
    else:
        with pytest.raises(RuntimeError, match=r"take it anew$"):
            seen.to_float()


@pytest.mark.parametrize("width", [64, 70])
def test_copies_keep_groups(width):
    w = grouped((6, width))
    stored = io.BytesIO()
    torch.save(w, stored)
    stored.seek(0)
    copies = [copy.deepcopy(w), pickle.loads(pickle.dumps(w)), w.clone(), w.detach(), w.bfloat16().float(), w.cpu()]
    copies += [torch.load(stored, weights_only=True), copy.deepcopy(nn.Parameter(w)), w.with_dtype(torch.float32)]
    for one in copies:
        assert one.group_size == 16
        assert torch.equal(one.codes, w.codes)
        assert torch.equal(one.log_offset, w.log_offset)
    assert w.nbytes == 6 * width + 4 * 6 * -(-width // 16)  # four bytes a group, and nothing else
    shared = pickle.loads(pickle.dumps(w.t()))
    assert torch.equal(shared.to_float(), w.to_float().t())


@pytest.mark.parametrize(
    ("shape", "offset", "size", "error", "sentence"),
    [
        ((4, 70), torch.zeros(4, 4, dtype=torch.int32), 16, ValueError,
         r"^log_offset of shape \(4, 4\) has not one for each group of 16 of a weight of shape \(4, 70\): give a "
         r"tensor that broadcasts to \(4, 5\)$"),
        ((), torch.zeros(1, dtype=torch.int32), 16, ValueError,
         r"^a weight of shape \(\) has no dimension -1 for groups: leave out group_size$"),
        ((4, 64), torch.zeros(4, 1, dtype=torch.int32), 16, ValueError,
         r"^log_offset of shape \(4, 1\) has not one for each group of 16 of a weight of shape \(4, 64\): give a "
         r"tensor that broadcasts to \(4, 4\)$"),
        ((4, 64), torch.zeros(3, 4, dtype=torch.int32), 16, ValueError, r"^log_offset of shape \(3, 4\) does not bro"),
        ((4, 64), 3, 16, TypeError,
         r"^log_offset=3 is one for all, and group_size=16 asks for one for each group: give an integer tensor, or "
         r"leave out group_size$"),
        ((4, 64), torch.zeros(4, 8), 8, ValueError, r"^group_size=8 is out of range: a group has 16 to 256 elements$"),
        ((4, 64), torch.zeros(4, 4), 16, TypeError, r"^log_offset is a tensor of torch.float32: give integers"),
    ],
)  # fmt: skip
def test_what_no_groups_of_a_weight_are(shape, offset, size, error, sentence):
    with pytest.raises(error, match=sentence):
        LNSWeight(torch.zeros(shape, dtype=torch.uint8), lns8f5, offset, group_size=size)


def test_tensors_whose_groups_no_weight_has():
    turned = LNSTensor.from_float(np.ones((2, 64)), "lns8f5", group_size=16).T
    with pytest.raises(ValueError, match=r"groups lie along axis -2, and those of a weight along its last dimension"):
        LNSWeight.from_lns(turned)


def test_one_group_is_a_channel():
    w = LNSWeight(torch.zeros(4, 16, dtype=torch.uint8), lns8f5, torch.zeros(4, 1, dtype=torch.int32), group_size=16)
    assert (w.group_size, tuple(w.log_offset.shape)) == (None, (4, 1))


def test_scales_that_fit_floats():
    x = torch.randn(4, 96) * torch.exp2(torch.randint(-6, 6, (4, 96)).float())
    found = LNSWeight.from_float(x, "lns8f5", group_size=32)
    channels = LNSWeight.from_float(x.view(4, 3, 32), "lns8f5", channels=(0, 1))
    assert torch.equal(found.log_offset, channels.log_offset[..., 0])
    assert torch.equal(found.codes.view(-1), channels.codes.view(-1))
    fit = LNSWeight.from_float(x, "lns8f5", log_offset="fit", group_size=32)
    assert fit.log_offset.tolist() == fit_log_offset(x.numpy(), lns8f5, group_size=32).offsets.tolist()
    rest = LNSWeight.from_float(x, "lns8f5", group_size=64)
    parts = [LNSWeight.from_float(part, "lns8f5", channels=0) for part in (x[:, :64], x[:, 64:])]
    assert torch.equal(rest.log_offset, torch.cat([part.log_offset for part in parts], 1))
    assert torch.equal(rest.codes, torch.cat([part.codes for part in parts], 1))
    with pytest.raises(ValueError, match=r"^channels says of what a scale is chosen, and log_offset gives one"):
        LNSWeight.from_float(x, "lns8f5", log_offset=3, channels=0)


def test_writes_choose_scales_for_groups():
    """As for channels of one dimension more."""
    torch.manual_seed(0)
    for write in (
        lambda w, x: w.copy_(x),
        lambda w, x: w.mul_(4.0),
        lambda w, x: w.rescale_(),
        lambda w, x: w.fill_(0.25),
        lambda w, x: w.zero_(),
    ):
        w, x = grouped(seed=3), torch.randn(6, 64) * torch.exp2(torch.arange(6.0))[:, None]
        other = apart(w)
        torch.manual_seed(1)
        write(w, x)
        torch.manual_seed(1)
        write(other, x.view(other.shape))
        assert torch.equal(w.codes.view(-1), other.codes.view(-1))
        assert torch.equal(w.log_offset, other.log_offset[..., 0])
        assert w.group_size == 16
    w = grouped(seed=4)
    held = w.clone()
    w.copy_(held.to_float())
    assert torch.equal(w.codes, held.codes)
    w[:, 3:20] = held.to_float()[:, 3:20]
    assert torch.equal(w.codes, held.codes)
    w.rescale_(held.log_offset + 5)
    assert torch.equal(w.log_offset, held.log_offset + 5)
    with pytest.raises(ValueError, match="cannot become those of a weight that has"):
        w.copy_(apart(held).view(6, 64))
    with pytest.raises(ValueError, match=r"one for each group of 16: convert the model with group_size=16$"):
        LNSWeight.from_float(torch.ones(6, 64), "lns8f5").copy_(held)


def test_writes_choose_scales_for_rests():
    """As for the two parts by themselves; a rest of zeros takes the scale of all, as a channel of zeros does."""
    numbers = torch.randn(6, 70) * torch.exp2(torch.arange(6.0))[:, None]
    numbers[2, 64:] = 0
    for rule in (Fit(), Fit("max"), Fit("mse")):
        w = grouped((6, 70), seed=3)
        w.fit = rule
        w.copy_(numbers)
        for part, own in (
            (numbers[:, :64].reshape(-1, 16), w.log_offset[:, :-1]),
            (numbers[:, 64:], w.log_offset[:, -1:]),
        ):
            alone = [choose_scale(row, lns8f5, rule) for row in part]
            rms = float(numbers.double().square().mean().sqrt())
            expected = [fit_to_rms(rms, lns8f5) if not row.any() else one for row, one in zip(part, alone, strict=True)]
            assert own.reshape(-1).tolist() == expected
        held = w.clone()
        w.copy_(held.to_float())
        assert torch.equal(w.codes, held.codes)
        w.rescale_(p_scale=2.0)
        tops = (w.log_offset + lns8f5.max_log)[[0, 1, 3, 4, 5]].double() / 32
        squares = held.to_float(torch.float64)[[0, 1, 3, 4, 5]].square()
        means = torch.cat([squares[:, :64].unflatten(1, (-1, 16)).mean(-1), squares[:, 64:].mean(-1, keepdim=True)], 1)
        above = tops - (2 * means.sqrt()).log2()
        assert ((above >= 0) & (above < 1 / 32)).all()
        before = w.to_float()
        w.mul_(4.0)
        assert torch.equal(w.to_float(), 4 * before)


def network(width=70):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, 10))


class Experts(nn.Module):
    """A stack of matrices, and what is none."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.stack = nn.Parameter(torch.randn(3, 8, 32) * torch.exp2(torch.arange(3.0))[:, None, None])
        self.conv = nn.Conv2d(4, 6, 3)
        self.linear = nn.Linear(32, 5)


def test_convert_model_by_groups_and_channels():
    model = network(64)
    report = convert_model(model, "lns8f5", group_size=16)
    assert [p.group_size for p in report] == [16, None, 16, None]
    assert tuple(model[0].weight.log_offset.shape) == (48, 4)
    expected = network(64)[0].weight.detach().view(48, 4, 16)
    alone = LNSWeight.from_float(expected, "lns8f5", channels=(0, 1))
    assert torch.equal(model[0].weight.log_offset, alone.log_offset[..., 0])
    x = torch.randn(5, 64)
    assert torch.equal(model(x), decode_model(copy.deepcopy(model))(x))

    model = Experts()
    report = convert_model(model, "lns8f5", per_channel=True, channels={"stack": (0, 1)})
    assert tuple(report["stack"].log_offset.shape) == (3, 8, 1)
    assert tuple(report["conv.weight"].log_offset.shape) == (6, 1, 1, 1)
    assert tuple(report["linear.weight"].log_offset.shape) == (5, 1)
    assert report["conv.bias"].log_offset == model.conv.bias.log_offset
    model = Experts()
    report = convert_model(model, "lns8f5", per_channel=True, group_size={"stack": 16})
    assert (report["stack"].group_size, tuple(report["stack"].log_offset.shape)) == (16, (3, 8, 2))
    assert tuple(report["conv.weight"].log_offset.shape) == (6, 1, 1, 1)  # rows of three
    model = Experts()
    report = convert_model(model, "lns8f5", channels=-1, filter_fn=lambda name, p: p.ndim > 1)
    assert tuple(report["stack"].log_offset.shape) == (1, 1, 32)
    last = [LNSWeight.from_float(Experts().stack.detach()[..., k], "lns8f5").log_offset for k in range(32)]
    assert report["stack"].log_offset.reshape(-1).tolist() == last
    assert torch.equal(model.stack.to_float(), decode_model(copy.deepcopy(model)).stack)


@pytest.mark.parametrize("way", [{}, {"scale": "max"}, {"scale": "mse", "rounding": "nearest_value"}], ids=str)
def test_rests_are_converted_as_by_themselves(way):
    def layer(numbers, **granularity):
        own = nn.Linear(numbers.shape[1], 5, bias=False)
        with torch.no_grad():
            own.weight.copy_(numbers)
        return convert_model(own, "lns6f2", **granularity, **way)["weight"], own.weight

    numbers = torch.randn(5, 70) * torch.exp2(torch.randint(-6, 6, (5, 70)).float())
    report, weight = layer(numbers, group_size=16)
    assert (report.group_size, tuple(weight.log_offset.shape)) == (16, (5, 5))
    parts = [layer(numbers[:, :64], group_size=16)[1], layer(numbers[:, 64:], per_channel=True)[1]]
    assert torch.equal(weight.log_offset, torch.cat([part.log_offset for part in parts], 1))
    assert torch.equal(weight.codes, torch.cat([part.codes for part in parts], 1))
    error = (weight.to_float(torch.float64) - numbers).norm() / numbers.double().norm()
    assert report.relative_error == pytest.approx(float(error), rel=1e-12)


@pytest.mark.parametrize("rounding", ["nearest", "nearest_value", "adaptive"])
def test_rests_that_fit_outputs(rounding):
    """As whole groups, whose last inputs are always zero."""
    numbers = torch.randn(6, 70) * torch.exp2(torch.randint(-3, 3, (6, 70)).float())
    inputs = torch.randn(40, 70) @ torch.randn(70, 70)
    converted = []
    for missing in (0, 10):
        own = nn.Linear(70 + missing, 6, bias=False)
        with torch.no_grad():
            own.weight.copy_(nn.functional.pad(numbers, (0, missing)))
        batches = [nn.functional.pad(inputs, (0, missing))]
        how = {"scale": "output", "rounding": rounding, "calibrate": batches, "group_size": 16}
        converted.append((convert_model(own, "lns4f1", **how)["weight"], own.weight))
    (report, own), (expected, padded) = converted
    assert torch.equal(own.log_offset, padded.log_offset)
    assert torch.equal(own.codes, padded.codes[:, :70])
    assert report.output_sqnr == pytest.approx(expected.output_sqnr, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group_size": 8}, r"^group_size=8 is out of range: a group has 16 to 256 elements$"),
        ({"group_size": {"nothing": 16}}, r"^group_size: no parameter's name matches 'nothing'$"),
        ({"channels": {"nothing": 0}}, r"^channels: no parameter's name matches 'nothing'$"),
        (
            {"channels": 3},
            r"^parameter 'stack': channels=3 is out of range: an array of shape \(3, 8, 32\) has axes 0 ",
        ),
        ({"channels": (0, 1)}, r"^parameter 'linear.weight': channels=\(0, 1\) would give each element of shape "),
    ],
)
def test_what_conversion_refuses(options, sentence):
    model = Experts()
    with pytest.raises(ValueError, match=sentence):
        convert_model(model, "lns8f5", **options)
    assert not any(isinstance(p, LNSWeight) for p in model.parameters())


def test_zeros_are_drawn_anew_beside_groups():
    model = nn.Embedding(4, 64, padding_idx=1)
    with torch.no_grad():
        model.weight[:, ::3] = 0
    report = convert_model(model, "lns8f5", group_size=16, zeros="redraw")
    assert (report["weight"].zeros_redrawn, report["weight"].zeros_kept) == (3 * 22, 64)
    assert torch.equal(model(torch.tensor([2, 1])), model.weight.to_float()[[2, 1]])


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"rule": "paper"}, {"second_moment": "float32"}], ids=str)
def test_madam_steps_groups_as_channels(options):
    """Code for code, with ceilings that follow each group."""
    start = grouped((8, 64), seed=5)
    start.codes.copy_(torch.where(start.codes == 0, 1, start.codes))
    weights = [nn.Parameter(start.clone()), nn.Parameter(apart(start))]
    optimizers = [Madam([w], lr=0.3, seed=3, **options) for w in weights]
    before = start.log_offset.clone()
    for step in range(42):
        gradient = torch.rand(8, 64, generator=torch.Generator().manual_seed(step))
        for w, optimizer in zip(weights, optimizers, strict=True):
            w.grad = -w.detach().to_float().sign() * gradient.view(w.shape)
            optimizer.step()
        assert torch.equal(weights[0].codes.view(-1), weights[1].codes.view(-1)), step
    assert torch.equal(weights[0].log_offset, weights[1].log_offset[..., 0])
    assert torch.equal(weights[0].log_offset, before) == (options.get("rule") == "paper")
    state = [optimizer.state[w] for w, optimizer in zip(weights, optimizers, strict=True)]
    assert float(state[0]["r"]) == float(state[1]["r"])


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"rule": "paper"}, {"second_moment": "float32"}, {"sparse": True}], ids=str
)
def test_madam_steps_rests_as_elements(options):
    """Code for code, each element with the scale that its group has."""
    options = dict(options)
    is_sparse = options.pop("sparse", False)
    start = grouped((8, 70), seed=5)
    start.codes.copy_(torch.where(start.codes == 0, 1, start.codes))
    weights = [nn.Parameter(start.clone()), nn.Parameter(apart(start))]
    optimizers = [Madam([w], lr=0.3, seed=3, ceiling="fixed", **options) for w in weights]
    rows = torch.tensor([5, 1, 6])
    for step in range(5):
        gradient = torch.randn(8, 70, generator=torch.Generator().manual_seed(step))
        if is_sparse:
            gradient = torch.sparse_coo_tensor(rows[None], gradient[rows], (8, 70), check_invariants=True)
        for w, optimizer in zip(weights, optimizers, strict=True):
            w.grad = gradient.clone()
            optimizer.step()
        assert torch.equal(weights[0].codes, weights[1].codes), step
    assert not torch.equal(weights[0].codes, start.codes)
    state = [optimizer.state[w] for w, optimizer in zip(weights, optimizers, strict=True)]
    assert float(state[0]["r"]) == float(state[1]["r"])


@pytest.mark.parametrize("turned", [False, True])
def test_ceilings_of_rests_follow(turned):
    """Counted group by group, with numbers that stay what they are, but for those below the new floor."""
    w = grouped((8, 70), seed=5)
    codes = w.codes % 120 + 8  # of which none is at the ceiling or near the floor
    for row, group in ((0, 4), (3, 0), (3, 4), (7, 2)):
        codes[row, 16 * group : 16 * group + 3] = 127
    w.codes.copy_(codes)
    p = nn.Parameter(w.clone().t() if turned else w.clone())
    seen = p.detach().t() if turned else p.detach()
    counted = tallies_of(p).reshape(*p.scale.offsets.shape, 3)
    counted = counted.swapaxes(0, 1) if turned else counted
    wanted = np.zeros((8, 5), bool)
    for row in range(8):
        for group in range(5):
            part = codes[row, 16 * group : 16 * group + 16].numpy() & 127
            assert (
                counted[row, group].tolist() == ceiling.sums(np.bincount(part, minlength=128)[None], lns8f5)[0].tolist()
            )
            wanted[row, group] = (part == 127).sum() >= 2
    grows = ceiling.decide_by(tallies_of(p)).grows.reshape(p.scale.offsets.shape)
    assert (grows.T if turned else grows).tolist() == wanted.tolist()
    before, values = seen.log_offset.clone(), seen.to_float()
    p.grow_(grows.reshape(-1), Draw(1, 2, 20))
    assert torch.equal(seen.log_offset - before, torch.from_numpy(wanted).int() * 32)
    kept = (codes & 127) > 32
    assert torch.equal(seen.to_float()[kept], values[kept])
    each = torch.from_numpy(wanted)[:, torch.arange(70) // 16]
    assert torch.equal(seen.codes[~each], codes[~each])
    twin = ceiling_twin.grow(
        codes.t() if turned else codes, lns8f5, each.t() if turned else each, Draw(1, 2, torch.tensor(20))
    )
    assert torch.equal(p.codes, twin)


@pytest.mark.parametrize(("shape", "size", "turned"), [((8, 70), 16, True), ((3, 5, 40), 32, False)], ids=str)
def test_madam_with_ceilings_that_follow_steps_rests_as_elements(shape, size, turned):
    """Beside a weight with the scale of each element written out, which is raised by hand where a count says so."""
    start = grouped(shape, size, seed=5)
    start.codes.copy_(torch.where(start.codes == 0, 1, start.codes))
    own = start.transpose(0, -1) if turned else start
    each = apart(start).transpose(0, -1) if turned else apart(start)
    along, of_element = (0 if turned else -1), torch.arange(shape[-1]) // size
    weights = [nn.Parameter(own.clone()), nn.Parameter(each.clone())]
    following, fixed = (Madam([w], lr=0.3, ceiling=how) for w, how in zip(weights, ("follow", "fixed"), strict=True))
    grown = 0
    for step in range(1, 43):
        gradient = torch.rand(weights[0].shape, generator=torch.Generator().manual_seed(step))
        for w, optimizer in zip(weights, (following, fixed), strict=True):
            w.grad = -w.detach().to_float().sign() * gradient
            optimizer.step()
        if step % ceiling.EVERY == 0:
            top = ((weights[1].codes & lns8f5.max_magnitude) == lns8f5.max_magnitude).long()
            counts, sizes = (
                torch.zeros_like(weights[0].log_offset, dtype=torch.long).index_add_(along, of_element, of)
                for of in (top, torch.ones_like(top))
            )
            grows = (counts >= 2) & (counts * ceiling.SHARE > sizes)
            grown += int(grows.sum())
            grows, state = grows.index_select(along, of_element), fixed.state[weights[1]]
            weights[1].grow_(grows.reshape(-1).numpy(), Draw(0, state["stream"], step), keep=True)
            state["at"], state["units"] = ceiling_twin.raised(
                state["at"], state["units"], lns8f5, grows.reshape(state["at"].shape)
            )
        assert torch.equal(weights[0].codes, weights[1].codes), step
        assert torch.equal(weights[0].to_float(), weights[1].to_float()), step
    assert grown > 10


def test_training_resumes_to_the_bit():
    x, y = torch.randn(32, 70), torch.randn(32, 10)

    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()

    model = network()
    convert_model(model, "lns8f5", group_size=16)
    optimizer = Madam(model.parameters(), lr=0.05)
    train(model, optimizer, 5)
    stored = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], stored)
    stored.seek(0)
    other = network()
    convert_model(other, "lns8f5", group_size=16)
    again = Madam(other.parameters(), lr=0.05)
    for own, state in zip((other, again), torch.load(stored, weights_only=True), strict=True):
        own.load_state_dict(state)
    train(model, optimizer, 20)
    train(other, again, 20)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.codes, q.codes)
        assert torch.equal(torch.as_tensor(p.log_offset), torch.as_tensor(q.log_offset))
    floats = decode_model(copy.deepcopy(model)).state_dict()
    other.load_state_dict(floats)
    assert torch.equal(other[0].weight.to_float(), floats["0.weight"])


@pytest.mark.parametrize("width", [64, 70])
def test_forward_and_step_in_a_graph(width):
    """Codes, scales that grow, and what a graph decodes: as in eager, to the bit."""
    torch._dynamo.reset()  # a graph of another width would be made for any
    models = []
    for _ in range(2):
        model = nn.Sequential(nn.Linear(width, 6, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(torch.linspace(-1, 1, 6 * width).view(6, width))
        convert_model(model, "lns8f4", group_size=16)
        models.append(model)
    model, other = models
    optimizer, eager = (Madam(m.parameters(), lr=0.15) for m in models)
    optimizer.make_state(for_graph=True)
    x, start = torch.randn(5, width), model[0].weight.log_offset.clone()
    step, forward = (torch.compile(f, fullgraph=True, backend="aot_eager") for f in (optimizer.step, model))
    torch.testing.assert_close(forward(x), decode_model(copy.deepcopy(model))(x))
    for i in range(41):
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad = torch.rand(p.shape, generator=torch.Generator().manual_seed(i)) - 0.2
            q.grad = p.grad.clone()
        step()
        eager.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.codes, q.codes)
        assert torch.equal(torch.as_tensor(p.log_offset), torch.as_tensor(q.log_offset))
    assert (model[0].weight.log_offset > start).any()
    torch.testing.assert_close(forward(x), decode_model(copy.deepcopy(other))(x))


@pytest.mark.parametrize("width", [96, 100])
def test_products_of_codes(width):
    w, x = grouped((48, width), 32, seed=6), torch.randn(3, width)
    with torch.no_grad():
        found = weight_only_linear(x, w)
        torch.testing.assert_close(found, x @ w.to_float().t(), rtol=1e-4, atol=1e-4)
        channels = LNSWeight(w.codes.clone(), w.fmt, each_offset(w))
        assert torch.equal(found, weight_only_linear(x, channels))
        stack = nn.Parameter(grouped((2, 48, width), 32, seed=7))
        stack.weight_only = True
        rows = torch.randn(2, 1, width)
        each = [weight_only_linear(r, part) for r, part in zip(rows, stack.detach(), strict=True)]
        assert torch.equal(torch.bmm(rows, stack.transpose(1, 2)), torch.stack(each))
    model = network()
    convert_model(model, "lns8f5", group_size=16)
    assert use_weight_only(model).covered == ("0.weight", "2.weight")


@pytest.mark.parametrize("packed", [False, True])
def test_weight_files_keep_groups(tmp_path, packed):
    model = network()
    convert_model(model, "lns6f2", group_size=16)
    save_model(tmp_path / "m.safetensors", model, packed=packed)
    alike, floats = network(), network()
    convert_model(alike, "lns6f2", group_size=16)
    with torch.device("meta"):
        empty = network()
    for other in (alike, floats, empty):
        load_model(tmp_path / "m.safetensors", other)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(p.codes, q.codes)
            assert (p.group_size, p.fmt) == (q.group_size, q.fmt)
            assert torch.equal(torch.as_tensor(p.log_offset), torch.as_tensor(q.log_offset))


@pytest.mark.parametrize(
    ("shape", "scale", "sentence"),
    [
        ((32, 3), GroupOffsets(np.zeros((2, 3), np.int32), 16, axis=-2), "'weight' has groups along dimension -2, and"),
    ],
)
def test_groups_that_no_weight_has_are_refused_by_a_model(tmp_path, shape, scale, sentence):
    """Before anything is changed: the bias is what it was."""
    weights = {"weight": LNSTensor(np.zeros(shape, np.uint8), lns8f5, log_offset=scale), "bias": np.ones(shape[0])}
    save_weights(tmp_path / "m", weights)
    model = torch.nn.Linear(shape[1], shape[0])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(WeightFileError, match=sentence):
        load_model(tmp_path / "m", model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_damaged_pickle_is_refused():
    w = grouped()
    rebuild, parts = w.__reduce_ex__(2)
    for groups, error in (((16, 5), "are no groups of a pickled"), ((3, -1), "group_size=3"), ("x", "are no groups")):
        broken = (*parts[:6], groups, *parts[7:])
        with pytest.raises(ValueError, match=error):
            rebuild(*broken)


def test_the_toolbox_reads_groups(tmp_path):
    """It reads PyTorch's files without torch."""
    model = network()
    convert_model(model, "lns8f5", group_size=16)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    convert_file(tmp_path / "m.pt", tmp_path / "m.safetensors", to="float32")
    for name, values in load_weights(tmp_path / "m.safetensors").items():
        assert np.array_equal(values, model.state_dict()[name].to_float().numpy())


def test_models_leave_with_floats():
    model = network()
    convert_model(model, "lns8f5", group_size=16)
    x = torch.randn(3, 70)
    assert torch.equal(for_export(model)(x), decode_model(copy.deepcopy(model))(x))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_products_with_stacks_whose_groups_lie_along_any_dimension(order):
    stack = grouped((3, 5, 64))
    stack.weight_only = True
    turned = stack.permute(order)
    x = torch.randn(turned.shape[0], 2, turned.shape[1])
    found, expected = torch.bmm(x, turned), torch.bmm(x.double(), turned.to_float(torch.float64))
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("turned", [False, True])
def test_floats_are_loaded_into_groups_along_any_dimension(turned):
    source, layer = grouped((32, 64)).detach(), nn.Linear(64, 32, bias=False)
    weight = grouped((32, 64), seed=1)
    if turned:
        source, layer, weight = source.mT, nn.Linear(32, 64, bias=False), weight.mT
    layer.weight = nn.Parameter(weight)

    layer.register_load_state_dict_pre_hook(encode_state)
    layer.load_state_dict({"weight": source.to_float()})
    assert layer.weight.scale.groups == weight.scale.groups == (16, -2 if turned else -1)
    assert torch.equal(layer.weight.to_float(), source.to_float())


def test_log_offsets_of_groups_are_set():
    """Beside codes that are loaded next: of weights with groups, channels and one scale, on one process."""
    model, other = (nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 8), nn.Linear(8, 2)) for _ in range(2))
    for one in (model, other):
        convert_model(one, "lns8f5", per_channel=True, group_size=16)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(8.0)
    assert {p.group_size for p in model.parameters()} == {16, None}
    codes = [p.codes.clone() for p in other.parameters()]
    set_log_offsets(other, log_offsets(model))
    for p, own, before in zip(model.parameters(), other.parameters(), codes, strict=True):
        assert torch.equal(own.codes, before)
        assert (own.group_size, torch.as_tensor(own.log_offset).tolist()) == (
            p.group_size, torch.as_tensor(p.log_offset).tolist(),
        )  # fmt: skip
        assert torch.equal(own.to_float(), p.like(own.codes).to_float())


def test_networks_with_groups_are_not_written_in_c():
    model = nn.Sequential(nn.Linear(64, 8))
    convert_model(model, "lns8f5", group_size=16)
    with pytest.raises(
        NetworkError, match=r"^layer 0: its weight has a log_offset for each group of 16 elements: convert the model"
    ):
        read_sequential(model, (64,))


def test_log_offsets_are_refused_before_anything_changes():
    model = nn.Linear(64, 4)
    convert_model(model, "lns8f5", group_size=32)
    had = log_offsets(model)
    for wrong, error in (
        ((3, had), "model is a int, not a torch.nn.Module"),
        ((model, 5), r"offsets is a int: give what log_offsets\(model\) returns"),
        ((model, {**had, "bias": 5}), "the log_offset of 'bias' is a int: give an int32 tensor"),
    ):
        with pytest.raises(TypeError, match=error):
            set_log_offsets(*wrong)
    with pytest.raises(TypeError, match="model is a int"):
        log_offsets(3)
    assert all(torch.equal(own, had[name]) for name, own in log_offsets(model).items())
