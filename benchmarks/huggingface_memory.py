"""Growth of resident memory while transformers loads a model as codes, against its size.

    python benchmarks/huggingface_memory.py --bytes 1GB

A Llama of random float32 weights in several files, of which `from_pretrained` makes codes, in a process of its own,
and loads them again from the folder that it has saved. Growth is counted after imports: the greatest resident memory
less that before, all of it (VmHWM), and without the pages of files, which the system can drop (RssAnon, looked at each
millisecond). The bound is the codes, two of the largest tensors as floats, and 100 MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import json, re, sys, threading, time
from pathlib import Path
import torch
from transformers import LlamaForCausalLM
from lnsnum.huggingface import LNSConfig
from lnsnum.torch_bridge import LNSWeight
LNSWeight.from_float(torch.randn(64, 64), "lns8f5")  # the kernels are there

def resident(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def watch():
    while not done:
        peaks.append(resident("RssAnon"))
        time.sleep(0.001)

torch.set_num_threads(1)
source, out = sys.argv[1:]
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before, anonymous, peaks, done = resident("VmRSS"), resident("RssAnon"), [], False
watcher = threading.Thread(target=watch)
watcher.start()
begin = time.perf_counter()
model = LlamaForCausalLM.from_pretrained(source, **({"quantization_config": LNSConfig()} if out else {}))
seconds = time.perf_counter() - begin
done = True
watcher.join()
grown = {"all": resident("VmHWM") - before, "anonymous": max(peaks) - anonymous, "seconds": seconds}
sizes = {"codes": model.get_memory_footprint(), "largest": 4 * max(p.numel() for p in model.parameters())}
if out:
    model.save_pretrained(out)
print(json.dumps(grown | sizes))
"""


def size_of(text: str) -> int:
    """Bytes, or a number with MB or GB."""
    units = {"MB": 10**6, "GB": 10**9}
    return int(float(text[:-2]) * units[text[-2:]]) if text[-2:] in units else int(text)


def make(folder: str, size: int) -> None:
    """A Llama of about so many bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    width = 1024
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": 16, "vocab_size": 16_384}
    layers = max((size // 4 - 2 * 16_384 * width) // (16 * width * width), 1)
    LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=layers)).save_pretrained(folder, max_shard_size="200MB")


def measure(source: Path, out: str) -> dict[str, float]:
    """What a process of its own found."""
    command = [sys.executable, "-c", MEASURE, str(source), out]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    """Print a row for each way of loading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=size_of, default=10**9, help="size of the model as floats, such as 300MB")
    parser.add_argument("--folder", default=None, help="where the files go; deleted in the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        floats, codes = Path(folder) / "floats", Path(folder) / "codes"
        code = "import sys; from huggingface_memory import make; make(sys.argv[1], int(sys.argv[2]))"
        maker = [sys.executable, "-c", code, str(floats), str(arguments.bytes)]  # what it takes goes with it
        subprocess.run(maker, check=True, cwd=Path(__file__).parent)
        print(f"{'MB':24}{'codes':>8}{'bound':>8}{'grown':>8}{'anonymous':>11}{'seconds':>9}")
        for label, source, out in (("from floats", floats, str(codes)), ("from codes", codes, "")):
            row = measure(source, out)
            bound = row["codes"] + 2 * row["largest"] + 100e6
            figures = [row["codes"], bound, row["all"]]
            line = "".join(f"{figure / 1e6:8.0f}" for figure in figures)
            print(f"{label:24}{line}{row['anonymous'] / 1e6:11.0f}{row['seconds']:9.1f}", flush=True)


if __name__ == "__main__":
    main()
