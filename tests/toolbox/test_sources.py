"""Files of every kind give what was put into them, block by block; what cannot be read is refused in one sentence."""

import json
import os
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from foreign_files import ARRAYS, agrees, archive_of, read, refused
from safetensors.numpy import save_file

from lnsnum import LNSTensor, encode, lns8f5
from lnsnum.files import single as single_file
from lnsnum.toolbox import sources
from lnsnum.toolbox.file_kinds import numpy_files, torch_files
from lnsnum.toolbox.sources import open_source
from lnsnum.weight_file import save_weights


@pytest.fixture(params=[1 << 20, 8], ids=["large blocks", "blocks of 8"], autouse=True)
def block(request, monkeypatch):
    """Blocks that no tensor fills, and blocks that many tensors cross."""
    for module in (single_file, numpy_files, torch_files):
        monkeypatch.setattr(module, "BLOCK", request.param)
    return request.param


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


def test_no_file_needs_torch(tmp_path):
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
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert sources._TORCH_BEFORE_1_6.match(pickle.dumps(number, protocol=protocol))
