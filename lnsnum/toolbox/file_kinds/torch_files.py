"""Files of torch.save, read as streams: what they would execute is refused, never executed.

    {"model": {"fc.weight": tensor, "fc.bias": tensor}, "epoch": 3}    ->    model.fc.weight, model.fc.bias

`torch.load(weights_only=True, mmap=True)` gives the tensors without their data; pages come when they are touched, and
count as memory then, so the file is opened anew after every 16 MB (more, where tensors are many). Files from before
PyTorch 1.6 are no zip archives: they are loaded whole.

torch does not look at the checksums that it writes into the archive, so they are checked here, once, before all else.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath
from lnsnum.files.layout import DTYPES, Description, WeightFileError, refuse
from lnsnum.files.single import BLOCK
from lnsnum.toolbox.file_kinds.numpy_files import BAD_ARCHIVE

TOUCHED = 1 << 24
"""Bytes that are read before the mapping is dropped, of a file of few tensors."""

_FEW = 1500
"""Opening a file takes torch a time that grows with the square of the tensors; of so many it is 50 ms."""

_LARGEST_DEPTH = 100

_EXPANDED = 1 << 20
"""Elements up to which a tensor may have more than are stored: a file of a few bytes is none of terabytes."""


class TorchFile:
    """The tensors of a file of torch.save.

    Args:
        path: the file.
        is_archive: whether it is a zip archive, which torch.save writes since PyTorch 1.6.

    Raises:
        WeightFileError: where it is damaged, or holds more than `weights_only` loads. Every byte of an archive is read
            once to see that.
        ImportError: without torch.
    """

    def __init__(self, path: StrPath, *, is_archive: bool) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        self.skipped: list[str] = []
        self._is_archive = is_archive
        self._identity = _identity(path)
        self._touched = 0
        if is_archive:
            _check_members(path)
        self._tensors = self._load()
        self.names = list(self._tensors)

    def describe(self, name: str) -> Description:
        """What a tensor is. Raises WeightFileError where a weight file could not hold it."""
        import torch

        tensor = self._tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        strided = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        if dtype not in DTYPES.values() or not strided:
            what = dtype if strided else f"{dtype} on {tensor.device.type}, {str(tensor.layout).removeprefix('torch.')}"
            refuse(self.path, f"tensor {name!r} is of {what}, which weight files cannot hold")
        stored = tensor.untyped_storage().nbytes() // tensor.element_size()
        if tensor.numel() > max(stored, _EXPANDED):
            refuse(self.path, f"tensor {name!r} is expanded, {tensor.numel()} elements of {stored}: save it contiguous")
        return Description(tuple(tensor.shape), dtype)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of a tensor, in row-major order. Raises WeightFileError."""
        told = self.describe(name)
        for begin in range(0, told.size, BLOCK):
            if not self._tensors[name].is_contiguous():
                break
            yield self._array(self._fresh(name).reshape(-1)[begin : begin + BLOCK])
        else:
            return
        for place in _places(told.shape):
            yield self._array(self._fresh(name)[place].reshape(-1))

    def _array(self, part: Any) -> NDArray[Any]:
        import torch

        part = part.resolve_conj().resolve_neg()
        self._touched += part.numel() * part.element_size()
        if part.dtype != torch.bfloat16:
            array: NDArray[Any] = part.numpy()
            return array
        return np.asarray(part.view(torch.int16).numpy()).view("bfloat16")

    def _fresh(self, name: str) -> Any:
        """A tensor, its file mapped anew where much of the mapping is in memory."""
        if self._touched >= TOUCHED * max(1.0, len(self.names) / _FEW) ** 2 and self._is_archive:
            self._touched = 0
            self._tensors.clear()
            self._tensors = self._load()
        return self._tensors[name]

    def _load(self) -> dict[str, Any]:
        content = _load(self.path, mmap=self._is_archive)
        if _identity(self.path) != self._identity:
            refuse(self.path, "it was replaced while it was read")
        tensors: dict[str, Any] = {}
        skipped: list[str] = []
        for name, leaf in _leaves(self.path, content, ()):
            joined = ".".join(name) if name else Path(self.path).stem
            if not _is_tensor(leaf):
                skipped.append(joined)
            elif joined in tensors:
                refuse(self.path, f"two of its tensors would have the name {joined!r}")
            else:
                tensors[joined] = leaf.detach()
        self.skipped = skipped
        if not tensors and not isinstance(content, dict):
            refuse(self.path, f"it holds no tensors by name, but a {type(content).__name__}")
        return tensors


def _identity(path: StrPath) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_members(path: StrPath) -> None:
    """Refuse an archive with a member whose bytes are not those of its CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (*BAD_ARCHIVE, EOFError, RuntimeError, zlib.error) as error:
        refuse(path, f"a damaged archive: {error or type(error).__name__}")
    if bad is not None:
        refuse(
            path,
            f"its member {bad!r} is damaged: the CRC-32 is another (as it always is where torch.serialization."
            "set_crc32_options(False) was called before torch.save: such a file has to be loaded and saved again)",
        )


def _load(path: StrPath, *, mmap: bool) -> Any:
    try:
        import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
        import torch
    except ImportError as error:
        raise ImportError(f"PyTorch's files need {error.name}: pip install 'lnsnum[files,torch]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, WeightFileError):
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{found[1]}, say" if found else "something else"
        refuse(path, f"it holds more than tensors and plain values ({what}), and loading that could execute anything")
    except Exception as error:  # whatever a damaged pickle makes the unpickler trip over
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        refuse(path, f"torch cannot load it: {text}")


def _is_tensor(leaf: Any) -> bool:
    import torch

    return isinstance(leaf, torch.Tensor)


def _leaves(path: StrPath, content: Any, name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What is in nested dicts and lists, by the keys and indices that lead there."""
    if len(name) > _LARGEST_DEPTH:
        refuse(path, f"it is nested more than {_LARGEST_DEPTH} deep")
    if isinstance(content, dict):
        pairs: Any = content.items()
    elif isinstance(content, (list, tuple)) and not _is_tensor(content):
        pairs = enumerate(content)
    else:
        yield name, content
        return
    yield from chain.from_iterable(_leaves(path, value, (*name, str(key))) for key, value in pairs)


def _places(shape: tuple[int, ...]) -> Iterator[tuple[int | slice, ...]]:
    """Indices of parts of an array, none of more than BLOCK elements, in row-major order."""
    row = math.prod(shape[1:])
    if not shape or not row:
        yield ()
    elif row > BLOCK:
        for i in range(shape[0]):
            yield from ((i, *inner) for inner in _places(shape[1:]))
    else:
        rows = BLOCK // row
        yield from ((slice(i, i + rows),) for i in range(0, shape[0], rows))
