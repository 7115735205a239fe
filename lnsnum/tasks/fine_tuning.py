"""Fine-tuning: a network that was trained in float on images learns the same images mirrored left to right.

    filters of the first layer are to be mirrored, so that signs have to change

What is trained further is one network, the same for every seed: it is trained when it is asked for first.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from lnsnum.tasks.classification import Classification
from lnsnum.tasks.images import Data, ImageSet
from lnsnum.tasks.recipe import FLOAT, Recipe
from lnsnum.tasks.training import one_thread, start, train

EPOCHS = 10
"""Passes over the images as they are."""
_SEED = 0


def mirror(data: Data) -> Data:
    """The images mirrored left to right."""
    return Data(data.images.flip(-1), data.labels)


class FineTuning(Classification):
    """Classification of mirrored images by a network that knows them as they are.

    Args:
        images: the set, as it is.
        options: those of `Classification`.
    """

    def __init__(self, images: ImageSet, **options: Any) -> None:
        super().__init__(images._replace(train=mirror(images.train), test=mirror(images.test)), **options)
        self.options["mirrored"] = True
        self._trained: list[nn.Module] = []  # one, when it was asked for

    def network(self) -> nn.Module:
        """A copy of the network that was trained by Adam, in float32, on the images as they are."""
        if not self._trained:
            self._trained.append(self._train())
        return copy.deepcopy(self._trained[0])

    def _train(self) -> nn.Module:
        train_data, test_data = (mirror(data) for data in (self.train_data, self.test_data))
        images = ImageSet(train_data, test_data, self.classes, self.source)
        task = Classification(images, network=self.network_name, epochs=EPOCHS, device=self.device)
        recipe = Recipe(FLOAT, "adam")
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), one_thread():
            model, optimizer = start(task, recipe, _SEED)
            for _ in train(task, model, optimizer, recipe, steps=task.steps, seed=_SEED):
                pass
        return model.requires_grad_(True)
