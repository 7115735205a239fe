"""`lnsnum report`: every figure by hand or by SciPy's own tests, verdicts at the margins, runs that are not there."""

import json
import math
import sys
from collections import Counter
from dataclasses import replace

import matplotlib.image
import pytest
import scipy.stats
from command_line import run_command

from lnsnum.cli import report as _command  # noqa: F401  (it enters itself)
from lnsnum.study import problems, statistics
from lnsnum.study.journal import read_journal
from lnsnum.study.learning_rates import best_single, in_margins, served
from lnsnum.study.plan import LADDER_RUNS, ROWS, ablation_recipes, bits_recipes, ladder, paper, row_rates
from lnsnum.study.results import No, Results
from lnsnum.study.tables import TABLES, make_tables
from lnsnum.study.text_table import Cell, TextTable
from lnsnum.tasks.measure import Measure

MEASURES = {
    "up": Measure("accuracy", "%", higher_is_better=True, margin=0.5),
    "down": Measure("loss", "nats", higher_is_better=False, margin=0.25),
    "ratio": Measure("perplexity", "", higher_is_better=False, margin=0.25, relative=True),
}
"""Margins that binary fractions are: at the margin is exactly there."""

LNS, SGD, ADAM, MADAM = ROWS[0], ROWS[5], ROWS[6], ROWS[4]
T = {1: 12.706205, 2: 4.302653, 4: 2.776445}
"""t(0.975), from printed tables."""

POOR = {"up": 50.0, "down": 9.0, "ratio": 90.0}
DIVERGED = None


def at(recipe, lr):
    return replace(recipe, lr=lr)


def lines_of(runs, **changed):
    """Lines of a journal, written without its module; `runs` are scores by problem, recipe and seed."""
    lines = []
    for (problem, recipe, seed), score in runs.items():
        entry = {
            "problem": problem,
            "steps": 1000,
            "data": "0123456789abcdef",
            "recipe": recipe.filled().as_dict(),
            "seed": seed,
            "score": score,
            "failure": "the loss is NaN" if score is None else None,
            "loss": None if score is None else 0.5,
            "seconds": 10.0 + 2.0 * seed,
            "weights": 12345,
            "weight_bytes": 4.0 if recipe.format == "float32" else 1.02,
            "state_bytes": {"madam": 1.0, "adam": 8.0, "sgd": 4.0}[recipe.optimizer],
            "lnsnum": "1.2.3",
            "torch": "9.8.7",
        }
        lines.append(json.dumps(entry | changed))
    return "".join(f"{line}\n" for line in lines)


def tuning(problem, ours=(98.0,) * 5, sgd=(98.5,) * 5, adam=(97.0,) * 5):
    """The part without tuning: SGD is best at 0.03, Adam at 0.003, Madam at its default; elsewhere all are poor."""
    poor = POOR[problem]
    best = {row: (row, ours) for row in ROWS} | {SGD: (at(SGD, 0.03), sgd), ADAM: (at(ADAM, 0.003), adam)}
    runs = {}
    for row, (chosen, scores) in best.items():
        runs |= {(problem, at(row, lr), 0): poor for lr in row_rates(row)}
        second = next(lr for lr in row_rates(row) if lr != chosen.rate)  # all others are level
        runs |= {(problem, at(row, lr), seed): poor for lr in (row.rate, second) for seed in range(5)}
        runs |= {(problem, at(chosen, chosen.rate), seed): score for seed, score in enumerate(scores)}
    for lr, schedule in LADDER_RUNS:
        runs |= {(problem, ladder(256, lr, schedule), seed): poor for seed in range(5)}
    return runs


def results_of(tmp_path, runs):
    path = tmp_path / "journal.jsonl"
    path.write_text(lines_of(runs))
    return Results(read_journal(path), MEASURES.__getitem__)


def tables_of(tmp_path, runs, name):
    return make_tables(results_of(tmp_path, runs), [name])


