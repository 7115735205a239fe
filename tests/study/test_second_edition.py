"""The second edition: its plan counted by hand, verdicts at the interval's ends, tables of journals made by hand."""

import json
import math
from collections import Counter
from dataclasses import replace

import matplotlib.image
import pytest
import torch
from command_line import run_command
from toy_study import ToyProblem, ToyTask

from lnsnum.cli import report as _report  # noqa: F401  (they enter themselves)
from lnsnum.cli import study as _study  # noqa: F401
from lnsnum.study import estimate, execution, problems, runner, second_plan, trial
from lnsnum.study.execution import find_data, one_run
from lnsnum.study.journal import Journal, choosing, read_journal, scores
from lnsnum.study.plan import Run, paper
from lnsnum.study.problems import PROBLEMS, SECOND, Problem
from lnsnum.study.results import Results
from lnsnum.study.second_plan import ADAMS, CHANGES, FINALISTS, LNS_MADAMS, NINE, OURS, ROWS, planned
from lnsnum.study.second_plots import STYLES
from lnsnum.study.statistics import Difference, difference, verdict
from lnsnum.study.tables import make_tables
from lnsnum.tasks import TaskError
from lnsnum.tasks.measure import ACCURACY, LOSS, Measure
from lnsnum.tasks.recipe import Recipe

MEASURES = {
    "up": Measure("accuracy", "%", higher_is_better=True, margin=0.5),
    "down": Measure("loss", "nats", higher_is_better=False, margin=0.25),
}
T4 = 2.776445
"""t(0.975) of four degrees of freedom, from printed tables."""

EIGHT = ["digits", "cifar10-cnn", "cifar10-resnet", "gan", "characters", "words", "regression", "copying"]
FIVE = ["characters-gru", "cifar10-vit", "words-experts", "autoencoder", "fine-tuning"]


# ------------------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 1.0, "above"), (0.0, 1.0, "level"), (-0.49, 3.0, "level"), (-0.5, 0.1, "level"), (-0.51, 0.1, "open"),
        (-3.0, 3.0, "open"), (-3.0, -0.5, "open"), (-3.0, -0.51, "missed"), (-0.4, -0.1, "level"),
        (-0.6, -0.6, "missed"), (0.2, 0.2, "above"),
    ],
)  # fmt: skip
def test_a_verdict_is_of_the_ends_of_the_interval(low, high, said):
    assert verdict(Difference((low + high) / 2, low, high), 0.5) == said


def test_a_verdict_at_a_margin_that_binary_fractions_miss():
    """1.50 - 1.52 is a little below -0.02, and yet at the margin."""
    apart = difference([1.50] * 2, [1.52] * 2)
    assert apart.low < -0.02
    assert verdict(apart, 0.02) == "level"
    assert verdict(Difference(1.0, None, None), 0.02) is None


# ---------------------------------------------------------------------------------------------------------------- plan


