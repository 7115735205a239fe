"""The laws of optimizers: who keeps them, who breaks which, and what is said of each planted fault."""

import math
import re
import time
from pathlib import Path

import pytest
import torch

import lnsnum
from benchmarks import mutation_score
from benchmarks.planted_optimizers import OPTIMIZER_FAULTS, PlainAdam, bfloat16
from lnsnum.strategies import ImplementationError, LawViolation, check_laws
from lnsnum.torch_bridge import LNSWeight, Madam
from lnsnum.torch_bridge.optimizer_laws import OPTIMIZER_LAWS, OPTIONAL
from lnsnum.torch_bridge.strategies import check_optimizer_laws

EVERY = list(OPTIMIZER_LAWS)


def lns(name):
    """Weights that are codes."""
    return lambda x: torch.nn.Parameter(LNSWeight.from_float(x, name))


def broken(make, **options):
    """The laws that are broken."""
    with pytest.raises(LawViolation) as caught:
        check_optimizer_laws(make, **options)
    return {violation.law for violation in caught.value.violations}


def sgd(params):
    return torch.optim.SGD(params, lr=0.125, momentum=0.9, weight_decay=0.01)


def adam(params):
    return torch.optim.Adam(params, lr=0.01)


def adamw(params):
    return torch.optim.AdamW(params, lr=0.01)


def madam(params, seed):
    return Madam(params, seed=seed)


def test_the_door_of_the_others_names_theirs():
    with pytest.raises(ValueError, match=r"needs torch: lnsnum\.torch_bridge\.strategies\.check_optimizer_laws"):
        check_laws(sgd, kind="optimizers")


# ------------------------------------------------------------------------------------------------ who keeps the laws


@pytest.mark.parametrize(
    "make", [sgd, adam, adamw, torch.optim.NAdam, torch.optim.RMSprop], ids=lambda make: make.__name__
)
def test_torch_s_optimizers_keep_what_is_not_optional(make):
    report = check_optimizer_laws(make)
    assert report.laws == tuple(law for law in OPTIMIZER_LAWS if law not in OPTIONAL)
    assert (report.kind, report.fmt, report.operations) == ("optimizers", None, ("step",))
    assert all(result.inputs for result in report.results)


@pytest.mark.parametrize(
    ("make", "law"), [(torch.optim.ASGD, "zero_gradients"), (torch.optim.Rprop, "zero_rate")], ids=["ASGD", "Rprop"]
)
def test_two_of_torch_s_break_one(make, law):
    assert broken(make) == {law}


def test_torch_s_optimizers_keep_a_nan_and_sgd_scales():
    assert broken(adam, laws=["non_finite"]) == {"non_finite"}
    assert broken(sgd, laws=["non_finite", "scale_equivariance"]) == {"non_finite", "scale_equivariance"}
    assert broken(adam, laws=["scale_equivariance"]) == {"scale_equivariance"}  # small gradients are near eps
    assert check_optimizer_laws(lambda params: torch.optim.Adam(params, eps=1e-30), laws=["scale_equivariance"])


@pytest.mark.filterwarnings("ignore:.*divide")
def test_nan_in_both_of_two_runs_is_no_difference():
    """Without eps a gradient of zero in the first step is 0 / 0, whatever the scale."""
    assert check_optimizer_laws(lambda params: torch.optim.Adam(params, eps=0), laws=["scale_equivariance"])


def test_madam_keeps_all_laws_on_floats():
    report = check_optimizer_laws(madam, laws=EVERY)
    assert report.laws == tuple(OPTIMIZER_LAWS)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "options"),
    [("lns8f3", {}), ("lns8f5", {"momentum": 0.9, "weight_decay": 0.1}), ("lns16f10", {"second_moment": "float32"})],
)
def test_madam_keeps_all_laws_on_codes_but_that_its_chance_has_an_order(name, options):
    def make(params, seed):
        return Madam(params, seed=seed, **options)

    kept = [law for law in EVERY if law != "parameter_order"]
    report = check_optimizer_laws(make, weights=lns(name), laws=kept, scale_tolerance=0.0)
    assert report.laws == tuple(kept)


def test_madam_s_chance_is_drawn_by_place():
    assert broken(madam, weights=lns("lns8f3"), laws=["parameter_order"]) == {"parameter_order"}
    usual = check_optimizer_laws(madam, weights=lns("lns8f3"), stochastic=True, laws=None)
    assert not set(usual.laws) & {"parameter_order", "grouping"}

    def by_nearest(params):
        return Madam(params, lr=0.3, rule="paper", rounding="nearest", second_moment="float32")

    assert check_optimizer_laws(by_nearest, weights=lns("lns8f3"))


def test_nearest_rounding_loses_small_steps_and_is_not_unbiased():
    def small_steps(params):
        return Madam(params, lr=0.01, rule="paper", rounding="nearest")

    assert broken(small_steps, weights=lns("lns8f3"), laws=["descent", "unbiased"]) == {"descent", "unbiased"}


def test_the_paper_s_rounding_in_the_logarithm_is_unbiased_there_alone():
    def paper(rounding):
        return lambda params, seed: Madam(params, seed=seed, rule="paper", rounding=rounding)

    options = {"weights": lns("lns8f3"), "laws": ["unbiased"]}
    assert check_optimizer_laws(paper("stochastic_value"), **options)
    assert broken(paper("stochastic_log"), **options) == {"unbiased"}