def texts(table):
    """The texts of a table, by the first cell of the row and the name of the column."""
    names = table.columns[1:]
    return {row[0].text: dict(zip(names, (cell.text.strip() for cell in row[1:]), strict=True)) for row in table.rows}


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """`lnsnum report` on a journal of these runs or these lines: exit code, stdout, stderr."""
    monkeypatch.setattr(problems, "measure_of", MEASURES.__getitem__)

    def start(journal, *arguments):
        path = tmp_path / "journal.jsonl"
        path.write_text(journal if isinstance(journal, str) else lines_of(journal))
        return run_command(capsys, monkeypatch, path, *arguments, command=["report"])

    return start


# ---------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("degrees", T)
def test_the_quantiles_are_the_printed_ones(degrees):
    assert statistics.t_quantile(degrees) == pytest.approx(T[degrees], abs=1e-6)


def test_an_interval_by_hand():
    """97, 98, 99, 98, 98: the deviations' squares add up to 2, so s^2 = 2 / 4."""
    values = [97.0, 98.0, 99.0, 98.0, 98.0]
    assert statistics.mean(values) == 98.0
    assert statistics.standard_deviation(values) == pytest.approx(math.sqrt(0.5))
    assert statistics.half_width(values) == pytest.approx(T[4] * math.sqrt(0.1), abs=1e-6)
    assert statistics.standard_deviation([1.0]) is None
    assert statistics.half_width([1.0]) is None
    assert statistics.half_width([3.0, 3.0]) == 0.0


