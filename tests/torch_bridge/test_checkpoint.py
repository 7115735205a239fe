"""save_model and load_model: whole models through a weight file, bit for bit, or not at all."""

import copy
import json
import math
import weakref

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

import lnsnum
from lnsnum import LNSTensor, lns6f2, lns8f3, lns8f5, lns12f6, lns16f10
from lnsnum.files.single import WeightFile
from lnsnum.torch_bridge import (
    LNSWeight,
    Madam,
    checkpoint,
    convert_model,
    decode_model,
    load_model,
    parameter_groups,
    save_model,
)
from lnsnum.weight_file import WeightFileError, load_metadata, load_weights, save_weights

torch.set_num_threads(1)

FORMATS = [lns8f5, lns8f3, lns12f6, lns16f10, lns6f2]
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def network(dtype=torch.float32, seed=0) -> nn.Sequential:
    """With running statistics that a forward pass has changed."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 4)).to(dtype)
    model(torch.randn(8, 2, 5, 5).to(dtype))
    return model.eval()


def images(dtype=torch.float32) -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * 50).reshape(3, 2, 5, 5).to(dtype)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, LNSWeight):
        return tensor.codes.clone()
    tensor = tensor.detach().clone()
    return tensor.view({8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[tensor.itemsize])


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}


def snapshot(model: nn.Module) -> dict[str, tuple]:
    return {
        name: (id(t), type(t), t.dtype, t.requires_grad, getattr(t, "log_offset", None), bits(t))
        for name, t in tensors(model).items()
    }


def assert_untouched(model: nn.Module, before: dict[str, tuple]) -> None:
    after = snapshot(model)
    assert after.keys() == before.keys()
    for name, (*kind, value) in before.items():
        assert after[name][:-1] == tuple(kind), name
        assert torch.equal(after[name][-1], value), name


def assert_equal_models(a: nn.Module, b: nn.Module) -> None:
    """Equal in names, kinds, formats, scales and every bit."""
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for name, t in ours.items():
        other = theirs[name]
        assert type(t) is type(other), name
        assert (t.dtype, t.shape, t.requires_grad) == (other.dtype, other.shape, other.requires_grad), name
        assert torch.equal(bits(t), bits(other)), name
        if isinstance(t, LNSWeight):
            offsets = [torch.as_tensor(weight.log_offset) for weight in (t, other)]
            assert (t.fmt, t.group_size) == (other.fmt, other.group_size), name
            assert torch.equal(*offsets), name


# ---------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_fresh_model_gives_the_same_logits(tmp_path, fmt, dtype):
    model = network(dtype)
    convert_model(model, fmt)
    save_model(tmp_path / "model.safetensors", model)
    fresh = network(dtype, seed=1)
    assert load_model(tmp_path / "model.safetensors", fresh) is fresh
    assert_equal_models(fresh, model)
    assert torch.equal(fresh(images(dtype)), model(images(dtype)))
    converted = network(dtype, seed=2)
    convert_model(converted, lns8f3)
    load_model(tmp_path / "model.safetensors", converted)
    assert_equal_models(converted, model)


def test_paths_may_be_strings_and_metadata_is_kept(tmp_path):
    model = network()
    convert_model(model, lns8f5)
    path = str(tmp_path / "model")
    save_model(path, model, metadata={"card": "digits"})
    assert load_metadata(path) == {"card": "digits"}
    assert_equal_models(load_model(path, network(seed=1)), model)


def test_what_the_file_holds(tmp_path):
    """Codes for LNS weights, everything else as it is, under the names of the state_dict."""
    model = network()
    convert_model(model, {"4.*": lns16f10, "0.weight": lns8f5})
    save_model(tmp_path / "model", model)
    held = load_weights(tmp_path / "model")
    assert held.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, LNSWeight):
            assert isinstance(held[name], LNSTensor)
            assert (held[name].fmt, held[name].log_offset) == (tensor.fmt, tensor.log_offset)
            np.testing.assert_array_equal(held[name].codes, tensor.codes.numpy().view(tensor.fmt.dtype))
        else:
            np.testing.assert_array_equal(held[name], tensor.numpy())
            assert held[name].dtype == tensor.numpy().dtype
    plain = safetensors.numpy.load_file(tmp_path / "model")
    assert plain["0.weight.lnsnum_codes"].dtype == np.uint8
    assert plain["4.weight.lnsnum_codes"].dtype == np.uint16


def test_a_loader_that_knows_nothing_of_codes_misses_them(tmp_path):
    """Instead of taking 90, 183 and 81 for weights. What is plain it finds."""
    model = network()
    convert_model(model, {"4.*": lns16f10, "0.weight": lns8f5})
    save_model(tmp_path / "model", model)
    coded = {name for name, p in model.named_parameters() if isinstance(p, LNSWeight)}
    before = {name: p.clone() for name, p in network(seed=1).state_dict().items()}
    fresh = network(seed=1)
    found = fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "model"), strict=False)
    assert set(found.missing_keys) == coded
    assert set(found.unexpected_keys) == {f"{name}.lnsnum_codes" for name in coded}
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, before[name] if name in coded else model.state_dict()[name])


def training(options, lr=0.05, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
    convert_model(model, lns8f5, **options)
    return model, Madam(parameter_groups(model), lr=lr, momentum=0.5)


def steps(model, optimizer, seeds):
    for seed in seeds:
        optimizer.zero_grad()
        model(torch.randn(5, 64, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("options", [{}, {"group_size": 16}, {"per_channel": True}], ids=["one", "groups", "channels"])
@pytest.mark.parametrize("most", [None, 300])
def test_one_file_resumes_training_code_for_code(tmp_path, options, most):
    model, optimizer = training(options)
    steps(model, optimizer, range(3))
    written = save_model(tmp_path / "run", model, optimizer=optimizer, max_shard_bytes=most)
    steps(model, optimizer, range(3, 8))
    again, other = training(options, lr=0.3, seed=1)
    load_model(written, again, optimizer=other)
    steps(again, other, range(3, 8))
    assert_equal_models(again, model)
    assert other.param_groups[0]["lr"] == 0.05
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        for key, value in optimizer.state[p].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other.state[q][key])), key
    load_model(written, training(options)[0])  # who asks for no optimizer needs none


def test_other_optimizers_resume_too(tmp_path):
    """Their tuples come back as tuples, and a learning rate that is a tensor as one."""
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), torch.tensor(0.03), betas=(0.8, 0.9))
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    save_model(tmp_path / "run", model, optimizer=optimizer)
    again = torch.optim.AdamW(model.parameters(), torch.tensor(0.5))
    load_model(tmp_path / "run", model, optimizer=again)
    assert again.param_groups[0]["betas"] == (0.8, 0.9)
    assert isinstance(again.param_groups[0]["lr"], torch.Tensor)
    assert torch.equal(again.param_groups[0]["lr"], torch.tensor(0.03))
    assert all(torch.equal(optimizer.state[p]["exp_avg"], again.state[p]["exp_avg"]) for p in model.parameters())


def test_an_optimizer_that_does_not_fit_is_refused_before_anything_changes(tmp_path):
    model, optimizer = training({})
    steps(model, optimizer, range(2))
    path, bare = save_model(tmp_path / "run", model, optimizer=optimizer), save_model(tmp_path / "bare", model)
    fresh, own = training({}, seed=1)
    before = copy.deepcopy(fresh)
    floats = nn.Sequential(nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
    cases = [
        (bare, fresh, own, WeightFileError, "bare has no optimizer's state: save_model"),
        (path, fresh, Madam(list(fresh.parameters())[:2]), WeightFileError, "the state of an optimizer of other para"),
        (path, fresh, torch.optim.AdamW(fresh.parameters()), WeightFileError, "the state of a Madam, .* is a AdamW$"),
        (path, fresh, optimizer, ValueError, "^parameter 0 of the optimizer, of shape .* is none of the model's"),
        (path, fresh, "madam", TypeError, "^optimizer is a str, not a torch.optim.Optimizer$"),
        (
            path,
            floats,
            Madam(floats.parameters()),
            ValueError,
            "^'0.weight' of the model is not what .* and would be rep",
        ),
    ]
    for file, into, given, error, sentence in cases:
        with pytest.raises(error, match=sentence):
            load_model(file, into, optimizer=given)
        assert_equal_models(fresh, before)
        assert not own.state
    with pytest.raises(ValueError, match=r"^parameter 0 of the optimizer, of shape"):
        save_model(tmp_path / "other", before, optimizer=own)


def test_batch_norm_s_buffers(tmp_path):
    model = network()
    for _ in range(3):
        model.train()(images())
    convert_model(model, lns8f5)
    save_model(tmp_path / "model", model)
    fresh = network(seed=1)
    load_model(tmp_path / "model", fresh)
    assert fresh[1].num_batches_tracked.dtype == torch.int64
    assert int(fresh[1].num_batches_tracked) == 4
    assert torch.equal(fresh[1].running_mean, model[1].running_mean)
    assert torch.equal(fresh[1].running_var, model[1].running_var)


class Buffers(nn.Module):
    """A parameter of each float type, and buffers of the types that files can hold."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for dtype in FLOATS:
            name = str(dtype).split(".")[1]
            setattr(self, f"own_{name}", nn.Parameter(torch.randn(3, 2, generator=generator).to(dtype)))
            self.register_buffer(f"buffer_{name}", torch.randn(2, 3, generator=generator).to(dtype).t())
        for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
            values = torch.randint(0, 2 if dtype == torch.bool else 100, (5,), generator=generator)
            self.register_buffer(f"buffer_{dtype}".replace("torch.", ""), values.to(dtype))
        self.register_buffer("scalar", torch.tensor(seed))
        self.register_buffer("half_scalar", torch.tensor(seed + 0.5, dtype=torch.bfloat16))
        self.register_buffer("flag", torch.tensor(bool(seed)))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.register_buffer("mask", torch.full((2,), float(seed)), persistent=False)
        self.register_buffer("none", None)


