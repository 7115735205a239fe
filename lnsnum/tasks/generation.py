"""Images drawn by a class-conditional generative adversarial network, scored by a Fréchet distance.

    discriminator    mean max(0, 1 - D(x, y)) + mean max(0, 1 + D(G(z, y), y))
    generator        -mean D(G(z, y), y)

Both are trained at once, by one optimizer. The distance is that between Gaussians fitted to the features that a
classifier, trained by this library, sees in test images and in generated ones:

    |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

Source: Miyato, Koyama, cGANs with projection discriminator, ICLR 2018, for how the discriminator takes the class; Lim,
Ye, Geometric GAN, 2017, for the loss; Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017, for
the distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.tasks import TaskError
from lnsnum.tasks.classification import Classification, as_floats
from lnsnum.tasks.images import ImageSet
from lnsnum.tasks.measure import MEASURES
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.task import Batch, Task
from lnsnum.tasks.training import one_thread, start, train

NOISE = 32
CHANNELS = 16
LEAST = 4
"""Pixels a side that both networks begin or end with."""
BATCH_SIZE = 64
SAMPLES = 2000
"""Generated images that the distance is measured on."""
JUDGE_EPOCHS, JUDGE_STEPS = 10, 400
"""The classifier is trained so long, whichever is less."""
_JUDGE_SEED = 0
_SAMPLE_SEED = 2**32


class Generator(nn.Module):
    """Noise and a class to an image: from 4 x 4 pixels on, each stage doubles the sides."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        stages = int(math.log2(side // LEAST))
        self.classes = nn.Embedding(classes, NOISE)
        self.first = nn.Linear(2 * NOISE, CHANNELS * 2**stages * LEAST * LEAST)
        layers: list[nn.Module] = []
        for stage in reversed(range(stages)):
            inputs, outputs = CHANNELS * 2 ** (stage + 1), CHANNELS * 2**stage
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.Upsample(scale_factor=2)]
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1)]
        self.stages = nn.Sequential(*layers, nn.BatchNorm2d(CHANNELS), nn.ReLU())
        self.last = nn.Conv2d(CHANNELS, channels, 3, padding=1)

    def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(N, NOISE) and (N,) to images in [0, 1]."""
        x = self.first(torch.cat([noise, self.classes(labels)], 1))
        x = self.stages(x.unflatten(1, (-1, LEAST, LEAST)))
        return self.last(x).sigmoid()  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """An image and a class to one number, how real it is: each stage halves the sides, down to 4 x 4 pixels."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        stages = int(math.log2(side // LEAST))
        layers: list[nn.Module] = [nn.Conv2d(channels, CHANNELS, 3, padding=1), nn.LeakyReLU(0.2)]
        for stage in range(stages):
            inputs, outputs = CHANNELS * 2**stage, CHANNELS * 2 ** (stage + 1)
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        features = CHANNELS * 2**stages
        self.stages = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features * LEAST * LEAST, 64), nn.LeakyReLU(0.2))
        self.real = nn.Linear(64, 1)
        self.classes = nn.Embedding(classes, 64)
        nn.init.normal_(self.classes.weight, std=1 / 8)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(N, channels, side, side) and (N,) to (N,)."""
        features = self.stages(images * 2 - 1)
        return self.real(features)[:, 0] + (features * self.classes(labels)).sum(1)  # type: ignore[no-any-return]


class Adversaries(nn.Module):
    """Both networks, as one model; called with noise and labels it draws images."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.generator = Generator(channels, side, classes)
        self.discriminator = Discriminator(channels, side, classes)

    def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Images of the generator."""
        return self.generator(noise, labels)  # type: ignore[no-any-return]


class Generation(Task):
    """The hinge loss of both networks over minibatches of 64; the score is the Fréchet distance.

    Args:
        images: the set; square images whose sides are 8, 16, 32, ... pixels.
        steps: training steps when nobody says how many.
        device: where tensors are.
    """

    name = "generation"
    measure = MEASURES[name]

    def __init__(self, images: ImageSet, *, steps: int = 1000, device: torch.device | str = "cpu") -> None:
        height, width = images.train.images.shape[2:]
        if height != width or height < 2 * LEAST or height & (height - 1):
            raise TaskError(
                f"{images.source}: images of {width} x {height} pixels; squares of 8, 16, 32, ... are needed"
            )
        self.judge = Classification(images, epochs=JUDGE_EPOCHS, device=device)
        self.device = self.judge.device
        self.side, self.channels, self.class_count = height, self.judge.channels, len(images.classes)
        self.source, self.fingerprint = self.judge.source, self.judge.fingerprint
        self.epoch_steps = self.judge.epoch_steps
        self.steps = steps
        self.options = {}
        self._features: list[nn.Module] = []  # one, when it is trained; the validation part shares it

    def network(self) -> nn.Module:
        """Generator and discriminator."""
        return Adversaries(self.channels, self.side, self.class_count).to(self.device)

    def _split(self, validation: Task) -> None:
        assert isinstance(validation, Generation)
        self.judge.hold_out()
        assert isinstance(self.judge.validation, Classification)
        validation.judge = self.judge.validation
        self.epoch_steps = validation.epoch_steps = self.judge.epoch_steps

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Images at random, and their labels; behind the images, noise."""
        data = self.judge.train_data
        while True:
            index = torch.randint(len(data.labels), (BATCH_SIZE,), generator=generator).to(self.device)
            images, labels = data.subset(index)
            noise = torch.randn(BATCH_SIZE, NOISE, generator=generator).to(self.device)
            yield Batch(torch.cat([as_floats(images).flatten(1), noise], 1), labels)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The discriminator's hinge loss plus the generator's; each reaches the parameters of its own network only."""
        assert isinstance(model, Adversaries)
        pixels, noise = batch.inputs.split([batch.inputs.shape[1] - NOISE, NOISE], 1)
        real = pixels.unflatten(1, (self.channels, self.side, self.side))
        labels, judge = batch.targets, model.discriminator
        drawn = model.generator(noise, labels)
        loss: torch.Tensor = F.relu(1 - judge(real, labels)).mean() + F.relu(1 + judge(drawn.detach(), labels)).mean()
        judge.requires_grad_(False)
        try:
            loss = loss - judge(drawn, labels).mean()
        finally:
            judge.requires_grad_(True)
        return loss

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Fréchet distance of 2,000 generated images, of all classes alike, to the test images."""
        features = self._judge_features()
        model.eval()
        tested = [features(as_floats(images)) for images in self.judge.test_data.images.split(SAMPLES)]
        return frechet_distance(torch.cat(tested), features(model(*self._noise(SAMPLES))))

    def _noise(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(count, NOISE, generator=torch.Generator().manual_seed(_SAMPLE_SEED))
        return noise.to(self.device), (torch.arange(count) % self.class_count).to(self.device)

    def _judge_features(self) -> nn.Module:
        """The classifier, trained once by the paper's rule and with a seed of its own, without its last layer."""
        if not self._features:
            with torch.random.fork_rng(devices=[]), torch.enable_grad(), one_thread():
                recipe = Recipe(rule="paper", ceiling="fixed", zeros="redraw")  # it judges all editions of the study
                model, optimizer = start(self.judge, recipe, _JUDGE_SEED)
                steps = min(self.judge.steps, JUDGE_STEPS)
                for _ in train(self.judge, model, optimizer, recipe, steps=steps, seed=_JUDGE_SEED):
                    pass
            assert isinstance(model, nn.Sequential)
            pooled = [layer for layer in model if not isinstance(layer, (nn.Flatten, nn.Dropout, nn.Linear))]
            self._features.append(nn.Sequential(*pooled, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval())
        return self._features[0]

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> torch.Tensor:
        """Some generated images."""
        model.eval()
        return model(*self._noise(100))  # type: ignore[no-any-return]


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """The squared Fréchet distance between Gaussians fitted to two sets of features, (N, features) each.

    NaN where a feature is not finite.
    """
    if not all(bool(torch.isfinite(features).all()) for features in (first, second)):
        return math.nan
    (mean_1, cov_1), (mean_2, cov_2) = (_moments(features.to(torch.float64)) for features in (first, second))
    values, vectors = torch.linalg.eigh(cov_1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_2 @ root).clamp(min=0).sqrt().sum()
    return float((mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * cross)


def _moments(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return features.mean(0), features.T.cov()
