"""Sets of labelled images, as the image tasks take them."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Data(NamedTuple):
    """Images of shape (N, channels, height, width), float in [0, 1] or uint8, and labels of shape (N,), int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def subset(self, index: torch.Tensor) -> Data:
        """The images at `index`."""
        return Data(self.images[index], self.labels[index])


class ImageSet(NamedTuple):
    """Images to train on and others to test on, of one shape, in the same classes."""

    train: Data
    test: Data
    classes: tuple[str, ...]
    """Their names, by label."""
    source: str
    """What it is, in a few words: "CIFAR-10 batches in cifar-10-batches-py"."""
