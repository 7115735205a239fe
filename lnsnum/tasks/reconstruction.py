"""An autoencoder: images through a layer that is much narrower than they are.

    pixels -> 128 -> 64 -> 8 -> 64 -> 128 -> pixels

Source: Hinton, Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 2006.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.tasks.classification import Classification, as_floats
from lnsnum.tasks.images import ImageSet
from lnsnum.tasks.measure import MEASURES
from lnsnum.tasks.task import Batch, Task

SIZES = (128, 64, 8)
"""Units of the layers to the narrow one; those after it are the same, the other way round."""
BATCH_SIZE = 64
SHOWN = 100


class Autoencoder(nn.Module):
    """Images to images, through eight numbers.

    Args:
        shape: channels, height and width.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        pixels = shape[0] * shape[1] * shape[2]
        sizes = [pixels, *SIZES, *SIZES[-2::-1], pixels]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.Identity() if outputs == SIZES[-1] else nn.GELU()]
        self.layers = nn.Sequential(nn.Flatten(), *layers[:-1], nn.Sigmoid(), nn.Unflatten(1, shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, channels, height, width) in [0, 1] to the same shape."""
        return self.layers(images)  # type: ignore[no-any-return]


class Reconstruction(Task):
    """Mean squared error over minibatches of 64 images; the score is its root on test images, in levels of 0 to 255.

    Args:
        images: the set; their labels are not looked at.
        steps: training steps when nobody says how many.
        device: where tensors are.
    """

    name = "reconstruction"
    measure = MEASURES[name]

    def __init__(self, images: ImageSet, *, steps: int = 600, device: torch.device | str = "cpu") -> None:
        self.images = Classification(images, device=device)
        self.device = self.images.device
        self.source, self.fingerprint = self.images.source, self.images.fingerprint
        self.epoch_steps = self.images.epoch_steps
        self.steps = steps
        self.options = {}

    def network(self) -> nn.Module:
        """Three layers to eight numbers, and three back."""
        return Autoencoder((self.images.channels, self.images.height, self.images.width)).to(self.device)

    def _split(self, validation: Task) -> None:
        assert isinstance(validation, Reconstruction)
        self.images.hold_out()
        assert isinstance(self.images.validation, Classification)
        validation.images = self.images.validation
        self.epoch_steps = validation.epoch_steps = self.images.epoch_steps

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Each image once in each epoch."""
        for images, _ in self.images.batches(generator):
            yield Batch(images, images)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean squared error."""
        return F.mse_loss(model(batch.inputs).float(), batch.targets)

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Root mean square error of the test images, in levels of 0 to 255."""
        model.eval()
        parts = [as_floats(part) for part in self.images.test_data.images.split(1000)]
        squares = sum(float((model(part) - part).double().square().sum()) for part in parts)
        return 255 * math.sqrt(squares / self.images.test_data.images.numel())

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> torch.Tensor:
        """Some test images, as the network sees them."""
        model.eval()
        return model(as_floats(self.images.test_data.images[:SHOWN]))  # type: ignore[no-any-return]
