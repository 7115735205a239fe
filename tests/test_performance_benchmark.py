"""What of benchmarks/performance is no timing: its rivals compute what they say, its report says what was measured."""

import copy
import doctest
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lnsnum
from lnsnum import LNSFormat, encode, lns8f3, lns16f10
from lnsnum.torch_bridge import Madam

sys.path.insert(0, str(Path(lnsnum.__file__).parents[1]))

pytest.importorskip("threadpoolctl")

from benchmarks.performance import (
    arrays,
    datapath,
    files,
    kernels,
    products,
    report,
    rivals,
    scales,
    startup,
    timing,
    training,
    uses,
)
from benchmarks.performance.cases import COPY, OWN, Case, Mark, Point, Run, UnavailableError
from benchmarks.performance.marks import MARKS

RATIO = Mark("a kernel", "kernel", 2.0, 1.0, (1000,))


def point(case="kernel", size=1000, threads=2, others=0.0, **seconds):
    return Point(case, size, threads, "element", size, 5 * size, "1 look-up", "rival", COPY, seconds, others)


def run_of(*points):
    return Run({"processor": "some"}, "abc", list(points), {})


def test_the_examples_of_the_report_are_right():
    assert doctest.testmod(report).failed == 0


@pytest.mark.parametrize(
    ("kind", "good", "fair", "bad"),
    [
        ("of", (2, 2), (3, 2), (5, 2)),
        ("times faster", (1, 2), (2, 3), (2, 1)),
        ("seconds over", (2, 1), (3, 1), (9, 1)),
        ("seconds", (2, 9), (3, 1), (5, 1)),
    ],
)
def test_a_mark_is_reached_from_its_side(kind, good, fair, bad):
    marks = {"of": (2.0, 1.0), "times faster": (1.5, 2.0), "seconds over": (2.0, 1.0), "seconds": (4.0, 2.0)}
    mark = Mark("a kernel", "kernel", *marks[kind], (), kind=kind)
    assert [mark.verdict(mark.value(*pair)) for pair in (good, fair, bad)] == ["stretch", "mark", "missed"]


def test_rows_take_the_most_threads_and_the_sizes_of_the_mark_or_else_the_largest():
    points = [point(size=s, threads=t, lnsnum=3.0, rival=2.0) for s in (100, 1000, 10_000) for t in (1, 2)]
    (row,) = report.rows(run_of(*points), [RATIO])
    assert (row.point.size, row.point.threads, row.value, row.baseline) == (1000, 2, 1.5, "rival")
    (row,) = report.rows(run_of(*points), [Mark("a kernel", "kernel", 2.0, 1.0, (7,))])
    assert row.point.size == 10_000


def test_what_is_more_is_told_in_a_unit_that_fits():
    mark = Mark("a kernel", "kernel", 25e-6, 1.5, (1000,), kind="seconds over")
    (line,) = report.marks_table(run_of(point(lnsnum=40e-6, rival=10e-6)), [mark]).splitlines()[2:]
    assert "| 30 µs more | 25 µs more | 1.5 s more |" in line
    (line,) = report.marks_table(run_of(point(lnsnum=10e-6, rival=40e-6)), [mark]).splitlines()[2:]
    assert "| 30 µs less |" in line


@pytest.mark.parametrize("case", uses.cases(), ids=lambda case: case.name)
def test_uses_of_weights_run(case):
    torch.manual_seed(0)
    data = case.data(64)
    for make in case.sides.values():
        try:
            assert make(data)() is None
        except UnavailableError as error:
            pytest.skip(str(error))


def test_generation_runs_and_names_every_side(capsys, monkeypatch):
    from benchmarks import generation

    sides = {name: make for name, make in generation.SIDES.items() if "torchao" not in name}
    monkeypatch.setattr(generation, "SIDES", sides)
    seconds, memory = generation.measure(generation.SMALL, tokens=2, rounds=1)
    assert seconds.keys() == memory.keys() == sides.keys()
    assert min(seconds.values()) > 0
    assert memory["lns8f5"] == memory["float32"] / 4 == memory["bfloat16"] / 2
    assert capsys.readouterr().out == ""