@pytest.mark.parametrize("chosen", ["own_*", "own_float32", "own_bfloat16"])
def test_buffers_and_parameters_of_every_type(tmp_path, chosen):
    model, fresh = Buffers(0), Buffers(1)
    convert_model(model, {chosen: lns8f5})
    save_model(tmp_path / "model", model)
    load_model(tmp_path / "model", fresh)
    with torch.no_grad():
        assert fresh.mask.tolist() == [1.0, 1.0]
        fresh.mask.copy_(model.mask)
    assert_equal_models(fresh, model)


def test_specials_among_the_floats_keep_their_bits(tmp_path):
    model = nn.Linear(6, 1, bias=False)
    payload = torch.tensor([0x7FC00123, -0x3FFEDD, 1, -0x80000000, 0x7F800000, 0x3F800000], dtype=torch.int32)
    model.weight = nn.Parameter(payload.view(torch.float32).reshape(1, 6))
    save_model(tmp_path / "model", model)
    fresh = load_model(tmp_path / "model", nn.Linear(6, 1, bias=False))
    assert torch.equal(bits(fresh.weight).reshape(-1), payload)


def test_every_code_and_extreme_offsets(tmp_path):
    for offset in (-(2**30), 0, 2**30):
        model = nn.Module()
        model.weight = nn.Parameter(LNSWeight(torch.arange(256).to(torch.uint8), lns8f5, offset))
        model.wide = nn.Parameter(LNSWeight(torch.arange(-(2**15), 2**15).to(torch.int16), lns16f10, offset))
        save_model(tmp_path / "model", model)
        fresh = nn.Module()
        fresh.weight, fresh.wide = nn.Parameter(torch.zeros(256)), nn.Parameter(torch.zeros(2**16))
        assert_equal_models(load_model(tmp_path / "model", fresh), model)


