"""Files that take the place of others: who may read what at which moment, what is refused, and in which words."""

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lnsnum import LNSTensor, lns6f2, save_weights
from lnsnum.files import atomic
from lnsnum.files.atomic import access_of, give, naming, replacing, target_of
from lnsnum.files.layout import Description
from lnsnum.study.journal import Journal
from lnsnum.tasks import TaskError
from lnsnum.toolbox.conversion import convert_file
from lnsnum.toolbox.export import export
from lnsnum.toolbox.file_kinds.npz_writer import save_npz
from lnsnum.toolbox.inspection import inspect_weights
from lnsnum.toolbox.plots import plot_codes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permissions and links of POSIX")

WEIGHTS = {"a": np.arange(20.0), "b": np.arange(20.0), "w": LNSTensor.from_float(np.ones((2, 2)), lns6f2)}

FULL = "no space is left on its disk"
NO_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser gives files away")


def text(path):
    with replacing(path) as temporary:
        temporary.write_text("new")


def shards(path):
    save_weights(path, WEIGHTS, max_shard_bytes=50)


def picture(path):
    source = path.with_name("source.safetensors")
    if not source.exists():
        save_weights(source, WEIGHTS)
    plot_codes(path, inspect_weights(source))


def converted(path):
    source = path.with_name("source.safetensors")
    if not source.exists():
        save_weights(source, WEIGHTS)
    convert_file(source, path, fmt=lns6f2)


def npz(path):
    save_npz(path, {"a": Description((20,), "float64")}, lambda _: [WEIGHTS["a"]])


WRITERS = {
    "text": (text, "out"),
    "weight file": (lambda path: save_weights(path, WEIGHTS), "out"),
    "set": (shards, "out"),
    "conversion": (converted, "out.safetensors"),
    "npz": (npz, "out.npz"),
    "picture": (picture, "out.png"),
}
"""What writes a file, and how the file may be called."""

SINGLE = {name: writer for name, writer in WRITERS.items() if name != "set"}
each = pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
each_of_one_file = pytest.mark.parametrize("writer", SINGLE.values(), ids=SINGLE)


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# -------------------------------------------------------------------------------------------------------- who may read


@contextlib.contextmanager
def watching(folder):
    """The modes of all hidden files, with whether it is a folder, before and after whatever changes modes or names."""
    seen = []

    def note():
        for entry in folder.rglob(".lnsnum-*"):
            status = entry.stat()
            seen.append((stat.S_ISDIR(status.st_mode), stat.S_IMODE(status.st_mode), status.st_size))

    def watched(function):
        def call(*arguments):
            note()
            result = function(*arguments)
            note()
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("chmod", "chown", "fsync", "replace", "rename"):
            patch.setattr(os, name, watched(getattr(os, name)))
        yield seen


@pytest.fixture
def umask():
    """Where all are let in by default."""
    before = os.umask(0)
    yield
    os.umask(before)


@each
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_what_is_private_is_so_at_every_moment(tmp_path, umask, writer, mode):
    """What has content has at no moment more permissions than the file that it replaces."""
    write, name = writer
    write(tmp_path / name)
    for path in tmp_path.iterdir():
        path.chmod(mode)
    with watching(tmp_path) as seen:
        write(tmp_path / name)
    filled = {found for _, found, size in seen if size}
    assert 0o600 in filled
    assert filled <= {0o600, mode}
    left = [path for path in tmp_path.iterdir() if path.name != "source.safetensors"]
    assert {mode_of(path) for path in left} == {mode}


def test_an_export_lets_nobody_else_in(tmp_path, umask):
    save_weights(tmp_path / "w", WEIGHTS)
    export(tmp_path / "w", tmp_path / "out", "npy")
    assert mode_of(tmp_path / "out") == 0o777
    (tmp_path / "out").chmod(0o750)
    for file in (tmp_path / "out").iterdir():
        file.chmod(0o640)
    (tmp_path / "out" / "manifest.json").chmod(0o600)
    with watching(tmp_path) as seen:
        export(tmp_path / "w", tmp_path / "out", "c", replace=True)
    assert {mode for is_folder, mode, _ in seen if is_folder} == {0o700, 0o750}
    assert mode_of(tmp_path / "out") == 0o750
    modes = {file.name: mode_of(file) for file in (tmp_path / "out").iterdir()}
    assert modes.pop("manifest.json") == 0o600
    assert set(modes.values()) == {0o640}


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o027, 0o750), (0o002, 0o775)])
def test_a_new_folder_has_the_permissions_of_new_folders(tmp_path, umask, mask, mode):
    os.umask(mask)
    export(None, tmp_path / "out", "readmemh", tables=[lns6f2])
    assert mode_of(tmp_path / "out") == mode


def test_a_temporary_file_is_made_where_there_is_none(tmp_path, monkeypatch):
    """Somebody else who guesses its name gets nothing written into a file, or through a link, of theirs."""
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda count: "0" * 2 * count)
    (tmp_path / f".lnsnum-{os.getpid()}-00000000.tmp").symlink_to(tmp_path / "theirs")
    with pytest.raises(FileExistsError), replacing(tmp_path / "out") as temporary:
        temporary.write_text("secret")
    assert not (tmp_path / "theirs").exists()


