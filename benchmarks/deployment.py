"""What docs/deploy.md says in figures: bytes on disk and in memory of each route, and the digits' network in C.

    lnsnum train --out digits.safetensors && python benchmarks/deployment.py digits.safetensors

The graphs are of two layers of 2048 x 2048. Memory is by how much a fresh process grows when it loads the model and
runs it once. The program in C is set against the same loops over float32 weights, compiled alike; both run in turn, and
the least processor times are compared. Instructions are counted by valgrind, and of a Cortex-M4 by qemu's virtual
clock, where these are installed.
"""

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
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


DATAPATHS = {
    "floats": None,
    "logarithmic": "activations=lns8f3,accumulate=lns12f7",
    "fixed point": "activations=lns8f3,accumulate=fixed:20",
}
"""What computes the digits: sums of floats, of an LNS format, of integers."""

M4 = ["arm-none-eabi-gcc", "-std=c99", "-mcpu=cortex-m4", "-mthumb", "-Os", "-ffreestanding"]
FLOATS = ["-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]
BOARD = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]
BOARD += ["-semihosting-config", "enable=on,target=native", "-icount", "shift=0"]
INSTRUCTIONS_A_TICK = 40
"""Of its virtual clock, which takes a nanosecond for an instruction; SysTick counts 25 MHz."""

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


def float_program(source, twin, network):
    """A program of the same loops over float32 weights."""
    shutil.copytree(source, twin)
    (twin / "digits_network.c").write_text(float_twin((source / "digits_network.c").read_text(), network))
    header = (twin / "lnsnum_net.h").read_text()
    header = header.replace("const uint8_t *codes", "const float *codes")
    header = header.replace("values[codes[k]]", "codes[k]").replace("values[*codes++]", "*codes++")
    (twin / "lnsnum_net.h").write_text(header)
    subprocess.run(["gcc", "-std=c99", "-O3", "-w", "loop.c", "digits_network.c", "-o", "loop"], cwd=twin, check=True)
    return twin / "loop"


def written(folder, name, task, model):
    """A program of the digits' network, with what its constants take."""
    shape = task.channels, task.height, task.width
    examples = task.train_data.images[:1000]
    export_network(model, shape, folder, prefix="digits", datapath=DATAPATHS[name], examples=examples)
    (folder / "loop.c").write_text(LOOP)
    subprocess.run(["gcc", "-std=c99", "-O3", "-w", "loop.c", "digits_network.c", "-o", "loop"], cwd=folder, check=True)
    # without the relocations of a program that may lie anywhere, for which constants with pointers are written to
    subprocess.run(["gcc", "-std=c99", "-Os", "-fno-pie", "-c", "digits_network.c"], cwd=folder, check=True)
    return sizes("size", folder)


def sizes(tool, folder):
    """Bytes of code and constants, and of what is written to."""
    command = [tool, "digits_network.o"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    text, data, bss = map(int, told.splitlines()[1].split()[:3])
    return text, data + bss


def classes(folder, images):
    """What the program prints."""
    command = ["gcc", "-std=c99", "-O2", "digits_main.c", "digits_network.c", "-o", "digits"]
    subprocess.run(command, cwd=folder, check=True)
    numbers = " ".join(map(repr, images.reshape(-1).tolist()))
    printed = subprocess.run([folder / "digits"], input=numbers, capture_output=True, text=True, check=True)
    return list(map(int, printed.stdout.split()))


def counted(program, data):
    """Instructions for an image, by valgrind."""
    ran = []
    for count in (1, 11):
        log = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program), "1"]
        done = subprocess.run(log, input=data[: 256 * count], capture_output=True, check=True)
        ran.append(int(re.search(rb"Collected : (\d+)", done.stderr)[1]))
    return (ran[1] - ran[0]) / 10