class Tied(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(7, 5, padding_idx=0)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.embedding(x))


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    model = Tied()
    convert_model(model, lns8f5)
    save_model(tmp_path / "model", model)
    assert list(load_weights(tmp_path / "model")) == ["embedding.weight"]
    fresh = load_model(tmp_path / "model", Tied(1))
    assert fresh.embedding.weight is fresh.head.weight
    assert isinstance(fresh.head.weight, LNSWeight)
    x = torch.tensor([0, 3, 6])
    assert torch.equal(fresh(x), model(x))


def test_tied_weights_of_a_float_model(tmp_path):
    save_model(tmp_path / "model", Tied())
    fresh = Tied(1)
    convert_model(fresh, lns8f5)
    load_model(tmp_path / "model", fresh)
    assert fresh.embedding.weight is fresh.head.weight
    assert_equal_models(fresh, Tied())


def test_recurrent_modules_compute_with_what_was_loaded(tmp_path):
    torch.manual_seed(0)
    model = nn.LSTM(3, 4)
    convert_model(model, lns8f5)
    save_model(tmp_path / "model", model)
    fresh = load_model(tmp_path / "model", nn.LSTM(3, 4))
    x = torch.ones(2, 1, 3)
    assert torch.equal(fresh(x)[0], model(x)[0])
    assert all(a is b for a, b in zip(fresh._flat_weights, fresh.parameters(), strict=True))


def test_requires_grad_and_mode_are_the_model_s_own(tmp_path):
    model = network()
    convert_model(model, lns8f5)
    save_model(tmp_path / "model", model)
    fresh = network(seed=1)
    fresh[0].weight.requires_grad_(False)
    fresh.train()
    load_model(tmp_path / "model", fresh)
    assert not fresh[0].weight.requires_grad
    assert fresh[4].weight.requires_grad
    assert fresh.training


def test_the_model_s_float_type_is_kept(tmp_path):
    """The codes are what the file has; what they appear as is the model's."""
    model = network()
    convert_model(model, lns8f5)
    save_model(tmp_path / "model", model)
    fresh = load_model(tmp_path / "model", network(torch.bfloat16, seed=1))
    for name, p in fresh.named_parameters():
        own = dict(model.named_parameters())[name]
        assert p.dtype == torch.bfloat16
        assert torch.equal(p.codes, own.codes)
        assert p.log_offset == own.log_offset


# --------------------------------------------------------------------------------------------- between floats and codes


def test_a_file_of_codes_makes_a_float_model_one_of_codes(tmp_path):
    model = network()
    convert_model(model, {"*.weight": lns8f5})
    save_model(tmp_path / "model", model)
    fresh = network(seed=1)
    load_model(tmp_path / "model", fresh)
    assert [isinstance(p, LNSWeight) for p in fresh.parameters()] == [True, False] * 3
    assert torch.equal(fresh(images()), decode_model(copy.deepcopy(model))(images()))


def test_a_file_of_floats_makes_a_model_of_codes_one_of_floats(tmp_path):
    floats = network()
    save_model(tmp_path / "model", floats)
    model = network(seed=1)
    convert_model(model, lns8f5)
    load_model(tmp_path / "model", model)
    assert_equal_models(model, floats)
    assert torch.equal(model(images()), floats(images()))


def test_a_float_model_into_itself_keeps_its_parameters(tmp_path):
    floats, fresh = network(), network(seed=1)
    save_model(tmp_path / "model", floats)
    own = list(fresh.parameters())
    load_model(tmp_path / "model", fresh)
    assert_equal_models(fresh, floats)
    assert all(a is b for a, b in zip(own, fresh.parameters(), strict=True))


