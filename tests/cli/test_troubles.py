"""Whatever is wrong with a path, a library or a disk, a command ends in one sentence of ours.

And whatever a name has in it, a terminal shows it and does not obey.
"""

import errno
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_command
from safetensors.numpy import save_file

from lnsnum import LNSTensor, lns8f5
from lnsnum.cli.app import _Console, printable
from lnsnum.files.atomic import naming
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.digits import load_digits
from lnsnum.tasks.troubles import EXTRAS, in_words
from lnsnum.torch_bridge import convert_model, save_model
from lnsnum.weight_file import save_weights

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")

JOURNAL = Path(__file__).parents[2] / "docs" / "results" / "study.jsonl"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with one sound file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    model = Classification(load_digits()).network()
    convert_model(model, "lns8f5")
    save_model(folder / "w", model, metadata={"lnsnum.task": "classification"})
    save_file({"w": np.ones((4, 4), np.float32)}, folder / "floats")
    (folder / "journal").symlink_to(JOURNAL)
    return folder


@pytest.fixture
def command(tmp_path, capsys, monkeypatch, good):
    """The command within this process, in a folder with links to the sound files."""
    for file in good.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    yield lambda *arguments: run_command(capsys, monkeypatch, *arguments, folded=False)
    torch.set_num_threads(1)


INPUTS = {
    "evaluate": ["evaluate", "BAD"],
    "inspect": ["inspect", "BAD"],
    "inspect --source": ["inspect", "w", "--source", "BAD"],
    "verify": ["verify", "BAD"],
    "diff A": ["diff", "BAD", "w"],
    "diff B": ["diff", "w", "BAD"],
    "convert": ["convert", "BAD", "out.safetensors", "--format", "lns8f5"],
    "convert --to": ["convert", "BAD", "out.safetensors", "--to", "float32"],
    "export": ["export", "BAD", "--to", "c", "--out", "exported"],
    "report": ["report", "BAD"],
    "train --resume": ["train", "--resume", "BAD"],
    "train images": ["train", "--steps", 1, "--data", "BAD"],
    "train text": ["train", "--steps", 1, "--task", "words", "--data", "BAD"],
    "train image": ["train", "--steps", 1, "--task", "regression", "--data", "BAD"],
    "evaluate --data": ["evaluate", "w", "--data", "BAD"],
    "study --data": ["study", "--problem", "cifar10-cnn", "--data", "cifar10=BAD"],
}
"""Commands that read BAD."""

READ_MORE = {"inspect --source", "diff A", "diff B", "export", "evaluate --data"}
"""Those that look at other files, or at the place of their output, before."""

OUTPUTS = {
    "convert": ["convert", "floats", "BAD", "--format", "lns8f5"],
    "export": ["export", "w", "--to", "c", "--out", "BAD"],
    "inspect --plot": ["inspect", "w", "--plot", "BAD"],
    "report --plots": ["report", "journal", "--plots", "BAD"],
    "train": ["train", "--steps", 1, "--out", "BAD"],
    "train --plot": ["train", "--steps", 1, "--plot", "BAD"],
    "study": ["study", "--problem", "digits", "--part", "bits", "--out", "BAD"],
    "study --dry-run": ["study", "--problem", "digits", "--part", "bits", "--out", "BAD", "--dry-run"],
}
"""Commands that write BAD."""


