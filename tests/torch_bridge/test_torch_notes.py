"""Silent wrong results of torch that a weight without float memory invites, one test each; the mend is in the bridge.

Rows 1, 7 and 8 of them (writes keep the scale, DistributedDataParallel, averages) are in test_weight_scale,
test_weight_distributed and test_weight_doors.
"""

import os
import threading

import numpy as np
import pytest
import torch
from torch import nn

import lnsnum
from lnsnum import lns8f5, lns12f6, lns16f10
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model
from lnsnum.torch_bridge import weight as weight_module
from lnsnum.torch_bridge.kernels import codes as bridge_codes

torch.set_num_threads(1)


def a_parameter(shape=(6, 5), fmt=lns8f5, log_offset=-40, dtype=torch.float32) -> nn.Parameter:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return nn.Parameter(LNSWeight.from_float(x, fmt, log_offset=log_offset))


def step(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, gradient: float = 1.0) -> None:
    parameter.grad = torch.full(parameter.shape, gradient, dtype=parameter.dtype)
    optimizer.step()


# ----------------------------------------------------------------------- 1: a write over old floats never rescales it


@pytest.mark.filterwarnings("ignore:.*and was clipped")
def test_shards_that_write_apart_agree_with_the_whole():
    """Each half steps alone, far out of the range: the scale that they share is still one, and the whole's."""
    whole = a_parameter().detach()
    halves = [nn.Parameter(half) for half in whole.chunk(2)]
    for size, half in zip((1e9, 1e-9), halves, strict=True):
        step(half, torch.optim.SGD([half], lr=size))
    assert whole.log_offset == halves[0].log_offset == halves[1].log_offset == -40
    assert torch.equal(whole.to_float(), torch.cat([half.to_float() for half in halves]))


# ------------------------------------------------------------------------ 2: who writes codes tells autograd of it


@pytest.mark.parametrize(
    "write",
    [
        lambda p: step(p, Madam([p])),
        lambda p: step(p, torch.optim.SGD([p], lr=0.1)),
        lambda p: p.rescale_(0),
        lambda p: setattr(p, "data", torch.ones(6, 5)),
        lambda p: p.data.zero_(),
        lambda p: p.detach()[1].copy_(a_parameter().detach()[2]),
        lambda p: p.detach().copy_(a_parameter(log_offset=-3).detach()),
    ],
)
@pytest.mark.filterwarnings("ignore:.*and was clipped")
def test_a_write_of_codes_raises_the_version(write):
    parameter = a_parameter()
    out = (parameter * parameter).sum()
    version = parameter._version
    write(parameter)
    assert parameter._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


# ------------------------------------------------------- 3: the key of compiled graphs knows the code that decodes


def hash_of(weight: LNSWeight) -> str:
    return weight._stable_hash_for_caching()


def test_the_key_of_compiled_graphs_knows_version_scale_and_format(monkeypatch):
    base = a_parameter().detach()
    assert hash_of(base) == hash_of(a_parameter().detach())
    keys = {
        hash_of(base),
        hash_of(nn.Parameter(base)),
        hash_of(a_parameter(log_offset=-41).detach()),
        hash_of(a_parameter(fmt=lns12f6).detach()),
        hash_of(a_parameter(shape=(5, 6)).detach()),
        hash_of(base.t()),
        hash_of(base.to(torch.float64)),
        hash_of(LNSWeight(base.codes, lns8f5, torch.full((6, 1), -40))),
    }
    monkeypatch.setattr(weight_module.lnsnum, "__version__", "0.0.0")
    keys.add(hash_of(base))
    assert len(keys) == 9


# --------------------------------------------------------- 4: integer state of an optimizer stays integer when loaded


def test_integer_state_is_loaded_as_it_was_saved():
    parameter = a_parameter()
    optimizer = Madam([parameter])
    step(parameter, optimizer)
    saved = optimizer.state_dict()
    again = Madam([a_parameter()])
    again.load_state_dict(saved)
    integers = 0
    for old, new in zip(saved["state"].values(), again.state_dict()["state"].values(), strict=True):
        for name, value in old.items():
            if isinstance(value, torch.Tensor):
                assert new[name].dtype == value.dtype
                assert torch.equal(new[name], value)
                integers += not value.is_floating_point()
    assert integers


# --------------------------------------------------------------- 5: the same code decodes to the same float everywhere


