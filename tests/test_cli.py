"""The command line: what it writes and prints, and one sentence with exit code 2 for bad input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from lnsnum import LNSTensor, lns8f5
from lnsnum.tasks import digits, training
from lnsnum.torch_bridge import LNSWeight, load_model, save_model
from lnsnum.weight_file import load_metadata, load_weights, save_weights


def lnsnum(*arguments, cwd=None, code=0):
    """Run the command; returns what it printed on stdout and on stderr, each as one line."""
    done = subprocess.run(
        [sys.executable, "-m", "lnsnum.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stdout.split()), " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One short run with everything switched on."""
    folder = tmp_path_factory.mktemp("cli")
    out, _ = lnsnum("train", "--epochs", 3, "--compare", "--plot", "curves.png", "--out", "w.safetensors", cwd=folder)
    return folder, out


def test_train_reports_accuracy_memory_and_time(trained):
    _, out = trained
    assert "1437 training images, 360 test images" in out
    assert "the same logits, bit for bit" in out
    assert "│ lns8f5 madam ┃ float32 adam ┃" in out.replace("┃ lns8f5", "│ lns8f5")
    for row in ("test accuracy", "training time", "bytes: peak", "bytes: on disk"):
        assert row in out
    assert "bytes: weights │ 1.00 │ 4.00" in out
    assert "bytes: optimizer state │ 1.03 │ 8.00" in out
    assert "bytes: gradients │ 4.00 │ 4.00" in out


def test_train_writes_a_file_of_one_byte_codes(trained):
    folder, _ = trained
    with safe_open(folder / "w.safetensors", "numpy") as file:
        assert file.get_tensor("3.weight").dtype == np.uint8
    weights = load_weights(folder / "w.safetensors")
    assert sum(isinstance(w, LNSTensor) for w in weights.values()) == 14
    record = json.loads(load_metadata(folder / "w.safetensors")["lnsnum.run"])
    assert record["run"] == "lns8f5 madam"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_gives_the_accuracy_of_the_run(trained):
    folder, _ = trained
    accuracy = json.loads(load_metadata(folder / "w.safetensors")["lnsnum.run"])["test_accuracy"]
    out, _ = lnsnum("evaluate", "w.safetensors", cwd=folder)
    assert f"test accuracy {accuracy:.2%} on 360 images" in out
    assert "30890 weights in lns8f5" in out
    model = load_model(folder / "w.safetensors", digits.network())
    _, test_data = digits.split(digits.load())
    assert training.accuracy(model, test_data) == accuracy
    assert all(isinstance(p, LNSWeight) for p in model.parameters())


def test_the_default_run_reaches_the_accuracy_that_it_must(tmp_path):
    lnsnum("train", cwd=tmp_path)
    record = json.loads(load_metadata(tmp_path / "digits.safetensors")["lnsnum.run"])
    assert record["run"] == "lns8f5 madam"
    assert record["test_accuracy"] >= 0.975


def test_the_same_seed_gives_the_same_file(tmp_path):
    for name in ("a", "b"):
        lnsnum("train", "--epochs", 1, "--seed", 7, "--format", "lns8f3", "--out", name, cwd=tmp_path)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("optimizer", "format_"), [("adam", "float32"), ("sgd", "float32"), ("adam", "lns16f10"), ("madam", "float32")]
)
def test_other_optimizers_and_formats_train(tmp_path, optimizer, format_):
    out, _ = lnsnum("train", "--epochs", 1, "--optimizer", optimizer, "--format", format_, cwd=tmp_path)
    assert f"{format_} {optimizer}" in out
    assert (tmp_path / "digits.safetensors").exists()


def test_version():
    out, _ = lnsnum("--version")
    assert out.startswith("lnsnum 0.")


