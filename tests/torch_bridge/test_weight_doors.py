"""The ways in and out of a weight: files, states, devices, processes, and what torch does to parameters.

Whatever the way, the codes and the scale arrive as they were, or an error says why not.
"""

import copy
import gc
import io
import pickle
import weakref

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim import swa_utils
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import lnsnum
from lnsnum import lns8f3, lns8f5, lns12f6, lns16f10
from lnsnum.torch_bridge import LNSWeight, convert_model, decode_model

torch.set_num_threads(1)

X = torch.linspace(-1, 1, 8).reshape(2, 4)


def a_weight(shape=(6, 5), log_offset=-40, seed=0, dtype=torch.float32) -> LNSWeight:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return LNSWeight.from_float(x, lns8f5, log_offset=log_offset)


def a_model(seed=0, per_channel=False, fmt=lns8f5, scale=1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    convert_model(model, fmt, per_channel=per_channel)
    return model.eval()


def plain(model: nn.Module) -> nn.Module:
    return decode_model(copy.deepcopy(model))


def codes_of(model: nn.Module) -> list[tuple]:
    """What must arrive: codes, scale, format."""
    return [
        (p.codes.tolist(), np.asarray(p.log_offset).tolist(), p.fmt) if isinstance(p, LNSWeight) else p.tolist()
        for p in model.parameters()
    ]


def gradients(model: nn.Module, x: torch.Tensor = X) -> list[torch.Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return [p.grad for p in model.parameters()]


def assert_equal(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        assert type(a) is torch.Tensor
        assert torch.equal(a, b)


# ---------------------------------------------------------------------------------------------------- files and states


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_file_is_mapped_into_memory(tmp_path, per_channel):
    model = a_model(per_channel=per_channel)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    for arguments in ({"mmap": True}, {"mmap": True, "weights_only": True}, {"weights_only": True}, {}):
        state = torch.load(tmp_path / "m.pt", **arguments)
        other = a_model(1, per_channel, scale=3.0)
        other.load_state_dict(state, assign="mmap" in arguments)
        assert codes_of(other) == codes_of(model)
        assert torch.equal(other(X), model(X))
        with torch.no_grad():
            other[0].weight.neg_()
            other[0].weight.rescale_(0)
    fresh = torch.load(tmp_path / "m.pt")
    assert torch.equal(fresh["0.weight"].codes, model[0].weight.codes)


LOADED = {
    "weights_only": lambda state: torch.load(saved(state), weights_only=True),
    "torch.save": lambda state: torch.load(saved(state), weights_only=False),
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
}


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("way", ["weights_only", "torch.save"])
def test_shared_parts_stay_shared_in_a_file(way):
    weight = a_weight()
    loaded = LOADED[way]({"whole": weight, "row": weight[2], "turned": weight.t()})
    assert torch.equal(loaded["row"].to_float(), weight[2].to_float())
    loaded["whole"].rescale_(-20)
    assert loaded["row"].log_offset == loaded["turned"].log_offset == -20
    assert torch.equal(loaded["row"].to_float(), loaded["whole"].to_float()[2])
    with pytest.raises(RuntimeError, match="rescale_ of a part"):
        loaded["row"].rescale_(3)


@pytest.mark.parametrize("way", LOADED)
def test_the_scale_is_loaded_as_it_was(way):
    """With what graphs need, and what tells that a view's copied offsets are stale; a copy has its own."""
    for_graphs, channels = a_weight(), a_weight(log_offset=torch.arange(6)[:, None])
    for_graphs.scale_for_graph_(2)
    merged = channels.view(5, 6)
    loaded = LOADED[way]({"graphs": for_graphs, "channels": channels, "merged": merged})
    assert loaded["graphs"].log_offset == for_graphs.log_offset
    assert loaded["graphs"].scale[:2] == for_graphs.scale[:2]
    assert torch.equal(loaded["channels"].log_offset, channels.log_offset)
    assert torch.equal(loaded["merged"].to_float(), merged.to_float())
    loaded["channels"].rescale_(torch.arange(1, 7)[:, None])
    with pytest.raises(RuntimeError, match="this view merged channels"):
        _ = loaded["merged"].scale
    with pytest.raises(RuntimeError, match="this view merged channels"):
        LOADED[way](loaded["merged"])
    loaded["graphs"].rescale_(5)
    assert for_graphs.log_offset == a_weight().log_offset


@pytest.mark.parametrize(
    ("scale", "error"),
    [
        (None, "is a list of four integers, not None"),
        ([], "is a list of four integers"),
        ([0, 0, 0], "it was written by another version"),
        ([0, 0.0, 0, 0], "is a list of four integers"),
        ([0, 0, True, 0], "is a list of four integers"),
        ([1, 0, 0, 0], r"\[1, 0, 0, 0\] is no scale of a pickled LNSWeight"),
        ([0, 0, -1, 0], "is no scale of a pickled LNSWeight"),
        ([0, 0, 0, -1], "is no scale of a pickled LNSWeight"),
        ([0, 1 << 40, 0, 0], "log_offset"),
    ],
    ids=str,
)
def test_a_pickle_cannot_bring_a_scale_that_is_none(scale, error):
    rebuild, (codes, fmt, _, *rest) = a_weight().__reduce_ex__(2)
    with pytest.raises(ValueError, match=error):
        rebuild(codes, fmt, scale, *rest)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("view", [lambda w: w[2], lambda w: w[:, 1:], lambda w: w.t()[1:], lambda w: w[2, 3]])
def test_a_part_that_begins_later_in_memory_travels(way, view):
    for weight in (a_weight(), a_weight(log_offset=torch.arange(6)[:, None])):
        part = view(weight)
        if way == "deepcopy":
            copied = copy.deepcopy(part)
        elif way == "pickle":
            copied = pickle.loads(pickle.dumps(part))
        else:
            file = io.BytesIO()
            torch.save(part, file)
            file.seek(0)
            copied = torch.load(file)
        assert isinstance(copied, LNSWeight)
        assert torch.equal(copied.to_float(), part.to_float())
        before = part.to_float()
        copied.neg_()
        assert torch.equal(copied.to_float(), -before)
        assert torch.equal(part.to_float(), before)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_a_whole_module_travels_with_its_load_hook(way):
    model = a_model()
    if way == "deepcopy":
        copied = copy.deepcopy(model)
    elif way == "pickle":
        copied = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        copied = torch.load(file, weights_only=False)
    assert codes_of(copied) == codes_of(model)
    assert torch.equal(copied(X), model(X))
    other = a_model(2, scale=5.0)
    copied.load_state_dict(plain(other).state_dict())
    expected = a_model(0)
    expected.load_state_dict(plain(other).state_dict())
    assert codes_of(copied) == codes_of(expected)
    assert all(isinstance(p, LNSWeight) for p in copied.parameters())


@pytest.mark.parametrize("fmt", [lns8f5, lns8f3, lns12f6, lns16f10], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_state_of_decoded_floats_gives_back_the_codes(fmt, per_channel):
    model = a_model(0, per_channel, fmt)
    before = codes_of(model)
    floats = plain(model).state_dict()
    with torch.no_grad():
        for p in model.parameters():
            p.neg_()
    random_bits = torch.get_rng_state()
    model.load_state_dict(floats)
    assert torch.equal(torch.get_rng_state(), random_bits)
    assert codes_of(model) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_state_of_other_floats_keeps_the_appearance(dtype):
    model, source = a_model(), plain(a_model(3, scale=2.0)).to(dtype)
    model.load_state_dict(source.state_dict())
    for p, q in zip(model.parameters(), source.parameters(), strict=True):
        assert isinstance(p, LNSWeight)
        assert p.dtype == torch.float32
        np.testing.assert_allclose(p.detach().to_float(torch.float64), q.detach().double(), rtol=0.011, atol=1e-6)


def test_the_given_state_is_left_alone():
    model, source = a_model(), plain(a_model(3))
    state = source.state_dict()
    kinds = {name: (type(t), id(t)) for name, t in state.items()}
    model.load_state_dict(state)
    assert {name: (type(t), id(t)) for name, t in state.items()} == kinds


def test_states_of_parts_and_with_gaps():
    model, source = a_model(), a_model(3, scale=2.0)
    kept = codes_of(model)
    model[0].load_state_dict(plain(source)[0].state_dict())
    assert codes_of(model)[:2] != kept[:2]
    assert codes_of(model)[2:] == kept[2:]
    result = model.load_state_dict({"3.weight": plain(source)[3].weight.detach(), "else": X}, strict=False)
    assert result.unexpected_keys == ["else"]
    assert "0.weight" in result.missing_keys
    assert codes_of(model)[-1:] == kept[-1:]
    assert isinstance(model[3].weight, LNSWeight)


def message_of(model: nn.Module, state: dict) -> str:
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(2, 2), (24,), (), (6, 4, 1)], ids=str)
def test_a_wrong_shape_gets_the_error_that_a_float_model_gives(shape):
    model = a_model()
    before = codes_of(model)
    state = {**plain(model).state_dict(), "0.weight": torch.ones(shape)}
    told = message_of(model, state)
    assert told == message_of(plain(model), state)
    assert "size mismatch for 0.weight" in told
    assert codes_of(model)[0] == before[0]


def test_a_state_of_another_format_is_encoded_as_its_floats_would_be():
    """To nearest, at a scale that fits: at the scale here it would saturate."""
    source = a_model(3, fmt=lns16f10, scale=50.0)
    model, expected = a_model(), a_model()
    model.load_state_dict(source.state_dict())
    expected.load_state_dict(plain(source).state_dict())
    assert codes_of(model) == codes_of(expected)


def test_assigning_puts_what_is_given():
    model, source = a_model(), a_model(3, scale=2.0)
    state = source.state_dict()
    model.load_state_dict(state, assign=True)
    assert codes_of(model) == codes_of(source)
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
    with pytest.warns(UserWarning, match="plain floats in the place of the LNS weight '(0|1|3).weight' and 1 more"):
        model.load_state_dict(plain(source).state_dict(), assign=True)
    assert all(type(p) is nn.Parameter for p in model.parameters())
    assert torch.equal(model(X), plain(source)(X))


def test_a_float_model_takes_the_values():
    model, source = plain(a_model()), a_model(3, scale=2.0)
    model.load_state_dict(source.state_dict())
    assert_equal([p.detach() for p in model.parameters()], [p.to_float() for p in source.parameters()])


def test_a_float_model_assigned_a_state_has_the_weights():
    model, source = plain(a_model()), a_model(3)
    model.load_state_dict(source.state_dict(), assign=True)
    assert codes_of(model) == codes_of(source)


def test_a_module_that_was_decoded_takes_floats_as_floats():
    model = decode_model(a_model())
    state = {name: t + 0.001 if t.is_floating_point() else t for name, t in model.state_dict().items()}
    model.load_state_dict(state)
    assert_equal([p.detach() for p in model.parameters()], [state[name] for name, _ in model.named_parameters()])


def test_nan_and_infinity_of_a_state_are_kept_as_far_as_codes_can():
    model = nn.Linear(2, 2, bias=False)
    convert_model(model, lns8f5)
    model.load_state_dict({"weight": torch.tensor([[torch.nan, 1.0], [-torch.inf, 0.0]])})
    floats = model.weight.detach().to_float()
    assert floats[0, 0].isnan()
    assert float(floats[0, 1]) == pytest.approx(1.0, rel=0.011)
    assert model.weight.codes[1, 0] == lns8f5.max_magnitude + lns8f5.sign_bit
    assert floats[1, 1] == 0


def test_lists_of_parameters_take_floats():
    listed = nn.ParameterList([torch.randn(3), torch.randn(2, 2)])
    convert_model(listed, lns8f5)
    listed.load_state_dict({"0": torch.tensor([1.0, 2.0, 4.0]), "1": torch.ones(2, 2)})
    assert torch.equal(listed[0].to_float(), torch.tensor([1.0, 2.0, 4.0]))
    assert torch.equal(listed[1].to_float(), torch.ones(2, 2))


# ----------------------------------------------------------------------------------------------- devices and appearance


@pytest.mark.parametrize("per_channel", [False, True])
def test_to_the_meta_device_and_back(per_channel):
    model = a_model(per_channel=per_channel)
    before, state = codes_of(model), copy.deepcopy(model.state_dict())
    expected = model(X).detach()
    model.to("meta")
    assert all(isinstance(p, LNSWeight) and p.device.type == p.codes.device.type == "meta" for p in model.parameters())
    assert "..." in repr(model[0].weight)
    assert model(X.to("meta")).shape == (2, 3)
    model.to_empty(device="cpu")
    assert all(isinstance(p, LNSWeight) and isinstance(p, nn.Parameter) for p in model.parameters())
    assert all(p.requires_grad and p.codes.device.type == "cpu" for p in model.parameters())
    model.load_state_dict(state)
    assert codes_of(model) == before
    assert torch.equal(model(X), expected)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_state_is_assigned_to_a_model_on_meta(per_channel):
    source = a_model(per_channel=per_channel)
    for model in (a_model(1, per_channel).to("meta"), plain(a_model(1)).to("meta")):
        model.load_state_dict(copy.deepcopy(source.state_dict()), assign=True)
        assert codes_of(model) == codes_of(source)
        assert torch.equal(model(X), source(X))


def test_conversion_on_meta_is_refused():
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="'weight' is on the meta device: it has no values"):
        convert_model(model, lns8f5)


@pytest.mark.parametrize("change", ["half", "bfloat16", "double", "float"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_another_appearance_keeps_parameters_and_codes(change, per_channel):
    model = a_model(per_channel=per_channel)
    before, parameters = codes_of(model), list(model.parameters())
    dtype = getattr(torch, change)
    getattr(model, change)()
    assert codes_of(model) == before
    assert all(p is q and p.dtype == dtype for p, q in zip(model.parameters(), parameters, strict=True))
    assert_equal(gradients(model, X.to(dtype)), gradients(plain(model), X.to(dtype)))
    model.float()
    assert codes_of(model) == before


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.int32], ids=str)
def test_a_module_cannot_take_an_appearance_that_is_no_float(dtype):
    """A write of rounded values at the old type would be neither what was asked nor nothing."""
    model = a_model()
    before = codes_of(model)
    with pytest.raises(TypeError, match=f"LNS weights cannot appear as {dtype}: give .*, or decode_model"):
        model.type(dtype) if dtype == torch.int32 else model.to(dtype)
    assert codes_of(model) == before
    assert model[0].weight.dtype == torch.float32
    assert plain(model).to(torch.float8_e5m2)[0].weight.dtype == torch.float8_e5m2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.float8_e5m2, torch.int64], ids=str)
