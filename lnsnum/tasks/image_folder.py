"""Image files in folders, one folder a class.

    train/CLASS/*, test/CLASS/*        test may be called val or valid; where there are several, test is taken, then val
    CLASS/*                            every fifth image of a class, by sorted name, is for testing

Images are gray, one channel, where all files are; otherwise all are RGB. Transparency is dropped, of 16 bits the
upper 8 are kept, of several frames the first. Classes and files come in the order of their names' code points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.tasks.file_tree import FileTree
from lnsnum.tasks.image_file import decode_image
from lnsnum.tasks.images import Data, ImageSet

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
"""Names of image files, in small or capital letters."""

TEST_FOLDERS = ("test", "val", "valid")

TEST_SHARE = 5
"""Of CLASS/*, one image in so many is for testing."""


class _Files(NamedTuple):
    """Image files and their labels."""

    places: list[tuple[str, ...]]
    labels: list[int]


def _images(tree: FileTree, place: tuple[str, ...]) -> list[str]:
    return [name for name in tree.files(*place) if name.lower().endswith(ENDINGS)]


def _is_split(tree: FileTree, place: tuple[str, ...]) -> bool:
    """Whether a folder `train` is the training part, and no class of that name."""
    folders = tree.folders(*place)
    if "train" not in folders or _images(tree, (*place, "train")):
        return False
    return bool(tree.folders(*place, "train")) or not set(TEST_FOLDERS).isdisjoint(folders)


def found(tree: FileTree, place: tuple[str, ...]) -> bool:
    """Whether a folder holds class folders, or parts that do."""
    return _is_split(tree, place) or any(_images(tree, (*place, folder)) for folder in tree.folders(*place))


def load(tree: FileTree, place: tuple[str, ...]) -> ImageSet:
    """The images below a folder, of shape (N, 1 or 3, height, width), uint8.

    Raises:
        TaskError: where a class lacks images, or an image is damaged or of another size than the first.
        ImportError: without Pillow (the extra `tasks`).
    """
    classes, train, test = _split(tree, place) if _is_split(tree, place) else _every_fifth(tree, place)
    images = torch.from_numpy(_decoded(tree, train.places + test.places))
    count = len(train.labels)
    return ImageSet(
        Data(images[:count], torch.tensor(train.labels, dtype=torch.int64)),
        Data(images[count:], torch.tensor(test.labels, dtype=torch.int64)),
        tuple(classes),
        f"image folder {tree.name(*place)}",
    )


def _split(tree: FileTree, place: tuple[str, ...]) -> tuple[list[str], _Files, _Files]:
    folders = tree.folders(*place)
    test = next((name for name in TEST_FOLDERS if name in folders), None)
    if test is None:
        tree.refuse(place, "it has a folder 'train', and none called 'test', 'val' or 'valid'")
    parts = {part: tree.folders(*place, part) for part in ("train", test)}
    for part, names in parts.items():
        if not names:
            tree.refuse((*place, part), f"is empty: a folder for each class has to be in it, {part}/CLASS/*.png")
    for part, other in (("train", test), (test, "train")):
        lacking = sorted(set(parts[other]) - set(parts[part]))
        if lacking:
            tree.refuse((*place, part), f"lacks the class {lacking[0]!r}, which {other!r} has")
    classes = parts["train"]
    _check_classes(tree, (*place, "train"), classes)
    train_files, test_files = _Files([], []), _Files([], [])
    for part, files in (("train", train_files), (test, test_files)):
        for label, name in enumerate(classes):
            found = _class_files(tree, (*place, part, name))
            files.places.extend(found)
            files.labels.extend([label] * len(found))
    return classes, train_files, test_files


def _every_fifth(tree: FileTree, place: tuple[str, ...]) -> tuple[list[str], _Files, _Files]:
    classes = tree.folders(*place)
    _check_classes(tree, place, classes)
    train, test = _Files([], []), _Files([], [])
    for label, name in enumerate(classes):
        found = _class_files(tree, (*place, name))
        if len(found) < TEST_SHARE:
            tree.refuse(
                (*place, name),
                f"has {len(found)} images, too few: every fifth is for testing, so that a class needs {TEST_SHARE}",
            )
        for i, file in enumerate(found):
            files = test if i % TEST_SHARE == TEST_SHARE - 1 else train
            files.places.append(file)
            files.labels.append(label)
    return classes, train, test


def _check_classes(tree: FileTree, place: tuple[str, ...], classes: list[str]) -> None:
    if len(classes) < 2:
        tree.refuse(place, f"has images of one class only, {classes[0]!r}: two are needed at least, a folder for each")


def _class_files(tree: FileTree, place: tuple[str, ...]) -> list[tuple[str, ...]]:
    files = [(*place, name) for name in _images(tree, place)]
    if not files:
        tree.refuse(place, f"has no images: files ending in {', '.join(ENDINGS)} are read, directly in a class folder")
    return files


def _decoded(tree: FileTree, places: list[tuple[str, ...]]) -> NDArray[np.uint8]:
    """All images as one array of shape (N, channels, height, width)."""
    images = np.empty((0, 0, 0, 0), np.uint8)
    for i, place in enumerate(places):
        image = _image(tree, place)
        if i == 0:
            images = _space(tree, (len(places), *image.shape))
        elif image.shape[1:] != images.shape[2:]:
            tree.refuse(
                place,
                f"is of {_size(image.shape)} pixels, and the images before it of {_size(images.shape)}: "
                "all have to be of one size",
            )
        if len(image) > images.shape[1]:  # the first in colour
            gray, images = images, _space(tree, (len(images), *image.shape))
            images[:i] = gray[:i]
        images[i] = image
    return images


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]} x {shape[-2]}"


def _space(tree: FileTree, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError):
        tree.refuse((), f"{shape[0]} images of {_size(shape)} pixels do not fit into memory: make them smaller")


def _image(tree: FileTree, place: tuple[str, ...]) -> NDArray[np.uint8]:
    """One image, of shape (1 or 3, height, width)."""
    data = tree.read(*place)
    try:
        return decode_image(data)
    except ValueError as error:
        tree.refuse(place, f"cannot be decoded{error}")
