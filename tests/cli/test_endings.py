"""Work is not lost: whatever ends `lnsnum train`, `study` or `convert`, what was done is in a file that is whole."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_command
from rich.progress import Progress
from safetensors.numpy import save_file

import lnsnum.torch_bridge
from lnsnum.cli import training_run
from lnsnum.tasks import training
from lnsnum.tasks.classification import Classification
from lnsnum.weight_file import load_metadata, load_weights, save_weights

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
OUT, STOPPED, RESUME = "w.safetensors", "w-stopped.safetensors", "w-resume.safetensors"


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """The command within this process, in an empty folder; what it printed, in one line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        ended, out, error = run_command(capsys, monkeypatch, *arguments)
        assert ended == code, out + error
        return " ".join(f"{out} {error}".split())

    kept = torch.get_num_threads()
    yield run
    torch.set_num_threads(kept)


def ask(number):
    os.kill(os.getpid(), number)


def after_step(monkeypatch, number, do):
    """Let something happen while that step of a run is computed."""
    whole = Classification.loss

    def loss(self, model, batch):
        if model.training:
            steps.append(1)
            if len(steps) == number:
                do()
        return whole(self, model, batch)

    steps = []
    monkeypatch.setattr(Classification, "loss", loss)


def names(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_that_is_stopped_is_kept_and_goes_on_as_if_nothing_had_been(command, monkeypatch, number):
    """The file of the resumed run is that of the run that was not stopped, byte for byte."""
    arguments = ["train", "--steps", 4, "--seed", 5, "--momentum", 0.5, "--out", OUT]
    command(*arguments)
    whole = Path(OUT).read_bytes()
    Path(OUT).write_text("older")
    with monkeypatch.context() as patch:
        after_step(patch, 2, lambda: ask(number))
        said = command(*arguments, code=128 + number)
    assert f"stopped; what was learned until then is in {STOPPED}" in said
    assert f"lnsnum train --resume {RESUME} goes on with step 3" in said
    assert (names(), Path(OUT).read_text()) == ([RESUME, STOPPED, OUT], "older")
    assert "test accuracy" in command("evaluate", STOPPED)
    assert "is a run that was cut: lnsnum train --resume goes on with it" in command("evaluate", RESUME, code=2)
    command("train", "--resume", RESUME)
    assert Path(OUT).read_bytes() == whole
    assert names() == [STOPPED, OUT]


def test_a_run_in_a_datapath_that_is_stopped_goes_on_as_if_nothing_had_been(command, monkeypatch):
    """Its running maxima and its draws go on too: byte for byte."""
    text = "activations=lns8f3/running,errors=lns8f3/running/stochastic_value,gradients=lns8f3"
    arguments = ["train", "--steps", 4, "--datapath", text, "--out", OUT]
    command(*arguments)
    whole = Path(OUT).read_bytes()
    with monkeypatch.context() as patch:
        after_step(patch, 3, lambda: ask(signal.SIGTERM))
        command(*arguments, code=128 + signal.SIGTERM)
    command("train", "--resume", RESUME)
    assert Path(OUT).read_bytes() == whole


def test_a_second_ctrl_c_while_the_first_is_answered(command, monkeypatch):
    save = lnsnum.torch_bridge.save_model

    def saving(*arguments, **options):
        ask(signal.SIGINT)
        return save(*arguments, **options)

    monkeypatch.setattr(lnsnum.torch_bridge, "save_model", saving)
    after_step(monkeypatch, 1, lambda: ask(signal.SIGINT))
    command("train", "--steps", 4, "--out", OUT, code=130)
    assert names() == [RESUME, STOPPED]
    load_weights(STOPPED), load_weights(RESUME)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_that_is_stopped_while_it_is_scored_is_there(command, monkeypatch, number):
    def score(self, model):
        ask(number)
        time.sleep(5)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "score", score)
        said = command("train", "--steps", 2, "--out", OUT, code=128 + number)
    assert f"stopped; the trained network is in {OUT}, and lnsnum evaluate scores it" in said
    assert names() == [OUT]
    assert "score" not in json.loads(load_metadata(OUT)["lnsnum.run"])
    assert "test accuracy" in command("evaluate", OUT)


