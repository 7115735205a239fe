"""Which scale floats take: that of the codes they were, or the one that fits.

    x = (-1)^s * base^(E / 2^F) for every x, with whole E:      E_max - log_max  <=  log_offset  <=  E_min + log_max

Floats that all lie on the grid of a format were codes once, as a rule. They lose nothing at any log_offset of that
window, which is one number where the codes reached both ends of their range; so what was decoded becomes the codes
that it was. Of several, the scale that the weight has is taken, or else that next to the one that fits; or that at
which the smallest number is the smallest code, if so many are that small that they were clipped to it. Floats of a
channel that has no such window take the one that fits (`fits.fit_scale`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from lnsnum.format import MAX_LOG_OFFSET, LNSFormat
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.fits import fit_scale, rms_of_all
from lnsnum.torch_bridge.kernels.scale import RMS, Fit, LogOffset, Scale, in_channels

# Elements of a part: what is made of them, arrays of eight bytes each, takes little memory then.
_BLOCK = 1 << 16
_SAMPLE = 32
"""Elements of a channel that are looked at first: of floats that were never codes, hardly any are needed."""


class Windows(NamedTuple):
    """For each channel the log_offsets at which it loses nothing; tensors of int64, or bool, on the floats' device."""

    low: torch.Tensor
    high: torch.Tensor
    exact: torch.Tensor
    """Whether there are any."""
    constant: torch.Tensor
    """Whether all magnitudes but zeros are the same, which says nothing of the scale."""
    clipped: torch.Tensor
    """Whether the smallest magnitude is that of so many elements that they were clipped to it."""

    def nearest(self, fitting: torch.Tensor, fmt: LNSFormat) -> torch.Tensor:
        """The log_offset of each window that is next to the one that fits; that itself where there is no window.

        Of clipped ones the end of the window, if that is within a factor of 2.
        """
        octave = (1 << fmt.fraction_bits) / math.log2(fmt.base)
        at_end = self.clipped & ((self.high - fitting).abs() <= octave)
        return torch.where(self.exact, torch.where(at_end, self.high, fitting.clamp(self.low, self.high)), fitting)


def choose_scale(
    floats: torch.Tensor, fmt: LNSFormat, fit: Fit = RMS, *,
    own: Scale | None = None, of: Scale | None = None, whole: float | None = None,
) -> LogOffset:  # fmt: skip
    """The log_offset, or those of channels or groups as `own` has them, that a weight takes for new values.

    Args:
        floats: any float tensor; what is not finite has no say.
        fmt: the weight's format.
        fit: the rule, where no window says otherwise.
        own: the scale that the weight has.
        of: one that has as many, of what has none of its own yet.
        whole: what stands for the RMS of zeros, of a piece; by default `rms_of_all`.

    Raises:
        ValueError: where one would be larger than 2^30 in size.
    """
    each = of if own is None else own
    if each is not None and each.group_size:
        which = "of" if own is None else "own"
        whole = rms_of_all(_finite(floats)) if each.rest else None
        found = [choose_scale(x, fmt, fit, whole=whole, **{which: piece}) for x, piece in each.pieces(floats)]
        return each.of_pieces([torch.as_tensor(one) for one in found])
    offsets = None if each is None else each.offsets
    fitting = fit_scale(_finite(floats), fmt, fit, of=offsets, whole=whole)
    windows = exact_windows(in_channels(floats, offsets), fmt)
    if not bool(windows.exact.any()):
        return fitting
    chosen = windows.nearest(torch.as_tensor(fitting, device=floats.device).reshape(-1).to(torch.int64), fmt)
    if own is not None:
        had = torch.tensor([own.low]) if offsets is None else offsets.reshape(-1).to(torch.int64)
        had = had.to(floats.device)
        # codes that lose nothing where they are stay there, so that writing what was read changes no code
        kept = windows.exact & ~windows.constant & (windows.low <= had) & (had <= windows.high)
        chosen = torch.where(kept, had, chosen)
    return int(chosen) if offsets is None else chosen.to(torch.int32).reshape(offsets.shape)


def _finite(floats: torch.Tensor) -> torch.Tensor:
    """float64, with 0 in the place of what is not finite, which would be all of an RMS."""
    return torch.where(torch.isfinite(floats), floats.to(torch.float64), 0.0)


def exact_windows(rows: torch.Tensor, fmt: LNSFormat) -> Windows:
    """The windows of channels, the rows of a matrix of floats; zeros and NaN are codes at any scale.

    A channel of zeros has none, since any scale will do, nor one whose magnitudes are all the same, which fits by its
    RMS as well as anything, nor one with infinities, nor one of a float type that is hardly finer than the format, in
    which all numbers look like codes.
    """
    if not _tells_codes(fmt, rows.dtype):
        none = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        return Windows(none.to(torch.int64), none.to(torch.int64), none, none, none)
    sample = rows[:, :_SAMPLE]
    low, high, exact = _exact_at(sample, fmt)
    _, _, varies = _extremes(sample)
    # of floats that were never codes the sample says so, as a rule, and the whole is not read again
    if bool((exact | ~varies).any()):  # a sample of one number, or of zeros, decides nothing
        low, high, exact = _exact_at(rows, fmt)
    return Windows(low, high, exact, high - low == fmt.max_magnitude - 1, _are_clipped(rows, exact))


