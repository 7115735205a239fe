"""Products with codes in Triton against `lnsnum.operations.weight_only`: the same sums, in the same order."""

import numpy as np
import pytest
import torch

from lnsnum import LNSFormat, lns8f5, lns12f6
from lnsnum.operations import weight_only
from lnsnum.torch_bridge.kernels import products_triton
from lnsnum.torch_bridge.kernels.codes import offsets_of
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES
from lnsnum.torch_bridge.kernels.scale import Scale, check_offset

KINDS = [  # outer, inner, rows of x, appearance, scales
    (5, 300, 1, torch.float32, "one"), (33, 64, 16, torch.bfloat16, "rows"), (70, 129, 3, torch.float16, "rows"),
    (32, 256, 2, torch.float32, "groups"), (64, 257, 5, torch.bfloat16, "one"), (1, 1, 1, torch.float32, "rows"),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("fmt", [lns8f5, lns12f6], ids=str)
def test_products_are_those_of_the_cpu(fmt, transposed, kind, device):
    outer, inner, vectors, appearance, scales = kind
    if fmt is lns12f6 and appearance == torch.float16:
        pytest.skip("its least magnitudes are subnormal there: the weight is decoded")
    rng = np.random.default_rng(outer)
    shape = (inner, outer) if transposed else (outer, inner)
    words = rng.integers(0, 1 << fmt.bits, shape).astype(fmt.dtype)
    words[words == fmt.nan_code] = 0
    codes = torch.from_numpy(words.view(np.int16) if fmt.bits > 8 else words)
    scale = Scale(-3, -3)
    if scales == "rows":
        scale = check_offset(torch.from_numpy(rng.integers(-5, 5, (shape[0], 1))), codes.shape)
    elif scales == "groups":
        offsets = torch.from_numpy(rng.integers(-5, 5, (shape[0], shape[1] // 16)))
        scale = check_offset(offsets, codes.shape, 16)
    x = torch.from_numpy(rng.standard_normal((vectors, inner)).astype(np.float32)).to(appearance)
    there = scale if scale.offsets is None else scale._replace(offsets=scale.offsets.to(device))
    found = products_triton.multiply(x.to(device), codes.to(device), fmt, there, appearance, transposed=transposed)
    rest = {"transposed": transposed, "appearance": FLOAT_NAMES[appearance]}
    expected = weight_only.multiply(x.float().numpy(), words, fmt, offsets_of(scale), **rest)
    np.testing.assert_array_equal(found.cpu().numpy().view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("transposed", [False, True])
def test_nan_of_either_side(transposed, device):
    codes = torch.full((4, 4), 64, dtype=torch.uint8)
    codes[1, 2] = 128
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, float("nan"), 0.0, 1.0]])
    found = products_triton.multiply(
        x.to(device), codes.to(device), lns8f5, Scale(0, 0), torch.float32, transposed=transposed
    )
    where = np.isnan(weight_only.multiply(x.numpy(), codes.numpy(), lns8f5, 0, transposed=transposed))
    assert where[0].sum() == 1
    assert where[1].all()
    np.testing.assert_array_equal(np.isnan(found.cpu().numpy()), where)


def test_what_is_decoded_instead(device):
    codes, x = torch.zeros((3, 5), dtype=torch.uint8, device=device), torch.ones((17, 5), device=device)
    rest = {"appearance": torch.float32, "transposed": False}
    assert products_triton.multiply(x, codes, lns8f5, Scale(0, 0), **rest) is None
    assert products_triton.multiply(x[:16], codes, lns8f5, Scale(0, 0), **rest).shape == (16, 3)
    assert products_triton.multiply(x[:1], codes, LNSFormat(8, 3, base=1.5), Scale(0, 0), **rest) is None
    assert products_triton.multiply(x[:1], codes, lns8f5, Scale(1 << 20, 1 << 20), **rest) is None
    assert products_triton.multiply(x[:0], codes, lns8f5, Scale(0, 0), **rest).shape == (0, 3)