@NO_ROOT
@each
def test_the_superuser_leaves_files_to_their_owners(tmp_path, writer):
    write, name = writer
    write(tmp_path / name)
    for path in tmp_path.iterdir():
        os.chown(path, 1234, 4321)
        path.chmod(0o640)
    write(tmp_path / name)
    left = [path for path in tmp_path.iterdir() if path.name != "source.safetensors"]
    assert {(path.stat().st_uid, path.stat().st_gid, mode_of(path)) for path in left} == {(1234, 4321, 0o640)}


@NO_ROOT
def test_the_superuser_leaves_folders_to_their_owners(tmp_path):
    export(None, tmp_path / "out", "readmemh", tables=[lns6f2])
    for path in (tmp_path / "out", *(tmp_path / "out").iterdir()):
        os.chown(path, 1234, 4321)
    export(None, tmp_path / "out", "readmemh", tables=[lns6f2], replace=True)
    files = [tmp_path / "out", *(tmp_path / "out").iterdir()]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(1234, 4321)}


def test_who_cannot_keep_the_group_lets_no_other_group_in(tmp_path, monkeypatch):
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o664)
    (tmp_path / "new").touch()
    access = access_of(tmp_path, tmp_path / "old")._replace(owner=(os.geteuid(), os.getegid() + 1))

    def forbidden(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", forbidden)
    give(tmp_path / "new", access)
    assert mode_of(tmp_path / "new") == 0o604


# -------------------------------------------------------------------------------------------- what cannot be replaced


def fifo(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


PLACES = {
    "a folder": (Path.mkdir, "is no regular file: it cannot be replaced"),
    "a FIFO": (fifo, "is no regular file"),
    "a socket": (listening, "is no regular file"),
    "a link to a device": (lambda path: path.symlink_to("/dev/null"), "is no regular file"),
    "a link to a folder": (lambda path: path.symlink_to("."), "is no regular file"),
    "a link to what is open": (lambda path: path.symlink_to("/dev/stdout"), "is what a program has open"),
    "a link in a circle": (lambda path: path.symlink_to(path.name), "its links lead in a circle"),
    "a protected file": (lambda path: (path.touch(), path.chmod(0o444)), "is write-protected: make it writable first"),
}


def kept(path):
    """What tells one entry of a folder from another, and whether anything was written to it."""
    status = os.lstat(path)
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


@each
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_to_be_replaced_stays(tmp_path, monkeypatch, writer, place):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    write, name = writer
    make, sentence = PLACES[place]
    make(tmp_path / name)
    before = kept(tmp_path / name)
    with pytest.raises(OSError, match=sentence) as error:
        write(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert kept(tmp_path / name) == before
    assert {path.name for path in tmp_path.iterdir()} <= {name, "source.safetensors"}


@pytest.mark.parametrize("place", [place for place in PLACES if place != "a protected file"])
def test_a_journal_is_a_file(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    make, sentence = PLACES[place]
    make(tmp_path / "journal")
    with pytest.raises((OSError, TaskError), match=f"{sentence.partition(':')[0]}|is a folder: give another --out"):
        Journal(tmp_path / "journal")


@pytest.mark.parametrize(
    "name", ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/2"]
)
def test_what_a_program_has_open_is_not_exchanged(tmp_path, name):
    """With stdout in a file: /dev/stdout then is a link to that, and its place would be taken."""
    if not os.path.lexists(name):
        pytest.skip("there is no such name here")
    code = (
        "import sys, numpy, lnsnum\n"
        "try: lnsnum.save_weights(sys.argv[1], {'a': numpy.ones(2)})\n"
        "except OSError as error: print('refused:', error)"
    )
    with open(tmp_path / "out", "w") as out:
        subprocess.run([sys.executable, "-c", code, name], stdout=out, stderr=out, check=True)
    said = f"refused: {name} is what a program has open, no file of its own: give a file's path\n"
    assert (tmp_path / "out").read_text() == said
    assert os.listdir(tmp_path) == ["out"]


def test_the_index_of_a_set_is_protected_too(tmp_path):
    shards(tmp_path / "w")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "w.index.json").chmod(0o444)
    with pytest.raises(PermissionError, match=r"w\.index\.json is write-protected"):
        save_weights(tmp_path / "w", {name: array[:1] for name, array in WEIGHTS.items()}, max_shard_bytes=8)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_export_that_is_protected_stays(tmp_path):
    export(None, tmp_path / "out", "readmemh", tables=[lns6f2])
    (tmp_path / "out" / "manifest.json").chmod(0o400)
    with pytest.raises(PermissionError, match=r"manifest\.json is write-protected: make it writable first"):
        export(None, tmp_path / "out", "readmemh", tables=[lns6f2], replace=True)
    (tmp_path / "out" / "manifest.json").chmod(0o600)
    (tmp_path / "out").chmod(0o500)
    with pytest.raises(PermissionError, match="out is write-protected: make it writable first"):
        export(None, tmp_path / "out", "readmemh", tables=[lns6f2], replace=True)
    (tmp_path / "out").chmod(0o700)


def test_another_name_of_the_same_file_keeps_the_old_content(tmp_path):
    text(tmp_path / "one")
    os.link(tmp_path / "one", tmp_path / "two")
    with replacing(tmp_path / "one") as temporary:
        temporary.write_text("newer")
    assert (tmp_path / "two").read_text() == "new"
    assert (tmp_path / "one").read_text() == "newer"


@each_of_one_file
def test_links_stay_and_lead_to_what_is_written(tmp_path, writer):
    write, name = writer
    folder = tmp_path / "links"
    folder.mkdir()
    (tmp_path / "files").mkdir()
    (folder / name).symlink_to(f"../links/../files/{name}")  # there is nothing yet
    for _ in range(2):
        write(folder / name)
        assert (folder / name).is_symlink()
        assert (tmp_path / "files" / name).is_file()
    assert os.listdir(tmp_path / "files") == [name]


@each_of_one_file
def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path, writer):
    write, name = writer
    name = "n" * (255 - len(Path(name).suffix)) + Path(name).suffix
    for _ in range(2):
        write(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} - {"source.safetensors"} == {name}


@each
def test_a_name_that_is_too_long_is_refused(tmp_path, writer):
    write, name = writer
    with pytest.raises(OSError, match="it has a name that is longer than the disk takes: give a shorter one"):
        write(tmp_path / ("n" * 255 + Path(name).suffix if Path(name).suffix else "n" * 256))
    assert {path.name for path in tmp_path.iterdir()} <= {"source.safetensors"}


# ------------------------------------------------------------------------------------------------------ in which words


SENTENCES = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of this path is a file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOSPC: FULL,
    errno.EDQUOT: "your share of its disk is used up",
    errno.EFBIG: "it would be larger than a file may be here",
    errno.EROFS: "its disk is read-only",
    errno.ENAMETOOLONG: "it has a name that is longer",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "too many files are open",
    errno.EIO: "its disk failed",
    errno.ESTALE: "the system refuses it: ",
}


@pytest.mark.parametrize("code", SENTENCES, ids=errno.errorcode.get)
@pytest.mark.parametrize("names", ["nothing", "the temporary file", "another file"])
def test_what_the_system_says_becomes_a_sentence_about_a_file(tmp_path, code, names):
    named = {"nothing": None, "the temporary file": str(tmp_path / ".lnsnum-12-ab.tmp"), "another file": "b\nc"}[names]
    with (
        pytest.raises(OSError, match=r".") as raised,
        naming(tmp_path / "a\x1b"),
        naming("other"),
        naming(tmp_path / "a"),
    ):
        raise OSError(code, os.strerror(code), *([] if named is None else [named]))
    about = "'b\\nc'" if names == "another file" else str(tmp_path / "a")
    assert str(raised.value).startswith(f"{about}: {SENTENCES[code]}")
    assert "Errno" not in str(raised.value)
    assert raised.value.errno == code
    assert type(raised.value) is type(OSError(code, ""))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"out: there is no folder {tmp_path}/no: make it first$"):
        text(tmp_path / "no" / "out")


