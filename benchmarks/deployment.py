"""What docs/deploy.md says in figures: bytes on disk and in memory of each route, and the digits' network in C.

    lnsnum train --out digits.safetensors && python benchmarks/deployment.py digits.safetensors

The graphs are of two layers of 2048 x 2048. Memory is by how much a fresh process grows when it loads the model and
runs it once. The program in C is set against the same loops over float32 weights, compiled alike; both run in turn, and
the medians are compared. Instructions are counted by valgrind, where that is installed.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lnsnum.cli.trained import load_trained
from lnsnum.decoding import decode_table
from lnsnum.toolbox.network import export_network
from lnsnum.torch_bridge import convert_model, for_export
from lnsnum.torch_bridge.sequential import read_sequential

REPEATS = 15
WIDTH = 2048

GROWTH = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import onnxruntime
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
x = np.ones((1, {width}), np.float32)
before = resident()
{load}
s.run(None, {{s.get_inputs()[0].name: x}})
print(resident() - before)
"""
ROUTES = {
    "ONNX Runtime": "s = onnxruntime.InferenceSession('model.onnx')",
    "ONNX Runtime, look-ups kept": (
        "options = onnxruntime.SessionOptions(); options.enable_cpu_mem_arena = False\n"
        "s = onnxruntime.InferenceSession('model.onnx', options, disabled_optimizers=['ConstantFolding'])"
    ),
}


def graphs(folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)).eval()
    convert_model(model, "lns8f5")
    weights = sum(p.numel() for p in model.parameters())
    x = torch.ones(1, WIDTH)
    exported = for_export(model)
    torch.export.save(torch.export.export(exported, (x,)).run_decompositions(), folder / "model.pt2")
    print(f"{weights:,} weights; bytes a weight:")
    print(f"  .pt2 on disk                            {(folder / 'model.pt2').stat().st_size / weights:.2f}")
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        print("  ONNX: not installed, pip install 'lnsnum[onnx]'")
        return
    options = {"dynamo": True, "optimize": False, "external_data": False, "verbose": False}
    torch.onnx.export(exported, (x,), folder / "model.onnx", **options)
    print(f"  ONNX on disk                            {(folder / 'model.onnx').stat().st_size / weights:.2f}")
    for name, load in ROUTES.items():
        code = GROWTH.format(load=load, width=WIDTH)
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
        print(f"  {name + ', in memory':39} {int(done.stdout) / weights:.2f}")


LOOP = """
#include <stdio.h>
#include <stdlib.h>
#include "digits_network.h"
int main(int argc, char **argv) {
    static float images[1000][digits_inputs];
    int count = 0, i, sum = 0, rounds = argc > 1 ? atoi(argv[1]) : 1;
    while (count < 1000 && fread(images[count], sizeof images[count], 1, stdin)) count++;
    while (rounds--)
        for (i = 0; i < count; i++) sum += digits_class(images[i]);
    printf("%d", sum);
    return 0;
}
"""


def float_twin(source, network):
    """The same text over float32 weights."""
    for number, product in enumerate(p for p in network.layers if hasattr(p, "codes")):
        values = decode_table(product.fmt, 0, "float32").view(np.float32)[product.codes.reshape(-1)]
        numbers = ",".join(f"{float(v).hex()}f" for v in values)
        arrays = list(re.finditer(r"static const uint8_t (codes_\d+)\[\] = \{\n.*?\n\};", source, re.DOTALL))
        assert arrays, number
        first = arrays[0]
        text = f"static const float {first[1]}[] = {{\n{numbers}\n}};"
        source = source[: first.start()] + text + source[first.end() :]
    return source


def program(folder, network):
    """Sizes, classes and times of the digits' network."""
    twin = folder / "twin"
    shutil.copytree(folder / "c", twin)
    (twin / "digits_network.c").write_text(float_twin((folder / "c" / "digits_network.c").read_text(), network))
    header = (twin / "lnsnum_net.h").read_text()
    header = header.replace("const uint8_t *codes", "const float *codes")
    header = header.replace("values[codes[k]]", "codes[k]").replace("values[*codes++]", "*codes++")
    (twin / "lnsnum_net.h").write_text(header)
    for place in (folder / "c", twin):
        (place / "loop.c").write_text(LOOP)
        flags = ["gcc", "-std=c99", "-O3", "-w"]
        subprocess.run([*flags, "loop.c", "digits_network.c", "-o", "loop"], cwd=place, check=True)
    return folder / "c" / "loop", twin / "loop"


def main():
    parser = argparse.ArgumentParser(description="What deployed models take, in bytes and time: docs/deploy.md.")
    parser.add_argument("model", type=Path, help="a weight file of `lnsnum train`")
    file = parser.parse_args().model
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graphs(folder)
        task, model = load_trained(file, None)
        shape = task.channels, task.height, task.width
        export_network(model.eval(), shape, folder / "c", prefix="digits")
        network = read_sequential(model, shape)
        weights = sum(p.numel() for p in model.parameters())
        subprocess.run(["gcc", "-std=c99", "-Os", "-c", "digits_network.c"], cwd=folder / "c", check=True)
        size = subprocess.run(
            ["size", "digits_network.o"], cwd=folder / "c", capture_output=True, text=True, check=True
        )
        text, _, written = map(int, size.stdout.splitlines()[1].split()[:3])
        images = task.test_data.images
        codes, floats = program(folder, network)
        data = images.numpy().tobytes()
        command = ["gcc", "-std=c99", "-O2", "digits_main.c", "digits_network.c", "-o", "digits"]
        subprocess.run(command, cwd=folder / "c", check=True)
        numbers = " ".join(map(repr, images.reshape(-1).tolist()))
        printed = subprocess.run([folder / "c" / "digits"], input=numbers, capture_output=True, text=True, check=True)
        with torch.no_grad():
            expected = model(images).argmax(1).tolist()
        differing = sum(a != b for a, b in zip(map(int, printed.stdout.split()), expected, strict=True))
        print(f"digits, {weights:,} parameters, gcc -Os:")
        print(f"  code and constants                      {text:,} bytes")
        print(f"  memory that is written to               {written:,} bytes")
        print(f"  test images of another class than torch {differing} of {len(images)}")
        times = {codes: [], floats: []}
        for _ in range(REPEATS):
            for which, seconds in times.items():
                begin = time.perf_counter()
                subprocess.run([which, "10"], input=data, stdout=subprocess.DEVNULL, check=True)
                seconds.append(time.perf_counter() - begin)
        ratio = statistics.median(times[codes]) / statistics.median(times[floats])
        print(f"  time over that of float32 weights       {ratio:.2f}")
        if shutil.which("valgrind"):
            products = sum(
                p.codes.size * (1 if p.window is None else p.window.places[0] * p.window.places[1])
                for p in network.products
            )
            counted = []
            for count in (1, 11):
                log = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(codes), "1"]
                ran = subprocess.run(log, input=data[: 256 * count], capture_output=True, check=True)
                counted.append(int(re.search(rb"Collected : (\d+)", ran.stderr)[1]))
            each = (counted[1] - counted[0]) / 10 / products
            print(f"  instructions a multiply-add             {each:.2f}, gcc -O3, {products:,} of them an image")


if __name__ == "__main__":
    main()
