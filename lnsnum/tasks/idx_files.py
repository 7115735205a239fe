"""MNIST, and what is published in its files: Fashion-MNIST, Kuzushiji-MNIST, EMNIST.

    images:  0x00000803, count, rows, columns, then one byte a pixel        labels:  0x00000801, count, one byte each

Numbers of the header are big-endian, of 32 bits. Source: LeCun, Cortes and Burges, The MNIST database of handwritten
digits.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum.tasks.file_tree import FileTree, reason
from lnsnum.tasks.images import Data, ImageSet

_RANKS = {"images": 3, "labels": 1}


def _spellings(part: str, what: str) -> list[str]:
    """The names that a file may have, the one that is taken first of several first."""
    return [f"{part}-{what}{dash}idx{_RANKS[what]}-ubyte{end}" for end in ("", ".gz") for dash in "-."]


NAMES = frozenset(name for part in ("train", "t10k") for what in _RANKS for name in _spellings(part, what))
"""The files that `load` reads."""


def found(tree: FileTree, place: tuple[str, ...]) -> bool:
    """Whether a folder holds files of MNIST."""
    return not NAMES.isdisjoint(tree.files(*place))


def load(tree: FileTree, place: tuple[str, ...]) -> ImageSet:
    """The four files in a folder: images of shape (N, 1, rows, columns), uint8. Classes are called by their numbers.

    Raises:
        TaskError: where a file lacks or is damaged.
    """
    train, test = _part(tree, place, "train"), _part(tree, place, "t10k")
    classes = int(train.labels.max()) + 1 if len(train.labels) else 0
    outside = test.labels[test.labels >= classes].tolist() if classes else []
    if outside:
        tree.refuse(
            (*place, _file(tree, place, "t10k", "labels")),
            f"has a label {outside[0]}: those of the training part go from 0 to {classes - 1}",
        )
    return ImageSet(train, test, tuple(str(label) for label in range(classes)), f"idx files in {tree.name(*place)}")


def _part(tree: FileTree, place: tuple[str, ...], part: str) -> Data:
    images = _read(tree, (*place, _file(tree, place, part, "images")), "images")
    file = (*place, _file(tree, place, part, "labels"))
    labels = _read(tree, file, "labels")
    if len(images) != len(labels):
        tree.refuse(file, f"has {len(labels)} labels for {len(images)} images")
    return Data(torch.from_numpy(images[:, np.newaxis].copy()), torch.from_numpy(labels.astype(np.int64)))


def _file(tree: FileTree, place: tuple[str, ...], part: str, what: str) -> str:
    names = _spellings(part, what)
    there = set(tree.files(*place))
    name = next((name for name in names if name in there), None)
    if name is None:
        tree.refuse(place, f"the idx files lack {names[0]!r}, plain or with .gz")
    return name


def _read(tree: FileTree, place: tuple[str, ...], what: str) -> NDArray[np.uint8]:
    """The bytes of one file in the shape of its header."""
    data = io.BytesIO(tree.read(*place))
    file: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=data) if place[-1].endswith(".gz") else data
    rank, limit = _RANKS[what], tree.limits(place[-1])
    try:
        head = file.read(4 * (rank + 1)).ljust(4 * (rank + 1), b"\0")
        magic, *shape = struct.unpack(f">{rank + 1}I", head)
        size = math.prod(shape)
        body = file.read(min(size, limit) + 1)
    except Exception as error:  # whatever gzip trips over
        tree.refuse(place, f"is damaged: {reason(error)}")
    if magic != 0x800 + rank:
        tree.refuse(place, f"starts with 0x{magic:08x}, and a file of {what} with 0x{0x800 + rank:08x}")
    if size > limit:
        tree.refuse(place, f"says that it has {size} bytes; {limit >> 20} MB are the most that are read")
    if rank == 3 and 0 in shape[1:]:
        tree.refuse(place, f"has images of {shape[1]} x {shape[2]} pixels")
    if len(body) != size:
        have = "more than that" if len(body) > size else f"{len(body)}"
        tree.refuse(place, f"says that {size} bytes follow its header, and {have} do")
    return np.frombuffer(body, np.uint8).reshape(shape)
