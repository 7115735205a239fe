"""Small files that unpack to much, or name very many things: what reading them takes, in programs of their own."""

import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from foreign_files import tensor_of

from lnsnum.files import sharded
from lnsnum.files.sharded import MOST_FILES
from lnsnum.toolbox.export import export
from lnsnum.toolbox.inspection import inspect_weights
from lnsnum.toolbox.verification import verify_weights
from lnsnum.weight_file import WeightFileError, load_weights, save_weights

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")

MEGABYTES = 64

CODE = """
import re, sys
from lnsnum.toolbox.sources import open_source

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024

def read(path):
    try:
        with open_source(path) as source:
            return sum(part.size for name in source.names for part in source.blocks(name))
    except ValueError as error:
        return str(error)

read(sys.argv[1])  # so that all is imported
before = peak()
print(read(sys.argv[2]))
print(peak() - before)
"""


def zeros(archive, name, first=b"", megabytes=MEGABYTES):
    with archive.open(name, "w", force_zip64=True) as file:
        file.write(first)
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


def head(shape, fortran=False):
    text = f"{{'descr': '<f4', 'fortran_order': {fortran}, 'shape': {shape}, }}\\n".replace("\\n", "\n").encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def npz(archive):
    zeros(archive, "x.npy", head((MEGABYTES << 18,)))


def npz_in_fortran_order(archive):
    zeros(archive, "x.npy", head((1 << 10, MEGABYTES << 18), fortran=True))


def npz_with_a_long_header(archive):
    zeros(archive, "x.npy", b"\x93NUMPY\2\0" + struct.pack("<I", MEGABYTES << 20))


def torch_file(archive):
    archive.writestr("a/data.pkl", tensor_of((MEGABYTES << 18,), (1,), numel=MEGABYTES << 18))
    archive.writestr("a/version", b"3")
    zeros(archive, "a/data/0")


def torch_file_with_a_long_pickle(archive):
    zeros(archive, "a/data.pkl", b"\x80\x02X" + struct.pack("<I", 100 << 20), megabytes=100)
    archive.writestr("a/version", b"3")


def torch_file_with_a_long_order_of_bytes(archive):
    archive.writestr("a/data.pkl", b"\x80\x02}.")
    archive.writestr("a/version", b"3")
    zeros(archive, "a/byteorder")


BOMBS = {
    "npz": (npz, str(MEGABYTES << 18)),
    "npz in Fortran order": (npz_in_fortran_order, "bytes, and its shape"),
    "npz with a long header": (npz_with_a_long_header, "at most 10,000 are read"),
    "torch": (torch_file, str(MEGABYTES << 18)),
    "torch with a long pickle": (torch_file_with_a_long_pickle, "bytes: 100,000,000 are read"),
    "torch with a long order of bytes": (torch_file_with_a_long_order_of_bytes, "bytes: 16 are read"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_unpacks_to_much_takes_little_memory(tmp_path, bomb):
    make, what = BOMBS[bomb]
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
        make(archive)
    assert os.path.getsize(tmp_path / "a") < 1 << 18
    ending = "pt" if "torch" in bomb else "npz"
    os.rename(tmp_path / "a", tmp_path / f"a.{ending}")
    if ending == "pt":
        with zipfile.ZipFile(tmp_path / "small", "w") as archive:
            archive.writestr("a/data.pkl", tensor_of((1,), (1,)))
            archive.writestr("a/version", b"3")
            archive.writestr("a/data/0", bytes(4))
    else:
        np.savez(tmp_path / "small.npz", x=np.ones(1))
        os.rename(tmp_path / "small.npz", tmp_path / "small")
    done = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / "small", tmp_path / f"a.{ending}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said, grown = done.stdout.splitlines()
    assert what in said
    assert int(grown) < MEGABYTES // 2


def test_an_index_of_very_many_files_is_refused(tmp_path):
    """16 MB can name hundreds of thousands of files: none of them is looked for."""
    index = tmp_path / "w.safetensors.index.json"
    said = f"the index names {MOST_FILES + 1} files: at most {MOST_FILES} are read"
    index.write_text(json.dumps({"weight_map": {f"{i}": f"{i}.s" for i in range(MOST_FILES + 1)}}))
    for read in (load_weights, inspect_weights, lambda path: export(path, tmp_path / "out", "npy")):
        with pytest.raises(WeightFileError, match=said):
            read(index)
    (problem,) = verify_weights(index).problems
    assert said in problem
    index.write_text(json.dumps({"weight_map": {f"{i}": f"{i}.s" for i in range(MOST_FILES)}}))
    with pytest.raises(WeightFileError, match=r"its shard '0\.s' is not there"):
        load_weights(index)


def test_no_set_is_written_that_readers_would_refuse(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded, "MOST_FILES", 3)
    weights = {name: np.ones(4) for name in "abcd"}
    with pytest.raises(ValueError, match="the set would have 4 files, and readers take 3: make shards larger"):
        save_weights(tmp_path / "w", weights, max_shard_bytes=32)
    assert os.listdir(tmp_path) == []
    save_weights(tmp_path / "w", weights, max_shard_bytes=64)
    assert sorted(load_weights(tmp_path / "w")) == list("abcd")
