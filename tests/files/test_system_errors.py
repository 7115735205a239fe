"""Where a file cannot be read or written, every public function says so in one sentence, with the path."""

import contextlib
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lnsnum import lns6f2, save_weights
from lnsnum.files.layout import Description, WeightFileError
from lnsnum.files.single import in_blocks
from lnsnum.toolbox.conversion import convert_file
from lnsnum.toolbox.difference import diff_weights
from lnsnum.toolbox.export import export
from lnsnum.toolbox.file_kinds.npz_writer import save_npz
from lnsnum.toolbox.inspection import inspect_weights
from lnsnum.toolbox.plots import plot_codes
from lnsnum.toolbox.sources import open_source
from lnsnum.toolbox.verification import verify_weights
from lnsnum.torch_bridge import load_model, save_model
from lnsnum.weight_file import iterate_weights, load_metadata, load_shapes, load_weights, replacing, save_tensors

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, pipes and permissions of POSIX")

ARRAY = np.ones((4, 4))


def opened(path):
    with open_source(path):
        raise AssertionError("there is something")


READERS = {
    "load_weights": load_weights,
    "iterate_weights": lambda path: list(iterate_weights(path)),
    "load_shapes": load_shapes,
    "load_metadata": load_metadata,
    "load_model": lambda path: load_model(path, torch.nn.Linear(1, 1)),
    "open_source": opened,
    "inspect_weights": inspect_weights,
    "inspect_weights of a source": lambda path: inspect_weights("good.safetensors", source=path),
    "verify_weights": verify_weights,
    "diff_weights, first": lambda path: diff_weights(path, "good.safetensors"),
    "diff_weights, second": lambda path: diff_weights("good.safetensors", path),
    "convert_file": lambda path: convert_file(path, "out.safetensors", fmt=lns6f2),
    "export": lambda path: export(path, "out", "npy"),
}


def told():
    return {"w": Description(ARRAY.shape, "float64")}


def blocks(name):
    return in_blocks(ARRAY.reshape(-1))


def text(path):
    with replacing(path) as temporary:
        temporary.write_text("text")