def test_values_of_another_type_cannot_be_assigned(dtype):
    """They would leave the weight's type as it is, which assigning to plain tensors changes."""
    weight = nn.Parameter(a_weight())
    codes = weight.codes.clone()
    for values in (torch.ones(6, 5).to(dtype), weight.detach().to(dtype)):
        with pytest.raises(TypeError, match=f"values of {dtype} cannot become those of a weight that appears as"):
            weight.data = values
        assert torch.equal(weight.codes, codes)
        weight.data = values.to(weight.dtype)
        codes = weight.codes.clone()


def test_an_appearance_that_is_no_float_makes_no_weight():
    assert type(a_weight().to(torch.int32)) is torch.Tensor
    assert type(a_weight().to(torch.float8_e4m3fn)) is torch.Tensor


# --------------------------------------------------------------------------------------------------------- memory doors

MEMORY = {
    "storage": lambda w: w.storage(),
    "address of the storage": lambda w: w.untyped_storage().data_ptr(),
    "bytes of the storage": lambda w: bytes(w.untyped_storage()),
    "np.from_dlpack": np.from_dlpack,
    "torch.from_dlpack": torch.from_dlpack,
    "memoryview": memoryview,
    "frombuffer": lambda w: torch.frombuffer(w, dtype=torch.float32),
    "view(dtype)": lambda w: w.view(torch.int32),
    "view_as_complex": lambda w: torch.view_as_complex(w[:, :2]),
    "view_as_real": torch.view_as_real,
    "imag": lambda w: w.imag,
    "_neg_view": torch._neg_view,
    "apply_": lambda w: w.apply_(abs),
    "map_": lambda w: w.map_(torch.ones(6, 5), max),
    "set_": lambda w: w.set_(torch.ones(3)),
    "set_ nothing": lambda w: w.set_(),
    "set_ storage": lambda w: w.set_(torch.ones(3).untyped_storage()),
    "resize_": lambda w: w.resize_(3),
    "resize_as_": lambda w: w.resize_as_(torch.ones(2)),
    "t_": lambda w: w.t_(),
    "transpose_": lambda w: w.transpose_(0, 1),
    "swapaxes_": lambda w: w.swapaxes_(0, 1),
    "swapdims_": lambda w: w.swapdims_(0, 1),
    "squeeze_": lambda w: w.squeeze_(),
    "unsqueeze_": lambda w: w.unsqueeze_(0),
    "as_strided_": lambda w: w.as_strided_((2,), (1,)),
}


