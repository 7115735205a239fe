"""Recipes, from the names that people give to the optimizer that comes of them; and what counts as level."""

import inspect
import json
import math
from fractions import Fraction
from typing import get_args

import pytest
import torch
from torch import nn

from lnsnum.tasks import TaskError
from lnsnum.tasks import recipe as recipes
from lnsnum.tasks.measure import ACCURACY, LOSS, MEASURES, Measure
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.registry import TASKS
from lnsnum.torch_bridge import LNSWeight, Madam, step_state
from lnsnum.torch_bridge.kernels import step_numbers

# ------------------------------------------------------------------------------------------------- names and choices


BAD = {
    "format that does not fit": ({"format": "lns8f9"}, "format: fraction_bits=9 does not fit bits=8: 0 to 6"),
    "format that is no name": ({"format": "int9"}, "format: 'int9' is no format name"),
    "format too wide": ({"format": "lns32f23"}, "format lns32f23: at most 16 bits can be trained"),
    "negative lr": ({"lr": -0.1}, "lr -0.1 is no learning rate: give a finite number, 0 or more"),
    "infinite lr": ({"lr": math.inf}, "lr inf is no learning rate"),
    "NaN for lr": ({"lr": math.nan}, "lr nan is no learning rate"),
    "optimizer": ({"optimizer": "lion"}, "optimizer='lion' is none of 'madam', 'adam', 'sgd', 'adamw', 'adamw8bit'"),
    "schedule": ({"schedule": "step"}, "schedule='step' is none of 'linear', 'cosine', 'constant', 'warm-up'"),
    "zeros": ({"zeros": "raise"}, "zeros='raise' is none of 'redraw', 'leave', 'keep', 'none'"),
    "parameters": ({"parameters": "vectors"}, "parameters='vectors' is none of 'all', 'matrices'"),
    "rounding": ({"rounding": "up"}, "rounding='up' is none of "),
    "rule": ({"rule": "sgd"}, "rule='sgd' is none of 'hypentropy', 'paper'"),
    "ceiling": ({"ceiling": "open"}, "ceiling='open' is none of 'follow', 'fixed'"),
    "rounding of the paper's": ({"rounding": "nearest"}, "rounding='nearest' is for rule='paper'"),
    "zeros of the paper's": ({"zeros": "leave"}, "zeros='leave' is for rule='paper'"),
    "granularity": ({"granularity": "row"}, "granularity='row' is none of 'tensor', 'channel', 'group'"),
    "Kahan's sum of codes": ({"rounding": "kahan"}, "rounding='kahan' is for weights in bfloat16, not in lns8f5"),
    "bfloat16 by Adam": (
        {"format": "bfloat16", "optimizer": "adam"},
        "format bfloat16 does not go with adam: give an LNS format or float32 with madam, adam, adamw or sgd; rivals "
        "of the study are bfloat16 with adamw or int8 with adamw8bit",
    ),
    "codes by another's optimizer": ({"optimizer": "adamw8bit"}, "format lns8f5 does not go with adamw8bit: "),
    "bfloat16 rounded to nearest": (
        {"format": "bfloat16", "optimizer": "adamw", "rounding": "nearest"},
        "rounding='nearest' of bfloat16: it takes 'stochastic_value' or 'kahan'",
    ),
    "integers with a rounding": (
        {"format": "int8", "optimizer": "adamw8bit", "rounding": "nearest"},
        "rounding='nearest' of int8: it takes None",
    ),
    "second moment": ({"second_moment": "lns4"}, "second_moment='lns4' is none of "),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_recipe_can_be(case):
    choices, sentence = BAD[case]
    with pytest.raises(TaskError) as refused:
        Recipe(**choices)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_choice_survives_json_and_shows_in_changes():
    other = {
        "format": "lns16f10", "optimizer": "sgd", "lr": 0.0, "schedule": "cosine", "momentum": 0.9,
        "second_moment": "float32", "rule": "paper", "crossover": 0.5, "cap": 0.3, "ceiling": "fixed",
        "rounding": "nearest", "p_scale": 2.0, "zeros": "leave", "parameters": "matrices", "beta": 0.9,
        "granularity": "group",
    }  # fmt: skip
    of_the_paper = ("rounding", "zeros")
    plain = Recipe()
    assert plain.changes() == {}
    assert set(plain.as_dict()) == set(other)
    assert Recipe(**json.loads(json.dumps(plain.as_dict()))) == plain
    for name, value in other.items():
        needed = {"rule": "paper"} if name in of_the_paper else {}
        recipe = Recipe(**{**needed, name: value})
        assert recipe.changes() == {**needed, name: value}  # what follows from the optimizer alone is no change
        assert Recipe(**json.loads(json.dumps(recipe.as_dict()))) == recipe
    assert Recipe(**other).as_dict() == other
    assert Recipe(**other).changes() == {name: value for name, value in other.items() if name != "momentum"}  # SGD's
    assert Recipe(optimizer="adam", momentum=0.9, lr=1e-3).changes() == {"optimizer": "adam"}


def test_labels_rates_and_what_moves_codes():
    for (fmt, optimizer), rate, moves in (
        (("lns8f5", "madam"), 0.05, True), (("float32", "madam"), 0.05, False), (("lns8f3", "adam"), 0.001, False),
        (("float32", "sgd"), 0.1, False),
    ):  # fmt: skip
        recipe = Recipe(fmt, optimizer)
        assert (recipe.label, recipe.rate, recipe.moves_codes) == (f"{fmt} {optimizer}", rate, moves)
    assert Recipe(lr=0.0).rate == 0.0
    assert Recipe(optimizer="adam", lr=0.5).rate == 0.5


# ------------------------------------------------------------------------------------------- what comes of a model


def model():
    """Matrices, kernels, vectors; the bias of the first layer and the shift of the normalization are zeros."""
    torch.manual_seed(3)
    made = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    nn.init.zeros_(made[0].bias)
    return made


def formats(of):
    return {name: p.fmt.name if isinstance(p, LNSWeight) else "float32" for name, p in of.named_parameters()}


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]


