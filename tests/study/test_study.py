"""The study's journal, its processes and its command: what is done is kept, whatever ends it."""

import errno
import json
import lzma
import os
import re
import signal
import subprocess
import sys
import time
import types
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from command_line import run_command
from toy_study import ToyProblem, ToyTask, run_small_plan, small_plan

import lnsnum
import lnsnum.cli.study as command
from lnsnum.study import estimate as estimates
from lnsnum.study import plan, problems, runner
from lnsnum.study.execution import describe, find_data, one_run
from lnsnum.study.journal import Journal, Record, read_journal, scores
from lnsnum.study.workers import Outcome, Workers
from lnsnum.tasks import TaskError
from lnsnum.tasks.measure import ACCURACY
from lnsnum.tasks.recipe import Recipe

LINE = (
    b'{"problem": "toy", "steps": 30, "data": "0123456789abcdef", "recipe": {"format": "lns8f5", "optimizer": "madam", '
    b'"lr": 0.05, "schedule": "linear", "momentum": 0.0, "second_moment": "byte", "rule": "hypentropy", '
    b'"crossover": 1.0, "cap": 0.2, "ceiling": "follow", "rounding": null, '
    b'"p_scale": 3.0, "zeros": "keep", "parameters": "all"}, "seed": 0, "score": 1.5, "failure": null, "loss": 2.25, '
    b'"seconds": 0.125, "weights": 10, "weight_bytes": 1.0, "state_bytes": 1.25, "lnsnum": "1.0", "torch": "2.0"}\n'
)
RECORD = Record(
    "toy", 30, "0123456789abcdef", Recipe(lr=0.05, momentum=0.0), 0, 1.5, None, 2.25, 0.125, 10, 1.0, 1.25, "1.0", "2.0"
)  # fmt: skip
LINE_2 = LINE.replace(b'"seed": 0, "score": 1.5, "failure": null', b'"seed": 1, "score": null, "failure": "\\u00fc"')
RECORD_2 = replace(RECORD, seed=1, score=None, failure="ü")


def changed(**fields):
    return json.dumps({**json.loads(LINE), **fields}).encode() + b"\n"


