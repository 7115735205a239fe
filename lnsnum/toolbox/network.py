"""`lnsnum export --to c-network`: a trained network as a C99 program that needs neither torch nor Python.

    MODEL  ->  FOLDER/PREFIX_network.h, PREFIX_network.c, PREFIX_main.c, lnsnum_net.h and manifest.json

With a datapath the program computes in integers alone, the bits of `lnsnum.torch_bridge.integer_twin`.
The folder appears when all is written, and not at all if that fails.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lnsnum.files.atomic import StrPath
from lnsnum.toolbox.export import check_prefix, occupied, prefix_of, why_kept
from lnsnum.toolbox.export_targets.c_integers import write_integers
from lnsnum.toolbox.export_targets.c_network import write_network
from lnsnum.toolbox.export_targets.exported import MANIFEST, MARK, VERSION
from lnsnum.toolbox.export_targets.new_folder import new_folder
from lnsnum.torch_bridge.datapath import Datapath
from lnsnum.torch_bridge.datapath.setting import setting_of
from lnsnum.torch_bridge.integer_layers import IntegerNetwork, integer_layers
from lnsnum.torch_bridge.integer_twin import integer_twin
from lnsnum.torch_bridge.sequential import Network, read_sequential

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
    datapath: str | Datapath | None = None,
    examples: torch.Tensor | None = None,
) -> NetworkExport:
    """Write a converted Sequential as a program in C, as evaluation runs it; with a datapath, one of integers.

    Args:
        model: see `lnsnum.torch_bridge.sequential.read_sequential`, which says what layers there can be.
        shape: of one input: (features,) or (channels, height, width).
        folder: where there is nothing yet, or an empty folder.
        prefix: what all names in C begin with; without it made from the folder's name.
        replace: take the place of an earlier export too.
        datapath: in which integers compute, see `lnsnum.torch_bridge.integer_twin`; by default the model's own, where
            it has one.
        examples: inputs by which a datapath's activations have their scales chosen.

    Raises:
        NetworkError: for a layer or a weight that cannot be written.
        ValueError: for a prefix that cannot begin names in C, or a datapath that cannot be read.
        OSError: where the folder cannot be written; it is as it was then.
    """
    if prefix is None:
        prefix = prefix_of(folder)
    check_prefix(prefix)
    network: Network | IntegerNetwork
    if datapath is not None or setting_of(model) is not None:
        network = integer_layers(integer_twin(model, shape, datapath, examples))
    else:
        network = read_sequential(model, shape)
    with new_folder(folder, replaceable=why_kept if replace else occupied) as place:
        named = {"prefix": prefix, "source": Path(folder).name}
        if isinstance(network, IntegerNetwork):
            facts = write_integers(place, network, **named)
        else:
            facts = write_network(place, network, **named)
        sizes = {file.name: file.stat().st_size for file in sorted(place.iterdir())}
        done = NetworkExport(Path(folder), prefix, facts, sizes)
        text = json.dumps(done.to_json(), indent=2) + "\n"
        (place / MANIFEST).write_text(text, encoding="ascii", newline="\n")
    return done
