"""Generation: whose loss trains whom, and the Fréchet distance against scipy's matrix root and cases done by hand."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import linalg

from lnsnum.tasks import TaskError, generation
from lnsnum.tasks.generation import NOISE, Discriminator, Generation, Generator, frechet_distance
from lnsnum.tasks.images import Data, ImageSet
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.training import start

pytestmark = pytest.mark.usefixtures("one_thread")


def images(shape=(1, 8, 8), train=40, test=30, classes=2):
    generator = torch.Generator().manual_seed(0)

    def part(count):
        pixels = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
        return Data(pixels, torch.arange(count) % classes)

    return ImageSet(part(train), part(test), tuple("abcdefghij"[:classes]), "drawn")


# -------------------------------------------------------------------------------------------------------- both losses


@pytest.mark.parametrize("fmt", ["float32", "lns8f5"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_network_has_the_gradient_of_its_own_loss_alone(fmt, channels):
    task = Generation(images((channels, 16, 16)))
    torch.manual_seed(0)
    model = task.network()
    batch = next(task.batches(torch.Generator().manual_seed(0)))
    real = batch.inputs[:, :-NOISE].reshape(64, channels, 16, 16)
    noise, labels = batch.inputs[:, -NOISE:], batch.targets
    with torch.no_grad():  # so that of both kinds some images are beyond the hinge, and some are not
        model.discriminator.classes.weight *= 300
        both = model.discriminator(torch.cat([real, model.generator(noise, labels)]), labels.repeat(2))
        model.discriminator.real.bias -= both.median()
    Recipe(fmt).convert(model, 0)
    task.loss(model, batch).backward()
    drawn = model.generator(noise, labels)
    of_judge = list(model.discriminator.parameters())
    of_generator = list(model.generator.parameters())
    margin_real, margin_drawn = 1 - model.discriminator(real, labels), 1 + model.discriminator(drawn, labels)
    for margin in (margin_real, margin_drawn):
        assert 0 < int((margin > 0).sum()) < 64
    hinge = (margin_real * (margin_real > 0)).mean() + (margin_drawn * (margin_drawn > 0)).mean()
    expected = torch.autograd.grad(hinge, of_judge, retain_graph=True)
    expected += torch.autograd.grad((1 - margin_drawn).mean(), of_generator)
    for p, gradient in zip([*of_judge, *of_generator], expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)
        assert p.requires_grad
    assert all(float(p.grad.abs().max()) > 0 for p in of_judge)


def test_the_loss_is_the_sum_of_both():
    task = Generation(images())
    model, _ = start(task, Recipe("float32", "adam"), 0)
    batch = next(task.batches(torch.Generator().manual_seed(0)))
    real, noise = batch.inputs[:, :-NOISE].reshape(64, 1, 8, 8), batch.inputs[:, -NOISE:]
    d_real = model.discriminator(real, batch.targets).tolist()
    d_drawn = model.discriminator(model.generator(noise, batch.targets), batch.targets).tolist()
    terms = [max(0, 1 - a) + max(0, 1 + b) - b for a, b in zip(d_real, d_drawn, strict=True)]
    assert task.loss(model, batch).item() == pytest.approx(math.fsum(terms) / 64, rel=1e-5)


def test_a_step_moves_both_networks():
    task = Generation(images())
    model, optimizer = start(task, Recipe(), 0)
    before = [p.detach().dequantize().clone() for p in model.parameters()]
    task.loss(model, next(task.batches(torch.Generator().manual_seed(0)))).backward()
    optimizer.step()
    for kept, (name, p) in zip(before, model.named_parameters(), strict=True):
        # as long as no image is beyond the hinge, what is added to real and drawn ones has no gradient
        assert torch.equal(kept, p.detach().dequantize()) == (name == "discriminator.real.bias")


def test_batches_are_images_with_their_labels_and_noise():
    given = images(train=10)
    label_of = {
        tuple(x.flatten().tolist()): y
        for x, y in zip(given.train.images / 255, given.train.labels.tolist(), strict=True)
    }
    noise = []
    for batch in itertools.islice(Generation(given).batches(torch.Generator().manual_seed(0)), 20):
        assert [label_of[tuple(row)] for row in batch.inputs[:, :64].tolist()] == batch.targets.tolist()
        noise.append(batch.inputs[:, 64:])
    numbers = torch.cat(noise)
    assert numbers.shape == (1280, NOISE)
    assert abs(numbers.mean()) < 0.03
    assert abs(numbers.std() - 1) < 0.03


# ---------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("side", [8, 16, 32])
def test_networks_draw_and_judge_images_of_any_side(side):
    noise, labels = torch.randn(5, NOISE), torch.tensor([0, 1, 2, 0, 1])
    drawn = Generator(3, side, 3)(noise, labels)
    assert drawn.shape == (5, 3, side, side)
    assert 0 <= drawn.min() < drawn.max() <= 1
    assert Discriminator(3, side, 3)(drawn, labels).shape == (5,)


def test_both_networks_know_the_class():
    torch.manual_seed(0)
    generator, judge = Generator(1, 8, 2).eval(), Discriminator(1, 8, 2)
    noise, zero, one = torch.randn(1, NOISE), torch.tensor([0]), torch.tensor([1])
    drawn = generator(noise, zero)
    assert not torch.equal(drawn, generator(noise, one))
    assert judge(drawn, zero) != judge(drawn, one)


@pytest.mark.parametrize("size", [(4, 4), (12, 12), (8, 16), (5, 5), (16, 8)])
def test_images_of_other_sizes(size):
    width, height = size
    with pytest.raises(TaskError) as refused:
        Generation(images((1, height, width)))
    assert str(refused.value) == f"drawn: images of {width} x {height} pixels; squares of 8, 16, 32, ... are needed"


# --------------------------------------------------------------------------------------------------- Fréchet distance


def by_definition(first, second):
    """The formula, with a matrix root that knows nothing of symmetry."""
    (m_1, s_1), (m_2, s_2) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (first, second))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", linalg.LinAlgWarning)  # of singular matrices
        root = linalg.sqrtm(s_1 @ s_2 + 1e-14 * np.trace(s_1 @ s_2) * np.eye(len(s_1)))
    return float(((m_1 - m_2) ** 2).sum() + np.trace(s_1 + s_2 - 2 * root.real))


@pytest.mark.parametrize(("features", "seed"), [(2, 0), (5, 1), (20, 2)])
def test_the_distance_is_that_of_the_formula(features, seed):
    random = np.random.default_rng(seed)
    first, second = (
        random.normal(size=(count, features)) @ random.normal(size=(features, features)) + random.normal(size=features)
        for count in (300, 200)
    )
    distance = frechet_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert distance == pytest.approx(by_definition(first, second), rel=1e-6)
    assert frechet_distance(torch.from_numpy(second), torch.from_numpy(first)) == pytest.approx(distance, rel=1e-9)


def test_distances_known_by_hand():
    points = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-12)
    shift = torch.tensor([3.0, -4.0], dtype=torch.float64)
    assert frechet_distance(points, points + shift) == pytest.approx(25, rel=1e-12)
    # three times as wide: in each of two dimensions (3 s - s)^2 = 4 s^2, and s^2 = 2 / 3
    assert frechet_distance(points, 3 * points) == pytest.approx(2 * 4 * 2 / 3, rel=1e-12)
    # all in one point: the trace of the other's covariance
    assert frechet_distance(points, torch.zeros(4, 2)) == pytest.approx(4 / 3, rel=1e-12)


def test_features_that_hang_together_have_a_distance():
    """A covariance that is singular, as of features that never light up."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat = torch.cat([x, x, torch.zeros(50, 2)], 1)
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-6)
    moments = float(x.mean(0).square().sum() + x.var(0).sum())
    assert frechet_distance(flat, 2 * flat) == pytest.approx(2 * moments, rel=1e-6)