@pytest.mark.parametrize("name", MEMORY)
@pytest.mark.parametrize("log_offset", [-40, torch.arange(6)[:, None]], ids=["whole", "channels"])
def test_what_needs_float_memory_is_refused_and_changes_nothing(name, log_offset):
    for weight in (a_weight(log_offset=log_offset), nn.Parameter(a_weight(log_offset=log_offset))):
        codes, version = weight.codes.clone(), weight._version
        with pytest.raises((NotImplementedError, TypeError, RuntimeError, ValueError)) as caught:
            MEMORY[name](weight)
        assert len(str(caught.value)) > 20
        assert torch.equal(weight.codes, codes)
        assert weight.shape == weight.codes.shape == (6, 5)
        assert weight._version == version


def test_dlpack_of_torch_utils_gives_no_null_pointer():
    with pytest.raises((TypeError, RuntimeError, BufferError, NotImplementedError)):
        torch.utils.dlpack.to_dlpack(a_weight())


def test_the_error_of_storage_says_what_to_do():
    with pytest.raises(TypeError, match=r"an LNSWeight has no float memory: save models by .*save_model or torch.save"):
        a_weight().storage()


@pytest.mark.parametrize("way", ["convert", "from_float", "from_lns", "clone", "view"])
def test_the_memory_of_codes_stays_resizable(way):
    """What shards a model sizes the memory to nothing and back. NumPy arrays on it, by DLPack, are no hindrance."""
    model = nn.Linear(5, 6)
    convert_model(model, lns8f5)
    weight = {
        "convert": lambda: model.weight.detach(),
        "from_float": a_weight,
        "from_lns": lambda: LNSWeight.from_lns(a_weight().to_lns()),
        "clone": lambda: a_weight().clone(),
        "view": lambda: model.weight.detach().t(),
    }[way]()
    weight.to_float(), weight.to_lns(), weight.telemetry(), weight.neg_()
    np.from_dlpack(weight.codes)
    assert weight.codes.untyped_storage().resizable()