def test_what_is_loaded_is_the_model_s_alone(tmp_path):
    """Writing to the loaded model changes neither the file nor another model loaded from it."""
    model = network()
    convert_model(model, {"*.weight": lns8f5})
    save_model(tmp_path / "model", model)
    first, second = (load_model(tmp_path / "model", network(seed=s)) for s in (1, 2))
    with torch.no_grad():
        for t in (*first.parameters(), *first.buffers()):
            t.fill_(1)
    assert_equal_models(second, model)
    assert_equal_models(load_model(tmp_path / "model", network(seed=3)), model)


def test_saving_does_not_change_the_model_nor_its_storage(tmp_path):
    model = network()
    convert_model(model, {"*.weight": lns8f5})
    before = snapshot(model)
    save_model(tmp_path / "model", model)
    assert_untouched(model, before)
    model[1].running_mean.resize_(7)  # storages stay resizable


def test_saving_twice_gives_the_same_bytes_and_replaces(tmp_path):
    model = network()
    convert_model(model, lns8f5)
    save_model(tmp_path / "a", model)
    save_model(tmp_path / "b", model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = network(seed=1)
    save_model(tmp_path / "a", other)
    assert_equal_models(load_model(tmp_path / "a", network(seed=2)), other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


# --------------------------------------------------------------------------------------------------------------- errors


def weights_of(model: nn.Module) -> dict:
    """What save_model writes, to be spoiled."""
    held = {}
    for name, t in model.state_dict().items():
        held[name] = t.to_lns() if isinstance(t, LNSWeight) else t.numpy().copy()
    return held


def without(*names):
    return lambda w: [w.pop(name) for name in names]


SPOILED = {
    "one missing": (without("4.bias"), r"is for another model: it lacks '4.bias'$"),
    "many missing": (
        without("0.bias", "1.running_mean", "4.bias", "4.weight"),
        r"it lacks '0.bias', '1.running_mean', '4.bias' and 1 more$",
    ),
    "one unknown": (
        lambda w: w.update(more=np.zeros(3)),
        r"is for another model: it holds 'more', which the model has not$",
    ),
    "both": (
        lambda w: w.update({"4.bia": w.pop("4.bias")}),
        r"is for another model: it lacks '4.bias' and it holds '4.bia', which the model has not$",
    ),
    "shape": (
        lambda w: w.update({"4.bias": np.zeros(5, np.float32)}),
        r"is for another model: '4.bias' has shape \(5,\), and \(4,\) there$",
    ),
    "transposed": (
        lambda w: w.update({"4.weight": LNSTensor(w["4.weight"].codes.T.copy(), lns8f5)}),
        r"'4.weight' has shape \(54, 4\), and \(4, 54\) there$",
    ),
    "scalar": (
        lambda w: w.update({"1.num_batches_tracked": np.zeros(1, np.int64)}),
        r"'1.num_batches_tracked' has shape \(1,\), and \(\) there$",
    ),
    "codes for a buffer": (
        lambda w: w.update({"1.running_mean": LNSTensor(np.zeros(6, np.uint8), lns8f5)}),
        r"holds codes for '1.running_mean', which is no float parameter of the model$",
    ),
    "codes for a count": (
        lambda w: w.update({"1.num_batches_tracked": LNSTensor(np.array(3, np.uint8), lns8f5)}),
        r"holds codes for '1.num_batches_tracked', which is no float parameter",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
@pytest.mark.parametrize("converted", [False, True])
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, name, converted):
    spoil, message = SPOILED[name]
    model = network()
    convert_model(model, {"*.weight": lns8f5})
    held = weights_of(model)
    spoil(held)
    save_weights(tmp_path / "model", held)
    other = network(seed=1)
    if converted:
        convert_model(other, lns12f6)
    before = snapshot(other)
    with pytest.raises(WeightFileError, match=message) as caught:
        load_model(tmp_path / "model", other)
    assert str(caught.value).startswith(str(tmp_path / "model"))
    assert "\n" not in str(caught.value)
    assert_untouched(other, before)


def test_codes_for_an_integer_parameter(tmp_path):
    save_weights(tmp_path / "model", {"count": LNSTensor(np.zeros(3, np.uint8), lns8f5)})
    model = nn.Module()
    model.count = nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)
    with pytest.raises(WeightFileError, match="holds codes for 'count', which is no float parameter of the model"):
        load_model(tmp_path / "model", model)


def test_the_file_of_another_model(tmp_path):
    save_model(tmp_path / "model", Tied())
    model = network()
    before = snapshot(model)
    with pytest.raises(WeightFileError, match=r"it lacks .* and it holds 'embedding.weight', which the model has not"):
        load_model(tmp_path / "model", model)
    assert_untouched(model, before)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\x10\0\0\0\0\0\0\0{}"])
def test_files_that_are_none(tmp_path, content):
    (tmp_path / "model").write_bytes(content)
    model = network()
    before = snapshot(model)
    with pytest.raises(WeightFileError, match="is damaged or no safetensors file"):
        load_model(tmp_path / "model", model)
    assert_untouched(model, before)


def test_a_safetensors_file_of_others_and_one_that_is_not_there(tmp_path):
    arrays = {name: t.numpy() for name, t in network().state_dict().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "model")
    with pytest.raises(WeightFileError, match="no LNS weight file: its metadata has no entry 'lnsnum'"):
        load_model(tmp_path / "model", network())
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "nothing", network())


def test_names_behind_a_prefix(tmp_path):
    """Of a model within another, as DistributedDataParallel and most training loops save it."""
    save_model(tmp_path / "model", nn.ModuleDict({"module": network()}))
    with pytest.raises(WeightFileError, match=r"\(its names are the model's behind 'module\.'\)$"):
        load_model(tmp_path / "model", network())


def test_codes_outside_their_format(tmp_path):
    """Of a format of six bits, code 64."""
    header = json.dumps({"layout": 1, "tensors": {"weight": {"format": "lns6f2", "log_offset": 0}}})
    safetensors.numpy.save_file({"weight": np.array([[64]], np.uint8)}, tmp_path / "model", metadata={"lnsnum": header})
    model = nn.Linear(1, 1, bias=False)
    before = snapshot(model)
    with pytest.raises(WeightFileError, match=r"tensor 'weight': code 64 at index \(0, 0\) is outside lns6f2"):
        load_model(tmp_path / "model", model)
    assert_untouched(model, before)


class WithExtraState(nn.Linear):
    def __init__(self, extra):
        super().__init__(2, 2)
        self.extra = extra

    def get_extra_state(self):
        return torch.tensor(self.extra) if isinstance(self.extra, int) else self.extra

    def set_extra_state(self, state):
        self.extra = int(state)


def test_state_that_is_no_tensor_is_refused(tmp_path):
    model = WithExtraState({"version": 1})
    with pytest.raises(TypeError, match="'_extra_state' of the model's state is no parameter and no buffer"):
        save_model(tmp_path / "model", model)
    assert list(tmp_path.iterdir()) == []


def test_extra_state_that_is_a_tensor(tmp_path):
    with pytest.raises(TypeError, match=r"'_extra_state' of the model's state is no parameter and no buffer"):
        save_model(tmp_path / "model", WithExtraState(7))
    assert not (tmp_path / "model").exists()


def test_types_that_files_cannot_hold(tmp_path):
    model = nn.Linear(2, 2)
    model.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match="tensor 'phase' is of complex64, which weight files cannot hold"):
        save_model(tmp_path / "model", model)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path):
    model = network()
    save_model(tmp_path / "model", model)
    before = (tmp_path / "model").read_bytes()
    model.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(TypeError):
        save_model(tmp_path / "model", model)
    with pytest.raises(TypeError, match="metadata entry 'n'"):
        save_model(tmp_path / "model", network(), metadata={"n": 1})
    assert (tmp_path / "model").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("into", ["1.num_batches_tracked", "4.bias"])