def test_codes_generate_what_their_floats_do():
    """Of sums in two orders the last bits differ, and the likeliest token hardly ever."""
    from benchmarks import generation

    torch.manual_seed(0)
    model = generation.Llama(generation.SMALL).eval().requires_grad_(False)
    decoded = generation.decoded(copy.deepcopy(model))
    codes = generation.by_codes(copy.deepcopy(model))
    with torch.inference_mode():
        for at, token in enumerate([1, 5, 9]):
            logits = [m(torch.tensor([[token]]), at) for m in (decoded, codes)]
            torch.testing.assert_close(*logits)
    assert len(generation.generate(codes, 3)) == 3


def test_a_mark_without_its_two_sides_makes_no_row():
    assert report.rows(run_of(point(lnsnum=1.0), point(case="other", lnsnum=1.0, rival=1.0)), [RATIO]) == []
    assert report.rows(run_of(), [RATIO]) == []


def test_the_tables_hold_times_for_each_unit_and_ratios():
    run = run_of(point(lnsnum=3e-6, rival=2e-6, **{COPY: 1e-6}))
    (line,) = report.marks_table(run, [RATIO]).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        *("a kernel", "rival", "mark", "1,000", "3 ns", "2 ns", "1.5", "2", "1"),
        *(f"1 ns, {COPY}", "3"),
    ]
    assert "| 2 | 1,000 | 5 | 3 ns | 2 ns (1.5) | 1 ns (3) |" in report.sweep_tables(run)


def test_a_mark_in_seconds_is_shown_with_its_unit():
    run = run_of(point(lnsnum=4.2e-6, rival=2e-6))
    (line,) = report.marks_table(run, [Mark("a call", "kernel", 5e-6, 3e-6, (1000,), kind="seconds")]).splitlines()[2:]
    assert "| mark | 1,000 | 4.2 ns | 2 ns | 4.2 µs | 5 µs | 3 µs |" in line


def test_small_calls_compute_the_same_on_tensors_and_floats():
    numbers = kernels.Numbers(50)
    for case in arrays.cases():
        if "small call" in case.name:
            own, theirs = (case.sides[side](numbers)() for side in (OWN, case.baseline))
            np.testing.assert_allclose(own.to_float(), theirs, rtol=0.1, atol=0.7)


def test_a_side_that_stopped_leaves_its_cell_empty_and_a_disturbed_point_is_marked():
    run = run_of(point(lnsnum=3e-6, rival=2e-6), point(size=10, others=0.5, lnsnum=1e-8))
    lines = report.sweep_tables(run).splitlines()
    assert "| 2 | 10† | 5 | 1 ns |  |" in lines
    assert "in 1 of 2 points" in report.machine(run)


def test_what_is_missing_is_told_once_for_each_reason():
    run = Run({}, "abc", [], {"xlns of add": "not there", "xlns of multiply": "not there"})
    assert report.missing(run) == "- Not measured: xlns of add, xlns of multiply. Reason: not there."


def test_a_run_survives_json():
    run = run_of(point(lnsnum=1.0, rival=2.0))
    assert Run.from_json(run.to_json()) == run


def test_cases_measured_anew_take_the_place_of_the_old_and_are_named():
    old = [point(name, size=size, lnsnum=1.0) for name in ("a", "b", "c") for size in (1, 2)]
    run = run_of(*old)
    run.take([point("b", size=3, lnsnum=2.0)])
    run.take([point("d", lnsnum=2.0)])
    assert [(p.case, p.size) for p in run.points] == [
        ("a", 1), ("a", 2), ("b", 3), ("c", 1), ("c", 2), ("d", 1000)
    ]  # fmt: skip
    run.anew = {"b": "def", "d": "def"}
    assert "Commit abc. Measured anew at commit def: b, d. processor some." in report.machine(run)
    assert Run.from_json(run.to_json()) == run


