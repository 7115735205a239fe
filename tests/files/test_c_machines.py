"""The C headers on other machines, emulated: one whose greatest byte comes first, one of 32 bits.

What the program of this machine prints, which tests/files/test_c_reader.py and its kin judge, theirs print too.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from weight_file_fixtures import EVERY, path_of

from lnsnum import LNSFormat
from lnsnum.toolbox.export_targets.c_adder import LNSNUM_SUMS_H, adder_source
from lnsnum.toolbox.network import export_network
from lnsnum.torch_bridge import convert_model

C = Path(__file__).parents[1] / "c"
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", f"-I{LNSNUM_SUMS_H.parent}"]

MACHINES = {
    "s390x": ("s390x-linux-gnu-gcc", "qemu-s390x", ">i8"),
    "armhf": ("arm-linux-gnueabihf-gcc", "qemu-arm", "<i8"),
}


@pytest.fixture(params=MACHINES)
def machine(request):
    """Compiler, emulator and order of bytes."""
    compiler, emulator, order = MACHINES[request.param]
    for tool in ("gcc", compiler, emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return compiler, emulator, order


def programs(machine, folder, *sources):
    """The commands that run it: as this machine's program, and as the other one's."""
    compiler, emulator, _ = machine
    commands = []
    for gcc, before in ((["gcc"], []), ([compiler, "-static"], [emulator])):
        program = folder / f"program_{len(commands)}"
        subprocess.run([*gcc, *FLAGS, f"-I{folder}", *map(str, sources), "-o", str(program)], check=True, timeout=120)
        commands.append([*before, str(program)])
    return commands


def printed(command, text=b""):
    done = subprocess.run(command, input=text, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_golden_files_are_read_alike(machine, tmp_path):
    here, there = programs(machine, tmp_path, C / "dump.c")
    for layout, name in EVERY:
        expected = printed([*here, str(path_of(name, layout))])
        assert expected
        assert printed([*there, str(path_of(name, layout))]) == expected, name


@pytest.mark.parametrize("datapath", [None, "activations=lns8f3,accumulate=lns12f7"])
def test_a_network_gives_the_same_classes(machine, datapath, tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(96, 10)).eval()
    convert_model(model, "lns8f5")
    examples = torch.randn(20, 1, 8, 8)
    export_network(model, (1, 8, 8), tmp_path / "net", datapath=datapath, examples=examples)
    text = " ".join(map(repr, torch.randn(30 * 64).tolist())).encode()
    sources = [tmp_path / "net" / name for name in ("net_main.c", "net_network.c")]
    here, there = (printed(command, text) for command in programs(machine, tmp_path, *sources))
    assert here == there
    assert len(here.split()) == 30


def test_sums_of_codes_are_the_same_integers(machine, tmp_path):
    table = "static const lnsnum_adder *const adders[] = {&a};\n"
    (tmp_path / "adders.h").write_text(f'#include "lnsnum_sums.h"\n{adder_source(LNSFormat(12, 7), "a")}{table}')
    rng = np.random.default_rng(0)
    outputs, inputs = 50, 60
    head = [0, 0, 8, 5, 8, 5, 8, 5, outputs, inputs, 1, -100, 20]
    codes = rng.integers(0, 256, outputs * inputs), rng.integers(0, 128, inputs)
    words = np.concatenate([head, rng.integers(-40, 1, outputs), *codes])
    commands = programs(machine, tmp_path, C / "sums.c")
    requests = words.astype("<i8").tobytes(), words.astype(machine[2]).tobytes()
    here, there = map(printed, commands, requests)
    order = machine[2].replace("8", "4")
    assert np.array_equal(np.frombuffer(here, "<i4"), np.frombuffer(there, order))
    assert len(here) == 4 * outputs