def test_it_is_not_pinned():
    assert a_weight().is_pinned() is False


def test_floats_are_tensors_of_their_own():
    """No views, which torch would not detach in place."""
    for weight in (a_weight(), a_weight(log_offset=torch.arange(6)[:, None]), a_weight().t()):
        floats = weight.to_float()
        assert not floats._is_view()
        floats.zero_()
        assert weight.codes.any()


def test_padding():
    weight = a_weight()
    expected = F.pad(weight.to_float(), (1, 2, 0, 1))
    for log_offset in (-40, torch.full((6, 1), -40)):
        padded = F.pad(a_weight(log_offset=log_offset), (1, 2, 0, 1))
        assert torch.equal(padded.to_float() if isinstance(padded, LNSWeight) else padded, expected)
        assert torch.equal(
            F.pad(a_weight(log_offset=log_offset), (1, 2), value=3.0), F.pad(weight.to_float(), (1, 2), value=3.0)
        )
        cut = F.pad(a_weight(log_offset=log_offset), (-1, -2))
        assert torch.equal(cut.to_float() if isinstance(cut, LNSWeight) else cut, weight.to_float()[:, 1:-2])


# ------------------------------------------------------------------------------------------------------------ processes


def negate(weight) -> None:
    with torch.no_grad():
        weight.neg_()


