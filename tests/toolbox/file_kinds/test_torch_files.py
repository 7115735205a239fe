"""Files of torch.save give what torch.load gives, without torch; what a pickle would execute is never executed."""

import argparse
import collections
import contextlib
import datetime
import fractions
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from foreign_files import ARRAYS, Trap, agrees, archive_of, read, refused, tensor_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnsnum import LNSTensor, lns4f1, lns8f5, lns16f10
from lnsnum.files import single as single_file
from lnsnum.toolbox.conversion import convert_file
from lnsnum.toolbox.file_kinds import torch_files, torch_pickle, zip_members
from lnsnum.toolbox.selection import Selection
from lnsnum.toolbox.sources import open_source
from lnsnum.torch_bridge import LNSWeight, convert_model
from lnsnum.torch_bridge import weight as weight_module
from lnsnum.weight_file import WeightFileError, load_weights


@pytest.fixture(params=[1 << 20, 8], ids=["large blocks", "blocks of 8"], autouse=True)
def block(request, monkeypatch):
    """Blocks that no tensor fills, and blocks that many tensors cross."""
    for module in (single_file, torch_files):
        monkeypatch.setattr(module, "BLOCK", request.param)
    return request.param


def state():
    """A checkpoint with all that tensors can be: views, tied, nested, beside plain values."""
    base = torch.arange(60.0).reshape(5, 12)
    model = collections.OrderedDict(w=base, t=base.T, tied=base, s=base[1:, ::3], e=torch.ones(1).expand(4, 3))
    model["b"] = torch.tensor([[1.5, -2.0], [float("nan"), 3.0]], dtype=torch.bfloat16).T
    model["p"] = torch.nn.Parameter(torch.ones(2, 2))
    plain = {n: torch.from_numpy(a.copy()) for n, a in ARRAYS.items()}
    deep = torch.arange(2 * 3 * 40.0).reshape(40, 3, 2).permute(2, 1, 0)
    return {"model": model, "plain": plain, "opt": [{"m": torch.ones(3), "lr": 0.1}], 7: deep, "epoch": 3, "none": None}


def as_arrays(tensor):
    tensor = tensor.detach()
    return tensor.view(torch.int16).numpy().view("bfloat16") if tensor.dtype == torch.bfloat16 else tensor.numpy()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_file_of_torch_is_read(tmp_path, zipped):
    content = state()
    if not zipped:
        del content["plain"]["uint32"]  # torch cannot load it itself
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    kind, found, texts, skipped = read(tmp_path / "a.pt")
    expected = {f"model.{n}": t for n, t in content["model"].items()} | {"opt.0.m": torch.ones(3), "7": content[7]}
    expected |= {f"plain.{n}": t for n, t in content["plain"].items()}
    assert agrees(found, {name: as_arrays(tensor) for name, tensor in expected.items()})
    assert (kind, texts, skipped) == ("torch", {}, ("opt.0.lr", "epoch", "none"))


def test_a_single_tensor_has_the_name_of_its_file(tmp_path):
    torch.save(torch.ones(2, 2), tmp_path / "mask.pt")
    assert agrees(read(tmp_path / "mask.pt")[1], {"mask": np.ones((2, 2), np.float32)})


class Odd:
    """Some object of a program."""

    def __init__(self):
        self.x = torch.ones(2)


class Table(dict):
    """A dict of a program's own."""


def nothing():
    """A function of a program."""