def test_welch_by_hand():
    """Of (1, 3) and (10, 10) only the first varies: s^2 / n = 1, one degree of freedom."""
    assert statistics.difference([1.0, 3.0], [10.0, 10.0]) == pytest.approx((-8.0, -8.0 - T[1], -8.0 + T[1]), abs=1e-5)
    assert statistics.difference([1.0, 3.0], [2.0, 4.0]).mean == -1.0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 2.0, 4.0], [3.0, 3.5, 8.0]),
        ([97.1, 97.9, 98.4, 97.2, 97.7], [96.0, 99.0, 97.7]),
        ([1e-9, 2e-9], [5.0, 6.0, 7.0]),
    ],
)
def test_welch_is_scipys(a, b):
    interval = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    between = statistics.difference(a, b)
    assert (between.low, between.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert between.negated() == pytest.approx(tuple(statistics.difference(b, a)), rel=1e-9)
    assert between.excludes_zero == (not interval.low <= 0.0 <= interval.high)


def test_no_interval_and_no_width():
    assert statistics.difference([1.0], [2.0, 3.0]) == (-1.5, None, None)
    assert statistics.difference([1.0], [2.0, 3.0]).negated() == (1.5, None, None)
    assert not statistics.difference([1.0], [2.0, 3.0]).excludes_zero
    assert statistics.difference([2.0, 2.0], [1.5, 1.5]) == (0.5, 0.5, 0.5)
    assert statistics.difference([2.0, 2.0], [1.5, 1.5]).excludes_zero
    assert not statistics.difference([2.0, 2.0], [2.0, 2.0]).excludes_zero


# --------------------------------------------------------------------------------------------------------------- layout


def test_the_layout_of_a_table():
    table = TextTable(
        "name", "Title", ["", "a", "long"], [[Cell("x", "x"), Cell("1.5 ", 1.5), Cell("", None)]], ["Note."]
    )
    assert table.text().split("\n") == ["Title", "", "      a  long", "-------------", "x  1.5", "Note."]
    assert table.as_dict()["rows"] == [{"": "x", "a": 1.5, "long": None}]


# ---------------------------------------------------------------------------------------------------------------- claim


def test_the_claim_by_hand(tmp_path):
    """s^2 / n = 0.1 of ours and 0 of theirs: the interval is -0.5 ± 2.776 * 0.3162."""
    [table] = tables_of(tmp_path, tuning("up", ours=(97.0, 98.0, 99.0, 98.0, 98.0)), "claim")
    assert texts(table)["up"] == {
        "measure": "accuracy, %",
        "rival": "SGD 0.03",
        "its mean": "98.50 ± 0.00",
        "lns8f5 Madam": "98.00 ± 0.88",
        "difference": "-0.50 [-1.38, +0.38]",
        "margin": "0.50",
        "verdict": "level?",
    }
    assert table.missing == 0
    assert table.notes[-1].startswith("?:")


@pytest.mark.parametrize(
    ("problem", "ours", "theirs", "difference", "verdict"),
    [
        ("up", 98.51, 98.5, "+0.01", "above"),
        ("up", 98.5, 98.5, "+0.00", "level"),
        ("up", 98.0, 98.5, "-0.50", "level"),
        ("up", 97.99, 98.5, "-0.51", "missed"),
        ("down", 1.49, 1.5, "+0.010", "above"),
        ("down", 1.5, 1.5, "-0.000", "level"),
        ("down", 1.75, 1.5, "-0.250", "level"),
        ("down", 1.76, 1.5, "-0.260", "missed"),
        ("ratio", 7.9, 8.0, "+0.100", "above"),
        ("ratio", 10.0, 8.0, "-2.000", "level"),
        ("ratio", 10.01, 8.0, "-2.010", "missed"),
    ],
)
def test_verdicts_around_the_margins(tmp_path, problem, ours, theirs, difference, verdict):
    worse = theirs - 1.0 if problem == "up" else theirs + 1.0
    [table] = tables_of(tmp_path, tuning(problem, (ours,) * 5, sgd=(worse,) * 5, adam=(theirs,) * 5), "claim")
    line = texts(table)[problem]
    assert (line["rival"], line["verdict"]) == ("Adam 0.003", verdict)
    assert line["difference"].split(" ")[0] == difference
    assert line["margin"] == {"up": "0.50", "down": "0.250", "ratio": "2.000"}[problem]


@pytest.mark.parametrize(
    ("ours", "verdict"),  # 0.5 is the margin, 0.878 half of the interval
    [((98.0, 99.0, 98.0, 97.0, 98.0), "missed?"), ((97.0, 98.0, 97.0, 96.0, 97.0), "missed")],
)
def test_verdicts_that_the_interval_leaves_open(tmp_path, ours, verdict):
    [table] = tables_of(tmp_path, tuning("up", ours, sgd=(98.75,) * 5), "claim")
    assert texts(table)["up"]["verdict"] == verdict


def test_the_rival_is_the_better_mean_not_the_better_first_seed(tmp_path):
    runs = tuning("up", sgd=(99.0, 90.0, 90.0, 90.0, 90.0), adam=(95.0,) * 5)
    assert texts(tables_of(tmp_path, runs, "claim")[0])["up"]["rival"] == "Adam 0.003"


def test_a_rival_that_a_seed_lets_down_is_none(tmp_path):
    runs = tuning("up", sgd=(99.0, DIVERGED, 99.0, 99.0, 99.0), adam=(95.0,) * 5)
    assert texts(tables_of(tmp_path, runs, "claim")[0])["up"]["rival"] == "Adam 0.003"
    runs = tuning("up", sgd=(99.0, DIVERGED, 99.0, 99.0, 99.0), adam=(98.0, 98.0, 98.0, 98.0, DIVERGED))
    line = texts(tables_of(tmp_path, runs, "claim")[0])["up"]
    assert (line["rival"], line["verdict"]) == ("SGD 0.0001", "above")  # the second best of a rate
    runs |= {("up", at(row, 1e-4), 1): DIVERGED for row in (SGD, ADAM)}
    line = texts(tables_of(tmp_path, runs, "claim")[0])["up"]
    assert (line["rival"], line["difference"], line["verdict"]) == ("diverged", "-", "no rival")


def test_a_default_that_diverges_has_missed(tmp_path):
    line = texts(tables_of(tmp_path, tuning("up", ours=(98.0, 98.0, 98.0, 98.0, DIVERGED)), "claim")[0])["up"]
    assert (line["lns8f5 Madam"], line["difference"], line["verdict"]) == ("diverged 1/5", "diverged", "missed")


def test_no_verdict_while_runs_are_missing(tmp_path):
    runs = tuning("up", ours=(97.0, 98.0, 99.0, 98.0, 98.0))
    del runs["up", at(LNS, 0.05), 3], runs["up", at(LNS, 0.05), 4]
    [table] = tables_of(tmp_path, runs, "claim")
    line = texts(table)["up"]
    assert line["lns8f5 Madam"] == f"98.00 ± {T[2] / math.sqrt(3.0):.2f} (3 of 5)"
    assert (line["rival"], line["difference"], line["verdict"]) == ("SGD 0.03", "-", "-")
    # our 5, 10 rates of SGD and 10 of Adam (the default is one of them), 4 more seeds of either's best two
    assert table.notes[-1] == f"2 of {5 + len(row_rates(SGD)) + len(row_rates(ADAM)) + 16} runs are missing."
    del runs["up", at(SGD, 1.0), 0]
    line = texts(tables_of(tmp_path, runs, "claim")[0])["up"]
    assert (line["rival"], line["its mean"], line["verdict"]) == ("-", "-", "-")


# --------------------------------------------------------------------------------------------------------------- ladder


def test_the_ladder(tmp_path):
    runs = tuning("up", ours=(98.0,) * 5) | tuning("down", ours=(1.5,) * 5, sgd=(1.0,) * 5, adam=(2.0,) * 5)
    runs |= {("up", ladder(256, 0.01), seed): 97.0 + seed for seed in range(5)}
    runs |= {("down", ladder(256, 0.01), seed): DIVERGED for seed in range(5)}
    runs |= {("up", ladder(256, 0.05), seed): 98.0 for seed in range(5)}
    runs |= {("down", ladder(256, 0.05), seed): 1.25 for seed in range(5)}
    constant, ours, theirs = tables_of(tmp_path, runs, "ladder")
    width = T[4] * math.sqrt(0.5)  # 97 .. 101: s^2 / n = 2.5 / 5
    up = texts(ours)["up"]
    assert (up["lns8f5 Madam"], up["ladder"], up["verdict"]) == ("98.00 ± 0.00", f"99.00 ± {width:.2f}", "level")
    assert up["difference"] == f"-1.00 [{-1.0 - width:.2f}, {-1.0 + width:+.2f}]"
    down = texts(ours)["down"]
    assert (down["ladder"], down["difference"], down["verdict"]) == ("diverged", "diverged", "above")
    assert texts(theirs)["up"]["verdict"] == "level"
    assert texts(theirs)["down"]["difference"] == "-0.250 [-0.250, -0.250]*"
    assert texts(theirs)["down"]["verdict"] == "below"
    assert texts(constant)["up"]["verdict"] == "above"
    assert constant.title.endswith("lr 0.01 constant")
    assert ours.title.endswith("lr 0.01 linear")
    assert theirs.title.endswith("lr 0.05 linear")
    del runs["up", ladder(256, 0.01), 4]
    line = texts(tables_of(tmp_path, runs, "ladder")[1])["up"]
    assert (line["difference"], line["verdict"]) == ("-", "-")


# ------------------------------------------------------------------------------------------------------- learning rates


def test_the_grid(tmp_path):
    runs = tuning("down", ours=(1.0, 2.0, 3.0, 2.0, 2.0), sgd=(1.5,) * 5, adam=(1.25,) * 5)
    runs["down", at(SGD, 1.0), 0] = DIVERGED
    del runs["down", at(MADAM, 0.1), 0]
    grid, means = tables_of(tmp_path, runs, "grid")
    assert [row[0].text for row in grid.rows] == [
        "lns8f5 Madam", "lns8f5 paper's Madam", "lns8f4 paper's Madam", "lns8f3 paper's Madam", "float32 paper's Madam",
        "float32 SGD", "float32 Adam",
    ]  # fmt: skip
    lines = texts(grid)
    assert list(lines["float32 SGD"]) == [
        "0.0001",
        "0.0003",
        "0.001",
        "0.003",
        "0.01",
        "0.03",
        "0.05",
        "0.1",
        "0.3",
        "1",
    ]
    assert lines["lns8f5 Madam"] == {
        "0.0001": "9.000", "0.0003": "9.000", "0.001": "9.000", "0.003": "9.000", "0.01": "9.000", "0.03": "9.000",
        "0.05": "1.000*", "0.1": "9.000", "0.3": "9.000", "1": "9.000",
    }  # fmt: skip
    assert lines["float32 SGD"]["0.05"] == ""
    assert (lines["float32 SGD"]["0.03"], lines["float32 SGD"]["1"]) == ("1.500*", "diverged")
    assert lines["float32 paper's Madam"]["0.1"] == "-"
    assert "*" not in "".join(lines["float32 paper's Madam"].values())  # what is best is not known yet
    assert grid.missing == 1
    lines = texts(means)
    assert lines["lns8f5 Madam"] == {
        "best lr": "0.05",
        "at the best": f"2.000 ± {T[4] * math.sqrt(0.1):.3f}",
        "default lr": "0.05",
        "at the default": f"2.000 ± {T[4] * math.sqrt(0.1):.3f}",
    }
    assert lines["float32 Adam"]["best lr"] == "0.003"
    assert lines["float32 Adam"]["at the best"] == "1.250 ± 0.000"
    assert lines["float32 Adam"]["at the default"] == "9.000 ± 0.000"
    assert (lines["float32 paper's Madam"]["best lr"], lines["float32 paper's Madam"]["at the best"]) == ("-", "-")
    assert "lower is better" in grid.title


def test_a_row_that_diverged_everywhere(tmp_path):
    runs = tuning("up")
    runs |= {("up", at(SGD, lr), seed): DIVERGED for lr in row_rates(SGD) for seed in range(5)}
    grid, means = tables_of(tmp_path, runs, "grid")
    assert set(texts(grid)["float32 SGD"].values()) == {"diverged", ""}
    assert texts(means)["float32 SGD"] == {
        "best lr": "-", "at the best": "diverged", "default lr": "0.1", "at the default": "diverged",
    }  # fmt: skip
    assert texts(tables_of(tmp_path, runs, "claim")[0])["up"]["rival"] == "Adam 0.003"
    assert "diverged (up)" in texts(tables_of(tmp_path, runs, "one-rate")[0])["float32 SGD"]["worst"]


def test_one_rate_by_hand():
    """Bests are 98, 1 and 8; margins 0.5, 0.25 and 2."""
    grids = [
        ("up", MEASURES["up"], {0.01: 98.0, 0.1: 97.5, 1.0: 90.0}),
        ("down", MEASURES["down"], {0.01: 2.25, 0.1: 1.25, 1.0: 1.0}),
        ("ratio", MEASURES["ratio"], {0.01: 8.0, 0.1: 11.0, 1.0: No.DIVERGED}),
    ]
    assert served(0.01, grids) == (0.01, 2, 3, 5.0, "down")
    assert served(0.1, grids) == (0.1, 2, 3, 1.5, "ratio")
    assert served(1.0, grids) == (1.0, 1, 1, math.inf, "ratio")
    assert best_single(served(lr, grids) for lr in (0.01, 0.1, 1.0)).lr == 0.1
    assert in_margins(MEASURES["ratio"], 0.5, 0.0) == math.inf
    assert in_margins(MEASURES["ratio"], 0.0, 0.0) == 0.0


def test_one_rate(tmp_path):
    runs = tuning("up") | tuning("down", (1.0,) * 5, (1.0,) * 5, (1.0,) * 5)
    runs["up", at(LNS, 0.01), 0] = 96.0  # four margins below its best
    runs["down", at(LNS, 0.01), 0] = 1.25  # one
    runs["up", at(LNS, 1.0), 0] = DIVERGED
    del runs["up", at(ADAM, 1.0), 0]
    near, wide = tables_of(tmp_path, runs, "one-rate")
    line = texts(near)["lns8f5 Madam"]
    assert (line["of"], line["0.01"], line["0.05"], line["0.1"], line["0.03"], line["1"]) == (
        "2",
        "1",
        "2*",
        "0",
        "0",
        "0",
    )
    assert texts(near)["float32 SGD"]["0.05"] == ""
    assert (line["default"], line["worst"]) == ("0.05", "0")
    assert texts(wide)["lns8f5 Madam"]["0.01"] == "2"
    assert texts(near)["float32 Adam"]["of"] == "1"  # its grid on "up" is not done
    assert near.missing == 1
    runs = {key: score for key, score in runs.items() if key[1].optimizer != "adam"}
    line = texts(tables_of(tmp_path, runs, "one-rate")[0])["float32 Adam"]
    assert (line["of"], line["0.003"], line["worst"]) == ("0", "-", "-")


# ----------------------------------------------------------------------------------------------------- bits, ablations


def test_bits(tmp_path):
    runs = {("down", recipe, seed): 2.0 for recipe in bits_recipes().values() for seed in range(3)}
    runs |= {("down", paper("lns4f1"), seed): score for seed, score in enumerate((3.0, 4.0, 5.0))}
    runs["down", paper("lns4f1", rounding="nearest"), 1] = DIVERGED
    del runs["down", paper("lns16f11"), 2]
    [table] = tables_of(tmp_path, runs, "bits")
    assert [row[0].text for row in table.rows] == list(bits_recipes())
    lines = {name: list(line.values()) for name, line in texts(table).items()}
    ends = [-2.0 - T[2] / math.sqrt(3.0), -2.0 + T[2] / math.sqrt(3.0)]
    assert lines["lns4f1 stochastic"] == ["4", "4.000 ± 1.000", f"-2.000 [{ends[0]:.3f}, {ends[1]:+.3f}]"]
    assert lines["lns4f1 nearest"] == ["4", "diverged 1/3", "diverged"]
    assert lines["lns16f11 stochastic"] == ["16", "2.000 ± 0.000 (2 of 3)", "-"]
    assert lines["lns10f6 nearest"] == ["10", "2.000 ± 0.000", "-0.000 [-0.000, -0.000]"]
    assert [lines[name][0] for name in lines if "ladder" in name] == ["9", "9", "11", "11", "13", "13"]
    assert lines["float32 paper's Madam"] == ["32", "2.000 ± 0.000", ""]
    assert table.notes[-1] == f"1 of {3 * len(bits_recipes())} runs are missing."


def test_ablations(tmp_path):
    runs = {
        (problem, recipe, seed): (98.0 if problem == "up" else 2.0) + seed
        for problem in ("up", "down") for recipe in ablation_recipes().values() for seed in range(3)
    }  # fmt: skip
    for seed in range(3):
        runs["up", paper(rounding="nearest"), seed] = 97.5 + seed
        runs["down", paper(rounding="nearest"), seed] = 1.5 + seed
        runs["down", paper(momentum=0.9), seed] = 12.0 + seed
        runs["up", paper(p_scale=6.0), seed] = DIVERGED
    del runs["up", paper(zeros="leave"), 0]
    [table] = tables_of(tmp_path, runs, "ablations")
    lines = texts(table)
    assert lines["paper's rule"] == {"up": "99.00", "down": "3.000"}
    assert lines["rounding nearest"] == {"up": "-0.50", "down": "+0.500"}  # the intervals are ± 2.78 * 0.816
    assert lines["momentum 0.9"] == {"up": "+0.00", "down": "-10.000*"}
    assert lines["p_scale 6"]["up"] == "diverged"
    assert lines["zeros leave"]["up"] == "-"
    assert table.missing == 1
    assert list(lines) == list(ablation_recipes())


# ------------------------------------------------------------------------------------------------------- memory, budget


def test_memory_and_budget(tmp_path):
    runs = tuning("up") | {("down", at(ADAM, 0.3), seed): (2.0, DIVERGED)[seed] for seed in range(2)}
    runs["down", paper(momentum=0.9), 0] = 1.0  # not the default: it holds more
    [memory] = tables_of(tmp_path, runs, "memory")
    assert texts(memory) == {
        "up": {
            "lns8f5 Madam": "1.02 + 1.00",
            "float32 Adam": "4.00 + 8.00",
            "float32 SGD": "4.00 + 4.00",
            "float32 paper's Madam": "4.00 + 1.00",
        },
        "down": {
            "lns8f5 Madam": "-", "float32 Adam": "4.00 + 8.00", "float32 SGD": "-", "float32 paper's Madam": "-",
        },
    }  # fmt: skip
    [budget] = tables_of(tmp_path, runs, "budget")
    assert texts(budget)["down"] == {
        "steps": "1,000",
        "parameters": "12,345",
        "runs": "3",
        "diverged": "1",
        "s a run": "10.7",  # 10, 12 and 10
        "data": "0123456789abcdef",
        "lnsnum": "1.2.3",
        "torch": "9.8.7",
    }


def test_versions_that_differ_are_all_named(tmp_path):
    path = tmp_path / "journal"
    one, two = ({("up", LNS, seed): 98.0} for seed in range(2))
    path.write_text(lines_of(one) + lines_of(two, torch="9.9.0"))
    [table] = make_tables(Results(read_journal(path), MEASURES.__getitem__), ["budget"])
    assert texts(table)["up"]["torch"] == "9.8.7 and 9.9.0"
    assert table.as_dict()["rows"][0]["torch"] == ["9.8.7", "9.9.0"]


# -------------------------------------------------------------------------------------------------------------- command


def whole_study():
    runs = {}
    for problem, (ours, sgd, adam) in {"up": (98.0, 98.5, 97.0), "down": (1.5, 1.25, 2.0)}.items():
        runs |= tuning(problem, (ours,) * 5, (sgd,) * 5, (adam,) * 5)
        recipes = [*bits_recipes().values(), *ablation_recipes().values()]
        runs |= {(problem, at(it, it.rate), seed): ours for it in recipes for seed in range(3)}
    return runs


def test_the_command_prints_all_tables(run):
    code, out, err = run(whole_study())
    assert (code, err) == (0, "")
    assert "up           accuracy, %" not in out
    assert out.count("accuracy, %, mean of 5 seeds") == 1
    assert "missing" not in out
    assert max(map(len, out.splitlines())) <= 120
    assert not any(line != line.rstrip() for line in out.splitlines())
    assert [name for name in TABLES if name not in run(whole_study(), "--help")[1]] == []


def test_the_command_prints_json(run):
    code, out, _ = run(whole_study(), "--json", "--table", "claim", "--table", "bits")
    content = json.loads(out)
    assert code == 0
    assert Counter(table["table"] for table in content["tables"]) == {"claim": 1, "bits": 2}
    claim, of_up, of_down = content["tables"]
    assert (of_up["problem"], of_down["problem"], claim["problem"]) == ("up", "down", None)
    line = claim["rows"][1]
    assert line["rival"] == {"optimizer": "sgd", "lr": 0.03}
    assert (line["margin"], line["verdict"], line["difference"]["difference"]) == (0.25, "level", -0.25)
    assert line["lns8f5 Madam"] == {
        "mean": 1.5, "half_width": 0.0, "standard_deviation": 0.0, "finished": 5, "diverged": 0, "missing": 0,
    }  # fmt: skip


def test_tables_and_problems_are_chosen(run):
    code, out, _ = run(whole_study(), "--table", "claim", "--problem", "down")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[4:5]] == ["down"]
    assert "up" not in out.split()


