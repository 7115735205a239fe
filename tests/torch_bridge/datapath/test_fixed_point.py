"""The wide fixed-point accumulator against exact sums of the reference's values, within the bound of its docstring."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lnsnum import LNSFormat, reference
from lnsnum.torch_bridge.datapath import Accumulator, FixedPoint, datapath
from lnsnum.torch_bridge.datapath.fixed_point import matmul, power_table
from lnsnum.torch_bridge.datapath.matrices import Matrices

A, B = LNSFormat(8, 3), LNSFormat(8, 5)


def codes_of(fmt, *shape):
    size = int(np.prod(shape))
    numbers = st.integers(0, (1 << fmt.bits) - 1).filter(lambda code: code != fmt.nan_code)
    return st.lists(numbers, min_size=size, max_size=size).map(lambda x: np.array(x, np.uint8).reshape(shape))


@given(codes_of(A, 2, 5), codes_of(B, 5, 3), st.integers(-9, 9), st.sampled_from([8, 24, 50]))
def test_a_sum_is_within_its_bound(a, b, offset, bits):
    found = matmul(Matrices(a, A, offset), Matrices(b, B, 2), FixedPoint(bits))
    greatest = reference.value(A.max_magnitude, A, log_offset=offset) * reference.value(
        B.max_magnitude, B, log_offset=2
    )
    for i, j in np.ndindex(2, 3):
        exact = mpmath.fsum(
            reference.value(int(x), A, log_offset=offset) * reference.value(int(y), B, log_offset=2)
            for x, y in zip(a[i], b[:, j], strict=True)
        )
        sum_ = mpmath.mpf(int(found.codes[i, j])) * mpmath.mpf(2) ** -bits * greatest
        assert abs(sum_ - exact) <= 5 * greatest * mpmath.mpf(2) ** -bits
        assert found.unit == pytest.approx(float(greatest) * 2.0**-bits, rel=1e-14)
    backwards = matmul(Matrices(a[:, ::-1], A, offset), Matrices(b[::-1], B, 2), FixedPoint(bits))
    assert np.array_equal(found.codes, backwards.codes), "the order counts"


def test_the_table_of_powers():
    table = power_table(5, 50)
    with mpmath.workprec(200):
        true = [mpmath.mpf(2) ** (mpmath.mpf(r) / 32 + 50) for r in range(32)]
    assert max(abs(int(t) - x) for t, x in zip(table, true, strict=True)) <= 0.625


def test_nan_and_zero():
    a = np.array([[0, A.nan_code], [0, 64]], np.uint8)
    found = matmul(Matrices(a, A, 0), Matrices(np.array([[64], [0]], np.uint8), A, 0), FixedPoint())
    assert found.floats(torch.float32).isnan().tolist() == [[True], [False]]
    assert found.codes[1, 0] == 0


def test_both_passes_are_near_those_of_float(one_thread):
    torch.manual_seed(0)
    kinds = dict.fromkeys(("weights", "activations", "errors"), "lns8f3")
    net = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(20, 3))
    x, labels, found = torch.randn(4, 2, 5), torch.tensor([0, 1, 2, 0]), []
    for accumulate in ("float32", FixedPoint(), FixedPoint(8)):
        net.zero_grad()
        with datapath(**kinds, accumulate=accumulate):
            loss = functional.cross_entropy(net(x), labels)
            loss.backward()
        found.append(torch.cat([p.grad.reshape(-1) for p in net.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    assert float((found[2] - found[0]).norm() / found[0].norm()) < 0.1
    assert not torch.equal(found[2], found[1])


def test_what_does_not_go():
    for bits in (7, 51, True, 9.0):
        with pytest.raises(ValueError, match="is out of range: an integer from 8 to 50"):
            FixedPoint(bits)
    with pytest.raises(TypeError, match="are no powers of 2"):
        datapath(activations=LNSFormat(8, 3, base=3.0), accumulate=FixedPoint())
    row = np.zeros((1, 1 << 13), np.uint8)
    with pytest.raises(ValueError, match=r"a sum of 8192 terms does not fit .* of 50 bits: at most 2\^12, take"):
        matmul(Matrices(row, A, 0), Matrices(row.T, A, 0), FixedPoint(50))
    assert Accumulator("lns12f6").name == "lns12f6"
