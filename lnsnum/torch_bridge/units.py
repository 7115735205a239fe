"""The unit of a weight's steps: its RMS at the optimizer's first step, from the histogram of its codes.

    r  =  sqrt(sum over the codes of (X[m] floor)^2 / n),        unit of a scale  =  r / its floor

One number r for each tensor; in units of each scale's floor it is what kernels take. The histogram holds integers, so r
is the same in any order and for any sharding of the codes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.weak import WeakTensorKeyDictionary

from lnsnum.format import LNSFormat
from lnsnum.kernels.scales import Scales
from lnsnum.torch_bridge.kernels import ceiling
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.scale import std_of_zeros
from lnsnum.torch_bridge.weight import LNSWeight

State = dict[str, Any]


def unit_state(p: LNSWeight) -> State:
    """r, the units of the scales and the log_offsets `at` which these hold; of what has no codes yet, 1 and its scale.

    r is in float64; where it leaves that range, at the far ends of log_offset, kappa is 0 or 1 and the units still
    hold, for they come from the histogram and differences of log_offset alone.
    """
    offsets = _offsets(p)
    if p.is_meta:
        return units_by(p.fmt, offsets, p.shape, None, None)
    different = None
    if p.scale.group_size:
        # those of one log_offset are counted together: of many groups few offsets differ
        different, which = different_offsets(offsets)
        histogram = histogram_by(p, which, different.size)
    else:
        histogram = histograms_of(p)
    rms = ceiling.root_mean_squares(histogram, p.fmt)
    return units_by(p.fmt, offsets, p.shape, rms, histogram.sum(1), different)


def different_offsets(offsets: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The log_offsets that there are, each once, and which of them each is."""
    flat = offsets.reshape(-1).to("cpu", torch.int64).numpy()
    different, which = np.unique(flat, return_inverse=True)
    return different, which


def histogram_by(p: LNSWeight, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many codes have each magnitude, (count, m_max + 1): those of each scale of `p` in the row that is its own."""
    numbers = scales_of(p)
    own = ceiling.histograms(_codes(p), p.fmt, numbers._replace(values=rows[numbers.values]))
    histogram = np.zeros((count, own.shape[1]), np.int64)
    histogram[: len(own)] = own
    return histogram


def units_by(
    fmt: LNSFormat,
    offsets: torch.Tensor,
    weight_shape: torch.Size,
    rms: NDArray[np.float64] | None,
    sizes: NDArray[np.int64] | None,
    different: NDArray[np.int64] | None = None,
) -> State:
    """`unit_state` by the RMS of the codes of each scale, in units of its floor, and by how many those are; None where
    there are no codes yet. Both are of scales at the log_offsets `different`, where these are not those of all."""
    shape = offsets.shape
    flat = offsets.reshape(-1).to("cpu", torch.int64).numpy()
    top = int(flat.max()) if flat.size else 0
    at = flat if different is None else different
    down = ceiling.powers(flat - top, fmt)  # floors in units of the greatest floor
    if rms is None or sizes is None:
        units = np.ones(flat.size)
    else:
        own = rms * ceiling.powers(at - top, fmt)[: rms.size]
        mean = math.fsum(own * own * sizes) / max(int(sizes.sum()), 1)
        units = math.sqrt(mean) / down if mean > 0.0 else std_of_zeros(weight_shape) / ceiling.floors(flat, fmt)
    floor = float(ceiling.floors(np.array([top]), fmt)[0])
    r = float(units[int(flat.argmax())]) * floor if flat.size else 1.0
    return {
        "r": torch.tensor(r, dtype=torch.float64),
        "units": torch.from_numpy(np.minimum(units, 1e30)).reshape(shape),
        "at": torch.from_numpy(flat.astype(np.int32)).reshape(shape),
    }


def refresh_units(p: LNSWeight, state: State) -> None:
    """The units at the log_offsets of now, which may have been changed: the weight was rescaled, or its scales grew."""
    at, offsets = state["at"], _offsets(p)
    if torch.compiler.is_compiling():
        _refresh_in_graph(p, state, offsets.to(at.device))
        return
    if units_hold(p, state):
        return
    move_units(p.fmt, state, offsets)


def move_units(fmt: LNSFormat, state: State, offsets: torch.Tensor) -> None:
    """The units at other log_offsets than those that they were at."""
    now = offsets.reshape(-1).to("cpu", torch.int64).numpy()
    r_at, unit, there = state["at"].reshape(-1)[:1].long(), float(state["units"].reshape(-1)[0]), state["at"].device
    units = np.minimum(unit * ceiling.powers(int(r_at[0]) - now, fmt), 1e30)
    state["units"] = torch.from_numpy(units).reshape(offsets.shape).to(there)
    state["at"] = offsets.detach().to(there, torch.int32, copy=True)


def units_hold(p: LNSWeight, state: State) -> bool:
    """Whether the units are those at the log_offsets of now."""
    at, offsets = state["at"], _offsets(p)
    mark = p.scale_mark() if offsets.device != at.device else None
    if mark is not None and _HELD.get(at, (None, None))[1] == mark:
        return True
    holds = at.shape == offsets.shape and torch.equal(at, offsets.to(at.device, at.dtype))
    if holds and mark is not None:
        _HELD[at] = p.scale.offsets, mark
    return holds


_HELD = WeakTensorKeyDictionary()
"""Of `at` of weights on graphics cards: the log_offsets that they were those of, and the mark of these then. To compare
them anew, each step would wait for the card. (The log_offsets are kept for their id, which is in the mark.)"""


def _refresh_in_graph(p: LNSWeight, state: State, offsets: torch.Tensor) -> None:
    """The same in tensor operations, in place. What was rescaled gets its powers from the device's library, and is
    right but for the last bits of float64."""
    if state["at"].shape != offsets.shape:
        raise ValueError(
            "the state is of a weight whose log_offset was no tensor: call optimizer.make_state(for_graph=True) before "
            "the step is compiled"
        )
    down = (state["at"] - offsets).to(torch.float64)
    powers = torch.exp2(down * (math.log2(p.fmt.base) / (1 << p.fmt.fraction_bits)))
    units = torch.where(down == 0, state["units"], (state["units"] * powers).clamp(max=1e30))
    state["units"].copy_(units)
    state["at"].copy_(offsets)


def scales_of(p: LNSWeight) -> Scales:
    """Which of its scales each element has."""
    return p.scale.numbers(p.shape)


def histograms_of(p: LNSWeight) -> NDArray[np.int64]:
    """How many codes of each scale have each magnitude, in the order of the log_offsets."""
    return ceiling.histograms(_codes(p), p.fmt, scales_of(p))


def tallies_of(p: LNSWeight) -> NDArray[np.int64]:
    """What decides of each scale whether it grows, in the order of the log_offsets."""
    return ceiling.tallies(_codes(p), p.fmt, scales_of(p))


def _codes(p: LNSWeight) -> NDArray[Any]:
    return bridge.as_numpy(p.codes.detach().cpu().contiguous(), p.fmt.dtype)


def _offsets(p: LNSWeight) -> torch.Tensor:
    """With a dimension more for groups, as `Scale.unmerged`."""
    scale = p.scale
    return torch.tensor(scale.low, dtype=torch.int32) if scale.offsets is None else scale.unmerged(scale.offsets)