@pytest.mark.parametrize("fmt", ["float32", "lns8f5", "lns16f10"])
def test_all_parameters_are_of_the_format(fmt):
    made = model()
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    Recipe(fmt).prepare(made, 0)
    assert formats(made) == dict.fromkeys(NAMES, fmt)
    if fmt == "float32":
        for name, p in made.named_parameters():
            assert torch.equal(p, before[name])
    made = model()
    Recipe("float32", zeros="redraw").prepare(made, 0)
    assert all(bool((p != 0).all()) for p in made.parameters())  # the paper's rule could not move them
    made = model()
    Recipe("float32").prepare(made, 0)
    assert any(bool((p == 0).any()) for p in made.parameters())


def test_matrices_leave_floats_of_one_dimension_as_they_are():
    made = model()
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    Recipe(parameters="matrices").convert(made, 0)
    for name, p in made.named_parameters():
        assert isinstance(p, LNSWeight) == (before[name].ndim > 1)
        if before[name].ndim == 1:
            assert torch.equal(p, before[name])


@pytest.mark.parametrize(("rule", "zeros", "after_conversion", "after_a_step"), [
    ("paper", "redraw", False, False), ("paper", "leave", True, False), ("paper", "keep", True, True),
    ("hypentropy", "redraw", False, False), ("hypentropy", "keep", True, False),
])  # fmt: skip
def test_what_becomes_of_zeros(rule, zeros, after_conversion, after_a_step):
    made = model()
    optimizer = Recipe(rule=rule, zeros=zeros, lr=0.5).prepare(made, 0)
    shift = made[1].bias
    assert torch.equal(shift.detach().dequantize() == 0, torch.full((2,), after_conversion))
    made(torch.randn(4, 1, 4, 4)).square().sum().backward()
    optimizer.step()
    assert torch.equal(shift.detach().dequantize() == 0, torch.full((2,), after_a_step))


def test_p_scale_is_the_headroom_over_the_root_mean_square():
    """A weight of 20 times the root mean square comes down to the greatest magnitude that there is."""
    for scale in (1.0, 3.0, 8.0):
        made = nn.Linear(20, 20, bias=False)
        with torch.no_grad():
            made.weight.fill_(1e-3)[0, 0] = 1.0
        rms = made.weight.detach().square().mean().sqrt().item()
        Recipe(p_scale=scale).convert(made, 0)
        top = made.weight.detach().dequantize().max().item()
        assert 0.999 * scale * rms <= top <= 1.001 * 2 ** (1 / 32) * scale * rms


def test_the_seed_decides_what_zeros_become():
    biases = []
    for seed in (0, 0, 1):
        made = model()
        Recipe(zeros="redraw").convert(made, seed)
        biases.append(made[0].bias.detach().dequantize())
    assert torch.equal(biases[0], biases[1])
    assert not torch.equal(biases[0], biases[2])


def test_arguments_of_madam():
    choices = {"rule": "paper", "crossover": 0.5, "cap": 0.3, "ceiling": "fixed", "rounding": "nearest", "p_scale": 2.0}
    recipe = Recipe(lr=0.02, momentum=0.5, second_moment="float32", zeros="leave", **choices)
    made = model()
    optimizer = recipe.prepare(made, 7)
    assert type(optimizer) is Madam
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in made.parameters()]
    del group["params"]
    assert group == {
        **choices, "lr": 0.02, "momentum": 0.5, "second_moment": "float32",
        "zero": "leave", "seed": 7, "g_bound": 10.0, "beta": 0.999, "weight_decay": 0.0, "non_finite": "skip",
    }  # fmt: skip


@pytest.mark.parametrize(("zeros", "zero"), [("redraw", None), ("keep", None), ("leave", "leave")])
def test_madam_is_told_of_zeros(zeros, zero):
    assert Recipe(rule="paper", zeros=zeros).prepare(model(), 0).param_groups[0]["zero"] == zero


