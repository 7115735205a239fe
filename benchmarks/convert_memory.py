"""Peak memory and throughput of `lnsnum convert`, of files larger than the memory that it takes.

    python benchmarks/convert_memory.py --bytes 2GB

Random float32 weights in tensors of 256 MB (the last is what is left), as safetensors, .pt and .npz, to a format; each
conversion in a process of its own, which prints its peak resident memory (VmHWM). The time is that of the conversion,
interpreter and imports left out, and reads from the page cache where that holds the file. Beside each is the peak of
a file of the same kind of 4 kB: the memory that there is without data.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lnsnum.files.layout import Description
from lnsnum.toolbox.file_kinds.npz_writer import save_npz

TENSOR = 1 << 26
"""Elements of a tensor: 256 MB."""

BLOCK = 1 << 22

CONVERT = """
import re, sys, time
from pathlib import Path
from lnsnum import LNSFormat
from lnsnum.toolbox.conversion import convert_file
start = time.perf_counter()
convert_file(sys.argv[1], sys.argv[2], fmt=LNSFormat.parse(sys.argv[3]), per_channel=len(sys.argv) > 4)
seconds = time.perf_counter() - start
print(seconds, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def random_blocks(elements: int) -> Iterator[NDArray[np.float32]]:
    """Elements of a normal distribution."""
    generator = np.random.default_rng(0)
    for begin in range(0, elements, BLOCK):
        yield generator.standard_normal(min(BLOCK, elements - begin), np.float32)


def make(path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    """Write a file of the kind that its ending says."""
    sizes = {name: shape[0] * shape[1] for name, shape in shapes.items()}
    if path.suffix == ".npz":
        save_npz(path, {n: Description(s, "float32") for n, s in shapes.items()}, lambda n: random_blocks(sizes[n]))
    elif path.suffix == ".pt":
        import torch

        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
        for name, tensor in tensors.items():
            for begin, block in enumerate(random_blocks(sizes[name])):
                tensor.view(-1)[begin * BLOCK : begin * BLOCK + block.size] = torch.from_numpy(block)
        torch.save(tensors, path)
    else:
        header, end = {}, 0
        for name, shape in shapes.items():
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 4 * sizes[name]]}
            end += 4 * sizes[name]
        encoded = json.dumps(header).encode()
        with open(path, "wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            for name in shapes:
                for block in random_blocks(sizes[name]):
                    file.write(block.tobytes())


def measure(path: Path, out: Path, fmt: str, per_channel: bool) -> tuple[float, float]:
    """Seconds and peak megabytes of a conversion."""
    options = ["--per-channel"] if per_channel else []
    result = subprocess.run(
        [sys.executable, "-c", CONVERT, path, out, fmt, *options], capture_output=True, text=True, check=True
    )
    seconds, kilobytes = result.stdout.split()
    return float(seconds), int(kilobytes) * 1024 / 1e6


def size_of(text: str) -> int:
    """Bytes, or a number with MB or GB."""
    units = {"MB": 10**6, "GB": 10**9}
    return int(float(text[:-2]) * units[text[-2:]]) if text[-2:] in units else int(text)


def main() -> None:
    """Print one row for each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=size_of, default=2 * 10**9, help="size of each file, such as 300MB")
    parser.add_argument("--format", default="lns8f5", help="the format of the codes")
    parser.add_argument("--per-channel", action="store_true", help="one scale for each 4096 elements")
    parser.add_argument("--folder", default=None, help="where the files go; deleted in the end")
    arguments = parser.parse_args()
    elements = arguments.bytes // 4 // 4096 * 4096
    shapes = {
        f"layer{i}": (min(TENSOR, elements - begin) // 4096, 4096) for i, begin in enumerate(range(0, elements, TENSOR))
    }
    print(f"{4 * elements / 1e9:.2f} GB of float32 to {arguments.format}; {platform.machine()}, NumPy {np.__version__}")
    print(f"{'':14}{'seconds':>10}{'GB/s':>10}{'peak MB':>10}{'of 4 kB':>10}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        out = Path(folder) / "out.safetensors"
        for kind in ("safetensors", "pt", "npz"):
            path = Path(folder) / f"in.{kind}"
            make(path, {"w": (1, 1024)})
            _, least = measure(path, out, arguments.format, arguments.per_channel)
            make(path, shapes)
            seconds, peak = measure(path, out, arguments.format, arguments.per_channel)
            print(f"{kind:14}{seconds:10.2f}{4 * elements / seconds / 1e9:10.3f}{peak:10.0f}{least:10.0f}", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