def test_another_type_that_loses_values_is_told(tmp_path, into):
    model = network(torch.float16)
    held = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    held[into] = np.full(held[into].shape, 2.7 if into.startswith("1") else 1e30, np.float64)
    save_weights(tmp_path / "model", held)
    with pytest.raises(WeightFileError, match=into):
        load_model(tmp_path / "model", model)


def test_decoded_values_agree_with_the_file(tmp_path):
    model = network()
    convert_model(model, lns8f5)
    save_model(tmp_path / "model", model)
    for name, tensor in load_weights(tmp_path / "model").items():
        if isinstance(tensor, LNSTensor):
            expected = lnsnum.decode(tensor.codes, tensor.fmt, "float32", log_offset=tensor.log_offset)
            assert math.isfinite(float(expected.sum()))
            np.testing.assert_array_equal(dict(model.named_parameters())[name].to_float().numpy(), expected)


def test_an_optimizer_goes_on_after_loading_weights_of_the_same_format(tmp_path):
    model = nn.Linear(8, 4)
    convert_model(model, "lns8f5")
    save_model(tmp_path / "model", model)
    saved = model.weight.codes.clone()
    optimizer = Madam(model.parameters(), lr=0.2)
    for _ in range(2):
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
    assert not torch.equal(model.weight.codes, saved)
    weight = model.weight
    load_model(tmp_path / "model", model)
    assert model.weight is weight
    assert torch.equal(model.weight.codes, saved)
    optimizer.step()
    assert optimizer.step_report().moved > 0
    assert not torch.equal(model.weight.codes, saved)


def test_expanded_tensors_are_refused(tmp_path):
    expanded = nn.Linear(2, 2)
    expanded.register_buffer("z", torch.zeros(1).expand(3))
    before = expanded.weight.detach().clone()
    save_model(tmp_path / "expanded", expanded)
    with pytest.raises(ValueError, match=r"'z' of the model is expanded"):
        load_model(tmp_path / "expanded", expanded)
    assert torch.equal(expanded.weight, before)


def test_a_file_of_another_model_is_refused_by_its_header_alone(tmp_path):
    """A sparse file may promise more than there is memory."""
    ours = json.dumps({"layout": 1, "tensors": {}})
    promised = {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}
    header = json.dumps({"__metadata__": {"lnsnum": ours}, "weight": promised}).encode()
    with open(tmp_path / "huge", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**40)
    with pytest.raises(WeightFileError, match=r"is for another model: it lacks 'bias'"):
        load_model(tmp_path / "huge", nn.Linear(8, 4))


# ----------------------------------------------------------------------------------------------------- what data show


