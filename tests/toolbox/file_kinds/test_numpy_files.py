"""NumPy's files give what was put into them; headers and archives that claim too much are refused."""

import os
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from foreign_files import ARRAYS, RNG, Trap, agrees, archive_of, npy_of, read, refused

from lnsnum.files import single as single_file
from lnsnum.toolbox.file_kinds import numpy_files, zip_members
from lnsnum.toolbox.sources import open_source
from lnsnum.weight_file import WeightFileError


@pytest.fixture(params=[1 << 20, 8], ids=["large blocks", "blocks of 8"], autouse=True)
def block(request, monkeypatch):
    """Blocks that no tensor fills, and blocks that many tensors cross."""
    for module in (single_file, numpy_files):
        monkeypatch.setattr(module, "BLOCK", request.param)
    return request.param


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


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        (1 << 18, "array 'a' is damaged: it is cut off"),
        (
            1 << 20,
            "array 'a' has its elements in Fortran order, so it has to be in memory as a whole",
        ),
    ],
)
def test_memory_is_not_taken_on_the_word_of_an_archive(tmp_path, columns, what):
    """An array in Fortran order that is read whole, and of which both headers say that it has 512 MB, or 2 TB."""
    rows = 1 << 19 if columns > 1 << 18 else 1 << 9
    head = f"{{'descr': '<f4', 'fortran_order': True, 'shape': ({rows}, {columns}), }}".encode()
    head = b"\x93NUMPY\1\0" + struct.pack("<H", len(head) + 1) + head + b"\n"
    forged_directory(tmp_path / "a.npz", head + bytes(4000), len(head) + 4 * rows * columns)
    assert what in refused(tmp_path / "a.npz")


def forged_directory(path, content, claimed):
    """An archive whose directory says that its member, an array a, unpacks to more than it does."""
    archive_of(path, [("a.npy", content)], zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    at = data.rindex(b"PK\1\2")
    assert data[at + 24 : at + 28] == struct.pack("<I", len(content))
    extra = struct.pack("<HHQ", 1, 8, claimed)
    central = data[at : at + 24] + b"\xff\xff\xff\xff" + data[at + 28 : at + 30] + struct.pack("<H", len(extra))
    central += data[at + 32 : at + 46] + b"a.npy" + extra
    end = data[data.rindex(b"PK\5\6") :]
    end = end[:12] + struct.pack("<I", len(central)) + end[16:]
    path.write_bytes(data[:at] + central + end)


def test_what_is_compressed_in_fortran_order_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_members, "LARGEST_WHOLE", 1000)
    array = np.asfortranarray(np.zeros((20, 30), np.float32))
    np.savez(tmp_path / "a.npz", x=array)
    np.save(tmp_path / "x.npy", array)
    assert agrees(read(tmp_path / "a.npz")[1], {"x": array})
    assert agrees(read(tmp_path / "x.npy")[1], {"x": array})
    np.savez_compressed(tmp_path / "a.npz", x=array)
    message = refused(tmp_path / "a.npz")
    assert "array 'x' has its elements in Fortran order, so it has to be in memory as a whole, and unpacks" in message
    assert "of what is compressed at most 1,000 are read" in message


HOSTILE_HEADS = {
    "a header of 4 GB": (b"\2\0" + b"\xff\xff\xff\xff" + b" " * 20_000, "its header has 4,294,967,295 bytes"),
    "a header above the limit": (b"\1\0" + struct.pack("<H", 10_001) + b" " * 10_001, "its header has 10,001 bytes"),
    "brackets": (b"\1\0" + struct.pack("<H", 9000) + b"(" * 9000, "is damaged"),
    "minus signs": (b"\1\0" + struct.pack("<H", 9000) + b"-" * 8999 + b"1", "is damaged"),
    "a power": (b"\1\0" + struct.pack("<H", 9) + b"9**9**9**", "is damaged"),
    "a call": (b"\1\0" + struct.pack("<H", 16) + b"__import__('os')", "is damaged"),
    "NULs": (b"\1\0" + struct.pack("<H", 100) + bytes(100), "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE_HEADS)
def test_hostile_headers_are_refused(tmp_path, name):
    head, what = HOSTILE_HEADS[name]
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY" + head)
    assert what in refused(tmp_path / "x.npy")
    archive_of(tmp_path / "a.npz", [("x.npy", b"\x93NUMPY" + head)], zipfile.ZIP_DEFLATED)
    assert what in refused(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("shape", "what"),
    [("(4611686018427387904, 4611686018427387904, 0)", "NumPy can hold"), ("(True,)", "its shape"), ("(1.0,)", "shape"),
     ("[1]", "shape"), ("(1, 10**9)", "is damaged"), ("(" + "1, " * 65 + ")", "NumPy can hold")],
)  # fmt: skip
def test_shapes_that_cannot_be(tmp_path, shape, what):
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + b"\1")
    assert what in refused(tmp_path / "x.npy")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, lambda path, x: np.save(path, x)])
def test_files_that_change_while_they_are_read(tmp_path, monkeypatch, save):
    monkeypatch.setattr(numpy_files, "BLOCK", 1 << 10)
    path = tmp_path / ("x.npy" if save not in (np.savez, np.savez_compressed) else "a.npz")
    save(path, x=np.random.default_rng(1).random(1 << 16))
    whole = path.read_bytes()
    with open_source(path) as source:
        blocks = source.blocks("x")
        next(blocks)
        os.truncate(path, 5000)
        with pytest.raises(WeightFileError, match=r"cut off|damaged"):
            list(blocks)
    path.write_bytes(whole)
    with open_source(path) as source:
        os.utime(path, ns=(0, 1))
        with pytest.raises(WeightFileError, match="it was changed while it was read"):
            list(source.blocks("x"))
    with open_source(path) as source:
        (tmp_path / "other").write_bytes(b"hello")
        os.replace(tmp_path / "other", path)
        assert sum(part.size for part in source.blocks("x")) == 1 << 16
