"""Codes nearest in value, against a look at all codes; error feedback, against the paper's steps one by one."""

import numpy as np
import pytest
import torch

import lnsnum
from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f4, lns16f10
from lnsnum.torch_bridge.kernels import nearest_value
from lnsnum.torch_bridge.kernels.codes import as_numpy
from lnsnum.torch_bridge.kernels.nearest_value import adaptive_codes, nearest_codes

FORMATS = [lns4f1, lns6f2, LNSFormat(3, 0), LNSFormat(5, 0, base=1.4), lns8f4]


def codes_and_values(fmt, log_offset):
    """All codes but NaN, by magnitude, so that the first of equal distances is the smaller."""
    codes = np.array(sorted(set(range(2**fmt.bits)) - {fmt.nan_code}, key=lambda c: c & fmt.max_magnitude), fmt.dtype)
    return codes, lnsnum.decode(codes, fmt, log_offset=log_offset)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_nearest_in_value(fmt):
    offsets = np.array([-40, 0, 3])
    rng = np.random.default_rng(0)
    for at in offsets.tolist():
        codes, every = codes_and_values(fmt, at)
        numbers = np.concatenate([every, np.array([0.0, -0.0]), 3 * every.max() * rng.uniform(-1, 1, 500)])
        wide = torch.from_numpy(numbers)
        found = as_numpy(nearest_codes(wide, fmt, torch.tensor(at)), fmt.dtype)
        expected = codes[np.abs(numbers[:, None] - every).argmin(1)]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(found[: len(codes)], codes)
    apart = nearest_codes(torch.tensor([[0.4], [0.4]], dtype=torch.float64), fmt, torch.tensor([[-2], [5]]))
    for code, at in zip(as_numpy(apart, fmt.dtype)[:, 0], (-2, 5), strict=True):
        codes, every = codes_and_values(fmt, at)
        assert code == codes[np.abs(0.4 - every).argmin()]


def test_a_wide_format_keeps_its_sign_bit():
    fmt = lns16f10
    assert as_numpy(nearest_codes(torch.tensor([-1.0, 1.0]).double(), fmt, torch.tensor(0)), fmt.dtype).tolist() == [
        fmt.sign_bit + fmt.bias,
        fmt.bias,
    ]


def test_magnitudes_beyond_float64_are_refused():
    with pytest.raises(OverflowError, match="beyond float64"):
        nearest_codes(torch.ones(1, dtype=torch.float64), lns4f1, torch.tensor(3000))


def oracle(w, h, fmt, offsets, dampening):
    """Section 3 of the paper without its third step: each weight of a row is quantized, the others of the row move by
    -(w_q - quant(w_q)) / [H^-1]_qq (H^-1)_:q, and one step of Gaussian elimination takes q out of H^-1. The inputs with
    the greatest moments come first.
    """
    h, diagonal = 2 * h, np.diag(h).copy()
    dead = np.diag(h) == 0
    h[dead, dead] = np.diag(h)[~dead].mean()
    inverse = np.linalg.inv(h + dampening * np.diag(h).mean() * np.eye(len(h)))
    w, found = w.copy(), np.zeros(w.shape, fmt.dtype)
    for q in sorted(range(w.shape[1]), key=lambda q: -diagonal[q]):
        for r in range(len(w)):
            codes, every = codes_and_values(fmt, int(offsets[r, q]))
            best = np.abs(w[r, q] - every).argmin()
            found[r, q] = codes[best]
            w[r] -= (w[r, q] - every[best]) / inverse[q, q] * inverse[:, q]
        inverse -= np.outer(inverse[:, q], inverse[q]) / inverse[q, q]
        inverse[q] = inverse[:, q] = 0
    return found


@pytest.mark.parametrize("fmt", [lns4f1, LNSFormat(5, 0, base=1.4)], ids=str)
@pytest.mark.parametrize(("examples", "dampening"), [(60, 0.01), (5, 0.1)])
def test_error_feedback_is_the_papers(fmt, examples, dampening, monkeypatch):
    """Of fewer examples than inputs H alone has no inverse. Columns in blocks, the last one of another width."""
    monkeypatch.setattr(nearest_value, "_COLUMNS", 8)
    rng = np.random.default_rng(examples)
    w = rng.standard_normal((6, 21))
    x = rng.standard_normal((examples, 21)) @ rng.standard_normal((21, 21)) + 1
    x[:, 4] = 0
    h = x.T @ x
    offsets = rng.integers(-5, 0, (6, 3)).repeat(7, axis=1)
    found = adaptive_codes(
        torch.from_numpy(w), torch.from_numpy(h), fmt, torch.from_numpy(offsets), dampening=dampening
    )
    np.testing.assert_array_equal(as_numpy(found, fmt.dtype), oracle(w, h, fmt, offsets, dampening))
    nearest = as_numpy(nearest_codes(torch.from_numpy(w), fmt, torch.from_numpy(offsets)), fmt.dtype)
    np.testing.assert_array_equal(as_numpy(found, fmt.dtype)[:, 4], nearest[:, 4])
    assert (as_numpy(found, fmt.dtype) != nearest).any()


def test_little_dampening_of_a_matrix_without_inverse():
    """More is added until there is one."""
    w = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.ones(1, 6, dtype=torch.float64)
    codes = adaptive_codes(w, x.T @ x, lns8f4, torch.tensor(0), dampening=1e-300)
    assert codes.shape == (3, 6)
    values = torch.from_numpy(lnsnum.decode(as_numpy(codes, lns8f4.dtype), lns8f4))
    # of one input all that counts is the sum, and the last weight makes good what the others lost
    assert float((values - w).sum(1).abs().max()) < 0.05
    zeros = adaptive_codes(w, torch.zeros(6, 6, dtype=torch.float64), lns8f4, torch.tensor(0))
    assert torch.equal(zeros, nearest_codes(w, lns8f4, torch.tensor(0)))