def negate_model(model) -> None:
    for p in model.parameters():
        negate(p)


def run_in(start: str, function, *arguments) -> None:
    context = torch.multiprocessing.get_context(start)
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_another_process_writes_to_shared_codes(start, per_channel):
    model = a_model(per_channel=per_channel)
    assert model.share_memory() is model
    assert all(p.is_shared() and p.codes.is_shared() and isinstance(p, LNSWeight) for p in model.parameters())
    before = [p.to_float() for p in model.parameters()]
    run_in(start, negate_model, model)
    assert_equal([p.to_float() for p in model.parameters()], [-floats for floats in before])
    assert torch.equal(model[0].weight.codes >= 128, before[0] > 0)


def test_sharing_keeps_codes_and_scale():
    for log_offset in (-40, torch.arange(6)[:, None]):
        weight = a_weight(log_offset=log_offset)
        floats = weight.to_float()
        assert not weight.is_shared()
        assert weight.share_memory_() is weight
        assert weight.is_shared()
        assert torch.equal(weight.to_float(), floats)
        if isinstance(log_offset, int):  # of which other processes would not learn
            with pytest.raises(RuntimeError, match="shared memory"):
                weight.rescale_(weight.log_offset - 1)
            continue
        weight.rescale_(weight.log_offset - 1)
        assert torch.equal(torch.as_tensor(weight.log_offset), torch.as_tensor(log_offset) - 1)