ODD = {
    "a number of NumPy": np.float64(0.5),
    "an array of NumPy": np.arange(3),
    "arguments": argparse.Namespace(lr=0.1, betas=(0.9, 0.99)),
    "a path": pathlib.PurePosixPath("a/b"),
    "a time": datetime.datetime(2020, 1, 1),
    "a set": {1, 2},
    "a frozen set": frozenset("ab"),
    "a counter": collections.Counter("abca"),
    "a deque": collections.deque([1, 2]),
    "a range": range(3),
    "a fraction": fractions.Fraction(1, 3),
    "a function": nothing,
    "a class": Odd,
    "an object": Odd(),
    "a derived dict": Table(a=torch.ones(1)),
    "an exception": ValueError("a", 1),
    "a device": torch.device("cpu"),
    "a type": torch.float32,
    "a shape": torch.Size([1, 2]),
    "bytes": bytearray(b"abc"),
    "a long number": 1 << 200,
    "an ellipsis": ...,
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_one_odd_object_spoils_nothing(tmp_path, zipped, protocol):
    """Whatever stands beside tensors, also as a key, is not built; the tensors before and after it are read."""
    content = {"w": torch.arange(3.0), **ODD, "trap": Trap(tmp_path / "trapped"), ("a", 1): 2, None: 3, 1.5: 4, b"b": 5}
    content["b"] = torch.ones(2)
    torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    _, found, _, skipped = read(tmp_path / "a.pt")
    assert agrees(found, {"w": np.arange(3, dtype=np.float32), "b": np.ones(2, np.float32)})
    others = {"trap", "?", "None", "1.5", "b'b'"}
    assert {name.rpartition(".")[0] if name[-1].isdigit() and name != "1.5" else name for name in skipped} <= {
        *ODD,
        *others,
    }
    assert others <= set(skipped)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_what_has_no_tensors_by_name_says_what_it_has(tmp_path, zipped):
    for content, what in (
        (
            torch.nn.Linear(2, 2),
            "an object of torch.nn.modules.linear.Linear, which is not built: save the state_dict()",
        ),
        (
            {"model": torch.nn.Linear(2, 2), "epoch": 3},
            "an object of torch.nn.modules.linear.Linear, which is not built",
        ),
        (Trap(tmp_path / "trapped"), "an object of posix.mkdir, which is not built"),
        ([1, 2], "a value of the type list"),
        (3, "a value of the type int"),
    ):
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        assert f"it holds no tensors by name, but {what}" in refused(tmp_path / "a.pt")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.filterwarnings("ignore:.*")
def test_a_torchscript_program_is_refused_and_one_is_told_what_to_do(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")
    assert "a TorchScript program, not tensors: torch.save(torch.jit.load(path).state_dict()" in refused(
        tmp_path / "a.pt"
    )
    torch.save(torch.jit.load(tmp_path / "a.pt").state_dict(), tmp_path / "b.pt")
    assert sorted(read(tmp_path / "b.pt")[1]) == ["bias", "weight"]


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"x": torch.ones(2, dtype=torch.complex64)}, "is of complex64"),
        ({"x": torch.ones(2, 2).to_sparse()}, "sparse_coo"),
        ({"x": torch.ones(2).to(torch.float8_e4m3fn)}, "is of float8_e4m3fn"),
        ({"x": torch.ones(2, device="meta")}, "on meta"),
        ({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, "the name 'a.b'"),
        ([1, 2], "holds no tensors"),
        (3, "holds no tensors"),
    ],
)
def test_torch_files_without_usable_tensors_are_refused(tmp_path, content, what):
    torch.save(content, tmp_path / "a.pt")
    assert what in refused(tmp_path / "a.pt")


def test_damaged_torch_files_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(100)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q\x00.")
    assert "its member 'a/version' is missing" in refused(path)
    archive_of(path, [("a/data.pkl", b"\x80\x02}q\x00."), ("a/version", b"3")])
    assert read(path)[1] == {}
    archive_of(path, [("a/data.pkl", b"\x80\x02}q\x00"), ("a/version", b"3")])
    assert "it is damaged, no pickle of torch.save" in refused(path)
    torch.save({"w": torch.ones(100)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    assert "its storage '" in refused(path)
    assert "is cut off: it has 100 elements of float32" in refused(path)


def test_a_torch_file_with_a_damaged_member_is_refused_by_its_name(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(100), "b": torch.full((5,), 2.5)}, path)
    whole = path.read_bytes()
    for old, member in ((torch.full((5,), 2.5), "data/1"), (torch.ones(100), "data/0")):
        at = whole.index(old.numpy().tobytes())
        path.write_bytes(whole[:at] + b"!" + whole[at + 1 :])
        assert torch.load(path)  # as torch does not look
        message = refused(path)
        assert f"its member 'a/{member}' is damaged: the CRC-32 is another" in message
        assert "set_crc32_options(False)" in message
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1000))
    packed = bytearray(path.read_bytes())
    packed[42:46] = b"\xff\xff\xff\xff"
    path.write_bytes(packed)
    assert "damaged archive" in refused(path)


