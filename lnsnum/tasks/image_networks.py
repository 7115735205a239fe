"""Networks that classify images: small convolutional ones, the ResNet of 18 layers, and a small vision transformer.

Source of the ResNet: He, Zhang, Ren, Sun, Deep residual learning for image recognition, CVPR 2016; for images of 32
pixels the first layer is of 3 x 3 pixels and does not pool, as in that paper's experiments on CIFAR-10. Of the vision
transformer: Dosovitskiy et al., An image is worth 16 x 16 words, ICLR 2021; here a word is of 4 x 4 pixels, and the
mean over places is classified.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

SMALLEST, SMALL = 4, 16
"""Pixels a side: of the least image that the networks take, and of the largest that needs no third pooling."""


def small_cnn(channels: int, height: int, width: int, classes: int) -> nn.Module:
    """Three convolutions with batch normalization and one linear layer.

    For images of 1 x 8 x 8 in ten classes 30,890 parameters. Above 16 pixels a side there are more channels, and each
    convolution pools.
    """
    if min(height, width) <= SMALL:
        return nn.Sequential(
            *_block(channels, 32),
            *_block(32, 32),
            nn.MaxPool2d(2),
            *_block(32, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(64 * (height // 4) * (width // 4), classes),
        )
    return nn.Sequential(
        *_block(channels, 32),
        nn.MaxPool2d(2),
        *_block(32, 64),
        nn.MaxPool2d(2),
        *_block(64, 128),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * (height // 8) * (width // 8), classes),
    )


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def resnet18(channels: int, classes: int, width: int = 64) -> nn.Module:
    """The ResNet of 18 layers; `width` channels in the first stage, twice as many in each further one."""
    stages = []
    inputs = width
    for stage, outputs in enumerate((width, 2 * width, 4 * width, 8 * width)):
        for block in range(2):
            stages.append(Residual(inputs, outputs, stride=2 if stage > 0 and block == 0 else 1))
            inputs = outputs
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inputs, classes),
    )


class Residual(nn.Module):
    """Two convolutions beside the identity, or beside a convolution of one pixel where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        inner = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(inner + self.shortcut(x))


PATCH, WIDTH, HEADS, LAYERS = 4, 64, 4, 2
"""Pixels a side of a patch; channels, heads and layers of the vision transformer."""


class VisionTransformer(nn.Module):
    """Patches of 4 x 4 pixels as tokens, two layers of 64 channels, the mean over places to a linear layer."""

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(torch.randn((height // PATCH) * (width // PATCH), WIDTH) * 0.02)
        layers = [
            nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(LAYERS)
        ]
        self.layers = nn.Sequential(*layers, nn.LayerNorm(WIDTH))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, height, width) to (N, classes)."""
        tokens = self.patches(x).flatten(2).mT + self.places
        return self.head(self.layers(tokens).mean(1))  # type: ignore[no-any-return]
