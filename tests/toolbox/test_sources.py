"""Files of every kind give what was put into them, block by block; what cannot be read is refused in one sentence."""

import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from lnsnum import LNSTensor, encode, lns8f5
from lnsnum.files import single as single_file
from lnsnum.toolbox import sources
from lnsnum.toolbox.file_kinds import numpy_files, torch_files
from lnsnum.toolbox.sources import open_source
from lnsnum.weight_file import WeightFileError, save_weights

RNG = np.random.default_rng(3)

ARRAYS = {
    "float64": RNG.standard_normal((5, 7)),
    "float32": RNG.standard_normal((3, 4, 5)).astype(np.float32),
    "float16": RNG.standard_normal(9).astype(np.float16),
    "int64": np.arange(-3, 3).reshape(2, 3),
    "int8": np.arange(-4, 4, dtype=np.int8),
    "uint32": np.arange(4, dtype=np.uint32),
    "bool": np.array([True, False, True]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "five": RNG.standard_normal((2, 1, 3, 2, 2)),
    "a/b\x1b[31m é": np.ones((2, 2), np.float32),
}
"""What NumPy, torch and safetensors can all hold."""


@pytest.fixture(params=[1 << 20, 8], ids=["large blocks", "blocks of 8"], autouse=True)
def block(request, monkeypatch):
    """Blocks that no tensor fills, and blocks that many tensors cross."""
    for module in (single_file, numpy_files, torch_files):
        monkeypatch.setattr(module, "BLOCK", request.param)
    return request.param


def read(path):
    """Kind, arrays by name, texts and what was skipped."""
    arrays = {}
    with open_source(path) as source:
        assert source.names == sorted(source.names)
        for name in source.names:
            told = source.describe(name)
            blocks = []
            for part in source.blocks(name):
                assert part.ndim == 1
                assert 0 < part.size <= single_file.BLOCK
                assert part.dtype == told.dtype
                assert part.dtype.isnative
                blocks.append(part.copy())
            joined = np.concatenate(blocks) if blocks else np.empty(0, told.dtype)
            arrays[name] = joined.reshape(told.shape)
        return source.kind, arrays, source.texts, source.skipped


def agrees(found, expected):
    """Whether two sets of arrays are alike, to the bit."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        native = np.asarray(array, array.dtype.newbyteorder("="), order="C")
        assert found[name].shape == native.shape, name
        assert found[name].dtype == native.dtype, name
        assert found[name].tobytes() == native.tobytes(), name
    return True


def refused(path):
    with pytest.raises(WeightFileError) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message
    assert "\x1b" not in message
    return message


# ---------------------------------------------------------------------------------------------------- safetensors


def test_a_plain_safetensors_file_is_read(tmp_path):
    arrays = ARRAYS | {"bfloat16": np.ones((3, 3), ml_dtypes.bfloat16)}
    save_file(arrays, tmp_path / "a.safetensors", metadata={"format": "pt"})
    kind, found, texts, skipped = read(tmp_path / "a.safetensors")
    assert agrees(found, arrays)
    assert (kind, texts, skipped) == ("safetensors", {"format": "pt"}, ())


def test_the_content_decides_and_not_the_ending(tmp_path):
    save_file({"x": ARRAYS["float32"]}, tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=ARRAYS["float32"])
    os.rename(tmp_path / "b.npz", tmp_path / "b.pt")
    torch.save({"x": torch.ones(2)}, tmp_path / "c.npy")
    assert [read(tmp_path / name)[0] for name in ("a.npz", "b.pt", "c.npy")] == ["safetensors", "npz", "torch"]


def test_a_set_of_plain_files_is_read_by_its_index_and_by_its_name(tmp_path):
    halves = list(ARRAYS.items())[:4], list(ARRAYS.items())[4:]
    where = {}
    for i, half in enumerate(halves):
        save_file(dict(half), tmp_path / f"m-{i}.safetensors", metadata={"format": "pt", "part": str(i)})
        where |= {name: f"m-{i}.safetensors" for name, _ in half}
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    for path in (index, tmp_path / "m.safetensors"):
        kind, found, texts, _ = read(path)
        assert agrees(found, ARRAYS)
        assert (kind, texts) == ("safetensors", {"format": "pt"})
    index.write_text(json.dumps({"weight_map": {**where, "more": "m-0.safetensors"}}))
    assert "lacks the tensor 'more'" in refused(index)
    index.write_text(json.dumps({"weight_map": {k: v for k, v in where.items() if k != "float64"}}))
    assert "'float64'" in refused(index)
    index.write_text(json.dumps({"weight_map": {**where, "more": "../m-9.safetensors"}}))
    assert "no plain name" in refused(index)
    index.write_text(json.dumps({"weight_map": {**where, "more": "m-9.safetensors"}}))
    assert "'m-9.safetensors' is not there" in refused(index)


@pytest.mark.parametrize("shard_bytes", [None, 50])
def test_a_weight_file_of_ours_is_read_with_its_formats(tmp_path, shard_bytes):
    codes = encode(ARRAYS["float32"], lns8f5)
    weights = {"w": LNSTensor(codes, lns8f5), "b": ARRAYS["float64"]}
    save_weights(tmp_path / "w.safetensors", weights, metadata={"a": "b"}, max_shard_bytes=shard_bytes)
    kind, found, texts, _ = read(tmp_path / "w.safetensors")
    assert agrees(found, {"w": codes, "b": ARRAYS["float64"]})
    assert (kind, texts) == ("lnsnum", {"a": "b"})
    with open_source(tmp_path / "w.safetensors") as source:
        assert source.describe("w").fmt == lns8f5
        assert source.describe("b").fmt is None


def test_damaged_safetensors_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": np.ones(4), "t": np.ones(2, bool)}, path)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[:-1], whole + b"\0", whole[:40]):
        path.write_bytes(damaged)
        assert "no safetensors file" in refused(path)
    path.write_bytes(whole[:-1] + b"\2")
    assert "bytes other than 0 and 1" in refused(path)
    header = b'{"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    assert "F8_E4M3" in refused(path)
    save_weights(path, {"x": np.ones(4)})
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert "damaged: its checksum" in refused(path)


# ---------------------------------------------------------------------------------------------------------- NumPy


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_archive_is_read(tmp_path, save):
    arrays = ARRAYS | {
        "fortran": np.asfortranarray(RNG.standard_normal((4, 6, 3))),
        "big": RNG.standard_normal((3, 5)).astype(">f4"),
        "both": np.asfortranarray(RNG.integers(0, 99, (3, 5)).astype(">i8")),
        "": np.arange(3),
    }
    save(tmp_path / "a.npz", **arrays)
    kind, found, texts, _ = read(tmp_path / "a.npz")
    assert agrees(found, arrays)
    assert (kind, texts) == ("npz", {})


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_npy_file_is_read_by_its_stem(tmp_path, version):
    with open(tmp_path / "some.weight.npy", "wb") as file:
        np.lib.format.write_array(file, ARRAYS["float32"], version=version)
    kind, found, _, _ = read(tmp_path / "some.weight.npy")
    assert kind == "npy"
    assert agrees(found, {"some.weight": ARRAYS["float32"]})


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.array([{}], object), "is of object"),
        (np.ones(2, complex), "is of complex128"),
        (np.array(["a"]), "is of <U1"),
        (np.array([b"a"]), "is of |S1"),
        (np.array(["2020-01-01"], "datetime64[D]"), "is of datetime64[D]"),
        (np.zeros(2, [("x", "f4")]), "is of [('x', '<f4')]"),
        (np.zeros(2, [("ω", "f4")]), "only structured arrays"),
        (np.ones(2, ml_dtypes.bfloat16), "NumPy writes bfloat16 so"),
        (np.ones(2, np.longdouble), "is of float128"),
    ],
)
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.filterwarnings("ignore:Custom dtypes are saved")
def test_arrays_that_are_no_tensors_are_refused_by_name(tmp_path, array, what):
    np.savez(tmp_path / "a.npz", bad=array)
    message = refused(tmp_path / "a.npz")
    assert what in message
    assert "'bad'" in message


def test_an_object_array_executes_nothing(tmp_path):
    np.savez(tmp_path / "a.npz", bad=np.array([Trap(tmp_path / "trapped")], object))
    refused(tmp_path / "a.npz")
    assert not (tmp_path / "trapped").exists()


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def archive_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy_of(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_archives_are_refused(tmp_path):
    path, good = tmp_path / "a.npz", npy_of(np.arange(20.0))
    text = good.replace(b"(20,)", b"(2**9,)").replace(b"  \n", b"\n", 1)
    cases = [
        ([("x.npy", good[:-1])], "takes 160"),
        ([("x.npy", good + b"\0")], "takes 160"),
        ([("x.npy", good.replace(b"(20,)", b"(-2,)"))], "shape"),
        ([("x.npy", good.replace(b"(20,)", b"(99,)"))], "takes 792"),
        ([("x.npy", good.replace(b"'shape'", b"'shade'"))], "damaged"),
        ([("x.npy", text)], "damaged"),
        ([("x.npy", b"hello")], "damaged"),
        ([("x.npy", b"")], "damaged"),
        ([("x.npy", b"\x93NUMPY\7\7" + good[8:])], "version 7.7"),
        ([("readme.txt", b"hello")], "'readme.txt' is no .npy array"),
        ([("x.npy", good), ("x.npy", good)], "occurs twice"),
    ]
    for members, what in cases:
        assert what in refused(archive_of(path, members)), members
    assert "compressed as NumPy does not" in refused(archive_of(path, [("x.npy", good)], zipfile.ZIP_BZIP2))
    whole = archive_of(path, [("x.npy", good)]).read_bytes()
    path.write_bytes(whole.replace(good[-8:], b"damaged!"))
    assert "CRC" in refused(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged archive" in refused(path)
    compressed = bytearray(archive_of(path, [("x.npy", good)], zipfile.ZIP_DEFLATED).read_bytes())
    compressed[60:90] = bytes(30)
    path.write_bytes(compressed)
    assert "damaged" in refused(path)


# ---------------------------------------------------------------------------------------------------------- torch


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
@pytest.mark.parametrize("touched", [1 << 24, 64], ids=["mapped once", "mapped often"])
def test_a_file_of_torch_is_read(tmp_path, monkeypatch, zipped, touched):
    monkeypatch.setattr(torch_files, "TOUCHED", touched)
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


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_execute_something_is_refused_and_executes_nothing(tmp_path, zipped):
    content = {"w": torch.ones(2), "trap": Trap(tmp_path / "trapped")}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert "could execute anything" in refused(tmp_path / "a.pt")
    assert not (tmp_path / "trapped").exists()
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert "torch.nn.modules.linear.Linear" in refused(tmp_path / "a.pt")


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
    assert "torch cannot load it" in refused(path)
    torch.save({"w": torch.ones(100)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    assert "torch cannot load it" in refused(path)


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


def test_checksums_are_checked_once_however_often_a_file_is_opened_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_files, "TOUCHED", 1)
    checked, loaded, check, load = [], [], torch_files._check_members, torch_files._load
    monkeypatch.setattr(torch_files, "_check_members", lambda path: checked.append(path) or check(path))
    monkeypatch.setattr(torch_files, "_load", lambda path, mmap: loaded.append(path) or load(path, mmap=mmap))
    torch.save({"w": torch.ones(100), "b": torch.ones(5)}, tmp_path / "a.pt")
    read(tmp_path / "a.pt")
    assert len(checked) == 1 < len(loaded)


def test_a_torch_file_that_is_replaced_meanwhile_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_files, "TOUCHED", 1)
    monkeypatch.setattr(torch_files, "BLOCK", 8)
    torch.save({"w": torch.ones(100)}, tmp_path / "a.pt")
    with open_source(tmp_path / "a.pt") as source:
        blocks = source.blocks("w")
        next(blocks)
        torch.save({"w": torch.ones(100)}, tmp_path / "b.pt")
        os.replace(tmp_path / "b.pt", tmp_path / "a.pt")
        with pytest.raises(WeightFileError, match="replaced while it was read"):
            list(blocks)


# -------------------------------------------------------------------------------------------------- unknown kinds


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"x": 1}), b"GGUF" + bytes(100), b"\x89HDF\r\n\x1a\n"])
def test_a_file_of_an_unknown_kind_is_refused(tmp_path, content):
    path = tmp_path / "a\x1b.bin"
    path.write_bytes(content)
    assert "its kind is not known; safetensors (.safetensors, an index), NumPy" in refused(path)


def test_folders_and_missing_files_are_refused(tmp_path):
    assert "is a folder" in refused(tmp_path)
    with pytest.raises(FileNotFoundError), open_source(tmp_path / "nothing.pt"):
        pass
    assert "kind is not known" in refused(archive_of(tmp_path / "a.zip", [("readme.txt", b"hello")]))


def test_only_files_of_torch_import_torch(tmp_path):
    save_file({"x": np.ones(2)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", x=np.ones(2))
    code = (
        "import sys\nfrom lnsnum.toolbox.sources import open_source\n"
        "for path in sys.argv[1:]:\n with open_source(path) as s: [list(s.blocks(n)) for n in s.names]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.safetensors", tmp_path / "a.npz"], check=True)


def test_the_magic_number_is_that_of_torch():
    number = torch.serialization.MAGIC_NUMBER
    assert pickle.dumps(number, protocol=2) == sources._TORCH_BEFORE_1_6 + b"."


def test_memory_is_not_taken_on_the_word_of_an_archive(tmp_path):
    """An array in Fortran order that is read whole, and of which both headers say that it has 2 TB."""
    head = b"{'descr': '<f4', 'fortran_order': True, 'shape': (524288, 1048576), }"
    head = b"\x93NUMPY\1\0" + struct.pack("<H", len(head) + 1) + head + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", head + bytes(4000))
    content = (tmp_path / "a.npz").read_bytes()
    length, forged = struct.pack("<I", len(head) + 4000), struct.pack("<I", 0xFFFFFFFF)
    at = content.rindex(b"PK\1\2")
    assert content[at + 24 : at + 28] == length
    extra = struct.pack("<HHQ", 1, 8, len(head) + (1 << 41))
    central = content[at : at + 24] + forged + content[at + 28 : at + 30] + struct.pack("<H", len(extra))
    central += content[at + 32 : at + 46] + b"a.npy" + extra
    end = content[content.rindex(b"PK\5\6") :]
    end = end[:12] + struct.pack("<I", len(central)) + end[16:]
    (tmp_path / "a.npz").write_bytes(content[:at] + central + end)
    with open_source(tmp_path / "a.npz") as source, pytest.raises(WeightFileError, match="array 'a' is cut off"):
        for _ in source.blocks("a"):
            pass


def test_a_tensor_that_is_mostly_not_stored_is_refused(tmp_path):
    torch.save({"x": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "a.pt")
    with (
        open_source(tmp_path / "a.pt") as source,
        pytest.raises(WeightFileError, match="tensor 'x' is expanded, 1000000000000 elements of 1: save it contiguous"),
    ):
        source.describe("x")
