"""Networks on a microcontroller: compiled for a Cortex-M4 without a libc, run in qemu, and how large they are there."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from c_networks import STRICT, trained

from lnsnum.tasks.image_networks import small_cnn
from lnsnum.toolbox.network import export_network

C = Path(__file__).parents[1] / "c"
M4 = ["-mcpu=cortex-m4", "-mthumb", "-ffreestanding", "-fno-tree-loop-distribute-patterns"]
FLOATS = ["-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]
BOARD = ["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]

DATAPATHS = {
    "floats": None,
    "logarithmic": "activations=lns8f3,accumulate=lns12f7",
    "fixed point": "activations=lns8f3,accumulate=fixed:20",
}

DUMP = """
#include <stdio.h>
#include "net_network.h"
#include "images.h"
int main(void) {
    static OUTPUT outputs[net_outputs];
    int i;
    for (i = 0; i < image_count; i++) {
        net_outputs_of(images[i], outputs);
        fwrite(outputs, sizeof outputs, 1, stdout);
    }
    return 0;
}
"""


@pytest.mark.parametrize("name", DATAPATHS)
def test_a_microcontroller_computes_the_same_bits(name, tmp_path):
    """The digits' network: outputs as this machine's program has them; flash and memory as promised."""
    for tool in ("gcc", "arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    torch.manual_seed(0)
    model = trained(small_cnn(1, 8, 8, 10), (1, 8, 8))
    x = torch.rand(6, 1, 8, 8)
    folder = tmp_path / "net"
    done = export_network(model, (1, 8, 8), folder, datapath=DATAPATHS[name], examples=torch.rand(100, 1, 8, 8))
    rows = ",\n".join("{" + ", ".join(f"{v.hex()}f" for v in image.reshape(-1).tolist()) + "}" for image in x)
    (folder / "images.h").write_text(
        f"enum {{ image_count = {len(x)} }};\nstatic const float images[][net_inputs] = {{\n{rows}}};\n"
    )
    (folder / "dump.c").write_text(DUMP)
    output = f"-DOUTPUT={'float' if DATAPATHS[name] is None else 'int32_t'}"
    subprocess.run(["gcc", "-O2", output, "dump.c", "net_network.c", "-o", "dump"], cwd=folder, check=True, timeout=120)
    expected = subprocess.run([folder / "dump"], capture_output=True, check=True, timeout=60).stdout
    # integers need no unit of floats, and call nothing that would compute with floats instead
    flags = [*M4, *(FLOATS if DATAPATHS[name] is None else ["-mfloat-abi=soft"])]
    compiler = ["arm-none-eabi-gcc", *flags, "-Os"]
    subprocess.run([*compiler, *STRICT, "-c", "net_network.c"], cwd=folder, check=True, timeout=120)
    missing = subprocess.run(
        ["arm-none-eabi-nm", "-u", "net_network.o"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(missing) <= {"U", "memset", "memcpy"}
    sources = [str(C / "cortex_m.c"), "net_network.o", "-T", str(C / "cortex_m.ld"), "-nostdlib", f"-I{folder}"]
    link = [*compiler, output, *sources, "-lgcc", "-o", "program.elf"]
    subprocess.run(link, cwd=folder, check=True, timeout=120)
    command = ["qemu-system-arm", *BOARD, "-semihosting-config", "enable=on,target=native", "-kernel", "program.elf"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0
    printed = (ran.stderr + ran.stdout).splitlines()
    words = np.array([[int(word, 16) for word in line.split()] for line in printed[:-1]])
    assert np.array_equal(words[:, :-1].astype("<u4"), np.frombuffer(expected, "<u4").reshape(len(x), 10))
    ranks = np.frombuffer(expected, "<f4" if DATAPATHS[name] is None else "<i4").reshape(len(x), 10)
    assert np.array_equal(words[:, -1], ranks.argmax(1))
    size = subprocess.run(
        ["arm-none-eabi-size", "net_network.o"], cwd=folder, capture_output=True, text=True, check=True
    )
    flash, _, memory = map(int, size.stdout.splitlines()[1].split()[:3])
    assert flash <= 1.15 * done.network["weights"] + 6000
    assert memory == done.network["written_bytes"] == 2 * 32 * 64 * (4 if DATAPATHS[name] is None else 1)
