"""CIFAR-10 and CIFAR-100 as they are published for Python: pickles of tables with one row of 3072 bytes an image.

    CIFAR-10:   data_batch_1 ... data_batch_5, test_batch, batches.meta        labels
    CIFAR-100:  train, test, meta                                              fine_labels

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.files.pickles import ForbiddenError
from lnsnum.tasks import plain_pickle
from lnsnum.tasks.file_tree import FileTree, reason
from lnsnum.tasks.images import Data, ImageSet

_SHAPE = (3, 32, 32)


class _Kind(NamedTuple):
    name: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    classes: str


_KINDS = (
    _Kind(
        "CIFAR-10",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        "batches.meta",
        "labels",
        "label_names",
    ),
    _Kind("CIFAR-100", ("train",), "test", "meta", "fine_labels", "fine_label_names"),
)

NAMES = frozenset(name for kind in _KINDS for name in (*kind.train, kind.test, kind.meta))
"""The files that `load` reads."""


def _kind(tree: FileTree, place: tuple[str, ...]) -> _Kind | None:
    """Which of the two a folder holds, by two of its files."""
    files = set(tree.files(*place))
    return next((kind for kind in _KINDS if len(files & {*kind.train, kind.test, kind.meta}) > 1), None)


def found(tree: FileTree, place: tuple[str, ...]) -> bool:
    """Whether a folder holds batches of CIFAR."""
    return _kind(tree, place) is not None


def load(tree: FileTree, place: tuple[str, ...]) -> ImageSet:
    """The batches in a folder: images of shape (N, 3, 32, 32), uint8.

    Raises:
        TaskError: where a file lacks, is damaged, or would execute something.
    """
    kind = _kind(tree, place)
    assert kind is not None
    missing = sorted({*kind.train, kind.test, kind.meta} - set(tree.files(*place)))
    if missing:
        tree.refuse(place, f"{kind.name} lacks its file {missing[0]!r}")
    classes = _classes(tree, (*place, kind.meta), kind.classes)
    batches = [_batch(tree, (*place, name), kind.labels, len(classes)) for name in kind.train]
    train = Data(torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches]))
    test = _batch(tree, (*place, kind.test), kind.labels, len(classes))
    return ImageSet(train, test, classes, f"{kind.name} batches in {tree.name(*place)}")


def _content(tree: FileTree, place: tuple[str, ...]) -> dict[str, Any]:
    data = tree.read(*place)
    try:
        content = plain_pickle.read(data)
        return {key if isinstance(key, str) else bytes(key).decode(): value for key, value in content.items()}
    except ForbiddenError as error:
        tree.refuse(place, f"would run {error} when unpickled, as no batch of CIFAR does; nothing of it was executed")
    except Exception:  # whatever a damaged pickle makes the reader trip over
        tree.refuse(place, "is damaged: no pickle of a batch of CIFAR")


def _classes(tree: FileTree, place: tuple[str, ...], key: str) -> tuple[str, ...]:
    names = _content(tree, place).get(key)
    if not isinstance(names, list) or not all(isinstance(name, (str, bytes)) for name in names):
        tree.refuse(place, f"has no list {key!r} of names of classes")
    if len(names) < 2:
        tree.refuse(place, f"has names of {len(names)} classes: two are needed at least")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)


def _batch(tree: FileTree, place: tuple[str, ...], key: str, classes: int) -> Data:
    content = _content(tree, place)
    images, labels = (_array(tree, place, content, name) for name in ("data", key))
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        tree.refuse(place, f"has images of {images.dtype} in shape {images.shape}: uint8 in (N, 3072) are read")
    if labels.shape != (len(images),):
        tree.refuse(place, f"has {labels.size} labels for {len(images)} images")
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        tree.refuse(place, f"has a label {outside[0]}: they go from 0 to {classes - 1}")
    return Data(
        torch.from_numpy(images.reshape(-1, *_SHAPE).copy()),
        torch.from_numpy(labels.astype(np.int64)),
    )


def _array(tree: FileTree, place: tuple[str, ...], content: dict[str, Any], key: str) -> NDArray[Any]:
    if key not in content:
        tree.refuse(place, f"has no {key!r}")
    try:
        return plain_pickle.array(content[key])
    except Exception as error:  # of a forged description of an array
        tree.refuse(place, f"has no array of integers as {key!r}: {reason(error)}")
