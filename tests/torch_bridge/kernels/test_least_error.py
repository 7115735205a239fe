"""The scale of least squared error, against all scales tried one by one with codes of `lnsnum.encode` and `decode`."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lnsnum
from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f4, lns16f10
from lnsnum.torch_bridge.kernels.least_error import least_error_offsets

FORMATS = [lns4f1, lns6f2, LNSFormat(3, 1), LNSFormat(5, 0, base=1.4), lns8f4]


def rounded(row, fmt, log_offset, axis):
    """The numbers next to a row at one scale: on the log axis by `encode`, in value by a look at all."""
    if axis == "log":
        codes = lnsnum.encode(row, fmt, log_offset=log_offset, underflow="saturate")
        return lnsnum.decode(codes, fmt, log_offset=log_offset)
    codes = np.array([code for code in range(2**fmt.bits) if code != fmt.nan_code], fmt.dtype)
    every = lnsnum.decode(codes, fmt, log_offset=log_offset)
    return every[np.abs(row[:, None] - every).argmin(1)]


def costs(row, fmt, axis, weights):
    """The squared error of a row at each log_offset that could be the best."""
    logs = np.log(np.abs(row[row != 0])) / np.log(fmt.base) * 2**fmt.fraction_bits
    low, high = int(logs.min()) - fmt.max_log - 2, int(logs.max()) - fmt.max_log + 3
    return {at: float((weights * (rounded(row, fmt, at, axis) - row) ** 2).sum()) for at in range(low, high + 1)}


@pytest.mark.parametrize("axis", ["log", "value"])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_no_scale_loses_less(fmt, axis):
    rng = np.random.default_rng(fmt.bits)
    rows = np.stack([rng.standard_normal(40), rng.standard_t(2, 40), rng.laplace(size=40) * 1e-9, np.zeros(40)])
    rows[1, ::5] = 0
    weights = rng.exponential(size=rows.shape)
    weights[2] = 0  # where nothing counts, everything does
    counted = [np.ones(rows.shape), np.where(weights.any(1, keepdims=True), weights, 1.0)]
    given_weights = [None, torch.from_numpy(weights)]
    for own, given_own in zip(counted, given_weights, strict=True):
        found = least_error_offsets(torch.from_numpy(rows), fmt, axis=axis, weights=given_own)
        assert found[3] is None
        for row, h, at in zip(rows[:3], own, found, strict=False):
            every = costs(row, fmt, axis, h)
            assert every[at] <= min(every.values()) * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=6), st.sampled_from(FORMATS[:4]), st.booleans())
def test_of_a_few_numbers(numbers, fmt, is_log):
    """Equal ones, powers of the base and zeros among them, where many windows lose the same."""
    row, axis = np.array(numbers), "log" if is_log else "value"
    (at,) = least_error_offsets(torch.from_numpy(row)[None], fmt, axis=axis)
    if not row.any():
        assert at is None
        return
    every = costs(row, fmt, axis, 1.0)
    assert every[at] <= min(every.values()) + 1e-12 * float((row**2).sum())


def test_numbers_of_any_size():
    """Squares that leave float64 do not, and a format that is finer than needed ends soon."""
    row = np.array([1.0, -0.3, 0.04, 2.2])
    for fmt in (lns4f1, lns16f10):
        octaves = int(1000 * fmt.codes_per_octave)
        base = least_error_offsets(torch.from_numpy(row)[None], fmt)[0]
        for power in (-1000, 1000):
            scaled = torch.from_numpy(row * 2.0**power)[None]
            assert least_error_offsets(scaled, fmt) == [base + octaves * power // 1000]
    assert least_error_offsets(torch.zeros(2, 0, dtype=torch.float64), lns4f1) == [None, None]
