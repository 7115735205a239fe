"""Every schedule that torch has drives Madam: the rate, and where it cycles it the momentum, are those of each step."""

import pytest
import torch
from test_madam import Shadow, assert_same, floats_left, network, run, set_gradients, shadows_of, snapshot
from torch.optim import lr_scheduler, swa_utils

from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight, Madam

torch.set_num_threads(1)


def sequential(optimizer):
    first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3)
    return lr_scheduler.SequentialLR(optimizer, [first, lr_scheduler.ExponentialLR(optimizer, 0.8)], milestones=[3])


def chained(optimizer):
    first = lr_scheduler.ConstantLR(optimizer, 0.1, total_iters=3)
    return lr_scheduler.ChainedScheduler([first, lr_scheduler.ExponentialLR(optimizer, 0.8)])


SCHEDULES = {
    "ChainedScheduler": chained,
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, total_iters=3),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4], 0.5),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.9),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=10),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6, power=2.0),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.01, anneal_epochs=4),
    "SequentialLR": sequential,
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
}

CYCLE_MOMENTUM = {"CyclicLR", "OneCycleLR"}


def test_no_schedule_of_torch_is_missing_here():
    known = {
        name
        for module in (lr_scheduler, swa_utils)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    assert known - {"LRScheduler"} == SCHEDULES.keys()


def advance(schedule) -> None:
    schedule.step(*([1.0] if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) else []))


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64)], ids=repr)
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_set_the_rate_and_the_momentum_of_the_next_step(name, rate):
    model = network()
    rate = rate.clone() if isinstance(rate, torch.Tensor) else rate
    optimizer = Madam(model.parameters(), lr=rate)
    schedule, shadows = SCHEDULES[name](optimizer), shadows_of(model)
    rates, momenta = [], []
    for step in range(1, 8):
        group = optimizer.param_groups[0]
        rates.append(float(group["lr"]))
        momenta.append(group["momentum"])
        set_gradients(model, step)
        optimizer.step()
        advance(schedule)
        for shadow, p in zip(shadows, model.parameters(), strict=True):
            shadow.step(p.grad, rates[-1], momentum=momenta[-1])
            shadow.check(p, optimizer.state[p])
    assert len(set(rates)) > 1
    assert (len(set(momenta)) > 1) == (name in CYCLE_MOMENTUM)
    assert all(momenta) == (name in CYCLE_MOMENTUM)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_and_its_optimizer_are_resumed(name):
    model = floats_left()
    optimizer = Madam(model.parameters(), lr=0.1)
    schedule = SCHEDULES[name](optimizer)
    for step in range(1, 4):
        run(model, optimizer, step, step)
        advance(schedule)
    other = floats_left()
    other.load_state_dict(model.state_dict())
    fresh = Madam(other.parameters(), lr=0.1)
    resumed = SCHEDULES[name](fresh)
    fresh.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for own, own_optimizer, own_schedule in ((model, optimizer, schedule), (other, fresh, resumed)):
        for step in range(4, 7):
            run(own, own_optimizer, step, step)
            advance(own_schedule)
    assert_same(snapshot(other, fresh), snapshot(model, optimizer))


def test_groups_are_scheduled_each_from_its_own_rate():
    model = network()
    groups = [{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 0.01}]
    optimizer = Madam(groups, lr=0.1)
    schedule = lr_scheduler.StepLR(optimizer, 1, 0.5)
    of_groups = [(p, i) for i in (0, 1) for p in optimizer.param_groups[i]["params"]]
    shadows = [Shadow(p, place) for place, (p, _) in enumerate(of_groups)]
    for step in range(1, 5):
        set_gradients([p for p, _ in of_groups], step)
        optimizer.step()
        for shadow, (p, i) in zip(shadows, of_groups, strict=True):
            shadow.step(p.grad, (0.1, 0.01)[i] * 0.5 ** (step - 1))
            shadow.check(p, optimizer.state[p])
        schedule.step()


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_rate_given_as_a_tensor_is_as_one_given_as_a_number(shape, dtype):
    """Floats and codes, in one, two and no dimensions."""
    results = []
    for lr in (0.125, torch.full(shape, 0.125, dtype=dtype)):
        parameters = [*floats_left().parameters(), torch.nn.Parameter(torch.tensor(1.0))]
        parameters.append(torch.nn.Parameter(LNSWeight(torch.tensor(64, dtype=torch.uint8), lns8f5)))
        optimizer = Madam(parameters, lr=lr, weight_decay=0.5, momentum=0.5)
        for step in range(1, 4):
            set_gradients(parameters, step)
            optimizer.step()
        results.append(snapshot(None, optimizer))
    assert_same(results[1], results[0])
