"""Archives whose directories claim what is not so are refused before anything is read on their word."""

import os
import struct
import zipfile

import numpy as np
import pytest
from foreign_files import archive_of, npy_of, read, refused

from lnsnum.toolbox.file_kinds import zip_members

GOOD = npy_of(np.arange(20.0))


def entries(content):
    """Where the entries of the directory begin."""
    at, found = content.find(b"PK\1\2"), []
    while at >= 0:
        found.append(at)
        at = content.find(b"PK\1\2", at + 4)
    return found


def changed(path, members, offset, value, which=-1):
    """An archive, a field of an entry of its directory changed."""
    content = bytearray(archive_of(path, members).read_bytes())
    at = entries(content)[which] + offset
    content[at : at + len(value)] = value
    path.write_bytes(content)
    return path


def test_an_untouched_archive_is_read(tmp_path):
    _, found, _, _ = read(archive_of(tmp_path / "a.npz", [("x.npy", GOOD), ("y.npy", GOOD)]))
    assert sorted(found) == ["x", "y"]


def test_members_that_overlap_are_refused(tmp_path):
    """Each of very many entries may say that its bytes are those of the first member."""
    path = changed(tmp_path / "a.npz", [("x.npy", GOOD), ("x.npz", GOOD)], 42, struct.pack("<I", 0))
    content = path.read_bytes()
    assert entries(content)
    assert "overlaps another, or the directory" in refused(path)
    content = content[: entries(content)[1]] + content[entries(content)[1] :].replace(b"x.npz", b"x.npy")
    path.write_bytes(content)
    assert "its member 'x.npy' occurs twice" in refused(path)
    path = changed(tmp_path / "a.npz", [("x.npy", GOOD)], 20, struct.pack("<I", 10_000))
    assert "its member 'x.npy' overlaps another, or the directory" in refused(path)


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (8, b"\1\0", "encrypted"),
        (10, struct.pack("<H", 9), "compressed as NumPy does not"),
        (10, struct.pack("<H", 99), "compressed as NumPy does not"),
        (42, struct.pack("<I", 1 << 31), "overlaps"),
        (42, struct.pack("<I", 5), "damaged"),
        (24, struct.pack("<I", 1 << 30), "has 1073741696 bytes, and its shape (20,) takes 160"),
        (24, struct.pack("<I", 1), "array 'x' is damaged"),
        (16, b"\0\0\0\0", "CRC"),
    ],
)
def test_entries_that_are_not_so_are_refused(tmp_path, offset, value, what):
    assert what in refused(changed(tmp_path / "a.npz", [("x.npy", GOOD)], offset, value))


def test_members_twice_are_refused_in_files_of_torch_too(tmp_path):
    members = [("a/data.pkl", b"\x80\x02}."), ("a/version", b"3"), ("a/data/0", b"1234"), ("a/data/1", b"5678")]
    archive_of(tmp_path / "a.pt", members)
    assert read(tmp_path / "a.pt")[1] == {}
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes().replace(b"a/data/1", b"a/data/0"))
    assert "its member 'a/data/0' occurs twice" in refused(tmp_path / "a.pt")


def test_a_directory_has_a_limit(tmp_path, monkeypatch):
    path = archive_of(tmp_path / "a.npz", [(f"{i}.npy", GOOD) for i in range(50)])
    monkeypatch.setattr(zip_members, "LARGEST_DIRECTORY", 50 * (46 + 6))
    assert len(read(path)[1]) == 50
    monkeypatch.setattr(zip_members, "LARGEST_DIRECTORY", 2000)
    assert "a damaged archive: its directory has more than 2,000 bytes, the most that is read" in refused(path)


def test_a_directory_that_claims_to_be_large_is_refused(tmp_path):
    """A sparse file of 4 GB, all of which is said to be the directory."""
    path = tmp_path / "a.npz"
    with open(path, "wb") as file:
        file.write(b"PK\3\4")
        file.truncate((1 << 32) - 100)
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, size - 4, 4, 0))
    assert "its directory has more than 16,777,216 bytes" in refused(path)


@pytest.mark.parametrize("count", [0, 0xFFFF])
@pytest.mark.parametrize("size", [0, 1, 1 << 40, (1 << 64) - 1])
def test_directories_of_64_bits_that_are_not_so_are_refused(tmp_path, count, size):
    path = archive_of(tmp_path / "a.npz", [("x.npy", GOOD)])
    content = path.read_bytes()
    at = content.rindex(b"PK\5\6")
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, entries(content)[0])
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = content[at : at + 8] + struct.pack("<HHIIH", count, count, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(content[:at] + record + locator + end)
    if size == 0:
        assert read(path)[1] == {}
    else:
        assert "archive" in refused(path)


def test_a_member_that_lies_elsewhere_than_its_name_says_is_refused(tmp_path):
    path = archive_of(tmp_path / "a.npz", [("x.npy", GOOD)])
    path.write_bytes(path.read_bytes().replace(b"x.npy", b"y.npy", 1))
    assert "damaged" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_files_of_torch_that_are_compressed_by_other_methods_are_refused(tmp_path, method):
    archive_of(tmp_path / "a.pt", [("a/data.pkl", b"\x80\x02}."), ("a/version", b"3")], method)
    assert "a/data.pkl' is damaged: it is compressed by a method that is neither NumPy's nor" in refused(
        tmp_path / "a.pt"
    )
