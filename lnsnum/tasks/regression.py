"""Regression of an image: a network learns the color at a place from Fourier features of the place.

    (sin(2 pi B x), cos(2 pi B x)) -> rgb,      B of normally distributed frequencies

Source: Tancik et al., Fourier features let networks learn high frequency functions in low dimensional domains, NeurIPS
2020; Madam's authors show it on this task.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from lnsnum.tasks import TaskError
from lnsnum.tasks.image_file import LARGEST_FILE, decode_image
from lnsnum.tasks.measure import MEASURES
from lnsnum.tasks.task import Batch, Task, fingerprint, held_out
from lnsnum.tasks.troubles import check_regular, in_words

SIDE = 128
"""Pixels a side: an image is cut to a square and reduced to this."""
FREQUENCIES, SCALE = 64, 4.0
"""How many, and their standard deviation in periods over the image."""
HIDDEN, LAYERS = 128, 3
BATCH_SIZE = 1024
_FEATURE_SEED = 0


class FourierNetwork(nn.Module):
    """Places in [0, 1]^2 to colors in [0, 1]^3; the frequencies are drawn once and the same in every run."""

    frequencies: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(_FEATURE_SEED)
        frequencies = 2 * math.pi * SCALE * torch.randn(2, FREQUENCIES, generator=generator)
        self.register_buffer("frequencies", frequencies)
        sizes = [2 * FREQUENCIES, *[HIDDEN] * LAYERS]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(HIDDEN, 3), nn.Sigmoid())

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """(N, 2) to (N, 3)."""
        angles = places @ self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], 1))  # type: ignore[no-any-return]


def load_image(path: Path | None = None) -> tuple[torch.Tensor, str]:
    """An image as floats in [0, 1] of shape (128, 128, 3), and its name; scikit-learn's "china.jpg" without a path.

    Raises:
        ImportError: without scikit-learn or Pillow (the extra `tasks`).
        TaskError: where there is no such file, it is no image, or one smaller than 128 x 128 pixels.
    """
    from PIL import Image

    if path is None:
        from sklearn.datasets import load_sample_image

        pixels, source = load_sample_image("china.jpg"), "china.jpg of scikit-learn"
    else:
        pixels, source = _read(path), path.name
    picture = Image.fromarray(pixels)
    width, height = picture.size
    if min(width, height) < SIDE:
        raise TaskError(f"{source} is of {width} x {height} pixels: at least {SIDE} x {SIDE} are needed")
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(square, np.float32) / 255), source


def _read(path: Path) -> NDArray[np.uint8]:
    """The pixels of a file, of shape (height, width, 3)."""
    try:
        check_regular(path, "an image")
        if path.stat().st_size > LARGEST_FILE:
            raise TaskError(f"{path} has more than {LARGEST_FILE >> 20} MB, the most that an image file may have")
        pixels = decode_image(path.read_bytes())
    except OSError as error:
        raise TaskError(in_words(error)) from error
    except ValueError as error:
        raise TaskError(f"{path} cannot be decoded{error}") from error
    return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))


class Regression(Task):
    """Mean squared error over random pixels; the score is the root of that over other pixels, in levels of 0 to 255.

    The network learns the pixels of even rows and columns, a quarter, and is tested on the rest.

    Args:
        image: floats of shape (128, 128, 3), as `load_image` gives them.
        source: its name.
        steps: training steps when nobody says how many.
        device: where tensors are.
    """

    name = "regression"
    measure = MEASURES[name]

    def __init__(
        self, image: torch.Tensor, source: str, *, steps: int = 600, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        axis = (torch.arange(SIDE) + 0.5) / SIDE
        places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
        learned = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        learned[::2, ::2] = True
        self.train_data, self.test_data = (
            Batch(places[part].to(self.device), image[part].to(self.device)) for part in (learned, ~learned)
        )
        learned_count, others = len(self.train_data.inputs), len(self.test_data.inputs)
        self.source = f"{source}, {SIDE} x {SIDE} pixels: {learned_count:,} to train on, {others:,} to test on"
        self.fingerprint = fingerprint(image)
        self.epoch_steps = -(-len(self.train_data.inputs) // BATCH_SIZE)
        self.steps = steps
        self.options = {}

    def network(self) -> nn.Module:
        """Three hidden layers of 128."""
        return FourierNetwork().to(self.device)

    def _split(self, validation: Task) -> None:
        assert isinstance(validation, Regression)
        data = self.train_data
        learned, held = (part.to(self.device) for part in held_out(len(data.inputs)))
        for task in (self, validation):
            task.train_data = Batch(data.inputs[learned], data.targets[learned])
            task.epoch_steps = -(-len(learned) // BATCH_SIZE)
        validation.test_data = Batch(data.inputs[held], data.targets[held])

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """1,024 pixels at random."""
        while True:
            index = torch.randint(len(self.train_data.inputs), (BATCH_SIZE,), generator=generator).to(self.device)
            yield Batch(self.train_data.inputs[index], self.train_data.targets[index])

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean squared error."""
        return F.mse_loss(model(batch.inputs).float(), batch.targets)

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Root mean square error of the pixels that were not learned, in levels of 0 to 255."""
        return 255 * float(F.mse_loss(self.outputs(model), self.test_data.targets).sqrt())

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> torch.Tensor:
        """The colors of the pixels that were not learned."""
        model.eval()
        return model(self.test_data.inputs)  # type: ignore[no-any-return]
