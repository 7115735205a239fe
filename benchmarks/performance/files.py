"""Weight files: loading codes, beside what safetensors takes to load the same file as plain bytes.

The file has been read before, so it comes from memory; what is measured is what a library adds.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.performance import rivals
from benchmarks.performance.cases import OWN, Call, Case
from lnsnum import LNSTensor, lns8f5
from lnsnum.weight_file import load_weights, save_weights

SAFETENSORS, READ = "safetensors", "reading the file"


class File:
    """A weight file with one tensor of so many codes, deleted with this object."""

    def __init__(self, size: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "weights.safetensors"
        codes = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        save_weights(self.path, {"weight": LNSTensor(codes, lns8f5)})

    def safetensors(self) -> Call:
        """Its own load."""
        return functools.partial(rivals.load("safetensors.numpy").load_file, self.path)


def cases() -> list[Case]:
    """Loading."""
    return [
        Case(
            "weight file load",
            SAFETENSORS,
            {
                OWN: lambda file: functools.partial(load_weights, file.path),
                SAFETENSORS: File.safetensors,
                READ: lambda file: functools.partial(np.fromfile, file.path, np.uint8),
            },
            File,
            lambda size: 2 * size,
            "1 table step of the checksum",
            unit="code",
            floor=READ,
        )
    ]
