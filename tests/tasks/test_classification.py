"""Classification of images: the batches and their augmentation, the networks, the accuracy, by slow loops."""

import itertools

import pytest
import torch
from torch import nn

from lnsnum.tasks import TaskError
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.digits import load_digits
from lnsnum.tasks.image_networks import Residual, resnet18, small_cnn
from lnsnum.tasks.images import Data, ImageSet
from lnsnum.tasks.recipe import Recipe
from lnsnum.torch_bridge import LNSWeight

pytestmark = pytest.mark.usefixtures("one_thread")


def images(train, test, shape=(1, 5, 6), classes=3, seed=0, floats=False):
    """Images of bytes without a zero, so that each differs from the others and from the border."""
    generator = torch.Generator().manual_seed(seed)

    def part(count):
        pixels = torch.randint(1, 256, (count, *shape), generator=generator, dtype=torch.uint8)
        return Data(pixels / 255 if floats else pixels, torch.arange(count) % classes)

    return ImageSet(part(train), part(test), tuple("abcdefghij"[:classes]), "drawn")


def rows(tensor):
    return sorted(tuple(row) for row in tensor.flatten(1).tolist())


# ----------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("floats", [False, True])
def test_an_epoch_has_every_image_once(floats):
    given = images(150, 3, floats=floats)
    task = Classification(given, epochs=4)
    assert (task.epoch_steps, task.steps) == (3, 12)
    batches = task.batches(torch.Generator().manual_seed(0))
    as_floats = given.train.images.float() / (1 if floats else 255)
    label_of = {
        tuple(image): int(y) for image, y in zip(as_floats.flatten(1).tolist(), given.train.labels, strict=True)
    }
    orders = []
    for _ in range(2):
        epoch = list(itertools.islice(batches, 3))
        assert [len(batch.targets) for batch in epoch] == [64, 64, 22]
        seen = torch.cat([batch.inputs for batch in epoch])
        assert seen.dtype == torch.float32
        assert rows(seen) == rows(as_floats)
        assert all(label_of[tuple(x.flatten().tolist())] == y for batch in epoch for x, y in zip(*batch, strict=True))
        orders.append(seen)
    assert not torch.equal(*orders)


def test_the_generator_decides_the_batches():
    task = Classification(images(70, 3), augment=True)

    def drawn(seed):
        return torch.cat([b.inputs for b in itertools.islice(task.batches(torch.Generator().manual_seed(seed)), 4)])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_an_image_left_alone_makes_no_batch():
    batches = Classification(images(65, 3)).batches(torch.Generator().manual_seed(0))
    assert {len(batch.targets) for batch in itertools.islice(batches, 5)} == {64}


def moved(image, down, right):
    """An image moved over a black border, pixel by pixel."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                if 0 <= y - down < height and 0 <= x - right < width:
                    result[c, y, x] = image[c, y - down, x - right]
    return result


@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 6, 5)])
def test_augmentation_mirrors_and_moves_and_nothing_else(shape):
    given = images(2, 2, shape, classes=2)
    task = Classification(given, augment=True)
    variants = {}
    for label, image in enumerate(given.train.images.float() / 255):
        for mirrored in (False, True):
            for down, right in itertools.product(range(-4, 5), repeat=2):
                variant = moved(image.flip(2) if mirrored else image, down, right)
                variants[label, tuple(variant.flatten().tolist())] = (mirrored, down, right)
    seen = []
    for batch in itertools.islice(task.batches(torch.Generator().manual_seed(0)), 400):
        for image, label in zip(*batch, strict=True):
            seen.append(variants[int(label), tuple(image.flatten().tolist())])
    assert {mirrored for mirrored, _, _ in seen} == {False, True}
    assert {down for _, down, _ in seen} == {right for _, _, right in seen} == set(range(-4, 5))
    assert len(set(seen)) > 150  # of 2 * 81


def test_images_are_not_changed_by_training_on_them():
    given = images(70, 3, floats=True)
    before = given.train.images.clone()
    next(Classification(given, augment=True).batches(torch.Generator().manual_seed(0)))
    assert torch.equal(given.train.images, before)


# ---------------------------------------------------------------------------------------------------------- networks


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_parameters_of_the_networks():
    assert parameters(small_cnn(1, 8, 8, 10)) == 30_890
    assert parameters(resnet18(3, 10)) == 11_173_962  # of kuangliu/pytorch-cifar, the usual one
    quarter = parameters(resnet18(3, 10, 16))
    kernels = 9 * (3 * 16 + 4 * 16 * 16 + 16 * 32 + 3 * 32 * 32 + 32 * 64 + 3 * 64 * 64 + 64 * 128 + 3 * 128 * 128)
    shortcuts = 16 * 32 + 32 * 64 + 64 * 128
    norms = 2 * (5 * 16 + 5 * 32 + 5 * 64 + 5 * 128)
    assert quarter == kernels + shortcuts + norms + 128 * 10 + 10
    conv = 9 * (3 * 32 + 32 * 64 + 64 * 128) + 3 * (32 + 64 + 128)
    assert parameters(small_cnn(3, 32, 40, 7)) == conv + 128 * 4 * 5 * 7 + 7


@pytest.mark.parametrize("side", [(4, 4), (4, 9), (7, 5), (16, 16), (16, 17), (17, 33), (31, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_take_images_of_any_sides(side, channels):
    x = torch.rand(2, channels, *side)
    for model in (small_cnn(channels, *side, 5), resnet18(channels, 5, 4)):
        assert model(x).shape == (2, 5)


def test_a_residual_block_adds_what_it_was_given():
    block = Residual(2, 2, stride=1).eval()
    for convolution in (block.first, block.second):
        nn.init.zeros_(convolution.weight)
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(block(x), x.clamp(min=0))
    assert Residual(2, 4, stride=2)(x).shape == (1, 4, 2, 2)


@pytest.mark.parametrize("network", ["cnn", "resnet18-narrow", "resnet18", "vit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_step_on_lns_weights(network, channels):
    task = Classification(images(8, 2, (channels, 8, 8)), network=network)
    assert task.options["network"] == network
    torch.manual_seed(0)
    model = task.network()
    optimizer = Recipe().prepare(model, 0)
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    loss = task.loss(model, next(task.batches(torch.Generator().manual_seed(0))))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert optimizer.step_report().moved > 0.3


def test_images_that_are_too_small():
    with pytest.raises(TaskError, match=r"^drawn: images of 3 x 8 pixels; at least 4 x 4$"):
        Classification(images(4, 2, (1, 8, 3)))


# ------------------------------------------------------------------------------------------------------------- score


class FirstPixel(nn.Module):
    """Says that the class is what the first pixel's fourths are."""

    def forward(self, x):
        return nn.functional.one_hot((x[:, 0, 0, 0] * 3.999).long(), 4).float()