def on_a_microcontroller(folder, name, image):
    """Sizes for a Cortex-M4, and instructions for an image, by qemu's clock."""
    flags = FLOATS if DATAPATHS[name] is None else ["-mfloat-abi=soft"]
    subprocess.run([*M4, *flags, "-c", "digits_network.c"], cwd=folder, check=True)
    numbers = ", ".join(f"{v.hex()}f" for v in image.reshape(-1).tolist())
    text = f"enum {{ image_count = 1 }};\nstatic const float images[][digits_inputs] = {{{{{numbers}}}}};\n"
    (folder / "images.h").write_text(text)
    names = "#define net_outputs_of digits_outputs_of\n#define net_class digits_class\n"
    names += "enum { net_outputs = digits_outputs };\n"
    (folder / "net_network.h").write_text(f'#include "digits_network.h"\n{names}')
    c = Path(__file__).resolve().parents[1] / "tests" / "c"
    output = f"-DOUTPUT={'float' if DATAPATHS[name] is None else 'int32_t'}"
    sources = [c / "cortex_m.c", "digits_network.o", "-T", c / "cortex_m.ld", "-nostdlib", "-I.", "-lgcc"]
    more = ["-std=gnu99", "-fno-tree-loop-distribute-patterns", output]
    subprocess.run([*M4, *flags, *more, *map(str, sources), "-o", "m4.elf"], cwd=folder, check=True)
    ran = subprocess.run([*BOARD, "-kernel", "m4.elf"], cwd=folder, capture_output=True, text=True, check=True)
    ticks = int((ran.stderr + ran.stdout).split()[-2], 16)
    return sizes("arm-none-eabi-size", folder), ticks * INSTRUCTIONS_A_TICK


def digits(file, folder):
    """The digits' network, each way."""
    task, model = load_trained(file, None)
    model.eval()
    shape = task.channels, task.height, task.width
    network = read_sequential(model, shape)
    images = task.test_data.images
    data = images.numpy().tobytes()
    with torch.no_grad():
        expected = model(images).argmax(1).tolist()
    products = sum(
        p.codes.size * (1 if p.window is None else p.window.places[0] * p.window.places[1]) for p in network.products
    )
    weights = sum(p.numel() for p in model.parameters())
    print(f"digits, {weights:,} parameters, {products:,} multiply-adds an image:")
    for name in DATAPATHS:
        own = folder / name.replace(" ", "_")
        flash, memory = written(own, name, task, model)
        differing = sum(a != b for a, b in zip(classes(own, images), expected, strict=True))
        print(f"{name}, gcc -Os:")
        print(f"  code and constants                      {flash:,} bytes")
        print(f"  memory that is written to               {memory:,} bytes")
        print(f"  test images of another class than torch {differing} of {len(images)}")
        if shutil.which("valgrind"):
            each = counted(own / "loop", data) / products
            print(f"  instructions a multiply-add             {each:.2f}, gcc -O3")
        if shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm"):
            (flash, memory), instructions = on_a_microcontroller(own, name, images[0])
            print(f"  Cortex-M4: code and constants           {flash:,} bytes")
            print(f"  Cortex-M4: memory that is written to    {memory:,} bytes")
            print(f"  Cortex-M4: instructions a multiply-add  {instructions / products:.2f}, gcc -Os, by qemu's clock")
    codes = folder / "floats" / "loop"
    floats = float_program(folder / "floats", folder / "twin", network)
    times = {codes: [], floats: []}
    for _ in range(REPEATS):
        for which, seconds in times.items():
            begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            subprocess.run([which, "10"], input=data, stdout=subprocess.DEVNULL, check=True)
            seconds.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin)
    print(f"time of floats over that of float32 weights {min(times[codes]) / min(times[floats]):.2f}")


def main():
    parser = argparse.ArgumentParser(description="What deployed models take, in bytes and time: docs/deploy.md.")
    parser.add_argument("model", type=Path, help="a weight file of `lnsnum train`")
    file = parser.parse_args().model
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        graphs(Path(name))
        digits(file, Path(name))


if __name__ == "__main__":
    main()
