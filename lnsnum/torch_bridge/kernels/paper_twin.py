"""The paper's rule on codes in torch operations: the twin of `paper`, on any device and in graphs."""

from __future__ import annotations

from typing import Any

import torch

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels import grid
from lnsnum.torch_bridge.kernels.moments import RANDOM_UNIT
from lnsnum.torch_bridge.kernels.random_words_twin import upper24

_GREATEST_STEP = 2.0**30
_UNIT = float(RANDOM_UNIT)


def move(
    code: torch.Tensor,
    drive: torch.Tensor,
    pull: Any,
    fmt: LNSFormat,
    rounding: str,
    words: torch.Tensor | None,
    *,
    leave: bool,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The moved codes, and where they moved, are at the ceiling, at the floor and zero, and changed their signs.

    Args:
        code: int32, unsigned codes.
        drive: rate g_hat, NaN where the gradient is not finite.
        pull: the weight decay, rate weight_decay.
        fmt, rounding: as in `paper.move`.
        words: int64; not of "nearest".
        leave: zeros with a drive become the smallest magnitude against it.
    """
    # NaN fails it, too: what has no finite gradient is not decayed either
    is_finite = drive.abs() < torch.inf
    shrink = torch.where(is_finite, torch.where(code > fmt.max_magnitude, -drive, drive) + pull, 0.0)
    steps = _round(shrink, fmt, rounding, words).clamp(-fmt.max_magnitude, fmt.max_magnitude)
    m = code & fmt.max_magnitude
    new = torch.where(m > 0, (m - steps).clamp(1, fmt.max_magnitude), m)
    out = code + (new - m)
    moved, is_zero = new != m, code == 0
    if leave:
        # no NaN is greater than 0
        leaves = is_zero & (drive.abs() > 0.0)
        out = torch.where(leaves, torch.where(drive > 0.0, fmt.sign_bit + 1, 1), out)
        moved, new, is_zero = moved | leaves, torch.where(leaves, 1, new), is_zero & ~leaves
    return out, [moved, new == fmt.max_magnitude, new == 1, is_zero, torch.zeros_like(moved)]


def _round(shrink: torch.Tensor, fmt: LNSFormat, rounding: str, words: torch.Tensor | None) -> torch.Tensor:
    """The whole number of code steps by which each magnitude shrinks, int32."""
    # before the conversion, which has no result beyond int32
    size = shrink.abs().clamp(max=_GREATEST_STEP)
    whole = size.to(torch.int32)
    part = size - whole.to(torch.float32)
    if rounding == "nearest" or words is None:
        more = (part > 0.5) | ((part == 0.5) & (whole & 1 == 1))
    else:
        if rounding == "stochastic_value":
            part = _share(part, shrink > 0.0, fmt)
        more = upper24(words) < (part * _UNIT).to(torch.int32)
    whole = whole + more
    return torch.where(shrink > 0.0, whole, -whole)


def _share(part: torch.Tensor, shrinks: torch.Tensor, fmt: LNSFormat) -> torch.Tensor:
    """With which probability a fraction of a step becomes a whole one, unbiased in the value."""
    f = torch.where(shrinks, 1.0 - part, part)
    p = torch.zeros_like(part)
    # Horner in the kernel's order, whose bits these are: no constant term, so the factor comes last
    for coefficient in reversed(grid.up_coefficients(fmt).tolist()):
        p = (p + coefficient) * f
    # 1 - P(1) is 0 but for roundings: a shrink by whole codes takes no share of another
    return torch.where(part > 0.0, torch.where(shrinks, 1.0 - p, p), 0.0)
