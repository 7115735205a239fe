"""Logs of trainings: what is written is read again, while it grows too."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsnum.files.run_log import COUNTS, FIELDS, KINDS, RunLog, read_log

NUMBERS = st.none() | st.floats(width=64) | st.integers(0, 1 << 40)
LINES = st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS[1:], NUMBERS)), max_size=4)


@pytest.mark.parametrize("kind", KINDS)
@given(lines=LINES)
def test_what_is_written_is_read(kind, lines, tmp_path_factory):
    """Numbers that are not finite too, as of a loss that diverged: they are not what nobody told."""
    path = tmp_path_factory.mktemp("log") / f"run{kind}"
    lines = [{"step": i} | line for i, line in enumerate(lines, 1)]
    log = RunLog(path)
    for i, line in enumerate(lines):
        log.write(line)
        assert len(read_log(path)) == i + 1  # complete as soon as it is written
    log.close()
    known = [{k: v if v is None else float(v) for k, v in line.items()} for line in lines]
    assert [{k: repr(v if v is None else float(v)) for k, v in line.items()} for line in read_log(path)] == [
        {k: repr(v) for k, v in line.items()} for line in known
    ]  # as texts, for NaN is not itself
    if kind == ".jsonl":
        for line in path.read_text().splitlines():
            json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_keeps_the_lines_before_it(kind, tmp_path):
    path = tmp_path / f"run{kind}"
    log = RunLog(path, after=3)  # there is nothing yet
    for step in range(1, 6):
        counts = {"moved": 0.5, "grown": 0, "not_finite": step}
        log.write(dict.fromkeys(FIELDS) | {"step": step, "loss": float(step)} | counts)
    log.close()
    before = path.read_bytes()
    again = RunLog(path, after=3)
    assert [line["step"] for line in again.kept] == [1, 2, 3]
    again.write(dict.fromkeys(FIELDS) | {"step": 4, "loss": 0.5})
    again.close()
    kept = path.read_bytes().splitlines()[:-1]
    assert kept == before.splitlines()[: len(kept)], "counts stay integers"
    assert [line["loss"] for line in read_log(path)] == [1.0, 2.0, 3.0, 0.5]
    RunLog(path).close()
    assert read_log(path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_lines_of_two_runs_on_one_log_stay_whole(kind, tmp_path):
    """The second one replaces the log while the first one still writes: no hole, no half line."""
    path = tmp_path / f"run{kind}"
    first = RunLog(path)
    first.write(dict.fromkeys(FIELDS) | {"step": 1})
    second = RunLog(path)
    for log, step in ((second, 2), (first, 3), (second, 4)):
        log.write(dict.fromkeys(FIELDS) | {"step": step})
    assert [line["step"] for line in read_log(path)] == [2, 3, 4]
    first.close()
    second.close()


def test_further_entries_are_what_json_has_of_them(tmp_path):
    log = RunLog(tmp_path / "run.jsonl")
    more = {"array": np.float32([1.5, np.nan]), "one": np.int64(3), "nested": {"a": (math.inf, None)}}
    log.write({"step": 1} | more)
    with pytest.raises(TypeError, match=r"run\.jsonl: <object .* is a object, and a log has numbers, texts"):
        log.write({"step": 2, "x": object()})
    log.close()
    (line,) = read_log(tmp_path / "run.jsonl")
    assert {name: line[name] for name in more} == {"array": [1.5, "NaN"], "one": 3, "nested": {"a": ["Infinity", None]}}


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"step": 1, "more": [1, 2]}) + '\n{"step": 2, "lo')
    (line,) = read_log(path)
    assert line == dict.fromkeys(FIELDS) | {"step": 1, "more": [1, 2]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.txt", "", r"run\.txt: a log ends in \.jsonl or \.csv"),
        ("run.jsonl", '{"step": 1}\nhello\n', "line 2 has no step, or no numbers"),
        ("run.jsonl", "[]\n", "line 1"),
        ("run.jsonl", '{"step": 0}\n', "line 1"),
        ("run.jsonl", '{"step": 1.5}\n', "line 1"),
        ("run.jsonl", '{"step": true}\n', "line 1"),
        ("run.jsonl", '{"step": 1, "loss": "much"}\n', "line 1"),
        ("run.jsonl", '{"step": 1, "lr": {}}\n', "line 1"),
        ("run.csv", "a,b\n", "its first line is not step,loss,lr,moved"),
        ("run.csv", ",".join(FIELDS) + "\n1,2,3,4,5,6,7,8,9,10,11,12\n", "line 2"),
    ],
)
def test_what_is_no_log_is_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_log(tmp_path / name)


def test_counts_are_those_of_a_step_report():
    madam = pytest.importorskip("lnsnum.torch_bridge.madam")
    assert ["weights", *COUNTS] == list(madam.StepReport.__dataclass_fields__)