def test_a_torch_file_without_checksums_is_refused_and_one_is_told_why(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(100)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert "set_crc32_options(False) was called before torch.save" in refused(tmp_path / "a.pt")
    torch.save(torch.load(tmp_path / "a.pt"), tmp_path / "a.pt")
    assert agrees(read(tmp_path / "a.pt")[1], {"w": np.ones(100, np.float32)})


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_byte_of_a_member_is_checked_however_little_of_it_is_a_tensor(tmp_path, compression):
    torch.save({"first": torch.arange(100.0)[:3]}, tmp_path / "a.pt")
    recompressed(tmp_path / "a.pt", compression)
    assert agrees(read(tmp_path / "a.pt")[1], {"first": np.arange(3, dtype=np.float32)})
    whole = (tmp_path / "a.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        info = archive.getinfo("a/data/0")
    at = info.header_offset + 30 + len("a/data/0") + info.compress_size // 2
    (tmp_path / "a.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "damaged" in refused(tmp_path / "a.pt")


def recompressed(path, compression=zipfile.ZIP_DEFLATED):
    """The same members in another archive."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    return archive_of(path, members, compression)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_was_packed_anew_is_read(tmp_path, compression):
    torch.save(state(), tmp_path / "a.pt")
    _, expected, _, skipped = read(tmp_path / "a.pt")
    recompressed(tmp_path / "a.pt", compression)
    _, found, _, others = read(tmp_path / "a.pt")
    assert agrees(found, expected)
    assert others == skipped


def test_files_of_torch_need_no_torch(tmp_path):
    torch.save({"x": torch.ones(2), "h": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "a.pt")
    torch.save({"x": torch.ones(2)}, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    code = (
        "import sys\nfrom lnsnum.toolbox.sources import open_source\n"
        "for path in sys.argv[1:]:\n with open_source(path) as s: [list(s.blocks(n)) for n in s.names]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.pt", tmp_path / "b.pt"], check=True)


def test_a_file_of_another_order_of_bytes_is_read(tmp_path):
    numbers = {"f": torch.arange(5.0), "h": torch.ones(3, dtype=torch.bfloat16), "i": torch.arange(6).reshape(2, 3).T}
    torch.save(numbers, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    for i, tensor in enumerate(numbers.values()):
        size = tensor.element_size()
        members[f"a/data/{i}"] = np.frombuffer(members[f"a/data/{i}"], f"u{size}").byteswap().tobytes()
    members["a/byteorder"] = b"big"
    archive_of(tmp_path / "a.pt", members.items())
    assert agrees(read(tmp_path / "a.pt")[1], {name: as_arrays(tensor) for name, tensor in numbers.items()})


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_numbers_that_are_stored_with_other_signs(tmp_path, dtype):
    x = torch.arange(-3, 3).to(dtype)
    torch.save({"x": torch._neg_view(x), "y": torch._neg_view(x.reshape(2, 3).T)}, tmp_path / "a.pt")
    found = read(tmp_path / "a.pt")[1]
    assert agrees(found, {"x": np.negative(x.numpy()), "y": np.negative(x.numpy().reshape(2, 3).T)})


@given(
    st.lists(st.integers(0, 4), max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.int64, torch.bool]),
    st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_view_is_read_as_torch_has_it(tmp_path, block, shape, random, dtype, zipped):
    """Permuted, cut, stepped, expanded: strides of every kind, against torch itself."""
    x = torch.from_numpy(np.random.default_rng(1).integers(0, 2, shape)).to(dtype)
    for _ in range(random.randrange(3)):
        match random.randrange(4):
            case 0 if x.dim():
                x = x.permute(random.sample(range(x.dim()), x.dim()))
            case 1 if x.dim():
                x = x.narrow(axis := random.randrange(x.dim()), cut := random.randrange(x.shape[axis] + 1),
                             x.shape[axis] - cut)  # fmt: skip
            case 2 if x.dim():
                x = x[:: random.randrange(1, 3)]
            case 3:
                x = x.unsqueeze(0).expand(random.randrange(1, 3), *x.shape)
    torch.save({"x": x}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert agrees(read(tmp_path / "a.pt")[1], {"x": as_arrays(x)})


def test_a_view_of_nothing_may_begin_behind_the_end_of_its_storage(tmp_path):
    torch.save({"x": (x := torch.zeros(3)[::2][2:])}, tmp_path / "a.pt")
    assert x.storage_offset() == 4
    assert agrees(read(tmp_path / "a.pt")[1], {"x": as_arrays(x)})


# ---------------------------------------------------------------------------------------------- files that change


ARCHIVED = pytest.mark.parametrize(
    ("zipped", "compression"),
    [(True, None), (True, zipfile.ZIP_DEFLATED), (False, None)],
    ids=["zip", "compressed", "before 1.6"],
)


def large(path, zipped, compression):
    torch.save({"w": torch.rand(1 << 16)}, path, _use_new_zipfile_serialization=zipped)
    if compression is not None:
        recompressed(path, compression)
    return path


@ARCHIVED
def test_a_file_that_shrinks_while_it_is_read_is_cut_off(tmp_path, monkeypatch, zipped, compression):
    """A mapping of it would end the process: SIGBUS."""
    monkeypatch.setattr(torch_files, "BLOCK", 1 << 10)
    path = large(tmp_path / "a.pt", zipped, compression)
    with open_source(path) as source:
        blocks = source.blocks("w")
        next(blocks)
        os.truncate(path, 5000)
        with pytest.raises(WeightFileError, match=r"cut off|damaged|changed while it was read"):
            list(blocks)


@ARCHIVED
def test_a_file_that_is_written_to_while_it_is_read_is_refused(tmp_path, zipped, compression):
    path = large(tmp_path / "a.pt", zipped, compression)
    with open_source(path) as source:
        content = path.read_bytes()
        os.utime(path, ns=(0, 1))
        with open(path, "r+b") as file:
            file.write(content)
        with pytest.raises(WeightFileError, match=r"a\.pt: it was changed while it was read$"):
            list(source.blocks("w"))


@ARCHIVED
def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(tmp_path, monkeypatch, zipped, compression):
    monkeypatch.setattr(torch_files, "BLOCK", 1 << 10)
    path = large(tmp_path / "a.pt", zipped, compression)
    expected = torch.load(path)["w"].numpy() if compression is None else None
    with open_source(path) as source:
        blocks = source.blocks("w")
        found = [next(blocks).copy()]
        torch.save({"w": torch.ones(3)}, tmp_path / "b.pt")
        os.replace(tmp_path / "b.pt", path)
        found += [part.copy() for part in blocks]
    assert sum(part.size for part in found) == 1 << 16
    if expected is not None:
        assert agrees({"w": np.concatenate(found)}, {"w": expected})


# ------------------------------------------------------------------------------------------------- weights of ours


def weights():
    """Weights of a converted model, one scale or one for each channel, as parameters, views and bare tensors."""
    torch.manual_seed(1)
    x = torch.randn(4, 3)
    one = LNSWeight.from_float(x, lns8f5, log_offset="fit")
    channels = LNSWeight.from_float(x, lns16f10, log_offset=torch.tensor([[-3], [5], [0], [-9]]))
    return {
        "one": one,
        "channels": channels,
        "parameter": torch.nn.Parameter(one.clone(), requires_grad=False),
        "view": channels[1:3],
        "turned": one.T,
        "four": LNSWeight.from_float(x, lns4f1, log_offset="fit"),
    }


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_weights_of_a_state_dict_are_lns(tmp_path, zipped):
    content = weights()
    torch.save({**content, "b": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with open_source(tmp_path / "a.pt") as source:
        assert source.names == sorted([*content, "b"])
        for name, weight in content.items():
            told = source.describe(name)
            codes = np.concatenate([part.copy() for part in source.blocks(name)]).reshape(told.shape)
            found = LNSTensor(codes, told.fmt, log_offset=told.log_offset)
            expected = weight.to_lns()
            assert found.fmt == expected.fmt
            np.testing.assert_array_equal(found.codes, expected.codes)
            np.testing.assert_array_equal(found.log_offset, expected.log_offset)
        assert source.describe("b").fmt is None


def test_a_converted_model_becomes_a_weight_file(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    convert_model(model, "lns8f5")
    torch.save({"model": model.state_dict()}, tmp_path / "a.pt")
    convert_file(tmp_path / "a.pt", tmp_path / "w.safetensors", to="float32", select=Selection(strip_prefix="model."))
    decoded = load_weights(tmp_path / "w.safetensors")
    for name, weight in model.state_dict().items():
        np.testing.assert_array_equal(decoded[name], weight.to_float().numpy())


def test_weights_that_are_built_by_a_function_of_the_bridge_are_known_by_their_parts(tmp_path, monkeypatch):
    """Whatever function puts codes, format and scale together: it is not called."""

    def rebuild(*arguments):
        raise AssertionError(arguments)

    rebuild.__module__, rebuild.__qualname__ = "lnsnum.torch_bridge.weight", "_rebuild"
    monkeypatch.setattr(weight_module, "_rebuild", rebuild, raising=False)

    class Rebuilt:
        def __init__(self, *parts):
            self.parts = parts

        def __reduce__(self):
            return rebuild, self.parts

    codes = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    rest = (torch.float32, None, True, True, {})
    content = {
        "one": Rebuilt(codes, lns8f5, [-7, -7, 0], None, *rest),
        "channels": Rebuilt(codes, lns8f5, [-7, 2, 0], torch.tensor([[-7], [2]], dtype=torch.int32), *rest),
        "two formats": Rebuilt(codes, lns8f5, [0, 0, 0], None, lns4f1),
        "no scale": Rebuilt(codes, lns8f5),
    }
    torch.save(content, tmp_path / "a.pt")
    with open_source(tmp_path / "a.pt") as source:
        assert source.describe("one").log_offset == -7
        np.testing.assert_array_equal(source.describe("channels").log_offset, [[-7], [2]])
        assert source.describe("one").fmt == lns8f5
        assert source.skipped == ("two formats", "no scale")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda state: state.update(codes=torch.full((2,), 99, dtype=torch.uint8)), "lns4f1"),
        (lambda state: state.update(codes=torch.ones(2)), "its codes are of float32"),
        (lambda state: state.update(_offsets=torch.ones(3, dtype=torch.int32)), "broadcast"),
        (lambda state: state.update(_offsets=torch.ones(2)), "log_offset"),
        (lambda state: state.update(_span=[1 << 40, 1 << 40, 0]), "log_offset"),
        (lambda state: state.update(_span=[]), "an LNSWeight of a form that is not known"),
        (lambda state: state.update(fmt=3), "an LNSWeight of a form that is not known"),
        (lambda state: state.pop("codes"), "an LNSWeight of a form that is not known"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, change, what):
    state = {"codes": torch.ones(2, dtype=torch.uint8), "fmt": lns4f1, "_span": [0, 0, 0], "_offsets": None}
    change(state)
    shape = (torch.float32, (2,), (1,), 0, torch.strided, torch.device("cpu"), False)

    class Forged:
        def __reduce__(self):
            kind = LNSWeight
            return torch._tensor._rebuild_from_type_v2, (
                torch._utils._rebuild_wrapper_subclass,
                kind,
                (kind, *shape),
                state,
            )

    torch.save({"w": Forged()}, tmp_path / "a.pt")
    assert what in refused(tmp_path / "a.pt")


# ------------------------------------------------------------------------------------------------ hostile pickles


def forged(tmp_path, data, **members):
    """An archive around a pickle of one's own, with a storage of four bytes."""
    content = {"data.pkl": data, "version": b"3", "byteorder": b"little", "data/0": bytes(4), **members}
    return archive_of(tmp_path / "a.pt", [(f"a/{name}", part) for name, part in content.items()])


def test_the_forger_can_write(tmp_path):
    assert agrees(read(forged(tmp_path, tensor_of((1,), (1,))))[1], {"x": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tensor_of((2,), (1,)), "'x' is damaged: it reaches beyond its storage"),
        (tensor_of((1,), (1,), offset=1), "'x' is damaged: it reaches beyond its storage"),
        (tensor_of((2, 2), (0, 1)), "'x' is damaged: it reaches beyond its storage"),
        (tensor_of((2,), (1,), numel=2), "'x' is damaged: its storage has 4 bytes, and 8 are said of it"),
        (tensor_of((1,), (1,), key="9"), "'x' is damaged: its storage, the member 'a/data/9', is missing"),
        (
            tensor_of((1,), (1,), key="../version"),
            "'x' is damaged: its storage, the member 'a/data/../version'",
        ),
        (tensor_of((-1,), (1,)), "it is damaged, no pickle of torch.save"),
        (tensor_of((1,), (-1,)), "it is damaged, no pickle of torch.save"),
        (tensor_of((1,), (1,), offset=-1), "it is damaged, no pickle of torch.save"),
        (tensor_of((True,), (1,)), "it is damaged, no pickle of torch.save"),
        (tensor_of((1, 1), (1,)), "it is damaged, no pickle of torch.save"),
        (tensor_of((1 << 70,), (1,)), "it is damaged, no pickle of torch.save"),
        (tensor_of((1,), (1,), numel=-1), "it is damaged, no pickle of torch.save"),
        (tensor_of((1 << 62, 1 << 62, 0), (0, 0, 0)), "which NumPy cannot hold"),
        (tensor_of((1,) * 65, (1,) * 65), "of 65 dimensions"),
        (tensor_of((1 << 40,), (0,)), "'x' is expanded, 1099511627776 elements of 1: save it contiguous"),
        (tensor_of((1,), (1,), kind="OwnStorage"), "is of OwnStorage, which weight files cannot hold"),
        (b"", "it is damaged, no pickle of torch.save"),
        (b"\x80\x02.", "it is damaged, no pickle of torch.save"),
        (b"\x80\x02N0.", "it is damaged, no pickle of torch.save"),
        (b"\x80\x02]h\x05.", "it is damaged, no pickle of torch.save"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "it is damaged, no pickle of torch.save"),
        (b"I" + b"9" * 5000 + b"\n.", "it is damaged, no pickle of torch.save"),
        (b"(" * 1000 + b"t" * 1000 + b".", "nested more than 100 deep"),
        (b"]" + b"]a" * 200 + b".", "holds no tensors"),
        (pickle.dumps([[[]]] * 3), "holds no tensors"),
    ],
)
def test_pickles_that_say_what_cannot_be_are_refused(tmp_path, data, what):
    assert what in refused(forged(tmp_path, data))


def shared(depth, width=10):
    """Lists that hold the same list ten times, and so on: ten to the depth leaves in a few bytes."""
    value = [1]
    for _ in range(depth):
        value = [value] * width
    return value


def endless():
    value = []
    value += [value, value]
    return value


@pytest.mark.parametrize(
    "content", [shared(12), endless(), {"k" * 10_000: shared(5)}], ids=["shared", "endless", "long"]
)
def test_values_without_end_are_refused(tmp_path, monkeypatch, content):
    """Each limit stops it: counted in values and in characters of their names."""
    monkeypatch.setattr(torch_pickle, "MOST_NAMES", 10_000)
    monkeypatch.setattr(torch_pickle, "LONGEST_NAMES", 100_000)
    message = refused(forged(tmp_path, pickle.dumps(content, 2)))
    assert "holds more than 10,000 values, or 100,000 characters of names" in message or "nested more" in message


def test_a_pickle_has_a_limit_of_steps_and_of_bytes(tmp_path, monkeypatch):
    path = forged(tmp_path, b"\x80\x02" + b"]0" * 600 + b"}.")
    assert read(path)[1] == {}
    monkeypatch.setattr(torch_pickle, "MOST_STEPS", 1000)
    assert "more than 1,000 steps" in refused(path)
    monkeypatch.setattr(torch_files, "LARGEST_PICKLE", 1000)
    assert "its member 'a/data.pkl' unpacks to 1,204 bytes: 1,000 are read" in refused(path)
    torch.save({"x" * 2000: torch.ones(1)}, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    assert "it has more than 1,000 bytes" in refused(tmp_path / "b.pt")


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_of_a_pickle_is_read_or_refused(tmp_path, block, data):
    """In a sentence, with nothing executed and no memory taken on its word."""
    pickled = bytearray(PICKLED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(pickled) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                pickled[at] = data.draw(st.integers(0, 255))
            case 1:
                del pickled[at : at + data.draw(st.integers(1, 20))]
            case 2:
                pickled[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        if not pickled:
            break
    with contextlib.suppress(WeightFileError):
        read(forged(tmp_path, bytes(pickled)))


def _pickled():
    file = io.BytesIO()
    torch.save({"x": torch.ones(1), "y": [torch.nn.Parameter(torch.ones(1))], "n": {"a": 1, "b": None}}, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


PICKLED = _pickled()


# ---------------------------------------------------------------------------------------------------------- memory


def test_what_has_to_be_in_memory_as_a_whole_has_a_limit_where_it_is_compressed(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_members, "LARGEST_WHOLE", 1000)
    torch.save({"w": torch.zeros(20, 30).T}, tmp_path / "a.pt")
    assert agrees(read(tmp_path / "a.pt")[1], {"w": np.zeros((30, 20), np.float32)})
    message = refused(recompressed(tmp_path / "a.pt"))
    assert (
        "'w' has elements that do not lie in order, so it has to be in memory as a whole, and unpacks to 2,400"
        in message
    )
    assert "of what is compressed at most 1,000 are read" in message


def test_a_tensor_that_is_mostly_not_stored_is_refused(tmp_path):
    torch.save({"x": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "a.pt")
    with (
        open_source(tmp_path / "a.pt") as source,
        pytest.raises(WeightFileError, match="tensor 'x' is expanded, 1000000000000 elements of 1: save it contiguous"),
    ):
        source.describe("x")