def test_a_run_that_is_stopped_in_its_last_step_or_its_last_save_is_there(command, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "check_outputs", lambda *_: ask(signal.SIGTERM))
        said = command("train", "--steps", 2, "--out", OUT, code=143)
    assert (names(), f"the trained network is in {OUT}" in said) == ([OUT], True)
    whole = {name: np.asarray(w) for name, w in load_weights(OUT).items()}
    Path(OUT).unlink()
    with monkeypatch.context() as patch:
        after_step(patch, 2, lambda: ask(signal.SIGTERM))
        command("train", "--steps", 2, "--out", OUT, code=143)
    assert names() == [RESUME, STOPPED]
    command("train", "--resume", RESUME)  # no step is left
    resumed = {name: np.asarray(w) for name, w in load_weights(OUT).items()}
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("trouble", [RuntimeError("torch's own words"), MemoryError()], ids=repr)
def test_an_error_in_the_midst_of_training_leaves_what_was_learned(command, monkeypatch, trouble, capsys):
    def fail():
        raise trouble

    after_step(monkeypatch, 3, fail)
    arguments = ["train", "--steps", 4, "--out", OUT]
    if isinstance(trouble, MemoryError):
        said = command(*arguments, code=2)
    else:
        with pytest.raises(RuntimeError, match="torch's own words"):
            command(*arguments)
        said = " ".join(capsys.readouterr().out.split())
    assert f"what was learned until then is in {STOPPED}" in said
    assert names() == [STOPPED]


def test_a_run_is_saved_now_and_then(command, monkeypatch):
    saved = []
    save = training_run._Trainee.save_to_resume
    monkeypatch.setattr(
        training_run._Trainee,
        "save_to_resume",
        lambda self, path: (saved.append(len(self.history.loss)), save(self, path)),
    )
    command("train", "--steps", 5, "--save-every", 2, "--out", OUT)
    assert (saved, names()) == ([2, 4], [OUT])  # of a run that is done nothing is left to resume
    saved.clear()
    Path("t.txt").write_text("a few words. " * 300)  # 3,510 characters: epochs of 4 steps
    command("train", "--task", "characters", "--data", "t.txt", "--epochs", 3, "--save-every", 1, "--out", OUT)
    assert saved == [4, 8]


def test_where_a_run_cannot_be_saved_training_goes_on(command):
    Path(RESUME).mkdir()
    said = command("train", "--steps", 5, "--save-every", 2, "--out", OUT)
    assert "step 2 is not saved, and training goes on: " in said
    assert "saved to w.safetensors" in said


KILLED = """
import os, signal, sys
from lnsnum.cli import main, training_run
save = training_run._Trainee.save_to_resume
def save_and_die(self, path):
    save(self, path)
    os.kill(os.getpid(), signal.SIGKILL)
training_run._Trainee.save_to_resume = save_and_die
main()
"""


@pytest.mark.thorough
def test_a_run_that_is_killed_goes_on_from_where_it_was_saved(command):
    """kill -9, of a text and by words, from the file of --save-every."""
    Path("t.txt").write_text("so much depends upon a red wheel barrow glazed with rain " * 100)
    arguments = ["train", "--task", "words", "--data", "t.txt", "--steps", 4, "--out", OUT, "--save-every", 3]
    command(*arguments)
    whole = Path(OUT).read_bytes()
    Path(OUT).unlink()
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], capture_output=True)
    assert (killed.returncode, names()) == (-9, ["t.txt", RESUME])
    assert "give the same with --data" in command("train", "--resume", RESUME, code=2)
    command("train", "--resume", RESUME, "--data", "t.txt")
    assert Path(OUT).read_bytes() == whole


# ---------------------------------------------------------------------------------------------- what cannot be resumed


@pytest.fixture
def resumable(command, monkeypatch):
    with monkeypatch.context() as patch:
        after_step(patch, 1, lambda: ask(signal.SIGINT))
        command("train", "--steps", 2, "--out", OUT, code=130)
    return RESUME


@pytest.mark.parametrize(
    "options",
    [["--lr", 0.1], ["--steps", 9], ["--task", "words"], ["--seed", 0], ["--augment"], ["--network", "cnn"]],
    ids=str,
)
def test_a_run_is_resumed_as_it_was_begun(command, resumable, options):
    said = command("train", "--resume", resumable, *options, code=2)
    assert f"--resume goes on with the run as it was begun: leave out {options[0]}" in said
    assert Path(resumable).exists()


def test_what_may_be_given_with_resume(command, resumable):
    here = ["--out", "v.safetensors", "--threads", 1, "--device", "cpu", "--save-every", 1]
    command("train", "--resume", resumable, *here)
    assert names() == ["v.safetensors", RESUME, STOPPED]


def test_another_run_in_its_place_is_told_of(command, resumable):
    said = command("train", "--steps", 1, "--out", OUT)
    assert f"{RESUME} is of an earlier run, and is replaced where this one is saved" in said