LATE = {
    "a code": (lambda: np.uint8([0, 1, 64]), "lns6f2", "code 64 at index \\(2,\\) is outside lns6f2"),
    "a float": (lambda: np.float64([0, 1, 1e300]), None, "'zz' is of torch.float64, and as torch.float32 would lose v"),
    "an integer": (lambda: np.uint64([0, 1, 2**64 - 1]), None, None),
}


@pytest.mark.parametrize("fmt", [None, lns8f5, lns12f6], ids=str)
def test_a_wrong_checksum_anywhere_changes_nothing(tmp_path, fmt):
    """Every byte of the data is flipped once: also of codes that fill their integers, which any bits could be."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    if fmt:
        convert_model(model, fmt)
    save_model(tmp_path / "model", model, packed=True)
    content = (tmp_path / "model").read_bytes()
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    before = snapshot(other)
    for at in range(8 + int.from_bytes(content[:8], "little"), len(content)):
        (tmp_path / "model").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(WeightFileError, match=r"is damaged: its checksum is|is outside|after its last code"):
            load_model(tmp_path / "model", other)
        assert_untouched(other, before)


@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bad_data_of_the_last_tensor_change_nothing(tmp_path, name, device):
    make, fmt, message = LATE[name]
    entry = {"zz": {"format": fmt, "log_offset": 0}} if fmt else {}
    arrays = {"a": np.ones(3, np.float32), "zz": make()}
    header = json.dumps({"layout": 1, "tensors": entry})
    safetensors.numpy.save_file(arrays, tmp_path / "model", metadata={"lnsnum": header})
    model = nn.Module()
    model.a, model.zz = (nn.Parameter(torch.zeros(3, device=device)) for _ in range(2))
    own = list(model.parameters())
    if message:
        with pytest.raises(WeightFileError, match=message):
            load_model(tmp_path / "model", model)
        assert all(a is b for a, b in zip(own, model.parameters(), strict=True))
        assert device == "meta" or model.a.tolist() == model.zz.tolist() == [0.0, 0.0, 0.0]
    else:
        load_model(tmp_path / "model", model)
        assert model.zz.tolist() == [0.0, 1.0, 2.0**64]


@pytest.mark.parametrize("at", [0, 2**18 - 1, 2**18, 2**18 + 4])
def test_every_part_of_a_large_tensor_is_looked_at(tmp_path, at):
    values = np.zeros(2**18 + 5)
    values[at] = 1e300
    save_weights(tmp_path / "model", {"w": values})
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(values.shape))
    with pytest.raises(WeightFileError, match="would lose values"):
        load_model(tmp_path / "model", model)


# --------------------------------------------------------------------------------------------------- the meta device


def on_meta(make, *args):
    with torch.device("meta"):
        return make(*args)


class Everything(nn.Module):
    """Convolutions, running statistics, a tied weight, a recurrent module, a buffer that is registered twice."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6))
        self.tied = Tied()
        self.rnn = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        self.register_buffer("first", torch.arange(4.0))
        self.register_buffer("second", self.first)
        self.count = nn.Parameter(torch.tensor(3), requires_grad=False)
        self.brain = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))

    def forward(self, x):
        return self.net(x).sum() + self.rnn(x[0, 0, :, :3])[0].sum() + self.tied(torch.tensor([1, 2])).sum()


@pytest.mark.parametrize("most", [None, 200])
@pytest.mark.parametrize("chosen", [["*"], ["net.*", "rnn.*"], []], ids=str)
def test_a_model_on_the_meta_device_is_loaded_without_floats(tmp_path, most, chosen):
    torch.manual_seed(0)
    model = Everything()
    model(images())
    floats = lambda name, p: p.is_floating_point()  # noqa: E731
    for pattern in chosen:
        convert_model(model, {pattern: lns8f5}, filter_fn=floats)
    path = save_model(tmp_path / "model", model, max_shard_bytes=most)
    empty = on_meta(Everything)
    assert load_model(path, empty) is empty
    assert_equal_models(empty, model)
    assert {t.device.type for t in tensors(empty).values()} == {"cpu"}
    assert empty.tied.embedding.weight is empty.tied.head.weight
    assert empty.first is empty.second
    assert all(a is b for a, b in zip(empty.rnn._flat_weights, empty.rnn.parameters(), strict=True))
    assert torch.equal(empty.eval()(images()), model.eval()(images()))
    empty.first.resize_(7)


def test_the_meta_model_s_own_types_are_kept(tmp_path):
    model = network()
    convert_model(model, {"*.weight": lns8f5})
    save_model(tmp_path / "model", model)
    empty = load_model(tmp_path / "model", on_meta(nn.Sequential, *network()).to("meta").to(torch.bfloat16))
    assert {t.dtype for t in empty.parameters()} == {torch.bfloat16}
    assert torch.equal(empty[4].weight.codes, model[4].weight.codes)
    assert torch.equal(empty[4].bias, model[4].bias.bfloat16())


def test_a_converted_model_on_the_meta_device(tmp_path):
    """Codes on meta become the file's, or floats if it has floats."""
    model = network()
    convert_model(model, lns8f5)
    save_model(tmp_path / "codes", model)
    save_model(tmp_path / "floats", network())
    for kind, original in (("codes", model), ("floats", network())):
        empty = copy.deepcopy(model).to("meta")
        assert isinstance(empty[0].weight, LNSWeight)
        assert empty[0].weight.is_meta
        assert_equal_models(load_model(tmp_path / kind, empty), original)


