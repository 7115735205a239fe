"""`lnsnum export --to c-network`: a trained network as a C99 program that needs neither torch nor Python.

    MODEL  ->  FOLDER/PREFIX_network.h, PREFIX_network.c, PREFIX_main.c, lnsnum_net.h and manifest.json

The folder appears when all is written, and not at all if that fails.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lnsnum.files.atomic import StrPath
from lnsnum.toolbox.export import check_prefix, occupied, prefix_of, why_kept
from lnsnum.toolbox.export_targets.c_network import write_network
from lnsnum.toolbox.export_targets.exported import MANIFEST, MARK, VERSION
from lnsnum.toolbox.export_targets.new_folder import new_folder
from lnsnum.torch_bridge.sequential import read_sequential

__all__ = ["NetworkExport", "export_network"]


@dataclass(frozen=True)
class NetworkExport:
    """What has been written.

    Args:
        folder: where it is.
        prefix: what its names begin with.
        network: shape of an input, number of outputs, layers and weights, bytes of constants and of what is written to.
        sizes: bytes of each file by its name, without the manifest.
    """

    folder: Path
    prefix: str
    network: dict[str, Any]
    sizes: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of all files but the manifest."""
        return sum(self.sizes.values())

    def to_json(self) -> dict[str, Any]:
        """What manifest.json says."""
        return {
            MARK: VERSION,
            "target": "c-network",
            "prefix": self.prefix,
            "files": sorted(self.sizes),
            "network": self.network,
        }


def export_network(
    model: nn.Module,
    shape: tuple[int, ...],
    folder: StrPath,
    *,
    prefix: str | None = None,
    replace: bool = False,
) -> NetworkExport:
    """Write a converted Sequential as a program in C, as evaluation runs it.

    Args:
        model: see `lnsnum.torch_bridge.sequential.read_sequential`, which says what layers there can be.
        shape: of one input: (features,) or (channels, height, width).
        folder: where there is nothing yet, or an empty folder.
        prefix: what all names in C begin with; without it made from the folder's name.
        replace: take the place of an earlier export too.

    Raises:
        NetworkError: for a layer or a weight that cannot be written.
        ValueError: for a prefix that cannot begin names in C.
        OSError: where the folder cannot be written; it is as it was then.
    """
    if prefix is None:
        prefix = prefix_of(folder)
    check_prefix(prefix)
    network = read_sequential(model, shape)
    with new_folder(folder, replaceable=why_kept if replace else occupied) as place:
        facts = write_network(place, network, prefix=prefix, source=Path(folder).name)
        sizes = {file.name: file.stat().st_size for file in sorted(place.iterdir())}
        done = NetworkExport(Path(folder), prefix, facts, sizes)
        text = json.dumps(done.to_json(), indent=2) + "\n"
        (place / MANIFEST).write_text(text, encoding="ascii", newline="\n")
    return done
