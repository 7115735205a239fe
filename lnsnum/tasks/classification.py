"""Classification of images: scikit-learn's digits, or any image set (CIFAR-10, MNIST, a folder of images)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.tasks import TaskError
from lnsnum.tasks.image_networks import SMALLEST, VisionTransformer, resnet18, small_cnn
from lnsnum.tasks.images import ImageSet
from lnsnum.tasks.measure import MEASURES
from lnsnum.tasks.task import Batch, Task, fingerprint, held_out

Network = Literal["cnn", "resnet18", "resnet18-narrow", "vit"]

BATCH_SIZE = 64
TEST_BATCH = 1000
NARROW = 16
"""Channels of the first stage of "resnet18-narrow"; the ResNet of the paper has 64."""
CROP = 4
"""Pixels by which augmentation moves an image, at most."""


class Classification(Task):
    """Cross-entropy over minibatches of 64 images, each image once in an epoch; the score is the accuracy.

    Args:
        images: the set.
        network: "cnn", "resnet18", "resnet18-narrow" with a quarter of its channels, or "vit", a vision transformer.
        augment: mirror images left to right and move them by up to 4 pixels, at random, while training.
        epochs: passes over the training images when nobody says how many.
        bfloat16: train and test under autocast.
        device: where tensors are.
    """

    name = "classification"
    measure = MEASURES[name]

    def __init__(
        self,
        images: ImageSet,
        *,
        network: Network = "cnn",
        augment: bool = False,
        epochs: int = 30,
        bfloat16: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if network not in get_args(Network):
            raise TaskError(f"there is no network {network!r}: {', '.join(get_args(Network))}")
        for name, given in (("augment", augment), ("bfloat16", bfloat16)):
            if not isinstance(given, bool):
                raise TaskError(f"{name}={given!r} is neither true nor false")
        self.device = torch.device(device)
        self.train_data, self.test_data = (type(d)(*(t.to(self.device) for t in d)) for d in images[:2])
        self.classes = images.classes
        shape = tuple(self.train_data.images.shape[1:])
        if min(shape[1:]) < SMALLEST:
            raise TaskError(
                f"{images.source}: images of {shape[2]} x {shape[1]} pixels; at least {SMALLEST} x {SMALLEST}"
            )
        self.channels, self.height, self.width = shape
        self.network_name, self.augment = network, augment
        self.bfloat16 = bfloat16
        train, test = len(self.train_data.labels), len(self.test_data.labels)
        self.source = f"{images.source}: {train:,} training images, {test:,} test images"
        self.fingerprint = fingerprint(*images.train, *images.test)
        self.epoch_steps = _epoch_steps(train)
        self.steps = epochs * self.epoch_steps
        self.options = {"network": network, "augment": augment, "bfloat16": bfloat16, "mirrored": False}

    def network(self) -> nn.Module:
        """The network that was chosen, for images of this shape."""
        classes = len(self.classes)
        if self.network_name == "cnn":
            model: nn.Module = small_cnn(self.channels, self.height, self.width, classes)
        elif self.network_name == "vit":
            model = VisionTransformer(self.channels, self.height, self.width, classes)
        else:
            model = resnet18(self.channels, classes, 64 if self.network_name == "resnet18" else NARROW)
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels > 1 else model  # type: ignore[call-overload]

    def _split(self, validation: Task) -> None:
        assert isinstance(validation, Classification)
        data = self.train_data
        learned, held = held_out(len(data.labels))
        if not len(held):
            raise TaskError(f"{self.source}: too few for a validation part: 6 are needed at least")
        for task in (self, validation):
            task.train_data = data.subset(learned.to(self.device))
            task.epoch_steps = _epoch_steps(len(learned))
        validation.test_data = data.subset(held.to(self.device))

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Each image once in each epoch, in an order of its own, but for a last one that would be alone."""
        while True:
            order = torch.randperm(len(self.train_data.labels), generator=generator)
            for index in order.split(BATCH_SIZE)[: self.epoch_steps]:  # batch normalization has no variance of one
                images, labels = self.train_data.subset(index.to(self.device))
                x = as_floats(images)
                yield Batch(_moved(x, generator) if self.augment else x, labels)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(model(batch.inputs).float(), batch.targets)

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Test images classified rightly, in %."""
        model.eval()
        right = 0
        for images, labels in zip(*(part.split(TEST_BATCH) for part in self.test_data), strict=True):
            with self.autocast():
                right += int((model(as_floats(images)).argmax(1) == labels).sum())
        return 100 * right / len(self.test_data.labels)

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> torch.Tensor:
        """Logits of the first 1,000 test images."""
        model.eval()
        return model(as_floats(self.test_data.images[:TEST_BATCH]))  # type: ignore[no-any-return]


def _epoch_steps(images: int) -> int:
    """Batches of an epoch: batch normalization has no variance of one image, so a last one alone is left out."""
    return max(images // BATCH_SIZE + (images % BATCH_SIZE > 1), 1)


def as_floats(images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1], their channels last in memory where there are several."""
    x = images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images
    return x.contiguous(memory_format=torch.channels_last) if x.shape[1] > 1 else x


def _moved(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images mirrored with probability 1/2, and moved by up to `CROP` pixels over a black border."""
    count, _, height, width = x.shape
    mirrored = torch.randint(2, (count, 1, 1, 1), generator=generator).to(x.device)
    down, right = torch.randint(2 * CROP + 1, (2, count), generator=generator).to(x.device)
    x = torch.where(mirrored.bool(), x.flip(3), x)
    padded = F.pad(x, (CROP, CROP, CROP, CROP)).permute(0, 2, 3, 1)
    rows = down[:, None] + torch.arange(height, device=x.device)
    columns = right[:, None] + torch.arange(width, device=x.device)
    image = torch.arange(count, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