class Inline:
    """The processes of a study, in this one; items are done in the opposite order, to be out of order."""

    def __init__(self, jobs, function):
        self.jobs, self.function, self.busy = jobs, function, []

    has_room = property(lambda self: len(self.busy) < self.jobs)

    def hand(self, item):
        assert self.has_room
        self.busy.append(item)

    def next(self):
        item = self.busy.pop()
        return Outcome(item, self.function(item), None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


# The journal.


def test_a_line_is_a_record(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(LINE + LINE_2)
    assert read_journal(path) == [RECORD, RECORD_2]
    assert RECORD.line() == LINE
    assert RECORD_2.line() == LINE_2
    assert scores([RECORD, RECORD_2]) == {RECORD.run.key: 1.5, RECORD_2.run.key: None}
    assert RECORD.run.key == plan.Run("toy", Recipe(), 0).key  # the learning rate is filled in


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(LINE + LINE_2 + changed(seconds=7))
    assert read_journal(path) == [RECORD, RECORD_2]


def test_a_journal_packed_by_xz_is_read_and_not_continued(tmp_path):
    path = tmp_path / "j.jsonl.xz"
    path.write_bytes(lzma.compress(LINE + LINE_2))
    assert read_journal(path) == [RECORD, RECORD_2]
    with pytest.raises(TaskError, match="packed: it can be read, not continued; unpack it with xz -d first"):
        Journal(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TaskError, match="no whole xz file"):
        read_journal(path)


def test_a_torn_last_line_is_cut_off_wherever_it_is_torn(tmp_path):
    path = tmp_path / "j.jsonl"
    for whole in (b"", changed(seed=7)):
        before = [replace(RECORD, seed=7)] if whole else []
        for length in range(0, len(LINE), 1 if not whole else 97):
            path.write_bytes(whole + LINE[:length])
            left = [*before, RECORD] if length == len(LINE) - 1 else before  # only the end of the line is missing
            assert read_journal(path) == left
            assert path.read_bytes() == whole + LINE[:length]  # readers change nothing
            if length in (0, 1, 12, 13, 14, 200, len(LINE) - 2, len(LINE) - 1):  # each waits for the disk
                with Journal(path) as journal:
                    assert journal.records == left
                    journal.append(RECORD_2)
                    assert journal.records == [*left, RECORD_2]
                assert path.read_bytes() == whole + (LINE if len(left) > len(before) else b"") + LINE_2


def without(field):
    entry = json.loads(LINE)
    (entry["recipe"] if field in entry["recipe"] else entry).pop(field)
    return json.dumps(entry).encode() + b"\n"


RECIPE = json.loads(LINE)["recipe"]
MALFORMED = {
    "a torn line in the middle": (LINE[:80] + b"\n" + LINE, "line 1 is not JSON"),
    "an empty line": (LINE + b"\n" + LINE_2, "line 2 is not JSON"),
    "text": (b"Dear diary", "line 1 is not JSON"),
    "text of several lines": (b"Dear diary,\nnothing\n", "line 1 is not JSON"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0", "line 1 is not JSON"),
    "no UTF-8": (LINE.replace(b"toy", b"\xff"), "line 1 is not JSON"),
    "deep": (b"[" * 100_000 + b"\n", "line 1 is not JSON"),
    "text after records": (LINE + LINE_2 + b"oh", "line 3 is not JSON"),
    "other JSON": (b"[1]\n", "line 1 is no object with the field problem"),
    "other JSON without an end of line": (b"{}", "line 1 lacks the field 'problem'"),
    "an unknown field": (changed(more=1), "line 1 has an unknown field 'more'"),
    "an unknown choice": (changed(recipe={**RECIPE, "x": 1}), "line 1 has an unknown field 'recipe.x'"),
    "a recipe that is no object": (changed(recipe=3), "line 1 is no object with the field recipe.format"),
    "NaN": (changed(score=float("nan")), "line 1 has score=nan, which cannot be"),
    "infinity": (changed(loss=float("inf")), "line 1 has loss=inf, which cannot be"),
    "a number that is no float": (changed(loss=10**400), "line 1 has loss=1000.*, which cannot be"),
    "steps of a half": (changed(steps=0.5), "line 1 has steps=0.5, which cannot be"),
    "a seed below 0": (changed(seed=-1), "line 1 has seed=-1, which cannot be"),
    "a truth": (changed(weights=True), "line 1 has weights=True, which cannot be"),
    "a number as text": (changed(seconds="3"), "line 1 has seconds='3', which cannot be"),
    "a rate as text": (changed(recipe={**RECIPE, "lr": "3"}), "line 1 has recipe.lr='3', which cannot be"),
    "a rate below 0": (changed(recipe={**RECIPE, "lr": -1}), "line 1 has a recipe that is none: lr.*-1 is no"),
    "no format": (changed(recipe={**RECIPE, "format": "x"}), "line 1 has a recipe that is none: format: "),
    "neither": (changed(score=None), "line 1 has not either a score or a failure"),
    "both": (changed(failure="?"), "line 1 has not either a score or a failure"),
    "other steps": (LINE + LINE_2.replace(b": 30,", b": 31,"), "in line 2 problem toy was run with 31 steps on"),
    "other data": (LINE + changed(seed=1, data="f"), "30 steps on data f, in line 1 with 30 on 0123456789abcdef"),
    **{f"no {f}": (without(f), f"line 1 lacks the field '(recipe.)?{f}'") for f in [*json.loads(LINE), *RECIPE]},
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_journal_is_refused_and_left_as_it_is(tmp_path, name):
    content, message = MALFORMED[name]
    path = tmp_path / "j.jsonl"
    path.write_bytes(content)
    for function in (read_journal, Journal):
        with pytest.raises(TaskError, match=message) as refused:
            function(path)
        assert str(refused.value).startswith(str(path))
        assert "\n" not in str(refused.value)
    assert path.read_bytes() == content


def test_two_studies_cannot_write_one_file(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path):
        with pytest.raises(TaskError, match=r"another study is writing .*j\.jsonl: wait for its end, or use another"):
            Journal(path)
        assert read_journal(path) == []
    with Journal(path) as journal:
        journal.append(RECORD)
    assert path.read_bytes() == LINE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        os.dup2(os.open("/dev/full", os.O_WRONLY), journal._file.fileno())
        with pytest.raises(OSError, match=r"j\.jsonl: no space is left on its disk"):
            journal.append(RECORD)
        assert journal.records == []


class Torn:
    """A file on a disk that is full: of the next line it takes some bytes, and then, for a while, can do nothing."""

    def __init__(self, file, room, can_cut):
        self.file, self.room, self.can_cut = file, room, can_cut

    def write(self, line):
        if self.room is None:
            return self.file.write(line)
        if not self.room:
            raise OSError(errno.ENOSPC, "full")
        taken = self.file.write(line[: self.room])
        self.room = 0
        return taken

    def truncate(self, size):
        if not self.can_cut:
            raise OSError(errno.EIO, "lost")
        self.file.truncate(size)

    def fileno(self):
        return self.file.fileno()

    def close(self):
        self.file.close()


@pytest.mark.parametrize("can_cut", [True, False])
@pytest.mark.parametrize("room", [1, 100, len(LINE_2) - 1])
def test_a_record_after_a_torn_one_is_a_line_of_its_own(tmp_path, room, can_cut):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append(RECORD)
        journal._file = torn = Torn(journal._file, room, can_cut)
        with pytest.raises(OSError, match=r"j\.jsonl: no space is left on its disk: make room"):
            journal.append(RECORD_2)
        assert path.read_bytes() == LINE + (b"" if can_cut else LINE_2[:room])
        if not can_cut:  # it cannot be taken back: nothing is put behind it
            with pytest.raises(OSError, match=r"j\.jsonl: its disk failed"):
                journal.append(RECORD_2)
        torn.room, torn.can_cut = None, True
        journal.append(RECORD_2)
        journal.append(replace(RECORD, seed=7))
        assert journal.records == [RECORD, RECORD_2, replace(RECORD, seed=7)]
    assert path.read_bytes() == LINE + LINE_2 + changed(seed=7)
    assert read_journal(path) == [RECORD, RECORD_2, replace(RECORD, seed=7)]


# One run.


def test_a_record_of_a_run():
    """Measured by hand: 10 weights; Adam holds two floats for each, and a step count for both of the parameters."""
    task, problem = ToyTask({}, 0), ToyProblem()
    run = plan.Run("toy", Recipe("float32", "adam", lr=0.1, schedule="constant"), 3)
    record = one_run(task, problem, run)
    torch.manual_seed(3)
    model = torch.nn.Linear(4, 2)
    adam, losses = torch.optim.Adam(model.parameters(), lr=0.1), []
    batches = task.batches(torch.Generator().manual_seed(3))
    for _ in range(30):
        loss = task.loss(model, next(batches))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert record.loss == pytest.approx(sum(losses[-20:]) / 20, rel=1e-12)
    assert record.score == task.score(model)
    assert (record.weights, record.weight_bytes, record.state_bytes) == (10, 4.0, (2 * 40 + 2 * 4) / 10)
    assert (record.problem, record.steps, record.data, record.seed) == ("toy", 30, "0123456789abcdef", 3)
    assert (record.run.key, record.failure) == (run.key, None)
    assert (record.lnsnum, record.torch) == (lnsnum.__version__, str(torch.__version__))
    again = one_run(task, problem, run)
    assert replace(again, seconds=record.seconds) == record
    assert 0 < record.seconds < 10
    native = one_run(task, problem, plan.Run("toy", Recipe(), 3))
    assert (native.recipe.lr, native.weight_bytes) == (0.05, 1.0)


def test_a_run_that_diverges_is_a_record():
    record = one_run(ToyTask({}, 0), ToyProblem(), plan.Run("toy", Recipe("float32", "sgd", lr=1.0), 0))
    assert re.fullmatch(r"the loss is (inf|nan) at step \d+ of 30: try a smaller learning rate", record.failure)
    assert (record.score, record.loss) == (None, None)
    record = one_run(ToyTask({5: "nan"}, 0), ToyProblem(), plan.Run("toy", Recipe(), 5))
    assert (record.score, record.failure) == (None, "the loss is nan after 30 steps")
    assert record.loss > 0


def test_a_run_in_words():
    assert describe(plan.Run("toy", Recipe(), 2)) == "toy, lns8f5 madam, lr=0.05, seed 2"
    run = plan.Run("toy", Recipe("float32", "sgd", lr=1e-3, p_scale=2.0), 0)
    assert describe(run) == "toy, float32 sgd, lr=0.001, p_scale=2.0, seed 0"


def test_rows_and_rates_are_what_a_problem_has():
    toy, gan, long = ToyProblem(), problems.PROBLEMS["gan"], problems.PROBLEMS["cifar10-resnet"]
    assert plan.rows_of(toy) == list(plan.ROWS)
    assert [row.inertia for row in plan.rows_of(gan)] == [0.0] * 7  # as the authors of the paper have it there
    assert [row.label for row in plan.rows_of(long)] == [
        "lns8f5 madam",
        "lns8f5 madam (paper)",
        "float32 sgd",
        "float32 adam",
    ]
    assert plan.row_rates(plan.ROWS[0], long) == [0.0001, 0.001, 0.01, 0.05, 0.1, 1.0]
    assert plan.row_rates(plan.ROWS[-1], toy) == [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    assert plan.ladder_runs(long) == [(0.01, "constant")]
    assert len(plan.ladder_runs(toy)) == 3


def test_of_the_rivals_the_best_two_get_five_seeds():
    toy = ToyProblem()
    scores = {run.key: None for run in plan.planned("without-tuning", toy, ACCURACY, {})}
    for row in plan.ROWS:
        for lr in plan.row_rates(row, toy):
            scores[plan.Run("toy", replace(row, lr=lr), 0).key] = -abs(lr - 0.3)  # the best is 0.3, then 0.1
    keys = {run.key for run in plan.planned("without-tuning", toy, ACCURACY, scores)}
    for row in plan.ROWS:
        five = [lr for lr in plan.row_rates(row, toy) if plan.Run("toy", replace(row, lr=lr), 4).key in keys]
        assert five == sorted({row.rate, 0.3} | ({0.1} if row.optimizer != "madam" else set()))


# Many runs.


@pytest.mark.parametrize(
    ("jobs", "measure"), [(1, replace(ACCURACY, higher_is_better=False)), (3, ACCURACY), (1000, ACCURACY)]
)
def test_all_that_is_planned_is_run_once(tmp_path, monkeypatch, jobs, measure):
    """The plan of the study itself, with made-up scores: no run is missing, none is there twice or too much."""
    ran = []

    def make_up(job):
        ran.append(job.run.key)
        rate = job.run.recipe.rate
        score = None if rate == 1.0 else 50 - abs(rate - 0.01) - job.run.seed  # every 0.01 is the best, or every 1e-4
        return replace(
            RECORD, recipe=job.run.recipe.filled(), seed=job.run.seed, score=score, torch=torch.__version__,
            failure="diverged" if score is None else None,
        )  # fmt: skip

    monkeypatch.setattr(runner, "Workers", _Subscriptable(Inline))
    monkeypatch.setattr(runner, "_do", make_up)
    parts = ("without-tuning", "ablations")
    problem = replace(find_data(ToyProblem(), {}), measure=measure)
    seen = []
    with Journal(tmp_path / "j.jsonl") as journal:
        runner.run_study([problem], parts, journal, jobs=jobs, on_progress=seen.append)
        result = journal.records
        expected = set()
        for part in parts:
            expected |= {run.key for run in plan.planned(part, problem.problem, measure, scores(result))}
        assert len(ran) == len(set(ran)) == len(result)
        assert set(ran) == expected == scores(result).keys()
        assert [progress.done for progress in seen] == list(range(len(ran) + 1))
        assert seen[-1].total == len(ran)
        assert [progress.record for progress in seen] == [None, *result]
        assert all(progress.total >= progress.done for progress in seen)
        runner.run_study([problem], parts, journal, jobs=jobs)
    assert len(ran) == len(result)


class _Subscriptable:
    """A class of which `C[...]` is C."""

    def __init__(self, kind):
        self.kind = kind

    def __getitem__(self, _):
        return self.kind


def comparable(records):
    """All but the time, in an order of no meaning."""
    return sorted(json.dumps({**asdict(record), "seconds": 0}, sort_keys=True) for record in records)


@pytest.mark.thorough
def test_a_study_that_is_killed_goes_on_where_it_was(tmp_path, monkeypatch):
    """kill -9 of a study in two processes, which end too; what it and another one leave is what one process gives."""
    monkeypatch.setattr(runner, "planned", small_plan)
    monkeypatch.setattr(runner, "Workers", _Subscriptable(Inline))
    whole = run_small_plan(tmp_path / "whole.jsonl", ToyProblem(), jobs=1)
    path = tmp_path / "killed.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    script = Path(__file__).parents[1] / "toy_study.py"
    with subprocess.Popen([sys.executable, script, path], env=environment, start_new_session=True) as study:
        while not path.exists() or path.read_bytes().count(b"\n") < 2:
            assert study.poll() is None
            time.sleep(0.01)
        with pytest.raises(TaskError, match="another study is writing"):
            Journal(path)
        study.kill()
    done = path.read_bytes()
    assert 2 <= len(read_journal(path)) < len(whole)
    path.write_bytes(done + LINE[:99])
    records = run_small_plan(path, ToyProblem(), jobs=3)
    assert path.read_bytes().startswith(done)
    assert comparable(records) == comparable(whole) == comparable(read_journal(path))
    assert len({record.run.key for record in records}) == len(records) == 9
    assert [r.run.recipe.rate for r in records if r.failure] == [1.0]
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(study.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a worker lives on")


def failing(tmp_path, troubles, **options):
    with pytest.raises(TaskError) as failed:
        run_small_plan(tmp_path / "j.jsonl", ToyProblem(troubles=troubles), **options)
    return str(failed.value).replace(str(tmp_path), "")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_run_that_fails_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "planned", small_plan)
    message = failing(tmp_path, {1: "raise", 2: "die"}, parts=["troubled"], jobs=1)
    assert message == (
        "2 runs came to no result, such as toy, lns8f5 madam, lr=0.05, seed 1: ZeroDivisionError: by zero; "
        "1 run kept in /j.jsonl"
    )
    message = failing(tmp_path, {2: "die"}, parts=["troubled"], jobs=1)  # what failed is run again
    assert message == (
        "a run came to no result: toy, lns8f5 madam, lr=0.05, seed 2: its process ended: killed by signal 9 (is there "
        "not enough memory?); 2 runs kept in /j.jsonl"
    )


def test_processes_that_cannot_start_end_the_study(capfd, monkeypatch):
    here_alone = types.ModuleType("here_alone")
    exec("def function(item): pass", here_alone.__dict__)
    monkeypatch.setitem(sys.modules, "here_alone", here_alone)
    with Workers(1, here_alone.function) as workers:
        workers.hand(3)
        with pytest.raises(TaskError, match="a process ended before its first run: exit code 1"):
            workers.next()
    assert "No module named 'here_alone'" in capfd.readouterr().err


def test_a_journal_of_other_steps_or_data_is_not_continued(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(LINE)
    with pytest.raises(TaskError, match=r"toy was run with 30 steps on data 0123456789abcdef; now it has 40 steps on"):
        run_small_plan(path, ToyProblem(steps=40))
    path.write_bytes(changed(data="f" * 16))
    with pytest.raises(TaskError, match=r"data ffffffffffffffff; now it has 30 steps on data 0123.*use another --out"):
        run_small_plan(path, ToyProblem())


def test_a_journal_of_another_torch_is_not_continued():
    problem = find_data(ToyProblem(), {})
    runner.check_records([problem], [replace(RECORD, torch=torch.__version__)], Path("j"))
    with pytest.raises(TaskError, match=r"^j: problem toy was run with torch 2\.0, and this is .*use another --out$"):
        runner.check_records([problem], [RECORD], Path("j"))


# How long it takes.


def test_an_estimate_from_the_journal():
    """SGD takes 4 s, LNS Madam 2 s (one diverged after 1 s), Adam is like the mean of all others."""
    problem = find_data(ToyProblem(), {})

    def done(recipe, seconds, score=1.0):
        failure = None if score else "diverged"
        recipe = replace(recipe, lr=recipe.rate)
        return replace(RECORD, recipe=recipe, seconds=seconds, score=score, failure=failure)

    records = [
        done(plan.paper(), 1.5), done(plan.paper("lns8f3"), 2.5), done(plan.paper("lns8f3", lr=1.0), 1.0, None),
        done(Recipe("float32", "sgd", lr=0.1), 4.0), done(Recipe("float32", "sgd", lr=1.0), 0.5, None),
        replace(RECORD, problem="other", seconds=1000.0),
    ]  # fmt: skip
    found = estimates.estimate([problem], ["without-tuning", "ablations"], records)
    foreseen = runner.foreseen_runs(problem, ["without-tuning"], scores(records)).values()
    left = [run for run in foreseen if run.key not in scores(records)]
    cost = {("madam", False): 2.0, ("sgd", True): 4.0}
    seconds = sum(cost.get((r.recipe.optimizer, r.recipe.format == "float32"), 8 / 3) for r in left)
    first, second = found.rows
    assert first[:5] == ("without-tuning", "toy", 30, len(foreseen), 5)
    assert first.seconds == pytest.approx(seconds)
    assert second == ("ablations", "toy", 30, 36, 1, pytest.approx(70.0))
    shared = 2  # the paper's rule with seeds 1 and 2
    assert found[1:] == (len(foreseen) + 36 - 3, 5, pytest.approx(seconds + 70 - 2.0 * shared))


def test_an_estimate_from_some_steps(monkeypatch):
    """120 steps of 5 ms and more, and a score."""
    monkeypatch.setattr(estimates, "Workers", _Subscriptable(Inline))
    problem = find_data(ToyProblem(steps=120, pause=0.005), {})
    found = estimates.estimate([problem], ["ablations"], [])
    assert found[1:3] == (36, 0)
    assert found.seconds > 36 * 120 * 0.005


def test_nothing_is_timed_where_nothing_is_left(monkeypatch):
    monkeypatch.setattr(estimates, "Workers", None)
    problem = find_data(ToyProblem(), {})
    runs = plan.planned("ablations", problem.problem, problem.measure, {})
    records = [replace(RECORD, recipe=replace(r.recipe, lr=r.recipe.rate), seed=r.seed) for r in runs]
    assert estimates.estimate([problem], ["ablations"], records) == ([("ablations", "toy", 30, 36, 36, 0)], 36, 36, 0)


# The command.


@pytest.fixture
def study(tmp_path, capsys, monkeypatch):
    """The command with toy problems, its processes in this one."""
    known = {"toy": ToyProblem(), "far": ToyProblem("far", data="away"), "near": ToyProblem("near", data="here")}
    monkeypatch.setattr(problems, "PROBLEMS", known, raising=False)
    monkeypatch.setattr(runner, "planned", small_plan)
    monkeypatch.setattr(runner, "Workers", _Subscriptable(Inline))
    monkeypatch.setattr(estimates, "Workers", _Subscriptable(Inline))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command(capsys, monkeypatch, *arguments, command=["study"])


def test_the_command_runs_all_and_goes_on(study, tmp_path):
    out = "8 runs in study.jsonl, 1 of them diverged; `lnsnum report study.jsonl` prints the tables\n"
    code, printed, err = study("--part", "without-tuning", "--part", "bits")
    assert (code, printed) == (0, out)
    assert [line for line in range(1, 10) if f"{line} of 8: toy, " in err] == list(range(1, 9))  # no terminal, no bar
    done = (tmp_path / "study.jsonl").read_bytes()
    assert done.count(b"\n") == 8
    assert study("--part", "without-tuning", "--part", "bits") == (0, out, "")
    assert (tmp_path / "study.jsonl").read_bytes() == done
    code, out, err = study("--part", "bits", "--out", "more.jsonl", "--data", "away=x", "--jobs", 3)
    assert (code, "16 of 16: " in err) == (0, True)
    assert out.startswith("16 runs in more.jsonl, 2 of them")
    assert {r.problem for r in read_journal(tmp_path / "more.jsonl")} == {"toy", "far"}
    assert study("--problem", "near", "--data", "here=x", "--out", "near.jsonl")[0] == 0
    assert {r.problem for r in read_journal(tmp_path / "near.jsonl")} == {"near"}


def test_a_dry_run_writes_nothing(study, tmp_path):
    code, out, err = study("--dry-run", "--part", "bits", "--jobs", 2)
    assert (code, err) == (0, "")
    assert re.search(r"8 runs, 0 done, \d+ (s|min) left with --jobs 2", out)
    assert re.search(r"│ bits +│ toy +│ +30 │ +8 │ +0 │ +\d+ s │", out)
    assert not (tmp_path / "study.jsonl").exists()
    study("--part", "bits")
    done = (tmp_path / "study.jsonl").read_bytes()
    code, out, _ = study("--dry-run", "--part", "bits")
    assert "8 runs, 8 done, 0 s left" in out
    code, out, _ = study("--dry-run", "--part", "bits", "--json")
    content = json.loads(out)
    assert (content["total"]["runs"], content["total"]["done"], content["total"]["seconds"]) == (8, 8, 0)
    assert [(row["part"], row["problem"], row["done"]) for row in content["parts"]] == [("bits", "toy", 8)]
    assert json.loads(study("--part", "bits", "--json")[1]) == {"path": "study.jsonl", "runs": 8, "diverged": 1}
    assert (tmp_path / "study.jsonl").read_bytes() == done


def test_ctrl_c_keeps_what_is_done(study, tmp_path, monkeypatch):
    do = runner._do
    calls = []

    def interrupted(job):
        calls.append(job)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return do(job)

    monkeypatch.setattr(runner, "_do", interrupted)
    code, out, err = study("--part", "bits", "--jobs", 1)
    assert (code, out) == (130, "")
    assert err.endswith("interrupted: 3 runs kept in study.jsonl; the same command continues")
    assert len(read_journal(tmp_path / "study.jsonl")) == 3


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_keeps_what_is_done(study, tmp_path, monkeypatch, number):
    """Between two runs, and while a record is written, which comes to its end."""
    write = Journal._write
    written = []

    def interrupted(self, line):
        written.append(line)
        if len(written) == 3:
            os.kill(os.getpid(), number)
        write(self, line)

    monkeypatch.setattr(Journal, "_write", interrupted)
    code, out, err = study("--part", "bits", "--jobs", 1)
    assert (code, out) == (128 + number, "")
    assert err.endswith("interrupted: 3 runs kept in study.jsonl; the same command continues")
    assert len(read_journal(tmp_path / "study.jsonl")) == 3


def test_what_the_journal_cannot_take_is_kept_elsewhere(study, tmp_path, monkeypatch):
    append = Journal.append

    def full(self, record):
        if len(self.records) == 2:
            raise OSError(errno.ENOSPC, "full", str(self.path))
        append(self, record)

    monkeypatch.setattr(Journal, "append", full)
    code, out, err = study("--part", "bits", "--jobs", 1)
    assert (code, out) == (2, "")
    assert err.endswith(
        "error: study.jsonl: no space is left on its disk: make room, or give a path on another; the run that was done "
        "last is a line of study-rescued.jsonl: append it to study.jsonl, which has all the others"
    )
    assert len(read_journal(tmp_path / "study.jsonl")) == 2
    monkeypatch.setattr(Journal, "append", append)
    with open(tmp_path / "study.jsonl", "ab") as journal:
        journal.write((tmp_path / "study-rescued.jsonl").read_bytes())
    assert len(read_journal(tmp_path / "study.jsonl")) == 3
    assert study("--part", "bits", "--jobs", 1)[0] == 0
    assert len(read_journal(tmp_path / "study.jsonl")) == 8


def test_processes_import_nothing_from_the_current_folder(tmp_path):
    """There, modules lie that Python's start and multiprocessing would take: each would leave a file."""
    for name in ("pickle", "struct", "signal", "threading", "runpy", "multiprocessing", "random", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'a').write({name!r})")
    script = tmp_path / "scripts" / "negate.py"
    script.parent.mkdir()
    script.write_text(
        "import operator\nfrom lnsnum.study.workers import Workers\nif __name__ == '__main__':\n"
        "    with Workers(1, operator.neg) as workers:\n        workers.hand(3)\n        print(workers.next().result)\n"
    )
    path = os.pathsep.join(part for part in sys.path if part)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, env={**environment, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "-3\n", "")
    assert not (tmp_path / "taken").exists()


REFUSED = {
    "part": (["--part", "bit"], "--part bit is not known: without-tuning, bits, ablations"),
    "problem": (["--problem", "toys"], "--problem toys is not known: toy, far, near"),
    "data": (["--data", "away"], "--data away is not NAME=PATH, such as away=/path/to/data"),
    "empty path": (["--data", "away="], "--data away= is not NAME=PATH, such as away=/path/to/data"),
    "name of data": (["--data", "toy=x"], "--data toy=x: 'toy' is not known: away, here"),
    "data twice": (["--data", "here=x", "--data", "here=y"], "--data here=... is given twice: x and y"),
    "no data": (["--problem", "far"], "far needs data"),
    "folder": (["--out", "nowhere/j.jsonl"], "--out nowhere/j.jsonl: there is no folder"),
    "packed": (["--out", "j.jsonl.xz"], "j.jsonl.xz is packed"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("dry", [False, True])
def test_bad_input_of_the_command(study, tmp_path, name, dry):
    arguments, message = REFUSED[name]
    if dry and name == "packed":
        return
    code, out, err = study(*arguments, *["--dry-run"] * dry)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dry", [False, True])
def test_what_is_no_journal_is_left_as_it_is(study, tmp_path, dry):
    (tmp_path / "study.jsonl").write_text("Dear diary")
    code, out, err = study(*["--dry-run"] * dry)
    assert (code, out, err) == (2, "", "error: study.jsonl is no journal of a study: line 1 is not JSON")
    assert (tmp_path / "study.jsonl").read_text() == "Dear diary"


def test_times_in_words():
    words = {0: "0 s", 29.4: "29 s", 31: "1 min", 3599: "1 h 0 min", 3540: "59 min", 12345678: "3,429 h 21 min"}
    assert {seconds: command.duration(seconds) for seconds in words} == words