ARGUMENTS = {
    "no JSON": "{",
    "deep": "[" * 100_000,
    "a number": "3",
    "nothing": "{}",
    "another task": {"task": "chess"},
    "no steps": {"steps": 0},
    "a truth for steps": {"steps": True},
    "a seed below 0": {"seed": -1},
    "half a thread": {"threads": 0.5},
    "a recipe of no kind": {"recipe": {"format": "x"}},
    "an unknown choice": {"recipe": {"colour": "red"}},
    "save every 0": {"save_every": 0},
    "another network": {"options": {"network": "resnet18-narrow"}},
    "an unknown option": {"options": {"x": 1}},
    "an odd device": {"device": "abacus"},
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_files_that_are_no_run(command, resumable, case):
    change = ARGUMENTS[case]
    metadata = load_metadata(resumable)
    text = change if isinstance(change, str) else json.dumps(json.loads(metadata["lnsnum.resume"]) | change)
    save_weights(resumable, load_weights(resumable), metadata=metadata | {"lnsnum.resume": text})
    said = command("train", "--resume", resumable, code=2)
    assert said.count("error: ") == 1
    assert not Path(OUT).exists()


# ------------------------------------------------------------------------------------- where it cannot be written


@contextlib.contextmanager
def full_disk(folder, kilobytes):
    """A file system of so few bytes, for root on Linux."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_the_network_is_kept_elsewhere(command, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with full_disk(tmp_path / "disk", 16):
        said = command("train", "--steps", 2, "--out", "disk/w.safetensors", "--save-every", 1, code=2)
        assert names("disk") == []
    trouble = "disk/w.safetensors: no space is left on its disk: make room, or give a path on another"
    assert "step 1 is not saved, and training goes on: disk/w-resume.safetensors: no space is left on its disk" in said
    (kept,) = tmp_path.glob("lnsnum-*/w.safetensors")
    assert f"error: {trouble}; the network is in {kept}" in said
    assert "test accuracy" in said
    command("evaluate", kept)


def test_on_a_full_disk_a_stopped_run_is_kept_elsewhere(command, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    after_step(monkeypatch, 1, lambda: ask(signal.SIGTERM))
    with full_disk(tmp_path / "disk", 16):
        command("train", "--steps", 2, "--out", "disk/w.safetensors", code=143)
    assert [path.name for path in sorted(tmp_path.glob("lnsnum-*/*"), key=lambda path: path.name)] == [RESUME, STOPPED]
    (resume,) = tmp_path.glob("lnsnum-*/w-resume.safetensors")
    command("train", "--resume", resume)
    assert (resume.parent / OUT).exists()


def test_a_folder_that_goes_while_it_trains(command, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    after_step(monkeypatch, 2, lambda: Path("there").rmdir())
    said = command("train", "--steps", 2, "--out", "there/w.safetensors", code=2)
    (kept,) = tmp_path.glob("temporary/lnsnum-*/w.safetensors")
    trouble = f"there/w.safetensors: there is no folder {tmp_path / 'there'}: make it first"
    assert f"error: {trouble}; the network is in {kept}" in said


def test_a_folder_that_takes_the_place_of_the_file(command, monkeypatch):
    after_step(monkeypatch, 2, lambda: Path(OUT).mkdir())
    said = command("train", "--steps", 2, "--out", OUT, code=2)
    assert "the network is in w-rescued.safetensors" in said
    command("evaluate", "w-rescued.safetensors")


# ----------------------------------------------------------------------------------------------------- other commands


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "arguments", [["convert", "f", OUT, "--format", "lns8f5"], ["export", OUT, "--to", "npy", "--out", "x"]]
)
def test_what_is_stopped_leaves_no_half_of_a_file(command, monkeypatch, number, arguments):
    save_file({"w": np.ones((100, 100), np.float32)}, "f")
    command("convert", "f", OUT, "--format", "lns8f3")
    before = Path(OUT).read_bytes()
    monkeypatch.setattr(Progress, "update", lambda *_, **__: ask(number))
    command(*arguments, code=128 + number)
    assert (names(), Path(OUT).read_bytes()) == (["f", OUT], before)


def test_a_conversion_on_a_full_disk_leaves_the_old_file(command, tmp_path):
    save_file({"w": np.ones((200, 200), np.float32)}, "f")
    with full_disk(tmp_path / "disk", 16):
        (tmp_path / "disk" / OUT).write_text("older")
        said = command("convert", "f", f"disk/{OUT}", "--format", "lns8f5", code=2)
        assert said == f"error: disk/{OUT}: no space is left on its disk: make room, or give a path on another"
        assert (names("disk"), Path("disk", OUT).read_text()) == ([OUT], "older")
        said = command("export", "--to", "readmemh", "--tables", "lns8f5", "--out", "disk/x", code=2)
        assert said == "error: disk/x: no space is left on its disk: make room, or give a path on another"
        assert names("disk") == [OUT]