def test_runs_are_compared_by_their_ratios_and_not_by_their_times():
    old = run_of(
        point(lnsnum=1.0, rival=1.0), point(size=10, lnsnum=1.0, rival=1.0), point(size=7, lnsnum=1.0, rival=1.0)
    )
    new = run_of(
        point(lnsnum=5.0, rival=5.0), point(size=10, lnsnum=3.0, rival=2.0), point(size=8, lnsnum=1.0, rival=1.0)
    )
    found = {change.size: change.factor for change in report.changes(old, new)}
    assert found == {1000: 1.0, 10: 1.5}
    text = report.comparison(old, new)
    assert "| **kernel** | 10 | 2 | 1 | 1.5 | 1.5 |" in text
    assert "| kernel | 1,000 | 2 | 1 | 1 | 1 |" in text
    assert "1 of 2 grew by more than 10%" in text


def test_the_figures_of_a_page_are_replaced_and_the_rest_is_kept():
    page = f"before\n{report.START}\nold\n{report.END}\nafter\n"
    once = report.put_between_markers(page, "new\n")
    assert once == f"before\n{report.START}\n\nnew\n\n{report.END}\nafter\n"
    assert report.put_between_markers(once, "new\n") == once


@pytest.mark.parametrize("page", ["", report.START, f"{report.END}{report.START}", 2 * f"{report.START}{report.END}"])
def test_a_page_without_the_two_markers_is_refused(page):
    with pytest.raises(ValueError, match="once each"):
        report.put_between_markers(page, "new")


def test_every_mark_has_a_case_that_has_its_sides_and_its_sizes():
    rooms = kernels, scales, arrays, products, uses, training, datapath, files
    cases = {case.name: case for room in rooms for case in room.cases()}
    assert len(cases) == sum(len(room.cases()) for room in rooms)
    for case in cases.values():
        assert {OWN, case.baseline} <= case.sides.keys()
        assert case.floor == COPY or case.floor in case.sides
    for mark in MARKS:
        if mark.case in cases:
            case = cases[mark.case]
            assert (mark.baseline or case.baseline) in case.sides
            assert set(mark.sizes) <= set(case.sizes)
            assert mark.cost(mark.stretch) < mark.cost(mark.mark)
    assert {mark.case for mark in MARKS} - cases.keys() == {startup.IMPORT, startup.FIRST, startup.LATER}


@pytest.mark.parametrize("case", scales.cases(), ids=lambda case: case.name)
def test_the_sides_of_many_scales_do_what_they_say(case):
    """On as few numbers as make a matrix: codes, or floats, of all of them, and of several scales other ones."""
    size = 10_000
    data = case.data(size)
    found = {
        name: np.asarray(make(data)() if "decode" in case.name else coded(make(data)()))
        for name, make in case.sides.items()
    }
    assert {array.size for array in found.values()} == {size}


def coded(result):
    """Codes, without their log_offset; of torch's floats, the bytes."""
    codes = result[0] if isinstance(result, tuple) else result
    return codes.view(torch.uint8) if isinstance(codes, torch.Tensor) else codes


def test_a_side_that_would_take_too_long_or_cannot_be_measured_is_left_out(monkeypatch):
    monkeypatch.setattr(
        timing, "medians", lambda calls, repeats, budget: {name: call() for name, call in calls.items()}
    )
    monkeypatch.setattr(timing, "use_threads", lambda n: None)

    def absent(size):
        raise UnavailableError("not there")

    sides = {OWN: lambda size: lambda: 1e-6 * size, "slow": lambda size: lambda: 1e-2 * size, "absent": absent}
    case = Case("kernel", "slow", sides, int, lambda size: size, "none", sizes=(10, 100, 1000, 10_000), floor=OWN)
    missing = {}
    options = {"repeats": 1, "budget": 1.0, "limit": 2.0, "missing": missing, "tell": lambda what: None}
    points = timing.sweep(case, [1], largest=1000, **options)
    assert [(p.size, set(p.seconds)) for p in points] == [(10, {OWN, "slow"}), (100, {OWN, "slow"}), (1000, {OWN})]
    assert missing == {"absent of kernel": "not there"}


def test_medians_call_every_side():
    calls = {"a": [], "b": []}
    found = timing.medians({name: lambda name=name: calls[name].append(0) for name in calls}, repeats=1, budget=0.0)
    assert found.keys() == calls.keys()
    assert all(calls.values())