WRITERS = {
    "save_weights": lambda path: save_weights(path, {"w": ARRAY}),
    "save_weights of a set": lambda path: save_weights(path, {"a": ARRAY, "b": ARRAY}, max_shard_bytes=130),
    "save_tensors": lambda path: save_tensors(path, told(), blocks),
    "save_model": lambda path: save_model(path, torch.nn.Linear(1, 1)),
    "save_npz": lambda path: save_npz(path, told(), blocks),
    "replacing": text,
    "convert_file": lambda path: convert_file("good.safetensors", f"{path}.safetensors", fmt=lns6f2),
    "plot_codes": lambda path: plot_codes(Path(f"{path}.png"), inspect_weights("lns.safetensors")),
    "export": lambda path: export("good.safetensors", path, "npy"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where there are files, and what is none."""
    monkeypatch.chdir(tmp_path)
    save_weights("good.safetensors", {"w": ARRAY})
    convert_file("good.safetensors", "lns.safetensors", fmt=lns6f2)
    (tmp_path / "folder").mkdir()
    os.mkfifo("pipe")
    os.symlink("circle", "circle")
    os.symlink("nowhere", "dangling")
    return tmp_path


def sentence(function, path):
    """What a function says of a path."""
    with pytest.raises((OSError, WeightFileError)) as error:
        function(path)
    message = str(error.value)
    assert "\n" not in message
    assert "Errno" not in message
    return message


ABSENT = {
    "none": "none: there is no such file",
    "none.safetensors": "none.safetensors: there is no such file",
    "none.index.json": "none.index.json: there is no such file",
    "folder/none.pt": "folder/none.pt: there is no such file",
    "no/none": "no/none: there is no such file",
    "dangling": "dangling: there is no such file",
    "good.safetensors/none": "good.safetensors/none: a part of this path is a file, where a folder would have to be",
    "n" * 300: "nnn: it has a name that is longer than the disk takes: give a shorter one",
    "circle": "circle: its links lead in a circle",
    "folder": "folder is a folder, not a weight file",
    "folder/": "folder/ is a folder, not a weight file",
    ".": ". is a folder, not a weight file",
    "": "'': there is no such file",
    "pipe": "pipe is no regular file",
    "/dev/null": "/dev/null is no regular file",
    "a\0b": "'a\\x00b' has a NUL in it, and no file can be called so",
    "a\nb": "'a\\nb': there is no such file",
    "\udcff": "'\\udcff': there is no such file",
}


@pytest.mark.parametrize("path", ABSENT, ids=lambda path: ascii(path[:20]))
@pytest.mark.parametrize("reader", READERS)
def test_what_cannot_be_read_is_told_in_a_sentence(reader, path):
    assert sentence(READERS[reader], path).endswith(ABSENT[path])
    assert not os.path.lexists("out")
    assert not os.path.lexists("out.safetensors")


UNWRITABLE = {
    "no/out": ": there is no folder {}/no: make it first",
    "good.safetensors/out": "a part of this path is a file, where a folder would have to be",
    "n" * 300: "it has a name that is longer than the disk takes: give a shorter one",
    "circle/out": "its links lead in a circle",
    "a\0b": "has a NUL in it, and no file can be called so",
}


@pytest.mark.parametrize("path", UNWRITABLE, ids=lambda path: ascii(path[:20]))
@pytest.mark.parametrize("writer", WRITERS)
def test_what_cannot_be_written_is_told_in_a_sentence(folder, writer, path):
    before = sorted(os.listdir())
    message = sentence(WRITERS[writer], path)
    if writer == "export" and "NUL" not in UNWRITABLE[path] and path != "n" * 300:
        assert f"{path}: there is no folder {folder}/" in message
    else:
        assert UNWRITABLE[path].format(folder) in message
    assert message.startswith((path, repr(path)[:-1]))
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("reader", READERS)
def test_a_shard_whose_name_is_too_long_is_not_there(reader):
    Path("w.index.json").write_text(json.dumps({"weight_map": {"w": "n" * 300}}))
    if reader == "verify_weights":
        (message,) = verify_weights("w.index.json").problems
    else:
        message = sentence(READERS[reader], "w.index.json")
    assert "is not there" in message or "it has a name that is longer than the disk takes" in message


@contextlib.contextmanager
def as_nobody():
    """Whom only what is open to all is open."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can be somebody else")
@pytest.mark.parametrize("reader", READERS)
def test_what_may_not_be_read_is_told_in_a_sentence(folder, reader):
    os.chmod(folder, 0o755)
    for parent in [folder, *folder.parents][:-1]:
        if os.stat(parent).st_uid == 0 and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    Path("secret").write_bytes(Path("good.safetensors").read_bytes())
    os.chmod("secret", 0o600)
    os.chmod(folder, 0o777)
    with as_nobody():
        assert sentence(READERS[reader], "secret").endswith(
            "secret: permission denied: ask who may read and write it, and its folder"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can be somebody else")
@pytest.mark.parametrize("writer", WRITERS)
def test_what_may_not_be_written_is_told_in_a_sentence(folder, writer):
    for parent in [folder, *folder.parents][:-1]:
        if os.stat(parent).st_uid == 0 and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    with as_nobody():
        message = sentence(WRITERS[writer], "folder/out")
    assert message.startswith("folder/out")
    assert message.endswith(": permission denied: ask who may read and write it, and its folder")
    assert os.listdir("folder") == []


def test_a_disk_that_fails_while_it_is_read_is_told_by_the_name_of_what_was_read(monkeypatch):
    """Also while another file is written: it is not the one to look after."""
    from lnsnum.files import single

    def failing(self, data, name):
        with single.naming(self.path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(single.WeightFile, "_read_exactly", failing)
    for reader in ("load_weights", "inspect_weights", "export", "convert_file"):
        assert sentence(READERS[reader], "good.safetensors") == "good.safetensors: its disk failed: input/output error"