def test_the_problems_are_the_eight_five_new_ones_and_two_longer():
    assert list(SECOND) == [*EIGHT, *FIVE, "cifar10-cnn-long", "characters-long"]
    for name in EIGHT:
        first, second = PROBLEMS[name], SECOND[name]
        assert replace(second, edition=1, seeds=first.seeds) == first
    assert {problem.edition for problem in SECOND.values()} == {2}
    assert [name for name, problem in SECOND.items() if problem.is_new] == FIVE
    longer = [problem for problem in SECOND.values() if problem.is_final]
    assert [(p.name, p.steps, p.data) for p in longer] == [
        ("cifar10-cnn-long", 3255, "cifar10"), ("characters-long", 2000, "shakespeare"),
    ]  # fmt: skip
    images = 50_000 - 50_000 // 6
    assert longer[0].steps == 5 * (images // 64)


def plan_of(problem, part, measure=LOSS, validation=None):
    runs = planned(part, problem, measure, validation or {})
    assert len({run.key for run in runs}) == len(runs)
    return runs


def guessed(problem, part, score=0.0):
    """All runs, where all rates are alike."""
    first = plan_of(problem, part)
    return plan_of(problem, part, validation={run.key: score for run in first})


@pytest.mark.parametrize("seeds", [5, 10])
def test_the_runs_of_a_problem_counted_by_hand(seeds):
    problem = Problem("toy", "toy", 10, edition=2, seeds=seeds)
    ours, nine = 6 * seeds, 3 * (9 + 2 * (seeds - 1))
    five = 6 * (5 + 2 * (seeds - 1))  # two of the paper's, three others', LNS-Madam
    assert len(guessed(problem, "rows")) == ours + nine + five + 9  # the curve has the default once more
    assert len(plan_of(problem, "matters")) == 29 * 3
    assert plan_of(problem, "finalists") == []
    coarse = replace(problem, coarse=True)
    assert plan_of(coarse, "matters") == plan_of(problem, "matters")
    assert len(guessed(coarse, "rows")) == ours + 9 + 3 * (9 + seeds - 1) + 6 * (5 + seeds - 1)
    final = replace(problem, is_final=True)
    assert plan_of(final, "rows") == plan_of(final, "matters") == []
    assert len(guessed(final, "finalists")) == seeds + 3 * (5 + seeds - 1)


def rates_of(runs, optimizer="sgd"):
    return Counter(run.recipe.rate for run in runs if run.recipe.optimizer == optimizer)


def test_rates_are_chosen_by_validation_and_the_best_two_get_all_seeds():
    problem = Problem("toy", "toy", 10, edition=2)
    grid = plan_of(problem, "rows")
    by_rate = {run.key: -abs(math.log(run.recipe.rate / 0.0031)) for run in grid}
    runs = plan_of(problem, "rows", ACCURACY, by_rate)
    assert rates_of(runs) == {lr: 5 if lr in (0.001, 0.003) else 1 for lr in NINE}
    assert rates_of(plan_of(replace(problem, coarse=True), "rows", ACCURACY, by_rate))[0.001] == 1
    unfinished = dict(list(by_rate.items())[:-1])
    runs = plan_of(problem, "rows", ACCURACY, unfinished)
    assert Counter(run.recipe.format for run in runs)["lns16f11"] == 5  # the last row is not done: no rate is chosen


@pytest.mark.parametrize(
    ("measure", "further"), [(LOSS, [3.0, 10.0]), (ACCURACY, [3e-5, 1e-5])], ids=["above", "below"]
)
def test_rates_beyond_an_end_are_tried_while_the_best_is_there(measure, further):
    """Less is better of a loss, and scores fall with the rate."""
    problem = Problem("toy", "toy", 10, edition=2)
    validation = {}
    for tried in ([], further[:1], further):
        runs = plan_of(problem, "rows", measure, validation)
        assert rates_of(runs) == dict.fromkeys([*NINE, *tried], 1)
        validation |= {run.key: -math.log(run.recipe.rate) for run in runs}
    # twice at most
    assert rates_of(plan_of(problem, "rows", measure, validation)) == {
        lr: 5 if lr in further else 1 for lr in [*NINE, *further]
    }
    turned = {key: -score if further[0] in json.loads(key)[1].values() else score for key, score in validation.items()}
    assert further[1] not in rates_of(plan_of(problem, "rows", measure, turned))


def test_of_equals_the_middle_is_chosen():
    problem = Problem("toy", "toy", 10, edition=2)
    runs = guessed(problem, "rows")
    assert rates_of(runs) == {lr: 5 if lr in (0.003, 0.01) else 1 for lr in NINE}
    assert rates_of(runs, "adamw8bit") == {lr: 5 if lr in (0.001, 0.003) else 1 for lr in ADAMS}


def test_what_is_compared():
    assert [row.recipe for row in ROWS.values() if row.kind == "ours"] == [
        Recipe(), Recipe(momentum=0.9), Recipe("lns8f4"), Recipe("lns6f3", granularity="group"),
        Recipe("lns4f1", granularity="group"), Recipe("float32"),
    ]  # fmt: skip
    assert all(not row.rates for row in ROWS.values() if row.kind == "ours")  # at the one default
    assert all(row.rates == NINE for row in ROWS.values() if row.kind == "float32")
    assert all(len(row.rates) == 5 for row in ROWS.values() if row.kind == "few bytes")
    assert NINE == (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    assert [round(math.log2(lr / math.log(2)), 9) for lr in LNS_MADAMS] == [-7, -6, -5, -4, -3]
    assert FINALISTS["float32 Adam"].rates == ADAMS
    assert list(STYLES) == list(ROWS)
    gan = SECOND["gan"]
    rates = {(run.recipe.optimizer, run.recipe.inertia) for run in plan_of(gan, "rows")}
    assert rates == {("madam", 0.0), ("madam", 0.9), *((name, 0.0) for name in ("sgd", "adam", "adamw", "adamw8bit"))}


def test_every_change_is_one_change():
    first = CHANGES["default"].as_dict()
    of_the_paper = paper().as_dict()
    counts = {"default": 0, "paper's rule": 3, "momentum 0.9, lr 0.03": 2, "momentum 0.9, lr 0.1": 2}
    for name, recipe in CHANGES.items():
        start = of_the_paper if name.startswith("paper's, ") else first
        changed = {key for key, value in recipe.as_dict().items() if value != start[key]}
        assert len(changed) == counts.get(name, 1), name


def test_lns_madam_is_a_factor_of_two_to_the_rate():
    """A weight of 1 whose normalized gradient is 1 becomes 2^-(1/8): 2^11 / 8 code steps of lns16f11."""
    recipe = replace(ROWS["lns16f11 LNS-Madam"].recipe, lr=LNS_MADAMS[-1])
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = recipe.prepare(model, 0)
    before = model.weight.detach().codes.to(torch.int32)
    model.weight.sum().backward()
    optimizer.step()
    assert (before - model.weight.detach().codes.to(torch.int32)).tolist() == [[256] * 4]


# -------------------------------------------------------------------------------------------------------------- tables


BYTES = {"float32": 4.0, "bfloat16": 2.0}


def lines_of(runs):
    """Lines of a journal; `runs` are pairs of a validation and a test score by problem, recipe and seed."""
    lines = []
    for (problem, recipe, seed), pair in runs.items():
        validation, score = pair or (None, None)
        entry = {
            "problem": problem, "steps": 10, "data": "0123456789abcdef", "recipe": recipe.filled().as_dict(),
            "seed": seed, "score": score, "failure": "the loss is NaN" if pair is None else None, "loss": 0.5,
            "seconds": 2.0, "weights": 100, "weight_bytes": BYTES.get(recipe.format, 1.0),
            "state_bytes": 8.0 if recipe.optimizer.startswith("adam") else 1.0, "lnsnum": "1", "torch": "2",
            "edition": 2, "validation": validation, "gradient_bytes": 4.0,
        }  # fmt: skip
        lines.append(json.dumps(entry))
    return "".join(f"{line}\n" for line in lines)


def whole(problem, ours, adam, *, others=(70.0, 70.0), seeds=5):
    """Every row: ours and Adam, whose best rate is 0.003, as given; all else alike, at any rate."""
    runs, problem_of = {}, Problem(problem, "", 0)
    for run in second_plan.curve(problem_of):
        runs[problem, run.recipe, 0] = others
    for name, row in ROWS.items():
        for lr in row.rates or [row.recipe.rate]:
            scores = [others] * seeds
            if name == OURS or (name == "float32 Adam" and lr == 0.003):
                scores = ours if name == OURS else adam
            runs |= {(problem, replace(row.recipe, lr=lr), seed): pair for seed, pair in enumerate(scores)}
    for recipe in CHANGES.values():
        for seed in range(3):
            key = problem, replace(recipe, lr=recipe.rate), seed
            runs.setdefault(key, others)
    return {(p, r.filled(), s): pair for (p, r, s), pair in runs.items()}


def results_of(tmp_path, runs):
    path = tmp_path / "second.jsonl"
    path.write_text(lines_of(runs))
    return Results(read_journal(path), MEASURES.__getitem__)


def texts(table):
    names = table.columns[1:]
    return {row[0].text: dict(zip(names, (cell.text.strip() for cell in row[1:]), strict=True)) for row in table.rows}


UP = whole("up", ours=[(90.0, x) for x in (97.0, 98.0, 99.0, 98.0, 98.0)], adam=[(80.0, 98.5)] * 5)
DOWN = whole("down", [(1.0, 1.5)] * 5, [(1.0, 1.6)] * 5, others=(3.0, 0.5))


def test_verdicts_by_hand(tmp_path):
    """s^2 / n = 0.1 of ours and 0 of Adam's: -0.5 ± 2.776 * 0.3162. On "down" nothing varies: by validation Adam is
    best, though others, by their test scores, are better."""
    [table] = make_tables(results_of(tmp_path, UP | DOWN), ["verdicts"])
    assert texts(table) == {
        "up": {
            "measure": "accuracy, %", "rival": "Adam 0.003", "its mean": "98.50 ± 0.00", OURS: "98.00 ± 0.88",
            "difference": "-0.50 [-1.38, +0.38]", "margin": "0.50", "verdict": "open",
        },
        "down": {
            "measure": "loss, nats", "rival": "Adam 0.003", "its mean": "1.600 ± 0.000", OURS: "1.500 ± 0.000",
            "difference": "+0.100 [+0.100, +0.100]*", "margin": "0.250", "verdict": "above",
        },
    }  # fmt: skip
    assert T4 * math.sqrt(0.1) == pytest.approx(0.88, abs=0.005)
    assert table.missing == 0


def test_rows_by_hand(tmp_path):
    """Of equal rates the middle two have all seeds, 0.01 and 0.003 of nine, 0.003 and 0.001 of five."""
    runs = dict(UP)

    def at(name, lr, seed):
        return "up", replace(ROWS[name].recipe, lr=lr).filled(), seed

    for lr, seed in ((0.003, 3), (0.001, 0), (0.001, 4)):
        runs[at("int8 AdamW8bit", lr, seed)] = (70.0, 70.0) if seed == 0 else None
    for lr in ADAMS:
        runs[at("bfloat16 AdamW, Kahan", lr, 0)] = None
    for seed in range(5):  # as good with seed 0, better by the mean of validation scores, worse by that of test scores
        runs[at("float32 paper's Madam", 0.03, seed)] = (70.0 + seed, 60.0)
    runs[at("lns8f5 paper's Madam", 0.05, 2)] = None  # then the other counts
    del runs[at("float32 AdamW", 0.003, 4)]
    del runs[at("float32 SGD", 0.001, 0)]
    [table] = make_tables(results_of(tmp_path, runs), ["rows"])
    lines = texts(table)
    assert list(lines) == list(ROWS)
    assert list(lines[OURS].values()) == ["1.00", "1.00", "4.00", "0.05", "98.00 ± 0.88", "", "", ""]
    assert list(lines["float32 Adam"].values()) == [
        "4.00", "8.00", "4.00", "0.003", "98.50 ± 0.00", "-0.50 [-1.38, +0.38]", "0.50", "open",
    ]  # fmt: skip
    assert list(lines["lns8f4 Madam"].values())[3:] == [
        "0.05", "70.00 ± 0.00", "+28.00 [+27.12, +28.88]*", "0.50", "above",
    ]  # fmt: skip
    assert list(lines["bfloat16 AdamW, stochastic"].values())[:4] == ["2.00", "8.00", "4.00", "0.003"]
    assert list(lines["int8 AdamW8bit"].values())[3:] == ["0.003", "diverged 1/5", "diverged", "-", "above"]
    assert list(lines["bfloat16 AdamW, Kahan"].values()) == ["-", "-", "-", "-", "diverged", "diverged", "-", "above"]
    assert list(lines["float32 paper's Madam"].values())[3:5] == ["0.03", "60.00 ± 0.00"]
    assert list(lines["lns8f5 paper's Madam"].values())[3:5] == ["0.03", "70.00 ± 0.00"]
    assert list(lines["float32 AdamW"].values())[3:] == ["0.003", "70.00 ± 0.00 (4 of 5)", "-", "-", "-"]
    assert list(lines["float32 SGD"].values()) == ["-"] * 8  # a rate is missing: none is chosen
    assert table.missing == 2
    [table] = make_tables(results_of(tmp_path, runs), ["verdicts"])
    assert texts(table)["up"]["verdict"] == "-"
    [counts] = make_tables(results_of(tmp_path, runs | DOWN), ["counts"])
    lines = texts(counts)
    assert list(lines["float32 Adam"].values()) == ["16.00", "1", "0", "1", "0"]
    assert list(lines["lns8f4 Madam"].values()) == ["6.00", "1", "0", "0", "1"]
    assert list(lines[OURS].values()) == ["6.00", "", "", "", ""]


def test_a_rate_at_the_end_says_so(tmp_path):
    """No further rate is better than the last: the second in the tables is the end of the ladder."""
    runs = dict(UP)
    for lr, score in ((1.0, 71.0), (3.0, 72.0), (10.0, 73.0)):
        for seed in range(5):
            runs["up", replace(ROWS["float32 SGD"].recipe, lr=lr).filled(), seed] = (score, score)
    [table] = make_tables(results_of(tmp_path, runs), ["rows"])
    assert texts(table)["float32 SGD"]["lr"] == "10 end"
    assert table.missing == 0


def test_one_rate_for_all_problems_by_hand(tmp_path):
    """Margins are 0.5 and 0.25; ours 98.0 and 1.5, of seed 0 97.0. Int8 is best at its last rate on one problem and its
    first on the other, and loses least at the one between them; its other seeds are as all others."""
    runs = UP | DOWN
    int8 = ROWS["int8 AdamW8bit"].recipe
    for lr, up, down in zip(ADAMS, (70.0, 71.0, 73.0, 74.0, 75.0), (1.0, 1.5, 2.0, 2.5, 3.0), strict=True):
        runs["up", replace(int8, lr=lr).filled(), 0] = (up, up)
        runs["down", replace(int8, lr=lr).filled(), 0] = (down, down)
    runs["up", replace(ROWS["float32 SGD"].recipe, lr=NINE[0]).filled(), 0] = None
    [table] = make_tables(results_of(tmp_path, runs), ["one-rate"])
    lines = texts(table)
    assert lines[OURS] == {"lr": "0.05", "up": "", "down": "", "least": ""}
    assert lines["float32 Adam"] == {"lr": "0.003", "up": "-1.0", "down": "+0.4", "least": "-1.0"}
    assert lines["float32 AdamW"] == {"lr": "0.0001", "up": "+56.0", "down": "-4.0", "least": "-4.0"}
    assert lines["float32 SGD"]["lr"] == "0.0003"  # not the one that diverged
    assert lines["int8 AdamW8bit"] == {"lr": "0.003", "up": "+54.8", "down": "-2.8", "least": "-2.8"}
    for lr in ADAMS[3:]:
        del runs["up", replace(int8, lr=lr).filled(), 0]
    runs["down", Recipe().filled(), 3] = None
    del runs["up", replace(ROWS["float32 AdamW"].recipe, lr=NINE[0]).filled(), 2]
    [table] = make_tables(results_of(tmp_path, runs), ["one-rate"])
    lines = texts(table)
    assert set(lines["int8 AdamW8bit"].values()) == {"-"}
    assert table.missing == 2
    # ours diverged, and one seed that is missing: of the other problem the first seed is left
    assert lines["float32 AdamW"] == {"lr": "0.0001", "up": "+54.0", "down": "diverged", "least": "diverged"}


def test_our_row_at_other_rates(tmp_path):
    [table] = make_tables(results_of(tmp_path, UP), ["rates"])
    line = texts(table)["up"]
    assert (line["measure"], line["0.05"], line["0.1"]) == ("accuracy, %", "97.00", "70.00")
    assert list(line)[1:] == [f"{lr:g}" for lr in sorted([*NINE, 0.05])]


def test_problems_on_which_nothing_was_chosen_are_apart(tmp_path, monkeypatch):
    monkeypatch.setitem(SECOND, "up", Problem("up", "", 10, edition=2, is_new=True))
    results = results_of(tmp_path, UP | DOWN)
    for name in ("verdicts", "counts"):
        new, old = make_tables(results, [name])
        assert ("on which nothing was chosen" in new.title, "rule and its rate" in old.title) == (True, True)
    assert [list(texts(table)) for table in make_tables(results, ["verdicts"])] == [["up"], ["down"]]


def test_a_seed_of_ours_that_diverges_has_missed(tmp_path):
    runs = dict(UP)
    runs["up", Recipe().filled(), 4] = None
    [table] = make_tables(results_of(tmp_path, runs), ["verdicts"])
    assert (texts(table)["up"][OURS], texts(table)["up"]["verdict"]) == ("diverged 1/5", "missed")


def test_what_matters_by_hand(tmp_path):
    runs = dict(DOWN)
    for seed in range(3):
        runs["down", CHANGES["no cap"].filled(), seed] = (9.0, 1.25)
        runs["down", CHANGES["momentum 0.9"].filled(), seed] = None
    del runs["down", CHANGES["beta 0.99"].filled(), 1]
    [table] = make_tables(results_of(tmp_path, runs), ["matters"])
    lines = {name: line["down"] for name, line in texts(table).items()}
    assert list(lines) == list(CHANGES)
    assert lines["default"] == "1.500"
    assert lines["no cap"] == "+0.250*"
    assert lines["momentum 0.9"] == "diverged"
    assert lines["beta 0.99"] == "-"
    assert table.missing == 1


def test_tables_are_of_the_journal_s_edition(tmp_path):
    results = results_of(tmp_path, UP)
    assert results.edition == 2
    names = ["verdicts", "counts", "one-rate", "rates", "rows", "matters", "budget"]
    assert [table.name for table in make_tables(results)] == names
    with pytest.raises(TaskError, match="there is no table 'claim': the tables are verdicts, counts, one-rate, rates"):
        make_tables(results, ["claim"])
    first = {key: pair for key, pair in UP.items() if key[1] == Recipe().filled() and key[2] == 0}
    one = lines_of(first).replace(', "edition": 2, "validation": 90.0, "gradient_bytes": 4.0', "")
    (tmp_path / "both").write_text(one.replace('"seed": 0', '"seed": 77') + lines_of(first))
    with pytest.raises(TaskError, match="runs of two editions"):
        Results(read_journal(tmp_path / "both"), MEASURES.__getitem__)


def test_finalists_by_hand(tmp_path, monkeypatch):
    monkeypatch.setitem(SECOND, "up", Problem("up", "", 10, edition=2, is_final=True))
    runs = {}
    for row in FINALISTS.values():
        for lr in row.rates or [row.recipe.rate]:
            runs |= {("up", replace(row.recipe, lr=lr).filled(), seed): (50.0, 98.0) for seed in range(5)}
    results = results_of(tmp_path, runs)
    assert [table.name for table in make_tables(results)] == ["finalists", "budget"]
    lines = texts(make_tables(results, ["finalists"])[0])
    assert {name: line["verdict"] for name, line in lines.items()} == {
        OURS: "", "float32 Adam": "level", "lns8f5 paper's Madam": "level", "int8 AdamW8bit": "level",
    }  # fmt: skip
    both = results_of(tmp_path, runs | DOWN)  # on a longer run no rows are to be begun
    assert not [note for table in make_tables(both) for note in table.notes if "Not begun" in note]


def test_the_pictures_are_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(problems, "measure_of", MEASURES.__getitem__)
    runs = UP | DOWN
    runs["up", replace(ROWS["int8 AdamW8bit"].recipe, lr=ADAMS[2]).filled(), 3] = None
    (tmp_path / "j.jsonl").write_text(lines_of(runs))
    code, _, err = run_command(
        capsys, monkeypatch, tmp_path / "j.jsonl", "--plots", tmp_path / "p", "--table", "verdicts", command=["report"]
    )
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["learning_rates.png", "state_bytes.png"]
    for path in (tmp_path / "p").iterdir():
        picture = (255 * matplotlib.image.imread(path)[::4, ::4, :3]).astype(int)
        assert len({tuple(color) for color in picture.reshape(-1, 3)}) > 20


# ------------------------------------------------------------------------------------------------ runs and the command


class HeldOut(ToyTask):
    """Toys, some of which are held out: the score on them is ten times the other."""

    def __init__(self, factor=1.0):
        super().__init__({}, 0)
        self.factor = factor

    def _split(self, validation):
        validation.factor = 10.0

    def score(self, model):
        return self.factor * super().score(model)


class SecondToy(ToyProblem):
    def make(self, places):
        task = HeldOut()
        task.hold_out()
        return task


TOY = SecondToy(edition=2, seeds=2, steps=5)


def test_a_record_has_both_scores_and_the_bytes_of_gradients(tmp_path):
    task = TOY.make({})
    record = one_run(task, TOY, Run("toy", Recipe(granularity="channel", beta=0.9), 1))
    assert record.validation == pytest.approx(10 * record.score)
    assert (record.edition, record.gradient_bytes, record.chosen_by) == (2, 4.0, record.validation)
    path = tmp_path / "j"
    path.write_bytes(record.line())
    assert read_journal(path) == [record]
    assert choosing([record]) == {record.run.key: record.validation}
    assert scores([record]) == {record.run.key: record.score}
    entry = json.loads(record.line())
    for broken in ({"validation": None}, {"edition": 1}, {"edition": 3}, {"validation": "3"}):
        path.write_text(json.dumps(entry | broken) + "\n")
        with pytest.raises(TaskError, match=r"line 1 has (not a validation score where|edition=3|validation='3')"):
            read_journal(path)
    first = one_run(ToyTask({}, 0), ToyProblem(steps=5), Run("toy", Recipe(), 1))
    assert not {"edition", "validation", "gradient_bytes"} & json.loads(first.line()).keys()


def test_a_validation_score_that_is_no_number_is_a_failure():
    class Broken(HeldOut):
        def _split(self, validation):
            validation.factor = math.inf

    task = Broken()
    task.hold_out()
    record = one_run(task, TOY, Run("toy", Recipe(), 0))
    assert (record.score, record.validation) == (None, None)
    assert record.failure == "the loss is inf after 5 steps"


WAYS = {name: row for name, row in ROWS.items() if row.recipe.format not in ("int8", "bfloat16")}


@pytest.fixture
def study(tmp_path, capsys, monkeypatch):
    """The command with a toy problem, no packages of others, its work in this process."""
    monkeypatch.setattr(problems, "SECOND", {"toy": TOY})
    monkeypatch.setattr(second_plan, "ROWS", WAYS)
    for module in (runner, estimate, trial):
        monkeypatch.setattr(module, "Workers", _Inline())
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command(capsys, monkeypatch, "--edition", 2, *arguments, command=["study"])


class _Inline:
    """Workers[...](jobs, function), in this process."""

    def __getitem__(self, _):
        from test_study import Inline

        return Inline


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:lr=3.0 is 138 code steps:UserWarning")  # beyond the end of a grid
def test_the_command_goes_from_a_trial_to_a_repeat(study, tmp_path):
    code, out, err = study("--trial", "--part", "rows")
    assert (code, out) == (0, f"{len(WAYS)} ways of training tried, 0 of them failed\n")
    assert f"1 of {len(WAYS)}: toy, " in err
    assert " + 4.00 bytes a weight" in err
    assert list(tmp_path.iterdir()) == []
    code, out, _ = study("--dry-run", "--json", "--part", "rows", "--part", "finalists")
    told = json.loads(out)
    runs = 6 * 2 + 3 * 11 + 3 * 7 + 9
    assert (code, told["total"]["runs"], [part["part"] for part in told["parts"]]) == (0, runs, ["rows"])
    code, out, _ = study("--part", "rows")
    records = read_journal(tmp_path / "second_study.jsonl")
    assert (code, out.split(",")[0]) == (0, f"{len(records)} runs in second_study.jsonl")
    assert len(records) >= runs  # further ones beyond the ends of grids
    sgd = [r for r in records if r.recipe.optimizer == "sgd" and r.score is not None and r.seed == 0]
    best = sorted(sgd, key=lambda record: record.validation)[:2]
    again = [r.recipe for r in records if r.recipe.optimizer == "sgd" and r.seed == 1]
    assert sorted(recipe.rate for recipe in again) == sorted(record.recipe.rate for record in best)
    done = (tmp_path / "second_study.jsonl").read_bytes()
    code, out, err = study("--repeat", 7)
    assert (code, out) == (0, "7 runs of second_study.jsonl again, 7 of them the same to the bit\n")
    assert err.count("the same to the bit") == 7
    (tmp_path / "second_study.jsonl").write_bytes(done.replace(b'"lnsnum": "', b'"lnsnum": "0.'))
    assert study("--repeat", 2)[0] == 0  # of another version
    changed = done.replace(b'"loss": 1', b'"loss": 7').replace(b'"loss": 2', b'"loss": 7')
    (tmp_path / "second_study.jsonl").write_bytes(changed)
    code, out, _ = study("--repeat", len(records), "--json")
    assert code == 1
    assert json.loads(out)["different"] == sum(
        a != b for a, b in zip(done.split(b"\n"), changed.split(b"\n"), strict=True)
    )


def test_a_way_that_fails_is_told(study, monkeypatch):
    monkeypatch.setattr(ToyTask, "outputs", lambda self, model: torch.tensor(math.nan))
    code, out, err = study("--trial", "--part", "rows")
    assert (code, out) == (1, f"{len(WAYS)} ways of training tried, {len(WAYS)} of them failed\n")
    assert "FAILED: the loss was finite to the end, and the outputs are not" in err


def test_runs_to_repeat_are_of_every_problem_first():
    records = [
        one_run(TOY.make({}), replace(TOY, name=name, steps=1), Run(name, Recipe(), seed))
        for name in ("a", "b", "c")
        for seed in range(2)
    ]
    chosen = runner.runs_to_repeat(records, 4)
    assert {record.problem for record in chosen[:3]} == {"a", "b", "c"}
    assert runner.runs_to_repeat(records[::-1], 4) == chosen
    assert len(runner.runs_to_repeat(records, 99)) == 6


def test_a_journal_is_continued_in_its_own_edition(tmp_path):
    """A part is held out: the data are others."""
    problem = find_data(SECOND["copying"], {})
    assert problem.data != find_data(PROBLEMS["copying"], {}).data
    record = replace(one_run(TOY.make({}), TOY, Run("toy", Recipe(), 0)), problem="copying", steps=1200)
    with pytest.raises(TaskError, match=r"copying was run with 1200 steps on data .*; now it has 1200 steps on data"):
        runner.check_records([problem], [record], tmp_path / "j")


# ------------------------------------------------------------------------------------- every row, every kind of network


@pytest.mark.parametrize("name", ["characters-gru", "autoencoder"])
def test_every_row_trains_each_new_kind_of_network(name):
    """Of rows that are alike to a network one is taken."""
    torch.set_num_threads(1)
    problem = replace(SECOND[name], steps=2)
    task = problem.make({})
    ways = ["lns4f1 Madam, groups", "float32 AdamW", "lns16f11 LNS-Madam"]
    if _has("torchao"):
        ways += ["int8 AdamW8bit", "bfloat16 AdamW, stochastic"]
    if _has("optimi"):
        ways += ["bfloat16 AdamW, Kahan"]
    for way in ways:
        record = execution.one_run(task, problem, second_plan.grid_of(ROWS[way], problem, task.measure, {})[0])
        assert record.failure is None, way
        assert math.isfinite(record.validation)
        assert 1.0 <= record.weight_bytes <= 4.0
        assert record.gradient_bytes in (2.0, 4.0)


def _has(package):
    import importlib.util

    return importlib.util.find_spec(package) is not None


def test_the_journal_of_the_first_edition_is_read_as_it_was(tmp_path):
    """Lines that know nothing of what came later, and that are written so again."""
    from pathlib import Path

    path = Path(__file__).parents[2] / "docs" / "results" / "study.jsonl"
    content = path.read_bytes()
    records = read_journal(path)
    assert b"".join(record.line() for record in records) == content
    assert {record.edition for record in records} == {1}
    with Journal(tmp_path / "new") as journal:
        journal.append(records[0])
    assert (tmp_path / "new").read_bytes() == content.split(b"\n")[0] + b"\n"