BAD_INPUTS = {
    "missing": ("nothing", lambda path: None),
    "a folder": ("folder", lambda path: path.mkdir()),
    "a file as a folder": ("file/x", lambda path: path.parent.touch()),
    "a link to nothing": ("link", lambda path: path.symlink_to("nowhere")),
    "links in a circle": ("link", lambda path: path.symlink_to(path)),
    "too long": ("x" * 300, lambda path: None),
    "empty": ("empty", lambda path: path.touch()),
    "a device": ("/dev/null", lambda path: None),
    "a pipe that nobody writes": ("pipe", os.mkfifo),
    "zeros without end": ("/dev/zero", lambda path: None),
    "an escape": ("\x1b[31mred\nline", lambda path: None),
    "bytes that are no text": ("\udcff\udcfe", lambda path: None),
}
BAD_OUTPUTS = {
    "no folder": ("nowhere/x.png", lambda path: None),
    "a file as a folder": ("file/x.png", lambda path: path.parent.touch()),
    "too long": ("x" * 300 + ".png", lambda path: None),
    "links in a circle": ("link.png", lambda path: path.symlink_to(path)),
    "a device": ("/dev/null", lambda path: None),
    "an escape": ("\x1b[31m/red\nline", lambda path: None),
}


def check_sentence(ended, path, *, code=(2,)):
    got, out, error = ended
    assert got in code, out + error
    assert error.count("\n") == 1, error
    assert error.startswith("error: ")
    assert "Errno" not in out + error
    assert printable(path)[:40] in error.replace("'", "")
    assert all(letter.isprintable() or letter == "\n" for letter in out + error)