def widen(weight) -> None:
    with torch.no_grad():
        weight.rescale_(weight.log_offset - 3000)
        weight.codes.fill_(64)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_offsets_that_another_process_changes_are_seen_or_refused():
    """Those of channels are shared: what this process then decodes are the values there, or it raises; never others."""
    weight = a_weight(log_offset=torch.arange(6)[:, None], dtype=torch.float64).share_memory_()
    run_in("fork", widen, weight)
    offsets = weight._offsets.numpy()
    try:
        floats = weight.to_float()
    except RuntimeError:
        return
    expected = lnsnum.decode(weight.codes.numpy(), lns8f5, log_offset=offsets)
    np.testing.assert_array_equal(floats, expected)


class Computed(Dataset):
    """Items that a model computes."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 6

    def __getitem__(self, index):
        with torch.no_grad():
            return self.model(X * index)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("per_channel", [False, True])
def test_workers_of_a_data_loader_use_a_model(per_channel):
    model = a_model(per_channel=per_channel)
    loader = DataLoader(Computed(model), batch_size=2, num_workers=2, multiprocessing_context="fork")
    with torch.no_grad():
        expected = torch.stack([model(X * i) for i in range(6)])
    assert torch.equal(torch.cat(list(loader)), expected)


# ------------------------------------------------------------------------------------------------------------- autograd


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_checkpointing(use_reentrant, per_channel):
    model = a_model(per_channel=per_channel)
    for module, found in ((model, []), (plain(model), [])):
        x = X.clone().requires_grad_()
        checkpoint(module, x, use_reentrant=use_reentrant).square().sum().backward()
        found += [x.grad, *(p.grad for p in module.parameters())]
        expected = gradients(plain(model))
        assert_equal(found[1:], expected)


def test_autocast_computes_as_decoded():
    model = a_model(per_channel=True)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = model(X), plain(model)(X)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_functional_calls_gradients_and_maps():
    model = a_model()
    other = plain(model)
    results = []
    for module in (model, other):
        parameters = {name: p.detach() for name, p in module.named_parameters()}
        buffers = dict(module.named_buffers())

        def loss(p, x, module=module, buffers=buffers):
            return functional_call(module, (p, buffers), (x,)).square().sum()

        gradient = torch.func.grad(loss)(parameters, X)
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, X[:, None])
        jacobian = torch.func.jacrev(lambda p, m=module, b=buffers: functional_call(m, (p, b), (X,)))(parameters)
        mapped = torch.func.vmap(lambda x, m=module, p=parameters, b=buffers: functional_call(m, (p, b), (x,)))(
            X[:, None]
        )
        results.append([functional_call(module, parameters, (X,)), mapped])
        for tree in (gradient, each, jacobian):
            results[-1] += [tree[name] for name in parameters]
    assert_equal([t.detach() for t in results[0]], [t.detach() for t in results[1]])


def test_a_map_over_a_weight_and_a_stack_of_models():
    weight = a_weight()
    assert torch.equal(torch.func.vmap(lambda row: row.sum())(weight), weight.to_float().sum(1))
    stacked, _ = torch.func.stack_module_state([a_model(), a_model(1)])
    assert torch.equal(stacked["0.weight"].detach()[1], a_model(1)[0].weight.to_float())


def test_double_backward():
    weight = nn.Parameter(a_weight(dtype=torch.float64))
    floats = weight.to_float().requires_grad_()
    results = []
    for leaf in (weight, floats):
        (first,) = torch.autograd.grad((leaf**3).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        results.append([first.detach(), second])
    assert_equal(*results)


def test_hooks():
    weight, seen = nn.Parameter(a_weight()), []
    weight.register_hook(lambda g: seen.append(type(g)) or g * 2)
    weight.register_post_accumulate_grad_hook(lambda p: seen.append(p))
    weight.sum().backward()
    assert seen[0] is torch.Tensor
    assert seen[1] is weight
    assert torch.equal(weight.grad, torch.full((6, 5), 2.0))


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_gradients_reach_the_parameter(kind):
    model = kind(10, 4, sparse=True, **({"mode": "sum"} if kind is nn.EmbeddingBag else {}))
    convert_model(model, lns8f5)
    other = plain(model)
    for module in (model, other):
        module(torch.tensor([[1, 1, 3]])).sum().backward()
        assert module.weight.grad.layout == torch.sparse_coo
    assert torch.equal(model.weight.grad.to_dense(), other.weight.grad.to_dense())


def test_nothing_keeps_a_weight_alive():
    """No cycle: codes are freed when the last name goes, without the collector."""
    gc.disable()
    try:
        weight = nn.Parameter(a_weight())
        view, result = weight[1:], (weight * 2).sum()
        references = [weakref.ref(weight), weakref.ref(weight.codes)]
        result.backward()
        del weight, view, result
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


def test_inference_mode():
    model = a_model()
    with torch.inference_mode():
        out = model(X)
        inside = a_weight()
        inside.fill_(1.0)
        copied = copy.deepcopy(model)
        model.load_state_dict(model.state_dict())
        fresh = nn.Linear(4, 2)
        convert_model(fresh, lns8f5, per_channel=True)
        fresh(X)
    assert inside.is_inference()
    assert torch.equal(out, plain(model)(X))
    assert (inside.to_float() == 1).all()
    assert codes_of(copied) == codes_of(model)
    assert_equal(gradients(model), gradients(plain(model)))


def test_a_traced_graph_computes_what_the_model_does():
    """make_fx puts the operations of decoding into a graph: it must be all of them."""
    from torch.fx.experimental.proxy_tensor import make_fx

    for per_channel in (False, True):
        model = a_model(per_channel=per_channel)
        with torch.no_grad():
            graph = make_fx(model)(X)
            assert torch.equal(graph(X), model(X))
            assert torch.equal(graph(X * 0.5), model(X * 0.5))


def test_symbolic_trace():
    model = a_model()
    assert torch.equal(torch.fx.symbolic_trace(model)(X * 0.5), model(X * 0.5))


@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning")
def test_torchscript_is_refused():
    """It could not save what it makes: torch reads the memory that a weight has not, which ends the process."""
    model = a_model()
    for _ in range(2):
        with pytest.raises(NotImplementedError, match=r"torch.jit cannot trace LNS weights: take torch.compile"):
            torch.jit.trace(model, X)
    for part in (model, nn.Sequential(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(NotImplementedError, match=r"torch.jit.script cannot compile a module with LNS weights"):
            torch.jit.script(part)
    assert model(X).shape == (2, 3)
    decoded = plain(model)
    for made in (torch.jit.trace(decoded, X), torch.jit.script(decoded)):
        assert torch.equal(made(X), decoded(X))
    model.load_state_dict(plain(a_model(1)).state_dict())
    with pytest.warns(UserWarning, match="plain floats"):
        model.load_state_dict(decoded.state_dict(), assign=True)
    assert torch.equal(torch.jit.script(model)(X), decoded(X))


def test_export_of_a_decoded_model():
    """Of the codes themselves: exact, or an error."""
    model = a_model()
    for module in (model, plain(model)):
        try:
            program = torch.export.export(module, (X,))
        except (TypeError, NotImplementedError, RuntimeError):
            assert module is model
            continue
        assert torch.equal(program.module()(X), model(X))


# ---------------------------------------------------------------------------------------- what torch does to parameters


def test_a_vector_of_all_parameters_and_back():
    model = a_model()
    before = codes_of(model)
    vector = nn.utils.parameters_to_vector(model.parameters())
    assert torch.equal(vector.detach(), nn.utils.parameters_to_vector(plain(model).parameters()).detach())
    nn.utils.vector_to_parameters(vector, model.parameters())
    assert codes_of(model) == before
    nn.utils.vector_to_parameters(-vector, model.parameters())
    assert_equal([p.to_float() for p in model.parameters()], [-p.detach() for p in plain_from(before)])
    assert all(isinstance(p, LNSWeight) for p in model.parameters())


def plain_from(codes: list[tuple]) -> list[torch.Tensor]:
    return [
        torch.from_numpy(lnsnum.decode(np.array(c, np.uint8), fmt, "float32", log_offset=offset))
        for c, offset, fmt in codes
    ]


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, parametrizations.spectral_norm], ids=["weight", "spectral"]
)
@pytest.mark.parametrize("order", ["convert first", "wrap first"])
def test_normalizing_parametrizations(wrap, order):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6))
    if order == "wrap first":
        wrap(model[0])
    convert_model(model, lns8f5)
    if order == "convert first":
        wrap(model[0])
    other = plain(model)
    torch.manual_seed(1)
    found = gradients(model)
    torch.manual_seed(1)
    assert_equal(found, gradients(other))


FLOATS_IN_PLACE = r"an LNSWeight of shape \(6, .\) becomes a plain tensor of floats, in place.*convert_model"


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2

    def right_inverse(self, x):
        return x / 2


class Scaled(nn.Module):
    def forward(self, x):
        return x * 1.5


def test_parametrizations_of_ones_own():
    model = a_model()
    values = model[0].weight.to_float()
    with pytest.warns(UserWarning, match=FLOATS_IN_PLACE):
        parametrize.register_parametrization(model[0], "weight", Doubled())
    assert torch.equal(model[0].weight.detach(), values)
    parametrize.remove_parametrizations(model[0], "weight")
    assert torch.equal(model[0].weight.detach(), values)
    model = a_model()
    parametrize.register_parametrization(model[0], "weight", Scaled())
    assert torch.equal(model[0].weight.detach(), values * 1.5)
    assert_equal(gradients(model), gradients(plain(model)))
    parametrize.remove_parametrizations(model[0], "weight", leave_parametrized=False)
    assert isinstance(model[0].weight, LNSWeight)
    assert torch.equal(model[0].weight.to_float(), values)
    parametrize.register_parametrization(model[0], "weight", Scaled())
    with pytest.warns(UserWarning, match=FLOATS_IN_PLACE):
        parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0].weight) is nn.Parameter
    assert torch.equal(model[0].weight.detach(), values * 1.5)


def test_exchanging_the_insides_of_tensors_says_what_becomes_of_codes():
    weight, floats = nn.Parameter(a_weight()), nn.Parameter(torch.ones(6, 5))
    codes = weight.codes
    with pytest.warns(UserWarning, match=FLOATS_IN_PLACE):
        torch.utils.swap_tensors(weight, floats)
    assert type(weight) is nn.Parameter
    assert torch.equal(weight.detach(), torch.ones(6, 5))
    assert floats.codes is codes
    other = nn.Parameter(a_weight(seed=1))
    torch.utils.swap_tensors(floats, other)  # codes for codes: nothing to say
    assert other.codes is codes


def test_pruning_masks():
    model = a_model()
    other = plain(model)
    for module in (model, other):
        prune.l1_unstructured(module[0], "weight", 0.5)
    assert_equal(gradients(model), gradients(other))
    prune.remove(model[0], "weight")
    assert isinstance(model[0].weight, LNSWeight)
    assert int((model[0].weight.codes == 0).sum()) == 12


def test_an_average_in_float_follows_the_weights():
    """Codes in eight bits lose most of an average: it is kept on the decoded model."""
    model = a_model()
    averaged = swa_utils.AveragedModel(plain(model), multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    expected = [p.to_float() for p in model.parameters()]
    averaged.update_parameters(model)
    for _ in range(5):
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.1)
        averaged.update_parameters(model)
        expected = [torch.lerp(e, p.to_float(), 1 - 0.9) for e, p in zip(expected, model.parameters(), strict=True)]
    found = list(averaged.module.parameters())
    assert all(type(p) is nn.Parameter for p in found)
    for p, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(p.detach(), e, rtol=1e-6)


def test_an_average_on_codes_is_right_on_average():
    """Each update is rounded stochastically: unbiased, and noisy by about a code."""
    model = nn.Linear(64, 64, bias=False)
    convert_model(model, lns8f5)
    with torch.no_grad():
        model.weight.codes.fill_(64)
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.99))
    averaged.update_parameters(model)
    value = float(model.weight.detach()[0, 0])
    with torch.no_grad():
        model.weight.codes.fill_(96)
    torch.manual_seed(0)
    for _ in range(20):
        averaged.update_parameters(model)
    floats = averaged.module.weight.to_float(torch.float64)
    assert isinstance(averaged.module.weight, LNSWeight)
    assert float(floats.mean()) == pytest.approx(value * (2 - 0.99**20), rel=0.005)
    assert float(floats.std()) > 0.01 * value


def test_normalization_statistics_are_computed():
    model = a_model().train()
    swa_utils.update_bn([X, X * 2], model)
    other = plain(a_model()).train()
    swa_utils.update_bn([X, X * 2], other)
    assert torch.equal(model[1].running_mean, other[1].running_mean)
