"""The tasks by name, each with its data: the embedded default, or what a path leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lnsnum.tasks import TaskError
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.copying import Copying
from lnsnum.tasks.digits import load_digits
from lnsnum.tasks.fine_tuning import FineTuning
from lnsnum.tasks.generation import Generation
from lnsnum.tasks.image_sets import load_images
from lnsnum.tasks.images import ImageSet
from lnsnum.tasks.language import LanguageModel
from lnsnum.tasks.measure import Measure
from lnsnum.tasks.reconstruction import Reconstruction
from lnsnum.tasks.regression import Regression, load_image
from lnsnum.tasks.task import Task
from lnsnum.tasks.text import load_text
from lnsnum.torch_bridge.datapath import datapath as make_datapath
from lnsnum.torch_bridge.datapath.texts import read_short

Maker = Callable[..., Task]


@dataclass(frozen=True)
class Entry:
    """One task: how it is made, and what is told of it before it is."""

    make: Maker
    """From a path or None, a device, and options."""
    measure: Measure
    summary: str
    data: str | None
    """What `--data` is for this task; None where it takes none."""
    options: frozenset[str] = frozenset()


def _images(path: Path | None) -> ImageSet:
    return load_digits() if path is None else load_images(path)


def _classification(path: Path | None, device: torch.device, mirrored: bool = False, **options: Any) -> Task:
    if not isinstance(mirrored, bool):
        raise TaskError(f"mirrored={mirrored!r} is neither true nor false")
    return (FineTuning if mirrored else Classification)(_images(path), device=device, **options)


def _generation(path: Path | None, device: torch.device) -> Task:
    return Generation(_images(path), device=device)


def _reconstruction(path: Path | None, device: torch.device) -> Task:
    return Reconstruction(_images(path), device=device)


def _characters(path: Path | None, device: torch.device, **options: Any) -> Task:
    return LanguageModel(load_text(path), "characters", device=device, **options)


def _words(path: Path | None, device: torch.device, **options: Any) -> Task:
    return LanguageModel(load_text(path), "words", device=device, **options)


def _regression(path: Path | None, device: torch.device) -> Task:
    return Regression(*load_image(path), device=device)


def _copying(path: Path | None, device: torch.device) -> Task:
    return Copying(device=device)


_IMAGES = "images: a folder or archive of a folder for each class, CIFAR's python batches, MNIST's idx files"
_TEXT = "a plain text file"

TASKS: dict[str, Entry] = {
    "classification": Entry(
        _classification, Classification.measure, "classify images; by default scikit-learn's digits", _IMAGES,
        frozenset({"network", "augment", "bfloat16", "mirrored"}),
    ),
    "generation": Entry(
        _generation, Generation.measure, "draw images of a class (a GAN); by default scikit-learn's digits", _IMAGES
    ),
    "reconstruction": Entry(
        _reconstruction, Reconstruction.measure, "an autoencoder of images; by default scikit-learn's digits", _IMAGES
    ),
    "characters": Entry(
        _characters, LanguageModel.measure, "a transformer on characters; by default Python's standard library", _TEXT,
        frozenset({"network"}),
    ),
    "words": Entry(
        _words, LanguageModel.measure, "a transformer on words; by default Python's standard library", _TEXT,
        frozenset({"network"}),
    ),
    "regression": Entry(
        _regression, Regression.measure, "an image from Fourier features; by default one of scikit-learn", "an image"
    ),
    "copying": Entry(_copying, Copying.measure, "a recurrent network repeats symbols after a long time", None),
}  # fmt: skip


OPTIONS = frozenset({"datapath"})
"""Of every task, beside its own."""


def make_task(name: str, data: Path | None = None, /, *, device: torch.device | str = "cpu", **options: Any) -> Task:
    """The task of that name, with the data at a path or, without one, its embedded default.

    Raises:
        TaskError: where there is no such task, or it does not take such data or options; or of the data, what is
            wrong with them.
        ImportError: where the default data need a library that is not there (the extra `tasks`).
    """
    entry = TASKS.get(name)
    if entry is None:
        raise TaskError(f"there is no task {name!r}: {', '.join(TASKS)}")
    if data is not None and entry.data is None:
        raise TaskError(f"the task {name} takes no data: it draws its own")
    for option in options.keys() - entry.options - OPTIONS:
        raise TaskError(f"the task {name} has no option {option!r}")
    datapath = options.pop("datapath", None)
    if datapath is not None:
        if options.get("bfloat16"):
            raise TaskError("a datapath chooses the numbers of products itself: leave out bfloat16, or the datapath")
        try:
            make_datapath(**read_short(datapath))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TaskError(f"datapath {datapath}: {error}") from error
    task: Task = entry.make(data, torch.device(device), **options)
    if datapath is not None:
        task.datapath = datapath
        task.options = {**task.options, "datapath": datapath}
    return task
