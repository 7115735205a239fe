r"""Where tensors come from: files of every kind that is known, each read as a stream of blocks.

    first bytes       kind
    N, 8 bytes, `{`   safetensors: a weight file of lnsnum, or a plain file; or an index of either
    PK                a zip archive: of torch.save if it holds a data.pkl, else .npz
    \x93NUMPY         .npy
    \x80\x02\x8a\x0a   torch.save before PyTorch 1.6

The content decides, not the ending of the name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, naming
from lnsnum.files.layout import LARGEST_HEADER, Description, OptimizerPart, refuse
from lnsnum.files.sharded import INDEX_SUFFIX, WeightFiles
from lnsnum.files.single import check_regular
from lnsnum.toolbox.file_kinds.numpy_files import open_numpy
from lnsnum.toolbox.file_kinds.safetensors_files import open_safetensors
from lnsnum.toolbox.file_kinds.torch_files import open_torch
from lnsnum.toolbox.file_kinds.zip_members import open_archive
from lnsnum.toolbox.reading import natural

__all__ = [
    "KNOWN",
    "Reader",
    "Source",
    "open_source",
]

_TORCH_BEFORE_1_6 = re.compile(
    rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", re.DOTALL
)
"""A pickle, of any protocol that has it so, of torch's number 0x1950a86a20f9469cfc6c."""

KNOWN = "safetensors (.safetensors, an index), NumPy (.npz, .npy) and PyTorch (.pt, .pth, .bin) files"
"""The kinds in words, for errors."""


class Reader(Protocol):
    """What a kind of file brings: see `Source`."""

    @property
    def path(self) -> StrPath:
        """The file that is read."""

    @property
    def names(self) -> list[str]:
        """The tensors' names."""

    @property
    def texts(self) -> Mapping[str, str]:
        """Metadata."""

    def describe(self, name: str) -> Description:
        """What a tensor is."""

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Its elements."""


class Source:
    """An open file, or a set of files, with tensors.

    Args:
        kind: "lnsnum", "safetensors", "npz", "npy" or "torch".
        reader: what reads the file.
        skipped: names of what it holds beside tensors.
        optimizer: the section of an optimizer that a weight file has.
    """

    def __init__(
        self, kind: str, reader: Reader, skipped: Sequence[str] = (), optimizer: OptimizerPart | None = None
    ) -> None:
        self.kind = kind
        self.path = reader.path
        self.names = sorted(reader.names, key=natural)
        self.skipped = tuple(skipped)
        self.optimizer = optimizer
        self._reader = reader

    @property
    def texts(self) -> dict[str, str]:
        """Metadata, strings by name; none where the kind of file has none. Raises WeightFileError."""
        return dict(self._reader.texts)

    def describe(self, name: str) -> Description:
        """What a tensor is: LNS where it has a `fmt`. Raises WeightFileError where it is none that is known."""
        return self._reader.describe(name)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of a tensor (codes, where it has a format) in row-major order.

        Arrays of one dimension in this machine's order of bytes, none of more than `lnsnum.files.single.BLOCK`
        elements, each valid until the next is asked for. Read one tensor after another, not two at once.

        Raises:
            WeightFileError: where it is damaged; that may show after the last block only.
        """
        return self._reader.blocks(name)


@contextlib.contextmanager
def open_source(path: StrPath) -> Iterator[Source]:
    """The tensors of a file of any known kind.

    Args:
        path: a weight file, a plain safetensors file, an index of either, .npz, .npy, or what torch.save wrote.

    Raises:
        WeightFileError: where it is of no known kind, or damaged.
        OSError: where it cannot be read.
        ImportError: without what its kind needs: safetensors and ml_dtypes.
    """
    kind = _kind(path)
    if kind == "torch" or kind == "torch before 1.6":
        with open_torch(path, is_archive=kind == "torch") as file:
            yield Source("torch", file, file.skipped)
    elif kind == "safetensors":
        with open_safetensors(path) as (which, weights):
            yield Source(which, weights, optimizer=_optimizer_of(weights))
    else:
        with open_numpy(path, is_archive=kind == "npz") as arrays:
            yield Source(kind, arrays)


def _optimizer_of(files: WeightFiles) -> OptimizerPart | None:
    """The section of an optimizer, to be read while it is written elsewhere."""
    if files.state is None:
        return None
    described = {name: files.describe_moment(name) for name in files.moments}
    return OptimizerPart(files.state, described, files.moment_blocks)


def _kind(path: StrPath) -> str:
    name = os.fspath(path)
    if name.endswith(INDEX_SUFFIX) or not os.path.exists(path):
        return "safetensors"
    check_regular(path)
    with naming(path), open(path, "rb") as file:
        first = file.read(32)
    if first.startswith(b"PK"):
        return _kind_of_archive(path)
    if first.startswith(b"\x93NUMPY"):
        return "npy"
    if _TORCH_BEFORE_1_6.match(first):
        return "torch before 1.6"
    length = int.from_bytes(first[:8], "little")
    if (length > LARGEST_HEADER or first[8:9] != b"{") and not name.endswith(".safetensors"):
        _refuse_unknown(path)
    return "safetensors"


def _kind_of_archive(path: StrPath) -> str:
    with open_archive(path) as archive:
        names = list(archive.members)
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    if not all(name.endswith(".npy") for name in names) and not os.fspath(path).endswith(".npz"):
        _refuse_unknown(path)
    return "npz"


def _refuse_unknown(path: StrPath) -> NoReturn:
    refuse(path, f"its kind is not known; {KNOWN} are")