def test_arguments_of_adam_and_sgd():
    adam = Recipe("lns16f10", "adam").prepare(model(), 0)
    assert type(adam) is torch.optim.Adam
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["betas"]) == (0.001, (0.9, 0.999))
    assert adam.param_groups[0]["weight_decay"] == 0
    still = Recipe("float32", "adam", momentum=0.0).prepare(model(), 0)
    assert still.param_groups[0]["betas"] == (0.0, 0.999)
    for momentum, expected in ((None, 0.9), (0.1, 0.1)):
        sgd = Recipe("float32", "sgd", lr=0.3, momentum=momentum).prepare(model(), 0)
        assert type(sgd) is torch.optim.SGD
        assert (sgd.param_groups[0]["lr"], sgd.param_groups[0]["momentum"]) == (0.3, expected)
    assert not sgd.param_groups[0]["nesterov"]


def test_a_model_that_cannot_be_had_in_the_format():
    made = nn.Linear(2, 2)
    nn.init.constant_(made.weight, math.nan)
    with pytest.raises(TaskError, match=r"^format lns8f5: .*weight"):
        Recipe().prepare(made, 0)


# --------------------------------------------------------------------------------------------------------- schedules

SCHEDULES = {
    "linear": [8, 6, 4, 2, 0],
    "constant": [8, 8, 8, 8, 8],
    "cosine": [8, 4 + math.sqrt(8), 4, 4 - math.sqrt(8), 0],
    "warm-up": [8, 8, 16 / 3, 8 / 3, 0],
}
"""The learning rate at steps 0 to 4 of 4, where it begins at 8."""


def rates_of(schedule, steps, lr):
    """The learning rate before each step, and after the last."""
    recipe = Recipe("float32", "sgd", lr=lr, schedule=schedule)
    optimizer = recipe.optimizer_for(nn.Linear(1, 1), 0)
    scheduler = recipe.scheduler(optimizer, steps)
    rates = []
    for _ in range(steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_at_each_step(schedule):
    assert rates_of(schedule, 4, 8.0) == pytest.approx(SCHEDULES[schedule], abs=1e-12)


def test_warm_up_rises_over_a_tenth_of_the_steps():
    expected = [2, 4, *(6 * (30 - t) / 27 if t > 2 else 6 for t in range(2, 31))]
    assert rates_of("warm-up", 30, 6.0) == pytest.approx(expected)


# ---------------------------------------------------------------------------------------------------------- measures


def within(measure, score, best):
    """As the definition of the margin has it, of the decimal numbers."""
    score, best, margin = (Fraction(str(number)) for number in (score, best, measure.margin))
    allowed = margin * abs(best) if measure.relative else margin
    return score >= best - allowed if measure.higher_is_better else score <= best + allowed


RELATIVE_UP = Measure("gain", "", higher_is_better=True, margin=0.05, relative=True)
RELATIVE_DOWN = Measure("error", "levels", higher_is_better=False, margin=0.05, relative=True)


@pytest.mark.parametrize("measure", [ACCURACY, LOSS, RELATIVE_UP, RELATIVE_DOWN])
def test_level_is_at_least_the_best_up_to_the_margin(measure):
    hundredths = [n / 100 for n in range(150, 160)]
    pairs = [(a, b) for a in hundredths for b in hundredths]
    pairs += [(98.5, 99.0), (98.49, 99.0), (99.0, 98.5), (95.0, 100.0), (94.9, 100.0), (105.0, 100.0), (105.1, 100.0)]
    pairs += [(-1.05, -1.0), (-1.06, -1.0), (-0.95, -1.0), (-0.94, -1.0), (0.0, 0.0)]
    for score, best in pairs:
        assert measure.level(score, best) == within(measure, score, best), (score, best)
    assert not measure.level(math.nan, 1.0)


def test_scores_as_people_read_them():
    assert ACCURACY.text(99.2777) == "99.28 %"
    assert LOSS.text(1.68251) == "1.683 nats"
    assert RELATIVE_UP.text(-2.0) == "-2.000"


@pytest.mark.parametrize(
    "choice",
    [
        {"momentum": 1.0},
        {"momentum": -1.0},
        {"momentum": math.nan},
        {"p_scale": 0.0},
        {"p_scale": math.inf},
        {"cap": 0.0},
        {"cap": math.nan},
        {"crossover": -1.0},
        {"crossover": math.inf},
        {"beta": 1.0},
        {"beta": -0.1},
    ],
)
def test_numbers_out_of_range(choice):
    with pytest.raises(TaskError, match="is out of range"):
        Recipe(**choice)


def test_what_is_said_again_without_torch_is_what_the_bridge_says():
    """Recipes and measures are read where there is no torch."""
    madam = inspect.signature(Madam).parameters
    assert madam["lr"].default == recipes.DEFAULT_LR
    assert get_args(recipes.StepRounding) == get_args(step_numbers.StepRounding)
    assert get_args(recipes.SecondMoment) == get_args(step_state.SecondMoment)
    assert {name: entry.measure for name, entry in TASKS.items()} == dict(MEASURES)