BAD_TRAINING = {
    "format that does not fit": (["--format", "lns8f9"], "--format: fraction_bits=9 does not fit bits=8: 0 to 6"),
    "format that is no name": (["--format", "int8"], "--format: 'int8' is no format name"),
    "format too wide": (["--format", "lns32f23"], "--format lns32f23: at most 16 bits can be trained"),
    "no folder": (["--out", "nowhere/w.safetensors"], "--out nowhere/w.safetensors: there is no folder"),
    "out is a folder": (["--out", "."], "--out . cannot be written"),
    "kind of plot": (["--plot", "p.xyz"], "--plot p.xyz: the ending is none of"),
    "infinite lr": (["--lr", "inf"], "--lr inf is no learning rate"),
    "negative lr": (["--lr", "-1"], "--lr"),
    "seed too large": (["--seed", str(2**63)], "--seed"),
    "base too fine": (["--format", "lns8f5b0x1.0000000000001p+0"], "no scale fits"),
    "one file for both": (["--out", "x.png", "--plot", "x.png"], "--plot and --out are the same file: x.png"),
    "out is a device": (["--out", "/dev/null"], "--out /dev/null cannot be written"),
    "no epochs": (["--epochs", "0"], "--epochs"),
    "unknown optimizer": (["--optimizer", "lion"], "--optimizer"),
    "loss that explodes": (["--optimizer", "sgd", "--lr", "1e9", "--format", "float32"], "try a smaller --lr"),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_input_to_train(case, tmp_path):
    arguments, sentence = BAD_TRAINING[case]
    _, error = lnsnum("train", *arguments, cwd=tmp_path, code=2)
    assert sentence in error
    assert list(tmp_path.iterdir()) == []


def test_bad_input_to_evaluate(tmp_path):
    save_weights(tmp_path / "untasked", {"w": LNSTensor.from_float([1.0], lns8f5)})
    save_weights(tmp_path / "task", {}, metadata={"lnsnum.task": "chess"})
    save_weights(tmp_path / "model", {}, metadata={"lnsnum.task": "digits"})
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "foreign")
    torch.manual_seed(0)
    save_model(tmp_path / "whole", digits.network(), metadata={"lnsnum.task": "digits"})
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    (tmp_path / "empty").touch()
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "layout").write_bytes(whole.replace(b'\\"layout\\": 2', b'\\"layout\\": 7'))
    wide = {name: np.asarray(w) for name, w in load_weights(tmp_path / "whole").items()}
    wide["0.weight"] = LNSTensor(np.full(wide["0.weight"].shape, 5, np.uint32), "lns32f23")
    (tmp_path / "[").mkdir()
    save_weights(tmp_path / "[/wide]", wide, metadata={"lnsnum.task": "digits"})
    for name, sentence in {
        "nothing": "No such file",
        "empty": "empty is damaged or no safetensors file",
        "cut": "cut is damaged or no safetensors file",
        "foreign": "a safetensors file, but no LNS weight file",
        "untasked": "untasked names no task: it was not written by lnsnum train",
        "layout": "layout version 7 is unknown: this reader knows 1 to 2",
        "[/wide]": "[/wide]: '0.weight' is of lns32f23: at most 16 bits can be loaded",
        "task": "is for the task 'chess', which this version does not know",
        "model": "is for another model: it lacks '0.bias'",
        ".": "is a folder, not a weight file",
    }.items():
        _, error = lnsnum("evaluate", name, cwd=tmp_path, code=2)
        assert sentence in error, error
        assert error.startswith("error: ")


# ----------------------------------------------------------------------------------------- where the output goes


@pytest.fixture
def named(tmp_path):
    """A weight file with a name that few encodings have."""
    save_weights(tmp_path / "w", {"\u91cd\u307f": LNSTensor.from_float([[1.0, 2.0]], lns8f5)})
    save_file({"\u91cd\u307f": np.ones((2, 2), np.float32)}, tmp_path / "floats")
    return tmp_path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_terminal_lacks_are_escaped(named, encoding):
    for arguments in (
        ["convert", "floats", "out.safetensors", "--format", "lns8f5"],
        ["inspect", "w", "--histogram"],
        ["diff", "w", "w"],
        ["export", "w", "--to", "npy", "--out", "folder"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "lnsnum.cli", *arguments],
            cwd=named, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert ("\u91cd\u307f" in done.stdout.decode(encoding)) == (encoding == "utf-8" and arguments[0] != "diff")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_closed_pipe_is_no_difference_and_no_problem(named):
    for command in (["diff", "w", "w"], ["verify", "w"], ["inspect", "w"]):
        with subprocess.Popen(
            [sys.executable, "-m", "lnsnum.cli", *command, "--json"],
            cwd=named, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            process.stdout.close()
            complaints = process.stderr.read()
        assert (process.wait(), complaints) == (141, b"")


def test_without_its_libraries_the_command_line_ends_with_2():
    code = "import sys; sys.modules['rich'] = None; from lnsnum.cli import main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the command line needs rich: pip install 'lnsnum[cli]'\n"


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_paths_are_whole_in_json(tmp_path):
    name = "two\nlines\x1b[31m"
    save_weights(tmp_path / name, {})
    for arguments, key in ((["inspect", name], "file"), (["diff", name, name], "a"), (["verify", name], "files")):
        done = subprocess.run(
            [sys.executable, "-m", "lnsnum.cli", *arguments, "--json"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = json.loads(done.stdout)[key]
        assert (found[0]["file"] if key == "files" else found) == name
