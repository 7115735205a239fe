"""Events for TensorBoard: what its own reader finds in them is what the log has."""

import re
import threading

import pytest
import torch
from command_line import run_command
from torch import nn

from lnsnum.files.run_log import COUNTS, FIELDS, read_log
from lnsnum.torch_bridge import Madam, Monitor, convert_model
from lnsnum.torch_bridge.monitor import Onlooker

pytest.importorskip("tensorboard", reason="tensorboard is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

pytestmark = pytest.mark.usefixtures("one_thread")

TAGS = {"loss": "loss", "lr": "lr"} | {name: f"codes/{name}" for name in COUNTS}


def events(folder):
    """What TensorBoard has: numbers by tag and step, and the reader."""
    reader = EventAccumulator(str(folder), {"histograms": 0, "scalars": 0}).Reload()
    return {tag: {e.step: e.value for e in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]}, reader


def assert_events_of(folder, lines):
    """The numbers of a log's lines, to float32."""
    scalars, reader = events(folder)
    assert scalars.keys() == set(TAGS.values())
    for name, tag in TAGS.items():
        expected = {line["step"]: line[name] for line in lines}
        assert scalars[tag] == pytest.approx(expected, rel=1e-6, nan_ok=True)
    return reader


def steps_of(model, count, *paths, **options):
    optimizer = Madam(model.parameters())
    with Monitor(*paths, optimizer, **options) as monitor:
        for step in range(1, count + 1):
            optimizer.zero_grad()
            (model(torch.ones(2, 8)) - step).square().mean().backward()
            optimizer.step()
            monitor.step(float("nan") if step == 2 else 1 / step)


def a_model():
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    convert_model(model, "lns8f5")
    return model


def test_events_are_the_numbers_of_the_log_and_histograms_of_the_codes(tmp_path):
    model = a_model()
    how = {"tensorboard": tmp_path / "events", "histogram_of": model, "histogram_every": 3}
    steps_of(model, 3, tmp_path / "run.csv", **how)
    reader = assert_events_of(tmp_path / "events", read_log(tmp_path / "run.csv"))
    counts = {name: p.telemetry().histogram.tolist() for name, p in model.named_parameters()}
    assert set(reader.Tags()["histograms"]) == {f"codes/{name}" for name in counts}
    for name, of_one in counts.items():
        (event,) = reader.Histograms(f"codes/{name}")
        value = event.histogram_value
        assert (event.step, value.num, value.sum) == (3, sum(of_one), sum(m * n for m, n in enumerate(of_one)))
        found = dict(zip(value.bucket_limit, value.bucket, strict=True))
        assert {limit: n for limit, n in found.items() if n} == {m + 0.5: n for m, n in enumerate(of_one) if n}


def test_a_resumed_run_takes_the_place_of_its_later_steps(tmp_path):
    steps_of(a_model(), 4, None, tensorboard=tmp_path)
    steps_of(a_model(), 1, None, tensorboard=tmp_path, after=2)
    scalars, _ = events(tmp_path)
    assert list(scalars["codes/moved"]) == [1, 2, 3]


def test_a_file_is_no_folder_of_events(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="is a file: TensorBoard's events go to a folder"):
            Monitor(None, None, tensorboard=place)


# the writer's own thread, which tells of what it met to those who write
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_outlives_a_full_disk(tmp_path, monkeypatch):
    def full(writer, data):
        raise OSError(28, "No space left on device")

    told = []
    monitor = Monitor(tmp_path / "run.jsonl", None, tensorboard=tmp_path / "events")
    onlooker = Onlooker(monitor, told.append)
    monkeypatch.setattr(RecordWriter, "write", full)
    before = {thread for thread in threading.enumerate() if "_AsyncWriterThread" not in type(thread).__name__}
    for _ in range(3):
        onlooker.begins(0.1)
        onlooker.is_over()
        onlooker.write(1.0)
    onlooker.close()
    for thread in set(threading.enumerate()) - before:  # what it met would be told in a later test
        thread.join(10)
    (sentence,) = told
    assert re.match("the log ends before step [12], and training goes on: .*No space left", sentence)


def test_the_command_writes_events_beside_its_log(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("train", "--steps", 3, "--out", "w.safetensors", "--tensorboard", "events")
    code, _, told = run_command(capsys, monkeypatch, *arguments, "--log", "run.jsonl")
    assert (code, told) == (0, "")
    lines = read_log("run.jsonl")
    assert [set(line) >= set(FIELDS) for line in lines] == [True] * 3
    assert_events_of("events", lines)
    torch.set_num_threads(1)