def _exact_at(rows: torch.Tensor, fmt: LNSFormat) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both ends of the windows, and whether they hold: a float64 logarithm finds E, if there is one."""
    greatest, least, varies = _extremes(rows)
    # 1 stands for what has no whole logarithm; `some` leaves it out again
    some = (greatest > 0) & torch.isfinite(greatest) & varies
    low, high = _nearest_log(torch.where(some, greatest, 1.0), fmt), _nearest_log(torch.where(some, least, 1.0), fmt)
    # the greatest at the top code gives the least scale, the smallest at the bottom code the greatest
    low, high = low - fmt.max_log, high + fmt.max_log
    exact = some & (low <= high) & (low >= -MAX_LOG_OFFSET) & (high <= MAX_LOG_OFFSET)
    if bool(exact.any()):
        # rows that have no window take an offset of one that has: what they decode to does not count, and the table
        # grows with the distance between the least and the greatest
        at = torch.where(exact, low, low[exact].amin()).to(torch.int32)[:, None]
        for own, part in _blocks(rows):
            # a row that a part before has ruled out is not looked at again
            if bool(exact[own].any()):
                exact[own] &= _survives(part, fmt, at[own]).all(1)
    return low, high, exact


def _nearest_log(x: torch.Tensor, fmt: LNSFormat) -> torch.Tensor:
    """round(log(x) * 2^F), which is E of what a code decodes to."""
    scale = (1 << fmt.fraction_bits) / math.log2(fmt.base)
    return (x.to(torch.float64).log2() * scale).round().to(torch.int64)


def _extremes(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each row the greatest magnitude, the smallest but zeros and NaN, and whether its magnitudes differ."""
    if not rows.shape[1]:
        rows = rows.new_zeros(len(rows), 1)
    magnitude = _magnitude(rows)
    greatest = magnitude.amax(1)
    return greatest, torch.where(magnitude > 0, magnitude, math.inf).amin(1), magnitude.amin(1) < greatest


def _magnitude(x: torch.Tensor) -> torch.Tensor:
    """|x|, and 0 for NaN."""
    # infinities stay: they tell that a row was no codes
    return x.detach().nan_to_num(0.0, math.inf, -math.inf).abs()


def _blocks(rows: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Parts of a matrix that need little memory for what is made of them, and the rows that they are of."""
    columns = max(min(_BLOCK, rows.shape[1]), 1)
    count = max(_BLOCK // columns, 1)
    for begin in range(0, len(rows), count):
        for part in rows.detach()[begin : begin + count].split(columns, 1):
            yield slice(begin, begin + count), part


def _are_clipped(rows: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Whether of the smallest magnitude there are half as many as in the octave above, or more.

    A smooth density has as many elements below a small magnitude as between it and its double, so as many are clipped
    to it; else one code of the 2^F of an octave would hold them.
    """
    if not bool(exact.any()):
        return exact
    _, least, _ = _extremes(rows)
    at_least, above = torch.zeros_like(exact, dtype=torch.int64), torch.zeros_like(exact, dtype=torch.int64)
    for own, part in _blocks(rows):
        magnitude, floor = _magnitude(part), least[own, None]
        at_least[own] += (magnitude == floor).sum(1)
        above[own] += ((magnitude > floor) & (magnitude <= 2 * floor)).sum(1)
    return exact & (2 * at_least >= above)


def _survives(floats: torch.Tensor, fmt: LNSFormat, offsets: torch.Tensor) -> torch.Tensor:
    """Which elements are what the code next to them decodes to; signs have no part in it."""
    magnitude = _magnitude(floats)
    inside = (magnitude > 0) & torch.isfinite(magnitude)
    # the inverse of decoding, m = E - log_offset + bias; a sign would be the same on both sides
    m = _nearest_log(torch.where(inside, magnitude, 1.0), fmt) - offsets + fmt.bias
    codes = m.clamp(1, fmt.max_magnitude).to(bridge.code_dtype(fmt))
    low, high = (int(extreme) for extreme in offsets.aminmax())
    scale = Scale(low, high, None if len(offsets) == 1 else offsets)
    return (bridge.decode(codes, fmt, scale, floats.dtype) == magnitude) | (magnitude == 0)


def _tells_codes(fmt: LNSFormat, dtype: torch.dtype) -> bool:
    """Whether lying on the grid tells anything: there are several floats of that type for each code."""
    # floats have 1 / eps numbers in an octave, codes 2^F / log2(base): four to one, or more
    return 4 << fmt.fraction_bits <= math.log2(fmt.base) / torch.finfo(dtype).eps
