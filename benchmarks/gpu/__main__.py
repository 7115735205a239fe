"""Measure Triton's kernels on a graphics card, after their tests have run there.

python -m benchmarks.gpu                                   on the card; the figures go to docs/performance/ too
TRITON_INTERPRET=1 python -m benchmarks.gpu --dry-run      does all of it run? tiny, on the CPU, figures of nothing
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lnsnum.torch_bridge.kernels import backends
from lnsnum.torch_bridge.kernels import codes as bridge

ROOT = Path(__file__).parent.parent.parent

SECONDS = 300
"""Of all: a part that would begin later is left out, and named."""


def pretend() -> None:
    """Let tensors on the CPU go to Triton's kernels, as those on a card do."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("--dry-run is in Triton's interpreter: set TRITON_INTERPRET=1")
    bridge.is_on_cpu = lambda tensor: False
    backends.is_on_card = lambda tensor: type(tensor) is torch.Tensor
    backends.missing_on = lambda device: None


def parts(device: torch.device, dry: bool) -> dict[str, Iterator[dict[str, Any]]]:
    """What is measured, in this order."""
    from benchmarks.gpu import kernels, networks, products

    small = {"layers": 1, "width": 32, "heads": 2, "vocabulary": 64, "batch": 1, "length": 8}
    size = small if dry else networks.GPT2
    llama = networks.LlamaSize(1, 32, 2, 64, 64, 8) if dry else networks.LlamaSize()
    return {
        "kernels": kernels.measure([1000] if dry else [10**6, 10**7, 10**8, 10**9], device),
        "weight-only products": products.measure([(40, 64)] if dry else [(4096, 4096), (11008, 4096)], device),
        "training as GPT-2": networks.train(size, device, compiled=False),
        "generation": networks.generate(llama, 2 if dry else 64, device),
        **({} if dry else {"training as GPT-2, compiled": networks.train(size, device, compiled=True)}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes in Triton's interpreter")
    parser.add_argument("--no-tests", action="store_true", help="measure without the tests")
    parser.add_argument("--out", type=Path, help="the JSON; by default docs/performance/gpu_<card>.json")
    arguments = parser.parse_args()
    begin = time.monotonic()
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    if arguments.dry_run:
        pretend()
    else:
        backends.check_card(device)
        if not arguments.no_tests:
            tests = ROOT / "tests" / "torch_bridge" / "kernels" / "on_cards"
            if subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(tests)]).returncode:
                raise SystemExit("the tests of the kernels fail on this card: nothing is measured")
    import triton

    card = "Triton's interpreter" if arguments.dry_run else torch.cuda.get_device_name(device)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}"
    print(f"{card}; {versions}")
    found: dict[str, Any] = {"card": card, "versions": versions}
    for name, rows in parts(device, arguments.dry_run).items():
        print(f"\n{name}")
        if time.monotonic() - begin > SECONDS:
            print("  left out: the time is over")
            continue
        found[name] = []
        for row in rows:
            found[name].append(row)
            said = (
                f"{key} {number:.4g}" if isinstance(number, float) else f"{key} {number}" for key, number in row.items()
            )
            print("  " + "   ".join(said), flush=True)
            if time.monotonic() - begin > SECONDS:
                print("  the rest is left out: the time is over")
                break
    if not arguments.dry_run or arguments.out:
        out = arguments.out or ROOT / "docs" / "performance" / f"gpu_{card.replace(' ', '_')}.json"
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