def test_part_of_a_model_on_the_meta_device(tmp_path):
    model = network()
    convert_model(model, lns8f5)
    save_model(tmp_path / "model", model)
    mixed = network(seed=1)
    mixed[4].to("meta")
    assert_equal_models(load_model(tmp_path / "model", mixed), model)


def test_a_loaded_model_is_trained_on(tmp_path):
    model = nn.Linear(8, 4)
    convert_model(model, "lns8f5")
    save_model(tmp_path / "model", model)
    empty = load_model(tmp_path / "model", on_meta(nn.Linear, 8, 4))
    for each in (model, empty):
        torch.manual_seed(1)
        optimizer = Madam(each.parameters(), lr=0.2)
        each(torch.ones(2, 8)).sum().backward()
        optimizer.step()
    assert_equal_models(empty, model)


def test_buffers_that_no_file_has_must_not_be_on_the_meta_device(tmp_path):
    save_model(tmp_path / "model", Buffers(0))
    empty = on_meta(Buffers)
    empty.inner = nn.Module()
    empty.inner.register_buffer("cache", torch.zeros(1, device="meta"), persistent=False)
    before = tensors(empty)
    with pytest.raises(ValueError, match=r"^'mask', 'inner.cache' of the model: on the meta device, and no file") as e:
        load_model(tmp_path / "model", empty)
    assert "assign them tensors on the CPU first" in str(e.value)
    assert all(t is before[name] for name, t in tensors(empty).items())
    empty.mask, empty.inner.cache = torch.zeros(2), torch.zeros(1)
    load_model(tmp_path / "model", empty)
    del empty.inner
    assert_equal_models(empty, Buffers(0))


def test_a_meta_model_that_does_not_fit_stays_on_meta(tmp_path):
    save_model(tmp_path / "model", nn.Linear(8, 4))
    for empty in (on_meta(nn.Linear, 8, 5), on_meta(nn.Linear, 8, 4, False)):
        with pytest.raises(WeightFileError, match="is for another model"):
            load_model(tmp_path / "model", empty)
        assert all(p.is_meta for p in empty.parameters())


def test_a_model_on_the_meta_device_has_nothing_to_save(tmp_path):
    with pytest.raises(ValueError, match="'weight' of the model is on the meta device: it has no values to save"):
        save_model(tmp_path / "model", on_meta(nn.Linear, 8, 4))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------ several files


@pytest.mark.parametrize("most", [1, 100, 200])
def test_models_in_several_files(tmp_path, most):
    model = network()
    convert_model(model, {"*.weight": lns8f5})
    index = save_model(tmp_path / "model.safetensors", model, metadata={"card": "digits"}, max_shard_bytes=most)
    assert index == tmp_path / "model.safetensors.index.json"
    assert json.loads(index.read_text())["metadata"]["total_size"] == sum(t.nbytes for t in model.state_dict().values())
    for path in (index, tmp_path / "model.safetensors"):
        assert_equal_models(load_model(path, network(seed=1)), model)
        assert load_metadata(path) == {"card": "digits"}
    assert save_model(tmp_path / "model.safetensors", model) == tmp_path / "model.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_set_for_another_model_changes_nothing(tmp_path):
    index = save_model(tmp_path / "model", network(), max_shard_bytes=100)
    other = Tied()
    before = snapshot(other)
    with pytest.raises(WeightFileError, match=r"model\.index\.json is for another model: it lacks 'embedding.weight'"):
        load_model(index, other)
    next(tmp_path.glob("model-*")).unlink()
    with pytest.raises(WeightFileError, match=r"model\.index\.json: its shard 'model-.*' is not there"):
        load_model(tmp_path / "model", other)
    assert_untouched(other, before)


# ------------------------------------------------------------------------------------------------------------- memory


class Census:
    """Bytes of the arrays that went through `count` and are alive."""

    def __init__(self):
        self.alive = self.most = 0

    def count(self, array):
        self.alive += array.nbytes
        self.most = max(self.most, self.alive)
        weakref.finalize(array, self._died, array.nbytes)
        return array

    def _died(self, size):
        self.alive -= size


def layers(device=None):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(16, 16, bias=False, device=device) for _ in range(6)))


@pytest.fixture
def read(monkeypatch):
    """What the reader has read and is not yet let go."""
    census, original = Census(), WeightFile._empty
    monkeypatch.setattr(WeightFile, "_empty", lambda self, stored: census.count(original(self, stored)))
    return census


@pytest.mark.parametrize("most", [None, 600])
@pytest.mark.parametrize("fmt", [None, lns8f5, lns6f2, lns12f6], ids=str)
def test_loading_in_place_has_one_tensor_more_than_the_model(tmp_path, read, most, fmt):
    model = layers()
    if fmt:
        convert_model(model, fmt)
    path = save_model(tmp_path / "model", model, max_shard_bytes=most)
    load_model(path, model)
    assert read.most == model[0].weight.nbytes
    assert read.alive == 0


