"""By which rule a scale is fitted to numbers, and the log_offsets that this gives.

    rms     the least at which the greatest magnitude is at or above p_scale * RMS(w)
    max     the least at which nothing saturates
    mse     that at which the numbers, rounded, lose least: the sum of the squared errors is least of all

A weight keeps the rule that it was converted with, for the day on which all of it is written anew.
"""

from __future__ import annotations

import torch

from lnsnum import exact
from lnsnum.format import LNSFormat, check_log_offset
from lnsnum.torch_bridge.kernels.least_error import Axis, least_error_offsets
from lnsnum.torch_bridge.kernels.scale import (
    RMS,
    Fit,
    LogOffset,
    Scale,
    fit_to_rms,
    in_channels,
    root_mean_square,
    std_of_zeros,
)


def fit_scale(
    w: torch.Tensor, fmt: LNSFormat, fit: Fit = RMS, *, of: torch.Tensor | None = None, whole: float | None = None
) -> LogOffset:
    """The log_offset that fits values (float64, finite), or an int32 tensor of one for each channel, shaped as `of`.

    A channel of zeros takes that of `whole`, by default the `rms_of_all`.

    Raises:
        ValueError: where it would be larger than 2^30 in size.
    """
    whole = rms_of_all(w) if whole is None else whole
    offsets = fit_rows(in_channels(w, of), fmt, fit, whole)
    return offsets[0] if of is None else torch.tensor(offsets, dtype=torch.int32, device=w.device).reshape(of.shape)


def fit_each(w: torch.Tensor, fmt: LNSFormat, fit: Fit, of: Scale) -> LogOffset:
    """The same for all that shares a scale in another one: the whole, its channels, its groups."""
    whole = rms_of_all(w)
    found = [fit_scale(piece, fmt, fit, of=own.offsets, whole=whole) for piece, own in of.pieces(w)]
    return of.of_pieces([torch.as_tensor(one) for one in found]) if of.offsets is not None else found[0]


def rms_of_all(w: torch.Tensor) -> float:
    """What stands for the RMS of zeros among other numbers: that of all, and of nothing but zeros `std_of_zeros`."""
    # an RMS of 0 is one of zeros alone
    return root_mean_square(w) or (std_of_zeros(w.shape) if w.numel() else 0.0)


def fit_rows(rows: torch.Tensor, fmt: LNSFormat, fit: Fit, whole: float, *, axis: Axis = "value") -> list[int]:
    """The log_offset of each row of a float64 matrix; of rows of zeros that of the RMS `whole`.

    `axis` is that on which the rule "mse" takes the numbers to be rounded.

    Raises:
        ValueError: where one would be larger than 2^30 in size.
    """
    if fit.rule == "mse":
        fitting = least_error_offsets(rows, fmt, axis=axis)
    elif fit.rule == "max":
        fitting = [_to_greatest(greatest, fmt) for greatest in _greatest(rows)[:, 0].tolist()]
    else:
        # in units of each row's greatest: no square overflows, nor do all of them vanish
        greatest = _greatest(rows)
        unit = torch.where(greatest > 0, greatest, 1.0)
        means = ((rows / unit).square().sum(1) / max(rows.shape[1], 1)).sqrt() * greatest[:, 0]
        fitting = [fit_to_rms(rms, fmt, fit.p_scale) if rms else None for rms in means.tolist()]
    # a row of zeros says nothing of itself: the whole stands for it
    of_all = fit_to_rms(whole, fmt, fit.p_scale) if None in fitting else 0
    return [of_all if offset is None else offset for offset in fitting]


def _greatest(rows: torch.Tensor) -> torch.Tensor:
    """The greatest magnitude of each row (n, 1); 0 of none."""
    return rows.abs().amax(1, keepdim=True) if rows.numel() else rows.new_zeros(len(rows), 1)


def _to_greatest(greatest: float, fmt: LNSFormat) -> int | None:
    if greatest == 0.0:
        return None
    # exact, as for "rms": a logarithm near the midpoint of two codes would be rounded to either side, by the library
    return check_log_offset(exact.nearest_log(*exact.split_float(greatest), fmt.base, fmt.fraction_bits) - fmt.max_log)
