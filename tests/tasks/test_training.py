"""The training loop for every task and recipe, what it gives twice, where it stops, and the bytes that it takes."""

import math

import pytest
import torch
from torch import nn

from lnsnum.tasks.footprint import held, measure_footprint
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.registry import TASKS, make_task
from lnsnum.tasks.training import DivergedError, start, train, weight_count, weight_formats
from lnsnum.torch_bridge import LNSWeight

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tasks():
    """Each task with its default data, made once."""
    return {name: make_task(name) for name in TASKS}


def run(task, recipe, steps, seed=0):
    model, optimizer = start(task, recipe, seed)
    *_, history = train(task, model, optimizer, recipe, steps=steps, seed=seed)
    return model, optimizer, history


def bits(model):
    return [(p.detach().codes if isinstance(p, LNSWeight) else p.detach()).clone() for p in model.parameters()]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains_with_lns_weights_and_madam(tasks, name):
    task = tasks[name]
    steps = 5 if name == "copying" else 20
    model, _, history = run(task, Recipe(), steps)
    assert len(history.loss) == len(history.moved) == steps
    assert all(map(math.isfinite, history.loss))
    assert all(0 < share <= 1 for share in history.moved)
    assert weight_formats(model) == ["lns8f5"]
    if name != "copying":
        assert sum(history.loss[-5:]) < sum(history.loss[:5])


@pytest.mark.parametrize("name", ["classification", "generation"])
@pytest.mark.parametrize("recipe", [Recipe(), Recipe("float32", "adam")], ids=lambda recipe: recipe.label)
def test_the_same_seed_gives_the_same_weights_bit_for_bit(tasks, name, recipe):
    weights = []
    for seed in (3, 3, 4):
        model, _, history = run(tasks[name], recipe, 4, seed)
        weights.append((bits(model), history.loss))
    assert all(map(torch.equal, weights[0][0], weights[1][0]))
    assert weights[0][1] == weights[1][1]
    assert not all(map(torch.equal, weights[0][0], weights[2][0]))


def test_other_use_of_randomness_changes_no_run(tasks):
    """What is drawn from torch's generator before is forgotten."""
    first, *_ = run(tasks["classification"], Recipe(), 2)
    torch.randn(5)
    second, *_ = run(tasks["classification"], Recipe(), 2)
    assert all(map(torch.equal, bits(first), bits(second)))


class Toy:
    """One weight w, which is moved down by its learning rate in each step; the loss is what is given."""

    name = "toy"
    device = torch.device("cpu")
    epoch_steps = 1
    datapath = None

    def __init__(self, losses):
        self.losses = losses

    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=False)

    def network(self):
        return nn.Linear(1, 1, bias=False)

    def batches(self, generator):
        yield from self.losses

    def loss(self, model, batch):
        assert model.training
        return model.weight.sum() + (batch - model.weight.detach().sum())


def test_the_loop_steps_by_the_schedule_and_keeps_each_loss():
    recipe = Recipe("float32", "sgd", lr=0.5)
    task = Toy([2.0, 3.0, 1.0, 4.0])
    model, optimizer = start(task, recipe, 0)
    model.eval()
    before = model.weight.item()
    lengths = [len(history.loss) for history in train(task, model, optimizer, recipe, steps=4, seed=0)]
    assert lengths == [1, 2, 3, 4]
    # momentum 0.9 over gradients of 1: 1, 1.9, 2.71, 3.439; rates 0.5, 0.375, 0.25, 0.125
    moved = 0.5 * 1 + 0.375 * 1.9 + 0.25 * 2.71 + 0.125 * 3.439
    assert before - model.weight.item() == pytest.approx(moved, rel=1e-5)
    *_, history = train(Toy([2.0, 3.0]), model, optimizer, recipe, steps=2, seed=0)
    assert history.loss == pytest.approx([2, 3], rel=1e-5)
    assert history.moved == [0, 0]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(loss):
    recipe = Recipe("float32", "sgd")
    task = Toy([1.0, 1.0, loss, 1.0])
    model, optimizer = start(task, recipe, 0)
    steps = train(task, model, optimizer, recipe, steps=4, seed=0)
    next(steps)
    next(steps)
    before = model.weight.item()
    with pytest.raises(DivergedError) as diverged:
        next(steps)
    assert str(diverged.value) == f"the loss is {loss} at step 3 of 4: try a smaller learning rate"
    assert model.weight.item() == before  # of before that step


def test_weights_are_counted_and_named():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    assert weight_count(model) == 3 * 4 + 4 + 4 + 4
    assert weight_formats(model) == ["float32"]
    Recipe(parameters="matrices").convert(model, 0)
    assert weight_formats(model) == ["float32", "lns8f5"]


# --------------------------------------------------------------------------------------------------------- footprint


@pytest.mark.parametrize(("recipe", "weights", "least", "most"), [
    (Recipe(), 1, 1, 1.1),
    (Recipe(momentum=0.9), 1, 2, 2.2),
    (Recipe(second_moment="float32"), 1, 4, 4.1),
    (Recipe("lns16f10"), 2, 1, 1.1),
    (Recipe("float32", "sgd"), 4, 4, 4),
    (Recipe("float32", "adam"), 4, 8, 8.01),
], ids=lambda value: value.label if isinstance(value, Recipe) else None)  # fmt: skip
def test_what_a_weight_takes(tasks, recipe, weights, least, most):
    task = tasks["classification"]
    model, optimizer, _ = run(task, recipe, 1)
    count = weight_count(model)
    assert count == 30_890
    footprint = measure_footprint(task, model, optimizer, next(task.batches(torch.Generator().manual_seed(0))))
    assert footprint.weights == weights
    assert least <= footprint.optimizer_state < most or footprint.optimizer_state == least == most
    assert footprint.gradients == 4
    assert footprint.peak > footprint.weights + footprint.optimizer_state + footprint.gradients
    assert held(model, optimizer) == (weights * count, round(footprint.optimizer_state * count))


def test_a_measured_step_is_a_real_one(tasks):
    task = tasks["classification"]
    model, optimizer = start(task, Recipe(), 0)
    before = bits(model)
    measure_footprint(task, model, optimizer, next(task.batches(torch.Generator().manual_seed(0))))
    assert not all(map(torch.equal, before, bits(model)))
    assert all(p.grad is None for p in model.parameters())


class Wasteful(Toy):
    """A matrix of 1000 x 1000, of which ten copies are made and let go, one after the other."""

    def network(self):
        return nn.Linear(1000, 1000, bias=False)

    def loss(self, model, batch):
        for _ in range(10):
            (model.weight.detach() * 2).sum()
        return super().loss(model, batch)


def test_bytes_are_counted_by_hand():
    task = Wasteful([1.0])
    model, optimizer = start(task, Recipe("float32", "sgd"), 0)
    footprint = measure_footprint(task, model, optimizer, 1.0)
    assert footprint[:3] == (4, 4, 4)
    # weights and momentum, and within the step: the gradient, and the momentum itself, which is made in it
    assert 4 + 4 + 4 + 4 <= footprint.peak < 4 + 4 + 4 + 4 + 0.1