@pytest.mark.parametrize("fmt", [lns8f5, lns6f2])
def test_codes_replace_what_the_model_had_one_tensor_at_a_time(tmp_path, read, fmt):
    """On the meta device or over floats: one tensor is read beyond the model, and the floats go as the codes come."""
    model = layers()
    convert_model(model, fmt)
    save_model(tmp_path / "model", model)
    size = model[0].weight.nbytes
    for device in ("meta", "cpu"):
        fresh = layers(device)
        floats = [weakref.ref(p) for p in fresh.parameters()]
        gone = []
        with pytest.MonkeyPatch.context() as patch:
            original = WeightFile._empty  # the census, which sees each tensor before it is placed

            def look(self, stored, original=original, floats=floats, gone=gone):
                gone.append(sum(ref() is None for ref in floats))
                return original(self, stored)

            patch.setattr(WeightFile, "_empty", look)
            load_model(tmp_path / "model", fresh)
        assert read.most == size
        assert gone[-6:] == [0, 1, 2, 3, 4, 5]
        assert_equal_models(fresh, model)
        assert read.alive == 0
        assert all(p.codes.untyped_storage().resizable() for p in fresh.parameters())


@pytest.mark.parametrize("fmt", [None, lns8f5, lns12f6], ids=str)
def test_saving_copies_nothing(tmp_path, monkeypatch, fmt):
    model = layers()
    if fmt:
        convert_model(model, fmt)
    written, original = {}, checkpoint.elements

    def look(tensor):
        array = original(tensor)
        written[array.ctypes.data] = array.nbytes
        return array

    monkeypatch.setattr(checkpoint, "elements", look)
    save_model(tmp_path / "model", model, max_shard_bytes=600)
    parts = [p.codes if fmt else p for p in model.parameters()]
    assert written == {part.data_ptr(): part.nbytes for part in parts}


def test_what_must_be_copied_is_copied_a_tensor_at_a_time(tmp_path, monkeypatch):
    """Tensors whose elements lie in another order."""
    model = layers()
    for layer in model:
        layer.weight = nn.Parameter(layer.weight.detach().t())
    census, original = Census(), checkpoint.elements
    monkeypatch.setattr(checkpoint, "elements", lambda tensor: census.count(original(tensor)))
    save_model(tmp_path / "model", model, max_shard_bytes=2 * 16 * 16 * 4)
    assert census.most == 16 * 16 * 4
    assert census.alive == 0
    assert_equal_models(load_model(tmp_path / "model", layers("meta")), model)


# ---------------------------------------------------------------------------------------- a log_offset for each channel


def with_offsets(seed=0):
    """Two weights with an offset for each row or each column, and one with an offset for all."""
    rng = np.random.default_rng(seed)
    model = nn.Module()
    for name, shape, scale in (("rows", (4, 3), (4, 1)), ("columns", (4, 3), (3,)), ("one", (4, 3), ())):
        codes = rng.integers(0, 256, shape, np.uint8)
        offsets = rng.integers(-200, 200, scale).astype(np.int32)
        tensor = LNSTensor(codes, lns8f5, log_offset=offsets if scale else int(offsets))
        setattr(model, name, nn.Parameter(LNSWeight.from_lns(tensor)))
    return model


def offsets_of(weight):
    return np.asarray(weight.log_offset).tolist()


def assert_equal_offsets(a, b):
    for name, p in a.named_parameters():
        other = dict(b.named_parameters())[name]
        assert offsets_of(p) == offsets_of(other), name
        assert torch.equal(p.codes, other.codes), name
        assert torch.equal(p.to_float(), other.to_float()), name


@pytest.mark.parametrize("most", [None, 12])
@pytest.mark.parametrize("into", ["meta", "floats", "codes"])
def test_offsets_for_each_channel_go_both_ways(tmp_path, most, into):
    model = with_offsets()
    path = save_model(tmp_path / "model", model, max_shard_bytes=most)
    for name, tensor in load_weights(path).items():
        assert offsets_of(tensor) == offsets_of(getattr(model, name))
        np.testing.assert_array_equal(tensor.codes, getattr(model, name).codes.numpy())
    fresh = with_offsets(1)
    if into == "floats":
        decode_model(fresh)
    if into == "meta":
        fresh = fresh.to("meta")
    own = dict(fresh.named_parameters())
    load_model(path, fresh)
    assert_equal_offsets(fresh, model)
    assert all((p is own[name]) == (into == "codes") for name, p in fresh.named_parameters())


@pytest.mark.parametrize("seeds", [("one", "rows"), ("rows", "one"), ("rows", "columns")], ids="-".join)
def test_another_kind_of_offsets_than_the_model_s(tmp_path, seeds):
    """The file says what scale there is, whatever the model had."""
    held, had = seeds
    model, fresh = nn.Module(), nn.Module()
    model.w, fresh.w = getattr(with_offsets(), held), getattr(with_offsets(1), had)
    save_model(tmp_path / "model", model)
    assert_equal_offsets(load_model(tmp_path / "model", fresh), model)


def test_floats_for_a_model_that_was_loaded_are_encoded_as_for_one_that_was_converted(tmp_path):
    model = nn.Linear(6, 5)
    convert_model(model, lns8f5)
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model", nn.Linear(6, 5))
    floats = {name: 100.0 * p for name, p in nn.Linear(6, 5).state_dict().items()}
    for each in (model, loaded):
        each.load_state_dict(floats)
    assert_equal_models(loaded, model)
    assert model.weight.log_offset > 100