def test_the_quietest_attempt_is_kept(monkeypatch):
    shares = iter([0.5, 0.2, 0.3])
    monkeypatch.setattr(timing.Others, "share", lambda self: next(shares))
    found = iter([{"a": 1.0}, {"a": 2.0}, {"a": 3.0}])
    assert timing.quietest(lambda: next(found), patience=math.inf) == ({"a": 2.0}, 0.2)


def test_float_madam_is_the_paper_s_step():
    """One weight by hand: at the first step g / sqrt(v_hat) is the sign of g."""
    w = torch.tensor([1.0, -2.0, 0.5])
    madam = rivals.FloatMadam(w, lr=0.1)
    madam.step(torch.tensor([3.0, 5.0, -1e-3]))
    expected = [math.exp(-0.1), -2 * math.exp(0.1), 0.5 * math.exp(0.1)]
    assert w.tolist() == pytest.approx(expected, rel=1e-6)


def test_float_madam_steps_as_lnsnum_s_does_on_floats():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(1000, generator=generator)
    parameter = torch.nn.Parameter(w.clone())
    theirs, ours = rivals.FloatMadam(w, lr=0.05), Madam([parameter], lr=0.05, rule="paper")
    for _ in range(20):
        gradient = torch.randn(1000, generator=generator)
        theirs.step(gradient)
        parameter.grad = gradient
        ours.step()
    torch.testing.assert_close(w, parameter.detach(), rtol=1e-4, atol=0.0)


def test_integer_madam_moves_whole_levels_and_floats_follow():
    w = torch.tensor([1.0, -2.0, 0.5, 1e-9])
    madam = rivals.IntegerMadam(w, lr=3 / 64)
    before = madam.k.clone()
    assert before.tolist() == [round(64 * math.log(madam.max / x)) for x in (1.0, 2.0, 0.5)] + [255]
    madam.step(torch.tensor([1.0, 1.0, -1.0, 1.0]))
    assert (madam.k - before).tolist() == [3, -3, -3, 0]
    expected = madam.max * torch.tensor([1.0, -1.0, 1.0, 1.0]) * torch.exp(-madam.k / 64)
    torch.testing.assert_close(w, expected)


def test_integer_madam_stays_on_its_ladder():
    w = torch.randn(100, generator=torch.Generator().manual_seed(0))
    madam = rivals.IntegerMadam(w, lr=1.0)
    for _ in range(5):
        madam.step(torch.ones(100))
    assert 0 <= int(madam.k.min()) <= int(madam.k.max()) <= 255
    assert float(w.abs().max()) <= np.float32(madam.max)


def test_numbers_are_packed_as_xlns_keeps_them():
    codes = encode(np.float32([1.0, -1.0, 2.0, -0.5, 0.0]), lns8f3)
    assert rivals.packed(codes, lns8f3).tolist() == [0, 1, 16, -15, np.iinfo(np.int64).min]


def test_xlns_computes_with_our_numbers():
    pytest.importorskip("xlns")
    x, y = np.float32([1.0, -3.0, 0.3]), np.float32([2.0, 2.5, 0.7])
    fmt = LNSFormat(32, 20)
    a, b = (rivals.xlns_array(encode(v, fmt), fmt) for v in (x, y))
    assert list((a * b).xlns().astype(float)) == pytest.approx((x * y).tolist(), rel=1e-5)
    assert list((a + b).xlns().astype(float)) == pytest.approx((x + y).tolist(), rel=1e-5)


@pytest.mark.parametrize("tables", [False, True])
def test_xlnstorch_computes_the_product(tables):
    try:
        x, y = np.random.default_rng(0).uniform(1, 2, (2, 4, 4)).astype(np.float32)
        call = rivals.xlnstorch_binary(torch.matmul, x, y, lns16f10, tables=tables)
    except UnavailableError as error:
        pytest.skip(str(error))
    np.testing.assert_allclose(call().value.numpy(), x @ y, rtol=1e-2)


def test_a_module_that_is_not_there_is_unavailable():
    with pytest.raises(UnavailableError, match="no_such_module"):
        rivals.load("no_such_module")
