"""What is published, by names that one can type: arguments of `datapath`.

    lns_madam_8bit       Zhao et al. (arXiv 2106.13914): Q_W, Q_A, Q_E, Q_G of 8 bits, 8 codes an octave, wide sums
    sanyal_16bit         Sanyal, Beerel, Chugg (arXiv 1910.09876): 16 bits everywhere, 20 entries for sb and db
    sanyal_16bit_shift   the same with shifts in the place of the table
    hamad_12bit          Hamad et al. (arXiv 2510.17058): 12 bits, sums by straight lines
    miyashita_5bit       Miyashita, Lee, Murmann (arXiv 1603.01025): 5 bits, base sqrt 2, which is F = 1 at base 2

Where a paper leaves something open, or has what this library has not, a preset is our reading of it: one scale a tensor
in the first, 8 equal lines in the fourth, whose paper fits its own, and wide sums in the last. Those of Sanyal et al.
compute softmax, loss and all else in LNS too, e^x and ln x to the nearest code; the others compute it in float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lnsnum.format import LNSFormat
from lnsnum.gaussian import BitShift, LinearInterpolation, LookUpTable
from lnsnum.torch_bridge.datapath.settings import KINDS, Accumulator, Numbers


def _all(numbers: Numbers) -> dict[str, Any]:
    return dict.fromkeys(KINDS, numbers)


_SANYAL = Numbers(LNSFormat(16, 10), scale=0)

PRESETS: dict[str, Callable[[], dict[str, Any]]] = {
    "lns_madam_8bit": lambda: _all(Numbers(LNSFormat(8, 3))),
    "sanyal_16bit": lambda: {
        **_all(_SANYAL),
        "accumulate": Accumulator(LNSFormat(16, 10), gaussian_log=LookUpTable(20), log_offset=0),
        "elementwise": True,
    },
    "sanyal_16bit_shift": lambda: {
        **_all(_SANYAL),
        "accumulate": Accumulator(LNSFormat(16, 10), gaussian_log=BitShift(), log_offset=0),
        "elementwise": True,
    },
    "hamad_12bit": lambda: {
        **_all(Numbers(LNSFormat(12, 6))),
        "accumulate": Accumulator(LNSFormat(12, 6), gaussian_log=LinearInterpolation(8)),
    },
    "miyashita_5bit": lambda: _all(Numbers(LNSFormat(5, 1))),
}
"""By name; made when they are asked for, since an accumulator tries its Gaussian logarithm, which loads kernels."""


def preset(name: str) -> dict[str, Any]:
    """The arguments of a preset.

    Raises:
        ValueError: where there is none of this name.

    >>> preset("lns_madam_8bit")["errors"].fmt.name
    'lns8f3'
    """
    if name not in PRESETS:
        raise ValueError(f"{name!r} is no preset of a datapath: {', '.join(PRESETS)}")
    return PRESETS[name]()