def test_problems_with_no_run_of_a_part_are_left_out(run):
    """The paper's rule's first seeds belong to all parts: they begin none but the one that has a run of its own."""
    only_bits = {("up", paper("lns4f1"), 0): 90.0, ("up", paper(), 0): 98.0}
    code, out, _ = run(only_bits, "--json")
    assert code == 0
    assert [table["table"] for table in json.loads(out)["tables"]] == ["bits", "memory", "budget"]
    both = only_bits | {("down", paper(momentum=0.9), 0): 1.5}
    assert "Not begun: up." in run(both, "--table", "ablations")[1]
    code, out, _ = run(only_bits, "--table", "claim")
    assert (code, out) == (0, "The journal has no run that these tables tell of.\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--table", "grit"], "error: there is no table 'grit': the tables are claim, one-rate, ladder, grid, bits"),
        (["--problem", "left"], "error: the journal has no run of the problem 'left': it has runs of up, down"),
    ],
)
def test_names_that_are_none(run, arguments, sentence):
    code, out, err = run(whole_study(), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(sentence)


def test_journals_that_are_none(run, capsys, monkeypatch, tmp_path):
    code, _, err = run_command(capsys, monkeypatch, tmp_path / "nowhere", command=["report"])
    assert code == 2
    assert "nowhere" in err
    code, out, err = run("{}\n")
    assert (code, out) == (2, "")
    assert "line 1" in err
    code, _, err = run("")
    assert (code, err.endswith("has no run yet")) == (2, True)
    code, _, err = run(lines_of({("up", LNS, 0): 98.0}, problem="sideways"))
    assert (code, err) == (2, "error: the journal has runs of 'sideways', which this version does not know")


# ---------------------------------------------------------------------------------------------------------------- plots


def test_the_plots_are_written(run, tmp_path):
    runs = whole_study()
    runs["up", at(LNS, 1.0), 0] = runs["down", at(SGD, 0.1), 2] = DIVERGED
    runs["down", paper("lns4f1", rounding="nearest"), 1] = DIVERGED
    runs["down", at(ADAM, 1.0), 0] = 1e30
    del runs["up", at(MADAM, 1.0), 0], runs["up", at(paper("lns16f11"), 0.05), 0]
    folder = tmp_path / "new" / "plots"
    code, out, err = run(runs, "--plots", folder, "--table", "budget")
    assert (code, err) == (0, "")
    assert "bits.png: a plot" in out
    for name in ("without_tuning.png", "bits.png"):
        picture = matplotlib.image.imread(folder / name)[..., :3]
        assert picture.shape[0] > 300
        assert picture.shape[1] > 600
        assert len({tuple(color) for color in (255 * picture[::4, ::4]).astype(int).reshape(-1, 3)}) > 20
    assert sorted(path.name for path in folder.iterdir()) == ["bits.png", "without_tuning.png"]


def test_only_plots_of_what_is_there(run, tmp_path):
    code, out, _ = run({("up", paper("lns4f1"), 0): DIVERGED}, "--plots", tmp_path, "--json")
    assert (code, json.loads(out)["plots"]) == (0, [str(tmp_path / "bits.png")])


def test_plots_that_cannot_be(run, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = run(whole_study(), "--plots", tmp_path / "file")
    assert (code, err.endswith("is no folder")) == (2, True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run(whole_study(), "--plots", tmp_path)
    sentence = "--plots: this needs matplotlib, which is not installed: pip install 'lnsnum[plot]'"
    assert (code, err) == (2, f"error: {sentence}")
