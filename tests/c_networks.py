"""Networks that tests write as programs in C: how they are made, compiled and run."""

import subprocess

import numpy as np
import torch
from torch import nn

from lnsnum.decoding import decode
from lnsnum.torch_bridge import convert_model
from lnsnum.torch_bridge.datapath import FixedPoint

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion"]
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"]


def trained(model, shape, fmt="lns8f5", **options):
    """With running statistics and signs of a real network, then converted."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.weight.normal_()
                module.bias.normal_()
        model.train()
        for _ in range(3):
            model(torch.randn(16, *shape))
    convert_model(model.eval(), fmt, **options)
    return model


INTEGER_DUMP = """
#include <stdio.h>
#include "net_network.h"
int main(void) {
    static float input[net_inputs];
    static int32_t outputs[net_outputs];
    int i;
    while (fread(input, sizeof input, 1, stdin)) {
        net_outputs_of(input, outputs);
        for (i = 0; i < net_outputs; i++) printf("%ld ", (long)outputs[i]);
        printf("%d\\n", net_class(input));
    }
    return 0;
}
"""
"""A program that reads float32 and prints an integer network's outputs and classes."""


def run(folder, program, x):
    """Outputs and classes of a program that reads float32."""
    done = subprocess.run([folder / program], input=x.numpy().tobytes(), capture_output=True, check=True, timeout=120)
    rows = np.array([line.split() for line in done.stdout.decode().splitlines()], float)
    return rows[:, :-1], rows[:, -1].astype(int)


def check_outputs(ranks, classes, expected, last):
    """A program's integers are, bit for bit, the datapath's floats, of a last layer."""
    ranks = ranks.astype(np.int64)
    nan = ranks == -(2**31)
    if isinstance(last.accumulator, FixedPoint):
        found = (ranks * last.scale).astype(np.float32)
    else:
        fmt = last.accumulator.fmt
        codes = np.where(nan, 0, np.abs(ranks) | np.where(ranks < 0, fmt.sign_bit, 0)).astype(fmt.dtype)
        found = decode(codes, fmt, "float32", log_offset=last.scale)
    assert np.array_equal(nan, np.isnan(expected))
    assert np.array_equal(found[~nan].view(np.int32), expected[~nan].view(np.int32))
    assert np.array_equal(classes, expected.argmax(1))  # of the first NaN where there is one
