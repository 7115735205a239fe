"""What tests of elementwise operations in LNS share: formats, accumulators, numbers of several sizes."""

import numpy as np
import pytest
import scalar_datapath as scalar
import torch

from lnsnum import LNSFormat
from lnsnum.gaussian import LookUpTable, Mitchell
from lnsnum.torch_bridge.datapath import Accumulator, datapath

W, A, E, G = LNSFormat(8, 5), LNSFormat(8, 3), LNSFormat(7, 3), LNSFormat(8, 4)
KINDS = {"weights": W, "activations": A, "errors": E, "gradients": G}
ADD = Accumulator("lns12f6")
ACCUMULATORS = {
    "exact": ADD,
    "table, pairwise": Accumulator("lns12f6", order="pairwise", gaussian_log=LookUpTable(20)),
    "dynamic": Accumulator("lns12f6", log_offset="dynamic"),
    "mitchell, fixed": Accumulator("lns14f7", gaussian_log=Mitchell(), log_offset=0),
}
every_accumulator = pytest.mark.parametrize("add", ACCUMULATORS.values(), ids=ACCUMULATORS)


def within(add=ADD, **changes):
    return datapath(**{**KINDS, "accumulate": add, "elementwise": True, **changes})


def floats(*shape, seed=0, spread=2.0):
    """Numbers of several sizes, some of them zero."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * 2.0 ** random.uniform(-spread, spread, shape)
    return torch.tensor(np.where(random.random(shape) < 0.1, 0.0, x), dtype=torch.float32)


def same(found, expected):
    """Bit for bit; of a tensor and the oracle's codes."""
    np.testing.assert_array_equal(found.detach().numpy(), scalar.decoded(expected))


def rounded(expected):
    """Q_G of what arrives at a weight."""
    return scalar.encoded(scalar.decoded(expected), G)
