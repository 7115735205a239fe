"""How every kernel of the library is compiled: cached, without the GIL, with C's division, serially, without fastmath.

No fastmath and no contraction into fused multiply-adds: a kernel's floating-point operations are the IEEE ones, in the
order written, so that other implementations can agree with it to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` with Numba at its first call, and keep the machine code on disk for the next process."""
    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled
