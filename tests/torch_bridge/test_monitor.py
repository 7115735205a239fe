"""A Monitor in a plain loop: what it writes is what the optimizer reports."""

import sys
from dataclasses import asdict

import pytest
import torch
from torch import nn

from lnsnum.files.run_log import COUNTS, read_log
from lnsnum.torch_bridge import LNSWeight, Madam, Monitor, convert_model
from lnsnum.torch_bridge.monitor import Onlooker

pytestmark = pytest.mark.usefixtures("one_thread")


def steps_of(path, count, **options):
    """A loop with a schedule; the optimizer's reports, and the model."""
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    convert_model(model, "lns8f5")
    optimizer = Madam(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)
    if options.pop("histograms", False):
        options |= {"histogram_of": model, "histogram_every": 2}
    expected, after = [], options.get("after", 0)
    with Monitor(path, optimizer, **options) as monitor:
        for step in range(1, count + 1):
            optimizer.zero_grad()
            loss = (model(torch.ones(2, 8)) - step).square().mean()
            loss.backward()
            if step == 2:
                model.bias.grad[0] = torch.nan
            optimizer.step()
            line = monitor.step(loss, note="x")
            report = {name: asdict(optimizer.step_report())[name] for name in COUNTS}
            about = {"step": after + step, "loss": loss.item(), "lr": 0.05 * (1 - (step - 1) / 10)}
            expected.append(about | report)
            assert {name: line[name] for name in expected[-1]} == expected[-1]
            schedule.step()
    return expected, model


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_line_has_what_the_optimizer_reports(kind, tmp_path):
    path = tmp_path / f"run.{kind}"
    expected, _ = steps_of(path, 3)
    lines = read_log(path)
    assert [{name: line[name] for name in one} for line, one in zip(lines, expected, strict=True)] == expected
    assert [line["not_finite"] for line in lines] == [0, 1, 0]
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    assert [line.get("note") for line in lines] == [{"jsonl": "x", "csv": None}[kind]] * 3


def test_histograms_are_of_each_weight_and_lines_of_some_steps(tmp_path):
    _, model = steps_of(tmp_path / "run.jsonl", 4, every=2, histograms=True)
    lines = read_log(tmp_path / "run.jsonl")
    assert [line["step"] for line in lines] == [2, 4]
    expected = {n: p.telemetry().histogram.tolist() for n, p in model.named_parameters() if isinstance(p, LNSWeight)}
    assert lines[-1]["histograms"] == expected
    assert sum(expected["weight"]) == 32


def test_a_histogram_that_is_due_comes_with_the_next_line(tmp_path):
    steps_of(tmp_path / "run.jsonl", 9, every=3, histograms=True)  # due at 2, 4, 6 and 8
    lines = read_log(tmp_path / "run.jsonl")
    assert [(line["step"], "histograms" in line) for line in lines] == [(3, True), (6, True), (9, True)]


WRONG = {
    "a module for an optimizer": (lambda path: Monitor(path, nn.Linear(2, 2)), TypeError, "optimizer is a Linear"),
    "a list for a module": (lambda path: Monitor(path, None, histogram_of=[1]), TypeError, "histogram_of is a list"),
    "no codes": (lambda path: Monitor(path, None, histogram_of=nn.Linear(2, 2)), ValueError, "no LNS weights"),
    "a number for a path": (lambda path: Monitor(5, None), TypeError, "path is a int"),
    "no folder": (lambda path: Monitor(None, None, tensorboard=""), ValueError, "give one of them"),
    "no folder beside a path": (lambda path: Monitor(path, None, tensorboard=""), ValueError, "is no folder"),
    "a folder that is missing": (lambda path: Monitor(path.parent / "x" / "l.jsonl", None), OSError, "there is no fo"),
}


@pytest.mark.parametrize(("call", "kind", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_in_a_sentence(call, kind, message, tmp_path):
    with pytest.raises(kind, match=message) as told:
        call(tmp_path / "run.jsonl")
    assert "Errno" not in str(told.value)


def test_a_closed_monitor_takes_no_step_and_an_open_one_no_loss_that_is_no_number(tmp_path):
    with Monitor(tmp_path / "run.jsonl", None) as monitor:
        with pytest.raises(TypeError, match=r"the loss is a tensor of shape \(3,\): give one real number"):
            monitor.step(torch.ones(3))
        with pytest.raises(TypeError, match="the loss is a complex"):
            monitor.step(1j)
    assert monitor.steps == 0
    with pytest.raises(ValueError, match="the monitor is closed"):
        monitor.step(1.0)
    assert read_log(tmp_path / "run.jsonl") == []


def test_a_resumed_run_goes_on_with_its_log(tmp_path):
    path = tmp_path / "run.csv"
    steps_of(path, 4)
    before = read_log(path)
    steps_of(path, 2, after=3)
    lines = read_log(path)
    assert lines[:3] == before[:3]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[3]["seconds"] >= lines[2]["seconds"]


def test_another_optimizer_has_no_counts(tmp_path):
    model = nn.Linear(2, 1)
    with Monitor(tmp_path / "run.jsonl", torch.optim.SGD(model.parameters(), lr=0.5)) as monitor:
        line = monitor.step()
    assert line["lr"] == 0.5
    assert {line[name] for name in ("loss", *COUNTS)} == {None}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("run.txt", {}, "a log ends in"),
        ("run.csv", {"histogram_of": nn.Linear(1, 1)}, "no place for histograms"),
        ("run.jsonl", {"every": 0}, "every=0 is no integer from 1 on"),
        ("run.jsonl", {"histogram_every": 1.5}, "histogram_every=1.5"),
        ("run.jsonl", {"after": -1}, "after=-1 is no integer from 0 on"),
        (None, {}, "to a path, .jsonl or .csv, or to a folder for TensorBoard: give one of them"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(name, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Monitor(name and tmp_path / name, None, **options)
    assert list(tmp_path.iterdir()) == []


def test_events_need_their_package(tmp_path, monkeypatch):
    """And nothing is written without."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'lnsnum\[tensorboard\]'"):
        Monitor(tmp_path / "run.jsonl", None, tensorboard=tmp_path / "events")
    assert list(tmp_path.iterdir()) == []


class Diary:
    """A Monitor that remembers, up to a step at which the disk is full."""

    def __init__(self, full_at=None):
        self.lines, self.full_at, self.steps, self.is_closed = [], full_at, 0, False

    def step(self, loss, *, lr):
        self.steps += 1
        if self.steps == self.full_at:
            raise OSError(28, "No space left on device")
        self.lines.append((loss, lr))

    def close(self):
        self.is_closed = True


def test_an_onlooker_writes_each_step_once_with_the_rate_that_it_began_with():
    """Whatever it is told of the loss: at once, late, twice, or never."""
    diary, told = Diary(), []
    onlooker = Onlooker(diary, told.append)
    onlooker.write(9.0)  # of no step
    for lr in (0.4, 0.3, 0.2, 0.1):
        onlooker.begins(lr)
        onlooker.is_over()
        if lr == 0.4:
            onlooker.write(1.0)
            onlooker.write(2.0)
        if lr == 0.3:
            onlooker.write(None)
    assert diary.lines == [(1.0, 0.4), (None, 0.3), (None, 0.2)]
    onlooker.close()
    assert (diary.lines[3:], diary.is_closed, told) == ([(None, 0.1)], True, [])


def test_an_onlooker_outlives_its_log():
    diary, told = Diary(full_at=2), []
    onlooker = Onlooker(diary, told.append, words=lambda error: f"error {error.errno}")
    for _ in range(4):
        onlooker.begins(0.1)
        onlooker.is_over()
        onlooker.write(1.0)
    onlooker.close()
    assert (len(diary.lines), diary.is_closed) == (1, True)
    assert told == ["the log ends before step 2, and training goes on: error 28"]


@pytest.mark.parametrize("name", ["step", "moved", "seconds", "histograms"])
def test_further_entries_do_not_take_the_place_of_the_logs_own(name, tmp_path):
    with Monitor(tmp_path / "run.jsonl", None) as monitor:
        with pytest.raises(ValueError, match=f"'{name}' is what the log itself writes"):
            monitor.step(1.0, **{name: 7})
        assert monitor.step(1.0, accuracy=7)["step"] == 1
    assert [line["accuracy"] for line in read_log(tmp_path / "run.jsonl")] == [7]
