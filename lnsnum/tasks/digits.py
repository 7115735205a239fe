"""Handwritten digits: 1,797 images of 8 x 8 pixels in ten classes, which ship with scikit-learn.

Source of the data: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.tasks.images import Data, ImageSet

TEST_IMAGES = 360
_SPLIT_SEED = 0


def load_digits() -> ImageSet:
    """1,437 training and 360 test images, the same in every run, whatever its seed.

    Raises:
        ImportError: without scikit-learn (the extra `tasks`).
    """
    data = load_all()
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    classes = tuple(str(digit) for digit in range(10))
    train, test = data.subset(order[TEST_IMAGES:]), data.subset(order[:TEST_IMAGES])
    return ImageSet(train, test, classes, "digits of scikit-learn")


def load_all() -> Data:
    """All images as floats in [0, 1] of shape (1797, 1, 8, 8), and their labels.

    Raises:
        ImportError: without scikit-learn (the extra `tasks`).
    """
    table = torch.from_numpy(_table())
    images = table[:, :-1].to(torch.float32).reshape(-1, 1, 8, 8) / 16
    return Data(images, table[:, -1].to(torch.int64))


def _table() -> NDArray[np.float64]:
    """One row an image: 64 pixels from 0 to 16, and the label.

    The file is read where scikit-learn keeps it: importing scikit-learn takes longer than the rest of a start.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the digits come with scikit-learn: pip install 'lnsnum[tasks]'")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if path.exists():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels]).astype(np.float64)