@pytest.mark.parametrize("kind", BAD_INPUTS)
@pytest.mark.parametrize("name", INPUTS)
def test_paths_that_cannot_be_read(command, tmp_path, name, kind):
    path, make = BAD_INPUTS[kind]
    make(tmp_path / path)
    before = sorted(tmp_path.iterdir())
    arguments = [str(argument).replace("BAD", path) for argument in INPUTS[name]]
    ended = command(*arguments)
    if name == "verify" and ended[0] == 1:  # a file with a problem
        assert ended[2] == ""
        return
    check_sentence(ended, path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in OUTPUTS
        for kind in BAD_OUTPUTS
        if name != "report --plots" or kind not in ("no folder", "an escape")  # it makes the folder
    ],
)
def test_paths_that_cannot_be_written(command, tmp_path, name, kind):
    path, make = BAD_OUTPUTS[kind]
    path = path.replace(".png", ".safetensors") if name == "convert" else path
    make(tmp_path / path)
    before = sorted(tmp_path.iterdir())
    check_sentence(command(*(str(argument).replace("BAD", path) for argument in OUTPUTS[name])), path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", [name for name in INPUTS if name not in READ_MORE])
def test_files_that_this_user_may_not_read(command, tmp_path, name):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "file").write_bytes(b"x")
    (tmp_path / "closed").chmod(0)
    arguments = [str(argument).replace("BAD", "closed/file") for argument in INPUTS[name]]
    is_root = os.geteuid() == 0
    command(*arguments)  # nobody else can compile what is imported by it
    if is_root:  # who may read everything
        for folder in (tmp_path, *tmp_path.parents):  # however deep: processes side by side have one more each
            if folder.stat().st_uid == 0 and folder.is_relative_to(Path(tempfile.gettempdir())):
                folder.chmod(folder.stat().st_mode | 0o055)
        os.seteuid(65534)
    try:
        ended = command(*arguments)
    finally:
        if is_root:
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o755)
    check_sentence(ended, "closed/file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [["inspect", "w"], ["inspect", "w", "--json"], ["verify", "w"], ["--version"]])
def test_a_full_disk_behind_stdout(good, arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "lnsnum.cli", *arguments]
        done = subprocess.run(command, cwd=good, stdout=full, stderr=subprocess.PIPE, text=True)
    sentence = "stdout: no space is left on its disk: make room, or give a path on another"
    assert (done.returncode, done.stderr) == (2, f"error: {sentence}\n")


def test_metadata_that_is_nested_deeply(command, tmp_path):
    for text in ("[" * 100_000, '{"a":' * 100_000, '{"options": ' + "[" * 100_000):
        save_weights(tmp_path / "deep", {}, metadata={"lnsnum.task": "classification", "lnsnum.run": text})
        for arguments in (["evaluate", "deep"], ["train", "--resume", "deep"]):
            check_sentence(command(*arguments), "deep")
        for arguments in (["inspect", "deep"], ["verify", "deep"], ["diff", "deep", "deep"]):
            assert command(*arguments)[0] == 0


# ----------------------------------------------------------------------------------------------------- what is missing


def extras():
    """Which libraries an extra brings, extras of extras among them, by pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    of = project["optional-dependencies"]

    def all_of(extra):
        found = set()
        for wanted in of[extra]:
            if wanted.startswith("lnsnum["):
                found |= set().union(*map(all_of, wanted.removeprefix("lnsnum[").removesuffix("]").split(",")))
            else:
                found.add(wanted.split(">")[0].lower())
        return found

    return {extra: all_of(extra) for extra in of}


PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow"}
"""Names of packages, where they are not those of the library."""


def test_each_library_is_in_the_extra_that_is_named():
    known = extras()
    for library, extra in EXTRAS.items():
        if library != "scipy":  # which scikit-learn brings
            assert PACKAGES.get(library, library) in known[extra]
    brought = set().union(*(known[extra] for extra in set(EXTRAS.values())))
    assert brought <= {PACKAGES.get(library, library) for library in EXTRAS}


COMMANDS = {
    "evaluate": ["evaluate", "w"],
    "inspect": ["inspect", "w", "--source", "w"],
    "inspect --plot": ["inspect", "w", "--plot", "x.png"],
    "verify": ["verify", "w"],
    "diff": ["diff", "w", "w"],
    "convert": ["convert", "floats", "out.safetensors", "--format", "lns8f5"],
    "export": ["export", "w", "--to", "readmemh", "--tables", "lns8f5", "--out", "exported"],
    "report": ["report", "journal"],
    "report --plots": ["report", "journal", "--plots", "plots"],
    "train": ["train", "--steps", 1],
    "train --plot": ["train", "--steps", 1, "--plot", "x.png"],
    "train --tensorboard": ["train", "--steps", 1, "--tensorboard", "events"],
    "train text": ["train", "--steps", 1, "--task", "words"],
    "train image": ["train", "--steps", 1, "--task", "regression"],
    "study": ["study", "--dry-run", "--problem", "digits", "--part", "bits"],
    "certify": ["certify", "lns4f1"],
}
ALONE = {"train --tensorboard": "tensorboard"}
"""Commands that are tried without one library alone, which may be missing."""
SLOW = {"train", "train text", "train image", "study"}
TRAINING = {"torch", "sklearn", "scipy"}
"""Without which no run begins."""
NEEDS_TORCH = {"evaluate", "train", "train --plot", "train text", "train image", "study"}

LACKING = """
import io, json, runpy, sys
from contextlib import redirect_stderr, redirect_stdout
library, commands = json.loads(sys.argv[1])
sys.modules[library] = None
from lnsnum.cli import main
told = {}
for name, arguments in commands.items():
    sys.argv = ["lnsnum", *map(str, arguments)]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
        try:
            main()
        except SystemExit as ending:
            told[name] = ending.code or 0, error.getvalue()
print(json.dumps(told))
"""


@pytest.mark.thorough
@pytest.mark.parametrize("library", [library for library in EXTRAS if library not in ("typer", "rich")])
def test_a_missing_library_is_named_with_its_extra(command, tmp_path, library):
    """In a process that lacks it, each command does without, or says in one sentence what to install."""
    commands = {name: arguments for name, arguments in COMMANDS.items() if library in TRAINING or name not in SLOW}
    commands = {name: arguments for name, arguments in commands.items() if ALONE.get(name, library) == library}
    done = subprocess.run(
        [sys.executable, "-c", LACKING, json.dumps([library, commands])],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told.keys() == commands.keys()
    refused = {name for name, (code, _) in told.items() if code}
    for name in refused:
        code, error = told[name]
        assert (code, error.count("\n"), error[:7]) == (2, 1, "error: "), error
        assert f"pip install 'lnsnum[{EXTRAS[library]}]'" in error, error
    if library == "torch":
        assert refused == NEEDS_TORCH
    assert bool(refused) == (library != "hypothesis")


def test_other_errors_of_import_are_told_as_they_are():
    assert in_words(ImportError("images need Pillow")) == "images need Pillow"
    assert in_words(ModuleNotFoundError("No module named 'x'", name="x")) == "No module named 'x'"


def test_a_library_that_lacks_another_is_told_by_what_is_missing():
    """SymPy, which torch needs, has words of its own for that; ours stay as they are."""
    for told, sentence in {
        "SymPy now depends on mpmath": "this needs mpmath, which is not installed: pip install 'lnsnum[reference]'",
        "x needs y: pip install 'lnsnum[plot]'": "x needs y: pip install 'lnsnum[plot]'",
    }.items():
        error = ImportError(told)
        error.__context__ = ModuleNotFoundError("No module named 'mpmath'", name="mpmath")
        assert in_words(error) == sentence


@pytest.mark.parametrize("code", [*errno.errorcode, 99_999], ids=str)
def test_an_error_of_the_system_says_the_same_from_wherever_it_comes(code):
    """As the system raised it, or as the sentence that the file made of it: with the path, and once."""
    error = OSError(code, os.strerror(code), "some/w")
    told = in_words(error)
    assert told.startswith("some/w: ")
    assert "Errno" not in told
    with pytest.raises(OSError, match="some/w") as named, naming("some/w"):
        raise error
    assert (in_words(named.value), named.value.errno) == (told, code)


# ------------------------------------------------------------------------------------------------ what a terminal obeys


def obeyed(text):
    return [letter for letter in text if not (letter.isprintable() or letter == "\n")]


def test_nothing_that_is_printed_is_obeyed(capsys):
    """Every way of printing with rich: strings, texts, tables with titles, a bar's description, a status."""
    from rich.progress import Progress, TextColumn
    from rich.table import Table
    from rich.text import Text

    console = _Console(markup=False, highlight=False, emoji=False)
    evil = "\x1b]0;title\x07\x1b[31mred\x9b2J\r\x08\u202e"
    table = Table(evil, title=evil, caption=evil)
    table.add_row(evil)
    table.add_row(Text(evil))
    for thing in (evil, Text(evil), table):
        console.print(thing)
    console.print(evil, soft_wrap=True)
    with Progress(TextColumn("{task.description}"), console=console) as bar:
        bar.add_task(evil, total=None)
    with console.status(evil):
        pass
    out = capsys.readouterr().out
    assert obeyed(out) == []
    assert out.count("\\x1b[31mred\\x9b2J") >= 7


def test_names_from_files_are_not_obeyed(command, tmp_path):
    from PIL import Image

    evil = "\x1b[31mred\x9b"
    for label in (evil, "b"):
        (tmp_path / evil / label).mkdir(parents=True)
        for n in range(5):
            Image.new("L", (8, 8), n).save(tmp_path / evil / label / f"{n}.png")
    save_weights(tmp_path / f"{evil}w", {evil: LNSTensor.from_float([1.0], lns8f5)}, metadata={evil: evil})
    save_weights(tmp_path / "task", {}, metadata={"lnsnum.task": evil})
    for arguments in (
        ["train", "--data", evil, "--steps", 1, "--out", f"{evil}.safetensors"],
        ["evaluate", f"{evil}.safetensors", "--data", evil],
        ["evaluate", f"{evil}.safetensors"],
        ["evaluate", "task"],
        ["inspect", f"{evil}w", "--histogram"],
        ["verify", f"{evil}w"],
        ["diff", f"{evil}w", "w"],
        ["export", f"{evil}w", "--to", "npy", "--out", f"{evil}x"],
        ["convert", f"{evil}w", f"{evil}f", "--to", "float32"],
        ["report", evil],
        ["study", "--problem", evil],
        ["inspect", evil, evil],
        ["inspect", f"--{evil}"],
        [evil],
        ["train", "--task", evil],
    ):
        _, out, error = command(*arguments)
        assert obeyed(out + error) == [], arguments