def test_a_refusal_counts_as_told():
    def refuses(params):
        return Madam(params, non_finite="raise")

    assert check_optimizer_laws(refuses, laws=["non_finite"], weights=lns("lns8f3"))


def test_torchao_s_adam_in_8_bits():
    optim = pytest.importorskip("torchao.optim")
    with torch.compiler.set_stance("force_eager"):  # compiling is not what is tried
        # its quantized state has no clone: copy.deepcopy of a state_dict raises
        assert broken(lambda params: optim.AdamW8bit(params, lr=0.01)) == {"resume"}
        assert broken(lambda params: optim.AdamW8bit(params, lr=0.01), laws=["non_finite"]) == {"non_finite"}
        by_chance = {"weights": bfloat16, "dtype": torch.bfloat16, "laws": ["unbiased", "descent"]}
        assert check_optimizer_laws(lambda p: optim.AdamW8bit(p, lr=1e-3, bf16_stochastic_round=True), **by_chance)
        assert "descent" in broken(lambda p: optim.AdamW8bit(p, lr=1e-3), **by_chance)


# ------------------------------------------------------------------------------------------------------------ faults


@pytest.mark.thorough
@pytest.mark.parametrize("fault", OPTIMIZER_FAULTS, ids=lambda fault: fault.words)
def test_every_fault_is_found(fault):
    assert broken(fault.make, **fault.options)


def test_without_a_fault_the_optimizer_of_the_faults_is_right():
    assert check_optimizer_laws(PlainAdam)
    kept = [law for law in EVERY if law not in ("parameter_order", "grouping", "non_finite", "scale_equivariance")]
    assert check_optimizer_laws(PlainAdam, weights=bfloat16, laws=kept)


def test_two_runs_say_the_same_and_leave_torch_s_generator_alone():
    before = torch.get_rng_state()
    reports = []
    for _ in range(2):
        with pytest.raises(LawViolation) as caught:
            check_optimizer_laws(lambda params: torch.optim.SGD(params, lr=0.5, maximize=True))
        reports.append(caught.value.report)
    assert reports[0] == reports[1]
    assert torch.equal(torch.get_rng_state(), before)
    (violation,) = reports[0].violations
    assert (violation.law, violation.operation, violation.inputs[0]) == ("descent", "step", [[1.0]])
    assert violation.line == (
        "descent: weights [1], 4 steps from gradients [1]: element 0 of weight 0 is 3; expected that 1024 such weights "
        "go down a slope of 100 in one step, where sum (w - target)^2 / 2 changes by 6.4e+06"
    )


# --------------------------------------------------------------------------------------------------------- bad input


class Stepped(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self):
        if self.param_groups[0]["params"][0].shape == (3,):
            raise RuntimeError("only one weight\nat a time")


class Hangs(Stepped):
    def step(self):
        time.sleep(5)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (
            Stepped,
            {},
            ImplementationError,
            "(law determinism) raised RuntimeError: only one weight at a time: let a step",
        ),
        (
            Hangs,
            {"timeout": 0.1},
            ImplementationError,
            "step of weights [1], 4 steps from gradients [1] (law determinism)",
        ),
        (lambda params: params, {}, ImplementationError, "the factory returned a list: return a torch.optim.Optimizer"),
        (adam, {"weights": lambda x: x}, ImplementationError, "weights returned a Tensor that is no parameter"),
        (adam, {"weights": lambda x: 1 / 0}, ImplementationError, "raised ZeroDivisionError: division by zero"),
        (adam, {"laws": ["speed"]}, ValueError, "laws has 'speed', which is not known: determinism, parameter_order"),
        (adam, {"scale_tolerance": -1}, ValueError, "scale_tolerance=-1 is out of range: at least 0, less than 1"),
        (adam, {"timeout": 0}, ValueError, "timeout=0 is out of range"),
        (adam, {"timeout": math.inf}, ValueError, "timeout=inf is out of range"),
        (adam, {"dtype": torch.int32}, TypeError, "dtype=torch.int32 is no float type"),
        (None, {}, TypeError, "make is a NoneType: give a function from parameters to an optimizer"),
    ],
)
def test_what_cannot_be_judged_is_one_sentence(make, options, error, message):
    with pytest.raises(error) as caught:
        check_optimizer_laws(make, **{"laws": ["determinism"], **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_docs_list_every_law_with_its_sentence_and_formula():
    page = (Path(lnsnum.__file__).parents[1] / "docs" / "testing.md").read_text()
    (table,) = re.findall(r"<!-- laws: optimizers -->\n((?:\|.*\n)+)", page)
    listed = re.findall(r"^\| `([a-z_]+)` \| (.*) \| (.*) \|$", table, re.MULTILINE)
    assert listed == [(name, law.sentence, law.formula.replace("|", "\\|")) for name, law in OPTIMIZER_LAWS.items()]


def test_the_table_of_the_docs_is_that_of_the_command():
    """But for the seconds."""
    page = (Path(lnsnum.__file__).parents[1] / "docs" / "testing.md").read_text()
    table = page[page.index(mutation_score.HEAD_OF_OPTIMIZERS) :].split("\n\n")[0]
    listed = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    assert listed == [f"| {fault.words}" for fault in OPTIMIZER_FAULTS]
    line, found = mutation_score.row_of_optimizer(OPTIMIZER_FAULTS[1])
    assert found
    assert re.sub(r"\| [0-9.]+ ", "", line) in re.sub(r"\| [0-9.]+ ", "", table)