@pytest.mark.parametrize("fmt", [lns8f5, lns16f10], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_decoding_does_not_depend_on_the_place_of_an_element(fmt, dtype):
    """Alone or in a long row: by table, where a vectorized exponential gives other last bits."""
    kind = torch.uint8 if fmt.bits == 8 else torch.int16
    codes = torch.arange(1 << fmt.bits)[:: max((1 << fmt.bits) // 512, 1)].to(kind)
    for log_offset in (-40, torch.arange(len(codes)) % 3):
        weight = LNSWeight(codes, fmt, log_offset, dtype)
        floats = weight.to_float()
        alone = torch.stack([weight[i].to_float() for i in range(len(codes))])
        shifted = torch.stack([weight.expand(3, -1)[1, i:][:17].to_float()[0] for i in range(len(codes))])
        for other in (alone, shifted):
            assert torch.equal(other.nan_to_num(7), floats.nan_to_num(7))


# --------------------------------------------------------------------- 6: a cast that autocast keeps is an old one


def test_autocast_sees_a_step_that_was_taken_after_it():
    """Within one region torch keeps the cast weight: forward, step and forward must be two regions."""
    model, x = nn.Linear(5, 6), torch.ones(2, 5)
    convert_model(model, lns8f5)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
    before.float().sum().backward()
    Madam(model.parameters(), lr=0.5).step()
    with torch.autocast("cpu", torch.bfloat16):
        after = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        expected = decode_model(model)(x)
    assert torch.equal(after, expected)
    assert not torch.equal(after, before)


def test_autocast_without_its_cache_sees_a_step_at_once():
    model, x = nn.Linear(5, 6), torch.ones(2, 5)
    convert_model(model, lns8f5)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        before = model(x)
        with torch.no_grad():
            model.weight.neg_()
        after = model(x)
    assert not torch.equal(after, before)


# ------------------------------------------------------------------------------- 9 and 10: NumPy and unsigned integers


def test_no_path_to_numpy_takes_the_right_to_resize():
    """`Tensor.numpy()` would; DLPack does not."""
    codes = torch.zeros(4, dtype=torch.uint8)
    assert codes.untyped_storage().resizable()
    weight = LNSWeight(codes, lns8f5, torch.arange(4))
    weight.to_float(), weight.to_lns(), weight.telemetry(), weight.rescale_(), weight.add_(1.0), repr(weight)
    assert codes.untyped_storage().resizable()
    assert weight._offsets.untyped_storage().resizable()
    assert bridge_codes.as_numpy(codes).ctypes.data == codes.data_ptr()


def test_sixteen_bits_are_stored_as_signed_ones_with_the_same_bits():
    weight = a_parameter(fmt=lns16f10).detach()
    assert weight.codes.dtype == torch.int16
    unsigned = weight.codes.numpy().view(np.uint16)
    assert (unsigned >= 1 << 15).any()
    np.testing.assert_array_equal(unsigned, weight.to_lns().codes)
    floats = lnsnum.decode(unsigned, lns16f10, "float32", log_offset=-40)
    np.testing.assert_array_equal(weight.to_float(), floats)


# ----------------------------------------------------------------------------------------- 11: files of other libraries


def test_safetensors_writes_no_file_of_nothing(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model = nn.Linear(5, 6)
    convert_model(model, lns8f5)
    for save in (
        lambda: safetensors.save_file(model.state_dict(), tmp_path / "m.safetensors"),
        lambda: safetensors.save_model(model, str(tmp_path / "m.safetensors")),
        lambda: safetensors.save(model.state_dict()),
    ):
        with pytest.raises((TypeError, RuntimeError, NotImplementedError, ValueError)):
            save()
    assert not (tmp_path / "m.safetensors").exists()
    safetensors.save_file(decode_model(model).state_dict(), tmp_path / "m.safetensors")
    loaded = safetensors.load_file(tmp_path / "m.safetensors")
    assert torch.equal(loaded["weight"], model.weight)


# -------------------------------------------------------- 12: a step of learning rate 0 and no gradient changes nothing


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_step_of_nothing_changes_nothing(per_channel):
    model = nn.Linear(5, 6)
    convert_model(model, lns8f5, per_channel=per_channel)
    before = [p.codes.clone() for p in model.parameters()]
    optimizer = Madam(model.parameters(), lr=0.0)
    for p in model.parameters():
        step(p, optimizer, 0.0)
    assert all(torch.equal(p.codes, codes) for p, codes in zip(model.parameters(), before, strict=True))


# ------------------------------------------------------------------------------------------- 13: threads and forks


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_decoding_in_threads_and_in_a_forked_child():
    """Enough elements for chunks; the pool of threads of the parent does not exist in the child."""
    weight = a_parameter((1 << 10, 1 << 10)).detach()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected, found = weight.to_float(), []
        workers = [threading.Thread(target=lambda: found.append(weight.to_float())) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert len(found) == 4
        assert all(torch.equal(floats, expected) for floats in found)
        reference = np.from_dlpack(expected)
        child = os.fork()
        if child == 0:  # by NumPy: torch's own threads are those of the parent
            os._exit(0 if np.array_equal(np.from_dlpack(weight.to_float()), reference) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(threads)