# ------------------------------------------------------------------------------------------------------------- score


def test_the_score_is_of_the_judges_features_and_the_same_each_time(monkeypatch):
    monkeypatch.setattr(generation, "JUDGE_EPOCHS", 1)
    given = images()
    task = Generation(given)
    model, _ = start(task, Recipe("float32", "adam"), 0)
    state = torch.random.get_rng_state()
    score = task.score(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.training
    assert score == task.score(model) == Generation(given).score(model)
    seen = []
    handle = task._judge_features()[-1].register_forward_hook(lambda _, __, features: seen.append(features))
    task.score(model)
    handle.remove()
    assert [tuple(features.shape) for features in seen] == [(30, 64), (2000, 64)]
    assert score == pytest.approx(by_definition(*(features.double().numpy() for features in seen)), rel=1e-4)


def test_outputs_are_images_and_the_same_each_time():
    task = Generation(images())
    model, _ = start(task, Recipe(), 0)
    drawn = task.outputs(model)
    assert drawn.shape == (100, 1, 8, 8)
    assert torch.equal(drawn, task.outputs(model))
    assert not drawn.requires_grad


def test_features_that_are_not_finite_have_no_distance():
    features = torch.randn(20, 3)
    assert math.isnan(frechet_distance(features, torch.full((20, 3), math.nan)))
