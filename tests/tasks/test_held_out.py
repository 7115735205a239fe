"""Validation parts: what is held out is trained on by nobody; and the two tasks of images that came with them."""

import copy
import math

import pytest
import torch
from torch import nn

from lnsnum.tasks import TaskError, fine_tuning
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.fine_tuning import FineTuning
from lnsnum.tasks.images import Data, ImageSet
from lnsnum.tasks.reconstruction import Autoencoder, Reconstruction
from lnsnum.tasks.registry import TASKS, make_task
from lnsnum.tasks.task import Task

pytestmark = pytest.mark.usefixtures("one_thread")


def parts(task):
    """What a task is trained and tested on, as lists of one text an example."""
    if task.name == "generation":
        return parts(task.judge)
    if task.name == "reconstruction":
        return parts(task.images)
    if task.name in ("characters", "words"):
        return task.train_tokens.tolist(), task.test_tokens.tolist()
    if task.name == "copying":
        return [], [str(row) for row in task.test_data.inputs.tolist()]
    return tuple(
        [str([x.flatten().tolist() for x in example]) for example in zip(*data, strict=True)]
        for data in (task.train_data, task.test_data)
    )


@pytest.mark.parametrize("name", TASKS)
def test_what_is_held_out_is_a_sixth_of_what_was_trained_on(name):
    task = make_task(name)
    trained, tested = parts(task)
    before, epoch = task.fingerprint, task.epoch_steps
    task.hold_out()
    left, still = parts(task)
    of_validation, held = parts(task.validation)
    assert still == tested
    assert of_validation == left
    if name == "copying":  # which draws what it learns from
        assert not set(held) & set(tested) or len(set(held) & set(tested)) < 0.5 * len(held)
        assert held != tested
    else:
        assert len(held) == len(trained) // 6
        assert sorted(left + held) == sorted(trained)
        assert task.epoch_steps == task.validation.epoch_steps
        assert task.epoch_steps == pytest.approx(epoch * 5 / 6, abs=1.1)
    assert task.fingerprint == task.validation.fingerprint != before
    again = make_task(name)
    again.hold_out()
    assert (again.fingerprint, parts(again.validation)) == (task.fingerprint, (of_validation, held))


def test_a_network_is_scored_by_either_part():
    """Digits: the class that is most frequent is right as often as counting says."""

    class Always(nn.Module):
        def forward(self, x):
            return nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    task = make_task("classification")
    task.hold_out()
    for one in (task, task.validation):
        labels = one.test_data.labels.tolist()
        assert one.score(Always()) == pytest.approx(100 * labels.count(3) / len(labels))
    assert len(task.validation.test_data.labels) == 239


def test_a_task_that_can_hold_nothing_out():
    class Bare(Task):
        name = "bare"
        network = batches = loss = score = outputs = None

    with pytest.raises(TaskError, match=r"^the task bare has no validation part$"):
        Bare().hold_out()
    few = Data(torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 0, 1, 0]))
    with pytest.raises(TaskError, match="too few for a validation part: 6 are needed at least"):
        Classification(ImageSet(few, few, ("a", "b"), "drawn")).hold_out()


# --------------------------------------------------------------------------------------------------------- fine-tuning


def test_a_network_that_knows_the_digits_is_to_learn_their_mirror_images(monkeypatch):
    monkeypatch.setattr(fine_tuning, "EPOCHS", 3)
    plain, task = make_task("classification"), make_task("classification", mirrored=True)
    assert isinstance(task, FineTuning)
    assert torch.equal(task.train_data.images, plain.train_data.images.flip(3))
    assert torch.equal(task.test_data.images.flip(-1), plain.test_data.images)
    assert task.options["mirrored"]
    assert task.fingerprint != plain.fingerprint
    torch.manual_seed(1)
    first = task.network()
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # it draws nothing from the generator of the run
    second = task.network()
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert next(first.parameters()) is not next(second.parameters())
    other = make_task("classification", mirrored=True).network()
    assert all(map(torch.equal, first.parameters(), other.parameters()))  # nor does another process
    assert plain.score(copy.deepcopy(first)) > task.score(first) + 20  # what it knows are the digits as they are


# --------------------------------------------------------------------------------------------------------- autoencoder


class Half(nn.Module):
    def forward(self, x):
        return torch.full_like(x, 0.5)


def test_the_error_of_reconstruction_by_hand():
    images = torch.tensor([[0, 255, 51, 204] * 16] * 2, dtype=torch.uint8).reshape(2, 1, 8, 8)
    data = Data(images, torch.tensor([0, 1]))
    task = Reconstruction(ImageSet(data, data, ("a", "b"), "drawn"))
    levels = [0, 255, 51, 204]
    assert task.score(Half()) == pytest.approx(math.sqrt(sum((x - 127.5) ** 2 for x in levels) / 4), rel=1e-6)
    batch = next(task.batches(torch.Generator().manual_seed(0)))
    assert torch.equal(batch.inputs, batch.targets)
    assert task.loss(Half(), batch).item() == pytest.approx(sum((x / 255 - 0.5) ** 2 for x in levels) / 4, rel=1e-6)


def test_an_image_passes_through_eight_numbers():
    torch.manual_seed(0)
    model = Autoencoder((3, 4, 5))
    widths = []
    for layer in model.layers:
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda _, __, y: widths.append(y.shape[1]))
    drawn = model(torch.rand(2, 3, 4, 5))
    assert drawn.shape == (2, 3, 4, 5)
    assert widths == [128, 64, 8, 64, 128, 60]
    assert 0 < drawn.min() < drawn.max() < 1
