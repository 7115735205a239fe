"""The scale of floats that were codes once: windows, found again from the values alone.

The oracle is how the floats were made: of integers E, whose window is arithmetic, decoded by lnsnum.decode.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import lnsnum
from lnsnum import LNSFormat, lns6f2, lns8f3, lns8f5, lns16f10
from lnsnum.torch_bridge.kernels.fits import fit_scale
from lnsnum.torch_bridge.kernels.fitting import choose_scale, exact_windows
from lnsnum.torch_bridge.kernels.scale import Scale

torch.set_num_threads(1)

FORMATS = [LNSFormat(3, 1), LNSFormat(4, 0), lns6f2, lns8f5, lns8f3, LNSFormat(9, 3, base=1.5), lns16f10]


def values(m: np.ndarray, fmt: LNSFormat, log_offset: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """What codes of these magnitudes decode to, of alternating signs."""
    codes = np.asarray(m) + fmt.sign_bit * (np.arange(np.size(m)).reshape(np.shape(m)) % 2) * (np.asarray(m) > 0)
    name = str(dtype).removeprefix("torch.")
    return torch.from_numpy(lnsnum.decode(codes.astype(fmt.dtype), fmt, name, log_offset=log_offset))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("log_offset", [0, -77, 40])
def test_every_range_of_codes_has_the_window_that_leaves_them_inside(fmt, log_offset):
    """Pairs of a smallest and a greatest code: all of narrow formats, of others those of 40 codes."""
    top = fmt.max_magnitude
    ends = np.unique(np.linspace(1, top, min(top, 40)).astype(int))
    pairs = [(a, b) for a in ends for b in ends if a < b]
    rows = values(np.array([(a, 0, b) for a, b in pairs]), fmt, log_offset)
    windows = exact_windows(rows, fmt)
    assert bool(windows.exact.all())
    assert windows.low.tolist() == [log_offset + b - top for _, b in pairs]
    assert windows.high.tolist() == [log_offset + a - 1 for a, _ in pairs]
    assert not bool(windows.constant.any())


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_one_number_off_the_grid_or_out_of_range_shuts_the_window(fmt):
    m = np.arange(1, fmt.max_magnitude + 1)
    rows = values(np.broadcast_to(m, (3, m.size)), fmt, 5).clone()
    rows[1, -1] *= 1 + 1e-3
    rows[2, 0] /= 4.0 * fmt.base  # on the grid, perhaps, but too far away
    assert exact_windows(rows, fmt).exact.tolist() == [True, False, False]


@pytest.mark.parametrize("place", [0, 31, 32, 70_000])
def test_one_number_anywhere_counts(place):
    """Beyond the sample that is looked at first, and in another block."""
    row = values(np.tile([1, 127, 60], 30_000), lns8f5)[None]
    assert exact_windows(row, lns8f5).exact.tolist() == [True]
    row[0, place] *= 1.001
    assert exact_windows(row, lns8f5).exact.tolist() == [False]
    row[0, :] = 0.0
    row[0, place] = 1.5
    assert exact_windows(row, lns8f5).exact.tolist() == [False]
    row[0, place] = 1.0
    windows = exact_windows(row, lns8f5)
    assert (windows.exact.tolist(), windows.constant.tolist()) == ([True], [True])


def test_what_says_nothing():
    for row in ([0.0, 0.0], [1.0, -1.0], [math.inf, 1.0, 0.5], [math.nan, 0.0], []):
        windows = exact_windows(torch.tensor([row], dtype=torch.float32), lns8f5)
        assert windows.exact.tolist() == [False], row
    windows = exact_windows(torch.tensor([[math.nan, 1.0, 0.5, 0.0]]), lns8f5)
    assert (windows.exact.tolist(), windows.low.tolist(), windows.high.tolist()) == ([True], [-63], [31])
    assert not exact_windows(torch.zeros(0, 4), lns8f5).exact.any()


@pytest.mark.parametrize(
    ("fmt", "dtype", "told"),
    [
        (lns8f5, torch.float32, True), (lns16f10, torch.float32, True), (lns8f5, torch.bfloat16, True),
        (LNSFormat(8, 6), torch.bfloat16, False), (lns16f10, torch.bfloat16, False), (lns16f10, torch.float16, False),
    ],
)  # fmt: skip
def test_a_float_type_must_be_finer_than_the_format(fmt, dtype, told):
    """Four numbers for each code: else those of no codes would look like codes, and their outliers keep the scale."""
    rows = values(np.array([[1 << (fmt.bits - 2), (1 << (fmt.bits - 2)) - 9, 0]]), fmt, dtype=torch.float32).to(dtype)
    assert exact_windows(rows, fmt).exact.tolist() == [told]


@given(
    bits=st.integers(3, 16),
    fraction_bits=st.integers(0, 14),
    base=st.sampled_from([2.0, 2.0, 1.5, math.e]),
    log_offset=st.integers(-200, 200),
    seed=st.integers(0, 1 << 20),
    size=st.integers(1, 60),
    own=st.integers(-400, 400) | st.none(),
)
@example(8, 5, 2.0, -100, 0, 60, -100)
def test_chosen_scales_lose_nothing_of_codes(bits, fraction_bits, base, log_offset, seed, size, own):
    fmt = LNSFormat(bits, min(fraction_bits, bits - 2), base=base)
    m = np.random.default_rng(seed).integers(1, fmt.max_magnitude + 1, size)
    x = values(m, fmt, log_offset)
    if not (torch.isfinite(x).all() and x.abs().min() > 1e-300):
        return
    chosen = choose_scale(x, fmt, own=None if own is None else Scale(own, own))
    if m.min() == m.max():  # one number fits as any does
        assert chosen == fit_scale(x, fmt)
        return
    low, high = log_offset + m.max() - fmt.max_magnitude, log_offset + m.min() - 1
    assert low <= chosen <= high
    if own is not None and low <= own <= high:
        assert chosen == own
    codes = lnsnum.encode(x.numpy(), fmt, log_offset=chosen)
    np.testing.assert_array_equal(codes & fmt.max_magnitude, m + log_offset - chosen)


def test_codes_at_the_floor_tell_the_scale_of_numbers_that_shrank():
    """A fifth of a uniform distribution was clipped to the floor: no other end of the window explains so many."""
    x = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    codes = lnsnum.encode(x.numpy(), lns8f5, log_offset=-20, underflow="saturate")
    floats = torch.from_numpy(lnsnum.decode(codes, lns8f5, log_offset=-20))
    assert (codes & 127 == 1).mean() > 0.1
    assert fit_scale(floats, lns8f5) < -20
    assert choose_scale(floats, lns8f5) == -20
    spread = values(np.arange(20, 100), lns8f5, -20)  # one of each: none was clipped
    assert choose_scale(spread, lns8f5) == min(max(fit_scale(spread, lns8f5), -20 - 28), -20 + 19)


def test_each_channel_has_its_own():
    x = torch.stack([values(np.arange(1, 128), lns8f5, k) for k in (-50, 0, 70)])
    x[1] *= 1.001
    own = Scale(-50, 70, torch.tensor([[0], [0], [0]], dtype=torch.int32))
    chosen = choose_scale(x, lns8f5, own=own)
    assert chosen.tolist() == [[-50], [fit_scale(x[1], lns8f5)], [70]]
    columns = choose_scale(x.t(), lns8f5, own=own._replace(offsets=own.offsets.t()))
    assert columns.tolist() == [[-50, fit_scale(x[1], lns8f5), 70]]
