"""Sets of labelled images in the files that people have them in.

    CIFAR-10 and CIFAR-100 batches for Python        MNIST's idx files        folders of images, one a class

Each may lie in a folder or in a .zip or .tar archive, which is read where it is; nothing is unpacked, and nothing in
any file is executed.
"""

from __future__ import annotations

from pathlib import Path

from lnsnum.files.system_errors import what_is_wrong
from lnsnum.tasks import TaskError, cifar_batches, idx_files, image_file, image_folder
from lnsnum.tasks.file_tree import FileTree, open_tree
from lnsnum.tasks.images import ImageSet

LARGEST_TABLE = 1 << 30
"""Bytes that a batch of CIFAR or an idx file may have, unpacked."""

KNOWN = (
    "CIFAR-10 or CIFAR-100 batches for Python, MNIST's idx files, or folders of images (train/CLASS/*.png and "
    "test/CLASS/*.png, or CLASS/*.png), each as a folder or as a .zip or .tar archive"
)
"""What `load_images` reads, for messages and help."""


def load_images(path: Path) -> ImageSet:
    """The image set in a folder, or in an archive. The data may lie one folder deeper.

    Args:
        path: a folder, or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive; the content decides, not the name.

    Returns:
        Images as uint8 of shape (N, channels, height, width), labels as int64, the same on every machine.

    Raises:
        TaskError: where nothing known is found, or it is damaged or not fit to train on; the message says what.
        ImportError: for image files without Pillow (the extra `tasks`).
    """
    path = Path(path)
    _check_path(path)
    with open_tree(path, _largest) as tree:
        images = None if tree is None else _load(tree)
    if images is None:
        raise TaskError(f"{path}: no image set is recognised here: give {KNOWN}")
    _check(path, images)
    return images._replace(
        classes=tuple(name.encode("utf-8", "backslashreplace").decode() for name in images.classes),
        source=images.source.encode("utf-8", "backslashreplace").decode(),
    )


def _check_path(path: Path) -> None:
    try:
        is_folder, is_file, exists = path.is_dir(), path.is_file(), path.exists()
    except OSError as error:
        raise TaskError(f"{path}: {what_is_wrong(error)}") from error
    if not exists:
        raise TaskError(f"{path}: there is no such file or folder: give {KNOWN}")
    if not is_folder and not is_file:
        raise TaskError(f"{path}: neither a file nor a folder: give {KNOWN}")
    if is_file and _largest(path.name):
        raise TaskError(f"{path}: one file of an image set: give the folder that it belongs to")


def _largest(name: str) -> int:
    """The most bytes that are read of a file; 0 where it belongs to no image set."""
    if name in cifar_batches.NAMES or name in idx_files.NAMES:
        return LARGEST_TABLE
    return image_file.LARGEST_FILE if name.lower().endswith(image_folder.ENDINGS) else 0


_TABLES = ((cifar_batches.found, cifar_batches.load), (idx_files.found, idx_files.load))
_KINDS = (*_TABLES, (image_folder.found, image_folder.load))


def _load(tree: FileTree) -> ImageSet | None:
    for found, load in _KINDS:
        if found(tree, ()):
            return load(tree, ())
    folders = tree.folders()
    below = [(load, name) for name in folders for found, load in _TABLES if found(tree, (name,))]
    if len(below) > 1:
        names = ", ".join(repr(name) for _, name in below)
        tree.refuse((), f"it holds several image sets, {names}: give the folder of one")
    if below:
        load, name = below[0]
        return load(tree, (name,))
    if len(folders) == 1 and image_folder.found(tree, (folders[0],)):
        return image_folder.load(tree, (folders[0],))
    return None


def _check(path: Path, images: ImageSet) -> None:
    """Refuse what no network can be trained or tested on, of any kind."""
    train, test = images.train, images.test
    for what, part in (("training", train), ("test", test)):
        if not len(part.labels):
            raise TaskError(f"{path}: the {what} part is empty: it has to hold images of two classes at least")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise TaskError(
            f"{path}: training images are of {_size(train.images.shape)} pixels, test images of "
            f"{_size(test.images.shape)}: both have to be of one size"
        )
    if int(train.labels.min()) == int(train.labels.max()):
        raise TaskError(
            f"{path}: all training images are of one class, {images.classes[int(train.labels[0])]!r}: "
            "two are needed at least"
        )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]} x {shape[-2]}"
