"""Archives of arrays: none has a name that leads elsewhere, for us or for what unpacks it."""

import os
import zipfile
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsnum import LNSTensor, lns8f5, save_weights
from lnsnum.files.layout import Description
from lnsnum.toolbox.conversion import convert_file
from lnsnum.toolbox.file_kinds.npz_writer import save_npz, why_no_member

EVIL = {
    "../../evil": "leads out of the folder",
    "a/../../evil": "leads out of the folder",
    "..": None,
    "../": "leads out of the folder",
    "./a": "leads out of the folder",
    "/etc/passwd": "leads out of the folder",
    "a//b": "leads out of the folder",
    "..\\evil": "for parts of a path",
    "C:evil": "for parts of a path",
    "C:\\evil": "for parts of a path",
    "a:stream": "for parts of a path",
    "a\0b": "not visible",
    "a\nb": "not visible",
    "a\rb": "not visible",
    "a\x1b[31mb": "not visible",
    "a\u202eb": "not visible",
    "a\u2028b": "not visible",
    "NUL": "take it for a device",
    "nul.weight": "take it for a device",
    "a/con/b": "take it for a device",
    "com1": "take it for a device",
    "a./b": "for another name",
    "a /b": "for another name",
    "é" * 40_000: "too long",
    "": None,
    "a/b": None,
    "é.weight": None,
    "a b": None,
    ".hidden": None,
    "...": None,
    "console": None,
    "a.nul": None,
}
"""Names of tensors, and why no array of .npz is called so; None where it is."""


@pytest.mark.parametrize("name", EVIL, ids=lambda name: ascii(name[:20]))
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    save_weights(tmp_path / "in.safetensors", {"first": np.ones(2), name: LNSTensor.from_codes([1, 2], lns8f5)})
    if EVIL[name] is None:
        convert_file(tmp_path / "in.safetensors", tmp_path / "out.npz", to="float32")
        with np.load(tmp_path / "out.npz") as arrays:
            assert sorted(arrays) == sorted(["first", name])
        with zipfile.ZipFile(tmp_path / "out.npz") as archive:
            archive.extractall(tmp_path / "unpacked")
            assert all((tmp_path / "unpacked" / member).is_file() for member in archive.namelist())
        return
    with pytest.raises(
        ValueError, match=rf"cannot name an array in \.npz: .*{EVIL[name]}.*; \.safetensors takes any name$"
    ):
        convert_file(tmp_path / "in.safetensors", tmp_path / "out.npz", to="float32")
    assert os.listdir(tmp_path) == ["in.safetensors"]


def test_two_names_of_which_numpy_finds_one_are_refused(tmp_path):
    """np.load looks for a key among members first: that of 'x.npy' would be the array 'x'."""
    told = {name: Description((1,), "float64") for name in ("x", "x.npy")}
    with pytest.raises(ValueError, match=r"'x' and 'x\.npy' cannot both name arrays in \.npz"):
        save_npz(tmp_path / "a.npz", told, lambda name: [np.ones(1)])
    save_npz(tmp_path / "a.npz", {"x.npy": told["x"]}, lambda name: [np.ones(1)])
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays.files == ["x.npy"]
        assert arrays["x.npy"] == 1


@given(st.text(st.sampled_from("./\\:ab \n"), max_size=8))
def test_what_is_a_member_stays_in_its_folder(name):
    if why_no_member(name) is None:
        for path in (PurePosixPath(name + ".npy"), PureWindowsPath(name + ".npy")):
            assert not path.is_absolute()
            assert not path.anchor
            assert ".." not in path.parts
