"""Scales that fit the channels or groups of a result: of each the least log_offset at which nothing of it saturates.

    wide     the results in 32 bits of the same fraction bits: the same E, as every rounding is to the same steps
    greatest of each channel or group
    scale    greatest E - the greatest of the format

Where results are further apart than 32 bits reach, those that became the smallest magnitude are computed once more,
without the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import MAX_LOG_OFFSET, LNSFormat
from lnsnum.kernels.codes import Codes, LogOffset, of_elements
from lnsnum.kernels.granularity import Granularity
from lnsnum.operations.operation import fitting_offset

Results = Callable[[NDArray[np.bool_] | None, dict[str, Any]], tuple[Codes, int]]
"""Codes, and their log_offset, of the elements that a mask chooses, or of all in their shape; as options say."""


def wide_of(fmt: LNSFormat) -> LNSFormat:
    """The format that has the steps of another, and as many of them as any."""
    return LNSFormat(32, fmt.fraction_bits, base=fmt.base)


def scale_that_fits(
    results: Results, fmt: LNSFormat, rounding: str, shape: tuple[int, ...], each: Granularity
) -> LogOffset:
    """The scale of results of this shape, which `results` computes.

    Raises:
        ValueError: where one would be beyond 2^30.
    """
    wide = wide_of(fmt)
    # away from zero where bits are drawn, as no draw passes then: what is further from it of the directed results
    modes = ("up", "down") if rounding.startswith("stochastic") else (rounding,)

    def magnitudes(chosen: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64], int]:
        found = []
        for mode in modes:
            options = {"out_format": wide, "out_log_offset": "fit", "underflow": "saturate", "rounding": mode}
            codes, offset = results(chosen, options)
            found.append((codes.astype(np.int64) & wide.max_magnitude, offset))
        first = found[0][1]
        return np.max([np.where(m > 0, m + (offset - first), 0) for m, offset in found], axis=0), first

    of_all, offset = magnitudes(None)
    top = each.greatest(of_all)
    greatest = top - wide.bias + offset
    # a number far below the others is 1 here, or 2 by the other mode, whatever it is; no scale is lower than -2^30
    left = (top == 1) | (top == 2)
    while left.any() and offset > -MAX_LOG_OFFSET:
        chosen = of_elements(each.scale(left), shape) != 0
        of_some = np.zeros(shape, np.int64)
        of_some[chosen], offset = magnitudes(chosen)
        again = each.greatest(of_some)
        greatest = np.where(left, again - wide.bias + offset, greatest)
        left &= again <= 2
    if (top > 0).any():
        fitting_offset(int(greatest[top > 0].max()), fmt)
    # of zeros and NaN alone it is 0, as that of a whole tensor
    offsets: Any = np.where(top > 0, np.maximum(greatest - fmt.max_log, -MAX_LOG_OFFSET), 0)
    return each.scale(offsets)