@pytest.mark.parametrize("path", ["", ".", "..", "/", "a\0b"])
def test_paths_that_are_none(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"is no regular file|has a NUL in it"):
        target_of(path)


FULL_DISK = """
import sys, numpy
from lnsnum.weight_file import save_weights
from lnsnum.toolbox.export import export
from lnsnum.toolbox.conversion import convert_file
from lnsnum import lns6f2
from pathlib import Path
folder = Path(sys.argv[1])
def attempt(do):
    try: do()
    except OSError as error: print(error)
big = {name: numpy.ones(1 << 16) for name in "abc"}
attempt(lambda: save_weights(folder / "one", big))
attempt(lambda: save_weights(folder / "set", big, max_shard_bytes=1 << 19))
attempt(lambda: convert_file(sys.argv[2], folder / "c.npz", to="float64"))
attempt(lambda: export(sys.argv[2], folder / "out", "npy"))
print(sorted(path.name for path in folder.iterdir()))
"""


@NO_ROOT
def test_a_full_disk_is_told_of_by_the_name_of_the_file(tmp_path):
    """A disk of 256 kB, which is there for one program alone."""
    save_weights(tmp_path / "in", {"w": LNSTensor(np.full((1 << 19,), 7, np.uint8), lns6f2)})
    (tmp_path / "disk").mkdir()
    script = (
        f'mount -t tmpfs -o size=256k none "{tmp_path}/disk" || exit 77; cd "{tmp_path}"; exec "$0" -c "$1" disk in'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, FULL_DISK], capture_output=True, text=True
    )
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip(f"no disk can be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    *said, left = done.stdout.splitlines()
    assert said == [f"disk/{name}: {FULL}: make room, or give a path on another" for name in
                    ("one", "set", "c.npz", "out")]  # fmt: skip
    assert left == "[]"
