"""Training that one can watch, and commands for programs: --log, `lnsnum watch`, --json."""

import json
from types import SimpleNamespace

import pytest
import torch
from command_line import run_command

import lnsnum.cli.watch as watching
from lnsnum.files.run_log import FIELDS, RunLog, read_log
from lnsnum.weight_file import load_metadata

STEPS = 6


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """A command in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    kept = torch.get_num_threads()
    yield lambda *arguments: run_command(capsys, monkeypatch, *arguments)
    torch.set_num_threads(kept)


def test_a_run_is_logged_and_told_as_json(command, tmp_path):
    """What the file of the run says, `evaluate --json` says too."""
    arguments = ("train", "--steps", STEPS, "--log", "run.csv", "--json", "--out", "w.safetensors")
    code, out, told = command(*arguments)
    assert code == 0
    assert "saved to w.safetensors" in told
    content = json.loads(out)
    record = json.loads(load_metadata("w.safetensors")["lnsnum.run"])
    (run,) = content["runs"]
    assert (run["run"], run["score"], content["steps"]) == ("lns8f5 madam", record["score"], STEPS)
    assert (run["bytes_a_weight"]["weights"], content["measure"]) == (1.0, "accuracy")
    assert content["data"]["sha256"] == record["data"]
    lines = read_log("run.csv")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[-1]["loss"] == run["loss"]
    assert lines[0]["lr"] == 0.05
    assert all(0 < line["moved"] <= 1 for line in lines)
    code, out, told = command("evaluate", "w.safetensors", "--json")
    assert (code, told) == (0, "")
    told_of = json.loads(out)
    assert (told_of["score"], told_of["weights"], told_of["formats"]) == (record["score"], 30890, ["lns8f5"])
    code, out, told = command("watch", "run.csv", "--json", "--plot", "run.png")
    assert (code, told) == (0, "plot written to run.png")
    shown = json.loads(out)
    assert shown["loss"] == pytest.approx(sum(line["loss"] for line in lines) / STEPS)
    assert (shown["steps"], shown["not_finite"]) == (STEPS, 0)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert command("watch", "run.csv")[0] == 0


def test_a_log_that_cannot_be_written_does_not_end_the_run(command, monkeypatch):
    def full(log, line):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunLog, "write", full)
    code, out, told = command("train", "--steps", 2, "--log", "run.csv", "--json", "--out", "w.safetensors")
    assert (code, json.loads(out)["steps"]) == (0, 2)
    assert told.count("the log ends before step 1, and training goes on: ") == 1


def write(name, lines):
    with open(name, "w") as file:
        for step, line in enumerate(lines, 1):
            file.write(json.dumps(dict.fromkeys(FIELDS) | {"step": step} | line) + "\n")


def test_a_log_is_shown_with_its_curves(command):
    write(
        "run.jsonl", [{"loss": 8.0 - n, "lr": 0.05, "moved": n / 100, "grown": 2, "seconds": n / 4} for n in range(8)]
    )
    code, out, told = command("watch", "run.jsonl")
    assert (code, told) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows == [
        ["run.jsonl"],
        ["step", "8", "4.0", "a", "second"],
        ["loss", "4.5", "█▇▆▅▄▃▂▁"],
        ["lr", "0.05"],  # a constant has no curve
        ["codes", "moved", "3.50%", "▁▂▃▄▅▆▇█"],
        ["ceilings", "raised", "16"],
    ]


@pytest.mark.parametrize("name", ["loss", "lr", "moved", "grown", "seconds"])
def test_what_is_no_longer_finite_is_shown_so(name, command):
    """No mean of those before it, and none of its own in a program's JSON."""
    words = {"moved": "codes moved", "grown": "ceilings raised"}.get(name, name)
    for diverged in ("NaN", "Infinity", "-Infinity"):
        write("run.jsonl", [{"loss": 1.0, name: 1.0 + n} for n in range(3)] + [{name: diverged}])
        code, out, told = command("watch", "run.jsonl", "--once")
        assert (code, told) == (0, "")
        row = "".join(row for row in out.splitlines() if row.startswith(words))
        assert name == "seconds" or "nan" in row or "inf" in row
        plot = ("--plot", "run.png") if (name, diverged) == ("loss", "NaN") else ()
        code, out, told = command("watch", "run.jsonl", "--json", *plot)
        assert (code, told) == (0, "plot written to run.png" if plot else "")
        assert json.loads(out)[name] is None


def test_a_log_that_grows_is_shown_as_it_grows(command, monkeypatch):
    """On a terminal, until somebody stops it."""
    write("run.jsonl", [{"loss": 1.0}])
    views = []

    class Live:
        def __init__(self, view, **options):
            views.append(view)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, view, refresh):
            views.append(view)

    def sleep(seconds):
        if len(views) == 3:
            raise KeyboardInterrupt
        write("run.jsonl", [{"loss": 1.0}] * (len(views) + 1))

    monkeypatch.setattr(watching, "Live", Live)
    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(watching, "console", SimpleNamespace(is_terminal=True))
    monkeypatch.setattr(watching, "_view", lambda log, lines: len(lines))
    assert command("watch", "run.jsonl")[0] == 130
    assert views == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("watch", "nothing.jsonl"), "nothing.jsonl"),
        (("watch", "bad.jsonl"), "bad.jsonl is no log of a training: line 1"),
        (("watch", "run.txt"), "a log ends in .jsonl or .csv"),
        (("watch", "bad.jsonl", "--plot", "x.nothing"), "the ending is none of"),
        (("train", "--log", "run.txt"), "a log ends in .jsonl or .csv"),
        (("train", "--log", "away/run.csv"), "there is no folder"),
        (("train", "--tensorboard", "bad.jsonl"), "--tensorboard bad.jsonl is a file: give a folder"),
        (("certify", "lns4f1", "--json", "--markdown"), "leave out one of them"),
    ],
)
def test_bad_input_is_refused(arguments, message, command, tmp_path):
    (tmp_path / "bad.jsonl").write_text("hello\n")
    code, out, told = command(*arguments)
    assert (code, out) == (2, "")
    assert message in told


def test_an_empty_log_has_no_step_yet(command, tmp_path):
    (tmp_path / "run.jsonl").touch()
    assert command("watch", "run.jsonl") == (0, "run.jsonl: no step yet\n", "")
    assert json.loads(command("watch", "run.jsonl", "--json")[1])["steps"] == 0
