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
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
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


def test() -> None:
    """Run the tests of the kernels on the card.

    Raises:
        SystemExit: where a bit is wrong. (Those of CUDA graphs and of waiting are told, and do not end it.)
    """
    lacking = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    if lacking:
        raise SystemExit(f"the tests want {' and '.join(lacking)}: pip install {' '.join(lacking)}, or give --no-tests")
    folder = ROOT / "tests" / "torch_bridge" / "kernels" / "on_cards"
    # most of the time is Triton's compiling, which has a process for each kernel's variants
    many = ["-n", str(min(8, os.cpu_count() or 1))] if find_spec("xdist") else []
    # warnings of drivers and other packages there are no errors of the kernels
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-W", "default", *many]
    graphs = folder / "test_graphs_on_cards.py"
    exact = [str(path) for path in sorted(folder.glob("test_*.py")) if path != graphs]
    if subprocess.run([*command, *exact], cwd=ROOT).returncode:
        raise SystemExit("the tests of the kernels fail on this card: nothing is measured")
    if subprocess.run([*command, str(graphs)], cwd=ROOT).returncode:
        print("the tests of CUDA graphs and of waiting fail on this card")


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
            test()
    import triton

    card = "Triton's interpreter" if arguments.dry_run else torch.cuda.get_device_name(device)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}"
    print(f"{card}; {versions}")
    found: dict[str, Any] = {"card": card, "versions": versions}
    failed: list[str] = []
    for name, rows in parts(device, arguments.dry_run).items():
        print(f"\n{name}")
        if time.monotonic() - begin > SECONDS:
            print("  left out: the time is over")
            continue
        found[name] = []
        try:
            for row in rows:
                found[name].append(row)
                said = (f"{key} {x:.4g}" if isinstance(x, float) else f"{key} {x}" for key, x in row.items())
                print("  " + "   ".join(said), flush=True)
                if time.monotonic() - begin > SECONDS:
                    print("  the rest is left out: the time is over")
                    break
        except Exception:  # what has been measured is kept, and the next part may work
            traceback.print_exc()
            failed.append(name)
    if not arguments.dry_run or arguments.out:
        out = arguments.out or ROOT / "docs" / "performance" / f"gpu_{card.replace(' ', '_')}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")
        print(f"\n{out}")
    if failed:
        raise SystemExit(f"not measured, for errors: {', '.join(failed)}")


if __name__ == "__main__":
    main()