def test_the_accuracy_is_what_counting_gives():
    given = images(4, 2300, (1, 4, 4), classes=4)
    right = sum(
        min(int(pixel) / 255 * 3.999, 3.999) // 1 == int(label)
        for pixel, label in zip(given.test.images[:, 0, 0, 0], given.test.labels, strict=True)
    )
    assert 300 < right < 900
    task = Classification(given)
    model = FirstPixel().train()
    assert task.score(model) == 100 * right / 2300
    assert not model.training
    assert torch.equal(task.outputs(model), model(given.test.images[:1000] / 255))


def test_cross_entropy_is_that_of_its_definition():
    task = Classification(images(5, 2))
    model = task.network().eval()
    batch = next(task.batches(torch.Generator().manual_seed(0)))
    logits = model(batch.inputs).double()
    slow = sum(logits[i].exp().sum().log() - logits[i, y] for i, y in enumerate(batch.targets.tolist())) / 5
    assert task.loss(model, batch).item() == pytest.approx(slow.item(), rel=1e-6)


# -------------------------------------------------------------------------------------------------------------- data


def test_what_the_task_says_of_its_data():
    given = images(1437, 360, (1, 4, 4))
    task = Classification(given)
    assert task.source == "drawn: 1,437 training images, 360 test images"
    assert (task.epoch_steps, task.steps) == (23, 690)
    assert task.options == {"network": "cnn", "augment": False, "bfloat16": False, "mirrored": False}
    assert len(bytes.fromhex(task.fingerprint)) == 32
    again = Classification(images(1437, 360, (1, 4, 4)), network="resnet18-narrow", augment=True)
    assert again.fingerprint == task.fingerprint


def test_every_pixel_and_label_is_in_the_fingerprint():
    prints = [Classification(images(6, 4)).fingerprint]
    for part in ("train", "test"):
        for field in ("images", "labels"):
            given = images(6, 4)
            getattr(getattr(given, part), field)[-1] += 1
            prints.append(Classification(given).fingerprint)
    assert len(set(prints)) == 5


def test_the_digits_are_those_of_scikit_learn():
    from sklearn import datasets

    bunch = datasets.load_digits()
    given = load_digits()
    assert given.classes == tuple("0123456789")
    assert (len(given.train.labels), len(given.test.labels)) == (1437, 360)
    pixels = torch.cat([given.train.images, given.test.images])
    assert pixels.shape == (1797, 1, 8, 8)
    labels = torch.cat([given.train.labels, given.test.labels])
    table = torch.cat([pixels.flatten(1) * 16, labels[:, None]], 1)
    expected = torch.cat([torch.from_numpy(bunch.data).float(), torch.from_numpy(bunch.target)[:, None]], 1)
    assert rows(table) == rows(expected)
    assert torch.equal(load_digits().test.images, given.test.images)


def test_bfloat16_is_for_training_and_scoring():
    task = Classification(images(6, 4), bfloat16=True)
    model = task.network()
    with task.autocast():
        assert model(torch.rand(2, 1, 5, 6)).dtype == torch.bfloat16
    assert task.options["bfloat16"]
    assert 0 <= task.score(model) <= 100
